"""Items in an SQLite file, which outlives the kernel and may be shared by several.

What is new is written some tenths of a second later by a thread of the file's own, or at once when it is
durable. All else is a transaction, in which what other kernels wrote meanwhile is taken in first: so no two
of them ever alter an item from the same state. The thread looks for what they wrote ten times a second.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakMethod, ref
from zipfile import BadZipFile

from grym_nb.context import schema
from grym_nb.context.codec import decode
from grym_nb.context.item import ContextItem
from grym_nb.context.packing import unpack
from grym_nb.context.rows import Pending, Prepared, change_of, row_of
from grym_nb.context.storage import Change, ContentsOf, FileStats
from grym_nb.errors import StateError, StorageError

__all__ = ["SqliteFile"]

T = TypeVar("T")
R = TypeVar("R")

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 0.1
_MOST_PENDING = 64_000_000  # bytes; from there on, who puts waits for the file
_TOMBSTONE_SECONDS = 3600.0  # for which it is known what went: a kernel that slept longer reads all anew
_AT_ONCE = 500  # ids in one statement
_COLUMNS = ", ".join(schema.COLUMNS)
_ROW = ", ".join("?" * len(schema.COLUMNS))
_SAID = [*schema.COLUMNS[1:-3], "seq"]
_UPDATE = f"UPDATE items SET ({', '.join(_SAID)}) = ({', '.join('?' * len(_SAID))}) WHERE id = ?"


class SqliteFile:
    """The file of a store. `take_in(changes, contents_of, whole)` brings to memory what other kernels
    wrote, `whole` when that is all there is; `tick()` is what it does besides, now and then."""

    keeps = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        take_in: Callable[[list[Change], ContentsOf, bool], None],
        tick: Callable[[], None],
        history: int,
        full_sync: bool,
        busy_seconds: float,
    ) -> None:
        self.path = Path(path).expanduser().absolute()
        # Weak, so that a store that is forgotten can go although its thread runs.
        self._take_in = WeakMethod(take_in)
        self._store_tick = WeakMethod(tick)
        self._history = history
        self._busy_seconds = busy_seconds
        self._mutex = threading.Lock()
        self._pending: dict[str, Pending] = {}
        self._pending_lock = threading.Lock()
        self._pending_bytes = 0
        self._seen = -1  # up to where what is in the file is known in memory
        self._seq = -1  # up to where the transaction under way has written
        self._looked = -1  # SQLite's own count of what others committed
        self._trouble = ""
        self._pid = os.getpid()
        self._deleted = 0  # since tombstones were last pruned
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._db = schema.opened(self.path)
        try:
            self._journal = self._patiently(
                lambda: schema.made_ready(self._db, self.path, full_sync=full_sync)
            )
        except BaseException:
            self._db.close()
            raise
        if self._journal != "wal":
            _log.warning("%s is where kernels share no memory: it keeps a %s journal", path, self._journal)

    # -- what a store asks -------------------------------------------------------------------------

    def load(self) -> list[Change]:
        """Return everything in the file, in the order of its writing; from now on others are listened to."""
        try:
            changes = self._patiently(lambda: self._reading(self._load))
        except BaseException:
            self._db.close()
            raise
        name = f"grym-context-{self.path.stem}"
        args = (ref(self), self._closing)
        self._thread = threading.Thread(target=_keep, args=args, name=name, daemon=True)
        self._thread.start()
        return changes

    def prepare(self, content: Any, *, at_once: bool = False) -> Prepared:
        """Return a content as text and arrays, packed now or when it is written; raises when it cannot be."""
        prepared = Prepared(content)
        if at_once:
            prepared.packed()
        return prepared

    def add(self, item: ContextItem, size: int, prepared: Prepared, apply: Callable[[], object]) -> None:
        """Write a new item soon, or before memory has it when it is durable."""
        pending = Pending(item, row_of(item, size), prepared)
        if self._pending_bytes > _MOST_PENDING:
            self.flush()
        try:
            with self._pending_lock:
                self._refuse_closed()
                self._pending[item.id] = pending
                self._pending_bytes += prepared.bytes
            if item.durable:
                self.change(lambda _: None, lambda _: apply())
            else:
                apply()
        except BaseException:
            if not self._settle([item.id]):
                self._seen = 0  # it is in the file, and maybe not in memory: all is looked at anew
            raise

    def change(self, write: Callable[[SqliteFile], T], apply: Callable[[T], R]) -> R:
        """Write in one transaction, then let memory follow; return what `apply` returns."""
        for pending in list(self._pending.values()):
            pending.prepared.packed()  # now, and not with the file locked
        return self._patiently(lambda: self._writing(write, apply))

    def look(self, read: Callable[[ContentsOf], T]) -> T:
        """Return what `read(contents_of)` returns, with memory as new as what it reads."""
        return self._patiently(lambda: self._reading(lambda: read(self.contents_of)))

    def history(self, item: ContextItem) -> list[ContextItem]:
        """Return the earlier versions of an item, the oldest first."""
        return self.look(lambda _: self._history_of(item.id))

    def flush(self) -> None:
        """Write what is pending."""
        self.change(lambda _: None, lambda _: None)

    def stats(self) -> FileStats:
        """Return what is to be told of the file."""
        raw, packed = self._patiently(
            lambda: self._reading(
                lambda: self._db.execute("SELECT total(raw), total(packed) FROM contents").fetchone()
            )
        )
        files = (self.path, Path(f"{self.path}-wal"))
        taken = sum(file.stat().st_size for file in files if file.exists())
        return FileStats(
            str(self.path), taken, int(raw), int(packed), len(self._pending), self._journal, self._trouble
        )

    def close(self) -> None:
        """Write what is pending and let go; when that cannot be, raise and stay open."""
        if self._closing.is_set():
            return
        if self._pending:
            self.flush()
        self._closing.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(self._busy_seconds + 1)
        with self._mutex:
            self._db.close()

    def let_go(self) -> None:
        """Close at the end of a process, where nobody could answer an error."""
        try:
            self.close()
        except StorageError as error:
            _log.error("%d items of context are lost: %s", len(self._pending), error)

    # -- what a change writes ----------------------------------------------------------------------

    def update(self, before: ContextItem, after: ContextItem, size: int, prepared: Prepared | None) -> None:
        """Write `after` in the place of `before`."""
        run = self._db.execute
        if after.version != before.version:
            run(f"INSERT INTO past SELECT {_COLUMNS} FROM items WHERE id = ?", (after.id,))
        run(_UPDATE, (*row_of(after, size)[1:-1], self._next(), after.id))
        if prepared is not None:
            self._insert_content(after.id, after.version, prepared)
            run("UPDATE items SET content = version WHERE id = ?", (after.id,))
        if after.version != before.version:
            run("UPDATE items SET written = seq WHERE id = ?", (after.id,))
            run("DELETE FROM past WHERE id = ? AND version < ?", (after.id, after.version - self._history))
            run(
                "DELETE FROM contents WHERE id = ?1 AND version NOT IN"
                " (SELECT content FROM past WHERE id = ?1 UNION SELECT content FROM items WHERE id = ?1)",
                (after.id,),
            )

    def delete(self, ids: Sequence[str], why: str, now: float) -> list[str]:
        """Take items out, and return which were there."""
        went = [id for id in ids if self._delete(id, why, now)]
        self._deleted += len(went)
        if self._deleted >= _AT_ONCE:
            self._prune(now)
        return went

    def _delete(self, id: str, why: str, now: float) -> bool:
        run = self._db.execute
        if not run("DELETE FROM items WHERE id = ?", (id,)).rowcount:
            return False
        run("DELETE FROM past WHERE id = ?", (id,))
        run("DELETE FROM contents WHERE id = ?", (id,))
        run("INSERT OR REPLACE INTO gone VALUES (?, ?, ?, ?)", (id, self._next(), why, now))
        return True

    def _prune(self, now: float) -> None:
        """Forget what went long ago."""
        self._deleted = 0
        old = "FROM gone WHERE at < ?"
        (floor,) = self._db.execute(f"SELECT max(seq) {old}", (now - _TOMBSTONE_SECONDS,)).fetchone()
        if floor is not None:
            self._db.execute(f"DELETE {old}", (now - _TOMBSTONE_SECONDS,))
            self._db.execute("UPDATE state SET floor = max(floor, ?)", (floor,))

    def _insert_content(self, id: str, version: int, prepared: Prepared) -> None:
        packed = prepared.packed()
        self._db.execute(
            "INSERT INTO contents VALUES (?, ?, ?, ?, ?, ?)",
            (id, version, packed.raw, packed.size, packed.text, packed.arrays),
        )

    def _insert_pending(self) -> list[str]:
        """Write what is pending; return the ids of it."""
        ids = list(self._pending)
        for id in ids:
            pending = self._pending.get(id)
            if pending is None:
                continue
            seq = self._next()
            row = [*pending.row, seq, seq]
            # It may be there already: a commit that was interrupted before that was noted down.
            if self._db.execute(f"INSERT OR IGNORE INTO items ({_COLUMNS}) VALUES ({_ROW})", row).rowcount:
                self._insert_content(id, pending.item.version, pending.prepared)
        return ids

    def _settle(self, ids: Iterable[str]) -> int:
        """Note that these are not pending any more; return how many were."""
        with self._pending_lock:
            return self._drop(ids)

    def _drop(self, ids: Iterable[str]) -> int:
        gone = [pending for id in ids if (pending := self._pending.pop(id, None)) is not None]
        self._pending_bytes -= sum(pending.prepared.bytes for pending in gone)
        return len(gone)

    def _next(self) -> int:
        self._seq += 1
        return self._seq

    # -- transactions ------------------------------------------------------------------------------

    def _patiently(self, attempt: Callable[[], T]) -> T:
        """Return what an attempt returns, made again as long as another kernel is writing."""
        until = time.monotonic() + self._busy_seconds
        while True:
            try:
                with self._mutex:
                    self._refuse_closed()
                    told = attempt()
                return told
            except sqlite3.Error as error:
                if not _is_busy(error) or time.monotonic() >= until:
                    raise self._typed(error) from None
            time.sleep(0.002)  # for others of this kernel, who wait for the mutex

    def _writing(self, write: Callable[[SqliteFile], T], apply: Callable[[T], R]) -> R:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._catch_up()
            before = self._seq
            flushed = self._insert_pending()
            told = write(self)
            if self._seq != before:
                self._db.execute("UPDATE state SET seq = ?", (self._seq,))
            self._db.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        self._settle(flushed)
        self._trouble = ""
        result = apply(told)
        self._seen = self._seq  # last: who is interrupted before takes his own writing in anew
        return result

    def _reading(self, read: Callable[[], T]) -> T:
        self._db.execute("BEGIN")
        try:
            self._catch_up()
            return read()
        finally:
            self._roll_back()

    def _roll_back(self) -> None:
        if self._db.in_transaction:  # SQLite has ended it itself where the disk is full
            self._db.execute("ROLLBACK")

    def _catch_up(self) -> None:
        """Take in what others wrote since memory was last made to know."""
        self._seq, floor = self._db.execute("SELECT seq, floor FROM state").fetchone()
        if self._seq == self._seen or self._seen < 0:
            return
        whole = self._seen < floor
        changes = self._everything() if whole else list(self._changes())
        take_in = self._take_in()
        if take_in is not None:
            take_in(changes, self.contents_of, whole)
        self._seen = self._seq

    def _changes(self) -> Iterator[Change]:
        for row in self._db.execute(
            f"SELECT {_COLUMNS} FROM items WHERE seq > ? ORDER BY seq", (self._seen,)
        ):
            yield change_of(row)
        for id, why in self._db.execute("SELECT id, why FROM gone WHERE seq > ? ORDER BY seq", (self._seen,)):
            yield Change(id, None, 0, why)

    def _everything(self) -> list[Change]:
        found = [change_of(row) for row in self._db.execute(f"SELECT {_COLUMNS} FROM items ORDER BY written")]
        return [*found, *(Change(p.item.id, p.item, p.row[-2], "") for p in self._pending.values())]

    def _load(self) -> list[Change]:
        found = self._everything()
        self._seen = self._seq
        return found

    # -- reading -----------------------------------------------------------------------------------

    def contents_of(self, items: Sequence[ContextItem]) -> list[Any]:
        """Return the content of each, inside a transaction."""
        found: dict[str, Any] = {}
        for item in items:
            pending = self._pending.get(item.id)
            if pending is not None:
                found[item.id] = pending.item.content
        left = iter([item.id for item in items if item.id not in found])
        while ids := list(islice(left, _AT_ONCE)):
            rows = self._db.execute(
                "SELECT i.id, c.body, c.arrays FROM items i JOIN contents c ON c.id = i.id AND"
                f" c.version = i.content WHERE i.id IN ({', '.join('?' * len(ids))})",
                ids,
            )
            found.update((id, self._read(id, body, arrays)) for id, body, arrays in rows)
        if lost := [item.id for item in items if item.id not in found]:
            raise self._damaged(f"the content of {lost[0]} is not in it")
        return [found[item.id] for item in items]

    def _read(self, id: str, body: str | bytes, arrays: bytes | None) -> Any:
        try:
            return decode(*unpack(body, arrays))
        except StorageError as error:
            error.message = f"{id} cannot be read: {error.message}"
            raise
        except (zlib.error, BadZipFile, ValueError, LookupError, EOFError, TypeError) as error:
            raise self._damaged(f"the content of {id} cannot be read: {error}") from None

    def _history_of(self, id: str) -> list[ContextItem]:
        rows = self._db.execute(
            f"SELECT {', '.join(f'p.{name}' for name in schema.COLUMNS)}, c.body, c.arrays FROM past p"
            " JOIN contents c ON c.id = p.id AND c.version = p.content WHERE p.id = ? ORDER BY p.version",
            (id,),
        ).fetchall()
        found = []
        for *row, body, arrays in rows:
            item = change_of(row).item
            assert item is not None
            found.append(item._replace(content=self._read(id, body, arrays)))
        return found

    # -- the thread of the file --------------------------------------------------------------------

    def tick(self) -> None:
        """Write what is pending, take in what others wrote, and let both be known."""
        try:
            if self._pending:
                self.flush()
            elif self._has_news():
                self.look(lambda _: None)
            if (tick := self._store_tick()) is not None:
                tick()
        except (StorageError, StateError) as error:
            if not self._trouble and not self._closing.is_set():
                _log.warning("%s; what is not in the file stays in memory", error.message)
            self._trouble = error.message

    def _has_news(self) -> bool:
        with self._mutex:
            if self._closing.is_set():
                return False
            (version,) = self._db.execute("PRAGMA data_version").fetchone()
            looked, self._looked = self._looked, int(version)
            return looked != int(version)

    # -- what goes wrong ---------------------------------------------------------------------------

    def _refuse_closed(self) -> None:
        if self._closing.is_set():
            raise StateError("this context store is closed", hint=f"ContextStore({str(self.path)!r})")
        if os.getpid() != self._pid:
            told = "this context store was opened by another process, of which this one is a fork"
            raise StateError(told, hint=f"open it again here: ContextStore({str(self.path)!r})")

    def _typed(self, error: sqlite3.Error) -> StorageError:
        code = getattr(error, "sqlite_errorname", "") or ""
        for start, (told, hint) in _TROUBLES.items():
            if code.startswith(start):
                return StorageError(f"{self.path} {told}", cause=str(error), hint=hint, path=str(self.path))
        told = f"{self.path} cannot be used: {error}"
        return StorageError(told, hint="see whether the disk is well", path=str(self.path))

    def _damaged(self, how: str) -> StorageError:
        told, hint = _TROUBLES["SQLITE_CORRUPT"]
        return StorageError(f"{self.path} {told}", cause=how, hint=hint, path=str(self.path))


_DAMAGED = (
    "is damaged",
    "take its copy, or move it away; `sqlite3 FILE .recover` gets out what is whole",
)
_TROUBLES = {
    "SQLITE_BUSY": ("is in use: another program keeps it locked", "nothing was written; try again"),
    "SQLITE_LOCKED": ("is in use: another program keeps it locked", "nothing was written; try again"),
    "SQLITE_FULL": ("cannot grow: the disk is full", "nothing was written; make room and try again"),
    "SQLITE_READONLY": ("may not be written to", "nothing was written; chmod u+w, or name another file"),
    "SQLITE_CORRUPT": _DAMAGED,
    "SQLITE_NOTADB": _DAMAGED,
    "SQLITE_CANTOPEN": ("cannot be opened", "name a file in a folder that you may write to"),
}


def _is_busy(error: sqlite3.Error) -> bool:
    return (getattr(error, "sqlite_errorname", "") or "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def _keep(file: ref[SqliteFile], closing: threading.Event) -> None:
    """Write and listen for a file until it is closed, or nobody has it any more."""
    while not closing.wait(_LOOK_SECONDS):
        kept = file()
        if kept is None:
            return
        kept.tick()
        del kept
