"""Content as text and arrays, and back exactly as it was: JSON and npz, nothing that runs when it is read.

>>> text, arrays = encode({"bpm": 120.0, "at": (1, 2)})
>>> text, arrays, decode(text, arrays)
('{"bpm":120.0,"at":{"$tuple":[1,2]}}', [], {'bpm': 120.0, 'at': (1, 2)})
"""

from __future__ import annotations

import base64
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass
from datetime import date, datetime, timedelta, timezone
from enum import Enum, Flag
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, TypeVar

from grym_nb.clip import Clip
from grym_nb.context.content import FrozenBytearray, FrozenDict, FrozenList, FrozenSet
from grym_nb.context.packing import from_npy, npy
from grym_nb.errors import Problem, StorageError, ValidationError
from grym_nb.render import brief

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["decode", "encode", "storable"]

T = TypeVar("T", bound=type)

_SHORT = 256  # bytes; an array of no more stands in the text
_HOW = "plain values, containers, arrays, clips, or a class marked grym_nb.context.storable"

# -- classes that go by name -----------------------------------------------------------------------

_CLASSES: dict[str, type] = {}
_NAMES: dict[type, str] = {}


def storable(cls: T | str) -> Any:
    """Return a class, a dataclass, named tuple or enum, whose values a file can keep from now on.

    ``@storable`` goes by the class's own name, ``@storable("beat")`` by that. The name finds the class
    again: in a later kernel it has to be marked before such a value is read.
    """
    if isinstance(cls, str):
        name = cls
        return lambda made: _register(made, name)
    return _register(cls, getattr(cls, "__qualname__", ""))


def _register(cls: Any, name: str) -> Any:
    if not isinstance(cls, type) or _shape_of(cls) is None or not name or not _is_its_fields(cls):
        found = getattr(cls, "__name__", repr(cls))
        raise ValidationError(
            "this class cannot be kept in a file",
            problems=[Problem("storable", found, "a dataclass, a named tuple or an enum")],
        )
    # A cell that is run again makes the class anew; values of the old one are still in memory.
    _CLASSES[name] = cls
    _NAMES[cls] = name
    return cls


def _is_its_fields(cls: type) -> bool:
    """Tell whether a value is nothing but its fields: a dataclass that is an exception or a dict is more."""
    if _shape_of(cls) != "dataclass":
        return True
    try:
        object.__new__(cls)
    except TypeError:
        return False
    return True


def _shape_of(cls: type) -> str | None:
    """Return what kind of class it is: one whose values are their parts."""
    if issubclass(cls, Enum):
        return "enum"
    if is_dataclass(cls):
        return "dataclass"
    return "tuple" if issubclass(cls, tuple) and hasattr(cls, "_fields") else None


def _name_of(cls: type) -> str | None:
    name = _NAMES.get(cls)
    if name is None and cls.__module__.startswith("grym_nb.") and _shape_of(cls) is not None:
        name = f"{cls.__module__}:{cls.__qualname__}"
    return name


def _class_of(name: str) -> type:
    cls = _CLASSES.get(name)
    if cls is None and name.startswith("grym_nb."):  # ours are known by where they are
        module, _, attribute = name.partition(":")
        with suppress(ImportError):
            found = getattr(importlib.import_module(module), attribute, None)
            cls = found if isinstance(found, type) and _shape_of(found) is not None else None
    if cls is None:
        told = f"this content holds a {name}, and no such class is known in this kernel"
        raise StorageError(told, hint="run the cell that defines it, with @grym_nb.context.storable above it")
    return cls


# -- to text and arrays ----------------------------------------------------------------------------


def encode(
    value: Any, *, inline: bool = False, plain: bool = False, path: str = "content"
) -> tuple[str, list[Array]]:
    """Return a value as JSON text, and the arrays that the text refers to by number.

    With `inline`, all is in the text; with `plain`, it holds no classes that have to be known to be read.
    What cannot be kept is named, all of it, by its place in the value.
    """
    writing = _Writing(inline, plain)
    try:
        tree = writing.tree(value, path)
        text = json.dumps(tree, separators=(",", ":"))
    except RecursionError:
        writing.problems.append(Problem(path, "containers a thousand deep", "fewer"))
    if writing.problems:
        raise ValidationError("this content cannot be kept in a file", problems=writing.problems)
    return text, writing.arrays


