"""How a call ended, and whether two outcomes are the same. Runs in the processes that measure: standard library only.

Values are equal where they have equal parts: sequences, mappings, dataclasses and plain objects part by part, arrays
and tables of numpy, pandas and polars as these compare them, NaN equal to NaN, anything else by its own `==`. Without a
tolerance 1, 1.0 and True are three values, as they are for digests. Objects of two versions of one class are held
against each other by their parts.
"""

from __future__ import annotations

import copy
import marshal
import math
import pickle
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Iterator, Mapping, Sequence, Set
from types import FunctionType
from typing import Any, Final

from otel_debugstore_analysis.benchmark.model import Check, Outcome

_MAX_TEXT: Final = 80
_FRAMES: Final = ("pandas", "polars")
_CONTAINERS: Final = frozenset((list, tuple, dict, set, frozenset))
_MARSHAL: Final = 2
"""The last format in which equal values have equal bytes, whoever else refers to them."""
_PLAIN: Final = (str, bytes, bytearray, bool, int, type(None))


class NotComparableError(Exception):
    """A value that nothing can be said of by comparing it; the text says what it is, and what to do."""


def outcome_of(call: Callable[[], Any]) -> Outcome:
    """Call, and return how that ended. What ends a process ends a call here."""
    try:
        return Outcome(call())
    except BaseException as error:  # noqa: BLE001  # sys.exit and the like are outcomes, too
        return Outcome(None, error_name(error), _text(error))


def error_name(error: BaseException) -> str:
    """Return the qualified name of the type of an exception; of a built-in one, its name."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def said(outcome: Outcome) -> str:
    """Return what a call did, to be read after who called."""
    if outcome.error is None:
        return f"returned {short(outcome.value)}"
    if outcome.error == "SystemExit":
        return f"ended the program (SystemExit: {outcome.message or 0})"
    return f"raised {outcome.error}: {outcome.message}" if outcome.message else f"raised {outcome.error}"


def difference(wanted: Outcome, found: Outcome, check: Check) -> str | None:
    """Return what is different between two outcomes, None if nothing is.

    Raises:
        NotComparableError: That can't be told.
    """
    if wanted.error is not None or found.error is not None:
        if wanted.error == found.error:
            return None
        return f"it {said(found)}, where {said(wanted).partition(' ')[0]} {said(wanted).partition(' ')[2]} is right"
    if check.kind == "none":
        return None
    if check.kind == "function":
        assert callable(check.function)
        is_right = check.function(wanted.value, found.value)
        return None if is_right else f"the check says that {short(found.value)} is wrong, for {short(wanted.value)}"
    return values_differ(wanted.value, found.value, check)


def values_differ(wanted: Any, found: Any, check: Check | None = None) -> str | None:
    """Return where two values differ, None if they do not.

    Raises:
        NotComparableError: That can't be told.
    """
    try:
        return _Comparer(check or Check()).differ(wanted, found, "")
    except RecursionError:
        raise NotComparableError("it is nested too deep to be compared: give a check") from None


class _Comparer:
    """Goes through two values, part by part."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._open: set[tuple[int, int]] = set()  # pairs on the way to where we are: a value may hold itself

    def differ(self, wanted: Any, found: Any, place: str) -> str | None:
        _require_value(wanted)
        _require_value(found)
        if wanted is found:
            return None
        pair = id(wanted), id(found)
        if pair in self._open:
            return None
        self._open.add(pair)
        try:
            return self._parts(wanted, found, place)
        finally:
            self._open.discard(pair)

    def _parts(self, wanted: Any, found: Any, place: str) -> str | None:
        if type(wanted).__qualname__ != type(found).__qualname__ and not self._are_alike(wanted, found):
            return _unlike(wanted, found, place)
        if isinstance(wanted, (float, complex)) or isinstance(found, (float, complex)):
            return None if self._same_number(wanted, found) else _unlike(wanted, found, place)
        if isinstance(wanted, _PLAIN):
            return None if wanted == found else _unlike(wanted, found, place)
        if type(wanted) in _CONTAINERS and _are_the_same(wanted, found):
            return None
        if _is_array(wanted) and _is_array(found):
            return self._arrays(wanted, found, place)
        if type(wanted).__module__.partition(".")[0] in _FRAMES and hasattr(wanted, "equals"):
            return None if wanted.equals(found) else _unlike(wanted, found, place)
        if isinstance(wanted, Mapping):
            return self._mappings(wanted, found, place)
        if isinstance(wanted, Set):
            return self._keys(wanted, found, place) if wanted == found else _unlike(wanted, found, place)
        if isinstance(wanted, Sequence) and not isinstance(wanted, range):
            return self._sequences(wanted, found, place)
        return self._objects(wanted, found, place)

    def _are_alike(self, wanted: Any, found: Any) -> bool:
        """Return whether values of two types may be equal all the same: sets, mappings, with a tolerance numbers."""
        kinds: tuple[Any, ...] = (Set, Mapping)
        if self._check.kind == "tolerance":
            kinds = (*kinds, (int, float, complex))
        return any(isinstance(wanted, kind) and isinstance(found, kind) for kind in kinds)

    def _same_number(self, wanted: Any, found: Any) -> bool:
        try:
            if wanted == found or (wanted != wanted and found != found):  # NaN
                return True
            if self._check.kind != "tolerance":
                return False
            if isinstance(wanted, complex) or isinstance(found, complex):
                most = max(abs(wanted), abs(found))
                return bool(abs(wanted - found) <= max(self._check.relative * most, self._check.absolute))
            return math.isclose(wanted, found, rel_tol=self._check.relative, abs_tol=self._check.absolute)
        except (TypeError, OverflowError):
            return False

    def _arrays(self, wanted: Any, found: Any, place: str) -> str | None:
        import numpy as np

        if wanted.shape != found.shape or wanted.dtype != found.dtype:
            kinds = [f"{each.dtype} {each.shape}" for each in (found, wanted)]
            return f"{_at(place)}an array of {kinds[0]} where one of {kinds[1]} is right"
        if wanted.dtype == object:
            return self._sequences(wanted.ravel().tolist(), found.ravel().tolist(), place)
        is_number = wanted.dtype.kind in "fc"
        if is_number and self._check.kind == "tolerance":
            same = np.allclose(found, wanted, self._check.relative, self._check.absolute, equal_nan=True)
        else:
            same = np.array_equal(wanted, found, equal_nan=is_number)
        return None if same else f"{_at(place)}an array of other numbers"

    def _mappings(self, wanted: Any, found: Any, place: str) -> str | None:
        if len(wanted) != len(found) or any(key not in found for key in wanted):
            return _unlike(wanted, found, place)
        if differs := self._keys(wanted, found, place):
            return differs
        for key in wanted:
            differs = self.differ(wanted[key], found[key], f"{place}[{short(key)}]")
            if differs:
                return differs
        return None

    def _keys(self, wanted: Collection[Any], found: Collection[Any], place: str) -> str | None:
        """Return where hashable values that are equal differ all the same, such as 1 and 1.0."""
        same = {key: key for key in found}
        return next(filter(None, (self.differ(key, same[key], place) for key in wanted)), None)

    def _sequences(self, wanted: Any, found: Any, place: str) -> str | None:
        if len(wanted) != len(found):
            return f"{_at(place)}{len(found):,} items where {len(wanted):,} are right"
        for number, (left, right) in enumerate(zip(wanted, found, strict=True)):
            differs = self.differ(left, right, f"{place}[{number}]")
            if differs:
                return differs
        return None

    def _objects(self, wanted: Any, found: Any, place: str) -> str | None:
        if isinstance(wanted, (type, FunctionType)):
            return None if _name(wanted) == _name(found) else _unlike(wanted, found, place)
        if isinstance(wanted, BaseException):
            return self.differ(wanted.args, found.args, f"{place}.args")
        has_equality = getattr(type(wanted), "__eq__", None) is not object.__eq__
        if has_equality and type(wanted) is type(found):
            same = wanted == found
            if same is True:
                return None
            if same is not False:
                raise NotComparableError(
                    f"{short(wanted)} says neither True nor False when it is compared: give a check"
                )
        left, right = _state(wanted), _state(found)
        if left is None or right is None:
            if has_equality:
                return _unlike(wanted, found, place)
            raise NotComparableError(f"a {_name(type(wanted))} has neither an equality nor parts: give a check")
        if has_equality and type(wanted) is type(found) and not _holds_nan(left):
            return _unlike(wanted, found, place)
        return self._mappings(left, right, place)


