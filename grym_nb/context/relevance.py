"""How much an item matters now: how fresh it is, how often it is used, how like what is asked for it is.

And what somebody seems to prefer: said once, it stays; seen, it fades and grows with what is seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf, log1p, ulp
from typing import Any

from grym_nb.context.difference import same
from grym_nb.context.item import NOTHING, ContextItem
from grym_nb.context.likeness import Likeness, likeness_of, similarity
from grym_nb.context.values import number_of
from grym_nb.errors import Problem, ValidationError, says_what_it_takes
from grym_nb.render import brief

__all__ = [
    "EVEN",
    "HALF_LIFE",
    "PREFERENCE_HALF_LIFE",
    "Preference",
    "Weights",
    "preferred",
    "ranked",
    "relevance",
    "standing",
    "strength_of",
]

#: seconds after which an item counts half as fresh
HALF_LIFE = 600.0
#: seconds after which what was seen of somebody counts half: a week
PREFERENCE_HALF_LIFE = 7 * 86_400.0


#: what each number has to be, by its name without what is in brackets
_RULES: dict[str, tuple[str, float, float]] = {
    "now": ("seconds", -inf, inf),
    "at": ("seconds", -inf, inf),
    "half_life": ("seconds above 0", ulp(0.0), inf),
    "uses": ("a number, 0 or more", 0.0, inf),
    "recency": ("a number, 0 or more", 0.0, inf),
    "frequency": ("a number, 0 or more", 0.0, inf),
    "similarity": ("a number, 0 or more", 0.0, inf),
    "strength": ("a number from 0 to 1", 0.0, 1.0),
    "least": ("a number from 0 to 1", 0.0, 1.0),
}


def _refuse(numbers: Mapping[str, Any]) -> None:
    problems = []
    for name, value in numbers.items():
        expected, low, high = _RULES[name.partition("[")[0]]
        number = number_of(value)
        if number is None or not low <= number <= high:
            problems.append(Problem(name, brief(value), expected))
    if problems:
        raise ValidationError("nothing can be reckoned with these numbers", problems=problems)


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each part of relevance counts, one against the other."""

    recency: float = 1.0
    frequency: float = 1.0
    similarity: float = 1.0

    def __post_init__(self) -> None:
        parts = {"recency": self.recency, "frequency": self.frequency, "similarity": self.similarity}
        _refuse(parts)
        if not any(parts.values()):
            problem = Problem("weights", "only zeros", "at least one above 0")
            raise ValidationError("these weights weigh nothing", problems=[problem])


EVEN = Weights()


@says_what_it_takes
def relevance(
    item: ContextItem,
    *,
    now: float,
    uses: int = 0,
    like: Any = None,
    half_life: float = HALF_LIFE,
    weights: Weights = EVEN,
) -> float:
    """Return how relevant an item is, from 0 to 1: the weighted mean of three parts, each from 0 to 1.

    Recency halves every `half_life` seconds since it was written; frequency grows ever more slowly with its
    `uses`; similarity is the cosine of its words (type, key, tags and texts) and those of `like`, or of both
    as vectors when both are numbers in a row, as many. Without `like` the mean is of the other two.
    """
    _refuse({"now": now, "half_life": half_life, "uses": uses})
    return _relevance(item, now, uses, None if like is None else likeness_of(like), half_life, weights)


@says_what_it_takes
def ranked(
    items: Iterable[ContextItem],
    *,
    now: float,
    uses: Mapping[str, int] = NOTHING,
    like: Any = None,
    half_life: float = HALF_LIFE,
    weights: Weights = EVEN,
    limit: int | None = None,
) -> list[tuple[float, ContextItem]]:
    """Return the items with their relevance, the most relevant first; equal ones stay in their order.

    `uses` has how often each was used, by its id.
    """
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
        problem = Problem("limit", brief(limit), "a whole number, or None for all")
        raise ValidationError("items cannot be ranked so", problems=[problem])
    given = [(item, uses.get(item.id, 0)) for item in items]
    counts = {f"uses[{item.id!r}]": count for item, count in given}
    _refuse({"now": now, "half_life": half_life, **counts})
    read = None if like is None else likeness_of(like)
    scored = [(_relevance(item, now, count, read, half_life, weights), item) for item, count in given]
    return sorted(scored, key=lambda pair: -pair[0])[:limit]


def _relevance(
    item: ContextItem, now: float, uses: int, like: Likeness | None, half_life: float, weights: Weights
) -> float:
    parts = [
        (weights.recency, _halved(now - item.updated, half_life)),
        (weights.frequency, 1 - 1 / (1 + log1p(uses))),
    ]
    if like is not None:
        parts.append((weights.similarity, similarity(item, like)))
    heaviest = max(weight for weight, _ in parts)
    if not heaviest:
        return 0.0  # only similarity counts, and there is nothing to be like
    shares = [weight / heaviest for weight, _ in parts]  # so that no sum of them is too large
    told = sum(share * part for share, (_, part) in zip(shares, parts, strict=True))
    return min(told / sum(shares), 1.0)


def _halved(age: float, half_life: float) -> float:
    return float(0.5 ** (max(age, 0.0) / half_life))


# -- what somebody prefers -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Preference:
    """What somebody prefers for one thing: how surely (0 to 1), whether said or only seen, and when."""

    name: str
    value: Any
    strength: float
    explicit: bool
    at: float

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            problem = Problem("name", brief(self.name), "text such as 'genre'")
            raise ValidationError("this is no preference", problems=[problem])
        _refuse({"strength": self.strength, "at": self.at})


@says_what_it_takes
def preferred(
    preferences: Mapping[str, Preference],
    name: str,
    value: Any,
    *,
    explicit: bool,
    now: float,
    strength: float = 1.0,
    half_life: float = PREFERENCE_HALF_LIFE,
) -> dict[str, Preference]:
    """Return the preferences after one was said (`explicit`) or seen; what is given stays as it is.

    What is said replaces whatever there was. What is seen never replaces what was said; seen again it adds
    its strength, to 1 at most; seen otherwise it takes its place only when it is stronger than what is left
    of it, and else weakens it by as much.
    """
    _refuse({"half_life": half_life})
    told = Preference(name, value, strength, explicit, now)
    before = preferences.get(name)
    if before is not None and not explicit:
        left = strength_of(before, now, half_life)
        if before.explicit:
            told = before
        elif same(before.value, value):
            told = replace(told, strength=min(left + strength, 1.0))
        elif strength <= left:
            told = replace(before, strength=left - strength, at=now)
    return {**preferences, name: told}


@says_what_it_takes
def strength_of(preference: Preference, now: float, half_life: float = PREFERENCE_HALF_LIFE) -> float:
    """Return how strong a preference still is: what was seen halves each `half_life`, what was said stays."""
    _refuse({"now": now, "half_life": half_life})
    fading = 1.0 if preference.explicit else _halved(now - preference.at, half_life)
    return preference.strength * fading


@says_what_it_takes
def standing(
    preferences: Mapping[str, Preference],
    now: float,
    *,
    least: float = 0.05,
    half_life: float = PREFERENCE_HALF_LIFE,
) -> dict[str, Preference]:
    """Return the preferences that are still at least as strong as `least`."""
    _refuse({"now": now, "half_life": half_life, "least": least})
    return {
        name: preference
        for name, preference in preferences.items()
        if strength_of(preference, now, half_life) >= least
    }
