"""What was dropped, in an archive: `drops.json`, so that the counts outlive the journal."""

from __future__ import annotations

import contextlib
import json
from dataclasses import astuple
from pathlib import Path
from typing import Final

from otel_debugstore_exporters.journal import Drop, Journal

_NAME: Final = "drops.json"


def write_drops(folder: Path, journal: Journal) -> None:
    """Write what a journal counted into an archive."""
    content = {"journal_id": journal.journal_id, "drops": [astuple(drop) for drop in journal.drops()]}
    (folder / _NAME).write_text(json.dumps(content), encoding="utf-8")


def drops_of(journal: Journal | None, archive: Path) -> list[Drop]:
    """Return what was dropped in a session: by its journal, and by one before it that is archived."""
    found = journal.drops() if journal is not None else []
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # an archive without, or one that is damaged
        content = json.loads((archive / _NAME).read_text(encoding="utf-8"))
        if journal is None or content["journal_id"] != journal.journal_id:
            found += [Drop(*drop) for drop in content["drops"]]
    return found
