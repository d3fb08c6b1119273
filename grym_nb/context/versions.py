"""The versions of an item: the next one, an earlier one, and what differs between two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from grym_nb.context.content import FrozenDict, kept
from grym_nb.context.item import ContextItem
from grym_nb.context.query import said
from grym_nb.context.storage import readable
from grym_nb.errors import ItemNotFound
from grym_nb.render import brief

if TYPE_CHECKING:
    from grym_nb.context.difference import Difference

__all__ = ["SAME", "Said", "changed", "compared", "picked", "restored", "touched"]

#: stands for what is to stay as it is
SAME: Any = ...


class Said(NamedTuple):
    """What an update says of an item besides its content; `SAME` for what stays."""

    metadata: Any = None
    priority: Any = SAME
    ttl: Any = SAME
    tags: Any = SAME
    pinned: Any = SAME


def changed(before: ContextItem, content: Any, told: Said, now: float) -> ContextItem:
    """Return the next version of an item: with that content, its metadata merged, the rest as said."""
    seconds, rank, tags, _ = said(
        before.type,
        (),
        before.priority if told.priority is SAME else told.priority,
        before.ttl if told.ttl is SAME else told.ttl,
        before.tags if told.tags is SAME else told.tags,
        told.metadata,
        (before.pinned if told.pinned is SAME else told.pinned,),
    )
    ends = None if seconds is None else now + seconds
    more = kept(dict(told.metadata))[0] if told.metadata else {}
    return before._replace(
        content=before.content if content is SAME else content,
        metadata=FrozenDict({**before.metadata, **more}) if more else before.metadata,
        priority=rank,
        tags=tags,
        ttl=seconds,
        updated=now,
        expires=before.expires if told.ttl is SAME else ends,
        version=before.version + 1,
        pinned=before.pinned if told.pinned is SAME else told.pinned,
    )


def restored(before: ContextItem, old: ContextItem, now: float) -> ContextItem:
    """Return the next version of an item, which says what an earlier one did, for as long as it holds."""
    return before._replace(
        content=old.content,
        metadata=old.metadata,
        priority=old.priority,
        tags=old.tags,
        provenance=old.provenance,
        updated=now,
        version=before.version + 1,
    )


def touched(before: ContextItem, ttl: Any, now: float) -> ContextItem:
    """Return an item that holds anew from `now` on, for as long as it did or for `ttl` seconds."""
    seconds = before.ttl if ttl is SAME else said(before.type, (), 0, ttl, (), None)[0]
    return before._replace(ttl=seconds, expires=None if seconds is None else now + seconds)


def picked(history: Sequence[ContextItem], version: int) -> ContextItem:
    """Return one version of those that are kept."""
    for item in history:
        if item.version == version:
            return item
    id, numbers = history[-1].id, ", ".join(str(item.version) for item in history)
    more = " any more" if isinstance(version, int) and 0 < version < history[-1].version else ""
    raise ItemNotFound(f"{id} has no version {brief(version)}{more}", hint=f"kept are {numbers}", id=id)


def compared(history: Sequence[ContextItem], before: int | None, after: int | None) -> tuple[Difference, ...]:
    """Return what differs between two versions: by default the last but one and the last."""
    from grym_nb.context.difference import differences

    new = history[-1] if after is None else picked(history, after)
    old = next((item for item in reversed(history) if item.version < new.version), new)
    old = old if before is None else picked(history, before)
    readable(old), readable(new)
    return tuple(
        found
        for name in ("content", "metadata", "priority", "tags")
        for found in differences(getattr(old, name), getattr(new, name), name)
    )
