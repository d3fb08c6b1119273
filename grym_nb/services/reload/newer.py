"""What takes the place of code in a newer version: of a class or a function, and of a registration."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from inspect import unwrap
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from grym_nb.errors import StateError
from grym_nb.services.reload.reached import reached_by
from grym_nb.services.reload.sources import module_of, modules_of

if TYPE_CHECKING:
    from grym_nb.services.reload.build import Built
    from grym_nb.services.reload.change import Newer
    from grym_nb.services.spec import ServiceSpec

__all__ = ["newer_in", "newer_in_cell_of", "renewed_spec"]


def newer_in(modules: Mapping[str, ModuleType], thing: Any) -> Any:
    """Return what a module calls by now as it called a class or function; None where that is this one."""
    found = _found(modules, thing)
    if hasattr(found, "__wrapped__") and not hasattr(thing, "__wrapped__"):
        found = unwrap(found)  # a name has what decorates it: the function itself is inside
    return found if found is not thing and isinstance(found, (type, FunctionType)) else None


def newer_in_cell_of(spec: ServiceSpec) -> Newer:
    """Return what tells what is newer: of the service's own cell, which may not be in the notebook yet."""
    factory = spec.callable
    while isinstance(factory, partial):
        factory = factory.func
    inside = (factory, *(vars(factory).values() if isinstance(factory, type) else ()))
    space = next((one.__globals__ for one in inside if isinstance(one, FunctionType)), {})
    own = ModuleType("__main__")
    vars(own).update(space if space.get("__name__") == "__main__" else {})

    def newer(thing: Any) -> Any:
        found = newer_in({"__main__": own}, thing)
        return newer_in(sys.modules, thing) if found is None else found

    return newer


def _found(modules: Mapping[str, ModuleType], thing: Any) -> Any:
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    at: Any = modules.get(module) if isinstance(module, str) else None
    if at is None or not isinstance(name, str) or "<" in name:
        return None
    for part in name.split("."):
        at = getattr(at, part, None)
    return at


def renewed_spec(spec: ServiceSpec, newer: Newer, built: Built) -> ServiceSpec | None:
    """Return a registration with the code of a new version; None where that is the code it has."""
    if isinstance(spec.factory, str) and "callable" not in spec.__dict__:
        return None  # it was never imported, and will be of what is new by then
    before = spec.callable
    inner, around = before, []
    while isinstance(inner, partial):
        around.append(inner)
        inner = inner.func
    if module_of(inner) == "__main__":
        return _renewed_cell(spec, newer, built)
    if module_of(inner) not in built.fresh or not isinstance(inner, (type, FunctionType)):
        return None
    now = newer(inner)
    if now is None:
        if "<" in inner.__qualname__:
            return None  # made inside a function: what it makes by now is known when that is called again
        if _found(built.version.modules, inner) is inner:
            return None
        raise StateError(
            f"{inner.__qualname__} is gone from {inner.__module__}",
            hint=f"register what takes its place: grym.register({spec.name!r}, ...)",
            service=spec.name,
        )
    for one in reversed(around):
        now = partial(now, *one.args, **one.keywords)
    renewed = replace(spec, factory=spec.factory if isinstance(spec.factory, str) else now)
    renewed.__dict__["callable"] = now
    return renewed


def _renewed_cell(spec: ServiceSpec, newer: Newer, built: Built) -> ServiceSpec | None:
    """Return a registration from a cell with what its code names by now; None where that is as it was."""
    if spec.reached is None or built.fresh.isdisjoint(modules_of(spec)):
        return None
    now = reached_by(spec.callable, spec.made_class, newer)
    if now is None or not spec.reached.differs(now, made_anew=True):
        return None
    renewed = replace(spec, reached=now, world=None, names=())
    renewed.__dict__["callable"] = spec.callable
    return renewed
