"""The reload of a service: read what is new, build it beside the old, try it, and put it in force; or not.

Whatever goes wrong before the new code serves leaves the old one serving, and is raised as a `ReloadFailed`.
What goes wrong in its first calls is answered by the version before, which then serves again.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

from grym_nb.errors import GrymError, Interrupted, ReloadFailed, StateError
from grym_nb.events import ServiceChanged
from grym_nb.services.failure import place_of
from grym_nb.services.frame import current_frame
from grym_nb.services.reload.asked import refuse_removed
from grym_nb.services.reload.back import split_calls
from grym_nb.services.reload.bound import bound_elsewhere
from grym_nb.services.reload.build import Built, build
from grym_nb.services.reload.elsewhere import changed_classes, models_of, outside
from grym_nb.services.reload.heavy import heavy
from grym_nb.services.reload.history import begun, begun_with, note, refusal, refusing, step, told
from grym_nb.services.reload.names import classes_of
from grym_nb.services.reload.newer import newer_in, newer_in_cell_of, renewed_spec
from grym_nb.services.reload.plan import Code
from grym_nb.services.reload.report import By, Reload
from grym_nb.services.reload.sources import Codebase, module_of, modules_of
from grym_nb.services.reload.split import check_share
from grym_nb.services.reload.swap import Edit, in_words, put_in_force
from grym_nb.services.retire import Retirement, retire

if TYPE_CHECKING:
    from grym_nb.services.record import ServiceRecord
    from grym_nb.services.registry import ServiceRegistry
    from grym_nb.services.spec import ServiceSpec

__all__ = ["redefine", "reload"]

_log = logging.getLogger(__name__)


# -- a service that is registered anew, as by a cell that is run again ----------------------------------


def redefine(record: ServiceRecord, spec: ServiceSpec) -> bool:
    """Put other code in force for the model that is there; False where none is, or it is to be loaded."""
    edit = Edit(record, lambda _: spec, newer_in_cell_of(spec))
    report = edit.report
    with refusing(record, report):
        refuse_removed(record._family, [edit])
    while True:
        if edit.instance is None or edit.asks:
            return False
        with step(report, "try"), refusing(record, report):
            _try_out(edit, record, report)
        with step(report, "swap"), refusing(record, report):
            late = _put([edit], _nothing)
        if not late:
            was, now = edit.base.reached, spec.reached
            if was is not None and now is not None and was.differs(now, made_anew=True):
                report.notes += ("earlier versions, and calls under way, see what the notebook names by now",)
            _done(edit)
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
    codebase, report, had_failed = registry.codebase, begun(record), _has_failed(record)
    report.by = by
    with codebase.turn():
        if record.lifecycle.state == "closed":
            raise record.closed()
        codes, why = _read(codebase, record, report)
        if not codes and share is not None:
            return split_calls(record, report, share)
        if not codes:
            return _unchanged(record, report, why)
        built = _built(codebase, record, report, codes)
        with refusing(record, report):
            edits = _edits(registry, record, report, built, codes)
            refuse_removed(registry, edits)
            for edit in edits:
                edit.answer(1.0 if share is None else share)
        with ExitStack() as ends:
            for edit in edits:
                ends.callback(edit.discard)  # all of them, whatever comes of one
            _prepare(record, report, edits, built, force=force)
            _swap(record, report, edits, built, force=force)
        codebase.catch_up(*modules_of(record.spec))
        for edit in edits:
            if not edit.is_void:
                edit.report.notes += tuple(_rebound(codebase, edit, built))
                _tell_changed(edit.record)
                _done(edit)
    _load_anew([edit for edit in edits if edit.asks and edit.beside is None])
    if had_failed and report.how == "at load":
        with step(report, "load"):
            record.load()
        report.how, report.why = "loaded", "it had failed"
    if all(edit.record is not record for edit in edits):
        local = "<" in getattr(record.spec.made_class, "__qualname__", "")
        why = "its class is made inside a function: call that again, and register what it makes"
        return _unchanged(record, report, why if local else "nothing that it uses has changed")
    return report


def _read(codebase: Codebase, record: ServiceRecord, report: Reload) -> tuple[Mapping[str, Code], str]:
    """Return what is new on disk, by module; where nothing is, why."""
    modules = modules_of(record.spec)
    codebase.follow(*modules)
    if anew := codebase.built_anew():
        report.notes += (f"{', '.join(anew)}: an extension that was built anew takes another kernel",)
    from_cell = "its class is from a cell: edit that, and run it again"
    if not any(codebase.follows(module) for module in modules):
        own = module_of(record.spec.callable)
        return {}, from_cell if own == "__main__" else f"{own} is not followed, as what is installed"
    with step(report, "read"), refusing(record, report):
        found = codebase.edited(*modules)
    cell = "" if record.spec.reached is None else f" of what it imports; {from_cell}"
    return found, f"nothing{cell or ' of it'} has changed on disk"


def _built(codebase: Codebase, record: ServiceRecord, report: Reload, codes: Mapping[str, Code]) -> Built:
    """Build what is new beside what is there."""
    if lost := codebase.uncertain(codes):
        report.notes += (f"{', '.join(lost)}: edited before it was registered, so all of it ran again",)
    with step(report, "build"), refusing(record, report):
        built = build(codebase.versions, codes)
    report.ran = tuple(f"{ran.module}:{ran.line}" for ran in built.ran)
    report.carried = built.carried
    return built


def _edits(
    registry: ServiceRegistry,
    record: ServiceRecord,
    report: Reload,
    built: Built,
    codes: Mapping[str, Code],
) -> list[Edit]:
    """Return what takes the place of each service's code, in all services that a new version is of."""
    codebase = registry.codebase
    texts = {name: (code.path, (codebase.text_of(name), code.text)) for name, code in codes.items()}
    before, newer = codebase.versions.newest, partial(newer_in, built.version.modules)
    there = [before.modules[name] for name in built.fresh if name in before.modules]
    elsewhere = partial(outside, changed_classes(there, newer), partial(models_of, weakref.ref(registry)))
    large, edits = heavy(before, built), []
    with codebase.versions.within(built.version):
        for handle in registry.handles():
            asked = partial(renewed_spec, newer=newer, built=built)
            edit = Edit(handle._record, asked, newer, large, built.version)
            if edit.is_void:
                continue
            edit.spec.check("reloaded")
            registry.refuse_tasks(edit.record.name, edit.spec.tasks or {})
            edit.report = its = report if edit.record is record else begun_with(report, edit.record)
            its.outside = elsewhere
            family = codebase.family(*modules_of(edit.spec))
            its.sources = dict(texts[name] for name in texts if name in family)
            edits.append(edit)
    stays = "" if any(edit.asks for edit in edits) else ": what `load` makes stays"
    report.notes += tuple(f"{one.line}{stays}" for one in large)
    return edits


