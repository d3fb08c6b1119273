"""How a service lets go of its instance: drain, release, and what takes its place; config set in between."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from grym_nb.errors import CallTimeout, Interrupted, ServiceError, StateError
from grym_nb.hardening.holders import way
from grym_nb.hardening.remains import Remains
from grym_nb.hardening.returning import give_back
from grym_nb.render import seconds
from grym_nb.render import size as in_words
from grym_nb.services.failure import describe
from grym_nb.services.frame import CURRENT, Awaited, current_frame
from grym_nb.services.progress import Wait, wait_a_while
from grym_nb.services.reads import new_values
from grym_nb.services.tiers import park, parked_in, take
from grym_nb.services.turns import resumed
from grym_nb.services.waits import aside

if TYPE_CHECKING:
    from grym_nb.hardening.reservations import Tenant
    from grym_nb.services.frame import Frame
    from grym_nb.services.instance import Instance
    from grym_nb.services.lifecycle import Step
    from grym_nb.services.places import Ticket
    from grym_nb.services.record import ServiceRecord
    from grym_nb.services.reload.report import Reload
    from grym_nb.services.spec import ServiceSpec
    from grym_nb.services.tiers import Parked

__all__ = [
    "Drain",
    "Retirement",
    "clean_up",
    "configure",
    "once_settled",
    "quiet",
    "release",
    "release_parked",
    "retire",
]

_log = logging.getLogger(__name__)
_WORTH_SAYING = 10_000_000  # bytes that somebody holds
_WORTH_GIVING_BACK = 1_000_000  # bytes: for less, nobody waits for the collector
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Retirement:
    """Why an instance is let go of, and what comes after it."""

    reason: str
    timeout: float | None = None
    spec: ServiceSpec | None = None  # in force once the instance is gone
    number: int | None = None  # of its code, where that is an earlier version's
    close: bool = False
    base: ServiceSpec | None = None  # only while this one is in force
    idle_for: float | None = None  # only when nobody has used it for so many seconds
    report: Reload | None = None  # which tells of the spec, once that is in force
    park: Tenant | None = None  # beside its accelerator, if it is on one: as whose reservation


class Drain(Awaited):
    """A draining under way: only who began it ends it, and calls that come meanwhile wait for it."""

    def __init__(self, record: ServiceRecord) -> None:
        self.record = record
        self.reason = "interrupted"  # for which the service goes on, unless it comes to another end
        self.gone: Instance | None = None  # once it is let go of
        self.waiting: list[Frame] = []  # calls that came meanwhile
        self.jobs: list[Ticket] = []  # which the slots of an instance that still runs let in

    def behind(self) -> Sequence[Awaited] | None:
        """Return the calls it waits for; None when none holds a slot any more, or it waits no longer."""
        return None if self.gone is not None else self.record.lane.frames() or None

    def wake(self) -> None:
        """Let whoever waits with it look again whether that still makes sense."""
        with self.record.lock:
            self.record.condition.notify_all()

    def gives_way(self, circle: Sequence[Awaited]) -> bool:
        """Let in the calls for which it waits itself: they wait for it, and could wait for ever."""
        with self.record.lock:
            there = self._let_in(circle)
            self.record.condition.notify_all()
        return there

    def __str__(self) -> str:
        return self.record.held_by()

    def _let_in(self, circle: Sequence[Awaited]) -> bool:
        mine = [frame for frame in self.waiting if frame in circle or frame.parent in circle]
        for frame in mine:
            frame.awaited = True
        return bool(mine)


def retire(record: ServiceRecord, why: Retirement) -> ServiceError | None:
    """Let running calls end and let go of the instance; past the deadline they keep it to themselves.

    Returns what the unload hook raised, told: the instance is gone all the same.
    """
    clock = record.ports.clock
    allowed = record.ports.settings.drain_seconds if why.timeout is None else why.timeout
    drain = Drain(record)
    trouble: ServiceError | None = None
    parked: Parked | None = None
    try:
        try:
            deadline = clock() + allowed
            if not _begin(record, why, drain, deadline):
                if record.instance is None:
                    record.ports.failures.clear(record.name)  # a failed load left its frames there
                    goes = why.idle_for is None and not (why.number and parked_in(record))
                    if goes and (parked := take(record)) is not None:
                        return release_parked(record, parked)
                return None
            _wait_until_idle(record, deadline, f"unload of {record.name}")
            trouble = _let_go(record, drain, why)
        finally:
            _end(record, drain, why)
    except KeyboardInterrupt:
        gone = drain.gone
        if parked is not None:
            _out_of_the_books(parked.instance)
        if gone is None:
            raise Interrupted(f"{record.name} still has calls running; it was not unloaded") from None
        if not gone.retired and record.footprint.parked is None:
            if gone.model is not None:
                release(record, gone)  # its hook had not begun
            _out_of_the_books(gone)
        raise Interrupted(f"{record.name} was interrupted in its unload; it is unloaded") from None
    finally:
        _end(record, drain, why)  # had Ctrl-C cut the first short
    return trouble


def _let_go(record: ServiceRecord, drain: Drain, why: Retirement) -> ServiceError | None:
    """Take the instance out of the record; released unless calls keep it to themselves, or it is parked."""
    with record.lock:
        instance = drain.gone = record.instance
        assert instance is not None
        record.instance = None
        if instance.users:
            instance.retired = True
            drain.jobs = record.lane.renew()
    record.ports.failures.clear(record.name)
    record.tape.clear()
    if not instance.retired:
        if why.park is not None:
            record.footprint.parked = park(record, instance, why.park)
        return None if record.footprint.parked is not None else release(record, instance)
    record.ports.resources.end_group(instance)
    return None


def _end(record: ServiceRecord, drain: Drain, why: Retirement | None = None) -> None:
    """Put in force what comes after, and let in who waited; does nothing twice."""
    step = None
    with record.lock:
        if record.drain is drain:
            if record.lifecycle.state != "draining":
                pass  # closed by somebody who did not wait for us
            elif drain.gone is None:
                step = record.move("resume", drain.reason)
            else:
                assert why is not None
                record.instance = None
                if why.spec is not None:
                    record.adopt(why.spec, number=why.number, report=why.report)
                step = record.move("close" if why.close else "unloaded", why.reason)
            record.condition.notify_all()
            record.drain = None
    record.lane.start(drain.jobs)  # twice is once: a job has one claimant
    drain.jobs = []
    record.tell(step)
    record.ports.resources.ledger.wake()


def _begin(record: ServiceRecord, why: Retirement, drain: Drain, deadline: float) -> bool:
    """Move to draining; False when there is nothing to drain, and what was asked is done."""
    title = f"unload of {record.name}"
    step = once_settled(record, deadline, title, lambda: _move(record, why, drain), forced=why.close)
    record.tell(step)
    return record.drain is drain


def once_settled(
    record: ServiceRecord, deadline: float, title: str, act: Callable[[], T], *, forced: bool = False
) -> T:
    """Return what `act` does under the lock, when nobody loads or drains; `forced`, also at the deadline."""
    me = current_frame()
    with resumed(me), aside(me), Wait(title) as waits:
        while True:
            what = record.waited_for()
            with record.lock:
                try:
                    settled = record.settled(deadline)
                except CallTimeout:
                    if not forced:
                        raise
                    settled = True
                if settled:
                    return act()
            waits.on(what)


def _move(record: ServiceRecord, why: Retirement, drain: Drain) -> Step | None:
    """Make the first move (held), if what was asked still makes sense."""
    if why.base is not None and record.spec is not why.base:
        return None
    if why.close:
        record.closed_because = why.reason
    state = record.lifecycle.state
    if state == "ready":
        idle = record.ports.clock() - record.last_used
        if why.idle_for is not None and (record.users or idle < why.idle_for):
            return None
        record.drain = drain
        return record.move("drain", why.reason)
    step: Step | None = None
    if state != "closed":
        if why.spec is not None:
            record.adopt(why.spec, number=why.number, report=why.report)
        if why.close:
            step = record.move("close", why.reason)
        elif state == "failed":
            step = record.move("reset", why.reason)
        record.condition.notify_all()
    return step


def _wait_until_idle(record: ServiceRecord, deadline: float, title: str) -> None:
    """Wait until nobody is inside, or the deadline."""
    clock = record.ports.clock
    me = current_frame()
    with resumed(me), aside(me), Wait(title) as waits:
        while True:
            with record.lock:
                if not record.users or clock() >= deadline:
                    return
                wait_a_while(clock, record.condition, deadline)
            waits.on(record.inside())


def release(record: ServiceRecord, instance: Instance) -> ServiceError | None:
    """Run the instance's unload hook and let go of it; return what the hook raised, told."""
    remains, hook = None, None
    try:
        model = instance.let_go()
        if instance.reservation is not None and instance.reservation.size >= _WORTH_GIVING_BACK:
            others = record.ports.resources.ledger.of_others(instance.reservation)
            remains = Remains(record.name, model, apart=others)
        hook = getattr(model, "unload", None)
        del model
        return None if hook is None else _run_hook(record, instance, hook)
    finally:
        del hook  # which is the model's
        try:
            record.ports.weights.release(instance)
            _give_back(record, remains)
        finally:
            _out_of_the_books(instance)  # also where Ctrl-C comes while the collector runs


