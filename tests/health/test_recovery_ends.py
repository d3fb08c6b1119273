"""How recovery comes to an end: by its budget, a deadline, somebody else, and what it tells of that."""

from __future__ import annotations

import sys
from argparse import Namespace

import pytest

from grym_nb.errors import GrymError, ServiceNotReady
from grym_nb.events import RecoveryEnded, RecoveryGaveUp, StateChanged
from grym_nb.hardening.holders import raise_the_budget
from grym_nb.health.remedies import RecoveryPolicy
from grym_nb.notebook.health import health
from grym_nb.runtime import Runtime
from grym_nb.services.record import ServiceRecord
from grym_nb.testing import FakeClock
from tests.health.ward import BROKEN, LOADS, PINGS, Needy, Net, Ward, pauses
from tests.services.crowd import Gates, outcome, start, until

pytestmark = pytest.mark.usefixtures("small_heap")


def test_after_the_budget_it_is_left_as_failed_which_is_said_once_with_what_to_do(
    ward: Ward, caplog: pytest.LogCaptureFixture
) -> None:
    BROKEN["net"] = 100
    recovery = ward.recovery(policy=RecoveryPolicy(budget=3, budget_seconds=600.0))
    net = ward.net().load()
    recovery.begin("net", "as asked")
    ward.until_over(recovery)
    assert ward.steps() == [("reset", False), ("reload", False), ("restart", False)]
    assert net.state == "failed" and len(ward.gave_up) == 1
    assert "3 attempts within 10 min 0 s did not help" in ward.gave_up[0].reason
    assert [m for m in caplog.messages if "left as failed" in m] == [caplog.messages[-1]]
    assert "grym.get('net').reload()" in caplog.messages[-1]
    loads = net.status().loads
    with pytest.raises(ServiceNotReady, match="net is left as failed: 3 attempts") as caught:
        net.ask()
    assert "reload()" in caught.value.hint and net.status().loads == loads
    ward.look()
    assert net.health == "unhealthy"
    BROKEN["net"] = 0
    net.reload()
    assert net.ask() is None and net.state == "ready"


def test_after_that_the_budget_is_there_again(ward: Ward) -> None:
    BROKEN["net"] = 100
    recovery = ward.recovery(policy=RecoveryPolicy(budget=2))
    net = ward.net().load()
    recovery.begin("net", "as asked")
    ward.until_over(recovery)
    assert net.state == "failed" and len(ward.gave_up) == 1
    BROKEN["net"] = 1
    net.reload()
    recovery.begin("net", "ill again")
    ward.until_over(recovery)
    assert ward.steps()[2:] == [("reset", False), ("reload", True)] and len(ward.gave_up) == 1


def test_who_needs_what_is_left_as_failed_is_not_tried_in_vain(ward: Ward) -> None:
    BROKEN["base"] = 100
    recovery = ward.recovery(policy=RecoveryPolicy(budget=2))
    base, needy = ward.net("base").load(), ward.net("needy", made=Needy).load()
    recovery.begin("base", "as asked")
    ward.until_over(recovery, "base")
    assert base._record.given_up and needy.state == "ready"
    assert not recovery.begin("needy", "ill")
    BROKEN["base"] = 0
    base.reload()
    assert recovery.begin("needy", "ill") and ward.steps("needy") == []
    ward.until_over(recovery, "needy")
    assert ward.steps("needy") == [("reset", True)] and len(ward.gave_up) == 1


def test_attempts_that_take_long_are_counted_too(ward: Ward) -> None:
    BROKEN["net"] = 1000
    LOADS["net"] = lambda: ward.clock.advance(400.0)
    recovery = ward.recovery(policy=RecoveryPolicy(budget=3))
    net = ward.net().load()
    recovery.begin("net", "as asked")
    ward.until_over(recovery)
    assert len(ward.ended) == 3 and net.state == "failed", "though never three within the budget's time"
    assert "3 attempts in a row did not help" in ward.gave_up[0].reason


def test_nobody_is_given_up_whose_ping_answers(ward: Ward) -> None:
    gates = Gates()
    recovery = ward.recovery(policy=RecoveryPolicy(budget=2, steps=("reset",)))
    net = ward.net(concurrency=2).load()
    call = net.ask.with_(timeout=10.0).submit(gates.hold)
    gates.wait("in")
    ward.clock.advance(20.0)
    assert isinstance(outcome(call), GrymError)
    recovery.begin("net", "as asked")
    ward.until_over(recovery)
    assert ward.steps() == [("reset", False)] * 2 and not ward.gave_up and net.state == "ready"
    assert not recovery.begin("net", "again"), "its budget is spent for now"
    gates.tell("go")
    until(lambda: not net._record.lane.frames())
    ward.clock.advance(601.0)
    assert recovery.begin("net", "again")
    ward.until_over(recovery)


