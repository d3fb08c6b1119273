"""The items of a store as they stand in memory: found, timed, counted; and what is said of what happens."""

from __future__ import annotations

import itertools
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, TypeVar

from grym_nb.context.budget import Budget
from grym_nb.context.content import said_size
from grym_nb.context.expiry import Expiry
from grym_nb.context.index import Entry, Index, Wanted
from grym_nb.context.item import ContextItem, state_of
from grym_nb.context.missing import no_item, nothing_of
from grym_nb.context.stats import Stats, Went, stats_of
from grym_nb.context.storage import ELSEWHERE, Change, ContentsOf, FileStats, Unreadable, asked_within, gone
from grym_nb.context.telling import Telling
from grym_nb.errors import GrymError, ItemNotFound, ResourceExhausted, StateError, StorageError
from grym_nb.events import ItemDeleted, ItemEvent, ItemEvicted, ItemExpired, ItemPut, ItemUpdated
from grym_nb.priority import PRIORITIES
from grym_nb.render import size as in_words

__all__ = ["Shelf", "has_expired"]

T = TypeVar("T")

_WENT_KEPT = 100
_EVENTS = {"deleted": ItemDeleted, "expired": ItemExpired}


def has_expired(item: ContextItem, now: float) -> bool:
    """Tell whether an item holds no more."""
    return item.expires is not None and item.expires <= now


