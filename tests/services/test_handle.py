"""A handle's tasks are methods: they block, are submitted, take options, and call one another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from grym_nb.errors import (
    CallBlocked,
    CallCancelled,
    CallTimeout,
    ConfigError,
    GrymError,
    ServiceClosed,
    TaskFailed,
    TaskNotFound,
    ValidationError,
)
from grym_nb.services import ModelService, ServiceHandle, ServiceRegistry, Task, task
from grym_nb.services.call import Call, Provenance
from grym_nb.testing import FakeClock
from tests.services.crowd import WAIT, Gates, Overlap, all_at_once, outcome, passes, start, until


class Tool(ModelService):
    """Does what it is told, and says how many of it computed at a time."""

    checkpoint = "tool-v2.ckpt"

    def __init__(self, *, gain: float = 1.0, token: str = "") -> None:
        self.gain = gain
        self.token = token
        self.overlap = Overlap()
        self.tries = 0

    @task("tool.scale")
    def scale(self, x: float, by: float = 2.0, *, seed: int | None = None) -> float:
        """Return x, scaled."""
        return x * by * self.gain

    @task
    def do(self, what: Callable[[], Any]) -> Any:
        return what()

    @task
    def count(self, step: Callable[[], Any] | None = None) -> int:
        """Compute, alone; what it calls meanwhile may compute in its place."""
        with self.overlap:
            n = self.overlap.times
        if step is not None:
            step()
            with self.overlap:
                pass
        return n

    @task
    async def later(self, what: Callable[[], Any]) -> Any:
        made = what()
        return await made if hasattr(made, "__await__") else made

    @task
    def flaky(self, fail: int, error: type[Exception] = RuntimeError) -> int:
        self.tries += 1
        if self.tries <= fail:
            raise error(f"try {self.tries}")
        return self.tries

    @task
    def told(self, x: int, *, context: Any = None) -> Any:
        return context

    @task
    def items(self, n: int) -> Iterator[int]:
        yield from range(n)


@pytest.fixture
def tool(registry: ServiceRegistry) -> ServiceHandle:
    return registry.register("tool", Tool)


class TestTasks:
    def test_every_way_to_call_gives_the_same(self, tool: ServiceHandle) -> None:
        ways: list[Callable[[], Any]] = [
            lambda: tool.scale(3),
            lambda: tool.run("scale", 3),
            lambda: tool.run("tool.scale", 3),
            lambda: tool.scale.submit(3).result(10),
            lambda: tool.submit("scale", 3).result(10),
            lambda: tool.submit("tool.scale", 3, by=2.0).result(10),
            lambda: tool.submit(Task("tool.scale", 3)).result(10),
            lambda: tool.execute(Task("scale", 3)).data,
            lambda: tool.scale.with_(timeout=10)(3),
            lambda: tool.scale.with_(priority="high").submit(3).result(10),
            lambda: tool.scale.with_(retries=1)(3),
            lambda: asyncio.run(_gather(tool.scale.submit(3)))[0],
            lambda: tool.map("scale", [3])[0],
        ]
        assert [way() for way in ways] == [6.0] * len(ways)
        assert tool.status().calls == len(ways) and tool.status().errors == 0

    def test_an_unknown_task_names_the_closest_and_is_an_attribute_error(self, tool: ServiceHandle) -> None:
        for ask in (lambda: tool.scal, lambda: tool.run("scal"), lambda: tool.submit("scal")):
            with pytest.raises(TaskNotFound, match="Did you mean 'scale'") as caught:
                ask()
            assert isinstance(caught.value, AttributeError) and "it has: scale, do" in caught.value.hint
        assert not hasattr(tool, "scal") and getattr(tool, "_private", 7) == 7
        assert tool.state == "registered"

    def test_a_handle_completes_and_shows_its_tasks(self, tool: ServiceHandle) -> None:
        assert {"scale", "do", "count", "later", "map", "status"} <= set(dir(tool))
        assert repr(tool.scale).startswith("<task tool.scale(x: float")
        assert "Return x, scaled." in repr(tool.scale)
        assert "tool" in repr(tool) and "registered" in repr(tool)
        assert [spec.type for spec in tool.tasks][:2] == ["tool.scale", "do"]

    def test_a_factory_that_tells_nothing_is_asked_by_loading_it(self, registry: ServiceRegistry) -> None:
        def make():  # type: ignore[no-untyped-def]
            return Tool()

        handle = registry.register("made", make)
        assert handle.tasks == () and handle.state == "registered"
        assert handle.scale(1) == 2.0 and handle.tasks != ()
        with pytest.raises(TaskNotFound):
            handle.nothing(1)

    def test_wrong_arguments_are_all_named_before_anything_is_loaded(self, tool: ServiceHandle) -> None:
        for call in (tool.scale, tool.scale.submit, lambda *a, **k: tool.run("scale", *a, **k)):
            with pytest.raises(ValidationError) as caught:
                call("three", by="two", loud=True)
            assert {problem.path for problem in caught.value.problems} == {"x", "by", "loud"}
            assert "it takes (x: float" in caught.value.hint
        assert tool.state == "registered" and tool.metrics().errors == {"validation": 3}

    def test_wrong_options_are_named(self, tool: ServiceHandle) -> None:
        with pytest.raises(ValidationError) as caught:
            tool.scale.with_(timeout=0, retries=-1)
        assert {problem.path for problem in caught.value.problems} == {"timeout", "retries"}
        with pytest.raises(ValidationError, match="low, normal, high, critical"):
            tool.scale.with_(priority="urgent")

    def test_what_the_author_raises_says_where_and_with_what(self, tool: ServiceHandle) -> None:
        with pytest.raises(TaskFailed, match=r"tool\.flaky raised ZeroDivisionError: try 1") as caught:
            tool.flaky(9, ZeroDivisionError)
        error = caught.value
        assert (error.service, error.task, error.details["error"]) == ("tool", "flaky", "ZeroDivisionError")
        assert "input: 9" in error.cause and len(error.lines()) <= 3
        assert tool.state == "ready" and tool.scale(1) == 2.0


async def _gather(*calls: Any) -> list[Any]:
    return list(await asyncio.gather(*calls))


class TestThread:
    """A call runs in its caller's thread when it can."""

    def where(self, handle: ServiceHandle, call: Callable[..., Any]) -> bool:
        return bool(call(threading.get_ident) == threading.get_ident())

    def test_a_plain_call_does_and_one_with_a_timeout_does_not(self, tool: ServiceHandle) -> None:
        assert self.where(tool, tool.do)
        assert self.where(tool, tool.do.with_(priority="high", retries=2))
        assert not self.where(tool, tool.do.with_(timeout=10))
        assert not self.where(tool, tool.later)
        assert not self.where(tool, lambda what: tool.do.submit(what).result(10))

    def test_one_that_must_wait_does_not(self, tool: ServiceHandle) -> None:
        gates = Gates()

        def hold() -> None:
            gates.tell("inside")
            gates.wait("on")

        first = start(tool.do, hold)
        gates.wait("inside")
        second = start(self.where, tool, tool.do)
        until(lambda: tool.status().waiting == 1)
        gates["on"].set()
        outcome(first)
        assert outcome(second) is False

    def test_a_nested_call_stays_in_the_thread(self, tool: ServiceHandle, registry: ServiceRegistry) -> None:
        other = registry.register("other", Tool)
        threads: list[int] = []

        def note() -> None:
            threads.append(threading.get_ident())

        tool.do(lambda: (note(), tool.do(note), other.do(lambda: (note(), tool.do(note)))))
        assert len(threads) == 4 and set(threads) == {threading.get_ident()}

    def test_submit_never_blocks(self, registry: ServiceRegistry) -> None:
        gates = Gates()

        class Slow(ModelService):
            def load(self) -> None:
                gates.tell("loading")
                gates.wait("on")

            @task
            def ask(self) -> int:
                return 1

        handle = registry.register("slow", Slow)
        calls = [handle.submit("ask") for _ in range(50)]
        gates.wait("loading")
        assert not any(call.done() for call in calls)
        gates["on"].set()
        assert [call.result(10) for call in calls] == [1] * 50


