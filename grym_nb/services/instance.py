"""What the factory made, while it is loaded; and one load under way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grym_nb.services.model import tasks_of

if TYPE_CHECKING:
    from grym_nb.errors import GrymError
    from grym_nb.hardening.leases import Place
    from grym_nb.services.frame import Frame
    from grym_nb.services.policy import CallPolicy

__all__ = ["Attempt", "Instance"]


class Instance:
    """What the factory made, while it is loaded; `users` counts the calls inside it."""

    __slots__ = (
        *("device", "epoch", "loaded_at", "located", "model", "read", "retired", "tasks", "users"),
        "version",
    )

    def __init__(self, model: Any, version: str, loaded_at: float, read: frozenset[str] | None) -> None:
        self.model = model
        self.epoch = 0  # of the lane, when it began to serve
        self.version = version
        self.loaded_at = loaded_at
        self.read = read  # the attributes that `load` read; None: it may have read any
        self.tasks = tasks_of(type(model))
        self.device: Place | None = None  # on which its calls take turns
        self.located: CallPolicy | None = None  # the policy by which that was found
        self.users = 0
        self.retired = False


class Attempt:
    """One load under way: whoever comes meanwhile waits for its outcome."""

    __slots__ = ("error", "frame", "over")

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.over = False
        self.error: GrymError | None = None
