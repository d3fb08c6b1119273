"""The text of a module as its top-level statements: what each of them binds, uses, changes and calls.

Nothing is imported or run here. Where a text leaves open what a statement does, more is assumed: that it runs
once more than is needed costs little, that it does not costs the truth.
"""

from __future__ import annotations

import ast
import symtable
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from itertools import pairwise

from grym_nb.services.syntax import parsed

__all__ = ["GIVEN", "Asked", "Chain", "Deeds", "Import", "Statement", "statements_of"]

#: a name with the attributes that are asked of it: ``("helpers", "scale")``
Chain = tuple[str, ...]

#: among the effects of a function: something changes that it was given
GIVEN: Chain = ("*given",)
_BODY = ""  # the name of what a function does, where a class has its methods'
_COMPREHENSIONS = frozenset({"listcomp", "setcomp", "dictcomp", "genexpr"})  # run where they stand
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
#: what a class does as it, or an instance of it, is made
_MAKING = ("__new__", "__init__", "__post_init__", "__init_subclass__", "__set_name__", "__call__")
#: methods that are called for what they return, and change what they are asked of as well
_TAKING = frozenset({"pop", "popitem", "popleft", "setdefault"})


@dataclass(frozen=True, slots=True)
class Import:
    """One thing that is imported, under `name`: a module, or an `attribute` of it ("*" is each of them)."""

    module: str
    attribute: str | None
    name: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What is called, and the names that it is given."""

    what: Chain
    given: frozenset[Chain] = frozenset()


@dataclass(slots=True)
class Deeds:
    """What is done with the names of a module: by a statement as it runs, or by one of its functions."""

    changes: set[Chain] = field(default_factory=set)  # in place: ``x[0] = 1``, ``x.append(1)``
    calls: set[Asked] = field(default_factory=set)
    reads: set[Chain] = field(default_factory=set)


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """One statement at the top of a module."""

    node: ast.stmt  # as it stood where it was read
    source: str
    text: str  # two with an equal text are the same, wherever they stand
    binds: frozenset[str]
    uses: frozenset[Chain]  # also inside of its functions
    later: frozenset[str]  # the names that its functions use as they run
    rebinds: frozenset[str]  # the names that they bind (`global`)
    now: Deeds
    by: Mapping[str, Deeds]  # what its functions do: a function's body is "", a class has its methods
    imports: tuple[Import, ...]  # at the top
    within: tuple[Import, ...]  # inside of its functions, as they run
    lower: int = 0  # lines by which it stands below where it was read

    @property
    def first(self) -> int:
        """The line with which it begins: that of its first decorator, where it has one."""
        return _first_line(self.node) + self.lower

    @property
    def last(self) -> int:
        """The line with which it ends."""
        return _last_line(self.node) + self.lower


def statements_of(
    text: str,
    module: str,
    *,
    package: bool = False,
    path: str = "<text>",
    before: str = "",
    known: Sequence[Statement] = (),
) -> list[Statement]:
    """Return the statements of a module's text; raises the `SyntaxError` that it has.

    What is `known` of a text `before`, and stands there as it did, is not read again.
    """
    lines, old = _lines_of(text), _lines_of(before)
    head, tail = _untouched(old, lines, known)
    begin = known[head].first - 1 if head else 0
    end = len(lines) - (len(old) - known[tail].first + 1 if tail < len(known) else 0)
    try:
        # Below so many empty lines, each stands where it does.
        tree = parsed("\n" * begin + "".join(lines[begin:end]), path)
    except SyntaxError:
        head, tail = 0, len(known)
        tree = parsed(text, path)  # what is wrong with it may have begun before
    body = [one for node in tree.body for one in _singly(node)]
    shared = {after.lineno for before, after in pairwise(body) if _last_line(before) == _first_line(after)}
    home = module if package else module.rpartition(".")[0]
    read = {one.source: one for one in known}
    found = [*known[:head]]
    for node in body:
        source = _source_of(node, lines, shared)
        one = read.get(source)
        found.append(_statement(node, source, home) if one is None else replace(one, node=node, lower=0))
    lower = len(lines) - len(old)
    found += (replace(one, lower=one.lower + lower) for one in known[tail:])
    return found


def _lines_of(text: str) -> list[str]:
    return StringIO(text).readlines()  # as Python counts them: a form feed ends none


def _untouched(old: list[str], new: list[str], known: Sequence[Statement]) -> tuple[int, int]:
    """Return how many statements stand unchanged before the first line that differs, and where those begin
    that do so after the last one.

    Of those before, the last may go on in what was added. One that shares a line is not told from others.
    """
    if not known or any("\r" in line for line in new):
        return 0, len(known)
    most = min(len(old), len(new))
    same = next((at for at in range(most) if old[at] != new[at]), most)
    after = next((at for at in range(most - same) if old[-1 - at] != new[-1 - at]), most - same)
    begins = {at: now.first for at, (before, now) in enumerate(pairwise(known), 1) if now.first > before.last}
    head = max((at for at, line in begins.items() if line <= same), default=0)
    rest = (at for at, line in begins.items() if at >= head and line > len(old) - after)
    tail = min(rest, default=len(known))
    return head, tail


def _source_of(node: ast.stmt, lines: Sequence[str], shared: set[int]) -> str:
    """Return a statement's own text, by which it is told from all others."""
    first, last = _first_line(node), _last_line(node)
    goes_on = lines[last - 1].rstrip("\n").endswith("\\")  # to an empty line, or to the next after a ``;``
    shares = bool({first, last} & shared)  # ``a = 1; b = 2``
    if isinstance(node, (ast.Import, ast.ImportFrom)) or goes_on or shares:
        return ast.unparse(node)
    return "".join(lines[first - 1 : last])


