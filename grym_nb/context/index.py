"""Which items have what: the part of a store that makes a query cost what its answer costs.

Every item stands in the lists of its type: in that of all, and in one for each other thing that is said of
it (its key, a tag), apart by priority. A query walks the shortest of the lists that it names and checks the
rest item by item; one that names a type, one thing more and a least priority walks nothing but its answer.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from grym_nb.context.content import said_size
from grym_nb.context.item import NOTHING, ContextItem
from grym_nb.context.storage import ELSEWHERE
from grym_nb.context.timeline import Timeline
from grym_nb.priority import CRITICAL, PRIORITIES

if TYPE_CHECKING:
    from _collections_abc import dict_values

__all__ = ["Entry", "Index", "Order", "Wanted"]

#: entries by the order of their writing, for each priority; None where there was none yet
_Levels = list["dict[int, Entry] | None"]
_Walk: TypeAlias = "dict_values[int, Entry]"  # such a view of a dict can be walked backwards, too
_NAMES = ("type", "key", "source", "workflow", "task")
_TAGS = len(_NAMES)
Order = Literal["newest", "oldest", "priority"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a query asks for. `names` are the fields and values that all have to be there."""

    type: str | None = None
    names: tuple[tuple[str, str], ...] = ()
    any_tags: frozenset[str] | None = None
    min_priority: int = 0
    since: float | None = None
    until: float | None = None
    order: Order = "newest"

    @property
    def is_one_list(self) -> bool:
        """Whether all that stands in the one list it names is what is asked for."""
        return len(self.names) <= 1 and self.any_tags is None and self.since is None and self.until is None

    def fits(self, item: ContextItem) -> bool:
        """Tell whether an item is what is asked for."""
        if item.priority < self.min_priority or (self.type is not None and item.type != self.type):
            return False
        if self.since is not None and item.updated < self.since:
            return False
        if self.until is not None and item.updated > self.until:
            return False
        if self.any_tags is not None and self.any_tags.isdisjoint(item.tags):
            return False
        return all(
            value in item.tags if field == "tag" else getattr(item, field) == value
            for field, value in self.names
        )

    def among(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Return those entries whose item fits."""
        fits = self.fits
        return (entry for entry in entries if fits(entry.item))


class Entry:
    """An item in a store, with what the store itself knows of it."""

    __slots__ = ("due", "item", "order", "own", "past", "reads", "size", "stays", "turn", "used")

    def __init__(self, item: ContextItem, size: int, order: int) -> None:
        self.item = item
        self.size = self.own = size  # with its earlier versions, and its content alone
        self.order = order  # of writing: the last written has the highest
        self.used = order  # when it was read or written last, in the same count
        self.stays = item.pinned or item.priority == CRITICAL
        self.due: float | None = None  # the time at which its expiry is looked at
        self.turn = 0  # its place in the line of those that go first, if it has one
        self.reads = 0
        self.past: tuple[tuple[ContextItem, int], ...] = ()  # its earlier versions and their sizes

    def write(self, item: ContextItem, size: int, order: int) -> None:
        """Make `item` the one that stands here."""
        self.item = item
        self.size = size
        self.order = self.used = order
        self.stays = item.pinned or item.priority == CRITICAL

    def past_with(self, item: ContextItem, most: int) -> tuple[tuple[ContextItem, int], ...]:
        """Return its earlier versions once `item` stands here: so many at most, each with its size."""
        if not most:
            return ()
        # What a version shares with its successor is counted there.
        old, own = self.item, 0
        if item.content is not old.content:
            own = self.own - said_size(old.metadata)
        if item.metadata is not old.metadata:
            own += said_size(old.metadata)
        return (*self.past, (old, own))[-most:]

    def parts(self) -> tuple[Any, ...]:
        """Return what is in memory of it, and of its earlier versions."""
        items = [self.item, *[old for old, _ in self.past]]
        found = [part for item in items for part in (item.content, item.metadata)]
        return tuple(part for part in found if part is not ELSEWHERE and part is not NOTHING)


class _Lists:
    """The lists of one type: for each field by value, all of them under the type's own name."""

    __slots__ = ("tables", "tag")

    def __init__(self) -> None:
        self.tag: dict[str, _Levels] = {}
        self.tables: tuple[dict[str, _Levels], ...] = tuple({} for _ in _NAMES)

    def of(self, field: str, value: str) -> _Levels | None:
        """Return the lists of what has that value in a field."""
        return (self.tag if field == "tag" else self.tables[_NAMES.index(field)]).get(value)

    def places(self, item: ContextItem) -> Iterator[tuple[dict[str, _Levels], str]]:
        """Yield where an item stands: the table, and its place in it."""
        values = (item.type, item.key, item.source, item.workflow, item.task)
        for table, value in zip(self.tables, values, strict=True):
            if value is not None:
                yield table, value
        for tag in item.tags:
            yield self.tag, tag


class Index:
    """Entries by what is said of them and priority, in the order of writing; and by the time of writing."""

    def __init__(self) -> None:
        self._types: dict[str, _Lists] = {}
        self._times = Timeline()
        self._latest = float("-inf")
        self._straight = True  # as long as the clock is never set back, later is what was written later

    def add(self, entry: Entry) -> None:
        """Let an entry be found; it is the last written."""
        item, order = entry.item, entry.order
        rank = item.priority
        lists = self._types.get(item.type)
        if lists is None:
            lists = self._types[item.type] = _Lists()
        # Straight on, without a call for each: this is most of what a `put` costs.
        tables = lists.tables
        said = (item.type, item.key, item.source, item.workflow, item.task, *item.tags)
        for at, value in enumerate(said):
            if value is not None:
                table = tables[at] if at < _TAGS else lists.tag
                levels = table.get(value)
                if levels is None or (level := levels[rank]) is None:
                    _put(table, value, rank, order, entry)
                else:
                    level[order] = entry
        updated = item.updated
        self._times.add(entry)
        if updated < self._latest:
            self._straight = False
        self._latest = updated

    def remove(self, entry: Entry) -> None:
        """Let an entry be found no more."""
        item, order = entry.item, entry.order
        self._times.remove(entry)
        lists = self._types[item.type]
        for table, value in lists.places(item):
            _take(table, value, item.priority, order)
        if not any(lists.tables):
            del self._types[item.type]

    def find(self, wanted: Wanted) -> Iterator[Entry]:
        """Return the entries that fit, in the order asked for; what has expired is among them."""
        walks = [
            (level.values(), rank)
            for levels in self._shortest(wanted)
            for rank, level in enumerate(levels)
            if level and rank >= wanted.min_priority
        ]
        if wanted.since is not None or wanted.until is not None:
            few = sum([len(walk) for walk, _ in walks])
            if self._times.between(wanted.since, wanted.until) < few:
                return self._in_time(wanted)
        elif wanted.is_one_list:
            return _merged(walks, wanted.order)
        return _without_twins(wanted.among(_merged(walks, wanted.order)))

    def _in_time(self, wanted: Wanted) -> Iterator[Entry]:
        found: Iterable[Entry] = wanted.among(self._times.newest_first(wanted.since, wanted.until))
        if not self._straight:
            found = sorted(found, key=lambda entry: -entry.order)
        return iter(_sorted(found, wanted.order))

    def out_of_line(self, since: float, last: Collection[str]) -> list[Entry]:
        """Return what was written from `since` on, but for those that stand in the order of their times
        already; of one time, items with these ids come last."""
        line = list(self._times.newest_first(since))
        line.sort(key=lambda entry: (-entry.item.updated, entry.item.id not in last, -entry.order))
        least, first = float("inf"), 0
        for place, entry in enumerate(line):  # the last first, whose order has to be the highest
            if entry.order > least:
                first = place
            least = min(least, entry.order)
        return line[:first][::-1]

    def types(self) -> list[str]:
        """Return the types that there are; needs no lock."""
        return sorted(self._types)

    def keys(self, type: str) -> list[str]:
        """Return the keys that there are of a type; needs no lock."""
        lists = self._types.get(type)
        return sorted(lists.tables[_NAMES.index("key")]) if lists is not None else []

    def _shortest(self, wanted: Wanted) -> list[_Levels]:
        """Return the lists, one for each type and name, in which everything that fits must be."""
        groups: list[list[tuple[str, str] | None]] = [[name] for name in wanted.names]
        groups += [] if wanted.any_tags is None else [[("tag", tag) for tag in wanted.any_tags]]
        best: list[_Levels] = []
        least = -1
        for names in groups or [[None]]:  # which is all of a type
            lists = [found for name in names for found in self._of(name, wanted.type)]
            length = sum(len(level) for levels in lists for level in levels[wanted.min_priority :] if level)
            if not length:
                return []
            if least < 0 or length < least:
                best, least = lists, length
        return best

    def _of(self, name: tuple[str, str] | None, type: str | None) -> Iterator[_Levels]:
        for one in self._types if type is None else (type,):
            lists = self._types.get(one)
            found = lists.of(*(name or ("type", one))) if lists is not None else None
            if found is not None:
                yield found


def _without_twins(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield each entry once: one that has two of the tags of which any will do comes twice in a row."""
    last = None
    for entry in entries:
        if entry is not last:
            yield entry
        last = entry


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
