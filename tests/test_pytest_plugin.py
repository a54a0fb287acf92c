"""The pytest plugin: limits on what tests call, the fixture, sessions of runs, baselines, and xdist."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Final

import pytest

from commands import run_well
from otel_debugstore_exporters.state import State
from stored import stored_spans

pytest_plugins = ["pytester"]

_IS_INSTALLED: Final = any(
    one.value == "otel_debugstore_analysis.pytest_plugin" for one in entry_points(group="pytest11")
)
_PLUGIN: Final = () if _IS_INSTALLED else ("-p", "otel_debugstore_analysis.pytest_plugin")
Outcomes = dict[str, int]
Ran = Callable[..., tuple[Outcomes, str]]

TOOLS: Final = """
import time

import pytest
from otel_debugstore import function, tool

@tool("http_get")
def get(url):
    return url

@tool("slow")
def slow():
    time.sleep(0.03)

@tool
def http_post(url):
    return url

@function(name="parse")
def parse(text):
    if text == "bad":
        raise ValueError(text)
    return text
"""


@pytest.fixture
def ran(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Ran:
    """Run tests in a process of its own, with every warning an error; return the outcomes, and what was printed.

    Peaks of memory are exact, however late a busy machine looks, and whatever the process that starts it held.
    """
    monkeypatch.setenv("OTEL_DEBUGSTORE_MEMORY_RESET", "true")

    def run(tests: str, *options: str) -> tuple[Outcomes, str]:
        pytester.makepyfile(test_it=TOOLS + tests)
        result = pytester.runpytest_subprocess(*_PLUGIN, "-W", "error", "-p", "no:cacheprovider", *options)
        assert not result.stderr.str().strip()
        return result.parseoutcomes(), result.stdout.str()

    return run


LIMITED: Final = """
@pytest.mark.debugstore(max_calls={"http_get": 2}, max_errors=0, max_p95_ms=10_000, max_memory_mb=1000)
def test_within():
    get(1)
    get(2)
    time.sleep(0.03)

@pytest.mark.debugstore(max_calls={"http_get": 2})
def test_calls():
    for number in range(3):
        get(number)

@pytest.mark.debugstore(max_calls=2)
def test_calls_of_each():
    get(1); get(2); parse(1); parse(2); parse(3)

@pytest.mark.debugstore(max_p95_ms={"sl*": 10})
def test_slow():
    slow()

@pytest.mark.debugstore(max_errors=0)
def test_errors():
    with pytest.raises(ValueError):
        parse("bad")

@pytest.mark.debugstore(max_errors={"parse": 1})
def test_some_errors():
    for _ in range(2):
        with pytest.raises(ValueError):
            parse("bad")

@pytest.mark.debugstore(max_memory_mb=20)
def test_memory():
    held = bytearray(60_000_000)

def test_unlimited():
    slow()
"""


def test_limits_fail_tests(ran: Ran) -> None:
    """Each says which limit was broken, by what, and how much was allowed; the summary has them together."""
    outcomes, said = ran(LIMITED)
    assert outcomes == {"passed": 2, "failed": 6}
    summary = said[said.index("= debugstore =") :]
    assert "7 tests with limits: 6 broke one." in summary
    broken = re.findall(r"BROKEN test_it\.py::(\w+): (.*)", summary)
    assert [(test, re.sub(r"is [\d.]+ ms|by [\d.]+ MB", "#", line)) for test, line in broken] == [
        ("test_calls", "http_get: 3 calls, 2 allowed"),
        ("test_calls_of_each", "parse: 3 calls, 2 allowed"),
        ("test_slow", "sl*: p95 of 1 calls #, 10 ms are allowed"),
        ("test_errors", "calls that failed: 1, 0 allowed: parse (ValueError)"),
        ("test_some_errors", "parse: 2 failed calls, 1 allowed"),
        ("test_memory", "memory grew #, 20 MB are allowed"),
    ]


def test_a_name_stands_for_the_last_part_of_a_component(ran: Ran) -> None:
    """A function is recorded as `module.function`: its own name, and a glob of it, is enough to limit it."""
    tests = """
