"""What happened, as frozen records in the past tense, and the bus that carries them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = [
    "AlertChanged",
    "BreakerChanged",
    "CallEnded",
    "Event",
    "EventBus",
    "HealthChanged",
    "ItemDeleted",
    "ItemEvent",
    "ItemEvicted",
    "ItemExpired",
    "ItemPut",
    "ItemUpdated",
    "RecoveryEnded",
    "RecoveryGaveUp",
    "RecoveryRests",
    "ServiceChanged",
    "ServiceEvent",
    "ServiceRegistered",
    "ServiceReloaded",
    "ServiceRemoved",
    "StateChanged",
    "SystemHealthChanged",
]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened at `at`, in seconds of the clock of what it happened to."""

    at: float


# -- to a service ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ServiceEvent(Event):
    """Something that happened to `service`."""

    service: str


@dataclass(frozen=True, slots=True)
class ServiceRegistered(ServiceEvent):
    """A name got a service; nothing is loaded yet."""

    version: str


@dataclass(frozen=True, slots=True)
class ServiceChanged(ServiceEvent):
    """A registered service got a new spec under the same handle; `what` names the parts that differ."""

    version: str
    what: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ServiceReloaded(ServiceEvent):
    """A service was to get other code: `how` it went ("in place", "loaded", "refused", ...), and why.

    `by` tells who began it ("asked", "watch", "calls"); `line` says all of it.
    """

    version: str
    how: str
    why: str
    by: str = "asked"
    line: str = ""


@dataclass(frozen=True, slots=True)
class ServiceRemoved(ServiceEvent):
    """The service is gone, and its handle is closed."""


@dataclass(frozen=True, slots=True)
class StateChanged(ServiceEvent):
    """The service's state moved."""

    before: str
    after: str
    reason: str


@dataclass(frozen=True, slots=True)
class CallEnded(ServiceEvent):
    """A call ended, in whatever way; `outcome` is ``"ok"`` or the error's code."""

    task: str
    version: str
    call: str
    outcome: str
    seconds: float
    config_version: int = 1


@dataclass(frozen=True, slots=True)
class HealthChanged(ServiceEvent):
    """What is thought of the service changed; `reason` is what speaks against it."""

    before: str
    after: str
    reason: str


@dataclass(frozen=True, slots=True)
class RecoveryEnded(ServiceEvent):
    """An attempt to mend the service ended: by which step, whether that helped, after how long.

    Where only calls could show it, `helped` comes when they have; None if nobody called in time, or somebody
    else has loaded it meanwhile.
    """

    step: str
    helped: bool | None
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class RecoveryRests(ServiceEvent):
    """Nothing more is tried for so many `seconds`: the budget is spent, and it goes on to answer."""

    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class RecoveryGaveUp(ServiceEvent):
    """The service is left as failed: nothing that was tried has mended it."""

    reason: str
    hint: str


@dataclass(frozen=True, slots=True)
class SystemHealthChanged(Event):
    """What is thought of all services together, and of the kernel, changed."""

    before: str
    after: str
    reason: str


@dataclass(frozen=True, slots=True)
class AlertChanged(Event):
    """An alert began to fire, or is over; `alert` is all that is known of it."""

    alert: Any


@dataclass(frozen=True, slots=True)
class BreakerChanged(Event):
    """The breaker `name` opened, is half open, or closed; `by_hand` where somebody said so."""

    name: str
    before: str
    after: str
    reason: str
    by_hand: bool = False


# -- to what models share --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ItemEvent(Event):
    """Something that happened to an item of context; `item` is the item as it was then."""

    item: Any

    @property
    def id(self) -> str:
        """The item's id."""
        return str(self.item.id)

    @property
    def key(self) -> str | None:
        """The item's key."""
        key: str | None = self.item.key
        return key

    @property
    def age(self) -> float:
        """How many seconds before it was first put."""
        return self.at - float(self.item.created)


@dataclass(frozen=True, slots=True)
class ItemPut(ItemEvent):
    """A new item is there."""


@dataclass(frozen=True, slots=True)
class ItemUpdated(ItemEvent):
    """An item was written anew, or holds for another time, or is pinned or no more."""


@dataclass(frozen=True, slots=True)
class ItemDeleted(ItemEvent):
    """An item was taken out by somebody."""


@dataclass(frozen=True, slots=True)
class ItemExpired(ItemEvent):
    """An item's time was up."""


@dataclass(frozen=True, slots=True)
class ItemEvicted(ItemEvent):
    """An item had to make room for another; with a file it is still there."""


# -- the bus ---------------------------------------------------------------------------------------


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
        self._subscribers: dict[type, tuple[_Subscription, ...]] = {}
        #: ``wants(CallEnded)``, kept ready: it is asked at every call
        self.wants_calls = False

    def subscribe(self, subscriber: Callable[[Any], object], *kinds: type[Event]) -> Callable[[], None]:
        """Call `subscriber` once with every event of `kinds` and their subclasses (all when none is named).

        Returns a function that ends this subscription; calling it again does nothing.
        """
        named = dict.fromkeys(kinds or (Event,))
        wanted = [kind for kind in named if not any(base in named for base in kind.__mro__[1:])]
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
        return bool(table) and any(base in table for base in kind.__mro__)

    def publish(self, event: Event) -> None:
        """Hand `event` to whoever asked for its kind, or for one that it is a kind of."""
        table = self._subscribers
        if not table:
            return
        for subscription in [one for kind in type(event).__mro__ for one in table.get(kind, ())]:
            try:
                subscription.call(event)
            except Exception:
                _log.exception("subscriber %r raised on %r and is dropped", subscription.call, event)
                self._drop(subscription)

    def _drop(self, gone: _Subscription) -> None:
        with self._lock:
            self._set(_without(gone, self._subscribers))

    def _set(self, table: dict[type, tuple[_Subscription, ...]]) -> None:
        self._subscribers = table
        self.wants_calls = self.wants(CallEnded)


def _without(
    gone: _Subscription, table: dict[type, tuple[_Subscription, ...]]
) -> dict[type, tuple[_Subscription, ...]]:
    left = {kind: tuple(one for one in held if one is not gone) for kind, held in table.items()}
    return {kind: held for kind, held in left.items() if held}
