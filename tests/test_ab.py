"""A/B experiments in the running program: where calls go, what is recorded, what stops an arm, and who knows of it."""

from __future__ import annotations

import asyncio
import inspect
import os
import pickle
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import environment, refused, run_well
from experiments import seeded
from otel_debugstore import ConfigurationError, GuardRails, ab, configure, tool, variant
from otel_debugstore.experiments.keeper import KEEPER
from otel_debugstore_exporters.experiments import ExperimentStore
from recording import Memory


@pytest.fixture(autouse=True)
def no_keeper() -> Iterator[None]:
    """Find no store of another test, and leave no experiment behind."""
    KEEPER.close()
    yield
    KEEPER.close()


def control(x: int) -> str:
    """Double a number."""
    return f"control {x}"


def other(x: int) -> str:
    return f"other {x}"


def failing(x: int) -> str:
    raise ValueError(x)


def asked(function: Any, times: int) -> Counter[str]:
    """Return which arm answered how often; errors are those of the arm "failing"."""
    found: Counter[str] = Counter()
    for number in range(times):
        try:
            found[function(number).split()[0]] += 1
        except ValueError:
            found["failing"] += 1
    return found


def test_calls_are_shared_and_recorded_with_their_arm() -> None:
    """Each arm gets its share; every call is a span of the tool, with its arm and its code."""
    memory = Memory()
    search = ab("search", {"v1": control, "v2": other}, weights={"v1": 3, "v2": 1})
    found = asked(search, 2000)
    assert 350 < found["other"] < 650
    said = memory.said()
    assert {one.path for one in said} == {("search",)}
    assert {one.layer for one in said} == {"tool"}
    arms = Counter(one.attributes["debugstore.ab.arm"] for one in said)
    assert arms == {"v1": found["control"], "v2": found["other"]}
    assert len({one.attributes["debugstore.variant"] for one in said}) == 2


def test_for_those_who_look_it_is_the_control() -> None:
    """Name, signature and documentation are the control's, and it is pickled as what it is."""
    search = ab("search", {"v1": control, "v2": other})
    assert search.__name__ == "control"
    assert search.__doc__ == "Double a number."
    assert inspect.signature(search) == inspect.signature(control)
    assert pickle.loads(pickle.dumps(search)) is search


def test_variants_register_one_by_one() -> None:
    """The first of a name is the control and takes the calls; the others are themselves."""

    @variant("found", "v1")
    def found(x: int) -> str:
        return control(x)

    assert asked(found, 20) == {"control": 20}

    @variant("found", "v2", weight=3.0)
    def found_faster(x: int) -> str:
        return other(x)

    assert asked(found_faster, 20) == {"other": 20}
    assert asked(found, 1000)["other"] == pytest.approx(750, abs=100)
    assert ab("found", key="x") is found
    assert len(asked(lambda _: found(1), 50)) == 1


def test_a_function_that_is_recorded_already_is_recorded_once() -> None:
    """As an arm; as a tool of its own it stays what it was."""
    memory = Memory()
    search = ab("search", {"v1": tool("alone")(control)})
    search(1)
    assert memory.paths() == ["search"]


def test_methods_and_coroutines_are_arms_as_well() -> None:
    """A method gets its object; a coroutine is awaited, and its error is the program's."""
    memory = Memory()

    class Index:
        def __init__(self) -> None:
            self.name = "index"

        def _first(self, x: int) -> str:
            return f"{self.name} {x}"

        def _second(self, x: int) -> str:
            return f"{self.name} {x}"

        search = ab("search", {"v1": _first, "v2": _second}, key=lambda self, x: self.name)

    index = Index()
    assert {index.search(number) for number in range(20)} == {f"index {number}" for number in range(20)}
    assert Index.search(index, 1) == "index 1"

    async def first(x: int) -> int:
        await asyncio.sleep(0)
        if x < 0:
            raise ValueError(x)
        return x

    async def second(x: int) -> int:
        return await first(x)

    fetch = ab("fetch", {"v1": first, "v2": second}, key="x")
    assert inspect.iscoroutinefunction(fetch)

    async def fetched() -> list[int]:
        with pytest.raises(ValueError, match="-1"):
            await fetch(-1)
        return await asyncio.gather(*[fetch(x) for x in range(50)])

    assert asyncio.run(fetched()) == list(range(50))
    outcomes = Counter((one.path[-1], one.outcome) for one in memory.said())
    assert outcomes == {("search", "ok"): 21, ("fetch", "ok"): 50, ("fetch", "error"): 1}


