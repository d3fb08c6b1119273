"""What recovery may do to a service that nobody else may: let go of it, prove a load, leave it as failed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from grym_nb.clock import wait
from grym_nb.errors import GrymError, ServiceNotReady, StateError
from grym_nb.render import seconds
from grym_nb.services.frame import CURRENT
from grym_nb.services.retire import Retirement, retire

if TYPE_CHECKING:
    from grym_nb.services.frame import Frame
    from grym_nb.services.ports import Ports
    from grym_nb.services.record import ServiceRecord

__all__ = ["abandon", "give_up", "load_proven", "prove", "refuse_load_within", "wake_if_idle", "within"]

T = TypeVar("T")


def abandon(record: ServiceRecord, reason: str, timeout: float) -> None:
    """Let go of what is loaded; calls that still run after `timeout` seconds keep it to themselves."""
    try:
        retire(record, Retirement(reason, timeout))
    except GrymError as error:  # somebody else loads or drains it, which is as good
        if record.lifecycle.state == "ready":
            raise error from None


def load_proven(record: ServiceRecord, allowed: float) -> None:
    """Load, and ping what was made before any call gets to it: a ping that raises is a failed load.

    So is one that has not answered after `allowed` seconds.
    """
    record.proves = allowed
    try:
        record.load()
    finally:
        record.proves = 0.0


def prove(record: ServiceRecord, model: object, frame: Frame) -> None:
    """Ping a model that is not in service yet; raises what the ping raises, or that it does not answer."""
    hook = getattr(model, "ping", None)
    if hook is None:
        return

    def ask() -> None:
        CURRENT.set(frame)  # what it calls is called within the load, as the rest of that
        hook()

    within(record.ports, record.proves, ask, "its ping gave no answer")


def within(ports: Ports, allowed: float, ask: Callable[[], T], missed: str) -> T:
    """Return what `ask` returns, asked on another thread: nobody waits for it longer than is `allowed`.

    Raises what it raises, and TimeoutError where it takes longer; the thread is left to it then.
    """
    clock, lock = ports.clock, threading.RLock()
    told = threading.Condition(lock)
    answers: list[tuple[T | None, BaseException | None]] = []

    def run() -> None:
        try:
            answers.append((ask(), None))
        except BaseException as error:
            answers.append((None, error))
        with lock:
            told.notify_all()

    def look() -> None:
        while not answers and clock() < until:
            wait(clock, told, until)

    ports.workers.run(run)
    until = clock() + allowed
    with lock:
        look()
    if not answers:
        raise TimeoutError(f"{missed} within {seconds(allowed)}")
    value, error = answers.pop()
    if error is None:
        return value  # type: ignore[return-value]  # None only where `ask` gives that
    try:
        raise error
    finally:
        del error  # its traceback has this frame


def give_up(record: ServiceRecord, reason: str, timeout: float) -> bool:
    """Leave a service as failed: nobody loads it any more by calling it, only by saying so.

    False where that is not to be: somebody has loaded it meanwhile, or does.
    """
    step = None
    record.given_up = reason  # at once: who waits for the drain would load it
    try:
        abandon(record, reason, timeout)
        with record.lock:
            if record.given_up is reason and record.lifecycle.state in ("registered", "failed"):
                step = record.move("give_up", f"{reason}; mend what is wrong, then reload()")
            record.condition.notify_all()
    finally:
        if step is None and record.given_up is reason:
            record.given_up = ""
    record.tell(step)
    return step is not None


def refuse_load_within(record: ServiceRecord, frame: Frame) -> None:
    """Raise where a call may not have the service loaded: nobody tries any more, or it is inside a load."""
    if record.given_up and frame.what != "enter":
        raise ServiceNotReady(
            f"{record.name} is left as failed: {record.given_up}",
            hint=f"mend what is wrong, then grym.get({record.name!r}).reload()",
            service=record.name,
        )
    loader = frame.loading()
    if loader is None or frame.what == "hold":
        return
    if loader.record is record:
        raise StateError(f"{record.name} calls itself inside its own load", service=record.name)
    raise ServiceNotReady(
        f"{record.name} is {record.lifecycle.state}, and {loader.record.name} calls it inside its load",
        hint=f'declare it: needs = ("{record.name}",) in {loader.record.name}; it is then loaded first',
        service=record.name,
    )


def wake_if_idle(record: ServiceRecord) -> None:
    """Let those look again that wait until nobody uses a service (held); does nothing while somebody does."""
    instance = record.instance
    if instance is not None and instance.wanted and not record.users:
        instance.wanted = False
        record.ports.resources.ledger.wake()
