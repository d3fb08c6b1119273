"""One call, from `submit` to whoever waits for it: results, deadlines, cancelling, Ctrl-C, progress."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from grym_nb.errors import (
    CallBlocked,
    CallCancelled,
    CallTimeout,
    GrymError,
    Interrupted,
    ServiceClosed,
    TaskFailed,
    ValidationError,
)
from grym_nb.events import CallEnded
from grym_nb.priority import priority_of
from grym_nb.services import Call, ModelService, ServiceHandle, ServiceRegistry, Task, TaskResult, task, track
from grym_nb.services.frame import CURRENT, Frame, Options, current_frame
from grym_nb.services.progress import Progress, on_progress
from grym_nb.settings import Settings
from grym_nb.testing import FakeClock
from tests.services.crowd import WAIT, Gates, all_at_once, outcome, passes, start, until

SECRET = "sk-very-secret"


class Work(ModelService):
    """Does whatever a test needs a task to do; `gates` say when."""

    def __init__(self, gates: Gates) -> None:
        self.gates = gates
        self.me: Any = None
        self.ran: list[Any] = []
        self.newest: Any = None

    @task
    def echo(self, x: Any = None) -> Any:
        self.ran.append(x)
        return x

    @task
    def gated(self, name: str = "it") -> str:
        """Tell that it runs, and run until it may end: deaf to everything else."""
        self.gates.tell(name)
        self.gates.wait(f"{name} may end")
        return name

    @task
    def loop(self, n: int = 1000, name: str = "it") -> int:
        """Tell that it runs, then look up at each step."""
        for i in track(range(n)):
            if i == 3:
                self.gates.tell(name)
                self.gates.wait(f"{name} may go on")
        return n

    @task
    def fails(self, message: str = "no") -> None:
        raise ValueError(message)

    @task
    async def later(self, x: Any = None, name: str = "it") -> Any:
        self.gates.tell(name)
        await asyncio.sleep(0)
        return x

    @task
    async def forever(self, name: str = "it") -> None:
        try:
            self.gates.tell(name)
            await asyncio.Event().wait()
        finally:
            self.gates.tell(f"{name} was stopped")

    @task
    def again(self, n: int, probe: Any) -> int:
        """Submit itself, and do not wait."""
        if n:
            self.newest = self.me.again.submit(n - 1, probe)
        else:
            self.gates.tell("the last one")
        return n

    @task
    def nested(self, name: str, seconds: float | None = None) -> Any:
        return self.me.loop.with_(timeout=seconds)(1000, name)


@pytest.fixture
def gates() -> Gates:
    """Events by name."""
    return Gates()


def service(registry: ServiceRegistry, gates: Gates, *, concurrency: int = 1) -> ServiceHandle:
    """Return a loaded service that knows its own handle."""
    handle = registry.register("work", Work, config={"gates": gates}, concurrency=concurrency)
    with handle.use() as model:
        model.me = handle
    return handle


@pytest.fixture
def work(registry: ServiceRegistry, gates: Gates) -> ServiceHandle:
    """A service on the real clock."""
    return service(registry, gates)


@pytest.fixture
def slow(driven: ServiceRegistry, gates: Gates) -> ServiceHandle:
    """A service whose time is the test's."""
    return service(driven, gates)


def busy(handle: ServiceHandle, gates: Gates, name: str = "busy") -> Call:
    """Take a slot and keep it until ``NAME may end`` is told."""
    call = handle.gated.submit(name)
    gates.wait(name)
    return call


def outcomes(handle: ServiceHandle) -> dict[str, int]:
    """Return how often calls ended in which way, `use()` left out."""
    counts: dict[str, int] = {}
    for ended in handle._registry.calls():
        if ended.task != "use":
            counts[ended.outcome] = counts.get(ended.outcome, 0) + 1
    return counts


def is_ready(handle: ServiceHandle, gates: Gates, *, slots: int = 1) -> bool:
    """Tell whether a service is as it was before anybody called it."""
    lane = handle._record.lane
    until(lambda: lane.free == slots and not handle._record.users)
    return handle.echo("still there") == "still there" and handle.state == "ready"


# -- results and errors ----------------------------------------------------------------------------


def test_a_call_is_a_future_of_what_the_task_returns(work: ServiceHandle) -> None:
    """`result`, `exception`, `done` and the outcome agree."""
    call = work.echo.submit({"a": 1})
    assert (call.result(WAIT), call.exception(), call.done()) == ({"a": 1}, None, True)
    assert (call.service, call.task, call.outcome and call.outcome.status) == ("work", "echo", "completed")
    assert isinstance(call, concurrent.futures.Future)


def test_each_waiter_gets_an_error_of_its_own_without_frames(work: ServiceHandle, gates: Gates) -> None:
    """Equal and not the same: what one of them adds to it, no other sees."""
    held = busy(work, gates)
    call = work.fails.submit("broken")
    line = threading.Barrier(9)

    def wait(i: int) -> BaseException:
        line.wait(WAIT)
        with pytest.raises(TaskFailed) as caught:
            call.result(WAIT)
        caught.value.add_note(f"seen by {i}")
        return caught.value

    waiting = [start(wait, i) for i in range(8)]
    line.wait(WAIT)
    gates.tell("busy may end")
    errors = [outcome(one) for one in waiting]
    assert len({id(error) for error in errors}) == 8
    assert {str(error) for error in errors} == {str(call.exception())}
    assert "work.fails raised ValueError: broken" in str(errors[0])
    assert call.exception().__traceback__ is None  # type: ignore[union-attr]
    assert held.result(WAIT) == "busy"
    notes = [[note for note in error.__notes__ if note.startswith("seen")] for error in errors]
    assert notes == [[f"seen by {i}"] for i in range(8)]


