"""Names by which a notebook has something of a module (``from helper import scale``), as that is edited.

All functions of a notebook share them, whatever version they are of. So what is newer takes its place under
the name as new code comes in force, and gives it back as that is taken back. While code is tried, answers
instead of newer code, or runs that began before, a function's name stands for another one in each version.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grym_nb.services.frame import Frame
    from grym_nb.services.reload.versions import Version, Versions
    from grym_nb.services.spec import ServiceSpec

__all__ = ["Handover", "Name", "meant", "names_since", "standing_for"]

_lock = threading.RLock()  # finalizers may run anywhere, and call what is shared


@dataclass(eq=False, slots=True)
class _Own:
    """What a name stands for in one version; until calls end, or who has put it here takes it away."""

    world: Version | None
    value: Any
    calls: Sequence[weakref.ref[Frame]] | None = None
    ends: Callable[[], bool] | None = None  # tells whether it is over, where no calls do

    @property
    def is_over(self) -> bool:
        if self.ends is not None:
            return self.ends()
        calls = [ref() for ref in self.calls or ()]
        return self.calls is not None and all(call is None or call.ended for call in calls)


class _Shared:
    """A name as several versions have it: what stands there, and what it is to stand for after that."""

    def __init__(self, name: Name, there: Any, versions: Versions) -> None:
        self.meant = there
        self.name = name
        self._versions = versions
        self._owns: list[_Own] = []
        self.stands = self._by_version(there) if name.is_function else there

    def _by_version(self, function: Any) -> Any:
        @functools.wraps(function)
        def by_version(*args: Any, **kwargs: Any) -> Any:
            return self._function()(*args, **kwargs)

        return by_version

    def _function(self) -> Any:
        self.settle()
        if not self._owns:  # it was kept from when there were: by now it is what stands there
            there: Any = self.name.space.get(self.name.name)
            return there if _is_alike(there, self.meant) and there is not self.stands else self.meant
        world = self._versions.here()
        return next((own.value for own in self._owns if own.world is world), self.meant)

    def settle(self) -> None:
        """Forget what calls had that are over."""
        if any(own.is_over for own in self._owns):
            with _lock:
                self.keep([own for own in self._owns if not own.is_over])

    def has(self, own: _Own) -> bool:
        """Tell whether it stands for that in a version (held)."""
        return any(one is own for one in self._owns)

    def add(self, own: _Own) -> None:
        """Have it stand for something of its own in a version (held)."""
        self.keep([*self._owns, own])

    def remove(self, own: _Own) -> None:
        """Have it do so no more (held)."""
        self.keep([one for one in self._owns if one is not own])

    def keep(self, owns: list[_Own]) -> None:
        """Have it stand for these (held); where there are none, for what it is meant to, as any name."""
        space, name = self.name.space, self.name.name
        is_ours, self._owns = space.get(name) is self.stands, owns
        if not self.name.is_function:  # which cannot be two at a time: it is the last of them, to everybody
            self.stands = owns[-1].value if owns else self.meant
        if is_ours:
            space[name] = self.stands if owns else self.meant
        if not owns and _shared.get((id(space), name)) is self:
            del _shared[id(space), name]


_shared: dict[tuple[int, str], _Shared] = {}  # by namespace and name


def meant(space: dict[str, Any], name: str, value: Any) -> Any:
    """Return what a name stands for that has a value, but for calls of certain versions."""
    shared = _shared.get((id(space), name))
    return shared.meant if shared is not None and shared.stands is value else value


@dataclass(frozen=True, slots=True, eq=False)
class Name:
    """A name of the notebook that stands for something of a module, and what takes the place of that."""

    space: dict[str, Any]
    name: str
    before: Any
    now: Any

    @property
    def is_function(self) -> bool:
        """Whether it can stand for several at a time, to each call for its own."""
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
            shared = _shared.get((id(self.space), self.name))
            if shared is not None and shared.stands is there:
                shared.meant = now
            else:
                self.space[self.name] = now
            return True

    def share(self, own: _Own, versions: Versions) -> _Shared | None:
        """Have it stand for something of its own in a version; None where it is somebody else's by now."""
        with _lock:
            there = self.space.get(self.name)
            shared = _shared.get((id(self.space), self.name))
            if shared is None or shared.stands is not there:
                if not _is_alike(there, self.before):
                    return None
                shared = _Shared(self, there, versions)
                _shared[id(self.space), self.name] = shared
                self.space[self.name] = shared.stands
            shared.add(own)
            return shared


def _is_alike(one: Any, other: Any) -> bool:
    """Tell whether two are the same function or class, of whatever versions."""
    parts = ("__module__", "__qualname__")
    return type(one) is type(other) and all(getattr(one, p, 1) == getattr(other, p, 2) for p in parts)


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
def standing_for(
    values: Iterable[tuple[Name, Any]], world: Version | None, versions: Versions
) -> Iterator[None]:
    """Have names stand for other values in a version, and in no other; classes do so everywhere."""
    owns = [(name, _Own(world, value)) for name, value in values]
    try:
        for name, own in owns:
            name.share(own, versions)
        yield
    finally:
        try:
            _remove(owns)
        except BaseException:
            _remove(owns)  # what Ctrl-C has cut short
            raise


def _remove(owns: Sequence[tuple[Name, _Own]]) -> None:
    for name, own in owns:
        with _lock:
            shared = _shared.get((id(name.space), name.name))
            if shared is not None and shared.has(own):
                shared.remove(own)


class Handover:
    """Names that come to stand for what is newer: calls that began before go on with the old functions."""

    def __init__(self) -> None:
        self._shared: list[tuple[_Shared, _Own]] = []

    def begin(self, names: Sequence[Name], world: Version | None, versions: Versions) -> None:
        """Bind names anew; code of the `world` of before has them as they were. Done twice, it is once."""
        for name in names:
            own = _Own(world, name.before, ())
            shared = name.share(own, versions) if name.is_function else None
            if shared is not None:
                self._shared.append((shared, own))
                own.calls = None
            name.bind()
            there = name.space.get(name.name)
            if meant(name.space, name.name, there) is not name.now:  # somebody else's by now
                own.calls = ()

    def keep_back(
        self, names: Sequence[Name], world: Version | None, versions: Versions, ends: Callable[[], bool]
    ) -> None:
        """Have names stand for what was before in one version alone: elsewhere what is newer is in force."""
        for name in names:
            name.share(_Own(world, name.before, ends=ends), versions)

    def end(self, under_way: Iterable[Frame]) -> None:
        """Have it be over when these calls are."""
        calls = [weakref.ref(frame) for frame in under_way]
        for shared, own in self._shared:
            own.calls = calls if own.calls is None else own.calls
            shared.settle()
