"""`code_of`: where a function's code stands and what it says, for the store.

Runs in the thread that writes, never in one of the program. The source is what the file says now, and so it is only
taken if compiling it gives the code that runs: a file that was edited since it was imported says something else.
Bounds: files of up to 4 MiB, functions of up to 128 KiB. Only the function is compiled, not its file, because
that keeps the interpreter from the program: some ms at most.
"""

from __future__ import annotations

import contextlib
import re
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, Final

from otel_debugstore.code_identity import code_digest, underlying_function
from otel_debugstore.git import commit_of
from otel_debugstore.outbox import Code

_MAX_FILE_BYTES: Final = 4 << 20
MAX_SOURCE_CHARS: Final = 128 << 10
_MAX_CANDIDATES: Final = 16
_MAX_IMPORT_LINES: Final = 100
_MAX_WRAPPED: Final = 16
_LOCALS: Final = "<locals>"
_FILE_NAME: Final = "<otel-debugstore>"
_FUTURE_FLAGS: Final = 0x1FE0000  # of `__future__`: annotations and the like change the code


def code_of(function: Callable[..., Any], variant: str) -> Code:
    """Describe the code of a function.

    Args:
        function: As given to `variant_of`.
        variant: What that returned.

    Returns:
        What is known of it. Never raises.
    """
    try:
        found = _innermost(underlying_function(function))
        if found is None:
            return Code(variant, _name(function))
        code = found.__code__
        path = Path(code.co_filename)
        is_file = path.is_file()
        return Code(
            variant,
            _name(found),
            str(path.absolute()) if is_file else code.co_filename,
            code.co_firstlineno,
            commit_of(path) if is_file else None,
            _source(code),
        )
    except Exception:  # noqa: BLE001  # the rest of the batch must be written
        return Code(variant, _name(function))


def _innermost(function: FunctionType | None) -> FunctionType | None:
    """Return what a function wraps by `functools.wraps`: that is what it is called after."""
    for _ in range(_MAX_WRAPPED):
        inner = underlying_function(vars(function).get("__wrapped__")) if function is not None else None
        if inner is None:
            break
        function = inner
    return function


def _name(function: object) -> str:
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    module = getattr(function, "__module__", None)
    return f"{module}.{name}" if isinstance(module, str) else str(name)


def _source(code: CodeType) -> str | None:
    lines = _lines(code.co_filename)
    names = _all_names(code)
    # The compiler makes other code of `name.attribute(...)` where the module imports the name.
    imports = [names & _imported(lines, indented) for indented in (False, True)]
    for first in _starts(lines, code):
        source = "".join(lines[first : _end(lines, first, code)])
        if source and len(source) <= MAX_SOURCE_CHARS:
            for imported in imports if imports[0] != imports[1] else imports[:1]:
                if _compiles_to(source, code, imported):
                    return textwrap.dedent(source)
    return None


def _lines(file_name: str) -> list[str]:
    """Return the lines of a source file, or of what a notebook or a shell keeps under its name."""
    path = Path(file_name)
    if path.is_file():
        if path.stat().st_size > _MAX_FILE_BYTES:
            return []
        import tokenize

        with tokenize.open(file_name) as file:
            return file.readlines()
    linecache = sys.modules.get("linecache")
    entry = linecache.cache.get(file_name) if linecache is not None else None
    return list(entry[2]) if entry and len(entry) == 4 else []


def _starts(lines: list[str], code: CodeType) -> Iterator[int]:
    """Yield where it may begin: where it did when it was imported, and other places that look like it."""
    yield code.co_firstlineno - 1
    head = re.compile(rf"\s*(async\s+)?def\s+{re.escape(code.co_name)}\b")
    for place in [number for number, line in enumerate(lines) if head.match(line)][:_MAX_CANDIDATES]:
        yield place
        for first in range(place - 1, max(-1, place - _MAX_CANDIDATES), -1):
            if not lines[first].strip():
                break
            if lines[first].lstrip().startswith("@"):
                yield first


def _end(lines: list[str], first: int, code: CodeType) -> int:
    """Return where it ends: after its last instruction, and all that follows and stands further in."""
    end = first + _last_line(code) - code.co_firstlineno + 1
    indent = len(_indent(lines[first])) if first < len(lines) else 0
    while end < len(lines) and (not lines[end].strip() or len(_indent(lines[end])) > indent):
        end += 1
    while end > first + 1 and end <= len(lines) and not lines[end - 1].strip():
        end -= 1
    return end


def _last_line(code: CodeType) -> int:
    """Return the last line of a function's instructions, and of those nested in it."""
    ends = [position[1] for position in code.co_positions() if position[1] is not None]
    nested = [_last_line(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return max([code.co_firstlineno, *ends, *nested])


def _all_names(code: CodeType) -> set[str]:
    """Return the names of globals and attributes that a function uses, and those nested in it."""
    nested = [_all_names(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*nested)


def _imported(lines: list[str], indented: bool) -> set[str]:
    """Return the names that import statements bind: those at the margin, or wherever they stand."""
    names = set()
    for number, line in enumerate(lines):
        if not (line.lstrip() if indented else line).startswith(("import ", "from ")):
            continue
        if "(" in line:
            ends = range(number, min(number + _MAX_IMPORT_LINES, len(lines)))
            line = "".join(lines[number : next((end for end in ends if ")" in lines[end]), number) + 1])
        listed = re.sub(r"#.*|[()\\]", " ", line).partition("import ")[2]
        for item in listed.split(","):
            words = item.split()
            if words:
                names.add(words[2] if len(words) > 2 else words[0].partition(".")[0])
    return names


def _compiles_to(source: str, code: CodeType, imported: set[str]) -> bool:
    """Return whether the source of a function gives this code, nested as its name says it was."""
    indent = _indent(source)
    *around, _ = code.co_qualname.split(".")
    heads: list[str] = []
    for name, inside in zip(around, [*around[1:], ""], strict=False):
        if name != _LOCALS:
            heads.append(f"def {name}():" if inside == _LOCALS else f"class {name}:")
    if not heads and indent:
        heads = ["if True:"]
    wrapping = [f"import {name}" for name in sorted(imported)]
    wrapping += [indent[:depth] + head for depth, head in enumerate(heads)]
    if _LOCALS in around:  # variables of a function around it, and not of the module
        wrapping += [f"{indent}{name} = None" for name in code.co_freevars]
    try:
        with _without_warnings():
            flags = code.co_flags & _FUTURE_FLAGS
            compiled = compile("\n".join([*wrapping, source]), _FILE_NAME, "exec", flags, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    wanted = code_digest(code)
    return any(code_digest(nested) == wanted for nested in _nested(compiled) if nested.co_name == code.co_name)


def _nested(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _nested(constant)


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip(" \t"))]


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep the compiler's warnings about what we compile from the program's standard error.

    Neither `catch_warnings` nor `filterwarnings`: the one is not safe beside other threads, and both have warnings
    that were shown once shown again.
    """
    rule = ("ignore", None, Warning, re.compile(re.escape(_FILE_NAME)), 0)
    filters: Any = warnings.filters
    filters.insert(0, rule)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            filters.remove(rule)
