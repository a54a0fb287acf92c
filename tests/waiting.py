"""Who waited for whom, worked out slowly: a model of `_structure` and `_replay` that shares no code with them.

One span at a time, by recursion, with lists. A `Call` is a span with whole numbers for times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

from hypothesis import strategies as st

from otel_debugstore_exporters.batch import SpanRecord
from sessions import span

KINDS: Final = {"INTERNAL": 1, "SERVER": 2, "CLIENT": 3, "PRODUCER": 4, "CONSUMER": 5}


@dataclass(frozen=True)
class Call:
    """A span: its number, the numbers of the spans that are its parent's, its times, and what else matters."""

    number: int
    parent: int | None
    start: int
    duration: int
    component: str = "a"
    kind: str = "INTERNAL"
    service: str = "s"
    failed: bool = False

    @property
    def end(self) -> int:
        return self.start + max(self.duration, 0)

    def record(self, trace: int = 1) -> SpanRecord:
        """Return it as a span; a unit of time is a microsecond."""
        made = span(
            self.number,
            self.component,
            parent=self.parent,
            trace=trace,
            start_ms=self.start / 1000,
            duration_ms=self.duration / 1000,
            service=self.service,
            error="Error" if self.failed else None,
        )
        return replace(made, kind=KINDS[self.kind])


@dataclass
class Node:
    """A call at its place: on the clock of its run, clipped, with the children that take part.

    `ended` is when it ended before it was clipped to what is above its parent.
    """

    call: Call
    low: int
    high: int
    awaited: bool
    ended: int
    children: list[Node] = field(default_factory=list)

    @cached_property
    def chain(self) -> list[Node]:
        """The children on the path, the last one first."""
        chosen: list[Node] = []
        until = self.high
        while True:
            before = [child for child in self.children if child.high <= until and child not in chosen]
            if not before:
                return chosen
            # The one that ends last; of several the one that was cut off most, that began first, that is longer.
            last = max(
                before,
                key=lambda each: (each.high, each.ended, -each.call.start, each.call.duration, -each.call.number),
            )
            chosen.append(last)
            until = last.low

    def segments(self) -> Iterator[tuple[int, int, int]]:
        """Yield who is answerable from when to when, backwards."""
        at = self.high
        for child in self.chain:
            if at > child.high:
                yield self.call.number, child.high, at
            yield from child.segments()
            at = child.low
        if at > self.low:
            yield self.call.number, self.low, at

    def covered(self, since: int, until: int) -> int:
        """Return how many units of some time a child ran."""
        return sum(any(child.low <= t < child.high for child in self.children) for t in range(since, until))

    def replayed(self, component: str, share: float) -> float:
        """Return how long it would take if a component were faster."""
        factor = 1 - share if self.call.component == component else 1.0
        ends: dict[int, float] = {}

        def after(until: int, ended: Sequence[Node]) -> float:
            since = max([child.high for child in ended], default=self.low)
            passive = self.covered(since, until)
            begun = max([ends[id(child)] for child in ended], default=0.0)
            return begun + passive + factor * (until - since - passive)

        awaited = sorted((child for child in self.children if child.awaited), key=lambda child: child.low)
        for child in awaited:
            begin = after(child.low, [other for other in awaited if other.high <= child.low])
            ends[id(child)] = begin + child.replayed(component, share)
        return after(self.high, awaited)


def place(calls: Sequence[Call]) -> list[Node]:
    """Return the runs of a trace whose calls all have their parents there."""
    children: dict[int | None, list[Call]] = {}
    for call in sorted(calls, key=lambda call: (call.start, call.number)):
        children.setdefault(call.parent, []).append(call)

    def node(call: Call, shift: int, low: int, high: int, awaited: bool, ended: int) -> Node:
        made = Node(call, low, high, awaited, ended)
        start, end = call.start + shift, call.end + shift
        inside: list[tuple[Call, int, int, int]] = []
        for child in children.get(call.number, []):
            moved = shift + _skew(call, child)
            first, last = max(child.start + moved, start), min(child.end + moved, end)
            if first < last and not _asynchronous(call, child):
                inside.append((child, moved, first, last))
        ends = _cut([(first, last) for _, _, first, last in inside], end - start)
        for (child, moved, first, last), cut in zip(inside, ends, strict=True):
            served = (call.kind, child.kind) == ("CLIENT", "SERVER")
            overrun = child.end + moved - last
            waits = served or overrun == 0 or overrun * 100 < end - start
            if max(first, low) < min(cut, high):
                made.children.append(node(child, moved, max(first, low), min(cut, high), waits, cut))
        return made

    return [node(call, 0, call.start, call.end, True, call.end) for call in children.get(None, [])]


def _skew(parent: Call, child: Call) -> int:
    if (parent.kind, child.kind) != ("CLIENT", "SERVER"):
        return 0
    after = child.start >= parent.end and child.end > parent.end and not parent.failed
    if child.start >= parent.start and not after:
        return 0
    spare = (parent.end - parent.start) - (child.end - child.start)
    return parent.start + max(spare, 0) // 2 - child.start


def _asynchronous(parent: Call, child: Call) -> bool:
    return child.kind == "CONSUMER" and (parent.kind == "PRODUCER" or parent.service != child.service)


def _cut(times: Sequence[tuple[int, int]], room: int) -> list[int]:
    """Return the ends of children, where the earlier of two reaches a little into the later: the begin of that."""
    moments = [moment for pair in times for moment in pair]
    ends = [last for _, last in times]
    for one, (first, last) in enumerate(times):
        for begin, end in times:
            near = sum(begin <= moment <= last for moment in moments)
            if first < begin < last < end and (last - begin) * 100 < room and near == 2:
                ends[one] = begin
    return ends


@st.composite
def traces(draw: st.DrawFn, max_calls: int = 14) -> list[Call]:
    """Make a trace: a tree of calls whose times are within, beside or beyond their parents'. All are even."""
    calls = [_root(draw)]
    for number in range(2, draw(st.integers(1, max_calls)) + 1):
        parent = draw(st.sampled_from(calls))
        start = parent.start + 2 * draw(st.integers(-3, parent.duration // 2 + 1))
        calls.append(
            Call(
                number,
                parent.number,
                start,
                2 * draw(st.integers(0, parent.duration // 2 + 5)),
                draw(st.sampled_from("abc")),
                draw(st.sampled_from(["INTERNAL", *KINDS])),
                draw(st.sampled_from("st")),
                draw(st.booleans()),
            )
        )
    return calls


def _root(draw: st.DrawFn) -> Call:
    kind = draw(st.sampled_from(["INTERNAL", "CLIENT", "PRODUCER"]))
    return Call(1, None, 100_000, 2 * draw(st.integers(1, 400)), draw(st.sampled_from("abc")), kind)
