"""Names by which a notebook has something of a module (``from helper import scale``), as that is edited.

All functions of a notebook share them, whatever version they are of. So what is newer takes its place under
the name as new code comes in force, and gives it back as that is taken back; and while code is tried, or one
of before answers for it, the name stands for what belongs to the code that asks.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grym_nb.services.spec import ServiceSpec

__all__ = ["Name", "by_version", "meant", "names_since"]


class _Shown:
    """What stands under a name while it is asked by version, the last on top, and what does after that."""

    def __init__(self, meant: Any) -> None:
        self.meant = meant
        self.stack: list[Any] = []


_shown: dict[tuple[int, str], _Shown] = {}  # by namespace and name
_lock = threading.Lock()


def meant(space: dict[str, Any], name: str, value: Any) -> Any:
    """Return what a name stands for that has a value: another one, while it is asked by version."""
    shown = _shown_at(space, name, value)
    return value if shown is None else shown.meant


def _shown_at(space: dict[str, Any], name: str, there: Any) -> _Shown | None:
    """Return what a name is asked for by version that has a value; None where somebody else has bound it."""
    shown = _shown.get((id(space), name))
    return shown if shown is not None and shown.stack[-1] is there else None


@dataclass(frozen=True, slots=True, eq=False)
class Name:
    """A name of the notebook that stands for something of a module, and what takes the place of that."""

    space: dict[str, Any]
    name: str
    before: Any
    now: Any

    @property
    def is_function(self) -> bool:
        """Whether it can stand for both, to each code that calls it for its own."""
        return type(self.now) is FunctionType and type(self.before) is FunctionType

    def bind(self) -> bool:
        """Have it stand for what is newer, unless somebody has bound it to something else."""
        return self._swap(self.before, self.now)

    def back(self) -> bool:
        """Have it stand for what was before; tells whether it does by that."""
        return self._swap(self.now, self.before)

    def _swap(self, was: Any, now: Any) -> bool:
        with _lock:
            there = self.space.get(self.name)
            if meant(self.space, self.name, there) is not was:
                return False
            if (shown := _shown_at(self.space, self.name, there)) is not None:
                shown.meant = now
            else:
                self.space[self.name] = now
            return True


def names_since(specs: Mapping[int, ServiceSpec], number: int, newest: int) -> tuple[Name, ...]:
    """Return what names stood for when a version was in force, and stand for in a newer one."""
    found: dict[tuple[int, str], Name] = {}
    for at in sorted((at for at in specs if number < at <= newest), reverse=True):
        for one in specs[at].names:
            later = found.setdefault((id(one.space), one.name), one)
            if later.before is one.now:
                found[id(one.space), one.name] = Name(one.space, one.name, one.before, later.now)
    return tuple(found.values())


@contextmanager
def by_version(names: Sequence[Name], asks: Callable[[], bool], *, newer: bool) -> Iterator[None]:
    """Have names stand for what is `newer`, or for what was before, to the code that `asks`, and to no other.

    A class cannot be two at a time: meanwhile it is that to everybody.
    """
    shown: list[tuple[Name, _Shown, Any]] = []
    try:
        for name in names:
            if (one := _show(name, asks, name.now if newer else name.before)) is not None:
                shown.append((name, *one))
        yield
    finally:
        for ended in shown:
            _end(*ended)


def _show(name: Name, asks: Callable[[], bool], value: Any) -> tuple[_Shown, Any] | None:
    """Put on top what stands for a value to who asks; None where the name is somebody else's by now."""
    with _lock:
        there = name.space.get(name.name)
        shown = _shown_at(name.space, name.name, there)
        if shown is None and there is not name.before and there is not name.now:
            return None
        if shown is None:
            shown = _shown[id(name.space), name.name] = _Shown(there)
        stands = _both(value, asks, there) if name.is_function else value
        shown.stack.append(stands)
        name.space[name.name] = stands
        return shown, stands


def _both(value: Any, asks: Callable[[], bool], other: Any) -> Any:
    @functools.wraps(value)
    def both(*args: Any, **kwargs: Any) -> Any:
        return (value if asks() else other)(*args, **kwargs)

    return both


def _end(name: Name, shown: _Shown, stands: Any) -> None:
    key, stack = (id(name.space), name.name), shown.stack
    with _lock:
        is_there = name.space.get(name.name) is stack[-1]
        del stack[next(at for at, one in enumerate(stack) if one is stands)]
        if is_there:
            name.space[name.name] = stack[-1] if stack else shown.meant
        if not stack and _shown.get(key) is shown:
            del _shown[key]
