"""What callers hold: a service by its name, and each of its tasks; `path` has what a call goes through."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from grym_nb.errors import (
    ConfigError,
    GrymError,
    Interrupted,
    StateError,
    UnknownName,
    ValidationError,
    closest,
    says_what_it_takes,
)
from grym_nb.services.call import Call, Task, TaskResult
from grym_nb.services.facts import Facts
from grym_nb.services.frame import PLAIN, Frame, Options
from grym_nb.services.held import Use
from grym_nb.services.older import Older, numbered, task_of
from grym_nb.services.outcome import conclude, unpinned
from grym_nb.services.path import answered, begin, submitted
from grym_nb.services.reload.back import rollback
from grym_nb.services.reload.reloading import reload

if TYPE_CHECKING:
    from grym_nb.services.mapping import Mapped
    from grym_nb.services.model import TaskSpec
    from grym_nb.services.record import ServiceRecord
    from grym_nb.services.registry import ServiceRegistry
    from grym_nb.services.reload.report import Reload

__all__ = ["BoundTask", "ServiceHandle"]


class BoundTask:
    """One task of a service: call it, `submit` it, or say `with_` what options."""

    __slots__ = ("_record", "name", "options")

    def __init__(self, record: ServiceRecord, name: str, options: Options = PLAIN) -> None:
        self._record = record
        self.name = name
        self.options = options

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return answered(self._record, self._spec(), args, kwargs, self.options)

    def submit(self, /, *args: Any, **kwargs: Any) -> Call:
        """Return at once with a `Call`: a future that can also be awaited."""
        return submitted(begin(self._record, self._spec(), args, kwargs, self.options))

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
        return answered(self._record, self._named(task), args, kwargs, PLAIN)

    @says_what_it_takes
    def submit(self, task: str | Task, /, *args: Any, **kwargs: Any) -> Call:
        """Submit a task by method name, type or `Task`; returns at once with a `Call`."""
        if isinstance(task, Task):
            if args or kwargs:
                hint = "they go into Task(type, data, params={...})"
                raise ValidationError(f"{task.id} has its arguments already", hint=hint)
            return submitted(self._of(task))
        return submitted(begin(self._record, self._named(task), args, kwargs, PLAIN))

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
    def reload(self, *, force: bool = False, share: float | None = None) -> Reload:
        """Put in force what was edited, with the weights as they are; returns what came of it.

        New code is tried before it serves, and taken back when its first calls fail; with `force` neither. A
        service that has failed is loaded. To load the weights anew: `unload()`, and `load()`.

        With `share`, 0.1 say, it answers one call in ten, and the version before it the others; called again
        with another `share`, so many. All of them with 1; `rollback()` takes it back. An unload ends it.
        """
        return reload(self._registry, self._record, force=force, share=share)

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
        frame = begin(record, spec, args, kwargs, Options.of(task.timeout, task.priority, task.retries))
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
