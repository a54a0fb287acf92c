"""What `keeper` joins: a `Store`, and experiments that exchange with it. Loading protocols costs a start 1 ms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

Plain = Mapping[str, Any]


class Store(Protocol):
    """Keeps a value for each experiment, safe for many processes."""

    def read(self, name: str) -> Plain | None:
        """Return the value of an experiment; None if there is none."""

    def change(self, name: str, function: Callable[[Plain | None], Plain]) -> Plain:
        """Replace the value by what `function` makes of it, in one step, and return that."""


class Exchanging(Protocol):
    """An experiment, as the keeper sees it."""

    name: str

    def exchange(self, store: Store) -> None:
        """Add what was seen to what is kept, and learn the rest."""
