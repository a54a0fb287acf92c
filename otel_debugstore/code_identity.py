"""`variant_of`: which code a function runs, as 16 hex digits that are the same in every process.

Two functions have the same variant if they have the same qualified name, bytecode, constants, names and nested
code, plain defaults, and functions of the same in the variables that they close over (what a decorator wraps, for
one). Where the code stands does not matter: not the file, not the line. Bytecode differs between minor versions
of Python, and so do variants.

A function whose `__code__`, `__defaults__` or `__kwdefaults__` was replaced, as reloaders do, has a new variant at the
next call. So has one that closes over such a function.
Threads: any; no locks. Nothing is kept alive but what is remembered of functions that live.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any, Final, NamedTuple

from otel_debugstore.digest import blake2b
from otel_debugstore.guard import swallow

_DIGEST_BYTES: Final = 8
_MAX_REMEMBERED: Final = 16_384
_MAX_CLOSED_OVER: Final = 64
_MAX_UNWRAPPED: Final = 16
_PLAIN: Final = frozenset({type(None), bool, int, float, complex, str, bytes, type(...)})


class _Parts(NamedTuple):
    """A function that lives, and what of it can be replaced. By id: defaults that refer to it are not kept alive."""

    function: weakref.ref[FunctionType]
    code: CodeType
    defaults_id: int
    keyword_defaults_id: int


class _Known(NamedTuple):
    """The variant of a function, and what it was computed from."""

    parts: _Parts
    variant: str
    closed_over: tuple[_Parts, ...]


_known: Final[dict[int, _Known]] = {}
_code_digests: Final[dict[int, tuple[weakref.ref[CodeType], bytes]]] = {}


def variant_of(function: Callable[..., Any]) -> str | None:
    """Return the variant of a function, or of what a method, a partial or a wrapper calls.

    Returns:
        16 hex digits; None for what has no code in Python. Never raises.
    """
    known = _known.get(id(function))
    if known is not None:
        (reference, code, defaults_id, keyword_defaults_id), variant, closed_over = known
        if (
            reference() is function
            and function.__code__ is code
            and id(function.__defaults__) == defaults_id
            and id(function.__kwdefaults__) == keyword_defaults_id
            and (not closed_over or _are_same(closed_over))
        ):
            return variant
    try:
        underlying = underlying_function(function)
        if underlying is None:
            return None
        return variant_of(underlying) if underlying is not function else _compute(underlying)
    except Exception as error:  # noqa: BLE001  # something that only looks like a function
        swallow(error)
        return None


def underlying_function(function: object) -> FunctionType | None:
    """Return the function in Python that a method, a partial, a wrapper or an object that can be called runs.

    No code of the program runs: an object is not asked for attributes that it might compute.
    """
    for _ in range(_MAX_UNWRAPPED):
        kind = type(function)
        if kind is FunctionType:
            return function  # type: ignore[return-value]
        if kind in (MethodType, staticmethod, classmethod):
            function = function.__func__  # type: ignore[attr-defined]
        elif isinstance(function, partial):
            function = function.func
        elif isinstance(function, type) or not callable(function):
            return None
        elif hasattr(kind, "__wrapped__"):  # wrapt
            function = function.__wrapped__  # type: ignore[attr-defined]
        else:  # what functools.wraps and lru_cache make, or an object with a method
            function = getattr(function, "__dict__", {}).get("__wrapped__") or kind.__call__
    return None


def code_digest(code: CodeType) -> bytes:
    """Return a hash over a code object with its constants, names and nested code."""
    known = _code_digests.get(id(code))
    if known is not None and known[0]() is code:
        return known[1]
    digest = blake2b(_serialize_code(code), digest_size=_DIGEST_BYTES).digest()
    if len(_code_digests) >= _MAX_REMEMBERED:
        _code_digests.clear()
    key = id(code)
    _code_digests[key] = weakref.ref(code, partial(_forget, _code_digests, key)), digest
    return digest


def _compute(function: FunctionType) -> str:
    closed_over = tuple(_closed_over(function))
    digests = [code_digest(function.__code__), *[code_digest(inner.__code__) for inner in closed_over]]
    hash_ = blake2b(b"".join(digests), digest_size=_DIGEST_BYTES)
    for each in (function, *closed_over):
        hash_.update(_serialize(each.__defaults__))
        hash_.update(_serialize(tuple(sorted((each.__kwdefaults__ or {}).items()))))
    variant = hash_.hexdigest()
    if len(_known) >= _MAX_REMEMBERED:
        _known.clear()
    key = id(function)
    parts = _parts(function, partial(_forget, _known, key))
    _known[key] = _Known(parts, variant, tuple(map(_parts, closed_over)))
    return variant


def _parts(function: FunctionType, forget: Callable[[Any], None] | None = None) -> _Parts:
    reference = weakref.ref(function, forget)
    return _Parts(reference, function.__code__, id(function.__defaults__), id(function.__kwdefaults__))


def _forget(remembered: dict[int, Any], key: int, _: object) -> None:
    remembered.pop(key, None)


def _are_same(closed_over: tuple[_Parts, ...]) -> bool:
    for reference, code, defaults_id, keyword_defaults_id in closed_over:
        function = reference()
        if (
            function is None
            or function.__code__ is not code
            or id(function.__defaults__) != defaults_id
            or id(function.__kwdefaults__) != keyword_defaults_id
        ):
            return False
    return True


def _closed_over(function: FunctionType) -> Iterator[FunctionType]:
    """Yield the functions in a function's closure, and in theirs, in the order of the names."""
    seen = {id(function)}
    waiting = [function]
    while waiting and len(seen) <= _MAX_CLOSED_OVER:
        for cell in waiting.pop(0).__closure__ or ():
            try:
                inner = underlying_function(cell.cell_contents)
            except ValueError:  # an empty cell
                continue
            if inner is not None and id(inner) not in seen:
                seen.add(id(inner))
                waiting.append(inner)
                yield inner


def _serialize_code(code: CodeType) -> bytes:
    return b"".join(
        [
            _framed(b"code", code.co_code),
            _framed(b"exceptions", code.co_exceptiontable),
            _serialize(code.co_consts),
            *[
                _serialize(names)
                for names in (code.co_names, code.co_varnames, code.co_cellvars, code.co_freevars, code.co_qualname)
            ],
            _serialize((code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)),
        ]
    )


def _serialize(value: object) -> bytes:
    """Return bytes that are equal for equal values of equal types, in whatever process.

    Only what can't change is looked into; of the rest the type counts.
    """
    kind = type(value)
    if kind is str:
        return _framed(b"str", value.encode("utf-8", "surrogatepass"))  # type: ignore[attr-defined]
    if kind in _PLAIN:
        return _framed(kind.__name__.encode(), value if kind is bytes else repr(value).encode())  # type: ignore[arg-type]
    if kind is tuple:
        return _framed(b"tuple", b"".join([_serialize(item) for item in value]))  # type: ignore[attr-defined]
    if kind is frozenset:
        return _framed(b"frozenset", b"".join(sorted([_serialize(item) for item in value])))  # type: ignore[attr-defined]
    if kind is slice:  # a constant from Python 3.14 on
        return _framed(b"slice", _serialize((value.start, value.stop, value.step)))  # type: ignore[attr-defined]
    if isinstance(value, CodeType):
        return _framed(b"nested", code_digest(value))
    return _framed(b"other", f"{kind.__module__}.{kind.__qualname__}".encode("utf-8", "surrogatepass"))


def _framed(kind: bytes, content: bytes) -> bytes:
    return b"%s %d:%s" % (kind, len(content), content)
