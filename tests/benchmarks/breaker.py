"""A circuit breaker that is closed: what it adds to a call that is fine."""

from __future__ import annotations

from collections.abc import Iterator

from grym_nb.hardening import CircuitBreaker

from .calls import Bare
from .frame import Effort, Row, Work, benchmark, installed, missing, side_by_side

_CALL = "breaker.call(fn)"


def _peers() -> dict[str, Work]:
    fn = Bare().noop
    works: dict[str, Work] = {}
    if installed("pybreaker"):
        import pybreaker

        works["pybreaker"] = (_CALL, {"breaker": pybreaker.CircuitBreaker(), "fn": fn})
    if installed("aiobreaker"):
        import aiobreaker

        works["aiobreaker"] = (_CALL, {"breaker": aiobreaker.CircuitBreaker(), "fn": fn})
    if installed("purgatory"):
        import purgatory

        breaker = purgatory.SyncCircuitBreakerFactory().get_breaker("it")
        works["purgatory"] = ("with breaker: fn()", {"breaker": breaker, "fn": fn})
    if installed("interlock"):
        import interlock

        works["interlock-cb"] = (_CALL, {"breaker": interlock.CircuitBreaker(name="it"), "fn": fn})
    return works


@benchmark
def breaker_closed(effort: Effort) -> Iterator[Row]:
    """A call through a closed breaker: of the last 20 calls, and of the last 30 s with slow ones counted."""
    fn = Bare().noop
    ours = {
        "the last 20 calls": CircuitBreaker("it", slow_seconds=10.0),
        "the last 30 s": CircuitBreaker("it", window_seconds=30.0, slow_seconds=10.0),
    }
    works: dict[str, Work] = {name: (_CALL, {"breaker": b, "fn": fn}) for name, b in ours.items()}
    peers = _peers()
    figures = side_by_side(works | peers, rounds=effort.rounds, seconds=effort.seconds)
    for name in ours:
        work = f"a call through a breaker, {name}"
        for peer in ("pybreaker", "aiobreaker", "purgatory", "interlock-cb"):
            if peer in figures:
                yield Row(work, figures[name], peer, figures[peer], "us", "<= 0.6 us")
            else:
                yield missing(work, figures[name], peer, "us", "<= 0.6 us")
