"""The reload of a service: read what is new, build it beside the old, try it, and put it in force; or not.

Whatever goes wrong before the new code serves leaves the old one serving, and is raised as a `ReloadFailed`.
What goes wrong in its first calls is answered by the version before, which then serves again.
"""

from __future__ import annotations

import logging
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from grym_nb.errors import GrymError, Interrupted, ReloadFailed, StateError, ValidationError
from grym_nb.events import ServiceChanged, ServiceReloaded
from grym_nb.services.failure import describe, place_of, words_of
from grym_nb.services.frame import current_frame
from grym_nb.services.outcome import typed, unpinned
from grym_nb.services.reload.asked import refuse_removed
from grym_nb.services.reload.build import Built, build
from grym_nb.services.reload.elsewhere import changed_classes, models_of, outside
from grym_nb.services.reload.heavy import Heavy, heavy
from grym_nb.services.reload.probation import answered_before
from grym_nb.services.reload.report import By, Reload, noted
from grym_nb.services.reload.sources import module_of
from grym_nb.services.reload.split import check_share, split
from grym_nb.services.reload.swap import Edit, Newer, put_in_force, take_back
from grym_nb.services.retire import Retirement, retire
from grym_nb.services.tiers import parked_in

if TYPE_CHECKING:
    from grym_nb.services.frame import Frame
    from grym_nb.services.instance import Serving
    from grym_nb.services.record import ServiceRecord
    from grym_nb.services.registry import ServiceRegistry
    from grym_nb.services.spec import ServiceSpec

__all__ = ["answer_before", "redefine", "reload", "rollback"]

_log = logging.getLogger(__name__)


# -- a service that is registered anew, as by a cell that is run again ----------------------------------


def redefine(record: ServiceRecord, spec: ServiceSpec) -> bool:
    """Put other code in force for the model that is there; False where none is, or it is to be loaded."""
    report = _report(record)
    edit = Edit(record, lambda _: spec, partial(_newer, sys.modules))
    edit.report = report
    while True:
        if edit.instance is None or edit.asks:
            return False
        with _step(report, "try"), _refusing(record, report):
            _try_out(edit, report)
        with _step(report, "swap"), _refusing(record, report):
            late = _put([edit], _nothing)
        if not late:
            _done(edit, report)
            return True
        edit.look()


# -- a service whose file was edited --------------------------------------------------------------------


def reload(
    registry: ServiceRegistry,
    record: ServiceRecord,
    *,
    force: bool = False,
    share: float | None = None,
    by: By = "asked",
) -> Reload:
    """Put in force what is on disk by now of a service's module, and of all of the user's that it imports.

    With `force` also where its ping or its last calls fail on it, and without probation. With a `share` for
    so many of the calls; where nothing is new, so many are from now on answered by what was new last.
    """
    if share is not None:
        check_share(share)
    record.refuse_from_within("reload", waits=False)
    _refuse_from_trial(record)
    codebase, report = registry.codebase, _report(record)
    had_failed = _has_failed(record)
    report.by = by
    with codebase.turn():
        if record.lifecycle.state == "closed":
            raise record.closed()
        module = module_of(record.spec.callable)
        codebase.follow(module)
        if not codebase.follows(module):
            if share is not None:
                return _split(record, report, share)
            why = f"{module} is not followed: a cell is run again, what is installed is not edited"
            return _unchanged(record, report, why)
        with _step(report, "read"), _refusing(record, report):
            codes = codebase.edited(module)
        if not codes and share is not None:
            return _split(record, report, share)
        if not codes:
            return _unchanged(record, report, "nothing of it has changed on disk")
        lost, before = codebase.uncertain(codes), {name: codebase.text_of(name) for name in codes}
        with _step(report, "build"), _refusing(record, report):
            built = build(codebase.versions, codes)
            large = heavy(codebase.versions.newest, built)
        report.ran = tuple(f"{ran.module}:{ran.line}" for ran in built.ran)
        report.carried = built.carried
        if lost:
            report.notes += (f"{', '.join(lost)}: edited before it was registered, so all of it ran again",)
        with _refusing(record, report):
            edits = _edits(registry, built, large)
            refuse_removed(registry, edits)
            for edit in edits:
                edit.answer(1.0 if share is None else share)
        stays = "" if any(edit.asks for edit in edits) else ": what `load` makes stays"
        report.notes += tuple(f"{one.line}{stays}" for one in large)
        reports = {
            edit.record.name: report if edit.record is record else _beside(report, edit) for edit in edits
        }
        before_it = codebase.versions.newest.modules
        changed = changed_classes(
            [before_it[name] for name in built.fresh if name in before_it],
            partial(_newer, built.version.modules),
        )
        elsewhere = partial(outside, changed, partial(models_of, weakref.ref(registry)))
        for edit in edits:
            edit.report = reports[edit.record.name]
            family = codebase.family(module_of(edit.spec.callable))
            reports[edit.record.name].sources = {
                code.path: (before[name], code.text) for name, code in codes.items() if name in family
            }
        publish = partial(codebase.versions.publish, built.version, built.rebound)
        try:
            _prepare(record, edits, built, report, reports, force=force)
            with _step(report, "swap"), _refusing(record, report):
                late = edits
                while late := _put(late, publish, on_probation=not force):
                    for edit in late:
                        edit.look()
                    late = [edit for edit in late if not edit.is_void]
        finally:
            for edit in edits:
                edit.discard()
        for edit in edits:
            if not edit.is_void:
                reports[edit.record.name].outside = elsewhere
                event = ServiceChanged(
                    edit.record.ports.clock(), edit.record.name, edit.record.version, ("code",)
                )
                edit.record.ports.events.publish(event)
                _done(edit, reports[edit.record.name])
    for edit in edits:
        if edit.asks and edit.beside is None:
            _load_anew(edit, reports[edit.record.name])
    if had_failed and report.how == "at load":
        with _step(report, "load"):
            record.load()
        report.how, report.why = "loaded", "it had failed"
    if record.name not in reports:
        local = "<" in getattr(record.spec.made_class, "__qualname__", "")
        why = "its class is made inside a function: call that again, and register what it makes"
        return _unchanged(record, report, why if local else "nothing that it uses has changed")
    return report


