"""What nobody asked for is said in the notebook: a strip under the cell that runs, or under the next one."""

from __future__ import annotations

import html
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grym_nb.notebook.pictures import COLOURS

if TYPE_CHECKING:
    from grym_nb.events import AlertChanged, ServiceReloaded

__all__ = ["Toasts"]

_MOST = 20  # that wait to be shown; of more, the oldest are left out
_COLOURS = {"info": COLOURS["unknown"], "warning": COLOURS["degraded"], "critical": COLOURS["unhealthy"]}


@dataclass(frozen=True, slots=True)
class _Strip:
    text: str
    colour: str

    def html(self) -> str:
        style = f"border-left: 4px solid {self.colour}; padding: 2px 8px"
        return f'<div style="{style}">{html.escape(self.text)}</div>'


class Toasts:
    """Hears in any thread, and shows what it heard when a cell ends, or before the next one begins."""

    def __init__(self, publish: Callable[[Mapping[str, str]], object]) -> None:
        self._publish = publish
        self._waiting: deque[_Strip] = deque(maxlen=_MOST)

    def hear(self, event: AlertChanged) -> None:
        """Keep an alert to be shown, unless it is only for the log."""
        alert = event.alert
        if alert.severity != "info":
            colour = COLOURS["healthy"] if alert.state == "over" else _COLOURS[alert.severity]
            self._waiting.append(_Strip(alert.text, colour))

    def hear_reload(self, event: ServiceReloaded) -> None:
        """Keep what came of a reload that nobody asked for: one that was asked for returns it."""
        if event.by != "asked":
            bad = event.how in ("refused", "taken back")
            text = " ".join(event.line.split())
            self._waiting.append(_Strip(text, COLOURS["degraded" if bad else "healthy"]))

    def show(self, *_: object) -> None:
        """Show what has come since the last time, all in one output."""
        strips = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if strips:
            text = "\n".join(strip.text for strip in strips)
            self._publish({"text/plain": text, "text/html": "".join(strip.html() for strip in strips)})