class TestNested:
    """A chain re-enters its own service; still only one computes at a time."""

    @pytest.fixture
    def pair(self, registry: ServiceRegistry) -> tuple[ServiceHandle, ServiceHandle]:
        return registry.register("a", Tool), registry.register("b", Tool)

    def most(self, *handles: ServiceHandle) -> int:
        most = 0
        for handle in handles:
            with handle.use() as model:
                most = max(most, model.overlap.most)
        return most

    WAYS: ClassVar[dict[str, Callable[[ServiceHandle, ServiceHandle], Callable[[], Any]]]] = {
        "itself": lambda a, b: lambda: a.count(),
        "itself, deep": lambda a, b: lambda: a.count(lambda: a.count(lambda: a.count())),
        "a child it waits for": lambda a, b: lambda: a.count.submit().result(10),
        "three children": lambda a, b: lambda: [c.result(10) for c in [a.count.submit() for _ in range(3)]],
        "a child of a child": lambda a, b: (
            lambda: a.count.submit(lambda: a.count.submit().result(10)).result(10)
        ),
        "a and b and a": lambda a, b: lambda: b.count(lambda: a.count()),
        "by way of b, submitted": lambda a, b: lambda: b.count(lambda: a.count.submit().result(10)),
        "b submitted, then a": lambda a, b: lambda: b.count.submit(lambda: a.count()).result(10),
        "all submitted": lambda a, b: lambda: b.count.submit(lambda: a.count.submit().result(10)).result(10),
        "with a timeout": lambda a, b: lambda: a.count.with_(timeout=10)(),
        "by way of b, timed": lambda a, b: lambda: b.count.with_(timeout=10)(lambda: a.count()),
        "map over itself": lambda a, b: lambda: a.map("count", [None] * 5),
        "map over itself in b": lambda a, b: lambda: b.count(lambda: a.map("count", [None] * 3)),
        "use of itself": lambda a, b: lambda: a.use().__enter__() and None,
        "execute": lambda a, b: lambda: a.execute(Task("count")),
        "async itself": lambda a, b: lambda: a.later.submit(lambda: 1).result(10),
        "awaited": lambda a, b: lambda: asyncio.run(_gather(a.count.submit(), b.count.submit(a.count))),
    }

    @pytest.mark.parametrize("way", [*WAYS])
    @pytest.mark.parametrize("begun", ["blocking", "submitted"])
    def test_it_ends_and_only_one_computes(
        self, pair: tuple[ServiceHandle, ServiceHandle], way: str, begun: str
    ) -> None:
        a, b = pair
        step = self.WAYS[way](a, b)
        if way == "use of itself":

            def step() -> None:
                with a.use() as model:
                    model.overlap.__enter__()
                    model.overlap.__exit__()

        begin = a.count if begun == "blocking" else lambda s: a.count.submit(s).result(10)
        assert outcome(start(begin, step)) == 1
        assert self.most(a, b) == 1
        assert a.status().running == () and not a._record.lane.waiting

    def test_four_chains_at_once_end_too(self, pair: tuple[ServiceHandle, ServiceHandle]) -> None:
        a, b = pair
        steps = [self.WAYS[way](a, b) for way in list(self.WAYS)[:9]]
        answers = all_at_once(9, lambda i: a.count(steps[i]))
        assert all(isinstance(answer, int) for answer in answers), answers
        assert self.most(a, b) == 1

    ASYNC: ClassVar[dict[str, Callable[[ServiceHandle, ServiceHandle], Callable[[], Any]]]] = {
        "itself": lambda a, b: lambda: a.count.submit(),
        "three": lambda a, b: lambda: _gather(*[a.count.submit() for _ in range(3)]),
        "by way of b": lambda a, b: lambda: b.count.submit(a.count),
        "by way of b, async": lambda a, b: lambda: b.later.submit(lambda: a.count.submit()),
        "async itself": lambda a, b: lambda: a.later.submit(lambda: a.later.submit(lambda: a.count.submit())),
        "both ways": lambda a, b: lambda: _gather(a.count.submit(), b.later.submit(lambda: a.count.submit())),
    }

    @pytest.mark.parametrize("way", [*ASYNC])
    def test_an_async_task_awaits_its_own_service(
        self, pair: tuple[ServiceHandle, ServiceHandle], way: str
    ) -> None:
        a, b = pair
        outcome(start(a.later, self.ASYNC[way](a, b)))
        assert self.most(a, b) == 1
        assert a.status().running == () and not a._record.lane.waiting

    def test_an_async_task_that_awaits_two_at_a_time_ends_when_one_comes_back_late(
        self, pair: tuple[ServiceHandle, ServiceHandle]
    ) -> None:
        """The first answer must not take the place away from the second call, which needs it on its way."""
        a, b = pair
        gates = Gates()

        def late() -> Any:
            gates.wait("first came back")
            return a.count()

        async def both() -> list[Any]:
            async def first() -> Any:
                answer = await b.count.submit()
                gates.tell("first came back")
                return answer

            c = registry_of(a).register("c", Tool)
            return list(await asyncio.gather(first(), c.do.submit(late)))

        answers = outcome(start(a.later, both))
        assert [type(answer) for answer in answers] == [int, int]

    def test_a_cancelled_call_that_awaits_ends_and_takes_along_only_what_it_asked_for(
        self, pair: tuple[ServiceHandle, ServiceHandle]
    ) -> None:
        """On a loop of its own, where nobody else could end its await: before it begins, and within it."""
        a, b = pair
        gates = Gates()
        held = b.count.submit(gates.hold)
        gates.wait("in")

        def its_own() -> Any:
            gates.tell("computes")
            gates.wait("cancelled")
            return asyncio.run(_gather(b.count.submit()))

        def of_others() -> Any:
            return asyncio.run(_gather(held))

        call = a.count.submit(its_own)
        gates.wait("computes")
        call.cancel()
        gates.tell("cancelled")
        until(lambda: a.status().running == () and not b._record.lane.waiting)
        call = a.count.submit(of_others)
        until(lambda: any(frame.waits_for for frame in a._record.lane.frames()))
        call.cancel()
        until(lambda: a.status().running == ())
        assert not held.done()
        gates.tell("go")
        assert held.result(WAIT) == 1
        assert self.most(a, b) == 1

    def test_a_blocking_call_on_the_loop_that_would_stop_it_is_refused(self, tool: ServiceHandle) -> None:
        with pytest.raises(CallBlocked, match="would stop the event loop") as caught:
            tool.later(lambda: tool.count.submit().result(10))
        assert "await" in caught.value.hint
        assert tool.count() >= 1 and tool.state == "ready"

    def test_two_chains_that_wait_for_each_other_are_told_apart(
        self, pair: tuple[ServiceHandle, ServiceHandle]
    ) -> None:
        """A asks b while b asks a: one of them is refused, with the way round, and the other goes on."""
        a, b = pair
        meet = threading.Barrier(2)

        def ask(other: ServiceHandle) -> Callable[[], Any]:
            def step() -> Any:
                meet.wait(10)
                return other.count()

            return step

        ends = [outcome(call) for call in (start(a.do, ask(b)), start(b.do, ask(a)))]
        refused = [end for end in ends if isinstance(end, CallBlocked)]
        assert len(refused) == 1 and "wait for one another" in str(refused[0]), ends
        assert [end for end in ends if isinstance(end, int)] == [1]
        assert a.count() and b.count()

    def test_three_chains_in_a_ring_are_told_apart(self, registry: ServiceRegistry) -> None:
        ring = [registry.register(name, Tool) for name in "abc"]
        for way in ("call", "submit"):
            meet = threading.Barrier(3)

            def ask(i: int, meet: threading.Barrier = meet, way: str = way) -> Any:
                following = ring[(i + 1) % 3]

                def step() -> Any:
                    meet.wait(10)
                    return following.count() if way == "call" else following.count.submit().result(10)

                return ring[i].do(step)

            ends = all_at_once(3, ask)
            assert 1 <= sum(isinstance(end, CallBlocked) for end in ends) <= 2, ends
            assert all(isinstance(end, (int, CallBlocked)) for end in ends)

    def test_a_place_that_outlived_its_owner_still_closes_a_circle(
        self, pair: tuple[ServiceHandle, ServiceHandle]
    ) -> None:
        """A child rides on its parent's slot, the parent ends: then the child is who holds it."""
        a, b = pair
        gates = Gates()

        def child() -> int:
            gates.tell("child runs")
            gates.wait("b asks a")
            return int(b.count())

        children: list[Call] = []

        def parent() -> None:
            children.append(a.do.submit(child))
            a.count.submit().result(10)  # lends the place: the child gets in, and keeps it

        def ask_a() -> int:
            gates.tell("b busy")
            gates.wait("child runs")
            asked = a.count.submit()
            gates.tell("b asks a")
            return int(asked.result(10))

        holder = start(b.do, ask_a)
        gates.wait("b busy")
        outer = start(a.do, parent)
        gates.wait("child runs")
        ends = [outcome(holder), outcome(children[0]), outcome(outer)]
        refused = [end for end in ends if isinstance(end, (CallBlocked, TimeoutError))]
        assert all(isinstance(end, (int, CallBlocked, type(None))) for end in ends), ends
        assert 1 <= len(refused) <= 2
        until(lambda: not a.status().running and not b.status().running)
        assert a.count() and b.count()

    def test_a_cancelled_call_stops_waiting_for_the_calls_inside_it(
        self, pair: tuple[ServiceHandle, ServiceHandle]
    ) -> None:
        a, b = pair
        gates = Gates()
        busy = start(b.do, lambda: (gates.tell("b busy"), gates.wait("on")))
        gates.wait("b busy")

        def using() -> None:
            with b.use():
                gates.tell("never")

        for wait in (b.count, lambda: b.count.submit().result(10), using):
            call = a.do.submit(wait)
            until(lambda: b.status().waiting == 1)
            assert call.cancel()
            assert isinstance(call.exception(10), CallCancelled)
            until(lambda: b.status().waiting == 0 and not a.status().running)
        gates["on"].set()
        outcome(busy)
        assert not gates["never"].is_set() and a.count() and b.count()
        assert b._record.users == 0 and a._record.users == 0

    def test_a_deadline_also_ends_the_wait_for_a_call_that_somebody_else_made(
        self, driven: ServiceRegistry, clock: FakeClock
    ) -> None:
        a, b = driven.register("a", Tool).load(), driven.register("b", Tool).load()
        gates = Gates()
        theirs = b.do.submit(lambda: (gates.tell("inside"), gates.wait("on")))
        gates.wait("inside")
        call = a.do.with_(timeout=5).submit(lambda: theirs.result())
        until(lambda: a.status().running)
        clock.until_waiting(2)  # the pulse, and the one who waits for theirs
        clock.advance(5)
        assert isinstance(outcome(call), CallTimeout)
        until(lambda: not a.status().running)  # its slot is free, although theirs goes on
        assert not theirs.done() and a.count() == 1
        gates["on"].set()
        outcome(theirs)

    def test_with_a_timeout_two_chains_end_by_themselves(
        self, driven: ServiceRegistry, clock: FakeClock
    ) -> None:
        a, b = driven.register("a", Tool).load(), driven.register("b", Tool).load()
        meet = threading.Barrier(2)

        def ask(other: ServiceHandle) -> Callable[[], Any]:
            def step() -> Any:
                meet.wait(10)
                return other.count.with_(timeout=5)()

            return step

        calls = [start(a.do, ask(b)), start(b.do, ask(a))]
        clock.until_waiting(3)  # two callers and the pulse
        clock.advance(5)
        assert {type(outcome(call)) for call in calls} <= {CallTimeout, int, CallBlocked}
        assert a.count() and b.count()

    def test_two_slots_let_two_chains_cross(self, registry: ServiceRegistry) -> None:
        a = registry.register("a", Tool, concurrency=2)
        b = registry.register("b", Tool, concurrency=2)
        meet = threading.Barrier(2)

        def ask(other: ServiceHandle) -> Callable[[], Any]:
            return lambda: (meet.wait(10), other.count())[1]

        ends = [outcome(call) for call in (start(a.do, ask(b)), start(b.do, ask(a)))]
        assert ends == [1, 1]


