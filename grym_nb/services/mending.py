"""What recovery may do to a service that nobody else may: let go of it, prove a load, leave it as failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grym_nb.errors import GrymError, ServiceNotReady, StateError
from grym_nb.services.retire import Retirement, retire

if TYPE_CHECKING:
    from grym_nb.services.frame import Frame
    from grym_nb.services.record import ServiceRecord

__all__ = ["abandon", "give_up", "load_proven", "prove", "refuse_load_within", "wake_if_idle"]


def abandon(record: ServiceRecord, reason: str, timeout: float) -> None:
    """Let go of what is loaded; calls that still run after `timeout` seconds keep it to themselves."""
    try:
        retire(record, Retirement(reason, timeout))
    except GrymError as error:  # somebody else loads or drains it, which is as good
        if record.lifecycle.state == "ready":
            raise error from None


def load_proven(record: ServiceRecord) -> None:
    """Load, and ping what was made before any call gets to it; a ping that raises is a failed load."""
    record.proves = True
    try:
        record.load()
    finally:
        record.proves = False


def prove(model: object) -> None:
    """Ping a model that is not in service yet; raises what the ping raises."""
    hook = getattr(model, "ping", None)
    if hook is not None:
        hook()


def give_up(record: ServiceRecord, reason: str, timeout: float) -> None:
    """Leave a service as failed: nobody loads it any more by calling it, only by saying so."""
    abandon(record, reason, timeout)
    with record.lock:
        step = record.move("give_up", reason) if record.lifecycle.state in ("registered", "failed") else None
        if step is not None:
            record.given_up = reason
        record.condition.notify_all()
    record.tell(step)


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
