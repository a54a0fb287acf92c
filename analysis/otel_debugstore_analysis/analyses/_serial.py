"""Calls one after the other below one parent that could be made side by side: see `patterns`."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np

from otel_debugstore_analysis.analyses._found import MANY, Finding, Found, component_of, evidence, groups
from otel_debugstore_analysis.analyses._needs import broken
from otel_debugstore_analysis.analyses._quantiles import Floats
from otel_debugstore_analysis.analyses._siblings import MANY_CALLS, Calls, inputs, occurrences, runs
from otel_debugstore_analysis.analyses._structure import Bools, Ints
from otel_debugstore_analysis.query._frame import SpanFrame

_SEED: Final = 20_220_822
_RUNS: Final = 20
_CALLS: Final = 20


def serial(calls: Calls, limit: int) -> Found:
    """Return calls one after the other below one parent, none of which is known to need an earlier one's result."""
    spans, row = calls.spans, calls.row
    first, count = runs(broken(~calls.is_after | _are_retries(spans, row), row, calls.needs))
    run = np.repeat(np.arange(len(first)), count)
    components, kinds = _sets(run, spans.component[row].astype(np.int64), len(first), len(spans.components))
    kept = (count > 1) & ((kinds > 1) | (count < MANY_CALLS))
    found = occurrences(calls, row, first[kept], count[kept])._replace(component=components[kept])
    begin, length = first[kept], count[kept]
    made, total = groups(found, limit)
    findings = []
    for group in made:
        place = int(group.members[0])
        of_run = spans.component[row[begin[place] : begin[place] + length[place]]]
        named = [component_of(spans, int(code)) or "" for code in dict.fromkeys(of_run[: 10 * MANY].tolist())]
        text = ", ".join(named[:MANY]) + (", ..." if len(named) > MANY else "")
        each = group.calls / group.occurrences
        looked_at = group.members[:_RUNS].tolist()
        swapped = _swapped([spans.component[row[begin[m] : begin[m] + length[m]]].tolist() for m in looked_at])
        detail = f"{each:,.1f} calls one after the other, none known to need another"
        if swapped:
            detail += f"; in {swapped / len(looked_at):.0%} they come in another order than elsewhere"
        traces = evidence(spans, found.trace[group.members])
        parent = component_of(spans, group.parent)
        sums = (group.occurrences, group.calls, group.total_ns, group.saved_ns)
        proofs = group.occurrences * swapped / len(looked_at)
        findings.append(Finding("serial_calls", parent, text, *sums, swapped, detail, traces, proofs=proofs))
    return Found(findings, total)


def _swapped(runs: Sequence[list[int]]) -> int:
    """Return in how many runs two components come in another order than in most: these don't need each other."""
    pairs = [set(itertools.combinations(dict.fromkeys(components[:_CALLS]), 2)) for components in runs]
    counts = Counter(pair for some in pairs for pair in some)
    return sum(any((counts[pair[::-1]], pair[::-1]) > (counts[pair], pair) for pair in some) for some in pairs)


def _are_retries(spans: SpanFrame, row: Ints) -> Bools:
    """Return which calls come after one of the same component and input that failed."""
    given, found = inputs(spans), np.zeros(len(row), np.bool_)
    found[1:] = spans.is_error[row[:-1]]
    for codes in (spans.component, given):
        found[1:] &= codes[row[1:]] == codes[row[:-1]]
    return found


def _sets(run: Ints, component: Ints, count: int, width: int) -> tuple[Ints, Ints]:
    """Return by run a number that stands for the set of its components, and how many these are."""
    width = max(width, 1)
    cells = np.unique(run * width + component)
    chance: Floats = np.random.default_rng(_SEED).random(width)
    number = np.bincount(cells // width, chance[cells % width], count)
    return np.unique(number, return_inverse=True)[1].astype(np.int64), np.bincount(cells // width, minlength=count)
