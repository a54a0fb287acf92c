"""What is loaded with the first span and not at a program's start, in programs that change the world in between."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from instrumented import run_instrumented
from stored import stored_spans

HEAVY = ("encoder", "codec", "batch", "journal", "segment")
WORK = """
import os, sys, time
from opentelemetry import trace
tracer = trace.get_tracer("app")
def work(name="work"):
    with tracer.start_as_current_span(name, attributes={"password": "hunter2", "note": "api_key=abcdefgh12345678"}):
        pass
"""
SLOW = """
import importlib.abc, threading
loading = threading.Event()
loaders = []
class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "otel_debugstore_exporters.codec":
            loaders.append(threading.get_ident())
            loading.set()
            time.sleep(0.5)
        return None
sys.meta_path.insert(0, Slow())
"""


def run(code: str, folder: Path, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run a program under `opentelemetry-instrument`, which ends well and says nothing of ours."""
    (folder / "app.py").write_text(WORK + textwrap.dedent(code))
    done = run_instrumented("app.py", folder=folder, **settings)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


def recorded(folder: Path) -> Counter[str]:
    return Counter(span.name for span in stored_spans(folder / "debug_data"))


@pytest.mark.parametrize("exporter", ["debugstore", "console"])
def test_a_start_loads_nothing_that_writes(exporter: str, tmp_path: Path) -> None:
    """Neither where spans are recorded, nor where they go elsewhere; then the recorder is not loaded at all."""
    code = f"""
    heavy = ["otel_debugstore.masking", *("otel_debugstore_exporters." + name for name in {HEAVY})]
    print([name for name in heavy if name in sys.modules])
    print("otel_debugstore.processor" in sys.modules)
    """
    assert run(code, tmp_path, traces_exporter=exporter).stdout == f"[]\n{exporter == 'debugstore'}\n"


def test_the_first_span_loads_our_modules_alone(tmp_path: Path) -> None:
    """Whatever they need from elsewhere is there at the start; also in a second process of the session."""
    code = """
    before = set(sys.modules)
    work()
    assert trace.get_tracer_provider().force_flush()
    new = {name for name in set(sys.modules) - before if not name.startswith(("otel_debugstore", "lmdb."))}
    print(sorted(new))
    """
    for _ in range(2):
        assert run(code, tmp_path, debugstore_session="s").stdout == "[]\n"
    assert recorded(tmp_path) == {"work": 2}


