"""What is given to a feature, refused where it cannot be used: all that is wrong with it at once."""

from __future__ import annotations

from math import isfinite
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, NoReturn

from grym_nb.errors import AudioError, Problem, ValidationError
from grym_nb.render import brief

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["between", "chosen", "numbers", "refuse", "refuse_no_clip", "refuse_wrong"]


def refuse_no_clip(given: object, feature: str) -> None:
    """Raise for what is no clip."""
    # By what it can do: a `Clip` of before a reload is a clip still.
    if not hasattr(given, "checked"):
        hint = "grym.Clip.read(path), or grym.Clip(samples, rate)"
        raise AudioError(f"{feature} takes a Clip, not {brief(given)}", hint=hint)


def refuse(problems: Sequence[Problem], *, hint: str | None = None) -> NoReturn:
    """Raise for parameters that do not fit."""
    raise ValidationError("these parameters do not fit", problems=problems, hint=hint)


def refuse_wrong(problems: Sequence[Problem]) -> None:
    """Raise where there is a problem."""
    if problems:
        refuse(problems)


def numbers(*given: tuple[str, Any, int]) -> list[Problem]:
    """Return what is wrong with whole numbers, each given as name, value, least."""
    return [
        Problem(name, brief(value), f"a whole number from {least}")
        for name, value, least in given
        if not _is(value, Integral) or value < least
    ]


def between(name: str, value: Any, low: float, high: float) -> list[Problem]:
    """Return what is wrong with a number that has to lie in [low, high]."""
    if _is(value, Real) and low <= value <= high:
        return []
    ends = f"a number from {low:g} to {high:g}" if isfinite(high) else f"a number from {low:g}"
    return [Problem(name, brief(value), ends)]


def chosen(name: str, value: object, choices: Sequence[str]) -> list[Problem]:
    """Return what is wrong with a word that has to be one of `choices`."""
    if value in choices:
        return []
    return [Problem(name, brief(value), "one of " + ", ".join(map(repr, choices)))]


def _is(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
