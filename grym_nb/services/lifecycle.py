"""The states of a service, the table of legal moves, and the story of how it got where it is.

No I/O, no locks, no threads: the record moves it under its own lock and tells the bus afterwards.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal, get_args

from grym_nb.errors import StateError

__all__ = ["MOVES", "STATES", "Lifecycle", "Move", "State", "Step"]

State = Literal["registered", "loading", "ready", "draining", "failed", "closed"]
Move = Literal[
    "load",
    "loaded",
    "load_failed",
    "load_stopped",
    "drain",
    "resume",
    "unloaded",
    "reset",
    "give_up",
    "close",
]

STATES: tuple[State, ...] = get_args(State)

#: (state, move) -> state. What is not here is illegal.
MOVES: dict[tuple[State, Move], State] = {
    ("registered", "load"): "loading",
    ("failed", "load"): "loading",
    ("loading", "loaded"): "ready",
    ("loading", "load_failed"): "failed",
    ("loading", "load_stopped"): "registered",
    ("ready", "drain"): "draining",
    ("draining", "resume"): "ready",
    ("draining", "unloaded"): "registered",
    ("failed", "reset"): "registered",
    ("registered", "give_up"): "failed",
    ("failed", "give_up"): "failed",
    ("registered", "close"): "closed",
    ("failed", "close"): "closed",
    ("draining", "close"): "closed",
    ("loading", "close"): "closed",  # the end of a registry waits only so long
}


@dataclass(frozen=True, slots=True)
class Step:
    """One move a service made, when and why."""

    at: float
    before: State
    after: State
    reason: str

    def __str__(self) -> str:
        return f"{self.before} → {self.after}" + (f" ({self.reason})" if self.reason else "")


class Lifecycle:
    """The state of one service and its story: the last `story_length` moves with times and reasons."""

    __slots__ = ("name", "since", "state", "story")

    def __init__(self, name: str, at: float, *, story_length: int = 100) -> None:
        self.name = name
        self.state: State = "registered"
        self.since = at
        self.story: deque[Step] = deque(maxlen=story_length)

    def move(self, move: Move, at: float, reason: str = "") -> Step:
        """Make `move` and return the step; an illegal one raises with the story and changes nothing."""
        after = MOVES.get((self.state, move))
        if after is None:
            legal = sorted(m for s, m in MOVES if s == self.state)
            raise StateError(
                f"{self.name} is {self.state} and cannot {move.replace('_', ' ')}",
                cause="story: " + (" · ".join(map(str, list(self.story)[-5:])) or "just registered"),
                hint=f"from here: {', '.join(legal) or 'nothing; register it again'}",
                service=self.name,
                story=tuple(self.story),
            )
        step = Step(at, self.state, after, reason)
        self.state, self.since = after, at
        self.story.append(step)
        return step
