"""Root causes: which service is to blame for what one set of spans has and another hasn't."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from engines import Engines, assert_same, both
from otel_debugstore.errors import QueryError
from otel_debugstore_analysis.analyses.root_cause import root_cause
from otel_debugstore_analysis.query import DuckDBEngine, Engine, Selection, Table
from otel_debugstore_exporters.batch import SpanRecord
from otel_debugstore_exporters.reader import SessionReader
from sessions import ERROR, MS, START_NS, span, write_journal, write_sealed

TRACES = 60
CALLED = {"front": ("cart", "stock"), "cart": ("store",), "stock": ("store",), "store": ()}


@dataclass
class Shop:
    """A front that calls cart and stock, both of which call store; times vary by a fifth.

    Attributes:
        own_ms: What calls of services take more by themselves.
        gap_ms: What the way takes more, by caller and callee.
        failing: The service whose calls fail.
        stopping: The service whose calls return before they call others.
        load: The factor that everything takes longer by.
        skew_ms: By service how far its clock is ahead.
    """

    seed: int = 1
    traces: int = TRACES
    first: int = 1
    own_ms: Mapping[str, float] = field(default_factory=dict)
    gap_ms: Mapping[tuple[str, str], float] = field(default_factory=dict)
    failing: str | None = None
    stopping: str | None = None
    load: float = 1.0
    skew_ms: Mapping[str, float] = field(default_factory=dict)

    def spans(self) -> Iterator[SpanRecord]:
        """Yield the spans, a trace a second."""
        chance = random.Random(self.seed)
        for trace in range(self.first, self.first + self.traces):
            made: list[SpanRecord] = []
            self._call(made, chance, trace, "front", None, trace * 1_000.0)
            yield from made

    def _call(
        self, made: list[SpanRecord], chance: random.Random, trace: int, service: str, parent: int | None, start: float
    ) -> float:
        """Make the span of a server with a client's and a server's span for each call below it; return its end."""
        number = len(made)
        me = span(100 * number + 1, f"{service}.serve", parent=parent, trace=trace, service=service)
        made.append(me)
        own = self._about(chance, 4 + self.own_ms.get(service, 0.0))
        at = start + own / 2
        for other in () if service == self.stopping else CALLED[service]:
            gap = self._about(chance, 2 + self.gap_ms.get((service, other), 0.0))
            client = 100 * len(made) + 2
            end = self._call(made, chance, trace, other, client, at + gap / 2) + gap / 2
            below = span(client, f"{service} to {other}", parent=100 * number + 1, trace=trace, service=service)
            made.append(self._timed(below, service, at, end))
            at = end
        end = at + own / 2
        made[number] = self._timed(me, service, start, end)
        return end

    def _timed(self, one: SpanRecord, service: str, start: float, end: float) -> SpanRecord:
        is_failing = service == self.failing and one.name.endswith(".serve")
        start_ns, end_ns = (START_NS + int((at + self.skew_ms.get(service, 0.0)) * MS) for at in (start, end))
        return replace(one, start_ns=start_ns, end_ns=end_ns, status_code=ERROR if is_failing else 0)

    def _about(self, chance: random.Random, milliseconds: float) -> float:
        return milliseconds * self.load * chance.uniform(0.8, 1.2)


def shop(**options: Any) -> Iterator[SpanRecord]:
    """Yield the spans of a `Shop`."""
    return Shop(**options).spans()


Ask = Callable[..., Table]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """Return a function that ranks the services of spans against those of `shop()`."""

    def rank(spans: Iterator[SpanRecord], baseline: Iterator[SpanRecord] | None = None, **options: Any) -> Table:
        write_sealed(tmp_path, "baseline", shop() if baseline is None else baseline)
        write_sealed(tmp_path, "faulty", spans)
        with SessionReader(tmp_path) as reader:
            return of_sessions(DuckDBEngine(reader), **options)

    return rank


def of_sessions(engine: Engine, **options: Any) -> Table:
    faulty, baseline = (Selection(where={"session": name}) for name in ("faulty", "baseline"))
    return root_cause(engine, selection=faulty, baseline=baseline, **options)


@pytest.mark.parametrize("service", ["front", "cart", "stock", "store"])
def test_a_service_whose_own_time_rose_comes_first(ask: Ask, service: str) -> None:
    """The time that calls take themselves names it, and the component is its own."""
    found = ask(shop(seed=2, own_ms={service: 20}, first=1_000)).dicts()[0]
    assert (found["service"], found["signal"], found["component"]) == (service, "self time", f"{service}.serve")
    assert found["own_ns"] == pytest.approx(20e6 * (2 if service == "store" else 1), rel=0.1)


def test_a_gap_on_all_sides_of_a_service_names_it(ask: Ask) -> None:
    """Calls to it and calls it makes take longer on the way; it, and none of those at the other ends, is first."""
    slow = {("front", "cart"): 30.0, ("cart", "store"): 30.0}
    found = ask(shop(seed=2, gap_ms=slow, first=1_000)).dicts()
    assert (found[0]["service"], found[0]["signal"]) == ("cart", "client-server gap")


def test_a_caller_whose_every_call_is_delayed_comes_before_those_it_calls(ask: Ask) -> None:
    """One cause that explains all gaps is likelier than two."""
    slow = {("front", "cart"): 30.0, ("front", "stock"): 30.0}
    assert ask(shop(seed=2, gap_ms=slow, first=1_000)).rows[0][0] == "front"


def test_a_service_that_all_reach_late_comes_before_those_that_call_it(ask: Ask) -> None:
    """The same from the other end."""
    slow = {("cart", "store"): 30.0, ("stock", "store"): 30.0}
    assert ask(shop(seed=2, gap_ms=slow, first=1_000)).rows[0][0] == "store"


def test_errors_name_the_service_they_began_in(ask: Ask) -> None:
    """Calls that fail weigh as much as slow ones; callers that fail because of them do not."""

    def spans() -> Iterator[SpanRecord]:
        for one in shop(seed=2, failing="store", first=1_000):
            yield replace(one, status_code=ERROR) if one.name in ("cart.serve", "front.serve", "cart to store") else one

    found = ask(spans()).dicts()[0]
    assert (found["service"], found["signal"], found["component"]) == ("store", "errors", "store.serve")
    assert 0.7 < found["failing_share"] <= 1


def test_calls_that_return_early_name_their_service(ask: Ask) -> None:
    """Nothing is slow, nothing is an error: the calls lack the children that they had."""
    found = ask(shop(seed=2, stopping="cart", first=1_000)).dicts()[0]
    assert (found["service"], found["signal"], found["component"]) == ("cart", "calls that stop early", "cart.serve")


def test_a_load_that_slows_everything_names_nobody(ask: Ask) -> None:
    """Twice the time everywhere is no service's fault; a fault in the midst of it still is."""
    assert all(row["score"] < 0.1 for row in ask(shop(seed=2, load=2, first=1_000)).dicts())


