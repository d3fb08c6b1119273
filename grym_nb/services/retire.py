"""How a service lets go of its instance: drain, release, and what takes its place; config set in between."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grym_nb.clock import wait
from grym_nb.errors import CallTimeout, Interrupted, ServiceError, StateError
from grym_nb.render import seconds
from grym_nb.services.failure import describe
from grym_nb.services.frame import CURRENT, current_frame
from grym_nb.services.reads import new_values
from grym_nb.services.waits import aside

if TYPE_CHECKING:
    from grym_nb.services.instance import Instance
    from grym_nb.services.lane import Ticket
    from grym_nb.services.lifecycle import Step
    from grym_nb.services.record import ServiceRecord
    from grym_nb.services.spec import ServiceSpec

__all__ = ["Retirement", "clean_up", "configure", "release", "retire"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Retirement:
    """Why an instance is let go of, and what comes after it."""

    reason: str
    timeout: float | None = None
    spec: ServiceSpec | None = None  # in force once the instance is gone
    close: bool = False
    base: ServiceSpec | None = None  # only while this one is in force
    idle_for: float | None = None  # only when nobody has used it for so many seconds


def retire(record: ServiceRecord, why: Retirement) -> ServiceError | None:
    """Let running calls end and let go of the instance; past the deadline they keep it to themselves.

    Returns what the unload hook raised, told: the instance is gone all the same.
    """
    clock = record.ports.clock
    allowed = record.ports.settings.drain_seconds if why.timeout is None else why.timeout
    deadline = clock() + allowed
    if not _begin(record, why, deadline):
        if record.instance is None:
            record.ports.failures.clear(record.name)  # a failed load left its frames there
        return None
    try:
        _drain(record, deadline)
    except KeyboardInterrupt:
        raise Interrupted(f"{record.name} still has calls running; it was not unloaded") from None
    with record.lock:
        instance, record.instance = record.instance, None
        jobs = []
        trouble = None
        if instance is not None and instance.users:
            instance.retired = True
            jobs = record.lane.renew()
    try:
        if instance is not None and not instance.retired:
            trouble = release(record, instance)
    except KeyboardInterrupt:
        raise Interrupted(f"the unload hook of {record.name} was interrupted; it is unloaded") from None
    finally:
        del instance
        _end(record, why, jobs)
    return trouble


def _end(record: ServiceRecord, why: Retirement, jobs: list[Ticket]) -> None:
    """Put in force what comes after, and let in who waited."""
    record.ports.failures.clear(record.name)
    step = None
    with record.lock:
        if why.spec is not None:
            record.adopt(why.spec)
        if record.lifecycle.state == "draining":
            step = record.move("close" if why.close else "unloaded", why.reason)
        record.condition.notify_all()
    record.lane.start(jobs)
    record.tell(step)


def _begin(record: ServiceRecord, why: Retirement, deadline: float) -> bool:
    """Move to draining; False when there is nothing to drain, and what was asked is done."""
    step: Step | None = None
    with aside(current_frame()), record.lock:
        try:
            record.settle(deadline)
        except CallTimeout:
            if not why.close:
                raise
        if why.base is not None and record.spec is not why.base:
            return False
        if why.close:
            record.closed_because = why.reason
        state = record.lifecycle.state
        if state == "ready":
            idle = record.ports.clock() - record.last_used
            if why.idle_for is None or (not record.users and idle >= why.idle_for):
                step = record.move("drain", why.reason)
        elif state != "closed":
            if why.spec is not None:
                record.adopt(why.spec)
            if why.close:
                step = record.move("close", why.reason)
            elif state == "failed":
                step = record.move("reset", why.reason)
            record.condition.notify_all()
    record.tell(step)
    return step is not None and step.after == "draining"


def _drain(record: ServiceRecord, deadline: float) -> None:
    """Wait until nobody is inside, or the deadline; an interrupt puts the service back in service."""
    clock = record.ports.clock
    try:
        with aside(current_frame()), record.lock:
            while record.users and clock() < deadline:
                wait(clock, record.condition, deadline)
    except BaseException:
        _resume(record, "interrupted")
        raise


def _resume(record: ServiceRecord, reason: str) -> None:
    with record.lock:
        step = record.move("resume", reason) if record.lifecycle.state == "draining" else None
        record.condition.notify_all()
    record.tell(step)


def release(record: ServiceRecord, instance: Instance) -> ServiceError | None:
    """Run the instance's unload hook and let go of it; return what the hook raised, told."""
    model, instance.model = instance.model, None
    hook = getattr(model, "unload", None)
    if hook is None:
        return None
    token = CURRENT.set(record.frame("unload"))
    try:
        hook()
    except Exception as error:
        failure = describe(error, service=record.name, task="unload", version=instance.version)
        record.last_error = failure
        _log.warning("unload of %s raised %s: %s", record.name, type(error).__name__, error)
        return ServiceError(
            f"{record.name} is unloaded, but its unload hook raised {failure.error}: {failure.message}",
            cause=str(failure.sites[-1]) if failure.sites else "",
            hint="what the hook was to release may still be held",
            service=record.name,
        )
    finally:
        CURRENT.reset(token)
    return None


def clean_up(name: str, model: Any) -> None:
    """Run the unload hook of a half-made instance; what it raises is only logged."""
    hook = getattr(model, "unload", None)
    if hook is not None:
        try:
            hook()
        except Exception:
            _log.warning("unload of the half-loaded %s raised", name, exc_info=True)


def configure(record: ServiceRecord, spec: ServiceSpec, base: ServiceSpec | None) -> str | None:
    """Take a new config; see `ServiceRecord.configure`."""
    deadline = record.ports.clock() + record.ports.settings.drain_seconds
    while True:
        with aside(current_frame()), record.lock:
            record.settle(deadline)
            if record.lifecycle.state == "closed":
                raise record.closed()
            before, instance = record.spec, record.instance
            if base is not None and before is not base:
                return None
            if instance is None:
                record.adopt(spec)
                return "at load"
        values, read = new_values(instance, before, spec), instance.read
        if record.instance is not instance:
            continue  # it went while `__init__` was tried
        if values is None or (read is None and values) or set(values) & (read or frozenset()):
            retire(record, Retirement("config that load reads changed", spec=spec, base=base))
            return "reloads" if base is None or record.spec is not base else None
        if _set(record, instance, values, before, spec):
            return "in place"


def _set(
    record: ServiceRecord,
    instance: Instance,
    values: Mapping[str, Any],
    before: ServiceSpec,
    spec: ServiceSpec,
) -> bool:
    """Set attributes of the resident model while no call runs, and make `spec` the one in force.

    False when another model or spec is there by now.
    """
    allowed = record.ports.settings.drain_seconds
    with record.lock:
        there = record.instance is instance and record.spec is before
        if record.lifecycle.state != "ready" or not there:
            return False
        step = record.move("drain", "new config")
    record.tell(step)
    _drain(record, step.at + allowed)
    with record.lock:
        idle = not record.users
        if idle:
            vars(instance.model).update(values)
            record.adopt(spec)
    _resume(record, "new config" if idle else "calls still run")
    if not idle:
        raise StateError(
            f"{record.name} was not configured: calls still run after {seconds(allowed)}",
            hint="cancel them (%grym calls) or try again",
            service=record.name,
        )
    return True
