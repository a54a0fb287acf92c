"""A project with tests and recorded calls, and optimizers that propose what tests plan, for the tests of the loop."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from otel_debugstore_analysis.optimizer import Candidate, Optimization, OptimizeOptions, Task, optimize
from replayed import QUICK, queued, record, write

PRICES = '''
    """Prices."""

    from otel_debugstore import function, tool


    @function(pure=True)
    def rate(country):
        total = 0
        for number in range(400):
            total += (number * len(country)) % 7
        return total


    @tool(pure=True)
    def invoice(country, items):
        total = 0
        for item in items:
            total += item * rate(country)
        return total


    @tool(replayable=True)
    def impure(country):
        return rate(country)


    @tool
    def undeclared(country):
        return rate(country)


    @tool(pure=True)
    def fickle(country, found=[]):
        found.append(country)
        return len(found)


    @tool(pure=True)
    def listed(country):
        return [rate(country)]
'''

TESTS = """
    from prices import invoice, rate

    def test_invoice():
        assert invoice("de", (1, 2)) == 3 * rate("de")
        assert invoice("de", ()) == 0
        assert rate.__doc__ is None
"""

PROGRAM = """
    import prices
    for number in range(30):
        country = ("de", "fra", "nether")[number % 3]
        prices.invoice(country, tuple(range(number)))
        for function in (prices.impure, prices.undeclared, prices.fickle, prices.listed):
            function(country)
"""

PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")


def make_project(folder: Path) -> Path:
    """Write the project into a folder, and record a session of it."""
    write(folder, prices=PRICES)
    (folder / "tests").mkdir()
    write(folder / "tests", test_prices=TESTS)
    record(folder, PROGRAM)
    return folder


class Proposes:
    """An optimizer with these texts of `prices.py`."""

    name = "planted"

    def __init__(self, *texts: str) -> None:
        self._texts = texts
        self.tasks: list[Task] = []

    def propose(self, task: Task) -> Sequence[Candidate]:
        self.tasks.append(task)
        return [Candidate(f"candidate {number}", {"prices.py": text}) for number, text in enumerate(self._texts)]


def changed(project: Path, old: str, new: str) -> str:
    """Return `prices.py` with a part replaced."""
    source = (project / "prices.py").read_text()
    assert source.count(old) == 1
    return source.replace(old, new)


def worked_on(project: Path, optimizer: Any, component: str = "prices.invoice", **options: Any) -> Optimization:
    """Have an optimizer work on a component."""
    base_path = project / "debug_data"
    item = queued(base_path, component, PYTEST)
    settings = OptimizeOptions(project=project, replay=QUICK, **options)
    return optimize(base_path, item.id, optimizer, options=settings)


FAST = "sum(items) * rate(country) if items else 0"
LOOP = "    total = 0\n    for item in items:\n        total += item * rate(country)\n    return total\n"
