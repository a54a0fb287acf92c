"""The doctor: what it finds wrong, what it mends, and what it leaves alone."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import lmdb
import pytest

from faults import Workers, assert_exactly_once, names_of, problems, seal_and_merge, stored_names
from first_version import make_first_version, make_first_version_archive
from otel_debugstore.errors import SessionNotFoundError
from otel_debugstore_exporters import codec
from otel_debugstore_exporters.archive import archive_session, unfinished_archive
from otel_debugstore_exporters.batch import batch_from_records
from otel_debugstore_exporters.doctor import examine, repair
from otel_debugstore_exporters.findings import Finding
from otel_debugstore_exporters.journal import Journal
from otel_debugstore_exporters.session import SessionPaths, list_sessions
from programs.workers import blob
from sessions import span, write_journal, write_sealed


@pytest.fixture
def paths(tmp_path: Path) -> SessionPaths:
    return SessionPaths(tmp_path / "data", "s")


@pytest.fixture
def session(paths: SessionPaths) -> SessionPaths:
    """Two segments and a journal; spans 1 and 2, 3, and 4."""
    write_sealed(paths.base_path, "s", [span(1, "0-1-0"), span(2, "0-1-1")])
    write_sealed(paths.base_path, "s", [span(3, "0-3-0")])
    write_journal(paths.base_path, "s", [span(4, "0-4-0")])
    return paths


def found(paths: SessionPaths) -> list[tuple[str, str]]:
    return [(finding.severity, finding.subject) for finding in examine(paths.base_path)]


def what(findings: list[Finding]) -> str:
    return "\n".join(finding.what for finding in findings)


def test_a_sound_session(session: SessionPaths) -> None:
    """There is nothing to say, before and after sealing, merging and archiving; and nothing changes."""
    before = {path: path.read_bytes() for path in session.base_path.rglob("*") if path.suffix in (".duckdb", ".mdb")}
    before.pop(session.journal / "lock.mdb")  # has the table of readers
    assert examine(session.base_path) == []
    assert {path: path.read_bytes() for path in before} == before
    seal_and_merge(session)
    assert repair(session.base_path) == []
    archive_session(session)
    assert examine(session.base_path, ["s"]) == []
    assert examine(session.base_path / "nothing here") == []
    with pytest.raises(SessionNotFoundError):
        examine(session.base_path, ["unknown"])


_DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda good: good[: len(good) // 2],
    "empty": lambda good: b"",
    "garbage": lambda good: random.Random(1).randbytes(len(good)),
    "zeros in the middle": lambda good: good[:30_000] + bytes(len(good) - 30_000),
}


@pytest.mark.parametrize("damage", _DAMAGE)
def test_a_damaged_segment_is_set_aside(session: SessionPaths, damage: str) -> None:
    """It keeps its bytes under another name, everything else is readable again, and the doctor remembers."""
    bad = _DAMAGE[damage](session.main_segment.read_bytes())
    session.main_segment.write_bytes(bad)
    assert found(session) == [("problem", "s.duckdb")]
    (finding,) = repair(session.base_path)
    assert finding.repaired
    assert set(stored_names(session)) == {"0-3-0", "0-4-0"}
    (aside,) = session.quarantined()
    assert aside.read_bytes() == bad
    assert [(f.severity, f.repaired) for f in repair(session.base_path)] == [("note", False)]
    seal_and_merge(session)
    assert set(stored_names(session)) == {"0-3-0", "0-4-0"}


def test_a_session_that_was_set_aside_as_a_whole(paths: SessionPaths) -> None:
    """The doctor remembers it though there is no such session any more, among all and by its name."""
    write_sealed(paths.base_path, "s", [span(1)])
    write_journal(paths.base_path, "other", [span(2)])
    paths.main_segment.write_bytes(paths.main_segment.read_bytes()[:20_000])
    assert [finding.repaired for finding in repair(paths.base_path)] == [True]
    assert list_sessions(paths.base_path) == ["other"]
    (aside,) = paths.quarantined()
    for session_ids in (None, ["s"]):
        assert [(f.session, f.severity, f.subject) for f in examine(paths.base_path, session_ids)] == [
            ("s", "note", aside.name)
        ]
    aside.unlink()
    assert examine(paths.base_path) == []


def test_files_of_somebody_else(session: SessionPaths) -> None:
    """They are named, and never renamed."""
    database, journal = session.base_path / "database.duckdb", session.base_path / "environment.lmdb"
    with duckdb.connect(str(database)) as connection:
        connection.execute("CREATE TABLE a (b INTEGER)")
    with lmdb.open(str(journal), lib_version=0) as environment, environment.begin(write=True) as txn:
        txn.put(b"key", b"value")
    expected = [("problem", "database.duckdb", False), ("problem", "environment.lmdb", False)]
    for look in (examine, repair, examine):
        findings = look(session.base_path)
        assert sorted((f.severity, f.subject, f.repaired) for f in findings) == expected
    assert {finding.remedy for finding in findings} == {"move it elsewhere"}
    assert database.exists()
    assert journal.exists()


def test_damage_anywhere_in_a_segment_is_found(paths: SessionPaths) -> None:
    """Every block is read: whatever the doctor calls sound can be queried as a whole."""
    spans = [span(n, f"n{n}", attributes={"text": f"{n * 7919:x}" * 9, "n": n}) for n in range(1, 3000)]
    write_sealed(paths.base_path, "s", spans)
    good = paths.main_segment.read_bytes()
    noticed = 0
    for place in range(12_288, len(good), len(good) // 7):
        paths.main_segment.write_bytes(good[:place] + random.Random(place).randbytes(64) + good[place + 64 :])
        if problems(paths):
            noticed += 1
        else:
            with duckdb.connect(str(paths.main_segment), read_only=True) as connection:
                assert connection.execute("SELECT count(*), sum(hash(s)) IS NULL FROM spans s").fetchall() == [
                    (2999, False)
                ]
    assert noticed > 1


@pytest.mark.parametrize("damage", _DAMAGE)
def test_a_damaged_journal_is_set_aside(session: SessionPaths, damage: str) -> None:
    """The sealed spans are readable again, and recording begins a new journal."""
    data = session.journal / "data.mdb"
    bad = _DAMAGE[damage](data.read_bytes())
    data.write_bytes(bad)
    if damage == "empty":  # nothing is lost that was there: it is a journal that was not begun
        assert found(session) == []
        return
    assert found(session) == [("problem", "s.lmdb")]
    (finding,) = repair(session.base_path)
    assert finding.repaired
    assert set(stored_names(session)) == {"0-1-0", "0-1-1", "0-3-0"}
    (aside,) = session.quarantined()
    assert (aside / "data.mdb").read_bytes() == bad
    assert list_sessions(session.base_path) == ["s"]
    write_journal(session.base_path, "s", [span(5, "0-5-0")])
    assert set(stored_names(session)) == {"0-1-0", "0-1-1", "0-3-0", "0-5-0"}


def test_a_damaged_journal_alone(paths: SessionPaths) -> None:
    """One damaged session does not keep the doctor from the others."""
    for session_id in ("a", "s", "z"):
        write_journal(paths.base_path, session_id, [span(1)])
    (paths.journal / "data.mdb").write_bytes(b"garbage" * 4000)
    (finding,) = repair(paths.base_path)
    assert (finding.session, finding.repaired) == ("s", True)
    assert examine(paths.base_path, ["a", "z"]) == []


def test_a_live_journal_is_never_called_damaged(paths: SessionPaths, workers: Workers) -> None:
    """It changes under the doctor's eyes, while others write and seal; nothing sound is set aside."""
    for number in range(3):
        workers.start("write", paths, writer=number, pause=0).wait_for()
    workers.start("seal_session", paths)
    for _ in range(8):
        assert [finding for finding in repair(paths.base_path) if finding.severity == "problem"] == []
    assert paths.quarantined() == []


