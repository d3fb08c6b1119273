"""What a record asks of its registry about the services it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from grym_nb.services.record import ServiceRecord
    from grym_nb.services.spec import ServiceSpec

__all__ = ["Family"]


class Family(Protocol):
    """What a record asks of its registry about the services it needs."""

    def before(self, record: ServiceRecord) -> list[ServiceRecord]:
        """Return everything `record` needs, directly or not, in the order in which to load it."""

    def optional(self, record: ServiceRecord, need: ServiceRecord) -> bool:
        """Tell whether `record` can do without `need`."""

    def refuse_hidden(self, spec: ServiceSpec) -> None:
        """Raise when a task bears a name that a handle has itself."""

    def wired(self, record: ServiceRecord) -> dict[str, Any]:
        """Return the handles of the direct needs by name; None for an optional one that is not there."""
