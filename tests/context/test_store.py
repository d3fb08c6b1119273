"""The context store against a plain dict: whatever is done in whatever order, both say the same."""

from __future__ import annotations

import copy
import itertools
import pickle
import re
from collections import OrderedDict, deque
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grym_nb.context import ContextItem, ContextStore, timeline
from grym_nb.errors import (
    ConfigError,
    ItemConflict,
    ItemNotFound,
    ResourceExhausted,
    StateError,
    ValidationError,
)
from grym_nb.events import ItemEvent
from grym_nb.testing import FakeClock
from tests.services.crowd import all_at_once, outcome, start

# -- a model of it ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """An item as a person would write it down."""

    content: Any
    type: str
    key: str | None
    priority: int
    tags: tuple[str, ...]
    source: str | None
    ttl: float | None
    updated: float
    expires: float | None
    version: int
    pinned: bool
    order: int


@dataclass
class Model:
    """Items in a dict, looked through one by one."""

    items: dict[str, Told] = field(default_factory=dict)
    order: Any = field(default_factory=itertools.count)

    def live(self, now: float) -> dict[str, Told]:
        return {id: it for id, it in self.items.items() if it.expires is None or it.expires > now}

    def query(self, now: float, **asked: Any) -> list[str]:
        order = asked.pop("order", "newest")
        limit = asked.pop("limit", None)
        found = [(id, it) for id, it in self.live(now).items() if fits(it, **asked)]
        found.sort(key=lambda pair: pair[1].order, reverse=order != "oldest")
        if order == "priority":
            found.sort(key=lambda pair: -pair[1].priority)
        return [id for id, _ in found][:limit]


def fits(it: Told, **asked: Any) -> bool:
    return (
        asked.get("type") in (None, it.type)
        and asked.get("key") in (None, it.key)
        and asked.get("source") in (None, it.source)
        and set(asked.get("tags", ())) <= set(it.tags)
        and ("any_tags" not in asked or bool(set(asked["any_tags"]) & set(it.tags)))
        and it.priority >= asked.get("min_priority", 0)
        and (asked.get("since") is None or it.updated >= asked["since"])
        and (asked.get("until") is None or it.updated <= asked["until"])
    )


# -- what is done to both --------------------------------------------------------------------------

types, keys, sources = (
    st.sampled_from("ab"),
    st.sampled_from([None, "k1", "k2"]),
    st.sampled_from([None, "s"]),
)
tags = st.lists(st.sampled_from("xyz"), max_size=3, unique=True).map(tuple)
ranks, ttls = st.integers(0, 3), st.sampled_from([None, 1.0, 5.0, 20.0])
which = st.integers(0, 30)
filters = st.fixed_dictionaries(
    {},
    optional={
        "type": types,
        "key": st.sampled_from(["k1", "k2"]),
        "source": st.just("s"),
        "tags": tags,
        "any_tags": tags,
        "min_priority": ranks,
        "since": st.sampled_from([990.0, 1001.0, 1007.0]),
        "until": st.sampled_from([995.0, 1003.0, 1010.0]),
        "order": st.sampled_from(["newest", "oldest", "priority"]),
        "limit": st.integers(0, 3),
    },
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), types, keys, ranks, tags, sources, ttls, st.booleans()),
        st.tuples(st.just("update"), which, st.one_of(st.none(), ranks), st.one_of(st.just("same"), ttls)),
        st.tuples(st.just("delete"), which),
        st.tuples(st.just("touch"), which),
        st.tuples(st.just("pin"), which, st.booleans()),
        st.tuples(st.just("advance"), st.sampled_from([0.5, 1.0, 4.0, 15.0, -3.0])),
        st.tuples(st.just("later"), st.sampled_from([0.5, 1.0, 4.0, 15.0])),
        st.tuples(st.just("clear"), filters),
        st.tuples(st.just("query"), filters),
        st.just(("reopen",)),
    ),
    min_size=15,
    max_size=40,
)


