"""Series whose truth is known: nine families, made from a seed, as a kernel's gauges and rates look.

What a series is called, and its figures, is what was put into it, not what can be seen of it. Signals are
as clear as a person would ask for who looks at the plot: a step is at least 3.5 times the noise.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf, pi, sin

__all__ = ["FAMILIES", "SERIES", "Labelled", "labelled", "made"]

Points = list[tuple[float, float]]

FAMILIES = ("steady", "noise", "seasonal", "trend", "step", "spike", "leak", "drift", "absence")

#: how many there are of each family; the even ones are for tuning, the odd ones for scoring
SERIES = 120


@dataclass(frozen=True, slots=True)
class Labelled:
    """A series, and the truth about it."""

    family: str
    seed: int
    points: Points
    now: float
    noise: float  # its standard deviation
    slope: float = 0.0  # per second
    limit: float = inf
    reach: float = inf  # seconds from the last point until the value without noise and season is at the limit
    stepped: float | None = None  # when
    season: float | None = None  # seconds
    spiked: tuple[float, ...] = ()  # when


def labelled(parity: int) -> Iterator[Labelled]:
    """Yield the half of the series with even (0) or odd (1) seeds."""
    for family in FAMILIES:
        for seed in range(parity, SERIES, 2):
            yield made(family, seed)


def made(family: str, seed: int) -> Labelled:
    """Return one series."""
    rng = random.Random(f"{family}-{seed}")
    base = _Base(rng)
    return _MAKERS[family](base, family, seed)


class _Base:
    """When a series has points, and how noisy it is; each family adds its own."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.count = round(60 * (2880 / 60) ** rng.random() ** 2)  # most are short
        self.gap = rng.choice((1.0, 5.0, 10.0, 30.0, 60.0))
        self.start = rng.uniform(0, 1e6)
        self.level = 10.0 ** rng.uniform(-2, 10)
        self.noise = self.level * 10.0 ** rng.uniform(-3, -1)
        self.times = self._times()
        self.span = self.count * self.gap
        self.memory = rng.choice((0.0, 0.0, 0.3, 0.5))  # of the noise for itself
        self.tails = rng.choice(("normal", "normal", "heavy", "skewed"))

    def _times(self) -> list[float]:
        rng = self.rng
        jitter = rng.choice((0.0, 0.05, 0.4))
        missing = rng.choice((0.0, 0.02, 0.15))
        hole = rng.uniform(0.1, 0.8) if rng.random() < 0.3 else 2.0
        wide = rng.uniform(0.03, 0.12)
        return [
            self.start + self.gap * (i + rng.uniform(-jitter, jitter))
            for i in range(self.count)
            if rng.random() >= missing and not hole <= i / self.count < hole + wide
        ]

    def noises(self) -> Iterator[float]:
        rng, last = self.rng, 0.0
        fresh = (1 - self.memory**2) ** 0.5
        while True:
            match self.tails:
                case "normal":
                    drawn = rng.gauss(0, 1)
                case "heavy":  # Laplace
                    drawn = rng.choice((-1, 1)) * rng.expovariate(2**0.5)
                case _:
                    drawn = rng.expovariate(1) - 1
            last = self.memory * last + fresh * drawn
            yield self.noise * last

    def done(
        self,
        family: str,
        seed: int,
        shape: Callable[[float], float],
        *,
        wild: float = 0.0,
        silent: float | None = None,
        **truth: float | tuple[float, ...] | None,
    ) -> Labelled:
        """Return the series of a shape over the seconds since its start, with its noise."""
        rng = self.rng
        points = []
        for time, noise in zip(self.times, self.noises(), strict=False):
            value = self.level + shape(time - self.start) + noise
            if rng.random() < wild:
                value += rng.choice((-1, 1)) * rng.uniform(8, 40) * self.noise
            points.append((time, value))
        now = points[-1][0] + (rng.uniform(0, 1) * self.gap if silent is None else silent)
        return Labelled(family, seed, points, now, self.noise, **truth)  # type: ignore[arg-type]

    def line(self, rise: float) -> dict[str, float]:
        """Return what is true of a line that rises by so much over the whole, towards a limit ahead."""
        slope = rise / self.span
        ahead = self.span * self.rng.uniform(0.1, 1.5)
        end = self.times[-1] - self.start
        return {"slope": slope, "limit": self.level + slope * (end + ahead), "reach": ahead}

    def season(self, amplitude: float, *, saws: bool = True) -> tuple[float, Callable[[float], float]]:
        """Return the period and the shape of a season of 3 cycles or more."""
        rng = self.rng
        cycles = rng.uniform(3, min(12.0, self.count / 10))
        period = self.span / cycles
        shift = rng.random()
        second = rng.uniform(0, 0.5)
        kind = rng.choice(("sine", "sine", "peaks", "square", "saw")[: 5 if saws else 4])
        duty = rng.uniform(0.35, 0.65)

        def shape(at: float) -> float:
            phase = (at / period + shift) % 1.0
            match kind:
                case "sine":
                    return amplitude * sin(2 * pi * phase)
                case "peaks":
                    return amplitude * (sin(2 * pi * phase) + second * sin(4 * pi * phase))
                case "square":
                    return amplitude if phase < duty else -amplitude
                case _:  # memory that a collector frees, all of it
                    return amplitude * 1.5 * (2 * phase - 1)

        return period, shape


