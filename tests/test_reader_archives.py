"""Archives: they read like the session, beside it or alone, and nothing is archived away."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from faults import Workers, seal_and_merge, stored_names
from otel_debugstore.errors import (
    CorruptDataError,
)
from otel_debugstore_exporters import archive, codec, schema
from otel_debugstore_exporters.archive import ArchiveError, archive_session
from otel_debugstore_exporters.batch import batch_from_records
from otel_debugstore_exporters.doctor import examine
from otel_debugstore_exporters.journal import Journal
from otel_debugstore_exporters.reader import SessionReader
from otel_debugstore_exporters.session import SessionPaths
from sessions import hex_id, span, write_journal, write_sealed
from stored import count_spans


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def paths(base: Path) -> SessionPaths:
    return SessionPaths(base, "s")


def test_an_archive_reads_like_the_session(base: Path, paths: SessionPaths) -> None:
    """Every span and view, from Parquet alone."""
    spans = [
        span(n, parent=1 if n > 1 else None, error="E" if n == 3 else None, attributes={"n": n}) for n in range(1, 9)
    ]
    write_sealed(base, "s", spans[:3])
    write_sealed(base, "s", spans[3:6])
    write_journal(base, "s", spans[6:])
    queries = [
        f"SELECT * FROM {view} ORDER BY ALL" for view in ("traces", "otel_traces", "records", "performance_summary")
    ]
    queries.append(
        f"SELECT {', '.join(c for c in schema.SPAN_COLUMNS if c != 'attributes')[:-7]} FROM spans ORDER BY ALL"
    )
    with SessionReader(base, ["s"]) as reader:
        expected = [reader.query(sql).rows for sql in queries]
    archive_session(paths, remove=True)
    assert [path.name for path in base.iterdir()] == ["s.archive"]
    with SessionReader(base, ["s"]) as reader:
        assert [reader.query(sql).rows for sql in queries] == expected
        assert reader.query("SELECT sum(attributes['n']::INTEGER) FROM spans").rows == [(36,)]
        assert len(list(reader.records())) == 8
        assert reader.query_untrusted("SELECT count(*) FROM spans").rows == [(8,)]


@pytest.mark.parametrize("parts", ["journal", "sealed", "both"])
def test_an_archive_beside_the_session_counts_once(base: Path, paths: SessionPaths, parts: str) -> None:
    """Also after more was recorded, sealed and merged, and when parts of the session are gone."""
    if parts != "journal":
        write_sealed(base, "s", [span(1), span(2)])
    if parts != "sealed":
        write_journal(base, "s", [span(3), span(4)])
    archive_session(paths)
    with SessionReader(base, ["s"]) as reader:
        expected = {"journal": 2, "sealed": 2, "both": 4}[parts]
        assert count_spans(reader) == expected
        assert len(stored_names(paths)) == 1
        write_journal(base, "s", [span(5)])
        assert count_spans(reader) == expected + 1
        seal_and_merge(paths)
        assert count_spans(reader) == expected + 1
        with SessionReader(base, ["s"]) as another:
            assert count_spans(another) == expected + 1
        with pytest.raises(ArchiveError, match="exists already"):
            archive_session(paths)


def test_what_was_dropped_outlives_the_journal(base: Path, paths: SessionPaths) -> None:
    """The counts of an archived session are in its archive; what is dropped later adds to them."""
    with Journal.open(paths.journal) as journal:
        journal.append([codec.encode(batch_from_records([span(1)]), 1)], {"queue_full": 3})

    def dropped() -> list[int]:
        with SessionReader(base, ["s"]) as reader:
            reader.refresh()
            return sorted(drop.count for drop in reader.drops()["s"])

    archive_session(paths)
    assert dropped() == [3]
    shutil.rmtree(paths.archive)
    archive_session(paths, remove=True)
    assert dropped() == [3]
    assert any("3 spans were dropped" in finding.what for finding in examine(base))
    with Journal.open(paths.journal) as journal:
        journal.append([codec.encode(batch_from_records([span(2)]), 1)], {"queue_full": 4})
    assert dropped() == [3, 4]


def test_recording_goes_on_after_archiving(base: Path, paths: SessionPaths) -> None:
    """An archived session that is recorded into again shows both; a reader that was open follows."""
    write_journal(base, "s", [span(1), span(2)])
    with SessionReader(base, ["s"]) as reader:
        assert count_spans(reader) == 2
        archive_session(paths, remove=True)
        assert count_spans(reader) == 2
        write_journal(base, "s", [span(3)])
        assert count_spans(reader) == 3
        seal_and_merge(paths)
        assert count_spans(reader) == 3
        with SessionReader(base, ["s"]) as another:
            assert count_spans(another) == 3


def test_what_is_recorded_is_not_archived_away(base: Path, paths: SessionPaths, workers: Workers) -> None:
    """Removing is refused while a program records, and never removes what came after the archive was written."""
    writer = workers.start("write", paths, writer=1).wait_for()
    with pytest.raises(ArchiveError, match="being recorded"):
        archive_session(paths, remove=True)
    assert not paths.archive.exists()
    archive_session(paths)
    writer.wait_for(len(writer.said()) + 5)
    writer.kill()
    assert {name.rpartition("-")[0] for name in stored_names(paths)} >= writer.acknowledged()


def test_what_appears_while_archiving_stays(base: Path, paths: SessionPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment that is imported, and spans that are recorded, after the archive was written."""
    write_sealed(base, "s", [span(1)])
    write_journal(base, "s", [span(2)])
    real = Path.rename

    def rename_and_others_write(self: Path, target: Path) -> Path:
        found = real(self, target)
        write_sealed(base, "s", [span(3)])
        write_journal(base, "s", [span(4)])
        return found

    monkeypatch.setattr(Path, "rename", rename_and_others_write)
    with pytest.raises(ArchiveError, match="was recorded into"):
        archive_session(paths, remove=True)
    with SessionReader(base, ["s"]) as reader:
        assert reader.query("SELECT list(span_id ORDER BY span_id) FROM spans").rows == [
            (list(map(hex_id, range(1, 5))),)
        ]
    assert len(paths.segments()) == 1


def test_an_archive_that_can_not_be_read(base: Path, paths: SessionPaths) -> None:
    """It is an error that says what to do."""
    write_sealed(base, "s", [span(1)])
    archive_session(paths, remove=True)
    (paths.archive / "traces.parquet").write_bytes(b"PAR1")
    with SessionReader(base, ["s"]) as reader, pytest.raises(CorruptDataError, match="restore it"):
        count_spans(reader)


def test_two_archivers_at_once(base: Path, paths: SessionPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one is refused, and takes nothing away from the first."""
    write_sealed(base, "s", [span(1)])
    real = archive.export_parquet

    def write_and_another_tries(reader: SessionReader, folder: Path) -> None:
        real(reader, folder)
        with pytest.raises(ArchiveError, match="being archived already"):
            archive_session(paths, remove=True)

    monkeypatch.setattr(archive, "export_parquet", write_and_another_tries)
    archive_session(paths, remove=True)
    assert stored_names(paths) == {"work": 1}
    assert [path.name for path in base.iterdir()] == ["s.archive"]
