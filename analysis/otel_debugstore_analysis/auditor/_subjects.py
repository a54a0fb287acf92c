"""What is audited: components by their newest code, or by the code of a function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from otel_debugstore_analysis.auditor._threshold import PerformanceThreshold
from otel_debugstore_analysis.auditor._values import Calls, Key


class Subject(NamedTuple):
    """What is audited: the groups of spans that it consists of, and its limits."""

    component: str
    layer: str
    keys: tuple[Key, ...]
    threshold: PerformanceThreshold | None
    variant: str | None = None
    note: str = ""


def newest(groups: Mapping[Key, Sequence[Calls]]) -> list[Key]:
    """Return of each component the group of the code that was called last."""
    found: dict[tuple[str, str], tuple[int, Key]] = {}
    for key, processes in groups.items():
        last_ns = max((one.last_ns for one in processes if one.last_ns is not None), default=-1)
        if key[1] and (key[:2] not in found or (last_ns, key) > found[key[0], key[1]]):
            found[key[0], key[1]] = last_ns, key
    return [key for _, key in found.values()]


def subject_of_code(
    groups: Mapping[Key, Sequence[Calls]],
    layer: str,
    component: str,
    variant: str | None,
    threshold: PerformanceThreshold | None,
) -> Subject:
    """Return a component by its code, whatever it is called, and by its name where no code was recorded.

    Args:
        groups: All calls, by `COMPONENT`.
        layer: Its layer; of its code calls in others count only where there are none in this one.
        component: Its name.
        variant: The hash of its code; None is the newest one of that name.
        threshold: Its limits.
    """
    named = [key for key in groups if key[:2] == (layer, component)]
    if variant is None:
        keys = [key for key in newest(groups) if key in named]
        return Subject(component, layer, tuple(keys), threshold, next((key[2] or None for key in keys), None))
    same = [key for key in groups if key[2] == variant]
    keys = [key for key in same if key[0] == layer] or same
    keys += [key for key in named if not key[2]]
    others = sorted({key[2] for key in named if key[2] and key[2] != variant})
    note = (
        f"Calls recorded as {component!r} were of other code ({', '.join(others)}), and don't count." if others else ""
    )
    return Subject(component, layer, tuple(keys), threshold, variant, note)
