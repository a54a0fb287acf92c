"""Inputs of benchmarks as people name them: a JSON file, a function, or a category of scenarios."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from otel_debugstore.errors import ConfigurationError
from otel_debugstore_analysis.benchmark._loading import LoadError, named
from otel_debugstore_analysis.benchmark._outcome import error_name, short
from otel_debugstore_analysis.benchmark.model import Case
from otel_debugstore_analysis.benchmark.scenarios import CATEGORIES, BenchmarkScenario, create_standard_scenarios

_KEYS: Final = frozenset({"label", "args", "kwargs", "weight", "may_raise"})


def cases_of(what: str | None) -> list[Case]:
    """Return inputs.

    Args:
        what: A category of standard scenarios, "package.module:function", or the path of a JSON file; None for one call
            without arguments.

    Raises:
        ConfigurationError: There are none, or they can't be used.
    """
    if what is None:
        return [Case("call")]
    if what in CATEGORIES:
        return [scenario.case() for scenario in create_standard_scenarios(what)]
    given = _from_function(what) if ":" in what and not Path(what).exists() else _from_file(Path(what))
    cases = [_case(item, number, what) for number, item in enumerate(given)]
    if not cases:
        raise ConfigurationError(f"{what} has no inputs.")
    return cases


def _from_function(target: str) -> Iterable[Any]:
    try:
        function = named(target)
    except LoadError as error:
        raise ConfigurationError(f"The inputs can't be had: {error}.") from error
    try:
        return list(function() if callable(function) else function)
    except Exception as error:
        raise ConfigurationError(f"The inputs can't be had: {target} raised {error_name(error)}: {error}.") from error


def _from_file(path: Path) -> Iterable[Any]:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(
            f"The inputs can't be read from {path}: {error.strerror}. Name a JSON file, "
            f"package.module:function, or one of "
            f"{', '.join(CATEGORIES)}."
        ) from error
    except ValueError as error:
        raise ConfigurationError(f"{path} is no JSON: {error}.") from error
    if not isinstance(found, list):
        raise ConfigurationError(f"{path} has to hold a list of inputs: lists of arguments, or objects with `args`.")
    return found


def _case(item: Any, number: int, what: str) -> Case:
    if isinstance(item, Case):
        return item
    if isinstance(item, BenchmarkScenario):
        return item.case()
    if isinstance(item, dict) and item.keys() <= _KEYS:
        try:
            return Case(
                str(item.get("label", f"input {number + 1}")),
                tuple(item.get("args", ())),
                dict(item.get("kwargs", {})),
                float(item.get("weight", 1.0)),
                bool(item.get("may_raise", False)),
            )
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"Input {number + 1} of {what} can't be used: {error}.") from error
    if isinstance(item, (list, tuple)):
        return Case(f"input {number + 1}", tuple(item))
    raise ConfigurationError(
        f"Input {number + 1} of {what} is {short(item)}: it has to be a list of arguments, or an object with "
        f"{', '.join(sorted(_KEYS))}."
    )
