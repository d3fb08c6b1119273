"""Who is told: each in turn, on a thread that may wait, so that one who hangs keeps nobody else waiting."""

from __future__ import annotations

import inspect
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from grym_nb.clock import Clock
from grym_nb.errors import ConfigError, Problem
from grym_nb.health.errand import Errand, Work
from grym_nb.health.given import deferred, inner
from grym_nb.health.guarded import named
from grym_nb.render import brief

__all__ = ["Listener", "others", "refuse_deaf"]

_log = logging.getLogger(__name__)
_MOST = 100  # that wait for one who hangs; of more, the oldest are lost


class Listener:
    """One channel. It is told where `work` runs it, or at once where there is no `work`.

    One that raises has not heard that notice, which is logged, and is told of the next ones: what it reaches
    may be away for a while only. The same failure in a row is logged once.
    """

    def __init__(self, channel: Callable[[Any], object], work: Work | None, *, clock: Clock) -> None:
        self._channel = channel
        self._work = work
        self._errand = Errand(f"the channel {_name_of(channel)}", clock=clock)
        self._waiting: deque[Any] = deque(maxlen=_MOST)
        self._full = False
        self._failure: tuple[type[BaseException], str] | None = None  # of the last notice
        self.gone = False

    @property
    def channel(self) -> Callable[[Any], object]:
        """Who is told."""
        return self._channel

    def hand(self, notice: Any) -> None:
        """Tell it, after all that it has not been told yet; never waits."""
        if len(self._waiting) == _MOST and not self._full:
            self._full = True
            told = "the channel %s does not come back: the oldest alerts are lost to it"
            _log.warning(told, _name_of(self._channel))
        self._waiting.append(notice)
        if self._work is None:
            self._run()
        else:
            self._errand.begin(self._work, self._run)

    def wait(self, until: float) -> None:
        """Return when it has been told everything, or at a time of the system's clock."""
        self._errand.wait(until)

    def _run(self) -> None:
        while not self.gone and (notice := self._next()) is not None:
            try:
                _refuse_unrun(self._channel(notice))
                self._failure = None
            except KeyboardInterrupt:
                self._errand.end()
                raise
            except BaseException as error:  # also SystemExit: a thread of ours ends for nobody
                self._failed(error)
        if self.gone:
            self._errand.end()

    def _failed(self, error: BaseException) -> None:
        failure = (type(error), brief(error))
        if failure != self._failure:
            self._failure = failure
            told = "the channel %s raised on an alert, which it has not heard; it is told of the next ones"
            _log.warning(told, _name_of(self._channel), exc_info=error)

    def _next(self) -> Any:
        with self._errand.lock:
            if self._waiting:
                return self._waiting.popleft()
            # Under the lock, so that what comes now finds nobody at work, and begins.
            self._full = False
            self._errand.rest()
            return None


def refuse_deaf(channel: object) -> None:
    """Raise where a channel would hear nothing: it is no function, or calling it runs nothing of it."""
    if not callable(channel):
        hint = "grym_nb.health.channels has webhook(url) and command([...])"
        problem = Problem("channel", brief(channel), "a function of a notice")
        raise ConfigError("only a function can be told", problems=[problem], hint=hint)
    if kind := deferred(channel):
        hint = "it is called on a thread that may wait, so a plain def that does it at once will do"
        problem = Problem("channel", f"{_name_of(channel)}, {kind}", "a plain function of a notice")
        raise ConfigError("only what runs when it is called can be told", problems=[problem], hint=hint)
    if not _takes_one(channel):
        problem = Problem("channel", _name_of(channel), "a function of one notice, such as def told(notice)")
        raise ConfigError("it could not be called with what there is to tell", problems=[problem])


def _takes_one(function: Any) -> bool:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of what is built in nobody knows
        return True
    try:
        signature.bind(None)
    except TypeError:
        return False
    return True


def _refuse_unrun(answer: object) -> None:
    """Raise where a function that looks plain, such as a lambda, has only made what somebody has to await."""
    if inspect.iscoroutine(answer):
        answer.close()  # else Python warns of it, somewhere
        raise TypeError("it returned a coroutine, which nobody awaits: a plain function is wanted")


def _name_of(channel: Any) -> str:
    return named(inner(channel))


def others(listeners: Sequence[Listener], channel: Callable[[Any], object]) -> list[Listener]:
    """Return those that are not this channel: a cell that is run again makes its function anew."""
    return [listener for listener in listeners if not _same(listener.channel, channel)]


def _same(one: Any, other: Any) -> bool:
    """Tell whether two channels are one, as a cell that is run again makes it anew.

    Recognised are functions by their names, those without by code and what they hold, a `partial` by
    function and arguments, objects and their methods by class and what they hold. A lambda that was edited
    is another; so is an object that holds what can change, such as a list: somebody may look at each.
    """
    if isinstance(one, partial) and isinstance(other, partial):
        held = [(each.args, sorted(each.keywords.items())) for each in (one, other)]
        return _same(one.func, other.func) and all(map(_fixed_all, *held))
    if isinstance(one, MethodType) and isinstance(other, MethodType):
        mine, its = one.__self__, other.__self__
        return one == other or (one.__name__ == other.__name__ and _alike(mine, its))
    if not (isinstance(one, FunctionType) and isinstance(other, FunctionType)):
        return _equal(one, other) or _alike(one, other)
    if (one.__module__, one.__qualname__) != (other.__module__, other.__qualname__):
        return False
    if "<" not in one.__qualname__:
        return True  # a name stands for one function, as it is now
    return one.__code__ == other.__code__ and _holds_the_same(one, other)


def _alike(one: Any, other: Any) -> bool:
    """Tell whether two objects are of one class, as it is now, and hold the same for good."""
    mine, its = type(one), type(other)
    made: Any = mine.__new__
    plain = made is object.__new__ and hasattr(one, "__dict__")  # else it may hold more than one sees
    if not plain or (mine.__module__, mine.__qualname__) != (its.__module__, its.__qualname__):
        return False
    return _fixed_all(*[sorted(each.__dict__.items()) for each in (one, other)])


def _fixed_all(ones: Sequence[Any], others: Sequence[Any]) -> bool:
    return len(ones) == len(others) and all(map(_fixed, ones, others))


def _fixed(one: Any, other: Any) -> bool:
    """Tell whether two values are one, or equal ones that cannot change."""
    try:
        hash(one)
    except Exception:
        return one is other
    return one is other or _equal(one, other)


def _equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:  # an array is neither equal nor not
        return False


def _holds_the_same(one: FunctionType, other: FunctionType) -> bool:
    cells = zip(one.__closure__ or (), other.__closure__ or (), strict=True)
    try:
        return all(bool(mine.cell_contents == its.cell_contents) for mine, its in cells)
    except Exception:  # an array is neither equal nor not; a cell may be empty
        return False
