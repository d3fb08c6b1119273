"""Alerts: who is told of what, once, and when it is over.

A rule's finding has to hold before it fires, and to be over for a while before that is said. What fires at
the same time is told together; what is silenced, or the consequence of something worse, is not told at all.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from grym_nb.clock import Clock, monotonic
from grym_nb.errors import ConfigError, Problem, ValidationError, closest
from grym_nb.events import AlertChanged, EventBus
from grym_nb.health.rules import Found, Rule, Severity, Tags, found_by
from grym_nb.render import Table, brief, seconds

if TYPE_CHECKING:
    from grym_nb.metrics.history import History

__all__ = ["Alert", "Alerts", "Channel", "Notice", "Silence"]

_log = logging.getLogger(__name__)
_STORY_LENGTH = 500
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule that fires, or fired, for one group: figure, limit, since when, and what to do."""

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

    @property
    def subject(self) -> str:
        """What it is about: a service's name, or the tags."""
        named = dict(self.tags)
        return named.get("service") or ", ".join(f"{k}={v}" for k, v in self.tags) or "the kernel"

    @property
    def text(self) -> str:
        """The alert in one line."""
        if self.state == "over":
            return f"{self.subject}: {self.rule} is over, after {seconds(self.at - self.since)}"
        held = f", for {seconds(self.at - self.since)}" if self.at - self.since >= 1.0 else ""
        todo = f" → {self.suggestion}" if self.suggestion else ""
        return f"{self.subject}: {self.rule} ({self.severity}): {self.told}{held}{todo}"


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


@dataclass(frozen=True, slots=True)
class Silence:
    """Nobody is told of what fits, until a moment; it still shows in the table."""

    until: float
    rule: str | None = None
    tags: Tags = ()
    why: str = ""

    def covers(self, rule: str, tags: Tags, now: float) -> bool:
        """Tell whether it covers an alert now."""
        return now < self.until and self.rule in (None, rule) and set(self.tags) <= set(tags)


@dataclass(slots=True)
class _Track:
    """One rule and one group: since when it is beyond the limit, and whether somebody was told."""

    breached_since: float | None = None
    clear_since: float | None = None
    firing_since: float | None = None
    told: bool = False
    alert: Alert | None = None


