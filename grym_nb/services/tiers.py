"""Where an idle model waits: beside its accelerator, in the main memory, from which it is soon back.

Parked, a service is registered again: no call runs in it, and the next one wakes it instead of loading anew.
What is parked goes for good when the main memory is wanted for another, with its idle time, or by `unload`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from grym_nb.hardening.moving import movable, move
from grym_nb.hardening.returning import give_back
from grym_nb.hardening.storages import storages_of, tensors_in

if TYPE_CHECKING:
    from grym_nb.hardening.reservations import Reservation, Tenant
    from grym_nb.services.instance import Instance
    from grym_nb.services.record import ServiceRecord

__all__ = ["Parked", "park", "parked_in", "take", "there", "wake"]

_log = logging.getLogger(__name__)


class Parked:
    """An instance beside its accelerator: what was moved, and from where."""

    def __init__(self, record: ServiceRecord, instance: Instance, moved: dict[str, list[Any]]) -> None:
        self.instance = instance
        self.moved = moved
        self.versions = instance.serving.number, record.config_version
        self.at = record.ports.clock()

    @property
    def size(self) -> int:
        """How many bytes of the main memory it takes."""
        reservation = self.instance.reservation
        return 0 if reservation is None else reservation.sizes.get("cpu", 0)


def park(record: ServiceRecord, instance: Instance, tenant: Tenant) -> Parked | None:
    """Move an instance that nobody uses off its accelerators; None where it is on none, or has no room."""
    reservation = instance.reservation
    if reservation is None:
        return None
    ledger = record.ports.resources.ledger
    if ledger.of_others(reservation).keys() & (reservation.storages or {}).keys():
        return None  # what it shares stays where others compute with it
    there = {device: size for device, size in reservation.sizes.items() if device != "cpu"}
    tensors = tensors_in(*instance.models)
    moved = {device: found for device in there if (found := movable(tensors, device))}
    if not moved:
        return None
    room = ledger.at_once(record.name, {"cpu": sum(there.values())}, tenant)
    if room is None:
        return None
    settled = False
    try:
        _move(moved, to="cpu")
        _settle(instance, room)
        settled = True
    except Exception as error:  # the system's own memory is short, too
        _log.warning("%s could not be parked, and is unloaded: %s", record.name, error)
        return None
    finally:
        if not settled:
            instance.reservation = reservation
            room.release()
    give_back()
    return Parked(record, instance, moved)


def take(record: ServiceRecord) -> Parked | None:
    """Take what is parked out of a record, for whoever comes first: to wake it, or to let go of it."""
    with record.lock:
        parked, record.footprint.parked = record.footprint.parked, None
    return parked


def parked_in(record: ServiceRecord) -> Parked | None:
    """Return what is parked, where it is still what a load would make."""
    parked = record.footprint.parked
    if parked is None or parked.versions != (record.code_version, record.config_version):
        return None
    return parked


def there(record: ServiceRecord) -> Instance | None:
    """Return the instance that is there: loaded, or parked."""
    instance, parked = record.instance, record.footprint.parked
    return parked.instance if instance is None and parked is not None else instance


def wake(parked: Parked, reservation: Reservation) -> Instance:
    """Move an instance back to where it was; it stays parked where that fails."""
    done: dict[str, list[Any]] = {}
    try:
        for device, tensors in parked.moved.items():
            move(tensors, device)
            done[device] = tensors
    except BaseException:
        _move(done, to="cpu")
        raise
    _settle(parked.instance, reservation)
    parked.moved = {}  # who still has this, has no model by it
    return parked.instance


def _move(moved: dict[str, list[Any]], *, to: str) -> None:
    done: list[str] = []
    try:
        for device, tensors in moved.items():
            move(tensors, to)
            done.append(device)
    except BaseException:
        for device in done:
            move(moved[device], device)
        raise


def _settle(instance: Instance, reservation: Reservation) -> None:
    """Put an instance's memory under another reservation."""
    before, instance.reservation = instance.reservation, reservation
    reservation.measured(storages_of(*instance.models))
    if before is not None:
        before.release()
