"""What the books say: how much of each device is taken and by whom, and why somebody went, as tables."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grym_nb.devices import Device, memory_limit, process_memory
from grym_nb.hardening.holders import way
from grym_nb.hardening.reservations import TOTAL
from grym_nb.hardening.storages import total
from grym_nb.render import Table, seconds
from grym_nb.render import size as in_words

if TYPE_CHECKING:
    from grym_nb.hardening.eviction import Candidate
    from grym_nb.hardening.ledger import Ledger
    from grym_nb.hardening.reservations import Decision, Reservation

__all__ = ["Account", "Accounts", "Memory", "accounts_of", "decisions_table", "process_in_words"]


@dataclass(frozen=True, slots=True)
class Account:
    """What one owner has of one device."""

    owner: str
    device: str
    size: int
    asked: int | None  # before it was there
    source: str  # how that was known
    measured: bool
    state: str
    shared: int = 0  # of it, with others: in all it counts once

    @property
    def error(self) -> float | None:
        """By which share the prediction was wrong; None where there was none, or nothing is measured."""
        if not self.measured or not self.asked or not self.size:
            return None
        return self.asked / self.size - 1.0

    def row(self) -> tuple[str, ...]:
        """Return it as a line of a table."""
        told = self.source if self.asked is None else f"{in_words(self.asked)}, {self.source}"
        wrong = "" if self.error is None or abs(self.error) < 0.005 else f" ({self.error:+.0%})"
        shared = f" ({in_words(self.shared)} shared)" if self.shared else ""
        return self.owner, self.device, f"{in_words(self.size)}{shared}", f"{told}{wrong}", self.state


@dataclass(frozen=True, slots=True)
class Memory:
    """One device's memory: None where nobody can say."""

    device: str
    total: int | None
    budget: int | None
    taken: int  # by services, and what was reserved by hand
    free: int | None

    @property
    def others(self) -> int | None:
        """What is neither free nor ours: of neighbours on the card, or of all else that runs."""
        if self.total is None or self.free is None:
            return None
        return max(0, self.total - self.free - self.taken)

    def row(self) -> tuple[str, ...]:
        """Return it as a line of a table."""
        bound = self.total if self.budget is None else self.budget
        used = f"{in_words(self.taken)} ({self.taken / bound:.0%})" if bound else in_words(self.taken)
        told = map(in_words, (self.others, self.free))
        return self.device, in_words(self.total), in_words(self.budget), used, *told


@dataclass(frozen=True, slots=True, repr=False)
class Accounts:
    """Who has what of which device, at one moment."""

    devices: tuple[Memory, ...]
    holders: tuple[Account, ...]
    line: tuple[tuple[str, str, str], ...] = ()  # who waits for how much of it, and for whom
    notes: tuple[str, ...] = ()  # about all of it
    more: tuple[Table, ...] = ()  # what was learned of it, and what is still there of what is over

    @property
    def title(self) -> str:
        """The notes in a line."""
        return " · ".join(self.notes)

    def tables(self) -> Sequence[Table]:
        """Return all of it as tables, the devices and the holders first."""
        devices = Table(
            "memory",
            ("device", "in all", "budget", "taken", "all else", "free"),
            [memory.row() for memory in self.devices],
        )
        holders = Table(
            "who has it", ("who", "device", "has", "expected", "state"), [one.row() for one in self.holders]
        )
        line = Table("in line for it", ("who", "waits for", "since it lacks"), list(self.line))
        return [devices, *(table for table in (holders, line, *self.more) if table.rows)]

    def __repr__(self) -> str:
        return "\n\n".join(filter(None, [self.title, *(table.text() for table in self.tables())]))

    def _repr_html_(self) -> str:
        title = f"<p><b>{html.escape(self.title)}</b></p>" if self.notes else ""
        return title + "".join(table.html() for table in self.tables())


def accounts_of(ledger: Ledger, found: Mapping[str, Device]) -> Accounts:
    """Return what the books say now; the largest holder of each device first."""
    held = ledger.held  # as of one moment
    taken = {device for one in held for device in one.sizes}
    names = [*found, *sorted((taken | ledger.budgets.keys()) - found.keys() - {TOTAL})]
    devices = [_memory(ledger, name, found.get(name)) for name in names]
    if (budget := ledger.budgets.get(TOTAL)) is not None:
        devices.append(Memory(TOTAL, None, budget, ledger.taken(), None))
    owners = Counter(key for one in held for key in one.storages or ())
    holders = [account for one in held for account in _accounts(one, owners) if account.device in names]
    holders.sort(key=lambda account: (names.index(account.device), -account.size, account.owner))
    return Accounts(tuple(devices), tuple(holders), tuple(_in_line(one) for one in ledger.line))


def _in_line(one: Reservation) -> tuple[str, str, str]:
    asked = ", ".join(f"{in_words(size)} of {device}" for device, size in one.asked.items())
    return one.owner, asked, str(one.room or "")


def _memory(ledger: Ledger, name: str, device: Device | None) -> Memory:
    total, free = (None, None) if device is None else (device.total, device.free)
    return Memory(name, total, ledger.budgets.get(name), ledger.taken(name), free)


def _accounts(one: Reservation, owners: Mapping[tuple[str, int], int]) -> list[Account]:
    state = one.tenant.state if one.tenant is not None else "by hand"
    measured = one.storages is not None
    shared = total({key: size for key, size in (one.storages or {}).items() if owners[key] > 1})
    return [
        Account(
            one.owner, device, size, one.asked.get(device), one.source, measured, state, shared.get(device, 0)
        )
        for device, size in one.sizes.items()
    ]


def process_in_words() -> str:
    """Say what this process has, and what it may have."""
    held, limit = process_memory(), memory_limit()
    told = f"this {way('kernel', 'process')} has {in_words(held.rss)}"
    if held.anonymous is not None:
        told += f", {in_words(held.anonymous)} of it its own"
    return told if limit is None else f"{told}; {limit.source} lets it have {in_words(limit.size)}"


def decisions_table(decisions: Sequence[Decision], now: float) -> Table:
    """Return what was decided about room, the last first, with what spoke for it."""
    rows = []
    for one in reversed(decisions):
        judged = sorted(one.candidates, key=lambda candidate: candidate.name not in one.chosen)
        told = ", ".join([_judged(candidate, one.at) for candidate in judged[:4]])
        more = f", and {len(judged) - 4} more" if len(judged) > 4 else ""
        went = f": {', '.join(one.chosen)}" if one.chosen else ""
        by = one.policy if one.candidates else ""
        rows.append(
            (f"{seconds(now - one.at)} ago", one.owner, f"{one.what}{went}", one.why, by, told + more)
        )
    return Table("who went, and why", ("when", "for", "what", "since", "by", "who could have gone"), rows)


def _judged(candidate: Candidate, at: float) -> str:
    idle, back = seconds(at - candidate.last_used), seconds(candidate.load_seconds)
    return f"{candidate.name} {in_words(candidate.bytes)}, idle for {idle}, back in {back}"
