"""Values in a few words, and tables as text and as HTML that every front end keeps.

The HTML is plain on purpose: JupyterLab's sanitizer (untrusted notebooks), GitHub and nbconvert drop
styles, scripts and SVG, so state is a word and the table has a caption, headers and nothing else.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from typing import Any

__all__ = ["Table", "brief", "count", "glance", "holds_secret", "is_secret", "redacted", "seconds", "size"]

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # another one in each run, and outputs get committed
#: names of secrets. A `key` may be one of music, and tokens are also what a text is made of.
_SECRET = re.compile(
    r"token(?!s\b|s_|i|_id|_count)|secret|passw|credential|authori[sz]ation|bearer|(?:api|access|private)key"
    r"|(?<![a-z0-9])(?!(?:musical|song|root|tonal|track|sort|foreign|primary|cache)[ _-])[a-z0-9]+[ _-]key",
    re.IGNORECASE,
)


def seconds(value: float | None) -> str:
    """Return a duration a person reads at a glance: ``"3.1 us"``, ``"250 ms"``, ``"2 min 5 s"``."""
    if value is None:
        return "-"
    if value < 0:
        return f"-{seconds(-value)}"
    if not isfinite(value):
        return f"{value} s"
    for unit, scale, end in (("us", 1e6, 1000), ("ms", 1e3, 1000), ("s", 1, 60)):
        text = f"{value * scale:.3g}"
        if float(text) < end:  # as it is shown: 0.9999 s is 1 s and not 1e+03 ms
            return f"{text} {unit}"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def size(value: int | None) -> str:
    """Return a number of bytes as ``"118 KB"`` or ``"2.0 GB"``."""
    if value is None:
        return "-"
    amount = float(value)
    for unit in ("B", "KB", "MB", "GB"):
        text = f"{amount:.0f}" if unit == "B" or abs(amount) >= 99.95 else f"{amount:.1f}"
        if abs(float(text)) < 1000:
            return f"{text} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def count(number: int, thing: str) -> str:
    """Return ``"1 call"`` or ``"2 calls"``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def brief(value: object, *, width: int = 60) -> str:
    """Return what a value is, without its contents when they are large, and never raise.

    Arrays and tensors are told by dtype and shape, containers by length, the rest by a short repr.
    """
    try:
        kind = getattr(type(value), "_plain", type(value)).__name__  # of a shared dict: dict
        shape = getattr(value, "shape", None)
        if isinstance(shape, tuple):
            return f"{kind} {getattr(value, 'dtype', '')} {tuple(shape)}".replace("  ", " ")
        if isinstance(value, (bytes, bytearray)):
            return f"{kind} of {len(value)} bytes"
        if isinstance(value, (Mapping, list, tuple, set, frozenset)) and len(value) > 4:
            return f"{kind} of {len(value)}"
        # A string is cut before its repr is made: a novel costs as little as a word.
        text = repr(value[: width + 1] if isinstance(value, str) else value)
    except Exception as error:
        return f"<{type(value).__name__}, its repr raised {type(error).__name__}>"
    text = _ADDRESS.sub("", " ".join(text.split()))
    return text if len(text) <= width else text[: width - 1] + "…"


def is_secret(name: str) -> bool:
    """Tell whether what bears this name is not to be shown."""
    return _SECRET.search(name) is not None


def holds_secret(name: str, value: Any) -> bool:
    """Tell whether a value, or something inside of it, is not to be shown, nor written down."""
    return _is_hidden(name, value) or bool(_hidden(value) != value)


def redacted(config: Mapping[str, Any]) -> dict[str, str]:
    """Return `config` in a few words each, with what looks like a secret left out.

    Outputs get committed with their notebooks.
    """
    return {
        key: "'***'" if _is_hidden(key, value) else brief(_hidden(value)) for key, value in config.items()
    }


def glance(name: str, value: Any) -> str:
    """Return a value in a few words, of a large container the first of what is in it; secrets left out."""
    if not isinstance(value, (dict, list, tuple, set, frozenset)) or len(value) <= 4:
        return redacted({name: value})[name]
    first = islice(value.items() if isinstance(value, dict) else value, 3)
    few = dict(first) if isinstance(value, dict) else list(first)
    text = redacted({name: few})[name]
    if text == "'***'":
        return text
    return (
        f"{text[:-1]}, … {len(value)} in all{text[-1]}" if text[-1] in "}]" else f"{text} {len(value)} in all"
    )


def _is_hidden(name: str, value: Any) -> bool:
    """Tell whether a value is not to be shown: by its name, or a `key` that looks like no key of music."""
    if name.lower() != "key":
        return is_secret(name)
    return isinstance(value, (str, bytes)) and len(value) >= 16 and len(value.split()) == 1


def _hidden(value: Any, depth: int = 4) -> Any:
    """Return `value` with the secrets inside it left out; what is too deep, or raises, is left out too."""
    kind = type(value)  # and not isinstance: a proxy may raise when it is asked for its class
    if not issubclass(kind, (Mapping, list, tuple)):
        return value
    if not depth:
        return "…"
    try:
        if depth == 4 and len(value) > 4:
            return value  # a large one is told by its length
        if issubclass(kind, Mapping):
            return {
                key: "***" if _is_hidden(str(key), inner) else _hidden(inner, depth - 1)
                for key, inner in value.items()
            }
        inside = [_hidden(inner, depth - 1) for inner in value]
    except Exception:
        return f"<{type(value).__name__}>"
    return tuple(inside) if issubclass(kind, tuple) else inside


#: Jupyter sets cells flush right, which suits numbers only; said on each cell, since a style sheet is dropped
_LEFT = 'style="text-align: left"'


@dataclass(frozen=True, slots=True, repr=False)
class Table:
    """Rows under headers, with a caption: the one shape in which static output is shown."""

    caption: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    empty: str = "nothing yet"

    def text(self) -> str:
        """Return the table in columns, for terminals, plain text and the log."""
        if not self.rows:
            return f"{self.caption}: {self.empty}"
        cells = [self.columns, *([str(cell) for cell in row] for row in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
        head = [lines[0], "  ".join("-" * w for w in widths)] if any(self.columns) else []
        return "\n".join([self.caption, *head, *lines[1:]])

    __repr__ = __str__ = text

    def _repr_html_(self) -> str:
        return self.html()

    def html(self) -> str:
        """Return the table as HTML that survives sanitizers; everything in it is escaped."""
        if not self.rows:
            return f"<p>{html.escape(self.caption)}: {html.escape(self.empty)}</p>"
        names = "".join(f'<th scope="col" {_LEFT}>{html.escape(c)}</th>' for c in self.columns)
        head = f"<thead><tr>{names}</tr></thead>" if any(self.columns) else ""
        body = "".join(
            "<tr>" + "".join(f"<td {_LEFT}>{html.escape(str(c))}</td>" for c in row) + "</tr>"
            for row in self.rows
        )
        return (
            f'<table class="grym-table"><caption>{html.escape(self.caption)}</caption>'
            f"{head}<tbody>{body}</tbody></table>"
        )