def release_parked(record: ServiceRecord, parked: Parked) -> ServiceError | None:
    """Let go of what was parked, for good; return what its unload hook raised, told."""
    parked.moved = {}  # else it would be held by this
    return release(record, parked.instance)


def _out_of_the_books(instance: Instance) -> None:
    """Give back what was reserved for an instance; does nothing twice."""
    reservation = instance.reservation
    if reservation is not None:
        reservation.release()
        instance.reservation = None


def _give_back(record: ServiceRecord, remains: Remains | None) -> None:
    """Give memory back to the system, and say what of it somebody still holds."""
    if remains is not None:
        give_back()
        left = sum(remains.alive().values())
        record.ports.resources.leftovers.watch_over(remains)
        if left >= _WORTH_SAYING:
            shown = way("%grym mem", "print(grym.current().resources.memory())")
            _log.warning(
                "%s of %s is still held by something else: %s names it", in_words(left), record.name, shown
            )


def _run_hook(record: ServiceRecord, instance: Instance, hook: Callable[[], object]) -> ServiceError | None:
    frame = record.footprint.unloading = record.frame("unload")
    token = CURRENT.set(frame)
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
        record.footprint.unloading = None
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

    def ask() -> tuple[ServiceSpec, Instance | None] | None:
        before, instance = record.spec, record.instance
        if record.lifecycle.state == "closed":
            raise record.closed()
        if base is not None and before is not base:
            return None
        if instance is None:
            record.adopt(spec)
        return before, instance

    while True:
        found = once_settled(record, deadline, f"new config of {record.name}", ask)
        if found is None:
            return None
        before, instance = found
        if instance is None:
            return "at load"
        values, read = new_values(instance, before, spec), instance.read
        if record.instance is not instance:
            continue  # it went while `__init__` was tried
        if values is None or (read is None and values) or set(values) & (read or frozenset()):
            retire(record, Retirement("config that load reads changed", spec=spec, base=base))
            return "reloads" if base is None or record.spec is not base else None
        if _set(record, instance, values, before, spec):
            return "in place"


