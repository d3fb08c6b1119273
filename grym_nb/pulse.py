"""Threads that are kept short: lingering workers that do, and one pulse that only schedules."""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from math import inf, isnan
from weakref import ref

from grym_nb.clock import Clock, monotonic, wait
from grym_nb.errors import ConfigError, Problem, StateError

__all__ = ["Entry", "Pulse", "Workers", "WrittenOff"]

_log = logging.getLogger(__name__)

_Job = Callable[[], object]


class _Seat:
    """One worker thread's place: what it is handed next, and the lock it sleeps on."""

    __slots__ = ("job", "thread", "wake")

    def __init__(self, job: _Job) -> None:
        self.job: _Job | None = job
        self.thread: threading.Thread
        self.wake = threading.Lock()
        self.wake.acquire()


class Workers:
    """Daemon threads that run jobs, and linger `linger` seconds for the next one.

    With `most`, no more than that many run at a time and further jobs wait in the order they came. A job
    that was accepted is run, also after `close`. Each runs in an empty context of its own.
    """

    def __init__(self, name: str, *, linger: float, most: int | None = None) -> None:
        self._name = name
        self._linger = min(linger, threading.TIMEOUT_MAX)
        self._most = inf if most is None else most
        self._lock = threading.Lock()
        self._seats: dict[threading.Thread, _Seat] = {}
        self._idle: dict[_Seat, None] = {}  # the last one is handed the next job, so the surplus ages out
        self._off: set[threading.Thread] = set()
        self._backlog: deque[_Job] = deque()
        self._started = 0
        self._closed = False

    @property
    def threads(self) -> int:
        """How many threads there are, idle and written-off ones too."""
        return len(self._seats)

    @property
    def waiting(self) -> int:
        """How many jobs wait for a thread."""
        return len(self._backlog)

    def run(self, job: _Job) -> None:
        """Hand `job` to an idle thread, or to a new one; never waits for it."""
        with self._lock:
            if self._closed:
                raise StateError(f"the {self._name} workers are closed")
            if self._idle:
                # Straight on, without a call before the last: so Ctrl-C loses neither the seat nor the job.
                seat = next(reversed(self._idle))
                seat.job = job
                del self._idle[seat]
                seat.wake.release()
            elif len(self._seats) - len(self._off) < self._most:
                self._start(job)
            else:
                self._backlog.append(job)

    def write_off(self, thread: threading.Thread) -> None:
        """Stop counting `thread` towards `most` for as long as its present job runs."""
        with self._lock:
            if thread not in self._seats:
                return
            self._off.add(thread)
            if self._backlog:
                self._start(self._backlog[0])
                self._backlog.popleft()

    def close(self, timeout: float = 0.0) -> tuple[str, ...]:
        """End the idle threads, give the others `timeout` seconds; return the names of those that still run.

        Written-off threads are named and not waited for; neither is the thread that calls this.
        """
        until = time.monotonic() + timeout
        me = threading.current_thread()
        with self._lock:
            self._closed = True
            idle = [seat.thread for seat in self._idle]
            for seat in self._idle:
                del self._seats[seat.thread]
                seat.wake.release()
            self._idle.clear()
            busy = set(self._seats) - self._off - {me}
        for thread in idle:
            thread.join(1.0)  # it runs nothing of anybody's any more: this is microseconds
        for thread in busy:
            thread.join(max(0.0, until - time.monotonic()))
        with self._lock:
            left = list(self._seats)
        return tuple(thread.name for thread in left if thread is not me)

    def __repr__(self) -> str:
        busy = len(self._seats) - len(self._idle)
        closed = " closed" if self._closed else ""
        return (
            f"<Workers {self._name!r}{closed}: {busy} busy, {len(self._idle)} idle, {self.waiting} waiting>"
        )

    def _start(self, job: _Job) -> None:
        # Under the lock, so that whoever sees a thread in `_seats` may join it.
        self._started += 1
        seat = _Seat(job)
        name = f"{self._name}-{self._started}"
        seat.thread = threading.Thread(target=self._serve, args=(seat,), name=name, daemon=True)
        seat.thread.start()
        self._seats[seat.thread] = seat

    def _serve(self, seat: _Seat) -> None:
        with self._lock:
            # Again: Ctrl-C inside `start` can leave a thread that runs and was not written down.
            self._seats[seat.thread] = seat
        job, seat.job = seat.job, None
        while job is not None:
            try:
                Context().run(job)
            except BaseException:
                _log.exception("a job on %s raised; the thread goes on", seat.thread.name)
            del job  # an idle thread keeps nothing of it alive
            job = self._next(seat)

    def _next(self, seat: _Seat) -> _Job | None:
        with self._lock:
            if seat.thread in self._off:
                self._off.discard(seat.thread)
                if len(self._seats) - len(self._off) > self._most:
                    del self._seats[seat.thread]
                    return None
            if self._backlog:
                return self._backlog.popleft()
            if self._closed:
                del self._seats[seat.thread]
                return None
            self._idle[seat] = None
        if not seat.wake.acquire(timeout=self._linger):
            with self._lock:
                if seat in self._idle:
                    del self._idle[seat], self._seats[seat.thread]
                    return None
            seat.wake.acquire()  # taken from the idle ones just now: the job is on its way
        job, seat.job = seat.job, None
        return job


