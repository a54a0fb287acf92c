"""`sampled`: which recorded inputs are run again, and in which order.

Classes of inputs are told apart by what became of the call (its result or the type of its error), by the power of ten
of its duration, and by the power of ten of its arguments' size. Of each class about as many are taken; the slowest
calls and one of every error are always among them. The order is that of one process: the one with most time in it.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from otel_debugstore_analysis.replay.recorded import RecordedCall
from otel_debugstore_analysis.text import duration, size

SLOWEST: Final = 3
SEQUENCE_NS: Final = 1_000_000_000
"""A sequence is no longer than this took when it was recorded."""
_MANY_CLASSES: Final = 12


class Input(NamedTuple):
    """One input among those of a sample: the call that had it, and its class."""

    call: RecordedCall
    label: str


class Sample(NamedTuple):
    """Inputs, those that took least first, and a sequence of calls by their places among these."""

    inputs: tuple[Input, ...]
    sequence: tuple[int, ...]
    class_calls: Mapping[str, int]
    """How many recorded calls, of this sample or not, were of each class."""


def sampled(calls: Sequence[RecordedCall], *, inputs: int = 60, sequence: int = 500, seed: int = 0) -> Sample:
    """Return a stratified sample of recorded calls.

    Args:
        calls: All that can be run again.
        inputs: How many different inputs are taken for it, about.
        sequence: How long the sequence may be. Its inputs are added to those of the sample.
        seed: Of what is left to chance.
    """
    by_input: dict[str, list[RecordedCall]] = defaultdict(list)
    for call in calls:
        by_input[call.input.digest].append(call)
    representative = {digest: _typical(found) for digest, found in by_input.items()}
    labels = _labels(list(representative.values()))
    chosen = _stratified(list(representative.values()), labels, inputs, random.Random(seed))
    order = _in_order(calls, sequence)
    digests = sorted(
        {*(call.input.digest for call in chosen), *order},
        key=lambda digest: (representative[digest].duration_ns, digest),
    )
    place = {digest: number for number, digest in enumerate(digests)}
    found = [Input(representative[digest], labels[digest]) for digest in digests]
    class_calls: dict[str, int] = defaultdict(int)
    for digest, same in by_input.items():
        class_calls[labels[digest]] += len(same)
    return Sample(tuple(found), tuple(place[digest] for digest in order), dict(class_calls))


def _typical(calls: Sequence[RecordedCall]) -> RecordedCall:
    """Return the call with the median duration; one that failed first, where some did."""
    failed = [call for call in calls if call.error is not None]
    ordered = sorted(failed or calls, key=lambda call: call.duration_ns)
    return ordered[len(ordered) // 2]


def _labels(calls: Sequence[RecordedCall]) -> dict[str, str]:
    """Return the class of each input by its digest; sizes are left out where there would be very many classes."""
    with_size = {call.input.digest: _label(call, True) for call in calls}
    if len(set(with_size.values())) <= _MANY_CLASSES:
        sizes = {_power(call.input.size_bytes) for call in calls}
        if len(sizes) > 1:
            return with_size
    return {call.input.digest: _label(call, False) for call in calls}


def _label(call: RecordedCall, with_size: bool) -> str:
    parts = [f"{call.error.rpartition('.')[2]}," if call.error else ""]
    parts.append(_band(call.duration_ns, duration))
    if with_size:
        parts.append(f"of {_band(call.input.size_bytes, size)}")
    return " ".join(part for part in parts if part)


def _band(value: int, text: Callable[[int], str]) -> str:
    low = 10 ** _power(value)
    return f"{text(low)} to {text(low * 10)}"


def _power(value: int) -> int:
    return int(math.log10(max(1, value)) + 1e-9)


def _stratified(
    calls: list[RecordedCall], labels: dict[str, str], count: int, chance: random.Random
) -> list[RecordedCall]:
    slowest = sorted(calls, key=lambda call: -call.duration_ns)[:SLOWEST]
    errors = {call.error: call for call in calls if call.error is not None}
    chosen = {call.input.digest: call for call in (*slowest, *errors.values())}
    strata: dict[str, list[RecordedCall]] = defaultdict(list)
    for call in calls:
        if call.input.digest not in chosen:
            strata[labels[call.input.digest]].append(call)
    for stratum in strata.values():
        chance.shuffle(stratum)
    while len(chosen) < count and any(strata.values()):
        for stratum in strata.values():
            if stratum and len(chosen) < count:
                call = stratum.pop()
                chosen[call.input.digest] = call
    return list(chosen.values())


def _in_order(calls: Sequence[RecordedCall], length: int) -> list[str]:
    """Return the inputs of the busiest process in their order; calls that another of the component made run with it."""
    processes: dict[tuple[str, int | None], list[RecordedCall]] = defaultdict(list)
    for call in calls:
        if not call.is_nested:
            processes[call.session, call.pid].append(call)
    if not processes or not length:
        return []
    busiest = max(processes.values(), key=lambda found: sum(call.duration_ns for call in found))
    taken_ns = itertools.accumulate(call.duration_ns for call in busiest[:length])
    return [call.input.digest for call, so_far in zip(busiest, taken_ns, strict=False) if so_far <= SEQUENCE_NS] or [
        busiest[0].input.digest
    ]
