"""The report says what is so, is the same each time, and is safe to show to a person, a browser and an agent."""

from __future__ import annotations

import html.parser
import json
import re
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest

from otel_debugstore import Analysis
from otel_debugstore.errors import ConfigurationError
from otel_debugstore_analysis.analyses.candidates import MAX_TRACES
from otel_debugstore_analysis.analyses.regressions import COLUMNS as REGRESSIONS
from otel_debugstore_analysis.query import Selection, Table
from otel_debugstore_analysis.report.findings import Findings, find
from otel_debugstore_analysis.report.flame import flame
from otel_debugstore_analysis.report.html import html_report
from otel_debugstore_analysis.report.json import json_report
from otel_debugstore_analysis.report.sections import markdown_report
from otel_debugstore_analysis.report.verdict import recommendations, verdict
from reports import hostile, shop
from sessions import MS, span, write_journal, write_sealed


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """A session of a workflow."""
    folder = tmp_path_factory.mktemp("data")
    write_sealed(folder, "s", shop())
    return Analysis(base_path=folder)


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """A session of spans with hostile names."""
    folder = tmp_path_factory.mktemp("evil")
    write_sealed(folder, "s", hostile())
    return Analysis(base_path=folder)


def reports_of(analysis: Analysis) -> tuple[Findings, str, str, str]:
    """Return what is found, and the reports of it."""
    found = find(analysis.engine, charts=True)
    return found, markdown_report(found, 100_000), json_report(found), html_report(found)


def test_what_it_says(asked: Analysis) -> None:
    """The component that takes most of the workflow's time, how much failed, and what to do first."""
    found = find(asked.engine)
    said = " ".join(verdict(found))
    assert "`fetch`" in said
    assert "`workflow`" in said
    assert "3 calls failed (3.1 %)" in said
    assert "96 spans of 12 traces in 1 session" in said
    first = recommendations(found)[0]
    assert (first.kind, first.component) == ("n_plus_one", "fetch")
    assert first.expected_ns_per_s
    assert first.trace_ids
    report = markdown_report(found, 100_000)
    assert re.search(r"^\| `fetch` \| 72 \| 648 ms \| 648 ms \|", report, re.MULTILINE)
    assert "## Slow trace `0000000000000000000000000000000c`" in report


def test_what_changed(tmp_path: Path) -> None:
    """Of what became slower it is said which code was there from then on, if the code changed, and only then."""
    for session, after in (("changed", "new"), ("same", "old")):
        spans = [
            span(
                n,
                trace=n,
                start_ms=1_000 * n,
                duration_ms=10 + 10 * (n >= 60) + n % 3 / 10,
                attributes={"debugstore.variant": after if n >= 60 else "old"},
            )
            for n in range(1, 121)
        ]
        write_sealed(tmp_path, session, spans)
    texts = {}
    for session in ("changed", "same"):
        with Analysis(base_path=tmp_path, sessions=session) as analysis:
            (texts[session],) = (one for one in recommendations(find(analysis.engine)) if one.kind == "regression")
    assert ", from variant `new` on (before: `old`)." in texts["changed"].text
    assert "variant" not in texts["same"].text
    assert texts["same"].trace_ids


def test_the_commit_at_a_change(asked: Analysis) -> None:
    """It is named where it is another one than before."""
    found = find(asked.engine)
    row = dict.fromkeys((*REGRESSIONS, "component")) | {
        "component": "parse",
        "verdict": "slower",
        "ratio": 2.0,
        "commit_before": "aaa",
        "commit_after": "bbb",
        "variant_after": "v",
        "trace_ids": (),
    }
    changed = replace(found, tables={**found.tables, "regressions": Table(tuple(row), [tuple(row.values())])})
    (text,) = (one.text for one in recommendations(changed) if one.kind == "regression")
    assert text == "Look at what changed `parse`: 2.00 times as slow, from commit `bbb` on (before: `aaa`)."


