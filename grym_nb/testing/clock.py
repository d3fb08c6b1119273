"""A clock that a test drives: time passes when the test says so, and then at once."""

from __future__ import annotations

import threading

__all__ = ["FakeClock"]


class FakeClock:
    """A clock that stands still until `advance`; whoever waits through it wakes when its time has come.

    Safe to use from any number of threads. `start` is in seconds, and its value means nothing.
    """

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        # One record for each waiter: several may wait on one condition.
        self._waiting: dict[object, tuple[threading.Condition, float | None]] = {}

    def __call__(self) -> float:
        return self._now

    @property
    def waiters(self) -> int:
        """How many threads wait through this clock."""
        return len(self._waiting)

    def advance(self, seconds: float) -> float:
        """Let `seconds` pass, wake everyone whose deadline that reaches, and return the new time.

        Those who are woken no longer count as `waiters`. Do not hold a condition that somebody waits on.
        """
        if not seconds >= 0:
            raise ValueError(f"time does not go back: {seconds!r}")
        with self._lock:
            self._now += seconds
            due = self._take_due()
            now = self._now
        # Without our lock: whoever is about to wait holds its condition and asks for our lock.
        for condition in {id(condition): condition for _, condition in due}.values():
            with condition:
                condition.notify_all()
        return now

    def _take_due(self) -> list[tuple[object, threading.Condition]]:
        due = [
            (ticket, condition)
            for ticket, (condition, deadline) in self._waiting.items()
            if deadline is not None and deadline <= self._now
        ]
        for ticket, _ in due:
            del self._waiting[ticket]
        return due

    def wait(self, condition: threading.Condition, deadline: float | None) -> None:
        """Wait on `condition`, which is held, until it is notified or the time is `deadline`."""
        ticket = object()
        with self._lock:
            if deadline is not None and deadline <= self._now:
                return
            self._waiting[ticket] = (condition, deadline)
            self._arrived.notify_all()
        try:
            condition.wait()
        finally:
            with self._lock:
                self._waiting.pop(ticket, None)

    def until_waiting(self, n: int = 1, timeout: float = 60.0) -> None:
        """Return once `n` threads wait through this clock; TimeoutError after `timeout` real seconds."""
        with self._lock:
            if not self._arrived.wait_for(lambda: len(self._waiting) >= n, timeout):
                raise TimeoutError(f"{len(self._waiting)} threads wait through the clock, not {n}")

    def __repr__(self) -> str:
        return f"<FakeClock at {self._now:g}, {self.waiters} waiting>"
