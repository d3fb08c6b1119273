"""What is still there of what was let go of: who holds it is told, and once nobody does it is given back."""

from __future__ import annotations

import gc
import threading
from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grym_nb.devices import process_memory
from grym_nb.hardening.holders import Holder, Root, holders_of, notebook_roots, survey, way
from grym_nb.hardening.remains import Remains
from grym_nb.hardening.returning import can_trim, give_back
from grym_nb.hardening.storages import Storages
from grym_nb.render import Table, seconds
from grym_nb.render import size as in_words

if TYPE_CHECKING:
    from grym_nb.clock import Clock

__all__ = ["Freed", "Leftovers"]

_WORTH_SHOWING = 1_000_000  # bytes: for less, nobody waits for the collector
_TOLD_FOR = 600.0  # seconds after it went back
_KEPT_PAGES = "this system's C library keeps freed pages until they are needed again"


@dataclass(frozen=True, slots=True, repr=False)
class Freed:
    """What was let go of, how many bytes went back to the system, and what is left and who holds it."""

    names: tuple[str, ...]
    size: int
    left: Table

    @property
    def told(self) -> str:
        """What was let go of and given back, in a line."""
        told = f"let go of {', '.join(self.names) or 'nothing of what is not yours'}"
        told += f"; {in_words(self.size)} went back to the system"
        return told if can_trim() else f"{told} · {_KEPT_PAGES}"

    def __repr__(self) -> str:
        return "\n\n".join([self.told, *([self.left.text()] if self.left.rows else [])])


