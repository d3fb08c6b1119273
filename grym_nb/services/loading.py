"""How a service is loaded: what it needs first, then one construction at a time; and how a load ends."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from grym_nb.devices import process_memory
from grym_nb.errors import (
    CallBlocked,
    ConfigError,
    GrymError,
    Interrupted,
    LoadFailed,
    ResourceExhausted,
    ServiceClosed,
    ServiceNotReady,
)
from grym_nb.hardening.storages import storages_of
from grym_nb.services.expectation import refuse_with_needs
from grym_nb.services.frame import CURRENT, Frame
from grym_nb.services.instance import Attempt, Instance, Serving
from grym_nb.services.lifecycle import Move
from grym_nb.services.memory import OPAQUE, measure, reserved
from grym_nb.services.mending import prove
from grym_nb.services.model import ModelService, Needs, needs_of, tasks_of
from grym_nb.services.outcome import load_failed
from grym_nb.services.reads import reads_of
from grym_nb.services.reload.sources import modules_of
from grym_nb.services.retire import clean_up, release_parked
from grym_nb.services.shortage import exhausted, ran_out, relieve
from grym_nb.services.tiers import parked_in, take, wake
from grym_nb.services.turns import locate

if TYPE_CHECKING:
    from grym_nb.hardening.reservations import Reservation
    from grym_nb.services.record import ServiceRecord

__all__ = ["end_load", "load"]

_log = logging.getLogger(__name__)


def load(record: ServiceRecord, attempt: Attempt, cause: Frame) -> None:
    """Load, with what is needed loaded first and held as long as it lasts."""
    frame = attempt.frame
    move: Move = "load_stopped"
    reason, admitted = "interrupted", False
    held: list[tuple[ServiceRecord, Frame]] = []
    began = record.ports.clock()

    def wind_up() -> None:
        assert record._gate is not None
        record._gate.release(frame)
        if attempt.instance is not None:  # Ctrl-C may have come before they were handed over
            record.ports.weights.hand_over(frame, attempt.instance)
        record.ports.weights.release(frame)  # what a load that failed has taken
        frame.end()
        for need, holder in reversed(held):
            need.let_go(holder)
        end_load(record, attempt, move, reason, began, cause)

    try:
        try:
            _import(record)
            needs = record._family.before(record)
            refuse_with_needs(record, needs)
            for need in needs:
                holder = need.frame("hold")
                holder.parent, holder.deadline = frame, None
                held.append((need, holder))
                if _hold(record, need, holder):
                    frame.holds = (*frame.holds, need)
            with (record.admit or record.ports.admit or reserved)(record, frame) as reservation:
                admitted = True
                made = _made(record, frame, reservation)
                if reservation is not None:
                    _measured(record, made, reservation)
                attempt.instance = made  # from here on it is there, wherever Ctrl-C comes
                record.ports.weights.hand_over(frame, made)
                record.footprint.shares = record.ports.weights.keys_of(record.name)
            move, reason = "loaded", ""
        except GrymError as error:
            if attempt.unwanted:
                reason = "nobody waited for it any more"
                raise
            attempt.error = error
            refused = _is_refusal(error, admitted)
            move, reason = "load_stopped" if refused else "load_failed", error.message
            if record.breaker is not None and (admitted or not refused):
                record.breaker.told(cause, record.ports.clock() - began, error)
            raise
        finally:
            wind_up()
    except KeyboardInterrupt:
        raise Interrupted(f"loading {record.name} was interrupted; the next call loads it anew") from None
    finally:
        wind_up()  # had Ctrl-C cut the first short


def _is_refusal(error: GrymError, admitted: bool) -> bool:
    """Tell whether there was no room for a service, which is no fault of its own."""
    if isinstance(error, CallBlocked):
        return not admitted
    return isinstance(error, ResourceExhausted) and not (admitted and error.can_change)


def end_load(
    record: ServiceRecord,
    attempt: Attempt,
    move: Move,
    reason: str,
    began: float = 0.0,
    cause: Frame | None = None,
) -> None:
    """Make the end of a load known to all who wait for it; does nothing twice.

    The call for which it was loaded is in at once: nothing can come in between and let go of it again.
    """
    step, woken, instance = None, False, attempt.instance
    with record.lock:
        if attempt.over:
            return
        closed = record.lifecycle.state == "closed"
        if instance is not None and not closed:
            instance.epoch = record.lane.epoch
            record.instance = instance
            record._tasks = instance.tasks
            record.last_used = record.ports.clock()
            record.footprint.heat.spell(record.last_used)
            woken = instance.loaded_at < began
            if woken:
                record.footprint.wake_seconds = instance.took
            else:
                record.load_seconds = instance.took
            move, reason = "loaded", ""  # it is there, wherever Ctrl-C came in between
            if cause is not None and not cause.inside:  # Ctrl-C may have come after that
                record.count_in(cause)
        if record.lifecycle.state == "loading":
            step = record.move(move, reason)
            record.loads += move == "loaded" and not woken
        record.condition.notify_all()
        record._attempt = None
        attempt.over = True
    record.tell(step)
    record.ports.resources.ledger.wake()
    if closed and instance is not None:
        clean_up(record.name, instance.model)  # the registry did not wait for this load
        record.ports.weights.release(instance)
        if instance.reservation is not None:
            instance.reservation.release()


def _measured(record: ServiceRecord, made: Instance, reservation: Reservation) -> None:
    """Put a new instance into the books; one for which that fails, or is too large, is not left behind."""
    try:
        measure(record, made, reservation)
    except Exception:
        clean_up(record.name, made.model)
        made.let_go()  # the error's frames have what was made of it
        raise


def _import(record: ServiceRecord) -> None:
    """Import a factory that is a string: what its class needs is known from here on."""
    if not isinstance(record.spec.factory, str):
        return
    try:
        record.spec.check()
        record._family.codebase.follow(*modules_of(record.spec))
        record._family.refuse_tasks(record.name, record.spec.tasks or {})
    except ConfigError as error:
        raise _unfit(record, error) from None


def _hold(record: ServiceRecord, need: ServiceRecord, holder: Frame) -> bool:
    """Load and count in a need; False for an optional one that cannot be had."""
    try:
        need.enter(holder)
        return True
    except (LoadFailed, ResourceExhausted, ServiceClosed, ServiceNotReady) as error:
        if record._family.optional(record, need):
            _log.warning("%s goes on without %s: %s", record.name, need.name, error.message)
            return False
        failed = LoadFailed(
            f"{record.name} could not be loaded: its need {need.name} failed",
            cause=error.message if isinstance(error, ResourceExhausted) else error.cause or error.message,
            hint=f"mend {need.name} first; %grym why shows where it failed",
            service=record.name,
            path=(record.name, *error.details.get("path", (need.name,))),
        )
        failed.can_change = error.can_change
        raise failed from None


def _made(record: ServiceRecord, frame: Frame, reservation: Reservation | None) -> Instance:
    """Return a new instance; one that runs out of memory is tried once more, when others have gone."""
    try:
        return _construct(record, frame, reservation)
    except LoadFailed as failed:
        short = failed.details.get("short")
        if short is None or record.stands_for is not None:  # for one beside another, nobody goes
            raise
    gone = relieve(record)
    try:
        return _construct(record, frame, reservation)
    except LoadFailed as failed:
        if (short := failed.details.get("short")) is None:
            raise
    record.ports.failures.clear(record.name)  # whose frames hold what was made of it
    raise exhausted(record, f"loading {record.name}", short, gone)


def _construct(record: ServiceRecord, frame: Frame, reservation: Reservation | None) -> Instance:
    assert record._gate is not None
    model: Any = None
    instance: Instance | None = None
    serving: Serving | None = None
    before: int | None = None
    token = CURRENT.set(frame)
    try:
        with record._gate.held_by(frame):
            began = record.ports.clock()
            if (woken := _woken(record, reservation)) is not None:
                woken.took = record.ports.clock() - began
                return woken
            before = process_memory().anonymous
            model = _make(record)
            _wire(record, model)
            read = reads_of(model)
            grown, took = _grown(before), record.ports.clock() - began
        if record.proves:
            prove(record, model, frame)  # one that hangs is in nobody's way
        serving = Serving(model, record.version, record.code_version, record.spec)
        instance = Instance(serving, record.ports.clock(), read)
        instance.took, instance.grown = took, grown
        return _placed(record, instance)
    except GrymError as error:
        failure = error if isinstance(error, LoadFailed) else load_failed(record, error)
        clean_up(record.name, model)
        _forget_if_large(record, error, before)
        raise failure from None
    except (Exception, SystemExit) as error:
        failure = load_failed(record, error)
        if ran_out(error):
            failure.details["short"] = str(error)
        clean_up(record.name, model)
        _forget_if_large(record, error, before)
        raise failure from None
    except BaseException:
        clean_up(record.name, model)
        raise
    finally:
        CURRENT.reset(token)
        model = instance = serving = (
            None  # the error has this frame: what it holds could not be given back yet
        )


def _grown(before: int | None) -> int:
    after = process_memory().anonymous
    return 0 if before is None or after is None else after - before


def _forget_if_large(record: ServiceRecord, error: BaseException, before: int | None) -> None:
    """Let go of the frames of a load that failed where they hold much: its memory is given back."""
    there = sum(storages_of(error).values())
    if max(there, _grown(before)) >= OPAQUE:
        record.ports.failures.clear(record.name)
        error.__traceback__ = None


def _woken(record: ServiceRecord, reservation: Reservation | None) -> Instance | None:
    """Return what is parked, back where it was; None where nothing is, or another has to take its place."""
    fits = parked_in(record) is not None
    parked = take(record)
    if parked is None or reservation is None:
        return None
    if not fits:
        release_parked(record, parked)
        return None
    try:
        return wake(parked, reservation)
    except BaseException:
        record.footprint.parked = parked
        raise


def _make(record: ServiceRecord) -> Any:
    """Return a new, unloaded instance from the factory."""
    model = record.spec.callable(**record.spec.config)
    if model is None:
        raise TypeError(f"the factory of {record.name} returned None")
    return model


def _placed(record: ServiceRecord, instance: Instance) -> Instance:
    """Find the device that a new instance is on; raises where that was said and there is none."""
    try:
        locate(record, instance)
    except ConfigError as error:
        raise _unfit(record, error) from None
    return instance


def _wire(record: ServiceRecord, model: Any) -> None:
    """Give a new instance its needs; raises when its class, seen only now, makes no service."""
    spec = record.spec
    try:
        _refuse_class(record, type(model))
    except ConfigError as error:
        raise _unfit(record, error) from None
    if spec.needs or isinstance(model, ModelService):
        model.needs = Needs(record.name, record._family.wired(record))


def _refuse_class(record: ServiceRecord, made: type) -> None:
    """Raise for what `register` would have refused, had the factory said what it makes."""
    spec = record.spec
    if made is not spec.made_class:
        record._family.refuse_tasks(record.name, tasks_of(made))
    declared = {need.rstrip("?") for need in spec.needs}
    undeclared = sorted(need for need in needs_of(made) if need.rstrip("?") not in declared)
    if undeclared:
        raise ConfigError(
            f"what the factory of {record.name} made needs {', '.join(undeclared)}",
            hint="say so: register(..., needs=(...)), or annotate what the factory returns",
            service=record.name,
        )


def _unfit(record: ServiceRecord, error: ConfigError) -> LoadFailed:
    """Return the typed error of a load for a registration that does not fit, told as it was there."""
    told = LoadFailed(
        f"{record.name} could not be loaded: {error.message}",
        cause=error.cause,
        hint=error.hint,
        service=record.name,
        path=(record.name,),
    )
    told.failure = load_failed(record, error).failure
    return told
