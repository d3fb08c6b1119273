"""Devices and whose turn it is: alone, in line, together, for so long, and counted."""

from __future__ import annotations

import heapq
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from grym_nb.errors import CallTimeout, ConfigError, ResourceExhausted, ValidationError
from grym_nb.hardening import Lease, ResourcePool
from grym_nb.hardening.leases import Place
from grym_nb.testing import FakeClock


class Shared:
    """A pool with one declared device, on a clock of its own, and threads that ask for it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.pool = ResourcePool(clock=self.clock, ageing_seconds=10.0)
        self.pool.declare("card:0", rows=4)
        self.threads = ThreadPoolExecutor(8)

    def asks(self, owner: str, **options: Any) -> Future[Lease]:
        """Let a thread ask, and return once it waits in line or has it."""
        before = self.pool["card:0"].waiting
        future = self.threads.submit(self.pool.lease, "card:0", owner=owner, **options)
        while not future.done() and self.pool["card:0"].waiting == before:
            with suppress(TimeoutError):
                self.clock.until_waiting(before + 1, timeout=0.01)
        return future


@pytest.fixture
def it() -> Any:
    shared = Shared()
    yield shared
    shared.pool.withdraw("card:0")  # whoever still waits is let go
    shared.threads.shutdown(cancel_futures=True)


def test_one_has_it_and_the_next_waits(it: Shared) -> None:
    first = it.pool.lease("card:0", owner="asr")
    waiting = it.asks("tts")
    assert it.pool["card:0"].held_by == ("asr",) and it.pool["card:0"].waiting == 1
    it.clock.advance(3.0)
    first.release()
    second = waiting.result(5.0)
    assert (second.held, first.held, second.waited) == (True, False, 3.0)
    assert it.pool["card:0"].held_by == ("tts",)
    second.release()


def test_who_owns_it_asks_again_and_shares(it: Shared) -> None:
    with it.pool.lease("card:0", owner="asr"), it.pool.lease("card:0", owner="asr"):
        assert it.pool["card:0"].held_by == ("asr", "asr")
    assert it.pool["card:0"].status == "ready"


def test_services_take_turns_also_when_one_asks_without_end(it: Shared) -> None:
    """Another call of the same owner does not pass those who wait already."""
    first = it.pool.lease("card:0", owner="asr")
    other = it.asks("tts")
    again = it.asks("asr")
    assert not again.done()
    first.release()
    other.result(5.0).release()
    again.result(5.0).release()


def test_to_release_twice_is_to_release_once(it: Shared) -> None:
    first = it.pool.lease("card:0", owner="asr")
    first.release()
    with it.pool.lease("card:0", owner="tts"):
        first.release()  # it is another's by now
        assert it.pool["card:0"].held_by == ("tts",)


def test_the_highest_priority_is_next_and_waiting_counts(it: Shared) -> None:
    first = it.pool.lease("card:0", owner="a")
    low = it.asks("low", priority="low")
    it.clock.advance(9.0)
    high = it.asks("high", priority="high")  # two steps up: worth 20 s, and low has waited 9
    it.clock.advance(12.0)
    late = it.asks("late", priority="high")  # by now low has waited 21
    first.release()
    highest = high.result(5.0)
    assert not low.done() and not late.done()
    highest.release()
    next_one = low.result(5.0)
    assert not late.done()
    next_one.release()
    late.result(5.0).release()


def test_a_wait_ends_with_the_name_of_who_has_it(it: Shared) -> None:
    with it.pool.lease("card:0", owner="asr"):
        waiting = it.asks("tts", timeout=5.0)
        it.clock.advance(5.0)
        with pytest.raises(CallTimeout) as refused:
            waiting.result(5.0)
    assert refused.value.lines() == [
        "tts did not get card:0 within 5 s",
        "  held by asr",
        "→ wait longer, or let its owner release it",
    ]
    assert it.pool["card:0"].waiting == 0


def test_a_lease_for_so_long_ends_by_itself(it: Shared) -> None:
    first = it.pool.lease("card:0", owner="asr", seconds=10.0)
    waiting = it.asks("tts")
    it.clock.advance(10.0)
    second = waiting.result(5.0)
    assert not first.held and second.held
    first.release()
    assert second.held
    second.release()
    it.pool.lease("card:0", owner="asr", seconds=1.0)
    it.clock.advance(1.0)
    assert it.pool["card:0"].status == "ready"


def test_what_is_not_exclusive_goes_together(it: Shared) -> None:
    one = it.pool.lease("card:0", owner="a", exclusive=False)
    two = it.pool.lease("card:0", owner="b", exclusive=False)
    alone = it.asks("c")
    one.release()
    assert not alone.done()
    two.release()
    alone.result(5.0).release()


def test_on_a_processor_nobody_waits() -> None:
    pool = ResourcePool()
    with pool.lease("cpu", owner="a"), pool.lease("cpu", owner="b"):
        assert pool["cpu"].held_by == ("a", "b")
    with pool.lease("cpu", owner="a", exclusive=True), pytest.raises(CallTimeout):
        pool.lease("cpu", owner="b", timeout=0.01)


def test_what_is_withdrawn_is_refused_until_it_is_declared_again(it: Shared) -> None:
    held = it.pool.lease("card:0", owner="a")
    waiting = it.asks("b")
    assert it.pool.withdraw("card:0", "it is too hot").status == "unavailable"
    with pytest.raises(ResourceExhausted, match="not available: it is too hot"):
        waiting.result(5.0)
    held.release()
    with pytest.raises(ResourceExhausted):
        it.pool.lease("card:0", owner="b")
    assert it.pool.declare("card:0").status == "ready"
    it.pool.lease("card:0", owner="b").release()


def test_what_there_is_and_how_it_was_used(it: Shared) -> None:
    first = it.pool.lease("card:0", owner="a")
    waiting = it.asks("b")
    it.clock.advance(4.0)
    first.release()
    second = waiting.result(5.0)
    it.clock.advance(2.0)
    card = it.pool["card:0"]
    assert (card.type, card.status, card.metadata) == ("device", "busy", {"rows": 4})
    assert (card.created, card.last_used) == (1000.0, 1006.0)
    assert 0.0 < card.efficiency == 6.0 / (it.clock() - card.created) <= 1.0
    assert (card.leases, card.used_seconds, card.waited_seconds, card.longest_wait) == (2, 6.0, 4.0, 4.0)
    second.release()
    it.clock.advance(10.0)
    assert it.pool["card:0"].last_used == 1006.0
    names = [resource.id for resource in it.pool]
    assert "cpu" in names and "card:0" in names
    [cpu] = [resource for resource in it.pool.resources() if resource.id == "cpu"]
    assert cpu.metadata["total"] > 0 and cpu.type == "cpu"
    shown = repr(it.pool)
    assert "card:0" in shown and "2 s (longest 4 s)" in shown
    assert it.pool._repr_html_().startswith('<table class="grym-table">')
    assert repr(second) == "<Lease of card:0: b, not held>"


def test_an_unknown_device_is_told_with_the_closest_and_what_to_do(it: Shared) -> None:
    with pytest.raises(ConfigError) as refused:
        it.pool.lease("card:1", owner="a")
    assert "Did you mean 'card:0'?" in refused.value.message
    assert refused.value.hint == "there are card:0, cpu; or grym.current().resources.declare('card:1')"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"timeout": -1}, "timeout"),
        ({"seconds": 0}, "seconds"),
        ({"exclusive": "yes"}, "exclusive"),
        ({"priority": "urgent"}, "priority"),
        ({"prio": 1}, "priority"),
        ({"timeout": 10**400}, "timeout"),
        ({"owner": 7}, "owner"),
        ({"owner": " "}, "owner"),
    ],
)
def test_a_lease_that_makes_no_sense_is_refused(it: Shared, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        it.pool.lease("card:0", **{"owner": "a", **options})
    assert it.pool["card:0"].leases == 0


@pytest.mark.parametrize("id", ["", "  ", 3])
def test_a_device_has_a_name_and_a_kind(it: Shared, id: Any) -> None:
    with pytest.raises(ConfigError, match="id"):
        it.pool.declare(id)
    with pytest.raises(ConfigError, match="type"):
        it.pool.declare("card:1", type=id)


def test_a_pool_ages() -> None:
    with pytest.raises(ConfigError, match="ageing_seconds"):
        ResourcePool(ageing_seconds=0)


def test_cards_by_the_name_that_torch_takes(it: Shared) -> None:
    it.pool.declare(" cuda", type="cuda")
    with it.pool.lease("cuda:0 ", owner="asr"):
        assert repr(it.pool["cuda"]) == "<Resource cuda:0: busy, held by asr, 0 waiting>"


# -- chains and groups: what services ask for ------------------------------------------------------


def test_a_chain_joins_at_once_whoever_waits(it: Shared) -> None:
    place, chain = it.pool.place("card:0"), object()
    outer = Lease(place, "outer", group="a", chain=chain)
    assert place.ask(outer)
    waiting = it.asks("other")
    inner = Lease(place, "inner", group="b", chain=chain)
    assert place.ask(inner)
    outer.release()
    assert not waiting.done()  # the chain still has it
    inner.release()
    waiting.result(5.0).release()


def test_what_a_group_holds_can_be_taken_from_it(it: Shared) -> None:
    place = it.pool.place("card:0")
    first = Lease(place, "call 1", group="instance")
    assert place.ask(first)
    waiting = it.asks("other")
    place.revoke("instance")
    second = waiting.result(5.0)
    first.release()
    assert second.held
    second.release()


def test_who_does_not_wait_after_all_leaves_the_line(it: Shared) -> None:
    place = it.pool.place("card:0")
    held, waits = Lease(place, "holder"), Lease(place, "waiter")
    assert place.ask(held) and not place.ask(waits)
    assert place.in_the_way(waits) == "held by holder"
    waits.release()
    held.release()
    assert not waits.held and place.held == ()


def test_a_chain_does_not_join_who_goes_with_another_only(it: Shared) -> None:
    """Two share the card; what one of them calls wants it for itself, and waits for the other."""
    place, chain = it.pool.place("card:0"), object()
    mine, other = (Lease(place, name, chain=c, exclusive=False) for name, c in (("a", chain), ("b", None)))
    assert place.ask(mine) and place.ask(other)
    inner = Lease(place, "inner", chain=chain)
    assert not place.ask(inner)
    assert place.in_the_way(inner) == "held by b"
    other.release()
    assert inner.held
    inner.release()
    mine.release()


def test_a_lease_that_nobody_remembers_can_be_taken_back(it: Shared) -> None:
    forgotten = it.pool.lease("card:0", owner="me")
    waiting = it.asks("other")
    assert it.pool.revoke("card:0", owner="me").held_by == ("other",)
    assert not forgotten.held
    waiting.result(5.0).release()
    with pytest.raises(ConfigError, match="owner: found ''"):
        it.pool.lease("card:0", owner="")


def test_who_gave_up_has_waited_too(it: Shared) -> None:
    place = it.pool.place("card:0")
    held, waits, later = Lease(place, "a"), Lease(place, "b"), Lease(place, "c")
    assert place.ask(held) and not place.ask(waits) and not place.ask(later)
    it.clock.advance(3.0)
    waits.release()
    waits.release()
    assert place.figures().waited_seconds == place.figures().longest_wait == 3.0
    held.release()
    later.release()


# -- against a plain list --------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 3), st.integers(0, 3), st.booleans()),
        st.tuples(st.just("leave"), st.integers(0, 30)),
        st.tuples(st.just("give up"), st.integers(0, 30)),
        st.tuples(st.just("wait"), st.sampled_from([1.0, 7.0, 15.0])),
    ),
    max_size=60,
)


@given(steps=STEPS)
def test_turns_are_those_of_a_sorted_list(steps: list[tuple[Any, ...]]) -> None:
    """By priority and by how long each has waited; those of one owner together, and those that share."""
    clock = FakeClock()
    place = Place("card", "device", clock, 10.0)
    leases: list[Lease] = []
    held: list[int] = []
    line: list[tuple[float, int]] = []

    def agree(one: int, other: int) -> bool:
        a, b = leases[one], leases[other]
        return not (a.exclusive or b.exclusive) or a.owner == b.owner

    def let_in() -> None:
        while line and all(agree(line[0][1], other) for other in held):
            held.append(heapq.heappop(line)[1])

    for what, *told in steps:
        if what == "ask":
            owner, priority, exclusive = told
            leases.append(Lease(place, owner, priority=priority, exclusive=exclusive))
            me = len(leases) - 1
            if not place.ask(leases[me]):
                heapq.heappush(line, (clock() - 10.0 * priority, me))
            else:
                held.append(me)
                assert all(agree(me, other) for other in held)
                assert not line or (clock() - 10.0 * priority, me) < line[0]
        elif what == "leave" and held:
            leases[held.pop(told[0] % len(held))].release()
        elif what == "give up" and line:
            gone = line.pop(told[0] % len(line))
            heapq.heapify(line)
            leases[gone[1]].release()
        elif what == "wait":
            clock.advance(told[0])
        let_in()
        assert sorted(map(id, place.held)) == sorted(id(leases[one]) for one in held)
        assert place.figures().waiting == len(line)


def test_many_threads_never_have_it_together_and_none_is_forgotten() -> None:
    pool = ResourcePool()
    pool.declare("card:0")
    inside: list[str] = []
    done: list[str] = []

    def work(name: str) -> None:
        for _ in range(50):
            with pool.lease("card:0", owner=name, timeout=60.0):
                inside.append(name)
                assert set(inside) == {name}
                inside.remove(name)
                done.append(name)

    threads = [threading.Thread(target=work, args=(f"s{n % 4}",)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert len(done) == 600 and not inside
    assert pool["card:0"].leases == 600 and pool["card:0"].status == "ready"


@pytest.mark.parametrize("total", ["lots", -1, True, 1.5, float("inf"), [1]])
def test_a_device_whose_memory_is_no_size_is_refused_where_it_is_declared(total: Any) -> None:
    pool = ResourcePool()
    with pytest.raises(ConfigError, match=r"total: found .*, expected a size such as '16GB'"):
        pool.declare("npu:0", total=total)
    pool.declare("npu:1", total=None)
    assert [memory.device for memory in pool.memory().devices if memory.device.startswith("npu")] == []
