"""The report as one HTML file that needs nothing else: charts, waterfalls and a flame graph, drawn from the spans.

It loads nothing (the content security policy forbids it, and any script but its own), and recorded text is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import html
import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

from otel_debugstore_analysis.query import Table, Trace
from otel_debugstore_analysis.report.answer import only
from otel_debugstore_analysis.report.draw import Point, bars, columns, escaped, flame_graph, line, waterfall
from otel_debugstore_analysis.report.evidence import EVIDENCE, Evidence, command_of, trace_command
from otel_debugstore_analysis.report.findings import Findings
from otel_debugstore_analysis.report.verdict import recommendations, verdict
from otel_debugstore_analysis.text import duration, heading, human, instant

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1c1f24;--paper:#fff;--soft:#5c6470;--rule:#d9dde3;--bar:#4c78a8}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8eb;--paper:#14171b;--soft:#9aa3af;--rule:#30363d}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1080px;margin:2rem auto;
padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem;border-bottom:1px solid var(--rule);padding-bottom:.3rem;
overflow-wrap:anywhere}
code,pre,td.text{font:13px/1.45 ui-monospace,monospace;overflow-wrap:anywhere}
pre{overflow:auto;border:1px solid var(--rule);padding:.7rem;border-radius:6px}
table{border-collapse:collapse;width:100%;font-size:13px}.scroll{overflow-x:auto}
th,td{padding:.25rem .6rem;border-bottom:1px solid var(--rule);text-align:left;vertical-align:top}
td.text{min-width:9rem}td.short{font:13px/1.45 ui-monospace,monospace;white-space:nowrap}
th.number,td.number{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.note{color:var(--soft);font-size:13px}.verdict li{font-size:1.05rem}
svg.chart,svg.flame{display:block;width:100%;min-width:720px;height:auto}
svg text{font:11px ui-monospace,monospace;fill:var(--ink);pointer-events:none}
svg rect{stroke:var(--paper);stroke-width:.5}svg .box{cursor:pointer}svg .box text,svg text.in{fill:#14171b}
svg .axis line{stroke:var(--rule)}svg .axis text{fill:var(--soft)}
svg.small polyline{fill:none;stroke:var(--bar);stroke-width:1.5}svg.small circle,svg.small rect{fill:var(--bar)}
.error{fill:#e45756}.c0{fill:#9ecae9}.c1{fill:#ffbf79}.c2{fill:#88d27a}.c3{fill:#f2cf5b}.c4{fill:#83bcb6}.c5{fill:#d8b5a5}
.c6{fill:#d6a5c9}.c7{fill:#b6c6f2}.c8{fill:#fcbfd2}.c9{fill:#c7d66d}.c10{fill:#e8a87c}.c11{fill:#a8d8c8}
"""
_SCRIPT: Final = """
for (const svg of document.querySelectorAll('svg.flame')) {
  const boxes = [...svg.querySelectorAll('.box')];
  svg.addEventListener('click', event => {
    const box = event.target.closest('.box');
    const left = box ? +box.dataset.l : 0, width = box ? +box.dataset.w : 1;
    for (const other of boxes) {
      const l = (+other.dataset.l - left) / width, w = +other.dataset.w / width;
      const from = Math.max(l, 0), to = Math.min(l + w, 1), shown = Math.max(to - from, 0) * 1000;
      const [rect, text] = [other.querySelector('rect'), other.querySelector('text')];
      other.style.display = shown > 0.3 ? '' : 'none';
      rect.setAttribute('x', from * 1000);
      rect.setAttribute('width', shown);
      text.setAttribute('x', from * 1000 + 4);
      const room = Math.floor((shown - 8) / 6.7), name = text.dataset.t;
      const begin = Math.floor((room - 1) / 3), end = name.length - (room - 1 - begin);
      const short = name.length <= room ? name : name.slice(0, begin) + '\\u2026' + name.slice(end);
      text.textContent = room < 3 ? '' : short;
    }
  });
}
"""
_HISTORIES: Final = 6
_BARS: Final = 15
_LEAST_SHARE: Final = 0.0005
_FEWEST_COLUMNS: Final = 10
_SHORT: Final = 32
"""Texts of a column of which none is longer are not broken."""


def html_report(findings: Findings) -> str:
    """Return the report as a page."""
    body = [
        f"<h1>{escaped(_TITLE)}</h1>",
        f'<ul class="verdict">{"".join(f"<li>{_inline(text)}</li>" for text in verdict(findings))}</ul>',
        _section("What to do", _recommended(findings)),
        _section("Where the time goes", _times(findings)),
        _section("Over time, and how long calls take", _history(findings)),
        _section("Flame graph", flame_graph(findings.flame) + _FLAME_NOTE if findings.flame else ""),
        *(_section(f"Slow trace {trace.trace_id[:32]}", _trace(trace, findings)) for trace in findings.traces),
        *(_section(evidence.title, _table(evidence, findings)) for evidence in EVIDENCE),
    ]
    return _PAGE.format(
        policy=f"default-src 'none'; style-src '{_digest(_STYLE)}'; script-src '{_digest(_SCRIPT)}'; base-uri 'none'; "
        "form-action 'none'",
        title=escaped(_TITLE),
        style=_STYLE,
        body="\n".join(filter(None, body)),
        script=_SCRIPT,
    )


