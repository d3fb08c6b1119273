"""The time in line is counted by what those wait for who hold the slots, and by how many of them do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from grym_nb.services.stalls import Stalls


@dataclass(eq=False)
class Call:
    """A call, as far as it matters here."""

    has_slot: bool = True


def call() -> Any:
    return Call()


@pytest.mark.parametrize(("slots", "share"), [(1, 1.0), (2, 0.5), (4, 0.25)])
def test_a_second_counts_by_the_share_of_the_slots(slots: int, share: float) -> None:
    stalls, first = Stalls(slots), call()
    before = stalls.until(90.0)
    stalls.begin(first, "device", 100.0)
    assert stalls.since(before, 104.0) == {"device": 4.0 * share}  # while it still waits
    amid = stalls.until(104.0)
    stalls.end(first, 110.0)
    assert stalls.since(before, 200.0) == {"device": 10.0 * share}
    assert stalls.since(amid, 200.0) == {"device": 6.0 * share}
    assert stalls.since(stalls.until(200.0), 300.0) == {}


def test_each_counts_by_what_it_waits_for() -> None:
    stalls, first, second = Stalls(2), call(), call()
    before = stalls.until(0.0)
    stalls.begin(first, "load", 0.0)
    stalls.begin(second, "device", 4.0)
    stalls.end(first, 10.0)
    stalls.end(second, 12.0)
    assert stalls.since(before, 20.0) == {"load": 5.0, "device": 4.0}


def test_one_that_lost_its_slot_holds_up_nobody() -> None:
    stalls, first, second = Stalls(1), call(), call()
    before = stalls.until(0.0)
    stalls.begin(first, "device", 0.0)  # and Ctrl-C comes: it never ends
    first.has_slot = False
    assert stalls.since(before, 50.0) == {}
    stalls.begin(second, "load", 60.0)
    stalls.end(second, 61.0)
    assert stalls.since(before, 100.0) == {"load": 1.0}
