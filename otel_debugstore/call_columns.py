"""`Calls`: ended calls of components as columns, on their way to who encodes them.

What a span of a call says is mostly the same for all calls of its component, thread and code: that is kept once, as
its `CallKind`. Arguments and results are still the program's own values, such as can't change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from opentelemetry.trace import SpanContext


class CallKind(NamedTuple):
    """What calls have in common.

    Attributes:
        name: Of their spans.
        attributes: Those that all of them have.
        parameters: The names of the parameters whose arguments are kept (see `calls.component.Parameters`); None if no
            arguments are, or not these.
        positional: How many of the parameters take arguments by place.
        has_result: Whether what was returned is kept.
        is_content_kept: Whether contents go into the store; else only their digests do.
        resource, scope: The SDK's.
    """

    name: str
    attributes: Mapping[str, Any]
    parameters: tuple[str, ...] | None
    positional: int
    has_result: bool
    is_content_kept: bool
    resource: Any
    scope: Any


class Calls(NamedTuple):
    """One or more ended calls; item i of each column belongs to one.

    Attributes:
        contexts, parents: Of their spans; the parent of a root is None.
        start_ns, end_ns: Nanoseconds since 1970.
        cpu_ns: The thread's CPU time in nanoseconds; less than 0 where it is not known, or among `more`.
        kinds, kind_index: What they have in common: the column points into the list.
        arguments: By place.
        arguments_by_name: By row, of those that have such.
        results: None where none is kept.
        more: By row, attributes that only this call has.
    """

    contexts: Sequence[SpanContext]
    parents: Sequence[SpanContext | None]
    start_ns: Sequence[int]
    end_ns: Sequence[int]
    cpu_ns: Sequence[int]
    kinds: Sequence[CallKind]
    kind_index: Sequence[int]
    arguments: Sequence[tuple[Any, ...]]
    arguments_by_name: Mapping[int, Mapping[str, Any]]
    results: Sequence[Any]
    more: Mapping[int, Mapping[str, Any]]
