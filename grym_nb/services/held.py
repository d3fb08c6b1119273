"""Calls that stay open: a generator task that is being read, and `use()`.

Both count as inside the service and hold its slot until they end; both run in the thread that asks.
"""

from __future__ import annotations

import _thread
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import AsyncGeneratorType
from typing import Any, Generic, Self, TypeVar

from grym_nb.errors import GrymError, StateError
from grym_nb.services.engines.inline import iterate
from grym_nb.services.frame import CURRENT, Frame, current_frame
from grym_nb.services.outcome import typed, unpinned
from grym_nb.services.reload.back import answer_before
from grym_nb.services.reload.probation import passed, serving_of
from grym_nb.services.turns import on_device, resume, resumed
from grym_nb.services.waits import aside

__all__ = ["Hold", "Stream", "Use"]

T = TypeVar("T")
_NONE = object()  # there is no item
_Conclude = Callable[[Frame, BaseException | None], BaseException | None]


class Hold:
    """A frame that has entered its service and holds its slot, until `release`."""

    def __init__(self, frame: Frame, conclude: _Conclude) -> None:
        self.frame = frame
        self._conclude = conclude
        self._stack = ExitStack()
        record = frame.record
        error: BaseException | None = None
        try:
            if record.breaker is not None:
                record.breaker.ask(frame)
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
        record.lane.take(frame)
        self._stack.callback(record.lane.leave, frame)
        if frame.what == "use":
            self._stack.enter_context(on_device(frame))
        return not instance.retired and (frame.place is None or frame.place.epoch == instance.epoch)

    def release(self, error: BaseException | None = None) -> BaseException | None:
        """Give everything back; returns the error as its caller should see it. Does nothing twice."""
        if self.frame.ended:
            return error
        try:
            told = self._conclude(self.frame, error)
            self._stack.close()
            if (breaker := self.frame.record.breaker) is not None:
                if self.frame.spec is not None:  # of `use()` the block is the caller's own
                    breaker.told(self.frame, 0.0, told if isinstance(told, GrymError) else None)
                breaker.over(self.frame)
        finally:
            self.frame.record.let_go(self.frame)  # what Ctrl-C kept from the stack
            self.frame.end()
        return told

    def drop(self, made: Any = None, end: Callable[[BaseException | None], object] | None = None) -> None:
        """Release what nobody holds any more, from wherever the collector has called us.

        That may be the middle of one of our own critical sections. So only what takes no lock but the
        record's own is done here, and that one only if it is free; the rest is for a bare thread, which
        needs no lock to start.
        """
        error: BaseException | None = None
        frame = self.frame
        frame.suspended = None
        try:
            lock = frame.record.lock
            if not lock._is_owned():  # type: ignore[attr-defined]
                try:
                    if hasattr(made, "close"):
                        made.close()
                except BaseException as raised:
                    error = raised
                if lock.acquire(blocking=False):
                    try:
                        frame.record.leave_at_once(frame)
                    finally:
                        lock.release()
        finally:
            with suppress(RuntimeError):  # the interpreter is ending
                _thread.start_new_thread(end or self.release, (error,))