class Shelf:
    """Items by id, by what is said of them, by when they expire, and by what goes first; for any thread.

    With `keeps`, what goes is only the content, which is elsewhere, too; and what does not fit is not here.
    `went` are the last that went without being asked to, `counts` how many did what.
    """

    def __init__(self, budget: Budget, telling: Telling, *, history: int, keeps: bool) -> None:
        self.entries: dict[str, Entry] = {}
        self.keeps = keeps
        self.budget = budget
        self.uses = itertools.count(1)
        self.went: deque[Went] = deque(maxlen=_WENT_KEPT)
        self.counts: Counter[str] = Counter()
        self.closed = False
        self.moved_to: object = None  # the file of the store that took over from this one
        self._lock = threading.RLock()  # which knows whose it is: see `refuse_within`
        self._index = Index()
        self._expiry = Expiry()
        self._telling = telling
        self._history = history
        self._torn = False
        self._late = float("inf")  # the first time of what came from elsewhere, and is not in line yet
        self.freed: list[object] = []

    # -- reading -----------------------------------------------------------------------------------

    def present(self, id: str, now: float) -> Entry:
        """Return the entry of that id; `ItemNotFound` when there is none, or it has expired."""
        self.refuse_closed()
        entry = self.entries.get(id) if isinstance(id, str) else None
        if entry is None or has_expired(entry.item, now):
            raise self.not_found(id)
        return entry

    def find(self, wanted: Wanted, now: float, limit: int | None = None, read: int = 1) -> list[ContextItem]:
        """Return the items that fit and have not expired, in the order asked for, as used now."""
        self.refuse_within()
        with self._lock:
            return self._find(wanted, now, limit, read)

    def _find(self, wanted: Wanted, now: float, limit: int | None, read: int) -> list[ContextItem]:
        self._ready()
        found: list[ContextItem] = []
        for entry in self._index.find(wanted):
            if len(found) == limit:
                break
            item = entry.item
            if item.expires is None or item.expires > now:
                entry.used = next(self.uses)
                entry.reads += read
                found.append(item)
        return found

    def live(self, now: float, wanted: Wanted | None = None) -> list[Entry]:
        """Return the entries that fit and have not expired, the newest first; that is no use of them."""
        self.refuse_within()
        with self._lock:
            self._ready()
            found = self._index.find(wanted or Wanted())
            return list(filter(lambda entry: not has_expired(entry.item, now), found))

    def everything(self, now: float) -> list[tuple[ContextItem, int]]:
        """Return all that holds and what each takes, the first written first; also with the lock held."""
        with self._lock:
            return self._everything(now)

    def _everything(self, now: float) -> list[tuple[ContextItem, int]]:
        self._ready()
        found = self._index.find(Wanted(order="oldest"))
        return [(entry.item, entry.own) for entry in found if not has_expired(entry.item, now)]

    def still(self, do: Callable[[], T]) -> T:
        """Return what `do()` does, while nothing else can alter what stands here."""
        self.refuse_within()
        with self._lock:
            return do()

    def held(self) -> dict[str, tuple[Any, ...]]:
        """Return what is in memory of each item: also of one that has expired, and of earlier versions."""
        self.refuse_within()
        with self._lock:
            return self._held()

    def _held(self) -> dict[str, tuple[Any, ...]]:
        return {id: entry.parts() for id, entry in self.entries.items()}

    def history(self, id: str, now: float) -> tuple[ContextItem, ...]:
        """Return the versions of an item that are in memory, the oldest first, the present one last."""
        self.refuse_within()
        with self._lock:
            entry = self.present(id, now)
            return (*[old for old, _ in entry.past], entry.item)

    def stats(self, file: FileStats | None) -> Stats:
        """Return what is here, and what went through it."""
        self.refuse_within()
        with self._lock:
            self._ready()
            return stats_of(len(self.entries), self.budget, self.counts, self.went, file)

    def is_due(self, now: float) -> bool:
        """Tell whether something has expired; needs no lock."""
        return self._expiry.soonest <= now

    def due(self, now: float, most: int, found: list[Entry]) -> None:
        """Find some that have expired; they are not looked for again until `undo` says so."""
        self._altered(lambda: found.extend(islice(iter(lambda: self._expiry.next(now), None), most)))

    def not_found(self, id: object) -> ItemNotFound:
        """Return the error for an id that is not here: whether it ever was, and why it is not."""
        self.refuse_closed()
        went = [one for one in tuple(self.went) if not (self.keeps and one.why == "evicted")]
        return no_item(id, self.entries, went, self._index)

    def nothing_of(self, type: str, key: str | None) -> ItemNotFound:
        """Return the error for a type, or a key of it, of which nothing is here that still holds."""
        return nothing_of(type, key, self._index)

    def refuse_closed(self) -> None:
        """Raise when this is closed."""
        if self.closed and self.moved_to is not None:
            told = f"what this context store had is in {self.moved_to} now"
            raise StateError(told, hint="the kernel's own is always grym.current().context")
        if self.closed:
            where = "its path" if self.keeps else ""
            raise StateError("this context store is closed", hint=f"make another: ContextStore({where})")

    # -- writing -----------------------------------------------------------------------------------

    def add(self, item: ContextItem, size: int) -> None:
        """Let a new item stand here."""
        self._altered(self._add_new, item, size)

    def write(self, entry: Entry, item: ContextItem, size: int, now: float) -> ContextItem:
        """Let `item` stand where an entry does, and return it."""
        there = item if not isinstance(item.content, Unreadable) else item._replace(content=ELSEWHERE)
        self._altered(self._write_anew, entry, there, size, now)
        return item

    def take_out(self, ids: Iterable[str], why: str, now: float, whole: Iterable[ContextItem] = ()) -> int:
        """Let items stand here no more; return how many did. Those that are known `whole` are told so."""
        return self._altered(self._take_out, ids, why, now, {item.id: item for item in whole})

    def drop(self, ids: Iterable[str]) -> None:
        """Let items that were never said to be here be so."""
        self._altered(self._drop, ids)

    def undo(self, entries: Iterable[Entry]) -> None:
        """Look again for entries that were due, and are still here."""
        self._altered(self._undo, entries)

    def fill(self, items: Sequence[ContextItem], contents: Sequence[object], now: float) -> list[ContextItem]:
        """Return items with these contents, and let them be in memory again as far as there is room."""
        whole = [item._replace(content=content) for item, content in zip(items, contents, strict=True)]
        readable = [item for item in whole if not isinstance(item.content, Unreadable)]
        self._altered(self._bring_in, readable, now)
        return whole

    def load(self, changes: Iterable[Change]) -> None:
        """Bring in what a file holds when it is opened, or another store held: that is no event."""
        self._altered(self._load, changes)

    def take_in(
        self, changes: Iterable[Change], contents_of: ContentsOf, now: float, unwritten: Collection[str]
    ) -> None:
        """Bring in what others did to items; of one time, those that are `unwritten` here are the last."""
        self._altered(self._take_in, changes, contents_of, now, unwritten)

    def end(self, moved_to: object) -> None:
        """Let whoever asks from now on be told where it is; also with the lock held."""
        with self._lock:
            self.moved_to = moved_to
            self.closed = True

    def close(self) -> None:
        """Let go of everything; what is asked from now on raises."""
        self.refuse_within()
        with self._lock:
            self.closed = True
            self.freed = [dict(self.entries)]
            self.entries.clear()
            self._mend()
        self.free()

    # -- what holds whatever comes between ---------------------------------------------------------

    def _altered(self, change: Callable[..., T], *given: Any) -> T:
        """Alter what stands here; what went is let go of by `free`."""
        if self._lock._is_owned():  # type: ignore[attr-defined]
            raise asked_within()
        with self._lock:
            return self._whole(change, given)

    def free(self) -> None:
        """Let go of what went, with no lock held: that may run its owner's code, which may ask the store."""
        if self.freed:
            with self._lock:
                gone, self.freed = self.freed, []
            del gone

    def refuse_within(self) -> None:
        """Raise when this very thread is in the middle of altering what stands here.

        Garbage may be collected there, and what is collected may ask the store: it would wait for itself.
        """
        if self._lock._is_owned():  # type: ignore[attr-defined]
            raise asked_within()

    def _whole(self, change: Callable[..., T], given: tuple[Any, ...]) -> T:
        self._ready()
        self._torn = True
        try:
            told = change(*given)
        except GrymError:  # refused, before anything was altered
            self._torn = False
            raise
        self._torn = False
        return told

    def _ready(self) -> None:
        self.refuse_closed()
        if self._torn:
            self._mend()

    def _mend(self) -> None:
        """Find, time and count anew what is here: Ctrl-C came in the middle of altering it."""
        self._index, self._expiry = Index(), Expiry()
        self.budget = Budget(*self.budget.limits, keeps=self.keeps)
        for entry in sorted(self.entries.values(), key=lambda entry: entry.order):
            entry.due, entry.turn = None, 0
            entry.write(entry.item, entry.size, entry.order)
            self._put_in(entry)
        self._torn = False

    # -- inside (the lock is held) -----------------------------------------------------------------

    def _add_new(self, item: ContextItem, size: int) -> None:
        if item.id not in self.entries:  # brought in from the file in the meantime
            self._add(item, size)
            self.counts["puts"] += 1
            self._telling.note(ItemPut, item, item.created)

    def _add(self, item: ContextItem, size: int) -> None:
        entry = Entry(item, size, next(self.uses))
        if self.budget.bounded and item.content is not ELSEWHERE:
            self._make_room(entry, item.updated)
        self.entries[item.id] = entry
        self._put_in(entry)

    def _load(self, changes: Iterable[Change]) -> None:
        for change in changes:
            entry, item = self.entries.get(change.id), change.item
            if item is None:
                continue
            if entry is None:
                self._come(item, change.size)
            else:
                self._replace(entry, item, change.size)
        self._line_up(())

    def _come(self, item: ContextItem, size: int) -> None:
        self._late = min(self._late, item.updated)
        self._add(item, size)

    def _replace(self, entry: Entry, item: ContextItem, size: int) -> None:
        if item.version == entry.item.version:
            self._amend(entry, item)
        else:
            self._late = min(self._late, item.updated)
            self._write(entry, item, size)

    def _write_anew(self, entry: Entry, item: ContextItem, size: int, now: float) -> None:
        if self.entries.get(item.id) is not entry:
            raise self.not_found(item.id)  # it had to make room for another just now
        if item.version == entry.item.version:
            self._amend(entry, item)
        else:
            self._write(entry, item, size)
            self.counts["updates"] += 1
        self._telling.note(ItemUpdated, item, now)

    def _put_in(self, entry: Entry) -> None:
        item = entry.item
        self._index.add(entry)
        if item.expires is not None:
            self._expiry.note(entry)
        if item.content is not ELSEWHERE:
            self.budget.add(entry)
        else:
            self._count(entry, 1)

    def _count(self, entry: Entry, times: int) -> None:
        """Count in an entry whose content is elsewhere, or out with -1: what is said of it is in memory."""
        self.budget.used[0] += times * said_size(entry.item.metadata)

    def _write(self, entry: Entry, item: ContextItem, size: int) -> None:
        new, past = Entry(item, size, 0), entry.past_with(item, 0 if self.keeps else self._history)
        while True:
            new.size = size + sum([each for _, each in past])
            try:
                if item.content is not ELSEWHERE:
                    self._make_room(new, item.updated, instead_of=entry)
                break
            except ResourceExhausted:
                if not past:
                    raise
                past = past[1:]  # better without its oldest version than not at all
        self.freed.append((entry.item, entry.past))
        self._index.remove(entry)
        if entry.item.content is not ELSEWHERE:
            self.budget.remove(entry)
        else:
            self._count(entry, -1)
        entry.write(new.item, new.size, next(self.uses))
        entry.past, entry.own = past, size  # after it: interrupted here, it is in no version twice
        self._put_in(entry)

    def _amend(self, entry: Entry, item: ContextItem) -> None:
        if entry.item.content is not ELSEWHERE:
            self.budget.remove(entry)
        entry.write(item._replace(content=entry.item.content), entry.size, entry.order)
        entry.used = next(self.uses)
        if entry.item.content is not ELSEWHERE:
            self.budget.add(entry)
        self._expiry.note(entry)

    def _bring_in(self, items: Iterable[ContextItem], now: float) -> None:
        for item in items:
            entry = self.entries.get(item.id)
            if entry is None or entry.item.content is not ELSEWHERE or entry.item.version != item.version:
                continue
            self._count(entry, -1)
            entry.item = entry.item._replace(content=item.content)
            self._make_room(entry, now)
            if entry.item.content is not ELSEWHERE:
                self.budget.add(entry)
            else:
                self._count(entry, 1)

    def _take_out(self, ids: Iterable[str], why: str, now: float, whole: dict[str, ContextItem]) -> int:
        here = [entry for id in ids if (entry := self.entries.get(id)) is not None]
        for entry in here:
            self._go(entry, why, now, whole.get(entry.item.id, entry.item))
        return len(here)

    def _go(self, entry: Entry, why: str, now: float, item: ContextItem) -> None:
        self._remove(entry)
        self.counts[why] += 1
        if why == "expired":
            self._note(item, entry.size, now, why, "put it again, or give it a longer ttl")
        self._telling.note(_EVENTS[why], item, now)

    def _remove(self, entry: Entry) -> None:
        item = entry.item
        del self.entries[item.id]
        self._index.remove(entry)
        self._expiry.forget(entry)
        if item.content is not ELSEWHERE:
            self.budget.remove(entry)
        else:
            self._count(entry, -1)
        # Where it stood in line it may be known for a while yet; its content is not.
        self.freed.append((item, entry.past))
        entry.item, entry.past = item._replace(content=ELSEWHERE), ()

    def _drop(self, ids: Iterable[str]) -> None:
        for id in ids:
            if id in self.entries:
                self._remove(self.entries[id])

    def _undo(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if self.entries.get(entry.item.id) is entry:
                self._expiry.note(entry)

    def _take_in(
        self, changes: Iterable[Change], contents_of: ContentsOf, now: float, unwritten: Collection[str]
    ) -> None:
        for change in changes:
            entry, item = self.entries.get(change.id), change.item
            if item is None:
                if entry is not None:
                    self._go(entry, change.why, now, gone(entry.item))
            elif entry is None:
                self._come(item, change.size)
                self._note_from_elsewhere(ItemPut, item, contents_of, now)
            elif state_of(item) != state_of(entry.item):
                self._replace(entry, item, change.size)
                self._note_from_elsewhere(ItemUpdated, item, contents_of, now)
        self._line_up(unwritten)

    def _line_up(self, unwritten: Collection[str]) -> None:
        """Let what came from elsewhere stand where it was written, which may be before what is here."""
        for entry in self._index.out_of_line(self._late, unwritten):
            self._index.remove(entry)
            entry.order = next(self.uses)
            self._index.add(entry)
        self._late = float("inf")  # last: who is interrupted does it when all is taken in again

    def _note_from_elsewhere(
        self, kind: type[ItemEvent], item: ContextItem, contents_of: ContentsOf, now: float
    ) -> None:
        if self._telling.wants(kind):
            with suppress(StorageError):  # what cannot be read here is told without its content
                item = item._replace(content=contents_of([item])[0])
            self._telling.note(kind, item, now)

    # -- room --------------------------------------------------------------------------------------

    def _make_room(self, entry: Entry, now: float, instead_of: Entry | None = None) -> None:
        """Let the least important go as far as an entry needs it; raises before, where that would not do."""
        old = instead_of if instead_of is not None and instead_of.item.content is not ELSEWHERE else None
        item = entry.item
        if not self.keeps and self._expiry.soonest <= now and self.budget.bounded:
            self._let_expired_go(entry.size, now, old)
        try:
            going = self.budget.make_room(entry.size, item.priority, stays=entry.stays, instead_of=old)
        except ResourceExhausted:
            if not self.keeps:
                raise
            entry.item = item._replace(content=ELSEWHERE)
            going = self._room_for_said(entry)
        for least in going:
            self._evict(least, f"for {item.id}, which took {in_words(entry.size)}", now)

    def _let_expired_go(self, size: int, now: float, old: Entry | None) -> None:
        """Take out as much of what has expired as makes room: nothing that lives goes for it."""
        while self.budget.is_short(size, old) and (due := self._expiry.next(now)) is not None:
            if due is old:
                self._expiry.note(due)
                return
            self._go(due, "expired", now, due.item)

    def _room_for_said(self, entry: Entry) -> list[Entry]:
        """Return what has to go for what is said of an entry, whose content does not fit."""
        size, rank = said_size(entry.item.metadata), entry.item.priority
        with suppress(ResourceExhausted):
            return self.budget.make_room(size, rank, stays=entry.stays, items=0)
        return []

    def _evict(self, entry: Entry, what_for: str, now: float) -> None:
        item = entry.item
        self.counts["evicted"] += 1
        because = (
            f"it was of {PRIORITIES[item.priority]} priority and longest not used, and made room {what_for}"
        )
        self._note(item, entry.size, now, "evicted", because)
        if self.keeps:
            self.budget.remove(entry)
            self.freed.append(item)
            entry.item = item._replace(content=ELSEWHERE)
            self._count(entry, 1)
        else:
            self._remove(entry)
        self._telling.note(ItemEvicted, item, now)

    def _note(self, item: ContextItem, size: int, now: float, why: str, because: str) -> None:
        self.went.append(Went(item.id, item.type, item.key, item.priority, size, now, why, because))
