"""Modules in versions: each is a module of its own, and the one that everybody has forwards to the newest.

The globals of a function are for ever those in which it was made. So new code is made in new ones, beside the
old: calls in flight see the old code with the old helpers, to their end.
"""

from __future__ import annotations

import builtins
import linecache
import sys
import threading
import weakref
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from io import StringIO
from types import MappingProxyType, ModuleType
from typing import Any

from grym_nb.services.reload.plan import Code

__all__ = ["Followed", "Version", "Versions", "builtins_of", "remember"]

_LINE = "__grym_line__"  # in the dictionary of a followed module: which versions it has
_TEXT = "__grym_text__"  # in the dictionary of each version: by it its text is kept


class Version:
    """All followed modules as they are, or were, at a time."""

    def __init__(self, number: int, codes: Mapping[str, Code], modules: Mapping[str, ModuleType]) -> None:
        self.number = number
        self.codes = codes
        self.modules = modules


@dataclass(frozen=True, slots=True)
class _Line:
    name: str
    versions: Versions


class Versions:
    """The versions of modules that are followed; `newest` is what everybody gets who asks a module."""

    def __init__(self) -> None:
        self.newest = Version(0, {}, {})
        #: the one that this thread builds: while it does, it is the newest here
        self.building: ContextVar[Version | None] = ContextVar("grym_building", default=None)
        self._lock = threading.RLock()
        self._every: weakref.WeakSet[ModuleType] = weakref.WeakSet()  # all that are alive, of any version

    def follow(self, codes: Mapping[str, Code]) -> None:
        """Take modules that were imported as the first version of them."""
        fresh = {name: code for name, code in codes.items() if name not in self.newest.codes}
        modules = {name: sys.modules[name] for name in fresh}
        with self._lock:
            newest = self.newest
            self.newest = Version(newest.number, {**newest.codes, **fresh}, {**newest.modules, **modules})

    def here(self) -> Version:
        """Return the version that is the newest in this thread."""
        return self.building.get() or self.newest

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
        views = {name: _copy(module) for name, module in first.items()}
        self._every.update(views.values())
        self.newest = Version(newest.number, newest.codes, {**newest.modules, **views})
        # Also what was parted before: a module that was imported since has that as everybody does.
        alias = {id(sys.modules.get(name)): one for name, one in self.newest.modules.items()}
        for name, module in first.items():
            for variables in (vars(module), vars(views[name])):
                for key, value in tuple(variables.items()):
                    if id(value) in alias:
                        variables[key] = alias[id(value)]
            remember(newest.codes[name].path, newest.codes[name].text, vars(module))
            vars(module)[_LINE] = _Line(name, self)
            module.__class__ = Followed
        for view in views.values():
            vars(view).pop(_LINE, None)

    def added(self, module: ModuleType) -> ModuleType:
        """Have a module of some version told what is set from outside."""
        with self._lock:
            self._every.add(module)
        return module

    def told(self, name: str, attribute: str, value: Any) -> None:
        """Set something in a module, in each version in which it was the same; as `sys.modules` has it."""
        newest = vars(self.here().modules[name])
        before = newest.get(attribute, _NOTHING)
        whole = sys.modules.get(name)
        with self._lock:
            every = tuple(self._every)
        known = [vars(one) for one in every if one.__name__ == name]
        if isinstance(whole, Followed):
            known.append(object.__getattribute__(whole, "__dict__"))
        for variables in (newest, *known):
            if variables is newest or variables.get(attribute, _NOTHING) is before:
                if value is _NOTHING:
                    variables.pop(attribute, None)
                else:
                    variables[attribute] = value


_NOTHING = object()


class Followed(ModuleType):
    """A module that everybody has: it forwards to its newest version."""

    def __getattribute__(self, name: str) -> Any:
        line = object.__getattribute__(self, "__dict__")[_LINE]
        return getattr(line.versions.here().modules[line.name], name)

    def __setattr__(self, name: str, value: Any) -> None:
        line = object.__getattribute__(self, "__dict__")[_LINE]
        line.versions.told(line.name, name, value)

    def __delattr__(self, name: str) -> None:
        line = object.__getattribute__(self, "__dict__")[_LINE]
        getattr(line.versions.here().modules[line.name], name)  # raises as Python does
        line.versions.told(line.name, name, _NOTHING)

    def __dir__(self) -> list[str]:
        line = object.__getattribute__(self, "__dict__")[_LINE]
        return dir(line.versions.here().modules[line.name])

    def __repr__(self) -> str:
        line = object.__getattribute__(self, "__dict__")[_LINE]
        return repr(line.versions.here().modules[line.name])


def _bring_up_to_date(version: Version, before: Version, rebound: Mapping[str, Collection[str]]) -> None:
    for name, names in rebound.items():
        was, now = vars(before.modules[name]), vars(version.modules[name])
        now.update({one: was[one] for one in names if one in was})


def _copy(module: ModuleType) -> ModuleType:
    view = ModuleType(module.__name__)
    vars(view).update(vars(module))
    return view


def remember(file: str, text: str, variables: dict[str, Any]) -> None:
    """Have tracebacks and `inspect.getsource` show a text for a file, whatever is on disk by now.

    For as long as there is code that ran in those variables.
    """
    entry = len(text), None, StringIO(text).readlines(), file
    linecache.cache[file] = entry
    variables[_TEXT] = kept = _Text()
    weakref.finalize(kept, _forget, file, entry).atexit = False


class _Text:
    """Is there as long as the globals that it is in."""


def _forget(file: str, entry: object) -> None:
    if linecache.cache.get(file) is entry:
        del linecache.cache[file]


def builtins_of(importing: Any) -> dict[str, Any]:
    """Return the builtins for code that imports otherwise."""
    return {**vars(builtins), "__import__": importing}