def test_one_that_is_mended_again_and_again_is_left_to_itself_for_a_while(
    ward: Ward, caplog: pytest.LogCaptureFixture
) -> None:
    recovery = ward.recovery(policy=RecoveryPolicy(budget=3))
    net = ward.net().load()
    for _ in range(3):
        assert recovery.begin("net", "a call hangs", hangs=True)
        ward.until_over(recovery)
    assert not recovery.begin("net", "a call hangs", hangs=True) and not recovery.begin("net", "again")
    assert ward.steps() == [("restart", True)] * 3 and net.state == "ready" and not ward.gave_up
    [told] = [one for one in caplog.messages if "left to itself" in one]
    assert told == "net is left to itself for 10 min 0 s: 3 attempts within 10 min 0 s: a call hangs"
    shown = recovery.table("net").text()
    assert "left to itself for 10 min 0 s" in shown and shown.count("a call hangs") == 4, shown
    ward.clock.advance(601.0)
    assert recovery.begin("net", "a call hangs", hangs=True)
    ward.until_over(recovery)
    net.reload()
    assert recovery.begin("net", "ill")
    ward.until_over(recovery)


def test_who_waits_when_it_is_given_up_does_not_load_it_again(ward: Ward) -> None:
    """A loop in a cell calls as soon as it is unloaded."""
    BROKEN["net"] = 100
    recovery = ward.recovery(policy=RecoveryPolicy(budget=1))
    net = ward.net().load()
    told: list[object] = []

    def heard(event: StateChanged) -> None:
        if event.after == "registered":
            told.append(outcome(start(net.ask)))

    ward.registry.ports.events.subscribe(heard, StateChanged)
    recovery.begin("net", "as asked")
    ward.until_over(recovery)
    assert isinstance(told[0], ServiceNotReady) and net.state == "failed" and len(ward.gave_up) == 1


def test_nobody_is_told_that_it_is_left_as_failed_where_somebody_has_loaded_it(ward: Ward) -> None:
    BROKEN["net"] = 1
    recovery = ward.recovery(policy=RecoveryPolicy(budget=1))
    net = ward.net().load()

    def heard(event: StateChanged) -> None:
        if event.after == "registered":
            outcome(start(net.load))

    ward.registry.ports.events.subscribe(heard, StateChanged)
    recovery.begin("net", "as asked")
    ward.until_over(recovery)
    assert net.state == "ready" and not ward.gave_up and net._record.given_up == ""
    assert net.ask() is None


def test_registering_it_again_gives_it_another_chance(ward: Ward) -> None:
    BROKEN["net"] = 100
    recovery = ward.recovery(policy=RecoveryPolicy(budget=1))
    net = ward.net().load()
    recovery.begin("net", "as asked")
    ward.until_over(recovery)
    assert net.state == "failed"
    BROKEN["net"] = 0
    ward.registry.register("net", Net, config={"name": "net", "way": "call"})
    assert net.ask() is None


def test_a_new_model_that_does_not_answer_is_in_nobodys_way(ward: Ward) -> None:
    gates = Gates()
    recovery = ward.recovery(policy=RecoveryPolicy(steps=("reload",)))
    net = ward.net().load()
    PINGS["net"] = gates.hold
    recovery.begin("net", "as asked")
    gates.wait("in")
    assert net.state == "loading"
    assert ward.net("other").ask() is None, "the gate of loads is free"
    PINGS.clear()
    ward.clock.advance(11.0)
    until(lambda: ward.ended)
    assert "its ping gave no answer within 10 s" in ward.ended[0].reason
    ward.until_over(recovery)
    assert ward.steps() == [("reload", False), ("reload", True)] and net.ask() is None
    gates.tell("go")


def test_a_ping_that_hangs_is_a_failed_attempt(ward: Ward) -> None:
    gates = Gates()
    recovery = ward.recovery()
    net = ward.net().load()
    PINGS["net"] = gates.hold
    recovery.begin("net", "as asked")
    gates.wait("in")
    PINGS.clear()
    ward.clock.advance(11.0)
    until(lambda: ward.ended)
    assert ward.ended[0].reason == "ping: no answer within 10 s"
    gates.tell("go")
    ward.until_over(recovery)
    assert ward.steps() == [("reset", False), ("reload", True)] and net.ask() is None


def test_whatever_a_ping_raises_is_a_failed_attempt(ward: Ward) -> None:
    recovery = ward.recovery()
    net = ward.net().load()
    PINGS["net"] = lambda: sys.exit(1)
    recovery.begin("net", "as asked")
    until(lambda: ward.ended)
    assert "SystemExit: 1" in ward.ended[0].reason
    PINGS.clear()
    ward.until_over(recovery)
    assert ward.steps() == [("reset", False), ("reload", True)] and net.ask() is None


def test_a_load_that_hangs_ends_the_case_at_its_deadline(ward: Ward) -> None:
    gates = Gates()
    recovery = ward.recovery(policy=RecoveryPolicy(steps=("reload",)))
    net = ward.net().load()
    LOADS["net"] = gates.hold
    recovery.begin("net", "as asked")
    gates.wait("in")
    ward.clock.advance(601.0)
    ward.until_over(recovery)
    assert ward.steps() == [("reload", False)] and "no end within 10 min" in ward.ended[0].reason
    assert net.state == "loading" and not recovery.begin("net", "again"), "whose load it is ends it"
    gates.tell("go")
    until(lambda: net.state == "ready")
    until(ward.at_rest)
    assert len(ward.ended) == 1 and recovery.begin("net", "again")
    ward.until_over(recovery)


