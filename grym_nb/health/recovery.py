"""Recovery: what is done about a service that is unhealthy, step by step, until a ping says it is mended.

Each step is stronger than the one before: `reset` empties caches and tries a failed load again, `reload` lets
calls end and loads anew, `restart` waits for nobody. What comes back soon after it was mended gets the next
step. When the budget is used up, a service whose ping is not answered is left as failed, which is said once,
with what to do.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from grym_nb.errors import GrymError, StateError
from grym_nb.events import BreakerChanged, RecoveryEnded, RecoveryGaveUp, ServiceRemoved
from grym_nb.health.remedies import DOES, RecoveryPolicy, Step, take
from grym_nb.health.signs import UNHEALTHY
from grym_nb.render import Table, count, seconds
from grym_nb.services.guards import ServiceBreaker
from grym_nb.services.mending import give_up, within
from grym_nb.services.status import ping

if TYPE_CHECKING:
    from grym_nb.hardening import CircuitBreaker
    from grym_nb.health.judge import Health
    from grym_nb.health.monitor import HealthMonitor
    from grym_nb.services.record import ServiceRecord
    from grym_nb.services.registry import ServiceRegistry

__all__ = ["Recovery"]

_STORY_LENGTH = 200  # attempts kept, of all services together
_SHOWN = 20
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Case:
    """One service that is being mended, or was lately."""

    #: the attempt under way; another one after each, so that one that was written off is not heard any more
    turn: _Turn | None = None
    began: float = 0.0
    at: int = 0  # the step that comes next
    pause: float = 0.0
    mended: float | None = None  # when it was, the last time
    failed: int = 0  # attempts in a row
    failures: deque[float] = field(default_factory=deque)  # when attempts failed, within the budget's time
    attempts: deque[float] = field(default_factory=deque)  # the same for all of them
    spent: bool = False  # its budget, which was said
    left: tuple[str, int] = ("", 0)  # its state, and how often it was loaded, after the last attempt
    known: tuple[int, int] = (0, 0)  # the versions of code and config then
    waiting: list[Callable[[], None]] = field(default_factory=list)  # who goes on when this is over

    @property
    def runs(self) -> bool:
        """Whether it is being mended."""
        return self.turn is not None


@dataclass(frozen=True, slots=True, eq=False)
class _Turn:
    """One attempt at a case: it goes on as long as it is the case's own turn."""

    record: ServiceRecord
    case: _Case
    policy: RecoveryPolicy
    reason: str


