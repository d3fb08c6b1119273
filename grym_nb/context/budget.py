"""What a store may hold, and what goes first when that is too much: the least important, least used."""

from __future__ import annotations

import heapq

from grym_nb.context.content import said_size
from grym_nb.context.index import Entry
from grym_nb.errors import ResourceExhausted
from grym_nb.priority import PRIORITIES
from grym_nb.render import count
from grym_nb.render import size as in_words

__all__ = ["Budget"]

_Waiting = tuple[int, int, Entry]


class Budget:
    """Bytes and items in use. Pinned and critical items stay; of the others the least important goes first.

    Of equal ones that goes which was not used for longest. Each stands in a heap with the use that it had
    when it was put there, and is put back when it was used since: so a use costs nothing but a number.
    With `keeps`, what is said of an item stays in memory, and counts, when its content goes.
    """

    def __init__(self, max_bytes: int | None, max_items: int | None, *, keeps: bool = False) -> None:
        self.limits = (max_bytes, max_items)
        self._keeps = keeps
        self.used = [0, 0]  # bytes and items
        self._staying = [0, 0]
        self._heaps: tuple[list[_Waiting], ...] = tuple([] for _ in PRIORITIES)
        self._count = 0
        self.bounded = max_bytes is not None or max_items is not None

    def add(self, entry: Entry) -> None:
        """Count an entry in."""
        used = self.used
        used[0] += entry.size
        used[1] += 1
        if entry.stays:
            self._staying[0] += entry.size
            self._staying[1] += 1
        elif self.bounded:
            self._line_up(entry)

    def remove(self, entry: Entry) -> None:
        """Count an entry out."""
        for counted in (self.used, self._staying) if entry.stays else (self.used,):
            counted[0] -= entry.size
            counted[1] -= 1
        entry.turn = 0

    def _line_up(self, entry: Entry) -> None:
        self._count += 1
        entry.turn = self._count
        heap = self._heaps[entry.item.priority]
        heapq.heappush(heap, (entry.used, self._count, entry))
        if len(heap) > 64 and len(heap) > 2 * self.used[1]:  # most of them say nothing any more
            heap[:] = [waiting for waiting in heap if waiting[1] == waiting[2].turn]
            heapq.heapify(heap)

    def make_room(
        self, size: int, priority: int, *, stays: bool, instead_of: Entry | None = None, items: int = 1
    ) -> list[Entry]:
        """Return what has to go before an item of `size` bytes can come, maybe in the place of another.

        Raises before anything goes where that would not do: nothing more important goes for it.
        """
        over = self._over(size, items, instead_of)
        if max(over) <= 0:
            return []
        going: list[Entry] = []
        for rank in range(priority + 1 if not stays else len(PRIORITIES)):
            while max(over) > 0 and (entry := self._least_used(rank)) is not None:
                going.append(entry)
                if entry is not instead_of:  # that one goes anyway
                    left = said_size(entry.item.metadata) if self._keeps else 0
                    over = [over[0] - entry.size + left, over[1] - 1]
        if max(over) > 0:
            for entry in going:  # nothing has happened to them
                self._line_up(entry)
            raise self._refusal(size)
        return [entry for entry in going if entry is not instead_of]

    def is_short(self, size: int, instead_of: Entry | None) -> bool:
        """Tell whether something has to go before an item of `size` bytes can come."""
        return max(self._over(size, 1, instead_of)) > 0

    def _over(self, size: int, items: int, instead_of: Entry | None) -> list[int]:
        """Return by how much bytes and items would be over their limits with another item."""
        asked = (size, items) if instead_of is None else (size - instead_of.size, 0)
        return [
            0 if limit is None else used + more - limit
            for limit, used, more in zip(self.limits, self.used, asked, strict=True)
        ]

    def _least_used(self, rank: int) -> Entry | None:
        heap = self._heaps[rank]
        while heap:
            used, turn, entry = heapq.heappop(heap)
            if turn != entry.turn:
                continue  # gone, or put in anew
            if used == entry.used:
                return entry
            heapq.heappush(heap, (entry.used, turn, entry))
        return None

    def _way_out(self, size: int) -> str:
        max_bytes, max_items = self.limits
        if max_bytes is not None and size > max_bytes:
            return (
                "make max_bytes larger (of the kernel's own: Settings(context_bytes=...)), or put less of it"
            )
        larger = " or ".join(
            name for name, limit in (("max_bytes", max_bytes), ("max_items", max_items)) if limit is not None
        )
        more = "" if self._all_stay else " give it a higher priority,"
        return f"delete or unpin something,{more} or make {larger} larger"

    @property
    def _all_stay(self) -> bool:
        """Whether all that is here is pinned or critical: then no priority is high enough."""
        return self._staying[1] == self.used[1]

    def _refusal(self, size: int) -> ResourceExhausted:
        max_bytes, max_items = self.limits
        limits = [in_words(max_bytes)] if max_bytes is not None else []
        limits += [count(max_items, "item")] if max_items is not None else []
        stay = f"{in_words(self._staying[0])} in {self._staying[1]} pinned or critical ones"
        return ResourceExhausted(
            f"an item of {in_words(size)} does not fit into a store of at most {' and '.join(limits)}",
            cause=f"in use: {in_words(self.used[0])} in {count(self.used[1], 'item')}; {stay} stay",
            hint=self._way_out(size),
            limit=max_bytes,
            use=self.used[0],
        )
