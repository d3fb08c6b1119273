"""What the load of a service is made of: by that it is told whether other code would load other weights.

Of the service's class that is `load` and `warm_up`, of classes that are made there what makes them; and of
all of them whatever is asked for by name on the way, and not only kept for later. How a network computes is
no part of how it is loaded.
"""

from __future__ import annotations

import builtins
import inspect
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from enum import Enum
from functools import cached_property, partial
from pathlib import PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

from grym_nb.services.content import PLAIN, SKIP, code_of, is_settled
from grym_nb.services.reload.kept import kept_by

__all__ = ["HOOKS", "INIT", "changed_in_load", "load_of"]

#: what loads a service
HOOKS = ("load", "warm_up")
INIT = ("__init__",)
_SMALL = 1000  # parts of a value, and bytes of an array, that is known again by its content
_LOCKS = (type(threading.Lock()), type(threading.RLock()))
_MAKING = ("__new__", "__init__", "__post_init__", "__init_subclass__")


class _Value:
    """A value that is no constant: the same while it is the same object, or small and of the same content.

    What stands in a class is made anew with it, whatever was edited there.
    """

    __slots__ = ("_id", "_told")

    def __init__(self, value: Any) -> None:
        self._id = id(value)
        self._told = code_of(value) if _parts_of(value) <= _SMALL else ""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Value):
            return NotImplemented
        return self._id == other._id or bool(self._told and self._told == other._told)

    __hash__ = None  # type: ignore[assignment]


def _parts_of(value: Any, left: int = _SMALL) -> int:
    """Return how many parts a value has that is nothing but its content; more than that for all others."""
    kind = type(value)
    if kind is bool or kind in PLAIN:
        return 1 + len(value) // 100 if kind in (str, bytes) else 1
    if issubclass(kind, (PurePath, Enum, range, slice, partial, *_LOCKS)):
        its = (value.func, value.args, value.keywords) if kind is partial else ()
    elif kind.__module__ == "numpy" and hasattr(kind, "dtype"):
        return _SMALL + 1 if value.dtype.hasobject else 1 + int(value.nbytes)
    elif kind in (list, tuple, set, frozenset, dict):
        its = (*value, *value.values()) if kind is dict else tuple(value)
    else:
        return 1 if isinstance(value, (type, BuiltinFunctionType)) else _SMALL + 1
    count = 1
    for one in its:
        if count > left:
            break
        count += _parts_of(one, left - count)
    return count


def load_of(
    cls: type | None,
    factory: Any = None,
    hooks: tuple[str, ...] = HOOKS,
    *,
    tell: Callable[[Any], object] = id,
    but: Collection[str] = (),
    of: Callable[[type, str, object], object] | None = None,
    newer: Callable[[Any], Any] | None = None,
) -> Mapping[str, object]:
    """Return all that a load reaches, by name: code by its content, values by what they are.

    `factory` is what makes the model, where that is no class. `tell` tells values that are no constants from
    one another; those that are called as in `but` do not count. `of` is given the class, the name and what
    tells it, of a value that stands in a class. With `newer`, names stand for what that returns for a value.
    """
    return _Load(cls, factory, hooks, tell, but, of, newer).found


def changed_in_load(before: Mapping[str, object], after: Mapping[str, object]) -> tuple[str, ...]:
    """Return by what two loads differ: functions and values that they lead to, by name."""
    return tuple(name for name in {**after, **before} if before.get(name) != after.get(name))