class Both:
    """A store and its model, to which the same is done; with a file, little of it fits into memory."""

    def __init__(self, path: Path | None = None) -> None:
        self.now = 1000.0
        self.path = path
        self.swept = 0
        self.store = self.open()
        self.model = Model()
        self.ids: list[str] = []

    def clock(self) -> float:
        return self.now

    def open(self) -> ContextStore:
        if self.path is None:
            return ContextStore(clock=self.clock)
        return ContextStore(self.path, clock=self.clock, max_bytes=700)

    def reopen(self) -> None:
        if self.path is not None:
            self.store.close()
            self.swept = 0
            self.store = self.open()
            # What is read from a file stands in the order of its times, whatever the clock did meanwhile.
            items = self.model.items
            for id in sorted(items, key=lambda id: (items[id].updated, items[id].order)):
                items[id] = replace(items[id], order=next(self.model.order))

    def do(self, step: tuple[Any, ...]) -> None:
        getattr(self, step[0])(*step[1:])
        self.compare()

    def id(self, which: int) -> str:
        return self.ids[which % len(self.ids)] if self.ids else "nobody"

    def put(self, type: str, key: Any, rank: int, tags: Any, source: Any, ttl: Any, pinned: bool) -> None:
        now = self.clock()
        content = {"n": len(self.ids)}
        item = self.store.put(
            content, type=type, key=key, priority=rank, tags=tags, source=source, ttl=ttl, pinned=pinned
        )
        content["n"] = -1  # the store keeps what it was
        expires = None if ttl is None else now + ttl
        self.ids.append(item.id)
        self.model.items[item.id] = Told(
            {"n": len(self.ids) - 1}, type, key, rank, tags, source, ttl, now, expires, 1, pinned,
            next(self.model.order),
        )  # fmt: skip
        # With each put some of what has expired goes, and is not back when the clock is set back.
        for id, told in list(self.model.items.items()):
            if told.expires is not None and told.expires <= now and id not in self.store._shelf.entries:
                del self.model.items[id]
                self.swept += 1

    def update(self, which: int, rank: int | None, ttl: Any) -> None:
        id, now = self.id(which), self.clock()
        told = self.model.live(now).get(id)
        options = ({} if rank is None else {"priority": rank}) | ({} if ttl == "same" else {"ttl": ttl})
        if told is None:
            with pytest.raises(ItemNotFound):
                self.store.update(id, {"n": 0}, **options)
            return
        with pytest.raises(ItemConflict):
            self.store.update(id, 0, expect=told.version + 1)
        self.store.update(id, {"new": which}, expect=told.version, **options)
        expires = told.expires if ttl == "same" else None if ttl is None else now + ttl
        self.model.items[id] = replace(
            told,
            content={"new": which},
            priority=told.priority if rank is None else rank,
            ttl=told.ttl if ttl == "same" else ttl,
            updated=now,
            expires=expires,
            version=told.version + 1,
            order=next(self.model.order),
        )

    def delete(self, which: int) -> None:
        id = self.id(which)
        if id in self.model.live(self.clock()):
            self.store.delete(id)
            del self.model.items[id]
        else:
            with pytest.raises(ItemNotFound):
                self.store.delete(id)

    def touch(self, which: int) -> None:
        id, now = self.id(which), self.clock()
        if (told := self.model.live(now).get(id)) is not None:
            self.store.touch(id)
            self.model.items[id] = replace(told, expires=None if told.ttl is None else now + told.ttl)

    def pin(self, which: int, pinned: bool) -> None:
        id = self.id(which)
        if (told := self.model.live(self.clock()).get(id)) is not None:
            self.store.pin(id, pinned)
            self.model.items[id] = replace(told, pinned=pinned)

    def advance(self, by: float) -> None:
        self.now += by  # back, too: wall clocks are set

    def later(self, by: float) -> None:
        self.now += by
        gone = len(self.model.items) - len(self.model.live(self.clock()))
        before = self.swept
        self.store.sweep()  # or the thread of its file has done so already
        self.swept = self.store.stats().expired
        assert self.swept - before == gone
        self.model.items = self.model.live(self.clock())

    def clear(self, asked: dict[str, Any]) -> None:
        asked = {name: value for name, value in asked.items() if name not in ("limit", "order")}
        found = self.model.query(self.clock(), **asked)
        assert self.store.clear(**asked) == len(found)
        for id in found:
            del self.model.items[id]

    def query(self, asked: dict[str, Any]) -> None:
        assert [item.id for item in self.store.query(**asked)] == self.model.query(self.clock(), **asked)

    def compare(self) -> None:
        live = self.model.live(self.clock())
        assert len(self.store) == len(live)
        for id, told in live.items():
            item = self.store.get(id)
            assert (item.content, item.version, item.expires, item.pinned, item.priority) == (
                told.content, told.version, told.expires, told.pinned, told.priority,
            )  # fmt: skip
        assert [item.id for item in self.store.query()] == self.model.query(self.clock())


@pytest.mark.parametrize("block", [1, 512], ids=["many blocks", "one block"])
@settings(max_examples=200, deadline=None)
@given(steps=steps)
def test_whatever_is_done_the_store_says_what_a_dict_would(block: int, steps: list[tuple[Any, ...]]) -> None:
    """Puts, updates, deletes, time that goes on and back, sweeps, and every filter in every order."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timeline, "_LONGEST", block)  # small ones are split and emptied all the time
        both = Both()
        for step in steps:
            both.do(step)


@settings(max_examples=60, deadline=None)
@given(steps=steps)
def test_whatever_is_done_a_store_with_a_file_says_what_a_dict_would(steps: list[tuple[Any, ...]]) -> None:
    """The same, with most contents out of memory, and the file closed and opened in between."""
    with TemporaryDirectory() as folder:
        both = Both(Path(folder) / "context.db")
        with both.store:
            for step in steps:
                both.do(step)
        both.store.close()


class Two(Both):
    """Two stores on one file, as of two kernels: what is done in one is asked of the other."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.other = self.open()

    def do(self, step: tuple[Any, ...]) -> None:
        if step[0] != "reopen":
            super().do(step)
        self.store._storage.flush()  # type: ignore[attr-defined]
        self.store, self.other = self.other, self.store
        self.store._storage.look(lambda _: None)
        self.compare()

    def advance(self, by: float) -> None:
        self.now += abs(by)  # set back, each has its own idea of what is the last until it is opened anew

    def later(self, by: float) -> None:
        self.now += by
        self.store.sweep()
        self.model.items = self.model.live(self.clock())


