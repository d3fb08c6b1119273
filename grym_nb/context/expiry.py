"""Which items are due: found without a look at those that are not."""

from __future__ import annotations

import heapq

from grym_nb.context.index import Entry

__all__ = ["Expiry"]


class Expiry:
    """Entries by the time at which they expire; one that was extended stays where it was until it is up."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Entry]] = []
        self._count = 0
        self._dead = 0  # notes in the heap that say nothing any more

    @property
    def soonest(self) -> float:
        """A time before which nothing is due."""
        heap = self._heap
        return heap[0][0] if heap else float("inf")

    def note(self, entry: Entry) -> None:
        """Note when an entry expires, if it does, and sooner than was noted."""
        expires = entry.item.expires
        if expires is None:
            return
        due = entry.due
        if due is not None:
            if due <= expires:
                return
            self._drop(entry)
        entry.due = expires
        self._count += 1
        heapq.heappush(self._heap, (expires, self._count, entry))

    def next(self, now: float) -> Entry | None:
        """Take out an entry that has expired by `now`; None when there is none left."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            due, _, entry = heapq.heappop(heap)
            if due != entry.due:
                self._dead -= 1
                continue
            entry.due = None
            expires = entry.item.expires
            if expires is not None and expires <= now:
                return entry
            self.note(entry)
        return None

    def forget(self, entry: Entry) -> None:
        """Let go of an entry that is gone."""
        if entry.due is not None:
            self._drop(entry)

    def _drop(self, entry: Entry) -> None:
        entry.due = None
        self._dead += 1
        if self._dead > 64 and self._dead * 2 > len(self._heap):
            self._heap = [note for note in self._heap if note[0] == note[2].due]
            heapq.heapify(self._heap)
            self._dead = 0