@contextmanager
def quiet(record: ServiceRecord, instance: Instance, before: ServiceSpec, what: str) -> Iterator[bool]:
    """For the time of this block no call runs in a model, and none comes in; they wait, and go on with it.

    False when another model or spec is there by now; raises where calls do not end in time.
    """
    allowed = record.ports.settings.drain_seconds
    drain = Drain(record)
    try:
        try:
            with record.lock:
                there = record.instance is instance and record.spec is before
                there = there and record.lifecycle.state == "ready"
                if there:
                    record.drain = drain
                    step = record.move("drain", what)
            if there:
                record.tell(step)
                _wait_until_idle(record, step.at + allowed, f"{what} of {record.name}")
                with record.lock:
                    busy = record.users
                    drain.reason = "calls still run" if busy else what
                if busy:
                    raise StateError(
                        f"{record.name} did not get its {what}: calls still run after {seconds(allowed)}",
                        hint="cancel them (%grym calls) or try again",
                        service=record.name,
                    )
            yield there
        finally:
            _end(record, drain)
    finally:
        _end(record, drain)  # had Ctrl-C cut the first short


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

    def put() -> None:
        with record.lock:  # what is done twice is done once
            record.adopt(spec)
            vars(instance.model).update(values)

    try:
        with quiet(record, instance, before, "new config") as there:
            if there:
                try:
                    put()
                finally:
                    put()  # had Ctrl-C cut the first short
            return there
    except KeyboardInterrupt:
        has = "new" if record.spec is spec else "old"
        raise Interrupted(f"{record.name} was interrupted; it has the {has} config") from None
