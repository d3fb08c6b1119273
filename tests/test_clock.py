"""Waiting goes through the clock: the fake one's time passes when a test says so."""

from __future__ import annotations

import threading
import time
from math import inf, nan

import pytest

from grym_nb.clock import monotonic, wait
from grym_nb.testing import FakeClock

PATIENCE = 10.0


class Waiter(threading.Thread):
    """Waits through `clock` for a deadline, or for `ready`, and tells the time at which it woke."""

    def __init__(self, clock: FakeClock, deadline: float | None, condition: threading.Condition) -> None:
        super().__init__(daemon=True)
        self.clock, self.deadline, self.condition = clock, deadline, condition
        self.ready = False
        self.woke: float | None = None
        self.start()

    def run(self) -> None:
        with self.condition:
            while not self.ready and (self.deadline is None or self.clock() < self.deadline):
                wait(self.clock, self.condition, self.deadline)
            self.woke = self.clock()

    def result(self) -> float | None:
        self.join(PATIENCE)
        return self.woke


def test_the_clock_is_a_callable_that_stands_still_until_it_is_advanced() -> None:
    clock = FakeClock(5.0)
    assert (clock(), clock(), clock.advance(1.5), clock()) == (5.0, 5.0, 6.5, 6.5)
    assert (FakeClock()(), repr(clock)) == (1000.0, "<FakeClock at 6.5, 0 waiting>")


@pytest.mark.parametrize("seconds", [-1.0, nan])
def test_time_does_not_go_back(seconds: float) -> None:
    clock = FakeClock(5.0)
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(seconds)
    assert clock() == 5.0


def test_a_waiter_wakes_when_its_deadline_comes_and_not_before() -> None:
    clock = FakeClock(0.0)
    waiter = Waiter(clock, 10.0, threading.Condition())
    clock.until_waiting(1)
    clock.advance(9.0)
    assert (clock.waiters, waiter.woke) == (1, None)
    clock.advance(1.0)
    assert (clock.waiters, waiter.result()) == (0, 10.0)


def test_a_deadline_that_has_come_is_not_waited_for() -> None:
    clock, condition = FakeClock(5.0), threading.Condition()
    with condition:
        wait(clock, condition, 5.0)
        wait(clock, condition, -inf)
    assert clock.waiters == 0


@pytest.mark.parametrize("deadline", [None, 10.0, inf])
def test_a_waiter_wakes_when_it_is_notified(deadline: float | None) -> None:
    clock, condition = FakeClock(0.0), threading.Condition()
    waiter = Waiter(clock, deadline, condition)
    clock.until_waiting(1)
    with condition:
        waiter.ready = True
        condition.notify_all()
    assert (waiter.result(), clock.waiters) == (0.0, 0)


def test_several_wait_on_one_condition_and_on_several() -> None:
    clock, shared = FakeClock(0.0), threading.Condition(threading.Lock())
    waiters = [Waiter(clock, deadline, shared) for deadline in (1.0, 2.0, 2.0)]
    waiters.append(Waiter(clock, 1.0, threading.Condition()))
    clock.until_waiting(4)
    clock.advance(1.0)
    assert (waiters[0].result(), waiters[3].result()) == (1.0, 1.0)
    clock.until_waiting(2)
    clock.advance(5.0)
    assert (waiters[1].result(), waiters[2].result()) == (6.0, 6.0)


def test_a_notified_wait_for_nothing_goes_on_waiting_until_the_deadline() -> None:
    clock, condition = FakeClock(0.0), threading.Condition()
    waiter = Waiter(clock, 1.0, condition)
    clock.until_waiting(1)
    with condition:
        condition.notify_all()
    clock.until_waiting(1)
    clock.advance(1.0)
    assert waiter.result() == 1.0


def test_until_waiting_says_how_many_wait_when_it_gives_up() -> None:
    with pytest.raises(TimeoutError, match="0 threads wait through the clock, not 2"):
        FakeClock().until_waiting(2, timeout=0.01)


def test_until_waiting_notices_who_comes_later() -> None:
    clock, asking, found = FakeClock(0.0), threading.Event(), threading.Event()

    def ask() -> None:
        asking.set()
        clock.until_waiting(1, timeout=PATIENCE)
        found.set()

    threading.Thread(target=ask, daemon=True).start()
    assert asking.wait(PATIENCE)
    waiter = Waiter(clock, 1.0, threading.Condition())
    assert found.wait(PATIENCE / 2)
    clock.advance(1.0)
    assert waiter.result() == 1.0


def test_many_threads_wait_and_are_woken_by_many_advances() -> None:
    clock = FakeClock(0.0)
    waiters = [Waiter(clock, float(n % 10 + 1), threading.Condition()) for n in range(40)]
    advancing = [threading.Thread(target=lambda: [clock.advance(0.5) for _ in range(5)]) for _ in range(4)]
    for thread in advancing:
        thread.start()
    for thread in advancing:
        thread.join(PATIENCE)
    assert clock() == 10.0
    assert all((waiter.result() or 0.0) >= n % 10 + 1 for n, waiter in enumerate(waiters))
    assert clock.waiters == 0


def test_on_a_plain_clock_the_wait_ends_by_itself() -> None:
    condition = threading.Condition()
    start = time.monotonic()
    with condition:
        wait(monotonic, condition, start + 0.01)
        wait(monotonic, condition, start - 5.0)
    assert time.monotonic() >= start + 0.01


@pytest.mark.parametrize("deadline", [None, inf])
def test_on_a_plain_clock_a_wait_may_have_no_end_but_a_notification(deadline: float | None) -> None:
    condition, state = threading.Condition(), {"ready": False}

    def notify() -> None:
        with condition:
            state["ready"] = True
            condition.notify_all()

    with condition:
        threading.Thread(target=notify).start()
        while not state["ready"]:
            wait(monotonic, condition, deadline)


def test_a_wait_that_is_cut_short_without_the_lock_takes_it_back() -> None:
    """As Ctrl-C does that comes as `Condition.wait` is about to take its lock again."""

    class Cut(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            self.release()
            raise KeyboardInterrupt

    lock = threading.RLock()
    condition = Cut(lock)
    with pytest.raises(KeyboardInterrupt), lock:
        wait(monotonic, condition, None)
    taken: list[bool] = []
    other = threading.Thread(target=lambda: taken.append(lock.acquire(timeout=PATIENCE)))
    other.start()
    other.join(PATIENCE)
    assert taken == [True]
