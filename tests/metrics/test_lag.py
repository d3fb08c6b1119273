"""How late a loop is, is told on the loop and, while it is blocked, from outside."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any
from weakref import ref

import pytest

from grym_nb.errors import ConfigError
from grym_nb.metrics import Metrics
from grym_nb.metrics.lag import LoopLag
from grym_nb.testing import FakeClock


class Loop:
    """A loop that runs what is due when the test says so."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.due: list[tuple[float, Callable[..., object], tuple[Any, ...]]] = []
        self.running, self.closed = True, False

    def is_running(self) -> bool:
        return self.running

    def is_closed(self) -> bool:
        return self.closed

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> None:
        self.due.append((self.clock(), callback, args))

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> None:
        self.due.append((self.clock() + delay, callback, args))

    def run(self) -> int:
        """Run what is due by now."""
        now = [entry for entry in self.due if entry[0] <= self.clock()]
        self.due = [entry for entry in self.due if entry not in now]
        for _, callback, args in now:
            callback(*args)
        return len(now)


class House:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.loop: Any = Loop(self.clock)
        self.metrics = Metrics()
        self.lag = LoopLag(self.metrics, window=60.0, clock=self.clock)

    def gauges(self) -> tuple[float | None, float | None]:
        return tuple(self.metrics.gauge(f"kernel.loop.{one}.seconds").value for one in ("lag", "longest"))  # type: ignore[return-value]


@pytest.fixture
def house() -> House:
    return House()


def test_a_loop_that_is_in_time_has_no_lag(house: House) -> None:
    assert house.lag.lag() is None and repr(house.lag) == "<LoopLag: not measured>"
    house.lag.step()
    assert house.gauges() == (None, None)
    house.lag.start(house.loop)
    for _ in range(5):
        assert house.loop.run() == 1
        house.clock.advance(1.0)
    assert (house.lag.lag(), house.lag.longest(), house.gauges()) == (0.0, 0.0, (0.0, 0.0))


def test_a_callback_that_comes_late_is_told(house: House) -> None:
    house.lag.start(house.loop)
    house.loop.run()
    for late in (0.5, 3.0, 0.25):
        house.clock.advance(1.0 + late)
        house.loop.run()
        assert house.lag.lag() == late
    assert house.gauges() == (0.25, 3.0) and repr(house.lag) == "<LoopLag: 0.25 s>"
    for _ in range(70):
        house.clock.advance(1.0)
        house.loop.run()
    assert house.gauges() == (0.0, 0.0)


def test_a_blocked_loop_is_told_from_outside(house: House) -> None:
    house.lag.start(house.loop, every=2.0)
    house.loop.run()
    house.clock.advance(12.0)
    assert (house.lag.lag(), house.lag.longest(), house.gauges()) == (10.0, 10.0, (0.0, 0.0))
    house.lag.step()
    assert house.gauges() == (10.0, 10.0)


def test_a_loop_that_never_runs_is_silent_from_the_start(house: House) -> None:
    house.lag.start(house.loop)
    house.clock.advance(7.0)
    assert house.lag.lag() == 7.0


def test_it_ends_with_stop_or_forgotten(house: House) -> None:
    house.lag.start(house.loop)
    house.loop.run()
    house.lag.stop()
    house.lag.stop()
    house.clock.advance(5.0)
    assert (house.lag.lag(), house.loop.run(), house.loop.due) == (None, 1, [])
    house.lag.start(house.loop)
    house.lag.start(house.loop)
    house.loop.run()
    assert len(house.loop.due) == 1
    gone = ref(house.lag)
    del house.lag
    gc.collect()
    house.clock.advance(5.0)
    assert (gone(), house.loop.run(), house.loop.due) == (None, 1, [])


def test_a_real_loop_is_measured_while_a_callback_blocks_it() -> None:
    """A busy cell, as the kernel's loop has it: the thread outside sees it grow."""
    clock, metrics = FakeClock(), Metrics()
    lag = LoopLag(metrics, clock=clock)
    begun, over = threading.Event(), threading.Event()
    seen = []

    def cell() -> None:
        begun.set()
        over.wait(30)

    async def kernel() -> None:
        loop = asyncio.get_running_loop()
        lag.start(loop, every=0.001)
        async with asyncio.timeout(30):
            while lag.lag() is None:
                await asyncio.sleep(0)
            cell()
            while lag.longest() != pytest.approx(4.0, abs=0.01):
                await asyncio.sleep(0)
        lag.stop()

    thread = threading.Thread(target=asyncio.run, args=(kernel(),), daemon=True)
    thread.start()
    assert begun.wait(30)
    for _ in range(4):
        clock.advance(1.0)
        seen.append(lag.lag())
    over.set()
    thread.join(30)
    assert not thread.is_alive() and seen == pytest.approx([1.0, 2.0, 3.0, 4.0], abs=0.01)


def test_a_pace_that_makes_no_sense_is_refused(house: House) -> None:
    with pytest.raises(ConfigError, match="every: found"):
        house.lag.start(house.loop, every=0.0)


def test_a_loop_that_has_ended_is_not_late(house: House) -> None:
    house.lag.start(house.loop, every=1.0)
    house.loop.run()
    house.loop.running = False
    house.clock.advance(30.0)
    house.lag.step()
    assert house.gauges() == (0.0, 0.0)
    house.loop.running = True
    house.loop.run()
    assert house.lag.lag() == 0.0, "it goes on: nobody had waited for it"
    house.loop.closed = True
    house.clock.advance(30.0)
    assert house.lag.lag() is None


def test_a_loop_that_is_closed_is_not_measured() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    lag = LoopLag(Metrics())
    with pytest.raises(RuntimeError):
        lag.start(loop)
    assert lag.lag() is None
