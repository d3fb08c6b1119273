"""Whose services are looked at, and which of them is meant: said where it is given."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import partial
from typing import Any

from grym_nb.errors import ConfigError, Problem, ServiceNotFound, closest
from grym_nb.render import brief
from grym_nb.services.registry import ServiceRegistry

__all__ = ["check_registry", "check_service", "deferred", "inner"]


def check_registry(given: Any) -> None:
    """Refuse what has no services to look at, such as the runtime that has a registry."""
    if not isinstance(given, ServiceRegistry):
        problem = Problem("registry", brief(given), "a ServiceRegistry, such as grym.current().registry")
        raise ConfigError("only the services of a registry can be looked at", problems=[problem])


def check_service(registry: ServiceRegistry, name: Any, more: Iterable[str] = ()) -> None:
    """Refuse the name of no service, and of none of those that are known as well."""
    if not isinstance(name, str):
        problem = Problem("name", brief(name), "the name of a service, such as 'asr'")
        raise ConfigError("nobody knows which service is asked for", problems=[problem])
    if name not in registry and name not in (others := set(more)):
        known = {*others, *[handle.name for handle in registry.handles()]}
        raise ServiceNotFound(f"there is no service {name!r}.{closest(name, known)}", service=name)


def deferred(function: Any) -> str:
    """Return as what a call of it only makes something that somebody else has to run; else nothing."""
    called = inner(function)
    for one in (called, None if inspect.isclass(called) else getattr(called, "__call__", None)):  # noqa: B004
        if inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one):
            return "an async function"
        if inspect.isgeneratorfunction(one):
            return "a generator"
    return ""


def inner(function: Any) -> Any:
    """Return what is called in the end, without what a partial gives it."""
    while isinstance(function, partial):
        function = function.func
    return function
