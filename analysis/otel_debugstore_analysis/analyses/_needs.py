"""Which calls are known to need what an earlier call returned: their input is that as a whole (equal digests)."""

from __future__ import annotations

from typing import Final

import numpy as np

from otel_debugstore import attributes as names
from otel_debugstore.payload import capture
from otel_debugstore_analysis.analyses._structure import Bools, Ints
from otel_debugstore_analysis.query._frame import Coded, SpanFrame

_STEPS: Final = 20
"""Through so many calls of other components at most a call is known to need one of its own."""


def needed(spans: SpanFrame, row: Ints, parent: Ints) -> Ints:
    """Return by row of the frame the row of the call that it needs, -1 where it is not known to need any.

    That is the last one below the same parent that had returned, before it began, what it was given.

    Args:
        spans: The frame.
        row: Calls, by parent and begin.
        parent: The rows of their parents.
    """
    of = np.full(len(spans), -1, np.int64)
    given, returned = spans.extra.get(names.INPUT_DIGEST), spans.extra.get(names.OUTPUT_DIGEST)
    if not isinstance(given, Coded) or not isinstance(returned, Coded):
        return of
    code = {text: number for number, text in enumerate(returned.values) if text is not None}
    code.pop(capture({}).digest, None)  # a call without arguments needs nothing
    as_returned = np.array([code.get(text or "", -1) for text in given.values], np.int64)
    is_wanted = np.isin(np.arange(len(returned.values)), as_returned)
    takes = np.flatnonzero(as_returned[given.codes[row]] >= 0)
    gives = np.flatnonzero(is_wanted[returned.codes[row]])
    if not len(takes) or not len(gives):
        return of
    width = len(returned.values)
    wanted = parent[takes] * width + as_returned[given.codes[row[takes]]]
    there = parent[gives] * width + returned.codes[row[gives]]
    key, who = np.concatenate([there, wanted]), np.concatenate([gives, takes])
    time = np.concatenate([spans.end_ns[row[gives]], spans.start_ns[row[takes]]])
    does_take = np.arange(len(key)) >= len(gives)
    order = np.lexsort((who, does_take, time, key))
    key, who, does_take = key[order], who[order], does_take[order]
    last = np.maximum.accumulate(np.where(does_take, -1, np.arange(len(key))))
    at = np.flatnonzero(does_take & (last >= 0))
    at = at[(key[last[at]] == key[at]) & (who[last[at]] < who[at])]
    of[row[who[at]]] = row[who[last[at]]]
    return of


def of_own_component(spans: SpanFrame, needs: Ints) -> Ints:
    """Return by row the nearest call of its own component that it needs, itself or through others; -1 for none."""
    nearest = needs.copy()
    for _ in range(_STEPS):
        is_other = (nearest >= 0) & (spans.component[nearest] != spans.component)
        if not is_other.any():
            return nearest
        nearest[is_other] = needs[nearest[is_other]]
    return np.where(spans.component[nearest] == spans.component, nearest, -1)


def broken(is_first: Bools, row: Ints, needs: Ints) -> Bools:
    """Return which calls begin a run, where no call is in one with another that it needs.

    Args:
        is_first: Which begin one for another reason.
        row: The calls' rows, the earlier ones first.
        needs: By row the row of the call that is needed, or -1.
    """
    place = np.full(len(needs) + 1, -1, np.int64)
    place[row] = np.arange(len(row))
    wanted = place[needs[row]]
    begins = is_first.copy()
    run = np.maximum.accumulate(np.where(is_first, np.arange(len(row)), 0))
    begin = 0
    for at in np.flatnonzero(wanted >= 0).tolist():
        begin = max(begin, int(run[at]))
        if wanted[at] >= begin:
            begins[at] = True
            begin = at
    return begins
