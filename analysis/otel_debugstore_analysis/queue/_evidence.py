"""What proves, or fails to prove, that a candidate is faster and right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from numbers import Real
from typing import Any, Final, NoReturn

from otel_debugstore_analysis.queue._errors import QueueError

FASTER: Final = "faster"
COMPARISON: Final = "comparison"
_MAX_TEXT: Final = 2_000
_MAX_TRACES: Final = 20


@dataclass(frozen=True, slots=True)
class Evidence:
    """The outcome of a benchmark or a replay of a candidate against the code as it is.

    Attributes:
        verdict: "faster", "slower", "equal", "undecided", "wrong" or "failed".
        ratio: Time of the candidate, divided by that of the code as it is: below 1 is faster.
        low: The lower end of the interval of `ratio`.
        high: The upper end.
        pairs: How many pairs of measurements that rests on.
        checked: How many outputs were compared, and found right.
        cause: A sentence that says why.
        kind: What made it: "benchmark", "replay", "ab"; "comparison" where that is not known.
        session: The session that holds the measurements.
        variant: The hash of the code that the candidate was compared with; None where it is not known.
        component: The component that the candidate is for; None where it is not known.
        candidate: What was compared with it.
        candidate_variant: The hash of the candidate's code; None where it is not known.
        trace_ids: Traces that show it, which retention spares.
    """

    verdict: str
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    pairs: int = 0
    checked: int = 0
    cause: str = ""
    kind: str = COMPARISON
    session: str | None = None
    variant: str | None = None
    component: str | None = None
    candidate: str | None = None
    trace_ids: tuple[str, ...] = ()
    candidate_variant: str | None = None

    @classmethod
    def of(cls, source: object) -> Evidence:
        """Return what a comparison, or a mapping of the same names, says; what it does not say is not known.

        Args:
            source: Anything with these fields; `interval`, a pair, may stand for `low` and `high`.

        Raises:
            QueueError: It has no verdict, or a field is not what it has to be.
        """
        found = _Fields(source)
        low, high = found.pair("interval", ("low", "high"))
        return cls(
            verdict=found.text("verdict") or found.missing("verdict"),
            ratio=found.number("ratio"),
            low=low,
            high=high,
            pairs=found.count("pairs"),
            checked=found.count("checked"),
            cause=found.text("cause") or "",
            kind=found.text("kind") or COMPARISON,
            session=found.text("session"),
            variant=found.text("variant") or found.text("baseline_variant"),
            component=found.text("component"),
            candidate=found.text("candidate"),
            trace_ids=found.texts("trace_ids"),
            candidate_variant=found.text("candidate_variant"),
        )

    def refusal(self) -> str | None:
        """Return why this does not prove that the candidate is faster, and right; None if it does."""
        if self.verdict != FASTER:
            return f"the verdict is {self.verdict!r}, not {FASTER!r}" + (f" ({self.cause})" if self.cause else "")
        if self.checked < 1:
            return "no output was compared (checked is 0), so nothing says that the candidate is right"
        if self.ratio is None or self.low is None or self.high is None:
            return "it lacks the ratio of the times, or its interval (ratio, low, high)"
        if not 0 < self.ratio < 1 or not 0 <= self.low <= self.ratio <= self.high < 1:
            return (
                f"the interval of the candidate's time in that of the baseline, {self.low:g} to {self.high:g} around "
                f"{self.ratio:g}, does not lie below 1"
            )
        return None

    def other_component(self, names: Sequence[str], variant: str | None) -> str | None:
        """Return why this is not about a component; None if it is.

        Args:
            names: What the component is called.
            variant: The hash of its code: where both are known it decides, since the same code may have other names.
        """
        if self.variant and variant:
            if self.variant == variant:
                return None
            return f"it compares with variant {self.variant!r}, and the item is about {variant!r}"
        if self.component is None:
            return "it says neither which component nor, where that is known here, which variant it is about"
        return None if self.component in names else f"it is about {self.component!r}, and the item about {names[0]!r}"

    def other_candidate(self, candidate: str, variant: str | None) -> str | None:
        """Return why this is about another candidate than that which was proposed; None where nothing says so."""
        if self.candidate_variant and variant:
            if self.candidate_variant == variant:
                return None
            return f"its candidate is variant {self.candidate_variant!r}, and {variant!r} was proposed"
        if self.candidate is None or _written(self.candidate) == _written(candidate):
            return None
        return f"its candidate is {self.candidate!r}, and {candidate!r} was proposed; propose the one that is proven"

    def to_json(self) -> dict[str, Any]:
        """Return it as what JSON knows."""
        return asdict(self) | {"trace_ids": list(self.trace_ids)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Evidence:
        """Return what `to_json` made the value of; names that are not known are ignored."""
        known = {one.name: value[one.name] for one in fields(cls) if one.name in value}
        return cls(**known | {"trace_ids": tuple(known.get("trace_ids", ()))})


def _written(candidate: str) -> str:
    """Return a candidate as both ways to write one have it: package.module:function, or with dots alone."""
    return candidate[:_MAX_TEXT].strip().replace(":", ".")


class _Fields:
    """The fields of a mapping, or of any object, each as what it has to be."""

    def __init__(self, source: object) -> None:
        self._source = source

    def text(self, name: str) -> str | None:
        value = self._get(name)
        if value is None or isinstance(value, str):
            return value[:_MAX_TEXT] if value else None
        raise self._wrong(name, value, "text")

    def number(self, name: str) -> float | None:
        return self._number(name, self._get(name))

    def count(self, name: str) -> int:
        return int(self.number(name) or 0)

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._get(name)
        if value is None:
            return ()
        if isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(one, str) for one in value):
            return tuple(value[:_MAX_TRACES])
        raise self._wrong(name, value, "a list of texts")

    def pair(self, name: str, instead: tuple[str, str]) -> tuple[float | None, float | None]:
        value = self._get(name)
        if value is None:
            return self.number(instead[0]), self.number(instead[1])
        if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == len(instead):
            return self._number(name, value[0]), self._number(name, value[1])
        raise self._wrong(name, value, "a pair of numbers")

    def missing(self, name: str) -> NoReturn:
        raise QueueError(f"The evidence has no {name!r}; it takes a comparison, or JSON with the fields of one.")

    def _get(self, name: str) -> Any:
        if isinstance(self._source, Mapping):
            return self._source.get(name)
        return getattr(self._source, name, None)

    def _number(self, name: str, value: Any) -> float | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, Real):
            raise self._wrong(name, value, "a number")
        return float(value) if math.isfinite(value) else None

    def _wrong(self, name: str, value: object, expected: str) -> QueueError:
        return QueueError(f"The evidence can't be read: {name!r} is {value!r:.80}, which is not {expected}.")