def copy_of(value: Any) -> Any:
    """Return a copy of which no part is shared.

    Raises:
        Exception: It can't be copied.
    """
    try:
        return pickle.loads(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))
    except Exception:  # noqa: BLE001  # whatever its classes raise
        return copy.deepcopy(value)


def short(value: Any) -> str:
    """Return the beginning of what represents a value."""
    return _text(value, repr)


def _text(value: Any, kind: Callable[[Any], str] = str) -> str:
    try:
        text = " ".join(kind(value).split())
    except BaseException:  # noqa: BLE001  # it is the program's
        return f"(a {_name(type(value))} that can't be shown)"
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 3] + "..."


def _require_value(value: Any) -> None:
    """Refuse what has not been computed yet."""
    if isinstance(value, (Coroutine,)):
        raise NotComparableError("a coroutine, of which nothing has run: benchmark a function that runs it")
    if isinstance(value, (Iterator, AsyncGenerator)):
        raise NotComparableError(
            f"a {_name(type(value))}, whose items are made when it is read: benchmark a function that reads it, "
            f"such as list"
        )


def _are_the_same(wanted: Any, found: Any) -> bool:
    """Return whether values are the same to the last bit, as far as that is found in C: some are large."""
    try:
        return marshal.dumps(wanted, _MARSHAL) == marshal.dumps(found, _MARSHAL)
    except ValueError:  # they hold objects, or are nested deep
        return False


def _is_array(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "numpy" and hasattr(value, "shape") and hasattr(value, "dtype")


def _state(value: Any) -> dict[str, Any] | None:
    """Return the attributes of an object; None if it has none that can be seen."""
    names = [name for kind in type(value).__mro__ for name in _slots(kind)]
    found = {name: getattr(value, name) for name in names if hasattr(value, name)}
    found |= getattr(value, "__dict__", {})
    return found if found or hasattr(value, "__dict__") or names else None


def _slots(kind: type) -> Sequence[str]:
    slots = kind.__dict__.get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    return [name for name in names if name not in ("__dict__", "__weakref__")]


def _holds_nan(state: Mapping[str, Any]) -> bool:
    """Return whether an attribute may be unequal to itself, so that parts have to be looked at one by one."""
    return any(not isinstance(value, _PLAIN) for value in state.values())


def _name(kind: Any) -> str:
    return getattr(kind, "__qualname__", None) or repr(kind)


def _at(place: str) -> str:
    return f"at {place} " if place else ""


def _unlike(wanted: Any, found: Any, place: str) -> str:
    return f"{_at(place)}{short(found)} where {short(wanted)} is right"
