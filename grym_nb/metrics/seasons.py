"""What comes again and again in a series: its period, and its shape.

Also what all of forecasting begins with: long series thinned out, and how far values lie apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from operator import mul
from typing import NamedTuple

__all__ = ["Point", "Season", "median", "season", "spread", "thinned"]

Point = tuple[float, float]

_LEAST_POINTS = 20
_LEAST_CYCLES = 2.5
_SHORTEST = 5  # points in a cycle
_ALIKE = 0.35  # how much one cycle has to be like the next, as a correlation
_FIRST = 0.8  # of the best likeness; a shorter period that has so much of it is the season itself
_BINS = 12
_OFF = 0.3  # cycles of the whole that a period may be off at first
_TRIES = 4  # periods that are tried on each side
_HUGE = 1e100  # of what is larger, no squares can be summed
_NORMAL = 1.4826  # from the median deviation to the standard deviation of normal noise


def median(values: Sequence[float]) -> float:
    """Return the middle value of some; of an even number, the mean of the two in the middle."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def spread(values: Sequence[float]) -> float:
    """Return how far values lie apart: their standard deviation, were they normal; up to half may be wild.

    >>> spread([1.0, 2.0, 3.0, 1000.0])
    1.4826
    """
    middle = median(values)
    return _NORMAL * median([abs(value - middle) for value in values])


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """Return at most `most` points, medians of equal spans; what is no number, or huge, is left out.

    >>> thinned([(0.0, 1.0), (1.0, 1.0), (2.0, 9.0), (3.0, 2.0), (4.0, 2.0), (5.0, 2.0)], 2)
    [(1.0, 1.0), (4.0, 2.0)]
    """
    kept = [point for point in points if -_HUGE < point[1] < _HUGE]
    if len(kept) <= most:
        return kept
    first = kept[0][0]
    width = (kept[-1][0] - first) / most
    if width <= 0:
        return kept[-most:]
    cells: dict[int, list[Point]] = {}
    for point in kept:
        cells.setdefault(min(int((point[0] - first) / width), most - 1), []).append(point)
    return [
        ((cell[(len(cell) - 1) // 2][0] + cell[len(cell) // 2][0]) / 2, median([value for _, value in cell]))
        for cell in cells.values()
    ]


class Season(NamedTuple):
    """A period in seconds, and what the season adds to a value at equal parts of it."""

    period: float
    start: float
    shape: tuple[float, ...]

    def at(self, time: float) -> float:
        """Return what the season adds at a time."""
        shape = self.shape
        place = (time - self.start) / self.period % 1.0 * len(shape)
        left = int(place) % len(shape)
        share = place - int(place)
        return shape[left] * (1 - share) + shape[(left + 1) % len(shape)] * share


def season(points: Sequence[Point]) -> Season | None:
    """Return the season of points without a trend, thinned out already; None where they have none.

    It is known from 2.5 cycles on.

    >>> found = season([(float(at), float(at % 10 < 5)) for at in range(60)])
    >>> found.period if found else None
    10.0
    """
    if len(points) < _LEAST_POINTS or points[-1][0] <= points[0][0]:
        return None
    period = _period(points)
    if period is None:
        return None
    step = _OFF * period * period / (points[-1][0] - points[0][0]) / _TRIES
    return min([_shaped(points, period + by * step) for by in range(-_TRIES, _TRIES + 1)])[1]


def _period(points: Sequence[Point]) -> float | None:
    width, likeness = _likeness(points)
    dipped = next((lag for lag, its in enumerate(likeness) if its <= 0), len(likeness))
    peaks = [
        lag
        for lag in range(max(dipped, _SHORTEST), len(likeness) - 1)
        if likeness[lag] >= _ALIKE and likeness[lag - 1] <= likeness[lag] >= likeness[lag + 1]
    ]
    if not peaks:
        return None
    enough = _FIRST * max(likeness[lag] for lag in peaks)
    first = next(lag for lag in peaks if likeness[lag] >= enough)
    return width * _refined(float(first), likeness)


def _likeness(points: Sequence[Point]) -> tuple[float, list[float]]:
    """Return the width of a step, and how like the series is to itself, so many steps later."""
    first, last = points[0][0], points[-1][0]
    gaps = [after - before for (before, _), (after, _) in pairwise(points)]
    width = max(median(gaps), (last - first) / (2 * len(points)))  # some points may be missing
    size = round((last - first) / width) + 1
    centre = median([value for _, value in points])
    far = 4 * spread([value for _, value in points]) or max(abs(value - centre) for _, value in points)
    grid, there = [0.0] * size, [0.0] * size
    for time, value in points:
        place = round((time - first) / width)
        grid[place] = min(max(value - centre, -far), far)
        there[place] = 1.0
    middle = sum(grid) / sum(there)
    grid = [value - middle if some else 0.0 for value, some in zip(grid, there, strict=True)]
    power = sum(map(mul, grid, grid)) / sum(there)
    if power <= 0:
        return width, [1.0]
    found = []
    for lag in range(int(size / _LEAST_CYCLES) + 1):
        pairs = sum(map(mul, there, there[lag:]))
        found.append(sum(map(mul, grid, grid[lag:])) / pairs / power if pairs >= size / 8 else 0.0)
    return width, found


def _refined(lag: float, likeness: Sequence[float]) -> float:
    """Return the period by its later peaks, which tell it to a fraction of a step."""
    times = 1
    while True:
        times += 1
        near = round(lag * times)
        reach = max(1, round(lag / 6))
        if near + reach >= len(likeness):
            return lag
        peak = max(range(near - reach, near + reach + 1), key=likeness.__getitem__)
        if likeness[peak] < _ALIKE / 2:
            return lag
        lag = peak / times


def _shaped(points: Sequence[Point], period: float) -> tuple[float, Season]:
    """Return how far values are from the season of a period, and that season."""
    start = points[0][0]
    bins = max(4, min(_BINS, len(points) // 6, round(period * len(points) / (points[-1][0] - start))))
    parts: list[list[float]] = [[] for _ in range(bins)]
    for time, value in points:
        parts[int((time - start) / period % 1.0 * bins + 0.5) % bins].append(value)
    middle = median([value for _, value in points])
    shape = [median(part) if part else middle for part in parts]
    far = sum([abs(value - level) for part, level in zip(parts, shape, strict=True) for value in part])
    mean = sum(shape) / bins
    return far, Season(period, start, tuple([value - mean for value in shape]))