@settings(max_examples=60, deadline=None)
@given(steps=steps)
def test_two_kernels_on_one_file_say_what_one_dict_would(steps: list[tuple[Any, ...]]) -> None:
    """Each step in the one is there for the other, in the same order."""
    with TemporaryDirectory() as folder:
        two = Two(Path(folder) / "context.db")
        with two.store, two.other:
            for step in steps:
                two.do(step)


# -- what is said when it does not fit -------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ({"type": ""}, "type"),
        ({"type": 3}, "type"),
        ({"key": 3}, "key"),
        ({"ttl": 0}, "ttl"),
        ({"ttl": -1.0}, "ttl"),
        ({"ttl": float("nan")}, "ttl"),
        ({"ttl": "60"}, "ttl"),
        ({"ttl": True}, "ttl"),
        ({"priority": "urgent"}, "priority"),
        ({"priority": 1.5}, "priority"),
        ({"priority": True}, "priority"),
        ({"tags": "song"}, "tags"),
        ({"type": " "}, "type"),
        ({"tags": ("a", 3)}, "tags"),
        ({"tags": [{}]}, "tags"),
        ({"tags": 3}, "tags"),
        ({"ttl": float("inf")}, "ttl"),
        ({"metadata": 3}, "metadata"),
    ],
)
def test_an_item_that_makes_no_sense_is_refused_and_nothing_is_kept(wrong: dict[str, Any], path: str) -> None:
    """Each problem by its name; all of them at once."""
    with ContextStore() as store:
        with pytest.raises(ValidationError) as caught:
            store.put(1, **{"type": "a"} | wrong)
        assert [problem.path for problem in caught.value.problems] == [path]
        assert len(store) == 0 and store.stats().puts == 0


def test_everything_that_is_wrong_with_an_item_is_said_at_once() -> None:
    with ContextStore() as store, pytest.raises(ValidationError) as caught:
        store.put(1, type="", ttl=-1, priority="urgent", tags="x")
    assert [problem.path for problem in caught.value.problems] == ["type", "ttl", "priority", "tags"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"typ": "a"}, "Did you mean 'type'?"),
        ({"order": "best"}, "one of newest, oldest, priority"),
        ({"tags": "a"}, "several texts"),
        ({"min_priority": "much"}, "low, normal, high, critical"),
        ({"since": "yesterday"}, "seconds since 1970"),
        ({"since": float("nan")}, "seconds since 1970"),
        ({"until": True}, "seconds since 1970"),
        ({"tags": [[1]]}, "texts"),
        ({"any_tags": np.array([1, 2])}, "texts"),
        ({"key": 3}, "expected text"),
        ({"limit": -1}, "a whole number from 0"),
        ({"limit": 1.5}, "a whole number from 0"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused(wrong: dict[str, Any], told: str) -> None:
    """An unknown filter would else find everything."""
    with ContextStore() as store:
        store.put(1, type="a")
        with pytest.raises(ValidationError, match=re.escape(told)):
            store.query(**wrong)
        assert len(store) == 1


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (lambda store: store.put(1, typ="a"), "Did you mean 'type'?"),
        (lambda store: store.put(1), "missing 1 required keyword-only argument: 'type'"),
        (lambda store: store.latest(), "missing 1 required positional argument: 'type'"),
        (lambda store: store.update("id", metadta={}), "Did you mean 'metadata'?"),
        (lambda store: store.clear(limit=3), "one of type, key"),
        (lambda store: store.table(limits=3), "one of type, key"),
        (lambda store: store.clear(order="oldest"), "one of type, key"),
        (lambda store: store.table(limit=-1), "the limit of a table is a whole number from 0, not -1"),
        (lambda store: store.table(limit="3"), "the limit of a table is a whole number from 0, not '3'"),
        (lambda store: store.latest(None), "of all types: query(limit=1)"),
        (lambda store: store.for_model("m", type="nothing", merge="bogus"), "no such way to merge"),
    ],
)
def test_what_a_method_does_not_take_is_told_with_what_it_does(asked: Any, told: str) -> None:
    with ContextStore() as store:
        store.put(1, type="a")
        with pytest.raises(ValidationError, match=re.escape(told)) as caught:
            asked(store)
        assert len(store) == 1 and "limit.'" not in str(caught.value)


