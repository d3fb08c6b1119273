"""One service: its spec, state, instance and verdict; how it is loaded, drained and unloaded.

All state is under one condition, shared with the lane. User code (factory, hooks, tasks) and subscribers
run outside of it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

from grym_nb.clock import wait
from grym_nb.errors import (
    ConfigError,
    GrymError,
    Interrupted,
    LoadFailed,
    ServiceClosed,
    ServiceError,
    ServiceNotReady,
    StateError,
    TaskNotFound,
    closest,
)
from grym_nb.events import ServiceChanged, StateChanged
from grym_nb.render import seconds
from grym_nb.services.failure import Failure, describe
from grym_nb.services.frame import CURRENT, PLAIN, Frame, current_frame
from grym_nb.services.instance import Attempt, Instance
from grym_nb.services.lane import Lane, Ticket
from grym_nb.services.lifecycle import Lifecycle, Move, Step
from grym_nb.services.model import TaskSpec, tasks_of
from grym_nb.services.outcome import load_failed
from grym_nb.services.reads import reads_of, same
from grym_nb.services.waits import Gate, aside

if TYPE_CHECKING:
    from grym_nb.metrics import Histogram
    from grym_nb.services.ports import Ports
    from grym_nb.services.spec import ServiceSpec

__all__ = ["Family", "ServiceRecord"]

_log = logging.getLogger(__name__)


class Family(Protocol):
    """What a record asks of its registry about the services it needs."""

    def before(self, record: ServiceRecord) -> list[ServiceRecord]:
        """Return everything `record` needs, directly or not, in the order in which to load it."""

    def optional(self, record: ServiceRecord, need: ServiceRecord) -> bool:
        """Tell whether `record` can do without `need`."""

    def wired(self, record: ServiceRecord) -> dict[str, Any]:
        """Return the handles of the direct needs by name; None for an optional one that is not there."""


class ServiceRecord:
    """One service under its name. Callers hold a `ServiceHandle`; this is what it stands for."""

    def __init__(self, spec: ServiceSpec, ports: Ports, gate: Gate, family: Family) -> None:
        self.name = spec.name
        self.spec = spec
        self.ports = ports
        self.health = "unknown"  # judged from above
        self.health_reason = ""
        self.lock = threading.Lock()
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
        self.queued = 0  # calls that were accepted and have not entered yet
        self.code_version = 1
        self.config_version = 1
        self.loads = 0
        self.load_seconds: float | None = None
        self.last_used = ports.clock()
        self.last_error: Failure | None = None
        self.closed_because = ""
        self._gate = gate
        self._family = family
        self._attempt: Attempt | None = None
        self._tasks: dict[str, TaskSpec] | None = None
        self.meters: dict[tuple[str, str], Histogram] = {}

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
        return self._tasks

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

    # -- step 6 of a call: in and out --------------------------------------------------------------

    def accept(self, frame: Frame) -> None:
        """Count a submitted call in before it is in line, so that an unload waits for it."""
        with self.condition:
            if self.lifecycle.state == "closed":
                raise self._closed()
            if self.lifecycle.state != "draining":
                frame.counted = True
                self.queued += 1

    def enter(self, frame: Frame) -> Instance:
        """Count the call in, loading first if need be: until it leaves, nothing unloads the service."""
        with self.lock:
            instance = self.instance
            if instance is not None and self.lifecycle.state == "ready":
                instance.users += 1
                if frame.counted:
                    frame.counted = False
                    self.queued -= 1
                frame.instance = instance
                return instance
        while True:
            with self.condition:
                state = self.lifecycle.state
                if state == "ready" or (
                    state == "draining"
                    and self.instance is not None
                    and (frame.counted or frame.within(self))
                ):
                    return self.count_in(frame)
                if state == "closed":
                    raise self._closed()
                self._refuse_load_within(frame)
                attempt, step = self._attempt, None
                if state in ("registered", "failed"):
                    attempt = self._attempt = Attempt()
                    step = self._move("load", f"for {frame.title}")
            if step is not None:
                assert attempt is not None
                self._tell(step)
                self._load(attempt, frame)
            else:
                self._wait_for(attempt, frame)

    def leave(self, frame: Frame) -> None:
        """Count the call out; the last one out of an instance that was let go of also releases it."""
        instance = frame.instance
        last = False
        if instance is None:
            return
        with self.lock:
            instance.users -= 1
            if not instance.users:
                last = instance.retired
                if self.lifecycle.state == "draining":
                    self.condition.notify_all()
        if last:
            self._release(instance)

    def abandon(self, frame: Frame) -> None:
        """Count out a call that was accepted and never entered."""
        with self.condition:
            if frame.counted:
                frame.counted = False
                self.queued -= 1
                self.condition.notify_all()

    def count_in(self, frame: Frame) -> Instance:
        """Count a call in (held): from here on nothing unloads the instance."""
        instance = self.instance
        assert instance is not None
        instance.users += 1
        if frame.counted:
            frame.counted = False
            self.queued -= 1
        frame.instance = instance
        return instance

    def _refuse_load_within(self, frame: Frame) -> None:
        loader = frame.loading()
        if loader is None or frame.what == "hold":
            return
        if loader.record is self:
            raise StateError(f"{self.name} calls itself inside its own load", service=self.name)
        raise ServiceNotReady(
            f"{self.name} is {self.lifecycle.state}, and {loader.record.name} calls it inside its load",
            hint=f'declare it: needs = ("{self.name}",) in {loader.record.name}; it is then loaded first',
            service=self.name,
        )

    def _wait_for(self, attempt: Attempt | None, frame: Frame) -> None:
        """Wait for somebody else's load or unload; raise a copy of the load's error."""
        on = attempt.frame if attempt is not None else None
        with aside(frame.parent if frame.inline else None, on), self.condition:
            while not attempt.over if attempt is not None else self.lifecycle.state == "draining":
                if frame.deadline is not None and self.ports.clock() >= frame.deadline:
                    raise frame.timeout(f"{self.name}, which is {self.lifecycle.state}")
                if frame.cancelled:
                    raise frame.cancellation()
                wait(self.ports.clock, self.condition, frame.deadline)
        if attempt is not None and attempt.error is not None:
            raise attempt.error.again()

    # -- load --------------------------------------------------------------------------------------

    def load(self) -> None:
        """Load now, if it is not loaded yet; raises what the load raises."""
        frame = self._frame("hold")
        self.enter(frame)
        self.leave(frame)

    def _frame(self, what: str) -> Frame:
        return Frame(self, None, (), {}, PLAIN, self.ports.clock(), what=what)

    def _load(self, attempt: Attempt, cause: Frame) -> None:
        """Load, with what is needed loaded first and held as long as it lasts."""
        frame = attempt.frame = self._frame("load")
        frame.parent, frame.deadline = cause, None
        move: Move = "load_stopped"
        reason = "interrupted"
        held: list[tuple[ServiceRecord, Frame]] = []
        began = self.ports.clock()
        try:
            for need in self._family.before(self):
                holder = need._frame("hold")
                holder.parent = frame
                if self._hold(need, holder):
                    held.append((need, holder))
                    frame.holds = (*frame.holds, need)
            with self.ports.admit(self) if self.ports.admit is not None else nullcontext():
                instance = self._construct(frame)
            move, reason = "loaded", ""
        except GrymError as error:
            attempt.error = error
            move, reason = "load_failed", error.message
            raise
        except KeyboardInterrupt:
            raise Interrupted(f"loading {self.name} was interrupted; the next call loads it anew") from None
        finally:
            frame.end()
            for need, holder in reversed(held):
                need.leave(holder)
            with self.condition:
                if move == "loaded":
                    instance.epoch = self.lane.epoch
                    self.instance = instance
                    self._tasks = tasks_of(type(instance.model))
                    self.loads += 1
                    self.load_seconds = self.last_used = self.ports.clock()
                    self.load_seconds -= began
                step = self._move(move, reason)
                attempt.over = True
                self._attempt = None
                self.condition.notify_all()
            self._tell(step)

    def _hold(self, need: ServiceRecord, holder: Frame) -> bool:
        """Load and count in a need; False for an optional one that cannot be had."""
        try:
            need.enter(holder)
            return True
        except (LoadFailed, ServiceClosed) as error:
            if self._family.optional(self, need):
                _log.warning("%s goes on without %s: %s", self.name, need.name, error.message)
                return False
            raise LoadFailed(
                f"{self.name} could not be loaded: its need {need.name} failed",
                cause=error.cause or error.message,
                hint=f"mend {need.name} first; %grym why shows where it failed",
                service=self.name,
                path=(self.name, *error.details.get("path", (need.name,))),
            ) from None

    def _construct(self, frame: Frame) -> Instance:
        assert self._gate is not None
        model: Any = None
        token = CURRENT.set(frame)
        try:
            with self._gate.held_by(frame):
                model = self._make()
                read = reads_of(model)
                hook = getattr(model, "warm_up", None)
                if hook is not None:
                    hook()
            return Instance(model, self.version, self.ports.clock(), read)
        except GrymError as error:
            failure = error if isinstance(error, LoadFailed) else load_failed(self, error)
            self._clean_up(model)
            raise failure from None
        except KeyboardInterrupt:
            self._clean_up(model)
            raise
        except Exception as error:
            failure = load_failed(self, error)
            self._clean_up(model)
            raise failure from None
        finally:
            CURRENT.reset(token)

    def _make(self) -> Any:
        """Return a new, unloaded instance from the factory, its needs wired."""
        spec = self.spec
        if isinstance(spec.factory, str):
            spec.check()
        model = spec.callable(**spec.config)
        if model is None:
            raise TypeError(f"the factory of {self.name} returned None")
        if spec.needs:
            model.needs = SimpleNamespace(**self._family.wired(self))
        return model

    def _clean_up(self, model: Any) -> None:
        """Run the unload hook of a half-made instance; what it raises is only logged."""
        hook = getattr(model, "unload", None)
        if hook is not None:
            try:
                hook()
            except Exception:
                _log.warning("unload of the half-loaded %s raised", self.name, exc_info=True)

    # -- drain and unload --------------------------------------------------------------------------

    def unload(self, timeout: float | None = None, *, reason: str = "unload") -> None:
        """Wait for running calls, then let go of the instance; the service is registered again.

        After `timeout` seconds (the settings' `drain_seconds`) calls that still run keep the instance to
        themselves until they end.
        """
        self.refuse_from_within("unload")
        self._retire(timeout, reason)

    def respec(self, spec: ServiceSpec, what: tuple[str, ...]) -> None:
        """Put a changed spec in place: options at once, code and needs by unloading what is loaded."""
        if {"code", "needs", "engine"} & set(what):
            self.refuse_from_within("redefine")
            self._retire(None, "changed " + ", ".join(what), spec)
        elif "config" in what:
            self.configure(spec)
        else:
            with self.condition:
                self._adopt(spec)
        if "concurrency" in what:
            self.lane.resize(spec.concurrency)
        self.ports.events.publish(ServiceChanged(self.name, self.ports.clock(), self.version, what))

    def close(self, timeout: float | None = None, *, reason: str = "removed") -> None:
        """Drain, unload and close for good; calls from now on raise `ServiceClosed`."""
        with self.condition:
            self.closed_because = self.closed_because or reason
        self._retire(timeout, reason, close=True)

    def refuse_from_within(self, verb: str) -> None:
        """Raise when the caller runs inside this very service, which would wait for itself."""
        frame = current_frame()
        if frame is not None and (frame.record is self or frame.within(self)):
            raise StateError(
                f"{self.name}.{frame.task} cannot {verb} the service it runs in",
                hint="do it from a cell, or from another service's task",
                service=self.name,
            )

    def _adopt(self, spec: ServiceSpec) -> None:
        if "code" in self.spec.differs(spec):
            self.code_version += 1
        self.spec = spec
        self._tasks = None

    def _retire(
        self, timeout: float | None, reason: str, spec: ServiceSpec | None = None, *, close: bool = False
    ) -> None:
        clock = self.ports.clock
        allowed = self.ports.settings.drain_seconds if timeout is None else timeout
        deadline = clock() + allowed
        if not self._begin_drain(deadline, reason, spec, close):
            return
        instance: Instance | None = None
        jobs: list[Ticket] = []
        try:
            with aside(current_frame()), self.condition:
                while (self.queued or self._users()) and clock() < deadline:
                    wait(clock, self.condition, deadline)
        except KeyboardInterrupt:
            with self.condition:
                self.closed_because = ""
                step = self._move("resume", "interrupted")
                self.condition.notify_all()
            self._tell(step)
            raise Interrupted(f"{self.name} still has calls running; it was not unloaded") from None
        with self.condition:
            instance, self.instance = self.instance, None
            if instance is not None and instance.users:
                instance.retired = True
                jobs = self.lane.renew()
        trouble = None
        if instance is not None and not instance.retired:
            trouble = self._release(instance)
        del instance
        self._end_drain(reason, spec, close, jobs)
        if trouble is not None:
            raise trouble

    def _begin_drain(self, deadline: float, reason: str, spec: ServiceSpec | None, close: bool) -> bool:
        """Move to draining; False when there is nothing to drain and what was asked is done."""
        step = None
        with aside(current_frame()), self.condition:
            while self.lifecycle.state in ("loading", "draining"):
                wait(self.ports.clock, self.condition, None)
            state = self.lifecycle.state
            if state == "ready":
                step = self._move("drain", reason)
            elif state != "closed":
                if spec is not None:
                    self._adopt(spec)
                if close:
                    step = self._move("close", reason)
                elif state == "failed":
                    step = self._move("reset", reason)
                self.condition.notify_all()
        self._tell(step)
        return step is not None and step.after == "draining"

    def _end_drain(self, reason: str, spec: ServiceSpec | None, close: bool, jobs: list[Ticket]) -> None:
        self.ports.failures.clear(self.name)
        with self.condition:
            if spec is not None:
                self._adopt(spec)
            step = self._move("close" if close else "unloaded", reason)
            self.condition.notify_all()
        self.lane.start(jobs)
        self._tell(step)

    @property
    def busy(self) -> bool:
        """Whether a call is inside or accepted."""
        return bool(self.queued or self._users())

    def _users(self) -> int:
        return self.instance.users if self.instance is not None else 0

    def _release(self, instance: Instance) -> ServiceError | None:
        """Run the instance's unload hook; what it raises is told, and the instance is let go of anyway."""
        model, instance.model = instance.model, None
        hook = getattr(model, "unload", None)
        if hook is None:
            return None
        frame = self._frame("unload")
        token = CURRENT.set(frame)
        try:
            hook()
        except Exception as error:
            failure = describe(error, service=self.name, task="unload", version=instance.version)
            self.last_error = failure
            _log.warning("unload of %s raised %s: %s", self.name, type(error).__name__, error)
            where = str(failure.sites[-1]) if failure.sites else ""
            return ServiceError(
                f"{self.name} is unloaded, but its unload hook raised {type(error).__name__}: {error}",
                cause=where,
                hint="what the hook was to release may still be held",
                service=self.name,
            )
        finally:
            CURRENT.reset(token)
        return None

    # -- config in place ---------------------------------------------------------------------------

    def configure(self, spec: ServiceSpec) -> str:
        """Take a new config: in place where `load` does not depend on it, else by unloading.

        Returns ``"in place"``, ``"reloads"`` or ``"at load"``.
        """
        self.refuse_from_within("configure")
        with aside(current_frame()), self.condition:
            while self.lifecycle.state in ("loading", "draining"):
                wait(self.ports.clock, self.condition, None)
            instance = self.instance
            if instance is None:
                self._adopt_config(spec)
                return "at load"
        new = self._differing(instance, spec)
        if new is None or (instance.read is None and new) or set(new) & (instance.read or frozenset()):
            self._retire(None, "config that load reads changed", spec)
            with self.condition:
                self.config_version += 1
            return "reloads"
        self._set_drained(instance, new, spec)
        return "in place"

    def _adopt_config(self, spec: ServiceSpec) -> None:
        self._adopt(spec)
        self.config_version += 1

    def _differing(self, instance: Instance, spec: ServiceSpec) -> dict[str, Any] | None:
        """Return the attributes that `__init__` sets differently under the new config; None: cannot tell."""
        try:
            fresh = vars(spec.callable(**spec.config))
            before = vars(self.spec.callable(**self.spec.config))
        except GrymError:
            raise
        except Exception as error:
            raise ConfigError(
                f"{self.name} does not take this config: {type(error).__name__}: {error}",
                hint="nothing was changed",
                service=self.name,
            ) from None
        if type(instance.model) is not spec.made_class or fresh.keys() != before.keys():
            return None
        return {name: value for name, value in fresh.items() if not same(value, before[name])}

    def _set_drained(self, instance: Instance, new: Mapping[str, Any], spec: ServiceSpec) -> None:
        """Set attributes while no call runs."""
        clock = self.ports.clock
        deadline = clock() + self.ports.settings.drain_seconds
        with self.condition:
            step = self._move("drain", "new config")
        self._tell(step)
        done = False
        try:
            with aside(current_frame()), self.condition:
                while (self.queued or instance.users) and clock() < deadline:
                    wait(clock, self.condition, deadline)
                if not (self.queued or instance.users):
                    vars(instance.model).update(new)
                    self._adopt_config(spec)
                    done = True
        finally:
            with self.condition:
                step = self._move("resume", "new config" if done else "calls still run")
                self.condition.notify_all()
            self._tell(step)
        if not done:
            raise StateError(
                f"{self.name} was not configured: calls still run after {seconds(deadline - step.at)}",
                hint="cancel them (%grym calls) or try again",
                service=self.name,
            )

    # -- step 11: what is seen of a call -----------------------------------------------------------

    def meter(self, task: str, outcome: str) -> Histogram:
        """Return the histogram of durations of this task's calls that ended so."""
        meter = self.ports.metrics.histogram(
            "service.call.seconds", service=self.name, task=task, outcome=outcome
        )
        return self.meters.setdefault((task, outcome), meter)

    def waited_for(self) -> str:
        """Say what a call of this service waits for."""
        state = self.lifecycle.state
        return f"a slot of {self.name}" if state == "ready" else f"{self.name}, which is {state}"

    # -- under the condition, and after it ---------------------------------------------------------

    def _move(self, move: Move, reason: str = "") -> Step:
        return self.lifecycle.move(move, self.ports.clock(), reason)

    def _tell(self, step: Step | None) -> None:
        if step is not None:
            self.ports.events.publish(StateChanged(self.name, step.at, step.before, step.after, step.reason))

    def _closed(self) -> ServiceClosed:
        return ServiceClosed(f"{self.name} was closed ({self.closed_because or 'closed'})", service=self.name)
