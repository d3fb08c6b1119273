"""Health: every service judged by what it shows, written on its record, and said when it changes.

It looks at figures that are there anyway, at events as they come, and pings what nobody is using. A look is
quick, on the pulse; pings run on work threads with a deadline, and never load, warm or count anything.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from grym_nb.events import BreakerChanged, HealthChanged, ServiceRemoved, StateChanged, SystemHealthChanged
from grym_nb.health.given import check_registry, check_service
from grym_nb.health.guarded import Guarded, named
from grym_nb.health.judge import Health, Judge, Limits, Verdict
from grym_nb.health.rules import Tags
from grym_nb.health.signs import DEGRADED, UNHEALTHY, Sign, SignLimits, Vitals, signs_of
from grym_nb.health.vitals import Lately, Watched, anew, hanging, reason_of, standing_of, vitals_of
from grym_nb.metrics.given import positive
from grym_nb.metrics.history import History
from grym_nb.priority import CRITICAL
from grym_nb.render import Table, seconds
from grym_nb.services.model import ModelService
from grym_nb.services.status import ping

if TYPE_CHECKING:
    from grym_nb.pulse import Entry
    from grym_nb.services.record import ServiceRecord
    from grym_nb.services.registry import ServiceRegistry

__all__ = ["HealthMonitor", "SystemHealth", "means"]

_STORY_LENGTH = 200  # changes kept for each service
_RANK: Mapping[str, int] = {"unknown": 0, "healthy": 0, "degraded": DEGRADED, "unhealthy": UNHEALTHY}
_SYSTEM = ""  # the name under which the kernel itself is judged


@dataclass(frozen=True, slots=True, repr=False)
class SystemHealth:
    """What is thought of all services together: the verdict, the reasons, and each service's own."""

    verdict: Verdict
    reasons: tuple[str, ...]
    services: Mapping[str, tuple[Health, str]]

    def _table(self) -> Table:
        rows = [(name, health.verdict, told) for name, (health, told) in self.services.items()]
        return Table(
            f"health: {self.verdict}", ("service", "health", "reasons"), rows, "nothing is loaded yet"
        )

    def __repr__(self) -> str:
        return "\n".join([self._table().text(), *self.reasons])

    def _repr_html_(self) -> str:
        return self._table().html()


@dataclass(slots=True, eq=False)
class _Ping:
    """The last ping of a service: when it was asked for, when it began on its thread, whether it runs."""

    asked: float
    loads: int  # of the service by then: another model is asked anew
    began: float | None = None
    runs: bool = True
    missed: int = 0  # deadlines that have passed without an answer


