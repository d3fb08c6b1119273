"""Taking out what has expired, a little at a time, so that others get their turn."""

from __future__ import annotations

from grym_nb.clock import Clock, monotonic
from grym_nb.context.index import Entry
from grym_nb.context.item import ContextItem
from grym_nb.context.shelf import Shelf
from grym_nb.context.storage import Storage, Writing, whole
from grym_nb.context.telling import Telling
from grym_nb.events import ItemExpired

__all__ = ["Sweeping"]

_STEP_SECONDS = 0.0006  # after which a sweep ends what it is at: within a millisecond
_AT_ONCE = 16  # items in one change; of a file more, since each change costs so much more there


class Sweeping:
    """The sweeps of one store."""

    def __init__(self, shelf: Shelf, storage: Storage, telling: Telling, clock: Clock) -> None:
        self._shelf = shelf
        self._storage = storage
        self._telling = telling
        self._clock = clock

    def sweep(self, seconds: float | None) -> int:
        """Take out what has expired, for so many seconds at most; return how many it was."""
        until = float("inf") if seconds is None else monotonic() + max(seconds, _STEP_SECONDS)
        swept = 0
        while some := self.some():
            swept += some
            if monotonic() >= until:
                break
        return swept

    def some(self) -> int:
        """Take out a few; return how many, nought when nothing is due any more."""
        now = self._clock()
        if not self._shelf.is_due(now):
            return 0
        due: list[Entry] = []

        def write(file: Writing) -> list[ContextItem]:
            self._shelf.due(now, _AT_ONCE * (4 if self._shelf.keeps else 1), due)
            items = [entry.item for entry in due]
            if self._telling.wants(ItemExpired):
                items = whole(items, file.contents_of)
            file.delete([item.id for item in items], "expired", now)
            return items

        def apply(items: list[ContextItem]) -> int:
            return self._shelf.take_out([item.id for item in items], "expired", now, items)

        try:
            count = self._storage.change(write, apply)
        finally:
            self._shelf.undo(due)
        self._shelf.free()
        if self._telling.waiting:
            self._telling.tell()
        return count
