"""Times on the command line: `10m` (ago), `2026-03-01T12:00`, or nanoseconds since 1970."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import click

from otel_debugstore.config import parse_seconds

_MIN_NANOSECONDS = 10**15


class TimeType(click.ParamType[int]):
    """A time, as nanoseconds since 1970-01-01 UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if value.isascii() and value.isdigit() and int(value) >= _MIN_NANOSECONDS:
            return int(value)
        try:
            return time.time_ns() - int(parse_seconds(value) * 1e9)
        except (ValueError, OverflowError):
            pass
        try:
            stamp = datetime.fromisoformat(value)
        except ValueError:
            self.fail(
                f"{value!r} is no time: say how long ago (90s, 10m, 2h), or when (2026-03-01T12:00, in UTC).",
                param,
                ctx,
            )
        stamp = stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)
        return int(stamp.timestamp() * 1_000_000) * 1000


TIME = TimeType()
