"""CPU time of the thread that asks."""

from __future__ import annotations

import time
from typing import Final


class _Clock:
    """Where freezegun and its like do not look for functions to replace."""

    thread_time_ns = staticmethod(time.thread_time_ns)


thread_cpu_ns: Final = _Clock.thread_time_ns
"""Return the CPU time that this thread has used, in ns. Differences mean something only within one thread."""
