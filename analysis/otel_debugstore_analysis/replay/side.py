"""A process that runs one version of a function: `python -m otel_debugstore_analysis.replay.side REQUEST SIDE`.

It is asked by MessagePack through its standard input, and answers through what was its standard output; what the
function prints goes nowhere. For `time` it forks: each sequence of calls is run by a process that never ran one, so
that nothing a function remembers of earlier ones counts.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Final, NamedTuple, NoReturn

from otel_debugstore.errors import NotReplayableError
from otel_debugstore.masking import Masker
from otel_debugstore.payload import capture
from otel_debugstore_analysis.benchmark._outcome import NotComparableError, error_name, values_differ
from otel_debugstore_analysis.benchmark.model import Check
from otel_debugstore_analysis.replay.frames import read_frame, write_frame
from otel_debugstore_analysis.replay.loading import Loaded, LoadError, arguments, hook, load
from otel_debugstore_analysis.replay.request import Request, Wanted

_MAX_PICKLE_BYTES: Final = 32 << 20


class _Done(NamedTuple):
    """How a call ended."""

    value: Any
    error: str | None
    message: str
    duration_ns: int


class Program:
    """The function of one side, and what can be asked of it."""

    def __init__(self, request: Request, name: str) -> None:
        self._request = request
        self._check = Check() if request.relative is None else Check("tolerance", request.relative)
        self._loaded: Loaded = load(request.baseline if name == "baseline" else request.candidate)
        self._parameters = self._loaded.parameters
        self._setup, self._teardown = hook(request.setup), hook(request.teardown)

    def facts(self) -> dict[str, Any]:
        """Return what is to be known of the function."""
        loaded = self._loaded
        return {
            "parameters": list(loaded.parameters),
            "target": loaded.target,
            "is_recorded": loaded.is_recorded,
            "is_coroutine": loaded.is_coroutine,
        }

    def begin(self, parameters: list[str]) -> None:
        """Get ready: arguments are given by these names, those of the baseline."""
        self._parameters = tuple(parameters)
        self._setup()

    def end(self) -> None:
        """Undo what `begin` set up."""
        self._teardown()

    def call(self, number: int, baseline: dict[str, Any] | None) -> dict[str, Any]:
        """Run one input; say how it ended, and whether that is what was recorded, and what the baseline did."""
        wanted = self._request.inputs[number]
        args, kwargs = arguments(wanted.content, self._parameters)
        done = self._timed(args, kwargs)
        found: dict[str, Any] = {
            "error": done.error,
            "message": done.message,
            "first_ns": done.duration_ns,
            "arguments": _digest([args, kwargs]),
            "recorded": self._against_record(done, wanted),
        }
        if baseline is None:
            found["pickled"] = _pickled(done.value) if done.error is None else None
            found["output"] = _digest(done.value)
        else:
            found["baseline"] = self._against_baseline(done, baseline)
            if found["arguments"] != baseline["arguments"]:
                found["baseline"] = "its arguments are left otherwise than by the original"
        return found

    def again(self, number: int) -> int:
        """Run an input once more; return how long it took."""
        return self._timed(*arguments(self._request.inputs[number].content, self._parameters)).duration_ns

    def sequence(self) -> list[int]:
        """Run the recorded sequence once; return how long each call took."""
        calls = [arguments(self._request.inputs[number].content, self._parameters) for number in self._request.sequence]
        gc.collect()
        gc.freeze()
        return [self._timed(args, kwargs).duration_ns for args, kwargs in calls]

    def _timed(self, args: list[Any], kwargs: dict[str, Any]) -> _Done:
        call: Callable[..., Any] = self._loaded.call if self._loaded.is_coroutine else self._loaded.function
        pid = os.getpid()
        try:
            if self._loaded.is_coroutine:
                began = perf_counter_ns()
                value = call(args, kwargs)
            else:
                began = perf_counter_ns()
                value = call(*args, **kwargs)
            done = _Done(value, None, "", perf_counter_ns() - began)
        except BaseException as error:  # noqa: BLE001  # sys.exit() ends the call, not this process
            done = _Done(None, error_name(error), _text(error), perf_counter_ns() - began)
        if os.getpid() != pid:  # a child that the function forked, and that came back
            os._exit(0)
        return done

    def _against_record(self, done: _Done, wanted: Wanted) -> str | None:
        """Return what is other than recorded, "" if nothing is, None if that is not known."""
        if wanted.error is not None or done.error is not None:
            return "" if wanted.error == done.error else _unlike(wanted.error, done)
        if wanted.output_digest is None:
            return None
        if capture(done.value).digest == wanted.output_digest:
            return ""
        if wanted.output is None:
            return None
        return self._differ(lambda: _restored(wanted.output), done.value)

    def _against_baseline(self, done: _Done, baseline: dict[str, Any]) -> str | None:
        if baseline["error"] is not None or done.error is not None:
            return "" if baseline["error"] == done.error else _unlike(baseline["error"], done)
        if baseline["pickled"] is not None:
            return self._differ(lambda: pickle.loads(baseline["pickled"]), done.value)
        return "" if baseline["output"] == _digest(done.value) else None

    def _differ(self, wanted: Callable[[], Any], found: Any) -> str | None:
        try:
            return values_differ(wanted(), found, self._check) or ""
        except (NotComparableError, NotReplayableError, pickle.PickleError, ImportError, AttributeError, TypeError):
            return None


def _restored(content: bytes | None) -> Any:
    from otel_debugstore.payload import restore

    return restore(content or b"")


def _unlike(wanted: str | None, done: _Done) -> str:
    found = f"{done.error}: {done.message}" if done.error else "no error"
    return f"{found} instead of {wanted or 'a result'}"


class _NoMasker(Masker):
    """Masks nothing: what is compared is never stored."""

    def may_hold_secret_bytes(self, data: bytes) -> bool:
        return False


_PLAIN: Final = _NoMasker()


def _digest(value: Any) -> str:
    return capture(value, _PLAIN).digest


def _pickled(value: Any) -> bytes | None:
    try:
        pickled = pickle.dumps(value)
    except Exception:  # noqa: BLE001  # whatever its classes raise
        return None
    return pickled if len(pickled) <= _MAX_PICKLE_BYTES else None


def _text(error: BaseException) -> str:
    try:
        return str(error)[:200]
    except Exception:  # noqa: BLE001  # the exception's own
        return ""


class _Server:
    """Answers what is asked."""

    def __init__(self, request: Request, name: str, questions: int, answers: int) -> None:
        self._request, self._name = request, name
        self._questions, self._answers = questions, answers
        self._program: Program | None = None

    def run(self) -> None:
        """Answer until nothing more is asked."""
        while (question := read_frame(self._questions)) is not None:
            kind, *rest = question
            try:
                answer = {"ok": getattr(self, f"_{kind}")(*rest)}
            except LoadError as error:
                answer = {"failed": str(error)}
            except NotReplayableError as error:
                answer = {"unreplayable": str(error)}
            except Exception as error:  # noqa: BLE001  # of a hook, of classes that are restored
                answer = {"failed": f"{type(error).__name__}: {error}"}
            write_frame(self._answers, answer)

    def _load(self, modules: list[str]) -> dict[str, Any]:
        self._program = Program(self._request, self._name)
        for module in modules:  # what calls import by and by is no part of a sequence's time
            with contextlib.suppress(BaseException):
                __import__(module)
        return self._program.facts()

    def _begin(self, parameters: list[str]) -> None:
        assert self._program is not None
        self._program.begin(parameters)

    def _end(self) -> list[str]:
        assert self._program is not None
        self._program.end()
        return sorted(name for name in sys.modules if "." not in name or name.rpartition(".")[0] in sys.modules)

    def _call(self, number: int, baseline: dict[str, Any] | None) -> dict[str, Any]:
        assert self._program is not None
        return self._program.call(number, baseline)

    def _again(self, number: int) -> int:
        assert self._program is not None
        return self._program.again(number)

    def _time(self, parameters: list[str]) -> list[int]:
        """Run the sequence in a fork."""
        assert self._program is not None
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(ours)
            _run_once(self._program, parameters, theirs)
        os.close(theirs)
        try:
            found = read_frame(ours)
        finally:
            os.close(ours)
            _, status = os.waitpid(pid, 0)
        if not isinstance(found, list):
            raise LoadError(found or f"its process ended with {os.waitstatus_to_exitcode(status)}.")
        return found


def _run_once(program: Program, parameters: list[str], answers: int) -> NoReturn:
    try:
        program.begin(parameters)
        found: Any = program.sequence()
        program.end()
    except BaseException as error:  # noqa: BLE001  # a hook's
        found = f"{type(error).__name__}: {error}"
    with contextlib.suppress(OSError):
        write_frame(answers, found)
    os._exit(0)


def main() -> None:
    """Run until nothing more is asked; the program's own input and output are empty."""
    questions, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    _Server(Request.read(Path(sys.argv[1])), sys.argv[2], questions, answers).run()


if __name__ == "__main__":
    main()
