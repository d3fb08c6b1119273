"""Services that are mended: by the step that is needed, with what they need first, and not for ever."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from grym_nb.errors import ConfigError, GrymError, ResourceExhausted, ServiceNotFound
from grym_nb.events import HealthChanged, RecoveryEnded
from grym_nb.health.remedies import RecoveryPolicy
from grym_nb.runtime import Runtime
from grym_nb.services import ServiceHandle
from grym_nb.settings import Settings
from tests.health.ward import BROKEN, PINGS, Choosy, Needy, Net, Ward, fail
from tests.services.crowd import WAIT, Gates, outcome, until

pytestmark = pytest.mark.usefixtures("small_heap")


@pytest.mark.parametrize("error", [OSError, ValueError])
def test_a_breaker_is_left_to_its_own_probes_where_a_ping_answers(ward: Ward, error: type[Exception]) -> None:
    recovery = ward.recovery()
    net = ward.net(breaker={"open_seconds": 60.0, "min_calls": 5}).load()
    pings: list[str] = []
    PINGS["net"] = lambda: pings.append("asked")
    for _ in range(8):
        fail(net, error)
        until(ward.at_rest)
        ward.look()
        until(ward.at_rest)
    assert pings and net.breaker.state == "open" and net.breaker.snapshot().opened == 1
    assert recovery._cases == {} and net.status().loads == 1 and not ward.ended
    ward.clock.advance(61.0)
    assert net.ask() is None


@pytest.mark.parametrize("way", ["raises", "hangs"])
def test_a_breaker_that_opens_has_a_ping_asked_at_once(ward: Ward, way: str) -> None:
    recovery = ward.recovery()
    net = ward.net(breaker={"open_seconds": 300.0, "min_calls": 5}).load()
    gates = Gates()

    def ping() -> None:
        gates.tell("in")
        if way == "raises":
            raise RuntimeError("no card")
        gates.wait("go")

    PINGS["net"] = ping
    fail(net)
    gates.wait("in")
    if way == "hangs":
        ward.clock.advance(11.0)
    until(lambda: "net" in recovery._cases)
    PINGS.clear()
    gates.tell("go")
    ward.until_over(recovery)
    assert ward.ended[-1].helped and net.ping().ok


def test_one_that_was_mended_is_not_healthy_while_its_breaker_is_open(ward: Ward) -> None:
    """A reset loads nothing, and lets nobody in: the breaker finds out by itself, after its time."""
    recovery = ward.recovery()
    net = ward.net(breaker={"open_seconds": 300.0, "min_calls": 5}).load()
    heard: list[str] = []
    ward.registry.ports.events.subscribe(lambda event: heard.append(event.after), HealthChanged)
    pings: list[bool] = []

    def ping() -> None:
        pings.append(True)
        if len(pings) == 1:
            raise RuntimeError("no card")

    PINGS["net"] = ping
    fail(net)
    until(lambda: "net" in recovery._cases)
    ward.until_over(recovery)
    assert ward.steps() == [("reset", True)] and net.breaker.state == "open"
    assert net.health == "unhealthy" and "its breaker is open" in net._record.health_reason
    ward.monitor.renew("net")
    ward.look()
    assert net.health == "unhealthy" and heard[-1] == "unhealthy" and heard.count("unhealthy") == 1


def test_what_is_loaded_anew_begins_with_a_closed_breaker(ward: Ward) -> None:
    recovery = ward.recovery()
    BROKEN["net"] = 1
    net = ward.net(breaker={"open_seconds": 300.0, "min_calls": 5}).load()
    fail(net)
    until(lambda: "net" in recovery._cases)
    ward.until_over(recovery)
    assert ward.steps() == [("reset", False), ("reload", True)] and net.breaker.state == "closed"
    assert net.ask() is None and net.health == "healthy"
    counters = {
        dict(s.tags)["outcome"]: s.value for s in ward.registry.ports.metrics.select("recovery.attempts")
    }
    assert counters == {"failed": 1, "helped": 1}
    [taken] = ward.registry.ports.metrics.select("recovery.seconds")
    assert taken.value.count == 1  # type: ignore[union-attr]


def test_a_breaker_that_was_opened_by_hand_or_only_watches_is_left_alone(ward: Ward) -> None:
    recovery = ward.recovery()
    asked: list[str] = []
    PINGS["net"] = PINGS["shadow"] = lambda: asked.append("asked")
    BROKEN["net"] = BROKEN["shadow"] = 1
    net = ward.net(breaker=True).load()
    net.breaker.open("maintenance")
    until(ward.at_rest)
    shadow = ward.net("shadow", breaker={"shadow": True, "min_calls": 5}).load()
    fail(shadow)
    until(ward.at_rest)
    assert shadow.breaker.state == "open" and recovery._cases == {} and asked == []
    recovery.begin("net", "as asked")
    ward.until_over(recovery)
    assert ward.steps()[-1] == ("reload", True)
    assert net.breaker.state == "open" and net.breaker.by_hand


def test_what_does_not_help_is_followed_by_a_stronger_step_after_a_pause(ward: Ward) -> None:
    BROKEN["net"] = 1
    recovery = ward.recovery()
    net = ward.net().load()
    assert recovery.begin("net", "as asked")
    ward.until_over(recovery)
    assert ward.steps() == [("reset", False), ("reload", True)]
    assert net.health == "healthy" and net.ask() is None and "ping: RuntimeError: ill" in ward.ended[0].reason


def test_what_is_loaded_is_pinged_before_any_call_gets_to_it(ward: Ward) -> None:
    BROKEN["net"] = 3
    recovery = ward.recovery(policy=RecoveryPolicy(steps=("reload",)))
    net = ward.net().load()
    recovery.begin("net", "as asked")
    ward.until_over(recovery)
    assert ward.steps() == [("reload", False), ("reload", False), ("reload", True)]
    assert "RuntimeError: ill" in ward.ended[0].reason and net.state == "ready"


def test_a_relapse_gets_the_next_step(ward: Ward) -> None:
    recovery = ward.recovery()
    net = ward.net().load()
    for step in ("reset", "reload", "restart", "restart"):
        assert recovery.begin("net", "again")
        ward.until_over(recovery)
        assert ward.steps()[-1] == (step, True)
        ward.clock.advance(10.0)
    ward.clock.advance(1000.0)
    recovery.begin("net", "much later")
    ward.until_over(recovery)
    assert ward.steps()[-1] == ("reset", True) and net.state == "ready"


def test_a_call_that_hangs_is_left_behind_and_the_next_ones_are_answered(ward: Ward) -> None:
    gates = Gates()
    recovery = ward.recovery()
    net = ward.net()
    net.ask()

    call = net.ask.with_(timeout=10.0).submit(gates.hold)
    gates.wait("in")
    ward.look(11)
    assert isinstance(outcome(call), GrymError)
    ward.look()
    ward.look()
    until(lambda: "net" in recovery._cases)
    ward.until_over(recovery)
    assert ward.steps() == [("restart", True)] and net.ask() is None
    gates.tell("go")
    until(lambda: not net._record.lane.frames())


def test_what_is_needed_is_mended_first(ward: Ward) -> None:
    BROKEN["base"] = 1
    recovery = ward.recovery()
    base = ward.net("base")
    net = ward.net(made=Needy).load()
    recovery.begin("net", "as asked")
    ward.until_over(recovery)
    assert [one.service for one in ward.ended] == ["base", "base", "net"]
    assert ward.steps("base") == [("reset", False), ("reload", True)] and ward.steps() == [("reset", True)]
    assert base.ping().ok and base.status().loads == 2 and net.status().loads == 1


def test_what_several_need_is_mended_once_and_they_wait_for_that(ward: Ward) -> None:
    BROKEN["base"] = 1
    gates = Gates()
    PINGS["base"] = gates.hold
    recovery = ward.recovery()
    base = ward.net("base")
    nets = [ward.net(name, made=Needy).load() for name in ("net", "other")]
    for net in nets:
        recovery.begin(net.name, "as asked")
    recovery.begin("base", "its ping")
    gates.tell("go")
    for name in ("base", "net", "other"):
        ward.until_over(recovery, name)
    assert base.status().loads == 2 and [net.status().loads for net in nets] == [1, 1]
    assert ward.steps("base") == [("reset", False), ("reload", True)]
    assert ward.steps() == ward.steps("other") == [("reset", True)]


def test_an_optional_need_that_cannot_be_had_is_in_nobodys_way(ward: Ward) -> None:
    BROKEN["base"] = 100
    recovery = ward.recovery(policy=RecoveryPolicy(budget=2))
    base = ward.net("base", way="load")
    net = ward.net(made=Choosy).load()
    loads = base.status().loads
    recovery.begin("net", "as asked")
    ward.until_over(recovery)
    assert ward.steps() == [("reset", True)] and net.ask() is None and base.status().loads == loads


def test_a_ping_within_a_load_may_ask_what_the_service_needs(ward: Ward) -> None:
    recovery = ward.recovery(policy=RecoveryPolicy(steps=("reload",)))
    base = ward.net("base")
    net = ward.net(made=Needy).load()
    asked: list[object] = []
    PINGS["net"] = lambda: asked.append((net.state, base.ask()))
    recovery.begin("net", "as asked")
    ward.until_over(recovery)
    assert ward.steps() == [("reload", True)] and asked[0] == ("loading", None)


def test_one_for_which_there_was_no_room_is_loaded_by_a_reset_too(ward: Ward) -> None:
    recovery = ward.recovery(policy=RecoveryPolicy(steps=("reset",)))
    net = ward.net(way="load")
    BROKEN["net"] = 1
    with pytest.raises(GrymError):
        net.load()
    admits = [False, True]

    @contextmanager
    def admit(*_: object) -> Iterator[None]:
        if not admits.pop(0):
            raise ResourceExhausted("there is no room for it")
        yield

    ward.registry.ports.admit = admit
    recovery.begin("net", "as asked")
    ward.until_over(recovery)
    assert ward.steps() == [("reset", False), ("reset", True)] and net.state == "ready"


def test_a_need_that_is_given_up_ends_it_and_costs_nothing(ward: Ward) -> None:
    BROKEN["base"] = 100
    recovery = ward.recovery(policies={"base": RecoveryPolicy(budget=1)})
    base = ward.net("base")
    net = ward.net(made=Needy).load()
    recovery.begin("net", "as asked")
    ward.until_over(recovery)
    assert ward.steps("base") == [("reset", False)] and base.state == "failed"
    assert ward.steps() == [("reset", False)] and net.state == "ready"
    assert "it needs base: left as failed until its reload()" in ward.ended[-1].reason
    loads = base.status().loads
    assert not recovery.begin("net", "as asked") and base.status().loads == loads
    assert [one.service for one in ward.gave_up] == ["base"]


def test_a_need_that_is_not_to_be_mended_stays_as_it_is(ward: Ward) -> None:
    BROKEN["base"] = 100
    recovery = ward.recovery(policies={"base": None}, policy=RecoveryPolicy(budget=1))
    base = ward.net("base")
    net = ward.net(made=Needy).load()
    assert not recovery.begin("base", "ill")
    loads, state = base.status().loads, base.state
    recovery.begin("net", "as asked")
    ward.until_over(recovery)
    assert (base.status().loads, base.state) == (loads, state)
    assert ward.steps() == [("reset", False)]
    assert "ping: RuntimeError: ill" in ward.ended[-1].reason
    assert net.state == "ready" and not any(one.service == "net" for one in ward.gave_up), "it answers"


def test_failed_loads_are_tried_again_where_that_is_wanted(ward: Ward) -> None:
    BROKEN["net"] = 2
    recovery = ward.recovery(policy=RecoveryPolicy(on=("state",)))
    net = ward.net(way="load")
    with pytest.raises(GrymError):
        net.load()
    ward.registry.ports.pulse.step()
    until(lambda: "net" in recovery._cases)
    ward.until_over(recovery)
    assert ward.steps() == [("reset", False), ("reload", True)] and net.state == "ready"


def poisoned(ward: Ward) -> ServiceHandle:
    """Return a service whose calls fail, while its ping answers."""
    net = ward.net(way="call").load()
    net._record.instance.model.ill = True  # type: ignore[union-attr]
    for _ in range(8):
        with pytest.raises(GrymError):
            net.ask()
    return net


def test_the_authors_errors_are_nothing_that_another_try_would_cure(ward: Ward) -> None:
    recovery = ward.recovery()
    net = poisoned(ward)
    for _ in range(3):
        ward.look()
    assert net.health == "unhealthy" and recovery._cases == {}


def test_a_ping_that_raises_after_the_verdict_is_heard_too(ward: Ward) -> None:
    """First its calls fail, which may be for what they are given; then its ping says that it is not."""
    recovery = ward.recovery()
    net = poisoned(ward)
    for _ in range(3):
        ward.look()
    assert net.health == "unhealthy" and recovery._cases == {}
    net._record.instance.model.way = "ping"  # type: ignore[union-attr]
    for _ in range(3):
        ward.look()
    ward.until_over(recovery)
    assert ward.steps()[-1] == ("reload", True)


def test_one_that_is_not_to_be_mended_is_left_alone(ward: Ward) -> None:
    recovery = ward.recovery(policies={"net": None})
    ward.net().load()
    assert recovery.policy("net") is None and not recovery.begin("net", "as asked")
    assert not recovery.begin("nobody", "as asked")
    assert repr(recovery) == "what recovery did: nothing had to be mended\nnothing is under way"


class Alone(Net):
    """Says that it is to be left alone."""

    recoverable = False


def test_a_class_says_that_it_is_left_alone(ward: Ward) -> None:
    own = RecoveryPolicy(budget=3)
    recovery = ward.recovery(policies={"theirs": own})
    ward.net(made=Alone).load()
    ward.net("theirs", made=Alone).load()
    ward.registry.register("named", "tests.health.test_recovery:Alone", config={"name": "named"})
    assert recovery.policy("net") is None and not recovery.begin("net", "as asked")
    assert recovery.policy("theirs") is own, "who runs it knows better"
    assert recovery.policy("named") == RecoveryPolicy(), "nobody has imported it"
    ward.registry["named"].load()
    assert recovery.policy("named") is None


def test_nothing_is_mended_twice_at_a_time_or_in_the_middle_of_a_drain(ward: Ward) -> None:
    gates = Gates()
    recovery = ward.recovery(policy=RecoveryPolicy(steps=("reload",)))
    net = ward.net().load()

    call = net.ask.submit(gates.hold)
    gates.wait("in")
    assert recovery.begin("net", "as asked")
    until(lambda: net.state == "draining")
    assert not recovery.begin("net", "again") and "under way: net" in repr(recovery)
    gates.tell("go")
    call.result(WAIT)
    ward.until_over(recovery)
    assert ward.steps() == [("reload", True)]


def test_a_service_that_was_removed_is_forgotten(ward: Ward) -> None:
    recovery = ward.recovery()
    ward.net().load()
    recovery.begin("net", "as asked")
    ward.until_over(recovery)
    ward.registry.remove("net")
    assert recovery._cases == {}
    assert len(recovery.story("net")) == 1, "what was done to it is known still"
    with pytest.raises(ServiceNotFound, match="there is no service 'net'"):
        recovery.policy("net")
    recovery.close()
    recovery.close()


@pytest.mark.parametrize(
    "wrong", [{"steps": ()}, {"steps": ("pray",)}, {"on": ("mood",)}, {"budget": 0}, {"pause": -1.0}]
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="nothing can be mended so"):
        RecoveryPolicy(**wrong)


def test_a_misspelt_service_is_refused_with_the_closest(ward: Ward) -> None:
    recovery = ward.recovery(policies={"later": None})
    ward.net()
    for asked in (recovery.policy, recovery.story, ward.monitor.renew):
        with pytest.raises(ServiceNotFound, match=r"there is no service 'nett'\. Did you mean 'net'"):
            asked("nett")
        with pytest.raises(ConfigError, match="nobody knows which service is asked for"):
            asked(5)  # type: ignore[arg-type]
    assert recovery.policy("later") is None and recovery.story("later") == recovery.story() == ()
    ward.monitor.renew("net")


def test_lists_will_do_as_settings_have_them() -> None:
    assert RecoveryPolicy.of({"on": ["ping"], "steps": ["reload"]}) == RecoveryPolicy(
        on=("ping",), steps=("reload",)
    )
    given = {"on": ["ping", "stuck", "breaker", "state", "errors"], "budget": 3}
    with Runtime(Settings(recovery=given, recoveries={"asr": None, "net": {"budget": 2}})) as runtime:
        runtime.registry.register("other", Net)
        policy = runtime.recovery.policy("other")
        assert policy is not None and policy.budget == 3 and "errors" in policy.on
        assert runtime.recovery.policy("asr") is None
        assert runtime.recovery.policy("net") == RecoveryPolicy(budget=2)


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"recovery": {"bugdet": 3}}, "recovery of the settings"),
        ({"recoveries": {"asr": {"steps": ["pray"]}}}, r"recoveries\['asr'\] of the settings"),
        ({"recoveries": {"asr": {"on": [["ping"]]}}}, r"recoveries\['asr'\] of the settings"),
        ({"recoveries": {"asr": 3}}, r"recoveries\['asr'\]: found 3"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_once(given: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError, match=where):
        Runtime(Settings(**given))


def test_who_hears_that_it_helped_finds_it_healthy(ward: Ward) -> None:
    BROKEN["net"] = 1
    recovery = ward.recovery()
    net = ward.net().load()
    heard: list[tuple[bool | None, str]] = []
    ward.registry.ports.events.subscribe(lambda e: heard.append((e.helped, net.health)), RecoveryEnded)
    ward.clock.advance(30.0)
    for _ in range(3):
        ward.look()
    ward.until_over(recovery)
    assert heard == [(False, "unhealthy"), (True, "healthy")]
