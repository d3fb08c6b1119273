"""Where a series is going: its trend, when it will reach a limit, and what it looks like.

All take points, ``(time in seconds, value)``; they need not be evenly spaced, and some may be missing or
wild. A day of points takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import copysign, inf, isnan, sqrt
from typing import Literal

from grym_nb.errors import says_what_it_takes
from grym_nb.metrics.changes import Account, Change, Spike, account, around, dependence, spikes, steps_of
from grym_nb.metrics.given import number, points_of, refusal
from grym_nb.metrics.seasons import Point, median, spread, thinned

__all__ = ["Kind", "Reach", "Shape", "Trend", "classify", "time_to", "trend"]

Kind = Literal["steady", "noise", "seasonal", "trend", "step", "spike", "leak", "drift", "absence"]

_LEAST = 8  # points
_MOST = 120  # of which all pairs are looked at
_AHEAD = 10.0  # times the time seen
_CURVED = 8.0  # errors of a median: how far from a line the middle has to be
_SURE = 1.645  # 90 % of a normal distribution
_RISE = 3.0  # of the noise; what rises by less is level
_LEVEL = 0.4  # of the noise: how far its middle may be from the level
_PART = 0.06  # of the height of a season
_STEADY = 0.02  # noise of a steady series, as a share of its level
_SHARP = 3.0  # a fall at once, in spreads of what the value changes by from point to point
_DEEP = 0.35  # of the deepest fall
_TEETH = 3  # such falls make a saw
_TELLING = 16  # points that say where something is going
_STEEP = 0.15  # of the moves of a staircase are its steps, at most
_FAR = 4.0  # how far it has to have come, in what its other moves may add up to by chance
_FLAT = 0.25  # of the way is what the other moves come to
_SILENT = 5.0  # usual gaps without a point
_UNITS = ((86400.0, "days"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


@dataclass(frozen=True, slots=True)
class Trend:
    """How a value changes by now, without its noise, its season and its steps.

    `level` is what it is at the last point; `slope`, a second, is between `low` and `high` in about nine of
    ten cases. It has gone like that from `since` to `until`, the times of points.
    """

    slope: float
    low: float
    high: float
    level: float
    noise: float
    season: float | None
    since: float
    until: float

    @property
    def rise(self) -> float:
        """How much the value has risen since then; negative when it fell."""
        return self.slope * (self.until - self.since)

    @property
    def significant(self) -> bool:
        """Whether it rises or falls for certain, and by more than its noise."""
        return (self.low > 0 or self.high < 0) and abs(self.rise) > _RISE * self.noise


@dataclass(frozen=True, slots=True)
class Reach:
    """In how many seconds from the last point a limit is reached: at the soonest, likely, at the latest.

    `late` is infinite where the value may as well never get there.
    """

    soon: float
    likely: float
    late: float

    @property
    def told(self) -> str:
        """The same in words: ``"in about 6-9 min"``."""
        if self.late <= 0:
            return "now"
        unit, name = next(((size, name) for size, name in _UNITS if self.likely >= size), _UNITS[-1])
        soon, late = _digits(self.soon / unit), _digits(self.late / unit)
        if self.late == inf:
            return f"in {soon} {name} or later"
        return f"in about {soon} {name}" if soon == late else f"in about {soon}-{late} {name}"


def _digits(number: float) -> str:
    return f"{number:.0f}" if number >= 9.95 else f"{number:.1f}".removesuffix(".0")


@dataclass(frozen=True, slots=True)
class Shape:
    """What a series looks like, and the figures that this rests on.

    A ``leak`` rises with sharp falls in between, as memory does that a collector gives back only in part; a
    ``drift`` rises or falls beneath a season; an ``absence`` has not come for long (`silent`, in seconds).
    """

    kind: Kind
    trend: Trend
    changes: tuple[Change, ...]
    spikes: tuple[Spike, ...]
    season: float | None
    silent: float


@says_what_it_takes
def trend(points: Iterable[Point]) -> Trend | None:
    """Return how a series changes by now; None for fewer than 8 points.

    Wild points, steps and a season are no trend; where the line bends, what comes after the bend is.

    >>> found = trend([(float(at), 2.0 * at) for at in range(60)])
    >>> found.significant, found.slope, found.level
    (True, 2.0, 118.0)
    """
    return _trend(account(points_of(points)))


@says_what_it_takes
def time_to(points: Iterable[Point], limit: float) -> Reach | None:
    """Return when a series reaches a limit, from above or from below; None when it is not on its way there.

    What takes ten times as long as it has gone that way by now is too far to tell, and so None too; neither
    do 15 points or a staircase, flat but for a few steps, say where it is going.

    >>> time_to([(float(at), float(at)) for at in range(60)], 99.0).told
    'in about 40 s'
    >>> time_to([(float(at), 1.0 if at < 30 else 50.0) for at in range(60)], 99.0)
    """
    limit, told = number(limit, "limit"), points_of(points)
    if isnan(limit):
        raise refusal("limit", limit, "a number, such as 0.9")
    best = account(told)
    found = _trend(best)
    reach = None if found is None else _reach(found, limit)
    if found is None or reach is None or reach.late <= 0:
        return reach
    return None if len(told) < _TELLING or _is_staircase(best, found) else reach


@says_what_it_takes
def classify(points: Iterable[Point], *, now: float | None = None) -> Shape | None:
    """Return what a series looks like at a time (that of the last point); None for fewer than 8 points.

    >>> classify([(float(at), 20.0 + at % 2) for at in range(60)], now=300.0).kind
    'absence'
    """
    told, at = points_of(points), None if now is None else number(now, "now")
    best = account(told)
    found = _trend(best)
    if found is None:
        return None
    silent = max((found.until if at is None else at) - told[-1][0], 0.0)
    steps, lone = tuple(steps_of(best)), tuple(spikes(told))
    period = found.season
    kind: Kind
    if silent > _SILENT * _usual_gap(told):
        kind = "absence"
    elif found.significant and found.slope > 0 and _is_saw(best):
        kind = "leak"
    elif found.significant:
        kind = "trend" if period is None else "drift"
    elif steps:
        kind = "step"
    elif period is not None:
        kind = "seasonal"
    elif lone:
        kind = "spike"
    else:
        kind = "steady" if found.noise <= _STEADY * abs(found.level) else "noise"
    return Shape(kind, found, steps, lone, period, silent)


def _trend(best: Account) -> Trend | None:
    if len(best.points) < _LEAST:
        return None
    level = _lately(best)
    slope, low, high = _slopes(thinned(level, _MOST), best.tie)
    end = level[-1][0]
    if best.season is not None:  # which may have taken a part of the slope with it, or left one
        doubt = _PART * (max(best.season.shape) - min(best.season.shape)) / (end - level[0][0] or inf)
        low, high = low - doubt, high + doubt
    over = median([value - slope * (time - end) for time, value in level])
    noise = spread([value - over - slope * (time - end) for time, value in level])
    period = None if best.season is None else best.season.period
    return Trend(slope, low, high, over, noise, period, level[0][0], end)


def _lately(best: Account) -> list[Point]:
    """Return the points since which it has gone in one line, without the steps in between."""
    shifts = _shifts(best)
    level = [(time, value - shift) for (time, value), shift in zip(best.points, shifts, strict=True)]
    if best.bend is not None:
        level = level[min(best.bend, len(level) - _LEAST) :]
    while len(level) >= 4 * _LEAST and _is_curved(level):
        level = level[len(level) // 2 :]
    return level


def _is_curved(points: Sequence[Point]) -> bool:
    """Whether the middle third is not between the others, where a line would have it be."""
    third = len(points) // 3
    parts = [points[:third], points[third:-third], points[-third:]]
    (begun, first), (at, middle), (end, last) = [
        (median([time for time, _ in part]), median([value for _, value in part])) for part in parts
    ]
    if not begun < at < end:
        return False
    left, right = (middle - first) / (at - begun), (last - middle) / (end - at)
    rest = [value - middle - (left if time < at else right) * (time - at) for time, value in points]
    tie = dependence(rest)
    sure = _CURVED * spread(rest) * sqrt((1 + tie) / (1 - tie) / len(points))
    return abs(left - right) * (at - begun) * (end - at) / (end - begun) > sure > 0


def _shifts(best: Account) -> list[float]:
    """Return by how much each point is off the last level for the steps that came after it."""
    found = [0.0] * len(best.points)
    for change in steps_of(best):
        size = change.after - change.before
        found = [
            shift - size if time < change.at else shift
            for shift, (time, _) in zip(found, best.points, strict=True)
        ]
    return found


def _slopes(points: Sequence[Point], tie: float) -> tuple[float, float, float]:
    """Return the slope of a robust line (Theil-Sen), and the interval it is in (Sen), all a second.

    Points that depend on those before them are worth fewer than there are: the interval is wider.
    """
    slopes = sorted(
        [
            (value - its) / (time - when)
            for at, (time, value) in enumerate(points)
            for when, its in points[:at]
            if time > when
        ]
    )
    size, count = len(points), len(slopes)
    if not slopes:
        return 0.0, 0.0, 0.0
    off = _SURE * sqrt(size * (size - 1) * (2 * size + 5) / 18 * (1 + tie) / (1 - tie)) / 2
    low, high = max(int(count / 2 - off), 0), min(int(count / 2 + off) + 1, count - 1)
    return median(slopes), slopes[low], slopes[high]


def _reach(found: Trend, limit: float) -> Reach | None:
    away = limit - found.level
    if away == 0:
        return Reach(0.0, 0.0, 0.0)
    if not found.significant or away * found.slope < 0:
        return None
    likely, seen = away / found.slope, found.until - found.since
    if likely > _AHEAD * seen:
        return None
    # A steeper line through the middle of the points also stands nearer to the limit by now.
    half = seen / 2
    middle = found.level - found.slope * half
    near, far = (found.low, found.high) if found.slope < 0 else (found.high, found.low)
    margin = copysign(_LEVEL * found.noise, found.slope)
    soon = (limit - middle - margin) / near - half
    late = (limit - middle + margin) / far - half if far * found.slope > 0 else inf
    return Reach(min(max(soon, 0.0), likely), likely, max(late, likely))


def _is_saw(best: Account) -> bool:
    """Whether it falls at once, again and again, and does not rise like that."""
    its = best.season
    rest = best.rest
    if its is not None:
        rest = [left + its.at(time) for left, (time, _) in zip(rest, best.points, strict=True)]
    moves = [after - before for before, after in pairwise(rest)]
    usual = median(moves)
    moves = [move - usual for move in moves]
    sharp = max(_SHARP * spread(moves), -_DEEP * min(moves))
    falls, climbs = sum(move < -sharp for move in moves), sum(move > sharp for move in moves)
    return falls >= max(_TEETH, 2 * climbs)


def _is_staircase(best: Account, found: Trend) -> bool:
    """Whether it rises (or falls) in a few steps, and goes nowhere in between."""
    points = [point for point in best.points if point[0] >= found.since]
    level = around(points)
    moves = sorted([after - before for before, after in pairwise(level)])
    cut = int(_STEEP * len(moves))
    if not cut:
        return False
    # As many falls are left out as rises: noise goes as far up as down.
    rest = moves[cut:-cut]
    doubt = spread(rest) * sqrt(len(moves))
    return abs(found.rise) > _FAR * doubt and sum(rest) / found.rise * len(moves) / len(rest) < _FLAT


def _usual_gap(points: Sequence[Point]) -> float:
    """Return what nine of ten points took at most to come."""
    gaps = sorted([after - before for (before, _), (after, _) in pairwise(points)])
    return gaps[int(0.9 * (len(gaps) - 1))]