def test_tags_may_be_any_row_of_texts() -> None:
    with ContextStore() as store:
        item = store.put(1, type="a", tags=np.array(["x", "y", "x"]))
        assert item.tags == ("x", "y") and type(item.tags[0]) is str
        assert store.query(tags=np.array(["x", "y"])) == [item] == store.query(any_tags={"y"})
        assert store.put(1, type="a", ttl=60).ttl.__class__ is float


def test_what_is_gone_says_how_it_went() -> None:
    """Never there, deleted, expired before or after a sweep, evicted: a KeyError, too."""
    now = [1000.0]
    with ContextStore(clock=lambda: now[0], max_items=2) as store:
        with pytest.raises(ItemNotFound, match=r"there is no item 'nobody'") as caught:
            store.get("nobody")
        assert isinstance(caught.value, KeyError) and "none yet" in caught.value.hint
        item = store.put(1, type="a", ttl=1)
        now[0] += 1
        for _ in range(2):
            with pytest.raises(ItemNotFound, match=f"{item.id} (has|was) expired"):
                store.get(item.id)
            store.sweep()
        first = store.put(1, type="a")
        store.put(2, type="a")
        store.put(3, type="a")
        with pytest.raises(ItemNotFound, match=f"{first.id} was evicted"):
            store.get(first.id)
        with pytest.raises(ItemNotFound, match=r"nothing of type 'b' with key 'k'") as caught:
            store.latest("b", "k")
        assert "types in the store: a" in caught.value.hint
        store.put(4, type="a", key="here", ttl=1)
        with pytest.raises(ItemNotFound) as caught:
            store.latest("a", "k")
        assert caught.value.hint == "keys of it: here"
        now[0] += 1
        with pytest.raises(ItemNotFound) as caught:
            store.latest("a", "here")
        assert caught.value.hint == "what was there has expired"
        item = store.query(type="a")[0]
        with pytest.raises(ItemNotFound) as caught:
            store.get(item)  # type: ignore[arg-type]
        assert caught.value.hint == "an item is named by its id: item.id"


def test_a_closed_store_says_so() -> None:
    store = ContextStore()
    item = store.put(1, type="a")
    store.close()
    store.close()
    asking = (lambda: store.get(item.id), lambda: store.put(1, type="a"), store.query, store.sweep)
    for asked in asking:
        with pytest.raises(StateError, match="this context store is closed"):
            asked()


# -- what is kept ----------------------------------------------------------------------------------


def test_what_is_put_is_what_is_read_whatever_becomes_of_it_outside() -> None:
    """Containers and arrays are copied, nested ones too; what the store hands out cannot be written to."""
    array, inner = np.arange(3.0), [1, {"x": {2}}]
    content = {"array": array, "inner": inner, "same": inner}
    with ContextStore() as store:
        item = store.put(content, type="a")
        array[0], inner[1], content["new"] = 9.0, None, 1
        kept = store.get(item.id).content
        assert list(kept) == ["array", "inner", "same"]
        assert kept["array"].tolist() == [0.0, 1.0, 2.0] and kept["inner"] == [1, {"x": {2}}]
        assert kept["same"] is kept["inner"]
        with pytest.raises(ValueError, match="read-only"):
            kept["array"][0] = 1.0


def test_what_contains_itself_is_refused() -> None:
    content: list[Any] = [1]
    content.append(content)
    with ContextStore() as store:
        with pytest.raises(ValidationError, match="contains itself"):
            store.put(content, type="a")
        assert len(store) == 0


def test_an_update_merges_metadata_replaces_content_and_keeps_the_expiry() -> None:
    now = [1000.0]
    with ContextStore(clock=lambda: now[0]) as store:
        item = store.put({"a": 1}, type="a", ttl=10, metadata={"x": 1, "y": 1}, tags=["old"])
        now[0] += 3
        new = store.update(item.id, {"b": 2}, metadata={"y": 2})
        assert (new.content, dict(new.metadata)) == ({"b": 2}, {"x": 1, "y": 2})
        assert (new.version, new.expires, new.created, new.updated) == (2, 1010.0, 1000.0, 1003.0)
        assert store.update(item.id, ttl=10, tags=["new"]).expires == 1013.0
        assert [i.id for i in store.query(tags=["new"])] == [item.id] and store.query(tags=["old"]) == []
        assert store.update(item.id, ttl=None).expires is None


def test_earlier_versions_can_be_seen_and_brought_back() -> None:
    with ContextStore(history=2) as store:
        item = store.put("first", type="a")
        for content in ("second", "third", "fourth"):
            store.update(item.id, content)
        assert [i.content for i in store.history(item.id)] == ["second", "third", "fourth"]
        back = store.rollback(item.id, 2)
        assert (back.content, back.version) == ("second", 5)
        with pytest.raises(ItemNotFound, match=r"has no version 9\n"):
            store.diff(item.id, 9)
        with pytest.raises(ItemConflict, match=r"at version 5, not 9\n"):
            store.update(item.id, 1, expect=9)
        with pytest.raises(ItemNotFound, match="has no version 1 any more") as caught:
            store.rollback(item.id, 1)
        assert caught.value.hint == "kept are 3, 4, 5"