def test_a_journal_set_aside_while_it_is_open(paths: SessionPaths, workers: Workers) -> None:
    """Its writer begins a new one with its next append: what it acknowledges then is found."""
    writer = workers.start("write", paths, writer=1, pause=0.01).wait_for(3)
    paths.journal.rename(paths.journal.with_name("s.lmdb.corrupt-1"))
    known = len(writer.said())
    writer.wait_for(known + 10)
    writer.kill()
    assert_exactly_once(paths, writer.said()[known + 2 :])


def test_a_segment_that_another_program_has_open(session: SessionPaths, workers: Workers) -> None:
    """It can't be read now, and is not set aside for that."""
    holder = workers.start("read_sealed_by_user", session).wait_for()
    (finding,) = repair(session.base_path)
    assert (finding.severity, finding.subject, finding.repaired) == ("problem", "s.duckdb", False)
    assert "close it" in finding.what
    holder.kill()
    assert examine(session.base_path) == []


def test_a_wrong_count(session: SessionPaths) -> None:
    """A segment with fewer spans than it says is named, and left as it is."""
    with duckdb.connect(str(session.main_segment)) as connection:
        connection.execute("DELETE FROM text_spans WHERE span_id LIKE '%1'")
    (finding,) = repair(session.base_path)
    assert (finding.severity, finding.what, finding.repaired) == ("problem", "holds 1 spans, says 2", False)


