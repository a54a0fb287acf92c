"""What is known of the A/B experiments below a base path, as a table; see `otel_debugstore.experiments`."""

from __future__ import annotations

import os
from typing import Any, Final

from otel_debugstore.errors import ConfigurationError
from otel_debugstore.experiments.judge import Judgement, judge
from otel_debugstore.experiments.record import Record
from otel_debugstore_analysis.query import Table
from otel_debugstore_exporters.experiments import ExperimentStore

COLUMNS: Final = (
    "experiment",
    "arm",
    "share",
    "call_count",
    "error_rate",
    "error_rate_low",
    "error_rate_high",
    "ratio",
    "ratio_low",
    "ratio_high",
    "pair_count",
    "verdict",
    "stopped_by",
    "stopped_time_ns",
    "cause",
    "variant",
    "last_ns",
)


def experiments(base_path: str | os.PathLike[str], name: str | None = None) -> Table:
    """Return a row an arm: what was seen of it, the verdict against the control, and whether it is stopped.

    Args:
        base_path: Where sessions lie.
        name: One experiment; by default all.

    Raises:
        ConfigurationError: There is no experiment of that name.
        CorruptDataError, FormatVersionError, StateError: What is kept can't be read.
    """
    found = ExperimentStore(base_path).experiments()
    if name is not None and name not in found:
        raise ConfigurationError(
            f"No experiment {name!r} is kept below {base_path}; {_known(found)} Calls are kept within about a second."
        )
    chosen = {name: found[name]} if name is not None else found
    rows = [row for one, record in chosen.items() for row in _rows(one, record)]
    notes = [f"{row[0]} {row[1]}: {row[COLUMNS.index('cause')]}" for row in rows if row[COLUMNS.index("cause")]]
    return Table(COLUMNS, rows, 0, tuple(notes) if rows else (f"No experiment is kept below {base_path}.",))


def _rows(name: str, record: Record) -> list[tuple[Any, ...]]:
    total = sum(record.weights.values())
    shares = {arm: weight / total for arm, weight in record.weights.items()}
    stopped = sum(share for arm, share in shares.items() if record.stop_of(arm) is not None)
    shares[record.control] += stopped
    return [_row(name, record, arm, share) for arm, share in shares.items()]


def _row(name: str, record: Record, arm: str, share: float) -> tuple[Any, ...]:
    tally, stop = record.tally(arm), record.stop_of(arm)
    found = _judged(record, arm)
    own = None if arm == record.control else found
    return (
        name,
        arm,
        share if stop is None else 0.0,
        tally.call_count,
        tally.error_count / tally.call_count if tally.call_count else None,
        *(found.control_errors if own is None else found.errors),
        *((own.ratio, own.low, own.high, own.pair_count, own.verdict) if own else (None,) * 4 + ("control",)),
        stop.by if stop else None,
        stop.at_ns if stop else None,
        f"stopped. {stop.cause}" if stop else own.cause if own else None,
        record.codes.get(arm) or None,
        tally.last_ns or None,
    )


def _judged(record: Record, arm: str) -> Judgement:
    arm_count = max(1, len(record.weights) - 1)
    return judge(
        record.tally(record.control), record.tally(arm), record.pairs_of(arm), arm_count, min_effect=record.min_effect
    )


def _known(found: dict[str, Record]) -> str:
    return f"there are {', '.join(sorted(found)[:20])}." if found else "there is none."
