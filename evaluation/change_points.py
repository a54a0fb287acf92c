"""False alarms of `regressions`, and what it finds: shuffled histories, and such with a step in them.

Histories are a real one of a public benchmark (MongoDB's) and drawn ones: log-normal, with heavy tails, and with two
modes. Shuffled, a history has no change point. A step is put into a shuffled one with 12 points after it. Short
histories are the first points of these, with the step in the middle.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from evaluation.result import DATA, Options, Result, UnavailableError
from otel_debugstore_analysis.analyses.regressions import changes_of

Floats = npt.NDArray[np.float64]

DRAWS: Final = 500
LENGTH: Final = 60
AFTER: Final = 12
SHORT: Final = (10, 12, 16)
SPREAD: Final = 0.03
_NEAR: Final = 2
_SEED: Final = 2

_DRAWN: Final[dict[str, Callable[[np.random.Generator], Floats]]] = {
    "log-normal": lambda chance: chance.normal(0, SPREAD, LENGTH),
    "heavy-tailed": lambda chance: chance.standard_t(3, LENGTH) * SPREAD / 3**0.5,
    "two-mode": lambda chance: chance.normal(0, SPREAD / 3, LENGTH) + (chance.random(LENGTH) < 0.3) * 2 * SPREAD,
}


def results(options: Options) -> list[Result]:
    """Return the false alarms by kind of history, and what is found of steps."""
    chance, draws = np.random.default_rng(_SEED), options.draws(DRAWS)
    histories = {f"drawn {name}": [np.exp(draw(chance)) for _ in range(draws)] for name, draw in _DRAWN.items()}
    real = _real()
    histories["real"] = [chance.permutation(real) for _ in range(draws)]
    found = []
    for name, shuffled in histories.items():
        found += _of_length(f"{name} histories", shuffled, AFTER, (1.05, 1.10))
        for length in SHORT:
            of = f"{name} histories of {length} points"
            found += _of_length(of, [history[:length] for history in shuffled], length // 2, (1.10, 2.0))
    return found


def _of_length(of: str, shuffled: list[Floats], after: int, steps: tuple[float, ...]) -> list[Result]:
    alarms = sum(bool(changes_of(history)) for history in shuffled)
    found = [Result(f"regressions: {of}, shuffled, with an alarm", alarms, len(shuffled), 0.02)]
    for step in steps:
        hits = sum(_is_found(history, step, after) for history in shuffled)
        what = f"regressions: +{step - 1:.0%} found within {_NEAR} points, {after} points after it, {of}"
        found.append(Result(what, hits, len(shuffled)))
    return found


def _is_found(history: Floats, step: float, after: int) -> bool:
    place = len(history) - after
    raised = np.concatenate([history[:place], history[place:] * step])
    return any(abs(change.place - place) <= _NEAR and change.ratio.value > 1 for change in changes_of(raised))


def _real() -> Floats:
    path = DATA / "mongodb" / "real_series.json"
    if not path.exists():
        raise UnavailableError("the series is not there: expected ../shared/data/mongodb/real_series.json")
    # Operations a second: their reciprocals are durations.
    return 1e9 / np.array(json.loads(path.read_text()), dtype=np.float64)
