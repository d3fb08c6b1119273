"""When two registrations are the same: by content, however often a cell is run; and what is refused."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from grym_nb.errors import ConfigError, LoadFailed
from grym_nb.services import ModelService, ServiceRegistry, task
from grym_nb.services.spec import ServiceSpec


def spec(factory: Any = None, **options: Any) -> ServiceSpec:
    """Return a checked spec as `register` makes it."""
    stated: dict[str, Any] = {
        "config": None, "needs": (), "memory": None, "priority": "normal", "ttl": None,
        "engine": "inline", "concurrency": 1, "version": None,
    }  # fmt: skip
    return ServiceSpec.of(options.pop("name", "net"), factory or Net, **stated | options)


class Net(ModelService):
    """A service with all kinds of config."""

    def __init__(self, *, size: int = 3, table: Any = None, anything: Any = None) -> None:
        self.size = size

    @task("net.run")
    def run(self, x: Any) -> Any:
        return x


# -- two registrations -----------------------------------------------------------------------------


def test_a_registration_without_a_change_differs_in_nothing() -> None:
    """Options that mean the same are the same, however they are written."""
    one = spec(
        memory="2GB", budget={"cuda": "3GB"}, priority="high", needs=["a", "b"], ttl=60, config={"size": 3}
    )
    other = spec(
        memory=2_000_000_000,
        budget={"cuda:0": 3_000_000_000},
        priority=2,
        needs=("a", "b"),
        ttl=60.0,
        config={"size": 3},
    )
    assert one.differs(other) == ()


@pytest.mark.parametrize(
    "part, options",
    [
        ("config", {"config": {"size": 4}}),
        ("needs", {"needs": ("dsp",)}),
        ("concurrency", {"concurrency": 2}),
        ("memory", {"memory": "1GB"}),
        ("budget", {"budget": "1GB"}),
        ("budget", {"budget": {"cuda": "1GB", "cpu": None}}),
        ("priority", {"priority": "low"}),
        ("ttl", {"ttl": 60}),
        ("version", {"version": "v7"}),
        ("code", {"factory": functools.partial(Net, size=4)}),
    ],
)
def test_what_changed_is_named(part: str, options: dict[str, Any]) -> None:
    """One part for each option, and no other."""
    assert spec().differs(spec(**options)) == spec(**options).differs(spec()) == (part,)


def test_config_that_was_changed_in_place_counts_as_changed() -> None:
    """The list is the same object, and it is not what was registered any more."""
    layers = [1, 2]
    before = spec(config={"table": layers})
    layers.append(3)
    assert before.differs(spec(config={"table": layers})) == ("config",)


# -- what is refused -------------------------------------------------------------------------------


def refused(**options: Any) -> list[str]:
    """Return everything that is wrong with a registration."""
    with pytest.raises(ConfigError) as caught:
        spec(**options)
    return [str(problem) for problem in caught.value.problems]


def test_everything_that_is_wrong_is_said_at_once() -> None:
    """Nobody fixes nine things in nine runs."""
    assert refused(
        memory="much", ttl=0, concurrency=0, engine="warp", priority="urgent", needs="dsp", version=1.2,
        config={"size": "big", "sise": 3},
    ) == [
        "needs: found 'dsp', expected a tuple of names",
        "ttl: found 0, expected seconds above 0, or None",
        "version: found 1.2, expected text, or None",
        "concurrency: found 0, expected a whole number from 1 to 1000",
        "engine: found 'warp', expected one of inline; others are not there yet",
        "memory: found 'much', expected text with a unit such as '2GB' or '512 MiB', or bytes as a number",
        "priority: found 'urgent', expected low, normal, high, critical, or 0 to 3",
        "config.sise: found 3, expected no such argument; there are: size, table, anything",
        "config.size: found 'big', expected a whole number",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "options, path",
    [
        ({"name": ""}, "name"),
        ({"name": 3}, "name"),
        ({"factory": 3}, "factory"),
        ({"config": [("size", 3)]}, "config"),
        ({"needs": None}, "needs"),
        ({"needs": (1,)}, "needs"),
        ({"ttl": "60"}, "ttl"),
        ({"ttl": True}, "ttl"),
        ({"ttl": float("nan")}, "ttl"),
        ({"concurrency": True}, "concurrency"),
        ({"concurrency": 1.5}, "concurrency"),
        ({"memory": -1}, "memory"),
        ({"memory": True}, "memory"),
        ({"budget": "much"}, "budget"),
        ({"budget": 3}, "budget"),
        ({"budget": {"cpu": True}}, "budget"),
        ({"budget": ["1GB"]}, "budget"),
        ({"priority": None}, "priority"),
        ({"priority": 1.5}, "priority"),
        ({"factory": object}, "factory"),
    ],
)
def test_each_misfit_is_named(options: dict[str, Any], path: str) -> None:
    """One problem each, at its place."""
    assert [problem.split(":")[0] for problem in refused(**options)] == [path]


def test_a_string_where_the_class_declares_a_tuple_is_said() -> None:
    """`needs = ("dsp")` is the letters d, s and p to Python."""

    class Needy(Net):
        needs = "dsp"

    assert refused(factory=Needy) == ["needs: found 'dsp', expected a tuple of names"]


def test_a_class_without_a_task_is_no_service() -> None:
    """Said at registration and not at the first call."""
    assert refused(factory=Path) == ["factory: found class Path, expected at least one method with @task"]


class Twice(Net):
    """`run` of its base, and another method that answers the same type."""

    @task("net.run")
    def again(self, x: Any) -> Any:
        return x


class Override(Net):
    """The task of its base, written anew and declared again."""

    @task("net.run")
    def run(self, x: Any) -> Any:
        return x


class Renamed(Net):
    """The task of its base under another name; the old one is taken away."""

    run = None  # type: ignore[assignment]

    @task("net.run")
    def again(self, x: Any) -> Any:
        return x


def test_a_task_type_that_two_methods_declare_is_refused_with_both_names() -> None:
    """A call by type could mean either, also where one of the types is a method's own name."""

    class Bare:
        @task
        def speak(self) -> None: ...

        @task("speak")
        def shout(self) -> None: ...

    def promising() -> Twice:
        return Twice()

    said = "task type net.run: found run and again, expected one method"
    assert refused(factory=Twice) == refused(factory=promising) == [said]
    assert refused(factory=Twice, config={"size": "big"}) == [
        "config.size: found 'big', expected a whole number",
        said,
    ]
    assert refused(factory=Bare) == ["task type speak: found speak and shout, expected one method"]


