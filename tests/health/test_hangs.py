"""Calls and pings that hang: noticed in time, told from those that only wait, blamed on the right one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from grym_nb.errors import GrymError
from grym_nb.services import ModelService, task
from grym_nb.services.progress import track
from tests.health.house import House, Net
from tests.services.crowd import WAIT, Gates, outcome, until


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


def test_a_call_that_takes_far_longer_than_any_before_is_said_and_its_model_left_to_it(house: House) -> None:
    """It may only have more to do than those before it: nobody knows but who has given it a deadline."""
    gates = Gates()
    net = house.net()
    net.ask(lambda: house.clock.advance(1.0))

    call = net.ask.submit(gates.hold)
    gates.wait("in")
    house.look(50)
    assert net.health == "healthy", net._record.health_reason
    house.look(15)
    house.look()
    assert net.health == "degraded" and "times as long as any before" in net._record.health_reason
    house.look(60)
    assert net.health == "degraded" and house.monitor.stands("net") == ""
    gates.tell("go")
    call.result(WAIT)


def test_a_call_within_the_time_that_was_allowed_it_does_not_hang(house: House) -> None:
    gates = Gates()
    net = house.net()
    net.ask(lambda: house.clock.advance(0.1))
    call = net.ask.with_(timeout=600.0).submit(gates.hold)
    gates.wait("in")
    for _ in range(50):
        house.look()
    assert net.health == "healthy", net._record.health_reason
    gates.tell("go")
    call.result(WAIT)


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


def test_one_whose_ping_exits_has_not_answered(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that was written for scripts may end one: nobody else would hear of that."""
    monkeypatch.setattr(Net, "ping", lambda self: sys.exit("no licence"))
    net = house.net().load()
    house.look(31)
    for _ in range(3):
        house.look()
    assert net.health == "unhealthy" and "SystemExit: no licence" in net._record.health_reason
    assert not net.ping().ok


def test_one_that_is_called_and_idle_between_its_calls_is_pinged_too(house: House) -> None:
    """Calls that answer may answer with NaN: what its author asks of it, no call says."""
    net = house.net().load()
    with net.use() as model:
        model.ill = "the weights are NaN"
    for _ in range(14):
        for _ in range(5):
            net.ask()
            house.clock.advance(1.0)
        house.look(0)
    assert model.pings >= 2 and net.health == "unhealthy", net._record.health_reason
    assert "RuntimeError: the weights are NaN" in net._record.health_reason


class Plain(ModelService):
    """Has no ping of its own."""

    @task
    def ask(self) -> None:
        pass


def test_of_one_without_a_ping_of_its_own_calls_say_more(house: House) -> None:
    net = house.registry.register("plain", Plain).load()
    for _ in range(14):
        net.ask()
        house.look()
    assert "plain" not in house.monitor._pings
    house.look(31)
    assert "plain" in house.monitor._pings


def test_one_that_was_just_loaded_is_not_pinged_at_once(house: House) -> None:
    net = house.net().load()
    net.unload()
    house.look(300)
    net.load()
    with net.use() as model:
        pass
    house.look(1)
    assert model.pings == 0
    house.look(30)
    assert model.pings == 1


def test_a_busy_one_is_not_pinged_and_one_that_does_not_answer_is_written_off(house: House) -> None:
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
    assert net.health == "degraded" and "no answer within 5 s" in net._record.health_reason
    house.look()
    assert net.health == "unhealthy" and "no answer within 10 s" in net._record.health_reason
    house.look()
    assert house.monitor._watched["net"].unanswered == 3 and model.pings == 1
    hanging.tell("go")
    until(lambda: not net._record.users)
    for _ in range(4):
        house.look()
    assert net.health == "healthy", net._record.health_reason


def test_a_ping_that_waits_for_a_thread_says_nothing(house: House) -> None:
    gates = Gates()
    net = house.net().load()
    for _ in range(4):
        house.registry.ports.pulse.work(gates.hold, name="slow webhook")
        gates.wait("in")
    house.hangs = True
    house.look(31)
    for _ in range(4):
        house.look()
    assert net.health == "healthy", net._record.health_reason
    gates.tell("go")
    house.hangs = False
    house.look()
    assert net.health == "healthy", net._record.health_reason
    with net.use() as model:
        assert model.pings == 1


