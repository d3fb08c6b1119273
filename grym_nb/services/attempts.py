"""Attempts with growing pauses: what a call's `retries` asks for where no retry policy is wired."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from grym_nb.clock import wait
from grym_nb.errors import GrymError
from grym_nb.services.frame import Frame
from grym_nb.services.waits import hand_over

__all__ = ["attempts"]

_FIRST_PAUSE = 0.1  # seconds; each further one is twice as long


def attempts(frame: Frame, attempt: Callable[[Frame], Any]) -> Any:
    """Return the first answer; errors that cannot change are raised at once, the last one in the end.

    Each attempt takes and gives back slot and lease itself, so nothing is held during a pause.
    """
    pause = _FIRST_PAUSE
    for _ in range(frame.options.retries):
        try:
            return attempt(frame)
        except GrymError as error:
            if not error.can_change or frame.cancelled:
                raise
        _rest(frame, pause)
        pause *= 2
    return attempt(frame)


def _rest(frame: Frame, pause: float) -> None:
    hand_over()
    clock = frame.record.ports.clock
    until = clock() + pause
    lock = threading.Lock()
    condition = threading.Condition(lock)

    def rest() -> None:
        while clock() < until:
            frame.check()
            wait(clock, condition, until if frame.deadline is None else min(until, frame.deadline))

    with lock:
        rest()