def generator(x: int) -> Iterator[int]:
    yield x


async def coroutine(x: int) -> str:
    return str(x)


@pytest.mark.parametrize(
    ("arms", "options", "said"),
    [
        ({"v1": generator}, {}, "generator"),
        ({"v1": control, "v2": coroutine}, {}, "coroutine"),
        ({"v1": Counter}, {}, "class"),
        ({"v1": 5}, {}, "function"),
        ({}, {}, "there has to be one"),
        ({"v 1": control}, {}, "name of an arm"),
        ({"v1": control}, {"weights": {"v2": 1}}, "no arm 'v2'"),
        ({"v1": control}, {"weights": {"v1": 0}}, "above 0"),
        ({"v1": control}, {"weights": {"v1": -1}}, "weight"),
        ({"v1": control}, {"key": "y"}, "no parameter 'y'"),
        ({"v1": control}, {"min_effect": 2}, "min_effect"),
        ({"v1": control}, {"layer": "lever"}, "lever"),
        (None, {}, "no implementation"),
    ],
)
def test_what_can_not_be_compared_is_refused(arms: Any, options: Any, said: str) -> None:
    """Where it is defined, with what to do."""
    with pytest.raises(ConfigurationError, match=said):
        ab("refused", arms, **options)


@pytest.mark.parametrize(
    "limits",
    [{"max_p95_ms": -1}, {"max_error_rate": 2}, {"max_error_rate": True}, {"max_ratio": 0}, {"max_ratio": "x"}],
)
def test_a_guard_rail_has_to_be_one(limits: Any) -> None:
    """Limits that mean nothing are refused."""
    with pytest.raises(ConfigurationError):
        GuardRails(**limits)


KEYS = """
from otel_debugstore import ab
names = {"v1": lambda user: "v1", "v2": lambda user: "v2", "v3": lambda user: "v3"}
search = ab("search", names, weights={"v1": 2, "v2": 1, "v3": 1}, key="user")
print(",".join(search(user) for user in ["ann", b"bob", 7, -1, "", "é", 10**30] + list(range(50))))
"""


def test_a_key_has_the_same_arm_in_every_process() -> None:
    """Whatever Python's own hashes are seeded with, and however often it is asked."""
    assert (
        len(
            {
                subprocess.run(
                    [sys.executable, "-c", KEYS], env=environment(PYTHONHASHSEED=seed), stdout=-1, check=True
                ).stdout
                for seed in ("1", "2")
            }
        )
        == 1
    )


def test_keys_move_only_where_weights_make_them() -> None:
    """When an arm gets more, keys go to it, and no key goes anywhere else."""

    def arms_by_user(weight: float) -> list[str]:
        search = ab("search", {"v1": control, "v2": other}, weights={"v1": 1, "v2": weight}, key="x")
        return [search(user).split()[0] for user in range(500)]

    before, after = arms_by_user(0.1), arms_by_user(1)
    assert {(one, other) for one, other in zip(before, after, strict=True) if one != other} == {("control", "other")}


def test_annotations_of_arms_are_not_computed() -> None:
    """A key's parameter is found where an annotation names what is not there: Python 3.14 would look for it now."""
    source = "Known = int\ndef arm(x: Known) -> Known: return x\ndel Known"
    made: dict[str, Any] = {}
    exec(compile(source, "<test>", "exec", dont_inherit=True), made)
    assert ab("search", {"v1": made["arm"], "v2": tool("alone")(made["arm"])}, key="x")(3) == 3


