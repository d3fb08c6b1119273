"""Where a task runs: in the thread that asks, or, when it is async, on a private loop of ours."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from grym_nb.errors import CallCancelled, CallTimeout, GrymError, TaskFailed
from grym_nb.services import ModelService, ServiceHandle, ServiceRegistry, task, track
from grym_nb.services.engines import LoopThread
from grym_nb.services.frame import current_frame
from grym_nb.testing import FakeClock
from tests.services.crowd import WAIT, Gates, Overlap, names_of_threads, outcome, start, until

who: ContextVar[str] = ContextVar("who", default="nobody")


class Loops(ModelService):
    """Async tasks of every kind."""

    def __init__(self, gates: Gates, overlap: Overlap) -> None:
        self.gates = gates
        self.overlap = overlap
        self.me: Any = None

    @task
    def plain(self) -> str:
        with self.overlap:
            return threading.current_thread().name

    @task
    async def where(self) -> tuple[str, str]:
        await asyncio.sleep(0)
        return threading.current_thread().name, who.get()

    @task
    async def sets(self) -> str:
        who.set("task")
        await asyncio.sleep(0)
        return who.get()

    @task
    async def waits(self) -> None:
        self.gates.tell("began")
        await asyncio.Event().wait()

    @task
    async def cleans_up(self) -> None:
        """Take long to stop."""
        with self.overlap:
            try:
                self.gates.tell("began")
                await asyncio.Event().wait()
            finally:
                self.gates.tell("stopping")
                await asyncio.to_thread(self.gates.wait, "may stop")
                self.gates.tell("stopped")

    @task
    async def refuses(self) -> str:
        """Go on although it was cancelled."""
        try:
            self.gates.tell("began")
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "still here"
        return "never"

    @task
    async def steps(self, n: int) -> int:
        for i in track(range(n)):
            if i == 2:
                self.gates.tell("began")
                await asyncio.to_thread(self.gates.wait, "may go on")
        return n

    @task
    async def fails(self, error: Any) -> None:
        await asyncio.sleep(0)
        raise error

    @task
    async def asks(self, n: int) -> int:
        return 1 + await self.me.asks.submit(n - 1) if n else 0

    @task
    async def asks_many(self, n: int) -> list[Any]:
        return await asyncio.gather(*(self.me.echo.submit(i) for i in range(n)))

    @task
    def echo(self, i: int) -> int:
        with self.overlap:
            return i

    @task
    async def frame(self) -> str:
        await asyncio.sleep(0)
        frame = current_frame()
        assert frame is not None
        return frame.title

    @task
    async def parts(self, n: int) -> AsyncIterator[tuple[int, str]]:
        try:
            for i in range(n):
                await asyncio.sleep(0)
                yield i, threading.current_thread().name
        finally:
            await asyncio.sleep(0)
            self.gates.tell("parts are over")

    @task
    def plain_parts(self, n: int) -> Iterator[int]:
        try:
            yield from range(n)
        finally:
            self.gates.tell("plain parts are over")

    @task
    async def stuck_parts(self) -> AsyncIterator[int]:
        yield 1
        self.gates.tell("began")
        await asyncio.Event().wait()

    @task
    async def returns_a_coroutine(self) -> Any:
        async def inner() -> int:
            return 3

        return await inner()

    @task
    def returns_later(self) -> Any:
        """A plain task that gives a coroutine is awaited too."""

        async def inner() -> str:
            return threading.current_thread().name

        return inner()


@pytest.fixture
def gates() -> Gates:
    """Events by name."""
    return Gates()


@pytest.fixture
def overlap() -> Overlap:
    """Who computes now."""
    return Overlap()


@pytest.fixture
def loops(registry: ServiceRegistry, gates: Gates, overlap: Overlap) -> ServiceHandle:
    """A loaded service on the real clock."""
    return service(registry, gates, overlap)


def service(registry: ServiceRegistry, gates: Gates, overlap: Overlap) -> ServiceHandle:
    """Return a loaded service that knows its own handle."""
    handle = registry.register("loops", Loops, config={"gates": gates, "overlap": overlap})
    with handle.use() as model:
        model.me = handle
    return handle


def test_a_plain_task_runs_in_the_thread_that_asks_and_a_submitted_one_on_a_worker(
    loops: ServiceHandle,
) -> None:
    """No hop where none is needed."""
    assert loops.plain() == threading.current_thread().name
    assert loops.plain.submit().result(WAIT).startswith("grym-call")
    assert loops.plain.with_(timeout=WAIT)().startswith("grym-call")


def test_no_loop_is_started_before_an_async_task_runs(loops: ServiceHandle) -> None:
    """And one is enough."""
    loops.plain()
    assert names_of_threads("grym-loop") == []
    assert loops.where()[0] == "grym-loop"
    assert loops.where.submit().result(WAIT)[0] == "grym-loop"
    assert names_of_threads("grym-loop") == ["grym-loop"]


def test_the_callers_context_travels_to_the_loop_and_nothing_travels_back(loops: ServiceHandle) -> None:
    """What a task sets is its own."""
    token = who.set("caller")
    try:
        assert (loops.where()[1], loops.sets(), who.get()) == ("caller", "task", "caller")
        assert loops.where.submit().result(WAIT)[1] == "caller"
    finally:
        who.reset(token)
    assert loops.where()[1] == "nobody"


def test_an_async_task_knows_the_call_it_runs_in(loops: ServiceHandle) -> None:
    """Also after it awaited."""
    assert loops.frame() == "loops.frame"
    assert current_frame() is None


def test_coroutines_are_awaited_wherever_they_come_from(loops: ServiceHandle) -> None:
    """From an async task or from a plain one that returns one."""
    assert (loops.returns_a_coroutine(), loops.returns_later()) == (3, "grym-loop")


@pytest.mark.parametrize("error", [ValueError("no"), StopAsyncIteration("odd"), KeyError("odd")])
def test_what_an_async_task_raises_is_told_as_any_failure(loops: ServiceHandle, error: Exception) -> None:
    """With the line of the author."""
    with pytest.raises(TaskFailed) as caught:
        loops.fails(error)
    assert caught.value.failure.sites[-1].function == "fails"
    assert loops.state == "ready"


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit])
def test_what_would_end_a_program_fails_a_call(registry: ServiceRegistry, kind: type[BaseException]) -> None:
    """A `sys.exit()` somewhere inside: neither the cell ends with it nor the loop of the async tasks."""

    class Exits(ModelService):
        @task
        def plain(self) -> None:
            raise kind(3)

        @task
        async def later(self) -> None:
            raise kind(3)

        @task
        async def fine(self) -> int:
            return 1

    exits = registry.register("exits", Exits)
    for name in ("plain", "later"):
        with pytest.raises(TaskFailed, match=f"raised {kind.__name__}: 3"):
            exits.run(name)
        with pytest.raises(TaskFailed, match=f"raised {kind.__name__}: 3"):
            exits.submit(name).result(10)
    assert exits.fine() == 1


def test_async_tasks_ask_one_another_without_blocking_the_loop(
    loops: ServiceHandle, overlap: Overlap
) -> None:
    """Itself, ten deep, on one slot; and many at once, of which one computes at a time."""
    assert loops.asks(10) == 10
    assert loops.asks_many(30) == list(range(30))
    assert (overlap.most, loops._record.lane.free) == (1, 1)


# -- ending early ----------------------------------------------------------------------------------


def test_a_cancelled_async_task_keeps_its_slot_until_it_has_stopped(
    loops: ServiceHandle, gates: Gates, overlap: Overlap
) -> None:
    """Its clean-up is work too: nobody is let in beside it."""
    call = loops.cleans_up.submit()
    gates.wait("began")
    assert call.cancel()
    gates.wait("stopping")
    next_ = loops.plain.submit()
    assert (loops._record.lane.free, loops._record.lane.waiting) == (0, 1)
    gates.tell("may stop")
    assert isinstance(call.exception(WAIT), CallCancelled)
    assert next_.result(WAIT).startswith("grym-call")
    assert (overlap.most, gates["stopped"].is_set()) == (1, True)


def test_an_async_task_past_its_deadline_keeps_its_slot_until_it_has_stopped(
    driven: ServiceRegistry, clock: FakeClock, gates: Gates, overlap: Overlap
) -> None:
    """Its caller does not wait for that."""
    loops = service(driven, gates, overlap)
    call = loops.cleans_up.with_(timeout=5.0).submit()
    gates.wait("began")
    clock.advance(5.0)
    assert isinstance(call.exception(WAIT), CallTimeout)
    gates.wait("stopping")
    next_ = loops.plain.submit()
    assert (loops._record.lane.free, loops._record.lane.waiting) == (0, 1)
    gates.tell("may stop")
    assert next_.result(WAIT).startswith("grym-call")
    assert overlap.most == 1


def test_an_async_task_that_goes_on_although_it_was_cancelled_answers(
    loops: ServiceHandle, gates: Gates
) -> None:
    """Cancelling asks; the answer is the task's, as it is of a plain one."""
    call = loops.refuses.submit()
    gates.wait("began")
    assert call.cancel()
    assert call.result(WAIT) == "still here"