def _edits(registry: ServiceRegistry, built: Built, large: Sequence[Heavy]) -> list[Edit]:
    """Return what takes the place of each service's code, in all services that a new version is of."""
    newer = partial(_newer, built.version.modules)
    found = []
    with registry.codebase.versions.within(built.version):
        for handle in registry.handles():
            edit = Edit(handle._record, partial(_renewed, newer=newer, built=built), newer, large)
            if edit.is_void:
                continue
            edit.spec.check("reloaded")
            registry.refuse_tasks(edit.record.name, edit.spec.tasks or {})
            found.append(edit)
    return found


def _prepare(
    record: ServiceRecord,
    edits: Sequence[Edit],
    built: Built,
    report: Reload,
    reports: Mapping[str, Reload],
    *,
    force: bool,
) -> None:
    """Load what has to be loaded anew, beside the old, and try all that is there; nothing is in force yet."""
    versions = record._family.codebase.versions
    for edit in edits:
        if edit.asks:
            its = reports[edit.record.name]
            with _step(its, "load"), _refusing(record, report), versions.within(built.version):
                edit.load()
    if not force:
        with _step(report, "try"), _refusing(record, report):
            for edit in edits:
                if edit.instance is not None and (not edit.asks or edit.beside is not None):
                    _try_out(edit, reports[edit.record.name], report)


def _put(edits: Sequence[Edit], publish: Callable[[], None], *, on_probation: bool = True) -> list[Edit]:
    """Put edits in force; returns those before which somebody came. Ctrl-C says which code there is."""
    try:
        return put_in_force(edits, publish, on_probation=on_probation)
    except KeyboardInterrupt:
        told = ", ".join(
            f"{one.record.name} has the {'new' if one.is_placed else 'old'} code" for one in edits
        )
        raise Interrupted(f"the reload was interrupted: {told}") from None


def _refuse_from_trial(record: ServiceRecord) -> None:
    """Raise where new code is tried: the reload in which it is waits for it."""
    frame = current_frame()
    if frame is not None and any(one.what in ("smoke", "ping") for one in frame.chain()):
        raise StateError(
            f"{record.name} cannot be reloaded by code that is being tried",
            hint="a task that reloads others is @task(replay=False)",
            service=record.name,
        )


