"""All services of a runtime, by name."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Self

from grym_nb.clock import Clock
from grym_nb.errors import (
    ConfigError,
    DependencyError,
    GrymError,
    LoadFailed,
    Problem,
    ServiceClosed,
    ServiceNotFound,
    closest,
    says_what_it_takes,
)
from grym_nb.events import ServiceRegistered, ServiceRemoved, StateChanged
from grym_nb.metrics import Metrics
from grym_nb.render import brief, redacted
from grym_nb.services.budgets import say_if_beyond
from grym_nb.services.circles import check_needs
from grym_nb.services.frame import Frame, limit_of
from grym_nb.services.handle import ServiceHandle
from grym_nb.services.memory import end_later, unload_idle
from grym_nb.services.model import TaskSpec, clashes
from grym_nb.services.policy import check_layers
from grym_nb.services.ports import Ended, Ports
from grym_nb.services.record import ServiceRecord
from grym_nb.services.reload.sources import Codebase, modules_of
from grym_nb.services.spec import Factory, ServiceSpec
from grym_nb.services.status import StatusTable, status_of
from grym_nb.services.waits import Gate
from grym_nb.settings import Settings
from grym_nb.sizes import Sizes

if TYPE_CHECKING:
    from grym_nb.services.reload.watching import Watching

__all__ = ["ServiceRegistry"]

_GROUP = "grym_nb.services"
_NO_OPTION = "an option of register"
_OPTIONS = (
    *("config", "needs", "memory", "budget", "priority", "ttl", "engine", "concurrency", "version"),
    *("timeout", "retry", "breaker", "max_waiting", "fallback", "device", "exclusive"),
)
_REFUSE: Any = object()


class ServiceRegistry:
    """Services by name, kept alive until they are removed or the registry is closed.

    A mapping from name to `ServiceHandle`. Works alone; a runtime hands in the ports it has wired.
    """

    def __init__(
        self, ports: Ports | None = None, *, settings: Settings | None = None, clock: Clock | None = None
    ) -> None:
        self.ports = ports or Ports(settings=settings, clock=clock)
        self._owns_ports = ports is None
        self._lock = threading.Lock()
        self._handles: dict[str, ServiceHandle] = {}
        self._gate = Gate()
        self.codebase = Codebase()
        self._closed = False
        check_layers(self.ports.settings.policy, self.ports.settings.policies)
        self.ports.events.subscribe(self._arm_idle_limit, StateChanged)

    # -- registering -------------------------------------------------------------------------------

    @says_what_it_takes
    def register(
        self,
        name: str,
        factory: Factory,
        *,
        config: Mapping[str, Any] | None = None,
        needs: tuple[str, ...] | list[str] = (),
        memory: str | int | None = None,
        budget: Sizes = None,
        priority: str | int = "normal",
        ttl: float | None = None,
        engine: str = "inline",
        concurrency: int = 1,
        version: str | None = None,
        timeout: Any = ...,
        retry: Any = ...,
        breaker: Any = ...,
        max_waiting: Any = ...,
        fallback: Any = ...,
        device: Any = ...,
        exclusive: Any = ...,
        **unknown: Any,
    ) -> ServiceHandle:
        """Put a service under `name` and return its handle; nothing is loaded yet.

        `factory` is a class, any callable, or ``"module:attribute"``; `config` its keyword arguments. The
        same registration again changes nothing; a changed one is put in place under the same handle.
        `memory` ("2GB") is what the model takes, `budget` what it may take ("3GB", or {"cuda:0": "3GB"}): one
        that takes more is not loaded. `ttl` are the idle seconds after which it is unloaded, `concurrency` is
        how many calls may compute at a time. `needs` are loaded first; ``"name?"`` is optional. What is
        registered is in force: it undoes what `configure` changed since.

        How its calls are guarded: `timeout` seconds, `retry` (attempts in all, or `Retry(...)`), `breaker`
        (True, or `BreakerPolicy(...)`), `max_waiting` calls in line, `fallback(error, *args, **kwargs)`, and
        the `device` ("cuda:0") on which they take turns with those of other services, unless they say
        `exclusive=False`. Left out, as the settings say; `handle.policy` tells.
        """
        given = {
            "timeout": timeout,
            "retry": retry,
            "breaker": breaker,
            "max_waiting": max_waiting,
            "fallback": fallback,
            "device": device,
            "exclusive": exclusive,
        }
        if unknown:
            shown = redacted(unknown)
            near = {key: closest(key, _OPTIONS, cutoff=0.75) for key in shown}
            meant = ", ".join(f"{key!r}: {told}" for key, told in shown.items() if not near[key])
            other = f"config of the service goes into config={{{meant}}}; " if meant else ""
            raise ConfigError(
                f"{name!r} cannot be registered",
                problems=[
                    Problem(key, told, f"{_NO_OPTION}.{near[key]}" if near[key] else _NO_OPTION)
                    for key, told in shown.items()
                ],
                hint=f"{other}options: {', '.join(_OPTIONS)}",
                service=str(name),
            )
        spec = ServiceSpec.of(
            name,
            factory,
            config=config,
            needs=needs,
            memory=memory,
            budget=budget,
            priority=priority,
            ttl=ttl,
            engine=engine,
            concurrency=concurrency,
            version=version,
            said={option: value for option, value in given.items() if value is not ...},
        )
        spec.policy(self.ports.settings)  # what the settings say of it is checked now
        self.ports.resources.check_devices(spec.budget)
        if not isinstance(factory, str):
            self.refuse_tasks(name, spec.tasks or {})
            self.codebase.follow(*modules_of(spec))
        with self._lock:
            if self._closed:
                raise ServiceClosed("the registry is closed", service=name)
            check_needs(spec, self._handles)
            handle = self._handles.get(name)
            if handle is None:
                self.ports.metrics.drop(service=name)  # of one that was removed and still drains
                record = ServiceRecord(spec, self.ports, self._gate, self)
                handle = self._handles[name] = ServiceHandle(record, self)
                what: tuple[str, ...] | None = None
            else:
                what = handle._record.spec.differs(spec)
        record = handle._record
        if what is None:
            self.ports.events.publish(ServiceRegistered(self.ports.clock(), name, record.version))
        elif what:
            record.respec(spec, what)
            if "budget" in what and (instance := record.instance) is not None and instance.reservation:
                say_if_beyond(record, instance.reservation.sizes, "its budget was changed")
            self._arm(record)
        else:
            record.spec.note(spec)
        return handle

    def reconfigure(self, record: ServiceRecord, changes: Mapping[str, Any]) -> str:
        """Give a service a changed config; see `ServiceHandle.configure`."""
        while True:  # until nobody has changed it meanwhile
            base = record.spec
            spec = replace(base, config={**base.config, **changes})
            spec.check("configured")
            if not base.differs(spec):
                return "unchanged"
            if how := record.configure(spec, base):
                return how

    def discover(self) -> tuple[str, ...]:
        """Register, unloaded, what installed packages declare as `grym_nb.services`; return the new names."""
        from importlib.metadata import entry_points

        new = []
        for point in entry_points(group=_GROUP):
            if point.name not in self._handles:
                self.register(point.name, f"{point.module}:{point.attr}")
                new.append(point.name)
        return tuple(new)

    @says_what_it_takes
    def remove(self, name: str, timeout: float | None = None) -> None:
        """Unload a service and forget it; its handle raises `ServiceClosed` from then on."""
        record = self[name]._record
        timeout = limit_of(timeout)
        record.refuse_from_within("remove", waits=timeout is None)
        with self._lock:
            if self._handles.get(name) is None or self._handles[name]._record is not record:
                raise self._not_found(name)
            needed_by = self._needed_by(name)
            if needed_by:
                raise DependencyError(
                    f"{name} is needed by {', '.join(needed_by)}",
                    hint=f"remove {needed_by[0]} first",
                    service=name,
                    path=(needed_by[0], name),
                )
            handle = self._handles.pop(name)
            record.metrics = Metrics()  # from here on the name may be another's
        try:
            record.close(timeout)
        finally:
            closed = record.lifecycle.state == "closed"
            with self._lock:
                if not closed:  # interrupted: it is as it was
                    self._handles.setdefault(name, handle)
                    record.metrics = self.ports.metrics
                elif name not in self._handles:
                    self.ports.metrics.drop(service=name)
            if closed:
                self.ports.events.publish(ServiceRemoved(self.ports.clock(), name))

    def _needed_by(self, name: str) -> list[str]:
        return [n for n, h in self._handles.items() if name in h._record.spec.needs]

    # -- finding -----------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> ServiceHandle:
        try:
            return self._handles[name]
        except KeyError:
            pass
        except TypeError:  # no name at all
            raise self._not_found(name) from None
        if not self._closed and name in self.discover():
            return self._handles[name]
        raise self._not_found(name)

    @says_what_it_takes
    def get(self, name: str, default: Any = _REFUSE) -> Any:
        """Return the handle of that name; an unknown one raises, or gives `default` if there is one."""
        if default is not _REFUSE and name not in tuple(self._handles):
            return default
        return self[name]

    def _not_found(self, name: str) -> ServiceNotFound:
        known = sorted(self._handles)
        return ServiceNotFound(
            f"no service {brief(name)}.{closest(str(name), known)}",
            hint=f"registered: {', '.join(known) or 'none yet'}",
            service=str(name),
        )

    def __contains__(self, name: object) -> bool:
        return name in self._handles

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._handles))

    def __len__(self) -> int:
        return len(self._handles)

    def handles(self) -> tuple[ServiceHandle, ...]:
        """Return all handles, in the order in which they were registered."""
        return tuple(self._handles.copy().values())

    def able(self, type: str) -> tuple[ServiceHandle, ...]:
        """Return the services that declare a task of that type."""
        return tuple(h for h in self.handles() if any(spec.type == type for spec in h.tasks))

    def types(self) -> tuple[str, ...]:
        """Return every task type that some service declares."""
        return tuple(sorted({spec.type for handle in self.handles() for spec in handle.tasks}))

    @cached_property
    def watching(self) -> Watching:
        """Whether files of its services are reloaded as they are saved: ``watching.on()``."""
        from grym_nb.services.reload.watching import Watching

        return Watching(self)

    # -- looking -----------------------------------------------------------------------------------

    def status(self) -> StatusTable:
        """Return a snapshot of all services; loads nothing."""
        return StatusTable(tuple(status_of(handle._record) for handle in self.handles()))

    def running(self) -> tuple[Frame, ...]:
        """Return the calls inside a service now, oldest first."""
        frames = [frame for handle in self.handles() for frame in handle._record.lane.frames()]
        return tuple(sorted(frames, key=lambda frame: frame.id))

    def waiting(self) -> tuple[Frame, ...]:
        """Return the calls in line, service by service, the next of each first, and then those that pause."""
        records = [handle._record for handle in self.handles()]
        return tuple(frame for record in records for frame in (*record.lane.line(), *record.pausing))

    def calls(self) -> tuple[Ended, ...]:
        """Return the last calls that ended, oldest first."""
        return tuple(Ended._make(call) for call in self.ports.calls.copy())

    def _ipython_key_completions_(self) -> tuple[str, ...]:
        return tuple(self)

    def __repr__(self) -> str:
        return repr(self.status())

    def _repr_html_(self) -> str:
        return self.status()._repr_html_()

    # -- needs (what a record asks its family) -----------------------------------------------------

    def before(self, record: ServiceRecord) -> list[ServiceRecord]:
        """Return everything `record` needs, directly or not, in the order in which to load it."""
        order: dict[str, ServiceRecord] = {}
        trail: list[tuple[ServiceRecord, Iterator[str]]] = [(record, iter(record.spec.needs))]
        entered = {record.name}
        while trail:
            at, needs = trail[-1]
            for need in needs:
                handle = self._handles.get(need.rstrip("?"))
                if handle is None:
                    if need.endswith("?"):
                        continue
                    raise LoadFailed(
                        f"{record.name} could not be loaded: {at.name} needs {need}, which is not registered",
                        hint=f"register {need}",
                        service=record.name,
                        path=(*(r.name for r, _ in trail), need),
                    )
                if handle.name in entered and handle.name not in order:
                    path = (*(r.name for r, _ in trail), handle.name)
                    raise LoadFailed(
                        f"{record.name} could not be loaded: {handle.name} needs itself",
                        cause=" → ".join(path),
                        hint="break the circle",
                        service=record.name,
                        path=path,
                    )
                if handle.name not in entered:
                    entered.add(handle.name)
                    trail.append((handle._record, iter(handle._record.spec.needs)))
                    break
            else:
                trail.pop()
                if at is not record:
                    order[at.name] = at
        return list(order.values())

    def family_of(self, record: ServiceRecord) -> list[ServiceRecord]:
        """Return `record` after everything it needs, as far as that is there."""
        try:
            return [*self.before(record), record]
        except LoadFailed:
            return [record]

    def optional(self, record: ServiceRecord, need: ServiceRecord) -> bool:
        """Tell whether `record` can do without `need`: no way of must-haves leads from one to the other."""
        seen, open_names = set(), [record.name]
        while open_names:
            handle = self._handles.get(open_names.pop())
            for name in handle._record.spec.needs if handle is not None else ():
                if name == need.name:
                    return False
                if not name.endswith("?") and name not in seen:
                    seen.add(name)
                    open_names.append(name)
        return True

    def required(self, record: ServiceRecord) -> list[ServiceRecord]:
        """Return of everything that `record` needs what it cannot do without."""
        return [need for need in self.before(record) if not self.optional(record, need)]

    def wired(self, record: ServiceRecord) -> dict[str, ServiceHandle | None]:
        """Return the handles of the direct needs by name; None for an optional one that is not there."""
        needs: dict[str, ServiceHandle | None] = {}
        for need in record.spec.needs:
            handle = self._handles.get(need.rstrip("?"))
            missing = handle is None or (need.endswith("?") and handle.state == "failed")
            needs[need.rstrip("?")] = None if missing else handle
        return needs

    def refuse_tasks(self, name: str, tasks: Mapping[str, TaskSpec]) -> None:
        """Raise when a task bears a name that a handle has itself, or two have the same type."""
        hidden = sorted(set(tasks) & set(dir(ServiceHandle)))
        problems = [
            Problem(f"task {task}", "a name the handle itself has", "another name") for task in hidden
        ]
        problems += clashes(tasks)
        if problems:
            raise ConfigError(f"{name!r} cannot be registered", problems=problems, service=name)

    # -- idle limits -------------------------------------------------------------------------------

    def _arm_idle_limit(self, event: StateChanged) -> None:
        handle = self._handles.get(event.service)
        if event.after == "ready" and handle is not None:
            self._arm(handle._record)

    def _arm(self, record: ServiceRecord) -> None:
        ttl = record.spec.ttl
        if ttl is not None and not self._closed and record.lifecycle.state == "ready":
            self._arm_at(record, max(record.last_used + ttl, self.ports.clock()))

    def _arm_at(self, record: ServiceRecord, due: float) -> None:
        entry = self.ports.pulse.at(due, partial(self._unload_idle, record), name=f"ttl of {record.name}")
        before, record.idle_timer = record.idle_timer, entry
        if before is not None:
            before.cancel()

    def _unload_idle(self, record: ServiceRecord) -> None:
        ttl, now = record.spec.ttl, self.ports.clock()
        if ttl is None or record.lifecycle.state != "ready":
            return
        if record.users:
            self._arm_at(record, now + ttl)
        elif now - record.last_used < ttl:
            self._arm(record)
        else:
            self.ports.pulse.work(partial(self._unload_if_idle, record), name=f"unload of idle {record.name}")

    def _unload_if_idle(self, record: ServiceRecord) -> None:
        ttl = record.spec.ttl
        parked = None if ttl is None else unload_idle(record, ttl)
        self._arm(record)  # a call came before us: its idle time begins anew
        if parked is not None:  # beside its accelerator it has as long again
            end_later(record, parked)

    # -- the end -----------------------------------------------------------------------------------

    def close(self, timeout: float | None = None) -> tuple[str, ...]:
        """Close every service, dependants before what they need; return what still runs afterwards.

        Running calls have `timeout` seconds (the settings' `drain_seconds`) to end, all together.
        """
        timeout = limit_of(timeout)
        for handle in self.handles():
            handle._record.refuse_from_within("close", waits=False)
        if "watching" in self.__dict__:
            self.watching.off()
        with self._lock:
            self._closed = True
        clock = self.ports.clock
        until = clock() + (self.ports.settings.drain_seconds if timeout is None else timeout)
        for record in self._closing_order():
            try:
                record.close(max(0.0, until - clock()), reason="the registry was closed")
            except GrymError:
                continue  # told by the record already; the others are closed all the same
        return self.ports.close() if self._owns_ports else ()

    def _closing_order(self) -> list[ServiceRecord]:
        order: dict[str, ServiceRecord] = {}
        for handle in self.handles():
            for record in self.family_of(handle._record):
                order.setdefault(record.name, record)
        return list(order.values())[::-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
