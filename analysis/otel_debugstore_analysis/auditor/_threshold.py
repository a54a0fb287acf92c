"""`PerformanceThreshold`: what calls of a component must keep to; `Thresholds`: which component has which."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from typing import Any, Final, Literal, NamedTuple, get_args

from otel_debugstore.errors import ConfigurationError
from otel_debugstore.layers import LAYERS

Auto = Literal["auto"]
Statistic = Literal["p50", "p95", "p99", "max", "mean"]
STATISTICS: Final[tuple[Statistic, ...]] = get_args(Statistic)
AUTO: Final[Auto] = "auto"
ERRORS: Final = "error_rate"
SUCCESSES: Final = "success_rate"
DURATION: Final = "duration_ns"
MEMORY: Final = "memory_peak_bytes"
SUM: Final = "sum."
_PROPOSED: Final = ("max_duration_ms", "max_p95_ms", "max_p99_ms", "max_memory_mb", "max_error_rate")
"""What the history of a component proposes: what its calls hardly ever exceed."""
_MS: Final = 1e6
_MB: Final = 1e6


class Limit(NamedTuple):
    """One thing that is limited.

    Attributes:
        measure: What: `duration_ns`, `cpu_ns`, `cpu_percent`, `memory_peak_bytes`, `calls_per_parent`,
            `sum.ATTRIBUTE`, `error_rate` or `success_rate`.
        statistic: Which figure of all calls; of rates it says nothing.
        value: What it may be at most (of `success_rate`: at least), in the measure's unit; or "auto".
    """

    measure: str
    statistic: Statistic
    value: float | Auto

    @property
    def name(self) -> str:
        """What the figure is called: `p95_ns`, `p95_memory_peak_bytes`, `error_rate`."""
        if self.measure in (ERRORS, SUCCESSES):
            return self.measure
        return f"{self.statistic}_{'ns' if self.measure == DURATION else self.measure}"


def _check(name: str, value: object) -> None:
    if value is None or (value == AUTO and name in _PROPOSED):
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        auto = ', or "auto"' if name in _PROPOSED else "; no history proposes it" if value == AUTO else ""
        raise ConfigurationError(f"{name} can't be {value!r}: it takes a number that is not negative{auto}.")
    if name.endswith("_rate") and value > 1:
        raise ConfigurationError(f"{name} can't be {value!r}: it is a share, from 0 to 1.")


@dataclass(frozen=True)
class PerformanceThreshold:
    """What calls of a component must keep to. None is no limit, 0 is one; "auto" proposes it from earlier sessions.

    Attributes:
        max_duration_ms: Of the 95th percentile of the duration, or of `duration_statistic`.
        max_memory_mb: Of the 95th percentile of the memory peak, in MB of 1,000,000 bytes.
        max_cpu_percent: Of the 95th percentile of CPU time by duration.
        max_error_rate: Which share of the calls may fail.
        min_success_rate: Which share of the calls must not fail.
        duration_statistic: What `max_duration_ms` limits: "p50", "p95", "p99", "max" or "mean".
        max_p50_ms, max_p95_ms, max_p99_ms, max_mean_ms: Further limits of the duration.
        max_cpu_ms: Of the 95th percentile of the CPU time.
        max_calls_per_parent: Of the 95th percentile of the calls that one caller makes, of callers that make any.
        max_sums: By attribute (tokens, bytes), of the 95th percentile of its sum over the component's calls in a trace.

    Raises:
        ConfigurationError: A limit is no number from 0 on, a rate is above 1, or there is no such statistic.
    """

    max_duration_ms: float | Auto | None = None
    max_memory_mb: float | Auto | None = None
    max_cpu_percent: float | None = None
    max_error_rate: float | Auto | None = None
    min_success_rate: float | None = None
    duration_statistic: Statistic = "p95"
    max_p50_ms: float | None = None
    max_p95_ms: float | Auto | None = None
    max_p99_ms: float | Auto | None = None
    max_mean_ms: float | None = None
    max_cpu_ms: float | None = None
    max_calls_per_parent: float | None = None
    max_sums: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.duration_statistic not in STATISTICS:
            raise ConfigurationError(
                f"There is no statistic {self.duration_statistic!r} of durations; take one of {', '.join(STATISTICS)}."
            )
        if not isinstance(self.max_sums, Mapping):
            raise ConfigurationError(f"max_sums is {self.max_sums!r}; it takes limits by attribute.")
        for name, value in (*self._numbers(), *((f"max_sums of {key}", one) for key, one in self.max_sums.items())):
            _check(name, value)

    def limits(self) -> tuple[Limit, ...]:
        """Return what is limited, in the units of what is measured."""
        durations: tuple[tuple[Statistic, float | Auto | None], ...] = (
            (self.duration_statistic, self.max_duration_ms),
            ("p50", self.max_p50_ms),
            ("p95", self.max_p95_ms),
            ("p99", self.max_p99_ms),
            ("mean", self.max_mean_ms),
        )
        found = [
            *((DURATION, statistic, value, _MS) for statistic, value in durations),
            (MEMORY, "p95", self.max_memory_mb, _MB),
            ("cpu_percent", "p95", self.max_cpu_percent, 1),
            ("cpu_ns", "p95", self.max_cpu_ms, _MS),
            ("calls_per_parent", "p95", self.max_calls_per_parent, 1),
            *((SUM + key, "p95", value, 1) for key, value in self.max_sums.items()),
            (ERRORS, "mean", self.max_error_rate, 1),
            (SUCCESSES, "mean", self.min_success_rate, 1),
        ]
        limits: dict[tuple[str, Statistic], Limit] = {}
        for measure, statistic, value, unit in found:
            if value is None:
                continue
            limit = Limit(measure, statistic, AUTO if value == AUTO else value * unit)
            other = limits.get((measure, statistic))
            if other is None or (limit.value != AUTO and (other.value == AUTO or limit.value < other.value)):
                limits[measure, statistic] = limit
        return tuple(limits.values())

    def with_values(self, values: Mapping[str, Any]) -> PerformanceThreshold:
        """Return this with other values; sums are added to those that are there."""
        sums = {
            key: value for key, value in {**self.max_sums, **values.get("max_sums", {})}.items() if value is not None
        }
        return replace(self, **{**values, "max_sums": sums})

    def _numbers(self) -> Iterator[tuple[str, Any]]:
        for one in fields(self):
            if one.name.startswith(("max_", "min_")) and one.name != "max_sums":
                yield one.name, getattr(self, one.name)


DEFAULT_THRESHOLDS: Final[Mapping[str, PerformanceThreshold]] = {
    "function": PerformanceThreshold(max_duration_ms=100.0, max_memory_mb=50.0, min_success_rate=0.99),
    "tool": PerformanceThreshold(max_duration_ms=1_000.0, max_memory_mb=100.0, min_success_rate=0.95),
    "step": PerformanceThreshold(max_duration_ms=5_000.0, max_memory_mb=200.0, min_success_rate=0.95),
    "node": PerformanceThreshold(max_duration_ms=10_000.0, max_memory_mb=500.0, min_success_rate=0.90),
    "workflow": PerformanceThreshold(max_duration_ms=60_000.0, max_memory_mb=1_000.0, min_success_rate=0.85),
}
"""By layer."""

Changes = Mapping[str, Any]
"""Values of a threshold that replace those of the layer."""


@dataclass(frozen=True)
class Thresholds:
    """Which component has which threshold.

    Attributes:
        by_layer: By layer.
        by_component: Globs of names, and what they change of the layer's; the last one that matches counts.
        by_attribute: Attribute, glob of its values, and the threshold of the spans that have such a value.
    """

    by_layer: Mapping[str, PerformanceThreshold] = field(default_factory=lambda: DEFAULT_THRESHOLDS)
    by_component: tuple[tuple[str, Changes], ...] = ()
    by_attribute: tuple[tuple[str, str, PerformanceThreshold], ...] = ()

    @staticmethod
    def of(given: Mapping[str, PerformanceThreshold]) -> Thresholds:
        """Return the defaults with some others in their place: by layer, or by a glob of components.

        Raises:
            ConfigurationError: One of them is no threshold.
        """
        for key, one in given.items():
            if not isinstance(one, PerformanceThreshold):
                raise ConfigurationError(f"The threshold of {key!r} is {one!r}; it takes a PerformanceThreshold.")
        layers: dict[str, PerformanceThreshold] = {key: one for key, one in given.items() if key in LAYERS}
        others = tuple((key, _all_of(one)) for key, one in given.items() if key not in LAYERS)
        return Thresholds({**DEFAULT_THRESHOLDS, **layers}, others)

    def value(self, layer: str, component: str) -> PerformanceThreshold | None:
        """Return the threshold of a component; None if it has none."""
        found = self.by_layer.get(layer)
        for glob, changes in reversed(self.by_component):
            if is_matched(component, glob):
                return (found or PerformanceThreshold()).with_values(changes)
        return found

    def of_attribute(self, attribute: str, value: str) -> PerformanceThreshold | None:
        """Return the threshold of the spans with a value of an attribute; None if they have none."""
        for key, glob, threshold in reversed(self.by_attribute):
            if key == attribute and is_matched(value, glob):
                return threshold
        return None

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes whose values have thresholds."""
        return tuple(dict.fromkeys(key for key, _, _ in self.by_attribute))


def is_matched(name: str, glob: str) -> bool:
    """Return whether a glob stands for a name: every name for itself, whatever characters it has."""
    return name == glob or fnmatchcase(name, glob)


def _all_of(threshold: PerformanceThreshold) -> Changes:
    return {one.name: getattr(threshold, one.name) for one in fields(threshold)}
