"""What newer classes have in the place of a method, a function or an enum's member: looked up by name.

In the classes alone: an instance may have something else under that name, which is not what was bound.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from enum import Flag
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, MethodType
from typing import Any

from grym_nb.services.reload.contents import MISSING, class_dict, mro_of, place_of

__all__ = ["belongs", "bind", "function_of", "member_of", "method_of"]

_BINDS = (FunctionType, classmethod, staticmethod, functools.partialmethod, type(functools.cache(len)))


def method_of(part: Any, old: type, new: type, newer: Callable[[Any], Any]) -> Any:
    """Return what is to be bound in the place of a method of an instance of `old`, or of that class itself.

    MISSING where `new` has nothing of that name that can be called.
    """
    if type(part) is BuiltinFunctionType:
        found = _first(mro_of(new), part.__name__)
        return found if type(found) is MethodDescriptorType else MISSING
    function = part.__func__
    place = place_of(function, mro_of(old))
    if place is None:  # bound by hand
        instead = newer(function) if type(function) is FunctionType else None
        return function if instead is None else instead
    found = _counterpart(place, old, new, newer)
    return found if type(found) in _BINDS else MISSING


def bind(found: Any, whole: Any) -> Any:
    """Return what `method_of` has found as a method of an object, or of a class."""
    if isinstance(found, (classmethod, staticmethod)):
        return found.__get__(None, whole) if _is_class(whole) else found.__get__(whole, type(whole))
    if isinstance(found, (functools.partialmethod, MethodDescriptorType)):
        return found.__get__(whole, type(whole))
    return MethodType(found, whole)


def function_of(function: FunctionType, classes: Collection[type], newer: Callable[[Any], Any]) -> Any:
    """Return what a newer class has for a function of an older one; MISSING where it is of none, or gone."""
    named = dict.get(function.__globals__, function.__qualname__.partition(".")[0])
    for cls in (*classes, *((named,) if _is_class(named) else ())):
        new = newer(cls)
        if new is not None and (place := place_of(function, (cls,))) is not None:
            found = _counterpart(place, cls, new, newer)
            found = found.__func__ if type(found) is staticmethod else found
            return found if type(found) is FunctionType else MISSING
    return MISSING


def belongs(
    code: Any, variables: dict[str, Any], classes: Collection[type], newer: Callable[[Any], Any]
) -> bool:
    """Tell whether a piece of code is of a function or a class that has a newer one."""
    named = dict.get(variables, code.co_qualname.partition(".")[0])
    if (type(named) is FunctionType or _is_class(named)) and newer(named) is not None:
        return True
    return any(_has_code(value, code) for cls in classes for value in class_dict(cls).values())


def member_of(member: Any, new: type) -> Any:
    """Return the member of the same name, of a flag the same names; MISSING where there is none."""
    members = class_dict(new).get("_member_map_", {})
    own = object.__getattribute__(member, "__dict__")
    name, value = own.get("_name_"), own.get("_value_")
    if name in members:
        return members[name]
    names = name.split("|") if type(name) is str else []
    flags = any(base is Flag for base in mro_of(new))
    if not flags or not all(one in members for one in names) or (value and not names):
        return MISSING
    try:
        return functools.reduce(Flag.__or__, [members[one] for one in names], new(0))
    except Exception:  # its own code decides what may stand together
        return MISSING


def _is_class(value: object) -> bool:
    """Tell whether a value is a class, by its type: a stranger may raise when it is asked for its own."""
    return issubclass(type(value), type)


def _has_code(value: Any, code: Any) -> bool:
    function = value.__func__ if type(value) in (classmethod, staticmethod) else value
    for _ in range(8):  # decorators on one another
        if type(function) is not FunctionType:
            return False
        if function.__code__ is code:
            return True
        function = function.__dict__.get("__wrapped__")
    return False


def _counterpart(place: tuple[int, str], old: type, new: type, newer: Callable[[Any], Any]) -> Any:
    at, name = place
    mro, below = mro_of(old), mro_of(new)
    if any(name in class_dict(cls) for cls in mro[:at]):
        # What `super()` gave: the one further down is meant.
        owner = newer(mro[at])
        owner = mro[at] if owner is None else owner
        below = below[next((at for at, cls in enumerate(below) if cls is owner), len(below)) :]
    return _first(below, name)


def _first(mro: tuple[type, ...], name: str) -> Any:
    return next((own[name] for own in map(class_dict, mro) if name in own), MISSING)
