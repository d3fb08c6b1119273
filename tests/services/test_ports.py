"""Every seam of the call path, in its order: what is asked, held, told and seen however a call ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from grym_nb.errors import (
    BreakerOpen,
    CallTimeout,
    GrymError,
    LoadFailed,
    QueueFull,
    ResourceExhausted,
    ServiceClosed,
    TaskFailed,
    ValidationError,
)
from grym_nb.events import CallEnded
from grym_nb.hardening import Lease
from grym_nb.hardening.leases import Place
from grym_nb.services import ModelService, ServiceHandle, ServiceRegistry, Task, task
from grym_nb.services.frame import Frame
from grym_nb.services.ports import Ports
from grym_nb.testing import FakeClock
from tests.services.crowd import Gates, outcome, passes, start, until

#: what happened, in order
steps: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_happened() -> Iterator[None]:
    steps.clear()
    yield


class Work(ModelService):
    def load(self) -> None:
        steps.append("load")

    def unload(self) -> None:
        steps.append("unload")

    @task("work.echo")
    def echo(self, x: int, *, context: Any = None) -> Any:
        steps.append("engine")
        return x if context is None else (x, context)

    @task
    def fail(self, x: int = 0) -> None:
        steps.append("engine")
        raise ValueError("no")

    @task
    def refuse(self, x: int = 0) -> None:
        steps.append("engine")
        raise ValidationError("this input never works")

    @task
    def items(self, n: int) -> Iterator[int]:
        steps.append("engine")
        yield from range(n)

    @task
    def do(self, what: Callable[[], Any]) -> Any:
        steps.append("engine")
        return what()


class Recorder:
    """Fakes at every port that note when they are asked; each can be told to refuse or to answer."""

    def __init__(self, ports: Ports) -> None:
        self.ports = ports
        self.hit: dict[int, Any] = {}
        self.open = False
        self.full: type[GrymError] | None = None
        self.attempts = 1
        self.told: list[str] = []
        self.seen: list[CallEnded] = []
        self.kept: list[Any] = []
        self.taped: list[Any] = []
        ports.cache = self.cache
        ports.fallback = self.fallback
        ports.retry = self.retry
        ports.breaker = self
        ports.admit = self.admit
        self.card = ports.resources._places["card:0"] = Card("card:0", "card", ports.clock, 10.0)
        ports.context = self.context
        ports.store = self.store
        ports.events.subscribe(self.observe, CallEnded)

    def cache(self, frame: Frame) -> tuple[bool, Any]:
        steps.append("cache")
        key = frame.args[0] if frame.args else None
        return (True, self.hit[key]) if key in self.hit else (False, None)

    def fallback(self, frame: Frame, error: GrymError) -> Any:
        steps.append("fallback")
        if frame.args and frame.args[0] == -1:
            return "instead"
        raise error

    def retry(self, frame: Frame, attempt: Callable[[Frame], Any]) -> Any:
        steps.append("retry")
        for left in reversed(range(self.attempts)):
            try:
                return attempt(frame)
            except GrymError as error:
                if not error.can_change or not left:
                    raise
        raise AssertionError

    def ask(self, frame: Frame) -> None:
        steps.append("breaker")
        if self.open:
            raise BreakerOpen("refused", service=frame.record.name)

    def told_(self, frame: Frame, seconds: float, error: GrymError | None) -> None:
        steps.append("told")
        self.told.append(error.code if error is not None else "ok")

    @contextmanager
    def admit(self, record: Any, frame: Any) -> Iterator[None]:
        steps.append("admit")
        if self.full is not None:
            raise self.full("no memory")
        yield
        steps.append("admitted")

    def context(self, frame: Frame) -> Any:
        steps.append("context")
        return None

    def store(self, frame: Frame, value: Any) -> None:
        steps.append("store")
        self.kept.append(value)

    def tape(self, frame: Frame, took: float, now: float) -> None:
        steps.append("tape")
        self.taped.append(frame.args[0] if frame.args else None)

    def observe(self, event: CallEnded) -> None:
        steps.append(f"observe {event.outcome}")
        self.seen.append(event)


class Card(Place):
    """A device that notes who asks for it and who gives it back."""

    def ask(self, lease: Lease) -> bool:
        steps.append("device")
        return super().ask(lease)

    def leave(self, lease: Lease) -> None:
        steps.append("released")
        super().leave(lease)


class _Breaker:
    """`told` is a list on the recorder, and a method of the port."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.ask = recorder.ask
        self.told = recorder.told_
        self.over = lambda frame: None


