"""Who goes when another needs room: the policies, and the choice by one of them.

>>> idle = [Candidate("asr", 2_000, last_used=5.0), Candidate("tts", 1_000, last_used=9.0)]
>>> [gone.name for gone in choose(lru, idle, need=500, now=10.0)]
['asr']
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

__all__ = [
    "POLICIES",
    "Candidate",
    "Policy",
    "best_fit",
    "choose",
    "cost_rate",
    "expected",
    "gdsf",
    "lru",
    "smallest",
]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that nobody uses now, as the policies see it. Times are seconds of one clock."""

    name: str
    bytes: int  # that its going would free where they are needed
    last_used: float = 0.0
    loaded_at: float = 0.0
    load_seconds: float = 1.0  # what it would cost to have it back
    uses: int = 1  # spells of use since it was registered: calls with pauses in between
    gap: float = 0.0  # seconds between two spells, the later ones weighing more; 0: not known yet
    priority: int = 1


#: f(candidate, now) -> what keeping it is worth, by the byte: the lowest goes first
Policy: TypeAlias = Callable[[Candidate, float], float]


def lru(candidate: Candidate, now: float) -> float:
    """The longest unused goes first."""
    return candidate.last_used


def gdsf(candidate: Candidate, now: float) -> float:
    """What costs little to have back for its size, and was used rarely, goes first; all of it ages."""
    age = max(now - candidate.last_used, 1e-3)
    return candidate.uses * candidate.load_seconds / candidate.bytes / age


def cost_rate(candidate: Candidate, now: float) -> float:
    """What is expected to cost the fewest seconds of loading per second and byte goes first."""
    return expected(candidate, now) / candidate.bytes


def smallest(candidate: Candidate, now: float) -> float:
    """The smallest goes first."""
    return candidate.bytes


def best_fit(candidate: Candidate, now: float) -> float:
    """The largest goes first, so that few go."""
    return -candidate.bytes


def expected(candidate: Candidate, now: float) -> float:
    """Return how many seconds of loading its absence would cost in a second, as far as can be told."""
    idle = max(now - candidate.last_used, 0.0)
    gap = candidate.gap or max(now - candidate.loaded_at, 1e-3)
    return candidate.load_seconds / max(gap, idle, 1e-3)


#: by the names that settings take
POLICIES: Mapping[str, Policy] = {
    "cost-rate": cost_rate,
    "gdsf": gdsf,
    "lru": lru,
    "smallest": smallest,
    "best-fit": best_fit,
}


def choose(
    policy: Policy, candidates: Sequence[Candidate], *, need: int, now: float
) -> tuple[Candidate, ...]:
    """Return who goes so that `need` bytes are free; nobody where that would not do.

    Those of a lower priority first. Of those that the policy names, whoever need not go stays.
    """
    if sum(one.bytes for one in candidates) < need:
        return ()
    order = sorted(candidates, key=lambda one: (one.priority, policy(one, now), one.last_used, one.name))
    going: list[Candidate] = []
    freed = 0
    for one in order:
        if freed >= need:
            break
        going.append(one)
        freed += one.bytes
    for one in sorted(going, key=lambda one: (-one.priority, -one.bytes)):
        if freed - one.bytes >= need:
            going.remove(one)
            freed -= one.bytes
    return tuple(going)
