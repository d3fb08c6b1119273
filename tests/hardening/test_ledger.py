"""Budgets and reservations: nothing is promised twice, idle ones go, those in use do not, the rest waits."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from grym_nb.devices import Device
from grym_nb.errors import CallTimeout, ResourceExhausted
from grym_nb.hardening.eviction import POLICIES, Candidate, choose, lru
from grym_nb.hardening.ledger import Ledger
from grym_nb.hardening.reservations import TOTAL, Reservation, Shortage
from tests.services.crowd import WAIT, outcome, start, until


class House:
    """A ledger over devices that say what they are told, and tenants that note what becomes of them."""

    def __init__(self, **devices: tuple[int | None, int | None]) -> None:
        self.devices = devices or {"card": (100, None)}
        self.gave_back: list[str] = []
        self.now = 0.0
        self.ledger = Ledger(
            look=self.look, give_back=self.gave_back.append, clock=lambda: self.now, policy=lru
        )
        self.went: list[str] = []

    def look(self) -> Mapping[str, Device]:
        return {name: Device(name, "cuda", total, free, "") for name, (total, free) in self.devices.items()}

    def tenant(self, name: str, **options: Any) -> Tenant:
        return Tenant(self, name, **options)

    def take(self, name: str, size: int, device: str = "card", **options: Any) -> Tenant:
        """Return a tenant that has its reservation; one that would have to wait raises."""
        tenant = self.tenant(name, **options)
        tenant.reservation = self.ledger.reserve(name, {device: size}, wait=self.refuse, tenant=tenant)
        tenant.reservation.measured({(device, id(tenant)): size})
        return tenant

    def asks(self, name: str, size: int, device: str = "card") -> Future[Tenant]:
        tenant = self.tenant(name)

        def reserve() -> Tenant:
            tenant.reservation = self.ledger.reserve(name, {device: size}, wait=self.wait, tenant=tenant)
            return tenant

        return start(reserve)

    def refuse(self, mine: Reservation, short: Shortage) -> None:
        raise CallTimeout(f"{mine.owner} would wait: {short}")

    def wait(self, mine: Reservation, short: Shortage) -> None:
        with self.ledger.lock:
            if not self.ledger.changed(mine):
                self.ledger.condition.wait(WAIT)

    def sizes(self) -> dict[str, int]:
        return {one.owner: sum(one.sizes.values()) for one in self.ledger.held}


class Tenant:
    def __init__(
        self, house: House, name: str, *, used: bool = False, pinned: bool = False, priority: int = 1
    ) -> None:
        self.house = house
        self.name = name
        self.used = used
        self.pinned = pinned
        self.priority = priority
        self.last = house.now
        self.reservation: Reservation | None = None

    def candidate(self, device: str, size: int) -> Candidate | None:
        if self.used or self.pinned:
            return None
        return Candidate(self.name, size, last_used=self.last, priority=self.priority)

    def stays(self) -> bool:
        return self.pinned

    def busy(self) -> Sequence[Any]:
        return ["a call"] if self.used else []

    def holds(self, *, handed_out: bool) -> None:
        return None

    def evict(self, reason: str) -> bool:
        if self.used or self.reservation is None:
            return False
        self.house.went.append(self.name)
        self.reservation.release()
        return True

    def end(self) -> None:
        self.used = False
        self.house.ledger.wake()


def test_what_is_reserved_is_not_promised_again() -> None:
    house = House()
    house.take("a", 60, used=True)
    with pytest.raises(CallTimeout, match="60 B of 100 B taken"):
        house.take("b", 50)
    house.take("c", 40, used=True)
    assert house.sizes() == {"a": 60, "c": 40} and house.ledger.taken("card") == 100


def test_who_is_idle_goes_the_longest_unused_first_and_only_as_many_as_needed() -> None:
    house = House()
    for now, (name, size) in enumerate([("a", 20), ("b", 30), ("c", 30), ("d", 20)]):
        house.now = float(now)
        house.take(name, size)
    house.take("e", 45)
    assert house.went == ["a", "b"] and house.sizes() == {"c": 30, "d": 20, "e": 45}


def test_who_is_in_use_or_is_to_stay_never_goes() -> None:
    house = House()
    house.take("a", 30, used=True)
    house.take("b", 30, pinned=True)
    house.take("c", 30)
    with pytest.raises(CallTimeout):
        house.take("d", 60)  # until a has ended, and c has gone
    assert house.went == ["c"], "those that are idle go already: they are too few in any case"
    with pytest.raises(ResourceExhausted, match=r"cannot go \(critical, or reserved by hand") as refused:
        house.take("e", 80)
    assert refused.value.cause == "taken: a 30 B, b 30 B"


def test_what_is_reserved_by_hand_is_to_be_released_and_no_service_to_be_unloaded_for_it() -> None:
    house = House()

    def never(mine: Reservation, short: Shortage) -> None:
        raise AssertionError

    with house.ledger.reserve("me", {"card": 70}, wait=never), pytest.raises(ResourceExhausted) as refused:
        house.take("a", 40)
    assert refused.value.hint == "release what is reserved by hand"


def test_what_can_never_fit_fails_at_once_and_nobody_goes_for_it() -> None:
    house = House()
    house.take("a", 30)
    with pytest.raises(ResourceExhausted, match="it can never fit: 100 B is all there is"):
        house.take("b", 101)
    assert house.went == [] and not house.ledger.line


def test_those_of_a_lower_priority_go_first() -> None:
    house = House()
    house.take("low", 50, priority=0)
    house.now = 5.0
    house.take("normal", 40)
    house.now = 9.0
    house.take("new", 20)
    assert house.went == ["low"]


def test_who_waits_has_it_once_somebody_ends() -> None:
    house = House()
    used = house.take("a", 80, used=True)
    waiting = house.asks("b", 50)
    until(lambda: bool(house.ledger.line))
    assert not waiting.done()
    used.end()
    assert outcome(waiting).name == "b" and house.went == ["a"]


def test_those_who_wait_for_the_same_memory_stand_in_line() -> None:
    house = House(card=(100, None), other=(100, None))
    used = house.take("a", 100, used=True)
    large = house.asks("large", 90)
    until(lambda: len(house.ledger.line) == 1)
    small = house.asks("small", 10)
    until(lambda: len(house.ledger.line) == 2)
    house.take("elsewhere", 100, device="other", used=True)
    assert used.reservation is not None
    used.reservation.release()
    outcome(large), outcome(small)
    assert [one.owner for one in house.ledger.held] == ["elsewhere", "large", "small"]


def test_a_budget_holds_for_a_device_or_for_all_of_them_together() -> None:
    house = House(card=(100, None), cpu=(100, None))
    house.ledger.budgets = {"card": 50, TOTAL: 80}
    house.take("a", 50, used=True)
    with pytest.raises(ResourceExhausted, match="50 B is the budget"):
        house.take("b", 60)
    with pytest.raises(CallTimeout, match="40 B of total asked for, 50 B of 80 B taken"):
        house.take("c", 40, device="cpu")
    house.take("d", 30, device="cpu")


def test_what_a_neighbour_has_is_not_there() -> None:
    house = House(card=(100, 30))
    with pytest.raises(ResourceExhausted) as refused:
        house.take("a", 40)
    assert "30 B free on the device" in (refused.value.cause or "")
    assert house.gave_back == ["card"], "caches were emptied before anybody was refused"
    house.ledger.reserve("b", {"card": 30}, wait=house.refuse)
    with pytest.raises(ResourceExhausted):
        house.take("c", 10)  # promised to b, which is not there yet


def test_what_was_measured_counts_and_what_two_share_counts_once() -> None:
    house = House()
    one, two = house.take("a", 50), house.take("b", 10)
    assert one.reservation is not None and two.reservation is not None
    one.reservation.measured({("card", 1): 20, ("card", 2): 20})
    two.reservation.measured({("card", 2): 20, ("card", 3): 5})
    assert house.ledger.taken("card") == 45 and house.sizes() == {"a": 40, "b": 25}
    assert repr(one.reservation) == "<Reservation of a: 40 B of card (stated)>"


def test_who_turns_out_larger_than_the_budget_has_others_go() -> None:
    house = House()
    house.ledger.budgets = {"card": 100}
    house.take("a", 40)
    large = house.take("b", 50, used=True)
    assert large.reservation is not None
    large.reservation.measured({("card", 1): 90})
    assert house.went == ["a"]


def test_every_decision_can_be_replayed() -> None:
    house = House()
    rng = random.Random(7)
    for _ in range(200):
        house.now += rng.random()
        name = f"m{rng.randrange(12)}"
        if name not in house.sizes():
            house.take(name, rng.randrange(5, 40), priority=rng.randrange(3))
        assert house.ledger.taken("card") <= 100
    evicted = [one for one in house.ledger.decisions if one.what == "evicted"]
    assert len(evicted) > 20
    for one in evicted:
        policy = POLICIES[one.policy]
        again = choose(policy, one.candidates, need=one.lacking, now=one.at)
        assert tuple(gone.name for gone in again) == one.chosen


def test_a_thousand_reservations_from_many_threads_never_take_more_than_there_is() -> None:
    house = House(card=(100, None))
    over: list[int] = []
    errors: list[BaseException] = []
    tenants = [house.tenant(f"m{n}", used=True) for n in range(12)]

    def run(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(120):
            tenant = Tenant(house, f"{seed}", used=True)
            tenant.reservation = house.ledger.reserve(
                tenant.name, {"card": rng.randrange(1, 60)}, wait=house.wait, tenant=tenant
            )
            with house.ledger.lock:
                taken = house.ledger.taken("card")
            if taken > 100:
                over.append(taken)
            if rng.random() < 0.5:
                tenant.reservation.release()
            else:
                tenant.end()

    def guarded(seed: int) -> None:
        try:
            run(seed)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(n,), daemon=True) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT * 3)
    assert not errors and not over and not any(thread.is_alive() for thread in threads)
    assert tenants and not house.ledger.line


@pytest.mark.parametrize("what", ["released twice", "left in line"])
def test_to_leave_twice_is_to_leave_once(what: str) -> None:
    house = House()
    used = house.take("a", 100, used=True)
    if what == "released twice":
        assert used.reservation is not None
        used.reservation.release()
        used.reservation.release()
        house.take("b", 100, used=True)
    else:
        with pytest.raises(CallTimeout):
            house.take("b", 10)
        assert not house.ledger.line


def test_what_is_measured_anew_while_somebody_looks_who_could_go_harms_nobody() -> None:
    house = House()
    first, second = house.tenant("a"), house.tenant("b")
    for tenant in (first, second):
        house.take(tenant.name, 10)
    held = {one.owner: one for one in house.ledger.held}
    for at, one in enumerate(held.values()):
        one.storages = {("cpu", at): 10}
        one.tenant = first if one.owner == "a" else second
    real = first.candidate

    def candidate(device: str, size: int) -> Candidate | None:
        held["b"].storages = {("cpu", 7): 20}  # as another thread does that looks again
        return real(device, size)

    first.candidate = candidate  # type: ignore[method-assign]
    assert {one.name for one, _ in house.ledger._idle("cpu")} == {"a", "b"}
