"""The bus carries what happened to those who asked, and never lets one of them hurt the rest."""

from __future__ import annotations

import logging
import threading
from dataclasses import FrozenInstanceError

import pytest

from grym_nb.events import (
    CallEnded,
    Event,
    EventBus,
    ServiceEvent,
    ServiceRegistered,
    ServiceRemoved,
    StateChanged,
)

REGISTERED = ServiceRegistered(1.0, "a", "v1")
REMOVED = ServiceRemoved(2.0, "a")


@pytest.fixture
def bus() -> EventBus:
    return EventBus()


def test_events_are_frozen_records_that_compare_by_what_happened() -> None:
    assert StateChanged(1.0, "a", "ready", "failed", "it broke") == StateChanged(
        service="a", at=1.0, before="ready", after="failed", reason="it broke"
    )
    with pytest.raises(FrozenInstanceError):
        REMOVED.at = 3.0  # type: ignore[misc]


def test_a_subscriber_without_kinds_gets_everything_in_order(bus: EventBus) -> None:
    seen: list[Event] = []
    bus.subscribe(seen.append)
    bus.publish(REGISTERED)
    bus.publish(REMOVED)
    assert seen == [REGISTERED, REMOVED]


def test_a_subscriber_with_kinds_gets_only_these(bus: EventBus) -> None:
    seen: list[Event] = []
    bus.subscribe(seen.append, ServiceRemoved, CallEnded)
    bus.publish(REGISTERED)
    bus.publish(REMOVED)
    assert seen == [REMOVED]


@pytest.mark.parametrize(
    "kinds",
    [
        (ServiceRemoved, Event),
        (ServiceRemoved, ServiceRemoved),
        (ServiceEvent, ServiceRemoved),
        (ServiceEvent,),
        (),
    ],
)
def test_each_event_comes_once_however_it_was_asked_for(
    bus: EventBus, kinds: tuple[type[Event], ...]
) -> None:
    seen: list[Event] = []
    bus.subscribe(seen.append, *kinds)
    bus.publish(REMOVED)
    assert seen == [REMOVED]


def test_a_bare_event_comes_once(bus: EventBus) -> None:
    seen: list[Event] = []
    bus.subscribe(seen.append)
    bus.publish(Event(1.0))
    assert seen == [Event(1.0)]


def test_ending_one_subscription_leaves_another_of_the_same_callable(bus: EventBus) -> None:
    seen: list[Event] = []
    end = bus.subscribe(seen.append, ServiceRegistered)
    bus.subscribe(seen.append, ServiceRemoved)
    twice = bus.subscribe(seen.append, ServiceRemoved)
    end()
    twice()
    twice()
    bus.publish(REGISTERED)
    bus.publish(REMOVED)
    assert seen == [REMOVED]


def test_it_is_known_whether_anybody_wants_a_kind(bus: EventBus) -> None:
    assert not bus.wants(CallEnded)
    end = bus.subscribe(lambda event: None, ServiceRemoved)
    assert (bus.wants(CallEnded), bus.wants(ServiceRemoved)) == (False, True)
    end()
    assert not bus.wants(ServiceRemoved)
    bus.subscribe(lambda event: None)
    assert bus.wants(CallEnded)


def test_a_subscriber_that_raises_is_logged_and_dropped_and_the_rest_still_hear(
    bus: EventBus, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Event] = []

    def broken(event: Event) -> None:
        raise ValueError("no")

    bus.subscribe(broken)
    bus.subscribe(seen.append)
    bus.publish(REGISTERED)
    bus.publish(REMOVED)
    assert seen == [REGISTERED, REMOVED]
    assert [(r.name, r.levelno) for r in caplog.records] == [("grym_nb.events", logging.ERROR)]
    assert "is dropped" in caplog.text and "ValueError: no" in caplog.text


def test_ctrl_c_in_a_subscriber_is_not_swallowed(bus: EventBus) -> None:
    def interrupted(event: Event) -> None:
        raise KeyboardInterrupt

    bus.subscribe(interrupted)
    with pytest.raises(KeyboardInterrupt):
        bus.publish(REMOVED)


def test_a_subscriber_may_subscribe_end_and_publish(bus: EventBus) -> None:
    seen: list[str] = []

    def first(event: Event) -> None:
        end()
        seen.append("first")
        bus.subscribe(lambda event: seen.append("second"), ServiceRemoved)
        bus.publish(REMOVED)

    end = bus.subscribe(first, ServiceRegistered)
    bus.publish(REGISTERED)
    bus.publish(REGISTERED)
    assert seen == ["first", "second"]


def test_subscribers_come_and_go_while_events_are_published(bus: EventBus) -> None:
    seen: list[Event] = []
    bus.subscribe(seen.append, ServiceRemoved)
    barrier = threading.Barrier(4)

    def churn() -> None:
        barrier.wait()
        for _ in range(200):
            bus.subscribe(lambda event: None)()

    def publish() -> None:
        barrier.wait()
        for _ in range(200):
            bus.publish(REMOVED)

    threads = [threading.Thread(target=f) for f in (churn, churn, publish, publish)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen == [REMOVED] * 400
    assert not bus.wants(CallEnded)
