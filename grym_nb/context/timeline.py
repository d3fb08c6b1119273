"""Things in the order of their time, for ranges of time that cost what is in them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["Timeline"]

T = TypeVar("T")
_Point = tuple[float, int]
_LONGEST = 512  # of a block: what a change in the middle moves


class Timeline(Generic[T]):
    """Entries sorted by ``(time, order)``, in blocks; each order is higher than all before it."""

    def __init__(self) -> None:
        self._blocks: list[list[tuple[float, int, T]]] = []
        self._firsts: list[_Point] = []

    def add(self, time: float, order: int, entry: T) -> None:
        """Put an entry at its time: last as a rule, and quick then."""
        if self._blocks and (last := self._blocks[-1])[-1][0] <= time and len(last) < _LONGEST:
            last.append((time, order, entry))
            return
        at = self._block_of(time, order)
        if at < 0:
            self._blocks.insert(0, [(time, order, entry)])
            self._firsts.insert(0, (time, order))
            return
        block = self._blocks[at]
        if block[-1][:2] < (time, order):
            if len(block) >= _LONGEST and at == len(self._blocks) - 1:
                self._blocks.append([(time, order, entry)])
                self._firsts.append((time, order))
                return
            block.append((time, order, entry))
        else:
            block.insert(bisect_left(block, (time, order)), (time, order, entry))
        if len(block) > 2 * _LONGEST:
            self._blocks.insert(at + 1, block[_LONGEST:])
            self._firsts.insert(at + 1, block[_LONGEST][:2])
            del block[_LONGEST:]

    def remove(self, time: float, order: int) -> None:
        """Take out the entry of that time and order, which is there."""
        at = self._block_of(time, order)
        block = self._blocks[at]
        place = bisect_left(block, (time, order))
        assert block[place][:2] == (time, order)
        del block[place]
        if not block:
            del self._blocks[at], self._firsts[at]
        elif not place:
            self._firsts[at] = block[0][:2]

    def newest_first(self, since: float | None = None, until: float | None = None) -> Iterator[T]:
        """Yield what is between two times, both included, from the last to the first."""
        least = (since,) if since is not None else ()
        at = len(self._blocks) - 1
        if until is not None:
            at = bisect_right(self._firsts, (until, float("inf"))) - 1
        while at >= 0:
            block = self._blocks[at]
            stop = len(block) if until is None else bisect_right(block, (until, float("inf")))
            start = bisect_left(block, least)
            for place in range(stop - 1, start - 1, -1):
                yield block[place][2]
            if start:
                return
            at -= 1

    def between(self, since: float | None = None, until: float | None = None) -> int:
        """Return about how many there are between two times."""
        first = 0 if since is None else max(0, bisect_right(self._firsts, (since,)) - 1)
        last = len(self._blocks) if until is None else bisect_right(self._firsts, (until, float("inf")))
        return max(0, last - first) * _LONGEST

    def _block_of(self, time: float, order: int) -> int:
        return bisect_right(self._firsts, (time, order)) - 1
