"""How a trial ends otherwise than by its calls: somebody else has loaded it, begins anew, or stops that."""

from __future__ import annotations

from typing import Any

import pytest

from grym_nb.events import RecoveryRests
from grym_nb.health.remedies import RecoveryPolicy
from tests.health.trials import ON, call, seconds, silent, until_taken
from tests.health.ward import BROKEN, PINGS, Ward
from tests.services.crowd import Gates, until

pytestmark = pytest.mark.usefixtures("small_heap")


@pytest.mark.parametrize("how", ["reload", "remove", "unload"])
def test_what_somebody_else_does_ends_a_trial(ward: Ward, how: str) -> None:
    recovery = ward.recovery(policy=RecoveryPolicy(**ON))
    net = silent(ward, 100)
    until_taken(ward, recovery, net)
    if how == "remove":
        ward.registry.remove("net")
    else:
        getattr(net, how)()
    seconds(ward, 130)
    assert ward.steps() == ([] if how == "remove" else [("reset", None)])
    assert "on trial" not in repr(recovery)


def test_a_trial_that_is_over_is_looked_at_at_times_as_long_as_there_is_no_thread(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    recovery = ward.recovery(policy=RecoveryPolicy(**ON))
    net = silent(ward, 2)
    until_taken(ward, recovery, net)
    gates, pulse, settled = Gates(), ward.registry.ports.pulse, []
    settle = recovery._settle

    def seen(*given: Any) -> None:
        settle(*given)
        settled.append(given)

    monkeypatch.setattr(recovery, "_settle", seen)
    for _ in range(4):
        pulse.work(gates.hold, name="as long as it likes")
    assert recovery.begin("net", "as asked")
    ward.clock.advance(200.0)
    for _ in range(10):
        pulse.step()
    until(lambda: settled)
    assert len(settled) == 1, "the clock stands still"
    gates.tell("go")
    ward.until_over(recovery)
    assert ward.steps()[0] == ("reset", False)


@pytest.mark.parametrize("how", ["its breaker opens", "by hand"])
def test_what_somebody_else_has_loaded_is_not_loaded_over(ward: Ward, how: str) -> None:
    recovery = ward.recovery(policy=RecoveryPolicy(**ON, steps=("reset", "reload")))
    net = silent(ward, 100, breaker={"open_seconds": 300.0, "min_calls": 3})
    recovery.begin("net", "its calls fail", proof=("errors",))
    ward.until_over(recovery)
    net.unload()
    net.load()
    if how == "by hand":
        assert recovery.begin("net", "as asked", proof=("errors",))
    else:
        assert not any(call(net, 3)) and net.breaker.state == "open"
    until(lambda: ward.ended)
    seconds(ward, 4)
    assert ward.steps() == [("reset", None)] and net.status().loads == (2 if how != "by hand" else 3)
    assert "loaded or changed by somebody else" in ward.ended[0].reason
    trial = recovery._cases["net"].trial
    if how == "by hand":  # it comes back soon after that, so it begins with the next step
        assert trial is not None and (trial.step, trial.reason) == ("reload", "as asked")
    else:
        assert trial is None


def test_a_breaker_of_what_somebody_else_has_loaded_is_looked_into(ward: Ward) -> None:
    recovery = ward.recovery(policy=RecoveryPolicy(steps=("reload",)))
    BROKEN["net"] = 3
    net = ward.net(way="call", breaker={"open_seconds": 300.0, "min_calls": 3}).load()
    recovery.begin("net", "its calls fail", proof=("errors",))
    ward.until_over(recovery)
    net.unload().load()
    PINGS["net"] = lambda: PINGS.clear() or 1 / 0
    assert not any(call(net, 3)) and net.breaker.state == "open"
    until(lambda: net.status().loads == 4)
    ward.until_over(recovery)
    assert (
        ward.steps() == [("reload", None), ("reload", True)] and "ZeroDivisionError" in ward.ended[1].reason
    )


def test_where_a_call_hangs_meanwhile_the_next_step_waits_for_nobody(ward: Ward) -> None:
    recovery = ward.recovery(policy=RecoveryPolicy(**ON, steps=("reset", "restart", "reload")))
    silent(ward, 100)
    recovery.begin("net", "its calls fail", proof=("errors",))
    ward.until_over(recovery)
    assert recovery.begin("net", "a call hangs", hangs=True)
    ward.until_over(recovery)
    assert ward.steps() == [("reset", False)] and recovery._cases["net"].trial.step == "restart"
    assert recovery.begin("net", "its calls fail still", proof=("errors",))
    ward.until_over(recovery)
    assert recovery._cases["net"].trial.step == "reload"


@pytest.mark.parametrize("when", ["before it is taken up", "as it is handed on", "after that"])
def test_who_stops_a_begin_by_hand_does_not_lose_the_trial(
    ward: Ward, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    recovery = ward.recovery(policy=RecoveryPolicy(**ON))
    net = silent(ward, 100)
    until_taken(ward, recovery, net)
    trial = recovery._cases["net"].trial
    pulse, gates = ward.registry.ports.pulse, Gates()
    works = pulse.work

    def stop(job: Any, **options: Any) -> Any:
        if when == "after that":
            works(lambda: (gates.wait("go"), job()), **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if when == "before it is taken up":
            patched.setattr("grym_nb.health.recovery.replace", stop)
        else:
            patched.setattr(pulse, "work", stop)
        with pytest.raises(KeyboardInterrupt):
            recovery.begin("net", "by hand")
    gates.tell("go")
    until(ward.at_rest)
    assert recovery._cases["net"].trial is trial and not recovery._cases["net"].runs and not ward.ended
    assert not any(call(net))
    seconds(ward, 5)
    ward.until_over(recovery)
    assert ward.steps() == [("reset", False)] and recovery._cases["net"].trial.step == "reload"


def test_that_the_budget_is_used_up_is_said_where_nobody_would_ask_for_more(
    ward: Ward, caplog: pytest.LogCaptureFixture
) -> None:
    recovery = ward.recovery(policy=RecoveryPolicy(steps=("reload",), budget=2))
    net = silent(ward, 100, breaker={"open_seconds": 300.0, "min_calls": 3})
    recovery.begin("net", "its calls fail", proof=("errors",))
    for times in (1, 2):
        ward.until_over(recovery)
        assert not any(call(net, 3))
        until(lambda times=times: len(ward.ended) == times)
    ward.until_over(recovery)
    told = [one for one in caplog.messages if "left to itself" in one]
    assert told == [
        "net is left to itself for 10 min 0 s: 2 attempts within 10 min 0 s did not help: 3 of 3 calls failed"
    ]
    assert isinstance(recovery.story("net")[-1], RecoveryRests) and not ward.gave_up
    assert not recovery.begin("net", "its calls fail", proof=("errors",))
    assert len([one for one in caplog.messages if "left to itself" in one]) == 1
