"""A worker and the call it goes on with: who frees a slot runs the next call itself, and wakes nobody."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grym_nb.services.frame import Frame
    from grym_nb.services.places import Ticket

__all__ = ["goes_on", "hand_over", "work"]


class _Worker(threading.local):
    """What a lane's worker remembers: the call it runs, and the ticket it goes on with afterwards."""

    frame: Frame | None = None
    following: Ticket | None = None


_worker = _Worker()


def work(ticket: Ticket | None) -> None:
    """Run a granted job on this worker, and then what it was handed meanwhile."""
    while ticket is not None:
        _worker.frame = ticket.frame
        try:
            if ticket.granted is not None and ticket.claim():
                ticket.granted()
        finally:
            _worker.frame = None
            ticket, _worker.following = _worker.following, None


def goes_on(after: Frame, ticket: Ticket) -> bool:
    """Let the worker that frees a slot go on with the next call itself, without waking another."""
    if _worker.frame is not after or _worker.following is not None:
        return False
    _worker.following = ticket
    return True


def hand_over() -> None:
    """Let another worker go on with the call this one meant to run next: this thread is about to wait."""
    ticket, _worker.following = _worker.following, None
    if ticket is not None:
        ticket.lane.start([ticket])
