"""One call and its outcome: the task asked for, the frame it runs in, the future that stands for it."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

from grym_nb.clock import Clock, monotonic, wait
from grym_nb.errors import CallBlocked, CallCancelled, CallTimeout, GrymError, Interrupted, Problem, ValidationError
from grym_nb.render import Table, brief, seconds

if TYPE_CHECKING:
    from grym_nb.pulse import Entry
    from grym_nb.services.lane import Place, Ticket
    from grym_nb.services.model import TaskSpec
    from grym_nb.services.record import Gate, Instance, ServiceRecord

__all__ = [
    "Call",
    "Frame",
    "Options",
    "Progress",
    "Provenance",
    "Task",
    "TaskResult",
    "current_frame",
    "on_progress",
    "priority_of",
    "track",
]

T = TypeVar("T")
Status = Literal["completed", "failed", "cancelled", "timeout"]

PRIORITIES = {"low": 0, "normal": 1, "high": 2, "critical": 3}


def priority_of(value: str | int) -> int:
    """Return a priority as 0 (low), 1 (normal), 2 (high) or 3 (critical); numbers are clamped."""
    if isinstance(value, str):
        if value in PRIORITIES:
            return PRIORITIES[value]
    elif isinstance(value, int) and not isinstance(value, bool):
        return min(max(value, 0), 3)
    raise ValidationError(
        "unknown priority", problems=[Problem("priority", brief(value), f"{', '.join(PRIORITIES)}, or 0 to 3")]
    )


# -- what is asked for, and what came of it --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Task:
    """Something to be done by whichever service declares `type`.

    `data` is the first positional argument, `params` the keyword arguments; `model` names the service,
    where several would do; `context` is handed to a task that takes one.
    """

    type: str
    data: Any = None
    params: Mapping[str, Any] = field(default_factory=dict)
    priority: str | int = "normal"
    timeout: float | None = None
    retries: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    context: Any = None
    store_results: bool = False
    id: str = field(default_factory=lambda: f"task-{os.urandom(6).hex()}")

    def __repr__(self) -> str:
        asked = [repr(self.type), brief(self.data)]
        asked += [f"{name}={brief(value)}" for name, value in self.params.items()]
        return f"Task({', '.join(asked)}, id={self.id!r})"


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a result came from: enough to make it again."""

    service: str
    version: str
    config_version: int
    config: Mapping[str, Any]
    checkpoint: str | None
    parameters: Mapping[str, Any]
    seed: int | None
    started: float
    ended: float


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What came of a task: the data or the error, never an exception in your hands.

    `metadata` holds `duration` and `queued` in seconds; the error is kept without its traceback.
    """

    id: str
    success: bool
    status: Status
    data: Any = None
    error: GrymError | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    provenance: Provenance | None = None

    def for_task(self, task: Task) -> TaskResult:
        """Return this as the result of `task`: its id, and its metadata beside ours."""
        return replace(self, id=task.id, metadata={**task.metadata, **self.metadata})

    def _table(self) -> Table:
        rows = [("status", self.status)]
        rows += [("data", brief(self.data))] if self.success else [("error", str(self.error))]
        rows += [("took", seconds(self.metadata.get("duration")))]
        if self.provenance:
            made = self.provenance
            rows += [("by", f"{made.service} {made.version}")]
            rows += [(name, brief(value)) for name, value in made.parameters.items()]
        return Table(f"result of {self.id}", ("", ""), rows)

    def __repr__(self) -> str:
        told = f"data={brief(self.data)}" if self.success else f"error={brief(self.error)}"
        return f"TaskResult({self.status}, {told}, took {seconds(self.metadata.get('duration'))})"

    def _repr_html_(self) -> str:
        return self._table().html()


def status_of(error: BaseException | None) -> Status:
    """Return the status a result bears that ended with `error`."""
    if error is None:
        return "completed"
    if isinstance(error, CallTimeout):
        return "timeout"
    return "cancelled" if isinstance(error, (CallCancelled, KeyboardInterrupt)) else "failed"


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller says of one call, apart from the task's own arguments."""

    timeout: float | None = None
    priority: int = 1
    retries: int = 0

    @classmethod
    def of(
        cls, timeout: float | None = None, priority: str | int = "normal", retries: int = 0
    ) -> Options:
        """Return checked options; durations in seconds, priorities by name or number."""
        problems = []
        if timeout is not None and not (isinstance(timeout, (int, float)) and timeout > 0):
            problems.append(Problem("timeout", brief(timeout), "seconds above 0, or None for no limit"))
        if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
            problems.append(Problem("retries", brief(retries), "a whole number from 0"))
        if problems:
            raise ValidationError("these options of a call do not fit", problems=problems)
        return cls(timeout, priority_of(priority), retries)


