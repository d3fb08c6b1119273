"""One call and its outcome: the task asked for, the progress it makes, the future that stands for it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from grym_nb.clock import monotonic, wait
from grym_nb.errors import (
    CallCancelled,
    CallTimeout,
    GrymError,
    Interrupted,
    Problem,
    ValidationError,
    closest,
    says_what_it_takes,
    shown_as,
)
from grym_nb.render import Table, brief, redacted, seconds
from grym_nb.services.frame import CURRENT, Frame, Options, limit_of
from grym_nb.services.on_loop import ending
from grym_nb.services.progress import Wait, show, wait_a_while
from grym_nb.services.relay import hand_over
from grym_nb.services.turns import resumed, resumed_on_loop
from grym_nb.services.waits import aside, step_aside, step_back, waits_for

if TYPE_CHECKING:
    from grym_nb.pulse import Entry
    from grym_nb.services.places import Ticket

__all__ = ["Call", "Provenance", "Task", "TaskResult", "status_of"]

_log = logging.getLogger(__name__)
_Status = Literal["completed", "failed", "cancelled", "timeout"]

# -- what is asked for, and what came of it --------------------------------------------------------


@says_what_it_takes
@dataclass(frozen=True, slots=True)
class Task:
    """Something to be done by whichever service declares `type`.

    `data` is the first positional argument, `params` the keyword arguments; `model` names the service,
    where several would do; `context` is handed to a task that takes one. With `store_results` the result goes
    into the context, under the task's type: with True, or with what is said of it there, such as
    ``{"key": "song-1", "ttl": 60}``; ``metadata={"workflow": ...}`` says of which workflow it is.
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
    store_results: bool | Mapping[str, Any] = False
    id: str = field(default_factory=lambda: f"task-{os.urandom(6).hex()}")

    def __post_init__(self) -> None:
        for name, given in (("params", self.params), ("metadata", self.metadata)):
            if not isinstance(given, Mapping):
                raise ValidationError(
                    "this is no task", problems=[Problem(name, brief(given), "a mapping of names to values")]
                )
        type: object = self.type
        if not isinstance(type, str):
            problem = Problem("type", brief(type), "a task type such as 'audio.loudness'")
            raise ValidationError("this is no task", problems=[problem])
        object.__setattr__(self, "store_results", _said_of_result(self.type, self.store_results))
        Options.of(self.timeout, self.priority, self.retries)  # said here, and not in the queue

    def __repr__(self) -> str:
        asked = [repr(self.type), brief(self.data)]
        asked += [f"{name}={told}" for name, told in redacted(self.params).items()]
        asked += [f"store_results={brief(self.store_results)}"] if self.store_results is not False else []
        return f"Task({', '.join(asked)}, id={self.id!r})"


#: what a task may say of its result in the context
_SAID = ("key", "ttl", "tags")


