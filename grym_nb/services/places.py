"""What a lane hands out: places to compute in, and tickets to who waits for one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from grym_nb.services.frame import Awaited

if TYPE_CHECKING:
    from grym_nb.services.frame import Frame
    from grym_nb.services.lane import Lane

__all__ = ["Place", "Ticket"]


class Ticket(Awaited):
    """Someone in line: `granted` is called, without any lock, once `place` is there.

    `rides` is the place of its own chain it waits for, where there is one.
    """

    __slots__ = ("asked", "claimed", "dead", "frame", "granted", "lane", "place", "rides")

    def __init__(self, lane: Lane, frame: Frame, granted: Callable[[], None] | None) -> None:
        self.lane = lane
        self.frame = frame
        self.granted = granted  # None: a thread that sleeps on the lane's condition
        self.place: Place | None = None
        self.rides: Place | None = None
        self.asked = granted is not None  # it may stand in line
        self.dead = False
        self.claimed = False

    takes_any = True  # of the places it waits for

    def behind(self) -> Sequence[Awaited] | None:
        """Return what it waits for; None when it has it.

        Who rides waits for nothing but its own chain, which lends the place as soon as it waits.
        """
        out = self.dead or self.place is not None or self.rides is not None
        return None if out else tuple(self.lane.places)

    def wake(self) -> None:
        """Let who waits with it look again whether that still makes sense."""
        with self.lane.lock:
            self.lane.condition.notify_all()

    def __str__(self) -> str:
        return self.frame.record.held_by()

    def claim(self) -> bool:
        """Tell the first who asks that the call is theirs: to run it, or to give up what it holds."""
        with self.lane.lock:
            first, self.claimed = not self.claimed, True
        return first

    def withdraw(self) -> bool:
        """Leave the line; False for a job that has its place and runs already."""
        return self.lane.withdraw(self)


class Place(Awaited):
    """A slot. Held by one chain: by its `owner`, and `occupant` is the call that computes in it now."""

    __slots__ = ("epoch", "frames", "lane", "occupant", "owner", "riders", "streams", "waiting")

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.epoch = lane.epoch
        self.owner: Frame | None = None
        self.occupant: Frame | None = None
        self.frames = 0  # the owner and those of its chain who ride or wait to ride
        self.waiting: Sequence[Ticket] = ()
        self.riders: Sequence[Frame] = ()  # calls of the chain that ride: they may outlive the owner too
        self.streams: Sequence[Frame] = ()  # generators opened by the chain: they may outlive the owner

    def behind(self) -> Sequence[Awaited] | None:
        """Return the calls that share it, all of which have to leave; None when it is free."""
        shared = (self.owner, *self.riders, *self.streams)
        return [frame for frame in shared if frame is not None] or None
