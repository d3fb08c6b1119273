"""What a service will take before it is loaded, and how that is known."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from grym_nb.hardening.prediction import predicted
from grym_nb.hardening.resources import canonical

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grym_nb.services.record import ServiceRecord

__all__ = ["expected", "is_device_known", "refuse_with_needs", "versions"]


def expected(record: ServiceRecord) -> tuple[dict[str, int], str]:
    """Return what a service will take, by device, and how that is known."""
    spec = record.spec
    if _is_measured(record):
        return dict(record.footprint.sizes or {}), "measured before"
    device = canonical(record.policy.device or spec.full_config.get("device") or "cpu")
    if spec.memory is not None:
        return {device: spec.memory}, "stated"
    told = predicted(spec.full_config)
    return ({device: told.size}, told.source) if told is not None else ({}, "not known yet")


def is_device_known(record: ServiceRecord) -> bool:
    """Tell whether it is said, or was seen, where a model goes; else it may say so once it is there."""
    return _is_measured(record) or bool(record.policy.device or record.spec.full_config.get("device"))


def versions(record: ServiceRecord) -> tuple[object, ...]:
    """Return by what a measured size is judged: other code, config or another device may take another."""
    return record.code_version, record.config_version, record.policy.device


def _is_measured(record: ServiceRecord) -> bool:
    return record.footprint.sizes is not None and record.footprint.versions == versions(record)


def refuse_with_needs(record: ServiceRecord, needs: Sequence[ServiceRecord]) -> None:
    """Raise where a service and what it cannot do without could never be there at once: none is loaded then.

    One by one each of them may fit, and others would go for it in vain.
    """
    sizes: Counter[str] = Counter()
    names = [need.name for need in needs if not record._family.optional(record, need)]
    for one in (record, *[need for need in needs if need.name in names]):
        sizes.update(expected(one)[0])
    asked, source = expected(record)
    if asked and names:
        record.ports.resources.ledger.refuse_never(record.name, asked, source, dict(sizes), names)
