"""`Limits`: what the mark `debugstore` says a test may call, and whether it does.

A number holds for every component, or, of errors, for all of them together; a dictionary has numbers by component,
by its whole name, by what follows one of the dots in it (`http_get` for `shop.http_get`), or by a glob. 0 is a limit.
The mark nearest to the test counts, limit by limit: function, class, module.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Self

from otel_debugstore.errors import ConfigurationError
from otel_debugstore_analysis.pytest_plugin.spans import p95_ms

if TYPE_CHECKING:
    import pytest

    from otel_debugstore_analysis.pytest_plugin.spans import RecordedSpan, RecordedTest

Limit = float | Mapping[str, float] | None
_OF_COMPONENTS: Final = ("max_p95_ms", "max_calls", "max_errors")


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on a test; None is no limit.

    Attributes:
        max_p95_ms: What 95 % of a component's calls may take.
        max_calls: How many calls of a component there may be.
        max_errors: How many calls may fail.
        max_memory_mb: By how much the process may grow while the test runs, in MB (10^6 bytes).
    """

    max_p95_ms: Limit = None
    max_calls: Limit = None
    max_errors: Limit = None
    max_memory_mb: Limit = None

    @classmethod
    def of(cls, marks: Iterable[pytest.Mark]) -> Self:
        """Return what marks say, the nearest first.

        Raises:
            ConfigurationError: One says something that is no limit.
        """
        found: dict[str, Any] = {}
        known = [field.name for field in fields(cls)]
        for mark in marks:
            for name, limit in mark.kwargs.items():
                if name not in known:
                    raise ConfigurationError(f"The mark `debugstore` knows no {name!r}; it has {', '.join(known)}.")
                found.setdefault(name, _checked(name, limit))
            if mark.args:
                raise ConfigurationError(f"The mark `debugstore` takes limits by name: {', '.join(known)}.")
        return cls(**found)

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) is not None for field in fields(self))

    @property
    def is_on_all_calls(self) -> bool:
        """Whether one of the limits is on whatever the test calls."""
        return any(isinstance(getattr(self, name), (int, float)) for name in _OF_COMPONENTS)

    def broken_by(self, test: RecordedTest) -> list[str]:
        """Return what a test has broken, a line each."""
        return list(self._broken_by(test))

    def notes_on(self, test: RecordedTest) -> list[str]:
        """Return what has to be known of limits that were kept: that something could not be held against one."""
        if not self:
            return []
        if not test.is_seen:
            return ["not checked: the test records by another tracer provider, or none"]
        notes = [said for said, _, allowed in self._on_nothing(test) if allowed > 0]
        if self.max_memory_mb is not None and test.memory_peak_bytes is None:
            notes.append("max_memory_mb: the peak is not known, the test was too short or the machine too busy")
        if test.left_out:
            notes.append(f"{test.left_out:,} spans beyond those that are kept were not looked at")
        return notes

    def kept_by_nothing(self, test: RecordedTest) -> dict[str, str]:
        """Return limits of 0 on what was not called, by sentences: these matter if no other test calls it either."""
        return {said: component for said, component, allowed in self._on_nothing(test) if not allowed}

    def _on_nothing(self, test: RecordedTest) -> Iterator[tuple[str, str, float]]:
        """Yield a sentence, the component and the limit where none of that name was called."""
        for name in _OF_COMPONENTS:
            limit = getattr(self, name)
            if test.is_seen and isinstance(limit, Mapping):
                for component, allowed in limit.items():
                    if not test.calls(component):
                        yield f"{name}: no component {component!r} was called", component, allowed

    def _broken_by(self, test: RecordedTest) -> Iterator[str]:
        for component, limit, calls in _by_component(self.max_p95_ms, test):
            found_ms = p95_ms(calls)
            if found_ms is not None and found_ms > limit:
                yield f"{component}: p95 of {len(calls):,} calls is {found_ms:.3g} ms, {limit:g} ms are allowed"
        for component, limit, calls in _by_component(self.max_calls, test):
            if len(calls) > limit:
                yield f"{component}: {len(calls):,} calls, {limit:g} allowed"
        if isinstance(self.max_errors, Mapping):
            for component, limit, calls in _by_component(self.max_errors, test):
                count = sum(call.error is not None for call in calls)
                if count > limit:
                    yield f"{component}: {count:,} failed calls, {limit:g} allowed"
        elif self.max_errors is not None and len(errors := test.errors()) > self.max_errors:
            first = ", ".join(dict.fromkeys(f"{span.component} ({span.error})" for span in errors))
            yield f"calls that failed: {len(errors):,}, {self.max_errors:g} allowed: {first[:200]}"
        peak = test.memory_peak_bytes
        if isinstance(self.max_memory_mb, (int, float)) and peak is not None and peak > self.max_memory_mb * 1e6:
            yield f"memory grew by {peak / 1e6:.1f} MB, {self.max_memory_mb:g} MB are allowed"


def _by_component(limit: Limit, test: RecordedTest) -> Iterator[tuple[str, float, Sequence[RecordedSpan]]]:
    """Yield what is limited, the limit, and its calls: those of each name, or of each component that was called."""
    if isinstance(limit, Mapping):
        for name, allowed in limit.items():
            yield name, allowed, test.calls(name)
    elif limit is not None:
        found: dict[str, list[RecordedSpan]] = {}
        for call in test.spans:
            found.setdefault(call.component, []).append(call)
        for component, calls in found.items():
            yield component, limit, calls


def _checked(name: str, limit: Any) -> Any:
    numbers = list(limit.values()) if isinstance(limit, Mapping) and name != "max_memory_mb" else [limit]
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number < math.inf:
            raise ConfigurationError(f"The mark `debugstore` can't have {name}={limit!r}: take numbers from 0 on.")
    if isinstance(limit, Mapping) and not all(isinstance(component, str) for component in limit):
        raise ConfigurationError(f"The mark `debugstore` can't have {name}={limit!r}: components are named by text.")
    return limit
