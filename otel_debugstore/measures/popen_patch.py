"""`install`: `subprocess.Popen` waits by `os.wait4` in place of `os.waitpid`, which returns what the child used beside.

All else is the stock code, and all of it wherever something is not as expected: a replaced `os.waitpid` (gevent, a
test's mock), private methods of another shape, or an error. Between the wait and Popen's own note of the exit status
nothing is done but to keep a reference: if a signal handler raised there, the status would be lost.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from otel_debugstore.guard import swallow

if TYPE_CHECKING:
    import resource
    from subprocess import Popen

Started = Callable[["Popen[Any]"], None]
WaitedFor = Callable[["Popen[Any]", "resource.struct_rusage"], None]

_RUSAGE: Final = "_otel_debugstore_rusage"
_BUILTIN: Final[type] = type(len)
_undo: Final[dict[str, tuple[Any, Any]]] = {}  # by name, the stock method and ours


def install(started: Started, waited_for: WaitedFor) -> None:
    """Have both called for each Popen, by whoever starts it, and waits for it or polls it. Does nothing twice.

    Args:
        started: Called when the child runs.
        waited_for: Called when its exit status is known to `popen`, with what it used.
    """
    import subprocess

    make: dict[str, Callable[..., Any]] = {
        "_execute_child": _telling_start,
        "_try_wait": _waiting_by_wait4,
        "_wait": _telling_end,
        "_internal_poll": _polling_by_wait4,
    }
    stock = {name: vars(subprocess.Popen).get(name) for name in make}
    if _undo or not hasattr(os, "wait4") or not all(callable(method) for method in stock.values()):
        return

    def tell_start(popen: Popen[Any]) -> None:
        _tell(lambda: started(popen))

    def tell_end(popen: Popen[Any]) -> None:
        if _RUSAGE in vars(popen) and popen.returncode is not None:
            _tell(lambda: waited_for(popen, vars(popen).pop(_RUSAGE)))

    for name, method in stock.items():
        ours = make[name](method, tell_start if name == "_execute_child" else tell_end)
        _undo[name] = method, functools.wraps(method)(ours)  # type: ignore[arg-type]
        setattr(subprocess.Popen, name, _undo[name][1])


def uninstall() -> None:
    """Put the stock methods back, except where somebody else replaced ours: there it stays, and does no harm."""
    import subprocess

    for name, (method, ours) in _undo.items():
        if vars(subprocess.Popen).get(name) is ours:
            setattr(subprocess.Popen, name, method)
    _undo.clear()


def _telling_start(stock: Callable[..., Any], tell: Started) -> Callable[..., Any]:
    def _execute_child(self: Popen[Any], *args: Any, **kwargs: Any) -> Any:
        result = stock(self, *args, **kwargs)
        tell(self)
        return result

    return _execute_child


def _telling_end(stock: Callable[..., Any], tell: Started) -> Callable[..., Any]:
    def _wait(self: Popen[Any], *args: Any, **kwargs: Any) -> Any:
        result = stock(self, *args, **kwargs)
        tell(self)
        return result

    return _wait


def _waiting_by_wait4(stock: Callable[..., Any], _: Started) -> Callable[..., Any]:
    wait4 = os.wait4

    def _try_wait(self: Popen[Any], wait_flags: int) -> Any:
        if not isinstance(os.waitpid, _BUILTIN):
            return stock(self, wait_flags)
        try:
            pid, status, rusage = wait4(self.pid, wait_flags)
        except ChildProcessError:  # the stock method meets it again, and knows what that means
            return stock(self, wait_flags)
        if pid:
            self._otel_debugstore_rusage = rusage  # type: ignore[attr-defined]
        return pid, status

    return _try_wait


def _polling_by_wait4(stock: Callable[..., Any], tell: Started) -> Callable[..., Any]:
    """Hand `_internal_poll` another `waitpid`: it is the default of a parameter, which differs between Pythons."""
    import subprocess
    import types

    names = getattr(getattr(stock, "__code__", None), "co_varnames", ())
    stock_names = vars(getattr(subprocess, "_del_safe", types.SimpleNamespace(waitpid=None)))
    wait4 = os.wait4

    def with_wait4(popen: Popen[Any]) -> dict[str, Any]:
        def waitpid(pid: int, options: int) -> tuple[int, int]:
            found, status, rusage = wait4(pid, options)
            if found:
                popen._otel_debugstore_rusage = rusage  # type: ignore[attr-defined]
            return found, status

        if "_waitpid" in names:
            return {"_waitpid": waitpid}
        if "_del_safe" in names and isinstance(stock_names["waitpid"], _BUILTIN):
            return {"_del_safe": types.SimpleNamespace(**{**stock_names, "waitpid": waitpid})}
        return {}

    def _internal_poll(self: Popen[Any], _deadstate: int | None = None, **kwargs: Any) -> Any:
        if self.returncode is not None:
            return self.returncode
        try:
            replaced = with_wait4(self) if not kwargs and isinstance(os.waitpid, _BUILTIN) else {}
        except Exception as error:  # noqa: BLE001  # called by `__del__` when the interpreter ends, and much is gone
            swallow(error)
            replaced = {}
        result = stock(self, _deadstate, **kwargs, **replaced)
        tell(self)
        return result

    return _internal_poll


def _tell(call: Callable[[], None]) -> None:
    try:
        call()
    except Exception as error:  # noqa: BLE001  # the program waits for a child, not for us
        swallow(error)