@pytest.mark.parametrize("times", [200])
def test_an_async_task_that_is_cancelled_as_it_begins_ends(
    loops: ServiceHandle, gates: Gates, times: int
) -> None:
    """Whether it has begun or not: the cancel is never lost, and no coroutine is left unawaited."""
    for _ in range(times):
        call = loops.waits.submit()
        frame = call._frame
        until(lambda: call.done() or (frame is not None and frame.instance is not None))  # noqa: B023
        call.cancel()
        assert isinstance(call.exception(WAIT), CallCancelled)
    until(lambda: loops._record.lane.free == 1)
    assert loops.state == "ready"


def test_track_ends_an_async_task_that_is_cancelled(loops: ServiceHandle, gates: Gates) -> None:
    """At its await or at its next step, whichever comes first."""
    call = loops.steps.submit(100)
    gates.wait("began")
    assert call.cancel()
    gates.tell("may go on")
    error = call.exception(WAIT)
    assert isinstance(error, CallCancelled)
    assert "at 2/100" in str(error)


# -- generators ------------------------------------------------------------------------------------


def test_generators_run_where_their_kind_does(loops: ServiceHandle, gates: Gates) -> None:
    """Read item by item here, or to their end on a worker."""
    assert list(loops.plain_parts(3)) == [0, 1, 2]
    assert list(loops.parts(2)) == [(0, "grym-loop"), (1, "grym-loop")]
    gates.wait("parts are over")
    assert loops.parts.submit(2).result(WAIT) == [(0, "grym-loop"), (1, "grym-loop")]
    assert loops.plain_parts.submit(3).result(WAIT) == [0, 1, 2]