def _renewed(spec: ServiceSpec, newer: Newer, built: Built) -> ServiceSpec | None:
    """Return a registration with the code of a new version; None where that is the code it has."""
    if isinstance(spec.factory, str) and "callable" not in spec.__dict__:
        return None  # it was never imported, and will be of what is new by then
    before = spec.callable
    inner, around = before, []
    while isinstance(inner, partial):
        around.append(inner)
        inner = inner.func
    if module_of(inner) not in built.fresh or not isinstance(inner, (type, FunctionType)):
        return None
    now = newer(inner)
    if now is None:
        if "<" in inner.__qualname__:
            return None  # made inside a function: what it makes by now is known when that is called again
        if _found(built.version.modules, inner) is inner:
            return None
        raise StateError(
            f"{inner.__qualname__} is gone from {inner.__module__}",
            hint=f"register what takes its place: grym.register({spec.name!r}, ...)",
            service=spec.name,
        )
    for one in reversed(around):
        now = partial(now, *one.args, **one.keywords)
    renewed = replace(spec, factory=spec.factory if isinstance(spec.factory, str) else now)
    renewed.__dict__["callable"] = now
    return renewed


def _load_anew(edit: Edit, report: Reload) -> None:
    """Load with the new code what cannot go on with the weights that are there; where that fails, the old."""
    record, base = edit.record, edit.base
    number = record.code_version
    report.notes += (f"the old model went first: {edit.no_room}",) if edit.no_room else ()
    try:
        with _step(report, "load"):
            retire(record, Retirement(edit.asks))
            record.load()
        report.how = "loaded"
        _noted(record, report)
    except (GrymError, Interrupted) as failed:
        with record.lock:
            if record.spec is edit.spec:
                record.adopt(base, number=_number_of(record, base, number))
        report.how, report.after, report.why = "refused", record.version, failed.args[0]
        if isinstance(failed, Interrupted):
            raise
        raise _refusal(
            record, report, failed, "has its old code; the weights, let go of, come with the next call"
        ) from None


def _number_of(record: ServiceRecord, spec: ServiceSpec, default: int) -> int:
    return next((number for number, one in record.specs.items() if one is spec), default)


# -- by and by -------------------------------------------------------------------------------------


def _split(record: ServiceRecord, report: Reload, share: float) -> Reload:
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
    return _noted(record, report)


# -- back ------------------------------------------------------------------------------------------


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
            return _noted(record, report, back.number)
    number = _before(record)
    if number is None:
        raise StateError(
            f"{record.name} has no earlier version than {record.version}",
            hint="a version comes with each edit that is reloaded, or registered again",
            service=record.name,
        )
    spec = record.spec.with_code_of(record.specs[number])
    record.refuse_from_within("roll back")
    report, loaded = _report(record), record.instance is not None
    report.after, report.how = spec.label or f"v{number}", "at load"
    report.why = "taken back: its weights are others" if loaded else "taken back"
    report.numbers = record.code_version, number
    retire(record, Retirement("rollback", spec=spec, number=number, report=report))
    if loaded:
        with _step(report, "load"):
            record.load()
        report.how = "loaded"
    return _noted(record, report, number)


def _before(record: ServiceRecord) -> int | None:
    """Return the version that served before the one in force: not one that was taken back before that."""
    now, known = record.code_version, record.specs
    served = [one.numbers[0] for one in record.reloads if one.numbers[0] < now == one.numbers[1]]
    left = [number for number in served if number in known]
    return left[-1] if left else max([number for number in known if number < now], default=None)


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
        _noted(record, report, back.number)
        _log.warning(
            "%s: %s answered instead, and serves again; %%grym why shows it", report.line, back.version
        )
    unpinned(error)
    return True, value


def _taken_back(record: ServiceRecord, gone: Serving, back: Serving, why: str) -> Reload:
    report = _report(record)
    report.before, report.after, report.how, report.why = gone.version, back.version, "taken back", why
    report.numbers = gone.number, back.number
    return report


# -- step by step ----------------------------------------------------------------------------------


def _try_out(edit: Edit, report: Reload, of: Reload | None = None) -> None:
    """Try new code before it serves; raises where its ping, or a call that went well before, fails on it."""
    record = edit.record
    try:
        tried = edit.tried()
    except Exception:
        if edit.is_gone:
            return  # which is seen as it is put in force
        raise
    report.tried, report.notes = tried.tried, (*report.notes, *tried.skipped)
    if tried.error is None or tried.failure is None:
        return
    failure, error = tried.failure, tried.error
    tried.error = None
    record.last_error = failure
    record.ports.failures.keep(failure, error.__traceback__)
    what = f"its {failure.task}" if failure.task == "ping" else f"{failure.task}, called as before,"
    told = of or report
    told.how, told.why = "refused", f"{what} raised {failure.error}: {failure.message}{place_of(error)}"
    refusal = _refusal(record, told, error, "goes on with the code it had")
    refusal.failure = failure
    raise refusal from None