def registry_of(handle: ServiceHandle) -> ServiceRegistry:
    return handle._registry


class TestTimeout:
    def test_a_blocking_call_ends_at_its_deadline_and_the_work_keeps_its_slot(
        self, driven: ServiceRegistry, clock: FakeClock
    ) -> None:
        tool = driven.register("tool", Tool).load()
        gates = Gates()

        def work() -> int:
            gates.tell("inside")
            gates.wait("on")
            return 1

        call = start(tool.do.with_(timeout=5), work)
        gates.wait("inside")
        clock.until_waiting(2)
        clock.advance(4.9)
        assert not call.done()
        clock.advance(0.1)
        error = outcome(call)
        assert isinstance(error, CallTimeout) and isinstance(error, TimeoutError)
        assert "tool.do timed out after 5 s" in str(error)
        clock.advance(2)
        assert "stuck" in tool.status().running[0]
        waiting = start(tool.count)
        until(lambda: tool.status().waiting == 1)
        assert not waiting.done()
        gates["on"].set()
        assert outcome(waiting) == 1 and tool.status().running == ()
        assert tool.metrics().errors == {"call.timeout": 1} and tool.metrics().ok == 1

    def test_one_that_waits_for_a_slot_says_so(self, driven: ServiceRegistry, clock: FakeClock) -> None:
        tool = driven.register("tool", Tool).load()
        gates = Gates()
        first = start(tool.do, lambda: (gates.tell("inside"), gates.wait("on")))
        gates.wait("inside")
        second = start(tool.count.with_(timeout=5))
        clock.until_waiting(2)
        clock.advance(5)
        error = outcome(second)
        assert isinstance(error, CallTimeout) and "a slot of tool" in str(error)
        assert tool.status().waiting == 0
        gates["on"].set()
        outcome(first)
        assert tool.count() == 1 and tool.metrics().errors == {"call.timeout": 1}

    def test_a_deadline_bounds_the_calls_inside(self, driven: ServiceRegistry, clock: FakeClock) -> None:
        """What is left of the outer one's time is all an inner one has, whatever it asks for."""
        a, b = driven.register("a", Tool).load(), driven.register("b", Tool).load()
        gates = Gates()

        def outer() -> Any:
            clock.advance(3)
            return b.do.with_(timeout=100)(lambda: (gates.tell("inside"), gates.wait("on")))

        call = start(a.do.with_(timeout=5), outer)
        gates.wait("inside")
        clock.until_waiting(3)
        clock.advance(2)
        assert isinstance(outcome(call), CallTimeout)
        until(lambda: b.metrics().errors)
        gates["on"].set()
        until(lambda: not a.status().running and not b.status().running)
        assert a.metrics().errors == b.metrics().errors == {"call.timeout": 1}
        assert a.metrics().ok == b.metrics().ok == 0

    def test_a_call_whose_time_is_over_does_not_begin(
        self, driven: ServiceRegistry, clock: FakeClock
    ) -> None:
        a, b = driven.register("a", Tool).load(), driven.register("b", Tool).load()
        began: list[int] = []

        def outer() -> Any:
            clock.advance(6)
            return b.do(lambda: began.append(1))

        assert isinstance(outcome(a.do.with_(timeout=5).submit(outer)), CallTimeout)
        until(lambda: not a.status().running)
        assert began == []

    def test_a_load_counts_and_goes_on(self, driven: ServiceRegistry, clock: FakeClock) -> None:
        gates = Gates()

        class Slow(ModelService):
            def load(self) -> None:
                gates.tell("loading")
                gates.wait("on")

            @task
            def ask(self) -> int:
                return 1

        handle = driven.register("slow", Slow)
        call = start(handle.ask.with_(timeout=5))
        gates.wait("loading")
        clock.until_waiting(2)
        clock.advance(5)
        error = outcome(call)
        assert isinstance(error, CallTimeout) and "slow, which is loading" in str(error)
        gates["on"].set()
        assert handle.ask() == 1 and handle.status().loads == 1
        assert handle.metrics().errors == {"call.timeout": 1}


