"""How often alerts are right, on what real services recorded while faults were put into them.

The truth is what the injector did, and when. Rules were chosen on the stress runs with even seeds; these are
the odd ones. ``-s`` prints the table.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import inf

import pytest

from grym_nb.errors import GrymError
from grym_nb.events import AlertChanged
from grym_nb.health.alerts import Alerts
from grym_nb.health.gauges import DEFAULT_RULES, write_gauges
from grym_nb.health.guarded import Guarded
from grym_nb.health.notices import Alert
from grym_nb.health.rules import Rule
from grym_nb.metrics.history import History
from grym_nb.services import ModelService, ServiceHandle, ServiceRegistry, task
from grym_nb.testing import FakeClock

SERVICES = 4
SECONDS = 900
SEEDS = range(1, 24 if os.environ.get("GRYM_FULL") == "1" else 12, 2)
LOOK = 5  # seconds, as in a kernel
GRACE = 45.0  # seconds after a fault in which its alert may still come: the windows hold it as long

#: the rule that is to tell of each fault, and of nothing else
TELLS = {
    "raises": "failing",
    "slows": "slow",
    "falls silent": "silent",
    "floods": "flood",
    "leaks": "full soon",
}

RULES = (
    next(rule for rule in DEFAULT_RULES if rule.name == "failing"),
    Rule(
        "slow", "service.call.seconds", figure="p95", above=0.1, by=("service",), window=30.0, for_seconds=5.0
    ),
    Rule("silent", "service.call.seconds", absent=20.0, by=("service",)),
    Rule(
        "flood",
        "service.call.seconds",
        figure="rate",
        above=8.0,
        by=("service",),
        window=20.0,
        for_seconds=5.0,
    ),
    Rule(
        "full soon", "model.share", above=0.9, within=600.0, window=120.0, by=("service",), for_seconds=15.0
    ),
)


@dataclass
class Fault:
    """What was done to a service, from when to when."""

    kind: str
    service: str
    begin: float
    end: float = inf


class Model(ModelService):
    def __init__(self, *, name: str) -> None:
        self.name = name
        self.fault = ""
        self.rng = random.Random(name)
        self.clock: FakeClock | None = None

    @task
    def ask(self) -> None:
        assert self.clock is not None
        took = 0.01 * self.rng.lognormvariate(0.0, 0.3)
        self.clock.advance(took * (20.0 if self.fault == "slows" else 1.0))
        # A few inputs are bad at any time.
        if self.rng.random() < (0.6 if self.fault == "raises" else 0.02):
            raise ValueError("this input does not fit")


class Stress:
    """Services that are called at random for a quarter of an hour, and the faults that are put into them."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.clock = FakeClock(1000.0)
        self.registry = ServiceRegistry(clock=self.clock)
        self.metrics = self.registry.ports.metrics
        self.history = History(self.metrics, clock=self.clock)
        self.alerts = Alerts(self.history, RULES, clock=self.clock, events=self.registry.ports.events)
        self.told: list[tuple[float, Alert]] = []  # when, by the clock of the stress
        self.guarded = Guarded()
        self.seconds = 0
        self.registry.ports.events.subscribe(self._hear, AlertChanged)
        self.faults: list[Fault] = []
        self.handles = [self._make(f"s{n}") for n in range(SERVICES)]
        self.plans = {handle.name: self._plan(handle.name) for handle in self.handles}
        self.shares = {handle.name: self.rng.uniform(0.2, 0.5) for handle in self.handles}

    def _hear(self, event: AlertChanged) -> None:
        self.told.append((self.clock(), event.alert))

    def _make(self, name: str) -> ServiceHandle:
        def make(*, name: str) -> Model:
            made = Model(name=name)
            made.clock = self.clock
            return made

        return self.registry.register(name, make, config={"name": name}).load()

    def _plan(self, name: str) -> Iterator[str]:
        """Yield, for each second, what is wrong with a service."""
        while True:
            for _ in range(self.rng.randrange(90, 240)):
                yield ""
            fault = Fault(self.rng.choice([*TELLS]), name, self.clock())
            self.faults.append(fault)
            for _ in range(self.rng.randrange(45, 120) + 60 * (fault.kind == "leaks")):
                yield fault.kind
            fault.end = self.clock()

    def second(self) -> None:
        """Let a second pass in which each service is called a few times."""
        ends = self.clock() + 1.0
        for handle in self.handles:
            fault = next(self.plans[handle.name])
            handle._record.instance.model.fault = fault  # type: ignore[union-attr]
            self._share(handle.name, fault)
            calls = {"falls silent": 0, "floods": 14}.get(fault, self.rng.choice((1, 2, 3)))
            for _ in range(calls):
                with suppress(GrymError):
                    handle.ask()
        self.clock.advance(max(0.0, ends - self.clock()))
        for _ in write_gauges(self.registry, self.metrics, self.guarded):
            pass
        self.history.step()
        self.seconds += 1
        if self.seconds % LOOK == 0:
            self.alerts.step()

    def _share(self, name: str, fault: str) -> None:
        if fault == "leaks":
            self.shares[name] += 0.0015
        elif self.shares[name] > 0.6:
            self.shares[name] = self.rng.uniform(0.2, 0.5)  # somebody has looked
        seen = self.shares[name] + self.rng.gauss(0.0, 0.002)
        self.metrics.gauge("model.share", service=name).set(seen)

    def run(self) -> None:
        for _ in range(SECONDS):
            self.second()
        self.registry.close()


