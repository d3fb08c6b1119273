"""What became of a call or a load: typed errors with their story, results with their provenance."""

from __future__ import annotations

import logging
import sys
from math import inf
from typing import TYPE_CHECKING, Any

from grym_nb.errors import (
    CallCancelled,
    CallTimeout,
    CheckpointError,
    GrymError,
    Interrupted,
    LoadFailed,
    TaskFailed,
    ValidationError,
)
from grym_nb.events import CallEnded
from grym_nb.hardening.eviction import SPELL_SECONDS
from grym_nb.metrics import Histogram
from grym_nb.render import redacted
from grym_nb.services.call import Provenance, TaskResult, status_of
from grym_nb.services.failure import describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from grym_nb.services.frame import Frame, Waits
    from grym_nb.services.record import ServiceRecord

__all__ = ["conclude", "keep", "load_failed", "observe", "result_of", "typed", "unpinned", "version_of"]

_log = logging.getLogger(__name__)
_LONG = 0.1  # seconds: what takes less is not worth to be kept
_BYTES_A_SECOND = 1e7  # a hundredth of what is hashed in one
#: what an author's code raises: a `sys.exit()` somewhere in it is not to end the cell, or the loop
_AUTHORS = (Exception, SystemExit, GeneratorExit)


def version_of(frame: Frame) -> str:
    """Return the version of the code that answers a call, or of that which would."""
    serving = frame.serving
    return frame.record.version if serving is None else serving.version


def typed(frame: Frame, error: BaseException) -> BaseException:
    """Return the typed error for what the author's code raised, and keep its story."""
    record = frame.record
    if isinstance(error, GrymError):
        error.service = error.service or record.name
        error.task = error.task or frame.task
        if error.failure is not None or isinstance(error, (CallCancelled, TimeoutError)):
            return error  # told already, by the service in which it happened
    if type(error).__name__ == "CancelledError":
        return frame.cancellation()
    if not isinstance(error, _AUTHORS):
        return error
    version = version_of(frame)
    failure = describe(
        error,
        service=record.name,
        task=frame.task,
        version=version,
        args=frame.args,
        kwargs=frame.kwargs,
        names=frame.spec.checker.names if frame.spec is not None else (),
    )
    record.ports.failures.keep(failure, error.__traceback__)
    record.last_error = failure
    if isinstance(error, GrymError):
        error.failure = failure
        return error
    where = f"at {failure.sites[-1]}; " if failure.sites else ""
    told = TaskFailed(
        f"{frame.title} raised {failure.error}: {failure.message}",
        cause=f"{where}input: {', '.join(failure.inputs) or 'none'}",
        service=record.name,
        task=frame.task,
        version=version,
        error=type(error).__name__,
    )
    told.failure = failure
    told.raised = type(error)
    if failure.sites:
        told.add_note("\n".join(site.text() for site in failure.sites))
    return told


def unpinned(error: BaseException) -> BaseException:
    """Return the error with no traceback in it or in what caused it: frames pin tensors.

    What the caller was handling already keeps its own.
    """
    seen = {id(sys.exc_info()[1])}
    links: list[BaseException | None] = [error]
    while links:
        link = links.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            link.__traceback__ = None
            links += [link.__cause__, link.__context__, *getattr(link, "exceptions", ())]
    return error


def load_failed(record: ServiceRecord, error: BaseException) -> LoadFailed:
    """Return the typed error of a load that raised, and keep its story."""
    failure = describe(
        error, service=record.name, task="load", version=record.version, kwargs=record.spec.config
    )
    record.ports.failures.keep(failure, error.__traceback__)
    record.last_error = failure
    where = f" at {failure.sites[-1]}" if failure.sites else ""
    said = error.message if isinstance(error, GrymError) else failure.message
    told = LoadFailed(
        f"{record.name} could not be loaded: {failure.error}: {said}",
        cause=where.strip(),
        service=record.name,
        path=(record.name,),
    )
    told.failure = failure
    if isinstance(error, GrymError):  # it knows what was found, and what to do about it
        told.cause, told.hint = error.cause or told.cause, error.hint or told.hint
        told.can_change = not isinstance(error, ValidationError | CheckpointError)
    return told


