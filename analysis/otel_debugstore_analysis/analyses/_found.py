"""What a pattern's search found, added up by parent and component."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from otel_debugstore_analysis.analyses._quantiles import Floats
from otel_debugstore_analysis.analyses._structure import Ints
from otel_debugstore_analysis.query._frame import SpanFrame

EVIDENCE: Final = 3
MANY: Final = 3
"""Components that a row names at most."""


class Finding(NamedTuple):
    """A row of `patterns`.

    Attributes:
        observations: How many occurrences were seen that show that time could be saved: each once, whatever it stands
            for.
        is_sampled: Whether it is of the traces that were looked at only.
        proofs: How many occurrences show that time could be saved; None for all.
    """

    pattern: str
    parent: str | None
    component: str | None
    occurrences: float
    calls: float
    total_ns: float
    saved_ns: float
    observations: int
    detail: str
    trace_ids: tuple[str, ...]
    is_sampled: bool = True
    proofs: float | None = None

    @property
    def order(self) -> tuple[Any, ...]:
        """What findings are sorted by: those that save most first, then by name."""
        return (-self.saved_ns, self.pattern, self.parent or "", self.component or "")


class Found(NamedTuple):
    """The findings that save most, and how many there are."""

    findings: list[Finding]
    total: int


NOTHING: Final = Found([], 0)


class Occurrences(NamedTuple):
    """Where a pattern occurs: columns of equal length.

    Attributes:
        parent: The code of the parent's component.
        component: The code of the component; occurrences with one parent and component make one finding.
        calls: How many calls it is about.
        total_ns: How long these took.
        saved_ns: What it would save.
        trace: Where.
        weight: How many it stands for.
    """

    parent: Ints
    component: Ints
    calls: Ints
    total_ns: Ints
    saved_ns: Ints
    trace: Ints
    weight: Floats


class Group(NamedTuple):
    """Occurrences with one parent and component, added up; `members` are their places, those that save most first."""

    parent: int
    component: int
    occurrences: float
    calls: float
    total_ns: float
    saved_ns: float
    members: Ints


def groups(found: Occurrences, limit: int) -> tuple[list[Group], int]:
    """Return the groups of occurrences that save most, and how many there are."""
    saves = np.flatnonzero(found.saved_ns > 0)
    if not len(saves):
        return [], 0
    parent, component, weight = found.parent[saves], found.component[saves], found.weight[saves]
    width = int(component.max()) + 2
    keys, group = np.unique((parent + 1) * width + component + 1, return_inverse=True)
    one = np.ones(len(found.trace), np.int64)
    sums: list[Floats] = [
        np.bincount(group, weight * column[saves], len(keys)).astype(np.float64, copy=False)
        for column in (one, found.calls, found.total_ns, found.saved_ns)
    ]
    by_group = np.lexsort((found.trace[saves], -found.saved_ns[saves], group))
    bounds = np.searchsorted(group[by_group], np.arange(len(keys) + 1))
    made = []
    for number in np.lexsort((keys, -sums[3]))[:limit].tolist():
        members = saves[by_group[bounds[number] : bounds[number + 1]]]
        key = int(keys[number])
        occurrences, calls, total_ns, saved_ns = (float(column[number]) for column in sums)
        made.append(Group(key // width - 1, key % width - 1, occurrences, calls, total_ns, saved_ns, members))
    return made, len(keys)


def evidence(spans: SpanFrame, trace: Ints) -> tuple[str, ...]:
    """Return the ids of the first traces, each once."""
    return tuple(dict.fromkeys(spans.trace_ids[int(number)] for number in trace[: 8 * EVIDENCE]))[:EVIDENCE]


def component_of(spans: SpanFrame, code: int) -> str | None:
    """Return the name of a component's code; None for none."""
    return spans.components[code] if code >= 0 else None
