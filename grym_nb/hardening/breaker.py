"""A circuit breaker: while something keeps failing, or is too slow, refuse at once instead of trying.

>>> breaker = CircuitBreaker("hub", min_calls=2, open_seconds=30)
>>> breaker.call(len, "abc"), breaker.state
(3, 'closed')
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from math import isfinite
from types import CoroutineType, TracebackType
from typing import Any, Literal, ParamSpec, Self, TypeVar, cast

from grym_nb.clock import Clock, monotonic
from grym_nb.errors import BreakerOpen, ConfigError, Problem, says_what_it_takes
from grym_nb.events import BreakerChanged, EventBus
from grym_nb.hardening.policy import SECONDS, counted
from grym_nb.hardening.thresholds import BreakerPolicy
from grym_nb.render import brief, seconds

__all__ = ["BreakerSnapshot", "BreakerState", "CircuitBreaker"]

P = ParamSpec("P")
R = TypeVar("R")
BreakerState = Literal["closed", "open", "half open"]
_Move = Literal["trip", "probe", "mend", "open", "close"]

#: where each move leads: what happens by itself, and what somebody does by hand
_MOVES: Mapping[tuple[_Move, BreakerState], BreakerState] = {
    ("trip", "closed"): "open",
    ("probe", "open"): "half open",
    ("mend", "half open"): "closed",
    ("trip", "half open"): "open",
    ("open", "closed"): "open",
    ("open", "half open"): "open",
    ("open", "open"): "open",
    ("close", "open"): "closed",
    ("close", "half open"): "closed",
    ("close", "closed"): "closed",
}
_NOBODYS = -1  # the turn of a call that counts for nothing


@dataclass(frozen=True, slots=True)
class BreakerSnapshot:
    """How a breaker stands: the calls of its window, or while it is half open of its probes."""

    name: str
    state: BreakerState
    reason: str  # why it is so
    since: float  # seconds in this state
    calls: int
    failed: int
    slow: int
    refused: int  # since it was made; with shadow, those that would have been
    opened: int  # how often it has
    retry_after: float | None  # seconds until it lets a call through, where that is a matter of time
    shadow: bool

    @property
    def failure_rate(self) -> float:
        """The share of the calls that failed."""
        return self.failed / self.calls if self.calls else 0.0

    @property
    def slow_rate(self) -> float:
        """The share of the calls that were too slow."""
        return self.slow / self.calls if self.calls else 0.0

    def __str__(self) -> str:
        told = [f"{self.state} for {seconds(self.since)}"]
        told += [self.reason] if self.reason else []
        if self.calls and self.state != "open":  # else the reason says so
            told.append(f"{self.failed} of {self.calls} failed")
        if self.retry_after is not None:
            left = self.retry_after
            told.append(f"next try in {seconds(left)}" if left else "the next call tries it out")
        if self.refused:
            told.append(f"{self.refused} {'would have been ' if self.shadow else ''}refused")
        return "; ".join(told)


class _Probes:
    """The calls of a round that decides whether to close."""

    __slots__ = ("answered", "failed", "let_in", "out", "slow")

    def __init__(self) -> None:
        self.let_in = self.out = self.answered = self.failed = self.slow = 0


#: the blocks that are open in this thread or task, with when each began: the last one is the innermost
_blocks: ContextVar[tuple[tuple[CircuitBreaker, int, float], ...]] = ContextVar("grym_breakers", default=())


class CircuitBreaker:
    """Stands in front of what may fail: ``breaker.call(f, x)``, ``with breaker:``, or ``@breaker``.

    All three take plain and async code. While it is open, a call raises `BreakerOpen` and nothing is tried.
    For any number of threads; no lock is held while a call runs. The options are those of `BreakerPolicy`.
    """

    @says_what_it_takes
    def __init__(
        self,
        name: str,
        policy: BreakerPolicy | None = None,
        *,
        clock: Clock | None = None,
        events: EventBus | None = None,
        **options: Any,
    ) -> None:
        if policy is not None and options:
            problems = [Problem(given, brief(value), "in the policy") for given, value in options.items()]
            raise ConfigError("a breaker has a policy, or its values one by one", problems=problems)
        self.name = name
        self.policy = BreakerPolicy.of(options) if policy is None else policy
        self._clock: Clock = clock or monotonic
        self._events = events
        self._lock = threading.Lock()
        self._state: BreakerState = "closed"
        self._reason = ""
        self._by_hand = False
        self._closed = True  # the usual case, in one look
        self._settled = False  # closed, and one more good call changes nothing
        self._turn = 0  # the number of moves so far: what began before the last one counts no more
        self._window = self.policy.new_window()
        self._probes = _Probes()
        self._rounds = 0  # of probes that failed since it was closed
        self._wait = 0.0  # how long it is open; inf: until somebody closes it
        self._since = self._clock()
        self._refused = self._opened = 0
        slow = self.policy.slow_seconds
        self._slow_seconds = float("inf") if slow is None else slow

    # -- calls -------------------------------------------------------------------------------------

    def call(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `fn`, unless the breaker is open; what an async `fn` gives is to be awaited, and asks then."""
        turn = self._turn  # before we look: a turn that is too old counts for nothing
        if not self._closed:
            turn = self.ask()
        clock = self._clock
        began = clock()
        try:
            value = fn(*args, **kwargs)
        except BaseException as error:
            self.told(turn, clock() - began, error)
            raise
        if type(value) is CoroutineType:
            self.give_back(turn)  # nothing has happened yet
            return cast("R", self._awaited(cast("Coroutine[Any, Any, Any]", value)))
        took = clock() - began
        if not self._settled or took >= self._slow_seconds:
            self._count(turn, False, took >= self._slow_seconds, began + took)
        return value

    async def _awaited(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            turn = self.ask()
        except BreakerOpen:
            coroutine.close()
            raise
        began = self._clock()
        try:
            value = await coroutine
        except BaseException as error:
            self.told(turn, self._clock() - began, error)
            raise
        self.told(turn, self._clock() - began)
        return value

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Return `fn` with this breaker in front of it."""
        if inspect.iscoroutinefunction(fn):

            @wraps(fn)
            async def asked_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                return await cast("Awaitable[Any]", self.call(fn, *args, **kwargs))

            return cast("Callable[P, R]", asked_async)

        @wraps(fn)
        def asked(*args: P.args, **kwargs: P.kwargs) -> R:
            return self.call(fn, *args, **kwargs)

        return asked

    def __enter__(self) -> Self:
        turn = self.ask()
        _blocks.set((*_blocks.get(), (self, turn, self._clock())))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        blocks = _blocks.get()
        at = len(blocks) - 1
        while blocks[at][0] is not self:  # two that were entered by hand, and left in another order
            at -= 1
        _blocks.set(blocks[:at] + blocks[at + 1 :])
        _, turn, began = blocks[at]
        self.told(turn, self._clock() - began, error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    # -- one step at a time: for who cannot hand over a function ------------------------------------

    def ask(self) -> int:
        """Return the turn of a call that is about to begin, or raise `BreakerOpen`.

        How it went is `told` with that turn, or it is given back with `give_back`.
        """
        turn = self._turn
        if self._closed:
            return turn
        with self._lock:
            turn, moved, refusal = self._ask()
        self._publish(moved)
        if refusal is not None:
            raise refusal
        return turn

    def told(self, turn: int, took: float, error: BaseException | None = None) -> None:
        """Hear how a call went: how many seconds it took, and what it raised."""
        failed = False
        if error is not None:
            if not isinstance(error, Exception):
                self.give_back(turn)  # interrupted, or cancelled: that says nothing
                return
            failed = self.is_failure(error)
        self.answered(turn, took, failed=failed)

    def answered(self, turn: int, took: float, *, failed: bool) -> None:
        """Hear how a call went from who knows whether it failed; `told` asks the policy for that."""
        slow = took >= self._slow_seconds
        if failed or slow or not self._settled:
            self._count(turn, failed, slow, self._clock())

    def is_failure(self, error: Exception) -> bool:
        """Tell whether an error counts as a failure."""
        return counted(self.policy.counts, error)

    def _count(self, turn: int, failed: bool, slow: bool, now: float) -> None:
        moved = None
        with self._lock:
            if turn == self._turn:
                if self._closed:
                    window = self._window
                    window.add(failed, slow, now)
                    if window.failed or window.slow:
                        self._settled = False
                        moved = self._judge(window.calls, window.failed, window.slow)
                    else:
                        self._settled = window.settled
                elif self._state == "half open":
                    moved = self._answered(failed, slow)
        if moved is not None:
            self._publish(moved)

    def give_back(self, turn: int) -> None:
        """Let a call count for nothing; another may be let through in its place."""
        with self._lock:
            if turn == self._turn and self._state == "half open":
                self._probes.let_in -= 1
                self._probes.out -= 1

    # -- by hand -----------------------------------------------------------------------------------

    def open(self, reason: str = "opened by hand", *, seconds: float | None = None) -> None:
        """Refuse every call from now on: for so many seconds, or until `close`."""
        if seconds is not None and not SECONDS.fits(seconds):
            problem = Problem("seconds", brief(seconds), f"{SECONDS.words}, or None: until close()")
            raise ConfigError(f"{self.name} cannot be opened so", problems=[problem])
        with self._lock:
            moved = self._move("open", reason)
            self._wait = float("inf") if seconds is None else seconds
        self._publish(moved)

    def close(self, reason: str = "closed by hand") -> None:
        """Let every call through, and begin to count anew."""
        with self._lock:
            moved = self._move("close", reason)
        self._publish(moved)

    # -- about it ----------------------------------------------------------------------------------

    @property
    def state(self) -> BreakerState:
        """closed: calls go through; open: they are refused; half open: some are let through to see."""
        return self._state

    @property
    def by_hand(self) -> bool:
        """Whether somebody opened or closed it, and it did not do so by itself."""
        return self._by_hand

    def snapshot(self) -> BreakerSnapshot:
        """Return how it stands."""
        with self._lock:
            return self._snapshot(self._clock())

    def _snapshot(self, now: float) -> BreakerSnapshot:
        window, probes = self._window, self._probes
        window.look(now)
        counted = (window.calls, window.failed, window.slow)
        if self._state == "half open":
            counted = (probes.answered, probes.failed, probes.slow)
        return BreakerSnapshot(
            self.name,
            self._state,
            self._reason,
            now - self._since,
            *counted,
            refused=self._refused,
            opened=self._opened,
            retry_after=self._retry_after(now),
            shadow=self.policy.shadow,
        )

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.name}: {self.snapshot()}>"

    # -- inside; the lock is held ------------------------------------------------------------------

    def _ask(self) -> tuple[int, BreakerChanged | None, BreakerOpen | None]:
        if self._closed:
            return self._turn, None, None
        now, moved = self._clock(), None
        if self._state == "open" and now - self._since >= self._wait:
            moved = self._move("probe", f"after {seconds(now - self._since)}")
        if self._state == "half open":
            policy, probes = self.policy, self._probes
            if probes.out < policy.probes_at_once and probes.let_in < policy.probes:
                probes.out += 1
                probes.let_in += 1
                return self._turn, moved, None
            if now - self._since >= self._wait:  # one that hangs would keep it so for ever
                moved = self._trip(f"a probe is not back after {seconds(now - self._since)}")
        self._refused += 1
        return _NOBODYS, moved, None if self.policy.shadow else self._refusal(now)

    def _retry_after(self, now: float) -> float | None:
        left = max(0.0, self._since + self._wait - now)
        return left if self._state == "open" and isfinite(left) else None

    def _refusal(self, now: float) -> BreakerOpen:
        left = self._retry_after(now)
        when = "while it is tried out" if self._state == "half open" else "until it is closed"
        return BreakerOpen(
            f"{self.name} is not called {when if left is None else f'for {seconds(left)}'}: {self._reason}",
            hint="call it again then, or close() its breaker once it is mended",
            state=self._state,
            retry_after=left,
        )

    def _judge(self, calls: int, failed: int, slow: int) -> BreakerChanged | None:
        if calls < self.policy.min_calls:
            return None
        why = self.policy.too_many(calls, failed, slow)
        return self._trip(why) if why else None

    def _answered(self, failed: bool, slow: bool) -> BreakerChanged | None:
        probes = self._probes
        probes.out -= 1
        probes.answered += 1
        probes.failed += failed
        probes.slow += slow
        if probes.answered < self.policy.probes:
            return None
        why = self.policy.too_many(probes.answered, probes.failed, probes.slow)
        return self._trip(f"tried out: {why}") if why else self._move("mend", "tried out, and well")

    def _trip(self, why: str) -> BreakerChanged:
        self._rounds = self._rounds + 1 if self._state == "half open" else 0
        moved = self._move("trip", why)
        self._wait = self.policy.wait(self._rounds)
        return moved

    def _move(self, move: _Move, reason: str) -> BreakerChanged:
        before = self._state
        after = _MOVES[move, before]
        now = self._clock()
        if after == "closed":
            self._window = self.policy.new_window()
            self._rounds = 0
        elif after == "half open":
            self._probes = _Probes()
        elif before != "open":
            self._opened += 1
        self._state, self._reason, self._since = after, reason, now
        self._by_hand = move in ("open", "close")
        self._turn += 1
        self._closed, self._settled = after == "closed", False
        return BreakerChanged(now, self.name, before, after, reason, self._by_hand)

    # -- and without it ----------------------------------------------------------------------------

    def _publish(self, moved: BreakerChanged | None) -> None:
        if moved is not None and self._events is not None and moved.before != moved.after:
            self._events.publish(moved)
