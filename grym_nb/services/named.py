"""What code is together with what it names outside of itself, by content: all that makes its answers.

A task looks its globals up at every call. So whoever keeps answers has to keep in mind, beside the code, the
functions, classes and values that it names, and those that these name in turn.
"""

from __future__ import annotations

import ast
import builtins
import dis
import inspect
import os
import re
import sys
import textwrap
import types
from collections import deque
from collections.abc import Iterator
from dataclasses import is_dataclass
from datetime import date, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import cached_property, lru_cache, partial
from typing import Any

from grym_nb.services.content import PLAIN, SKIP, code_of, is_settled
from grym_nb.services.reads import watches
from grym_nb.services.syntax import parsed

__all__ = ["WRAPS", "looked_up", "named_by", "named_of_module", "uses_of"]

_VALUES = (
    *PLAIN,
    os.PathLike,
    Enum,
    re.Pattern,
    Decimal,
    Fraction,
    date,
    time,
    timedelta,
    tzinfo,
    range,
    slice,
)
_BUILT_IN = (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType)
_CONTAINERS = (list, tuple, dict, set, frozenset, deque)
#: what holds functions inside, and where
WRAPS: dict[type, tuple[str, ...]] = {
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    property: ("fget", "fset", "fdel"),
    partial: ("func", "args", "keywords"),
    cached_property: ("func",),
    types.MethodType: ("__func__", "__self__"),
    type(lru_cache(len)): ("__wrapped__",),
}
#: methods by which a container is filled or emptied
_CHANGES = frozenset(
    "append appendleft add update setdefault extend insert pop popleft popitem remove discard clear".split()
)
_MAKING = ("__init__", "__new__", "__post_init__")
_NOT_ITS_OWN = SKIP | {"__doc__", "__annotations__", "__annotate_func__", "__slots__"}
_DEEPEST = 4


def named_by(made: Any) -> tuple[tuple[str, str], ...]:
    """Return some code and what it names outside of itself, and what that names in turn, with hashes.

    Functions, classes, and values as far as another kernel can tell the same: of a handle, a model or a file
    only the class counts. What the code itself changes (a counter, a cache) is left out, or no answer would
    ever be found again.
    """
    return _Walk(made).told()


_Names = frozenset[str]
_NONE: _Names = frozenset()


