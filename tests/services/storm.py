"""A storm of interrupts, in a process of its own: `python -m tests.services.storm calls|lives ROUNDS`.

Prints, as JSON, how many interrupts struck and what they left behind. In a test's own process they would also
strike in what watches it: coverage takes a lock between any two lines, and would never give it back.
"""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter

from grym_nb.services import ModelService, ServiceHandle, ServiceRegistry, task
from grym_nb.services.frame import CURRENT


class Echo(ModelService):
    def __init__(self, *, offset: int = 0) -> None:
        self.offset = offset

    @task
    def one(self) -> int:
        return 1


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


def main(what: str, rounds: int) -> None:
    """Do something until a SIGALRM strikes, each time a little later, and look at what is left."""
    act = {"calls": call, "lives": live}[what]
    signal.signal(signal.SIGALRM, strike)
    with ServiceRegistry() as registry:
        echo = registry.register("echo", Echo).load()
        struck = 0
        odd: Counter[str] = Counter()  # states that nobody is in the middle of any more
        for n in range(rounds):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-5 + n * 1e-6)
                for _ in range(20_000):  # one that strikes in a collector's callback is lost
                    act(echo)
            except KeyboardInterrupt:
                struck += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            CURRENT.set(None)
            if echo.state not in ("ready", "registered"):
                odd[echo.state] += 1
                break  # the next call would wait for ever
        record = echo._record
        left = {"users": record.users, "free": record.lane.free, "waiting": record.lane.waiting}
        answer = None if odd else echo.one()
        json.dump({"struck": struck, "odd": odd, "answer": answer, **left}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
