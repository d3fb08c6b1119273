"""Which items have what: the part of a store that makes a query cost what its answer costs.

Every item stands in the lists of its type: in that of all, and in one for each other thing that is said of
it (its key, a tag), apart by priority. A query walks the shortest of the lists that it names and checks the
rest item by item; one that names a type, one thing more and a least priority walks nothing but its answer.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from grym_nb.context.item import ContextItem
from grym_nb.context.timeline import Timeline
from grym_nb.priority import CRITICAL, PRIORITIES

if TYPE_CHECKING:
    from _collections_abc import dict_values

__all__ = ["Entry", "Index", "Order", "Wanted"]

#: entries by the order of their writing, for each priority; None where there was none yet
_Levels = list["dict[int, Entry] | None"]
_Walk: TypeAlias = "dict_values[int, Entry]"  # such a view of a dict can be walked backwards, too
Order = Literal["newest", "oldest", "priority"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a query asks for. `names` are the fields and values that all have to be there."""

    type: str | None = None
    names: tuple[tuple[str, str], ...] = ()
    any_tags: frozenset[str] = frozenset()
    min_priority: int = 0
    since: float | None = None
    until: float | None = None
    order: Order = "newest"

    def fits(self, entry: Entry) -> bool:
        """Tell whether an entry is what is asked for."""
        item = entry.item
        if item.priority < self.min_priority or (self.type is not None and item.type != self.type):
            return False
        if self.since is not None and item.updated < self.since:
            return False
        if self.until is not None and item.updated > self.until:
            return False
        if self.any_tags and self.any_tags.isdisjoint(item.tags):
            return False
        return all(
            value in item.tags if field == "tag" else getattr(item, field) == value
            for field, value in self.names
        )


class Entry:
    """An item in a store, with what the store itself knows of it."""

    __slots__ = ("due", "item", "order", "past", "size", "stays", "turn", "used")

    def __init__(self, item: ContextItem, size: int, order: int) -> None:
        self.item = item
        self.size = size
        self.order = order  # of writing: the last written has the highest
        self.used = order  # when it was read or written last, in the same count
        self.stays = item.pinned or item.priority == CRITICAL
        self.due: float | None = None  # the time at which its expiry is looked at
        self.turn = 0  # its place in the line of those that go first, if it has one
        self.past: tuple[ContextItem, ...] = ()  # its earlier versions, oldest first

    def write(self, item: ContextItem, size: int, order: int) -> None:
        """Make `item` the one that stands here."""
        self.item = item
        self.size = size
        self.order = self.used = order
        self.stays = item.pinned or item.priority == CRITICAL


class _Lists:
    """The lists of one type."""

    __slots__ = ("all", "key", "source", "tag", "task", "workflow")

    def __init__(self) -> None:
        self.all: dict[None, _Levels] = {}
        self.key: dict[str, _Levels] = {}
        self.source: dict[str, _Levels] = {}
        self.workflow: dict[str, _Levels] = {}
        self.task: dict[str, _Levels] = {}
        self.tag: dict[str, _Levels] = {}

    def places(self, item: ContextItem) -> Iterator[tuple[dict[str, _Levels], str]]:
        """Yield where an item stands: the table, and its place in it."""
        for name in ("key", "source", "workflow", "task"):
            value = getattr(item, name)
            if value is not None:
                yield getattr(self, name), value
        for tag in item.tags:
            yield self.tag, tag


