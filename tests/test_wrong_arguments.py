"""What can't be used as an argument of an analysis is said in a sentence, and gives no answer that is not so."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_debugstore import Analysis, DebugAnalyzer, DebugStore
from otel_debugstore.errors import ConfigurationError, QueryError
from otel_debugstore_analysis.query import Selection
from reports import shop
from sessions import write_sealed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session of a workflow."""
    made = tmp_path_factory.mktemp("data")
    write_sealed(made, "base", shop())
    return made


@pytest.fixture(scope="module")
def asked(folder: Path) -> Iterator[Analysis]:
    """It is asked; one session may be named as it is."""
    with Analysis(base_path=folder, sessions="base") as analysis:
        yield analysis


@pytest.mark.parametrize("name", ["candidates", "critical_path", "errors", "explain", "patterns", "performance",
                                  "regressions", "thresholds", "variants", "whatif"])  # fmt: skip
@pytest.mark.parametrize("limit", [-1, 2.5, "10"])
def test_limits(asked: Analysis, name: str, limit: Any) -> None:
    """No number of rows below 0, none that is not whole."""
    with pytest.raises(QueryError, match=r"limit can't be .*; take a whole number, at least 0"):
        getattr(asked, name)(limit=limit)


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        *((name, "max_traces") for name in ("candidates", "critical_path", "explain", "patterns", "whatif")),
        *(("critical_path", "max_spans"), ("explain", "max_calls"), ("errors", "max_sample")),
        *(("regressions", "max_groups"), ("regressions", "intervals"), ("performance", "intervals")),
    ],
)
def test_bounds(asked: Analysis, name: str, bound: str) -> None:
    """Of nothing there is no answer."""
    with pytest.raises(QueryError, match=f"{bound} can't be 0; take a whole number, at least 1"):
        getattr(asked, name)(**{bound: 0})


def test_a_comparison_without_structure(asked: Analysis) -> None:
    """`max_traces=0` is none of these, and two sets that are one are told."""
    found = asked.compare("base", "base", max_traces=0)
    assert found.components.rows
    assert found.children.rows == []
    assert "Both sets are the same spans, so that nothing can be different: compare two sets." in found.components.notes
    halves = asked.compare(Selection(where={"component": "parse"}), Selection(where={"component": "fetch"}))
    assert not any("the same spans" in note for note in halves.components.notes)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Selection(where={"pid": 5}), "'pid' can't be 5: the value of a field is text, such as '5'"),  # type: ignore[dict-item]
        (lambda: Selection(where={"pid": ("1", 2)}), "'pid' can't be 2"),  # type: ignore[dict-item]
        (lambda: Selection(where={"pid": None}), "'pid' can't be None"),  # type: ignore[dict-item]
        (lambda: Selection(5, 4), "ends before it begins"),
    ],
)
def test_selections(make: Callable[[], Selection], said: str) -> None:
    """Values are text, and times are in order."""
    with pytest.raises(QueryError, match=said):
        make()


def test_shares(asked: Analysis) -> None:
    """By how much something gets faster is given as several shares."""
    for faster in (0.5, (), (2,)):
        with pytest.raises(QueryError, match=r"faster by shares .*of its own time"):
            asked.whatif(faster=faster)  # type: ignore[arg-type]


def test_contexts(tmp_path: Path) -> None:
    """What is known of a context is text; durations and tokens are numbers."""
    with DebugStore("s", tmp_path, auto_sync=False) as store, DebugAnalyzer(store) as analyzer:
        store.write_record("tool", "1", "parse", duration_ms=5)
        with pytest.raises(ConfigurationError, match="context_id can't be 5: it is text"):
            analyzer.analyze_context(context_id=5)  # type: ignore[arg-type]
        for duration_ms in (math.nan, math.inf, -1.0):
            with pytest.raises(ConfigurationError, match="Calls can't take"):
                analyzer.get_optimization_candidates(min_duration_ms=duration_ms)
        package = analyzer.analyze_context()
        for budget in (None, "1000", -1):
            with pytest.raises(ConfigurationError, match=r"can't have at most .* tokens"):
                package.to_markdown(budget)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match=r"can't have at most 1\.5 tokens"):
            package.to_json(1.5)  # type: ignore[arg-type]


def test_what_is_closed_says_so(folder: Path, tmp_path: Path) -> None:
    """And what to do."""
    with Analysis(base_path=folder) as analysis:
        pass
    with DebugStore("s", tmp_path, auto_sync=False) as store:
        with DebugAnalyzer(store) as analyzer:
            pass
        questions: tuple[Callable[[], Any], ...] = (
            analysis.performance,
            analyzer.analyze_context,
            analyzer.get_optimization_candidates,
        )
        for question in questions:
            with pytest.raises(QueryError, match=r"closed.*make another one"):
                question()
