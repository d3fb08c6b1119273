"""Which statements of changed modules run again, and which are carried over as they are.

A name is what the statements make of it that bind it or change it in place, in their order. Where those are
other ones than before, all of them run again, and so does all that uses the name: a function that was carried
over would go on to see what was. Nothing is imported or run here.
"""

from __future__ import annotations
import __future__

import ast
import builtins
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from grym_nb.services.reload.statements import GIVEN, Chain, Deeds, Import, Statement, statements_of

__all__ = ["Code", "Plan", "plan"]

_Name = tuple[str, str]  # a module, and what it calls something

_ALL = "*"  # of a module's names: any
_ELSE = "?"  # what a module has that no statement of it binds by its name
_NO_DEEDS = Deeds()
_BINDING = ("globals", "vars", "locals", "exec")  # by these it may come to be there
_OWN = frozenset(vars(builtins)) | {"__name__", "__file__"}  # as any module has it
_MAKING = ("__new__", "__init__", "__post_init__")


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
        return tuple(what.module for one in self.statements for what in one.imports if what.attribute == _ALL)

    @cached_property
    def is_open(self) -> bool:
        """It may have something under names that none of its statements binds."""
        uses = {chain[0] for one in self.statements for chain in one.uses}
        return "__getattr__" in self.binders or not uses.isdisjoint(_BINDING)

    @cached_property
    def public(self) -> frozenset[str]:
        """What ``from module import *`` binds, as far as the text tells; with `__all__`, at least that."""
        names = set(self.binders)
        return frozenset(names if "__all__" in names else {name for name in names if name[:1] != "_"})


@dataclass(frozen=True, slots=True)
class Plan:
    """What each module's new code takes: statements by their place that `run`, names that are `gone`.

    And the `names` that are others than before, and those that are made `alone`, by one statement.
    """

    run: Mapping[str, frozenset[int]]
    gone: Mapping[str, frozenset[str]]
    names: Mapping[str, frozenset[str]]
    alone: Mapping[str, frozenset[str]]


def plan(before: Mapping[str, Code], after: Mapping[str, Code]) -> Plan:
    """Return what has to run again so that `after` is in force where `before` was."""
    old, new = _World(before), _World(after)
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
    spread.go_on()
    gone = {
        module: frozenset(before[module].binders.keys() - after[module].binders.keys())
        for module in after
        if module in before
    }
    run = {module: frozenset(places) for module, places in spread.run.items()}
    names = {module: frozenset(names) for module, names in spread.names.items()}
    alone = {
        module: frozenset(name for name in its if len([*new.makers((module, name))]) == 1)
        for module, its in names.items()
    }
    return Plan(run, gone, names, alone)


def _as_before(before: Code, after: Code) -> Iterator[str]:
    """Yield the texts that mean what they did; other ``from __future__``, what is annotated does not."""
    for one in before.statements:
        if before.flags == after.flags or not _annotated(one):
            yield one.text


def _annotated(one: Statement) -> bool:
    return any(getattr(node, part, None) for node in ast.walk(one.node) for part in ("annotation", "returns"))


@dataclass(frozen=True, slots=True)
class _Run:
    """A function of a `module` as it is called in the one that is `asking`, with the names it is `given`."""

    module: str
    deeds: Deeds
    rebinds: frozenset[str]
    asking: str
    given: frozenset[Chain]


