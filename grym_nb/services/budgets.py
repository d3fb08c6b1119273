"""What one service may take: refused where it is expected to take more, undone where it turns out to.

A model that grows beyond its budget later, or whose budget was lowered, may be in use: that is only said.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from grym_nb.errors import ResourceExhausted
from grym_nb.hardening.reservations import TOTAL
from grym_nb.hardening.storages import total
from grym_nb.render import size as in_words

if TYPE_CHECKING:
    from grym_nb.hardening.storages import Storages
    from grym_nb.services.instance import Instance
    from grym_nb.services.record import ServiceRecord

__all__ = [
    "budget_in_words",
    "is_within",
    "refuse_before",
    "refuse_measured",
    "say_if_beyond",
    "say_if_grown",
]

_log = logging.getLogger(__name__)


class _Excess(NamedTuple):
    device: str
    size: int
    limit: int

    @property
    def told(self) -> str:
        of = "" if self.device == TOTAL else f" of {self.device}"
        return f"{in_words(self.size)}{of}, and its budget is {in_words(self.limit)}"


def budget_in_words(budget: Mapping[str, int]) -> str:
    """Return ``"budget 500 MB"``, by device where it was given so; empty where there is none."""
    told = [in_words(size) + ("" if device == TOTAL else f" of {device}") for device, size in budget.items()]
    return f"budget {', '.join(told)}" if told else ""


def is_within(record: ServiceRecord, sizes: Mapping[str, int]) -> bool:
    """Tell whether that is no more than the service may take."""
    return _beyond(record, sizes) is None


def refuse_before(record: ServiceRecord, asked: Mapping[str, int], source: str, *, known: bool) -> None:
    """Raise where a service is expected to take more than its budget, before anything is loaded.

    Where its device is not `known`, only its budget in all can tell.
    """
    over = _beyond(record, asked)
    if over is not None and (known or over.device == TOTAL):
        raise _refusal(record, over, f"{record.name} is not loaded: it takes {over.told}", source)


def refuse_measured(record: ServiceRecord, sizes: Mapping[str, int], source: str) -> None:
    """Raise where a model that was just made takes more than its budget: whoever made it lets go of it."""
    if (over := _beyond(record, sizes)) is not None:
        told = f"{record.name} was let go of again: it takes {over.told}"
        raise _refusal(record, over, told, f"measured; expected: {source}")


def say_if_grown(record: ServiceRecord, instance: Instance, now: Storages) -> None:
    """Say that a model holds more than its budget by now, once for each time that its weights are others.

    One that was beyond it already, and only keeps more, is not said again at each look.
    """
    reservation = instance.reservation
    if not record.spec.budget or reservation is None or (before := reservation.storages) is None:
        return
    if _beyond(record, total(before)) is None or not before.keys() <= now.keys():
        why = (
            "it holds more than after its load"
            if before.keys() <= now.keys()
            else "its weights were replaced"
        )
        say_if_beyond(record, total(now), why)


def say_if_beyond(record: ServiceRecord, sizes: Mapping[str, int], why: str) -> None:
    """Say that a model which is there takes more than its budget: it may be in use, and stays."""
    if (over := _beyond(record, sizes)) is not None:
        record.ports.resources.ledger.note(record.name, "over", {over.device: over.size}, f"budget: {why}")
        _log.warning("%s takes %s: %s; it stays until it is unloaded", record.name, over.told, why)


def _beyond(record: ServiceRecord, sizes: Mapping[str, int]) -> _Excess | None:
    for device, limit in record.spec.budget.items():
        size = sum(sizes.values()) if device == TOTAL else sizes.get(device, 0)
        if size > limit:
            return _Excess(device, size, limit)
    return None


def _refusal(record: ServiceRecord, over: _Excess, told: str, source: str) -> ResourceExhausted:
    record.ports.resources.ledger.note(record.name, "refused", {over.device: over.size}, told)
    error = ResourceExhausted(
        told,
        cause=f"known from: {source}" if source else "",
        hint='raise it: register(..., budget="..."); or a smaller model fits: in another dtype, for one',
        service=record.name,
        limit=over.limit,
        use=over.size,
    )
    error.can_change = False  # until somebody raises it or registers a smaller model
    return error