def _statement(node: ast.stmt, source: str, home: str) -> Statement:
    names = _names_of(symtable.symtable(source, "<statement>", "exec"))
    reader = _Reader(home)
    reader.read(node)
    known = names.bound | names.now | names.later
    for deeds in (reader.now, *reader.by.values()):
        deeds.changes = {chain for chain in deeds.changes if chain[0] in known or chain == GIVEN}
        deeds.calls = {asked for asked in deeds.calls if asked.what[0] in known}
        deeds.reads = {chain for chain in deeds.reads if chain[0] in names.now | names.later}
    return Statement(
        node,
        source,
        ast.dump(node),
        frozenset(names.bound),
        frozenset(chain for chain in reader.chains if chain[0] in names.now | names.later),
        frozenset(names.later),
        frozenset(names.rebound),
        reader.now,
        reader.by,
        tuple(reader.imports),
        tuple(reader.within),
    )


def _singly(node: ast.stmt) -> list[ast.stmt]:
    """Return an import as one for each thing that is imported: another beside it changes nothing of it."""
    if not isinstance(node, (ast.Import, ast.ImportFrom)):
        return [node]
    found: list[ast.stmt] = []
    for one in node.names:
        alias = ast.alias(one.name, None if one.asname == one.name else one.asname)
        single = (
            ast.Import([alias])
            if isinstance(node, ast.Import)
            else ast.ImportFrom(node.module, [alias], node.level)
        )
        found.append(ast.fix_missing_locations(ast.copy_location(single, node)))
    return found


def _first_line(node: ast.stmt) -> int:
    decorators = node.decorator_list if isinstance(node, _DEFINITIONS) else []
    return min([node.lineno, *(one.lineno for one in decorators)])


