"""The private event loop on which `async def` tasks run: one daemon thread, started at the first of them."""

from __future__ import annotations

import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

__all__ = ["LoopThread"]


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
        """Run a coroutine on the loop, in the caller's context; return its future."""
        import asyncio

        with self._lock:
            if self._closed:
                coroutine.close()
                raise RuntimeError("the event loop of this registry is closed")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="grym-loop", daemon=True)
                self._thread.start()
            loop = self._loop
        return asyncio.run_coroutine_threadsafe(coroutine, loop)

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
        if thread.is_alive():
            return (thread.name,)
        loop.close()
        return ()
