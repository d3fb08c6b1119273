"""Trying again: how often, after what pauses, for which errors, and how much of that altogether.

>>> answers = iter([OSError("busy"), "done"])
>>> def ask():
...     answer = next(answers)
...     if isinstance(answer, OSError):
...         raise answer
...     return answer
>>> Retry(attempts=3, pause=0.001).call(ask)
'done'
"""

from __future__ import annotations

import inspect
import random
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import wraps
from types import CoroutineType
from typing import Any, ClassVar, ParamSpec, TypeVar, cast

from grym_nb.clock import Clock, monotonic, rest
from grym_nb.errors import BreakerOpen, GrymError, Problem, says_what_it_takes
from grym_nb.hardening.policy import NUMBER, SECONDS, WHOLE, Counted, Fit, Policy, counted, is_counted

__all__ = ["Retry", "RetryBudget", "may_change"]

P = ParamSpec("P")
R = TypeVar("R")

#: errors of code that is wrong, and stays so until it is edited
_CODE = (TypeError, NameError, AttributeError, ImportError, SyntaxError, NotImplementedError, AssertionError)


def may_change(error: Exception) -> bool:
    """Tell whether the same call may succeed when it is made again: not while its code or input is wrong."""
    if isinstance(error, GrymError):
        if not error.can_change or isinstance(error, BreakerOpen):  # which is for longer than anybody pauses
            return False
        raised = getattr(error, "raised", None)
        return raised is None or not issubclass(raised, _CODE)
    return not isinstance(error, _CODE)


class RetryBudget:
    """The retries that are left for all who share it: each call adds a share of one, each retry takes one.

    So a service that is down is not asked several times as often as one that is up. It begins with `spare`
    and never holds more. For any number of threads.
    """

    __slots__ = ("_left", "_lock", "share", "spare")

    def __init__(self, share: float, spare: int) -> None:
        self.share = share
        self.spare = spare
        self._left = float(spare)
        self._lock = threading.Lock()

    @property
    def left(self) -> float:
        """What is left: at 1 and above there may be another retry."""
        return self._left

    def called(self) -> None:
        """Hear of a call's first attempt."""
        if self._left < self.spare:  # else there is nothing to add, which is the usual case
            with self._lock:
                self._left = min(float(self.spare), self._left + self.share)

    def take(self) -> bool:
        """Take one retry; False when there is none left."""
        with self._lock:
            enough = self._left >= 1.0
            self._left -= enough
        return enough

    def __repr__(self) -> str:
        return f"<RetryBudget: {self._left:.1f} of {self.spare}>"


@says_what_it_takes
@dataclass(frozen=True, slots=True, kw_only=True)
class Retry(Policy):
    """How often something is tried, and how long is waited in between.

    `attempts` counts them all, the first one too. The first pause is `pause` seconds, each further one is
    `factor` times as long, up to `max_pause`; of each the share `jitter` is left to chance, so that those who
    failed together do not come back together. `on` are the errors after which it is worth while: types, or a
    function that is asked. All that goes through one of these (through one service) shares a budget: each
    call is worth `share` of a retry, and `spare` are there from the beginning; with ``share=None`` there is
    no such limit.

    ``retry.call(f, x)`` and ``@retry`` take plain and async functions.
    """

    attempts: int = 3
    pause: float = 0.1
    factor: float = 2.0
    max_pause: float = 30.0
    jitter: float = 0.5
    on: Counted = may_change
    share: float | None = 0.2
    spare: int = 10
    clock: Clock = field(default=monotonic, compare=False, repr=False)
    budget: RetryBudget | None = field(init=False, compare=False, repr=False)

    REFUSAL: ClassVar[str] = "retries cannot work so"
    FITS: ClassVar[dict[str, Fit]] = {
        "attempts": WHOLE,
        "pause": SECONDS,
        "factor": NUMBER,
        "max_pause": SECONDS,
        "jitter": Fit("a share from 0 to 1", lambda v: type(v) in (int, float) and 0 <= v <= 1),
        "on": Fit("types of errors, or a function of one", is_counted),
        "share": Fit(
            "a number from 0, or None", lambda v: v is None or (type(v) in (int, float) and 0 <= v < 1e9)
        ),
        "spare": Fit("a whole number from 0", lambda v: type(v) is int and v >= 0),
        "clock": Fit("a function that returns seconds", callable),
    }

    def __post_init__(self) -> None:
        Policy.__post_init__(self)
        object.__setattr__(self, "budget", self.new_budget())

    def discord(self) -> list[Problem]:
        """Return what does not go together."""
        if self.max_pause < self.pause:
            least = f"at least the first pause, {self.pause:g}"
            return [Problem("max_pause", f"{self.max_pause:g}", least)]
        return []

    def new_budget(self) -> RetryBudget | None:
        """Return a budget of its own for somebody who tries so."""
        return None if self.share is None else RetryBudget(self.share, self.spare)

    def pauses(self, attempts: int | None = None) -> Iterator[float]:
        """Yield the seconds before each further attempt, of as many as it says or of so many."""
        pause = self.pause
        for _ in range((self.attempts if attempts is None else attempts) - 1):
            yield pause * (1.0 - self.jitter * random.random())
            pause = min(pause * self.factor, self.max_pause)

    def worth(self, error: Exception, budget: RetryBudget | None) -> bool:
        """Tell whether to try again after this error; it is taken from the budget if so."""
        return counted(self.on, error) and (budget is None or budget.take())

    def call(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `fn` until it answers; the last error is raised. What an async `fn` gives is to be awaited."""
        if self.budget is not None:
            self.budget.called()
        for pause in self.pauses():
            try:
                value = fn(*args, **kwargs)
            except Exception as error:
                if not self.worth(error, self.budget):
                    raise
                rest(self.clock, pause)
            else:
                return (
                    cast("R", self._later(value, fn, args, kwargs)) if type(value) is CoroutineType else value
                )
        return fn(*args, **kwargs)

    async def _later(self, made: Any, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        import asyncio

        for pause in self.pauses():
            try:
                return await made
            except Exception as error:
                if not self.worth(error, self.budget):
                    raise
            await asyncio.sleep(pause)
            made = fn(*args, **kwargs)
        return await made

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Return `fn` as it is called through this."""
        if inspect.iscoroutinefunction(fn):

            @wraps(fn)
            async def tried_later(*args: P.args, **kwargs: P.kwargs) -> Any:
                return await cast("Awaitable[Any]", self.call(fn, *args, **kwargs))

            return cast("Callable[P, R]", tried_later)

        @wraps(fn)
        def tried(*args: P.args, **kwargs: P.kwargs) -> R:
            return self.call(fn, *args, **kwargs)

        return tried
