"""Alerts: who is told of what, once, and when it is over.

A rule's finding has to hold before it fires, and to be over for a while before that is said. What fires at
the same time is told together; what is silenced, or the consequence of something worse, is not told at all.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from math import inf
from typing import TYPE_CHECKING, TypeVar

from grym_nb.clock import Clock, monotonic
from grym_nb.errors import ConfigError, Problem, ValidationError, closest
from grym_nb.events import AlertChanged, EventBus
from grym_nb.health.asked import Asked, UnansweredError
from grym_nb.health.errand import Work
from grym_nb.health.graph import relying
from grym_nb.health.listeners import Listener, others, refuse_deaf
from grym_nb.health.notices import Alert, Channel, Notice
from grym_nb.health.rules import Found, Rule, Tags, found_by, idle_for, looks_back, unknown
from grym_nb.health.silences import Silence, Silences, check_tags
from grym_nb.render import Table, brief, seconds

if TYPE_CHECKING:
    from grym_nb.metrics.history import History

__all__ = ["Alerts"]

_log = logging.getLogger(__name__)
_STORY_LENGTH = 500
_PATIENCE = 1.0  # seconds that a step waits for those who are told
T = TypeVar("T")


@dataclass(slots=True)
class _Track:
    """One rule and one group: since when it is beyond the limit, and whether somebody was told."""

    breached_since: float | None = None
    clear_since: float | None = None
    firing_since: float | None = None
    began: float = 0.0  # the last time that it fired, by the clock: the time of day may be put right
    told: bool = False
    follows: bool = False  # from something that fires, of which somebody hears
    anew: float = -inf  # what is found before that is of the time in which it followed
    alert: Alert | None = None
    why: str = ""


class Alerts:
    """Evaluates rules over a history, at each `step`; channels are told what began and what is over.

    Those that `tell` adds are told where `work` runs them, since they may take their time; a channel that
    raises has not heard that notice, which is logged, and is told of the next ones. Of a service for which
    a rule fires nobody is told while it fires for one that it `needs`, and is not silenced: who is told of
    that one hears who suffers. What a service has `of_its_own` against it is told in any case. For any
    thread.
    """

    def __init__(
        self,
        history: History,
        rules: Iterable[Rule] = (),
        *,
        clock: Clock = monotonic,
        wall: Clock = time.time,
        events: EventBus | None = None,
        channels: Iterable[Channel] = (),
        work: Work | None = None,
        needs: Callable[[str], Collection[str]] = lambda service: (),
        of_its_own: Callable[[str], bool] = lambda service: False,
    ) -> None:
        self._history = history
        self._clock = clock
        self._wall = wall
        self._work = work
        self._needs = needs
        self._of_its_own = of_its_own
        self._events = events
        self._lock = threading.Lock()
        self._rules: dict[str, Rule] = {}
        self._tracks: dict[tuple[str, Tags], _Track] = {}
        self._silences = Silences(clock)
        self._listeners = tuple([Listener(channel, None, clock=clock) for channel in channels])
        self._story: deque[Alert] = deque(maxlen=_STORY_LENGTH)
        self._troubles: dict[str, str] = {}  # why a rule cannot be evaluated
        self._asked: dict[str, Asked] = {}  # rules with a function that may take its time
        for rule in rules:
            self._follow(rule)
        self._asked = {}  # these are of the house, and quick
        for rule in self.rules:
            self._warn(rule)  # once all are there, since any may name any

    # -- rules, silences, channels -----------------------------------------------------------------

    def add(self, rule: Rule) -> None:
        """Follow a rule from now on; one of the same name is replaced, and what it tracked is kept.

        A function is asked on a thread that may wait; its answer is used at the next step. One of
        `inhibited_by` that is no rule yet is logged, since it may come later, or be misspelt.
        """
        same = isinstance(rule, Rule) and self._rules.get(rule.name) == rule
        self._follow(rule)
        if not same:
            self._warn(rule)

    def _follow(self, rule: Rule) -> None:
        given: object = rule
        if not isinstance(given, Rule):
            problem = Problem("rule", brief(rule), "a Rule")
            raise ConfigError("only rules can be followed", problems=[problem])
        asked = {}
        if callable(rule.metric) and self._work is not None:
            asked[rule.name] = Asked(rule, self._work, clock=self._clock)
        with self._lock:
            self._asked = {**_but(self._asked, rule.name), **asked}
            self._rules = {**self._rules, rule.name: rule}
            self._troubles.pop(rule.name, None)

    def _warn(self, rule: Rule) -> None:
        for told in unknown(rule, self._rules):
            _log.warning("the rule %s is inhibited by what is not there yet: %s", rule.name, told)

    def remove(self, name: str) -> None:
        """Follow a rule no more; what it fires is over, which is told at the next step."""
        self._known(name)
        with self._lock:
            self._rules, self._asked = _but(self._rules, name), _but(self._asked, name)

    def tell(self, channel: Channel) -> Callable[[], None]:
        """Tell a channel from now on; returns what ends that.

        It is called with one notice after another, on a thread that may wait, so it need not be async, and
        must not be: nobody would run what it returns. One that is told already takes the place of the old
        one, so a cell may be run again. The same is: a function of the same name in the same module,
        whatever it does now; a lambda, or a function made in another one (such as a `webhook`), of the same
        code with equal values from around it; a `partial` of the same with equal arguments; an object, or a
        method of one, of the same class with equal attributes that cannot change, such as numbers and
        texts. Anything else is one more who is told: end the old one with what this returned.
        """
        refuse_deaf(channel)
        listener = Listener(channel, self._work, clock=self._clock)
        with self._lock:
            self._listeners = (*others(self._listeners, channel), listener)
        return lambda: self._forget(listener)

    def silence(
        self, seconds: float, *, rule: str | None = None, why: str = "", **tags: str
    ) -> Callable[[], None]:
        """Tell nobody of a rule, or of what has these tags, for so many seconds; returns what ends that.

        A value that no tag has yet, such as a service that is to come, is silenced, and said in the log.
        """
        if rule is not None:
            self._known(rule)
        check_tags(tags, self._tags() if tags else {})
        return self._silences.add(seconds, rule, why, tags)

    def unsilence(self, rule: str | None = None) -> int:
        """End the silences of a rule, or all of them; return how many there were."""
        if rule is not None:
            self._known(rule)
        return self._silences.end(rule)

    def _known(self, rule: str) -> None:
        if not isinstance(rule, str) or rule not in self._rules:
            problem = Problem("rule", brief(rule), f"a rule that there is.{closest(str(rule), self._rules)}")
            hint = f"there are: {', '.join(self._rules) or 'none'}"
            raise ValidationError(f"there is no rule {rule!r}", problems=[problem], hint=hint)

    def _tags(self) -> dict[str, set[str]]:
        """Return the tags by which rules and series are told apart, and the values that they have."""
        found: dict[str, set[str]] = {
            tag: set() for one in self._rules.values() for tag in (*one.by, *one.tags)
        }
        groups = [tags for _, tags in self._tracks.copy()]
        for tag, value in chain.from_iterable([*groups, *[tags for _, _, tags in self._history.series()]]):
            found.setdefault(tag, set()).add(value)
        return found

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules that are followed."""
        return tuple(self._rules.values())

    @property
    def silences(self) -> tuple[Silence, ...]:
        """The silences that hold now."""
        return self._silences.lasting

    def state_of(self, rule: Rule) -> str:
        """Return how a rule does, in words: that it fires, is quiet, or cannot fire, and why.

        With that come the rules which it names, and which there are not.
        """
        if trouble := self._troubles.get(rule.name):
            does = f"broken: {trouble}"
        elif any(alert.rule == rule.name for alert in self.active):
            does = "fires"
        else:
            does = idle_for(rule, self._history) or "quiet"
        return "; ".join([does, *unknown(rule, self._rules)])

    @property
    def wall(self) -> Clock:
        """The clock that the times of alerts are of: the time of day."""
        return self._wall

    # -- what fires --------------------------------------------------------------------------------

    @property
    def active(self) -> tuple[Alert, ...]:
        """What fires now, told or not, the gravest first."""
        rank = {"critical": 0, "warning": 1, "info": 2}
        found = [
            track.alert
            for (rule, _), track in self._tracks.copy().items()
            if track.firing_since is not None and rule in self._rules
        ]
        alerts = [alert for alert in found if alert is not None]
        return tuple(sorted(alerts, key=lambda alert: (rank[alert.severity], alert.since)))

    def pending(self, seconds: float) -> bool:
        """Tell whether something holds, for less than so many seconds, that fires if it goes on."""
        since = self._clock() - seconds
        return any(
            track.firing_since is None and track.breached_since is not None and track.breached_since >= since
            for (rule, _), track in self._tracks.copy().items()
            if rule in self._rules
        )

    @property
    def story(self) -> tuple[Alert, ...]:
        """What somebody was told of, oldest first."""
        return tuple(self._story)

    def rest(self) -> None:
        """Take down that nobody looks for a while: what was about to fire begins anew then."""
        for one in tuple(self._asked.values()):
            one.rest()
        for key, track in self._tracks.copy().items():
            track.clear_since = None
            if track.firing_since is None and not track.told:
                self._tracks.pop(key, None)

    def step(self) -> None:
        """Evaluate every rule once, and tell what began and what is over.

        Waits a second at most for rules' functions, and for those who are told.
        """
        self._history.step()
        until, asked = monotonic() + _PATIENCE, tuple(self._asked.values())
        for one in asked:
            one.ask(self._history, self._clock())
        for one in asked:
            one.wait(until)
        for _ in self._steps():
            pass
        until = monotonic() + _PATIENCE
        for listener in self._listeners:
            listener.wait(until)

    def steps(self) -> Iterator[None]:
        """Do the same a rule at a time, so that others get their turn; waits for nobody."""
        yield from self._steps()
        for one in tuple(self._asked.values()):
            one.ask(self._history, self._clock())

    def _steps(self) -> Iterator[None]:
        self._history.step()  # or what was mended a moment ago would be told of as broken
        now = self._clock()
        for rule in tuple(self._rules.values()):
            self._evaluate(rule, now)
            yield
        with self._lock:
            changed = self._changed(now)
        self._send(changed, now)

    def _evaluate(self, rule: Rule, now: float) -> None:
        try:
            asked = self._asked.get(rule.name)
            its = rule if asked is None else asked.rule
            found = found_by(its, self._history, now, lambda tags: self._fires(rule.name, tags))
        except UnansweredError:
            return  # so what was, is
        except (Exception, SystemExit) as error:  # a function of a user's may raise anything
            late = isinstance(error, TimeoutError) and rule.name in self._asked
            self._fail(rule, str(error) if late else f"{type(error).__name__}: {error}", now)
            return
        self._troubles.pop(rule.name, None)
        for tags, one in found.items():
            self._track(rule, tags, one, now)
        for key, track in self._tracks.copy().items():
            if key[0] == rule.name and key[1] not in found:
                self._pass(rule, track, now)  # what it was about is gone

    def _fail(self, rule: Rule, why: str, now: float) -> None:
        """Take down that a rule cannot be evaluated: nobody knows any more whether what it fires holds."""
        if rule.name not in self._troubles:
            _log.warning("the rule %s cannot be evaluated: %s", rule.name, why)
        self._troubles[rule.name] = why
        for (name, _), track in self._tracks.copy().items():
            if name == rule.name:
                self._pass(rule, track, now, why=f"the rule cannot be evaluated: {why}")

    def _fires(self, rule: str, tags: Tags) -> bool:
        track = self._tracks.get((rule, tags))
        return track is not None and track.firing_since is not None

    def _track(self, rule: Rule, tags: Tags, found: Found, now: float) -> None:
        track = self._tracks.setdefault((rule.name, tags), _Track())
        if not found.breached or now < track.anew:
            if track.firing_since is not None and track.alert is not None:
                since = track.began + self._wall() - self._clock()
                track.alert = replace(track.alert, figure=found.figure, told=found.told, since=since)
            self._pass(rule, track, now)
            return
        track.clear_since = None
        if track.breached_since is None:
            track.breached_since = now
        if track.firing_since is None and now - track.breached_since >= rule.for_seconds:
            track.firing_since = track.breached_since
        if track.firing_since is not None:
            track.began = track.firing_since
            day = self._wall() - self._clock()
            track.alert = Alert(
                *(rule.name, tags, rule.severity, "firing", found.figure, rule.limit),
                *(track.firing_since + day, now + day, found.told, rule.suggest),
                suffers=() if track.alert is None else track.alert.suffers,
            )

    def _pass(self, rule: Rule, track: _Track, now: float, *, why: str = "") -> None:
        """Take down that a figure is on the good side; what fired is over once that has lasted."""
        if track.firing_since is None:
            track.breached_since = None
            return
        if track.clear_since is None:
            track.clear_since = now
        if now - track.clear_since >= rule.clear_seconds:
            track.breached_since = track.firing_since = track.clear_since = None
            track.why = why

    # -- who is told -------------------------------------------------------------------------------

    def _changed(self, now: float) -> list[Alert]:
        """Return what is to be told: what began and is not kept quiet, and what is over."""
        changed, needs = [], self._needs_of_firing()
        suffering = relying(needs)
        order = {name: at for at, name in enumerate(self._rules)}
        for (name, tags), track in sorted(
            self._tracks.copy().items(), key=lambda item: order.get(item[0][0], len(order))
        ):
            rule = self._rules.get(name)
            if rule is None or (track.alert is not None and track.firing_since is None):
                self._tracks.pop((name, tags), None)
                if track.told and track.alert is not None:
                    why = track.why if rule is not None else "the rule was removed"
                    day = self._wall() - self._clock()
                    since = track.began + day
                    changed.append(replace(track.alert, state="over", since=since, at=now + day, why=why))
                continue
            causes = [] if track.told else self._causes(rule, tags, needs)
            if track.follows and not causes and not track.told:
                self._begin_anew(rule, track, now)
            track.follows = bool(causes)
            if track.alert is not None:
                suffers = suffering.get(dict(tags).get("service", ""), ())
                track.alert = replace(track.alert, suffers=tuple(suffers))
                if not track.told and not self._kept_quiet(rule, tags, now, causes):
                    track.told = True
                    changed.append(track.alert)
        return changed

    def _needs_of_firing(self) -> dict[str, Collection[str]]:
        """Return what each service needs for which something fires; looked up once, as it takes time."""
        firing = [
            dict(tags) for (_, tags), track in self._tracks.copy().items() if track.firing_since is not None
        ]
        return {
            name: self._needs(name) for name in sorted({tags.get("service", "") for tags in firing} - {""})
        }

    def _causes(self, rule: Rule, tags: Tags, needs: dict[str, Collection[str]]) -> list[tuple[str, Tags]]:
        """Return what fires that this follows from: something worse, or the same of what a service needs."""
        causes = [
            (other, at)
            for other in rule.inhibited_by
            for at in (tags, ())
            if self._fires(other, at) and self._stands(other, at, {(rule.name, tags)})
        ]
        service = dict(tags).get("service", "")
        needed: list[tuple[str, Tags]] = [
            (one, (("service", need),))
            for need in needs.get(service, ())
            for one in (rule.name, *rule.inhibited_by)
            if self._fires(one, (("service", need),))
        ]
        return causes + needed if not needed or not self._of_its_own(service) else causes

    def _stands(self, name: str, tags: Tags, waiting: set[tuple[str, Tags]]) -> bool:
        """Tell whether somebody is told of it, or of what inhibits it, without those that wait for it.

        So of some that inhibit each other, however many lie between, one is told.
        """
        if self._tracks[name, tags].told or (rule := self._rules.get(name)) is None:
            return True
        waiting.add((name, tags))
        above = [(other, at) for other in rule.inhibited_by for at in (tags, ()) if self._fires(other, at)]
        return not above or any(
            self._stands(other, at, waiting) for other, at in above if (other, at) not in waiting
        )

    def _kept_quiet(self, rule: Rule, tags: Tags, now: float, causes: list[tuple[str, Tags]]) -> bool:
        """Tell whether nobody is told of it: it is silenced, or somebody hears of what it follows from."""
        return self._silences.cover(rule.name, tags, now) or any(
            at in (tags, ()) or not self._silences.cover(one, at, now) for one, at in causes
        )

    def _begin_anew(self, rule: Rule, track: _Track, now: float) -> None:
        """Forget what was found while it followed from something that is over by now.

        Else who was spared it as it held would be told as soon as all is well: its window still has it. What
        is of the moment, as a gauge, and goes on, is no such thing.
        """
        back = looks_back(rule, self._history)
        if back or track.clear_since is not None:
            track.breached_since = track.firing_since = track.clear_since = track.alert = None
            track.anew = now + back

    def _send(self, changed: list[Alert], now: float) -> None:
        notices: dict[str, list[Alert]] = {}
        for alert in changed:
            notices.setdefault(alert.rule, []).append(alert)
            self._story.append(alert)
            if self._events is not None:
                self._events.publish(AlertChanged(now, alert))
        for rule, alerts in notices.items():
            notice = Notice(rule, tuple(alerts))
            for listener in self._listeners:
                listener.hand(notice)

    def _forget(self, listener: Listener) -> None:
        listener.gone = True
        with self._lock:
            self._listeners = _without(self._listeners, listener)

    # -- about it ----------------------------------------------------------------------------------

    def table(self) -> Table:
        """Return what fires now, as a table."""
        now = self._wall()
        rows = [
            (
                one.subject,
                one.rule,
                one.severity,
                one.told + one.by_it + self._fading(one),
                seconds(now - one.since),
                one.suggestion,
            )
            for one in self.active
        ]
        columns = ("about", "rule", "severity", "figure", "for", "what to do")
        return Table("alerts", columns, rows, empty="nothing fires")

    def _fading(self, alert: Alert) -> str:
        """Return why what looks well fires still: its figure is within the limit, and has to stay there."""
        rule, track = self._rules.get(alert.rule), self._tracks.get((alert.rule, alert.tags))
        if rule is None or track is None or track.clear_since is None:
            return ""
        return f"; over once that has lasted {seconds(rule.clear_seconds)}"

    def __repr__(self) -> str:
        return self.table().text()

    def _repr_html_(self) -> str:
        return self.table().html()


def _without(all: tuple[T, ...], gone: T) -> tuple[T, ...]:
    return tuple([one for one in all if one is not gone])


def _but(rules: dict[str, T], name: str) -> dict[str, T]:
    return {known: rule for known, rule in rules.items() if known != name}
