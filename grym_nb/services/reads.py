"""Which of its attributes a `load` read, and which a new config sets differently.

So a config that `load` never looked at can change in place, with the weights kept.
"""

from __future__ import annotations

import threading
from types import FunctionType
from typing import TYPE_CHECKING, Any

from grym_nb.errors import ConfigError, GrymError

if TYPE_CHECKING:
    from grym_nb.services.instance import Instance
    from grym_nb.services.spec import ServiceSpec

__all__ = ["new_values", "reads_of", "same", "watches"]

#: for each class whose instances are watched: what each of them was asked for, by identity
_watched: dict[type, dict[int, set[str]]] = {}
_lock = threading.Lock()
_MARK = "__grym_watch__"


def reads_of(model: Any) -> frozenset[str] | None:
    """Run `load` and `warm_up` of a model; return the attributes they read of those there were before.

    None means that it may have read any: the class cannot be watched, or all of it was asked for.
    """
    hooks = [hook for name in ("load", "warm_up") if (hook := getattr(model, name, None)) is not None]

    def load() -> None:
        for hook in hooks:
            hook()

    if not hooks:
        return frozenset()
    if _slotted(model):
        load()
        return None
    before = set(vars(model))
    if not before:
        load()
        return frozenset()
    read = _watch(model)
    try:
        load()
    finally:
        if read is not None:
            _unwatch(model)
    return None if read is None or "__dict__" in read else frozenset(read & before)


def _watch(model: Any) -> set[str] | None:
    """Note what `model` is asked for from now on; None where its class does not allow it."""
    kind = type(model)
    with _lock:
        watched = _watched.get(kind)
        if watched is None:
            # On the class itself, not on a subclass put in its place: `type(self)` stays what it is,
            # and no __init_subclass__ or registry hears of a class that does not exist.
            own = vars(kind).get("__getattribute__")
            if own is not None:
                return None
            asked: dict[int, set[str]] = {}
            inherited: Any = kind.__getattribute__

            def noting(self: Any, name: str) -> Any:
                names = asked.get(id(self))
                if names is not None:
                    names.add(name)
                return inherited(self, name)

            setattr(noting, _MARK, True)
            try:
                setattr(kind, "__getattribute__", noting)  # noqa: B010 - mypy takes the name for a method
            except (TypeError, AttributeError):  # a class that is frozen
                return None
            watched = _watched[kind] = asked
        read = watched[id(model)] = set()
        return read


def watches(value: Any) -> bool:
    """Tell whether this is no part of a class, but our watch that it bears while it loads."""
    return isinstance(value, FunctionType) and _MARK in vars(value)


def _unwatch(model: Any) -> None:
    with _lock:
        _forget(model)


def _forget(model: Any) -> None:
    for kind, watched in list(_watched.items()):
        if watched.pop(id(model), None) is not None and not watched:
            del _watched[kind]
            delattr(kind, "__getattribute__")


def _slotted(model: Any) -> bool:
    """Tell whether it keeps attributes elsewhere than in a `__dict__`."""
    slots = any(vars(base).get("__slots__") for base in type(model).__mro__)
    return slots or not hasattr(model, "__dict__")


def same(one: Any, other: Any) -> bool:
    """Tell whether two attribute values are the same; when it cannot be told, they are not."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    try:
        return bool(one == other)
    except Exception:  # arrays and strangers: no single answer
        return False


def new_values(instance: Instance, before: ServiceSpec, after: ServiceSpec) -> dict[str, Any] | None:
    """Return the attributes that `__init__` sets differently under the new config; None: cannot tell."""
    try:
        old, new = before.callable(**before.config), after.callable(**after.config)
    except GrymError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{after.name} does not take this config: {type(error).__name__}: {error}",
            hint="nothing was changed",
            service=after.name,
        ) from None
    if type(instance.model) is not type(new) or _slotted(new):
        return None
    was, now = vars(old), vars(new)
    if was.keys() != now.keys():
        return None
    return {name: value for name, value in now.items() if not same(value, was[name])}
