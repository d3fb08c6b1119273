"""Calls take turns on a device: exclusive by default, per chain, taken last, given back with every wait."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import Any

import pytest

from grym_nb.errors import (
    CallBlocked,
    CallCancelled,
    CallTimeout,
    ConfigError,
    Interrupted,
    LoadFailed,
    ResourceExhausted,
    StateError,
    TaskFailed,
)
from grym_nb.hardening.leases import Place
from grym_nb.services import Call, ModelService, ServiceHandle, ServiceRegistry, task
from grym_nb.testing import FakeClock
from tests.services.crowd import WAIT, Gates, all_at_once, outcome, start, until


class Work(ModelService):
    """Does what it is told."""

    def __init__(self, device: Any = None) -> None:
        self.on = device

    @task
    def do(self, what: Callable[[], Any]) -> Any:
        return what()

    @task
    async def do_async(self, what: Callable[[], Any]) -> Any:
        return await what()

    @task
    def each(self, what: list[Callable[[], Any]]) -> Iterator[Any]:
        for one in what:
            yield one()


class Cards:
    """A registry with two cards, and services that are on one of them."""

    def __init__(self, registry: ServiceRegistry) -> None:
        self.registry = registry
        self.pool = registry.ports.resources
        self.gates = Gates()
        for id in ("card:0", "card:1"):
            self.pool.declare(id)

    def on(self, name: str, device: str | None = "card:0", **options: Any) -> ServiceHandle:
        return self.registry.register(name, Work, device=device, **options).load()

    def place(self, id: str = "card:0") -> Place:
        return self.pool.place(id)

    def waiting(self, n: int = 1, id: str = "card:0") -> None:
        """Wait until so many stand in line."""
        until(lambda: self.pool[id].waiting == n)

    def hold(self, name: str) -> str:
        """Compute until ``go NAME``."""
        self.gates.tell(f"in {name}")
        self.gates.wait(f"go {name}")
        return name

    def busy(self, handle: ServiceHandle, name: str = "it") -> Call:
        """Return a call that computes by now, until ``go NAME``."""
        call = handle.do.submit(lambda: self.hold(name))
        self.gates.wait(f"in {name}")
        return call

    def go(self, name: str = "it") -> None:
        self.gates.tell(f"go {name}")

    def holders(self, id: str = "card:0") -> list[str]:
        return [name.split(".")[0] for name in self.pool[id].held_by]

    def free(self) -> bool:
        return not any(place.held_by or place.waiting for place in self.pool)


@pytest.fixture
def cards(registry: ServiceRegistry) -> Iterator[Cards]:
    cards = Cards(registry)
    yield cards
    until(cards.free)


@pytest.fixture
def driven_cards(driven: ServiceRegistry) -> Iterator[Cards]:
    cards = Cards(driven)
    yield cards
    until(cards.free)


# -- whose turn it is ------------------------------------------------------------------------------


def test_two_services_on_one_card_take_turns(cards: Cards) -> None:
    first, second = cards.on("first"), cards.on("second")
    running = cards.busy(first)
    waiting = second.do.submit(lambda: "done")
    cards.waiting()
    assert cards.holders() == ["first"] and not waiting.done()
    assert "waits for card:0, held by first.do (call" in second.status().running[0]
    assert first.status().device == "card:0" and "device   card:0" in repr(first.status())
    cards.go()
    assert running.result(WAIT) == "it" and waiting.result(WAIT) == "done"
    told = cards.pool["card:0"]
    assert told.leases == 2 and told.longest_wait > 0 and told.status == "ready"
    assert waiting.outcome is not None and waiting.outcome.metadata["queued"] > 0


def test_what_is_on_another_card_or_on_none_is_not_slowed(cards: Cards) -> None:
    running = cards.busy(cards.on("first"))
    assert cards.on("other", "card:1").do(lambda: 1) == 1
    assert cards.on("none", None).do(lambda: 2) == 2
    assert cards.on("main", "cpu").do(lambda: 3) == 3
    cards.go()
    running.result(WAIT)


def test_calls_of_one_service_have_it_together(cards: Cards) -> None:
    first = cards.on("first", concurrency=2)
    running = cards.busy(first)
    assert first.do.submit(lambda: "beside").result(WAIT) == "beside"
    cards.go()
    running.result(WAIT)


def test_a_service_may_share_a_card(cards: Cards) -> None:
    small, tiny, big = cards.on("small", exclusive=False), cards.on("tiny", exclusive=False), cards.on("big")
    running = cards.busy(small)
    assert tiny.do.submit(lambda: "beside").result(WAIT) == "beside"
    waiting = big.do.submit(lambda: "alone")
    cards.waiting()
    cards.go()
    assert running.result(WAIT) == "it" and waiting.result(WAIT) == "alone"


def test_the_main_processor_is_had_alone_only_where_that_is_said(cards: Cards) -> None:
    alone = cards.on("alone", "cpu", exclusive=True)
    running = cards.busy(alone)
    other = cards.on("other", "cpu", exclusive=True).do.submit(lambda: "then")
    cards.waiting(1, "cpu")
    cards.go()
    assert running.result(WAIT) == "it" and other.result(WAIT) == "then"


def test_the_highest_priority_is_next(cards: Cards) -> None:
    running = cards.busy(cards.on("first"))
    order: list[str] = []
    calls = []
    for n, priority in enumerate(("low", "normal", "high")):
        handle = cards.on(priority)
        calls.append(handle.do.with_(priority=priority).submit(lambda p=priority: order.append(p)))
        cards.waiting(n + 1)
    cards.go()
    for call in (running, *calls):
        call.result(WAIT)
    assert order == ["high", "normal", "low"]


def test_a_lease_of_your_own_keeps_services_waiting(cards: Cards) -> None:
    first = cards.on("first")
    lease = outcome(start(lambda: cards.pool.lease("card:0", owner="me")))
    waiting = first.do.submit(lambda: "then")
    cards.waiting()
    assert "held by me" in repr(first.status())
    lease.release()
    assert waiting.result(WAIT) == "then"


# -- which device ----------------------------------------------------------------------------------


class Says(ModelService):
    """A model that says by itself where it is."""

    def __init__(self, device: Any = "auto") -> None:
        self.config_device = device

    def load(self) -> None:
        if self.config_device == "auto":
            self.device = "card:1"

    @task
    def do(self) -> str:
        return "done"


class Property(Says):
    @property
    def device(self) -> str:
        raise RuntimeError("not yet")

    @device.setter
    def device(self, value: str) -> None: ...


def test_a_device_is_found_by_what_is_said_then_by_the_model_then_by_the_config(cards: Cards) -> None:
    register = cards.registry.register
    assert register("model", Says).load().status().device == "card:1"
    assert register("config", Says, config={"device": "card:0"}).load().status().device == "card:0"
    said = register("said", Says, config={"device": "card:1"}, device="card:0")
    assert said.load().status().device == "card:0"
    assert register("broken", Property).load().status().device == ""
    assert register("elsewhere", Says, config={"device": "warp"}).load().status().device == ""
    assert "where the model says it is" in repr(said.__class__.policy.fget(register("model", Says)))  # type: ignore[attr-defined]
    assert said.policy.device == "card:0" and said.policy.sources["device"] == "register"


def test_an_object_that_names_a_device_is_one(cards: Cards) -> None:
    kind = type("device", (), {"__str__": lambda self: "card:0"})
    told = cards.registry.register("told", Says, config={"device": kind()})
    assert told.load().status().device == "card:0"
    assert cards.registry.register("said", Says, device=kind()).policy.device == "card:0"


def test_an_unknown_device_that_was_said_is_told_with_the_closest(cards: Cards) -> None:
    wrong = cards.registry.register("wrong", Work, device="crad:0")
    with pytest.raises(LoadFailed, match=r"there is no device 'crad:0'\. Did you mean 'card:0'\?"):
        wrong.load()
    assert wrong.state == "failed"
    assert cards.registry.register("wrong", Work, device="card:0").do(lambda: 1) == 1


@pytest.mark.parametrize(
    "given", [{"device": 7}, {"device": " "}, {"exclusive": "yes"}, {"device": ["cuda"]}, {"exclusive": 1}]
)
def test_what_is_no_device_is_refused_at_once(cards: Cards, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(given))):
        cards.registry.register("wrong", Work, **given)


def test_a_service_moves_with_its_policy_and_stays_loaded(cards: Cards) -> None:
    moving = cards.on("moving")
    running = cards.busy(cards.on("first"))
    cards.registry.register("moving", Work, device="card:1")
    assert moving.do(lambda: 1) == 1 and moving.status().device == "card:1"
    assert moving.status().loads == 1
    cards.registry.register("moving", Work, device="card:9")
    with pytest.raises(ConfigError, match="no device 'card:9'"):
        moving.do(lambda: 1)
    cards.go()
    running.result(WAIT)


def test_a_card_that_was_withdrawn_is_refused_until_it_is_back(cards: Cards) -> None:
    first = cards.on("first")
    cards.pool.withdraw("card:0", "hot")
    with pytest.raises(ResourceExhausted, match="card:0 is not available: hot"):
        first.do(lambda: 1)
    cards.pool.declare("card:0")
    assert first.do(lambda: 1) == 1


# -- a chain ---------------------------------------------------------------------------------------


def test_what_a_call_calls_rides_on_its_lease(cards: Cards) -> None:
    outer, inner, other = cards.on("outer"), cards.on("inner"), cards.on("other")
    seen: list[Any] = []

    def inside() -> str:
        seen.append(cards.holders())
        return "inner"

    def chain() -> str:
        waiting.append(start(other.do, lambda: seen.append("other")))
        cards.waiting()
        return inner.do(inside)

    waiting: list[Any] = []
    assert outer.do(chain) == "inner"
    outcome(waiting[0])
    assert seen == [["outer", "inner"], "other"]


@pytest.mark.parametrize("options", [{}, {"timeout": 100.0}])
def test_what_a_call_submits_and_waits_for_rides_on_its_lease(cards: Cards, options: dict[str, Any]) -> None:
    outer, inner, other = cards.on("outer"), cards.on("inner", **options), cards.on("other")
    seen: list[Any] = []
    waiting: list[Any] = []

    def chain() -> str:
        waiting.append(start(other.do, lambda: seen.append("other")))
        cards.waiting()
        return inner.do.submit(lambda: seen.append(cards.holders()) or "inner").result(WAIT)

    assert outer.do(chain) == "inner"
    outcome(waiting[0])
    assert seen[-1] == "other" and "inner" in seen[0] and "other" not in seen[0]


def test_what_two_calls_of_one_that_is_on_none_do_takes_turns(cards: Cards) -> None:
    """A pipeline on the main processor has no lease that they could share."""
    pipe, first, second = cards.on("pipe", None), cards.on("first"), cards.on("second")

    def both() -> list[Any]:
        one = cards.busy(first)
        two = second.do.submit(cards.holders)
        cards.waiting()
        cards.go()
        return [one.result(WAIT), two.result(WAIT)]

    assert pipe.do(both) == ["it", ["second"]]


def test_a_call_that_waits_for_a_slot_gives_its_card_back_meanwhile(cards: Cards) -> None:
    """Else this would wait for ever: each has what the other needs."""
    outer, slow = cards.on("outer"), cards.on("slow", None)
    third = cards.on("third")

    def hold() -> Any:
        cards.hold("slow")
        return third.do(lambda: "had the card")

    def chain() -> Any:
        return slow.do(lambda: cards.holders())

    first = slow.do.submit(hold)
    cards.gates.wait("in slow")
    second = outer.do.submit(chain)
    until(lambda: slow.status().waiting == 1)
    until(lambda: cards.holders() == [])
    cards.go("slow")
    assert first.result(WAIT) == "had the card"
    assert second.result(WAIT) == []  # `slow` is on none, and `outer` goes on only after it


def test_it_has_its_card_again_after_each_wait(cards: Cards) -> None:
    outer, slow = cards.on("outer"), cards.on("slow", None)
    running = cards.busy(slow)
    seen: list[Any] = []

    def chain() -> None:
        seen.append(cards.holders())
        call = slow.do.submit(lambda: seen.append(cards.holders()))
        cards.gates.tell("submitted")
        call.result(WAIT)
        seen.append(cards.holders())

    call = outer.do.submit(chain)
    cards.gates.wait("submitted")
    until(lambda: cards.holders() == [])
    cards.go()
    running.result(WAIT)
    call.result(WAIT)
    assert seen[0] == ["outer"] and seen[2] == ["outer"]


@pytest.mark.parametrize("way", ["inline", "submitted"])
def test_two_chains_over_two_cards_crosswise_both_end(cards: Cards, way: str) -> None:
    """First 0 then 1, and first 1 then 0: neither may keep one while it waits for the other."""
    up = cards.on("up", "card:0"), cards.on("up1", "card:1")
    down = cards.on("down", "card:1"), cards.on("down0", "card:0")
    met = threading.Barrier(2)

    def chain(first: ServiceHandle, second: ServiceHandle, card: str) -> Any:
        def inside() -> Any:
            met.wait(WAIT)
            if way == "inline":
                inner = second.do(lambda: "inner")
            else:
                call = second.do.submit(lambda: "inner")
                met.wait(WAIT)
                cards.waiting(1, "card:0")
                cards.waiting(1, "card:1")
                met.wait(WAIT)
                inner = call.result(WAIT)
            return inner, first.name in cards.holders(card)

        return first.do(inside)

    one = start(chain, *up, "card:0")
    two = start(chain, *down, "card:1")
    assert outcome(one) == ("inner", True) and outcome(two) == ("inner", True)


def test_a_child_that_comes_to_wait_takes_its_parents_card_along(cards: Cards) -> None:
    """The parent keeps it for the child; when the child waits for a slot, nobody needs it."""
    outer, inner, slow, other = (
        cards.on("outer"),
        cards.on("inner"),
        cards.on("slow", None),
        cards.on("other"),
    )
    running = cards.busy(slow)

    def child() -> Any:
        cards.gates.tell("child")
        cards.gates.wait("go on")
        return slow.do(lambda: "slow")

    call = outer.do.submit(lambda: inner.do.submit(child).result(WAIT))
    cards.gates.wait("child")
    waiting = other.do.submit(lambda: "other")
    cards.waiting()
    assert "other" not in cards.holders()
    cards.gates.tell("go on")
    assert waiting.result(WAIT) == "other"  # while the child waits
    cards.go()
    running.result(WAIT)
    assert call.result(WAIT) == "slow"


def test_a_child_that_waits_takes_nothing_from_a_parent_that_computes(cards: Cards) -> None:
    outer, inner, slow = cards.on("outer"), cards.on("inner"), cards.on("slow", None)
    running = cards.busy(slow)

    def parent() -> list[str]:
        child = inner.do.submit(lambda: slow.do(lambda: "slow"))
        until(lambda: slow.status().waiting == 1)
        told = cards.holders()
        cards.go()
        assert child.result(WAIT) == "slow"
        return told

    assert outer.do(parent) == ["outer"]
    running.result(WAIT)


def test_a_child_that_comes_to_wait_leaves_its_parent_in_line(cards: Cards) -> None:
    """The parent waits for its card itself by then, and not for the child."""
    outer, other, inner = cards.on("outer"), cards.on("other"), cards.on("inner", None)
    slow, slower = cards.on("slow", None), cards.on("slower", None)
    running, runs_on = cards.busy(slow), cards.busy(slower, "slower")

    def child() -> str:
        cards.gates.wait("child")
        return slower.do(lambda: "slower")

    def parent() -> list[str]:
        inner.do.submit(child)
        slow.do(lambda: 1)
        return cards.holders()

    call = outer.do.submit(parent)
    until(lambda: slow.status().waiting == 1 and not cards.holders())
    held = cards.busy(other, "other")
    cards.go()
    running.result(WAIT)
    cards.waiting()
    cards.gates.tell("child")
    until(lambda: slower.status().waiting == 1)
    cards.go("other")
    held.result(WAIT)
    assert call.result(WAIT) == ["outer"]
    cards.go("slower")
    runs_on.result(WAIT)


def test_nothing_is_held_between_two_attempts(driven_cards: Cards, clock: FakeClock) -> None:
    cards = driven_cards
    outer, flaky, other = cards.on("outer"), cards.on("flaky", retry=2), cards.on("other")
    tries: list[int] = []

    def fail_once() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("down")
        return "up"

    call = outer.do.submit(lambda: (flaky.do(fail_once), cards.holders()))
    until(lambda: tries and not cards.holders())
    assert other.do(lambda: "meanwhile") == "meanwhile"
    until(lambda: clock.advance(1.0) or call.done())
    assert call.result(WAIT) == ("up", ["outer"])


def test_an_unload_from_within_waits_without_the_card(cards: Cards) -> None:
    outer, slow, other = cards.on("outer"), cards.on("slow", None), cards.on("other")
    running = cards.busy(slow)

    def unload() -> list[str]:
        slow.unload()
        return cards.holders()

    call = outer.do.submit(unload)
    until(lambda: slow.state == "draining")
    assert other.do.submit(lambda: "meanwhile").result(WAIT) == "meanwhile"
    cards.go()
    running.result(WAIT)
    assert call.result(WAIT) == ["outer"] and slow.state == "registered"


def test_a_load_from_within_has_the_card_again_after_it(cards: Cards) -> None:
    outer = cards.on("outer")
    lazy = cards.registry.register("lazy", Work)
    assert outer.do(lambda: (lazy.load().state, cards.holders())) == ("ready", ["outer"])


# -- async -----------------------------------------------------------------------------------------


def test_an_async_task_gives_its_card_back_while_it_awaits_and_has_it_again(cards: Cards) -> None:
    outer, slow, other = cards.on("outer"), cards.on("slow", None), cards.on("other")
    running = cards.busy(slow)

    async def chain() -> Any:
        before = cards.holders()
        await slow.do.submit(lambda: None)
        return before, cards.holders()

    call = outer.do_async.submit(chain)
    until(lambda: slow.status().waiting == 1 and not cards.holders())
    held = cards.busy(other, "other")
    cards.go()
    running.result(WAIT)
    until(lambda: "waits for card:0, held by other.do" in repr(outer.status()))
    assert not call.done()
    cards.go("other")
    held.result(WAIT)
    assert call.result(WAIT) == (["outer"], ["outer"])


def test_two_waits_of_one_call_at_once_lose_no_time_and_count_none_twice(
    driven_cards: Cards, clock: FakeClock
) -> None:
    """As those of an async task whose branches both want its device back, one after the other."""
    frame = driven_cards.on("work")._record.frame("use")
    first, second = frame.waiting("device"), frame.waiting("device")
    first.__enter__()
    clock.advance(10.0)
    second.__enter__()
    clock.advance(5.0)
    assert frame.waited_by(clock()) == {"device": 15.0}
    first.__exit__(None, None, None)
    clock.advance(3.0)
    assert frame.waited_by(clock()) == {"device": 18.0}
    second.__exit__(None, None, None)
    clock.advance(9.0)
    assert frame.waited_by(clock()) == {"device": 18.0}


def test_an_async_task_that_awaits_several_has_it_again_after_the_last(cards: Cards) -> None:
    outer, slow, quick = cards.on("outer"), cards.on("slow", None), cards.on("quick")
    running = cards.busy(slow)

    async def first() -> None:
        await quick.do.submit(lambda: None)
        cards.gates.tell("quick")

    async def chain() -> Any:
        await asyncio.gather(slow.do.submit(lambda: None), first())
        return cards.holders()

    call = outer.do_async.submit(chain)
    cards.gates.wait("quick")
    assert cards.holders() == []
    cards.go()
    running.result(WAIT)
    assert call.result(WAIT) == ["outer"]


def test_an_await_that_is_cancelled_in_line_leaves_nothing_behind(cards: Cards) -> None:
    outer, slow, other = cards.on("outer"), cards.on("slow", None), cards.on("other")
    running = cards.busy(slow)

    async def chain() -> None:
        await slow.do.submit(lambda: None)

    call = outer.do_async.submit(chain)
    until(lambda: slow.status().waiting == 1 and not cards.holders())
    held = cards.busy(other, "other")
    cards.go()
    running.result(WAIT)
    cards.waiting()
    call.cancel()
    assert isinstance(outcome(call), CallCancelled)
    assert cards.pool["card:0"].waiting == 0
    cards.go("other")
    held.result(WAIT)


def test_an_async_task_that_calls_without_await_is_refused_where_it_would_wait(cards: Cards) -> None:
    outer, other, third = cards.on("outer", None), cards.on("other"), cards.on("third")
    held = cards.busy(other)

    async def chain() -> Any:
        return third.do(lambda: 1)

    with pytest.raises(CallBlocked, match="would stop the event loop"):
        outer.do_async(chain)
    cards.go()
    held.result(WAIT)


# -- calls that stay open --------------------------------------------------------------------------


def test_a_stream_has_its_card_only_while_it_makes_an_item(cards: Cards) -> None:
    streams, other = cards.on("streams"), cards.on("other")
    items = streams.each([cards.holders, cards.holders])
    assert next(items) == ["streams"] and cards.free()
    assert other.do(cards.holders) == ["other"]
    running = cards.busy(other)
    rest = start(lambda: list(items))
    cards.waiting()
    cards.go()
    running.result(WAIT)
    assert outcome(rest) == [["streams"]]


def test_a_stream_read_in_a_task_rides_on_its_lease(cards: Cards) -> None:
    streams, outer = cards.on("streams"), cards.on("outer")
    assert outer.do(lambda: list(streams.each([cards.holders] * 2))) == [["outer", "streams"]] * 2


def test_a_stream_that_was_opened_outside_rides_on_whoever_reads_it(cards: Cards) -> None:
    streams, outer, third = cards.on("streams"), cards.on("outer"), cards.on("third", "card:1")
    items = streams.each([cards.holders] * 3)
    assert next(items) == ["streams"]
    assert outer.do(lambda: next(items)) == ["outer", "streams"]
    assert third.do(lambda: (next(items), cards.holders("card:1"))) == (["streams"], ["third"])


def test_who_closes_a_stream_that_is_read_in_line_lets_its_reader_have_the_card(cards: Cards) -> None:
    streams, outer = cards.on("streams"), cards.on("outer")
    items = streams.each([cards.holders] * 2)
    assert next(items) == ["streams"]
    reading: list[Any] = []

    def closes() -> Any:
        reading.append(start(next, items))
        cards.waiting()
        items.close()
        return cards.holders()

    assert outer.do.submit(closes).result(WAIT) == ["outer"]
    assert outcome(reading[0]) == ["streams"]
    with pytest.raises(StopIteration):
        next(items)


def test_a_stream_is_read_in_the_time_of_whoever_reads_it(driven_cards: Cards, clock: FakeClock) -> None:
    cards = driven_cards
    streams, outer, other = cards.on("streams"), cards.on("outer", None, timeout=5.0), cards.on("other")
    items = streams.each([cards.holders] * 2)
    assert next(items) == ["streams"]
    running = cards.busy(other)
    late = start(outer.do, lambda: next(items))
    cards.waiting()
    clock.advance(6.0)
    error = outcome(late)
    assert isinstance(error, CallTimeout) and "held by other.do (call" in error.cause
    cards.go()
    running.result(WAIT)
    items.close()  # where the card was free before its reader had seen that it is late


def test_a_stream_that_reads_itself_says_so(cards: Cards) -> None:
    streams = cards.on("streams")
    items: Any = streams.each([lambda: next(items)])
    with pytest.raises(StateError, match=r"streams\.each is read by itself"):
        next(items)


def test_a_stream_that_is_late_for_its_card_says_so_and_is_over(
    driven_cards: Cards, clock: FakeClock
) -> None:
    cards = driven_cards
    streams, other = cards.on("streams", timeout=5.0), cards.on("other")
    running = cards.busy(other)
    reading = start(lambda: list(streams.each([cards.holders])))
    cards.waiting()
    clock.advance(6.0)
    late = outcome(reading)
    assert isinstance(late, CallTimeout) and "card:0, held by other.do (call" in late.cause
    cards.go()
    running.result(WAIT)


def test_use_has_the_card_until_it_is_left(cards: Cards) -> None:
    used, other, third = cards.on("used"), cards.on("other"), cards.on("third")
    with used.use():
        assert cards.holders() == ["used"]
        waiting = start(other.do, lambda: "other")
        cards.waiting()
        assert third.do(lambda: "inside") == "inside"  # of its chain
        assert third.do.submit(lambda: "inside").result(WAIT) == "inside"
        assert cards.holders() == ["used"]
    assert outcome(waiting) == "other"


def test_use_within_a_task_gives_its_card_back_to_the_task(cards: Cards) -> None:
    outer, used = cards.on("outer"), cards.on("used", "card:1")
    held = cards.busy(cards.on("other", "card:1"))

    def inside() -> Any:
        with used.use():
            return cards.holders(), cards.holders("card:1")

    call = outer.do.submit(lambda: (inside(), cards.holders()))
    cards.waiting(1, "card:1")
    assert cards.holders() == []
    cards.go()
    held.result(WAIT)
    assert call.result(WAIT) == (([], ["used"]), ["outer"])


def test_what_only_this_thread_could_end_is_not_waited_for(cards: Cards) -> None:
    used, other = cards.on("used"), cards.on("other")
    use = used.use()
    use.__enter__()
    try:
        with pytest.raises(CallBlocked, match=r"used\.use is open in this thread, and has card:0"):
            Context().run(other.do, lambda: 1)
        call = Context().run(other.do.submit, lambda: 2)
        cards.waiting()
        with pytest.raises(CallBlocked, match="leave the `use"):
            Context().run(call.result)
    finally:
        use.__exit__(None, None, None)
    assert call.result(WAIT) == 2


def test_a_lease_of_this_threads_own_is_not_waited_for(cards: Cards) -> None:
    first = cards.on("first")
    lease = cards.pool.lease("card:0", owner="me")
    with pytest.raises(CallBlocked, match="would wait for ever: me has card:0"):
        first.do(lambda: 1)
    lease.release()
    assert first.do(lambda: 1) == 1


def test_who_waits_already_is_told_that_only_this_thread_could_end_it(
    driven_cards: Cards, clock: FakeClock
) -> None:
    cards = driven_cards
    used, other = cards.on("used"), cards.on("other", None)
    outside = Context()
    busy = cards.busy(other)
    cards.registry.register("other", Work, device="card:0")
    with used.use():
        call = outside.run(other.do.submit, lambda: 2)
        let_in = start(lambda: (clock.until_waiting(1), cards.go()))
        with pytest.raises(CallBlocked, match=r"used\.use is open in this thread"):
            outside.run(call.result)
    assert outcome(let_in) and call.result(WAIT) == 2 and busy.result(WAIT) == "it"


# -- waits that end otherwise ----------------------------------------------------------------------


@pytest.mark.parametrize("way", ["itself", "a call in it", "a call it submits"])
def test_who_waits_too_long_is_told_who_has_it(driven_cards: Cards, clock: FakeClock, way: str) -> None:
    cards = driven_cards
    strict: dict[str, Any] = {"breaker": {"min_calls": 1, "failure_rate": 0.1}}
    hung, late = cards.on("hung"), cards.on("late", **strict)
    outer = cards.on("outer", None, timeout=5.0, **strict)
    running = cards.busy(hung)
    if way == "itself":
        waiting = late.do.with_(timeout=5.0).submit(lambda: 1)
    elif way == "a call in it":
        waiting = outer.do.submit(lambda: late.do(lambda: 1))
    else:
        waiting = outer.do.submit(lambda: late.do.submit(lambda: 1).result())
    cards.waiting()
    until(lambda: "waiting" in repr(waiting))
    clock.advance(6.0)
    error = outcome(waiting)
    assert isinstance(error, CallTimeout) and "card:0, held by hung.do (call" in error.cause
    until(lambda: cards.pool["card:0"].waiting == 0)
    for asked in (late, outer):
        assert asked.breaker is not None and asked.breaker.state == "closed"  # it says nothing about them
    cards.go()
    running.result(WAIT)


def test_a_call_in_line_can_be_cancelled(cards: Cards) -> None:
    running = cards.busy(cards.on("first"))
    other = cards.on("other")
    waiting = other.do.submit(lambda: 1)
    cards.waiting()
    waiting.cancel()
    assert isinstance(outcome(waiting), CallCancelled)
    until(lambda: cards.pool["card:0"].waiting == 0)
    cards.go()
    running.result(WAIT)
    assert other.do(lambda: 2) == 2


def test_a_call_above_one_in_line_can_be_cancelled(cards: Cards) -> None:
    running = cards.busy(cards.on("first"))
    outer, other = cards.on("outer", None), cards.on("other")
    waiting = outer.do.submit(lambda: other.do(lambda: 1))
    cards.waiting()
    waiting.cancel()
    assert isinstance(outcome(waiting), CallCancelled)
    assert cards.pool["card:0"].waiting == 0
    cards.go()
    running.result(WAIT)


def test_ctrl_c_in_line_leaves_nothing_behind(
    cards: Cards, ctrl_c: Callable[[Callable[[], Any]], None]
) -> None:
    running = cards.busy(cards.on("first"))
    other = cards.on("other")
    ctrl_c(lambda: cards.waiting())
    with pytest.raises(Interrupted):
        other.do(lambda: 1)
    until(lambda: cards.pool["card:0"].waiting == 0)
    cards.go()
    running.result(WAIT)
    assert other.do(lambda: 2) == 2


def test_a_task_that_unwinds_for_ctrl_c_does_not_wait_for_its_card(
    cards: Cards, ctrl_c: Callable[[Callable[[], Any]], None]
) -> None:
    outer, slow, other = cards.on("outer"), cards.on("slow", None), cards.on("other")
    running = cards.busy(slow)
    held: list[Call] = []

    def press() -> None:
        until(lambda: slow.status().waiting == 1 and not cards.holders())
        held.append(cards.busy(other, "other"))

    ctrl_c(press)
    with pytest.raises(Interrupted):
        outer.do(lambda: slow.do(lambda: 1))
    for name in ("it", "other"):
        cards.go(name)
    for call in (running, *held):
        call.result(WAIT)


def test_a_hung_call_loses_its_card_with_its_instance(cards: Cards) -> None:
    """Everything else can be unloaded meanwhile, and what takes its place can compute."""
    hung, other, third = cards.on("hung", timeout=0.05), cards.on("other"), cards.on("third", "card:1")
    late = hung.do.submit(lambda: cards.hold("it"))
    cards.gates.wait("in it")
    waiting = other.do.submit(lambda: "other")
    cards.waiting()
    assert isinstance(outcome(late), CallTimeout)
    assert "do stuck" in hung.status().running[0] and cards.holders() == ["hung"]
    third.unload()
    assert third.state == "registered"
    hung.unload(timeout=0.01)
    assert waiting.result(WAIT) == "other"
    assert "in a model let go of" in hung.status().running[0]
    assert hung.do.with_(timeout=WAIT)(lambda: "anew") == "anew"
    cards.go()


def test_a_hung_call_loses_the_card_it_has_also_where_its_service_has_moved(cards: Cards) -> None:
    hung, other = cards.on("hung"), cards.on("other")
    running = cards.busy(hung)
    assert cards.on("hung", "card:1").do.with_(timeout=WAIT).submit(cards.holders) is not None
    waiting = other.do.submit(lambda: "other")
    cards.waiting()
    hung.unload(timeout=0.01)
    assert waiting.result(WAIT) == "other"
    cards.go()
    running.result(WAIT)


@pytest.mark.parametrize("before", [True, False])
def test_who_was_let_go_of_waits_for_no_card_any_more(cards: Cards, before: bool) -> None:
    outer, slow, other = cards.on("outer"), cards.on("slow", None), cards.on("other")
    running = cards.busy(slow)
    call = outer.do.submit(lambda: (slow.do(lambda: 1), cards.holders()))
    until(lambda: slow.status().waiting == 1 and not cards.holders())
    held = cards.busy(other, "other")
    if before:
        outer.unload(timeout=0.01)
    cards.go()
    running.result(WAIT)
    if not before:
        cards.waiting()
        outer.unload(timeout=0.01)
    assert call.result(WAIT) == (1, ["other"])
    cards.go("other")
    held.result(WAIT)
    assert cards.free()


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_who_was_let_go_of_leaves_a_free_card_alone(cards: Cards, kind: str) -> None:
    outer, slow = cards.on("outer"), cards.on("slow", None)
    running = cards.busy(slow)

    async def awaits() -> Any:
        return await slow.do.submit(lambda: 1), cards.holders()

    if kind == "plain":
        call = outer.do.submit(lambda: (slow.do(lambda: 1), cards.holders()))
    else:
        call = outer.do_async.submit(awaits)
    until(lambda: slow.status().waiting == 1 and not cards.holders())
    outer.unload(timeout=0.01)
    cards.go()
    running.result(WAIT)
    assert call.result(WAIT) == (1, [])


def test_who_waits_while_the_instance_goes_is_answered_by_the_next(cards: Cards) -> None:
    running = cards.busy(cards.on("first"))
    other = cards.on("other")
    waiting = other.do.submit(lambda: other.status().loads)
    cards.waiting()
    other.unload(timeout=0.01)
    cards.go()
    assert running.result(WAIT) == "it" and waiting.result(WAIT) == 2


def test_a_task_that_raises_gives_its_card_back(cards: Cards) -> None:
    def fail() -> None:
        raise OSError("down")

    first = cards.on("first")
    with pytest.raises(TaskFailed):
        first.do(fail)
    assert cards.free()


# -- at random -------------------------------------------------------------------------------------


class Watched:
    """Knows who computes on each card, and notes when two services do at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.inside: dict[str, Counter[str]] = {"card:0": Counter(), "card:1": Counter()}
        self.clashes: list[str] = []
        self.times = 0

    @contextmanager
    def computes(self, name: str, card: str | None) -> Iterator[None]:
        """Compute for a moment, on the card of a service that calls nobody meanwhile."""
        if card is None:
            yield
            return
        with self._lock:
            inside = self.inside[card]
            inside[name] += 1
            self.times += 1
            if len(+inside) > 1:
                self.clashes.append(f"{card}: {', '.join(+inside)}")
        yield
        with self._lock:
            inside[name] -= 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("downwards", [True, False])
