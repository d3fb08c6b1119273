"""Calls that stay open: a generator task that is being read, and `use()`.

Both count as inside the service and hold its slot until they end; both run in the thread that asks.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from contextvars import Token
from types import AsyncGeneratorType
from typing import Any, Generic, Self, TypeVar

from grym_nb.services.engines.inline import iterate
from grym_nb.services.frame import CURRENT, Frame
from grym_nb.services.outcome import typed, unpinned

__all__ = ["Hold", "Stream", "Use"]

T = TypeVar("T")
_Conclude = Callable[[Frame, BaseException | None], BaseException | None]


class Hold:
    """A frame that has entered its service and holds its slot, until `release`."""

    def __init__(
        self, frame: Frame, conclude: Callable[[Frame, BaseException | None], BaseException | None]
    ) -> None:
        self.frame = frame
        self._conclude = conclude
        self._stack = ExitStack()
        record = frame.record
        error: BaseException | None = None
        try:
            if record.ports.breaker is not None:
                record.ports.breaker.ask(frame)
            while not self._seated():
                self._stack.close()  # the instance was let go of while we waited for its slot
        except BaseException as raised:
            error = self.release(raised) or raised
        if error is not None:
            raise unpinned(error) from None
        frame.suspended = threading.get_ident()

    def _seated(self) -> bool:
        frame, record = self.frame, self.frame.record
        instance = record.enter(frame)
        self._stack.callback(record.leave, frame)
        if record.ports.device is not None:
            self._stack.callback(record.ports.device(frame).release)
        record.lane.take(frame)
        self._stack.callback(record.lane.leave, frame)
        return frame.place is None or frame.place.epoch == instance.epoch

    def release(self, error: BaseException | None = None) -> BaseException | None:
        """Give everything back; returns the error as its caller should see it. Does nothing twice."""
        if self.frame.ended:
            return error
        told = self._conclude(self.frame, error)
        self._stack.close()
        self.frame.end()
        return told


class Stream(Iterator[Any]):
    """What a generator task yields, item by item; holds the service's slot until it ends or is closed."""

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        frame = hold.frame
        assert frame.instance is not None and frame.spec is not None
        self._title = frame.title
        error: BaseException | None = None
        token = CURRENT.set(frame)
        try:
            made = getattr(frame.instance.model, frame.spec.method)(*frame.args, **frame.kwargs)
            # `iter`: a decorator may have collected what the generator yields.
            self._made: Any = iterate(frame, made) if isinstance(made, AsyncGeneratorType) else iter(made)
        except BaseException as raised:
            error = hold.release(typed(frame, raised))
        finally:
            CURRENT.reset(token)
        if error is not None:
            raise unpinned(error) from None

    def __next__(self) -> Any:
        frame = self._hold.frame
        if frame.ended:
            raise StopIteration
        token = CURRENT.set(frame)
        frame.suspended = None
        error: BaseException | None = None
        try:
            frame.check()
            return next(self._made)
        except StopIteration:
            pass
        except BaseException as raised:
            error = typed(frame, raised)
        finally:
            CURRENT.reset(token)
            frame.suspended = threading.get_ident()
        error = self._end(error)
        if error is None:
            raise StopIteration
        raise unpinned(error) from None

    def close(self) -> None:
        """End the generator and give the slot back."""
        if not self._hold.frame.ended:
            told = self._end(None)
            if told is not None:
                raise unpinned(told) from None

    def _end(self, error: BaseException | None) -> BaseException | None:
        token = CURRENT.set(self._hold.frame)
        try:
            if hasattr(self._made, "close"):
                self._made.close()
        except BaseException as raised:
            error = error or typed(self._hold.frame, raised)
        finally:
            CURRENT.reset(token)
        return self._hold.release(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not hasattr(self, "_made") or self._hold.frame.ended:
            return
        frame = self._hold.frame
        if frame.record.condition.acquire(blocking=False):
            frame.record.condition.release()
            self._end(None)
        else:
            # The collector may have called us in the middle of our own critical section. A bare
            # thread needs no lock to start.
            frame.suspended = None
            _thread.start_new_thread(self._end, (None,))

    def __repr__(self) -> str:
        return f"<Stream of {self._title}, {'ended' if self._hold.frame.ended else 'open'}>"


class Use(Generic[T]):
    """``with handle.use() as model:`` the object itself, counted in and with its slot held."""

    def __init__(self, hold: Callable[[], Hold]) -> None:
        self._make = hold
        self._hold: Hold | None = None
        self._token: Token[Frame | None] | None = None

    def __enter__(self) -> Any:
        if self._hold is not None:
            raise RuntimeError("this use() is entered already; ask the handle for another")
        self._hold = hold = self._make()
        self._token = CURRENT.set(hold.frame)
        assert hold.frame.instance is not None
        return hold.frame.instance.model

    def __exit__(self, *_: object) -> None:
        hold, self._hold = self._hold, None
        assert hold is not None and self._token is not None
        try:
            CURRENT.reset(self._token)
        except ValueError:  # left in another context than it was entered in, as across cells
            CURRENT.set(hold.frame.parent)
        hold.release()
