"""`made`: makes recorded arguments in a process that measures."""

from __future__ import annotations

from typing import Any, Final

import msgpack

from otel_debugstore_analysis.replay.loading import arguments

MAKER: Final = f"{__name__}:made"


def packed(content: bytes, parameters: list[str]) -> bytes:
    """Return what `made` takes."""
    data: bytes = msgpack.packb([content, parameters])
    return data


def made(data: bytes) -> tuple[list[Any], dict[str, Any]]:
    """Return arguments by place and by name."""
    content, parameters = msgpack.unpackb(data)
    return arguments(content, parameters)
