"""The context store: what models share, with time, priority and meaning.

>>> with ContextStore() as store:
...     item = store.put({"bpm": 120.0}, type="tempo", key="song-1", ttl=600, priority="high")
...     store.latest("tempo", "song-1").content, len(store.query(type="tempo", min_priority="high"))
({'bpm': 120.0}, 1)
"""

from __future__ import annotations

import itertools
import os
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from grym_nb.clock import Clock
from grym_nb.context.budget import Budget
from grym_nb.context.content import frozen, kept, said_size
from grym_nb.context.index import Entry
from grym_nb.context.item import NOTHING, ContextItem
from grym_nb.context.moving import Place, move
from grym_nb.context.options import Options, seconds_of
from grym_nb.context.query import refuse_limit, refuse_no_type, said, settled, wanted_of, watched_of
from grym_nb.context.shelf import Shelf
from grym_nb.context.shown import Shown
from grym_nb.context.storage import ELSEWHERE, ContentsOf, InMemory, Storage, Writing, readable, whole
from grym_nb.context.sweeping import Sweeping
from grym_nb.context.telling import Telling
from grym_nb.context.versions import SAME, Said, changed, compared, picked, restored, touched
from grym_nb.context.watch import Watch
from grym_nb.errors import ItemConflict, ValidationError, says_what_it_takes
from grym_nb.events import EventBus, ItemDeleted

if TYPE_CHECKING:
    from grym_nb.context.difference import Difference

__all__ = ["DEFAULT_TTL", "ContextStore"]

#: seconds that an item holds when neither it nor its type says how long
DEFAULT_TTL = 3600.0
T = TypeVar("T")
R = TypeVar("R")


