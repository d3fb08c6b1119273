"""What the load of a class is made of: by that it is told whether other code would load other weights."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from grym_nb.services.content import PLAIN, code_of, is_settled

__all__ = ["changed_in_load"]

_HOOKS = ("load", "warm_up")


def changed_in_load(old: type, new: type) -> tuple[str, ...]:
    """Return by what loads of two classes differ: functions and values that they lead to, by name."""
    before, after = _load_of(old), _load_of(new)
    return tuple(name for name in {**after, **before} if before.get(name) != after.get(name))


def _load_of(cls: type) -> Mapping[str, object]:
    """Return all that loading reaches, by name: code by its content, values by what they are."""
    found: dict[str, object] = {}
    todo = [(name, inspect.getattr_static(cls, name)) for name in _HOOKS if hasattr(cls, name)]
    while todo:
        name, value = todo.pop()
        if name in found:
            continue
        functions = list(_functions(value))
        found[name] = _content(value, functions)
        for function in functions:
            todo += _reached(cls, function)
    return found


def _content(value: Any, functions: list[FunctionType]) -> object:
    """Return what two have to share to be the same: a value that is large is only itself."""
    if functions or isinstance(value, PLAIN):
        return code_of(value)
    if isinstance(value, (tuple, frozenset)) and all(isinstance(part, PLAIN) for part in value):
        return code_of(value)
    if isinstance(value, ModuleType) or (isinstance(value, type) and is_settled(value.__module__)):
        return value.__name__
    return id(value)


def _functions(value: Any) -> Iterator[FunctionType]:
    """Yield the functions that something is made of, of a module that may change."""
    if isinstance(value, (staticmethod, classmethod, MethodType)):
        value = value.__func__
    elif isinstance(value, (cached_property, partial)):
        value = value.func
    if isinstance(value, property):
        yield from (one for one in (value.fget, value.fset) if isinstance(one, FunctionType))
    elif isinstance(value, type):
        if not is_settled(value.__module__):
            for one in tuple(vars(value).values()):
                if not isinstance(one, type):
                    yield from _functions(one)
    else:
        inner = getattr(value, "__wrapped__", None)  # of a decorator's
        if isinstance(value, FunctionType) and not is_settled(value.__module__ or ""):
            yield value
        if isinstance(inner, FunctionType):
            yield from _functions(inner)


def _reached(cls: type, function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield what a function may ask for by name: of its module, of a module there, or of its own class."""
    space = function.__globals__
    names = [name for code in _codes(function.__code__) for name in code.co_names]
    modules = [one for name in names if isinstance(one := space.get(name), ModuleType)]
    for name in names:
        if name in space and not isinstance(space[name], ModuleType):
            yield f"{function.__module__}.{name}", space[name]
        for module in modules:
            if not is_settled(module.__name__) and name in vars(module):
                yield f"{module.__name__}.{name}", vars(module)[name]
        own = inspect.getattr_static(cls, name, None)
        if own is not None and any(_functions(own)):
            yield f"{cls.__qualname__}.{name}", own


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from _codes(one)
