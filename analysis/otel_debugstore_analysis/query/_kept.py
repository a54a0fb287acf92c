"""Compiled SQL kept in files, so that the next process needs no Ibis: importing it and compiling the queries of a
report takes a second.

What is kept holds only for the code that made it: the files lie in a directory named after a hash of that code and of
the versions of the compilers. It is nothing but a cache: what can't be read or written is compiled again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Hashable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from otel_debugstore_analysis.query._engine import Bound, Compiled

_PACKAGES: Final = ("otel_debugstore_analysis", "otel_debugstore_exporters", "otel_debugstore")
_COMPILERS: Final = ("ibis-framework", "sqlglot")
_MAX_FILES: Final = 1_000
_PREFIX: Final = "sql-"

_place: Path | None = None


def keep_in(directory: Path | None) -> None:
    """Keep compiled SQL below a directory from now on; None: in this process only."""
    global _place
    _place = directory
    _directory.cache_clear()


def user_directory() -> Path | None:
    """Return where a user's caches of this program lie; None for a user without a home."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    with contextlib.suppress(RuntimeError):
        return (base if base.is_absolute() else Path.home() / ".cache") / "otel-debugstore"
    return None


def load(dialect: str, build: Callable[..., Any], shape: tuple[Hashable, ...]) -> Compiled | None:
    """Return what was kept of `build(*shape)` in a dialect, if anything was."""
    path = _path(dialect, build, shape)
    if path is None:
        return None
    try:
        key, sql, reads, columns, places = json.loads(path.read_text(encoding="utf-8"))
        if key != _key(dialect, build, shape):
            return None
        return Compiled(
            sql,
            {table: tuple(names) for table, names in reads.items()},
            tuple(columns),
            {table: tuple(Bound(*bound) for bound in bounds) for table, bounds in places.items()},
        )
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def save(dialect: str, build: Callable[..., Any], shape: tuple[Hashable, ...], compiled: Compiled) -> None:
    """Keep what was compiled."""
    path = _path(dialect, build, shape)
    if path is None:
        return
    parts = (_key(dialect, build, shape), compiled.sql, compiled.reads, compiled.columns, compiled.places)
    with contextlib.suppress(OSError):
        if not path.parent.is_dir():
            _begin(path.parent)
        elif sum(1 for _ in path.parent.iterdir()) >= _MAX_FILES:
            return
        with tempfile.NamedTemporaryFile("w", dir=path.parent, encoding="utf-8", delete=False) as file:
            file.write(json.dumps(parts))
        Path(file.name).replace(path)


def _begin(directory: Path) -> None:
    """Make the directory of this code, in place of those of other versions."""
    for other in directory.parent.glob(f"{_PREFIX}*"):
        shutil.rmtree(other, ignore_errors=True)
    directory.mkdir(parents=True, mode=0o700, exist_ok=True)


def _path(dialect: str, build: Callable[..., Any], shape: tuple[Hashable, ...]) -> Path | None:
    directory = _directory()
    is_ours = build.__module__.partition(".")[0] in _PACKAGES and "<" not in build.__qualname__
    if directory is None or not is_ours:
        return None
    return directory / f"{hashlib.sha256(_key(dialect, build, shape).encode()).hexdigest()[:32]}.json"


def _key(dialect: str, build: Callable[..., Any], shape: tuple[Hashable, ...]) -> str:
    return f"{dialect} {build.__module__}.{build.__qualname__}{shape!r}"


@functools.cache
def _directory() -> Path | None:
    """Return where SQL of this code is kept; None if nowhere."""
    if _place is None:
        return None
    told = [sys.version, *(f"{name} {version(name)}" for name in _COMPILERS)]
    for package in _PACKAGES:
        for folder in getattr(sys.modules.get(package), "__path__", ()):
            for path in sorted(Path(folder).rglob("*.py")):
                stat = path.stat()
                told.append(f"{path} {stat.st_mtime_ns} {stat.st_size}")
    return _place / f"{_PREFIX}{hashlib.sha256(chr(0).join(told).encode()).hexdigest()[:16]}"