class Recovery:
    """Mends the services of a registry, as the monitor finds them unhealthy; `start` has it listen.

    `policies` has what is done about some of them by name; None there: nothing.
    """

    def __init__(
        self,
        monitor: HealthMonitor,
        registry: ServiceRegistry,
        *,
        policy: RecoveryPolicy | None = None,
        policies: Mapping[str, RecoveryPolicy | None] | None = None,
    ) -> None:
        ports = registry.ports
        self._monitor = monitor
        self._registry = registry
        self._ports = ports
        self._clock = ports.clock
        self._policy = policy or RecoveryPolicy()
        self._policies = dict(policies or {})
        self._lock = threading.Lock()
        self._cases: dict[str, _Case] = {}
        self._story: deque[RecoveryEnded | RecoveryGaveUp] = deque(maxlen=_STORY_LENGTH)
        self._ends: list[Callable[[], None]] = []

    def start(self) -> None:
        """Listen for services that become unhealthy, from now on."""
        if not self._ends:
            events = self._ports.events
            self._monitor.concerned.append(self._unhealthy)
            self._ends = [
                lambda: self._monitor.concerned.remove(self._unhealthy),
                events.subscribe(self._opened, BreakerChanged),
                events.subscribe(self._removed, ServiceRemoved),
            ]

    def close(self) -> None:
        """Listen no more; what is under way ends by itself. Idempotent."""
        ends, self._ends = self._ends, []
        for end in ends:
            end()

    def policy(self, name: str) -> RecoveryPolicy | None:
        """Return what is done about a service; None: it is not to be mended."""
        return self._policies.get(name, self._policy)

    def begin(self, name: str, reason: str, *, hangs: bool = False) -> bool:
        """Begin to mend a service, on a work thread; False where that is not to be, or is under way.

        Where a call `hangs`, the steps that would wait for it are left out.
        """
        policy = self.policy(name)
        handle = self._registry.get(name, None)
        if policy is None or handle is None or handle.state not in ("ready", "failed"):
            return False
        record = handle._record
        if record.given_up:
            return False  # until somebody says so
        with self._lock:
            case = self._cases.setdefault(name, _Case())
        turn = _Turn(record, case, policy, reason)
        try:
            with self._lock:
                if case.turn is not None:
                    return False
                told, case.spent = case.spent, not _due(case, record, policy, self._clock())
                spent = case.spent
                if not spent:
                    case.turn = turn
                if hangs and "restart" in policy.steps:
                    case.at = policy.steps.index("restart")
            if not spent:
                self._try(turn)
            elif not told:
                tried = f"{count(len(case.attempts), 'attempt')} within {seconds(policy.budget_seconds)}"
                _log.warning("%s is left to itself for a while, after %s: %s", name, tried, reason)
            return not spent
        except BaseException:  # Ctrl-C, or no thread can be started
            self._over(turn)
            raise

    # -- when --------------------------------------------------------------------------------------

    def _unhealthy(self, name: str, health: Health) -> None:
        policy = self.policy(name)
        kinds = {sign.kind for sign, _ in health.signs if sign.level == UNHEALTHY}
        if policy is not None and kinds & (set(policy.on) - {"breaker"}):
            self.begin(name, health.told(self._clock()), hangs="stuck" in kinds)

    def _opened(self, event: BreakerChanged) -> None:
        """Look into why a breaker opened; one that was tried out in vain was looked into before."""
        if (event.before, event.after) != ("closed", "open") or event.by_hand:
            return
        policy, handle = self.policy(event.name), self._registry.get(event.name, None)
        breaker = None if handle is None else _breaker(handle._record)
        if policy is None or "breaker" not in policy.on or breaker is None or breaker.policy.shadow:
            return
        job = partial(self._look_into, event, policy)
        self._ports.pulse.work(job, name=f"why the breaker of {event.name} is open")

    def _look_into(self, event: BreakerChanged, policy: RecoveryPolicy) -> None:
        """Mend a service whose breaker is open, if anything else speaks against it.

        Where its ping answers, what fails is what it was given, or what it asks: the breaker tries that by
        itself, after its time.
        """
        handle = self._registry.get(event.name, None)
        if handle is None:
            return
        if trouble := self._ping(handle._record, policy):
            self.begin(event.name, f"{event.reason}; {trouble}")
        elif standing := self._monitor.stands(event.name):
            self.begin(event.name, f"{event.reason}; {standing}", hangs=handle.state == "ready")

    def _removed(self, event: ServiceRemoved) -> None:
        with self._lock:
            self._cases.pop(event.service, None)

    # -- one attempt after the other ---------------------------------------------------------------

    def _try(self, turn: _Turn) -> None:
        pulse, name, allowed = self._ports.pulse, turn.record.name, turn.policy.attempt_seconds
        try:
            job = partial(self._attempt, turn)
            pulse.work(job, name=f"recovery of {name}", deadline=self._clock() + allowed)
        except BaseException:
            self._over(turn)
            raise

    def _attempt(self, turn: _Turn) -> None:
        """Take one step; at its end it is mended, or the next one is due, or there is none."""
        pulse, name, allowed = self._ports.pulse, turn.record.name, turn.policy.attempt_seconds
        late = None
        try:
            if turn.case.turn is not turn or self._by_somebody(turn):
                return
            step = turn.policy.steps[turn.case.at]
            ended = partial(self._ended, turn, step, self._clock())
            job = partial(ended, f"no end within {seconds(allowed)}")
            late = pulse.after(
                allowed,
                partial(pulse.work, job, name=f"end of the recovery of {name}"),
                name=f"deadline of the recovery of {name}",
            )
            trouble = self._mend(turn, step)
            if trouble is not None:
                ended(trouble)
        finally:
            if late is not None:
                late.cancel()
            self._over(turn)  # does nothing where that was said, or it goes on

    def _by_somebody(self, turn: _Turn) -> bool:
        """Tell whether somebody has unloaded or mended it since the last attempt, or is about to."""
        record, (left, loads) = turn.record, turn.case.left
        state = record.lifecycle.state
        if state == "ready" and record.loads != loads and not self._ping(record, turn.policy):
            self._monitor.renew(record.name)
            return True
        return state not in ("ready", "failed", "registered") or (state == "registered" and left != state)

    def _mend(self, turn: _Turn, step: Step) -> str | None:
        """Take a step and return what is wrong still; None: it goes on when what it needs is mended."""
        record = turn.record
        try:
            if self._waits_for_need(turn):
                return None
            loads = record.loads
            take(step, record, turn.policy)
            if trouble := self._ping(record, turn.policy) or self._monitor.stands(record.name):
                return trouble
            breaker = _breaker(record)
            if breaker is not None and record.loads != loads and not breaker.by_hand:
                breaker.close("the service was loaded anew")  # what failed before says nothing about it
            return ""
        except GrymError as error:
            return error.message
        except BaseException as error:  # also SystemExit: a thread of ours ends for nobody
            return f"{type(error).__name__}: {error}"

    def _ended(self, turn: _Turn, step: Step, began: float, trouble: str) -> None:
        """Take down how an attempt went, and what comes then; once, though it may end after its deadline."""
        record, case, now = turn.record, turn.case, self._clock()
        then = replace(turn, reason=trouble or turn.reason)
        if not self._hand_on(turn, then):
            return
        goes_on = False
        try:
            case.left = (record.lifecycle.state, record.loads)
            case.known = (record.code_version, record.config_version)
            case.attempts.append(now)
            outcome = "failed" if trouble else "helped"
            metrics = self._ports.metrics
            metrics.counter("recovery.attempts", service=record.name, step=step, outcome=outcome).add()
            self._say(RecoveryEnded(now, record.name, step, not trouble, now - began, then.reason))
            told = (
                f"did not help: {trouble}" if trouble else f"has mended it; it was because of {turn.reason}"
            )
            _log.warning("recovery of %s by %s, which %s, %s", record.name, step, DOES[step], told)
            if not trouble:
                metrics.histogram("recovery.seconds", service=record.name).record(now - case.began)
                case.mended = now
                self._monitor.renew(record.name)
            elif record.lifecycle.state != "closed":
                goes_on = self._failed(then)
        finally:
            if not goes_on:
                self._over(then)

    def _failed(self, turn: _Turn) -> bool:
        """Have the next step taken after a pause, the last one again as long as the budget lasts; or end."""
        record, case, policy, now = turn.record, turn.case, turn.policy, self._clock()
        case.failed += 1
        case.failures.append(now)
        if max(case.failed, _lately(case.failures, now - policy.budget_seconds)) < policy.budget:
            case.at = min(case.at + 1, len(policy.steps) - 1)
            pause, case.pause = case.pause, min(case.pause * policy.factor, policy.max_pause)
            self._ports.pulse.after(pause, partial(self._try, turn), name=f"recovery of {record.name}")
            return True
        if record.lifecycle.state != "ready" or self._ping(record, policy):
            self._give_up(turn)
        return False  # and one that answers is left to itself

    def _give_up(self, turn: _Turn) -> None:
        record, case, policy, trouble = turn.record, turn.case, turn.policy, turn.reason
        row, many = case.failed, len(case.failures)
        tried = f"{count(row, 'attempt')} in a row did not help"
        if many >= policy.budget:
            tried = f"{count(many, 'attempt')} within {seconds(policy.budget_seconds)} did not help"
        case.failed = 0
        case.failures.clear()  # who says that it is to be tried again means it
        case.attempts.clear()
        if not give_up(record, f"{tried}: {trouble}", 0.0):
            return  # somebody loads it, who will see
        self._ports.metrics.counter("recovery.given_up", service=record.name).add()
        hint = f"mend what is wrong, then grym.get({record.name!r}).reload(); %grym why shows the last error"
        self._say(RecoveryGaveUp(self._clock(), record.name, f"{tried}: {trouble}", hint))
        _log.warning("%s is left as failed: %s: %s; %s", record.name, tried, trouble, hint)

    def _hand_on(self, turn: _Turn, then: _Turn) -> bool:
        """Go on under another turn; False where the case was taken away from this one."""
        with self._lock:
            mine = turn.case.turn is turn
            if mine:
                turn.case.turn = then
        return mine

    def _over(self, turn: _Turn) -> None:
        """End the case, if it is still this turn's; who waits for it goes on."""
        case = turn.case
        with self._lock:
            if case.turn is not turn:
                return
            case.turn = None
            waiting, case.waiting = case.waiting, []
        for go_on in waiting:
            with suppress(Exception):  # where there is no thread for it, its own case is over
                go_on()

    # -- what is wrong -----------------------------------------------------------------------------

    def _ping(self, record: ServiceRecord, policy: RecoveryPolicy) -> str:
        """Return what a ping says is wrong; nothing where it answers, or nobody is there to be asked."""
        try:
            answer = within(self._ports, policy.ping_seconds, partial(ping, record), "no answer")
        except TimeoutError as error:
            return f"ping: {error}"
        except BaseException as error:
            return f"ping: {type(error).__name__}: {error}"
        return f"ping: {answer.problem}" if answer.ok is False else ""

    def _waits_for_need(self, turn: _Turn) -> bool:
        """Have what it cannot do without mended first, as a case of its own; True: it goes on after that.

        So one that several need is mended once. Raises where it is not to be mended.
        """
        record, case = turn.record, turn.case
        for need in record._family.before(record):
            if record._family.optional(record, need) or not (trouble := self._ill(need)):
                continue
            then = replace(turn)
            self.begin(need.name, trouble)
            with self._lock:
                other = self._cases.get(need.name)
                waits = other is not None and other.turn is not None
                if waits and case.turn is turn:
                    assert other is not None
                    case.turn = then
                    other.waiting.append(partial(self._try, then))
            if waits:
                return True
            if trouble := self._ill(need):
                left = f"left as failed until its reload(), {need.given_up}" if need.given_up else trouble
                raise StateError(f"it needs {need.name}: {left}", service=record.name)
        return False

    def _ill(self, need: ServiceRecord) -> str:
        if need.lifecycle.state == "failed":
            return need.lifecycle.story[-1].reason or "it could not be loaded"
        return self._ping(need, self.policy(need.name) or self._policy)

    # -- what was done -----------------------------------------------------------------------------

    def story(self, name: str | None = None) -> tuple[RecoveryEnded | RecoveryGaveUp, ...]:
        """Return what was done lately, about one service or all of them, oldest first."""
        return tuple(one for one in tuple(self._story) if name in (None, one.service))

    def table(self, name: str | None = None) -> Table:
        """Return what was done lately as a table, newest first."""
        columns = ("service", "when", "step", "helped", "why")
        rows = [self._row(one) for one in self.story(name)[: -_SHOWN - 1 : -1]]
        return Table("what recovery did", columns, rows, "nothing had to be mended")

    def _row(self, one: RecoveryEnded | RecoveryGaveUp) -> tuple[str, ...]:
        when = f"{seconds(self._clock() - one.at)} ago"
        if isinstance(one, RecoveryGaveUp):
            return (one.service, when, "left as failed", "", f"{one.reason}; {one.hint}")
        return (one.service, when, one.step, "yes" if one.helped else "no", one.reason)

    def _say(self, event: RecoveryEnded | RecoveryGaveUp) -> None:
        self._story.append(event)
        self._ports.events.publish(event)

    def _under_way(self) -> str:
        return ", ".join(name for name, case in tuple(self._cases.items()) if case.runs)

    def __repr__(self) -> str:
        mends = self._under_way()
        return f"{self.table().text()}\n{f'under way: {mends}' if mends else 'nothing is under way'}"

    def _repr_html_(self) -> str:
        return self.table().html()


def _due(case: _Case, record: ServiceRecord, policy: RecoveryPolicy, now: float) -> bool:
    """Make a case ready to begin (held); False where its budget is spent, and nobody has loaded it since."""
    known = (record.code_version, record.config_version)
    if record.loads != case.left[1] or known != case.known:
        case.failures.clear()
        case.attempts.clear()
    elif _lately(case.attempts, now - policy.budget_seconds) >= policy.budget:
        return False
    case.left, case.known = (record.lifecycle.state, record.loads), known
    case.began, case.pause, case.failed = now, policy.pause, 0
    relapsed = case.mended is not None and now - case.mended <= policy.relapse_seconds
    case.at = min(case.at + 1, len(policy.steps) - 1) if relapsed else 0
    return True


def _lately(times: deque[float], since: float) -> int:
    """Return how many there were since then; those before are forgotten."""
    while times and times[0] < since:
        times.popleft()
    return len(times)


def _breaker(record: ServiceRecord) -> CircuitBreaker | None:
    guard = record.breaker
    return guard.breaker if isinstance(guard, ServiceBreaker) else None
