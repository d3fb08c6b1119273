"""The content of code and values as a hash: when a cell that is run again has made the same thing.

A function is its bytecode with the values it captured, a class its functions and what else stands in it, an
array its bytes. So a cell that is run again, or touched without a change, makes the same thing; a number
changed in a closure does not.
"""

from __future__ import annotations

import dis
import hashlib
import logging
import os
import re
import sys
import threading
import types
import typing
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import is_dataclass
from enum import Enum
from functools import cached_property, lru_cache, partial
from typing import Any

from grym_nb.services.reads import watches

__all__ = ["code_of", "named_by"]

_SKIP = {"__dict__", "__weakref__", "__module__", "__qualname__", "__firstlineno__", "__static_attributes__"}
_SKIP |= {"__annotations_cache__", "_abc_impl"}
_PLAIN: Any = (str, bytes, int, float, complex, type(None), type(...))
_SETTLED = frozenset(sys.stdlib_module_names) - {"__main__"} | {"grym_nb"}
#: instances of these hold nothing in which two of them could differ
_EMPTY = (object, type(threading.Lock()), type(threading.RLock()))
_DEEPEST = 80


def code_of(made: Any, *, within: object = None) -> str:
    """Return a hash of what a value is: of code its behaviour, with constants and captured values.

    `within` is what the hash is to be a part of: where the value leads back to it, its content does not
    count.
    """
    return _hash([_told(made, {} if within is None else {id(within): 0}, {})])


def _hash(parts: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part.encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return digest.hexdigest()


def _told(value: Any, above: dict[int, int], known: dict[int, tuple[Any, str]]) -> str:
    """Return what stands for a value: itself when it is plain, else a hash of its parts.

    `above` has what this value is a part of, so that circles end; `known` what was told already, and keeps
    it alive, so that no two things share an identity.
    """
    # By its type: a stranger may raise when it is asked for its class.
    made = type(value)
    for base in _PLAIN:
        if issubclass(made, base) and not issubclass(made, Enum):
            return f"{made.__name__}:{base.__repr__(value)}"
    key = id(value)
    if key in known:
        return known[key][1]
    if key in above:
        return f"circle:{above[key]}"
    if len(above) > _DEEPEST:
        return f"object:{key}"
    above[key] = len(above)
    try:
        kind, found = _parts(value)
        parts = list(found)
    except Exception:  # a stranger that does not let itself be read
        kind, parts = "object", [key]
    told = [_told(part, above, known) for part in parts]
    if issubclass(made, (Set, Mapping)):
        told.sort()
    del above[key]
    known[key] = value, _hash([kind, *told])
    return known[key][1]


def _parts(value: Any) -> tuple[str, Iterable[Any]]:
    """Return the kind of a value, and what two of that kind have to share to be the same."""
    kind = type(value)
    named = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, types.CodeType):
        shape = value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount, value.co_flags
        names = value.co_names, value.co_varnames
        return "code", (*shape, *names, value.co_code, value.co_exceptiontable, *value.co_consts)
    if isinstance(value, types.FunctionType):
        return "function", _parts_of_function(value)
    if isinstance(value, type):
        return "class", _parts_of_class(value)
    if isinstance(value, types.MethodType):
        return "method", (value.__func__, value.__self__)
    if isinstance(value, (staticmethod, classmethod)):
        return named, (value.__func__,)
    if isinstance(value, property):
        return named, (value.fget, value.fset, value.fdel)
    if isinstance(value, cached_property):
        return named, (value.func,)
    if isinstance(value, partial):
        return named, (value.func, value.args, value.keywords)
    if isinstance(value, types.ModuleType):
        return "module", (value.__name__,)
    if typing.get_origin(value) is not None:
        return "type", (typing.get_origin(value), *typing.get_args(value))
    return named, _parts_of_value(value)


def _parts_of_function(function: types.FunctionType) -> Iterator[Any]:
    yield from (function.__code__, function.__defaults__, function.__kwdefaults__)
    try:
        yield function.__annotations__  # types and checks are declared there
    except Exception:  # evaluated only now, and it names what is not there
        yield "unknown"
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a cell that is still empty
            yield "empty"
    yield vars(function)


def _parts_of_class(cls: type) -> Iterator[Any]:
    yield from (cls.__module__, cls.__qualname__)
    if not _settled(cls.__module__):
        yield cls.__bases__
        # A copy: another thread may be setting attributes of the class.
        its = vars(cls).copy().items()
        yield [(name, value) for name, value in its if name not in _SKIP and not watches(value)]


def _settled(module: str) -> bool:
    """Tell whether the classes of a module are known by name: it does not change under a kernel."""
    if module == "__main__":
        return False  # whatever file it came from
    if module.partition(".")[0] in _SETTLED:
        return True
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file


