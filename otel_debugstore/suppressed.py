"""`suppressed`: what runs in it is recorded by nobody, for it is recording that runs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, set_value


@contextmanager
def suppressed() -> Iterator[None]:
    """Have no instrumentation record what is called in this block, ours included."""
    token = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
    try:
        yield
    finally:
        detach(token)
