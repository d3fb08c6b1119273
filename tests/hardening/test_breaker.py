"""The breaker: its moves, its windows against plain lists, and side by side with another one."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from interlock import CircuitBreaker as Interlock
from interlock import CircuitOpenError, Config, WindowType

from grym_nb.errors import BreakerOpen, ConfigError
from grym_nb.events import BreakerChanged, EventBus
from grym_nb.hardening import BreakerPolicy, CircuitBreaker
from grym_nb.hardening.breaker import _MOVES
from grym_nb.testing import FakeClock


class Broken(Exception):
    """What goes wrong here."""


def fail(error: BaseException | None = None) -> None:
    raise Broken if error is None else error


def answer(value: Any = 1) -> Any:
    return value


class Driven:
    """A breaker on a clock of its own, with what it said."""

    def __init__(self, **options: Any) -> None:
        self.clock = FakeClock()
        self.said: list[BreakerChanged] = []
        bus = EventBus()
        bus.subscribe(self.said.append, BreakerChanged)
        self.breaker = CircuitBreaker("it", clock=self.clock, events=bus, **options)

    def go(self, *, failed: bool = False, took: float = 0.0) -> str:
        """Make a call; return how it ended: ok, failed or refused."""

        def work() -> None:
            self.clock.advance(took)
            if failed:
                raise Broken

        try:
            self.breaker.call(work)
        except Broken:
            return "failed"
        except BreakerOpen:
            return "refused"
        return "ok"

    def moves(self) -> list[str]:
        return [event.after for event in self.said]


def opened(**options: Any) -> Driven:
    it = Driven(**{"min_calls": 2, **options})
    assert [it.go(failed=True) for _ in range(2)] == ["failed", "failed"]
    assert it.breaker.state == "open"
    return it


# -- moves -----------------------------------------------------------------------------------------


def test_it_opens_at_the_rate_and_not_before_it_knows_enough() -> None:
    """Four of four failures say nothing where five calls are wanted; the fifth does, good as it is."""
    it = Driven(min_calls=5, failure_rate=0.5)
    assert [it.go(failed=True) for _ in range(4)] == ["failed"] * 4
    assert it.breaker.state == "closed"
    assert it.go() == "ok"
    assert it.breaker.state == "open"
    assert it.breaker.snapshot().reason == "4 of 5 calls failed"


def test_it_opens_for_slow_calls_that_succeed() -> None:
    """Slow is `slow_seconds` or more; the rate counts them apart from failures."""
    it = Driven(min_calls=4, slow_seconds=2.0, slow_rate=0.5)
    assert [it.go(took=took) for took in (2.0, 1.9, 0.1, 3.0)] == ["ok"] * 4
    assert it.breaker.state == "open"
    assert it.breaker.snapshot().reason == "2 of 4 calls took 2 s or more"


def test_while_open_nothing_is_called_and_the_error_says_until_when() -> None:
    """The refusal has the figures, and what to do."""
    it = opened(open_seconds=30.0)
    it.clock.advance(10.0)
    with pytest.raises(BreakerOpen) as refusal:
        it.breaker.call(pytest.fail, "it was called")
    assert refusal.value.lines() == [
        "it is not called for 20 s: 2 of 2 calls failed",
        "→ call it again then, or close() its breaker once it is mended",
    ]
    assert refusal.value.details == {"state": "open", "retry_after": 20.0}
    assert refusal.value.can_change


def test_a_good_probe_closes_it_and_the_past_is_forgotten() -> None:
    it = opened(open_seconds=30.0)
    it.clock.advance(29.9)
    assert it.go() == "refused"
    it.clock.advance(0.1)
    assert it.go() == "ok"
    assert it.moves() == ["open", "half open", "closed"]
    assert it.go(failed=True) == "failed"  # one of one: it has forgotten the others
    assert it.breaker.state == "closed"


def test_each_failed_round_doubles_the_wait_up_to_the_cap() -> None:
    it = opened(open_seconds=10.0, open_factor=2.0, max_open_seconds=35.0)
    waits = []
    for _ in range(4):
        left = it.breaker.snapshot().retry_after
        assert left is not None
        waits.append(left)
        it.clock.advance(left)
        assert it.go(failed=True) == "failed"
    assert waits == [10.0, 20.0, 35.0, 35.0]
    it.clock.advance(35.0)
    assert it.go() == "ok"
    assert BreakerPolicy(open_factor=100.0, open_seconds=1e200, max_open_seconds=1e300).wait(10**6) == 1e300
    assert [it.go(failed=True) for _ in range(2)] == ["failed", "failed"]
    assert it.breaker.snapshot().retry_after == 10.0  # it closed between: the wait begins anew


def test_probes_are_let_through_so_many_at_a_time_and_judged_together() -> None:
    it = opened(probes=3, probes_at_once=2, failure_rate=0.5, open_seconds=10.0)
    it.clock.advance(10.0)
    first, second = it.breaker.ask(), it.breaker.ask()
    with pytest.raises(BreakerOpen, match="while it is tried out"):
        it.breaker.ask()
    it.breaker.told(first, 0.0)
    third = it.breaker.ask()
    it.breaker.told(second, 0.0, Broken())
    with pytest.raises(BreakerOpen):  # three were let in: no more
        it.breaker.ask()
    assert it.breaker.state == "half open"
    it.breaker.told(third, 0.0)
    assert it.breaker.state == "closed"  # one of three failed


def test_a_probe_that_was_cancelled_gives_its_turn_to_another() -> None:
    it = opened(open_seconds=10.0)
    it.clock.advance(10.0)
    for error in (KeyboardInterrupt(), asyncio.CancelledError(), SystemExit()):
        with pytest.raises(type(error)):
            it.breaker.call(fail, error)
        assert it.breaker.state == "half open"
    assert it.go() == "ok"
    assert it.breaker.state == "closed"


def test_a_probe_that_never_comes_back_does_not_keep_it_half_open() -> None:
    """It counts as failed once it has been away for as long as the breaker was open."""
    it = opened(open_seconds=10.0)
    it.clock.advance(10.0)
    hangs = it.breaker.ask()
    it.clock.advance(9.0)
    assert it.go() == "refused"
    it.clock.advance(1.0)
    assert it.go() == "refused"
    assert it.breaker.snapshot().reason == "a probe is not back after 10 s"
    it.clock.advance(20.0)
    again = it.breaker.ask()
    it.breaker.told(hangs, 30.0, Broken())  # too late to count
    it.breaker.give_back(hangs)
    assert it.go() == "refused" and it.breaker.state == "half open"
    it.breaker.told(again, 0.0)
    assert it.breaker.state == "closed"


def test_an_answer_that_comes_after_a_move_counts_for_nothing() -> None:
    it = Driven(min_calls=2)
    early = it.breaker.ask()
    assert [it.go(failed=True) for _ in range(2)] == ["failed", "failed"]
    it.clock.advance(10.0)
    assert it.go() == "ok"
    it.breaker.told(early, 20.0, Broken())
    assert it.breaker.snapshot().calls == 0


def test_by_hand_it_opens_until_it_is_closed_or_for_some_seconds() -> None:
    it = Driven()
    it.breaker.open("the disk is being changed")
    it.clock.advance(1e9)
    with pytest.raises(BreakerOpen, match="not called until it is closed: the disk is being changed"):
        it.breaker.call(answer)
    assert it.breaker.snapshot().retry_after is None
    it.breaker.close()
    assert it.go() == "ok"
    it.breaker.open(seconds=5.0)
    assert it.go() == "refused"
    it.clock.advance(5.0)
    assert it.go() == "ok"
    assert it.moves() == ["open", "closed", "open", "half open", "closed"]
    with pytest.raises(ConfigError, match="cannot be opened so"):
        it.breaker.open(seconds=-1)


def test_what_was_closed_by_hand_has_forgotten_how_often_it_failed() -> None:
    it = opened(open_seconds=10.0)
    it.clock.advance(10.0)
    assert it.go(failed=True) == "failed"
    it.breaker.close()
    it.breaker.open(seconds=1.0)
    it.clock.advance(1.0)
    assert it.go(failed=True) == "failed"
    assert it.breaker.snapshot().retry_after == 20.0  # one round failed, and not two


def test_to_open_what_is_open_changes_how_long() -> None:
    it = opened(open_seconds=10.0)
    it.breaker.open()
    it.clock.advance(100.0)
    assert it.go() == "refused"
    assert it.moves() == ["open"]  # it was so already
    assert it.breaker.snapshot().opened == 1


def test_every_state_has_its_moves() -> None:
    """From each state there is a way to each other that may come next, and by hand to open and closed."""
    states = {"closed", "open", "half open"}
    assert {before for _, before in _MOVES} == states == set(_MOVES.values())
    assert all(("open", state) in _MOVES and ("close", state) in _MOVES for state in states)


def test_what_counts_is_said_by_type_or_asked_of_a_function() -> None:
    """What does not count is an answer, also of a probe."""
    for counts in (Broken, (OSError, Broken), lambda error: not isinstance(error, ValueError)):
        it = Driven(min_calls=2, counts=counts, open_seconds=10.0)
        for error in (ValueError(), ValueError(), ValueError(), Broken()):
            with pytest.raises(type(error)):
                it.breaker.call(fail, error)
        assert it.breaker.snapshot().failed == 1
        assert it.breaker.state == "closed"
        it.breaker.open(seconds=1.0)
        it.clock.advance(1.0)
        with pytest.raises(ValueError):
            it.breaker.call(fail, ValueError())
        assert it.breaker.state == "closed"


def test_a_function_that_raises_when_asked_lets_the_error_count(caplog: pytest.LogCaptureFixture) -> None:
    it = Driven(min_calls=1, window=1, counts=lambda error: error.no_such_thing)
    assert it.go(failed=True) == "failed"
    assert it.breaker.state == "open"
    assert "raised when it was asked about Broken(), which counts" in caplog.text


def test_in_shadow_nothing_is_refused_and_it_is_known_what_would_have_been() -> None:
    it = Driven(min_calls=2, shadow=True, open_seconds=10.0)
    assert [it.go(failed=True) for _ in range(5)] == ["failed"] * 5
    snapshot = it.breaker.snapshot()
    assert (snapshot.state, snapshot.refused, snapshot.calls) == ("open", 3, 2)
    assert "3 would have been refused" in str(snapshot)
    it.clock.advance(10.0)
    assert it.go() == "ok"
    assert it.breaker.state == "closed"


def test_events_say_what_moved_when_and_why() -> None:
    it = opened()
    assert it.said == [BreakerChanged(1000.0, "it", "closed", "open", "2 of 2 calls failed")]


def test_a_subscriber_may_use_the_breaker() -> None:
    """No lock is held while it is told: it may close at once what has opened."""
    bus, states = EventBus(), []
    breaker = CircuitBreaker("it", window=1, min_calls=1, events=bus)

    def mend(event: BreakerChanged) -> None:
        states.append(breaker.state)
        breaker.close() if event.after == "open" else None

    bus.subscribe(mend, BreakerChanged)
    with pytest.raises(Broken):
        breaker.call(fail)
    assert states == ["open", "closed"]


def test_its_repr_says_how_it_stands() -> None:
    it = opened(open_seconds=30.0)
    assert it.go() == "refused"
    it.clock.advance(5.0)
    told = "open for 5 s; 2 of 2 calls failed; next try in 25 s; 1 refused"
    assert repr(it.breaker) == f"<CircuitBreaker it: {told}>"
    it.clock.advance(25.0)
    assert str(it.breaker.snapshot()).endswith("failed; the next call tries it out; 1 refused")


def test_rates_of_nothing_are_nought() -> None:
    snapshot = CircuitBreaker("it").snapshot()
    assert (snapshot.failure_rate, snapshot.slow_rate) == (0.0, 0.0)
    it = Driven(slow_seconds=1.0)
    it.go(failed=True, took=1.0)
    it.go()
    assert (it.breaker.snapshot().failure_rate, it.breaker.snapshot().slow_rate) == (0.5, 0.5)


# -- its three forms -------------------------------------------------------------------------------


def test_a_block_counts_as_a_call() -> None:
    it = Driven(min_calls=2, window=2)
    with it.breaker as same:
        assert same is it.breaker
    with pytest.raises(Broken), it.breaker:
        raise Broken
    assert it.breaker.state == "open"
    with pytest.raises(BreakerOpen), it.breaker:
        pytest.fail("it is open")


def test_blocks_of_several_breakers_lie_in_one_another_also_crosswise() -> None:
    one, two = Driven(min_calls=5), Driven(min_calls=5)
    with one.breaker, two.breaker, one.breaker:
        one.clock.advance(1.0)
    one.breaker.__enter__()
    two.breaker.__enter__()
    one.breaker.__exit__(None, None, None)
    two.breaker.__exit__(None, Broken(), None)
    assert (one.breaker.snapshot().calls, two.breaker.snapshot().calls) == (3, 2)
    assert two.breaker.snapshot().failed == 1


def test_a_decorated_function_keeps_its_name_and_its_kind() -> None:
    it = Driven(min_calls=2, window=2)

    @it.breaker
    def plain(value: int) -> int:
        """It doubles."""
        return 2 * value

    @it.breaker
    async def later(value: int) -> int:
        await asyncio.sleep(0)
        return 2 * value

    assert (plain(2), plain.__name__, plain.__doc__) == (4, "plain", "It doubles.")
    assert inspect.iscoroutinefunction(later)
    assert not inspect.iscoroutinefunction(plain)
    assert asyncio.run(later(3)) == 6
    it.breaker.open()
    with pytest.raises(BreakerOpen):
        plain(1)
    with pytest.raises(BreakerOpen):
        asyncio.run(later(1))


def test_async_calls_are_counted_once_they_have_ended() -> None:
    it = Driven(min_calls=2, slow_seconds=1.0)

    async def work(failed: bool) -> str:
        it.clock.advance(2.0)
        if failed:
            raise Broken
        return "done"

    async def main() -> None:
        assert await it.breaker.call(work, False) == "done"
        assert it.breaker.snapshot().slow == 1
        with pytest.raises(Broken):
            await it.breaker.call(work, True)
        async with it.breaker:
            pass

    with pytest.raises(BreakerOpen):
        asyncio.run(main())
    assert it.breaker.snapshot().failed == 1


def test_a_coroutine_that_nobody_awaits_takes_no_turn() -> None:
    it = opened(open_seconds=10.0)
    it.clock.advance(10.0)

    async def work() -> None: ...

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # never awaited: that is the point
        it.breaker.call(work)
        gc.collect()
    assert it.go() == "ok"
    assert it.breaker.state == "closed"


def test_a_refused_coroutine_is_closed() -> None:
    """It is refused when it is awaited, and there is no warning that it never was."""
    it = Driven()

    async def work() -> None: ...

    async def main() -> None:
        made = it.breaker.call(work)
        it.breaker.open()
        with pytest.raises(BreakerOpen):
            await made

    asyncio.run(main())


# -- threads ---------------------------------------------------------------------------------------


def test_calls_run_side_by_side() -> None:
    """Eight threads are inside at the same time: each waits there for all the others."""
    breaker = CircuitBreaker("it")
    together = threading.Barrier(8, timeout=20.0)
    threads = [threading.Thread(target=breaker.call, args=(together.wait,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)
    assert breaker.snapshot().calls == 8
    assert breaker.snapshot().failed == 0


def test_probes_are_never_more_than_allowed_whoever_asks() -> None:
    """Sixteen threads ask at once, again and again: so many are inside as may be, and no turn is lost."""
    it = opened(probes=6, probes_at_once=3, open_seconds=10.0, failure_rate=1.0)
    inside: list[int] = []
    most: list[int] = []

    def probe() -> None:
        inside.append(1)
        together = len(inside)
        if it.breaker.state == "half open":
            most.append(together)
        os.sched_yield()  # let another thread go on
        inside.pop()

    def ask() -> None:
        for _ in range(200):
            with suppress(BreakerOpen):
                it.breaker.call(probe)

    it.clock.advance(10.0)
    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert it.breaker.state == "closed"
    assert it.moves() == ["open", "half open", "closed"]
    assert 1 <= max(most) <= 3


# -- windows against plain lists -------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.sampled_from([0.0, 0.0, 0.4, 1.0, 2.5, 7.0, 30.0])),
    max_size=80,
)


@given(
    steps=STEPS, window=st.integers(1, 12), least=st.integers(1, 12), rate=st.sampled_from([0.2, 0.5, 1.0])
)
def test_a_count_window_is_the_end_of_a_list(
    steps: list[tuple[bool, bool, float]], window: int, least: int, rate: float
) -> None:
    least = min(least, window)
    it = Driven(window=window, min_calls=least, failure_rate=rate, slow_seconds=1.0, slow_rate=rate)
    calls: list[tuple[bool, bool]] = []
    for failed, slow, _ in steps:
        it.go(failed=failed, took=1.0 if slow else 0.0)
        calls = [*calls, (failed, slow)][-window:]
        bad = max(sum(call[0] for call in calls), sum(call[1] for call in calls))
        wanted = len(calls) >= least and bad / len(calls) >= rate
        assert (it.breaker.state == "open") == wanted
        snapshot = it.breaker.snapshot()
        assert (snapshot.calls, snapshot.failed, snapshot.slow) == (
            len(calls), sum(call[0] for call in calls), sum(call[1] for call in calls),
        )  # fmt: skip
        if wanted:
            it.breaker.close()
            calls = []


@given(
    steps=STEPS, length=st.integers(10, 20), least=st.integers(1, 6), rate=st.sampled_from([0.2, 0.5, 1.0])
)
def test_a_time_window_is_a_list_of_what_is_recent(
    steps: list[tuple[bool, bool, float]], length: int, least: int, rate: float
) -> None:
    it = Driven(window_seconds=float(length), min_calls=least, failure_rate=rate)
    calls: list[tuple[int, bool]] = []
    for failed, _, pause in steps:
        it.clock.advance(pause)
        it.go(failed=failed)
        calls = [*calls, (int(it.clock()), failed)]
        calls = [call for call in calls if call[0] > int(it.clock()) - length]  # a second at a time
        bad = sum(call[1] for call in calls)
        wanted = len(calls) >= least and bad > 0 and bad / len(calls) >= rate
        assert (it.breaker.state == "open") == wanted
        snapshot = it.breaker.snapshot()
        assert (snapshot.calls, snapshot.failed) == (len(calls), bad)
        if wanted:
            it.breaker.close()
            calls = []
    it.clock.advance(float(length))
    assert it.breaker.snapshot().calls == 0


def test_a_time_window_keeps_few_slots_however_long_it_is_and_bears_a_clock_set_back() -> None:
    now = [1e6]
    breaker = CircuitBreaker("it", window_seconds=3600.0, min_calls=10**9, clock=lambda: now[0])
    for _ in range(10_000):
        now[0] += 1.0
        breaker.call(answer)
    assert 3500 <= breaker.snapshot().calls <= 3600
    assert len(breaker._window._slots) <= 61  # type: ignore[union-attr]
    now[0] -= 100.0
    breaker.call(answer)
    assert breaker.snapshot().calls >= 3500


def test_a_window_full_of_good_calls_notices_the_first_bad_one() -> None:
    it = Driven(window=4, min_calls=4, failure_rate=0.5, slow_seconds=1.0, slow_rate=0.5)
    for _ in range(3):
        assert [it.go() for _ in range(9)] == ["ok"] * 9
        assert [it.go(failed=True), it.go(), it.go(), it.go()] == ["failed", "ok", "ok", "ok"]
        assert it.breaker.snapshot().failed == 1
        assert it.go() == "ok"
        assert it.breaker.snapshot().failed == 0
    assert it.go(took=1.0) == "ok"
    assert it.breaker.snapshot().slow == 1


# -- side by side with another one -----------------------------------------------------------------


class _Clock:
    def __init__(self, clock: FakeClock) -> None:
        self.monotonic = clock


@st.composite
def _policies(draw: Callable[[Any], Any]) -> dict[str, Any]:
    window = draw(st.integers(1, 12))
    timed = draw(st.booleans())
    probes = draw(st.integers(1, 4))
    return {
        "window": window,
        "window_seconds": float(draw(st.integers(10, 30))) if timed else None,
        "min_calls": draw(st.integers(1, window)),
        "failure_rate": draw(st.sampled_from([0.25, 0.5, 1.0])),
        "slow_seconds": 1.0,
        "slow_rate": draw(st.sampled_from([0.25, 0.5, 1.0])),
        "open_seconds": draw(st.sampled_from([5.0, 10.0])),
        "open_factor": draw(st.sampled_from([1.0, 2.0])),
        "max_open_seconds": draw(st.sampled_from([15.0, 300.0])),
        "probes": probes,
        "probes_at_once": draw(st.integers(1, probes)),
    }


def _theirs(policy: dict[str, Any], clock: FakeClock) -> Interlock:
    timed = policy["window_seconds"] is not None
    config = Config(
        failure_rate_threshold=policy["failure_rate"],
        minimum_number_of_calls=policy["min_calls"],
        slow_call_duration_threshold=policy["slow_seconds"],
        slow_call_rate_threshold=policy["slow_rate"],
        permitted_calls_in_half_open=policy["probes"],
        max_concurrent_probes=policy["probes_at_once"],
        wait_duration_in_open=policy["open_seconds"],
        wait_duration_backoff_multiplier=policy["open_factor"],
        wait_duration_in_open_max=policy["max_open_seconds"],
        window_type=WindowType.TIME_BASED if timed else WindowType.COUNT_BASED,
        window_size=int(policy["window_seconds"]) if timed else policy["window"],
    )
    return Interlock(name="it", config=config, clock=_Clock(clock))


OUTCOMES = st.tuples(
    st.sampled_from(["good", "good", "bad", "interrupted"]),
    st.sampled_from([0.0, 0.0, 0.0, 1.5]),
    st.sampled_from([0.0, 0.0, 0.3, 3.0, 6.0, 20.0]),
)


@given(policy=_policies(), steps=st.lists(OUTCOMES, max_size=120))
def test_it_does_what_interlock_does(policy: dict[str, Any], steps: list[tuple[str, float, float]]) -> None:
    """The same calls, one after the other: the same states, refusals and figures, step by step."""
    clock = FakeClock()
    ours, theirs = CircuitBreaker("it", clock=clock, **policy), _theirs(policy, clock)
    raised = {"bad": Broken, "interrupted": KeyboardInterrupt}

    def work(outcome: str) -> None:
        if outcome in raised:
            raise raised[outcome]

    def end(call: Callable[..., Any], outcome: str) -> str:
        try:
            call(work, outcome)
        except (BreakerOpen, CircuitOpenError):
            return "refused"
        except (Broken, KeyboardInterrupt) as error:
            return type(error).__name__
        return "ok"

    for outcome, took, pause in steps:
        clock.advance(pause)
        began: list[Any] = []
        if took:  # the call takes its time: both begin, the clock moves, both end
            for ask in (ours.__enter__, theirs.__enter__):
                try:
                    began.append(ask())
                except (BreakerOpen, CircuitOpenError):
                    began.append(None)
            assert [it is None for it in began] in ([True, True], [False, False])
            clock.advance(took)
            error = raised[outcome]() if outcome in raised else None
            for it in filter(None, began):
                it.__exit__(type(error) if error else None, error, None)
        else:
            assert end(ours.call, outcome) == end(theirs.call, outcome)
        assert ours.state.replace(" ", "_") == theirs.state.value
        if ours.state == "closed":
            mine, other = ours.snapshot(), theirs.snapshot()
            assert (mine.calls, mine.failed, mine.slow) == (
                other.total_calls, other.failed_calls, other.slow_calls,
            )  # fmt: skip


# -- what it refuses to be -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"window": 0}, "window: found 0"),
        ({"window": True}, "window"),
        ({"window_seconds": -1}, "window_seconds"),
        ({"min_calls": 1.5}, "min_calls"),
        ({"failure_rate": 0}, "failure_rate"),
        ({"failure_rate": 1.2}, "failure_rate"),
        ({"slow_seconds": 0}, "slow_seconds"),
        ({"slow_rate": float("nan")}, "slow_rate"),
        ({"open_seconds": float("inf")}, "open_seconds"),
        ({"open_factor": 0.5}, "open_factor"),
        ({"open_factor": 1e9}, "open_factor"),
        ({"probes": 0}, "probes"),
        ({"counts": KeyboardInterrupt}, "counts"),
        ({"counts": ()}, "counts"),
        ({"counts": "all"}, "counts"),
        ({"shadow": 1}, "shadow"),
        ({"min_calls": 21}, "at most the window, 20"),
        ({"max_open_seconds": 5.0}, "at least open_seconds, 10"),
        ({"probes_at_once": 2}, "at most 1 probes"),
        ({"failure_rat": 0.5}, "Did you mean 'failure_rate'"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        CircuitBreaker("it", **options)


def test_all_that_is_wrong_with_a_policy_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as refusal:
        BreakerPolicy(window=0, open_seconds=0, probes="many")  # type: ignore[arg-type]
    assert [problem.path for problem in refusal.value.problems] == ["window", "open_seconds", "probes"]


def test_a_policy_is_given_whole_or_in_parts() -> None:
    policy = BreakerPolicy(window=3, min_calls=3)
    assert CircuitBreaker("it", policy).policy is policy
    with pytest.raises(ConfigError, match="or its values one by one"):
        CircuitBreaker("it", policy, window=4)
