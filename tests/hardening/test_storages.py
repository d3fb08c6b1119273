"""What an object holds: storages of tensors and arrays, each once, wherever they hang."""

from __future__ import annotations

import asyncio
import shelve
import sys
import weakref
from collections import deque
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from grym_nb.hardening import storages
from grym_nb.hardening.storages import arrays_in, reached, storages_of, tensors_in, total, variables_of


def held(*roots: object) -> int:
    return total(storages_of(*roots)).get("cpu", 0)


class Slotted:
    __slots__ = ("__weakref__", "net", "never")

    def __init__(self, net: Any) -> None:
        self.net = net


class Private:
    __slots__ = ("__net", "_only")

    def __init__(self, net: Any) -> None:
        self.__net = net


class Borrows:
    __slots__ = ("own",)
    other = Slotted.__dict__["net"]

    def __init__(self, own: Any) -> None:
        self.own = own


class Plain:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


def test_arrays_are_found_in_attributes_containers_closures_and_partials() -> None:
    def zeros() -> Any:
        return np.zeros(1000)

    captured = zeros()
    model = Plain(
        a=zeros(),
        b=[zeros(), {"c": (zeros(),)}, {1}, deque([zeros()])],
        d=Slotted(zeros()),
        e=lambda: captured,
        f=partial(print, zeros(), end=zeros()),
        g=Plain(h=zeros()).__init__,  # type: ignore[misc]
    )
    assert held(model) == 9 * 8000
    assert len(arrays_in(model)) == 9


def test_which_of_some_objects_are_reached() -> None:
    one, two, three = np.zeros(3), [np.zeros(3)], {"more": 1}
    roots = [Slotted([one]), partial(len, two)]
    assert reached(roots, [one, three]) == {id(one)} and reached(roots, [two[0], two]) == {
        id(two[0]),
        id(two),
    }
    assert reached(roots, []) == set()


def test_what_is_shared_counts_once_however_often_it_hangs_there() -> None:
    base = np.zeros(1000)
    one, two = Plain(a=base, b=base[10:20]), Plain(c=base.reshape(10, 100))
    assert held(one) == held(two) == held(one, two) == 8000


def test_private_slots_are_found_too() -> None:
    assert held(Private(np.zeros(1000))) == 8000


def test_circles_and_what_belongs_to_others_are_left_out() -> None:
    import threading

    circle: dict[str, Any] = {"a": np.zeros(10)}
    circle["self"] = circle
    circle["module"], circle["class"], circle["lock"] = np, Plain, threading.Lock()
    assert held(circle) == 80


class Lazy(list[Any]):
    """Makes what it has when it is asked for it."""

    def __iter__(self) -> Any:
        return iter([np.zeros(1000)])


def test_what_is_read_when_it_is_asked_for_is_neither_read_nor_held(tmp_path: Path) -> None:
    with shelve.open(str(tmp_path / "shelf")) as shelf:  # a cache on disk, as a model may have one
        shelf["read"] = np.zeros(1000)
        model = Plain(shelf=shelf, lazy=Lazy([np.zeros(500)]), net=MappingProxyType({"a": np.zeros(500)}))
        assert held(model) == 8000
        weak: Any = weakref.WeakValueDictionary()
        weak["others"] = others = np.zeros(1000)
        assert held(Plain(weak=weak)) == 0 and others is weak["others"]


def test_what_lies_in_a_file_is_not_held(tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "weights", dtype=np.uint8, mode="w+", shape=(4096,))
    assert held(mapped, mapped[:10]) == 0
    assert held(np.frombuffer(b"x" * 100, dtype=np.uint8)) == 100


def test_a_property_is_not_asked() -> None:
    class Lazy:
        @property
        def net(self) -> Any:
            raise AssertionError("it was asked")

    assert held(Lazy()) == 0


