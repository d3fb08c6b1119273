"""A text as its syntax tree."""

from __future__ import annotations

import ast
import threading

__all__ = ["parsed"]

_ONE_AT_A_TIME = threading.Lock()
_TRIES = 10


def parsed(text: str, path: str = "<text>") -> ast.Module:
    """Return what `ast.parse` does, whichever threads do so at once; raises the `SyntaxError` of the text.

    Before Python 3.11.8 and 3.12.2 two that come between each other raise a SystemError (gh-106905).
    """
    with _ONE_AT_A_TIME:
        return _parsed(text, path)


def _parsed(text: str, path: str) -> ast.Module:
    for _ in range(_TRIES):
        try:
            return ast.parse(text, path)
        except SystemError:  # by somebody who is not one of ours
            continue
    return ast.parse(text, path)
