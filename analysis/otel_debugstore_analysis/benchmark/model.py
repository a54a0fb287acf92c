"""What a benchmark is asked: which functions, with which inputs, compared how.

The processes that measure import this module: nothing but the standard library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

MIN_EFFECT: Final = 0.03
CONFIDENCE: Final = 0.95
PROCESSES: Final = 10
PAIRS: Final = 20
SCRIPT: Final = "__main__"
"""The module of a function that stands in the file which was run."""


@dataclass(frozen=True)
class FunctionRef:
    """A function, by name or itself.

    Attributes:
        target: "package.module:qualified.name".
        paths: Where modules are looked for first: a scratch copy of a project, for one. What lies below them is loaded
            for this function alone, so two versions of a project can be held against each other.
        file: The module's file, where it can't be imported by its name: a script.
        function: The function itself, where it can't be reached by name: a closure, a lambda. Its processes are forked.
    """

    target: str
    paths: tuple[str, ...] = ()
    file: str | None = None
    function: Callable[..., Any] | None = None

    @property
    def module(self) -> str:
        """The name of its module."""
        return self.target.partition(":")[0]

    @property
    def qualified_name(self) -> str:
        """Its name within the module."""
        return self.target.partition(":")[2]


class Outcome(NamedTuple):
    """How a call ended.

    Attributes:
        value: What it returned.
        error: The qualified name of the exception's type ("ValueError", "package.module.Error"); None if it returned.
        message: The exception's text. It is not compared.
    """

    value: Any = None
    error: str | None = None
    message: str = ""


@dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        label: The class of inputs that it belongs to.
        args, kwargs: What the functions are called with.
        weight: How many calls it stands for: the ratio of the whole is that of the weighted sums of the times.
        may_raise: Whether an exception is an outcome like any other; if not, the function that raises has failed.
        expected: How a recorded call of it ended; both functions are held against it.
        make: "package.module:function" that is called with `data` in the process that measures, and returns (args,
            kwargs) or (args, kwargs, expected): for inputs that only the program's own modules can read.
        data: What `make` is called with.
    """

    label: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    weight: float = 1.0
    may_raise: bool = False
    expected: Outcome | None = None
    make: str | None = None
    data: bytes = b""


@dataclass(frozen=True)
class Check:
    """When the output of the candidate is right.

    Attributes:
        kind: "equal": equal to that of the baseline (NaN equals NaN). "tolerance": so, but for numbers, which may
            differ by `relative` or by `absolute`. "function": `function(baseline_output, candidate_output)` says so.
            "none": always, which is the user's to answer for.
        relative, absolute: As `math.isclose` takes them.
        function: The user's check, itself or as "package.module:function".
    """

    kind: Literal["equal", "tolerance", "function", "none"] = "equal"
    relative: float = 1e-9
    absolute: float = 0.0
    function: Callable[[Any, Any], bool] | str | None = None


@dataclass(frozen=True)
class BenchmarkOptions:
    """How to measure.

    Attributes:
        processes: How many processes, one after the other. They are the units of the statistics: with fewer than six
            no difference is ever certain.
        pairs: How many pairs of every input in each.
        min_effect: The least difference that counts, as a share.
        confidence: How often such intervals hold the ratio.
        gc: "enabled": collections happen while functions run, and are a part of what they cost. "disabled": none does.
            Either way all that was there before is collected, and set aside, before anything is timed.
        stop_early: Whether to stop as soon as a confidence sequence over the pairs says something, which is valid at
            any time (`otel_debugstore.sequential`).
        memory: Whether to look at memory, too, in calls that are not timed.
        exact: Whether to count instructions, by valgrind, instead of timing.
        timeout_s: How long a single call may take; importing, setup and inputs may take 60 s.
        max_seconds: What the whole may take, about: there are fewer pairs, and then fewer processes, where it would be
            more.
        seed: Of the orders, and of the bootstrap.
        start: "fresh" interpreters, or "fork"; "auto" takes fresh ones where functions and inputs can be had there.
        cwd: The directory that the processes work in.
        environment: Further environment variables.
        setup: Called once in each process before anything else is, but for the import, as "package.module:function" or
            itself.
        teardown: Called once at the end of each process.
    """

    processes: int = PROCESSES
    pairs: int = PAIRS
    min_effect: float = MIN_EFFECT
    confidence: float = CONFIDENCE
    gc: Literal["enabled", "disabled"] = "enabled"
    stop_early: bool = False
    memory: bool = True
    exact: bool = False
    timeout_s: float = 10.0
    max_seconds: float = 60.0
    seed: int = 0
    start: Literal["auto", "fresh", "fork"] = "auto"
    cwd: str | None = None
    environment: Mapping[str, str] | None = None
    setup: Callable[[], Any] | str | None = None
    teardown: Callable[[], Any] | str | None = None


@dataclass(frozen=True)
class Job:
    """All that a process needs to know to measure."""

    baseline: FunctionRef
    candidate: FunctionRef
    cases: tuple[Case, ...]
    check: Check
    gc: str
    seed: int
    cwd: str | None = None
    setup: Callable[[], Any] | str | None = None
    teardown: Callable[[], Any] | str | None = None
    loops: tuple[tuple[int, int], ...] | None = None
    """By case and side; None: to be found."""