def test_the_first_version(session: SessionPaths) -> None:
    """What an older version wrote lacks tables of this one, and is sound; an archive too."""
    for path in session.segments():
        make_first_version(path)
    assert repair(session.base_path) == []
    assert len(stored_names(session)) == 4
    archive = archive_session(session, remove=True)
    assert repair(session.base_path) == []
    make_first_version_archive(archive)
    assert repair(session.base_path) == []
    assert len(stored_names(session)) == 4


def test_an_archive_without_a_file(session: SessionPaths) -> None:
    """One that this version wrote has all tables, or is named."""
    (archive_session(session) / "rollup_total.parquet").unlink()
    assert found(session) == [("problem", "s.archive")]


def test_versions_from_the_future(session: SessionPaths) -> None:
    """They are named with what to do, and left as they are."""
    with duckdb.connect(str(session.main_segment)) as connection:
        connection.execute("UPDATE segment SET version = 7")
    good = codec.encode(batch_from_records([span(9)], 1), 1)
    with Journal.open(session.journal) as journal:
        journal.append([b"\x07" + good[1:]])
    findings = repair(session.base_path)
    assert [(finding.subject, finding.repaired) for finding in findings] == [("s.duckdb", False), ("blob 1", False)]
    assert all("upgrade" in finding.remedy for finding in findings)


def test_damaged_blobs(paths: SessionPaths) -> None:
    """They are named; sealing counts their spans as dropped, and that is noted from then on."""
    good = codec.encode(batch_from_records([span(1), span(2)], 1), 1)
    with Journal.open(paths.journal) as journal:
        journal.append([good, good[:-9] + bytes([good[-9] ^ 1]) + good[-8:]])
    assert found(paths) == [("problem", "blob 1")]
    seal_and_merge(paths)
    (finding,) = examine(paths.base_path)
    assert (finding.severity, finding.what) == ("note", "2 spans were dropped (corrupt)")


def test_drops_are_noted(paths: SessionPaths) -> None:
    """By process and reason, with what can be done about it."""
    with Journal.open(paths.journal) as journal:
        journal.append([], {"queue_full": 5, "something else": 1})
    assert what(examine(paths.base_path)) == "5 spans were dropped (queue_full)\n1 spans were dropped (something else)"
    assert all(finding.severity == "note" and finding.remedy for finding in repair(paths.base_path))


def test_leftovers_are_removed(session: SessionPaths, workers: Workers) -> None:
    """What a dead writer left, segments that a larger one holds, and blobs that a segment holds."""
    workers.run("write", session, writer=1, count=1)
    shutil.copytree(session.journal, session.base_path / "journal before")
    further = next(path for path in session.segments() if path != session.main_segment)
    kept = further.read_bytes()
    names = stored_names(session)
    seal_and_merge(session)
    further.write_bytes(kept)
    Path(*workers.run("name_segment", session)).write_bytes(b"x")
    shutil.rmtree(session.journal)
    (session.base_path / "journal before").rename(session.journal)
    assert stored_names(session) == names
    findings = repair(session.base_path)
    assert [finding.severity for finding in findings] == ["note"] * 3
    assert all(finding.repaired for finding in findings)
    assert examine(session.base_path) == []
    assert stored_names(session) == names
    assert session.segments() == [session.main_segment]
    with Journal.open(session.journal) as journal:
        assert list(journal.blobs()) == []


def test_an_unfinished_archive_is_removed(session: SessionPaths) -> None:
    """What an archiver left that was killed."""
    folder = unfinished_archive(session)
    folder.mkdir()
    (folder / "spans.parquet").write_bytes(b"PAR1")
    (finding,) = repair(session.base_path)
    assert (finding.severity, finding.subject, finding.repaired) == ("note", folder.name, True)
    assert not folder.exists()
    assert examine(session.base_path) == []


def test_a_damaged_archive(session: SessionPaths) -> None:
    """It is named; there is no second copy to mend it from."""
    archive_session(session, remove=True)
    (session.archive / "spans.parquet").write_bytes(b"PAR1")
    (finding,) = repair(session.base_path)
    assert (finding.severity, finding.subject, finding.repaired) == ("problem", "s.archive", False)
    assert "spans.parquet" in finding.what


def test_a_writer_that_died_in_its_transaction(paths: SessionPaths, workers: Workers) -> None:
    """LMDB takes its lock over; there is nothing to mend."""
    with Journal.open(paths.journal) as journal:
        journal.append([blob(0, 0)])
    workers.start("stop_while_writing", paths).wait_for().kill()
    assert examine(paths.base_path) == []
    assert assert_exactly_once(paths, {"0-0"}) == names_of({"0-0"})
