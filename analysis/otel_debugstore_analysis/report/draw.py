"""Charts as SVG: bars, lines, waterfalls, flame graphs. Every text that goes in is escaped."""

from __future__ import annotations

import html
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

from otel_debugstore_analysis.query import Trace
from otel_debugstore_analysis.report.flame import Box
from otel_debugstore_analysis.text import duration, printable

WIDTH: Final = 1000
_LABEL: Final = 340
_ROW: Final = 20
_MAX_NAME: Final = 200
_MAX_INDENT: Final = 24
_CHARACTER: Final = 6.6
"""How wide a character of 11 pixels is, about."""


def escaped(text: Any, limit: int = _MAX_NAME) -> str:
    """Return recorded text for HTML: on one line, cut, and no markup."""
    plain = printable(str(text)[: 2 * limit])
    return html.escape(plain if len(plain) <= limit else f"{plain[: limit - 1]}…", quote=True)


def bars(rows: Sequence[tuple[str, float, str]]) -> str:
    """Return a chart of bars: of each its name, its length as a share, and what stands behind it."""
    parts = []
    for number, (name, share, shown) in enumerate(rows):
        top = number * _ROW
        width = max(0.0, min(1.0, share)) * (WIDTH - _LABEL - 100)
        parts.append(
            f"<g><title>{escaped(name)}: {escaped(shown)}</title>"
            f'<text class="name" x="{_LABEL - 8}" y="{top + 14}" text-anchor="end">{_fitting(name, _LABEL - 8)}</text>'
            f'<rect class="{color(name)}" x="{_LABEL}" y="{top + 3}" width="{width:.1f}" height="14" rx="2"/>'
            f'<text x="{_LABEL + width + 6:.1f}" y="{top + 14}">{escaped(shown)}</text></g>\n'
        )
    return _svg("".join(parts), len(rows) * _ROW)


def line(values: Sequence[float | None], shown: str) -> str:
    """Return a small line from left to right; a gap where there is no value."""
    width, height = 220, 28
    most = max((value for value in values if value is not None), default=0.0)
    step = width / max(len(values) - 1, 1)
    runs: list[list[str]] = [[]]
    for number, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append(f"{number * step:.1f},{height - 3 - (height - 6) * (value / most if most else 0):.1f}")
    lines = "".join(f'<polyline points="{" ".join(run)}"/>' for run in runs if len(run) > 1)
    dots = "".join(f'<circle cx="{p.split(",")[0]}" cy="{p.split(",")[1]}" r="2"/>' for [p] in _single(runs))
    title = f"<title>{escaped(shown)}</title>"
    return f'<svg class="line" width="{width}" height="{height}" role="img">{title}{lines}{dots}</svg>'


def _single(runs: Iterable[list[str]]) -> list[list[str]]:
    return [run for run in runs if len(run) == 1]


def waterfall(trace: Trace) -> str:
    """Return a trace: a bar a span, from its begin to its end."""
    whole = max(trace.duration_ns or 0, 1)
    room = WIDTH - _LABEL
    parts = []
    for number, span in enumerate(trace.spans):
        top = number * _ROW
        left = room * max(0.0, min(1.0, (span.offset_ns or 0) / whole))
        width = min(room * max(0.0, (span.duration_ns or 0) / whole), room - left)
        indent = 8 * min(span.depth, _MAX_INDENT)
        failed = " failed" if span.status == "ERROR" else ""
        took = duration(span.duration_ns) if span.duration_ns is not None else "-"
        parts.append(
            f"<g><title>{escaped(span.name)}: {took}{failed}</title>"
            f'<text class="name" x="{indent}" y="{top + 14}">{_fitting(span.name, _LABEL - indent - 8)}</text>'
            f'<rect class="{"error" if failed else color(span.name)}" x="{_LABEL + left:.1f}" y="{top + 3}" '
            f'width="{max(width, 1):.1f}" height="14" rx="2"/>'
            f'<text x="{min(_LABEL + left + 4, WIDTH - 60):.1f}" y="{top + 14}">{took}</text></g>\n'
        )
    return _svg("".join(parts), len(trace.spans) * _ROW)


def flame_graph(boxes: Sequence[Box]) -> str:
    """Return a flame graph, the roots at the top; a click on a box makes it as wide as all (see the page's script)."""
    parts = []
    for box in boxes:
        left, width = box.left * WIDTH, box.width * WIDTH
        figures = f"{duration(box.total_ns)}, {100 * box.width:.1f} %, own {duration(box.self_ns)}, {box.calls:,} calls"
        parts.append(
            f'<g class="box" data-l="{box.left:.6f}" data-w="{box.width:.6f}">'
            f"<title>{escaped(box.name)}: {figures}</title>"
            f'<rect class="{color(box.name)}" x="{left:.2f}" y="{box.depth * _ROW}" width="{width:.2f}" height="19"/>'
            f'<text x="{left + 4:.2f}" y="{box.depth * _ROW + 14}" data-t="{escaped(box.name, 120)}">'
            f"{_fitting(box.name, width - 8)}</text></g>\n"
        )
    return _svg("".join(parts), (1 + max((box.depth for box in boxes), default=0)) * _ROW, "flame")


def color(name: str) -> str:
    """Return the class of a name's colour: the same in all charts."""
    return f"c{zlib.crc32(name.encode(errors='replace')) % 12}"


def _fitting(name: str, width: float) -> str:
    room = int(width / _CHARACTER)
    return escaped(name, room) if room >= 3 else ""


def _svg(content: str, height: int, kind: str = "chart") -> str:
    return f'<svg class="{kind}" viewBox="0 0 {WIDTH} {max(height, 1)}" role="img">\n{content}</svg>\n'
