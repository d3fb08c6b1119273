"""What is watched for comes in the order in which it happened, to functions, loops and coroutines."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from grym_nb.context import ContextStore, watch
from grym_nb.context.watch import Watch
from grym_nb.errors import StateError, ValidationError
from grym_nb.events import (
    EventBus,
    ItemDeleted,
    ItemEvent,
    ItemEvicted,
    ItemExpired,
    ItemPut,
    ItemUpdated,
)
from tests.services.crowd import all_at_once, outcome, passes, start, until


def test_a_function_hears_of_all_that_happens_to_what_fits() -> None:
    """Every kind, with id, key and age; and nothing of what does not fit, or after it was closed."""
    now = [1000.0]
    heard: list[ItemEvent] = []
    with ContextStore(clock=lambda: now[0], max_items=2) as store:
        watching = store.watch(heard.append, type="a", tags=["t"])
        item = store.put(1, type="a", key="k", tags=["t", "u"], ttl=5)
        store.put(2, type="b", tags=["t"])
        store.update(item.id, 2)
        store.touch(item.id)
        now[0] += 5
        store.sweep()
        gone = store.put(3, type="a", tags=["t"])
        store.delete(gone.id)
        store.clear()
        first = store.put(4, type="a", tags=["t"], priority="low")
        store.put(5, type="c")
        store.put(6, type="c")
        watching.close()
        store.put(7, type="a", tags=["t"])
    kinds = [ItemPut, ItemUpdated, ItemUpdated, ItemExpired, ItemPut, ItemDeleted, ItemPut, ItemEvicted]
    assert [type(event) for event in heard] == kinds
    expired = heard[3]
    assert (expired.id, expired.key, expired.age, expired.at) == (item.id, "k", 5.0, 1005.0)
    assert heard[-1].id == first.id


def test_only_the_kinds_that_are_asked_for() -> None:
    heard: list[ItemEvent] = []
    with ContextStore() as store:
        store.watch(heard.append, kinds=("deleted",))
        item = store.put(1, type="a")
        store.delete(item.id)
        assert [event.id for event in heard] == [item.id]


def test_a_loop_reads_one_after_the_other_until_it_is_closed() -> None:
    with ContextStore() as store:
        watching = store.watch(type="a")
        for n in range(3):
            store.put(n, type="a")
        assert watching.next(0).item.content == 0  # type: ignore[union-attr]
        reading = start(lambda: [event.item.content for event in watching])
        store.put("late", type="a")
        watching.close()
        assert outcome(reading) == [1, 2, "late"]
        assert watching.next() is None and list(watching) == []


def test_a_loop_waits_for_what_is_yet_to_come_and_ends_with_the_store() -> None:
    store = ContextStore()
    watching = store.watch()
    reading = start(lambda: [event.item.content for event in watching])
    for n in range(100):
        store.put(n, type="a")
    store.close()
    assert outcome(reading) == list(range(100))


def test_coroutines_wait_without_holding_up_their_loop() -> None:
    async def read(watching: Any) -> list[Any]:
        return [event.item.content async for event in watching]

    async def main() -> list[list[Any]]:
        with ContextStore() as store:
            watches = [store.watch(type="a"), store.watch(type="a")]
            reading = [asyncio.ensure_future(read(one)) for one in watches]
            for n in range(3):
                await asyncio.to_thread(store.put, n, type="a")
                await asyncio.sleep(0)
            store.put(3, type="a")  # and in the loop's own thread
            for one in watches:
                one.close()
            return await asyncio.gather(*reading)

    assert asyncio.run(main()) == [[0, 1, 2, 3], [0, 1, 2, 3]]


def test_all_who_read_one_watch_hear_of_its_end() -> None:
    async def read(watching: Any) -> list[Any]:
        return [event.item.content async for event in watching]

    async def main() -> list[list[Any]]:
        with ContextStore() as store:
            watching = store.watch()
            reading = [asyncio.ensure_future(read(watching)) for _ in range(3)]
            await asyncio.sleep(0)
            store.put(1, type="a")
        return await asyncio.wait_for(asyncio.gather(*reading), 10)

    assert sorted(asyncio.run(main())) == [[], [], [1]]


def test_a_coroutine_that_is_cancelled_loses_nothing_for_the_next() -> None:
    async def main() -> Any:
        with ContextStore() as store:
            watching = store.watch()
            waiting = asyncio.ensure_future(anext(watching))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            store.put(1, type="a")
            return (await anext(watching)).item.content

    assert asyncio.run(main()) == 1


def test_events_come_in_the_order_in_which_it_happened_from_all_threads() -> None:
    """Versions of one item are heard without a gap or a step back."""
    heard: list[int] = []
    with ContextStore() as store:
        item = store.put(0, type="a")
        store.watch(lambda event: heard.append(event.item.version), kinds="updated")
        all_at_once(8, lambda i: [store.update(item.id, i) for _ in range(100)])
        store.update(item.id, "last")
        assert heard == list(range(2, 803))


def test_who_is_told_may_use_the_store() -> None:
    heard: list[tuple[str, int]] = []
    with ContextStore() as store:

        def tell(event: ItemEvent) -> None:
            heard.append((type(event).__name__, event.item.content))
            if event.item.content < 3 and isinstance(event, ItemPut):
                store.put(event.item.content + 1, type="a")
                store.delete(event.id)

        store.watch(tell)
        store.put(1, type="a")
        assert heard == [
            ("ItemPut", 1),
            ("ItemPut", 2),
            ("ItemDeleted", 1),
            ("ItemPut", 3),
            ("ItemDeleted", 2),
        ]


def test_who_raises_is_dropped_and_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[ItemEvent] = []
    with ContextStore() as store, caplog.at_level(logging.WARNING):

        def broken(event: ItemEvent) -> None:
            raise RuntimeError("no")

        store.watch(broken)
        store.watch(heard.append)
        store.put(1, type="a")
        store.put(2, type="a")
        assert len(heard) == 2
        assert caplog.text.count("broken raised, and is told no more: RuntimeError: no (") == 1
        assert [repr(watch) for watch in store.watches] == ["<Watch: tells append>"]


def test_ctrl_c_in_who_is_told_lets_the_rest_be_told() -> None:
    heard: list[ItemEvent] = []
    with ContextStore() as store:

        def interrupted(event: ItemEvent) -> None:
            if event.item.content == 1:
                raise KeyboardInterrupt

        store.watch(interrupted)
        store.watch(heard.append)
        with pytest.raises(KeyboardInterrupt):
            store.put(1, type="a")
        store.put(2, type="a")
        assert [event.item.content for event in heard] == [2] and len(store) == 2


def test_a_watch_that_nobody_has_any_more_hears_nothing() -> None:
    with ContextStore() as store:
        own = store._telling.own
        watching = store.watch()
        assert own.wants(ItemPut)
        del watching
        gc.collect()
        store.put(1, type="a")  # and that is when it is found to be gone
        assert not own.wants(ItemPut)


def test_stores_that_share_a_bus_are_watched_each_for_itself() -> None:
    bus = EventBus()
    everything: list[ItemEvent] = []
    bus.subscribe(everything.append, ItemEvent)
    with ContextStore(events=bus) as one, ContextStore(events=bus) as other:
        watching = one.watch()
        other.put(1, type="a")
        mine = one.put(2, type="a")
        event = watching.next(0)
        assert event is not None and event.item == mine and watching.next(0) is None
    assert [event.item.content for event in everything] == [1, 2]


def test_a_reader_that_is_slow_misses_the_oldest_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_MOST", 3)
    with ContextStore() as store:
        watching = store.watch()
        for n in range(5):
            store.put(n, type="a")
        assert watching.missed == 2 and "2 missed" in repr(watching)
        assert [watching.next(0).item.content for _ in range(3)] == [2, 3, 4]  # type: ignore[union-attr]
        assert watching.next(0) is None


def test_a_watch_says_whom_it_tells_or_what_is_to_be_read() -> None:
    def show(event: ItemEvent) -> None: ...

    with ContextStore() as store:
        told, read = store.watch(show), store.watch()
        store.put(1, type="a")
        assert (repr(told), repr(read)) == ("<Watch: tells show>", "<Watch: 1 to read>")
        assert read.next(0) is not None
        told.close(), read.close()
        assert (repr(told), repr(read)) == ("<Watch closed: tells show>", "<Watch closed: 0 to read>")


def test_a_watch_ends_with_its_block() -> None:
    with ContextStore() as store:
        with store.watch() as watching:
            store.put(1, type="a")
        store.put(2, type="a")
        assert [event.item.content for event in watching] == [1]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"typ": "a"}, "Did you mean 'type'"),
        ({"since": 3}, "yet to happen"),
        ({"kinds": "putt"}, "Did you mean 'put'"),
        ({"tags": "a"}, "several texts"),
    ],
)
def test_a_watch_that_makes_no_sense_is_refused(wrong: dict[str, Any], told: str) -> None:
    with ContextStore() as store, pytest.raises(ValidationError, match=told):
        store.watch(**wrong)


def test_a_closed_store_is_not_watched() -> None:
    store = ContextStore()
    store.close()
    with pytest.raises(StateError, match="closed"):
        store.watch()


def test_what_is_told_in_one_thread_is_not_waited_for_in_another() -> None:
    """A slow listener holds up whoever tells it, and nobody else's writing."""
    begun, go_on = threading.Event(), threading.Event()
    heard: list[Any] = []
    with ContextStore() as store:

        def slow(event: ItemEvent) -> None:
            heard.append(event.item.content)
            begun.set()
            passes(go_on)

        store.watch(slow)
        telling = start(lambda: store.put(1, type="a"))
        passes(begun)
        store.put(2, type="a")
        assert heard == [1]
        go_on.set()
        outcome(telling)
        assert heard == [1, 2]


