"""The report as sections, the most important first, for a number of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from otel_debugstore_analysis.plain_json import json_text
from otel_debugstore_analysis.query import Trace
from otel_debugstore_analysis.report.answer import only
from otel_debugstore_analysis.report.budget import Section, Tier, fit, markdown
from otel_debugstore_analysis.report.evidence import EVIDENCE, RECORDS_COMMAND, Evidence, command_of, trace_command
from otel_debugstore_analysis.report.findings import Findings
from otel_debugstore_analysis.report.markdown import UNTRUSTED, code, fence, fenced_line, table_head, table_line
from otel_debugstore_analysis.report.verdict import recommendations, verdict
from otel_debugstore_analysis.text import duration, printable

_MAX_INDENT: Final = 24
_MAX_NAME: Final = 200


def markdown_report(findings: Findings, max_tokens: int) -> str:
    """Return the report as Markdown of at most so many tokens."""
    fetching = (findings.command("report", "--max-tokens", tokens) for tokens in ("20000", "4000"))
    return fit(sections(findings), max_tokens, markdown(*fetching))


def sections(findings: Findings) -> list[Section]:
    """Return the sections of a report."""
    found = [
        Section(
            Tier.VERDICT,
            "verdict",
            f"# Report\n\n{UNTRUSTED}\n",
            tuple(f"- {text}\n" for text in verdict(findings)),
            findings.command("report"),
            unit="sentences",
        ),
        Section(
            Tier.RECOMMENDATIONS,
            "recommendations",
            "## Recommendations\n\n",
            tuple(f"{number}. {found.text}\n" for number, found in enumerate(recommendations(findings), 1)),
            findings.command(*command_of("candidates")),
            unit="items",
        ),
        *(section for evidence in EVIDENCE for section in _evidence(evidence, findings)),
        *_notes(findings),
        *_code(findings),
        *(_trace(trace, findings) for trace in findings.traces),
        *(_records(name, findings) for name in findings.records),
    ]
    return [section for section in found if section.items]


def _evidence(evidence: Evidence, findings: Findings) -> Iterator[Section]:
    table = findings.tables.get(evidence.table)
    if table is None or not table.rows:
        return
    shown, command = only(table, evidence.columns), command_of(evidence.table)
    yield Section(
        Tier.EVIDENCE,
        command[0],
        f"## {evidence.title}\n\n{table_head(shown.columns, shown.rows)}",
        tuple(table_line(shown.columns, row) for row in shown.rows),
        findings.command(*command),
        further=table.left_out or 0,
    )


def _notes(findings: Findings) -> Iterator[Section]:
    """Yield what the analyses have to say of their answers, each sentence once."""
    notes = dict.fromkeys(note for table in findings.tables.values() for note in table.notes)
    yield Section(
        Tier.EVIDENCE,
        "notes",
        "## Notes\n\n",
        tuple(f"- {fenced_line(note)}" for note in notes),
        findings.command("report", "--format", "json"),
        unit="sentences",
    )


def _code(findings: Findings) -> Iterator[Section]:
    """Yield the code of components, first of those that are worth a change; of new versions what changed."""
    wanted = {one.component: place for place, one in reversed([*enumerate(recommendations(findings))])}
    rows = [row for row in findings.rows("variants") if row["source"] or row["diff"]]
    for row in sorted(rows, key=lambda row: wanted.get(row["component"], len(wanted))):
        lines = [fenced_line(text) for text in (row["diff"] or row["source"]).splitlines()]
        opening, closing = fence(lines, "diff" if row["diff"] else "python")
        yield Section(
            Tier.CODE,
            "code",
            f"## Code of {code(row['component'])}, {code(row['variant'])}\n\n{opening}",
            tuple(lines),
            findings.command(*command_of("variants"), "--format", "json"),
            unit="lines",
            tail=closing,
        )


def _trace(trace: Trace, findings: Findings) -> Section:
    """Return a trace as lines: when each span began, how long it took, and what it was."""
    lines = []
    for span in trace.spans:
        took = duration(span.duration_ns) if span.duration_ns is not None else "-"
        began = duration(span.offset_ns) if span.offset_ns is not None else "-"
        failed = f" ERROR {span.error or ''}".rstrip() if span.status == "ERROR" else ""
        name = printable(span.name[:_MAX_NAME]).replace("`", "\\x60")
        lines.append(fenced_line(f"{began:>8} {took:>8} {'  ' * min(span.depth, _MAX_INDENT)}{name}{failed}"))
    opening, closing = fence(lines, "text")
    return Section(
        Tier.SAMPLES,
        "trace",
        f"## Slow trace {code(trace.trace_id)}\n\n{opening}",
        tuple(lines),
        findings.command(*trace_command(trace), selects=False),
        unit="spans",
        tail=closing,
        further=trace.left_out,
    )


def _records(name: str, findings: Findings) -> Section:
    """Return records as a line of JSON each."""
    rows = findings.records[name].dicts()
    lines = [fenced_line(json_text({k: v for k, v in row.items() if v is not None})) for row in rows]
    opening, closing = fence(lines, "json")
    return Section(
        Tier.SAMPLES,
        name,
        f"## {name.replace('_', ' ').capitalize()}\n\n{opening}",
        tuple(lines),
        findings.command(*RECORDS_COMMAND, selects=False),
        unit="records",
        tail=closing,
    )
