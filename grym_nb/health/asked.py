"""A rule's function of a user's: asked on a thread that may wait, so that one who hangs holds up nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from grym_nb.clock import Clock, monotonic
from grym_nb.errors import StateError
from grym_nb.health.listeners import Work
from grym_nb.render import seconds

if TYPE_CHECKING:
    from grym_nb.health.rules import Rule
    from grym_nb.metrics.history import History

__all__ = ["Asked", "UnansweredError"]

_LONG = 10.0  # seconds for which the last answer will do
_DEADLINE = 30.0  # seconds until a thread that hangs is made up for by another


class UnansweredError(Exception):
    """The function was asked, and has not answered yet."""


class Asked:
    """One rule with a function; `rule` is the same one, whose figures are the last answer."""

    def __init__(self, rule: Rule, work: Work, *, clock: Clock) -> None:
        self._function: Callable[..., Any] = rule.metric  # type: ignore[assignment]  # it is a function
        self._work = work
        self._clock = clock
        self._lock = threading.Lock()
        self._busy = False
        self._began: float | None = None
        self._idle = threading.Event()
        self._idle.set()
        self._answer: Callable[[], Any] | None = None
        self.rule: Rule = replace(rule, metric=self._figures)

    def ask(self, history: History, now: float) -> None:
        """Ask it, unless it was asked and has not answered; never waits."""
        try:
            if self._begins():
                job = partial(self._run, history, now)
                deadline = self._clock() + _DEADLINE
                self._work(job, name=f"the rule {self.rule.name}", deadline=deadline)
        except StateError:  # all is being closed
            self._ends()
        except BaseException:  # Ctrl-C: it is asked again at the next step
            self._ends()
            raise

    def wait(self, until: float) -> None:
        """Return when it has answered, or at a time of the system's clock."""
        self._idle.wait(max(0.0, until - monotonic()))

    def rest(self) -> None:
        """Forget the last answer: it will be old by the next step."""
        self._answer = None

    def _figures(self, history: History, now: float) -> Any:
        began, answer = self._began, self._answer
        if began is not None and (late := self._clock() - began) > _LONG:
            raise TimeoutError(f"it has not answered for {seconds(late)}")
        if answer is None:
            raise UnansweredError
        return answer()

    def _begins(self) -> bool:
        with self._lock:
            begins, self._busy = not self._busy, True
            if begins:
                self._idle.clear()
            return begins

    def _ends(self) -> None:
        with self._lock:
            self._busy, self._began = False, None
            self._idle.set()

    def _run(self, history: History, now: float) -> None:
        self._began = self._clock()
        try:
            figures = self._function(history, now)
            self._answer = lambda: figures
        except BaseException as error:  # also SystemExit: a thread of ours ends for nobody
            self._answer = partial(_raise, error)
        finally:
            self._ends()


def _raise(error: BaseException) -> Any:
    raise (
        error.with_traceback(None)
        if isinstance(error, (Exception, SystemExit))
        else RuntimeError(repr(error))
    )