@pytest.mark.parametrize("key", [lambda x: 1 / 0, lambda x: [], lambda x: 1.5, lambda x, y: x])
def test_a_key_that_is_none_means_the_control(key: Any, logged: list[str]) -> None:
    """Whatever the key's function does, the call goes to the control, and one line says why."""
    search = ab("search", {"v1": control, "v2": other}, key=key)
    assert asked(search, 50) == {"control": 50}
    assert len(logged) == 1
    assert "the control is called" in logged[0]


def test_errors_stop_an_arm() -> None:
    """From then on all calls go to the control."""
    search = ab("search", {"v1": control, "v2": failing}, guard_rails=GuardRails(max_error_rate=0.05))
    found = asked(search, 500)
    assert 5 <= found["failing"] <= 40
    assert asked(search, 100) == {"control": 100}


@pytest.mark.parametrize("rails", [GuardRails(max_p95_ms=10), GuardRails(max_ratio=1.5)])
def test_slow_calls_stop_an_arm(rails: GuardRails) -> None:
    """Once it is known, and not by the first one: a control that is as slow now and then stops nothing."""
    with seeded(1) as (times, store):

        def fast(x: int) -> None:
            times.pass_ms(50 if x % 100 == 0 else 1)

        def slow(x: int) -> None:
            times.pass_ms(50)

        def as_fast(x: int) -> None:
            fast(x)

        equal = ab("equal", {"v1": fast, "v2": as_fast}, guard_rails=rails)
        bad = ab("bad", {"v1": fast, "v2": slow}, guard_rails=rails)
        for number in range(1000):
            equal(number)
            bad(number)
            if number % 10 == 0:
                KEEPER.exchange()
        assert store.record("equal").stop_of("v2") is None
        stop = store.record("bad").stop_of("v2")
        assert stop is not None
        assert [stop.by] == list(rails.limits())
        assert 5 <= store.record("bad").tally("v2").call_count <= 60


@pytest.mark.parametrize("rails", [GuardRails(max_p95_ms=10), GuardRails(max_ratio=1.5)])
@pytest.mark.parametrize("is_cancelled", [False, True])
def test_calls_that_never_end_stop_an_arm(rails: GuardRails, is_cancelled: bool) -> None:
    """They count while they are open, and once; where the control's don't end either, nothing is stopped."""
    with seeded(1) as (times, store):

        async def run() -> None:
            end = asyncio.Event()

            async def quick(x: int) -> None:
                times.pass_ms(1)

            async def hanging(x: int) -> None:
                times.pass_ms(0.01)
                await end.wait()

            async def as_hanging(x: int) -> None:
                await hanging(x)

            equal = ab("equal", {"v1": hanging, "v2": as_hanging}, guard_rails=rails)
            bad = ab("bad", {"v1": quick, "v2": hanging}, guard_rails=rails)
            bad_calls, calls = [], []
            for number in range(200):
                bad_calls.append(asyncio.create_task(bad(number)))
                calls += [bad_calls[-1], asyncio.create_task(equal(number))]
                await asyncio.sleep(0)
                times.pass_ms(4)
                KEEPER.exchange()
            stop = store.record("bad").stop_of("v2")
            assert stop is not None
            assert [stop.by] == list(rails.limits())
            assert store.record("equal").stop_of("v2") is None
            hung = [call for call in bad_calls if not call.done()]
            assert 5 <= len(hung) <= 60
            for call in calls if is_cancelled else ():
                call.cancel()
            end.set()
            await asyncio.gather(*calls, return_exceptions=True)
            tally = store.record("bad").tally("v2")
            assert tally.call_count == len(hung)
            if rails.max_p95_ms is not None:
                assert (tally.unit_count, tally.slow_count) == (len(hung), len(hung))

        asyncio.run(run())


