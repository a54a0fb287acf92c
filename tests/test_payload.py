"""Arguments and results are captured within limits, without running code of the program, and can be made again."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import fractions
import functools
import io
import ipaddress
import math
import os
import pathlib
import re
import subprocess
import sys
import threading
import types
import uuid
import zoneinfo
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, make_dataclass
from typing import Any

import msgpack
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

import captured
from captured import CALLS, HOSTILE_SUBCLASSES, Color, Hostile, Job, Level, Login, Model, Permission, Point
from otel_debugstore.errors import NotReplayableError
from otel_debugstore.masking import Masker
from otel_debugstore.payload import Limits, capture, capture_arguments, describe, mask_content, restore, summarize_with

MASKER = Masker()


def plain(value: Any, limits: Limits | None = None) -> Any:
    """What was captured, as MessagePack holds it."""
    return msgpack.unpackb(capture(value, MASKER, limits or Limits()).content)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, of the same types, with NaN equal to NaN and dicts in the same order."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return (one == other and math.copysign(1, one) == math.copysign(1, other)) or (one != one and other != other)
    if isinstance(one, complex):
        return same(one.real, other.real) and same(one.imag, other.imag)
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            same(a, b) and same(one[a], other[b]) for a, b in zip(one, other, strict=True)
        )
    if isinstance(one, (list, tuple, deque)):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, np.ndarray):
        return bool(one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes())
    return bool(one == other)


_TEXTS = st.text(st.characters(), max_size=10) | st.sampled_from(["$tuple", "$", "password"])
_HASHABLE = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | _TEXTS
    | st.binary(max_size=10)
    | st.dates()
    | st.uuids()
    | st.sampled_from([Color.RED, Level.LOW, ..., pathlib.PurePosixPath("a/b"), pathlib.Path("/x")])
)
_LEAVES = (
    _HASHABLE
    | st.floats()
    | st.complex_numbers()
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.timedeltas()
    | st.datetimes(timezones=st.none() | st.just(datetime.UTC) | st.timezones(), allow_imaginary=True)
    | st.times(timezones=st.none() | st.just(datetime.UTC))
    | st.ip_addresses()
    | st.binary(max_size=9).map(bytearray)
    | st.builds(range, st.integers(), st.integers(), st.integers(min_value=1))
    | st.builds(slice, st.none() | st.integers(), st.integers())
    | st.builds(Point, st.integers(), st.floats(allow_nan=False))
    | st.builds(Model, a=st.integers(), b=st.lists(st.text(max_size=3), max_size=2))
)
_VALUES = st.recursive(
    _LEAVES,
    lambda items: (
        st.lists(items, max_size=4)
        | st.lists(items, max_size=4).map(tuple)
        | st.dictionaries(_HASHABLE, items, max_size=4)
        | st.dictionaries(_TEXTS, items, max_size=4).map(OrderedDict)
        | st.sets(_HASHABLE, max_size=4)
        | st.frozensets(_HASHABLE, max_size=4)
        | st.lists(items, max_size=3).map(lambda found: deque(found, 3))
        | st.builds(Job, st.text(max_size=4), st.lists(st.text(max_size=3), max_size=2))
    ),
    max_leaves=12,
)


class NoMasker(Masker):
    """Masks nothing."""

    def may_hold_secret_bytes(self, data: bytes) -> bool:
        return False


@given(_VALUES)
def test_round_trip(value: Any) -> None:
    """What is marked as replayable comes back equal and of the same type; all of these kinds are."""
    kept = capture(value, NoMasker())
    assert kept.replayable
    assert same(restore(kept.content), value)
    assert capture(value, NoMasker()) == kept


@given(_VALUES)
def test_any_value_is_described_within_the_room(value: Any) -> None:
    """And never raises, whatever part of the content there is."""
    content = capture(value, MASKER).content
    whole = describe(content, 1_000_000)
    for room in (0, 1, 2, 10, len(whole) - 1, len(whole)):
        assert len(describe(content, room)) <= max(0, room)
    assert describe(content, len(whole)) == whole
    describe(content[: len(content) // 2])


@given(st.binary(max_size=60))
def test_any_bytes(content: bytes) -> None:
    """Content that isn't ours is refused or read, and nothing else happens."""
    describe(content)
    for read in (restore, lambda data: mask_content(data, MASKER)):
        try:
            read(content)
        except ValueError:
            continue