class _Writing:
    def __init__(self, inline: bool, plain: bool) -> None:
        self._plain = plain
        self.arrays: list[Array] = []
        self.problems: list[Problem] = []
        self._inline = inline

    def tree(self, value: Any, path: str) -> Any:
        """Return what JSON can hold of a value."""
        kind = type(value)
        if value is None or kind is bool or kind is str or kind is float:
            return value
        if kind is int:  # one of thousands of digits can be written, and not be read
            return value if -(1 << 62) < value < (1 << 62) else {"$int": hex(value)}
        if kind is FrozenList or kind is list:
            return self._all(value, path)
        if kind is FrozenDict or kind is dict:
            return self._dict(value, path)
        write = _FORMS.get(kind)
        if write is not None:
            return write(self, value, path)
        return self._other(value, kind, path)

    def _all(self, values: Any, path: str) -> list[Any]:
        return [self.tree(inner, f"{path}[{at}]") for at, inner in enumerate(values)]

    def _dict(self, value: dict[Any, Any], path: str) -> Any:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: self.tree(inner, f"{path}[{key!r}]") for key, inner in value.items()}
        pairs = [
            [self.tree(key, f"{path} key {brief(key)}"), self.tree(inner, f"{path}[{brief(key)}]")]
            for key, inner in value.items()
        ]
        return {"$dict": pairs}

    def _other(self, value: Any, kind: type, path: str) -> Any:
        if kind.__module__ == "numpy":
            if kind.__name__ == "ndarray":
                return self._array(value, path)
            if hasattr(value, "dtype") and not getattr(value, "shape", None):
                import numpy as np

                return {"$scalar": self._array(np.asarray(value), path)}
        if isinstance(value, PurePath):
            told = {"$path": str(value)}
            return told if isinstance(value, Path) else {**told, "pure": isinstance(value, PureWindowsPath)}
        name = None if self._plain else _name_of(kind)
        if name is not None:
            return {"$object": [name, self._parts(value, kind, path)]}
        self.problems.append(Problem(path, f"a {kind.__module__}.{kind.__qualname__}", _advice(kind)))
        return None

    def _parts(self, value: Any, kind: type, path: str) -> Any:
        if isinstance(value, Flag):
            return value._value_  # several of them together have no name
        if isinstance(value, Enum):
            return value._name_
        names = {field.name for field in fields(value)} if is_dataclass(value) else set()
        for name in vars(value).keys() - names if hasattr(value, "__dict__") else ():
            self.problems.append(Problem(f"{path}.{name}", "an attribute of its own", "a field of the class"))
        if isinstance(value, tuple):
            return self._all(value, path)
        return {name: self.tree(getattr(value, name), f"{path}.{name}") for name in sorted(names)}

    def _array(self, array: Array, path: str) -> Any:
        import numpy as np

        descr = np.lib.format.dtype_to_descr(array.dtype) if not array.dtype.hasobject else None
        if descr is None or np.lib.format.descr_to_dtype(descr) != array.dtype:
            self.problems.append(Problem(path, f"an array of {array.dtype}", "one of numbers, text or times"))
            return None
        if self._inline or array.nbytes <= _SHORT:
            return {"$npy": base64.b64encode(npy(array)).decode()}
        self.arrays.append(array)
        return {"$array": len(self.arrays) - 1}

    def _bytes(self, value: bytes, path: str) -> Any:
        if self._inline or len(value) <= _SHORT:
            return {"$bytes": base64.b64encode(value).decode()}
        import numpy as np

        return {"$bytes": self._array(np.frombuffer(value, np.uint8), path)}

    def _datetime(self, value: datetime, path: str) -> Any:
        if value.tzinfo is not None and type(value.tzinfo) is not timezone:
            zone = type(value.tzinfo).__name__
            self.problems.append(Problem(path, f"a time in a {zone}", "one without a zone, or in UTC"))
        return {"$datetime": value.isoformat(), "fold": value.fold}


def _advice(kind: type) -> str:
    if kind.__module__.startswith("torch"):
        return "an array: value.detach().cpu().numpy()"
    return _HOW


