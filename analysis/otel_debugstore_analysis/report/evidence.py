"""The tables that a report shows: which columns of them, in which order; and the subcommands that show all of them."""

from __future__ import annotations

from typing import Final, NamedTuple

from otel_debugstore_analysis.query import Trace


class Evidence(NamedTuple):
    """A table of a report.

    Attributes:
        table: Its name among the findings.
        title: What stands above it.
        columns: Those that are shown, where the table has them.
    """

    table: str
    title: str
    columns: tuple[str, ...]


def command_of(table: str) -> tuple[str, ...]:
    """Return the subcommand that shows all rows of a table of the findings, with the options of its own for that."""
    name = table.partition(".")[0].replace("_", "-")
    least = ("--min-executions", "1") if name == "candidates" else ()  # a report has what was called once, too
    return name, *least, "--limit", "0"


def trace_command(trace: Trace) -> tuple[str, ...]:
    """Return the subcommand that shows all of a trace."""
    return "trace", trace.trace_id, "--limit", str(max(trace.span_count, 1))


RECORDS_COMMAND: Final = ("sql", "SELECT * FROM records", "--limit", "0")
"""The subcommand that shows all records."""


EVIDENCE: Final = (
    Evidence(
        "candidates",
        "What to optimise next",
        ("kind", "component", "where", "expected_ns_per_s", "confidence", "executions", "mean_ns", "p95_saved_ns"),
    ),
    Evidence(
        "critical_path.components",
        "Time on the critical path",
        ("workflow", "component", "critical_ns", "critical_share", "runs", "p50_ns", "p95_ns", "trace_ids"),
    ),
    Evidence(
        "performance.groups",
        "Components",
        ("component", "count", "total_ns", "self_ns", "self_share", "p50_ns", "p95_ns", "p99_ns", "error_rate"),
    ),
    Evidence(
        "errors.groups",
        "What failed",
        ("exception_type", "message", "count", "share", "first_ns", "last_ns", "components", "trace_ids"),
    ),
    Evidence(
        "errors.common",
        "What failing calls have in common",
        ("exception_type", "message", "field", "value", "share", "other_share", "lift", "q_value", "traces"),
    ),
    Evidence(
        "explain.summary",
        "Slow calls that were looked at",
        ("component", "bound_ns", "calls", "hits", "p50_ns", "hits_p50_ns", "trace_ids"),
    ),
    Evidence(
        "explain.features",
        "What tells slow calls from others",
        ("kind", "key", "value", "share", "other_share", "lift", "calls", "q_value", "trace_ids"),
    ),
    Evidence(
        "explain.suspects",
        "Where slow calls spend more time",
        (),
    ),
    Evidence(
        "patterns",
        "Habits that cost time",
        ("pattern", "parent", "component", "occurrences", "calls", "total_ns", "saved_ns", "detail", "trace_ids"),
    ),
    Evidence(
        "regressions",
        "What became slower or faster",
        (
            *("component", "over", "at_ns", "at_session", "before_ns", "after_ns", "ratio", "ratio_low", "ratio_high"),
            "trace_ids",
        ),
    ),
    Evidence(
        "variants",
        "Versions of the code",
        ("component", "variant", "previous", "first_ns", "count", "p50_ns", "verdict", "ratio", "git_commit"),
    ),
    Evidence(
        "whatif",
        "What if it were faster",
        ("workflow", "component", "faster_share", "p50_ns", "p50_saved_ns", "p95_ns", "p95_saved_ns", "saved_share"),
    ),
)
