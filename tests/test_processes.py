"""Commands that are run for the user: how they end is said, and nothing of them stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from otel_debugstore.errors import ConfigurationError
from otel_debugstore_analysis.processes import MARK, Outcome, run_command, split_command

SLEEPER = "import time; time.sleep(600)"


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code), *arguments]


def ran(code: str, *arguments: str, timeout_s: float = 60.0, max_output_bytes: int = 1_000_000) -> Outcome:
    return run_command(python(code, *arguments), timeout_s=timeout_s, max_output_bytes=max_output_bytes)


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for_pids(path: Path) -> None:
    """Wait until a file has the ids of processes."""
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def open_descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def gone(path: Path) -> bool:
    """Return whether the processes whose ids a file has are gone."""
    pids = [int(line) for line in path.read_text().split()]
    return bool(pids) and not any(map(is_running, pids))


class TestEndings:
    def test_exit_code_zero_is_ok(self) -> None:
        """A command that ends by itself with 0 is ok, and what it wrote is kept, by stream."""
        outcome = ran("import sys; print('out'); print('err', file=sys.stderr)")
        assert (outcome.status, outcome.is_ok, outcome.exit_code, outcome.signal) == ("ok", True, 0, None)
        assert (outcome.stdout.text, outcome.stderr.text) == ("out\n", "err\n")
        assert 0 < outcome.seconds < 60

    def test_another_exit_code_is_a_failure(self) -> None:
        """The exit code is said, in numbers and in the cause."""
        outcome = ran("raise SystemExit(3)")
        assert (outcome.status, outcome.exit_code, outcome.cause) == ("failed", 3, "It ended with exit code 3.")

    def test_no_such_program(self) -> None:
        """A command that does not exist has a cause that names it, and raises nothing."""
        outcome = run_command(["no-such-program-anywhere", "x"])
        assert (outcome.status, outcome.exit_code) == ("not_found", None)
        assert "there is no program no-such-program-anywhere on the PATH" in outcome.cause

    def test_no_program_but_a_file(self, tmp_path: Path) -> None:
        """A file that can't be executed is told from one that is not there, and a directory to run in from both."""
        plain = tmp_path / "plain"
        plain.write_text("echo hello\n")
        assert "may not be executed" in run_command([plain]).cause
        plain.chmod(0o755)
        assert "Exec format error" in run_command([plain]).cause
        assert f"there is no directory {tmp_path / 'none'}" in run_command(["true"], cwd=tmp_path / "none").cause

    def test_killed_by_a_signal(self) -> None:
        """A signal that is not ours is told by name."""
        outcome = ran("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
        assert (outcome.status, outcome.exit_code, outcome.signal) == ("killed", None, signal.SIGKILL)
        assert "SIGKILL" in outcome.cause

    def test_hanging_is_ended(self) -> None:
        """A command whose time is up is ended, and said to be."""
        outcome = ran(SLEEPER, timeout_s=0.3)
        assert (outcome.status, outcome.signal) == ("timeout", signal.SIGTERM)
        assert "longer than 0.3 s" in outcome.cause

    def test_hanging_that_takes_no_hint(self) -> None:
        """One that ignores SIGTERM is killed; what it wrote before is there."""
        outcome = run_command(["sh", "-c", "trap '' TERM; echo ready; sleep 600"], timeout_s=2)
        assert (outcome.status, outcome.signal, outcome.stdout.text) == ("timeout", signal.SIGKILL, "ready\n")

    def test_it_may_end_well_when_its_time_is_up(self) -> None:
        """SIGTERM comes first, so a command can clean up; its time was up all the same."""
        script = "trap 'echo cleaned; exit 0' TERM; while :; do sleep 0.05; done"
        outcome = run_command(["sh", "-c", script], timeout_s=2)
        assert (outcome.status, outcome.exit_code, outcome.stdout.text) == ("timeout", 0, "cleaned\n")

    @pytest.mark.parametrize("argv", [[], ["a\0b"]])
    def test_what_is_no_command(self, argv: list[str]) -> None:
        """No words, and words that no program can get, are refused."""
        with pytest.raises(ConfigurationError, match="is no command"):
            run_command(argv)

    def test_no_time(self) -> None:
        """A timeout of 0 is refused: nothing ends in it."""
        with pytest.raises(ConfigurationError, match="more than 0"):
            run_command(["true"], timeout_s=0)


class TestStreams:
    def test_beginning_and_end_of_much_output(self) -> None:
        """Of more output than wanted the beginning and the end are kept, and the text says how much is not."""
        outcome = ran("print('a' * 500 + 'b' * 100_000 + 'z' * 499)", max_output_bytes=1000)
        assert (outcome.stdout.head, outcome.stdout.tail) == (b"a" * 500, b"z" * 499 + b"\n")
        assert (outcome.stdout.left_out_bytes, outcome.stdout.is_whole) == (100_000, False)
        assert "100,000 bytes left out" in outcome.stdout.text

    def test_as_much_as_is_wanted(self) -> None:
        """Output of just the size that is kept is whole."""
        outcome = ran("print('a' * 999)", max_output_bytes=1000)
        assert (outcome.stdout.head, outcome.stdout.is_whole) == (b"a" * 999 + b"\n", True)

    def test_both_streams_are_drained(self) -> None:
        """Megabytes on both streams at once, and on standard input, hold nobody up."""
        outcome = run_command(
            python("import sys; d = sys.stdin.buffer.read(); sys.stderr.buffer.write(d); sys.stdout.buffer.write(d)"),
            stdin=b"x" * 3_000_000,
            max_output_bytes=4_000_000,
            timeout_s=60,
        )
        assert outcome.is_ok
        assert outcome.stdout.head == outcome.stderr.head == b"x" * 3_000_000

    def test_input_that_nobody_reads(self) -> None:
        """A command that reads nothing of its input ends as it would."""
        assert run_command(["true"], stdin=b"x" * 3_000_000).is_ok

    def test_no_input(self) -> None:
        """Without input there is an end of file: a command that asks does not wait, and has no terminal to ask on."""
        outcome = ran(
            """
            import sys
            print(repr(sys.stdin.read()))
            try:
                open("/dev/tty")
            except OSError:
                print("no terminal")
            """
        )
        assert outcome.stdout.text == "''\nno terminal\n"

    def test_output_that_is_no_text(self) -> None:
        """Bytes that are no UTF-8 stay as they are in the bytes, and are replaced in the text."""
        outcome = ran(r"import sys; sys.stdout.buffer.write(b'\xff!')")
        assert (outcome.stdout.head, outcome.stdout.text) == (b"\xff!", "\N{REPLACEMENT CHARACTER}!")

    def test_its_environment_is_the_one_given(self) -> None:
        """It has the environment that was given, but for the mark, and nothing of ours."""
        outcome = run_command(
            python("import os; print(sorted(os.environ))"), environment={"A": "1", "PATH": os.environ["PATH"]}
        )
        names = outcome.stdout.text
        assert "'A'" in names
        assert MARK in names
        assert "HOME" not in names

    def test_no_shell(self, tmp_path: Path) -> None:
        """What a shell would act on is an argument like others."""
        outcome = run_command(["echo", f"; touch {tmp_path}/made", "$HOME", "*"])
        assert outcome.stdout.text == f"; touch {tmp_path}/made $HOME *\n"
        assert not (tmp_path / "made").exists()


LEAVES_BEHIND = """
    import subprocess, sys, pathlib
    children = [
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=new)
        for new in (False, True)
    ]
    pathlib.Path(sys.argv[1]).write_text(" ".join(str(child.pid) for child in children))
    if len(sys.argv) > 2:
        children[0].wait()
"""


class TestNothingStays:
    def test_what_it_leaves_behind_is_ended(self, tmp_path: Path) -> None:
        """Children that outlive the command are ended with it, also those that left its group and session."""
        outcome = ran(LEAVES_BEHIND, str(tmp_path / "pids"))
        assert (outcome.status, outcome.left_running) == ("ok", 2)
        assert gone(tmp_path / "pids")

    def test_what_it_leaves_behind_may_end_well(self, tmp_path: Path) -> None:
        """It is asked to end before it is made to."""
        left = f"trap 'echo well > {tmp_path}/end; exit' TERM; touch {tmp_path}/on; while true; do sleep 0.01; done"
        outcome = run_command(
            ["bash", "-c", f"({left}) & while [ ! -e {tmp_path}/on ]; do sleep 0.01; done"], timeout_s=20
        )
        assert (outcome.status, outcome.left_running >= 1) == ("ok", True)
        assert (tmp_path / "end").read_text() == "well\n"

    def test_what_looks_after_it_may_be_stopped(self) -> None:
        """By the command, which ends nevertheless when its time is up."""
        assert run_command(["bash", "-c", "kill -STOP $PPID; sleep 600"], timeout_s=1).status == "timeout"

    def test_its_end_is_seen_though_signals_are_blocked(self) -> None:
        """Those of this process, SIGCHLD among them, as threads that wait for signals have it."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        try:
            assert run_command(["sleep", "0.2"], timeout_s=5).status == "ok"
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @pytest.mark.slow
    def test_it_goes_with_its_children(self, tmp_path: Path) -> None:
        """When its time is up, its children go, too."""
        outcome = ran(LEAVES_BEHIND, str(tmp_path / "pids"), "wait", timeout_s=8.0)
        assert (outcome.status, outcome.left_running) == ("timeout", 2)
        assert gone(tmp_path / "pids")

    def test_a_daemon(self, tmp_path: Path) -> None:
        """A process that forked twice and holds the streams open is ended; the command does not wait for it."""
        outcome = ran(
            """
            import os, pathlib, sys, time
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
                    time.sleep(600)
                os._exit(0)
            os.wait()
            while not pathlib.Path(sys.argv[1]).exists():
                time.sleep(0.01)
            print("done")
            """,
            str(tmp_path / "pids"),
        )
        assert (outcome.status, outcome.stdout.text) == ("ok", "done\n")
        assert gone(tmp_path / "pids")

    @pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody adopts it")
    @pytest.mark.parametrize("leaves", ["exit 0", "wait"])
    def test_a_daemon_with_an_environment_of_its_own(self, tmp_path: Path, leaves: str) -> None:
        """It left group and session, and has no mark: it is ended all the same, whether its parent has or not."""
        forget = (
            f"env -i setsid bash -c 'echo $$ > {tmp_path}/pids.new; mv {tmp_path}/pids.new {tmp_path}/pids; sleep 600'"
        )
        line = f"{forget} > /dev/null 2>&1 < /dev/null & while [ ! -e {tmp_path}/pids ]; do sleep 0.01; done; {leaves}"
        outcome = run_command(["bash", "-c", line], timeout_s=3)
        assert outcome.status == ("ok" if leaves == "exit 0" else "timeout")
        assert outcome.left_running >= 1
        assert gone(tmp_path / "pids")

    @pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only the command itself is ended")
    def test_it_ends_with_us_though_we_are_killed(self, tmp_path: Path) -> None:
        """SIGKILL of this process leaves nobody to end the command but the process that watches over it: it does.

        So it is though a fork of this process lives on, with all that was open.
        """
        code = f"""
            import os, sys, threading, time
            from pathlib import Path
            from otel_debugstore_analysis.processes import run_command
            pids, fork = Path({str(tmp_path / "pids")!r}), Path({str(tmp_path / "fork")!r})
            def fork_later():
                while not (pids.exists() and pids.read_text()):
                    time.sleep(0.01)
                if os.fork() == 0:
                    fork.write_text(str(os.getpid()))
                    time.sleep(600)
            threading.Thread(target=fork_later).start()
            run_command([sys.executable, "-c", {textwrap.dedent(LEAVES_BEHIND)!r}, str(pids), "wait"])
        """
        ours = subprocess.Popen(python(code), stderr=subprocess.DEVNULL)  # where Python warns of forks with threads
        wait_for_pids(tmp_path / "pids")
        wait_for_pids(tmp_path / "fork")
        ours.kill()
        ours.wait()
        deadline = time.monotonic() + 20
        while not gone(tmp_path / "pids") and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(int((tmp_path / "fork").read_text()), signal.SIGKILL)
        assert gone(tmp_path / "pids")

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_it_ends_with_us(self, tmp_path: Path, number: signal.Signals) -> None:
        """Ctrl-C, SIGTERM and SIGHUP of this process end the command first, and then this process as ever."""
        code = f"""
            import signal, sys
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # `nohup` has it ignored
            from otel_debugstore_analysis.processes import run_command
            run_command([sys.executable, "-c", {textwrap.dedent(LEAVES_BEHIND)!r}, {str(tmp_path / "pids")!r}, "wait"])
        """
        ours = subprocess.Popen(python(code), stderr=subprocess.PIPE, text=True)
        wait_for_pids(tmp_path / "pids")
        ours.send_signal(number)
        _, said = ours.communicate(timeout=30)
        assert ours.returncode == -number
        assert ("KeyboardInterrupt" in said) == (number == signal.SIGINT)
        assert gone(tmp_path / "pids")

    @pytest.mark.slow
    def test_commands_within_commands(self, tmp_path: Path) -> None:
        """A command that runs commands and is killed takes these with it, though each has its own session."""
        code = f"""
            import sys
            from otel_debugstore_analysis.processes import run_command
            run_command([sys.executable, "-c", {textwrap.dedent(LEAVES_BEHIND)!r}, {str(tmp_path / "pids")!r}, "wait"])
        """
        outcome = ran(
            f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{textwrap.dedent(code)}", timeout_s=5
        )
        assert outcome.status == "timeout"
        assert gone(tmp_path / "pids")

    def test_handlers_are_as_before(self) -> None:
        """What this process does on signals is as it was when the command has ended."""
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        ran("pass")
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before

    def test_no_descriptors_stay_open(self) -> None:
        """Commands that end well, hang, or don't exist leave no descriptor open, and no zombie."""
        run_command(["true"])
        before, children = open_descriptors(), psutil.Process().children()
        run_command(["true"], stdin=b"x")
        ran(SLEEPER, timeout_s=0.2)
        run_command(["no-such-program-anywhere"])
        assert open_descriptors() == before
        assert psutil.Process().children() == children

    def test_others_are_left_alone(self) -> None:
        """Processes that are not the command's run on."""
        other = subprocess.Popen(python(SLEEPER))
        try:
            ran(SLEEPER, timeout_s=0.2)
            time.sleep(0.05)
            assert other.poll() is None
        finally:
            other.kill()
            other.wait()


class TestWords:
    def test_quotes(self) -> None:
        """A line is split as a shell would do it; words stay what they are."""
        assert split_command("pytest -k 'a or b' x") == ["pytest", "-k", "a or b", "x"]
        assert split_command(["a b", "&&"]) == ["a b", "&&"]

    @pytest.mark.parametrize(
        ("line", "why"),
        [("", "empty"), ("  ", "empty"), ("a 'b", "can't be read"), ("cd x && pytest", "shell"), ("a | b", "shell")],
    )
    def test_what_only_a_shell_understands(self, line: str, why: str) -> None:
        """A line that needs a shell is refused, and not run as something else."""
        with pytest.raises(ConfigurationError, match=why):
            split_command(line)
