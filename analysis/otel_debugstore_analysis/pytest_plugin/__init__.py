"""The pytest plugin: what tests call, how long that takes, and limits on both; docs/pytest.md.

pytest loads this module whenever it starts, so nothing else is imported here: the rest comes with the first test that
has the mark or the fixture, or with one of the options.

With pytest-xdist the controller chooses the session and tells it to the workers, which record into it; what each test
did comes back with its report, so the controller has all of it for the summary and for baselines.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    import argparse

    from otel_debugstore_analysis.pytest_plugin.limits import Limits
    from otel_debugstore_analysis.pytest_plugin.recording import Run
    from otel_debugstore_analysis.pytest_plugin.spans import RecordedTest

MARK: Final = "debugstore"
_FIXTURE: Final = "debugstore"
_WORKER_INPUT: Final = "debugstore_session"
_DEFAULT_PATH: Final = "debug_data"
_RUN: Final = pytest.StashKey["Run"]()
_RECORDED: Final = pytest.StashKey["RecordedTest"]()
_JUDGED: Final = pytest.StashKey[dict[str, Any]]()
_SESSION_ID: Final = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("debugstore", "otel-debugstore: what tests call, and how long that takes")
    group.addoption("--debugstore", action="store_true", help="Record this run into a session, a trace for each test.")
    group.addoption(
        "--debugstore-path",
        metavar="DIR",
        help=f"Where sessions and baselines lie; by default OTEL_DEBUGSTORE_PATH, else {_DEFAULT_PATH}.",
    )
    group.addoption("--debugstore-save-baseline", metavar="NAME", help="Add this run to a baseline of up to 20 runs.")
    group.addoption("--debugstore-baseline", metavar="NAME", help="Compare this run with a baseline.")
    group.addoption(
        "--debugstore-fail",
        action="store_true",
        help="Fail the run where a test is slower than in the baseline, calls more, or more of its calls fail; or if "
        "there is no such baseline.",
    )


def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Have targets wrapped, if the run is recorded, before a conftest or a test imports them by name."""
    if _records_all(early_config.known_args_namespace):
        from otel_debugstore.instrumentors.by_settings import instrument_by_settings
        from otel_debugstore.recording_settings import recording_settings

        instrument_by_settings()
        recording_settings.cache_clear()  # a conftest may set others, such as what must not be kept


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark, and collect what tests did, unless this is a worker of xdist."""
    config.addinivalue_line(
        "markers",
        f"{MARK}(max_p95_ms, max_calls, max_errors, max_memory_mb): limits on what the test calls, as numbers or as "
        "dictionaries by component",
    )
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Results(config), "debugstore-results")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of xdist which session it records into."""
    node.workerinput[_WORKER_INPUT] = _session_id(node.config)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have tests recorded if one is to be; no other suite calls anything of ours for its tests."""
    if any(_is_recorded(item) for item in session.items):
        session.config.pluginmanager.register(_Recorder(), "debugstore-recorder")


@pytest.fixture
def debugstore(request: pytest.FixtureRequest) -> RecordedTest:
    """What this test has called so far: spans, calls by component, errors, durations, and SQL over the session."""
    if not _is_recorded(request.node):
        raise pytest.UsageError("Nothing is recorded for a fixture that is asked for late: name it as an argument.")
    return _recorded(request.node)


class _Recorder:
    """Records tests: in the process that runs them."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Begin to record, if this test is to be."""
        if _is_recorded(item):
            _run(item.config).start()

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Record the test, and hold it against its limits."""
        if not _is_recorded(item):
            return (yield)
        limits = _limits(item)
        item.stash[_JUDGED] = {}
        is_exact = bool(limits) or _FIXTURE in _fixtures(item)
        with _run(item.config).test(_recorded(item), limits.broken_by, is_exact=is_exact) as recorded:
            result = yield
            recorded.has_passed = True
        broken = recorded.broken if recorded.is_seen else []
        item.stash[_JUDGED] = {
            "is_limited": bool(limits),
            "broken": broken,
            "notes": limits.notes_on(recorded),
            "on_nothing": limits.kept_by_nothing(recorded),
            "saw_nothing": limits.is_on_all_calls and recorded.is_seen and not recorded.spans,
        }
        if broken:
            pytest.fail("Limits of the mark `debugstore` are broken:\n" + "\n".join(broken), pytrace=False)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Put what the test did into its report, in which xdist carries it to the controller."""
        report = yield
        if (recorded := item.stash.get(_RECORDED, None)) is not None:
            if call.when == "call":
                judged = item.stash.get(_JUDGED, {})
                report.debugstore = recorded.result() | judged  # type: ignore[attr-defined]
            elif call.when == "teardown":
                del item.stash[_RECORDED]  # its spans are many
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write down what was recorded."""
        if (run := session.config.stash.get(_RUN, None)) is not None:
            run.finish()


class _Results:
    """What the tests did, where the run is summed up: not in the workers of xdist."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._results: dict[str, dict[str, Any]] = {}
        self._lines: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take what a test did."""
        if (result := getattr(report, "debugstore", None)) is not None:
            self._results[report.nodeid] = result | {"outcome": report.outcome}

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Compare with the baseline, and add to it; with `--debugstore-fail` what is worse fails the run."""
        option = self._config.option
        if not self._results and not _records_all(option):
            return
        from otel_debugstore_analysis.pytest_plugin.summary import summed_up

        summary = summed_up(
            self._results,
            base_path(self._config),
            session_id=_session_id(self._config),
            baseline=option.debugstore_baseline,
            save_as=option.debugstore_save_baseline,
        )
        self._lines = summary.lines
        if (summary.is_worse and option.debugstore_fail) or summary.is_refused:
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show what was found."""
        if self._lines:
            terminalreporter.section("debugstore")
            for line in self._lines:
                terminalreporter.line(line)


def base_path(config: pytest.Config) -> Path:
    """Return where sessions and baselines lie."""
    return Path(
        config.option.debugstore_path or os.environ.get("OTEL_DEBUGSTORE_PATH", "").strip() or _DEFAULT_PATH
    ).absolute()


def _records_all(option: argparse.Namespace) -> bool:
    return bool(option.debugstore or option.debugstore_baseline or option.debugstore_save_baseline)


def _is_recorded(item: pytest.Item) -> bool:
    return _records_all(item.config.option) or item.get_closest_marker(MARK) is not None or _FIXTURE in _fixtures(item)


def _fixtures(item: pytest.Item) -> list[str]:
    return getattr(item, "fixturenames", [])


def _session_id(config: pytest.Config) -> str | None:
    """Return the session of this run, which the controller chooses; None if none is recorded."""
    if not config.option.debugstore:
        return None
    if _SESSION_ID not in config.stash:
        from otel_debugstore.session_id import default_session_id

        worker_input = getattr(config, "workerinput", {})
        config.stash[_SESSION_ID] = (
            worker_input.get(_WORKER_INPUT)
            or os.environ.get("OTEL_DEBUGSTORE_SESSION", "").strip()
            or default_session_id(f"{config.rootpath.name}-tests")
        )
    return config.stash[_SESSION_ID]


def _limits(item: pytest.Item) -> Limits:
    from otel_debugstore.errors import ConfigurationError
    from otel_debugstore_analysis.pytest_plugin.limits import Limits

    try:
        return Limits.of(item.iter_markers(MARK))
    except ConfigurationError as error:
        refusal = str(error)
    pytest.fail(refusal, pytrace=False)


def _run(config: pytest.Config) -> Run:
    if _RUN not in config.stash:
        from otel_debugstore_analysis.pytest_plugin.recording import Run

        config.stash[_RUN] = Run(base_path(config), _session_id(config))
    return config.stash[_RUN]


def _recorded(item: pytest.Item) -> RecordedTest:
    if _RECORDED not in item.stash:
        item.stash[_RECORDED] = _run(item.config).recorded(item.nodeid, getattr(item, "function", None))
    return item.stash[_RECORDED]