class _Walk:
    """A walk through everything that some code names; each thing is looked at once."""

    def __init__(self, made: Any) -> None:
        self._found: set[tuple[_Names, str, str]] = set()  # the names it hangs on, the place, what is there
        self._changed: set[str] = set()  # names whose value the code changes itself
        # Also keeps alive what is made on the way, so that no identity comes twice.
        self._known: dict[tuple[int, _Names], Any] = {}
        self._ahead: list[tuple[_Names, str, Any]] = [(_NONE, "", made)]

    def told(self) -> tuple[tuple[str, str], ...]:
        """Return the places with what is there, sorted."""
        while self._ahead:
            names, place, value = self._ahead.pop()
            try:
                self._look(names, place, value)
            except Exception:  # a stranger that does not let itself be looked at
                self._found.add((names, place, "?"))
        kept = {(at, told) for names, at, told in self._found if self._changed.isdisjoint(names)}
        return tuple(sorted(kept))

    def _look(self, names: _Names, place: str, value: Any) -> None:
        kind = type(value)  # and not isinstance: a proxy may raise when it is asked for its class
        if _is_plain(value):
            self._found.add((names, place, code_of(value)))
            return
        is_class = issubclass(kind, type)
        if kind is types.FunctionType or is_class:
            self._found.add((names, place, _called(value)))
            if _is_settled(value):
                return
        # Code is looked at once, data once for each name it hangs on: another one may be changed.
        known = id(value), _NONE if kind is types.FunctionType or is_class else names
        if known in self._known:
            return
        self._known[known] = value
        if kind is types.FunctionType:
            self._look_at_function(value)
        elif is_class:
            self._look_at_class(value)
        elif kind in WRAPS:
            self._ahead += [(names, f"{place}.{part}", getattr(value, part)) for part in WRAPS[kind]]
        elif issubclass(kind, _CONTAINERS):
            self._found.add((names, place, f"{kind.__name__} of {len(value)}"))
            self._ahead += [(names, f"{place}[{key}]", inside) for key, inside in _entries(value)]
        else:
            self._look_at_object(names, place, value)

    def _look_at_function(self, function: types.FunctionType) -> None:
        place, space, code = _called(function), f"{function.__module__} ", function.__code__
        self._found.add((_NONE, place, code_of(code)))
        cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
        taken = code.co_varnames[: code.co_argcount]
        defaults = dict(zip(reversed(taken), reversed(function.__defaults__ or ()), strict=False))
        defaults |= function.__kwdefaults__ or {}
        # What is this function's own has names of its own: another function may change it.
        own = {name: f"{place} {name}" for name in (*taken, *defaults)}
        own |= {name: f"{place} {name} {id(cell)}" for name, cell in cells.items()}
        uses = uses_of(code)
        changes = _Changes(function)
        self._changed |= {space + name for name in uses.sets}
        self._changed |= {
            own.get(name, space + name) for name in changes.names if name in uses.names | own.keys()
        }
        self._changed |= changes.attributes
        for name, cell in cells.items():
            if _is_full(cell):
                self._ahead.append((_of(own[name]), f"{place} {name}", cell.cell_contents))
        self._ahead += [(_of(own[name]), f"{place}({name})", value) for name, value in defaults.items()]
        for name in sorted(uses.names | uses.modules):
            value = looked_up(function, name)
            if type(value) is types.ModuleType:
                self._ahead += [
                    (_of(at), at, inside) for at, inside in named_of_module(value, uses.attributes)
                ]
            elif value is not None:
                self._ahead.append((_of(space + name), space + name, value))

    def _look_at_class(self, cls: type) -> None:
        place = _called(cls)
        self._ahead += [(_NONE, f"{place} base {i}", base) for i, base in enumerate(cls.__bases__)]
        for name, value in vars(cls).copy().items():
            if name not in _NOT_ITS_OWN and not watches(value):
                self._ahead.append((_of(f".{name}"), f"{place}.{name}", value))

    def _look_at_object(self, names: _Names, place: str, value: Any) -> None:
        kind = type(value)
        called = getattr(value, "__name__", "")
        self._found.add((names, place, called if isinstance(called, str) else ""))
        self._ahead.append((names, f"{place}: type", kind))
        if is_dataclass(kind) or kind is types.SimpleNamespace or not _is_settled(kind):
            slots = {name: getattr(value, name, None) for name in getattr(kind, "__slots__", ())}
            for name, inside in (getattr(value, "__dict__", None) or slots).copy().items():
                through = {f"{_called(cls)} self.{name}" for cls in kind.__mro__}
                self._ahead.append((names | through, f"{place}.{name}", inside))


# -- what there is to be seen ------------------------------------------------------------------------


def _of(name: str) -> _Names:
    return frozenset((name,))


def _called(made: Any) -> str:
    return f"{made.__module__}.{made.__qualname__}"


def _entries(container: Any) -> list[tuple[str, Any]]:
    """Return what is in a container, with the key of each; in a set all have the same."""
    if isinstance(container, dict):
        keys = (repr(key) if isinstance(key, (str, int)) else code_of(key) for key in container)
        return list(zip(keys, container.values(), strict=True))
    if isinstance(container, (set, frozenset)):
        return [("", one) for one in container]
    return [(str(i), one) for i, one in enumerate(container)]


def _is_settled(value: Any) -> bool:
    module = getattr(value, "__module__", None)
    try:
        return not isinstance(module, str) or is_settled(module)
    except TypeError:  # a module without a proper file
        return False


def _is_plain(value: Any, depth: int = _DEEPEST) -> bool:
    """Tell whether a value is nothing but its content, the same in every kernel."""
    kind = type(value)
    if issubclass(kind, _VALUES):
        return True
    if kind in _BUILT_IN:
        return isinstance(getattr(value, "__self__", None), (type, types.ModuleType, type(None)))
    if kind.__module__ == "numpy" and hasattr(kind, "dtype"):
        return not value.dtype.hasobject
    if (kind.__module__, kind.__name__) == ("torch", "Tensor"):
        return value.device.type == "cpu" and not value.requires_grad
    if kind not in (list, tuple, set, frozenset, dict) or not depth:
        return False
    inside = (*value.keys(), *value.values()) if kind is dict else tuple(value)
    return all(_is_plain(one, depth - 1) for one in inside)


