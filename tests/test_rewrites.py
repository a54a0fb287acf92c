"""What optimizers write: rewrites of source, modules that are merged into files, and patches."""

from __future__ import annotations

import copy
import difflib
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_debugstore_analysis.optimizer.lines import with_ends_of
from otel_debugstore_analysis.optimizer.modules import merged
from otel_debugstore_analysis.optimizer.patch import is_patch, make_patch, patched
from otel_debugstore_analysis.optimizer.protocol import OptimizerError
from otel_debugstore_analysis.optimizer.rewrites import hoisted, memoized

RATES = '''"""Rates."""

from __future__ import annotations

CALLS = []


def rate(country, extra=0):
    CALLS.append(country)
    return len(country) + extra


def total(country, items):
    found = 0
    for item in items:
        found += item * rate(country)
    return found


def deep(country, items):
    found = []
    while items:
        for item in items.pop():
            if rate(country, extra=1) > item:
                found.append(
                    rate(
                        country, extra=1
                    )
                )
    return found


def twice(country):
    return (rate(country) +
            rate(country))


def changing(items):
    country = ""
    found = 0
    for item in items:
        country += "x"
        found += rate(country)
    return found


def lazily(country, items):
    return [item and rate(country) for item in items]


def one_line(country, items):
    found = 0
    for item in items: found += rate(country)
    return found


def rebound(country):
    first = rate(country)
    country = country + "!"
    return first + rate(country)


def again_and_again(number):
    return number if number < 2 else again_and_again(number - 1) + again_and_again(number - 2)
'''


def run(text: str, function: str, *args: Any) -> tuple[Any, int]:
    """Return what a function of a source gives, and how often it called `rate`."""
    names: dict[str, Any] = {}
    exec(compile(text, "rates", "exec"), names)
    return names[function](*args), len(names["CALLS"])


@pytest.mark.parametrize(
    ("function", "args", "calls"),
    [
        ("total", ("de", (1, 2, 3)), 1),
        ("total", ("de", ()), 0),
        ("deep", ("fra", [[1, 0, 1], [1]]), 1),
        ("deep", ("fra", []), 0),
        ("twice", ("de",), 1),
    ],
)
def test_a_call_is_made_once(function: str, args: Any, calls: int) -> None:
    """The function gives what it gave, and calls the other once, or not at all where it did not before."""
    rewritten = hoisted(RATES, function, "rate")
    assert rewritten is not None
    wanted, before = run(RATES, function, *copy.deepcopy(args))
    assert run(rewritten, function, *copy.deepcopy(args)) == (wanted, calls)
    assert before >= calls
    kept = [line for line in difflib.ndiff(RATES.splitlines(), rewritten.splitlines()) if line[:1] == " "]
    assert len(kept) > len(RATES.splitlines()) - 9  # the rest of the file is as it was


@pytest.mark.parametrize("function", ["changing", "lazily", "one_line", "rebound", "rate", "nothing"])
def test_calls_that_stay(function: str) -> None:
    """Arguments that change, calls that may not be made, and lines that can't be put apart are left alone."""
    assert hoisted(RATES, function, "rate") is None


def test_a_cache_around_a_function() -> None:
    """It goes below the other decorators, and what it needs is imported, behind the imports from the future."""
    rewritten = memoized(RATES, "again_and_again", 256)
    assert rewritten is not None
    assert "from __future__ import annotations\n\nimport functools\n\n\nCALLS" in rewritten
    assert "@functools.lru_cache(maxsize=256, typed=True)\ndef again_and_again" in rewritten
    assert run(rewritten, "again_and_again", 90)[0] == 2880067194370816120
    decorated = "import functools\n\n@one\n@two(3)\ndef f(a):\n    return a\n"
    assert memoized(decorated, "f", 8) == decorated.replace(
        "def f", "@functools.lru_cache(maxsize=8, typed=True)\ndef f"
    )


@pytest.mark.parametrize(
    "text",
    [
        "import functools\n@functools.cache\ndef f(): ...\n",
        "def f():\n    yield 1\n",
        "async def f(): ...\n",
        "functools = 1\ndef f(): ...\n",
        "class A:\n    def f(self): ...\n",
        "def f(:\n",
    ],
)
def test_functions_that_get_no_cache(text: str) -> None:
    """One that has a cache, generators, coroutines, methods, other names, and what is no Python."""
    assert memoized(text, "f", 8) is None


def test_a_module_is_merged() -> None:
    """Functions take the place of those of their names and keep their decorators; imports and new names come before."""
    head, f, g = (
        '"""Doc."""\n\nimport os\nfrom t import tool\n\n\n',
        "def f(a):\n    return a\n",
        "def g():\n    return 1\n",
    )
    file = f"{head}@tool(pure=True)\n{f}\n\n{g}"
    helper, changed = "def helper(a):\n    return a\n", "@functools.cache\ndef f(a):\n    return helper(a)\n"
    module = f"import functools\n\nLIMIT = 3\n\n{helper}\n{changed}"
    added = f"LIMIT = 3\n\n\n{helper}\n\n"
    wanted = head.replace("import os", "import functools\nimport os") + f"{added}@tool(pure=True)\n{changed}\n\n{g}"
    assert merged(file, module) == wanted
    whole = file.replace("return a", "return (a)")
    assert merged(file, whole) == whole
    with pytest.raises(OptimizerError, match="defines nothing"):
        merged(file, "x = 1")
    with pytest.raises(OptimizerError, match="neither a patch nor a Python module"):
        merged(file, "Here is what I would do:")


