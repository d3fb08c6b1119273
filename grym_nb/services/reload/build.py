"""New code beside the old: what an edit changes runs in modules of its own, all else is carried over."""

from __future__ import annotations

import ast
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from importlib.util import resolve_name
from types import CodeType, ModuleType
from typing import Any

from grym_nb.services.reload import shown
from grym_nb.services.reload.class_values import ClassValues, class_values
from grym_nb.services.reload.plan import Code, Plan, plan
from grym_nb.services.reload.shown import remember
from grym_nb.services.reload.statements import Statement
from grym_nb.services.reload.versions import Followed, Version, Versions, builtins_of

__all__ = ["Built", "Ran", "build"]


@dataclass(frozen=True, slots=True)
class Ran:
    """A statement that ran again: in which module and line, what it binds, and what it took."""

    module: str
    line: int
    binds: frozenset[str]
    seconds: float


@dataclass(slots=True)
class Built:
    """A version that is ready to be published, and what it took."""

    version: Version
    plan: Plan
    ran: list[Ran] = field(default_factory=list)
    carried: int = 0  # statements that did not run
    fresh: frozenset[str] = frozenset()  # the modules that are other ones
    classes: list[ClassValues] = field(default_factory=list)  # that were made anew
    #: values that were carried over, and that functions bind as they run
    rebound: dict[str, frozenset[str]] = field(default_factory=dict)


def build(versions: Versions, codes: Mapping[str, Code]) -> Built:
    """Build the next version, in which the modules have the texts given; raises what their code raises.

    Whatever comes of it: nobody sees it before it is published.
    """
    versions.part()
    before = versions.newest
    after = {**before.codes, **codes}
    found = plan(before.codes, after)
    return _Builder(versions, before, after, found).build()