@pytest.mark.parametrize("timeout", ["1", -1, float("nan")])
def test_a_limit_of_a_wait_that_is_none_is_refused(work: ServiceHandle, timeout: Any) -> None:
    """Before anything is waited for, or unloaded."""
    call = work.echo.submit(1)
    for wait in (call.result, call.exception, work.unload):
        with pytest.raises(ValidationError, match=r"timeout: found .*, expected seconds from 0"):
            wait(timeout=timeout)
    assert (call.result(timeout=float("inf")), call.result(timeout=0), work.state) == (1, 1, "ready")


def test_a_wait_that_is_too_short_leaves_the_call_alone(work: ServiceHandle, gates: Gates) -> None:
    """`result(timeout=)` bounds the wait, `with_(timeout=)` the call."""
    call = busy(work, gates)
    for wait in (call.result, call.exception):
        with pytest.raises(TimeoutError, match="has not ended yet"):
            wait(0.001)
    assert not call.done()
    gates.tell("busy may end")
    assert call.result(WAIT) == "busy"


def test_callbacks_are_called_once_with_the_call_however_it_ends(work: ServiceHandle, gates: Gates) -> None:
    """Before or after it ended; one that raises is logged by the future and felt by nobody."""
    told: list[tuple[str, bool]] = []
    held = busy(work, gates)
    calls = [work.echo.submit(1), work.fails.submit(), work.echo.submit(2)]
    for name, call in zip("abc", calls, strict=True):
        call.add_done_callback(lambda done, name=name: told.append((name, done.done())))  # type: ignore[misc]
    calls[2].cancel()
    assert told == [("c", True)]
    gates.tell("busy may end")
    held.result(WAIT)
    until(lambda: len(told) == 3)
    assert sorted(told) == [("a", True), ("b", True), ("c", True)]
    calls[0].add_done_callback(lambda done: told.append(("late", done.done())))
    assert told[-1] == ("late", True)


@pytest.mark.parametrize("how", ["result", "wait"])
def test_a_callback_may_wait_for_the_next_call(work: ServiceHandle, gates: Gates, how: str) -> None:
    """The worker that frees the slot goes on with the next call: it must not keep it while it calls back."""
    held = busy(work, gates)
    first, second = work.echo.submit(1), work.echo.submit(2)
    seen: list[Any] = []
    told = threading.Event()

    def back(call: Any) -> None:
        if how == "result":
            seen.append(second.result(5.0))
        else:
            seen.append(len(concurrent.futures.wait([second], timeout=5.0).done))
        told.set()

    first.add_done_callback(back)
    gates.tell("busy may end")
    passes(told)
    assert (held.result(WAIT), seen) == ("busy", [2] if how == "result" else [1])


def test_concurrent_futures_and_calls_mix(work: ServiceHandle) -> None:
    """`wait` and `as_completed` take calls beside other futures."""
    calls = [work.echo.submit(i) for i in range(20)] + [work.fails.submit("no")]
    plain: concurrent.futures.Future[int] = concurrent.futures.Future()
    plain.set_result(-1)
    done, left = concurrent.futures.wait([*calls, plain], timeout=WAIT)
    assert (len(done), left) == (22, set())
    values = []
    for future in concurrent.futures.as_completed([*calls, plain], timeout=WAIT):
        error = future.exception()
        values.append(future.result() if error is None else type(error).__name__)
    assert sorted(map(str, values)) == sorted(map(str, [*range(20), "TaskFailed", -1]))


def test_first_exception_ends_a_wait(work: ServiceHandle, gates: Gates) -> None:
    """The way `concurrent.futures` has it."""
    failing = work.fails.submit()
    held = work.gated.submit("busy")
    done, left = concurrent.futures.wait(
        [failing, held], timeout=WAIT, return_when=concurrent.futures.FIRST_EXCEPTION
    )
    assert (done, left) == ({failing}, {held})
    gates.tell("busy may end")


# -- repr ------------------------------------------------------------------------------------------


def test_the_repr_says_how_far_it_is_in_every_state(work: ServiceHandle, gates: Gates) -> None:
    """Waiting, running, at which step, done, failed, cancelled, late."""
    held = busy(work, gates)
    waiting = work.loop.submit()
    calls = [work.echo.submit("x" * 500), work.fails.submit(), work.echo.submit()]
    calls[2].cancel()

    def told(call: Call) -> str:
        assert repr(call).startswith(f"<Call {call.id} work.{call.task}, ")
        return repr(call)[:-1].split(", ", 1)[1]

    assert (told(held), told(waiting), told(calls[2])) == ("running", "waiting", "failed: CallCancelled")
    gates.tell("busy may end")
    gates.wait("it")
    assert told(waiting) == "running 3/1000"
    gates.tell("it may go on")
    assert (waiting.result(WAIT), told(waiting), told(held)) == (1000, "done: 1000", "done: 'busy'")
    concurrent.futures.wait(calls, timeout=WAIT)
    assert told(calls[0]).startswith("done: 'xxx") and len(repr(calls[0])) < 120
    assert told(calls[1]) == "failed: TaskFailed"