def test_a_program_with_modules_of_these_names(tmp_path: Path) -> None:
    """Modules beside the program are the program's: none of them is imported."""
    folder = tmp_path / "program"
    folder.mkdir()
    for name in ("array", "base64", "fcntl", "lmdb", "mmap", "msgpack", "resource", "struct", "uuid", "zstandard"):
        (folder / f"{name}.py").write_text(f"print({name!r})\n")
    (folder / "main.py").write_text(WORK + 'work()\nprint("done")\n')
    done = run_instrumented("program/main.py", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
    assert recorded(tmp_path) == {"work": 1}


CHANGES = {
    "no path": "sys.path.clear(); sys.path_importer_cache.clear()",
    "another folder": "os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')",
    "our modules forgotten": "for name in [n for n in sys.modules if n.startswith('otel_')]: del sys.modules[name]",
    "descriptors closed": "os.closerange(3, 256)",
    "standard descriptors closed": "os.close(0)",
}
OBSTACLES = {
    "no finders": "sys.meta_path.clear()",
    "no path of ours": "import otel_debugstore_exporters; otel_debugstore_exporters.__path__ = []",
    "a guarded import": """
import builtins
real = builtins.__import__
def guard(name, *args, **kwargs):
    if "otel_debugstore" in name:
        raise PermissionError(name)
    return real(name, *args, **kwargs)
builtins.__import__ = guard
""",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_program_that_changes_its_surroundings(change: str, tmp_path: Path) -> None:
    """Its spans are recorded all the same, and masked."""
    assert run(f'{CHANGES[change]}\nwork()\nprint("done")', tmp_path).stdout == "done\n"
    (span,) = stored_spans(tmp_path / "debug_data")
    assert span.attributes == {"password": "(masked: password)", "note": "api_key=(masked: api_key)"}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_a_program_that_forbids_imports(obstacle: str, tmp_path: Path) -> None:
    """It runs on, and one line says why nothing is recorded."""
    code = f"{OBSTACLES[obstacle]}\nfor _ in range(3):\n    work()\n    time.sleep(0.1)\nprint('done')"
    done = run(code, tmp_path)
    assert done.stdout == "done\n"
    assert {line.split(":")[0] for line in done.stderr.splitlines()} == {"otel-debugstore"}
    assert not (tmp_path / "debug_data").exists()


ENDINGS = {
    "at the end": "work()",
    "an exit handler": "import atexit; atexit.register(work)",
    "another thread": "import threading; threading.Thread(target=lambda: (time.sleep(0.3), work())).start()",
    "os._exit": "work(); os._exit(0)",
    "exec": "work(); os.execv('/bin/true', ['true'])",
    "slow imports": SLOW + "work()",
    "slow imports, os._exit": SLOW + "work(); os._exit(0)",
    "slow imports, an exit handler": SLOW + "import atexit; atexit.register(work)",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_single_span_before_the_end(ending: str, tmp_path: Path) -> None:
    """It is recorded although all that writes has to be loaded while the program ends."""
    assert run(ENDINGS[ending], tmp_path).stderr == ""
    assert recorded(tmp_path) == {"work": 1}


def test_who_ends_the_first_span_does_not_load(tmp_path: Path) -> None:
    """It is loaded in a thread of ours."""
    code = SLOW + "work()\nassert loading.wait(30)\nprint(loaders == [threading.get_ident()])"
    assert run(code, tmp_path).stdout == "False\n"


@pytest.mark.parametrize("module", ["codec", "journal"])
def test_a_fork_while_it_is_loaded(module: str, tmp_path: Path) -> None:
    """The child waits neither for an import that will never end there, nor for a journal that its parent opens."""
    code = """
    work("parent")
    assert loading.wait(30)
    child = os.fork()
    if not child:
        work("child")
        os._exit(0)
    os.waitpid(child, 0)
    """
    run(SLOW.replace("codec", module) + textwrap.dedent(code), tmp_path)
    assert recorded(tmp_path) == {"parent": 1, "child": 1}


def test_a_fork_while_the_first_code_is_described(tmp_path: Path) -> None:
    """Nor for that of what looks up a function's source, which other programs never load."""
    code = """
    import otel_debugstore
    @otel_debugstore.tool
    def call():
        pass
    call()
    assert loading.wait(30)
    child = os.fork()
    if not child:
        @otel_debugstore.tool
        def call_of_child():
            pass
        call_of_child()
        os._exit(0)
    os.waitpid(child, 0)
    """
    run(SLOW.replace("otel_debugstore_exporters.codec", "otel_debugstore.source") + textwrap.dedent(code), tmp_path)
    assert set(recorded(tmp_path).values()) == {1}
    assert len(recorded(tmp_path)) == 2


def test_a_fork_that_waited_too_long_for_another_one(tmp_path: Path) -> None:
    """What the slower one keeps is free again when that is over."""
    code = """
    import faulthandler, os, threading, time
    is_first = iter((True,))
    os.register_at_fork(before=lambda: time.sleep(3 if next(is_first, False) else 0))
    from otel_debugstore.loading import loading
    def fork():
        if os.fork() == 0:
            os._exit(0)
        os.wait()
    threads = [threading.Thread(target=fork) for _ in range(2)]
    for thread in threads:
        thread.start()
        time.sleep(0.2)
    for thread in threads:
        thread.join()
    faulthandler.dump_traceback_later(10, exit=True)
    with loading("a module"):
        print("free")
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "free\n", "")
