"""What callers hold, and the whole path of a call, step by step.

::

     1 validate     the task's declared checks; the deadline is fixed here
     2 cached?      a result cache may answer
     3 fallback (   what answers when all else fails
     4  retry (     only errors that can change; nothing is held during back-off
     5   breaker    refuse fast, before anything is loaded
     6   enter      counted in: nothing unloads the service; loaded if need be
     7   slot       of the lane
     8   device     its turn on the card, taken last and given back first; its chain's, where that has one
     9   deadline   what is left is passed on, through the frame
    10   engine ))
    11 observe      metrics, events, context, tape; a typed error

A call runs in its caller's thread when a slot is free and nobody waits, and it has no timeout, is not async
and not submitted. Else 1-2 run in the caller and 3-11, the load too, on a worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self, cast

from grym_nb.errors import (
    CallBlocked,
    ConfigError,
    GrymError,
    Interrupted,
    QueueFull,
    ServiceClosed,
    StateError,
    UnknownName,
    ValidationError,
    closest,
    says_what_it_takes,
)
from grym_nb.services.attempts import attempts
from grym_nb.services.call import Call, Task, TaskResult
from grym_nb.services.engines import run
from grym_nb.services.facts import Facts
from grym_nb.services.frame import CURRENT, PLAIN, Frame, Options
from grym_nb.services.guards import may_fall_back
from grym_nb.services.held import Stream, Use
from grym_nb.services.older import Older, numbered, task_of
from grym_nb.services.outcome import conclude, observe, result_of, typed, unpinned
from grym_nb.services.parts import compute, once_more, short_of
from grym_nb.services.reload.probation import passed, serving_of
from grym_nb.services.reload.reloading import answer_before, reload, rollback
from grym_nb.services.turns import give, resumed, take

if TYPE_CHECKING:
    from grym_nb.services.mapping import Mapped
    from grym_nb.services.model import TaskSpec
    from grym_nb.services.record import ServiceRecord
    from grym_nb.services.registry import ServiceRegistry
    from grym_nb.services.reload.report import Reload

__all__ = ["BoundTask", "ServiceHandle"]


# -- the path of a call ----------------------------------------------------------------------------


def _begin(
    record: ServiceRecord, spec: TaskSpec, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options
) -> Frame:
    """Step 1: check the arguments, fix the deadline."""
    frame = Frame(record, spec, args, kwargs, options, record.ports.clock())
    problems = spec.checker.problems(args, kwargs)
    if problems:
        error = ValidationError(
            f"{frame.title} does not take these arguments",
            problems=problems,
            hint=f"it takes {spec.signature}",
            service=record.name,
            task=spec.method,
        )
        observe(frame, None, error)
        raise error
    return frame


def _call(
    record: ServiceRecord, spec: TaskSpec, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options
) -> Any:
    """Steps 1 and 2, and the choice of the thread."""
    frame = _begin(record, spec, args, kwargs, options)
    if record.ports.cache is not None:
        hit, value = record.ports.cache(frame)
        if hit:
            observe(frame, value, None, outcome="cached")
            return value
    if spec.kind == "generator" or spec.kind == "async generator":
        return Stream(frame, conclude)
    lane = record.lane
    if (
        options.timeout is None
        and record.timeout is None
        and spec.kind == "plain"
        and (lane.open or (frame.parent is not None and lane.reenters(frame)))
    ):
        if frame.parent is None or frame.parent.lease is None:
            return _here(frame)
        with resumed(frame.parent):
            return _here(frame)
    call = _queue(frame)
    try:
        return call.result()
    except CallBlocked:
        call.cancel()
        raise


def _here(frame: Frame) -> Any:
    """Steps 3 to 11 in the caller's thread, and the end of the call."""
    try:
        return _answer(frame)
    finally:
        frame.ended = True
        if frame.inside or frame.place is not None:
            frame.record.let_go(frame)  # Ctrl-C came between two steps
        frame.end()


def _submit(frame: Frame) -> Call:
    """Step 2, else put the call in line for a worker; never blocks."""
    cache = frame.record.ports.cache
    hit, value = (False, None) if cache is None else cache(frame)
    if not hit:
        return _queue(frame)
    call = Call(frame, outcome=result_of, observe=partial(observe, outcome="cached"))
    call.settle(value)
    frame.end()
    return call


