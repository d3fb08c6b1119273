"""Services that are ill as they are told to be, and the ward in which they are watched and mended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from grym_nb.errors import GrymError
from grym_nb.events import RecoveryEnded, RecoveryGaveUp
from grym_nb.health.monitor import HealthMonitor
from grym_nb.health.recovery import Recovery
from grym_nb.services import ModelService, ServiceHandle, ServiceRegistry, task
from grym_nb.testing import FakeClock
from tests.health.house import pinging
from tests.services.crowd import until

__all__ = ["BROKEN", "LOADS", "PINGS", "Choosy", "Needy", "Net", "Ward", "fail", "pauses", "ward"]

#: what is wrong, for how many more loads
BROKEN: dict[str, int] = {}
#: what a ping, or a load, does as well
PINGS: dict[str, Callable[[], object]] = {}
LOADS: dict[str, Callable[[], object]] = {}


class Net(ModelService):
    """Is ill as often as `BROKEN` says, in the way that its config says."""

    def __init__(self, *, name: str = "net", way: str = "ping") -> None:
        self.name, self.way = name, way
        self.ill = False

    def load(self) -> None:
        left = BROKEN.get(self.name, 0)
        BROKEN[self.name] = left - 1
        if left > 0 and self.way == "load":
            raise OSError("no weights")
        self.ill = left > 0
        LOADS.get(self.name, bool)()

    def ping(self) -> None:
        PINGS.get(self.name, bool)()
        if self.ill and self.way == "ping":
            raise RuntimeError("ill")

    @task
    def ask(self, do: Any = None) -> Any:
        if self.ill and self.way == "call":
            raise RuntimeError("ill")
        return do() if do is not None else None


class Needy(Net):
    needs = ("base",)


class Choosy(Net):
    needs = ("base?",)


def pauses(registry: ServiceRegistry) -> bool:
    """Tell whether a recovery waits for its next attempt."""
    return any(
        entry.active and entry.name.startswith("recovery of")
        for _, _, entry in tuple(registry.ports.pulse._heap)
    )


class Ward:
    def __init__(self, registry: ServiceRegistry, clock: FakeClock) -> None:
        self.registry, self.clock = registry, clock
        self.monitor = HealthMonitor(registry, look_seconds=5.0)
        self.monitor.listen()
        self.ended: list[RecoveryEnded] = []
        self.gave_up: list[RecoveryGaveUp] = []
        registry.ports.events.subscribe(self.ended.append, RecoveryEnded)
        registry.ports.events.subscribe(self.gave_up.append, RecoveryGaveUp)
        for wrong in (BROKEN, PINGS, LOADS):
            wrong.clear()

    def recovery(self, **options: Any) -> Recovery:
        made = Recovery(self.monitor, self.registry, **options)
        made.start()
        return made

    def net(self, name: str = "net", way: str = "ping", made: type = Net, **options: Any) -> ServiceHandle:
        return self.registry.register(name, made, config={"name": name, "way": way}, **options)

    def look(self, seconds: int = 5) -> None:
        for _ in range(seconds):
            self.clock.advance(1.0)
            self.monitor.history.step()
        self.monitor.step()
        until(lambda: not pinging(self.monitor))

    def steps(self, name: str = "net") -> list[tuple[str, bool]]:
        return [(one.step, one.helped) for one in self.ended if one.service == name]

    def at_rest(self) -> bool:
        """Tell whether nothing is at work, or about to be."""
        pulse = self.registry.ports.pulse
        pulse.step()
        return not pulse._running and len(pulse._workers._idle) == pulse._workers.threads

    def until_over(self, recovery: Recovery, name: str = "net") -> None:
        """Let the pauses between attempts pass, until nothing is under way."""

        def over() -> bool:
            self.registry.ports.pulse.step()
            if pauses(self.registry):
                self.clock.advance(0.5)
            return not recovery._cases[name].runs

        until(over)


@pytest.fixture
def ward(driven: ServiceRegistry, clock: FakeClock) -> Iterator[Ward]:
    made = Ward(driven, clock)
    yield made
    made.monitor.close()


def fail(net: ServiceHandle, error: type[Exception] = OSError, times: int = 5) -> None:
    def do() -> None:
        raise error("the hub is down")

    for _ in range(times):
        with pytest.raises(GrymError):
            net.ask(do)
