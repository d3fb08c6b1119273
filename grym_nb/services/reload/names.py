"""Names by which a notebook has something of a module (``from helper import scale``), as that is edited.

All functions of a notebook share them, whatever version they are of. Of a function that was edited there is
from then on one that hands each call on: to an older version what it had at its time, to all others the
newest. So it is as if they asked the module. A class cannot be two at a time: it is the newest to everybody,
and the one of before where a service goes back to that.
"""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grym_nb.services.reload.versions import Version, Versions
    from grym_nb.services.spec import ServiceSpec

__all__ = ["ByVersion", "Name", "bind", "classes_of", "forget", "lent", "meant"]

_lock = threading.RLock()  # finalizers may run anywhere, and call what is handed on


class ByVersion:
    """A function of a module as a notebook has it by name: `newest` to all but older versions."""

    def __init__(self, space: dict[str, Any], name: str, newest: Any, versions: Versions) -> None:
        self._space = space
        self._name = name
        self._versions = versions
        self._was_edited = False
        self._before: tuple[tuple[int, Any], ...] = ()  # until which version it was what
        self._lent: tuple[tuple[Version, Any], ...] = ()  # to versions that are tried
        self.newest = newest
        functools.update_wrapper(self, newest)

    def edited(self, number: int, now: Any) -> None:
        """Have it be another function from a version on (held)."""
        if all(number != at for at, _ in self._before):
            self._before = (*self._before, (number, self.newest))
            self._was_edited = True
        self.newest = now
        functools.update_wrapper(self, now)

    def forget(self) -> bool:
        """Forget what nobody has any more; tells whether it was never anything but what it is (held).

        What was edited once stays: somebody may have kept this, and is to have the newest of later edits.
        """
        self._before = tuple((at, one) for at, one in self._before if self._versions.has_below(at))
        return not self._was_edited and not self._lent

    def lend(self, world: Version, function: Any) -> None:
        """Have it be another function to a version that is tried (held)."""
        self._lent = (*self._lent, (world, function))

    def end(self, world: Version) -> None:
        """End that (held)."""
        self._lent = tuple(one for one in self._lent if one[0] is not world)

    def _function(self) -> Any:
        there = self._space.get(self._name)
        if there is not self and _is_alike(meant(there), self.newest):
            return there  # imported once more since: this was kept from before
        here = self._versions.here()
        for world, function in self._lent:
            if world is here:
                return function
        return next((function for at, function in self._before if here.number < at), self.newest)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._function()(*args, **kwargs)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __reduce__(self) -> tuple[Any, ...]:
        return _imported, (self.newest.__module__, self.newest.__qualname__)

    def __repr__(self) -> str:
        return repr(self.newest)


def _is_alike(one: Any, other: Any) -> bool:
    """Tell whether two are the same function, of whatever versions."""
    parts = ("__module__", "__qualname__")
    return type(one) is type(other) and all(getattr(one, p, 1) == getattr(other, p, 2) for p in parts)


def _imported(module: str, name: str) -> Any:
    return attrgetter(name)(importlib.import_module(module))


def meant(value: Any) -> Any:
    """Return what a value stands for to all but older versions."""
    return value.newest if type(value) is ByVersion else value


@dataclass(frozen=True, slots=True, eq=False)
class Name:
    """A name of the notebook that stands for something of a module, and what takes the place of that."""

    space: dict[str, Any]
    name: str
    before: Any
    now: Any

    @property
    def is_function(self) -> bool:
        """Whether it can be several at a time, to each version its own."""
        return type(self.now) is FunctionType and type(self.before) is FunctionType

    def shared(self, versions: Versions) -> ByVersion | None:
        """Return what hands its calls on (held); None for a class, or where somebody has bound it since."""
        there = self.space.get(self.name)
        if not self.is_function or (meant(there) is not self.before and meant(there) is not self.now):
            return None
        if type(there) is not ByVersion:
            there = self.space[self.name] = ByVersion(self.space, self.name, there, versions)
        return there if isinstance(there, ByVersion) else None

    def set(self, was: Any, now: Any) -> None:
        """Have a class stand for another one, unless somebody has bound it since (held)."""
        if not self.is_function and self.space.get(self.name) is was:
            self.space[self.name] = now


def bind(names: Sequence[Name], number: int, versions: Versions) -> None:
    """Have names stand for what is newer from a version on. Done twice, it is done once."""
    with _lock:
        _bind(names, number, versions)


def _bind(names: Sequence[Name], number: int, versions: Versions) -> None:
    for name in names:
        if (shared := name.shared(versions)) is not None:
            shared.edited(number, name.now)
        name.set(name.before, name.now)


@contextmanager
def lent(names: Sequence[Name], world: Version | None, versions: Versions) -> Iterator[None]:
    """Have functions be what is newer to a version that is tried, and to no other."""
    try:
        with _lock:
            _lend(names, world, versions)
        yield
    finally:
        with _lock:
            _end(names, world)


def _lend(names: Sequence[Name], world: Version | None, versions: Versions) -> None:
    for name in names:
        if world is not None and (shared := name.shared(versions)) is not None:
            shared.lend(world, name.now)


def _end(names: Sequence[Name], world: Version | None) -> None:
    for name in names:
        there = name.space.get(name.name)
        if world is not None and type(there) is ByVersion:
            there.end(world)


def forget(names: Sequence[Name]) -> None:
    """Forget what versions had that are gone; what is the newest to all is the function itself again."""
    with _lock:
        _forget(names)


def _forget(names: Sequence[Name]) -> None:
    for name in names:
        there = name.space.get(name.name)
        if type(there) is ByVersion and there.forget():
            name.space[name.name] = there.newest


@contextmanager
def classes_of(specs: Mapping[int, ServiceSpec], number: int) -> Iterator[list[str]]:
    """Have classes that the notebook has by name be those of an older version; not if that raises."""
    later = sorted((at for at in specs if at > number), reverse=True)
    names = [name for at in later for name in specs[at].names if not name.is_function]
    there = [(name, name.now, name.before) for name in names]
    with _lock:
        _set(there)
    try:
        yield sorted({name.name for name in names})
    except BaseException:
        back = [(name, now, was) for name, was, now in reversed(there)]
        with _lock:
            _set(back)
        raise


def _set(changes: Sequence[tuple[Name, Any, Any]]) -> None:
    for name, was, now in changes:
        name.set(was, now)
