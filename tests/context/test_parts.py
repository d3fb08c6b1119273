"""The parts of a store by themselves: a timeline against a sorted list, an expiry against a look at all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grym_nb.context import timeline
from grym_nb.context.budget import Budget
from grym_nb.context.expiry import Expiry
from grym_nb.context.index import Entry
from grym_nb.context.item import NOTHING, ContextItem
from grym_nb.context.shelf import Shelf
from grym_nb.context.storage import ELSEWHERE
from grym_nb.context.telling import Telling
from grym_nb.context.timeline import Timeline
from grym_nb.events import EventBus

times = st.integers(0, 12).map(float)
ends = st.one_of(st.none(), times)


def entry(expires: float | None, *, updated: float = 0.0, order: int = 1) -> Entry:
    item = ContextItem(
        "id", "a", None, 1, NOTHING, None, 1, (), None, None, 1.0, 0.0, updated, expires, 1, False, False,
        NOTHING,
    )  # fmt: skip
    return Entry(item, 1, order)


@pytest.mark.parametrize("block", [1, 2, 512])
@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(st.one_of(times, st.integers(0, 40)), min_size=5, max_size=40),
    asked=st.lists(st.tuples(ends, ends), min_size=4, max_size=4),
)
def test_a_timeline_is_a_sorted_list(
    block: int, steps: list[float | int], asked: list[tuple[float | None, float | None]]
) -> None:
    """Times that come in any order, taken out in any order; every range, with both its ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timeline, "_LONGEST", block)
        made = Timeline()
        there: list[tuple[float, int]] = []
        entries: dict[int, Entry] = {}
        for order, step in enumerate(steps):
            if isinstance(step, float):
                entries[order] = entry(None, updated=step, order=order)
                made.add(entries[order])
                there.append((step, order))
            elif there:
                _, gone = there.pop(step % len(there))
                made.remove(entries[gone])
        for since, until in asked:
            found = [
                order
                for time, order in sorted(there, reverse=True)
                if (since is None or time >= since) and (until is None or time <= until)
            ]
            assert [one.order for one in made.newest_first(since, until)] == found
            assert 2 * made.between(since, until) >= len(found)  # a block may be twice as long


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), ends),
            st.tuples(st.just("change"), st.integers(0, 20), ends),
            st.tuples(st.just("forget"), st.integers(0, 20)),
            st.tuples(st.just("next"), times),
        ),
        min_size=5,
        max_size=60,
    )
)
def test_what_is_due_is_found_once_and_what_is_not_never(steps: list[tuple[Any, ...]]) -> None:
    """Extended, shortened, forgotten: the notes of before say nothing."""
    expiry, there = Expiry(), list[Entry]()
    for step in steps:
        if step[0] == "put":
            there.append(entry(step[1]))
            expiry.note(there[-1])
        elif step[0] == "next":
            due = [e for e in there if e.item.expires is not None and e.item.expires <= step[1]]
            found = []
            while (one := expiry.next(step[1])) is not None:
                found.append(one)
            assert sorted(map(id, found)) == sorted(map(id, due))
            there = [e for e in there if e not in due]
        elif there:
            at = there[step[1] % len(there)]
            if step[0] == "forget":
                expiry.forget(at)
                there.remove(at)
            else:
                at.item = at.item._replace(expires=step[2])
                expiry.note(at)


def test_notes_of_what_is_gone_do_not_pile_up() -> None:
    """A store whose items are written anew all the time holds as many notes as items, or about so."""
    expiry = Expiry()
    for n in range(10_000):
        one = entry(float(n))
        expiry.note(one)
        expiry.forget(one)
    stays = entry(1e9)
    for n in range(10_000):
        stays.item = stays.item._replace(expires=1e9 - n)
        expiry.note(stays)
    assert len(expiry._heap) < 200


def test_a_content_that_was_read_too_late_is_not_taken_for_that_of_a_newer_version() -> None:
    shelf = Shelf(Budget(None, None), Telling(EventBus()), history=0, keeps=True)
    old = entry(None).item._replace(content=ELSEWHERE)
    new = old._replace(version=2)
    shelf.add(new, 10)
    assert shelf.fill([old], ["old"], 0.0) == [old._replace(content="old")]
    assert shelf.entries[new.id].item.content is ELSEWHERE
    shelf.fill([new], ["new"], 0.0)
    assert shelf.entries[new.id].item.content == "new"
