"""Progress of long work under the cell that waits for it: one display for each piece of work, updated."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grym_nb.clock import Clock, monotonic
from grym_nb.render import seconds

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from grym_nb.services.progress import Progress

__all__ = ["Display", "ProgressDisplays", "bundle_of", "display_of", "displays_for"]

#: shows a mime bundle under a display id: as a new output, or (`update`) in place of the one before
Display = Callable[[dict[str, str], str, bool], None]


@dataclass(slots=True)
class _Shown:
    """One piece of work that was heard of: since when, and the display it has, if it has one yet."""

    progress: Progress
    since: float
    id: str = ""
    told: str = ""


class ProgressDisplays:
    """What `on_progress` calls in a notebook: shows work that has gone on for `after` seconds.

    Lives from one cell to the next: `finish` brings every display to its final figure and forgets it.
    """

    def __init__(self, display: Display, *, after: Callable[[], float], clock: Clock = monotonic) -> None:
        self._display = display
        self._after = after
        self._clock = clock
        self._shown: dict[int, _Shown] = {}

    def __call__(self, progress: Progress) -> None:
        now = self._clock()
        shown = self._shown.get(id(progress))
        if shown is None:
            # Our own time, from when it was first heard of: the work's may be on another clock.
            shown = self._shown[id(progress)] = _Shown(progress, now)
        if now - shown.since >= self._after():
            self._show(shown, now)

    def finish(self, *_: object) -> None:
        """Bring what is shown to its last figure: what ended on a worker told it to nobody."""
        now = self._clock()
        for shown in self._shown.values():
            if shown.id:
                self._show(shown, now)
        self._shown.clear()

    def _show(self, shown: _Shown, now: float) -> None:
        if shown.told == shown.progress.told:
            return
        bundle = bundle_of(shown.progress, now - shown.since)
        first = not shown.id
        # Not a counter: a page still has the displays of the kernel before this one.
        shown.id = shown.id or f"grym-{os.urandom(8).hex()}"
        shown.told = shown.progress.told
        self._display(bundle, shown.id, not first)


def bundle_of(progress: Progress, elapsed: float) -> dict[str, str]:
    """Return a piece of work as text and as HTML that sanitizers keep."""
    done, total = progress.done, progress.total
    told = f"{progress.title} {progress.told}, {seconds(elapsed)}"
    if total and 0 < done < total:
        told += f", about {seconds(elapsed / done * (total - done))} left"
    bar = f'<progress value="{min(done, total)}" max="{total}"></progress> ' if total else ""
    return {"text/plain": told, "text/html": f"<p>{bar}{html.escape(told)}</p>"}


def displays_for(shell: InteractiveShell, environ: Mapping[str, str] = os.environ) -> ProgressDisplays | None:
    """Return the displays for a shell, None where nobody sees them: in a terminal, and under tests.

    ``GRYM_PROGRESS`` in the environment decides it: ``on`` or ``off``.
    """
    wish = environ.get("GRYM_PROGRESS", "").lower()
    under_test = "PYTEST_CURRENT_TEST" in environ
    if getattr(shell, "kernel", None) is None or wish == "off" or (under_test and wish != "on"):
        return None
    return ProgressDisplays(display_of(shell), after=_after)


def display_of(shell: InteractiveShell) -> Display:
    """Return what shows a bundle where the cells of a shell are shown."""
    publisher: Any = shell.display_pub

    def display(bundle: dict[str, str], id: str, update: bool) -> None:
        publisher.publish(bundle, transient={"display_id": id}, update=update)

    return display


def _after() -> float:
    from grym_nb.runtime import current

    return current().settings.progress_after_seconds
