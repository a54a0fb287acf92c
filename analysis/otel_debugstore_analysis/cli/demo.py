"""`debugstore demo`: a real program, recorded without a line of ours in it, watched while it runs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

import click

from otel_debugstore.environment_variables import OTEL_DEBUGSTORE_PATH, OTEL_DEBUGSTORE_SESSION
from otel_debugstore.errors import ConfigurationError, DebugStoreError
from otel_debugstore_analysis.cli._options import chosen_data_dir, data_dir_option, seal_quietly
from otel_debugstore_analysis.cli._output import show
from otel_debugstore_analysis.text import duration, printable, size
from otel_debugstore_exporters.session import SessionPaths

_SURVEY: Final = "stdlib_survey"
_POLL_SECONDS: Final = 0.2
_LINE_SECONDS: Final = 1.0
_STOP_SECONDS: Final = 5.0
_TRACE_SPANS: Final = 25


@click.command()
@click.argument("packages", nargs=-1, metavar="[PACKAGE]...")
@data_dir_option
def command(packages: tuple[str, ...]) -> None:
    """Record a real program, watch its spans arrive, and show what was slow.

    The program surveys the sources of Python's standard library (all, or the named packages of it) and holds
    no code of ours; it runs under opentelemetry-instrument. Without a data directory a temporary one is made,
    and kept.

    \b
    Examples:
      debugstore demo
      debugstore demo json asyncio
    """
    base_path = chosen_data_dir() or Path(tempfile.mkdtemp(prefix="debugstore-demo-"))
    base_path = base_path.absolute()
    from otel_debugstore.session_id import default_session_id

    paths = SessionPaths(base_path, default_session_id(_SURVEY))
    with tempfile.TemporaryFile() as printed:
        watched = _record(paths, packages, printed)
        printed.seek(0)
        _heading("What the program printed")
        click.echo(printed.read().decode(errors="replace").rstrip())
    _show(paths, watched)


def _record(paths: SessionPaths, packages: tuple[str, ...], printed: IO[bytes]) -> _Watch:
    line = [_instrument(), "--traces_exporter", "debugstore", "--metrics_exporter", "none"]
    line += ["--logs_exporter", "none", sys.executable, str(_survey()), *packages]
    _heading("Recording")
    shown = " ".join(Path(word).name if os.sep in word else word for word in line)
    click.echo(f"$ {shown}")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "_OTEL_"))}
    environment |= {OTEL_DEBUGSTORE_PATH: str(paths.base_path), OTEL_DEBUGSTORE_SESSION: paths.session_id}
    watch = _Watch(paths)
    with _running(line, environment, printed) as program:
        watch.until_ended(program)
    if program.returncode:
        printed.seek(0)
        last = printed.read().decode(errors="replace").strip().splitlines()[-1:]
        raise DebugStoreError(f"The program ended with {program.returncode}: {printable(' '.join(last))}")
    return watch


@contextlib.contextmanager
def _running(line: list[str], environment: dict[str, str], printed: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program, and leave none behind."""
    program = subprocess.Popen(
        line, env=environment, stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT
    )
    try:
        yield program
    finally:
        if program.poll() is None:
            program.terminate()
            try:
                program.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()


@dataclass
class _Watch:
    """Looks at the session from this process while the program records, and says what it sees.

    Attributes:
        ages_ns: How old the newest span was, each time that there were new ones.
    """

    paths: SessionPaths
    ages_ns: list[int] = field(default_factory=list)
    spans: int = 0
    _shown: float = 0.0

    def until_ended(self, program: subprocess.Popen[bytes]) -> None:
        """Watch until the program has ended."""
        from otel_debugstore_exporters.reader import SessionReader

        with contextlib.ExitStack() as stack:
            reader = None
            while program.poll() is None:
                time.sleep(_POLL_SECONDS)
                if reader is None and self.paths.exists():
                    reader = stack.enter_context(
                        SessionReader(self.paths.base_path, [self.paths.session_id], threads=1)
                    )
                if reader is not None:
                    ((count, end),) = reader.query("SELECT count(*), max(start_ns + duration_ns) FROM spans").rows
                    self._saw(count, time.time_ns() - (end or 0))
        if sys.stdout.isatty():
            click.echo()

    def _saw(self, count: int, age_ns: int) -> None:
        if count == self.spans:
            return
        self.spans = count
        self.ages_ns.append(age_ns)
        text = f"this process sees {count:,} spans; the newest ended {duration(age_ns)} ago"
        if sys.stdout.isatty():
            click.echo(f"\r{text:<76}", nl=False)
        elif time.monotonic() >= self._shown + _LINE_SECONDS:
            self._shown = time.monotonic()
            click.echo(text)


def _show(paths: SessionPaths, watched: _Watch) -> None:
    from otel_debugstore_analysis import query
    from otel_debugstore_analysis.cli.sessions import show_sessions
    from otel_debugstore_analysis.cli.trace import show_trace
    from otel_debugstore_exporters.reader import SessionReader

    seal_quietly(paths.base_path, [paths.session_id])
    _heading("debugstore sessions")
    show_sessions(paths.base_path, 5, "table")
    with SessionReader(paths.base_path, [paths.session_id]) as reader:
        engine = query.DuckDBEngine(reader)
        _heading("debugstore top")
        show(query.top(engine, limit=12), "table")
        roots = query.slowest_traces(engine, limit=1).dicts()
        if roots:
            trace_id = roots[0]["trace_id"]
            _heading(f"debugstore trace {trace_id[:8]}        (the slowest)")
            show_trace(query.trace(engine, trace_id, limit=_TRACE_SPANS), "table")
    _heading("Where it lies")
    for path in sorted(paths.base_path.glob(f"{paths.session_id}*")):
        files = [path] if path.is_file() else list(path.iterdir())
        click.echo(f"{path}  {size(sum(file.stat().st_blocks * 512 for file in files))}")
    if watched.ages_ns:
        age = duration(max(watched.ages_ns))
        click.echo(f"\nWhenever spans came in while it ran, the newest had ended at most {age} before.")
    click.echo(f'Look further: debugstore --data-dir {paths.base_path} sql "SELECT * FROM spans LIMIT 5"')


def _heading(text: str) -> None:
    click.secho(f"\n{text}", bold=True)


def _survey() -> Path:
    """Return the program: installed with this package, or in the checkout this package lies in."""
    package = Path(__file__).parents[1]
    for path in (package / "examples" / f"{_SURVEY}.py", package.parents[1] / "examples" / f"{_SURVEY}.py"):
        if path.is_file():
            return path
    raise DebugStoreError(f"The demo's program {_SURVEY}.py is not installed; install otel-debugstore again.")


def _instrument() -> str:
    command = Path(sys.executable).with_name("opentelemetry-instrument")
    if not command.is_file():
        raise ConfigurationError(
            f"Recording without code needs opentelemetry-instrument, which is not beside {sys.executable}: "
            "pip install opentelemetry-instrumentation."
        )
    return str(command)
