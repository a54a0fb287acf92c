"""Capturing runs no code of the program, changes nothing, and goes on where values change or the stack ends."""

from __future__ import annotations

import io
import sys
import threading
import types
from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry.instrumentation.utils import is_instrumentation_enabled

import captured
from captured import CALLS, HOSTILE_SUBCLASSES, Hostile
from otel_debugstore.payload import capture, capture_arguments, describe, summarize_with
from payload_values import MASKER, plain


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
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(300):
            assert describe(capture(shared).content).startswith("{'a': {")
    finally:
        sys.setswitchinterval(interval)
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
    may_record = []
    summarize_with(Client, lambda client: may_record.append(is_instrumentation_enabled()))
    capture(Client())
    assert may_record == [False]
    summarize_with(Client, lambda client: 1 / 0)
    assert list(plain(Client())) == ["$object"]


def test_many_types() -> None:
    """Types that come and go are told apart, though they may have the same address."""
    for n in range(5000):
        cls = type(f"T{n}", (dict,) if n % 2 else (), {})
        expected = {"type": f"{__name__}:T{n}", "value": {}} if n % 2 else f"{__name__}:T{n}"
        assert next(iter(plain(cls()).values())) == expected