class _Load:
    """A walk through all that a load reaches."""

    def __init__(
        self,
        cls: type | None,
        factory: Any,
        hooks: tuple[str, ...],
        tell: Callable[[Any], object],
        but: Collection[str],
        of: Callable[[type, str, object], object] | None,
        newer: Callable[[Any], Any] | None,
    ) -> None:
        self.found: dict[str, object] = {}
        self._tell = tell
        self._but = but
        self._of = of
        self._newer = newer
        self._names: set[str] = set()  # that are asked for
        self._classes: dict[type, str] = {}  # the user's own, and how they are called
        if cls is not None:
            self._take_class("self", cls, hooks)
        else:  # whatever it makes is one of the classes that it leads to
            self._names.update(hooks)
        if isinstance(factory, FunctionType):
            self._take("its factory", factory)

    def _take_class(self, label: str, cls: type, hooks: tuple[str, ...]) -> None:
        if cls in self._classes:
            return
        self._classes[cls] = label
        for name in (*hooks, *tuple(self._names)):
            self._take_of(cls, name)

    def _take_of(self, cls: type, name: str) -> None:
        """Take what a class has under a name, where that is its author's."""
        for base in cls.__mro__:
            if name in vars(base):
                own = not is_settled(base.__module__) and name not in SKIP
                if own and not isinstance(vars(base)[name], MemberDescriptorType):
                    label, value = f"{self._classes[cls]}.{name}", vars(base)[name]
                    is_fresh = label not in self.found
                    self._take(label, value, _Value if self._tell is id else self._tell)
                    if is_fresh and self._of is not None and (value is None or _is_data(value)):
                        self.found[label] = self._of(base, name, self.found[label])
                return

    def _take(self, label: str, value: Any, tell: Callable[[Any], object] | None = None) -> None:
        if label in self.found:
            return
        functions = list(_functions(value))
        self.found[label] = _content(value, functions, tell or self._tell)
        for function in functions:
            self._read(function)
        if isinstance(value, type) and not is_settled(value.__module__):
            self._take_class(label, value, _MAKING)

    def _read(self, function: FunctionType) -> None:
        """Take what a function may ask for by name: of its module, of a module there, or of a class."""
        kept = kept_by(function)
        every = [name for code in _codes(function.__code__) for name in code.co_names]
        space = {name: value for name in every if (value := _global(function, name)) is not None}
        if self._newer is not None:
            space = {name: self._newer(value) for name, value in space.items()}
        names = [name for name in every if name not in kept or _is_data(space.get(name))]
        modules = [one for name in names if isinstance(one := space.get(name), ModuleType)]
        fresh = [name for name in dict.fromkeys(names) if name not in self._names | kept]
        self._names.update(fresh)
        for name in names:
            if name in space and name not in self._but and not isinstance(space[name], ModuleType):
                self._take(_label(function.__module__, name, space[name]), space[name])
            for module in modules:
                if not is_settled(module.__name__) and name in vars(module):
                    self._take(_label(module.__name__, name, vars(module)[name]), vars(module)[name])
        for cls in tuple(self._classes):
            for name in fresh:
                self._take_of(cls, name)
        for name, value in _captured(function).items():
            if name != "__class__" and name not in self._but:
                self._take(f"{function.__module__}.{function.__qualname__}:{name}", value)


def _label(module: str, name: str, value: Any) -> str:
    """Return how something is called where it was defined, or else where it is used."""
    if isinstance(value, (type, FunctionType)):
        return f"{value.__module__}.{value.__qualname__}"
    return f"{module}.{name}"


def _content(value: Any, functions: list[FunctionType], tell: Callable[[Any], object]) -> object:
    """Return what two have to share to be the same: a value that is large is only itself."""
    if isinstance(value, type):
        return tuple(f"{base.__module__}.{base.__qualname__}" for base in value.__bases__)
    if functions:
        given = (*value.args, *value.keywords.items()) if isinstance(value, partial) else ()
        return *map(_told, functions), *(_content(one, [], tell) for one in given)
    if isinstance(value, PLAIN):
        return code_of(value)
    if isinstance(value, (tuple, frozenset)) and all(isinstance(part, PLAIN) for part in value):
        return code_of(value)
    if isinstance(value, ModuleType):
        return value.__name__
    return tell(value)


def _global(function: FunctionType, name: str) -> Any:
    """Return what a function has by a global name, in a service's cell also of the notebook's; else None."""
    if name in function.__globals__:
        return function.__globals__[name]
    its: Any = function
    try:
        value = its.__builtins__[name]
    except KeyError:
        return None
    return None if value is vars(builtins).get(name) else value


def _is_data(value: Any) -> bool:
    """Tell whether a value is not code, of which nothing but the name may be kept."""
    return value is not None and not isinstance(value, (type, ModuleType)) and not callable(value)


def _told(function: FunctionType) -> tuple[str, ...]:
    """Return a function's code and defaults; what it captured is looked at for itself."""
    parts = function.__code__, function.__defaults__, function.__kwdefaults__
    return tuple(code_of(part) for part in parts)


def _captured(function: FunctionType) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # still empty
            continue
    return found


def _functions(value: Any) -> Iterator[FunctionType]:
    """Yield the functions that something is made of, of a module that may change."""
    if isinstance(value, (staticmethod, classmethod, MethodType)):
        value = value.__func__
    elif isinstance(value, (cached_property, partial)):
        value = value.func
    if isinstance(value, property):
        yield from (one for one in (value.fget, value.fset) if isinstance(one, FunctionType))
    elif not isinstance(value, type):
        inner = inspect.getattr_static(value, "__wrapped__", None)  # of a decorator's
        if isinstance(value, FunctionType) and not is_settled(value.__module__ or ""):
            yield value
        if isinstance(inner, FunctionType):
            yield from _functions(inner)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from _codes(one)
