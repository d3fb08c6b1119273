"""When a task runs out of memory: it is tried once more without the idle, then its batch in parts that fit.

A task that declares its `batch` is given half of it at a time, and half of that, down to single items; the
answers are put together in order. So it is where a service that it calls ran out, after all that one tried.
What did fit is remembered for a while, so that the next call of more items than that does not run out of
memory first.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from grym_nb.errors import ResourceExhausted, TaskFailed
from grym_nb.hardening.returning import give_back
from grym_nb.render import brief, count
from grym_nb.services.engines import run
from grym_nb.services.frame import CURRENT
from grym_nb.services.learning import learning
from grym_nb.services.outcome import typed
from grym_nb.services.shortage import exhausted, may_try_again, note_parts, ran_out, relieve

if TYPE_CHECKING:
    from grym_nb.services.frame import Frame
    from grym_nb.services.record import ServiceRecord

__all__ = ["FITS_FOR", "Fit", "Parts", "compute", "fit_of", "once_more", "short_of"]

_log = logging.getLogger(__name__)
#: seconds in which a batch is parted at once where as many items did not fit: then all are tried again
FITS_FOR = 600.0
_Batch: TypeAlias = "list[Any] | tuple[Any, ...]"


class Fit(NamedTuple):
    """How many items of a task's batch did fit at a time, and since when that is known."""

    items: int
    at: float
    versions: tuple[object, ...]  # of code, config and device with which that was


class Parts:
    """A batch that is computed in parts: how far it is, and with how many items at a time."""

    __slots__ = ("answers", "as_tuple", "at", "batch", "given", "items", "too_many")

    def __init__(self, batch: _Batch, items: int) -> None:
        self.batch = batch[:]  # as it is now: the list is the caller's
        self.items = items  # at a time
        self.too_many = 0  # that did not fit, the last time
        self.at = 0  # of the first that has no answer yet
        self.answers: list[Any] = []
        self.as_tuple = False
        self.given: tuple[tuple[Any, ...], dict[str, Any]] | None = None  # the arguments of the whole call

    def go_on(self, frame: Frame) -> _Batch:
        """Compute the parts that are left; return all answers as the task does, as a list or a tuple."""
        given = self.given = frame.args, frame.kwargs
        try:
            while self.at < len(self.batch):
                frame.check()
                part = self.batch[self.at : self.at + self.items]
                frame.args, frame.kwargs = _with(frame, given, part)
                self._take(frame, _run(frame), part)
        finally:
            frame.args, frame.kwargs = given
        return tuple(self.answers) if self.as_tuple else self.answers

    def _take(self, frame: Frame, answers: Any, part: _Batch) -> None:
        if not isinstance(answers, (list, tuple)) or len(answers) != len(part):
            raise _no_answers(frame, answers, len(part))
        _count(frame, len(part))
        self.as_tuple = isinstance(answers, tuple)
        self.answers += answers
        self.at += len(part)

    def halve(self) -> bool:
        """Have half as many at a time as did not fit; False where that was a single one."""
        self.too_many = min(self.items, len(self.batch) - self.at)
        self.items = (self.too_many + 1) // 2
        return self.too_many > 1


def compute(frame: Frame) -> Any:
    """Run a task that may be large: with room for what it will take, and in parts where all did not fit."""
    parts = frame.parts
    if parts is None:
        batch, fit = _batch_of(frame), fit_of(frame.record, frame.task)
        if batch is None or fit is None or len(batch) <= fit.items:
            value = _run(frame)
            if batch:
                _count(frame, len(batch))
            return value
        parts = frame.parts = Parts(batch, fit.items)
    try:
        value = parts.go_on(frame)
    except BaseException as raised:
        if short_of(frame, raised) is None:
            frame.parts = None
        raise
    frame.parts, frame.at_a_time = None, parts.items
    return value


def short_of(frame: Frame, error: BaseException) -> str | None:
    """Return how an error says that there was no memory for a task; None where it says no such thing."""
    if ran_out(error):
        return str(error)
    if not (isinstance(error, ResourceExhausted) and error.details.get("of_task")):
        return None  # of a load that ran out no batch is the reason
    batch = _batch_of(frame)  # without one it would try what cannot change
    return error.message if batch and len(batch) > 1 else None


def once_more(frame: Frame, short: str) -> tuple[Any, BaseException | None]:
    """Run a task again that ran out of memory, once others have gone; return its answer, or its error."""
    gone = relieve(frame.record)
    value, error, too_many = None, None, 0
    token = CURRENT.set(frame)
    try:
        again = may_try_again(frame)
        while again:
            value, error, said = _tried(frame)
            if said is None:
                break
            short = said
            if again := _smaller(frame):
                too_many = frame.parts.too_many if frame.parts is not None else 0
                give_back()  # what did not fit lies in the allocators' caches
        if not again:
            error = _given_up(frame, short, gone)
        elif too_many and error is None:
            _remember(frame, too_many)
        return value, error
    finally:
        CURRENT.reset(token)
        frame.parts = None