# -- deadlines -------------------------------------------------------------------------------------


def test_a_call_that_expires_in_line_ends_there_and_never_runs(
    slow: ServiceHandle, gates: Gates, clock: FakeClock
) -> None:
    """It says for what it waited."""
    held = busy(slow, gates)
    late = slow.echo.with_(timeout=5.0).submit("late")
    assert not late.done()
    clock.advance(5.0)
    error = late.exception(WAIT)
    assert isinstance(error, CallTimeout) and isinstance(error, TimeoutError)
    assert error.message == "work.echo timed out after 5 s"
    assert error.cause.startswith("it was waiting for a slot of work, held by work.gated (call ")
    assert slow._record.lane.waiting == 0
    gates.tell("busy may end")
    assert held.result(WAIT) == "busy"
    with slow.use() as model:
        assert model.ran == []
    assert outcomes(slow) == {"ok": 1, "call.timeout": 1}
    assert late.outcome is not None and late.outcome.status == "timeout"
    assert is_ready(slow, gates)


def test_a_call_that_expires_while_it_runs_keeps_its_slot_until_the_work_ends(
    slow: ServiceHandle, gates: Gates, clock: FakeClock
) -> None:
    """The caller is free at once; the next call is not let in beside what still computes."""
    call = slow.gated.with_(timeout=5.0).submit("it")
    gates.wait("it")
    next_ = slow.echo.submit("next")
    clock.advance(5.1)
    assert isinstance(call.exception(WAIT), CallTimeout)
    assert (slow._record.lane.free, slow._record.lane.waiting, next_.done()) == (0, 1, False)
    assert "stuck" in repr(slow.status())
    gates.tell("it may end")
    assert next_.result(WAIT) == "next"
    assert outcomes(slow)["call.timeout"] == 1
    assert is_ready(slow, gates)


def test_a_loop_ends_at_its_next_step_once_its_deadline_is_past(
    slow: ServiceHandle, gates: Gates, clock: FakeClock
) -> None:
    """And is seen once, as a timeout, by the figures and by whoever listens."""
    seen: list[CallEnded] = []
    slow._record.ports.events.subscribe(seen.append, CallEnded)
    call = slow.loop.with_(timeout=5.0).submit()
    gates.wait("it")
    clock.advance(5.0)
    error = call.exception(WAIT)
    assert isinstance(error, CallTimeout)
    assert error.message == "work.loop timed out after 5 s at 3/1000"
    assert error.hint.startswith("it runs on until its next track() step, or await; others wait")
    gates.tell("it may go on")
    assert is_ready(slow, gates)
    assert [(event.task, event.outcome) for event in seen] == [("loop", "call.timeout"), ("echo", "ok")]
    assert slow.metrics().errors == {"call.timeout": 1}


def test_a_blocking_call_with_a_timeout_is_bounded_too(
    slow: ServiceHandle, gates: Gates, clock: FakeClock
) -> None:
    """`handle.task.with_(timeout=)(...)`, in whatever thread."""
    running = start(slow.gated.with_(timeout=5.0))
    gates.wait("it")
    clock.until_waiting(1)
    clock.advance(4.9)
    assert not running.done()
    clock.advance(0.1)
    assert isinstance(outcome(running), CallTimeout)
    gates.tell("it may end")
    assert is_ready(slow, gates)


def test_a_deadline_bounds_what_the_call_calls(slow: ServiceHandle, gates: Gates, clock: FakeClock) -> None:
    """A nested call has what is left, never more."""
    call = slow.nested.with_(timeout=5.0).submit("inner", 60.0)
    gates.wait("inner")
    clock.advance(5.0)
    assert isinstance(call.exception(WAIT), CallTimeout)
    gates.tell("inner may go on")
    assert is_ready(slow, gates)


def test_an_async_call_that_expires_is_stopped(slow: ServiceHandle, gates: Gates, clock: FakeClock) -> None:
    """At its `await`, and it is seen as a timeout, not as a cancelled call."""
    call = slow.forever.with_(timeout=5.0).submit()
    gates.wait("it")
    clock.advance(5.0)
    assert isinstance(call.exception(WAIT), CallTimeout)
    gates.wait("it was stopped")
    assert is_ready(slow, gates)
    assert slow.metrics().errors == {"call.timeout": 1}


def test_a_call_that_ends_in_time_leaves_no_timer_behind(slow: ServiceHandle, gates: Gates) -> None:
    """However quickly: a deadline in an hour does not keep the answer for an hour."""

    class Answer:
        pass

    answers = []
    for _ in range(200):
        answer = Answer()
        answers.append(weakref.ref(answer))
        assert slow.echo.with_(timeout=3600.0).submit(answer).result(WAIT) is answer
    with slow.use() as model:
        model.ran.clear()
    del answer
    gc.collect()
    until(lambda: "0 scheduled" in repr(slow._record.ports.pulse))
    assert [ref() for ref in answers if ref() is not None] == []


@pytest.mark.parametrize(
    "wrong", [{"priority": "urgent"}, {"timeout": -1}, {"retries": 0.5}, {"type": 3}, {"dta": 1}]
)
def test_a_task_that_could_never_run_is_refused_when_it_is_made(wrong: dict[str, Any]) -> None:
    """Said here, and not where it would be submitted."""
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Task(**{"type": "echo"} | wrong)


