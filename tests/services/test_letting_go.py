"""What is left behind when something is cut short, dropped or refused: nothing."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import grym_nb as grym
from grym_nb.errors import CallBlocked, ConfigError, DependencyError, GrymError, Interrupted, StateError
from grym_nb.services import ModelService, ServiceRegistry, task
from grym_nb.services.frame import CURRENT, current_frame
from grym_nb.services.handle import ServiceHandle
from tests.services.crowd import storm


class Many(ModelService):
    @task
    def one(self) -> int:
        return 1

    @task
    def echo(self, x: int) -> int:
        return x

    @task
    def parts(self) -> Iterator[int]:
        yield 1
        yield 2

    @task
    def interrupts(self) -> None:
        raise KeyboardInterrupt


class Odd(GrymError):
    """One whose constructor takes what ours does not."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} is not {b}")
        self.pair = (a, b)


@pytest.fixture
def many() -> Iterator[ServiceHandle]:
    with ServiceRegistry() as registry:
        yield registry.register("many", Many).load()


def idle(handle: ServiceHandle) -> bool:
    record = handle._record
    return (record.users, record.lane.free, record.lane.waiting) == (0, 1, 0)


@pytest.mark.parametrize("what", ["calls", "lives", "looks", "submits", "reads", "turns"])
def test_real_interrupts_between_any_two_steps_leave_nothing_behind(what: str) -> None:
    """A storm of SIGALRM turned into KeyboardInterrupt, as Ctrl-C would be, whatever is being done.

    No slot and no count is lost, and no service stays on the way from one state to another.
    """
    assert storm("tests.services.storm", what) == {"odd": "", "answer": 1}


def test_an_interrupted_task_says_so_and_leaves_the_service_ready(many: ServiceHandle) -> None:
    with pytest.raises(Interrupted, match="the service is still ready"):
        many.interrupts()
    assert many.state == "ready" and idle(many)


def test_an_interrupt_in_the_unload_hook_ends_the_drain_all_the_same() -> None:
    class Stubborn(Many):
        def unload(self) -> None:
            raise KeyboardInterrupt

    with ServiceRegistry() as registry:
        handle = registry.register("stubborn", Stubborn).load()
        with pytest.raises(Interrupted, match="it is unloaded"):
            handle.unload()
        assert handle.state == "registered"
        with pytest.raises(Interrupted):
            registry.remove("stubborn") if handle.one() == 1 else None


def test_an_error_with_a_constructor_of_its_own_reaches_every_waiter() -> None:
    class Raises(ModelService):
        @task
        def go(self) -> None:
            raise Odd(1, 2)

    with ServiceRegistry() as registry:
        handle = registry.register("raises", Raises)
        for call in (handle.go, lambda: handle.go.submit().result(10)):
            with pytest.raises(Odd, match="1 is not 2") as caught:
                call()
            assert caught.value.pair == (1, 2)
        result = handle.execute(grym.Task("go"))
        assert not result.success and isinstance(result.error, Odd)


def test_uses_left_in_another_order_leave_no_call_behind(many: ServiceHandle) -> None:
    with ServiceRegistry() as registry:
        other = registry.register("other", Many)
        one, two = many.use(), other.use()
        one.__enter__(), two.__enter__()
        one.__exit__(None, None, None)
        two.__exit__(None, None, None)
        assert current_frame() is None
        many.unload()
        assert many.state == "registered"


def test_a_use_that_is_forgotten_gives_its_slot_back(many: ServiceHandle) -> None:
    forgotten = many.use()
    forgotten.__enter__()
    CURRENT.set(None)
    del forgotten
    gc.collect()
    assert many.one.submit().result(10) == 1


def test_a_stream_is_read_in_one_thread_at_a_time(many: ServiceHandle) -> None:
    """A second reader is refused, and the first goes on."""
    inside, go_on = threading.Event(), threading.Event()

    class Slow(ModelService):
        @task
        def parts(self) -> Iterator[int]:
            inside.set()
            assert go_on.wait(10)
            yield 1

    with ServiceRegistry() as registry:
        stream = registry.register("slow", Slow).parts()
        got: list[Any] = []
        reader = threading.Thread(target=lambda: got.append(next(stream)))
        reader.start()
        assert inside.wait(10)
        with pytest.raises(StateError, match="being read in another thread"):
            next(stream)
        go_on.set()
        reader.join(10)
        assert got == [1]
        stream.close()


def test_map_that_could_never_run_says_so_and_leaves_nothing_in_line(many: ServiceHandle) -> None:
    with many.parts() as stream:
        next(stream)
        with pytest.raises(CallBlocked):
            many.map("echo", [1, 2, 3])
        assert many._record.lane.waiting == 0
    assert idle(many)


def test_a_handle_takes_no_attributes(many: ServiceHandle) -> None:
    """A config set on the handle would look set and do nothing."""
    with pytest.raises(StateError, match="cannot be set") as caught:
        many.gain = 9
    assert "configure(gain=...)" in caught.value.hint
    assert many.one() == 1


def test_an_undeclared_need_is_named_with_the_line_that_declares_it() -> None:
    class Wants(ModelService):
        @task
        def go(self) -> Any:
            return self.needs.dsp

    with ServiceRegistry() as registry, pytest.raises(DependencyError, match="does not declare it") as caught:
        registry.register("wants", Wants).go()
    assert 'needs = ("dsp",)' in caught.value.hint


def test_a_config_given_as_an_option_is_told_where_it_goes() -> None:
    with pytest.raises(ConfigError, match="cannot be registered") as caught:
        grym.register("many", Many, gain=2.0)
    assert "config={'gain': 2.0}" in caught.value.hint
