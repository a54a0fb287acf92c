"""Every version of a component's code that ran: source, what changed, and whether it is faster or slower.

A version is a `variant`, the hash that spans carry of the code that ran. The versions of a component are ordered by
when each was first seen, and each is compared with the one before it. Functions of one component name (told apart by
their qualified names) that run at the same time are no versions of each other, and stand one after the other; one that
began when another had ended is that one, moved. `diff` is the unified diff of the sources;
`verdict`, `ratio` and its interval are those of `compare`, over the medians of processes (or of sessions, where both
versions ran in five or more): calls of one process are no independent measurements. Verdicts are corrected for all
versions that were compared, however few are shown. A version that comes back after
another is one row, where it was first seen; `last_ns` tells which one ran last.

Source: see `compare` and `statistics`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from otel_debugstore_analysis.analyses._points import PROCESS, SESSION, Point, points
from otel_debugstore_analysis.analyses._quantiles import Floats
from otel_debugstore_analysis.analyses._wanted import Key, Wanted
from otel_debugstore_analysis.analyses.compare import FEW_UNITS, MIN_EFFECT, MIN_UNITS, Verdict, decide
from otel_debugstore_analysis.query import EVERYTHING, Engine, Selection, Table, tables
from otel_debugstore_analysis.query._engine import GIVEN
from otel_debugstore_analysis.query._ibis import ibis
from otel_debugstore_analysis.query._selection import Filter, attributes_among

if TYPE_CHECKING:
    import ibis.expr.types as ir

MAX_VERSIONS: Final = 1_000
MAX_DIFF_LINES: Final = 400
_GROUP: Final = ("component", "variant")
_CODE: Final = ("variant", "qualified_name", "file_path", "line_number", "git_commit", "source")
COLUMNS: Final = (
    "component",
    "variant",
    "previous",
    "first_ns",
    "last_ns",
    "count",
    "error_rate",
    "p50_ns",
    "units",
    "verdict",
    "ratio",
    "ratio_low",
    "ratio_high",
    "qualified_name",
    "file_path",
    "line_number",
    "git_commit",
    "source",
    "diff",
)


class _Version(NamedTuple):
    """A row of `_versions`."""

    component: str | None
    variant: str
    calls: float
    error_count: float
    first_ns: int | None
    last_ns: int | None
    total_ns: float
    is_weighted: bool

    @property
    def key(self) -> Key:
        """What its spans are grouped by."""
        return self.component, self.variant

    @property
    def begin(self) -> tuple[Any, ...]:
        """What the versions of a component are sorted by."""
        return self.first_ns is None, self.first_ns or 0, self.variant


def variants(
    engine: Engine,
    *,
    selection: Selection = EVERYTHING,
    component: str | None = None,
    min_effect: float = MIN_EFFECT,
    limit: int = 20,
) -> Table:
    """Return a row a version of a component's code, by component and first seen; the one with most time comes first.

    Args:
        engine: Where the spans lie.
        selection: Which calls count.
        component: Whose versions; without it those of all components that have more than one are shown before others.
        min_effect: The least difference that counts, as a share of the duration.
        limit: How many rows at most.

    Raises:
        QueryError: The engine refused the query.
    """
    if component is not None:
        selection = Selection(selection.since_ns, selection.until_ns, {**selection.where, "component": component})
    rows = tables.run(engine, _versions, selection.filter, MAX_VERSIONS, **selection.parameters)
    found = [_Version(*row) for row in rows]
    if not found:
        whose = "selected" if component is None else f"of component {component[:80]!r}"
        return Table(COLUMNS, [], 0, (f"No span {whose} says which version of the code ran.",))
    ordered = _ordered(found, _qualified_names(engine, found))
    shown = ordered[:limit]
    looked_at = [*shown, *(pair for pair in ordered[limit:] if pair[1])]
    wanted = Wanted.of(_GROUP, selection, list(dict.fromkeys(one.key for pair in looked_at for one in pair if one)))
    series = _series(engine, wanted, any(version.is_weighted for version in found))
    medians = [_pair(series, version, previous) for version, previous in ordered]
    verdicts = decide(medians, min_effect)  # of all, so that none depends on how many are shown
    sources = _sources(engine, sorted({one.variant for pair in shown for one in pair if one}))
    table = [
        _row(version, previous, verdict, after, sources)
        for (version, previous), verdict, (_, after) in zip(shown, verdicts, medians, strict=False)
    ]
    notes = _notes([pair for pair, (_, previous) in zip(medians, shown, strict=False) if previous])
    if len(found) == MAX_VERSIONS:
        notes += (f"Only the {MAX_VERSIONS:,} versions with most time are looked at.",)
    return Table(COLUMNS, table, len(ordered) - len(shown), notes)


def _versions(shape: Filter, limit: int) -> ir.Table:
    spans = shape.apply(tables.spans(attributes_among(shape.fields)))
    spans = spans.filter(spans.variant.notnull())
    groups = spans.group_by(*_GROUP).aggregate(
        calls=spans.sample_weight.sum(),
        errors=spans.sample_weight.sum(where=spans.status == "ERROR").fill_null(0.0),
        first_ns=spans.start_ns.min(),
        last_ns=spans.start_ns.max(),
        total_ns=(spans.duration_ns.cast("float64") * spans.sample_weight).sum().fill_null(0.0),
        is_weighted=(spans.sample_weight != 1.0).any(),
    )
    return groups.order_by(ibis.desc("total_ns"), *_GROUP).limit(limit)


def _qualified_names(engine: Engine, found: Sequence[_Version]) -> dict[str, str | None]:
    """Return by variant which function it is of."""
    return dict(tables.run(engine, _named, **{GIVEN: sorted({version.variant for version in found})}))


def _named() -> ir.Table:
    code = tables.code()
    return code.filter(code.variant.isin(tables.given().value)).select("variant", "qualified_name")


def _functions(versions: Sequence[_Version], names: Mapping[str, str | None]) -> list[list[_Version]]:
    """Return the versions of a component by function, in the order of their begins."""
    by_name: dict[str | None, list[_Version]] = {}
    for version in sorted(versions, key=lambda version: version.begin):
        by_name.setdefault(names.get(version.variant), []).append(version)
    functions: list[list[_Version]] = []
    for some in by_name.values():
        moved = (one for one in functions if _end_ns(one) < (some[0].first_ns or 0))
        function = next(moved, None)
        if function is None:
            functions.append(some)
        else:
            function += some
    return functions


def _end_ns(versions: Sequence[_Version]) -> int:
    return max(version.last_ns or 0 for version in versions)


def _ordered(found: Sequence[_Version], names: Mapping[str, str | None]) -> list[tuple[_Version, _Version | None]]:
    """Return versions, each with the one before it: of components with several first, those with most time first."""
    by_component: dict[str | None, list[_Version]] = {}
    for version in found:
        by_component.setdefault(version.component, []).append(version)
    total_ns = {name: round(sum(one.total_ns for one in versions)) for name, versions in by_component.items()}
    functions = {name: _functions(versions, names) for name, versions in by_component.items()}
    changed = {name: any(len(versions) > 1 for versions in some) for name, some in functions.items()}
    pairs: list[tuple[_Version, _Version | None]] = []
    for component in sorted(functions, key=lambda name: (not changed[name], -total_ns[name], name or "")):
        for versions in functions[component]:
            pairs += zip(versions, [None, *versions], strict=False)
    return pairs


class _Series(NamedTuple):
    """By version its medians, by process and by session."""

    processes: Mapping[Key, list[Point]]
    sessions: Mapping[Key, list[Point]]


def _series(engine: Engine, wanted: Wanted, is_weighted: bool) -> _Series:
    processes = points(engine, wanted, PROCESS, is_weighted)
    sessions = {session for series in processes.values() for point in series for session in point.unit[:1]}
    if len(sessions) < FEW_UNITS:
        return _Series(processes, {})
    return _Series(processes, points(engine, wanted, SESSION, is_weighted))


def _pair(series: _Series, version: _Version, previous: _Version | None) -> tuple[Floats, Floats]:
    """Return the medians of the version before and of this one: of sessions where there are enough, else processes."""
    keys = (previous.key if previous else None, version.key)
    by_session = [_medians(series.sessions.get(key, [])) if key else np.empty(0) for key in keys]
    if min(map(len, by_session)) >= FEW_UNITS:
        return by_session[0], by_session[1]
    by_process = [_medians(series.processes.get(key, [])) if key else np.empty(0) for key in keys]
    return by_process[0], by_process[1]


def _medians(series: Sequence[Point]) -> Floats:
    return np.array([point.p50_ns for point in series if point.p50_ns is not None], dtype=np.float64)


def _sources(engine: Engine, versions: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    values = {f"variant_{place}": version for place, version in enumerate(versions)}
    rows = tables.run(engine, _code, len(versions), **values)
    return {row[0]: row[1:] for row in rows}


def _code(count: int) -> ir.Table:
    code = tables.code()
    wanted = [tables.parameter(f"variant_{place}") for place in range(count)]
    return code.filter(code.variant.isin(wanted)).select(*_CODE)


def _row(
    version: _Version,
    previous: _Version | None,
    verdict: Verdict,
    medians: Floats,
    sources: Mapping[str, tuple[Any, ...]],
) -> tuple[Any, ...]:
    name, path, line, commit, source = sources.get(version.variant, (None,) * 5)
    before = sources.get(previous.variant, (None,) * 5)[-1] if previous else None
    ratio = [None if math.isnan(value) else value for value in verdict.ratio]
    return (
        version.component,
        version.variant,
        previous.variant if previous else None,
        version.first_ns,
        version.last_ns,
        round(version.calls),
        version.error_count / version.calls if version.calls else None,
        float(np.median(medians)) if len(medians) else None,
        len(medians),
        verdict.verdict if previous else None,
        *ratio,
        name,
        path,
        line,
        commit,
        source,
        diff(before, source) if previous else None,
    )


def diff(before: str | None, after: str | None) -> str | None:
    """Return the unified diff of two sources; None where one of them was not recorded."""
    if before is None or after is None:
        return None
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), "before", "after", lineterm=""))
    if len(lines) > MAX_DIFF_LINES:
        lines = [*lines[:MAX_DIFF_LINES], f"... {len(lines) - MAX_DIFF_LINES:,} more lines"]
    return "\n".join(lines)


def _notes(pairs: Sequence[tuple[Floats, Floats]]) -> tuple[str, ...]:
    few = sum(min(len(before), len(after)) < MIN_UNITS for before, after in pairs)
    if not few:
        return ()
    return (
        f"{few:,} of {len(pairs):,} versions, or those before them, ran in fewer than {MIN_UNITS} processes: whether "
        f"they are faster can't be told. Record at least {FEW_UNITS} processes of each.",
    )