def test_arrays_come_back() -> None:
    """Small ones of numbers, times and texts, with dtype and shape; and single values."""
    arrays = [
        np.arange(12, dtype="<i4").reshape(3, 4).T,
        np.array([1.5, np.nan, np.inf]),
        np.array([], dtype=complex),
        np.array(5.0),
        np.array([True, False]),
        np.arange(4, dtype=">u2"),
        np.array(["2020-01-01", "NaT"], dtype="M8[ns]"),
        np.array([["a", "bc"], ["", "d"]]),
        np.array([b"x", b"yz"]),
    ]
    scalars = [np.float32(1.1), np.int8(-3), np.bool_(True), np.datetime64("2020-01-01T01"), np.timedelta64(5, "s")]
    for value in [*arrays, *scalars, np.str_("x"), np.complex64(1j), {"a": [np.float64(2)]}]:
        kept = capture(value, MASKER)
        assert kept.replayable, value
        assert same(restore(kept.content), value), value


def test_large_array() -> None:
    """What it is, its head, and a fingerprint of spread values; never its values as a whole."""
    array = np.arange(1_000_000.0)
    content = plain(array)["$ndarray"]
    assert (content["dtype"], content["shape"], content["head"]) == ("<f8", [1_000_000], list(range(32)))
    changed = array + (np.arange(1_000_000) >= 500_000)
    assert plain(changed)["$ndarray"]["sample"] != content["sample"]
    assert not capture(array).replayable
    objects = np.empty(2, dtype=object)
    objects[0] = captured.OfHostileMeta()
    CALLS.clear()
    assert plain(objects)["$ndarray"]["head"] == [{"$object": "captured:OfHostileMeta"}, None]
    assert CALLS == []


def test_array_on_the_disk_is_not_read(tmp_path: pathlib.Path) -> None:
    """Of a mapped file only dtype and shape are told."""
    mapped = np.memmap(tmp_path / "x", dtype="f8", mode="w+", shape=(10,))
    assert set(plain(mapped)["$ndarray"]) == {"dtype", "shape", "type"}


def test_tables() -> None:
    """Shape, names, dtypes and first rows; columns with the name of a secret are masked."""
    columns = {"n": list(range(100)), "password": ["geheim"] * 100}
    pandas, polars = pd.DataFrame(columns), pl.DataFrame(columns)
    for table, library, dtype in (
        (pandas, "pandas", "int64"),
        (polars, "polars", "Int64"),
        (pa.table(columns), "pyarrow", "int64"),
    ):
        content = plain(table)["$dataframe"]
        assert (content["library"], content["shape"]) == (library, [100, 2])
        assert content["columns"][0] == ["n", dtype]
        assert content["rows"] == [[row, {"$masked": "password"}] for row in range(5)]
        assert not capture(table).replayable
    assert plain(pandas["n"])["$series"]["head"] == list(range(32))
    assert plain(polars["n"])["$series"]["length"] == 100
    assert plain(pandas.index)["$series"]["dtype"] == "int64"
    assert plain(pl.LazyFrame(columns)) == {"$object": "polars.lazyframe.frame:LazyFrame"}
    wide = plain(pd.DataFrame(np.zeros((2, 500))))["$dataframe"]
    assert (wide["shape"], len(wide["columns"])) == ([2, 500], 32)


def test_table_is_left_as_it_was() -> None:
    """pandas copies a block when somebody else still looks at it: a write after the capture is in place."""
    frame = pd.DataFrame(np.zeros((1000, 3)))
    before = frame[0].to_numpy()
    address = before.__array_interface__["data"]
    del before
    capture(frame)
    frame.iloc[0, 0] = 1.0
    assert frame[0].to_numpy().__array_interface__["data"] == address


def test_no_code_of_the_program_runs() -> None:
    """Not that of hostile objects, classes and metaclasses, nor methods that subclasses of builtin types override."""
    CALLS.clear()
    for value in (Hostile(), captured.OfHostileMeta(), captured.OfHostileMeta, [Hostile()], {"a": Hostile()}):
        assert not capture(value, MASKER).replayable
    capture_arguments(("self", "x"), (Hostile(), captured.OfHostileMeta()), {}, MASKER)
    assert plain(HOSTILE_SUBCLASSES[dict](a=1)) == {"$subclass": {"type": "captured:HostileDict", "value": {"a": 1}}}
    for base, value in {
        list: [1],
        tuple: (1,),
        set: {1},
        frozenset: {1},
        str: "abc",
        bytes: b"abc",
        int: 5,
        float: 1.5,
    }.items():
        hostile = HOSTILE_SUBCLASSES[base](value)
        name = f"captured:Hostile{base.__name__.title()}"
        assert plain(hostile) == {"$subclass": {"type": name, "value": plain(base(value))}}
        assert not capture([hostile]).replayable
    assert CALLS == []