@pytest.mark.parametrize("timeout", [0, -1, "5", float("nan")])
def test_a_timeout_is_seconds_above_zero(work: ServiceHandle, timeout: Any) -> None:
    """Checked where it is said."""
    with pytest.raises(ValidationError, match=r"timeout: found .*, expected seconds above 0"):
        work.echo.with_(timeout=timeout)


def test_options_are_checked_all_at_once() -> None:
    """Priorities by name or clamped number, retries as a whole number."""
    assert Options.of(5, "high", 2) == Options(5, 2, 2)
    assert [priority_of(p) for p in ("low", "normal", "high", "critical", -5, 2, 99)] == [0, 1, 2, 3, 0, 2, 3]
    with pytest.raises(ValidationError) as caught:
        Options.of(0, "normal", True)
    assert [problem.path for problem in caught.value.problems] == ["timeout", "retries"]
    for wrong in ("urgent", 1.5, None, True):
        with pytest.raises(ValidationError, match="priority"):
            priority_of(wrong)  # type: ignore[arg-type]


# -- cancelling ------------------------------------------------------------------------------------


def test_a_call_cancelled_in_line_never_runs(work: ServiceHandle, gates: Gates) -> None:
    """It ends at once; cancelling it again, or after its end, is False."""
    held = busy(work, gates)
    call = work.echo.submit("never")
    assert (call.cancel(), call.cancel(), call.done()) == (True, False, True)
    with pytest.raises(CallCancelled, match=r"work\.echo was cancelled"):
        call.result()
    gates.tell("busy may end")
    assert (held.result(WAIT), held.cancel()) == ("busy", False)
    with work.use() as model:
        assert model.ran == []
    assert outcomes(work) == {"ok": 1, "call.cancelled": 1}
    assert is_ready(work, gates)


def test_a_loop_that_is_cancelled_ends_at_its_next_step(work: ServiceHandle, gates: Gates) -> None:
    """And says how far it came."""
    call = work.loop.submit()
    gates.wait("it")
    assert call.cancel()
    gates.tell("it may go on")
    error = call.exception(WAIT)
    assert isinstance(error, CallCancelled)
    assert error.message == "work.loop was cancelled at 4/1000"
    assert call.outcome is not None and call.outcome.status == "cancelled"
    assert is_ready(work, gates)


def test_what_does_not_look_up_ends_as_it_would(work: ServiceHandle, gates: Gates) -> None:
    """Cancelling asks; code that never hears of it returns its value."""
    call = busy(work, gates)
    assert call.cancel()
    gates.tell("busy may end")
    assert call.result(WAIT) == "busy"


def test_an_async_call_is_cancelled_at_its_await(work: ServiceHandle, gates: Gates) -> None:
    """Its clean-up runs, and only then is the slot given back."""
    call = work.forever.submit()
    gates.wait("it")
    assert call.cancel()
    assert isinstance(call.exception(WAIT), CallCancelled)
    gates.wait("it was stopped")
    assert is_ready(work, gates)


def test_a_nested_call_is_cancelled_with_the_one_that_made_it(work: ServiceHandle, gates: Gates) -> None:
    """At its next step."""
    call = work.nested.submit("inner")
    gates.wait("inner")
    call.cancel()
    gates.tell("inner may go on")
    assert isinstance(call.exception(WAIT), CallCancelled)
    assert is_ready(work, gates)


def test_cancelling_wins_or_loses_against_the_slot_but_never_both(work: ServiceHandle, gates: Gates) -> None:
    """Two hundred races: a call that says it was cancelled in line did not run, and nothing is lost."""
    for n in range(200):
        name = f"busy {n}"
        busy(work, gates, name)
        call = work.echo.submit(n)
        line = threading.Barrier(2)
        ending = start(lambda: (line.wait(WAIT), gates.tell(f"{name} may end")))  # noqa: B023
        line.wait(WAIT)
        call.cancel()
        error = call.exception(WAIT)
        outcome(ending)
        with work.use() as model:
            assert (n in model.ran) == (error is None)
    assert is_ready(work, gates)


def test_what_is_cancelled_in_line_does_not_begin_as_it_is_told_so(work: ServiceHandle, gates: Gates) -> None:
    """Its slot comes free between the moment at which it is seen to wait and the one at which it is out."""
    busy(work, gates)

    def comes_free(event: CallEnded) -> None:
        if event.call == f"call-{cancelled.id}":
            gates.tell("busy may end")
            assert work.echo.submit("next in line").result(WAIT) == "next in line"

    cancelled = work.echo.submit("cancelled")
    work._record.ports.events.subscribe(comes_free, CallEnded)
    assert cancelled.cancel()
    assert isinstance(cancelled.exception(WAIT), CallCancelled)
    with work.use() as model:
        assert model.ran[-1:] == ["next in line"] and "cancelled" not in model.ran


