"""Which pyproject.toml counts, and what its `[tool.otel-debugstore]` says.

It is that of the working directory, and before it that of the process which began the session: nodes and other
children mostly run in a folder of their own, and are told by their environment.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, Final

from otel_debugstore.log import warn_once

PYPROJECT: Final = "_OTEL_DEBUGSTORE_PYPROJECT"
"""In the environment of children: the absolute path of the session's file."""

_NAME: Final = "pyproject.toml"
_TABLE: Final = "otel-debugstore"
_MAX_BYTES: Final = 1 << 20


@functools.cache
def settings_files() -> tuple[Path, ...]:
    """Return the files that count in this process, a later one before an earlier one."""
    own = Path(_NAME)
    with contextlib.suppress(OSError):  # the working directory was deleted
        own = own.absolute()
    told = os.environ.get(PYPROJECT)
    return (own, Path(told)) if told else (own,)


def hand_down(environ: MutableMapping[str, str]) -> None:
    """Say in the environment of a child, whose working directory may be another, which file the session has."""
    path = settings_files()[-1]
    if os.path.isfile(path):  # noqa: PTH113  # `Path.is_file` raises where the folder can't be looked into
        environ[PYPROJECT] = str(path)


def settings_table(path: Path) -> Mapping[str, Any] | None:
    """Return what a file says, by names written with `-`; None, and a line of log, if that can't be known.

    A program that can't look into its own working directory has no file there that it could have meant to be read:
    only the line is written, unless that file was handed down.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return {}
        data = path.read_bytes()
        if _TABLE.encode() not in data:
            return {}
        if len(data) > _MAX_BYTES:
            raise ValueError("it is larger than 1 MiB.")
        import tomllib

        found = tomllib.loads(data.decode()).get("tool", {}).get(_TABLE, {})
        return {key.replace("_", "-"): value for key, value in found.items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, AttributeError) as error:  # the last: something is no table
        is_hidden = isinstance(error, PermissionError) and not os.path.lexists(path)
        if is_hidden and os.environ.get(PYPROJECT) != str(path):
            warn_once(f"settings {path}", f"{path} can't be looked for ({error}); recording goes on without it.")
            return {}
        warn_once(
            f"settings {path}",
            f"[tool.{_TABLE}] of {path} can't be read: {error} It may say what must not be kept, so no arguments and "
            "results are.",
        )
        return None
