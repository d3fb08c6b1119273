"""When a series changed: steps from one level to another, and lone spikes.

Several accounts of a series (level, line, steps, a line with a step or a bend) are weighed against each
other: what explains it best, for as few figures as it takes, is what it did.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import inf, log
from operator import mul
from typing import NamedTuple

from grym_nb.errors import says_what_it_takes
from grym_nb.metrics.given import points_of
from grym_nb.metrics.seasons import Point, Season, median, season, spread, thinned

__all__ = ["Account", "Change", "Spike", "account", "around", "changes", "dependence", "spikes", "steps_of"]

_MOST = 200  # points that are weighed
_LEAST = 8
_MOST_STEPS = 3
_CLEAR = 2.5  # a step in spreads of the noise
_TAIL = 0.95  # of all deviations: those beyond may be spikes
_TALL = 7.0  # a spike in spreads of the noise, tails included
_WILD = 4.0  # what is left out before weighing
_NEAR = 5  # points on each side that say what a value should be
_LONE = 2  # points in a row that may still be a spike
_STEP_FIGURES = 4  # of a step: its size, and its place counts for three since it was searched for


@dataclass(frozen=True, slots=True)
class Change:
    """A step: when, the level until then, and the level from then on."""

    at: float
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Spike:
    """A lone value far from its neighbours, and what they would have it be."""

    at: float
    value: float
    usual: float


class Account(NamedTuple):
    """One way to explain a series: with a line or without, with steps or a bend, with a season or without."""

    points: list[Point]  # without what is wild, and without the season
    season: Season | None
    line: bool
    steps: tuple[int, ...]  # where one begins
    bend: int | None  # from where on the line goes another way
    rest: list[float]  # what is not explained
    figures: int  # that it takes

    @property
    def error(self) -> float:
        """The sum of the squares of what is not explained."""
        return float(sum(map(mul, self.rest, self.rest)))

    @property
    def noise(self) -> float:
        """How far apart the values lie for no reason."""
        return spread(self.rest) if self.rest else 0.0

    @property
    def tie(self) -> float:
        """How much what is not explained depends on what was before, 0 to 0.95."""
        return dependence(self.rest)


def dependence(rest: Sequence[float]) -> float:
    """Return how much each value depends on the one before: their correlation, 0 to 0.95."""
    power = sum(map(mul, rest, rest))
    return min(max(sum(map(mul, rest, rest[1:])) / power, 0.0), 0.95) if power > 0 else 0.0


@says_what_it_takes
def changes(points: Iterable[Point]) -> list[Change]:
    """Return the steps of a series, oldest first. A spike is none, nor is a slow rise.

    >>> changes([(float(at), 1.0 if at < 30 else 5.0) for at in range(60)])
    [Change(at=30.0, before=1.0, after=5.0)]
    """
    return steps_of(account(points_of(points)))


@says_what_it_takes
def spikes(points: Iterable[Point]) -> list[Spike]:
    """Return the lone values, one or two in a row, that are far from all around them.

    >>> spikes([(float(at), 50.0 if at == 7 else float(at % 2)) for at in range(20)])
    [Spike(at=7.0, value=50.0, usual=0.0)]
    """
    told = points_of(points)
    kept = thinned(told, len(told))
    if len(kept) < 2 * _NEAR + 1:
        return []
    usual = around(kept)
    far = [value - its for (_, value), its in zip(kept, usual, strict=True)]
    sizes = sorted(map(abs, far))
    # The tails count too: in skewed noise a large value is nothing special.
    tails = sizes[int(_TAIL * (len(sizes) - 1))] / 1.645
    moves = median([abs(after - before) for (_, before), (_, after) in pairwise(kept)])
    scale = max(spread(far), tails, moves, _floor(kept))
    found = [at for at, its in enumerate(far) if abs(its) > _TALL * scale]
    return [Spike(*kept[at], usual[at]) for run in _runs(found) if len(run) <= _LONE for at in run]


def steps_of(best: Account) -> list[Change]:
    """Return the steps of an account that stand out from its noise."""
    if not best.steps:
        return []
    clear = max(_CLEAR * best.noise, _floor(best.points))
    levels = _sides_of_line(best) if best.line else _sides_of_levels(best)
    return [
        Change(best.points[at][0], before, after)
        for at, (before, after) in zip(best.steps, levels, strict=True)
        if abs(after - before) > clear
    ]


def _sides_of_levels(best: Account) -> Iterator[tuple[float, float]]:
    """Yield the levels before and after each step."""
    values = [value for _, value in best.points]
    bounds = [0, *best.steps, len(values)]
    return pairwise([median(values[begun:end]) for begun, end in pairwise(bounds)])


def _sides_of_line(best: Account) -> Iterator[tuple[float, float]]:
    """Yield where the line would be without each step, and where it is with it, at the time of it."""
    line = [(time, value - left) for (time, value), left in zip(best.points, best.rest, strict=True)]
    for at in best.steps:
        (begun, first), (time, after), (end, last) = line[at - 1], line[at], line[-1]
        yield first + (last - after) / (end - time or inf) * (time - begun), after


def account(points: Sequence[Point]) -> Account:
    """Return the account of a series that explains it best for what it takes.

    Of fewer than 8 points it has nothing in it. It knows at most three steps.
    """
    kept = _tamed(thinned(points, _MOST))
    if len(kept) < _LEAST or kept[-1][0] <= kept[0][0]:
        return Account(kept, None, False, (), None, [], 0)
    found = list(_accounts(kept, None))
    rest = found[1].rest
    for _ in range(2):  # the season shows better without the line, and the line without the season
        its = season([(time, left) for (time, _), left in zip(kept, rest, strict=True)])
        if its is None:
            break
        calm = [(time, value - its.at(time)) for time, value in kept]
        more = list(_accounts(calm, its))
        found += more
        rest = [left + its.at(time) for (time, _), left in zip(kept, _best(more).rest, strict=True)]
    return _best(found)


def _best(found: Sequence[Account]) -> Account:
    """Return the one with the best score (BIC), for so many points as are independent of each other."""
    points = found[0].points
    least = len(points) * _floor(points) ** 2
    tie = min(found, key=lambda its: its.error).tie
    free = max(len(points) * (1 - tie) / (1 + tie), 4.0)
    return min(found, key=lambda its: free * log(max(its.error, least)) + its.figures * log(free))


# -- the accounts ----------------------------------------------------------------------------------


def _accounts(points: list[Point], its: Season | None) -> Iterator[Account]:
    taken = len(its.shape) + 1 if its else 0
    values = [value for _, value in points]
    first, last = points[0][0], points[-1][0]
    times = [(time - first) / (last - first) - 0.5 for time, _ in points]
    level = _without(values, [1.0] * len(values))
    yield Account(points, its, False, (), None, level, taken + 1)
    straight = _centred(times)
    line = _without(level, straight)
    yield Account(points, its, True, (), None, line, taken + 2)
    for steps in _splits(level):
        rest = [value - its for value, its in zip(values, _levels(values, steps), strict=True)]
        yield Account(points, its, False, steps, None, rest, taken + 1 + _STEP_FIGURES * len(steps))
    edge = _edge(len(points))
    for bent in (False, True):
        at = _turn(times, straight, line, min(2 * edge, len(points) // 2) if bent else edge, bent)
        extra = [(time - times[at] if bent else 1.0) if time >= times[at] else 0.0 for time in times]
        rest = _without(line, _without(_centred(extra), straight))
        step, bend = ((), at) if bent else ((at,), None)
        yield Account(points, its, True, step, bend, rest, taken + 2 + _STEP_FIGURES)


def _centred(values: Sequence[float]) -> list[float]:
    mean = sum(values) / len(values)
    return [value - mean for value in values]


def _without(values: Sequence[float], regressor: Sequence[float]) -> list[float]:
    """Return what a least-squares fit of one regressor leaves of values."""
    power = sum(map(mul, regressor, regressor))
    share = sum(map(mul, values, regressor)) / power if power > 0 else 0.0
    return [value - share * its for value, its in zip(values, regressor, strict=True)]


def _edge(size: int) -> int:
    """Return how many points there have to be beside a step."""
    return min(max(6, size // 12), size // 2)


def _splits(values: Sequence[float]) -> Iterator[tuple[int, ...]]:
    """Yield where the levels of values part, with one step, with two and with three: each time the best."""
    sums = [0.0, *accumulate(values)]
    bounds = [0, len(values)]
    edge = _edge(len(values))
    for _ in range(_MOST_STEPS):
        gained, at = max(_cut(sums, begun, end, edge) for begun, end in pairwise(bounds))
        if gained <= 0:
            return
        bounds = sorted([*bounds, at])
        yield tuple(bounds[1:-1])


def _cut(sums: Sequence[float], begun: int, end: int, edge: int) -> tuple[float, int]:
    """Return what a step between two places gains at most, and where it is then."""
    whole, size = sums[end] - sums[begun], end - begun
    best = (0.0, begun)
    for at in range(begun + edge, end - edge + 1):
        left, right = sums[at] - sums[begun], sums[end] - sums[at]
        gained = left * left / (at - begun) + right * right / (end - at) - whole * whole / size
        if gained > best[0]:
            best = (gained, at)
    return best


def _turn(
    times: Sequence[float], straight: Sequence[float], line: Sequence[float], edge: int, bent: bool
) -> int:
    """Return where a step, or a bend, explains most of what a line leaves.

    What the line and the level explain is taken out of the step too, or they would share the gain.
    """
    size, mean, power = len(times), sum(times) / len(times), sum(map(mul, straight, straight))
    squares, products = map(mul, times, times), map(mul, line, times)
    sums = [_from_each(its) for its in (times, squares, line, products)]
    gains = []
    for at in range(edge, size - edge + 1):
        n, time = size - at, times[at]
        t, tt, y, yt = [its[at] for its in sums]
        own, whole, tilt, fit = (
            (tt - 2 * time * t + n * time * time, t - n * time, tt - time * t, yt - time * y)
            if bent
            else (n, n, t, y)
        )
        tilt -= mean * whole
        room = own - whole * whole / size - tilt * tilt / power
        gains.append((fit * fit / room if room > 1e-9 else 0.0, at))
    return max(gains)[1]


def _from_each(values: Iterable[float]) -> list[float]:
    """Return the sums from each value to the last."""
    return [*accumulate(reversed([*values]))][::-1]


def _levels(values: Sequence[float], steps: Sequence[int]) -> list[float]:
    found: list[float] = []
    for begun, end in pairwise([0, *steps, len(values)]):
        found += [sum(values[begun:end]) / (end - begun)] * (end - begun)
    return found


# -- what is wild ----------------------------------------------------------------------------------


def _tamed(points: list[Point]) -> list[Point]:
    """Return points without those far from all around them."""
    if len(points) < 2 * _NEAR + 1:
        return points
    far = [value - its for (_, value), its in zip(points, around(points), strict=True)]
    # On a slope most are what is around them: those that are not say how far apart values lie.
    scale = max(spread(far), sorted(map(abs, far))[int(0.8 * len(far))] / 1.282, _floor(points))
    return [point for point, its in zip(points, far, strict=True) if abs(its) <= _WILD * scale]


def around(points: Sequence[Point]) -> list[float]:
    """Return the median of what is around each point."""
    values = [value for _, value in points]
    found = []
    for at in range(len(values)):
        # Narrower towards the ends, or the end of a slope would be far from what is around it.
        near = min(_NEAR, at, len(values) - 1 - at)
        found.append(sorted(values[at - near : at + near + 1])[near])
    return found


def _floor(points: Sequence[Point]) -> float:
    """Return what is no difference between values of this size."""
    return (
        1e-9 * max([abs(value) for _, value in points], default=0.0) + 1e-150
    )  # of which the square is no zero


def _runs(places: Sequence[int]) -> Iterator[list[int]]:
    """Yield the places that follow each other together."""
    run: list[int] = []
    for place in places:
        if run and place != run[-1] + 1:
            yield run
            run = []
        run.append(place)
    if run:
        yield run