class _Builder:
    def __init__(self, versions: Versions, before: Version, after: Mapping[str, Code], found: Plan) -> None:
        self._versions = versions
        self._before = before
        self._after = after
        self._plan = found
        self._edited = {name for name, code in after.items() if code is not before.codes.get(name, code)}
        for name in self._edited:
            after[name].edit = before.codes[name].edit + 1
        fresh = found.fresh
        self._views = {name: ModuleType(name) for name in after if name in fresh}
        version = Version(before.number + 1, after, {**before.modules, **self._views})
        self._built = Built(version, found, fresh=fresh)
        self._anew: list[Any] = []  # the classes of before in whose place others are made
        self._begun: set[str] = set()  # the modules whose statements run, or have run

    def build(self) -> Built:
        """Make the new modules, and run in them what has to run again."""
        self._built.carried = sum(
            len(code.statements) - len(self._plan.run.get(name, ())) for name, code in self._after.items()
        )
        # What is carried over may have a module as it was long before: it asked nothing of what changed.
        known = (*self._before.modules.values(), *self._versions.every())
        alias = {id(one): self._views[one.__name__] for one in known if one.__name__ in self._views}
        alias |= {id(sys.modules.get(name)): view for name, view in self._views.items()}
        kept: dict[str, dict[str, ModuleType]] = {}
        for name, view in self._views.items():
            self._carry(name, vars(view), alias)
            kept[name] = dict(self._built.version.modules)
            vars(view)["__builtins__"] = builtins_of(_importing(kept[name], lambda name: first(name)))
            self._versions.added(view)
        first: Callable[[str], None] = self._first
        with self._versions.within(self._built.version):
            for name in self._views:
                self._run(name)
        first = _nothing  # this goes, what was built stays
        for values in self._built.classes:  # now that no statement runs any more that could change it
            values.settle([one for one in self._anew if isinstance(one, type)])
            values.give()
        for name, modules in kept.items():
            self._let_go(name, modules)
        return self._built

    def _let_go(self, name: str, modules: dict[str, ModuleType]) -> None:
        """Keep of a version only what functions of a module import as they run.

        Else one that is carried over from version to version would keep all that there was beside it.
        """
        within = [what for one in self._after[name].statements for what in one.within]
        named = {what.module for what in within} | {f"{what.module}.{what.attribute}" for what in within}
        for other in tuple(modules):
            if not any(one == other or one.startswith(f"{other}.") for one in named):
                del modules[other]

    def _carry(self, name: str, into: dict[str, Any], alias: Mapping[int, ModuleType]) -> None:
        code, places = self._after[name], self._plan.run.get(name, frozenset())
        made = {bound for at in places for bound in code.statements[at].binds}
        made |= self._plan.gone.get(name, frozenset())
        made |= self._starred(name) - code.binders.keys()
        self._built.rebound[name] = code.rebound - made
        for key, value in vars(self._before.modules[name]).items():
            if key not in made:
                into[key] = alias.get(id(value), value)

    def _starred(self, name: str) -> set[str]:
        """Return what a module has by ``from ... import *`` that runs again, or is there no more."""
        code, places = self._after[name], self._plan.run.get(name, frozenset())
        before = self._before.codes
        carried = {one.text for at, one in enumerate(code.statements) if at not in places}
        went = (one for one in before[name].statements if one.text not in carried) if name in before else ()
        stars = {what.module for one in went for what in one.imports if what.attribute == "*"}
        return {public for module in stars if module in before for public in before[module].public}

    def _run(self, name: str) -> None:
        """Run what has to run in a module, once: also when one that runs before it imports it."""
        self._first(name.rpartition(".")[0])  # its package, as Python does: which may have it run
        if name in self._begun:
            return
        self._begun.add(name)
        code, variables = self._after[name], vars(self._views[name])
        if name in self._edited:
            remember(code.file, code.text, variables)
        places = self._plan.run.get(name, ())
        for at, one in enumerate(code.statements):
            if at not in places:
                self._first_of(one)
                continue
            began = time.perf_counter()
            node = _placed(one)
            exec(_compiled(node, code), variables)
            took = time.perf_counter() - began
            shown.note(node, variables, code.file)
            self._built.ran.append(Ran(name, node.lineno, one.binds, took))
            self._take_over(name, node, variables)

    def _take_over(self, name: str, node: ast.stmt, variables: Mapping[str, Any]) -> None:
        """Note what a class that was made anew may have of the one of before."""
        if not isinstance(node, ast.ClassDef) or name not in self._before.codes:
            return
        self._anew.append(vars(self._before.modules[name]).get(node.name))
        if node.name not in self._plan.alone.get(name, ()):
            return  # other statements, that run again as well, set something on it
        classes = vars(self._before.modules[name]).get(node.name), variables.get(node.name)
        codes = self._before.codes[name], self._after[name]
        if (values := class_values(codes, self._plan.names, node, classes)) is not None:
            self._built.classes.append(values)

    def _first_of(self, one: Statement) -> None:
        """Run what a statement imports, also where it is carried over: what follows it asks for that."""
        for what in one.imports:
            self._first(what.module)
            if what.attribute is not None:
                self._first(f"{what.module}.{what.attribute}")

    def _first(self, name: str) -> None:
        """Run a module that is imported, if it has yet to run."""
        if name in self._views:
            self._run(name)


def _placed(one: Statement) -> ast.stmt:
    """Return a statement with the lines at which it stands by now."""
    return ast.increment_lineno(deepcopy(one.node), one.lower) if one.lower else one.node


def _compiled(node: ast.stmt, code: Code) -> CodeType:
    """Return one statement of a module, compiled as it would be among the others.

    To call something of a module is other bytecode than to call a method; the compiler tells them apart by
    the imports that it sees: they stand beside it, and do not run.
    """
    body: list[ast.stmt] = [node]
    if code.import_statements:
        body.append(ast.If(ast.Constant(False), list(code.import_statements), []))
    tree = ast.fix_missing_locations(ast.Module(body, []))
    compiled: CodeType = compile(tree, code.file, "exec", flags=code.flags, dont_inherit=True)
    return compiled


def _nothing(name: str) -> None:
    """All has run."""


def _importing(modules: Mapping[str, ModuleType], first: Callable[[str], None]) -> Callable[..., Any]:
    """Return how code of a version imports: what is followed is of that version as well, of its `modules`.

    Also long after it was built, where a function imports as it runs.
    """

    def of_version(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        package = (globals or {}).get("__package__") or ""
        whole = resolve_name("." * level + name, package) if level else name
        first(whole)
        for one in fromlist or ():
            first(f"{whole}.{one}")
        got = __import__(name, globals, locals, fromlist or (), level)
        return modules.get(got.__name__, got) if isinstance(got, Followed) else got

    return of_version
