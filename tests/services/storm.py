"""A storm of interrupts, in a process of its own: `python -m tests.services.storm WHAT ROUNDS`.

Prints, as JSON, how many interrupts struck and what they left behind. In a test's own process they would also
strike in what watches it: coverage takes a lock between any two lines, and would never give it back.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from collections.abc import Iterator

from grym_nb.hardening.leases import Place
from grym_nb.services import ModelService, ServiceHandle, ServiceRegistry, task
from grym_nb.services.frame import CURRENT
from grym_nb.services.record import ServiceRecord


class Echo(ModelService):
    def __init__(self, *, offset: int = 0) -> None:
        self.offset = offset

    @task
    def one(self) -> int:
        return 1

    @task
    def parts(self) -> Iterator[int]:
        yield from range(3)


def strike(*_: object) -> None:
    """As Ctrl-C does."""
    raise KeyboardInterrupt


def call(echo: ServiceHandle) -> None:
    """Ask for an answer, inline."""
    echo.one()


def live(echo: ServiceHandle) -> None:
    """Load, call, change the config in place, and unload."""
    echo.one()
    echo.configure(offset=1 - echo.config["offset"])
    echo.unload()


def look(echo: ServiceHandle) -> None:
    """Ask how it is, in each way there is, and load what is loaded."""
    echo.status(), echo.ping(), echo.metrics(), echo.load()


def submit(echo: ServiceHandle) -> None:
    """Put a call in line."""
    echo.one.submit()


def read(echo: ServiceHandle) -> None:
    """Read a stream to its end, close one half read, and enter a block."""
    list(echo.parts())
    with echo.parts() as parts:
        next(parts)
    with echo.use():
        pass


def turn(echo: ServiceHandle) -> None:
    """Take turns on a device, in each way there is."""
    echo.one()
    echo.one.submit()
    read(echo)


ACTS = {"calls": call, "lives": live, "looks": look, "submits": submit, "reads": read, "turns": turn}


def card_of(record: ServiceRecord) -> Place:
    """Return the line in front of the one card there is."""
    return record.ports.resources.place("card:0")


def locked(record: ServiceRecord) -> bool:
    """Tell whether a lock is held by somebody, us among them, who does not give it back."""
    for lock in (record.lock, card_of(record).lock):
        if lock._is_owned() or not lock.acquire(timeout=5.0):  # type: ignore[attr-defined]
            return True
        lock.release()
    return False


def settled(echo: ServiceHandle) -> bool:
    """Tell whether nothing is on its way, or left behind, once the workers have had their time."""
    record, give_up = echo._record, time.monotonic() + 20.0
    gc.collect()  # of tracebacks that were kept so long
    while time.monotonic() < give_up:
        os.sched_yield()
        counts = record.users, record.lane.free, record.lane.waiting, len(card_of(record).held)
        if not locked(record) and counts == (0, 1, 0, 0):
            return True
    return False


def left(echo: ServiceHandle) -> str:
    """Say what was not given back."""
    record = echo._record
    counts = record.users, record.lane.free, record.lane.waiting
    told = f"{'locked, ' * locked(record)}users, free, waiting: {counts}; {record.lane.frames()}"
    return f"{told}; {card_of(record).held}"


def main(what: str, rounds: int) -> None:
    """Do something until a SIGALRM strikes, each time a little later, and look at what is left."""
    act = ACTS[what]
    signal.signal(signal.SIGALRM, strike)
    with ServiceRegistry() as registry:
        registry.ports.resources.declare("card:0")
        device = {"device": "card:0"} if what == "turns" else {}
        echo = registry.register("echo", Echo, **device).load()
        struck = 0
        odd = ""  # the state of a service that nobody is in the middle of any more
        for n in range(rounds):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-5 + n * 1e-6)
                for _ in range(2_000):  # one that strikes in a collector's callback is lost
                    act(echo)
            except KeyboardInterrupt:
                struck += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            CURRENT.set(None)
            if n % 50 == 0 or n == rounds - 1:
                odd = "" if settled(echo) else f"not settled after {n} rounds: {left(echo)}"
            if odd or echo.state not in ("ready", "registered"):
                odd = odd or f"{echo.state} after {n} rounds"
                break  # the next call might wait for ever
        answer = None if odd else echo.one()
        json.dump({"struck": struck, "odd": odd, "answer": answer}, sys.stdout)
        sys.stdout.flush()
        if odd:
            os._exit(0)  # a registry with such a service may not close


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
