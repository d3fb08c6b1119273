"""The first calls of new code: one that raises is answered by the version before, which then serves again.

So an edit that is wrong costs no caller anything. Where no version answers, the input is at fault: the error
of the new code is raised, and it stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from grym_nb.errors import GrymError, StateError
from grym_nb.services.engines import run
from grym_nb.services.reload.names import classes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from grym_nb.services.frame import Frame
    from grym_nb.services.instance import Serving

__all__ = ["Probation", "answered_before", "passed", "serving_of"]

_CALLS = 50  # of each task
_SECONDS = 600.0


class Probation:
    """How far a version has come: each task is on it for so many calls, and for so long."""

    def __init__(self, now: float, tasks: Mapping[str, object]) -> None:
        self.until = now + _SECONDS
        self._left = dict.fromkeys(tasks, _CALLS)

    def covers(self, task: str, now: float) -> bool:
        """Tell whether a call of this task is still on it."""
        return now < self.until or self._left.get(task, 0) > 0

    def passed(self, task: str) -> None:
        """Count a call that the version has answered."""
        self._left[task] = self._left.get(task, 0) - 1

    def over(self, now: float) -> bool:
        """Tell whether all tasks are past it."""
        return now >= self.until and not any(left > 0 for left in tuple(self._left.values()))

    def __repr__(self) -> str:
        told = ", ".join(f"{task} {left}" for task, left in self._left.items() if left > 0)
        return f"<Probation: calls to go: {told or 'none'}>"


def serving_of(frame: Frame) -> Serving:
    """Return the version that answers a call: that with which its chain has begun, else the newest.

    While calls are split between two, it is either of them. One that waited as its task was taken out is
    answered by the last version that has it.
    """
    instance, spec = frame.instance, frame.spec
    assert instance is not None and spec is not None
    newest = instance.serving
    if (number := frame.options.version) is not None:
        there = [one for one in instance.versions if one.number == number and spec.method in one.tasks]
        if not there:
            raise StateError(
                f"{frame.record.name} has its version {number} no more",
                hint="a version is there as long as the weights are, and few edits came since",
                service=frame.record.name,
            )
        return there[-1]
    for above in islice(frame.chain(), 1, None):
        if above.instance is instance and above.serving is not None and spec.method in above.serving.tasks:
            return above.serving
    if spec.method not in newest.tasks:
        return next((one for one in reversed(instance.versions) if spec.method in one.tasks), newest)
    if (split := newest.split) is not None and spec.method in split.rest.tasks and not split.takes():
        return split.rest
    return newest


def passed(frame: Frame, serving: Serving) -> None:
    """Count a call that a version on probation has answered."""
    probation = serving.probation
    if probation is not None and frame.spec is not None:
        probation.passed(frame.spec.method)
        if probation.over(frame.record.ports.clock()):
            serving.probation = None


def answered_before(
    frame: Frame, raised: BaseException, ask: Callable[[Frame], Any] | None = None
) -> tuple[Serving, Any] | None:
    """Ask the versions before the one that raised, newest first; None where none of them answers.

    What a generator yields is not asked for again, but as somebody says who has had nothing of it yet.
    """
    serving, spec = frame.serving, frame.spec
    assert serving is not None and spec is not None
    if (
        not isinstance(raised, Exception)
        or isinstance(raised, GrymError)
        or not spec.replay
        or frame.cancelled
    ):
        return None
    again = ask or (None if spec.kind in ("generator", "async generator") else run)
    if again is None or any(_is_used_up(value) for value in _given(frame)):
        return None
    now = frame.record.ports.clock()
    for one in _others(frame, serving, spec.method, now):
        frame.serving = one
        try:
            with classes_of(frame.record.specs, one.number):
                value = again(frame)
        except Exception:  # it was right to raise, as far as this one tells
            continue
        return one, value
    frame.serving = serving
    return None


def _others(frame: Frame, serving: Serving, task: str, now: float) -> Iterator[Serving]:
    """Yield the versions before one, back to the last that is past its probation; then what serves."""
    newest = None if frame.instance is None else frame.instance.serving
    one: Serving | None = serving
    while one is not None and one.probation is not None and one.probation.covers(task, now):
        one = one.before
        if one is None or one.model is None:
            break
        if task in one.tasks:
            yield one
    if newest is not None and newest is not serving and newest.model is not None and task in newest.tasks:
        yield newest  # by now; what it raised on was edited since


def _given(frame: Frame) -> Iterator[Any]:
    yield from frame.args
    yield from frame.kwargs.values()


def _is_used_up(value: Any) -> bool:
    """Tell whether a value gives what it has only once."""
    return hasattr(type(value), "__next__")
