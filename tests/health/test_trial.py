"""Steps of recovery whose worth only calls can show: on trial until these have, or nobody has called."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import pytest

from grym_nb.errors import BreakerOpen, ConfigError, GrymError
from grym_nb.health.remedies import RecoveryPolicy
from grym_nb.health.signs import SignLimits
from grym_nb.notebook.health import health
from grym_nb.runtime import Runtime
from grym_nb.settings import Settings
from grym_nb.testing import FakeClock
from tests.health.trials import (
    ON,
    Silent,
    call,
    mended_after,
    outcomes,
    seconds,
    silent,
    slow_until_taken,
    take,
    until_taken,
)
from tests.health.ward import BROKEN, Needy, Ward
from tests.services.crowd import Gates, outcome, start, until

pytestmark = pytest.mark.usefixtures("small_heap")


def test_a_step_has_helped_once_calls_go_well_and_else_the_next_one_is_taken(
    ward: Ward, caplog: pytest.LogCaptureFixture
) -> None:
    recovery = ward.recovery(policy=RecoveryPolicy(**ON))
    net = silent(ward, 2)
    until_taken(ward, recovery, net)
    assert not ward.ended and outcomes(ward) == {} and "on trial" in recovery.table("net").text()
    assert net.status().loads == 1 and not any("has mended" in one for one in caplog.messages)
    began = recovery._cases["net"].began

    assert not any(call(net))
    seconds(ward, 5)
    ward.until_over(recovery)
    assert ward.steps() == [("reset", False)] and net.status().loads == 2
    assert "6 of 6 calls failed in the last 5 s, RuntimeError the most often" in ward.ended[0].reason

    assert not any(call(net))
    seconds(ward, 5)
    ward.until_over(recovery)
    assert ward.steps() == [("reset", False), ("reload", False)] and net.status().loads == 3

    seconds(ward, 30)
    assert len(ward.ended) == 2, "nobody has called it"
    assert all(call(net))
    seconds(ward, 5)
    assert ward.steps()[2:] == [("restart", True)] and outcomes(ward) == {"failed": 2, "helped": 1}
    assert mended_after(ward) == [ward.ended[-1].at - began] and ward.ended[-1].at - began > 40.0
    assert net.health == "healthy" and "on trial" not in repr(recovery)
    [said] = [one for one in caplog.messages if "has mended" in one]
    assert said.endswith("6 calls went well")


def test_it_is_not_healthy_before_its_calls_have_shown_it(ward: Ward) -> None:
    recovery = ward.recovery(policy=RecoveryPolicy(**ON))
    net = silent(ward, 0)
    net._record.instance.model.ill = True  # type: ignore[union-attr]
    until_taken(ward, recovery, net)
    assert net.health == "unhealthy"
    for _ in range(6):
        ward.look()
    assert net.health == "degraded" and "no call was answered since a reset" in ward.monitor.of("net").told(
        ward.clock()
    )
    net._record.instance.model.ill = False  # type: ignore[union-attr]
    assert all(call(net))
    seconds(ward, 5)
    assert ward.steps() == [("reset", True)] and net.health == "healthy"


def test_where_nobody_calls_a_step_is_unproven_which_costs_nothing(
    ward: Ward, caplog: pytest.LogCaptureFixture
) -> None:
    recovery = ward.recovery(policy=RecoveryPolicy(**ON, budget=1))
    net = silent(ward, 100)
    until_taken(ward, recovery, net)
    seconds(ward, 110)
    assert not ward.ended
    seconds(ward, 10)
    assert ward.steps() == [("reset", None)] and outcomes(ward) == {"unproven": 1}
    assert mended_after(ward) == [] and "unproven" in recovery.table("net").text()
    assert [one for one in caplog.messages if "is unproven: nobody has called it for 2 min" in one]
    assert not any("left to itself" in one for one in caplog.messages)
    until_taken(ward, recovery, net)
    assert recovery._cases["net"].trial is not None, "its budget is there"
    assert recovery._cases["net"].trial.step == "reload", "and it begins with the next step"


def test_what_fails_on_trial_is_counted_against_the_one_budget(
    ward: Ward, caplog: pytest.LogCaptureFixture
) -> None:
    recovery = ward.recovery(policy=RecoveryPolicy(**ON, steps=("reset",), budget=3, budget_seconds=100.0))
    net = silent(ward, 100)
    until_taken(ward, recovery, net)
    for _ in range(3):
        seconds(ward, 60)  # so that the budget's time never has all of them
        call(net)
        seconds(ward, 5)
        ward.until_over(recovery)
    assert ward.steps() == [("reset", False)] * 3 and outcomes(ward) == {"failed": 3}
    for _ in range(8):
        call(net)
        ward.look()
    assert len(ward.ended) == 3 and recovery._cases["net"].trial is None and net.state == "ready"
    assert len([one for one in caplog.messages if "left to itself" in one]) == 1 and not ward.gave_up
    for _ in range(14):
        call(net)
        ward.look()
    ward.until_over(recovery)
    assert recovery._cases["net"].trial is not None, "after that time it is tried again"


def test_the_pauses_between_steps_grow_through_all_of_an_episode(ward: Ward) -> None:
    recovery = ward.recovery(policy=RecoveryPolicy(**ON, pause=1.0, factor=3.0))
    net = silent(ward, 100)
    until_taken(ward, recovery, net)
    pauses = []
    for _ in range(3):
        pauses.append(recovery._cases["net"].pause)
        call(net)
        seconds(ward, 5)
        ward.until_over(recovery)
    assert pauses == [1.0, 3.0, 9.0]


def test_a_breaker_that_opens_says_that_the_step_did_not_help(ward: Ward) -> None:
    breaker = {"open_seconds": 300.0, "min_calls": 3}
    recovery = ward.recovery(policy=RecoveryPolicy(**ON, steps=("reload",)))
    net = silent(ward, 2, breaker=breaker)
    recovery.begin("net", "its calls fail", proof=("errors",))
    ward.until_over(recovery)
    assert net.breaker.state == "closed" and call(net, 3) == [False] * 3 and net.breaker.state == "open"
    until(lambda: ward.ended)
    ward.until_over(recovery)
    assert ward.steps() == [("reload", False)] and net.breaker.state == "closed"
    assert all(call(net))
    seconds(ward, 5)
    assert ward.steps() == [("reload", False), ("reload", True)]


@pytest.mark.parametrize("ill", [False, True])
def test_while_its_breaker_is_open_nobody_can_call_it(ward: Ward, ill: bool) -> None:
    recovery = ward.recovery(policy=RecoveryPolicy(**ON))
    net = silent(ward, 100, breaker={"open_seconds": 300.0, "min_calls": 5, "probes": 2})
    until_taken(ward, recovery, net)
    with pytest.raises(BreakerOpen):
        net.ask()
    seconds(ward, 290)
    assert not ward.ended and recovery._cases["net"].trial is not None
    net._record.instance.model.ill = ill  # type: ignore[union-attr]
    seconds(ward, 30)
    assert all(call(net)) is not ill
    if ill:
        until(lambda: ward.ended)
        assert ward.ended[0].reason.startswith("tried out: 2 of 2 calls failed")
    seconds(ward, 5)
    assert ward.steps()[0] == ("reset", not ill)
    assert ill or net.breaker.state == "closed"


@pytest.mark.parametrize(
    ("answers", "helped"), [([True], True), ([False, False], False), ([True, True, True, False], None)]
)
def test_at_the_end_a_few_calls_have_to_do(ward: Ward, answers: list[bool], helped: bool | None) -> None:
    recovery = ward.recovery(policy=RecoveryPolicy(**ON))
    net = silent(ward, 100)
    until_taken(ward, recovery, net)
    for answer in answers:
        net._record.instance.model.ill = not answer  # type: ignore[union-attr]
        call(net, 1)
        seconds(ward, 10)
    assert not ward.ended
    seconds(ward, 121 - 10 * len(answers))
    assert ward.steps() == [("reset", helped)]


def test_an_own_ping_that_answers_says_nothing_of_calls_that_failed_while_it_did(ward: Ward) -> None:
    recovery = ward.recovery(policy=RecoveryPolicy(**ON))
    BROKEN["net"] = 1
    net = ward.net(way="call").load()
    until_taken(ward, recovery, net)
    assert not ward.ended and not any(call(net))
    seconds(ward, 5)
    ward.until_over(recovery)
    assert ward.steps() == [("reset", False)] and all(call(net))
    seconds(ward, 5)
    assert ward.steps() == [("reset", False), ("reload", True)]


def test_what_is_mended_by_hand_has_a_ping_asked_only_where_that_says_something(ward: Ward) -> None:
    recovery = ward.recovery()
    silent(ward, 0)
    ward.net("own").load()
    for name in ("net", "own"):
        assert recovery.begin(name, "as asked")
        ward.until_over(recovery, name)
    assert ward.steps("own") == [("reset", True)] and ward.steps() == []


def test_calls_that_are_much_too_slow_have_to_be_as_quick_as_before(ward: Ward) -> None:
    recovery = ward.recovery(policy=RecoveryPolicy(on=("slow",)))
    net = slow_until_taken(ward, recovery)
    trial = recovery._cases["net"].trial
    assert trial is not None and trial.step == "reset" and trial.usual == pytest.approx(0.1, rel=0.05)
    take(ward, net, 3.0)
    seconds(ward, 5)
    ward.until_over(recovery)
    assert ward.steps() == [("reset", False)] and "times its usual 10" in ward.ended[0].reason
    take(ward, net, 0.1)
    seconds(ward, 5)
    assert ward.steps() == [("reset", False), ("reload", True)]


@pytest.mark.parametrize("on", [("slow",), ("slow", "errors")])
def test_calls_that_fail_are_no_quick_ones(ward: Ward, on: tuple[str, ...]) -> None:
    recovery = ward.recovery(policy=RecoveryPolicy(on=on))
    net = slow_until_taken(ward, recovery)
    assert recovery._cases["net"].trial.signs == {"slow"}
    net._record.instance.model.ill = True
    assert not any(call(net))
    seconds(ward, 5)
    ward.until_over(recovery)
    assert ward.steps() == [("reset", False)] and ward.ended[0].reason.startswith("6 of 6 calls failed")
    take(ward, net, 0.1)
    seconds(ward, 5)
    assert ward.steps() == [("reset", False), ("reload", True)]


@pytest.mark.parametrize("more", [True, False])
def test_few_answers_say_nothing_of_how_quick_they_are(ward: Ward, more: bool) -> None:
    ward.monitor._signs = SignLimits(failing=(0.5, 0.9))
    recovery = ward.recovery(policy=RecoveryPolicy(on=("slow",)))
    net = slow_until_taken(ward, recovery)
    take(ward, net, 3.0, 3)
    net._record.instance.model.ill = True
    assert not any(call(net, 2))
    seconds(ward, 5)
    assert not ward.ended and recovery._cases["net"].trial is not None, "5 calls, of which 3 were answered"
    if more:
        net._record.instance.model.ill = False
        take(ward, net, 3.0, 2)
        seconds(ward, 5)
    else:
        seconds(ward, 120)
    ward.until_over(recovery)
    assert ward.steps() == [("reset", False if more else None)]
    assert "times its usual" in ward.ended[0].reason


def test_only_answered_calls_went_well(ward: Ward, caplog: pytest.LogCaptureFixture) -> None:
    recovery = ward.recovery(policy=RecoveryPolicy(**ON))
    net = silent(ward, 1)
    until_taken(ward, recovery, net)
    call(net, 1)
    net._record.instance.model.ill = False
    call(net, 11)
    seconds(ward, 5)
    assert ward.steps() == [("reset", True)]
    assert [one for one in caplog.messages if one.endswith("; 11 calls went well")]


@pytest.mark.parametrize("proof", ["errors", ("errors", "ping"), ("errors", 1), 7])
def test_what_calls_cannot_show_is_no_proof(ward: Ward, proof: Any) -> None:
    recovery = ward.recovery(policy=RecoveryPolicy(**ON))
    silent(ward, 100)
    with pytest.raises(ConfigError, match="no call can show that this is gone") as caught:
        recovery.begin("net", "by hand", proof=proof)
    assert caught.value.problems[0].path == "proof" and "'errors', 'slow'" in caught.value.cause
    assert recovery._cases == {}


def test_a_model_is_not_to_blame_for_calls_of_the_one_before(ward: Ward) -> None:
    gates = Gates()
    recovery = ward.recovery(policy=RecoveryPolicy(**ON, steps=("restart",)))
    net = silent(ward, 0, concurrency=16)

    def fail_later() -> None:
        gates.hold()
        raise RuntimeError("of the old model")

    old = [start(net.ask, fail_later) for _ in range(6)]
    until(lambda: len(net._record.lane.frames()) == 6)
    recovery.begin("net", "its calls fail", proof=("errors",))
    ward.until_over(recovery)
    assert recovery._cases["net"].trial.step == "restart" and net.status().loads == 2
    gates.tell("go")
    assert all(isinstance(outcome(one), GrymError) for one in old)
    seconds(ward, 10)
    assert not ward.ended, "nobody has called the new one"
    assert all(call(net))
    seconds(ward, 5)
    assert ward.steps() == [("restart", True)] and net.status().loads == 2


def test_a_block_with_the_model_in_hand_is_no_call(ward: Ward) -> None:
    recovery = ward.recovery(policy=RecoveryPolicy(**ON))
    net = silent(ward, 100)
    until_taken(ward, recovery, net)
    for _ in range(6):
        with net.use() as model:
            assert model.ill
    seconds(ward, 5)
    assert not ward.ended and recovery._cases["net"].trial is not None
    assert not any(call(net))
    seconds(ward, 5)
    ward.until_over(recovery)
    assert ward.steps() == [("reset", False)]


def test_a_need_that_is_on_trial_keeps_nobody_waiting(ward: Ward) -> None:
    recovery = ward.recovery()
    BROKEN["base"] = 0
    ward.net("base", made=Silent)
    ward.net(made=Needy).load()
    recovery.begin("base", "its calls fail", proof=("errors",))
    ward.until_over(recovery, "base")
    assert recovery._cases["base"].trial is not None
    recovery.begin("net", "as asked")
    ward.until_over(recovery)
    assert ward.steps() == [("reset", True)] and ward.steps("base") == []


def test_health_shows_what_is_on_trial() -> None:
    clock = FakeClock(1000.0)
    with Runtime(Settings(recovery={"on": ["errors"]}), clock=clock) as runtime:
        runtime.registry.register("mute", Silent, config={"name": "mute"}).load()
        runtime.recovery.begin("mute", "its calls fail")
        until(lambda: runtime.recovery._cases["mute"].trial is not None)
        shown = str(health(runtime, Namespace(service="mute")))
    assert "on trial" in shown and "its calls fail" in shown
