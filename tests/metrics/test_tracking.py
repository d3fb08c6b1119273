"""Blocks and functions are counted by how long they took and how they ended."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from grym_nb.errors import ConfigError, StateError
from grym_nb.metrics import Histogram, Metrics
from grym_nb.metrics.tracking import OPERATION, Track
from grym_nb.testing import FakeClock


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def counts(metrics: Metrics, **tags: str) -> dict[str, int]:
    found = {}
    for sample in metrics.select(OPERATION, **tags):
        assert not isinstance(sample.value, int | float) and sample.value is not None
        found[dict(sample.tags)["outcome"]] = sample.value.count
    return found


def test_a_block_is_counted_with_what_it_took(metrics: Metrics) -> None:
    clock = FakeClock()
    with Track(metrics, "load", {"service": "a"}, timer=clock):
        clock.advance(2.5)
    (sample,) = metrics.snapshot()
    assert (sample.name, sample.kind) == ("operation.seconds", "histogram")
    assert sample.tags == (("operation", "load"), ("outcome", "ok"), ("service", "a"))
    assert metrics.histogram(OPERATION, operation="load", outcome="ok", service="a").total == 2.5


def test_a_block_that_raises_is_counted_by_its_error(metrics: Metrics) -> None:
    with pytest.raises(KeyError), metrics.track("load"):
        raise KeyError("x")
    with pytest.raises(KeyboardInterrupt), metrics.track("load"):
        raise KeyboardInterrupt
    assert counts(metrics, operation="load") == {"KeyError": 1, "KeyboardInterrupt": 1}


def test_each_call_of_a_function_is_counted(metrics: Metrics) -> None:
    @metrics.track("half")
    def half(n: int, *, of: int = 2) -> float:
        """Return a part."""
        return n / of

    assert (half(4), half(4, of=4), half.__name__, half.__doc__) == (2.0, 1.0, "half", "Return a part.")
    with pytest.raises(ZeroDivisionError):
        half(4, of=0)
    assert counts(metrics, operation="half") == {"ok": 2, "ZeroDivisionError": 1}


def test_a_coroutine_function_is_counted_from_begin_to_end(metrics: Metrics) -> None:
    clock = FakeClock()

    @Track(metrics, "wait", {}, timer=clock)
    async def wait(going: asyncio.Event, seconds: float) -> float:
        await going.wait()
        clock.advance(seconds)
        return seconds

    async def both() -> list[float]:
        going = asyncio.Event()
        tasks = [asyncio.create_task(wait(going, seconds)) for seconds in (1.0, 2.0)]
        cancelled = asyncio.create_task(wait(asyncio.Event(), 0.0))
        await asyncio.sleep(0)
        going.set()
        found = await asyncio.gather(*tasks)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        return found

    assert asyncio.run(both()) == [1.0, 2.0]
    assert counts(metrics) == {"ok": 2, "CancelledError": 1}
    assert metrics.histogram(OPERATION, operation="wait", outcome="ok").total == 4.0


def test_a_function_may_call_itself_and_be_called_by_several_threads(metrics: Metrics) -> None:
    @metrics.track("down", service="a")
    def down(n: int) -> int:
        return down(n - 1) if n else 0

    threads = [threading.Thread(target=down, args=(99,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert counts(metrics, operation="down", service="a") == {"ok": 400}


def test_one_object_is_for_one_block_at_a_time(metrics: Metrics) -> None:
    track = metrics.track("load")
    with track, pytest.raises(StateError, match="measured already") as caught, track:
        pass
    assert "make one for each block" in caught.value.hint
    with track:
        pass
    assert counts(metrics) == {"ok": 2}
    assert repr(track) == "<Track: load in operation.seconds>"


def test_what_was_dropped_is_counted_anew(metrics: Metrics) -> None:
    calls = [metrics.track("load")(lambda: None), metrics.track("load", service="a")(lambda: None)]
    for _ in range(2):
        for call in calls:
            call()
        assert counts(metrics, service="a") == {"ok": 1}
        assert metrics.drop(operation="load") == 2
    assert len(metrics) == 0


def test_tags_of_its_own_are_refused(metrics: Metrics) -> None:
    with pytest.raises(ConfigError, match="sets these tags itself") as caught:
        metrics.track("load", outcome="fine")
    assert [problem.path for problem in caught.value.problems] == ["outcome"]


def test_generators_are_refused(metrics: Metrics) -> None:
    def some() -> Iterator[int]:
        yield 1

    async def others() -> AsyncIterator[int]:
        yield 1

    for function in (some, others):
        with pytest.raises(ConfigError, match="runs when somebody else") as caught:
            metrics.track("some")(function)
        assert "`with` inside" in caught.value.hint


def test_its_name_is_free_for_a_histogram_alone(metrics: Metrics) -> None:
    metrics.gauge(OPERATION)
    with pytest.raises(ConfigError, match="is a gauge"), metrics.track("load"):
        pass
    metrics = Metrics()
    metrics.histogram(OPERATION, operation="load", outcome="ok").record(1.0)
    with metrics.track("load"):
        pass
    found = metrics.histogram(OPERATION, operation="load", outcome="ok")
    assert isinstance(found, Histogram) and found.count == 2


def test_objects_that_are_called_are_measured_until_they_are_done(metrics: Metrics) -> None:
    class Later:
        async def __call__(self) -> int:
            await asyncio.sleep(0)
            raise KeyError("late")

    later = metrics.track("later")(Later())
    with pytest.raises(KeyError):
        asyncio.run(later())
    assert counts(metrics) == {"KeyError": 1}


@pytest.mark.parametrize("wrong", [classmethod(len), property(len), 5])
def test_what_cannot_be_called_is_refused(metrics: Metrics, wrong: Any) -> None:
    with pytest.raises(ConfigError, match="only what can be called") as caught:
        metrics.track("load")(wrong)
    assert "next to the function" in caught.value.hint
