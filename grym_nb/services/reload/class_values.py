"""What code has set on a class as it ran goes over to the class that takes its place.

The body of a class that was edited runs again as a whole. What a line of it made that says what it said, of
things that are as they were, is carried over all the same, as it is at the top of a module: a counter goes
on, a cache stays. So does what code has set on the class since. Not of a class of which its module makes
objects itself, or runs methods: these run again, and would put there once more what they have put there.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from grym_nb.services.content import PLAIN
from grym_nb.services.reload.statements import statements_of

if TYPE_CHECKING:
    from grym_nb.services.reload.plan import Code

__all__ = ["ClassValues", "class_values"]

_NOTHING = object()
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True, slots=True)
class ClassValues:
    """The names of a class whose values go over to a newer one."""

    before: type
    now: type
    names: tuple[str, ...]

    def give(self) -> None:
        """Give the newer class what the older has by now."""
        there, has = vars(self.before), vars(self.now)
        for name in self.names:
            value, own = there.get(name, _NOTHING), has.get(name, _NOTHING)
            if value is own or value is _NOTHING or (type(value) in PLAIN and _equal(value, own)):
                continue
            with suppress(Exception):  # a metaclass that takes none
                setattr(self.now, name, value)


def class_values(
    codes: tuple[Code, Code], names: Mapping[str, frozenset[str]], now: ast.stmt, classes: tuple[Any, Any]
) -> ClassValues | None:
    """Return what goes over from a class to the one that a statement has made anew; None where nothing does.

    `names` are those that are others now, by module; `codes` that of the class's before, and by now.
    """
    (old, code), (before, made) = codes, classes
    nodes = [one.node for one in old.binders.get(getattr(now, "name", ""), ())]
    was = nodes[0] if len(nodes) == 1 else None
    if not (isinstance(was, ast.ClassDef) and isinstance(now, ast.ClassDef)):
        return None
    if before is made or not (isinstance(before, type) and isinstance(made, type)) or issubclass(made, Enum):
        return None
    its = {*_as_they_were(code, names, was, now), *_set_since(was, now, before, made)}
    its -= {name for name in its if name in _set_at_the_top(old)}
    kept = tuple(name for name, value in vars(before).items() if name in its and not _binds_itself(value))
    return ClassValues(before, made, kept) if kept else None


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


def _set_since(was: ast.ClassDef, now: ast.ClassDef, before: type, made: type) -> Iterator[str]:
    """Yield what neither body binds, nor what else makes such a class."""
    if [ast.dump(one) for one in _around(was)] != [ast.dump(one) for one in _around(now)]:
        return
    own = {*_bindings(was)}
    for name in vars(before):
        if name not in vars(made) and name not in own and not (name[:2] == name[-2:] == "__"):
            yield name


def _set_at_the_top(code: Code) -> set[str]:
    """Return the attributes that statements of a module set, of whatever: they run again with the class."""
    tops = (one.node for one in code.statements if not isinstance(one.node, _DEFINITIONS))
    nodes = (node for top in tops for node in ast.walk(top))
    return {one.attr for one in nodes if isinstance(one, ast.Attribute) and not isinstance(one.ctx, ast.Load)}


def _around(node: ast.ClassDef) -> list[ast.AST]:
    return [*node.decorator_list, *node.bases, *node.keywords]


def _binds_itself(value: Any) -> bool:
    """Tell whether a value knows the class in which it stands, or is code."""
    kind = type(value)
    return issubclass(kind, type) or any(hasattr(kind, one) for one in ("__get__", "__set_name__"))


def _equal(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)
