"""Where items are kept besides memory: the protocol that a store speaks, and nowhere at all.

Items that are new come by `add`, which waits for nobody unless it is asked to. Whatever alters an item that
is there goes through `change`, one at a time: what it writes is kept as one or not at all, and memory follows
once it is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from grym_nb.context.item import ContextItem
from grym_nb.errors import StateError, StorageError
from grym_nb.render import size as in_words

__all__ = [
    "ELSEWHERE",
    "Change",
    "ContentsOf",
    "FileStats",
    "InMemory",
    "Storage",
    "Unreadable",
    "Writing",
    "asked_within",
    "gone",
    "readable",
    "whole",
]

T = TypeVar("T")
R = TypeVar("R")


class _Elsewhere:
    def __repr__(self) -> str:
        return "<in the file>"


#: stands for the content of an item that is not in memory
ELSEWHERE: Any = _Elsewhere()


class Unreadable:
    """Stands for a content that this kernel cannot read: `error` says why, and what to do."""

    def __init__(self, error: StorageError) -> None:
        self.error = error

    def __repr__(self) -> str:
        return f"<{self.error.message}>"


def readable(item: ContextItem) -> ContextItem:
    """Return an item; raise when its content cannot be read."""
    if isinstance(item.content, Unreadable):
        raise item.content.error
    return item


def whole(items: Sequence[ContextItem], contents_of: ContentsOf) -> list[ContextItem]:
    """Return items with their contents, wherever those are."""
    missing = [item for item in items if item.content is ELSEWHERE]
    if not missing:
        return list(items)
    found = iter(contents_of(missing))
    return [item if item.content is not ELSEWHERE else item._replace(content=next(found)) for item in items]


def gone(item: ContextItem) -> ContextItem:
    """Return an item that another kernel took out: what is not in memory of it is nowhere any more."""
    if item.content is not ELSEWHERE:
        return item
    error = StorageError(f"the content of {item.id} went with it", hint="nothing; it was taken out elsewhere")
    return item._replace(content=Unreadable(error))


def asked_within() -> StateError:
    """Return the error for who asks a store in the middle of a change of it, by this very thread."""
    return StateError(
        "the context store was asked by a finalizer, in the middle of a change of it",
        hint="give the item a ttl; or let the finalizer note its id, and delete it later",
    )


#: f(items) -> the content of each, in that order
ContentsOf: TypeAlias = Callable[[Sequence[ContextItem]], list[Any]]


class Change(NamedTuple):
    """What is known of an item from elsewhere: the item (its content `ELSEWHERE`), or why it is gone."""

    id: str
    item: ContextItem | None
    size: int
    why: str


class FileStats(NamedTuple):
    """A file: where it is, its size, how small contents got in it, what is not in it yet, and its journal."""

    path: str
    bytes: int
    raw_bytes: int
    packed_bytes: int
    unsaved: int
    journal: str
    trouble: str

    @property
    def ratio(self) -> float:
        """How many times smaller contents are in the file than by themselves."""
        return self.raw_bytes / self.packed_bytes if self.packed_bytes else 1.0

    def rows(self) -> list[tuple[str, str]]:
        """Return it as rows of a table."""
        packed = f"contents {in_words(self.packed_bytes)}, {self.ratio:.2f} times smaller than by themselves"
        rows = [("file", self.path), ("on disk", f"{in_words(self.bytes)} ({packed})")]
        rows += [("journal", self.journal)]
        rows += (
            [("not in it yet", f"{self.unsaved} item{'' if self.unsaved == 1 else 's'}")]
            if self.unsaved
            else []
        )
        return rows + ([("trouble", self.trouble)] if self.trouble else [])


class Writing(Protocol):
    """What can be written in one change, and read for it."""

    def contents_of(self, items: Sequence[ContextItem]) -> list[Any]:
        """Return the content of each."""

    def insert(self, packed: Any) -> None:
        """Write a new item, as `pack` made it ready."""

    def replace(self, before: ContextItem, packed: Any) -> None:
        """Write an item, as `pack` made it ready, in the place of `before`."""

    def update(self, before: ContextItem, after: ContextItem, size: int, prepared: Any) -> None:
        """Write `after` in the place of `before`, which becomes history when its version is another."""

    def delete(self, ids: Sequence[str], why: str, now: float) -> None:
        """Take items out."""


class Storage(Protocol):
    """Keeps items for a store, which holds in memory what is used of them."""

    #: whether what goes out of memory is still there
    keeps: bool

    def is_at(self, path: str | PathLike[str]) -> bool:
        """Tell whether it keeps its items in that very file."""

    def prepare(self, content: Any, *, at_once: bool = False) -> Any:
        """Return a content made ready for `add` or `update`; raises when it cannot be kept."""

    def pack(self, item: ContextItem, size: int) -> Any:
        """Return an item made ready for `insert` or `replace`; raises when it cannot be kept."""

    def add(self, item: ContextItem, size: int, prepared: Any, apply: Callable[[], object]) -> None:
        """Keep a new item, soon; or when it is durable, before `apply` brings it to memory."""

    def change(self, write: Callable[[Writing], T], apply: Callable[[T], R]) -> R:
        """Write as one, then let memory follow; return what `apply` returns."""

    def look(self, read: Callable[[ContentsOf], T]) -> T:
        """Return what `read(contents_of)` returns, while nothing is changed."""

    def leave(self, read: Callable[[ContentsOf], T], go: Callable[[T], object]) -> None:
        """Do `go(read(contents_of))` with all kept that is to be, while nobody can add or alter anything."""

    def past(self, id: str) -> list[ContextItem]:
        """Return the earlier versions of an item, the oldest first; inside of `look`."""

    def stats(self) -> FileStats | None:
        """Return what is to be told of the file, if there is one."""

    def close(self) -> None:
        """Keep what is not kept yet, and let go."""

    def drop(self) -> None:
        """Let go without keeping what is not kept yet."""


class InMemory:
    """Nowhere: what goes out of memory is gone."""

    keeps = False

    def __init__(self, still: Callable[[Callable[[], None]], None]) -> None:
        self._mutex = threading.RLock()
        self._still = still  # does something while memory cannot be altered: what is new goes there at once

    def is_at(self, path: str | PathLike[str]) -> bool:
        """Tell that it is in no file."""
        return False

    def prepare(self, content: Any, *, at_once: bool = False) -> Any:
        """Return nothing: anything goes."""

    def pack(self, item: ContextItem, size: int) -> Any:
        """Return nothing: anything goes."""

    def add(self, item: ContextItem, size: int, prepared: Any, apply: Callable[[], object]) -> None:
        """Bring it to memory."""
        apply()

    def contents_of(self, items: Sequence[ContextItem]) -> list[Any]:
        """Return them: they are in memory."""
        return [item.content for item in items]

    def insert(self, packed: Any) -> None:
        """Do nothing: it will be in memory."""

    def replace(self, before: ContextItem, packed: Any) -> None:
        """Do nothing: it will be in memory."""

    def update(self, before: ContextItem, after: ContextItem, size: int, prepared: Any) -> None:
        """Do nothing: it will be in memory."""

    def delete(self, ids: Sequence[str], why: str, now: float) -> None:
        """Do nothing: they will go from memory."""

    def change(self, write: Callable[[Writing], T], apply: Callable[[T], R]) -> R:
        """Do both, one change after the other."""
        if self._mutex._is_owned():  # type: ignore[attr-defined]
            raise asked_within()
        with self._mutex:
            return apply(write(self))

    def look(self, read: Callable[[ContentsOf], T]) -> T:
        """Return what it returns: all contents are in memory."""
        return read(self.contents_of)

    def leave(self, read: Callable[[ContentsOf], T], go: Callable[[T], object]) -> None:
        """Do it while nobody can change anything."""
        if self._mutex._is_owned():  # type: ignore[attr-defined]
            raise asked_within()
        with self._mutex:
            self._still(lambda: self._go(read, go))

    def _go(self, read: Callable[[ContentsOf], T], go: Callable[[T], object]) -> None:
        go(read(self.contents_of))

    def past(self, id: str) -> list[ContextItem]:
        """Return none: they are in memory."""
        return []

    def stats(self) -> None:
        """Return None: there is no file."""

    def close(self) -> None:
        """Do nothing."""

    def drop(self) -> None:
        """Do nothing."""
