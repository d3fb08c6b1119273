"""What is said when something is not in a store: whether it ever was, why it is not, and what there is."""

from __future__ import annotations

from collections.abc import Container, Iterable

from grym_nb.context.index import Index
from grym_nb.context.item import ContextItem
from grym_nb.context.stats import Went
from grym_nb.errors import ItemNotFound
from grym_nb.render import brief

__all__ = ["no_item", "nothing_of"]


def no_item(id: object, here: Container[object], went: Iterable[Went], index: Index) -> ItemNotFound:
    """Return the error for an id that is not there any more, or never was."""
    if isinstance(id, str) and id in here:
        return ItemNotFound(f"{id} has expired", hint="put it again, or give it a longer ttl", id=id)
    for one in went:
        if one.id == id:
            told = "has expired" if one.why == "expired" else f"was {one.why}"
            return ItemNotFound(f"{id} {told}", hint=one.because, id=id)
    hint = f"{_types_in_words(index)}; by type: latest(type, key)"
    if isinstance(id, ContextItem):
        hint = "an item is named by its id: item.id"
    return ItemNotFound(f"there is no item {brief(id)}", hint=hint, id=id)


def nothing_of(type: str, key: str | None, index: Index) -> ItemNotFound:
    """Return the error for a type, or a key of it, of which nothing is there that still holds."""
    named = f"{type!r}" if key is None else f"{type!r} with key {key!r}"
    keys = [name for name in index.keys(type) if name != key]
    hint = _types_in_words(index)
    if type in index.types():
        known = f"{', '.join(keys[:10])}{', …' if len(keys) > 10 else ''}" if keys else "none"
        hint = "what was there has expired" if key in (None, *index.keys(type)) else f"keys of it: {known}"
    return ItemNotFound(f"nothing of type {named} is in the store", hint=hint)


def _types_in_words(index: Index) -> str:
    return f"types in the store: {', '.join(index.types()) or 'none yet'}"
