"""What is shown of services: figures that add up, no secrets, nothing that runs in a browser."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from grym_nb.errors import (
    CallCancelled,
    CallTimeout,
    GrymError,
    LoadFailed,
    TaskFailed,
    ValidationError,
)
from grym_nb.events import CallEnded
from grym_nb.services import ModelService, ServiceHandle, ServiceRegistry, Task, task, track
from grym_nb.services.status import Ping
from grym_nb.testing import FakeClock
from tests.services.crowd import Gates, all_at_once, outcome, start, until

EVIL = "<script>alert('x')</script>"


class Probe(ModelService):
    """Takes as long as it is told, on the test's clock."""

    def __init__(self, *, level: int = 1, api_token: str = "", options: dict[str, Any] | None = None) -> None:
        self.level = level

    @task("probe.take")
    def take(self, seconds: float, clock: Any = None) -> float:
        clock.advance(seconds)
        return seconds

    @task
    def fail(self, message: str = "no") -> None:
        raise ValueError(message)

    @task
    def gated(self, gates: Any) -> int:
        gates.tell("inside")
        gates.wait("on")
        return 1

    @task
    def steps(self, n: int, gates: Any) -> int:
        for i in track(range(n)):
            if i == 2:
                gates.tell("inside")
                gates.wait("on")
        return n

    @task
    def items(self, n: int) -> Iterator[int]:
        yield from range(n)


@pytest.fixture
def probe(driven: ServiceRegistry) -> ServiceHandle:
    return driven.register("probe", Probe)


