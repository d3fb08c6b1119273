"""What nobody is to be told of, and until when."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grym_nb.errors import Problem, ValidationError, closest
from grym_nb.render import brief

if TYPE_CHECKING:
    from grym_nb.clock import Clock
    from grym_nb.health.rules import Tags

__all__ = ["Silence", "Silences", "check_tags"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Silence:
    """Nobody is told of what fits, until a moment; it still shows in the table."""

    until: float
    rule: str | None = None
    tags: Tags = ()
    why: str = ""

    @property
    def what(self) -> str:
        """All that it keeps quiet, in words."""
        tags = ", ".join(f"{tag}={value}" for tag, value in self.tags)
        return f"{self.rule or 'all'}{f' ({tags})' if tags else ''}"

    def covers(self, rule: str, tags: Tags, now: float) -> bool:
        """Tell whether it covers an alert now."""
        return now < self.until and self.rule in (None, rule) and set(self.tags) <= set(tags)


def check_tags(tags: Mapping[str, object], known: Mapping[str, Collection[str]]) -> None:
    """Refuse tags that nothing has; a value that none has yet is logged, as it may come, or be misspelt."""
    problems = []
    for tag, value in tags.items():
        if isinstance(value, Mapping):
            given = ", ".join([f"{name}={its!r}" for name, its in value.items()])
            problems.append(Problem(tag, brief(value), f"each tag by itself: {given or 'service=...'}"))
        elif tag not in known:
            problems.append(Problem(tag, "no tag of any rule", f"a tag.{closest(tag, known)}"))
    if problems:
        raise ValidationError("nothing is silenced so", problems=problems)
    for tag, value in tags.items():
        if str(value) not in known[tag]:
            near = closest(str(value), known[tag])
            _log.warning("silenced is what nothing has yet: %s=%r.%s", tag, str(value), near)


class Silences:
    """The silences that hold; those that have ended are forgotten. For any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._all: tuple[Silence, ...] = ()

    def add(
        self, seconds: float, rule: str | None, why: str, tags: Mapping[str, object]
    ) -> Callable[[], None]:
        """Begin a silence of so many seconds; return what ends it. The same one again replaces the first."""
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:
            problem = Problem("seconds", brief(seconds), "a number above 0, such as 3600")
            raise ValidationError("nothing is silenced so", problems=[problem])
        own = tuple(sorted([(tag, str(value)) for tag, value in tags.items()]))
        now = self._clock()
        made = Silence(now + seconds, rule, own, why)
        with self._lock:
            self._all = (*_unlike(_lasting(self._all, now), made), made)
        return lambda: self._end(made)

    def end(self, rule: str | None) -> int:
        """End those of a rule, or all of them; return how many there were."""
        now = self._clock()
        with self._lock:
            before = _lasting(self._all, now)
            self._all = () if rule is None else _of_others(before, rule)
            return len(before) - len(self._all)

    def cover(self, rule: str, tags: Tags, now: float) -> bool:
        """Tell whether one of them covers an alert now."""
        return any(one.covers(rule, tags, now) for one in self._all)

    @property
    def lasting(self) -> tuple[Silence, ...]:
        """Those that hold now."""
        return _lasting(self._all, self._clock())

    def __len__(self) -> int:
        return len(self._all)

    def _end(self, made: Silence) -> None:
        with self._lock:
            self._all = _but(self._all, made)


def _unlike(silences: tuple[Silence, ...], made: Silence) -> tuple[Silence, ...]:
    return tuple([one for one in silences if (one.what, one.why) != (made.what, made.why)])


def _lasting(silences: tuple[Silence, ...], now: float) -> tuple[Silence, ...]:
    return tuple([one for one in silences if now < one.until])


def _of_others(silences: tuple[Silence, ...], rule: str) -> tuple[Silence, ...]:
    return tuple([one for one in silences if one.rule != rule])


def _but(silences: tuple[Silence, ...], ended: Silence) -> tuple[Silence, ...]:
    return tuple([one for one in silences if one is not ended])
