"""A storm of interrupts on a store, in a process of its own: `python -m tests.context.storm WHERE ROUNDS`.

Prints, as JSON, how many struck and what is wrong afterwards. Not in a test's own process, where they would
also strike in what watches it (see `tests.services.storm`).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sqlite3
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from grym_nb.context import ContextStore
from grym_nb.context.index import Wanted
from grym_nb.errors import ItemNotFound


def strike(*_: object) -> None:
    """As Ctrl-C does."""
    raise KeyboardInterrupt


def work(store: ContextStore) -> None:
    """Do a little of everything."""
    item = store.put([1] * 20, type="a", key="k", tags=["t"], ttl=60)
    store.put("durable", type="b", durable=store._shelf.keeps)
    with suppress(ItemNotFound):  # it had to make room
        store.update(item.id, [2] * 20, tags=["u"])
        store.touch(item.id)
        store.history(item.id)
        store.get(item.id)
    store.query(type="a", tags=["u"], limit=3)
    store.sweep(0)
    with suppress(ItemNotFound):
        store.delete(item.id)


def wrong_with(store: ContextStore, path: Path | None) -> str:
    """Say what does not fit together, once nothing is under way."""
    shelf = store._shelf
    store.put(0, type="c", ttl=None)
    if path is not None:
        store._storage.flush()  # type: ignore[attr-defined]
        store._storage.look(lambda _: None)
        with closing(sqlite3.connect(path)) as db:
            there = {id for (id,) in db.execute("SELECT id FROM items")}
        if there != set(shelf.entries):
            return f"memory and file differ by {len(there ^ set(shelf.entries))}"
    found = list(shelf._index.find(Wanted()))
    if {entry.item.id for entry in found} != set(shelf.entries) or len(found) != len(shelf.entries):
        return "what is found is not what is there"
    if len(list(shelf._index._times.newest_first())) != len(found):
        return "the timeline has more or less"
    here = [entry for entry in found if path is None or repr(entry.item.content) != "<in the file>"]
    if shelf.budget.used != [sum(entry.size for entry in here), len(here)]:
        return f"{shelf.budget.used} are counted, and {len(here)} are here"
    if any(entry.item.expires is not None and entry.due is None for entry in found):
        return "something will never expire"
    return "locked" if shelf._lock._is_owned() else ""  # type: ignore[attr-defined]


def main(where: str, rounds: int) -> None:
    """Work until a SIGALRM strikes, each time a little later, and look whether all fits together."""
    logging.disable(logging.CRITICAL)
    path = None if where == "memory" else Path(mkdtemp()) / "context.db"
    store = ContextStore(path, max_items=8 if path is None else None, max_bytes=4000)
    signal.signal(signal.SIGALRM, strike)
    struck, wrong = 0, ""
    given_up = time.monotonic() + 100
    for n in range(rounds):
        try:
            signal.setitimer(signal.ITIMER_REAL, 1e-5 + (n % 2000) * 1e-6)
            for _ in range(2_000):
                work(store)
        except KeyboardInterrupt:
            struck += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        wrong = wrong_with(store, path) if n % 20 == 0 or n == rounds - 1 else ""
        if wrong or time.monotonic() > given_up:
            break
    told: dict[str, Any] = {"struck": struck, "wrong": wrong}
    if not wrong:
        store.close()
    json.dump(told, sys.stdout)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
