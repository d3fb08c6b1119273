"""The whole path of a call, step by step, from its caller to the model.

::

     1 validate     the task's declared checks; the deadline is fixed here
     2 cached?      a result cache may answer
     3 fallback (   what answers when all else fails
     4  retry (     only errors that can change; nothing is held during back-off
     5   breaker    refuse fast, before anything is loaded
     6   enter      counted in: nothing unloads the service; loaded if need be
     7   slot       of the lane
     8   device     its turn on the card, taken last and given back first; its chain's, where that has one
     9   deadline   what is left is passed on, through the frame
    10   engine ))
    11 observe      metrics, events, context, tape; a typed error

A call runs in its caller's thread when a slot is free and nobody waits, and it has no timeout, is not async
and not submitted. Else 1-2 run in the caller and 3-11, the load too, on a worker.
"""

from __future__ import annotations

from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from grym_nb.errors import (
    CallBlocked,
    GrymError,
    QueueFull,
    ServiceClosed,
    ValidationError,
)
from grym_nb.services.attempts import attempts
from grym_nb.services.call import Call
from grym_nb.services.engines import run
from grym_nb.services.frame import CURRENT, PLAIN, Frame, Options
from grym_nb.services.guards import may_fall_back
from grym_nb.services.held import Stream
from grym_nb.services.outcome import conclude, observe, result_of, typed, unpinned
from grym_nb.services.parts import compute, once_more, short_of
from grym_nb.services.reload.back import answer_before
from grym_nb.services.reload.probation import passed, serving_of
from grym_nb.services.turns import give, resumed, take

if TYPE_CHECKING:
    from grym_nb.services.model import TaskSpec
    from grym_nb.services.record import ServiceRecord

__all__ = ["answered", "begin", "submitted"]


def begin(
    record: ServiceRecord, spec: TaskSpec, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options
) -> Frame:
    """Step 1: check the arguments, fix the deadline."""
    frame = Frame(record, spec, args, kwargs, options, record.ports.clock())
    problems = spec.checker.problems(args, kwargs)
    if problems:
        error = ValidationError(
            f"{frame.title} does not take these arguments",
            problems=problems,
            hint=f"it takes {spec.signature}",
            service=record.name,
            task=spec.method,
        )
        observe(frame, None, error)
        raise error
    return frame


def answered(
    record: ServiceRecord, spec: TaskSpec, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options
) -> Any:
    """Steps 1 and 2, and the choice of the thread."""
    frame = begin(record, spec, args, kwargs, options)
    if record.ports.cache is not None:
        hit, value = record.ports.cache(frame)
        if hit:
            observe(frame, value, None, outcome="cached")
            return value
    if spec.kind == "generator" or spec.kind == "async generator":
        return Stream(frame, conclude)
    lane = record.lane
    if (
        options.timeout is None
        and record.timeout is None
        and spec.kind == "plain"
        and (lane.open or (frame.parent is not None and lane.reenters(frame)))
    ):
        if frame.parent is None or frame.parent.lease is None:
            return _here(frame)
        with resumed(frame.parent):
            return _here(frame)
    call = _queue(frame)
    try:
        return call.result()
    except CallBlocked:
        call.cancel()
        raise


def _here(frame: Frame) -> Any:
    """Steps 3 to 11 in the caller's thread, and the end of the call."""
    try:
        return _answer(frame)
    finally:
        frame.ended = True
        if frame.inside or frame.place is not None:
            frame.record.let_go(frame)  # Ctrl-C came between two steps
        frame.end()


def submitted(frame: Frame) -> Call:
    """Step 2, else put the call in line for a worker; never blocks."""
    cache = frame.record.ports.cache
    hit, value = (False, None) if cache is None else cache(frame)
    if not hit:
        return _queue(frame)
    call = Call(frame, outcome=result_of, observe=partial(observe, outcome="cached"))
    call.settle(value)
    frame.end()
    return call


def _queue(frame: Frame) -> Call:
    """Put the call in line for a worker."""
    record = frame.record
    frame.inline = False
    frame.waiting_since = frame.started
    call = Call(frame, outcome=result_of, observe=observe)
    context = copy_context()
    try:
        record.accept(frame)
        record.lane.submit(frame, lambda: context.run(_serve, frame, call))
        if frame.deadline is not None:
            pulse = record.ports.pulse
            expire = partial(call.expire, on_pulse=True)
            call.timer = pulse.at(frame.deadline, expire, name=f"deadline of {frame.title}")
            if call.done():
                call.timer.cancel()  # it ended before it had a timer to cancel
    except (ServiceClosed, QueueFull) as error:
        record.abandon(frame)
        observe(frame, None, error)
        raise
    except BaseException:
        call.cancel()
        if call.ticket is None or call.ticket.claim():
            record.let_go(frame)  # Ctrl-C came before a worker had it
        raise
    return call


