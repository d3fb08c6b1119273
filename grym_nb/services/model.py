"""What an author writes: a class with one `@task` method or more.

>>> class Echo(ModelService):
...     @task("text.echo")
...     def echo(self, text: str) -> str:
...         return text
>>> [spec.type for spec in tasks_of(Echo).values()]
['text.echo']
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, overload

from grym_nb.errors import ConfigError, DependencyError, Problem, ValidationError, closest
from grym_nb.render import brief
from grym_nb.services.checks import Checker

__all__ = ["ModelService", "Needs", "TaskSpec", "clashes", "needs_of", "task", "tasks_of", "unfit_hooks"]

_MARK = "__grym_task__"
_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")

#: methods that are called by us, with how many arguments
_HOOKS = {"load": 0, "warm_up": 0, "ping": 0, "unload": 0, "adapt_context": 1}
_Kind = Literal["plain", "async", "generator", "async generator"]


class ModelService:
    """A model and what can be asked of it.

    Keyword arguments of `__init__` are the config, checked when the service is registered. What `load`
    sets on the instance stays resident until `unload`. All hooks are optional; any class with a `@task`
    method makes a service, this one only spells the hooks out.
    """

    #: names of the services this one needs; a trailing ``?`` marks an optional one. While the service
    #: lives, `self.needs.NAME` is the handle (None for an optional one that is not there).
    needs: Any = ()

    #: whether recovery may reload it when it is unhealthy; where it may not, that is only said
    recoverable: bool = True

    def load(self) -> None:
        """Bring the model into memory; runs once, at the first use."""

    def warm_up(self) -> None:
        """Run once after `load`, before the first call is let in."""

    def ping(self) -> None:
        """Raise when something is wrong; cheap, never loads anything."""

    # `adapt_context(self, item)`, where a class has it, returns the content of an item of context in the form
    # that its tasks take; it may be asked of an object that is not loaded.

    def shared(self, key: str, build: Callable[[], _T]) -> _T:
        """Return what `build` makes, once for all services that name the same `key`; for use in `load`.

        It is gone with the last service that has it. Name in the key all that makes a difference, such as
        ``"ckpt-dir:fp16:cuda:0"``, and leave what is shared as it is: the others see every change.
        """
        from grym_nb.services.weights import shared

        return shared(key, build)

    def unload(self) -> None:
        """Release what garbage collection would not (files, processes, caches); also after a failed load."""


class Needs:
    """What `self.needs` is in a living service: the handles of what it needs, by name."""

    def __init__(self, service: str, handles: Mapping[str, Any]) -> None:
        self.__dict__.update(handles)
        self.__dict__["_service"] = service

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise DependencyError(
            f"{self._service} uses self.needs.{name} and does not declare it",
            hint=f'needs = ("{name}",) in the class, or register(..., needs=("{name}",))',
            service=self._service,
        )


@dataclass(frozen=True, slots=True)
class _Mark:
    type: str | None
    replay: bool
    context: Mapping[str, Any]
    batch: str


@dataclass(frozen=True, slots=True, repr=False)
class TaskSpec:
    """One thing a service can do: the method, the task type it answers, and what it accepts."""

    method: str
    type: str
    kind: _Kind
    replay: bool
    takes_context: bool
    context: Mapping[str, Any] = field(hash=False)  # which of it: the filters of a query
    context_at: int | None  # where it can be given by position
    batch: str  # the parameter that can as well be given item by item; empty: none
    batch_at: int | None  # where it can be given by position
    doc: str
    checker: Checker = field(compare=False)

    def lacks_context(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Tell whether it takes a context, and none is given: neither by name nor by position."""
        if not self.takes_context or "context" in kwargs:
            return False
        return self.context_at is None or len(args) <= self.context_at

    @property
    def signature(self) -> str:
        """The method's signature as text, without `self`."""
        return self.checker.signature

    def __repr__(self) -> str:
        return f"<task {self.method}{self.signature}: {self.type}>"


