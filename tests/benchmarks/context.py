"""The context store beside caches with a time to live, and beside a table of SQLite."""

from __future__ import annotations

import gc
import sqlite3
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from grym_nb.context import ContextStore

from .frame import QUICK, Effort, Row, Work, benchmark, installed, missing, side_by_side

_NAMES = {"key": "k", "source": "s", "workflow": "w", "task": "t"}
_SAID: dict[str, Any] = {**_NAMES, "tags": ("a", "b"), "priority": "high", "ttl": 600}
_PUT = "store.put(1, type='a', durable={}, **said)"


@benchmark
def context_get(effort: Effort) -> Iterator[Row]:
    """One item by its id, with its time to live looked at."""
    works: dict[str, Work] = {}
    with TemporaryDirectory() as folder, ContextStore() as store:
        item = store.put(1, type="a", ttl=600)
        works["ours"] = ("store.get(id)", {"store": store, "id": item.id})
        works["a dict"] = ("plain[id]", {"plain": {item.id: 1}, "id": item.id})
        with caches(folder) as peers:
            for name, (get, put) in peers.items():
                put("id", 1)
                works[name] = ("get('id')", {"get": get})
            figures = side_by_side(works, rounds=effort.rounds, seconds=effort.seconds)
    yield from rows("get by id", figures, "ns", "<= 300 ns")


@benchmark
def context_put(effort: Effort) -> Iterator[Row]:
    """A new item with all that may be said of it; the peers know a key and a time."""
    works: dict[str, Work] = {}
    with TemporaryDirectory() as folder, ContextStore() as store:
        works["ours"] = (_PUT.format(False), {"store": store, "said": _SAID})
        with caches(folder) as peers:
            for name, (_, put) in peers.items():
                keys = iter(range(1 << 60))
                works[name] = ("put(next(keys), 1)", {"put": put, "keys": keys})
            figures = side_by_side(works, rounds=effort.rounds, seconds=effort.seconds)
    yield from rows("put, seven names and a time", figures, "us", "<= 4 us")


@benchmark
def context_query(effort: Effort) -> Iterator[Row]:
    """Ten items by type, tag and least priority, out of more and more."""
    sizes = (10_000, 100_000, 1_000_000) if effort is not QUICK else (1_000, 10_000)
    first = None
    with ContextStore() as store:
        for size in sizes:
            fill(store, size)
            works: dict[str, Work] = {
                "ours": ("store.query(type='t1', tags=('rare',), min_priority=2)", {"store": store})
            }
            assert len(store.query(type="t1", tags=("rare",), min_priority=2)) == 10
            work = f"query type + tag + priority, 10 of {size:,}"
            if size != sizes[0]:
                ours = side_by_side(works, rounds=effort.rounds, seconds=effort.seconds)["ours"]
                yield Row(work, ours, f"of {sizes[0]:,}", first, "us", "flat")
                continue
            with closing(sqlite3.connect(":memory:")) as db:
                works |= {"a scan": scan(store), "sqlite, indexed": indexed(store, db)}
                figures = side_by_side(works, rounds=effort.rounds, seconds=effort.seconds)
            first = figures["ours"]
            yield from rows(work, figures, "us", "<= 10 us")


@benchmark
def context_expiry(effort: Effort) -> Iterator[Row]:
    """The longest that anything is held up while very many items expire at once."""
    count = 100_000 if effort is not QUICK else 5_000
    now = [1000.0]
    with ContextStore(clock=lambda: now[0]) as store:
        gc.disable()  # a collection of garbage would be told as ours
        for n in range(count):
            store.put(n, type="a", ttl=1)
        now[0] += 2
        longest = 0.0
        while store.stats().items:
            began = time.perf_counter()
            store.sweep(0.0)
            longest = max(longest, time.perf_counter() - began)
        gc.enable()
    work = f"longest step, {count:,} expire"
    if not installed("cachetools"):
        yield missing(work, longest, "cachetools TLRU", "ms", "about 1 ms")
        return
    import cachetools

    peer: Any = cachetools.TLRUCache(1 << 40, ttu=lambda key, value, now: now + 1, timer=lambda: now[0])
    for n in range(count):
        peer[n] = n
    now[0] += 2
    began = time.perf_counter()
    peer["next"] = 1
    yield Row(work, longest, "cachetools TLRU", time.perf_counter() - began, "ms", "about 1 ms")


@benchmark
def context_memory(effort: Effort) -> Iterator[Row]:
    """What an item takes besides its content."""
    count = 100_000 if effort is not QUICK else 20_000

    def taken(fill: Callable[[], object]) -> float:
        tracemalloc.start()
        held = fill()
        figure = tracemalloc.get_traced_memory()[0] / count
        tracemalloc.stop()
        del held
        return figure

    def stored(said: dict[str, Any]) -> ContextStore:
        store = ContextStore()
        for _ in range(count):
            store.put(None, type="a", **said)
        return store

    def cached() -> object:
        import cachetools

        cache: Any = cachetools.TLRUCache(1 << 40, ttu=lambda key, value, now: now + 600)
        for n in range(count):
            cache[n] = None
        return cache

    ours = taken(lambda: stored(_SAID))
    work = "an item with seven names, in memory"
    yield Row(work, ours, "ours, with a type only", taken(lambda: stored({})), "B")
    if installed("cachetools"):
        yield Row(work, ours, "cachetools TLRU", taken(cached), "B")
    else:
        yield missing(work, ours, "cachetools TLRU", "B")