def _parts_of_value(value: Any) -> Iterable[Any]:
    kind = type(value)
    if isinstance(value, Mapping):
        return value.items()
    if isinstance(value, (list, tuple, Set, deque)):
        return value
    if isinstance(value, Enum):
        return value.name, value.value
    if isinstance(value, os.PathLike):
        return (os.fspath(value),)
    if isinstance(value, re.Pattern):
        return value.pattern, value.flags
    if isinstance(value, logging.Logger):
        return (value.name,)
    if kind in _EMPTY:
        return ()
    if kind.__module__.split(".")[0] == "grym_nb" and not is_dataclass(value):
        return (getattr(value, "hash", id(value)),)  # a clip, or a handle
    if (array := _array(value)) is not None:
        content = array.tolist() if array.dtype.hasobject else hashlib.blake2b(array.tobytes()).hexdigest()
        return str(array.dtype), array.shape, content, kind.__module__ == "numpy" or repr(value)
    text = repr(value)
    told = () if " at 0x" in text or "..." in text else (text,)
    state = _state(value)
    if state is not None:
        # A repr may leave out what matters, or tell too much: it only counts where there is nothing else.
        return kind if kind.__module__ == "__main__" else "", state or told
    # Where nothing tells the content, another object counts as another value.
    return told or (id(value),)


def _array(value: Any) -> Any:
    if not hasattr(type(value), "__array__"):
        return None
    try:
        return value.__array__()
    except Exception:  # a tensor on a device, or with gradients
        return None


def _state(value: Any) -> dict[str, Any] | None:
    """Return the attributes of an object; None when it is not made of attributes."""
    state = getattr(value, "__dict__", None)
    found = dict(state) if isinstance(state, dict) else None
    for cls in type(value).__mro__:
        if "__slots__" in vars(cls):
            for name, slot in vars(cls).copy().items():
                if isinstance(slot, types.MemberDescriptorType):
                    found = found or {}
                    found[name] = getattr(value, name, None)
    return found


# -- what code names ---------------------------------------------------------------------------------


def named_by(made: Any) -> tuple[tuple[str, str], ...]:
    """Return what the code of `made` names outside of itself, and what that names in turn, with hashes.

    Functions, classes and plain values, so that another kernel tells the same. Of other objects (a handle, a
    model, a file) only the class counts, as nothing of them can be told apart from what ran before.
    """
    told: set[tuple[str, str]] = set()
    known: dict[int, Any] = {}  # also keeps alive what is made on the way, so that no identity comes twice
    ahead: list[Any] = [made]
    while ahead:
        at = ahead.pop()
        kind = type(at)  # and not isinstance: a stranger may raise when it is asked for its class
        if id(at) in known or _is_settled(at):
            continue
        known[id(at)] = at
        if _is_code(at) and at is not made:
            told.add((at.__qualname__, code_of(at)))
        if kind is types.FunctionType:
            for name, value in _globals_of(at):
                if _is_code(value) or _is_plain(value):
                    told.add((f"{at.__qualname__} {name}", code_of(value)))
                ahead.append(value)
            ahead += [cell.cell_contents for cell in at.__closure__ or () if _is_full(cell)]
        elif issubclass(kind, type):
            ahead += [*at.__bases__, *vars(at).copy().values()]
        elif kind is property:
            ahead += [at.fget, at.fset, at.fdel]
        elif _is_plain(at):
            told.add((kind.__qualname__, code_of(at)))
        else:
            ahead += [kind, *(getattr(at, name) for name in _WRAPS.get(kind, ()))]
    return tuple(sorted(told))


#: what holds a function inside, and where
_WRAPS: dict[type, tuple[str, ...]] = {
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    types.MethodType: ("__func__",),
    partial: ("func", "args", "keywords"),
    cached_property: ("func",),
    type(lru_cache(len)): ("__wrapped__",),
}


def _is_code(value: Any) -> bool:
    return type(value) is types.FunctionType or issubclass(type(value), type)


def _is_settled(value: Any) -> bool:
    return _is_code(value) and isinstance(value.__module__, str) and _settled(value.__module__)


def _is_full(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _is_plain(value: Any, depth: int = 4) -> bool:
    """Tell whether a value is nothing but its content, the same in every kernel."""
    kind = type(value)
    if issubclass(kind, (*_PLAIN, os.PathLike, Enum, re.Pattern)) or kind.__module__ == "numpy":
        return True
    if kind not in (list, tuple, set, frozenset, dict) or not depth:
        return False
    inside = value.items() if kind is dict else value
    return all(_is_plain(one, depth - 1) for one in tuple(inside))


def _globals_of(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield the globals that a function names and does not set itself; of the user's own modules what it
    names of their content.
    """
    names, sets = _names_in(function.__code__)
    for name in sorted(names - sets):
        value = _looked_up(function, name)
        if issubclass(type(value), types.ModuleType):
            yield from _of_module(value, names)
        elif value is not None:
            yield name, value


def _names_in(code: types.CodeType) -> tuple[set[str], set[str]]:
    names = set(code.co_names)
    sets = {step.argval for step in dis.get_instructions(code) if step.opname == "STORE_GLOBAL"}
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            its, set_there = _names_in(inner)
            names |= its
            sets |= set_there
    return names, sets


def _looked_up(function: types.FunctionType, name: str) -> Any:
    if name in function.__globals__:
        return function.__globals__[name]
    try:
        its: Any = function
        return its.__builtins__[name]  # in a service's cell: the notebook's variables
    except KeyError:
        return sys.modules.get(name)  # imported inside of the function


def _of_module(module: types.ModuleType, names: set[str], depth: int = 4) -> Iterator[tuple[str, Any]]:
    if _settled(module.__name__):
        return
    for name in sorted(names & set(vars(module))):
        value = vars(module)[name]
        if not issubclass(type(value), types.ModuleType):
            yield f"{module.__name__}.{name}", value
        elif depth:
            yield from _of_module(value, names, depth - 1)
