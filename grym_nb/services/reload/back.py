"""Back to an earlier version, asked for or as new code fails a call; and calls split between two."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from grym_nb.errors import StateError
from grym_nb.services.failure import place_of, words_of
from grym_nb.services.outcome import typed, unpinned
from grym_nb.services.reload.history import begun, note, step
from grym_nb.services.reload.names import classes_of
from grym_nb.services.reload.probation import answered_before
from grym_nb.services.reload.report import Reload
from grym_nb.services.reload.split import split
from grym_nb.services.reload.swap import in_words, take_back
from grym_nb.services.retire import Retirement, retire
from grym_nb.services.tiers import parked_in

if TYPE_CHECKING:
    from grym_nb.services.frame import Frame
    from grym_nb.services.instance import Serving
    from grym_nb.services.record import ServiceRecord

__all__ = ["answer_before", "rollback", "split_calls"]

_log = logging.getLogger(__name__)


def rollback(record: ServiceRecord) -> Reload:
    """Have the version serve that did before; its weights stay, where they are those that are there."""
    record.refuse_from_within("roll back", waits=False)
    instance = record.instance
    if instance is None and (parked := parked_in(record)) is not None:
        instance = parked.instance
    gone = None if instance is None else instance.serving
    if gone is not None and (back := gone.before) is not None:
        report = _taken_back(record, gone, back, "asked for")
        if take_back(record, gone, back, report):
            return note(record, report, back.number)
    number = _before(record)
    if number is None:
        raise StateError(
            f"{record.name} has no earlier version than {record.version}",
            hint="a version comes with each edit that is reloaded, or registered again",
            service=record.name,
        )
    spec = record.spec.with_code_of(record.specs[number])
    record.refuse_from_within("roll back")
    report, loaded = begun(record), record.instance is not None
    report.after, report.how = spec.label or f"v{number}", "at load"
    report.why = "taken back: the weights were loaded by the newer code" if loaded else "taken back"
    report.numbers = record.code_version, number
    with classes_of(record.specs, number) as classes:  # before a call loads it
        retire(record, Retirement("rollback", spec=spec, number=number, report=report))
    report.notes += in_words(classes)
    if loaded:
        with step(report, "load"):
            record.load()
        report.how = "loaded"
    return note(record, report, number)


def _before(record: ServiceRecord) -> int | None:
    """Return the version that served before the one in force: not one that was taken back before that."""
    now, known = record.code_version, record.specs
    served = [one.numbers[0] for one in record.reloads if one.numbers[0] < now == one.numbers[1]]
    left = [number for number in served if number in known]
    taken_back = {one.numbers[0] for one in record.reloads if one.how == "taken back"}
    others = [number for number in known if number < now and number not in taken_back]
    return left[-1] if left else max(others, default=None)


def answer_before(
    frame: Frame, raised: BaseException, ask: Callable[[Frame], Any] | None = None
) -> tuple[bool, Any]:
    """Have a call that new code fails answered by a version before it, which serves from now on.

    `ask` is how that is done, where it is not as usual.
    """
    record, gone = frame.record, frame.serving
    if gone is None or gone.probation is None or frame.options.version is not None:
        return False, None
    found = answered_before(frame, raised, ask)
    if found is None:
        return False, None
    back, value = found
    last = next((one for one in reversed(record.reloads) if one.after == gone.version), None)
    if last is not None:
        last.answered += 1
    record.metrics.counter("service.reload.answered_before", service=record.name).add()
    frame.serving = gone
    error = typed(frame, raised)
    frame.serving = back
    why = f"{frame.task} raised {type(raised).__name__}: {words_of(raised)}{place_of(raised)}"
    report = _taken_back(record, gone, back, why)
    report.by = "calls"
    if take_back(record, gone, back, report):
        note(record, report, back.number)
        _log.warning(
            "%s: %s answered instead, and serves again; %%grym why shows it", report.line, back.version
        )
    unpinned(error)
    return True, value


def _taken_back(record: ServiceRecord, gone: Serving, back: Serving, why: str) -> Reload:
    report = begun(record)
    report.before, report.after, report.how, report.why = gone.version, back.version, "taken back", why
    report.numbers = gone.number, back.number
    report.share = 1.0 if back.split is None else back.split.share  # as it was when it served
    return report


def split_calls(record: ServiceRecord, report: Reload, share: float) -> Reload:
    """Have what serves answer another share of the calls, and the version before it the rest."""
    with record.lock:
        instance = record.instance
        serving = None if instance is None else instance.serving
        done = serving is not None and split(serving, serving.before, share)
    if serving is None or not done:
        raise StateError(
            f"{record.name} has no other version to answer the rest of the calls",
            hint="there is one once an edit is in force for the weights that are there",
            service=record.name,
        )
    report.before = report.after if serving.split is None else serving.split.rest.version
    report.how, report.share = "split", share
    return note(record, report)
