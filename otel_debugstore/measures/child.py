"""What child processes used: exit code, CPU time and peak memory of each `subprocess.Popen` that was waited for.

Children that others wait for, as asyncio does, are not seen. How Popen is made to tell: `popen_patch`.

CPU time and peak memory are those of the child and of the children that it waited for itself.
The peak is exact where the kernel's `ru_maxrss` is above all that this process ever held: between vfork and exec the
child runs in the memory of this process, and the kernel takes that for the child's. Below, it is the last `VmHWM` read
while the child lived: at 5, 10, 15, 22, 33 ms, then every 20 ms for 1 s, then every 0.1 s. If the child touched so
many new pages after the last look that a tenth, or 1 MiB, may be missing, it is None. (Huge pages count as small ones
there: where the system uses them for everything, growth after the last look can be missed.)

Loss: a use that can't be had is None. Capacity: 256 living children are looked at.
Threads: any; Popen's own lock guards the wait. Fork: the child forgets its parent's children.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_debugstore.clock import Clock
from otel_debugstore.fork import reset_after_fork
from otel_debugstore.measures.high_mark import HighMark
from otel_debugstore.measures.proc_file import ProcFile
from otel_debugstore.measures.sampler import LOOK_SECONDS, SAMPLER

if TYPE_CHECKING:
    from subprocess import Popen

MAX_LOOKED_AT: Final = 256

_FIRST_LOOK_SECONDS: Final = 0.005
_LAST_LOOK_SECONDS: Final = 0.1
_BLUR_BYTES: Final = 512 << 10  # by which kernels may miscount: pages are counted for each CPU
_MISSED_BYTES: Final = 1 << 20
_MISSED_SHARE: Final = 0.1
_MAXRSS_BYTES: Final = 1 if sys.platform == "darwin" else 1024
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_STAT_BYTES: Final = 512
_ATTRIBUTE: Final = "_otel_debugstore_child"


class ChildUse(NamedTuple):
    """What a child process used; None is what is not known."""

    pid: int
    exit_code: int
    """As `Popen.returncode`: less than 0 for a signal."""
    cpu_ns: int
    peak_bytes: int | None


class _Child:
    """A child process, from its start until it was waited for."""

    def __init__(self, pid: int, floor_bytes: int) -> None:
        self.pid = pid
        self.floor_bytes = floor_bytes
        """What this process ever held: below that, `ru_maxrss` says nothing."""
        self.born = Clock.monotonic()
        self.next_look = self.born + _FIRST_LOOK_SECONDS
        self.use: ChildUse | None = None
        self._peak_bytes: int | None = None  # at the last look
        self._faults = 0  # at the last look or before
        self._status = HighMark(pid)
        self._stat = ProcFile(f"/proc/{pid}/stat", b"%d (" % pid)

    def look(self, now: float) -> bool:
        """Note the peak so far; return whether to look again."""
        faults = self._read_faults()
        peak_bytes = self._status.read()
        if peak_bytes is None:  # it has ended, and may wait to be waited for
            return False
        self._peak_bytes, self._faults = max(peak_bytes, self._peak_bytes or 0), faults
        age = now - self.born
        self.next_look = now + (min(max(_FIRST_LOOK_SECONDS, age / 2), LOOK_SECONDS) if age < 1 else _LAST_LOOK_SECONDS)
        return peak_bytes <= self.floor_bytes + 2 * _BLUR_BYTES  # else the kernel says it all at the end

    def finish(self, rusage: resource.struct_rusage, exit_code: int) -> ChildUse:
        """Return what it used, when it was waited for."""
        cpu_ns = round(rusage.ru_utime * 1e9) + round(rusage.ru_stime * 1e9)
        self.use = ChildUse(self.pid, exit_code, cpu_ns, self._final_peak(rusage))
        return self.use

    def close(self) -> None:
        """Let go of descriptors."""
        self._status.close()
        self._stat.close()

    def _final_peak(self, rusage: resource.struct_rusage) -> int | None:
        maxrss_bytes = rusage.ru_maxrss * _MAXRSS_BYTES
        if maxrss_bytes > self.floor_bytes + _BLUR_BYTES:
            return maxrss_bytes
        if self._peak_bytes is None:
            return None
        missed_bytes = (rusage.ru_minflt + rusage.ru_majflt - self._faults) * _PAGE_BYTES
        return self._peak_bytes if missed_bytes <= max(_MISSED_BYTES, _MISSED_SHARE * self._peak_bytes) else None

    def _read_faults(self) -> int:
        """Return how often it touched a page that was not there, and the children that it waited for."""
        fields = (self._stat.read(_STAT_BYTES) or b"").rpartition(b")")[2].split()
        return sum(int(field) for field in fields[7:11])


class _Children:
    """Those that live."""

    def __init__(self) -> None:
        self.after_fork_in_child()
        self._own_mark: HighMark | None = None
        reset_after_fork(self)

    def after_fork_in_child(self) -> None:
        self._living: dict[_Child, None] = {}

    def add(self, pid: int) -> _Child:
        if self._own_mark is None:
            self._own_mark = HighMark()
            SAMPLER.add(self._look)
        # Read after the exec: this process can only have held more since.
        held = self._own_mark.read() or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_BYTES
        child = _Child(pid, held)
        if len(self._living) < MAX_LOOKED_AT:
            self._living[child] = None
            SAMPLER.wake()
        return child

    def remove(self, child: _Child) -> None:
        self._living.pop(child, None)
        child.close()

    def _look(self) -> float | None:
        if not self._living:
            return None
        now = Clock.monotonic()
        for child in list(self._living):
            try:
                if child.next_look <= now and not child.look(now):
                    self.remove(child)
            except Exception:  # noqa: BLE001  # a kernel that writes it otherwise
                self.remove(child)
        return max(0.0, min([child.next_look for child in list(self._living)], default=now) - now)


_children: Final = _Children()
_collectors: Final[ContextVar[tuple[list[ChildUse], ...]]] = ContextVar("debugstore_children", default=())
_watchers = 0


@contextlib.contextmanager
def collecting_children() -> Iterator[list[ChildUse]]:
    """Collect the use of children that are waited for in this context, while they are watched."""
    uses: list[ChildUse] = []
    enclosing = _collectors.get()
    _collectors.set((*enclosing, uses))
    try:
        yield uses
    finally:
        _collectors.set(enclosing)


def child_use(popen: Popen[Any]) -> ChildUse | None:
    """Return what a child used; None if it was not watched, or not waited for yet."""
    child = vars(popen).get(_ATTRIBUTE)
    return child.use if isinstance(child, _Child) else None


def watch_children() -> Callable[[], None]:
    """Learn the use of all children that `subprocess.Popen` starts from now on.

    Returns:
        What ends that, once everybody who asked for it has called it.
    """
    global _watchers
    from otel_debugstore.measures import popen_patch

    _watchers += 1
    popen_patch.install(_started, _waited_for)
    is_watching = True

    def stop() -> None:
        nonlocal is_watching
        global _watchers
        if is_watching:
            is_watching = False
            _watchers -= 1
            if not _watchers:
                popen_patch.uninstall()

    return stop


def _started(popen: Popen[Any]) -> None:
    setattr(popen, _ATTRIBUTE, _children.add(popen.pid))


def _waited_for(popen: Popen[Any], rusage: resource.struct_rusage) -> None:
    child = vars(popen).get(_ATTRIBUTE)
    if isinstance(child, _Child) and child.use is None and popen.returncode is not None:
        _children.remove(child)
        use = child.finish(rusage, popen.returncode)
        for uses in _collectors.get():
            uses.append(use)
