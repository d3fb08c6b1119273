"""What code has set on a class as it ran goes over to the class that takes its place.

The body of a class that was edited runs again as a whole. What a line of it made that says what it said, of
things that are as they were, is carried over all the same, as it is at the top of a module: a counter goes
on, a cache stays. So does what code has set on the class since. Not what the module itself changes as it is
made, by a decorator or a registration: that is done again, and would be done twice. Nor what holds objects
of a class that was made anew: they would go on with the old code.
"""

from __future__ import annotations

import ast
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any

from grym_nb.services.content import PLAIN
from grym_nb.services.reload.statements import statements_of

if TYPE_CHECKING:
    from grym_nb.services.reload.plan import Code

__all__ = ["ClassValues", "class_values"]

_NOTHING = object()
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_LISTS = (list, tuple, set, frozenset, deque)
_DEEPEST = 4
_MOST = 1000  # parts of a value that are looked at


@dataclass(slots=True)
class ClassValues:
    """The names of a class whose values go over to a newer one, with what its body made of them."""

    before: type
    now: type
    names: Mapping[str, object]
    anew: tuple[type, ...] = ()

    def settle(self, anew: Collection[type]) -> None:
        """Leave out what the module has changed since; what holds objects of classes made `anew`, too."""
        has, self.anew = vars(self.now), tuple(anew)
        self.names = {name: mark for name, mark in self.names.items() if _mark(has.get(name)) == mark}

    def give(self) -> None:
        """Give the newer class what the older has by now."""
        there, has = vars(self.before), vars(self.now)
        for name in self.names:
            value, own = there.get(name, _NOTHING), has.get(name, _NOTHING)
            if value is own or value is _NOTHING or (type(value) in PLAIN and _equal(value, own)):
                continue
            with suppress(Exception):  # a metaclass that takes none, or a stranger that raises when looked at
                if not _holds(value, self.anew):
                    setattr(self.now, name, value)


def class_values(
    codes: tuple[Code, Code], names: Mapping[str, frozenset[str]], now: ast.stmt, classes: tuple[Any, Any]
) -> ClassValues | None:
    """Return what may go over from a class to the one that a statement has just made anew.

    `names` are those that are others now, by module; `codes` that of the class's before, and by now. None
    where nothing may.
    """
    (old, code), (before, made) = codes, classes
    nodes = [one.node for one in old.binders.get(getattr(now, "name", ""), ())]
    was = nodes[0] if len(nodes) == 1 else None
    if not (isinstance(was, ast.ClassDef) and isinstance(now, ast.ClassDef)):
        return None
    if before is made or not (isinstance(before, type) and isinstance(made, type)) or issubclass(made, Enum):
        return None
    if _is_made_otherwise(code, names, was, now):
        return None
    its = {*_as_they_were(code, names, was, now), *_set_since(was, before, made)} - _set_at_the_top(old)
    its = {_mangled(name, now.name) for name in its}
    kept = {
        name: _mark(vars(made).get(name))
        for name, value in vars(before).items()
        if name in its and not _binds_itself(value)
    }
    return ClassValues(before, made, kept) if kept else None


def _mark(value: Any, depth: int = 0) -> object:
    """Return what tells whether a value was changed in place."""
    kind = type(value)
    if kind in PLAIN or kind is bool:
        return kind, value
    parts = _parts(value)
    if depth == _DEEPEST or len(parts) > _MOST:
        return id(value), len(parts)
    return id(value), tuple(_mark(part, depth + 1) for part in parts)


def _holds(value: Any, classes: tuple[type, ...], depth: int = 0) -> bool:
    """Tell whether a value is an object of some classes, or leads to one."""
    if issubclass(type(value), classes):
        return True
    parts = () if depth == _DEEPEST else _parts(value)[:_MOST]
    return any(_holds(part, classes, depth + 1) for part in parts)


def _parts(value: Any) -> list[Any]:
    kind = type(value)
    if issubclass(kind, dict):
        return [*dict.values(value), *dict.keys(value)]
    if issubclass(kind, _LISTS):
        return [*value]
    if kind is MethodType:
        return [value.__self__]
    if kind is partial:
        return [value.func, *value.args, *value.keywords.values()]
    own: Any = None
    with suppress(Exception):  # it has none, or is a stranger's
        own = object.__getattribute__(value, "__dict__")
    return [*own.values(), *own.keys()] if type(own) is dict else []


