"""The clock of deadlines, which a program that stops time for itself does not stop.

freezegun replaces `time.monotonic`, and its copies in every module it finds, while a test runs; what was
recorded would not be written until then, nor what was recorded later. It does not look into classes.
"""

from __future__ import annotations

import time


class Clock:
    """`Clock.monotonic()` returns the seconds that went by since some moment."""

    monotonic = staticmethod(time.monotonic)
