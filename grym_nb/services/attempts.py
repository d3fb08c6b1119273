"""Attempts with growing pauses: as a service's policy says, or a call's own `retries`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from grym_nb.errors import GrymError
from grym_nb.hardening import Retry
from grym_nb.services.frame import Frame
from grym_nb.services.progress import Wait, wait_a_while
from grym_nb.services.waits import aside

__all__ = ["attempts"]

_PLAIN = Retry(attempts=1, jitter=0.0, share=None)  # where a call asks for retries, and no policy says how


def attempts(frame: Frame, attempt: Callable[[Frame], Any]) -> Any:
    """Return the first answer; errors that cannot change are raised at once, the last one in the end.

    Each attempt takes and gives back slot and lease itself, so nothing is held during a pause.
    """
    record, asked = frame.record, frame.options.retries
    policy, budget = record.policy.retry or _PLAIN, record.retry_budget
    if budget is not None:
        budget.called()
    try:
        return attempt(frame)
    except GrymError as raised:
        error = raised
    made = 1
    for pause in policy.pauses(policy.attempts if asked is None else asked + 1):
        if frame.cancelled or not policy.worth(error, budget):
            break
        _rest(frame, pause, f"its next attempt: {made} failed, the last with {error.message}")
        made += 1
        try:
            return attempt(frame)
        except GrymError as raised:
            error = raised
    if made > 1:
        error.details["attempts"] = made
    raise error


def _rest(frame: Frame, pause: float, what: str) -> None:
    """Pause, until the call is late or cancelled at most; nothing is held meanwhile."""
    record = frame.record
    clock = record.ports.clock
    until = clock() + pause

    def rest() -> bool:
        if clock() >= until:
            return True
        if frame.deadline is not None and clock() >= frame.deadline:
            raise frame.timeout(what)
        frame.check()
        wait_a_while(clock, record.condition, until if frame.deadline is None else min(until, frame.deadline))
        return False

    def others() -> tuple[Frame, ...]:
        return tuple([other for other in record.pausing if other is not frame])

    def begin(pausing: str) -> None:
        with record.lock:
            record.pausing = (*others(), frame) if pausing else others()
        frame.pauses = pausing

    try:
        with aside(frame), Wait(frame.title) as waits:
            begin(what)
            while True:
                with record.lock:
                    if rest():
                        return
                waits.on(what)
    finally:
        begin("")
