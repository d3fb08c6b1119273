"""Calls and the device their model is on: whose turn it is, and when it is given back.

A device is taken last and given back first, and whoever waits for anything holds none: so it is always free
again once those who compute on it have ended, and no two chains can wait for one another's. One exception:
a call that waits for a call of its own chain, which computes, keeps its lease for it to ride on.

What was given back for a wait is taken again when control is back in the code of the call (`resumed`).
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from grym_nb.errors import CallBlocked
from grym_nb.hardening import Lease
from grym_nb.services.frame import Awaited, Frame, stack
from grym_nb.services.progress import Wait, wait_a_while
from grym_nb.services.relay import hand_over

if TYPE_CHECKING:
    from grym_nb.hardening.leases import Place
    from grym_nb.services.instance import Instance
    from grym_nb.services.record import ServiceRecord

__all__ = [
    "Turn",
    "carries",
    "device_of",
    "give",
    "in_line",
    "locate",
    "on_device",
    "rest",
    "resume",
    "resumed",
    "resumed_on_loop",
    "take",
]

_POLL_SECONDS = 0.001


# -- which device ----------------------------------------------------------------------------------


def locate(record: ServiceRecord, instance: Instance) -> None:
    """Find the device that the calls of an instance take turns on: none where nobody has to.

    As its policy says; else as the model or its config does, where that names a device that is there.
    """
    policy, pool = record.policy, record.ports.resources
    place: Place | None
    if policy.device is not None:
        place = pool.place(policy.device)
    else:
        told = (_told_by(instance.model), record.spec.full_config.get("device"))
        place = next((found for one in told if _is_device(one) and (found := pool.find(one))), None)
    shared = place is None or (place.kind == "cpu" and not policy.exclusive)
    instance.device, instance.located = (None if shared else place), policy


def _told_by(model: Any) -> Any:
    try:
        return getattr(model, "device", None)
    except Exception:  # a property of the author's
        return None


def _is_device(value: Any) -> bool:
    return isinstance(value, str) or type(value).__name__ == "device"  # torch's, which is not imported here


def device_of(record: ServiceRecord) -> str:
    """Return the device on which the calls of a service take turns; nothing where they need not."""
    instance = record.instance
    return "" if instance is None or instance.device is None else instance.device.id


# -- taken, and given back -------------------------------------------------------------------------


class Turn(Awaited):
    """What a call waits for that is in line for a device: who holds one waits for nothing, so it ends."""

    __slots__ = ("lease",)

    def __init__(self, lease: Lease) -> None:
        self.lease = lease

    def wake(self) -> None:
        """Let who waits look again whether that still makes sense."""
        self.lease.place.wake()

    def refuse_here(self) -> None:
        """Raise when the device is held by something that only this very thread could end."""
        lease, frame = self.lease, self.lease.owner
        assert isinstance(frame, Frame)
        for other in lease.place.held:
            owner = other.owner
            if isinstance(owner, Frame):
                mine = owner.suspended == threading.get_ident()
            else:
                mine = other.thread is threading.current_thread()
            if mine and not lease.agrees(other):
                name, hint = str(owner), "release that lease first, or call from within another thread"
                if isinstance(owner, Frame):
                    name, hint = f"{owner.title} is open in this thread, and", owner.how_to_end
                raise CallBlocked(
                    f"{frame.title} would wait for ever: {name} has {lease.place.id}",
                    hint=hint,
                    service=frame.record.name,
                    task=frame.task,
                )

    def __str__(self) -> str:
        place = self.lease.place
        return f"{place.id}, {place.in_the_way(self.lease)}"


def take(frame: Frame) -> bool:
    """Wait until the device is the call's; False when its instance was let go of meanwhile."""
    instance, record = frame.instance, frame.record
    assert instance is not None
    if instance.located is not record.policy:
        locate(record, instance)
    if instance.device is not None:
        _take(frame, instance.device)
    return not instance.retired


def give(frame: Frame) -> None:
    """Give the device back; does nothing twice."""
    if (lease := frame.lease) is not None:
        lease.release()
        frame.lease = None


@contextmanager
def on_device(frame: Frame) -> Iterator[None]:
    """For the time of this block the device is the call's."""
    try:
        take(frame)
        yield
    finally:
        give(frame)


def _take(frame: Frame, place: Place) -> None:
    lease = _asked(frame, place)
    if not lease.held:
        try:
            _wait(frame, Turn(lease))
        except BaseException:
            lease.release()
            raise


