"""Modules as one: what names stand for in them, and what their statements make, use and read of those.

Nothing is imported or run here.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from grym_nb.services.reload.statements import GIVEN, Chain, Deeds, Import, Statement

if TYPE_CHECKING:
    from grym_nb.services.reload.plan import Code

__all__ = ["ALL", "BINDING", "Name", "World"]

Name = tuple[str, str]  # a module, and what it calls something

#: of a module's names: any
ALL = "*"
#: what is called for names that no statement binds
BINDING = ("globals", "vars", "locals", "exec")
_ELSE = "?"  # what a module has that no statement of it binds by its name
_OWN = frozenset(vars(builtins)) | {"__name__", "__file__"}  # as any module has it
_NO_DEEDS = Deeds()
_OF_OBJECTS = ("__new__", "__init__", "__post_init__", "__call__")  # not run as a subclass is made
_MAKING = ("__new__", "__init__", "__post_init__")


@dataclass(frozen=True, slots=True)
class _Run:
    """A function of a `module` as it is called in the one that is `asking`, with the names it is `given`.

    It is `name`, or the `method` of that; "" is all that is done as an object is made.
    """

    module: str
    name: str
    method: str
    deeds: Deeds
    rebinds: frozenset[str]
    asking: str
    given: frozenset[Chain]


class World:
    """The modules as one: what a chain of names stands for, and what a statement changes, in any of them."""

    def __init__(self, codes: Mapping[str, Code]) -> None:
        self.codes = codes
        self._reads: dict[int, set[Name]] = {}  # by the identity of the statement
        self._runs: dict[int, list[_Run]] = {}
        self._defined: dict[tuple[str, Chain], list[tuple[Name, Chain]]] = {}

    def changes(self, module: str, one: Statement) -> set[Name]:
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

    @cached_property
    def run(self) -> frozenset[Name]:
        """The classes of which modules make objects, or run methods, as they are made themselves."""
        return frozenset(
            (run.module, run.name)
            for module, code in self.codes.items()
            for one in code.statements
            for run in self._run_by(module, one)
            if run.method not in _OF_OBJECTS and (not run.method or run.deeds is not _NO_DEEDS)
        )

    def reads(self, module: str, one: Statement) -> set[Name]:
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

    def _up_to_last(self, module: str, name: Name, makers: Sequence[Statement]) -> list[Statement]:
        """Return what makes a name in a module, with what reads it there before the last of these."""
        own, its = self.codes[module].statements, {id(one) for one in makers}
        last = max(at for at, one in enumerate(own) if id(one) in its)
        return [one for one in own[: last + 1] if id(one) in its or name in self.reads(module, one)]

    @cached_property
    def _makers(self) -> dict[Name, list[tuple[str, Statement]]]:
        found: dict[Name, list[tuple[str, Statement]]] = {}
        for module, code in self.codes.items():
            for one in code.statements:
                for name in self.made(module, one):
                    found.setdefault(name, []).append((module, one))
        return found

    def made(self, module: str, one: Statement) -> set[Name]:
        """Return what a statement makes: what it binds, and what it changes."""
        found = {(module, name) for name in self._bound(one)} | self.changes(module, one)
        binding = {where for where, name in self.reads(module, one) if name in BINDING} if self._open else ()
        stars = (what.module for what in one.imports if what.attribute == ALL)
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
            if what.attribute == ALL and what.module in self.codes:
                yield from self._public(what.module, frozenset())

    def _public(self, module: str, seen: frozenset[str]) -> frozenset[str]:
        """Return what ``from module import *`` binds, also of what that has from others in this way."""
        code = self.codes[module]
        more = [name for name in code.stars if name in self.codes and name not in seen]
        return code.public.union(*(self._public(name, seen | {module}) for name in more))

    @cached_property
    def _users(self) -> dict[Name, list[tuple[str, Statement]]]:
        found: dict[Name, list[tuple[str, Statement]]] = {}
        for module, code in self.codes.items():
            for one in code.statements:
                for name in self.used(module, one):
                    found.setdefault(name, []).append((module, one))
        return found

    def users(self, name: Name) -> Iterable[tuple[str, Statement]]:
        """Return the statements that use a name, also those that use all of its module."""
        return (*self._users.get(name, ()), *self._users.get((name[0], ALL), ()))

    def makers(self, name: Name) -> Iterable[tuple[str, Statement]]:
        """Return the statements that make a name, in any module."""
        return self._makers.get(name, ())

    def used(self, module: str, one: Statement) -> set[Name]:
        """Return what a statement uses, of any module that is followed."""
        found = self._named(module, one.uses)
        for what in (*one.imports, *one.within):
            found |= self._imports(what, within=what in one.within)
        return found

    def _named(self, module: str, chains: Iterable[Chain]) -> set[Name]:
        """Return the names for which chains stand in a module, of any module that is followed."""
        found = {(module, chain[0]) for chain in chains}
        for chain in chains:
            if meant := self._meant(module, chain):
                found.discard((module, chain[0]))
                found |= {name for name, _ in meant}
        return self._with_else(found)

    def _with_else(self, names: set[Name]) -> set[Name]:
        """Return names, and for those that nothing binds what their module may have of no statement's."""
        unbound = ((where, name) for where, name in names if where in self._open and name not in _OWN)
        return names | {(where, _ELSE) for where, name in unbound if not self._binds(where, name)}

    def _binds(self, module: str, name: str) -> bool:
        return name == ALL or name in self.codes[module].binders or bool(self._starred(module, name))

    def _imports(self, what: Import, *, within: bool) -> set[Name]:
        if what.module not in self.codes and what.attribute is None:
            return set()
        if what.attribute is None:
            return {(what.module, ALL)} if within else set()  # at the top each use of it tells more
        if f"{what.module}.{what.attribute}" in self.codes:
            return {(f"{what.module}.{what.attribute}", ALL)} if within else set()
        return self._with_else({(what.module, what.attribute)}) if what.module in self.codes else set()

    def _meant(self, module: str, chain: Chain) -> list[tuple[Name, Chain]]:
        """Return the names for which a chain stands in a module, each with what is asked of it.

        Nothing, where it is something of a module that is not followed.
        """
        imports = self.codes[module].imported.get(chain[0])
        if imports is None:
            return [((module, chain[0]), chain[1:])]
        found: list[tuple[Name, Chain]] = []
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
                found.append(((whole, rest[0] if rest else ALL), rest[1:]))
        return found

    def _own(self, module: str, chain: Chain) -> Iterator[Name]:
        """Yield what is made in some module of that for which a chain stands; of what is elsewhere, nothing.

        What was imported by its name is the very object that is known there as well.
        """
        todo = [name for name, _ in self._meant(module, chain)]
        seen: set[Name] = set()
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

    def _starred(self, module: str, name: str) -> list[Name]:
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
                        yield _Run(
                            where,
                            name,
                            rest[0] if rest else "",
                            deeds,
                            definition.rebinds,
                            asking,
                            asked.given,
                        )
                        ahead = {(where, called) for called in deeds.calls} - seen
                        todo += ahead
                        seen |= ahead

    def _definitions(self, module: str, chain: Chain) -> list[tuple[Name, Chain]]:
        """Return where that is defined for which a chain stands: imports of functions are followed."""
        if (module, chain) not in self._defined:
            self._defined[module, chain] = [*self._looked_up(module, chain)]
        return self._defined[module, chain]

    def _looked_up(self, module: str, chain: Chain) -> Iterator[tuple[Name, Chain]]:
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
