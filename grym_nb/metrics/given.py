"""What a series may be called, and what is a number: said where it is given, not where it is read."""

from __future__ import annotations

from typing import Any

from grym_nb.errors import ConfigError, Problem, ValidationError
from grym_nb.render import brief

__all__ = ["number", "one_of", "refusal", "text"]

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
