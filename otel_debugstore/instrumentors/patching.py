"""`Patches`: functions that were replaced by wrappers of ours, and how they come back.

A wrapper that somebody else has wrapped in turn can't be taken out again; then it does nothing any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import wrapt

from otel_debugstore.calls.recorded import RecordedFunction

Wrapper = Callable[[Callable[..., Any], Any, tuple[Any, ...], dict[str, Any]], Any]
"""What wrapt calls: the function (bound), what it is bound to, and the arguments."""


class OurWrapper(wrapt.FunctionWrapper):  # type: ignore[type-arg]
    """Tells our wrappers from those of others."""


class TargetFunction(RecordedFunction):
    """A recorded function that is recorded only while its patch is in place: other modules may have imported it."""

    def __init__(self, recorded: RecordedFunction, is_on: Callable[[], bool]) -> None:
        wrapper: Any = recorded._self_wrapper
        self._self_wrap(recorded.__wrapped__, wrapper, is_on)


class _Patch(NamedTuple):
    owner: Any
    name: str
    original: Any
    wrapper: Any


class Patches:
    """What one instrumentor has patched."""

    def __init__(self) -> None:
        self._patches: list[_Patch] = []
        self._undoings: list[Callable[[], object]] = []
        self._is_on = True

    def wrap(self, owner: Any, name: str, make: Callable[[Any], Wrapper]) -> bool:
        """Wrap a function of a module, or a method of a class, where it is defined. Once only.

        Args:
            owner: The module or the class; a method may be one of its base classes.
            name: What the function is called there.
            make: Returns the wrapper for the function that it is given.

        Returns:
            Whether there is such a function.
        """
        for holder in owner.__mro__[:-1] if isinstance(owner, type) else (owner,):
            original = vars(holder).get(name)
            if original is None:
                continue
            if isinstance(original, type) or not (
                callable(original) or isinstance(original, staticmethod | classmethod)
            ):
                return False
            if not isinstance(original, OurWrapper):
                self.replace(holder, name, OurWrapper(original, make(original), self.is_on))
            return True
        return False

    def replace(self, owner: Any, name: str, replacement: Any) -> None:
        """Replace what an owner itself has under a name, until it is undone."""
        original = vars(owner)[name]
        setattr(owner, name, replacement)
        self._patches.append(_Patch(owner, name, original, replacement))

    def also_undo(self, undoing: Callable[[], object]) -> None:
        """Have something called when the patches are undone."""
        self._undoings.append(undoing)

    def undo(self) -> None:
        """Put everything back."""
        self._is_on = False
        for undoing in self._undoings:
            undoing()
        self._undoings.clear()
        for owner, name, original, wrapper in reversed(self._patches):
            if vars(owner).get(name) is wrapper:
                setattr(owner, name, original)
        self._patches.clear()

    def is_on(self) -> bool:
        """Return whether they have not been undone."""
        return self._is_on