def _is_made_otherwise(
    code: Code, names: Mapping[str, frozenset[str]], was: ast.ClassDef, now: ast.ClassDef
) -> bool:
    """Tell whether decorators, bases or keywords are others, or name what is another one."""
    around = [*now.decorator_list, *now.bases, *now.keywords]
    before = [*was.decorator_list, *was.bases, *was.keywords]
    if [ast.dump(one) for one in around] != [ast.dump(one) for one in before]:
        return True
    used = {node.id for one in around for node in ast.walk(one) if isinstance(node, ast.Name)}
    return any(_is_other(code, names, name) for name in used)


def _mangled(name: str, cls: str) -> str:
    """Return what a name is called in a class whose body binds it."""
    is_private = name[:2] == "__" and name[-2:] != "__"
    return f"_{cls.lstrip('_')}{name}" if is_private else name


def _as_they_were(
    code: Code, names: Mapping[str, frozenset[str]], was: ast.ClassDef, now: ast.ClassDef
) -> Iterator[str]:
    """Yield the names that both bodies bind once, by the same words, of what is as it was."""
    before, after = _lines(was), _lines(now)
    others = {name for name in _bindings(now) if name not in after or before.get(name) != after[name]}
    for name, line in after.items():
        if name in others:
            continue
        uses = [chain for one in statements_of(line, code.name) for chain in one.uses]
        if any(chain[0] in others or _is_other(code, names, chain[0]) for chain in uses):
            others.add(name)
        else:
            yield name


def _is_other(code: Code, names: Mapping[str, frozenset[str]], name: str) -> bool:
    if name in names.get(code.name, ()):
        return True
    for what in code.imported.get(name, ()):
        whole = what.module if what.attribute is None else f"{what.module}.{what.attribute}"
        if any(module == whole or module.startswith(f"{whole}.") for module in names):
            return True
    return False


def _lines(node: ast.ClassDef) -> dict[str, str]:
    """Return the assignments of a body that are the only ones to bind their name, as text."""
    bound = Counter(_bindings(node))
    found: dict[str, str] = {}
    for one in node.body:
        targets: list[ast.expr] = []
        if isinstance(one, ast.Assign):
            targets = one.targets
        elif isinstance(one, ast.AnnAssign) and one.value is not None:
            targets = [one.target]
        if len(targets) == 1 and isinstance(targets[0], ast.Name) and bound[targets[0].id] == 1:
            found[targets[0].id] = ast.unparse(one)
    return found


def _bindings(node: ast.AST) -> Iterator[str]:
    """Yield what a body binds, each time that it does; not what its functions do."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _DEFINITIONS):
            yield child.name
        elif isinstance(child, ast.Name) and not isinstance(child.ctx, ast.Load):
            yield child.id
        elif isinstance(child, ast.alias):
            yield (child.asname or child.name).partition(".")[0]
        elif not isinstance(child, ast.Lambda):
            yield from _bindings(child)


def _set_since(was: ast.ClassDef, before: type, made: type) -> Iterator[str]:
    """Yield what neither body binds, nor what else makes such a class."""
    own = {_mangled(name, was.name) for name in _bindings(was)}
    for name in vars(before):
        if name not in vars(made) and name not in own and not (name[:2] == name[-2:] == "__"):
            yield name


def _set_at_the_top(code: Code) -> set[str]:
    """Return the attributes that statements of a module set, of whatever: they run again with the class."""
    tops = (one.node for one in code.statements if not isinstance(one.node, _DEFINITIONS))
    nodes = (node for top in tops for node in ast.walk(top))
    return {one.attr for one in nodes if isinstance(one, ast.Attribute) and not isinstance(one.ctx, ast.Load)}


def _binds_itself(value: Any) -> bool:
    """Tell whether a value knows the class in which it stands, or is code."""
    kind = type(value)
    return issubclass(kind, type) or any(hasattr(kind, one) for one in ("__get__", "__set_name__"))


def _equal(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)
