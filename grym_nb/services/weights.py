"""Weights that services share: one copy for all that name it, gone with the last of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, TypeVar

from grym_nb.errors import Problem, StateError, ValidationError
from grym_nb.hardening.storages import storages_of, total
from grym_nb.render import Table, brief, size
from grym_nb.services.frame import current_frame

if TYPE_CHECKING:
    from grym_nb.metrics import Metrics
    from grym_nb.services.frame import Frame
    from grym_nb.services.instance import Instance

__all__ = ["SharedWeights", "shared"]

T = TypeVar("T")


def shared(key: str, build: Callable[[], T]) -> T:
    """Return what is shared under `key`, built if nobody has it yet; inside a service's `load` only."""
    if not isinstance(key, str) or not key.strip() or not callable(build):
        given, expected = (brief(build), "a function") if isinstance(key, str) else (brief(key), "text")
        problem = Problem("build" if isinstance(key, str) and key.strip() else "key", given, expected)
        raise ValidationError("weights cannot be shared so", problems=[problem])
    frame = current_frame()
    load = None if frame is None else next((at for at in frame.chain() if at.what == "load"), None)
    if load is None:
        raise StateError(
            "self.shared(...) is for `load`: what it returns is kept as long as the service is loaded",
            hint="call it there, and keep what it returns in an attribute",
        )
    value: T = load.record.ports.weights.get(key, build, load)
    return value


class _Entry:
    __slots__ = ("names", "owners", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self.owners: list[Any] = []  # loads under way, and instances
        self.names: list[str] = []  # of their services


class SharedWeights:
    """What the services of a runtime share, and which of them still do; for any thread."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}

    def get(self, key: str, build: Callable[[], Any], owner: Frame) -> Any:
        """Return what is shared under a key, for one more owner; built outside of the lock if it is new."""
        found = self._joined(key, owner)
        if found is not None:
            return found.value
        made = build()
        with self._lock:
            # Somebody may have built it meanwhile, where this load has stepped aside for another: theirs.
            entry = self._entries.setdefault(key, _Entry(made))
            self._join(entry, owner)
        self._metrics.counter("weights.shared", key=key, outcome="built").add()
        return entry.value

    def _joined(self, key: str, owner: Frame) -> _Entry | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._join(entry, owner)
        self._metrics.counter("weights.shared", key=key, outcome="found").add()
        return entry

    @staticmethod
    def _join(entry: _Entry, owner: Frame) -> None:
        if owner not in entry.owners:
            entry.owners.append(owner)
            entry.names.append(owner.record.name)

    def hand_over(self, load: Frame, instance: Instance) -> None:
        """Let an instance own what its load has taken."""
        with self._lock:
            self._replace(load, instance)

    def _replace(self, load: Frame, instance: Instance) -> None:
        for entry in self._entries.values():
            entry.owners = [instance if owner is load else owner for owner in entry.owners]

    def release(self, owner: Frame | Instance) -> None:
        """Take an owner out; what nobody owns any more is gone. Does nothing twice."""
        with self._lock:
            gone = self._without(owner)
        del gone  # not under the lock: weights may have finalizers

    def _without(self, owner: Any) -> list[_Entry]:
        gone = []
        for key, entry in list(self._entries.items()):
            kept = [(o, name) for o, name in zip(entry.owners, entry.names, strict=True) if o is not owner]
            entry.owners, entry.names = [o for o, _ in kept], [name for _, name in kept]
            if not kept:
                gone.append(self._entries.pop(key))
        return gone

    def owners(self) -> dict[str, tuple[str, ...]]:
        """Return which services share what, by key."""
        with self._lock:
            entries = list(self._entries.items())
        return {key: tuple(entry.names) for key, entry in entries}

    def keys_of(self, name: str) -> tuple[str, ...]:
        """Return the keys of what a service shares, also where no other one does yet."""
        return tuple([key for key, names in self.owners().items() if name in names])

    def there(self, keys: Collection[str]) -> dict[str, int]:
        """Return how many bytes of each device those of these keys have that are there."""
        with self._lock:
            entries = list(self._entries.items())
        return total(storages_of([entry.value for key, entry in entries if key in keys]))

    def identities(self) -> set[int]:
        """Return what is shared, each by its identity."""
        with self._lock:
            entries = list(self._entries.values())
        return {id(entry.value) for entry in entries}

    def table(self) -> Table:
        """Return who shares what, as a table."""
        with self._lock:
            entries = list(self._entries.items())
        rows = [
            (key, size(sum(total(storages_of(entry.value)).values())), ", ".join(entry.names))
            for key, entry in entries
        ]
        return Table("weights that services share", ("key", "has", "of"), rows)
