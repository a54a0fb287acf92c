"""Root causes: the faults that were injected into a shop of ten services (Nezha's data), against a fault-free minute.

Of each fault the spans of the four minutes after it are ranked against the baseline; a hit is the faulty pod's service
in the first place. Faults of which no span was recorded are left out.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from evaluation.result import DATA, Options, Result, UnavailableError

NEZHA: Final = DATA / "nezha"
BASELINE: Final = "boutique-baseline-2022-08-23.otlp.jsonl.gz"
FAULTY: Final = ("boutique-2022-08-22-a.otlp.jsonl.gz", "boutique-2022-08-22-b.otlp.jsonl.gz")
FAULTS: Final = "2022-08-22-faults.json"
_MINUTES: Final = 4
_REQUIRED: Final = ("cpu", "network")
"""Faults that are to be found; others are reported."""


class Fault(NamedTuple):
    """What was injected, where, and when."""

    kind: str
    pod: str
    start_ns: int

    def is_in(self, service: str | None) -> bool:
        """Whether the pod is of the service: its name is the service's, with two hashes."""
        return service is not None and self.pod.rsplit("-", 2)[0] == service


def results(options: Options) -> list[Result]:
    """Return by kind of fault how often the faulty service came first."""
    if not (NEZHA / FAULTS).exists():
        raise UnavailableError("the Nezha files are not there: expected in ../shared/data/nezha of the project")
    return evaluated([NEZHA / name for name in FAULTY], NEZHA / BASELINE, faults(NEZHA / FAULTS))


def faults(path: Path) -> list[Fault]:
    """Return the faults of a list as Nezha's data has them, by time."""
    found = [
        Fault(one["inject_type"], one["inject_pod"], int(one["inject_timestamp"]) * 1_000_000_000)
        for hour in json.loads(path.read_text()).values()
        for one in hour
    ]
    return sorted(found, key=lambda fault: fault.start_ns)


def evaluated(faulty: list[Path], baseline: Path, injected: list[Fault]) -> list[Result]:
    """Return by kind of fault how often the faulty service came first, and for each fault what did.

    Args:
        faulty: Files of spans in which the faults are.
        baseline: A file of spans without any.
        injected: The faults; those that no span follows are left out.
    """
    from otel_debugstore_analysis.analyses.root_cause import root_cause
    from otel_debugstore_analysis.query import DuckDBEngine, Selection
    from otel_debugstore_exporters.importer import import_files
    from otel_debugstore_exporters.reader import SessionReader
    from otel_debugstore_exporters.session import SessionPaths

    ranked: dict[str, list[tuple[bool, str]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        base_path = Path(folder)
        import_files(faulty, SessionPaths(base_path, "faulty"))
        import_files([baseline], SessionPaths(base_path, "baseline"))
        before = Selection(where={"session": "baseline"})
        with SessionReader(base_path) as reader:
            for fault in injected:
                end_ns = fault.start_ns + _MINUTES * 60_000_000_000
                during = Selection(fault.start_ns, end_ns, {"session": "faulty"})
                table = root_cause(DuckDBEngine(reader), selection=during, baseline=before, by="service")
                if table.rows:
                    first = table.dicts()[0]
                    shown = f"{fault.pod.rsplit('-', 2)[0]}: {first['service']} ({first['signal']})"
                    ranked.setdefault(fault.kind, []).append((fault.is_in(first["service"]), shown))
    return [_result(kind, found) for kind, found in sorted(ranked.items())]


def _result(kind: str, found: list[tuple[bool, str]]) -> Result:
    return Result(
        what=f"{kind}: the faulty service comes first",
        hits=sum(is_hit for is_hit, _ in found),
        count=len(found),
        target=1.0 if kind.startswith(_REQUIRED) else None,
        goal="at least",
        detail="; ".join(shown for _, shown in found),
    )
