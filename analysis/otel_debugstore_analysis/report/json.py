"""The report as JSON; docs/report.md says what is in it. With a budget it is shortened as Markdown is.

Of a recommendation the traces but the first go before another recommendation does, and then all but its kind and text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from otel_debugstore_analysis.plain_json import json_text
from otel_debugstore_analysis.query import Table, Trace
from otel_debugstore_analysis.report.answer import as_dict, cut_to, narrow_to
from otel_debugstore_analysis.report.budget import Layout, LeftOut, Section, Tier, fit
from otel_debugstore_analysis.report.evidence import RECORDS_COMMAND, command_of, trace_command
from otel_debugstore_analysis.report.findings import Findings
from otel_debugstore_analysis.report.markdown import UNTRUSTED
from otel_debugstore_analysis.report.tokens import fits
from otel_debugstore_analysis.report.verdict import Recommendation, recommendations, verdict

SCHEMA: Final = "otel-debugstore/report/1"
_TEXT_WIDTH: Final = 200
_CODE: Final = ("variants",)
_MOST_LEFT_OUT: Final = "1000000"
"""What is left out, as a number, is not longer."""


def json_report(findings: Findings, max_tokens: int | None = None) -> str:
    """Return the report as JSON.

    Args:
        findings: What was found.
        max_tokens: The most it may have; None for all of it.
    """
    tables = {**findings.tables, **findings.records}
    if max_tokens is not None:
        tables = {name: table if name in _CODE else narrow_to(table, _TEXT_WIDTH) for name, table in tables.items()}
    found = recommendations(findings)
    document = _Document(findings, verdict(findings), [one._asdict() for one in found], tables)
    if max_tokens is None:
        return document.text({}, "[]")
    for shorter in (_with_a_trace, _as_a_text):
        document = replace(document, recommendations=[shorter(one) for one in found])
        if document.recommends_all_in(max_tokens):
            break

    def text(sections: Sequence[Section], taken: Sequence[int], rest: str) -> str:
        return document.text({one.name: items for one, items in zip(sections, taken, strict=True)}, rest)

    ways = (_listed, _by_name, _in_all, lambda rest: "[]")
    return fit(document.sections(), max_tokens, Layout(text, ways, _least))


def _with_a_trace(one: Recommendation) -> dict[str, Any]:
    return one._replace(trace_ids=one.trace_ids[:1])._asdict()


def _as_a_text(one: Recommendation) -> dict[str, Any]:
    return {"kind": one.kind, "text": one.text}


@dataclass(frozen=True)
class _Document:
    """What there is to show."""

    findings: Findings
    verdict: list[str]
    recommendations: list[dict[str, Any]]
    tables: Mapping[str, Table]

    def sections(self) -> list[Section]:
        """Return what can be shortened; the items are counted only."""

        def section(tier: Tier, name: str, count: int, *command: str, further: int | None = 0) -> Section:
            selects = tier != Tier.SAMPLES
            fetching = self.findings.command(*command, "--format", "json", selects=selects)
            return Section(tier, name, "", ("",) * count, fetching, further=further or 0)

        candidates = command_of("candidates")
        found = [
            section(Tier.VERDICT, "verdict", len(self.verdict), "report"),
            section(Tier.RECOMMENDATIONS, "recommendations", len(self.recommendations), *candidates),
        ]
        for name, table in self.tables.items():
            is_record = name in self.findings.records
            tier = Tier.CODE if name in _CODE else Tier.SAMPLES if is_record else Tier.EVIDENCE
            command = RECORDS_COMMAND if is_record else command_of(name)
            found.append(section(tier, name, len(table.rows), *command, further=table.left_out))
        for trace in self.findings.traces:
            command = trace_command(trace)
            found.append(section(Tier.SAMPLES, _name(trace), len(trace.spans), *command, further=trace.left_out))
        return found

    def recommends_all_in(self, max_tokens: int) -> bool:
        """Return whether so many tokens hold the verdict and all recommendations."""
        none = dict.fromkeys((section.name for section in self.sections()), 0)
        counts = none | {"verdict": len(self.verdict), "recommendations": len(self.recommendations)}
        return fits(self.text(counts, _MOST_LEFT_OUT), max_tokens)

    def text(self, counts: Mapping[str, int], rest: str) -> str:
        """Return the document with so many items of each section; all of those without a number."""
        shown: dict[str, Any] = {"schema": SCHEMA, "verdict": self.verdict[: counts.get("verdict")]}
        found = self.recommendations[: counts.get("recommendations")]
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
    return json_text([{"name": one.name, "count": count, "command": one.command or None} for one, count in rest])


def _by_name(rest: Sequence[LeftOut]) -> str:
    return json_text({section.name: count for section, count in rest})


def _in_all(rest: Sequence[LeftOut]) -> str:
    return json_text(sum(count for _, count in rest))
