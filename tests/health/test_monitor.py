"""Services judged by what they show: noticed soon, said once, and never disturbed by the looking."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from grym_nb.errors import GrymError, ServiceNotFound
from grym_nb.events import HealthChanged, SystemHealthChanged
from grym_nb.health.monitor import HealthMonitor
from grym_nb.services import ModelService, ServiceHandle, ServiceRegistry, task
from grym_nb.testing import FakeClock
from tests.services.crowd import WAIT, Gates, outcome, until


class Net(ModelService):
    """Does as it is told: answers, raises, takes its time, waits for the test."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken
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
            until(lambda: not any(runs for _, runs in self.monitor._pings.values()))


@pytest.fixture
def house(driven: ServiceRegistry, clock: FakeClock) -> Iterator[House]:
    made = House(driven, clock)
    yield made
    made.monitor.close()


def broken(net: ServiceHandle, times: int = 5) -> None:
    for _ in range(times):
        with pytest.raises(GrymError):
            net.ask(fail)


def test_what_was_never_loaded_is_not_judged(house: House) -> None:
    net = house.net()
    house.look()
    assert net.health == "unknown" and house.heard == [] and house.monitor.system().verdict == "unknown"
    net.load()
    house.look()
    assert net.health == "healthy" and house.heard == [("net", "unknown", "healthy")]


def test_failing_calls_are_noticed_within_two_looks_and_forgotten_in_time(house: House) -> None:
    net = house.net()
    net.ask()
    house.look()
    broken(net, 6)
    house.look()
    assert net.health == "healthy", net._record.health_reason
    house.look()
    assert net.health == "unhealthy"
    assert (
        net._record.health_reason
        == "6 of 7 calls failed in the last 15 s, ValueError the most often, for 5 s"
    )
    for _ in range(12):
        net.ask()
        house.look()
    assert net.health == "degraded"
    for _ in range(6):
        net.ask()
        house.look()
    assert net.health == "healthy", net._record.health_reason
    told = ["healthy", "unhealthy", "degraded", "healthy"]
    assert [after for _, _, after in house.heard] == told
    assert [one.after for one in house.monitor.story("net")] == told


def test_slow_calls_are_measured_by_what_is_usual(house: House) -> None:
    net = house.net()
    for _ in range(10):
        for _ in range(5):
            net.ask(lambda: house.clock.advance(0.1))
        house.look()
    assert net.health == "healthy", net._record.health_reason
    for _ in range(14):
        for _ in range(5):
            net.ask(lambda: house.clock.advance(0.45))
        house.look()
    assert net.health == "degraded" and "times its usual 1" in net._record.health_reason
    for _ in range(200):
        for _ in range(5):
            net.ask(lambda: house.clock.advance(0.45))
        house.look()
    assert net.health == "healthy", "after a quarter of an hour, that is how it is"


def test_a_call_past_its_deadline_is_stuck(house: House) -> None:
    gates = Gates()
    net = house.net()
    net.ask()

    call = net.ask.with_(timeout=10.0).submit(gates.hold)
    gates.wait("in")
    house.look()
    house.look(6)
    assert isinstance(outcome(call), GrymError)
    house.look()
    assert net.health == "unhealthy" and "past its deadline" in net._record.health_reason
    gates.tell("go")
    until(lambda: not net._record.lane.frames())
    for _ in range(5):
        house.look()
    assert net.health == "healthy", net._record.health_reason


def test_a_call_that_takes_far_longer_than_any_before_hangs_unless_it_makes_progress(house: House) -> None:
    gates = Gates()
    net = house.net()
    net.ask(lambda: house.clock.advance(1.0))

    call = net.ask.submit(gates.hold)
    gates.wait("in")
    house.look(20)
    assert net.health == "healthy", net._record.health_reason
    house.look(15)
    house.look()
    assert net.health == "unhealthy" and "times as long as any before" in net._record.health_reason
    gates.tell("go")
    call.result(WAIT)


