"""What there is to share, and whose turn it is: devices, leased to one owner at a time.

>>> pool = ResourcePool()
>>> card = pool.declare("card:0")
>>> with pool.lease("card:0", owner="asr"):
...     pool["card:0"].status
'busy'
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from grym_nb.clock import Clock, monotonic, wait
from grym_nb.devices import Device, devices
from grym_nb.errors import CallTimeout, ConfigError, Problem, closest, says_what_it_takes
from grym_nb.hardening.accounts import Accounts, accounts_of, process_in_words
from grym_nb.hardening.eviction import POLICIES, Policy
from grym_nb.hardening.holders import way
from grym_nb.hardening.leases import Lease, Place
from grym_nb.hardening.ledger import Ledger
from grym_nb.hardening.leftovers import Freed, Leftovers
from grym_nb.hardening.policy import FLAG, SECONDS, or_none
from grym_nb.hardening.pressure import REFUSED_FROM, WARNED_FROM, Pressure, pressure
from grym_nb.hardening.reservations import TOTAL, Decision, Reservation, Shortage
from grym_nb.hardening.returning import give_back
from grym_nb.priority import priority_of
from grym_nb.render import Table, brief
from grym_nb.render import seconds as in_words
from grym_nb.render import size as in_words_of
from grym_nb.sizes import Sizes, parse_size, sizes_of

__all__ = ["Resource", "ResourcePool", "budgets_of", "canonical"]

_log = logging.getLogger(__name__)
_AGEING_SECONDS = 10.0
#: devices that may be there on another machine, or once torch is imported
_USUAL = re.compile(rf"{TOTAL}|cpu|mps|cuda:[0-9]+")


def canonical(device: object) -> str:
    """Return the name of a device as it stands in tables: of several cards, "cuda" is the first."""
    name = str(device).strip()
    return f"{name}:0" if name == "cuda" else name


def budgets_of(memory: Sizes) -> dict[str, int]:
    """Return budgets by device as it stands in tables; raises where one device is given two."""
    budgets: dict[str, int] = {}
    problems = []
    for device, size in sizes_of(memory).items():
        if (name := canonical(device)) in budgets:
            problems.append(
                Problem(device, in_words_of(size), f"one budget for {name}, which has one already")
            )
        budgets[name] = size
    if problems:
        raise ConfigError("memory cannot be divided so", problems=problems)
    return budgets


def _policy(eviction: str | Policy) -> Policy:
    """Return a policy by its name, or the function itself."""
    if callable(eviction):
        return eviction
    if eviction not in POLICIES:
        near = closest(str(eviction), POLICIES)
        expected = f"{', '.join(POLICIES)}, or f(candidate, now) -> what it is worth to keep.{near}"
        raise ConfigError("a pool cannot work so", problems=[Problem("eviction", brief(eviction), expected)])
    return POLICIES[eviction]


def _shown() -> str:
    return way("%grym mem", "grym.current().resources.memory()")


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_size(value: Any) -> bool:
    """Tell whether that is a size, or not said."""
    try:
        return value is None or parse_size(value) >= 0
    except ConfigError:
        return False


@dataclass(frozen=True, slots=True, repr=False)
class Resource:
    """One thing that can be leased, as it is now. Times are seconds of the pool's clock."""

    id: str
    type: str  # cpu, cuda, mps, or what was declared
    status: Literal["ready", "busy", "unavailable"]
    metadata: Mapping[str, Any]
    created: float
    last_used: float | None
    held_by: tuple[str, ...]  # the owners of its leases
    waiting: int
    leases: int  # so far
    used_seconds: float  # in which somebody had it
    waited_seconds: float  # of all who got it, or gave up
    longest_wait: float
    efficiency: float  # the part of the time since it is known in which somebody had it

    def __repr__(self) -> str:
        held = f", held by {', '.join(self.held_by)}" if self.held_by else ""
        return f"<Resource {self.id}: {self.status}{held}, {self.waiting} waiting>"

    def row(self) -> tuple[str, ...]:
        """Return it as a line of a table."""
        mean = self.waited_seconds / max(self.leases, 1)
        waited = f"{in_words(mean)} (longest {in_words(self.longest_wait)})"
        return (
            self.id,
            self.status,
            ", ".join(self.held_by) or "-",
            str(self.waiting),
            str(self.leases),
            f"{in_words(self.used_seconds)} ({self.efficiency:.0%})" if self.leases else "-",
            waited if self.leases else "-",
        )


