"""Recorded calls, run again: the same inputs through recorded and changed code, side by side, in processes of their
own.

Nothing runs that was not declared (`@tool(replayable=True)`, `@tool(pure=True)`) or asked for by name, and nothing of
the program runs in the process that asks. The names are imported when they are first used: the processes that run the
program's code import this package, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_debugstore_analysis.lazy import lazy_names

if TYPE_CHECKING:
    from otel_debugstore_analysis.replay.recorded import Recorded, RecordedCall, recorded_calls
    from otel_debugstore_analysis.replay.replaying import ReplayOptions, replay
    from otel_debugstore_analysis.replay.request import Side
    from otel_debugstore_analysis.replay.result import ClassChange, Replay
    from otel_debugstore_analysis.replay.sampling import Sample, sampled

_MODULES = {
    "ClassChange": "result",
    "Recorded": "recorded",
    "RecordedCall": "recorded",
    "Replay": "result",
    "ReplayOptions": "replaying",
    "Sample": "sampling",
    "Side": "request",
    "recorded_calls": "recorded",
    "replay": "replaying",
    "sampled": "sampling",
}

__all__ = [
    "ClassChange",
    "Recorded",
    "RecordedCall",
    "Replay",
    "ReplayOptions",
    "Sample",
    "Side",
    "recorded_calls",
    "replay",
    "sampled",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
