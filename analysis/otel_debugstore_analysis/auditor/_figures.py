"""What was measured of what is audited, by process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from otel_debugstore_analysis.auditor import _values as values
from otel_debugstore_analysis.auditor._checks import Seen
from otel_debugstore_analysis.auditor._intervals import NO_CALLS, Estimate, Part, mean_of, share_of
from otel_debugstore_analysis.auditor._subjects import Subject
from otel_debugstore_analysis.auditor._threshold import AUTO, DURATION, ERRORS, SUCCESSES, Limit
from otel_debugstore_analysis.auditor._values import OF_CALLS, SHARES, SLOTS, Calls, Key, Over, Process, Row
from otel_debugstore_analysis.query import Engine, Selection

_RATES: Final = (ERRORS, SUCCESSES)


class Figures(NamedTuple):
    """By measure and subject: its values by process, and its quantiles."""

    over: dict[str, dict[int, list[Over]]]
    quantiles: dict[str, dict[int, tuple[float, ...]]]


def measured(
    engine: Engine,
    columns: Sequence[str],
    subjects: Sequence[Subject],
    limits: Sequence[Sequence[Limit]],
    groups: Mapping[Key, Sequence[Calls]],
    selection: Selection,
) -> Figures:
    """Return what was measured of subjects: their durations, and whatever of them is limited.

    Args:
        engine: Where the spans lie.
        columns: What `groups` is grouped by.
        subjects: What is audited.
        limits: By subject.
        groups: All calls.
        selection: Which spans count.
    """
    is_weighted = any(one.weight != one.spans for processes in groups.values() for one in processes)
    found = Figures({}, {})
    limited = {one.measure: None for some in limits for one in some if one.measure not in _RATES}
    of_calls = [one for one in OF_CALLS if one == DURATION or one in limited]
    asked_together: list[Sequence[str]] = [of_calls, *([one] for one in limited if one not in OF_CALLS)]
    for measures in asked_together:
        rows = [
            Row(key, number, tuple(slot for one in measures for slot in _slots(limits[number], one)))
            for number, subject in enumerate(subjects)
            if measures is of_calls or any(one.measure == measures[0] for one in limits[number])
            for key in subject.keys
        ]
        if not rows:
            continue
        found.over.update(zip(measures, values.over(engine, measures, columns, selection, rows), strict=True))
        shares = values.quantiles(engine, measures, columns, selection, rows, is_weighted)
        found.quantiles.update(zip(measures, shares, strict=True))
    return found


def _slots(limits: Sequence[Limit], measure: str) -> tuple[float | None, ...]:
    by_slot = {one.statistic: one.value for one in limits if one.measure == measure and one.value != AUTO}
    return tuple(None if (value := by_slot.get(slot)) is None else float(value) for slot in SLOTS)


def seen_of(
    limit: Limit,
    figures: Figures,
    number: int,
    subject: Subject,
    groups: Mapping[Key, Sequence[Calls]],
    counted: Mapping[tuple[Any, ...], tuple[int, int]],
) -> Seen | None:
    """Return what is known of a limit; None if it is not known itself."""
    if limit.value == AUTO:
        return None
    value = float(limit.value)
    if limit.measure in _RATES:
        failed = _failures(subject, groups, counted)
        rate = failed.value if limit.measure == ERRORS else 1 - failed.value
        return Seen(limit, value, rate if failed.calls else None, failed)
    processes = figures.over.get(limit.measure, {}).get(number, [])
    if limit.statistic == "mean":
        parts = _by_process((one.process, Part(one.spans, one.weight, one.squares, one.total)) for one in processes)
        mean, interval = mean_of(parts, sum(one.squared_total for one in processes))
        return Seen(limit, value, mean.value if mean.calls else None, mean, interval)
    slot = SLOTS.index(limit.statistic)
    parts = _by_process((one.process, Part(one.spans, one.weight, one.squares, one.over[slot])) for one in processes)
    measured = statistics_of(figures, limit.measure, number).get(limit.statistic)
    return Seen(limit, value, measured, share_of(parts))


def statistics_of(figures: Figures, measure: str, number: int) -> dict[str, float | None]:
    """Return the statistics of a measure of a subject; empty if there are none."""
    processes = figures.over.get(measure, {}).get(number, [])
    if not processes:
        return {}
    weight = sum(one.weight for one in processes)
    quantiles = figures.quantiles[measure].get(number, (None,) * len(SHARES))
    return {
        **dict(zip(SLOTS, quantiles, strict=False)),
        "max": max(one.largest for one in processes),
        "mean": sum(one.total for one in processes) / weight if weight else None,
    }


def _by_process(parts: Iterable[tuple[Process, Part]]) -> list[Part]:
    """Return one part a process."""
    found: dict[Process, Part] = {}
    for process, part in parts:
        other = found.get(process)
        found[process] = part if other is None else part.plus(other)
    return list(found.values())


def _failures(
    subject: Subject, groups: Mapping[Key, Sequence[Calls]], counted: Mapping[tuple[Any, ...], tuple[int, int]]
) -> Estimate:
    """Return the share of calls that failed: exact where those that were not recorded were counted, else by weights.

    Of counted calls the session and the process id are known: processes that share both are one there.
    """
    calls: dict[tuple[Any, ...], list[Calls]] = {}
    for key in subject.keys:
        for one in groups.get(key, ()):
            session, _, pid = one.process
            calls.setdefault((*key[:2], session, pid), []).append(one)
    parts: list[tuple[Process, Part]] = []
    for where, some in calls.items():
        many, failed = counted.get(where, (0, 0))
        if many:
            count = sum(one.spans for one in some) + many
            part = Part(count, float(count), float(count), float(sum(one.error_spans for one in some) + failed))
            parts.append((some[0].process, part))
        else:
            parts += [(one.process, Part(one.spans, one.weight, one.squares, one.errors)) for one in some]
    found = _by_process(parts)
    return share_of(found) if found else NO_CALLS


def counted_calls(
    engine: Engine, subjects: Sequence[Subject], groups: Mapping[Key, Sequence[Calls]], selection: Selection
) -> Mapping[tuple[Any, ...], tuple[int, int]]:
    """Return what was counted and not recorded, if any of the calls stands for others."""
    keys = [key for subject in subjects for key in subject.keys]
    if all(one.weight == one.spans for key in keys for one in groups.get(key, ())):
        return {}
    return values.counted_calls(engine, selection)