@overload
def task(type: _F) -> _F: ...
@overload
def task(
    type: str | None = None,
    *,
    replay: bool = True,
    context: Mapping[str, Any] | None = None,
    batch: str | None = None,
) -> Callable[[_F], _F]: ...
def task(
    type: str | _F | None = None,
    *,
    replay: bool = True,
    context: Mapping[str, Any] | None = None,
    batch: str | None = None,
) -> _F | Callable[[_F], _F]:
    """Return the method, declared as a task of type `type` (its own name when used bare).

    `replay=False` says that the task has side effects: it is never called again to try new code. `context`
    says which context its `context` parameter gets, as a query would: ``{"type": "tempo", "limit": 3}``.

    `batch` names the parameter that is a list, or tuple, of what could as well be given one at a time; the
    answer is a list, or tuple, with one answer per item, in order. Where all of them are too much for the
    memory, it is called with fewer at a time, and the answers are put together.
    """
    named: object = batch
    if named is not None and not (isinstance(named, str) and named.strip()):
        problem = Problem("batch", brief(named), 'the name of a parameter, such as "clips"')
        raise ConfigError("@task cannot be given a batch so", problems=[problem])
    given: object = context
    if given is not None and not (isinstance(given, Mapping) and all(isinstance(n, str) for n in given)):
        problem = Problem("context", brief(given), 'the filters of a query, such as {"type": "tempo"}')
        raise ConfigError("@task cannot be given context so", problems=[problem])

    # What is asked for at every call is to be the same every time: an iterator would be empty then.
    asked = {n: tuple(v) if isinstance(v, Iterator) else v for n, v in (context or {}).items()}

    def declare(method: _F, type: str | None) -> _F:
        try:
            setattr(method, _MARK, _Mark(type, replay, asked, batch or ""))
        except AttributeError:
            problem = Problem("method", brief(method), "a method")
            raise ConfigError("@task stands above what is no task", problems=[problem]) from None
        return method

    if type is None or isinstance(type, str):
        if type is not None and not type.strip():
            raise ValueError("a task type is a name such as 'audio.loudness'")
        return lambda method: declare(method, type)
    return declare(type, None)


def tasks_of(cls: type) -> dict[str, TaskSpec]:
    """Return the tasks a class declares, by method name, in the order in which they were written.

    A subclass that overrides a task's method without decorating it again keeps the task.
    """
    tasks: dict[str, TaskSpec] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).copy().items():
            mark = _mark_of(value)
            if mark is not None and callable(getattr(cls, name)):  # `name = None` takes a task away
                tasks[name] = _spec(cls, name, mark)
    return tasks


def needs_of(cls: type | None) -> tuple[str, ...]:
    """Return the names of what a class needs; a ConfigError where it says something else."""
    needs = getattr(cls, "needs", ())
    if isinstance(needs, (tuple, list)) and all(isinstance(name, str) for name in needs):
        return tuple(needs)
    raise ConfigError(
        f"{getattr(cls, '__name__', cls)} does not say what it needs",
        problems=[Problem("needs", brief(needs), "a tuple of names")],
    )


def unfit_hooks(cls: type | None, tasks: Mapping[str, TaskSpec]) -> list[Problem]:
    """Return what is wrong with the hooks of a class, and its tasks, as methods: they could only fail."""
    problems = []
    for name, given in _HOOKS.items():
        hook = getattr(cls, name, None)
        if not inspect.isfunction(hook):
            continue
        checker = Checker(hook, method=not isinstance(inspect.getattr_static(cls, name), staticmethod))
        if _kind(inspect.unwrap(hook)) != "plain":
            problems.append(Problem(name, "async, or a generator", "a plain method: nobody awaits it"))
        elif not checker.takes(given):
            expected = f"a method of {given} argument" if given else "a method without arguments"
            problems.append(Problem(name, f"it takes {checker.signature}", expected))
    for name in tasks:
        static = inspect.getattr_static(cls, name)
        if inspect.isfunction(static) and not inspect.signature(static).parameters:
            problems.append(Problem(f"task {name}", "no arguments", f"self first: def {name}(self, ...)"))
    for spec in tasks.values():
        problems += [*_unfit_context(spec), *_unfit_batch(spec)]
    return problems


