"""What was registered: the factory, its config and options, and whether two of them are the same.

Sameness is by content. A class is its functions' bytecode with the values they captured, so a cell that is
run again, or touched without a change, registers the same thing; a number changed in a closure does not.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import logging
import os
import re
import sys
import threading
import types
import typing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, is_dataclass
from enum import Enum
from functools import cached_property, partial
from operator import attrgetter
from typing import Any

from grym_nb.devices import parse_size
from grym_nb.errors import ConfigError, GrymError, LoadFailed, Problem
from grym_nb.render import brief
from grym_nb.services.checks import Checker
from grym_nb.services.frame import priority_of
from grym_nb.services.model import TaskSpec, clashes, needs_of, tasks_of
from grym_nb.services.reads import watches

__all__ = ["ENGINES", "Factory", "ServiceSpec", "code_of"]

Factory = Callable[..., Any] | str

#: where an instance can live
ENGINES = ("inline",)


@dataclass(frozen=True)
class ServiceSpec:
    """One registration, checked. `factory` is a class, a callable, or ``"module:attribute"``."""

    name: str
    factory: Factory
    config: Mapping[str, Any]
    stated_needs: tuple[str, ...] = ()
    memory: int | None = None
    priority: int = 1
    ttl: float | None = None
    engine: str = "inline"
    concurrency: int = 1
    label: str | None = None

    @classmethod
    def of(
        cls,
        name: str,
        factory: Factory,
        *,
        config: Mapping[str, Any] | None,
        needs: tuple[str, ...] | list[str],
        memory: str | int | None,
        priority: str | int,
        ttl: float | None,
        engine: str,
        concurrency: int,
        version: str | None,
    ) -> ServiceSpec:
        """Return the checked spec; everything that is wrong with it is said at once."""
        problems: list[Problem] = []

        def expect(holds: bool, path: str, value: object, expected: str) -> None:
            if not holds:
                problems.append(Problem(path, brief(value), expected))

        def parsed(path: str, parse: Callable[[Any], int], value: Any) -> Any:
            try:
                return parse(value)
            except GrymError as error:
                found = getattr(error, "problems", ()) or [Problem(path, brief(value), error.message)]
                problems.extend(Problem(path, problem.found, problem.expected) for problem in found)
                return None

        expect(isinstance(name, str) and bool(name.strip()), "name", name, "text")
        expect(isinstance(factory, str) or callable(factory), "factory", factory, "a class or callable")
        expect(
            config is None or isinstance(config, Mapping), "config", config, "a mapping of keyword arguments"
        )
        names = isinstance(needs, (tuple, list)) and all(isinstance(need, str) for need in needs)
        expect(names, "needs", needs, "a tuple of names")
        number = isinstance(ttl, (int, float)) and not isinstance(ttl, bool)
        expect(ttl is None or (number and ttl > 0), "ttl", ttl, "seconds above 0, or None")
        expect(version is None or isinstance(version, str), "version", version, "text, or None")
        expect(
            isinstance(concurrency, int) and not isinstance(concurrency, bool) and concurrency >= 1,
            "concurrency",
            concurrency,
            "a whole number from 1",
        )
        expect(engine in ENGINES, "engine", engine, f"one of {', '.join(ENGINES)}; others are not there yet")
        size = None if memory is None else parsed("memory", parse_size, memory)
        rank = parsed("priority", priority_of, priority)
        if callable(factory) and (config is None or isinstance(config, Mapping)):
            problems += cls(name, factory, dict(config or {})).misfits()
        if problems:
            raise ConfigError(f"{name!r} cannot be registered", problems=problems, service=str(name))
        stated = tuple(needs)
        spec = cls(name, factory, dict(config or {}), stated, size, rank, ttl, engine, concurrency, version)
        _ = spec.parts  # told now: what a config holds may be changed in place before the next registration
        return spec

    # -- what the factory makes --------------------------------------------------------------------

    @cached_property
    def callable(self) -> Callable[..., Any]:
        """The factory itself; one given as ``"module:attribute"`` is imported now."""
        if not isinstance(self.factory, str):
            return self.factory
        module, _, attribute = self.factory.partition(":")
        try:
            found = attrgetter(attribute)(importlib.import_module(module))
            return typing.cast("Callable[..., Any]", found)
        except Exception as error:  # whatever that module does when it is imported
            raise LoadFailed(
                f"{self.name} could not be imported from {self.factory!r}",
                cause=f"{type(error).__name__}: {error}",
                service=self.name,
                path=(self.name,),
            ) from None

    @property
    def needs(self) -> tuple[str, ...]:
        """What it needs: as its class declares, and as stated (imports nothing)."""
        if isinstance(self.factory, str) and "callable" not in self.__dict__:
            return self.stated_needs
        return self._needs

    @cached_property
    def _needs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*needs_of(self.made_class), *self.stated_needs)))

    @property
    def made_class(self) -> type | None:
        """The class of what the factory makes, as far as that can be known without calling it."""
        made = self.callable
        while isinstance(made, partial):
            made = made.func
        if isinstance(made, type):
            return made
        try:
            promised = typing.get_type_hints(made).get("return")
        except Exception:  # an annotation that cannot be resolved promises nothing
            promised = None
        return promised if isinstance(promised, type) and tasks_of(promised) else None

    @cached_property
    def tasks(self) -> dict[str, TaskSpec] | None:
        """The tasks by method name; None while only a call of the factory would tell."""
        made = self.made_class
        return None if made is None else tasks_of(made)

    @cached_property
    def checker(self) -> Checker | None:
        """What the factory accepts as config; None when its signature cannot be read."""
        made = self.callable
        try:
            if not isinstance(made, type):
                return Checker(made)
            init: Any = inspect.getattr_static(made, "__init__")
            return Checker(_nothing) if init is object.__init__ else Checker(init, method=True)
        except (TypeError, ValueError):
            return None

    def check(self, verb: str = "registered") -> None:
        """Raise a `ConfigError` when the config does not fit the factory, or the class declares no task."""
        problems = self.misfits()
        if problems:
            raise ConfigError(f"{self.name!r} cannot be {verb}", problems=problems, service=self.name)

    def misfits(self) -> list[Problem]:
        """Return what does not fit between the factory and its config, or makes it no service."""
        checker = self.checker
        problems = list(checker.problems((), self.config)) if checker is not None else []
        problems = [Problem(f"config.{p.path}", p.found, p.expected) for p in problems]
        made = self.callable
        if isinstance(made, type) and not self.tasks:
            problems.append(Problem("factory", f"class {made.__name__}", "at least one method with @task"))
        try:
            needs_of(self.made_class)
        except ConfigError as error:
            problems += error.problems
        return problems + clashes(self.tasks or {})

    @property
    def full_config(self) -> Mapping[str, Any]:
        """The config in force: the factory's defaults with what was given (imports nothing)."""
        if isinstance(self.factory, str) and "callable" not in self.__dict__:
            return self.config
        return self._full_config

    @cached_property
    def _full_config(self) -> dict[str, Any]:
        return {**(self.checker.defaults() if self.checker is not None else {}), **self.config}

    # -- sameness ----------------------------------------------------------------------------------

    @cached_property
    def parts(self) -> dict[str, Any]:
        """What makes this registration itself, by part; two with equal parts are the same."""
        return {
            "code": self.factory if isinstance(self.factory, str) else code_of(self.factory),
            "config": tuple(sorted((key, code_of(value)) for key, value in self.config.items())),
            "needs": self.stated_needs,
            "engine": self.engine,
            "concurrency": self.concurrency,
            "memory": self.memory,
            "priority": self.priority,
            "ttl": self.ttl,
            "version": self.label,
        }

    def differs(self, other: ServiceSpec) -> tuple[str, ...]:
        """Return the names of the parts in which `other` differs."""
        theirs = other.parts
        return tuple(part for part, value in self.parts.items() if theirs[part] != value)


