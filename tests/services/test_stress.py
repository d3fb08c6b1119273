"""Many threads at once: nothing is lost, nothing but typed errors comes out, and nobody waits for ever.

Two seconds each by default; ten with GRYM_FULL=1. Every thread is waited for with an end, so that a deadlock
fails with the stacks of all threads instead of hanging.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from grym_nb.errors import (
    CallBlocked,
    CallCancelled,
    CallTimeout,
    GrymError,
    ServiceClosed,
    ServiceNotFound,
    TaskFailed,
)
from grym_nb.events import CallEnded, Event, ServiceRegistered, ServiceRemoved, StateChanged
from grym_nb.services import ModelService, ServiceHandle, ServiceRegistry, Task, task
from grym_nb.services.lifecycle import MOVES
from grym_nb.settings import Settings
from tests.services.crowd import Overlap, names_of_threads, outcome, start, until

FULL = os.environ.get("GRYM_FULL") == "1"
SECONDS = 10.0 if FULL else 2.0
THREADS = 20
LEAST = 10  # things that each thread does, also where the machine is too slow for them in its seconds

loads: Counter[str] = Counter()
alive: Counter[str] = Counter()
inside: dict[str, Overlap] = {}
_lock = threading.Lock()


@pytest.fixture(autouse=True, params=[5e-3, 1e-5], ids=["steady", "nervous"])
def _switching(request: pytest.FixtureRequest) -> Iterator[None]:
    """As Python is, and with threads that take turns five hundred times as often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(request.param)
    yield
    sys.setswitchinterval(before)


def numbered(name: str, n: int) -> type:
    """One of several versions of a service that notes what is done to it."""

    class Numbered(ModelService):
        def load(self) -> None:
            with _lock:
                loads[name] += 1
                alive[name] += 1

        def unload(self) -> None:
            with _lock:
                alive[name] -= 1

        @task
        def add(self, x: int) -> int:
            if x % 13 == 0:
                raise ValueError("thirteen")
            return x + n

        @task
        async def later(self, x: int) -> int:
            await asyncio.sleep(0)
            return x + n

    return Numbered


