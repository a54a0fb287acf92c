"""Files into a session: each becomes one sealed segment, or nothing.

Loss and doubling: a file's spans appear all at once, when its segment is renamed; an import that is
interrupted or killed shows nothing. A file is known by the SHA-256 of its bytes as they lie on disk,
and is not imported twice into one session unless asked; a lock a file makes that hold between
processes. Within a file a unit (a line, a message, a document) is all or nothing: a malformed one is
reported, the rest goes in. Memory is bounded by the largest unit.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import stat
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from otel_debugstore.errors import MalformedInputError
from otel_debugstore_exporters.batch import SpanBatch
from otel_debugstore_exporters.formats import check_format, decode, open_input
from otel_debugstore_exporters.imported import imported_sha256s, locked, written
from otel_debugstore_exporters.layer_mapping import assign_layers
from otel_debugstore_exporters.segment import SegmentWriter, Source
from otel_debugstore_exporters.session import SessionPaths

STDIN: Final = "-"
MAX_REPORTED: Final = 1000
"""So many malformed units of a file are kept with their messages; all are counted."""

_PROGRESS_SECONDS: Final = 0.1


class Malformed(NamedTuple):
    """A unit that was left out: its line (or message) number from 1, and why."""

    number: int
    message: str


class Progress(NamedTuple):
    """How far the import of a file is; bytes as they lie on disk."""

    name: str
    done_bytes: int
    total_bytes: int
    spans: int


@dataclass(slots=True)
class FileReport:
    """What became of one file.

    Attributes:
        name: As it was given; `(stdin)` for standard input.
        sha256: Of its bytes, hexadecimal.
        spans: How many were imported.
        malformed: The first malformed units.
        malformed_count: How many there were.
        skipped: It is in the session already, and nothing was done.
        error: Why nothing of it was imported, if that is so; None otherwise.
    """

    name: str
    sha256: str = ""
    spans: int = 0
    malformed: list[Malformed] = field(default_factory=list)
    malformed_count: int = 0
    skipped: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of the files of one import, in their order."""

    files: list[FileReport]

    @property
    def spans(self) -> int:
        return sum(file.spans for file in self.files)

    @property
    def skipped(self) -> list[FileReport]:
        return [file for file in self.files if file.skipped]

    @property
    def malformed_lines(self) -> list[tuple[str, int, str]]:
        """File, line number and message of what was left out, the first 1,000 of each file."""
        return [(file.name, *malformed) for file in self.files for malformed in file.malformed]

    @property
    def complete(self) -> bool:
        """Whether everything in the files is in the session now."""
        return not any(file.malformed_count or file.error for file in self.files)


def import_files(
    files: Sequence[str | Path],
    paths: SessionPaths,
    *,
    format: str | None = None,
    again: bool = False,
    progress: Callable[[Progress], None] | None = None,
    stdin: BinaryIO | None = None,
) -> ImportReport:
    """Import files into a session, and create it if there is none.

    All files are looked at first: if one can't be read or is in no known format, nothing is imported.

    Args:
        files: Their paths; `-` is standard input.
        paths: The session.
        format: One of `formats.FORMATS`; None to find out file by file.
        again: Import also what the session holds already.
        progress: Called about ten times a second.
        stdin: What `-` reads; the process's by default.

    Raises:
        ConfigurationError: There is no such format.
        MalformedInputError: A file can't be read, or its format is not known.
        DebugStoreError: The session can't be written; files before that one are imported.
    """
    if format is not None:
        check_format(format)
    with contextlib.ExitStack() as stack:
        inputs = [_input(file, stdin, stack) for file in files]
        for one in inputs:
            _check(one, format)
        return ImportReport([_import(one, paths, format, again, progress) for one in inputs])


@dataclass(frozen=True, slots=True)
class _Input:
    """A file that can be read more than once: a regular one, or a copy of what is none."""

    name: str
    path: Path | None
    copy: BinaryIO | None = None

    def open(self) -> io.FileIO:
        if self.path is not None:
            return io.FileIO(self.path)
        assert self.copy is not None
        descriptor = os.dup(self.copy.fileno())
        os.lseek(descriptor, 0, os.SEEK_SET)
        return io.FileIO(descriptor)


