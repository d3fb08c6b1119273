"""What comes of a reload, step by step, and its end: in a service's history, in metrics, and as an event."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from grym_nb.errors import GrymError, LoadFailed, ReloadFailed, ValidationError
from grym_nb.events import ServiceReloaded
from grym_nb.services.failure import describe, place_of, words_of
from grym_nb.services.outcome import unpinned
from grym_nb.services.reload.report import Reload, noted

if TYPE_CHECKING:
    from grym_nb.services.record import ServiceRecord

__all__ = ["begun", "begun_with", "note", "refusal", "refusing", "step", "told"]


def begun(record: ServiceRecord) -> Reload:
    """Return the report of a reload that begins."""
    report = Reload(record.name, record.ports.clock(), record.version, record.version, "unchanged")
    report.numbers = (record.code_version, record.code_version)
    return report


def begun_with(report: Reload, record: ServiceRecord) -> Reload:
    """Return the report of a service that is reloaded with another one."""
    own = begun(record)
    own.ran, own.carried, own.notes = report.ran, report.carried, (f"with {report.service}",)
    own.by = report.by
    return own


def note(record: ServiceRecord, report: Reload, number: int | None = None) -> Reload:
    """Take a report into the history, at its end if it has no place there yet, and tell who listens."""
    report.numbers = (report.numbers[0], number or record.code_version)
    with record.lock:
        record.reloads = noted(record.reloads, report)
    record.metrics.counter("service.reloads", service=record.name, how=report.how).add()
    now = record.ports.clock()
    event = ServiceReloaded(now, record.name, report.after, report.how, report.why, report.by, report.line)
    record.ports.events.publish(event)
    return report


@contextmanager
def step(report: Reload, name: str) -> Iterator[None]:
    """Take down how long a step takes; what takes one within it is that one's."""
    began, before = time.perf_counter(), sum(report.seconds.values())
    report.seconds.setdefault(name, 0.0)  # there already for what is said if it fails
    try:
        yield
    finally:
        within = sum(report.seconds.values()) - before
        report.seconds[name] += time.perf_counter() - began - within


@contextmanager
def refusing(record: ServiceRecord, report: Reload) -> Iterator[None]:
    """Turn what the author's new code raises as it is read or built into the end of the reload."""
    try:
        yield
        return
    except ReloadFailed:
        raise
    except (Exception, SystemExit) as error:
        report.how, report.why = "refused", told(error)
        refused = refusal(record, report, error, "goes on with the code it had")
        refused.failure = refused.failure or describe(
            error, service=record.name, task="reload", version=record.version
        )
    raise unpinned(refused) from None


def told(error: BaseException) -> str:
    """Say in a line what is wrong with new code, and where."""
    if isinstance(error, ValidationError) and error.problems:
        return "; ".join(map(str, error.problems))
    words = error.message if isinstance(error, GrymError) else f"{type(error).__name__}: {words_of(error)}"
    return f"{words}{place_of(error)}"


def refusal(record: ServiceRecord, report: Reload, error: BaseException, goes_on: str) -> ReloadFailed:
    """Return the error of a reload that did not come to new code, which the history has as well."""
    note(record, report)
    refused = ReloadFailed(
        f"{record.name} was not reloaded: {report.why}",
        cause=f"it {goes_on} ({record.version})",
        hint=error.hint
        if isinstance(error, GrymError) and not isinstance(error, (ValidationError, LoadFailed))
        else f"mend it and reload; {error.hint}"
        if isinstance(error, LoadFailed) and error.hint != error.advice
        else f"mend it and reload; grym.get({record.name!r}).reload(force=True) takes it as it is"
        if report.how == "refused" and report.seconds.get("try") is not None
        else "mend it and reload",
        service=record.name,
    )
    refused.report = report
    refused.failure = getattr(error, "failure", None)
    return refused
