"""The rows of a file of context: an item as a row and back, and a content made ready for it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from grym_nb.context.codec import decode, encode
from grym_nb.context.content import frozen
from grym_nb.context.item import NOTHING, ContextItem
from grym_nb.context.packing import Packed, pack
from grym_nb.context.storage import ELSEWHERE, Change
from grym_nb.errors import Problem, ValidationError
from grym_nb.render import size as in_words

__all__ = ["Pending", "Prepared", "change_of", "row_of"]

_log = logging.getLogger(__name__)
_MOST_BYTES = 900_000_000  # of a content: SQLite takes a billion


class Prepared:
    """A content as text and arrays, packed when it is first asked for so."""

    __slots__ = ("_packed", "arrays", "bytes", "text")

    def __init__(self, content: Any) -> None:
        self.text, self.arrays = encode(content)
        self.bytes = len(self.text) + sum(int(array.nbytes) for array in self.arrays)
        if self.bytes > _MOST_BYTES:
            problem = Problem("content", in_words(self.bytes), f"at most {in_words(_MOST_BYTES)}")
            raise ValidationError("this content is too large for a file", problems=[problem])
        self._packed: Packed | None = None

    def packed(self) -> Packed:
        """Return it packed."""
        if self._packed is None:
            self._packed = pack(self.text, self.arrays)
        return self._packed


class Pending(NamedTuple):
    """A new item that is not in the file yet."""

    item: ContextItem
    row: list[Any]
    prepared: Prepared


def row_of(item: ContextItem, size: int) -> list[Any]:
    """Return an item as a row of `items`, but for `written` and `seq`; that it cannot be one is said."""
    for name in ("type", "key", "source", "workflow", "task"):
        _refuse_unwritable(name, getattr(item, name))
    metadata, provenance = _text("metadata", item.metadata), _text("provenance", item.provenance)
    return [
        item.id, item.type, item.key, metadata, item.source, item.priority, json.dumps(item.tags),
        item.workflow, item.task, item.ttl, item.created, item.updated, item.expires, item.version,
        item.pinned, item.durable, provenance, size, item.version,
    ]  # fmt: skip


def _text(name: str, said: Mapping[str, Any]) -> str:
    # It is read with the item, wherever that is: so it holds nothing that a kernel might not know.
    return encode(dict(said), inline=True, plain=True, path=name)[0] if said else "{}"


def _refuse_unwritable(name: str, value: str | None) -> None:
    try:
        if value is not None and not value.isascii():
            value.encode()
    except UnicodeEncodeError:
        problem = Problem(name, ascii(value), "text without lone surrogates")
        raise ValidationError("this item cannot be kept in a file", problems=[problem]) from None


def change_of(row: Sequence[Any]) -> Change:
    """Return what a row of `items` says."""
    (
        id, type, key, metadata, source, priority, tags, workflow, task, ttl, created, updated, expires,
        version, pinned, durable, provenance, size, *_,
    ) = row  # fmt: skip
    item = ContextItem(
        id, type, key, ELSEWHERE, _mapping(metadata), source, priority,
        _tags(tags), workflow, task, ttl, created, updated, expires,
        version, bool(pinned), bool(durable), _mapping(provenance),
    )  # fmt: skip
    return Change(id, item, size, "")


def _mapping(text: str) -> Mapping[str, Any]:
    """Return what is said of an item; damaged, it does not hold up the others."""
    if text == "{}":
        return NOTHING
    try:
        told: Mapping[str, Any] = frozen(decode(text, ()))
        return told
    except (RecursionError, MemoryError):
        raise
    except Exception as error:
        _log.warning("what is said of an item of context cannot be read, and is left out: %s", error)
        return NOTHING


def _tags(text: str) -> tuple[str, ...]:
    try:
        tags = () if text == "[]" else tuple(json.loads(text))
        if all(isinstance(tag, str) for tag in tags):
            return tags
        raise TypeError(f"{text} are no texts")
    except (TypeError, ValueError) as error:
        _log.warning("the tags of an item of context cannot be read, and are left out: %s", error)
        return ()
