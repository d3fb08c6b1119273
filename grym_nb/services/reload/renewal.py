"""Stand-in until the real one comes."""

from __future__ import annotations

from dataclasses import dataclass
from types import MethodType
from typing import Any

__all__ = ["Renewal", "renewed"]


@dataclass(frozen=True, slots=True)
class Renewal:
    state: dict[str, Any]
    own: frozenset[str]
    made: int = 0
    stays: tuple[str, ...] = ()


def renewed(state: Any, newer: Any, models: Any, apart: Any = ()) -> Renewal:
    out = dict(state)
    own = set()
    for k, v in state.items():
        if isinstance(v, MethodType) and v.__self__ is models[0]:
            out[k] = getattr(models[1], v.__name__)
            own.add(k)
        elif id(v) not in apart and (n := newer(type(v))) is not None:
            o = object.__new__(n)
            o.__dict__.update(vars(v))
            out[k] = o
            own.add(k)
    return Renewal(out, frozenset(own))
