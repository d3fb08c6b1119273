"""What a service will take before it is loaded, and how that is known."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from grym_nb.hardening.prediction import predicted
from grym_nb.hardening.resources import canonical
from grym_nb.hardening.storages import total

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grym_nb.hardening.storages import Storages
    from grym_nb.services.record import ServiceRecord

__all__ = [
    "expected",
    "is_device_known",
    "refuse_with_needs",
    "stated_device",
    "to_reserve",
    "versions",
]


def expected(record: ServiceRecord) -> tuple[dict[str, int], str]:
    """Return what a service will take, by device, and how that is known."""
    spec = record.spec
    if _is_measured(record):
        return dict(record.footprint.sizes or {}), "measured before"
    device = canonical(stated_device(record) or "cpu")
    if spec.memory is not None:
        return {device: spec.memory}, "stated"
    told = predicted(spec.full_config)
    return ({device: told.size}, told.source) if told is not None else ({}, "not known yet")


def is_device_known(record: ServiceRecord) -> bool:
    """Tell whether it is said, or was seen, where a model goes; else it may say so once it is there."""
    return _is_measured(record) or bool(stated_device(record))


def stated_device(record: ServiceRecord) -> Any:
    """Return the device that a policy or a config names; None where neither does, or the model chooses."""
    said = record.policy.device or record.spec.full_config.get("device")
    return None if said == "auto" else said


def versions(record: ServiceRecord) -> tuple[object, ...]:
    """Return by what a measured size is judged: other code, config or another device may take another."""
    return record.code_version, record.config_version, record.policy.device


def _is_measured(record: ServiceRecord) -> bool:
    return record.footprint.sizes is not None and record.footprint.versions == versions(record)


def to_reserve(record: ServiceRecord, sizes: Mapping[str, int]) -> dict[str, int]:
    """Return what there has to be room for: not for shared weights that are there, which it only joins."""
    shares = record.footprint.shares
    there = record.ports.weights.there(shares) if shares else {}
    return {device: max(0, size - there.get(device, 0)) for device, size in sizes.items()}


def refuse_with_needs(record: ServiceRecord, needs: Sequence[ServiceRecord]) -> None:
    """Raise where a service and what it cannot do without could never be there at once: none is loaded then.

    One by one each of them may fit, and others would go for it in vain.
    """
    without = [need for need in needs if not record._family.optional(record, need)]
    held = {need.name: its for need in without if (its := _held(need)) is not None}
    others = [one for one in (record, *without) if one.name not in held]
    asked, source = expected(record)
    if not asked or not without or any(one.footprint.shares for one in others):
        return  # weights that are shared are there once, whoever comes first
    sizes = Counter(total({key: size for its in held.values() for key, size in its.items()}))
    for one in others:
        sizes.update(expected(one)[0])
    names = [need.name for need in without]
    record.ports.resources.ledger.refuse_never(record.name, asked, source, dict(sizes), names)


def _held(record: ServiceRecord) -> Storages | None:
    """Return what a service has, if it is there: what it is expected to take next may be another thing."""
    instance = record.instance
    return None if instance is None or instance.reservation is None else instance.reservation.storages
