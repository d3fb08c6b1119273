"""Workers linger, and a pulse calls what is due, on a clock that the tests drive."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_nb.errors import ConfigError, StateError
from grym_nb.pulse import Pulse, Workers, WrittenOff
from grym_nb.testing import FakeClock

PATIENCE = 10.0
colour: ContextVar[str] = ContextVar("colour", default="none")


def until(reached: Callable[[], bool]) -> None:
    """Yield to the other threads until `reached`, which they bring about by themselves."""
    give_up = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < give_up, "it never came to that"
        os.sched_yield()


class Gated:
    """A job that tells where it runs and ends when it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self.thread: threading.Thread | None = None

    def __call__(self) -> None:
        self.thread = threading.current_thread()
        self.begun.set()
        assert self.go.wait(PATIENCE)

    @property
    def where(self) -> str:
        assert self.begun.wait(PATIENCE)
        assert self.thread is not None
        return self.thread.name

    def end(self) -> None:
        self.go.set()


def idle(workers: Workers) -> int:
    return len(workers._idle)


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers("w", linger=3600.0)
    yield workers
    assert workers.close(PATIENCE) == ()


@pytest.fixture
def single() -> Iterator[Workers]:
    workers = Workers("one", linger=3600.0, most=1)
    yield workers
    assert workers.close(PATIENCE) == ()