# -- the budget ------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), ranks, st.booleans(), st.integers(0, 60)),
            st.tuples(st.just("use"), which),
            st.tuples(st.just("pin"), which, st.booleans()),
            st.tuples(st.just("grow"), which, st.integers(0, 60)),
        ),
        min_size=10,
        max_size=40,
    )
)
def test_the_least_important_and_least_used_goes_first(steps: list[tuple[Any, ...]]) -> None:
    """Never more than the budget; pinned, critical and more important ones stay; a refusal moves nothing."""
    limit = 400  # three or four of them
    with ContextStore(max_bytes=limit) as store:
        ids: list[str] = []
        used: dict[str, int] = {}
        count = itertools.count()

        def refused_or_evicted(before: dict[str, ContextItem], rank: int, new: str | None) -> None:
            gone = [before[id] for id in before if id not in store]
            assert all(not item.pinned and item.priority < 3 and item.priority <= rank for item in gone)
            stay = [
                i
                for i in before.values()
                if i.id in store and not i.pinned and i.priority < 3 and i.id != new
            ]
            order = [(item.priority, used[item.id]) for item in gone]
            assert not order or not stay or max(order) < min((i.priority, used[i.id]) for i in stay)

        for step in steps:
            before = {id: entry.item for id, entry in store._shelf.entries.items()}  # without using them
            if step[0] == "put":
                _, rank, pinned, size = step
                try:
                    item = store.put("x" * size, type="a", priority=rank, pinned=pinned)
                except ResourceExhausted as error:
                    assert "does not fit into a store of at most 400 B" in error.message
                    assert all(id in store for id in before)
                    continue
                ids.append(item.id)
                used[item.id] = next(count)
                refused_or_evicted(before, 3 if pinned else rank, item.id)
            elif ids and (id := ids[step[1] % len(ids)]) in before:
                if step[0] == "use":
                    store.get(id)
                elif step[0] == "pin":
                    store.pin(id, step[2])
                else:
                    try:
                        store.update(id, "x" * step[2])
                    except ResourceExhausted:
                        assert all(one in store for one in before)
                        continue
                    refused_or_evicted(before, 3 if before[id].pinned else before[id].priority, id)
                used[id] = next(count)
            assert store.stats().bytes <= limit


def test_earlier_versions_count_and_go_before_an_update_is_refused() -> None:
    """What several versions share counts once."""
    with ContextStore(max_bytes=1000) as store:
        item = store.put("a" * 300, type="a")
        store.update(item.id, "b" * 300)
        assert store.stats().bytes == 700
        store.update(item.id, tags=["t"])
        store.update(item.id, priority="high")
        assert store.stats().bytes == 700
        store.update(item.id, "c" * 700)
        assert [old.content[0] for old in store.history(item.id)] == ["c"]
        store.update(item.id, "d" * 100)
        assert [old.content[0] for old in store.history(item.id)] == ["c", "d"]
        assert store.stats().bytes == 900
        with pytest.raises(ResourceExhausted):
            store.update(item.id, "e" * 1000)
        assert [old.content[0] for old in store.history(item.id)] == ["c", "d"]
        store.delete(item.id)
        assert store.stats().bytes == 0


def test_an_eviction_is_told_with_its_reason() -> None:
    with ContextStore(max_items=1) as store:
        first = store.put(1, type="a", key="k")
        store.put(2, type="a")
        [went] = store.stats().went
        assert (went.id, went.type, went.key, went.why) == (first.id, "a", "k", "evicted")
        with pytest.raises(ResourceExhausted) as caught:
            store.put(3, type="a", priority="low")
        assert "does not fit into a store of at most 1 item" in caught.value.message


@pytest.mark.parametrize("priority", ["high", "critical"])
def test_what_has_expired_makes_room_before_anything_that_lives(priority: str) -> None:
    clock = FakeClock(1000.0)
    heard: list[str] = []
    with ContextStore(max_items=2, clock=clock) as store:
        store.put(1, type="dead", ttl=5.0, priority=priority)
        alive = store.put(2, type="alive", ttl=None, priority="critical")
        store.watch(lambda event: heard.append(f"{type(event).__name__} {event.item.type}"))
        clock.advance(6.0)
        new = store.put(3, type="new")
        assert {item.id for item in store} == {alive.id, new.id}
        assert [(one.type, one.why) for one in store.stats().went] == [("dead", "expired")]
        assert sorted(heard) == ["ItemExpired dead", "ItemPut new"]
        assert store.stats().expired == 1 and not store.stats().evicted


def test_no_more_of_what_has_expired_goes_at_once_than_is_needed() -> None:
    """A put stays as quick as it is; the rest is for the sweeps."""
    clock = FakeClock(1000.0)
    with ContextStore(max_items=1000, clock=clock) as store:
        dead = [store.put(n, type="dead", ttl=5.0) for n in range(1000)]
        clock.advance(6.0)
        store.put(1, type="new")
        left = sum([id in store._shelf.entries for id in [item.id for item in dead]])
        assert left >= 1000 - 1 - 64 and len(store.query()) == 1