class TestRetries:
    def test_it_tries_again_until_it_works(self, driven: ServiceRegistry, clock: FakeClock) -> None:
        tool = driven.register("tool", Tool).load()
        call = start(tool.flaky.with_(retries=3), 2)
        for pause in (0.1, 0.2):
            clock.until_waiting(1)
            clock.advance(pause)
        assert outcome(call) == 3
        assert tool.status().calls == 1 and tool.metrics().errors == {}

    def test_during_back_off_another_call_gets_in(self, driven: ServiceRegistry, clock: FakeClock) -> None:
        tool = driven.register("tool", Tool).load()

        def once() -> Callable[[], int]:
            left = [RuntimeError("not yet")]

            def work() -> int:
                if left:
                    raise left.pop()
                return 7

            return work

        blocking = start(tool.do.with_(retries=1), once())
        submitted = tool.do.with_(retries=1).submit(once())
        clock.until_waiting(2)
        assert tool.status().running == () and tool.count() == 1
        tool.unload()  # nobody is inside, so nobody is waited for
        clock.advance(0.1)
        assert (outcome(blocking), outcome(submitted), tool.status().loads) == (7, 7, 2)

    def test_the_last_error_is_raised_and_every_try_is_told_once(
        self, driven: ServiceRegistry, clock: FakeClock
    ) -> None:
        tool = driven.register("tool", Tool).load()
        call = start(tool.flaky.with_(retries=2), 9)
        for pause in (0.1, 0.2):
            clock.until_waiting(1)
            clock.advance(pause)
        error = outcome(call)
        assert isinstance(error, TaskFailed) and "try 3" in str(error)
        assert tool.status().calls == 1 and tool.metrics().errors == {"task.failed": 1}

    def test_what_cannot_change_is_not_tried_again(self, registry: ServiceRegistry) -> None:
        class Strict(ModelService):
            tries = 0

            @task
            def ask(self) -> int:
                self.tries += 1
                raise ValidationError("never")

            @task
            def tried(self) -> int:
                return self.tries

        handle = registry.register("strict", Strict)
        with pytest.raises(ValidationError):
            handle.ask.with_(retries=5)()
        assert handle.tried() == 1
        registry.remove("strict")
        with pytest.raises(ServiceClosed):
            handle.ask.with_(retries=5)()

    def test_a_failed_load_is_tried_again(self, driven: ServiceRegistry, clock: FakeClock) -> None:
        loads: list[int] = []

        class Shy(ModelService):
            def load(self) -> None:
                loads.append(1)
                if len(loads) < 3:
                    raise OSError("not yet")

            @task
            def ask(self) -> int:
                return len(loads)

        handle = driven.register("shy", Shy)
        call = start(handle.ask.with_(retries=2))
        for pause in (0.1, 0.2):
            clock.until_waiting(1)
            clock.advance(pause)
        assert outcome(call) == 3

    def test_a_deadline_ends_the_tries(self, driven: ServiceRegistry, clock: FakeClock) -> None:
        tool = driven.register("tool", Tool).load()
        call = start(tool.flaky.with_(retries=50, timeout=0.25), 99)
        clock.until_waiting(3)  # the caller, the worker in its pause, the pulse
        clock.advance(0.1)
        clock.until_waiting(3)
        clock.advance(0.15)
        assert isinstance(outcome(call), CallTimeout)
        until(lambda: not tool.status().running)
        with tool.use() as model:
            assert model.tries == 2

    def test_a_cancelled_call_is_not_tried_again(self, driven: ServiceRegistry, clock: FakeClock) -> None:
        tool = driven.register("tool", Tool).load()
        call = tool.flaky.with_(retries=50).submit(99)
        clock.until_waiting(1)
        assert call.cancel()
        clock.advance(0.1)
        until(lambda: not driven.ports.workers.waiting)
        with pytest.raises(GrymError, match="cancelled"):
            call.result(10)
        with tool.use() as model:
            assert model.tries == 1


