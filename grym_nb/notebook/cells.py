"""`%%grym service NAME`: a service defined, or redefined, by the class in a cell."""

from __future__ import annotations

import ast
import builtins
import hashlib
import html
import re
import sys
from argparse import Namespace
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grym_nb.errors import CommandError, ConfigError, Problem
from grym_nb.events import ServiceEvent
from grym_nb.notebook.typed import keyword, value_of

if TYPE_CHECKING:
    from types import CodeType

    from IPython.core.interactiveshell import InteractiveShell

    from grym_nb.services import ServiceHandle

__all__ = ["Defined", "Names", "define"]

#: on a class defined by a cell, a `_Made`: helpers beside the class are its code, too, and so is what the
#: cell took from the notebook while it ran
_BODY = "__grym_body__"

#: the hash of the body, and for each name of the notebook that it asked for, a hash of what that stands for
_Made = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True, repr=False)
class Defined:
    """What a definition came to: the handle, and a line that says what happened.

    `outcome` is ``"new"``, ``"unchanged"`` or ``"changed"``.
    """

    handle: ServiceHandle
    outcome: str
    note: str

    def __repr__(self) -> str:
        return self.note

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self.note)}</p>"


class Names(dict[str, Any]):
    """The builtins of a cell's own globals, behind the user's variables.

    It stands as `__builtins__`, the place where Python looks for what a function's globals do not have. A
    `__missing__` on the globals themselves is not asked by names in a class body (`@grym.task`, defaults).
    """

    def __init__(self, variables: Mapping[str, Any]) -> None:
        super().__init__(vars(builtins))  # `import` reads the dict itself
        self._variables = variables
        self._asked: set[str] | None = None

    @contextmanager
    def noted(self) -> Iterator[set[str]]:
        """Gives the names that are asked for within, there or not."""
        asked = self._asked = set()
        try:
            yield asked
        finally:
            self._asked = None

    def __getitem__(self, name: str) -> Any:
        if self._asked is not None:
            self._asked.add(name)
        if name in self._variables:
            return self._variables[name]
        return vars(builtins)[name]  # read anew: IPython puts some names there only while a cell runs


@dataclass(frozen=True, slots=True)
class _Body:
    """A cell's body, and a hash of it that comments and blank lines do not change."""

    source: str
    tree: ast.Module
    file: str
    hash: str


def define(shell: InteractiveShell, given: Namespace) -> Defined:
    """Define the service of a cell in the kernel's runtime, and put what the cell defines where users see it.

    A body that does not compile or that raises changes nothing: neither the variables nor the service.
    """
    __tracebackhide__ = True
    from grym_nb.runtime import current

    registry = current().registry
    body = _read(shell, f"%%grym {given.line}", given.body)
    options = _options(given, shell.user_ns)
    made = _served(registry.get(given.name, None))
    own: dict[str, Any] = {}
    if made is None or not _is_as_it_was(shell, made, body):
        made, own = _run(shell, body, given.name)
    events: list[ServiceEvent] = []
    unsubscribe = registry.ports.events.subscribe(events.append, ServiceEvent)
    try:
        handle = registry.register(given.name, made, **options)
    finally:
        unsubscribe()
    shell.user_ns.update(own)
    return _told(handle, events)


def _run(shell: InteractiveShell, body: _Body, service: str) -> tuple[type, dict[str, Any]]:
    """Run a body; return its class, marked with what it was made of, and all that the user is to see."""
    __tracebackhide__ = True
    names = Names(shell.user_ns)
    own: dict[str, Any] = {"__name__": "__main__", "__builtins__": names}
    ipython: Any = shell
    tree = ipython.transform_ast(body.tree)
    with names.noted() as asked:
        exec(_compiled(shell, tree, body), own)
        made = _the_class(own, shell.user_ns, service)  # reads annotations that were put off
    own = {name: value for name, value in own.items() if not name.startswith("__")}
    # As it is once the cell is through: to find then what it left there itself is no change.
    setattr(made, _BODY, (body.hash, _values(shell, asked, ChainMap(own, shell.user_ns), made)))
    return made, own


def _compiled(shell: InteractiveShell, tree: ast.Module, body: _Body) -> CodeType:
    try:
        code: CodeType = compile(tree, body.file, "exec", flags=shell.compile.flags, dont_inherit=True)
        return code
    except (
        SyntaxError,
        ValueError,
        MemoryError,
        RecursionError,
    ) as error:  # a `return` outside of a function
        raise _broken(error, body.source) from None


def _is_as_it_was(shell: InteractiveShell, made: type, body: _Body) -> bool:
    """Tell whether the body that made a class would make the same of the notebook as it is now."""
    known: _Made = vars(made)[_BODY]
    before, values = known
    return before == body.hash and values == _values(shell, dict(values), shell.user_ns, made)


