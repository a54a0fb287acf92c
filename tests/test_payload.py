"""Arguments and results are captured and can be made again; digests; descriptions."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import fractions
import functools
import ipaddress
import os
import pathlib
import re
import subprocess
import sys
import threading
import types
import uuid
import zoneinfo
from collections import Counter, defaultdict
from dataclasses import make_dataclass
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captured import Job, Login, Made, Model, Pair, Permission, Queue
from otel_debugstore.errors import NotReplayableError
from otel_debugstore.payload import Limits, capture, capture_arguments, describe, mask_content, restore
from payload_values import MASKER, VALUES, NoMasker, plain, same


@given(VALUES)
def test_round_trip(value: Any) -> None:
    """What is marked as replayable comes back equal and of the same type; all of these kinds are."""
    kept = capture(value, NoMasker())
    assert kept.replayable
    assert same(restore(kept.content), value)
    assert capture(value, NoMasker()) == kept


@given(VALUES)
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


def test_what_comes_back_otherwise_is_not_replayable() -> None:
    """Things that an object holds beside its fields, and members of an enum that have no name of their own."""
    plain, extra, used, model, pair = Made("a"), Made("a"), Made("a"), Model(a=1), Pair(1, 2.0)
    assert [used.upper, model.double] == ["A", 2]
    extra.more = pair.more = 1  # type: ignore[attr-defined]
    values: list[Any] = [plain, Pair(1, 2.0), Permission.READ, Permission(0) | Permission.WRITE]
    for value in values:
        kept = capture(value, NoMasker())
        assert kept.replayable
        assert same(restore(kept.content), value)
    values = [Made("a", 1), Made("a", 2), extra, used, model, pair, Queue("a"), Permission.READ | Permission.WRITE]
    for value in values:
        assert not capture(value, NoMasker()).replayable


def test_paths_of_another_system_and_order_of_arrays() -> None:
    """They come back as they were."""
    for path in (pathlib.PureWindowsPath("c:/x"), pathlib.PurePosixPath("/x")):
        assert same(restore(capture(path, NoMasker()).content), path)
    for array in (np.arange(6.0).reshape(2, 3), np.array([["a", "b"], ["c", "d"]])):
        for value in (array, np.asfortranarray(array), array[:, ::-1]):
            back = restore(capture(value, NoMasker()).content)
            assert same(back, value)
            assert back.flags.f_contiguous == value.flags.f_contiguous


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


@given(st.dictionaries(st.text(st.characters(categories=["L"]), min_size=1, max_size=5), VALUES, max_size=4))
def test_arguments_round_trip(arguments: dict[str, Any]) -> None:
    """Any arguments; and the short way for small ones gives what the long way does."""
    kept = capture_arguments(tuple(arguments), tuple(arguments.values()), {}, NoMasker())
    assert kept.replayable
    assert same(restore(kept.content), arguments)
    assert kept == capture_arguments(tuple(arguments), tuple(arguments.values()), {}, NoMasker(), Limits())
    assert kept == capture_arguments(tuple(arguments), (), arguments, NoMasker())


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