def test_lying_class_and_lazy_proxy() -> None:
    """What `__class__` says doesn't count, and a proxy is not made to load what it stands for."""

    class Lying:
        __class__ = dict  # type: ignore[assignment]

    class Lazy:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(name)

    class Remote(Mapping[str, int]):
        def __getitem__(self, key: str) -> int:
            raise AssertionError

        def __iter__(self) -> Iterator[str]:
            raise AssertionError

        def __len__(self) -> int:
            raise AssertionError

    for value in (Lying(), Lazy(), Remote(), types.MappingProxyType(Remote())):
        assert list(plain(value)) == ["$object"]
    assert plain(ChainMap(Remote(), {"a": 1}))["$chainmap"][1] == {"a": 1}  # type: ignore[arg-type]


def test_names_that_are_no_plain_text() -> None:
    """A function or class whose name has a `__format__` of its own doesn't get it called."""
    text = HOSTILE_SUBCLASSES[str]

    def function() -> None: ...

    function.__qualname__ = text("f")
    function.__module__ = text("m")
    cls = type("C", (), {})
    cls.__qualname__ = text("C")
    CALLS.clear()
    assert plain(function) == {"$callable": "?:?"}
    assert list(plain(cls())) == ["$object"]
    assert CALLS == []


def test_properties_are_not_asked() -> None:
    """Fields are read where they lie; one that a class computes is left out."""

    @dataclass
    class Computed:
        a: int
        b: int

    Computed.b = property(lambda self: CALLS.append("b"), lambda self, value: None)  # type: ignore[assignment]
    CALLS.clear()
    assert plain(Computed(1, 2))["$dataclass"]["fields"] == {"a": 1}
    assert CALLS == []


def test_iterators_are_not_consumed() -> None:
    """Generators, coroutines, iterators and files stay where they are."""
    generator = (n for n in range(3))
    iterator = iter([1, 2])
    file = io.StringIO("abc")

    async def coroutine() -> None: ...

    waiting = coroutine()
    for value in (generator, iterator, file, waiting, map(str, [1]), zip([1], [2], strict=True)):
        capture([value])
    waiting.close()
    assert (list(generator), list(iterator), file.read()) == ([0, 1, 2], [1, 2], "abc")


def test_things_of_a_running_program(tmp_path: pathlib.Path) -> None:
    """Files, locks, functions, modules, classes, exceptions: what they are, without addresses."""
    path = tmp_path / "f"
    path.write_text("x")
    with path.open() as file, path.open("rb") as binary:
        assert plain(file)["$file"] == {"type": "_io:TextIOWrapper", "name": str(path), "mode": "rb"}
        assert plain(binary)["$file"]["name"] == str(path)
    error = ValueError("bad", 1)
    error.__cause__ = KeyError("k")
    cause = {"$exception": {"type": "KeyError", "args": {"$tuple": ["k"]}}}
    assert plain(error) == {"$exception": {"type": "ValueError", "args": {"$tuple": ["bad", 1]}, "cause": [cause]}}
    assert plain(os.path.join) == {"$callable": "posixpath:join"}
    assert plain(print) == {"$callable": "builtins:print"}
    assert plain(Job("a").__eq__) == {"$callable": "captured:Job.__eq__"} or list(plain(Job("a").__eq__)) == [
        "$callable"
    ]
    assert plain(functools.partial(print, 1))["$partial"]["args"] == {"$tuple": [1]}
    assert plain(Job) == {"$type": "captured:Job"}
    assert plain(os) == {"$module": "os"}
    assert plain(Permission.READ | Permission.WRITE)["$enum"]["type"] == "captured:Permission"
    assert plain(defaultdict(list, a=[1]))["$defaultdict"] == {"factory": {"$type": "list"}, "items": {"a": [1]}}
    assert plain({"a": 1}.keys())["$view"]["items"] == ["a"]
    assert plain(memoryview(b"abc"))["$memoryview"]["bytes"] == 3
    for value in (threading.Lock(), threading.Thread(), object(), asyncio.Event(), os.environ):
        ((tag, name),) = plain(value).items()
        assert tag == "$object"
        assert "0x" not in name