class TestWorkers:
    def test_no_thread_is_started_before_the_first_job(self) -> None:
        assert (Workers("w", linger=1.0).threads, repr(Workers("w", linger=1.0))) == (
            0,
            "<Workers 'w': 0 busy, 0 idle, 0 waiting>",
        )

    def test_a_job_runs_on_a_named_daemon_thread(self, workers: Workers) -> None:
        job = Gated()
        workers.run(job)
        assert (job.where, job.thread and job.thread.daemon, workers.threads) == ("w-1", True, 1)
        job.end()

    def test_without_a_limit_each_busy_thread_brings_another(self, workers: Workers) -> None:
        jobs = [Gated() for _ in range(3)]
        for job in jobs:
            workers.run(job)
        assert [job.where for job in jobs] == ["w-1", "w-2", "w-3"]
        for job in jobs:
            job.end()

    def test_the_thread_that_went_idle_last_gets_the_next_job(self, workers: Workers) -> None:
        first, second, third = Gated(), Gated(), Gated()
        workers.run(first)
        workers.run(second)
        assert second.where == "w-2"
        second.end()
        until(lambda: idle(workers) == 1)
        first.end()
        until(lambda: idle(workers) == 2)
        workers.run(third)
        assert (third.where, workers.threads) == ("w-1", 2)
        third.end()

    def test_a_thread_ends_when_it_was_idle_for_as_long_as_it_lingers(self) -> None:
        workers = Workers("w", linger=0.01)
        job = Gated()
        workers.run(job)
        assert job.where == "w-1"
        job.end()
        assert job.thread is not None
        job.thread.join(PATIENCE)
        assert (job.thread.is_alive(), workers.threads) == (False, 0)
        again = Gated()
        workers.run(again)
        assert again.where == "w-2"
        again.end()
        workers.close(PATIENCE)

    @pytest.mark.parametrize("linger", [0.0, 1e-6, 1e-4])
    def test_no_job_is_lost_between_lingering_out_and_being_handed_one(self, linger: float) -> None:
        workers = Workers("w", linger=linger, most=3)
        done: list[int] = []
        last = threading.Semaphore(0)

        def submit(start: int) -> None:
            for n in range(start, start + 500):
                workers.run(lambda n=n: done.append(n))  # type: ignore[misc]
                if n % 7 == 0:
                    os.sched_yield()
            workers.run(last.release)

        threads = [threading.Thread(target=submit, args=(k * 500,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert all(last.acquire(timeout=PATIENCE) for _ in threads)
        assert workers.close(PATIENCE) == ()
        assert sorted(done) == list(range(2000))

    def test_further_jobs_wait_in_the_order_they_came(self, single: Workers) -> None:
        first, order = Gated(), list[int]()
        single.run(first)
        assert first.begun.wait(PATIENCE)
        for n in range(5):
            single.run(lambda n=n: order.append(n))  # type: ignore[misc]
        assert (single.waiting, single.threads, order) == (5, 1, [])
        first.end()
        until(lambda: idle(single) == 1)
        assert (order, single.waiting, single.threads) == ([0, 1, 2, 3, 4], 0, 1)

    @pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
    def test_a_job_that_raises_is_logged_and_its_thread_goes_on(
        self, single: Workers, caplog: pytest.LogCaptureFixture, error: BaseException
    ) -> None:
        def fail() -> None:
            raise error

        after = Gated()
        single.run(fail)
        single.run(after)
        assert after.where == "one-1"
        assert [(r.name, r.exc_info and r.exc_info[1]) for r in caplog.records] == [("grym_nb.pulse", error)]
        after.end()

    def test_an_idle_thread_keeps_nothing_of_its_last_job_alive(self, single: Workers) -> None:
        class Job:
            def __call__(self) -> None:
                raise ValueError("even when it raised")

        job = Job()
        gone = weakref.ref(job)
        logging.disable()
        try:
            single.run(job)
            del job
            until(lambda: idle(single) == 1)
        finally:
            logging.disable(logging.NOTSET)
        assert gone() is None

    def test_what_a_job_leaves_in_its_context_is_not_seen_by_the_next(self, single: Workers) -> None:
        seen: list[str] = []
        single.run(lambda: (colour.set("red"), seen.append(colour.get())))
        single.run(lambda: seen.append(colour.get()))
        until(lambda: len(seen) == 2)
        assert seen == ["red", "none"]

    def test_a_job_sees_nothing_of_the_context_it_was_submitted_from(self, single: Workers) -> None:
        token = colour.set("blue")
        try:
            seen: list[str] = []
            single.run(lambda: seen.append(colour.get()))
            until(lambda: bool(seen))
        finally:
            colour.reset(token)
        assert seen == ["none"]

    def test_close_ends_idle_threads_at_once_and_names_those_that_still_run(self) -> None:
        workers = Workers("w", linger=3600.0)
        quick, stuck = Gated(), Gated()
        workers.run(stuck)
        workers.run(quick)
        assert (stuck.where, quick.where) == ("w-1", "w-2")
        quick.end()
        until(lambda: idle(workers) == 1)
        assert quick.thread is not None and stuck.thread is not None
        assert workers.close(0.0) == ("w-1",)
        assert not quick.thread.is_alive()
        assert workers.close(0.0) == ("w-1",)
        stuck.end()
        assert (workers.close(PATIENCE), workers.threads) == ((), 0)
        assert not stuck.thread.is_alive()

    def test_after_close_no_job_is_accepted_but_those_that_were_are_run(self) -> None:
        workers = Workers("w", linger=1.0, most=1)
        first, done = Gated(), threading.Event()
        workers.run(first)
        workers.run(done.set)
        assert workers.close(0.0) == ("w-1",)
        with pytest.raises(StateError, match="the w workers are closed"):
            workers.run(done.set)
        first.end()
        assert done.wait(PATIENCE)
        assert workers.close(PATIENCE) == ()

    def test_a_job_may_close_its_own_workers(self) -> None:
        workers = Workers("w", linger=1.0)
        left: list[tuple[str, ...]] = []
        workers.run(lambda: left.append(workers.close(PATIENCE)))
        until(lambda: bool(left))
        assert (left, workers.close(PATIENCE)) == ([()], ())

    def test_a_written_off_thread_is_replaced_and_ends_when_there_are_enough(self, single: Workers) -> None:
        stuck, other = Gated(), Gated()
        single.run(stuck)
        single.run(other)
        assert stuck.where == "one-1"
        assert stuck.thread is not None
        single.write_off(stuck.thread)
        assert (other.where, single.threads) == ("one-2", 2)
        stuck.end()
        stuck.thread.join(PATIENCE)
        assert (stuck.thread.is_alive(), single.threads) == (False, 1)
        other.end()

    def test_a_written_off_thread_that_was_not_replaced_counts_again(self, single: Workers) -> None:
        late, other, third = Gated(), Gated(), Gated()
        single.run(late)
        assert late.where == "one-1"
        assert late.thread is not None
        single.write_off(late.thread)
        late.end()
        until(lambda: idle(single) == 1)
        single.run(other)
        single.run(third)
        assert (other.where, single.threads, single.waiting) == ("one-1", 1, 1)
        other.end()
        third.end()

    def test_close_does_not_wait_for_a_thread_that_is_written_off(self) -> None:
        workers = Workers("w", linger=1.0)
        stuck = Gated()
        workers.run(stuck)
        assert stuck.begun.wait(PATIENCE) and stuck.thread is not None
        workers.write_off(stuck.thread)
        assert workers.close(3600.0) == ("w-1",)
        stuck.end()
        stuck.thread.join(PATIENCE)

    def test_a_thread_that_cannot_start_is_told_and_leaves_no_trace(
        self, single: Workers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start"):
                single.run(lambda: None)
        assert single.threads == 0
        job = Gated()
        single.run(job)
        assert job.begun.wait(PATIENCE)
        job.end()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(0.0)


@pytest.fixture
def pulse(clock: FakeClock) -> Iterator[Pulse]:
    pulse = Pulse(clock)
    yield pulse
    assert pulse.close(PATIENCE) == ()


def threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]


class TestSchedule:
    def test_nothing_runs_and_nothing_is_due_without_entries(self, pulse: Pulse) -> None:
        assert (pulse.step(), threads("grym-pulse"), repr(pulse)) == (
            None,
            [],
            "<Pulse: 0 scheduled, 0 at work>",
        )

    def test_every_calls_first_when_its_seconds_have_passed_and_then_again(
        self, pulse: Pulse, clock: FakeClock
    ) -> None:
        calls: list[float] = []
        pulse.every(10.0, lambda: calls.append(clock()), name="tick")
        dues = []
        for _ in range(4):
            clock.advance(5.0)
            dues.append(pulse.step())
        assert (calls, dues) == ([10.0, 20.0], [10.0, 20.0, 20.0, 30.0])

    def test_what_every_missed_is_left_out(self, pulse: Pulse, clock: FakeClock) -> None:
        calls: list[float] = []
        pulse.every(1.0, lambda: calls.append(clock()), name="tick")
        clock.advance(7.5)
        assert (pulse.step(), calls) == (8.5, [7.5])

    def test_after_and_at_call_once(self, pulse: Pulse, clock: FakeClock) -> None:
        calls: list[str] = []
        after = pulse.after(2.0, lambda: calls.append("after"), name="a")
        at = pulse.at(1.0, lambda: calls.append("at"), name="b")
        assert (repr(after), repr(at)) == ("<Entry 'a': due at 2>", "<Entry 'b': due at 1>")
        clock.advance(1.0)
        assert (pulse.step(), calls, after.active, at.active) == (2.0, ["at"], True, False)
        clock.advance(9.0)
        assert (pulse.step(), calls, repr(after)) == (None, ["at", "after"], "<Entry 'a': over>")

    def test_what_is_due_in_the_past_is_due_now(self, pulse: Pulse, clock: FakeClock) -> None:
        called = threading.Event()
        entry = pulse.at(-5.0, called.set, name="late")
        assert entry.due == 0.0
        assert called.wait(PATIENCE)

    def test_entries_of_one_time_are_called_in_the_order_they_were_scheduled(
        self, pulse: Pulse, clock: FakeClock
    ) -> None:
        calls: list[str] = []
        for name in "abc":
            pulse.after(1.0, lambda name=name: calls.append(name), name=name)  # type: ignore[misc]
        clock.advance(1.0)
        pulse.step()
        assert calls == ["a", "b", "c"]

    def test_a_cancelled_entry_is_never_called_and_cancelling_again_changes_nothing(
        self, pulse: Pulse, clock: FakeClock
    ) -> None:
        calls: list[str] = []
        entry = pulse.every(1.0, lambda: calls.append("no"), name="no")
        pulse.after(3.0, lambda: calls.append("yes"), name="yes")
        entry.cancel()
        entry.cancel()
        clock.advance(3.0)
        assert (pulse.step(), calls, entry.active) == (None, ["yes"], False)
        entry.cancel()

    def test_an_entry_may_cancel_itself_and_others_that_are_due(self, pulse: Pulse, clock: FakeClock) -> None:
        calls: list[str] = []

        def first() -> None:
            calls.append("first")
            mine.cancel()
            other.cancel()

        mine = pulse.every(1.0, first, name="first")
        other = pulse.every(1.0, lambda: calls.append("other"), name="other")
        clock.advance(1.0)
        assert (pulse.step(), calls) == (None, ["first"])

    def test_cancelling_lets_go_of_the_function(self, pulse: Pulse) -> None:
        class Fn:
            def __call__(self) -> None: ...

        fn = Fn()
        gone = weakref.ref(fn)
        entry = pulse.after(100.0, fn, name="x")
        del fn
        entry.cancel()
        assert gone() is None

    def test_an_entry_that_raises_is_logged_and_called_again(
        self, pulse: Pulse, clock: FakeClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        calls: list[float] = []

        def fail() -> None:
            calls.append(clock())
            raise ValueError("no")

        pulse.every(1.0, fail, name="flaky")
        for _ in range(3):
            clock.advance(1.0)
            pulse.step()
        assert calls == [1.0, 2.0, 3.0]
        assert [r.getMessage() for r in caplog.records] == ["flaky raised on the pulse"] * 3

    def test_ctrl_c_in_a_step_goes_through_and_what_is_periodic_stays(self, clock: FakeClock) -> None:
        pulse = Pulse(clock)
        pulse._thread = threading.main_thread()  # no thread of its own: the step below makes the call

        def interrupted() -> None:
            raise KeyboardInterrupt

        pulse.every(1.0, interrupted, name="x")
        clock.advance(1.0)
        with pytest.raises(KeyboardInterrupt):
            pulse.step()
        assert repr(pulse) == "<Pulse: 1 scheduled, 0 at work>"
        assert pulse.close() == ()

    def test_what_is_scheduled_during_a_step_waits_for_the_next(self, pulse: Pulse, clock: FakeClock) -> None:
        pulse._thread = threading.main_thread()  # only the steps below
        calls: list[int] = []

        def again() -> None:
            calls.append(len(calls))
            pulse.after(0.0, again, name="again")

        pulse.after(0.0, again, name="again")
        assert (pulse.step(), calls) == (0.0, [0])
        assert (pulse.step(), calls) == (0.0, [0, 1])
        pulse._thread = None

    def test_an_entry_may_itself_step(self, pulse: Pulse, clock: FakeClock) -> None:
        calls: list[str] = []
        pulse.after(1.0, lambda: (pulse.step(), calls.append("outer")), name="outer")
        pulse.after(1.0, lambda: calls.append("inner"), name="inner")
        clock.advance(1.0)
        pulse.step()
        assert calls == ["inner", "outer"]

    @pytest.mark.parametrize("seconds", [0.0, -1.0, inf, nan])
    def test_every_refuses_what_is_no_period(self, pulse: Pulse, seconds: float) -> None:
        with pytest.raises(ConfigError, match="x cannot be scheduled"):
            pulse.every(seconds, print, name="x")

    def test_a_time_that_is_none_is_refused(self, pulse: Pulse) -> None:
        with pytest.raises(ConfigError, match="found nan"):
            pulse.after(nan, print, name="x")

    def test_scheduling_and_cancelling_does_not_grow_the_heap(self, pulse: Pulse) -> None:
        kept = [pulse.after(50.0, print, name="kept") for _ in range(10)]
        for _ in range(5000):
            pulse.after(60.0, print, name="x").cancel()
        assert len(pulse._heap) < 200
        assert repr(pulse) == "<Pulse: 10 scheduled, 0 at work>"
        assert all(entry.active for entry in kept)

    def test_calls_of_more_than_five_milliseconds_are_counted_by_name(
        self, pulse: Pulse, clock: FakeClock
    ) -> None:
        pulse.every(1.0, lambda: clock.advance(0.006), name="slow")
        pulse.every(1.0, lambda: clock.advance(0.004), name="quick")
        for _ in range(2):
            clock.advance(1.0)
            pulse.step()
        assert pulse.slow == {"slow": 2}

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 20),  # first due, or the period
                st.booleans(),  # periodic
                st.none() | st.integers(0, 30),  # when it is cancelled
            ),
            max_size=8,
        ),
        st.lists(st.integers(0, 7), max_size=12),
    )
    def test_entries_are_called_when_a_plain_model_says_so(
        self, entries: list[tuple[int, bool, int | None]], steps: list[int]
    ) -> None:
        clock = FakeClock(0.0)
        pulse = Pulse(clock)
        calls: list[tuple[float, int]] = []
        pulse._thread = threading.main_thread()  # only the steps below
        made = []
        for n, (seconds, periodic, _) in enumerate(entries):
            schedule = pulse.every if periodic and seconds else pulse.after
            made.append(schedule(seconds, lambda n=n: calls.append((clock(), n)), name=str(n)))  # type: ignore[misc]
        expected: list[tuple[float, int]] = []
        dues: dict[int, float] = {n: seconds for n, (seconds, _, _) in enumerate(entries)}
        for seconds in steps:
            now = clock.advance(seconds)
            for n, (_, _, cancelled) in enumerate(entries):
                if cancelled is not None and cancelled <= now:
                    made[n].cancel()
                    dues.pop(n, None)
            due_now = {n for n in dues if dues[n] <= now}
            due = pulse.step()
            assert sorted(calls[len(expected) :]) == sorted((now, n) for n in due_now)
            expected = list(calls)
            for n in due_now:
                period, periodic, _ = entries[n]
                if not (periodic and period):
                    del dues[n]
                else:
                    following = dues[n] + period
                    dues[n] = following if following > now else now + period
            assert due == min(dues.values(), default=None)
        pulse._thread = None
        pulse.close()


