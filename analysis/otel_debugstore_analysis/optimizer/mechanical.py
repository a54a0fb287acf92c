"""`MechanicalOptimizer`: rewrites that need nobody who understands the program, for functions that are declared pure.

Each is proposed only where recorded calls say that it would pay:
- a cache around a function, where a process called it again with inputs that it had before, their results were equal
  every time, arguments can be keys of a cache, and results can't be changed by whoever gets them;
- a call made once, where a function calls a pure one again and again with the same arguments.

What a call took on a busy machine is mostly that it waited for the processor, which no rewrite saves. So calls of a
pure function with equal inputs count with the median of their durations; and what calls below a function took is held
against its CPU time, too. If for most inputs the first call takes longer than those that follow, the function keeps
results itself, and first calls count as so much longer.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
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
                went = f"{repeat.share:.0%} of its {repeat.of} went to the same calls"
                title = f"call {repeat.called} once in {function}: {went}"
                found.append((repeat.share, Candidate(title, {task.file_name: rewritten})))
        return [candidate for _, candidate in sorted(found, key=lambda pair: -pair[0])]


class Cache(NamedTuple):
    """A cache that would pay: the share of the time it saves, and how many results it has to keep."""

    share: float
    max_size: int


def cache_that_pays(calls: Sequence[RecordedCall]) -> Cache | None:
    """Return the cache that recorded calls of a pure function would have had use of; None if it would not pay."""
    outputs: dict[str, set[str | None]] = defaultdict(set)
    seen: dict[tuple[str, int | None], set[str]] = defaultdict(set)
    firsts_ns: dict[str, list[int]] = defaultdict(list)  # of each process
    others_ns: dict[str, list[int]] = defaultdict(list)
    for call in calls:
        digest, known = call.input.digest, seen[call.session, call.pid]
        outputs[digest].add(call.error or call.output_digest)
        is_repeated = digest in known and call.error is None
        (others_ns if is_repeated else firsts_ns)[digest].append(call.duration_ns)
        known.add(digest)
    repeated_ns, first_ns = _typical(firsts_ns, others_ns)
    repeats = sum(map(len, others_ns.values()))
    total_ns = repeated_ns + first_ns
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


def _typical(firsts_ns: Mapping[str, Sequence[int]], others_ns: Mapping[str, Sequence[int]]) -> tuple[float, float]:
    """Return what repeated calls took, and what first ones did, by medians of equal inputs."""
    again_ns = {digest: statistics.median(found) for digest, found in others_ns.items()}
    longer = [statistics.median(firsts_ns[digest]) / max(again, 1.0) for digest, again in again_ns.items()]
    factor = max(statistics.median(longer), 1.0) if longer else 1.0
    repeated = sum(again * len(others_ns[digest]) for digest, again in again_ns.items())
    first = sum(
        (again_ns[digest] * factor if digest in again_ns else statistics.median(found)) * len(found)
        for digest, found in firsts_ns.items()
    )
    return repeated, first


class Repeat(NamedTuple):
    """Calls of a pure function with the same arguments, below one call: its name, and the share of the time they
    took, or of the CPU time where that is more and known of all."""

    called: str
    share: float
    of: str


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
            time = _share([call.duration_ns for call in again], [call.duration_ns for call in own])
            cpu_time = _share([call.cpu_ns for call in again], [call.cpu_ns for call in own])
            share, of = max((time, "time"), (cpu_time, "CPU time"))
            if share >= MIN_SHARE:
                found.append(Repeat(name, min(share, 1.0), of))
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


def _share(part_ns: Sequence[int | None], whole_ns: Sequence[int | None]) -> float:
    """Return which share of the time of some calls is that of others; 0 where it is not known of each."""
    known = [time for time in whole_ns if time is not None]
    if len(known) < len(whole_ns) or not sum(known):
        return 0.0
    return sum(time or 0 for time in part_ns) / sum(known)


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
