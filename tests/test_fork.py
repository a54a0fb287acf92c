"""Programs of many processes and threads: every span once, in one session."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from instrumented import INSTRUMENT, run_instrumented
from stored import stored_spans

PROGRAMS = {
    "multiprocessing": """
        import multiprocessing, sys
        from opentelemetry import trace

        def work(number):
            tracer = trace.get_tracer("app")
            for i in range(200):
                with tracer.start_as_current_span(f"child {number}.{i}"):
                    pass

        if __name__ == "__main__":
            tracer = trace.get_tracer("app")
            context = multiprocessing.get_context(sys.argv[1])
            for round in range(2):
                for i in range(100):
                    tracer.start_span(f"parent {round}.{i}").end()
                children = [context.Process(target=work, args=(f"{round}{n}",)) for n in range(3)]
                for child in children:
                    child.start()
                for child in children:
                    child.join()
                    assert child.exitcode == 0
        """,
    "terminated workers": """
        import multiprocessing, sys, time
        from opentelemetry import trace

        def work(number, ready):
            tracer = trace.get_tracer("app")
            for i in range(200):
                tracer.start_span(f"child {number}.{i}").end()
            ready.release()
            time.sleep(60)

        if __name__ == "__main__":
            context = multiprocessing.get_context(sys.argv[1])
            ready = context.Semaphore(0)
            children = [context.Process(target=work, args=(n, ready)) for n in range(3)]
            for child in children:
                child.start()
            for child in children:
                ready.acquire()
            for child in children:
                child.terminate()
                child.join()
                assert child.exitcode == -15, child.exitcode
        """,
    "pool": """
        import multiprocessing, sys
        from opentelemetry import trace

        def work(number):
            trace.get_tracer("app").start_span(f"task {number}").end()

        if __name__ == "__main__":
            with multiprocessing.get_context(sys.argv[1]).Pool(3, maxtasksperchild=10) as pool:
                pool.map(work, range(200), chunksize=1)
                pool.close()
                pool.join()
        """,
}


def expected(program: str) -> list[str]:
    if program == "multiprocessing":
        parents = [f"parent {r}.{i}" for r in range(2) for i in range(100)]
        return parents + [f"child {r}{n}.{i}" for r in range(2) for n in range(3) for i in range(200)]
    if program == "terminated workers":
        return [f"child {n}.{i}" for n in range(3) for i in range(200)]
    return [f"task {n}" for n in range(200)]


def write(folder: Path, code: str) -> Path:
    path = folder / "app.py"
    path.write_text(textwrap.dedent(code))
    return path


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_multiprocessing(program: str, method: str, tmp_path: Path) -> None:
    """Children of every start method record into the parent's session, each span once."""
    run = run_instrumented(write(tmp_path, PROGRAMS[program]), method, folder=tmp_path)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    spans = stored_spans(tmp_path / "debug_data")
    assert sorted(span.name for span in spans) == sorted(expected(program))
    pids = {span.pid for span in spans}
    assert len(pids) > 2


