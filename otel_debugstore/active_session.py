"""Which session this process records into, and whether it is the one that may seal it.

A process that chooses a session tells its children through the environment, whatever way they are
started (subprocess, spawn, forkserver): the session, the absolute path it lies in, the file of its settings, and the
process that owns it. So the processes of one program share a session, and only its first one seals.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Final

from otel_debugstore.config import Settings
from otel_debugstore.environment_variables import OTEL_DEBUGSTORE_PATH, OTEL_DEBUGSTORE_SESSION
from otel_debugstore.session_id import default_session_id
from otel_debugstore.settings_file import hand_down

_OWNER: Final = "_OTEL_DEBUGSTORE_OWNER"
"""`{pid}:{session id}`. Internal, so it is no flag of `opentelemetry-instrument`."""

_NO_SERVICE: Final = "unknown_service"


def activate_session(settings: Settings, service_name: str = "") -> tuple[Path, str]:
    """Choose the session of this process, tell its children, and return its base path and id.

    Args:
        settings: The base path, made absolute here, and the session id if one is set.
        service_name: What the session is named after if none is set; the script by default.
    """
    base_path = _absolute(settings.base_path)
    session_id = settings.session_id or default_session_id(_name(service_name))
    os.environ[OTEL_DEBUGSTORE_PATH] = str(base_path)
    os.environ[OTEL_DEBUGSTORE_SESSION] = session_id
    hand_down(os.environ)
    if _owner_of(session_id) is None:
        os.environ[_OWNER] = f"{os.getpid()}:{session_id}"
    return base_path, session_id


def owns_session(session_id: str) -> bool:
    """Return whether this process is the one that began the session here, so that it may seal it."""
    return _owner_of(session_id) == os.getpid()


def is_first_process() -> bool:
    """Return whether this process is no descendant of one that records."""
    return os.environ.get(_OWNER, "").partition(":")[0] in ("", str(os.getpid()))


def program_name(arguments: Sequence[str] | None = None) -> str:
    """Return what the running program is called: its script's or module's name, "python" for none.

    Args:
        arguments: The interpreter's command line; that of this process by default.
    """
    # While `site` runs, where auto-instrumentation starts, `sys.argv` says only "-m" for a module.
    arguments = sys.orig_argv if arguments is None else arguments
    rest = list(arguments[1:])
    while rest:
        argument = rest.pop(0)
        if argument in ("-W", "-X", "--check-hash-based-pycs") and rest:
            rest.pop(0)
        elif argument == "-m" and rest:
            return rest[0].removesuffix(".__main__").rpartition(".")[2]
        elif argument.startswith("-"):
            if argument in ("-c", "-"):
                break
        else:
            path = PurePath(argument)
            return path.parent.name if path.name == "__main__.py" else path.stem
    return "python"


def _absolute(path: Path) -> Path:
    try:
        return path.absolute()
    except OSError:  # the working directory was deleted
        return path


def _name(service_name: str) -> str:
    if service_name and not service_name.startswith(_NO_SERVICE):
        return service_name
    return os.environ.get("OTEL_SERVICE_NAME", "").strip() or program_name()


def _owner_of(session_id: str) -> int | None:
    pid, _, owned = os.environ.get(_OWNER, "").partition(":")
    return int(pid) if owned == session_id and pid.isdecimal() else None
