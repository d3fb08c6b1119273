"""One device: who has it, and who is next."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

from grym_nb.clock import Clock, wait
from grym_nb.errors import ResourceExhausted

__all__ = ["Figures", "Lease", "Place", "Turn", "called"]


class Figures(NamedTuple):
    """How a device was used so far."""

    last_used: float | None
    held_by: tuple[str, ...]
    waiting: int
    leases: int
    used_seconds: float
    waited_seconds: float
    longest_wait: float


class Lease:
    """A device that is its owner's until it is released; a context manager. To release twice is once.

    Those of one `group` may be held together (the calls of one service), and those of one `chain` at once,
    whoever waits (what a call calls).
    """

    __slots__ = ("chain", "exclusive", "expires", "group", "owner", "place", "priority", "seconds", "waited")

    def __init__(
        self,
        place: Place,
        owner: object,
        *,
        group: object = None,
        chain: object = None,
        priority: int = 1,
        exclusive: bool | None = None,
        seconds: float | None = None,
    ) -> None:
        self.place = place
        self.owner = owner
        self.group = owner if group is None else group
        self.chain = chain
        self.priority = priority
        self.exclusive = place.kind != "cpu" if exclusive is None else exclusive
        self.seconds = seconds
        self.expires = float("inf")
        self.waited = 0.0  # seconds in line, the last time

    @property
    def held(self) -> bool:
        """Whether it is held now."""
        return self in self.place.held

    def agrees(self, other: Lease) -> bool:
        """Tell whether this and another may be held at the same time."""
        if not (self.exclusive or other.exclusive) or self.group == other.group:
            return True
        return self.chain is not None and self.chain is other.chain

    def release(self) -> None:
        """Give it back."""
        self.place.leave(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<Lease of {self.place.id}: {called(self.owner)}{'' if self.held else ', not held'}>"


def called(owner: object) -> str:
    """Return what an owner is called: a call by its title."""
    title = getattr(owner, "title", None)
    return f"{title} (call {getattr(owner, 'id', '?')})" if isinstance(title, str) else str(owner)


class Turn:
    """Someone in line for a device."""

    __slots__ = ("dead", "granted", "lease", "since")

    takes_any = False  # of those who hold it: all have to leave

    def __init__(self, lease: Lease, since: float) -> None:
        self.lease = lease
        self.since = since
        self.granted = False
        self.dead = False  # nobody waits with it any more

    def behind(self) -> Sequence[Any] | None:
        """Return the owners of what is in its way; None when nothing is."""
        lease = self.lease
        if self.dead or self.granted:
            return None
        return [other.owner for other in lease.place.held if not other.agrees(lease)] or None

    def wake(self) -> None:
        """Let who waits look again whether that still makes sense."""
        with self.lease.place.lock:
            self.lease.place.condition.notify_all()

    def gives_way(self, circle: Sequence[Any]) -> bool:
        """Return False: who has a device has it until they give it back."""
        return False


class Place:
    """A device: its leases, and the line in front of it. All of it is under `lock`."""

    def __init__(self, id: str, kind: str, clock: Clock, ageing_seconds: float) -> None:
        self.id = id
        self.kind = kind
        self.metadata: dict[str, Any] = {}
        self.created = clock()
        self.unavailable = ""  # why
        self.lock = threading.Lock()
        self.condition = threading.Condition(self.lock)
        self.held: tuple[Lease, ...] = ()
        self._clock = clock
        self._ageing = ageing_seconds
        self._line: list[tuple[float, int, Turn]] = []
        self._order = itertools.count()
        self._expire = float("inf")  # when the first of those that are held is over
        self._busy_since = self._used = self._waited = self._longest = 0.0
        self._last_used: float | None = None
        self._leases = 0

    # -- in ----------------------------------------------------------------------------------------

    def ask(self, lease: Lease) -> Turn | None:
        """Take a lease at once if that can be, else return a place in line: to be waited for."""
        now = self._clock()
        with self.lock:
            if self.unavailable:
                raise self._refusal()
            if self._expire <= now:
                self._end_expired(now)
            if self._has_chain(lease) or not (self._line or self.held):
                self._hold(lease, now)
                return None
            turn = Turn(lease, now)
            due = now - lease.priority * self._ageing  # never changes, so that the heap stays one
            heapq.heappush(self._line, (due, next(self._order), turn))
            self._grant(now)
        return None if turn.granted else turn

    def _has_chain(self, lease: Lease) -> bool:
        chain = lease.chain
        return chain is not None and any(other.chain is chain for other in self.held)

    def wait(self, turn: Turn, check: Callable[[], float | None]) -> None:
        """Wait in line, in this thread; `check` says until when, or raises to end the wait."""
        try:
            with self.lock:
                self._wait(turn, check)
        except BaseException:
            self.give_up(turn)
            raise

    def _wait(self, turn: Turn, check: Callable[[], float | None]) -> None:
        while not turn.granted:
            if self.unavailable:
                raise self._refusal()
            deadline = check()
            until = self._expire if deadline is None else min(self._expire, deadline)
            wait(self._clock, self.condition, None if until == float("inf") else until)
            if self._expire <= (now := self._clock()):
                self._end_expired(now)
                self._grant(now)

    # -- out ---------------------------------------------------------------------------------------

    def leave(self, lease: Lease) -> None:
        """Give a lease back; what it does twice it does once."""
        now = self._clock()
        with self.lock:
            if lease in self.held:
                self._end(lease, now)
                self._grant(now)

    def revoke(self, group: object) -> None:
        """End all leases of a group: of what was let go of while it ran."""
        now = self._clock()
        with self.lock:
            self._end_group(group, now)
            self._grant(now)

    def withdraw(self, reason: str) -> None:
        """Let no lease begin from now on; whoever waits for one raises."""
        with self.lock:
            self.unavailable = reason
            self.condition.notify_all()

    def give_up(self, turn: Turn) -> None:
        """Leave the line, or give back what one has just got."""
        now = self._clock()
        with self.lock:
            turn.dead = True
            if turn.lease in self.held:
                self._end(turn.lease, now)
            self._grant(now)

    # -- about it ----------------------------------------------------------------------------------

    def figures(self) -> Figures:
        """Return how it was used so far."""
        now = self._clock()
        with self.lock:
            if self._expire <= now:
                self._end_expired(now)
                self._grant(now)
            busy = now - self._busy_since if self.held else 0.0
            return Figures(
                now if self.held else self._last_used,
                tuple([called(lease.owner) for lease in self.held]),
                self._waiting(),
                self._leases,
                self._used + busy,
                self._waited,
                self._longest,
            )

    def in_the_way(self, lease: Lease) -> str:
        """Return in words who holds what a lease would need."""
        held = [other for other in self.held if not other.agrees(lease)]
        return f"held by {', '.join(called(other.owner) for other in held)}" if held else "it is free"

    # -- the lock is held --------------------------------------------------------------------------

    def _waiting(self) -> int:
        return sum(not turn.dead for _, _, turn in self._line)

    def _hold(self, lease: Lease, now: float, since: float | None = None) -> None:
        if not self.held:
            self._busy_since = now
        self.held = (*self.held, lease)
        self._leases += 1
        if lease.seconds is not None:
            lease.expires = now + lease.seconds
            self._expire = min(self._expire, lease.expires)
        if since is not None:
            lease.waited = now - since
            self._waited += lease.waited
            self._longest = max(self._longest, lease.waited)

    def _end(self, lease: Lease, now: float) -> None:
        self.held = tuple([other for other in self.held if other is not lease])
        if not self.held:
            self._used += now - self._busy_since
            self._last_used = now

    def _end_all(self, leases: list[Lease], now: float) -> None:
        for lease in leases:
            self._end(lease, now)

    def _end_group(self, group: object, now: float) -> None:
        self._end_all([lease for lease in self.held if lease.group == group], now)

    def _end_expired(self, now: float) -> None:
        self._end_all([lease for lease in self.held if lease.expires <= now], now)
        self._expire = min([lease.expires for lease in self.held], default=float("inf"))

    def _grant(self, now: float) -> None:
        """Let in who is next, and those after them as long as they go together."""
        line, woken = self._line, False
        while line and not self.unavailable:
            turn = line[0][2]
            if not turn.dead:
                if not all(map(turn.lease.agrees, self.held)):
                    break
                self._hold(turn.lease, now, turn.since)
                turn.granted = woken = True
            heapq.heappop(line)
        if woken:
            self.condition.notify_all()

    def _refusal(self) -> ResourceExhausted:
        return ResourceExhausted(f"{self.id} is not available: {self.unavailable}", hint="use another device")
