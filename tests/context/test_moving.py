"""One store takes over from another: all that was acknowledged is in the new one, or all stayed as it was."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from grym_nb.context import ContextStore, moving, shelf, sqlite, statements, watch
from grym_nb.errors import ItemNotFound, ResourceExhausted, StateError, StorageError, ValidationError
from grym_nb.events import ItemEvent
from grym_nb.testing import FakeClock
from tests.services.crowd import outcome, start, until


@pytest.fixture(params=["memory", "file"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    with ContextStore(None if request.param == "memory" else tmp_path / "old.db") as store:
        yield store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new.db"


def in_file(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("SELECT count(*) FROM items").fetchone()[0])


@pytest.mark.parametrize("here_first", [True, False])
def test_of_what_was_written_in_both_the_later_stays_and_that_is_said(
    here_first: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock(1000.0)
    with ContextStore(tmp_path / "a.db", clock=clock) as a:
        item = a.put({"v": 1}, type="x", ttl=None)
        with ContextStore(tmp_path / "b.db", clock=clock) as b:
            b.take_over(a)
            with ContextStore(tmp_path / "a.db", clock=clock) as again:
                assert again.get(item.id).version == 1
                for store in (again, b) if here_first else (b, again):
                    clock.advance(1.0)
                    store.update(item.id, {"v": "in b" if store is b else "in a"})
                again.take_over(b)
                assert again.get(item.id).content == {"v": "in b" if here_first else "in a"}
                versions = [1, 2, 3] if here_first else [1, 2]
                assert [one.version for one in again.history(item.id)] == versions
                with ContextStore(tmp_path / "a.db", clock=clock) as colleague:
                    assert colleague.get(item.id).content == again.get(item.id).content
    assert "1 item had been written in both stores" in caplog.text and item.id in caplog.text


def test_what_was_only_written_on_in_one_is_no_loss(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with ContextStore(tmp_path / "a.db") as a:
        item = a.put({"v": 1}, type="x", ttl=None)
        with ContextStore(tmp_path / "b.db") as b:
            b.take_over(a)
            b.update(item.id, {"v": 2})
            with ContextStore(tmp_path / "a.db") as again:
                again.take_over(b)
                assert again.get(item.id).content == {"v": 2}
    assert not caplog.text


# -- what others do meanwhile ----------------------------------------------------------------------


def test_what_is_done_while_things_are_made_ready_comes_along(
    old: ContextStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed, gone = old.put({"n": 1}, type="a"), old.put({"n": 2}, type="a")
    touched = old.put({"n": 3}, type="a")
    pack, came = moving._Move._pack, []

    def packed(self: Any, items: Any) -> None:
        pack(self, items)
        if not came:
            came.append(old.put({"n": 4}, type="a"))
            old.update(changed.id, {"n": 10})
            old.delete(gone.id)
            old.touch(touched.id, 7777)

    monkeypatch.setattr(moving._Move, "_pack", packed)
    with ContextStore(path) as new:
        new.take_over(old)
        assert [item.content["n"] for item in new.query(order="oldest")] == [3, 4, 10]
        assert new.get(changed.id).version == 2 and new.get(touched.id).ttl == 7777
    assert in_file(path) == 3


def test_who_writes_while_all_is_written_waits_and_is_told_where_it_is(
    old: ContextStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = old.put(1, type="a")
    durable = old._shelf.keeps
    go = moving._Move._go
    waiting: list[Any] = []
    asked: list[Callable[[], object]] = [
        lambda: old.put(2, type="a"),
        lambda: old.put(2, type="a", durable=durable),
        lambda: old.update(item.id, 2),
        lambda: old.touch(item.id, 5),
        lambda: old.delete(item.id),
        lambda: old.clear(),
    ]

    def gone(self: Any, items: Any) -> None:
        waiting.extend(start(one) for one in asked)
        threading.Event().wait(0.05)
        go(self, items)

    monkeypatch.setattr(moving._Move, "_go", gone)
    with ContextStore(path) as new:
        new.take_over(old)
        for one in waiting:
            error = outcome(one)
            assert isinstance(error, StateError) and f"is in {path} now" in str(error)
        assert new.query() == [item]


def test_threads_that_write_all_the_time_lose_nothing(old: ContextStore, path: Path) -> None:
    for n in range(200):
        old.put(list(range(50)), type="old", key=str(n))
    kept: list[str] = []

    def work() -> None:
        while True:
            kept.append(old.put(1, type="new").id)

    working = [start(work) for _ in range(2)]
    until(lambda: len(kept) > 20)
    with ContextStore(path) as new:
        new.take_over(old)
        assert all(isinstance(outcome(one), StateError) for one in working)
        assert {item.id for item in new.query(type="new")} == set(kept) and len(new.query(type="old")) == 200


def test_what_was_not_told_yet_is_told_to_who_watches(old: ContextStore, path: Path) -> None:
    heard: list[ItemEvent] = []
    old.watch(heard.append)
    item = old.put(1, type="a")
    old._telling.note(type(heard[0]), item, 0.0)  # by a thread that has not come to tell it
    with ContextStore(path) as new:
        new.take_over(old)
        new.put(2, type="a")
        assert [event.item.content for event in heard] == [1, 1, 2]


# -- all of it, or nothing -------------------------------------------------------------------------


_COMES = [
    (KeyboardInterrupt, moving._Move, "_go", False),
    (KeyboardInterrupt, statements.Statements, "bring_back", False),
    (StorageError("the disk is full"), statements.Statements, "bring_back", False),
    (KeyboardInterrupt, sqlite.SqliteFile, "_settle", True),
    (KeyboardInterrupt, shelf.Shelf, "load", True),
    (KeyboardInterrupt, watch.Watch, "listen", True),
    (KeyboardInterrupt, shelf.Shelf, "end", True),
]


@pytest.mark.parametrize(("error", "owner", "name", "moved"), _COMES)
def test_whatever_comes_in_between_all_is_in_one_of_both(
    old: ContextStore, path: Path, monkeypatch: pytest.MonkeyPatch, error: Any, owner: Any, name: str,
    moved: bool,
) -> None:  # fmt: skip
    """And who tries again, after a change, has what there is then, and nothing that was deleted."""
    heard: list[ItemEvent] = []
    first, second = old.put(1, type="a"), old.put(2, type="a")
    watching = old.watch(heard.append)
    flushed(old)
    with ContextStore(path) as new:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, struck_once(getattr(owner, name), error, old._storage))
            with pytest.raises((KeyboardInterrupt, StorageError)):
                new.take_over(old)
        assert old.closed == moved
        if not moved:
            assert old.query() == [second, first] and not len(new) and not in_file(path)
            assert old.watches == (watching,) and old._shelf.moved_to is None
            old.update(first.id, 10)
            old.delete(second.id)
            assert len(heard) == 2
            new.take_over(old)
        assert [item.content for item in new.query()] == ([2, 1] if moved else [10])
        heard.clear()
        new.put(3, type="b")
        assert new.watches == (watching,) and [event.item.content for event in heard] == [3]
        with pytest.raises(StateError, match=f"is in {path} now"):
            old.put(4, type="b")


def struck_once(real: Callable[..., Any], error: Any, but: object) -> Callable[..., Any]:
    """What raises when it is called first, of any but one."""
    calls: list[object] = []

    def struck(*given: Any) -> Any:
        if given[0] is not but:
            calls.append(given)
            if len(calls) == 1:
                raise error
        return real(*given)

    return struck


def flushed(store: ContextStore) -> None:
    if store._shelf.keeps:
        store._storage.flush()  # type: ignore[attr-defined]


def test_nothing_is_written_before_the_old_file_has_all_that_is_pending(tmp_path: Path, path: Path) -> None:
    with ContextStore(tmp_path / "old.db", busy_seconds=0.05) as old, ContextStore(path) as new:
        item = old.put(1, type="a", durable=True)
        with closing(sqlite3.connect(tmp_path / "old.db", isolation_level=None)) as locking:
            locking.execute("BEGIN IMMEDIATE")
            old.put(2, type="a")
            with pytest.raises(StorageError, match="is in use"):
                new.take_over(old)
            locking.execute("ROLLBACK")
        assert not len(new) and not in_file(path)
        old.delete(item.id)
        new.take_over(old)
        assert [item.content for item in new.query()] == [2]


def test_of_an_item_that_both_have_the_higher_version_stays(tmp_path: Path, path: Path) -> None:
    """Of one version, what is said of it in the one that was in use."""
    with ContextStore(path) as new:
        items = [new.put({"n": n}, type="a", durable=True) for n in range(3)]
    (tmp_path / "old.db").write_bytes(path.read_bytes())
    with ContextStore(tmp_path / "old.db") as old, ContextStore(path) as new:
        old.update(items[0].id, {"n": "old"})
        new.update(items[1].id, {"n": "new"})
        old.touch(items[2].id, 7777)
        new.take_over(old)
        assert [new.get(item.id).content["n"] for item in items] == ["old", "new", 2]
        assert [version.content["n"] for version in new.history(items[0].id)] == [0, "old"]
        assert new.get(items[2].id).ttl == 7777
        want = [new.get(item.id) for item in items]
    with ContextStore(path) as new:
        assert [new.get(item.id) for item in items] == want


def test_what_went_once_can_come_back(tmp_path: Path, path: Path) -> None:
    """And another kernel, which has heard of neither, has it too."""
    with ContextStore(path) as new:
        item = new.put(1, type="a", durable=True)
    (tmp_path / "old.db").write_bytes(path.read_bytes())
    with ContextStore(tmp_path / "old.db") as old, ContextStore(path) as new, ContextStore(path) as third:
        with third._storage._mutex:  # type: ignore[attr-defined]  # it does not look now
            new.delete(item.id)
            new.take_over(old)
        until(lambda: third._storage._seen == new._storage._seen)  # type: ignore[attr-defined]
        assert item.id in third and item.id in new


def test_what_does_not_fit_into_memory_leaves_nothing_behind() -> None:
    with ContextStore() as old, ContextStore(max_items=1) as new:
        for n in range(2):
            old.put(n, type="a", pinned=True)
        with pytest.raises(ResourceExhausted):
            new.take_over(old)
        assert len(old) == 2 and not len(new) and not old.closed


def test_a_file_that_is_lost_can_be_left(tmp_path: Path, path: Path) -> None:
    """With what is in memory, what can still be read of it, and whoever watches."""
    heard: list[ItemEvent] = []
    with ContextStore(tmp_path / "old.db", max_items=1) as old, ContextStore(path) as new:
        old.put(1, type="a", durable=True)
        old.watch(heard.append, kinds="put")
        os.rename(tmp_path / "old.db", tmp_path / "gone")
        old.put(2, type="a")
        with pytest.raises(StorageError, match="is not there any more") as caught:
            old.put(3, type="a", durable=True)
        assert "context open" in caught.value.hint and "take_over" in caught.value.hint
        new.take_over(old)
        new.put(4, type="a")
        assert old.closed and [event.item.content for event in heard] == [2, 4]
        assert [item.content for item in new.query()] == [4, 2, 1]


# -- what cannot be taken along --------------------------------------------------------------------


class Thing:
    """What no file can keep."""


def test_what_cannot_be_kept_is_named_with_what_to_do(path: Path) -> None:
    with ContextStore() as old, ContextStore(path) as new:
        old.put(1, type="good")
        bad = [old.put({"m": Thing()}, type="t", key=key) for key in ("here", None)]
        with pytest.raises(ValidationError, match="2 items cannot be kept in a file") as caught:
            new.take_over(old)
        assert f"{bad[0].id} ('t', key='here').content['m']: found a" in caught.value.cause
        assert caught.value.hint.endswith(f"%grym context rm {bad[0].id} {bad[1].id}")
        assert len(caught.value.lines()) == 3 and not len(new) and not old.closed
        for item in bad:
            old.delete(item.id)
        new.take_over(old)
        assert len(new) == 1


def test_what_cannot_be_read_is_called_so(tmp_path: Path, path: Path) -> None:
    with ContextStore(tmp_path / "old.db") as old:
        item = old.put("whole", type="t", durable=True)
    with closing(sqlite3.connect(tmp_path / "old.db")) as db, db:
        db.execute("UPDATE contents SET body = '{'")
    with ContextStore(tmp_path / "old.db") as old, ContextStore(path) as new:
        with pytest.raises(ValidationError, match="1 item cannot be read") as caught:
            new.take_over(old)
        assert item.id in caught.value.hint and "is damaged" in caught.value.cause
        with pytest.raises(ItemNotFound):
            new.get(item.id)
