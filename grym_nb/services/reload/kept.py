"""What a function only keeps for later, and does not run: a method put in an attribute, a hook registered.

Other code in such a method is no other load. Where that cannot be read from the source, all of it counts.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import re
from collections.abc import Iterator
from functools import lru_cache
from textwrap import dedent
from types import CodeType, FunctionType

from grym_nb.services.syntax import parsed

__all__ = ["kept_by"]

#: calls that keep what they are given, and run it when something happens
_KEEPING = re.compile(r"register\w*|add_\w+|append|subscribe|connect|attach\w*|observe|on_\w+|Thread|Timer")


def kept_by(function: FunctionType) -> frozenset[str]:
    """Return the names that a function only keeps, wherever it names them."""
    return _kept(function.__code__)


@lru_cache(maxsize=1000)
def _kept(code: CodeType) -> frozenset[str]:
    try:
        lines = linecache.getlines(code.co_filename)[code.co_firstlineno - 1 :]
        tree = parsed(dedent("".join(inspect.getblock(lines))))
    except (SyntaxError, ValueError, IndexError):
        return frozenset()
    kept = {id(node): name for part in _places(tree) for node, name in _named(part)}
    every = [(id(node), name) for node in ast.walk(tree) if (name := _name(node)) is not None]
    return frozenset(kept.values()) - {name for key, name in every if key not in kept}


def _places(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the values that are put somewhere, and what is given to calls that keep it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            if all(isinstance(target, (ast.Attribute, ast.Subscript)) for target in node.targets):
                yield node.value
        elif isinstance(node, ast.Call) and _KEEPING.fullmatch(_name(node.func) or ""):
            yield from node.args
            yield from (one.value for one in node.keywords)


def _named(value: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Yield the names that a value consists of: itself, or what is in a container or a `partial` of it."""
    if isinstance(value, (ast.List, ast.Tuple, ast.Set)):
        for one in value.elts:
            yield from _named(one)
    elif isinstance(value, ast.Dict):
        for one in value.values:
            yield from _named(one)
    elif isinstance(value, ast.Call) and _name(value.func) == "partial":
        for one in value.args:
            yield from _named(one)
    elif (name := _name(value)) is not None:
        yield value, name


def _name(node: ast.AST) -> str | None:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None
