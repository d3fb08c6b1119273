"""What happens to items of context, as a list that keeps up with it under the cell that asked for it."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from grym_nb.errors import GrymError
from grym_nb.events import ItemEvent
from grym_nb.notebook.progress import Display, display_of
from grym_nb.notebook.sheet import Sheet
from grym_nb.priority import PRIORITIES
from grym_nb.render import Table

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from grym_nb.context.watch import Watch
    from grym_nb.runtime import Runtime

__all__ = ["Feed", "Line", "Soon", "end_feeds", "feed_of"]

_KEPT = 20  # lines
_EVERY = 0.2  # seconds between two updates of what is shown
_WIDTH = 40  # of a type or a key

Line = tuple[str, ...]
#: calls a function in another thread, a little later
Soon = Callable[[Callable[[], None]], object]

#: the feeds of each shell, by what they are for
_feeds: dict[InteractiveShell, dict[str, Feed]] = {}


class Feed:
    """The last things that happened to items that fit, the newest first; where it is shown, that follows.

    Holds text only. It hears until `close`, and what it has heard can still be looked at. Without `soon`
    nothing that is shown can be updated.
    """

    def __init__(self, title: str, display: Display, soon: Soon | None, lines: Iterable[Line] = ()) -> None:
        self.title = title
        self.watch: Watch | None = None
        self._display = display
        self._soon = soon
        self._id = f"grym-{os.urandom(8).hex()}"
        self._lines: deque[Line] = deque(lines, maxlen=_KEPT)
        self._lock = threading.Lock()
        self._changes = 0
        self._shown = False
        self._under_way = False  # an update is: it sees to whatever comes meanwhile

    @property
    def lines(self) -> tuple[Line, ...]:
        """What it shows: time of day, what happened, id, type, key and priority of each."""
        with self._lock:
            return tuple(self._lines)

    @property
    def live(self) -> bool:
        """Whether it hears."""
        return self.watch is not None and not self.watch.closed

    def hear(self, event: ItemEvent) -> None:
        """Add a line, and let what is shown follow a little later."""
        line = _line(event)
        with self._lock:
            self._lines.appendleft(line)
        self._changed()

    def close(self) -> bool:
        """Hear no more, and let what is shown say so; return whether it was live until now."""
        was_live = self.live
        if self.watch is not None:
            self.watch.close()
        if was_live:
            self._changed()
        return was_live

    def __repr__(self) -> str:
        return repr(self._sheet())

    def _repr_html_(self) -> str:
        return self._sheet()._repr_html_()

    def _ipython_display_(self) -> None:
        changes = self._changes
        self._display(self._bundle(), self._id, False)
        self._shown = True
        if changes != self._changes:
            self._changed()

    # -- inside ------------------------------------------------------------------------------------

    def _sheet(self) -> Sheet:
        caption = f"context, {'live' if self.live else 'ended'}{self.title and f' ({self.title})'}"
        columns = ("at", "what", "id", "type", "key", "priority")
        return Sheet("", (Table(caption, columns, self.lines),))

    def _bundle(self) -> dict[str, str]:
        sheet = self._sheet()
        return {"text/plain": repr(sheet), "text/html": sheet._repr_html_()}

    def _changed(self) -> None:
        with self._lock:
            self._changes += 1
            asks = self._shown and self._soon is not None and not self._under_way
            self._under_way = self._under_way or asks
        if asks:
            self._ask()

    def _ask(self) -> None:
        if self._soon is not None:
            with suppress(GrymError):  # the runtime is closed: nothing happens any more
                self._soon(self._update)

    def _update(self) -> None:
        """Show how it is now, and again if that changed meanwhile: one at a time, so the last comes last."""
        changes = self._changes
        try:
            self._display(self._bundle(), self._id, True)
        except Exception:  # the page's channels are closed, or broken: nobody looks any more
            self._shown = False
            self.close()
        with self._lock:
            again = self._under_way = self._shown and changes != self._changes
        if again:
            self._ask()


def _line(event: ItemEvent) -> Line:
    from grym_nb.context.query import KINDS

    item = event.item
    at = time.strftime("%H:%M:%S", time.localtime(event.at))
    what = next(name for name, kind in KINDS.items() if isinstance(event, kind))
    return at, what, event.id, _short(item.type), _short(item.key or ""), PRIORITIES[item.priority]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"


# -- those of a shell ------------------------------------------------------------------------------


def feed_of(shell: InteractiveShell, runtime: Runtime, filters: Mapping[str, Any]) -> Feed:
    """Return a feed of what happens in the context of a runtime from now on, to items that fit.

    One that was for the same before ends, and what it has heard goes over. Unknown filters are told with the
    closest, and then nothing has changed.
    """
    from grym_nb.context.query import watched_of

    asked = {name: value for name, value in filters.items() if name != "kinds"}
    kinds = filters.get("kinds") or ()
    watched_of(asked, kinds)
    title = ", ".join(f"{name}={_told(value)}" for name, value in sorted(filters.items()))
    feeds = _feeds.setdefault(shell, {})
    before = feeds.get(title)
    if before is not None:
        before.close()
    updates = getattr(shell, "kernel", None) is not None  # a terminal cannot be written over
    feed = Feed(
        title,
        display_of(shell),
        _soon_by(runtime) if updates else None,
        before.lines if before is not None else (),
    )
    feed.watch = runtime.context.watch(feed.hear, kinds=kinds, **asked)
    feeds[title] = feed
    return feed


def _told(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _soon_by(runtime: Runtime) -> Soon:
    # On the pulse itself only the waiting: to send something, the kernel flushes what was printed first.
    pulse = runtime.registry.ports.pulse
    name = "update of %grym context watch"

    def soon(update: Callable[[], None]) -> None:
        pulse.after(_EVERY, lambda: pulse.work(update, name=name), name=name)

    return soon


def end_feeds(shell: InteractiveShell) -> int:
    """End the feeds of a shell; return how many were live."""
    return sum([feed.close() for feed in _feeds.pop(shell, {}).values()])