@pytest.mark.debugstore(max_calls={"http_post": 1})
def test_by_its_name():
    http_post(1); http_post(2)

@pytest.mark.debugstore(max_calls={"test_it.http_p*": 0}, max_errors=0)
def test_by_all_of_it():
    http_post(1)

@pytest.mark.debugstore(max_calls={"post": 0, "est_it.http_post": 0})
def test_by_less_than_a_part(debugstore):
    http_post(1)
    assert [call.component for call in debugstore.calls("http_post")] == ["test_it.http_post"]

@pytest.mark.debugstore(max_calls=1)
def test_each_by_itself():
    from otel_debugstore import instrument
    with instrument("function", name="http_post"):
        http_post(1)
"""
    outcomes, said = ran(tests)
    assert outcomes == {"passed": 2, "failed": 2}
    assert "test_by_its_name: http_post: 2 calls, 1 allowed" in said
    assert "test_by_all_of_it: test_it.http_p*: 1 calls, 0 allowed" in said


def test_the_nearest_mark_counts(ran: Ran) -> None:
    """Limit by limit: that of the function, then of the class, then of the module."""
    tests = """
pytestmark = pytest.mark.debugstore(max_calls=1, max_errors=0)

@pytest.mark.debugstore(max_calls=2)
class TestOf:
    def test_class(self):
        get(1); get(2)

    @pytest.mark.debugstore(max_calls=3)
    def test_function(self):
        get(1); get(2); get(3)

    @pytest.mark.debugstore(max_calls=3)
    def test_module(self):
        try:
            parse("bad")
        except ValueError:
            pass

def test_alone():
    get(1); get(2)
"""
    outcomes, said = ran(tests)
    assert outcomes == {"passed": 2, "failed": 2}
    assert "test_module: calls that failed" in said
    assert "test_alone: http_get: 2 calls, 1 allowed" in said


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ("max_cals=1", "knows no 'max_cals'"),
        ("1", "by name"),
        ("max_calls='x'", "numbers from 0 on"),
        ("max_calls={'x': -1}", "numbers from 0 on"),
        ("max_memory_mb={'x': 1}", "numbers from 0 on"),
    ],
)
def test_a_mark_that_is_wrong_fails_its_test(ran: Ran, mark: str, said: str) -> None:
    """It limits nothing, so the test must not pass."""
    outcomes, printed = ran(f"@pytest.mark.debugstore({mark})\ndef test_wrong():\n    pass\n")
    assert outcomes == {"failed": 1}
    assert said in printed


def test_a_limit_on_nothing_is_said(ran: Ran) -> None:
    """A component that was not called, as by a typing error; a test that takes another provider, or calls nothing."""
    tests = """
@pytest.mark.debugstore(max_calls={"http_got": 2})
def test_typo():
    get(1)

@pytest.mark.debugstore(max_calls={"http_gte": 0, "slow": 0})
def test_typo_of_nothing():
    get(1)

@pytest.mark.debugstore(max_errors={"slow": 0})
def test_other():
    slow()

@pytest.fixture
def other_provider():
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    before, trace._TRACER_PROVIDER = trace._TRACER_PROVIDER, TracerProvider()
    yield
    trace._TRACER_PROVIDER = before

@pytest.mark.debugstore(max_calls=0)
def test_elsewhere(other_provider):
    get(1)

@pytest.mark.debugstore(max_p95_ms=0, max_errors=0)
def test_calls_nothing_of_ours():
    get.__wrapped__(1)
"""
    outcomes, said = ran(tests)
    assert outcomes == {"passed": 5}
    assert "NOTE 1 test with limits on all calls made none that is recorded" in said
    assert "NOTE test_it.py::test_typo: max_calls: no component 'http_got' was called" in said
    assert "NOTE test_it.py::test_typo_of_nothing: max_calls: no component 'http_gte' was called by any test" in said
    assert "no component 'slow'" not in said
    assert "NOTE test_it.py::test_elsewhere: not checked" in said


def test_failing_and_skipped_tests_stay_what_they_are(ran: Ran) -> None:
    """A test that fails by itself is not held against limits; skips and expected failures count as before."""
    tests = """