def test_a_fault_is_found_under_load(ask: Ask) -> None:
    """What all have in common is taken off first."""
    assert ask(shop(seed=2, load=2, own_ms={"stock": 15}, first=1_000)).rows[0][0] == "stock"


def test_clocks_that_differ_do_not_matter(ask: Ask) -> None:
    """Gaps are differences of durations."""
    skewed = shop(seed=2, skew_ms={"cart": 700, "store": -300}, first=1_000)
    assert all(row["score"] < 0.1 for row in ask(skewed).dicts())


def test_a_few_calls_prove_nothing(ask: Ask) -> None:
    """Of one slow trace among sixty the lower bound is near 0."""
    one_slow = [*shop(seed=2, first=1_000), *shop(seed=3, traces=1, own_ms={"cart": 300}, first=5_000)]
    assert ask(iter(one_slow)).dicts()[0]["score"] < 0.15


def test_names_and_services_that_the_baseline_lacks(ask: Ask) -> None:
    """They are compared with what calls take there in general."""
    renamed = (replace(one, name=f"{one.name} 2") for one in shop(seed=2, own_ms={"stock": 40}, first=1_000))
    without = (one for one in shop() if one.resource.attributes["service.name"] != "stock")
    assert ask(renamed, baseline=without).rows[0][0] == "stock"


def test_components_are_ranked_where_there_is_one_service(ask: Ask) -> None:
    """In one program it is components that are to blame."""

    def spans(own_ms: dict[str, float], seed: int, first: int) -> Iterator[SpanRecord]:
        for one in shop(seed=seed, own_ms=own_ms, first=first):
            yield replace(one, resource=next(iter(shop(traces=1))).resource)

    table = ask(spans({"stock": 20}, 2, 1_000), baseline=spans({}, 1, 1))
    assert table.columns[0] == "component"
    assert table.rows[0][0] == "stock.serve"


def test_without_anything_to_explain_or_to_compare_with_there_is_a_sentence(tmp_path: Path) -> None:
    """An empty session on either side."""
    write_sealed(tmp_path, "faulty", shop())
    write_journal(tmp_path, "baseline", [])
    with SessionReader(tmp_path) as reader:
        engine = DuckDBEngine(reader)
        table = of_sessions(engine)
        other = root_cause(
            engine,
            selection=Selection(where={"session": "baseline"}),
            baseline=Selection(where={"session": "faulty"}),
        )
    assert (table.rows, table.notes) == ([], ("There is nothing to compare with: no span is in the baseline.",))
    assert (other.rows, other.notes) == ([], ("There are no spans to explain.",))


def test_what_can_be_ranked_is_said(tmp_path: Path) -> None:
    """Another unit is an error that names those there are."""
    write_sealed(tmp_path, "faulty", [span(1)])
    with SessionReader(tmp_path) as reader, pytest.raises(QueryError, match="take service or component"):
        of_sessions(DuckDBEngine(reader), by="host")


def test_both_engines_rank_alike(tmp_path: Path) -> None:
    """The ranking and all its figures."""
    write_sealed(tmp_path, "baseline", shop(traces=20))
    write_sealed(tmp_path, "faulty", shop(seed=2, traces=20, own_ms={"cart": 9}, failing="store", first=1_000))
    with both(tmp_path) as found:
        table = assert_same(found, of_sessions)
    assert {row[0] for row in table.rows} == {"front", "cart", "stock", "store"}


def test_odd_spans_get_an_answer(engines: Engines) -> None:
    """Cycles, orphans, negative durations, spans without a start: the same answer on both engines."""
    odd, other = Selection(where={"session": "s"}), Selection(where={"session": "t"})

    def every(engine: Engine) -> list[Table]:
        pairs = [(by, baseline) for by in ("service", "component") for baseline in (odd, other)]
        return [root_cause(engine, selection=odd, baseline=baseline, by=by) for by, baseline in pairs]

    assert_same(engines, every)
