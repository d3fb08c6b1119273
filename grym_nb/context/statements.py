"""What is read from the tables of a file of context and written to them, inside a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from grym_nb.context import schema
from grym_nb.context.codec import decode
from grym_nb.context.content import frozen
from grym_nb.context.item import ContextItem
from grym_nb.context.packing import unpack
from grym_nb.context.rows import Pending, Prepared, change_of, row_of
from grym_nb.context.storage import Change, Unreadable
from grym_nb.errors import ItemNotFound, StorageError

__all__ = ["DELETE_IT", "REFUSALS", "Statements", "damaged", "refused", "told_of", "typed"]

_TOMBSTONE_SECONDS = 3600.0  # for which it is known what went: a kernel that slept longer reads all anew
_AT_ONCE = 500  # ids in one statement
_COLUMNS = ", ".join(schema.COLUMNS)
_ROW = ", ".join("?" * len(schema.COLUMNS))
_CONTENT = "typeof(c.body), CAST(c.body AS BLOB), c.arrays"  # so that text that is damaged is read, too
_BY_AGE = "ORDER BY updated, written"  # what is put comes into the file later: by others' then, maybe
_SAID = [*schema.COLUMNS[1:-3], "seq"]
_UPDATE = f"UPDATE items SET ({', '.join(_SAID)}) = ({', '.join('?' * len(_SAID))}) WHERE id = ?"


class Statements:
    """The statements of one file. `seq` is the number of the last thing that was written in it."""

    def __init__(self, db: sqlite3.Connection, path: Path, *, history: int) -> None:
        self._run = db.execute
        self._path = path
        self._history = history
        self._deleted = _AT_ONCE  # since tombstones were last forgotten: at the first, too
        self.seq = -1

    def begin(self) -> int:
        """Read how far the file is; return the number up to which what went is not remembered any more."""
        state = self._run("SELECT seq, floor FROM state").fetchone()
        if state is None:
            raise damaged(self._path, "its table state is empty")
        self.seq, floor = state
        return int(floor)

    def end(self) -> None:
        """Write how far the file is now."""
        self._run("UPDATE state SET seq = ?", (self.seq,))

    # -- writing -----------------------------------------------------------------------------------

    def insert(self, pending: Pending) -> None:
        """Write a new item; one that is there already stays as it is."""
        self._run("SAVEPOINT item")
        try:
            self._insert(pending)
        except REFUSALS:  # of any other, SQLite may have ended all of the transaction
            self._run("ROLLBACK TO item")
            self._run("RELEASE item")
            raise
        self._run("RELEASE item")

    def _insert(self, pending: Pending) -> None:
        seq = self._next()
        row = [*pending.row, seq, seq]
        if self._run(f"INSERT OR IGNORE INTO items ({_COLUMNS}) VALUES ({_ROW})", row).rowcount:
            self._insert_content(pending.item.id, pending.item.version, pending.prepared)

    def bring_back(self, pending: Pending) -> None:
        """Write a new item, which may have been here before."""
        self.insert(pending)
        self._run("DELETE FROM gone WHERE id = ?", (pending.item.id,))

    def update(self, before: ContextItem, after: ContextItem, size: int, prepared: Prepared | None) -> None:
        """Write `after` in the place of `before`."""
        run, id = self._run, after.id
        anew = after.version != before.version
        if anew:
            run(f"INSERT INTO past SELECT {_COLUMNS} FROM items WHERE id = ?", (id,))
        if not run(_UPDATE, (*row_of(after, size)[1:-1], self._next(), id)).rowcount:
            raise ItemNotFound(f"{id} is not in {self._path} any more", hint="put it again", id=id)
        if prepared is not None:
            self._insert_content(id, after.version, prepared)
            run("UPDATE items SET content = version WHERE id = ?", (id,))
        if anew:
            run("UPDATE items SET written = seq WHERE id = ?", (id,))
            run("DELETE FROM past WHERE id = ? AND version < ?", (id, after.version - self._history))
            run(
                "DELETE FROM contents WHERE id = ? AND version NOT IN"
                " (SELECT content FROM past WHERE id = ? UNION SELECT content FROM items WHERE id = ?)",
                (id, id, id),
            )

    def delete(self, ids: Sequence[str], why: str, now: float) -> None:
        """Take items out."""
        for id in ids:
            self._run("DELETE FROM items WHERE id = ?", (id,))
            self._run("DELETE FROM past WHERE id = ?", (id,))
            self._run("DELETE FROM contents WHERE id = ?", (id,))
            self._run("INSERT OR REPLACE INTO gone VALUES (?, ?, ?, ?)", (id, self._next(), why, now))
        self._deleted += len(ids)
        if self._deleted >= _AT_ONCE:
            self._forget(now - _TOMBSTONE_SECONDS)

    def _forget(self, until: float) -> None:
        """Forget what went before that time."""
        self._deleted = 0
        (floor,) = self._run("SELECT max(seq) FROM gone WHERE at < ?", (until,)).fetchone()
        if floor is not None:
            self._run("DELETE FROM gone WHERE at < ?", (until,))
            self._run("UPDATE state SET floor = max(floor, ?)", (floor,))

    def _insert_content(self, id: str, version: int, prepared: Prepared) -> None:
        packed = prepared.packed()
        self._run(
            "INSERT INTO contents VALUES (?, ?, ?, ?, ?, ?)",
            (id, version, packed.raw, packed.size, packed.text, packed.arrays),
        )

    def _next(self) -> int:
        self.seq += 1
        return self.seq

    # -- reading -----------------------------------------------------------------------------------

    def everything(self) -> list[Change]:
        """Return all items, in the order in which they were written, by whichever kernel."""
        return [change_of(row) for row in self._run(f"SELECT {_COLUMNS} FROM items {_BY_AGE}")]

    def changes(self, since: int) -> Iterator[Change]:
        """Yield what was written after that number, and then what went."""
        for row in self._run(f"SELECT {_COLUMNS} FROM items WHERE seq > ? {_BY_AGE}", (since,)):
            yield change_of(row)
        for id, why in self._run("SELECT id, why FROM gone WHERE seq > ? ORDER BY seq", (since,)):
            yield Change(id, None, 0, why)

    def is_gone(self, id: str) -> bool:
        """Tell whether an item was there, and went."""
        return self._run("SELECT 1 FROM gone WHERE id = ?", (id,)).fetchone() is not None

    def contents(self, wanted: Sequence[str]) -> dict[str, Any]:
        """Return contents by the ids of their items."""
        found: dict[str, Any] = {}
        left = iter(wanted)
        while ids := list(islice(left, _AT_ONCE)):
            rows = self._run(
                f"SELECT i.id, {_CONTENT} FROM items i JOIN contents c ON c.id = i.id AND"
                f" c.version = i.content WHERE i.id IN ({', '.join('?' * len(ids))})",
                ids,
            )
            found.update((id, self._read(id, *content)) for id, *content in rows)
        for id in wanted:
            if id not in found:
                found[id] = Unreadable(damaged(self._path, f"the content of {id} is not in it"))
        return found

    def past(self, id: str) -> list[ContextItem]:
        """Return the earlier versions of an item, the oldest first."""
        rows = self._run(
            f"SELECT {', '.join(f'p.{name}' for name in schema.COLUMNS)}, {_CONTENT} FROM past p"
            " JOIN contents c ON c.id = p.id AND c.version = p.content WHERE p.id = ? ORDER BY p.version",
            (id,),
        ).fetchall()
        found = []
        for *row, kind, body, arrays in rows:
            item = change_of(row).item
            assert item is not None
            found.append(item._replace(content=self._read(id, kind, body, arrays)))
        return found

    def totals(self) -> tuple[int, int]:
        """Return how many bytes the contents are by themselves, and how many as they are kept."""
        raw, packed = self._run("SELECT total(raw), total(packed) FROM contents").fetchone()
        return int(raw), int(packed)

    def _read(self, id: str, kind: str, body: bytes, arrays: bytes | None) -> Any:
        """Return a content, or what stands for it: others are not to suffer for one."""
        try:
            return frozen(decode(*unpack(body.decode() if kind == "text" else body, arrays)))
        except (RecursionError, MemoryError):
            raise  # that is of who reads, and not of what is read
        except StorageError as error:
            return Unreadable(StorageError(f"{id} cannot be read: {error.message}", hint=error.hint))
        except Exception as error:  # what its bytes are, or what the class of a part of it does
            told = f"{type(error).__name__}: {error}"
            return Unreadable(damaged(self._path, f"the content of {id} cannot be read: {told}"))


# -- what goes wrong -------------------------------------------------------------------------------

#: what is raised for an item that does not fit, whatever else is written: a number too large, a strange type
REFUSALS = (
    OverflowError, UnicodeError, sqlite3.InterfaceError, sqlite3.ProgrammingError, sqlite3.DataError,
    sqlite3.IntegrityError,
)  # fmt: skip
DELETE_IT = "delete it, or put it again as plain values"


def refused(item: ContextItem, error: Exception) -> StorageError:
    """Return the error for an item that does not fit."""
    return StorageError(f"{item.id} ({item.type!r}) cannot be written: {error}", hint=DELETE_IT, id=item.id)


@contextmanager
def told_of(item: ContextItem) -> Iterator[None]:
    """Name an item that does not fit."""
    try:
        yield
    except REFUSALS as error:
        raise refused(item, error) from None


_DAMAGED = (
    "is damaged",
    "take its copy, or move it away; `sqlite3 FILE .recover` gets out what is whole",
)
_IN_USE = ("is in use: another program keeps it locked", "nothing was written; try again")
_TROUBLES = {
    "SQLITE_BUSY": _IN_USE,
    "SQLITE_LOCKED": _IN_USE,
    "SQLITE_FULL": ("cannot grow: the disk is full", "nothing was written; make room and try again"),
    "SQLITE_READONLY": ("may not be written to", "nothing was written; chmod u+w, or name another file"),
    "SQLITE_CORRUPT": _DAMAGED,
    "SQLITE_NOTADB": _DAMAGED,
    "SQLITE_CANTOPEN": ("cannot be opened", "name a file in a folder that you may write to"),
}


def typed(error: sqlite3.Error, path: Path) -> StorageError:
    """Return what SQLite said in our words."""
    code = getattr(error, "sqlite_errorname", "") or ""
    for start, (told, hint) in _TROUBLES.items():
        if code.startswith(start):
            return StorageError(f"{path} {told}", cause=str(error), hint=hint, path=str(path))
    return StorageError(
        f"{path} cannot be used: {error}", hint="see whether the disk is well", path=str(path)
    )


def damaged(path: Path, how: str) -> StorageError:
    """Return the error for a file in which something does not fit."""
    told, hint = _DAMAGED
    return StorageError(f"{path} {told}", cause=how, hint=hint, path=str(path))
