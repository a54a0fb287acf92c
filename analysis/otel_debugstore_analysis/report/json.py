"""The report as JSON; docs/report.md says what is in it. With a budget it is shortened as Markdown is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from otel_debugstore_analysis.plain_json import json_text
from otel_debugstore_analysis.query import Table, Trace
from otel_debugstore_analysis.report.answer import as_dict, cut_to, narrow_to
from otel_debugstore_analysis.report.budget import Layout, LeftOut, Section, Tier, fit
from otel_debugstore_analysis.report.findings import Findings
from otel_debugstore_analysis.report.markdown import UNTRUSTED
from otel_debugstore_analysis.report.tokens import fits
from otel_debugstore_analysis.report.verdict import Recommendation, recommendations, verdict

SCHEMA: Final = "otel-debugstore/report/1"
_TEXT_WIDTH: Final = 200
_CODE: Final = ("variants",)


def json_report(findings: Findings, max_tokens: int | None = None) -> str:
    """Return the report as JSON.

    Args:
        findings: What was found.
        max_tokens: The most it may have; None for all of it.
    """
    tables = {**findings.tables, **findings.records}
    if max_tokens is not None:
        tables = {name: table if name in _CODE else narrow_to(table, _TEXT_WIDTH) for name, table in tables.items()}
    document = _Document(findings, verdict(findings), recommendations(findings), tables)
    if max_tokens is None:
        return document.text({}, "[]")

    def text(sections: Sequence[Section], taken: Sequence[int], rest: str) -> str:
        return document.text({one.name: items for one, items in zip(sections, taken, strict=True)}, rest)

    ways = (_listed, _by_name, _in_all, lambda rest: "[]")
    return fit(document.sections(), max_tokens, Layout(text, ways, _least))


@dataclass(frozen=True)
class _Document:
    """What there is to show."""

    findings: Findings
    verdict: list[str]
    recommendations: list[Recommendation]
    tables: Mapping[str, Table]

    def sections(self) -> list[Section]:
        """Return what can be shortened; the items are counted only."""
        parts = [
            (Tier.VERDICT, "verdict", len(self.verdict), "debugstore report", 0),
            (Tier.RECOMMENDATIONS, "recommendations", len(self.recommendations), "debugstore candidates", 0),
        ]
        for name, table in self.tables.items():
            is_record = name in self.findings.records
            tier = Tier.CODE if name in _CODE else Tier.SAMPLES if is_record else Tier.EVIDENCE
            command = f"debugstore {name.partition('.')[0].replace('_', '-')}"
            if is_record:
                command = 'debugstore sql "SELECT * FROM records"'
            parts.append((tier, name, len(table.rows), command, table.left_out or 0))
        for trace in self.findings.traces:
            parts.append((Tier.SAMPLES, _name(trace), len(trace.spans), f"debugstore {_name(trace)}", trace.left_out))
        return [
            Section(tier, name, "", ("",) * count, f"{command} --format json", further=further)
            for tier, name, count, command, further in parts
        ]

    def text(self, counts: Mapping[str, int], rest: str) -> str:
        """Return the document with so many items of each section; all of those without a number."""
        shown: dict[str, Any] = {"schema": SCHEMA, "verdict": self.verdict[: counts.get("verdict")]}
        found = [one._asdict() for one in self.recommendations[: counts.get("recommendations")]]
        kept = {n: as_dict(cut_to(table, counts.get(n, len(table.rows)))) for n, table in self.tables.items()}
        traces = [self._trace(trace, counts.get(_name(trace))) for trace in self.findings.traces]
        has_rows = any(table["rows"] for table in kept.values())
        if found or has_rows or not counts:
            shown |= {"recommendations": found, "note": UNTRUSTED.strip()}
        if has_rows or not counts:
            shown |= {"overview": self.findings.overview._asdict(), "tables": kept}
        if not counts or any(trace["spans"] for trace in traces):
            shown["traces"] = traces
        parts = ",\n".join(f"{json_text(name)}: {json_text(value)}" for name, value in shown.items())
        return f'{{\n{parts},\n"left_out": {rest}\n}}\n'

    def _trace(self, trace: Trace, count: int | None) -> dict[str, Any]:
        return asdict(trace) | {"spans": [asdict(span) for span in trace.spans[:count]]}


def _name(trace: Trace) -> str:
    return f"trace {trace.trace_id[:32]}"


def _least(_: Sequence[Section], max_tokens: int) -> str:
    return "{}\n" if fits("{}\n", max_tokens) else ""


def _listed(rest: Sequence[LeftOut]) -> str:
    return json_text([{"name": one.name, "count": count, "command": one.command} for one, count in rest])


def _by_name(rest: Sequence[LeftOut]) -> str:
    return json_text({section.name: count for section, count in rest})


def _in_all(rest: Sequence[LeftOut]) -> str:
    return json_text(sum(count for _, count in rest))
