"""One device: who has it, and who is next."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Self

from grym_nb.clock import Clock, wait
from grym_nb.errors import ResourceExhausted

__all__ = ["Figures", "Lease", "Place", "called"]


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

    __slots__ = (
        *("chain", "exclusive", "expires", "group", "held", "over", "owner", "place", "priority"),
        *("seconds", "since", "thread", "waited"),
    )

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
        self.since = 0.0  # when it was asked for
        self.waited = 0.0  # seconds in line
        self.thread: threading.Thread | None = None  # that has it by hand: it must not wait for itself
        self.held = False
        self.over = False  # released, or nobody waits for it any more

    def agrees(self, other: Lease) -> bool:
        """Tell whether this and another may be held at the same time."""
        if not (self.exclusive or other.exclusive) or self.group == other.group:
            return True
        return self.chain is not None and self.chain is other.chain

    def release(self) -> None:
        """Give it back, or leave the line for it."""
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


class Place:
    """A device: its leases, and the line in front of it. All of it is under `lock`."""

    def __init__(self, id: str, kind: str, clock: Clock, ageing_seconds: float) -> None:
        self.id = id
        self.kind = kind
        self.metadata: dict[str, Any] = {}
        self.created = clock()
        self.unavailable = ""  # why
        self.lock = threading.RLock()  # which knows whose it is: see `clock.wait`
        self.condition = threading.Condition(self.lock)
        self.held: tuple[Lease, ...] = ()
        self._clock = clock
        self._ageing = ageing_seconds
        self._line: list[tuple[float, int, Lease]] = []
        self._order = itertools.count()
        self._expire = float("inf")  # when the first of those that are held is over
        self._busy_since = self._used = self._waited = self._longest = 0.0
        self._last_used: float | None = None
        self._leases = 0

    # -- in ----------------------------------------------------------------------------------------

    def ask(self, lease: Lease) -> bool:
        """Take a lease at once if that can be, else stand in line with it; tell whether it is held."""
        now = self._clock()
        with self.lock:
            if self.unavailable:
                raise self._refusal()
            if self._expire <= now:
                self._end_expired(now)
            lease.since = now
            free = not (self.held or self._line)  # the usual case, in one look
            if free or (all(map(lease.agrees, self.held)) and (not self._line or self._has_chain(lease))):
                self._hold(lease, now)
                return True
            due = now - lease.priority * self._ageing  # never changes, so that the heap stays one
            heapq.heappush(self._line, (due, next(self._order), lease))
            self._grant(now)
            return lease.held

    def _has_chain(self, lease: Lease) -> bool:
        chain = lease.chain
        return chain is not None and any(other.chain is chain for other in self.held)

    def wait(self, lease: Lease, check: Callable[[], float | None]) -> None:
        """Wait in line, in this thread; `check` says until when, or raises to end the wait."""
        try:
            with self.lock:
                self._wait(lease, check)
        except BaseException:
            lease.release()
            raise

    def _wait(self, lease: Lease, check: Callable[[], float | None]) -> None:
        while not self.granted(lease):
            wait(self._clock, self.condition, self.until(check()))

    def granted(self, lease: Lease) -> bool:
        """Tell whether a lease is held by now (the lock is); raises when the device is there no more."""
        if self._expire <= (now := self._clock()):
            self._end_expired(now)
            self._grant(now)
        if self.unavailable and not lease.held:
            raise self._refusal()
        return lease.held

    def until(self, deadline: float | None) -> float | None:
        """Return until when to wait at most: one that is held for a time only ends without a word."""
        if self._expire == float("inf"):
            return deadline
        return self._expire if deadline is None else min(self._expire, deadline)

    # -- out ---------------------------------------------------------------------------------------

    def leave(self, lease: Lease) -> None:
        """Give a lease back, or leave the line; what it does twice it does once."""
        now = self._clock()
        with self.lock:
            if lease.held:
                self._end(lease, now)
            elif not lease.over:
                self._waited_for(lease, now)  # it gave up: that was a wait, too
            lease.over = True
            if self._line:
                self._grant(now)

    def wake(self) -> None:
        """Let all who wait look again whether that still makes sense."""
        with self.lock:
            self.condition.notify_all()

    def revoke(self, group: object) -> None:
        """End all leases of a group: of what was let go of while it ran."""
        now = self._clock()
        with self.lock:
            self._end_group(group, now)
            self._grant(now)
            self.condition.notify_all()  # those of the group that wait are wanted no more

    def withdraw(self, reason: str) -> None:
        """Let no lease begin from now on; whoever waits for one raises."""
        with self.lock:
            self.unavailable = reason
            self.condition.notify_all()

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
        if held:
            return f"held by {', '.join([called(other.owner) for other in held])}"
        return "others are first" if self._line and self._line[0][2] is not lease else "free by now"

    # -- the lock is held --------------------------------------------------------------------------

    def _waiting(self) -> int:
        return sum([not lease.over for _, _, lease in self._line])

    def _hold(self, lease: Lease, now: float) -> None:
        if not self.held:
            self._busy_since = now
        lease.held = True
        self.held = (*self.held, lease)
        self._leases += 1
        if lease.seconds is not None:
            lease.expires = now + lease.seconds
            self._expire = min(self._expire, lease.expires)
        if now > lease.since:
            self._waited_for(lease, now)

    def _waited_for(self, lease: Lease, now: float) -> None:
        lease.waited = now - lease.since
        self._waited += lease.waited
        self._longest = max(self._longest, lease.waited)

    def _end(self, lease: Lease, now: float) -> None:
        held = self.held
        self.held = () if held == (lease,) else tuple([other for other in held if other is not lease])
        lease.held = False  # last: where Ctrl-C comes before, who gives it back once more does all of it
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
            lease = line[0][2]
            if not (lease.over or lease.held):  # held: Ctrl-C came between this and the next line, once
                if not all(map(lease.agrees, self.held)):
                    break
                self._hold(lease, now)
                woken = True
            heapq.heappop(line)
        if woken:
            self.condition.notify_all()

    def _refusal(self) -> ResourceExhausted:
        return ResourceExhausted(
            f"{self.id} is not available: {self.unavailable}",
            hint="use another device, or declare() it again",
        )
