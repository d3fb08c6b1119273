"""From signs to a verdict that does not flutter: worse is confirmed before it is said, better has to last.

>>> judge = Judge(Limits(worse_seconds=10.0, better_seconds=20.0, looks=2))
>>> slow = (Sign("slow", DEGRADED, "p95 2.1 s, 3.0 times its usual 700 ms"),)
>>> [judge.look(at, slow).verdict for at in (0.0, 5.0, 10.0)]
['healthy', 'healthy', 'degraded']
>>> judge.health.told(50.0)
'p95 2.1 s, 3.0 times its usual 700 ms, for 50 s'
>>> [judge.look(at, ()).verdict for at in (60.0, 70.0, 80.0)]
['degraded', 'degraded', 'healthy']
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from grym_nb.errors import ConfigError, Problem
from grym_nb.health.signs import DEGRADED, UNHEALTHY, Sign
from grym_nb.render import brief, seconds

__all__ = ["Health", "Judge", "Limits", "Verdict"]

Verdict = Literal["unknown", "healthy", "degraded", "unhealthy"]
_VERDICTS: tuple[Verdict, ...] = ("healthy", "degraded", "unhealthy")
_SAID_FROM = 1.0  # seconds for which a sign is there: for less, nobody wants to know how long
assert _VERDICTS[DEGRADED] == "degraded" and _VERDICTS[UNHEALTHY] == "unhealthy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long it takes to be believed: for `worse_seconds` and `looks` times, or `better_seconds`."""

    worse_seconds: float = 5.0
    better_seconds: float = 15.0
    looks: int = 2

    def __post_init__(self) -> None:
        wrong = [
            Problem(name, brief(getattr(self, name)), "a number from 0")
            for name in ("worse_seconds", "better_seconds", "looks")
            if not isinstance(getattr(self, name), (int, float)) or not getattr(self, name) >= 0
        ]
        if wrong:
            raise ConfigError("nobody can be judged so", problems=wrong)


@dataclass(frozen=True, slots=True)
class Health:
    """A verdict, since when, and the signs it rests on, each with the time since when it is there."""

    verdict: Verdict
    since: float
    signs: tuple[tuple[Sign, float], ...] = ()
    over: tuple[str, float] | None = None  # what it rested on, and when that went: better has to last

    def told(self, now: float) -> str:
        """Return the reasons in words, the worst first; empty where there are none."""
        if self.over is not None:
            told, at = self.over
            return f"over for {seconds(now - at)}: {told}" if now - at >= _SAID_FROM else f"just over: {told}"
        return "; ".join(
            f"{sign.told}, for {seconds(now - since)}" if now - since >= _SAID_FROM else sign.told
            for sign, since in self.signs
        )


class Judge:
    """The verdict on one subject, as signs of it come and go."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.health = Health("unknown", 0.0)
        self._limits = limits or Limits()
        self._since: dict[str, float] = {}  # when each kind of sign came
        self._leaning: tuple[int, float, int] | None = None  # to which level, since when, how many looks

    def look(self, now: float, signs: tuple[Sign, ...]) -> Health:
        """Take in the signs of this moment, the worst first; return the verdict."""
        self._since = {sign.kind: self._since.get(sign.kind, now) for sign in signs}
        told = tuple((sign, self._since[sign.kind]) for sign in signs)
        before = self.health
        at = 0 if before.verdict == "unknown" else _VERDICTS.index(before.verdict)
        verdict = _VERDICTS[self._next(now, signs, at)]
        over = before.over or ((before.signs[0][0].told, now) if before.signs else None)
        if signs or verdict == "healthy":
            over = None
        self.health = Health(verdict, before.since if verdict == before.verdict else now, told, over)
        return self.health

    def forget(self) -> None:
        """Begin anew: what was, says nothing about what is there now."""
        self.health = Health("unknown", 0.0)
        self._since, self._leaning = {}, None

    def rest(self) -> None:
        """Keep the verdict, and forget where it was leaning: nobody looks for a while."""
        self._leaning = None

    def _next(self, now: float, signs: tuple[Sign, ...], at: int) -> int:
        """Return the level from now on: another than `at` once it was there for long enough, and often."""
        level = signs[0].level if signs else 0
        leaning, self._leaning = self._leaning, None
        at = max([at, *[sign.level for sign in signs if sign.certain]])
        if level == at:
            return level
        worse = level > at
        if leaning is None or (leaning[0] > at) != worse:
            leaning = (level, now, 0)
        # Of several levels on the same side, the one nearest has held all the time.
        nearest = min(leaning[0], level) if worse else max(leaning[0], level)
        needed = self._limits.worse_seconds if worse else self._limits.better_seconds
        if now - leaning[1] >= needed and leaning[2] + 1 >= self._limits.looks:
            return nearest
        self._leaning = (nearest, leaning[1], leaning[2] + 1)
        return at