@pytest.fixture(scope="module")
def runs() -> list[Stress]:
    made = [Stress(seed) for seed in SEEDS]
    for stress in made:
        stress.run()
    return made


def test_alerts_come_with_what_was_done_and_with_nothing_else(runs: list[Stress]) -> None:
    table: Counter[tuple[str, str]] = Counter()
    for stress in runs:
        table += scored(stress)
    rules = [*TELLS.values(), "nothing"]
    lines = [" " * 14 + "".join(f"{rule:>10}" for rule in rules) + "   recall  precision"]
    figures = {}
    for kind, rule in TELLS.items():
        there = sum(table[kind, other] for other in (rule, "nothing"))
        recall = table[kind, rule] / there
        precision = table[kind, rule] / max(1, sum(table[other, rule] for other in (*TELLS, "nothing")))
        figures[kind] = recall, precision
        cells = "".join(f"{table[kind, other]:10}" for other in rules)
        lines.append(f"{kind:14}{cells}{recall:9.3f}{precision:11.3f}")
    lines.append(f"{'nothing':14}" + "".join(f"{table['nothing', rule]:10}" for rule in rules[:-1]))
    sys.stdout.write("\n" + "\n".join(lines) + "\n")
    assert sum(table.values()) > 50
    assert {kind: pair for kind, pair in figures.items() if min(pair) <= 0.95} == {}


def scored(stress: Stress) -> Counter[tuple[str, str]]:
    """Return how often each fault came with each alert, or with none, and alerts with no fault."""
    found: Counter[tuple[str, str]] = Counter()
    fired = [(at, alert) for at, alert in stress.told if alert.state == "firing"]
    for fault in stress.faults:
        mine = [
            (at, alert)
            for at, alert in fired
            if alert.subject == fault.service and fault.begin <= at <= fault.end + GRACE
        ]
        fired = [one for one in fired if one not in mine]
        rules = {alert.rule for _, alert in mine}
        too_soon = fault.end == inf and stress.clock() - fault.begin < GRACE  # the run was over
        if TELLS[fault.kind] not in rules and not too_soon:
            found[fault.kind, "nothing"] += 1
        for rule in rules:
            found[fault.kind, rule] += 1
    for _, alert in fired:
        found["nothing", alert.rule] += 1
    return found
