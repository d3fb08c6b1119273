"""Which statements of changed modules run again, and which are carried over as they are.

A name is what the statements make of it that bind it or change it in place, in their order. Where those are
other ones than before, all of them run again, and so does all that uses the name: a function that was carried
over would go on to see what was. Nothing is imported or run here.
"""

from __future__ import annotations
import __future__

import ast
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from grym_nb.services.reload.statements import Import, Statement, statements_of
from grym_nb.services.reload.world import ALL, BINDING, Name, World

__all__ = ["Code", "Plan", "plan"]


class Code:
    """A module's text, read; of what it has in common with the one `before` that is not done again."""

    def __init__(
        self,
        name: str,
        text: str,
        *,
        package: bool = False,
        path: str = "<text>",
        before: Code | None = None,
    ) -> None:
        self.name = name
        self.text = text
        self.path = path
        self.package = package
        self.edit = 0  # how often its file was another one before this text of it was put in force
        old, known = ("", []) if before is None else (before.text, before.statements)
        self.statements: list[Statement] = statements_of(
            text, name, package=package, path=path, before=old, known=known
        )

    @property
    def file(self) -> str:
        """What the file is called in tracebacks: the path, and which edit of it this is."""
        return f"{self.path} (edit {self.edit})" if self.edit else self.path

    @cached_property
    def binders(self) -> dict[str, list[Statement]]:
        """The statements that bind each name, in their order."""
        found: dict[str, list[Statement]] = {}
        for one in self.statements:
            for name in one.binds:
                found.setdefault(name, []).append(one)
        return found

    @cached_property
    def known(self) -> dict[str, list[Import]]:
        """What is imported under each name, by its first part."""
        found: dict[str, list[Import]] = {}
        for one in self.statements:
            for what in one.imports:
                found.setdefault(what.name.partition(".")[0], []).append(what)
        return found

    @cached_property
    def imported(self) -> dict[str, list[Import]]:
        """What is known under each name by imports alone."""
        return {
            name: what
            for name, what in self.known.items()
            if all(one.imports for one in self.binders.get(name, ()))
        }

    @cached_property
    def modules(self) -> tuple[str, ...]:
        """The modules that it imports, anywhere in it; whatever may be one by its name."""
        found: dict[str, None] = {}
        for one in self.statements:
            for what in (*one.imports, *one.within):
                found[what.module] = None
                if what.attribute is not None:
                    found[f"{what.module}.{what.attribute}"] = None
        return tuple(found)

    @cached_property
    def import_statements(self) -> tuple[ast.stmt, ...]:
        """All that import something under its name, in the module itself and not in what it defines."""
        todo: list[ast.AST] = [one.node for one in self.statements]
        found: list[ast.stmt] = []
        while todo:
            node = todo.pop()
            if isinstance(node, ast.Import):
                found.append(node)
            elif isinstance(node, ast.ImportFrom):
                if node.module != "__future__" and node.names[0].name != "*":
                    found.append(node)
            elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.expr)):
                todo += ast.iter_child_nodes(node)
        return tuple(found)

    @cached_property
    def flags(self) -> int:
        """What the compiler is told for all of it by ``from __future__ import ...``."""
        asked = [what for one in self.statements for what in one.imports if what.module == "__future__"]
        return sum(getattr(__future__, what.attribute or "").compiler_flag for what in asked)

    @cached_property
    def rebound(self) -> frozenset[str]:
        """The names that its functions bind as they run."""
        return frozenset(name for one in self.statements for name in one.rebinds)

    @cached_property
    def stars(self) -> tuple[str, ...]:
        """The modules of which it has all by ``from module import *``."""
        return tuple(what.module for one in self.statements for what in one.imports if what.attribute == ALL)

    @cached_property
    def is_open(self) -> bool:
        """It may have something under names that none of its statements binds."""
        uses = {chain[0] for one in self.statements for chain in one.uses}
        return "__getattr__" in self.binders or not uses.isdisjoint(BINDING)

    @cached_property
    def public(self) -> frozenset[str]:
        """What ``from module import *`` binds, as far as the text tells; with `__all__`, at least that."""
        names = set(self.binders)
        return frozenset(names if "__all__" in names else {name for name in names if name[:1] != "_"})


@dataclass(frozen=True, slots=True)
class Plan:
    """What each module's new code takes: statements by their place that `run`, names that are `gone`.

    `fresh` are the modules that are other ones for that, `names` those that are others than before, and
    `alone` those of them that one statement made and makes, and of which nothing runs as modules are made.
    """

    run: Mapping[str, frozenset[int]]
    gone: Mapping[str, frozenset[str]]
    fresh: frozenset[str]
    names: Mapping[str, frozenset[str]]
    alone: Mapping[str, frozenset[str]]


