"""What happens when a call waits: what its chain gives back meanwhile, and whether the wait can end.

Whoever blocks in one of our waits does so inside `aside`. It lends the chain's places to the chain's own
calls, gives back its devices (`turns.resumed` takes them again) and the gate of a load, lets another worker
go on with the next call, and refuses a wait that closes a circle: A waits for B while B waits for A.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from grym_nb.clock import monotonic, wait
from grym_nb.errors import CallBlocked
from grym_nb.services.frame import Awaited, Frame, stack
from grym_nb.services.relay import hand_over
from grym_nb.services.turns import carries, rest

if TYPE_CHECKING:
    from grym_nb.services.places import Place

__all__ = ["Gate", "aside", "step_aside", "step_back", "waits_for"]

_WAY_OUT = "let one of them finish before it asks the other, or register one with more concurrency"


def waits_for(frame: Frame, asked: tuple[Frame, ...] = ()) -> str:
    """Say what a call waits for, and who is in its way; nothing when it, or what it waits for, computes."""
    if frame.ended or frame in asked:
        return ""
    if frame.pauses:
        return frame.pauses
    if frame.place is None or frame.instance is None:
        return frame.record.held_by()
    asked = (*asked, frame)
    told = [waits_for(on, asked) if isinstance(on, Frame) else str(on) for on in frame.waits_for]
    return told[0] if all(told) and told else ""


# -- aside -----------------------------------------------------------------------------------------


@contextmanager
def aside(frame: Frame | None, on: Awaited | None = None) -> Iterator[None]:
    """While this block waits for `on`, the chain's own calls may use what the chain holds."""
    hand_over()
    if frame is None:
        yield
        return
    left = step_aside(frame, on)
    try:
        yield
    finally:
        for waiting, gave in reversed(left):
            waiting.waits_no_more(on)
            waiting.resting -= 1
            if waiting.gate is not None:
                if waiting.gate.holder is not waiting:
                    waiting.gate.acquire(waiting)
            elif gave and (place := waiting.place) is not None:
                waiting.lent -= 1
                with place.lane.lock:
                    _take_back(place, waiting)


def _take_back(place: Place, frame: Frame) -> None:
    """Let a call compute in its place again (held), once its chain's others have left it.

    A call may be over by now, as what it has gathered comes back after it: the place is another's then.
    """
    while frame.place is place and place.occupant is not None:
        wait(monotonic, place.lane.condition, None)
    if frame.place is place:
        place.occupant = frame


def step_aside(frame: Frame | None, on: Awaited | None = None) -> list[tuple[Frame, bool]]:
    """Give back what the calls of this thread hold; return them, and which of them lent its place.

    An async task that awaits several calls at once lends its place until the last of them has come back:
    those that are still on their way may need it.

    Raises `CallBlocked` when the wait could never end.
    """
    left = list(stack(frame))
    if frame is not None:
        if on is not None:
            _refuse_circle(frame, left, on)
        for at in left:
            at.resting += 1
        if not carries(on, frame):
            rest(frame)
    return [(at, _given(at)) for at in left]


def _given(frame: Frame) -> bool:
    """Give back what one call holds; tell whether it lent its place."""
    place = frame.place
    if frame.gate is not None:
        frame.gate.release(frame)
    elif place is not None and (frame.lent or place.occupant is frame):
        frame.lent += 1
        place.lane.lend(place, frame)
        return True
    return False


async def step_back(left: list[tuple[Frame, bool]], on: Awaited | None) -> None:
    """Take back, on an event loop, what `step_aside` gave; waits for riders without blocking the loop.

    Also when it is cancelled meanwhile: the code that goes on from here computes in that place.
    """
    import asyncio

    cancelled: BaseException | None = None
    for frame, gave in reversed(left):
        frame.waits_no_more(on)
        frame.resting -= 1
        frame.lent -= gave
        while not _taken_back(frame, gave):
            try:
                await asyncio.sleep(0.001)
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        raise cancelled


def _taken_back(frame: Frame, gave: bool) -> bool:
    if frame.gate is not None:
        return frame.gate.holder is frame or frame.gate.acquire(frame, blocking=False)
    place = frame.place
    if not gave or place is None or frame.lent:
        return True
    with place.lane.lock:
        if frame.place is place:
            if place.occupant is not None:
                return False
            place.occupant = frame
    return True


class Gate(Awaited):
    """Lets one model be constructed at a time; who waits for something inside steps out meanwhile.

    A load that waits here goes on in any case.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._free = threading.Condition(self._lock)
        self.holder: Frame | None = None

    def acquire(self, frame: Frame, *, blocking: bool = True) -> bool:
        """Wait for the gate, for the load `frame`; without `blocking` tell whether it was free."""
        # Who holds it is an attribute, set without a call: so Ctrl-C cannot leave it locked by nobody.
        with self._lock:
            if self.holder is not None and not blocking:
                return False
            self._wait_until_free()
            self.holder = frame
        return True

    def _wait_until_free(self) -> None:
        while self.holder is not None:
            wait(monotonic, self._free, None)

    def release(self, frame: Frame) -> None:
        """Let the next one construct, if it is `frame` that holds the gate."""
        with self._lock:
            if self.holder is frame:
                self.holder = None
                self._free.notify()

    def behind(self) -> Sequence[Awaited] | None:
        """Return the load that holds it."""
        return None if self.holder is None else (self.holder,)

    def __str__(self) -> str:
        holder = self.holder
        return "" if holder is None else f"the load of {holder.record.name}"

    @contextmanager
    def held_by(self, frame: Frame) -> Iterator[None]:
        """Hold the gate for a load."""
        try:
            with aside(frame.parent if frame.inline else None, self):
                self.acquire(frame)
            frame.gate = self
            yield
        finally:
            frame.gate = None
            self.release(frame)


# -- circles ---------------------------------------------------------------------------------------

#: whoever says that it waits looks for a circle at once, one at a time: the last one in sees it whole
_graph = threading.Lock()


def _refuse_circle(frame: Frame, left: list[Frame], on: Awaited) -> None:
    with _graph:
        for at in left:
            at.waits_for = (*at.waits_for, on)
        # Twice, since the others move on while we look; a real circle stands still.
        if not (_stuck(on) and (stuck := _stuck(on))):
            return
        if any(node.gives_way(stuck) for node in stuck):
            return  # they are let in, and look again for themselves
        for at in left:
            at.waits_no_more(on)
    titles = dict.fromkeys(node.title for node in (frame, *stuck) if isinstance(node, Frame))
    others = f"{', '.join(titles)} wait for one another" if len(titles) > 1 else "for what it holds itself"
    raise CallBlocked(
        f"{frame.title} would wait for ever: {others}",
        cause="" if isinstance(on, Frame) else str(on),
        hint=next(filter(None, [node.way_out for node in (on, *stuck)]), _WAY_OUT),
        service=frame.record.name,
        task=frame.task,
    )


def _stuck(on: Awaited) -> list[Awaited]:
    """Return what `on` waits for, directly or not, if it can never come; an empty list if it can.

    Everything that can be reached counts as stuck until something that runs, or has a deadline, sets it
    free: what is left over waits for itself.
    """
    behind: dict[Awaited, Sequence[Awaited] | None] = {}
    reached = [on]
    while reached:
        node = reached.pop()
        if node not in behind:
            behind[node] = node.behind()
            reached += behind[node] or ()
    free = [node for node, its in behind.items() if its is None]
    while free:
        for node in free:
            del behind[node]
        free = [
            node
            for node, its in behind.items()
            if (any if node.takes_any else all)(one not in behind for one in its or ())
        ]
    return list(behind) if on in behind else []
