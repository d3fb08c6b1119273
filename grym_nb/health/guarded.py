"""What others have handed in is called so that what it raises takes nothing else along."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["Guarded", "named"]

_log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


def named(fn: object) -> str:
    """Return what to call a function, or an object that is called, in a message."""
    return str(getattr(fn, "__qualname__", type(fn).__qualname__))


class Guarded:
    """Calls things by a name; one that raises is logged the first time, and the others have their turn."""

    def __init__(self) -> None:
        self._said: set[tuple[str, type[BaseException]]] = set()

    def __call__(self, what: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Return what `fn` returns; None where it raises."""
        try:
            return fn(*args, **kwargs)
        except (Exception, SystemExit) as error:
            if (what, type(error)) not in self._said:
                self._said.add((what, type(error)))
                _log.exception("%s raised; the rest goes on, and this is not said again", what)
            return None