class Leftovers:
    """What is left of models that were let go of, as long as somebody holds it; for any thread."""

    def __init__(self, books: Callable[[], Storages], clock: Clock) -> None:
        self._books = books  # what services have by right
        self._clock = clock
        self._lock = threading.Lock()
        self._watched: tuple[Remains, ...] = ()
        self._fallen: dict[str, int] = {}  # by owner: what nobody holds any more, and was not given back yet
        self._returned: deque[tuple[float, str, int]] = deque(maxlen=50)
        #: other places that may hold something: of whoever wires this
        self.places: Callable[[], Sequence[Root]] = tuple
        #: runs what takes long elsewhere than on the pulse
        self.later: Callable[[Callable[[], None]], object] = _now

    # -- until it is gone --------------------------------------------------------------------------

    def watch_over(self, remains: Remains) -> None:
        """Remember what is left of something that was let go of, until it is gone."""
        self._look()
        alive = remains.alive()
        remains.seen = sum(alive.values())
        if alive:
            with self._lock:
                self._watched = (*_without(self._watched, alive), remains)

    def look(self) -> None:
        """Let what nobody holds any more go back to the system, soon: this takes no time itself."""
        if self._watched and self._look() >= _WORTH_SHOWING:
            self.later(self._give_back)

    def left(self) -> tuple[Remains, ...]:
        """Return what somebody still holds; what nobody holds any more is given back first."""
        if self._watched:
            gc.collect()  # what only garbage refers to is held by nobody
            self._look()
        if sum(self._fallen.copy().values()) >= _WORTH_SHOWING:
            self._give_back()
        return self._watched

    def _look(self) -> int:
        """Take in what nobody holds any more; return how much of that was not given back yet."""
        sizes = [(one, sum(one.alive().values())) for one in self._watched]
        with self._lock:
            self._note(sizes)
        return sum(self._fallen.copy().values())

    def _note(self, sizes: list[tuple[Remains, int]]) -> None:
        for one, size in sizes:
            if size < one.seen:
                self._fallen[one.owner] = self._fallen.get(one.owner, 0) + one.seen - size
                one.seen = size
        self._watched = tuple([one for one in self._watched if one.seen])

    def _give_back(self) -> None:
        there = self._fallen.copy()
        give_back()
        with self._lock:
            self._settle(there)

    def _settle(self, there: Mapping[str, int]) -> None:
        """Note what was given back, unless another thread has noted it."""
        for owner, fell in there.items():
            if went := min(fell, self._fallen.get(owner, 0)):
                self._fallen[owner] -= went
                self._returned.append((self._clock(), owner, went))

    # -- about it ----------------------------------------------------------------------------------

    def notes(self) -> Iterator[str]:
        """Yield what went back lately since its holder let go of it, by owner."""
        now, went, last = self._clock(), dict[str, int](), dict[str, tuple[float, int]]()
        for at, owner, size in tuple(self._returned):
            if now - at <= _TOLD_FOR:
                went[owner], last[owner] = went.get(owner, 0) + size, (at, size)
        for owner, size in went.items():
            back = "went back to the system" if can_trim() else f"is free: {_KEPT_PAGES};"
            at, lately = last[owner]
            part = f", {in_words(lately)} of it" if lately < size else ""  # the rest went before
            ago = f"{seconds(now - at)} ago" if now - at >= 1.0 else "just now"
            yield f"{in_words(size)} of {owner}, which nobody holds any more, {back}{part} {ago}"

    def table(self) -> Table:
        """Return what is left, who holds it, and what lets go of it."""
        rows: list[tuple[str, ...]] = []
        told: set[tuple[str, int]] = set()
        for owner, holders in self._held():
            rows += _rows(owner, holders, told)
        return Table("still there of what is over", ("of", "has", "held by", "let go of it with"), rows)

    def free(self) -> Freed:
        """Let go of what is not the user's, and give all that is free back to the system."""
        before = process_memory()
        names = self._let_go()
        self._look()
        self._give_back()
        freed = before.rss - process_memory().rss
        return Freed(names, max(0, freed), self.table())

    def _let_go(self) -> tuple[str, ...]:
        """Let go of what is not the user's; return its names, and nothing that would hold it here."""
        names: dict[str, None] = {}
        for _, holders in self._held():
            for holder in holders:
                if holder.free is not None:
                    holder.free()
                    names[holder.name] = None
        return tuple(names)

    def _held(self) -> list[tuple[str, list[Holder]]]:
        """Return by owner who holds what: of what is over, and of what no service has at all."""
        left, books, places = self.left(), self._books(), self.places()
        alone = survey([place for place in places if place.owner])
        roots = survey([*places, *notebook_roots()]) if left else []
        held = [(one.owner, holders_of(one, roots, apart=books)) for one in left]
        for place, storages in alone:
            own = {key: size for key, size in storages.items() if key not in books}
            if sum(own.values()) >= _WORTH_SHOWING:
                held.append((place.owner, [Holder(place.name, own, place.free, place.hint)]))
        return held


def _rows(owner: str, holders: Sequence[Holder], told: set[tuple[str, int]]) -> Iterator[tuple[str, ...]]:
    """Yield a line for each part that somebody holds: those who hold the same share it."""
    same: dict[frozenset[tuple[str, int]], list[Holder]] = {}
    for holder in holders:
        same.setdefault(frozenset(holder.storages), []).append(holder)
    for keys, all in same.items():
        size, again = all[0].size, sum(all[0].storages[key] for key in keys & told)
        above = "" if not again else ", as above" if again == size else f", {in_words(again)} of it as above"
        told |= keys
        names, ways = [holder.name for holder in all], [_way(holder) for holder in all]
        todo = "; ".join(dict.fromkeys(filter(None, ways)))
        yield owner, f"{in_words(size)}{above}", " and ".join(names), todo


def _way(holder: Holder) -> str:
    free = way("%grym mem --free", "grym.current().resources.free()") if holder.free is not None else ""
    return "; ".join(filter(None, [free, holder.hint]))


def _now(do: Callable[[], None]) -> None:
    do()


def _without(all: tuple[Remains, ...], there: Container[tuple[str, int]]) -> tuple[Remains, ...]:
    """Return those that are left, without what is in one that comes after them."""
    for one in all:
        one.leave(there)
    return tuple([one for one in all if one.seen])