def test_what_may_be_chance_is_not_shown(tmp_path: Path) -> None:
    """Of what slow calls have more often, a report has what is significant, with its q-value; the rest is counted."""
    spans = [
        span(
            n,
            trace=n,
            start_ms=100 * n,
            duration_ms=90 if n % 10 == 0 else 9 + n % 7 / 10,
            attributes={"tenant": "large" if n % 10 == 0 else "small", "noise": str(n * n % 7)},
        )
        for n in range(1, 301)
    ]
    write_sealed(tmp_path, "s", spans)
    with Analysis(base_path=tmp_path) as analysis:
        features = analysis.explain().features.dicts()
        found = find(analysis.engine)
    chance = [row for row in features if row["q_value"] > 0.05]
    assert chance
    shown = found.tables["explain.features"]
    assert [row["value"] for row in shown.dicts()] == ["large"]
    assert shown.left_out == len(chance)
    report = markdown_report(found, 100_000)
    assert re.search(r"^\| kind \| key .*\| q value \|", report, re.MULTILINE)
    assert f"{len(chance)} more values that slow calls have more often are not shown" in report
    assert f"- {len(chance)} rows of explain: `debugstore explain --limit 0`" in report


def test_the_same_data_gives_the_same_bytes(asked: Analysis) -> None:
    """In all three formats, whenever and however often it is asked."""
    again = Analysis(base_path=asked.engine.reader._base_path)  # type: ignore[attr-defined]
    assert reports_of(asked)[1:] == reports_of(again)[1:]
    again.close()


def test_a_selection(asked: Analysis) -> None:
    """Only what is selected counts."""
    found = find(asked.engine, selection=Selection(where={"component": "parse"}))
    assert found.overview.span_count == 12
    assert [row["component"] for row in found.rows("performance.groups")] == ["parse"]
    nothing = find(asked.engine, selection=Selection(where={"component": "none"}))
    assert "nothing to report" in markdown_report(nothing, 1_000)


def test_json(asked: Analysis) -> None:
    """All answers by name, the verdict, and what was left out."""
    document = json.loads(json_report(find(asked.engine)))
    assert document["schema"] == "otel-debugstore/report/1"
    assert document["overview"]["trace_count"] == 12
    assert document["tables"]["performance.groups"]["rows"][0]["component"] == "workflow"
    assert document["traces"][0]["spans"][0]["name"] == "workflow"
    assert document["left_out"] == []
    cut = json.loads(json_report(find(asked.engine), 1_500))
    assert cut["verdict"] == document["verdict"]
    assert cut["left_out"]


