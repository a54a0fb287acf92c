"""The attributes of spans of calls: what goes into the journal in their place, and what is made of that."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

import msgpack
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext

from otel_debugstore.call_columns import CallKind, Calls
from otel_debugstore.errors import CorruptDataError
from otel_debugstore.masking import masker
from otel_debugstore.outbox import OUTBOX
from otel_debugstore.payload.capture import capture
from otel_debugstore.payload.limits import limits_of_settings
from otel_debugstore.recording_settings import recording_settings
from otel_debugstore_exporters import codec
from otel_debugstore_exporters.batch import CallValues
from otel_debugstore_exporters.call_attributes import attributes_kept, call_values
from otel_debugstore_exporters.encoder import Encoder

SECRET: Final = "ghp_" + "a1B2" * 9
INPUT, OUTPUT = "debugstore.input.digest", "debugstore.output.digest"
LAYER: Final = {"debugstore.layer": "tool"}
RESOURCE: Final = Resource({"service.name": "s"})
SCOPE: Final = InstrumentationScope("scope")


@pytest.fixture(autouse=True)
def outbox() -> Iterator[None]:
    is_open = OUTBOX.is_open
    OUTBOX.after_fork_in_child()
    OUTBOX.open()
    yield
    OUTBOX.is_open = is_open
    OUTBOX.after_fork_in_child()


def kind(
    parameters: tuple[str, ...] | None = ("a", "b"),
    *,
    positional: int = 2,
    has_result: bool = True,
    is_content_kept: bool = True,
    name: str = "work",
    attributes: dict[str, Any] = LAYER,
) -> CallKind:
    return CallKind(name, attributes, parameters, positional, has_result, is_content_kept, RESOURCE, SCOPE)


def calls_of(*rows: tuple[CallKind, tuple[Any, ...], dict[str, Any], Any, dict[str, Any]]) -> Calls:
    """Return calls: of each its kind, arguments by place and by name, result, and further attributes."""
    kinds = list({id(row[0]): row[0] for row in rows}.values())
    return Calls(
        contexts=[SpanContext(1, 1 + row, is_remote=False) for row in range(len(rows))],
        parents=[None for _ in rows],
        start_ns=[10 + row for row in range(len(rows))],
        end_ns=[20 + row for row in range(len(rows))],
        cpu_ns=[row - 1 for row in range(len(rows))],
        kinds=kinds,
        kind_index=[[id(one) for one in kinds].index(id(row[0])) for row in rows],
        arguments=[row[1] for row in rows],
        arguments_by_name={number: row[2] for number, row in enumerate(rows) if row[2]},
        results=[row[3] for row in rows],
        more={number: row[4] for number, row in enumerate(rows) if row[4]},
    )


def one(*args: Any, result: Any = None, more: dict[str, Any] | None = None, **kwargs: Any) -> Calls:
    """Return one call."""
    return calls_of((kind(), args, kwargs, result, more or {}))


_SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=40)
)
_KINDS = st.builds(
    kind,
    st.none() | st.just(()) | st.just(("a", "b", "c")),
    positional=st.integers(0, 2),
    has_result=st.booleans(),
    is_content_kept=st.booleans(),
    attributes=st.dictionaries(st.text("xyz", max_size=3), _SCALARS | st.lists(st.integers(0, 9)), max_size=3),
)


@st.composite
def _calls(draw: st.DrawFn) -> Calls:
    kinds = draw(st.lists(_KINDS, min_size=1, max_size=3))
    rows = []
    for _ in range(draw(st.integers(1, 6))):
        of = draw(st.sampled_from(kinds))
        takes = of.parameters is not None
        rows.append(
            (
                of,
                tuple(draw(st.lists(_SCALARS, max_size=3))) if takes else (),
                draw(st.dictionaries(st.sampled_from("abcd$"), _SCALARS, max_size=2)) if takes else {},
                draw(_SCALARS) if of.has_result else None,
                draw(st.dictionaries(st.text("mno$", max_size=3), _SCALARS, max_size=2)),
            )
        )
    return calls_of(*rows)


@given(_calls())
def test_what_is_restored_is_what_would_have_been_kept(calls: Calls) -> None:
    """The same attributes and contents, whether they are made before they are written or when they are read."""
    OUTBOX.after_fork_in_child()
    encoder = Encoder(7)
    batch = encoder.calls(calls)
    assert len(batch) == len(calls.results)
    is_later = batch.call_values is not None
    read = codec.decode(encoder.blob(batch))
    if not is_later:
        assert not read.payloads
    payloads = [*read.payloads, *OUTBOX.take().payloads]
    OUTBOX.after_fork_in_child()
    assert [dict(some) for some in read.attributes] == [dict(some) for some in attributes_kept(calls)]
    assert {one.digest: one for one in payloads} == {one.digest: one for one in OUTBOX.take().payloads}
    assert [read.record(row).name for row in range(len(read))] == ["work"] * len(calls.results)
    if all(one.is_content_kept for one in calls.kinds) and not any("$" in repr(name) for name in calls.more.values()):
        assert is_later or any("$" in some for some in calls.arguments_by_name.values())


def test_what_most_calls_are_is_made_later() -> None:
    """Attributes of a call that are not written are those that are read: digests of what it was given and returned."""
    encoder = Encoder(7)
    blob = encoder.blob(encoder.calls(calls_of((kind(), (1,), {"b": "x"}, None, {"debugstore.attempt": 2}))))
    assert blob[0] == 2
    read = codec.decode(blob)
    assert read.attributes == [
        {
            "debugstore.layer": "tool",
            INPUT: capture({"a": 1, "b": "x"}).digest,
            "debugstore.attempt": 2,
            OUTPUT: capture(None).digest,
        }
    ]
    assert sorted(payload.content for payload in read.payloads) == [b"\x82\xa1a\x01\xa1b\xa1x", b"\xc0"]
    assert (read.resources[0].attributes["service.name"], read.scopes[0].name, read.pid) == ("s", "scope", 7)
    assert not OUTBOX.take()


def test_the_version_of_blobs() -> None:
    """Only those that older readers can't read say so."""
    encoder = Encoder(7)
    late, early = encoder.calls(one(1)), encoder.calls(one(SECRET))
    assert (encoder.blob(late)[0], encoder.blob(early)[0]) == (2, 1)


