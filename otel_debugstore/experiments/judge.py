"""What is known of an arm by now: whether it has to be stopped, and whether it is faster or slower than the control.

Everything here may be asked after every call: the intervals hold at all looks together (`rates`, `sequential`). Of
experiments with arms that are as good as their control, at most one in twenty ever stops one of them or gives a wrong
verdict; the share is divided among arms and guard rails.

A guard rail stops an arm where two things are known: that the arm is beyond the limit, and that it is worse than the
control is. One slow call shows neither, and a database that is down makes both arms fail.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, NamedTuple, Self

from otel_debugstore.errors import ConfigurationError
from otel_debugstore.experiments.evidence import Pairs, Tally
from otel_debugstore.experiments.rates import Interval, interval, is_above
from otel_debugstore.sequential import MIN_EFFECT

ALPHA: Final = 0.05
SLOW_SHARE: Final = 0.05
"""The share of calls that may be slower than the 95th percentile may be."""


@dataclass(frozen=True, slots=True)
class GuardRails:
    """Limits that stop an arm once it is known to be beyond one of them. None is no limit, 0 is one.

    Attributes:
        max_p95_ms: What 95 % of its calls may take.
        max_error_rate: The share of its calls that may fail.
        max_ratio: What a call may take, relative to the control's: 1.5 is half as much again.

    Raises:
        ConfigurationError: A limit can't be one.
    """

    max_p95_ms: float | None = None
    max_error_rate: float | None = None
    max_ratio: float | None = None

    def __post_init__(self) -> None:
        for name, limit in self.limits().items():
            if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 <= limit < math.inf:
                raise ConfigurationError(f"A guard rail {name} of {limit!r} can't be kept; take a number from 0 on.")
        if self.max_ratio == 0 or (self.max_error_rate or 0) > 1:
            raise ConfigurationError("max_ratio has to be above 0, and max_error_rate is a share, such as 0.05.")

    def limits(self) -> dict[str, float]:
        """Return those that are set."""
        return {name: limit for name, limit in asdict(self).items() if limit is not None}

    @classmethod
    def of(cls, plain: Mapping[str, Any] | None) -> Self:
        """Return what `limits` did; what this version does not know is left out."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: float(limit) for name, limit in (plain or {}).items() if name in known})


class Breach(NamedTuple):
    """Why an arm has to be stopped: the guard rail, and in a sentence what is known."""

    by: str
    cause: str


class Judgement(NamedTuple):
    """What is known of an arm against its control.

    Attributes:
        verdict: "faster", "slower", "equal", "undecided", or "failed": it fails more often.
        ratio, low, high: Of a call's duration to the control's, with the interval; None where nothing is known.
        pair_count: On how many pairs of calls that rests.
        errors, control_errors: The rates at which they fail, as intervals.
        cause: One sentence.
    """

    verdict: str
    ratio: float | None
    low: float | None
    high: float | None
    pair_count: int
    errors: Interval
    control_errors: Interval
    cause: str


def breach(rails: GuardRails, control: Tally, arm: Tally, arm_count: int, alpha: float = ALPHA) -> Breach | None:
    """Return why an arm has to be stopped for its errors or slow calls, None if it need not be.

    Args:
        rails: The limits.
        control, arm: What was seen of their calls.
        arm_count: How many arms there are beside the control.
        alpha: The share of experiments in which one that is not beyond a limit may be stopped.
    """
    alpha = _of_each(alpha, rails, arm_count)
    if rails.max_error_rate is not None and _is_worse(
        (arm.failed_count, arm.unit_count), (control.failed_count, control.unit_count), rails.max_error_rate, alpha
    ):
        counts = arm.failed_count, control.failed_count
        return Breach("max_error_rate", _said("fails in", counts, arm, control, rails.max_error_rate))
    if rails.max_p95_ms is not None and _is_worse(
        (arm.slow_count, arm.unit_count), (control.slow_count, control.unit_count), SLOW_SHARE, alpha
    ):
        counts = arm.slow_count, control.slow_count
        what = f"takes more than {rails.max_p95_ms:g} ms in"
        return Breach("max_p95_ms", _said(what, counts, arm, control, SLOW_SHARE))
    return None


