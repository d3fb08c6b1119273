"""The queue in front of a service: slots, priority with ageing, and places that a call chain shares.

A *slot* lets one call run. A call that holds one holds a *place*, and lends it to the calls of its own
chain: at once to those that run in its thread (it cannot do anything else meanwhile), and to those that run
elsewhere as long as it waits for something. So a chain re-enters its own service, directly or through
others, and still at most `slots` calls compute at a time.

Whoever waits in line is a `Ticket`: a thread that sleeps here, or a job that a worker runs once a slot is
free. Batching will take several tickets at once from `Lane._next`.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from grym_nb.clock import wait
from grym_nb.errors import CallBlocked, QueueFull, ResourceExhausted
from grym_nb.services.frame import CURRENT, stack
from grym_nb.services.places import Place, Ticket
from grym_nb.services.relay import goes_on, work
from grym_nb.services.stalls import Stalls
from grym_nb.services.waits import aside

if TYPE_CHECKING:
    from grym_nb.clock import Clock
    from grym_nb.pulse import Workers
    from grym_nb.services.frame import Frame

__all__ = ["Lane"]


_order = itertools.count()


class Lane:
    """Slots and the line in front of them. All state is under `condition`, shared with the record."""

    def __init__(
        self,
        name: str,
        slots: int,
        *,
        clock: Clock,
        workers: Workers,
        lock: threading.RLock,
        condition: threading.Condition,
        ageing_seconds: float,
    ) -> None:
        self.name = name
        self.slots = slots
        self.epoch = 0
        self.condition = condition
        self.places = [Place(self) for _ in range(slots)]
        self._free = list(self.places)
        self._lost: list[Place] = []  # of instances that were let go of while calls ran in them
        self.lock = lock  # the condition's own: half the price where nobody is to be woken
        self.stalls = Stalls(slots)  # for what those who hold the slots wait themselves
        self.most_waiting: int | None = None  # how many may stand in line; None: any number
        self._clock = clock
        self._workers = workers
        self._ageing = ageing_seconds
        self._line: list[tuple[float, int, Ticket]] = []

    # -- in ----------------------------------------------------------------------------------------

    @property
    def open(self) -> bool:
        """Whether a slot is free and nobody waits: then a call runs in its caller's thread."""
        return True if self._free and not self._line else False  # noqa: SIM210 - no call of bool()

    @property
    def free(self) -> int:
        """The number of free slots."""
        return len(self._free)

    @property
    def waiting(self) -> int:
        """The number of calls in line."""
        return sum(not ticket.dead for _, _, ticket in self._line)

    def frames(self) -> list[Frame]:
        """Return the calls that hold or share a slot, and those that run on in an instance let go of."""
        with self.lock:
            places = (*self.places, *self._lost)
            shared = [(p, frame) for p in places for frame in (p.owner, p.occupant, *p.riders, *p.streams)]
        # Of those that share a place: a stream that has ended leaves its name there until the next one goes.
        return list(dict.fromkeys(frame for p, frame in shared if frame is not None and frame.place is p))

    def line(self) -> list[Frame]:
        """Return the calls that wait, the first of them first."""
        with self.lock:
            tickets = [ticket for *_, ticket in sorted(self._line)]
            tickets += [ticket for place in self.places for ticket in place.waiting]
        return [ticket.frame for ticket in tickets if not ticket.dead]

    def take(self, frame: Frame) -> None:
        """Wait for a slot, in the caller's thread; the frame then has its place."""
        if frame.place is not None:
            if frame.place.epoch == self.epoch:
                return  # a worker brought the slot along
            self.leave(frame)
        ticket = Ticket(self, frame, None)
        try:
            if not self._taken(frame, ticket):
                self._sleep(ticket)
        except BaseException:
            if ticket.asked:  # wherever Ctrl-C came: nobody may be given a slot who is not there any more
                ticket.withdraw()
                frame.place = None
            raise

    def _taken(self, frame: Frame, ticket: Ticket) -> bool:
        """Take a slot at once, else stand in line; tell whether it has its place."""
        with self.lock:
            if frame.parent is None or (shared := self._shared(frame)) is None:
                if self.take_at_once(frame):
                    return True
                self._refuse_full(frame)
                ticket.asked = True
                self._push(ticket)
            else:
                place, beneath = shared
                if beneath:
                    frame.place = place
                    if frame.what == "generator":
                        place.frames += 1  # it may outlive the call it was made in
                        place.streams = (*place.streams, frame)
                    else:
                        frame.borrowed = True
                    return True
                ticket.asked = True
                self._ride(place, ticket)  # no job can be before us: a free place is given on at once
            return frame.place is not None

    def take_at_once(self, frame: Frame) -> bool:
        """Take a slot (held) if one is free and nobody waits; tell whether it was so."""
        if not self._free or self._line:
            return False
        # Straight on, without a call: so Ctrl-C cannot come before the frame knows its place.
        frame.place = place = self._free[-1]
        place.owner = place.occupant = frame
        place.frames = 1
        del self._free[-1]
        return True

    def submit(self, frame: Frame, run: Callable[[], None]) -> Ticket:
        """Put a call in line for a worker; never blocks."""
        with self.lock:
            shared = self._shared(frame)
            ticket = Ticket(self, frame, run)
            if frame.call is not None:
                frame.call.ticket = ticket  # before it is in line, so that whoever cancels finds it
            ready: list[Ticket] = []
            if shared is None:
                if not self._free:
                    self._refuse_full(frame)
                self._push(ticket)
                ready = self._grant()
            else:
                ready = self._ride(shared[0], ticket)
            if ticket.place is not None:
                frame.waiting_on = "worker"  # more slots would not have it begin any sooner
        self.start(ready)
        return ticket

    def reenters(self, frame: Frame) -> bool:
        """Tell whether the call is made, in this thread, from inside a call of this lane."""
        shared = self._shared(frame)
        return shared is not None and shared[1]

    def rides(self, frame: Frame) -> bool:
        """Tell whether a call of this chain has a place in this lane."""
        return self._shared(frame) is not None

    # -- out ---------------------------------------------------------------------------------------

    def leave(self, frame: Frame) -> None:
        """Give the place back: to the chain's next rider, else to the next in line."""
        if frame.place is None:
            return
        with self.lock:
            if self.leave_at_once(frame):
                return
            place, frame.place = frame.place, None
            ready = self._vacate(place, frame, gone=True)
        if ready:
            self.start(ready, after=frame)

    def leave_at_once(self, frame: Frame) -> bool:
        """Give the place back (held) where nobody rides or waits: the usual case, and the quick one."""
        place = frame.place
        if place is None:
            return True
        if frame.borrowed:
            frame.borrowed = False
        elif (
            place.frames == 1
            and place.epoch == self.epoch
            and not self._line
            and len(self.places) == self.slots
        ):
            place.owner = place.occupant = None
            place.frames = 0
            frame.place = None
            self._free += (place,)
            return True
        else:
            return False
        frame.place = None
        return True

    def lend(self, place: Place, frame: Frame) -> None:
        """Let the chain's other calls compute in the place of one that waits."""
        with self.lock:
            ready = self._vacate(place, frame, gone=False)
        self.start(ready)

    def withdraw(self, ticket: Ticket) -> bool:
        """Take a ticket out of the line; False when it is a job that has its place, or is out already."""
        with self.lock:
            if ticket.dead or (ticket.place is not None and ticket.granted is not None):
                return False
            ticket.dead = True
            place = ticket.place or self._asked_to_ride(ticket)
            ready = self._vacate(place, ticket.frame, gone=True) if place is not None else []
            ready += self._grant()
        self.start(ready)
        return True

    def _asked_to_ride(self, ticket: Ticket) -> Place | None:
        """Take a ticket out of those that wait to ride; return the place in which they do."""
        for place in self.places:
            if ticket in place.waiting:
                place.waiting = tuple(t for t in place.waiting if t is not ticket)
                return place
        return None

    def renew(self) -> list[Ticket]:
        """Forget the places of an instance that is no longer served (held); its calls end on their own.

        Returns the jobs that the fresh slots let in; the caller starts them once it holds no lock.
        """
        self.epoch += 1
        for place in self.places:
            for ticket in place.waiting:
                ticket.rides = None
                self._push(ticket)
            place.frames -= len(place.waiting)
            place.waiting = ()
        self._lost += [place for place in self.places if place.frames]
        self.places = [Place(self) for _ in range(self.slots)]
        self._free = list(self.places)
        return self._grant()

    def resize(self, slots: int) -> None:
        """Change how many calls may compute at a time."""
        with self.lock:
            self.slots = self.stalls.slots = slots
            self._free += (new := [Place(self) for _ in range(slots - len(self.places))])
            self.places += new
            self._drop_places()
            ready = self._grant()
        self.start(ready)

    def _drop_places(self) -> None:
        while self._free and len(self.places) > self.slots:
            self.places.remove(self._free.pop())  # those in use go when they are given back

    def start(self, tickets: list[Ticket], after: Frame | None = None) -> None:
        """Set granted jobs going; takes no lock of ours."""
        for ticket in tickets:
            if after is None or not goes_on(after, ticket):
                try:
                    self._workers.run(partial(work, ticket))
                except RuntimeError as error:
                    self._cannot_start(ticket, error)

    def _cannot_start(self, ticket: Ticket, error: RuntimeError) -> None:
        """End a call for which the system gives no thread; its place goes to the next."""
        frame = ticket.frame
        if frame.call is not None:
            frame.call.settle(
                error=ResourceExhausted(
                    f"{frame.title} could not be run: {error}",
                    hint="too many threads: close what you do not need, or make blocking calls",
                    service=self.name,
                    task=frame.task,
                )
            )
        frame.record.let_go(frame)

    # -- who waits for whom ------------------------------------------------------------------------

    def resting_here(self) -> Frame | None:
        """Return a generator or a `use()` that is open in this thread and holds a slot, if there is one."""
        here = threading.get_ident()
        with self.lock:
            owners = [place.owner for place in self.places]
        return next((owner for owner in owners if owner is not None and owner.suspended == here), None)

    def refuse_endless_wait(self, frame: Frame) -> None:
        """Raise when every slot is held by something that only this very thread could end."""
        here = threading.get_ident()
        lent = set(stack(CURRENT.get()))  # what this thread's own calls hold is their chain's meanwhile
        with self.lock:
            owners, free = [place.owner for place in self.places], bool(self._free)
        holders = [owner for owner in owners if owner is not None]
        mine = [owner for owner in holders if owner.suspended == here and owner not in lent]
        if free or not mine or len(mine) < len(holders) or frame.place is not None:
            return
        holder = mine[0]
        raise CallBlocked(
            f"{frame.title} would wait for ever: {holder.title} is open in this thread and holds the slot",
            hint=f"{holder.how_to_end}; or register {self.name} with concurrency={self.slots + 1}",
            service=self.name,
            task=frame.task,
        )

    # -- under the condition -----------------------------------------------------------------------

    def _shared(self, frame: Frame) -> tuple[Place, bool] | None:
        """Return the place this chain has here, and whether its holder lies beneath us in this thread."""
        beneath = frame.inline
        for above in frame.chain():
            if above is frame:
                continue
            place = above.place
            if place is not None and place.lane is self and place.epoch == self.epoch and place.frames:
                return place, beneath
            beneath = beneath and above.inline
        return None

    def _push(self, ticket: Ticket) -> None:
        # A step of priority is worth so many seconds of waiting: nobody waits for ever, and the key
        # never changes, so that the heap stays a heap.
        now = self._clock()
        due = now - ticket.frame.options.priority * self._ageing
        ticket.frame.stood = (self.stalls, self.stalls.until(now))
        heapq.heappush(self._line, (due, next(_order), ticket))

    def _refuse_full(self, frame: Frame) -> None:
        most = self.most_waiting
        if most is None or (waiting := self.waiting) < most:
            return
        raise QueueFull(
            f"{frame.title} is refused: as many wait for {self.name} as may, {waiting}",
            cause=f"{self.slots - len(self._free)} of {self.slots} slots are in use",
            hint=f"try again later, or register {self.name} with a larger max_waiting, or concurrency",
            service=self.name,
            task=frame.task,
            limit=most,
            use=waiting,
        )

    def _ride(self, place: Place, ticket: Ticket) -> list[Ticket]:
        ticket.rides = place
        place.frames += 1
        place.waiting = (*place.waiting, ticket)
        return self._next_rider(place) if place.occupant is None else []

    def _grant(self) -> list[Ticket]:
        """Give free slots to the first in line; return the jobs among them."""
        jobs: list[Ticket] = []
        woken = False
        while self._line and (self._free or self._line[0][2].dead):
            ticket = self._line[0][2]
            if ticket.dead:
                heapq.heappop(self._line)
                continue
            # Straight on, and taken out of both only once they have one another: Ctrl-C loses neither.
            ticket.place = ticket.frame.place = place = self._free[-1]
            place.owner = place.occupant = ticket.frame
            place.frames = 1
            del self._free[-1]
            heapq.heappop(self._line)
            if ticket.granted is None:
                woken = True
            else:
                jobs.append(ticket)
        if woken:
            self.condition.notify_all()
        return jobs

    def _next_rider(self, place: Place) -> list[Ticket]:
        while place.waiting:
            ticket, *rest = place.waiting
            place.waiting = tuple(rest)
            if ticket.dead:
                continue
            ticket.place = ticket.frame.place = place
            place.occupant = ticket.frame
            place.riders = (*place.riders, ticket.frame)
            if ticket.granted is not None:
                return [ticket]
            self.condition.notify_all()
            return []
        return []

    def _vacate(self, place: Place, frame: Frame, *, gone: bool) -> list[Ticket]:
        if place.occupant is frame:
            place.occupant = None
            self.condition.notify_all()  # its owner may wait to have it back
        if gone:
            place.frames -= 1
            self._inherit(place, frame)
        if place.epoch != self.epoch:
            if place.frames <= 0:
                self._lost.remove(place)
            return []
        if place.frames > 0:
            return self._next_rider(place) if place.occupant is None else []
        place.owner = None
        if len(self.places) > self.slots:
            self.places.remove(place)
        else:
            self._free.append(place)
        return self._grant()

    def _inherit(self, place: Place, frame: Frame) -> None:
        """Let who outlives the owner own the place; a generator may go on at any time."""
        place.streams = tuple(stream for stream in place.streams if stream.place is place)
        place.riders = tuple(rider for rider in place.riders if rider is not frame)
        if place.owner is not frame:
            return
        if place.streams:
            place.owner = place.streams[-1]
            place.occupant = place.occupant or place.owner
        elif place.riders:
            *place.riders, place.owner = place.riders

    def _sleep_until_placed(self, ticket: Ticket) -> None:
        frame = ticket.frame
        while ticket.place is None:
            if frame.deadline is not None and self._clock() >= frame.deadline:
                raise frame.timeout(f"a slot of {self.name} ({self.slots} in use)")
            frame.check()
            wait(self._clock, self.condition, frame.deadline)

    def _sleep(self, ticket: Ticket) -> None:
        frame = ticket.frame
        frame.refuse_on_loop()
        self.refuse_endless_wait(frame)
        me = frame.parent if frame.inline else frame
        with frame.waiting("slot"), aside(me, ticket), self.lock:
            self._sleep_until_placed(ticket)