def _said_of_result(type: str, stores: object) -> bool | dict[str, Any]:
    """Return what is said of a result; raise where it could not be kept so: now, and not when it is there."""
    if isinstance(stores, bool):
        return stores
    names = ", ".join(_SAID)
    if not isinstance(stores, Mapping):
        problem = Problem("store_results", brief(stores), f"True, False, or a mapping of {names}")
        raise ValidationError("this is no task", problems=[problem])
    strange = [name for name in stores if name not in _SAID]
    if strange:
        problems = [
            Problem(
                f"store_results.{name}", brief(stores[name]), f"one of {names}.{closest(str(name), _SAID)}"
            )
            for name in strange
        ]
        raise ValidationError("this is no task", problems=problems)
    from grym_nb.context.query import said

    _, _, tags, _ = said(
        type, (stores.get("key"),), "normal", stores.get("ttl"), stores.get("tags", ()), None
    )
    return {**stores, "tags": tags}


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

    def __repr__(self) -> str:
        shown = {"config": redacted(self.config), "parameters": redacted(self.parameters)}
        told = (f"{f.name}={shown.get(f.name, getattr(self, f.name))!r}" for f in fields(self))
        return f"Provenance({', '.join(told)})"


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What came of a task: the data or the error, never an exception in your hands.

    `metadata` holds in seconds the `duration` of the work and what was `queued` before it, also by its
    `waits` for a "slot", the "device" or a "load"; and how many items of a batch were computed `at_a_time`,
    where memory was too short for all. The error is kept without its traceback.
    """

    id: str
    success: bool
    status: _Status
    data: Any = None
    error: GrymError | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    provenance: Provenance | None = None

    def for_task(self, task: Task) -> TaskResult:
        """Return this as the result of `task`: its id, and its metadata beside ours."""
        return replace(self, id=task.id, metadata={**task.metadata, **self.metadata})

    def _table(self) -> Table:
        rows: list[tuple[str, str]] = [("status", self.status)]
        rows += [("data", brief(self.data))] if self.success else [("error", str(self.error))]
        rows += [("took", seconds(self.metadata.get("duration")))]
        if items := self.metadata.get("at_a_time"):
            rows += [("computed", f"in parts of {items}: out of memory")]
        if self.provenance:
            made = self.provenance
            rows += [("by", f"{made.service} {made.version}")]
            rows += [*redacted(made.parameters).items()]
        return Table(f"result of {self.id}", ("", ""), rows)

    def __repr__(self) -> str:
        told = f"data={brief(self.data)}" if self.success else f"error={brief(self.error)}"
        return f"TaskResult({self.status}, {told}, took {seconds(self.metadata.get('duration'))})"

    def _repr_html_(self) -> str:
        return self._table().html()


def status_of(error: BaseException | None) -> _Status:
    """Return the status a result bears that ended with `error`."""
    if error is None:
        return "completed"
    if isinstance(error, CallTimeout):
        return "timeout"
    return "cancelled" if isinstance(error, (CallCancelled, KeyboardInterrupt)) else "failed"


# -- the call as a future --------------------------------------------------------------------------


class Call(Future[Any]):
    """A call on its way: a future (`result`, `add_done_callback`, `cancel`) that can also be awaited.

    ``await call`` works in any cell and on any event loop. Several waiters each get their own copy of an
    error, and none of them keeps a frame of the failed call alive.
    """

    def __init__(
        self,
        frame: Frame,
        *,
        outcome: Callable[[Frame], Callable[[Any, BaseException | None], TaskResult]],
        observe: Callable[[Frame, Any, BaseException | None], None],
    ) -> None:
        super().__init__()
        # Held by itself: Ctrl-C in the enter or exit of a condition would leave it taken by nobody.
        self._mutex = threading.RLock()
        self._condition = threading.Condition(self._mutex)
        frame.call = self
        self._outcome_of = outcome
        self._observe = observe
        self._settling = False
        self.timer: Entry | None = None
        self.id = frame.id
        self.service = frame.record.name
        self.task = frame.task
        self.ticket: Ticket | None = None
        self._told: Callable[[Any, BaseException | None], TaskResult] | None = None
        self._outcome: TaskResult | None = None
        self._frame: Frame | None = frame
        self._interrupt_seconds = frame.record.ports.settings.interrupt_seconds
        self._lifecycle = frame.record.lifecycle
        #: calls that go with it when whoever waits for it presses Ctrl-C
        self.together: Sequence[Call] = ()

    def done(self) -> bool:
        """Tell whether it has ended, in whatever way."""
        return self._state == "FINISHED"

    @property
    def outcome(self) -> TaskResult | None:
        """What came of it, with where that came from; None until it has ended."""
        if self._outcome is None and self._told is not None and self.done():
            self._outcome = self._told(self._result, self._exception)
        return self._outcome

    # What becomes of it: exactly one of these is the first, the others change nothing.

    def settle(
        self, value: Any = None, error: BaseException | None = None, *, on_pulse: bool = False
    ) -> bool:
        """End the call with a value or an error, seen once before anybody hears; False when it had ended."""
        with self._mutex:
            if self._settling:
                return False
            self._settling = True
        frame, self._frame = self._frame, None
        try:
            if frame is not None:
                self._told = partial(_bare_result, f"call-{frame.id}")
                self._told = self._outcome_of(frame)
                self._observe(frame, value, error)
        except Exception:  # strangers among the arguments, or a subscriber: the call has ended all the same
            _log.exception("the end of call %s was not seen in full", self.id)
        finally:  # whatever becomes of that, who waits is told
            with self._mutex:
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
        if self._done_callbacks:  # type: ignore[attr-defined]
            hand_over()  # they are others' code: neither the next call waits for it, nor the pulse
        if on_pulse and frame is not None and self._done_callbacks:  # type: ignore[attr-defined]
            frame.record.ports.workers.run(self._invoke_callbacks)  # type: ignore[attr-defined]
        else:
            self._invoke_callbacks()  # type: ignore[attr-defined]
        return True

    def expire(self, *, on_pulse: bool = False) -> None:
        """End the call with a timeout; work that is under way is asked to stop and ends on its own."""
        frame = self._frame
        if frame is not None:
            _expire_above(frame, on_pulse)
            error = frame.timeout(waiting := waits_for(frame), runs_on=not waiting)
            if self.settle(error=error, on_pulse=on_pulse):
                breaker = frame.record.breaker
                if breaker is not None and waiting:
                    breaker.over(frame)
                elif breaker is not None:  # now, since what hangs may never say so itself
                    breaker.told(frame, frame.record.ports.clock() - frame.started, error)
                self._stop(frame)

    def cancel(self) -> bool:
        """Ask the call to end; False when it has ended already.

        One that still waits ends at once. One that runs ends at its next `track()` step (or `await`).
        """
        frame = self._frame
        if frame is None or self.done():
            return False
        # In this order, and the worker in the other: one of the two sees the other, wherever they meet.
        frame.cancelled = True
        if not frame.at_work:
            self.settle(error=frame.cancellation())
        self._stop(frame)
        return True

    def _stop(self, frame: Frame) -> None:
        frame.stop()
        if self.ticket is not None and self.ticket.withdraw():
            frame.record.abandon(frame)  # it left the line without ever having run
            frame.end()

    # Waiting for it.

    def result(self, timeout: float | None = None) -> Any:
        """Return what the task returned, or raise its error; Ctrl-C cancels the call.

        `timeout` bounds this wait only (`CallTimeout`); the call goes on.
        """
        self._wait(limit_of(timeout))
        if self._exception is not None:
            raise _copy(self._exception)
        return self._result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error the call ended with (a copy), or None."""
        self._wait(limit_of(timeout))
        return None if self._exception is None else _copy(self._exception)

    def _wait(self, timeout: float | None) -> None:
        if self.done():
            return
        frame = self._frame
        if frame is not None:
            frame.refuse_on_loop()
            frame.record.lane.refuse_endless_wait(frame)
        me = CURRENT.get()
        try:
            with resumed(me), aside(me, frame):
                self._wait_here(me, None if timeout is None else time.monotonic() + timeout)
        except KeyboardInterrupt:
            self._interrupted()

    def _wait_here(self, me: Frame | None, until: float | None) -> None:
        with Wait(f"{self.service}.{self.task}") as waits:
            while not self.done():
                self._refuse_in_vain(me)
                if (frame := self._frame) is not None:
                    for what in frame.waits_for:
                        what.refuse_here()
                if until is not None and time.monotonic() >= until:
                    raise CallTimeout(
                        f"{self.service}.{self.task} has not ended yet: {self!r}",
                        hint="it goes on: ask for the result again, or cancel() it",
                        service=self.service,
                        task=self.task,
                    )
                self._wait_once(self._frame, until, me.deadline if me is not None else None)
                self._tell(waits)

    def _tell(self, waits: Wait) -> None:
        """Show how far it has come, or what it waits for."""
        frame = self._frame
        if frame is None:
            return
        if what := waits_for(frame):
            waits.on(what)
            return
        if frame.progress is not None:
            show(frame.progress)
        waits.over()  # it runs

    def _wait_once(self, frame: Frame | None, until: float | None, mine: float | None) -> None:
        # The one who waits keeps the deadline too: it holds even where no timer runs.
        its = frame.deadline if frame is not None else None
        deadline = its if mine is None else mine if its is None else min(its, mine)
        clock = frame.record.ports.clock if frame is not None else monotonic
        with self._mutex:
            if self.done():
                return
            if until is not None:  # on the clock of who waits: the call's may be another
                now = time.monotonic()
                until = until if deadline is None else min(until, now + deadline - clock())
                wait_a_while(monotonic, self._condition, until)
            else:
                wait_a_while(clock, self._condition, deadline)
        if its is not None and clock() >= its and not self.done():
            self.expire()

    def wake(self) -> None:
        """Let whoever waits here look again whether that still makes sense."""
        with self._mutex:
            self._condition.notify_all()

    def _given_up(self) -> Interrupted:
        """Return how a notebook shows that a cell which awaited this was stopped."""
        frame, title = self._frame, f"{self.service}.{self.task}"
        if frame is None:
            return Interrupted(f"{title} cancelled; the service is {self._state_of_it()}")
        when = "it ends at its next track() step, or await"
        return Interrupted(f"{title} asked to stop{frame.came_to}; {when}")

    def _wait_till(self, until: float) -> None:
        while not self.done() and monotonic() < until:
            wait(monotonic, self._condition, until)

    def _interrupted(self) -> NoReturn:
        frame = self._frame
        came = frame.came_to if frame is not None else ""
        for call in self.together:
            call.cancel()  # before the wait: or the next of them would be let in meanwhile
        self.cancel()
        until = time.monotonic() + self._interrupt_seconds
        with self._mutex:
            self._wait_till(until)
        title = f"{self.service}.{self.task}"
        if self.done():
            raise Interrupted(f"{title} cancelled{came}; the service is {self._state_of_it()}") from None
        raise Interrupted(
            f"{title} asked to stop{came}; it is still running",
            hint=f"%grym calls shows it; %grym unload {self.service} lets go of it",
        ) from None

    def _state_of_it(self) -> str:
        state = self._lifecycle.state
        return "still ready" if state == "ready" else state

    def __await__(self) -> Generator[Any, None, Any]:
        return self._awaited().__await__()

    async def _awaited(self) -> Any:
        frame = CURRENT.get()
        if frame is None or self.done():
            return await self._ended()
        on = self._frame
        async with resumed_on_loop(frame):
            left = step_aside(frame, on)
            try:
                return await self._ended(frame)
            finally:
                await step_back(left, on)

    async def _ended(self, me: Frame | None = None) -> Any:
        """Return the result on this event loop, with progress shown meanwhile; cancelled, it cancels."""
        with Wait(f"{self.service}.{self.task}") as waits:
            try:
                self._refuse_in_vain(me)
                await ending(self, partial(self._look, me, waits))
            except BaseException as error:
                if not isinstance(error, GrymError):
                    self.cancel()
                if type(error).__name__ == "CancelledError":
                    shown_as(error, self._given_up())
                raise
        return self.result()

    def _look(self, me: Frame | None, waits: Wait) -> None:
        self._refuse_in_vain(me)
        self._tell(waits)

    def _refuse_in_vain(self, me: Frame | None) -> None:
        """Raise when the call that waits was cancelled, or is late: what it asked for ends with it."""
        if me is None:
            return
        try:
            me.check()
        except GrymError:
            if (frame := self._frame) is not None and me in frame.chain():
                self.cancel()
            raise

    def __repr__(self) -> str:
        if not self.done():
            frame = self._frame
            state = "waiting" if frame is None or waits_for(frame) else "running"
            if frame is not None and frame.progress is not None:
                state += f" {frame.progress.told}"
        elif self._exception is not None:
            state = f"failed: {type(self._exception).__name__}"
        else:
            state = f"done: {brief(self._result)}"
        return f"<Call {self.id} {self.service}.{self.task}, {state}>"


def _expire_above(frame: Frame, on_pulse: bool) -> None:
    """End the calls whose deadline a late one shares, as long as can be seen what they wait for."""
    for above in frame.chain():
        if above is not frame and (call := above.call) is not None and above.deadline is not None:
            if above.deadline <= frame.record.ports.clock():
                call.expire(on_pulse=on_pulse)  # and those above it
            return


def _bare_result(id: str, value: Any, error: BaseException | None) -> TaskResult:
    """Return a result without its provenance, where that could not be told."""
    told = error if error is None or isinstance(error, GrymError) else CallCancelled(str(error))
    return TaskResult(id, error is None, status_of(error), value, told.again() if told is not None else None)


def _copy(error: BaseException) -> BaseException:
    return error.again() if isinstance(error, GrymError) else error
