"""`result_of`: what counts of what a node did. Runs in the processes that run nodes: standard library only."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any


def result_of(found: Sequence[Any], ignored: Collection[str] = ()) -> tuple[Any, bool]:
    """Return what counts of (stdout, stderr, metrics): what was printed, and whether it succeeded."""
    stdout, _, metrics = found
    try:
        printed = _without(json.loads(stdout), ignored)
    except (ValueError, TypeError):
        printed = stdout
    return printed, bool(metrics.get("success")) if isinstance(metrics, dict) else False


def _without(value: Any, ignored: Collection[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without(item, ignored) for key, item in value.items() if key not in ignored}
    return [_without(item, ignored) for item in value] if isinstance(value, list) else value