LEAKS: Final[dict[str, Calls]] = {
    "argument": one(1, SECRET),
    "argument by name": one(1, b=SECRET),
    "argument with a telling name": calls_of((kind(("password",)), ("hunter-two",), {}, None, {})),
    "unknown argument with a telling name": one(1, password="hunter-two"),
    "result": one(1, result=f"see {SECRET}"),
    "further attribute": one(1, more={"note": SECRET}),
    "further attribute with a telling name": one(1, more={"api_key": "hunter-two"}),
    "attribute of all": calls_of((kind(attributes=LAYER | {"code.file.path": f"/{SECRET}/x"}), (), {}, None, {})),
    "attribute of all with a telling name": calls_of(
        (kind(attributes=LAYER | {"password": "hunter-two"}), (), {}, None, {})
    ),
    "component": calls_of((kind(name=f"call {SECRET}"), (), {}, None, {})),
    "one of many": calls_of(*[(kind(), (row, SECRET if row == 50 else "text"), {}, row, {}) for row in range(100)]),
}


@pytest.mark.parametrize("place", LEAKS)
def test_no_secret_is_written(place: str) -> None:
    """Wherever it is in a call, it is neither in its blob nor in what goes beside it."""
    encoder = Encoder(7)
    batch = encoder.calls(LEAKS[place])
    contents = list(encoder.contents(OUTBOX.take().payloads, ()))
    blobs = [encoder.blob(batch), *map(encoder.blob, contents)]
    raw = b"".join(zstandard.ZstdDecompressor().decompress(blob[codec.HEADER.size :]) for blob in blobs)
    assert b"layer" in raw
    assert SECRET.encode() not in raw
    assert b"hunter-two" not in raw
    assert b"masked" in raw