def _steady(base: _Base, family: str, seed: int) -> Labelled:
    base.noise = base.level * (0.0 if seed % 10 == 0 else 10.0 ** base.rng.uniform(-5, -2))
    return base.done(family, seed, lambda at: 0.0)


def _noise(base: _Base, family: str, seed: int) -> Labelled:
    base.noise = base.level * base.rng.uniform(0.06, 0.4)
    return base.done(family, seed, lambda at: 0.0)


def _seasonal(base: _Base, family: str, seed: int) -> Labelled:
    period, shape = base.season(base.noise * base.rng.uniform(2, 10))
    return base.done(family, seed, shape, season=period)


def _trend(base: _Base, family: str, seed: int) -> Labelled:
    rise = base.rng.choice((-1, 1)) * base.noise * base.rng.uniform(5, 40)
    truth = base.line(rise)
    wild = base.rng.choice((0.0, 0.0, 0.03))
    return base.done(family, seed, lambda at: truth["slope"] * at, wild=wild, **truth)


def _step(base: _Base, family: str, seed: int) -> Labelled:
    size = base.rng.choice((-1, 1)) * base.noise * base.rng.uniform(3.5, 20)
    when = base.span * base.rng.uniform(0.2, 0.8)
    wild = base.rng.choice((0.0, 0.0, 0.02))
    stepped = next(time for time in base.times if time - base.start >= when)
    return base.done(family, seed, lambda at: size * (at >= when), wild=wild, stepped=stepped)


def _spike(base: _Base, family: str, seed: int) -> Labelled:
    rng = base.rng
    picked = sorted(rng.sample(base.times[5:-5], rng.choice((1, 1, 2))))
    sign = rng.choice((-1, 1))
    tall = {"normal": 9.0, "heavy": 14.0, "skewed": 14.0}[base.tails]
    heights = {time - base.start: sign * rng.uniform(tall, 5 * tall) * base.noise for time in picked}
    return base.done(family, seed, lambda at: heights.get(at, 0.0), spiked=tuple(picked))


def _leak(base: _Base, family: str, seed: int) -> Labelled:
    rng = base.rng
    tooth = base.noise * rng.uniform(6, 20)
    teeth = rng.uniform(6, min(16, base.count / 8))
    truth = base.line(tooth * rng.uniform(1.5, 6))
    # A collector runs when it likes: no two teeth are of one length.
    falls = [0.0]
    while falls[-1] <= base.span * 1.1:
        falls.append(falls[-1] + base.span / teeth * rng.uniform(0.7, 1.3))

    def shape(at: float) -> float:
        begun = max((fall for fall in falls if fall <= at), default=0.0)
        return truth["slope"] * at + tooth * ((at - begun) / (base.span / teeth) - 0.5)

    return base.done(family, seed, shape, **truth)


def _drift(base: _Base, family: str, seed: int) -> Labelled:
    amplitude = base.noise * base.rng.uniform(2, 8)
    # A saw that rises would be a leak.
    period, season = base.season(amplitude, saws=False)
    truth = base.line(base.rng.choice((-1, 1)) * amplitude * base.rng.uniform(2, 6))
    return base.done(family, seed, lambda at: truth["slope"] * at + season(at), season=period, **truth)


def _absence(base: _Base, family: str, seed: int) -> Labelled:
    rise = base.noise * base.rng.choice((0.0, 10.0))
    silent = base.gap * 12 * 10 ** base.rng.uniform(0, 1)
    return base.done(family, seed, lambda at: rise * at / base.span, silent=silent)


_MAKERS = dict(
    zip(FAMILIES, (_steady, _noise, _seasonal, _trend, _step, _spike, _leak, _drift, _absence), strict=True)
)
