"""`CommandOptimizer`: any command as an optimizer.

It gets the item's package on standard input, and a scratch copy of the project as its working directory. What it
writes on standard output is a unified diff, or Python code with the changed functions; fences of Markdown around it
are taken off. A command that edits the files of its working directory instead proposes what it changed there. It runs
without a shell, with a limit of time, and nothing that it starts outlives it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from otel_debugstore_analysis.optimizer.lines import with_newlines
from otel_debugstore_analysis.optimizer.modules import merged
from otel_debugstore_analysis.optimizer.patch import is_patch, patched
from otel_debugstore_analysis.optimizer.protocol import Candidate, OptimizerError, Task
from otel_debugstore_analysis.processes import Outcome, run_command

TIMEOUT_S: Final = 900.0
_MAX_OUTPUT_BYTES: Final = 8 << 20
_FENCE: Final = re.compile(r"^```(?:python|py|diff|patch)?[ \t]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
_MAX_SAID: Final = 300


class CommandOptimizer:
    """See the module's first lines.

    Args:
        argv: The command.
        timeout_s: How long it may take.
    """

    def __init__(self, argv: Sequence[str], timeout_s: float = TIMEOUT_S) -> None:
        self._argv = list(argv)
        self._timeout_s = timeout_s

    @property
    def name(self) -> str:
        """The name of its program; of a Python script, that of the script."""
        program = Path(self._argv[0]).name
        script = next((word for word in self._argv[1:2] if word.endswith(".py")), None)
        return Path(script).name if script and program.startswith("python") else program

    def propose(self, task: Task) -> Sequence[Candidate]:
        """Return the one change that the command wrote; none if it wrote none.

        Raises:
            OptimizerError: It failed, or what it wrote is no change.
        """
        outcome = run_command(
            self._argv,
            cwd=task.scratch.folder,
            stdin=task.package.encode(errors="replace"),
            timeout_s=self._timeout_s,
            max_output_bytes=_MAX_OUTPUT_BYTES,
        )
        if not outcome.is_ok:
            raise OptimizerError(f"{self.name} could not do its work: {outcome.cause}{_last_line(outcome)}")
        if not outcome.stdout.is_whole:
            raise OptimizerError(f"{self.name} wrote more than {_MAX_OUTPUT_BYTES >> 20} MiB.")
        changed = task.scratch.changes()
        if changed:
            return [Candidate(f"what {self.name} changed in {', '.join(changed)}", changed)]
        files = _files(outcome.stdout.text, task)
        return [Candidate(f"what {self.name} wrote for {', '.join(files)}", files)] if files else []


def _files(written: str, task: Task) -> dict[str, str | None]:
    written = with_newlines(written)
    fenced = _FENCE.search(written)
    text = fenced[1] if fenced else written
    if not text.strip():
        return {}
    if is_patch(text):
        return patched(text, lambda name: _text(task.scratch.folder / name))
    if task.file is None or task.file_name is None:
        raise OptimizerError("The component's file is none of the project's, so only a patch can change it.")
    return {task.file_name: merged(task.file.read_text(encoding="utf-8"), text)}


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _last_line(outcome: Outcome) -> str:
    lines = outcome.stderr.text.strip().splitlines()
    return f" It said: {lines[-1][:_MAX_SAID]}" if lines else ""
