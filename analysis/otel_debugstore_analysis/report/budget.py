"""Fits a document into a number of tokens: what matters most is touched last.

Sections belong to tiers. A tier gets room only once all above it are complete, and gives way before any of these; in
a tier the sections take turns, an item each. So there is one order of all items, and a document is the first so many
of them. What is left out is listed at the end by name, with how much of it and the command that fetches it: a line each
where that costs no recommendation, else in one line, else as a number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from otel_debugstore_analysis.report.tokens import cut, fits


class Tier(IntEnum):
    """How much a section matters: the least number matters most."""

    VERDICT = 0
    RECOMMENDATIONS = 1
    EVIDENCE = 2
    CODE = 3
    SAMPLES = 4


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a document that can be shortened from its end.

    Attributes:
        tier: What it gives way to.
        name: What the list of what was left out calls it, such as "critical-path".
        head: What stands before the items; it is there if at least one of these is.
        items: Lines or blocks, the most important first.
        tail: What closes the section, such as the end of a fence.
        command: What fetches all of it; empty where nothing does.
        unit: What the items are, such as "rows".
        further: How many more there are that are not among the items.
    """

    tier: Tier
    name: str
    head: str
    items: tuple[str, ...]
    command: str = ""
    unit: str = "rows"
    tail: str = ""
    further: int = 0


class LeftOut(NamedTuple):
    """How many items of a section are not shown."""

    section: Section
    items: int


class Layout(NamedTuple):
    """How a document is put together.

    Attributes:
        text: Makes it of the sections, of the number of items taken of each, and of what is said of the others.
        left_out: What can be said of them, the longest way first, and at last nothing. The longest one that costs no
            recommendation is taken, else one that costs nothing of the verdict.
        least: What is shown where no item fits.
    """

    text: Callable[[Sequence[Section], Sequence[int], str], str]
    left_out: tuple[Callable[[Sequence[LeftOut]], str], ...]
    least: Callable[[Sequence[Section], int], str]


def fit(sections: Sequence[Section], max_tokens: int, layout: Layout) -> str:
    """Return the sections as one text of at most so many tokens, in the order of their tiers.

    Raises:
        ConfigurationError: `max_tokens` is no number of tokens.
    """
    ordered = sorted(sections, key=lambda section: section.tier)
    turns = _turns(ordered)
    tiers = Counter(ordered[number].tier for number in turns)
    verdict = tiers[Tier.VERDICT]
    *ways, silence = layout.left_out
    tries = [(way, verdict + tiers[Tier.RECOMMENDATIONS]) for way in ways]
    tries += [*((way, verdict) for way in ways[1:]), (silence, 0)]
    everything = layout.text(ordered, [len(section.items) for section in ordered], silence([]))
    may_be_whole = fits(everything, max_tokens)
    for way, least in tries:
        text = _longest(ordered, turns, max_tokens, layout, way, max(least, 1), may_be_whole)
        if text is not None:
            return text
    return layout.least(ordered, max_tokens)


def _turns(sections: Sequence[Section]) -> list[int]:
    """Return the number of the section whose turn it is, by place in the one order of all items."""
    turns = [
        (section.tier, turn, number) for number, section in enumerate(sections) for turn in range(len(section.items))
    ]
    return [number for _, _, number in sorted(turns)]


def _longest(
    sections: Sequence[Section],
    turns: Sequence[int],
    max_tokens: int,
    layout: Layout,
    way: Callable[[Sequence[LeftOut]], str],
    least: int,
    may_be_whole: bool,
) -> str | None:
    """Return the text with most items that fits; None if not even the least number of them does."""

    def text(items: int) -> str:
        taken = Counter(turns[:items])
        counts = [taken[number] for number in range(len(sections))]
        return layout.text(sections, counts, way(left_out(sections, counts)))

    if may_be_whole and fits(whole := text(len(turns)), max_tokens):
        return whole
    if least > len(turns) or not fits(found := text(least), max_tokens):
        return None
    low, high = least, len(turns) - 1
    while low < high:
        middle = (low + high + 1) // 2
        longer = text(middle)
        if fits(longer, max_tokens):
            low, found = middle, longer
        else:
            high = middle - 1
    return found


def left_out(sections: Sequence[Section], taken: Sequence[int]) -> list[LeftOut]:
    """Return what is not shown if so many items of each section are."""
    counts = (len(section.items) - items + section.further for section, items in zip(sections, taken, strict=True))
    return [LeftOut(section, count) for section, count in zip(sections, counts, strict=True) if count > 0]


def _markdown(sections: Sequence[Section], taken: Sequence[int], rest: str) -> str:
    parts = [
        section.head + "".join(section.items[:items]) + section.tail
        for section, items in zip(sections, taken, strict=True)
        if items
    ]
    return "\n".join([*parts, *([rest] if rest else [])])


def _listed(rest: Sequence[LeftOut]) -> str:
    counts: Counter[tuple[str, str, str]] = Counter()
    for section, count in rest:
        counts[section.unit, section.name, section.command] += count
    lines = [
        f"- {count:,} {unit} of {name}{f': `{command}`' if command else ''}\n"
        for (unit, name, command), count in counts.items()
    ]
    return "## Left out\n\n" + "".join(lines) if lines else ""


def _in_a_line(rest: Sequence[LeftOut], fetch: str) -> str:
    counts: Counter[str] = Counter()
    for section, count in rest:
        counts[section.name] += count
    what = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    return f"Left out: {what}.{f' Fetch: `{fetch}`.' if fetch else ''}\n" if rest else ""


def _as_a_number(rest: Sequence[LeftOut], fetch: str) -> str:
    return f"Left out: {sum(c for _, c in rest):,} items{f'; `{fetch}`' if fetch else ''}.\n" if rest else ""


def _first_item(sections: Sequence[Section], max_tokens: int) -> str:
    first = next((section for section in sections if section.items), None)
    return cut(first.head + first.items[0], max_tokens) if first else ""


def markdown(fetch: str, fetch_most: str) -> Layout:
    """Return the layout of Markdown with a list of what is left out at its end.

    Args:
        fetch: The command that fetches it, where there is no room to say that for each section; empty where none does.
        fetch_most: The same, where there is room for a number only.
    """
    ways = (
        _listed,
        lambda rest: _in_a_line(rest, fetch),
        lambda rest: _as_a_number(rest, fetch_most),
        lambda rest: _as_a_number(rest, ""),
        lambda rest: "",
    )
    return Layout(_markdown, ways, _first_item)
