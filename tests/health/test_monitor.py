"""Services judged by what they show: noticed soon, said once, and never disturbed by the looking."""

from __future__ import annotations

from typing import Any

import pytest

from grym_nb.errors import CallTimeout, ConfigError, GrymError, ServiceNotFound
from grym_nb.events import SystemHealthChanged
from grym_nb.health.monitor import HealthMonitor
from grym_nb.health.vitals import Lately
from grym_nb.services import ModelService, ServiceRegistry, task
from tests.health.house import House, Net, broken, fail
from tests.services.crowd import WAIT, Gates, outcome, until


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


def test_a_row_of_failures_is_seen_beside_thousands_that_went_well(house: House) -> None:
    class Silent(ModelService):
        """Has no ping that could say that it is well."""

        ask = Net.ask

    net = house.registry.register("net", Silent)
    for _ in range(2000):
        net.ask()
    house.look()
    broken(net, 12)
    house.look()
    house.look()
    assert net._record.health_reason.startswith("its last 12 calls all failed, ValueError the most often")
    assert net.health == "degraded"
    for _ in range(2000):
        net.ask()
    house.look()
    broken(net, 24)
    house.look()
    house.look()
    assert net.health == "unhealthy" and "its last 24 calls all failed" in net._record.health_reason
    for _ in range(24):  # nobody calls any more
        house.look()
    assert net.health == "degraded" and "its last 24 calls all failed" in net._record.health_reason
    net.ask()
    for _ in range(6):
        house.look()
    assert net.health == "healthy", net._record.health_reason


def test_one_whose_fallback_answers_in_its_place_is_degraded(house: House) -> None:
    """Its callers do not fail, and none of its calls is answered by the model."""
    net = house.net(fallback=lambda error, do: "instead")
    for _ in range(5):
        assert [net.ask(fail) for _ in range(4)] == ["instead"] * 4
        house.look()
    assert net.health == "degraded" and net.metrics().errors == {}
    assert net._record.health_reason.startswith("its fallback answered 16 of 16 calls in the last 20 s")
    for _ in range(18):
        net.ask()
        house.look()
    assert net.health == "healthy", net._record.health_reason


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


def test_a_failed_load_is_said_at_once(house: House) -> None:
    net = house.net(config={"broken": True})
    house.monitor.listen()
    with pytest.raises(GrymError):
        net.load()
    house.registry.ports.pulse.step()
    assert net.health == "unhealthy" and "no weights" in net._record.health_reason


def test_critical_services_count_in_full_and_others_as_trouble(house: House) -> None:
    heard: list[tuple[str, str]] = []
    house.registry.ports.events.subscribe(lambda e: heard.append((e.before, e.after)), SystemHealthChanged)
    small, vital = house.net("small"), house.net("vital", priority="critical")
    small.ask()
    vital.ask()
    house.net("calm").ask()
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
    assert list(house.monitor.system().services) == ["vital", "calm", "small"], "critical ones first"
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


@pytest.mark.parametrize("name", ["look_seconds", "ping_seconds", "ping_timeout", "window"])
@pytest.mark.parametrize("wrong", ["5", 0, -1.0, float("nan"), None])
def test_times_that_are_none_are_refused(driven: ServiceRegistry, name: str, wrong: Any) -> None:
    """The first look, or ping, would raise on the pulse, where nobody sees it, and all would seem well."""
    with pytest.raises(ConfigError, match=f"{name} cannot be"):
        HealthMonitor(driven, **{name: wrong})
    with pytest.raises(ConfigError, match="only the services of a registry can be looked at"):
        HealthMonitor("asr")  # type: ignore[arg-type]


def test_the_unknown_and_the_removed_have_no_health(house: House) -> None:
    house.monitor.listen()
    house.net().load()
    house.look()
    with pytest.raises(ServiceNotFound, match="'nett'"):
        house.monitor.of("nett")
    house.registry.remove("net")
    with pytest.raises(ServiceNotFound):
        house.monitor.of("net")
    assert "nothing is loaded yet" in repr(house.monitor)
    for wrong in (3, None):
        with pytest.raises(ConfigError, match="which service is asked for"):
            house.monitor.of(wrong)  # type: ignore[arg-type]


