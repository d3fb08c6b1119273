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
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakMethod, ref

from grym_nb.clock import Clock
from grym_nb.context import schema
from grym_nb.context.item import ContextItem
from grym_nb.context.rows import Pending, Prepared, row_of
from grym_nb.context.shelf import Shelf
from grym_nb.context.statements import DELETE_IT, REFUSALS, Statements, refused, told_of, typed
from grym_nb.context.storage import Change, ContentsOf, FileStats, asked_within
from grym_nb.errors import GrymError, StateError, StorageError
from grym_nb.render import count

__all__ = ["SqliteFile"]

T = TypeVar("T")
R = TypeVar("R")

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 0.1
_MOST_PENDING = 64_000_000  # bytes; from there on, who puts waits for the file


class SqliteFile:
    """The file of a store. What other kernels write in it is brought to the `shelf`; `tick` is what its
    thread does besides."""

    keeps = True

    def __init__(
        self,
        path: Path,
        shelf: Shelf,
        clock: Clock,
        *,
        tick: Callable[[], None],
        history: int,
        full_sync: bool,
        busy_seconds: float,
    ) -> None:
        self.path = path
        self._shelf = shelf
        self._clock = clock
        # Weak, so that a store that is forgotten can go although its thread runs.
        self._tick = WeakMethod(tick)
        self._busy_seconds = busy_seconds
        self._mutex = threading.RLock()
        self._pending: dict[str, Pending] = {}
        self._pending_lock = threading.RLock()
        self._spent: list[Pending] = []  # to be let go of once no lock is held
        self._pending_bytes = 0
        self._doubtful: frozenset[str] = frozenset()  # pending ones that a commit may have written
        self._done: set[str] = set()  # pending ones that this transaction wrote, or that went unwritten
        self._refused: dict[str, str] = {}  # pending ones that SQLite does not take, and why
        self._seen = -1  # up to where what is in the file is known in memory
        self._anew = False  # whether memory may be wrong about what is in the file
        self._looked = -1  # SQLite's own count of what others committed
        self._trouble = ""
        self._pid = os.getpid()
        self._refuses = False
        self._closing = threading.Event()
        self._ending = threading.Lock()
        self._thread: threading.Thread | None = None
        self._db = schema.opened(path)
        self._rows = Statements(self._db, path, history=history)
        try:
            self._journal = self._patiently(lambda: schema.made_ready(self._db, path, full_sync=full_sync))
            self._inode = path.stat().st_ino
            self._patiently(lambda: self._reading(self._load))
        except BaseException:
            self._db.close()
            raise
        if self._journal != "wal":
            _log.warning("%s is where kernels share no memory: it keeps a %s journal", path, self._journal)
        name, args = f"grym-context-{path.stem}", (ref(self), self._closing)
        self._thread = threading.Thread(target=_keep, args=args, name=name, daemon=True)
        self._thread.start()

    # -- what a store asks -------------------------------------------------------------------------

    def prepare(self, content: Any, *, at_once: bool = False) -> Prepared:
        """Return a content as text and arrays, packed now or when it is written; raises when it cannot be."""
        prepared = Prepared(content)
        if at_once:
            prepared.packed()
        return prepared

    def pack(self, item: ContextItem, size: int) -> Pending:
        """Return an item made ready for `insert` or `replace`; raises when it cannot be kept."""
        return Pending(item, row_of(item, size), self.prepare(item.content, at_once=True))

    def add(self, item: ContextItem, size: int, prepared: Prepared, apply: Callable[[], object]) -> None:
        """Write a new item soon, or before memory has it when it is durable."""
        self._refuse_within()
        pending = Pending(item, row_of(item, size), prepared)
        if self._pending_bytes > _MOST_PENDING:
            self.flush()
        came = False
        try:
            with self._pending_lock:
                self._refuse_closed()
                came = True
                self._pending[item.id] = pending
                self._pending_bytes += prepared.bytes
                if not item.durable:
                    apply()  # before it can be written: what is in the file is in memory
            if item.durable:
                self.change(lambda _: self._write_now(item.id), lambda _: apply())
        except BaseException as error:
            if not came:
                raise
            with self._mutex:  # while nobody is about to write it
                written = not self._settle([item.id])
            if written and isinstance(error, GrymError):
                apply()  # the flush of another thread took it along
                return
            if not written:
                self._shelf.drop([item.id])
            if written or item.id in self._doubtful:
                self._anew = True  # interrupted: it is in the file, and maybe not in memory
            raise

    def change(self, write: Callable[[SqliteFile], T], apply: Callable[[T], R]) -> R:
        """Write in one transaction, then let memory follow; return what `apply` returns."""
        for pending in list(self._pending.values()):
            pending.prepared.packed()  # now, and not with the file locked
        return self._patiently(lambda: self._writing(write, apply))

    def look(self, read: Callable[[ContentsOf], T]) -> T:
        """Return what `read(contents_of)` returns, with memory as new as what it reads."""
        return self._patiently(lambda: self._reading(lambda: read(self.contents_of)))

    def leave(self, read: Callable[[ContentsOf], T], go: Callable[[T], object]) -> None:
        """Do `go(read(contents_of))` with all in the file, while nobody here can add or alter anything.

        Of a file that is lost, with what is in memory, and with what can still be read of it.
        """
        if not self._is_lost():
            self.flush()  # most of it, before anybody has to wait
        self._patiently(lambda: self._leave(read, go))

    def _leave(self, read: Callable[[ContentsOf], T], go: Callable[[T], object]) -> None:
        with self._pending_lock:
            if not self._is_lost():
                self._writing(lambda _: self._insert_pending(), lambda _: None)
            go(self._reading(lambda: read(self.contents_of)))

    def past(self, id: str) -> list[ContextItem]:
        """Return the earlier versions of an item, the oldest first; inside of `look`."""
        return self._rows.past(id)

    def flush(self) -> None:
        """Write what is pending."""
        self.change(lambda _: self._insert_pending(), lambda _: None)

    def stats(self) -> FileStats:
        """Return what is to be told of the file."""
        raw, packed = self._patiently(lambda: self._reading(self._rows.totals))
        files = (self.path, Path(f"{self.path}-wal"))
        taken = sum(file.stat().st_size for file in files if file.exists())
        unsaved, trouble = len(self._pending), self._trouble or self._refusal()
        return FileStats(str(self.path), taken, raw, packed, unsaved, self._journal, trouble)

    def close(self) -> None:
        """Write what is pending and let go; when that cannot be, raise and stay open."""
        with self._ending:
            self._close()

    def _close(self) -> None:
        if self._closing.is_set():
            return
        try:
            with self._pending_lock:
                self._refuses = True  # from now on nothing comes that would not be written
            if self._pending:
                self.flush()
            if self._refused:
                which = ", ".join(list(self._refused))
                hint = f"delete() it, or lose it: close(lose=True); not in the file: {which}"
                raise StorageError(self._refusal(), hint=hint)
        except BaseException:
            self._refuses = False
            raise
        self.drop()

    def drop(self) -> None:
        """Let go without writing what is pending."""
        with self._mutex:
            self._closing.set()
            self._db.close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(self._busy_seconds + 1)

    def let_go(self) -> None:
        """Close at the end of a process, or of the store, where nobody could answer an error."""
        if os.getpid() != self._pid:
            return  # a fork: the file is its parent's
        try:
            self.close()
        except GrymError as error:
            told = f"{error.message}{f': {error.cause}' if error.cause else ''}"
            _log.error("%s of context lost: %s", count(len(self._pending), "item"), told)

    # -- what can be written in a change -----------------------------------------------------------

    def contents_of(self, items: Sequence[ContextItem]) -> list[Any]:
        """Return the content of each, inside a transaction."""
        new = {item.id: p.item.content for item in items if (p := self._pending.get(item.id)) is not None}
        found = self._rows.contents([item.id for item in items if item.id not in new])
        return [new[item.id] if item.id in new else found[item.id] for item in items]

    def insert(self, packed: Pending) -> None:
        """Write a new item."""
        with told_of(packed.item):
            self._rows.bring_back(packed)

    def replace(self, before: ContextItem, packed: Pending) -> None:
        """Write an item in the place of `before`."""
        size, anew = packed.row[-2], packed.item.version != before.version
        self.update(before, packed.item, size, packed.prepared if anew else None)

    def update(self, before: ContextItem, after: ContextItem, size: int, prepared: Prepared | None) -> None:
        """Write `after` in the place of `before`."""
        self._write_now(before.id)
        with told_of(after):
            self._rows.update(before, after, size, prepared)

    def delete(self, ids: Sequence[str], why: str, now: float) -> None:
        """Take items out; those that are pending go unwritten."""
        new = {id for id in ids if id in self._pending} - self._done
        self._done |= new
        unwritten = new - self._doubtful
        self._rows.delete([id for id in ids if id not in unwritten], why, now)

    # -- transactions ------------------------------------------------------------------------------

    def _patiently(self, attempt: Callable[[], T]) -> T:
        """Return what an attempt returns, made again as long as another kernel is writing."""
        self._refuse_within()
        until = time.monotonic() + self._busy_seconds
        while True:
            try:
                with self._mutex:
                    if self._closing.is_set() or self._shelf.closed:
                        self._refuses = True
                        self._refuse_closed()
                    told = attempt()
                self._spent.clear()
                return told
            except sqlite3.Error as error:
                if not _is_busy(error) or time.monotonic() >= until:
                    raise typed(error, self.path) from None
            time.sleep(0.002)  # for others of this kernel, who wait for the mutex

    def _writing(self, write: Callable[[SqliteFile], T], apply: Callable[[T], R]) -> R:
        self._roll_back()  # what an interrupt may have left open
        self._done = set()
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._refuse_lost()
            self._catch_up()
            before = self._rows.seq
            told = write(self)
            if self._rows.seq != before:
                self._rows.end()
            self._doubtful |= self._done
            self._db.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        self._settle(self._done)
        self._trouble = ""
        result = apply(told)
        self._seen = self._rows.seq  # last: who is interrupted before takes his own writing in anew
        self._doubtful -= self._done
        return result

    def _reading(self, read: Callable[[], T]) -> T:
        self._roll_back()
        try:
            self._db.execute("BEGIN")
            self._catch_up()
            return read()
        finally:
            self._roll_back()

    def _roll_back(self) -> None:
        if self._db.in_transaction:  # SQLite has ended it itself where the disk is full
            self._db.execute("ROLLBACK")

    def _catch_up(self) -> None:
        """Take in what others wrote since memory was last made to know."""
        floor = self._rows.begin()
        if self._anew:
            self._anew, self._seen = False, min(self._seen, 0)
        if self._seen < 0 or self._seen == self._rows.seq:
            return
        if self._seen >= floor:
            changes = list(self._rows.changes(self._seen))
        else:  # what went is not remembered: it is what was here, and is not there
            here = list(self._shelf.entries)
            changes = self._everything()
            there = {change.id for change in changes}
            changes += [Change(id, None, 0, "deleted") for id in here if id not in there]
        self._shelf.take_in(changes, self.contents_of, self._clock(), frozenset(self._pending))
        self._seen = self._rows.seq

    def _everything(self) -> list[Change]:
        new = [Change(p.item.id, p.item, p.row[-2], "") for p in list(self._pending.values())]
        return [*self._rows.everything(), *new]

    def _load(self) -> None:
        self._shelf.load(self._rows.everything())
        self._seen = self._rows.seq

    def _insert_pending(self) -> None:
        """Write what is pending; what SQLite does not take is set aside, and holds up no other."""
        with self._pending_lock:
            pending = list(self._pending.values())
        for new in pending:
            id = new.item.id
            if id in self._done or id in self._refused:
                continue
            try:
                # One that was committed, which was not noted down, may have gone since then.
                if id not in self._doubtful or not self._rows.is_gone(id):
                    self._rows.insert(new)
            except REFUSALS as error:
                self._refused[id] = refused(new.item, error).message
            else:
                self._done.add(id)

    def _write_now(self, id: str) -> None:
        """Write what is pending before all else; raise when that item is one that SQLite does not take."""
        self._insert_pending()
        if id in self._refused:
            raise StorageError(self._refused[id], hint=DELETE_IT)

    def _refusal(self) -> str:
        """Return what is to be told of what SQLite does not take."""
        return next(iter(list(self._refused.values())), "")

    def _settle(self, ids: Iterable[str]) -> int:
        """Note that these are not pending any more; return how many were."""
        with self._pending_lock:
            gone = self._drop(ids)
        self._spent += gone
        return len(gone)

    def _drop(self, ids: Iterable[str]) -> list[Pending]:
        gone = [pending for id in ids if (pending := self._pending.pop(id, None)) is not None]
        for pending in gone:
            self._refused.pop(pending.item.id, None)
        self._pending_bytes -= sum(pending.prepared.bytes for pending in gone)
        return gone  # out of the lock: what goes may run its owner's code

    def _refuse_closed(self) -> None:
        self._shelf.refuse_closed()  # it knows whether all has moved somewhere
        if self._refuses:
            raise StateError("this context store is closed", hint=f"ContextStore({str(self.path)!r})")

    def _refuse_within(self) -> None:
        """Raise in a fork, and in what is collected in the middle of a change: both would wait for ever."""
        if self._mutex._is_owned() or self._pending_lock._is_owned():  # type: ignore[attr-defined]
            raise asked_within()
        if os.getpid() != self._pid:
            told = "this context store was opened by another process, of which this one is a fork"
            raise StateError(told, hint=f"open it again here: ContextStore({str(self.path)!r})")

    def is_at(self, path: str | os.PathLike[str]) -> bool:
        """Tell whether it keeps its items in that very file."""
        try:
            there, here = os.stat(Path(path).expanduser()), os.stat(self.path)
        except (OSError, TypeError, ValueError, RuntimeError):  # no file, or no path
            return False
        return here.st_ino == self._inode and os.path.samestat(there, here)

    def _is_lost(self) -> bool:
        """Tell whether the file was removed, or another is in its place."""
        try:
            return os.stat(self.path).st_ino != self._inode
        except OSError:
            return True

    def _refuse_lost(self) -> None:
        if self._is_lost():
            told = f"{self.path} is not there any more: it was removed, or another is in its place"
            hint = (
                "what is in memory is still here: %grym context open FILE takes the kernel's own along, "
                "ContextStore(FILE).take_over(store) one of yours"
            )
            raise StorageError(told, hint=hint)

    # -- the thread of the file --------------------------------------------------------------------

    def tick(self) -> None:
        """Write what is pending, take in what others wrote, and do what the store does now and then."""
        own = self._tick()  # held to the end: a store must not go with the mutex held
        try:
            if len(self._pending) > len(self._refused):
                self.flush()
            elif self._has_news():
                self.look(lambda _: None)
            if own is not None:
                own()
            told = self._refusal()
        except BaseException as error:  # whatever it is: this thread is the only one that writes
            told = error.message if isinstance(error, GrymError) else f"{type(error).__name__}: {error}"
        if told and told != self._trouble and not (self._closing.is_set() or self._shelf.closed):
            _log.warning("%s; what is not in the file stays in memory", told)
        self._trouble = told

    def _has_news(self) -> bool:
        with self._mutex:
            if self._closing.is_set():
                return False
            self._roll_back()
            (version,) = self._db.execute("PRAGMA data_version").fetchone()
            looked, self._looked = self._looked, int(version)
            # Its own, too: an interrupt may have come between a commit and what memory makes of it.
            return self._anew or looked != int(version) or self._seen != self._rows.seq


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
