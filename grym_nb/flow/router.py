"""From a task type to the service that answers it: so far, the only one that declares it."""

from __future__ import annotations

from grym_nb.errors import RoutingError, closest
from grym_nb.services import ServiceHandle, ServiceRegistry

__all__ = ["route"]


def route(registry: ServiceRegistry, type: str, *, model: str | None = None) -> ServiceHandle:
    """Return the service for a task type; `model` names one where several would do."""
    if model is not None:
        return registry[model]
    able = registry.able(type) or (registry.able(type) if registry.discover() else ())
    if len(able) == 1:
        return able[0]
    if not able:
        known = registry.types()
        raise RoutingError(
            f"no service answers {type!r}.{closest(str(type), known)}",
            hint=f"supported: {', '.join(known) or 'nothing yet'}",
            type=type,
            supported=known,
        )
    names = ", ".join(handle.name for handle in able)
    raise RoutingError(
        f"several services answer {type!r}: {names}",
        hint=f'say which: Task("{type}", ..., model="{able[0].name}")',
        type=type,
        able=tuple(handle.name for handle in able),
    )