PLAIN = Options()


# -- the frame: a call under way -------------------------------------------------------------------

_current: ContextVar[Frame | None] = ContextVar("grym_frame", default=None)
_ids = itertools.count(1)


def current_frame() -> Frame | None:
    """Return the call in which this code runs, or None outside of one."""
    return _current.get()


class Frame:
    """One call under way: where it came from, what bounds it, what it holds.

    `parent` is the frame that made it, so that nested calls know their chain. `inline` says that it runs
    in its parent's thread, which therefore cannot run anything else meanwhile.
    """

    __slots__ = (
        "args",
        "borrowed",
        "call",
        "cancelled",
        "counted",
        "deadline",
        "ended",
        "future",
        "gate",
        "holds",
        "id",
        "inline",
        "instance",
        "kwargs",
        "options",
        "parent",
        "place",
        "progress",
        "record",
        "spec",
        "started",
        "suspended",
        "what",
    )

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
        self.parent = parent = _current.get()
        self.inline = True
        self.started = now
        self.what = what
        deadline = None if options.timeout is None else now + options.timeout
        if parent is not None and parent.deadline is not None:
            deadline = parent.deadline if deadline is None else min(deadline, parent.deadline)
        self.deadline = deadline
        self.cancelled = self.counted = self.borrowed = self.ended = False
        self.instance: Instance | None = None
        self.place: Place | None = None
        self.progress: Progress | None = None
        self.call: Call | None = None
        self.gate: Gate | None = None
        self.holds: list[ServiceRecord] = []
        self.suspended: int | None = None  # the thread in which an open generator or use() rests
        self.future: Future[Any] | None = None  # of a coroutine on the private loop

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
            while frame.parent is not None and frame.parent.ended:
                frame.inline = frame.inline and frame.parent.inline
                frame.parent = frame.parent.parent
            frame = frame.parent

    def within(self, record: ServiceRecord) -> bool:
        """Tell whether a frame above this one is inside `record`, or holds it for a load."""
        return any(f is not self and (f.record is record or record in f.holds) for f in self.chain())

    def loading(self) -> Frame | None:
        """Return the load in which this call is made, if any."""
        return next((f for f in self.chain() if f is not self and f.what == "load"), None)

    def check(self) -> None:
        """Raise when the call was cancelled or its deadline has passed."""
        for frame in self.chain():
            if frame.cancelled:
                raise self.cancellation()
            if frame.what == "load":
                break  # others wait for a load too: it does not end with the call that began it
        if self.deadline is not None and self.record.ports.clock() >= self.deadline:
            raise self.timeout()

    def cancellation(self) -> CallCancelled:
        """Return the error of a call that was cancelled: how far it came."""
        return CallCancelled(
            f"{self.title} was cancelled{self._came_to()}", service=self.record.name, task=self.task
        )

    def timeout(self, waiting_for: str = "") -> CallTimeout:
        """Return the error of a call whose deadline passed: how long it had, how far it came."""
        had = "" if self.deadline is None else f" after {seconds(self.deadline - self.started)}"
        return CallTimeout(
            f"{self.title} timed out{had}{self._came_to()}",
            cause=f"it was waiting for {waiting_for}" if waiting_for else "",
            service=self.record.name,
            task=self.task,
        )

    def _came_to(self) -> str:
        return f" at {self.progress.told}" if self.progress is not None else ""

    def end(self) -> None:
        """Let go of what the call held in hand; its place in the chain ends."""
        self.ended = True
        self.instance = None
        self.args, self.kwargs = (), {}


