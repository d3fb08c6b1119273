"""What models share: items with time, priority and meaning, found again by what was said of them."""

from grym_nb.context.adapters import adapter
from grym_nb.context.codec import storable
from grym_nb.context.item import ContextItem
from grym_nb.context.store import ContextStore

__all__ = ["ContextItem", "ContextStore", "adapter", "storable"]