class Told:
    """What one thread did and what came of it."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = 0
        self.refused: Counter[str] = Counter()  # of the calls among the errors
        self.errors: Counter[str] = Counter()
        self.strange: list[BaseException] = []


def rounds(deadline: float, least: int = 1) -> Iterator[int]:
    """Count until the time is over; to `least` in any case, however slow the machine is."""
    for n in itertools.count():
        if n >= least and time.monotonic() >= deadline:
            return
        yield n


def hammer(deadline: float, told: Told, act: Callable[[], None]) -> Told:
    for _ in rounds(deadline, LEAST):
        if told.strange:
            break
        try:
            act()
        except GrymError as error:
            told.errors[error.code] += 1
        except BaseException as error:
            told.strange.append(error)
    return told


def all_end(work: list[Callable[[], Any]], seconds: float) -> list[Any]:
    """Run each in a thread; a deadlock is an error and no hang."""
    running = [start(one) for one in work]
    until_ = time.monotonic() + seconds + 60
    for future in running:
        while not future.done() and time.monotonic() < until_:
            try:
                future.exception(0.5)
            except TimeoutError:
                continue
    return [outcome(future) for future in running]


def test_twenty_threads_hammer_one_registry() -> None:
    """Register the same and changed, call, submit, await, unload, reload, remove: every count adds up."""
    loads.clear()
    alive.clear()
    names = ["a", "b", "c", "d", "e"]
    classes = {name: [numbered(name, 1000 * n) for n in range(3)] for name in names}
    events: Counter[str] = Counter()
    illegal: list[Event] = []
    legal = {(before, after) for (before, _), after in MOVES.items()}
    outcomes: Counter[str] = Counter()

    def note(event: Event) -> None:
        with _lock:
            events[type(event).__name__] += 1
            if isinstance(event, StateChanged) and (event.before, event.after) not in legal:
                illegal.append(event)
            if isinstance(event, CallEnded):
                outcomes[event.outcome] += 1

    registry = ServiceRegistry(settings=Settings(drain_seconds=5.0))
    registry.ports.events.subscribe(note, Event)
    deadline = time.monotonic() + SECONDS

    def thread(i: int) -> Told:
        rng = random.Random(i)
        told = Told()

        def called(call: Callable[[int], Any], x: int) -> None:
            told.asked += 1
            try:
                value = call(x)
            except GrymError as error:
                told.refused[error.code] += 1
                raise
            assert (value - x) % 1000 == 0, (x, value)
            told.answers += 1

        def used(handle: ServiceHandle) -> int:
            with handle.use() as model:
                return int(model.add(1))

        def executed(handle: ServiceHandle, x: int) -> int:
            result = handle.execute(Task("add", x))
            if result.error is not None:
                raise result.error
            return int(result.data)

        def act() -> None:
            name, x = rng.choice(names), rng.randrange(1000)
            what = rng.random()
            if what < 0.12 or name not in registry:
                registry.register(name, rng.choice(classes[name]), concurrency=rng.choice((1, 1, 1, 3)))
                return
            handle = registry[name]
            if what < 0.45:
                called(handle.add, x)
            elif what < 0.65:
                called(lambda x: handle.add.submit(x).result(20), x)
            elif what < 0.72:
                called(lambda x: handle.add.with_(timeout=20, priority=rng.randrange(4))(x), x)
            elif what < 0.78:
                called(handle.later, x)
            elif what < 0.84:
                called(lambda x: executed(handle, x), x)
            elif what < 0.88:
                handle.unload(timeout=5.0)
            elif what < 0.91:
                handle.unload(timeout=5.0).load()
            elif what < 0.94:
                repr(registry), handle.metrics(), handle.ping(), registry.running(), registry.calls()
            elif what < 0.97:
                called(lambda _: used(handle), 1)
            else:
                registry.remove(name, timeout=5.0)

        return hammer(deadline, told, act)

    everybody = all_end([lambda i=i: thread(i) for i in range(THREADS)], SECONDS)
    assert [told for told in everybody if not isinstance(told, Told)] == []
    strange = [error for told in everybody for error in told.strange]
    assert strange == []
    asked = sum(told.asked for told in everybody)
    answers = sum(told.answers for told in everybody)
    refused = sum((told.refused for told in everybody), Counter())
    errors = sum((told.errors for told in everybody), Counter())
    assert set(errors) <= {
        TaskFailed.code,
        ServiceClosed.code,
        ServiceNotFound.code,
        CallTimeout.code,  # of a drain that waited for another drain
    }, errors
    assert answers + refused.total() == asked > THREADS * LEAST / 2
    until(lambda: not registry.running())
    assert outcomes == Counter({"ok": answers}) + refused  # each was seen once, as it ended
    assert illegal == []
    assert events[ServiceRegistered.__name__] - events[ServiceRemoved.__name__] == len(registry)
    assert registry.close() == ()
    assert all(handle.state == "closed" and handle._record.users == 0 for handle in registry.handles())
    assert {name: n for name, n in alive.items() if n} == {}, "a model was never unloaded, or twice"
    assert not names_of_threads("grym-call") and not names_of_threads("grym-pulse")


WAYS: list[Callable[[ServiceHandle, int], Any]] = [
    lambda handle, x: handle.add(x),
    lambda handle, x: handle.add.submit(x).result(20),
    lambda handle, x: handle.add.with_(timeout=20)(x),
    lambda handle, x: handle.later.submit(x).result(20),
]


def test_every_call_of_steady_services_is_counted_once() -> None:
    """With nobody removing anything, calls are answers and errors, to the last one."""
    registry = ServiceRegistry()
    handles = [registry.register(f"s{i}", numbered(f"s{i}", 0), concurrency=i + 1) for i in range(3)]
    deadline = time.monotonic() + SECONDS / 2

    def thread(i: int) -> Counter[str]:
        rng = random.Random(i)
        told: Counter[str] = Counter()
        for _ in rounds(deadline):
            handle, x = rng.choice(handles), rng.randrange(1000)
            try:
                assert rng.choice(WAYS)(handle, x) == x
                told["ok"] += 1
            except TaskFailed:
                told["task.failed"] += 1
            if rng.random() < 0.02:
                call = handle.add.submit(x)
                call.cancel()
                error = call.exception(20)
                told["ok" if error is None else getattr(error, "code", "?")] += 1
            if rng.random() < 0.02:
                rng.choice(handles).unload()
        return told

    told = sum(all_end([lambda i=i: thread(i) for i in range(THREADS)], SECONDS), Counter())
    until(lambda: not registry.running())
    counted: Counter[str] = Counter()
    for handle in handles:
        metrics = handle.metrics()
        counted["ok"] += metrics.ok
        counted.update(metrics.errors)
    assert counted == told and set(told) <= {"ok", "task.failed", CallCancelled.code}
    assert registry.close() == ()


@pytest.mark.parametrize("n", [1000])
def test_a_thousand_concurrent_submits_end(registry: ServiceRegistry, n: int) -> None:
    overlap = Overlap()

    class Work(ModelService):
        @task
        def work(self, x: int) -> int:
            with overlap:
                return x * x

        @task
        async def later(self, x: int) -> int:
            await asyncio.sleep(0)
            return x * x

    handle = registry.register("work", Work, concurrency=4)
    calls = [handle.submit("work", x) for x in range(n)]
    assert [call.result(20) for call in calls] == [x * x for x in range(n)]
    assert overlap.most <= 4 and overlap.times == n

    async def all_of_them() -> list[int]:
        return list(await asyncio.gather(*[handle.submit("work", x) for x in range(n)]))

    assert asyncio.run(all_of_them()) == [x * x for x in range(n)]
    assert [call.result(20) for call in [handle.later.submit(x) for x in range(200)]] == [
        x * x for x in range(200)
    ]
    assert handle.status().calls == 2 * n + 200 and handle.status().errors == 0


def test_eight_services_that_call_each_other_never_wait_for_ever() -> None:
    """In an order without circles nobody is ever refused, whatever the way of the call."""
    registry = ServiceRegistry()
    overlaps = [Overlap() for _ in range(8)]
    handles: list[ServiceHandle] = []

    class Node(ModelService):
        def __init__(self, *, i: int = 0) -> None:
            self.i = i

        @task
        def visit(self, way: tuple[int, ...], rng: random.Random) -> int:
            with overlaps[self.i]:
                pass
            if not way:
                return 1
            following, *rest = way
            kind = rng.randrange(4)
            task_ = handles[following].visit
            if kind == 0:
                return int(task_(tuple(rest), rng)) + 1
            if kind == 1:
                return int(task_.submit(tuple(rest), rng).result(20)) + 1
            if kind == 2:
                return int(task_.with_(timeout=20)(tuple(rest), rng)) + 1
            calls = [task_.submit(tuple(rest), rng), task_.submit((), rng)]
            return max(int(call.result(20)) for call in calls) + 1

    handles += [registry.register(f"n{i}", Node, config={"i": i}, concurrency=1 + i % 2) for i in range(8)]
    deadline = time.monotonic() + SECONDS / 2

    def thread(i: int) -> int:
        rng, n = random.Random(i), 0
        for _ in rounds(deadline):
            # Each service twice at most: a chain re-enters its own.
            way = sorted(rng.choices(range(8), k=rng.randrange(1, 6)))
            assert handles[way[0]].visit(tuple(way[1:]), rng) == len(way)
            n += 1
        return n

    done = all_end([lambda i=i: thread(i) for i in range(THREADS)], SECONDS)
    assert all(isinstance(n, int) and n > 0 for n in done), done
    assert all(overlap.most <= 1 + i % 2 for i, overlap in enumerate(overlaps))
    assert registry.close() == ()


def test_services_that_call_each_other_in_circles_are_refused_and_not_stuck() -> None:
    """Whoever closes a circle hears it at once; everybody else goes on."""
    registry = ServiceRegistry()
    handles: list[ServiceHandle] = []

    class Node(ModelService):
        @task
        def visit(self, way: tuple[int, ...], rng: random.Random) -> int:
            if not way:
                return 1
            here, rest = handles[way[0]], way[1:]
            kind = rng.randrange(7)
            if kind == 0:
                return int(here.visit(rest, rng)) + 1
            if kind == 1:
                return int(here.visit.submit(rest, rng).result(20)) + 1
            if kind == 2:
                calls = [here.visit.submit(rest, rng), here.visit.submit((), rng)]
                return max(int(call.result(20)) for call in calls) + 1
            if kind == 3:
                return int(here.later(rest, rng)) + 1
            if kind == 4:
                with here.use() as model:
                    return int(model.visit(rest, rng)) + 1
            if kind == 5:
                return int(here.map("visit", [rest, ()], rng=rng, errors="raise")[0]) + 1
            return asyncio.run(both(here, rest, rng)) + 1

        @task
        async def later(self, way: tuple[int, ...], rng: random.Random) -> int:
            return 1 if not way else await both(handles[way[0]], way[1:], rng) + 1

    async def both(here: ServiceHandle, rest: tuple[int, ...], rng: random.Random) -> int:
        if rng.randrange(2):
            return int(await here.later.submit(rest, rng))
        return max(await asyncio.gather(here.visit.submit(rest, rng), here.later.submit((), rng)))

    handles += [registry.register(f"n{i}", Node, concurrency=1 + i % 2).load() for i in range(5)]
    deadline = time.monotonic() + SECONDS / 2

    def thread(i: int) -> Counter[str]:
        rng = random.Random(i)
        told: Counter[str] = Counter()
        for _ in rounds(deadline):
            way = tuple(rng.randrange(5) for _ in range(rng.randrange(1, 5)))
            try:
                assert handles[way[0]].visit(way[1:], rng) == len(way)
                told["ok"] += 1
            except (CallBlocked, CallCancelled) as error:
                told[error.code] += 1
        return told

    everybody = all_end([lambda i=i: thread(i) for i in range(THREADS)], SECONDS)
    assert [told for told in everybody if not isinstance(told, Counter)] == []
    told = sum(everybody, Counter())
    assert told["ok"] > 0 and told["call.blocked"] > 0
    until(lambda: not any(handle._record.users for handle in handles))
    assert all(handle._record.lane.free == 1 + i % 2 for i, handle in enumerate(handles))
    assert registry.close() == ()


def test_first_callers_unloads_and_idle_limits_race(registry: ServiceRegistry) -> None:
    """A short idle limit on the real clock, while calls come: nobody meets a half-unloaded model."""
    broken: list[int] = []

    class Brief(ModelService):
        def load(self) -> None:
            self.ready = True

        def unload(self) -> None:
            self.ready = False

        @task
        def ask(self, x: int) -> int:
            if not self.ready:
                broken.append(x)
            return x

    handle = registry.register("brief", Brief, ttl=0.001, concurrency=2)
    deadline = time.monotonic() + SECONDS / 2

    def thread(i: int) -> int:
        n = 0
        for _ in rounds(deadline):
            assert (handle.ask if n % 2 else lambda x: handle.ask.submit(x).result(20))(n) == n
            n += 1
            if i == 0:
                handle.unload()
        return n

    done = all_end([lambda i=i: thread(i) for i in range(6)], SECONDS)
    assert all(isinstance(n, int) and n > 0 for n in done), done
    assert broken == [] and handle.status().loads > 1
    assert handle.status().calls == sum(done) and handle.status().errors == 0