class ResourcePool:
    """Devices, found or declared, and their leases.

    A lease of an accelerator is exclusive unless it says otherwise: whoever else asks waits in line, the
    highest priority first, and `ageing_seconds` in line are worth one step of priority. For any thread.
    """

    @says_what_it_takes
    def __init__(
        self,
        *,
        clock: Clock | None = None,
        ageing_seconds: float = _AGEING_SECONDS,
        memory: Sizes = None,
        eviction: str | Policy = "cost-rate",
    ) -> None:
        if not SECONDS.fits(ageing_seconds):
            problem = Problem("ageing_seconds", brief(ageing_seconds), SECONDS.words)
            raise ConfigError("a pool cannot work so", problems=[problem])
        policy = _policy(eviction)
        self._clock: Clock = clock or monotonic
        self._ageing = ageing_seconds
        self._lock = threading.Lock()
        self._places: dict[str, Place] = {}
        #: who has taken what of their memory
        self.ledger = Ledger(look=self._memories, give_back=give_back, clock=self._clock, policy=policy)
        self.ledger.budgets = budgets_of(memory)
        #: what is still there of what was let go of
        self.leftovers = Leftovers(self.ledger.of_others, self._clock)
        #: what else its report on memory tells: of whoever wires it
        self.more: Callable[[], Iterable[Table | str]] = tuple
        #: how near the process is to what it may have, and whether that was said
        self.pressure: Callable[[], Pressure] = pressure
        self.warned = 0  # of the two limits of `pressure`, how many it is said to be beyond

    # -- what there is -----------------------------------------------------------------------------

    @says_what_it_takes
    def declare(self, id: str, *, type: str = "device", **metadata: Any) -> Resource:
        """Add a device that cannot be found by itself, or make one that was withdrawn available again."""
        names = (("id", id, "a name such as 'npu:0'"), ("type", type, "a kind such as 'npu'"))
        problems = [Problem(name, brief(value), like) for name, value, like in names if not _is_name(value)]
        if not _is_size(metadata.get("total")):  # else whoever looks at the devices next would be told
            problems.append(Problem("total", brief(metadata["total"]), "a size such as '16GB', or None"))
        if problems:
            raise ConfigError("this is no device", problems=problems)
        place = self._add(canonical(id), type, metadata)
        place.unavailable = ""
        return self._resource(place)

    @says_what_it_takes
    def withdraw(self, id: str, reason: str = "withdrawn") -> Resource:
        """Let no new lease of a device begin, until it is declared again; those that wait for it raise."""
        place = self.place(id)
        place.withdraw(reason)
        return self._resource(place)

    def find(self, id: object) -> Place | None:
        """Return the line in front of a device, if there is such a device."""
        name = canonical(id)
        if name not in self._places:
            self._look()
        return self._places.get(name)

    def place(self, id: object) -> Place:
        """Return the line in front of a device; an unknown one is told with the closest."""
        found = self.find(id)
        if found is None:
            name, known = canonical(id), sorted(self._places)
            raise ConfigError(
                f"there is no device {name!r}.{closest(name, known)}",
                hint=f"there are {', '.join(known)}; or grym.current().resources.declare({name!r})",
            )
        return found

    def _look(self) -> tuple[Device, ...]:
        """Take in the devices that are found by now: torch tells of its own once it is imported."""
        found = devices()
        for device in found:
            self._add(device.name, device.kind, {})
        return found

    def _memories(self) -> Mapping[str, Device]:
        """Return how much memory there is, and is free, by device; of a declared one as it was declared."""
        found = {device.name: device for device in self._look()}
        for place in list(self._places.values()):
            if place.id not in found and (total := place.metadata.get("total")) is not None:
                found[place.id] = Device(place.id, "cpu", parse_size(total), None, "declared")
        return found

    def _add(self, id: str, kind: str, metadata: Mapping[str, Any]) -> Place:
        with self._lock:
            place = self._places.get(id)
            if place is None:
                place = self._places[id] = Place(id, kind, self._clock, self._ageing)
        if metadata:
            place.metadata = dict(metadata)
        return place

    def __getitem__(self, id: str) -> Resource:
        return self._resource(self.place(id))

    def __iter__(self) -> Iterator[Resource]:
        return iter(self.resources())

    def resources(self) -> tuple[Resource, ...]:
        """Return everything that is known, as it is now."""
        found = self._look()
        return tuple(self._resource(place, found) for place in list(self._places.values()))

    def _resource(self, place: Place, found: tuple[Device, ...] | None = None) -> Resource:
        figures = place.figures()
        told: dict[str, Any] = dict(place.metadata)
        for device in devices() if found is None else found:
            if device.name == place.id:
                told |= {"total": device.total, "free": device.free, "description": device.description}
        status: Literal["ready", "busy", "unavailable"] = "busy" if figures.held_by else "ready"
        return Resource(
            place.id,
            place.kind,
            "unavailable" if place.unavailable else status,
            told,
            place.created,
            **figures._asdict(),
            efficiency=min(1.0, figures.used_seconds / max(self._clock() - place.created, 1e-9)),
        )

    # -- whose turn it is --------------------------------------------------------------------------

    @says_what_it_takes
    def lease(
        self,
        id: str,
        *,
        owner: str,
        priority: str | int = "normal",
        timeout: float | None = None,
        exclusive: bool | None = None,
        seconds: float | None = None,
    ) -> Lease:
        """Wait until a device is yours, and return the lease: `release` it, or use it in a ``with``.

        Leases of one owner go together. `timeout` is how long to wait, `seconds` for how long you have it at
        most. `exclusive` is True for accelerators unless you say otherwise.
        """
        place = self.place(id)
        given = {"timeout": timeout, "seconds": seconds}
        problems = [
            Problem(name, brief(value), f"{SECONDS.words}, or None")
            for name, value in given.items()
            if not or_none(SECONDS).fits(value)
        ]
        if not _is_name(owner):
            problems.append(Problem("owner", brief(owner), "a name, by which others are told who has it"))
        if exclusive is not None and not FLAG.fits(exclusive):
            problems.append(Problem("exclusive", brief(exclusive), "True, False or None"))
        if problems:
            raise ConfigError(f"{place.id} cannot be leased so", problems=problems)
        lease = Lease(place, owner, priority=priority_of(priority), exclusive=exclusive, seconds=seconds)
        if not place.ask(lease):
            deadline = None if timeout is None else self._clock() + timeout

            def check() -> float | None:
                if deadline is not None and self._clock() >= deadline:
                    raise CallTimeout(
                        f"{owner} did not get {place.id} within {in_words(timeout)}",
                        cause=place.in_the_way(lease),
                        hint="wait longer, or let its owner release it",
                    )
                return deadline

            place.wait(lease, check)
        lease.thread = threading.current_thread()
        return lease

    @says_what_it_takes
    def revoke(self, id: str, *, owner: str) -> Resource:
        """End the leases of an owner who cannot give them back any more, or whom nobody remembers."""
        place = self.place(id)
        place.revoke(owner)
        return self._resource(place)

    def end_group(self, group: object) -> None:
        """End all leases of a group, on whatever device: of an instance that is let go of while it runs."""
        for place in list(self._places.values()):
            place.revoke(group)

    # -- how much of it is whose -------------------------------------------------------------------

    @says_what_it_takes
    def budget(self, memory: Sizes) -> Accounts:
        """Set how much services may take: "4GB" in all, {"cuda:0": "20GB"} by device, None for all there is.

        Those that nobody uses go at once where it is less than they have.
        """
        budgets = budgets_of(memory)
        self.check_devices(budgets)
        self.ledger.budgets = budgets
        self.ledger.keep_within()
        self.ledger.wake()
        return self.memory()

    def check_devices(self, budgets: Mapping[str, int]) -> None:
        """Raise where a budget is for a device that nobody knows: it would bind nothing."""
        for device in budgets:
            if _USUAL.fullmatch(device) is None:
                self.place(device)

    @says_what_it_takes
    def reserve(self, id: str, size: str | int, *, owner: str, timeout: float | None = None) -> Reservation:
        """Return room on a device for what you make by hand: `release` it, or use it in a ``with``.

        Services that nobody uses go for it; `timeout` is how long to wait for those in use.
        """
        place = self.place(id)
        if not _is_name(owner):
            problem = Problem("owner", brief(owner), "a name, by which others are told who has it")
            raise ConfigError(f"nothing of {place.id} can be reserved so", problems=[problem])
        if not or_none(SECONDS).fits(timeout):
            problem = Problem("timeout", brief(timeout), f"{SECONDS.words}, or None")
            raise ConfigError(f"nothing of {place.id} can be reserved so", problems=[problem])
        deadline = None if timeout is None else self._clock() + timeout
        ledger = self.ledger

        def wait_here(mine: Reservation, short: Shortage) -> None:
            if deadline is not None and self._clock() >= deadline:
                wanted = f"{in_words_of(short.asked)} of {place.id}"
                raise CallTimeout(
                    f"{owner} did not get {wanted} within {in_words(timeout)}",
                    cause=f"taken: {ledger.holders(short.device)}",
                    hint=f"wait longer, or unload one of them: {_shown()}",
                )
            with ledger.waiting(mine, short), ledger.lock:
                if not ledger.changed(mine):
                    wait(self._clock, ledger.condition, deadline)

        return ledger.reserve(owner, {place.id: parse_size(size)}, wait=wait_here)

    def memory(self) -> Accounts:
        """Return who has what, what was learned of it, and who holds what is over: what `%grym mem` shows."""
        left, more = self.leftovers.table(), tuple(self.more())  # the first gives back what nobody holds
        notes = [process_in_words(), *(one for one in more if isinstance(one, str)), *self.leftovers.notes()]
        tables = (*(one for one in more if isinstance(one, Table)), left)
        return replace(self.books(), notes=tuple(notes), more=tables)

    def books(self) -> Accounts:
        """Return how much of each device is taken, and by whom: no more than that, and at once."""
        self.ledger.look_again()
        return accounts_of(self.ledger, self._memories())

    def free(self) -> Freed:
        """Let go of what is not yours of what is over, and give all that is free back to the system.

        Not yours are tracebacks, and in a notebook its outputs.
        """
        return self.leftovers.free()

    def look(self) -> Pressure:
        """Return how near the process is to its limit; that it is near is said, once until it has fallen."""
        self.leftovers.look()
        now = self.pressure()
        step = (now.share >= WARNED_FROM) + (now.share >= REFUSED_FROM)
        if step > self.warned:
            nothing = "; idle services go before any is loaded" if step == 2 else ""
            told = "memory is running out: %s%s; %s shows who has it"
            _log.warning(told, now, nothing, _shown())
        if step > self.warned or not step:
            self.warned = step
        return now

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """Who went for whom, who waited and who was refused, with all that it was decided by."""
        return tuple(self.ledger.decisions.copy())

    # -- about it ----------------------------------------------------------------------------------

    def table(self) -> Table:
        """Return all of it as a table."""
        columns = ("device", "status", "held by", "waiting", "leases", "used", "wait")
        return Table("devices", columns, [resource.row() for resource in self.resources()])

    def __repr__(self) -> str:
        return self.table().text()

    def _repr_html_(self) -> str:
        return self.table().html()
