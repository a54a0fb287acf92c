"""What a call cost: CPU time, memory and I/O, against what the test itself did."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_debugstore.measures import sampler
from otel_debugstore.measures.cpu import thread_cpu_ns
from otel_debugstore.measures.high_mark import HighMark
from otel_debugstore.measures.io import IO, IoUse
from otel_debugstore.measures.memory import MemoryMark, MemoryProbe
from otel_debugstore.measures.own_reads import MAX_KEPT, OF_THREAD
from otel_debugstore.measures.pread import Reader
from otel_debugstore.measures.thrift import SHORT_NS, Thrift
from otel_debugstore.recording_settings import recording_settings

needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="there is no /proc")

_MB = 1_000_000
_PREFACE = """
    import json, os, sys, threading, time
    from otel_debugstore.measures.io import IO
    from otel_debugstore.measures.memory import MEMORY

    def measured(call, parent=None):
        mark = MEMORY.begin(parent)
        call()
        return MEMORY.end(mark)

    def hold(megabytes, seconds):
        held = [b"x" * 1_000_000 for _ in range(megabytes)]  # in parts: the interpreter is free in between
        time.sleep(seconds)
"""


def _run(program: str, after_vfork: bool = False, **environ: str) -> Any:
    """Run a program in a process of its own, and return what it says as JSON; it must say nothing else."""
    code = textwrap.dedent(_PREFACE) + textwrap.dedent(program)
    # With vfork the program's `ru_maxrss` would begin with what the tests held.
    starting: dict[str, Any] = {} if after_vfork else {"preexec_fn": lambda: None}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env={**os.environ, **environ},
        timeout=60,
        check=False,
        **starting,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return json.loads(done.stdout)


class TestCpu:
    def test_only_the_thread_that_works_has_used_time(self) -> None:
        """200 ms of work in one thread are those of that thread, and none of one that waits meanwhile."""
        used: dict[str, int] = {}
        is_done = threading.Event()

        def measure(name: str, work: Callable[[], object]) -> None:
            began = thread_cpu_ns()
            work()
            used[name] = thread_cpu_ns() - began

        def work() -> None:
            end = time.thread_time_ns() + 200 * _MB
            while time.thread_time_ns() < end:
                pass
            is_done.set()

        threads = [
            threading.Thread(target=measure, args=("busy", work)),
            threading.Thread(target=measure, args=("waiting", is_done.wait)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 190 * _MB < used["busy"] < 230 * _MB
        assert used["waiting"] < 10 * _MB


@needs_proc
class TestMemory:
    def test_a_peak_that_the_process_never_had_before_is_exact(self) -> None:
        """300 MB that are allocated and freed within a call are its peak, and not its net, however short it is."""
        peak, net, overlapped = _run("print(json.dumps(measured(lambda: hold(300, 0))))")
        assert 290 * _MB < peak < 330 * _MB
        assert abs(net) < 20 * _MB
        assert not overlapped

    @pytest.mark.slow
    def test_a_peak_below_an_earlier_one_is_seen_while_it_lasts(self) -> None:
        """When the process held more before, the peak of a call that lasts is what was seen meanwhile."""
        peaks = _run("""
            held = b"x" * 500_000_000
            del held
            print(json.dumps([measured(lambda: hold(300, 0.3)).peak_bytes for _ in range(4)]))
        """)
        known = [peak for peak in peaks if peak is not None]  # where there is no time to look, nothing is known
        assert known
        assert all(290 * _MB < peak < 330 * _MB for peak in known), peaks

    def test_a_process_that_a_bigger_one_started_has_peaks_of_its_own(self) -> None:
        """Whatever the one held that started it, a call that lasts has its peak, though it ends with that."""
        held = b"x" * 600_000_000
        del held
        peaks = _run(
            "print(json.dumps([measured(lambda: hold(size, 0)).peak_bytes for size in (300, 400)]))", after_vfork=True
        )
        for size, peak in zip((300, 400), peaks, strict=True):
            assert peak is None or 0.9 * size < peak / _MB < 1.1 * size

    def test_a_peak_that_nobody_could_see_is_not_known(self) -> None:
        """A call shorter than 20 ms has no peak where the process held more before."""
        peaks = _run("""
            held = b"x" * 500_000_000
            del held
            peaks = []
            for _ in range(100):
                began = time.monotonic()
                use = measured(lambda: hold(2, 0))
                if time.monotonic() - began < 0.02:  # else it may have been seen
                    peaks.append(use.peak_bytes)
            print(json.dumps(peaks))
        """)
        assert set(peaks) == {None}

    def test_a_peak_that_nobody_was_to_look_at_is_not_known(self) -> None:
        """A call that was taken for a short one and was not: a look that another call asked for says nothing of it."""
        peak, seen = _run("""
            held = b"x" * 500_000_000
            del held
            outer = MEMORY.begin(is_short=True)
            time.sleep(0.03)
            inner = MEMORY.begin(outer)
            time.sleep(0.1)
            MEMORY.end(inner)
            seen = outer.seen
            print(json.dumps([MEMORY.end(outer).peak_bytes, seen]))
        """)
        assert peak is None
        assert seen > 0

    def test_freed_memory_is_a_net_below_zero(self) -> None:
        """A call that frees 200 MB has a net of -200 MB."""
        net = _run("""
            held = [b"x" * 200_000_000]
            print(json.dumps(measured(held.clear).net_bytes))
        """)
        assert -210 * _MB < net < -190 * _MB

    def test_with_the_reset_short_and_nested_calls_have_exact_peaks(self) -> None:
        """With `memory_reset` each of two calls has its own peak, and the one around them the higher one."""
        outer, *inner = _run(
            """
            held = b"x" * 500_000_000
            del held
            outer = MEMORY.begin()
            uses = [measured(lambda: hold(size, 0), outer) for size in (100, 30)]
            print(json.dumps([use.peak_bytes for use in (MEMORY.end(outer), *uses)]))
            """,
            OTEL_DEBUGSTORE_MEMORY_RESET="true",
        )
        assert [round(peak / (10 * _MB)) for peak in (outer, *inner)] == [10, 10, 3]

    def test_a_process_ends_though_calls_are_open_and_watched(self) -> None:
        """The thread that looks is not among the program's, and does not keep it from ending."""
        names = _run("""
            mark = MEMORY.begin()
            time.sleep(0.1)
            print(json.dumps([thread.name for thread in threading.enumerate()]))
        """)
        assert names == ["MainThread"]

    def test_a_forked_child_measures_itself(self) -> None:
        """In a child the calls of the parent have no figures, and those of its own have theirs."""
        inherited, own, io = _run("""
            mark, io = MEMORY.begin(), IO.begin()
            reader, writer = os.pipe()
            if not os.fork():
                figures = [MEMORY.end(mark), measured(lambda: hold(300, 0)), IO.end(io)]
                os.write(writer, json.dumps(figures).encode())
                os._exit(0)
            os.wait()
            print(os.read(reader, 10_000).decode())
        """)
        assert inherited == [None, None, False]
        assert 290 * _MB < own[0] < 330 * _MB
        assert io is None

    def test_a_program_that_closes_all_descriptors_is_still_measured(self) -> None:
        """A daemon closes what it did not open; then the numbers are its own, and are neither read nor closed."""
        net, said, is_open = _run("""
            measured(lambda: None); IO.end(IO.begin())
            os.closerange(3, 100)
            mine = [os.open("/proc/self/cmdline", os.O_RDONLY) for _ in range(10)]
            held = []
            net = measured(lambda: held.append(b"x" * 200_000_000)).net_bytes
            io = IO.begin()
            os.pread(mine[0], 100, 0)
            said = IO.end(io).read_bytes
            print(json.dumps([net, said, all(os.pread(number, 6, 0) for number in mine)]))
        """)
        assert 190 * _MB < net < 210 * _MB
        assert said == 100
        assert is_open

    def test_without_a_thread_calls_are_measured_all_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where no thread can be started, only peaks that have to be seen are not known."""

        def refuse(*_: object) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(sampler, "start_new_thread", refuse)
        monkeypatch.setattr("otel_debugstore.measures.memory.SAMPLER", sampler.Sampler())
        probe = MemoryProbe()
        held = []
        mark = probe.begin()
        held.append(b"x" * 100_000_000)
        net = probe.end(mark).net_bytes
        assert net is not None
        assert 90 * _MB < net < 110 * _MB

    def test_a_call_is_ended_once(self) -> None:
        """The second end of a call knows nothing, and breaks nothing."""
        probe = MemoryProbe()
        mark = probe.begin()
        assert probe.end(mark).net_bytes is not None
        assert probe.end(mark) == (None, None, False)

    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=40))
    def test_calls_are_flagged_that_were_open_beside_another_one(self, steps: list[tuple[bool, int]]) -> None:
        """Whatever begins and ends in whatever order: flagged are those beside which one of another line was open."""
        probe = MemoryProbe()
        parents: list[int | None] = []
        marks: list[MemoryMark] = []
        still_open: list[int] = []
        expected: set[int] = set()
        flagged: dict[int, bool] = {}

        def line(number: int | None) -> set[int]:
            found = set()
            while number is not None:
                found.add(number)
                number = parents[number]
            return found

        def end(number: int) -> None:
            still_open.remove(number)
            flagged[number] = probe.end(marks[number]).overlapped

        for is_begin, choice in steps:
            if is_begin:
                number = len(marks)
                parent = choice % (number + 1) - 1
                parents.append(None if parent < 0 else parent)
                marks.append(probe.begin(None if parent < 0 else marks[parent]))
                for other in still_open:
                    if other not in line(number):
                        expected |= {other, number}
                still_open.append(number)
            elif still_open:
                end(still_open[choice % len(still_open)])
        for number in list(still_open):
            end(number)
        assert {number for number, is_flagged in flagged.items() if is_flagged} == expected

    def test_ended_calls_are_let_go_of(self) -> None:
        """Each call begins the next one and ends: none of them is kept by those that come after it."""

        def marks() -> int:
            gc.collect()
            return sum(isinstance(thing, MemoryMark) for thing in gc.get_referrers(MemoryMark))

        before = marks()
        probe = MemoryProbe()
        mark = probe.begin()
        for _ in range(100):
            following = probe.begin(mark)
            probe.end(mark)
            mark = following
        assert marks() - before < 5
        assert probe.end(mark).overlapped is False


@needs_proc
class TestIo:
    def test_what_the_call_moved_is_counted_and_what_we_read_is_not(self, tmp_path: Path) -> None:
        """Reads and writes of a call and of the calls in it; our probes in between do not count."""
        probe = MemoryProbe()
        path = tmp_path / "file"
        recording_settings()  # so that no file of settings is read meanwhile
        outer = IO.begin()
        path.write_bytes(b"x" * 10_000)
        mark, inner = probe.begin(), IO.begin()
        with path.open("rb", buffering=0) as file:
            file.read(4_000)
        assert IO.end(inner) == IoUse(4_000, 0)
        probe.end(mark)
        own = HighMark()
        assert own.read()
        own.reset()
        assert IO.end(outer) == IoUse(4_000, 10_000)

    def test_a_call_that_ends_in_another_thread_has_no_figures(self) -> None:
        """The accounts of two threads have nothing to do with each other."""
        mark = IO.begin()
        uses: list[object] = []
        thread = threading.Thread(target=lambda: uses.append(IO.end(mark)))
        thread.start()
        thread.join()
        assert uses == [None]
        assert IO.end(mark) is not None

    def test_many_threads_do_not_take_all_descriptors(self, tmp_path: Path) -> None:
        """Only some threads keep a descriptor; all have figures, and none is left when they have ended."""
        path = tmp_path / "file"
        path.write_bytes(b"x" * 100)
        count = MAX_KEPT + 20
        began, may_end = threading.Barrier(count + 1), threading.Event()
        uses = []

        def call() -> None:
            mark = IO.begin()
            path.read_bytes()
            uses.append(IO.end(mark))
            began.wait(30)
            may_end.wait(30)

        before = _descriptors()
        threads = [threading.Thread(target=call) for _ in range(count)]
        for thread in threads:
            thread.start()
        began.wait(30)
        assert _descriptors() - before <= MAX_KEPT
        may_end.set()
        for thread in threads:
            thread.join()
        assert uses == [IoUse(100, 0)] * count
        gc.collect()
        assert _descriptors() <= before


class TestPread:
    def test_keeping_the_interpreter_reads_the_same(self, tmp_path: Path) -> None:
        """The reader that was kept waiting reads what `os.pread` reads, and fails where that does."""
        path = tmp_path / "file"
        path.write_bytes(b"0123456789")
        reader = Reader()
        assert ctypes.sizeof(ctypes.c_long) == 8
        reader.was_slow(0.0)
        assert reader.pread is not os.pread
        with path.open("rb") as file:
            for size, offset in ((4, 0), (100, 3), (5, 10)):
                assert reader.pread(file.fileno(), size, offset) == os.pread(file.fileno(), size, offset)
        with pytest.raises(OSError):  # noqa: PT011  # as from os.pread
            reader.pread(-1, 10, 0)
        reader.retry()
        assert reader.pread is os.pread


class TestThrift:
    def test_calls_that_are_short_and_move_nothing_are_measured_now_and_then(self) -> None:
        """After 32 of them every eighth is measured, after 256 every 32nd, and all again after one that is long or
        moves something.
        """
        thrift = Thrift()

        def measured(duration_ns: int = 1000, has_moved: bool = False) -> bool:
            looks = thrift.skip == 0
            thrift.saw(duration_ns, has_moved)
            return looks

        assert all(measured() for _ in range(32))
        assert sum(measured() for _ in range(224)) == 28
        assert sum(measured(SHORT_NS - 1) for _ in range(3200)) == 100
        measured(duration_ns=SHORT_NS)
        assert all(measured() for _ in range(32))
        measured(has_moved=True)
        assert all(measured() for _ in range(32))


def _descriptors() -> int:
    """Return how many of this process's descriptors are of I/O accounts."""
    return sum(os.path.realpath(path).endswith("/io") for path in Path("/proc/self/fd").iterdir())


def test_a_thread_drops_its_account_when_it_ends() -> None:
    """What a thread keeps for its figures goes with it."""
    accounts = []
    thread = threading.Thread(target=lambda: accounts.append(id(OF_THREAD.reads)))
    thread.start()
    thread.join()
    gc.collect()
    assert accounts[0] not in {id(thing) for thing in gc.get_objects()}