class Stream(Iterator[Any]):
    """What a generator task yields, item by item.

    Nothing happens before the first item is asked for: from then on it is a call like any other, and holds
    the service's slot until it ends or is closed.
    """

    def __init__(self, asked: Frame, conclude: _Conclude) -> None:
        self._asked = asked
        self._conclude = conclude
        self._hold: Hold | None = None
        self._made: Any = None
        self._has_yielded = False
        self._closed = False
        self._reading = threading.RLock()  # a generator that closes itself may do so

    @property
    def id(self) -> int:
        """The number of the call, as `%grym calls` shows it; of one that has not begun, none it shows."""
        return self._asked.id if self._hold is None else self._hold.frame.id

    def _open(self) -> Hold:
        """Enter the service, and make the generator: a call of whoever reads, from now on."""
        asked, record = self._asked, self._asked.record
        now = record.ports.clock()
        frame = Frame(record, asked.spec, asked.args, asked.kwargs, asked.options, now, what="generator")
        try:
            asked.end()
            hold = self._hold = Hold(frame, self._conclude)
        except BaseException:
            self._closed = True
            record.let_go(frame)  # where Ctrl-C has kept the hold from doing so
            raise
        frame.stream = weakref.ref(self)
        assert frame.instance is not None and frame.spec is not None
        error: BaseException | None = None
        token = CURRENT.set(frame)
        try:
            frame.serving = serving_of(frame)
            self._made = _made(frame)
        except BaseException as raised:
            error = hold.release(typed(frame, raised))
        finally:
            CURRENT.reset(token)
        if error is not None:
            raise unpinned(error) from None
        return hold

    def __next__(self) -> Any:
        if not self._reading.acquire(blocking=False):
            raise StateError(
                f"{self._asked.title} is being read in another thread",
                hint="read a stream in one thread, or make a list of it first",
                service=self._asked.record.name,
            )
        try:
            me = current_frame()
            with resumed(me):
                frame = self._begun()
                if me is not None and frame in me.chain():
                    raise StateError(
                        f"{frame.title} is read by itself, or by a call made in it",
                        hint="read a stream in the code that asked for it",
                        service=frame.record.name,
                        task=frame.task,
                    )
                with _called_by(me, frame):
                    return self._read(frame)
        finally:
            self._reading.release()

    def _begun(self) -> Frame:
        """Return the call, which has begun by now and is not over; raises where there is nothing to read."""
        if self._closed:
            raise StopIteration
        if self._hold is None and self._asked.cancelled:
            raise self._asked.cancellation()
        frame = (self._hold or self._open()).frame
        if frame.ended:
            if frame.cancelled:
                raise frame.cancellation()  # from elsewhere: a loop over it must not look complete
            raise StopIteration
        return frame

    def _read(self, frame: Frame) -> Any:
        token = CURRENT.set(frame)
        frame.suspended = None
        error: BaseException | None = None
        try:
            frame.check()
            with on_device(frame):  # between two items it is others'
                return self._next(frame)
        except StopIteration:
            pass
        except BaseException as raised:
            found, item = (False, None) if self._has_yielded else answer_before(frame, raised, self._again)
            if item is not _NONE:
                if found:
                    self._has_yielded = True
                    return item
                error = typed(frame, raised)
        finally:
            CURRENT.reset(token)
            frame.suspended = threading.get_ident()
        error = self._end(error)
        if error is None:
            raise StopIteration
        raise unpinned(error) from None

    def _next(self, frame: Frame) -> Any:
        item = next(self._made)
        if not self._has_yielded:
            self._has_yielded = True
            if frame.serving is not None:
                passed(frame, frame.serving)
        return item

    def _again(self, frame: Frame) -> Any:
        """Return the first item as another version of the code yields it, or that there is none."""
        with on_device(frame):
            made = _made(frame)
            item = next(made, _NONE)
        self._made = made
        return item

    def close(self) -> None:
        """End the generator and give the slot back; waits for whoever is reading it."""
        me, told = current_frame(), None
        while not self._reading.acquire(blocking=False):
            hold = self._hold  # whoever reads it may need what this call has
            with resumed(me), aside(me, None if hold is None else hold.frame), self._reading:
                pass
        try:
            self._closed = True
            self._asked.end()
            if (hold := self._hold) is not None and not hold.frame.ended:
                with _called_by(me, hold.frame):
                    told = self._end(None)
        finally:
            self._reading.release()
        if told is not None:
            raise unpinned(told) from None

    def cancel(self) -> None:
        """End it, at its next item where somebody is reading it; who reads on raises `CallCancelled`."""
        self._asked.cancelled = True
        if (hold := self._hold) is not None:
            hold.frame.cancelled = True
        if self._reading.acquire(blocking=False):
            try:
                if hold is not None and self._live:
                    self._end(hold.frame.cancellation())
            finally:
                self._reading.release()

    @property
    def _live(self) -> bool:
        return self._hold is not None and not self._hold.frame.ended

    def _end(self, error: BaseException | None) -> BaseException | None:
        hold = self._hold
        assert hold is not None
        token = CURRENT.set(hold.frame)
        try:
            made = self._made
            if hasattr(made, "close"):
                made.close()
        except BaseException as raised:
            error = error or typed(hold.frame, raised)
        finally:
            CURRENT.reset(token)
        return hold.release(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        hold = getattr(self, "_hold", None)
        if hold is not None and not hold.frame.ended:
            hold.drop(getattr(self, "_made", None), self._end)

    def __repr__(self) -> str:
        if self._live:
            return f"<Stream of {self._asked.title}, open: read it in a loop; close() gives its slot back>"
        if self._closed or self._hold is not None:
            return f"<Stream of {self._asked.title}, ended>"
        return f"<Stream of {self._asked.title}, not begun: read it in a loop>"


def _made(frame: Frame) -> Any:
    """Return what the task of a call yields from, in the version of the code that answers it."""
    assert frame.serving is not None and frame.spec is not None
    made = getattr(frame.serving.model, frame.spec.method)(*frame.args, **frame.kwargs)
    # `iter`: a decorator may have collected what the generator yields.
    return iterate(frame, made) if isinstance(made, AsyncGeneratorType) else iter(made)


@contextmanager
def _called_by(me: Frame | None, frame: Frame) -> Iterator[None]:
    """For the time of this block a stream is a call of `me`: its device, its deadline, its end count too."""
    if me is not None and frame in me.chain():  # it closes itself
        yield
        return
    own = frame.deadline
    frame.parent = me
    if me is not None and me.deadline is not None:
        frame.deadline = me.deadline if own is None else min(own, me.deadline)
    try:
        yield
    finally:
        frame.deadline = own


class Use(Generic[T]):
    """``with handle.use() as model:`` the object itself, counted in and with its slot held."""

    def __init__(self, frame: Callable[[], Frame], conclude: _Conclude) -> None:
        self._frame = frame
        self._conclude = conclude
        self._hold: Hold | None = None

    def __enter__(self) -> Any:
        if self._hold is not None:
            raise RuntimeError("this use() is entered already; ask the handle for another")
        frame = self._frame()
        try:
            self._hold = Hold(frame, self._conclude)
            CURRENT.set(frame)
            assert frame.instance is not None
            frame.instance.handed_out = True
            frame.serving = frame.instance.serving
            return frame.serving.model
        except BaseException:
            frame.ended = True
            frame.record.let_go(frame)
            raise

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        hold = self._hold
        assert hold is not None
        # Only if it is still ours: generators and cells may leave in another order than they entered.
        if CURRENT.get() is hold.frame:
            CURRENT.set(hold.frame.parent)
        hold.release()
        self._hold = None
        if kind is None or issubclass(kind, Exception):
            resume(current_frame())

    def __del__(self) -> None:
        # Ctrl-C may come before the first line of `__exit__`.
        hold = getattr(self, "_hold", None)
        if hold is not None and not hold.frame.ended:
            hold.drop()
