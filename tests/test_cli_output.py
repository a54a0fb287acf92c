"""How tables are printed, and that what was recorded can't steer the terminal of who reads it."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands import on_terminal, run_well
from otel_debugstore_analysis import text as _text
from otel_debugstore_analysis.cli._output import json_text
from sessions import hex_id, span, write_sealed

HOSTILE = [
    "\x1b[2J\x1b]0;owned\x07",  # clears the screen, sets the title
    "\x9b31mred",  # C1 control sequence introducer
    "bidi \u202e desrever",
    "line\nbreak\r\ttab",
    "[bold red]markup[/bold red] [/x] [link=http://evil]click[/link]",
    "zero\u200bwidth \u2066isolate\u2069 \ufeff",
    "nul\0 del\x7f",
    "plain ключ 漢字 ✓",
]


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A session whose spans have hostile names."""
    write_sealed(tmp_path, "s", [span(n, name, error=name) for n, name in enumerate(HOSTILE, 1)])
    return tmp_path


def steers(text: str) -> set[str]:
    """Return the characters of a text that could steer a terminal."""
    categories = ("Cc", "Cf", "Zl", "Zp", "Cs")
    return {c for c in text if c != "\n" and unicodedata.category(c) in categories}


@pytest.mark.parametrize("output_format", ["table", "json", "csv", "markdown"])
@pytest.mark.parametrize(
    "command", [["top"], ["tail"], ["sql", "SELECT * FROM spans"], ["trace", hex_id(1, 32)], ["top", "--slowest"]]
)
def test_nothing_recorded_reaches_the_terminal_raw(hostile: Path, command: list[str], output_format: str) -> None:
    """Escape sequences, C1 controls, bidirectional overrides and invisible characters are escaped in any format."""
    shown = run_well(*command, "--data-dir", hostile, "--format", output_format)
    assert steers(shown) == set()
    assert "ключ 漢字 ✓" in shown


def test_markup_is_not_interpreted(hostile: Path) -> None:
    """On a terminal, what looks like Rich markup is shown as it is."""
    shown = on_terminal("sql", "SELECT name FROM spans WHERE name LIKE '[b%'", "--data-dir", hostile, columns=120)
    assert "[bold red]markup[/bold red] [/x] [link=http://evil]click[/link]" in shown
    allowed = re.sub(r"\x1b\[[0-9;]*m", "", shown)  # the heading is bold
    assert steers(allowed) == set()


def test_json_is_exact(hostile: Path) -> None:
    """JSON holds the names as they were recorded."""
    rows = json.loads(run_well("sql", "SELECT name FROM spans", "--data-dir", hostile, "--format", "json"))
    assert {row["name"] for row in rows} == set(HOSTILE)


@given(st.text())
def test_printable_text_is_one_harmless_line(text: str) -> None:
    """Whatever the text, nothing in it steers; text without such characters stays as it is."""
    shown = _text.printable(text)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]", shown)
    shown.encode()
    assert _text.printable(shown) == shown


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
    )
)
def test_json_text_means_the_same(value: object) -> None:
    """What is escaped in JSON is read back as it was."""
    text = json_text(value)
    assert json.loads(text) == value
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e]", text)


def test_json_of_what_json_does_not_know() -> None:
    """NaN and infinities are null, bytes hexadecimal, times ISO 8601."""
    import datetime
    import decimal

    value = [float("nan"), float("inf"), b"\x01\xff", datetime.date(2026, 1, 2), decimal.Decimal("1.5"), {1: (2,)}]
    assert json.loads(json_text(value)) == [None, None, "01ff", "2026-01-02", 1.5, {"1": [2]}]


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1_000, "1.00 µs"),
        (999_999, "1.00 ms"),
        (12_345_678, "12.3 ms"),
        (999_600_000, "1.00 s"),
        (-5_000_000, "-5.00 ms"),
        (119_000_000_000, "119 s"),
        (150_000_000_000, "2.50 min"),
        (7_200_000_000_000, "2.00 h"),
        (172_800_000_000_000, "2.00 d"),
    ],
)
def test_durations_for_people(nanoseconds: int, text: str) -> None:
    """Three digits and the unit that fits."""
    assert _text.duration(nanoseconds) == text


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("size_bytes", 12_340_000, "12.3 MB"),
        ("size_bytes", 999, "999 B"),
        ("start_ns", 1_700_000_000_123_456_789, "2023-11-14 22:13:20.123"),
        ("start_ns", 2**62, "2116-02-20 23:53:38.427"),
        ("duration_ns", 1_500_000, "1.50 ms"),
        ("error_rate", 0.0123, "1.2 %"),
        ("span_count", 1234567, "1,234,567"),
        ("name", None, "-"),
        ("repaired", True, "yes"),
    ],
)
def test_values_for_people(column: str, value: object, text: str) -> None:
    """The name of a column says how its values are shown."""
    assert _text.human(column, value) == text


