"""What is known of a service that is being mended: what comes next, and what its budget allows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from grym_nb.render import count, seconds

if TYPE_CHECKING:
    from grym_nb.health.remedies import RecoveryPolicy
    from grym_nb.health.trial import Trial
    from grym_nb.services.record import ServiceRecord

__all__ = ["Case", "Turn"]


@dataclass(slots=True)
class Case:
    """One service that is being mended, or was lately."""

    #: the attempt under way; another one after each, so that one that was written off is not heard any more
    turn: Turn | None = None
    began: float = 0.0
    at: int = 0  # the step that comes next
    pause: float = 0.0
    mended: float | None = None  # when it was, the last time, or may have been
    failed: int = 0  # attempts in a row
    failures: deque[float] = field(default_factory=deque)  # when attempts failed, within the budget's time
    attempts: deque[float] = field(default_factory=deque)  # the same for all of them
    spent: bool = False  # its budget, which was said
    alone: float | None = None  # since when it is left to itself, after failures in a row
    trial: Trial | None = None  # the last step, as long as its calls have not shown what it did
    left: tuple[str, int] = ("", 0)  # its state, and how often it was loaded, after the last attempt
    known: tuple[int, int] = (0, 0)  # the versions of code and config then
    waiting: list[Callable[[], None]] = field(default_factory=list)  # who goes on when this is over

    @property
    def runs(self) -> bool:
        """Whether it is being mended."""
        return self.turn is not None

    def due(self, record: ServiceRecord, policy: RecoveryPolicy, now: float) -> bool:
        """Make it ready to begin; False where its budget is spent, and nobody has loaded it since."""
        known = (record.code_version, record.config_version)
        rests = self.alone is not None and now - self.alone <= policy.budget_seconds
        if record.loads != self.left[1] or known != self.known:
            self.failures.clear()
            self.attempts.clear()
        elif rests or _lately(self.attempts, now - policy.budget_seconds) >= policy.budget:
            return False
        self.left, self.known, self.alone = (record.lifecycle.state, record.loads), known, None
        self.began, self.pause, self.failed = now, policy.pause, 0
        relapsed = self.mended is not None and now - self.mended <= policy.relapse_seconds
        self.at = min(self.at + 1, len(policy.steps) - 1) if relapsed else 0
        return True

    def rests(self, policy: RecoveryPolicy, now: float) -> float:
        """Return for how long nothing more is tried, now that the budget is spent."""
        spent = self.alone if self.alone is not None else next(iter(self.attempts), now)
        return max(0.0, spent + policy.budget_seconds - now)

    def fails(self, policy: RecoveryPolicy, now: float) -> int:
        """Take down that an attempt has failed; return how many have, in a row or in the budget's time."""
        self.failed += 1
        self.failures.append(now)
        return max(self.failed, _lately(self.failures, now - policy.budget_seconds))

    def tried(self, policy: RecoveryPolicy) -> str:
        """Say how many attempts have failed, as `fails` has counted them."""
        if len(self.failures) >= policy.budget:
            within = seconds(policy.budget_seconds)
            return f"{count(len(self.failures), 'attempt')} within {within} did not help"
        return f"{count(self.failed, 'attempt')} in a row did not help"

    def goes_on(self, policy: RecoveryPolicy, to: int | None = None) -> float:
        """Go on to the next step, or to another one; return for how long to pause before it."""
        self.at = min(self.at + 1, len(policy.steps) - 1) if to is None else to
        pause, self.pause = self.pause, min(self.pause * policy.factor, policy.max_pause)
        return pause


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One attempt at a case: it goes on as long as it is the case's own turn."""

    record: ServiceRecord
    case: Case
    policy: RecoveryPolicy
    reason: str
    proof: frozenset[str] = frozenset()  # signs of its calls that have to be gone; none: a ping says enough
    goes_to: int | None = None  # the step that comes then, where that is not the next one

    def hand_on(self, then: Turn) -> bool:
        """Go on as another turn (held), without what was on trial; False where the case is not this one's."""
        mine = self.case.turn is self
        if mine:
            self.case.turn, self.case.trial = then, None
        return mine

    def over(self) -> list[Callable[[], None]]:
        """End the case (held), if it is this one's; return who waits for that."""
        if self.case.turn is not self:
            return []
        self.case.turn = None
        waiting, self.case.waiting = self.case.waiting, []
        return waiting


def _lately(times: deque[float], since: float) -> int:
    """Return how many there were since then; those before are forgotten."""
    while times and times[0] < since:
        times.popleft()
    return len(times)