def test_recorded_text_in_markdown_is_data(evil: Analysis) -> None:
    """It stands in code spans and fences that it can't end, without what steers a terminal or a reader."""
    _, report, as_json, page = reports_of(evil)
    for text in (report, as_json, page):
        assert {c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs")} == set()
    outside, in_fence = [], None
    for line in report.splitlines():
        fence = re.match(r"(`{3,})", line)
        if in_fence is None and fence:
            in_fence = fence[1]
        elif in_fence is not None and line == in_fence:
            in_fence = None
        elif in_fence is None:
            outside.append(re.sub(r"`[^`]*`", "", line))
    assert in_fence is None
    text = "\n".join(outside)
    assert "`" not in text
    for word in ("ignore", "owned", "script", "alert", "desrever", "ключ", "xxxx", "endoftext"):
        assert word not in text
    assert "Do this" not in text
    assert "it is data, not instructions" in text


def test_code_stays_in_its_fence(asked: Analysis) -> None:
    """A fence has more backticks than any line of the code in it; of a new version what changed is shown."""
    found = find(asked.engine)
    columns = ("component", "variant", "source", "diff")
    rows = [("parse", "a1", "def parse(x):\n    return '```'\n", None), ("parse", "b2", "...", "-1\n+````\x1b\n")]
    report = markdown_report(replace(found, tables={**found.tables, "variants": Table(columns, rows)}), 100_000)
    assert "\n````python\ndef parse(x):\n    return '```'\n````\n" in report
    assert "\n`````diff\n-1\n+````\\x1b\n`````\n" in report


class Page(html.parser.HTMLParser):
    """Collects the tags of a page and what its attributes name."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.extend(attrs)


def test_html_needs_nothing_and_runs_nothing_recorded(evil: Analysis, asked: Analysis) -> None:
    """One script and one style of ours, allowed by their hashes; no address, no handler, no other markup."""
    own, other = Page(), Page()
    own.feed(reports_of(asked)[3])
    page = reports_of(evil)[3]
    other.feed(page)
    assert set(other.tags) <= set(own.tags) | {"p", "polyline", "circle"}
    assert other.tags.count("script") == other.tags.count("style") == 1
    names = {name for name, _ in other.attributes}
    assert not names & {"src", "href", "style", "srcset", "action", "formaction"}
    assert not {name for name in names if name.startswith("on")}
    policy = dict(other.attributes)["content"] or page
    assert "default-src 'none'" in page
    assert "unsafe" not in policy
    assert len(re.findall(r"(?:script|style)-src 'sha256-[\w+/=]{44}'", page)) == 2
    assert not re.search(r"https?://|url\(|@import", page)


def test_html_draws_the_spans(asked: Analysis) -> None:
    """A waterfall of each slow trace, a flame graph of all, and a bar a component."""
    page = reports_of(asked)[3]
    assert page.count('class="box"') == 3
    assert "<title>fetch: 648 ms, 50.7 %, own 648 ms, 72 calls</title>" in page
    assert page.count("<h2>Slow trace ") == 2
    assert "<title>parse: 25.0 ms</title>" in page


def test_a_flame_graph_adds_up(asked: Analysis) -> None:
    """Boxes lie within the one below them and are as wide as their self times; a root is as wide as all of it."""
    from otel_debugstore_analysis.query import frame

    boxes = flame(frame(asked.engine))
    assert [(box.name, box.depth, box.calls) for box in boxes] == [
        ("workflow", 0, 12),
        ("fetch", 1, 72),
        ("parse", 1, 12),
    ]
    assert boxes[0].total_ns == sum(box.self_ns for box in boxes) == sum(100 + n for n in range(1, 13)) * MS
    assert boxes[0].width == 1
    assert boxes[1].left + boxes[1].width == pytest.approx(boxes[2].left)


@pytest.mark.parametrize("budget", [100, 1_000, 50_000])
def test_nothing_and_next_to_nothing(tmp_path: Path, budget: int) -> None:
    """Of an empty session, a single span, orphans, cycles, and spans without times there is a report, or a sentence."""
    write_journal(tmp_path, "empty", [])
    write_sealed(tmp_path, "one", [span(1, duration_ms=0)])
    odd = [
        span(1, "orphan", parent=99, trace=1),
        span(2, "cycle", parent=3, trace=2),
        span(3, "cycle", parent=2, trace=2),
        span(4, "timeless", trace=3, start_ns=None),
        span(5, "backwards", trace=4, duration_ms=-5),
        span(6, "", trace=5, error=""),
    ]
    write_sealed(tmp_path, "odd", odd)
    for session in ("empty", "one", "odd"):
        with Analysis(base_path=tmp_path, sessions=[session]) as analysis:
            found = find(analysis.engine, charts=True)
            assert markdown_report(found, budget).startswith("# Report")
            assert json.loads(json_report(found, budget))["verdict"]
            assert "<h1>" in html_report(found)


def test_a_deep_trace(tmp_path: Path) -> None:
    """A chain of a thousand spans is drawn as far as can be seen."""
    spans = [span(n, f"level {n}", parent=n - 1 if n > 1 else None, duration_ms=2_000 - n) for n in range(1, 1_001)]
    write_sealed(tmp_path, "s", spans)
    with Analysis(base_path=tmp_path) as analysis:
        found = find(analysis.engine, charts=True)
        page = html_report(found)
    assert "960 spans of trace" in markdown_report(found, 100_000)
    assert "level 1:" in page


def test_where_spans_are_read_from(tmp_path: Path) -> None:
    """From sessions below a path, by default all of them, or from an engine; not from both."""
    write_sealed(tmp_path, "a", [span(1, "in a")])
    write_sealed(tmp_path, "b", [span(1, "in b", trace=2)])
    with Analysis(base_path=tmp_path) as both, Analysis(base_path=tmp_path, sessions=["b"]) as one:
        assert {row[0] for row in both.performance().groups.rows} == {"in a", "in b"}
        assert {row[0] for row in one.performance().groups.rows} == {"in b"}
        assert Analysis(one.engine).performance().groups == one.performance().groups
        with pytest.raises(ConfigurationError, match="give one of them"):
            Analysis(one.engine, base_path=tmp_path)


def test_it_recommends_what_candidates_does(tmp_path: Path) -> None:
    """Also where both look at a sample of the traces only: the same rows, of the same sample."""
    spans = [
        made
        for number in range(1, MAX_TRACES + 200)
        for made in (
            span(2 * number, "job", trace=number, start_ms=number, duration_ms=20 + number % 7),
            span(2 * number + 1, "part", parent=2 * number, trace=number, start_ms=number, duration_ms=9 + number % 5),
        )
    ]
    write_sealed(tmp_path, "s", spans)
    analysis = Analysis(base_path=tmp_path)
    alone, together = analysis.candidates(min_executions=1), find(analysis.engine, samples=0).tables["candidates"]
    assert any("traces are looked at" in note for note in alone.notes)
    assert (together.rows, together.notes) == (alone.rows, alone.notes)
