"""What `load` read of what `__init__` had set, and what is the same: so that config changes in place."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grym_nb.services import ModelService, ServiceRegistry, task
from grym_nb.services.reads import _watched, reads_of, same
from tests.services.crowd import WAIT, outcome, start


class Net(ModelService):
    """Reads in `load` whatever a test tells it to."""

    label = "of the class"

    def __init__(self, loading: Callable[[Any], Any] = lambda self: None) -> None:
        self.size = 3
        self.gain = 1.0
        self.names = ["a"]
        self.loading = loading

    def load(self) -> None:
        self.net = self.loading(self)

    @property
    def doubled(self) -> int:
        return self.size * 2

    def helper(self) -> int:
        return self.deeper()

    def deeper(self) -> int:
        return self.size

    @task
    def run(self) -> None: ...


ALWAYS = {"loading"}

READS: dict[str, tuple[Callable[[Any], Any], set[str]]] = {
    "nothing": (lambda self: 3, set()),
    "one of them": (lambda self: self.size, {"size"}),
    "all of them": (lambda self: (self.size, self.gain, self.names), {"size", "gain", "names"}),
    "through a method": (lambda self: self.helper(), {"size"}),
    "through a property": (lambda self: self.doubled, {"size"}),
    "by getattr": (lambda self: getattr(self, "ga" + "in"), {"gain"}),
    "by hasattr": (lambda self: hasattr(self, "gain"), {"gain"}),
    "to change it in place": (lambda self: self.names.append("b"), {"names"}),
    "after setting it": (lambda self: (setattr(self, "size", 4), self.size), {"size"}),
    "only setting it": (lambda self: setattr(self, "size", 4), set()),
    "what it set itself": (lambda self: (setattr(self, "new", 4), self.new), set()),
    "what is the class's": (lambda self: (self.label, self.run), set()),
    "in another thread": (lambda self: outcome(start(lambda: self.size)), {"size"}),
    "in a pool": (lambda self: list(ThreadPoolExecutor(1).map(lambda _: self.gain, [0])), {"gain"}),
    "in a comprehension": (lambda self: [self.size for _ in range(3)], {"size"}),
    "in a closure": (lambda self: (lambda: self.gain)(), {"gain"}),
    "in a nested class": (lambda self: type("T", (), {"f": lambda _: self.size})().f(), {"size"}),
    "what is not there": (lambda self: getattr(self, "absent", None), set()),
}


@pytest.mark.parametrize("how", READS)
def test_what_load_reads_is_known_wherever_it_reads_it(how: str) -> None:
    """In its own lines, in helpers, properties and threads; what it only sets is not read."""
    loading, expected = READS[how]
    assert reads_of(Net(loading)) == expected | ALWAYS
    assert _watched == {}


@pytest.mark.parametrize(
    "loading",
    [lambda self: vars(self), lambda self: self.__dict__, lambda self: list(self.__dict__.items())],
    ids=["vars", "__dict__", "items"],
)
def test_who_asks_for_all_of_them_may_have_read_any(loading: Callable[[Any], Any]) -> None:
    """None: nobody can tell."""
    assert reads_of(Net(loading)) is None
    assert _watched == {}


def test_a_class_without_a_load_reads_nothing() -> None:
    """And one whose instance has no attributes has nothing to read."""

    class Bare:
        def __init__(self) -> None:
            self.size = 3

    class Empty(ModelService):
        done = False

        def load(self) -> None:
            type(self).done = True

    assert (reads_of(Bare()), reads_of(Empty()), Empty.done) == (frozenset(), frozenset(), True)


def test_attributes_in_slots_cannot_be_told() -> None:
    """Neither of a class that has only slots, nor of one that has some."""

    class Slim:
        __slots__ = ("net", "size")

        def __init__(self) -> None:
            self.size = 3

        def load(self) -> None:
            self.net = self.size

    class Mixed(ModelService):
        __slots__ = ("size",)

        def __init__(self) -> None:
            self.size = 3
            self.gain = 1.0

        def load(self) -> None:
            self.net = self.size

    slim, mixed = Slim(), Mixed()
    assert (reads_of(slim), reads_of(mixed)) == (None, None)
    assert (slim.net, mixed.net) == (3, 3)


def test_a_class_with_its_own_getattribute_is_left_alone() -> None:
    """It is loaded, and nobody can tell what it read; one that inherits it can be watched."""

    class Own(Net):
        asked: list[str] = []  # noqa: RUF012

        def __getattribute__(self, name: str) -> Any:
            if name == "size":
                Own.asked.append(name)
            return super().__getattribute__(name)

    class Heir(Own): ...

    own = Own.__getattribute__
    assert reads_of(Own(lambda self: self.size)) is None
    assert (Own.asked, Own.__getattribute__ is own) == (["size"], True)
    assert reads_of(Heir(lambda self: self.size)) == {"size"} | ALWAYS
    assert Own.asked == ["size", "size"]
    assert "__getattribute__" not in vars(Heir)


@pytest.mark.parametrize("refusal", [TypeError, AttributeError])
def test_a_class_that_cannot_be_changed_is_left_alone(refusal: type[Exception]) -> None:
    """Frozen classes are loaded all the same."""

    class Frozen(type):
        def __setattr__(cls, name: str, value: Any) -> None:
            raise refusal(f"{cls.__name__} is frozen")

    class Hard(Net, metaclass=Frozen): ...

    model = Hard(lambda self: self.size)
    assert reads_of(model) is None
    assert model.net == 3


def test_the_class_is_as_it_was_afterwards() -> None:
    """To the last attribute, in the order in which they stood; also when `load` raised."""
    before = list(vars(Net).items())
    for loading in (READS["all of them"][0], lambda self: 1 / 0):
        with suppress(ZeroDivisionError):
            reads_of(Net(loading))
        assert list(vars(Net).items()) == before
    assert "__getattribute__" not in vars(Net)


def test_the_instance_is_of_its_own_class_while_it_loads() -> None:
    """`type(self)`, `self.__class__` and `super()` are what the author wrote."""
    seen: list[Any] = []

    class Sees(Net):
        def load(self) -> None:
            super().load()
            seen.extend([type(self), self.__class__, isinstance(self, Sees), Sees.__subclasses__()])

    assert reads_of(Sees(lambda self: self.gain)) == {"gain"} | ALWAYS
    assert seen == [Sees, Sees, True, []]


def test_nobody_hears_of_a_class_that_does_not_exist() -> None:
    """No `__init_subclass__`, no registry of subclasses, no `__set_name__`."""
    heard: list[str] = []

    class Registers(Net):
        def __init_subclass__(cls, **kwargs: Any) -> None:
            heard.append(cls.__name__)

    reads_of(Registers(lambda self: self.size))
    assert heard == []


def test_two_instances_of_one_class_are_told_apart() -> None:
    """Each knows what it read itself, at whatever time the other begins and ends."""
    line, done = threading.Barrier(2), threading.Barrier(2)

    def loading(name: str) -> Callable[[Any], Any]:
        def load(self: Any) -> Any:
            line.wait(WAIT)
            value = getattr(self, name)
            done.wait(WAIT)
            return value

        return load

    both = [start(reads_of, Net(loading(name))) for name in ("size", "gain")]
    assert [outcome(one) for one in both] == [{"size"} | ALWAYS, {"gain"} | ALWAYS]
    assert (_watched, "__getattribute__" in vars(Net)) == ({}, False)


@pytest.mark.parametrize("first", ["base", "heir"])
def test_a_class_and_its_heir_are_told_apart(first: str) -> None:
    """One inside the other's `load`, in either order: both classes are as they were."""

    class Heir(Net): ...

    inner, outer = (Heir, Net) if first == "base" else (Net, Heir)
    told: list[Any] = []

    def load(self: Any) -> Any:
        told.append(reads_of(inner(lambda self: self.gain)))
        return self.size

    assert (reads_of(outer(load)), told) == ({"size"} | ALWAYS, [{"gain"} | ALWAYS])
    assert (_watched, "__getattribute__" in vars(Net), "__getattribute__" in vars(Heir)) == ({}, False, False)


