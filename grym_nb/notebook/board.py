"""The one widget: it draws all panels live, in as many places as it is shown in."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import traitlets

__all__ = ["Board"]

_STATIC = Path(__file__).parent / "static"
#: one module, in the order in which its parts use one another
_SCRIPTS = ("dom.js", "store.js", "charts.js", "services.js", "panels.js", "board.js")


def _text(*names: str) -> str:
    return "\n".join((_STATIC / name).read_text(encoding="utf-8") for name in names)


def _whole(_: int, board: Board) -> Any:
    return board.whole()


class Board(anywidget.AnyWidget):
    """What a page draws. Traits only go down, set by one thread; what it asks for comes as messages.

    `news` is what has changed. `full` is a number here; whoever asks for it, as a page that is loaded again
    does, is sent everything there is by then.
    """

    _esm = traitlets.Unicode(_text(*_SCRIPTS)).tag(sync=True)
    _css = traitlets.Unicode(_text("board.css")).tag(sync=True)
    key = traitlets.Unicode().tag(sync=True)
    panels = traitlets.List(traitlets.Unicode()).tag(sync=True)
    full = traitlets.Int(0).tag(sync=True, to_json=_whole)
    news = traitlets.Dict().tag(sync=True)

    def __init__(self, whole: Callable[[], Any], panels: tuple[str, ...]) -> None:
        self.whole = whole
        super().__init__(panels=list(panels), key=os.urandom(8).hex())

    def close(self) -> None:
        """Close it with its layout, which nobody else does. Idempotent."""
        layout = self.layout
        super().close()
        if layout is not None:
            layout.close()

    def __repr__(self) -> str:
        return "Board()"