def test_another_model_is_asked_though_the_one_before_still_hangs(house: House) -> None:
    gates = Gates()
    net = house.net().load()
    with net.use() as model:
        model.ping = gates.hold
    house.hangs = True
    house.look(31)
    gates.wait("in")
    for _ in range(3):
        house.look()
    assert net.health == "unhealthy"
    net.unload(timeout=0.0)
    for _ in range(4):
        house.look()
    assert net.health == "healthy", "one that is not there is not ill"
    net.load()
    with net.use() as model:
        pass
    for _ in range(4):
        house.look()
        assert net.health == "healthy", net._record.health_reason
    house.look(31)
    until(lambda: model.pings == 1)
    gates.tell("go")
    until(lambda: not house.registry.ports.pulse.written_off)
    house.look()
    assert net.health == "healthy", net._record.health_reason


class Reader(Net):
    @task
    def parts(self, n: int) -> Iterator[int]:
        yield from range(n)


def test_a_stream_that_is_read_slowly_does_not_hang(house: House) -> None:
    net = house.registry.register("reader", Reader)
    for _ in net.parts(3):
        house.clock.advance(0.1)
    for options in ({}, {"timeout": 10.0}):
        stream = net.parts.with_(**options)(3)
        next(stream)
        for _ in range(30):
            house.look()
        assert net.health == "healthy", net._record.health_reason
        stream.close()


def test_a_call_that_moves_on_is_no_hang_for_whoever_mends_either(house: House) -> None:
    gates = Gates()

    def work(steps: int) -> None:
        for step in track(range(steps)):
            if step:
                gates.tell(f"in {step}")
                gates.wait(f"go {step}")

    net = house.net(concurrency=2)
    net.ask(lambda: house.clock.advance(0.1))
    call = net.ask.submit(lambda: work(20))
    for step in range(1, 19):
        gates.wait(f"in {step}")
        house.look()
        gates.tell(f"go {step}")
    gates.wait("in 19")
    house.look()
    house.look(50)
    assert net.health == "healthy" and house.monitor.stands("net") == ""
    house.look(15)
    assert "times as long as any before (100 ms at most)" in net._record.health_reason
    assert house.monitor.stands("net") == ""
    gates.tell("go 19")
    call.result(WAIT)


def test_a_long_call_that_keeps_others_waiting_is_of_its_own(house: House) -> None:
    """So it is told though something that the service needs is in trouble, too."""
    gates = Gates()
    net = house.net()
    net.ask(lambda: house.clock.advance(0.1))
    call = net.ask.submit(gates.hold)
    gates.wait("in")
    house.look(70)
    house.look()
    assert net.health == "degraded" and not house.monitor.of_its_own("net")
    behind = net.ask.submit()
    until(lambda: net._record.lane.waiting == 1)
    house.look()
    assert house.monitor.of_its_own("net")
    [(tags, figure)] = house.monitor.held_up(house.monitor.history, 0.0).items()
    assert "100 ms at most); 1 call waits behind it" in house.monitor.holder(tags, figure)
    gates.tell("go")
    call.result(WAIT)
    behind.result(WAIT)
    house.look()
    assert not house.monitor.of_its_own("net") and house.monitor.holder(tags, figure) == ""


class Outer(Net):
    needs = ("inner",)

    @task
    def go(self, do: Any) -> Any:
        return self.needs.inner.ask(do)


def test_a_hang_in_another_service_is_that_ones(house: House) -> None:
    gates = Gates()
    inner, outer = house.net("inner").load(), house.registry.register("outer", Outer).load()
    call = outer.go.with_(timeout=10.0).submit(gates.hold)
    gates.wait("in")
    house.look(11)
    assert isinstance(outcome(call), GrymError)
    for _ in range(3):
        house.look()
    assert (inner.health, outer.health) == ("unhealthy", "degraded")
    assert "past its deadline, it waits for inner.ask" in outer._record.health_reason
    assert "past its deadline" in house.monitor.stands("inner") and not house.monitor.stands("outer")
    inner.unload(timeout=0.0)
    for _ in range(3):
        house.look()
    assert outer.health == "degraded", "what it waits for will not end, but nobody else is kept waiting"
    waiting = outer.ask.submit()
    until(lambda: outer._record.lane.waiting)
    for _ in range(3):
        house.look()
    assert outer.health == "unhealthy", "only to let go of its model gives the slot back"
    gates.tell("go")
    waiting.result(WAIT)
    until(lambda: not outer._record.lane.frames())