class Entry:
    """Something a `Pulse` is to call: once, or every `seconds`; `cancel` ends it."""

    __slots__ = ("_fn", "_pulse", "_queued", "due", "name", "seconds")

    def __init__(self, pulse: Pulse, fn: _Job, name: str, seconds: float | None) -> None:
        self._pulse = pulse
        self._fn: _Job | None = fn
        self._queued = False
        self.name = name
        self.seconds = seconds
        self.due = 0.0

    @property
    def active(self) -> bool:
        """Whether it is still to be called (or is running, for the last time or not)."""
        return self._fn is not None

    def cancel(self) -> None:
        """Never call it again; a call that runs already ends by itself. Doing so twice changes nothing."""
        self._pulse._cancel(self)

    def __repr__(self) -> str:
        when = f"every {self.seconds:g} s, " if self.seconds else ""
        return f"<Entry {self.name!r}: {f'{when}due at {self.due:g}' if self.active else 'over'}>"


@dataclass(frozen=True, slots=True)
class WrittenOff:
    """Work that runs past its deadline, and for how many seconds it has run."""

    name: str
    seconds: float


class _Work:
    """One piece of work while it runs."""

    __slots__ = ("late", "name", "since", "thread")

    def __init__(self, name: str, since: float) -> None:
        self.name = name
        self.since = since
        self.thread = threading.current_thread()
        self.late = False


