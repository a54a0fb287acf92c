"""What child processes used, and that waiting for them stays as it is without us."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from otel_debugstore.measures.child import ChildUse, child_use, collecting_children, watch_children

_MB = 1_000_000


@pytest.fixture(autouse=True)
def watched() -> Iterator[None]:
    stop = watch_children()
    yield
    stop()


def _python(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-S", "-c", code], text=True, check=False, **options)


def _use_of(code: str) -> ChildUse:
    with collecting_children() as uses:
        _python(code)
    (use,) = uses
    return use


def test_cpu_time_and_exit_code_are_those_of_the_child() -> None:
    """A child that works for 200 ms and exits with 3 has used that."""
    use = _use_of("import time\nwhile time.process_time() < 0.2: pass\nraise SystemExit(3)")
    assert use.exit_code == 3
    assert 190 * _MB < use.cpu_ns < 260 * _MB


def test_a_killed_child_has_the_signal_as_its_exit_code() -> None:
    """As `Popen.returncode` has it."""
    assert _use_of("import os, signal; os.kill(os.getpid(), signal.SIGKILL)").exit_code == -signal.SIGKILL


def test_peak_memory_is_the_childs_and_not_the_parents() -> None:
    """Of a child that held 300 MB, and of one that held little, whatever this process ever held."""
    code = "import time; x = b'x' * 300_000_000; time.sleep(0.1); del x; time.sleep(0.1)"
    peaks = [_use_of(code).peak_bytes]
    held = b"x" * 500_000_000
    del held
    peaks += [_use_of(code).peak_bytes for _ in range(3)]
    small = [_use_of("import time; time.sleep(0.2)").peak_bytes for _ in range(3)]
    known = [peak for peak in peaks if peak is not None]  # where there is no time to look, nothing is known
    assert known
    assert all(290 * _MB < peak < 330 * _MB for peak in known), peaks
    known = [peak for peak in small if peak is not None]
    assert known
    assert all(peak < 50 * _MB for peak in known), small


def test_growth_after_the_last_look_makes_the_peak_unknown() -> None:
    """A child that takes memory and ends at once has its peak or none, never less."""
    held = b"x" * 500_000_000
    del held
    peaks = [_use_of("import os; x = b'x' * 100_000_000; os._exit(0)").peak_bytes for _ in range(5)]
    assert all(peak is None or peak > 90 * _MB for peak in peaks), peaks


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("print('out')", {}),
        ("import sys; print('err', file=sys.stderr); sys.exit(4)", {}),
        ("import sys; print(sys.stdin.read())", {"input": "some text"}),
        ("import os; os.abort()", {}),
        ("print('out')", {"timeout": 30}),
    ],
)
def test_results_are_as_without_us(code: str, options: dict[str, Any]) -> None:
    """`subprocess.run` returns the same, whether children are watched or not."""
    watched = _python(code, capture_output=True, **options)
    with mock.patch("os.waitpid", side_effect=os.waitpid):  # then all is the stock code
        with collecting_children() as uses:
            stock = _python(code, capture_output=True, **options)
        assert not uses
    assert (watched.returncode, watched.stdout, watched.stderr) == (stock.returncode, stock.stdout, stock.stderr)


def test_a_timeout_is_raised_and_the_killed_child_collected() -> None:
    """`TimeoutExpired` comes as ever; the child that it killed is one of those waited for."""
    with collecting_children() as uses, pytest.raises(subprocess.TimeoutExpired):
        _python("import time; time.sleep(60)", timeout=0.2)
    assert [use.exit_code for use in uses] == [-signal.SIGKILL]


def test_a_child_that_does_not_start_raises_as_ever() -> None:
    """No child, no use, and the stock error."""
    with collecting_children() as uses, pytest.raises(FileNotFoundError):
        subprocess.run(["/does/not/exist"], check=False)
    assert not uses


def test_a_polled_child_has_its_use() -> None:
    """`poll` learns it too, and says what it always said."""
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as popen:
        assert popen.poll() is None
        assert child_use(popen) is None
        assert popen.stdin is not None
        popen.stdin.close()
        while popen.poll() is None:
            time.sleep(0.01)
        assert popen.poll() == popen.returncode == 1
    use = child_use(popen)
    assert use is not None
    assert (use.pid, use.exit_code) == (popen.pid, 1)


def test_a_child_that_somebody_else_waited_for_has_no_use() -> None:
    """Then Popen takes the exit status for 0, as it does without us."""
    with subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(7)"]) as popen:
        os.waitpid(popen.pid, 0)
        assert popen.wait() == 0
    assert child_use(popen) is None


def test_many_threads_may_wait_for_one_child() -> None:
    """Each gets the exit code, and the child is collected once."""
    codes: list[int] = []
    uses: list[ChildUse] = []

    def wait() -> None:
        with collecting_children() as mine:
            codes.append(popen.wait())
        uses.extend(mine)

    with subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(0.2); raise SystemExit(5)"]) as popen:
        threads = [threading.Thread(target=wait) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert codes == [5] * 4
    assert [use.exit_code for use in uses] == [5]


def test_children_are_collected_by_all_that_are_around_them() -> None:
    """The inner one has its own, the outer one also those of the inner."""
    with collecting_children() as outer:
        _python("")
        with collecting_children() as inner:
            _python("raise SystemExit(2)")
    _python("")
    assert [use.exit_code for use in inner] == [2]
    assert [use.exit_code for use in outer] == [0, 2]


def test_children_of_another_thread_are_not_collected() -> None:
    """A context is not shared with threads."""
    with collecting_children() as uses:
        thread = threading.Thread(target=_python, args=("",))
        thread.start()
        thread.join()
    assert not uses


def test_watching_ends_when_all_who_asked_for_it_ended_it() -> None:
    """Then Popen has its own methods again."""
    code = (
        "import subprocess; stock = dict(vars(subprocess.Popen))\n"
        "from otel_debugstore.measures.child import watch_children\n"
        "stops = [watch_children(), watch_children()]\n"
        "assert dict(vars(subprocess.Popen)) != stock\n"
        "stops[0](); stops[0]()\n"
        "assert dict(vars(subprocess.Popen)) != stock\n"
        "stops[1]()\n"
        "assert dict(vars(subprocess.Popen)) == stock\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_child_left_alone_says_no_more_than_ever() -> None:
    """A Popen that is dropped, and a program that ends meanwhile: only the warning that Python gives."""
    code = (
        "import subprocess, sys\n"
        "from otel_debugstore.measures.child import watch_children\n"
        "watch_children()\n"
        "popen = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(0.3)'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nothing_is_left_open_when_children_have_ended() -> None:
    """Descriptors through which children were looked at are closed."""
    _python("import time; time.sleep(0.1)")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        _python("import time; time.sleep(0.05)")
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
