"""A model loaded by new code beside the one that serves: that serves on meanwhile, and on if this one fails.

Only in room that is free: for that nobody goes, and nothing waits. Where there is none for both, the old one
has to go first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from grym_nb.errors import LoadFailed
from grym_nb.hardening.pressure import WARNED_FROM
from grym_nb.hardening.returning import give_back
from grym_nb.render import size
from grym_nb.services.budgets import is_within
from grym_nb.services.expectation import expected, versions
from grym_nb.services.memory import Resident
from grym_nb.services.retire import Retirement, release, retire

if TYPE_CHECKING:
    from grym_nb.hardening.reservations import Reservation
    from grym_nb.services.instance import Instance
    from grym_nb.services.places import Ticket
    from grym_nb.services.record import ServiceRecord
    from grym_nb.services.spec import ServiceSpec

__all__ = ["NoRoom", "discard", "let_go", "load_beside", "take_over"]


class NoRoom(Exception):
    """The old model has to go before the new one comes; in words, why."""


def load_beside(record: ServiceRecord, spec: ServiceSpec, number: int) -> ServiceRecord:
    """Load what a changed spec makes, where nobody calls it yet.

    Raises `NoRoom` where both cannot be there at once, and what the load raises.
    """
    made = type(record)(spec, record.ports, record._gate, record._family)
    made.stands_for = record
    made.code_version = made.newest = number
    made.config_version = record.config_version
    tenant = Resident(record)
    try:
        room = _room(record, made, tenant)
        made.admit = lambda *_: _kept(room)
        made.load()
    except BaseException as error:
        if made.instance is not None:  # Ctrl-C came as it was there
            discard(made)
        for one in record.ports.resources.ledger.held:
            if one.tenant is tenant:  # also where Ctrl-C came before we had it
                one.release()
        if not isinstance(error, LoadFailed):
            raise
        if "short" in error.details:
            record.ports.failures.clear(record.name)  # whose frames hold what was made of it
            raise NoRoom("memory ran out as both were there") from None
        error.hint = "where two of it cannot be there at once: unload(), then reload()"
        raise
    return made


def discard(made: ServiceRecord) -> None:
    """Let go of what does not come to serve; what its unload hook raises is logged, and no more."""
    retire(made, Retirement("not in force", 0.0))


def _room(record: ServiceRecord, made: ServiceRecord, tenant: Resident) -> Reservation:
    """Reserve as much as the old one takes, or as is stated now, where that is free."""
    if shares := record.footprint.shares:
        raise NoRoom(f"it shares {', '.join(shares)}, and what goes by a name is there once")
    instance, resources = record.instance, record.ports.resources
    there = {} if instance is None or instance.reservation is None else instance.reservation.sizes
    stated, source = expected(made)
    asked = stated if source == "stated" and sum(stated.values()) > sum(there.values()) else there
    if not is_within(made, Counter(there) + Counter(asked)):
        raise NoRoom("both are more than its budget")
    now = resources.look()
    room = None
    if now.used + asked.get("cpu", 0) < WARNED_FROM * now.limit and record.ports.admit is None:
        room = resources.ledger.at_once(record.name, asked, tenant)
    if room is None:
        raise NoRoom(f"{size(sum(asked.values()))} more are not free")
    return room


@contextmanager
def _kept(room: Reservation) -> Iterator[Reservation]:
    try:
        yield room
    except BaseException:
        room.release()
        give_back()
        raise


def take_over(record: ServiceRecord, made: ServiceRecord, jobs: list[Ticket]) -> None:
    """Have what was loaded beside it serve a service (held); calls that run keep the old model to themselves.

    Adds to `jobs` those that its fresh slots let in. Done twice, it is done once.
    """
    old, new = record.instance, made.instance
    assert old is not None and new is not None
    if old is not new:
        if old.users and not old.retired:
            old.retired = True
            jobs += record.lane.renew()
        new.epoch = record.lane.epoch
        record.footprint.sizes, record.footprint.shares = made.footprint.sizes, made.footprint.shares
        record.footprint.versions = versions(record)
        record.load_seconds, record.last_used = made.load_seconds, record.ports.clock()
        record.loads += 1
        record._serving, record._tasks = new, new.tasks
        record.instance = new  # the last: what is cut short before it, the second go does


def let_go(record: ServiceRecord, old: Instance) -> None:
    """Release what served before; where calls run in it, the last of them does."""
    record.ports.failures.clear(record.name)
    if old.retired:
        record.ports.resources.end_group(old)
    elif old.reservation is not None or old.model is not None:
        release(record, old)