def test_whoever_looks_for_events_again_and_again_leaves_nothing_behind() -> None:
    async def main() -> None:
        with ContextStore() as store:
            watching = store.watch()
            for _ in range(20):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(watching), 0.0001)
            assert not watching._waiters
            store.put(1, type="a")
            assert (await anext(watching)).item.content == 1

    asyncio.run(main())


@pytest.mark.parametrize("how", ["deleted", "cleared", "expired"])
def test_what_goes_is_told_with_its_content_wherever_that_is(how: str, tmp_path: Path) -> None:
    now = [1000.0]
    with ContextStore(tmp_path / "context.db", clock=lambda: now[0], max_items=1) as store:
        items = [store.put({"n": n}, type="a", ttl=5) for n in range(3)]
        heard: list[ItemEvent] = []
        store.watch(heard.append, kinds=("deleted", "expired"))
        if how == "deleted":
            for item in items:
                store.delete(item.id)
        elif how == "cleared":
            assert store.clear() == 3
        else:
            now[0] += 5
            store.sweep()
            until(lambda: len(heard) == 3)
        assert sorted(event.item.content["n"] for event in heard) == [0, 1, 2]


def test_what_another_kernel_took_out_says_that_its_content_went_with_it(tmp_path: Path) -> None:
    path = tmp_path / "context.db"
    with ContextStore(path) as one, ContextStore(path) as two:
        item = one.put({"n": 1}, type="a", durable=True)
        two._storage.look(lambda _: None)
        heard: list[ItemEvent] = []
        two.watch(heard.append, kinds="deleted")
        one.delete(item.id)
        until(lambda: heard)
        assert "went with it" in repr(heard[0].item.content)


def test_watches_can_be_looked_at_while_others_come_and_go() -> None:
    with ContextStore() as store:
        done = threading.Event()

        def watching() -> None:
            while not done.is_set():
                some = [store.watch() for _ in range(20)]
                del some

        working = start(watching)
        try:
            for _ in range(3_000):
                assert all(isinstance(one, Watch) for one in store.watches)
        finally:
            done.set()
        assert outcome(working) is None
