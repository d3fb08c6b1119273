"""What a page asks for is done on other threads, told of, and never twice at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from grym_nb.notebook.orders import Orders
from grym_nb.notebook.panels import Charted
from grym_nb.pulse import Workers
from grym_nb.runtime import Runtime
from grym_nb.services import ModelService, task
from grym_nb.services.progress import track
from grym_nb.settings import Settings

go_on = threading.Event()


class Slow(ModelService):
    """Loads when a test lets it."""

    def load(self) -> None:
        go_on.wait()

    @task
    def steps(self, begun: threading.Event) -> None:
        for _ in track(range(1_000_000_000)):
            begun.set()


class Broken(ModelService):
    """Cannot be loaded."""

    def load(self) -> None:
        raise ValueError("no weights <b>")

    @task
    def say(self) -> None: ...


class Changes:
    """Counts, and lets a test wait for a number of them."""

    def __init__(self) -> None:
        self.count = 0
        self.condition = threading.Condition()

    def __call__(self) -> None:
        with self.condition:
            self.count += 1
            self.condition.notify_all()

    def wait(self, count: int) -> None:
        with self.condition:
            assert self.condition.wait_for(lambda: self.count >= count, 20)


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    go_on.clear()
    with Runtime(Settings(health_seconds=0)) as own:
        own.registry.register("slow", Slow)
        own.registry.register("broken", Broken)
        yield own
        go_on.set()


@pytest.fixture
def changes() -> Changes:
    return Changes()


@pytest.fixture
def orders(runtime: Runtime, changes: Changes) -> Iterator[Orders]:
    workers = Workers("test", linger=5.0, most=4)
    yield Orders(runtime.registry, workers, changes)
    go_on.set()
    workers.close(20.0)


def test_a_load_is_under_way_until_it_is_done(orders: Orders, runtime: Runtime, changes: Changes) -> None:
    """A second click meanwhile does nothing."""
    assert orders.take({"do": "load", "service": "slow"})
    assert orders.take({"do": "load", "service": "slow"})
    [doing] = orders.doings
    assert (doing.service, doing.what, doing.state) == ("slow", "load", "running")
    go_on.set()
    changes.wait(3)
    [doing] = orders.doings
    assert (doing.state, doing.told) == ("done", "loaded")
    assert runtime.registry["slow"].state == "ready"
    assert runtime.registry["slow"]._record.loads == 1
    orders.take({"do": "unload", "service": "slow"})
    changes.wait(5)
    assert runtime.registry["slow"].state == "registered"


def test_what_fails_is_told_with_all_that_is_known(orders: Orders, changes: Changes) -> None:
    """And stays in the log after the next thing that is asked for."""
    orders.take({"do": "load", "service": "broken"})
    changes.wait(2)
    orders.take({"do": "rollback", "service": "broken"})
    changes.wait(4)
    first, second = orders.doings
    assert (first.what, first.state, second.what, second.state) == ("load", "failed", "rollback", "failed")
    assert "no weights <b>" in first.why
    assert second.told.startswith("broken has no earlier version")


def test_a_service_that_is_gone_is_a_failure_and_no_exception(orders: Orders, changes: Changes) -> None:
    """The page may be older than the registry."""
    orders.take({"do": "load", "service": "gone"})
    changes.wait(2)
    [doing] = orders.doings
    assert (doing.state, doing.told.startswith("no service 'gone'")) == ("failed", True)


def test_cancel_ends_a_call_at_once(orders: Orders, runtime: Runtime) -> None:
    """By its number; one that has ended already is no error."""
    go_on.set()
    begun = threading.Event()
    call = runtime.registry["slow"].steps.submit(begun)
    assert begun.wait(20)
    [frame] = runtime.registry.running()
    assert orders.take({"do": "cancel", "call": str(frame.id)})
    assert "cancelled" in str(call.exception(20))
    assert orders.take({"do": "cancel", "call": str(frame.id)})


def test_charts_are_of_what_was_asked_for(orders: Orders) -> None:
    """A time that is not offered changes nothing."""
    orders.take({"do": "chart", "service": "slow", "window": 60})
    assert orders.charted == Charted("slow", 60.0)
    orders.take({"do": "chart", "service": None, "window": 12345})
    assert orders.charted == Charted("slow", 60.0)


@pytest.mark.parametrize(
    "message",
    [{}, {"do": "remove", "service": "slow"}, {"do": "load"}, {"do": "load", "service": 3}, {"do": ["load"]}],
    ids=repr,
)
def test_what_cannot_be_asked_for_does_nothing(
    orders: Orders, changes: Changes, message: dict[str, object]
) -> None:
    """Whatever a page sends."""
    assert not orders.take(message)
    assert (orders.doings, changes.count) == ((), 0)
