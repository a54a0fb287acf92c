"""Which code a function runs, what its source says, and at which commit."""

from __future__ import annotations

import functools
import gc
import importlib.util
import shutil
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
import wrapt
from hypothesis import given
from hypothesis import strategies as st

from otel_debugstore.calls.component import Component
from otel_debugstore.code_identity import variant_of
from otel_debugstore.git import commit_of
from otel_debugstore.outbox import OUTBOX
from otel_debugstore.source import code_of

_MODULE = '''
import re
from functools import (
    wraps,  # a comment
    partial as part,
)

def plain(a, b=2, *, c="x"):
    """Says.

  Less indented.
    """
    return [n for n in range(a) if n in {1, 2, "a"}], re.compile(r"\\d")

def decorate(function):
    @wraps(function)
    def wrapper(*args):
        return function(*args)
    return wrapper

@decorate
def decorated(x):
    return x

class Thing(dict):
    def method(self):
        text = """
at the margin"""
        def inner():
            return super().__len__() + len(text)
        return inner

    @staticmethod
    def static(): return 1

    async def waits(self, *args: int) -> None:
        async for _ in self.__private():
            pass
        # the end

if True:
    def conditional():
        return part(plain, 3)

double = lambda x: x * 2

def odd():
    return "\\d" if 1 is 2 else None
'''


def _module(folder: Path, source: str = _MODULE, name: str = "thing_for_test") -> ModuleType:
    path = folder / f"{name}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
    return module


def _function(source: str, first_line: int = 1, file_name: str = "<test>") -> Callable[..., Any]:
    names: dict[str, Any] = {}
    exec(compile("\n" * (first_line - 1) + source, file_name, "exec", dont_inherit=True), names)
    function: Callable[..., Any] = names["f"]
    return function


class TestVariant:
    def test_it_is_the_same_in_every_process(self, tmp_path: Path) -> None:
        """Whatever the order of sets, which differs between processes."""
        _module(tmp_path)
        code = textwrap.dedent("""
            import thing_for_test as t
            from otel_debugstore.code_identity import variant_of
            print([variant_of(f) for f in (t.plain, t.decorated, t.Thing.method, t.double)])
        """)
        said = {
            subprocess.run(
                [sys.executable, "-W", "ignore", "-c", code],
                env={"PYTHONHASHSEED": seed, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[1]}"},
                capture_output=True,
                check=True,
            ).stdout
            for seed in ("1", "2", "3")
        }
        assert len(said) == 1
        assert b"None" not in said.pop()

    def test_where_the_code_stands_does_not_matter(self) -> None:
        """Neither the file nor the line."""
        source = "def f(x, y=1):\n    return [x for x in range(y)]"
        variant = variant_of(_function(source))
        assert variant is not None
        assert len(variant) == 16
        assert variant == variant_of(_function(source, 100, "elsewhere.py"))

    @pytest.mark.parametrize(
        "other",
        [
            "def f(x, y=1): return x + 2.0",
            "def f(x, y=1): return x + True",
            "def f(x, y=1): return x - 2",
            "def f(x, y=2): return x + 2",
            "def f(x, y=1.0): return x + 2",
            "def f(x, y): return x + 2",
            "def f(x, *, y=1): return x + 2",
            "def f(x, /, y=1): return x + 2",
            "def f(z, y=1): return z + 2",
            "def f(x, y=1): return abs(x) + 2",
            "def f(x, y=1):\n    'Says'\n    return x + 2",
            "def f(x, y=1):\n    return (lambda: x + 2)()",
            "async def f(x, y=1): return x + 2",
        ],
    )
    def test_other_code_is_another_variant(self, other: str) -> None:
        """Another constant, type, operation, default, parameter, name, docstring or kind."""
        assert variant_of(_function("def f(x, y=1): return x + 2")) != variant_of(_function(other))

    plain = st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=5)
        | st.binary(max_size=5),
        lambda inner: st.lists(inner, max_size=3).map(tuple),
        max_leaves=6,
    )

    @pytest.mark.parametrize(
        "source", ["def f(): return {!r}", "def f(x): return x[{!r}:]", "def f(x=slice({!r})): return x"]
    )
    @given(plain, plain)
    def test_variants_are_equal_where_constants_are(self, source: str, one: object, other: object) -> None:
        """Constants that differ in value or type never give the same variant, and equal ones always do.

        From Python 3.14 on, slices of constants are constants, too.
        """
        first, second = (variant_of(_function(source.format(value))) for value in (one, other))
        assert (first == second) == (repr(one) == repr(other))

    def test_what_a_function_closes_over_counts(self) -> None:
        """A decorated function is another one where what it wraps is; the values of other variables do not count."""

        def make(inner: Callable[[], object], value: object) -> Callable[[], object]:
            return lambda: (inner(), value)

        one = variant_of(make(_function("def f(): return 1"), 1))
        assert one == variant_of(make(_function("def f(): return 1"), 2))
        assert one != variant_of(make(_function("def f(): return 2"), 1))

    def test_replaced_code_is_a_new_variant_at_once(self) -> None:
        """As reloaders replace it: in the function, in its defaults, or in one that it closes over."""

        def wrap(inner: Callable[..., object]) -> Callable[[], object]:
            return lambda: inner()

        function: Any = _function("def f(x=1): return 1")
        wrapper = wrap(function)
        variants = [(variant_of(function), variant_of(wrapper))]
        function.__code__ = _function("def f(x=1): return 2").__code__
        variants.append((variant_of(function), variant_of(wrapper)))
        function.__defaults__ = (2,)
        variants.append((variant_of(function), variant_of(wrapper)))
        assert len({own for own, _ in variants}) == 3
        assert variants[0][1] != variants[1][1]

    def test_what_calls_a_function_has_its_variant(self) -> None:
        """Methods, partials, caches, wrappers and objects that can be called."""

        class Thing:
            def __call__(self) -> int:
                return 1

        def function(x: int = 1) -> int:
            return x

        @wrapt.decorator
        def wrapped(function: Any, _: Any, args: Any, kwargs: Any) -> Any:
            return function(*args, **kwargs)

        variant = variant_of(function)
        callers: list[Any] = [
            functools.partial(function, 1),
            functools.lru_cache(function),
            staticmethod(function),
            wrapped(function),
        ]
        assert [variant_of(caller) for caller in callers] == [variant] * 4
        assert variant_of(Thing()) == variant_of(Thing.__call__) == variant_of(Thing().__call__) is not None

    def test_what_has_no_code_in_python_has_none(self) -> None:
        """Builtins, classes and what can't be called; and nothing of the program runs to find out."""
        spy = mock.MagicMock()
        things: list[Any] = [print, int, "text".join, None, 3]
        assert [variant_of(thing) for thing in things] == [None] * 5
        variant_of(spy)
        assert not spy.mock_calls
        assert not spy._mock_children

    def test_functions_are_not_kept_alive(self) -> None:
        """Neither they nor what they close over."""

        class Big:
            pass

        def make() -> tuple[Callable[[], object], weakref.ref[Big]]:
            big = Big()
            return lambda: big, weakref.ref(big)

        function, big = make()
        assert variant_of(function) is not None
        del function
        gc.collect()
        assert big() is None


