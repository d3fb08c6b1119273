"""Weights shared by key: built once, one copy in the books, gone with the last service that has them."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

from grym_nb.errors import LoadFailed, StateError, ValidationError
from grym_nb.services import ModelService, ServiceRegistry, task
from tests.services.crowd import WAIT, outcome, start

BUILT: list[weakref.ref[Any]] = []


class Array(np.ndarray):
    """An array that can be watched."""


def build() -> Any:
    made = np.zeros(1000).view(Array)
    BUILT.append(weakref.ref(made))
    return made


class Sharer(ModelService):
    def __init__(self, *, key: str = "base", fail: bool = False) -> None:
        self.key, self.fail = key, fail

    def load(self) -> None:
        self.base = self.shared(self.key, build)
        self.own = np.zeros(100)
        if self.fail:
            raise OSError("after it was taken")

    @task
    def which(self) -> int:
        return id(self.base)


@pytest.fixture(autouse=True)
def none_built() -> None:
    BUILT.clear()


def alive() -> int:
    gc.collect()
    return sum(one() is not None for one in BUILT)


def test_one_copy_for_all_that_name_it_and_gone_with_the_last(registry: ServiceRegistry) -> None:
    one, two = (registry.register(name, Sharer) for name in ("one", "two"))
    assert one.which() == two.which() and len(BUILT) == 1
    weights = registry.ports.weights
    assert weights.owners() == {"base": ("one", "two")}
    assert registry.ports.resources.ledger.taken() == 8000 + 2 * 800
    assert "8.0 KB" in weights.table().text() and "one, two" in weights.table().text()
    one.unload()
    assert alive() == 1 and weights.owners() == {"base": ("two",)}
    assert registry.ports.resources.ledger.taken() == 8000 + 800
    two.unload()
    assert alive() == 0 and weights.owners() == {}
    assert registry.ports.metrics.counter("weights.shared", key="base", outcome="found").value == 1


def test_another_key_is_another_copy(registry: ServiceRegistry) -> None:
    registry.register("one", Sharer).load()
    registry.register("two", Sharer, config={"key": "other"}).load()
    assert alive() == 2


def test_a_load_that_fails_lets_go_of_it(registry: ServiceRegistry) -> None:
    with pytest.raises(LoadFailed):
        registry.register("one", Sharer, config={"fail": True}).load()
    registry.ports.failures.clear()
    assert alive() == 0 and registry.ports.weights.owners() == {}


def test_a_removed_service_lets_go_of_it_and_so_does_one_whose_calls_hang(registry: ServiceRegistry) -> None:
    registry.register("one", Sharer).load()
    two = registry.register("two", Sharer).load()
    registry.remove("one")
    with two.use():
        start(two.unload, 0.0).result(WAIT)
        assert alive() == 1
    assert alive() == 0


def test_a_build_that_raises_leaves_nothing(registry: ServiceRegistry) -> None:
    class Broken(ModelService):
        def load(self) -> None:
            self.base = self.shared("base", self.broken)

        def broken(self) -> Any:
            raise OSError("no file")

        @task
        def ask(self) -> None: ...

    with pytest.raises(LoadFailed, match="no file"):
        registry.register("broken", Broken).load()
    assert registry.ports.weights.owners() == {}


def test_many_that_load_at_once_share_one(registry: ServiceRegistry) -> None:
    handles = [registry.register(f"s{n}", Sharer) for n in range(8)]
    ids = {outcome(one) for one in [start(handle.which) for handle in handles]}
    assert len(ids) == 1 and alive() == 1


@pytest.mark.parametrize(("key", "make"), [("", build), (7, build), ("base", None)])
def test_what_cannot_be_shared_is_told(registry: ServiceRegistry, key: Any, make: Any) -> None:
    class Odd(ModelService):
        def load(self) -> None:
            self.shared(key, make)

        @task
        def ask(self) -> None: ...

    with pytest.raises((LoadFailed, ValidationError), match="cannot be shared so"):
        registry.register("odd", Odd).load()


def test_outside_of_a_load_it_says_where_it_belongs(registry: ServiceRegistry) -> None:
    class Late(ModelService):
        @task
        def ask(self) -> Any:
            return self.shared("base", build)

    with pytest.raises(StateError, match="is for `load`"):
        registry.register("late", Late).ask()
