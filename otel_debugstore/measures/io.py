"""`IO`: how much a call read and wrote through system calls, files and sockets alike, cached or not.

It is what this thread moved while the call ran: `rchar` and `wchar` of the kernel's I/O accounting, less what
our own probes read. What the call has other threads or processes do is not in it.
A call costs some 4.5 us, both ends together: nearly all of it the kernel's.
Threads: any, and signal handlers; a call that ends in another thread than it began in, or in a forked child, has
no figures. Capacity: see `own_reads.MAX_KEPT`. Where there is no such accounting, all is None.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from otel_debugstore.guard import swallow
from otel_debugstore.measures.own_reads import OF_THREAD, ThreadReads
from otel_debugstore.measures.pread import PREAD

_SIZE: Final = 192
_PREFIX: Final = b"rchar: "


class IoMark(NamedTuple):
    """An open call."""

    token: object
    content: bytes
    own_bytes: int
    own_written_bytes: int


class IoUse(NamedTuple):
    """What `IoProbe.end` returns."""

    read_bytes: int
    write_bytes: int


class IoProbe:
    """See the module's first lines."""

    def begin(self) -> IoMark | None:
        """Return the mark of a call that begins now, for `end`; None if nothing can be known."""
        reads = OF_THREAD.reads
        own_bytes = reads.own_bytes
        content = _read(reads)
        # As a plain tuple: half the cost, and `end` takes it apart in any case.
        return (reads.token, content, own_bytes, reads.own_written_bytes) if content else None  # type: ignore[return-value]

    def end(self, mark: IoMark | None) -> IoUse | None:
        """Return what was read and written since `begin`; None if that is not known."""
        if mark is None:
            return None
        reads = OF_THREAD.reads
        token, content, own_bytes, own_written_bytes = mark
        if token is not reads.token:
            return None
        own_bytes = reads.own_bytes - own_bytes
        now = _read(reads)
        if not now:
            return None
        try:
            _, read, _, written, _ = content.split(None, 4)
            _, read_now, _, written_now, _ = now.split(None, 4)
            write_bytes = int(written_now) - int(written) - reads.own_written_bytes + own_written_bytes
            return tuple.__new__(IoUse, (int(read_now) - int(read) - own_bytes, write_bytes))
        except ValueError:  # a kernel that writes it otherwise
            return None


def _read(reads: ThreadReads) -> bytes:
    try:
        content = PREAD.pread(reads.io.descriptor, _SIZE, 0)
    except OSError as error:
        swallow(error)
        content = b""
    if content[:7] != _PREFIX:
        content = reads.io.read(_SIZE) or b""
    reads.own_bytes += len(content)
    return content


IO: Final = IoProbe()
