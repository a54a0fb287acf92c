"""`audit`: every component that has a threshold, held against it, by a few queries for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from otel_debugstore_analysis.auditor import _values as values
from otel_debugstore_analysis.auditor._checks import Check, Seen, checked
from otel_debugstore_analysis.auditor._figures import Figures, counted_calls, measured, seen_of
from otel_debugstore_analysis.auditor._result import AuditResult, CodeOf
from otel_debugstore_analysis.auditor._results import excess, result_of, without_history
from otel_debugstore_analysis.auditor._subjects import Subject, newest
from otel_debugstore_analysis.auditor._threshold import (
    AUTO,
    DEFAULT_THRESHOLDS,
    DURATION,
    MEMORY,
    Limit,
    Thresholds,
    is_matched,
)
from otel_debugstore_analysis.auditor._values import COMPONENT, Calls, Key
from otel_debugstore_analysis.query import EVERYTHING, Engine, Selection, tables
from otel_debugstore_analysis.query._groups import titles
from otel_debugstore_analysis.query._selection import column_of

if TYPE_CHECKING:
    import ibis.expr.types as ir

Proposals = Callable[[Sequence[str], Sequence[Key]], Mapping[Key, Mapping[str, float]]]
"""Returns, given what keys consist of, and keys, by key what its history proposes, by measure."""

_HISTORY_OF: Final = ("layer", "component")
_MAX_CODE: Final = 500
"""Of how many components that fail the source comes with the result; of others if there are `_FEW`."""
_FEW: Final = 10


def audit(
    engine: Engine,
    thresholds: Thresholds,
    *,
    selection: Selection = EVERYTHING,
    components: Sequence[str] = (),
    proposals: Proposals | None = None,
) -> list[AuditResult]:
    """Return what is to be said of every component that has a threshold: those that fail first.

    The calls of its newest code count: others say nothing of it.

    Args:
        engine: Where the spans lie.
        thresholds: What they have to keep to.
        selection: Which spans count.
        components: Globs of the components to audit; all by default.
        proposals: What "auto" stands for; without it, such limits are undecided.

    Raises:
        QueryError: The engine refused a query.
    """
    groups = values.calls(engine, COMPONENT, selection)
    subjects = [
        Subject(key[1], key[0], (key,), threshold, key[2] or None)
        for key in newest(groups)
        if (not components or any(is_matched(key[1], glob) for glob in components))
        and (threshold := thresholds.value(key[0], key[1])) is not None
    ]
    found = audit_subjects(engine, COMPONENT, subjects, groups, selection=selection, proposals=proposals)
    if not components:
        for attribute in thresholds.attributes:
            found += _of_attribute(engine, thresholds, attribute, selection, proposals)
    return sorted(found, key=_order)


def audit_subjects(
    engine: Engine,
    columns: Sequence[str],
    subjects: Sequence[Subject],
    groups: Mapping[Key, Sequence[Calls]],
    *,
    selection: Selection = EVERYTHING,
    proposals: Proposals | None = None,
) -> list[AuditResult]:
    """Return what is to be said of subjects, in their order.

    Args:
        engine: Where the spans lie.
        columns: What `groups` is grouped by.
        subjects: What is audited.
        groups: What `values.calls` returned.
        selection: Which spans count.
        proposals: What "auto" stands for.
    """
    limits = _limits(columns, subjects, proposals)
    figures = measured(engine, columns, subjects, limits, groups, selection)
    limits = [_measurable(one, some, n, figures) for n, (one, some) in enumerate(zip(subjects, limits, strict=True))]
    counted = counted_calls(engine, subjects, groups, selection)
    wanted: list[tuple[int, Limit, Seen | None]] = []
    for number, subject in enumerate(subjects):
        for limit in limits[number]:
            wanted.append((number, limit, seen_of(limit, figures, number, subject, groups, counted)))
    checks = iter(checked([seen for _, _, seen in wanted if seen is not None]))
    by_subject: dict[int, list[Check]] = {}
    for number, limit, seen in wanted:
        by_subject.setdefault(number, []).append(next(checks) if seen is not None else without_history(limit))
    observed_ns = _observed_ns(groups)
    results = [
        result_of(subject, number, tuple(by_subject.get(number, ())), figures, groups, observed_ns)
        for number, subject in enumerate(subjects)
    ]
    return _with_code(engine, results)


def _of_attribute(
    engine: Engine, thresholds: Thresholds, attribute: str, selection: Selection, proposals: Proposals | None
) -> list[AuditResult]:
    columns = (column_of(attribute),)
    groups = values.calls(engine, columns, selection)
    subjects = [
        Subject(f"{attribute}={key[0]}", "", (key,), threshold)
        for key in groups
        if key[0] and (threshold := thresholds.of_attribute(attribute, key[0])) is not None
    ]
    return audit_subjects(engine, columns, subjects, groups, selection=selection, proposals=proposals)


def _limits(columns: Sequence[str], subjects: Sequence[Subject], proposals: Proposals | None) -> list[list[Limit]]:
    """Return by subject its limits, with what "auto" stands for where that is known."""
    limits = [list(subject.threshold.limits()) if subject.threshold else [] for subject in subjects]
    by = _HISTORY_OF if columns == COMPONENT else titles(columns)
    keys = {
        number: subject.keys[0][: len(by)] if subject.keys else (subject.layer, subject.component)
        for number, (subject, some) in enumerate(zip(subjects, limits, strict=True))
        if any(one.value == AUTO for one in some)
    }
    if not keys or proposals is None:
        return limits
    proposed = proposals(by, list(keys.values()))
    for number, key in keys.items():
        known = proposed.get(key, {})
        limits[number] = [
            one._replace(value=known.get(one.measure, AUTO)) if one.value == AUTO else one for one in limits[number]
        ]
    return limits


def _measurable(subject: Subject, limits: Sequence[Limit], number: int, figures: Figures) -> list[Limit]:
    """Return the limits without the default one of memory where that was not measured: nobody asked for it."""
    default = DEFAULT_THRESHOLDS.get(subject.layer)
    if default is None or figures.over.get(MEMORY, {}).get(number) or not figures.over.get(DURATION, {}).get(number):
        return list(limits)
    by_default = [one for one in default.limits() if one.measure == MEMORY]
    return [one for one in limits if one not in by_default]


def _observed_ns(groups: Mapping[Key, Sequence[Calls]]) -> float:
    calls = [one for processes in groups.values() for one in processes]
    first = min((one.first_ns for one in calls if one.first_ns is not None), default=0)
    last = max((one.last_ns for one in calls if one.last_ns is not None), default=0)
    return float(last - first)


def _order(result: AuditResult) -> tuple[Any, ...]:
    places = {"fail": 0, "undecided": 1, "pass": 2}
    worst = max(map(excess, result.failed_checks), default=0.0)
    return places[result.verdict], -result.saving_ns_per_s, -worst, result.component_name, result.layer


def _with_code(engine: Engine, results: Sequence[AuditResult]) -> list[AuditResult]:
    """Return the results with their code."""
    wanted = results if len(results) <= _FEW else [one for one in results if one.verdict == "fail"]
    variants = [one.code.variant for one in wanted if one.code.variant][:_MAX_CODE]
    if not variants:
        return list(results)
    known = {f"variant_{place}": variant for place, variant in enumerate(dict.fromkeys(variants))}
    codes = {row[0]: CodeOf(*row) for row in tables.run(engine, _code, len(known), **known)}
    return [replace(one, code=codes.get(one.code.variant, one.code)) for one in results]


def _code(count: int) -> ir.Table:
    code = tables.code()
    found = code.filter(code.variant.isin([tables.parameter(f"variant_{place}") for place in range(count)]))
    return found.select(*CodeOf._fields)