def test_calls_that_hung_before_an_arm_began_anew() -> None:
    """Those that end by failing count as calls that failed, and none as one that was never counted."""
    with seeded(1) as (times, store):

        async def run() -> None:
            end = asyncio.Event()

            async def quick(x: int) -> None:
                times.pass_ms(1)

            async def hanging(x: int) -> None:
                times.pass_ms(0.01)
                await end.wait()
                raise ConnectionError

            search = ab("search", {"v1": quick, "v2": hanging}, guard_rails=GuardRails(max_p95_ms=10))
            calls = []

            async def call(count: int) -> None:
                for number in range(count):
                    calls.append(asyncio.create_task(search(number)))
                    await asyncio.sleep(0)
                    times.pass_ms(4)
                    KEEPER.exchange()

            await call(200)
            record = store.record("search")
            assert record.stop_of("v2") is not None
            record.restart("v2")
            store.plain["search"] = record.to_plain()
            await call(2)
            end.set()
            await asyncio.gather(*calls, return_exceptions=True)
            KEEPER.exchange()
            tally = store.record("search").tally("v2")
            assert tally.unit_count >= tally.failed_count > 0

        asyncio.run(run())


def test_what_makes_both_fail_stops_neither() -> None:
    """A database that is down for a while is no property of an arm."""
    with seeded(2) as (_, store):

        def query(x: int) -> None:
            if 300 <= x < 600:
                raise ConnectionError

        def same_query(x: int) -> None:
            query(x)

        search = ab("search", {"v1": query, "v2": same_query}, guard_rails=GuardRails(max_error_rate=0.01))
        for number in range(1000):
            try:
                search(number)
            except ConnectionError:
                continue
        record = store.record("search")
        assert record.stop_of("v2") is None
        assert record.tally("v2").error_count > 100


PROGRAM = """
import sys
from otel_debugstore import GuardRails, ab, configure

provider = configure(session_id=sys.argv[1], base_path=sys.argv[2])

def v1(x):
    return "v1"

def v2(x):
    if {fails}:
        raise ValueError(x)
    return "v2"

search = ab("search", dict(v1=v1, v2=v2), guard_rails=GuardRails(max_error_rate=0.05))
found = []
for x in range(int(sys.argv[3])):
    try:
        found.append(search(x))
    except ValueError:
        found.append("error")
print(" ".join(found))
"""