def _prepare(
    record: ServiceRecord, report: Reload, edits: Sequence[Edit], built: Built, *, force: bool
) -> None:
    """Load what has to be loaded anew, beside the old, and try all that is there; nothing is in force yet."""
    versions = record._family.codebase.versions
    try:
        for edit in edits:
            if edit.asks:
                with step(edit.report, "load"), refusing(record, report), versions.within(built.version):
                    edit.load()
        for edit in edits:
            if not force and edit.instance is not None and (not edit.asks or edit.beside is not None):
                with step(report, "try"), refusing(record, report):
                    _try_out(edit, record, report)
    except KeyboardInterrupt:
        raise _interrupted(edits) from None


def _swap(record: ServiceRecord, report: Reload, edits: list[Edit], built: Built, *, force: bool) -> None:
    """Put all of it in force; what somebody came before is looked at again, until nobody does."""

    versions = record._family.codebase.versions

    def publish() -> None:
        if versions.newest is not built.version:  # else some of it serves already
            for one in built.classes:
                one.give()  # calls may have set something since it was built
        versions.publish(built.version, built.rebound)

    with step(report, "swap"), refusing(record, report):
        late = edits
        while late := _put(late, publish, on_probation=not force):
            for edit in late:
                edit.look()
            late = [edit for edit in late if not edit.is_void]


def _put(edits: Sequence[Edit], publish: Callable[[], None], *, on_probation: bool = True) -> list[Edit]:
    """Put edits in force; returns those before which somebody came. Ctrl-C says which code there is."""
    try:
        return put_in_force(edits, publish, on_probation=on_probation)
    except KeyboardInterrupt:
        raise _interrupted(edits) from None


def _interrupted(edits: Sequence[Edit]) -> Interrupted:
    has = [f"{one.record.name} has the {'new' if one.is_placed else 'old'} code" for one in edits]
    return Interrupted(f"the reload was interrupted: {', '.join(has)}")


def _refuse_from_trial(record: ServiceRecord) -> None:
    """Raise where new code is tried: the reload in which it is waits for it."""
    frame = current_frame()
    if frame is not None and any(one.what in ("smoke", "ping") for one in frame.chain()):
        raise StateError(
            f"{record.name} cannot be reloaded by code that is being tried",
            hint="a task that reloads others is @task(replay=False)",
            service=record.name,
        )