def _values(
    shell: InteractiveShell, asked: Iterable[str], variables: Mapping[str, Any], made: type
) -> tuple[tuple[str, str], ...]:
    """Return each name with a hash of its value, which is empty where there is none."""
    from grym_nb.services.content import code_of

    names, told = Names(variables), {}
    for name in asked:
        try:
            value = names[name]
        except KeyError:
            told[name] = ""
            continue
        # IPython's own hold all that ever ran, and change with each cell.
        its = value is shell or value is shell.user_ns_hidden.get(name, names)
        told[name] = "IPython" if its else code_of(value, within=made)
    return tuple(sorted(told.items()))


def _read(shell: InteractiveShell, first: str, body: str) -> _Body:
    """Return the body, parsed as the lines after the first of a cell."""
    __tracebackhide__ = True
    # With a line in front, the numbers in tracebacks are those that the front end shows beside the cell.
    ipython: Any = shell
    raw = f"{first}\n{body}".removesuffix("\n")
    source = raw
    try:
        source = ipython.transform_cell(f"# {first}\n{body}")
        # The same name as the whole cell has for the debugger. Also when nothing is to be run: IPython has
        # just put the one line of the magic under that name.
        file = ipython.compile.cache(source, _number(shell), raw_code=raw)
        tree: ast.Module = ipython.compile.ast_parse(source, filename=file)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise _broken(error, source) from None
    digest = hashlib.blake2b(ast.dump(tree).encode(errors="replace"), digest_size=16).hexdigest()
    return _Body(source, tree, file, digest)


def _broken(error: Exception, source: str) -> CommandError:
    """Return the error for a body that does not compile: IPython would show its own frames with Python's."""
    line, message = getattr(error, "lineno", None) or 0, getattr(error, "msg", "") or str(error)
    lines = source.split("\n")
    code = lines[line - 1].strip() if 0 < line <= len(lines) else ""
    return CommandError(
        f"the cell does not compile: {message or type(error).__name__}" + (f", line {line}" if line else ""),
        cause=f"line {line}: {code}" if code else "",
        hint="nothing was changed; mend the line and run the cell again",
        line=line,
        column=getattr(error, "offset", None) or 0,
    )


def _number(shell: InteractiveShell) -> int:
    """Return the number of the cell that is running: `execution_count` may be the next one's already."""
    named = getattr(shell.compile, "format_code_name", lambda name: None)  # not in IPython 8.6
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        told = named(frame.f_code.co_filename)
        if told is not None and (digits := re.search(r"\d+", told[1])):
            return int(digits[0])
    return shell.execution_count


def _options(given: Namespace, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of `register` for what stands on the first line."""
    config: dict[str, Any] = {}
    for word in given.config:
        pair = keyword(word)
        if pair is None:
            raise CommandError(
                f"%%grym service {given.name} does not take {word!r}",
                hint="after the name come options (--memory 2GB) and config (name=value)",
            )
        config[pair[0]] = value_of(pair[1], variables)
    return {
        "config": config,
        "needs": tuple(name for name in given.needs.split(",") if name),
        "memory": given.memory,
        "budget": given.budget,
        "ttl": given.ttl,
        "concurrency": given.concurrency,
    }


def _served(handle: ServiceHandle | None) -> type | None:
    """Return the class that a service was registered with, if a cell defined it."""
    factory = None if handle is None else handle._record.spec.factory
    return factory if isinstance(factory, type) and _BODY in vars(factory) else None


def _the_class(own: Mapping[str, Any], variables: Mapping[str, Any], service: str) -> type:
    """Return the one class with tasks that a body defines; a base of another one does not count."""
    from grym_nb.services.model import tasks_of

    theirs = {id(value) for value in variables.values()}
    classes = {
        id(value): value
        for value in own.values()
        if isinstance(value, type) and value.__module__ == "__main__" and id(value) not in theirs
    }
    able = [cls for cls in classes.values() if tasks_of(cls)]
    leaves = [cls for cls in able if not any(other is not cls and issubclass(other, cls) for other in able)]
    if len(leaves) == 1:
        return leaves[0]
    if leaves:
        found = f"{len(leaves)}: {', '.join(cls.__name__ for cls in leaves)}"
        hint = "one service a cell: put the others in cells of their own"
    else:
        found = f"none ({', '.join(cls.__name__ for cls in classes.values()) or 'no class'} in the cell)"
        hint = 'write the class in this cell, with @grym.task("type") above a method'
    raise ConfigError(
        f"{service!r} cannot be defined",
        problems=[Problem("cell", found, "one class with a @task method")],
        hint=hint,
        service=service,
    )


def _told(handle: ServiceHandle, events: list[ServiceEvent]) -> Defined:
    from grym_nb.events import ServiceChanged, ServiceRegistered

    name = f"{handle.name} {handle.version}"
    when = "loads at the first call" if not handle.status().loads else "loads at the next call"
    for event in events:
        if event.service != handle.name:
            continue
        if isinstance(event, ServiceRegistered):
            return Defined(handle, "new", f"{name} is new: it {when}")
        if isinstance(event, ServiceChanged):
            parts = ", ".join(event.what)
            effect = "in place, nothing is loaded anew" if handle.state == "ready" else f"it {when}"
            return Defined(handle, "changed", f"{name} changed ({parts}): {effect}")
    return Defined(handle, "unchanged", f"{name} is unchanged: it is {handle.state}")