class Alerts:
    """Evaluates rules over a history, at each `step`; channels are told what began and what is over.

    A channel that raises is told of no more, which is logged. For any thread.
    """

    def __init__(
        self,
        history: History,
        rules: Iterable[Rule] = (),
        *,
        clock: Clock = monotonic,
        events: EventBus | None = None,
        channels: Iterable[Channel] = (),
    ) -> None:
        self._history = history
        self._clock = clock
        self._events = events
        self._lock = threading.Lock()
        self._rules: dict[str, Rule] = {}
        self._tracks: dict[tuple[str, Tags], _Track] = {}
        self._silences: tuple[Silence, ...] = ()
        self._channels: tuple[Channel, ...] = tuple(channels)
        self._story: deque[Alert] = deque(maxlen=_STORY_LENGTH)
        self._troubled: set[str] = set()
        for rule in rules:
            self.add(rule)

    # -- rules, silences, channels -----------------------------------------------------------------

    def add(self, rule: Rule) -> None:
        """Follow a rule from now on; one of the same name is replaced, and what it tracked is kept."""
        given: object = rule
        if not isinstance(given, Rule):
            problem = Problem("rule", brief(rule), "a Rule")
            raise ConfigError("only rules can be followed", problems=[problem])
        with self._lock:
            self._rules = {**self._rules, rule.name: rule}

    def remove(self, name: str) -> None:
        """Follow a rule no more; what it fires is over."""
        if name not in self._rules:
            problem = Problem("rule", name, f"a rule that there is.{closest(name, self._rules)}")
            raise ValidationError(f"there is no rule {name!r}", problems=[problem])
        with self._lock:
            self._rules = _but(self._rules, name)
        for key in [key for key in self._tracks.copy() if key[0] == name]:
            del self._tracks[key]

    def tell(self, channel: Channel) -> Callable[[], None]:
        """Tell a channel from now on; returns what ends that."""
        with self._lock:
            self._channels = (*self._channels, channel)
        return lambda: self._forget(channel)

    def silence(
        self, seconds: float, *, rule: str | None = None, why: str = "", **tags: str
    ) -> Callable[[], None]:
        """Tell nobody of a rule, or of what has these tags, for so many seconds; returns what ends that."""
        if rule is not None and rule not in self._rules:
            problem = Problem("rule", rule, f"a rule that there is.{closest(rule, self._rules)}")
            raise ValidationError(f"there is no rule {rule!r}", problems=[problem])
        if not seconds > 0:
            problem = Problem("seconds", brief(seconds), "more than 0")
            raise ValidationError("nothing is silenced so", problems=[problem])
        made = Silence(self._clock() + seconds, rule, tuple(sorted(tags.items())), why)
        with self._lock:
            self._silences = (*self._silences, made)
        return lambda: self._end_silence(made)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules that are followed."""
        return tuple(self._rules.values())

    @property
    def silences(self) -> tuple[Silence, ...]:
        """The silences that hold now."""
        now = self._clock()
        return tuple([one for one in self._silences if now < one.until])

    # -- what fires --------------------------------------------------------------------------------

    @property
    def active(self) -> tuple[Alert, ...]:
        """What fires now, told or not, the gravest first."""
        rank = {"critical": 0, "warning": 1, "info": 2}
        found = [track.alert for track in self._tracks.copy().values() if track.firing_since is not None]
        alerts = [alert for alert in found if alert is not None]
        return tuple(sorted(alerts, key=lambda alert: (rank[alert.severity], alert.since)))

    @property
    def story(self) -> tuple[Alert, ...]:
        """What somebody was told of, oldest first."""
        return tuple(self._story)

    def rest(self) -> None:
        """Take down that nobody looks for a while: what was about to fire begins anew then."""
        for key, track in self._tracks.copy().items():
            track.clear_since = None
            if track.firing_since is None and not track.told:
                self._tracks.pop(key, None)

    def step(self) -> None:
        """Evaluate every rule once, and tell what began and what is over."""
        for _ in self.steps():
            pass

    def steps(self) -> Iterator[None]:
        """Do the same a rule at a time, so that others get their turn."""
        now = self._clock()
        for rule in tuple(self._rules.values()):
            self._evaluate(rule, now)
            yield
        changed = [alert for rule in self._rules.values() for alert in self._changes(rule, now)]
        self._send(changed)

    def _evaluate(self, rule: Rule, now: float) -> None:
        try:
            found = found_by(rule, self._history, now, lambda tags: self._fires(rule.name, tags))
        except Exception as error:
            if rule.name not in self._troubled:
                self._troubled.add(rule.name)
                _log.warning(
                    "the rule %s cannot be evaluated: %s: %s", rule.name, type(error).__name__, error
                )
            return
        for tags, one in found.items():
            self._track(rule, tags, one, now)
        for key, track in self._tracks.copy().items():
            if key[0] == rule.name and key[1] not in found:
                self._pass(rule, track, now)  # what it was about is gone

    def _fires(self, rule: str, tags: Tags) -> bool:
        track = self._tracks.get((rule, tags))
        return track is not None and track.firing_since is not None

    def _track(self, rule: Rule, tags: Tags, found: Found, now: float) -> None:
        track = self._tracks.setdefault((rule.name, tags), _Track())
        if not found.breached:
            self._pass(rule, track, now)
            return
        track.clear_since = None
        if track.breached_since is None:
            track.breached_since = now
        if track.firing_since is None and now - track.breached_since >= rule.for_seconds:
            track.firing_since = track.breached_since
        if track.firing_since is not None:
            track.alert = Alert(
                *(rule.name, tags, rule.severity, "firing", found.figure, rule.limit),
                *(track.firing_since, now, found.told, rule.suggest),
            )

    def _pass(self, rule: Rule, track: _Track, now: float) -> None:
        """Take down that a figure is on the good side; what fired is over once that has lasted."""
        if track.firing_since is None:
            track.breached_since = None
            return
        if track.clear_since is None:
            track.clear_since = now
        if now - track.clear_since >= rule.clear_seconds:
            track.breached_since = track.firing_since = track.clear_since = None

    # -- who is told -------------------------------------------------------------------------------

    def _changes(self, rule: Rule, now: float) -> list[Alert]:
        """Return what of a rule is to be told: what began and is not kept quiet, and what is over."""
        changed = []
        for (name, tags), track in self._tracks.copy().items():
            if name != rule.name or track.alert is None:
                continue
            if track.firing_since is None:
                if track.told:
                    changed.append(replace(track.alert, state="over", at=now))
                self._tracks.pop((name, tags), None)
            elif not track.told and not self._kept_quiet(rule, tags, now):
                track.told = True
                changed.append(track.alert)
        return changed

    def _kept_quiet(self, rule: Rule, tags: Tags, now: float) -> bool:
        if any(one.covers(rule.name, tags, now) for one in self._silences):
            return True
        return any(self._fires(other, tags) or self._fires(other, ()) for other in rule.inhibited_by)

    def _send(self, changed: list[Alert]) -> None:
        notices: dict[str, list[Alert]] = {}
        for alert in changed:
            notices.setdefault(alert.rule, []).append(alert)
            self._story.append(alert)
            if self._events is not None:
                self._events.publish(AlertChanged(alert.at, alert))
        for rule, alerts in notices.items():
            notice = Notice(rule, tuple(alerts))
            for channel in self._channels:
                self._hand(channel, notice)

    def _hand(self, channel: Channel, notice: Notice) -> None:
        try:
            channel(notice)
        except Exception:
            _log.exception("the channel %r raised on an alert, and is told no more", channel)
            self._forget(channel)

    def _forget(self, channel: Channel) -> None:
        with self._lock:
            self._channels = _without(self._channels, channel)

    def _end_silence(self, made: Silence) -> None:
        with self._lock:
            self._silences = _without(self._silences, made)

    # -- about it ----------------------------------------------------------------------------------

    def table(self) -> Table:
        """Return what fires now, as a table."""
        now = self._clock()
        rows = [
            (one.subject, one.rule, one.severity, one.told, seconds(now - one.since), one.suggestion)
            for one in self.active
        ]
        columns = ("about", "rule", "severity", "figure", "for", "what to do")
        return Table("alerts", columns, rows, empty="nothing fires")

    def __repr__(self) -> str:
        return self.table().text()

    def _repr_html_(self) -> str:
        return self.table().html()


def _without(all: tuple[T, ...], gone: T) -> tuple[T, ...]:
    return tuple([one for one in all if one is not gone])


def _but(rules: dict[str, Rule], name: str) -> dict[str, Rule]:
    return {known: rule for known, rule in rules.items() if known != name}