def test_random_chains_never_compute_together_on_a_card_and_all_end(
    cards: Cards, downwards: bool, seed: int
) -> None:
    """Each call computes, and calls on at random, in its thread, submitted, or as a stream.

    `downwards` only services after its own, so that no chain waits for another's slot in a circle.
    """
    devices = random.Random(seed).sample(["card:0", "card:0", "card:1", "card:1", "card:1", None, None], 7)
    watched = Watched()
    services = {
        f"s{n}": cards.registry.register(f"s{n}", Work, device=device, concurrency=1 + n % 2)
        for n, device in enumerate(devices)
    }
    for handle in services.values():
        handle.load()

    def work(name: str, pick: random.Random, depth: int) -> int:
        card = devices[int(name[1:])]
        done = 1
        for _ in range(pick.randint(1, 3)):
            with watched.computes(name, card):
                os.sched_yield()
            if depth and (others := list(services)[int(name[1:]) + 1 if downwards else 0 :]):
                other, chosen = pick.choice(others), random.Random(pick.random())
                handle = services[other]

                def inner(other: str = other, chosen: random.Random = chosen) -> int:
                    return work(other, chosen, depth - 1)

                way = pick.randrange(3)
                if way == 0:
                    done += handle.do(inner)
                elif way == 1:
                    done += handle.do.submit(inner).result(WAIT)
                else:
                    done += sum(handle.each([inner]))
        return done

    def run(i: int) -> int:
        pick = random.Random(1000 * seed + i)
        total = 0
        for _ in range(30):
            name = pick.choice(list(services))
            try:
                total += services[name].do(lambda name=name: work(name, random.Random(pick.random()), 2))
            except CallBlocked:  # two of these chains would have waited for one another's slots
                refused.append(name)
        return total

    refused: list[str] = []
    told = all_at_once(6, run)
    assert all(isinstance(one, int) for one in told), told
    assert not (downwards and refused)
    assert watched.clashes == [] and watched.times > 100
