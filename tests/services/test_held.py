"""Calls that stay open: a generator that is being read, and the object itself in a `with`."""

from __future__ import annotations

import asyncio
import functools
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import copy_context
from typing import Any

import pytest

from grym_nb.errors import (
    CallBlocked,
    CallCancelled,
    CallTimeout,
    Interrupted,
    LoadFailed,
    StateError,
    TaskFailed,
)
from grym_nb.events import CallEnded
from grym_nb.services import ModelService, ServiceHandle, ServiceRegistry, task, track
from grym_nb.services.frame import current_frame
from grym_nb.testing import FakeClock
from tests.services.crowd import WAIT, Gates, outcome, start, until

pytestmark = pytest.mark.usefixtures("small_heap")


def eager(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that looks at the arguments before there is a generator."""

    @functools.wraps(function)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        if args and args[0] == "bad":
            raise ValueError("bad from the start")
        return function(self, *args, **kwargs)

    return wrapper


class Streams(ModelService):
    """Generators of every kind, and what they may do in their bodies."""

    def __init__(self, gates: Gates) -> None:
        self.gates = gates
        self.me: Any = None
        self.unloaded = False

    def unload(self) -> None:
        self.gates.tell("unloaded")

    @task
    def echo(self, x: Any = None) -> Any:
        return x

    @task
    def parts(self, n: int) -> Iterator[int]:
        try:
            yield from range(n)
        finally:
            self.gates.tell("over")

    @task
    async def later(self, n: int) -> AsyncIterator[int]:
        try:
            for i in range(n):
                await asyncio.sleep(0)
                yield i
        finally:
            self.gates.tell("over")

    @task
    def echo_all(self, x: Any) -> Iterator[Any]:
        yield x

    @task
    def fails_at(self, n: int) -> Iterator[int]:
        yield from range(n)
        raise ValueError(f"at {n}")

    @task
    def fails_at_the_end(self) -> Iterator[int]:
        try:
            yield 1
        finally:
            raise ValueError("while it was closed")

    @task
    def swallows(self) -> Iterator[int]:
        try:
            yield 1
        except GeneratorExit:
            yield 2

    @task
    @eager
    def eager(self, x: Any) -> Iterator[Any]:
        yield x

    @task
    def asks(self, n: int) -> Iterator[Any]:
        """Call the own service in the body: plainly, submitted, and as a generator."""
        for i in range(n):
            yield self.me.echo(i), self.me.echo.submit(i).result(WAIT), list(self.me.parts(i))

    @task
    def tracked(self, n: int) -> Iterator[int]:
        yield from track(range(n))

    @task
    def where(self) -> Iterator[str]:
        while True:
            frame = current_frame()
            yield frame.title if frame is not None else "nowhere"

    @task
    async def stuck(self) -> AsyncIterator[int]:
        try:
            yield 0
            self.gates.tell("computing")
            await asyncio.Event().wait()
        finally:
            self.gates.tell("over")

    @task
    def slow(self) -> Iterator[int]:
        yield 0
        self.gates.tell("computing")
        self.gates.wait("may go on")
        yield 1


@pytest.fixture
def gates() -> Gates:
    """Events by name."""
    return Gates()


@pytest.fixture
def streams(registry: ServiceRegistry, gates: Gates) -> ServiceHandle:
    """A loaded service with one slot."""
    return service(registry, gates)


def service(registry: ServiceRegistry, gates: Gates) -> ServiceHandle:
    """Return a loaded service that knows its own handle."""
    handle = registry.register("streams", Streams, config={"gates": gates})
    with handle.use() as model:
        model.me = handle
    return handle


def held(handle: ServiceHandle) -> tuple[int, int]:
    """Return how many slots are taken, and how many calls are inside."""
    lane = handle._record.lane
    instance = handle._record.instance
    return lane.slots - lane.free, instance.users if instance is not None else 0


def endings(handle: ServiceHandle, task: str) -> list[str]:
    """Return how the calls of one task ended, oldest first."""
    return [ended.outcome for ended in handle._registry.calls() if ended.task == task]


# -- generators ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["parts", "later"])
class TestEveryWayToEnd:
    """Plain and async generators: the slot is held from the first item on, and given back once."""

    def test_by_exhaustion(self, streams: ServiceHandle, name: str) -> None:
        """The last item is not the end: asking for one more is."""
        stream = getattr(streams, name)(2)
        assert held(streams) == (0, 0)
        assert (next(stream), held(streams)) == (0, (1, 1))
        assert (next(stream), held(streams)) == (1, (1, 1))
        with pytest.raises(StopIteration):
            next(stream)
        with pytest.raises(StopIteration):
            next(stream)
        assert (held(streams), endings(streams, name)) == ((0, 0), ["ok"])

    def test_by_close(self, streams: ServiceHandle, gates: Gates, name: str) -> None:
        """Before the first item, or later; twice changes nothing."""
        untouched = getattr(streams, name)(2)
        untouched.close()
        assert (held(streams), list(untouched), endings(streams, name)) == ((0, 0), [], [])
        stream = getattr(streams, name)(2)
        next(stream)
        stream.close()
        stream.close()
        assert (held(streams), list(stream), endings(streams, name)) == ((0, 0), [], ["ok"])
        assert gates["over"].is_set()

    def test_by_a_break_and_the_end_of_the_last_name(
        self, streams: ServiceHandle, gates: Gates, name: str
    ) -> None:
        """A `for` that is left drops the generator, which ends it."""
        for _ in getattr(streams, name)(5):
            break
        gc.collect()
        until(lambda: held(streams) == (0, 0))
        gates.wait("over")
        until(lambda: endings(streams, name) == ["ok"])

    def test_by_a_with(self, streams: ServiceHandle, name: str) -> None:
        """However the block is left."""
        with getattr(streams, name)(5) as stream:
            assert next(stream) == 0
        assert held(streams) == (0, 0)
        with pytest.raises(LookupError), getattr(streams, name)(5) as stream:
            raise LookupError
        assert held(streams) == (0, 0)

    def test_by_a_submit(self, streams: ServiceHandle, name: str) -> None:
        """On a worker it is run to its end, and gives a list."""
        assert getattr(streams, name).submit(3).result(WAIT) == [0, 1, 2]
        until(lambda: held(streams) == (0, 0))


def test_by_an_error_which_is_told_once(streams: ServiceHandle) -> None:
    """With the author's line; afterwards the stream is over."""
    stream = streams.fails_at(1)
    assert next(stream) == 0
    with pytest.raises(TaskFailed, match=r"streams\.fails_at raised ValueError: at 1") as caught:
        next(stream)
    assert caught.value.failure.sites[-1].function == "fails_at"
    assert (held(streams), list(stream), endings(streams, "fails_at")) == ((0, 0), [], ["task.failed"])


@pytest.mark.parametrize("name", ["fails_at_the_end", "swallows"])
def test_an_error_while_it_is_closed_is_typed_and_the_slot_is_given_back(
    streams: ServiceHandle, name: str
) -> None:
    """The clean-up's own, or a generator that goes on yielding."""
    stream = getattr(streams, name)()
    next(stream)
    with pytest.raises(TaskFailed):
        stream.close()
    assert held(streams) == (0, 0)
    dropped = getattr(streams, name)()
    next(dropped)
    del dropped
    gc.collect()
    until(lambda: held(streams) == (0, 0))
    until(lambda: endings(streams, name) == ["task.failed", "task.failed"])


def test_an_error_before_there_is_a_generator_leaves_nothing_held(streams: ServiceHandle) -> None:
    """A decorator that looks at the arguments raises at the first item."""
    stream = streams.eager("bad")
    with pytest.raises(TaskFailed, match="bad from the start"):
        next(stream)
    assert list(stream) == []
    assert (held(streams), list(streams.eager("good"))) == ((0, 0), ["good"])


def test_a_stream_says_what_it_is(streams: ServiceHandle) -> None:
    """Not begun, open or ended."""
    stream = streams.parts(1)
    assert repr(stream).startswith("<Stream of streams.parts, not begun: ")
    assert iter(stream) is stream
    next(stream)
    assert repr(stream).startswith("<Stream of streams.parts, open: ")
    list(stream)
    assert repr(stream) == "<Stream of streams.parts, ended>"


def test_the_body_is_inside_the_call_and_the_reader_is_not(streams: ServiceHandle) -> None:
    """At each step, in whatever context it is read."""
    with streams.where() as stream:
        assert (next(stream), current_frame()) == ("streams.where", None)
        assert copy_context().run(next, stream) == "streams.where"
        assert outcome(start(next, stream)) == "streams.where"
        assert current_frame() is None


def test_a_body_calls_its_own_service(streams: ServiceHandle) -> None:
    """Plainly, on another thread, and through another generator: all on the one slot."""
    assert list(streams.asks(3)) == [(0, 0, []), (1, 1, [0]), (2, 2, [0, 1])]
    assert held(streams) == (0, 0)


def test_a_generator_is_handed_to_another_thread(streams: ServiceHandle) -> None:
    """It may be read and closed there; the thread that made it may then wait for the slot."""
    stream = streams.slow()
    assert next(stream) == 0
    reading = start(lambda: list(stream))
    gates = streams._record.spec.config["gates"]
    gates.wait("computing")
    waiting = start(streams.echo, "next")
    gates.tell("may go on")
    assert (outcome(reading), outcome(waiting), held(streams)) == ([1], "next", (0, 0))


def test_a_blocking_call_beside_an_open_generator_is_refused_by_name(streams: ServiceHandle) -> None:
    """It could only wait for what this very thread would have to end."""
    stream = streams.parts(3)
    next(stream)
    for call in (lambda: streams.echo(), lambda: next(streams.parts(1)), lambda: list(streams.later(1))):
        with pytest.raises(CallBlocked) as caught:
            call()
        assert "streams.parts is open in this thread and holds the slot" in caught.value.message
        assert "close() the generator" in caught.value.hint
    assert (list(stream), streams.echo(1)) == ([1, 2], 1)


def test_a_call_that_is_only_submitted_beside_an_open_generator_waits(streams: ServiceHandle) -> None:
    """Nothing blocks, so nothing is refused."""
    stream = streams.parts(3)
    next(stream)
    call = streams.echo.submit("later")
    assert (list(stream), call.result(WAIT)) == ([1, 2], "later")


def test_letting_go_beside_an_open_generator_of_this_thread_is_refused_at_once(
    streams: ServiceHandle,
) -> None:
    """It would wait for what only this thread can end; the error says how, and nothing has changed."""
    stream = streams.parts(3)
    next(stream)
    [frame] = streams._registry.running()

    other = Gates()
    other.tell("another config")
    for move in (
        streams.unload,
        lambda: streams.configure(gates=other),
        lambda: streams._registry.remove("streams"),
    ):
        with pytest.raises(CallBlocked, match=r"streams\.parts, which is open in this thread") as caught:
            move()
        assert f"%grym cancel {frame.id}" in caught.value.hint
    assert (streams.state, streams.version, list(stream)) == ("ready", "v1", [1, 2])
    assert streams.unload().state == "registered"


def test_an_unload_that_says_how_long_goes_on_without_an_open_generator(streams: ServiceHandle) -> None:
    """Whose instance stays its own."""
    stream = streams.parts(3)
    next(stream)
    assert streams.unload(timeout=0.01).state == "registered"
    status = streams.status()
    assert "streams v1 registered 1 still running in a model let go of · " in status.line
    assert "in a model let go of" in repr(status) and len(status.running) == 1
    assert list(stream) == [1, 2]
    assert "let go of" not in streams.status().line and streams.status().running == ()


def test_an_open_generator_keeps_the_service_loaded(streams: ServiceHandle, gates: Gates) -> None:
    """An unload waits for it, and past its deadline leaves it the instance."""
    stream = streams.parts(3)
    assert next(stream) == 0
    assert outcome(start(streams.unload, 0.01)).state == "registered"
    assert not gates["unloaded"].is_set()
    assert next(stream) == 1
    assert streams.echo("on a new instance") == "on a new instance"
    assert not gates["unloaded"].is_set()
    stream.close()
    assert (gates["unloaded"].is_set(), held(streams)) == (True, (0, 0))


def test_a_deadline_ends_a_generator_at_its_next_item(
    driven: ServiceRegistry, clock: FakeClock, gates: Gates
) -> None:
    """It bounds the whole of it, the reader's pauses included."""
    streams = service(driven, gates)
    stream = streams.parts.with_(timeout=5.0)(10)
    assert next(stream) == 0
    clock.advance(5.0)
    with pytest.raises(CallTimeout, match=r"streams\.parts timed out after 5 s"):
        next(stream)
    assert (held(streams), gates["over"].is_set(), endings(streams, "parts")) == (
        (0, 0),
        True,
        ["call.timeout"],
    )


def test_a_generator_whose_deadline_passes_in_line_is_told_for_what_it_waited(
    driven: ServiceRegistry, clock: FakeClock, gates: Gates
) -> None:
    """It has no slot to give back."""
    streams = service(driven, gates)
    holder = streams.parts(2)
    next(holder)
    waiting = start(next, streams.parts.with_(timeout=5.0)(2))
    clock.until_waiting(1)
    clock.advance(5.0)
    error = outcome(waiting)
    assert isinstance(error, CallTimeout) and "a slot of streams" in str(error)
    assert list(holder) == [1]
    assert held(streams) == (0, 0)


def test_a_generator_begins_with_its_first_item(
    driven: ServiceRegistry, clock: FakeClock, gates: Gates
) -> None:
    """What is echoed in a cell and never read holds nothing, and its time does not run."""
    streams = service(driven, gates)
    stream = streams.parts.with_(timeout=5.0)(2)
    streams.unload()
    clock.advance(60.0)
    assert (streams.state, streams.metrics().tasks.get("parts")) == ("registered", None)
    assert (list(stream), streams.state) == ([0, 1], "ready")


def test_a_generator_that_rests_is_cancelled_from_elsewhere(
    streams: ServiceHandle, registry: ServiceRegistry, gates: Gates
) -> None:
    """It cleans up and gives its slot back at once; whoever reads on is told."""
    stream = streams.parts(3)
    next(stream)
    [frame] = registry.running()
    assert outcome(start(frame.cancel)) is True
    assert (held(streams), gates["over"].is_set(), endings(streams, "parts")) == (
        (0, 0),
        True,
        ["call.cancelled"],
    )
    with pytest.raises(CallCancelled):
        next(stream)
    assert frame.cancel() is False


def test_a_generator_that_was_cancelled_before_it_began_never_does(
    streams: ServiceHandle, gates: Gates
) -> None:
    """Nor looks as if it had nothing to give."""
    stream = streams.parts(3)
    stream.cancel()
    for _ in range(2):
        with pytest.raises(CallCancelled):
            list(stream)
    assert (held(streams), endings(streams, "parts")) == ((0, 0), [])


def test_a_generator_that_is_closed_unread_keeps_nothing(streams: ServiceHandle) -> None:
    """Its arguments may be large."""
    big = Gates()
    kept = weakref.ref(big)
    stream = streams.echo_all(big)
    stream.close()
    del big
    gc.collect()
    assert (kept(), list(stream)) == (None, [])


def test_a_generator_that_is_being_read_is_cancelled_at_its_next_item(
    streams: ServiceHandle, registry: ServiceRegistry, gates: Gates
) -> None:
    """By its reader, since the body runs in the reader's thread."""
    reading = start(list, streams.slow())
    gates.wait("computing")
    [frame] = registry.running()
    assert frame.cancel() is True
    gates.tell("may go on")
    assert isinstance(outcome(reading), CallCancelled)
    assert held(streams) == (0, 0)


def test_a_use_cannot_be_cancelled(streams: ServiceHandle, registry: ServiceRegistry) -> None:
    """Its block is the user's own code."""
    with streams.use():
        [frame] = registry.running()
        assert frame.cancel() is False


def test_a_tracked_generator_says_how_far_it_came(streams: ServiceHandle, registry: ServiceRegistry) -> None:
    """Its progress is seen while it rests."""
    stream = streams.tracked(10)
    next(stream), next(stream)
    assert "tracked 1/10" in streams.status().running[0]
    [frame] = registry.running()
    frame.cancelled = True
    with pytest.raises(CallCancelled, match="at 1/10"):
        next(stream)
    assert held(streams) == (0, 0)


def test_ctrl_c_while_a_generator_computes_ends_it(
    streams: ServiceHandle, gates: Gates, ctrl_c: Callable[[Any], None]
) -> None:
    """The service is ready, and the slot given back."""
    stream = streams.slow()
    assert next(stream) == 0
    ctrl_c(lambda: gates.wait("computing"))
    with pytest.raises(Interrupted, match=r"streams\.slow interrupted; the service is still ready"):
        next(stream)
    assert (held(streams), list(stream), streams.echo(1)) == ((0, 0), [], 1)
    assert endings(streams, "slow") == ["interrupted"]


def test_ctrl_c_while_an_async_generator_awaits_ends_it(
    streams: ServiceHandle, gates: Gates, ctrl_c: Callable[[Any], None]
) -> None:
    """On the private loop too."""
    stream = streams.stuck()
    assert next(stream) == 0
    ctrl_c(lambda: gates.wait("computing"))
    with pytest.raises(Interrupted, match=r"streams\.stuck interrupted; the service is still ready"):
        next(stream)
    assert gates["over"].is_set()
    assert (held(streams), list(stream), streams.echo(1)) == ((0, 0), [], 1)


def test_the_collector_ends_a_forgotten_generator_even_under_our_lock(streams: ServiceHandle) -> None:
    """It may run at any allocation, also while a lane holds its own lock: no deadlock, no lost slot."""
    for _ in range(3):
        stream = streams.parts(3)
        next(stream)
        ring: list[Any] = [stream]
        ring.append(ring)
        del stream
        with streams._record.condition:
            del ring
            gc.collect()
        until(lambda: held(streams) == (0, 0))
    assert streams.echo(1) == 1


def test_a_generator_of_a_service_that_cannot_load_holds_nothing(registry: ServiceRegistry) -> None:
    """The load's error comes with the first item, and the next call tries again."""

    class Never(ModelService):
        def load(self) -> None:
            raise OSError("no weights")

        @task
        def parts(self) -> Iterator[int]:
            yield 1

    never = registry.register("never", Never)
    for _ in range(2):
        with pytest.raises(LoadFailed, match="no weights"):
            next(never.parts())
        with pytest.raises(LoadFailed, match="no weights"):
            never.use().__enter__()
    assert (never.state, held(never)) == ("failed", (0, 0))


# -- use -------------------------------------------------------------------------------------------


def test_use_gives_the_object_itself_with_its_slot_held(streams: ServiceHandle) -> None:
    """And counts as a call."""
    seen: list[CallEnded] = []
    streams._record.ports.events.subscribe(seen.append, CallEnded)
    with streams.use() as model:
        assert type(model) is Streams
        assert held(streams) == (1, 1)
        assert "use" in streams.status().running[0]
    assert held(streams) == (0, 0)
    assert [(event.task, event.outcome) for event in seen] == [("use", "ok")]


def test_calls_inside_re_enter(streams: ServiceHandle) -> None:
    """Plain ones, submitted ones, bounded ones, generators, and another `use()`."""
    with streams.use() as model:
        assert streams.echo(1) == 1
        assert streams.echo.submit(2).result(WAIT) == 2
        assert streams.echo.with_(timeout=WAIT)(3) == 3
        assert streams.parts.submit(2).result(WAIT) == [0, 1]
        assert list(streams.parts(2)) == list(streams.later(2)) == [0, 1]
        with streams.use() as same:
            assert same is model
        assert held(streams) == (1, 1)
    assert held(streams) == (0, 0)


def test_others_wait_until_it_is_left(streams: ServiceHandle) -> None:
    """From other threads, and submitted before it."""
    with streams.use():
        elsewhere = start(streams.echo, "elsewhere")
        until(lambda: streams._record.lane.waiting == 1)
        assert not elsewhere.done()
    assert outcome(elsewhere) == "elsewhere"


def test_waiting_inside_for_a_call_that_is_behind_in_line_is_refused(
    streams: ServiceHandle, gates: Gates
) -> None:
    """A call that does not belong to the chain could only come after the block."""
    holder = streams.slow()
    next(holder)
    using, behind = threading.Event(), threading.Event()

    def use() -> Any:
        with streams.use():
            using.set()
            assert behind.wait(WAIT)
            return stranger.result(WAIT)

    told = start(use)
    until(lambda: streams._record.lane.waiting == 1)
    stranger = streams.echo.submit("stranger")
    holder.close()
    assert using.wait(WAIT)
    behind.set()
    assert isinstance(outcome(told), CallBlocked)
    assert stranger.result(WAIT) == "stranger"


def test_an_error_inside_is_the_authors_own_and_the_slot_is_given_back(streams: ServiceHandle) -> None:
    """What happens in the block is not the service's failure."""
    with pytest.raises(LookupError, match="mine"), streams.use():
        raise LookupError("mine")
    assert (held(streams), streams.echo(1), streams.metrics().errors) == ((0, 0), 1, {})


def test_a_use_is_entered_once(streams: ServiceHandle) -> None:
    """The same object cannot hold two slots; once left it may be entered anew."""
    use = streams.use()
    with use:
        with pytest.raises(RuntimeError, match="entered already"):
            use.__enter__()
        assert held(streams) == (1, 1)
    with use as model:
        assert type(model) is Streams
    assert held(streams) == (0, 0)


def test_a_use_that_is_never_entered_holds_nothing(registry: ServiceRegistry) -> None:
    """Nor does it load anything."""
    handle = registry.register("lazy", Streams, config={"gates": Gates()})
    handle.use()
    assert handle.state == "registered"


def test_a_use_left_in_another_context_gives_everything_back(streams: ServiceHandle) -> None:
    """Cells each run in a context of their own; one that enters and one that leaves are two cells."""
    use = streams.use()
    entering = copy_context()
    entering.run(use.__enter__)
    assert (held(streams), current_frame()) == ((1, 1), None)
    assert use.__exit__(None, None, None) is None
    assert (held(streams), current_frame(), streams.echo(1)) == ((0, 0), None, 1)


def test_a_blocking_call_beside_a_use_of_another_context_is_refused(streams: ServiceHandle) -> None:
    """The cell that entered it is over, and its call is not beneath this one."""
    use = streams.use()
    copy_context().run(use.__enter__)
    with pytest.raises(CallBlocked, match=r"streams\.use is open in this thread"):
        streams.echo()
    use.__exit__(None, None, None)
    assert streams.echo(1) == 1


def test_what_would_wait_for_itself_inside_is_refused(streams: ServiceHandle) -> None:
    """Unloading the service whose object is in use, from within."""
    with streams.use():
        for move in (streams.unload, streams.reload, lambda: streams._registry.remove("streams")):
            with pytest.raises(StateError):
                move()
    assert streams.unload().state == "registered"
