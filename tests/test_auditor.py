"""The auditor: which limits there are, what keeps them and what does not, and what comes into the queue."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audited import audited, calls, only, sealed
from otel_debugstore import PerformanceThreshold
from otel_debugstore_analysis.auditor import Thresholds, audit
from otel_debugstore_analysis.auditor._distributions import beta_quantiles, student_quantile
from otel_debugstore_analysis.auditor._history import proposals
from otel_debugstore_exporters.batch import Resource, SpanRecord


class TestVerdicts:
    def test_a_quantile_that_is_kept(self, tmp_path: Path) -> None:
        """72 calls below the limit are the fewest that show a p95 to be kept; the share of calls is what is told."""
        sealed(tmp_path, calls([100] * 72))
        result = only(tmp_path, max_duration_ms=150)
        assert (result.passed, result.verdict, result.violations) == (True, "pass", ())
        (check,) = result.checks
        assert (check.name, check.measured, check.limit, check.share) == ("p95_ns", 100e6, 150e6, 0.0)
        assert check.high <= 0.05

    def test_too_few_calls(self, tmp_path: Path) -> None:
        """One call fewer decides nothing: it has not passed, the verdict says so, and how many calls are missing."""
        sealed(tmp_path, calls([100] * 71))
        result = only(tmp_path, max_duration_ms=150)
        assert (result.passed, result.verdict, result.violations, result.more_calls) == (False, "undecided", (), 1)
        assert "1 more call needed" in result.cause

    def test_a_quantile_that_is_not_kept(self, tmp_path: Path) -> None:
        """Two calls of two above the limit show that more than 5 % are; one call shows nothing."""
        sealed(tmp_path / "one", calls([200]))
        assert only(tmp_path / "one", max_duration_ms=150).verdict == "undecided"
        sealed(tmp_path / "two", calls([200, 200]))
        result = only(tmp_path / "two", max_duration_ms=150)
        assert (result.passed, result.verdict) == (False, "fail")
        assert "p95 of the duration is 200 ms, the limit is 150 ms" in result.violations[0]

    def test_what_was_measured_and_what_is_known(self, tmp_path: Path) -> None:
        """A p95 above its limit by chance, with 7 of 100 calls above it, is not taken for one that is."""
        sealed(tmp_path, calls([200] * 7 + [100] * 93))
        result = only(tmp_path, max_duration_ms=150)
        assert result.metrics["p95_ms"] == pytest.approx(200)
        assert result.verdict == "undecided"
        sealed(tmp_path, *[calls([200] * 7 + [100] * 93) for _ in range(9)])
        assert only(tmp_path, max_duration_ms=150).verdict == "fail"

    def test_it_is_the_limit_of_the_p95(self, tmp_path: Path) -> None:
        """`max_duration_ms` limits the p95, and another statistic where that is said."""
        sealed(tmp_path, calls([200] * 30 + [100] * 970))
        found = {
            statistic: only(tmp_path, max_duration_ms=150, duration_statistic=statistic).verdict
            for statistic in ("p50", "p95", "p99", "max", "mean")
        }
        assert found == {"p50": "pass", "p95": "pass", "p99": "fail", "max": "fail", "mean": "pass"}

    def test_each_statistic_has_a_limit_of_its_own(self, tmp_path: Path) -> None:
        """Several limits of the duration hold beside each other; of two for one statistic the lower one counts."""
        sealed(tmp_path, calls([100] * 400))
        result = only(tmp_path, max_duration_ms=150, max_p95_ms=90, max_p50_ms=120, max_p99_ms=200, max_mean_ms=99)
        assert [(check.name, check.limit, check.verdict) for check in result.checks] == [
            ("p95_ns", 90e6, "fail"),
            ("p50_ns", 120e6, "pass"),
            ("p99_ns", 200e6, "pass"),
            ("mean_ns", 99e6, "fail"),
        ]

    def test_a_mean(self, tmp_path: Path) -> None:
        """A mean is decided by Student's interval of it."""
        sealed(tmp_path, calls([90, 110] * 50))
        for limit, verdict in ((105, "pass"), (95, "fail"), (100.5, "undecided")):
            assert only(tmp_path, max_mean_ms=limit).verdict == verdict

    def test_memory_and_cpu(self, tmp_path: Path) -> None:
        """Memory is limited in MB, CPU in percent of the duration or in ms."""
        sealed(tmp_path, calls([100] * 80, memory_mb=50, cpu_ms=40))
        result = only(tmp_path, max_memory_mb=49, max_cpu_percent=41, max_cpu_ms=39)
        assert {check.name: check.verdict for check in result.checks} == {
            "p95_memory_peak_bytes": "fail",
            "p95_cpu_percent": "pass",
            "p95_cpu_ns": "fail",
        }
        assert result.metrics["memory_mb"] == pytest.approx(50)

    def test_what_no_call_says(self, tmp_path: Path) -> None:
        """A limit of what was not measured is undecided, and not kept; by default nobody asked for it."""
        sealed(tmp_path, calls([1] * 100))
        assert only(tmp_path, max_memory_mb=1).verdict == "undecided"
        (result,) = audited(tmp_path, Thresholds())
        assert result.passed
        assert [check.name for check in result.checks] == ["p95_ns", "success_rate"]

    def test_rates_of_errors(self, tmp_path: Path) -> None:
        """Rates are decided by Wilson's interval: 8 of 100 are not shown to be more than 5 %, 80 of 1,000 are."""
        sealed(tmp_path, calls([1] * 100, failed=8))
        assert only(tmp_path, max_error_rate=0.05).verdict == "undecided"
        sealed(tmp_path, *[calls([1] * 100, failed=8) for _ in range(9)])
        result = only(tmp_path, max_error_rate=0.05, min_success_rate=0.95)
        assert [(check.name, check.verdict) for check in result.checks] == [
            ("error_rate", "fail"),
            ("success_rate", "fail"),
        ]
        assert result.metrics["success_rate"] == pytest.approx(0.92)
        assert only(tmp_path, max_error_rate=0.11).verdict == "pass"

    def test_zero_is_a_limit(self, tmp_path: Path) -> None:
        """A limit of 0 is not overlooked: any call takes longer than 0 ms, and one error breaks a rate of 0."""
        sealed(tmp_path, calls([1] * 400, failed=1))
        assert only(tmp_path, max_duration_ms=0).verdict == "fail"
        assert only(tmp_path, max_error_rate=0).verdict == "fail"
        assert only(tmp_path, min_success_rate=1).verdict == "fail"

    def test_zero_is_kept(self, tmp_path: Path) -> None:
        """No errors in so many calls that 1 % can be ruled out keep a limit of 0; in fewer they don't yet."""
        sealed(tmp_path / "many", calls([1] * 381))
        assert only(tmp_path / "many", max_error_rate=0).verdict == "pass"
        sealed(tmp_path / "few", calls([1] * 100))
        result = only(tmp_path / "few", max_error_rate=0)
        assert (result.verdict, result.more_calls) == ("undecided", 281)

    def test_calls_per_parent(self, tmp_path: Path) -> None:
        """Callers that call three times and more are told from those that do it once."""
        callers = [(f"{number}", 4 if number < 60 else 1) for number in range(100)]
        spans = [
            record
            for place, (_, many) in enumerate(callers)
            for number in range(many)
            for record in [_child(1000 * place + number, parent=10_000_000 + place)]
        ]
        sealed(tmp_path, spans)
        result = only(tmp_path, max_calls_per_parent=3)
        assert (result.verdict, result.checks[0].calls) == ("fail", 100)
        assert only(tmp_path, max_calls_per_parent=4).verdict == "pass"

    def test_sums_of_attributes(self, tmp_path: Path) -> None:
        """The sum of an attribute over the calls of a trace is limited: tokens, or bytes."""
        key = "gen_ai.usage.output_tokens"
        sealed(tmp_path, [_child(number, parent=1, trace=number // 2 + 1, tokens=100) for number in range(2, 202)])
        assert only(tmp_path, max_sums={key: 199}).verdict == "fail"
        assert only(tmp_path, max_sums={key: 200}).verdict == "pass"

    def test_calls_that_stand_for_others(self, tmp_path: Path) -> None:
        """Sampled calls count by their weight: 300 slow of weight 10 are more than 700 quick of weight 1."""
        sealed(tmp_path, calls([200] * 300, weight=10) + calls([100] * 700))
        result = only(tmp_path, max_duration_ms=150, duration_statistic="p50")
        assert result.verdict == "fail"
        assert result.checks[0].share == pytest.approx(3000 / 3700)
        assert result.metrics["calls"] == 3700

    def test_processes_that_differ(self, tmp_path: Path) -> None:
        """Where processes differ more than calls do, their calls count as fewer: the same calls decide less."""
        alike = [calls([200] * 15 + [100] * 85) for _ in range(4)]
        sealed(tmp_path / "alike", *alike)
        differing = [calls([200] * 60 + [100] * 40), *(calls([100] * 100) for _ in range(3))]
        sealed(tmp_path / "differing", *differing)
        assert only(tmp_path / "alike", max_duration_ms=150).verdict == "fail"
        result = only(tmp_path / "differing", max_duration_ms=150)
        assert (result.verdict, result.checks[0].processes) == ("undecided", 4)

    def test_pods_are_processes(self, tmp_path: Path) -> None:
        """All have the process id 1, and their hosts differ: there are four of them, whatever is measured."""
        key = "tokens"
        differing = [calls([200] * 60 + [100] * 40, attributes={key: 9}), *(calls([100] * 100) for _ in range(3))]
        for pod, spans in enumerate(differing):
            sealed(tmp_path, [replace(one, resource=Resource({"host.name": f"pod {pod}"})) for one in spans])
        result = only(tmp_path, max_duration_ms=150, max_mean_ms=110, max_error_rate=0.5, max_sums={key: 10})
        assert [(check.verdict, check.processes) for check in result.checks] == [
            ("undecided", 4),
            ("undecided", 4),
            ("pass", 1),
            ("pass", 4),
        ]
        assert result.metrics["processes"] == 4

    def test_so_many_more_calls_decide_it(self, tmp_path: Path) -> None:
        """What is said to be missing is what it takes, if the calls to come are like those that were."""
        sealed(tmp_path, calls([200] * 20 + [100] * 980))
        more = only(tmp_path, max_duration_ms=150, duration_statistic="p99").more_calls
        assert more is not None
        blocks = math.ceil(more / 1000)
        sealed(tmp_path, calls(([200] * 20 + [100] * 980) * blocks))
        assert only(tmp_path, max_duration_ms=150, duration_statistic="p99").verdict == "fail"


def _child(number: int, parent: int, trace: int | None = None, tokens: int | None = None) -> Any:
    from sessions import span

    attributes: dict[str, Any] = {"debugstore.layer": "tool", "debugstore.component": "work"}
    if tokens is not None:
        attributes["gen_ai.usage.output_tokens"] = tokens
    return span(number + 1, "work", parent=parent, trace=trace or parent, start_ms=number, attributes=attributes)


class TestWhatIsAudited:
    def test_the_newest_code(self, tmp_path: Path) -> None:
        """Calls of code that is no longer run say nothing: what was slow and was changed is audited anew."""
        old, new = calls([500] * 100, variant="v1"), calls([100] * 80, variant="v2", start_ms=1_000_000)
        sealed(tmp_path, old + new)
        result = only(tmp_path, max_duration_ms=150)
        assert (result.verdict, result.code.variant, result.metrics["calls"]) == ("pass", "v2", 80)

    def test_names_that_begin_alike(self, tmp_path: Path) -> None:
        """Components whose names begin alike, or hold odd characters, are told apart; so are layers."""
        names = ["work", "work2", "wor", "a\tb\nc%1F'\"", "%25", "wörk\x1f"]
        sealed(tmp_path, [call for place, name in enumerate(names) for call in calls([100 + place] * 3, name)])
        results = audited(tmp_path, PerformanceThreshold(max_duration_ms=102.5))
        assert {one.component_name: one.verdict for one in results} == {
            **dict.fromkeys(names[:3], "undecided"),
            **dict.fromkeys(names[3:], "fail"),
        }

    def test_those_that_fail_come_first(self, tmp_path: Path) -> None:
        """Results are ordered: what fails and would save most first, then what is undecided, then the rest."""
        sealed(
            tmp_path,
            calls([100] * 100, "good")
            + calls([100], "few")
            + calls([400] * 100, "bad")
            + calls([9_000] * 100, "worse")
            + calls([1], "other", layer="node"),
        )
        results = audited(tmp_path, PerformanceThreshold(max_duration_ms=150))
        assert [one.component_name for one in results] == ["worse", "bad", "few", "good"]

    def test_those_that_are_named(self, tmp_path: Path) -> None:
        """Globs choose components."""
        sealed(tmp_path, calls([1], "shop.buy") + calls([1], "shop.sell") + calls([1], "other"))
        found = audited(tmp_path, PerformanceThreshold(max_duration_ms=1), components=["shop.*"])
        assert {one.component_name for one in found} == {"shop.buy", "shop.sell"}

    def test_spans_with_an_attribute(self, tmp_path: Path) -> None:
        """Thresholds of an attribute's values hold for spans that have one, whatever these are."""
        plain = {"debugstore.component": None, "debugstore.layer": None}
        spans = [
            call
            for route, duration in (("/api/buy", 300), ("/api/sell", 100), ("/health", 300))
            for call in calls([duration] * 80, attributes={"http.route": route, **plain})
        ]
        sealed(tmp_path, spans)
        limits = PerformanceThreshold(max_duration_ms=200)
        found = audited(tmp_path, Thresholds({}, (), (("http.route", "/api/*", limits),)))
        assert [(one.component_name, one.layer, one.verdict) for one in found] == [
            ("http.route=/api/buy", "", "fail"),
            ("http.route=/api/sell", "", "pass"),
        ]

    def test_auto_takes_the_history(self, tmp_path: Path) -> None:
        """ "auto" is what earlier sessions propose, for that layer; without any it is undecided."""
        auto = Thresholds({"tool": PerformanceThreshold(max_p95_ms="auto")})
        sealed(tmp_path, calls([100, 110] * 100) + calls([900] * 200, layer="step"), session="before")
        sealed(tmp_path, calls([150] * 100) + calls([150] * 100, "unknown"), session="s")

        found = audited(tmp_path, auto, proposals=partial(proposals, tmp_path, ["s"]))
        results = {one.component_name: one for one in found}
        assert results["work"].verdict == "fail"
        assert results["work"].checks[0].limit == pytest.approx(135e6)  # the median and six times the MAD
        assert results["unknown"].verdict == "undecided"
        assert "earlier sessions" in results["unknown"].cause

    def test_auto_of_an_attribute_takes_the_history_too(self, tmp_path: Path) -> None:
        """By the attribute's value; one that no earlier session has is undecided."""

        def of_route(durations_ms: Sequence[float], route: str) -> list[SpanRecord]:
            return calls(durations_ms, attributes={"http.route": route})

        auto = PerformanceThreshold(max_duration_ms="auto")
        limits = Thresholds({}, (), (("http.route", "/api/*", auto), ("http.method", "*", auto)))
        sealed(tmp_path, of_route([100, 110] * 100, "/api/buy") + of_route([500] * 200, "/api/sell"), session="before")
        spans = of_route([150] * 100, "/api/buy") + of_route([150] * 100, "/api/sell") + of_route([1] * 9, "/api/new")
        sealed(tmp_path, spans + calls([1] * 9, attributes={"http.method": "GET"}), session="s")
        found = audited(tmp_path, limits, proposals=partial(proposals, tmp_path, ["s"]))
        assert {one.component_name: one.verdict for one in found} == {
            "http.route=/api/buy": "fail",
            "http.route=/api/sell": "pass",
            "http.route=/api/new": "undecided",
            "http.method=GET": "undecided",
        }

    def test_evidence_and_saving(self, tmp_path: Path) -> None:
        """What fails comes with traces of its slowest calls, and with what keeping the limit would save."""
        sealed(tmp_path, calls([400] * 98 + [900, 800]))
        result = only(tmp_path, max_duration_ms=200)
        slowest = max(calls_of(tmp_path), key=lambda row: row[1])[0]
        assert result.trace_ids[0] == slowest
        assert result.saving_ns_per_s == pytest.approx(1e9 * 0.5 * (98 * 0.4 + 1.7) / 99, rel=0.01)


def calls_of(base_path: Path) -> list[tuple[str, int]]:
    from otel_debugstore_exporters.reader import SessionReader

    with SessionReader(base_path) as reader:
        return [(row[0], row[1]) for row in reader.query("SELECT trace_id, duration_ns FROM spans").rows]


def test_on_clickhouse_too(tmp_path: Path, engines: dict[str, Any]) -> None:
    """The same audit says the same on either engine."""
    limits = Thresholds(
        {},
        (
            (
                "*",
                {
                    "max_p50_ms": 2,
                    "max_mean_ms": 2,
                    "max_error_rate": 0.1,
                    "max_memory_mb": 1,
                    "max_calls_per_parent": 1,
                    "max_sums": {"http.status_code": 1},
                },
            ),
        ),
    )
    found = {
        name: [(one.component_name, one.layer, one.verdict, one.checks) for one in audit(engine, limits)]
        for name, engine in engines.items()
    }
    assert len(found["duckdb"]) > 3
    assert [one[:3] for one in found["duckdb"]] == [one[:3] for one in found["clickhouse"]]
    for one, other in zip(found["duckdb"], found["clickhouse"], strict=True):
        assert [check.share for check in one[3]] == pytest.approx([check.share for check in other[3]], nan_ok=True)


@settings(max_examples=200, deadline=None)
@given(st.floats(0.01, 1e6), st.floats(0.01, 1e6), st.sampled_from([0.005, 0.025, 0.5, 0.975, 0.995]))
def test_quantiles_of_the_beta_distribution(a: float, b: float, share: float) -> None:
    """They are those of scipy."""
    from scipy.special import betainc, betaincinv

    found = float(beta_quantiles(np.array([a]), np.array([b]), share)[0])
    expected = float(betaincinv(a, b, share))
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-12) or betainc(a, b, found) == pytest.approx(share)


@settings(deadline=None)
@given(st.floats(2, 1e6))
def test_quantiles_of_students_distribution(freedom: float) -> None:
    """They are those of scipy, to three digits."""
    from scipy.special import stdtrit

    assert student_quantile(freedom, 0.975) == pytest.approx(float(stdtrit(freedom, 0.975)), rel=5e-4)


@pytest.mark.parametrize(
    ("processes", "spread", "at_most"), [(1, 0, 0.05), (4, 0, 0.05), (10, 0.2, 0.07), (20, 0.7, 0.07)]
)
def test_wrong_verdicts_are_rare(processes: int, spread: float, at_most: float) -> None:
    """At the limit itself, where any verdict is wrong, there hardly is one, also where processes differ."""
    from otel_debugstore_analysis.auditor._checks import Seen, checked
    from otel_debugstore_analysis.auditor._intervals import Part, share_of
    from otel_debugstore_analysis.auditor._threshold import Limit

    chance = np.random.default_rng(1)
    shape = 0.95 / spread**2 - 0.05 if spread else 0
    seen = []
    for _ in range(1500):
        shares = chance.beta(shape, 19 * shape, processes) if spread else np.full(processes, 0.05)
        parts = [Part(200, 200.0, 200.0, float(many)) for many in chance.binomial(200, shares)]
        seen.append(Seen(Limit("duration_ns", "p95", 1e6), 1e6, 1e6, share_of(parts)))
    assert sum(check.verdict != "undecided" for check in checked(seen)) / len(seen) <= at_most
