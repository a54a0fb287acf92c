"""`Analysis`: what spans say, one method a question."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from otel_debugstore.errors import ConfigurationError, QueryError
from otel_debugstore_analysis.analyses.candidates import candidates
from otel_debugstore_analysis.analyses.compare import compare
from otel_debugstore_analysis.analyses.critical_path import critical_path
from otel_debugstore_analysis.analyses.errors import errors
from otel_debugstore_analysis.analyses.explain import explain
from otel_debugstore_analysis.analyses.patterns import patterns
from otel_debugstore_analysis.analyses.performance import performance
from otel_debugstore_analysis.analyses.regressions import regressions
from otel_debugstore_analysis.analyses.root_cause import root_cause
from otel_debugstore_analysis.analyses.thresholds import thresholds
from otel_debugstore_analysis.analyses.variants import variants
from otel_debugstore_analysis.analyses.whatif import whatif
from otel_debugstore_analysis.closing import Closing
from otel_debugstore_analysis.query import DuckDBEngine, Engine, connect
from otel_debugstore_exporters.reader import SessionReader

P = ParamSpec("P")
R = TypeVar("R")


def _asked(question: Callable[Concatenate[Engine, P], R], **least: int) -> Callable[Concatenate[Analysis, P], R]:
    """Return a question to an engine as a method that asks the engine of an `Analysis`.

    Args:
        question: An analysis.
        least: The least that its bounds may be, where that is not what `_LEAST` says.
    """

    @functools.wraps(question)
    def method(self: Analysis, /, *args: P.args, **kwargs: P.kwargs) -> R:
        _check_bounds(kwargs, _LEAST | least)
        return question(self.engine, *args, **kwargs)

    return method


_LEAST: Final = {
    "limit": 0,
    "detailed": 0,
    "intervals": 1,
    **dict.fromkeys(("max_calls", "max_groups", "max_sample", "max_segments", "max_spans", "max_traces"), 1),
}
"""The least that bounds of analyses may be."""


def _check_bounds(arguments: Mapping[str, Any], least: Mapping[str, int]) -> None:
    for name, value in arguments.items():
        if name not in least or (name == "limit" and value is None):
            continue
        if not isinstance(value, Integral) or value < least[name]:
            raise QueryError(f"{name} can't be {value!r}; take a whole number, at least {least[name]}.")


class Analysis(Closing):
    """Asks sessions on this machine, or a ClickHouse database; each method is an analysis of docs/analyses.

    Args:
        engine: An engine, or the URL of one (`clickhouse://user@host:port/database`); by default sessions are read.
        base_path: Where sessions lie, by default "debug_data".
        sessions: Which sessions count, or which one; by default all of them.

    Raises:
        ConfigurationError: An engine and a base path were both given.
        SessionNotFoundError: One of the sessions is not there.
        QueryError: The engine can't be reached.
    """

    def __init__(
        self,
        engine: Engine | str | None = None,
        *,
        base_path: str | os.PathLike[str] | None = None,
        sessions: str | Sequence[str] = (),
    ) -> None:
        if engine is not None and base_path is not None:
            raise ConfigurationError("Spans are read from an engine or from a base path; give one of them.")
        sessions = [sessions] if isinstance(sessions, str) else list(sessions)
        self._opened = contextlib.ExitStack()
        self._engine: Engine | None
        if engine is None:
            path = Path(base_path if base_path is not None else _BASE_PATH)
            self._engine = DuckDBEngine(self._opened.enter_context(SessionReader(path, sessions or None)))
        elif isinstance(engine, str):
            self._engine = self._opened.enter_context(connect(engine, sessions))
        else:
            self._engine = engine

    @property
    def engine(self) -> Engine:
        """What is asked.

        Raises:
            QueryError: It was closed.
        """
        if self._engine is None:
            raise QueryError("The analysis is closed: its sessions are no longer read; make another one.")
        return self._engine

    candidates = _asked(candidates)
    compare = _asked(compare, max_traces=0)
    critical_path = _asked(critical_path)
    errors = _asked(errors)
    explain = _asked(explain)
    patterns = _asked(patterns)
    performance = _asked(performance)
    regressions = _asked(regressions)
    root_cause = _asked(root_cause)
    thresholds = _asked(thresholds)
    variants = _asked(variants)
    whatif = _asked(whatif)

    def close(self) -> None:
        """Let go of the sessions, or of the database; an engine that was given stays open."""
        self._opened.close()
        self._engine = None


_BASE_PATH: Final = "debug_data"
