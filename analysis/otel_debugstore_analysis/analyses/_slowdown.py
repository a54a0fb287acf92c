"""How much slower calls are than others, by where the time went: in a service, or between two.

What a call does itself belongs to its service. A call whose children are all of one other service is the client of
it: what it does not spend in the child is the gap between client and server (network, queues, serialisation), which
either of the two may be answerable for. It is the difference of two durations, so that clocks that differ don't matter.

Each operation is compared with itself, so that another mix of requests is no slowdown; and all of them with what the
quarter of operations that rose least rose by, so that a load that slows everything names nobody. What is left over
are added up by group, since calls of a trace are not independent, and of the mean over groups the lower bound of
its 95 % interval counts (one-sided, normal, Welch's variance): one slow outlier, or three calls, prove nothing.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from otel_debugstore_analysis.analyses._calls import Bools, Calls, Floats, Ints, added

ONE_SIDED_95: Final = 1.6448536269514722
_LEAST_RISEN: Final = 0.25


class Where(NamedTuple):
    """By row where its own time is spent.

    Attributes:
        place: caller * units + callee, of codes of units; both are the same where it is within one.
        own_ns: Its own time, or the gap.
    """

    place: Ints
    own_ns: Floats


class Slowdown(NamedTuple):
    """What the groups spend more, by place, of those that have the place.

    Attributes:
        place: The places, ascending.
        mean_ns: A group, on average.
        at_least_ns: The lower bound of it, 0 or more.
        call_ns: A call, on average.
        usual_ns: What a group would usually spend there.
        weight: How many groups have the place.
        operation: The operation that rose most there.
        group: The group that it rose most in.
    """

    place: Ints
    mean_ns: Floats
    at_least_ns: Floats
    call_ns: Floats
    usual_ns: Floats
    weight: Floats
    operation: Ints
    group: Ints


def where(faulty: Calls, base: Calls, units: int) -> tuple[Where, Where]:
    """Return where the calls of both sets spend their own time."""
    clients = [_clients(calls) for calls in (faulty, base)]
    width = 1 + max((int(calls.operation.max(initial=-1)) for calls in (faulty, base)), default=-1)
    usual = _Usual.of(base, clients[1], width)
    found = [_where(calls, client, usual, units) for calls, client in zip((faulty, base), clients, strict=True)]
    return found[0], found[1]


def slowdown(faulty: Calls, base: Calls, places: tuple[Where, Where], units: int) -> Slowdown:
    """Return what the faulty calls spend more than the others, by place."""
    now, before = places
    width = units * units + 1
    keys = [calls.operation * width + w.place for calls, w in ((faulty, now), (base, before))]
    distinct, code = np.unique(np.concatenate(keys), return_inverse=True)
    code_now, code_before = code[: len(keys[0])], code[len(keys[0]) :]
    expected = _expected(distinct % width, code_before, before, base.weight[base.group], units)
    load = _load(code_now, now.own_ns, faulty.weight[faulty.group], expected, np.unique(code_before))
    rest_now = now.own_ns - load * expected[code_now]
    rest_before = before.own_ns - expected[code_before]
    place, number = np.unique(now.place, return_inverse=True)
    late = _by_group(faulty, number, rest_now, len(place), np.ones(len(number), np.bool_))
    known = np.minimum(np.searchsorted(place, before.place), len(place) - 1)
    is_known = place[known] == before.place
    early = _by_group(base, known, rest_before, len(place), is_known)
    error = _standard_error(late, early, load)
    weight = faulty.weight[faulty.group]
    calls = np.bincount(number, weight, len(place))
    total = np.bincount(number, weight * rest_now, len(place))
    usual = np.bincount(number, weight * load * expected[code_now], len(place))
    operation = _most(number, distinct[code_now] // width, weight * rest_now, len(place))
    return Slowdown(
        place=place,
        mean_ns=late.mean,
        at_least_ns=np.maximum(late.mean - ONE_SIDED_95 * error, 0.0),
        call_ns=total / np.maximum(calls, 1e-300),
        usual_ns=usual / np.maximum(late.weight, 1e-300),
        weight=late.weight,
        operation=operation,
        group=_most(number, faulty.group, rest_now, len(place)),
    )


class _Clients(NamedTuple):
    """By row whether it is the client of one other service, of which unit, and the time of its children."""

    is_client: Bools
    is_leaf: Bools
    callee: Ints
    child_ns: Floats


def _clients(calls: Calls) -> _Clients:
    count = len(calls.parent)
    child = np.flatnonzero(calls.parent >= 0)
    parent = calls.parent[child]
    children = np.bincount(parent, minlength=count)
    low, high = np.full(count, np.iinfo(np.int64).max), np.full(count, -1, np.int64)
    np.minimum.at(low, parent, calls.service[child])
    np.maximum.at(high, parent, calls.service[child])
    is_client = (children > 0) & (low == high) & (high != calls.service) & ~calls.is_answering
    callee = np.full(count, -1, np.int64)
    np.maximum.at(callee, parent, calls.unit[child])
    only = np.bincount(parent, calls.duration_ns[child], count)
    covered = np.where(children == 1, only, calls.duration_ns - calls.self_ns)
    return _Clients(is_client, children == 0, callee, np.minimum(covered, calls.duration_ns))


class _Usual(NamedTuple):
    """By operation: whom it calls as a client, -1 if mostly none, and how long that takes."""

    callee: Ints
    child_ns: Floats

    @classmethod
    def of(cls, base: Calls, clients: _Clients, operations: int) -> _Usual:
        of_clients = base.operation[clients.is_client]
        asked = np.bincount(of_clients, minlength=operations)
        callee = np.full(operations, -1, np.int64)
        np.maximum.at(callee, of_clients, clients.callee[clients.is_client])
        is_client = 2 * asked > np.bincount(base.operation, minlength=operations)
        spent = np.bincount(of_clients, clients.child_ns[clients.is_client], operations)
        return cls(np.where(is_client, callee, -1), spent / np.maximum(asked, 1))


def _where(calls: Calls, clients: _Clients, usual: _Usual, units: int) -> Where:
    # The answer of a server may be missing: then it is taken to have needed what it usually needs.
    is_unanswered = clients.is_leaf & (usual.callee[calls.operation] >= 0) & ~calls.is_answering
    callee = np.where(is_unanswered, usual.callee[calls.operation], np.where(clients.is_client, clients.callee, -1))
    answer_ns = np.where(is_unanswered, usual.child_ns[calls.operation], clients.child_ns)
    is_between = callee >= 0
    own_ns = np.where(is_between, np.maximum(calls.duration_ns - answer_ns, 0.0), calls.self_ns)
    return Where(calls.unit * units + np.where(is_between, callee, calls.unit), own_ns)


def _expected(places: Ints, code: Ints, before: Where, weight: Floats, units: int) -> Floats:
    """Return by operation and place what a call spends usually; of new ones, what others there, or anywhere, do."""
    count = len(places)
    calls, spent = added(code, weight, count), added(code, weight * before.own_ns, count)
    number = np.unique(places, return_inverse=True)[1]
    of_place = _mean(added(number, spent, count), added(number, calls, count))[number]
    is_between = (places // max(units, 1) != places % max(units, 1)).astype(np.int64)
    of_kind = _mean(added(is_between, spent, 2), added(is_between, calls, 2))[is_between]
    found = _mean(spent, calls)
    found = np.where(np.isnan(found), of_place, found)
    return np.nan_to_num(np.where(np.isnan(found), of_kind, found))


def _mean(total: Floats, weight: Floats) -> Floats:
    return np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), np.nan)


def _load(code: Ints, own_ns: Floats, weight: Floats, expected: Floats, known: Ints) -> float:
    """Return what everything takes longer by, as a factor, 1 or more."""
    mean = _mean(added(code, weight * own_ns, len(expected)), added(code, weight, len(expected)))
    is_known = np.zeros(len(expected), np.bool_)
    is_known[known] = True
    ratio = (mean / np.where(expected > 0, expected, np.nan))[is_known]
    ratio = ratio[~np.isnan(ratio)]
    return max(1.0, float(np.quantile(ratio, _LEAST_RISEN))) if len(ratio) else 1.0


class _ByGroup(NamedTuple):
    """By place: mean and variance over the groups that have it, how many these are (Kish), and stand for."""

    mean: Floats
    variance: Floats
    observations: Floats
    weight: Floats


def _by_group(calls: Calls, place: Ints, rest_ns: Floats, places: int, chosen: Bools) -> _ByGroup:
    group, place, rest_ns = calls.group[chosen], place[chosen], rest_ns[chosen]
    keys, number = np.unique(group * max(places, 1) + place, return_inverse=True)
    total = np.bincount(number, rest_ns, len(keys))
    of_place, weight = keys % max(places, 1), calls.weight[keys // max(places, 1)]
    whole = added(of_place, weight, places)
    squares = added(of_place, weight**2, places)
    mean = added(of_place, weight * total, places) / np.maximum(whole, 1e-300)
    spread = added(of_place, weight * (total - mean[of_place]) ** 2, places) / np.maximum(whole, 1e-300)
    count = whole**2 / np.maximum(squares, 1e-300)
    variance = np.where(count > 1, spread * count / np.maximum(count - 1, 1e-9), np.nan)
    return _ByGroup(mean, variance, count, whole)


def _standard_error(late: _ByGroup, early: _ByGroup, load: float) -> Floats:
    """Return the error of the difference; one observation varies as those of the other set do."""
    of_late = np.where(np.isnan(late.variance), early.variance, late.variance)
    of_early = np.where(np.isnan(early.variance), late.variance, early.variance)
    error = np.sqrt(
        of_late / np.maximum(late.observations, 1.0) + load**2 * of_early / np.maximum(early.observations, 1.0)
    )
    return np.where(np.isnan(error), np.inf, error)


def _most(number: Ints, code: Ints, measure: Floats, count: int) -> Ints:
    """Return by number the code of which the measures add up to most, the least of equal ones."""
    width = int(code.max(initial=0)) + 1
    keys, place = np.unique(number * width + code, return_inverse=True)
    total = np.bincount(place, measure, len(keys))
    order = np.lexsort((keys, -total, keys // width))
    first = np.searchsorted((keys // width)[order], np.arange(count))
    return (keys % width)[order][first] if len(keys) else np.empty(0, np.int64)