def _input(file: str | Path, stdin: BinaryIO | None, stack: contextlib.ExitStack) -> _Input:
    if str(file) == STDIN:
        return _Input("(stdin)", None, _copied(stdin or sys.stdin.buffer, stack))
    path = Path(file)
    with _readable(str(file)):
        if stat.S_ISREG(path.stat().st_mode):
            return _Input(str(file), path)
        with path.open("rb") as pipe:
            return _Input(str(file), None, _copied(pipe, stack))


def _copied(source: BinaryIO, stack: contextlib.ExitStack) -> BinaryIO:
    copy = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # the stack closes it
    shutil.copyfileobj(source, copy, 1 << 20)
    copy.flush()
    return copy


@contextlib.contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise MalformedInputError(f"{name} can't be read ({why}); check its name and the access rights.") from error


def _check(file: _Input, format: str | None) -> None:
    """Raise `MalformedInputError` if the file can't be imported at all."""
    with _readable(file.name), file.open() as raw:
        try:
            open_input(raw, format)
        except MalformedInputError as error:
            raise MalformedInputError(f"{file.name} can't be imported: {error}.") from error


def _import(
    file: _Input,
    paths: SessionPaths,
    format: str | None,
    again: bool,
    progress: Callable[[Progress], None] | None,
) -> FileReport:
    with _readable(file.name), file.open() as raw:
        before = os.fstat(raw.fileno())
        report = FileReport(file.name, sha256=_sha256(raw))
        with locked(paths, report.sha256):
            if not again and report.sha256 in imported_sha256s(paths):
                report.skipped = True
                return report
            with written(paths), SegmentWriter(paths, compact=True) as writer:
                raw.seek(0)
                for batch in _batches(raw, format, report, _Meter(progress, raw, before.st_size)):
                    writer.add(assign_layers(batch))
                if file.path is not None and _changed(before, os.fstat(raw.fileno())):
                    report.error = "it changed while it was read; import it when it is complete"
                    report.spans = 0
                if report.spans:
                    writer.add_source(_source(file, report))
                    writer.publish()
        return report


def _source(file: _Input, report: FileReport) -> Source:
    name = file.path.name if file.path else file.name
    name = name.encode("utf-8", "backslashreplace").decode()  # a name on disk need not be text
    return Source(uuid.uuid4().hex, sha256=report.sha256, name=name, span_count=report.spans)


class _Meter:
    """Reports progress, not too often."""

    def __init__(self, report: Callable[[Progress], None] | None, raw: io.FileIO, total_bytes: int) -> None:
        self._report = report
        self._raw = raw
        self._total_bytes = total_bytes
        self._next = 0.0

    def update(self, file: FileReport, last: bool = False) -> None:
        if self._report is None or (not last and time.monotonic() < self._next):
            return
        self._next = time.monotonic() + _PROGRESS_SECONDS
        self._report(Progress(file.name, self._raw.tell(), self._total_bytes, file.spans))


def _batches(raw: io.FileIO, format: str | None, report: FileReport, meter: _Meter) -> Iterator[SpanBatch]:
    """Yield the file's good units that hold spans, and enter everything into the report."""
    good = 0
    with _readable(report.name):
        opened = open_input(raw, format)
        for number, result in decode(opened.stream, opened.format):
            if isinstance(result, MalformedInputError):
                report.malformed_count += 1
                if len(report.malformed) < MAX_REPORTED:
                    report.malformed.append(Malformed(number, str(result)))
            else:
                good += 1
                report.spans += len(result)
                if len(result):
                    yield result
            meter.update(report)
    if not good:
        report.error = "nothing in it could be read"
    meter.update(report, last=True)


def _sha256(raw: io.FileIO) -> str:
    return hashlib.file_digest(raw, "sha256").hexdigest()


def _changed(before: os.stat_result, after: os.stat_result) -> bool:
    return (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)
