"""The overhead ledger: what recording cost, by component, as the program that was recorded measured it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from otel_debugstore_exporters.reader import SessionReader


class LedgerRow(NamedTuple):
    """A component whose recording was measured.

    Attributes:
        component: What was called.
        layer: Its layer.
        call_count: Calls, recorded or not.
        recorded_count: Of these, those that are spans.
        not_recorded_count: Those that were only counted.
        recording_ns: The time that recording took of all calls.
        measured_ns: The time the calls themselves took, recorded or not.
        recording_share: `recording_ns` of `measured_ns`; None where that is 0.
    """

    component: str
    layer: str
    call_count: int
    recorded_count: int
    not_recorded_count: int
    recording_ns: int
    measured_ns: int
    recording_share: float | None


_LEDGER = """
    WITH counted AS (
        SELECT component, coalesce(layer, '') AS layer, sum(recorded_count)::BIGINT AS recorded_count,
               sum(call_count)::BIGINT AS not_recorded_count, sum(recording_ns)::BIGINT AS recording_ns,
               sum(duration_ns)::BIGINT AS not_recorded_ns
        FROM counters GROUP BY ALL
    ), recorded AS (
        SELECT component, coalesce(layer, '') AS layer, sum(greatest(duration_ns, 0))::BIGINT AS recorded_ns
        FROM spans WHERE component IN (SELECT component FROM counted) GROUP BY ALL
    )
    SELECT component, layer, recorded_count + not_recorded_count AS call_count, recorded_count, not_recorded_count,
           recording_ns, not_recorded_ns + coalesce(recorded_ns, 0) AS measured_ns,
           recording_ns / nullif(not_recorded_ns + coalesce(recorded_ns, 0), 0) AS recording_share
    FROM counted LEFT JOIN recorded USING (component, layer) ORDER BY recording_ns DESC, component, layer"""


def ledger(base_path: Path, session_ids: Sequence[str] | None = None) -> list[LedgerRow]:
    """Return what recording cost in the given sessions (default: all), the most first.

    Raises:
        DebugStoreError: A session is not there, or can't be read.
    """
    with SessionReader(base_path, session_ids) as reader:
        return [LedgerRow(*row) for row in reader.query(_LEDGER).rows]
