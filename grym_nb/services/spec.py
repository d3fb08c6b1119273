"""What was registered: the factory, its config and options, and whether two of them are the same.

Sameness is by content. A class is its functions' bytecode with the values they captured, so a cell that is
run again, or touched without a change, registers the same thing; a number changed in a closure does not.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from grym_nb.devices import parse_size
from grym_nb.errors import ConfigError, GrymError, LoadFailed, Problem
from grym_nb.render import brief
from grym_nb.services.checks import Checker
from grym_nb.services.frame import priority_of
from grym_nb.services.model import TaskSpec, tasks_of

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
    needs: tuple[str, ...] = ()
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
                problems.extend(
                    getattr(error, "problems", ()) or [Problem(path, brief(value), error.message)]
                )
                return None

        expect(isinstance(name, str) and bool(name.strip()), "name", name, "text")
        expect(isinstance(factory, str) or callable(factory), "factory", factory, "a class or callable")
        expect(
            config is None or isinstance(config, Mapping), "config", config, "a mapping of keyword arguments"
        )
        expect(not isinstance(needs, str), "needs", needs, "a tuple of names")
        expect(
            ttl is None or (isinstance(ttl, (int, float)) and ttl > 0), "ttl", ttl, "seconds above 0, or None"
        )
        expect(
            isinstance(concurrency, int) and not isinstance(concurrency, bool) and concurrency >= 1,
            "concurrency",
            concurrency,
            "a whole number from 1",
        )
        expect(engine in ENGINES, "engine", engine, f"one of {', '.join(ENGINES)}; others are not there yet")
        size = None if memory is None else parsed("memory", parse_size, memory)
        rank = parsed("priority", priority_of, priority)
        if problems:
            raise ConfigError(f"{name!r} cannot be registered", problems=problems, service=str(name))
        declared = getattr(factory, "needs", ()) if isinstance(factory, type) else ()
        all_needs = tuple(dict.fromkeys((*declared, *needs)))
        spec = cls(
            name, factory, dict(config or {}), all_needs, size, rank, ttl, engine, concurrency, version
        )
        if not isinstance(factory, str):
            spec.check()
        return spec

    # -- what the factory makes --------------------------------------------------------------------

    @cached_property
    def callable(self) -> Callable[..., Any]:
        """The factory itself; one given as ``"module:attribute"`` is imported now."""
        if not isinstance(self.factory, str):
            return self.factory
        module, _, attribute = self.factory.partition(":")
        try:
            return typing.cast("Callable[..., Any]", getattr(importlib.import_module(module), attribute))
        except (ImportError, AttributeError, ValueError) as error:
            raise LoadFailed(
                f"{self.name} could not be imported from {self.factory!r}",
                cause=f"{type(error).__name__}: {error}",
                service=self.name,
                path=(self.name,),
            ) from None

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

    def check(self) -> None:
        """Raise a `ConfigError` when the config does not fit the factory, or the class declares no task."""
        checker = self.checker
        problems = list(checker.problems((), self.config)) if checker is not None else []
        problems = [Problem(f"config.{p.path}", p.found, p.expected) for p in problems]
        made = self.callable
        if isinstance(made, type) and not self.tasks:
            problems.append(Problem("factory", f"class {made.__name__}", "at least one method with @task"))
        if problems:
            raise ConfigError(f"{self.name!r} cannot be registered", problems=problems, service=self.name)

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
            "config": tuple(sorted((key, _content(value)) for key, value in self.config.items())),
            "needs": self.needs,
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


def code_of(made: Any) -> str:
    """Return a hash of a function's or class's behaviour: bytecode, constants and captured values."""
    digest = hashlib.blake2b(digest_size=16)
    for part in _walk(made, set()):
        digest.update(part.encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return digest.hexdigest()


def _content(value: Any) -> str:
    return code_of(value)


_SKIP = {"__dict__", "__weakref__", "__module__", "__qualname__", "__firstlineno__", "__static_attributes__"}
_PLAIN = (str, bytes, int, float, complex, bool, type(None), type(...))


def _walk(value: Any, seen: set[int]) -> Iterator[str]:
    if isinstance(value, _PLAIN):
        yield f"{type(value).__name__}:{value!r}"
        return
    if id(value) in seen:
        yield "again"
        return
    seen.add(id(value))
    if isinstance(value, types.CodeType):
        yield f"code:{value.co_code.hex()}:{value.co_names}:{value.co_varnames}:{value.co_flags}"
        for const in value.co_consts:
            yield from _walk(const, seen)
    elif isinstance(value, types.FunctionType):
        yield from _walk_function(value, seen)
    elif isinstance(value, type):
        yield from _walk_class(value, seen)
    elif isinstance(value, types.MethodType):
        yield from _walk(value.__func__, seen)
        yield from _walk(value.__self__, seen)
    elif isinstance(value, (staticmethod, classmethod)):
        yield type(value).__name__
        yield from _walk(value.__func__, seen)
    elif isinstance(value, property):
        for part in (value.fget, value.fset, value.fdel):
            yield from _walk(part, seen)
    elif isinstance(value, partial):
        yield "partial"
        for inner in (value.func, value.args, value.keywords):
            yield from _walk(inner, seen)
    elif isinstance(value, types.ModuleType):
        yield f"module:{value.__name__}"
    else:
        yield from _walk_value(value, seen)


def _walk_function(function: types.FunctionType, seen: set[int]) -> Iterator[str]:
    yield "function"
    yield from _walk(function.__code__, seen)
    yield from _walk(function.__defaults__, seen)
    yield from _walk(function.__kwdefaults__, seen)
    for cell in function.__closure__ or ():
        try:
            yield from _walk(cell.cell_contents, seen)
        except ValueError:  # a cell that is still empty
            yield "empty"
    yield from _walk(vars(function), seen)


def _walk_class(cls: type, seen: set[int]) -> Iterator[str]:
    yield f"class:{cls.__module__}.{cls.__qualname__}"
    if cls.__module__.split(".")[0] in ("builtins", "grym_nb", "typing", "abc", "collections"):
        return
    for base in cls.__bases__:
        yield from _walk(base, seen)
    for name, value in vars(cls).items():
        if name not in _SKIP:
            yield name
            yield from _walk(value, seen)


def _walk_value(value: Any, seen: set[int]) -> Iterator[str]:
    kind = type(value)
    yield f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _walk(key, seen)
            yield from _walk(inner, seen)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _walk(inner, seen)
    elif isinstance(value, (set, frozenset)):
        yield from sorted(part for inner in value for part in _walk(inner, seen))
    elif kind.__module__ == "numpy" and hasattr(value, "tobytes"):
        yield f"{value.dtype}{value.shape}{hashlib.blake2b(value.tobytes()).hexdigest()}"
    elif getattr(kind, "__repr__", None) is not object.__repr__ and " at 0x" not in (text := repr(value)):
        yield text
    elif isinstance(getattr(value, "__dict__", None), dict) and not callable(value):
        yield from _walk(value.__dict__, seen)
    else:
        # Nothing tells its content: another object counts as another value.
        yield f"object:{id(value)}"
