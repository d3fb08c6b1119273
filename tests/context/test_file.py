"""A store with a file: what is in it outlives the kernel, is shared with others, and is always whole."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import warnings
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, make_dataclass
from enum import Flag
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grym_nb.context import ContextStore, codec, schema, sqlite, statements, storable
from grym_nb.errors import ItemConflict, ItemNotFound, StateError, StorageError, ValidationError
from grym_nb.events import ItemDeleted, ItemEvent, ItemExpired, ItemPut, ItemUpdated
from tests.services.crowd import all_at_once, outcome, passes, start, until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "context.db"


@pytest.fixture
def now() -> list[float]:
    return [1000.0]


def asked(path: Path, query: str) -> Any:
    """What another program would find in the file."""
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchone()[0]


def rows(path: Path) -> int:
    return int(asked(path, "SELECT count(*) FROM items"))


def caught_up(store: ContextStore) -> None:
    store._storage.look(lambda _: None)


# -- over the end of the kernel --------------------------------------------------------------------


def test_everything_said_of_an_item_is_there_after_a_restart(path: Path, now: list[float]) -> None:
    """Content, names, tags, metadata, provenance, history, pin, times and version; the time goes on."""
    with ContextStore(path, clock=lambda: now[0]) as store:
        item = store.put(
            {"curve": np.arange(1000.0), "at": (1, 2)}, type="tempo", key="k", priority="high", ttl=60,
            tags=["a", "b"], source="s", workflow="w", task="t", metadata={"how": {1, 2}}, pinned=True,
        )  # fmt: skip
        store.update(item.id, {"curve": None}, metadata={"more": 1})
        store.put("for ever", type="text", ttl=None)
        want = store.get(item.id)
    now[0] += 59
    with ContextStore(path, clock=lambda: now[0]) as store:
        assert store.get(item.id) == want and store.get(item.id).left(now[0]) == 1.0
        old, new = store.history(item.id)
        assert old.content["curve"].tolist() == list(range(1000)) and old.content["at"] == (1, 2)
        assert (new, store.rollback(item.id, 1).version) == (want, 3)
        now[0] += 1
        with pytest.raises(ItemNotFound, match="has expired"):
            store.get(item.id)
        assert [i.content for i in store.query()] == ["for ever"]
    with ContextStore(path, clock=lambda: now[0]) as store:
        store.sweep()  # or its thread has done so already
        assert (store.stats().expired, len(store)) == (1, 1)
    assert rows(path) == 1


def test_the_last_written_is_the_newest_after_a_restart_too(path: Path) -> None:
    """And not what was only touched or pinned."""
    with ContextStore(path) as store:
        first, second, third = (store.put(n, type="a") for n in range(3))
        store.update(second.id, "new")
        store.touch(first.id)
        store.pin(third.id)
        order = [item.id for item in store.query()]
        assert order == [second.id, third.id, first.id]
    with ContextStore(path) as store:
        assert [item.id for item in store.query()] == order


def test_no_more_versions_are_kept_in_the_file_than_are_asked_for(path: Path) -> None:
    """And no content that no version has; one that several share is there once."""
    with ContextStore(path, history=2) as store:
        item = store.put(0, type="a")
        for n in range(1, 5):
            store.update(item.id, n)
        store.update(item.id, tags=["t"])
        assert [old.content for old in store.history(item.id)] == [3, 4, 4]
        assert (asked(path, "SELECT count(*) FROM past"), asked(path, "SELECT count(*) FROM contents")) == (
            2,
            2,
        )
        store.delete(item.id)
        assert (asked(path, "SELECT count(*) FROM past"), asked(path, "SELECT count(*) FROM contents")) == (
            0,
            0,
        )


def test_the_file_and_what_is_beside_it_are_for_its_owner_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        with ContextStore(path) as store:
            store.put(1, type="a", durable=True)
            files = sorted(path.parent.iterdir())
            assert [file.name for file in files] == ["context.db", "context.db-shm", "context.db-wal"]
            assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    finally:
        os.umask(before)
    assert [file.name for file in path.parent.iterdir()] == ["context.db"]


def test_a_durable_item_is_in_the_file_when_put_returns_and_others_soon_after(path: Path) -> None:
    with ContextStore(path) as store:
        for n in range(3):
            store.put(n, type="a", durable=True)
            assert rows(path) == n + 1
        store.put(3, type="a")
        until(lambda: rows(path) == 4)
        assert store.get(store.put(4, type="a").id).content == 4  # here at once
        stats = store.stats().file
        assert stats is not None and (stats.path, stats.journal) == (str(path), "wal")


def test_a_store_in_memory_refuses_to_be_durable() -> None:
    with ContextStore() as store, pytest.raises(ValidationError, match="in memory"):
        store.put(1, type="a", durable=True)


@pytest.mark.parametrize(
    "end", ["", "store.close()", "del store; import gc; gc.collect()", "raise SystemExit(3)"]
)
def test_what_was_put_just_before_the_end_is_there(path: Path, end: str) -> None:
    code = f"from grym_nb.context import ContextStore\nstore = ContextStore({str(path)!r})\n"
    code += f"store.put('last', type='a')\n{end}\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr == ("" if "del" not in end else done.stderr)
    with ContextStore(path) as store:
        assert store.latest("a").content == "last"


def test_whatever_put_returned_while_the_store_was_closed_is_in_the_file(path: Path) -> None:
    """Every put either returns, and is there, or says that the store is closed."""
    store = ContextStore(path)
    kept: list[str] = []

    def write() -> None:
        while True:
            kept.append(store.put(1, type="a").id)

    writing = [start(write) for _ in range(3)]
    until(lambda: len(kept) > 300)
    store.close()
    assert all(isinstance(outcome(one), StateError) for one in writing)
    with ContextStore(path) as store:
        assert {item.id for item in store.query()} == set(kept)


def test_a_forgotten_store_says_so_and_loses_nothing(path: Path) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        store = ContextStore(path)
        store.put(1, type="a")
        del store
    assert [w.category for w in told] == [ResourceWarning]
    assert rows(path) == 1


# -- what is not in memory -------------------------------------------------------------------------


def test_what_had_to_leave_memory_is_read_from_the_file(path: Path) -> None:
    """By id, by query, for an update of something else, a conflict, a delete; and it is counted."""
    with ContextStore(path, max_bytes=1000) as store:
        items = [store.put("x" * 600 + str(n), type="a", key=str(n)) for n in range(5)]
        assert store.stats().in_memory == 1 and store.stats().evicted == 4 and len(store) == 5
        assert [store.get(item.id).content[-1] for item in items] == list("01234")
        assert [item.content[-1] for item in store.query(type="a")] == list("43210")
        assert store.touch(items[0].id).content.endswith("0")
        assert store.update(items[1].id, tags=["t"]).content.endswith("1")
        assert store.pin(items[2].id).content.endswith("2")
        with pytest.raises(ItemConflict) as caught:
            store.update(items[3].id, "new", expect=7)
        assert caught.value.details["theirs"].content.endswith("3")
        assert store.delete(items[4].id).content.endswith("4")
        assert [item.content[-1] for item in store.for_model("any", type="a")] == list("1320")
        assert store.stats().bytes <= 1000
        assert "made room for" in store.stats().went[0].because


def test_what_is_larger_than_memory_may_hold_is_in_the_file_only(path: Path) -> None:
    with ContextStore(path, max_bytes=1000, max_items=2) as store:
        item = store.put(b"y" * 5000, type="a")
        pinned = [store.put("p" * 300, type="b", pinned=True) for _ in range(4)]
        assert store.stats().in_memory == 2 and store.stats().bytes <= 1000
        assert store.get(item.id).content == b"y" * 5000
        assert {store.get(one.id).content for one in pinned} == {"p" * 300}


def test_contents_are_smaller_in_the_file_and_the_ratio_is_told(path: Path) -> None:
    with ContextStore(path) as store:
        store.put("la " * 100_000, type="text", durable=True)
        store.put(np.sin(np.arange(100_000) / 9).astype("f4"), type="curve", durable=True)
        stats = store.stats().file
        assert stats is not None and stats.raw_bytes >= 700_000 and stats.bytes < 500_000 and stats.ratio > 2
        assert "times smaller" in repr(store.stats())


# -- several kernels on one file -------------------------------------------------------------------


def test_two_stores_see_each_others_items_updates_and_ends(path: Path, now: list[float]) -> None:
    heard: list[ItemEvent] = []
    with ContextStore(path, clock=lambda: now[0]) as one, ContextStore(path, clock=lambda: now[0]) as two:
        two.watch(heard.append)
        item = one.put({"n": 1}, type="a", key="k", ttl=10)
        until(lambda: heard)
        assert two.latest("a", "k") == item
        one.update(item.id, {"n": 2})
        until(lambda: len(heard) == 2)
        assert two.get(item.id).content == {"n": 2}
        two.update(item.id, {"n": 3}, expect=2)
        until(lambda: one.get(item.id).version == 3)
        assert [old.content["n"] for old in one.history(item.id)] == [1, 2, 3]
        one.delete(item.id)
        until(lambda: len(heard) == 4)
        assert item.id not in two
        assert [type(event) for event in heard] == [ItemPut, ItemUpdated, ItemUpdated, ItemDeleted]
        assert [event.item.content for event in heard[:2]] == [{"n": 1}, {"n": 2}]


def test_an_end_is_announced_once_in_each_kernel(path: Path, now: list[float]) -> None:
    heard: list[list[ItemEvent]] = [[], []]
    with ContextStore(path, clock=lambda: now[0]) as one, ContextStore(path, clock=lambda: now[0]) as two:
        for store, told in zip((one, two), heard, strict=True):
            store.watch(told.append, kinds="expired")
        item = one.put(1, type="a", ttl=5, durable=True)
        until(lambda: item.id in two)
        now[0] += 5
        one.sweep()
        two.sweep()
        until(lambda: heard[1])
        caught_up(two)
        assert [[(type(e), e.id, e.age) for e in told] for told in heard] == [
            [(ItemExpired, item.id, 5.0)]
        ] * 2


def test_what_was_extended_elsewhere_is_not_swept_by_who_does_not_know_yet(
    path: Path, now: list[float]
) -> None:
    with ContextStore(path, clock=lambda: now[0]) as one, ContextStore(path, clock=lambda: now[0]) as two:
        item = one.put(1, type="a", ttl=5, durable=True)
        caught_up(two)
        one.touch(item.id, 100)
        now[0] += 50
        assert two.sweep() == 0 and two.get(item.id).content == 1


def test_a_compare_and_set_sees_what_another_kernel_wrote_just_now(path: Path) -> None:
    with ContextStore(path) as one, ContextStore(path) as two:
        item = one.put(0, type="a", durable=True)
        caught_up(two)
        one.update(item.id, 1, expect=1)
        with pytest.raises(ItemConflict) as caught:
            two.update(item.id, 2, expect=1)
        assert (caught.value.details["theirs"].content, caught.value.details["yours"]) == (1, 2)


def test_who_slept_for_so_long_that_what_went_is_forgotten_reads_all_anew(
    path: Path, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_LOOK_SECONDS", 3600.0)
    monkeypatch.setattr(statements, "_AT_ONCE", 2)
    with ContextStore(path, clock=lambda: now[0]) as one, ContextStore(path, clock=lambda: now[0]) as two:
        items = [one.put(n, type="a", ttl=None, durable=True) for n in range(6)]
        mine = two.put("mine", type="b", ttl=None)  # not in the file yet
        caught_up(two)
        for item in items[:3]:
            one.delete(item.id)
        now[0] += 4000
        for item in items[3:5]:
            one.delete(item.id)
        assert asked(path, "SELECT floor > 0 FROM state") == 1
        caught_up(two)
        assert {item.content for item in two.query()} == {"mine", 5}
        assert mine.id in two and items[5].id in two


def test_eight_threads_and_a_file_lose_no_update(path: Path) -> None:
    with ContextStore(path, max_bytes=2000) as store:
        counter = store.put(0, type="count")

        def work(i: int) -> None:
            for n in range(20):
                store.put("x" * 100, type="work", key=f"{i}-{n}")
                while True:
                    seen = store.get(counter.id)
                    try:
                        store.update(counter.id, seen.content + 1, expect=seen.version)
                        break
                    except ItemConflict:
                        pass

        assert all_at_once(8, work) == [None] * 8
        assert store.get(counter.id).content == 160 and len(store.query(type="work")) == 160


_COUNTING = """
import sys
from grym_nb.context import ContextStore
from grym_nb.errors import ItemConflict
with ContextStore(sys.argv[1], busy_seconds=60) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    for n in range(100):
        store.put(n, type="work", key=sys.argv[2], durable=bool(n % 2))
        while True:
            seen = store.latest("count")
            try:
                store.update(seen.id, seen.content + 1, expect=seen.version)
                break
            except ItemConflict:
                pass