LINES = st.lists(st.sampled_from(["a", "b", "", "  c", "d é"]), max_size=30)


@given(LINES, LINES, st.booleans())
def test_a_patch_makes_what_it_was_made_of(before: list[str], after: list[str], ends: bool) -> None:
    """A patch of any two texts, applied to the one, gives the other."""
    one, other = ("".join(f"{line}\n" for line in lines) for lines in (before, after))
    if one == other:
        return
    patch = make_patch({"x/y.py": one}, {"x/y.py": other})
    assert is_patch(patch)
    assert patched(f"Look:\n{patch}", {"x/y.py": one}.get) == {"x/y.py": other}


def test_patches() -> None:
    """Files are added and removed; a patch fits where its lines are, wherever it says they are, or it is refused."""
    assert patched(make_patch({"n.py": None}, {"n.py": "a\n"}), lambda name: None) == {"n.py": "a\n"}
    assert patched(make_patch({"n.py": "a\n"}, {"n.py": None}), {"n.py": "a\n"}.get) == {"n.py": None}
    moved = "--- a/f.py\n+++ b/f.py\n@@ -90,2 +90,2 @@ def f():\n one\n-two\n+2\n"
    assert patched(moved, {"f.py": "zero\none\ntwo\n"}.get) == {"f.py": "zero\none\n2\n"}
    for patch, said in (
        (moved.replace("two", "three"), "does not fit f.py"),
        (moved.replace("f.py", "g.py"), "g.py, which is not there"),
        (moved.replace("a/f.py", "../f.py").replace("b/f.py", "../f.py"), "leads out of the project"),
        (moved.replace("a/f.py", "/etc/f.py"), "leads out of the project"),
        (moved.replace("-90,2", "-90,7"), "other numbers of lines"),
        ("nothing", "changes nothing"),
    ):
        with pytest.raises(OptimizerError, match=said):
            patched(patch, {"f.py": "zero\none\ntwo\n"}.get)


ODD = (
    '"""Odd."""\n\nimport os\n\x0c\nTEXT = "a\u2028b\x85c\x1dd"\n\x0c\n\ndef g(x):\n    return x\n'
    "\x0c\n\ndef h(x):\n    return [g(1), x, g(1)]\n"
)
"""Characters within lines that `str.splitlines` takes for their ends: Python, git and editors do not."""


def test_lines_are_those_of_python() -> None:
    """A function is found where Python sees it, whatever characters stand before it: replaced, cached, and hoisted."""
    found = merged(ODD, "def g(x):\n    return x + 0\n")
    assert found == ODD.replace("    return x\n", "    return x + 0\n")
    cached = memoized(ODD, "g", 128)
    assert cached is not None
    assert "\n\x0c\n\n@functools.lru_cache(maxsize=128, typed=True)\ndef g(x):\n    return x\n" in cached
    once = hoisted(ODD, "h", "g")
    assert once == ODD.replace("    return [g(1), x, g(1)]", "    g_once = g(1)\n    return [g_once, x, g_once]")


@pytest.mark.parametrize("old", [ODD, ODD.replace("\n", "\r\n"), ODD.replace("\n", "\r\n").removesuffix("\r\n")])
def test_git_applies_a_patch(tmp_path: Path, old: str) -> None:
    """Also to a file whose lines end as those of Windows, or that holds what some take for ends of lines."""
    new = old.replace("return x", "return x + 0")
    (tmp_path / "odd.py").write_text(old, encoding="utf-8", newline="")
    (tmp_path / "the.patch").write_text(make_patch({"odd.py": old}, {"odd.py": new}), encoding="utf-8", newline="")
    done = subprocess.run(["git", "apply", "the.patch"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "odd.py").read_bytes() == new.encode()


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_patch_is_read_with_any_ends_of_lines(ends: str) -> None:
    """What an optimizer writes fits a file that was read, and is written with the ends of lines that the file has."""
    patch = make_patch({"odd.py": ODD}, {"odd.py": ODD.replace("return x", "return x + 0")})
    assert patched(patch.replace("\n", ends), {"odd.py": ODD}.get) == {
        "odd.py": ODD.replace("return x", "return x + 0")
    }
    assert with_ends_of("a\nb\r\nc", "x\r\ny\r\nz\n") == "a\r\nb\r\nc"
    assert with_ends_of("a\r\nb\n", "x\ny\nz\r\n") == with_ends_of("a\r\nb\n", None) == "a\nb\n"