def test_it_looks_by_itself_once_it_is_started(registry: ServiceRegistry) -> None:
    monitor = HealthMonitor(registry, look_seconds=0.02)
    monitor.start()
    monitor.start()
    net = registry.register("net", Net).load()
    until(lambda: net.health == "healthy")
    monitor.close()
    monitor.close()
    assert monitor.of("net").verdict == "healthy"


def test_what_one_look_raises_takes_nothing_else_along(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    net, other = house.net().load(), house.net("other").load()
    told: list[str] = []

    def bad(*_: Any) -> Any:
        raise OSError("nvidia-smi is gone")

    house.monitor.looks += [bad, lambda now: told.append("looked") or ()]
    house.monitor.concerned += [bad, lambda name, health: told.append(name)]
    house.registry.ports.metrics.counter("service.health", service="net").add()
    broken(net, 6)
    broken(other, 6)
    for _ in range(3):
        house.look()
    assert (net.health, other.health) == ("unhealthy", "unhealthy")
    assert {"looked", "net", "other"} <= set(told)
    said = [record.getMessage() for record in caplog.records if "is not said again" in record.getMessage()]
    assert len(said) == 4, said


def test_one_slow_call_among_a_few_is_no_slowness(house: House) -> None:
    net = house.net()
    for _ in range(12):
        for _ in range(5):
            net.ask(lambda: house.clock.advance(0.1))
        house.look()
    house.look(70)
    net.ask(lambda: house.clock.advance(2.0))  # the first one, or a long one
    for _ in range(6):
        net.ask(lambda: house.clock.advance(0.1))
        house.look(1)
    for _ in range(6):
        house.look()
        assert net.health == "healthy", net._record.health_reason


def test_a_burst_right_after_the_load_is_what_is_usual(house: House) -> None:
    """The first look comes before the history has any of it: what it could not read is learned later."""
    net = house.net().load()
    house.monitor.step()
    for _ in range(100):
        net.ask(lambda: house.clock.advance(0.0005))
    house.monitor.step()
    assert house.monitor.usual("net") is None, "nothing of it could be read yet"
    house.look()
    assert house.monitor.usual("net") == pytest.approx(0.0005, rel=0.1)
    for _ in range(70):
        net.ask(lambda: house.clock.advance(0.3))
    house.monitor.step()
    house.look()
    house.look()
    assert house.monitor.usual("net") == pytest.approx(0.0005, rel=0.1)
    assert net.health == "unhealthy" and "times its usual" in net._record.health_reason


def test_calls_that_could_not_be_read_do_not_count_as_learned(house: House) -> None:
    net = house.net()
    net.ask(lambda: house.clock.advance(3.0))
    house.look()
    for _ in range(30):
        net.ask(lambda: house.clock.advance(0.01))
    house.monitor.step()  # the history has the first one only
    assert house.monitor.usual("net") is None
    house.look()
    house.look(30)
    assert house.monitor._watched["net"].learned == 31
    house.look()
    assert house.monitor._watched["net"].learned == 31, "each is learned once"


def test_the_usual_is_learned_from_enough_calls_and_anew_with_another_config(house: House) -> None:
    net = house.net()
    for _ in range(2):
        net.ask(lambda: house.clock.advance(0.01))
    for _ in range(12):
        house.look()
    watched = house.monitor._watched["net"]
    assert watched.learned == 2 and watched.usual is None, "the same two calls, looked at twelve times"
    for _ in range(6):
        for _ in range(5):
            net.ask(lambda: house.clock.advance(0.01))
        house.look()
    assert watched.usual is not None
    version = net._record.config_version
    net.configure(broken=False, late=0.2)
    assert net._record.config_version == version + 1
    for _ in range(6):
        for _ in range(3):
            net.ask(lambda: house.clock.advance(0.2))
        house.look()
        assert net.health == "healthy", net._record.health_reason


def test_a_deadline_that_was_spent_in_line_is_no_failure(house: House) -> None:
    gates = Gates()
    net = house.net().load()
    first = net.ask.submit(gates.hold)
    gates.wait("in")
    calls = [net.ask.with_(timeout=1.0).submit() for _ in range(8)]
    house.look()
    assert all(isinstance(outcome(call), CallTimeout) for call in calls)
    for _ in range(3):
        house.look()
    assert net.health == "healthy", net._record.health_reason
    gates.tell("go")
    first.result(WAIT)


class Newer(Net):
    """The same, mended."""


def test_the_old_code_s_failures_do_not_speak_against_the_new(house: House) -> None:
    net = house.net().load()
    broken(net, 8)
    house.look()
    house.look()
    assert net.health == "unhealthy"
    house.registry.register("net", Newer)
    assert net._record.code_version == 2
    net.ask()
    for _ in range(4):
        house.look()
    assert net.health == "healthy", net._record.health_reason


def test_what_failed_last_is_remembered_until_a_call_or_a_ping_says_otherwise(house: House) -> None:
    class Mute(ModelService):
        @task
        def ask(self, do: Any = None) -> Any:
            return do() if do is not None else None

    net, mute = house.net().load(), house.registry.register("mute", Mute).load()
    for one in (net, mute):
        broken(one, 20)
    for _ in range(30):
        house.look()
    assert net.health == "healthy", "its own ping says that it is well"
    assert mute.health == "degraded"
    assert "20 of 20 calls failed when it was last used, ValueError the most often" in (
        mute._record.health_reason
    )
    mute.ask()
    for _ in range(4):
        house.look()
    assert mute.health == "healthy", mute._record.health_reason


def test_all_together_are_as_ill_as_half_of_them(house: House) -> None:
    nets = [house.net(name).load() for name in ("one", "two", "three")]
    broken(nets[0], 6)
    house.look()
    house.look()
    assert house.monitor.system().verdict == "degraded"
    broken(nets[1], 6)
    house.look()
    house.look()
    system = house.monitor.system()
    assert system.verdict == "unhealthy" and len(system.reasons) == 2


def test_who_was_removed_while_being_looked_at_is_forgotten(house: House) -> None:
    house.net().load()
    record = house.registry["net"]._record
    house.look()
    house.registry.remove("net")
    house.monitor._look(record, Lately(house.monitor.history, 60.0), house.clock())
    house.look()
    assert not house.monitor._judges and not house.monitor._watched and not house.monitor._story
    with pytest.raises(ServiceNotFound, match="'nett'"):
        house.monitor.story("nett")


def test_what_was_looked_at_before_the_history_had_it_is_not_healthy_by_itself(house: House) -> None:
    class Mute(ModelService):
        @task
        def ask(self) -> None:
            raise ValueError("no")

    mute = house.registry.register("mute", Mute).load()
    house.look()
    for _ in range(20):
        with pytest.raises(GrymError):
            mute.ask()
    house.monitor.step()  # a moment later, as when a state changes: the history has none of them yet
    for _ in range(20):
        house.look()
    assert house.monitor.of("mute").verdict == "degraded"
    assert "20 of 20 calls failed when it was last used" in house.monitor.of("mute").told(house.clock())


def test_a_ping_that_raises_is_of_its_own_and_calls_that_fail_may_be_of_another(house: House) -> None:
    ping, calls = house.net("ping").load(), house.net("calls").load()
    ping._record.instance.model.ill = "the card is lost"
    for _ in range(14):
        broken(calls)
        house.look()
    assert (ping.health, calls.health) == ("unhealthy", "unhealthy")
    assert house.monitor.of_its_own("ping")
    assert not house.monitor.of_its_own("calls")
    assert not house.monitor.of_its_own("nobody")
