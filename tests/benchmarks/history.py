"""Remembering what the metrics were: a step each second, a look back, what a day takes; timing a block."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from functools import partial

from grym_nb.metrics import Metrics
from grym_nb.metrics.history import History
from grym_nb.testing import FakeClock

from .frame import Effort, Row, Work, benchmark, installed, missing, side_by_side

PEER = "-"
CLIENT = "prometheus_client"
_NONE = "no peer keeps one in the process"
_SERIES = 600
_ACTIVE = 20  # of them, in a second
_SERVICES = 100
_MEASURED, _FEW = 10, 1  # of them: each takes as much as the others
_HISTOGRAMS, _COUNTERS, _GAUGES = 3, 3, 2


@benchmark
def history(effort: Effort) -> Iterator[Row]:
    """A step over 600 series of which few or all have changed; a look back at one service or all."""
    few, all_ = _House(_SERIES // 8), _House(_SERIES // 8)
    day = _House(20)
    day.passes(24 * 3600, every=60 if effort.slow_rounds > 1 else 600)
    whole = partial(day.history.window, "seconds 0", 86_400.0)
    works: dict[str, Work] = {
        "few": partial(few.second, _ACTIVE),
        "all": partial(all_.second, _SERIES),
        "minute": partial(day.history.window, "seconds 0", 60.0, service="service 0"),
        "day": partial(day.history.window, "seconds 0", 86_400.0, service="service 0"),
        "all day": whole,
        "points": partial(day.history.points, "seconds 0", 86_400.0, figure="p95", service="service 0"),
    }
    figures = side_by_side(works, rounds=effort.rounds, seconds=effort.seconds)
    for name, work, aim in (
        ("few", f"a step over {_SERIES} series, {_ACTIVE} changed", "<= 5 ms"),
        ("all", f"a step over {_SERIES} series, all changed", ""),
        ("minute", "percentiles of a minute, one service", ""),
        ("day", "percentiles of a day, one service", ""),
        ("all day", "percentiles of a day, 20 services", ""),
        ("points", "p95 over a day, one service", ""),
    ):
        yield Row(work, figures[name], PEER, None, "ms", aim, _NONE)
    services = _MEASURED if effort.slow_rounds > 1 else _FEW
    taken = _bytes_of_a_day(services) * _SERVICES / services
    yield Row(f"a day of {_SERVICES} services, all busy", taken, PEER, None, "B", "<= 4e+07 B", _NONE)


@benchmark
def tracking(effort: Effort) -> Iterator[Row]:
    """A block that is counted by how long it took."""
    ours = Metrics()
    works: dict[str, Work] = {"track": ("with track('x'): pass", {"track": ours.track})}
    if installed(CLIENT):
        import prometheus_client as there

        histogram = there.Histogram("seconds", "seconds", ["operation"], registry=there.CollectorRegistry())
        works["there"] = ("with labels('x').time(): pass", {"labels": histogram.labels})
    figures = side_by_side(works, rounds=effort.rounds, seconds=effort.seconds)
    work = "count a block by its time"
    if "there" in figures:
        yield Row(work, figures["track"], CLIENT, figures["there"], "us", "<= 2 us")
    else:
        yield missing(work, figures["track"], CLIENT, "us", "<= 2 us")


class _House:
    """Services with three histograms, three counters and two gauges each, all of which go on by the clock."""

    def __init__(self, services: int) -> None:
        self.clock = FakeClock()
        self.dice = random.Random(services)
        self.metrics = Metrics()
        self.history = History(self.metrics, clock=self.clock)
        names = [f"service {n}" for n in range(services)]
        self.works = [
            *(self._seconds(service, n) for service in names for n in range(_HISTOGRAMS)),
            *(self._count(service, n) for service in names for n in range(_COUNTERS)),
            *(self._level(service, n) for service in names for n in range(_GAUGES)),
        ]
        self.dice.shuffle(self.works)

    def _seconds(self, service: str, n: int) -> partial[None]:
        one = self.metrics.histogram(f"seconds {n}", service=service)
        usual = self.dice.uniform(-5, 2)
        return partial(lambda: one.record(self.dice.lognormvariate(usual, 0.5)))

    def _count(self, service: str, n: int) -> partial[None]:
        return partial(self.metrics.counter(f"calls {n}", service=service).add)

    def _level(self, service: str, n: int) -> partial[None]:
        one = self.metrics.gauge(f"level {n}", service=service)
        return partial(lambda: one.set(self.dice.random()))

    def second(self, active: int) -> None:
        """Let a second pass in which some series change."""
        for work in self.works[:active]:
            work()
        self.clock.advance(1.0)
        self.history.step()

    def passes(self, seconds: int, *, every: int, calls: int = 1) -> None:
        """Let a time pass in which each series changes so many times a step."""
        for _ in range(seconds // every):
            for work in self.works * calls:
                work()
            self.clock.advance(float(every))
            self.history.step()


def _bytes_of_a_day(services: int) -> int:
    """Return what a day's history takes; all series change all the time, the last two hours more often."""
    house = _House(services)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        house.passes(22 * 3600, every=60, calls=6)
        house.passes(2 * 3600, every=15, calls=2)
        house.passes(120, every=1)
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
