"""From results to the optimization queue, and from there to candidates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from otel_debugstore_analysis.analyses.statistics import wilson
from otel_debugstore_analysis.auditor._checks import Check
from otel_debugstore_analysis.auditor._result import AuditResult, OptimizationCandidate, in_user_units
from otel_debugstore_analysis.queue import Code, Finding, OptimizationQueue, QueueItem, Violation

_BROKEN = ("fail", "rejected")


def enqueue(queue: OptimizationQueue, results: Iterable[AuditResult], tests: Sequence[str] = ()) -> list[QueueItem]:
    """Put what does not keep its limits into the queue, all at once; return the items. What does is noted in its item.

    Not that whose tests fail, or end differently where it is recorded: what was measured of it says nothing.
    """
    audited = list(results)
    findings = [_finding(result, result.failed_checks, tests) for result in audited if is_queued(result)]
    kept = [_finding(result, result.checks, tests) for result in audited if result.verdict == "pass" and result.checks]
    return queue.put_all(findings, kept)


def is_queued(result: AuditResult) -> bool:
    """Return whether a result is for the queue."""
    return bool(result.failed_checks) and (result.tests is None or result.tests.verdict not in _BROKEN)


def candidate(item: QueueItem) -> OptimizationCandidate:
    """Return an item under the names of the system this one replaces."""
    return OptimizationCandidate(
        component_name=item.component,
        layer=item.layer,
        priority=item.priority,
        violations=tuple(one.cause for one in item.violations),
        current_metrics=dict(in_user_units(*one) for one in item.measured.items()),
        target_metrics=dict(in_user_units(*one) for one in item.target.items()),
        code_snapshot=item.code.source if item.code else None,
        test_file=" ".join(item.tests) or None,
        id=item.id,
        state=item.state,
        variant=item.variant,
    )


def _finding(result: AuditResult, checks: Sequence[Check], tests: Sequence[str]) -> Finding:
    """Return what an audit says of a component by some of its checks."""
    failed = result.failed_checks
    code = result.code
    return Finding(
        component=result.component_name,
        layer=result.layer,
        variant=code.variant,
        violations=tuple(map(_violation, failed)),
        measured={check.name: check.measured for check in checks if check.measured is not None},
        target={check.name: check.limit for check in checks},
        trace_ids=result.trace_ids,
        code=None if code.source is None else Code(code.source, code.qualified_name, code.file_path, code.line_number),
        tests=tuple(tests),
        expected_saving_ns_per_s=result.saving_ns_per_s,
        confidence=max((_confidence(check) for check in failed), default=0.0),
        seen_ns=result.seen_ns,
        recorded_as=result.recorded_as,
        kept=tuple(check.name for check in result.checks if check.verdict == "pass"),
        undecided={check.name: check.limit for check in result.checks if check.verdict == "undecided"},
    )


def _violation(check: Check) -> Violation:
    has_interval = check.share is None
    return Violation(
        measure=check.name,
        measured=check.measured or 0.0,
        limit=check.limit,
        low=check.low if has_interval else None,
        high=check.high if has_interval else None,
        cause=check.cause,
    )


def _confidence(check: Check) -> float:
    """Return how often, at least, such calls can be expected, by how many there were (Wilson 1927)."""
    seen = check.calls if check.share is None else check.share * check.calls
    return wilson(seen, seen).low