def _nothing() -> None:
    """What a class without its own `__init__` accepts."""


# -- the content of code and values ----------------------------------------------------------------


_SKIP = {"__dict__", "__weakref__", "__module__", "__qualname__", "__firstlineno__", "__static_attributes__"}
_SKIP |= {"__annotations_cache__", "_abc_impl"}
_PLAIN: Any = (str, bytes, int, float, complex, type(None), type(...))
_SETTLED = frozenset(sys.stdlib_module_names) - {"__main__"} | {"grym_nb"}
#: instances of these hold nothing in which two of them could differ
_EMPTY = (object, type(threading.Lock()), type(threading.RLock()))
_DEEPEST = 80


def code_of(made: Any, *, within: object = None) -> str:
    """Return a hash of what a value is: of code its behaviour, with constants and captured values.

    `within` is what the hash is to be a part of: where the value leads back to it, its content does not
    count.
    """
    return _hash([_told(made, {} if within is None else {id(within): 0}, {})])


def _hash(parts: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part.encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return digest.hexdigest()


def _told(value: Any, above: dict[int, int], known: dict[int, tuple[Any, str]]) -> str:
    """Return what stands for a value: itself when it is plain, else a hash of its parts.

    `above` has what this value is a part of, so that circles end; `known` what was told already, and keeps
    it alive, so that no two things share an identity.
    """
    # By its type: a stranger may raise when it is asked for its class.
    made = type(value)
    for base in _PLAIN:
        if issubclass(made, base) and not issubclass(made, Enum):
            return f"{made.__name__}:{base.__repr__(value)}"
    key = id(value)
    if key in known:
        return known[key][1]
    if key in above:
        return f"circle:{above[key]}"
    if len(above) > _DEEPEST:
        return f"object:{key}"
    above[key] = len(above)
    try:
        kind, found = _parts(value)
        parts = list(found)
    except Exception:  # a stranger that does not let itself be read
        kind, parts = "object", [key]
    told = [_told(part, above, known) for part in parts]
    if issubclass(made, (Set, Mapping)):
        told.sort()
    del above[key]
    known[key] = value, _hash([kind, *told])
    return known[key][1]


def _parts(value: Any) -> tuple[str, Iterable[Any]]:
    """Return the kind of a value, and what two of that kind have to share to be the same."""
    kind = type(value)
    named = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, types.CodeType):
        shape = value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount, value.co_flags
        names = value.co_names, value.co_varnames
        return "code", (*shape, *names, value.co_code, value.co_exceptiontable, *value.co_consts)
    if isinstance(value, types.FunctionType):
        return "function", _parts_of_function(value)
    if isinstance(value, type):
        return "class", _parts_of_class(value)
    if isinstance(value, types.MethodType):
        return "method", (value.__func__, value.__self__)
    if isinstance(value, (staticmethod, classmethod)):
        return named, (value.__func__,)
    if isinstance(value, property):
        return named, (value.fget, value.fset, value.fdel)
    if isinstance(value, cached_property):
        return named, (value.func,)
    if isinstance(value, partial):
        return named, (value.func, value.args, value.keywords)
    if isinstance(value, types.ModuleType):
        return "module", (value.__name__,)
    if typing.get_origin(value) is not None:
        return "type", (typing.get_origin(value), *typing.get_args(value))
    return named, _parts_of_value(value)