def test_a_load_that_raises_is_raised_and_not_watched_any_more() -> None:
    """As it is."""

    def fail(self: Any) -> None:
        raise LookupError(self.size)

    with pytest.raises(LookupError, match="3"):
        reads_of(Net(fail))
    gc.collect()
    assert _watched == {}


# -- sameness of values ----------------------------------------------------------------------------


class Odd:
    """Compares in ways of its own."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def __eq__(self, other: object) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    "one, other, expected",
    [
        (3, 3, True),
        (3, 4, False),
        (1, True, False),
        (1, 1.0, False),
        ("a", "a", True),
        ([1, 2], [1, 2], True),
        ([1, 2], (1, 2), False),
        ({"a": [1]}, {"a": [1]}, True),
        (Path("a"), Path("a"), True),
        (Fraction(1, 2), Fraction(2, 4), True),
        (None, None, True),
        (np.zeros(3), np.zeros(3), False),
        (np.zeros(1), np.zeros(1), True),
        ([np.zeros(3)], [np.zeros(3)], False),
        (object(), object(), False),
        (Odd(True), Odd(False), True),
        (Odd(False), Odd(True), False),
        (Odd(RuntimeError()), Odd(True), False),
        (Odd(np.zeros(3)), Odd(True), False),
        (float("nan"), float("nan"), False),
    ],
)
def test_values_are_the_same_only_when_that_is_certain(one: Any, other: Any, expected: bool) -> None:
    """What cannot be told is taken for different: a reload too many, never one too few."""
    assert same(one, other) is expected


def test_a_value_is_the_same_as_itself_whatever_it_says() -> None:
    """Identity needs no comparison."""
    for value in (float("nan"), np.zeros(3), Odd(False), Odd(RuntimeError())):
        assert same(value, value)


# -- what it is for --------------------------------------------------------------------------------


class Scaled(ModelService):
    """`load` reads `size`, and `gain` is only read by the task."""

    loads = 0

    def __init__(self, *, size: int = 3, gain: float = 1.0) -> None:
        self.size = size
        self.gain = gain

    def load(self) -> None:
        type(self).loads += 1
        self.weights = [1.0] * self.size

    @task
    def apply(self) -> list[float]:
        return [weight * self.gain for weight in self.weights]


def test_config_that_load_did_not_read_changes_in_place_and_other_reloads(registry: ServiceRegistry) -> None:
    """The weights are kept where they may be."""
    Scaled.loads = 0
    scaled = registry.register("scaled", Scaled)
    assert (scaled.apply(), Scaled.loads) == ([1.0] * 3, 1)
    assert (scaled.configure(gain=2.0), scaled.apply(), Scaled.loads) == ("in place", [2.0] * 3, 1)
    assert (scaled.configure(size=2), scaled.apply(), Scaled.loads) == ("reloads", [2.0] * 2, 2)


def test_config_in_slots_is_never_taken_for_unread(registry: ServiceRegistry) -> None:
    """It would be said to be in place, and the model would go on with the old value."""

    class Slotted(ModelService):
        __slots__ = ("gain", "size")

        def __init__(self, *, size: int = 3, gain: float = 1.0) -> None:
            self.size = size
            self.gain = gain

        def load(self) -> None:
            self.weights = [1.0] * self.size

        @task
        def apply(self) -> list[float]:
            return [weight * self.gain for weight in self.weights]

    slotted = registry.register("slotted", Slotted)
    assert slotted.apply() == [1.0] * 3
    assert (slotted.configure(gain=2.0), slotted.apply()) == ("reloads", [2.0] * 3)
    assert (slotted.configure(size=1), slotted.apply()) == ("reloads", [2.0])
