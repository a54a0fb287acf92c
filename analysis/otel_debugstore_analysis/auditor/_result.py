"""What an audit says of a component, and of what is to be optimised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from otel_debugstore_analysis.auditor._checks import Check, Verdict
from otel_debugstore_analysis.auditor._threshold import PerformanceThreshold

if TYPE_CHECKING:
    from otel_debugstore_analysis.auditor._tests import TestRuns


class CodeOf(NamedTuple):
    """The code of what was audited: the hash of its version, and where it stands. None is what is not known."""

    variant: str | None = None
    qualified_name: str | None = None
    file_path: str | None = None
    line_number: int | None = None
    source: str | None = None


@dataclass(frozen=True)
class AuditResult:
    """What an audit says of a component.

    Attributes:
        passed: Whether every limit is kept, and the tests pass with its calls recorded; False also where that is not
            decided.
        violations: What is not so, a sentence each.
        metrics: Figures of its calls in ms, MB, percent and shares; None is what is not known.
        threshold: The limits that it was held against; None if it has none.
        recommendation: What to do, a sentence.
        component_name: What it is called.
        layer: Its layer; "" for spans that an attribute selects.
        verdict: "pass", "fail", or "undecided": there are too few calls to say.
        cause: Why, a sentence.
        checks: One a limit.
        tests: How its tests ended with its calls recorded and without; None if none were run.
        code: Its code.
        trace_ids: Traces of its slowest and of failed calls.
        saving_ns_per_s: What keeping the limits would save in each second of observation.
        seen_ns: When the newest of its calls began; None if there are none.
        recorded_as: What its newest calls are recorded as, if none has its name.
    """

    passed: bool
    violations: tuple[str, ...]
    metrics: Mapping[str, float | None]
    threshold: PerformanceThreshold | None
    recommendation: str
    component_name: str = ""
    layer: str = ""
    verdict: Verdict = "undecided"
    cause: str = ""
    checks: tuple[Check, ...] = ()
    tests: TestRuns | None = None
    code: CodeOf = field(default_factory=CodeOf)
    trace_ids: tuple[str, ...] = ()
    saving_ns_per_s: float = 0.0
    seen_ns: int | None = None
    recorded_as: str | None = None

    @property
    def failed_checks(self) -> tuple[Check, ...]:
        """The limits that are not kept."""
        return tuple(check for check in self.checks if check.verdict == "fail")

    @property
    def more_calls(self) -> int | None:
        """About how many more calls would decide it; None if no number would."""
        wanted = [check.more_calls for check in self.checks if check.verdict == "undecided"]
        return None if None in wanted else max((many for many in wanted if many is not None), default=0)


@dataclass(frozen=True)
class OptimizationCandidate:
    """An item of the optimization queue, under the names of the system this one replaces.

    Attributes:
        component_name, layer: What it is about.
        priority: What items are sorted by, descending; `docs/queue.md` has its terms.
        violations: The limits that are not kept, a sentence each.
        current_metrics: What was measured of what is limited, in ms, MB, percent and shares.
        target_metrics: What it has to reach.
        code_snapshot: Its source; None if that was not recorded.
        test_file: The command of its tests; None if none was run.
        id: Of the item, for `debugstore queue`.
        state: How far it is.
        variant: The hash of the code that was audited.
    """

    component_name: str
    layer: str
    priority: float
    violations: tuple[str, ...]
    current_metrics: Mapping[str, float]
    target_metrics: Mapping[str, float]
    code_snapshot: str | None = None
    test_file: str | None = None
    id: str = ""
    state: str = "open"
    variant: str | None = None


def in_user_units(name: str, value: Any) -> tuple[str, Any]:
    """Return a figure in ms or MB under the name that says so: `p95_ns` is `p95_ms`, other figures stay."""
    for ending, unit, by in (("_ns", "_ms", 1e6), ("_bytes", "_mb", 1e6)):
        if name.endswith(ending):
            return name.removesuffix(ending) + unit, None if value is None else value / by
    return name, value
