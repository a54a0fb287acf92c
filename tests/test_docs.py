"""The documents say what is so: every setting is there, every link leads somewhere, every README block runs.

In the README a `python` block is a program, and a `console` block is what a person types behind `$`. All are
run in order in one new folder; a program whose first line is `# NAME.py` is saved there instead, for a
`console` block to run. What must not be run here (`make`, `pip install`, a server) is fenced as `sh`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from documents import Block, read_blocks
from otel_debugstore import environment_variables

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")])
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def test_every_variable_is_documented() -> None:
    """`docs/configuration.md` has a row for each variable, and none for one that is not read."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    documented = set(re.findall(r"^\| `(OTEL_\w+)` \|", text, re.MULTILINE))
    assert documented == {name for name in vars(environment_variables) if name.startswith("OTEL_")}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """A relative link names a file that is there."""
    links = [link for link in LINK.findall(document.read_text()) if "://" not in link]
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_decisions_are_listed() -> None:
    """The index of the decisions names every one of them."""
    folder = ROOT / "docs" / "decisions"
    linked = set(LINK.findall((folder / "README.md").read_text()))
    assert {path.name for path in folder.glob("[0-9]*.md")} <= linked


@pytest.mark.slow
def test_the_readme_runs(tmp_path: Path) -> None:
    """Every program and every command of the README does its work."""
    blocks = read_blocks(ROOT / "README.md")
    assert {"python", "console"} <= {block.language for block in blocks}
    for block in blocks:
        if block.language == "python":
            _run_program(block, tmp_path)
        elif block.language == "console":
            for command in block.commands():
                _run(command, block, tmp_path)


def _run_program(block: Block, folder: Path) -> None:
    saved = re.match(r"# (\w+\.py)$", block.text, re.MULTILINE)
    program = folder / (saved[1] if saved else f"line_{block.line}.py")
    program.write_text(block.text)
    if not saved:
        _run([sys.executable, program.name], block, folder)


def _run(command: list[str], block: Block, folder: Path) -> None:
    """Run a command that finds the programs of this environment first."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    program = shutil.which(command[0], path=environment["PATH"])
    assert program, f"README line {block.line}: {command[0]} is not installed"
    done = subprocess.run(
        [program, *command[1:]],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"README line {block.line}: {' '.join(command)}: {done.stderr or done.stdout}"
