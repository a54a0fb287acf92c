"""A report has at most so many tokens, whatever was recorded; what matters most goes last, and what went is named."""

from __future__ import annotations

import dataclasses
import gzip
import importlib
import json
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_debugstore.errors import ConfigurationError
from otel_debugstore_analysis.query import Table
from otel_debugstore_analysis.report import tokens
from otel_debugstore_analysis.report.findings import Findings
from otel_debugstore_analysis.report.json import json_report
from otel_debugstore_analysis.report.sections import markdown_report
from otel_debugstore_analysis.report.verdict import recommendations, verdict
from reports import HOSTILE, findings_of, shop, with_texts

BUDGETS = st.one_of(st.integers(100, 1_500), st.integers(100, 100_000))
TEXTS = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=60), st.text("`|\n <>&*#\u202e🚀漢", max_size=300))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """What is found in a session of a workflow."""
    return findings_of(tmp_path_factory.mktemp("data"), shop())


def recorded_as(texts: list[str]) -> Callable[[str], str]:
    """Return what puts one of these texts in the place of each that was recorded, always the same."""
    return lambda text: texts[sum(text.encode(errors="replace")) % len(texts)]


def sections(report: str) -> dict[str, str]:
    """Return the sections of a Markdown report by their headings."""
    parts = re.split(r"^#+ (.*)\n", report, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(budget=BUDGETS, texts=st.lists(TEXTS, min_size=1, max_size=5), repeat=st.integers(0, 30))
def test_never_a_token_too_many(found: Findings, budget: int, texts: list[str], repeat: int) -> None:
    """Whatever the texts are and however many rows there are, in either encoding, in Markdown and in JSON."""
    other = with_texts(found, recorded_as(texts), repeat)
    report = markdown_report(other, budget)
    as_json = json_report(other, budget)
    for encoding in ("cl100k_base", "o200k_base"):
        assert len(tokens.encoding(encoding).encode_ordinary(report)) <= budget
        assert len(tokens.encoding(encoding).encode_ordinary(as_json)) <= budget
    assert report
    assert json.loads(as_json) is not None


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(TEXTS, min_size=1, max_size=5), repeat=st.integers(1, 30))
def test_what_matters_most_is_kept(found: Findings, texts: list[str], repeat: int) -> None:
    """200 tokens hold the verdict, 1,000 all recommendations of the full report, word for word."""
    other = with_texts(found, recorded_as(texts), repeat)
    full = markdown_report(other, 1_000_000)
    said, found_all = verdict(other), recommendations(other)
    assert said
    assert found_all
    small, middle = markdown_report(other, 200), markdown_report(other, 1_000)
    assert all(f"- {text}\n" in small for text in said)
    assert all(text in middle for text in said)
    for number, one in enumerate(found_all, 1):
        line = f"{number}. {one.text}\n"
        assert line in full
        assert line in middle
    as_json = json.loads(json_report(other, 1_000))
    assert as_json["verdict"] == said
    assert [one["text"] for one in as_json["recommendations"]] == [one.text for one in found_all]


@pytest.mark.parametrize("text", ["`", '"', "\\", "漢字", "name of a component that is not short", "<|endoftext|>"])
def test_1000_tokens_of_json_recommend_all(found: Findings, text: str) -> None:
    """Traces of a recommendation go first, and then all but its text, before another one does."""
    other = with_texts(found, lambda recorded: text * 8 if recorded.isalpha() else recorded)
    recommended = [
        other.rows("candidates")[0] | {"component": f"{text * 6} {number}", "trace_ids": (f"{number:032x}",) * 3}
        for number in range(8)
    ]
    columns = other.tables["candidates"].columns
    rows = Table(columns, [tuple(row[name] for name in columns) for row in recommended])
    other = dataclasses.replace(other, tables={**other.tables, "candidates": rows})
    whole, cut = json.loads(json_report(other)), json.loads(json_report(other, 1_000))
    assert len(whole["recommendations"]) >= 3
    assert [one["text"] for one in cut["recommendations"]] == [one["text"] for one in whole["recommendations"]]
    assert cut["verdict"] == whole["verdict"]