def breach_of_ratio(rails: GuardRails, pairs: Pairs, arm_count: int, alpha: float = ALPHA) -> Breach | None:
    """Return why an arm has to be stopped for its times beside the control's, None if it need not be.

    Args:
        rails, arm_count, alpha: As of `breach`.
        pairs: What was seen of both side by side.
    """
    if rails.max_ratio is None:
        return None
    sequence = pairs.sequence(_of_each(alpha, rails, arm_count))
    limit = math.log(rails.max_ratio)
    if not sequence.excludes(limit) or (ratio := sequence.estimate) <= limit:
        return None
    return Breach(
        "max_ratio",
        f"It takes {math.exp(ratio):.2f} times as long as the control, by {pairs.count:,} pairs of calls; "
        f"{rails.max_ratio:g} is allowed.",
    )


def judge(
    control: Tally, arm: Tally, pairs: Pairs, arm_count: int, min_effect: float = MIN_EFFECT, alpha: float = ALPHA
) -> Judgement:
    """Return what is known of an arm.

    Args:
        control, arm: What was seen of their calls.
        pairs: What was seen of both side by side.
        arm_count: How many arms there are beside the control.
        min_effect: The least difference of durations that counts, as a share.
        alpha: The share of experiments in which two equal arms may ever be called different.
    """
    alpha /= 2 * max(1, arm_count)  # of durations, and of errors
    errors, control_errors = (interval(tally.failed_count, tally.unit_count, alpha / 2) for tally in (arm, control))
    sequence = pairs.sequence(alpha)
    verdict: str = sequence.verdict(min_effect)
    ratio = low = high = None
    if sequence.count:
        ratio = math.exp(sequence.estimate)
        low, high = (math.exp(min(edge, 700.0)) for edge in sequence.interval())
        if not low and high > 1e300:
            low = high = None
    cause = _cause(verdict, ratio, low, high, pairs.count, min_effect)
    if errors.low > control_errors.high:
        verdict = "failed"
        cause = f"It fails in {_rate(errors)} of its calls, the control in {_rate(control_errors)}."
    return Judgement(verdict, ratio, low, high, pairs.count, errors, control_errors, cause)


def _of_each(alpha: float, rails: GuardRails, arm_count: int) -> float:
    """Return what of the error that may be made is left for one guard rail of one arm."""
    return alpha / max(1, arm_count * len(rails.limits()))


def _is_worse(arm: tuple[int, int], control: tuple[int, int], limit: float, alpha: float) -> bool:
    """Return whether a rate (so many of so many) is known to be above a limit, and above the control's."""
    if not is_above(*arm, limit, alpha / 2):
        return False
    return is_above(*arm, interval(*control, alpha / 4).high, alpha / 4)


def _said(what: str, counts: tuple[int, int], arm: Tally, control: Tally, limit: float) -> str:
    return (
        f"It {what} {counts[0]:,} of {arm.unit_count:,} calls, the control in {counts[1]:,} of "
        f"{control.unit_count:,}; {100 * limit:g} % are allowed."
    )


def _cause(
    verdict: str, ratio: float | None, low: float | None, high: float | None, count: int, min_effect: float
) -> str:
    if ratio is None or low is None or high is None:
        return f"Too few pairs of calls ({count:,}) to say anything."
    interval_text = f"{low:.3f} to {high:.3f} times the control's duration, by {count:,} pairs of calls"
    if verdict == "undecided":
        return f"It takes {interval_text}: that says not yet whether it differs by {100 * min_effect:g} %."
    return f"It takes {interval_text}."


def _rate(rate: Interval) -> str:
    return f"{100 * rate.low:.2g} to {100 * rate.high:.2g} %"
