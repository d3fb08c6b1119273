"""What was registered: the factory, its config and options; whether two of them are the same, by content."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from grym_nb.errors import ConfigError, GrymError, LoadFailed, Problem
from grym_nb.hardening.resources import budgets_of
from grym_nb.priority import priority_of
from grym_nb.render import brief
from grym_nb.services.checks import Checker
from grym_nb.services.content import code_of
from grym_nb.services.model import TaskSpec, clashes, needs_of, tasks_of, unfit_hooks
from grym_nb.services.policy import CallPolicy, content_of, layers_of, parsed
from grym_nb.services.reload.reached import Reached, reached_by
from grym_nb.settings import Settings
from grym_nb.sizes import Sizes, large_size

if TYPE_CHECKING:
    from grym_nb.services.reload.names import Name
    from grym_nb.services.reload.versions import Version

__all__ = ["ENGINES", "Factory", "ServiceSpec"]

Factory = Callable[..., Any] | str

#: where an instance can live
ENGINES = ("inline",)
_MOST_AT_A_TIME = 1000  # calls, each with a thread


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
    said: Mapping[str, Any] = field(default_factory=dict)  # of the policy of its calls
    budget: Mapping[str, int] = field(default_factory=dict)  # by device, or "total": what it may take
    reached: Reached | None = None  # what code from a cell named as it was registered
    #: the modules of before that code from a cell goes on to see; None where it sees the newest
    world: Version | None = None
    names: tuple[Name, ...] = ()  # of the notebook, that stood for something else before it came in force

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
        said: Mapping[str, Any] | None = None,
        budget: Sizes = None,
    ) -> ServiceSpec:
        """Return the checked spec; everything that is wrong with it is said at once."""
        problems: list[Problem] = []

        def expect(holds: bool, path: str, value: object, expected: str) -> None:
            if not holds:
                problems.append(Problem(path, brief(value), expected))

        def read(path: str, parse: Callable[[Any], Any], value: Any) -> Any:
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
            type(concurrency) is int and 1 <= concurrency <= _MOST_AT_A_TIME,
            "concurrency",
            concurrency,
            f"a whole number from 1 to {_MOST_AT_A_TIME}",
        )
        expect(engine in ENGINES, "engine", engine, f"one of {', '.join(ENGINES)}; others are not there yet")
        size = None if memory is None else read("memory", large_size, memory)
        limits = read("budget", budgets_of, budget) or {}
        rank = read("priority", priority_of, priority)
        guards, unfit = parsed(said or {})
        problems += unfit
        if callable(factory) and (config is None or isinstance(config, Mapping)):
            problems += cls(name, factory, dict(config or {})).misfits()
        if problems:
            raise ConfigError(f"{name!r} cannot be registered", problems=problems, service=str(name))
        stated = tuple(needs)
        options = (size, rank, ttl, engine, concurrency, version, guards, limits)
        spec = cls(name, factory, dict(config or {}), stated, *options)
        if not isinstance(factory, str):
            spec = replace(spec, reached=reached_by(factory, spec.made_class))
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
    def adapter(self) -> Callable[[Any], Any] | None:
        """Its `adapt_context` while it is not loaded: of its class, or of an object that is made for that."""
        made = self.made_class
        if made is None or not hasattr(made, "adapt_context"):
            return None
        own: Callable[[Any], Any]
        if not inspect.isfunction(inspect.getattr_static(made, "adapt_context")):
            own = made.adapt_context  # a static or class method
            return own
        try:
            own = self.callable(**self.config).adapt_context
        except Exception as error:
            told = f"{self.name} cannot be asked how it adapts: {type(error).__name__}: {error}"
            keep = f"load it first, or let {made.__name__}.__init__ only keep its config"
            raise ConfigError(told, hint=keep) from None
        return own

    @property
    def recoverable(self) -> bool:
        """Whether its class lets it be mended when it is unhealthy (imports nothing)."""
        if isinstance(self.factory, str) and "callable" not in self.__dict__:
            return True  # nothing of it was ever there
        return bool(getattr(self.made_class, "recoverable", True))

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
        tasks = self.tasks or {}
        return problems + unfit_hooks(self.made_class, tasks) + clashes(tasks)

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
            # Of a cell: what calls may have changed in place is looked at in `reached`, by identity.
            "code": self.factory
            if isinstance(self.factory, str)
            else code_of(self.factory, data=self.reached is None),
            "config": tuple(sorted((key, code_of(value)) for key, value in self.config.items())),
            "needs": self.stated_needs,
            "engine": self.engine,
            "concurrency": self.concurrency,
            "memory": self.memory,
            "budget": tuple(sorted(self.budget.items())),
            "priority": self.priority,
            "ttl": self.ttl,
            "version": self.label,
            "policy": tuple(sorted((name, content_of(value)) for name, value in self.said.items())),
        }

    def with_code_of(self, other: ServiceSpec) -> ServiceSpec:
        """Return this registration with the code of another one, and the config that goes with it."""
        parts = ("factory", "config", "label", "reached", "world", "names")
        its = {name: getattr(other, name) for name in parts}
        spec = replace(self, **its)
        spec.__dict__["callable"] = other.callable  # one that is named would be the newest of that name
        of_code = {name: other.parts[name] for name in ("code", "config", "version")}
        spec.__dict__["parts"] = {**self.parts, **of_code}  # to tell what code is takes its time
        return spec

    def policy(self, settings: Settings) -> CallPolicy:
        """Return how its calls are guarded: as it was registered, and before that as the settings say."""
        layers = layers_of(self.name, settings.policy, settings.policies)
        return CallPolicy.of(*layers, ("register", self.said))

    def differs(self, other: ServiceSpec) -> tuple[str, ...]:
        """Return the names of the parts in which `other` differs; code from a cell also by what it names."""
        theirs = other.parts
        found = tuple(part for part, value in self.parts.items() if theirs[part] != value)
        if self.reached is None or other.reached is None:
            return found
        made_anew = self.factory is not other.factory
        if not made_anew and self.needs == other.needs:  # what it has in itself by now, calls have set
            found = tuple(part for part in found if part != "code")
        if "code" in found:
            return found
        return ("code", *found) if self.reached.differs(other.reached, made_anew=made_anew) else found

    def keep_world(self, world: Version) -> None:
        """Have its code go on with modules as they are; those that it has kept already stay."""
        if self.world is None:
            object.__setattr__(self, "world", world)

    def keep_names(self, names: tuple[Name, ...]) -> None:
        """Note which names of the notebook stood for something else before it came in force."""
        object.__setattr__(self, "names", names)

    def note(self, again: ServiceSpec) -> None:
        """Have what is the same come from a later registration: what it names was bound anew by that."""
        self.__dict__["reached"] = again.reached


def _nothing() -> None:
    """What a class without its own `__init__` accepts."""
