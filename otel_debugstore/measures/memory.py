"""`MEMORY`: by how much the memory of the process grew while a call ran, at its peak and in all.

Memory is resident memory (RSS), of the process: no kernel knows that of a call. So a call during which another one
ran, that is neither its caller nor was called by it, is flagged. A net below zero means that memory was given back.

The peak of a call is
- exact where the process never held so much before: the kernel keeps the highest mark (`ru_maxrss`), and it rose;
- exact where the process is one that a bigger one started (with vfork, as `subprocess` does: the kernel's mark begins
  with what that one held), the call took 20 ms or more, and the process's own mark (`VmHWM`) rose after the first look;
- exact where the mark did not rise, and the process held as much as that at the begin or at the end;
- else, of calls of 20 ms and more, the highest of what was seen now and then (`sampler`): after 20 ms, and then
  whenever the call got an eighth longer, but at least every 160 ms and at most every 20 ms. After an idle while, or
  many calls shorter than 20 ms, the next longer one may be noticed 160 ms late. A peak between two looks is missed.
  A call that went unseen for more than 250 ms has none: because C code kept the interpreter, or because the calls
  before were so short that nobody was to look at this one;
- else not known: None.
With the setting `memory_reset` the kernel's mark is reset at each begin, and all peaks are exact. That lowers the
`ru_maxrss` that the program sees of itself, and costs some 20 us a call.
Kernels count pages in steps for each CPU: all figures can be off by some 100 KiB. Where there is no /proc, the peak
is by how much the mark rose, and the rest is None.

Capacity: a mark is kept from `begin` to `end`, so each has to be ended.
Threads: any, and signal handlers: no locks. Fork: the child forgets its parent's calls; ended there, they have no
figures.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from typing import Final, NamedTuple

from otel_debugstore.clock import Clock
from otel_debugstore.fork import reset_after_fork
from otel_debugstore.guard import swallow
from otel_debugstore.measures.high_mark import HighMark
from otel_debugstore.measures.own_reads import OF_THREAD
from otel_debugstore.measures.pread import PREAD, SLOW_SECONDS, Reader
from otel_debugstore.measures.proc_file import ProcFile
from otel_debugstore.measures.sampler import IDLE_LOOK_SECONDS, LOOK_SECONDS, SAMPLER
from otel_debugstore.recording_settings import recording_settings

MAX_UNSEEN_SECONDS: Final = 0.25

_LOOKS_A_DOUBLING: Final = 8  # about: the older a call, the coarser its peak in time, and the smaller the cost's share
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_MAXRSS_BYTES: Final = 1 if sys.platform == "darwin" else 1024
_MAXRSS: Final = 2  # its place in what `getrusage` returns: faster by number
# The same mark, without summing up the times of all threads.
_WHO: Final[int] = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)
_BLUR_BYTES: Final = 1 << 20
_STATM_BYTES: Final = 96
_STATM_SUFFIX: Final = b" 0\n"

_getrusage: Final = resource.getrusage
_new: Final = tuple.__new__  # makes a NamedTuple in half the time
_monotonic: Final = Clock.monotonic

_SAMPLER_PREAD: Final = Reader()  # its own: the sampler always meets threads that compute, callers need not


class MemoryUse(NamedTuple):
    """What `MemoryProbe.end` returns; None is what is not known."""

    peak_bytes: int | None
    net_bytes: int | None
    overlapped: bool


_UNKNOWN: Final = MemoryUse(None, None, False)


class MemoryMark:
    """An open call."""

    __slots__ = (
        "began",
        "children",
        "depth",
        "is_open",
        "maxrss",
        "overlapped",
        "own_mark",
        "owner",
        "parent",
        "rss",
        "seen",
        "unseen",
    )

    def __init__(self, parent: MemoryMark | None, depth: int) -> None:
        self.parent = parent
        self.owner: Callable[[], object] | None = None
        """A weak reference to whose call it is: one that is gone was never ended, and counts no more."""
        self.depth = depth
        """How many ancestors were open when it began."""
        self.children = 0
        """How many are open."""
        self.is_open = True
        self.overlapped = False
        self.unseen = False
        """Whether nothing was seen for too long."""
        self.seen = -1
        """The highest RSS that was seen while it was open, in bytes."""
        self.own_mark = 0
        """`VmHWM` at the first look, in bytes, if that is looked at."""
        self.maxrss = 0
        self.rss: int | None = None
        self.began = _monotonic()


class MemoryProbe:
    """See the module's first lines."""

    def __init__(self) -> None:
        self._statm = ProcFile("/proc/self/statm", suffix=_STATM_SUFFIX)
        self._reset: HighMark | None = None  # the mark that is reset at each begin
        self._own_mark: HighMark | None = None  # read where `ru_maxrss` is that of a bigger process
        self._is_ready = False
        self.after_fork_in_child()
        reset_after_fork(self)

    def after_fork_in_child(self) -> None:
        """Forget the calls of the parent process."""
        self._open: dict[MemoryMark, None] = {}
        self._alone: dict[MemoryMark, None] = {}  # those not overlapped: each is an ancestor of the next one
        self._orphans = 0  # open calls whose caller has ended: while there are any, no `depth` can be trusted
        self._looked = 0.0
        self._look_seconds = LOOK_SECONDS / 2

    def begin(self, parent: MemoryMark | None = None, *, is_short: bool = False) -> MemoryMark:
        """Return the mark of a call that begins now, for `end`.

        Args:
            parent: The mark of the call that it belongs to. It may have ended.
            is_short: Whether it will probably take less than 20 ms, so that no thread is woken up to look at it.
        """
        if parent is not None and not parent.is_open:
            parent = _open_ancestor(parent)
        if parent is None:
            mark = MemoryMark(None, 0)
        else:
            parent.children += 1
            mark = MemoryMark(parent, parent.depth + 1)
        # First seen by others, then looking for others: of two that begin at once the later one finds both.
        self._open[mark] = self._alone[mark] = None
        if len(self._open) > mark.depth + 1 or self._orphans:
            self._find_overlaps(mark)
        if SAMPLER.is_asleep:
            if is_short:
                mark.unseen = True  # nobody looks from its begin on, though another call may have somebody look later
            else:
                SAMPLER.wake()
        if not self._is_ready:
            self._get_ready()
        if self._reset is not None:
            self._forget_peak(self._reset)
            mark.seen = -1  # what was before is not this one's
        mark.rss = self.rss_bytes()
        mark.maxrss = _getrusage(_WHO)[_MAXRSS]
        now = _monotonic()
        if now - mark.began > SLOW_SECONDS:
            PREAD.was_slow(now)
        elif now > PREAD.retry_at:
            PREAD.retry()
        return mark

    def end(self, mark: MemoryMark) -> MemoryUse:
        """Return what memory did since `begin`. A mark is ended once; a second time nothing is known."""
        maxrss = _getrusage(_WHO)[_MAXRSS]
        rss = self.rss_bytes()
        if self._open.pop(mark, self) is self:
            return _UNKNOWN
        self._close(mark)
        if rss is None or mark.rss is None:
            rise = (maxrss - mark.maxrss) * _MAXRSS_BYTES
            return MemoryUse(rise if rise > 0 else None, None, mark.overlapped)
        high = self._high(mark, mark.rss, rss, maxrss)
        return _new(MemoryUse, (None if high is None else high - mark.rss, rss - mark.rss, mark.overlapped))

    def rss_bytes(self, reader: Reader = PREAD) -> int | None:
        """Return the resident memory of the process."""
        try:
            content = reader.pread(self._statm.descriptor, _STATM_BYTES, 0)
        except OSError as error:
            swallow(error)
            content = b""
        if content[-3:] != _STATM_SUFFIX:
            content = self._statm.read(_STATM_BYTES) or b""
        OF_THREAD.reads.own_bytes += len(content)
        try:
            return int(content.split(None, 2)[1]) * _PAGE_BYTES
        except (IndexError, ValueError):
            return None

    def _high(self, mark: MemoryMark, begin_rss: int, end_rss: int, maxrss: int) -> int | None:
        """Return the highest RSS since a call's begin, in bytes, if it is known."""
        edge = end_rss if end_rss > begin_rss else begin_rss
        if self._reset is not None:
            self._remember_peak(self._reset, mark)
            return max(mark.seen, edge) if mark.seen >= 0 else None
        if maxrss > mark.maxrss or maxrss * _MAXRSS_BYTES <= edge:
            return max(maxrss * _MAXRSS_BYTES, edge)
        if mark.seen < 0 or mark.unseen:
            return None
        now = _monotonic()
        if now - mark.began < LOOK_SECONDS or now - max(self._looked, mark.began) > MAX_UNSEEN_SECONDS:
            return None
        if self._own_mark is not None and mark.own_mark:
            own_mark = self._own_mark.read() or 0
            if own_mark > mark.own_mark:
                return max(own_mark, edge)
        return max(mark.seen, edge)

    def _close(self, mark: MemoryMark) -> None:
        mark.is_open = False
        self._alone.pop(mark, None)
        self._orphans += mark.children
        parent = mark.parent
        if parent is None:
            return
        if parent.is_open:
            parent.children -= 1
        else:
            self._orphans -= 1
            mark.parent = _open_ancestor(parent)  # or a chain of calls that each began the next would never be let go

    def _find_overlaps(self, mark: MemoryMark) -> None:
        """Flag a call that begins while others are open that are not its ancestors, and those others."""
        ancestors = set()
        ancestor = mark.parent
        while ancestor is not None:
            if ancestor.is_open:
                ancestors.add(ancestor)
            ancestor = ancestor.parent
        if len(self._open) <= len(ancestors) + 1 or not self._has_others(ancestors, mark):
            return
        mark.overlapped = True
        self._alone.pop(mark, None)
        for other in list(self._alone):
            if other not in ancestors:
                other.overlapped = True
                self._alone.pop(other, None)

    def _has_others(self, ancestors: set[MemoryMark], mark: MemoryMark) -> bool:
        """Return whether calls other than these are open; forget those whose owner is gone."""
        for other in list(self._open):
            if other.owner is not None and other.owner() is None and self._open.pop(other, self) is None:
                self._close(other)
        return any(other is not mark and other not in ancestors for other in list(self._open))

    def _look(self) -> float | None:
        """Note the memory for all open calls, and say when to do that again; called by the sampler."""
        if not self._open:
            self._look_seconds = LOOK_SECONDS / 2
            return None
        now = _monotonic()
        rss = self.rss_bytes(_SAMPLER_PREAD) or 0
        took = _monotonic() - now
        if took > SLOW_SECONDS:
            _SAMPLER_PREAD.was_slow(now)
        own_mark = self._own_mark.read() or 0 if self._own_mark is not None else 0
        # Fewer looks where calls are too short for them.
        self._look_seconds = min(2 * self._look_seconds, IDLE_LOOK_SECONDS)
        for mark in list(self._open):
            if rss > mark.seen:
                mark.seen = rss
            if not mark.own_mark:
                mark.own_mark = own_mark
            if now - max(self._looked, mark.began) > MAX_UNSEEN_SECONDS:
                mark.unseen = True
            age = now - mark.began
            if age >= LOOK_SECONDS:
                self._look_seconds = min(self._look_seconds, max(LOOK_SECONDS, age / _LOOKS_A_DOUBLING))
        self._looked = now
        return self._look_seconds

    def _get_ready(self) -> None:
        """Read the settings; not when this module is imported, which may be before the program sets them."""
        self._is_ready = True
        SAMPLER.add(self._look)
        if recording_settings().memory_reset:
            self._reset = HighMark()
            return
        own_mark = HighMark()
        if _getrusage(_WHO)[_MAXRSS] * _MAXRSS_BYTES > (own_mark.read() or sys.maxsize) + _BLUR_BYTES:
            self._own_mark = own_mark

    def _remember_peak(self, high_mark: HighMark, *and_mark: MemoryMark) -> None:
        peak = high_mark.read() or -1
        for mark in (*self._open, *and_mark):
            mark.seen = max(mark.seen, peak)

    def _forget_peak(self, high_mark: HighMark) -> None:
        """Reset the kernel's mark, after all open calls were told what it was."""
        self._remember_peak(high_mark)
        if not high_mark.reset():
            self._reset = None


def _open_ancestor(mark: MemoryMark) -> MemoryMark | None:
    ancestor = mark.parent
    while ancestor is not None and not ancestor.is_open:
        ancestor = ancestor.parent
    return ancestor


MEMORY: Final = MemoryProbe()
