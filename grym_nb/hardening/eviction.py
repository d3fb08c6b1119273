"""Who goes when another needs room: the policies, and the choice by one of them.

>>> idle = [Candidate("asr", 2_000, last_used=5.0), Candidate("tts", 1_000, last_used=9.0)]
>>> [gone.name for gone in choose(lru, idle, need=500, now=10.0)]
['asr']
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import exp
from typing import TypeAlias

from grym_nb.priority import CRITICAL

__all__ = [
    "POLICIES",
    "SPELL_SECONDS",
    "Candidate",
    "Heat",
    "Policy",
    "best_fit",
    "choose",
    "cooled",
    "cost_rate",
    "gdsf",
    "lru",
    "smallest",
]

#: seconds without a call after which the next one begins another spell of use
SPELL_SECONDS = 10.0
_COOLING_SECONDS = 600.0  # in which what was used comes to count for a third of what is


class Heat:
    """How often a model was used lately: its spells of use, each counting less as time goes by."""

    __slots__ = ("at", "spells", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self.at = 0.0
        self.spells = 0

    def spell(self, now: float) -> None:
        """Count one more spell of use."""
        self.value = cooled(self.value, now - self.at) + 1.0
        self.at = now
        self.spells += 1


def cooled(heat: float, seconds: float) -> float:
    """Return what is left of heat after so many seconds."""
    return heat * exp(-max(0.0, seconds) / _COOLING_SECONDS)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that nobody uses now, as the policies see it. Times are seconds of one clock."""

    name: str
    bytes: int  # that its going would free where they are needed
    last_used: float = 0.0
    load_seconds: float = 1.0  # what it would cost to have it back
    spells: int = 1  # of use, since it was registered
    heat: float = 1.0  # the same, the recent ones counting more, when the last of them began
    heat_at: float = 0.0
    priority: int = 1


#: of how many every set of up to so many is weighed: 1585 of them
_MOST_WEIGHED, _MOST_TOGETHER = 12, 5
#: f(candidate, now) -> what keeping it is worth, by the byte: the lowest goes first
Policy: TypeAlias = Callable[[Candidate, float], float]


def cost_rate(candidate: Candidate, now: float) -> float:
    """What is expected to cost the fewest seconds of loading for its size goes, as it was used lately."""
    heat = cooled(candidate.heat, now - candidate.heat_at)
    return candidate.load_seconds * heat / candidate.bytes


def gdsf(candidate: Candidate, now: float) -> float:
    """What costs little to have back for its size, and was used rarely, goes first; all of it ages."""
    age = max(now - candidate.last_used, 1e-3)
    return candidate.spells * candidate.load_seconds / candidate.bytes / age


def lru(candidate: Candidate, now: float) -> float:
    """The longest unused goes first."""
    return candidate.last_used


def smallest(candidate: Candidate, now: float) -> float:
    """The smallest goes first."""
    return candidate.bytes


def best_fit(candidate: Candidate, now: float) -> float:
    """The largest goes first, so that few go."""
    return -candidate.bytes


#: by the names that settings take
POLICIES: Mapping[str, Policy] = {
    "cost-rate": cost_rate,
    "gdsf": gdsf,
    "lru": lru,
    "smallest": smallest,
    "best-fit": best_fit,
}


#: those that say what keeping a byte is worth, so that sets of models can be weighed; the others only order
_ADDS_UP = (cost_rate, gdsf)


def choose(
    policy: Policy, candidates: Sequence[Candidate], *, need: int, now: float
) -> tuple[Candidate, ...]:
    """Return who goes so that `need` bytes are free; nobody where that would not do.

    Those of a lower priority first. Of those that the policy names, whoever need not go stays.
    """
    if sum(one.bytes for one in candidates) < need:
        return ()
    order = sorted(candidates, key=lambda one: (one.priority, policy(one, now), one.last_used, one.name))
    if policy in _ADDS_UP:
        return _cheapest(policy, order[:_MOST_WEIGHED], need, now) or _first(order, need)
    return _first(order, need)


def _first(order: Sequence[Candidate], need: int) -> tuple[Candidate, ...]:
    """Return the first ones of an order that are enough, without those that need not go."""
    going: list[Candidate] = []
    freed = 0
    for one in order:
        if freed >= need:
            break
        going.append(one)
        freed += one.bytes
    for one in reversed(going.copy()):
        if freed - one.bytes >= need:
            going.remove(one)
            freed -= one.bytes
    return tuple(going)


def _cheapest(policy: Policy, order: Sequence[Candidate], need: int, now: float) -> tuple[Candidate, ...]:
    """Return those whose going costs least together, the higher priorities weighing more than all below."""
    worth = {one.name: policy(one, now) * one.bytes for one in order}

    def costs(going: tuple[Candidate, ...]) -> tuple[float, ...]:
        by_rank = [0.0] * (CRITICAL + 1)
        for one in going:
            by_rank[CRITICAL - one.priority] += worth[one.name]
        return tuple(by_rank)

    enough = [
        going
        for many in range(1, min(len(order), _MOST_TOGETHER) + 1)
        for going in combinations(order, many)
        if sum([one.bytes for one in going]) >= need
    ]
    return min(enough, key=costs, default=())