class _World:
    """The modules as one: what a chain of names stands for, and what a statement changes, in any of them."""

    def __init__(self, codes: Mapping[str, Code]) -> None:
        self.codes = codes
        self._reads: dict[int, set[_Name]] = {}  # by the identity of the statement
        self._runs: dict[int, list[_Run]] = {}
        self._defined: dict[tuple[str, Chain], list[tuple[_Name, Chain]]] = {}

    def changes(self, module: str, one: Statement) -> set[_Name]:
        """Return what a statement changes in place as it runs, by itself and by what it calls."""
        found = {name for chain in one.now.changes for name in self._own(module, chain)}
        for run in self._run_by(module, one):
            found |= {(run.module, other) for other in run.rebinds}
            for chain in run.deeds.changes:
                if chain == GIVEN:
                    found |= {own for given in run.given for own in self._own(run.asking, given)}
                else:
                    found |= {*self._own(run.module, chain)}
        return found

    def reads(self, module: str, one: Statement) -> set[_Name]:
        """Return what a statement uses as it runs, by itself and in what it calls."""
        if id(one) not in self._reads:
            is_definition = isinstance(one.node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            found = self._named(module, one.now.reads) if is_definition else {*self.used(module, one)}
            for run in self._run_by(module, one):
                found |= self._named(run.module, run.deeds.reads)
            self._reads[id(one)] = found
        return self._reads[id(one)]

    def makings(self, module: str) -> dict[str, list[str]]:
        """Return the texts of what makes each name, in their order; of what others make here, too.

        Where several make a name, it matters what reads it in between.
        """
        found: dict[str, list[str]] = {}
        for (where, name), made_by in self._makers.items():
            if where != module:
                continue
            inside = {home: [one for at, one in made_by if at == home] for home, _ in made_by}
            if len(made_by) > 1:
                inside = {
                    home: self._up_to_last(home, (where, name), makers) for home, makers in inside.items()
                }
            found[name] = [one.text for home in sorted(inside) for one in inside[home]]
        return found

    def _up_to_last(self, module: str, name: _Name, makers: Sequence[Statement]) -> list[Statement]:
        """Return what makes a name in a module, with what reads it there before the last of these."""
        own, its = self.codes[module].statements, {id(one) for one in makers}
        last = max(at for at, one in enumerate(own) if id(one) in its)
        return [one for one in own[: last + 1] if id(one) in its or name in self.reads(module, one)]

    @cached_property
    def _makers(self) -> dict[_Name, list[tuple[str, Statement]]]:
        found: dict[_Name, list[tuple[str, Statement]]] = {}
        for module, code in self.codes.items():
            for one in code.statements:
                for name in self.made(module, one):
                    found.setdefault(name, []).append((module, one))
        return found

    def made(self, module: str, one: Statement) -> set[_Name]:
        """Return what a statement makes: what it binds, and what it changes."""
        found = {(module, name) for name in self._bound(one)} | self.changes(module, one)
        binding = {where for where, name in self.reads(module, one) if name in _BINDING} if self._open else ()
        stars = (what.module for what in one.imports if what.attribute == _ALL)
        if "__getattr__" in one.binds or not self._open.isdisjoint(stars):
            found.add((module, _ELSE))
        return found | {(where, _ELSE) for where in binding}

    @cached_property
    def _open(self) -> frozenset[str]:
        """The modules that may have something under names that none of their statements binds."""
        found = {name for name, code in self.codes.items() if code.is_open}
        while more := {
            name for name, code in self.codes.items() if name not in found and found.intersection(code.stars)
        }:
            found |= more
        return frozenset(found)

    def _bound(self, one: Statement) -> Iterator[str]:
        yield from one.binds
        for what in one.imports:
            if what.attribute == _ALL and what.module in self.codes:
                yield from self._public(what.module, frozenset())

    def _public(self, module: str, seen: frozenset[str]) -> frozenset[str]:
        """Return what ``from module import *`` binds, also of what that has from others in this way."""
        code = self.codes[module]
        more = [name for name in code.stars if name in self.codes and name not in seen]
        return code.public.union(*(self._public(name, seen | {module}) for name in more))

    @cached_property
    def _users(self) -> dict[_Name, list[tuple[str, Statement]]]:
        found: dict[_Name, list[tuple[str, Statement]]] = {}
        for module, code in self.codes.items():
            for one in code.statements:
                for name in self.used(module, one):
                    found.setdefault(name, []).append((module, one))
        return found

    def users(self, name: _Name) -> Iterable[tuple[str, Statement]]:
        """Return the statements that use a name, also those that use all of its module."""
        return (*self._users.get(name, ()), *self._users.get((name[0], _ALL), ()))

    def makers(self, name: _Name) -> Iterable[tuple[str, Statement]]:
        """Return the statements that make a name, in any module."""
        return self._makers.get(name, ())

    def used(self, module: str, one: Statement) -> set[_Name]:
        """Return what a statement uses, of any module that is followed."""
        found = self._named(module, one.uses)
        for what in (*one.imports, *one.within):
            found |= self._imports(what, within=what in one.within)
        return found

    def _named(self, module: str, chains: Iterable[Chain]) -> set[_Name]:
        """Return the names for which chains stand in a module, of any module that is followed."""
        found = {(module, chain[0]) for chain in chains}
        for chain in chains:
            if meant := self._meant(module, chain):
                found.discard((module, chain[0]))
                found |= {name for name, _ in meant}
        return self._with_else(found)

    def _with_else(self, names: set[_Name]) -> set[_Name]:
        """Return names, and for those that nothing binds what their module may have of no statement's."""
        unbound = ((where, name) for where, name in names if where in self._open and name not in _OWN)
        return names | {(where, _ELSE) for where, name in unbound if not self._binds(where, name)}

    def _binds(self, module: str, name: str) -> bool:
        return name == _ALL or name in self.codes[module].binders or bool(self._starred(module, name))

    def _imports(self, what: Import, *, within: bool) -> set[_Name]:
        if what.module not in self.codes and what.attribute is None:
            return set()
        if what.attribute is None:
            return {(what.module, _ALL)} if within else set()  # at the top each use of it tells more
        if f"{what.module}.{what.attribute}" in self.codes:
            return {(f"{what.module}.{what.attribute}", _ALL)} if within else set()
        return self._with_else({(what.module, what.attribute)}) if what.module in self.codes else set()

    def _meant(self, module: str, chain: Chain) -> list[tuple[_Name, Chain]]:
        """Return the names for which a chain stands in a module, each with what is asked of it.

        Nothing, where it is something of a module that is not followed.
        """
        imports = self.codes[module].imported.get(chain[0])
        if imports is None:
            return [((module, chain[0]), chain[1:])]
        found: list[tuple[_Name, Chain]] = []
        for what in imports:
            whole, rest = what.module, chain[1:]
            if what.attribute is not None:
                whole = f"{what.module}.{what.attribute}"
                if whole not in self.codes:
                    if what.module in self.codes:
                        found.append(((module, chain[0]), rest))
                    continue
            elif "." in what.name:  # ``import a.b``: the chain begins with its parts
                whole, rest = chain[0], chain[1:]
            while rest and f"{whole}.{rest[0]}" in self.codes:
                whole, rest = f"{whole}.{rest[0]}", rest[1:]
            if whole in self.codes:
                found.append(((whole, rest[0] if rest else _ALL), rest[1:]))
        return found

    def _own(self, module: str, chain: Chain) -> Iterator[_Name]:
        """Yield what is made in some module of that for which a chain stands; of what is elsewhere, nothing.

        What was imported by its name is the very object that is known there as well.
        """
        todo = [name for name, _ in self._meant(module, chain)]
        seen: set[_Name] = set()
        while todo:
            where, name = todo.pop()
            code = self.codes.get(where)
            if code is None or (where, name) in seen:
                continue
            seen.add((where, name))
            starred = self._starred(where, name)
            if name in code.binders or starred:
                yield where, name
            named = code.known.get(name, ())
            todo += [(what.module, what.attribute) for what in named if what.attribute is not None]
            todo += starred

    def _starred(self, module: str, name: str) -> list[_Name]:
        """Return for what a name may stand that a module has by ``from ... import *``."""
        stars = [one for one in self.codes[module].stars if one in self.codes]
        return [(one, name) for one in stars if name in self._public(one, frozenset())]

    def _run_by(self, module: str, one: Statement) -> list[_Run]:
        """Return the functions that a statement calls, through one another, as far as they are followed."""
        if id(one) not in self._runs:
            self._runs[id(one)] = [*self._followed(module, one)]
        return self._runs[id(one)]

    def _followed(self, module: str, one: Statement) -> Iterator[_Run]:
        todo = [(module, asked) for asked in one.now.calls]
        seen = {*todo}
        while todo:
            asking, asked = todo.pop()
            for (where, name), rest in self._definitions(asking, asked.what):
                for definition in self.codes[where].binders.get(name, ()):
                    for method in (rest[:1] or ("", *_MAKING)) if definition.by else ():
                        deeds = definition.by.get(method, _NO_DEEDS)
                        yield _Run(where, deeds, definition.rebinds, asking, asked.given)
                        ahead = {(where, called) for called in deeds.calls} - seen
                        todo += ahead
                        seen |= ahead

    def _definitions(self, module: str, chain: Chain) -> list[tuple[_Name, Chain]]:
        """Return where that is defined for which a chain stands: imports of functions are followed."""
        if (module, chain) not in self._defined:
            self._defined[module, chain] = [*self._looked_up(module, chain)]
        return self._defined[module, chain]

    def _looked_up(self, module: str, chain: Chain) -> Iterator[tuple[_Name, Chain]]:
        todo = [(module, chain)]
        seen = {*todo}
        while todo:
            for (where, name), rest in self._meant(*todo.pop()):
                imports = self.codes[where].imported.get(name, ())
                named = [(one.module, one.attribute) for one in imports if one.module in self.codes]
                further = [(home, attribute) for home, attribute in named if attribute is not None]
                if not further:
                    yield (where, name), rest
                ahead = {(home, (of, *rest)) for home, of in (*further, *self._starred(where, name))} - seen
                todo += ahead
                seen |= ahead


class _Spread:
    """What runs again because something else does."""

    def __init__(self, world: _World) -> None:
        self._world = world
        self._todo: list[_Name] = []
        self._names: set[_Name] = set()
        self._places = {
            id(one): at for code in world.codes.values() for at, one in enumerate(code.statements)
        }
        self.run: dict[str, set[int]] = {}

    @property
    def names(self) -> dict[str, set[str]]:
        """The names that are others than before, by module."""
        found: dict[str, set[str]] = {}
        for module, name in self._names:
            found.setdefault(module, set()).add(name)
        return found

    def name(self, name: _Name) -> None:
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
        for where, other in self._beside.get(module, ()):
            self.statement(where, self._places[id(other)])

    def _is_made_after(self, name: _Name, module: str, at: int) -> bool:
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
