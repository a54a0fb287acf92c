"""Options that many commands share: where the sessions lie, and which of them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from otel_debugstore.errors import DebugStoreError, SessionNotFoundError
from otel_debugstore_analysis.cli._interrupt import interruptible
from otel_debugstore_analysis.cli._output import remark

if TYPE_CHECKING:
    from otel_debugstore_analysis.query import Engine
    from otel_debugstore_exporters.reader import SessionReader
    from otel_debugstore_exporters.session import SessionPaths

DEFAULT_DATA_DIR: Final = "debug_data"
RECORDING: Final = (
    "opentelemetry-instrument --traces_exporter debugstore --metrics_exporter none --logs_exporter none python app.py"
)
"""How a program is recorded; `opentelemetry-instrument` looks for an OTLP exporter of what is not set to none."""
_META: Final = "otel_debugstore.data_dir"
_SEAL_AT_MOST: Final = 200_000
"""Spans a command that only reads will seal first; more would keep its reader waiting."""

F = TypeVar("F", bound=Callable[..., Any])


def _remember_data_dir(ctx: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:
        ctx.meta[_META] = value


def _data_dir_option(variable: str | None) -> Callable[[F], F]:
    return click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        envvar=variable,
        expose_value=False,
        callback=_remember_data_dir,
        help=f"Where the sessions lie; by default OTEL_DEBUGSTORE_PATH, else {DEFAULT_DATA_DIR}.",
    )


group_data_dir_option = _data_dir_option("OTEL_DEBUGSTORE_PATH")
"""`--data-dir` before the command, and the variable."""
data_dir_option = _data_dir_option(None)
"""`--data-dir` after the command, where it comes before all others."""


OF_BENCHMARKS: Final = "debugstore-benchmark"
"""What the sessions begin with that `benchmark` makes: who goes on with what was recorded does not mean those."""


def base_path() -> Path:
    """Return the base path that the options of the running command name."""
    return chosen_data_dir() or Path(DEFAULT_DATA_DIR)


def chosen_data_dir() -> Path | None:
    """Return the base path if it was named, by an option or by the environment."""
    path: Path | None = click.get_current_context().meta.get(_META)
    return path.expanduser() if path is not None else None


@dataclass(frozen=True, slots=True)
class Scope:
    """The sessions a command is about.

    Attributes:
        base_path: Where they lie.
        given: Those that were named; empty if none was.
        all_sessions: Whether all are meant.
        seal: Whether to seal what is left in journals before reading.
        engine_url: The ClickHouse database to ask instead of the sessions on this machine.
    """

    base_path: Path
    given: tuple[str, ...]
    all_sessions: bool
    seal: bool = True
    engine_url: str | None = None

    def session_ids(self) -> list[str]:
        """Return the sessions meant, which exist: those named, all, or the newest that is none of `benchmark`'s.

        Raises:
            SessionNotFoundError: One is not there, or there is none at all.
            InvalidSessionIdError: One can't be an id.
        """
        from otel_debugstore_exporters.session import SessionPaths, list_sessions

        if self.given:
            return [SessionPaths(self.base_path, s).require().session_id for s in dict.fromkeys(self.given)]
        found = list_sessions(self.base_path)
        if not found:
            raise SessionNotFoundError(
                f"No session lies below {self.base_path}; record one "
                f"({RECORDING}), import one (debugstore import FILE), or name another directory (--data-dir)."
            )
        if self.all_sessions:
            return found
        return ([each for each in found if not each.startswith(OF_BENCHMARKS)] or found)[-1:]

    def named(self) -> Scope:
        """Return the same with the newest session by its name, where that is meant: later it may be another one."""
        if self.given or self.all_sessions or self.engine_url is not None:
            return self
        return dataclasses.replace(self, given=tuple(self.session_ids()))

    def options(self) -> tuple[str, ...]:
        """Return the options that mean the same sessions, or the same database, in another command; no password."""
        from otel_debugstore_analysis.report import commands

        if self.engine_url is not None:
            from otel_debugstore_analysis.query._connect import without_password

            return "--engine", without_password(self.engine_url), *commands.named(self.given)
        where = commands.of_sessions(self.base_path, self.given)
        return (*where, "--all-sessions") if self.all_sessions else where

    @contextlib.contextmanager
    def reader(self, **limits: Any) -> Iterator[SessionReader]:
        """Open a reader of the sessions, after sealing what is quickly sealed."""
        from otel_debugstore_exporters.reader import SessionReader

        session_ids = self.session_ids()
        if self.seal:
            seal_quietly(self.base_path, session_ids)
        on_unreadable = _leave_out(len(session_ids)) if self.all_sessions else None
        with (
            SessionReader(self.base_path, session_ids, on_unreadable=on_unreadable, **limits) as reader,
            interruptible(reader.bare_connection),
        ):
            yield reader

    @contextlib.contextmanager
    def engine(self) -> Iterator[Engine]:
        """Open a reader of the sessions for queries, or a connection to the database that `--engine` names."""
        from otel_debugstore_analysis import query
        from otel_debugstore_analysis.query import _kept

        if self.seal:
            _kept.keep_in(_kept.user_directory())
        if self.engine_url is not None:
            with query.connect(self.engine_url, self.given) as engine:
                yield engine
            return
        with self.reader() as reader:
            yield query.DuckDBEngine(reader)


def _leave_out(session_count: int) -> Callable[[str, Exception], None]:
    """Return what says that a session is left out, as long as there are others."""
    left_out = []

    def say(session_id: str, error: Exception) -> None:
        left_out.append(session_id)
        if len(left_out) == session_count:
            raise error
        remark(f"Session {session_id} is left out: {error}")

    return say


def seal_quietly(base_path: Path, session_ids: Sequence[str]) -> None:
    """Seal what is quickly sealed; reading works as well without it, so no failure of it matters."""
    import duckdb

    from otel_debugstore_exporters.seal import seal_if_idle
    from otel_debugstore_exporters.session import SessionPaths

    for session_id in session_ids:
        with contextlib.suppress(DebugStoreError, OSError, duckdb.Error):
            paths = SessionPaths(base_path, session_id)
            if _is_unsealed(paths):
                seal_if_idle(paths, max_spans=_SEAL_AT_MOST)


def _is_unsealed(paths: SessionPaths) -> bool:
    from otel_debugstore_exporters.reader import open_to_read

    if len(paths.segments()) > 1:
        return True
    if not (paths.journal / "data.mdb").exists():
        return False
    with open_to_read(paths.journal) as journal:
        return journal.stats().blob_count > 0


_session_option: Final = click.option(
    "--session",
    "-s",
    "session",
    multiple=True,
    metavar="ID",
    help="A session; may be repeated. The newest by default.",
)
_all_option: Final = click.option("--all-sessions", is_flag=True, help="All sessions.")
_no_seal_option: Final = click.option("--no-seal", is_flag=True, help="Write nothing: leave what is in journals there.")


_engine_option: Final = click.option(
    "--engine",
    metavar="URL",
    help="Ask a ClickHouse database, such as clickhouse://user@host:port/database, for all its spans or for those "
    "of --session.",
)


def grouping_options(orders: Sequence[str]) -> Callable[[F], F]:
    """Return `--by`, and `--order` with these choices."""
    by = click.option(
        "--by",
        multiple=True,
        metavar="FIELD",
        help="Group by a column (component, name, layer, variant, session, service, ...) or the key of an attribute; "
        "may be repeated. By default: component.",
    )
    order = click.option(
        "--order", type=click.Choice(orders), default="total", show_default=True, help="Sort by, descending."
    )
    return lambda function: by(order(function))


def scope_options(function: F) -> F:
    """Give a command the options that say which sessions; it gets them as one argument `scope`."""
    return _with_scope(function, seals=False)


def reading_options(function: F) -> F:
    """Give a command `scope_options`, and `--no-seal`."""
    return _with_scope(function, seals=True)


def engine_options(function: F) -> F:
    """Give a command that asks by `scope.engine` `reading_options`, and `--engine`."""
    return _engine_option(_with_scope(function, seals=True))


def _with_scope(function: F, *, seals: bool) -> F:
    @functools.wraps(function)
    def wrapper(
        session: tuple[str, ...], all_sessions: bool, no_seal: bool = False, engine: str | None = None, **rest: Any
    ) -> Any:
        if session and all_sessions:
            raise click.UsageError("--session and --all-sessions exclude each other.")
        return function(scope=Scope(base_path(), session, all_sessions, not no_seal, engine), **rest)

    decorated: Any = data_dir_option(_session_option(_all_option(wrapper)))
    return _no_seal_option(decorated) if seals else decorated  # type: ignore[no-any-return]
