"""Sessions of a million spans, made once a run: a real shop's spans, and the generator's, also as long traces."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.measure import ROOT, in_process

if TYPE_CHECKING:
    from otel_debugstore_exporters.batch import SpanBatch

NEZHA: Final = ROOT.parent / "shared" / "data" / "nezha"
NEZHA_SPANS: Final = {
    "boutique-2022-08-22-a.otlp.jsonl.gz": 148_168,
    "boutique-2022-08-22-b.otlp.jsonl.gz": 135_824,
}
SPANS: Final = 1_000_000
WIDE_TRACES: Final = 10_000
COMPONENTS: Final = 1_000
_SHIFT_NS: Final = 3600 * 1_000_000_000


class UnavailableError(Exception):
    """A benchmark can't run here; the text says why."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A sealed and merged session, and what it took in the journal before."""

    base_path: Path
    session: str
    span_count: int
    journal_bytes: int
    sealed_bytes: int
    seal_seconds: float


def nezha_files() -> list[Path]:
    """Return the files of the Nezha data set.

    Raises:
        UnavailableError: They are not there.
    """
    paths = [NEZHA / name for name in NEZHA_SPANS]
    if not all(path.exists() for path in paths):
        raise UnavailableError("the Nezha files are not there: expected in ../shared/data/nezha")
    return paths


@functools.cache
def directory() -> Path:
    """Return a directory for the data sets; it is removed when this process ends."""
    path = Path(tempfile.mkdtemp(prefix="otel-debugstore-bench-data-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@functools.cache
def nezha_million() -> Dataset:
    """Return a million spans of the Nezha files, which are repeated with times shifted and other trace ids."""
    nezha_files()
    return _made("nezha")


@functools.cache
def generated_million() -> Dataset:
    """Return a million spans of the generator, with ten attributes each."""
    return _made("generated")


@functools.cache
def wide_million() -> Dataset:
    """Return 10,000 traces of 100 spans each, with children that overlap."""
    return _made("wide")


@functools.cache
def component_million() -> Dataset:
    """Return a million calls of a thousand components in eight processes."""
    return _made("components")


def _made(session: str) -> Dataset:
    found = in_process(build, base_path=str(directory()), session=session)
    return Dataset(directory(), session, **found)


def build(base_path: str, session: str) -> dict[str, float]:
    """Record a data set into a journal, seal and merge it, and return its sizes."""
    import time

    from benchmarks.generate import batches, component_batches, wide_batches
    from otel_debugstore_exporters.codec import encode
    from otel_debugstore_exporters.journal import Journal
    from otel_debugstore_exporters.merging import merge
    from otel_debugstore_exporters.seal import seal
    from otel_debugstore_exporters.session import SessionPaths

    paths = SessionPaths(Path(base_path), session)
    sources = {
        "nezha": lambda: _first(SPANS, _shifted_nezha()),
        "generated": lambda: batches(SPANS),
        "components": lambda: component_batches(SPANS, COMPONENTS),
        "wide": lambda: wide_batches(WIDE_TRACES, SPANS // WIDE_TRACES),
    }
    with Journal.open(paths.journal, durability="interval") as journal:
        for batch in sources[session]():
            journal.append([encode(batch, 0)])
        stats = journal.stats()
        began = time.perf_counter()
        seal(paths, journal)
        merge(paths)
        seconds = time.perf_counter() - began
    return {
        "span_count": stats.span_count,
        "journal_bytes": stats.used_bytes,
        "sealed_bytes": sum(path.stat().st_size for path in paths.segments()),
        "seal_seconds": seconds,
    }


def _shifted_nezha() -> Iterator[SpanBatch]:
    """Yield the files' spans without end, in batches of 512, an hour later each time."""
    from otel_debugstore_exporters.formats import decode, open_input

    units: list[SpanBatch] = []
    for path in nezha_files():
        with path.open("rb") as raw:
            opened = open_input(raw, None)
            for _, unit in decode(opened.stream, opened.format):
                if isinstance(unit, Exception):
                    raise unit
                units.append(unit)
    turn = 0
    while True:
        for unit in units:
            yield from _in_batches(unit, turn)
        turn += 1


def _in_batches(unit: SpanBatch, turn: int) -> Iterator[SpanBatch]:
    from benchmarks.generate import BATCH

    shift = turn * _SHIFT_NS
    for first in range(0, len(unit), BATCH):
        batch = _slice(unit, first, min(first + BATCH, len(unit)))
        flip = turn.to_bytes(16, "little") * len(batch)
        ids = int.from_bytes(batch.trace_ids, "big") ^ int.from_bytes(flip, "big")
        yield replace(
            batch,
            trace_ids=ids.to_bytes(16 * len(batch), "big"),
            start_ns=array("q", [time_ns + shift for time_ns in batch.start_ns]),
            end_ns=array("q", [time_ns + shift for time_ns in batch.end_ns]),
        )


def _slice(batch: SpanBatch, first: int, end: int) -> SpanBatch:
    """Return rows of a batch that has nothing but the columns that every span has."""
    if batch.events or batch.links or batch.status_messages or batch.trace_states or batch.dropped:
        raise ValueError("the Nezha files have no events, links, messages or trace states")
    return replace(
        batch,
        trace_ids=batch.trace_ids[16 * first : 16 * end],
        span_ids=batch.span_ids[8 * first : 8 * end],
        parent_ids=batch.parent_ids[8 * first : 8 * end],
        start_ns=batch.start_ns[first:end],
        end_ns=batch.end_ns[first:end],
        kinds=batch.kinds[first:end],
        status_codes=batch.status_codes[first:end],
        flags=batch.flags[first:end],
        name_index=batch.name_index[first:end],
        resource_index=batch.resource_index[first:end],
        scope_index=batch.scope_index[first:end],
        attributes=batch.attributes[first:end],
    )


def _first(count: int, source: Iterable[SpanBatch]) -> Iterator[SpanBatch]:
    """Yield batches up to `count` spans."""
    for batch in source:
        yield batch if len(batch) <= count else _slice(batch, 0, count)
        count -= len(batch)
        if count <= 0:
            return