def _asked(frame: Frame, place: Place) -> Lease:
    """Ask for a device, which the call's chain may have: it is held, or in line."""
    lease = Lease(
        place,
        frame,
        group=frame.instance,
        chain=frame if frame.parent is None and frame.lease is None else _chain(frame, place),
        priority=frame.options.priority,
        exclusive=frame.record.policy.exclusive,
    )
    frame.lease = lease  # before it is asked for: Ctrl-C leaves none behind
    place.ask(lease)
    return lease


def _chain(frame: Frame, place: Place) -> Any:
    for above in frame.chain():
        if (rides := above.lease) is not None and rides.place is place:
            return rides.chain
    return frame


def _wait(frame: Frame, turn: Turn) -> None:
    """Wait for a turn in this thread, as long as the call may."""
    frame.refuse_on_loop()
    turn.refuse_here()
    hand_over()
    clock, place = frame.record.ports.clock, turn.lease.place
    with frame.waiting("device"), _waiting(frame, turn), Wait(frame.title) as waits:
        while True:
            with place.lock:
                if _over(frame, turn):
                    return
                wait_a_while(clock, place.condition, place.until(frame.deadline))
            waits.on(str(turn))


def _over(frame: Frame, turn: Turn) -> bool:
    """Tell whether a wait is over (the device's lock is held); raises when the call may wait no more."""
    if turn.lease.place.granted(turn.lease):
        return True
    if frame.deadline is not None and frame.record.ports.clock() >= frame.deadline:
        raise frame.timeout(str(turn))
    frame.check()
    return frame.instance is None or frame.instance.retired


def in_line(frame: Frame) -> Turn | None:
    """Return the turn for which a call, or one above it in its thread, stands in line."""
    return next((what for what in frame.waits_for if isinstance(what, Turn)), None)


@contextmanager
def _waiting(frame: Frame, turn: Turn) -> Iterator[None]:
    """While a call waits for its turn, its chain has no other device either."""
    waiting = list(stack(frame))
    for at in waiting:
        at.waits_for = (*at.waits_for, turn)
        if at.call is not None:
            at.call.wake()  # who waits for it may have to say so, or can tell that it is in vain
    try:
        rest(frame, but=turn.lease)
        yield
    finally:
        for at in waiting:
            at.waits_no_more(turn)


# -- while it waits for something else -------------------------------------------------------------


def carries(on: Awaited | None, frame: Frame) -> bool:
    """Tell whether what a call waits for computes for it, in its chain: it then rides on its lease."""
    if not isinstance(on, Frame) or on.place is None or frame not in on.chain():
        return False
    return not on.resting and in_line(on) is None


def rest(frame: Frame, but: Lease | None = None) -> None:
    """Give back the devices of a call that is about to wait, and of those that wait for it."""
    beneath = True
    for at in frame.chain():
        # The lease first: if it goes on meanwhile, in its own thread, it is the old one that is given back.
        lease = at.lease
        if not beneath and not at.resting:
            return  # it computes, or is in line for its device itself
        if lease is not None and lease is not but:
            lease.release()
        beneath = beneath and at.inline


def resume(frame: Frame | None) -> None:
    """Take the device again that was given back for a wait, now that the code of the call goes on."""
    if (lease := _wanted(frame)) is not None and frame is not None:
        _take(frame, lease.place)
        _give_if_retired(frame)


def _wanted(frame: Frame | None) -> Lease | None:
    lease = None if frame is None or frame.resting else frame.lease
    return None if lease is None or lease.held else lease


def _give_if_retired(frame: Frame) -> None:
    # Who was let go of with its instance computes on without: nobody could take it away once more.
    if frame.lease is not None and (frame.instance is None or frame.instance.retired):
        frame.lease.release()


@contextmanager
def resumed(frame: Frame | None) -> Iterator[None]:
    """After this block the call has its device again; who unwinds for Ctrl-C needs none."""
    try:
        yield
    except Exception:
        resume(frame)
        raise
    resume(frame)


@asynccontextmanager
async def resumed_on_loop(frame: Frame) -> AsyncIterator[None]:
    """As `resumed`, on an event loop: without blocking it."""
    try:
        yield
    except Exception:
        await _resume_on_loop(frame)
        raise
    await _resume_on_loop(frame)


async def _resume_on_loop(frame: Frame) -> None:
    import asyncio

    if (wanted := _wanted(frame)) is None:
        return
    lease = _asked(frame, wanted.place)
    turn = Turn(lease)
    try:
        with frame.waiting("device"), _waiting(frame, turn):
            while not _over_on_loop(frame, turn):
                await asyncio.sleep(_POLL_SECONDS)
    except BaseException:
        lease.release()
        raise
    _give_if_retired(frame)


def _over_on_loop(frame: Frame, turn: Turn) -> bool:
    with turn.lease.place.lock:
        return _over(frame, turn)
