"""Whether what a service needs is there, and does not lead back to itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from grym_nb.errors import DependencyError, closest

if TYPE_CHECKING:
    from grym_nb.services.handle import ServiceHandle
    from grym_nb.services.spec import ServiceSpec

__all__ = ["check_needs"]


def check_needs(spec: ServiceSpec, handles: Mapping[str, ServiceHandle]) -> None:
    """Raise where a service needs one that is not there, or itself."""
    for need in spec.needs:
        name = need.rstrip("?")
        if name not in handles and name != spec.name and not need.endswith("?"):
            raise DependencyError(
                f"{spec.name} needs {name}, which is not registered.{closest(name, handles)}",
                hint=f'register {name} first, or say "{name}?" if it is optional',
                service=spec.name,
                path=(spec.name, name),
            )
    path = _circle(spec, handles)
    if path:
        raise DependencyError(
            f"{spec.name} cannot need itself: {' → '.join(path)}",
            hint="break the circle: pass a result on, or let one of them look the other up in a task",
            service=spec.name,
            path=tuple(path),
        )


def _circle(spec: ServiceSpec, handles: Mapping[str, ServiceHandle]) -> list[str]:
    """Return the way from the service back to itself through needs, if there is one."""
    came_from: dict[str, str] = {}
    open_names = [spec.name]
    while open_names:
        at = open_names.pop()
        handle = handles.get(at)
        needs = spec.needs if at == spec.name else handle._record.spec.needs if handle is not None else ()
        for name in (need.rstrip("?") for need in needs):
            if name == spec.name:
                path = [name, at]
                while path[-1] != spec.name:
                    path.append(came_from[path[-1]])
                return path[::-1]
            if name not in came_from:
                came_from[name] = at
                open_names.append(name)
    return []
