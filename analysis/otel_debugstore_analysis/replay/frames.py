"""Messages between the processes of a replay: MessagePack with its length in front, through a pipe."""

from __future__ import annotations

import os
import select
import struct
import time
from typing import Any, Final

import msgpack

_HEAD: Final = struct.Struct("<Q")
_CHUNK: Final = 1 << 20


class FrameTimeout(Exception):  # noqa: N818  # as TimeoutError is none
    """The other side did not answer in time."""


def write_frame(descriptor: int, value: Any) -> None:
    """Write a message; blocks until it is taken."""
    packed = msgpack.packb(value)
    data = memoryview(_HEAD.pack(len(packed)) + packed)
    while data:
        data = data[os.write(descriptor, data) :]


def read_frame(descriptor: int, timeout_s: float | None = None) -> Any:
    """Return the next message; None if there will be none.

    Raises:
        FrameTimeout: There was none in time.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    head = _read(descriptor, _HEAD.size, deadline)
    if len(head) < _HEAD.size:
        return None
    size = _HEAD.unpack(head)[0]
    body = _read(descriptor, size, deadline)
    return msgpack.unpackb(body, strict_map_key=False) if len(body) == size else None


def _read(descriptor: int, size: int, deadline: float | None) -> bytes:
    parts, left = [], size
    while left:
        if deadline is not None and not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise FrameTimeout
        part = os.read(descriptor, min(left, _CHUNK))
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