_FORMS: dict[type, Callable[[_Writing, Any, str], Any]] = {
    tuple: lambda w, v, path: {"$tuple": w._all(v, path)},
    set: lambda w, v, path: {"$set": w._all(v, path)},
    FrozenSet: lambda w, v, path: {"$set": w._all(v, path)},
    frozenset: lambda w, v, path: {"$frozenset": w._all(v, path)},
    bytes: lambda w, v, path: w._bytes(v, path),
    FrozenBytearray: lambda w, v, path: {"$bytearray": w._bytes(bytes(v), path)},
    bytearray: lambda w, v, path: {"$bytearray": w._bytes(bytes(v), path)},
    complex: lambda w, v, path: {"$complex": [v.real, v.imag]},
    Clip: lambda w, v, path: {"$clip": v.rate, "samples": w._array(v.samples, f"{path}.samples")},
    datetime: lambda w, v, path: w._datetime(v, path),
    date: lambda w, v, path: {"$date": v.isoformat()},
    timedelta: lambda w, v, path: {"$timedelta": [v.days, v.seconds, v.microseconds]},
}

# -- and back --------------------------------------------------------------------------------------


def decode(text: str, arrays: Sequence[Array]) -> Any:
    """Return the value that `encode` gave that text and those arrays for."""

    def made(tree: dict[str, Any]) -> Any:  # what is inside has been made already
        for name, read in _READERS.items():
            if name in tree:
                return read(tree, arrays)
        return tree

    return json.loads(text, object_hook=made)


def _object(tree: Mapping[str, Any], arrays: Sequence[Array]) -> Any:
    name, parts = tree["$object"]
    cls: Any = _class_of(name)
    shape = _shape_of(cls)
    try:
        if shape == "enum":
            return cls(parts) if isinstance(parts, int) else cls[parts]
        if shape == "tuple":
            return cls._make(parts)
        return _dataclass(cls, name, parts)
    except (KeyError, TypeError, ValueError) as error:
        told = f"a {name} in this content does not fit the class of that name: {error}"
        raise StorageError(told, hint="give the class the parts it had, or put the item anew") from None


def _dataclass(cls: Any, name: str, parts: dict[str, Any]) -> Any:
    """Return the value with these fields; its `__init__` is not run, since that may have made them."""
    value = object.__new__(cls)
    left = dict(parts)
    for field in fields(cls):
        if field.name in left:
            part = left.pop(field.name)
        elif field.default is not MISSING:
            part = field.default
        elif field.default_factory is not MISSING:
            part = field.default_factory()
        else:
            raise KeyError(f"nothing for its field {field.name}")
        object.__setattr__(value, field.name, part)
    if left:
        raise KeyError(f"it has no field {', '.join(left)} any more")
    return value


def _raw(part: Any) -> bytes:
    return base64.b64decode(part) if isinstance(part, str) else part.tobytes()


_READERS: dict[str, Callable[[Mapping[str, Any], Sequence[Array]], Any]] = {
    "$int": lambda tree, _: int(tree["$int"], 16),
    "$tuple": lambda tree, _: tuple(tree["$tuple"]),
    "$set": lambda tree, _: set(tree["$set"]),
    "$frozenset": lambda tree, _: frozenset(tree["$frozenset"]),
    "$dict": lambda tree, _: dict(tree["$dict"]),
    "$bytes": lambda tree, _: _raw(tree["$bytes"]),
    "$bytearray": lambda tree, _: bytearray(tree["$bytearray"]),
    "$complex": lambda tree, _: complex(*tree["$complex"]),
    "$array": lambda tree, arrays: arrays[tree["$array"]],
    "$npy": lambda tree, _: from_npy(base64.b64decode(tree["$npy"])),
    "$scalar": lambda tree, _: tree["$scalar"][()],
    "$clip": lambda tree, _: Clip(tree["samples"], tree["$clip"]),
    "$datetime": lambda tree, _: datetime.fromisoformat(tree["$datetime"]).replace(fold=tree["fold"]),
    "$date": lambda tree, _: date.fromisoformat(tree["$date"]),
    "$timedelta": lambda tree, _: timedelta(*tree["$timedelta"]),
    "$path": lambda tree, _: _path(tree["$path"], tree.get("pure")),
    "$object": _object,
}


def _path(text: str, windows: bool | None) -> PurePath:
    if windows is None:
        return Path(text)
    return PureWindowsPath(text) if windows else PurePosixPath(text)