def _queue(frame: Frame) -> Call:
    """Put the call in line for a worker."""
    record = frame.record
    frame.inline = False
    frame.waiting_since = frame.started
    call = Call(frame, outcome=result_of, observe=observe)
    context = copy_context()
    try:
        record.accept(frame)
        record.lane.submit(frame, lambda: context.run(_serve, frame, call))
        if frame.deadline is not None:
            pulse = record.ports.pulse
            expire = partial(call.expire, on_pulse=True)
            call.timer = pulse.at(frame.deadline, expire, name=f"deadline of {frame.title}")
            if call.done():
                call.timer.cancel()  # it ended before it had a timer to cancel
    except (ServiceClosed, QueueFull) as error:
        record.abandon(frame)
        observe(frame, None, error)
        raise
    except BaseException:
        call.cancel()
        if call.ticket is None or call.ticket.claim():
            record.let_go(frame)  # Ctrl-C came before a worker had it
        raise
    return call


def _serve(frame: Frame, call: Call) -> None:
    """Steps 3 to 11 on a worker, and the end of the call."""
    value, error = None, None
    frame.waited = frame.waited_by(frame.record.ports.clock())
    frame.waiting_since = frame.stood = None
    try:
        value = _answer(frame)
    except BaseException as raised:
        error = raised
    finally:
        # Before the slot there may have been an error: then it is given back here.
        frame.record.lane.leave(frame)
        frame.record.abandon(frame)
    call.settle(value, error)
    frame.end()


def _answer(frame: Frame) -> Any:
    """Steps 3 to 11, in this thread."""
    try:
        if not frame.record.wrapped and not frame.options.retries:
            value = _attempt(frame)  # the usual case, without the two steps that only wrap it
        else:
            value = _with_fallback(frame)
    except BaseException as raised:
        error = conclude(frame, raised) or raised
    else:
        if frame.call is None:  # else its end is seen when the call is settled
            observe(frame, value, None)
        return value
    # Raised from here, without the frames below: they hold the model, and IPython keeps the last
    # traceback for as long as the kernel lives. `%grym why` has them as text.
    raise unpinned(error) from None


def _with_fallback(frame: Frame) -> Any:
    """Steps 3 and 4: attempts, with nothing held between them, and what answers when all fail."""
    record = frame.record
    try:
        return (record.retry or attempts)(frame, _attempt)
    except GrymError as error:
        if record.fallback is None or not may_fall_back(frame, error):
            raise
        return record.fallback(frame, error)


def _attempt(frame: Frame) -> Any:
    """Step 5, and those that it guards."""
    breaker = frame.record.breaker
    if breaker is None:
        return _enter(frame)
    breaker.ask(frame)
    try:
        return _enter(frame)
    finally:
        breaker.over(frame)


def _enter(frame: Frame) -> Any:
    """Steps 6 to 10."""
    record = frame.record
    while True:
        instance = record.enter(frame, slot=True)  # 6
        try:
            if frame.place is None:
                record.lane.take(frame)  # 7
            on_none = instance.device is None and instance.located is record.policy
            # An instance that was let go of while we waited is not the one to call: enter anew.
            if (on_none or take(frame)) and (frame.place is None or frame.place.epoch == instance.epoch):  # 8
                return _engine(frame)  # 9, 10
        finally:
            if frame.lease is not None:
                give(frame)
            record.leave(frame)


def _engine(frame: Frame) -> Any:
    """Step 10: the author's code, with the frame as its context (9), and typed errors out of it."""
    ports = frame.record.ports
    spec = cast("TaskSpec", frame.spec)
    breaker = frame.record.breaker
    began = ports.clock() if breaker is not None else 0.0
    token = CURRENT.set(frame)
    try:
        frame.at_work = True
        if frame.cancelled or frame.deadline is not None:
            frame.check()
        if spec.takes_context and ports.context is not None and spec.lacks_context(frame.args, frame.kwargs):
            frame.kwargs["context"] = ports.context(frame)
        serving = frame.instance.serving  # type: ignore[union-attr]
        if frame.parent is not None or frame.options is not PLAIN or spec.method not in serving.tasks:
            serving = serving_of(frame)
        frame.serving = serving
        large = spec.batch or frame.instance.learns  # type: ignore[union-attr]
        value = compute(frame) if large else run(frame)
    except BaseException as raised:
        short = short_of(frame, raised)
        error = None
        if short is None:
            answered, value = answer_before(frame, raised)
            error = None if answered else typed(frame, raised)
    else:
        if serving.probation is not None:
            passed(frame, serving)
        if breaker is not None:
            breaker.told(frame, ports.clock() - began, None)
        return value
    finally:
        CURRENT.reset(token)
    if short is not None:  # from here, where nothing of what did not fit is held any more
        value, error = once_more(frame, short)
    if breaker is not None and (error is None or isinstance(error, GrymError)):
        breaker.told(frame, ports.clock() - began, error)
    if error is not None:
        frame.at_work = False  # until its next attempt, if there is one
        raise error
    return value