def _load_anew(edits: Sequence[Edit]) -> None:
    """Load with the new code what cannot go on with the weights that are there; all, whatever comes of one.

    After Ctrl-C it comes with their next calls: the new code is in force for them already.
    """
    failed: ReloadFailed | Interrupted | None = None
    for edit in edits:
        try:
            if isinstance(failed, Interrupted):
                with suppress(GrymError):
                    retire(edit.record, Retirement(edit.asks, 0.0))
            else:
                _loaded_anew(edit)
        except ReloadFailed as error:
            failed = failed or error
        except Interrupted as error:
            failed = error
    if failed is not None:
        raise failed


def _loaded_anew(edit: Edit) -> None:
    """Load one with the new code; where that fails, it has the old."""
    record, base, report = edit.record, edit.base, edit.report
    number = record.code_version
    report.notes += (f"the old model went first: {edit.no_room}",) if edit.no_room else ()
    try:
        with step(report, "load"):
            retire(record, Retirement(edit.asks))
            record.load()
        report.how = "loaded"
        note(record, report)
    except (GrymError, Interrupted) as failed:
        with record.lock:
            if record.spec is edit.spec:
                with classes_of(record.specs, _number_of(record, base, number)) as classes:
                    record.adopt(base, number=_number_of(record, base, number))
                report.notes += in_words(classes)
        report.how, report.after, report.why = "refused", record.version, told(failed)
        if isinstance(failed, Interrupted):
            raise
        raise refusal(
            record, report, failed, "has its old code; the weights, let go of, come with the next call"
        ) from None


def _number_of(record: ServiceRecord, spec: ServiceSpec, default: int) -> int:
    return next((number for number, one in record.specs.items() if one is spec), default)


# -- step by step ----------------------------------------------------------------------------------


def _try_out(edit: Edit, asked: ServiceRecord, told: Reload) -> None:
    """Try new code before it serves; raises where its ping, or a call that went well before, fails on it.

    `told` is the report of the service for which the reload was `asked`.
    """
    record, report = edit.record, edit.report
    if edit.untried:
        report.notes = (*report.notes, f"not tried on its last calls: {edit.untried}")
        return
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
    whose = "" if record is asked else f"{record.name}'s "
    what = f"{whose or 'its '}ping" if failure.task == "ping" else f"{whose}{failure.task}, called as before,"
    told.how, told.why = "refused", f"{what} raised {failure.error}: {failure.message}{place_of(error)}"
    refused = refusal(asked, told, error, "goes on with the code it had")
    refused.failure = failure
    raise refused from None


def _done(edit: Edit) -> None:
    """Note that new code is in force."""
    record, instance, report = edit.record, edit.instance, edit.report
    report.why = edit.asks
    report.under_way = edit.under_way
    report.notes = (*report.notes, *edit.stays, *edit.told(), *_bound(edit))
    if instance is not None and not edit.asks:
        modules = (*sorted(record._family.codebase.names()), "__main__")
        report.notes += tuple(bound_elsewhere(instance, modules))
    if instance is not None and not edit.asks and instance.reservation is not None:
        report.bytes_kept = sum(instance.reservation.sizes.values())
    if report.how != "at load" or instance is None:  # else it is yet to be loaded
        note(record, report, edit.number)


def _bound(edit: Edit) -> Iterator[str]:
    """Say which names of the notebook stand for something else by now, and what of it is as it was."""
    if names := sorted({name.name for name in edit.names}):
        yield f"bound anew in the notebook: {', '.join(names)}"
    if classes := sorted({name.name for name in edit.names if not name.is_function}):
        yield f"earlier versions, and calls under way, see {', '.join(classes)} as it is by now"
    if edit.outdated:
        yield f"{', '.join(edit.outdated)}: has its base as it was, until its cell is run again"


def _rebound(codebase: Codebase, edit: Edit, built: Built) -> Iterator[str]:
    """Say what calls that began before bind in the old module, where nobody sees it any more."""
    family = codebase.family(*modules_of(edit.spec)) if edit.under_way else ()
    for module in family:
        if names := sorted(built.rebound.get(module, ())):
            yield f"{module}: what calls under way bind to {', '.join(names)} stays in the old module"


def _tell_changed(record: ServiceRecord) -> None:
    event = ServiceChanged(record.ports.clock(), record.name, record.version, ("code",))
    record.ports.events.publish(event)


def _unchanged(record: ServiceRecord, report: Reload, why: str) -> Reload:
    """End a reload that found nothing new; a service that has failed is loaded all the same."""
    report.how, report.why = "unchanged", why
    if _has_failed(record):
        with step(report, "load"):
            record.load()
        report.how, report.why = "loaded", "it had failed"
        note(record, report)
    return report


def _has_failed(record: ServiceRecord) -> bool:
    return record.lifecycle.state == "failed" or bool(record.given_up)


def _nothing() -> None:
    """There is nothing to publish."""
