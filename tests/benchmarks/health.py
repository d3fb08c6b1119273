"""What it costs to be watched over: a hundred services that are called, and their history of a day."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from time import perf_counter, process_time

from grym_nb.health.oversight import Oversight
from grym_nb.services import ModelService, ServiceRegistry, task
from grym_nb.testing import FakeClock

from .frame import Effort, Row, benchmark

_SERVICES = 100


class Small(ModelService):
    """Answers."""

    @task
    def ask(self) -> int:
        """Return one."""
        return 1


@benchmark
def oversight(effort: Effort) -> Iterator[Row]:
    """Looks and steps of the history over a hundred services, each called each second."""
    clock = FakeClock(1000.0)
    with ServiceRegistry(clock=clock) as registry:
        handles = [registry.register(f"s{n}", Small).load() for n in range(_SERVICES)]
        watch = Oversight(registry)
        minutes = 1 if effort.rounds < 10 else 10
        spent, longest = 0.0, 0.0
        for second in range(60 * minutes):
            for handle in handles:
                handle.ask()
            clock.advance(1.0)
            begun, wall = process_time(), perf_counter()
            watch.history.step()
            longest = max(longest, perf_counter() - wall)
            if second % 5 == 0:
                longest = max(longest, *_steps(watch))
            spent += process_time() - begun
        watch.close()
    each = spent / (60 * minutes)
    yield Row("watching over 100 busy services, a second", each, "a core", 1.0, "ms", "< 10 ms: 1 %")
    yield Row("the longest step of it", longest, "the pulse's limit", 0.005, "ms", "<= 5 ms")


def _steps(watch: Oversight) -> Iterator[float]:
    """Look, as the pulse does it; yield how long each piece of it took."""
    wall = perf_counter()
    for _ in watch._steps():
        yield perf_counter() - wall
        wall = perf_counter()


@benchmark
def day(effort: Effort) -> Iterator[Row]:
    """The memory of a day of 100 services, as it is kept: simulated by steps of ten seconds."""
    clock, rng = FakeClock(1000.0), random.Random(1)
    step = 600.0 if effort.rounds < 10 else 10.0
    with ServiceRegistry(clock=clock) as registry:
        handles = [registry.register(f"s{n}", Small).load() for n in range(_SERVICES)]
        tracemalloc.start()
        watch = Oversight(registry)
        watch.step()
        begun = tracemalloc.get_traced_memory()[0]
        for _ in range(int(86_400 / step)):
            for handle in handles:
                if rng.random() < 0.5:
                    handle.ask()
            clock.advance(step)
            watch.history.step()
        watch.step()
        held = tracemalloc.get_traced_memory()[0] - begun
        tracemalloc.stop()
        watch.close()
    yield Row("a day of 100 services", held, "the limit", 50e6, "B", "< 50 MB")
