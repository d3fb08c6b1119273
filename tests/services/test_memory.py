"""Services and their memory: reserved before the load, measured after it, never taken from one in use."""

from __future__ import annotations

import gc
import os
import random
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grym_nb.clip import Clip
from grym_nb.errors import (
    CallBlocked,
    CallCancelled,
    CallTimeout,
    GrymError,
    LoadFailed,
    ResourceExhausted,
    ServiceError,
)
from grym_nb.hardening import storages
from grym_nb.hardening.eviction import choose, cost_rate, lru
from grym_nb.hardening.holders import raise_the_budget
from grym_nb.hardening.ledger import Ledger
from grym_nb.hardening.peaks import Measure
from grym_nb.hardening.pressure import Pressure
from grym_nb.services import ModelService, ServiceHandle, ServiceRegistry, memory, task
from grym_nb.services.learning import peaks_of
from grym_nb.services.progress import Progress, on_progress
from grym_nb.services.report import report_on
from grym_nb.testing import FakeClock
from tests.hardening.test_prediction import safetensors
from tests.services.crowd import WAIT, Gates, outcome, start, until

KB = 1000


class Weights(ModelService):
    """Holds some weights, and knows whether it may still be asked."""

    def __init__(self, *, kb: int = 10, fail: int = 0) -> None:
        self.kb = kb
        self.fail = fail

    def load(self) -> None:
        self.parts = [np.full(KB // 8, self.kb, np.float64) for _ in range(self.kb)]
        self.there = True

    def unload(self) -> None:
        self.there = False
        for part in self.parts:
            part.fill(-1)

    @task
    def ask(self, do: Callable[[], Any] | None = None) -> Any:
        assert self.there
        answer = do() if do is not None else None
        assert self.there and all(part[0] == self.kb for part in self.parts)
        return answer


class House:
    def __init__(self, registry: ServiceRegistry) -> None:
        self.registry = registry
        self.pool = registry.ports.resources
        self.ledger: Ledger = self.pool.ledger
        self.ledger.policy = lru
        self.gates = Gates()

    def budget(self, kb: int) -> None:
        self.pool.budget({"cpu": kb * KB})

    def make(self, name: str, kb: int = 10, **options: Any) -> ServiceHandle:
        options.setdefault("memory", kb * KB)
        return self.registry.register(name, Weights, config={"kb": kb}, **options)

    def there(self) -> list[str]:
        return [one.owner for one in self.ledger.held]

    def hold(self) -> None:
        self.gates.tell("in")
        self.gates.wait("go")


@pytest.fixture
def house(registry: ServiceRegistry) -> Iterator[House]:
    yield House(registry)


# -- what it takes ---------------------------------------------------------------------------------


def test_what_is_expected_is_what_is_stated_then_what_was_measured(house: House) -> None:
    work = house.make("work", 50, memory="80KB")
    work.load()
    [account] = house.pool.memory().holders
    assert (account.owner, account.device, account.size, account.asked) == ("work", "cpu", 50 * KB, 80 * KB)
    assert account.source == "stated" and account.error == pytest.approx(0.6)
    assert account.state.startswith("idle for")
    work.unload()
    assert house.there() == [] and house.ledger.taken() == 0
    work.load()
    [account] = house.pool.memory().holders
    assert (account.asked, account.source) == (50 * KB, "measured before")


def test_what_takes_more_than_was_stated_is_said(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.make("near", 50, memory="48KB").load()
    assert not caplog.messages
    house.make("far", 50, memory="10KB").load()
    assert caplog.messages == ["far takes 50.0 KB; memory='10.0 KB' was said of it"]


def test_what_is_still_held_after_an_unload_is_said(house: House, caplog: pytest.LogCaptureFixture) -> None:
    kept = []

    def build() -> Any:
        return np.ones(20_000_000, np.uint8)

    class Large(ModelService):
        def load(self) -> None:
            self.shares = self.shared("large", build)
            self.own = build()

        @task
        def size(self) -> int:
            return int(self.own.nbytes)

    one, two = (house.registry.register(name, Large) for name in ("one", "two"))
    one.load()
    two.load()
    one.unload()
    assert not caplog.messages and house.pool.leftovers.left() == (), "what the other has is not left over"
    with two.use() as model:
        kept.append(model.shares)
    del model
    two.unload()
    [said] = caplog.messages
    assert said.startswith("20.0 MB of two is still held by something else: ")
    assert "print(grym.current().resources.memory()) names it" in said, "there is no magic here"
    kept.clear()
    assert house.pool.leftovers.left() == ()


def test_files_that_the_config_names_tell_what_a_model_takes(house: House, tmp_path: Path) -> None:
    class Files(Weights):
        def __init__(self, *, checkpoint: str) -> None:
            super().__init__(kb=1)

    safetensors(tmp_path / "model.safetensors", ("F32", [250, 10]))
    house.registry.register("files", Files, config={"checkpoint": str(tmp_path)}).load()
    [account] = house.pool.memory().holders
    assert (account.asked, account.source) == (10 * KB, "the files of checkpoint")


@pytest.mark.parametrize("said", ["policy", "config"])
def test_what_is_stated_counts_where_the_service_says_it_is(house: House, said: str) -> None:
    class Placed(Weights):
        def __init__(self, *, device: str = "cpu") -> None:
            super().__init__(kb=1)

    house.pool.declare("cuda", total="100KB")  # the first card, by the name that torch takes
    options: dict[str, Any] = {"device": "cuda"} if said == "policy" else {"config": {"device": "cuda"}}
    work = house.registry.register("work", Placed, memory="200KB", **options)
    with pytest.raises(ResourceExhausted, match=r"work needs 200 KB of cuda:0: it can never fit: 100 KB"):
        work.load()


def test_a_model_that_chooses_its_device_itself_is_expected_on_none(house: House) -> None:
    """Its "auto" is the name of no device: it counts as where nothing is said."""

    class Choosing(Weights):
        def __init__(self, *, device: str = "auto") -> None:
            super().__init__(kb=1)

    house.registry.register("work", Choosing, memory="1KB").load()
    [account] = house.pool.memory().holders
    assert (account.device, account.asked, account.source) == ("cpu", KB, "stated")


def test_a_new_config_is_not_judged_by_the_old_one(house: House) -> None:
    work = house.make("work", 50, memory=None)
    work.load()
    work.configure(kb=20)
    work.load()
    [account] = house.pool.memory().holders
    assert (account.size, account.asked, account.source) == (20 * KB, None, "not known yet")


def test_what_a_service_needs_is_not_its_own(house: House) -> None:
    house.make("need", 30)

    class User(Weights):
        needs = ("need",)

        def load(self) -> None:
            super().load()
            self.other = self.needs.need

    house.registry.register("user", User, config={"kb": 5}).load()
    assert {one.owner: one.size for one in house.pool.memory().holders} == {"need": 30 * KB, "user": 5 * KB}


# -- room ------------------------------------------------------------------------------------------


def test_a_load_does_not_wait_for_the_room_of_what_it_needs_itself(house: House) -> None:
    house.budget(100)
    house.make("need", 80, memory=None)  # how large it is nobody knows before it is there

    class User(Weights):
        needs = ("need",)

    user = house.registry.register("user", User, config={"kb": 80}, memory="80KB")
    error = outcome(start(user.ask))
    assert isinstance(error, ResourceExhausted) and "it needs need, which cannot go for it" in error.message
    assert error.hint == raise_the_budget(), "what it needs cannot be unloaded for it"


def test_what_does_not_fit_with_what_it_needs_is_refused_before_any_of_it_is_loaded(house: House) -> None:
    house.budget(100)
    need, victim = house.make("need", 40), house.make("victim", 90)
    victim.ask()

    class User(Weights):
        needs = ("need", "other?")

    user = house.registry.register("user", User, config={"kb": 80}, memory="80KB", retry=3)
    house.make("other", 200)
    with pytest.raises(ResourceExhausted) as told:
        user.ask()
    assert told.value.message == (
        "user needs 80.0 KB of cpu: with need, which it needs, 120 KB; it can never fit: 100 KB is the budget"
    )
    assert told.value.hint == raise_the_budget(), "to unload the other would be in vain"
    assert victim.state == "ready" and need.status().loads == 0
    assert user.state == "registered" and not told.value.can_change
    house.budget(130)
    assert user.ask() == need.ask(), "it can do without the other one"


def test_what_is_shared_or_smaller_than_was_said_does_fit_with_what_it_needs(house: House) -> None:
    """As it did: what is there counts as it is, and what is shared once."""
    house.budget(100)

    class Shares(ModelService):
        def load(self) -> None:
            self.net = self.shared("net", lambda: np.ones(60 * KB, np.uint8))

        @task
        def ask(self) -> int:
            return self.net.nbytes

    class Second(Shares):
        pass

    class Head(Shares):
        needs = ("one", "two", "less")

    house.registry.register("one", Shares)
    house.registry.register("two", Second)
    less = house.make("less", 20, memory=70 * KB)
    less.load()
    less.configure(fail=0)
    head = house.registry.register("head", Head)
    assert head.ask() == 60 * KB
    head.unload()
    assert head.ask() == 60 * KB and less.status().loads == 1


def test_one_without_weights_goes_for_nobody(house: House) -> None:
    class Client(ModelService):
        @task
        def ask(self) -> int:
            return 1

    house.ledger.policy = cost_rate
    house.pool.budget("120KB")
    house.registry.register("client", Client).ask()
    one, two = house.make("one", 50), house.make("two", 90)
    one.ask()
    two.ask()
    assert house.there() == ["client", "two"]


def test_what_others_share_is_not_freed_by_one_of_them(house: House) -> None:
    class Sharing(ModelService):
        def load(self) -> None:
            self.base = self.shared("base", lambda: np.ones(80 * KB, np.uint8))

        @task
        def ask(self) -> int:
            return int(self.base[0])

    house.budget(100)
    crit = house.registry.register("crit", Sharing, priority="critical")
    one = house.registry.register("one", Sharing)
    crit.ask()
    one.ask()
    with pytest.raises(ResourceExhausted):
        house.make("large", 90).load()
    assert one.state == "ready", "its going would free nothing"


def test_an_accepted_call_that_ends_outside_wakes_who_waits_for_the_room(house: House) -> None:
    gates = Gates()

    def slowly(error: GrymError, *args: Any) -> str:
        gates.tell("in")
        gates.wait("go")
        return "instead"

    house.budget(15)
    one = house.make("one", fallback=slowly, breaker=True)
    one.ask()
    assert one.breaker is not None
    one.breaker.open()
    call = one.ask.submit()
    gates.wait("in")
    waiting = start(house.make("two").ask)
    until(lambda: bool(house.ledger.line))
    gates.tell("go")
    assert call.result(WAIT) == "instead"
    assert outcome(waiting) is None


def test_a_size_measured_with_other_code_says_nothing(house: House) -> None:
    house.budget(50)
    work = house.registry.register("work", Weights, config={"kb": 45}, memory="45KB")
    work.ask()

    class Smaller(Weights):
        def load(self) -> None:
            self.parts, self.there = [np.full(20 * KB, self.kb % 256, np.uint8)], True

    work = house.registry.register("work", Smaller, config={"kb": 45}, memory="20KB")
    house.budget(30)
    work.load()
    [account] = house.pool.memory().holders
    assert (account.asked, account.source) == (20 * KB, "stated")


def test_a_policy_that_raises_is_said_and_another_decides(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(candidate: Any, now: float) -> float:
        raise KeyError("what")

    house.budget(15)
    house.ledger.policy = broken
    one, two = house.make("one"), house.make("two")
    one.ask()
    two.ask()
    assert house.there() == ["two"]
    assert "the policy broken raised KeyError: 'what'; cost-rate decides instead" in caplog.messages


def test_a_call_that_can_never_have_its_room_sends_nobody_away(house: House) -> None:
    house.pool.budget("1MB")
    house.make("idle").load()
    house.ledger.make_room("work", "cpu", 2_000_000)
    assert house.there() == ["idle"]


def test_the_idle_go_for_another_and_are_back_with_their_next_call(house: House) -> None:
    house.budget(35)
    one, two, three, four = (house.make(name) for name in ("one", "two", "three", "four"))
    for work in (one, two, three):
        work.ask()
    two.ask()
    four.ask()
    assert one.state == "registered" and house.there() == ["two", "three", "four"]
    [decision] = house.pool.decisions
    assert (decision.owner, decision.what, decision.chosen) == ("four", "evicted", ("one",))
    assert house.registry.ports.metrics.counter("service.evictions", service="one").value == 1
    one.ask()
    assert one.status().loads == 2


@pytest.mark.parametrize("way", ["running", "in use()", "a call of it", "a stream", "critical"])
def test_one_in_use_never_goes(house: House, way: str) -> None:
    house.budget(15)
    one = house.make("one", priority="critical" if way == "critical" else "normal")
    two = house.make("two")
    if way == "running":
        call = one.ask.submit(house.hold)
        house.gates.wait("in")
        waiting = two.ask.submit()
        until(lambda: bool(house.ledger.line))
        assert house.there() == ["one"] and not waiting.done()
        house.gates.tell("go")
        call.result(WAIT)
        waiting.result(WAIT)
        assert house.there() == ["two"]
    elif way == "in use()":
        with one.use(), pytest.raises(CallBlocked, match="would wait for ever"):
            two.ask()
        assert house.pool.decisions[-1].what == "refused" and two.state == "registered"
        two.ask()
    elif way == "a call of it":
        with pytest.raises(CallBlocked, match="would wait for ever") as blocked:
            one.ask(two.ask)
        assert blocked.value.hint.startswith("raise the budget (grym.current().resources.budget(...)), or")
        assert house.pool.decisions[-1].what == "refused" and two.state == "registered"
    elif way == "critical":
        one.ask()
        with pytest.raises(ResourceExhausted, match=r"cannot go \(critical, or reserved by hand") as refused:
            two.ask()
        assert refused.value.cause.startswith("taken: one 10.0 KB")
    else:
        one.load()


def test_near_the_end_nothing_is_loaded_where_the_idle_are_not_enough(house: House) -> None:
    share = [97]
    house.pool.pressure = lambda: Pressure(share[0], 100, "test")
    one, two = house.make("one"), house.make("two")
    with pytest.raises(ResourceExhausted) as refused:
        one.ask()
    assert refused.value.message == "one is not loaded: 97 B of 100 B in use (97%, test)"
    assert refused.value.cause == "of it services have nothing: your own variables have it"
    [decision] = house.pool.decisions
    assert (decision.what, decision.why) == ("refused", refused.value.message), "and nobody was evicted"
    share[0] = 10
    one.ask()
    share[0] = 97
    with pytest.raises(ResourceExhausted, match="also without one"):
        two.ask()
    assert [one.what for one in house.pool.decisions] == ["refused", "evicted", "refused"]


def test_a_refusal_says_how_the_size_is_known(house: House, tmp_path: Path) -> None:
    safetensors(tmp_path / "model.safetensors", ("F32", [12_500]))

    class Named(Weights):
        def __init__(self, *, path: str) -> None:
            super().__init__()

    house.budget(25)
    named = house.registry.register("named", Named, config={"path": str(tmp_path)})
    with pytest.raises(ResourceExhausted) as refused:
        named.ask()
    assert "; its size is known from the files of path" in refused.value.cause
    assert refused.value.hint.endswith('say memory="..." where named is registered, if it takes less')


def test_a_budget_of_a_device_that_is_only_declared_is_shown(house: House) -> None:
    house.pool.declare("npu:0")
    house.pool.budget({"npu:0": "1GB", "cuda:3": "2GB"})
    told = repr(house.pool.memory())
    assert "npu:0" in told and "cuda:3" in told and "1.0 GB" in told


def test_what_can_never_fit_fails_at_once_and_nobody_goes_for_it(house: House) -> None:
    house.budget(25)
    one = house.make("one")
    one.ask()
    with pytest.raises(ResourceExhausted) as refused:
        house.make("large", 30).ask()
    assert refused.value.lines()[0] == "large needs 30.0 KB of cpu: it can never fit: 25.0 KB is the budget"
    assert one.state == "ready" and (refused.value.details["limit"], refused.value.details["use"]) == (
        25 * KB,
        10 * KB,
    )


def test_a_load_that_fails_leaves_nothing_in_the_books(house: House) -> None:
    class Broken(Weights):
        def load(self) -> None:
            super().load()
            raise OSError("no weights")

    broken = house.registry.register("broken", Broken, memory="10KB")
    with pytest.raises(LoadFailed):
        broken.load()
    assert house.there() == []


@pytest.mark.parametrize("mb", [1, 20])
def test_a_failed_load_leaves_no_large_thing_in_the_frames_that_are_kept(house: House, mb: int) -> None:
    made: list[weakref.ref[Any]] = []

    class Broken(ModelService):
        @task
        def ask(self) -> None: ...

        def load(self) -> None:
            self.half = np.ones(mb * 1_000_000, np.uint8)
            made.append(weakref.ref(self.half))
            raise OSError("the second half is missing")

    broken = house.registry.register("broken", Broken)
    with pytest.raises(LoadFailed):
        broken.load()
    gc.collect()
    failures = house.registry.ports.failures
    assert failures.failure is not None and "second half" in failures.failure.message
    if mb == 1:  # for %grym debug
        assert failures.traceback is not None and made[0]() is not None
    else:
        assert failures.traceback is None and made[0]() is None


def test_what_a_failed_load_has_made_is_gone_when_its_memory_is_given_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storages, "_is_traced", lambda frame: False)  # by the coverage of this suite
    made: list[weakref.ref[Any]] = []
    left: list[Any] = []

    class Broken(ModelService):
        @task
        def ask(self) -> None: ...

        def load(self) -> None:
            self.half = np.ones(20_000_000, np.uint8)
            made.append(weakref.ref(self.half))
            raise OSError("the second half is missing")

    def give_back() -> None:
        gc.collect()
        left.append(made[0]() is not None)

    monkeypatch.setattr(memory, "give_back", give_back)
    with pytest.raises(LoadFailed):
        house.registry.register("broken", Broken).load()
    assert left == [False]


def test_what_is_larger_than_anybody_knew_is_said_and_stays(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.budget(30)
    work = house.registry.register("work", Weights, config={"kb": 50})
    work.ask()
    assert caplog.messages == [
        "work takes 50.0 KB: 50.0 KB of the budget of 30.0 KB are taken; what nobody uses goes"
    ]
    decision = house.pool.decisions[-1]
    assert (decision.owner, decision.what, decision.lacking) == ("work", "over", 20 * KB)


def test_who_goes_because_it_idles_stands_in_the_log(driven: ServiceRegistry, clock: FakeClock) -> None:
    house = House(driven)
    work = house.make("work", ttl=5)
    work.ask()
    [account] = house.pool.memory().holders
    assert account.state == "idle for 0 us, goes after 5 s"
    clock.advance(6.0)
    driven.ports.pulse.step()
    until(lambda: work.state == "registered")
    until(lambda: bool(house.pool.decisions))
    decision = house.pool.decisions[-1]
    assert (decision.owner, decision.what, decision.asked) == ("work", "idle", 10 * KB)


def test_what_two_share_is_shown_as_shared(house: House) -> None:
    class Sharing(Weights):
        def load(self) -> None:
            super().load()
            self.base = self.shared("base", lambda: np.ones(30 * KB, np.uint8))

    for name in ("one", "two"):
        house.registry.register(name, Sharing).load()
    assert [(one.size, one.shared) for one in house.pool.memory().holders] == [(40 * KB, 30 * KB)] * 2
    assert house.ledger.taken() == 50 * KB and "40.0 KB (30.0 KB shared)" in repr(house.pool.memory())


def test_an_unload_gives_it_back_also_when_its_hook_raises(house: House) -> None:
    class Broken(Weights):
        def unload(self) -> None:
            raise OSError("not now")

    broken = house.registry.register("broken", Broken)
    broken.load()
    with pytest.raises(GrymError):
        broken.unload()
    assert house.there() == []


def test_an_instance_that_was_let_go_of_stays_in_the_books_until_its_calls_end(house: House) -> None:
    work = house.make("work")
    call = work.ask.submit(house.hold)
    house.gates.wait("in")
    work.unload(timeout=0.01)
    assert house.ledger.taken() == 10 * KB
    house.gates.tell("go")
    call.result(WAIT)
    until(lambda: house.ledger.taken() == 0)


def test_a_smaller_budget_has_the_idle_go_at_once(house: House) -> None:
    one, two = house.make("one"), house.make("two")
    one.ask()
    two.ask()
    house.budget(12)
    assert house.there() == ["two"]
    assert house.pool.budget(None).devices[0].budget is None


def test_a_smaller_budget_has_one_in_use_go_once_it_is_idle(house: House) -> None:
    work = house.make("work")
    call = busy(house, work)
    house.pool.budget("5KB")
    assert work.state == "ready"
    house.gates.tell("go")
    call.result(WAIT)
    until(lambda: work.state == "registered")
    assert house.pool.decisions[-1].chosen == ("work",)


# -- waiting for room ------------------------------------------------------------------------------


def busy(house: House, work: ServiceHandle) -> Any:
    call = work.ask.submit(house.hold)
    house.gates.wait("in")
    return call


def test_who_waits_for_room_says_so_and_the_wait_is_no_part_of_what_the_load_took(
    driven: ServiceRegistry, clock: FakeClock
) -> None:
    house = House(driven)
    house.budget(15)
    one, two = house.make("one"), house.make("two")
    running = busy(house, one)
    waiting = two.ask.submit()
    until(lambda: any(told for *_, told in house.pool.memory().line))
    [line] = house.pool.memory().line
    assert line[:2] == ("two", "10.0 KB of cpu") and "10.0 KB of 15.0 KB taken" in line[2]
    assert line[2].endswith(": one.ask runs") and "in line for it" in repr(house.pool.memory())
    assert any("waits for 10.0 KB of cpu asked for" in told for told in two.status().running)
    clock.advance(60.0)
    house.gates.tell("go")
    running.result(WAIT)
    assert waiting.result(WAIT) is None
    assert two.status().load_seconds == 0.0 and house.pool.memory().line == ()


def test_a_cell_that_waits_for_room_shows_for_whom(house: House) -> None:
    house.budget(15)
    one, two = house.make("one"), house.make("two")
    running = busy(house, one)
    seen: list[str] = []

    def look(progress: Progress) -> None:
        seen.append(progress.told)
        house.gates.tell("go")

    undo = on_progress(look)
    try:
        two.ask()
    finally:
        undo()
    assert "one.ask runs" in seen[0] and seen[0].startswith("waits for 10.0 KB of cpu asked for")
    running.result(WAIT)


@pytest.mark.parametrize("way", ["late", "cancelled"])
def test_who_waits_for_room_can_be_late_or_cancelled_and_the_next_begins_anew(
    driven: ServiceRegistry, clock: FakeClock, way: str
) -> None:
    house = House(driven)
    house.budget(15)
    one, two = house.make("one"), house.make("two")
    running = busy(house, one)
    waiting = two.ask.with_(timeout=5.0 if way == "late" else None).submit()
    until(lambda: bool(house.ledger.line))
    other = two.ask.submit()
    if way == "late":
        clock.advance(6.0)
    else:
        waiting.cancel()
    assert isinstance(outcome(waiting), CallTimeout if way == "late" else CallCancelled)
    until(lambda: len(house.ledger.line) == 1)
    house.gates.tell("go")
    running.result(WAIT)
    assert other.result(WAIT) is None


def test_two_that_would_wait_for_one_anothers_room_are_told(house: House) -> None:
    house.budget(25)
    one, two, three, four = (house.make(name) for name in ("one", "two", "three", "four"))
    both = threading.Barrier(2)

    def through(other: ServiceHandle) -> Any:
        both.wait(WAIT)
        return other.ask()

    calls = [start(one.ask, lambda: through(three)), start(two.ask, lambda: through(four))]
    ended = [outcome(call) for call in calls]
    assert sum(isinstance(error, CallBlocked) for error in ended) >= 1, ended
    for work in (one, two, three, four):
        assert work.ask() is None


class Stubborn(Weights):
    """Its unload hook asks somebody else."""

    asks: Callable[[], Any]

    def unload(self) -> None:
        type(self).asks()
        super().unload()


@pytest.mark.parametrize("way", ["blocking", "submitted", "from another thread"])
def test_an_unload_hook_that_asks_another_service_comes_before_whom_it_goes_for(
    house: House, way: str
) -> None:
    house.budget(20)
    last = house.make("last")

    class Hooked(Stubborn):
        @staticmethod
        def asks() -> None:
            if way == "blocking":
                last.ask()
            else:
                last.ask.submit().result(WAIT)

    house.registry.register("hooked", Hooked, config={"kb": 10}, memory=10 * KB).load()
    big = house.make("big", 15)
    if way == "from another thread":
        assert outcome(start(lambda: big.ask.submit().result(WAIT))) is None
    else:
        outcome(start(big.load))
    assert house.there() == ["big"] and last.status().calls == 1


@pytest.mark.parametrize("way", ["blocking", "submitted"])
def test_an_unload_hook_that_would_need_the_room_of_its_own_model_is_refused(
    house: House, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    house.budget(15)
    last = house.make("last")

    class Hooked(Stubborn):
        @staticmethod
        def asks() -> None:
            last.ask() if way == "blocking" else last.ask.submit().result(WAIT)

    house.registry.register("hooked", Hooked, config={"kb": 10}, memory=10 * KB).load()
    big = house.make("big", 12)
    assert outcome(start(big.load)) is big
    assert house.there() == ["big"]
    assert any("unload of hooked raised CallBlocked" in told for told in caplog.messages)


class Reader(Weights):
    @task
    def items(self) -> Iterator[int]:
        yield from range(3)


@pytest.mark.parametrize("way", ["load", "call", "submit", "by hand"])
def test_who_has_the_room_open_in_the_same_thread_is_told_so(house: House, way: str) -> None:
    """Nobody else could end the stream: to wait for it would be to wait for ever."""
    house.budget(15)
    reader = house.registry.register("reader", Reader, config={"kb": 10}, memory=10 * KB)
    other = house.make("other")
    ways: dict[str, Callable[[], Any]] = {
        "load": other.load,
        "call": other.ask,
        "submit": lambda: other.ask.submit().result(WAIT),
        "by hand": lambda: house.pool.reserve("cpu", 10 * KB, owner="other"),
    }

    def cell() -> None:
        stream = reader.items()
        next(stream)
        with pytest.raises(CallBlocked, match="is open in this thread") as caught:
            ways[way]()
        assert "close() the generator" in caught.value.hint and "10.0 KB of cpu" in caught.value.cause
        stream.close()
        ways[way]()

    assert outcome(start(cell)) is None


@pytest.mark.parametrize("way", ["a task", "use"])
def test_what_is_reserved_by_hand_does_not_wait_for_its_own_call(house: House, way: str) -> None:
    house.budget(15)
    work = house.make("work")

    def reserve() -> Any:
        for timeout in (None, 100.0):
            with pytest.raises(CallBlocked, match="would wait for ever: for what it holds itself") as caught:
                house.pool.reserve("cpu", 10 * KB, owner="by hand", timeout=timeout)
            assert "10.0 KB of cpu asked for" in caught.value.cause
        house.pool.reserve("cpu", 5 * KB, owner="by hand").release()

    def cell() -> None:
        if way == "a task":
            work.ask(reserve)
        else:
            with work.use():
                reserve()

    assert outcome(start(cell)) is None
    assert house.there() == ["work"]


def test_a_call_that_waits_for_room_by_hand_lends_its_place_and_can_be_cancelled(house: House) -> None:
    house.budget(25)
    busy, work = house.make("busy"), house.make("work")
    held = busy.ask.submit(house.hold)
    house.gates.wait("in")
    call = work.ask.submit(lambda: house.pool.reserve("cpu", 10 * KB, owner="by hand"))
    until(lambda: house.ledger.line and house.ledger.line[0].room)
    [told] = house.pool.memory().line
    assert told[0] == "by hand" and "busy.ask runs" in told[2]
    call.cancel()
    until(lambda: not house.ledger.line)
    assert isinstance(outcome(start(call.result)), CallCancelled)
    house.gates.tell("go")
    held.result(WAIT)


def test_weights_that_were_replaced_count_as_what_they_are_now(house: House) -> None:
    house.budget(20)
    work = house.make("work", 16)
    with work.use() as model:
        model.parts = model.parts[:6]
        [account] = house.pool.memory().holders
        assert account.size == 16 * KB, "who uses it may be in the middle of something"
    house.make("other", 12).load()
    assert house.there() == ["work", "other"]
    assert [account.size for account in house.pool.memory().holders] == [12 * KB, 6 * KB]
    work.unload()
    work.load()  # as it was loaded the first time
    assert house.there() == ["work"]


def test_a_load_inside_a_call_passes_one_that_waits_for_that_very_call(house: House) -> None:
    house.budget(35)
    one, large, small = house.make("one"), house.make("large", 30), house.make("small", 20)
    reached, on = house.gates["reached"], house.gates["on"]

    def inside() -> Any:
        reached.set()
        on.wait(WAIT)
        return small.ask()

    call = start(one.ask, inside)
    reached.wait(WAIT)
    waiting = large.ask.submit()
    until(lambda: bool(house.ledger.line))
    on.set()
    assert outcome(call) is None, "it is not kept waiting by what waits for it"
    assert waiting.result(WAIT) is None


# -- when it runs out in the middle ----------------------------------------------------------------


class Greedy(ModelService):
    """Runs out of memory as long as somebody else is there."""

    def __init__(self, *, at: str = "call") -> None:
        self.at = at

    def load(self) -> None:
        if self.at == "load":
            self.want()

    def want(self) -> None:
        CALLS.append(self.at)
        if OTHERS():
            raise MemoryError("Unable to allocate 7 GiB")

    @task
    def compute(self) -> str:
        self.want()
        return "done"

    @task(replay=False)
    def once(self) -> str:
        self.want()
        return "done"


CALLS: list[str] = []
OTHERS: Callable[[], bool] = lambda: True  # noqa: E731


@pytest.fixture
def greedy(house: House, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ServiceHandle]:
    monkeypatch.setattr(f"{__name__}.CALLS", [])

    def make(at: str, until_gone: ServiceHandle | None) -> ServiceHandle:
        there = (lambda: True) if until_gone is None else (lambda: until_gone.state == "ready")
        monkeypatch.setattr(f"{__name__}.OTHERS", there)
        return house.registry.register("greedy", Greedy, config={"at": at})

    return make


@pytest.mark.parametrize("at", ["call", "load"])
def test_what_runs_out_of_memory_is_tried_once_more_when_the_idle_have_gone(
    house: House, greedy: Callable[..., ServiceHandle], at: str
) -> None:
    idle = house.make("idle")
    idle.load()
    work = greedy(at, idle)
    assert work.compute() == "done" and idle.state == "registered"
    assert Counter(CALLS)[at] == (2 if at == "call" else 3)
    [decision] = house.pool.decisions
    assert decision.chosen == ("idle",) and decision.why == "greedy ran out of memory on cpu"
    assert idle.ask() is None


@pytest.mark.parametrize("at", ["call", "load"])
def test_what_runs_out_twice_says_who_holds_what(
    house: House, greedy: Callable[..., ServiceHandle], at: str
) -> None:
    stays = house.make("stays", priority="critical")
    stays.load()
    idle = house.make("idle")
    idle.load()
    work = greedy(at, None)
    with pytest.raises(ResourceExhausted) as refused:
        work.compute()
    assert "ran out of memory, also without idle: Unable to allocate 7 GiB" in refused.value.message
    assert "cpu: stays 10.0 KB" in refused.value.cause
    assert Counter(CALLS) == {at: 2} and stays.state == "ready"


def test_a_task_with_side_effects_is_not_called_again(
    house: House, greedy: Callable[..., ServiceHandle]
) -> None:
    idle = house.make("idle")
    idle.load()
    work = greedy("call", idle)
    with pytest.raises(ResourceExhausted):
        work.once()
    assert CALLS == ["call"] and idle.state == "registered"
    assert work.once() == "done"


# -- many at once ----------------------------------------------------------------------------------


class Faulty(Weights):
    """Loads that fail, tasks that raise or run out of memory, hooks that raise: each now and then."""

    def __init__(self, *, kb: int = 10, name: str = "") -> None:
        super().__init__(kb=kb)
        self.name = name

    def load(self) -> None:
        LOADING[self.name] += 1
        try:
            if LOADING[self.name] > 1:
                TWICE.append(self.name)
            super().load()
            if FAULTS.random() < 0.02:
                raise OSError("no file")
        finally:
            LOADING[self.name] -= 1

    def unload(self) -> None:
        super().unload()
        if FAULTS.random() < 0.02:
            raise OSError("not now")

    @task
    def bad(self) -> None:
        raise ValueError("as asked")

    @task
    def short(self) -> None:
        if FAULTS.random() < 0.5:
            raise MemoryError("as asked")


LOADING: Counter[str] = Counter()
TWICE: list[str] = []
FAULTS = random.Random(11)
EXPECTED = ("OSError", "ValueError", "MemoryError", "as asked", "timed out", "is still", "unload hook")


def test_a_crowd_within_a_budget_never_sees_a_model_that_has_gone(house: House) -> None:
    """12 services, room for 4, 8 threads, faults; a minute with GRYM_FULL=1, else a quarter of one."""
    house.budget(42)
    house.ledger.policy = cost_rate
    house.ledger.decisions = deque(maxlen=100_000)
    LOADING.clear()
    TWICE.clear()
    names = [f"s{n}" for n in range(12)]
    for n, name in enumerate(names):
        kb = (8, 10, 12)[n % 3]
        options: dict[str, Any] = {"memory": f"{kb}KB", "concurrency": 1 + n % 2}
        house.registry.register(name, Faulty, config={"kb": kb, "name": name}, **options)
    ends = time.monotonic() + (60.0 if os.environ.get("GRYM_FULL") == "1" else 15.0)
    over: list[int] = []
    strange: list[BaseException] = []

    def once(rng: random.Random) -> None:
        work, kind = house.registry[rng.choice(names)], rng.random()
        if kind < 0.1:
            work.bad()
        elif kind < 0.15:
            work.short()
        elif kind < 0.3:
            work.ask.submit().result(WAIT)
        elif kind < 0.35:
            work.ask(house.registry[rng.choice(names)].ask)
        elif kind < 0.4:
            work.ask.with_(timeout=0.001)()
        elif kind < 0.45:
            work.unload(timeout=rng.choice([0.0, 5.0]))
        else:
            work.ask()

    def run(seed: int) -> int:
        rng, done = random.Random(seed), 0
        while time.monotonic() < ends:
            try:
                once(rng)
                done += 1
            except CallBlocked:
                pass  # two that would have waited for one another's room
            except GrymError as error:
                if not any(word in str(error) for word in EXPECTED):
                    strange.append(error)
            with house.ledger.lock:
                taken = house.ledger.taken("cpu")
            if taken > 42 * KB:
                over.append(taken)
        return done

    threads = [start(run, seed) for seed in range(8)]
    wait(threads, timeout=90.0)
    done = [outcome(thread) for thread in threads]
    assert all(isinstance(count, int) and count > 5 for count in done), done
    assert not strange, strange[:3]
    assert not TWICE and not over
    until(lambda: not house.ledger.line)  # loads for calls that were late by then
    evicted = [one for one in house.pool.decisions if one.what == "evicted" and one.lacking]
    assert len(evicted) > 50
    for one in evicted:
        again = choose(cost_rate, one.candidates, need=one.lacking, now=one.at) or one.candidates
        assert tuple(gone.name for gone in again) == one.chosen
    for name in names:
        with suppress(ServiceError):  # of its hook
            house.registry.remove(name, timeout=WAIT)
    assert house.ledger.taken() == 0 and not house.ledger.held


def test_the_status_tells_what_a_service_holds(house: House) -> None:
    work = house.make("work", 50, memory="80KB")
    assert work.status().holds == {} and "80.0 KB as stated" in repr(work.status())
    work.load()
    status = work.status()
    assert (status.holds, status.memory, status.parked) == ({"cpu": 50 * KB}, 80 * KB, False)
    work.unload()
    assert "50.0 KB of cpu when it was last there" in repr(work.status())
    assert "50.0 KB of cpu" in repr(status) and "as stated" not in repr(status)


def test_what_is_kept_of_the_last_calls_is_told(house: House) -> None:
    report_on(house.registry, lambda: None)
    work = house.make("work")
    work.load()
    assert "kept of" not in repr(house.pool.memory()) and "kept of" not in repr(work.status())
    work.ask()
    assert "kept of" not in repr(house.pool.memory())  # it was given nothing
    work._record.tape.due.clear()
    work.ask(None)
    held = work._record.tape.size
    assert held > 0 and work.status().taped == held
    assert f"{held} B kept of its last calls" in repr(work.status())
    told = next(table for table in house.pool.memory().more if table.caption.startswith("kept of"))
    assert told.rows == [("work", "2", f"{held} B")]
    work.unload()
    assert work.status().taped == 0 and "kept of" not in repr(house.pool.memory())


# -- what calls take ---------------------------------------------------------------------------------


class Listener(ModelService):
    """Takes as much as it is given sound, beside two megabytes of weights."""

    def load(self) -> None:
        self.weights = np.ones(2_000_000, np.uint8)

    @task
    def listen(self, clip: Clip) -> int:
        return int(np.ones(int(clip.seconds * 10_000_000), np.uint8)[-1])

    @task
    def listen_all(self, clips: list[Clip]) -> int:
        return len(clips)


def silence(seconds: float) -> Clip:
    return Clip(np.zeros(int(1000 * seconds), np.float32), 1000)


@pytest.mark.skipif(Measure("cpu").peak() is None, reason="this system does not let its figures be reset")
def test_what_calls_take_is_learned_and_the_idle_go_before_one_that_needs_more(house: House) -> None:
    work = house.registry.register("work", Listener)
    for seconds in (1.0, 2.0, 4.0, 8.0):
        assert work.listen(silence(seconds)) == 1
    peaks = peaks_of(work._record, "listen")
    expected = peaks.predict(16.0)
    assert expected is not None and 100_000_000 < expected < 260_000_000
    idle = house.make("idle")
    idle.load()
    free = iter([expected - 5 * KB, expected - 5 * KB, 10**12, 10**12])
    look = house.ledger._look
    house.ledger._look = lambda: {"cpu": replace(look()["cpu"], free=next(free, 10**12))}
    work.listen(silence(16.0))
    assert idle.state == "registered" and house.pool.decisions[-1].owner == "work"
    assert work.listen_all([silence(1.0)]) == 1


def test_a_call_makes_room_within_the_budget_too(house: House) -> None:
    house.make("idle").load()
    house.pool.budget("1MB")
    house.ledger.make_room("work", "cpu", 900 * KB)
    assert house.there() == ["idle"]
    house.ledger.make_room("work", "cpu", 995 * KB)
    assert house.there() == []
