"""Items as a store would have made them, for the parts that only read them."""

from __future__ import annotations

from typing import Any

from grym_nb.context.item import NOTHING, ContextItem

__all__ = ["item"]


def item(content: Any = None, **said: Any) -> ContextItem:
    """An item of type `a`, key `k` and priority 1, but for what is said."""
    usual: dict[str, Any] = {
        "id": "ctx-1",
        "type": "a",
        "key": "k",
        "metadata": NOTHING,
        "source": None,
        "priority": 1,
        "tags": (),
        "workflow": None,
        "task": None,
        "ttl": None,
        "created": 0.0,
        "updated": 0.0,
        "expires": None,
        "version": 1,
        "pinned": False,
        "durable": False,
        "provenance": NOTHING,
    }
    return ContextItem(content=content, **{**usual, **said})