class TestTensors:
    @pytest.fixture
    def torch(self) -> Any:
        return pytest.importorskip("torch")

    def test_of_a_module_all_parameters_and_buffers(self, torch: Any) -> None:
        net = torch.nn.Sequential(torch.nn.Linear(10, 20), torch.nn.BatchNorm1d(20), torch.nn.LSTM(20, 5))
        expected = sum(p.nbytes for p in net.parameters()) + sum(b.nbytes for b in net.buffers())
        assert held(Plain(net=net)) == expected

    def test_tied_weights_and_views_count_once(self, torch: Any) -> None:
        one, two = torch.nn.Linear(10, 10, bias=False), torch.nn.Linear(10, 10, bias=False)
        two.weight = one.weight
        flat = torch.zeros(100)
        assert held(one, two, flat, flat[5:], flat.numpy()) == 800
        assert len(tensors_in(one, two)) == 1

    def test_gradients_and_what_hangs_on_a_tensor_count(self, torch: Any) -> None:
        net = torch.nn.Linear(10, 10, bias=False)
        net(torch.ones(1, 10)).sum().backward()
        net.weight.scale = torch.zeros(10)
        assert held(net) == 400 + 400 + 40

    def test_sparse_tensors_count_and_meta_ones_do_not(self, torch: Any) -> None:
        assert held(torch.eye(10).to_sparse()) == 10 * (2 * 8 + 4)
        assert held(torch.nn.Linear(1000, 1000, device="meta")) == 0


class Proxy:
    """Does not like to be asked for its class."""

    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("not yours")


class Meta(type):
    """Does not like its classes to be asked for anything."""

    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError("not yours")


class Unasked(metaclass=Meta):
    __slots__ = ("net",)


class Nowhere:
    __module__ = None  # type: ignore[assignment]

    def __init__(self, net: Any) -> None:
        self.net = net


class Hidden:
    @property
    def __dict__(self) -> Any:
        raise RuntimeError("not yours")


class Owner:
    pass


def test_strangers_among_the_attributes_stop_nobody(tmp_path: Path) -> None:
    np.savez(tmp_path / "many.npz", a=np.ones(1000))
    owner = Owner()
    dead = weakref.proxy(owner)
    del owner
    with np.load(tmp_path / "many.npz") as file:
        model = Plain(file=file, dead=dead, proxy=Proxy(), net=np.zeros(500))
        assert held(model) == 4000, "and the file is not read for it"


def test_classes_that_answer_strangely_stop_nobody_and_hide_nothing() -> None:
    unasked = Unasked()
    object.__setattr__(unasked, "net", np.zeros(500))
    model = Plain(a=unasked, b=Nowhere(np.zeros(500)), c=Hidden(), net=np.zeros(500))
    assert held(model) == 3 * 4000


def test_a_slot_of_another_class_that_a_class_has_stops_nobody() -> None:
    assert held(Borrows(np.zeros(500))) == 4000


def test_a_million_words_hide_nothing() -> None:
    model = Plain(words=[str(n) for n in range(1_000_001)], net=np.zeros(500))
    assert held(model) == 4000


def test_a_generator_that_was_looked_into_holds_only_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storages, "_is_traced", lambda frame: False)  # by the coverage of this suite

    def batches() -> Any:
        batch = np.zeros(500)
        while True:
            yield weakref.ref(batch)
            batch = np.zeros(500)

    running = batches()
    first = next(running)
    assert held(running) == 4000
    next(running)
    assert first() is None


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="a function keeps nothing of `exec` there")
def test_what_a_function_has_from_exec_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storages, "_is_traced", lambda frame: False)  # by the coverage of this suite

    def made() -> Any:
        net = np.zeros(500)
        exec("scale = 2")
        yield net
        yield eval("scale")

    running = made()
    next(running)
    assert held(running) == 4000
    assert next(running) == 2


def test_what_a_function_has_from_locals_is_left_as_it_is() -> None:
    def given(a: int, b: int) -> Any:
        config = locals()
        yield
        yield config

    running = given(1, 2)
    next(running)
    assert variables_of(running.gi_frame)["a"] == 1
    assert next(running)["b"] == 2


def test_a_task_that_is_done_holds_what_it_gave_or_what_its_error_has() -> None:
    async def fails(array: Any) -> None:
        raise OSError("gone")

    async def gives(array: Any) -> Any:
        return array

    async def waits(array: Any) -> None:
        await asyncio.Event().wait()

    async def run() -> list[int]:
        tasks = [asyncio.create_task(each(np.zeros(1000))) for each in (fails, gives, waits)]
        await asyncio.sleep(0)
        tasks[-1].cancel()
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
        assert tasks[0].exception() is not None
        return [held(task) for task in tasks]

    assert asyncio.run(run()) == [8000, 8000, 8000]
