"""A rule's function of a user's: asked on a thread that may wait, so that one who hangs holds up nobody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from grym_nb.clock import Clock
from grym_nb.health.errand import Errand, Work
from grym_nb.render import seconds

if TYPE_CHECKING:
    from grym_nb.health.rules import Rule
    from grym_nb.metrics.history import History

__all__ = ["Asked", "UnansweredError"]

_LONG = 10.0  # seconds for which the last answer will do


class UnansweredError(Exception):
    """The function was asked, and has not answered yet."""


class Asked:
    """One rule with a function; `rule` is the same one, whose figures are the last answer."""

    def __init__(self, rule: Rule, work: Work, *, clock: Clock) -> None:
        self._function: Callable[..., Any] = rule.metric  # type: ignore[assignment]  # it is a function
        self._work = work
        self._clock = clock
        self._errand = Errand(f"the rule {rule.name}", clock=clock)
        self._began: float | None = None
        self._answer: Callable[[], Any] | None = None
        self.rule: Rule = replace(rule, metric=self._figures)

    def ask(self, history: History, now: float) -> None:
        """Ask it, unless it was asked and has not answered; never waits."""
        self._errand.begin(self._work, partial(self._run, history, now))

    def wait(self, until: float) -> None:
        """Return when it has answered, or at a time of the system's clock."""
        self._errand.wait(until)

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

    def _run(self, history: History, now: float) -> None:
        self._began = self._clock()
        try:
            figures = self._function(history, now)
            self._answer = lambda: figures
        except BaseException as error:  # also SystemExit: a thread of ours ends for nobody
            self._answer = partial(_raise, error)
        finally:
            self._began = None
            self._errand.end()


def _raise(error: BaseException) -> Any:
    raise (
        error.with_traceback(None)
        if isinstance(error, (Exception, SystemExit))
        else RuntimeError(repr(error))
    )