class TestFigures:
    def test_one_call_counts_one(self, probe: ServiceHandle, clock: FakeClock) -> None:
        probe.take(0.5, clock)
        status, metrics = probe.status(), probe.metrics()
        assert (status.calls, status.errors, status.loads, status.state) == (1, 0, 1, "ready")
        assert (metrics.calls, metrics.ok, metrics.errors, list(metrics.tasks)) == (1, 1, {}, ["take"])
        assert metrics.last_used == clock()

    def test_a_fresh_service_has_no_figures_rather_than_zeros(self, probe: ServiceHandle) -> None:
        status, metrics = probe.status(), probe.metrics()
        assert (status.calls, status.p50, status.p95, status.load_seconds) == (0, None, None, None)
        assert (metrics.calls, metrics.seconds.p95, metrics.last_used) == (0, None, None)
        assert "never loaded" in repr(status)

    def test_durations_are_those_of_the_clock(self, probe: ServiceHandle, clock: FakeClock) -> None:
        probe.load()
        for n in range(1, 101):
            probe.take(n / 100, clock)
        seconds = probe.metrics().seconds
        assert seconds.p50 == pytest.approx(0.50, rel=0.03) and seconds.p95 == pytest.approx(0.95, rel=0.03)
        assert (seconds.count, seconds.low, seconds.high) == (100, pytest.approx(0.01), pytest.approx(1.0))
        assert probe.status().p95 == seconds.p95

    def test_errors_are_counted_by_code_and_refusals_too(
        self, driven: ServiceRegistry, probe: ServiceHandle, clock: FakeClock
    ) -> None:
        gates = Gates()
        probe.take(0.1, clock)
        for _ in range(2):
            with pytest.raises(TaskFailed):
                probe.fail()
        with pytest.raises(ValidationError):
            probe.take("long", clock)
        inside = probe.submit("gated", gates)
        gates.wait("inside")
        queued = probe.submit("fail")
        assert queued.cancel() and isinstance(queued.exception(10), CallCancelled)
        gates["on"].set()
        assert inside.result(10) == 1
        expected = {"task.failed": 2, "validation": 1, "call.cancelled": 1}
        assert probe.metrics().errors == expected
        assert (probe.metrics().calls, probe.metrics().ok, probe.status().errors) == (6, 2, 2)

    def test_what_a_call_waits_is_no_part_of_its_duration(
        self, driven: ServiceRegistry, probe: ServiceHandle, clock: FakeClock
    ) -> None:
        """In line, whether it is let in, is cancelled or is late; it stands under the waits."""
        gates = Gates()
        inside = probe.submit("gated", gates)
        gates.wait("inside")
        served, dropped = probe.submit("take", 1.0, clock), probe.submit("take", 1.0, clock)
        late = probe.take.with_(timeout=4.0).submit(1.0, clock)
        clock.advance(3.0)
        dropped.cancel()
        clock.advance(2.0)
        assert isinstance(late.exception(10), CallTimeout)
        gates["on"].set()
        served.result(10), inside.result(10)
        told = {
            name: (call.outcome.metadata["duration"], call.outcome.metadata["queued"])
            for name, call in {"served": served, "dropped": dropped, "late": late}.items()
            if call.outcome is not None
        }
        assert told == {"served": (1.0, 5.0), "dropped": (0.0, 3.0), "late": (0.0, 5.0)}
        metrics = probe.metrics()
        assert metrics.tasks["take"].high == pytest.approx(1.0, rel=1 / 32)
        assert {what: seen.count for what, seen in metrics.waits.items()} == {
            "slot": 3,
            "device": 0,
            "load": 0,
            "worker": 0,
        }
        assert served.outcome is not None and served.outcome.metadata["waits"] == {"slot": 5.0}
        assert "waits for a slot" in repr(metrics) and "waits for a load" not in repr(metrics)

    def test_to_be_handed_to_a_worker_is_no_wait_for_a_slot(
        self, driven: ServiceRegistry, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A call with a deadline runs on another thread than its caller's, also where a slot is free."""
        run = driven.ports.workers.run

        def late(job: Any) -> None:
            clock.advance(2.0)
            run(job)

        monkeypatch.setattr(driven.ports.workers, "run", late)
        handle = driven.register("probe", Probe, timeout=60.0)
        handle.load()
        handle.take(1.0, clock)
        metrics = handle.metrics()
        assert {what: seen.count for what, seen in metrics.waits.items() if seen.count} == {"worker": 1}
        assert metrics.waits["worker"].high == pytest.approx(2.0, rel=1 / 32)
        assert metrics.seconds.high == pytest.approx(1.0, rel=1 / 32)

    def test_a_load_is_a_wait(self, driven: ServiceRegistry, clock: FakeClock) -> None:
        class Slow(ModelService):
            def load(self) -> None:
                clock.advance(7.0)

            @task
            def ask(self) -> int:
                return 1

        handle = driven.register("slow", Slow)
        handle.ask()
        metrics = handle.metrics()
        assert metrics.seconds.high == 0.0 and metrics.waits["slot"].count == 0
        assert metrics.waits["load"].high == pytest.approx(7.0, rel=1 / 32)

    def test_a_wait_for_a_device_is_none_for_a_slot(self, driven: ServiceRegistry, clock: FakeClock) -> None:
        """Each is counted and exported by itself, also of who is in line behind the one that waits for it."""

        class Net(ModelService):
            @task
            def ask(self) -> int:
                return 1

        pool = driven.ports.resources
        pool.declare("npu:0")
        handle = driven.register("net", Net, device="npu:0")
        handle.load()
        with pool.lease("npu:0", owner="me"):
            first, second = handle.submit("ask"), handle.submit("ask")
            until(lambda: pool["npu:0"].waiting == 1)
            clock.advance(3.0)
        for call in (first, second):
            assert call.result(10) == 1
        waits = handle.metrics().waits
        assert (waits["device"].count, waits["device"].low) == (2, pytest.approx(3.0, rel=1 / 32))
        assert waits["slot"].count == 0
        assert first.outcome is not None and first.outcome.metadata["waits"]["device"] == 3.0
        assert first.outcome.metadata["queued"] == 3.0 and first.outcome.metadata["duration"] == 0.0
        counted = driven.ports.metrics.select("service.wait.seconds", service="net", what="device")
        assert [sample.value.count for sample in counted] == [2]  # type: ignore[union-attr]

    def test_in_line_behind_one_that_waits_for_its_device_is_no_wait_for_a_slot(
        self, driven: ServiceRegistry, clock: FakeClock
    ) -> None:
        """From when it stands there until the device is given, also for one that gives up before."""
        pool = driven.ports.resources
        pool.declare("npu:0")
        probe = driven.register("probe", Probe, device="npu:0").load()
        with pool.lease("npu:0", owner="me"):
            first = probe.take.submit(4.0, clock)
            until(lambda: pool["npu:0"].waiting == 1)
            clock.advance(2.0)
            second, gone = probe.take.submit(1.0, clock), probe.take.submit(1.0, clock)
            clock.advance(3.0)
            gone.cancel()
            by_thread = start(lambda: probe.take(1.0, clock))
            until(lambda: probe._record.lane.waiting == 2)
            clock.advance(2.0)
        assert [outcome(call) for call in (first, second, by_thread)] == [4.0, 1.0, 1.0]
        calls = [call.outcome.metadata["waits"] for call in (first, second, gone) if call.outcome is not None]
        told = [{what: waited for what, waited in one.items() if waited} for one in calls]
        assert told == [{"device": 7.0}, {"device": 5.0, "slot": 4.0}, {"device": 3.0}]
        waits = probe.metrics().waits
        assert waits["device"].total == pytest.approx(7.0 + 5.0 + 3.0 + 2.0)
        assert waits["slot"].total == pytest.approx(4.0 + 5.0)

    def test_in_line_behind_one_that_loads_is_no_wait_for_a_slot(
        self, driven: ServiceRegistry, clock: FakeClock
    ) -> None:
        gates = Gates()

        class Slow(Probe):
            def load(self) -> None:
                gates.hold()

        slow = driven.register("slow", Slow)
        calls = [slow.take.submit(1.0, clock) for _ in range(3)]
        gates.wait("in")
        clock.advance(30.0)
        gates.tell("go")
        assert [outcome(call) for call in calls] == [1.0] * 3
        waits = slow.metrics().waits
        assert (waits["load"].count, waits["load"].total) == (3, pytest.approx(90.0))
        assert (waits["slot"].count, waits["slot"].total) == (2, pytest.approx(1.0 + 2.0))

    def test_a_failed_load_counts_for_the_call_that_asked(self, driven: ServiceRegistry) -> None:
        class Bad(ModelService):
            def load(self) -> None:
                raise OSError("no weights")

            @task
            def ask(self) -> int:
                return 1

        handle = driven.register("bad", Bad)
        for call in (handle.ask, lambda: handle.submit("ask").result(10)):
            with pytest.raises(LoadFailed):
                call()
        assert handle.metrics().errors == {"service.load_failed": 2} and handle.status().loads == 0
        assert "load: OSError: no weights" in handle.status().last_error

    def test_use_and_streams_are_calls(self, probe: ServiceHandle) -> None:
        with probe.use():
            assert probe.status().running == ("use 0 us",)
        assert list(probe.items(3)) == [0, 1, 2]
        assert set(probe.metrics().tasks) == {"use", "items"}
        assert (probe.metrics().calls, probe.metrics().ok) == (2, 2)

    def test_load_unload_status_and_ping_are_not(self, probe: ServiceHandle) -> None:
        probe.load().unload()
        probe.load().ping()
        probe.status()
        assert (probe.status().calls, probe.status().loads) == (0, 2)

    def test_what_counts_survives_a_reload_and_a_new_version(
        self, driven: ServiceRegistry, probe: ServiceHandle, clock: FakeClock
    ) -> None:
        probe.take(0.1, clock)
        probe.unload().load()
        probe.take(0.1, clock)
        assert (probe.status().calls, probe.status().loads) == (2, 2)

    def test_many_threads_lose_no_count(self, registry: ServiceRegistry) -> None:
        class Coin(ModelService):
            @task
            def toss(self, head: bool) -> bool:
                if not head:
                    raise ValueError("tail")
                return head

        coin = registry.register("coin", Coin, concurrency=4)

        def toss(i: int) -> None:
            for n in range(100):
                with suppress(GrymError):
                    (coin.toss if n % 3 else coin.toss.submit)(n % 2 == 0)

        all_at_once(8, toss)
        until(lambda: coin.status().calls == 800)
        assert (coin.metrics().ok, coin.metrics().errors) == (400, {"task.failed": 400})

    def test_the_registry_remembers_the_last_calls(self, driven: ServiceRegistry, clock: FakeClock) -> None:
        probe = driven.register("probe", Probe)
        ended: list[CallEnded] = []
        driven.ports.events.subscribe(ended.append, CallEnded)
        probe.take(0.25, clock)
        with pytest.raises(TaskFailed):
            probe.fail()
        first, second = driven.calls()
        assert (first.service, first.task, first.outcome, first.seconds) == ("probe", "take", "ok", 0.25)
        assert (second.task, second.outcome) == ("fail", "task.failed") and "ValueError" in second.error
        assert [(e.task, e.outcome, e.version) for e in ended] == [
            ("take", "ok", "v1"),
            ("fail", "task.failed", "v1"),
        ]
        assert ended[0].call == f"call-{first.id}"

    def test_only_the_last_ones_are_kept(self) -> None:
        from grym_nb.settings import Settings

        with ServiceRegistry(settings=Settings(calls_kept=5)) as registry:
            handle = registry.register("probe", Probe)
            for _ in range(9):
                with pytest.raises(TaskFailed):
                    handle.fail()
            assert len(registry.calls()) == 5 and handle.status().calls == 9


class TestRunning:
    def test_what_runs_is_named_with_its_progress_and_time(
        self, driven: ServiceRegistry, probe: ServiceHandle, clock: FakeClock
    ) -> None:
        probe.load()
        gates = Gates()
        call = start(probe.steps, 5, gates)
        gates.wait("inside")
        clock.advance(3)
        waiting = probe.submit("fail")
        status = probe.status()
        assert status.running == ("steps 2/5 3 s",) and status.waiting == 1
        assert "1 running" in status.line and "1 waiting" in status.line
        assert [frame.title for frame in driven.running()] == ["probe.steps"]
        gates["on"].set()
        assert outcome(call) == 5
        waiting.exception(10)
        until(lambda: probe.status().running == ())

    def test_a_call_past_its_deadline_is_stuck(self, driven: ServiceRegistry, clock: FakeClock) -> None:
        probe = driven.register("probe", Probe).load()
        gates = Gates()
        call = probe.gated.with_(timeout=5).submit(gates)
        gates.wait("inside")
        assert "stuck" not in probe.status().running[0]
        clock.advance(6)
        assert "stuck 6 s" in probe.status().running[0] and "stuck" in repr(probe.status())
        gates["on"].set()
        call.exception(10)
        until(lambda: probe.status().running == ())

    def test_a_status_is_one_moment_and_holds_no_model(self, probe: ServiceHandle, clock: FakeClock) -> None:
        before = probe.status()
        probe.take(1, clock)
        assert before.calls == 0 and before.state == "registered"
        with pytest.raises(FrozenInstanceError):
            before.calls = 3  # type: ignore[misc]
        json.dumps([before.name, before.state, dict(before.config), before.tasks, before.running])

    def test_it_says_for_how_long_and_why(self, probe: ServiceHandle, clock: FakeClock) -> None:
        probe.load()
        clock.advance(90)
        assert "ready for 1 min 30 s" in repr(probe.status())
        probe.unload()
        assert "registered for 0 us (unload)" in repr(probe.status())

    def test_looking_waits_for_nobody(self, registry: ServiceRegistry) -> None:
        """A load, an unload hook and a task that hang do not hang who looks."""
        gates = Gates()

        class Slow(ModelService):
            def load(self) -> None:
                gates.tell("loading")
                gates.wait("loaded")

            def unload(self) -> None:
                gates.tell("unloading")
                gates.wait("unloaded")

            @task
            def ask(self) -> int:
                return 1

        handle = registry.register("slow", Slow)
        load = start(handle.load)
        gates.wait("loading")
        assert handle.status().state == "loading" and "slow" in repr(registry)
        assert handle.ping() == Ping("slow", None, 0.0)
        gates["loaded"].set()
        outcome(load)
        unload = start(handle.unload)
        gates.wait("unloading")
        assert handle.status().state == "draining" and handle.ping().ok is None
        gates["unloaded"].set()
        outcome(unload)


class TestShown:
    def test_secrets_are_not_told(self, driven: ServiceRegistry) -> None:
        config = {"api_token": "hunter2", "options": {"password": "hunter2", "rate": 3}, "level": 2}
        handle = driven.register("probe", Probe, config=config)
        handle.load()
        shown = [repr(handle), handle._repr_html_(), repr(handle.status()), handle.status()._repr_html_()]
        shown += [repr(driven), driven._repr_html_(), str(handle.status().config), repr(handle.metrics())]
        assert not [text for text in shown if "hunter2" in text]
        assert "***" in repr(handle.status()) and "level=2" in repr(handle.status())
        assert handle.config["api_token"] == "hunter2"

    def test_a_config_that_is_refused_does_not_tell_them_either(self, driven: ServiceRegistry) -> None:
        with pytest.raises(GrymError) as caught:
            driven.register("probe", Probe, config={"api_token": b"hunter2", "tokn": "hunter2"})
        assert "hunter2" not in str(caught.value).replace("tokn: found 'hunter2'", "")

    def test_names_and_values_are_escaped(self, driven: ServiceRegistry) -> None:
        cls = type(EVIL, (Probe,), {"__doc__": EVIL})
        handle = driven.register(EVIL, cls, config={"options": {EVIL: EVIL}}, version=EVIL)
        with pytest.raises(TaskFailed) as caught:
            handle.fail(EVIL)
        result = handle.execute(Task("fail", EVIL, metadata={EVIL: EVIL}))
        shown = [
            handle._repr_html_(),
            handle.status()._repr_html_(),
            handle.metrics()._repr_html_(),
            driven._repr_html_(),
            driven.status()._repr_html_(),
            result._repr_html_(),
            handle.map("fail", [EVIL])._repr_html_(),
        ]
        assert EVIL in str(caught.value)
        for text in shown:
            assert "<script" not in text and not re.search(r"<[^>]*\son\w+=", text), text

    def test_a_value_whose_repr_raises_is_shown_as_such(self, driven: ServiceRegistry) -> None:
        class Rude:
            def __repr__(self) -> str:
                raise RuntimeError("no")

        handle = driven.register("probe", Probe, config={"options": {"a": 1}})
        handle._record.spec.config["options"]["rude"] = Rude()
        assert "probe" in repr(handle.status()) and "<table" in handle._repr_html_()

    def test_the_table_has_a_row_for_each(self, driven: ServiceRegistry, clock: FakeClock) -> None:
        for name in ("a", "b"):
            driven.register(name, Probe)
        driven["a"].take(0.1, clock)
        table = driven.status()
        assert [status.name for status in table] == ["a", "b"] and len(table) == 2
        assert table["b"].state == "registered" and table[0].name == "a" and list(table[-1:]) == [table["b"]]
        with pytest.raises(KeyError):
            table["c"]
        text = repr(table)
        assert len(text.splitlines()) == 5 and "100 ms" in text

    def test_a_line_says_one_call_and_two_calls(self, probe: ServiceHandle, clock: FakeClock) -> None:
        probe.take(1, clock)
        assert probe.status().line.endswith("1 call")
        with pytest.raises(TaskFailed):
            probe.fail()
        assert probe.status().line.endswith("2 calls, 1 failed")

    def test_the_version_that_ran_is_the_one_that_is_told(self, driven: ServiceRegistry) -> None:
        """Also when a newer one is registered while the call runs."""
        gates = Gates()

        def probe(n: int) -> type:
            class It(ModelService):
                @task
                def ask(self, gates: Any = None) -> int:
                    if gates is not None:
                        gates.tell("inside")
                        gates.wait("on")
                    return n

            return It

        handle = driven.register("it", probe(1)).load()
        call = start(handle.ask, gates)
        gates.wait("inside")
        driven.register("it", probe(2))
        assert handle.version == "v2" and handle.state == "ready"
        gates["on"].set()
        assert outcome(call) == 1
        assert handle.ask() == 2
        assert [ended.version for ended in driven.calls()] == ["v1", "v2"]

    def test_a_status_can_be_taken_while_everything_changes(self, registry: ServiceRegistry) -> None:
        stop = threading.Event()

        def change() -> int:
            n = 0
            while not stop.is_set():
                registry.register(f"p{n % 5}", Probe, config={"level": n % 3})
                if n % 7 == 0 and f"p{n % 5}" in registry:
                    registry.remove(f"p{n % 5}")
                n += 1
            return n

        changing = start(change)
        for _ in range(200):
            repr(registry)
            registry._repr_html_()
            [handle.status().line for handle in registry.handles()]
        stop.set()
        assert outcome(changing) > 0
