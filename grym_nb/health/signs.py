"""What speaks for and against a service, read off its figures: pure, and each sign in words.

>>> calm = Vitals(state="ready", calls=20, p95=0.2, usual=0.19)
>>> signs_of(calm)
()
>>> [sign.told for sign in signs_of(Vitals(state="ready", calls=20, failed=12, worst="ValueError"))]
['12 of 20 calls failed in the last minute, ValueError the most often']
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from grym_nb.render import seconds, size

__all__ = [
    "DEGRADED",
    "UNHEALTHY",
    "Grown",
    "Kind",
    "Sign",
    "SignLimits",
    "Stuck",
    "Vitals",
    "is_growing",
    "signs_of",
]

Kind = Literal["state", "breaker", "errors", "slow", "stuck", "ping", "queue", "memory", "service"]
DEGRADED, UNHEALTHY = 1, 2


@dataclass(frozen=True, slots=True)
class Sign:
    """One thing that is not as it should be; `certain` where it needs no second look."""

    kind: Kind
    level: int
    told: str
    certain: bool = False


@dataclass(frozen=True, slots=True)
class Stuck:
    """A call that runs for longer than it may, or than calls of its task ever took."""

    title: str
    seconds: float
    why: str
    behind: str = ""  # a call of another service that it waits for
    late: bool = True  # its deadline has passed; else it may only have more to do than those before it


@dataclass(frozen=True, slots=True)
class Grown:
    """What a model holds, what it had after its load some seconds ago, and at how many looks it was more."""

    holds: int
    had: int
    seconds: float
    looks: int


@dataclass(frozen=True, slots=True)
class Vitals:
    """What is known of a service at one moment; counts and percentiles are of the last `window` seconds."""

    state: str
    reason: str = ""  # of the state
    window: float = 60.0
    calls: int = 0
    failed: int = 0
    row: int = 0  # calls that raised since the last one that was answered
    worst: str = ""  # the error that came most often
    instead: int = 0  # calls besides those that its fallback answered, since all else had failed
    broken: str = ""  # what it was when it was last used, if nothing has said otherwise since
    p95: float | None = None
    third: float | None = None  # what the third slowest of the answered ones took, where they are few
    usual: float | None = None  # the p95 that it has in good times
    breaker: str = ""  # closed, half open, open; empty: it has none
    breaker_why: str = ""
    stuck: tuple[Stuck, ...] = ()
    slots: int = 1
    waiting: int = 0
    unanswered: int = 0  # pings in a row that were not answered well
    ping: str = ""  # what was wrong with the last one
    grown: Grown | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignLimits:
    """From where on a figure is a sign: of a degraded service, and of an unhealthy one."""

    failing: tuple[float, float] = (0.1, 0.5)  # share of calls that failed
    least_calls: int = 5  # before a share says anything
    in_a_row: int = 20  # calls that failed, with none in between that did not
    slower: tuple[float, float] = (3.0, 10.0)  # times the usual p95
    least_slower: float = 0.02  # seconds by which it has to be slower at all
    pings: tuple[int, int] = (1, 2)  # in a row
    waiting: int = 20  # calls in line for each slot
    grown: float = 1.5  # times what a model had after its load
    least_grown: int = 50_000_000  # bytes by which it has to hold more at all
    looks: int = 4  # in a row that found more: what is filled once is full by then


def signs_of(vitals: Vitals, limits: SignLimits | None = None) -> tuple[Sign, ...]:
    """Return what is not as it should be, the worst first."""
    found = [sign for look in _LOOKS for sign in look(vitals, limits or SignLimits())]
    return tuple(sorted(found, key=lambda sign: -sign.level))


def _state(vitals: Vitals, limits: SignLimits) -> Iterator[Sign]:
    if vitals.state == "failed":
        yield Sign("state", UNHEALTHY, vitals.reason or "it could not be loaded", certain=True)


def _breaker(vitals: Vitals, limits: SignLimits) -> Iterator[Sign]:
    if vitals.breaker == "open":
        why = f": {vitals.breaker_why}" if vitals.breaker_why else ""
        yield Sign("breaker", UNHEALTHY, f"its breaker is open{why}", certain=True)
    elif vitals.breaker == "half open":
        yield Sign("breaker", DEGRADED, "its breaker lets probes through only", certain=True)


def _errors(vitals: Vitals, limits: SignLimits) -> Iterator[Sign]:
    enough = vitals.calls >= limits.least_calls
    level = _level(vitals.failed / vitals.calls, limits.failing) if enough else 0
    most = f", {vitals.worst} the most often" if vitals.worst else ""
    # Beside many that went well before, a share would say so late, or never where nobody calls any more.
    in_a_row = f"its last {vitals.row} calls all failed{most}"
    if level < UNHEALTHY and vitals.failed and vitals.row >= limits.in_a_row:
        yield Sign("errors", UNHEALTHY, in_a_row)
    elif level:
        told = f"{vitals.failed} of {vitals.calls} calls failed in {_last(vitals)}{most}"
        yield Sign("errors", level, told)
    elif vitals.broken:
        yield Sign("errors", DEGRADED, vitals.broken)
    elif vitals.row >= limits.least_calls:
        yield Sign("errors", DEGRADED, in_a_row)


def _instead(vitals: Vitals, limits: SignLimits) -> Iterator[Sign]:
    """Callers have an answer, so this is no failure; nobody else would tell that the model gives none."""
    calls = vitals.calls + vitals.instead
    if calls >= limits.least_calls and _level(vitals.instead / calls, limits.failing):
        told = f"its fallback answered {vitals.instead} of {calls} calls in {_last(vitals)}"
        yield Sign("errors", DEGRADED, told)


def _last(vitals: Vitals) -> str:
    return "the last minute" if vitals.window == 60.0 else f"the last {seconds(vitals.window)}"


def _slow(vitals: Vitals, limits: SignLimits) -> Iterator[Sign]:
    p95, usual, answered = vitals.p95, vitals.usual, vitals.calls - vitals.failed
    if p95 is None or not usual or answered < limits.least_calls:
        return
    # The p95 of a few calls is their slowest one, which may have been given more to do.
    now = p95 if vitals.third is None else min(vitals.third, p95)
    if now - usual >= limits.least_slower and (level := _level(now / usual, limits.slower)):
        if level == _level(p95 / usual, limits.slower):
            now, what = p95, f"p95 {seconds(p95)}"  # as bad by itself: then it is not three of them only
        else:
            what = f"3 of {answered} calls took {seconds(now)} or more"
        yield Sign("slow", level, f"{what}, {now / usual:.1f} times its usual {seconds(usual)}")


def _stuck(vitals: Vitals, limits: SignLimits) -> Iterator[Sign]:
    if vitals.stuck:
        own = [one for one in vitals.stuck if one.late and not one.behind]
        one = (own or vitals.stuck)[0]
        more = f", and {len(vitals.stuck) - 1} more" if len(vitals.stuck) > 1 else ""
        waits = f", it waits for {one.behind}" if one.behind else ""
        level = UNHEALTHY if len(own) >= vitals.slots else DEGRADED
        yield Sign("stuck", level, f"{one.title} runs for {seconds(one.seconds)}, {one.why}{waits}{more}")


def _ping(vitals: Vitals, limits: SignLimits) -> Iterator[Sign]:
    if level := _level(vitals.unanswered, limits.pings):
        yield Sign("ping", level, f"ping: {vitals.ping}", certain=True)


def _queue(vitals: Vitals, limits: SignLimits) -> Iterator[Sign]:
    if vitals.waiting >= limits.waiting * vitals.slots:
        yield Sign("queue", DEGRADED, f"{vitals.waiting} calls wait in line")


def _memory(vitals: Vitals, limits: SignLimits) -> Iterator[Sign]:
    grown = vitals.grown
    if grown is not None and is_growing(grown, limits):
        times = f"{grown.holds / grown.had:.1f} times the" if grown.had else "and had"
        before = f"{size(grown.had)} after its load {seconds(grown.seconds)} ago"
        told = f"it holds {size(grown.holds)}, {times} {before}, more at each of {grown.looks} looks"
        yield Sign("memory", DEGRADED, told)


def is_growing(grown: Grown, limits: SignLimits) -> bool:
    """Tell whether a model keeps what its calls make: it holds much more than it had, and ever more."""
    more = grown.holds - grown.had
    enough = more >= limits.least_grown and grown.holds >= limits.grown * grown.had
    return enough and grown.looks >= limits.looks


def _level(figure: float, limits: tuple[float, float]) -> int:
    return (figure >= limits[0]) + (figure >= limits[1])


_LOOKS = (_state, _breaker, _errors, _instead, _stuck, _ping, _slow, _queue, _memory)
