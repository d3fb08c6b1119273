"""Faults put into real services: noticed within two looks, named, and mended where that can be."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from grym_nb.errors import GrymError
from grym_nb.events import HealthChanged, RecoveryEnded
from grym_nb.hardening.pressure import Pressure
from grym_nb.health.oversight import Oversight
from grym_nb.health.remedies import RecoveryPolicy
from grym_nb.services import ModelService, ServiceHandle, ServiceRegistry, task
from grym_nb.testing import FakeClock
from tests.health.house import pinging
from tests.services.crowd import Gates, outcome, until

pytestmark = pytest.mark.usefixtures("small_heap")

LOOK = 5.0


class Model(ModelService):
    """A model whose faults are put into it; a new instance has none."""

    def __init__(self, *, seconds: float = 0.1) -> None:
        self.seconds = seconds
        self.fault = ""
        self.kept: list[Any] = []
        self.gates: Gates | None = None
        self.clock: FakeClock | None = None

    def ping(self) -> None:
        if self.fault == "dies":
            raise RuntimeError("CUDA error: device-side assert triggered")

    @task
    def ask(self, n: int = 0) -> int:
        assert self.clock is not None
        self.clock.advance(self.seconds * (20.0 if self.fault == "slows" else 1.0))
        if self.fault in ("raises", "dies"):
            raise RuntimeError(self.fault)
        if self.fault == "hangs":
            assert self.gates is not None
            self.gates.hold()
        if self.fault == "leaks":
            self.kept.append(np.ones(1000))
        return n


class House:
    def __init__(self, registry: ServiceRegistry, clock: FakeClock, *, mends: bool = True) -> None:
        self.registry, self.clock = registry, clock
        policy = RecoveryPolicy() if mends else None
        names = None if mends else {"model": None}
        self.oversight = Oversight(registry, look_seconds=LOOK, recovery=policy, recoveries=names)
        self.changes: list[HealthChanged] = []
        self.mended: list[RecoveryEnded] = []
        registry.ports.events.subscribe(self.changes.append, HealthChanged)
        registry.ports.events.subscribe(self.mended.append, RecoveryEnded)
        self.gates = Gates()

        def make(*, seconds: float = 0.1) -> Model:
            made = Model(seconds=seconds)
            made.clock, made.gates = clock, self.gates
            return made

        self.model: ServiceHandle = registry.register("model", make)
        self.model.load()

    @property
    def inside(self) -> Model:
        found: Model = self.model._record.instance.model  # type: ignore[union-attr]
        return found

    def second(self, calls: int = 1) -> int:
        """Let a second pass, with so many calls in it; return how many were answered."""
        answered = 0
        ends = self.clock() + 1.0
        for _ in range(calls):
            try:
                self.model.ask(1)
                answered += 1
            except GrymError:
                pass
        if self.clock() < ends:
            self.clock.advance(ends - self.clock())
        self.registry.ports.pulse.step()
        monitor = self.oversight.monitor
        until(lambda: not pinging(monitor))
        until(
            lambda: (
                not any(case.runs and not self._pauses() for case in self.oversight.recovery._cases.values())
            )
        )
        return answered

    def _pauses(self) -> bool:
        """Tell whether a recovery waits for its next attempt."""
        self.registry.ports.pulse.step()
        heap = tuple(self.registry.ports.pulse._heap)
        return any(entry.active and entry.name.startswith("recovery of") for _, _, entry in heap)

    def seconds(self, count: int, calls: int = 1) -> int:
        return sum(self.second(calls) for _ in range(count))


@pytest.fixture
def house(driven: ServiceRegistry, clock: FakeClock) -> Iterator[House]:
    made = House(driven, clock)
    made.seconds(90)
    assert made.model.health == "healthy", made.model._record.health_reason
    yield made
    made.oversight.close()


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("raises", "errors"), ("slows", "slow"), ("dies", "ping")],
)
def test_each_fault_is_noticed_within_two_looks_and_named(house: House, fault: str, kind: str) -> None:
    seen: list[tuple[float, set[str]]] = []

    monitor = house.oversight.monitor

    def look(*_: object) -> None:
        seen.append((house.clock(), {sign.kind for sign, _ in monitor.of("model").signs}))

    house.registry.ports.events.subscribe(look, HealthChanged)
    monitor.concerned.insert(0, look)  # at each look that finds it unhealthy, too: the reasons may grow
    house.inside.fault = fault
    began = house.clock()
    while not any(kind in kinds for _, kinds in seen):
        house.seconds(1, calls=1 if fault == "slows" else 5)
        assert house.clock() - began < 4 * LOOK, (fault, seen)
    at = next(at for at, kinds in seen if kind in kinds)
    # A p95 of twenty calls shows what two of them do, which take four seconds.
    shows = 4.0 if fault == "slows" else 0.0
    assert at - began <= 2 * LOOK + 2.0 + shows, "two looks, and the call that was under way"


def test_a_hang_is_noticed_and_left_behind_within_ten_seconds(house: House) -> None:
    house.inside.fault = "hangs"
    call = house.model.ask.with_(timeout=5.0).submit(1)
    house.gates.wait("in")
    house.clock.advance(5.5)
    assert isinstance(outcome(call), GrymError)
    noticed = house.clock()
    monitor, recovery = house.oversight.monitor, house.oversight.recovery
    while not house.mended:
        house.clock.advance(1.0)
        house.registry.ports.pulse.step()
        assert house.clock() - noticed < 2 * LOOK + 10.0
        until(lambda: not any(case.runs for case in recovery._cases.values()))
    assert [(one.step, one.helped) for one in house.mended] == [("restart", True)]
    assert "past its deadline" in house.mended[0].reason and monitor.of("model").verdict == "healthy"
    assert house.model.ask(3) == 3
    house.gates.tell("go")


def test_a_model_that_dies_is_mended_and_one_that_only_raises_is_left(house: House) -> None:
    house.inside.fault = "dies"
    house.seconds(60, calls=3)
    assert house.mended and house.mended[-1].helped and house.mended[-1].step in ("reload", "restart")
    assert house.model.health == "healthy" and house.inside.fault == ""
    count = len(house.mended)
    house.inside.fault = "raises"
    house.seconds(60, calls=3)
    assert house.model.health == "unhealthy" and len(house.mended) == count


def test_a_leak_is_told_before_the_limit_is_reached(house: House) -> None:
    share = [0.30]
    house.registry.ports.resources.pressure = lambda: Pressure(int(share[0] * 1e9), 10**9, "test")
    alerts: list[str] = []
    house.oversight.alerts.tell(lambda notice: alerts.append(notice.text))
    reasons: list[str] = []
    while share[0] < 0.8:
        share[0] += 0.001
        house.second(0)
        reasons += house.oversight.monitor.system().reasons
    assert "memory limit in about" in reasons[0], "before anything else says so"
    assert any("memory ahead" in text for text in alerts)


def test_an_hour_of_faults_with_and_without_recovery(
    driven: ServiceRegistry, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twelve times an hour a model dies, as a card does; who uses it asks once a second."""
    shares = {}
    for mends in (True, False):
        with ServiceRegistry(clock=clock) as registry:
            house = House(registry, clock, mends=mends)
            house.seconds(60)
            answered = asked = 0
            for minute in range(60):
                if minute % 5 == 2:
                    house.inside.fault = "dies"
                if not mends and minute % 30 == 29:
                    house.model.unload().load()  # somebody looks twice an hour
                answered += house.seconds(60)
                asked += 60
            house.oversight.close()
            shares[mends] = answered / asked
    with capsys.disabled():
        told = {True: "with recovery", False: "without, reloaded by hand twice"}
        line = ", ".join(f"{told[mends]} {shares[mends]:.1%}" for mends in (True, False))
        sys.stdout.write(f"\nan hour with 12 faults: {line}\n")
    assert shares[True] > 0.9 and shares[False] < 0.5
