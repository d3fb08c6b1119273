"""The private event loop on which `async def` tasks run: one daemon thread, started at the first of them."""

from __future__ import annotations

import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

__all__ = ["LoopThread", "Running"]


class LoopThread:
    """An event loop in a thread of its own, so that no busy cell stops it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def here(self) -> bool:
        """Whether this code runs on the loop's thread."""
        return self._thread is threading.current_thread()

    def submit(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Run a coroutine on the loop, in the caller's context; return its future.

        To cancel the future asks the coroutine to stop; it ends when the coroutine has.
        """
        running = self.ready(coroutine)
        running.start()
        return running

    def ready(self, coroutine: Coroutine[Any, Any, Any]) -> Running:
        """Return the future of a coroutine that is still to be started."""
        import asyncio

        with self._lock:
            if self._closed:
                coroutine.close()
                raise RuntimeError("the event loop of this registry is closed")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run, args=(self._loop,), name="grym-loop", daemon=True
                )
                self._thread.start()
            return Running(self._loop, coroutine)

    def close(self, timeout: float = 1.0) -> tuple[str, ...]:
        """Cancel what runs, stop the loop and end the thread; return its name if it does not end."""
        with self._lock:
            self._closed = True
            loop, self._loop = self._loop, None
        thread = self._thread
        if loop is None or thread is None:
            return ()
        import asyncio

        async def cancel_all() -> None:
            tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await loop.shutdown_asyncgens()
            loop.stop()

        asyncio.run_coroutine_threadsafe(cancel_all(), loop)
        thread.join(timeout)
        return (thread.name,) if thread.is_alive() else ()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        while True:
            try:
                return loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                continue  # asyncio lets them out of the loop; whose task it was has it, and the others go on
    finally:
        loop.close()


class Running(Future[Any]):
    """A coroutine on the loop. Unlike asyncio's own hand-over it is not over before the coroutine is."""

    def __init__(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any]) -> None:
        super().__init__()
        self._loop = loop
        self._coroutine: Coroutine[Any, Any, Any] | None = coroutine
        self._task: asyncio.Task[Any] | None = None

    def start(self) -> None:
        """Start the coroutine, in the caller's context."""
        self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        coroutine, self._coroutine = self._coroutine, None
        if coroutine is not None:
            self._task = self._loop.create_task(coroutine)
            self._task.add_done_callback(self._ended)

    def cancel(self) -> bool:
        """Ask the coroutine to stop at its `await`; False when it has ended."""
        if self.done():
            return False
        try:
            self._loop.call_soon_threadsafe(self._stop)
        except RuntimeError:  # the loop is closed: then the coroutine has ended
            return False
        return True

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        elif self._coroutine is not None:
            self._coroutine.close()
            self._coroutine = None
            self._gone()

    def _gone(self) -> None:
        super().cancel()
        self.set_running_or_notify_cancel()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._task = None
        if task.cancelled():
            self._gone()
        elif (error := task.exception()) is not None:
            self.set_exception(error)
        else:
            self.set_result(task.result())