class TestSource:
    def test_source_file_line_and_name_are_those_of_the_function(self, tmp_path: Path) -> None:
        """Of functions, methods, nested ones, lambdas and decorated ones; and compiling them says nothing."""
        module = _module(tmp_path)
        first_words = {
            module.plain: "def plain(",
            module.decorated: "@decorate\ndef decorated(",
            module.Thing.method: "def method(",
            module.Thing().method(): "def inner(",
            module.Thing.static: "@staticmethod\ndef static(",
            module.Thing.waits: "async def waits(",
            module.conditional: "def conditional(",
            module.double: "double = lambda",
            module.decorate: "def decorate(",
            module.odd: "def odd(",
        }
        lines = _MODULE.splitlines()
        for function, words in first_words.items():
            code = code_of(function, "variant")
            assert code.variant == "variant"
            assert code.file_path == str(tmp_path / "thing_for_test.py")
            assert code.source is not None, words
            assert code.source.lstrip().startswith(words)
            assert code.line_number is not None
            assert lines[code.line_number - 1].strip() == words.splitlines()[0] or words in lines[code.line_number - 1]
            assert code.qualified_name == f"thing_for_test.{function.__qualname__}"
        assert "# the end" in (code_of(module.Thing.waits, "").source or "")

    def test_a_file_that_says_something_else_by_now_is_not_the_source(self, tmp_path: Path) -> None:
        """Edited after the import: no source, but the place. Moved within the file: the source."""
        module = _module(tmp_path)
        path = tmp_path / "thing_for_test.py"
        path.write_text(_MODULE.replace("x * 2", "x * 3").replace("range(a)", "range(a + 1)"))
        assert code_of(module.plain, "").source is None
        assert code_of(module.double, "").source is None
        assert code_of(module.plain, "").line_number == 8
        path.write_text("import re\n\n\n" + _MODULE)
        for function in (module.plain, module.Thing.static, module.decorated):
            assert code_of(function, "").source is not None
        path.unlink()
        assert code_of(module.plain, "").source is None

    def test_no_warning_of_the_compiler_reaches_the_program(self, tmp_path: Path) -> None:
        """Code about which the compiler warns was warned about when it was imported, and is not again."""
        _module(tmp_path)
        code = textwrap.dedent("""
            import warnings
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import thing_for_test
            warnings.simplefilter("always")
            before = list(warnings.filters)
            from otel_debugstore.source import code_of
            assert code_of(thing_for_test.odd, "").source
            assert warnings.filters == before
        """)
        environ = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[1]}"}
        done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")

    def test_what_is_not_from_a_file_is_named_all_the_same(self) -> None:
        """Code made by `exec`, builtins, and what can't be called."""
        assert code_of(_function("def f(): return 1"), "v").qualified_name.endswith("f")
        assert code_of(_function("def f(): return 1"), "v").source is None
        assert code_of(print, "v").qualified_name == "builtins.print"
        assert code_of(3, "v").qualified_name == "int"  # type: ignore[arg-type]


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
class TestCommit:
    @pytest.fixture
    def git(self, tmp_path: Path) -> Callable[..., str]:
        def run(*words: str, folder: Path = tmp_path) -> str:
            environ = {
                "GIT_CONFIG_GLOBAL": "/dev/null",
                "GIT_CONFIG_SYSTEM": "/dev/null",
                "HOME": str(tmp_path),
                **{f"GIT_{who}_{what}": "someone" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
            }
            return subprocess.run(
                ["git", *words], cwd=folder, env=environ, capture_output=True, text=True, check=True
            ).stdout.strip()

        return run

    @pytest.fixture
    def file(self, tmp_path: Path, git: Callable[..., str]) -> Path:
        file = tmp_path / "folder" / "code.py"
        file.parent.mkdir()
        file.write_text("x = 1\n")
        git("init", "-q", "-b", "trunk/one")
        git("add", ".")
        return file

    def test_it_is_what_git_says(self, tmp_path: Path, file: Path, git: Callable[..., str]) -> None:
        """On a branch, with packed references, after the next commit, detached, and in a worktree."""
        assert commit_of(file) is None  # no commit yet
        git("commit", "-q", "-m", "one")
        assert commit_of(file) == git("rev-parse", "HEAD")
        git("pack-refs", "--all")
        assert commit_of(file) == git("rev-parse", "HEAD")
        git("commit", "-q", "--allow-empty", "-m", "two")
        assert commit_of(file) == git("rev-parse", "HEAD")
        git("worktree", "add", "-q", "-b", "other", "tree", "HEAD~1")
        assert commit_of(tmp_path / "tree" / "folder" / "code.py") == git("rev-parse", "HEAD~1")
        git("checkout", "-q", "--detach", "HEAD~1")
        assert commit_of(file) == git("rev-parse", "HEAD")

    def test_a_file_that_git_does_not_know_has_none(self, tmp_path: Path, file: Path, git: Callable[..., str]) -> None:
        """What was installed in a working tree, what is not added, and what is in no working tree."""
        git("commit", "-q", "-m", "one")
        for name in ("code.py", "folder/code.pyc", "lib/folder/code.py"):
            other = tmp_path / name
            other.parent.mkdir(exist_ok=True, parents=True)
            other.write_text("")
            assert commit_of(other) is None
        assert commit_of("/proc/self/status") is None
        assert commit_of("") is None

    def test_a_damaged_repository_has_none(self, tmp_path: Path, file: Path, git: Callable[..., str]) -> None:
        """Whatever `HEAD` says."""
        git("commit", "-q", "-m", "one")
        for text in (b"", b"ref: ", b"ref: ../../x", b"ref: /etc/passwd", b"\xff\0", b"ref: HEAD", b"nonsense"):
            (tmp_path / ".git" / "HEAD").write_bytes(text)
            assert commit_of(file) is None


def test_replaced_defaults() -> None:
    """Those of keyword-only parameters, and those of a function that is closed over, are part of what a function is."""

    def keyword_only(value: int, *, plus: int = 1) -> int:
        return value + plus

    def inner(value: int, plus: int = 1, *, times: int = 1) -> int:
        return (value + plus) * times

    def outer(value: int) -> int:
        return inner(value)

    found = [variant_of(keyword_only)]
    keyword_only.__kwdefaults__ = {"plus": 99}
    found.append(variant_of(keyword_only))
    assert len(set(found)) == 2
    found = [variant_of(outer)]
    inner.__defaults__ = (50,)
    found.append(variant_of(outer))
    inner.__kwdefaults__ = {"times": 2}
    found.append(variant_of(outer))
    assert len(set(found)) == 3
    inner.__defaults__, inner.__kwdefaults__ = (1,), {"times": 1}
    assert variant_of(outer) == found[0]


def test_code_that_was_replaced_before_it_was_written_is_not_known() -> None:
    """What stands in the store under a hash is the code of that hash, or nothing."""

    def work() -> int:
        return 1

    def other() -> int:
        return 2

    component = Component("tool", "work", work)
    variant = component.variant()
    assert variant is not None
    is_open, OUTBOX.is_open = OUTBOX.is_open, True
    try:
        component.send_code(variant)
        work.__code__ = other.__code__
        (code,) = [code for code in OUTBOX.take().code if code.variant == variant]
    finally:
        OUTBOX.is_open = is_open
    assert (code.source, code.line_number) == (None, None)
