"""What keeps a page up to date: the latest of all views, in one message, and none where nothing is new."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from grym_nb.clock import Clock, monotonic
from grym_nb.errors import StateError
from grym_nb.notebook.panels.news import news_of, packed
from grym_nb.notebook.panels.sheets import Shown

if TYPE_CHECKING:
    from grym_nb.pulse import Entry, Pulse, Workers

__all__ = ["EVERY", "News", "Publisher"]

EVERY = 0.25  # seconds between two messages at least
_QUIET = 1.0  # between two looks where nothing has moved for a while
_LIVELY = 5.0  # seconds for which something that moved may move again at once
_UNSEEN = 5.0  # between two looks where nobody looks
_SEEN_FOR = 40.0  # seconds for which a page that said it is looked at is believed

#: all there is new: `seq` counts them, `base` is the one it builds on, `now` the time of day
News = dict[str, Any]

_log = logging.getLogger(__name__)


class Publisher:
    """Looks, finds what is new and sends it: one message for all views, four a second at most.

    `look` returns the views, `send` takes the news, `send_all` sends what `whole` returns; on a worker, and
    never two at a time. Between `start` and `close` it does so by itself, `step` does it once. That nobody
    looks is told by silence: a page says `seen` again and again. While a cell runs it may not be heard.
    """

    def __init__(
        self,
        look: Callable[[], Mapping[str, Shown]],
        send: Callable[[News], object],
        send_all: Callable[[], object] = lambda: None,
        *,
        clock: Clock = monotonic,
        wall: Clock = time.time,
    ) -> None:
        self._look = look
        self._send = send
        self._send_all = send_all
        self._clock = clock
        self._wall = wall
        self._lock = threading.Lock()  # around what says that one is at it
        self._at_it = False
        self._again = False
        self._all = False  # a page has missed something
        self._entry: Entry | None = None
        self._closed = False
        self._views: Mapping[str, Shown] = {}
        self._seq = 0
        now = clock()
        self._looked = -1e9
        self._moved = self._seen = now
        self._busy = False

    # -- when --------------------------------------------------------------------------------------

    def start(self, pulse: Pulse, workers: Workers) -> None:
        """Publish by itself: the pulse says when, a worker does it."""

        def tick() -> None:
            if self.due():
                with suppress(StateError):  # closed in this very moment
                    workers.run(self._step_safely)

        self._entry = pulse.every(EVERY / 2, tick, name="dashboard")

    def due(self) -> bool:
        """Tell whether it is time to look again."""
        if self._closed or self._at_it:
            return False
        since = self._clock() - self._looked
        return since >= (EVERY if self._again else self.pace())

    def pace(self) -> float:
        """Return the seconds between two looks, as things are."""
        now = self._clock()
        if not self._busy and now - self._seen > _SEEN_FOR:
            return _UNSEEN
        return EVERY if now - self._moved < _LIVELY else _QUIET

    def poke(self) -> None:
        """Look as soon as may be: something was done."""
        self._again = True

    def resend(self) -> None:
        """Send everything as soon as may be: a page has missed something."""
        self._all = self._again = True

    def seen(self) -> None:
        """Take down that somebody looks."""
        if self._clock() - self._seen > _SEEN_FOR:
            self._again = True
        self._seen = self._clock()

    def busy(self, runs: bool) -> None:
        """Take down that a cell runs, or has ended: until then no page may have been heard."""
        self._busy = runs
        self._seen = max(self._seen, self._clock() - _SEEN_FOR / 2) if not runs else self._seen

    def close(self) -> None:
        """Publish no more. Idempotent."""
        self._closed = True
        if self._entry is not None:
            self._entry.cancel()

    # -- what --------------------------------------------------------------------------------------

    def whole(self) -> News:
        """Return everything, as it was sent last: for a page that comes later, or has missed something."""
        seq, views = self._seq, self._views
        return {"seq": seq, "now": self._wall(), "views": packed(views)}

    def step(self) -> News | None:
        """Look once and send what is new; return that, or None where nothing is or another is at it."""
        with self._lock:
            if self._at_it or self._closed:
                return None
            self._at_it = True
        try:
            return self._publish()
        finally:
            self._at_it = False

    def prime(self) -> None:
        """Look, and send nothing: whoever comes first asks for everything."""
        self._views, self._seq = self._look(), 1

    def _publish(self) -> News | None:
        self._again, wanted = False, self._all
        self._looked = self._clock()
        views = self._look()
        new = news_of(self._views, views)
        if self._closed or not (new or wanted):
            return None
        self._all = False
        self._moved = self._clock()
        told: News = {"seq": self._seq + 1, "base": self._seq, "now": self._wall(), "views": new}
        self._views, self._seq = views, self._seq + 1
        if wanted:
            self._send_all()
        else:
            self._send(told)
        return told

    def _step_safely(self) -> None:
        if not self.due():  # another has done it since this was asked for
            return
        try:
            self.step()
        except StateError:  # the runtime was closed: what is shown is how it ended
            self.close()
        except Exception:
            _log.exception("the dashboard could not be brought up to date")
            self._looked = self._clock() + _UNSEEN  # not four times a second