@benchmark
def context_file(effort: Effort) -> Iterator[Row]:
    """A file: opening it, a durable put, and a get of what is not in memory."""
    count = 100_000 if effort is not QUICK else 2_000
    with TemporaryDirectory() as folder:
        path = Path(folder) / "context.db"
        with ContextStore(path) as store:
            for n in range(count):
                store.put({"n": n}, type=f"t{n % 10}", **_SAID)
        began = time.perf_counter()
        with ContextStore(path, max_bytes=10_000) as store:
            opened = time.perf_counter() - began
            with closing(sqlite3.connect(path)) as db:
                began = time.perf_counter()
                db.execute("SELECT * FROM items").fetchall()
                read = time.perf_counter() - began
            yield Row(f"open a file of {count:,} items", opened, "sqlite, rows read", read, "ms")
            ids = iter([item.id for item in store.query(limit=count // 2)][::-1] * 100)
            with closing(sqlite3.connect(path)) as db:
                works: dict[str, Work] = {
                    "ours": ("store.get(next(ids))", {"store": store, "ids": ids}),
                    "sqlite, by id": by_id(db),
                }
                figures = side_by_side(works, rounds=effort.rounds, seconds=effort.seconds)
            yield from rows("get, read from the file", figures, "us")
            with caches(folder, lasting=True) as peers:
                works = {"ours": (_PUT.format(True), {"store": store, "said": _SAID})}
                for name, (_, put) in peers.items():
                    works[name] = ("put(next(keys), 1)", {"put": put, "keys": iter(range(1 << 60))})
                figures = side_by_side(works, rounds=effort.rounds, seconds=effort.seconds)
            yield from rows("put, durable", figures, "us")


# -- the peers -------------------------------------------------------------------------------------


class caches:
    """What else keeps things for a time, with a file or without: for each, its get and its put."""

    def __init__(self, folder: str, *, lasting: bool = False) -> None:
        self._folder = folder
        self._lasting = lasting
        self._closing: list[Callable[[], object]] = []

    def __enter__(self) -> dict[str, tuple[Callable[..., Any], Callable[..., Any]]]:
        found: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {}
        if installed("cachetools") and not self._lasting:
            import cachetools

            tlru: Any = cachetools.TLRUCache(1 << 40, ttu=lambda key, value, now: now + 600)
            found["cachetools TLRU"] = (tlru.__getitem__, tlru.__setitem__)
        if installed("cachebox") and not self._lasting:
            import cachebox

            box: Any = cachebox.VTTLCache(0)
            found["cachebox"] = (box.__getitem__, lambda key, value: box.insert(key, value, 600))
        if installed("diskcache"):
            import diskcache

            disk: Any = diskcache.Cache(f"{self._folder}/disk")
            self._closing.append(disk.close)
            found["diskcache"] = (disk.get, lambda key, value: disk.set(key, value, expire=600))
        if self._lasting:
            db = sqlite3.connect(f"{self._folder}/bare.db", isolation_level=None)
            db.execute("PRAGMA journal_mode = wal")
            db.execute("PRAGMA synchronous = normal")
            db.execute("CREATE TABLE bare (key PRIMARY KEY, value, expires)")
            self._closing.append(db.close)
            write = "INSERT INTO bare VALUES (?, ?, 600)"
            found["sqlite, one row"] = (db.execute, lambda key, value: db.execute(write, (key, value)))
        return found

    def __exit__(self, *_: object) -> None:
        for close in self._closing:
            close()


def rows(work: str, figures: dict[str, float], unit: Any, aim: str = "") -> Iterator[Row]:
    ours = figures.pop("ours")
    for peer, figure in figures.items():
        yield Row(work, ours, peer, figure, unit, aim)
    for peer in ("cachetools", "cachebox", "diskcache"):
        if not installed(peer):
            yield missing(work, ours, peer, unit, aim)


def fill(store: ContextStore, size: int) -> None:
    """Fill a store up to a size, with ten rare ones of high priority among them."""
    while len(store._shelf.entries) < size - 10:
        n = len(store._shelf.entries)
        store.put(n, type=f"t{n % 10}", key=f"k{n}", tags=("common",), priority=n % 4, ttl=None)
    for _ in range(10 - len(store.query(tags=("rare",)))):
        store.put(0, type="t1", tags=("rare", "common"), priority="high", ttl=None)


def scan(store: ContextStore) -> Work:
    items = [entry.item for entry in store._shelf.entries.values()]
    return (
        "[i for i in items if i.type == 't1' and 'rare' in i.tags and i.priority >= 2]",
        {"items": items},
    )


def indexed(store: ContextStore, db: sqlite3.Connection) -> Work:
    db.execute("CREATE TABLE items (id PRIMARY KEY, type, priority)")
    db.execute("CREATE TABLE tags (tag, id)")
    for entry in store._shelf.entries.values():
        item = entry.item
        db.execute("INSERT INTO items VALUES (?, ?, ?)", (item.id, item.type, item.priority))
        db.executemany("INSERT INTO tags VALUES (?, ?)", [(tag, item.id) for tag in item.tags])
    db.execute("CREATE INDEX by_type ON items (type, priority)")
    db.execute("CREATE INDEX by_tag ON tags (tag)")
    asked = (
        "SELECT i.* FROM tags t JOIN items i USING (id) WHERE tag = 'rare' AND type = 't1' AND priority >= 2"
    )
    return ("db.execute(asked).fetchall()", {"db": db, "asked": asked})


def by_id(db: sqlite3.Connection) -> Work:
    (id,) = db.execute("SELECT id FROM items LIMIT 1").fetchone()
    return ("db.execute('SELECT body FROM contents WHERE id = ?', (id,)).fetchone()", {"db": db, "id": id})
