"""A service's memory: reserved before it loads, measured when it is there, given back when it is gone.

Where there is no room, services that nobody uses go; those in use never do, and the load waits for them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from time import sleep
from typing import TYPE_CHECKING

from grym_nb.errors import CallBlocked, CallTimeout, GrymError, ResourceExhausted
from grym_nb.hardening.eviction import Candidate
from grym_nb.hardening.holders import raise_the_budget
from grym_nb.hardening.pressure import REFUSED_FROM
from grym_nb.hardening.returning import give_back
from grym_nb.hardening.storages import Storages, storages_of, total
from grym_nb.priority import CRITICAL
from grym_nb.render import seconds
from grym_nb.render import size as in_words
from grym_nb.services.budgets import budget_in_words, refuse_before, refuse_measured, say_if_grown
from grym_nb.services.expectation import expected, is_device_known, to_reserve, versions
from grym_nb.services.frame import CURRENT, Awaited, Frame, current_frame, stack
from grym_nb.services.progress import Wait, wait_a_while
from grym_nb.services.retire import Retirement, release_parked, retire
from grym_nb.services.tiers import parked_in, take
from grym_nb.services.turns import resumed
from grym_nb.services.waits import aside

if TYPE_CHECKING:
    from grym_nb.hardening.ledger import Ledger
    from grym_nb.hardening.reservations import Reservation, Shortage
    from grym_nb.services.instance import Instance
    from grym_nb.services.record import ServiceRecord
    from grym_nb.services.tiers import Parked

__all__ = [
    "OPAQUE",
    "Resident",
    "Room",
    "Sleeper",
    "end_later",
    "measure",
    "reserved",
    "unload_idle",
    "waiting_by_hand",
]

_log = logging.getLogger(__name__)
_LEARNED_FROM = 1_000_000  # bytes of weights: the calls of smaller models take little
_STATED_SLACK = 1.1  # times as much as was stated is near enough
#: bytes by which the process grew in a load: what is less may be anything
OPAQUE = 10_000_000


# -- before it is there ----------------------------------------------------------------------------


@contextmanager
def reserved(record: ServiceRecord, load: Frame) -> Iterator[Reservation]:
    """Have room for what a service is about to load; given back if the load fails."""
    ledger = record.ports.resources.ledger
    _refuse_under_pressure(record)
    asked, source = expected(record)
    refuse_before(record, asked, source, known=is_device_known(record))
    resident = Resident(record)

    def wait(mine: Reservation, short: Shortage) -> None:
        try:
            _wait(load, Room(ledger, mine, short))
        except CallBlocked as error:
            ledger.note(record.name, "refused", {short.device: short.asked}, error.message)
            raise

    beside, asked = [need.name for need in load.holds], to_reserve(record, asked)
    reservation = ledger.reserve(record.name, asked, wait=wait, tenant=resident, source=source, beside=beside)
    try:
        yield reservation
    except BaseException:
        if (attempt := record._attempt) is None or attempt.instance is None:
            reservation.release()
            give_back()
        raise


def _refuse_under_pressure(record: ServiceRecord) -> None:
    """Raise where the process itself is about to be killed: nothing more is loaded then."""
    pool = record.ports.resources
    if (now := pool.look()).share >= REFUSED_FROM:
        gone = pool.ledger.free_idle("cpu", record.name, str(now))
        give_back()
        now = pool.pressure()
        if now.share >= REFUSED_FROM:
            freed = f", also without {', '.join(gone)}" if gone else ""
            told = f"{record.name} is not loaded: {now}{freed}"
            pool.ledger.note(record.name, "refused", {"cpu": 0}, told)
            has = (
                pool.ledger.holders("cpu")
                if pool.ledger.others("cpu")
                else "nothing: your own variables have it"
            )
            raise ResourceExhausted(
                told,
                cause=f"of it services have {has}",
                hint="let go of what you do not need: at 100 % the system kills the kernel, and all is lost",
                service=record.name,
                limit=now.limit,
                use=now.used,
            )


def measure(record: ServiceRecord, instance: Instance, reservation: Reservation) -> None:
    """Put what an instance really holds into the books, and remember it for the next time.

    Raises where that is more than the service's own budget.
    """
    if isinstance(reservation.tenant, Resident):
        reservation.tenant.instance = instance
    if instance.reservation is reservation:
        return  # it was parked, and is measured already
    held = _held_by(instance)
    if all(storage > 0 for _, storage in held):  # else it is only by how much the process grew meanwhile
        record.footprint.sizes, record.footprint.versions = total(held), versions(record)
    refuse_measured(record, total(held), reservation.source)  # before others go for it
    record.footprint.sizes, record.footprint.versions = total(held), versions(record)
    instance.reservation = reservation
    reservation.measured(held)
    instance.sizes.note(record.ports.clock(), reservation.size)
    instance.learns = reservation.size >= _LEARNED_FROM
    _say_if_larger(record, reservation.size)


def _say_if_larger(record: ServiceRecord, size: int) -> None:
    """Say that a service takes more than was stated for it: the next time it is counted as it is."""
    stated = record.spec.memory
    if stated is not None and size > stated * _STATED_SLACK:
        _log.warning("%s takes %s; memory='%s' was said of it", record.name, in_words(size), in_words(stated))


def _held_by(instance: Instance, pause: Callable[[], object] | None = None) -> Storages:
    """Return the storages of a model, without those of the services it needs."""
    storages = {} if instance.model is None else storages_of(*instance.models, pause=pause)
    opaque = ("cpu", -id(instance))  # it is no tensor, and still is there, whatever its calls add to it
    known = None if instance.reservation is None else instance.reservation.storages
    is_opaque = not storages and instance.grown >= OPAQUE if known is None else opaque in known
    if is_opaque:
        storages[opaque] = instance.grown
    return storages


class _InUse(Exception):
    """What is looked at is in use by now: what it holds is of no time."""


# -- who may go ------------------------------------------------------------------------------------


class Resident:
    """A service as those who make room see it."""

    def __init__(self, record: ServiceRecord) -> None:
        self._record = record
        self.instance: Instance | None = None  # once it is there

    @property
    def state(self) -> str:
        """What the service does now, and its own budget if it has one."""
        return "; ".join(filter(None, (self._does, budget_in_words(self._record.spec.budget))))

    @property
    def _does(self) -> str:
        """Which calls are inside, or for how long it was idle."""
        record = self._record
        if self.instance is not None and self.instance.retired:
            return f"let go of, and still in use by {record.inside()}"
        if record.instance is None or record.lifecycle.state != "ready":
            return record.lifecycle.state
        if inside := record.inside() if record.users else "":
            return f"in use by {inside}"
        told = f"idle for {seconds(max(0.0, record.ports.clock() - record.last_used))}"
        if (ttl := record.spec.ttl) is not None:
            return f"{told}, goes after {seconds(ttl)}"
        return f"{told}, stays" if self.stays() else told

    def candidate(self, device: str, size: int) -> Candidate | None:
        """Return what a policy judges it by; None while it is in use, or is to stay."""
        record = self._record
        with record.lock:
            instance = record.instance
            if instance is None or instance is not self.instance or self.stays():
                return None
            if record.lifecycle.state != "ready":
                return None
            if record.users:
                instance.wanted = True  # who looks here is told once the last of them has left
                return None
            return _judged(record, size)

    def stays(self) -> bool:
        """Tell whether it is never to go for others: a critical one."""
        return self._record.spec.priority >= CRITICAL

    def busy(self) -> Sequence[Frame]:
        """Return the calls that keep it from going, and end by themselves."""
        record = self._record
        attempt = record._attempt
        return [attempt.frame] if attempt is not None else [*record.lane.frames(), *_hook(record)]

    def holds(self, *, handed_out: bool) -> Storages | None:
        """Return what its model holds by now; None while it is in use, or nobody has used it since."""
        record, instance = self._record, self.instance
        if instance is None or instance.retired or instance is not record.instance or record.users:
            return None
        used = record.last_used
        if not instance.handed_out and (handed_out or used == instance.looked_at):
            return None

        def pause() -> None:
            if record.users or record.last_used != used:
                raise _InUse
            sleep(0)  # others may have the GIL

        try:
            now = _held_by(instance, pause)
        except Exception:  # it is in use by now, or somebody changes it as we look
            return None
        if record.users or record.last_used != used:
            return None
        instance.handed_out, instance.looked_at = False, used
        instance.sizes.note(record.ports.clock(), sum(now.values()))
        say_if_grown(record, instance, now)
        return now

    def evict(self, reason: str) -> bool:
        """Let the model wait beside its accelerator, or go, unless it is in use by now; tell which."""
        record = self._record
        instance = record.instance
        if instance is None:
            return False
        try:
            with _of_nobody():
                retire(record, Retirement(reason, 0.0, idle_for=0.0, park=Sleeper(record)))
        except CallTimeout:
            return False  # it is being loaded, or let go of, by somebody else by now
        except GrymError as error:
            _log.warning("%s could not be let go of for %s: %s", record.name, reason, error.message)
        if (parked := record.footprint.parked) is not None and parked.instance is instance:
            end_later(record, parked)
        if gone := record.instance is not instance:
            record.metrics.counter("service.evictions", service=record.name).add()
        return gone


def end_later(record: ServiceRecord, parked: Parked) -> None:
    """Let what is parked go once its idle time is over, if it has one."""
    if (ttl := record.spec.ttl) is not None:
        name, end = f"end of idle {record.name}", partial(Sleeper(record).end, parked)
        pulse = record.ports.pulse
        pulse.after(ttl, partial(pulse.work, end, name=name), name=name)


def unload_idle(record: ServiceRecord, seconds: float) -> Parked | None:
    """Let go of a model that nobody has used for so long; return it where it is parked."""
    instance = record.instance
    sizes = {} if instance is None or instance.reservation is None else instance.reservation.sizes
    trouble = retire(record, Retirement("idle", idle_for=seconds, park=Sleeper(record)))
    if instance is not None and record.instance is None:
        parked = ", parked" if record.footprint.parked is not None else ""
        record.ports.resources.ledger.note(record.name, "idle", sizes, f"idle for its ttl{parked}")
    if trouble:
        raise trouble
    return record.footprint.parked


def _hook(record: ServiceRecord) -> list[Frame]:
    """Return the unload hook of a service, while it runs: what it holds is free once it has ended."""
    return [] if (frame := record.footprint.unloading) is None else [frame]


def _judged(record: ServiceRecord, size: int) -> Candidate:
    heat = record.footprint.heat
    return Candidate(
        record.name,
        size,
        last_used=record.last_used,
        load_seconds=record.load_seconds or 0.0,
        spells=heat.spells,
        heat=heat.value,
        heat_at=heat.at,
        priority=record.spec.priority,
    )


class Sleeper:
    """A parked service as those who make room in the main memory see it: nobody can be using it."""

    def __init__(self, record: ServiceRecord) -> None:
        self._record = record

    @property
    def state(self) -> str:
        """That it is parked, and what waking it would take."""
        if parked_in(self._record) is None:
            return "parked, with other code than it has by now"
        took = self._record.footprint.wake_seconds
        return "parked, its next call wakes it" + (f" in about {seconds(took)}" if took is not None else "")

    def candidate(self, device: str, size: int) -> Candidate | None:
        """Return what a policy judges it by; None where it is not parked any more."""
        return None if self._record.footprint.parked is None else _judged(self._record, size)

    def stays(self) -> bool:
        """Return False: what is parked can be loaded anew."""
        return False

    def busy(self) -> Sequence[Frame]:
        """Return its unload hook, while that runs."""
        return _hook(self._record)

    def holds(self, *, handed_out: bool) -> Storages | None:
        """Return None: nobody changes what is parked."""
        return None

    def end(self, parked: Parked) -> None:
        """Let go of this one, unless it was woken meanwhile."""
        if self._record.footprint.parked is parked:
            self.evict("idle")

    def evict(self, reason: str) -> bool:
        """Let go of it for good; tell whether it was there."""
        parked = take(self._record)
        if parked is None:
            return False
        with _of_nobody():
            release_parked(self._record, parked)
        return True


@contextmanager
def _of_nobody() -> Iterator[None]:
    """What is done in this block is no part of the call for whose sake it is done.

    A worker has the call's caller for its frame, which waits in another thread: it must not be made to.
    """
    token = CURRENT.set(None)
    try:
        yield
    finally:
        CURRENT.reset(token)


# -- waiting for room ------------------------------------------------------------------------------


class Room(Awaited):
    """What somebody waits for who has a reservation in line."""

    takes_any = True  # of those it waits for: any that ends may be enough

    def __init__(self, ledger: Ledger, reservation: Reservation, short: Shortage) -> None:
        self.ledger = ledger
        self.reservation = reservation
        self.short = short
        self.way_out = f"{raise_the_budget()}, or let one of them go before it asks for the other"

    def behind(self) -> Sequence[Awaited] | None:
        """Return the calls, or the load before this one, that are in the way; None when none is."""
        ledger = self.ledger
        if self.reservation not in ledger.line or ledger.changed(self.reservation):
            return None  # it looks again by itself
        if ahead := ledger.before(self.reservation):
            first = ahead[0].room  # which has to go before any of the others can
            return [first] if isinstance(first, Room) else None
        others = [one.tenant for one in ledger.others(self.short.device) if one.tenant is not None]
        return [frame for tenant in others if not tenant.stays() for frame in tenant.busy()] or None

    def wake(self) -> None:
        """Let who waits look again whether that still makes sense."""
        self.ledger.wake()

    def gives_way(self, circle: Sequence[Awaited]) -> bool:
        """Let a load pass that waits behind this one, for whose end this one waits itself."""
        if not self.ledger.first(self.reservation):
            return False
        for other in circle:
            if not isinstance(other, Room) or self.reservation not in self.ledger.before(other.reservation):
                continue
            if self.ledger.could(other.reservation):  # else it would only wait in our place
                self.ledger.let_pass(other.reservation)
                return True
        return False

    def refuse_here(self) -> None:
        """Raise when all that could make room are streams, or `use()`, that are open in this very thread."""
        here, busy = threading.get_ident(), self.behind() or ()
        mine = [one for one in busy if isinstance(one, Frame) and one.suspended == here]
        if mine and len(mine) == len(busy):
            raise CallBlocked(
                f"{self.reservation.owner} would wait for ever: {mine[0].title} is open in this thread",
                cause=str(self.short),
                hint=f"{mine[0].how_to_end}; or {raise_the_budget()}",
                service=self.reservation.owner,
            )

    def __str__(self) -> str:
        others = [one for one in self.behind() or () if isinstance(one, Frame) and self not in one.waits_for]
        busy = [frame.title for frame in others]
        by = f": {', '.join(dict.fromkeys(busy))} {'runs' if len(busy) == 1 else 'run'}" if busy else ""
        return f"{self.short}{by}"


def _wait(load: Frame, room: Room) -> None:
    """Wait until something has changed in the books, or whoever asked for the load wants it no more."""
    cause = load.parent
    load.refuse_on_loop()
    with _known(room), aside(load, room), Wait(load.title) as waits:
        _look_here(load, room)
        while not _waited(load, cause, room):
            waits.on(str(room))


@contextmanager
def _known(room: Room) -> Iterator[None]:
    """For the time of this block the books tell what a reservation waits for."""
    room.reservation.room = room
    try:
        yield
    finally:
        room.reservation.room = None


def _look_here(frame: Frame, room: Room) -> None:
    """Raise where only this thread could make room; let those look who wait for this call in theirs."""
    room.refuse_here()
    for at in stack(frame):
        if at.call is not None:
            at.call.wake()


@contextmanager
def waiting_by_hand(ledger: Ledger, mine: Reservation, short: Shortage) -> Iterator[None]:
    """A block in which somebody waits who reserves by hand: as any call waits, if it is inside of one."""
    frame, room = current_frame(), Room(ledger, mine, short)
    with _known(room), resumed(frame):
        if frame is None:
            room.refuse_here()
            yield
            return
        frame.check()
        frame.refuse_on_loop()
        with aside(frame, room), Wait(f"room for {mine.owner}"):
            _look_here(frame, room)
            yield


def _refuse_unwanted(load: Frame, cause: Frame | None) -> None:
    """Raise when the call for which it loads is late, or was cancelled: another may begin anew."""
    if cause is not None:
        try:
            cause.check()
        except GrymError:
            if (attempt := load.record._attempt) is not None:
                attempt.unwanted = True
            raise


def _waited(load: Frame, cause: Frame | None, room: Room) -> bool:
    """Wait a while; tell whether anything has changed in the books."""
    ledger = room.ledger
    with ledger.lock:
        if ledger.changed(room.reservation):
            return True
        _refuse_unwanted(load, cause)
        wait_a_while(ledger.clock, ledger.condition, None if cause is None else cause.deadline)
        return ledger.changed(room.reservation)
