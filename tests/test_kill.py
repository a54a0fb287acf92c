"""`kill -9` at any time: what was acknowledged is there exactly once, and the doctor is content."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from faults import Worker, Workers, assert_exactly_once, assert_sound, names_of, problems
from otel_debugstore_exporters.journal import Journal
from otel_debugstore_exporters.session import SessionPaths
from programs.workers import blob

KILLS = 24
"""For each of the five kinds of process."""

_ROLES = ["write", "write_records", "seal_session", "merge_session", "import_one_by_one"]


@pytest.fixture
def paths(tmp_path: Path) -> SessionPaths:
    return SessionPaths(tmp_path / "data", "s")


def files(folder: Path, writer: int, count: int) -> list[str]:
    """Write OTLP files whose spans have the names of the blobs of a writer."""
    folder.mkdir(exist_ok=True)
    found = []
    for number in range(count):
        spans = [
            {
                "traceId": f"{writer + 1:032x}",
                "spanId": f"{number * 100 + index + 1:016x}",
                "name": f"{writer}-{number}-{index}",
                "startTimeUnixNano": "1700000000000000000",
                "endTimeUnixNano": "1700000000000001000",
            }
            for index in range(3)
        ]
        path = folder / f"{writer}-{number}.jsonl"
        path.write_text(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}))
        found.append(str(path))
    return found


def acknowledged(worker: Worker) -> set[str]:
    """The blobs (or files, which hold a blob each) that a process said are durable."""
    return {line.split()[0] for line in worker.said() if line[0].isdigit() and "-" in line}


@pytest.mark.slow
@pytest.mark.parametrize("victim", _ROLES)
def test_killed_at_random(paths: SessionPaths, workers: Workers, tmp_path: Path, victim: str) -> None:
    """One kind of process is killed again and again, in one session, while the others work in it."""
    some = random.Random(victim)
    numbers = itertools.count()
    known: set[str] = set()

    def start(role: str) -> Worker:
        arguments: dict[str, object] = {}
        if role.startswith("write"):
            arguments = {"writer": next(numbers)}
        elif role.startswith("import"):
            arguments = {"files": files(tmp_path / "files", next(numbers), 40)}
        return workers.start(role, paths, **arguments)

    for kill in range(KILLS):
        running = {role: start(role) for role in _ROLES if role == victim or some.random() < 0.3}
        if not any(role.startswith("write") for role in running):
            running["write"] = start("write")
        running[victim].wait_for(some.choice([0, 1, 2]))
        time.sleep(some.uniform(0, 0.15))
        running[victim].kill()
        workers.kill_all()
        for worker in running.values():
            known |= acknowledged(worker)
        if kill % 4 == 3:
            assert_sound(paths, known)
        else:
            assert_exactly_once(paths, known)
            assert problems(paths) == []
    assert len(known) > KILLS


def _prepared(paths: SessionPaths, workers: Workers, tmp_path: Path) -> set[str]:
    """Make a session with a main segment, two further ones, an imported one, and a journal; return its blobs."""
    known = set()
    for number in range(4):
        with Journal.open(paths.journal) as journal:
            journal.append([blob(1, 2 * number), blob(1, 2 * number + 1)])
        known |= {f"1-{2 * number}", f"1-{2 * number + 1}"}
        if number < 3:
            workers.run("seal_session", paths, once=True)
    workers.run("import_one_by_one", paths, files=files(tmp_path / "before", 2, 1))
    return known | {"2-0"}


_STEPS: dict[str, dict[str, Any]] = {
    "seal_session": {"once": True, "segment_spans": 3},
    "merge_session": {"once": True},
    "import_one_by_one": {},
    "archive_session": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("role", _STEPS)
def test_killed_at_every_step(workers: Workers, tmp_path: Path, role: str) -> None:
    """Between any two things that sealing, merging, importing and archiving do to files."""
    template = SessionPaths(tmp_path / "template", "s")
    known = _prepared(template, workers, tmp_path)
    arguments = dict(_STEPS[role])
    if role == "import_one_by_one":
        arguments["files"] = files(tmp_path / "more", 3, 2)

    def attempt(die_at: int) -> tuple[SessionPaths, Worker]:
        paths = SessionPaths(tmp_path / f"{role}-{die_at}", "s")
        shutil.copytree(template.base_path, paths.base_path)
        return paths, workers.start(role, paths, die_at=die_at, **arguments)

    paths, whole = attempt(0)
    assert whole.wait() == 0
    events = int(whole.said()[-1].split()[1])
    assert events > 10
    step = max(1, events // 16)
    for die_at in {*range(1, events + 1, step), *range(max(1, events - 8), events + 1)}:
        paths, worker = attempt(die_at)
        assert worker.wait() == 9, worker.said()
        all_known = known | acknowledged(worker)
        assert_exactly_once(paths, all_known)
        assert problems(paths) == []
        if role != "archive_session":
            workers.run(role, paths, **arguments)
            all_known |= {"3-0", "3-1"} if role == "import_one_by_one" else set()
            assert_sound(paths, all_known)
        assert assert_exactly_once(paths, all_known) == names_of(all_known)
        shutil.rmtree(paths.base_path)


@pytest.mark.slow
def test_counts_only_grow(paths: SessionPaths, workers: Workers) -> None:
    """Readers watch four processes write, one seal and one merge: a count never drops, and ends exact."""
    blobs = 400
    writers = [workers.start("write_records", paths, writer=3, count=blobs)]
    writers[0].wait_for()
    watchers = [workers.start("count_spans", paths) for _ in range(2)]
    for watcher in watchers:
        watcher.wait_for()  # so it looks while the others write, not only at the end
    writers += [workers.start("write", paths, writer=number, count=blobs) for number in range(3)]
    workers.start("seal_session", paths)
    workers.start("merge_session", paths)
    for writer in writers:
        assert writer.wait() == 0, writer.said()[-1]
    total = 4 * blobs * 3
    for watcher in watchers:
        deadline = time.monotonic() + 30
        while watcher.said()[-1:] != [f"{total} {total}"]:
            assert time.monotonic() < deadline, watcher.said()[-3:]
            time.sleep(0.01)
        counts = [tuple(map(int, line.split())) for line in watcher.said()]
        assert counts == sorted(counts)
        assert all(count == distinct <= total for count, distinct in counts)
        assert len(counts) > 1
    workers.kill_all()
    assert_sound(paths, set.union(*map(acknowledged, writers)))