def _unfit_context(spec: TaskSpec) -> list[Problem]:
    """Return why a task could not be given the context that it asks for."""
    name, told = spec.method, f"def {spec.method}(..., context=None)"
    if spec.takes_context and "context" in spec.checker.missing({}):
        return [Problem(f"task {name}", "a parameter `context` that has to be given", f"a default: {told}")]
    if spec.takes_context and spec.checker.is_unnamed("context"):
        return [Problem(f"task {name}", "a context that has no name", f"one that can be named: {told}")]
    if not spec.context:
        return []
    if not spec.takes_context:
        return [Problem(f"task {name}", "it asks for context, and takes none", f"a parameter for it: {told}")]
    from grym_nb.context.query import wanted_of

    limit = spec.context.get("limit")
    if limit is not None and not (isinstance(limit, int) and not isinstance(limit, bool) and limit >= 0):
        return [Problem(f"task {name}, context limit", brief(limit), "a whole number from 0")]
    try:
        wanted_of(spec.context, also=("order", "limit"))
    except ValidationError as error:
        return [Problem(f"task {name}, context {p.path}", p.found, p.expected) for p in error.problems]
    return []


def _unfit_batch(spec: TaskSpec) -> list[Problem]:
    """Return why a task could not be given its batch in parts, though it declares one."""
    name, names = f"task {spec.method}, batch", spec.checker.names
    if not spec.batch:
        return []
    if spec.batch not in names:
        known = f"a parameter: {', '.join(names) or 'there is none'}.{closest(spec.batch, names)}"
        return [Problem(name, brief(spec.batch), known)]
    if spec.kind in ("generator", "async generator"):
        return [Problem(name, f"a {spec.kind}", "a task that returns a list: one answer per item")]
    if not spec.replay:
        return [Problem(name, "replay=False", "a task that may be called again: parts come after all of it")]
    return []


def clashes(tasks: Mapping[str, TaskSpec]) -> list[Problem]:
    """Return the task types that more than one method declares: a call by type could mean either."""
    methods: dict[str, list[str]] = {}
    for name, spec in tasks.items():
        methods.setdefault(spec.type, []).append(name)
    return [
        Problem(f"task type {type}", " and ".join(names), "one method")
        for type, names in methods.items()
        if len(names) > 1
    ]


def _mark_of(value: Any) -> _Mark | None:
    mark = getattr(value, _MARK, None)
    if mark is None:  # `@staticmethod` and `@classmethod` above `@task` hide it
        mark = getattr(getattr(value, "__func__", None), _MARK, None)
    return mark if isinstance(mark, _Mark) else None


def _spec(cls: type, name: str, mark: _Mark) -> TaskSpec:
    static = inspect.getattr_static(cls, name)
    function = getattr(cls, name)
    checker = Checker(function, method=not isinstance(static, (staticmethod, classmethod)))
    return TaskSpec(
        method=name,
        type=mark.type or name,
        kind=_kind(inspect.unwrap(function)),
        replay=mark.replay,
        takes_context="context" in checker.names,
        context=mark.context,
        context_at=checker.place_of("context"),
        batch=mark.batch,
        batch_at=checker.place_of(mark.batch),
        doc=inspect.getdoc(function) or "",
        checker=checker,
    )


def _kind(function: Callable[..., Any]) -> _Kind:
    if inspect.iscoroutinefunction(function):
        return "async"
    if inspect.isasyncgenfunction(function):
        return "async generator"
    return "generator" if inspect.isgeneratorfunction(function) else "plain"
