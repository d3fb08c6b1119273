"""How far long work has come, or what it waits for, told to whoever shows it (a notebook, below the cell)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import inf
from typing import TypeVar

from grym_nb.clock import Clock, monotonic, wait
from grym_nb.errors import ValidationError, says_what_it_takes
from grym_nb.render import brief
from grym_nb.services.frame import CURRENT

__all__ = ["SHOW_EVERY", "Progress", "Wait", "is_several", "on_progress", "show", "track", "wait_a_while"]

T = TypeVar("T")
SHOW_EVERY = 0.25  # seconds
_shown_to: list[Callable[[Progress], None]] = []


@dataclass(slots=True)
class Progress:
    """How far a loop has come; or, in the words of `note`, what is waited for."""

    title: str
    total: int | None
    started: float
    done: int = 0
    note: str = ""

    @property
    def told(self) -> str:
        """``"12/100"``, or ``"12"`` when nobody knows of how many."""
        if self.note:
            return self.note
        return f"{self.done}/{self.total}" if self.total is not None else str(self.done)

    def eta(self, now: float) -> float | None:
        """Return the seconds left at the pace so far, or None when that cannot be said."""
        if self.total is None or not self.done:
            return None
        return (now - self.started) / self.done * (self.total - self.done)


def on_progress(show: Callable[[Progress], None]) -> Callable[[], None]:
    """Hand progress to `show`, at most four times a second, in the main thread; returns the undo."""
    _shown_to.append(show)
    return lambda: _shown_to.remove(show) if show in _shown_to else None


def show(progress: Progress) -> None:
    """Hand progress to whoever shows it, if this is the main thread; nothing of ours may be locked."""
    if threading.current_thread() is threading.main_thread():
        for shown_to in tuple(_shown_to):
            shown_to(progress)


# -- loops -------------------------------------------------------------------------------------------


@says_what_it_takes
def track(items: Iterable[T], *, total: int | None = None, title: str = "") -> Iterator[T]:
    """Yield from `items`; tell how far the call has come, and end it when it is cancelled or late.

    Inside a task it is the point at which Cancel, Ctrl-C and a deadline take hold. Outside of one it only
    shows progress. `total` is found by `len` where there is one.
    """
    if not is_several(items):
        raise ValidationError(
            f"track goes over several items, not over {brief(items)}",
            hint="such as track(range(n))",
        )
    return _tracked(items, total, title)


def is_several(items: object) -> bool:
    """Tell whether a loop can go over it; a single number, or a clip, is no such thing."""
    return any(hasattr(type(items), name) for name in ("__iter__", "__getitem__"))


def _tracked(items: Iterable[T], total: int | None, title: str) -> Iterator[T]:
    if total is None:
        try:
            total = len(items)  # type: ignore[arg-type]
        except TypeError:
            total = None
    frame = CURRENT.get()
    clock: Clock = frame.record.ports.clock if frame is not None else monotonic
    progress = Progress(title or (frame.title if frame is not None else "progress"), total, clock())
    shown = time.monotonic()
    for item in items:
        if frame is not None:
            frame.progress = progress
            frame.check()
        yield item
        progress.done += 1
        if _shown_to and time.monotonic() - shown >= SHOW_EVERY:
            shown = time.monotonic()
            show(progress)
    if _shown_to:
        show(progress)


# -- waits -------------------------------------------------------------------------------------------


def wait_a_while(clock: Clock, condition: threading.Condition, deadline: float | None) -> None:
    """Wait on `condition` (held) as `clock.wait` does, but not beyond the time to show something again."""
    if not _shown_to or threading.current_thread() is not threading.main_thread():
        wait(clock, condition, deadline)
    else:
        left = SHOW_EVERY if deadline is None else min(SHOW_EVERY, deadline - clock())
        wait(monotonic, condition, monotonic() + left)


class Wait:
    """A wait that is told of: ``with Wait("unload of x") as waits:``, and at times ``waits.on("x.y")``."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._since = monotonic()
        self._progress: Progress | None = None

    def on(self, what: str) -> None:
        """Show what is waited for, once it has been for a while; nothing of ours may be locked."""
        if _shown_to and what and monotonic() - self._since >= SHOW_EVERY:
            if self._progress is None:
                self._progress = Progress(self._title, None, self._since)
            self._progress.note = f"waits for {what}"
            show(self._progress)

    def over(self) -> None:
        """Show that it is over, and how long it was; nothing of ours may be locked."""
        progress, self._progress = self._progress, None
        if progress is not None:
            progress.note = progress.note.replace("waits", "waited", 1)
            show(progress)
        self._since = inf  # what comes is no wait any more

    def __enter__(self) -> Wait:
        return self

    def __exit__(self, *_: object) -> None:
        self.over()
