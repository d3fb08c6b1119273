"""A model that keeps what its calls make is seen to grow, by its name, and nobody waits for the look."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from grym_nb.hardening import storages
from grym_nb.hardening.ledger import Ledger
from grym_nb.health import holdings
from grym_nb.health.oversight import Oversight
from grym_nb.health.signs import Grown, Vitals, signs_of
from grym_nb.services import ModelService, ServiceHandle, ServiceRegistry, task
from grym_nb.testing import FakeClock
from tests.services.crowd import Gates, outcome, until

MB = 1_000_000


class Net(ModelService):
    """Has weights; keeps as much of each call as the test wants."""

    def __init__(self, *, weights: int = 20 * MB) -> None:
        self.weights = weights
        self.seen: list[Any] = []

    def load(self) -> None:
        self.net = np.zeros(self.weights, np.uint8)

    @task
    def ask(self, keep: int = 0) -> int:
        if keep:
            self.seen.append(np.zeros(keep, np.uint8))
        return len(self.seen)

    @task
    def hold(self, gates: Gates) -> None:
        gates.hold()


class House:
    def __init__(self, registry: ServiceRegistry, clock: FakeClock) -> None:
        self.registry = registry
        self.clock = clock
        self.watch = Oversight(registry, look_seconds=0.0)
        [memory] = self.watch.monitor.looks
        self.holdings: holdings.Holdings = memory.holdings  # type: ignore[attr-defined]

    def minute(self) -> None:
        """Let a minute pass, with looks in it."""
        for _ in range(12):
            self.clock.advance(5.0)
            self.watch.history.step()
            self.watch.step()
            until(lambda: self.holdings.idle)

    def look(self) -> None:
        """Have those measured that are due."""
        self.holdings.step(self.clock())
        until(lambda: self.holdings.idle)

    def series(self, name: str) -> float:
        value = self.registry.ports.metrics.gauge("service.memory.bytes", service=name).value
        assert value is not None
        return value / MB


@pytest.fixture
def house(driven: ServiceRegistry, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setattr(holdings, "_COSTS", 0.0)  # what a look takes is of the machine, not of the clock
    made = House(driven, clock)
    yield made
    made.watch.close()


def used(house: House, net: ServiceHandle, minutes: int, keep: int) -> None:
    for _ in range(minutes):
        net.ask(keep)
        house.minute()


def test_a_model_that_keeps_what_its_calls_make_is_seen_to_grow(house: House) -> None:
    leaky, good = house.registry.register("leaky", Net), house.registry.register("good", Net)
    for net in (leaky, good):
        net.load()
    for _ in range(6):
        leaky.ask(20 * MB)
        good.ask()
        house.minute()
    assert house.series("leaky") == pytest.approx(140.0) and house.series("good") == pytest.approx(20.0)
    assert leaky.status().holds == {"cpu": 140 * MB}
    assert (leaky.health, good.health) == ("degraded", "healthy")
    told = house.watch.monitor.of("leaky").told(house.clock())
    assert "it holds 140 MB, 7.0 times the 20.0 MB after its load 6 min" in told and "looks" in told
    [alert] = house.watch.alerts.active
    assert alert.rule == "growing" and "leaky" in alert.subject
    assert alert.told == (
        "it holds 140 MB, 120 MB more than after its load, more at each of 5 looks"
        " (told from 50.0 MB and 1.5 times as much on)"
    )
    assert (alert.figure, alert.limit) == (120.0, 50.0)


def test_one_that_fills_something_once_is_no_leak(house: House) -> None:
    net = house.registry.register("net", Net).load()
    used(house, net, 3, 60 * MB)
    assert house.series("net") == pytest.approx(200.0)
    used(house, net, 4, 0)
    assert net.health == "healthy" and not house.watch.alerts.active


def test_one_that_has_stopped_to_grow_is_well_again(house: House) -> None:
    net = house.registry.register("net", Net).load()
    used(house, net, 5, 20 * MB)
    assert net.health == "degraded"
    used(house, net, 3, 0)
    assert net.health == "healthy" and not house.watch.alerts.active


def test_another_model_begins_anew(house: House) -> None:
    net = house.registry.register("net", Net).load()
    used(house, net, 5, 20 * MB)
    net.unload().load(), net.unload(), net.load()
    house.minute()
    assert net.health == "healthy" and house.series("net") == pytest.approx(20.0)


def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    real = Ledger.look_at

    def look_at(self: Ledger, one: Any, **options: Any) -> None:
        found.append(one.owner)
        real(self, one, **options)

    monkeypatch.setattr(Ledger, "look_at", look_at)
    return found


def test_one_that_is_in_use_is_left_alone(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    gates = Gates()
    net = house.registry.register("net", Net).load()
    found = looks(monkeypatch)
    call = net.submit("hold", gates)
    gates.wait("in")
    for _ in range(3):
        house.minute()
    assert not found
    gates["go"].set()
    call.result(10)
    house.minute()
    assert found == ["net"]


class Row(dict[str, Any]):
    """A small part of a model: how many were looked into is counted, and the test may do something then."""

    looked = 0
    amid: Callable[[], object] | None = None


@pytest.fixture
def _rows_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    within = storages._within

    def counted(part: Any) -> Iterator[object]:
        if type(part) is Row:
            Row.looked += 1
            amid, Row.amid = Row.amid, None
            if amid is not None:
                amid()
        return within(part)

    monkeypatch.setattr(storages, "_within", counted)


@pytest.mark.usefixtures("_rows_are_counted")
@pytest.mark.parametrize("during", ["before it ends", "it runs on"])
def test_a_look_ends_as_soon_as_a_call_comes(house: House, during: str) -> None:
    """Its outcome is thrown away, and until it ends it is in the way of the call."""
    gates = Gates()

    class Words(Net):
        def load(self) -> None:
            self.net = [Row() for _ in range(5000)]

    net = house.registry.register("net", Words).load()
    instance = net._record.instance
    assert instance is not None
    calls: list[Any] = []

    def call() -> None:
        if during == "it runs on":
            calls.append(net.submit("hold", gates))
            gates.wait("in")
        else:
            net.ask()

    house.look()
    house.clock.advance(61.0)
    Row.looked, Row.amid = 0, staticmethod(call)
    house.look()
    gates["go"].set()
    assert Row.amid is None and 0 < Row.looked < 1000
    assert all(outcome(call) is None for call in calls)
    until(lambda: not net._record.users)
    Row.looked = 0
    house.clock.advance(5.0)
    house.look()  # to its end, now that nobody uses it
    assert Row.looked >= 5000 and instance.looked_at == net._record.last_used


def test_one_that_nobody_uses_is_looked_at_once_a_minute(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.registry.register("net", Net).load()
    found = looks(monkeypatch)
    for _ in range(10):
        house.minute()
    assert 8 <= len(found) <= 10


def test_a_look_that_ends_as_others_begin_is_not_forgotten(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says of when its model is due comes on another thread, in the middle of a step."""
    first, second = (house.registry.register(name, Net).load()._record for name in ("first", "second"))
    house.look()
    house.clock.advance(61.0)
    found = looks(monkeypatch)
    measured: list[str] = []

    class Second:
        """The second one, for which a step asks after the first."""

        instance, users = second.instance, 1

        @property
        def name(self) -> str:
            if not measured:
                measured.append("first")
                house.holdings._measure(first)
            return "second"

    handles = [SimpleNamespace(_record=one) for one in (first, Second())]
    monkeypatch.setattr(house.holdings, "_registry", SimpleNamespace(handles=lambda: handles))
    house.look()
    assert measured and found == ["first"]
    house.look()
    assert found == ["first"]  # a minute has not passed


