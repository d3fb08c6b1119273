"""What happened, as frozen records in the past tense, and the bus that carries them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = [
    "CallEnded",
    "Event",
    "EventBus",
    "ServiceChanged",
    "ServiceRegistered",
    "ServiceRemoved",
    "StateChanged",
]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to `service` at `at` (seconds of the runtime's clock)."""

    service: str
    at: float


@dataclass(frozen=True, slots=True)
class ServiceRegistered(Event):
    """A name got a service; nothing is loaded yet."""

    version: str


@dataclass(frozen=True, slots=True)
class ServiceChanged(Event):
    """A registered service got a new spec under the same handle; `what` names the parts that differ."""

    version: str
    what: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ServiceRemoved(Event):
    """The service is gone, and its handle is closed."""


@dataclass(frozen=True, slots=True)
class StateChanged(Event):
    """The service's state moved."""

    before: str
    after: str
    reason: str


@dataclass(frozen=True, slots=True)
class CallEnded(Event):
    """A call ended, in whatever way; `outcome` is ``"ok"`` or the error's code."""

    task: str
    version: str
    call: str
    outcome: str
    seconds: float


class _Subscription:
    """One `subscribe`: the same callable may be there twice, and each ends by itself."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[Any], object]) -> None:
        self.call = call


class EventBus:
    """Carries events to subscribers, in the thread in which they happened.

    Subscribers are plain callables and must be quick. One that raises is logged and dropped; the one who
    published never feels it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Replaced as a whole, never changed in place: publishing takes no lock.
        self._subscribers: dict[type[Event], tuple[_Subscription, ...]] = {}
        #: ``wants(CallEnded)``, kept ready: it is asked at every call
        self.wants_calls = False

    def subscribe(self, subscriber: Callable[[Any], object], *kinds: type[Event]) -> Callable[[], None]:
        """Call `subscriber` once with every event of `kinds` (all when none is named).

        Returns a function that ends this subscription; calling it again does nothing.
        """
        wanted = (Event,) if not kinds or Event in kinds else dict.fromkeys(kinds)
        subscription = _Subscription(subscriber)
        with self._lock:
            table = dict(self._subscribers)
            for kind in wanted:
                table[kind] = (*table.get(kind, ()), subscription)
            self._set(table)
        return lambda: self._drop(subscription)

    def wants(self, kind: type[Event]) -> bool:
        """Tell whether anybody listens to `kind`, so that a hot path need not build the event."""
        table = self._subscribers
        return bool(table) and (kind in table or Event in table)

    def publish(self, event: Event) -> None:
        """Hand `event` to whoever asked for its kind or for all."""
        table = self._subscribers
        if not table:
            return
        kind = type(event)
        own = table.get(kind, ()) if kind is not Event else ()
        for subscription in (*own, *table.get(Event, ())):
            try:
                subscription.call(event)
            except Exception:
                _log.exception("subscriber %r raised on %r and is dropped", subscription.call, event)
                self._drop(subscription)

    def _drop(self, gone: _Subscription) -> None:
        with self._lock:
            self._set(_without(gone, self._subscribers))

    def _set(self, table: dict[type[Event], tuple[_Subscription, ...]]) -> None:
        self._subscribers = table
        self.wants_calls = self.wants(CallEnded)


def _without(
    gone: _Subscription, table: dict[type[Event], tuple[_Subscription, ...]]
) -> dict[type[Event], tuple[_Subscription, ...]]:
    left = {kind: tuple(one for one in held if one is not gone) for kind, held in table.items()}
    return {kind: held for kind, held in left.items() if held}
