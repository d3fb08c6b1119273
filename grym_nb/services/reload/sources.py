"""The files that services are made from: which of them are followed, as what they were imported, what is new.

A service's module is followed from its registration on, with all that it imports of the user's own: not what
is installed, not the standard library. What of a file is in force is known from then on, whatever is on disk.
"""

from __future__ import annotations

import ast
import os
import sys
import threading
import time
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES, SourceFileLoader
from io import BytesIO, TextIOWrapper
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from grym_nb.errors import StateError
from grym_nb.services.content import is_settled
from grym_nb.services.reload.plan import Code
from grym_nb.services.reload.shown import remember
from grym_nb.services.reload.versions import Versions
from grym_nb.services.syntax import parsed

if TYPE_CHECKING:
    from grym_nb.services.spec import ServiceSpec

__all__ = ["Codebase", "module_of", "modules_of"]

_COARSE = 0.1  # seconds, by which the clock of files may be behind


@dataclass(slots=True)
class _Source:
    """A module's text as it was imported, as far as that is known; read as statements when it is needed."""

    name: str
    path: str
    package: bool
    text: str
    is_whole: bool  # it is what was imported: else the file was changed before anybody looked
    looked: float  # when what it imports was last looked at
    code: Code | None = None
    ahead: Code | None = None  # what was read of the file, and is not in force

    def imported(self) -> list[str]:
        """Return the modules that its text imports, anywhere in it, as far as it is the user's own code."""
        home = self.name if self.package else self.name.rpartition(".")[0]
        return _followed(_imported(self.text, home))

    def read(self) -> Code:
        if self.code is None:
            text = self.text if self.is_whole else ""
            self.code = Code(self.name, text, package=self.package, path=self.path)
        return self.code


