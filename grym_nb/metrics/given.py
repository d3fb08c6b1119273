"""What a series may be called, what is a number and what are points: said where it is given."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from numbers import Real
from operator import itemgetter
from typing import Any

from grym_nb.errors import ConfigError, Problem, ValidationError
from grym_nb.render import brief

__all__ = ["check_name", "number", "one_of", "points_of", "positive", "refusal", "text"]

_NUMBER = "a number, such as 3 or 0.5"


def number(value: Any, path: str = "value") -> float:
    """Return a number of any kind as Python's own: one of NumPy would make slow ones of all sums."""
    try:
        return float(value - 0)  # not `float(value)`, which reads texts
    except Exception:
        raise refusal(path, value, _NUMBER) from None


def one_of(value: Any, kind: type | tuple[type, ...], path: str, expected: str) -> None:
    """Refuse what is not of a kind."""
    if not isinstance(value, kind):
        problem = Problem(path, brief(value), expected)
        raise ValidationError(
            f"{path} cannot be {brief(value)}", problems=[problem], hint=f"give it {expected}"
        )


def refusal(path: str, value: Any, expected: str) -> ValidationError:
    """Return the error for a value that cannot be counted."""
    problem = Problem(path, brief(value), expected)
    hint = f"nothing was counted; give it {expected}"
    return ValidationError(f"{brief(value)} cannot be counted", problems=[problem], hint=hint)


def text(value: Any, path: str) -> None:
    """Refuse what is no name."""
    if not isinstance(value, str) or not value.strip():
        problem = Problem(path, brief(value), "a text that is not empty, such as 'my.seconds'")
        raise ConfigError(f"nothing can be called {brief(value)}", problems=[problem])


def check_name(value: Any, path: str = "name") -> None:
    """Refuse what no series can be called, where one is asked for."""
    one_of(value, str, path, "the name of a series, such as 'service.call.seconds'")


def positive(
    value: Any,
    path: str,
    expected: str = "seconds above 0, such as 60",
    *,
    zero: bool = False,
    endless: bool = False,
) -> float:
    """Return a number above 0 of any kind as Python's own, or 0 and infinity where those make sense too."""
    fits = isinstance(value, Real) and not isinstance(value, bool)
    if not (fits and (0 < value < inf or (zero and value == 0) or (endless and value == inf))):
        problem = Problem(path, brief(value), expected)
        raise ConfigError(f"{path} cannot be {brief(value)}", problems=[problem])
    return float(value)


def points_of(given: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return points by time; those of no time are left out."""
    try:
        found = [(time - 0, value - 0) for time, value in given]
    except Exception as error:
        what = "points, such as [(0.0, 1.5), (1.0, 1.7)]: each a time in seconds, and a value"
        problem = Problem("points", f"{brief(given)} ({error})", what)
        raise ValidationError("these are no points", problems=[problem]) from None
    return sorted([point for point in found if -inf < point[0] < inf], key=itemgetter(0))