def test_an_answer_that_is_there_is_not_lost_to_a_cancel_that_comes_after_it(
    work: ServiceHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call has given its slot back, and is not settled yet."""
    lane, leave = work._record.lane, work._record.lane.leave

    def left(frame: Frame) -> None:
        leave(frame)
        if (call := frame.call) is not None:
            call.cancel()

    monkeypatch.setattr(lane, "leave", left)
    assert work.echo.submit("there").result(WAIT) == "there"


def test_a_call_is_seen_once_however_it_ends(work: ServiceHandle, gates: Gates) -> None:
    """By the log, the figures and the events: ok, failed, cancelled in line, refused arguments."""
    seen: list[CallEnded] = []
    work._record.ports.events.subscribe(seen.append, CallEnded)
    before = len(work._registry.calls())
    held = busy(work, gates)
    cancelled = work.echo.submit()
    cancelled.cancel()
    gates.tell("busy may end")
    held.result(WAIT)
    work.echo()
    work.echo.submit().result(WAIT)
    for fail in (lambda: work.fails(), lambda: work.fails.submit().result(WAIT), lambda: work.echo(1, 2)):
        with pytest.raises(GrymError):
            fail()
    until(lambda: len(seen) == 7)
    expected = ["call.cancelled", "ok", "ok", "ok", "task.failed", "task.failed", "validation"]
    assert [event.outcome for event in seen] == expected
    assert [ended.outcome for ended in work._registry.calls()[before:]] == expected
    assert len({event.call for event in seen}) == 7


# -- asyncio ---------------------------------------------------------------------------------------


def in_a_loop(main: Callable[[], Any]) -> Any:
    """Run a coroutine in a loop of its own, in a thread that is given up when it does not end."""
    return outcome(start(lambda: asyncio.run(main())))


def test_a_call_is_awaited_gathered_and_bounded_like_any_awaitable(work: ServiceHandle, gates: Gates) -> None:
    """On any loop; several awaits of one call each get its answer."""

    async def main() -> list[Any]:
        call = work.echo.submit(1)
        told = [await call, await call]
        told += await asyncio.gather(*(work.echo.submit(i) for i in range(5)), work.later.submit("async"))
        told.append(await asyncio.wait_for(work.echo.submit("bounded"), WAIT))
        error = (await asyncio.gather(work.fails.submit(), return_exceptions=True))[0]
        told.append(type(error))
        async with asyncio.timeout(WAIT):
            told += [await first for first in asyncio.as_completed([work.echo.submit("completed")])]
        return told

    assert in_a_loop(main) == [1, 1, 0, 1, 2, 3, 4, "async", "bounded", TaskFailed, "completed"]


def test_a_thousand_calls_are_awaited_at_once(work: ServiceHandle) -> None:
    """And all of them answer."""

    async def main() -> list[int]:
        return await asyncio.gather(*(work.echo.submit(i) for i in range(1000)))

    assert in_a_loop(main) == list(range(1000))


def test_awaiting_leaves_the_loop_free(work: ServiceHandle, gates: Gates) -> None:
    """Something else runs on it meanwhile."""

    async def main() -> list[str]:
        order = []

        async def other() -> None:
            await asyncio.to_thread(gates.wait, "it")
            order.append("other")
            gates.tell("it may end")

        beside = asyncio.create_task(other())
        order.append(await work.gated.submit())
        await beside
        return order

    assert in_a_loop(main) == ["other", "it"]


def test_cancelling_the_task_that_awaits_cancels_the_call(work: ServiceHandle, gates: Gates) -> None:
    """In line or running; the other waiter of the call is told so."""

    async def main() -> list[Any]:
        held = work.loop.submit()
        await asyncio.to_thread(gates.wait, "it")
        queued = work.echo.submit("never")
        told: list[Any] = []
        for call in (queued, held):

            async def wait(call: Call = call) -> None:
                await call

            waiting = asyncio.create_task(wait())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            told.append(call.done())
        gates.tell("it may go on")
        for call in (queued, held):
            told.append(type(await asyncio.to_thread(call.exception, WAIT)))
        return told

    assert in_a_loop(main) == [True, False, CallCancelled, CallCancelled]
    assert is_ready(work, gates)


def test_a_cancelled_call_raises_our_error_into_an_await(work: ServiceHandle, gates: Gates) -> None:
    """Not asyncio's, which would look as if the loop were shutting down."""

    async def main() -> type:
        call = work.echo.submit()
        call.cancel()
        with pytest.raises(CallCancelled) as caught:
            await call
        return caught.type

    held = busy(work, gates)
    assert in_a_loop(main) is CallCancelled
    gates.tell("busy may end")
    held.result(WAIT)


def test_a_timeout_of_asyncio_cancels_the_call(work: ServiceHandle, gates: Gates) -> None:
    """`wait_for` gives up, and so does the call."""

    async def main() -> None:
        call = work.forever.submit()
        await asyncio.to_thread(gates.wait, "it")  # one that has not begun has nothing to be stopped
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call, 0.01)

    in_a_loop(main)
    gates.wait("it was stopped")
    assert is_ready(work, gates)


def test_blocking_on_the_private_loop_is_refused(registry: ServiceRegistry) -> None:
    """An async task that blocks for a call would stop the loop it runs on: it is told to await."""

    class Blocks(ModelService):
        me: Any = None

        @task
        async def blocks(self) -> Any:
            return self.me.slow.submit().result(WAIT)

        @task
        async def slow(self) -> int:
            return 1

    handle = registry.register("blocks", Blocks)
    with handle.use() as model:
        model.me = handle
    with pytest.raises(CallBlocked, match=r"await handle\.slow\.submit\(\.\.\.\)"):
        handle.blocks()
    assert handle.slow() == 1


# -- Ctrl-C ----------------------------------------------------------------------------------------