def _is_full(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


class _Uses:
    """The globals that code names, the ones it sets, the attributes it asks for, and what it imports.

    `rebinds` are captured names and attributes that it sets.
    """

    def __init__(self, code: types.CodeType) -> None:
        self.names: set[str] = set()
        self.sets: set[str] = set()
        self.attributes: set[str] = set()
        self.modules: set[str] = set()
        self.rebinds: set[str] = set()
        kinds = {
            "LOAD_GLOBAL": self.names,
            "LOAD_NAME": self.names,
            "STORE_GLOBAL": self.sets,
            "DELETE_GLOBAL": self.sets,
            "LOAD_ATTR": self.attributes,
            "LOAD_METHOD": self.attributes,
            "IMPORT_FROM": self.attributes,
            "IMPORT_NAME": self.modules,
            "STORE_ATTR": self.rebinds,
            "STORE_DEREF": self.rebinds,
        }
        ahead = [code]
        while ahead:
            at = ahead.pop()
            for step in dis.get_instructions(at):
                if step.opname in kinds:
                    kinds[step.opname].add(step.argval)
            ahead += [inner for inner in at.co_consts if isinstance(inner, types.CodeType)]
        self.modules |= {name.partition(".")[0] for name in self.modules}


@lru_cache(maxsize=2000)
def uses_of(code: types.CodeType) -> _Uses:
    """Return what some code names outside of itself; nobody changes that."""
    return _Uses(code)


class _Changes:
    """What a function changes in place, as far as its source is there to tell: names, and attributes."""

    def __init__(self, function: types.FunctionType) -> None:
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        try:
            tree = parsed(textwrap.dedent(inspect.getsource(function)))
        except Exception:  # there is no source, or what stands there is none; whatever `inspect` meets
            return
        me = next(iter(function.__code__.co_varnames), "")
        mine = f"{_called(function).rpartition('.')[0]} self."
        for node in ast.walk(tree):
            if isinstance(node, (ast.Subscript, ast.Attribute)) and not isinstance(node.ctx, ast.Load):
                self._change(node, me, mine, within=function.__name__)
            elif isinstance(node, ast.Attribute) and node.attr in _CHANGES:
                self._change(node.value, me, mine)

    def _change(self, node: ast.AST, me: str, mine: str, within: str = "") -> None:
        """Note what is changed: `name`, `name[...]`, `name.attribute`, `type(self).attribute`, and on."""
        changed, attributes = node, []
        while isinstance(changed, (ast.Subscript, ast.Attribute)):
            attributes += [changed.attr] if isinstance(changed, ast.Attribute) else []
            changed = changed.value
        root = changed.id if isinstance(changed, ast.Name) else ""
        if root == me and root:
            set_anew = isinstance(node, ast.Attribute) and node.value is changed and within
            if not (set_anew and within in _MAKING):
                self.attributes |= {mine + name for name in attributes}
            if set_anew:
                return  # an attribute of the object, and not the one of its class
        self.names.add(root)
        self.attributes |= {f".{name}" for name in attributes}


def looked_up(function: types.FunctionType, name: str) -> Any:
    """Return what a function has by a global name; None where that is Python's own, or nothing."""
    if name in function.__globals__:
        return function.__globals__[name]
    its: Any = function
    try:
        value = its.__builtins__[name]  # in a service's cell: the notebook's variables
    except KeyError:
        return sys.modules.get(name)  # imported inside of the function
    return None if value is vars(builtins).get(name) else value


def named_of_module(
    module: types.ModuleType, names: set[str], depth: int = _DEEPEST
) -> Iterator[tuple[str, Any]]:
    """Yield what is named of a user's own module."""
    called = vars(module).get("__name__")
    if not isinstance(called, str) or is_settled(called):
        return
    for name in sorted(names & set(vars(module))):
        value = vars(module)[name]
        if not issubclass(type(value), types.ModuleType):
            yield f"{called} {name}", value
        elif depth:
            yield from named_of_module(value, names, depth - 1)
