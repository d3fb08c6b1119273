"""What happened to items, told in the order in which it did, with no lock held."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress

from grym_nb.context.item import ContextItem
from grym_nb.events import EventBus, ItemEvent

__all__ = ["Telling"]


class Telling:
    """Notes what happens under a store's lock, and publishes it afterwards.

    One thread tells at a time, whatever was noted by then and meanwhile: so subscribers hear of everything in
    the order in which it happened, and may use the store.
    """

    def __init__(self, bus: EventBus | None) -> None:
        self.own = EventBus()  # for who watches this store
        self._bus = bus  # for who hears of everything
        self.waiting: deque[ItemEvent] = deque()
        self._lock = threading.RLock()  # garbage may be collected with it held, and that ask the store
        self._teller: object = None

    def wants(self, kind: type[ItemEvent]) -> bool:
        """Tell whether anybody listens to what is of that kind."""
        return self.own.wants(kind) or (self._bus is not None and self._bus.wants(kind))

    def note(self, kind: type[ItemEvent], item: ContextItem, at: float) -> None:
        """Note what happened, if anybody wants to hear it; the store's lock is held."""
        if self.wants(kind):
            self.waiting.append(kind(at, item))

    def tell(self) -> None:
        """Publish what is noted, unless another thread (or this one, further up) is at it."""
        me = object()
        try:
            while (event := self._next(me)) is not None:
                self.own.publish(event)
                if self._bus is not None:
                    self._bus.publish(event)
        finally:
            self._give_up(me)

    def hand_over(self, other: Telling) -> None:
        """Let another tell what is noted and not told yet."""
        with suppress(IndexError):
            while True:
                other.waiting.append(self.waiting.popleft())

    def _next(self, me: object) -> ItemEvent | None:
        with self._lock:
            if self._teller not in (None, me):
                return None
            # Both under one lock: what is noted after this looked finds nobody telling, and tells itself.
            self._teller = me
            with suppress(IndexError):
                return self.waiting.popleft()
            self._teller = None
        return None

    def _give_up(self, me: object) -> None:
        with self._lock:
            if self._teller is me:
                self._teller = None