@pytest.fixture
def recorder(driven: ServiceRegistry) -> Recorder:
    recorder = Recorder(driven.ports)
    driven.ports.breaker = _Breaker(recorder)
    return recorder


@pytest.fixture
def work(driven: ServiceRegistry, recorder: Recorder) -> ServiceHandle:
    work = driven.register("work", Work, device="card:0")
    work._record.tape.note = recorder.tape  # type: ignore[method-assign]
    return work


LOAD = ["admit", "load", "admitted"]
BEFORE = ["cache", "retry", "breaker"]
RUN = ["device", "context", "engine", "told", "released"]

WAYS: dict[str, Callable[[Any, Any], Any]] = {
    "blocking": lambda bound, x: bound(x),
    "submitted": lambda bound, x: bound.submit(x).result(10),
    "timed": lambda bound, x: bound.with_(timeout=50)(x),
}
by_every_way = pytest.mark.parametrize("way", [*WAYS])


class TestOrder:
    @by_every_way
    def test_the_first_call_takes_every_step_once(self, work: ServiceHandle, way: str) -> None:
        assert WAYS[way](work.echo, 7) == 7
        assert steps == [*BEFORE, *LOAD, *RUN, "observe ok", "tape"]

    @by_every_way
    def test_the_second_one_does_not_load(self, work: ServiceHandle, way: str) -> None:
        work.load()
        steps.clear()
        WAYS[way](work.echo, 7)
        assert steps == [*BEFORE, *RUN, "observe ok", "tape"]

    @by_every_way
    def test_an_answer_from_the_cache_needs_no_service(
        self, work: ServiceHandle, recorder: Recorder, way: str
    ) -> None:
        recorder.hit = {7: "known"}
        assert WAYS[way](work.echo, 7) == "known"
        assert steps == ["cache", "observe cached"] and work.state == "registered"
        assert (work.metrics().ok, work.metrics().errors) == (1, {})

    @by_every_way
    def test_wrong_arguments_get_nowhere(self, work: ServiceHandle, recorder: Recorder, way: str) -> None:
        with pytest.raises(ValidationError):
            WAYS[way](work.echo, "seven")
        assert steps == ["observe validation"]

    @by_every_way
    def test_an_open_breaker_refuses_before_anything_is_loaded(
        self, work: ServiceHandle, recorder: Recorder, way: str
    ) -> None:
        recorder.open = True
        with pytest.raises(BreakerOpen):
            WAYS[way](work.echo, 7)
        assert steps == [*BEFORE, "fallback", "observe call.refused"]
        assert work.state == "registered" and recorder.told == []

    @by_every_way
    def test_a_task_that_raises_is_told_to_the_breaker_and_the_fallback(
        self, work: ServiceHandle, recorder: Recorder, way: str
    ) -> None:
        work.load()
        steps.clear()
        with pytest.raises(TaskFailed):
            WAYS[way](work.fail, 1)
        run = [step for step in RUN if step != "context"]
        assert steps == [*BEFORE, *run, "fallback", "observe task.failed"]
        assert recorder.told == ["task.failed"] and recorder.taped == []

    @by_every_way
    def test_what_a_fallback_answers_is_an_answer(
        self, work: ServiceHandle, recorder: Recorder, way: str
    ) -> None:
        work.load()
        steps.clear()
        assert WAYS[way](work.fail, -1) == "instead"
        assert "observe ok" in steps and steps.index("fallback") < steps.index("observe ok")
        assert work.metrics().errors == {}

    @by_every_way
    def test_every_attempt_takes_and_gives_back_for_itself(
        self, work: ServiceHandle, recorder: Recorder, way: str
    ) -> None:
        work.load()
        steps.clear()
        recorder.attempts = 3
        with pytest.raises(TaskFailed):
            WAYS[way](work.fail, 1)
        attempt = ["breaker", "device", "engine", "told", "released"]
        assert steps == ["cache", "retry", *attempt, *attempt, *attempt, "fallback", "observe task.failed"]
        assert len(recorder.seen) == 1

    def test_what_cannot_change_is_tried_once(self, work: ServiceHandle, recorder: Recorder) -> None:
        recorder.attempts = 3
        with pytest.raises(ValidationError):
            work.refuse(1)
        assert steps.count("engine") == 1

    @by_every_way
    def test_a_load_that_is_not_admitted_never_runs(
        self, work: ServiceHandle, recorder: Recorder, way: str
    ) -> None:
        recorder.full = ResourceExhausted
        with pytest.raises(GrymError, match="no memory"):
            WAYS[way](work.echo, 7)
        assert [step for step in steps if step in ("load", "engine", "device", "unload")] == []
        assert steps[-2] == "fallback" and work.state == "registered", "it has not even begun"
        recorder.full = None
        assert WAYS[way](work.echo, 7) == 7

    @by_every_way
    def test_a_lease_that_is_refused_leaves_nobody_inside(
        self, work: ServiceHandle, recorder: Recorder, way: str
    ) -> None:
        recorder.card.withdraw("full")
        with pytest.raises(ResourceExhausted):
            WAYS[way](work.echo, 7)
        refused = ["device", "released", "fallback", "observe resource.exhausted"]
        assert steps == [*BEFORE, *LOAD, *refused]
        until(lambda: work._record.users == 0)
        recorder.card.unavailable = ""
        steps.clear()
        assert WAYS[way](work.echo, 7) == 7
        work.unload()
        assert steps[-1] == "unload"

    def test_a_failed_load_is_told_to_the_breaker(self, driven: ServiceRegistry, recorder: Recorder) -> None:
        class Bad(ModelService):
            def load(self) -> None:
                raise OSError("no weights")

            @task
            def ask(self, x: int) -> int:
                return x

        with pytest.raises(LoadFailed):
            driven.register("bad", Bad).ask(1)
        assert recorder.told == ["service.load_failed"]

    def test_what_is_no_fault_of_the_service_is_not_told(
        self, driven: ServiceRegistry, work: ServiceHandle, recorder: Recorder, clock: FakeClock
    ) -> None:
        """Validation, a cancel, a refusal and a deadline that was spent waiting."""
        gates = Gates()
        work.load()
        with pytest.raises(ValidationError):
            work.echo("seven")
        inside = start(work.do, lambda: (gates.tell("inside"), gates.wait("on")))
        gates.wait("inside")
        waiting = work.echo.with_(timeout=5).submit(1)
        dropped = work.echo.submit(2)
        dropped.cancel()
        clock.advance(5)
        assert isinstance(waiting.exception(10), CallTimeout)
        gates["on"].set()
        outcome(inside)
        assert recorder.told == ["ok"]

    def test_a_stream_and_use_go_the_same_way(self, work: ServiceHandle, recorder: Recorder) -> None:
        work.load()
        steps.clear()
        assert list(work.items(2)) == [0, 1]
        item = ["device", "released"]
        assert steps == [
            "cache",
            "breaker",
            "device",
            "engine",
            "released",
            *item,
            *item,
            "observe ok",
            "told",
        ]
        steps.clear()
        with work.use():
            assert steps == ["breaker", "device"]
        assert steps[2:] == ["observe ok", "released"]