class HealthMonitor:
    """Judges the services of a registry; `start` has it look by itself, `step` looks once.

    `look_seconds` is the time between two looks, `ping_seconds` between two pings of one that is not
    in use just then (without a ping of its own: that nobody has used for so long);
    one that does not answer within `ping_timeout` has not answered.
    """

    def __init__(
        self,
        registry: ServiceRegistry,
        *,
        history: History | None = None,
        limits: Limits | None = None,
        signs: SignLimits | None = None,
        look_seconds: float = 5.0,
        ping_seconds: float = 30.0,
        ping_timeout: float = 5.0,
        window: float = 60.0,
    ) -> None:
        check_registry(registry)
        seconds_of = partial(positive, expected="seconds above 0, such as 5")
        self.look_seconds = seconds_of(look_seconds, "look_seconds")
        self.ping_seconds = seconds_of(ping_seconds, "ping_seconds")
        self.ping_timeout = seconds_of(ping_timeout, "ping_timeout")
        self._window = seconds_of(window, "window")
        ports = registry.ports
        self._registry = registry
        self._clock = ports.clock
        self._pulse = ports.pulse
        self._events = ports.events
        self.history = history or History(ports.metrics, clock=ports.clock)
        self._limits = limits or Limits(worse_seconds=0.8 * self.look_seconds)
        self._signs = signs or SignLimits()
        self._lock = threading.Lock()
        self._judges: dict[str, Judge] = {}
        self._watched: dict[str, Watched] = {}
        self._pings: dict[str, _Ping] = {}
        self._story: dict[str, deque[HealthChanged]] = {}
        self._system = Judge(self._limits)
        self._guarded = Guarded()
        #: told at each look that finds a service unhealthy: f(name, health), quick
        self.concerned: list[Callable[[str, Health], object]] = []
        #: more that speaks against the kernel itself: f(now) -> signs
        self.looks: list[Callable[[float], tuple[Sign, ...]]] = []
        self._entries: list[Entry] = []
        self._ends: list[Callable[[], None]] = []

    # -- when it looks -----------------------------------------------------------------------------

    def listen(self) -> None:
        """Look at once, from now on, when a state or a breaker changes."""
        with self._lock:
            if not self._ends:
                self._ends = [
                    self._events.subscribe(self._changed, StateChanged, BreakerChanged),
                    self._events.subscribe(self._gone, ServiceRemoved),
                ]

    def start(self) -> None:
        """Look by itself from now on: at times, and when something changes; for one that is used alone."""
        self.listen()
        if not self._entries:
            self._entries = [
                self._pulse.every(1.0, self.history.step, name="history of the metrics"),
                self._pulse.every(self.look_seconds, self.step, name="health"),
            ]

    def close(self) -> None:
        """Look no more. Idempotent."""
        with self._lock:
            ends, self._ends = self._ends, []
        for end in ends:
            end()
        for entry in self._entries:
            entry.cancel()
        self._entries = []

    def step(self) -> None:
        """Look at every service once, ping those that are due, and judge all of them together."""
        for _ in self.steps():
            pass

    def steps(self) -> Iterator[None]:
        """Do the same a service at a time, so that others get their turn."""
        now = self._clock()
        lately = Lately(self.history, self._window)
        for handle in self._registry.handles():
            yield
            self._guarded(f"the look at {handle.name}", self._look, handle._record, lately, now)
        yield
        self._forget_removed()
        self._judge_system(now)

    def rest(self) -> None:
        """Take down that nobody looks for a while: what was about to be said begins anew then."""
        for judge in (self._system, *self._judges.copy().values()):
            judge.rest()

    def look(self, name: str) -> Health:
        """Look at one service now; return what is thought of it."""
        record = self._registry[name]._record
        self._look(record, Lately(self.history, self._window), self._clock())
        return self.of(name)

    def stands(self, name: str) -> str:
        """Return what speaks against a service whatever was before: its state, and late calls."""
        record, now = self._registry[name]._record, self._clock()
        watched = self._watched.get(name) or Watched(now)  # which knows what has moved
        vitals = Vitals(
            state=record.lifecycle.state,
            reason=reason_of(record),
            stuck=tuple(
                [one for one in hanging(record, watched, now, self._records) if one.late and not one.behind]
            ),
            slots=record.spec.concurrency,
        )
        return "; ".join([sign.told for sign in signs_of(vitals, self._signs)])

    def of_its_own(self, name: str) -> bool:
        """Tell whether a service is unhealthy by itself, and not by one that it calls or needs.

        Its ping fails, a call hangs in it, or it could not be loaded though nothing that it needs has failed.
        """
        judge, handle = self._judges.get(name), self._registry.get(name, None)
        if judge is None or handle is None:
            return False
        record = handle._record
        grave = {sign.kind for sign, _ in judge.health.signs if sign.level == UNHEALTHY}
        if "state" in grave:
            needs = [need for need in record._family.before(record) if need.lifecycle.state == "failed"]
            return all(record._family.optional(record, need) for need in needs)
        return bool(grave & {"ping", "stuck"}) or (("service", name),) in self.held_up(self.history, 0.0)

    def held_up(self, history: History, now: float) -> dict[Tags, float]:
        """Return by service how long the call takes that others wait behind, far longer than any before.

        For a rule. Nobody knows whether such a call hangs, so it is told, and left alone.
        """
        watched = self._watched.copy().items()
        return {(("service", name),): its.held.seconds for name, its in watched if its.held is not None}

    def because(self, tags: Tags, figure: float) -> str:
        """Return the verdict on one service with what it rests on, for a rule whose figure it is."""
        judge = self._judges.get(dict(tags).get("service", ""))
        if judge is None or _RANK[judge.health.verdict] != figure:
            return ""  # it is another one since
        health = judge.health
        signs = [sign.told for sign, _ in health.signs]
        if health.over is not None:  # the verdict lasts longer than its signs
            signs = [health.over[0]]
        return " ".join(f"judged {health.verdict}: {'; '.join(signs)}".split()) if signs else ""

    def holder(self, tags: Tags, figure: float) -> str:
        """Return the same of one service in words."""
        watched = self._watched.get(dict(tags).get("service", ""))
        held = None if watched is None else watched.held
        if watched is None or held is None:
            return ""
        wait = "1 call waits" if watched.behind == 1 else f"{watched.behind} calls wait"
        return f"{held.title} runs for {seconds(held.seconds)}, {held.why}; {wait} behind it"

    @property
    def limits(self) -> SignLimits:
        """From where on a figure is a sign."""
        return self._signs

    def usual(self, name: str) -> float | None:
        """Return the p95 of a service in good times, in seconds; None as long as that is not known."""
        watched = self._watched.get(name)
        return None if watched is None else watched.usual

    def renew(self, name: str, *, broken: str = "") -> None:
        """Forget how a service was until now: it was mended, and is judged by what comes.

        Where that has yet to show, the verdict is kept, and what is `broken` until a call is answered.
        """
        check_service(self._registry, name)
        self.renewed(self._registry[name]._record, broken=broken)

    def renewed(self, record: ServiceRecord, *, broken: str = "") -> None:
        """Do the same for one that was mended; nothing where it was removed meanwhile."""
        now, name = self._clock(), record.name
        handle = self._registry.get(name, None)
        if handle is None or handle._record is not record:
            return
        self._watched[name] = anew(record, now, self._watched.get(name), broken)
        judge = self._judges.get(name)
        if judge is not None and not broken:
            before = judge.health
            judge.forget()
            # Its breaker may be open still, where nothing was loaded: nobody is let in, which is not healthy.
            standing, why = standing_of(record)
            state, reason = record.lifecycle.state, reason_of(record)
            vitals = Vitals(state=state, reason=reason, breaker=standing, breaker_why=why)
            self._say(record, before, judge.look(now, signs_of(vitals, self._signs)), now)

    # -- what it thinks ----------------------------------------------------------------------------

    def of(self, name: str) -> Health:
        """Return what is thought of a service; unknown as long as it was never loaded."""
        judge = self._judges.get(name)
        if judge is None:
            check_service(self._registry, name)
        return Health("unknown", self._clock()) if judge is None else judge.health

    def story(self, name: str) -> tuple[HealthChanged, ...]:
        """Return how the verdict on a service has changed, oldest first."""
        story = self._story.get(name)
        if story is None:
            check_service(self._registry, name)
        return () if story is None else tuple(story)

    def system(self) -> SystemHealth:
        """Return what is thought of all of them together, the critical ones first."""
        now = self._clock()
        health = self._system.health
        services = {
            handle.name: (own := self.of(handle.name), own.told(now))
            for handle in sorted(self._registry.handles(), key=lambda h: (-h._record.spec.priority, h.name))
            if handle.name in self._judges
        }
        told = tuple(sign.told for sign, _ in health.signs)
        return SystemHealth("unknown" if not services else health.verdict, told, services)

    def __repr__(self) -> str:
        return repr(self.system())

    def _repr_html_(self) -> str:
        return self.system()._repr_html_()

    # -- one service -------------------------------------------------------------------------------

    def _look(self, record: ServiceRecord, lately: Lately, now: float) -> None:
        name, state = record.name, record.lifecycle.state
        if name not in self._judges and state in ("registered", "loading", "closed"):
            return  # nothing is known of one that was never there
        watched = self._watched.setdefault(
            name, Watched(record.lifecycle.story[0].at if record.lifecycle.story else now)
        )
        self._wait_for_answer(record, watched, now)
        vitals = vitals_of(record, lately, watched, now, self._records)
        signs = signs_of(vitals, self._signs)
        fails = vitals.failed > 0 and any(sign.kind == "errors" for sign in signs)
        self._ping_if_due(record, watched, now, doubted=fails)
        judge = self._judges.setdefault(name, Judge(self._limits))
        before = judge.health
        self._say(record, before, judge.look(now, signs), now)

    def _say(self, record: ServiceRecord, before: Health, after: Health, now: float) -> None:
        told = after.told(now)
        record.health, record.health_reason = after.verdict, told
        self._guarded("the gauge of the health", self._measure, record, after.verdict)
        if after.verdict != before.verdict:
            event = HealthChanged(now, record.name, before.verdict, after.verdict, told)
            self._story.setdefault(record.name, deque(maxlen=_STORY_LENGTH)).append(event)
            self._events.publish(event)
        if after.verdict == "unhealthy":
            for concerned in tuple(self.concerned):
                self._guarded(f"{named(concerned)}, told of {record.name},", concerned, record.name, after)

    def _measure(self, record: ServiceRecord, verdict: Verdict) -> None:
        record.metrics.gauge("service.health", service=record.name).set(_RANK[verdict])

    def _records(self) -> Iterable[ServiceRecord]:
        return [handle._record for handle in self._registry.handles()]

    def _changed(self, event: Any) -> None:
        """Look at once at a service whose state, or breaker, has changed: on the pulse, not in its thread."""
        name = event.service if isinstance(event, StateChanged) else event.name
        if name in self._registry:
            self._pulse.after(0.0, partial(self._look_if_there, name), name=f"health of {name}")

    def _look_if_there(self, name: str) -> None:
        handle = self._registry.get(name, None)
        if handle is not None:
            now = self._clock()
            self._look(handle._record, Lately(self.history, self._window), now)
            self._judge_system(now)

    def _gone(self, event: ServiceRemoved) -> None:
        self._forget(event.service)

    def _forget_removed(self) -> None:
        """Forget the services that are gone: also those that went while they were looked at."""
        known = {*self._judges.copy(), *self._watched.copy(), *self._pings.copy(), *self._story.copy()}
        for name in known:
            if name not in self._registry:
                self._forget(name)

    def _forget(self, name: str) -> None:
        for known in (self._judges, self._watched, self._pings, self._story):
            known.pop(name, None)

    # -- pings -------------------------------------------------------------------------------------

    def _ping_if_due(self, record: ServiceRecord, watched: Watched, now: float, *, doubted: bool) -> None:
        """Ping a service that is ready and not in use just then, at times.

        What a class asks in a ping of its own, its calls do not tell: they may answer, and wrongly. Without
        one they say more than a ping, so one is due only where nobody has called for as long. One whose calls
        fail is asked soon, since they may fail for what they are given.
        """
        watched.doubted = doubted
        state, last = record.lifecycle.state, self._pings.get(record.name)
        if last is not None and last.loads != record.loads:
            last = None  # whoever was asked is gone
        if last is not None and last.runs:
            return
        asks = doubted or bool(watched.unanswered)
        before = watched.since if last is None else last.asked
        if not asks:
            before = max(before, _since_when(record))
        quiet = now - before
        due = quiet >= (self.look_seconds if asks else self.ping_seconds)
        if due and state == "ready" and not record.users:
            asked = self._pings[record.name] = _Ping(now, record.loads)
            job = partial(self._ping, record, asked)
            self._pulse.work(job, name=f"ping of {record.name}", deadline=now + self.ping_timeout)

    def _wait_for_answer(self, record: ServiceRecord, watched: Watched, now: float) -> None:
        """Count each deadline that passes without an answer; a ping that waits for a thread has none."""
        asked = self._pings.get(record.name)
        if asked is None or not asked.runs or asked.began is None or asked.loads != record.loads:
            return
        if now - asked.began > self.ping_timeout * (asked.missed + 1):
            asked.missed += 1
            watched.ping = f"no answer within {seconds(self.ping_timeout * asked.missed)}"
            self._unanswered(watched)

    def _ping(self, record: ServiceRecord, asked: _Ping) -> None:
        asked.began = self._clock()
        try:
            answer = ping(record)
            if answer.ok is not None and asked.loads == record.loads:
                self._answered(record.name, asked, answer.problem, means=means(record))
        finally:
            asked.runs = False

    def _answered(self, name: str, asked: _Ping, problem: str, *, means: bool) -> None:
        """Take down how a ping went, if it is the last one of that service.

        Without a hook of the author's it `means` nothing for the calls.
        """
        watched = self._watched.get(name)
        if watched is None or self._pings.get(name) is not asked:
            return
        watched.ping = problem
        if not problem:
            watched.unanswered = 0
            if means:
                watched.broken, watched.wrong_at, watched.row = "", None, 0
        elif not asked.missed:  # else that is counted
            self._unanswered(watched)

    def _unanswered(self, watched: Watched) -> None:
        # Where its calls fail as well, it need not be asked twice.
        watched.unanswered += 1 + watched.doubted

    # -- all of them -------------------------------------------------------------------------------

    def _judge_system(self, now: float) -> None:
        signs = self._of_services()
        for look in tuple(self.looks):
            signs += self._guarded(f"{named(look)}, asked for signs,", _all_of, look, now) or ()
        signs.sort(key=lambda sign: -sign.level)
        before = self._system.health
        after = self._system.look(now, tuple(signs))
        if after.verdict != before.verdict:
            told = after.told(now)
            self._events.publish(SystemHealthChanged(now, before.verdict, after.verdict, told))

    def _of_services(self) -> list[Sign]:
        """Return what the services' own health says of the whole.

        Critical ones count in full, and so do all once half of those that are judged are unhealthy.
        """
        judged = [record for record in self._records() if record.health != "unknown"]
        many = 2 * sum([record.health == "unhealthy" for record in judged]) >= len(judged)
        found = []
        for record in judged:
            level = _RANK[record.health]
            if level:
                told = f"{record.name} is {record.health}: {record.health_reason}"
                kind: Any = f"service {record.name}"
                full = many or record.spec.priority >= CRITICAL
                found.append(Sign(kind, level if full else DEGRADED, told, certain=True))
        return found


def _all_of(look: Callable[[float], Iterable[Sign]], now: float) -> list[Sign]:
    return list(look(now))


def _since_when(record: ServiceRecord) -> float:
    """Return since when nothing was heard of a service but by pings: its load, or its last call."""
    instance = record.instance
    return instance.loaded_at if instance is not None and means(record) else record.last_used


def means(record: ServiceRecord) -> bool:
    """Tell whether a service's answer to a ping says anything of its calls: whether its author wrote it."""
    instance = record.instance
    hook = None if instance is None else getattr(instance.model, "ping", None)
    return hook is not None and getattr(hook, "__func__", None) is not ModelService.ping