def result_of(frame: Frame) -> Callable[[Any, BaseException | None], TaskResult]:
    """Return what makes the result of a call that has ended, with its provenance, from its value or error.

    Most results are never looked at: what they say is read now, and put together when somebody does.
    """
    record, instance = frame.record, frame.instance
    service, task, id = record.name, frame.task, f"call-{frame.id}"
    started, ended = frame.started, record.ports.clock()
    waits = frame.waited_by(ended)
    waited = sum(waits.values())
    version = version_of(frame)
    config_version, config = record.config_version, record.spec.full_config
    checkpoint = _checkpoint(instance.model) if instance is not None else None
    parameters = _parameters(frame) if frame.kwargs or len(frame.args) > 1 else {}
    seed = frame.kwargs.get("seed")
    fell_back, at_a_time = frame.fell_back, frame.at_a_time

    def result(value: Any, error: BaseException | None) -> TaskResult:
        provenance = Provenance(
            service=service,
            version=version,
            config_version=config_version,
            config=config,
            checkpoint=checkpoint,
            parameters=parameters,
            seed=seed,
            started=started,
            ended=ended,
        )
        if error is not None and not isinstance(error, GrymError):
            error = CallCancelled(str(error), service=service, task=task)
        return TaskResult(
            id=id,
            success=error is None,
            status=status_of(error),
            data=value,
            error=error.again() if error is not None else None,
            metadata={
                "duration": max(0.0, ended - started - waited),
                "queued": waited,
                **({"waits": {**waits}} if waited else {}),
                "task": task,
                **({"fallback": fell_back} if fell_back else {}),
                **({"at_a_time": at_a_time} if at_a_time else {}),
            },
            provenance=provenance,
        )

    return result


def keep(frame: Frame, value: Any) -> None:
    """Put a good result in the context; a call that succeeded does not fail for that: it is only logged."""
    store = frame.record.ports.store
    if store is None:
        return
    try:
        store(frame, value)
    except GrymError as error:
        _log.warning(
            "%s succeeded, and its result was not kept: %s", frame.title, error.cause or error.message
        )
    except Exception:
        _log.exception("the result of %s was not kept", frame.title)


def _checkpoint(model: Any) -> str | None:
    try:
        told = getattr(model, "checkpoint", None)
        return None if told is None else str(told)
    except Exception:  # a property of the author's
        return None


def _parameters(frame: Frame) -> dict[str, Any]:
    """Return the arguments after the first by name; what is not a plain value in a few words, no secrets."""
    names = frame.spec.checker.names if frame.spec is not None else ()
    parts = frame.parts  # while it computes one of them, its arguments are that one's
    args, kwargs = (frame.args, frame.kwargs) if parts is None or parts.given is None else parts.given
    given = {**dict(zip(names[1:], args[1:], strict=False)), **kwargs}
    plain = (str, int, float, bool, type(None))
    told = redacted(given)
    kept = {name for name, value in given.items() if type(value) in plain and told[name] != "'***'"}
    return {name: value if name in kept else told[name] for name, value in given.items()}


def _given(frame: Frame, took: float) -> int:
    """Return what stands for the arguments of a call that took so long; 0 where that cannot be told.

    Only what is the same wherever it is equal counts, and only as much of it as is read in a hundredth of
    that time: a clip's content is, once.
    """
    spec = frame.spec
    if spec is None or not spec.replay or frame.what:
        return 0
    given = (*frame.args, *(part for pair in sorted(frame.kwargs.items()) for part in pair))
    most = took * _BYTES_A_SECOND
    for value in given:
        most -= _bytes_of(value)
    return hash((frame.record.config_version, *map(type, given), *given)) if most >= 0 else 0


def _bytes_of(value: Any) -> float:
    """Return how much has to be read of a value to know it again; infinite where none of it would tell."""
    kind = type(value)
    if kind in (str, bytes):
        return float(len(value))
    if kind.__name__ == "Clip" and kind.__module__.startswith("grym_nb."):
        return float(value.samples.nbytes)
    return 64.0 if kind in (int, float, bool, type(None)) else inf


# -- step 11 of a call --------------------------------------------------------------------------------


def conclude(frame: Frame, raised: BaseException | None) -> BaseException | None:
    """Step 11 of a call that ended: the error as the caller should see it."""
    if raised is None:
        observe(frame, None, None)
        return None
    error = raised
    if isinstance(raised, KeyboardInterrupt) and not isinstance(raised, Interrupted):
        error = Interrupted(f"{frame.title} interrupted{frame.came_to}; the service is still ready")
    elif not isinstance(raised, GrymError) and isinstance(raised, _AUTHORS):
        error = typed(frame, raised)
    if frame.call is None:
        observe(frame, None, error)
    return error


