"""`MechanicalOptimizer`: rewrites that need nobody who understands the program, for functions that are declared pure.

Each is proposed only where recorded calls say that it would pay:
- a cache around a function, where a process called it again with inputs that it had before, their results were equal
  every time, arguments can be keys of a cache, and results can't be changed by whoever gets them;
- a call made once, where a function calls a pure one again and again with the same arguments.

What a call took on a busy machine is mostly that it waited for the processor, which no rewrite saves. So calls of a
pure function with equal inputs count with the median of their durations; and what calls below a function took is held
against its CPU time, too.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple

import ibis.expr.types as ir
import msgpack

from otel_debugstore import attributes as names
from otel_debugstore_analysis.optimizer.protocol import MECHANICAL, Candidate, Task
from otel_debugstore_analysis.optimizer.rewrites import hoisted, memoized
from otel_debugstore_analysis.query import tables
from otel_debugstore_analysis.query._selection import ATTRIBUTE
from otel_debugstore_analysis.replay import RecordedCall

MIN_SHARE: Final = 0.1
"""The share of the time that has to be saved."""
MIN_CALL_NS: Final = 2_000
"""What looking into a cache takes, about, is no more than a fraction of this."""
_LEAST_CACHE: Final = 128
_MOST_CACHE: Final = 65_536
_MAX_CHILDREN: Final = 200_000
_HASHABLE: Final = frozenset(
    f"${name}"
    for name in (
        *("tuple", "frozenset", "int", "str", "range", "complex", "datetime", "time", "date", "timedelta", "path"),
        *("purepath", "regex", "constant", "decimal", "fraction", "uuid", "enum", "namedtuple", "scalar"),
        *(f"ipv{version}{kind}" for version in (4, 6) for kind in ("address", "network", "interface")),
    )
)
"""Tags of values that neither change nor can't be hashed, if what is in them is so."""
_PLAIN: Final = (str, bytes, int, float, bool, type(None))


class MechanicalOptimizer:
    """See the module's first lines."""

    @property
    def name(self) -> str:
        """What it is called in the queue."""
        return MECHANICAL

    def propose(self, task: Task) -> Sequence[Candidate]:
        """Return what recorded calls say would pay, the largest saving first."""
        if task.file is None or task.file_name is None or task.recorded.function is None:
            return []
        text = task.file.read_text(encoding="utf-8")
        function = task.recorded.function.rpartition(".")[2]
        found: list[tuple[float, Candidate]] = []
        cache = cache_that_pays(task.recorded.calls) if task.recorded.pure else None
        if cache is not None and (rewritten := memoized(text, function, cache.max_size)) is not None:
            title = f"keep results of {function}: {cache.share:.0%} of its time went to inputs that it had before"
            found.append((cache.share, Candidate(title, {task.file_name: rewritten})))
        for repeat in repeated_calls(task):
            if (rewritten := hoisted(text, function, repeat.called)) is not None:
                title = (
                    f"call {repeat.called} once in {function}: {repeat.share:.0%} of its time went to the same calls"
                )
                found.append((repeat.share, Candidate(title, {task.file_name: rewritten})))
        return [candidate for _, candidate in sorted(found, key=lambda pair: -pair[0])]


class Cache(NamedTuple):
    """A cache that would pay: the share of the time it saves, and how many results it has to keep."""

    share: float
    max_size: int


def cache_that_pays(calls: Sequence[RecordedCall]) -> Cache | None:
    """Return the cache that recorded calls of a pure function would have had use of; None if it would not pay."""
    outputs: dict[str, set[str | None]] = defaultdict(set)
    durations: dict[str, list[int]] = defaultdict(list)
    for call in calls:
        durations[call.input.digest].append(call.duration_ns)
    typical_ns = {digest: statistics.median(found) for digest, found in durations.items()}
    seen: dict[tuple[str, int | None], set[str]] = defaultdict(set)
    repeated_ns, total_ns, repeats = 0.0, 0.0, 0
    for call in calls:
        outputs[call.input.digest].add(call.error or call.output_digest)
        known = seen[call.session, call.pid]
        total_ns += typical_ns[call.input.digest]
        if call.input.digest in known and call.error is None:
            repeated_ns += typical_ns[call.input.digest]
            repeats += 1
        known.add(call.input.digest)
    if not repeats or repeated_ns / repeats < MIN_CALL_NS or repeated_ns < MIN_SHARE * total_ns:
        return None
    if any(len(found) > 1 for found in outputs.values()):
        return None  # it is not as pure as it says
    if not all(_arguments_are_fixed(call.input.content) for call in calls):
        return None
    if not all(call.error or (call.output is not None and _content_is_fixed(call.output.content)) for call in calls):
        return None
    most = max(len(known) for known in seen.values())
    return Cache(repeated_ns / total_ns, min(_MOST_CACHE, max(_LEAST_CACHE, 1 << (2 * most - 1).bit_length())))


