"""Sixteen threads, eight services, and all that can go wrong: `python -m tests.services.chaos SECONDS`.

Prints, as JSON, how the calls ended, as their callers and as the services saw it, and what is left behind. In
a process of its own, since the main thread is interrupted all the time.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from grym_nb.errors import GrymError, Interrupted
from grym_nb.services import ModelService, ServiceHandle, ServiceRegistry, task, track
from grym_nb.services.frame import Frame, current_frame
from grym_nb.settings import Settings

THREADS = 15  # and the main one
QUICK = {"min_calls": 4, "window": 8, "open_seconds": 0.05, "max_open_seconds": 0.2}
SERVICES: dict[str, dict[str, Any]] = {
    "plain": {"device": "card:0"},
    "timed": {"device": "card:0", "timeout": 0.03},
    "wide": {"device": "card:0", "concurrency": 2},
    "guarded": {"device": "card:1", "retry": {"attempts": 2, "pause": 0.001}, "breaker": QUICK},
    "short": {"max_waiting": 2},
    "spare": {"fallback": lambda error, *args, **kwargs: "instead"},
    "other": {"device": "card:1", "exclusive": False},
    "main": {"device": "card:0"},  # of the main thread alone
}


class Told:
    """How calls ended, as those who made them saw it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.ends: dict[str, Counter[str]] = {name: Counter() for name in SERVICES}

    def note(self, service: str, how: str, times: int = 1) -> None:
        with self._lock:
            self.ends[service][how] += times

    def call(self, service: str, call: Callable[[], Any]) -> Any:
        """Make one call, and note how it ended; what it raised goes on, as in any task.

        Who is itself cancelled or late does not hear how it ended, and notes that it was made.
        """
        try:
            value = call()
        except GrymError as error:
            self.note(service, "?" if _is_over(current_frame()) else error.code)
            raise
        except Interrupted:
            self.note(service, "interrupted")
            raise
        self.note(service, "ok")
        return value


def _is_over(frame: Frame | None) -> bool:
    if frame is None:
        return False
    late = frame.deadline is not None and time.monotonic() >= frame.deadline
    return late or any(at.cancelled for at in frame.chain())


class Work(ModelService):
    """Does what it is told: well, badly, slowly, or without end."""

    @task
    def do(self, what: Callable[[], Any]) -> Any:
        return what()

    @task
    async def do_async(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "slept"

    @task
    def items(self, n: int, bad: int) -> Iterator[int]:
        for i in range(n):
            if i == bad:
                raise OSError("a bad item")
            yield i


# -- what can be asked for -------------------------------------------------------------------------


def answers() -> str:
    return "answer"


def fails() -> None:
    raise OSError("down")


def is_slow() -> str:
    threading.Event().wait(0.002)
    return "slow"


def hangs_in_steps() -> None:
    for _ in track(range(10**9)):
        threading.Event().wait(0.001)


def hangs() -> str:
    threading.Event().wait(0.05)
    return "late"


def is_interrupted() -> None:
    raise KeyboardInterrupt


class Chaos:
    """What a thread does: one act after another, at random."""

    def __init__(self, services: dict[str, ServiceHandle], told: Told) -> None:
        self.services = services
        self.told = told
        self.strange: list[str] = []

    def nested(self, pick: random.Random, after: str) -> Callable[[], Any]:
        """Return something that calls a service further down, so that no two wait for one another."""
        names = list(SERVICES)[list(SERVICES).index(after) + 1 : -1]
        if not names:
            return answers
        name = pick.choice(names)
        what = pick.choice([answers, fails, is_slow, self.nested(pick, name)])
        bound = self.services[name].do
        if pick.random() < 0.5:
            return lambda: self.told.call(name, lambda: bound(what))
        return lambda: self.told.call(name, lambda: bound.submit(what).result())

    def act(self, pick: random.Random) -> None:
        name = pick.choice(list(SERVICES)[:-1])
        handle = self.services[name]
        chance = pick.random()
        if chance < 0.35:
            what = pick.choice([answers, fails, is_slow, is_interrupted])
            self.told.call(name, lambda: handle.do(what))
        elif chance < 0.55:
            what = self.nested(pick, name)
            self.told.call(name, lambda: handle.do(what))
        elif chance < 0.65:
            timed = handle.do.with_(timeout=0.01, priority=pick.randrange(4))
            what = pick.choice([hangs, hangs_in_steps, is_slow])
            self.told.call(name, lambda: timed(what))
        elif chance < 0.8:
            what = pick.choice([answers, is_slow, hangs_in_steps, self.nested(pick, name)])
            self.told.call(name, lambda: self.cancelled(handle.do.with_(timeout=1.0).submit(what), pick))
        elif chance < 0.88:
            self.told.call(name, lambda: handle.do_async(0.001))
        elif chance < 0.96:
            self.told.call(name, lambda: self.read(handle, pick))
        elif chance < 0.98:
            self.told.call(name, lambda: self.used(handle))
        else:
            handle.unload(timeout=0.5)

    def used(self, handle: ServiceHandle) -> None:
        with handle.use() as model:
            model.do(answers)

    def cancelled(self, call: Any, pick: random.Random) -> Any:
        threading.Event().wait(pick.choice([0.0, 0.0005, 0.003]))
        call.cancel()
        return call.result()

    def read(self, handle: ServiceHandle, pick: random.Random) -> list[int]:
        with handle.items(4, pick.choice([-1, -1, 2])) as stream:
            return [item for item, _ in zip(stream, range(pick.randrange(1, 6)), strict=False)]

    def run(self, seed: int, until: float) -> None:
        pick = random.Random(seed)
        while time.monotonic() < until:
            try:
                self.act(pick)
            except (GrymError, Interrupted):
                pass
            except BaseException as error:
                self.strange.append(repr(error))
                return


# -- the main thread, which is struck --------------------------------------------------------------


def strike(*_: object) -> None:
    """As Ctrl-C does."""
    raise KeyboardInterrupt


def be_struck(handle: ServiceHandle, told: Told, until: float) -> int:
    """Call a service that nobody else calls, and be interrupted; return how often."""
    pick, struck = random.Random(0), 0
    acts = [
        lambda: handle.do(is_slow),
        lambda: handle.do.submit(is_slow).result(),
        lambda: handle.do.with_(timeout=0.02)(hangs_in_steps),
        lambda: list(handle.items(3, -1)),
    ]
    while time.monotonic() < until:
        how = "ok"
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, pick.uniform(1e-4, 8e-3))
                pick.choice(acts)()
            except GrymError as error:
                how = error.code
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            how = ""  # it may have been over already, or not have begun: nobody can tell
        if how:
            told.note("main", how)
        struck += not how
        await_quiet([handle])
    return struck


