"""A clock that tests drive, and registries that must be empty of threads when a test is over."""

from __future__ import annotations

from collections.abc import Iterator

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
