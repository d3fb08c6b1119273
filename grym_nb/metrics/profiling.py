"""What a block cost: time, processor, memory, disk, threads; nested blocks form a tree.

::

    with profile("answer") as whole:
        with profile("load"):
            ...
    whole                       # a table, one line for each block
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from contextvars import ContextVar, Token
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from grym_nb.errors import ConfigError, Problem, StateError, says_what_it_takes
from grym_nb.metrics.given import text
from grym_nb.metrics.tracking import around
from grym_nb.metrics.usage import Reading, reading
from grym_nb.render import Table, brief, seconds, size

__all__ = ["Cost", "Profile", "profile"]

F = TypeVar("F", bound=Callable[..., Any])
N = TypeVar("N", int, float)

_MOST_CHILDREN = 1000


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

    def __init__(self, name: str, *, read: Callable[[bool], Reading] | None = None) -> None:
        self.name = name
        self.cost: Cost | None = None
        self.error = ""
        self.children: list[Profile] = []
        self.left_out = 0  # children beyond those that are kept
        self._read = reading if read is None else read
        self._before: Reading | None = None
        self._after: Reading | None = None
        self._token: Token[Profile | None] | None = None
        self._not_kept_by: Profile | None = None
        self._else_seconds = 0.0  # what those that are left out took
        self._ended: Callable[[Profile], None] | None = None

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
        shown = [at for at in range(len(_COLUMNS)) if any(row[at] not in _NOTHING for row in rows)]
        cells = [[row[at] for at in shown] for row in rows]
        return Table(f"profile of {self.name}", tuple(_COLUMNS[at] for at in shown), cells)

    def __enter__(self) -> Self:
        if self._token is not None:
            raise StateError(f"the profile {self.name!r} has begun already", hint="make one for each block")
        # The reading first: Ctrl-C in it must not leave a block that has not begun around all later ones.
        self._before = self._read(True)
        parent = _current.get()
        if parent is not None and parent._after is None:
            parent._adopt(self)
        self._token = _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._token is not None and self._before is not None
        self._after = self._read(False)
        self.cost = _cost(self._before, self._after)
        self.error = "" if kind is None else kind.__name__
        if self._not_kept_by is not None:
            self._not_kept_by._else_seconds += self.cost.seconds
        with suppress(ValueError):  # a coroutine may be closed from another context
            _current.reset(self._token)
        if self._ended is not None:
            self._ended(self)

    def __call__(self, function: F, /) -> F:
        """Return the function, each call of which is measured."""

        def begin() -> Profile:
            one = Profile(self.name, read=self._read)
            one._ended = ended
            return one

        def ended(one: Profile) -> None:
            found.last_profile = one  # at its end: of calls within calls the outermost is the last to end

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
            child._not_kept_by = self

    def _spans(self, until: float) -> Iterator[tuple[float, float]]:
        for child in self.children:
            if child._before is not None:
                end = until if child._after is None else min(until, child._after.at)
                yield child._before.at, max(child._before.at, end)


_current: ContextVar[Profile | None] = ContextVar("grym_nb_profile", default=None)


@says_what_it_takes
def profile(name: str) -> Profile:
    """Return a context manager and decorator that measures what a block, or each call, costs."""
    given: object = name
    if callable(given):
        problem = Problem("name", brief(given), "a name, such as 'my step'")
        hint = '@profile("my step"), with a name, measures each call'
        raise ConfigError("a profile has a name", problems=[problem], hint=hint)
    text(name, "name")
    return Profile(name)


# -- what came of it -----------------------------------------------------------------------------------


def _cost(before: Reading, after: Reading) -> Cost:
    # Before torch has begun with its cards it has nothing there.
    had = before if before.gpu is not None or after.gpu is None else before._replace(gpu=0, gpu_peak=0)
    same = before.thread == after.thread
    return Cost(
        seconds=after.at - before.at,
        cpu_seconds=after.cpu - before.cpu,
        thread_seconds=_more(before.thread_cpu, after.thread_cpu) if same else None,
        memory_bytes=_more(before.rss, after.rss),
        memory_peak_bytes=_peak(before.rss, before.rss_peak, after.rss_peak),
        gpu_bytes=_more(had.gpu, after.gpu),
        gpu_peak_bytes=_peak(had.gpu, had.gpu_peak, after.gpu_peak),
        read_bytes=_more(before.read, after.read),
        written_bytes=_more(before.written, after.written),
        waits=_more(before.waits, after.waits),
        preemptions=_more(before.preemptions, after.preemptions),
        threads=None
        if before.threads is None or after.threads is None
        else len(after.threads - before.threads),
    )


def _more(before: N | None, after: N | None) -> N | None:
    return None if before is None or after is None else after - before


def _peak(there: int | None, before: int | None, after: int | None) -> int | None:
    """Return how much more there was at a time than before; None where it had been as high earlier."""
    if there is None or before is None or after is None or after <= before:
        return None
    return after - there


def _merged(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return spans of time without overlaps: what runs at the same time counts once."""
    found: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    return found


# -- shown ---------------------------------------------------------------------------------------------


def _signed(value: int) -> str:
    return f"+{size(value)}" if value > 0 else size(value)


#: what is shown of a cost: the field, the head of its column, and how it is written
_SHOWN: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("seconds", "took", seconds),
    ("cpu_seconds", "cpu", seconds),
    ("thread_seconds", "cpu of the thread", seconds),
    ("memory_bytes", "memory", _signed),
    ("memory_peak_bytes", "peak", _signed),
    ("gpu_bytes", "gpu", _signed),
    ("gpu_peak_bytes", "gpu peak", _signed),
    ("read_bytes", "read", size),
    ("written_bytes", "written", size),
    ("waits", "waits", str),
    ("preemptions", "preempted", str),
    ("threads", "threads", str),
)
_COLUMNS = ("block", "own", *(head for _, head, _ in _SHOWN), "error")
_NOTHING = ("-", "0", "0 B", "")


def _rows(group: Sequence[Profile], depth: int) -> Iterator[tuple[str, ...]]:
    """Yield a row for blocks of one name, and below it those inside of them."""
    times = f" x {len(group)}" if len(group) > 1 else ""
    costs = [one.cost for one in group]
    own = _sum([one.own_seconds for one in group])
    errors = ", ".join(dict.fromkeys(one.error for one in group if one.error))
    name = f"{'· ' * depth}{group[0].name}{times}"
    yield (name, "running" if own is None else seconds(own), *_cells(costs), errors)
    inside: dict[str, list[Profile]] = {}
    for one in group:
        for child in one.children:
            inside.setdefault(child.name, []).append(child)
    for children in inside.values():
        yield from _rows(children, depth + 1)
    if beyond := sum(one.left_out for one in group):
        rest = sum(one._else_seconds for one in group)
        blank = [""] * (len(_COLUMNS) - 3)
        yield (f"{'· ' * (depth + 1)}{beyond} more", "", seconds(rest), *blank)


def _cells(costs: Sequence[Cost | None]) -> Iterator[str]:
    for field, _, write in _SHOWN:
        values = [None if cost is None else getattr(cost, field) for cost in costs]
        if field.endswith("peak_bytes"):
            value = max([value for value in values if value is not None], default=None)
        else:
            value = _sum(values)
        yield "-" if value is None else write(value)


def _sum(values: Sequence[Any]) -> Any:
    return None if any(value is None for value in values) else sum(values)
