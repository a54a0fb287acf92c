"""Looking at a span that is made later, while its call runs and after: nobody can tell it from the SDK's."""

# ruff: noqa: F811  # the names of fixtures are those of arguments

from __future__ import annotations

import copy
import json
import pickle
import warnings
from collections.abc import Callable
from typing import Any, Final

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import (
    ReadableSpan,
    _Span,
)
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceState

from deferring import (
    CPU,
    INPUT,
    MEASURED,
    OUTPUT,
    WAYS,
    Recorded,
    context_of,
    current,
    in_both,
    kept,  # noqa: F401  # a fixture of all tests here
    memory,  # noqa: F401  # a fixture
    prepared,
    provided,
    recording,
)
from otel_debugstore import tool
from otel_debugstore.payload.capture import capture

# Looking at the current span.


def seen_attributes(span: Any) -> dict[str, Any]:
    return {key: value for key, value in dict(span.attributes).items() if not key.startswith(MEASURED)}


def seen_json(span: Any) -> dict[str, Any]:
    """Return what JSON says but for ids and times."""
    found: dict[str, Any] = json.loads(span.to_json(indent=None))
    assert found.pop("start_time")
    assert found.pop("end_time") is None
    assert found.pop("context")["trace_id"] == f"0x{trace.format_trace_id(span.context.trace_id)}"
    return found