"""


def test_two_processes_on_one_file_lose_no_update_and_no_item(path: Path) -> None:
    with ContextStore(path) as store:
        counter = store.put(0, type="count", durable=True)
        children = [
            subprocess.Popen(
                [sys.executable, "-c", _COUNTING, str(path), str(n)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for n in range(2)
        ]  # fmt: skip
        for child in children:
            assert child.stdout is not None and child.stdout.readline() == "ready\n"
        for child in children:
            child.communicate("go\n", timeout=120)
        assert [child.returncode for child in children] == [0, 0]
        caught_up(store)
        assert (store.get(counter.id).content, store.get(counter.id).version) == (200, 201)
        assert [len(store.query(type="work", key=str(n))) for n in range(2)] == [100, 100]


# -- files that do not let us ----------------------------------------------------------------------


def foreign(path: Path, journal: str) -> None:
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA journal_mode = {journal}")
    db.execute("CREATE TABLE theirs (x)")
    db.commit()
    db.close()


@pytest.mark.parametrize("make", ["text", "delete", "wal", "newer", "short"])
def test_a_file_that_is_not_ours_is_refused_and_left_as_it_is(path: Path, make: str) -> None:
    if make in ("delete", "wal"):
        foreign(path, make)
    elif make == "newer":
        ContextStore(path).close()
        db = sqlite3.connect(path)
        db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
        db.execute("PRAGMA journal_mode = delete")
        db.close()
    else:
        path.write_bytes(b"my notes\n" * (100 if make == "text" else 1))
    before = path.read_bytes()
    told = {"newer": "newer grym_nb"}.get(
        make, "another program" if make in ("delete", "wal") else "not a file of"
    )
    with pytest.raises(StorageError, match=told) as caught:
        ContextStore(path)
    assert caught.value.hint and path.read_bytes() == before
    assert "not a file" in told or list(path.parent.iterdir()) == [path]


def test_a_foreign_file_that_is_open_elsewhere_is_refused(path: Path) -> None:
    """All of it may be in its journal yet."""
    with closing(sqlite3.connect(path, isolation_level=None)) as theirs:
        theirs.execute("PRAGMA journal_mode = wal")
        theirs.execute("CREATE TABLE theirs (x)")
        with pytest.raises(StorageError, match="another program"):
            ContextStore(path)


def test_a_damaged_file_is_told_and_left_as_it_is(path: Path) -> None:
    with ContextStore(path) as store:
        for n in range(300):
            store.put("x" * 200, type="a", key=str(n))
    data = bytearray(path.read_bytes())
    data[4096 : len(data)] = os.urandom(len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(StorageError, match="is damaged"):
        ContextStore(path)
    assert path.read_bytes() == bytes(data)


def test_a_damaged_content_is_told_by_its_item_and_the_rest_is_there(path: Path) -> None:
    with ContextStore(path) as store:
        bad, good = store.put([1, 2], type="a"), store.put([3], type="b")
    db = sqlite3.connect(path)
    db.execute("UPDATE contents SET body = '[1, 2' WHERE id = ?", (bad.id,))
    db.commit()
    db.close()
    with ContextStore(path) as store:
        with pytest.raises(StorageError, match="is damaged") as caught:
            store.get(bad.id)
        assert bad.id in caught.value.cause and store.get(good.id).content == [3]
        assert bad.id in store.table().text()
        assert [item.id for item in store.query(type="a")] == [bad.id]
        store.delete(good.id)


def test_a_content_of_an_unknown_class_holds_up_no_other_and_is_read_once_it_is_known(path: Path) -> None:
    def mark(name: str) -> type:
        made: type = storable("strange")(make_dataclass(name, ["at"]))
        return made

    made = mark("Strange")
    with ContextStore(path) as store:
        bad = store.put(made(1), type="a", key="k")
        good = store.put([3], type="a")
        store.update(good.id, [4])
    del codec._CLASSES["strange"]
    with ContextStore(path) as store:
        assert [item.id for item in store.query(type="a")] == [good.id, bad.id]
        assert store.query(type="a")[0].content == [4]
        assert "no such class is known in this kernel" in repr(store.query(key="k")[0].content)
        told: list[Callable[[], object]] = [
            lambda: store.get(bad.id),
            lambda: store.latest("a", "k"),
            lambda: store.rollback(bad.id, 1),
        ]
        for ask in told:
            with pytest.raises(StorageError, match=f"{bad.id} cannot be read: .* holds a strange") as caught:
                ask()
            assert "run the cell that defines it" in caught.value.hint
        with pytest.raises(ValidationError, match="does not suit") as refused:
            store.for_model("any")
        assert [problem.path for problem in refused.value.problems] == [f"{bad.id} ('a', key='k').content"]
        with pytest.raises(StorageError, match="holds a strange"):
            store.for_model("any", merge="newest")
        assert store.touch(bad.id).version == 1
        again = mark("Again")
        assert store.get(bad.id).content == again(1)
        del codec._CLASSES["strange"]
    with ContextStore(path) as store:  # and it can be written over, and taken out
        assert store.update(bad.id, 5).content == 5
        assert "no such class is known" in repr(store.history(bad.id)[0].content)
        assert store.delete(bad.id).content == 5


@pytest.mark.parametrize("where", ["/proc/context.db", "nowhere/context.db", "."])
def test_a_place_where_no_file_can_be_is_told(tmp_path: Path, where: str) -> None:
    with pytest.raises(StorageError, match="cannot be opened"):
        ContextStore(tmp_path / where)


@pytest.fixture
def locked(path: Path) -> Iterator[tuple[ContextStore, sqlite3.Connection]]:
    """A store whose file another program keeps locked."""
    with ContextStore(path, busy_seconds=0.05) as store:
        store.put("before", type="a", durable=True)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        yield store, other
        if other.in_transaction:
            other.execute("ROLLBACK")
        other.close()


def test_a_file_in_use_is_told_and_nothing_is_half_done(
    locked: tuple[ContextStore, sqlite3.Connection],
) -> None:
    """What needs the file fails whole; what does not goes on, and is written when the file is free."""
    store, other = locked
    item = store.latest("a")
    with pytest.raises(StorageError, match="is in use"):
        store.put("durable", type="a", durable=True)
    with pytest.raises(StorageError, match="is in use"):
        store.update(item.id, "changed")
    with pytest.raises(StorageError, match="is in use"):
        store.delete(item.id)
    assert store.get(item.id) == item and len(store) == 1
    later = store.put("later", type="b")
    assert store.get(later.id).content == "later"
    until(lambda: store.stats().file.trouble)  # type: ignore[union-attr]
    with pytest.raises(StorageError, match="is in use"):
        store.close()
    other.execute("ROLLBACK")
    assert store.update(item.id, "changed").version == 2
    stats = store.stats().file
    assert stats is not None and (stats.unsaved, stats.trouble) == (0, "")


def test_a_file_that_is_locked_while_it_is_opened_is_waited_for_and_told(path: Path) -> None:
    ContextStore(path).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StorageError, match="is in use"):
        ContextStore(path, busy_seconds=0.02)
    other.close()
    ContextStore(path).close()


def test_a_full_disk_loses_nothing_and_is_told(path: Path) -> None:
    """What is acknowledged stays, what is in memory stays, and all is written once there is room."""
    with ContextStore(path) as store:
        item = store.put("first", type="a", durable=True)
        db: Any = store._storage._db  # type: ignore[attr-defined]
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}")
        noise = np.random.default_rng(0).normal(size=50_000)
        with pytest.raises(StorageError, match="the disk is full"):
            store.put(noise, type="b", durable=True)
        with pytest.raises(StorageError, match="the disk is full"):
            store.update(item.id, noise)
        assert len(store) == 1 and store.get(item.id) == item
        kept = store.put(noise, type="b")
        until(lambda: "full" in store.stats().file.trouble)  # type: ignore[union-attr]
        assert (store.get(kept.id).content == noise).all() and store.stats().file.unsaved == 1  # type: ignore[union-attr]
        db.execute(f"PRAGMA max_page_count = {1 << 30}")
        until(lambda: store.stats().file.unsaved == 0)  # type: ignore[union-attr]
    with ContextStore(path) as store:
        assert (store.get(kept.id).content == noise).all() and store.get(item.id).content == "first"


def test_a_file_that_may_not_be_written_is_told(path: Path) -> None:
    with ContextStore(path) as store:
        item = store.put(1, type="a", durable=True)
        db: Any = store._storage._db  # type: ignore[attr-defined]
        db.execute("PRAGMA query_only = 1")
        with pytest.raises(StorageError, match="may not be written to"):
            store.update(item.id, 2)
        assert store.get(item.id).content == 1
        db.execute("PRAGMA query_only = 0")


def test_content_that_no_file_can_hold_is_refused_before_anything_is_kept(path: Path) -> None:
    with ContextStore(path) as store:
        item = store.put([1], type="a", durable=True)
        for asked in (
            lambda: store.put({"f": [print]}, type="a"),
            lambda: store.update(item.id, {"f": [print]}),
            lambda: store.put(1, type="a", metadata={"f": print}),
            lambda: store.put(1, type="a", key="\ud800"),
        ):
            with pytest.raises(ValidationError, match="cannot be kept in a file"):
                asked()
        assert [i.content for i in store.query()] == [[1]] and store.stats().puts == 1


def test_a_fork_is_told_to_open_the_file_itself(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ContextStore(path) as store:
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(StateError, match="fork"):
            store.put(1, type="a", durable=True)
        monkeypatch.undo()


def test_an_interrupt_in_the_middle_of_a_change_leaves_all_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ContextStore(path) as store:
        item = store.put(1, type="a", durable=True)

        def interrupted(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(statements.Statements, "_next", interrupted)
            with pytest.raises(KeyboardInterrupt):
                store.update(item.id, 2)
        assert store.get(item.id) == item and store.update(item.id, 3).version == 2
        with monkeypatch.context() as patch:  # after the commit, and before memory knows
            patch.setattr(type(store._shelf), "write", interrupted)
            with pytest.raises(KeyboardInterrupt):
                store.update(item.id, 4)
        until(lambda: store.get(item.id).content == 4)
        later = store.put(5, type="b")
        with monkeypatch.context() as patch:
            patch.setattr(sqlite.SqliteFile, "_settle", interrupted)
            with pytest.raises(KeyboardInterrupt):
                store._storage.flush()  # type: ignore[attr-defined]
        assert store.update(later.id, 6, expect=1).version == 2
        assert asked(path, "SELECT count(*) FROM contents WHERE body = '5'") == 1
        assert [i.content for i in store.history(item.id)] == [1, 3, 4]


def test_an_interrupt_in_a_put_leaves_file_and_memory_of_one_mind(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is in the file: it is nowhere. After: it is in both."""
    with ContextStore(path) as store:
        shelf = type(store._shelf)
        add = shelf.add

        def interrupted(*_: Any) -> None:
            raise KeyboardInterrupt

        for durable in (False, True):
            with monkeypatch.context() as patch:
                patch.setattr(shelf, "add", interrupted)
                with pytest.raises(KeyboardInterrupt):
                    store.put(1, type="a", durable=durable)
            caught_up(store)
            assert rows(path) == len(store) == durable
        assert shelf.add is add