def observe(frame: Frame, value: Any, error: BaseException | None, *, outcome: str = "ok") -> None:
    """Step 11: every call is seen once, however it ended."""
    record = frame.record
    ports = record.ports
    now = ports.clock()
    took = now - frame.started
    text, waited_out = "", False
    if frame.fell_back and error is None:
        outcome = "fallback"
    if error is not None:
        outcome = error.code if isinstance(error, GrymError) else "interrupted"
        text = str(error)
        waited_out = isinstance(error, CallTimeout) and bool(error.details.get("waiting"))
        if waited_out:
            record.metrics.counter("service.call.waited_out", service=record.name).add()
    task = frame.spec.method if frame.spec is not None else frame.what
    meter = record.meters.get((task, outcome)) or _meter(record, task, outcome)
    if frame.waited or error is not None:
        for what, waited in frame.waited_by(now).items():
            took -= waited
            if waited:
                _waited(record, task, what, waited)
    instance = frame.instance
    if instance is not None and instance.retired and not waited_out:  # first, since it is a part of all
        record.strays.setdefault((task, outcome), Histogram()).record(max(took, 0.0))
    meter.record(took if took > 0.0 else 0.0)
    if frame.parent is not None and frame.parent.record is not record:
        _called_by(record, frame.parent.record.name)
    if now - record.last_used > SPELL_SECONDS:
        record.footprint.heat.spell(now)
    record.last_used = now
    version = version_of(frame)
    if (record.newest > 1 or record.config_version > 1) and not frame.what:
        _of_version(record, version, outcome, took)
    given = _given(frame, took) if took >= _LONG and outcome == "ok" else 0
    ports.calls.append((frame.id, now, record.name, task, version, outcome, took, text, given))
    if ports.events.wants_calls:
        config, call = record.config_version, f"call-{frame.id}"
        ports.events.publish(CallEnded(now, record.name, task, version, call, outcome, took, config))
    if error is None:
        if frame.stores:
            keep(frame, value)
        if outcome == "ok" and not frame.what and now >= record.tape.due.get(task, 0.0):
            record.tape.note(frame, took, now)


def _meter(record: ServiceRecord, task: str, outcome: str) -> Histogram:
    """Return the histogram of durations of a task's calls that ended so, without their waits."""
    meter = record.metrics.histogram("service.call.seconds", service=record.name, task=task, outcome=outcome)
    return record.meters.setdefault((task, outcome), meter)


def _of_version(record: ServiceRecord, version: str, outcome: str, took: float) -> None:
    """Count a call for the versions of code and config that answered it: of a service that has had others."""
    config = record.config_version
    meter = record.by_version.get((version, config, outcome))
    if meter is None:
        _forget_others(record, version)
        tags = {"service": record.name, "version": version, "config": str(config), "outcome": outcome}
        meter = record.metrics.histogram("service.version.seconds", **tags)
        meter = record.by_version.setdefault((version, config, outcome), meter)
    meter.record(max(took, 0.0))


def _forget_others(record: ServiceRecord, version: str) -> None:
    """Drop the figures of versions that are gone, as another gets its first: else each edit adds some."""
    instance, oldest = record.instance, record.config_version - record.ports.settings.versions_kept
    there = {version, *(spec.label or f"v{number}" for number, spec in record.specs.items())}
    if instance is not None:
        there |= {one.version for one in tuple(instance.versions)}
    meters = record.by_version.copy()
    for of, config in {key[:2] for key in meters}:
        if of not in there or config <= oldest:
            record.by_version = meters = {key: one for key, one in meters.items() if key[:2] != (of, config)}
            record.metrics.drop(service=record.name, version=of, config=str(config))


def _waited(record: ServiceRecord, task: str, what: Waits, seconds: float) -> None:
    """Count for how long a call of a task has waited for a slot, its device, a load or a worker."""
    meter = record.waits.get((task, what))
    if meter is None:
        meter = record.metrics.histogram("service.wait.seconds", service=record.name, task=task, what=what)
        meter = record.waits.setdefault((task, what), meter)
    meter.record(seconds)


def _called_by(record: ServiceRecord, source: str) -> None:
    """Count a call that came from inside another service."""
    flow = record.flows.get(source)
    if flow is None:
        flow = record.metrics.counter("service.flow.calls", service=record.name, source=source)
        record.flows[source] = flow
    flow.add()