# -- progress --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Progress:
    """How far a loop has come."""

    title: str
    total: int | None
    started: float
    done: int = 0

    @property
    def told(self) -> str:
        """``"12/100"``, or ``"12"`` when nobody knows of how many."""
        return f"{self.done}/{self.total}" if self.total is not None else str(self.done)

    def eta(self, now: float) -> float | None:
        """Return the seconds left at the pace so far, or None when that cannot be said."""
        if self.total is None or not self.done:
            return None
        return (now - self.started) / self.done * (self.total - self.done)


_shows: list[Callable[[Progress], None]] = []
_SHOW_EVERY = 0.25


def on_progress(show: Callable[[Progress], None]) -> Callable[[], None]:
    """Hand progress to `show`, at most four times a second, in the main thread; returns the undo."""
    _shows.append(show)
    return lambda: _shows.remove(show) if show in _shows else None


def _show(progress: Progress) -> None:
    if threading.current_thread() is threading.main_thread():
        for show in tuple(_shows):
            show(progress)


def track(items: Iterable[T], *, total: int | None = None, title: str = "") -> Iterator[T]:
    """Yield from `items`; tell how far the call has come, and end it when it is cancelled or late.

    Inside a task it is the point at which Cancel, Ctrl-C and a deadline take hold. Outside of one it only
    shows progress. `total` is found by `len` where there is one.
    """
    if total is None:
        try:
            total = len(items)  # type: ignore[arg-type]
        except TypeError:
            total = None
    frame = _current.get()
    clock: Clock = frame.record.ports.clock if frame is not None else monotonic
    progress = Progress(title or (frame.title if frame is not None else "progress"), total, clock())
    shown = time.monotonic()
    for item in items:
        if frame is not None:
            frame.progress = progress
            frame.check()
        yield item
        progress.done += 1
        if _shows and time.monotonic() - shown >= _SHOW_EVERY:
            shown = time.monotonic()
            _show(progress)
    if _shows:
        _show(progress)


# -- the call as a future --------------------------------------------------------------------------