def test_other_kinds_come_back() -> None:
    """Those the property test does not draw."""
    for value in (
        Counter("aab"),
        re.compile(r"a+", re.IGNORECASE),
        types.SimpleNamespace(a=1),
        ipaddress.ip_network("10.0.0.0/8"),
        fractions.Fraction(1, 3),
        decimal.Decimal("NaN").copy_abs().__class__("1E+5"),
        uuid.UUID(int=5),
        zoneinfo.ZoneInfo("Europe/Berlin")
        and datetime.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
        Login("u", "p"),
        Model(a=1, inner=Model(a=2)),
        NotImplemented,
    ):
        kept = capture(value, NoMasker())
        assert kept.replayable
        assert same(restore(kept.content), value)
    model = restore(capture(Model(a=1), MASKER).content)
    assert model.model_fields_set == {"a"}
    assert model.model_dump() == Model(a=1).model_dump()


def test_local_class_is_not_replayable() -> None:
    """Nobody else could find it; its fields are told."""
    local = make_dataclass("Local", ["a"])
    local.__qualname__ = "f.<locals>.Local"
    kept = capture(local(1), MASKER)
    assert not kept.replayable
    assert describe(kept.content) == "f.<locals>.Local(a=1)"


def test_restore_refuses_what_is_not_whole() -> None:
    """A summary, a class that is not loaded, and one that became another: the message says what to do."""
    with pytest.raises(NotReplayableError, match=r"holds \$cut in the place"):
        restore(capture("x" * 100_000).content)
    with pytest.raises(NotReplayableError, match=r"gone:Thing, which is not loaded here.*Import gone first"):
        restore(msgpack.packb({"$dataclass": {"type": "gone:Thing", "fields": {}}}))
    with pytest.raises(NotReplayableError, match="or is something else now"):
        restore(msgpack.packb({"$dataclass": {"type": "captured:Hostile", "fields": {}}}))
    with pytest.raises(NotReplayableError, match="head of an array"):
        restore(capture(np.zeros(100_000)).content)


def test_restore_imports_nothing() -> None:
    """Content from elsewhere can't have a module loaded."""
    sys.modules.pop("this", None)
    with pytest.raises(NotReplayableError):
        restore(msgpack.packb({"$enum": {"type": "this:Zen", "name": "x"}}))
    assert "this" not in sys.modules


def test_cycles_and_depth() -> None:
    """A container in itself is named by how far up it is; beyond the depth the kind is told."""
    cyclic: list[Any] = [1]
    cyclic.append({"again": cyclic})
    assert plain(cyclic) == [1, {"again": {"$cycle": 2}}]
    nested: Any = "x"
    for _ in range(100):
        nested = [nested]
    found, depth = plain(nested), 0
    while isinstance(found, list):
        found, depth = found[0], depth + 1
    assert (depth, found) == (20, {"$cut": {"kind": "list", "length": 1}})
    assert not capture(cyclic).replayable
    deep: Any = ()
    for _ in range(100_000):
        deep = (deep,)
    assert not capture(deep).replayable
    while deep:
        (deep,) = deep


