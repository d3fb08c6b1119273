"""What recovery did: the last attempts at all services, and how they look."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from grym_nb.events import RecoveryEnded, RecoveryGaveUp, RecoveryRests
from grym_nb.render import Table, seconds

if TYPE_CHECKING:
    from grym_nb.clock import Clock
    from grym_nb.health.trial import Outcome, Trial

__all__ = ["Story", "Told", "in_words"]

#: what is said of a service that is being mended
Told = RecoveryEnded | RecoveryRests | RecoveryGaveUp

_LENGTH = 200  # attempts kept, of all services together
_SHOWN = 20
_HELPED: Mapping[bool | None, str] = {True: "yes", False: "no", None: "unproven"}


class Story:
    """The last attempts, and who was left as failed, or to itself, after them; the oldest go first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told: deque[Told] = deque(maxlen=_LENGTH)

    def add(self, event: Told) -> None:
        """Take one down."""
        self._told.append(event)

    def of(self, name: str | None) -> tuple[Told, ...]:
        """Return those of one service, or of all, oldest first."""
        return tuple(one for one in tuple(self._told) if name in (None, one.service))

    def table(self, name: str | None, trials: Iterable[Trial]) -> Table:
        """Return them as a table, newest first, after the steps whose outcome is not known yet."""
        columns = ("service", "when", "step", "helped", "why")
        rows = [self._trial_row(one) for one in trials if name in (None, one.record.name)]
        rows += [self._row(one) for one in self.of(name)[: -_SHOWN - 1 : -1]]
        return Table("what recovery did", columns, rows, "nothing had to be mended")

    def _row(self, one: Told) -> tuple[str, ...]:
        when = f"{seconds(self._clock() - one.at)} ago"
        if isinstance(one, RecoveryRests):
            return (one.service, when, f"left to itself for {seconds(one.seconds)}", "", one.reason)
        if isinstance(one, RecoveryGaveUp):
            return (one.service, when, "left as failed", "", f"{one.reason}; {one.hint}")
        return (one.service, when, one.step, _HELPED[one.helped], one.reason)

    def _trial_row(self, one: Trial) -> tuple[str, ...]:
        when = f"{seconds(self._clock() - one.since)} ago"
        return (one.record.name, when, one.step, "on trial", one.reason)


def in_words(outcome: Outcome, reason: str, shown: str) -> str:
    """Say what a step did, for which reason it was taken, and how that has shown, if it has."""
    why = f"{reason}; {shown}" if shown else reason
    return {
        "helped": f"has mended it; it was because of {why}",
        "failed": f"did not help: {why}",
        "unproven": f"is unproven: {shown}; it was because of {reason}",
    }[outcome]