class Repeat(NamedTuple):
    """Calls of a pure function with the same arguments, below one call: its name, and the share of the time they
    took, or of the CPU time where that is more."""

    called: str
    share: float


class _Child(NamedTuple):
    """A row of `_children`."""

    component: str
    parent_id: str
    duration_ns: int | None
    cpu_ns: int | None
    status: str
    digest: str | None
    pure: str | None
    function: str | None


def repeated_calls(task: Task) -> list[Repeat]:
    """Return which pure functions the component calls again with the same arguments, where it costs it enough time."""
    rows = tables.run(task.engine, _children, _MAX_CHILDREN, component=task.recorded.component)
    children = [_Child(*row) for row in rows]
    own = [call for call in task.recorded.calls if not call.is_nested]
    by_name: dict[str, list[_Child]] = defaultdict(list)
    for child in children:
        by_name[(child.function or "").rpartition(".")[2]].append(child)
    found = []
    for name, calls in by_name.items():
        is_pure = all((child.pure or "").lower() == "true" and child.status != "ERROR" for child in calls)
        if name and is_pure:
            again = _repeated(calls)
            share = max(_share(again, own, attrgetter(column)) for column in ("duration_ns", "cpu_ns"))
            if share >= MIN_SHARE:
                found.append(Repeat(name, min(share, 1.0)))
    return found


def _repeated(calls: Sequence[_Child]) -> list[_Child]:
    """Return the calls whose caller had made one with the same arguments before."""
    seen: set[tuple[str, str]] = set()
    found = []
    for child in calls:
        if child.digest is None:
            continue
        if (child.parent_id, child.digest) in seen:
            found.append(child)
        seen.add((child.parent_id, child.digest))
    return found


def _share(
    part: Sequence[_Child], whole: Sequence[RecordedCall], time_of: Callable[[_Child | RecordedCall], int | None]
) -> float:
    """Return which share of the time of some calls is that of others; 0 where it is not known."""
    total = sum(time_of(call) or 0 for call in whole)
    return sum(time_of(call) or 0 for call in part) / total if total else 0.0


def _children(limit: int) -> ir.Table:
    digest, pure, function = (ATTRIBUTE + name for name in (names.INPUT_DIGEST, names.PURE, names.CODE_FUNCTION_NAME))
    spans = tables.spans((digest, pure, function))
    parents = tables.spans()
    parents = parents.filter(parents.component == tables.parameter("component"))
    callers = parents.select(caller_trace="trace_id", caller="span_id")
    found = spans.join(callers, [spans.trace_id == callers.caller_trace, spans.parent_id == callers.caller])
    columns = ("component", "parent_id", "duration_ns", "cpu_ns", "status", digest, pure, function)
    return found.filter(found.component != tables.parameter("component")).select(*columns).limit(limit)


def _arguments_are_fixed(content: bytes) -> bool:
    values = msgpack.unpackb(content)
    parts = values.items() if isinstance(values, dict) else ()
    return all(
        all(map(_is_fixed, value))
        if name == "*"
        else all(map(_is_fixed, value.values()))
        if name == "**"
        else _is_fixed(value)
        for name, value in parts
    )


def _content_is_fixed(content: bytes) -> bool:
    return _is_fixed(msgpack.unpackb(content))


def _is_fixed(plain: Any) -> bool:
    """Return whether a captured value can be hashed, and not be changed."""
    if isinstance(plain, _PLAIN):
        return True
    if isinstance(plain, dict) and len(plain) == 1:
        ((tag, content),) = plain.items()
        if tag in _HASHABLE:
            return tag not in ("$tuple", "$frozenset", "$namedtuple") or _parts_are_fixed(content)
    return False


def _parts_are_fixed(content: Any) -> bool:
    parts = content.get("fields", {}).values() if isinstance(content, dict) else content
    return all(map(_is_fixed, parts))