_TITLE: Final = "Where the time goes, and what to do about it"
_FLAME_NOTE: Final = (
    '<p class="note">Roots at the top; a box is as wide as the self times in it and below it. Click to look closer, '
    "click beside it to go back.</p>"
)
_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
<script>{script}</script>
</body>
</html>
"""


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escaped(title)}</h2>\n{content}</section>" if content else ""


def _trace(trace: Trace, findings: Findings) -> str:
    command = findings.command(*trace_command(trace), selects=False)
    return f"{waterfall(trace)}{_more(trace.left_out, 'spans', command)}"


def _more(count: int | None, what: str, command: str) -> str:
    """Return how many more there are, and the command that shows them."""
    if not count:
        return ""
    shown = f": <code>{html.escape(command)}</code>" if command else ""
    return f'<p class="note">{count:,} more {what}{shown}</p>'


def _note(text: str) -> str:
    return f'<p class="note">{escaped(text, 400)}</p>'


def _inline(markdown: str) -> str:
    """Return one of our sentences as HTML: its code spans are recorded text."""
    parts = markdown.split("`")
    return "".join(
        f"<code>{escaped(part, 2000)}</code>" if number % 2 else escaped(part, 2000)
        for number, part in enumerate(parts)
    )


def _recommended(findings: Findings) -> str:
    items = "".join(f"<li>{_inline(found.text)}</li>\n" for found in recommendations(findings))
    return f"<ol>{items}</ol>" if items else ""


def _times(findings: Findings) -> str:
    """Return the components by their own time, those that are asked for that have most."""
    shares = [(row["self_share"] or 0.0, str(row["component"] or "")) for row in findings.rows("performance.groups")]
    shares = sorted(((share, name) for share, name in shares if share >= _LEAST_SHARE), key=lambda one: -one[0])
    return bars([(name, share / shares[0][0], human("self_share", share)) for share, name in shares[:_BARS]])


def _history(findings: Findings) -> str:
    """Return for the first components how long calls took over time, and how durations are spread."""
    rows = findings.rows("performance.over_time")
    if not rows:
        return ""
    first, last = min(row["start_ns"] for row in rows), max(row["end_ns"] for row in rows)
    spread = _by_component(findings.rows("performance.histogram"))
    shown = ""
    for component, history in list(_by_component(rows).items())[:_HISTORIES]:
        name = escaped(component or "")
        most = max((row["p95_ns"] for row in history if row["p95_ns"] is not None), default=None)
        over_time, durations = _points(history, first, last - first), _durations(spread.get(component, []))
        shown += (
            f'<tr><td class="text">{name}</td><td>{line(over_time, "p95 over time")}</td>'
            f'<td class="number">{human("p95_ns", most)}</td><td>{durations}</td></tr>\n'
        )
    when = f"from {instant(first)} to {instant(last)} UTC"
    head = '<tr><th>component</th><th>p95 over time</th><th class="number">highest</th><th>durations</th></tr>'
    note = (
        f'<p class="note">Over time: {when}. Durations: how many calls took how long, ten columns a power of ten.</p>'
    )
    return f'<div class="scroll"><table>{head}\n{shown}</table></div>{note}'


def _by_component(rows: Iterable[dict[str, Any]]) -> dict[Any, list[dict[str, Any]]]:
    found: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["component"], []).append(row)
    return found


def _points(history: Sequence[dict[str, Any]], first_ns: int, whole_ns: int) -> list[Point]:
    """Return the values of intervals; one is tied to the one before if no other lies between."""
    points, end_ns = [], None
    for row in history:
        if row["p95_ns"] is not None:
            middle = (row["start_ns"] + row["end_ns"]) / 2
            points.append(Point((middle - first_ns) / max(whole_ns, 1), row["p95_ns"], row["start_ns"] == end_ns))
            end_ns = row["end_ns"]
    return points


def _durations(histogram: Sequence[dict[str, Any]]) -> str:
    """Return how durations are spread over tenths of powers of ten, and from where to where."""
    counts = {round(10 * math.log10(row["from_ns"])): row["count"] for row in histogram if row["from_ns"]}
    if not counts:
        return ""
    places = range(min(counts), max(max(counts), min(counts) + _FEWEST_COLUMNS - 1) + 1)
    ends = (duration(10 ** (min(counts) / 10)), duration(10 ** ((max(counts) + 1) / 10)))
    return f"{columns([counts.get(n, 0) for n in places], 'calls by duration')}<br>{ends[0]} to {ends[1]}"


def _table(evidence: Evidence, findings: Findings) -> str:
    table = findings.tables.get(evidence.table)
    if table is None or not (table.rows or table.notes):
        return ""
    shown = only(table, evidence.columns) if table.rows else table
    notes = "".join(map(_note, shown.notes))
    if not shown.rows:
        return notes
    cells = [[human(name, value) for name, value in zip(shown.columns, row, strict=True)] for row in shown.rows]
    classes = [_class(shown, cells, place) for place in range(len(shown.columns))]
    head = _row("th", classes, map(heading, shown.columns))
    body = "".join(_row("td", classes, row) for row in cells)
    more = _more(shown.left_out, "rows", findings.command(*command_of(evidence.table)))
    return f'<div class="scroll"><table>{head}{body}</table></div>{notes}{more}'


def _class(table: Table, cells: Sequence[Sequence[str]], place: int) -> str:
    if all(row[place] is None or isinstance(row[place], (int, float)) for row in table.rows):
        return "number"
    return "short" if max(len(row[place]) for row in cells) <= _SHORT else "text"


def _row(tag: str, classes: Sequence[str], cells: Iterable[str]) -> str:
    inner = "".join(
        f'<{tag} class="{kind}">{escaped(cell, 400)}</{tag}>' for kind, cell in zip(classes, cells, strict=True)
    )
    return f"<tr>{inner}</tr>\n"
