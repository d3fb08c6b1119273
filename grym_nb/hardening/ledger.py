"""Who has taken what of the memory there is, and who comes next: budgets, reservations, and their line.

A reservation is made before the bytes are, so two loads never take the last gigabyte both. Where there is no
room, those that nobody uses go, as the policy says; then whoever asks waits, in line, until somebody ends.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import replace

from grym_nb.clock import Clock, monotonic
from grym_nb.devices import Device
from grym_nb.errors import ResourceExhausted
from grym_nb.hardening.eviction import Candidate, Policy, choose, cost_rate
from grym_nb.hardening.holders import raise_the_budget, way
from grym_nb.hardening.reservations import TOTAL, Decision, Reservation, Shortage, Step, Tenant
from grym_nb.hardening.storages import Storages, total
from grym_nb.priority import CRITICAL
from grym_nb.render import size as in_words

__all__ = ["Ledger"]

_log = logging.getLogger(__name__)
_DECISIONS_KEPT = 1000
#: for whom somebody goes just now: what its going needs comes first, or neither would ever end
_GOING_FOR: ContextVar[Reservation | None] = ContextVar("grym_going_for", default=None)


class Ledger:
    """The reservations on all devices, and the line of those that wait for room; for any thread."""

    def __init__(
        self,
        *,
        look: Callable[[], Mapping[str, Device]],
        give_back: Callable[[str], object],
        clock: Clock = monotonic,
        policy: Policy = cost_rate,
    ) -> None:
        self.clock = clock
        self.policy = policy
        self.budgets: dict[str, int] = {}
        self.lock = threading.RLock()  # which knows whose it is: see `clock.wait`
        self.condition = threading.Condition(self.lock)
        self.decisions: deque[Decision] = deque(maxlen=_DECISIONS_KEPT)
        self._look = look
        self._give_back = give_back
        self.held: tuple[Reservation, ...] = ()  # the oldest first
        self.line: tuple[Reservation, ...] = ()  # that wait for room
        self._changes = 0
        #: runs a job in a thread that may take its time; None: who is in use stays, budget or not
        self.later: Callable[[Callable[[], object]], object] | None = None
        self._over = False  # a budget, for as long as those in use stay
        #: a block in which whoever reserves by hand waits; may raise instead
        self.waiting: Callable[[Reservation, Shortage], AbstractContextManager[object]]
        self.waiting = lambda mine, short: nullcontext()

    # -- in ----------------------------------------------------------------------------------------

    def reserve(
        self,
        owner: str,
        asked: Mapping[str, int],
        *,
        wait: Callable[[Reservation, Shortage], None],
        tenant: Tenant | None = None,
        source: str = "stated",
        beside: Collection[str] = (),
    ) -> Reservation:
        """Return the reservation, once there is room: `wait` lets others end, or raises to end the wait.

        What could never fit, or not as long as others stay, is refused at once with the figures.
        """
        mine = Reservation(self, owner, asked, tenant, source)
        mine.beside = beside  # whose models are held for this one: they cannot go for it
        try:
            with self.lock:
                self._stand_in_line(mine)
            emptied = noted = looked = False
            while (short := self._taken(mine)) is not None:
                if not looked:
                    looked = True
                    self.look_again(handed_out=True)
                    continue
                if not emptied and short.free is not None and short.asked > short.free:
                    emptied = True
                    self._give_back(short.device)  # what lies in caches is nobody's
                    continue
                self._refuse_hopeless(mine, short)
                if not (self.first(mine) and self._evicted(mine, short)):
                    if not noted:
                        noted = True
                        self._note(mine, "waits", short, why=str(short))
                    wait(mine, short)
        except BaseException:
            self.release(mine)
            raise
        return mine

    def _stand_in_line(self, mine: Reservation) -> None:
        first = _GOING_FOR.get()
        at = self.line.index(first) if first in self.line else len(self.line)
        self.line = (*self.line[:at], mine, *self.line[at:])

    def at_once(self, owner: str, asked: Mapping[str, int], tenant: Tenant | None) -> Reservation | None:
        """Return a reservation where there is room now, nobody goes for it and nobody waits; else None."""
        mine = Reservation(self, owner, asked, tenant, "measured")
        taken = False
        try:
            with self.lock:
                self.line += (mine,)
            taken = self._taken(mine) is None
        finally:
            if not taken:
                self.release(mine)
        return mine if taken else None

    def _taken(self, mine: Reservation) -> Shortage | None:
        """Take what was asked for; else return what is lacking."""
        mine.seen = self._changes
        found = self._look() if mine.asked else {}  # not under the lock: it asks the driver
        with self.lock:
            short = self._shortage(mine, found)
            if short is None and self.first(mine):
                self.line = self._without(self.line, mine)
                self.held += (mine,)
                self._changed()  # for the next in line
                return None
            device = next(iter(mine.asked), TOTAL)
            return short or Shortage(device, mine.asked.get(device, 0), 0, None, self.taken(device), None)

    def _shortage(self, mine: Reservation, found: Mapping[str, Device]) -> Shortage | None:
        for device, asked in (*mine.asked.items(), (TOTAL, sum(mine.asked.values()))):
            limit, free = self.limit(device, found), self._free(device, found)
            taken = self.taken(device)
            left = [room for room in (None if limit is None else limit - taken, free) if room is not None]
            if asked and left and asked > min(left):
                return Shortage(device, asked, asked - min(left), limit, taken, free)
        return None

    def limit(self, device: str, found: Mapping[str, Device] | None = None) -> int | None:
        """Return how much may be taken of a device: its budget, else all there is of it."""
        if (budget := self.budgets.get(device)) is not None or device == TOTAL:
            return budget
        at = (self._look() if found is None else found).get(device)
        return None if at is None else at.total

    def _free(self, device: str, found: Mapping[str, Device]) -> int | None:
        """Return what a device could give now, without what is promised to loads under way."""
        at = found.get(device)
        if at is None or at.free is None:
            return None
        promised = sum([one.asked.get(device, 0) for one in self.held if one.storages is None])
        return max(0, at.free - promised)

    def taken(self, device: str = TOTAL) -> int:
        """Return how many bytes of a device, or of all, are reserved; what two share counts once."""
        held = self.held
        asked = sum([self._size(one, device) for one in held if one.storages is None])
        return asked + _on(device, _joined(held))

    def of_others(self, mine: Reservation | None = None) -> Storages:
        """Return what is in the books, but for one's own: weights that services share are in both."""
        return _joined([one for one in self.held if one is not mine])

    # -- whose turn it is --------------------------------------------------------------------------

    def first(self, mine: Reservation) -> bool:
        """Tell whether nobody in line before this one waits for the same memory."""
        return not self.before(mine)

    def before(self, mine: Reservation) -> tuple[Reservation, ...]:
        """Return those in line before this one that wait for the same memory."""
        line = self.line
        ahead = line[: line.index(mine)] if mine in line else ()
        one_budget = TOTAL in self.budgets
        return tuple([one for one in ahead if one_budget or one.asked.keys() & mine.asked.keys()])

    def let_pass(self, mine: Reservation) -> None:
        """Put one that waits first in line: whoever is before it waits for its owner to end."""
        with self.lock:
            if mine in self.line:
                self.line = (mine, *self._without(self.line, mine))
                self._changed()

    # -- who goes ----------------------------------------------------------------------------------

    def others(self, device: str) -> tuple[Reservation, ...]:
        """Return the reservations on a device."""
        return tuple([one for one in self.held if self._size(one, device)])

    def _refuse_hopeless(self, mine: Reservation, short: Shortage) -> None:
        """Raise when not even those that are in use now would free enough by going."""
        if short.limit is not None and short.asked > short.limit:
            raise self._refusal(mine, short, self._never(short.device, short.limit), can_change=False)
        there = self.others(short.device)
        go = [one for one in there if one.owner not in mine.beside]
        go = [one for one in go if one.tenant is not None and not one.tenant.stays()]
        could = self._frees(go, short.device)
        loading = any(one.storages is None and one.tenant is not None for one in there)  # it may fail
        if could < short.lacking and not loading and not self.before(mine):
            stay = [one.owner for one in there if one.tenant is None or one.tenant.stays()]
            names = ", ".join(dict.fromkeys(stay))
            why = f"{names} cannot go (critical, or reserved by hand)" if names else "so much is not free"
            if needed := [one.owner for one in there if one.owner in mine.beside]:
                why = f"it needs {', '.join(needed)}, which cannot go for it"
            raise self._refusal(mine, short, why)

    def refuse_never(
        self,
        owner: str,
        asked: Mapping[str, int],
        source: str,
        together: Mapping[str, int],
        needs: Sequence[str],
    ) -> None:
        """Raise where an owner does not fit `together` with what it needs, however empty it is."""
        mine = Reservation(self, owner, asked, None, source)
        mine.beside, found = needs, self._look()
        for device, size in (*together.items(), (TOTAL, sum(together.values()))):
            own = sum(asked.values()) if device == TOTAL else asked.get(device, 0)
            limit, taken = self.limit(device, found), self.taken(device)
            if limit is not None and size > limit:
                short = Shortage(device, own, size - limit, limit, taken, None)
                why = (
                    f"with {', '.join(needs)}, which it needs, {in_words(size)}; {self._never(device, limit)}"
                )
                raise self._refusal(mine, short, why, can_change=False)

    def _never(self, device: str, limit: int) -> str:
        bound = "the budget" if device in self.budgets else "all there is"
        return f"it can never fit: {in_words(limit)} is {bound}"

    def could(self, mine: Reservation) -> bool:
        """Tell whether there is room for one that waits, or would be if those went that nobody uses."""
        short = self._shortage(mine, self._look())
        if short is None:
            return True
        return sum(one.bytes for one, _ in self._idle(short.device, mine.owner)) >= short.lacking

    def _frees(self, gone: Sequence[Reservation], device: str) -> int:
        """Return how many bytes of a device are free once these have gone: not what others have, too."""
        stay = _joined([one for one in self.held if one not in gone])
        freed = {key: size for key, size in _joined(gone).items() if key not in stay}
        asked = sum(self._size(one, device) for one in gone if one.storages is None)
        return asked + _on(device, freed)

    def _idle(self, device: str, owner: str = "") -> list[tuple[Candidate, Tenant]]:
        """Return who could go from a device now, for an owner; what several share counts a part for each."""
        # Each read once: another thread may put in what is there by now, or take it out, as we look.
        there = [(one, one.storages) for one in self.held]
        owners = Counter(key for _, storages in there for key in storages or ())
        found = []
        for one, storages in there:
            size = self._size(one, device)
            if storages is not None:
                parts = {key: held // owners[key] for key, held in storages.items()}
                size = _on(device, parts)
            candidate = one.tenant.candidate(device, size) if size and one.tenant else None
            if candidate is not None and one.owner == owner:
                candidate = replace(candidate, priority=CRITICAL)  # its own parked copy goes last
            if candidate is not None and one.tenant is not None:
                found.append((candidate, one.tenant))
        return found

    def _evicted(self, mine: Reservation, short: Shortage, *, enough: bool = False) -> bool:
        """Let go of who nobody uses, as many as are needed; tell whether anybody went.

        With `enough`, nobody goes where all of them would not be.
        """
        now = self.clock()
        idle = {c.name: (c, tenant) for c, tenant in self._idle(short.device, mine.owner)}
        candidates = tuple([candidate for candidate, _ in idle.values()])
        # Where all of them are too few, others in use have to go as well once they end: then these first.
        going = self._chosen(candidates, short.lacking, now) or (() if enough else candidates)
        if not going:
            return False
        names = tuple([one.name for one in going])
        self._note(mine, "evicted", short, candidates, names, str(short))
        token = _GOING_FOR.set(mine)
        try:
            gone = [idle[name][1].evict(f"room for {mine.owner}") for name in names]
        finally:
            _GOING_FOR.reset(token)
        return any(gone)

    def _chosen(self, candidates: tuple[Candidate, ...], need: int, now: float) -> tuple[Candidate, ...]:
        """Return whom the policy lets go; where it raises, our own decides."""
        try:
            return choose(self.policy, candidates, need=need, now=now)
        except Exception as error:
            told = "the policy %s raised %s: %s; cost-rate decides instead"
            _log.warning(told, self._policy_name, type(error).__name__, error)
            return choose(cost_rate, candidates, need=need, now=now)

    def keep_within(self) -> None:
        """Let idle ones go until every budget is kept, as far as they are enough."""
        for device, limit in list(self.budgets.items()):
            if (over := self.taken(device) - limit) > 0:
                nobody = Reservation(self, "the budget", {}, None, "stated")
                self._evicted(nobody, Shortage(device, 0, over, limit, limit + over, None))
                self._over = self._over or self.taken(device) > limit  # once those in use are idle

    def make_room(self, owner: str, device: str, size: int) -> None:
        """Let idle ones go until so much of a device is free, as far as they are enough: for a call."""
        mine = Reservation(self, owner, {device: size}, None, "learned")
        short = self._shortage(mine, self._look())
        if short is not None and short.free is not None and short.free < size:
            self._give_back(device)
            short = self._shortage(mine, self._look())
        if short is not None:
            self._evicted(mine, short, enough=True)

    def note(self, owner: str, what: Step, sizes: Mapping[str, int], why: str) -> None:
        """Take down what was decided elsewhere: no policy had a part in it."""
        for device, size in sizes.items():
            self.decisions.append(
                Decision(self.clock(), owner, what, device, size, 0, self._policy_name, (), (), why)
            )

    def free_idle(self, device: str, owner: str, why: str = "") -> tuple[str, ...]:
        """Let all go that nobody uses on a device, for an owner that ran out of it; return who went."""
        now = self.clock()
        idle = self._idle(device, owner)
        names = tuple([candidate.name for candidate, _ in idle])
        policy, candidates = self._policy_name, tuple([candidate for candidate, _ in idle])
        why = why or f"{owner} ran out of memory on {device}"
        if names:
            self.decisions.append(
                Decision(now, owner, "evicted", device, 0, 0, policy, candidates, names, why)
            )
        return tuple([candidate.name for candidate, tenant in idle if tenant.evict(why)])

    @property
    def _policy_name(self) -> str:
        return getattr(self.policy, "__name__", str(self.policy))

    @staticmethod
    def _size(one: Reservation, device: str) -> int:
        return sum(one.sizes.values()) if device == TOTAL else one.sizes.get(device, 0)

    # -- out ---------------------------------------------------------------------------------------

    def measured(self, mine: Reservation, storages: Storages) -> None:
        """Put what is really there in the place of what was asked for; where it is more, others go for it."""
        with self.lock:
            mine.storages = dict(storages)
            self._changed()
        for device in (*total(storages), TOTAL):
            limit, taken = self.budgets.get(device), self.taken(device)
            if limit is not None and taken > limit:
                size = self._size(mine, device)
                self._evicted(mine, Shortage(device, size, taken - limit, limit, taken - size, None))
                self._say_if_over(mine, device, f"expected: {mine.source}")

    def _say_if_over(self, mine: Reservation, device: str, why: str) -> None:
        """Say by whom a budget is not kept; idle ones go once somebody ends, see `wake`."""
        limit, taken = self.budgets.get(device), self.taken(device)
        if limit is None or taken <= limit:
            return
        self._over = True
        size = self._size(mine, device)
        self._note(mine, "over", Shortage(device, size, taken - limit, limit, taken - size, None), why=why)
        told = "%s takes %s: %s of the budget of %s are taken; what nobody uses goes"
        _log.warning(told, mine.owner, *map(in_words, (size, taken, limit)))

    def look_again(self, *, handed_out: bool = False) -> None:
        """Take in what those hold by now that nobody uses: weights may have been replaced since."""
        for one in self.held:
            self.look_at(one, handed_out=handed_out)

    def look_at(self, one: Reservation, *, handed_out: bool = False) -> None:
        """Take in what one holds by now, if nobody uses it: the look takes a while, and no lock."""
        there = None if one.storages is None else one.tenant
        now = None if there is None else there.holds(handed_out=handed_out)
        if now is None or now == one.storages:
            return
        kept = [device for device, limit in self.budgets.items() if self.taken(device) <= limit]
        with self.lock:
            one.storages = now
            self._changed()
        for device in kept:  # one that was not is said already
            self._say_if_over(one, device, "it holds more than after its load")
        self.wake()

    def release(self, mine: Reservation) -> None:
        """Take a reservation out, or out of the line."""
        with self.lock:
            self.held = self._without(self.held, mine)
            self.line = self._without(self.line, mine)
            self._changed()

    def wake(self) -> None:
        """Let all who wait look again: somebody may go now."""
        if self.line:
            with self.lock:
                self._changed()
        if self._over and self.later is not None:
            self._over = False
            self.later(self.keep_within)

    def changed(self, mine: Reservation) -> bool:
        """Tell whether anything has changed since a reservation was last looked at."""
        return self._changes != mine.seen

    def _changed(self) -> None:
        self._changes += 1
        self.condition.notify_all()

    @staticmethod
    def _without(all: tuple[Reservation, ...], mine: Reservation) -> tuple[Reservation, ...]:
        return tuple([one for one in all if one is not mine])

    # -- about it ----------------------------------------------------------------------------------

    def holders(self, device: str) -> str:
        """Say who has how much of a device, the most first."""
        sizes = {one.owner: self._size(one, device) for one in self.others(device)}
        told = [f"{owner} {in_words(sizes[owner])}" for owner in sorted(sizes, key=lambda o: -sizes[o])]
        return ", ".join(told) or "nothing by services"

    def _refusal(
        self, mine: Reservation, short: Shortage, why: str, *, can_change: bool = True
    ) -> ResourceExhausted:
        self._note(mine, "refused", short, why=why)
        free = "" if short.free is None else f"; {in_words(short.free)} free on the device"
        known = (
            "" if mine.source in ("stated", "measured before") else f"; its size is known from {mine.source}"
        )
        of = "" if short.device == TOTAL else f" of {short.device}"
        ways = [] if short.device not in self.budgets else [raise_the_budget()]
        fits = can_change and (short.limit is None or short.asked <= short.limit)
        there = [one for one in self.others(short.device) if one.owner not in mine.beside]
        if fits and any(one.tenant is not None for one in there):
            shown = way("%grym mem", "grym.current().resources.memory()")
            ways.insert(0, f"unload one ({shown} shows who holds what)")
        elif fits and there:
            ways.insert(0, "release what is reserved by hand")
        if known:
            ways.append(f'say memory="..." where {mine.owner} is registered, if it takes less')
        if not short.taken and short.limit is not None and fits:
            ways.insert(0, "let go of variables that hold much: services have nothing there")
        error = ResourceExhausted(
            f"{mine.owner} needs {in_words(short.asked)}{of}: {why}",
            cause=f"taken: {self.holders(short.device)}{free}{known}",
            hint=", or ".join(ways) or "a smaller one may fit: in another dtype, or on another device",
            service=mine.owner,
            limit=short.limit,
            use=short.taken,
        )
        error.can_change = can_change
        return error

    def _note(
        self,
        mine: Reservation,
        what: Step,
        short: Shortage,
        candidates: tuple[Candidate, ...] = (),
        chosen: tuple[str, ...] = (),
        why: str = "",
    ) -> None:
        self.decisions.append(
            Decision(
                *(self.clock(), mine.owner, what, short.device, short.asked, short.lacking),
                *(self._policy_name, candidates, chosen, why),
            )
        )


def _joined(reservations: Sequence[Reservation]) -> Storages:
    """Return what several have, each storage once."""
    return {key: size for one in reservations for key, size in (one.storages or {}).items()}


def _on(device: str, storages: Storages) -> int:
    """Return how many bytes of them are on a device, or on all."""
    return sum(storages.values()) if device == TOTAL else total(storages).get(device, 0)
