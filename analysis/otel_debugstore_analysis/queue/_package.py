"""An item as a coding agent needs it: what is too slow, what has to be reached and how it is proven, in so many tokens.

Names, code and causes were recorded, and what earlier attempts said was written by others: all of it stands in code
spans and fences, and nothing of it can end these (`report.markdown`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from otel_debugstore_analysis.queue._changes import GAVE_UP
from otel_debugstore_analysis.queue._history import AUDITED
from otel_debugstore_analysis.queue._item import Event, QueueItem, Violation
from otel_debugstore_analysis.report.budget import Section, Tier, fit, markdown
from otel_debugstore_analysis.report.commands import line
from otel_debugstore_analysis.report.markdown import UNTRUSTED, cell, code, fence, fenced_line, table_head
from otel_debugstore_analysis.text import human, instant

MAX_TOKENS: Final = 4_000
_COLUMNS: Final = ("what", "is", "has to be", "interval from", "to")
_LONG: Final = 120
"""Tokens of a text that is worth reading."""
_MAX_NAME: Final = 200
"""Characters of a name that is put into a command."""


def package(item: QueueItem, max_tokens: int = MAX_TOKENS) -> str:
    """Return an item as Markdown of at most so many tokens: limits and what to do first, code after them."""
    show = f"debugstore queue show {item.id}"
    layout = markdown(f"{show} --max-tokens 20000", f"{show} --max-tokens 4000")
    return fit([section for section in _sections(item, show) if section.items], max_tokens, layout)


def _sections(item: QueueItem, show: str) -> Iterator[Section]:
    title = f"# Make {code(item.component)} faster\n\n{UNTRUSTED}\n"
    yield Section(Tier.VERDICT, "what is wrong", title, tuple(_lines(_wrong(item))), show, unit="sentences")
    yield Section(
        Tier.RECOMMENDATIONS,
        "limits",
        f"## Limits\n\n{table_head(_COLUMNS, [('', 0, 0, 0, 0)])}",
        tuple(_limit_line(*row) for row in _limits(item)),
        show,
    )
    yield Section(
        Tier.RECOMMENDATIONS,
        "how it is proven",
        "## What to do\n\n",
        tuple(_lines(_to_do(item))),
        show,
        unit="sentences",
    )
    yield Section(
        Tier.EVIDENCE,
        "traces",
        "## Traces that show it\n\n",
        tuple(f"- `debugstore trace {trace_id} --all-sessions`\n" for trace_id in item.trace_ids),
        show,
        unit="traces",
    )
    yield _history(item, f"{show} --format json")
    yield _code(item, f"{show} --format json")


def _lines(sentences: Iterator[str]) -> Iterator[str]:
    return (f"- {sentence}\n" for sentence in sentences)


def _wrong(item: QueueItem) -> Iterator[str]:
    variant = f", version {code(item.variant)} of its code" if item.variant else ""
    said = "keeps its limits by the newest audit" if item.keeps_limits else "does not keep its limits"
    yield f"The {code(item.layer)} {code(item.component)}{variant} {said}."
    if item.has_own_name:
        yield f"Its calls are recorded as {code(item.recorded_name)}."
    if item.is_unapplied:
        yield "What was proven is not in use: this code was still called after the proof."
    for name, measured, limit, *_ in _worst_first(item)[:1]:
        yield f"Worst: {code(name)} is {human(name, measured)}, the limit is {human(name, limit)}."
    if item.expected_saving_ns_per_s:
        saved = human("saved_ns_per_s", item.expected_saving_ns_per_s)
        yield f"Reaching the limit saves about {saved}, confidence {100 * item.confidence:.0f} %."
    terms = ", ".join(f"{name} {human(name, value)}" for name, value in item.priority_terms.items())
    yield f"Item {code(item.id)}, {item.state}, priority {human('priority', item.priority)} ({terms})."


def _to_do(item: QueueItem) -> Iterator[str]:
    yield "Change the code so that the limits are kept. Same arguments must give the same results and the same errors."
    if item.tests:
        yield f"The tests must pass: {code(' '.join(item.tests), _LONG)}"
    yield (
        "All of what follows is done by "
        f"`debugstore optimize {item.id} --with CMD`, where CMD reads this and writes a patch or the changed code."
    )
    if item.lease is None:
        yield f"Claim it: `debugstore queue claim {item.id} --by NAME`. Others leave it alone until the lease is over."
    yield f"Name the candidate: `debugstore queue propose {item.id} --candidate PATCH_OR_MODULE --by NAME`."
    name = item.component
    if len(name) <= _MAX_NAME and not name.startswith("-") and (replay := line("debugstore", "replay", name)):
        yield f"Run recorded calls through it: `{replay} --candidate PKG.MOD:FUNC --format json > FILE.json`."
    yield (
        "It is closed by a proof only, a comparison with the verdict faster whose outputs were checked: "
        f"`debugstore queue prove {item.id} --evidence FILE.json`."
    )
    yield f"If it fails: `debugstore queue reject {item.id} --why TEXT --by NAME`."


def _worst_first(item: QueueItem) -> list[Violation]:
    return sorted(item.violations, key=lambda violation: -violation.excess)


def _limits(item: QueueItem) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = [one[: len(_COLUMNS)] for one in _worst_first(item)]
    named = {one.measure for one in item.violations}
    others = (name for name in item.target if name not in named)
    return [*rows, *((name, item.measured.get(name), item.target[name], None, None) for name in others)]


def _limit_line(measure: str, *values: float | None) -> str:
    """Return a row: the measure's name says the unit of all of them."""
    return f"| {cell('measure', measure)} | {' | '.join(human(measure, value) for value in values)} |\n"


def _history(item: QueueItem, command: str) -> Section:
    """Return what happened so far, the newest first: who tries again should know why others failed, not who began."""
    told = [event for event in reversed(item.history) if _is_told(event)]
    return Section(
        Tier.EVIDENCE,
        "history",
        "## What happened so far\n\n",
        tuple(map(_event_line, told)),
        command,
        unit="events",
        further=item.history_left_out + len(item.history) - len(told),
    )


def _is_told(event: Event) -> bool:
    is_audit = event.what.startswith(AUDITED)
    return is_audit or (event.state != "claimed" and event.what != GAVE_UP)


def _event_line(event: Event) -> str:
    whose = f" by {code(event.by)}" if event.by else ""
    return f"- {instant(event.at_ns)} UTC, {event.state}{whose}: {code(event.what, _LONG)}\n"


def _code(item: QueueItem, command: str) -> Section:
    found = item.code
    lines = [fenced_line(line) for line in found.source.splitlines()] if found else []
    opening, closing = fence(lines, "python")
    place = ""
    if found:
        file = f"{found.file_path}:{found.line_number}" if found.file_path and found.line_number else found.file_path
        place = ", ".join(code(part, _LONG) for part in (found.qualified_name, file) if part)
    return Section(
        Tier.CODE,
        "code",
        f"## Code\n\n{f'{place}{chr(10)}{chr(10)}' if place else ''}{opening}",
        tuple(lines),
        command,
        unit="lines",
        tail=closing,
    )
