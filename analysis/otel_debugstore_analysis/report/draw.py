"""Charts as SVG: bars, lines, waterfalls, flame graphs. Every text that goes in is escaped."""

from __future__ import annotations

import html
import zlib
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from otel_debugstore_analysis.query import Trace
from otel_debugstore_analysis.report.flame import Box
from otel_debugstore_analysis.text import duration, shortened

WIDTH: Final = 1000
_LABEL: Final = 340
_ROW: Final = 20
_TICKS: Final = 4
_MAX_NAME: Final = 200
_MAX_INDENT: Final = 24
_CHARACTER: Final = 6.7
"""How wide a character of 11 pixels is, about."""
_SMALL: Final = (220, 28)
"""Width and height of small charts."""


class Point(NamedTuple):
    """A value and where it lies, from 0 on the left to 1 on the right; it is tied to the one before, or not."""

    place: float
    value: float
    is_tied: bool


def escaped(text: Any, limit: int = _MAX_NAME) -> str:
    """Return recorded text for HTML: on one line, without markup, and without its middle if it is too long."""
    return html.escape(shortened(str(text), limit), quote=True)


def bars(rows: Sequence[tuple[str, float, str]]) -> str:
    """Return a chart of bars: of each its name, its length as a share, and what stands behind it."""
    parts = []
    for number, (name, share, shown) in enumerate(rows):
        top = number * _ROW
        width = max(0.0, min(1.0, share)) * (WIDTH - _LABEL - 100)
        parts.append(
            f"<g><title>{escaped(name)}: {escaped(shown)}</title>"
            f'<text x="{_LABEL - 8}" y="{top + 14}" text-anchor="end">{_fitting(name, _LABEL - 8)}</text>'
            f'<rect class="{color(name)}" x="{_LABEL}" y="{top + 3}" width="{width:.1f}" height="14" rx="2"/>'
            f'<text x="{_LABEL + width + 6:.1f}" y="{top + 14}">{escaped(shown)}</text></g>\n'
        )
    return _svg("".join(parts), len(rows) * _ROW)


def line(points: Sequence[Point], shown: str) -> str:
    """Return a small line from left to right; a dot where a value stands alone."""
    width, height = _SMALL
    most = max((point.value for point in points), default=0.0)
    runs: list[list[str]] = []
    for point in points:
        at = f"{2 + point.place * (width - 4):.1f},{height - 3 - (height - 6) * _share(point.value, most):.1f}"
        if point.is_tied and runs:
            runs[-1].append(at)
        else:
            runs.append([at])
    lines = "".join(f'<polyline points="{" ".join(run)}"/>' for run in runs if len(run) > 1)
    for run in runs:
        if len(run) == 1:
            x, y = run[0].split(",")
            lines += f'<circle cx="{x}" cy="{y}" r="2"/>'
    return _small(lines, shown)


def columns(values: Sequence[float], shown: str) -> str:
    """Return small columns side by side, the highest as high as there is room."""
    width, height = _SMALL
    most, step = max(values, default=0.0), width / max(len(values), 1)
    rects = "".join(
        f'<rect x="{number * step:.1f}" y="{height - high:.1f}" width="{step:.1f}" height="{high:.1f}"/>'
        for number, value in enumerate(values)
        if (high := max(height * _share(value, most), 1.0 if value else 0.0))
    )
    return _small(rects, shown)


def _share(value: float, most: float) -> float:
    return value / most if most else 0.0


def _small(content: str, shown: str) -> str:
    width, height = _SMALL
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg class="small" {size} role="img"><title>{escaped(shown)}</title>{content}</svg>'


def waterfall(trace: Trace) -> str:
    """Return a trace: a bar a span, from its begin to its end."""
    whole = max(trace.duration_ns or 0, 1)
    room = WIDTH - _LABEL
    parts = [_axis(whole, (len(trace.spans) + 1) * _ROW)]
    for number, span in enumerate(trace.spans, 1):
        top = number * _ROW
        left = room * max(0.0, min(1.0, (span.offset_ns or 0) / whole))
        width = max(min(room * max(0.0, (span.duration_ns or 0) / whole), room - left), 1.0)
        indent = 8 * min(span.depth, _MAX_INDENT)
        failed = " failed" if span.status == "ERROR" else ""
        took = duration(span.duration_ns) if span.duration_ns is not None else "-"
        parts.append(
            f"<g><title>{escaped(span.name)}: {took}{failed}</title>"
            f'<text x="{indent}" y="{top + 14}">{_fitting(span.name, _LABEL - indent - 8)}</text>'
            f'<rect class="{"error" if failed else color(span.name)}" x="{_LABEL + left:.1f}" y="{top + 3}" '
            f'width="{width:.1f}" height="14" rx="2"/>{_beside(took, _LABEL + left, width, top + 14)}</g>\n'
        )
    return _svg("".join(parts), (len(trace.spans) + 1) * _ROW)


def _axis(whole_ns: int, height: int) -> str:
    """Return lines at the quarters of a duration, with their times above."""
    parts = []
    for number in range(_TICKS + 1):
        x = _LABEL + (WIDTH - _LABEL) * number / _TICKS
        anchor = ("start", "middle", "end")[(number > 0) + (number == _TICKS)]
        parts.append(f'<line x1="{x:.0f}" x2="{x:.0f}" y1="{_ROW}" y2="{height}"/>')
        parts.append(f'<text x="{x:.0f}" y="14" text-anchor="{anchor}">{duration(whole_ns * number / _TICKS)}</text>')
    return f'<g class="axis">{"".join(parts)}</g>\n'


def _beside(shown: str, left: float, width: float, y: int) -> str:
    """Return a text in a bar where it fits, else behind it, else before it."""
    needed = len(shown) * _CHARACTER + 8
    if needed <= width:
        return f'<text class="in" x="{left + 4:.1f}" y="{y}">{shown}</text>'
    if left + width + needed <= WIDTH:
        return f'<text x="{left + width + 4:.1f}" y="{y}">{shown}</text>'
    return f'<text x="{left - 4:.1f}" y="{y}" text-anchor="end">{shown}</text>'


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
    size = f'viewBox="0 0 {WIDTH} {max(height, 1)}"'
    return f'<div class="scroll"><svg class="{kind}" {size} role="img">\n{content}</svg></div>\n'
