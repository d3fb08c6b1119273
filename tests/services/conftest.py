"""A clock that tests drive, and registries that must be empty of threads when a test is over."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from grym_nb.services import ServiceRegistry
from grym_nb.testing import FakeClock
from tests.services.crowd import outcome, start


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still until the test moves it."""
    return FakeClock(1000.0)


@pytest.fixture
def registry() -> Iterator[ServiceRegistry]:
    """A registry on the real clock; nothing of it may run any more when the test is over."""
    registry = ServiceRegistry()
    yield registry
    assert outcome(start(registry.close, 10.0)) == ()


@pytest.fixture
def driven(clock: FakeClock) -> Iterator[ServiceRegistry]:
    """A registry on the test's `clock`; nothing of it may run any more when the test is over."""
    registry = ServiceRegistry(clock=clock)
    yield registry
    assert outcome(start(registry.close, 10.0)) == ()


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[Callable[[], Any]], None]]:
    """Gives ``ctrl_c(when)``: press Ctrl-C in the main thread as soon as `when` returns."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("Ctrl-C comes to the main thread, and this is another")
    main = threading.main_thread().ident
    assert main is not None
    felt = threading.Event()
    pressing: list[Any] = []

    def interrupt(*_: object) -> None:
        if not felt.is_set():
            felt.set()
            raise KeyboardInterrupt

    def press(when: Callable[[], Any]) -> None:
        def wait() -> None:
            when()
            # A signal that comes just before a lock begins to sleep wakes nobody: people press again.
            while not felt.is_set():
                signal.pthread_kill(main, signal.SIGINT)
                felt.wait(0.01)

        pressing.append(start(wait))

    before = signal.signal(signal.SIGINT, interrupt)
    yield press
    for pressed in pressing:
        outcome(pressed)
    signal.signal(signal.SIGINT, before)