class Pulse:
    """One thread that calls what is due; it starts with the first entry and ends when there are none.

    What is scheduled here must be quick: it delays all the rest. Longer things go to `work`. On a driven
    clock, advance it and call `step()`, or let the thread notice.
    """

    #: seconds after which a scheduled call is counted as slow
    SLOW = 0.005

    def __init__(self, clock: Clock = monotonic, *, work_threads: int = 4, linger: float = 5.0) -> None:
        self._clock = clock
        self._linger = linger
        # Held by itself: Ctrl-C in the enter or exit of a condition would leave it taken by nobody.
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._stepped = threading.Condition(self._lock)
        self._heap: list[tuple[float, int, Entry]] = []
        self._count = 0
        self._dead = 0  # entries in the heap that were cancelled
        self._thread: threading.Thread | None = None
        self._asleep_until = -inf
        self._idle_until: float | None = None
        self._stepper: int | None = None
        self._calling = ""
        self._slow: dict[str, int] = {}
        self._closed = False
        self._running: dict[_Work, None] = {}
        self._workers = Workers("grym-work", linger=linger, most=work_threads)

    def every(self, seconds: float, fn: _Job, *, name: str) -> Entry:
        """Call `fn` each `seconds`, first when they have passed once; what was missed is left out."""
        if not 0 < seconds < inf:
            problem = Problem("seconds", repr(seconds), "a positive number")
            raise ConfigError(f"{name} cannot be scheduled", problems=[problem])
        return self._schedule(self._clock() + seconds, fn, name, seconds)

    def after(self, seconds: float, fn: _Job, *, name: str) -> Entry:
        """Call `fn` once, when `seconds` have passed."""
        return self._schedule(self._clock() + seconds, fn, name, None)

    def at(self, deadline: float, fn: _Job, *, name: str) -> Entry:
        """Call `fn` once, when the clock reaches `deadline`; at once if it has."""
        return self._schedule(deadline, fn, name, None)

    def step(self) -> float | None:
        """Call everything that is due now, in this thread; return when the next is due, None if nothing is.

        Waits for a step that another thread is in, so that afterwards all of it has happened.
        """
        me = threading.get_ident()
        with self._lock:
            nested = self._stepper == me
            self._wait_for_stepper(me)
            self._stepper = me
            now, limit = self._clock(), self._count
        try:
            # What is scheduled meanwhile waits for the next step: this one comes to an end.
            while (entry := self._take(now, limit)) is not None:
                self._call(entry)
        finally:
            with self._lock:
                if not nested:
                    self._stepper = None
                    self._stepped.notify_all()
                self._purge()
                due = self._heap[0][0] if self._heap else None
        return due

    def work(self, fn: _Job, *, name: str, deadline: float | None = None) -> None:
        """Run `fn` on one of a few lingering threads; never waits for it.

        Past `deadline` (on the clock; it moves on by what `fn` had to wait for a thread) it is written off:
        it goes on, but another may run in its place.
        """
        allowed = None if deadline is None else deadline - self._clock()
        self._workers.run(partial(self._do, fn, name, allowed))

    @property
    def written_off(self) -> tuple[WrittenOff, ...]:
        """The work that runs past its deadline."""
        now = self._clock()
        with self._lock:
            return tuple(WrittenOff(work.name, now - work.since) for work in self._running if work.late)

    @property
    def slow(self) -> dict[str, int]:
        """How often scheduled calls took longer than `SLOW`, by name."""
        with self._lock:
            return dict(self._slow)

    def close(self, timeout: float = 1.0) -> tuple[str, ...]:
        """Cancel everything, wait `timeout` seconds for what runs; return the names of what still does.

        Work that has not begun is dropped. Closing twice changes nothing.
        """
        until = time.monotonic() + timeout
        with self._lock:
            self._closed = True
            # Kept until the lock is free: the end of a closure may run its owner's code.
            dropped, self._heap, self._dead = self._heap, [], 0
            functions = [entry._fn for _, _, entry in dropped]
            for _, _, entry in dropped:
                entry._fn = None
            thread = self._thread
            self._wake.notify_all()
        del dropped, functions
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        self._workers.close(max(0.0, until - time.monotonic()))
        with self._lock:
            stuck = (self._calling,) if self._calling and self._stepper != threading.get_ident() else ()
            me = threading.current_thread()
            return (*stuck, *(work.name for work in self._running if work.thread is not me))

    def __repr__(self) -> str:
        scheduled = "closed" if self._closed else f"{len(self._heap) - self._dead} scheduled"
        return f"<Pulse: {scheduled}, {len(self._running)} at work>"

    def _wait_for_stepper(self, me: int) -> None:
        while self._stepper not in (None, me):
            self._stepped.wait()

    def _schedule(self, due: float, fn: _Job, name: str, seconds: float | None) -> Entry:
        if isnan(due):
            raise ConfigError(f"{name} cannot be scheduled", problems=[Problem("due", "nan", "a number")])
        entry = Entry(self, fn, name, seconds)
        with self._lock:
            if self._closed:
                raise StateError(f"{name} cannot be scheduled: the pulse is closed")
            if self._thread is None:
                self._start()
            self._push(entry, max(due, self._clock()))
            if entry.due < self._asleep_until:
                self._wake.notify()
        return entry

    def _push(self, entry: Entry, due: float) -> None:
        entry.due, entry._queued = due, True
        self._idle_until = None
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, entry))

    def _take(self, now: float, limit: int) -> Entry | None:
        with self._lock:
            self._purge()
            if not self._heap or self._heap[0][0] > now or self._heap[0][1] > limit:
                return None
            entry = heapq.heappop(self._heap)[2]
            entry._queued = False
            return entry

    def _purge(self) -> None:
        while self._heap and self._heap[0][2]._fn is None:
            heapq.heappop(self._heap)
            self._dead -= 1

    def _call(self, entry: Entry) -> None:
        fn = entry._fn
        if fn is None:
            return
        outer, self._calling = self._calling, entry.name
        began = self._clock()
        try:
            Context().run(fn)
        except BaseException as error:
            on_main = threading.current_thread() is threading.main_thread()
            if on_main and isinstance(error, KeyboardInterrupt):
                raise
            _log.exception("%s raised on the pulse", entry.name)
        finally:
            self._called(entry, began, outer)

    def _called(self, entry: Entry, began: float, outer: str) -> None:
        now = self._clock()
        with self._lock:
            self._calling = outer
            if now - began > self.SLOW:
                self._slow[entry.name] = self._slow.get(entry.name, 0) + 1
            if entry.seconds is None or self._closed:
                entry._fn = None  # whoever called `_call` still holds it
            elif entry._fn is not None:
                due = entry.due + entry.seconds
                self._push(entry, due if due > now else now + entry.seconds)

    def _cancel(self, entry: Entry) -> None:
        with self._lock:
            fn, entry._fn = entry._fn, None
            if fn is None or not entry._queued:
                return
            self._dead += 1
            if self._dead > 64 and self._dead * 2 > len(self._heap):
                self._tidy()
            nothing_left = self._dead == len(self._heap)
            if nothing_left and self._asleep_until > self._clock() + self._linger:
                self._purge()
                self._wake.notify()  # or it would sleep, for nothing, until this entry's time

    def _tidy(self) -> None:
        self._heap = [item for item in self._heap if item[2]._fn is not None]
        heapq.heapify(self._heap)
        self._dead = 0

    def _start(self) -> None:
        self._asleep_until = -inf
        thread = threading.Thread(
            target=_beat, args=(ref(self), self._wake, self._clock), name="grym-pulse", daemon=True
        )
        self._thread = thread
        try:
            thread.start()
        except BaseException:
            self._thread = None  # if it did start, it finds itself replaced and ends
            raise

    def _rest(self) -> float | None:
        """Return until when the pulse's thread may sleep, None when it is to end; the lock is held."""
        if self._closed or self._thread is not threading.current_thread():
            return None
        self._purge()
        if self._heap:
            self._asleep_until = self._heap[0][0]
            return self._asleep_until
        now = self._clock()
        if self._idle_until is None:
            self._idle_until = now + self._linger
        if self._idle_until <= now:
            self._thread = None
            return None
        self._asleep_until = self._idle_until
        return self._idle_until

    def _do(self, fn: _Job, name: str, allowed: float | None) -> None:
        work = _Work(name, self._clock())
        with self._lock:
            if self._closed:
                return
            self._running[work] = None
        limit: Entry | None = None
        try:
            if allowed is not None:
                limit = self.after(allowed, partial(self._write_off, work), name=f"deadline of {name}")
            fn()
        except Exception:
            _log.exception("%s raised", name)
        finally:
            if limit is not None:
                limit.cancel()
            with self._lock:
                del self._running[work]

    def _write_off(self, work: _Work) -> None:
        # Under our lock, so that the thread cannot meanwhile have gone on to other work.
        with self._lock:
            if work not in self._running:
                return
            work.late = True
            self._workers.write_off(work.thread)
        _log.warning("%s is past its deadline and written off", work.name)


def _beat(pulse_ref: ref[Pulse], wake: threading.Condition, clock: Clock) -> None:
    # Holds the pulse only while it is awake: a forgotten one ends with its next due time.
    while (pulse := pulse_ref()) is not None:
        pulse.step()
        with wake:
            until = pulse._rest()
            del pulse
            if until is None:
                return
            wait(clock, wake, until)
