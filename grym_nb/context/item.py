"""One thing that models share, and what it takes to keep it apart from whoever put it there."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from grym_nb.errors import Problem, ValidationError
from grym_nb.priority import PRIORITIES
from grym_nb.render import redacted, seconds

__all__ = ["NOTHING", "ContextItem", "kept"]

NOTHING: Mapping[str, Any] = MappingProxyType({})


class ContextItem(NamedTuple):
    """A piece of context as it was when it was read: content, what is said of it, and how long it holds.

    `content` is the store's own and not to be changed: `put` or `update` it instead. Times are seconds of
    the store's clock (since 1970); `expires` is None for what never does.
    """

    # A tuple, since one is made at every `put`: a frozen dataclass of so many fields takes far longer.

    id: str
    type: str
    key: str | None
    content: Any
    metadata: Mapping[str, Any]
    source: str | None
    priority: int
    tags: tuple[str, ...]
    workflow: str | None
    task: str | None
    ttl: float | None
    created: float
    updated: float
    expires: float | None
    version: int
    pinned: bool
    durable: bool
    provenance: Mapping[str, Any]

    def left(self, now: float) -> float | None:
        """Return the seconds it still holds, or None when it never expires."""
        return None if self.expires is None else self.expires - now

    def __repr__(self) -> str:
        told = [repr(self.type)] if self.key is None else [f"{self.type!r}, key={self.key!r}"]
        told.append(redacted({self.key or "content": self.content})[self.key or "content"])
        told.append(PRIORITIES[self.priority])
        told += [f"tags={', '.join(self.tags)}"] if self.tags else []
        told += [f"ttl={seconds(self.ttl)}"] if self.ttl is not None else []
        return f"ContextItem({self.id}, {', '.join(told)}, version {self.version})"


# -- what is kept of a content ---------------------------------------------------------------------

_SCALARS = {type(None): 16, bool: 28, int: 28, float: 24, complex: 32}
_CONTAINERS = (dict, list, tuple, set, frozenset)
_UNDER_WAY: Any = object()


def kept(content: Any) -> tuple[Any, int]:
    """Return a content as the store keeps it, with its size in bytes.

    Containers and arrays are copied, so that it stays what it was; text, clips and what else cannot be copied
    in passing are kept as they are.
    """
    size = _SCALARS.get(type(content))
    if size is not None:
        return content, size
    try:
        return _kept(content, {})
    except RecursionError:
        raise _unfit("containers hundreds deep", "fewer") from None


def _unfit(found: str, expected: str) -> ValidationError:
    return ValidationError("this content cannot be kept", problems=[Problem("content", found, expected)])


def _kept(value: Any, known: dict[int, tuple[Any, int]]) -> tuple[Any, int]:
    kind = type(value)
    size = _SCALARS.get(kind)
    if size is not None:
        return value, size
    if kind is str or kind is bytes:
        return value, len(value) + 50
    if kind is bytearray:
        return bytearray(value), len(value) + 50
    if kind in _CONTAINERS:
        before = known.get(id(value))
        if before is not None:
            if before is _UNDER_WAY:
                raise _unfit(f"a {kind.__name__} that contains itself", "one that ends")
            return before[0], 8  # counted where it was met first
        known[id(value)] = _UNDER_WAY
        known[id(value)] = copied = _copied(value, kind, known)
        return copied
    if kind.__name__ == "ndarray" and kind.__module__ == "numpy":
        copy = value.copy()
        copy.flags.writeable = False
        return copy, int(copy.nbytes) + 112
    return value, _size_of(value)


def _size_of(value: Any) -> int:
    """Return what a stranger says it takes, if it does."""
    try:
        nbytes = getattr(value, "nbytes", None)
        return nbytes if isinstance(nbytes, int) and nbytes >= 0 else sys.getsizeof(value, 64)
    except Exception:
        return 64


def _copied(value: Any, kind: type, known: dict[int, tuple[Any, int]]) -> tuple[Any, int]:
    size = 64
    if kind is dict:
        copy = {}
        for key, inner in list(value.items()):  # another thread may be at it
            copy[key], inside = _kept(inner, known)
            size += inside + 64 + (len(key) if type(key) is str else 32)
        return copy, size
    parts = []
    for inner in list(value):
        part, inside = _kept(inner, known)
        parts.append(part)
        size += inside + 8
    return kind(parts), size
