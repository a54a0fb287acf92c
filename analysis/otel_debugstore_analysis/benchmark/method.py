"""`compare_functions`: how two functions are measured against each other.

1. A process is started, with a session and streams of its own; it imports both functions, in a fresh interpreter where
   they can be had by name, else as a fork of this one.
2. It calls both with every input and compares: outputs, exceptions, what they did to their input. Nothing is timed
   before that is in order, and nothing that is not is ever ranked. After the timing it compares once more.
3. Loops are calibrated so that a half of a pair takes a millisecond, or one call.
4. Pairs are timed, interleaved, in random order. A pair during which the scheduler gave the processor to another
   process is timed again, up to three times. Of each process's pairs the warm-up is found and dropped.
5. Nine further processes do the same: what differs from process to process (addresses, hash seeds) is seen then.
6. `_decision` says what follows. With `stop_early` a confidence sequence over the pairs does, after each of them.

What is recorded is recorded afterwards, by this process. Errors: what the functions do is in the verdict; what raises
is options that can't be.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from typing import Final

from otel_debugstore.errors import ConfigurationError
from otel_debugstore_analysis.benchmark._measuring import Measuring
from otel_debugstore_analysis.benchmark._starting import Function, function_ref, how_started
from otel_debugstore_analysis.benchmark._workers import WorkerFailedError
from otel_debugstore_analysis.benchmark.model import BenchmarkOptions, Case, Check, Job
from otel_debugstore_analysis.benchmark.results import Comparison, Side

SIDES: Final[tuple[Side, Side]] = ("baseline", "candidate")


def compare_functions(
    baseline: Function,
    candidate: Function,
    inputs: Sequence[Case],
    *,
    options: BenchmarkOptions | None = None,
    check: Check | None = None,
) -> Comparison:
    """Return how a candidate does against a baseline.

    Args:
        baseline, candidate: Functions: themselves, or as "package.module:function", or as `FunctionRef`.
        inputs: What they are called with.
        options: How to measure.
        check: When an output is right; by default when it equals that of the baseline.

    Raises:
        ConfigurationError: The options, the check or the inputs can't be used.
    """
    options, check = options or BenchmarkOptions(), check or Check()
    _require_possible(options, check, inputs)
    began = time.monotonic()
    references = function_ref(baseline), function_ref(candidate)
    forked, notes = how_started(references, inputs, options, check)
    one, other = (each if forked else dataclasses.replace(each, function=None) for each in references)
    job = Job(
        one,
        other,
        cases=tuple(inputs),
        check=check,
        gc=options.gc,
        seed=options.seed,
        cwd=options.cwd,
        setup=options.setup,
        teardown=options.teardown,
    )
    if options.exact:
        from otel_debugstore_analysis.benchmark._exact import compare_exactly

        return compare_exactly(job, options, forked, began)
    measuring = Measuring(job, options, forked, notes)
    try:
        measuring.run()
    except WorkerFailedError as error:
        return failed(error, inputs, notes=measuring.notes, seconds=time.monotonic() - began)
    return measuring.comparison(time.monotonic() - began)


def failed(
    error: WorkerFailedError, inputs: Sequence[Case], notes: Sequence[str] = (), seconds: float = 0.0
) -> Comparison:
    """Return the comparison of functions that could not be measured, or are wrong."""
    return Comparison(
        "wrong" if error.is_wrong else "failed",
        error.cause,
        notes=tuple(notes),
        seconds=seconds,
        failed_side=None if error.side is None else SIDES[error.side],
        failed_class=None if error.case is None else inputs[error.case].label,
    )


def _require_possible(options: BenchmarkOptions, check: Check, inputs: Sequence[Case]) -> None:
    """Refuse what makes no sense.

    Raises:
        ConfigurationError: It does not.
    """
    wrong = [
        (not inputs, "There is no input to call the functions with; give at least one."),
        (len(inputs) > 65_535, f"{len(inputs):,} inputs are too many; take at most 65,535."),
        (options.processes < 1, f"{options.processes} processes can't measure; take 10."),
        (options.pairs < 1, f"{options.pairs} pairs can't be measured; take 20."),
        (
            not 0 <= options.min_effect < 10,
            f"The least effect can't be {options.min_effect}; take a share such as 0.03.",
        ),
        (not 0.5 <= options.confidence < 1, f"A confidence of {options.confidence} can't be kept; take 0.95."),
        (not options.timeout_s > 0, f"A call can't be given {options.timeout_s} s; take more than 0."),
        (any(not case.weight > 0 for case in inputs), "The weight of an input has to be above 0."),
        (options.cwd is not None and not os.path.isdir(options.cwd), f"There is no directory {options.cwd}."),  # noqa: PTH112
        (check.kind == "function" and check.function is None, "A check by a function needs the function."),
    ]
    for is_wrong, message in wrong:
        if is_wrong:
            raise ConfigurationError(message)
