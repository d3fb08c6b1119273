"""One thing that models share: a content, what is said of it, and for how long it holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from grym_nb.context.content import FrozenDict
from grym_nb.priority import PRIORITIES
from grym_nb.render import brief, glance, seconds

__all__ = ["NOTHING", "ContextItem", "state_of"]

NOTHING: Mapping[str, Any] = FrozenDict()


class ContextItem(NamedTuple):
    """A piece of context as it was when it was read: content, what is said of it, and how long it holds.

    The dicts, lists, sets and arrays in `content` and `metadata` refuse to be changed: everybody reads the
    same ones. Times are seconds of the store's clock (since 1970); `expires` is None for what never does.
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
        told = [brief(self.type)] if self.key is None else [f"{brief(self.type)}, key={brief(self.key)}"]
        told.append(glance(self.key or "content", self.content))
        told.append(PRIORITIES[self.priority] + (", pinned" if self.pinned else ""))
        told += [f"tags={', '.join(self.tags)}"] if self.tags else []
        told += [f"ttl={seconds(self.ttl)}"] if self.ttl is not None else []
        return f"ContextItem({self.id}, {', '.join(told)}, version {self.version})"


def state_of(item: ContextItem) -> tuple[object, ...]:
    """Return what of an item may change: with its version all of it, else only this."""
    return item.version, item.ttl, item.expires, item.pinned