def _last_line(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


# -- the names of a statement ----------------------------------------------------------------------


@dataclass(slots=True)
class _Names:
    bound: set[str] = field(default_factory=set)
    now: set[str] = field(default_factory=set)  # used as the statement runs
    later: set[str] = field(default_factory=set)  # used as its functions run
    rebound: set[str] = field(default_factory=set)  # by its functions


def _names_of(top: symtable.SymbolTable) -> _Names:
    names = _Names()
    for symbol in top.get_symbols():
        if symbol.is_assigned() or symbol.is_imported():
            names.bound.add(symbol.get_name())
        if symbol.is_referenced():
            names.now.add(symbol.get_name())
    _look_into(top, names, later=False)
    return names


def _look_into(table: symtable.SymbolTable, names: _Names, *, later: bool) -> None:
    for child in table.get_children():
        function = str(child.get_type()) == "function" and child.get_name() not in _COMPREHENSIONS
        runs_later = later or function
        for symbol in child.get_symbols():
            name = symbol.get_name()
            if not symbol.is_global():
                continue
            if symbol.is_assigned() or symbol.is_imported():
                (names.rebound if runs_later else names.bound).add(name)
            if runs_later:
                names.later.add(name)
            else:
                names.now.add(name)
        _look_into(child, names, later=runs_later)


# -- what a statement does -------------------------------------------------------------------------


class _Reader:
    """Reads a statement: what it does as it runs, and apart from that what each of its functions does."""

    def __init__(self, home: str) -> None:
        self._home = home  # the package, by which relative imports go
        self._parameters: set[str] = set()  # of the function that is read
        self._of = ""  # in whose deeds what functions do is put down
        self._subclass: dict[str, str] = {}  # what a subclass is called, by a class that is told of it
        self.chains: set[Chain] = set()
        self.now = Deeds()
        self.by: dict[str, Deeds] = {}
        self.imports: list[Import] = []
        self.within: list[Import] = []

    def read(self, node: ast.AST, deeds: Deeds | None = None) -> None:
        """Read a node that runs now, or as a function does whose deeds are given."""
        doing = self.now if deeds is None else deeds
        if isinstance(node, _FUNCTIONS):
            self._read_function(node, deeds)
            return
        if isinstance(node, ast.ClassDef):
            self._read_class(node, deeds)
            return
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found = self.imports if deeds is None else self.within
            found.extend(_imports(node, self._home))
        elif isinstance(node, ast.Call):
            given = (*node.args, *(one.value for one in node.keywords))
            chains = frozenset(chain for one in given if (chain := _chain(one)) is not None)
            self._called(node.func, doing, chains)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            self._changed_if_given(node.value.func, doing)
        elif isinstance(node, (ast.Attribute, ast.Subscript)) and not isinstance(node.ctx, ast.Load):
            self._changed(node.value, doing)
        elif isinstance(node, ast.AugAssign):
            self._changed(node.target, doing)  # ``x += [1]`` changes the list that it was
        if (chain := _chain(node)) is not None:
            self.chains.add(chain)
            if chain[0] not in self._parameters:
                doing.reads.add(chain)
            return
        for child in ast.iter_child_nodes(node):
            self.read(child, deeds)

    def _read_function(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, deeds: Deeds | None
    ) -> None:
        arguments = node.args
        if not isinstance(node, ast.Lambda):
            for decorator in node.decorator_list:
                self._called(decorator, self.now if deeds is None else deeds)
                self.read(decorator, deeds)
            if node.returns is not None:
                self.read(node.returns, deeds)
        self.read(arguments, deeds)
        body = node.body if isinstance(node.body, list) else [node.body]
        mine = self.by.setdefault(self._of, Deeds()) if deeds is None else deeds
        outer = self._parameters
        every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
        more = (one for one in (arguments.vararg, arguments.kwarg) if one is not None)
        self._parameters = outer | {one.arg for one in (*every, *more)}
        for one in body:
            self.read(one, mine)
        self._parameters = outer

    def _told_of_subclass(self, node: ast.stmt, name: str) -> dict[str, str]:
        """Return as what a class knows a subclass that is made: what that has is the class's own."""
        if not isinstance(node, ast.FunctionDef) or node.name != "__init_subclass__" or not node.args.args:
            return {}
        return {node.args.args[0].arg: name}

    def _read_class(self, node: ast.ClassDef, deeds: Deeds | None) -> None:
        doing = self.now if deeds is None else deeds
        for decorator in node.decorator_list:
            self._called(decorator, doing)
            self.read(decorator, deeds)
        for base in (*node.bases, *(one.value for one in node.keywords)):
            self.read(base, deeds)
            if (chain := _chain(base)) is None:
                continue
            for method in _MAKING:  # a class that has none of its own has that of its base
                doing.calls.add(Asked((*chain, method)))
                if deeds is None:
                    self.by.setdefault(method, Deeds()).calls.add(Asked((*chain, method)))
        outer = self._of
        for one in node.body:
            if deeds is None and isinstance(one, _DEFINITIONS):
                self._of = one.name
                self._subclass = self._told_of_subclass(one, node.name)
            self.read(one, deeds)
            self._of, self._subclass = outer, {}

    def _called(self, what: ast.AST, doing: Deeds, given: frozenset[Chain] = frozenset()) -> None:
        if (chain := _chain(what)) is not None:
            doing.calls.add(Asked(chain, given))
        if isinstance(what, ast.Attribute):
            self._changed(what.value, doing, given=what.attr in _TAKING)

    def _changed_if_given(self, what: ast.AST, doing: Deeds) -> None:
        """Note a method that is called for what it does: what a function was given may be other by it."""
        if isinstance(what, ast.Attribute):
            self._changed(what.value, doing)

    def _changed(self, what: ast.AST, doing: Deeds, *, given: bool = True) -> None:
        chain: list[str] = []
        while isinstance(what, (ast.Attribute, ast.Subscript)):
            chain = [what.attr, *chain] if isinstance(what, ast.Attribute) else []
            what = what.value
        if not isinstance(what, ast.Name):
            return
        if chain and what.id in self._subclass:
            doing.changes.add((self._subclass[what.id], *chain))
        elif what.id not in self._parameters:
            doing.changes.add((what.id, *chain))
        elif given:
            doing.changes.add(GIVEN)


def _chain(node: ast.AST) -> Chain | None:
    """Return a name with the attributes that are asked of it; None where it begins with anything else."""
    attributes: list[str] = []
    while isinstance(node, ast.Attribute):
        attributes.append(node.attr)
        node = node.value
    return (node.id, *reversed(attributes)) if isinstance(node, ast.Name) else None


def _imports(node: ast.Import | ast.ImportFrom, home: str) -> list[Import]:
    if isinstance(node, ast.Import):
        return [
            Import(one.name, None, one.asname or one.name.partition(".")[0])
            if one.asname or "." not in one.name
            else Import(one.name, None, one.name)  # binds the first part, and is asked by all of them
            for one in node.names
        ]
    module = node.module or ""
    if node.level:
        parts = home.split(".")
        module = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])
    return [Import(module, one.name, one.asname or one.name) for one in node.names]
