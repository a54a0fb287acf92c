"""An engine whose answers are of one moment: for a report, whose parts must agree and ask for the same things."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from otel_debugstore_analysis.query._engine import Compiled, Engine

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")


class Snapshot:
    """Another engine as of the first question; what was asked once is not asked again."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[Hashable, Any] = {}
        self._began = False

    @property
    def dialect(self) -> str:
        """The SQL dialect, as sqlglot names it."""
        return self._engine.dialect

    @property
    def has_unique_traces(self) -> bool:
        """Whether each trace is one row of `traces`."""
        return self._engine.has_unique_traces

    def fetch(self, query: Compiled, parameters: Mapping[str, Any], *, further: bool = False) -> list[tuple[Any, ...]]:
        """Return the rows of a query; see `Engine`."""
        rows = self.once(_key("rows", query, parameters), lambda: self._ask(self._engine.fetch, query, parameters))
        return list(rows)

    def fetch_arrow(self, query: Compiled, parameters: Mapping[str, Any], *, further: bool = False) -> pa.Table:
        """Return the rows of a query as an Arrow table; see `Engine`."""
        return self.once(
            _key("arrow", query, parameters), lambda: self._ask(self._engine.fetch_arrow, query, parameters)
        )

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what was made for this key before, or make it."""
        if key not in self._known:
            self._known[key] = make()
        known: T = self._known[key]
        return known

    def _ask(self, fetch: Callable[..., T], query: Compiled, parameters: Mapping[str, Any]) -> T:
        further, self._began = self._began, True
        return fetch(query, parameters, further=further)


def _key(kind: str, query: Compiled, parameters: Mapping[str, Any]) -> Hashable:
    values = tuple((name, tuple(v) if isinstance(v, list) else v) for name, v in sorted(parameters.items()))
    return kind, query.sql, tuple(sorted(query.reads.items())), values