def test_an_update_makes_room_by_what_has_expired_too() -> None:
    clock = FakeClock(1000.0)
    with ContextStore(max_bytes=1000, clock=clock, history=0) as store:
        store.put("x" * 300, type="dead", ttl=5.0)
        alive, other = store.put("x" * 200, type="alive"), store.put("x" * 100, type="other")
        clock.advance(6.0)
        store.update(alive.id, "y" * 600)
        assert {item.id for item in store} == {alive.id, other.id}


def test_where_all_stay_no_higher_priority_is_advised() -> None:
    with ContextStore(max_items=1) as store:
        store.put(1, type="a", pinned=True)
        with pytest.raises(ResourceExhausted) as caught:
            store.put(2, type="a", priority="critical")
        assert "priority" not in caught.value.hint and "1 item; " in (caught.value.cause or "")


# -- several at once -------------------------------------------------------------------------------


def test_eight_threads_lose_no_update_and_no_item() -> None:
    """Compare-and-set counts to the end; puts, deletes and sweeps beside it add up."""
    with ContextStore() as store:
        counter = store.put(0, type="count")

        def work(i: int) -> int:
            mine = 0
            for n in range(200):
                while True:
                    now = store.get(counter.id)
                    try:
                        store.update(counter.id, now.content + 1, expect=now.version)
                        break
                    except ItemConflict as conflict:
                        assert conflict.details["theirs"].version != now.version
                item = store.put(n, type="work", key=f"{i}-{n}", tags=[f"t{n % 3}"])
                if n % 2:
                    store.delete(item.id)
                else:
                    mine += 1
                store.query(type="work", tags=["t1"], limit=3)
                store.sweep(0.001)
            return mine

        told = all_at_once(8, work)
        assert told == [100] * 8
        assert (store.get(counter.id).content, store.get(counter.id).version) == (1600, 1601)
        assert len(store.query(type="work")) == 800


def test_a_sweep_of_many_gives_way_all_the_time() -> None:
    """A hundred thousand due at once: nobody waits for the lock for as long as that takes."""
    now = [1000.0]
    with ContextStore(clock=lambda: now[0]) as store:
        for n in range(20_000):
            store.put(n, type="a", ttl=1)
        stays = store.put(0, type="b")
        now[0] += 1
        sweeping = start(store.sweep)
        seen = 0
        while not sweeping.done():
            assert store.get(stays.id).content == 0
            seen += 1
        assert outcome(sweeping) == 20_000 and seen and len(store) == 1


def test_an_event_of_what_is_touched_or_pinned_has_its_own_time() -> None:
    clock, heard = FakeClock(), list[ItemEvent]()
    with ContextStore(clock=clock) as store:
        item = store.put(1, type="a")
        store.watch(heard.append)
        clock.advance(5.0)
        store.touch(item.id)
        clock.advance(5.0)
        store.pin(item.id)
    assert [event.at - item.created for event in heard] == [5.0, 10.0]


def test_without_a_sweeper_what_has_expired_goes_a_little_at_each_put() -> None:
    clock, heard = FakeClock(), list[ItemEvent]()
    with ContextStore(clock=clock) as store:
        for n in range(20):
            store.put(n, type="a", ttl=1)
        store.watch(heard.append, kinds=["expired"])
        clock.advance(1.0)
        store.put(0, type="b")
        assert 0 < len(heard) < 20
        store.put(0, type="b")
        assert len(heard) == 20 and store.stats().items == 2


@pytest.mark.parametrize("flag", ["yes", 1, None])
def test_a_flag_is_true_or_false(flag: Any) -> None:
    with ContextStore() as store:
        item = store.put(1, type="a")
        for wrong in (
            lambda: store.put(1, type="a", pinned=flag),
            lambda: store.put(1, type="a", durable=flag),
            lambda: store.pin(item.id, flag),
            lambda: store.update(item.id, pinned=flag),
        ):
            with pytest.raises(ValidationError, match="True or False"):
                wrong()
        assert store.get(item.id).version == 1 and len(store) == 1


def test_a_table_without_a_limit_has_all() -> None:
    with ContextStore() as store:
        for n in range(60):
            store.put(n, type="a")
        assert len(store.table(limit=None).rows) == 60 and len(store.table().rows) == 51


@pytest.mark.parametrize("kind", [lambda text: _Named(text), np.str_])
def test_names_are_plain_text_whatever_they_were(kind: Any, tmp_path: Path) -> None:
    """So that they can be said of a merge in a file, and are alike in every kernel."""
    a = kind("a")
    with ContextStore(tmp_path / "context.db") as store:
        item = store.put({"x": 1}, type=a, key=a, source=a, workflow=a, task=a, tags=[a])
        assert {*map(type, (item.type, item.key, item.source, item.workflow, item.task, *item.tags))} == {str}
        assert {item.type, item.key, item.source, item.workflow, item.task, *item.tags} == {"a"}
        store.update(item.id, {"x": 2})
        merged = store.update(item.id, {"y": 3}, expect=1, merge="union")
        assert merged.provenance["y"][0]["source"] == "a" and store.query(source=a, tags=[a]) == [merged]