def _tried(frame: Frame) -> tuple[Any, BaseException | None, str | None]:
    """Compute once; return the answer, or the error, or how it was said that there was no memory for it."""
    try:
        frame.check()
        return compute(frame), None, None
    except BaseException as raised:
        if (short := short_of(frame, raised)) is not None:
            return None, None, short
        return None, typed(frame, raised), None


def _run(frame: Frame) -> Any:
    learns = frame.instance is not None and frame.instance.learns
    return learning(frame, run) if learns else run(frame)


def _count(frame: Frame, items: int) -> None:
    """Count how many items of a batch were computed at a time."""
    record, task = frame.record, frame.task
    record.metrics.record("service.batch.items", items, service=record.name, task=task)


def _smaller(frame: Frame) -> bool:
    """Have the next try take fewer items; False where a task has no batch, or one item does not fit."""
    if frame.parts is None:
        batch = _batch_of(frame)
        if batch is None or len(batch) < 2:
            return False
        frame.parts = Parts(batch, len(batch))
    return frame.parts.halve()


def _batch_of(frame: Frame) -> _Batch | None:
    """Return the batch that a call was given, if its task declares one and it is a list or a tuple."""
    given = _given(frame)
    return given if isinstance(given, (list, tuple)) else None


def _given(frame: Frame) -> Any:
    """Return what a call was given as the batch that its task declares; None where it declares none."""
    spec = frame.spec
    if spec is None or not spec.batch:
        return None
    at = spec.batch_at
    return frame.args[at] if at is not None and at < len(frame.args) else frame.kwargs.get(spec.batch)


def _with(
    frame: Frame, given: tuple[tuple[Any, ...], dict[str, Any]], part: _Batch
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return a call's arguments with a part of its batch in the place of all of it."""
    assert frame.spec is not None
    (args, kwargs), at = given, frame.spec.batch_at
    if at is not None and at < len(args):
        return (*args[:at], part, *args[at + 1 :]), kwargs
    return args, {**kwargs, frame.spec.batch: part}


def _no_answers(frame: Frame, answers: Any, wanted: int) -> TaskFailed:
    """Return the error of a task that does not answer its batch item by item, as it declares."""
    assert frame.spec is not None
    found = count(len(answers), "answer") if isinstance(answers, Sequence) else brief(answers)
    error = TaskFailed(
        f"{frame.title} gave {found} for {count(wanted, 'item')} of its batch",
        cause=f'@task(batch="{frame.spec.batch}") says: a list, or tuple, with one answer per item, in order',
        hint="return so, or leave `batch` out: then nothing is computed in parts",
        service=frame.record.name,
        task=frame.task,
    )
    error.raised = TypeError  # the code is wrong: another try gives the same
    return error


def _given_up(frame: Frame, short: str, gone: tuple[str, ...]) -> BaseException:
    """Return the error of a call that is not tried again: what it was told meanwhile comes first."""
    try:
        frame.check()
    except BaseException as told:
        return told
    error = _exhausted(frame, short, gone)
    error.details["of_task"] = frame.title  # by which whoever called it knows: see `short_of`
    return error


def _exhausted(frame: Frame, short: str, gone: tuple[str, ...]) -> ResourceExhausted:
    """Return the typed error of a call that does not fit, whatever it is given at a time."""
    batch, at = _batch_of(frame), 0 if frame.parts is None else frame.parts.at
    if not batch or frame.spec is None:
        error = exhausted(frame.record, frame.title, short, gone)
        if (given := _given(frame)) is not None and batch is None:
            error.hint = (
                f"its batch is {brief(given)}, which is not parted: give a list or tuple; or {error.hint}"
            )
        return error
    one = f"{frame.spec.batch}[{at}]"
    error = exhausted(frame.record, f"{frame.title}, given only {one} of {len(batch)},", short, gone)
    error.details["item"] = at
    return error


# -- what did fit ----------------------------------------------------------------------------------


def fit_of(record: ServiceRecord, task: str) -> Fit | None:
    """Return how many items of a task's batch did fit at a time lately; None where all may be tried."""
    fit = record.footprint.fits.get(task)
    if fit is None or fit.versions != _versions(record) or record.ports.clock() >= fit.at + FITS_FOR:
        return None
    return fit


def _versions(record: ServiceRecord) -> tuple[object, ...]:
    return record.code_version, record.config_version, record.policy.device


def _remember(frame: Frame, too_many: int) -> None:
    """Remember what did fit, and say it: in the log, and beside who went for whom."""
    record, items = frame.record, frame.at_a_time
    record.footprint.fits[frame.task] = Fit(items, record.ports.clock(), _versions(record))
    told = f"{frame.title} ran out of memory with {too_many} at a time: computed in parts of {items}"
    note_parts(record, told)
    _log.warning("%s", told)