def test_multiprocessing_in_code(tmp_path: Path) -> None:
    """Without zero-code set-up, forked children of a configured program record too."""
    code = PROGRAMS["multiprocessing"].replace(
        'if __name__ == "__main__":',
        'if __name__ == "__main__":\n            import otel_debugstore\n'
        '            otel_debugstore.configure(session_id="s")',
    )
    run = subprocess.run(
        [sys.executable, write(tmp_path, code), "fork"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    names = [span.name for span in stored_spans(tmp_path / "debug_data")]
    assert sorted(names) == sorted(expected("multiprocessing"))


def test_os_fork(tmp_path: Path) -> None:
    """What a parent had queued is written by it alone; children of children record, however they end; a
    span open at the fork is kept from both, as two spans.
    """
    code = """
        import os, sys
        from opentelemetry import trace
        tracer = trace.get_tracer("app")
        for i in range(300):
            tracer.start_span(f"before {i}").end()
        with tracer.start_as_current_span("open"):
            if os.fork() == 0:
                if os.fork() == 0:
                    tracer.start_span("grandchild").end()
                    os._exit(0)
                os.wait()
                tracer.start_span("child").end()
                for i in range(300):
                    tracer.start_span(f"more {i}").end()
                child = True
            else:
                os.wait()
                tracer.start_span("parent").end()
        """
    run = run_instrumented(write(tmp_path, code), folder=tmp_path)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    spans = stored_spans(tmp_path / "debug_data")
    found = Counter(span.name for span in spans)
    once = ["grandchild", "child", "parent"] + [f"{kind} {i}" for kind in ("before", "more") for i in range(300)]
    assert found == {**dict.fromkeys(once, 1), "open": 2}
    assert len({(span.span_id, span.pid) for span in spans}) == len(spans)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.12 is the first to warn who forks with threads")
def test_the_warning_of_forks_with_threads(tmp_path: Path) -> None:
    """A program hears of its own threads, and never of ours."""
    code = """
        import os, sys, threading, time
        def fork():
            if os.fork() == 0:
                os._exit(0)
            os.wait()
        fork()
        fork()
        print("thread", file=sys.stderr)
        threading.Thread(target=time.sleep, args=(1,)).start()
        fork()
        """
    run = run_instrumented(write(tmp_path, code), folder=tmp_path)
    before, _, after = run.stderr.partition("thread\n")
    assert (run.returncode, before) == (0, "")
    assert "multi-threaded" in after


def test_fork_while_threads_record(tmp_path: Path) -> None:
    """Forks at any moment of other threads' recording neither hang a child nor double a span."""
    code = """
        import os, threading, warnings
        from opentelemetry import trace
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns who forks with threads
        tracer = trace.get_tracer("app")
        stop = threading.Event()
        counts = [0] * 4
        def work(number):
            while not stop.is_set():
                tracer.start_span(f"thread {number}.{counts[number]}").end()
                counts[number] += 1
        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for n in range(30):
            if os.fork() == 0:
                for i in range(50):
                    tracer.start_span(f"child {n}.{i}").end()
                os._exit(0)
        for n in range(30):
            assert os.wait()[1] == 0
        stop.set()
        for thread in threads:
            thread.join()
        print(sum(counts))
        """
    run = run_instrumented(write(tmp_path, code), folder=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    found = Counter(span.name for span in stored_spans(tmp_path / "debug_data"))
    assert set(found.values()) == {1}
    assert len([name for name in found if name.startswith("child")]) == 1500
    assert len(found) == 1500 + int(run.stdout)


@pytest.mark.slow
def test_threads_that_fork_at_once(tmp_path: Path) -> None:
    """A fork that did not get the store's locks leaves them to the thread that did: both parents' threads go on."""
    code = """
        import os, threading
        inside, forked = threading.Event(), threading.Event()
        def stay():
            if threading.current_thread().name == "first":
                inside.set()
                forked.wait(20)
        os.register_at_fork(before=stay)  # called after those of the store, which are registered later

        from otel_debugstore_exporters import environment, store, sync
        for module in (environment, store, sync):
            module._FORK_WAIT_SECONDS = 0.1
        opened = store.DebugStore("s", "debug_data")
        opened.write_record("tool", "before", "a")
        opened.get_stats()

        def fork(done):
            if os.fork() == 0:
                os._exit(0)
            done.set()
        threads = [threading.Thread(target=fork, args=[threading.Event()], name="first")]
        threads[0].start()
        inside.wait(20)
        threads.append(threading.Thread(target=fork, args=[forked], name="second"))
        threads[1].start()
        for thread in threads:
            thread.join()
        opened.write_record("tool", "after", "b")
        opened.flush()
        print(len(opened.query_analytics("SELECT * FROM records")))
        opened.close()
    """
    run = subprocess.run(
        [sys.executable, "-W", "ignore", write(tmp_path, code)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "2\n", "")


def test_asyncio_and_threads(tmp_path: Path) -> None:
    """Tasks and threads of one process: every span once, parents as the program made them."""
    code = """
        import asyncio
        from opentelemetry import trace
        tracer = trace.get_tracer("app")
        def in_thread(n):
            with tracer.start_as_current_span(f"thread {n}"):
                pass
        async def task(n):
            with tracer.start_as_current_span(f"task {n}"):
                await asyncio.sleep(0.001)
                await asyncio.to_thread(in_thread, n)
        async def main():
            await asyncio.gather(*(task(n) for n in range(200)))
        asyncio.run(main())
        """
    run = run_instrumented(write(tmp_path, code), folder=tmp_path)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    spans = {span.name: span for span in stored_spans(tmp_path / "debug_data")}
    assert len(spans) == 400
    assert all(spans[f"thread {n}"].parent_id == spans[f"task {n}"].span_id for n in range(200))


def environment(tmp_path: Path) -> dict[str, str]:
    """Variables for servers run under `opentelemetry-instrument`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "_OTEL_"))}
    return {
        **kept,
        "OTEL_TRACES_EXPORTER": "debugstore",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_DEBUGSTORE_PATH": str(tmp_path / "debug_data"),
    }


def test_gunicorn_prefork(tmp_path: Path) -> None:
    """Every request that workers of a preforking server handled is found once, after SIGTERM too."""
    write(
        tmp_path,
        """
        from opentelemetry import trace
        tracer = trace.get_tracer("app")
        def app(environ, start_response):
            with tracer.start_as_current_span(environ["PATH_INFO"]):
                start_response("200 OK", [])
                return [b"ok"]
        """,
    )
    address = tmp_path / "address"
    config = tmp_path / "config.py"
    config.write_text(
        "bind = '127.0.0.1:0'\nworkers = 3\nmax_requests = 20\npreload_app = True\n"
        "def when_ready(server):\n"
        f"    open({str(address)!r}, 'w').write(server.LISTENERS[0].sock.getsockname()[1].__str__() + '\\n')\n"
    )
    command = [str(INSTRUMENT), sys.executable, "-m", "gunicorn", "--no-control-socket", "-c", str(config), "app:app"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path), stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            wait_until(lambda: address.exists() and address.read_text().endswith("\n"))
            port = address.read_text().strip()
            for number in range(100):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/{number}", timeout=30) as response:
                    assert response.read() == b"ok"
        finally:
            server.send_signal(signal.SIGTERM)
            _, errors = server.communicate(timeout=60)
    assert server.returncode == 0, errors
    assert "otel-debugstore" not in errors
    spans = stored_spans(tmp_path / "debug_data")
    assert sorted(span.name for span in spans) == sorted(f"/{number}" for number in range(100))
    assert len({span.pid for span in spans}) > 1


@pytest.mark.slow
def test_celery_prefork(tmp_path: Path) -> None:
    """Workers that live for one task each lose none of their spans."""
    for name in ("queue", "processed"):
        (tmp_path / name).mkdir()
    write(
        tmp_path,
        f"""
        from celery import Celery
        from opentelemetry import trace
        app = Celery("app", broker="filesystem://")
        app.conf.update(
            broker_transport_options={{
                "data_folder_in": {str(tmp_path / "queue")!r},
                "data_folder_out": {str(tmp_path / "queue")!r},
                "processed_folder": {str(tmp_path / "processed")!r},
                "store_processed": True,
                "control_folder": {str(tmp_path / "control")!r},
            }},
            worker_max_tasks_per_child=1,
            worker_concurrency=2,
            worker_prefetch_multiplier=1,
            task_ignore_result=True,
        )
        @app.task
        def work(number):
            with trace.get_tracer("app").start_as_current_span(f"task {{number}}"):
                pass
            open({str(tmp_path)!r} + f"/done.{{number}}", "w").close()
        """,
    )
    python = [sys.executable, "-c", "import app; [app.work.delay(n) for n in range(20)]"]
    plain = {name: value for name, value in environment(tmp_path).items() if not name.startswith("OTEL_")}
    subprocess.run(python, cwd=tmp_path, env=plain, check=True, timeout=60)
    command = [
        str(INSTRUMENT),
        sys.executable,
        "-m",
        "celery",
        "-A",
        "app",
        "worker",
        "--pool",
        "prefork",
        "-l",
        "ERROR",
    ]
    options = {"cwd": tmp_path, "env": {**environment(tmp_path), "C_FORCE_ROOT": "1"}}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options) as worker:  # type: ignore[call-overload]
        try:
            wait_until(lambda: len(list(tmp_path.glob("done.*"))) == 20, seconds=90)
        finally:
            worker.send_signal(signal.SIGTERM)
            _, errors = worker.communicate(timeout=60)
    assert "otel-debugstore" not in errors
    names = [span.name for span in stored_spans(tmp_path / "debug_data")]
    assert sorted(names) == sorted(f"task {n}" for n in range(20))


def wait_until(condition, seconds: float = 60) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