CLOSER_LOOKS: Final[dict[str, Calls]] = {
    "digests only": calls_of((kind(is_content_kept=False), (1,), {}, None, {})),
    "a lone surrogate": one("\ud800"),
    "a name like a tag": calls_of((kind(), (1,), {"$map": 1}, None, {})),
    "much content": calls_of(*[(kind(), ("x" * 1000,), {}, None, {}) for _ in range(66)]),
    "long names": calls_of((kind(("k" * 70_000,)), (1,), {}, None, {})),
    "nested too deep to be packed": one(1, more={"deep": object()}),
}


@pytest.mark.parametrize("why", CLOSER_LOOKS)
def test_what_needs_a_closer_look(why: str) -> None:
    """It is not written as it is."""
    assert call_values(CLOSER_LOOKS[why], masker()) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_DEBUGSTORE_EXPORT_PAYLOADS", "true"),
        ("OTEL_DEBUGSTORE_PAYLOAD_DEPTH", "3"),
        ("OTEL_DEBUGSTORE_MASK_PATTERNS", "nothing-of-this"),
    ],
)
def test_settings_that_need_a_closer_look(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contents in attributes, other limits than the usual, and patterns of the user."""
    caches: tuple[Any, ...] = (recording_settings, limits_of_settings, masker)
    assert call_values(one(1), masker()) is not None
    monkeypatch.setenv(name, value)
    for cache in caches:
        cache.cache_clear()
    try:
        assert call_values(one(1), masker()) is None
    finally:
        monkeypatch.undo()
        for cache in caches:
            cache.cache_clear()


GOOD: Final[tuple[Any, ...]] = [[LAYER, ["a"], 1, True]], b"\0\0\0\0", bytes(8), [[[1]], {}, [None], {}]


def damaged(place: int, value: Any) -> CallValues:
    parts: list[Any] = list(GOOD)
    parts[place] = value
    kinds, kind_index, cpu_ns, contents = parts
    return CallValues(kinds, kind_index, cpu_ns, contents if type(contents) is bytes else msgpack.packb(contents))


def blob_with(values: Any) -> bytes:
    batch = Encoder(7).calls(one(1))
    batch.call_values = values
    return codec.encode(batch, time.time_ns())


@pytest.mark.parametrize(
    "values",
    [
        damaged(0, []),
        damaged(0, [[LAYER]]),
        damaged(0, [[7, ["a"], 1, True]]),
        damaged(0, [[LAYER, 7, 1, True]]),
        damaged(0, [[LAYER, ["a"], "x", True]]),
        damaged(1, b"\1\0\0\0"),
        damaged(1, b"\0\0\0"),
        damaged(1, b""),
        damaged(2, bytes(16)),
        damaged(3, b"\xc1"),
        damaged(3, b""),
        damaged(3, []),
        damaged(3, [[[1], [2]], {}, [None, None], {}]),
        damaged(3, [[7], {}, [None], {}]),
        damaged(3, [[[1]], {0: 7}, [None], {}]),
        damaged(3, [[[1]], {}, [None], {0: 7}]),
        damaged(3, [[[1]], {}, [msgpack.ExtType(9, b"x")], {}])._replace(kinds=7),  # type: ignore[arg-type]
        (1, 2),
    ],
)
def test_damaged_values_of_calls(values: Any) -> None:
    """They are named as such, like any other damage of a blob."""
    assert codec.decode(blob_with(damaged(0, GOOD[0]))).attributes
    with pytest.raises(CorruptDataError):
        codec.decode(blob_with(values))