@pytest.mark.parametrize("name", ["parts", "plain_parts"])
def test_a_generator_that_is_closed_early_cleans_up(loops: ServiceHandle, gates: Gates, name: str) -> None:
    """Its `finally` has run when `close` returns."""
    stream = getattr(loops, name)(5)
    next(stream)
    stream.close()
    assert gates[f"{name.replace('_', ' ')} are over"].is_set()
    assert (list(stream), loops._record.lane.free) == ([], 1)


def test_an_async_generator_that_is_cancelled_between_two_items_cleans_up(
    loops: ServiceHandle, registry: ServiceRegistry, gates: Gates
) -> None:
    """To the end of its `finally`, awaits included: cancelling is over by then."""
    stream = loops.parts(5)
    assert next(stream)[0] == 0
    [frame] = registry.running()
    frame.cancelled = True
    with pytest.raises(CallCancelled):
        next(stream)
    assert gates["parts are over"].is_set()
    assert loops._record.lane.free == 1


def test_an_async_generator_on_a_worker_is_cancelled_between_and_inside_its_steps(
    loops: ServiceHandle, gates: Gates
) -> None:
    """Like any other call."""
    call = loops.stuck_parts.submit()
    gates.wait("began")
    assert call.cancel()
    assert isinstance(call.exception(WAIT), CallCancelled)
    until(lambda: loops._record.lane.free == 1)
    assert loops.plain()


