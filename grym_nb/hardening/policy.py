"""What a policy is: a few values, checked together, that say how something is done."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, ClassVar, Self, TypeAlias

from grym_nb.errors import ConfigError, Problem, closest
from grym_nb.render import brief

__all__ = [
    "FLAG",
    "NUMBER",
    "SECONDS",
    "SHARE",
    "WHOLE",
    "Counted",
    "Fit",
    "Policy",
    "counted",
    "is_counted",
    "or_none",
]

#: which errors are meant: types, or a function that is asked
Counted: TypeAlias = "type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]"
_log = logging.getLogger(__name__)


class Fit:
    """What a value has to be, in words and as a test."""

    __slots__ = ("fits", "words")

    def __init__(self, words: str, fits: Callable[[Any], bool]) -> None:
        self.words = words
        self.fits = fits


def _number(value: Any) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max  # so, since an int may be larger than any float


def or_none(fit: Fit) -> Fit:
    """Return what fits where None does, too."""
    return Fit(f"{fit.words}, or None", lambda value: value is None or fit.fits(value))


def is_counted(value: Any) -> bool:
    """Tell whether this says which errors are meant."""
    if isinstance(value, tuple):
        return bool(value) and all(isinstance(kind, type) and is_counted(kind) for kind in value)
    return issubclass(value, Exception) if isinstance(value, type) else callable(value)


def counted(which: Counted, error: Exception) -> bool:
    """Tell whether an error is among those that are meant; one about which the function raises is."""
    if isinstance(which, (type, tuple)):
        return isinstance(error, which)
    try:
        return bool(which(error))
    except Exception:
        _log.exception("%r raised when it was asked about %r, which counts", which, error)
        return True


WHOLE = Fit(
    "a whole number from 1", lambda value: isinstance(value, int) and value >= 1 and value is not True
)
NUMBER = Fit("a number from 1 to 100", lambda value: _number(value) and 1 <= value <= 100)
SECONDS = Fit("seconds above 0", lambda value: _number(value) and value > 0)
SHARE = Fit("a share above 0, up to 1", lambda value: _number(value) and 0 < value <= 1)
FLAG = Fit("True or False", lambda value: isinstance(value, bool))


class Policy:
    """Values that are checked when they are set: everything that does not fit is said at once."""

    __slots__ = ()

    #: what each of them has to be, and the error's first line
    FITS: ClassVar[Mapping[str, Fit]]
    REFUSAL: ClassVar[str]

    def __post_init__(self) -> None:
        problems = [
            Problem(name, brief(getattr(self, name)), fit.words)
            for name, fit in self.FITS.items()
            if not fit.fits(getattr(self, name))
        ]
        if problems := problems or self.discord():
            raise ConfigError(self.REFUSAL, problems=problems)

    def discord(self) -> list[Problem]:
        """Return what does not go together, each by itself being fine."""
        return []

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Return the policy with these values; an unknown name is told with the closest."""
        known = [f.name for f in fields(cls)]  # type: ignore[arg-type]  # every policy is a dataclass
        unknown = [str(name) for name in given if name not in known]
        if unknown:
            problems = [
                Problem(name, brief(given[name]), f"no such value.{closest(name, known)}") for name in unknown
            ]
            raise ConfigError(cls.REFUSAL, problems=problems)
        return cls(**given)