def _serve(frame: Frame, call: Call) -> None:
    """Steps 3 to 11 on a worker, and the end of the call."""
    value, error = None, None
    frame.waited = frame.waited_by(frame.record.ports.clock())
    frame.waiting_since = frame.stood = None
    try:
        value = _answer(frame)
    except BaseException as raised:
        error = raised
    finally:
        # Before the slot there may have been an error: then it is given back here.
        frame.record.lane.leave(frame)
        frame.record.abandon(frame)
    call.settle(value, error)
    frame.end()


def _answer(frame: Frame) -> Any:
    """Steps 3 to 11, in this thread."""
    try:
        if not frame.record.wrapped and not frame.options.retries:
            value = _attempt(frame)  # the usual case, without the two steps that only wrap it
        else:
            value = _with_fallback(frame)
    except BaseException as raised:
        error = conclude(frame, raised) or raised
    else:
        if frame.call is None:  # else its end is seen when the call is settled
            observe(frame, value, None)
        return value
    # Raised from here, without the frames below: they hold the model, and IPython keeps the last
    # traceback for as long as the kernel lives. `%grym why` has them as text.
    raise unpinned(error) from None


def _with_fallback(frame: Frame) -> Any:
    """Steps 3 and 4: attempts, with nothing held between them, and what answers when all fail."""
    record = frame.record
    try:
        return (record.retry or attempts)(frame, _attempt)
    except GrymError as error:
        if record.fallback is None or not may_fall_back(frame, error):
            raise
        return record.fallback(frame, error)


def _attempt(frame: Frame) -> Any:
    """Step 5, and those that it guards."""
    breaker = frame.record.breaker
    if breaker is None:
        return _enter(frame)
    breaker.ask(frame)
    try:
        return _enter(frame)
    finally:
        breaker.over(frame)


def _enter(frame: Frame) -> Any:
    """Steps 6 to 10."""
    record = frame.record
    while True:
        instance = record.enter(frame, slot=True)  # 6
        try:
            if frame.place is None:
                record.lane.take(frame)  # 7
            on_none = instance.device is None and instance.located is record.policy
            # An instance that was let go of while we waited is not the one to call: enter anew.
            if (on_none or take(frame)) and (frame.place is None or frame.place.epoch == instance.epoch):  # 8
                return _engine(frame)  # 9, 10
        finally:
            if frame.lease is not None:
                give(frame)
            record.leave(frame)


def _engine(frame: Frame) -> Any:
    """Step 10: the author's code, with the frame as its context (9), and typed errors out of it."""
    ports = frame.record.ports
    spec = cast("TaskSpec", frame.spec)
    breaker = frame.record.breaker
    began = ports.clock() if breaker is not None else 0.0
    token = CURRENT.set(frame)
    try:
        frame.at_work = True
        if frame.cancelled or frame.deadline is not None:
            frame.check()
        if spec.takes_context and ports.context is not None and spec.lacks_context(frame.args, frame.kwargs):
            frame.kwargs["context"] = ports.context(frame)
        serving = frame.instance.serving  # type: ignore[union-attr]
        simple = frame.parent is None and frame.options is PLAIN and serving.split is None
        if not simple or spec.method not in serving.tasks:
            serving = serving_of(frame)
        frame.serving = serving
        large = spec.batch or frame.instance.learns  # type: ignore[union-attr]
        value = compute(frame) if large else run(frame)
    except BaseException as raised:
        short = short_of(frame, raised)
        error = None
        if short is None:
            answered, value = answer_before(frame, raised)
            error = None if answered else typed(frame, raised)
    else:
        if serving.probation is not None:
            passed(frame, serving)
        if breaker is not None:
            breaker.told(frame, ports.clock() - began, None)
        return value
    finally:
        CURRENT.reset(token)
    if short is not None:  # from here, where nothing of what did not fit is held any more
        value, error = once_more(frame, short)
    if breaker is not None and (error is None or isinstance(error, GrymError)):
        breaker.told(frame, ports.clock() - began, error)
    if error is not None:
        frame.at_work = False  # until its next attempt, if there is one
        raise error
    return value
