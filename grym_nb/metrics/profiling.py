"""What a block cost: time, processor, memory, disk, threads; nested blocks form a tree.

::

    with profile("answer") as whole:
        with profile("load"):
            ...
    whole                       # a table, one line for each block
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from grym_nb.errors import StateError
from grym_nb.metrics.tracking import around
from grym_nb.render import Table, seconds, size

__all__ = ["Cost", "Profile", "Reading", "profile", "reading"]

F = TypeVar("F", bound=Callable[..., Any])

_PROC = Path("/proc/self")
_MOST_CHILDREN = 1000


class Reading(NamedTuple):
    """What the system tells of this process at one moment; None where it does not."""

    at: float
    cpu: float
    thread: int
    thread_cpu: float | None = None
    rss: int | None = None
    rss_peak: int | None = None
    gpu: int | None = None
    gpu_peak: int | None = None
    waits: int | None = None
    preemptions: int | None = None
    read: int | None = None
    written: int | None = None
    threads: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What came of a block, in seconds, bytes and numbers; None where the system does not tell.

    All but `thread_seconds` are of the whole process, other threads included. A peak is the most memory there
    was at a time, beyond what there was before; it is only known where it was the highest since the process
    began. `waits` and `preemptions` are context switches: those the process asked for, and the others.
    `threads` were begun and are still there.
    """

    seconds: float
    cpu_seconds: float
    thread_seconds: float | None
    memory_bytes: int | None
    memory_peak_bytes: int | None
    gpu_bytes: int | None
    gpu_peak_bytes: int | None
    read_bytes: int | None
    written_bytes: int | None
    waits: int | None
    preemptions: int | None
    threads: int | None


class Profile:
    """Measures a block, or each call of a function, with the blocks that are measured inside of it.

    After the block `cost` is what it came to, and `error` the name of what it raised, if anything. A call of
    a decorated function is a profile of its own: inside of a block that is measured it is a child of that
    one, and the last is at ``function.last_profile``. Threads begin trees of their own, coroutines are part
    of the tree that they were begun in. Only one block at a time.
    """

    def __init__(self, name: str, *, read: Callable[[], Reading] | None = None) -> None:
        self.name = name
        self.cost: Cost | None = None
        self.error = ""
        self.children: list[Profile] = []
        self.left_out = 0  # children beyond those that are kept
        self._read = reading if read is None else read
        self._before: Reading | None = None
        self._after: Reading | None = None
        self._token: Token[Profile | None] | None = None
        self._else_seconds = 0.0

    @property
    def own_seconds(self) -> float | None:
        """What it took without its children; None while it runs."""
        if self._before is None or self._after is None:
            return None
        inside = sum(end - begin for begin, end in _merged(self._spans(self._after.at)))
        return max(0.0, self._after.at - self._before.at - inside - self._else_seconds)

    def table(self) -> Table:
        """Return the tree, a row for each block; blocks of one name in the same one are a row together."""
        rows = list(_rows([self], 0))
        shown = [0, 1, *(at for at in range(2, len(_COLUMNS)) if any(row[at] for row in rows))]
        cells = [[row[at] for at in shown] for row in rows]
        return Table(f"profile of {self.name}", tuple(_COLUMNS[at] for at in shown), cells)

    def __enter__(self) -> Self:
        if self._token is not None:
            raise StateError(f"the profile {self.name!r} has begun already", hint="make one for each block")
        parent = _current.get()
        if parent is not None and parent._after is None:
            parent._adopt(self)
        self._token = _current.set(self)
        self._before = self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._after = after = self._read()
        if kind is not None:
            self.error = kind.__name__
        assert self._token is not None and self._before is not None
        parent = self._token.old_value
        with suppress(ValueError):  # a generator or a task may be closed from another context
            _current.reset(self._token)
        self.cost = _cost(self._before, after)
        if isinstance(parent, Profile) and parent.left_out and self not in parent.children:
            parent._else_seconds += self.cost.seconds

    def __call__(self, function: F, /) -> F:
        """Return the function, each call of which is measured."""

        def begin() -> Profile:
            found.last_profile = one = Profile(self.name, read=self._read)
            return one

        found: Any = around(function, begin)
        found.last_profile = None
        return found  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return self.table().text()

    def _repr_html_(self) -> str:
        return self.table().html()

    def _adopt(self, child: Profile) -> None:
        if len(self.children) < _MOST_CHILDREN:
            self.children.append(child)
        else:
            self.left_out += 1

    def _spans(self, until: float) -> Iterator[tuple[float, float]]:
        for child in self.children:
            if child._before is not None:
                end = until if child._after is None else min(until, child._after.at)
                yield child._before.at, max(child._before.at, end)


_current: ContextVar[Profile | None] = ContextVar("grym_nb_profile", default=None)


def profile(name: str) -> Profile:
    """Return a context manager and decorator that measures what a block, or each call, costs."""
    return Profile(name)