class TestSlot:
    def test_who_waits_for_a_slot_has_no_device(
        self, work: ServiceHandle, recorder: Recorder, clock: FakeClock
    ) -> None:
        gates = Gates()
        work.load()
        steps.clear()
        first = start(work.do, lambda: (gates.tell("inside"), gates.wait("on")))
        gates.wait("inside")

        def using() -> None:
            with work.use():
                gates.tell("used")

        second = start(using)
        until(lambda: work.status().waiting == 1)
        assert not gates["used"].is_set() and steps.count("device") == 1
        gates["on"].set()
        outcome(first)
        passes(gates["used"])
        outcome(second)
        assert steps.count("device") == steps.count("released") == 2

    def test_a_refusal_in_line_leaves_the_device_alone(
        self, work: ServiceHandle, recorder: Recorder, clock: FakeClock
    ) -> None:
        gates = Gates()
        work.load()
        outer = start(work.do, lambda: (gates.tell("inside"), gates.wait("on")))
        gates.wait("inside")
        steps.clear()
        late = start(work.echo.with_(timeout=5), 1)
        clock.until_waiting(2)
        clock.advance(5)
        assert isinstance(outcome(late), CallTimeout)
        gates["on"].set()
        outcome(outer)
        until(lambda: work._record.users == 0)
        assert steps.count("device") == 0 and steps.count("released") == 1


