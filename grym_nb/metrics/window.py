"""Series over a stretch of time: the figures of all of it, of each slot, or of pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from grym_nb.errors import Problem, ValidationError, closest
from grym_nb.metrics.histogram import Frozen, is_bucket
from grym_nb.render import brief

__all__ = [
    "FIGURES",
    "KINDS",
    "Figure",
    "Kind",
    "Seen",
    "Stretch",
    "Tags",
    "Window",
    "check_figure",
    "check_seconds",
    "join",
    "part_of",
]

Figure = Literal["value", "rate", "count", "mean", "low", "high", "p50", "p95", "p99"]
FIGURES: tuple[Figure, ...] = get_args(Figure)
Kind = Literal["counter", "gauge", "histogram"]
Tags: TypeAlias = tuple[tuple[str, str], ...]

KINDS: tuple[Kind, ...] = ("counter", "gauge", "histogram")
#: of how many numbers a slot's part of them is; of none is that of a gauge which went
_LENGTHS: Mapping[str, tuple[int, ...]] = {"counter": (1,), "gauge": (0, 3)}
#: figures of what came in a slot, which are 0 where nothing came
_OF_WHAT_CAME = frozenset({"value", "rate", "count"})


@dataclass(frozen=True, slots=True)
class Window:
    """All series that were asked for, over the `seconds` that are known; None where a figure makes no sense.

    `count` is how many values there were, or by how much counters grew. Figures of several gauges are of
    their sum, whose `low` and `high` are as if each had been there at the same time.
    """

    name: str
    kind: Kind | None
    seconds: float
    count: float = 0
    total: float = 0.0
    rate: float | None = None
    last: float | None = None
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    near: str = field(default="", compare=False, repr=False)  # where there is no series: what there is

    def __repr__(self) -> str:
        if self.near:
            return f"<Window of {self.name!r}: empty, {self.near}>"
        told = [(figure, getattr(self, figure)) for figure in _SHOWN]
        figures = ", ".join(f"{figure}={value:.6g}" for figure, value in told if value is not None)
        return f"<Window of {self.name!r}: {self.kind}, {self.seconds:.6g} s, {figures}>"


_SHOWN = ("count", "total", "rate", "last", "mean", "low", "high", "p50", "p95", "p99")


class Seen(NamedTuple):
    """One series: what came in the slots of a stretch, by their numbers; those below 0 are before it.

    `held` is a gauge's value from before all of them; the series was there from `begun` until `gone`. In a
    slot with an empty part a gauge went.
    """

    kind: Kind
    tags: Tags
    slots: Sequence[tuple[int, Any]]
    held: float | None = None
    begun: float = -inf
    gone: float = inf


@dataclass(frozen=True, slots=True)
class Stretch:
    """Series of one name in the same slots, each from one of the `times` to the next.

    Of the slots in `gaps` nothing is known.
    """

    times: Sequence[float]
    series: Sequence[Seen]
    gaps: frozenset[int] = frozenset()

    @property
    def kind(self) -> Kind | None:
        """What the series are, None where there is none."""
        return self.series[0].kind if self.series else None

    @property
    def seconds(self) -> float:
        """How much time it covers."""
        unknown = sum([self.times[at + 1] - self.times[at] for at in self.gaps])
        return self.times[-1] - self.times[0] - unknown if self.times else 0.0

    def window(self, name: str) -> Window:
        """Return the figures of all of it."""
        if self.kind == "gauge":
            return self._of_levels(name)
        parts = [part for seen in self.series for at, part in seen.slots if at >= 0]
        return _FIGURES[self.kind](name, parts, self.seconds)

    def points(self, figure: Figure) -> list[tuple[float, float]]:
        """Return when each slot ended, and its figure; slots that have none are left out."""
        if self.kind == "gauge":
            column = {"value": 0, "mean": 0, "low": 1, "high": 2}.get(figure)
            return [] if column is None else [(self.times[at + 1], row[column]) for at, row in self._levels()]
        return list(self._came(figure))

    def pieces(self, most: int) -> list[Stretch]:
        """Return it in pieces of about equal length, oldest first."""
        slots = len(self.times) - 1
        cuts = sorted({round(n * slots / most) for n in range(most + 1)})
        return [self._piece(first, end) for first, end in pairwise(cuts)]

    def since(self, time: float) -> Stretch:
        """Return the slots that ended after a time."""
        first = sum([end <= time for end in self.times[1:]])
        return self._piece(first, len(self.times) - 1) if first else self

    def _piece(self, first: int, end: int) -> Stretch:
        # What gauges were before a gap is over.
        lost = max([at for at in self.gaps if at < first], default=-inf)
        series = [
            seen._replace(
                slots=[(at - first, part) for at, part in seen.slots if lost < at < end],
                held=seen.held if lost == -inf else None,
            )
            for seen in self.series
        ]
        gaps = frozenset([at - first for at in self.gaps if first <= at < end])
        return Stretch(self.times[first : end + 1], series, gaps)

    # -- counters and histograms -----------------------------------------------------------------------

    def _came(self, figure: Figure) -> Iterator[tuple[float, float]]:
        parted: dict[int, list[Any]] = {}
        for seen in self.series:
            for at, part in seen.slots:
                parted.setdefault(at, []).append(part)
        begun = min([seen.begun for seen in self.series], default=inf)
        column = "count" if figure == "value" else figure
        for at, end in enumerate(self.times[1:]):
            quiet = figure in _OF_WHAT_CAME and end >= begun and at not in self.gaps
            if at in parted or quiet:
                window = _FIGURES[self.kind]("", parted.get(at, ()), end - self.times[at])
                value = getattr(window, column)
                if value is not None:
                    yield end, float(value)

    # -- gauges ----------------------------------------------------------------------------------------

    def _of_levels(self, name: str) -> Window:
        if (steady := self._steady()) is not None:
            return Window(name, "gauge", self.seconds, last=steady, mean=steady, low=steady, high=steady)
        levels = self._levels()
        if not levels:
            return Window(name, "gauge", self.seconds)
        weights = [self.times[at + 1] - self.times[at] for at, _ in levels]
        known = sum(weights)
        if known:
            mean = sum([w * row[0] for w, (_, row) in zip(weights, levels, strict=True)]) / known
        else:
            mean = levels[-1][1][0]
        return Window(
            name,
            "gauge",
            self.seconds,
            last=levels[-1][1][0] if levels[-1][0] == len(self.times) - 2 else None,
            mean=mean,
            low=min([row[1] for _, row in levels]),
            high=max([row[2] for _, row in levels]),
        )

    def _steady(self) -> float | None:
        """Return what a gauge alone was all the time: most are, and then no slot has to be looked at."""
        if len(self.series) != 1 or self.gaps or len(self.times) < 2:
            return None
        [seen] = self.series
        if seen.gone < self.times[-1] or any(at >= 0 for at, _ in seen.slots):
            return None
        return seen.slots[-1][1][0] if seen.slots else seen.held

    def _levels(self) -> list[tuple[int, tuple[float, float, float]]]:
        """Return for each slot the sums of the last, the lowest and the highest values in it."""
        found: dict[int, tuple[float, float, float]] = {}
        for seen in self.series:
            for at, (value, low, high) in self._level(seen):
                last, lowest, highest = found.get(at, (0.0, 0.0, 0.0))
                found[at] = (last + value, lowest + low, highest + high)
        return sorted(found.items())

    def _level(self, seen: Seen) -> Iterator[tuple[int, tuple[float, float, float]]]:
        """Yield what a gauge was in each slot: where it did not change, as it was before."""
        changes = dict(seen.slots)
        before = [part[0] for at, part in seen.slots if at < 0]
        level = before[-1] if before else seen.held
        for at, begin in enumerate(self.times[:-1]):
            if begin >= seen.gone:
                return
            if at in self.gaps:
                level = None
            elif at in changes:
                level = changes[at][0] if changes[at] else None
                if level is not None:
                    yield at, changes[at]
            elif level is not None:
                yield at, (level, level, level)


# -- what is asked ----------------------------------------------------------------------------------------


def check_figure(figure: Any) -> None:
    """Refuse a figure that there is none of."""
    if figure not in FIGURES:
        problem = Problem(
            "figure", brief(figure), f"one of {', '.join(FIGURES)}.{closest(str(figure), FIGURES)}"
        )
        raise ValidationError("there is no such figure", problems=[problem], hint="nothing was changed")


def check_seconds(seconds: Any, most: float = inf) -> None:
    """Refuse a time that cannot be looked back on."""
    fits = isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 < seconds <= most
    if not fits:
        told = f"seconds above 0, up to {most:g}" if most < inf else "seconds above 0"
        problem = Problem("seconds", brief(seconds), f"{told}, such as 300")
        raise ValidationError("nobody can look back so far", problems=[problem], hint="for 5 minutes say 300")


# -- what came ----------------------------------------------------------------------------------------


def join(kind: Kind, before: Any, after: Any) -> Any:
    """Return what came in two slots, one after the other, as what came in both."""
    if kind == "counter":
        return (before[0] + after[0],)
    if kind == "gauge":
        return (after[0], min(before[1], after[1]), max(before[2], after[2]))
    return before[0] + after[0], _summed((before[1], after[1]))


def part_of(kind: Kind, flat: Sequence[Any]) -> Any:
    """Return what came in a slot, from its numbers in a row; raises where they are nothing of that kind."""
    fits = all(type(one) in (int, float) for one in flat)
    if kind != "histogram":
        part: Any = tuple(flat)
        fits = fits and len(flat) in _LENGTHS[kind]
    else:
        total, *pairs = flat
        part = total, dict(zip(pairs[::2], pairs[1::2], strict=True))
        fits = fits and all(is_bucket(bucket) and type(n) is int for bucket, n in part[1].items())
    if not fits:
        raise ValueError(f"{flat} is nothing that came of a {kind}")
    return part


def _summed(parts: Iterable[Mapping[int, int]]) -> dict[int, int]:
    found: dict[int, int] = {}
    for part in parts:
        for bucket, n in part.items():
            found[bucket] = found.get(bucket, 0) + n
    return found


def _of_nothing(name: str, parts: Sequence[Any], seconds: float) -> Window:
    return Window(name, None, seconds)


def _of_counters(name: str, parts: Sequence[Any], seconds: float) -> Window:
    grown = sum([part[0] for part in parts])
    return Window(name, "counter", seconds, grown, grown, grown / seconds if seconds else None)


def _of_buckets(name: str, parts: Sequence[Any], seconds: float) -> Window:
    frozen = Frozen.of(_summed([part[1] for part in parts]), sum([part[0] for part in parts]))
    p50, p95, p99 = frozen.percentiles(50, 95, 99)
    return Window(
        name,
        "histogram",
        seconds,
        count=frozen.count,
        total=frozen.total,
        rate=frozen.count / seconds if seconds else None,
        # A sum of which another was taken may be off by more than such small values are.
        mean=min(max(frozen.total / frozen.count, frozen.low), frozen.high) if frozen.count else None,
        low=frozen.low if frozen.count else None,
        high=frozen.high if frozen.count else None,
        p50=p50,
        p95=p95,
        p99=p99,
    )


_FIGURES: Mapping[Kind | None, Callable[[str, Sequence[Any], float], Window]] = {
    None: _of_nothing,
    "counter": _of_counters,
    "histogram": _of_buckets,
}
