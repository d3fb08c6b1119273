"""What a call path needs from other parts of the house, with null defaults.

`Ports()` alone makes a registry that works: its own bus, metrics and pulse, and nothing in the steps whose
part is not wired. The runtime puts the real parts in. A step that is None costs one comparison.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from grym_nb.clock import Clock, monotonic
from grym_nb.events import EventBus
from grym_nb.hardening import ResourcePool
from grym_nb.metrics import Metrics
from grym_nb.pulse import Pulse, Workers
from grym_nb.services.engines.loop import LoopThread
from grym_nb.services.failure import LastFailure
from grym_nb.services.memory import waiting_by_hand
from grym_nb.services.weights import SharedWeights
from grym_nb.settings import Settings

if TYPE_CHECKING:
    from grym_nb.errors import GrymError
    from grym_nb.services.frame import Frame
    from grym_nb.services.record import ServiceRecord

__all__ = ["Breaker", "Ended", "Ports"]


class Breaker(Protocol):
    """Refuses fast when a service is failing; told of engine time and failed loads only."""

    def ask(self, frame: Frame) -> None:
        """Raise `BreakerOpen` to refuse the call."""

    def told(self, frame: Frame, seconds: float, error: GrymError | None) -> None:
        """Hear how the engine did."""

    def over(self, frame: Frame) -> None:
        """Hear that the call is over, whether the engine was reached or not."""


class Ended(NamedTuple):
    """One line of the log of recent calls."""

    id: int
    at: float
    service: str
    task: str
    version: str
    outcome: str
    seconds: float
    error: str
    given: int  # stands for the arguments of one that took long and was answered; 0: nobody can tell


class Ports:
    """The seams of the call path, in the order of its steps, and what all of it stands on."""

    def __init__(self, *, settings: Settings | None = None, clock: Clock | None = None) -> None:
        # Set here rather than on the class: a call reads most of them, and an instance's are quicker.
        #: 2  f(frame) -> (hit, value)
        self.cache: Callable[[Frame], tuple[bool, Any]] | None = None
        #: 3  f(frame, error) -> value, or raises
        self.fallback: Callable[[Frame, GrymError], Any] | None = None
        #: 4  f(frame, attempt) -> value; calls attempt(frame) as often as its policy allows
        self.retry: Callable[[Frame, Callable[[Frame], Any]], Any] | None = None
        #: 5
        self.breaker: Breaker | None = None
        #: 6  f(record, frame) -> the reservation under which the record loads
        self.admit: Callable[[ServiceRecord, Frame], AbstractContextManager[Any]] | None = None
        #: 10 f(frame) -> the adapted context for a task that takes one
        self.context: Callable[[Frame], Any] | None = None
        #: 11 f(frame, value): keep the result in the context
        self.store: Callable[[Frame, Any], None] | None = None

        self.settings = settings or Settings()
        self.given_clock = clock  # None: each part has the one that suits it
        self.clock = clock or monotonic
        #: what services take turns on
        self.resources = ResourcePool(
            clock=self.clock,
            ageing_seconds=self.settings.ageing_seconds,
            memory=self.settings.memory,
            eviction=self.settings.eviction,
        )
        self.events = EventBus()
        self.metrics = Metrics()
        self.pulse = Pulse(
            self.clock, work_threads=self.settings.work_threads, linger=self.settings.linger_seconds
        )
        self.resources.leftovers.later = partial(self.pulse.work, name="giving memory back")
        self.resources.ledger.later = partial(self.pulse.work, name="keeping within a budget")
        self.resources.ledger.waiting = partial(waiting_by_hand, self.resources.ledger)
        self.workers = Workers("grym-call", linger=self.settings.linger_seconds)
        self.loop = LoopThread()
        self.failures = LastFailure()
        self.weights = SharedWeights(self.metrics)
        # Plain tuples with the fields of `Ended`: this is written at every call and read rarely.
        self.calls: deque[tuple[int, float, str, str, str, str, float, str, int]]
        self.calls = deque(maxlen=self.settings.calls_kept)

    def close(self, timeout: float = 2.0) -> tuple[str, ...]:
        """End the threads; return the names of those that still run."""
        return (*self.loop.close(timeout), *self.workers.close(timeout), *self.pulse.close(timeout))
