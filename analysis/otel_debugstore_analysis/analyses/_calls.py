"""Two sets of calls side by side: rows of two frames, with codes that both share.

What is compared with itself is an operation: a component of a service. A row belongs to a group, which is what
is counted as one observation: a trace, or a call with all that lies below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from otel_debugstore_analysis.query._frame import SpanFrame

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

_ANSWERING: Final = ("SERVER", "CONSUMER")


class Part(NamedTuple):
    """Some rows of a frame.

    Attributes:
        frame: Where they are from.
        rows: The rows, ascending.
        group: By row what it belongs to, numbers from 0 on without gaps.
    """

    frame: SpanFrame
    rows: Ints
    group: Ints


class Calls(NamedTuple):
    """The rows of a part. Codes are those of `Names`.

    Attributes:
        parent: The place of the parent among these rows; -1 if it is none of them.
        unit: What is suspected: the service, or the component.
        operation: The component of the service.
        is_answering: It is of kind SERVER or CONSUMER, so that what it does itself is not waiting for another's answer.
        weight: By group how many it stands for.
        extent_ns: By group how long its longest row took.
        trace: By group its trace in the frame.
    """

    group: Ints
    parent: Ints
    service: Ints
    unit: Ints
    operation: Ints
    duration_ns: Floats
    self_ns: Floats
    is_error: Bools
    is_answering: Bools
    weight: Floats
    extent_ns: Floats
    trace: Ints
    trace_ids: tuple[str, ...]


class Names(NamedTuple):
    """What the codes of calls mean."""

    units: tuple[str | None, ...]
    operations: tuple[str | None, ...]
    """The operations' components."""


def side_by_side(faulty: Part, base: Part, by: str) -> tuple[Calls, Calls, Names]:
    """Return the rows of both parts and the names of their codes; `by` is service or component."""
    parts = (faulty, base)
    service = _joined([(p.frame.services, p.frame.service[p.rows]) for p in parts])
    component = _joined([(p.frame.components, p.frame.component[p.rows]) for p in parts])
    width = max(len(component.values), 1)
    keys = service.codes * width + component.codes
    distinct, operation = np.unique(keys, return_inverse=True)
    unit = service if by == "service" else component
    names = Names(unit.values, tuple(component.values[int(key) % width] for key in distinct))
    cut = len(faulty.rows)
    sides = []
    for part, side in zip(parts, (slice(None, cut), slice(cut, None)), strict=True):
        sides.append(_calls(part, service.codes[side], unit.codes[side], operation[side]))
    return sides[0], sides[1], names


class _Joined(NamedTuple):
    codes: Ints
    values: tuple[str | None, ...]


def _joined(columns: Sequence[tuple[tuple[str | None, ...], npt.NDArray[np.int32]]]) -> _Joined:
    """Return columns of codes one after the other with codes for the values of all."""
    every = sorted({value for values, _ in columns for value in values}, key=lambda v: (v is not None, v or ""))
    place = {value: number for number, value in enumerate(every)}
    parts = []
    for values, codes in columns:
        new = np.array([place[value] for value in values], np.int64)
        parts.append(new[codes] if len(values) else np.empty(0, np.int64))
    return _Joined(np.concatenate(parts), tuple(every))


def added(code: Ints, values: Floats | Bools, count: int) -> Floats:
    """Return by code the sum of the values."""
    return np.bincount(code, values, count).astype(np.float64)


def _calls(part: Part, service: Ints, unit: Ints, operation: Ints) -> Calls:
    frame, rows, group = part.frame, part.rows, part.group
    place = np.full(len(frame) + 1, -1, np.int64)
    place[rows] = np.arange(len(rows))
    count = int(group.max()) + 1 if len(group) else 0
    duration_ns = frame.duration_ns[rows].astype(np.float64)
    weight, extent_ns = np.zeros(count), np.zeros(count)
    np.maximum.at(weight, group, frame.weight[rows])
    np.maximum.at(extent_ns, group, duration_ns)
    trace = np.zeros(count, np.int64)
    trace[group] = frame.trace[rows]
    answering = [code for code, kind in enumerate(frame.kinds) if kind in _ANSWERING]
    return Calls(
        group=group,
        parent=place[frame.parent[rows]],
        service=service,
        unit=unit,
        operation=operation,
        duration_ns=duration_ns,
        self_ns=frame.self_ns[rows].astype(np.float64),
        is_error=frame.is_error[rows],
        is_answering=np.isin(frame.kind[rows], answering),
        weight=weight,
        extent_ns=extent_ns,
        trace=trace,
        trace_ids=frame.trace_ids,
    )
