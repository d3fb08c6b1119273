"""How a task finds its service."""

from grym_nb.flow.router import route

__all__ = ["route"]