@pytest.mark.parametrize(
    ("value", "cut"),
    [
        ("a" * 50_000, {"kind": "str", "length": 50_000, "head": "a" * 2048}),
        (b"a" * 50_000, {"kind": "bytes", "length": 50_000, "head": b"a" * 2048}),
        (bytearray(b"a" * 50_000), {"kind": "bytearray", "length": 50_000, "head": b"a" * 2048}),
        (list(range(5000)), {"kind": "list", "length": 5000, "head": list(range(32))}),
        ((0,) * 5000, {"kind": "tuple", "length": 5000, "head": [0] * 32}),
        (
            dict.fromkeys(range(5000)),
            {"kind": "dict", "length": 5000, "head": {"$map": [[n, None] for n in range(32)]}},
        ),
        (set(range(5000)), {"kind": "set", "length": 5000}),
        (1 << 1_000_000, {"kind": "int", "length": 1_000_001}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_too_large_keeps_its_head(value: Any, cut: dict[str, Any]) -> None:
    """With its kind and length."""
    assert plain(value) == {"$cut": cut}
    assert not capture(value).replayable


@given(_VALUES, st.integers(0, 300), st.integers(0, 30), st.integers(0, 5))
def test_content_stays_within_the_limits(value: Any, max_bytes: int, max_items: int, max_depth: int) -> None:
    """Whatever they are: about `max_bytes`, and the marks of what was cut."""
    limits = Limits(max_bytes, max_bytes // 2, max_items, max_depth, head_text=8, head_items=2)
    many = [value] * 200
    assert len(capture(many, MASKER, limits).content) <= max_bytes + 1000


def test_many_small_and_many_large_values() -> None:
    """Thousands of small containers, texts that fit one by one and not together, one list many times."""
    shared = [["x" * 100] * 10]
    for value in (
        [(n,) for n in range(100_000)],
        ["y" * 30_000] * 100,
        [shared] * 4000,
        {str(n): {n} for n in range(4000)},
    ):
        kept = capture(value, MASKER)
        assert len(kept.content) < 80_000
        assert not kept.replayable


def test_arguments_of_a_call() -> None:
    """By place or by name makes no difference; what has no parameter is kept apart."""
    one = capture_arguments(("a", "b"), (1, 2), {}, MASKER)
    assert (
        one
        == capture_arguments(("a", "b"), (1,), {"b": 2}, MASKER)
        == capture_arguments(("a", "b"), (), {"b": 2, "a": 1}, MASKER)
    )
    assert restore(one.content) == {"a": 1, "b": 2}
    assert list(restore(one.content)) == ["a", "b"]
    rest = capture_arguments(("a", "k"), (1, 2, 3), {"x": 4, "k": 5}, MASKER, positional=1)
    assert restore(rest.content) == {"a": 1, "*": [2, 3], "k": 5, "**": {"x": 4}}
    assert restore(capture_arguments((), (), {}, MASKER).content) == {}
    same_name = capture_arguments(("a",), (1,), {"a": 2}, MASKER)
    assert restore(same_name.content) == {"a": 1, "**": {"a": 2}}
    dollar = capture_arguments((), (), {"$x": 1}, MASKER)
    assert restore(dollar.content) == {"**": {"$x": 1}}


@given(st.dictionaries(st.text(st.characters(categories=["L"]), min_size=1, max_size=5), _VALUES, max_size=4))
def test_arguments_round_trip(arguments: dict[str, Any]) -> None:
    """Any arguments; and the short way for small ones gives what the long way does."""
    kept = capture_arguments(tuple(arguments), tuple(arguments.values()), {}, NoMasker())
    assert kept.replayable
    assert same(restore(kept.content), arguments)
    assert kept == capture_arguments(tuple(arguments), tuple(arguments.values()), {}, NoMasker(), Limits())
    assert kept == capture_arguments(tuple(arguments), (), arguments, NoMasker())


def test_masking_at_any_depth() -> None:
    """Names of arguments, keys, fields, headers, columns, texts; the digest is that of the masked content."""
    kept = capture_arguments(
        ("password", "config", "text", "max_tokens"),
        (
            "hunter2",
            {
                "logins": [Login("u", "hunter2")],
                "models": ({"api_key": "hunter2", 1: {"token": b"hunter2"}},),
                "headers": [(b"authorization", b"hunter2"), ["Cookie", "hunter2"]],
                "body": b'{"password": "hunter2"}',
                "error": ValueError("https://u:hunter2@h/"),
                b"secret": "hunter2",
                "https://u:hunter2@host/": 1,
                "https://u:hunter3@host/": 2,
            },
            "x" * 40_000,
            5,
        ),
        {},
        MASKER,
    )
    assert b"hunter2" not in kept.content
    assert b"hunter3" not in kept.content
    assert not kept.replayable
    text = describe(kept.content, 100_000)
    assert "Login(user='u', password=(masked: password))" in text
    assert "'max_tokens': 5" in text
    other = capture_arguments(("password", "config"), ("hunter3", {}), {}, MASKER)
    assert other == capture_arguments(("password", "config"), ("hunter4", {}), {}, MASKER)


def test_secret_across_the_cut_of_a_text() -> None:
    """The head that is kept ends with the mark."""
    value = "." * 2040 + " ghp_" + "aB3d" * 9 + "." * 40_000
    assert plain(value)["$cut"]["head"] == "." * 2040 + " (masked: github token)"
    assert plain(value.encode())["$cut"]["head"] == b"." * 2040 + b" (masked: github token)"


def test_names_that_hold_no_secret() -> None:
    """Flags, counts and kinds under such a name are told."""
    value = {"has_password": True, "token": None, "auth": print, "password": "", "tokens": 5, "token_type": Color.RED}
    assert b"masked" not in capture(value, MASKER).content
    assert capture({"max_tokens": 5, "a": "x"}, MASKER).replayable


@given(_VALUES)
def test_masking_contents_twice(value: Any) -> None:
    """What is masked stays as it is; what holds no secret is the same object."""
    content = capture(value, MASKER).content
    assert mask_content(content, MASKER) is content


def test_masking_of_stored_contents() -> None:
    """A content from before a rule was added is masked by it."""
    content = capture({"a": [{"iban": "DE1"}], "b": "ACME-1"}, MASKER).content
    masked = mask_content(content, Masker(keys=["iban"], patterns=["ACME-\\d"]))
    assert msgpack.unpackb(masked) == {"a": [{"iban": {"$masked": "iban"}}], "b": "(masked: custom)"}
    with pytest.raises(ValueError, match="not the content of a payload"):
        mask_content(b"\x81\xa4$map\x01", MASKER)


_DIGESTS = """
import sys
from otel_debugstore.payload import capture
import captured
values = [{"b": 1, "a": {"x", "y", "zz"}}, frozenset({("a", 1), ("b", 2), None}), {frozenset({"k", "l"}): 1},
          captured.Color.RED, captured.Job("a", ["b"]), object(), print, {str(n) for n in range(9000)},
          [{"x" * n for n in range(0, 40_000, 5000)}, "after"], {(str(n),) * 20 for n in range(500)}]
print(*[capture(value).digest for value in values])
"""


def test_equal_values_have_equal_digests_in_every_process() -> None:
    """Whatever the hash seed: sets are sorted, and addresses are not part of it."""

    def digests(seed: str) -> str:
        environ = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(pathlib.Path(__file__).parent)}
        return subprocess.run(
            [sys.executable, "-c", _DIGESTS], env=environ, capture_output=True, text=True, check=True
        ).stdout

    assert digests("1") == digests("2") == digests("3")
    assert len(set(digests("1").split())) == 10


def test_digest() -> None:
    """32 hexadecimal digits of the content; other values have others, and the order of a dict counts."""
    assert re.fullmatch("[0-9a-f]{32}", capture(1).digest)
    values = [1, 1.0, True, "1", b"1", [1], (1,), {1}, {"a": 1, "b": 2}, {"b": 2, "a": 1}, None, "", [], {}]
    assert len({capture(value).digest for value in values}) == len(values)


def test_values_that_change_meanwhile() -> None:
    """Another thread that fills and empties what is captured does no harm."""
    shared: dict[Any, Any] = {"a": {}}
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            for n in range(100):
                shared[n] = shared["a"][str(n)] = (n,)
            for n in range(100):
                del shared[n], shared["a"][str(n)]

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(300):
            assert describe(capture(shared).content).startswith("{'a': {")
    finally:
        stop.set()
        thread.join()


def test_little_stack_left() -> None:
    """Near the recursion limit a value is told less of, and nothing is raised."""

    def dive(depth: int) -> int:
        try:
            return dive(depth + 1)
        except RecursionError:
            assert isinstance(capture([([({"a": (1,)},)],)]).digest, str)
            return depth

    assert dive(0) > 100


def test_summary_of_a_user() -> None:
    """`summarize_with` has objects described by a function, which may fail, and is not called again if it is slow."""

    class Client:
        pass

    class Child(Client):
        pass

    class Slow:
        pass

    calls = []

    def slow(value: Slow) -> str:
        calls.append(value)
        threading.Event().wait(0.02)
        return "slow"

    summarize_with(Client, lambda client: {"host": "h", "password": "x"})
    summarize_with(Slow, slow)
    assert plain(Child())["$summary"]["summary"] == {"host": "h", "password": {"$masked": "password"}}
    for _ in range(3):
        capture(Slow())
    assert len(calls) == 1
    summarize_with(Client, lambda client: 1 / 0)
    assert list(plain(Client())) == ["$object"]


def test_many_types() -> None:
    """Types that come and go are told apart, though they may have the same address."""
    for n in range(5000):
        cls = type(f"T{n}", (dict,) if n % 2 else (), {})
        expected = {"type": f"{__name__}:T{n}", "value": {}} if n % 2 else f"{__name__}:T{n}"
        assert next(iter(plain(cls()).values())) == expected


def test_importing_is_light(tmp_path: pathlib.Path) -> None:
    """No library of a program is loaded to capture, and no slow part of the standard library."""
    code = (
        "import sys; before = set(sys.modules); import otel_debugstore.payload as p;"
        "p.capture([object(), (1, {2}), {'a': b'x'}]);"
        "names = 'numpy pandas polars pyarrow pydantic tomllib asyncio decimal uuid zoneinfo';"
        "print([name for name in names.split() if name in set(sys.modules) - before])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert found.stdout.strip() == "[]"