class _Named(StrEnum):
    A = "a"


def test_an_empty_store_is_still_a_store() -> None:
    with ContextStore() as store:
        assert store and not len(store)
    assert store.closed


def test_a_name_that_sqlite_knows_is_no_file() -> None:
    with pytest.raises(ConfigError, match=r"ContextStore\(\) is in memory"):
        ContextStore(":memory:")


def test_its_table_is_shown_and_says_what_is_in_a_large_content() -> None:
    with ContextStore() as store:
        store.put(dict.fromkeys("abcdefg", 1), type="a", key="k" * 100, pinned=True)
        store.put(list(range(20)), type="b")
        table = store.table(limit=1)
        assert "[0, 1, 2, … 20 in all]" in repr(table) and "1 more" in repr(table)
        assert table._repr_html_() == table.html()
        told = repr(store.latest("a"))
        assert "{'a': 1, 'b': 1, 'c': 1, … 7 in all}" in told and "pinned" in told and len(told) < 220


def test_a_key_of_music_is_shown_and_one_of_an_account_is_not() -> None:
    with ContextStore() as store:
        store.put({"key": "C major", "max_tokens": 5}, type="tonality")
        store.put({"key": "sk-0123456789abcdef0123", "api_key": "hunter2"}, type="account")
        told = repr(store.table())
    assert "C major" in told and "'max_tokens': 5" in told
    assert "sk-0" not in told and "hunter2" not in told


def test_an_iterator_is_as_good_as_a_list_of_tags() -> None:
    with ContextStore() as store:
        item = store.put(1, type="a", tags=iter(["x"]))
        store.put(2, type="a")
        assert store.query(tags=iter(["x"])) == [item] == store.for_model("m", tags=iter(["x"]))
        other = store.update(item.id, 3)
        both = store.update(item.id, 4, tags=iter(["y"]), expect=1, merge="newest")
        assert other.tags == ("x",) and both.tags == ("y",)


def test_one_of_no_tags_is_none_of_them() -> None:
    with ContextStore() as store:
        item = store.put(1, type="a", tags=["x"])
        assert store.query(any_tags=[]) == [] == store.query(type="a", any_tags=())
        assert store.clear(any_tags=[]) == 0 and store.query() == [item]


class _Kind(StrEnum):
    TEMPO = "tempo"


@pytest.mark.parametrize("type", [_Kind.TEMPO, np.str_("tempo")])
def test_a_type_that_is_more_than_text_holds_as_long_as_the_text(type: str) -> None:
    with ContextStore(ttls={"tempo": 60}) as store:
        item = store.put(1, type=type)
        assert item.ttl == 60 and item.type.__class__ is str
        assert store.latest("tempo") == item


def test_an_item_can_be_copied_and_pickled() -> None:
    with ContextStore() as store:
        item = store.put({"a": [1]}, type="a", metadata={"b": [2]})
        plain = store.put(1, type="a")
    for each in (item, plain):
        assert copy.deepcopy(each) == each == pickle.loads(pickle.dumps(each))
    theirs = copy.deepcopy(item)
    theirs.content["a"].append(2)
    assert item.content == {"a": [1]}


def test_where_each_part_of_a_merge_came_from_stays_so() -> None:
    with ContextStore() as store:
        item = store.put({"a": 1}, type="a")
        store.update(item.id, {"a": 2})
        both = store.update(item.id, {"a": 3}, expect=1, merge="newest")
        with pytest.raises(ValidationError):
            both.provenance["a"] = ()  # type: ignore[index]


def test_who_merges_and_writes_as_well_is_told_of_the_conflict_in_the_end() -> None:
    with ContextStore() as store:
        item = store.put(0, type="a")
        store.update(item.id, 1)

        def meddles(items: list[ContextItem]) -> int:
            store.update(item.id, 2)
            return 3

        with pytest.raises(ItemConflict):
            store.update(item.id, 9, expect=1, merge=meddles)


@dataclass
class _Big:
    parts: list[Any]


def test_what_objects_and_metadata_hold_is_counted() -> None:
    array = np.zeros(10_000)
    with ContextStore() as store:
        for content in (_Big([array]), OrderedDict(a=array), deque([array])):
            before = store.stats().bytes
            store.put(content, type="a")
            assert store.stats().bytes - before > array.nbytes
        before = store.stats().bytes
        store.put(1, type="a", metadata={"array": array})
        assert store.stats().bytes - before > array.nbytes


