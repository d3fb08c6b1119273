"""Recovery: what is done about a service that is unhealthy, step by step, until what was wrong is gone.

Each step is stronger than the one before: `reset` empties caches and tries a failed load again, `reload` lets
calls end and loads anew, `restart` waits for nobody. A ping says that what hung, or did not answer, is
mended; where calls fail a step is on trial until calls have shown what it did. What comes back soon after it
was mended gets the next step. When the budget is used up, a service whose ping is not answered is left as
failed, as is at once what can never fit; that is said once, with what to do. One that answers is left to
itself for a while.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from grym_nb.errors import GrymError, ResourceExhausted, StateError
from grym_nb.events import BreakerChanged, RecoveryEnded, RecoveryGaveUp, RecoveryRests, ServiceRemoved
from grym_nb.health.case import Case, Turn
from grym_nb.health.given import check_service
from grym_nb.health.monitor import means
from grym_nb.health.remedies import DOES, Policies, RecoveryPolicy, Step, lacks, take
from grym_nb.health.signs import UNHEALTHY
from grym_nb.health.story import Story, Told, in_words
from grym_nb.health.trial import OF_CALLS, Outcome, Trial, outcome_of, proof_of
from grym_nb.render import Table, count, seconds
from grym_nb.services.guards import breaker_of
from grym_nb.services.mending import give_up, within
from grym_nb.services.status import ping

if TYPE_CHECKING:
    from grym_nb.health.judge import Health
    from grym_nb.health.monitor import HealthMonitor
    from grym_nb.services.record import ServiceRecord
    from grym_nb.services.registry import ServiceRegistry

__all__ = ["Recovery"]

_log = logging.getLogger(__name__)


class Recovery:
    """Mends the services of a registry, as the monitor finds them unhealthy; `start` has it listen.

    `policies` has what is done about some of them by name; None there: nothing, as where a service's class
    says ``recoverable = False``.
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
        self._policies = Policies(registry, policy or RecoveryPolicy(), policies or {})
        self._lock = threading.Lock()
        self._cases: dict[str, Case] = {}
        self._story = Story(ports.clock)
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
        check_service(self._registry, name, self._policies.own)
        return self._policies.of(name)

    def begin(
        self, name: str, reason: str, *, hangs: bool = False, proof: Collection[str] | None = None
    ) -> bool:
        """Begin to mend a service, on a work thread; False where that is not to be, or is under way.

        Where a call `hangs`, the steps that would wait for it are left out. `proof` are the signs that calls
        have to show as gone ("errors", "slow", no others) before a step is said to have helped; without any a
        ping says so. By default that is a load, or a ping that its author has written, and else calls that do
        not fail.
        A step that is on trial has not helped then: the next one is taken, from the same budget.
        """
        signs = None if proof is None else proof_of(proof)
        policy = self._policies.of(name)
        handle = self._registry.get(name, None)
        if policy is None or handle is None or handle.state not in ("ready", "failed"):
            return False
        record = handle._record
        if record.given_up or lacks(record):
            return False  # until somebody says so
        with self._lock:
            case = self._cases.setdefault(name, Case())
        if (trial := case.trial) is not None and trial.replaced:
            self._settle(trial, "unproven", "")
        if signs is None:
            asked = hangs or handle.state == "failed" or means(record)
            signs = frozenset() if asked else frozenset({"errors"})
        turn = Turn(record, case, policy, reason, signs)
        restart = policy.steps.index("restart") if hangs and "restart" in policy.steps else None
        try:
            with self._lock:
                if case.turn is not None:
                    return False
                trial = case.trial  # which goes as its end is taken down: Ctrl-C in here does not lose it
                if trial is not None:
                    turn = replace(turn, proof=turn.proof | trial.signs, goes_to=restart)
                told, due = case.spent, trial is not None or case.due(record, policy, self._clock())
                case.spent = not due
                if due:
                    case.turn = turn
                if restart is not None and trial is None:
                    case.at = restart
            if trial is not None:
                self._work(turn, partial(self._ended, turn, trial.step, trial.began, reason))
            elif due:
                self._try(turn)
            elif not told:
                tried = f"{count(len(case.attempts), 'attempt')} within {seconds(policy.budget_seconds)}"
                self._rest(turn, f"{tried}: {reason}")
            return due
        except BaseException:  # Ctrl-C, or no thread can be started
            self._over(turn)
            raise

    # -- when --------------------------------------------------------------------------------------

    def _unhealthy(self, name: str, health: Health) -> None:
        policy, handle = self._policies.of(name), self._registry.get(name, None)
        kinds = {str(sign.kind) for sign, _ in health.signs if sign.level == UNHEALTHY}
        heard = OF_CALLS if self._trial_of(name) is not None else frozenset()  # since the step, and no others
        if policy is None or handle is None or not (kinds - heard) & (set(policy.on) - {"breaker"}):
            return
        # Where something else spoke against it as well, that is seen to go.
        seen = kinds & {"state", "stuck"} or ("ping" in kinds and means(handle._record))
        proof = frozenset() if seen else kinds & OF_CALLS
        self.begin(name, health.told(self._clock()), hangs="stuck" in kinds, proof=proof)

    def _opened(self, event: BreakerChanged) -> None:
        """Look into why a breaker opened; one that was tried out in vain was looked into before.

        While a step is on trial that says enough of calls, unless another model is there by now.
        """
        if event.after != "open" or event.by_hand:
            return
        policy, handle = self._policies.of(event.name), self._registry.get(event.name, None)
        breaker = None if handle is None else breaker_of(handle._record)
        if policy is None or breaker is None or breaker.policy.shadow:
            return
        work = partial(self._ports.pulse.work, name=f"why the breaker of {event.name} is open")
        trial = self._trial_of(event.name)
        if trial is not None:
            work(partial(self._settle, trial, "failed", event.reason))
        if (trial is None or trial.replaced) and "breaker" in policy.on and event.before == "closed":
            work(partial(self._look_into, event, policy))

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
            self.begin(event.name, f"{event.reason}; {standing}", hangs=handle.state == "ready", proof=())

    def _removed(self, event: ServiceRemoved) -> None:
        with self._lock:
            case = self._cases.pop(event.service, None)
            if case is not None:
                case.trial = None

    # -- one attempt after the other ---------------------------------------------------------------

    def _try(self, turn: Turn) -> None:
        self._work(turn, partial(self._attempt, turn))

    def _work(self, turn: Turn, job: Callable[[], None]) -> None:
        name, deadline = f"recovery of {turn.record.name}", self._clock() + turn.policy.attempt_seconds
        try:
            self._ports.pulse.work(job, name=name, deadline=deadline)
        except BaseException:
            self._over(turn)
            raise

    def _attempt(self, turn: Turn) -> None:
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
                ended(*trouble)
        finally:
            if late is not None:
                late.cancel()
            self._over(turn)  # does nothing where that was said, or it goes on

    def _by_somebody(self, turn: Turn) -> bool:
        """Tell whether somebody has unloaded or mended it since the last attempt, or is about to."""
        record, (left, loads) = turn.record, turn.case.left
        state = record.lifecycle.state
        if state == "ready" and record.loads != loads and not self._ping(record, turn.policy):
            self._monitor.renewed(record)
            return True
        return state not in ("ready", "failed", "registered") or (state == "registered" and left != state)

    def _mend(self, turn: Turn, step: Step) -> tuple[str, str] | None:
        """Take a step and return what is wrong still; None: it goes on when what it needs is mended.

        With it comes what somebody has to do, where no other attempt can change that.
        """
        record = turn.record
        try:
            if self._waits_for_need(turn):
                return None
            loads = record.loads
            try:
                take(step, record, turn.policy)
            except ResourceExhausted as error:
                if error.can_change:
                    raise
                return error.message, error.hint or "mend what is wrong"  # it can never fit
            if trouble := self._ping(record, turn.policy) or self._monitor.stands(record.name):
                return trouble, ""
            breaker = breaker_of(record)
            if breaker is not None and record.loads != loads and not breaker.by_hand:
                breaker.close("the service was loaded anew")  # what failed before says nothing about it
            return "", ""
        except GrymError as error:
            return error.message, ""
        except BaseException as error:  # also SystemExit: a thread of ours ends for nobody
            return f"{type(error).__name__}: {error}", ""

    def _ended(self, turn: Turn, step: Step, began: float, trouble: str, remedy: str = "") -> None:
        """Take down how an attempt went, and what comes then; once, though it may end after its deadline.

        With a `remedy`, which is for somebody else, no other attempt is made. Of a service that was removed
        meanwhile nothing is said.
        """
        record, case = turn.record, turn.case
        then = replace(turn, reason=trouble or turn.reason, goes_to=None)
        if not self._hand_on(turn, then):
            return
        goes_on = False
        try:
            if self._is_gone(record):
                return
            case.left = (record.lifecycle.state, record.loads)
            case.known = (record.code_version, record.config_version)
            if not trouble and turn.proof:
                self._put_on_trial(then, step, began)
                return
            self._take_down(then, step, began, "failed" if trouble else "helped")
            if trouble:
                goes_on = self._failed(then, turn.goes_to, remedy)
        finally:
            if not goes_on:
                self._over(then)

    def _is_gone(self, record: ServiceRecord) -> bool:
        """Tell whether it was closed, or removed: then its name is nobody's, or another's."""
        handle = self._registry.get(record.name, None)
        return handle is None or handle._record is not record or record.lifecycle.state == "closed"

    def _take_down(self, turn: Turn, step: Step, began: float, outcome: Outcome, shown: str = "") -> None:
        """Say what a step did, and why it was taken; or what was wrong, if it did not help."""
        case, now = turn.case, self._clock()
        metrics, name = self._ports.metrics, turn.record.name
        metrics.counter("recovery.attempts", service=name, step=step, outcome=outcome).add()
        helped = None if outcome == "unproven" else outcome == "helped"
        why = f"{turn.reason}; {shown}" if shown else turn.reason
        if helped:  # before that is said: who hears of it may look at the service's health
            self._monitor.renewed(turn.record)
        self._say(RecoveryEnded(now, name, step, helped, now - began, why))
        told = in_words(outcome, turn.reason, shown)
        _log.warning("recovery of %s by %s, which %s, %s", name, step, DOES[step], told)
        if outcome != "unproven":
            case.attempts.append(now)
        if outcome != "failed":
            case.mended = now
        if outcome == "helped":
            metrics.histogram("recovery.seconds", service=name).record(now - case.began)

    # -- on trial ----------------------------------------------------------------------------------

    def _put_on_trial(self, turn: Turn, step: Step, began: float) -> None:
        """Have calls show what a step did; those that come while its breaker is open are not let in yet."""
        record, case, now = turn.record, turn.case, self._clock()
        breaker = breaker_of(record)
        until, usual = now + turn.policy.relapse_seconds, self._monitor.usual(record.name)
        until += 0.0 if breaker is None else breaker.snapshot().retry_after or 0.0
        case.trial = trial = Trial.of(record, step, turn.reason, turn.proof, began, now, until, usual)
        self._monitor.renewed(record, broken=f"no call was answered since a {step}; before: {turn.reason}")
        _log.warning(
            "recovery of %s by %s, which %s, is on trial: its calls have to show whether that helped; it was "
            "because of %s",
            *(record.name, step, DOES[step], turn.reason),
        )
        self._look_later(trial)

    def _look_later(self, trial: Trial) -> None:
        wait = trial.looked_at_in(self._monitor.look_seconds, self._clock())
        with suppress(StateError):  # all is being closed
            self._ports.pulse.after(wait, partial(self._look_at, trial), name=f"trial of {trial.record.name}")

    def _look_at(self, trial: Trial) -> None:
        if self._trial_of(trial.record.name) is not trial:
            return
        known = outcome_of(trial, self._clock(), self._monitor.limits)
        if known is None:
            self._look_later(trial)
        else:
            self._settle(trial, *known)

    def _settle(self, trial: Trial, outcome: Outcome, shown: str) -> None:
        """End a trial, if it is still under way: with the next step where its step did not help."""
        name = trial.record.name
        case, policy = self._cases.get(name), self._policies.of(name)
        if case is None or policy is None or case.trial is not trial:
            return
        if case.runs:  # it has only just been put on trial, or is about to be over
            self._look_later(trial)
            return
        outcome, shown = trial.known(outcome, shown)
        try:
            if outcome == "failed" and self.begin(name, shown, proof=trial.signs):
                return
        except BaseException:  # there is no thread for it now
            self._look_later(trial)
            raise
        with self._lock:
            runs = case.turn is not None
            mine = case.trial is trial and not runs
            if mine:
                case.trial = None
        if runs:  # somebody else has begun to end it
            self._look_later(trial)
        elif mine:  # and nothing can be done now, if it did not help
            reason = shown if outcome == "failed" else trial.reason
            shown = "" if outcome == "failed" else shown
            turn = Turn(trial.record, case, policy, reason)
            self._take_down(turn, trial.step, trial.began, outcome, shown)

    def _trial_of(self, name: str) -> Trial | None:
        case = self._cases.get(name)
        return None if case is None else case.trial

    def _failed(self, turn: Turn, goes_to: int | None, remedy: str) -> bool:
        """Have the next step taken after a pause, the last one again as long as the budget lasts; or end."""
        record, case, policy, now = turn.record, turn.case, turn.policy, self._clock()
        failed, state = case.fails(policy, now), record.lifecycle.state
        if lacks(record):
            return False  # no step of its own can help
        if remedy and state in ("registered", "failed"):
            self._give_up(turn, "another attempt would change nothing", remedy)
        elif failed < policy.budget:
            pause = case.goes_on(policy, goes_to)
            self._ports.pulse.after(pause, partial(self._try, turn), name=f"recovery of {record.name}")
            return True
        elif state != "ready" or self._ping(record, policy):
            self._give_up(turn, case.tried(policy), "mend what is wrong")
        else:  # what takes long to show does not begin anew with the whole budget
            case.alone, case.spent = now, True
            self._rest(turn, f"{case.tried(policy)}: {turn.reason}")
        return False

    def _rest(self, turn: Turn, why: str) -> None:
        now, name = self._clock(), turn.record.name
        left = turn.case.rests(turn.policy, now)
        self._say(RecoveryRests(now, name, left, why))
        _log.warning("%s is left to itself for %s: %s", name, seconds(left), why)

    def _give_up(self, turn: Turn, tried: str, remedy: str) -> None:
        record, case, trouble = turn.record, turn.case, turn.reason
        case.failed = 0
        case.failures.clear()  # who says that it is to be tried again means it
        case.attempts.clear()
        if not give_up(record, f"{tried}: {trouble}", 0.0):
            return  # somebody loads it, who will see
        self._ports.metrics.counter("recovery.given_up", service=record.name).add()
        hint = f"{remedy}, then grym.get({record.name!r}).reload(); %grym why shows the last error"
        self._say(RecoveryGaveUp(self._clock(), record.name, f"{tried}: {trouble}", hint))
        _log.warning("%s is left as failed: %s: %s; %s", record.name, tried, trouble, hint)

    def _hand_on(self, turn: Turn, then: Turn) -> bool:
        """Go on under another turn, and without what was on trial; False where this one has lost the case."""
        with self._lock:
            return turn.hand_on(then)

    def _over(self, turn: Turn) -> None:
        """End the case, if it is still this turn's; who waits for it goes on."""
        with self._lock:
            waiting = turn.over()
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

    def _waits_for_need(self, turn: Turn) -> bool:
        """Have what it cannot do without mended first, as a case of its own; True: it goes on after that.

        So one that several need is mended once. Raises where it is not to be mended.
        """
        record, case = turn.record, turn.case
        for need in record._family.required(record):
            if not (trouble := self._ill(need)):
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
        return self._ping(need, self._policies.of(need.name) or self._policies.usual)

    # -- what was done -----------------------------------------------------------------------------

    def story(self, name: str | None = None) -> tuple[Told, ...]:
        """Return what was done lately, about one service or all of them, oldest first."""
        if name is not None and not self._story.of(name):  # of one that was removed there may be something
            check_service(self._registry, name, self._policies.own)
        return self._story.of(name)

    def table(self, name: str | None = None) -> Table:
        """Return what was done lately as a table, newest first."""
        trials = [case.trial for case in tuple(self._cases.values()) if case.trial is not None]
        return self._story.table(name, trials)

    def _say(self, event: Told) -> None:
        self._story.add(event)
        self._ports.events.publish(event)

    def __repr__(self) -> str:
        mends = ", ".join(name for name, case in tuple(self._cases.items()) if case.runs)
        return f"{self.table().text()}\n{f'under way: {mends}' if mends else 'nothing is under way'}"

    def _repr_html_(self) -> str:
        return self.table().html()
