"""Memory on a real accelerator: what the books say, what the allocator says, tiers, and running out of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from grym_nb.clip import Clip
from grym_nb.devices import devices
from grym_nb.errors import ResourceExhausted
from grym_nb.hardening.returning import give_back
from grym_nb.hardening.storages import storages_of, total
from grym_nb.services import ModelService, ServiceHandle, ServiceRegistry, task
from grym_nb.services.learning import peaks_of
from grym_nb.testing import FakeClock
from tests.services.crowd import WAIT, outcome, start, until

pytestmark = pytest.mark.gpu

MB = 1_000_000
DEVICE = "cuda:0"


@pytest.fixture
def torch() -> Iterator[Any]:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    torch.cuda.init()
    give_back()
    yield torch
    give_back()


class Net(ModelService):
    """Some weights on the card: many tensors, two of which share memory, and a plain one."""

    loads = 0

    def __init__(self, *, mb: int = 100, device: str = DEVICE, seed: int = 0) -> None:
        self.mb, self.device, self.seed = mb, device, seed

    def load(self) -> None:
        import torch

        type(self).loads += 1
        torch.manual_seed(self.seed)
        wide = self.mb * MB // 4 // 100 // 1000
        layers = [torch.nn.Linear(1000, wide, bias=False, device=self.device) for _ in range(98)]
        self.net = torch.nn.ModuleList(layers).requires_grad_(False)
        self.flat = torch.randn(2 * 1000 * wide, device=self.device)
        self.view = self.flat[: 1000 * wide].view(wide, 1000)
        self.ids = {"tied": self.net[0].weight}

    @task
    def total(self) -> float:
        return float(sum(layer.weight.double().sum() for layer in self.net) + self.flat.double().sum())

    @task
    def where(self) -> set[str]:
        return {str(p.device) for p in self.net.parameters()} | {str(self.flat.device), str(self.view.device)}

    @task
    def shares(self) -> bool:
        self.view[0, 0] = 7.0
        return bool(self.flat[0] == 7.0) and self.ids["tied"] is self.net[0].weight

    @task
    def fill(self, size: int) -> int:
        import torch

        return int(torch.empty(size, dtype=torch.uint8, device=self.device).numel())

    @task(replay=False)
    def fill_once(self, size: int) -> int:
        return self.fill(size)


@pytest.fixture
def nets(registry: ServiceRegistry, torch: Any) -> Any:
    Net.loads = 0

    def make(name: str, mb: int = 100, **options: Any) -> ServiceHandle:
        seed = sum(map(ord, name))
        return registry.register(name, Net, config={"mb": mb, "seed": seed}, device=DEVICE, **options)

    make.ledger = registry.ports.resources.ledger  # type: ignore[attr-defined]
    return make


def test_the_books_say_what_the_allocator_says(
    nets: Any, torch: Any, record_property: Callable[[str, object], None]
) -> None:
    before = torch.cuda.memory_allocated()
    for n in range(4):
        nets(f"net-{n}", 50 * (n + 1)).load()
    there = torch.cuda.memory_allocated() - before
    booked = nets.ledger.taken(DEVICE)
    record_property("booked", f"{booked / MB:.1f} MB, allocator {there / MB:.1f} MB")
    assert abs(booked - there) <= 0.05 * there


def test_memory_of_the_card_is_back_after_an_unload(nets: Any, torch: Any) -> None:
    twin = nets("twin", 1)
    twin.total()  # the kernels it needs are on the card from now on
    twin.unload()
    free = torch.cuda.mem_get_info()[0]
    net = nets("net", 400)
    net.total()
    assert free - torch.cuda.mem_get_info()[0] >= 390 * MB
    net.unload()
    assert free - torch.cuda.mem_get_info()[0] <= 10 * MB
    assert nets.ledger.taken(DEVICE) == 0


def test_who_is_idle_waits_in_the_main_memory_and_is_back_with_its_next_call(nets: Any, torch: Any) -> None:
    nets.ledger.budgets[DEVICE] = 250 * MB
    one, two, three = (nets(name) for name in ("one", "two", "three"))
    sums = [net.total() for net in (one, two)]
    assert three.total() is not None  # for which the longest unused is parked
    assert {net.name for net in (one, two) if net.state == "registered"} != set()
    parked = one if one.state == "registered" else two
    record = parked._record
    assert record.footprint.parked is not None and total(
        storages_of(record.footprint.parked.instance.model)
    ) == {"cpu": record.footprint.parked.size}
    loads = Net.loads
    assert parked.total() == sums[[one, two].index(parked)]
    assert parked.where() == {DEVICE} and parked.shares()
    assert Net.loads == loads, "it was woken, not loaded"
    assert record.footprint.wake_seconds is not None
    assert nets.ledger.taken(DEVICE) <= 250 * MB


def test_what_is_parked_goes_with_unload(nets: Any, torch: Any) -> None:
    nets.ledger.budgets[DEVICE] = 150 * MB
    one, two = nets("one"), nets("two")
    one.load()
    two.load()
    assert one._record.footprint.parked is not None
    assert nets.ledger.taken("cpu") >= 90 * MB
    one.unload()
    assert one._record.footprint.parked is None and nets.ledger.taken("cpu") == 0


def test_what_was_idle_for_its_ttl_is_parked_and_after_as_long_again_it_is_gone(
    driven: ServiceRegistry, clock: FakeClock, torch: Any
) -> None:
    net = driven.register("net", Net, config={"mb": 20}, device=DEVICE, ttl=60.0).load()
    record = net._record
    clock.advance(61.0)
    until(lambda: record.footprint.parked is not None)
    assert driven.ports.resources.ledger.taken(DEVICE) == 0 and net.status().parked
    clock.advance(61.0)
    until(lambda: record.footprint.parked is None)
    assert driven.ports.resources.ledger.taken() == 0 and net.status().holds == {}


def test_a_call_that_runs_out_of_memory_is_run_again_without_the_idle(nets: Any, torch: Any) -> None:
    torch.cuda.set_per_process_memory_fraction(0.5)
    try:
        idle, net = nets("idle", 2000), nets("net")
        idle.load()
        net.load()
        room = torch.cuda.get_device_properties(0).total_memory // 2 - torch.cuda.memory_reserved()
        size = room + 1000 * MB
        assert net.fill(size) == size
        assert idle.state == "registered"
        assert "ran out of memory on cuda:0" in nets.ledger.decisions[-1].why
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_what_can_never_be_had_is_said_with_who_holds_what(nets: Any, torch: Any) -> None:
    net = nets("net", breaker=None)
    with pytest.raises(ResourceExhausted) as refused:
        net.fill(10**15)
    assert "net 1" in (refused.value.cause or "") and "free" in (refused.value.cause or "")
    with pytest.raises(ResourceExhausted):
        net.fill_once(10**15)
    assert net.total() is not None and torch.cuda.memory_allocated() < 200 * MB


def test_a_load_that_runs_out_of_memory_frees_what_it_took(nets: Any, torch: Any) -> None:
    free = torch.cuda.mem_get_info()[0]
    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        huge = nets("huge", 8000)
        with pytest.raises(ResourceExhausted, match="loading huge ran out of memory"):
            huge.load()
        assert huge.state == "failed" and torch.cuda.memory_allocated() < 20 * MB
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert free - torch.cuda.mem_get_info()[0] <= 50 * MB


def test_a_neighbour_on_the_card_is_seen(nets: Any, torch: Any) -> None:
    free = torch.cuda.mem_get_info()[0]
    neighbour = torch.empty(free - 3000 * MB, dtype=torch.uint8, device=DEVICE)
    try:
        nets("small", 1000).load()
        large = nets("large", 2500, memory="2500MB", priority="critical").load()
        assert nets("small", 1000).state == "registered" and large.state == "ready"
        with pytest.raises(ResourceExhausted, match=r"cannot go \(critical, or reserved by hand") as refused:
            nets("larger", 2500, memory="2500MB").load()
        assert "large 2.5 GB" in refused.value.cause
    finally:
        del neighbour


class Listener(ModelService):
    """A stack of convolutions over sound, as the front of a speech model is."""

    def load(self) -> None:
        import torch

        layers: list[Any] = []
        for wide in (1, 64, 64, 64):
            layers += [torch.nn.Conv1d(wide, 64, 5, stride=2), torch.nn.GELU()]
        layers.append(torch.nn.Conv1d(64, 4096, 1))
        self.net = torch.nn.Sequential(*layers).to(DEVICE).requires_grad_(False)

    @task
    def listen(self, clips: list[Clip]) -> int:
        import torch

        longest = max(clip.samples.size for clip in clips)
        return int(self.net(torch.zeros(len(clips), 1, longest, device=DEVICE)).numel())


def test_what_calls_take_on_the_card_is_predicted_for_longer_clips_and_larger_batches(
    registry: ServiceRegistry, torch: Any
) -> None:
    work = registry.register("work", Listener, device=DEVICE)
    for seconds, batch in ((1, 1), (2, 1), (2, 2), (4, 2)):
        work.listen([Clip(np.zeros(16_000 * seconds, np.float32), 16_000)] * batch)
    peaks = peaks_of(work._record, "listen")
    for seconds, batch in ((8, 1), (16, 2), (30, 8)):
        told = peaks.predict(seconds * batch)
        work.listen([Clip(np.zeros(16_000 * seconds, np.float32), 16_000)] * batch)
        assert told is not None and peaks.error is not None and abs(peaks.error) < 0.1, (told, peaks.told)


def test_two_services_take_turns_on_the_card(nets: Any, torch: Any) -> None:
    one, two = nets("one").load(), nets("two").load()
    inside: list[int] = []
    most: list[int] = []
    lock = threading.Lock()

    def compute(net: ServiceHandle) -> None:
        for _ in range(20):
            with net.use():
                with lock:
                    inside.append(1)
                    most.append(len(inside))
                net._record.instance.model.net[0](torch.zeros(8, 1000, device=DEVICE)).sum().item()
                with lock:
                    inside.pop()

    for done in [start(compute, net) for net in (one, two)]:
        assert outcome(done) is None
    assert max(most) == 1 and WAIT
    assert next(d for d in devices() if d.name == DEVICE).total
