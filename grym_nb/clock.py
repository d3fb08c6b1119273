"""Time as a parameter: a clock is any callable that returns seconds.

A clock that also has ``wait(condition, deadline)`` (see `grym_nb.testing.FakeClock`) is asked to do the
waiting, so that a test drives a timeout instead of sleeping through it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

__all__ = ["Clock", "monotonic", "rest", "wait"]

Clock = Callable[[], float]

monotonic: Clock = time.monotonic


def wait(clock: Clock, condition: threading.Condition, deadline: float | None) -> None:
    """Wait on `condition` (held) until it is notified or `clock` reaches `deadline`; may wake early.

    Whatever it raises, the condition is held again, if its lock is an RLock: a plain one cannot tell whose it
    is, and Ctrl-C that comes as `Condition.wait` takes it back leaves it to whoever has it then.
    """
    driven = getattr(clock, "wait", None)
    try:
        if driven is not None:
            driven(condition, deadline)
        elif deadline is None:
            condition.wait()
        else:
            # A lock refuses to wait for longer than TIMEOUT_MAX, and `inf` is a fair deadline.
            condition.wait(min(max(0.0, deadline - clock()), threading.TIMEOUT_MAX))
    except BaseException:
        _take_back(condition)
        raise


def _take_back(condition: threading.Condition) -> None:
    while not condition._is_owned():  # type: ignore[attr-defined]
        with suppress(KeyboardInterrupt):
            condition.acquire()


def rest(clock: Clock, seconds: float) -> None:
    """Do nothing for so many seconds of `clock`."""
    until = clock() + seconds
    lock = threading.Lock()
    condition = threading.Condition(lock)

    def through() -> None:
        while clock() < until:
            wait(clock, condition, until)

    with lock:
        through()
