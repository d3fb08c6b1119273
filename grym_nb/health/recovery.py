"""Recovery: what is done about a service that is unhealthy, step by step, until a ping says it is mended.

Each step is stronger than the one before: `reset` closes the breaker and empties caches, `reload` lets calls
end and loads anew, `restart` waits for nobody. What comes back soon after it was mended gets the next step.
When the budget is used up, the service is left as failed, which is said once, with what to do.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from grym_nb.errors import GrymError, StateError, says_what_it_takes
from grym_nb.events import BreakerChanged, RecoveryEnded, RecoveryGaveUp, ServiceRemoved
from grym_nb.hardening.policy import NUMBER, SECONDS, WHOLE, Fit, Policy
from grym_nb.hardening.returning import give_back
from grym_nb.health.signs import UNHEALTHY, Kind
from grym_nb.render import seconds
from grym_nb.services.mending import abandon, give_up, load_proven
from grym_nb.services.status import ping

if TYPE_CHECKING:
    from grym_nb.health.judge import Health
    from grym_nb.health.monitor import HealthMonitor
    from grym_nb.services.record import ServiceRecord
    from grym_nb.services.registry import ServiceRegistry

__all__ = ["Recovery", "RecoveryPolicy", "Step"]

Step = Literal["reset", "reload", "restart"]
_log = logging.getLogger(__name__)


@says_what_it_takes
@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryPolicy(Policy):
    """What is tried, in which order, and how often.

    `on` are the kinds of signs after which it is worth while: by default what another try may cure, and not
    that the author's code raises. Between two attempts are `pause` seconds, each time `factor` times as
    many, up to `max_pause`. A service that is unhealthy again within `relapse_seconds` of its last recovery
    gets the next step. No more than `budget` attempts are made within `budget_seconds`. `drain_seconds` is
    how long a reload waits for calls.
    """

    steps: tuple[Step, ...] = ("reset", "reload", "restart")
    on: tuple[str, ...] = ("breaker", "stuck", "ping")
    pause: float = 0.5
    factor: float = 2.0
    max_pause: float = 30.0
    relapse_seconds: float = 120.0
    budget: int = 8
    budget_seconds: float = 600.0
    drain_seconds: float = 5.0

    REFUSAL: ClassVar[str] = "nothing can be mended so"
    FITS: ClassVar[Mapping[str, Fit]] = {
        "steps": Fit(
            "some of reset, reload and restart",
            lambda value: isinstance(value, tuple) and bool(value) and set(value) <= _STEPS.keys(),
        ),
        "on": Fit(
            f"some of {', '.join(get_args(Kind))}",
            lambda value: isinstance(value, tuple) and set(value) <= set(get_args(Kind)),
        ),
        "pause": SECONDS,
        "factor": NUMBER,
        "max_pause": SECONDS,
        "relapse_seconds": SECONDS,
        "budget": WHOLE,
        "budget_seconds": SECONDS,
        "drain_seconds": SECONDS,
    }


@dataclass(slots=True)
class _Case:
    """One service that is being mended, or was lately."""

    runs: bool = False
    began: float = 0.0
    at: int = 0  # the step that comes next
    pause: float = 0.0
    mended: float | None = None  # when it was, the last time
    attempts: deque[float] = field(default_factory=deque)  # within the budget's time


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
        if policy is None or handle is None or handle.state in ("closed", "draining", "loading"):
            return False
        if handle._record.given_up:
            return False  # until somebody says so
        now = self._clock()
        with self._lock:
            case = self._cases.setdefault(name, _Case())
            if case.runs:
                return False
            case.runs, case.began, case.pause = True, now, policy.pause
            relapsed = case.mended is not None and now - case.mended <= policy.relapse_seconds
            case.at = min(case.at + 1, len(policy.steps) - 1) if relapsed else 0
            if hangs and "restart" in policy.steps:
                case.at = policy.steps.index("restart")
        self._try(handle._record, case, policy, reason)
        return True

    # -- when --------------------------------------------------------------------------------------

    def _unhealthy(self, name: str, health: Health) -> None:
        policy = self.policy(name)
        kinds = {sign.kind for sign, _ in health.signs if sign.level == UNHEALTHY}
        if policy is not None and kinds & set(policy.on):
            self.begin(name, health.told(self._clock()), hangs="stuck" in kinds)

    def _opened(self, event: BreakerChanged) -> None:
        policy = self.policy(event.name)
        again = event.before == "half open"  # its probes have failed: the breaker waits by itself
        if event.after == "open" and not again and policy is not None and "breaker" in policy.on:
            self.begin(event.name, event.reason)

    def _removed(self, event: ServiceRemoved) -> None:
        with self._lock:
            self._cases.pop(event.service, None)

    # -- one attempt after the other ---------------------------------------------------------------

    def _try(self, record: ServiceRecord, case: _Case, policy: RecoveryPolicy, reason: str) -> None:
        job = partial(self._attempt, record, case, policy, reason)
        self._ports.pulse.work(job, name=f"recovery of {record.name}")

    def _attempt(self, record: ServiceRecord, case: _Case, policy: RecoveryPolicy, reason: str) -> None:
        """Take one step; at its end it is mended, or the next one is due, or there is none."""
        now = self._clock()
        with self._lock:
            _forget(case.attempts, now - policy.budget_seconds)
            spent = len(case.attempts) >= policy.budget
            if not spent:
                case.attempts.append(now)
        if spent:
            self._give_up(record, case, policy, reason)
            return
        step = policy.steps[case.at]
        trouble = self._mend(record, step, policy)
        took = self._clock() - now
        outcome = "helped" if not trouble else "failed"
        self._ports.metrics.counter(
            "recovery.attempts", service=record.name, step=step, outcome=outcome
        ).add()
        self._ports.events.publish(
            RecoveryEnded(self._clock(), record.name, step, not trouble, took, trouble or reason)
        )
        if not trouble:
            self._mended(record, case)
        elif record.lifecycle.state == "closed":
            self._over(case)
        else:
            self._again(record, case, policy, trouble)

    def _again(self, record: ServiceRecord, case: _Case, policy: RecoveryPolicy, trouble: str) -> None:
        """Take the next step after a pause; the last one is taken again as long as the budget lasts."""
        case.at = min(case.at + 1, len(policy.steps) - 1)
        pause, case.pause = case.pause, min(case.pause * policy.factor, policy.max_pause)
        self._ports.pulse.after(
            pause,
            partial(self._try, record, case, policy, trouble),
            name=f"recovery of {record.name}",
        )

    def _mended(self, record: ServiceRecord, case: _Case) -> None:
        now = self._clock()
        self._ports.metrics.histogram("recovery.seconds", service=record.name).record(now - case.began)
        with self._lock:
            case.mended = now
        self._over(case)
        self._monitor.renew(record.name)

    def _give_up(self, record: ServiceRecord, case: _Case, policy: RecoveryPolicy, reason: str) -> None:
        tried = f"{policy.budget} attempts within {seconds(policy.budget_seconds)} did not help"
        give_up(record, f"{tried}: {reason}", 0.0)
        self._ports.metrics.counter("recovery.given_up", service=record.name).add()
        self._over(case)
        hint = f"mend what is wrong, then grym.get({record.name!r}).reload(); %grym why shows the last error"
        self._ports.events.publish(RecoveryGaveUp(self._clock(), record.name, f"{tried}: {reason}", hint))
        _log.warning("%s is left as failed: %s: %s; %s", record.name, tried, reason, hint)

    def _over(self, case: _Case) -> None:
        with self._lock:
            case.runs = False

    # -- the steps ---------------------------------------------------------------------------------

    def _mend(self, record: ServiceRecord, step: Step, policy: RecoveryPolicy) -> str:
        """Take a step, with what the service needs mended first; return what is wrong still."""
        try:
            for need in record._family.before(record):
                if need.lifecycle.state == "failed" or ping(need).ok is False:
                    self._of_need(need, policy)
            _STEPS[step](record, policy)
        except GrymError as error:
            return error.message
        answer = ping(record)
        if answer.ok is False:
            return f"ping: {answer.problem}"
        if standing := self._monitor.stands(record.name):
            return standing
        _close_breaker(record)
        return ""

    def _of_need(self, need: ServiceRecord, policy: RecoveryPolicy) -> None:
        """Mend what is needed first, by the step that leaves nothing as it was."""
        if self.policy(need.name) is None:
            raise StateError(f"{need.name}, which it needs, is not to be mended", service=need.name)
        _restart(need, policy)
        _close_breaker(need)
        self._monitor.renew(need.name)

    def __repr__(self) -> str:
        under_way = [name for name, case in self._cases.items() if case.runs]
        return f"<Recovery: {', '.join(under_way) or 'nothing'} under way>"


def _forget(times: deque[float], before: float) -> None:
    while times and times[0] < before:
        times.popleft()


def _close_breaker(record: ServiceRecord) -> None:
    guard: Any = record.breaker
    breaker = getattr(guard, "breaker", None)
    if breaker is not None:
        breaker.close()


def _reset(record: ServiceRecord, policy: RecoveryPolicy) -> None:
    """Let go of what is only remembered; what has failed to load is tried again."""
    record.ports.failures.clear(record.name)
    give_back()
    if record.lifecycle.state == "failed":
        load_proven(record)


def _reload(record: ServiceRecord, policy: RecoveryPolicy) -> None:
    abandon(record, "recovery", policy.drain_seconds)
    load_proven(record)


def _restart(record: ServiceRecord, policy: RecoveryPolicy) -> None:
    """As a reload, but nobody is waited for: a call that hangs keeps its model to itself."""
    abandon(record, "recovery", 0.0)
    load_proven(record)


_STEPS: dict[str, Callable[[ServiceRecord, RecoveryPolicy], None]] = {
    "reset": _reset,
    "reload": _reload,
    "restart": _restart,
}
