"""When a breaker opens, for how long, and what it takes to close again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from grym_nb.errors import Problem, says_what_it_takes
from grym_nb.hardening.policy import (
    FLAG,
    NUMBER,
    SECONDS,
    SHARE,
    WHOLE,
    Counted,
    Fit,
    Policy,
    is_counted,
    or_none,
)
from grym_nb.hardening.windows import CountWindow, TimeWindow, Window
from grym_nb.render import seconds

__all__ = ["BreakerPolicy"]

_MOST_CALLS = 1_000_000  # that a window remembers, at 8 bytes each
_MOST_ROUNDS = 64  # of growth: beyond, any wait is at its cap, and a float at its end


@says_what_it_takes
@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy(Policy):
    """When a breaker opens, for how long, and what it takes to close again.

    It opens once at least `min_calls` of the last `window` calls (or of those of the last `window_seconds`)
    are known and the share of those that failed reaches `failure_rate`, or the share of those that took
    `slow_seconds` or more reaches `slow_rate`. After `open_seconds` it lets `probes` calls through,
    `probes_at_once` at a time, and judges them by the same rates: it closes, or is open again,
    `open_factor` times as long as before and at most `max_open_seconds`.

    `counts` are the errors that count as failures: types, or a function that is asked. What does not count
    is an answer. A call that was cancelled or interrupted says nothing. With `shadow` nothing is refused, and
    the figures say what would have been.
    """

    window: int = 20
    window_seconds: float | None = None
    min_calls: int = 5
    failure_rate: float = 0.5
    slow_seconds: float | None = None
    slow_rate: float = 1.0
    open_seconds: float = 10.0
    open_factor: float = 2.0
    max_open_seconds: float = 300.0
    probes: int = 1
    probes_at_once: int = 1
    counts: Counted = Exception
    shadow: bool = False

    REFUSAL: ClassVar[str] = "a breaker cannot work so"
    FITS: ClassVar[dict[str, Fit]] = {
        "window": Fit(
            f"{WHOLE.words} to {_MOST_CALLS}", lambda value: WHOLE.fits(value) and value <= _MOST_CALLS
        ),
        "window_seconds": or_none(SECONDS),
        "min_calls": WHOLE,
        "failure_rate": SHARE,
        "slow_seconds": or_none(SECONDS),
        "slow_rate": SHARE,
        "open_seconds": SECONDS,
        "open_factor": NUMBER,
        "max_open_seconds": SECONDS,
        "probes": WHOLE,
        "probes_at_once": WHOLE,
        "counts": Fit("types of errors, or a function of one", is_counted),
        "shadow": FLAG,
    }

    def discord(self) -> list[Problem]:
        """Return what does not go together."""
        found = []
        if self.window_seconds is None and self.min_calls > self.window:
            found.append(Problem("min_calls", str(self.min_calls), f"at most the window, {self.window}"))
        if self.max_open_seconds < self.open_seconds:
            least = f"at least open_seconds, {self.open_seconds:g}"
            found.append(Problem("max_open_seconds", f"{self.max_open_seconds:g}", least))
        if self.probes_at_once > self.probes:
            found.append(Problem("probes_at_once", str(self.probes_at_once), f"at most {self.probes} probes"))
        return found

    def new_window(self) -> Window:
        """Return a window of its kind in which nothing has happened yet."""
        return CountWindow(self.window) if self.window_seconds is None else TimeWindow(self.window_seconds)

    def too_many(self, calls: int, failed: int, slow: int) -> str:
        """Return in words which rate is reached, if one is."""
        if failed / calls >= self.failure_rate:
            return f"{failed} of {calls} calls failed"
        if slow / calls >= self.slow_rate:
            return f"{slow} of {calls} calls took {seconds(self.slow_seconds)} or more"
        return ""

    def wait(self, rounds: int) -> float:
        """Return for how long it is open after so many rounds of probes that failed."""
        grown = self.open_seconds * self.open_factor ** min(rounds, _MOST_ROUNDS)
        return float(min(grown, self.max_open_seconds))
