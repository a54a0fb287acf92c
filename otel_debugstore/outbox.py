"""`OUTBOX`: what goes into the store beside spans: payloads, code, and counts of calls.

A span carries digests only. What they stand for is put here before the span ends, and the exporter takes it
when it writes the next spans, so it is never written later than they are.
Capacity: 16 MiB of payloads that wait; beyond that a content is left out and counted (`Extras.left_out`). Nothing
is kept while no exporter of ours has called `open`.
Loss: contents are sent once, and lost if the disk refuses the batch that they went with. Of the 16,384 contents
sent last it is remembered that they were; the store keeps one of equal ones anyway.
Threads: any; `take` is for one at a time. No method takes a lock, so all may be called from signal handlers.
Fork: a child starts empty, and sends again what it needs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from otel_debugstore.fork import reset_after_fork

MAX_WAITING_BYTES: Final = 16 << 20
_REMEMBERED: Final = 16_384


class Payload(NamedTuple):
    """What a digest stands for: arguments, or a result, as `payload.capture` writes them."""

    digest: str
    media_type: str
    replayable: bool
    content: bytes


class Code(NamedTuple):
    """The code of a function, by the hash that identifies it; None is what is not known."""

    variant: str
    qualified_name: str
    file_path: str | None = None
    line_number: int | None = None
    git_commit: str | None = None
    source: str | None = None


class CallCount(NamedTuple):
    """Calls of a component in an interval: those that are not spans, and what recording cost.

    `call_count`, `error_count` and `duration_ns` are of calls that were counted and not recorded.
    `recorded_count` and `recording_ns` are of all: how many became spans, and the time their recording took.
    """

    start_ns: int
    end_ns: int
    layer: str
    component: str
    call_count: int
    error_count: int
    duration_ns: int
    recorded_count: int = 0
    recording_ns: int = 0


class Extras(NamedTuple):
    """What `take` returns."""

    payloads: list[Payload]
    code: list[Code]
    counts: list[CallCount]
    left_out: int = 0
    """Payloads for which there was no room."""

    def __bool__(self) -> bool:
        return bool(self.payloads or self.code or self.counts or self.left_out)


class Outbox:
    """See the module's first lines."""

    def __init__(self) -> None:
        self.is_open = False
        """Whether somebody takes what is put here."""
        self.has_silent_counts = False
        """Whether calls may be counted at any time though no span ends."""
        self._counters: list[Callable[[], list[CallCount]]] = []
        self.after_fork_in_child()
        reset_after_fork(self)

    def after_fork_in_child(self) -> None:
        """Start over with nothing waiting."""
        self.has_silent_counts = False
        self._payloads: deque[Payload] = deque()
        self._code: deque[Callable[[], Code]] = deque()
        self.sent: dict[str, None] = {}
        """The digests and variants that were put here lately."""
        self._added_bytes = 0  # changed by putters
        self._taken_bytes = 0  # changed by the taker
        self._left_out = 0
        self._reported_left_out = 0

    def open(self) -> None:
        """Say that an exporter takes what is put here."""
        self.is_open = True

    def put_payload(self, digest: str, media_type: str, replayable: bool, content: bytes) -> None:
        """Have a content written, unless one of that digest was sent already."""
        if digest in self.sent or not self.is_open:
            return
        if self._added_bytes - self._taken_bytes + len(content) > MAX_WAITING_BYTES:
            self._left_out += 1
            return
        self._remember((digest,))
        self._added_bytes += len(content)
        self._payloads.append(Payload(digest, media_type, replayable, content))

    def put_payloads(self, payloads: list[Payload]) -> None:
        """Have contents written, as `put_payload` has one."""
        sent = self.sent
        new = [payload for payload in payloads if payload[0] not in sent]
        size = sum([len(payload[3]) for payload in new])
        if not self.is_open or self._added_bytes - self._taken_bytes + size > MAX_WAITING_BYTES:
            for payload in new:
                self.put_payload(*payload)
            return
        self._remember([payload[0] for payload in new])
        self._added_bytes += size
        self._payloads += new

    def put_code(self, variant: str, describe: Callable[[], Code]) -> None:
        """Have a function's code written; `describe` is called later, in the thread that writes."""
        if variant not in self.sent and self.is_open:
            self._remember((variant,))
            self._code.append(describe)

    def add_counter(self, take: Callable[[], list[CallCount]]) -> None:
        """Have `take` called when counts are written; it returns what was counted since the last time."""
        self._counters.append(take)

    def expect_counts(self) -> None:
        """Say that from now on calls are counted though no span ends: who writes has to look without being told."""
        if not self.has_silent_counts:
            from otel_debugstore.lifecycle import stand_by

            self.has_silent_counts = True
            stand_by()

    def take(self, *, with_counts: bool = True) -> Extras:
        """Return what was put here since the last time; counts only if they are asked for, else the next time."""
        payloads = [self._payloads.popleft() for _ in range(len(self._payloads))]
        self._taken_bytes += sum([len(payload.content) for payload in payloads])
        code = [self._code.popleft() for _ in range(len(self._code))]
        left_out, self._reported_left_out = self._left_out - self._reported_left_out, self._left_out
        counts = [count for take in self._counters for count in take()] if with_counts else []
        return Extras(payloads, [describe() for describe in code], counts, left_out)

    def _remember(self, keys: Sequence[str]) -> None:
        self.sent.update(dict.fromkeys(keys))
        if len(self.sent) > _REMEMBERED:
            self.sent = dict.fromkeys(list(self.sent)[_REMEMBERED // 2 :])


OUTBOX: Final = Outbox()
