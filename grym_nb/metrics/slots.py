"""What a series was in slots of time: few bytes for a slot, none for one in which nothing came."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TypeAlias

__all__ = ["BucketSlots", "Grown", "NumberSlots", "Numbers", "Slots", "Timeline"]

#: what a counter grew by; or the last, the lowest and the highest value of a gauge
Numbers: TypeAlias = tuple[float, ...]
#: what a histogram grew by: the sum, and how many in each bucket
Grown: TypeAlias = tuple[float, Mapping[int, int]]

_SLACK = 32  # slots beyond those that are wanted, before the oldest go


class Timeline:
    """When the slots of one width began and ended, the same for all series; each slot has a number."""

    __slots__ = ("_first", "_most", "_times", "width")

    def __init__(self, width: float, most: int, begun: float) -> None:
        self.width = width
        self._most = most
        self._first = 0  # number of the oldest that is known
        self._times = array("d", [begun])

    @property
    def open(self) -> int:
        """The number of the slot that is not over yet."""
        return self._first + len(self._times) - 1

    def is_over(self, before: float, now: float) -> bool:
        """Tell whether the open slot ended between two times."""
        return before // self.width != now // self.width and self.lasts(before)

    def lasts(self, time: float) -> bool:
        """Tell whether the open slot began before a time."""
        return time > self._times[-1]

    def close(self, end: float) -> None:
        """End the open slot; the next one begins."""
        self._times.append(end)
        if len(self._times) > self._most + 1 + _SLACK:
            del self._times[:_SLACK]
            self._first += _SLACK

    def reaches(self, time: float) -> bool:
        """Tell whether all that came since a time is in these slots."""
        return not self._first or self._times[0] <= time

    @property
    def first(self) -> int:
        """The number of the oldest slot that is known."""
        return self._first

    def after(self, time: float) -> tuple[int, Sequence[float]]:
        """Return the number of the first slot that ended after a time, and the times from its begin on."""
        at = max(bisect_right(self._times, time) - 1, 0)
        return self._first + at, self._times[at:]

    def since(self, number: int) -> tuple[int, Sequence[float]]:
        """Return the same from a number on, or from the oldest that is known."""
        at = min(max(number - self._first, 0), len(self._times) - 1)
        return self._first + at, self._times[at:]


class NumberSlots:
    """Some numbers for each slot in which they changed."""

    __slots__ = ("_columns", "_numbers")

    def __init__(self, columns: int) -> None:
        self._numbers = array("I")
        self._columns = [array("d") for _ in range(columns)]

    def add(self, number: int, part: Numbers, oldest: int = 0) -> None:
        """Keep a slot; those before the oldest go, but for the last of them: a gauge is what it was then."""
        self._numbers.append(number)
        for column, value in zip(self._columns, part, strict=True):
            column.append(value)
        over = bisect_left(self._numbers, oldest) - 1
        if over > 0:
            del self._numbers[:over]
            for column in self._columns:
                del column[:over]

    def after(self, number: int) -> NumberSlots:
        """Return a copy of the slots from a number on, and of the last one before."""
        at = max(bisect_left(self._numbers, number) - 1, 0)
        found = NumberSlots(0)
        found._numbers = self._numbers[at:]
        found._columns = [column[at:] for column in self._columns]
        return found

    def total(self, number: int) -> float:
        """Return the sum of the first of its numbers from a slot on: by how much a counter grew."""
        return sum(self._columns[0][bisect_left(self._numbers, number) :])

    def __iter__(self) -> Iterator[tuple[int, Numbers]]:
        return zip(self._numbers, zip(*self._columns, strict=True), strict=True)


class BucketSlots:
    """For each slot in which a histogram counted, the sum and the buckets that grew."""

    __slots__ = ("_counts", "_firsts", "_numbers", "_sizes", "_steps", "_totals")

    def __init__(self) -> None:
        self._numbers = array("I")
        self._totals = array("d")
        self._sizes = array("H")  # how many buckets are of each slot
        self._firsts = array("h")
        self._steps = array("B")  # from one bucket to the next: most are neighbours, and take a byte
        self._counts = array("B")

    def add(self, number: int, part: Grown, oldest: int = 0) -> None:
        """Keep a slot; those before the oldest go."""
        total, grown = part
        self._numbers.append(number)
        self._totals.append(total)
        buckets = sorted(grown)
        first = buckets[0] if buckets else 0
        self._sizes = _joined(self._sizes, (len(buckets),), "HI")
        self._firsts = _joined(self._firsts, (first,), "hiq")
        steps = [bucket - before for before, bucket in zip([first, *buckets], buckets, strict=False)]
        self._steps = _joined(self._steps, steps, "BHIQ")
        self._counts = _joined(self._counts, [grown[bucket] for bucket in buckets], "BHIQ")
        over = bisect_left(self._numbers, oldest)
        if over:
            buckets_over = sum(self._sizes[:over])
            del self._steps[:buckets_over], self._counts[:buckets_over], self._firsts[:over]
            del self._numbers[:over], self._totals[:over], self._sizes[:over]

    def after(self, number: int) -> BucketSlots:
        """Return a copy of the slots from a number on."""
        at = bisect_left(self._numbers, number)
        found = BucketSlots()
        found._numbers, found._totals, found._sizes = self._numbers[at:], self._totals[at:], self._sizes[at:]
        flat = len(self._steps) - sum(found._sizes)
        found._firsts, found._steps, found._counts = (
            self._firsts[at:],
            self._steps[flat:],
            self._counts[flat:],
        )
        return found

    def total(self, number: int) -> float:
        """Return how many values came from a slot on."""
        over = sum(self._sizes[: bisect_left(self._numbers, number)])
        return float(sum(self._counts[over:]))

    def __iter__(self) -> Iterator[tuple[int, Grown]]:
        at, counts = 0, self._counts
        for number, total, size, first in zip(
            self._numbers, self._totals, self._sizes, self._firsts, strict=True
        ):
            end = at + size
            if size == 1:  # as nearly all are
                yield number, (total, {first: counts[at]})
            else:
                buckets = accumulate((first, *self._steps[at + 1 : end])) if size else ()
                yield number, (total, dict(zip(buckets, counts[at:end], strict=True)))
            at = end


Slots: TypeAlias = NumberSlots | BucketSlots


def _joined(column: array[int], more: Collection[int], codes: str) -> array[int]:
    """Return a column with more in it: a wider one where a number takes more bytes than any before."""
    try:
        column.extend(array(column.typecode, more))
    except OverflowError:
        wider = codes[codes.index(column.typecode) + 1]
        return _joined(array(wider, column), more, codes)
    return column