def test_ctrl_c_in_a_call_in_this_thread_unwinds_at_once(
    work: ServiceHandle, gates: Gates, ctrl_c: Callable[[Any], None]
) -> None:
    """It says how far it came, is not swallowed by `except Exception`, and the service is ready."""
    ctrl_c(lambda: gates.wait("it"))
    with pytest.raises(Interrupted) as caught:
        work.loop()
    assert caught.value.message == "work.loop interrupted at 3/1000; the service is still ready"
    assert isinstance(caught.value, KeyboardInterrupt) and not isinstance(caught.value, Exception)
    assert outcomes(work) == {"interrupted": 1}
    assert is_ready(work, gates)


def test_ctrl_c_while_waiting_for_a_worker_cancels_the_call(
    slow: ServiceHandle, gates: Gates, clock: FakeClock, ctrl_c: Callable[[Any], None]
) -> None:
    """A queued call ends at once."""
    held = busy(slow, gates)
    call = slow.echo.submit("never")
    ctrl_c(lambda: clock.until_waiting(1))
    with pytest.raises(Interrupted, match=r"work\.echo cancelled; the service is still ready"):
        call.result()
    assert (call.done(), held.done()) == (True, False)
    gates.tell("busy may end")
    assert is_ready(slow, gates)


def test_ctrl_c_ends_a_loop_on_a_worker_at_its_next_step(
    slow: ServiceHandle, gates: Gates, clock: FakeClock, ctrl_c: Callable[[Any], None]
) -> None:
    """Within the two seconds in which we wait for it."""
    call = slow.loop.submit()

    def when() -> None:
        gates.wait("it")
        clock.until_waiting(1)

    call_frame = call._frame
    assert call_frame is not None
    ctrl_c(when)
    # The loop goes on as soon as it is asked to stop.
    start(lambda: (until(lambda: call_frame.cancelled), gates.tell("it may go on")))
    with pytest.raises(Interrupted, match=r"work\.loop cancelled at \d/1000; the service is still ready"):
        call.result()
    assert is_ready(slow, gates)


def test_ctrl_c_does_not_wait_for_ever_for_what_does_not_look_up(
    clock: FakeClock, gates: Gates, ctrl_c: Callable[[Any], None]
) -> None:
    """After `interrupt_seconds` it says that the call still runs, and how to let go of it."""
    registry = ServiceRegistry(clock=clock, settings=Settings(interrupt_seconds=0.01))
    handle = service(registry, gates)
    call = busy(handle, gates)
    ctrl_c(lambda: clock.until_waiting(1))
    with pytest.raises(Interrupted) as caught:
        call.result()
    assert "work.gated asked to stop; it is still running" in str(caught.value)
    assert "%grym unload work" in str(caught.value)
    assert not call.done()
    gates.tell("busy may end")
    assert call.result(WAIT) == "busy"
    assert is_ready(handle, gates)
    assert outcome(start(registry.close, 10.0)) == ()


def test_ctrl_c_in_an_async_call_stops_it(
    slow: ServiceHandle, gates: Gates, clock: FakeClock, ctrl_c: Callable[[Any], None]
) -> None:
    """On the private loop."""

    def when() -> None:
        gates.wait("it")
        clock.until_waiting(1)

    ctrl_c(when)
    with pytest.raises(Interrupted, match=r"work\.forever cancelled"):
        slow.forever()
    gates.wait("it was stopped")
    assert is_ready(slow, gates)


def test_ctrl_c_while_waiting_for_the_slot_leaves_the_line(
    slow: ServiceHandle, gates: Gates, clock: FakeClock, ctrl_c: Callable[[Any], None]
) -> None:
    """A blocking call that could not run here waits for a worker's answer: it is withdrawn."""
    held = busy(slow, gates)
    ctrl_c(lambda: clock.until_waiting(1))
    with pytest.raises(Interrupted):
        slow.echo("never")
    assert slow._record.lane.waiting == 0
    gates.tell("busy may end")
    assert held.result(WAIT) == "busy"
    with slow.use() as model:
        assert model.ran == []
    assert is_ready(slow, gates)


# -- track -----------------------------------------------------------------------------------------


def test_track_yields_everything_and_tells_progress(work: ServiceHandle, registry: ServiceRegistry) -> None:
    """The title, the total where there is a length, and the count behind each item."""

    class Tracks(ModelService):
        @task
        def known(self) -> list[Any]:
            return [(i, str(progress())) for i in track([10, 20])]

        @task
        def unknown(self) -> list[Any]:
            return [(i, str(progress())) for i in track(iter([10, 20]))]

        @task
        def titled(self) -> list[Any]:
            return [(i, str(progress())) for i in track((x for x in "ab"), total=5, title="files")]

    def progress() -> tuple[Any, ...]:
        frame = current_frame()
        assert frame is not None and frame.progress is not None
        told = frame.progress
        return told.title, told.total, told.told

    tracks = registry.register("tracks", Tracks)
    assert tracks.known() == [(10, "('tracks.known', 2, '0/2')"), (20, "('tracks.known', 2, '1/2')")]
    assert tracks.unknown() == [
        (10, "('tracks.unknown', None, '0')"),
        (20, "('tracks.unknown', None, '1')"),
    ]
    assert tracks.titled() == [("a", "('files', 5, '0/5')"), ("b", "('files', 5, '1/5')")]


