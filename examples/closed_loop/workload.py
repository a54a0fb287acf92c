"""What the code evolver is used for here: its functions are reviewed in several rounds, and used in between."""

from __future__ import annotations

import random
from pathlib import Path

from functions.unique import unique  # type: ignore[import-not-found]
from src.local_model import generate

ROUNDS = 12
NAMES = 300
REVIEWED = ("fibonacci", "mean", "unique")


def main() -> None:
    """Review and use."""
    chance = random.Random(7)
    sources = [(Path(__file__).parent / "functions" / f"{name}.py").read_text() for name in REVIEWED]
    improved = remarks = 0
    for _ in range(ROUNDS):
        for source in sources:
            remarks += len(generate("critic", f"Criticise this function.\n{source}"))
            improved += len(generate("coder", f"Improve this function.\n{source}"))
        for size in (3, 300, 1500):
            unique([chance.randrange(NAMES) for _ in range(size)])
    print(remarks, improved)


if __name__ == "__main__":
    main()
