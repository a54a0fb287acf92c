"""What a report says first: what is slow and failing, and what to do about it.

A verdict has at most 150 tokens and all recommendations have at most 600, whatever was recorded, so that both are in a
report of 1,000 tokens word for word, in Markdown and in JSON; names are cut, and what does not fit is not said.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, NamedTuple

from otel_debugstore_analysis.plain_json import json_text
from otel_debugstore_analysis.report.findings import Findings
from otel_debugstore_analysis.report.markdown import code
from otel_debugstore_analysis.report.tokens import fits
from otel_debugstore_analysis.text import duration, human, instant

VERDICT_TOKENS: Final = 150
RECOMMENDATION_TOKENS: Final = 600
MAX_RECOMMENDATIONS: Final = 5
_NAME_TOKENS: Final = 20


class Recommendation(NamedTuple):
    """What to do.

    Attributes:
        kind: The analysis that it comes from.
        component: What it is about; None where that has no name.
        text: What to do and what that would gain, in a sentence or two of Markdown.
        expected_ns_per_s: What can be expected to be saved in each second of observation; None where that is not known.
        trace_ids: Traces that show it.
    """

    kind: str
    component: str | None
    text: str
    expected_ns_per_s: float | None
    trace_ids: tuple[str, ...]


def verdict(findings: Findings) -> list[str]:
    """Return sentences of Markdown, the most important first."""
    return _within(_sentences(findings), VERDICT_TOKENS)


def recommendations(findings: Findings) -> list[Recommendation]:
    """Return what to do, the most important first."""
    found = [
        *islice(_candidates(findings), MAX_RECOMMENDATIONS),
        *islice(_changes(findings), 1),
        *islice(_failures(findings), 1),
    ]
    fitting = _within((one.text for one in found), RECOMMENDATION_TOKENS)
    return found[: len(fitting)]


def _within(texts: Iterable[str], max_tokens: int) -> list[str]:
    """Return the first texts that have together at most so many tokens, in Markdown and in JSON."""
    found: list[str] = []
    for text in texts:
        longer = [*found, text]
        if not all(fits(one, max_tokens) for one in ("".join(f"00. {one}\n" for one in longer), json_text(longer))):
            break
        found = longer
    return found


def _sentences(findings: Findings) -> Iterator[str]:
    seen = findings.overview
    if not seen.span_count:
        yield "No span is selected: there is nothing to report."
        return
    yield from _slow(findings)
    yield from _failing(findings)
    yield from _since(findings)
    yield _scope(findings)


def _slow(findings: Findings) -> Iterator[str]:
    workflows = {row["workflow"]: row for row in findings.rows("critical_path.workflows")}
    for row in findings.rows("critical_path.components")[:1]:
        workflow = workflows.get(row["workflow"], {})
        share = human("critical_share", row["critical_share"])
        p50, p95 = (human(name, workflow.get(name)) for name in ("p50_ns", "p95_ns"))
        times = f" (p50 {p50}, p95 {p95})" if workflow else ""
        if row["component"] == row["workflow"]:
            yield f"{_named(row['workflow'])} takes {share} of its time itself{times}."
        else:
            yield f"{_named(row['component'])} takes {share} of the time of {_named(row['workflow'])}{times}."


def _failing(findings: Findings) -> Iterator[str]:
    seen = findings.overview
    if seen.error_count:
        share = human("error_rate", seen.error_count / seen.span_count)
        most = findings.rows("errors.groups")
        which = f", most often {_named(most[0]['exception_type'] or most[0]['message'])}" if most else ""
        yield f"{seen.error_count:,} calls failed ({share}){which}."


def _since(findings: Findings) -> Iterator[str]:
    for row in findings.rows("regressions"):
        if row["verdict"] == "slower":
            yield f"{_named(row['component'])} is {row['ratio']:.2f} times as slow as before{_when(row)}."
            return


def _scope(findings: Findings) -> str:
    seen = findings.overview
    when = ""
    if seen.start_ns is not None and seen.end_ns is not None:
        when = f", from {instant(seen.start_ns)} UTC on, over {duration(seen.end_ns - seen.start_ns)}"
    spans, traces, sessions = (
        f"{count:,} {name}{'s' if count != 1 else ''}"
        for count, name in ((seen.span_count, "span"), (seen.trace_count, "trace"), (seen.session_count, "session"))
    )
    return f"{spans} of {traces} in {sessions}{when}."


def _candidates(findings: Findings) -> Iterator[Recommendation]:
    for row in findings.rows("candidates"):
        what, where = _named(row["component"]), row["where"]
        saved, sure = duration(row["saved_ns_per_s"]), f"{math.floor(100 * row['confidence'])} %"
        if row["kind"] == "faster":
            p95 = human("p95_saved_ns", row["p95_saved_ns"])
            to_do = f"Make {what} faster: at half its own time {_named(where)} takes {p95} less at p95"
        else:
            below = f" below {_named(where)}" if where is not None else ""
            to_do = f"{_HABITS[row['kind']]} {what}{below}, {row['observations']:,} times"
        text = f"{to_do}; saves up to {saved} of each second, confidence {sure}."
        yield Recommendation(row["kind"], row["component"], text, row["expected_ns_per_s"], row["trace_ids"])


def _changes(findings: Findings) -> Iterator[Recommendation]:
    """Yield what became slower, the most first."""
    for row in findings.rows("regressions"):
        if row["verdict"] == "slower":
            slower = f"{row['ratio']:.2f} times as slow{_when(row)}{''.join(_changed(row))}"
            text = f"Look at what changed {_named(row['component'])}: {slower}."
            yield Recommendation("regression", row["component"], text, None, row["trace_ids"])


def _changed(row: dict[str, Any]) -> Iterator[str]:
    """Yield which code was there from a change on, and at which commit, where it was other code before."""
    for name in ("variant", "commit"):
        before, after = row[f"{name}_before"], row[f"{name}_after"]
        if before is not None and after is not None and before != after:
            yield f", from {name} {_named(after)} on (before: {_named(before)})"


def _failures(findings: Findings) -> Iterator[Recommendation]:
    """Yield what fails, the most frequent first."""
    for row in findings.rows("errors.groups"):
        where = f" in {_named(row['components'][0])}" if row["components"] else ""
        message = f" ({_named(row['message'])})" if row["exception_type"] and row["message"] else ""
        what = _named(row["exception_type"] or row["message"])
        text = f"Find out why {what}{message} is raised{where}: {row['count']:,} times."
        yield Recommendation("error", next(iter(row["components"]), None), text, None, row["trace_ids"])


_HABITS: Final = {
    "n_plus_one": "Ask once for all instead of again and again:",
    "serial_calls": "See which of these need each other, and make the others side by side:",
    "retry": "Find out why it fails at first:",
    "repeated_call": "Keep the result of equal calls:",
    "lockstep_wait": "Don't wait between children:",
    "cold_start": "Warm up before the first call:",
    "growing_input": "Bound the input that grows:",
}


def _when(row: dict[str, Any]) -> str:
    return f" since {instant(row['at_ns'])} UTC" if row["at_ns"] is not None else ""


def _named(name: Any) -> str:
    return code(name, _NAME_TOKENS) if name is not None else "(unnamed)"
