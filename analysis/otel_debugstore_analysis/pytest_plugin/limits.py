"""`Limits`: what the mark `debugstore` says a test may call, and whether it does.

A number holds for every component, or, of errors, for all of them together; a dictionary has numbers by component,
which may be named by globs. 0 is a limit. The mark nearest to the test counts, limit by limit: function, class, module.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Self

from otel_debugstore.errors import ConfigurationError

if TYPE_CHECKING:
    import pytest

    from otel_debugstore_analysis.pytest_plugin.spans import RecordedTest

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

    def broken_by(self, test: RecordedTest) -> list[str]:
        """Return what a test has broken, a line each; nothing of one of which nothing was seen."""
        return list(self._broken_by(test)) if test.is_seen else []

    def notes_on(self, test: RecordedTest) -> list[str]:
        """Return what has to be known of limits that were kept: that something could not be held against one."""
        if not self:
            return []
        if not test.is_seen:
            return ["not checked: the test records by another tracer provider, or none"]
        named = {name: limit for name in _OF_COMPONENTS if isinstance(limit := getattr(self, name), Mapping)}
        notes = [
            f"{name}: no component {component!r} was called"
            for name, limit in named.items()
            for component, allowed in limit.items()
            if allowed > 0 and not test.calls(component)
        ]
        if self.max_memory_mb is not None and test.memory_peak_bytes is None:
            notes.append("max_memory_mb: the peak is not known, the test was too short")
        if test.left_out:
            notes.append(f"{test.left_out:,} spans beyond those that are kept were not looked at")
        return notes

    def _broken_by(self, test: RecordedTest) -> Iterator[str]:
        for component, limit in _by_component(self.max_p95_ms, test):
            p95_ms = test.p95_ms(component)
            if p95_ms is not None and p95_ms > limit:
                count = len(test.calls(component))
                yield f"{component}: p95 of {count:,} calls is {p95_ms:.3g} ms, {limit:g} ms are allowed"
        yield from _counts(self.max_calls, test, lambda one: len(test.calls(one)), "calls")
        if isinstance(self.max_errors, Mapping):
            yield from _counts(self.max_errors, test, lambda one: len(test.errors(one)), "failed calls")
        elif self.max_errors is not None and len(errors := test.errors()) > self.max_errors:
            first = ", ".join(dict.fromkeys(f"{span.component} ({span.error})" for span in errors))
            yield f"calls that failed: {len(errors):,}, {self.max_errors:g} allowed: {first[:200]}"
        peak = test.memory_peak_bytes
        if isinstance(self.max_memory_mb, (int, float)) and peak is not None and peak > self.max_memory_mb * 1e6:
            yield f"memory grew by {peak / 1e6:.1f} MB, {self.max_memory_mb:g} MB are allowed"


def _by_component(limit: Limit, test: RecordedTest) -> list[tuple[str, float]]:
    if limit is None:
        return []
    return list(limit.items()) if isinstance(limit, Mapping) else [(_exactly(one), limit) for one in test.components]


def _counts(limit: Limit, test: RecordedTest, count: Callable[[str], int], what: str) -> Iterator[str]:
    for component, allowed in _by_component(limit, test):
        if (found := count(component)) > allowed:
            yield f"{component}: {found:,} {what}, {allowed:g} allowed"


def _exactly(component: str) -> str:
    """Return the glob that names this component only, which may hold what is special to globs."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in component)


def _checked(name: str, limit: Any) -> Any:
    numbers = list(limit.values()) if isinstance(limit, Mapping) and name != "max_memory_mb" else [limit]
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number < math.inf:
            raise ConfigurationError(f"The mark `debugstore` can't have {name}={limit!r}: take numbers from 0 on.")
    if isinstance(limit, Mapping) and not all(isinstance(component, str) for component in limit):
        raise ConfigurationError(f"The mark `debugstore` can't have {name}={limit!r}: components are named by text.")
    return limit
