"""What a file of context looks like inside, how an older one becomes a newer one, and whose a file is."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from grym_nb.errors import StorageError

__all__ = ["COLUMNS", "VERSION", "journal_for", "made_ready", "opened"]

#: of a row of `items`: the fields of an item without its content, then what the file knows of it
COLUMNS = (
    "id type key metadata source priority tags workflow task ttl created updated expires version pinned "
    "durable provenance size content written seq"
).split()

_SAID = """
    type TEXT NOT NULL, key TEXT, metadata TEXT NOT NULL, source TEXT, priority INTEGER NOT NULL,
    tags TEXT NOT NULL, workflow TEXT, task TEXT, ttl REAL, created REAL NOT NULL, updated REAL NOT NULL,
    expires REAL, version INTEGER NOT NULL, pinned INTEGER NOT NULL, durable INTEGER NOT NULL,
    provenance TEXT NOT NULL, size INTEGER NOT NULL, content INTEGER NOT NULL,
    written INTEGER NOT NULL, seq INTEGER NOT NULL
"""

#: each step makes a file of one version into the next; a file is of the version of its last step
_STEPS = (
    # `seq` counts what is written, and tells kernels what is new to them; `written` is the one of the last
    # version. `content` is the version at which the content was written: what is said of it may change alone.
    f"""
    CREATE TABLE items (id TEXT PRIMARY KEY, {_SAID});
    CREATE INDEX items_seq ON items (seq);
    CREATE TABLE contents (
        id TEXT NOT NULL, version INTEGER NOT NULL, raw INTEGER NOT NULL, packed INTEGER NOT NULL,
        body NOT NULL, arrays BLOB, PRIMARY KEY (id, version));
    CREATE TABLE gone (id TEXT PRIMARY KEY, seq INTEGER NOT NULL, why TEXT NOT NULL, at REAL NOT NULL);
    CREATE INDEX gone_seq ON gone (seq);
    CREATE TABLE state (seq INTEGER NOT NULL, floor INTEGER NOT NULL);
    INSERT INTO state VALUES (0, 0);
    """,
    # Earlier versions of items.
    f"""
    CREATE TABLE past (id TEXT NOT NULL, {_SAID}, PRIMARY KEY (id, version));
    """,
)
VERSION = len(_STEPS)
_MAGIC = b"SQLite format 3\0"
_APPLICATION = 0x6772796D  # "grym": how a file of ours is known from others of SQLite
_ANOTHER = "name another file; this one was left as it is"
_NETWORK = frozenset("nfs nfs4 cifs smb smb2 smb3 smbfs 9p afs ceph lustre fuse.sshfs fuse.s3fs gfs2".split())


#: the files that this process has open, by device and inode
_open: Counter[tuple[int, int]] = Counter()
_opening = threading.RLock()  # a store that is forgotten may be collected, and closed, with it held


class _Connection(sqlite3.Connection):
    """A connection that is known as long as it is open."""

    file: tuple[int, int] | None = None

    def close(self) -> None:
        """Close it."""
        super().close()
        file, self.file = self.file, None
        if file is not None:
            with _opening:
                _open[file] -= 1


def opened(path: Path) -> sqlite3.Connection:
    """Return a connection to a file, which is made for its owner alone when it is not there.

    A file that is not ours is told by its first bytes, before anything could touch it.
    """
    # One at a time: whoever closes a file that is open elsewhere in a process ends the locks that SQLite has
    # on it there, and another kernel could take the file apart.
    with _opening:
        return _opened(path)


def _opened(path: Path) -> sqlite3.Connection:
    try:
        try:
            # Its journal and shared memory take over the mode that the file has when they are made.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            if not _open[_inode(path)]:
                _refuse_foreign(path)
        options: dict[str, Any] = {"timeout": 0.05, "isolation_level": None, "check_same_thread": False}
        db = sqlite3.connect(path, factory=_Connection, **options)
        db.file = _inode(path)
        _open[db.file] += 1
        return db
    except (OSError, sqlite3.Error) as error:
        if isinstance(error, StorageError):
            raise
        told = f"{path} cannot be opened: {getattr(error, 'strerror', None) or error}"
        raise StorageError(
            told, hint="name a file in a folder that you may write to", path=str(path)
        ) from None


def _inode(path: Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _refuse_foreign(path: Path) -> None:
    with open(path, "r+b") as file:  # for writing: a file that is read-only is told now
        head = file.read(100)
    if not head:
        return  # just made, by us or somebody beside us
    if head[:16] != _MAGIC:
        raise StorageError(f"{path} is not a file of context", hint=_ANOTHER)
    application = int.from_bytes(head[68:72])
    if application == _APPLICATION:
        return
    if application or _has_tables(path):
        raise StorageError(f"{path} is an SQLite file of another program", hint=_ANOTHER)


def _has_tables(path: Path) -> bool:
    if Path(f"{path}-wal").exists():
        return True  # they may be only there: ours are in the file itself from the first moment
    # As if it could not change: so that nothing is made beside it.
    db = sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)
    try:
        return bool(db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    finally:
        db.close()


def made_ready(db: sqlite3.Connection, path: Path, *, full_sync: bool) -> str:
    """Make the file one of this version, inside a transaction of its own; return how it keeps its journal."""
    db.execute("BEGIN IMMEDIATE")
    try:
        _migrate(db, path)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # SQLite has ended it itself where the disk is full
            db.execute("ROLLBACK")
        raise
    wanted = journal_for(path)
    (journal,) = db.execute(f"PRAGMA journal_mode = {wanted}").fetchone()
    db.execute("PRAGMA journal_size_limit = 67108864")
    # With a journal that is rolled back, only a full sync keeps a file whole when the power goes.
    db.execute(f"PRAGMA synchronous = {'FULL' if full_sync or journal != 'wal' else 'NORMAL'}")
    return str(journal)


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        told = (
            f"{path} was written by a newer grym_nb (version {version} of its form, this one knows {VERSION})"
        )
        raise StorageError(told, hint="pip install --upgrade grym-nb; the file was left as it is")
    if version == VERSION:
        return
    for step in _STEPS[version:]:
        for statement in filter(str.strip, step.split(";")):  # executescript would end the transaction
            db.execute(statement)
    db.execute(f"PRAGMA application_id = {_APPLICATION}")
    db.execute(f"PRAGMA user_version = {VERSION}")


def journal_for(path: Path, mounts: str | None = None) -> str:
    """Return which journal a file can have: "wal", or "delete" where kernels share no memory (NFS).

    `mounts` is the text of /proc/self/mountinfo; where there is none, SQLite itself says what it can.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text()
        except OSError:
            return "wal"
    at, kind = "", ""
    where = str(path.resolve())
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        point = fields.split(" ")[4].encode().decode("unicode_escape")  # a space in it is written \040
        inside = where == point or where.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(at):
            at, kind = point, rest.split(" ")[0]
    return "delete" if kind in _NETWORK else "wal"
