"""The tables that a report shows: which columns of them, in which order, and the commands that show all."""

from __future__ import annotations

from typing import Final, NamedTuple


class Evidence(NamedTuple):
    """A table of a report.

    Attributes:
        table: Its name among the findings.
        title: What stands above it.
        columns: Those that are shown, where the table has them.
        command: What shows all of it.
    """

    table: str
    title: str
    columns: tuple[str, ...]
    command: str


EVIDENCE: Final = (
    Evidence(
        "candidates",
        "What to optimise next",
        ("kind", "component", "where", "expected_ns_per_s", "confidence", "executions", "mean_ns", "p95_saved_ns"),
        "debugstore candidates --limit 0",
    ),
    Evidence(
        "critical_path.components",
        "Time on the critical path",
        ("workflow", "component", "critical_ns", "critical_share", "runs", "p50_ns", "p95_ns", "trace_ids"),
        "debugstore critical-path --limit 0",
    ),
    Evidence(
        "performance.groups",
        "Components",
        ("component", "count", "total_ns", "self_ns", "self_share", "p50_ns", "p95_ns", "p99_ns", "error_rate"),
        "debugstore performance --limit 0",
    ),
    Evidence(
        "errors.groups",
        "What failed",
        ("exception_type", "message", "count", "share", "first_ns", "last_ns", "components", "trace_ids"),
        "debugstore errors --limit 0",
    ),
    Evidence(
        "errors.common",
        "What failing calls have in common",
        ("exception_type", "message", "field", "value", "share", "other_share", "lift", "traces"),
        "debugstore errors --format json",
    ),
    Evidence(
        "explain.summary",
        "Slow calls that were looked at",
        ("component", "bound_ns", "calls", "hits", "p50_ns", "hits_p50_ns", "trace_ids"),
        "debugstore explain",
    ),
    Evidence(
        "explain.features",
        "What tells slow calls from others",
        ("kind", "key", "value", "share", "other_share", "lift", "calls", "trace_ids"),
        "debugstore explain --limit 0",
    ),
    Evidence(
        "explain.suspects",
        "Where slow calls spend more time",
        (),
        "debugstore explain --format json",
    ),
    Evidence(
        "patterns",
        "Habits that cost time",
        ("pattern", "parent", "component", "occurrences", "calls", "total_ns", "saved_ns", "detail", "trace_ids"),
        "debugstore patterns --limit 0",
    ),
    Evidence(
        "regressions",
        "What became slower or faster",
        ("component", "over", "at_ns", "at_session", "before_ns", "after_ns", "ratio", "ratio_low", "ratio_high"),
        "debugstore regressions --limit 0",
    ),
    Evidence(
        "variants",
        "Versions of the code",
        ("component", "variant", "previous", "first_ns", "count", "p50_ns", "verdict", "ratio", "git_commit"),
        "debugstore variants --limit 0",
    ),
    Evidence(
        "whatif",
        "What if it were faster",
        ("workflow", "component", "faster_share", "p50_ns", "p50_saved_ns", "p95_ns", "p95_saved_ns", "saved_share"),
        "debugstore whatif --limit 0",
    ),
)