class TestExecute:
    def test_a_result_says_where_it_came_from(self, clock: FakeClock) -> None:
        with ServiceRegistry(clock=clock) as registry:
            tool = registry.register("tool", Tool, config={"gain": 0.5}, version="2.1")
            tool.load()
            result = tool.execute(
                Task("tool.scale", 3, {"by": 4, "seed": 7}, metadata={"run": "a"}, id="task-1")
            )
            assert (result.id, result.data) == ("task-1", 6.0)
            assert (result.success, result.status) == (True, "completed")
            assert result.error is None and result.metadata["run"] == "a"
            assert result.provenance == Provenance(
                service="tool",
                version="2.1",
                config_version=1,
                config={"gain": 0.5, "token": ""},
                checkpoint="tool-v2.ckpt",
                parameters={"by": 4, "seed": 7},
                seed=7,
                started=1000.0,
                ended=1000.0,
            )

    def test_a_failing_task_is_a_result_too(self, tool: ServiceHandle) -> None:
        result = tool.execute(Task("flaky", 9))
        assert (result.success, result.status, result.data) == (False, "failed", None)
        assert isinstance(result.error, TaskFailed) and result.error.__traceback__ is None
        assert result.provenance is not None and result.provenance.version == "v1"

    @pytest.mark.parametrize(
        "asked",
        [
            Task("nothing", 1),
            Task("tool.scale", "three"),
            Task("tool.scale", 3, {"loud": 1}),
            Task("tool.scale", 3, store_results=True),
            Task("tool.scale"),
        ],
        ids=["type", "data", "params", "store", "no data"],
    )
    def test_what_is_refused_is_a_result_and_pins_no_frame(self, tool: ServiceHandle, asked: Task) -> None:
        result = tool.execute(asked)
        assert (result.success, result.status, result.id) == (False, "failed", asked.id)
        assert isinstance(result.error, GrymError) and result.error.__traceback__ is None

    def test_a_closed_service_is_a_result(self, registry: ServiceRegistry, tool: ServiceHandle) -> None:
        tool.load()
        registry.remove("tool")
        result = tool.execute(Task("scale", 3))
        assert (result.success, result.status) == (False, "failed")
        assert isinstance(result.error, ServiceClosed)

    def test_a_failed_load_is_a_result(self, registry: ServiceRegistry) -> None:
        class Bad(ModelService):
            def load(self) -> None:
                raise OSError("no weights")

            @task
            def ask(self) -> int:
                return 1

        result = registry.register("bad", Bad).execute(Task("ask"))
        assert not result.success and result.error is not None and "no weights" in str(result.error)

    def test_inside_an_async_task_it_is_a_result(self, tool: ServiceHandle) -> None:
        result = tool.later(lambda: tool.execute(Task("scale", 3)))
        assert not result.success and isinstance(result.error, CallBlocked)

    def test_a_timeout_is_a_status_of_its_own(self, driven: ServiceRegistry, clock: FakeClock) -> None:
        tool = driven.register("tool", Tool).load()
        gates = Gates()
        asked = Task("do", lambda: (gates.tell("inside"), gates.wait("on")), timeout=5)
        done = start(tool.execute, asked)
        gates.wait("inside")
        clock.until_waiting(2)
        clock.advance(5)
        result = outcome(done)
        assert (result.success, result.status) == (False, "timeout")
        gates["on"].set()

    def test_retries_and_priority_and_context_reach_the_call(
        self, driven: ServiceRegistry, clock: FakeClock
    ) -> None:
        tool = driven.register("tool", Tool).load()
        done = start(tool.execute, Task("flaky", 1, retries=1))
        clock.until_waiting(2)
        clock.advance(0.1)
        assert outcome(done).data == 2
        assert tool.execute(Task("told", 1, context={"tempo": 120})).data == {"tempo": 120}
        assert tool.execute(Task("told", 1)).data is None

    def test_context_for_a_task_that_takes_none_is_refused(self, tool: ServiceHandle) -> None:
        result = tool.execute(Task("scale", 3, context={"a": 1}))
        assert isinstance(result.error, ValidationError) and "context" in str(result.error)

    def test_results_are_kept_only_where_there_is_a_store(
        self, registry: ServiceRegistry, tool: ServiceHandle
    ) -> None:
        asked = Task("scale", 3, store_results=True)
        with pytest.raises(ConfigError, match="no context store"):
            tool.submit(asked)
        kept: list[Any] = []
        registry.ports.store = lambda frame, value: kept.append((frame.title, value))
        assert tool.execute(asked).data == 6.0
        assert tool.execute(Task("scale", 4)).data == 8.0 and tool.scale(5) == 10.0
        assert kept == [("tool.scale", 6.0)]

    def test_nothing_that_is_shown_tells_a_secret(self, registry: ServiceRegistry) -> None:
        tool = registry.register("tool", Tool, config={"token": "hunter2"})
        result = tool.execute(Task("scale", 3))
        shown = [repr(result), result._repr_html_(), repr(result.provenance), repr(tool.status())]
        shown += [tool._repr_html_(), repr(tool), repr(Task("x", 1, {"api_key": "hunter2"}))]
        assert not [text for text in shown if "hunter2" in text]


