"""Things in the order of their time, for ranges of time that cost what is in them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grym_nb.context.index import Entry

__all__ = ["Timeline"]

_Point = tuple[float, int]
_LONGEST = 512  # of a block: what a change in the middle moves


def _point(entry: Entry) -> _Point:
    return entry.item.updated, entry.order


def _time(entry: Entry) -> float:
    return entry.item.updated


class Timeline:
    """Entries sorted by when they were written, in blocks; of one time, in the order of writing.

    An entry's time and order stay what they are for as long as it is in here.
    """

    def __init__(self) -> None:
        self._blocks: list[list[Entry]] = []
        self._firsts: list[_Point] = []

    def add(self, entry: Entry) -> None:
        """Put an entry at its time: last as a rule, and quick then. Its order is higher than all in here."""
        blocks = self._blocks
        if blocks and (last := blocks[-1])[-1].item.updated <= entry.item.updated and len(last) < _LONGEST:
            last.append(entry)
            return
        point = _point(entry)
        at = bisect_right(self._firsts, point) - 1
        if at < 0:
            self._insert(0, [entry])
            return
        block = blocks[at]
        if at == len(blocks) - 1 and len(block) >= _LONGEST and _point(block[-1]) < point:
            self._insert(at + 1, [entry])
            return
        block.insert(bisect_right(block, point, key=_point), entry)
        if len(block) > 2 * _LONGEST:
            self._insert(at + 1, block[_LONGEST:])
            del block[_LONGEST:]

    def _insert(self, at: int, block: list[Entry]) -> None:
        self._blocks.insert(at, block)
        self._firsts.insert(at, _point(block[0]))

    def remove(self, entry: Entry) -> None:
        """Take out an entry, which is there."""
        point = _point(entry)
        at = bisect_right(self._firsts, point) - 1
        block = self._blocks[at]
        place = bisect_left(block, point, key=_point)
        assert block[place] is entry
        del block[place]
        if not block:
            del self._blocks[at], self._firsts[at]
        elif not place:
            self._firsts[at] = _point(block[0])

    def newest_first(self, since: float | None = None, until: float | None = None) -> Iterator[Entry]:
        """Yield what is between two times, both included, from the last to the first."""
        at = len(self._blocks) - 1
        if until is not None:
            at = bisect_right(self._firsts, (until, float("inf"))) - 1
        while at >= 0:
            block = self._blocks[at]
            stop = len(block) if until is None else bisect_right(block, until, key=_time)
            start = 0 if since is None else bisect_left(block, since, key=_time)
            for place in range(stop - 1, start - 1, -1):
                yield block[place]
            if start:
                return
            at -= 1

    def between(self, since: float | None = None, until: float | None = None) -> int:
        """Return about how many there are between two times."""
        first = 0 if since is None else max(0, bisect_right(self._firsts, (since,)) - 1)
        last = len(self._blocks) if until is None else bisect_right(self._firsts, (until, float("inf")))
        return max(0, last - first) * _LONGEST
