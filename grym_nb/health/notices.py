"""What somebody is told: alerts that began, or are over, and the notices in which they come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from grym_nb.health.rules import Severity, Tags
from grym_nb.render import seconds

__all__ = ["Alert", "Channel", "Notice"]


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule that fires, or fired, for one group: figure, limit, since when, and what to do.

    `since` and `at` are times of day (UNIX seconds). When it is over, `figure` and `told` are of then; `why`
    is there when that is for another reason than that its figure is good again. `suffers` are the services
    for which something fires that rely on this one: of those that come later nobody is told anew, as of a
    figure that changes, but what fires has them.
    """

    rule: str
    tags: Tags
    severity: Severity
    state: Literal["firing", "over"]
    figure: float
    limit: float
    since: float
    at: float
    told: str
    suggestion: str
    why: str = ""
    suffers: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """What it is about: a service's name, or the tags."""
        named = dict(self.tags)
        return named.get("service") or ", ".join(f"{k}={v}" for k, v in self.tags) or "the kernel"

    @property
    def text(self) -> str:
        """The alert in one line."""
        if self.state == "over":
            why = f" ({self.why})" if self.why else ""
            return f"{self.subject}: {self.rule} is over, after {seconds(self.at - self.since)}{why}"
        held = f", for {seconds(self.at - self.since)}" if self.at - self.since >= 1.0 else ""
        todo = f" → {self.suggestion}" if self.suggestion else ""
        return f"{self.subject}: {self.rule} ({self.severity}): {self.told}{held}{self.by_it}{todo}"

    @property
    def by_it(self) -> str:
        """Who suffers by it, in words that follow others; nothing where nobody does."""
        return f"; by it suffer {', '.join(self.suffers)}" if self.suffers else ""


@dataclass(frozen=True, slots=True)
class Notice:
    """What a channel is told at a time: the alerts of one rule that began, or are over."""

    rule: str
    alerts: tuple[Alert, ...]

    @property
    def text(self) -> str:
        """All of it, a line each."""
        return "\n".join(alert.text for alert in self.alerts)


Channel = Callable[[Notice], object]
