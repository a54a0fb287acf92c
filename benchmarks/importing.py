"""Figure 6: `debugstore import` of the Nezha files, and what spans take on disk."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from benchmarks import datasets
from benchmarks.measure import Figure, Options, environment, executable, in_process, median, scratch

_SESSION = "nezha"


def figures(options: Options) -> list[Figure]:
    """Measure figure 6."""
    return [*_nezha(options), *_generated()]


def _nezha(options: Options) -> list[Figure]:
    files = datasets.nezha_files()
    total = sum(datasets.NEZHA_SPANS.values())
    rates, sizes, complete = [], [], []
    for _ in range(options.repeats(5)):
        with scratch() as path:
            began = time.perf_counter()
            _start(files, path).wait()
            rates.append(total / (time.perf_counter() - began))
            sizes.append(sum(file.stat().st_size for file in path.glob("*.duckdb")) / total)
            complete.append(in_process(count, base_path=str(path)))
    with scratch() as path:
        for process in [_start(files, path), _start(files, path)]:
            process.wait()
        complete.append(in_process(count, base_path=str(path)))
    right = sum(counts == datasets.NEZHA_SPANS for counts in complete)
    return [
        Figure(
            "6",
            "debugstore import of two Nezha files, from the shell: spans a second",
            median(rates),
            60_000,
            "/s",
            "at least",
            f"{total:,} spans in {total / median(rates):.1f} s; {min(rates):,.0f} to {max(rates):,.0f}/s",
        ),
        Figure(
            "6",
            f"imports of {len(complete)}, the last by two processes at once, with 148,168 and 135,824 spans there",
            right,
            len(complete),
            "",
            "exactly",
        ),
        Figure("6", "sealed Nezha files, which carry no span attributes: bytes a span", median(sizes), 45, "B"),
    ]


def _start(files: list[Path], base_path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [executable("debugstore"), "--data-dir", str(base_path), "import", "--session", _SESSION, *map(str, files)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def count(base_path: str) -> dict[str, int]:
    """Return spans by imported file, as far as the table of spans has them."""
    from otel_debugstore_exporters.reader import SessionReader

    with SessionReader(Path(base_path), [_SESSION]) as reader:
        reader.refresh()
        found = {}
        for name, segment in zip(reader.parts, reader.segments(), strict=True):
            rows = reader.connection.execute(f"SELECT count(*) FROM {name}.spans").fetchall()
            found[segment.sources[0].name or ""] = int(rows[0][0])
    return found


def _generated() -> list[Figure]:
    data = datasets.generated_million()
    return [
        Figure(
            "6",
            "1M generated spans with ten attributes, sealed: bytes a span",
            data.sealed_bytes / data.span_count,
            110,
            "B",
            detail=f"sealed and merged at {data.span_count / data.seal_seconds:,.0f} spans/s",
        ),
        Figure(
            "6",
            "1M generated spans with ten attributes, in the journal: bytes a span",
            data.journal_bytes / data.span_count,
            110,
            "B",
        ),
    ]
