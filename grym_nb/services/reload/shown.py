"""What tracebacks and `inspect` show of code: the text that ran, whatever is on disk or newer by now.

A function has the name of its file in itself. A class has none: `inspect` asks the module of its name for it,
which is the newest. So of classes it is noted here in which file they were made.
"""

from __future__ import annotations

import ast
import linecache
import weakref
from collections.abc import Iterator, Mapping
from functools import partial
from io import StringIO
from types import FrameType, FunctionType
from typing import Any

__all__ = ["asked_by_inspect", "file_of", "note", "remember"]

_TEXT = "__grym_text__"  # in the dictionary of each version: by it its text is kept

#: by the identity of a class: itself, its file, and what keeps the text of that
_made: dict[int, tuple[weakref.ref[type], str, object]] = {}


class _Text:
    """Is there as long as what was made of it."""


def remember(file: str, text: str, variables: dict[str, Any]) -> None:
    """Have tracebacks and `inspect.getsource` show a text for a file, whatever is on disk by now.

    For as long as there is code that ran in those variables.
    """
    entry = len(text), None, StringIO(text).readlines(), file
    linecache.cache[file] = entry
    variables[_TEXT] = kept = _Text()
    weakref.finalize(kept, _forget, file, entry).atexit = False


def _forget(file: str, entry: object) -> None:
    if linecache.cache.get(file) is entry:
        del linecache.cache[file]


def note(node: ast.stmt, variables: Mapping[str, Any], file: str) -> None:
    """Note the file of the classes that a statement of a module has made as it ran."""
    for name in _defined(node):
        cls = variables.get(name)
        if isinstance(cls, type) and cls.__qualname__ == name:
            _note(cls, file, variables.get(_TEXT))


def _defined(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.ClassDef):
        yield node.name
    elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.expr)):
        for one in ast.iter_child_nodes(node):
            yield from _defined(one)


def _note(cls: type, file: str, kept: object) -> None:
    key = id(cls)
    _made[key] = weakref.ref(cls, partial(_gone, key)), file, kept
    for inner in tuple(vars(cls).values()):
        if isinstance(inner, type) and inner.__qualname__.startswith(f"{cls.__qualname__}."):
            _note(inner, file, kept)


def _gone(key: int, ref: object) -> None:
    if key in _made and _made[key][0] is ref:
        del _made[key]


def file_of(cls: type, default: str) -> str:
    """Return the file in which a class was made: as noted, else as its functions say, else the `default`."""
    ref, file, _ = _made.get(id(cls), (None, "", None))
    if ref is not None and ref() is cls:
        return file
    functions = (getattr(value, "__func__", value) for value in tuple(vars(cls).values()))
    codes = (one.__code__ for one in functions if isinstance(one, FunctionType))
    return next(
        (one.co_filename for one in codes if one.co_qualname.startswith(f"{cls.__qualname__}.")), default
    )


def asked_by_inspect(asking: FrameType) -> Any:
    """Return the class or module of which `inspect` looks for the file, if that is what asks."""
    # Not by `inspect.getfile` itself: torch and others put one of theirs around it.
    is_it = asking.f_code.co_name == "getfile" and asking.f_globals.get("__name__") == "inspect"
    return asking.f_locals.get("object") if is_it else None
