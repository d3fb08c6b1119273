"""Calls split between two versions: the new one answers a share of them, as a service goes over by and by."""

from __future__ import annotations

import math
from itertools import count
from typing import TYPE_CHECKING

from grym_nb.errors import Problem, ValidationError
from grym_nb.render import brief

if TYPE_CHECKING:
    from grym_nb.services.instance import Serving

__all__ = ["Split", "check_share", "split"]


class Split:
    """Which calls a version answers: a share of them, evenly; those that are left go to the `rest`."""

    __slots__ = ("_calls", "rest", "share")

    def __init__(self, share: float, rest: Serving) -> None:
        self.share = share
        self.rest = rest
        self._calls = count(1)

    def takes(self) -> bool:
        """Tell whether the next call is among them; for any thread."""
        n = next(self._calls)
        return math.floor(n * self.share) > math.floor((n - 1) * self.share)

    def __str__(self) -> str:
        return f"{self.share:.3g}"


def split(serving: Serving, before: Serving | None, share: float) -> bool:
    """Give a version a share of the calls, all with 1.0; False where there is none before it for the rest.

    What is left is not for one that itself was still on its way: it goes to the one that answers the most.
    """
    if share >= 1.0:
        serving.split = None
        return True
    rest = serving.split.rest if serving.split is not None else before
    if rest is not None and rest.split is not None:
        rest = rest.split.rest
    if rest is None or rest.model is None:
        return False
    serving.split = Split(share, rest)
    return True


def check_share(share: object) -> None:
    """Raise for what is no share of calls."""
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0.0 < share <= 1.0:
        hint = "for none at all: rollback()" if share == 0 else "0.1, or --share 10%, is one call in ten"
        problem = Problem("share", brief(share), "a number above 0, up to 1")
        raise ValidationError("no part of the calls is meant by that", problems=[problem], hint=hint)
