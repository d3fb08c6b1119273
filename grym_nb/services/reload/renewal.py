"""A state for other code: what would go on running the old is made anew, all else is the very same object.

Copy on path: an object is made anew where something changed can be reached from it, and nothing else is. The
old state stays as it is, so calls under way, a rollback and a comparison see only what they always saw.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from grym_nb.services.reload.anew import Making
from grym_nb.services.reload.walk import Walk

__all__ = ["Renewal", "renewed"]


@dataclass(frozen=True, slots=True)
class Renewal:
    """A state for other code, and how it differs from the one before.

    `state` has the attributes, in a new dict; `own` are the names of those that are other objects: where
    there are none, the old dict can be shared. `made` is how many objects were made anew. `stays` is what
    goes on with old code, and where.
    """

    state: dict[str, Any]
    own: frozenset[str]
    made: int
    stays: tuple[str, ...]


def renewed(
    state: Mapping[str, Any],
    newer: Callable[[Any], Any],
    models: tuple[object, object],
    apart: Collection[int] = (),
) -> Renewal:
    """Return a state in which nothing leads to code that has a newer one; the one given stays as it is.

    `newer` tells what takes the place of a class or a function, or None; `models` are the old one and the
    new, which may still be empty. What has its id in `apart`, and all beneath it, is never touched. Tensors
    and arrays are the same objects. What cannot be made anew stays, and is told.
    """
    walk = Walk(state, newer, models, apart)
    walk.look()
    walk.mark()
    making = Making(walk)
    new = making.state()
    own = frozenset([name for name, value in new.items() if value is not walk.values[name]])
    return Renewal(new, own, making.count, walk.lines(making.failed))
