"""A call under way: what its caller said of it, where it came from, what bounds it, what it holds."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from grym_nb.errors import CallBlocked, CallCancelled, CallTimeout, Problem, ValidationError
from grym_nb.priority import priority_of
from grym_nb.render import brief, seconds

if TYPE_CHECKING:
    from grym_nb.hardening import Lease
    from grym_nb.services.call import Call
    from grym_nb.services.held import Stream
    from grym_nb.services.instance import Instance, Serving
    from grym_nb.services.model import TaskSpec
    from grym_nb.services.parts import Parts
    from grym_nb.services.places import Place
    from grym_nb.services.progress import Progress
    from grym_nb.services.record import ServiceRecord
    from grym_nb.services.stalls import Stood
    from grym_nb.services.waits import Gate

__all__ = [
    "CURRENT",
    "PLAIN",
    "Awaited",
    "Frame",
    "Options",
    "Waits",
    "current_frame",
    "limit_of",
    "stack",
]


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller says of one call, apart from the task's own arguments."""

    timeout: float | None = None
    priority: int = 1
    retries: int | None = None
    version: int | None = None  # the number of the one that is to answer, where not the newest

    @classmethod
    def of(
        cls, timeout: float | None = None, priority: str | int = "normal", retries: int | None = None
    ) -> Options:
        """Return checked options; durations in seconds, priorities by name or number. None is as usual."""
        problems = []
        if timeout is not None and not (isinstance(timeout, (int, float)) and timeout > 0):
            problems.append(Problem("timeout", brief(timeout), "seconds above 0, or None for no limit"))
        if retries is not None and (not isinstance(retries, int) or isinstance(retries, bool) or retries < 0):
            problems.append(Problem("retries", brief(retries), "a whole number from 0"))
        if problems:
            raise ValidationError("these options of a call do not fit", problems=problems)
        limit = None if timeout is None else float(min(timeout, threading.TIMEOUT_MAX))
        return cls(limit, priority_of(priority), retries)


#: what a call waits for before its task runs: a place in its service, its turn on a device, a model that is
#: there, a thread to run on where it has its place. Kept apart, since each is mended by something else.
Waits = Literal["slot", "device", "load", "worker"]

PLAIN = Options()
_RUNS_ON = "it runs on until its next track() step, or await; others wait. More time: with_(timeout=...)"


def limit_of(timeout: float | None) -> float | None:
    """Return how long a wait may take, in seconds from 0; None for no limit."""
    if timeout is None:
        return None
    if isinstance(timeout, (int, float)) and timeout >= 0:
        return float(min(timeout, threading.TIMEOUT_MAX))
    problem = Problem("timeout", brief(timeout), "seconds from 0, or None for no limit")
    raise ValidationError("this wait cannot be limited so", problems=[problem])


CURRENT: ContextVar[Frame | None] = ContextVar("grym_frame", default=None)
_ids = itertools.count(1)
_NOTHING: dict[str, Any] = {}


def current_frame() -> Frame | None:
    """Return the call in which this code runs, or None outside of one."""
    frame = CURRENT.get()
    while frame is not None and frame.ended:  # one left there, as by generators that are closed out of order
        frame = frame.parent
    return frame


def stack(frame: Frame | None) -> Iterator[Frame]:
    """Yield the call and those beneath it in the same thread, which wait when it does."""
    while frame is not None:
        yield frame
        frame = frame.parent if frame.inline else None


class Awaited:
    """Something a call can wait for: another call, a place in line, a slot, the gate, a device, room."""

    __slots__ = ()

    #: whether any of what it waits for will do, or all of it has to come
    takes_any = False
    #: what helps whoever could only wait for ever for it; empty: what usually does
    way_out = ""

    def behind(self) -> Sequence[Awaited] | None:
        """Return what this waits for in turn; None when it does not wait, or its wait ends by itself."""
        return None

    def wake(self) -> None:
        """Let whoever waits for it look again whether that still makes sense."""

    def gives_way(self, circle: Sequence[Awaited]) -> bool:
        """Let in those of the circle that wait for it, where it can; tell whether there were any."""
        return False

    def refuse_here(self) -> None:
        """Raise where nothing could end the wait for it but what this very thread would do next."""