@says_what_it_takes
class ContextStore(Shown):
    """Items by id, found again by what was said of them; each for as long as it holds.

    Without a `path` they live in memory; with one also in that file, which outlives the kernel and may be
    shared by several. For any thread: what is read was written last; by another kernel, half a second ago.
    Times are seconds since 1970 on `clock`. What has expired is never returned; without a file it is taken
    out by `sweep`, and a little at each `put`.

    `max_bytes` ("200MB") and `max_items` bound what is held in memory; `ttls` has the seconds for which items
    of a type hold unless they say otherwise; `history` is how many earlier versions of an item are kept.
    With `full_sync` what is acknowledged survives the loss of power, too; `busy_seconds` is how long the file
    is waited for while another program keeps it locked.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        clock: Clock | None = None,
        max_bytes: int | str | None = None,
        max_items: int | None = None,
        ttls: Mapping[str, float | None] = NOTHING,
        history: int = 10,
        full_sync: bool = False,
        busy_seconds: float = 5.0,
        events: EventBus | None = None,
    ) -> None:
        options = Options.of(
            path=path, clock=clock, max_bytes=max_bytes, max_items=max_items, ttls=ttls, history=history,
            busy_seconds=busy_seconds, events=events,
        )  # fmt: skip
        self._clock: Clock = clock or time.time
        self._ttls = options.ttls
        self._prefix = f"ctx-{os.urandom(6).hex()}-"
        self._ids = itertools.count(1)
        self._telling = Telling(events)
        self._shelf = Shelf(
            Budget(options.max_bytes, max_items, keeps=path is not None), self._telling, history=history,
            keeps=path is not None,
        )  # fmt: skip
        #: f(model) -> what that model itself adapts with, or None; set where there are services
        self.own_adapter: Callable[[str], Callable[[ContextItem], Any] | None] | None = None
        self._watches: weakref.WeakValueDictionary[int, Watch] = weakref.WeakValueDictionary()
        self._storage: Storage = InMemory(self._shelf.still)
        if options.path is not None:
            from grym_nb.context.sqlite import SqliteFile

            file = self._storage = SqliteFile(
                options.path, self._shelf, self._clock, tick=self._tick, history=history,
                full_sync=full_sync, busy_seconds=options.busy_seconds,
            )  # fmt: skip
            # At the end of the process, too: what is not in the file yet is written then.
            self._end = weakref.finalize(self, file.let_go)
        self._sweeping = Sweeping(self._shelf, self._storage, self._telling, self._clock)

    # -- writing -----------------------------------------------------------------------------------

    @says_what_it_takes
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
        durable: bool = False,
    ) -> ContextItem:
        """Keep a copy of `content`, which nobody changes, and return the item that holds it.

        `ttl` is how many seconds it holds: left out, what its type has; None, for ever. With `durable` it is
        in the file when this returns; else it will be a little later.
        """
        if type.__class__ is not str and isinstance(type, str):
            type = str.__str__(type)  # an enum's, or numpy's: as it is read from a file
        if ttl is ...:
            ttl = self._ttls.get(type, DEFAULT_TTL) if type.__class__ is str else None
        seconds, rank, named, (key, source, workflow, task) = said(
            type, (key, source, workflow, task), priority, ttl, tags, metadata, (pinned, durable)
        )
        copy, size = kept(content)
        more = NOTHING
        if metadata:
            more, its_size = kept(dict(metadata))
            size += its_size
        now = self._clock()
        expires = None if seconds is None else now + seconds
        # As `ContextItem(...)`, which passes so many arguments on one by one.
        item = tuple.__new__(ContextItem, (
            f"{self._prefix}{next(self._ids)}", type, key, copy, more, source, rank, named, workflow, task,
            seconds, now, now, expires, 1, pinned, durable, NOTHING,
        ))  # fmt: skip
        shelf = self._shelf
        if shelf.keeps:
            shelf.refuse_within()
            prepared = self._storage.prepare(copy)
            self._storage.add(item, size, prepared, lambda: shelf.add(item, size))
        elif durable:
            shelf.refuse_closed()
            told = "a store in memory keeps nothing for longer than its kernel"
            raise ValidationError(told, hint='ContextStore("context.db"), or leave durable out')
        else:
            shelf.add(item, size)
            if shelf.is_due(now):
                self._sweeping.some()  # where nobody sweeps, what has expired goes a little at each put
        if shelf.freed or self._telling.waiting:
            self._after()
        return item

    @says_what_it_takes
    def update(
        self,
        id: str,
        content: Any = SAME,
        *,
        metadata: Mapping[str, Any] | None = None,
        priority: str | int | EllipsisType = ...,
        ttl: float | EllipsisType | None = ...,
        tags: Iterable[str] | EllipsisType = ...,
        pinned: bool | EllipsisType = ...,
        expect: int | None = None,
        merge: str | Callable[[list[ContextItem]], Any] | None = None,
    ) -> ContextItem:
        """Write an item anew under its id: content is replaced, metadata merged, the rest as said.

        It expires when it did, unless `ttl` is given. With `expect`, only if that is still its version; else
        `ItemConflict`, which carries both sides, or with `merge` (see `for_model`) both are made into one.
        """
        from grym_nb.context.merging import agreed, refuse_unfit

        tags = tuple(tags) if isinstance(tags, Iterator) else tags
        given = Said(metadata, priority, ttl, tags, pinned)
        refuse_unfit(expect, merge)  # now, and not at the first conflict
        try:
            return self._update(id, content, NOTHING, given, expect)
        except ItemConflict as conflict:
            if merge is None or content is SAME:
                raise
            return agreed(
                conflict,
                merge,
                lambda theirs: changed(theirs, content, given, self._clock()),
                lambda both, whose, version: self._update(id, both, whose, given, version),
            )

    def _update(
        self, id: str, content: Any, provenance: Mapping[str, Any], given: Said, expect: int | None
    ) -> ContextItem:
        fresh = None if content is SAME else kept(content)

        def next_version(before: ContextItem) -> ContextItem:
            if expect is not None and before.version != expect:
                raise ItemConflict.of(before, expect, content)
            after = changed(before, SAME if fresh is None else fresh[0], given, self._clock())
            return after._replace(provenance=frozen(provenance)) if provenance else after

        return self._alter(id, next_version, fresh)

    @says_what_it_takes
    def touch(self, id: str, ttl: float | EllipsisType | None = ...) -> ContextItem:
        """Let an item hold anew from now on, for as long as it did or for `ttl` seconds; no new version."""
        return self._alter(id, lambda before: touched(before, ttl, self._clock()))

    @says_what_it_takes
    def pin(self, id: str, pinned: bool = True) -> ContextItem:
        """Let an item stay whatever the budget (it still expires), or, with False, no more."""
        said("any", (), 0, None, (), None, (pinned,))
        return self._alter(id, lambda before: before._replace(pinned=pinned))

    def _alter(
        self, id: str, alter: Callable[[ContextItem], ContextItem], fresh: tuple[Any, int] | None = None
    ) -> ContextItem:
        """Write what `alter` makes of an item in its place; `fresh` is a new content, and its size."""
        prepared = None if fresh is None else self._storage.prepare(fresh[0], at_once=True)

        def write(file: Writing) -> tuple[Entry, ContextItem, int, float]:
            now = self._clock()
            entry = self._shelf.present(id, now)
            (before,) = whole([entry.item], file.contents_of)
            after = alter(before)
            if fresh is not None:
                size = fresh[1] + said_size(after.metadata)
            else:
                size = entry.own
                if after.metadata is not before.metadata:
                    size += said_size(after.metadata) - said_size(before.metadata)
            file.update(before, after, size, prepared)
            return entry, after, size, now

        return self._change(write, lambda told: self._shelf.write(*told))

    @says_what_it_takes
    def delete(self, id: str) -> ContextItem:
        """Take an item out and return it as it was."""
        present = self._shelf.present
        return self._delete(lambda file: whole([present(id, self._clock()).item], file.contents_of))[0]

    @says_what_it_takes
    def clear(self, **filters: Any) -> int:
        """Take out what a query with these filters would find (everything without any); return how many."""
        wanted = wanted_of(filters)
        told = self._telling.wants(ItemDeleted)

        def find(file: Writing) -> list[ContextItem]:
            items = self._shelf.find(wanted, self._clock())
            return whole(items, file.contents_of) if told else items

        return len(self._delete(find))

    def _delete(self, find: Callable[[Writing], list[ContextItem]]) -> list[ContextItem]:
        def write(file: Writing) -> list[ContextItem]:
            items = find(file)
            file.delete([item.id for item in items], "deleted", self._clock())
            return items

        def apply(items: list[ContextItem]) -> list[ContextItem]:
            self._shelf.take_out([item.id for item in items], "deleted", self._clock(), items)
            return items

        return self._change(write, apply)

    def is_at(self, path: str | os.PathLike[str]) -> bool:
        """Tell whether it is kept in that very file."""
        return not self.closed and self._storage.is_at(path)

    def take_over(self, other: ContextStore) -> None:
        """Take the items and the watches of another store, and close it: all of it, or nothing.

        Whoever writes to the other one meanwhile waits, and is told then where all is. Of an item that both
        have the higher version stays, of equal ones the later, which is logged; earlier ones are left behind.
        """

        def done() -> None:
            other._telling.hand_over(self._telling)
            for watch in other.watches:
                watch.listen(self._telling.own)
                self._watches[id(watch)] = watch
            other._watches.clear()
            other._shelf.end(getattr(self._storage, "path", "another store"))

        here = Place(self._shelf, self._storage)
        try:
            move(Place(other._shelf, other._storage), here, self._clock, done)
        finally:
            if other.closed:
                other.close()
                self._after()

    # -- reading -----------------------------------------------------------------------------------

    def get(self, id: str) -> ContextItem:
        """Return the item of that id; `ItemNotFound` when there is none, or it has expired."""
        try:
            entry = self._shelf.entries[id]
        except (KeyError, TypeError):
            raise self._shelf.not_found(id) from None
        item = entry.item
        expires = item.expires
        if expires is not None and expires <= self._clock():
            raise self._shelf.not_found(id)
        entry.used = next(self._shelf.uses)
        entry.reads += 1
        if item.content is not ELSEWHERE:
            return item
        return readable(self._read_through(lambda: [self._shelf.present(id, self._clock()).item])[0])

    @says_what_it_takes
    def latest(self, type: str, key: str | None = None) -> ContextItem:
        """Return what was written last of that type (and key)."""
        refuse_no_type(type)
        found = self.query(type=type, key=key, limit=1)
        if not found:
            raise self._shelf.nothing_of(type, key)
        return readable(found[0])

    @says_what_it_takes
    def query(self, *, limit: int | None = None, **filters: Any) -> list[ContextItem]:
        """Return the items for which all of this holds, the newest first.

        `type`, `key`, `source`, `workflow`, `task`: what was said of them; `tags`: all of these, `any_tags`:
        one of these; `min_priority`; `since`, `until`: when they were written last; `order`: newest, oldest
        or priority (the newest of the highest first).
        """
        refuse_limit(limit, "query")
        wanted = wanted_of(filters, also=("order", "limit"))
        found = self._shelf.find(wanted, self._clock(), limit)
        if any(item.content is ELSEWHERE for item in found):
            return self._read_through(lambda: self._shelf.find(wanted, self._clock(), limit, read=0))
        return found

    @says_what_it_takes
    def for_model(
        self,
        model: str,
        *,
        limit: int | None = None,
        max_bytes: int | str | None = None,
        max_tokens: int | None = None,
        merge: str | Callable[[list[ContextItem]], Any] | None = None,
        count_tokens: Callable[[str], int] | None = None,
        **query: Any,
    ) -> list[ContextItem]:
        """Return what a query finds, in the form that `model` takes: highest priority first, then the newest.

        `limit`, `max_bytes` and `max_tokens` are how much of it; what does not fit in the rest is left out.
        With `merge` ("newest", "highest_priority", "weighted", "union", or a function of the items) it is one
        item, whose `provenance` says where each field came from.
        """
        from grym_nb.context.portion import Limits, portion

        query = settled(query)
        wanted_of(query, also=("order", "limit", "max_bytes", "max_tokens", "merge", "count_tokens"))
        limits = Limits.of(limit, max_bytes, max_tokens, count_tokens, query.pop("order", None), merge)
        # What is one item in the end, or as large as it turns out to be, is of all that there are.
        enough = limit if merge is None and limits.counts_items_only else None
        found = self.query(order="priority", limit=enough, **query)
        own = None if self.own_adapter is None else self.own_adapter(model)
        return portion(found, limits, model, own, merge, f"{self._prefix}{next(self._ids)}")

    @says_what_it_takes
    def history(self, id: str) -> tuple[ContextItem, ...]:
        """Return the versions of an item that are kept, the oldest first, the present one last."""
        if not self._shelf.keeps:
            return self._shelf.history(id, self._clock())

        def read(contents_of: ContentsOf) -> tuple[ContextItem, ...]:
            item = self._shelf.present(id, self._clock()).item
            return (*self._storage.past(id), item._replace(content=contents_of([item])[0]))

        return self._storage.look(read)

    @says_what_it_takes
    def rollback(self, id: str, version: int) -> ContextItem:
        """Write an earlier version of an item anew, as its newest; how long it holds stays as it is."""
        old = readable(picked(self.history(id), version))
        return self._alter(id, lambda before: restored(before, old, self._clock()), kept(old.content))

    @says_what_it_takes
    def diff(self, id: str, before: int | None = None, after: int | None = None) -> tuple[Difference, ...]:
        """Return what differs between two versions of an item: by default the last one and the present."""
        return compared(self.history(id), before, after)

    # -- what happens ------------------------------------------------------------------------------

    @says_what_it_takes
    def watch(
        self, tell: Callable[[Any], object] | None = None, *, kinds: Iterable[str] = (), **filters: Any
    ) -> Watch:
        """Return what happens to items that fit, from now on: to be read, or told to a function.

        ``for event in store.watch(type="tempo")`` and ``async for`` wait for each event; ``store.watch(f)``
        calls ``f(event)`` until the watch that it returns is closed. `kinds`: "put", "updated", "deleted",
        "expired", "evicted" (all by default); the filters are those of a query, without times.
        """
        self._shelf.refuse_closed()
        wanted, classes = watched_of(filters, kinds)
        watch = Watch(self._telling.own, wanted, tell, classes)
        self._watches[id(watch)] = watch
        return watch

    @says_what_it_takes
    def sweep(self, seconds: float | None = None) -> int:
        """Take out what has expired, some at a time, so that others get their turn; return how many it was.

        With `seconds`, no longer than so: the rest is for the next one. With 0 it takes about a millisecond.
        """
        self._shelf.refuse_closed()
        return self._sweeping.sweep(seconds_of(seconds, "seconds"))

    def __iter__(self) -> Iterator[ContextItem]:
        return iter(self.query())

    # -- the end ------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._shelf.closed

    @property
    def watches(self) -> tuple[Watch, ...]:
        """The watches that go on."""
        kept = [watch() for watch in self._watches.valuerefs()]  # at one moment, whoever adds to them
        return tuple(watch for watch in kept if watch is not None and not watch.closed)

    @says_what_it_takes
    def close(self, *, lose: bool = False) -> None:
        """Write what is to be kept, and let go of everything; what is asked from now on raises.

        When not all can be written, it raises and stays open. With `lose` nothing more is written.
        """
        if self._shelf.moved_to is not None or (lose and not self._shelf.closed):
            self._storage.drop()
        elif not self._shelf.closed:
            self._storage.close()
        for watch in self.watches:
            watch.close()
        self._shelf.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        end = getattr(self, "_end", None)  # what writes the rest to the file, where there is one
        if end is not None and end.alive and not self._shelf.closed:
            warnings.warn("a store with a file was forgotten: close() it", ResourceWarning, stacklevel=2)

    # -- inside ------------------------------------------------------------------------------------

    def _change(self, write: Callable[[Writing], T], apply: Callable[[T], R]) -> R:
        """Write, let memory follow, and let it be known."""
        self._shelf.refuse_closed()
        self._shelf.refuse_within()
        told = self._storage.change(write, apply)
        self._after()
        return told

    def _after(self) -> None:
        """What is done with no lock held: let go of what went, and let be known what happened."""
        self._shelf.free()
        if self._telling.waiting:
            self._telling.tell()

    def _read_through(self, find: Callable[[], list[ContextItem]]) -> list[ContextItem]:
        """Return what `find` does, once what others wrote is known, with all contents in memory again."""

        def read(contents_of: ContentsOf) -> list[ContextItem]:
            items = find()
            missing = [item for item in items if item.content is ELSEWHERE]
            found = iter(self._shelf.fill(missing, contents_of(missing), self._clock()))
            return [next(found) if item.content is ELSEWHERE else item for item in items]

        self._shelf.refuse_within()
        found = self._storage.look(read)
        self._shelf.free()
        return found

    def _tick(self) -> None:
        """What the thread of a file does besides: sweep, and let be known what others did."""
        if self._shelf.is_due(self._clock()):
            self.sweep()
        self._after()
