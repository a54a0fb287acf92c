"""`python -m benchmarks`: measure the figures of the README, print them, and keep them as JSON."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from benchmarks.datasets import UnavailableError
from benchmarks.measure import Figure, Options

BENCHMARKS: Final = (
    "caller_cost",
    "caller_latency",
    "journal_rate",
    "loss",
    "freshness",
    "importing",
    "queries",
    "analyses",
    "audit",
    "exit_time",
    "import_time",
    "write_record",
    "calls",
    "no_target",
    "child_start",
    "timed_region",
    "ab",
    "pytest_overhead",
)
RESULTS: Final = Path(__file__).with_name("results") / "latest.json"


def main() -> int:
    """Run what the command line asks for; return 1 if a target was missed."""
    arguments = _arguments()
    if arguments.markdown:
        print(_markdown(*_load()))
        return 0
    options = Options(quick=arguments.quick)
    figures: list[Figure] = []
    for name in arguments.only or BENCHMARKS:
        began = time.monotonic()
        print(f"{name} ...", file=sys.stderr, end=" ", flush=True)
        try:
            measured = importlib.import_module(f"benchmarks.{name}").figures(options)
        except UnavailableError as error:
            print(f"SKIPPED: {error}", file=sys.stderr)
            continue
        print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
        print(_text(measured), flush=True)
        figures += measured
        _save(name, measured, arguments.quick)
    print(f"\nWritten to {RESULTS}.")
    return int(any(figure.met is False for figure in figures))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", metavar="NAME", action="append", choices=BENCHMARKS, help="one benchmark")
    parser.add_argument("--quick", action="store_true", help="fewer repeats of less: to see that it works")
    parser.add_argument("--markdown", action="store_true", help="print the last results as a Markdown table")
    return parser.parse_args()


def _save(name: str, figures: Sequence[Figure], quick: bool) -> None:
    """Keep the figures of a benchmark beside those of the others, in place of its last ones."""
    RESULTS.parent.mkdir(exist_ok=True)
    found = _saved()
    found[name] = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "machine": {"cores": _cores(), "system": platform.platform(), "python": platform.python_version()},
        "versions": {name: version(name) for name in ("otel-debugstore", "opentelemetry-sdk", "lmdb", "duckdb")},
        "figures": [asdict(figure) | {"met": figure.met} for figure in figures],
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def _saved() -> dict[str, Any]:
    saved: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return {name: saved[name] for name in BENCHMARKS if name in saved}


def _load() -> tuple[str, list[Figure]]:
    """Return where and when the last results were measured, and these."""
    saved = _saved()
    if not saved:
        raise SystemExit("There are no results yet: run `make bench` first.")
    figures = [
        Figure(**{name: value for name, value in figure.items() if name != "met"})
        for one in saved.values()
        for figure in one["figures"]
    ]
    newest = max(saved.values(), key=lambda one: one["when"])
    machine, versions = newest["machine"], ", ".join(f"{n} {v}" for n, v in newest["versions"].items())
    days = " to ".join(sorted({min(one["when"] for one in saved.values())[:10], newest["when"][:10]}))
    where = f"{days}, {machine['cores']} cores, Python {machine['python']}, {versions}"
    return where + (" (partly quick runs)" if any(one["quick"] for one in saved.values()) else ""), figures


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _text(figures: Sequence[Figure]) -> str:
    lines = []
    for figure in figures:
        verdict = {True: "met", False: "MISSED", None: "-"}[figure.met]
        lines.append(
            f"{figure.number:>2}  {verdict:6}  {_number(figure.measured, figure.unit):>14}  "
            f"{_target(figure):>20}  {figure.what}"
        )
        if figure.detail:
            lines.append(f"{'':48}{figure.detail}")
    return "\n".join(lines)


def _markdown(where: str, figures: Sequence[Figure]) -> str:
    lines = [f"Measured {where}.", "", "| figure | what | measured | target | met |", "|---|---|---:|---:|---|"]
    for figure in figures:
        verdict = {True: "yes", False: "**no**", None: ""}[figure.met]
        measured = _number(figure.measured, figure.unit)
        lines.append(f"| {figure.number} | {figure.what} | {measured} | {_target(figure)} | {verdict} |")
    return "\n".join(lines)


def _target(figure: Figure) -> str:
    return "" if figure.target is None else f"{figure.goal} {_number(figure.target, figure.unit)}"


def _number(value: float, unit: str) -> str:
    digits = 0 if abs(value) >= 100 or value == int(value) else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}{'' if unit == 'x' else ' '}{unit}"


if __name__ == "__main__":
    raise SystemExit(main())