# -- the form of the file --------------------------------------------------------------------------


def test_a_file_of_an_older_form_becomes_one_of_this_with_all_that_is_in_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(schema, "_STEPS", schema._STEPS[:1])
        patch.setattr(schema, "VERSION", 1)
        with ContextStore(path) as store:
            item = store.put({"old": True}, type="a", durable=True)
    with ContextStore(path) as store:
        assert store.get(item.id).content == {"old": True}
        store.update(item.id, {"old": False})
        assert len(store.history(item.id)) == 2
    assert asked(path, "PRAGMA user_version") == schema.VERSION


@pytest.mark.parametrize(
    ("where", "journal"),
    [
        ("/home/me/context.db", "delete"),
        ("/data/context.db", "wal"),
        ("/home/me/my disk/c.db", "wal"),
        ("/homes/c.db", "wal"),
    ],
)
def test_where_kernels_share_no_memory_the_journal_is_another(where: str, journal: str) -> None:
    mounts = (
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 0:40 / /home rw shared:1 - nfs4 server:/home rw\n"
        "31 30 8:2 / /home/me/my\\040disk rw - xfs /dev/sdb rw\n"
    )
    assert schema.journal_for(Path(where), mounts) == journal


def test_a_store_where_memory_is_not_shared_works_and_says_so(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(schema, "journal_for", lambda path: "delete")
    with ContextStore(path) as one, ContextStore(path, full_sync=True) as two:
        item = one.put(1, type="a", durable=True)
        until(lambda: item.id in two)
        two.update(item.id, 2, expect=1)
        until(lambda: one.get(item.id).content == 2)
        assert one.stats().file.journal == "delete"  # type: ignore[union-attr]
        assert not Path(f"{path}-wal").exists()
    assert "share no memory" in caplog.text


def test_sqlite_itself_says_where_its_journal_cannot_be_shared(path: Path) -> None:
    """With locks that are files, as on some network disks, there is no shared memory to be had."""
    db = sqlite3.connect(f"{path.as_uri()}?vfs=unix-dotfile", uri=True, isolation_level=None)
    assert schema.made_ready(db, path, full_sync=False) == "delete"
    db.close()


@pytest.mark.parametrize(("full", "level"), [(False, 1), (True, 2)])
def test_a_full_sync_is_an_option(path: Path, full: bool, level: int) -> None:
    with ContextStore(path, full_sync=full) as store:
        db: Any = store._storage._db  # type: ignore[attr-defined]
        assert db.execute("PRAGMA synchronous").fetchone() == (level,)


def test_a_store_whose_file_is_gone_can_be_let_go(tmp_path: Path) -> None:
    path = tmp_path / "context.db"
    store = ContextStore(path)
    store.put(1, type="a")
    path.unlink()
    with pytest.raises(StorageError):
        store.close()
    store.close(lose=True)
    assert store.closed
    store.close()


_THEIRS = """
import sys
from grym_nb.context import ContextStore
with ContextStore(sys.argv[1]) as store:
    store.put(1, type="theirs", durable=True)
    print(sorted(item.type for item in store.query()))
"""


def _another_kernel(path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _THEIRS, str(path)], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.skipif(os.name == "nt", reason="locks of a file go with one descriptor on POSIX only")
def test_a_file_that_is_opened_twice_here_is_not_taken_apart_by_another_kernel(tmp_path: Path) -> None:
    """A cell that is run again opens it again; another kernel that comes and goes leaves it whole."""
    path = tmp_path / "context.db"
    with ContextStore(path) as first, ContextStore(path) as second:
        first.put(1, type="first", durable=True)
        assert _another_kernel(path) == "['first', 'theirs']"
        second.put(1, type="second", durable=True)
        first.put(1, type="third", durable=True)
        assert _another_kernel(path) == "['first', 'second', 'theirs', 'theirs', 'third']"
    assert schema._open[schema._inode(path)] == 0


class _Effect(Flag):
    REVERB = 1
    ECHO = 2


@pytest.mark.parametrize("value", [_Effect.ECHO, _Effect.REVERB | _Effect.ECHO, _Effect(0)])
def test_flags_come_back_also_several_at_once(tmp_path: Path, value: _Effect) -> None:
    storable("effect")(_Effect)
    path = tmp_path / "context.db"
    with ContextStore(path) as store:
        store.put([value], type="a")
    with ContextStore(path) as store:
        assert store.latest("a").content == [value]


def test_what_is_more_than_its_fields_cannot_be_marked() -> None:
    for base in (Exception, dict):
        with pytest.raises(ValidationError, match="cannot be kept in a file"):
            storable(make_dataclass("More", ["x"], bases=(base,)))
    pair = type("Pair", (namedtuple("Pair", "a b"),), {})
    storable("a pair with more")(pair)
    more = pair(1, 2)
    more.c = 3
    with pytest.raises(ValidationError, match="an attribute of its own"):
        codec.encode(more)


def test_an_item_that_cannot_be_read_is_altered_without_its_content(tmp_path: Path) -> None:
    """What is said of it changes, and its content is there again once its class is known."""
    known = make_dataclass("Beat", ["at"])
    storable("a beat of ours")(known)
    path = tmp_path / "context.db"
    with ContextStore(path) as store:
        id = store.put(known(0.5), type="a").id
    del codec._CLASSES["a beat of ours"]
    with ContextStore(path) as store:
        store.update(id, metadata={"seen": True})
        with pytest.raises(StorageError, match="no such class is known"):
            store.get(id)
        with pytest.raises(StorageError, match="no such class is known"):
            store.update(id, 1, expect=1, merge="newest")
        storable("a beat of ours")(known)
        assert store.get(id).content == known(0.5) and store.get(id).metadata == {"seen": True}


def test_one_damaged_item_holds_up_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "context.db"
    with ContextStore(path) as store:
        ids = [store.put("x" * 10, type="a", metadata={"n": n}, tags=["t"]).id for n in range(4)]
    with closing(sqlite3.connect(path)) as db:
        db.execute("DELETE FROM contents WHERE id = ?", (ids[0],))
        db.execute("UPDATE contents SET body = CAST(X'22ff22' AS TEXT) WHERE id = ?", (ids[1],))
        db.execute("UPDATE items SET metadata = '{', tags = '[' WHERE id = ?", (ids[2],))
        db.commit()
    with ContextStore(path) as store:
        found = store.query(type="a", order="oldest")
        assert [item.content for item in found[2:]] == ["x" * 10] * 2
        assert found[2].metadata == {} and found[2].tags == () and "left out" in caplog.text
        for id in ids[:2]:
            with pytest.raises(StorageError, match="is damaged"):
                store.get(id)
            store.delete(id)
        assert len(store) == 2


def test_what_is_deleted_is_told_whole(tmp_path: Path) -> None:
    with ContextStore(tmp_path / "context.db", max_bytes=200) as store:
        first = store.put("x" * 100, type="a", durable=True)
        store.put("y" * 100, type="a", durable=True)
        watching = store.watch(kinds=["deleted"])
        store.delete(first.id)
        event = watching.next(0)
        assert event is not None and event.item.content == "x" * 100


def test_who_closes_at_the_same_time_loses_nothing(tmp_path: Path) -> None:
    for n in range(10):
        path = tmp_path / f"context-{n}.db"
        store = ContextStore(path)
        ids = [store.put(1, type="a").id]

        def put(store: ContextStore = store, ids: list[str] = ids) -> None:
            with suppress(StateError):
                for _ in range(50):
                    ids.append(store.put(1, type="a").id)

        both = (put, store.close)
        assert all_at_once(4, lambda i, both=both: both[i % 2]()) == [None] * 4
        with ContextStore(path) as again:
            assert {item.id for item in again.query()} == set(ids)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_can_put_nothing(tmp_path: Path) -> None:
    with ContextStore(tmp_path / "context.db") as store:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # there are threads: that is the point
            child = os.fork()
        if not child:
            try:
                store.put(1, type="a")
            except StateError:
                os._exit(0)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_whatever_a_callback_raises_the_file_is_written(tmp_path: Path) -> None:
    path = tmp_path / "context.db"
    with ContextStore(path) as store, ContextStore(path) as other:
        told = threading.Event()

        def cancelled(event: ItemEvent) -> None:
            if event.item.type == "a":
                told.set()
                raise asyncio.CancelledError

        store.watch(cancelled)
        other.put(1, type="a", durable=True)
        passes(told)  # by the thread of the file: nobody else tells meanwhile
        id = store.put(2, type="b").id
        until(lambda: id in other)


def test_a_store_may_be_collected_while_another_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is closed wherever the collector comes by, and that waits for nobody."""
    one, two = tmp_path / "one.db", tmp_path / "two.db"
    ContextStore(two).close()
    forgotten = schema.opened(one)
    foreign = schema._refuse_foreign

    def collecting(path: Path) -> None:
        forgotten.close()
        foreign(path)

    monkeypatch.setattr(schema, "_refuse_foreign", collecting)
    store = outcome(start(ContextStore, two))
    assert isinstance(store, ContextStore)
    store.close()
    assert schema._open[schema._inode(one)] == schema._open[schema._inode(two)] == 0


# -- what SQLite does not take ---------------------------------------------------------------------


@storable
@dataclass
class Sized:
    """What says how large it is, and means something else."""

    nbytes: int


def test_a_field_of_the_users_is_no_size(path: Path) -> None:
    with ContextStore(path, max_bytes=10_000) as store:
        item = store.put(Sized(10**20), type="a", durable=True)
        assert store.get(item.id).content == Sized(10**20) and store.stats().in_memory == 1
        assert store.stats().bytes < 1000


def test_one_item_that_sqlite_does_not_take_holds_up_no_other(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It stays in memory, is told, and lets the store be closed once it is taken out."""
    times: list[Any] = [1e9]
    store = ContextStore(path, clock=lambda: times[0])
    item = store.put("good", type="a")
    times[0] = Fraction(10**9)  # which adds up, and which no file can keep
    bad = store.put("bad", type="strange")
    with pytest.raises(StorageError, match=r"\('worse'\) cannot be written"):
        store.put("worse", type="worse", durable=True)
    times[0] = 1e9
    later = store.put("later", type="a", durable=True)
    assert rows(path) == 2 and store.get(bad.id).content == "bad"
    stats = store.stats().file
    assert stats is not None and stats.unsaved == 1 and f"{bad.id} ('strange') cannot" in stats.trouble
    until(lambda: "cannot be written" in caplog.text)
    with pytest.raises(StorageError, match="cannot be written"):
        store.update(bad.id, "new")
    with pytest.raises(StorageError, match="cannot be written") as caught:
        store.close()
    assert bad.id in caught.value.hint and not store.closed
    store.delete(bad.id)
    store.close()
    with ContextStore(path, clock=lambda: 1e9) as store:
        assert store.query() == [later, item]


def test_an_update_that_sqlite_does_not_take_is_told_and_leaves_all_as_it_was(path: Path) -> None:
    times: list[Any] = [1e9]
    with ContextStore(path, clock=lambda: times[0]) as store:
        item = store.put(1, type="a", ttl=None)
        times[0] = Fraction(10**9)
        with pytest.raises(StorageError, match=f"{item.id} .* cannot be written"):
            store.update(item.id, 2)
        times[0] = 1e9
        assert store.get(item.id) == item and store.update(item.id, 3).version == 2


def test_what_is_deleted_before_it_is_written_goes_unwritten(path: Path) -> None:
    """Also where the disk has no room for it, and with it everything can be written again."""
    with ContextStore(path) as store:
        small = store.put("small", type="a", durable=True)
        db: Any = store._storage._db  # type: ignore[attr-defined]
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}")
        large = store.put(os.urandom(500_000), type="large")
        until(lambda: "full" in store.stats().file.trouble)  # type: ignore[union-attr]
        store.delete(small.id)
        assert rows(path) == 0
        store.delete(large.id)
        assert store.put("next", type="a", durable=True).id in store
    with ContextStore(path) as store:
        assert [item.content for item in store.query()] == ["next"]