def test_garbage_that_asks_the_store_in_the_middle_of_a_change_is_refused_and_hangs_nobody() -> None:
    """As `weakref.finalize(model, store.delete, id)` may: collected wherever Python happens to be."""
    from grym_nb.context import index

    with ContextStore() as store:
        item = store.put(1, type="a")
        told: list[str] = []
        add = index.Index.add

        def collecting(self: Any, entry: Any) -> None:
            for ask in (
                lambda: store.delete(item.id),
                lambda: store.put(1, type="b"),
                store.query,
                store.stats,
                store.close,
            ):
                with pytest.raises(StateError, match="asked by a finalizer"):
                    ask()
                told.append("refused")
            add(self, entry)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(index.Index, "add", collecting)
            store.put(2, type="a")
        assert len(told) == 5 and len(store) == 2


def test_what_goes_may_ask_the_store_to_change(tmp_path: Path) -> None:
    """Its own `__del__` runs with no lock held: of a version that is forgotten, and of what has expired."""

    class Asks:
        def __init__(self, store: ContextStore, id: str) -> None:
            self.ask = lambda: store.delete(id)

        def __del__(self) -> None:
            with suppress(ItemNotFound):
                self.ask()

    clock = FakeClock()
    with ContextStore(clock=clock, history=0) as store:
        other = store.put(1, type="other", ttl=None)
        item = store.put(Asks(store, other.id), type="a", ttl=None)
        del item
        store.update(store.latest("a").id, 2)
        assert other.id not in store
        other = store.put(1, type="other", ttl=None)
        store.put(Asks(store, other.id), type="a", ttl=1)
        clock.advance(1.0)
        store.sweep()
        assert other.id not in store


# -- what is in memory, in full --------------------------------------------------------------------


@pytest.mark.parametrize("where", ["memory", "file"])
def test_what_is_said_of_an_item_counts_however_it_came(where: str, tmp_path: Path) -> None:
    """By put, update, rollback, with another store, from a file, and with the content elsewhere."""
    path = None if where == "memory" else tmp_path / "context.db"
    said = {"blob": "x" * 100_000}
    with ContextStore(path, history=0) as store:
        item = store.put(1, type="a", metadata=said)
        size = store.stats().bytes
        assert size > 100_000
        assert store.update(item.id, 2) and store.stats().bytes == size
        assert store.update(item.id, metadata={"blob": ""}) and store.stats().bytes < 1000
        assert store.update(item.id, metadata=said) and store.stats().bytes == size
        with ContextStore(tmp_path / "other.db") as other:
            other.take_over(store)
            assert other.stats().bytes == size
        with ContextStore(tmp_path / "other.db") as other:
            assert (other.stats().in_memory, other.stats().bytes > 100_000) == (0, True)
            assert other.get(item.id).content == 2 and other.stats().bytes == size
            other.delete(item.id)
            assert other.stats().bytes == 0


def test_earlier_versions_count_what_is_theirs_alone() -> None:
    with ContextStore(history=2) as store:
        item = store.put(b"x" * 1000, type="a", metadata={"m": "y" * 5000})
        first = store.stats().bytes
        store.update(item.id, tags=["t"])
        assert store.stats().bytes == first  # all of it is shared
        store.update(item.id, metadata={"m": "z" * 5000})
        assert first + 5000 <= store.stats().bytes < first + 6000
        store.rollback(item.id, 1)
        assert first + 10_000 <= store.stats().bytes < first + 12_000
        store.update(item.id, b"")
        store.update(item.id, b"")
        store.update(item.id, b"")
        assert store.stats().bytes < 6000


def test_a_budget_holds_for_what_is_said_of_items_too(tmp_path: Path) -> None:
    with ContextStore(max_bytes=10_000) as store:
        item = store.put(1, type="a")
        with pytest.raises(ResourceExhausted):
            store.update(item.id, metadata={"m": "x" * 20_000})
    with ContextStore(tmp_path / "context.db", max_bytes=10_000) as store:
        items = [store.put(b"y" * 1000, type="a", metadata={"m": "x" * 3000}) for _ in range(3)]
        assert store.stats().in_memory == 0 and 9000 < store.stats().bytes < 10_000
        for item in items:
            store.get(item.id)
            store.delete(item.id)
        assert store.stats().bytes == 0


def test_held_is_all_that_is_in_memory() -> None:
    """Earlier versions, what is said of items, and what has expired but was not swept."""

    class Model:
        pass

    now = [1000.0]
    with ContextStore(clock=lambda: now[0]) as store:
        old, new, said = Model(), Model(), Model()
        first = store.put(old, type="a", ttl=None)
        store.update(first.id, new)
        second = store.put(1, type="a", metadata={"m": said}, ttl=5)
        now[0] += 5
        held = store.held()
        assert held == {first.id: (new, old), second.id: (1, {"m": said})}
        store.sweep()
        assert second.id not in store.held()


def test_held_reads_nothing(tmp_path: Path) -> None:
    with ContextStore(tmp_path / "context.db", max_items=1) as store:
        for n in range(2):
            store.put(n, type="a")
        assert list(store.held().values()) == [(), (1,)]
