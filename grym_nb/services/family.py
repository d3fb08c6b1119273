"""What a record asks of its registry about the services it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grym_nb.services.handle import ServiceHandle
    from grym_nb.services.model import TaskSpec
    from grym_nb.services.record import ServiceRecord
    from grym_nb.services.reload.sources import Codebase

__all__ = ["Family"]


class Family(Protocol):
    """What a record asks of its registry about the services it needs."""

    codebase: Codebase  # the files that its services are made from

    def handles(self) -> tuple[ServiceHandle, ...]:
        """Return the handles of all services."""

    def before(self, record: ServiceRecord) -> list[ServiceRecord]:
        """Return everything `record` needs, directly or not, in the order in which to load it."""

    def optional(self, record: ServiceRecord, need: ServiceRecord) -> bool:
        """Tell whether `record` can do without `need`."""

    def required(self, record: ServiceRecord) -> list[ServiceRecord]:
        """Return of everything that `record` needs what it cannot do without."""

    def refuse_tasks(self, name: str, tasks: Mapping[str, TaskSpec]) -> None:
        """Raise when a task bears a name that a handle has itself, or two have the same type."""

    def wired(self, record: ServiceRecord) -> dict[str, Any]:
        """Return the handles of the direct needs by name; None for an optional one that is not there."""