def test_track_outside_of_a_call_just_yields() -> None:
    """And is lazy: nothing is taken before it is asked for."""
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in range(3):
            taken.append(i)
            yield i

    steps = track(items())
    assert taken == []
    assert (next(steps), taken) == (0, [0])
    assert list(steps) == [1, 2]
    assert list(track([])) == []
    assert current_frame() is None


def test_progress_has_an_eta_once_there_is_a_pace() -> None:
    """Not before the first step, and not without a total: no made-up number."""
    progress = Progress("x", 10, 100.0)
    assert (progress.eta(105.0), progress.told) == (None, "0/10")
    progress.done = 4
    assert (progress.eta(108.0), progress.told) == (12.0, "4/10")
    assert Progress("x", None, 0.0, done=3).eta(1.0) is None


def test_progress_is_shown_in_the_main_thread_until_it_is_undone() -> None:
    """The last step always; from another thread never."""
    seen: list[str] = []
    undo = on_progress(lambda progress: seen.append(progress.told))
    try:
        assert list(track(range(3))) == [0, 1, 2]
        in_main = threading.current_thread() is threading.main_thread()
        assert seen == (["3/3"] if in_main else [])
        outcome(start(lambda: list(track(range(3)))))
        assert seen == (["3/3"] if in_main else [])
    finally:
        undo()
        undo()
    list(track(range(3)))
    assert seen == (["3/3"] if in_main else [])


# -- chains that never end -------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [False, True], ids=["nothing kept", "first and last call kept"])
def test_a_task_that_submits_itself_for_ever_keeps_nothing_alive(
    work: ServiceHandle, gates: Gates, keep: bool
) -> None:
    """Two thousand links: the frames and arguments of those that ended are gone."""

    class Probe:
        pass

    probe = Probe()
    ref = weakref.ref(probe)
    first = work.again.submit(2000, probe)
    gates.wait("the last one")
    assert is_ready(work, gates)
    assert first.result(WAIT) == 2000
    with work.use() as model:
        kept = (first, model.newest) if keep else None
        model.newest = None
    del first, probe
    gc.collect()
    frames = [thing for thing in gc.get_objects() if type(thing) is Frame]
    calls = [thing for thing in gc.get_objects() if type(thing) is Call]
    assert (ref(), len(frames) < 20, len(calls) < 20) == (None, True, True), (len(frames), len(calls))
    assert kept is None or kept[1].result() == 0


def test_a_call_that_is_kept_keeps_neither_the_model_nor_the_arguments(work: ServiceHandle) -> None:
    """What a notebook has in `Out` costs the result and nothing else."""

    class Probe:
        pass

    probe = Probe()
    ref = weakref.ref(probe)
    with work.use() as model:
        model_ref = weakref.ref(model)
        model.ran = _Forgetful()
    del model
    calls = [work.echo.submit(x=[probe]), work.fails.submit(f"{probe}")]
    concurrent.futures.wait(calls, timeout=WAIT)
    calls[0]._result = None  # the task gave its argument back
    results = [call.outcome for call in calls]
    assert all(results)
    del probe, results
    work._record.ports.failures.clear()
    work.unload()
    gc.collect()
    assert (ref(), model_ref()) == (None, None)
    assert CURRENT.get() is None


class _Forgetful(list[Any]):
    """A list that keeps nothing."""

    def append(self, item: Any) -> None: ...


# -- tasks and their results -----------------------------------------------------------------------


def test_a_result_says_what_came_of_a_task_and_where_from(
    slow: ServiceHandle, clock: FakeClock, gates: Gates
) -> None:
    """Data, times, provenance and the caller's own metadata."""
    told = slow.execute(Task("echo", 3, metadata={"mine": 1}, id="task-x"))
    assert (told.id, told.success, told.status, told.data, told.error) == (
        "task-x",
        True,
        "completed",
        3,
        None,
    )
    assert told.metadata == {"duration": 0.0, "queued": 0.0, "task": "echo", "mine": 1}
    assert told.provenance is not None
    made = told.provenance
    assert (made.service, made.version, made.config_version, made.started, made.ended) == (
        "work", "v1", 1, 1000.0, 1000.0,
    )  # fmt: skip
    with pytest.raises(FrozenInstanceError):
        told.data = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    "asked, status, kind",
    [
        (Task("fails", "broken"), "failed", TaskFailed),
        (Task("no.such.task"), "failed", GrymError),
        (Task("echo", 1, {"y": 2}), "failed", ValidationError),
    ],
)
def test_execute_never_raises_for_a_task_that_fails(
    work: ServiceHandle, asked: Task, status: str, kind: type
) -> None:
    """The result says so, under the task's id, and its error has no frame."""
    told = work.execute(asked)
    assert isinstance(told, TaskResult)
    assert (told.id, told.success, told.status, told.data) == (asked.id, False, status, None)
    assert isinstance(told.error, kind)
    assert told.error.__traceback__ is None
    assert repr(told).startswith(f"TaskResult({status}, error=")


def test_tasks_have_ids_of_their_own_and_short_reprs() -> None:
    """A list of a million samples is told by its length."""
    one, other = Task("audio.mel", list(range(10**6)), {"rate": 16000}), Task("audio.mel")
    assert one.id != other.id
    assert repr(one) == f"Task('audio.mel', list of 1000000, rate=16000, id={one.id!r})"