def test_a_case_for_which_there_is_no_thread_is_none(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    recovery = ward.recovery()
    ward.net().load()
    with monkeypatch.context() as patched:

        def work(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patched.setattr(ward.registry.ports.pulse, "work", work)
        with pytest.raises(KeyboardInterrupt):
            recovery.begin("net", "as asked")
    assert recovery.begin("net", "as asked")
    ward.until_over(recovery)


@pytest.mark.parametrize("loads_it", [True, False])
def test_who_mends_it_by_hand_has_the_last_word(ward: Ward, loads_it: bool) -> None:
    BROKEN["net"] = 1
    recovery = ward.recovery()
    net = ward.net().load()
    recovery.begin("net", "as asked")
    until(lambda: pauses(ward.registry))
    net.unload()
    if loads_it:
        net.load()
    loads, state = net.status().loads, net.state
    ward.until_over(recovery)
    assert ward.steps() == [("reset", False)] and (net.status().loads, net.state) == (loads, state)


def test_a_look_at_its_end_finds_a_case_under_way(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    BROKEN["net"] = 1
    recovery = ward.recovery()
    net = ward.net().load()
    renewed, begun = ward.monitor.renewed, []

    def look_first(record: ServiceRecord) -> None:
        begun.append(recovery.begin(record.name, "ill"))
        renewed(record)

    monkeypatch.setattr(ward.monitor, "renewed", look_first)
    recovery.begin("net", "as asked")
    ward.until_over(recovery)
    assert begun == [False] and net.status().loads == 2


def test_what_was_done_is_kept_and_said(ward: Ward, caplog: pytest.LogCaptureFixture) -> None:
    BROKEN["net"] = 100
    recovery = ward.recovery(policy=RecoveryPolicy(budget=2))
    ward.net().load()
    recovery.begin("net", "as asked")
    ward.until_over(recovery)
    assert [type(one) for one in recovery.story("net")] == [RecoveryEnded, RecoveryEnded, RecoveryGaveUp]
    assert "nothing had to be mended" in recovery.table("other").text()
    lines = repr(recovery).splitlines()
    assert lines[1].split() == ["service", "when", "step", "helped", "why"]
    assert "left as failed" in lines[3] and "reload()" in lines[3] and lines[-1] == "nothing is under way"
    assert [line.split("  ")[0] for line in lines[3:6]] == ["net"] * 3 and "reset" in lines[5]
    assert "<table" in recovery._repr_html_()
    told = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert "recovery of net by reload, which loads it anew when its calls have ended, did not help" in told[1]
    ward.look()
    assert "mend what is wrong, then reload()" in ward.monitor.of("net").told(ward.clock())


@pytest.mark.parametrize("again", [False, True])
def test_nothing_is_told_of_a_service_that_was_removed_meanwhile(
    ward: Ward, caplog: pytest.LogCaptureFixture, again: bool
) -> None:
    gates = Gates()
    recovery = ward.recovery()
    ward.net().load()
    PINGS["net"] = gates.hold
    recovery.begin("net", "its calls fail", proof=("errors",))
    gates.wait("in")
    PINGS.clear()
    ward.registry.remove("net", 0.0)
    if again:
        ward.net().load()
    gates.tell("go")
    until(ward.at_rest)
    ward.look()
    assert not ward.ended and recovery._cases == {} and "on trial" not in caplog.text
    if again:
        assert ward.monitor.of("net").told(ward.clock()) == "" and not ward.monitor._watched["net"].broken


def test_what_can_never_fit_is_tried_once(ward: Ward) -> None:
    BROKEN["net"] = 1
    recovery = ward.recovery()
    net = ward.net(way="load", memory="2GB")
    with pytest.raises(GrymError):
        net.load()
    ward.registry.ports.resources.budget({"cpu": "1GB"})
    assert recovery.begin("net", "it could not be loaded")
    ward.until_over(recovery)
    assert ward.steps() == [("reset", False)] and net.state == "failed"
    assert "it can never fit: 1.0 GB is the budget" in ward.ended[0].reason
    [gave_up] = ward.gave_up
    assert gave_up.reason == f"another attempt would change nothing: {ward.ended[0].reason}"
    assert gave_up.hint.startswith(f"{raise_the_budget()}, then grym.get('net').reload()")
    with pytest.raises(ServiceNotReady, match="it can never fit"):
        net.ask()
    ward.registry.ports.resources.budget({"cpu": "4GB"})
    net.reload()
    assert net.ask() is None


def test_the_health_of_one_service_shows_what_was_done_to_it() -> None:
    with Runtime(clock=FakeClock(1000.0)) as runtime:
        runtime.registry.register("alone", Net, config={"name": "alone"}).load()
        runtime.recovery.begin("alone", "its card fell off the bus")
        until(lambda: runtime.recovery.story("alone"))
        shown = str(health(runtime, Namespace(service="alone")))
    assert "what recovery did" in shown and "its card fell off the bus" in shown and "reset" in shown
