"""The content of code and values as a hash: when a cell that is run again has made the same thing.

A function is its bytecode with the values it captured, a class its functions and what else stands in it, an
array its bytes. So a cell that is run again, or touched without a change, makes the same thing; a number
changed in a closure does not.
"""

from __future__ import annotations
import __future__

import hashlib
import logging
import os
import re
import sys
import threading
import types
import typing
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import is_dataclass
from enum import Enum
from functools import cached_property, partial
from typing import Any

from grym_nb.services.reads import watches

__all__ = ["PLAIN", "SKIP", "code_of", "is_settled", "state_of"]

SKIP = {"__dict__", "__weakref__", "__module__", "__qualname__", "__firstlineno__", "__static_attributes__"}
SKIP |= {"__annotations_cache__", "_abc_impl"}
#: what pydantic compiles of a model's fields and validators, with the address of the class in it
SKIP |= {f"__pydantic_{name}__" for name in ("core_schema", "validator", "serializer")}
PLAIN: Any = (str, bytes, int, float, complex, type(None), type(...))
_SETTLED = frozenset(sys.stdlib_module_names) - {"__main__"} | {"grym_nb"}
#: instances of these hold nothing in which two of them could differ
_EMPTY = (object, type(threading.Lock()), type(threading.RLock()))
_DEEPEST = 80
_BUILT_IN = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
)
_CHANGING = (list, dict, set, deque, bytearray, types.MappingProxyType, types.SimpleNamespace)


def code_of(made: Any, *, within: object = None, data: bool = True) -> str:
    """Return a hash of what a value is: of code its behaviour, with constants and captured values.

    `within` is what the hash is to be a part of: where the value leads back to it, its content does not
    count. Without `data` what code has in itself counts by its kind alone where it may change in place.
    """
    return _hash([_told(made, {} if within is None else {id(within): 0}, {}, _itself if data else _lasting)])


def _itself(value: Any) -> Any:
    return value


def _lasting(value: Any) -> Any:
    """Return a value that code has in itself; only its class, where calls may change it in place."""
    kind = type(value)
    if kind is tuple:
        return tuple(map(_lasting, value))
    if issubclass(kind, (*PLAIN, Enum, type)):
        return value
    its: object = kind.__module__
    return (
        kind if issubclass(kind, _CHANGING) or not is_settled(its if isinstance(its, str) else "") else value
    )


def _hash(parts: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part.encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return digest.hexdigest()


def _told(
    value: Any, above: dict[int, int], known: dict[int, tuple[Any, str]], own: Callable[[Any], Any]
) -> str:
    """Return what stands for a value: itself when it is plain, else a hash of its parts.

    `above` has what this value is a part of, so that circles end; `known` what was told already, and keeps
    it alive, so that no two things share an identity. `own` is what counts of what code has in itself.
    """
    # By its type: a stranger may raise when it is asked for its class.
    made = type(value)
    for base in PLAIN:
        if issubclass(made, base) and not issubclass(made, Enum):
            # An int of thousands of digits has no decimal repr.
            return f"{made.__name__}:{hex(value) if base is int else base.__repr__(value)}"
    key = id(value)
    if key in known:
        return known[key][1]
    if key in above:
        return f"circle:{above[key]}"
    if len(above) > _DEEPEST:
        return f"object:{key}"
    above[key] = len(above)
    try:
        kind, found = _parts(value, own)
        parts = list(found)
    except Exception:  # a stranger that does not let itself be read
        kind, parts = "object", [key]
    told = [_told(part, above, known, own) for part in parts]
    if issubclass(made, (Set, Mapping)):
        told.sort()
    del above[key]
    known[key] = value, _hash([kind, *told])
    return known[key][1]


def _parts(value: Any, own: Callable[[Any], Any]) -> tuple[str, Iterable[Any]]:
    """Return the kind of a value, and what two of that kind have to share to be the same."""
    kind = type(value)
    named = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, types.CodeType):
        flags = (
            value.co_flags & ~__future__.annotations.compiler_flag
        )  # what is annotated is told apart from that
        shape = value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount, flags
        names = value.co_names, value.co_varnames
        return "code", (*shape, *names, value.co_code, value.co_exceptiontable, *value.co_consts)
    if isinstance(value, types.FunctionType):
        return "function", _parts_of_function(value, own)
    if isinstance(value, type):
        return "class", _parts_of_class(value, own)
    if isinstance(value, types.MethodType):
        return "method", (value.__func__, value.__self__)
    if isinstance(value, (staticmethod, classmethod)):
        return named, (value.__func__,)
    if isinstance(value, property):
        return named, (value.fget, value.fset, value.fdel)
    if isinstance(value, cached_property):
        return named, (value.func,)
    if isinstance(value, partial):
        return named, (value.func, own(value.args), {key: own(one) for key, one in value.keywords.items()})
    if isinstance(value, types.ModuleType):
        return "module", (value.__name__,)
    if isinstance(value, _BUILT_IN):  # not by its repr, which has an address in it
        owner = getattr(value, "__self__", None) or getattr(value, "__objclass__", None)
        if owner is None or isinstance(owner, (type, types.ModuleType)):
            return named, (getattr(owner, "__name__", ""), value.__qualname__)
    if typing.get_origin(value) is not None:
        return "type", (typing.get_origin(value), *typing.get_args(value))
    return named, _parts_of_value(value)


def _parts_of_function(function: types.FunctionType, own: Callable[[Any], Any]) -> Iterator[Any]:
    yield from (function.__code__, own(function.__defaults__))
    yield function.__kwdefaults__ and {key: own(one) for key, one in function.__kwdefaults__.items()}
    try:
        yield function.__annotations__  # types and checks are declared there
    except Exception:  # evaluated only now, and it names what is not there
        yield "unknown"
    for cell in function.__closure__ or ():
        try:
            yield own(cell.cell_contents)
        except ValueError:  # a cell that is still empty
            yield "empty"
    yield vars(function)


def _parts_of_class(cls: type, own: Callable[[Any], Any]) -> Iterator[Any]:
    yield from (cls.__module__, cls.__qualname__)
    if not is_settled(cls.__module__):
        yield cls.__bases__
        # A copy: another thread may be setting attributes of the class.
        its = vars(cls).copy().items()
        yield [(name, own(value)) for name, value in its if name not in SKIP and not watches(value)]


def is_settled(module: str) -> bool:
    """Tell whether the classes of a module are known by name: it does not change under a kernel."""
    if module == "__main__":
        return False  # whatever file it came from
    if module.partition(".")[0] in _SETTLED:
        return True
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file


def _parts_of_value(value: Any) -> Iterable[Any]:
    kind = type(value)
    if isinstance(value, defaultdict):
        return value.default_factory, dict(value)
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
    state = state_of(value)
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


def state_of(value: Any) -> dict[str, Any] | None:
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
