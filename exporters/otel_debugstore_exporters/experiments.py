"""What is known of A/B experiments, kept in the state below a base path; see `otel_debugstore.experiments.keeper`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

from otel_debugstore.errors import ConfigurationError, CorruptDataError, FormatVersionError
from otel_debugstore.experiments.keeping import Plain
from otel_debugstore.experiments.record import BY_HAND, VERSION, Record, Stop
from otel_debugstore_exporters.state import State

_TABLE: Final = "experiments"


class ExperimentStore:
    """The experiments below a base path.

    Every method raises what `State` raises, and `FormatVersionError` where a newer version wrote an experiment.

    Args:
        base_path: Where sessions lie.
    """

    def __init__(self, base_path: str | os.PathLike[str]) -> None:
        self._state = State(base_path)

    def read(self, name: str) -> Plain | None:
        """Return what is kept of an experiment; None if nothing is."""
        found: Plain | None = self._state.get(_TABLE, name)
        return found

    def change(self, name: str, function: Callable[[Plain | None], Plain]) -> Plain:
        """Replace what is kept by what `function` makes of it, in one step, and return that."""
        changed: Plain = self._state.update(_TABLE, name, function)
        return changed

    def experiments(self) -> dict[str, Record]:
        """Return what is kept of all experiments, by name."""
        return {name: _record(name, plain) for name, plain in self._state.items(_TABLE)}

    def stop(self, name: str, arm: str, cause: str = "It was stopped by hand.") -> None:
        """Have an arm get no calls any more, whatever code it runs.

        Raises:
            ConfigurationError: There is no such experiment or arm, or it is the control.
        """

        def change(record: Record) -> None:
            if arm == record.control:
                raise ConfigurationError(f"Arm {arm!r} is the control of {name!r}, to which all other calls go.")
            record.stops[arm] = Stop(BY_HAND, cause, None, time.time_ns())

        self._change_arm(name, arm, change)

    def resume(self, name: str, arm: str) -> None:
        """Let an arm have calls again; what was seen of it before is put aside.

        Raises:
            ConfigurationError: There is no such experiment or arm.
        """
        self._change_arm(name, arm, lambda record: record.restart(arm))

    def _change_arm(self, name: str, arm: str, change: Callable[[Record], None]) -> None:
        def changed(plain: Plain | None) -> Plain:
            record = _record(name, plain)
            if arm not in record.weights:
                known = f"it has {', '.join(record.weights)}" if record.weights else "no process has called it yet"
                raise ConfigurationError(f"There is no arm {arm!r} of an experiment {name!r} here: {known}.")
            change(record)
            return record.to_plain()

        self.change(name, changed)


def _record(name: str, plain: Plain | None) -> Record:
    if plain is not None and plain.get("version", 0) > VERSION:
        raise FormatVersionError(f"Experiment {name!r} was kept by a newer version; install that one to read it.")
    try:
        return Record.of(plain)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptDataError(f"What is kept of the experiment {name!r} can't be read: {error!r}.") from error
