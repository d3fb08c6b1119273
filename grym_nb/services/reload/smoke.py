"""New code tried before it serves: its ping, and the last calls that the old code answered well.

They are made on a copy of the model's attributes, in a slot of its own service, as any other call; what they
draw from the random generators is as if it had not been drawn. What does not come to an end is not waited
for, and from then on holds nothing: neither a slot nor the device.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from grym_nb.errors import CallTimeout
from grym_nb.services.engines import run
from grym_nb.services.failure import describe
from grym_nb.services.frame import CURRENT, Frame, Options
from grym_nb.services.instance import Serving
from grym_nb.services.mending import within
from grym_nb.services.model import ModelService
from grym_nb.services.reload.attributes import attributes_of, copy_of
from grym_nb.services.reload.generators import random_kept
from grym_nb.services.turns import on_device

if TYPE_CHECKING:
    from grym_nb.services.failure import Failure
    from grym_nb.services.instance import Instance
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
    record: ServiceRecord,
    instance: Instance,
    serving: Serving,
    *,
    before: ServiceRecord | None = None,
) -> Smoke:
    """Try a version that does not serve yet; nobody waits longer than a moment for what comes of it.

    `before` is who answers now, where that is another record than the one that is tried.
    """
    trial = _Trial(record, instance, serving, before or record)
    with random_kept(_values_of(serving.model)):
        try:
            within(record.ports, _LATE, trial.run, "")
        except TimeoutError:
            told = replace(trial.found)  # what it comes to later is of no interest
            told.skip(f"it was not done after {_LATE:g} s")
            return told
        finally:
            trial.let_go()
    return trial.found


def _values_of(model: Any) -> list[Any]:
    """Return what a model has as its attributes, and what is at the top of its module."""
    module = sys.modules.get(type(model).__module__)
    top = {} if module is None else vars(module)
    return [*attributes_of(model).values(), *top.copy().values()]


class _Trial:
    """A version as it is tried, on a thread of its own."""

    def __init__(
        self,
        record: ServiceRecord,
        instance: Instance,
        serving: Serving,
        before: ServiceRecord,
    ) -> None:
        self.found = Smoke()
        self._record = record
        self._instance = instance
        self._serving = serving
        self._before = before, before.instance
        self._tape = before.tape
        self._until = record.ports.clock() + _ALL
        self._frame: Frame | None = None  # the call under way
        self._is_left = False  # nobody waits for it any more

    def run(self) -> None:
        """Ping it, and make the last calls again; what comes of it is in `found`."""
        hook = getattr(self._serving.model, "ping", None)
        try:
            if hook is not None and getattr(hook, "__func__", None) is not ModelService.ping:
                self._try("ping", lambda: self._ping(hook))
            for taped in self._tape.calls():
                if self.found.failure is not None:
                    return
                if self._record.ports.clock() >= self._until:
                    raise _Late
                self._replay(taped)
        except (_Late, CallTimeout):
            self.found.skip(f"no time was left for the rest in {_ALL:g} s")

    def let_go(self) -> None:
        """Have it hold nothing from now on, though its code may run on; it is asked to end."""
        with self._record.lock:
            self._is_left, frame = True, self._frame
        if frame is not None:
            frame.stop()
            frame.record.let_go(frame)

    def _replay(self, taped: Taped) -> None:
        found, spec = self.found, self._serving.tasks.get(taped.task)
        if spec is None:
            found.skip(f"{taped.task}: it is gone")
            return
        args, kwargs = taped.given()
        if spec.checker.problems(args, kwargs):
            found.skip(f"{taped.task}: it does not take what it was given any more")
            return
        self._try(taped.task, lambda: self._call(taped, self._record, self._instance, self._serving))
        if found.failure is None:
            found.tried += 1
            return
        try:  # what fails on the old code, too, says nothing about the new: what it was given has changed
            record, instance = self._before
            if instance is not None:
                before = instance.serving
                model = copy_of(before.model)  # it serves: a trial leaves nothing in it
                old = Serving(model, before.version, before.number, before.spec)
                self._call(taped, record, instance, old)
        except (_Late, CallTimeout):
            pass
        except _AUTHORS:
            if self._is_left:
                return  # it was asked to end
            self._tape.drop(taped)
            found.failure = found.error = None
            found.skip(f"{taped.task}: by now it fails on the old code as well")

    def _try(self, what: str, call: Callable[[], Any]) -> None:
        try:
            call()
        except (_Late, CallTimeout):
            raise
        except _AUTHORS as error:
            found, serving = self.found, self._serving
            found.what, found.error = what, error
            found.failure = describe(error, service=self._record.name, task=what, version=serving.version)

    def _call(self, taped: Taped, record: ServiceRecord, instance: Instance, serving: Serving) -> None:
        args, kwargs = taped.given()
        spec = serving.tasks[taped.task]
        frame = Frame(record, spec, args, kwargs, self._options(), self._now(), what="smoke")
        with self._entered(instance, serving, frame):
            run(frame)

    def _ping(self, hook: Callable[[], Any]) -> None:
        frame = Frame(self._record, None, (), {}, self._options(), self._now(), what="ping")
        with self._entered(self._instance, self._serving, frame):
            hook()

    def _now(self) -> float:
        return self._record.ports.clock()

    def _options(self) -> Options:
        left = self._until - self._now()
        if left <= 0.0:
            raise _Late
        return Options(timeout=left)

    @contextmanager
    def _entered(self, instance: Instance, serving: Serving, frame: Frame) -> Iterator[None]:
        """Count a call in and give it a slot; it is no call that anybody made, and leaves no trace as one."""
        record = frame.record
        try:
            with record.lock:
                there = record.instance is instance and record.lifecycle.state == "ready"
                if self._is_left or not there:
                    raise _Late
                record.count_in(frame)
                self._frame = frame
            record.lane.take(frame)
            frame.deadline = None  # it waits no more: what is slower than it was is not refused for that
            frame.serving = serving
            with on_device(frame):
                if self._is_left:  # as it took what it was to let go of
                    raise _Late
                token = CURRENT.set(frame)
                try:
                    yield
                finally:
                    CURRENT.reset(token)
        finally:
            self._frame = None
            record.let_go(frame)
            frame.end()
