"""How urgent a call is, how much an item is worth keeping: low, normal, high or critical."""

from __future__ import annotations

from grym_nb.errors import Problem, ValidationError
from grym_nb.render import brief

__all__ = ["CRITICAL", "PRIORITIES", "RANKS", "priority_of"]

#: from the lowest, 0, to the highest, 3
PRIORITIES = ("low", "normal", "high", "critical")
CRITICAL = 3
#: what each may be called
RANKS: dict[str | int, int] = {
    called: rank for rank, name in enumerate(PRIORITIES) for called in (name, rank)
}


def priority_of(value: str | int) -> int:
    """Return a priority as 0 (low), 1 (normal), 2 (high) or 3 (critical); numbers are clamped."""
    if isinstance(value, str):
        if value in RANKS:
            return RANKS[value]
    elif isinstance(value, int) and not isinstance(value, bool):
        return min(max(value, 0), 3)
    raise ValidationError(
        "unknown priority",
        problems=[Problem("priority", brief(value), f"{', '.join(PRIORITIES)}, or 0 to 3")],
    )
