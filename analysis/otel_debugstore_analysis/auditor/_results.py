"""Results of audits: the verdict of several limits, and what is said of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from otel_debugstore_analysis.auditor._checks import Check, Verdict, name_of, shown
from otel_debugstore_analysis.auditor._figures import Figures, statistics_of
from otel_debugstore_analysis.auditor._result import AuditResult, CodeOf, in_user_units
from otel_debugstore_analysis.auditor._subjects import Subject
from otel_debugstore_analysis.auditor._threshold import DURATION, MEMORY, SUCCESSES, Limit
from otel_debugstore_analysis.auditor._values import Calls, Key

_EVIDENCE: Final = 3
_NO_CALLS: Final = "No call of it was recorded."


def result_of(
    subject: Subject,
    number: int,
    checks: tuple[Check, ...],
    figures: Figures,
    groups: Mapping[Key, Sequence[Calls]],
    observed_ns: float,
) -> AuditResult:
    """Return what is to be said of a subject.

    Args:
        subject: The subject.
        number: Its number in `figures`.
        checks: Its limits, and if they are kept.
        figures: What was measured.
        groups: All calls.
        observed_ns: How long was observed.
    """
    calls = [one for key in subject.keys for one in groups.get(key, ())]
    verdict = verdict_of(checks) if calls and checks else "undecided"
    failed = [check for check in checks if check.verdict == "fail"]
    return AuditResult(
        passed=verdict == "pass",
        violations=tuple(check.cause for check in failed),
        metrics=_metrics(subject, number, figures, calls, checks),
        threshold=subject.threshold,
        recommendation=_recommendation(subject, verdict, checks, bool(calls)),
        component_name=subject.component,
        layer=subject.layer,
        verdict=verdict,
        cause=_cause(subject, verdict, checks, bool(calls)),
        checks=checks,
        code=CodeOf(subject.variant),
        trace_ids=_evidence(figures, number, calls) if failed else (),
        saving_ns_per_s=_saving(failed, calls, observed_ns),
        seen_ns=max((one.last_ns for one in calls if one.last_ns is not None), default=None),
        recorded_as=_recorded_as(subject, groups),
    )


def _recorded_as(subject: Subject, groups: Mapping[Key, Sequence[Calls]]) -> str | None:
    """Return the component of a subject's newest calls, if its calls are recorded under other names than its own."""
    newest_ns = {
        key[1]: max((one.last_ns for one in groups.get(key, ()) if one.last_ns is not None), default=0)
        for key in subject.keys
        if len(key) > 1 and key[1]
    }
    return None if not newest_ns or subject.component in newest_ns else max(newest_ns, key=lambda name: newest_ns[name])


def without_calls(subject: Subject) -> AuditResult:
    """Return what is to be said of a subject where nothing was recorded at all."""
    return result_of(subject, 0, (), Figures({}, {}), {}, 0.0)


def verdict_of(checks: Iterable[Check]) -> Verdict:
    """Return the verdict of several limits: the worst one."""
    found = {check.verdict for check in checks}
    return "fail" if "fail" in found else "undecided" if "undecided" in found else "pass"


def without_history(limit: Limit) -> Check:
    """Return an "auto" limit for which there is no history: undecided."""
    cause = f"The limit of the {name_of(limit.name)} is to be proposed from earlier sessions, and none has such calls."
    return Check(limit.name, None, math.nan, "undecided", math.nan, math.nan, None, math.nan, 0, 0, None, cause)


def _metrics(
    subject: Subject, number: int, figures: Figures, calls: Sequence[Calls], checks: Sequence[Check]
) -> dict[str, float | None]:
    found: dict[str, float | None] = {
        "calls": round(sum(one.weight for one in calls)),
        "processes": len({one.process for one in calls}),
    }
    for statistic, value in statistics_of(figures, DURATION, number).items():
        found[f"{statistic}_ms"] = None if value is None else value / 1e6
    if memory := statistics_of(figures, MEMORY, number):
        found["memory_mb"] = None if memory["p95"] is None else memory["p95"] / 1e6
    for check in checks:
        name, value = in_user_units(check.name, check.measured)
        found.setdefault(name, value)
    weight = sum(one.weight for one in calls)
    found.setdefault("error_rate", sum(one.errors for one in calls) / weight if weight else None)
    return found


def _evidence(figures: Figures, number: int, calls: Sequence[Calls]) -> tuple[str, ...]:
    """Return traces of the slowest calls, of different processes, and one of a call that failed."""
    slowest = sorted(figures.over.get(DURATION, {}).get(number, []), key=lambda one: -one.largest)
    traces = [one.trace_id for one in slowest[:_EVIDENCE] if one.trace_id]
    traces += [one.error_trace for one in calls if one.error_trace][:1]
    return tuple(dict.fromkeys(traces))


def _saving(failed: Sequence[Check], calls: Sequence[Calls], observed_ns: float) -> float:
    """Return what it would save in a second to keep the limits of durations, if all calls get faster alike."""
    shares = [
        1 - check.limit / check.measured
        for check in failed
        if check.measured and check.name.endswith("_ns") and "cpu" not in check.name
    ]
    total_ns = sum(one.total_ns for one in calls)
    return 1e9 * max(shares, default=0.0) * total_ns / max(observed_ns, total_ns, 1.0)


def _cause(subject: Subject, verdict: Verdict, checks: Sequence[Check], has_calls: bool) -> str:
    if not has_calls:
        return " ".join(filter(None, (_NO_CALLS, subject.note)))
    telling = [check.cause for check in checks if check.verdict == verdict]
    if not checks:
        telling = ["It has no limits."]
    elif verdict == "pass":
        telling = [f"It keeps its {len(checks)} limits." if len(checks) > 1 else "It keeps its limit."]
    processes = max((check.processes for check in checks), default=0)
    alone = "All calls were in one process, which says nothing of others." if checks and processes == 1 else ""
    return " ".join(filter(None, (*telling[:1], alone, subject.note)))


def _recommendation(subject: Subject, verdict: Verdict, checks: Sequence[Check], has_calls: bool) -> str:
    if verdict == "pass":
        return "Nothing is to be done."
    if has_calls and not checks:
        return "Give it a limit: nothing was checked."
    if verdict == "undecided":
        wanted = [check.more_calls for check in checks if check.verdict == "undecided"]
        if None in wanted and has_calls:
            return "Decide whether a figure this near to its limit is good enough, and move the limit."
        many = max((one for one in wanted if one is not None), default=0)
        if not many:
            return "Record calls of it, in the way it is used, then audit it again."
        return f"Record about {many:,} more calls in the way it is used, then audit it again."
    worst = max((check for check in checks if check.verdict == "fail"), key=excess)
    assert worst.measured is not None
    aim = f"{name_of(worst.name)} from {shown(worst.name, worst.measured)} to {shown(worst.name, worst.limit)}"
    recorded = subject.keys[0][1] if len(subject.keys[0]) > 1 else ""
    further = f"; `debugstore explain --component {recorded}` says what such calls have in common." if recorded else "."
    return f"Bring the {aim}{further}"


def excess(check: Check) -> float:
    """Return how many times over its limit a figure is."""
    if check.measured is None:
        return 0.0
    measured, limit = check.measured, check.limit
    if check.name == SUCCESSES:
        measured, limit = 1 - measured, 1 - limit
    return measured / limit if limit > 0 else math.inf