pytestmark = pytest.mark.debugstore(max_calls=0)

def test_fails():
    get(1)
    assert False, "by itself"

def test_skips():
    get(1)
    pytest.skip("not now")

@pytest.mark.xfail(strict=True)
def test_expected():
    get(1)
    assert False

@pytest.mark.xfail(strict=True)
def test_breaks_its_limit_as_expected():
    get(1)
"""
    outcomes, said = ran(tests)
    assert outcomes == {"failed": 1, "skipped": 1, "xfailed": 2}
    assert "by itself" in said


FIXTURE: Final = """
import asyncio, threading

def test_fixture(debugstore):
    assert debugstore.spans == ()
    get(1)
    get(2)
    for number in range(3000):
        parse(number)
    with pytest.raises(ValueError):
        parse("bad")
    assert debugstore.components == {"http_get": 2, "parse": 3001}
    assert len(debugstore.calls("http_*")) == 2
    assert [(span.component, span.error, span.layer) for span in debugstore.errors()] == [
        ("parse", "ValueError", "function")]
    assert {span.trace_id for span in debugstore.spans} == {debugstore.trace_id}
    assert debugstore.p95_ms("nothing") is None
    slow()
    assert 30 <= debugstore.p95_ms("slow") < 10_000

def test_other_thread(debugstore):
    thread = threading.Thread(target=get, args=(1,))
    thread.start()
    thread.join()
    assert debugstore.components == {"http_get": 1}

def test_event_loop(debugstore):
    async def main():
        await asyncio.gather(*[asyncio.to_thread(get, 1) for _ in range(3)])
    asyncio.run(main())
    assert debugstore.components == {"http_get": 3}
"""


def test_the_fixture_has_what_the_test_called(ran: Ran) -> None:
    """Exactly, also of functions that are otherwise sampled, and of other threads; of no other test."""
    outcomes, said = ran(FIXTURE)
    assert outcomes == {"passed": 3}
    assert "= debugstore =" not in said


def test_sql_needs_a_session(ran: Ran) -> None:
    """Without one it says how there is one; with one it answers at once, of child processes too."""
    tests = """
import subprocess, sys

CHILD = "from otel_debugstore import configure, tool; configure(); tool('in_child')(len)('x')"

def test_sql(debugstore):
    get(1)
    subprocess.run([sys.executable, "-c", CHILD], check=True)
    rows = debugstore.sql("SELECT component, count(*) AS n FROM spans WHERE component IN (?, ?) GROUP BY 1 ORDER BY 1",
                          ["http_get", "in_child"])
    assert rows == [{"component": "http_get", "n": 1}, {"component": "in_child", "n": 1}]
    found = debugstore.sql("SELECT component FROM spans WHERE trace_id = ?", [debugstore.trace_id])
    assert found == [{"component": "http_get"}]
"""
    outcomes, said = ran(tests)
    assert outcomes == {"failed": 1}
    assert "run pytest with --debugstore" in said
    assert ran(tests, "--debugstore")[0] == {"passed": 1}


SUITE: Final = """
@pytest.mark.parametrize("number", range(6))
def test_each(number):
    for _ in range(number):
        get(number)

@pytest.mark.debugstore(max_calls=0)
def test_limited():
    get(1)