class Call(Future[Any]):
    """A call on its way: a future (`result`, `add_done_callback`, `cancel`) that can also be awaited.

    ``await call`` works in any cell and on any event loop. Several waiters each get their own copy of an
    error, and none of them keeps a frame of the failed call alive.
    """

    def __init__(self, frame: Frame, dropped: Callable[[Frame, BaseException], None]) -> None:
        super().__init__()
        frame.call = self
        self._dropped = dropped
        self.timer: Entry | None = None
        self.id = frame.id
        self.service = frame.record.name
        self.task = frame.task
        self.ticket: Ticket | None = None
        self.outcome: TaskResult | None = None
        self._frame: Frame | None = frame
        self._interrupt_seconds = frame.record.ports.settings.interrupt_seconds

    # What becomes of it: exactly one of these is the first, the others change nothing.

    def settle(self, value: Any = None, error: BaseException | None = None) -> bool:
        """End the call with a value or an error; False when it had ended already."""
        with self._condition:
            if self.done():
                return False
            frame, self._frame = self._frame, None
            if frame is not None and self.outcome is None:
                self.outcome = frame.record.outcome(frame, value, error)
            if error is None:
                self._result = value
            else:
                self._exception = error.with_traceback(None)
            self._state = "FINISHED"
            for waiter in self._waiters:
                waiter.add_exception(self) if error is not None else waiter.add_result(self)
            self._condition.notify_all()
        if self.timer is not None:
            self.timer.cancel()
        self._invoke_callbacks()
        return True

    def expire(self) -> None:
        """End the call with a timeout; work that is under way is asked to stop and ends on its own."""
        frame = self._frame
        if frame is not None:
            error = frame.timeout("" if frame.place is not None else frame.record.waited_for())
            if self.settle(error=error):
                self._stop(frame, error)

    def cancel(self) -> bool:
        """Ask the call to end; False when it has ended already.

        One that still waits ends at once. One that runs ends at its next `track()` step (or `await`).
        """
        frame = self._frame
        if frame is None or self.done():
            return False
        error = frame.cancellation()
        if frame.place is None or frame.instance is None:
            self.settle(error=error)
        self._stop(frame, error)
        return True

    def _stop(self, frame: Frame, error: BaseException) -> None:
        frame.cancelled = True
        if frame.future is not None:
            frame.future.cancel()
        if self.ticket is not None and self.ticket.withdraw():
            self._dropped(frame, error)

    # Waiting for it.

    def result(self, timeout: float | None = None) -> Any:
        """Return what the task returned, or raise its error; Ctrl-C cancels the call.

        `timeout` bounds this wait only (a plain `TimeoutError`); the call goes on.
        """
        self._wait(timeout)
        if self._exception is not None:
            raise _copy(self._exception)
        return self._result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error the call ended with (a copy), or None."""
        self._wait(timeout)
        return None if self._exception is None else _copy(self._exception)

    def _wait(self, timeout: float | None) -> None:
        if self.done():
            return
        from grym_nb.services.lane import aside  # the lane knows what a waiting chain gives back meanwhile

        frame = self._frame
        if frame is not None:
            if frame.record.ports.loop.here:
                raise CallBlocked(
                    f"{frame.title} would stop the event loop it is called from",
                    hint=f"inside an async task: await handle.{frame.task}.submit(...)",
                    service=frame.record.name,
                    task=frame.task,
                )
            frame.record.lane.refuse_endless_wait(frame)
        try:
            with aside(_current.get()):
                self._wait_here(None if timeout is None else time.monotonic() + timeout)
        except KeyboardInterrupt:
            self._interrupted()

    def _wait_here(self, until: float | None) -> None:
        while not self.done():
            frame = self._frame
            tick = None if until is None else until - time.monotonic()
            if tick is not None and tick <= 0:
                raise TimeoutError(f"{self!r} did not end in the time given to result()")
            if _shows:
                tick = _SHOW_EVERY if tick is None else min(tick, _SHOW_EVERY)
                if frame is not None and frame.progress is not None:
                    _show(frame.progress)
            self._wait_once(frame, tick)

    def _wait_once(self, frame: Frame | None, tick: float | None) -> None:
        # The one who waits keeps the deadline too: it holds even where no timer runs.
        deadline = frame.deadline if frame is not None else None
        clock = frame.record.ports.clock if frame is not None else monotonic
        with self._condition:
            if self.done():
                return
            if tick is not None:
                self._condition.wait(tick if deadline is None else max(0.0, min(tick, deadline - clock())))
            else:
                wait(clock, self._condition, deadline)
        if deadline is not None and clock() >= deadline and not self.done():
            self.expire()

    def _interrupted(self) -> NoReturn:
        progress = self._frame.progress if self._frame is not None else None
        self.cancel()
        until = time.monotonic() + self._interrupt_seconds
        with self._condition:
            while not self.done() and (left := until - time.monotonic()) > 0:
                self._condition.wait(left)
        came = f" at {progress.told}" if progress is not None else ""
        if self.done():
            raise Interrupted(f"{self.service}.{self.task} cancelled{came}; the service is still ready") from None
        raise Interrupted(
            f"{self.service}.{self.task} asked to stop{came}; it is still running",
            hint=f"%grym calls shows it; %grym unload {self.service} lets go of it",
        ) from None

    def __await__(self) -> Generator[Any, None, Any]:
        return self._awaited().__await__()

    async def _awaited(self) -> Any:
        import asyncio

        from grym_nb.services.lane import step_aside, step_back

        frame = _current.get()
        if frame is None or self.done():
            return await asyncio.wrap_future(self)
        left = step_aside(frame)
        try:
            return await asyncio.wrap_future(self)
        finally:
            await step_back(left)

    def __repr__(self) -> str:
        if not self.done():
            frame = self._frame
            state = "running" if frame is not None and frame.instance is not None else "waiting"
            if frame is not None and frame.progress is not None:
                state += f" {frame.progress.told}"
        elif self._exception is not None:
            state = f"failed: {type(self._exception).__name__}"
        else:
            state = f"done: {brief(self._result)}"
        return f"<Call {self.id} {self.service}.{self.task}, {state}>"


def _copy(error: BaseException) -> BaseException:
    return error.again() if isinstance(error, GrymError) else error
