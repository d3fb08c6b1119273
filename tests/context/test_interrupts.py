"""Ctrl-C at any moment, contents that call back, and what went: nothing is left behind."""

from __future__ import annotations

import gc
import weakref

import pytest

from grym_nb.context import ContextStore
from tests.services.crowd import outcome, start, storm


@pytest.mark.parametrize("where", ["memory", "file"])
def test_real_interrupts_between_any_two_steps_leave_a_store_whole(where: str) -> None:
    """A storm of SIGALRM turned into KeyboardInterrupt: indexes, counts, expiry, memory and file agree."""
    assert storm("tests.context.storm", where) == {"wrong": ""}


class Thing:
    """A content of the user's own."""


@pytest.mark.parametrize("how", ["delete", "update", "evict", "expire", "clear", "close"])
def test_what_went_is_let_go_of(how: str) -> None:
    """Whether it was taken out, written over, or had to make room: nothing of it stays in memory."""
    now = [1000.0]
    with ContextStore(clock=lambda: now[0], max_items=3, history=0) as store:
        thing = Thing()
        held = weakref.ref(thing)
        item = store.put(thing, type="a", priority="low", ttl=10)
        del thing
        id = item.id
        del item
        if how == "delete":
            store.delete(id)
        elif how == "update":
            store.update(id, 1)
        elif how == "evict":
            for n in range(3):
                store.put(n, type="a")
        elif how == "expire":
            now[0] += 10
            store.sweep()
        elif how == "clear":
            store.clear(type="a")
        else:
            store.close()
        gc.collect()
        assert held() is None


def test_lines_of_what_waits_do_not_grow_with_what_went() -> None:
    with ContextStore(max_bytes="1GB") as store:
        item = store.put(0, type="a")
        for n in range(1_000):
            store.touch(item.id)
            store.update(item.id, n)
            store.delete(store.put(n, type="b").id)
        shelf = store._shelf
        assert max(len(heap) for heap in shelf.budget._heaps) < 100 and len(shelf._expiry._heap) < 200


def test_a_content_may_ask_the_store_when_it_goes() -> None:
    """Its `__del__` runs with no lock of ours held."""
    with ContextStore(max_items=2) as store:
        asked: list[int] = []

        class Asking:
            def __del__(self) -> None:
                asked.append(len(store))

        def work() -> None:
            for _ in range(4):
                store.put(Asking(), type="a")
            store.update(store.put(Asking(), type="a").id, 1)
            store.delete(store.put(Asking(), type="a").id)
            store.put(Asking(), type="a")
            store.clear()

        assert outcome(start(work)) is None
        gc.collect()
        assert len(asked) == 7


def test_a_watch_may_be_collected_while_the_bus_is_busy() -> None:
    """In a circle, it goes whenever the collector runs: also in the middle of a subscription."""
    with ContextStore() as store:

        def work() -> None:
            for _ in range(200):
                watching = store.watch()
                watching.me = watching  # type: ignore[attr-defined]
                store.watch(lambda event: None).close()
            gc.collect()
            store.put(1, type="a")

        assert outcome(start(work)) is None
