"""Modules in versions: each is a module of its own, and the one that everybody has forwards to the newest.

The globals of a function are for ever those in which it was made. So new code is made in new ones, beside the
old: calls in flight see the old code with the old helpers, to their end. So do those that import them as they
run: what was built since imports in a way of its own; what ran before anything was followed cannot, and is
known by its globals when it asks the module that everybody has.
"""

from __future__ import annotations

import builtins
import sys
import threading
import weakref
from bisect import bisect
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import FrameType, MappingProxyType, ModuleType
from typing import Any

from grym_nb.services.frame import current_frame
from grym_nb.services.reload.plan import Code
from grym_nb.services.reload.shown import asked_by_inspect, file_of, remember
from grym_nb.services.reload.statements import Import

__all__ = ["Followed", "Version", "Versions", "builtins_of"]

_ALL = "*"  # of a module's names: any
_NOTHING = object()
_LINE = "__grym_line__"  # in the dictionary of a followed module, the first version's: what it is one of


class Version:
    """All followed modules as they are, or were, at a time."""

    def __init__(self, number: int, codes: Mapping[str, Code], modules: Mapping[str, ModuleType]) -> None:
        self.number = number
        self.codes = codes
        self.modules = modules


@dataclass(frozen=True, slots=True)
class _Line:
    """A followed module, and what the functions of its first version import as they run."""

    name: str
    versions: Versions
    begins: tuple[int, ...]  # the line of each statement
    within: tuple[frozenset[tuple[str, str]], ...]  # what each of them imports: modules, and what of them

    @classmethod
    def of(cls, code: Code, versions: Versions) -> _Line:
        """Return that of a module whose first version has this text."""
        within = (
            frozenset(name for what in one.within for name in _asked_by(what)) for one in code.statements
        )
        return cls(code.name, versions, tuple(one.first for one in code.statements), tuple(within))

    @property
    def newest(self) -> ModuleType:
        """The module that is the newest in this thread."""
        modules = self.versions.here().modules
        return modules[self.name] if self.name in modules else self.versions.newest.modules[self.name]

    def shown_to(self, asking: FrameType) -> str:
        """Return the file that `inspect` is to read for what it was asked for; empty where nobody did."""
        asked, path = asked_by_inspect(asking), self.versions.newest.codes[self.name].path
        if isinstance(asked, type):
            return file_of(asked, path)
        return "" if asked is None else self.versions.here().codes[self.name].file

    def imports(self, line: int, module: str, attribute: str) -> bool:
        """Tell whether the statement that a line is in imports something as it runs."""
        at = bisect(self.begins, line) - 1
        named = self.within[at] if at >= 0 else ()
        return (module, attribute) in named or (module, _ALL) in named


def _asked_by(what: Import) -> Iterator[tuple[str, str]]:
    """Yield which attributes of which modules an import asks for."""
    if what.attribute is not None:
        yield what.module, what.attribute
        yield f"{what.module}.{what.attribute}", _ALL  # where that is a module
        return
    yield what.module, _ALL
    package, _, name = what.module.rpartition(".")
    while package:  # ``import a.b`` asks ``a`` for it
        yield package, name
        package, _, name = package.rpartition(".")


class Versions:
    """The versions of modules that are followed; `newest` is what everybody gets who asks a module."""

    def __init__(self) -> None:
        self.newest = Version(0, {}, {})
        #: the one that this thread builds: while it does, it is the newest here
        self.building: ContextVar[Version | None] = ContextVar("grym_building", default=None)
        self._lock = threading.RLock()
        self._every: weakref.WeakSet[ModuleType] = weakref.WeakSet()  # all that are alive, of any version
        self._worlds: weakref.WeakSet[Version] = weakref.WeakSet([self.newest])

    def follow(self, codes: Mapping[str, Code]) -> None:
        """Take modules that were imported as the first version of them."""
        fresh = {name: code for name, code in codes.items() if name not in self.newest.codes}
        modules = {name: sys.modules[name] for name in fresh}
        with self._lock:
            newest = self.newest
            self.newest = Version(newest.number, {**newest.codes, **fresh}, {**newest.modules, **modules})
            self._worlds.add(self.newest)

    def here(self) -> Version:
        """Return the version that is the newest in this thread: in a call, to the code that answers it."""
        building = self.building.get()
        if building is not None:
            return building
        frame = current_frame()
        if frame is None:
            return self.newest
        spec = frame.record.spec if frame.serving is None else frame.serving.spec
        return spec.world or self.newest

    @contextmanager
    def within(self, version: Version) -> Iterator[None]:
        """Have what is imported in this thread be of a version that is not published yet."""
        token = self.building.set(version)
        try:
            yield
        finally:
            self.building.reset(token)

    def publish(
        self, version: Version, rebound: Mapping[str, Collection[str]] = MappingProxyType({})
    ) -> None:
        """Make a version the newest; what functions have `rebound` since it was built is as it is by now."""
        with self._lock:
            if self.newest is not version:
                _bring_up_to_date(version, self.newest, rebound)
                self.newest = version
                self._worlds.add(version)

    def part(self) -> None:
        """Part what was imported from what everybody has: what ran so far keeps the modules as they are.

        Done before the first other version is made.
        """
        with self._lock:
            self._part()

    def _part(self) -> None:
        newest = self.newest
        whole = {name: module for name, module in newest.modules.items() if not isinstance(module, Followed)}
        first = {name: module for name, module in whole.items() if sys.modules.get(name) is module}
        if not first:
            return
        for name, module in first.items():
            remember(newest.codes[name].path, newest.codes[name].text, vars(module))
        bound = {name for name in first if newest.codes[name].rebound}
        views = {name: _First(one) if name in bound else _copy(one) for name, one in first.items()}
        self._every.update(views.values())
        self.newest = Version(newest.number, newest.codes, {**newest.modules, **views})
        self._worlds.add(self.newest)
        # Also what was parted before: a module that was imported since has that as everybody does.
        alias = {id(sys.modules.get(name)): one for name, one in self.newest.modules.items()}
        for name, module in first.items():
            for variables in (vars(module), vars(views[name])):
                for key, value in tuple(variables.items()):
                    if id(value) in alias:
                        variables[key] = alias[id(value)]
            vars(module)[_LINE] = _Line.of(newest.codes[name], self)
            module.__class__ = Followed

    def added(self, module: ModuleType) -> ModuleType:
        """Have a module of a later version told what is set from outside."""
        vars(module).pop(_LINE, None)  # carried over from the first
        with self._lock:
            self._every.add(module)
        return module

    def has_below(self, number: int) -> bool:
        """Tell whether a version below a number is alive: somebody goes on with it, or may go back to it."""
        with self._lock:
            worlds = tuple(self._worlds)
        return any(one.number < number for one in worlds)

    def every(self) -> tuple[ModuleType, ...]:
        """Return all modules of versions that are alive."""
        with self._lock:
            return tuple(self._every)

    def told(self, name: str, attribute: str, value: Any, asked: dict[str, Any]) -> None:
        """Set something in the variables of a module, and in each version in which it was the same."""
        before = asked.get(attribute, _NOTHING)
        whole = sys.modules.get(name)
        known = [vars(one) for one in self.every() if one.__name__ == name]
        if isinstance(whole, Followed):
            known.append(object.__getattribute__(whole, "__dict__"))
        for variables in (asked, *known):
            if variables is asked or variables.get(attribute, _NOTHING) is before:
                if value is _NOTHING:
                    variables.pop(attribute, None)
                else:
                    variables[attribute] = value