class Index:
    """Entries by what is said of them and priority, in the order of writing; and by the time of writing."""

    def __init__(self) -> None:
        self._types: dict[str, _Lists] = {}
        self._times: Timeline[Entry] = Timeline()
        self._latest = float("-inf")
        self._straight = True  # as long as the clock is never set back, later is what was written later

    def add(self, entry: Entry) -> None:
        """Let an entry be found; it is the last written."""
        item, order = entry.item, entry.order
        rank = item.priority
        lists = self._types.get(item.type)
        if lists is None:
            lists = self._types[item.type] = _Lists()
        # One by one: this is most of what a `put` costs.
        _put(lists.all, None, rank, order, entry)
        if item.key is not None:
            _put(lists.key, item.key, rank, order, entry)
        if item.source is not None:
            _put(lists.source, item.source, rank, order, entry)
        if item.workflow is not None:
            _put(lists.workflow, item.workflow, rank, order, entry)
        if item.task is not None:
            _put(lists.task, item.task, rank, order, entry)
        for tag in item.tags:
            _put(lists.tag, tag, rank, order, entry)
        updated = item.updated
        self._times.add(updated, order, entry)
        if updated < self._latest:
            self._straight = False
        self._latest = updated

    def remove(self, entry: Entry) -> None:
        """Let an entry be found no more."""
        item, order = entry.item, entry.order
        self._times.remove(item.updated, order)
        lists = self._types[item.type]
        _take(lists.all, None, item.priority, order)
        for table, value in lists.places(item):
            _take(table, value, item.priority, order)
        if not lists.all:
            del self._types[item.type]

    def find(self, wanted: Wanted) -> Iterator[Entry]:
        """Yield the entries that fit, in the order asked for; what has expired is among them."""
        lists = self._shortest(wanted)
        walks = [
            (level.values(), rank)
            for levels in lists
            for rank, level in enumerate(levels)
            if level and rank >= wanted.min_priority
        ]
        few = sum(len(walk) for walk, _ in walks)
        if (wanted.since is not None or wanted.until is not None) and (
            self._times.between(wanted.since, wanted.until) < few
        ):
            found: Iterable[Entry] = filter(wanted.fits, self._times.newest_first(wanted.since, wanted.until))
            if not self._straight:
                found = sorted(found, key=lambda entry: -entry.order)
            yield from _sorted(found, wanted.order)
            return
        last = None
        for entry in filter(wanted.fits, _merged(walks, wanted.order)):
            if entry is not last:  # one that has two of the tags of which any will do
                yield entry
            last = entry

    def types(self) -> list[str]:
        """Return the types that there are; needs no lock."""
        return sorted(self._types)

    def _shortest(self, wanted: Wanted) -> list[_Levels]:
        """Return the lists, one for each type and name, in which everything that fits must be."""
        groups: list[list[tuple[str, str | None]]] = [[name] for name in wanted.names]
        groups += [[("tag", tag) for tag in wanted.any_tags]] if wanted.any_tags else []
        best: list[_Levels] = []
        least = -1
        for names in groups or [[("all", None)]]:
            lists = [found for name in names for found in self._of(name, wanted.type)]
            length = sum(len(level) for levels in lists for level in levels[wanted.min_priority :] if level)
            if not length:
                return []
            if least < 0 or length < least:
                best, least = lists, length
        return best

    def _of(self, name: tuple[str, str | None], type: str | None) -> Iterator[_Levels]:
        field, value = name
        for one in self._types if type is None else (type,):
            lists = self._types.get(one)
            found = getattr(lists, field).get(value) if lists is not None else None
            if found is not None:
                yield found


def _put(table: dict[Any, _Levels], value: Any, rank: int, order: int, entry: Entry) -> None:
    levels = table.get(value)
    if levels is None:
        levels = table[value] = [None] * len(PRIORITIES)
    level = levels[rank]
    if level is None:
        levels[rank] = {order: entry}
    else:
        level[order] = entry


def _take(table: dict[Any, _Levels], value: Any, rank: int, order: int) -> None:
    levels = table[value]
    level = levels[rank]
    assert level is not None
    del level[order]
    if not level:
        levels[rank] = None
        if not any(levels):
            del table[value]


def _sorted(found: Iterable[Entry], order: Order) -> Iterable[Entry]:
    """Return entries that come with the newest first in the order asked for."""
    if order == "newest":
        return found
    if order == "oldest":
        return reversed(list(found))
    return sorted(found, key=lambda entry: -entry.item.priority)


def _merged(walks: list[tuple[_Walk, int]], order: Order) -> Iterator[Entry]:
    """Return the entries of several walks, each in the order of writing, in the order asked for."""
    if order == "priority":
        walks.sort(key=lambda walk: -walk[1])
        ranks = [[*rank] for _, rank in groupby(walks, key=lambda walk: walk[1])]
        return chain.from_iterable(_merged(rank, "newest") for rank in ranks)
    newest = order == "newest"
    ways: list[Iterator[Entry]] = [reversed(walk) if newest else iter(walk) for walk, _ in walks]
    return ways[0] if len(ways) == 1 else heapq.merge(*ways, key=lambda entry: entry.order, reverse=newest)
