"""A call that is awaited on somebody's event loop: a cell's, or one that a task runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from grym_nb.errors import GrymError
from grym_nb.services.progress import SHOW_EVERY

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

    from grym_nb.services.call import Call

__all__ = ["ending"]


async def ending(call: Call, look: Callable[[], None]) -> None:
    """Wait here until a call is done; `look` runs now and then, and what it raises ends the wait."""
    import asyncio

    loop = asyncio.get_running_loop()
    ended: Future[GrymError | None] = loop.create_future()
    ticks = _here.ticks
    if ticks is None or ticks.loop is not loop:
        ticks = _here.ticks = _Ticks(loop)
    ticks.add(ended, look)
    try:
        call.add_done_callback(partial(_tell, loop, ended))
        error = await ended
    finally:
        ticks.awaited.pop(ended, None)
    if error is not None:
        raise error


def _tell(loop: AbstractEventLoop, ended: Future[Any], _: object) -> None:
    with suppress(RuntimeError):  # the loop was closed under it
        loop.call_soon_threadsafe(_end, ended, None)


def _end(ended: Future[GrymError | None], error: GrymError | None) -> None:
    if not ended.done():
        ended.set_result(error)


class _Ticks:
    """Wakes an event loop a few times a second while calls are awaited on it, and looks how they do.

    Also where nothing is shown: a loop that only waits does not see Ctrl-C.
    """

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.loop = loop
        self.awaited: dict[Any, Callable[[], None]] = {}
        self._armed = False

    def add(self, ended: Any, look: Callable[[], None]) -> None:
        self.awaited[ended] = look
        if not self._armed:
            self._armed = True
            self.loop.call_later(SHOW_EVERY, self._tick)

    def _tick(self) -> None:
        self._armed = bool(self.awaited)
        if self._armed:
            self.loop.call_later(SHOW_EVERY, self._tick)
        for ended, look in tuple(self.awaited.items()):
            self.loop.call_soon(_look, ended, look)  # one by one, so that none is in another's way


def _look(ended: Any, look: Callable[[], None]) -> None:
    try:
        look()
    except GrymError as error:
        _end(ended, error)


class _Here(threading.local):
    ticks: _Ticks | None = None  # of the loop that runs in this thread


_here = _Here()
