"""What users write: `@variant("search", "v2")`, and `ab("search", {"v1": f, "v2": g}, ...)`."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, overload

import wrapt

from otel_debugstore.calls.recorded import RecordedFunction
from otel_debugstore.errors import ConfigurationError
from otel_debugstore.experiments.arm import Arm
from otel_debugstore.experiments.experiment import Experiment, KeyOf, Options
from otel_debugstore.experiments.judge import GuardRails
from otel_debugstore.experiments.keeper import KEEPER
from otel_debugstore.layers import Layer
from otel_debugstore.sequential import MIN_EFFECT

F = TypeVar("F", bound=Callable[..., Any])

_ARM_NAME: Final = re.compile(r"[\w.\-]{1,100}")
_NO_RAILS: Final = GuardRails()
_experiments: Final[dict[str, tuple[Experiment, ComparedFunction]]] = {}


class ComparedFunction(RecordedFunction):
    """A function of which each call goes to one of several implementations; for those who look it is the control."""

    def __init__(self, experiment: Experiment) -> None:
        wrapt.FunctionWrapper.__init__(self, experiment.arms[0].function, experiment.call)
        self._self_name = experiment.name

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _found, (self._self_name, self.__module__)


class _Arm(RecordedFunction):
    """An arm by itself, whatever other calls go to; calls of it are recorded, and are no evidence."""

    def __init__(self, arm: Arm) -> None:
        def call(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return arm.run(None, False, instance, args, kwargs)

        wrapt.FunctionWrapper.__init__(self, arm.function, call)


def variant(name: str, arm: str, *, weight: float = 1.0) -> Callable[[F], F]:
    """Return a decorator that makes a function one of the implementations of an experiment.

    The first that is registered for a name is the control, and what the decorator returns for it is the experiment:
    its calls go to all arms. For the others it returns that implementation, recorded.

    Args:
        name: The experiment, and the tool in what is recorded.
        arm: What this implementation is called: letters, digits, `_`, `.` and `-`.
        weight: Its share of the calls, relative to those of the others.

    Raises:
        ConfigurationError: A name or the weight can't be one, or the function can't be compared with the first.
    """
    _check(name, arm, weight)

    def decorate(function: F) -> F:
        known = _experiments.get(name)
        experiment = known[0] if known is not None else Experiment(name)
        made = experiment.add(arm, function, weight)
        if known is None:
            known = _experiments[name] = experiment, ComparedFunction(experiment)
            KEEPER.add(experiment)
        elif not made.number:  # the module was loaded again
            known = _experiments[name] = experiment, ComparedFunction(experiment)
        found: F = known[1] if not made.number else _Arm(made)  # type: ignore[assignment]
        return found

    return decorate


@overload
def ab(
    name: str,
    variants: Mapping[str, F],
    *,
    weights: Mapping[str, float] | None = None,
    key: KeyOf | None = None,
    guard_rails: GuardRails = _NO_RAILS,
    min_effect: float = MIN_EFFECT,
    layer: Layer = "tool",
    capture_args: bool = True,
    capture_result: bool = True,
) -> F: ...


@overload
def ab(
    name: str,
    variants: None = None,
    *,
    weights: Mapping[str, float] | None = None,
    key: KeyOf | None = None,
    guard_rails: GuardRails = _NO_RAILS,
    min_effect: float = MIN_EFFECT,
    layer: Layer = "tool",
    capture_args: bool = True,
    capture_result: bool = True,
) -> Callable[..., Any]: ...


def ab(
    name: str,
    variants: Mapping[str, Any] | None = None,
    *,
    weights: Mapping[str, float] | None = None,
    key: KeyOf | None = None,
    guard_rails: GuardRails = _NO_RAILS,
    min_effect: float = MIN_EFFECT,
    layer: Layer = "tool",
    capture_args: bool = True,
    capture_result: bool = True,
) -> Any:
    """Return one function whose calls go to several implementations, which are recorded and compared.

    Args:
        name: The experiment, and the tool in what is recorded.
        variants: Implementations by name; the first is the control. None takes those that `variant` registered.
        weights: Shares of the calls by arm, relative to each other; by default they are equal.
        key: What calls of the same arm have in common: the name of a parameter, or a function that takes the arguments
            and returns a text, bytes, a whole number, or None for a call that may go anywhere.
        guard_rails: Limits that stop an arm.
        min_effect: The least difference of durations that counts, as a share.
        layer: That of the spans.
        capture_args, capture_result: Whether inputs and outputs are captured, if the settings want any.

    Raises:
        ConfigurationError: There is no implementation, or they can't be compared; a name or an option can't be used.
    """
    known = _experiments.get(name)
    if variants is not None:
        experiment = Experiment(name)
    elif known is not None:
        experiment = known[0]
    else:
        raise ConfigurationError(f"There is no implementation of {name!r} yet: give some, or decorate them by variant.")
    given = {arm.name: arm.weight for arm in experiment.arms} if variants is None else dict.fromkeys(variants, 1.0)
    if unknown := sorted(set(weights or {}) - set(given)):
        raise ConfigurationError(f"{name!r} has no arm {unknown[0]!r} to give a weight to; it has {', '.join(given)}.")
    shares = given | dict(weights or {})
    for arm, weight in shares.items():
        _check(name, arm, weight)
    if not any(shares.values()):
        raise ConfigurationError(f"One of the arms of {name!r} has to have a weight above 0, and there has to be one.")
    functions = {arm.name: arm.function for arm in experiment.arms} if variants is None else variants
    for arm, function in functions.items():
        experiment.add(arm, function, shares[arm])
    experiment.set_up(Options(layer, key, guard_rails, min_effect, capture_args, capture_result))
    if variants is None and known is not None:
        return known[1]
    _experiments[name] = experiment, ComparedFunction(experiment)
    KEEPER.add(experiment)
    return _experiments[name][1]


def _check(name: str, arm: str, weight: float) -> None:
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"{name!r} can't be the name of an experiment: it has to be a text.")
    if not isinstance(arm, str) or not _ARM_NAME.fullmatch(arm):
        raise ConfigurationError(f"{arm!r} can't be the name of an arm; take letters, digits, `_`, `.` and `-`.")
    if not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
        raise ConfigurationError(f"Arm {arm!r} of {name!r} can't have the weight {weight!r}; take a number from 0 on.")


def _found(name: str, module: str) -> Any:
    importlib.import_module(module)
    return _experiments[name][1]