# -- what callers hold -----------------------------------------------------------------------------


class BoundTask:
    """One task of a service: call it, `submit` it, or say `with_` what options."""

    __slots__ = ("_record", "name", "options")

    def __init__(self, record: ServiceRecord, name: str, options: Options = PLAIN) -> None:
        self._record = record
        self.name = name
        self.options = options

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return _call(self._record, self._spec(), args, kwargs, self.options)

    def submit(self, /, *args: Any, **kwargs: Any) -> Call:
        """Return at once with a `Call`: a future that can also be awaited."""
        return _submit(_begin(self._record, self._spec(), args, kwargs, self.options))

    def _spec(self) -> TaskSpec:
        version = self.options.version
        return self._record.task(self.name) if version is None else task_of(self._record, version, self.name)

    @says_what_it_takes
    def with_(
        self, *, timeout: float | None = None, priority: str | int = "normal", retries: int | None = None
    ) -> Self:
        """Return this task with options for the calls made through it."""
        options = replace(Options.of(timeout, priority, retries), version=self.options.version)
        return type(self)(self._record, self.name, options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked by Python and its tools
            raise AttributeError(name)
        mine, near = f"{self._record.name}.{self.name}", closest(name, ("submit", "with_", "options"))
        hint = f'{mine}(...), .submit(...), .with_(...)(...); {self._record.name}.map("{self.name}", items)'
        raise UnknownName(f"the task {mine} has no {name!r}.{near}", hint=hint)

    def __repr__(self) -> str:
        spec = self._record.known_tasks.get(self.name)
        doc = (
            "" if spec is None else f"{spec.signature}: {spec.doc.splitlines()[0] if spec.doc else spec.type}"
        )
        return f"<task {self._record.name}.{self.name}{doc}>"


class ServiceHandle(Facts):
    """A service by name: stable while its code, config and instance come and go.

    Every task is a method: ``handle.measure(clip)`` blocks, ``handle.measure.submit(clip)`` returns a `Call`,
    ``handle.measure.with_(timeout=5)(clip)`` bounds it. The first call loads the service.
    """

    def __init__(self, record: ServiceRecord, registry: ServiceRegistry) -> None:
        self._record = record
        self._registry = registry

    # -- calls -------------------------------------------------------------------------------------

    @says_what_it_takes
    def run(self, task: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a task by method name or type."""
        return _call(self._record, self._named(task), args, kwargs, PLAIN)

    @says_what_it_takes
    def submit(self, task: str | Task, /, *args: Any, **kwargs: Any) -> Call:
        """Submit a task by method name, type or `Task`; returns at once with a `Call`."""
        if isinstance(task, Task):
            if args or kwargs:
                hint = "they go into Task(type, data, params={...})"
                raise ValidationError(f"{task.id} has its arguments already", hint=hint)
            return _submit(self._of(task))
        return _submit(_begin(self._record, self._named(task), args, kwargs, PLAIN))

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_"):
            told = f"{self.name}.{name} cannot be set: a handle only stands for the service"
            hint = f"config: configure({name}=...); the model itself: with use() as model: ..."
            raise StateError(told, hint=hint, service=self.name)
        super().__setattr__(name, value)

    @says_what_it_takes
    def execute(self, task: Task) -> TaskResult:
        """Run a `Task`; a failing one gives a result that says so, it never raises."""
        task = task if isinstance(task, Task) else Task(task)
        call: Call | None = None
        try:
            call = self.submit(task)
            call.result()
        except GrymError as error:
            if call is None or call.cancel():  # it was refused, or cannot be waited for here
                return TaskResult(task.id, False, "failed", None, error.again(), task.metadata)
        assert call.outcome is not None
        return call.outcome.for_task(task)

    @says_what_it_takes
    def map(
        self,
        task: str,
        items: Iterable[Any],
        /,
        *,
        save: Any = None,
        errors: str = "keep",
        **kwargs: Any,
    ) -> Mapped:
        """Call a task once for each item, in order, with progress; returns a list of results.

        With `save=` every result is also a line of that JSON file (and is returned as it reads there), and
        a later call asks only what is not there, or would be answered differently by now (see `mapping`).
        `errors="raise"` stops at the first failure; else failed items are None, and explained in `failed`.
        Further keywords go to the task.
        """
        from grym_nb.services.mapping import run_map

        return run_map(self, self._named(task).method, items, save=save, errors=errors, kwargs=kwargs)

    @says_what_it_takes
    def use(self) -> Use[Any]:
        """Return a context manager that gives the loaded object itself.

        It counts as a call: nothing unloads the service meanwhile, and its slot is held.
        """
        return Use(lambda: self._record.frame("use"), conclude)

    # -- its life ----------------------------------------------------------------------------------

    @says_what_it_takes
    def load(self) -> Self:
        """Load it now (and what it needs), if it is not; returns the handle."""
        try:
            self._record.load()
            return self
        except (GrymError, Interrupted) as raised:
            error = raised
        raise unpinned(error) from None

    @says_what_it_takes
    def unload(self, timeout: float | None = None) -> Self:
        """Let running calls end, then let go of the model; the next call loads it anew."""
        self._record.unload(timeout)
        return self

    @says_what_it_takes
    def reload(self, *, force: bool = False) -> Reload:
        """Put in force what was edited, with the weights as they are; returns what came of it.

        New code is tried before it serves, and taken back when its first calls fail; with `force` neither. A
        service that has failed is loaded. To load the weights anew: `unload()`, and `load()`.
        """
        return reload(self._registry, self._record, force=force)

    @says_what_it_takes
    def rollback(self) -> Reload:
        """Have the code of before serve again."""
        return rollback(self._record)

    @says_what_it_takes
    def at(self, version: str | int) -> Older:
        """Return another version's tasks, beside those of the one that serves and on the same weights."""
        return Older(self._record, numbered(self._record, version), BoundTask)

    @says_what_it_takes
    def configure(self, **changes: Any) -> str:
        """Change the config; returns how it took effect.

        ``"in place"``: set on the resident model between two calls. ``"reloads"``: `load` depends on it, so
        the next call loads anew. ``"at load"``: nothing was loaded. ``"unchanged"``: it was so already.
        It holds until the next registration: to run the cell with `register` again puts the config back.
        """
        return self._registry.reconfigure(self._record, changes)

    # -- inside ------------------------------------------------------------------------------------

    def _named(self, task: object) -> TaskSpec:
        return self._record.named(task.name if isinstance(task, BoundTask) else task)

    def _of(self, task: Task) -> Frame:
        record = self._record
        kwargs = dict(task.params)
        spec = record.task(task.type)
        if task.context is not None:
            kwargs["context"] = task.context
        stores = task.store_results is not False
        if stores and record.ports.store is None:
            told = f"{task.id} asks for store_results, and this runtime has no context store"
            raise ConfigError(told, hint="leave store_results out, and keep the result yourself")
        args = () if task.data is None else (task.data,)
        frame = _begin(record, spec, args, kwargs, Options.of(task.timeout, task.priority, task.retries))
        if stores:
            said = task.store_results if isinstance(task.store_results, Mapping) else {}
            frame.stores = {"task": task.id, "workflow": task.metadata.get("workflow"), **said}
        return frame

    def __getattr__(self, name: str) -> BoundTask:
        if name.startswith("_"):
            raise AttributeError(name)
        record = self._record
        if record.tasks is not None:
            name = record.task(name).method
        bound = BoundTask(record, name)
        # Found at once the next time. It looks its task up at every call, so it never goes stale.
        self.__dict__[name] = bound
        return bound

    def __deepcopy__(self, memo: object) -> Self:
        return self  # it stands for the service, of which there is one

    def __reduce__(self) -> Any:
        told = f"{self.name} cannot be pickled: a service lives in its kernel"
        raise StateError(told, hint=f'there: grym.get("{self.name}")', service=self.name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._record.known_tasks})

    def __repr__(self) -> str:
        return f"<{self.status().line}>"

    def _repr_html_(self) -> str:
        return self.status()._repr_html_()
