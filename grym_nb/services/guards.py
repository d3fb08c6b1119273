"""What stands around the engine by a service's own policy: its breaker, and what answers instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from grym_nb.errors import (
    BreakerOpen,
    CallCancelled,
    CallTimeout,
    GrymError,
    LoadFailed,
    QueueFull,
    ResourceExhausted,
    ServiceClosed,
    ServiceNotReady,
    StateError,
    TaskFailed,
    ValidationError,
)
from grym_nb.hardening import CircuitBreaker
from grym_nb.services.attempts import attempts
from grym_nb.services.outcome import typed

if TYPE_CHECKING:
    from grym_nb.services.frame import Frame
    from grym_nb.services.record import ServiceRecord

__all__ = ["ServiceBreaker", "answering", "breaker_in_words", "breaker_of", "guard", "may_fall_back"]

#: errors that say that the service is failing; others are answers, or say nothing
_FAILURES = (TaskFailed, LoadFailed, CallTimeout, ResourceExhausted)
#: what kept a call from being made says nothing about who would have answered
_NOTHING = (QueueFull, BreakerOpen, CallCancelled, StateError, ServiceClosed, ServiceNotReady)


class ServiceBreaker:
    """A circuit breaker as the path of a call asks it: one turn a call, told once."""

    def __init__(self, breaker: CircuitBreaker) -> None:
        self.breaker = breaker

    def ask(self, frame: Frame) -> None:
        """Take a turn for a call, or raise `BreakerOpen`; what a call of this service calls rides on it."""
        if frame.parent is not None and frame.within(frame.record):
            return
        try:
            # In a list, from which it is taken once: also when the deadline comes as the engine ends.
            frame.turns = [self.breaker.ask()]
        except BreakerOpen as refusal:
            name = frame.record.name
            refusal.service, refusal.task = name, frame.task
            refusal.hint = f"call it again then; once it is mended: grym.get({name!r}).breaker.close()"
            raise

    def told(self, frame: Frame, seconds: float, error: BaseException | None) -> None:
        """Hear how the engine, or a load, did for a call."""
        turn = _taken(frame)
        if turn is None:
            return
        if error is None:
            self.breaker.answered(turn, seconds, failed=False)
        elif _says_nothing(error):
            self.breaker.give_back(turn)
        else:
            failed = isinstance(error, _FAILURES) and self._counts(error)
            self.breaker.answered(turn, seconds, failed=failed)

    def over(self, frame: Frame) -> None:
        """Hear that a call is over; one that has not reached the engine says nothing."""
        turn = _taken(frame)
        if turn is not None:
            self.breaker.give_back(turn)

    def _counts(self, error: GrymError) -> bool:
        counts = self.breaker.policy.counts
        raised = getattr(error, "raised", None)
        if raised is not None and isinstance(counts, (type, tuple)):
            return issubclass(raised, counts) or not issubclass(raised, Exception)
        return self.breaker.is_failure(error)


def _says_nothing(error: BaseException) -> bool:
    if not isinstance(error, Exception) or isinstance(error, _NOTHING):
        return True
    return isinstance(error, CallTimeout) and bool(error.details.get("waiting"))  # for somebody else


def _taken(frame: Frame) -> int | None:
    turns = frame.turns
    try:
        return turns.pop() if turns else None
    except IndexError:  # another thread was faster
        return None


def answering(fallback: Callable[..., Any]) -> Callable[[Frame, GrymError], Any]:
    """Return what answers a call of which every attempt has failed."""

    def answer(frame: Frame, error: GrymError) -> Any:
        try:
            value = fallback(error, *frame.args, **frame.kwargs)
        except Exception as raised:
            told = typed(frame, raised)
            if isinstance(told, TaskFailed) and told is not raised:
                told.message = f"the fallback of {frame.title} raised {told.details['error']}: {raised}"
                told.cause = f"it was asked since {error.message}"
            raise told from None
        frame.fell_back = error.code
        return value

    return answer


def guard(record: ServiceRecord, what: tuple[str, ...]) -> None:
    """Put a record's policy in force after `what` of its spec has changed (held).

    That is steps 3 to 5 of its calls, their deadline, and how long the line may be.
    """
    ports, policy = record.ports, record.spec.policy(record.ports.settings)
    before, record.policy = record.__dict__.get("policy"), policy
    record.timeout = policy.timeout
    record.lane.most_waiting = policy.max_waiting
    record.fallback = ports.fallback if policy.fallback is None else answering(policy.fallback)
    record.retry = ports.retry or (attempts if policy.retry is not None else None)
    record.wrapped = record.fallback is not None or record.retry is not None
    if before is None or before.retry != policy.retry:
        record.retry_budget = None if policy.retry is None else policy.retry.new_budget()
    if policy.breaker is None:
        record.breaker = ports.breaker
    elif before is None or before.breaker != policy.breaker or {"code", "config"} & set(what):
        # What has failed with other code says nothing about this one.
        made = CircuitBreaker(record.name, policy.breaker, clock=ports.clock, events=ports.events)
        record.breaker = ServiceBreaker(made)


def breaker_of(record: ServiceRecord) -> CircuitBreaker | None:
    """Return a record's breaker; None where its policy has none."""
    guard = record.breaker
    return guard.breaker if isinstance(guard, ServiceBreaker) else None


def breaker_in_words(record: ServiceRecord) -> str:
    """Return how a record's breaker stands, in words; nothing where its policy has none."""
    breaker = breaker_of(record)
    return "" if breaker is None else str(breaker.snapshot())


def may_fall_back(frame: Frame, error: GrymError) -> bool:
    """Tell whether something else may answer: not where the caller is at fault, or waits no more."""
    return not frame.cancelled and not isinstance(error, (ValidationError, ServiceClosed))
