"""Runs a command, and keeps hold of all that it starts: `python -I -S keeper.py STATUS CONTROL PROGRAM ARGUMENTS...`.

Processes that measure are kept in the same way (`keep`). The command has a session of its own. On Linux a process whose
parent has ended becomes a child of this one, so that nothing gets out of sight, whatever it did to its group and its
environment. To STATUS a line is written with the command's process, or why it could not be started (`!ERRNO`); and one
with how it ended, as `subprocess` has it. When something is written to CONTROL, or it is closed, or whoever asked for
the command has ended (others may have CONTROL open, too), all that is left is ended by SIGKILL.

Standard library only, and little of it: this starts with every command.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Callable

_MAX_ENDING_S = 10.0
_LOOK_S = 1.0
_PR_SET_CHILD_SUBREAPER = 36
_RESET = ("SIGPIPE", "SIGXFSZ")
"""Signals that Python ignores, and commands do not."""


def main() -> None:
    """Run the command, and stay until what is left is to be ended."""
    status, control = int(sys.argv[1]), int(sys.argv[2])
    keep(status, control, lambda: _become([os.fsencode(word) for word in sys.argv[3:]], status))


def keep(status: int, control: int, run: Callable[[], object]) -> None:
    """Have something done by a fork of this process, in a session of its own, and stay as `main` does.

    Of this process nothing else remains: its other descriptors are closed.

    Args:
        status, control: The descriptors of STATUS and CONTROL.
        run: What to do there; the forked process ends with it.
    """
    asking = os.getppid()
    for descriptor in (status, control):
        os.set_inheritable(descriptor, False)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    woken, wakes = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            for descriptor in (control, woken, wakes):
                os.close(descriptor)
            os.setsid()
            run()
        finally:
            os._exit(127)
    _close_all_but((status, control, woken, wakes))
    os.write(status, b"%d\n" % pid)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    os.set_blocking(wakes, False)
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(wakes)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})  # whoever started us may have it blocked
    has_ended = _reap(pid, status)
    while os.getppid() == asking and control not in (ready := select.select([control, woken], [], [], _LOOK_S)[0]):
        if ready:
            os.read(woken, 4096)
        has_ended = _reap(pid, status) or has_ended
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _end_all([] if has_ended else [pid])


def _close_all_but(kept: tuple[int, ...]) -> None:
    """Close what this process has open, but for its three streams: whoever reads from the fork sees its end."""
    for name in os.listdir("/dev/fd"):  # noqa: PTH208
        if int(name) > 2 and int(name) not in kept:
            with contextlib.suppress(OSError):  # that of the list itself
                os.close(int(name))


def _become(command: list[bytes], status: int) -> None:
    """Run the command in this process, which is the forked one."""
    try:
        for name in _RESET:
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.SIG_DFL)
        os.execvpe(command[0], command, _environment())
    except OSError as error:
        os.write(status, b"!%d\n" % (error.errno or 0))


def _environment() -> dict[bytes, bytes]:
    """Return the environment as it was given: Python may have added a locale to its own."""
    try:
        with open("/proc/self/environ", "rb") as file:  # noqa: PTH123  # pathlib takes a while to be imported
            given = file.read().split(b"\0")
    except OSError:
        return dict(os.environb)
    return dict(one.split(b"=", 1) for one in given if b"=" in one)


def _reap(pid: int, status: int) -> bool:
    """Reap what has ended; say so of the command, and return whether it is among that."""
    has_ended = False
    while True:
        try:
            ended, how = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return has_ended
        if not ended:
            return has_ended
        if ended == pid:
            os.write(status, b"%d\n" % os.waitstatus_to_exitcode(how))
            has_ended = True


def _end_all(running: list[int]) -> None:
    """End all children, and theirs, which become ours with that; without /proc only those that are known to run."""
    until = time.monotonic() + _MAX_ENDING_S  # some may not be ours to end
    while time.monotonic() < until:
        for child in _children() or running:
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.005)


def _children() -> list[int]:
    own, found = b"%d" % os.getpid(), []
    for name in os.listdir("/proc") if sys.platform == "linux" else ():  # noqa: PTH208
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if fields[1] == own and fields[0] != b"Z":
                found.append(int(name))
    return found


if __name__ == "__main__":
    main()