def test_what_a_failed_commit_may_have_written_is_deleted_for_good(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with ContextStore(path) as store:
        item = store.put(1, type="a")
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(sqlite.SqliteFile, "_settle", interrupted)
            store._storage.flush()  # type: ignore[attr-defined]
        store.delete(item.id)
        store._storage.flush()  # type: ignore[attr-defined]
        assert rows(path) == 0 and item.id not in store


# -- what is the newest ----------------------------------------------------------------------------


def test_kernels_agree_on_what_is_the_newest_whoever_wrote_it_into_the_file_first(
    path: Path, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is put is written a little later: by then another may have written what is newer."""
    monkeypatch.setattr(sqlite, "_LOOK_SECONDS", 3600.0)
    with ContextStore(path, clock=lambda: now[0]) as one, ContextStore(path, clock=lambda: now[0]) as two:
        for _ in range(3):
            one.put("old", type="a", tags=["t"])
            two.put("same time", type="b", tags=["t"], durable=True)
            now[0] += 1
            two.put("new", type="a", tags=["t"], durable=True)
            two.put("not written", type="a", key="k", tags=["t"])
            caught_up(one)
            one._storage.flush()  # type: ignore[attr-defined]
            two._storage.flush()  # type: ignore[attr-defined]
            now[0] += 1
        caught_up(one)
        with ContextStore(path, clock=lambda: now[0]) as third:
            for asked in ({}, {"type": "a"}, {"tags": ["t"]}, {"order": "priority"}, {"since": 0.0}):
                found = [[item.id for item in store.query(**asked)] for store in (one, two, third)]
                assert found[0] == found[1] == found[2], asked
            assert [item.content for item in third.query(limit=4)] == [
                "not written", "new", "old", "same time",
            ]  # fmt: skip
            for store in (one, two, third):
                assert store.latest("a").content == "not written"
                assert store.for_model("m", key=None, type="a", merge="newest")[0].content == "not written"


def test_what_comes_late_leaves_a_store_whole(path: Path, now: list[float]) -> None:
    """Its lists, times and room, with updates and deletes of what had to move."""
    with (
        ContextStore(path, clock=lambda: now[0], max_items=3) as one,
        ContextStore(path, clock=lambda: now[0], max_items=3) as two,
    ):
        late = one.put("late", type="a", ttl=50)
        now[0] += 1
        items = [two.put(n, type="a", ttl=50, durable=True) for n in range(5)]
        one._storage.flush()  # type: ignore[attr-defined]
        caught_up(two)
        assert [item.id for item in two.query(order="oldest")] == [late.id, *(item.id for item in items)]
        two.update(late.id, "later")
        two.delete(items[0].id)
        assert [item.content for item in two.query()] == ["later", 4, 3, 2, 1]
        now[0] += 60
        assert two.sweep() + two.stats().expired >= 5 and not two._shelf.entries


# -- what else a reader is told --------------------------------------------------------------------


def test_a_reader_deep_in_its_own_recursion_is_told_of_that(path: Path) -> None:
    """And not that the file is damaged."""
    nested: list[Any] = []
    for _ in range(250):
        nested = [nested]
    with ContextStore(path) as store:
        item = store.put(nested, type="a")

    def deep(rest: int) -> Any:
        return deep(rest - 1) if rest else store.get(item.id).content

    with ContextStore(path) as store:
        with pytest.raises(RecursionError):
            deep(sys.getrecursionlimit() - 200)
        assert store.get(item.id).content == nested


def test_a_patience_without_end_is_as_long_as_can_be(path: Path) -> None:
    store = ContextStore(path, busy_seconds=1e11)
    store.close()
    assert store.closed and not any(thread.name == "grym-context-context" for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("spoiled", "told"),
    [
        ("DELETE FROM state", "is damaged"),
        ("UPDATE items SET tags = '5'", ""),
        ("UPDATE items SET tags = '[5]'", ""),
    ],
)
def test_a_file_that_was_tampered_with_is_told_or_read_as_far_as_it_goes(
    path: Path, spoiled: str, told: str
) -> None:
    with ContextStore(path) as store:
        item = store.put(1, type="a", tags=["t"])
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(spoiled)
    if told:
        with pytest.raises(StorageError, match=told):
            ContextStore(path)
    else:
        with ContextStore(path) as store:
            assert store.get(item.id) == item._replace(tags=())


def test_what_cannot_be_read_has_no_difference(path: Path) -> None:
    with ContextStore(path) as store:
        item = store.put("whole", type="a")
        store.update(item.id, "new")
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE contents SET body = '{' WHERE version = 1")
    with ContextStore(path) as store:
        with pytest.raises(StorageError, match="is damaged"):
            store.diff(item.id)
        assert store.diff(item.id, 2, 2) == ()
