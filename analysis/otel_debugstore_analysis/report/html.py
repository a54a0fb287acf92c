"""The report as one HTML file that needs nothing else: charts, waterfalls and a flame graph, drawn from the spans.

It loads nothing (the content security policy forbids it, and any script but its own), and recorded text is escaped.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

from otel_debugstore_analysis.query import Table
from otel_debugstore_analysis.report.answer import only
from otel_debugstore_analysis.report.draw import bars, escaped, flame_graph, line, waterfall
from otel_debugstore_analysis.report.evidence import EVIDENCE, Evidence
from otel_debugstore_analysis.report.findings import Findings
from otel_debugstore_analysis.report.verdict import recommendations, verdict
from otel_debugstore_analysis.text import heading, human

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1c1f24;--paper:#fff;--soft:#5c6470;--rule:#d9dde3;--bar:#4c78a8}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8eb;--paper:#14171b;--soft:#9aa3af;--rule:#30363d}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1080px;margin:2rem auto;
padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem;border-bottom:1px solid var(--rule);padding-bottom:.3rem}
code,pre,td.text{font:13px/1.45 ui-monospace,monospace;overflow-wrap:anywhere}
pre{overflow:auto;border:1px solid var(--rule);padding:.7rem;border-radius:6px}
table{border-collapse:collapse;width:100%;font-size:13px}.scroll{overflow-x:auto}
th,td{padding:.25rem .6rem;border-bottom:1px solid var(--rule);text-align:left;vertical-align:top}
th.number,td.number{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.note{color:var(--soft);font-size:13px}.verdict li{font-size:1.05rem}
svg{max-width:100%}svg.chart,svg.flame{width:100%;height:auto}
svg text{font:11px ui-monospace,monospace;fill:var(--ink);pointer-events:none}
svg rect{stroke:var(--paper);stroke-width:.5}svg .box{cursor:pointer}svg .box text{fill:#14171b}
svg.line polyline{fill:none;stroke:var(--bar);stroke-width:1.5}svg.line circle{fill:var(--bar)}
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
      const room = Math.floor((shown - 8) / 6.6), name = text.dataset.t;
      text.textContent = room < 3 ? '' : name.length <= room ? name : name.slice(0, room - 1) + '\\u2026';
    }
  });
}
"""
_POINTS: Final = 6


def html_report(findings: Findings) -> str:
    """Return the report as a page."""
    body = [
        f"<h1>{escaped(_TITLE)}</h1>",
        f'<ul class="verdict">{"".join(f"<li>{_inline(text)}</li>" for text in verdict(findings))}</ul>',
        _section("What to do", _recommended(findings)),
        _section("Where the time goes", _times(findings)),
        _section("Over time", _history(findings)),
        _section("Flame graph", flame_graph(findings.flame) + _FLAME_NOTE if findings.flame else ""),
        *(_section(_trace_title(trace.trace_id), waterfall(trace)) for trace in findings.traces),
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


def _trace_title(trace_id: str) -> str:
    return f"Slow trace {trace_id[:32]}"


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
    rows = [
        (str(row["component"] or ""), row["self_share"] or 0.0, human("self_share", row["self_share"]))
        for row in findings.rows("performance.groups")
    ]
    most = max((share for _, share, _ in rows), default=0.0)
    return bars([(name, share / most if most else 0.0, shown) for name, share, shown in rows]) if rows else ""


def _history(findings: Findings) -> str:
    rows = findings.rows("performance.over_time")
    starts = sorted({row["start_ns"] for row in rows})
    if len(starts) < 2:
        return ""
    by_component: dict[Any, dict[int, float]] = {}
    for row in rows:
        by_component.setdefault(row["component"], {})[row["start_ns"]] = row["p95_ns"]
    shown = "".join(
        f'<tr><td class="text">{escaped(component or "")}</td><td>{line([*map(points.get, starts)], "p95")}</td>'
        f'<td class="number">{human("p95_ns", max(filter(None, points.values()), default=None))}</td></tr>\n'
        for component, points in list(by_component.items())[:_POINTS]
    )
    return f'<table><tr><th>component</th><th>p95</th><th class="number">most</th></tr>\n{shown}</table>'


def _table(evidence: Evidence, findings: Findings) -> str:
    table = findings.tables.get(evidence.table)
    if table is None or not (table.rows or table.notes):
        return ""
    shown = only(table, evidence.columns) if table.rows else table
    notes = "".join(f'<p class="note">{escaped(note, 400)}</p>' for note in shown.notes)
    if not shown.rows:
        return notes
    classes = ["number" if _is_numeric(shown, i) else "text" for i in range(len(shown.columns))]
    head = _row("th", classes, map(heading, shown.columns))
    body = "".join(_row("td", classes, map(human, shown.columns, row)) for row in shown.rows)
    more = f'<p class="note">{shown.left_out:,} more: {escaped(evidence.command)}</p>' if shown.left_out else ""
    return f'<div class="scroll"><table>{head}{body}</table></div>{notes}{more}'


def _is_numeric(table: Table, place: int) -> bool:
    return all(row[place] is None or isinstance(row[place], (int, float)) for row in table.rows)


def _row(tag: str, classes: Sequence[str], cells: Iterable[str]) -> str:
    inner = "".join(
        f'<{tag} class="{kind}">{escaped(cell, 400)}</{tag}>' for kind, cell in zip(classes, cells, strict=True)
    )
    return f"<tr>{inner}</tr>\n"