@pytest.mark.debugstore(max_memory_mb=20)
def test_grows():
    held = bytearray(60_000_000)
    time.sleep(0.5)
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_a_run_is_a_session(ran: Ran, pytester: pytest.Pytester, workers: tuple[str, ...]) -> None:
    """A trace for each test, in one session, by however many workers; one summary, by the controller.

    A test that breaks a limit did not pass: its span says so, and which.
    """
    if workers:
        pytest.importorskip("xdist")
    outcomes, said = ran(SUITE, "--debugstore", *workers)
    assert outcomes == {"passed": 6, "failed": 2}
    assert said.count("= debugstore =") == 1
    assert re.search(r"Session \S+-tests_\S+ has 8 tests with 16 spans: debugstore report", said)
    assert "2 tests with limits: 2 broke one." in said
    spans = stored_spans(pytester.path / "debug_data")
    tests = {span.span_id: span for span in spans if span.name.startswith("test_it.py::")}
    assert len(tests) == 8
    failed = {span.name for span in tests.values() if span.attributes["test.case.result.status"] == "fail"}
    assert failed == {"test_it.py::test_limited", "test_it.py::test_grows"}
    why = [span.status_message for span in tests.values() if span.name in failed]
    assert sorted(re.sub(r"by [\d.]+", "#", message) for message in why) == [
        "http_get: 1 calls, 0 allowed",
        "memory grew # MB, 20 MB are allowed",
    ]
    calls = [span for span in spans if span.name == "http_get"]
    assert len(calls) == 16
    assert all(span.parent_id in tests for span in calls)
    assert run_well("top", "--data-dir", pytester.path / "debug_data").count("test_it.py::") == 8


COUNTED: Final = """
import os

@pytest.mark.parametrize("number", range(3))
def test_counted(number):
    for _ in range(int(os.environ.get("CALLS", "2")) if number == 1 else 2):
        get(number)
    if number == 2 and "FAILS" in os.environ:
        with pytest.raises(ValueError):
            parse("bad")
    time.sleep(float(os.environ.get("SECONDS", "0.02")) if number == 0 else 0.02)
"""


