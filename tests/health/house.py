"""A registry whose services are judged, and a service that does as the test wants."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from grym_nb.errors import GrymError
from grym_nb.events import HealthChanged
from grym_nb.health.monitor import HealthMonitor
from grym_nb.services import ModelService, ServiceHandle, ServiceRegistry, task
from grym_nb.testing import FakeClock
from tests.services.crowd import until

__all__ = ["House", "Net", "broken", "fail", "house", "pinging"]


class Net(ModelService):
    """Does as it is told: answers, raises, takes its time, waits for the test."""

    def __init__(self, *, broken: bool = False, late: float = 0.0) -> None:
        self.broken = broken
        self.late = late
        self.ill = ""
        self.pings = 0

    def load(self) -> None:
        if self.broken:
            raise OSError("no weights")

    def ping(self) -> None:
        self.pings += 1
        if self.ill:
            raise RuntimeError(self.ill)

    @task
    def ask(self, do: Any = None) -> Any:
        return do() if do is not None else None


def fail() -> None:
    raise ValueError("as asked")


class House:
    def __init__(self, registry: ServiceRegistry, clock: FakeClock) -> None:
        self.registry = registry
        self.clock = clock
        self.monitor = HealthMonitor(registry, look_seconds=5.0)
        self.hangs = False  # a ping, as the test wants it to
        self.heard: list[tuple[str, str, str]] = []
        registry.ports.events.subscribe(self._hear, HealthChanged)

    def _hear(self, event: HealthChanged) -> None:
        self.heard.append((event.service, event.before, event.after))

    def net(self, name: str = "net", **options: Any) -> ServiceHandle:
        return self.registry.register(name, Net, **options)

    def look(self, seconds: int = 5) -> None:
        """Let so many seconds pass, with a step of the history in each, and look."""
        for _ in range(seconds):
            self.clock.advance(1.0)
            self.monitor.history.step()
        self.monitor.step()
        if not self.hangs:
            until(lambda: not pinging(self.monitor))


def pinging(monitor: HealthMonitor) -> bool:
    """Tell whether somebody is at a ping: until its thread has ended, too, its deadline may come."""
    at_work = [work.name for work in tuple(monitor._pulse._running)]
    asked = any(one.runs for one in tuple(monitor._pings.values()))
    return asked or any(name.startswith("ping of") for name in at_work)


@pytest.fixture
def house(driven: ServiceRegistry, clock: FakeClock) -> Iterator[House]:
    made = House(driven, clock)
    yield made
    made.monitor.close()


def broken(net: ServiceHandle, times: int = 5) -> None:
    for _ in range(times):
        with pytest.raises(GrymError):
            net.ask(fail)
