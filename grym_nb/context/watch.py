"""What happens to items, as it happens: told to a function, or read one after the other."""

from __future__ import annotations

import logging
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakMethod

from grym_nb.context.index import Wanted
from grym_nb.context.options import seconds_of
from grym_nb.errors import Interrupted, Problem, ValidationError, shown_as
from grym_nb.events import EventBus, ItemEvent
from grym_nb.render import brief

if TYPE_CHECKING:
    import asyncio

__all__ = ["Watch"]

_MOST = 10_000  # events that wait to be read; of more, the oldest are left out
_AWAKE_SECONDS = 0.25
_END: Any = object()
_log = logging.getLogger(__name__)


class Watch:
    """The events of the items that fit, in the order in which they happened.

    ``for event in watch`` waits for the next one, ``async for`` does so without holding up its loop; both
    end with `close`, which ends it for a function, too. It ends by itself when nobody has it any more and
    it has no function to tell.
    """

    def __init__(self, bus: EventBus, wanted: Wanted, tell: Any, kinds: tuple[type, ...]) -> None:
        self._wanted = wanted
        self._kinds = kinds
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._waiters: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()
        #: how many events were left out because nobody read them
        self.missed = 0
        self.closed = False
        self._end: Callable[[], None] = lambda: None
        self._tells = "" if tell is None else getattr(tell, "__name__", brief(tell))
        if tell is not None and not callable(tell):
            problem = Problem("tell", brief(tell), "a function: f(event)")
            raise ValidationError("nobody can be told so", problems=[problem])
        self._tell = tell
        self.listen(bus)

    def listen(self, bus: EventBus) -> None:
        """Hear of what happens from that bus on, and from no other."""
        self._end()
        tell = self._tell
        if tell is not None:

            def passed_on(event: ItemEvent) -> None:
                if self._fits(event):
                    try:
                        tell(event)
                    except Exception as error:
                        self.close()
                        where = traceback.extract_tb(error.__traceback__)[-1]
                        told = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
                        _log.warning("%s raised, and is told no more: %s", self._tells, told)

            self._end = bus.subscribe(passed_on, ItemEvent)
            return
        heard = WeakMethod(self._hear)

        def hear(event: ItemEvent) -> None:
            listening = heard()
            if listening is not None:
                listening(event)
            else:  # here, and not where it goes: that may be anywhere, also with the lock of the bus held
                end()

        end = self._end = bus.subscribe(hear, ItemEvent)

    def next(self, timeout: float | None = None) -> ItemEvent | None:
        """Return the next event; None when there is none within `timeout` seconds, or it was closed."""
        limit = seconds_of(timeout, "timeout")
        try:
            event = self._queue.get(timeout=limit)
        except Empty:
            return None
        if event is _END:
            self._queue.put(_END)  # for others who read
            return None
        found: ItemEvent = event
        return found

    def close(self) -> None:
        """Hear no more. What was heard can still be read."""
        if not self.closed:
            self.closed = True
            self._end()
            self._put(_END)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ItemEvent:
        try:
            event = self.next()
        except KeyboardInterrupt as error:
            if isinstance(error, Interrupted):
                raise
            raise _interrupted() from None
        if event is None:
            raise StopIteration
        return event

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ItemEvent:
        import asyncio

        loop = asyncio.get_running_loop()
        while True:
            there = loop.create_future()
            waiter = (loop, there)
            self._waiters.append(waiter)
            try:
                # Looked for after it is known who waits, so that nothing comes in between unseen.
                with suppress(Empty):
                    event = self._queue.get_nowait()
                    if event is _END:
                        self._put(_END)
                        raise StopAsyncIteration
                    found: ItemEvent = event
                    return found
                while not there.done():  # a loop that sleeps for long would not notice Ctrl-C
                    await asyncio.wait((there,), timeout=_AWAKE_SECONDS)
            except asyncio.CancelledError as error:
                shown_as(error, _interrupted())
                raise
            finally:
                with suppress(ValueError):  # who woke it has taken it out
                    self._waiters.remove(waiter)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = " closed" if self.closed else ""
        if self._tells:
            return f"<Watch{state}: tells {self._tells}>"
        missed = f", {self.missed} missed" if self.missed else ""
        return f"<Watch{state}: {self._queue.qsize() - self.closed} to read{missed}>"

    # -- inside ------------------------------------------------------------------------------------

    def _fits(self, event: ItemEvent) -> bool:
        return isinstance(event, self._kinds) and self._wanted.fits(event.item)

    def _hear(self, event: ItemEvent) -> None:
        if self._fits(event):
            if self._queue.qsize() >= _MOST:
                with suppress(Empty):
                    self._queue.get_nowait()
                    self.missed += 1
            self._put(event)

    def _put(self, event: Any) -> None:
        self._queue.put(event)
        while self._waiters:
            with suppress(IndexError, RuntimeError):  # taken by another, or its loop is closed
                loop, there = self._waiters.popleft()
                loop.call_soon_threadsafe(_set, there)


def _interrupted() -> Interrupted:
    return Interrupted("no longer waiting for what happens", hint="the watch goes on: loop over it again")


def _set(there: asyncio.Future[None]) -> None:
    if not there.done():
        there.set_result(None)