@pytest.mark.slow
def test_a_run_is_compared_with_a_baseline(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls and errors exactly, from the first run on; durations once there are five runs; and it can fail the run."""
    _, said = ran(COUNTED, "--debugstore-baseline", "main")
    assert "There is no baseline 'main'" in said
    for number in range(1, 6):
        outcomes, said = ran(COUNTED, "--debugstore-save-baseline", "main")
        assert f"Saved to baseline main: 3 tests, {number} run" in said
        if number == 1:
            assert "3 undecided" in ran(COUNTED, "--debugstore-baseline", "main")[1]
    outcomes, said = ran(COUNTED, "--debugstore-baseline", "main", "--debugstore-fail")
    assert outcomes == {"passed": 3}
    assert "Against baseline main (5 runs): " in said
    assert "MORE" not in said
    monkeypatch.setenv("CALLS", "5")
    monkeypatch.setenv("SECONDS", "2")
    monkeypatch.setenv("FAILS", "1")
    for workers in (), ("-n", "2"):
        _, said = ran(COUNTED, "--debugstore-baseline", "main", *workers)
        assert re.search(r"SLOWER test_it.py::test_counted\[0\]: [\d.]+ ms -> 2.\d+ s", said)
        assert "MORE test_it.py::test_counted[1]: http_get has 5 calls, before 2" in said
        assert "MORE test_it.py::test_counted[2]: parse has 1 failed calls, before 0" in said


_MAIN: Final = ("--debugstore-baseline", "main")


@pytest.mark.slow
def test_what_is_worse_can_fail_the_run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `--debugstore-fail` the exit code says it, and that there is no baseline; fewer calls are not worse."""
    pytester.makepyfile(test_it=TOOLS + COUNTED)
    misspelt = ("--debugstore-baseline", "mian", "--debugstore-save-baseline", "main")
    for calls, exit_code, options in (("2", 1, misspelt), ("1", 0, _MAIN), ("5", 1, _MAIN)):
        monkeypatch.setenv("CALLS", calls)
        assert pytester.runpytest_subprocess(*_PLUGIN, "--debugstore-fail", *options).ret == exit_code


def test_a_baseline_that_can_not_be_read_fails_the_run(ran: Ran, pytester: pytest.Pytester) -> None:
    """The tests are what they are, and the summary says why nothing was compared."""
    State(pytester.path / "debug_data").put("test_baselines", "main", {"version": 99, "tests": {}})
    pytester.makepyfile(test_it=TOOLS + COUNTED)
    result = pytester.runpytest_subprocess(*_PLUGIN, "--debugstore-baseline", "main")
    assert (result.parseoutcomes(), int(result.ret)) == ({"passed": 3}, 1)
    assert "newer version" in result.stdout.str()


def test_targets_are_recorded_whoever_imported_them_by_name(
    ran: Ran, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conftest and a test take a function from its module before anything of ours runs: its calls are counted.

    What the conftest sets counts: here that no arguments are kept.
    """
    monkeypatch.setenv("OTEL_DEBUGSTORE_TARGETS", "links:escape=function")
    pytester.makepyfile(links="def escape(text):\n    return text\n")
    pytester.makeconftest(
        "import os\nos.environ['OTEL_DEBUGSTORE_CAPTURE'] = 'none'\nfrom links import escape as quoted"
    )
    tests = """
from conftest import quoted
from links import escape
from otel_debugstore.attributes import INPUT_DIGEST

def test_it(debugstore):
    assert (quoted("a"), escape("b")) == ("a", "b")
    assert debugstore.components == {"links.escape": 2}
    assert not any(INPUT_DIGEST in span.attributes for span in debugstore.spans)
"""
    assert ran(tests, "--debugstore", "--debugstore-save-baseline", "main")[0] == {"passed": 1}


def test_a_path_is_where_sessions_and_baselines_lie(ran: Ran, pytester: pytest.Pytester) -> None:
    """By option, else by the variable; nothing is written elsewhere."""
    ran(SUITE, "--debugstore", "--debugstore-path", "runs", "--debugstore-save-baseline", "b")
    assert not (pytester.path / "debug_data").exists()
    assert {path.name for path in (pytester.path / "runs").iterdir()} >= {"state.lmdb"}
    assert len(stored_spans(pytester.path / "runs")) == 24


def test_who_does_not_use_it_does_not_notice(pytester: pytest.Pytester) -> None:
    """Without a mark, the fixture or an option nothing of ours or of OpenTelemetry is imported, and nothing written."""
    pytester.makepyfile(
        """
        import sys

        def test_light():
            ours = {name for name in sys.modules if name.startswith(("otel_debugstore", "opentelemetry"))}
            assert ours == {"otel_debugstore_analysis", "otel_debugstore_analysis.pytest_plugin"}
        """
    )
    result = pytester.runpytest_subprocess(*_PLUGIN, "-W", "error", "-p", "no:cacheprovider")
    assert result.parseoutcomes() == {"passed": 1}
    assert "= debugstore =" not in result.stdout.str()
    assert not [path for path in pytester.path.iterdir() if path.name == "debug_data"]


INSTALLED: Final = {
    "METADATA": "Metadata-Version: 2.1\nName: installed-debugstore\nVersion: 1\n",
    "entry_points.txt": "[pytest11]\ndebugstore = otel_debugstore_analysis.pytest_plugin\n",
    "RECORD": "otel_debugstore/__init__.py,,\notel_debugstore_analysis/__init__.py,,\n",
}


def test_what_was_imported_before_pytest_is_no_warning(pytester: pytest.Pytester) -> None:
    """As by zero-code instrumentation, where the plugin is installed from a wheel: pytest would rewrite our asserts."""
    folder = pytester.mkdir("installed") / "installed_debugstore-1.dist-info"
    folder.mkdir()
    for name, text in INSTALLED.items():
        (folder / name).write_text(text)
    pytester.makepyfile(test_it=TOOLS + SUITE)
    program = (
        f"import sys; sys.path.insert(0, {str(folder.parent)!r})\n"
        "import otel_debugstore.outbox, otel_debugstore_exporters.exporter, otel_debugstore_analysis, pytest\n"
        "sys.exit(pytest.main(['-W', 'error', '-p', 'no:cacheprovider', '-p', 'no:xdist']))"
    )
    result = pytester.run(sys.executable, "-c", program)
    assert result.parseoutcomes() == {"passed": 6, "failed": 2}
    assert "http_get: 1 calls, 0 allowed" in result.stdout.str()


def test_the_mark_is_documented(pytester: pytest.Pytester) -> None:
    """`pytest --markers` shows it, so `--strict-markers` knows it."""
    result = pytester.runpytest_subprocess(*_PLUGIN, "--markers")
    assert "@pytest.mark.debugstore(max_p95_ms, max_calls, max_errors, max_memory_mb)" in result.stdout.str()