class Codebase:
    """The modules from which the services of a registry are made, and their versions; for any thread."""

    def __init__(self) -> None:
        self.versions = Versions()
        self._sources: dict[str, _Source] = {}
        self._extensions: dict[str, tuple[str, int | None]] = {}  # their files, as they were when imported
        self._lock = threading.Lock()
        self._turn = threading.Lock()

    def follow(self, *names: str, since: float | None = None) -> None:
        """Follow modules, and what they import, from now on; imports nothing.

        `since` is when none of those that are not followed yet had been imported.
        """
        todo = list(names)
        while todo:
            name = todo.pop()
            if name in self._sources:
                continue
            if (found := _source(name, since)) is None:
                if (path := _extension(name)) is not None:
                    self._extensions.setdefault(name, (path, _changed_at(path)))
                continue
            with self._lock:
                self._sources.setdefault(name, found)
            todo += found.imported()

    def follows(self, name: str) -> bool:
        """Tell whether a module is one of those that are followed."""
        return name in self._sources

    def built_anew(self) -> tuple[str, ...]:
        """Return the extensions that were imported and have another file by now."""
        known = tuple(self._extensions.items())
        return tuple(name for name, (path, changed) in known if _changed_at(path) != changed)

    def names(self) -> frozenset[str]:
        """Return the modules that are followed."""
        return frozenset(tuple(self._sources))

    def paths(self) -> frozenset[str]:
        """Return the files that are followed."""
        return frozenset(source.path for source in tuple(self._sources.values()))

    def is_newer(self, path: str) -> bool:
        """Tell whether a file has other text than is in force of it, as far as that is known."""
        names = [name for name, source in tuple(self._sources.items()) if source.path == path]
        try:
            return any(not self.uncertain((name,)) and _text_of(path) != self.text_of(name) for name in names)
        except (OSError, SyntaxError, UnicodeDecodeError):
            return True  # which is told where it is read

    def reads(self, path: str, text: bytes) -> bool:
        """Tell whether a text of a file is Python; what was read of it is at hand when that is to be had."""
        try:
            decoded = _decoded(text)
            for name, source in tuple(self._sources.items()):
                if source.path == path:
                    source.ahead = self._read(name, decoded)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
        return True

    def _read(self, name: str, text: str) -> Code:
        """Return other text of a module, read."""
        source = self._sources[name]
        if source.ahead is not None and source.ahead.text == text:
            return source.ahead
        before = self.versions.newest.codes.get(name) or source.read()
        return Code(name, text, package=source.package, path=source.path, before=before)

    def path_of(self, name: str) -> str:
        """Return the file of a module that is followed."""
        return self._sources[name].path

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Change code one at a time: what is built goes by what is in force."""
        with self._turn:
            yield

    def family(self, *names: str) -> frozenset[str]:
        """Return modules with the followed ones that they import, also through each other."""
        found: set[str] = set()
        todo = [*names]
        while todo:
            one = todo.pop()
            if one in found or one not in self._sources:
                continue
            found.add(one)
            todo += self._imported_by(one)
            while "." in one:  # to import a module of a package runs the package first
                one = one.rpartition(".")[0]
                todo.append(one)
        return frozenset(found)

    def text_of(self, name: str) -> str:
        """Return the text of a module that is in force."""
        code = self.versions.newest.codes.get(name)
        return self._sources[name].text if code is None else code.text

    def _imported_by(self, name: str) -> list[str]:
        code = self.versions.newest.codes.get(name)
        return self._sources[name].imported() if code is None else _followed(code.modules)

    def uncertain(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return those of some modules of which nobody knows as what they were imported."""
        known = self.versions.newest.codes
        return tuple(name for name in names if name not in known and not self._sources[name].is_whole)

    def catch_up(self, *names: str) -> None:
        """Follow what modules, and what they import, have imported since: as something ran, or was new."""
        for one in self.family(*names):
            source, now = self._sources[one], time.time()
            self.follow(*self._imported_by(one), since=source.looked)
            source.looked = now

    def edited(self, *names: str) -> dict[str, Code]:
        """Return what is new on disk of modules and all that they import; raises the `SyntaxError` in it."""
        self.catch_up(*names)
        found: dict[str, Code] = {}
        unread: dict[str, Exception] = {}
        todo = self.family(*names)
        while todo:
            new: set[str] = set()
            for one in todo:
                source = self._sources[one]
                try:
                    text = _text_of(source.path)
                except (OSError, SyntaxError, UnicodeDecodeError) as error:
                    unread[one] = error
                    continue
                if text == self.text_of(one) and not self.uncertain((one,)):
                    continue
                before = self.versions.newest.codes.get(one) or source.read()
                if before is source.code and source.is_whole and one in sys.modules:
                    remember(source.path, source.text, vars(sys.modules[one]))  # also if the new is refused
                found[one] = code = self._read(one, text)
                source.ahead = None
                new.update(_followed(code.modules))
            known = set(self._sources)
            self.follow(*new)  # what only the new text imports
            todo = frozenset(set(self._sources) - known)
        self._refuse(names, found, unread)
        if found:
            missing = {
                one: s.read() for one, s in self._sources.items() if one not in self.versions.newest.codes
            }
            self.versions.follow(missing)
        return found

    def _refuse(
        self, names: Iterable[str], found: Mapping[str, Code], unread: Mapping[str, Exception]
    ) -> None:
        """Raise where a file cannot be read that is one of some modules, or that these import by now."""
        todo = [one for one in names if one in self._sources]
        asked = {*todo}
        while todo:
            one = todo.pop()
            if one in unread:
                raise StateError(
                    f"{self._sources[one].path} cannot be read ({type(unread[one]).__name__})",
                    hint="save it again as UTF-8, or take out what imports it; and reload",
                )
            imported = _followed(found[one].modules) if one in found else self._imported_by(one)
            new = {*imported} & self._sources.keys() - asked
            asked |= new
            todo += sorted(new)


