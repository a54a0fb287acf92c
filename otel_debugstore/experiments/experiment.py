"""`Experiment`: sends each call to an arm, and goes on from what all processes know of the arms.

Nothing of it reaches the program: whatever goes wrong here, the call goes to the control. What an implementation raises
is the program's, of whichever arm.
Threads: any, and signal handlers. Fork: a child goes on with what its parent had learnt, and without what it had seen
since the last exchange.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import partial
from time import time_ns
from typing import Any, Final, NamedTuple

from otel_debugstore.clock import Clock
from otel_debugstore.errors import ConfigurationError
from otel_debugstore.experiments.arm import Arm, Slot
from otel_debugstore.experiments.assignment import Key
from otel_debugstore.experiments.draws import Draws
from otel_debugstore.experiments.judge import Breach, GuardRails
from otel_debugstore.experiments.keeper import KEEPER
from otel_debugstore.experiments.keeping import Plain, Store
from otel_debugstore.experiments.record import Record, Stop, arm_key, pair_key
from otel_debugstore.experiments.seen import News, Seen
from otel_debugstore.fork import reset_after_fork
from otel_debugstore.guard import swallow
from otel_debugstore.layers import Layer
from otel_debugstore.log import warn_once
from otel_debugstore.sequential import MIN_EFFECT

KeyOf = str | Callable[..., Key | None]
"""The name of a parameter, or what returns the key of a call from its arguments."""

_RETRY_SECONDS: Final = 5.0


class Options(NamedTuple):
    """How an experiment is made; see `ab`."""

    layer: Layer = "tool"
    key: KeyOf | None = None
    guard_rails: GuardRails = GuardRails()
    min_effect: float = MIN_EFFECT
    capture_args: bool = True
    capture_result: bool = True


class Experiment:
    """Arms, and what is known of them. The first arm is the control."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.arms: list[Arm] = []
        self._options = Options()
        self._key: KeyOf | None = None
        self._place = -1  # of the parameter that is the key
        self._draws = Draws(name)
        self._seen = Seen(self._stop)
        self._kept = Record()
        self._has_learnt = False
        self._learn_at = 0.0
        self._new_stops: dict[str, Stop] = {}  # that nobody else knows of yet
        reset_after_fork(self)

    def after_fork_in_child(self) -> None:
        """Go on with what the parent had learnt."""
        self._draws.after_fork_in_child()
        self._seen.after_fork_in_child()

    def set_up(self, options: Options) -> None:
        """Go on with other options.

        Raises:
            ConfigurationError: One can't be used.
        """
        if not 0 <= options.min_effect < 1:
            raise ConfigurationError(f"min_effect can't be {options.min_effect}; take a share such as 0.03.")
        self._options = options
        self._key = options.key
        self._seen.limit(options.guard_rails)
        for arm in self.arms:
            self._record(arm)
        self._find_key()

    def add(self, name: str, function: Any, weight: float) -> Arm:
        """Add an arm, or replace the one of that name; the first is the control.

        Raises:
            ConfigurationError: It can't be compared with the others.
        """
        found = next((arm for arm in self.arms if arm.name == name), None)
        arm = Arm(name, len(self.arms) if found is None else found.number, weight, function)
        if arm.number and arm.is_async != self.arms[0].is_async:
            raise ConfigurationError(
                f"{function!r} can't be compared with {self.arms[0].function!r}: one is a coroutine function."
            )
        self._record(arm)
        self.arms = [*self.arms[: arm.number], arm, *self.arms[arm.number + 1 :]]
        self._find_key()
        self._seen.begin([arm.open_calls for arm in self.arms])
        self._draws.weigh([arm.weight for arm in self.arms])
        return arm

    def call(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call one of the arms: what wrapt calls in place of the function."""
        arm, slot, counts = self.arms[0], None, False
        try:
            if self._has_learnt or not KEEPER.is_open or self._learn_first():
                if self._key is None:
                    (number, slot), counts = self._draws.by_chance(), True
                else:
                    number, slot, counts = self._by_key(instance, args, kwargs)
                if (drawn := self.arms[number]).stopped_by is None:
                    arm = drawn
                else:
                    slot = None
        except Exception as error:  # noqa: BLE001  # a key of the program's own making among others
            swallow(error)
            self._say("call", f"An arm can't be chosen ({type(error).__name__}: {error}); the control is called.")
        return arm.run(slot, counts, instance, args, kwargs)

    def exchange(self, store: Store) -> None:
        """Add what was seen to what is kept, and learn the rest.

        Raises:
            Exception: The store can't be changed; what was seen is kept for the next time.
        """
        self._exchange(store)
        if self._new_stops:  # what was learnt says that an arm has to be stopped
            self._exchange(store)

    # A call.

    def _by_key(self, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, Slot | None, bool]:
        key = self._key_of(instance, args, kwargs)
        if key is None:
            return *self._draws.by_chance(), True
        number, slot = self._draws.by_key(key)
        return number, slot, self._draws.counts(key)

    def _key_of(self, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Key | None:
        if instance is not None:
            args = (instance, *args)
        key = self._key
        if not isinstance(key, str):
            return key(*args, **kwargs) if key is not None else None
        if 0 <= self._place < len(args):
            return args[self._place]  # type: ignore[no-any-return]
        return kwargs.get(key)

    def _stop(self, number: int, found: Breach) -> None:
        arm = self.arms[number]
        if arm.stopped_by is None:
            arm.stopped_by = found.by
            self._new_stops[arm.name] = Stop(found.by, found.cause, arm.code(), time_ns())

    # What is kept.

    def _exchange(self, store: Store) -> None:
        self._seen.is_judging_pairs = False  # this is no thread of the program: they are judged here
        stops = dict(self._new_stops)
        news = self._seen.take()
        if news is None and not stops:
            return
        keys = self._draws.take_keys()
        try:
            kept = Record.of(store.change(self.name, partial(self._changed, news, keys, stops)))
        except BaseException:
            if news is not None:
                self._seen.put_back(news)
            self._draws.put_back_keys(keys)
            raise
        for name, stop in stops.items():
            if self._new_stops.get(name) is stop:
                del self._new_stops[name]
            self._say(f"stop {name}", f"Arm {name!r} is stopped. {stop.cause}")
        self._learn(kept)

    def _learn_first(self) -> bool:
        """Return whether it is known by now which arms are stopped; if it can't be read, that is tried again."""
        now = Clock.monotonic()
        if now < self._learn_at:
            return False
        self._learn_at = now + _RETRY_SECONDS
        store = KEEPER.store()
        return store is not None and self._learn(Record.of(store.read(self.name)))

    def _learn(self, kept: Record) -> bool:
        """Go on from what is kept; return whether that was possible now."""
        kept.control, kept.codes = self.arms[0].name, {arm.name: arm.code() for arm in self.arms}
        before = News([kept.tally(arm.name) for arm in self.arms], [kept.pairs_of(arm.name) for arm in self.arms])
        anew = [arm for arm in self.arms if self._is_anew(arm, kept)]
        for arm in anew:
            self._new_stops.pop(arm.name, None)
        for arm in self.arms[1:]:
            stop = self._new_stops.get(arm.name) or kept.stop_of(arm.name)
            arm.stopped_by = stop.by if stop is not None else None
        self._draws.learn_keys(kept.keys)
        if not self._seen.learn(before, [arm.number for arm in anew]):
            return False
        self._kept, self._has_learnt = kept, True
        return True

    def _is_anew(self, arm: Arm, kept: Record) -> bool:
        """Return whether what was seen of an arm was put aside since this process learnt the last time."""
        return self._has_learnt and kept.restarts.get(arm.name, 0) != self._kept.restarts.get(arm.name, 0)

    def _changed(self, news: News | None, keys: list[int], stops: dict[str, Stop], plain: Plain | None) -> Plain:
        """Return what is to be kept, from what was."""
        record = Record.of(plain)
        options = self._options
        record.control, record.codes = self.arms[0].name, {arm.name: arm.code() for arm in self.arms}
        record.weights = {arm.name: arm.weight for arm in self.arms}
        record.rails, record.min_effect = options.guard_rails.limits(), options.min_effect
        record.is_keyed = options.key is not None
        arms = [arm for arm in self.arms if not self._is_anew(arm, record)]
        for arm in arms:
            if arm.name in stops and record.stop_of(arm.name) is None:
                record.stops[arm.name] = stops[arm.name]
        if news is not None:
            self._add(record, news, arms)
        record.add_keys(keys)
        return record.to_plain()

    def _add(self, record: Record, news: News, arms: list[Arm]) -> None:
        now, codes, control = time_ns(), record.codes, record.control
        for arm in arms:
            tally, pairs = news.tallies[arm.number], news.pairs[arm.number]
            tally.last_ns = pairs.last_ns = now
            record.add(arm_key(arm.name, codes[arm.name]), tally)
            if pairs:
                record.add_pairs(pair_key(arm.name, codes[arm.name], codes[control]), pairs)

    # How it is made.

    def _record(self, arm: Arm) -> None:
        options = self._options
        arm.record(
            self.name,
            options.layer,
            self._seen,
            capture_args=options.capture_args,
            capture_result=options.capture_result,
        )

    def _find_key(self) -> None:
        key = self._options.key
        if not isinstance(key, str) or not self.arms:
            return
        function = self.arms[0].function
        try:
            parameters = list(_signature(function).parameters.values())
        except (ValueError, TypeError):
            parameters = []
        by_place = [one.name for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
        takes_any = any(one.kind == one.VAR_KEYWORD for one in parameters)
        if not takes_any and key not in [one.name for one in parameters]:
            raise ConfigurationError(f"{function!r} has no parameter {key!r} to assign calls by.")
        self._place = by_place.index(key) if key in by_place else -1

    def _say(self, kind: str, message: str) -> None:
        warn_once(f"ab {self.name} {kind}", f"Experiment {self.name!r}: {message}")


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Return what `inspect` says. What annotations name is not looked for: it may be there for type checkers alone."""
    if sys.version_info >= (3, 14):  # else they are computed by now, or are texts
        from annotationlib import Format

        return inspect.signature(function, annotation_format=Format.STRING)
    return inspect.signature(function)
