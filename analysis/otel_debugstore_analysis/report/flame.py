"""A flame graph of spans: who called whom, added up over all calls on the same way down.

A box is as wide as the self times in it and in all boxes above it together, so boxes never stand out over the one
below them; where children ran side by side a box is wider than its duration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from otel_debugstore_analysis.query import SpanFrame

MAX_DEPTH: Final = 48
_LEAST_SHARE: Final = 0.001
_MAX_BOXES: Final = 1_500

Ints = npt.NDArray[np.int64]


class Box(NamedTuple):
    """Calls of a component on one way down.

    Attributes:
        depth: 0 for roots.
        left: Where it begins, as a share of the whole width.
        width: Its share of the whole width.
        name: The component.
        total_ns: Self times of it and of all above it.
        self_ns: Its own.
        calls: How many there are.
    """

    depth: int
    left: float
    width: float
    name: str
    total_ns: int
    self_ns: int
    calls: int


@dataclass(frozen=True, slots=True)
class _Nodes:
    """The nodes of all ways, by level; a parent's number is less than its children's."""

    parent: Ints
    component: Ints
    self_ns: Ints
    count: Ints


def flame(spans: SpanFrame) -> list[Box]:
    """Return the boxes, the lowest first and from left to right; those too narrow to be seen are left out."""
    nodes = _nodes(spans)
    total_ns = nodes.self_ns.copy()
    for number in range(len(total_ns) - 1, -1, -1):
        if nodes.parent[number] >= 0:
            total_ns[nodes.parent[number]] += total_ns[number]
    whole = int(total_ns[nodes.parent < 0].sum())
    return _boxes(spans, nodes, total_ns, whole) if whole > 0 else []


def _nodes(spans: SpanFrame) -> _Nodes:
    parent = spans.parent.astype(np.int64)
    node_of = np.full(len(spans) + 1, -1, np.int64)  # the last place is that of no parent
    width = max(len(spans.components), 1)
    weighted = np.rint(spans.self_ns * spans.weight).astype(np.int64)
    parts: list[tuple[Ints, Ints, Ints, Ints]] = []
    rows, first = np.flatnonzero(parent < 0), 0
    for _ in range(MAX_DEPTH):
        if not len(rows):
            break
        keys, inverse = np.unique((node_of[parent[rows]] + 1) * width + spans.component[rows], return_inverse=True)
        node_of[rows] = inverse + first
        self_ns = np.zeros(len(keys), np.int64)
        np.add.at(self_ns, inverse, weighted[rows])
        count = np.rint(np.bincount(inverse, spans.weight[rows], len(keys))).astype(np.int64)
        parts.append((keys // width - 1, keys % width, self_ns, count))
        is_here = np.zeros(len(spans) + 1, np.bool_)
        is_here[rows] = True
        rows, first = np.flatnonzero(is_here[parent]), first + len(keys)
    joined = [np.concatenate([part[i] for part in parts]) if parts else np.empty(0, np.int64) for i in range(4)]
    return _Nodes(*joined)


def _boxes(spans: SpanFrame, nodes: _Nodes, total_ns: Ints, whole: int) -> list[Box]:
    order = sorted(range(len(total_ns)), key=lambda n: (-int(total_ns[n]), n))
    order = [number for number in order if total_ns[number] >= _LEAST_SHARE * whole][:_MAX_BOXES]
    children: dict[int, list[int]] = {}
    for number in order:
        children.setdefault(int(nodes.parent[number]), []).append(number)
    boxes: list[Box] = []
    level: list[tuple[int, float]] = [(-1, 0.0)]
    for depth in range(MAX_DEPTH):
        above: list[tuple[int, float]] = []
        for parent, left in level:
            for number in children.get(parent, ()):
                share = int(total_ns[number]) / whole
                name = spans.components[int(nodes.component[number])] or ""
                figures = int(total_ns[number]), int(nodes.self_ns[number]), int(nodes.count[number])
                boxes.append(Box(depth, left, share, name, *figures))
                above.append((number, left))
                left += share
        level = above
    return boxes
