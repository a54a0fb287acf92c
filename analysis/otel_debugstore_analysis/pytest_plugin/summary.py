"""What the terminal shows at the end of a run: sessions, limits, and the comparison with a baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from otel_debugstore.errors import DebugStoreError
from otel_debugstore_analysis.pytest_plugin import baseline as baselines
from otel_debugstore_analysis.pytest_plugin.spans import is_named
from otel_debugstore_analysis.text import duration, printable

_MAX_LINES: Final = 20


class Summary(NamedTuple):
    """What is to be shown.

    Attributes:
        lines: In their order.
        is_worse: Whether the run is worse than the baseline, or there is none and none is made.
        is_refused: Whether a baseline could not be read or written.
    """

    lines: list[str]
    is_worse: bool = False
    is_refused: bool = False


def summed_up(
    results: Mapping[str, Mapping[str, Any]],
    base_path: Path,
    *,
    session_id: str | None,
    baseline: str | None,
    save_as: str | None,
) -> Summary:
    """Return the summary of a run, after the baseline is compared with it and, if wanted, added to.

    Args:
        results: By test what it did, with its outcome.
        base_path: Where sessions and baselines lie.
        session_id: The session that was recorded; None if none was.
        baseline: The name of the baseline to compare with.
        save_as: The name of the baseline to add this run to.
    """
    lines = [*_session(results, base_path, session_id), *_limits(results)]
    passed = {test: result for test, result in results.items() if result["outcome"] == "passed" and result["is_seen"]}
    is_worse = is_refused = False
    try:
        if baseline is not None:
            compared, is_worse = _compared(base_path, baseline, passed, is_made=save_as == baseline)
            lines += compared
        if save_as is not None:
            count = baselines.save(base_path, save_as, passed)
            lines.append(f"Saved to baseline {save_as}: {_so_many(len(passed), 'test')}, {_so_many(count, 'run')}.")
    except DebugStoreError as error:
        is_refused = True
        lines.append(str(error))
    return Summary([printable(line) for line in lines], is_worse, is_refused)


def _session(results: Mapping[str, Mapping[str, Any]], base_path: Path, session_id: str | None) -> list[str]:
    if session_id is None:
        return []
    spans = sum(result["span_count"] for result in results.values())
    where = f"debugstore report --data-dir {base_path} --session {session_id}"
    return [
        f"Session {session_id} has {_so_many(len(results), 'test')} with {_so_many(spans, 'span')}: {where}",
    ]


def _limits(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    limited = {test: result for test, result in results.items() if "broken" in result and result.get("is_limited")}
    broken = [f"BROKEN {test}: {line}" for test, result in limited.items() for line in result["broken"]]
    notes = [f"NOTE {test}: {line}" for test, result in limited.items() for line in result["notes"]]
    called = {component for result in results.values() for component in result["calls"]}
    notes += [
        f"NOTE {test}: {line} by any test"
        for test, result in limited.items()
        for line, name in result["on_nothing"].items()
        if not any(is_named(component, name) for component in called)
    ]
    if not limited:
        return []
    if count := sum(bool(result.get("saw_nothing")) for result in limited.values()):
        notes.append(f"NOTE {_so_many(count, 'test')} with limits on all calls made none that is recorded.")
    count = sum(bool(result["broken"]) for result in limited.values())
    said = f"{_so_many(len(limited), 'test')} with limits: {count:,} broke one." if count else None
    return [said or f"{_so_many(len(limited), 'test')} with limits, all kept.", *_first(broken), *_first(notes)]


def _compared(base_path: Path, name: str, passed: baselines.Results, *, is_made: bool) -> tuple[list[str], bool]:
    found = baselines.load(base_path, name)
    if found is None:
        missing = f"There is no baseline {name!r} below {base_path}: make one by --debugstore-save-baseline {name}."
        return [missing], not is_made
    compared = baselines.compare(found, passed)
    slower = sum(one.verdict == "slower" for one in compared.timings)
    counts = (
        (slower, "slower"),
        (len(compared.timings) - slower, "faster"),
        (len({one.test for one in compared.changes}), "with other calls"),
        (compared.equal_count, "equal"),
        (compared.undecided_count, f"undecided (fewer than {baselines.MIN_RUNS} runs)"),
        (compared.new_count, "new"),
    )
    said = ", ".join(f"{count:,} {what}" for count, what in counts if count) or "no test to compare"
    timings = [
        f"{one.verdict.upper()} {one.test}: {duration(one.median_ns)} -> {duration(one.now_ns)} "
        f"({one.now_ns / one.median_ns:.2f} times)"
        for one in compared.timings
    ]
    changes = [
        f"{'MORE' if one.now > one.most else 'FEWER'} {one.test}: {one.component} has {one.now:,} "
        f"{'calls' if one.what == 'calls' else 'failed calls'}, before {_between(one.least, one.most)}"
        for one in compared.changes
    ]
    head = f"Against baseline {name} ({_so_many(compared.run_count, 'run')}): {said}."
    return [head, *_first(timings), *_first(changes)], compared.is_worse


def _between(least: int, most: int) -> str:
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _so_many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _first(lines: Iterable[str]) -> list[str]:
    """Return the first lines, and how many more there are."""
    found = list(lines)
    rest = len(found) - _MAX_LINES
    return found if rest <= 0 else [*found[:_MAX_LINES], f"... and {rest:,} more"]
