"""What stands in the books of memory: who has how much of what, what is lacking, and what was decided."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeAlias

from grym_nb.hardening.eviction import Candidate
from grym_nb.hardening.storages import Storages, total
from grym_nb.render import size as in_words

if TYPE_CHECKING:
    from grym_nb.hardening.ledger import Ledger

__all__ = ["TOTAL", "Decision", "Reservation", "Shortage", "Step", "Tenant"]

TOTAL = "total"  # the budget of all devices together
#: what became of somebody: had room, or had others go for it; waited, was refused, took more than the budget;
#: went as nobody used it; was given less at a time
Step: TypeAlias = Literal["admitted", "evicted", "waits", "refused", "over", "idle", "parted"]


class Tenant(Protocol):
    """Who has a reservation and could go: a service."""

    @property
    def state(self) -> str:
        """What it does now, in a few words."""

    def candidate(self, device: str, size: int) -> Candidate | None:
        """Return what a policy judges it by; None while it is in use, or is to stay."""

    def stays(self) -> bool:
        """Tell whether it is never to go for others."""

    def busy(self) -> Sequence[Any]:
        """Return the calls that keep it from going, and end by themselves."""

    def evict(self, reason: str) -> bool:
        """Let go of what it holds, unless it is in use by now; tell whether it did."""

    def holds(self, *, handed_out: bool) -> Storages | None:
        """Return what it really holds by now; None while that cannot be looked at, or is as it was.

        With `handed_out`, only of what somebody had in hands since: to look takes a while.
        """


@dataclass(frozen=True, slots=True)
class Shortage:
    """What is lacking for a reservation."""

    device: str
    asked: int
    lacking: int
    limit: int | None  # of the device, or of all; None: nobody set one, and the device does not tell
    taken: int  # by reservations
    free: int | None  # of the device, as it tells itself

    def __str__(self) -> str:
        told = [f"{in_words(self.asked)} of {self.device} asked for"]
        if self.limit is not None:
            told.append(f"{in_words(self.taken)} of {in_words(self.limit)} taken")
        if self.free is not None:
            told.append(f"{in_words(self.free)} free on it")
        return ", ".join(told)


@dataclass(frozen=True, slots=True)
class Decision:
    """One step by which room was made, or not, with all that it was decided by: it can be replayed."""

    at: float
    owner: str  # for whom
    what: Step
    device: str
    asked: int
    lacking: int
    policy: str
    candidates: tuple[Candidate, ...]
    chosen: tuple[str, ...]
    why: str


class Reservation:
    """Bytes that are their owner's, by device, until released; a context manager."""

    __slots__ = ("_ledger", "asked", "beside", "owner", "room", "seen", "source", "storages", "tenant")

    def __init__(
        self, ledger: Ledger, owner: str, asked: Mapping[str, int], tenant: Tenant | None, source: str
    ) -> None:
        self._ledger = ledger
        self.owner = owner
        self.asked = dict(asked)  # by device, as predicted
        self.source = source  # how it was known: stated, files, measured before, ...
        self.tenant = tenant
        self.storages: Storages | None = None  # once it is there
        self.beside: Collection[str] = ()  # owners of what is held for this one
        self.seen = 0  # which of the ledger's changes its owner knows
        self.room: object = None  # while it waits: what its owner waits for, in words

    @property
    def sizes(self) -> dict[str, int]:
        """How many bytes it takes on each device: as measured, else as asked for."""
        return dict(self.asked) if self.storages is None else total(self.storages)

    @property
    def size(self) -> int:
        """How many bytes that is on all devices together."""
        return sum(self.sizes.values())

    def measured(self, storages: Storages) -> None:
        """Replace what was asked for by what is really there."""
        self._ledger.measured(self, storages)

    def release(self) -> None:
        """Give it back, or leave the line for it; does nothing twice."""
        self._ledger.release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __repr__(self) -> str:
        sizes = ", ".join(f"{in_words(size)} of {device}" for device, size in self.sizes.items())
        return f"<Reservation of {self.owner}: {sizes or 'nothing'} ({self.source})>"
