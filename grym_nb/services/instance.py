"""What the factory made, while it is loaded; one load under way; and the gate that serialises them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from grym_nb.services.lane import aside

if TYPE_CHECKING:
    from grym_nb.errors import GrymError
    from grym_nb.services.frame import Frame

__all__ = ["Attempt", "Gate", "Instance"]


class Gate:
    """Lets one model be constructed at a time; who waits for something inside steps out meanwhile."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def acquire(self) -> None:
        """Wait for the gate."""
        self._lock.acquire()

    def release(self) -> None:
        """Let the next one construct."""
        self._lock.release()

    @contextmanager
    def held_by(self, frame: Frame) -> Iterator[None]:
        """Hold the gate for a load."""
        with aside(frame.parent if frame.inline else None):
            self.acquire()
        frame.gate = self
        try:
            yield
        finally:
            frame.gate = None
            self.release()


class Instance:
    """What the factory made, while it is loaded; `users` counts the calls inside it."""

    __slots__ = ("epoch", "loaded_at", "model", "read", "retired", "users", "version")

    def __init__(self, model: Any, version: str, loaded_at: float, read: frozenset[str] | None) -> None:
        self.model = model
        self.epoch = 0  # of the lane, when it began to serve
        self.version = version
        self.loaded_at = loaded_at
        self.read = read  # the attributes that `load` read; None: it may have read any
        self.users = 0
        self.retired = False


class Attempt:
    """One load under way: whoever comes meanwhile waits for its outcome."""

    __slots__ = ("error", "over")

    def __init__(self) -> None:
        self.over = False
        self.error: GrymError | None = None