class TestSeenOnce:
    """Step 11 sees every call exactly once, however it ends."""

    def one(self, recorder: Recorder, code: str) -> None:
        until(lambda: recorder.seen)
        assert [event.outcome for event in recorder.seen] == [code]
        recorder.seen.clear()

    def test_cancelled_in_line_and_while_it_runs(
        self, work: ServiceHandle, recorder: Recorder, clock: FakeClock
    ) -> None:
        from grym_nb.services import track

        gates = Gates()
        work.load()

        def steps_() -> None:
            for i in track(range(3)):
                if i == 1:
                    gates.tell("inside")
                    gates.wait("on")

        running = work.do.submit(steps_)
        gates.wait("inside")
        queued = work.echo.submit(1)
        assert queued.cancel() and queued.cancel() is False
        self.one(recorder, "call.cancelled")
        assert running.cancel()
        gates["on"].set()
        assert running.exception(10) is not None
        until(lambda: work._record.users == 0)
        self.one(recorder, "call.cancelled")
        assert work.metrics().errors == {"call.cancelled": 2}

    def test_a_timeout_is_seen_at_the_deadline_and_the_late_answer_is_not(
        self, work: ServiceHandle, recorder: Recorder, clock: FakeClock
    ) -> None:
        gates = Gates()
        work.load()
        call = start(work.do.with_(timeout=5), lambda: (gates.tell("inside"), gates.wait("on")))
        gates.wait("inside")
        clock.until_waiting(2)
        clock.advance(5)
        assert isinstance(outcome(call), CallTimeout)
        assert [(event.outcome, event.seconds) for event in recorder.seen] == [("call.timeout", 5.0)]
        clock.advance(100)
        gates["on"].set()
        until(lambda: work._record.users == 0)
        assert work.echo(1) == 1
        assert [event.outcome for event in recorder.seen] == ["call.timeout", "ok"]
        assert recorder.taped == [1]

    def test_refused_by_a_closed_service(
        self, driven: ServiceRegistry, work: ServiceHandle, recorder: Recorder
    ) -> None:
        driven.remove("work")
        for call in (work.echo, work.echo.submit, work.echo.with_(timeout=9)):
            with pytest.raises(ServiceClosed):
                call(1)
            self.one(recorder, "service.closed")

    def test_an_interrupt(self, work: ServiceHandle, recorder: Recorder) -> None:
        work.load()

        def press() -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            work.do(press)
        self.one(recorder, "interrupted")
        assert work.state == "ready" and work.echo(1) == 1

    def test_nested_calls_are_seen_each_for_itself(self, work: ServiceHandle, recorder: Recorder) -> None:
        work.load()
        work.do(lambda: work.echo(1))
        assert [event.task for event in recorder.seen] == ["echo", "do"]

    def test_a_stream_that_is_left_open_is_seen_when_it_is_closed(
        self, work: ServiceHandle, recorder: Recorder
    ) -> None:
        stream = work.items(5)
        assert next(stream) == 0 and recorder.seen == []
        stream.close()
        stream.close()
        self.one(recorder, "ok")


class TestContextAndStore:
    def test_a_task_that_takes_context_is_given_it(self, work: ServiceHandle, recorder: Recorder) -> None:
        recorder.ports.context = lambda frame: [f"for {frame.title}"]
        assert work.echo(1) == (1, ["for work.echo"])
        assert work.echo(1, context="mine") == (1, "mine")
        assert work.execute(Task("work.echo", 1, context="its")).data == (1, "its")
        with pytest.raises(TaskFailed):
            work.fail(1)  # takes none, so nobody is asked

    def test_only_what_was_asked_for_is_stored(self, work: ServiceHandle, recorder: Recorder) -> None:
        work.echo(1)
        work.execute(Task("work.echo", 2))
        work.execute(Task("work.echo", 3, store_results=True))
        work.execute(Task("fail", 1, store_results=True))
        recorder.hit = {4: "known"}
        work.execute(Task("work.echo", 4, store_results=True))
        assert recorder.kept == [3, "known"] and recorder.taped == [1, 2, 3]

    @pytest.mark.parametrize("port", ["store", "context", "cache"])
    def test_a_port_that_raises_does_not_lose_a_slot(
        self, work: ServiceHandle, recorder: Recorder, port: str
    ) -> None:
        def broken(*_: Any) -> Any:
            raise QueueFull("no room")

        for _ in range(3):
            setattr(recorder.ports, port, broken)
            work.execute(Task("work.echo", 1, store_results=True))
            with suppress(QueueFull):
                work.echo(1)
            setattr(recorder.ports, port, None)
            assert outcome(start(work.echo, 2)) == 2
        assert work._record.users == 0 and work.unload().state == "registered"


def test_without_ports_a_registry_works_alone() -> None:
    ports = Ports()
    assert [ports.cache, ports.fallback, ports.retry, ports.breaker, ports.admit] == [None] * 5
    assert [ports.context, ports.store] == [None] * 2
    with ServiceRegistry(ports) as registry:
        assert registry.register("work", Work).echo(3) == 3
    assert ports.close() == ()