def plan(before: Mapping[str, Code], after: Mapping[str, Code]) -> Plan:
    """Return what has to run again so that `after` is in force where `before` was."""
    old, new = World(before), World(after)
    spread = _Spread(new)
    for module in after:
        was, now = old.makings(module), new.makings(module)
        for name in was.keys() | now.keys():
            if was.get(name) != now.get(name):
                spread.name((module, name))
        known = Counter(_as_before(before[module], after[module])) if module in before else Counter()
        for at, one in enumerate(after[module].statements):
            if known[one.text]:
                known[one.text] -= 1
            else:
                spread.statement(module, at)
    gone = {
        module: frozenset(before[module].binders.keys() - after[module].binders.keys())
        for module in after
        if module in before
    }
    spread.go_on()
    fresh: set[str] = set()
    while more := _fresh(spread.run, gone, after) - fresh:
        for module in more:
            spread.beside(module)
        fresh |= more
        spread.go_on()
    run = {module: frozenset(places) for module, places in spread.run.items()}
    names = {module: frozenset(names) for module, names in spread.names.items()}
    alone = {
        module: frozenset(name for name in its if all(_is_alone(one, (module, name)) for one in (old, new)))
        for module, its in names.items()
    }
    return Plan(run, gone, frozenset(fresh), names, alone)


def _is_alone(world: World, name: Name) -> bool:
    return len([*world.makers(name)]) < 2 and name not in world.run


def _fresh(
    run: Mapping[str, Collection[int]], gone: Mapping[str, Collection[str]], codes: Iterable[str]
) -> set[str]:
    """Return the modules that will be other ones, with their packages, which have them as attributes."""
    names = [name for name in codes if run.get(name) or gone.get(name)]
    return {whole for name in names for whole in accumulate(name.split("."), "{}.{}".format)} & {*codes}


def _as_before(before: Code, after: Code) -> Iterator[str]:
    """Yield the texts that mean what they did; other ``from __future__``, what is annotated does not."""
    for one in before.statements:
        if before.flags == after.flags or not _annotated(one):
            yield one.text


def _annotated(one: Statement) -> bool:
    return any(getattr(node, part, None) for node in ast.walk(one.node) for part in ("annotation", "returns"))


class _Spread:
    """What runs again because something else does."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._todo: list[Name] = []
        self._names: set[Name] = set()
        self._places = {
            id(one): at for code in world.codes.values() for at, one in enumerate(code.statements)
        }
        self.run: dict[str, set[int]] = {}

    def name(self, name: Name) -> None:
        """Take a name for another one than before."""
        if name not in self._names:
            self._names.add(name)
            self._todo.append(name)

    def statement(self, module: str, at: int) -> None:
        """Have a statement run again."""
        places = self.run.setdefault(module, set())
        if at in places:
            return
        places.add(at)
        one = self._world.codes[module].statements[at]
        for name in self._world.made(module, one):
            self.name(name)
        for name in self._world.reads(module, one):
            if self._is_made_after(name, module, at):
                self.name(name)  # to read it as it is by now would be another thing

    def beside(self, module: str) -> None:
        """Have run again what does so wherever a module is another one."""
        for where, other in self._beside.get(module, ()):
            self.statement(where, self._places[id(other)])

    def _is_made_after(self, name: Name, module: str, at: int) -> bool:
        """Tell whether something makes a name after a place of a module: there, or in one that imports it."""
        return any(
            self._places[id(one)] > at if where == module else name[0] == module
            for where, one in self._world.makers(name)
        )

    @cached_property
    def _beside(self) -> dict[str, list[tuple[str, Statement]]]:
        """What runs again wherever a module's code does: functions that see what others bind as they run.

        A `global` is bound in the globals of the function that does it, and these are others then.
        """
        found: dict[str, list[tuple[str, Statement]]] = {}
        for module, code in self._world.codes.items():
            rebound = {(module, name) for one in code.statements for name in one.rebinds}
            users = {id(one): (where, one) for name in rebound for where, one in self._world.users(name)}
            binding = [(module, one) for one in code.statements if one.rebinds]
            lazy = [(where, one) for where, one in users.values() if one.later]
            if binding:
                found[module] = binding + [one for one in lazy if one not in binding]
        return found

    def go_on(self) -> None:
        """Spread what is changed to all that it is made of, and that uses it."""
        while self._todo:
            name = self._todo.pop()
            for module, one in (*self._world.makers(name), *self._world.users(name)):
                self.statement(module, self._places[id(one)])

    @property
    def names(self) -> dict[str, set[str]]:
        """The names that are others than before, by module."""
        found: dict[str, set[str]] = {}
        for module, name in self._names:
            found.setdefault(module, set()).add(name)
        return found
