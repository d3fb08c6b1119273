"""What a store shows of itself: figures, a table, and what Python asks of anything that holds things."""

from __future__ import annotations

import html
from typing import Any

from grym_nb.clock import Clock
from grym_nb.context.query import refuse_limit, wanted_of
from grym_nb.context.shelf import Shelf, has_expired
from grym_nb.context.stats import Stats, table_of
from grym_nb.context.storage import Storage
from grym_nb.errors import says_what_it_takes
from grym_nb.render import Table
from grym_nb.render import size as in_words

__all__ = ["Shown"]


class Shown:
    """The part of a store that tells of it, and alters nothing."""

    _shelf: Shelf
    _storage: Storage
    _clock: Clock

    def stats(self) -> Stats:
        """Return what is in the store, and what went through it."""
        return self._shelf.stats(self._storage.stats())

    def held(self) -> dict[str, tuple[Any, ...]]:
        """Return what is in memory of each item, by id: contents and metadata, those of earlier versions too.

        What has expired is among it until it is swept; nothing is read for it.
        """
        return self._shelf.held()

    def uses(self) -> dict[str, int]:
        """Return how often each item was read, by id: what `ranked` calls frequency."""
        return {entry.item.id: entry.reads for entry in self._shelf.live(self._clock())}

    @says_what_it_takes
    def table(self, *, limit: int | None = 50, **filters: Any) -> Table:
        """Return the items that a query would find, the newest first, as a table of so many rows."""
        refuse_limit(limit, "table")
        now = self._clock()
        live = self._shelf.live(now, wanted_of(filters, also=("order", "limit")))
        return table_of(live, now, limit, len(self) if filters else None)

    def __repr__(self) -> str:
        if self._shelf.closed:
            return "<ContextStore: closed>"
        where = f" in {path}" if (path := getattr(self._storage, "path", None)) else ""
        used, count = in_words(self._shelf.budget.used[0]), len(self)
        return f"<ContextStore{where}: {count} item{'' if count == 1 else 's'}, {used} in memory>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self) if self._shelf.closed else f"{self.table(limit=20).text()}\n{self!r}")

    def _repr_html_(self) -> str:
        return self.table().html() if not self._shelf.closed else f"<p>{html.escape(repr(self))}</p>"

    def __bool__(self) -> bool:
        return True  # also with nothing in it

    def __len__(self) -> int:
        """How many items there are that still hold."""
        return len(self._shelf.live(self._clock()))

    def __contains__(self, id: object) -> bool:
        entry = self._shelf.entries.get(id) if isinstance(id, str) else None
        return entry is not None and not has_expired(entry.item, self._clock())