def ends_of(handle: ServiceHandle) -> Counter[str]:
    """Return how the calls of a service ended, as the service saw it."""
    metrics = handle.metrics()
    return Counter({"ok": metrics.ok}) + Counter(metrics.errors)


def await_quiet(handles: list[ServiceHandle]) -> bool:
    """Wait until nobody is inside any of them, or on the way; tell whether it came to that."""
    give_up = time.monotonic() + 20.0
    while time.monotonic() < give_up:
        if all(h._record.users == h._record.lane.waiting == 0 for h in handles):
            return True
        os.sched_yield()
    return False


def main(seconds: float) -> None:
    """Let everything go wrong for so long, and print what came of it."""
    signal.signal(signal.SIGALRM, strike)
    settings = Settings(drain_seconds=5.0, interrupt_seconds=0.2)
    with ServiceRegistry(settings=settings) as registry:
        pool = registry.ports.resources
        for card in ("card:0", "card:1"):
            pool.declare(card)
        services = {name: registry.register(name, Work, **options) for name, options in SERVICES.items()}
        told = Told()
        chaos = Chaos(services, told)
        until = time.monotonic() + seconds
        threads = [threading.Thread(target=chaos.run, args=(n, until)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        struck = be_struck(services["main"], told, until - seconds / 2)
        sys.setswitchinterval(1e-5)  # from here on threads take turns five hundred times as often
        struck += be_struck(services["main"], told, until)
        give_up = time.monotonic() + 20.0
        for thread in threads:
            thread.join(max(0.0, give_up - time.monotonic()))
        gc.collect()
        quiet = await_quiet(list(services.values()))
        report = {
            "struck": struck,
            "told": told.ends,
            "seen": {name: ends_of(handle) for name, handle in services.items()},
            "alive": sum(thread.is_alive() for thread in threads),
            "quiet": quiet,
            "slots": [h.name for h in services.values() if h._record.lane.free != h._record.lane.slots],
            "leases": [repr(lease) for place in pool for lease in pool.place(place.id).held],
            "strange": chaos.strange,
        }
        if report["alive"] or not quiet:
            tell(report)
            os._exit(0)  # a registry with such a service may not close
        answered = [handle.do(answers) for name, handle in services.items() if name != "guarded"]
        report["answered"] = set(answered) == {"answer"}
    report["threads"] = [t.name for t in threading.enumerate() if t.name.startswith("grym")]
    tell(report)


def tell(report: dict[str, Any]) -> None:
    json.dump(report, sys.stdout)
    sys.stdout.flush()


if __name__ == "__main__":
    main(float(sys.argv[1]))
