"""The attributes of an object, in its `__dict__` and in slots."""

from __future__ import annotations

from collections.abc import Mapping
from types import MemberDescriptorType
from typing import Any

__all__ = ["attributes_of", "copy_of", "give", "is_slotted"]


def _slots(cls: type) -> list[str]:
    return [
        name
        for base in cls.__mro__
        for name, value in vars(base).items()
        if isinstance(value, MemberDescriptorType)
    ]


def is_slotted(model: Any) -> bool:
    """Tell whether an object has attributes in slots."""
    return bool(_slots(type(model)))


def copy_of(model: Any) -> Any:
    """Return an object with the same attributes, of which one may be set without the other; not of slots."""
    if is_slotted(model) or not hasattr(model, "__dict__"):
        return model
    copied = object.__new__(type(model))
    object.__setattr__(copied, "__dict__", {**vars(model)})
    return copied


def attributes_of(model: Any) -> dict[str, Any]:
    """Return all attributes of an object, also those that it keeps in slots; a copy."""
    found = dict(getattr(model, "__dict__", {}))
    for name in _slots(type(model)):
        try:
            found[name] = getattr(model, name)
        except AttributeError:  # nothing is in it yet
            continue
    return found


def give(model: Any, state: Mapping[str, Any], *, all_of_it: bool = False) -> None:
    """Set attributes, in slots where the class has them; with `all_of_it` there are no others."""
    if all_of_it and hasattr(model, "__dict__"):
        vars(model).clear()
    slots = set(_slots(type(model)))
    for name, value in state.items():
        if name in slots:
            object.__setattr__(model, name, value)
        elif hasattr(model, "__dict__"):
            vars(model)[name] = value
