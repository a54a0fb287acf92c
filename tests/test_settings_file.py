"""A pyproject.toml that can't be read or looked for: the program runs, and nothing is kept that it may forbid."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from otel_debugstore_exporters.reader import SessionReader
from stored import stored_spans

PROGRAM = """
import ctypes, os, sys
from pathlib import Path
import otel_debugstore
folder, how = Path(sys.argv[1]), sys.argv[2]
file = folder / "locked" / "pyproject.toml"
os.chdir(file.parent)
if how != "hidden":
    file.write_text("[tool.otel-debugstore]")
    file.chmod(0)
if how == "handed down":
    os.environ["_OTEL_DEBUGSTORE_PYPROJECT"] = str(file)
if how != "unreadable":
    file.parent.chmod(0)
# Root may look anywhere, but for one without capabilities.
assert ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()) == 0
otel_debugstore.configure(session_id="s", base_path=folder / "data")
@otel_debugstore.tool(name="work")
def work(text): return text + "!"
print(work("private"))
"""


@pytest.mark.parametrize(
    ("how", "is_kept"), [("hidden", True), ("unreadable", False), ("handed down", False)], ids=lambda value: str(value)
)
def test_a_file_that_can_not_be_read(how: str, is_kept: bool, tmp_path: Path) -> None:
    """One line names it. A folder where nobody can look holds no settings; a file that is known to be there may."""
    (tmp_path / "locked").mkdir()
    done = subprocess.run([sys.executable, "-c", PROGRAM, tmp_path, how], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "private!\n"), done.stderr
    (tmp_path / "locked").chmod(0o700)
    (line,) = done.stderr.splitlines()
    assert "locked/pyproject.toml" in line
    assert [span.name for span in stored_spans(tmp_path / "data")] == ["work"]
    with SessionReader(tmp_path / "data") as reader:
        contents = [bytes(row[0]) for row in reader.query("SELECT content FROM payloads").rows]
    assert any(b"private" in content for content in contents) == is_kept


def test_what_is_no_file(tmp_path: Path) -> None:
    """A folder or a pipe of that name says nothing, and is not waited for."""
    program = "import os; os.{}('pyproject.toml')\nfrom otel_debugstore import tool\nprint(tool(len)('ab'))"
    for number, make in enumerate(("mkdir", "mkfifo")):
        (own := tmp_path / str(number)).mkdir()
        command = [sys.executable, "-c", program.format(make)]
        done = subprocess.run(command, cwd=own, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")
