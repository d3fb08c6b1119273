"""What somebody else's code does for us, one at a time, on a thread that may wait."""

from __future__ import annotations

import threading
from collections.abc import Callable

from grym_nb.clock import Clock, monotonic
from grym_nb.errors import StateError

__all__ = ["Errand", "Work"]

_DEADLINE = 30.0  # seconds until a thread that hangs is made up for by another

#: f(job, name=..., deadline=...): runs a job in a thread that may take its time
Work = Callable[..., object]


class Errand:
    """A job that runs at most once at a time; it says itself when it has ended."""

    def __init__(self, name: str, *, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self.lock = threading.Lock()
        self._busy = False
        self._idle = threading.Event()
        self._idle.set()

    def begin(self, work: Work, job: Callable[[], object]) -> None:
        """Have the job run, unless it runs already; never waits."""
        try:
            if self._begins():
                work(job, name=self._name, deadline=self._clock() + _DEADLINE)
        except StateError:  # all is being closed
            self.end()
        except BaseException:  # Ctrl-C: the next one tries again
            self.end()
            raise

    def wait(self, until: float) -> None:
        """Return when it has ended, or at a time of the system's clock."""
        self._idle.wait(max(0.0, until - monotonic()))

    @property
    def idle(self) -> bool:
        """Whether nobody has to wait for it."""
        return self._idle.is_set()

    def end(self) -> None:
        """Say that the job has ended."""
        with self.lock:
            self.rest()

    def rest(self) -> None:
        """Say so with the lock held."""
        self._busy = False
        self._idle.set()

    def _begins(self) -> bool:
        with self.lock:
            begins, self._busy = not self._busy, True
            if begins:
                self._idle.clear()
            return begins
