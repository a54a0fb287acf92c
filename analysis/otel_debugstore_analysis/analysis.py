"""`Analysis`: what spans say, one method a question."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

from otel_debugstore.errors import ConfigurationError
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


def _asked(question: Callable[Concatenate[Engine, P], R]) -> Callable[Concatenate[Analysis, P], R]:
    """Return a question to an engine as a method that asks the engine of an `Analysis`."""

    @functools.wraps(question)
    def method(self: Analysis, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return question(self.engine, *args, **kwargs)

    return method


class Analysis(Closing):
    """Asks sessions on this machine, or a ClickHouse database; each method is an analysis of docs/analyses.

    Args:
        engine: An engine, or the URL of one (`clickhouse://user@host:port/database`); by default sessions are read.
        base_path: Where sessions lie, by default "debug_data".
        sessions: Which sessions count; by default all of them.

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
        sessions: Sequence[str] = (),
    ) -> None:
        if engine is not None and base_path is not None:
            raise ConfigurationError("Spans are read from an engine or from a base path; give one of them.")
        self._opened = contextlib.ExitStack()
        self.engine: Engine
        if engine is None:
            path = Path(base_path if base_path is not None else _BASE_PATH)
            self.engine = DuckDBEngine(self._opened.enter_context(SessionReader(path, list(sessions) or None)))
        elif isinstance(engine, str):
            self.engine = self._opened.enter_context(connect(engine, sessions))
        else:
            self.engine = engine

    candidates = _asked(candidates)
    compare = _asked(compare)
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


_BASE_PATH: Final = "debug_data"
