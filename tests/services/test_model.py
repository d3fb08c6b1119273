"""What `@task` declares, on every kind of method and through every kind of inheritance."""

from __future__ import annotations

import functools
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import make_dataclass
from typing import Annotated, Any

import pytest

from grym_nb.errors import ConfigError
from grym_nb.services import ModelService, ServiceRegistry, task, within
from grym_nb.services.model import TaskSpec, tasks_of, unfit_hooks


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator as people write it, with `functools.wraps`."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def careless(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator as people also write it, without."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class Kinds(ModelService):
    @task
    def plain(self, x: int) -> int:
        """One more.

        And a second paragraph.
        """
        return x + 1

    @task("audio.wait", replay=False)
    async def wait(self, x: int) -> int:
        return x + 1

    @task("audio.parts")
    def parts(self, n: int) -> Iterator[int]:
        yield from range(n)

    @task
    async def stream(self, n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    def helper(self) -> None: ...


def told(cls: type) -> list[tuple[str, str, str]]:
    """Return (method, type, kind) of every task of a class."""
    return [(spec.method, spec.type, spec.kind) for spec in tasks_of(cls).values()]


def wrong(spec: TaskSpec, *args: Any, **kwargs: Any) -> list[str]:
    """Return what is wrong with these arguments, in the task's own words."""
    return [str(problem) for problem in spec.checker.problems(args, kwargs)]


def test_tasks_come_in_the_order_in_which_they_were_written_with_type_and_kind() -> None:
    """A bare `@task` takes its type from the method's name; what is not decorated is no task."""
    assert told(Kinds) == [
        ("plain", "plain", "plain"),
        ("wait", "audio.wait", "async"),
        ("parts", "audio.parts", "generator"),
        ("stream", "stream", "async generator"),
    ]


def test_a_spec_says_what_the_method_is() -> None:
    """All of it: compared as a whole, the checker left out."""
    spec = tasks_of(Kinds)["wait"]
    assert (spec.method, spec.type, spec.kind, spec.replay) == ("wait", "audio.wait", "async", False)
    assert (spec.takes_context, spec.doc, spec.signature) == (False, "", "(x: int) -> int")
    assert tasks_of(Kinds)["plain"].doc == "One more.\n\nAnd a second paragraph."
    assert tasks_of(Kinds) == tasks_of(Kinds)


def test_a_decorated_method_is_still_a_plain_method() -> None:
    """`@task` returns the very function: it is called, tested and subclassed as ever."""

    def method(self: Any) -> None: ...

    assert task(method) is method
    assert task("a.b")(method) is method
    assert Kinds().plain(1) == 2


@pytest.mark.parametrize("type", ["", "  "])
def test_a_type_without_a_name_is_refused(type: str) -> None:
    """At the decorator, where the author looks."""
    with pytest.raises(ValueError, match="a task type is a name"):
        task(type)


class Base(ModelService):
    @task("audio.first")
    def first(self, x: int) -> int:
        return x

    @task("audio.second")
    def second(self, x: int) -> int:
        return x


def test_an_override_without_the_decorator_keeps_the_task_with_its_own_signature() -> None:
    """The type is inherited; the arguments, the kind and the words are the new method's."""

    class Child(Base):
        async def second(self, x: str, *, loud: bool = False) -> str:  # type: ignore[override]
            """Louder."""
            return x

        @task
        def third(self) -> None: ...

    assert told(Child) == [
        ("first", "audio.first", "plain"),
        ("second", "audio.second", "async"),
        ("third", "third", "plain"),
    ]
    second = tasks_of(Child)["second"]
    assert (second.doc, wrong(second, "x", loud=True)) == ("Louder.", [])
    assert wrong(second, 3) == ["x: found 3, expected text"]
    assert wrong(tasks_of(Base)["second"], 3) == []


def test_an_override_with_the_decorator_has_its_own_type_and_replay() -> None:
    """And keeps the place of the method that it overrides."""

    class Child(Base):
        @task("speech.first", replay=False)
        def first(self, x: int) -> int:
            return x

    assert told(Child) == [("first", "speech.first", "plain"), ("second", "audio.second", "plain")]
    assert [spec.replay for spec in tasks_of(Child).values()] == [False, True]


def test_several_bases_bring_their_tasks_as_python_looks_them_up() -> None:
    """The diamond: each task once, and the one that a call would reach."""

    class Left(Base):
        @task("left.second")
        def second(self, x: int) -> int:
            return -x

    class Right(Base):
        @task("right.second")
        def second(self, x: int) -> int:
            return +x

        @task
        def only(self) -> None: ...

    class Both(Left, Right): ...

    assert {m: (t, k) for m, t, k in told(Both)} == {
        "first": ("audio.first", "plain"),
        "second": ("left.second", "plain"),
        "only": ("only", "plain"),
    }


def test_a_task_that_a_subclass_sets_to_none_is_gone() -> None:
    """As Python does it with `__hash__`: nothing is left to call."""

    class Fewer(Base):
        second = None  # type: ignore[assignment]

    assert told(Fewer) == [("first", "audio.first", "plain")]


def test_static_and_class_methods_are_tasks_with_the_decorators_in_either_order(
    registry: ServiceRegistry,
) -> None:
    """Neither order loses the task, and no argument is taken for an instance."""

    class Odd(ModelService):
        scale = 10

        @task
        @staticmethod
        def outside(x: int) -> int:
            return x + 1

        @staticmethod
        @task
        def inside(x: int) -> int:
            return x + 2

        @task("c.outside")
        @classmethod
        def c_outside(cls, x: int) -> int:
            return x * cls.scale

        @classmethod
        @task("c.inside")
        def c_inside(cls, x: int) -> int:
            return x * cls.scale + 1

    assert [(m, t) for m, t, _ in told(Odd)] == [
        ("outside", "outside"),
        ("inside", "inside"),
        ("c_outside", "c.outside"),
        ("c_inside", "c.inside"),
    ]
    assert all(spec.checker.names == ("x",) for spec in tasks_of(Odd).values())
    odd = registry.register("odd", Odd)
    assert [odd.run(name, 4) for name in ("outside", "inside", "c.outside", "c.inside")] == [5, 6, 40, 41]


@pytest.mark.parametrize(
    "body, told",
    [
        ("async def load(self): ...", "load: found async, or a generator, expected a plain method"),
        ("def ping(self): yield", "ping: found async, or a generator"),
        ("def load(self, path): ...", "load: found it takes (path), expected a method without arguments"),
        ("@task\n    def g(): ...", "task g: found no arguments, expected self first"),
    ],
)
def test_what_could_only_fail_when_it_is_called_is_refused(
    registry: ServiceRegistry, body: str, told: str
) -> None:
    """At registration, in words, and not by a warning that nobody awaited it."""
    space: dict[str, Any] = {"ModelService": ModelService, "task": task}
    exec(f"class M(ModelService):\n    {body}\n    @task\n    def f(self): ...", space)
    with pytest.raises(ConfigError, match=re.escape(told)):
        registry.register("m", space["M"])


def test_task_with_empty_parentheses_is_the_bare_one(registry: ServiceRegistry) -> None:
    """Its type is its name."""

    class M(ModelService):
        @task()
        def f(self) -> int:
            return 1

    assert registry.register("m", M).run("f") == 1


def test_a_decorator_that_wraps_shows_the_method_beneath_it(registry: ServiceRegistry) -> None:
    """Signature, kind and checks are those of the author's own function, whichever is outermost."""

    class Wrapped(ModelService):
        @task
        @logged
        def above(self, x: Annotated[float, within(0, 1)]) -> float:
            return x

        @logged
        @task
        def below(self, x: Annotated[float, within(0, 1)]) -> float:
            return x

        @task
        @logged
        async def later(self, x: float) -> float:
            return x

        @task
        @logged
        def parts(self, n: int) -> Iterator[int]:
            yield from range(n)

    assert [(m, k) for m, _, k in told(Wrapped)] == [
        ("above", "plain"),
        ("below", "plain"),
        ("later", "async"),
        ("parts", "generator"),
    ]
    for name in ("above", "below"):
        assert wrong(tasks_of(Wrapped)[name], 2.0) == ["x: found 2.0, expected a number from 0 to 1"]
    wrapped = registry.register("wrapped", Wrapped)
    assert (wrapped.above(0.5), wrapped.below(0.5), wrapped.later(0.5)) == (0.5, 0.5, 0.5)
    assert list(wrapped.parts(3)) == [0, 1, 2]


def test_a_decorator_that_hides_the_signature_lets_every_argument_through(
    registry: ServiceRegistry,
) -> None:
    """`(*args, **kwargs)` has no `self` to leave out."""

    class Hidden(ModelService):
        @task
        @careless
        def scaled(self, x: int, by: int = 2) -> int:
            return x * by

    spec = tasks_of(Hidden)["scaled"]
    assert (wrong(spec), wrong(spec, 3, by=4), wrong(spec, 1, 2, 3)) == ([], [], [])
    hidden = registry.register("hidden", Hidden)
    assert (hidden.scaled(3), hidden.scaled(3, 4), hidden.scaled(x=3, by=5)) == (6, 12, 15)


def test_a_decorator_that_collects_a_generator_gives_what_it_collected(registry: ServiceRegistry) -> None:
    """The wrapper says that it is a generator, and it is none: what it returns can be read all the same."""

    def collected(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return list(function(*args, **kwargs))

        return wrapper

    class Collects(ModelService):
        @task
        @collected
        def parts(self, n: int) -> Iterator[int]:
            yield from range(n)

    collects = registry.register("collects", Collects)
    assert collects.submit("parts", 3).result(10.0) == [0, 1, 2]
    assert list(collects.parts(3)) == [0, 1, 2]
    assert not collects.status().running


def test_a_parameter_called_context_is_noticed_wherever_it_stands() -> None:
    """By keyword or by position; `**kwargs` does not ask for it."""

    class Contexts(ModelService):
        @task
        def keyword(self, clip: Any, *, context: Any = None) -> None: ...

        @task
        def position(self, clip: Any, context: Any = None) -> None: ...

        @task
        @staticmethod
        def static(context: Any = None) -> None: ...

        @task(context={"tags": iter(["a"])})
        def starred(self, *xs: Any, context: Any = None) -> None: ...

        @task
        def anything(self, **kwargs: Any) -> None: ...

        @task
        def none(self, contexts: Any) -> None: ...

    asks = make_dataclass("Asks", [], namespace={"look": task(context={"type": "a"})(lambda self, x: None)})
    [problem] = unfit_hooks(asks, tasks_of(asks))
    assert (problem.path, problem.found) == ("task look", "it asks for context, and takes none")
    wrong = {"typ": "tempo", "limit": 2}
    asks = make_dataclass(
        "Asks", [], namespace={"look": task(context=wrong)(lambda self, context=None: None)}
    )
    [problem] = unfit_hooks(asks, tasks_of(asks))
    assert problem.path == "task look, context typ" and "Did you mean 'type'?" in problem.expected
    for wrong, path in (({"limit": "3"}, "limit"), ({"max_bytes": 3}, "max_bytes")):
        asks = make_dataclass(
            "Asks", [], namespace={"look": task(context=wrong)(lambda self, context=None: None)}
        )
        [problem] = unfit_hooks(asks, tasks_of(asks))
        assert problem.path == f"task look, context {path}"
    with pytest.raises(ConfigError, match="cannot be given context so"):
        task(context={1: 3})  # type: ignore[dict-item]
    unnamed = make_dataclass("Unnamed", [], namespace={"look": task(lambda self, context=None, /: None)})
    [problem] = unfit_hooks(unnamed, tasks_of(unnamed))
    assert problem.found == "a context that has no name"
    has_to = make_dataclass("HasTo", [], namespace={"look": task(lambda self, context: None)})
    [problem] = unfit_hooks(has_to, tasks_of(has_to))
    assert problem.expected == "a default: def look(..., context=None)"
    with pytest.raises(ConfigError, match="cannot be given context so"):
        task(context="tempo")  # type: ignore[call-overload]
    assert {name: spec.takes_context for name, spec in tasks_of(Contexts).items()} == {
        "keyword": True,
        "position": True,
        "static": True,
        "starred": True,
        "anything": False,
        "none": False,
    }


def test_a_context_by_name_only_is_lacked_whatever_is_given_by_position() -> None:
    class Starred(ModelService):
        @task(context={"tags": iter(["a"])})
        def starred(self, *xs: Any, context: Any = None) -> None: ...

        @task
        def second(self, clip: Any, context: Any = None) -> None: ...

    specs = tasks_of(Starred)
    assert specs["starred"].lacks_context((1, 2, 3), {}) and specs["starred"].context == {"tags": ("a",)}
    assert not specs["starred"].lacks_context((1,), {"context": []})
    assert specs["second"].lacks_context((1,), {}) and not specs["second"].lacks_context((1, []), {})


def test_a_class_that_knows_nothing_of_us_makes_a_service_too(registry: ServiceRegistry) -> None:
    """`ModelService` only spells the hooks out."""

    class Bare:
        @task
        def twice(self, x: int) -> int:
            return 2 * x

    bare = registry.register("bare", Bare)
    assert (bare.twice(4), bare.ping().ok, bare.unload().state) == (8, True, "registered")


def test_class_attributes_of_any_kind_are_not_taken_for_tasks() -> None:
    """Not even those that answer to every name."""

    class Yes:
        def __getattr__(self, name: str) -> str:
            return "yes"

    class Weird(ModelService):
        yes = Yes()
        number = 3

        @property
        def prop(self) -> int:
            return 1

        @task
        def real(self) -> None: ...

    assert told(Weird) == [("real", "real", "plain")]
