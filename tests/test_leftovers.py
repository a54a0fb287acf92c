"""What a writer left that died is removed, what another one is writing is not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from blobs import sealed
from faults import Workers
from otel_debugstore_exporters.session import SessionPaths


@pytest.fixture
def paths(tmp_path: Path) -> SessionPaths:
    return SessionPaths(tmp_path / "data", "s")


@pytest.mark.parametrize("session_id", ["s", "a.tmp", "x.tmp.y", "_", "0.1-2"])
def test_leftovers_of_dead_writers_only(tmp_path: Path, workers: Workers, session_id: str) -> None:
    """Sealing removes what a writer left that died, whatever the session's name, and nothing of a living one."""
    paths, near = SessionPaths(tmp_path, session_id), SessionPaths(tmp_path, f"{session_id}.b")
    (dead,) = (Path(line) for line in workers.run("name_segment", paths))
    left = [dead.with_name(dead.name + end) for end in ("", ".wal", "-compact")]
    alive = paths.temporary_segment("fedcba9876543210")
    other = dead.with_name(dead.name.replace(session_id, near.session_id, 1))
    for path in (*left, alive, other):
        path.write_bytes(b"x")
    assert set(paths.abandoned()) == set(left)
    assert near.abandoned() == [other]
    sealed(paths)
    assert not any(path.exists() for path in left)
    assert alive.exists()
    assert other.exists()


def test_the_id_of_a_dead_writer_is_given_out_again(paths: SessionPaths) -> None:
    """What it wrote is left all the same: a process is known by its id and by when it began."""
    paths.base_path.mkdir()
    name, _, process = paths.temporary_segment("0123456789abcdef").name.partition("-")
    pid = process.partition("-")[0]
    left = paths.base_path / f"{name}-{pid}-1.tmp"
    left.write_bytes(b"x")
    assert paths.abandoned() == [left]


def test_a_writer_on_another_machine(paths: SessionPaths) -> None:
    """There the ids of processes say nothing here; what changed within a day may be being written."""
    before, place, after = re.split(r"([0-9a-f]+)(?=-)", paths.temporary_segment("0123456789abcdef").name, maxsplit=1)
    _keeps_for_a_day(paths, paths.base_path / f"{before}{place[::-1]}{after}")


def test_a_writer_in_a_container(paths: SessionPaths) -> None:
    """It has ids of its own, that mean other processes outside."""
    program = (
        "import sys; from pathlib import Path; from otel_debugstore_exporters.session import SessionPaths; "
        "print(SessionPaths(Path(sys.argv[1]), 's').temporary_segment('0123456789abcdef'))"
    )
    contained = ["unshare", "--pid", "--fork", sys.executable, "-c", program, str(paths.base_path)]
    try:
        done = subprocess.run(contained, capture_output=True, text=True, timeout=60, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no process ids of its own for a process ({error})")
    _keeps_for_a_day(paths, Path(done.stdout.strip()))


def _keeps_for_a_day(paths: SessionPaths, unfinished: Path) -> None:
    sealed(paths, 0)
    unfinished.write_bytes(b"x")
    sealed(paths, 1)
    assert unfinished.exists()
    os.utime(unfinished, (time.time() - 2 * 86_400,) * 2)
    sealed(paths, 2)
    assert not unfinished.exists()