class Frame(Awaited):
    """One call under way: where it came from, what bounds it, what it holds.

    `parent` is the frame that made it, so that nested calls know their chain. `inline` says that it runs
    in its parent's thread, which therefore cannot run anything else meanwhile.
    """

    # What most calls never touch is the class's; what every call reads is set on the instance, which is
    # how it is read fastest.
    ended = False
    at_work = False  # it computes, or has its answer: what is cancelled from here on ends as it would
    turns: list[int] | None = None  # of the breaker: one, until it is told how the call went
    serving: Serving | None = None  # the code that answers it, from where it began to the end
    parts: Parts | None = None  # of its batch, where that has to be computed so
    at_a_time = 0  # how many items of it were, where not all
    fell_back = ""  # the code of the error for which something else answered
    stores: Mapping[str, Any] | None = None  # what is said of its result where that goes into the context
    lent = 0  # in how many waits its place is its chain's
    resting = 0  # in how many waits it is but for a device, of its own and of calls above it in its thread
    lease: Lease | None = None  # of the device its model is on: given back, and taken anew, with its waits
    progress: Progress | None = None
    call: Call | None = None
    gate: Gate | None = None  # held while it loads
    holds: tuple[ServiceRecord, ...] = ()
    suspended: int | None = None  # the thread in which an open generator or use() rests
    stream: Callable[[], Stream | None] = staticmethod(lambda: None)  # what reads this generator, if it lives
    pauses = ""  # between two attempts: for what, in words
    awaited = False  # by a drain that it would wait for: it is let in instead
    waited: Mapping[Waits, float] = MappingProxyType({})  # seconds by what for: not the task's own
    waiting_since: float | None = None  # while it waits so
    waiting_on: Waits = "slot"  # and what for
    waiting_in = 0  # in how many blocks that wait: an async task may be in several at once
    stood: Stood | None = None  # since it is in line: for what those before it there waited until then
    future: Future[Any] | None = None  # of a coroutine on the private loop
    waits_for: Sequence[Awaited] = ()

    def __init__(
        self,
        record: ServiceRecord,
        spec: TaskSpec | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        now: float,
        *,
        what: str = "",
    ) -> None:
        self.id = next(_ids)
        self.record = record
        self.spec = spec
        self.args = args
        self.kwargs = kwargs
        self.options = options
        self.started = now
        self.parent = parent = current_frame()
        self.what = what
        self.inline = True
        self.cancelled = False
        self.counted = False  # accepted by the record, and not inside yet
        self.inside = False  # counted in by the record, and not out again yet
        self.borrowed = False  # runs in the place of a call beneath it
        self.deadline: float | None = None
        self.instance: Instance | None = None
        self.place: Place | None = None
        timeout = options.timeout
        if timeout is None and spec is not None:
            timeout = record.timeout
        if timeout is not None:
            self.deadline = now + timeout
        if parent is not None and parent.deadline is not None:
            mine = self.deadline
            self.deadline = parent.deadline if mine is None else min(mine, parent.deadline)

    @property
    def task(self) -> str:
        """The name of the task, or what else this frame does (`load`, `use`)."""
        return self.spec.method if self.spec is not None else self.what

    @property
    def title(self) -> str:
        """``service.task``."""
        return f"{self.record.name}.{self.task}"

    def chain(self) -> Iterator[Frame]:
        """Yield this frame and the ones it was made in, nearest first, leaving out what has ended.

        Ended ones are cut out on the way, so that a task which submits itself again for ever keeps
        nothing alive.
        """
        frame: Frame | None = self
        while frame is not None:
            yield frame
            frame._cut()
            frame = frame.parent

    def _cut(self) -> None:
        parent, inline = self.parent, self.inline  # ours: another thread may cut here too
        if parent is None or not parent.ended:
            return
        while parent is not None and parent.ended:
            inline = inline and parent.inline
            parent = parent.parent
        self.parent, self.inline = parent, inline

    def within(self, record: ServiceRecord) -> bool:
        """Tell whether a frame above this one is inside `record`, or holds it for a load."""
        return any(f is not self and (f.record is record or record in f.holds) for f in self.chain())

    def loading(self) -> Frame | None:
        """Return the load in which this call is made, if any."""
        return next((f for f in self.chain() if f is not self and f.what == "load"), None)

    def behind(self) -> Sequence[Awaited] | None:
        """Return what this call waits for; None when it runs, or has a deadline."""
        if self.ended or self.cancelled or self.deadline is not None:
            return None
        if self.waits_for:
            return self.waits_for
        call = self.call
        ticket = call.ticket if call is not None and self.place is None else None
        return None if ticket is None else (ticket,)

    def waits_no_more(self, on: Awaited | None) -> None:
        """Note the end of one wait: an async task may be in several at once."""
        self.waits_for = tuple([one for one in self.waits_for if one is not on])

    def wake(self) -> None:
        """Let whoever waits for it look again whether that still makes sense."""
        if (call := self.call) is not None:
            call.wake()
        else:
            with self.record.lock:
                self.record.condition.notify_all()

    def cancel(self) -> bool:
        """Ask this call to end; False when it has ended, or when only its own block can end it (`use()`).

        One that waits ends at once. One that computes ends at its next `track()` step, or `await`.
        """
        if self.ended or self.what == "use":
            return False
        if (call := self.call) is not None:
            return call.cancel()
        self.stop()
        if (stream := self.stream()) is not None:
            stream.cancel()
        return True

    def stop(self) -> None:
        """Mark it as cancelled, and tell whatever it is in the middle of."""
        self.cancelled = True
        if (future := self.future) is not None:  # each read once: the call may end meanwhile
            future.cancel()
        for what in self.waits_for:
            if isinstance(what, Frame) and (call := what.call) is not None and self in what.chain():
                call.cancel()  # a child, which nobody wants any more
            what.wake()
        with self.record.lock:
            self.record.condition.notify_all()  # where it waits in its caller's thread

    def check(self) -> None:
        """Raise when the call was cancelled or its deadline has passed."""
        for frame in self.chain():
            if frame.cancelled:
                raise self.cancellation()
            if frame.what == "load":
                break  # others wait for a load too: it does not end with the call that began it
        if self.deadline is not None and self.record.ports.clock() >= self.deadline:
            raise self.timeout()

    @property
    def how_to_end(self) -> str:
        """What ends a call that stays open, for whoever is in its way."""
        if self.what == "use":
            return "leave the `use()` block first"
        return f"exhaust or close() the generator first, or %grym cancel {self.id}"

    def cancellation(self) -> CallCancelled:
        """Return the error of a call that was cancelled: how far it came."""
        return CallCancelled(
            f"{self.title} was cancelled{self.came_to}", service=self.record.name, task=self.task
        )

    def timeout(self, waiting_for: str = "", *, runs_on: bool = False) -> CallTimeout:
        """Return the error of a call whose deadline passed: how long it had, how far it came."""
        had = "" if self.deadline is None else f" after {seconds(self.deadline - self.started)}"
        return CallTimeout(
            f"{self.title} timed out{had}{self.came_to}",
            cause=f"it was waiting for {waiting_for}" if waiting_for else "",
            hint=_RUNS_ON if runs_on else None,
            service=self.record.name,
            task=self.task,
            waiting=bool(waiting_for),
        )

    @property
    def came_to(self) -> str:
        """``" at 12/100"``, or nothing when nobody knows."""
        return f" at {self.progress.told}" if self.progress is not None else ""

    def waited_by(self, now: float) -> Mapping[Waits, float]:
        """Return the seconds it has waited so far, by what for."""
        since, on = self.waiting_since, self.waiting_on
        if since is None:
            return self.waited
        waited, left = {**self.waited}, max(0.0, now - since)
        if on == "slot" and self.stood is not None:
            # Who holds the slot may wait too: what comes last for them is what comes last for the line.
            stalls, before = self.stood
            for what, passed in stalls.since(before, now).items():
                passed = min(passed, left)
                waited[what] = waited.get(what, 0.0) + passed
                left -= passed
        waited[on] = waited.get(on, 0.0) + left
        return waited

    @property
    def has_slot(self) -> bool:
        """Whether a slot of its service is held by it, and not only shared."""
        place = self.place
        if place is None or self.ended:
            return False
        return place.owner is self and place.epoch == place.lane.epoch

    def refuse_on_loop(self) -> None:
        """Raise when to wait would stop the private event loop, on which others have to go on."""
        if self.record.ports.loop.here:
            raise CallBlocked(
                f"{self.title} would stop the event loop it is called from",
                hint=f"inside an async task: await handle.{self.task}.submit(...)",
                service=self.record.name,
                task=self.task,
            )

    @contextmanager
    def waiting(self, on: Waits) -> Iterator[None]:
        """Count the time of this block as a wait for that, and for those that are in line behind it."""
        clock = self.record.ports.clock
        stalls = self.place.lane.stalls if self.has_slot and self.place is not None else None
        now = clock()
        if self.waiting_in:
            self.waited = self.waited_by(now)  # what it waited in another one until now
        self.waiting_on, self.waiting_since = on, now
        self.waiting_in += 1
        try:
            if stalls is not None:
                stalls.begin(self, on, now)
            yield
        finally:
            now = clock()
            self.waited = self.waited_by(now)
            self.waiting_in -= 1
            # A second in which it waits twice is one second; the last one out ends it.
            self.waiting_since = now if self.waiting_in else None
            self.stood = None
            if stalls is not None and not self.waiting_in:
                stalls.end(self, now)

    def end(self) -> None:
        """Let go of what the call held in hand; its place in the chain ends."""
        self.ended = True
        if self.parent is not None:
            self._cut()
        if self.call is not None:
            self.call = None  # or each link of a chain that submits itself would hold the one before
        self.instance = self.serving = None
        self.lease = None
        self.args = ()
        self.kwargs = _NOTHING
