"""How late the kernel's event loop is: what a busy cell does to all that waits for its turn."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any
from weakref import ref

from grym_nb.clock import Clock, monotonic
from grym_nb.errors import ConfigError, Problem
from grym_nb.metrics.given import one_of, positive
from grym_nb.metrics.series import Metrics
from grym_nb.render import brief

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["LoopLag"]


class LoopLag:
    """Measures how late a callback runs on an event loop, without a thread of its own.

    The gauge ``kernel.loop.lag.seconds`` is what it was last, ``kernel.loop.longest.seconds`` the longest of
    the last `window` seconds. While the loop is blocked no callback runs: then `lag`, and `step` for the
    gauges, tell from another thread for how long it has been silent. It ends with `stop`, or forgotten.
    """

    def __init__(self, metrics: Metrics, *, window: float = 60.0, clock: Clock = monotonic) -> None:
        one_of(metrics, Metrics, "metrics", "the metrics of a runtime, such as grym.current().metrics")
        self._window = positive(window, "window", endless=True)
        self._clock = clock
        self._lag = metrics.gauge("kernel.loop.lag.seconds")
        self._longest = metrics.gauge("kernel.loop.longest.seconds")
        self._lock = threading.Lock()
        self._late: deque[tuple[float, float]] = deque()  # when, and how late: each later than all after it
        self._last: float | None = None
        self._due: float | None = None  # when the next callback is to run
        self._run: object | None = None
        self._loop: AbstractEventLoop | None = None
        self._every = 1.0

    def start(self, loop: AbstractEventLoop, *, every: float = 1.0) -> None:
        """Measure that loop from now on, from any thread; the one before is let go of."""
        every = positive(every, "every", "seconds above 0, such as 1")
        given: Any = loop
        if not callable(getattr(given, "call_soon_threadsafe", None)):
            problem = Problem("loop", brief(loop), "an event loop, such as asyncio.get_running_loop()")
            raise ConfigError("only an event loop can be late", problems=[problem])
        self.stop()
        self._loop, self._every = loop, every
        self._run = run = object()
        self._due = self._clock()
        try:
            loop.call_soon_threadsafe(_tick, ref(self), run)
        except BaseException:  # the loop is closed
            self.stop()
            raise

    def stop(self) -> None:
        """Measure no more. Idempotent; a callback that is under way does nothing."""
        self._run = self._loop = self._due = self._last = None

    def lag(self) -> float | None:
        """Return how late the loop is: now, when it is silent, else when it was last measured.

        None when nothing was measured yet, or any more: a loop that has ended is not late.
        """
        self._see_to_its_end()
        due, last = self._due, self._last
        silent = 0.0 if due is None else self._clock() - due
        if silent > 0 and silent > (last or 0.0):
            return silent
        return last

    def longest(self) -> float | None:
        """Return the longest lag of the window, that of now included."""
        now, lag = self._clock(), self.lag()
        with self._lock:
            self._forget(now)
            known = self._late[0][1] if self._late else None
        return lag if known is None else max(known, lag or 0.0)

    def step(self) -> None:
        """Write the gauges as they are seen from outside, for when the loop cannot."""
        lag, longest = self.lag(), self.longest()
        if lag is not None and longest is not None:
            self._lag.set(lag)
            self._longest.set(longest)

    def __repr__(self) -> str:
        lag = self.lag()
        return "<LoopLag: not measured>" if lag is None else f"<LoopLag: {lag:.3g} s>"

    # -- on the loop -------------------------------------------------------------------------------

    def _see_to_its_end(self) -> None:
        loop = self._loop
        if loop is None:
            return
        if loop.is_closed():
            self.stop()
        elif self._last is not None and not loop.is_running():
            self._due = None  # nobody waits for it now; when it goes on, that was no lag

    def _ran(self, run: object) -> None:
        loop, due = self._loop, self._due
        if run is not self._run or loop is None:
            return
        now = self._clock()
        self._last = late = 0.0 if due is None else max(0.0, now - due)
        with self._lock:
            self._note(now, late)
        self._due = now + self._every
        loop.call_later(self._every, _tick, ref(self), run)
        self.step()

    def _note(self, now: float, late: float) -> None:
        while self._late and self._late[-1][1] <= late:
            self._late.pop()
        self._late.append((now, late))
        self._forget(now)

    def _forget(self, now: float) -> None:
        while self._late and self._late[0][0] < now - self._window:
            self._late.popleft()


def _tick(lag: ref[Any], run: object) -> None:
    # Weak, so that a loop does not keep alive what everybody else has forgotten.
    alive = lag()
    if alive is not None:
        alive._ran(run)