def module_of(thing: Any) -> str:
    """Return the name of the module that a factory, or a class, was defined in; empty where it has none."""
    while not isinstance(thing, (type, FunctionType)) and hasattr(thing, "func"):
        thing = thing.func
    if isinstance(thing, MethodType):
        thing = thing.__func__
    name = getattr(thing, "__module__", None)
    return name if isinstance(name, str) else ""


def modules_of(spec: ServiceSpec) -> tuple[str, ...]:
    """Return the modules that the code of a service is from; of a cell, those of which it names something."""
    named = () if spec.reached is None else sorted(spec.reached.modules)
    return tuple(name for name in dict.fromkeys((module_of(spec.callable), *named)) if name != "__main__")


def _followed(names: Iterable[str]) -> list[str]:
    """Return which of these modules are the user's own code, with the packages that are run before them."""
    whole = dict.fromkeys(part for one in names for part in _with_packages(one))
    return [one for one in whole if one in sys.modules and not is_settled(one)]


@lru_cache(maxsize=100)
def _imported(text: str, home: str) -> tuple[str, ...]:
    found: list[str] = []
    try:
        tree = parsed(text)
    except SyntaxError:
        return ()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            whole = node.module or ""
            if node.level:
                parts = home.split(".")
                whole = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [whole])])
            found += [whole, *(f"{whole}.{one.name}" for one in node.names)]
    return tuple(dict.fromkeys(found))


def _with_packages(name: str) -> Iterator[str]:
    """Yield a module, and the packages that are run before it."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def _source(name: str, since: float | None) -> _Source | None:
    """Return the source of a module that can be followed: a file of the user's that was imported.

    One that was imported `since` is that text if the file is older.
    """
    module = sys.modules.get(name)
    path = getattr(module, "__file__", None)
    if name == "__main__" or module is None or not path or not path.endswith(".py") or is_settled(name):
        return None
    path = str(Path(path).absolute())
    now, text = time.time(), _text(path)
    if text is None:
        return None
    if since is None:
        is_whole = _is_whole(module, text, path)
    else:
        is_whole = Path(path).stat().st_mtime < since - _COARSE
    return _Source(name, path, hasattr(module, "__path__"), text, is_whole, now)


def _extension(name: str) -> str | None:
    """Return the file of an extension of the user's."""
    path = getattr(sys.modules.get(name), "__file__", None) or ""
    return path if path.endswith(tuple(EXTENSION_SUFFIXES)) and not is_settled(name) else None


def _changed_at(path: str) -> int | None:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return None


def _text(path: str) -> str | None:
    """Return the text of a file, decoded as Python does; None where it cannot be read just now."""
    try:
        return _text_of(path)
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None


def _text_of(path: str) -> str:
    return _decoded(Path(path).read_bytes())


def _decoded(text: bytes) -> str:
    """Return a text as Python decodes that of a file."""
    encoding, _ = tokenize.detect_encoding(BytesIO(text).readline)
    return TextIOWrapper(BytesIO(text), encoding).read()


def _is_whole(module: ModuleType, text: str, path: str) -> bool:
    """Tell whether a module was imported from this text: all its functions are in it, as they are.

    Where something else than Python compiled it, as pytest does, that cannot be told: it is taken for it.
    """
    if type(getattr(module, "__loader__", None)) is not SourceFileLoader:
        return True
    try:
        there = set(_codes(compile(text, path, "exec", dont_inherit=True)))
    except (SyntaxError, ValueError):
        return False
    own = vars(module).copy()
    return all(code in there for code in _own_codes(own, module.__name__, path))


def _own_codes(names: Mapping[str, Any], module: str, path: str) -> Iterator[CodeType]:
    for value in names.values():
        if isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
        if isinstance(value, FunctionType):
            if value.__code__.co_filename == path:
                yield value.__code__
        elif isinstance(value, type) and vars(value).get("__module__") == module:
            yield from _own_codes(
                {name: one for name, one in vars(value).items() if not isinstance(one, type)}, module, path
            )


def _codes(code: CodeType) -> Iterator[CodeType]:
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield one
            yield from _codes(one)
