"""Moving what one store holds into another: all of it or nothing, with nothing lost that was acknowledged."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from grym_nb.clock import Clock
from grym_nb.context.item import ContextItem, state_of
from grym_nb.context.shelf import Shelf
from grym_nb.context.storage import ELSEWHERE, Change, ContentsOf, Storage, Writing, readable
from grym_nb.errors import GrymError, Problem, StorageError, ValidationError
from grym_nb.render import count

__all__ = ["Place", "move"]

_log = logging.getLogger(__name__)
#: one at a time: two stores that take over from each other would wait for ever
_moving = threading.RLock()
_MOST_NAMED = 8  # ids in a hint: more would not fit into its line


class Place(NamedTuple):
    """Where the items of a store are: in memory, and besides."""

    shelf: Shelf
    storage: Storage


class _Parcel(NamedTuple):
    """An item with its content, the bytes it takes, and what the new storage makes of it."""

    item: ContextItem
    size: int
    packed: Any


def move(old: Place, new: Place, clock: Clock, done: Callable[[], None]) -> None:
    """Bring all that `old` holds into `new`; `done` says that it is there, while nobody can alter it."""
    with _moving:
        _Move(old, new, clock, done).run()


class _Move:
    def __init__(self, old: Place, new: Place, clock: Clock, done: Callable[[], None]) -> None:
        self._old = old
        self._new = new
        self._clock = clock
        self._done = done
        self._parcels: dict[str, _Parcel] = {}
        self._lost: list[str] = []

    def run(self) -> None:
        """Make ready what there is while others go on, then, while they wait, what they did meanwhile."""
        self._pack(self._old.storage.look(self._everything))
        self._old.storage.leave(self._everything, self._go)

    def _everything(self, contents_of: ContentsOf) -> list[tuple[ContextItem, int]]:
        """Return all items, with their contents, and what each takes; the first written first."""
        here = self._old.shelf.everything(self._clock())
        missing = [item for item, _ in here if item.content is ELSEWHERE and not self._is_packed(item)]
        found = dict(zip([item.id for item in missing], contents_of(missing), strict=True))
        found.update((id, parcel.item.content) for id, parcel in self._parcels.items() if id not in found)
        return [(self._whole(item, found), size) for item, size in here]

    def _whole(self, item: ContextItem, found: dict[str, Any]) -> ContextItem:
        return item if item.content is not ELSEWHERE else item._replace(content=found[item.id])

    def _is_packed(self, item: ContextItem) -> bool:
        parcel = self._parcels.get(item.id)
        return parcel is not None and state_of(parcel.item) == state_of(item)

    def _pack(self, items: Sequence[tuple[ContextItem, int]]) -> None:
        """Make items ready for the new storage; raise for all that cannot be kept there."""
        problems: list[Problem] = []
        parcels: dict[str, _Parcel] = {}
        unread = 0
        for item, size in items:
            if self._is_packed(item):
                parcels[item.id] = self._parcels[item.id]
                continue
            try:
                packed = self._new.storage.pack(readable(item), size)
                parcels[item.id] = _Parcel(item, size, packed)
            except GrymError as error:
                problems += _problems(item, error)
                unread += isinstance(error, StorageError)
        if problems:
            raise _refusal(problems, unread)
        self._parcels = parcels

    def _go(self, items: Sequence[tuple[ContextItem, int]]) -> None:
        """Write all of it at once; whoever would alter it waits, and is told then where it is."""
        self._pack(items)
        new, before = self._new, set(self._new.shelf.entries)
        try:
            new.storage.change(self._write, self._arrive)
        except BaseException as error:
            if not isinstance(error, GrymError) and self._is_there():
                self._done()  # Ctrl-C came after it was written: there is no way back
            else:
                new.shelf.drop([id for id in self._parcels if id not in before])
            raise

    def _write(self, file: Writing) -> list[Change]:
        entries = self._new.shelf.entries
        came = []
        self._lost.clear()
        for item, size, packed in self._parcels.values():
            here = entries.get(item.id)
            if here is not None and _are_at_odds(item, here.item):
                self._lost.append(item.id)
            if here is not None and not _is_newer(item, here.item):
                continue
            if here is not None and item.version == here.item.version and item.updated != here.item.updated:
                item = item._replace(version=item.version + 1)  # what is there becomes an earlier version
                packed = self._new.storage.pack(readable(item), size)
            if here is None:
                file.insert(packed)
            else:
                file.replace(here.item, packed)
            came.append(Change(item.id, item, size, ""))
        return came

    def _arrive(self, came: Sequence[Change]) -> None:
        self._new.shelf.load(came)
        self._done()
        _say_lost(self._lost)

    def _is_there(self) -> bool:
        """Tell whether all is in the new store, although that was interrupted."""
        try:
            self._new.storage.look(lambda _: None)
        except GrymError:
            return False
        entries = self._new.shelf.entries
        return all(
            (here := entries.get(id)) is not None and here.item.version >= parcel.item.version
            for id, parcel in self._parcels.items()
        )


def _are_at_odds(one: ContextItem, other: ContextItem) -> bool:
    """Tell whether two items of an id were each written after what both have in common."""
    older, newer = sorted((one, other), key=lambda item: (item.version, item.updated))
    return older.updated > newer.updated or (
        older.version == newer.version and older.updated != newer.updated
    )


def _is_newer(item: ContextItem, here: ContextItem) -> bool:
    """Tell whether an item that comes goes before what is there under its id."""
    if (item.version, item.updated) != (here.version, here.updated):
        return (item.version, item.updated) > (here.version, here.updated)
    return state_of(item) != state_of(here)


def _say_lost(lost: Sequence[str]) -> None:
    """Say of which items something is in neither store any more, as both were written on."""
    if lost:
        told = (
            "%s had been written in both stores: the newer version stays, of equal ones that written last: %s"
        )
        _log.warning(told, count(len(lost), "item"), ", ".join(lost[:_MOST_NAMED]))


def _problems(item: ContextItem, error: GrymError) -> list[Problem]:
    """Return what is wrong with an item, with its name."""
    where = f"{item.id} ({item.type!r}, key={item.key!r})"
    told = getattr(error, "problems", ())
    if told:
        return [Problem(f"{where}.{one.path}", one.found, one.expected) for one in told]
    return [Problem(f"{where}.content", f"{error.message} ({error.hint})", "what this kernel can read")]


def _refusal(problems: Sequence[Problem], unread: int) -> ValidationError:
    ids = list(dict.fromkeys(problem.path.partition(" ")[0] for problem in problems))
    kept = [(len(ids) - unread, "be kept in a file"), (unread, "be read")]
    told = " and ".join(f"{count(number, 'item')} cannot {what}" for number, what in kept if number)
    hint = f"take out what is not needed, and try again: %grym context rm {' '.join(ids[:_MOST_NAMED])}"
    return ValidationError(f"nothing was moved: {told}", problems=problems, hint=hint)