def test_a_failed_load_is_said_at_once(house: House) -> None:
    net = house.net(config={"broken": True})
    house.monitor.listen()
    with pytest.raises(GrymError):
        net.load()
    house.registry.ports.pulse.step()
    assert net.health == "unhealthy" and "no weights" in net._record.health_reason


def test_one_that_nobody_uses_is_pinged_and_a_ping_leaves_no_trace(house: House) -> None:
    net = house.net().load()
    with net.use() as model:
        pass
    calls, used = net.metrics().calls, net._record.last_used
    house.look(31)
    assert model.pings == 1
    assert (net.metrics().calls, net._record.last_used) == (calls, used)
    model.ill = "the card is gone"
    house.look(31)
    house.look()
    assert net.health == "degraded" and "RuntimeError: the card is gone" in net._record.health_reason
    house.look()
    assert net.health == "unhealthy" and model.pings >= 3, "one that is ill is asked again soon"
    model.ill = ""
    for _ in range(5):
        house.look()
    assert house.monitor._watched["net"].unanswered == 0
    assert net.health == "healthy", net._record.health_reason


def test_a_busy_one_is_not_pinged_and_one_that_does_not_answer_is_written_off(house: House) -> None:
    gates = Gates()
    net = house.net().load()
    with net.use() as model:
        house.look(31)
        assert model.pings == 0
    hanging = Gates()

    def hang() -> None:
        model.pings += 1
        hanging.tell("in")
        hanging.wait("go")

    model.ping, house.hangs = hang, True
    house.look(31)
    hanging.wait("in")
    house.look(6)
    house.look()
    assert net.health == "degraded" and "no answer within 5 s" in net._record.health_reason
    hanging.tell("go")
    until(lambda: not net._record.users)
    gates.tell("over")


def test_critical_services_count_in_full_and_others_as_trouble(house: House) -> None:
    heard: list[tuple[str, str]] = []
    house.registry.ports.events.subscribe(lambda e: heard.append((e.before, e.after)), SystemHealthChanged)
    small, vital = house.net("small"), house.net("vital", priority="critical")
    small.ask()
    vital.ask()
    house.look()
    assert house.monitor.system().verdict == "healthy"
    broken(small, 6)
    house.look()
    house.look()
    system = house.monitor.system()
    assert system.verdict == "degraded" and "small is unhealthy: 6 of 7 calls failed" in system.reasons[0]
    broken(vital, 6)
    house.look()
    house.look()
    assert house.monitor.system().verdict == "unhealthy"
    assert list(house.monitor.system().services) == ["vital", "small"], "critical ones first"
    assert heard == [("unknown", "healthy"), ("healthy", "degraded"), ("degraded", "unhealthy")]
    assert (
        "health: unhealthy" in repr(house.monitor.system())
        and "<table" in house.monitor.system()._repr_html_()
    )


def test_new_code_is_not_measured_by_the_old_one(house: House) -> None:
    net = house.net()
    for _ in range(10):
        for _ in range(5):
            net.ask(lambda: house.clock.advance(0.01))
        house.look()
    net.configure(broken=False)
    house.registry.register("net", Net, version="2")
    for _ in range(20):
        for _ in range(5):
            net.ask(lambda: house.clock.advance(0.2))
        house.look()
    house.monitor.renew("net")
    assert net.health == "healthy", net._record.health_reason


def test_the_unknown_and_the_removed_have_no_health(house: House) -> None:
    house.monitor.listen()
    house.net().load()
    house.look()
    with pytest.raises(ServiceNotFound, match="'nett'"):
        house.monitor.of("nett")
    house.registry.remove("net")
    with pytest.raises(ServiceNotFound):
        house.monitor.of("net")
    assert "0 services judged" in repr(house.monitor)


def test_it_looks_by_itself_once_it_is_started(registry: ServiceRegistry) -> None:
    monitor = HealthMonitor(registry, look_seconds=0.02)
    monitor.start()
    monitor.start()
    net = registry.register("net", Net).load()
    until(lambda: net.health == "healthy")
    monitor.close()
    monitor.close()
    assert monitor.of("net").verdict == "healthy"
