"""`run_command`: runs a command of the user's without a shell, and leaves nothing of it running.

The command gets a session of its own, without the terminal, and a mark in its environment, which the processes that it
starts inherit. A small process watches over it (`keeper`): on Linux it adopts what processes of the command leave
behind, so that nothing gets out of sight. When the command has ended, or its time is up, or this process is stopped
(Ctrl-C, SIGTERM, SIGHUP), all that descends from it or has its mark is ended, too: SIGTERM, and SIGKILL for those that
are still there a moment later. If this process itself is ended by SIGKILL, the keeper ends them. Not found is what
another program was asked to start (systemd, Docker); elsewhere than on Linux, also what left the group and cleared its
environment.

What it writes is read while it runs, so it never waits for us; of each stream the beginning and the end are kept.
Threads: any; the signals are seen in the main thread only, and only where the program has no handler of its own.

The names are imported when they are first used: processes that measure have the keeper, and nothing else of this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_debugstore_analysis.lazy import lazy_names

if TYPE_CHECKING:
    from otel_debugstore_analysis.processes.command import command_of_tests, split_command
    from otel_debugstore_analysis.processes.outcome import Outcome, Output, Status
    from otel_debugstore_analysis.processes.run import MAX_OUTPUT_BYTES, TIMEOUT_S, run_command
    from otel_debugstore_analysis.processes.running import MARK

_MODULES = {
    "MARK": "running",
    "MAX_OUTPUT_BYTES": "run",
    "TIMEOUT_S": "run",
    "Outcome": "outcome",
    "Output": "outcome",
    "Status": "outcome",
    "command_of_tests": "command",
    "run_command": "run",
    "split_command": "command",
}

__all__ = [
    "MARK",
    "MAX_OUTPUT_BYTES",
    "TIMEOUT_S",
    "Outcome",
    "Output",
    "Status",
    "command_of_tests",
    "run_command",
    "split_command",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
