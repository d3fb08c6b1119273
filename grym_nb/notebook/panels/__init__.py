"""Panels: what is seen of the services at one moment, as plain data, as text and as HTML.

`take` looks once and gives a `Snapshot`; each of `VIEWS` makes of it a dict of plain values, which depends on
nothing else; `sheet_of` makes of such a dict what is shown where nothing moves.
"""

from grym_nb.notebook.panels.sheets import sheet_of
from grym_nb.notebook.panels.snapshot import Charted, Doing, Snapshot, take
from grym_nb.notebook.panels.views import VIEWS

__all__ = ["VIEWS", "Charted", "Doing", "Snapshot", "sheet_of", "take"]
