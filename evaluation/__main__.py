"""`python -m evaluation`: evaluate the analyses and print k of n with 95 % intervals."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from typing import Final

from evaluation.result import Options, Result, UnavailableError

EVALUATIONS: Final = ("comparisons", "change_points", "root_cause", "benchmarks")
"""Modules of this package, each with `results(options: Options) -> list[Result]`."""


def main() -> int:
    """Run what the command line asks for; return 1 if a target was missed."""
    parser = argparse.ArgumentParser(prog="python -m evaluation", description=__doc__)
    parser.add_argument("--only", metavar="NAME", action="append", choices=EVALUATIONS, help="one evaluation")
    parser.add_argument("--quick", action="store_true", help="a tenth of the draws: to see that it works")
    parser.add_argument("--full", action="store_true", help="three times the runs where these take long")
    arguments = parser.parse_args()
    found: list[Result] = []
    for name in arguments.only or EVALUATIONS:
        began = time.monotonic()
        try:
            results = importlib.import_module(f"evaluation.{name}").results(Options(arguments.quick, arguments.full))
        except UnavailableError as error:
            print(f"{name}: SKIPPED: {error}\n", flush=True)
            continue
        print(f"{name} ({time.monotonic() - began:.0f} s)\n{_text(results)}\n", flush=True)
        found += results
    missed = [result for result in found if result.met is False]
    print(f"{len(missed)} targets missed." if missed else "Every target is met.")
    return int(bool(missed))


def _text(results: Sequence[Result]) -> str:
    lines = []
    for result in results:
        verdict = {True: "met", False: "MISSED", None: "-"}[result.met]
        share = f"{result.hits / result.count:.1%}" if result.count else "-"
        low, high = result.interval
        target = "" if result.target is None else f"{result.goal} {result.target:.0%}"
        lines.append(
            f"  {verdict:6} {result.hits:>5} of {result.count:<5} {share:>6}  ({low:.1%} to {high:.1%})  "
            f"{target:13} {result.what}"
        )
        if result.detail:
            lines.append(f"{'':58}{result.detail}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