def started(base_path: Path, session: str, calls: int, fails: bool = True) -> list[str]:
    """Return which arms the calls of a program in a process of its own went to."""
    command = [sys.executable, "-c", PROGRAM.format(fails=fails), session, str(base_path), str(calls)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.slow
def test_a_stop_outlives_the_process(tmp_path: Path) -> None:
    """The next start sends nothing to the arm; once its code is changed, it gets calls again."""
    first = Counter(started(tmp_path, "one", 300))
    assert 5 <= first["error"] <= 40
    assert Counter(started(tmp_path, "two", 50)) == {"v1": 50}
    third = Counter(started(tmp_path, "three", 50, fails=False))
    assert third["v2"] > 10
    assert Counter(started(tmp_path, "four", 50)) == {"v1": 50}
    record = ExperimentStore(tmp_path).experiments()["search"]
    assert record.tally("v1").call_count == first["v1"] + third["v1"] + 100
    shown = run_well("ab", "search", "--data-dir", tmp_path)
    assert "max_error_rate" in shown
    assert "failed" in shown


@pytest.mark.slow
def test_short_processes_add_up(tmp_path: Path) -> None:
    """What a process has seen in a few calls is not lost: all processes together have seen it."""
    for number in range(4):
        started(tmp_path, f"s{number}", 10, fails=False)
    record = ExperimentStore(tmp_path).experiments()["search"]
    assert sum(record.tally(arm).call_count for arm in ("v1", "v2")) == 40
    assert record.pairs_of("v2").count == 20


def until(condition: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_arms_are_stopped_and_resumed_by_hand(tmp_path: Path) -> None:
    """In a program that runs, about a second later; resumed, an arm begins anew."""
    provider = configure(session_id="s", base_path=tmp_path)
    search = ab("search", {"v1": control, "v2": other})
    asked(search, 100)
    provider.force_flush()
    run_well("ab", "search", "--stop", "v2", "--data-dir", tmp_path)
    until(lambda: asked(search, 20) == {"control": 20})
    assert '"stopped_by": "hand"' in run_well("ab", "--format", "json", "--data-dir", tmp_path)
    run_well("ab", "search", "--resume", "v2", "--data-dir", tmp_path)
    until(lambda: asked(search, 20)["other"] > 0)
    provider.force_flush()
    found = ExperimentStore(tmp_path).experiments()["search"]
    assert found.stop_of("v2") is None
    assert found.tally("v2").call_count < found.tally("v1").call_count


def test_the_command_says_what_it_can_not_do(tmp_path: Path) -> None:
    """Unknown experiments and arms, the control, and options that exclude each other; looking creates nothing."""
    empty = tmp_path / "empty"
    assert "No experiment" in refused("ab", "nope", "--data-dir", empty)
    assert run_well("ab", "--data-dir", empty) == ""
    assert not empty.exists()
    started(tmp_path, "one", 10)
    assert "no arm 'v3'" in refused("ab", "search", "--stop", "v3", "--data-dir", tmp_path)
    assert "control" in refused("ab", "search", "--stop", "v1", "--data-dir", tmp_path)
    assert "Name the experiment" in refused("ab", "--stop", "v2", "--data-dir", tmp_path)


def test_where_the_state_can_not_be_read_all_goes_to_the_control(tmp_path: Path, logged: list[str]) -> None:
    """The program works, and no arm is called of which is not known that it may be."""
    state = tmp_path / "state.lmdb"
    state.mkdir()
    (state / "data.mdb").write_bytes(b"no database" * 1000)
    configure(session_id="s", base_path=tmp_path)
    search = ab("search", {"v1": control, "v2": failing})
    assert asked(search, 200) == {"control": 200}
    assert any("search" in line for line in logged)


def test_a_child_counts_its_own_calls(tmp_path: Path) -> None:
    """After a fork parent and child add what each has seen; nothing is there twice, and children do not draw alike."""
    provider = configure(session_id="s", base_path=tmp_path)
    search = ab("search", {"v1": control, "v2": other})
    asked(search, 50)
    draws = []
    for _ in range(2):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            draw = "".join(search(number)[0] for number in range(64))
            os.write(writing, draw.encode())
            provider.force_flush()
            os._exit(0)
        os.waitpid(child, 0)
        draws.append(os.read(reading, 1000))
        os.close(reading)
        os.close(writing)
    provider.force_flush()
    record = ExperimentStore(tmp_path).experiments()["search"]
    assert sum(record.tally(arm).call_count for arm in ("v1", "v2")) == 50 + 2 * 64
    assert draws[0] != draws[1]


def test_threads_lose_no_call() -> None:
    """Eight threads at once, and a signal handler that makes calls of its own."""
    program = textwrap.dedent(
        """
        import signal, threading
        from otel_debugstore import ab
        from otel_debugstore.experiments.keeper import KEEPER

        class Store:
            plain, lock = None, threading.Lock()
            def read(self, name): return self.plain
            def change(self, name, function):
                with self.lock:
                    self.plain = function(self.plain)
                    return self.plain

        store = Store()
        KEEPER.open(lambda: store)
        search = ab("search", {"v1": lambda x: x, "v2": lambda x: x})
        by_signal = []
        signal.signal(signal.SIGALRM, lambda *_: by_signal.append(search(1)))
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)

        def work():
            for number in range(2000):
                assert search(number) == number
                if number % 100 == 0:
                    KEEPER.exchange()

        threads = [threading.Thread(target=work) for _ in range(7)]
        for thread in threads: thread.start()
        work()
        for thread in threads: thread.join()
        signal.setitimer(signal.ITIMER_REAL, 0)
        search(0)
        KEEPER.exchange()
        calls = sum(tally["call_count"] for tally in store.plain["tallies"].values())
        assert by_signal
        assert calls == 8 * 2000 + len(by_signal) + 1, (calls, len(by_signal))
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