def seen_info(span: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        info = span.instrumentation_info
    return info.name, info.version, info.schema_url


def seen_start(span: Any) -> Any:
    assert span.start_time > 1e18
    return type(span.start_time)


OTHER = SpanContext(5, 6, is_remote=True, trace_state=TraceState([("a", "b")]))
LOOKS: Final[dict[str, Callable[[Any], Any]]] = {
    "set_attribute": lambda span: span.set_attribute("key", (1, 2)),
    "set_attributes": lambda span: span.set_attributes({"key": 1, "other": "text"}),
    "add_event": lambda span: span.add_event("event", {"a": 1}, timestamp=5),
    "add_link": lambda span: span.add_link(OTHER, {"a": 1}),
    "update_name": lambda span: span.update_name("renamed"),
    "set_status": lambda span: span.set_status(Status(StatusCode.ERROR, "said")),
    "record_exception": lambda span: span.record_exception(ValueError("said"), {"a": 1}),
    "is_recording": lambda span: span.is_recording(),
    "start": lambda span: span.start(),
    "end": lambda span: span.end(),
    "get_span_context": lambda span: context_of(span.get_span_context()),
    "context": lambda span: context_of(span.context),
    "name": lambda span: span.name,
    "kind": lambda span: span.kind,
    "parent": lambda span: span.parent,
    "start_time": seen_start,
    "end_time": lambda span: span.end_time,
    "status": lambda span: (span.status.status_code, span.status.description),
    "attributes": seen_attributes,
    "events": lambda span: span.events,
    "links": lambda span: span.links,
    "resource": lambda span: span.resource.attributes,
    "instrumentation_info": seen_info,
    "instrumentation_scope": lambda span: span.instrumentation_scope,
    "dropped_attributes": lambda span: span.dropped_attributes,
    "dropped_events": lambda span: span.dropped_events,
    "dropped_links": lambda span: span.dropped_links,
    "to_json": seen_json,
}
MORE_LOOKS: Final[dict[str, Callable[[Any], Any]]] = {
    "set_status ok": lambda span: span.set_status(StatusCode.OK),
    "end then": lambda span: span.end(end_time=1 << 62),
    "with": lambda span: span.__enter__() is span and span.__exit__(None, None, None),
    "with an error": lambda span: span.__exit__(ValueError, ValueError("said"), None),
    "unknown name": lambda span: hasattr(span, "no_such_name"),
    "isinstance": lambda span: (isinstance(span, ReadableSpan), isinstance(span, trace.Span), isinstance(span, _Span)),
    "equality": lambda span: (span == span, span == copy.copy(span), len({span, span})),
}


def test_all_that_a_span_has_is_looked_at() -> None:
    """The tests below know every public name of the SDK's span."""
    assert {name for name in dir(_Span) if not name.startswith("_")} == set(LOOKS)


@pytest.mark.parametrize("look", [*LOOKS, *MORE_LOOKS])
@pytest.mark.parametrize("way", WAYS)
def test_looking_at_the_current_span(way: str, look: str, caplog: pytest.LogCaptureFixture) -> None:
    """It answers as the SDK's does, and says as much in the log; what was set is recorded, with digests, once."""

    def run(memory: Recorded) -> Any:
        caplog.clear()
        returned = []

        def work(number: int, text: str) -> int:
            returned.append((LOOKS | MORE_LOOKS)[look](current()))
            return number

        prepared(way, work)(5, text="text")
        assert trace.get_current_span() is trace.INVALID_SPAN
        assert len(memory.spans()) == 2
        return returned, [record.getMessage() for record in caplog.records]

    later, at_once = in_both(run)
    assert later == at_once
    assert INPUT in later[1][1]["attributes"]


@pytest.mark.parametrize("look", [*LOOKS, *MORE_LOOKS])
@pytest.mark.parametrize("way", WAYS)
def test_looking_leaves_the_same_span(memory: Recorded, way: str, look: str) -> None:
    """Before, while and after somebody looks one object is the current span, with one context."""

    def work() -> None:
        before = current()
        contexts = before.get_span_context()
        (LOOKS | MORE_LOOKS)[look](before)
        assert current() is before
        assert isinstance(before, ReadableSpan)
        assert before.get_span_context() is before.context is contexts

    prepared(way, work)()
    assert [
        span.status.description for span in memory.spans() if "AssertionError" in str(span.status.description)
    ] == []


@pytest.mark.parametrize("way", WAYS)
def test_several_looks(way: str) -> None:
    """All that is set before and after the span was made is recorded, and seen at once."""

    def run(memory: Recorded) -> Any:
        def work(number: int) -> str:
            span = current()
            for name in ("set_attribute", "add_event", "add_link", "update_name", "set_status"):
                LOOKS[name](span)
            span.set_attribute("key", "later")
            assert (span.attributes["key"], span.name, len(span.events)) == ("later", "renamed", 1)
            return "done"

        prepared(way, work)(5)

    later, at_once = in_both(run)
    assert later == at_once


@pytest.mark.parametrize("at_once", [False, True], ids=["deferred", "made at once"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("is_looked_at", [False, True], ids=["unseen", "seen"])
def test_copies(way: str, at_once: bool, is_looked_at: bool) -> None:
    """A copy is what the original is; what can't be done with a span of the SDK can't be done with this one."""
    with recording(at_once=at_once) as memory:

        def work(number: int) -> int:
            span = current()
            if is_looked_at:
                span.set_attribute("before", 1)
            other = copy.copy(span)
            assert other.get_span_context() == span.get_span_context()
            assert other.name == span.name == "work"
            assert other.is_recording()
            other.set_attribute("key", 1)
            for fails in (copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError):
                    fails(span)
            assert span.attributes["key"] == 1
            return number

        assert prepared(way, work)(5) == 5
        attributes = memory.spans()[-1].attributes or {}
        assert len(memory.spans()) == 2
        assert attributes["key"] == 1
        assert attributes[OUTPUT] == capture(5).digest


@pytest.mark.parametrize("way", WAYS)
def test_what_others_keep_at_a_span(memory: Recorded, way: str) -> None:
    """A field that somebody gives to the object stays where it is when the span is made."""

    def work() -> Any:
        span = current()
        span.of_somebody = "kept"
        span.set_attribute("key", 1)
        return span.of_somebody

    assert prepared(way, work)() == "kept"


@pytest.mark.parametrize("way", WAYS)
def test_a_span_that_the_program_ends_and_sets_afterwards(way: str) -> None:
    """What comes after the program's own end is not recorded; inputs, which came before, are."""

    def run(memory: Recorded) -> Any:
        def work(number: int) -> int:
            current().set_attribute("key", 1)
            current().end()
            current().set_attribute("late", 1)
            assert not current().is_recording()
            with tool("child"):
                pass
            return number

        prepared(way, work)(5)

    later, at_once = in_both(run)
    assert later == at_once


# A span after its end.


def kept_span(way: str, *, is_looked_at: bool = False) -> Any:
    """Return the span of a call that has ended."""
    spans = []

    def work(number: int) -> list[int]:
        spans.append(current())
        if is_looked_at:
            current().set_attribute("key", 1)
        return [number]

    prepared(way, work)(5)
    return spans[0]


@pytest.mark.parametrize("is_flushed", [False, True], ids=["unwritten", "written"])
@pytest.mark.parametrize("is_looked_at", [False, True], ids=["unseen", "seen"])
@pytest.mark.parametrize("way", WAYS)
def test_a_span_that_has_ended(way: str, is_looked_at: bool, is_flushed: bool) -> None:
    """It says all that is stored of it, whether that was written before or after somebody asked."""
    provider, sink = provided()
    span = kept_span(way, is_looked_at=is_looked_at)
    if is_flushed:
        provider.force_flush()
    assert not span.is_recording()
    attributes = dict(span.attributes)
    assert attributes[INPUT] == capture({"*": [5]}).digest
    assert attributes[OUTPUT] == capture([5]).digest
    assert CPU in attributes
    assert attributes.get("key") == (1 if is_looked_at else None)
    provider.force_flush()
    (stored,) = [one for one in sink.spans if one.context.span_id == span.context.span_id]
    assert attributes == dict(span.attributes) == dict(stored.attributes or {})
    assert json.loads(span.to_json()) == json.loads(stored.to_json())
    assert (span.start_time, span.end_time, span.name) == (stored.start_time, stored.end_time, stored.name)
    assert (span.parent, span.status.status_code, span.kind) == (stored.parent, stored.status.status_code, stored.kind)


CHANGING: Final = [name for name in LOOKS if name.startswith(("set_", "add_", "update", "record", "end", "start"))]


@pytest.mark.parametrize("look", sorted(set(CHANGING) - {"end_time", "start_time"}))
@pytest.mark.parametrize("is_flushed", [False, True], ids=["unwritten", "written"])
@pytest.mark.parametrize("way", WAYS)
def test_changing_a_span_that_has_ended(
    way: str, is_flushed: bool, look: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The SDK's warning is in the log, nothing stored changes, and nothing is recorded twice."""

    def run(memory: Recorded) -> Any:
        span = kept_span(way)
        if is_flushed:
            memory.spans()
        caplog.clear()
        LOOKS[look](span)
        messages = [record.getMessage() for record in caplog.records]
        assert len(messages) == 1
        assert len(memory.spans()) == 2
        return messages, seen_attributes(span), span.name, span.status.status_code, len(span.events), len(span.links)

    later, at_once = in_both(run)
    assert later == at_once
