"""What is told of a store: its figures, and its items as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from grym_nb.context.budget import Budget
from grym_nb.context.index import Entry
from grym_nb.context.storage import FileStats
from grym_nb.priority import PRIORITIES
from grym_nb.render import Table, glance, seconds
from grym_nb.render import size as in_words

__all__ = ["Stats", "Went", "stats_of", "table_of"]


class Went(NamedTuple):
    """An item that went without anybody asking for it: why ("expired", "evicted"), and what for."""

    id: str
    type: str
    key: str | None
    priority: int
    size: int
    at: float
    why: str
    because: str

    @property
    def told(self) -> str:
        """What became of it, in words."""
        return (
            f"{self.id} has expired" if self.why == "expired" else f"{self.id} was {self.why}: {self.because}"
        )


class Stats(NamedTuple):
    """What is in a store, and what went through it; `file` when it has one."""

    items: int
    in_memory: int
    bytes: int
    max_bytes: int | None
    max_items: int | None
    puts: int
    updates: int
    expired: int
    evicted: int
    deleted: int
    went: tuple[Went, ...]
    file: FileStats | None

    def _table(self) -> Table:
        limits = [in_words(self.max_bytes)] if self.max_bytes is not None else []
        limits += [f"{self.max_items} items"] if self.max_items is not None else []
        rows = [
            ("items", f"{self.items}, {self.in_memory} of them in memory" if self.file else str(self.items)),
            ("in memory", in_words(self.bytes) + (f" of at most {' and '.join(limits)}" if limits else "")),
            ("put, updated, deleted", f"{self.puts}, {self.updates}, {self.deleted}"),
            ("expired, evicted", f"{self.expired}, {self.evicted}"),
        ]
        rows += [("went last", went.told) for went in self.went[-3:]]
        if self.file is not None:
            rows += self.file.rows()
        return Table("context store", ("", ""), rows)

    def __repr__(self) -> str:
        return self._table().text()

    def _repr_html_(self) -> str:
        return self._table().html()


def table_of(entries: Sequence[Entry], now: float, limit: int | None, among: int | None) -> Table:
    """Return items as a table: what they are, for how long, how important, how large."""
    rows = [_row(entry, now) for entry in entries[:limit]]
    if limit is not None and len(entries) > limit:
        rows.append(("…", f"{len(entries) - limit} more", *[""] * 7))
    of, count = ("", len(entries)) if among is None else (f" of {among}", among)
    caption = f"context: {len(entries)}{of} item{'' if count == 1 else 's'}"
    columns = ("id", "type", "key", "content", "priority", "left", "size", "version", "tags")
    return Table(caption, columns, rows, empty="ctx.put(content, type=..., key=...) puts something there")


def _row(entry: Entry, now: float) -> tuple[str, ...]:
    item = entry.item
    left = item.left(now)
    return (
        item.id,
        item.type,
        "" if item.key is None else item.key if len(item.key) <= 60 else f"{item.key[:59]}…",
        glance(item.key or "content", item.content),
        PRIORITIES[item.priority] + (", pinned" if item.pinned else ""),
        "for ever" if left is None else seconds(left),
        in_words(entry.size),
        str(item.version),
        ", ".join(item.tags),
    )


def stats_of(
    items: int, budget: Budget, counts: Mapping[str, int], went: Iterable[Went], file: FileStats | None
) -> Stats:
    """Return the figures of so many items, those in memory as the budget has them."""
    (bytes, in_memory), (max_bytes, max_items) = budget.used, budget.limits
    return Stats(
        items=items,
        in_memory=in_memory,
        bytes=bytes,
        max_bytes=max_bytes,
        max_items=max_items,
        puts=counts["puts"],
        updates=counts["updates"],
        expired=counts["expired"],
        evicted=counts["evicted"],
        deleted=counts["deleted"],
        went=tuple(went),
        file=file,
    )