def test_a_pipe_gets_no_frames_and_no_colours(tmp_path: Path) -> None:
    """Into a pipe a table is plain aligned text, in full length."""
    name = "n" * 150
    write_sealed(tmp_path, "s", [span(1, name), span(2, "short")])
    heading, *rows = run_well("top", "--data-dir", tmp_path).splitlines()
    assert heading.split() == ["component", "count", "total", "self", "self", "%", "p50", "p95", "p99", "errors"]
    assert [row.split()[0] for row in rows] == [name, "short"]
    assert len({len(row) for row in rows}) == 1
    assert not re.search("[│┃─━╭┏+|]", "".join(rows))


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
@pytest.mark.parametrize("command", [["top"], ["sessions"], ["sql", "FROM spans"], ["top", "--slowest"], ["tail"]])
def test_tables_fit_the_terminal(tmp_path: Path, command: list[str], columns: int) -> None:
    """On a terminal no line of a table is wider than it; text gives way to numbers."""
    write_sealed(tmp_path, "s", [span(n, f"{'component' * 30}_{n}", service="s" * 40) for n in range(1, 5)])
    shown = on_terminal(*command, "--data-dir", tmp_path, columns=columns)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert "1.00 ms" in plain or "1000000" in plain
    assert max(map(len, plain.splitlines())) <= columns


def test_numbers_are_never_cut(tmp_path: Path) -> None:
    """On 80 columns `top` shows all its numbers in full, and as much of the names as there is room for."""
    write_sealed(tmp_path, "s", [span(n, f"{n}_{'component' * 30}") for n in range(1, 5)])
    shown = re.sub(r"\x1b\[[0-9;]*m", "", on_terminal("top", "--data-dir", tmp_path, columns=80))
    assert shown.count("1.00 ms") == 4 * 5
    assert shown.count("25.0 %") == 4
    assert shown.count("…") == 4


def test_csv_and_json_have_raw_numbers(tmp_path: Path) -> None:
    """For programs numbers are as they are, under names with their unit."""
    write_sealed(tmp_path, "s", [span(1, duration_ms=1.5)])
    rows = json.loads(run_well("top", "--data-dir", tmp_path, "--format", "json"))
    assert rows[0]["total_ns"] == 1_500_000
    (row,) = csv.DictReader(io.StringIO(run_well("top", "--data-dir", tmp_path, "--format", "csv")))
    assert row["total_ns"] == "1500000"


def test_markdown(tmp_path: Path) -> None:
    """Markdown is a table whose cells are text, whatever they hold."""
    write_sealed(tmp_path, "s", [span(1, "a|b <script> *x* `c` [l](u)")])
    heading, rule, row = run_well("top", "--data-dir", tmp_path, "--format", "markdown").splitlines()
    assert heading.count("|") == rule.count("|") == 10
    assert row.startswith(r"| a\|b \<script\> \*x\* \`c\` \[l\](u) |")


def test_json_holds_every_column_and_numbers(tmp_path: Path) -> None:
    """Columns with one name are told apart; a DECIMAL is a number in JSON, and exact in CSV; times have their zone."""
    write_sealed(tmp_path, "s", [span(1)])
    sql = "SELECT 1.5 AS a, 2 AS a, 3 AS a_1, to_timestamp(0) AS t, 0.12345678901234567890 AS d"
    (row,) = json.loads(run_well("sql", sql, "--data-dir", tmp_path, "--format", "json"))
    assert (row["a"], row["a_1"], row["a_1_1"], row["d"]) == (1.5, 2, 3, 0.12345678901234568)
    assert datetime.fromisoformat(row["t"]).timestamp() == 0
    assert "0.12345678901234567890" in run_well("sql", sql, "--data-dir", tmp_path, "--format", "csv")
