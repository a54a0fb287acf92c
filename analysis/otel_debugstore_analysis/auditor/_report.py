"""Results of audits for people, for test reports (JUnit), and as notices of GitHub's checks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final
from xml.etree import ElementTree

from otel_debugstore_analysis.auditor._checks import shown
from otel_debugstore_analysis.auditor._result import AuditResult, OptimizationCandidate
from otel_debugstore_analysis.query._table import Table
from otel_debugstore_analysis.report.markdown import UNTRUSTED, code, fence, fenced_line
from otel_debugstore_analysis.text import printable

COLUMNS: Final = (
    *("verdict", "component", "layer", "figure", "measured", "limit", "low", "high", "share", "allowed"),
    *("calls", "processes", "more_calls", "variant", "cause"),
)
_MAX_REPORTED: Final = 200
_OUTPUT_LINES: Final = 40


def checks_table(results: Iterable[AuditResult]) -> Table:
    """Return a row a limit of each result, and of results without limits one that says why."""
    rows: list[tuple[Any, ...]] = []
    for one in results:
        for check in one.checks:
            figures = (check.measured, check.limit, check.low, check.high, check.share, check.allowed)
            counts = (check.calls, check.processes, check.more_calls, one.code.variant)
            rows.append((check.verdict, one.component_name, one.layer, check.name, *figures, *counts, check.cause))
        if not one.checks or one.tests is not None:
            verdict, cause = (one.tests.verdict, one.tests.cause) if one.tests else (one.verdict, one.cause)
            figure = "tests" if one.tests else None
            nothing = (None,) * (len(COLUMNS) - 6)
            rows.append((verdict, one.component_name, one.layer, figure, *nothing, one.code.variant, cause))
    return Table(COLUMNS, rows)


def summary_table(results: Sequence[AuditResult]) -> Table:
    """Return a row a result, as people see it."""
    rows = []
    for one in results:
        worst = next((check for check in one.checks if check.verdict == one.verdict), None)
        measured = None if worst is None or worst.measured is None else shown(worst.name, worst.measured)
        limit = None if worst is None or worst.limit != worst.limit else shown(worst.name, worst.limit)
        figure = worst.name if worst is not None and one.verdict != "pass" else None
        calls = one.metrics.get("calls")
        figures = (figure, measured, limit) if figure else (None, None, None)
        rows.append((one.verdict, one.component_name, one.layer or None, *figures, calls, one.cause))
    return Table(("verdict", "component", "layer", "figure", "measured", "limit", "calls", "cause"), rows)


def as_dict(result: AuditResult) -> dict[str, Any]:
    """Return a result as JSON has it: figures in the units of their names."""
    return {
        "component": result.component_name,
        "layer": result.layer,
        "verdict": result.verdict,
        "passed": result.passed,
        "cause": result.cause,
        "violations": list(result.violations),
        "recommendation": result.recommendation,
        "metrics": dict(result.metrics),
        "checks": [vars(check) for check in result.checks],
        "tests": None
        if result.tests is None
        else {
            "command": list(result.tests.command),
            "verdict": result.tests.verdict,
            "cause": result.tests.cause,
            "recorded_calls": result.tests.recorded_calls,
            "differences": list(result.tests.differences),
        },
        "variant": result.code.variant,
        "trace_ids": list(result.trace_ids),
        "saving_ns_per_s": result.saving_ns_per_s,
    }


def junit(results: Sequence[AuditResult]) -> str:
    """Return results as a JUnit report: a test case a component, a failure where a limit is not kept."""
    suite = ElementTree.Element(
        "testsuite",
        name="debugstore audit",
        tests=str(len(results)),
        failures=str(sum(one.verdict == "fail" for one in results)),
        skipped=str(sum(one.verdict == "undecided" for one in results)),
        errors="0",
    )
    for one in results:
        case = ElementTree.SubElement(
            suite, "testcase", classname=printable(one.layer or "attribute"), name=printable(one.component_name)
        )
        if one.verdict == "fail":
            failure = ElementTree.SubElement(case, "failure", message=printable(one.cause))
            failure.text = "\n".join(map(printable, (*one.violations, one.recommendation)))
        elif one.verdict == "undecided":
            ElementTree.SubElement(case, "skipped", message=printable(one.cause))
        if one.tests is not None and one.tests.verdict != "pass":
            ElementTree.SubElement(case, "system-out").text = "\n".join(_output(one))
    ElementTree.indent(suite)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(suite, encoding="unicode")}\n'


def github(results: Sequence[AuditResult]) -> str:
    """Return results as commands of GitHub's workflows: an error where a limit is not kept, a notice if undecided.

    Raises nothing for odd names: what would end a command is escaped, as its documentation says.
    """
    kinds = {"fail": "error", "undecided": "notice"}
    return "".join(
        f"::{kinds[one.verdict]} {_properties(one)}::{_data(one.cause)}\n" for one in results if one.verdict in kinds
    )


def markdown_report(results: Sequence[AuditResult], queue: Sequence[OptimizationCandidate]) -> str:
    """Return what was audited, and what is in the queue, as Markdown."""
    counts = {verdict: sum(one.verdict == verdict for one in results) for verdict in ("fail", "undecided", "pass")}
    parts = [
        f"# Audit\n\n{UNTRUSTED}\n{len(results):,} audited: {counts['fail']:,} do not keep their limits, "
        f"{counts['undecided']:,} are undecided, {counts['pass']:,} keep them.\n"
    ]
    for one in results[:_MAX_REPORTED]:
        parts.append(_section(one))
    if len(results) > _MAX_REPORTED:
        parts.append(f"{len(results) - _MAX_REPORTED:,} more are left out: `debugstore audit`\n")
    parts.append("## Optimization queue\n")
    parts += ["Nothing is in the queue.\n"] if not queue else ["".join(map(_candidate, queue[:_MAX_REPORTED]))]
    return "\n".join(parts)


def _section(result: AuditResult) -> str:
    lines = [f"## {code(result.component_name)}: {result.verdict}\n", f"{_said(result.cause)}\n"]
    marks = {"fail": "✗", "undecided": "?", "pass": "✓"}
    lines += [f"- {marks[check.verdict]} {_said(check.cause)}" for check in result.checks]
    if result.tests is not None:
        lines += [f"- tests, {result.tests.verdict}: {_said(result.tests.cause)}"]
        if result.tests.verdict != "pass" and (output := _output(result)):
            opening, closing = fence(output, "text")
            lines += [f"\n{opening}{''.join(map(fenced_line, output))}{closing}"]
    return "\n".join((*lines, f"\n{_said(result.recommendation)}\n"))


def _said(text: str) -> str:
    """Return a sentence; it holds recorded names, which must not become markup."""
    return printable(text).replace("|", "\\|").replace("<", "&lt;")


def _candidate(one: OptimizationCandidate) -> str:
    figures = ", ".join(
        f"{name} {_figure(one.current_metrics.get(name))} → {_figure(target)}"
        for name, target in one.target_metrics.items()
    )
    return f"- {code(one.component_name)} ({one.layer}, {one.state}, priority {one.priority:.3g}): {figures}\n"


def _figure(value: float | None) -> str:
    return "?" if value is None else f"{value:,.4g}"


def _output(result: AuditResult) -> list[str]:
    """Return the last lines that the tests wrote with recording."""
    if result.tests is None or not result.tests.tracked:
        return []
    outcome = result.tests.tracked[-1].outcome
    return f"{outcome.stdout.text}\n{outcome.stderr.text}".strip().splitlines()[-_OUTPUT_LINES:]


def _properties(result: AuditResult) -> str:
    found = {"title": f"{result.component_name} ({result.layer})" if result.layer else result.component_name}
    if result.code.file_path:
        found = {"file": result.code.file_path, "line": str(result.code.line_number or 1)} | found
    return ",".join(f"{key}={_data(value).replace(':', '%3A').replace(',', '%2C')}" for key, value in found.items())


def _data(text: str) -> str:
    return printable(text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A"))
