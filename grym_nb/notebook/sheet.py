"""What a command shows: tables and passages under a title, as text and as HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace

from grym_nb.render import Table

__all__ = ["Picture", "Sheet"]

_MOST_BYTES = 18_000  # of a repr: it is kept in the notebook's file


@dataclass(frozen=True, slots=True)
class Picture:
    """An image, as HTML, and what it shows in words."""

    words: str
    html: str

    def text(self) -> str:
        """Return the words."""
        return self.words


@dataclass(frozen=True, slots=True, repr=False)
class Sheet:
    """Tables, pictures and passages of text under a title.

    `text()` is everything; the reprs stop at 18 KB and say so. Holds strings only, so that an output that
    is kept for hours keeps nothing else alive.
    """

    title: str
    parts: Sequence[Table | Picture | str] = ()

    def text(self) -> str:
        """Return all of it as text, parts divided by an empty line."""
        told = [part if isinstance(part, str) else part.text() for part in self.parts]
        return "\n\n".join(filter(None, [self.title, *told]))

    def __repr__(self) -> str:
        return _cut(self.text())

    def _repr_html_(self) -> str:
        shown = [f"<p><b>{html.escape(_cut(self.title))}</b></p>"] if self.title else []
        room = _MOST_BYTES - sum(map(len, shown))
        for part in self.parts:
            fits = _fitting(part, room)
            shown.append(fits)
            room -= len(fits.encode())
        return "".join(shown)


def _plain(text: str) -> str:
    # A lone surrogate, as in a path that is not UTF-8, cannot be sent to a front end.
    return text.encode(errors="replace").decode()


def _cut(text: str) -> str:
    data = _plain(text).encode()
    if len(data) <= _MOST_BYTES:
        return data.decode()
    return data[:_MOST_BYTES].decode(errors="ignore") + "\n… cut here; .text() of the object has all of it"


def _fitting(part: Table | Picture | str, room: int) -> str:
    """Return the HTML of a part, of its beginning when there is no room for all of it."""
    shown = _html(part)
    if isinstance(part, Picture):
        return shown if len(shown.encode()) <= room else f"<p>{html.escape(part.words)}</p>"
    size = len(part) if isinstance(part, str) else len(part.rows)
    while len(shown.encode()) > room and size:
        size //= 2
        first = part[:size] if isinstance(part, str) else replace(part, rows=part.rows[:size])
        shown = f"{_html(first)}<p>…</p>" if size else "<p>…</p>"
    return shown


def _html(part: Table | Picture | str) -> str:
    if isinstance(part, Picture):
        return part.html
    return _plain(f"<pre>{html.escape(part)}</pre>" if isinstance(part, str) else part.html())
