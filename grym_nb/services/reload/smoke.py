"""New code tried before it serves: its ping, and the last calls that the old code answered well.

They are made on a copy of the model's attributes, in a slot of its own service, as any other call; what they
draw from the random generators is as if it had not been drawn.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grym_nb.errors import CallTimeout
from grym_nb.services.engines import run
from grym_nb.services.failure import describe
from grym_nb.services.frame import CURRENT, Frame, Options
from grym_nb.services.mending import within
from grym_nb.services.model import ModelService
from grym_nb.services.turns import on_device

if TYPE_CHECKING:
    from grym_nb.services.failure import Failure
    from grym_nb.services.instance import Instance, Serving
    from grym_nb.services.record import ServiceRecord
    from grym_nb.services.reload.tape import Taped

__all__ = ["Smoke", "smoke"]

_ALL = 0.25  # seconds, of all that is tried
_LATE = 2.0  # seconds after which nobody waits for code that does not come to an end
_AUTHORS = (Exception, SystemExit)


@dataclass(slots=True)
class Smoke:
    """What came of it: how many calls went well, what was not tried and why, and what failed."""

    tried: int = 0
    skipped: tuple[str, ...] = ()
    failure: Failure | None = None
    what: str = ""  # that failed
    error: BaseException | None = None

    def skip(self, what: str) -> None:
        """Note what was not tried."""
        self.skipped = (*self.skipped, what)


class _Late(Exception):
    """There is no time left."""


def smoke(
    record: ServiceRecord, instance: Instance, serving: Serving, *, before: ServiceRecord | None = None
) -> Smoke:
    """Try a version that does not serve yet; nobody waits longer than a moment for what comes of it.

    `before` is who answers now, where that is another record than the one that is tried.
    """
    found = Smoke()
    with _random_kept():
        with suppress(TimeoutError):
            within(record.ports, _LATE, lambda: _all(record, instance, serving, before or record, found), "")
            return found
        found.skip(f"it was not done after {_LATE:g} s")
    return found


def _all(
    record: ServiceRecord, instance: Instance, serving: Serving, before: ServiceRecord, found: Smoke
) -> None:
    until = record.ports.clock() + _ALL
    try:
        hook = getattr(serving.model, "ping", None)
        if hook is not None and getattr(hook, "__func__", None) is not ModelService.ping:
            _try(found, "ping", record, serving, lambda: _asked(record, instance, serving, hook, until))
        for taped in record.tape.calls():
            if found.failure is not None:
                return
            if record.ports.clock() >= until:
                raise _Late
            _replay(record, instance, serving, taped, before, found, until)
    except (_Late, CallTimeout):
        found.skip(f"no time was left for the rest in {_ALL:g} s")


def _replay(
    record: ServiceRecord,
    instance: Instance,
    serving: Serving,
    taped: Taped,
    before: ServiceRecord,
    found: Smoke,
    until: float,
) -> None:
    spec = serving.tasks.get(taped.task)
    if spec is None:
        found.skip(f"{taped.task}: it is gone")
        return
    args, kwargs = taped.given()
    if spec.checker.problems(args, kwargs):
        found.skip(f"{taped.task}: it does not take what it was given any more")
        return
    _try(found, taped.task, record, serving, lambda: _called(record, instance, serving, taped, until))
    if found.failure is None:
        found.tried += 1
        return
    try:  # what fails on the old code, too, says nothing about the new: what it was given has changed
        _called_before(before, taped, until)
    except (_Late, CallTimeout):
        pass
    except _AUTHORS:
        record.tape.drop(taped)
        found.failure = found.error = None
        found.skip(f"{taped.task}: by now it fails on the old code as well")


def _try(found: Smoke, what: str, record: ServiceRecord, serving: Serving, call: Callable[[], Any]) -> None:
    try:
        call()
    except (_Late, CallTimeout):
        raise
    except _AUTHORS as error:
        found.what, found.error = what, error
        found.failure = describe(error, service=record.name, task=what, version=serving.version)


def _called(record: ServiceRecord, instance: Instance, serving: Serving, taped: Taped, until: float) -> None:
    args, kwargs = taped.given()
    frame = Frame(
        record, serving.tasks[taped.task], args, kwargs, _options(record, until), _now(record), what="smoke"
    )
    with _entered(record, instance, serving, frame):
        run(frame)


def _called_before(record: ServiceRecord, taped: Taped, until: float) -> None:
    if (there := record.instance) is None:
        raise _Late
    _called(record, there, there.serving, taped, until)


def _asked(
    record: ServiceRecord, instance: Instance, serving: Serving, hook: Callable[[], Any], until: float
) -> None:
    frame = Frame(record, None, (), {}, _options(record, until), _now(record), what="ping")
    with _entered(record, instance, serving, frame):
        hook()


def _now(record: ServiceRecord) -> float:
    return record.ports.clock()


def _options(record: ServiceRecord, until: float) -> Options:
    left = until - record.ports.clock()
    if left <= 0.0:
        raise _Late
    return Options(timeout=left)


@contextmanager
def _entered(record: ServiceRecord, instance: Instance, serving: Serving, frame: Frame) -> Iterator[None]:
    """Count a call in and give it a slot; it is no call that anybody made, and leaves no trace as one."""
    try:
        with record.lock:
            if record.instance is not instance or record.lifecycle.state != "ready":
                raise _Late
            record.count_in(frame)
        record.lane.take(frame)
        frame.deadline = None  # it waits no more: what is slower than it was is not refused for that
        frame.serving = serving
        with on_device(frame):
            token = CURRENT.set(frame)
            try:
                yield
            finally:
                CURRENT.reset(token)
    finally:
        record.let_go(frame)
        frame.end()


@contextmanager
def _random_kept() -> Iterator[None]:
    """Put the random generators back to where they are now."""
    kept: list[Callable[[], object]] = []
    state = random.getstate()
    kept.append(lambda: random.setstate(state))
    if (numpy := sys.modules.get("numpy")) is not None:
        drawn = numpy.random.get_state()
        kept.append(lambda: numpy.random.set_state(drawn))
    if (torch := sys.modules.get("torch")) is not None and hasattr(torch, "get_rng_state"):
        cpu = torch.get_rng_state()
        kept.append(lambda: torch.set_rng_state(cpu))
        if torch.cuda.is_initialized():
            cards = torch.cuda.get_rng_state_all()
            kept.append(lambda: torch.cuda.set_rng_state_all(cards))
    try:
        yield
    finally:
        for put in kept:
            put()