@contextmanager
def _refusing(record: ServiceRecord, report: Reload) -> Iterator[None]:
    """Turn what the author's new code raises as it is read or built into the end of the reload."""
    try:
        yield
        return
    except ReloadFailed:
        raise
    except (Exception, SystemExit) as error:
        report.how, report.why = "refused", _told(error)
        refusal = _refusal(record, report, error, "goes on with the code it had")
        refusal.failure = refusal.failure or describe(
            error, service=record.name, task="reload", version=record.version
        )
    raise unpinned(refusal) from None


def _told(error: BaseException) -> str:
    """Say in a line what is wrong with new code, and where."""
    if isinstance(error, ValidationError) and error.problems:
        return "; ".join(map(str, error.problems))
    told = error.message if isinstance(error, GrymError) else f"{type(error).__name__}: {words_of(error)}"
    return f"{told}{place_of(error)}"


def _refusal(record: ServiceRecord, report: Reload, error: BaseException, goes_on: str) -> ReloadFailed:
    """Return the error of a reload that did not come to new code, which the history has as well."""
    _noted(record, report)
    told = ReloadFailed(
        f"{record.name} was not reloaded: {report.why}",
        cause=f"it {goes_on} ({record.version})",
        hint=error.hint
        if isinstance(error, GrymError) and not isinstance(error, ValidationError)
        else f"mend it and reload; grym.get({record.name!r}).reload(force=True) takes it as it is"
        if report.how == "refused" and report.seconds.get("try") is not None
        else "mend it and reload",
        service=record.name,
    )
    told.report = report
    told.failure = getattr(error, "failure", None)
    return told


def _done(edit: Edit, report: Reload) -> None:
    """Note that new code is in force."""
    record, instance = edit.record, edit.instance
    report.why = edit.asks
    report.under_way = edit.under_way
    report.notes = (*report.notes, *edit.stays, *edit.told())
    if instance is not None and not edit.asks and instance.reservation is not None:
        report.bytes_kept = sum(instance.reservation.sizes.values())
    if report.how != "at load" or instance is None:  # else it is yet to be loaded
        _noted(record, report, edit.number)


def _unchanged(record: ServiceRecord, report: Reload, why: str) -> Reload:
    """End a reload that found nothing new; a service that has failed is loaded all the same."""
    report.how, report.why = "unchanged", why
    if _has_failed(record):
        with _step(report, "load"):
            record.load()
        report.how, report.why = "loaded", "it had failed"
        _noted(record, report)
    return report


def _has_failed(record: ServiceRecord) -> bool:
    return record.lifecycle.state == "failed" or bool(record.given_up)


def _report(record: ServiceRecord) -> Reload:
    report = Reload(record.name, record.ports.clock(), record.version, record.version, "unchanged")
    report.numbers = (record.code_version, record.code_version)
    return report


def _beside(report: Reload, edit: Edit) -> Reload:
    """Return the report of a service that is reloaded with another one."""
    own = _report(edit.record)
    own.ran, own.carried, own.notes = report.ran, report.carried, (f"with {report.service}",)
    own.by = report.by
    return own


def _noted(record: ServiceRecord, report: Reload, number: int | None = None) -> Reload:
    report.numbers = (report.numbers[0], number or record.code_version)
    with record.lock:
        record.reloads = noted(record.reloads, report)
    record.metrics.counter("service.reloads", service=record.name, how=report.how).add()
    now = record.ports.clock()
    event = ServiceReloaded(now, record.name, report.after, report.how, report.why, report.by, report.line)
    record.ports.events.publish(event)
    return report


@contextmanager
def _step(report: Reload, name: str) -> Iterator[None]:
    began = time.perf_counter()
    before = report.seconds.setdefault(name, 0.0)  # there already for what is said if it fails
    try:
        yield
    finally:
        report.seconds[name] = before + time.perf_counter() - began


def _nothing() -> None:
    """There is nothing to publish."""


# -- what is newer ---------------------------------------------------------------------------------


def _newer(modules: Mapping[str, ModuleType], thing: Any) -> Any:
    """Return what a module calls by now as it called a class or function; None where that is this one."""
    found = _found(modules, thing)
    return found if found is not thing and isinstance(found, (type, FunctionType)) else None


def _found(modules: Mapping[str, ModuleType], thing: Any) -> Any:
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    at: Any = modules.get(module) if isinstance(module, str) else None
    if at is None or not isinstance(name, str) or "<" in name:
        return None
    for part in name.split("."):
        at = getattr(at, part, None)
    return at