class Followed(ModuleType):
    """A module that everybody has: it forwards to its newest version.

    Its own variables are those of the first, which code of that one gets that imports it as it runs.
    """

    def __getattribute__(self, name: str) -> Any:
        line: _Line = object.__getattribute__(self, "__dict__")[_LINE]
        if name == "__file__" and (file := line.shown_to(sys._getframe(1))):
            return file
        if _first_asks(line.name, name):
            return ModuleType.__getattribute__(self, name)
        return getattr(line.newest, name)

    def __setattr__(self, name: str, value: Any) -> None:
        own = object.__getattribute__(self, "__dict__")
        line: _Line = own[_LINE]
        asked = own if _first_asks(line.name, name) else vars(line.newest)
        line.versions.told(line.name, name, value, asked)

    def __delattr__(self, name: str) -> None:
        own = object.__getattribute__(self, "__dict__")
        line: _Line = own[_LINE]
        asked = own if _first_asks(line.name, name) else vars(line.newest)
        if name not in asked:
            raise AttributeError(f"module {line.name!r} has no attribute {name!r}")
        line.versions.told(line.name, name, _NOTHING, asked)

    def __dir__(self) -> list[str]:
        line: _Line = object.__getattribute__(self, "__dict__")[_LINE]
        return dir(line.newest)

    def __repr__(self) -> str:
        line: _Line = object.__getattribute__(self, "__dict__")[_LINE]
        return repr(line.newest)


class _First(ModuleType):
    """The first version of a module whose functions bind what is in it: of the variables in which they do."""

    def __init__(self, whole: ModuleType) -> None:
        super().__init__(whole.__name__)
        object.__getattribute__(self, "__dict__")[_LINE] = whole

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            return ModuleType
        return ModuleType.__getattribute__(object.__getattribute__(self, "__dict__")[_LINE], name)

    def __setattr__(self, name: str, value: Any) -> None:
        ModuleType.__setattr__(object.__getattribute__(self, "__dict__")[_LINE], name, value)

    def __delattr__(self, name: str) -> None:
        ModuleType.__delattr__(object.__getattribute__(self, "__dict__")[_LINE], name)


def _first_asks(module: str, attribute: str) -> bool:
    """Tell whether what asks a module for something is code of a first version that imports it as it runs.

    As long as such code is in force, that is what the newest has, too: else it would have been made anew.
    """
    asking = sys._getframe(1).f_back  # who asks the module, by a method of which this was called
    if asking is None or (line := asking.f_globals.get(_LINE)) is None:
        return False
    asks: _Line = line
    return asks.imports(asking.f_code.co_firstlineno, module, attribute)


def _bring_up_to_date(version: Version, before: Version, rebound: Mapping[str, Collection[str]]) -> None:
    for name, names in rebound.items():
        was, now = vars(before.modules[name]), vars(version.modules[name])
        now.update({one: was[one] for one in names if one in was})


def _copy(module: ModuleType) -> ModuleType:
    """Return the first version of a module that is asked as quickly as any."""
    view = ModuleType(module.__name__)
    vars(view).update(vars(module))
    return view


def builtins_of(importing: Any) -> dict[str, Any]:
    """Return the builtins for code that imports otherwise."""
    return {**vars(builtins), "__import__": importing}