def test_a_look_that_takes_long_is_seldom(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holdings, "_COSTS", 1000.0)
    ticks = iter(range(1000))
    monkeypatch.setattr(holdings, "perf_counter", lambda: float(next(ticks)))  # each takes a second
    net = house.registry.register("net", Net).load()
    found = looks(monkeypatch)
    used(house, net, 15, 0)
    assert len(found) == 1
    used(house, net, 4, 0)
    assert len(found) == 2  # a thousand seconds later


def test_what_is_no_array_stays_in_the_books_beside_what_calls_add(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = house.registry.register("net", Net, config={"weights": 0}).load()
    record = net._record
    instance = record.instance
    assert instance is not None and instance.reservation is not None
    instance.grown = 300 * MB
    instance.reservation.storages = {("cpu", -id(instance)): 300 * MB}  # as after its load
    used(house, net, 2, 10 * MB)
    assert house.series("net") == pytest.approx(320.0)


def test_the_forecast_of_the_kernel_names_who_has_grown(house: House) -> None:
    net = house.registry.register("net", Net).load()
    used(house, net, 5, 20 * MB)
    assert house.holdings.growing() == {"net": 100 * MB}
    [memory] = house.watch.monitor.looks
    assert memory._who_grows() == "; since their load have grown: net by 100 MB"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("grown", "told"),
    [
        (Grown(900 * MB, 300 * MB, 600.0, 4), "it holds 900 MB, 3.0 times the 300 MB after its load 10 min"),
        (Grown(900 * MB, 0, 600.0, 5), "it holds 900 MB, and had 0 B after its load 10 min"),
        (Grown(900 * MB, 300 * MB, 600.0, 3), ""),  # it may be filling something
        (Grown(60 * MB, 20 * MB, 600.0, 9), ""),  # little
        (Grown(2400 * MB, 2000 * MB, 600.0, 9), ""),  # beside what it had
    ],
)
def test_what_is_grown_is_said_in_words(grown: Grown, told: str) -> None:
    found = [sign.told for sign in signs_of(Vitals(state="ready", grown=grown))]
    assert [text.startswith(told) for text in found] == ([True] if told else [])
