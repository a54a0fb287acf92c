"""The `debugstore` command: one module a subcommand, imported when it is the one that runs.

Exit codes are made here and nowhere else; a command raises `DebugStoreError`, or `Findings` at its end.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import io
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, NoReturn

import click

from otel_debugstore.errors import DebugStoreError
from otel_debugstore_analysis.cli._errors import EXIT_CODES, Findings, is_interrupt, os_error_line
from otel_debugstore_analysis.cli._options import group_data_dir_option


class _Command(NamedTuple):
    """Where a subcommand is, and what `debugstore --help` says of it without importing it."""

    module: str
    help: str


COMMANDS: Final = {
    "ab": _Command("ab", "Compare implementations that share the calls of a running program, and stop one."),
    "archive": _Command("archive", "Write sessions as Parquet files."),
    "audit": _Command("audit", "Hold components against their limits, for exit code 1 where one is not kept."),
    "benchmark": _Command("benchmark", "Measure two functions against each other: which is faster, how sure is that?"),
    "candidates": _Command("candidates", "Show what to optimise next, and what it would save."),
    "compare": _Command("compare", "Compare two sets of spans: times, with their uncertainty, and structure."),
    "critical-path": _Command("critical_path", "Show which components the time of workflows is answerable to."),
    "demo": _Command("demo", "Record a real program, watch its spans arrive, and show what was slow."),
    "doctor": _Command("doctor", "Verify sessions, show what was dropped and why, and repair."),
    "errors": _Command("errors", "Group what failed, and show what the failures have in common."),
    "explain": _Command("explain", "Show what distinguishes slow or failing calls from the others."),
    "export": _Command("export", "Write sessions as OTLP JSON Lines or Parquet."),
    "import": _Command("import_", "Import OTLP or Jaeger files into a session."),
    "optimize": _Command("optimize", "Have an optimizer change what a queue's item names, and prove or reject it."),
    "patterns": _Command("patterns", "Find N+1, repeated, serial and retried calls, and what they cost."),
    "payload": _Command("payload", "Show the arguments or the result that a digest stands for."),
    "performance": _Command("performance", "Show how often, how long and at what cost, by component, over time."),
    "push": _Command("push", "Load sessions into ClickHouse."),
    "queue": _Command("queue", "Show and change the optimization queue: what is too slow, and what was proven."),
    "regressions": _Command("regressions", "Find since when components are slower or faster."),
    "replay": _Command("replay", "Run recorded calls again with changed code: is it right, and is it faster?"),
    "report": _Command("report", "Report what is slow, since when, why, and what to do, in a number of tokens."),
    "root-cause": _Command("root_cause", "Rank services by how much they are to blame for an incident."),
    "scan": _Command("scan", "Find secrets in what was stored, and mask them."),
    "seal": _Command("seal", "Move what journals hold into segments, and merge these."),
    "serve": _Command("serve", "Receive spans by OTLP/HTTP into a session."),
    "sessions": _Command("sessions", "List sessions."),
    "sql": _Command("sql", "Run a SELECT over sessions."),
    "tail": _Command("tail", "Show the last spans, and those that end from now on."),
    "thresholds": _Command("thresholds", "Propose limits of duration and errors from what was recorded."),
    "top": _Command("top", "Show where the time goes, by component."),
    "trace": _Command("trace", "Show one trace as a tree."),
    "variants": _Command("variants", "Compare the versions of a component's code that ran."),
    "whatif": _Command("whatif", "Show what workflows would save if a component were faster."),
}

_EPILOG: Final = "\b\nExit codes:\n" + "\n".join(f"  {code:>3}  {text}" for code, text in EXIT_CODES.items())


class _OutputClosed(Exception):  # noqa: N818  not an error
    """Whoever read standard output closed it."""


class _Commands(click.Group):
    """A group that imports a subcommand when it is asked for, and turns errors into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"{__name__}.{COMMANDS[cmd_name].module}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _OutputClosed from error  # click would turn it into exit code 1

    def main(  # type: ignore[override]  # one signature for both of click's
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run, and end the process with one of `EXIT_CODES`."""
        extra.pop("standalone_mode", None)
        _prepare_streams()
        with _without_pandas():
            code = self._run(args, prog_name, extra)
        sys.exit(code)

    def _run(self, args: Sequence[str] | None, prog_name: str | None, extra: dict[str, Any]) -> int:
        try:
            code = super().main(args, prog_name or "debugstore", standalone_mode=False, **extra)
            sys.stdout.flush()
        except Findings:
            return 1
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            return 2
        except click.ClickException as error:
            return _fail(_usage_line(error))
        except DebugStoreError as error:
            return _fail(str(error))
        except (_OutputClosed, BrokenPipeError):
            return _output_closed()
        except (KeyboardInterrupt, click.Abort):
            return 130
        except OSError as error:
            return _fail(os_error_line(error))
        except Exception as error:
            if is_interrupt(error):
                return 130
            raise
        return code if isinstance(code, int) else 0


class _NoPandas(importlib.abc.MetaPathFinder):
    """Lets pyarrow find no pandas: it imports it where it is installed, which takes 0.4 s, and needs it for nothing."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("The command line does without pandas.", name=fullname)


@contextlib.contextmanager
def _without_pandas() -> Iterator[None]:
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def _prepare_streams() -> None:
    """Make standard streams usable that are closed, or can't hold every character."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # `>&-`; a file opened next would take its descriptor
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, PTH123  # until the process ends
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _usage_line(error: click.ClickException) -> str:
    """Return what is wrong with the usage as one line that says where help is."""
    message = " ".join(error.format_message().split())
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{message} See `{context.command_path if context else 'debugstore'} --help`."


def _fail(message: str) -> int:
    from otel_debugstore_analysis.text import printable

    click.echo(f"debugstore: {printable(message)}", err=True)
    return 2


def _output_closed() -> int:
    """Return 0: whoever reads our output has enough (`| head`); exiting must not try to write more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


@click.group(cls=_Commands, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(None, "--version", package_name="otel-debugstore", message="otel-debugstore %(version)s")
@group_data_dir_option
def main() -> None:
    """Query what your program did: the spans that otel-debugstore recorded.

    \b
    Record a program without touching it, then look:
      opentelemetry-instrument --traces_exporter debugstore \\
        --metrics_exporter none --logs_exporter none python app.py
      debugstore top
    """
