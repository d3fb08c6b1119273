"""Services that are mended: by the step that is needed, with what they need first, and not for ever."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from grym_nb.errors import BreakerOpen, ConfigError, GrymError, ServiceNotReady
from grym_nb.events import RecoveryEnded, RecoveryGaveUp
from grym_nb.health.monitor import HealthMonitor
from grym_nb.health.recovery import Recovery, RecoveryPolicy
from grym_nb.services import ModelService, ServiceHandle, ServiceRegistry, task
from grym_nb.testing import FakeClock
from tests.services.crowd import WAIT, Gates, outcome, until

#: what is wrong, for how many more loads
BROKEN: dict[str, int] = {}


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

    def ping(self) -> None:
        if self.ill and self.way == "ping":
            raise RuntimeError("ill")

    @task
    def ask(self, do: Any = None) -> Any:
        if self.ill and self.way == "call":
            raise RuntimeError("ill")
        return do() if do is not None else None


class Needy(Net):
    needs = ("base",)


class House:
    def __init__(self, registry: ServiceRegistry, clock: FakeClock) -> None:
        self.registry, self.clock = registry, clock
        self.monitor = HealthMonitor(registry, look_seconds=5.0)
        self.monitor.listen()
        self.ended: list[RecoveryEnded] = []
        self.gave_up: list[RecoveryGaveUp] = []
        registry.ports.events.subscribe(self.ended.append, RecoveryEnded)
        registry.ports.events.subscribe(self.gave_up.append, RecoveryGaveUp)
        BROKEN.clear()

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
        until(lambda: not any(runs for _, runs in self.monitor._pings.values()))

    def steps(self) -> list[tuple[str, bool]]:
        return [(one.step, one.helped) for one in self.ended]

    def until_over(self, recovery: Recovery, name: str = "net") -> None:
        """Let the pauses between attempts pass, until nothing is under way."""

        def over() -> bool:
            self.registry.ports.pulse.step()
            if recovery._cases[name].runs:
                self.clock.advance(0.5)
            return not recovery._cases[name].runs

        until(over)


@pytest.fixture
def house(driven: ServiceRegistry, clock: FakeClock) -> Iterator[House]:
    made = House(driven, clock)
    yield made
    made.monitor.close()


def test_a_reset_is_enough_where_a_ping_answers(house: House) -> None:
    recovery = house.recovery()
    net = house.net(breaker=True, way="call")
    net.load()._record.instance.model.ill = True  # type: ignore[union-attr]
    for _ in range(5):
        with pytest.raises(GrymError):
            net.ask()
    with pytest.raises(BreakerOpen):
        net.ask()
    net._record.instance.model.ill = False  # type: ignore[union-attr]
    house.until_over(recovery)
    assert house.steps() == [("reset", True)] and net.ask() is None
    assert net.health == "healthy"
    counters = {
        dict(s.tags)["outcome"]: s.value for s in house.registry.ports.metrics.select("recovery.attempts")
    }
    assert counters == {"helped": 1}
    [taken] = house.registry.ports.metrics.select("recovery.seconds")
    assert taken.value.count == 1  # type: ignore[union-attr]


def test_what_does_not_help_is_followed_by_a_stronger_step_after_a_pause(house: House) -> None:
    BROKEN["net"] = 1
    recovery = house.recovery()
    net = house.net().load()
    assert recovery.begin("net", "as asked")
    house.until_over(recovery)
    assert house.steps() == [("reset", False), ("reload", True)]
    assert (
        net.health == "healthy" and net.ask() is None and "ping: RuntimeError: ill" in house.ended[0].reason
    )


def test_what_is_loaded_is_pinged_before_any_call_gets_to_it(house: House) -> None:
    BROKEN["net"] = 3
    recovery = house.recovery(policy=RecoveryPolicy(steps=("reload",)))
    net = house.net().load()
    recovery.begin("net", "as asked")
    house.until_over(recovery)
    assert house.steps() == [("reload", False), ("reload", False), ("reload", True)]
    assert "RuntimeError: ill" in house.ended[0].reason and net.state == "ready"


def test_a_relapse_gets_the_next_step(house: House) -> None:
    recovery = house.recovery()
    net = house.net().load()
    for step in ("reset", "reload", "restart", "restart"):
        assert recovery.begin("net", "again")
        house.until_over(recovery)
        assert house.steps()[-1] == (step, True)
        house.clock.advance(10.0)
    house.clock.advance(1000.0)
    recovery.begin("net", "much later")
    house.until_over(recovery)
    assert house.steps()[-1] == ("reset", True) and net.state == "ready"


def test_a_call_that_hangs_is_left_behind_and_the_next_ones_are_answered(house: House) -> None:
    gates = Gates()
    recovery = house.recovery()
    net = house.net()
    net.ask()

    call = net.ask.with_(timeout=10.0).submit(gates.hold)
    gates.wait("in")
    house.look(11)
    assert isinstance(outcome(call), GrymError)
    house.look()
    house.look()
    until(lambda: "net" in recovery._cases)
    house.until_over(recovery)
    assert house.steps() == [("restart", True)] and net.ask() is None
    gates.tell("go")
    until(lambda: not net._record.lane.frames())


def test_what_is_needed_is_mended_first(house: House) -> None:
    BROKEN["base"] = 1
    recovery = house.recovery()
    base = house.net("base")
    net = house.net(made=Needy).load()
    recovery.begin("net", "as asked")
    house.until_over(recovery)
    assert house.steps() == [("reset", True)]
    assert base.ping().ok and base.status().loads == 2 and net.status().loads == 1


def test_after_the_budget_it_is_left_as_failed_which_is_said_once_with_what_to_do(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    BROKEN["net"] = 100
    recovery = house.recovery(policy=RecoveryPolicy(budget=3, budget_seconds=600.0))
    net = house.net().load()
    recovery.begin("net", "as asked")
    house.until_over(recovery)
    assert house.steps() == [("reset", False), ("reload", False), ("restart", False)]
    assert net.state == "failed" and len(house.gave_up) == 1
    assert "3 attempts within 10 min 0 s did not help" in house.gave_up[0].reason
    assert [m for m in caplog.messages if "left as failed" in m] == [caplog.messages[-1]]
    assert "grym.get('net').reload()" in caplog.messages[-1]
    loads = net.status().loads
    with pytest.raises(ServiceNotReady, match="net is left as failed: 3 attempts") as caught:
        net.ask()
    assert "reload()" in caught.value.hint and net.status().loads == loads
    house.look()
    assert net.health == "unhealthy"
    BROKEN["net"] = 0
    net.reload()
    assert net.ask() is None and net.state == "ready"


def test_registering_it_again_gives_it_another_chance(house: House) -> None:
    BROKEN["net"] = 100
    recovery = house.recovery(policy=RecoveryPolicy(budget=1))
    net = house.net().load()
    recovery.begin("net", "as asked")
    house.until_over(recovery)
    assert net.state == "failed"
    BROKEN["net"] = 0
    house.registry.register("net", Net, config={"name": "net", "way": "call"})
    assert net.ask() is None


def test_failed_loads_are_tried_again_where_that_is_wanted(house: House) -> None:
    BROKEN["net"] = 2
    recovery = house.recovery(policy=RecoveryPolicy(on=("state",)))
    net = house.net(way="load")
    with pytest.raises(GrymError):
        net.load()
    house.registry.ports.pulse.step()
    until(lambda: "net" in recovery._cases)
    house.until_over(recovery)
    assert house.steps() == [("reset", False), ("reload", True)] and net.state == "ready"


def poisoned(house: House) -> ServiceHandle:
    """Return a service whose calls fail, while its ping answers."""
    net = house.net(way="call").load()
    net._record.instance.model.ill = True  # type: ignore[union-attr]
    for _ in range(8):
        with pytest.raises(GrymError):
            net.ask()
    return net


def test_the_authors_errors_are_nothing_that_another_try_would_cure(house: House) -> None:
    recovery = house.recovery()
    net = poisoned(house)
    for _ in range(3):
        house.look()
    assert net.health == "unhealthy" and recovery._cases == {}


def test_a_ping_that_raises_after_the_verdict_is_heard_too(house: House) -> None:
    """First its calls fail, which may be for what they are given; then its ping says that it is not."""
    recovery = house.recovery()
    net = poisoned(house)
    for _ in range(3):
        house.look()
    assert net.health == "unhealthy" and recovery._cases == {}
    net._record.instance.model.way = "ping"  # type: ignore[union-attr]
    for _ in range(3):
        house.look()
    house.until_over(recovery)
    assert house.steps()[-1] == ("reload", True)


def test_one_that_is_not_to_be_mended_is_left_alone(house: House) -> None:
    recovery = house.recovery(policies={"net": None})
    house.net().load()
    assert recovery.policy("net") is None and not recovery.begin("net", "as asked")
    assert not recovery.begin("nobody", "as asked")
    assert repr(recovery) == "<Recovery: nothing under way>"


def test_nothing_is_mended_twice_at_a_time_or_in_the_middle_of_a_drain(house: House) -> None:
    gates = Gates()
    recovery = house.recovery(policy=RecoveryPolicy(steps=("reload",)))
    net = house.net().load()

    call = net.ask.submit(gates.hold)
    gates.wait("in")
    assert recovery.begin("net", "as asked")
    until(lambda: net.state == "draining")
    assert not recovery.begin("net", "again") and "net under way" in repr(recovery)
    gates.tell("go")
    call.result(WAIT)
    house.until_over(recovery)
    assert house.steps() == [("reload", True)]


def test_a_service_that_was_removed_is_forgotten(house: House) -> None:
    recovery = house.recovery()
    house.net().load()
    recovery.begin("net", "as asked")
    house.until_over(recovery)
    house.registry.remove("net")
    assert recovery._cases == {}
    recovery.close()
    recovery.close()


@pytest.mark.parametrize(
    "wrong", [{"steps": ()}, {"steps": ("pray",)}, {"on": ("mood",)}, {"budget": 0}, {"pause": -1.0}]
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="nothing can be mended so"):
        RecoveryPolicy(**wrong)
