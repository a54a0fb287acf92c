"""`KEEPER`: where what is known of experiments is kept, so that other processes and the next start know it, too.

This package knows no store. Whoever has one (the exporter) says so by `open`, and calls `exchange` in its own thread,
about once a second: each experiment adds what it has seen since, and learns what others have seen and stopped.
Loss: what was seen since the last exchange is lost if the process is killed. Where nobody has opened a store,
experiments go on by what this process sees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from otel_debugstore.guard import swallow
from otel_debugstore.log import warn_once

if TYPE_CHECKING:
    from otel_debugstore.experiments.keeping import Exchanging, Store


class Keeper:
    """See the module's first lines."""

    def __init__(self) -> None:
        self._make: Callable[[], Store] | None = None
        self._store: Store | None = None
        self._experiments: dict[str, Exchanging] = {}

    @property
    def is_open(self) -> bool:
        """Whether there is a store."""
        return self._make is not None

    def open(self, make: Callable[[], Store]) -> None:
        """Have experiments kept in the store that `make` returns; it is called when it is first needed."""
        self._make, self._store = make, None

    def close(self) -> None:
        """Let every process go by what it sees itself; for tests."""
        self._make = self._store = None
        self._experiments.clear()

    def add(self, experiment: Exchanging) -> None:
        """Exchange an experiment from now on, in place of an earlier one of its name."""
        self._experiments[experiment.name] = experiment

    def store(self) -> Store | None:
        """Return the store."""
        if self._store is None and self._make is not None:
            self._store = self._make()
        return self._store

    def exchange(self) -> None:
        """Exchange all experiments. Never raises."""
        if not self._experiments or self._make is None:
            return
        for experiment in list(self._experiments.values()):
            try:
                if (store := self.store()) is not None:
                    experiment.exchange(store)
            except Exception as error:  # noqa: BLE001  # it runs where spans are written
                swallow(error)
                warn_once(
                    f"ab {experiment.name}",
                    f"What was seen of the experiment {experiment.name!r} can't be kept ({error}); it is tried again.",
                )


KEEPER: Final = Keeper()
