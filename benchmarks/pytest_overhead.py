"""What the pytest plugin costs a suite of 400 tests that make two recorded calls each.

CPU time of a pytest process, from its start to its end, with what it does at its end. The ways take turns in random
order: without the plugin; with it, unused; with limits on every test; and recorded into a session, sealing included.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

from benchmarks.measure import Figure, Options, environment, executable, interleaved, median, scratch

_TESTS: Final = 400
_PLUGIN: Final = "otel_debugstore_analysis.pytest_plugin"
_BLOCKED: Final = ("-p", "no:debugstore")
_SUITE: Final = """
import pytest
from otel_debugstore import tool

@tool("get")
def get(x):
    return x

{mark}
@pytest.mark.parametrize("number", range({tests}))
def test_each(number):
    assert get(number) + get(1) == number + 1
"""
_MARK: Final = "@pytest.mark.debugstore(max_calls=2, max_errors=0)"
_IS_INSTALLED: Final = any(one.value == _PLUGIN for one in entry_points(group="pytest11"))
_LOADED: Final = () if _IS_INSTALLED else ("-p", _PLUGIN)
_WAYS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "without": ("", _BLOCKED),
    "unused": ("", _LOADED),
    "limited": (_MARK, _LOADED),
    "recorded": ("", (*_LOADED, "--debugstore")),
}


def figures(options: Options) -> list[Figure]:
    """Measure what the plugin costs."""

    def run(way: str) -> float:
        mark, chosen = _WAYS[way]
        with scratch() as folder:
            (folder / "test_suite.py").write_text(_SUITE.format(mark=mark, tests=_TESTS))
            return _cpu_ms(folder, chosen)

    run("without")
    found = interleaved(run, tuple(_WAYS), options.repeats(7))
    without = found["without"]
    added = {
        way: [one - other for one, other in zip(found[way], without, strict=True)]
        for way in ("unused", "limited", "recorded")
    }
    base = median(without)
    return [
        Figure(
            "pytest",
            f"CPU time that the plugin adds to a suite of {_TESTS} tests: {what}",
            median(added[way]),
            None,
            "ms",
            detail=f"{min(added[way]):.0f} to {max(added[way]):.0f} ms, start and end included; "
            f"without it {base:.0f} ms",
        )
        for way, what in (
            ("unused", "loaded and not used"),
            ("limited", "limits on every test"),
            ("recorded", "recorded into a session"),
        )
    ]


def _cpu_ms(folder: Path, options: tuple[str, ...]) -> float:
    """Return the CPU time of one run of the suite."""
    command = [executable("python"), "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(folder)]
    process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"The suite failed: {' '.join(command)}")
    return (used.ru_utime + used.ru_stime) * 1000