@pytest.mark.parametrize("cls", [Override, Renamed])
def test_a_task_that_a_subclass_overrides_or_renames_is_one_task(cls: type) -> None:
    """There is one method of its type."""
    assert [t.type for t in (spec(cls).tasks or {}).values()] == ["net.run"]


def test_config_is_checked_against_the_init_the_function_or_the_partial() -> None:
    """Whatever the factory is."""

    def make(size: int, *, loud: bool = False) -> Net:
        return Net(size=size)

    assert refused(factory=make) == ["config.size: found nothing, expected a value: it has no default"]
    assert refused(factory=make, config={"size": 1, "loud": 2}) == [
        "config.loud: found 2, expected True or False"
    ]
    assert spec(make, config={"size": 1}).full_config == {"size": 1, "loud": False}
    half = functools.partial(make, 3)
    assert refused(factory=half, config={"size": 1}) == [
        "config.size: found 1, expected no such argument; there are: loud"
    ]
    assert spec(half).full_config == {"loud": False}


def test_the_config_in_force_can_be_registered_again() -> None:
    """What a handle shows as its config is a config, `None` for an optional number included."""

    class Loose(Net):
        def __init__(self, *, gain: float = None) -> None:  # type: ignore[assignment]  # noqa: RUF013
            self.gain = gain

    made = spec(Loose)
    assert spec(Loose, config=made.full_config).full_config == {"gain": None}


def test_a_class_without_an_init_takes_no_config() -> None:
    """`object.__init__` would say so only when it is loaded."""

    class Bare:
        @task
        def f(self) -> None: ...

    assert refused(factory=Bare, config={"x": 1}) == [
        "config.x: found 1, expected no such argument; there are: none"
    ]


# -- what the factory makes ------------------------------------------------------------------------


def test_tasks_are_known_of_classes_partials_and_functions_that_promise_a_class() -> None:
    """And of others only a call would tell."""

    def promising() -> Net:
        return Net()

    def silent():  # type: ignore[no-untyped-def]
        return Net()

    known = [
        Net,
        functools.partial(Net, size=1),
        functools.partial(functools.partial(Net), size=1),
        promising,
    ]
    assert [list(spec(factory).tasks or ()) for factory in known] == [["run"]] * 4
    assert (spec(silent).tasks, spec(lambda: Net()).tasks) == (None, None)


# -- factories by name -----------------------------------------------------------------------------


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The name of a module that can be imported and was not yet."""
    name = "grym_spec_test_module"
    (tmp_path / f"{name}.py").write_text(
        "from grym_nb.services import ModelService, task\n"
        "class Named(ModelService):\n"
        "    def __init__(self, *, size: int = 3): ...\n"
        "    @task('named.f')\n"
        "    def f(self): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    sys.modules.pop(name, None)


def test_a_factory_given_by_name_is_not_imported_when_it_is_registered(
    module: str, registry: ServiceRegistry
) -> None:
    """Nor for its status, its config or its repr; the first question about its tasks imports it."""
    handle = registry.register("named", f"{module}:Named", config={"size": 5})
    registry.register("named", f"{module}:Named", config={"size": 5})
    assert (handle.status().tasks, handle.config, "named" in repr(handle)) == ((), {"size": 5}, True)
    assert module not in sys.modules
    assert [t.type for t in handle.tasks] == ["named.f"]
    assert isinstance(sys.modules[module], ModuleType)


def test_a_factory_by_name_is_the_same_by_its_name(module: str) -> None:
    """Imported or not."""
    one, other = spec(f"{module}:Named"), spec(f"{module}:Named")
    assert one.tasks
    assert one.differs(other) == ()
    assert one.differs(spec(f"{module}:Other")) == ("code",)


def test_the_config_of_a_factory_by_name_is_checked_once_it_is_imported(module: str) -> None:
    """Then it is as any other."""
    named = spec(f"{module}:Named", config={"size": "big"})
    with pytest.raises(ConfigError, match=r"config\.size: found 'big'"):
        named.check()
    assert spec(f"{module}:Named").full_config == {}
    named = spec(f"{module}:Named")
    assert named.tasks
    assert named.full_config == {"size": 3}


@pytest.mark.parametrize(
    "factory", ["no_such_module_at_all:X", "{}:NotThere", "{}", ":X", "{}:Named.NotThere"]
)
def test_a_name_that_leads_nowhere_is_a_failed_load(module: str, factory: str) -> None:
    """Typed, and with the path to it."""
    factory = factory.format(module)
    with pytest.raises(LoadFailed) as caught:
        _ = spec(factory).callable
    assert caught.value.message == f"net could not be imported from {factory!r}"
    assert caught.value.details["path"] == ("net",)
