"""What a value is that somebody else made, asked so that nothing raises; and how its place is called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite
from numbers import Real
from typing import Any

from grym_nb.render import brief

__all__ = ["dotted", "is_array", "is_mapping", "number_of", "numbers_in"]

_PLAIN_NAME = re.compile(r"[^\s.:\[\]'\"](?:[^\n\r.:\[\]'\"]*[^\s.:\[\]'\"])?")


def number_of(value: Any) -> float | None:
    """Return a finite number as a float; None for all else: a bool, NaN, text, what float cannot hold."""
    if isinstance(value, bool) or not issubclass(type(value), Real):
        return None
    try:
        number = float(value)
    except Exception:  # more digits than a float has room for, or a stranger
        return None
    return number if isfinite(number) else None


def is_mapping(value: Any) -> bool:
    """Tell whether a value has fields."""
    return issubclass(type(value), Mapping)  # by its type: a proxy may raise when it is asked for its class


def is_array(value: Any) -> bool:
    """Tell whether a value is an array or a tensor; numpy's scalars, and text, are none."""
    try:
        kind = type(value)
        if issubclass(kind, (str, bytes)) or not hasattr(kind, "__len__"):
            return False
        return isinstance(value.shape, tuple) and hasattr(value, "dtype")
    except Exception:  # it has no shape, or does not tell it
        return False


def numbers_in(array: Any) -> Any:
    """Return an array, or a tensor wherever it lies, as numpy float64; None when it has no real numbers."""
    import numpy as np

    try:
        ours = np.asarray(array.detach().cpu() if hasattr(array, "detach") else array)
        return ours.astype(np.float64) if ours.dtype.kind in "iuf" else None
    except Exception:  # of a kind that numpy does not have
        return None


def dotted(path: str, name: Any) -> str:
    """Return the path of a field: ``rhythm.bpm``, or ``rhythm['a.b']`` where a dot would mislead."""
    if isinstance(name, str) and _PLAIN_NAME.fullmatch(name):
        return f"{path}.{name}" if path else name
    return f"{path}[{name!r}]" if isinstance(name, str) else f"{path}[{brief(name)}]"
