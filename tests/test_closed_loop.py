"""The whole loop, on the code evolver: found, changed, proven; and what is planted is rejected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest

from instrumented import run_python
from replayed import contents

EXAMPLES: Final = Path(__file__).parents[1] / "examples"
LOOP: Final = EXAMPLES / "closed_loop" / "loop.py"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_loop_is_closed(tmp_path: Path) -> None:
    """Two improvements of 2 times or more are proven, a wrong, a slower and a breaking candidate are rejected, each for
    its own reason; the code evolver and the copy that was worked on are as they were.
    """
    before = contents(EXAMPLES)
    done = run_python(LOOP, tmp_path, folder=tmp_path, timeout_seconds=800)
    assert done.returncode == 0, done.stderr or done.stdout
    found = json.loads(done.stdout)
    assert found["audit"] == {"functions.unique.unique": "open", "src.local_model.generate": "open"}
    planted = {name: found["unique"][name] for name in ("wrong", "slower", "breaking")}
    assert {one["state"] for one in planted.values()} == {"rejected"}
    assert (planted["wrong"]["verdict"], planted["slower"]["verdict"]) == ("wrong", "slower")
    assert planted["slower"]["interval"][0] > 1
    assert "The tests fail with it" in planted["breaking"]["why"]
    for proven in (found["unique"]["coder"], found["generate"]["mechanical"]):
        assert (proven["state"], proven["verdict"]) == ("proven", "faster"), proven
        assert proven["ratio"] < proven["interval"][1] < 0.5
        assert proven["inputs"] > 0
        assert (tmp_path / "project" / proven["patch"]).read_text().startswith("--- a/")
    assert contents(EXAMPLES) == before
    evolver = contents(EXAMPLES / "code_evolver")
    worked_on = contents(tmp_path / "project")
    assert {name: worked_on.get(name) for name in evolver} == evolver