class TestThread:
    def test_the_thread_calls_what_the_clock_reaches(self, pulse: Pulse, clock: FakeClock) -> None:
        where: list[str] = []
        called = threading.Event()
        pulse.after(3.0, lambda: (where.append(threading.current_thread().name), called.set()), name="x")
        clock.until_waiting(1)
        assert (clock.advance(2.9), where) == (2.9, [])
        clock.advance(0.1)
        assert called.wait(PATIENCE)
        assert where == ["grym-pulse"]

    def test_an_entry_that_is_due_sooner_wakes_it(self, pulse: Pulse, clock: FakeClock) -> None:
        called = threading.Event()
        pulse.after(100.0, print, name="later")
        clock.until_waiting(1)
        pulse.after(1.0, called.set, name="sooner")
        clock.advance(1.0)
        assert called.wait(PATIENCE)

    def test_an_entry_that_is_due_later_does_not(
        self, pulse: Pulse, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        woken: list[str] = []
        called = threading.Event()
        pulse.after(10.0, called.set, name="first")
        clock.until_waiting(1)
        with monkeypatch.context() as patch:
            patch.setattr(pulse._wake, "notify", lambda: woken.append("woken"))
            for n in range(50):
                pulse.after(10.0 + n, print, name="later").cancel()
            assert woken == []
            pulse.after(9.0, print, name="sooner").cancel()
            assert woken == ["woken"]
        clock.advance(10.0)
        assert called.wait(PATIENCE)

    def test_its_linger_counts_from_the_last_time_something_was_scheduled(
        self, pulse: Pulse, clock: FakeClock
    ) -> None:
        calls: list[float] = []
        pulse.after(0.0, lambda: calls.append(clock()), name="x")
        until(lambda: pulse._asleep_until == 5.0)
        thread = pulse._thread
        pulse.after(4.0, lambda: calls.append(clock()), name="y")
        clock.advance(4.0)
        until(lambda: pulse._asleep_until == 9.0)
        clock.until_waiting(1)
        clock.advance(5.0)
        assert thread is not None
        thread.join(PATIENCE)
        assert (calls, thread.is_alive()) == ([0.0, 4.0], False)

    def test_it_ends_when_nothing_was_scheduled_for_a_while_and_comes_back(
        self, pulse: Pulse, clock: FakeClock
    ) -> None:
        seen: list[threading.Thread] = []
        called = threading.Event()

        def note() -> None:
            seen.append(threading.current_thread())
            called.set()

        pulse.after(0.0, note, name="x")
        assert called.wait(PATIENCE)
        clock.until_waiting(1)
        clock.advance(4.9)
        assert seen[0].is_alive()
        clock.advance(0.1)
        seen[0].join(PATIENCE)
        assert not seen[0].is_alive()
        called.clear()
        pulse.after(0.0, note, name="x")
        assert called.wait(PATIENCE)
        assert seen[1] is not seen[0]

    def test_it_does_not_outlive_a_far_entry_that_was_cancelled(self, pulse: Pulse, clock: FakeClock) -> None:
        entry = pulse.after(3600.0, print, name="far")
        clock.until_waiting(1)
        thread = pulse._thread
        assert thread is not None
        entry.cancel()
        until(lambda: pulse._asleep_until < 3600.0)
        clock.until_waiting(1)
        clock.advance(5.0)
        thread.join(PATIENCE)
        assert not thread.is_alive()

    def test_a_step_waits_for_one_that_is_under_way(self, pulse: Pulse, clock: FakeClock) -> None:
        gate, order = Gated(), list[str]()
        pulse.after(0.0, lambda: (gate(), order.append("called")), name="x")
        assert gate.where == "grym-pulse"
        stepping = threading.Thread(target=lambda: (pulse.step(), order.append("stepped")))
        stepping.start()
        gate.end()
        stepping.join(PATIENCE)
        assert order == ["called", "stepped"]

    def test_close_is_final_and_may_be_repeated(self, clock: FakeClock) -> None:
        pulse = Pulse(clock)
        entry = pulse.every(1.0, print, name="x")
        clock.until_waiting(1)
        thread = pulse._thread
        assert (pulse.close(PATIENCE), pulse.close(), entry.active) == ((), (), False)
        assert thread is not None and not thread.is_alive()
        assert (pulse.step(), repr(pulse)) == (None, "<Pulse: closed, 0 at work>")
        with pytest.raises(StateError, match="x cannot be scheduled: the pulse is closed"):
            pulse.after(1.0, print, name="x")
        with pytest.raises(StateError):
            pulse.work(print, name="x")

    def test_close_names_what_still_runs(self, clock: FakeClock) -> None:
        pulse = Pulse(clock)
        called, worked = Gated(), Gated()
        pulse.every(1.0, called, name="tick")
        clock.until_waiting(1)
        clock.advance(1.0)
        pulse.work(worked, name="ping a")
        assert called.begun.wait(PATIENCE) and worked.begun.wait(PATIENCE)
        assert pulse.close(0.0) == ("tick", "ping a")
        called.end()
        worked.end()
        assert pulse.close(PATIENCE) == ()

    def test_an_entry_may_close_its_own_pulse(self, clock: FakeClock) -> None:
        pulse = Pulse(clock)
        left: list[tuple[str, ...]] = []
        pulse.every(1.0, lambda: left.append(pulse.close(PATIENCE)), name="last")
        clock.advance(1.0)
        until(lambda: bool(left))
        assert left == [()]

    def test_the_thread_of_a_forgotten_pulse_ends_with_its_next_due_time(self, clock: FakeClock) -> None:
        pulse = Pulse(clock)
        pulse.every(10.0, print, name="x")
        clock.until_waiting(1)
        thread, gone = pulse._thread, weakref.ref(pulse)
        del pulse
        gc.collect()
        assert gone() is None
        clock.advance(10.0)
        assert thread is not None
        thread.join(PATIENCE)
        assert not thread.is_alive()

    def test_on_the_real_clock_it_wakes_by_itself_and_infinity_is_a_time(self) -> None:
        pulse = Pulse()
        called = threading.Event()
        pulse.at(inf, print, name="never")
        pulse.after(0.001, called.set, name="soon")
        assert called.wait(PATIENCE)
        assert pulse.close(PATIENCE) == ()

    def test_many_threads_may_schedule_and_cancel(self, clock: FakeClock) -> None:
        pulse = Pulse(clock)
        calls: list[int] = []

        def churn(start: int) -> None:
            for n in range(start, start + 200):
                entry = pulse.after(n % 5, lambda n=n: calls.append(n), name="x")  # type: ignore[misc]
                if n % 2:
                    entry.cancel()
                if n % 50 == 0:
                    clock.advance(0.0)

        threads = [threading.Thread(target=churn, args=(k * 200,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        clock.advance(5.0)
        pulse.step()
        assert sorted(n for n in calls if n % 2 == 0) == list(range(0, 800, 2))
        assert len(calls) == len(set(calls))
        assert pulse.close(PATIENCE) == ()


class TestWork:
    def test_work_runs_on_a_thread_of_its_own_four_at_a_time(self, pulse: Pulse) -> None:
        jobs = [Gated() for _ in range(5)]
        for job in jobs:
            pulse.work(job, name="job")
        assert [job.where for job in jobs[:4]] == [f"grym-work-{n}" for n in (1, 2, 3, 4)]
        assert (jobs[4].begun.is_set(), repr(pulse)) == (False, "<Pulse: 0 scheduled, 4 at work>")
        jobs[2].end()
        assert jobs[4].where == "grym-work-3"
        for job in jobs:
            job.end()

    def test_work_past_its_deadline_is_written_off_and_replaced(self, clock: FakeClock) -> None:
        pulse = Pulse(clock, work_threads=1)
        stuck, other = Gated(), Gated()
        clock.advance(100.0)
        pulse.work(stuck, name="ping a", deadline=105.0)
        assert stuck.begun.wait(PATIENCE)
        pulse.work(other, name="ping b")
        clock.advance(4.0)
        pulse.step()
        assert (pulse.written_off, other.begun.is_set()) == ((), False)
        clock.advance(3.0)
        pulse.step()
        assert (other.where, pulse.written_off) == ("grym-work-2", (WrittenOff("ping a", 7.0),))
        stuck.end()
        until(lambda: pulse.written_off == ())
        other.end()
        assert pulse.close(PATIENCE) == ()

    def test_work_that_ends_in_time_is_not_written_off(self, clock: FakeClock) -> None:
        pulse = Pulse(clock, work_threads=1)
        job, other = Gated(), Gated()
        pulse.work(job, name="a", deadline=5.0)
        assert job.begun.wait(PATIENCE)
        job.end()
        pulse.work(other, name="b")
        assert other.begun.wait(PATIENCE)
        assert repr(pulse) == "<Pulse: 0 scheduled, 1 at work>"
        clock.advance(10.0)
        pulse.step()
        assert (pulse.written_off, other.where) == ((), "grym-work-1")
        other.end()
        assert pulse.close(PATIENCE) == ()

    def test_a_deadline_moves_on_by_what_the_work_waited_for_a_thread(self, clock: FakeClock) -> None:
        pulse = Pulse(clock, work_threads=1)
        first, second = Gated(), Gated()
        pulse.work(first, name="a")
        pulse.work(second, name="b", deadline=5.0)
        assert first.begun.wait(PATIENCE)
        clock.advance(100.0)
        first.end()
        assert second.begun.wait(PATIENCE)
        clock.advance(4.9)
        pulse.step()
        assert pulse.written_off == ()
        clock.advance(0.1)
        pulse.step()
        assert pulse.written_off == (WrittenOff("b", 5.0),)
        second.end()
        until(lambda: pulse.written_off == ())
        assert pulse.close(PATIENCE) == ()

    def test_work_that_raises_is_logged_by_its_name(
        self, clock: FakeClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        pulse = Pulse(clock, work_threads=1)
        done = threading.Event()
        pulse.work(lambda: 1 / 0, name="ping a", deadline=3.0)
        pulse.work(done.set, name="ping b")
        assert done.wait(PATIENCE)
        assert [r.getMessage() for r in caplog.records] == ["ping a raised"]
        assert pulse.close(PATIENCE) == ()

    def test_work_that_has_not_begun_at_close_is_dropped(self, clock: FakeClock) -> None:
        pulse = Pulse(clock, work_threads=1)
        first, calls = Gated(), list[str]()
        pulse.work(first, name="a")
        pulse.work(lambda: calls.append("b"), name="b")
        assert first.begun.wait(PATIENCE)
        assert pulse.close(0.0) == ("a",)
        first.end()
        assert (pulse.close(PATIENCE), calls) == ((), [])