def _parts_of_function(function: types.FunctionType) -> Iterator[Any]:
    yield from (function.__code__, function.__defaults__, function.__kwdefaults__)
    try:
        yield function.__annotations__  # types and checks are declared there
    except Exception:  # evaluated only now, and it names what is not there
        yield "unknown"
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a cell that is still empty
            yield "empty"
    yield vars(function)


def _parts_of_class(cls: type) -> Iterator[Any]:
    yield from (cls.__module__, cls.__qualname__)
    if not _settled(cls.__module__):
        yield cls.__bases__
        # A copy: another thread may be setting attributes of the class.
        its = vars(cls).copy().items()
        yield [(name, value) for name, value in its if name not in _SKIP and not watches(value)]


def _settled(module: str) -> bool:
    """Tell whether the classes of a module are known by name: it does not change under a kernel."""
    if module == "__main__":
        return False  # whatever file it came from
    if module.partition(".")[0] in _SETTLED:
        return True
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file


def _parts_of_value(value: Any) -> Iterable[Any]:
    kind = type(value)
    if isinstance(value, Mapping):
        return value.items()
    if isinstance(value, (list, tuple, Set, deque)):
        return value
    if isinstance(value, Enum):
        return value.name, value.value
    if isinstance(value, os.PathLike):
        return (os.fspath(value),)
    if isinstance(value, re.Pattern):
        return value.pattern, value.flags
    if isinstance(value, logging.Logger):
        return (value.name,)
    if kind in _EMPTY:
        return ()
    if kind.__module__.split(".")[0] == "grym_nb" and not is_dataclass(value):
        return (getattr(value, "hash", id(value)),)  # a clip, or a handle
    if (array := _array(value)) is not None:
        content = array.tolist() if array.dtype.hasobject else hashlib.blake2b(array.tobytes()).hexdigest()
        return str(array.dtype), array.shape, content, kind.__module__ == "numpy" or repr(value)
    text = repr(value)
    told = () if " at 0x" in text or "..." in text else (text,)
    state = _state(value)
    if state is not None:
        # A repr may leave out what matters, or tell too much: it only counts where there is nothing else.
        return kind if kind.__module__ == "__main__" else "", state or told
    # Where nothing tells the content, another object counts as another value.
    return told or (id(value),)


def _array(value: Any) -> Any:
    if not hasattr(type(value), "__array__"):
        return None
    try:
        return value.__array__()
    except Exception:  # a tensor on a device, or with gradients
        return None


def _state(value: Any) -> dict[str, Any] | None:
    """Return the attributes of an object; None when it is not made of attributes."""
    state = getattr(value, "__dict__", None)
    found = dict(state) if isinstance(state, dict) else None
    for cls in type(value).__mro__:
        if "__slots__" in vars(cls):
            for name, slot in vars(cls).copy().items():
                if isinstance(slot, types.MemberDescriptorType):
                    found = found or {}
                    found[name] = getattr(value, name, None)
    return found
