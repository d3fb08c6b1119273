"""The context store: what models share, with time, priority and meaning.

>>> with ContextStore() as store:
...     item = store.put({"bpm": 120.0}, type="tempo", key="song-1", ttl=600, priority="high")
...     store.latest("tempo", "song-1").content, len(store.query(type="tempo", min_priority="high"))
({'bpm': 120.0}, 1)
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from types import EllipsisType, TracebackType
from typing import Any, NamedTuple, Self

from grym_nb.clock import Clock, monotonic
from grym_nb.context.budget import Budget
from grym_nb.context.expiry import Expiry
from grym_nb.context.index import Entry, Index, Wanted
from grym_nb.context.item import NOTHING, ContextItem, kept
from grym_nb.context.query import said, wanted_of
from grym_nb.errors import ItemConflict, ItemNotFound, StateError, ValidationError

__all__ = ["DEFAULT_TTL", "ContextStore", "Stats", "Went"]

#: seconds that an item holds when neither it nor its type says how long
DEFAULT_TTL = 3600.0
_STEP_SECONDS = 0.001  # for which a sweep holds the lock at a time
_WENT_KEPT = 100
_SAME: Any = ...


class Went(NamedTuple):
    """An item that went without anybody asking for it: which, when, and why (`expired`, `evicted`)."""

    id: str
    type: str
    key: str | None
    priority: int
    size: int
    at: float
    why: str


class Stats(NamedTuple):
    """What is in a store, and what went through it."""

    items: int
    bytes: int
    max_bytes: int | None
    max_items: int | None
    puts: int
    expired: int
    evicted: int
    deleted: int
    went: tuple[Went, ...]


class ContextStore:
    """Items by id, found again by what was said of them; each for as long as it holds.

    Times are seconds since 1970 on `clock`. All methods may be called from any thread; what is read is what
    was written last. `ttls` has the seconds for which items of a type hold, unless they say otherwise;
    `history` how many earlier versions of an item are kept.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        max_bytes: int | None = None,
        max_items: int | None = None,
        ttls: Mapping[str, float | None] = NOTHING,
        history: int = 10,
    ) -> None:
        self._clock: Clock = clock or time.time
        self._ttls = dict(ttls)
        self._history = history
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._index = Index()
        self._expiry = Expiry()
        self._budget = Budget(max_bytes, max_items)
        self._prefix = f"ctx-{os.urandom(4).hex()}-"
        self._ids = itertools.count(1)
        self._uses = itertools.count(1)
        self._went: deque[Went] = deque(maxlen=_WENT_KEPT)
        self._counts: Counter[str] = Counter()
        self._closed = False

    # -- writing -----------------------------------------------------------------------------------

    def put(
        self,
        content: Any,
        *,
        type: str,
        key: str | None = None,
        priority: str | int = "normal",
        ttl: float | EllipsisType | None = ...,
        tags: Iterable[str] = (),
        source: str | None = None,
        workflow: str | None = None,
        task: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        pinned: bool = False,
    ) -> ContextItem:
        """Keep `content` and return the item that holds it; the content is copied as far as it can change.

        `ttl` is how many seconds it holds: left out, what its type has; None, for ever.
        """
        names = (key, source, workflow, task)
        holds = self._ttls.get(type, DEFAULT_TTL) if ttl is ... else ttl
        seconds, rank, told = said(
            type=type, names=names, priority=priority, ttl=holds, tags=tags, metadata=metadata
        )
        copy, size = kept(content)
        more = NOTHING if not metadata else kept(dict(metadata))[0]
        now = self._clock()
        expires = None if seconds is None else now + seconds
        item = ContextItem(
            f"{self._prefix}{next(self._ids)}", type, key, copy, more, source, rank, told, workflow, task,
            seconds, now, now, expires, 1, bool(pinned), False, NOTHING,
        )  # fmt: skip
        with self._lock:
            self._refuse_closed()
            entry = Entry(item, size, next(self._uses))
            for least in self._budget.make_room(size, rank, stays=entry.stays):
                self._take_out(least, "evicted", now)
            self._entries[item.id] = entry
            self._put_in(entry)
            self._counts["puts"] += 1
        return item

    def update(
        self,
        id: str,
        content: Any = _SAME,
        *,
        metadata: Mapping[str, Any] | None = None,
        priority: str | int | EllipsisType = ...,
        ttl: float | EllipsisType | None = ...,
        tags: Iterable[str] | EllipsisType = ...,
        pinned: bool | EllipsisType = ...,
        expect: int | None = None,
    ) -> ContextItem:
        """Write an item anew under its id: content is replaced, metadata merged, the rest as said.

        It expires when it did, unless `ttl` is given. With `expect`, only if that is still its version; else
        `ItemConflict`, which carries both sides.
        """
        copy, size = (_SAME, 0) if content is _SAME else kept(content)
        while True:
            before = self.get(id)
            if expect is not None and before.version != expect:
                raise ItemConflict.of(before, expect, content)
            after = self._changed(before, copy, metadata, priority, ttl, tags, pinned)
            if self._replace(before, after, size if copy is not _SAME else None):
                return after

    def _changed(
        self, before: ContextItem, copy: Any, metadata: Any, priority: Any, ttl: Any, tags: Any, pinned: Any
    ) -> ContextItem:
        holds = before.ttl if ttl is ... else ttl
        seconds, rank, told = said(
            type=before.type,
            names=(),
            priority=before.priority if priority is ... else priority,
            ttl=holds,
            tags=before.tags if tags is ... else tags,
            metadata=metadata,
        )
        now = self._clock()
        expires = before.expires if ttl is ... else None if seconds is None else now + seconds
        return before._replace(
            content=before.content if copy is _SAME else copy,
            metadata={**before.metadata, **kept(dict(metadata))[0]} if metadata else before.metadata,
            priority=rank,
            tags=told,
            ttl=seconds,
            updated=now,
            expires=expires,
            version=before.version + 1,
            pinned=before.pinned if pinned is ... else bool(pinned),
        )

    def _replace(self, before: ContextItem, after: ContextItem, size: int | None) -> bool:
        """Put `after` where `before` stands; False when it stands there no more."""
        with self._lock:
            self._refuse_closed()
            entry = self._entries.get(after.id)
            if entry is None or entry.item is not before:
                return False
            size = entry.size if size is None else size
            stays = Entry(after, size, 0).stays
            going = self._budget.make_room(size, after.priority, stays=stays, instead_of=entry)
            for least in going:
                self._take_out(least, "evicted", after.updated)
            self._index.remove(entry)
            self._budget.remove(entry)
            if self._history:
                entry.past = (*entry.past, before)[-self._history :]
            entry.write(after, size, next(self._uses))
            self._put_in(entry)
            self._counts["updates"] += 1
        return True

    def touch(self, id: str, ttl: float | EllipsisType | None = ...) -> ContextItem:
        """Let an item hold anew from now on, for as long as it did or for `ttl` seconds; no new version."""
        while True:
            before = self.get(id)
            seconds = (
                before.ttl
                if ttl is ...
                else said(type=before.type, names=(), priority=0, ttl=ttl, tags=(), metadata=None)[0]
            )
            now = self._clock()
            after = before._replace(ttl=seconds, expires=None if seconds is None else now + seconds)
            if self._amend(before, after):
                return after

    def pin(self, id: str, pinned: bool = True) -> ContextItem:
        """Let an item stay whatever the budget (it still expires), or, with False, no more."""
        while True:
            before = self.get(id)
            after = before._replace(pinned=bool(pinned))
            if self._amend(before, after):
                return after

    def _amend(self, before: ContextItem, after: ContextItem) -> bool:
        """Put `after` where `before` stands, as no new version of it."""
        with self._lock:
            self._refuse_closed()
            entry = self._entries.get(after.id)
            if entry is None or entry.item is not before:
                return False
            self._budget.remove(entry)
            entry.write(after, entry.size, entry.order)
            entry.used = next(self._uses)
            self._budget.add(entry)
            self._expiry.note(entry)
        return True

    def delete(self, id: str) -> ContextItem:
        """Take an item out and return it as it was."""
        with self._lock:
            self._refuse_closed()
            entry = self._entries.get(id)
            if entry is None or self._has_expired(entry, self._clock()):
                raise self._not_found(id)
            item = entry.item
            self._take_out(entry, "deleted", 0.0)
        return item

    def clear(self, **filters: Any) -> int:
        """Take out what a query with these filters would find (everything without any); return how many."""
        wanted = wanted_of(filters)
        with self._lock:
            self._refuse_closed()
            return self._clear(wanted)

    def _clear(self, wanted: Wanted) -> int:
        now = self._clock()
        found = [entry for entry in self._index.find(wanted) if not self._has_expired(entry, now)]
        for entry in found:
            self._take_out(entry, "deleted", now)
        return len(found)

    # -- reading -----------------------------------------------------------------------------------

    def get(self, id: str) -> ContextItem:
        """Return the item of that id; `ItemNotFound` when there is none, or it has expired."""
        try:
            entry = self._entries[id]
        except (KeyError, TypeError):
            raise self._not_found(id) from None
        item = entry.item
        expires = item.expires
        if expires is not None and expires <= self._clock():
            raise self._not_found(id, item)
        entry.used = next(self._uses)
        return item

    def latest(self, type: str, key: str | None = None) -> ContextItem:
        """Return what was written last of that type (and key)."""
        found = self.query(type=type, key=key, limit=1)
        if not found:
            named = f"{type!r}" if key is None else f"{type!r} with key {key!r}"
            raise ItemNotFound(f"nothing of type {named} is in the store", hint=self._types_in_words())
        return found[0]

    def query(self, *, limit: int | None = None, **filters: Any) -> list[ContextItem]:
        """Return the items for which all of this holds, the newest first.

        `type`, `key`, `source`, `workflow`, `task`: what was said of them; `tags`: all of these, `any_tags`:
        one of these; `min_priority`; `since`, `until`: when they were written last; `order`: newest, oldest
        or priority (the newest of the highest first).
        """
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
            raise ValidationError(f"the limit of a query is a whole number from 0, not {limit!r}")
        wanted = wanted_of(filters)
        with self._lock:
            self._refuse_closed()
            now = self._clock()
            live = (entry for entry in self._index.find(wanted) if not self._has_expired(entry, now))
            found = list(itertools.islice(live, limit))
            for entry in found:
                entry.used = next(self._uses)
            return [entry.item for entry in found]

    def history(self, id: str) -> tuple[ContextItem, ...]:
        """Return the versions of an item that are kept, the oldest first, the present one last."""
        item = self.get(id)
        entry = self._entries.get(id)
        return (*(entry.past if entry is not None else ()), item)

    def rollback(self, id: str, version: int) -> ContextItem:
        """Write an earlier version of an item anew, as its newest one."""
        for item in self.history(id):
            if item.version == version:
                return self.update(
                    id, item.content, metadata=item.metadata, priority=item.priority, tags=item.tags
                )
        kept_ones = ", ".join(str(item.version) for item in self.history(id))
        raise ItemNotFound(f"{id} has no version {version} any more", hint=f"kept are {kept_ones}", id=id)

    # -- time ---------------------------------------------------------------------------------------

    def sweep(self, seconds: float | None = None) -> int:
        """Take out what has expired, in steps of at most a millisecond each; return how many it was.

        With `seconds`, no longer than so: the rest is for the next one.
        """
        until = None if seconds is None else monotonic() + seconds
        swept = 0
        while True:
            step = self._sweep_step()
            swept += step
            if not step or (until is not None and monotonic() >= until):
                return swept

    def _sweep_step(self) -> int:
        with self._lock:
            return self._sweep_for(_STEP_SECONDS)

    def _sweep_for(self, seconds: float) -> int:
        now, until, swept = self._clock(), monotonic() + seconds, 0
        while (entry := self._expiry.next(now)) is not None:
            self._take_out(entry, "expired", now)
            swept += 1
            if monotonic() >= until:
                break
        return swept

    # -- about it -----------------------------------------------------------------------------------

    def stats(self) -> Stats:
        """Return what is in the store, and what went through it."""
        with self._lock:
            counts = self._counts
            return Stats(
                items=self._budget.used[1],
                bytes=self._budget.used[0],
                max_bytes=self._budget.limits[0],
                max_items=self._budget.limits[1],
                puts=counts["puts"],
                expired=counts["expired"],
                evicted=counts["evicted"],
                deleted=counts["deleted"],
                went=tuple(self._went),
            )

    def __len__(self) -> int:
        """How many items there are that still hold."""
        now = self._clock()
        with self._lock:
            return sum(not self._has_expired(entry, now) for entry in self._entries.values())

    def __contains__(self, id: object) -> bool:
        entry = self._entries.get(id) if isinstance(id, str) else None
        return entry is not None and not self._has_expired(entry, self._clock())

    def __iter__(self) -> Iterator[ContextItem]:
        return iter(self.query())

    def close(self) -> None:
        """Let go of everything; what is asked from now on raises."""
        with self._lock:
            self._closed = True
            self._entries.clear()
            self._index = Index()
            self._expiry = Expiry()
            self._budget = Budget(*self._budget.limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # -- inside (the lock is held) -----------------------------------------------------------------

    def _put_in(self, entry: Entry) -> None:
        self._index.add(entry)
        self._expiry.note(entry)
        self._budget.add(entry)

    def _take_out(self, entry: Entry, why: str, now: float) -> None:
        item = entry.item
        del self._entries[item.id]
        self._index.remove(entry)
        self._expiry.forget(entry)
        self._budget.remove(entry)
        self._counts[why] += 1
        if why != "deleted":
            self._went.append(Went(item.id, item.type, item.key, item.priority, entry.size, now, why))

    @staticmethod
    def _has_expired(entry: Entry, now: float) -> bool:
        expires = entry.item.expires
        return expires is not None and expires <= now

    def _refuse_closed(self) -> None:
        if self._closed:
            raise StateError("this context store is closed", hint="make another: ContextStore()")

    def _not_found(self, id: object, item: ContextItem | None = None) -> ItemNotFound:
        self._refuse_closed()
        if item is not None:
            return ItemNotFound(f"{id} has expired", hint="put it again, or give it a longer ttl", id=id)
        for went in tuple(self._went):
            if went.id == id:
                return ItemNotFound(f"{id} was {went.why}", hint="stats().went says when", id=id)
        return ItemNotFound(f"there is no item {id!r}", hint=self._types_in_words(), id=id)

    def _types_in_words(self) -> str:
        types = self._index.types()
        return f"types in the store: {', '.join(types) or 'none yet'}"
