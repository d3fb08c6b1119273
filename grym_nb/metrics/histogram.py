"""A histogram that answers percentiles within a stated error, in microseconds and a few kilobytes."""

from __future__ import annotations

import threading
from bisect import bisect_right
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from math import ceil, frexp, inf, ldexp
from sys import float_info
from typing import ClassVar

from grym_nb.errors import Problem, ValidationError
from grym_nb.metrics.given import number, one_of, refusal
from grym_nb.render import brief

__all__ = ["Frozen", "Histogram", "HistogramSnapshot", "is_bucket"]

_SUB = 32  # linear buckets in each power of two
_TWICE = 2 * _SUB
_MOST = float_info.max
_ZERO = -(10**6)  # the bucket of zero, below all others
_OTHERS = range(-1100 * _SUB, 1026 * _SUB)  # the buckets that there can be of what is more than that
_MEDIAN = "for the median say percentile(50)"


@dataclass(frozen=True, slots=True)
class HistogramSnapshot:
    """A histogram as it was. Without values, all but `count` and `total` are None."""

    count: int
    total: float
    low: float | None
    high: float | None
    p50: float | None
    p95: float | None
    p99: float | None

    @property
    def mean(self) -> float | None:
        """The mean of all values, None when there are none."""
        return self.total / self.count if self.count else None


class Histogram:
    """Counts values of zero and more: percentiles within `ERROR`; count, sum, lowest and highest as they are.

    Each power of two is cut into equal buckets, and only those that hold something exist. Safe from any
    thread.
    """

    #: how far a percentile may be from the exact one, relative to it (for values down to 1e-300)
    ERROR: ClassVar[float] = 1 / _TWICE

    __slots__ = ("_buckets", "_count", "_high", "_lock", "_low", "_total")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buckets: dict[int, int] = {}
        self._count = 0
        self._total = 0.0
        self._low = inf
        self._high = -inf

    def record(self, value: float) -> None:
        """Count `value`. Negative, infinite and undefined ones raise ValueError."""
        if type(value) is not float:
            value = number(value)
        if not 0.0 <= value <= _MOST:
            raise refusal("value", value, "finite values of zero and more")
        if value:
            fraction, exponent = frexp(value)  # 0.5 <= fraction < 1
            bucket = exponent * _SUB + int(fraction * _TWICE)
        else:
            bucket = _ZERO
        with self._lock:
            try:
                self._buckets[bucket] += 1
            except KeyError:
                self._buckets[bucket] = 1
            self._count += 1
            self._total += value
            if value < self._low:
                self._low = value
            if value > self._high:
                self._high = value

    @property
    def count(self) -> int:
        """How many values there are."""
        return self._count

    @property
    def total(self) -> float:
        """The sum of all values."""
        return self._total

    @property
    def low(self) -> float | None:
        """The lowest value, None when there is none."""
        return self._low if self._count else None

    @property
    def high(self) -> float | None:
        """The highest value, None when there is none."""
        return self._high if self._count else None

    @property
    def mean(self) -> float | None:
        """The mean of all values, None when there are none."""
        with self._lock:
            return self._total / self._count if self._count else None

    def percentile(self, q: float) -> float | None:
        """Return the value that `q` percent are at or below (nearest rank), None when there is none."""
        try:
            fits = bool(0 <= q <= 100)
        except Exception:  # of whatever is no number
            fits = False
        if not fits:
            problem = Problem("q", brief(q), "a number from 0 to 100, such as 95")
            raise ValidationError("a percentile is between 0 and 100", problems=[problem], hint=_MEDIAN)
        return self.frozen().percentiles(q)[0]

    def cumulative(self, bounds: tuple[float, ...]) -> tuple[tuple[int, ...], float]:
        """Return how many values are at or below each of the ascending `bounds`, and the sum of all values.

        Never too few: what shares a bound's bucket, and so is above it by 1/32 of it at most, is counted too.
        """
        try:
            lasts = _buckets_of(bounds)
        except TypeError:
            raise refusal("bounds", bounds, "a tuple of ascending numbers, such as (0.1, 1.0)") from None
        now = self.frozen()
        buckets = sorted(now.buckets)
        passed = [0, *accumulate(map(now.buckets.__getitem__, buckets))]
        return tuple([passed[bisect_right(buckets, last)] for last in lasts]), now.total

    def merge(self, other: Histogram) -> None:
        """Count everything in `other` here too, as if it had been recorded in both."""
        one_of(other, Histogram, "other", "a histogram")
        added = other.frozen()
        if not added.count:
            return
        with self._lock:
            for bucket, n in added.buckets.items():
                self._buckets[bucket] = self._buckets.get(bucket, 0) + n
            self._count += added.count
            self._total += added.total
            self._low = min(self._low, added.low)
            self._high = max(self._high, added.high)

    def snapshot(self) -> HistogramSnapshot:
        """Return all of it as of one moment."""
        now = self.frozen()
        low, high = (now.low, now.high) if now.count else (None, None)
        return HistogramSnapshot(now.count, now.total, low, high, *now.percentiles(50, 95, 99))

    def __repr__(self) -> str:
        now = self.snapshot()
        if now.p50 is None:
            return "<Histogram: empty>"
        return (
            f"<Histogram: {now.count} values, p50 {now.p50:.3g}, p95 {now.p95:.3g}, highest {now.high:.3g}>"
        )

    def frozen(self) -> Frozen:
        """Return the buckets as they are now, and what was counted in them."""
        # Sorting happens on the copy, so that those who record wait for a dict's copy and no more.
        with self._lock:
            return Frozen(dict(self._buckets), self._count, self._total, self._low, self._high)


