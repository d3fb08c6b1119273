"""How long a block or a function takes, counted each time in a microsecond or two."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import wraps
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from grym_nb.clock import Clock
from grym_nb.errors import ConfigError, Problem, StateError
from grym_nb.metrics.given import text
from grym_nb.metrics.histogram import Histogram
from grym_nb.render import brief

if TYPE_CHECKING:
    from grym_nb.metrics.series import Metrics

__all__ = ["OPERATION", "Track", "around"]

F = TypeVar("F", bound=Callable[..., Any])

#: the histogram in which operations are counted, by `operation` and `outcome`
OPERATION = "operation.seconds"
_OURS = ("operation", "outcome")


class Track:
    """Counts how long a block takes, or each call of a function, async ones too.

    The outcome is "ok" or the name of the error. A `with` is for one block at a time; a function may be
    called from any number of threads and coroutines.
    """

    __slots__ = ("_began", "_metrics", "_operation", "_tags", "_timer")

    def __init__(
        self, metrics: Metrics, operation: str, tags: Mapping[str, str], *, timer: Clock = perf_counter
    ) -> None:
        text(operation, "operation")
        if tags and not tags.keys().isdisjoint(_OURS):
            problems = [Problem(tag, repr(tags[tag]), "another name") for tag in _OURS if tag in tags]
            raise ConfigError("track() sets these tags itself", problems=problems)
        self._metrics = metrics
        self._operation = operation
        self._tags = tags
        self._timer = timer
        self._began: float | None = None

    def __enter__(self) -> Self:
        if self._began is not None:
            told = f"{self._operation!r} is measured already with this object"
            raise StateError(told, hint="make one for each block: with metrics.track(...):")
        self._began = self._timer()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        began, self._began = self._began, None
        if began is not None:
            outcome = "ok" if kind is None else kind.__name__
            self._of(outcome).record(max(0.0, self._timer() - began))

    def __call__(self, function: F, /) -> F:
        """Return the function, each call of which is counted."""
        return around(function, lambda: Track(self._metrics, self._operation, self._tags, timer=self._timer))

    def __repr__(self) -> str:
        return f"<Track: {self._operation} in {OPERATION}>"

    def _of(self, outcome: str) -> Histogram:
        if not self._tags:
            # Straight to where it is, as most are: looking it up costs as much as all the rest.
            key = OPERATION, (("operation", self._operation), ("outcome", outcome))
            found = self._metrics._series.get(key)
            if type(found) is Histogram:
                return found
        tags = {**self._tags, "operation": self._operation, "outcome": outcome}
        return self._metrics.histogram(OPERATION, **tags)


def around(function: F, begin: Callable[[], AbstractContextManager[Any]]) -> F:
    """Return a function, or a coroutine function, each call of which runs within what `begin` returns."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        problem = Problem(function.__name__, "a generator", "a function, or a coroutine function")
        raise ConfigError(
            f"{brief(function)} runs when somebody else goes through it",
            problems=[problem],
            hint="use `with` inside of it, or decorate what goes through it",
        )
    given: object = function
    if not callable(given):
        told = brief(getattr(function, "__func__", None) or getattr(function, "fget", None) or function)
        problem = Problem("function", f"{type(function).__name__} of {told}", "a function")
        raise ConfigError(
            "only what can be called can be measured",
            problems=[problem],
            hint="put this decorator below @classmethod, @staticmethod or @property, next to the function",
        )
    if _is_async(function):

        @wraps(function)
        async def waits(*args: Any, **kwargs: Any) -> Any:
            with begin():
                return await function(*args, **kwargs)

        return cast(F, waits)

    @wraps(function)
    def runs(*args: Any, **kwargs: Any) -> Any:
        with begin():
            return function(*args, **kwargs)

    return cast(F, runs)


def _is_async(function: Callable[..., Any]) -> bool:
    called = None if inspect.isclass(function) else getattr(function, "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)
