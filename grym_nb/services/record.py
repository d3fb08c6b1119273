"""One service: its spec, state, instance and verdict; how calls come in and out.

All state is under one condition, shared with the lane. User code (factory, hooks, tasks) and subscribers
run outside of it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from grym_nb.errors import (
    CallBlocked,
    CallTimeout,
    LoadFailed,
    Problem,
    ServiceClosed,
    StateError,
    TaskNotFound,
    ValidationError,
    closest,
)
from grym_nb.events import ServiceChanged, StateChanged
from grym_nb.render import brief
from grym_nb.services.failure import Failure
from grym_nb.services.frame import PLAIN, Frame, Waits, current_frame, limit_of
from grym_nb.services.guards import guard
from grym_nb.services.instance import Attempt, Footprint, Instance
from grym_nb.services.lane import Lane
from grym_nb.services.lifecycle import Lifecycle, Move, Step
from grym_nb.services.loading import end_load, load
from grym_nb.services.mending import refuse_load_within, wake_if_idle
from grym_nb.services.model import TaskSpec
from grym_nb.services.progress import Wait, wait_a_while
from grym_nb.services.reload.reloading import redefine
from grym_nb.services.reload.report import Reload, noted
from grym_nb.services.reload.tape import Tape
from grym_nb.services.retire import Drain, Retirement, configure, release, retire
from grym_nb.services.turns import give, resumed
from grym_nb.services.waits import Gate, aside

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from grym_nb.errors import GrymError
    from grym_nb.hardening import RetryBudget
    from grym_nb.metrics import Counter, Histogram
    from grym_nb.pulse import Entry
    from grym_nb.services.family import Family
    from grym_nb.services.policy import CallPolicy
    from grym_nb.services.ports import Breaker, Ports
    from grym_nb.services.spec import ServiceSpec

__all__ = ["ServiceRecord"]


class ServiceRecord:
    """One service under its name. Callers hold a `ServiceHandle`; this is what it stands for."""

    # How its calls are guarded: see `guards.guard`.
    policy: CallPolicy
    timeout: float | None
    breaker: Breaker | None = None
    retry: Callable[[Frame, Callable[[Frame], Any]], Any] | None
    retry_budget: RetryBudget | None = None
    fallback: Callable[[Frame, GrymError], Any] | None
    wrapped: bool  # a call may be more than one attempt

    stands_for: ServiceRecord | None = None  # beside which it is loaded: see `reload.beside`
    admit: Callable[[ServiceRecord, Frame], AbstractContextManager[Any]] | None = None  # to load in its room
    given_up = ""  # why nobody tries to load it any more, unless somebody says so
    proves = 0.0  # seconds in which what is loaded now has to answer a ping, before any call gets to it

    def __init__(self, spec: ServiceSpec, ports: Ports, gate: Gate, family: Family) -> None:
        self.name = spec.name
        self.spec = spec
        self.ports = ports
        self.health = "unknown"  # judged from above
        self.health_reason = ""
        self.lock = threading.RLock()  # which knows whose it is: see `clock.wait`, and `Hold.drop`
        self.condition = threading.Condition(self.lock)
        self.lifecycle = Lifecycle(spec.name, ports.clock(), story_length=ports.settings.story_length)
        self.lane = Lane(
            spec.name,
            spec.concurrency,
            clock=ports.clock,
            workers=ports.workers,
            lock=self.lock,
            condition=self.condition,
            ageing_seconds=ports.settings.ageing_seconds,
        )
        self.instance: Instance | None = None
        self.drain: Drain | None = None  # while it is draining
        self.pausing: tuple[Frame, ...] = ()  # calls between two attempts, in no line
        self.queued = 0  # calls that were accepted and have not entered yet
        self.code_version = self.newest = 1
        self.specs = {1: spec}  # of the last versions
        self.tape = Tape()
        self.reloads: tuple[Reload, ...] = ()  # what came of the last ones
        self.config_version = 1
        self.loads = 0
        self.load_seconds: float | None = None
        self.footprint = Footprint()
        self.last_used = ports.clock()
        self.last_error: Failure | None = None
        self.closed_because = ""
        self.idle_timer: Entry | None = None
        self.metrics = ports.metrics
        guard(self, ("code",))
        self._gate = gate
        self._family = family
        self._attempt: Attempt | None = None
        self._serving: Instance | None = None  # the instance while the state is ready: the usual case
        self._tasks: dict[str, TaskSpec] | None = None
        self.meters: dict[tuple[str, str], Histogram] = {}
        self.by_version: dict[tuple[str, int, str], Histogram] = {}  # of code and config, once there are two
        self.strays: dict[tuple[str, str], Histogram] = {}  # of these, what ended in a model let go of
        self.waits: dict[tuple[str, Waits], Histogram] = {}
        self.flows: dict[str, Counter] = {}  # calls from inside other services, by these

    # -- what it is --------------------------------------------------------------------------------

    @property
    def version(self) -> str:
        """The version of the code: the author's label, else ``v1``, ``v2``, ... as it changes."""
        return self.spec.label or f"v{self.code_version}"

    @property
    def tasks(self) -> dict[str, TaskSpec] | None:
        """The tasks by method name; None while only loading would tell."""
        if self._tasks is None:
            self._tasks = self.spec.tasks
        made = self.instance if self._tasks is None else None
        return self._tasks if made is None else made.tasks

    @property
    def known_tasks(self) -> dict[str, TaskSpec]:
        """The tasks as far as they are known: none while only loading, or a mended import, would tell."""
        try:
            return self.tasks or {}
        except LoadFailed:
            return {}

    def task(self, name: str) -> TaskSpec:
        """Return the task of that method name or type; loads only if nothing else can tell."""
        tasks = self._tasks
        if tasks is not None and name in tasks:
            return tasks[name]
        tasks = self.tasks
        if tasks is None:
            self.load()
            tasks = self._tasks or {}
        for spec in tasks.values():
            if name in (spec.method, spec.type):
                return spec
        known = [spec.method for spec in tasks.values()]
        raise TaskNotFound(
            f"{self.name} has no task {name!r}.{closest(name, known)}",
            hint=f"it has: {', '.join(known) or 'none'}",
            service=self.name,
            task=name,
        )

    def named(self, task: object) -> TaskSpec:
        """Return the task that a caller names by method or type."""
        if isinstance(task, str):
            return self.task(task)
        problem = Problem("task", brief(task), "a method's name, or a task type")
        hint = f"{self.name} has: {', '.join(self.known_tasks)}; a Task goes to submit or execute"
        raise ValidationError("this names no task", problems=[problem], hint=hint)

    # -- step 6 of a call: in and out --------------------------------------------------------------

    def accept(self, frame: Frame) -> None:
        """Count a submitted call in before it is in line, so that an unload waits for it."""
        with self.lock:
            if self.lifecycle.state == "closed":
                raise self.closed()
            if self.lifecycle.state != "draining":
                frame.counted = True
                self.queued += 1

    def enter(self, frame: Frame, *, slot: bool = False) -> Instance:
        """Count the call in, loading first if need be: until it leaves, nothing unloads the service.

        With `slot`, a free one is taken under the same lock; `Lane.take` waits for it otherwise.
        """
        with self.lock:
            instance = self._serving
            if instance is not None:
                # Straight on, without a call: so Ctrl-C cannot come before the frame knows it is inside.
                instance.users += 1
                frame.instance = instance
                frame.inside = True
                if frame.counted:
                    frame.counted = False
                    self.queued -= 1
                if slot and frame.parent is None and frame.place is None:
                    self.lane.take_at_once(frame)
                return instance
        with frame.waiting("load"):
            return self._enter(frame)

    def _enter(self, frame: Frame) -> Instance:
        """Count the call in, once it is loaded or whoever loads or drains it has ended."""
        while True:
            mine: Attempt | None = None
            try:
                with self.lock:
                    state = self.lifecycle.state
                    if state == "ready" or (
                        state == "draining"
                        and self.instance is not None
                        and (frame.counted or frame.awaited or frame.within(self))
                    ):
                        return self.count_in(frame)
                    if state == "closed":
                        raise self.closed()
                    if state == "draining" and frame.within(self):
                        raise StateError(
                            f"{self.name}.unload calls {self.name} itself, which is gone by then",
                            hint="ask it before it is unloaded, or use the instance's own methods",
                            service=self.name,
                        )
                    refuse_load_within(self, frame)
                    attempt, drain = self._attempt, self.drain
                    if state in ("registered", "failed"):
                        mine = self._attempt = Attempt(self._load_frame(frame))
                        step = self.move("load", f"for {frame.title}")
                if mine is not None:
                    self.tell(step)
                    load(self, mine, frame)
                    if frame.inside and frame.instance is not None:
                        return frame.instance
                elif attempt is not None:
                    self._wait_for(attempt, frame)
                else:
                    self._wait_for_drain(drain, frame)
            finally:
                if mine is not None and not mine.over:  # Ctrl-C came before it had begun
                    end_load(self, mine, "load_stopped", "interrupted")

    def leave(self, frame: Frame) -> None:
        """Count the call out, its slot given back; the last one out of an instance let go of releases it."""
        instance = frame.instance
        if instance is None or not frame.inside:
            return
        with self.lock:
            given_back = self.lane.leave_at_once(frame)
            if given_back:
                last = self._count_out(frame, instance)
        if not given_back:
            self.lane.leave(frame)
            with self.lock:
                last = self._count_out(frame, instance)
        if last:
            release(self, instance)

    def leave_at_once(self, frame: Frame) -> None:
        """Count the call out if that wakes nobody and takes no lock but ours."""
        instance = frame.instance
        with self.lock:
            if instance is not None and not instance.retired and self.lane.leave_at_once(frame):
                self._count_out(frame, instance)

    def let_go(self, frame: Frame) -> None:
        """Give back whatever a call still holds that Ctrl-C cut short; does nothing twice."""
        give(frame)
        self.lane.leave(frame)
        self.leave(frame)
        self.abandon(frame)

    def _count_out(self, frame: Frame, instance: Instance) -> bool:
        if not frame.inside:
            return False
        frame.inside = False
        instance.users -= 1
        if instance.users:
            return False
        if self.lifecycle.state == "draining":
            self.condition.notify_all()
        if instance.wanted:
            wake_if_idle(self)
        return instance.retired

    def abandon(self, frame: Frame) -> None:
        """Count out a call that was accepted and never entered."""
        with self.lock:
            if frame.counted:
                frame.counted = False
                self.queued -= 1
                self.condition.notify_all()
                wake_if_idle(self)

    def count_in(self, frame: Frame) -> Instance:
        """Count a call in (held): from here on nothing unloads the instance."""
        instance = self.instance
        assert instance is not None
        instance.users += 1
        frame.instance = instance
        frame.inside = True
        frame.awaited = False
        if frame.counted:
            frame.counted = False
            self.queued -= 1
        return instance

    def _wait_for(self, attempt: Attempt, frame: Frame) -> None:
        """Wait for somebody else's load; raise a copy of its error."""
        frame.refuse_on_loop()
        with aside(frame.parent if frame.inline else frame, attempt.frame):
            self._wait_while(lambda: not attempt.over, frame)
        if attempt.error is not None:
            raise attempt.error.again()

    def _wait_for_drain(self, drain: Drain | None, frame: Frame) -> None:
        """Wait for somebody else's drain; a call for which it waits itself is `awaited`, and let in."""
        frame.refuse_on_loop()
        if self.lane.resting_here() is not None:
            frame.awaited = True  # it waits for a generator, or a `use()`, of this very thread
            return
        self.lane.leave(frame)  # whom the drain waits for may be in line for the very slot
        waiting = drain.waiting if drain is not None else []
        waiting.append(frame)
        try:
            with aside(frame.parent if frame.inline else frame, drain):
                self._wait_while(lambda: self.lifecycle.state == "draining" and not frame.awaited, frame)
        finally:
            waiting.remove(frame)

    def _wait_while(self, holds: Callable[[], bool], frame: Frame) -> None:
        with Wait(frame.title) as waits:
            while True:
                with self.lock:
                    if not holds():
                        return
                    if frame.deadline is not None and self.ports.clock() >= frame.deadline:
                        raise frame.timeout(f"{self.name}, which is {self.lifecycle.state}")
                    frame.check()
                    what = self.waited_for()
                    wait_a_while(self.ports.clock, self.condition, frame.deadline)
                waits.on(what)

    # -- load --------------------------------------------------------------------------------------

    def load(self) -> None:
        """Load now, if it is not loaded yet; raises what the load raises."""
        frame = self.frame("enter")
        self.given_up = ""
        try:
            try:
                with resumed(frame.parent):
                    self.enter(frame)
            finally:
                self.let_go(frame)
        finally:
            self.let_go(frame)  # had Ctrl-C cut the first short

    def _load_frame(self, cause: Frame) -> Frame:
        frame = self.frame("load")
        frame.parent, frame.deadline = cause, None
        return frame

    # -- change and end ----------------------------------------------------------------------------

    def unload(self, timeout: float | None = None, *, reason: str = "unload") -> None:
        """Wait for running calls, then let go of the instance; the service is registered again.

        After `timeout` seconds (the settings' `drain_seconds`) calls that still run keep the instance to
        themselves until they end.
        """
        timeout = limit_of(timeout)
        self.refuse_from_within("unload", waits=timeout is None)
        if trouble := retire(self, Retirement(reason, timeout)):
            raise trouble

    def respec(self, spec: ServiceSpec, what: tuple[str, ...]) -> None:
        """Put a changed spec in place: options at once, code beside its weights, needs by an unload."""
        if {"code", "needs", "engine"} & set(what):
            self.refuse_from_within("redefine", waits=False)
            if {"needs", "engine"} & set(what) or not redefine(self, spec):
                self.refuse_from_within("redefine")
                retire(self, Retirement("changed " + ", ".join(what), spec=spec))
        elif "config" in what:
            self.configure(spec)
        else:
            with self.lock:
                self.adopt(spec)
        if "concurrency" in what:
            self.lane.resize(spec.concurrency)
        self.ports.events.publish(ServiceChanged(self.ports.clock(), self.name, self.version, what))

    def configure(self, spec: ServiceSpec, base: ServiceSpec | None = None) -> str | None:
        """Take a new config: in place where `load` does not depend on it, else by unloading.

        Returns ``"in place"``, ``"reloads"`` or ``"at load"``; None, with nothing done, when another spec
        than `base` is in force by now.
        """
        self.refuse_from_within("configure")
        return configure(self, spec, base)

    def close(self, timeout: float | None = None, *, reason: str = "removed") -> None:
        """Drain, unload and close for good; calls from now on raise `ServiceClosed`."""
        if trouble := retire(self, Retirement(reason, limit_of(timeout), close=True)):
            raise trouble

    def refuse_from_within(self, verb: str, *, waits: bool = True) -> None:
        """Raise when the caller is inside this service, or has a call of it open: it would wait for itself.

        Who says how long (`waits=False`) may wait for a call that is only open, and go on without it.
        """
        frame = current_frame()
        if frame is not None and (frame.record is self or frame.within(self)):
            raise StateError(
                f"{self.name}.{frame.task} cannot {verb} the service it runs in",
                hint="do it from a cell, or from another service's task",
                service=self.name,
            )
        if waits and (rests := self.lane.resting_here()) is not None:
            raise CallBlocked(
                f"cannot {verb} {self.name}: it would wait for {rests.title}, which is open in this thread",
                hint=rests.how_to_end,
                service=self.name,
            )

    @property
    def users(self) -> int:
        """How many calls are inside or accepted."""
        return self.queued + (self.instance.users if self.instance is not None else 0)

    def adopt(self, spec: ServiceSpec, *, number: int | None = None, report: Reload | None = None) -> None:
        """Make `spec` the one in force (held), as the code's version of that `number`; told by `report`."""
        self.given_up = ""
        if report is not None:  # from here on it is a part of the history, whatever comes after it
            self.reloads = noted(self.reloads, report)
        what = self.spec.differs(spec)
        if number is not None:
            self.code_version = number
            self.newest = max(self.newest, number)
        elif "code" in what:
            self.code_version = self.newest = self.newest + 1
        self.config_version += "config" in what
        self.spec, oldest = spec, self.newest - self.ports.settings.versions_kept
        specs = {**self.specs, self.code_version: spec}  # another one: others read what is there
        self.specs = {at: one for at, one in specs.items() if at > oldest or at == self.code_version}
        self._tasks = None
        guard(self, what if number is None else (*what, "code"))

    def settled(self, deadline: float) -> bool:
        """Tell whether nobody loads or drains, after a while of waiting (held); raises past `deadline`."""
        if self.lifecycle.state not in ("loading", "draining"):
            return True
        if self.ports.clock() >= deadline:
            raise CallTimeout(
                f"{self.name} is still {self.lifecycle.state}",
                hint=f"try again later; %grym status {self.name} says how far it is",
                service=self.name,
            )
        wait_a_while(self.ports.clock, self.condition, deadline)
        return False

    def frame(self, what: str) -> Frame:
        """Return a frame for something that is not a task."""
        return Frame(self, None, (), {}, PLAIN, self.ports.clock(), what=what)

    # -- in words ----------------------------------------------------------------------------------

    def inside(self) -> str:
        """Say which calls are inside, or about to be, for whoever waits for them."""
        frames = self.lane.frames() or self.lane.line()
        told = [f"{frame.title} (call {frame.id}{frame.came_to})" for frame in frames]
        return ", ".join(told[:3]) + (f" and {len(told) - 3} more" if len(told) > 3 else "")

    def waited_for(self) -> str:
        """Say what a call of this service waits for."""
        state = self.lifecycle.state
        return f"a slot of {self.name}" if state == "ready" else f"{self.name}, which is {state}"

    def held_by(self) -> str:
        """Say what a call of this service waits for, and which calls are in its way; takes the lock."""
        inside = self.inside() if self.lifecycle.state == "ready" else ""
        return f"{self.waited_for()}, held by {inside}" if inside else self.waited_for()

    # -- under the condition, and after it ---------------------------------------------------------

    def move(self, move: Move, reason: str = "") -> Step:
        """Make a move (held); whoever makes it calls `tell` once nothing is held."""
        step = self.lifecycle.move(move, self.ports.clock(), reason)
        self._serving = self.instance if step.after == "ready" else None
        return step

    def tell(self, step: Step | None) -> None:
        """Publish a move that was made; what nobody calls yet is nobody's business."""
        if step is not None and self.stands_for is None:
            self.ports.events.publish(StateChanged(step.at, self.name, step.before, step.after, step.reason))

    def closed(self) -> ServiceClosed:
        """Return the error for whoever calls a closed service."""
        return ServiceClosed(f"{self.name} was closed ({self.closed_because or 'closed'})", service=self.name)