class TestCallObject:
    def test_a_call_knows_whose_it_is(self, tool: ServiceHandle) -> None:
        call = tool.scale.submit(3)
        assert isinstance(call, Call) and (call.service, call.task) == ("tool", "scale")
        assert call.result(10) == 6.0 and "done: 6.0" in repr(call)

    def test_a_generator_task_is_a_stream_or_a_list(self, tool: ServiceHandle) -> None:
        assert list(tool.items(3)) == [0, 1, 2]
        assert tool.submit("items", 3).result(10) == [0, 1, 2]
        assert tool.execute(Task("items", 3)).data == [0, 1, 2]

    def test_a_hundred_callers_of_every_kind_get_their_own_answer(self, registry: ServiceRegistry) -> None:
        tool = registry.register("tool", Tool, concurrency=3)
        kinds: list[Callable[[int], Any]] = [
            lambda i: tool.scale(i),
            lambda i: tool.scale.submit(i).result(10),
            lambda i: tool.scale.with_(timeout=30)(i),
            lambda i: tool.execute(Task("tool.scale", i)).data,
            lambda i: asyncio.run(_gather(tool.scale.submit(i)))[0],
        ]
        assert all_at_once(100, lambda i: kinds[i % 5](i)) == [2.0 * i for i in range(100)]
        assert tool.status().calls == 100 and tool.status().errors == 0


def test_a_lock_of_the_users_is_never_waited_for_under_one_of_ours(registry: ServiceRegistry) -> None:
    """A subscriber and a callback may call back into the registry."""
    tool = registry.register("tool", Tool)
    seen: list[str] = []
    stop = registry.ports.events.subscribe(
        lambda event: seen.append(f"{tool.status().state} {tool.state} {len(registry.running())}")
    )
    done = threading.Event()
    call = tool.submit("scale", 3)
    call.add_done_callback(lambda c: (tool.scale(1), tool.status(), done.set()))
    passes(done)
    tool.unload()
    registry.register("tool", Tool, concurrency=2)
    stop()
    assert seen
