"""What an alert says in the notebook: a strip under the cell that runs, or under the next one."""

from __future__ import annotations

import html
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from grym_nb.notebook.pictures import COLOURS

if TYPE_CHECKING:
    from grym_nb.events import AlertChanged
    from grym_nb.health import Alert

__all__ = ["Toasts"]

_MOST = 20  # that wait to be shown; of more, the oldest are left out
_COLOURS = {"info": COLOURS["unknown"], "warning": COLOURS["degraded"], "critical": COLOURS["unhealthy"]}


class Toasts:
    """Hears of alerts in any thread, and shows them when a cell ends, or before the next one begins."""

    def __init__(self, publish: Callable[[Mapping[str, str]], object]) -> None:
        self._publish = publish
        self._waiting: deque[Alert] = deque(maxlen=_MOST)

    def hear(self, event: AlertChanged) -> None:
        """Keep an alert to be shown, unless it is only for the log."""
        if event.alert.severity != "info":
            self._waiting.append(event.alert)

    def show(self, *_: object) -> None:
        """Show what has come since the last time, all in one output."""
        alerts = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if alerts:
            text = "\n".join(alert.text for alert in alerts)
            self._publish({"text/plain": text, "text/html": "".join(map(_strip, alerts))})


def _strip(alert: Alert) -> str:
    colour = COLOURS["healthy"] if alert.state == "over" else _COLOURS[alert.severity]
    return f'<div style="border-left: 4px solid {colour}; padding: 2px 8px">{html.escape(alert.text)}</div>'
