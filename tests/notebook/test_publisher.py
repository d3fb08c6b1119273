"""The publisher: the latest wins, four messages a second at most, none where nothing is new."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from grym_nb.errors import StateError
from grym_nb.notebook.publisher import EVERY, Publisher
from grym_nb.pulse import Pulse, Workers
from grym_nb.testing import FakeClock


class Source:
    """Views that a test changes, and what was sent of them."""

    def __init__(self) -> None:
        self.value = 0
        self.looks = 0
        self.sent: list[dict[str, Any]] = []
        self.whole = 0

    def look(self) -> dict[str, dict[str, Any]]:
        self.looks += 1
        return {"v": {"value": self.value}}

    def send_all(self) -> None:
        self.whole += 1


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(100.0)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def publisher(source: Source, clock: FakeClock) -> Publisher:
    made = Publisher(source.look, source.sent.append, source.send_all, clock=clock, wall=lambda: 5.0)
    made.prime()
    return made


def ticks(publisher: Publisher, clock: FakeClock, seconds: float, tick: float = 0.002) -> None:
    """Let time pass, and whoever is due publish."""
    for _ in range(round(seconds / tick)):
        if publisher.due():
            publisher.step()
        clock.advance(tick)


def test_the_first_page_has_everything_and_then_what_is_new(publisher: Publisher, source: Source) -> None:
    """Each message says on which it builds."""
    assert publisher.whole() == {"seq": 1, "now": 5.0, "views": {"v": {"value": 0}}}
    assert publisher.step() is None, "nothing is new"
    source.value = 1
    publisher.step()
    source.value = 2
    publisher.step()
    assert source.sent == [
        {"seq": 2, "base": 1, "now": 5.0, "views": {"v": {"head": {"value": 1}}}},
        {"seq": 3, "base": 2, "now": 5.0, "views": {"v": {"head": {"value": 2}}}},
    ]
    assert publisher.whole()["seq"] == 3


def test_five_hundred_changes_a_second_are_four_messages(
    publisher: Publisher, source: Source, clock: FakeClock
) -> None:
    """The latest wins."""
    for _ in range(500 * 3):
        source.value += 1
        publisher.poke()
        if publisher.due():
            publisher.step()
        clock.advance(1 / 500)
    assert 10 <= len(source.sent) <= 13
    assert source.sent[-1]["views"]["v"]["head"]["value"] >= 1500 - 500 * 2 * EVERY


def test_at_rest_nothing_is_sent_and_it_looks_less_often(
    publisher: Publisher, source: Source, clock: FakeClock
) -> None:
    """Once a second when nothing has moved for a while, every five where nobody looks."""
    ticks(publisher, clock, 10.0, tick=0.25)
    source.looks = 0
    ticks(publisher, clock, 10.0, tick=0.25)
    assert 9 <= source.looks <= 11
    ticks(publisher, clock, 40.0, tick=0.25)
    source.looks = 0
    ticks(publisher, clock, 20.0, tick=0.25)
    assert 3 <= source.looks <= 5
    publisher.seen()
    clock.advance(EVERY)
    assert publisher.due(), "somebody looks again"
    assert source.sent == []


def test_a_page_that_cannot_be_heard_while_a_cell_runs_is_looked_at(
    publisher: Publisher, clock: FakeClock
) -> None:
    """And for a while after it: its word is still in line then."""
    publisher.busy(True)
    clock.advance(1000.0)
    assert publisher.pace() <= 1.0
    publisher.busy(False)
    assert publisher.pace() <= 1.0
    clock.advance(30.0)
    assert publisher.pace() > 1.0


def test_a_page_that_has_missed_something_gets_everything_in_one_message(
    publisher: Publisher, source: Source
) -> None:
    """Instead of what is new."""
    source.value = 3
    publisher.resend()
    publisher.step()
    assert (source.whole, source.sent) == (1, [])
    assert publisher.whole()["views"] == {"v": {"value": 3}}
    publisher.step()
    assert source.whole == 1


def test_two_never_publish_at_a_time(clock: FakeClock) -> None:
    """One writer: who comes second leaves it to the first."""
    inside, go_on = threading.Event(), threading.Event()
    sent: list[object] = []

    def look() -> dict[str, dict[str, Any]]:
        if sent or inside.is_set():
            return {"v": {"value": 2}}
        inside.set()
        go_on.wait()
        return {"v": {"value": 1}}

    publisher = Publisher(look, sent.append, clock=clock)
    first = threading.Thread(target=publisher.step)
    first.start()
    assert inside.wait(20)
    assert publisher.step() is None
    assert not publisher.due()
    go_on.set()
    first.join(20)
    assert len(sent) == 1


def test_it_publishes_by_itself_until_it_is_closed(source: Source) -> None:
    """The pulse says when; nothing is left of it afterwards."""
    sent = threading.Event()
    source.value = 7
    publisher = Publisher(source.look, lambda _: sent.set())
    pulse, workers = Pulse(), Workers("test", linger=5.0, most=1)
    publisher.start(pulse, workers)
    assert sent.wait(20)
    publisher.close()
    publisher.close()
    assert publisher.step() is None
    assert not publisher.due()
    workers.close(5.0)
    assert pulse.close() == ()


def test_one_that_cannot_look_says_so_once_in_a_while(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Not four times a second; and it is over with a runtime that was closed."""
    error: Exception = ValueError("no")

    def look() -> dict[str, dict[str, Any]]:
        raise error

    publisher = Publisher(look, lambda _: None, clock=clock)
    publisher._step_safely()
    assert "the dashboard could not be brought up to date" in caplog.text
    clock.advance(1.0)
    assert not publisher.due()
    clock.advance(6.0)
    assert publisher.due()
    error = StateError("closed")
    publisher._step_safely()
    clock.advance(60.0)
    assert not publisher.due()