@cache
def _buckets_of(bounds: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(map(_bucket_of, bounds))


def _bucket_of(bound: float) -> float:
    if not 0 < bound < inf:
        return {0.0: _ZERO, inf: inf}.get(bound, -inf)
    fraction, exponent = frexp(bound)
    return exponent * _SUB + int(fraction * _TWICE)


@dataclass(frozen=True, slots=True)
class Frozen:
    """What a histogram has counted: how many values in each bucket, and the lowest and the highest one."""

    buckets: dict[int, int]
    count: int
    total: float
    low: float
    high: float

    @classmethod
    def of(cls, buckets: dict[int, int], total: float) -> Frozen:
        """Return it for buckets alone: the lowest and the highest value as near as these tell."""
        if not buckets:
            return cls({}, 0, 0.0, inf, -inf)
        count, low, high = sum(buckets.values()), _middle(min(buckets)), _middle(max(buckets))
        mean = total / count  # which no value need be near to, but one is below it, and one above
        low = mean if low * (1 - Histogram.ERROR) <= mean < low else low
        high = mean if high < mean <= high * (1 + Histogram.ERROR) else high
        return cls(buckets, count, total, low, high)

    def percentiles(self, *ascending: float) -> list[float | None]:
        """Return for each percentage, ascending, the value that so many are at or below."""
        if not self.count:
            return [None] * len(ascending)
        found: list[float | None] = []
        passed = 0
        buckets = iter(sorted(self.buckets.items()))
        bucket = _ZERO
        for q in ascending:
            rank = max(1, ceil(q * self.count / 100))
            while passed < rank:
                bucket, n = next(buckets)
                passed += n
            found.append(self._value(bucket, rank))
        return found

    def _value(self, bucket: int, rank: int) -> float:
        if rank == 1:
            return self.low
        if rank == self.count:
            return self.high
        return min(max(_middle(bucket), self.low), self.high)


def is_bucket(value: object) -> bool:
    """Tell whether something is the number of a bucket that there can be."""
    return type(value) is int and (value == _ZERO or value in _OTHERS)


def _middle(bucket: int) -> float:
    if bucket == _ZERO:
        return 0.0
    # A fraction is in [SUB, 2 SUB) buckets, so an exponent's first bucket is at SUB more.
    exponent, part = divmod(bucket - _SUB, _SUB)
    return ldexp((_SUB + part + 0.5) / _TWICE, exponent)