def test_lower_tiers_go_first(found: Findings) -> None:
    """A section of a tier is shown only if all that is of higher tiers is there as a whole."""
    full = markdown_report(found, 1_000_000)
    said = [f"- {text}\n" for text in verdict(found)]
    to_do = [f"{number}. {one.text}\n" for number, one in enumerate(recommendations(found), 1)]
    evidence = re.findall(r"^\| `.*\n", full, re.MULTILINE)
    seen = set()
    for budget in range(100, tokens.count(full) + 100, 100):
        report = markdown_report(found, budget)
        if "## Recommendations" in report:
            seen.add("recommendations")
            assert all(line in report for line in said)
        if "\n| `" in report:
            seen.add("evidence")
            assert all(line in report for line in to_do)
        if "## Slow trace" in report:
            seen.add("samples")
            assert all(line in report for line in evidence)
    assert seen == {"recommendations", "evidence", "samples"}


def test_what_is_left_out_is_counted_by_name(found: Findings) -> None:
    """With the command that fetches it; what is shown and what is left out are together what there is."""
    full, cut = (sections(markdown_report(found, budget)) for budget in (1_000_000, 1_100))
    listed = dict(re.findall(r"^- (?:[\d,]+) \w+ of ([\w-]+): `(debugstore [^`]+)`", cut["Left out"], re.MULTILINE))
    assert listed["whatif"] == "debugstore whatif --limit 0"
    left_out = int(re.findall(r"^- ([\d,]+) rows of whatif", cut["Left out"], re.MULTILINE)[0])
    title = "What if it were faster"
    assert left_out + cut.get(title, "").count("\n| `") == full[title].count("\n| `")
    assert "Left out: " in markdown_report(found, 250)


@pytest.mark.parametrize("budget", [0, 1, 20, 60, 99])
def test_budgets_below_the_least(found: Findings, budget: int) -> None:
    """Also of budgets too small for a verdict not a token is too many."""
    assert tokens.count(markdown_report(found, budget)) <= budget
    assert tokens.count(json_report(found, budget)) <= budget


def test_tokens_are_those_of_tiktoken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The encodings split and number text as tiktoken's own definitions of them do, and no network is asked."""
    from tiktoken import Encoding

    openai_public: Any = importlib.import_module("tiktoken_ext.openai_public")

    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(
        openai_public,
        "load_tiktoken_bpe",
        lambda url, expected_hash: tokens.encoding(url.rsplit("/", 1)[1].removesuffix(".tiktoken"))._mergeable_ranks,
    )
    text = "\n".join([*HOSTILE, "def f(x):\n\treturn  x  # it's 12345 … 'll\r\n\n"]).replace("\ud800", "?")
    for name in ("cl100k_base", "o200k_base"):
        own, theirs = tokens.encoding(name), Encoding(**getattr(openai_public, name)())
        assert own.encode_ordinary(text) == theirs.encode_ordinary(text)


def test_a_table_that_is_not_tiktokens_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is installed must have the SHA-256 that tiktoken expects."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cl100k_base.tiktoken.gz").write_bytes(gzip.compress(b"IQ== 0\n"))
    monkeypatch.setattr(tokens, "files", lambda _: tmp_path)
    tokens._loaded.cache_clear()
    with pytest.raises(ConfigurationError, match="not the one that tiktoken expects"):
        tokens.encoding("cl100k_base")
    with pytest.raises(ConfigurationError, match="can't be read"):
        tokens.encoding("o200k_base")
    tokens._loaded.cache_clear()


@given(text=st.text(max_size=200), budget=st.integers(0, 60))
@settings(max_examples=100, deadline=None)
def test_cut(text: str, budget: int) -> None:
    """A text is cut to its beginning, with an ellipsis where that is not all of it."""
    cut = tokens.cut(text, budget)
    assert tokens.count(cut) <= budget
    assert cut == text or cut == "" or text.startswith(cut.removesuffix("…"))