def test_secrets_are_not_shown_by_tasks_and_results(registry: ServiceRegistry) -> None:
    """Their reprs are committed with notebooks."""

    class Asks(ModelService):
        @task
        def ask(self, question: str, *, token: str = "", more: Any = None) -> str:
            return question

    asked = Task("ask", "q", {"token": SECRET, "more": {"api_key": SECRET}})
    told = registry.register("asks", Asks).execute(asked)
    for shown in (repr(asked), repr(told), told._repr_html_()):
        assert SECRET not in shown


def test_a_submitted_call_after_the_end_of_its_service_is_refused(
    registry: ServiceRegistry, work: ServiceHandle
) -> None:
    """At once, and counted."""
    registry.remove("work")
    with pytest.raises(ServiceClosed):
        work.echo.submit()
    with pytest.raises(ServiceClosed):
        work.echo()


def test_many_threads_submit_wait_and_cancel(registry: ServiceRegistry, gates: Gates) -> None:
    """Whatever they do to a hundred calls each, all calls end and the service is ready."""
    handle = service(registry, gates, concurrency=2)

    def hammer(i: int) -> int:
        ended = 0
        for n in range(100):
            call = [handle.echo, handle.later, handle.fails][(i + n) % 3].submit(str(n))
            if n % 4 == 0:
                call.cancel()
            if n % 2:
                call.add_done_callback(lambda call: call.exception())
            error = call.exception(WAIT)
            ended += error is None or isinstance(error, (TaskFailed, CallCancelled))
        return ended

    assert all_at_once(8, hammer) == [100] * 8
    assert is_ready(handle, gates, slots=2)
    assert handle._record.lane.frames() == []


in_flight: ContextVar[str] = ContextVar("in_flight", default="nobody")


def test_a_call_sees_the_context_of_who_made_it(registry: ServiceRegistry) -> None:
    """Inline, submitted and async; what it sets there stays its own."""

    class Sees(ModelService):
        @task
        def plain(self) -> str:
            before = in_flight.get()
            in_flight.set("task")
            return before

        @task
        async def later(self) -> str:
            before = in_flight.get()
            in_flight.set("task")
            await asyncio.sleep(0)
            return before

    sees = registry.register("sees", Sees)
    token = in_flight.set("caller")
    try:
        assert (sees.plain.submit().result(WAIT), sees.later(), in_flight.get()) == (
            "caller",
            "caller",
            "caller",
        )
    finally:
        in_flight.reset(token)


# -- what may go wrong at the end ------------------------------------------------------------------


class Unbound:
    """A proxy that is bound to nothing yet: it raises whatever it is asked."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("not bound")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("not bound")


def test_a_stranger_among_the_arguments_does_not_keep_a_call_from_ending(work: ServiceHandle) -> None:
    """Neither for who waits nor for who awaits; the result is there as well."""

    async def awaited() -> Any:
        return await asyncio.wait_for(work.echo.submit(x=Unbound()), WAIT)

    assert type(asyncio.run(awaited())) is Unbound
    told = work.execute(Task("echo", params={"x": Unbound()}))
    assert told.success and type(told.data) is Unbound


def test_whatever_looking_at_its_end_raises_who_waits_is_told(
    work: ServiceHandle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The call has ended, and its result says as much as can be said."""

    def broken(frame: Frame) -> Any:
        raise RuntimeError("cannot look")

    call = work.gated.submit("held")
    monkeypatch.setattr(call, "_outcome_of", broken)
    work._record.instance.model.gates.tell("it may end")  # type: ignore[union-attr]
    work._record.instance.model.gates.tell("held may end")  # type: ignore[union-attr]
    assert call.result(WAIT) == "held"
    assert call.outcome is not None and (call.outcome.data, call.outcome.provenance) == ("held", None)
    assert "was not seen in full" in caplog.text


def test_a_loop_that_was_closed_under_an_await_cancels_the_call(work: ServiceHandle, gates: Gates) -> None:
    """The coroutine is collected after its loop is gone."""
    loop = asyncio.new_event_loop()
    call = work.loop.submit()
    gates.wait("it")

    async def waits() -> None:
        await call

    task_ = loop.create_task(waits())
    loop.run_until_complete(asyncio.sleep(0))
    coroutine = task_.get_coro()
    assert coroutine is not None
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    coroutine.close()  # type: ignore[union-attr]
    gates.tell("it may go on")
    assert isinstance(call.exception(WAIT), CallCancelled)


def test_calls_on_two_loops_in_turn_are_told_on_each(work: ServiceHandle) -> None:
    """What ticks belongs to the loop that runs, not to the one before it."""

    async def three() -> list[Any]:
        return list(await asyncio.gather(*(work.echo.submit(i) for i in range(3))))

    for _ in range(3):
        assert asyncio.run(three()) == [0, 1, 2]


def test_ctrl_c_in_the_middle_of_pythons_own_wait_is_ctrl_c(
    slow: ServiceHandle, gates: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two steps of `Condition.wait` it leaves the lock, and the `with` around it says so instead."""

    class Cut(threading.Condition):
        cut = False

        def wait(self, timeout: float | None = None) -> bool:
            if self.cut:
                return super().wait(timeout)
            self.cut = True
            self._release_save()  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    call = slow.loop.submit()
    gates.wait("it")
    monkeypatch.setattr(call, "_condition", Cut(call._mutex))
    gates.tell("it may go on")
    with pytest.raises(Interrupted, match=r"work\.loop cancelled at \d+/1000; the service is still ready"):
        call.result()
    assert is_ready(slow, gates)