# -- the loop itself -------------------------------------------------------------------------------


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    """A loop of its own."""
    loop = LoopThread()
    yield loop
    assert outcome(start(loop.close, WAIT)) == ()
    assert names_of_threads("grym-loop") == []


def test_a_loop_runs_what_it_is_given_and_knows_its_own_thread(loop: LoopThread) -> None:
    """From any thread, several at once."""

    async def here(n: int) -> tuple[int, bool]:
        await asyncio.sleep(0)
        return n, loop.here

    assert not loop.here
    futures = [loop.submit(here(n)) for n in range(5)]
    assert [future.result(WAIT) for future in futures] == [(n, True) for n in range(5)]


def test_a_future_of_the_loop_can_be_cancelled(loop: LoopThread) -> None:
    """The coroutine is told at its await."""
    began, told = threading.Event(), threading.Event()

    async def wait() -> None:
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            told.set()

    future = loop.submit(wait())
    assert began.wait(WAIT)
    future.cancel()
    assert told.wait(WAIT)


def test_closing_cancels_what_runs_and_ends_the_thread(loop: LoopThread) -> None:
    """Twice changes nothing, and afterwards nothing is accepted, nor left unawaited."""
    began, told = threading.Event(), threading.Event()

    async def wait() -> None:
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            told.set()

    async def nothing() -> None: ...

    loop.submit(wait())
    assert began.wait(WAIT)
    assert outcome(start(loop.close, WAIT)) == ()
    assert told.is_set()
    assert (names_of_threads("grym-loop"), loop.close()) == ([], ())
    with pytest.raises((RuntimeError, GrymError), match="closed"):
        loop.submit(nothing())


def test_closing_names_a_loop_that_is_blocked(loop: LoopThread) -> None:
    """By a task that does not await; it ends with it."""
    began, go = threading.Event(), threading.Event()

    async def block() -> None:
        began.set()
        assert go.wait(WAIT)

    loop.submit(block())
    assert began.wait(WAIT)
    assert loop.close(0.01) == ("grym-loop",)
    thread = loop._thread
    assert thread is not None
    go.set()
    thread.join(WAIT)
    assert not thread.is_alive()


def test_a_loop_that_was_never_used_closes_without_having_begun() -> None:
    """No thread for nothing."""
    loop = LoopThread()
    assert (loop.close(), loop.close(), names_of_threads("grym-loop")) == ((), (), [])


def test_a_registry_closes_while_async_tasks_run(gates: Gates, overlap: Overlap) -> None:
    """They are cancelled once the time they were given is over; nothing runs afterwards."""
    registry = ServiceRegistry()
    loops = service(registry, gates, overlap)
    call = loops.waits.submit()
    gates.wait("began")
    assert outcome(start(registry.close, 0.01)) == ()
    assert isinstance(call.exception(WAIT), GrymError)
    assert names_of_threads() == []


def both(*calls: Callable[[], Any]) -> list[Any]:
    """Run these in threads of their own; return what came of them."""
    return [outcome(one) for one in [start(call) for call in calls]]


def test_async_and_plain_tasks_of_one_service_never_overlap(
    loops: ServiceHandle, gates: Gates, overlap: Overlap
) -> None:
    """The slot counts for both."""
    call = loops.cleans_up.submit()
    gates.wait("began")
    waiting = [start(loops.plain), start(lambda: loops.echo(3))]
    until(lambda: loops._record.lane.waiting == 2)
    call.cancel()
    gates.tell("may stop")
    told = [outcome(one) for one in waiting]
    assert (told[1], overlap.most) == (3, 1)
    assert both(loops.plain, lambda: loops.asks(3))[1] == 3
