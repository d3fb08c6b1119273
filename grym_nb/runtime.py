"""Where the parts are wired together, and the kernel's own runtime."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar
from weakref import WeakMethod

from grym_nb.clock import Clock
from grym_nb.errors import ConfigError, Problem, StateError, StorageError, ValidationError, says_what_it_takes
from grym_nb.events import StateChanged
from grym_nb.flow import route
from grym_nb.render import brief, count
from grym_nb.services import Call, ServiceHandle, ServiceRegistry, Task
from grym_nb.services.ports import Ports
from grym_nb.services.report import report_on
from grym_nb.services.spec import Factory
from grym_nb.settings import Settings

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from grym_nb.context import ContextItem, ContextStore
    from grym_nb.health import Alerts, HealthMonitor, Recovery
    from grym_nb.health.oversight import Oversight
    from grym_nb.health.remedies import RecoveryPolicy
    from grym_nb.metrics.history import History
    from grym_nb.metrics.kept import Kept
    from grym_nb.metrics.scrape import Endpoint
    from grym_nb.services.frame import Frame

__all__ = ["Runtime", "current", "get", "on_kernel_runtime", "register", "run", "submit"]

T = TypeVar("T")

#: services that come with the package, registered unloaded and imported at their first use
_BUILT_IN = {
    "dsp": "grym_nb.audio.dsp:Dsp",
    "wav2vec2": "grym_nb.audio.wav2vec2:Wav2Vec2",
    "audioldm": "grym_nb.audio.audioldm:AudioLDM",
}
_SWEEP_SECONDS = 0.5
_SWEEP_STEP = 0.01  # seconds between two steps of one sweep, for everything else


class Runtime:
    """A registry with everything it needs, independent of any other; a context manager.

    `current()` is the kernel's own. A forgotten one says so with a ResourceWarning.
    """

    @says_what_it_takes
    def __init__(self, settings: Settings | None = None, clock: Clock | None = None) -> None:
        _check(settings)
        self._policy: RecoveryPolicy | None = None
        self._policies: dict[str, RecoveryPolicy | None] = {}
        if settings is not None and (
            settings.recovery or settings.recoveries
        ):  # else the usual: not imported
            from grym_nb.health.remedies import policies_of

            self._policy, self._policies = policies_of(settings.recovery, settings.recoveries)
        self._ports = Ports(settings=settings, clock=clock)
        self.settings = self._ports.settings
        self.events = self._ports.events
        self.metrics = self._ports.metrics
        self.resources = self._ports.resources
        self.registry = ServiceRegistry(self._ports)
        report_on(self.registry, lambda: self._context)
        self._ports.context = self._context_for
        self._ports.store = self._keep_result
        self._oversight: Oversight | None = None
        self._endpoint: Endpoint | None = None
        self._loop: AbstractEventLoop | None = None
        if self.settings.health_seconds:
            begun = WeakMethod(self._begun)  # one that was forgotten is kept by nobody

            def heard(event: StateChanged) -> None:
                if (there := begun()) is not None:
                    there(event)

            self.events.subscribe(heard, StateChanged)
            watched = WeakMethod(self._begun_watching)

            def used() -> None:
                if (there := watched()) is not None:
                    with suppress(StateError):  # closed: it counts, and nobody remembers when
                        there()

            self.metrics.on_use = used
        self._context: ContextStore | None = None
        self._context_path = self.settings.context_path
        self._context_lock = threading.Lock()
        self._sweeps = False
        self._unsuited: set[str] = set()
        self._closed = False
        for name, factory in _BUILT_IN.items():
            self.registry.register(name, factory)

    # -- how they do ---------------------------------------------------------------------------------

    @property
    def health(self) -> HealthMonitor:
        """What is thought of each service, and why."""
        return self._watching().monitor

    @property
    def recovery(self) -> Recovery:
        """What is done about services that are unhealthy."""
        return self._watching().recovery

    @property
    def alerts(self) -> Alerts:
        """Who is told of what: rules, silences, channels, and what fires."""
        return self._begun_watching().alerts

    @property
    def history(self) -> History:
        """What the metrics were, over the last day: from the first load, track or series of your own on."""
        return self._begun_watching().history

    @property
    def kept(self) -> Kept | None:
        """The history on disk, also of the kernels before; None without `Settings(metrics_path=...)`."""
        return self._watching().kept

    @says_what_it_takes
    def serve_metrics(self, *, port: int = 0, token: str | None = None) -> Endpoint:
        """Let a Prometheus on this machine scrape the metrics, until `close`; the one there is, if there is.

        On 127.0.0.1, on any free port and with a token of its own unless they are given.
        """
        from grym_nb.metrics.scrape import serve

        before = self._endpoint
        if before is not None and not before.closed:
            if port in (0, before.port) and token in (None, before.token):
                return before
            before.close()
        if self._closed:
            raise StateError("this runtime is closed", hint="grym.current() is the kernel's own")
        self._endpoint = endpoint = serve(self.metrics, port=port, token=token)
        return endpoint

    def watch_loop(self, loop: AbstractEventLoop | None) -> None:
        """Measure how late this event loop is, the kernel's own, while anything is loaded; None: no more."""
        self._loop = loop
        if self._oversight is not None:
            self._oversight.watch_loop(loop)

    def _watching(self) -> Oversight:
        """Return what watches over the services, made when it is first asked for, or at the first load."""
        with self._context_lock:
            if self._oversight is None:
                if self._closed:
                    raise StateError("this runtime is closed", hint="grym.current() is the kernel's own")
                from grym_nb.health.oversight import Oversight

                settings = self.settings
                self._oversight = Oversight(
                    self.registry,
                    look_seconds=settings.health_seconds,
                    ping_seconds=settings.ping_seconds,
                    recovery=self._policy,
                    recoveries=self._policies,
                    keep=settings.metrics_path,
                    keep_bytes=settings.metrics_bytes,
                )
                self._oversight.watch_loop(self._loop)
            return self._oversight

    def _begun_watching(self) -> Oversight:
        """Return what watches, which has begun: who asks wants to see what comes."""
        watching = self._watching()
        if self.settings.health_seconds and not self._closed:
            watching.begin()
        return watching

    def _begun(self, event: StateChanged) -> None:
        if event.after == "loading" and not self._closed and self._oversight is None:
            self._watching().begin()

    # -- what models share -------------------------------------------------------------------------

    @property
    def context(self) -> ContextStore:
        """The context store: what models share, with time and priority; made when it is first asked for."""
        context = self._context
        if context is None or context.closed:
            with self._context_lock:
                context = self._made_context()
        return context

    @says_what_it_takes
    def open_context(self, path: str | os.PathLike[str]) -> ContextStore:
        """Keep what models share in a file from now on, which outlives the kernel; return that store.

        What is shared already goes into it, but for earlier versions. The store before is closed; where that
        cannot be, all stays as it was. One that is kept in that file already stays what it is.
        """
        with self._context_lock:
            before = self._context
            if before is not None and before.is_at(path):
                return before
            store = self._new_context(path)
            try:
                if before is not None and not before.closed:
                    store.take_over(before)
            finally:
                if before is None or before.closed:  # also when Ctrl-C came once all was in there
                    self._context, self._context_path = store, os.fspath(path)
                else:
                    store.close(lose=True)
        return store

    def _made_context(self) -> ContextStore:
        """Return the store, made when it is not there, or was closed by somebody."""
        context = self._context
        if context is None or context.closed:
            context = self._context = self._new_context(self._context_path)
        return context

    def _new_context(self, path: str | os.PathLike[str] | None) -> ContextStore:
        if self._closed:
            raise StateError("this runtime is closed", hint="grym.current() is the kernel's own")
        from grym_nb.context import ContextStore  # most kernels never ask for it

        settings, clock = self.settings, self._ports.given_clock
        context = ContextStore(path, clock=clock, max_bytes=settings.context_bytes, events=self.events)
        context.own_adapter = self._own_adapter
        if path is None and not self._sweeps:  # one with a file has a thread that sees to that
            self._ports.pulse.every(_SWEEP_SECONDS, self._sweep, name="sweep of the context")
            self._sweeps = True
        return context

    def _sweep(self) -> None:
        """Take out what has expired, a millisecond's worth; the rest very soon."""
        context = self._context
        with suppress(StateError):  # it was closed just now
            if context is None or context.closed or not context.sweep(0.0) or self._closed:
                return
            self._ports.pulse.after(_SWEEP_STEP, self._sweep, name="sweep of the context")

    def _context_for(self, frame: Frame) -> list[ContextItem] | None:
        """Return what a task is given as `context`: the most important and newest, as its model takes it.

        Of what it asked for with ``@task(context=...)``, or else of all. What does not suit it is left out,
        and said once: it may be there for another.
        """
        if self._context is None and self._context_path is None:
            return None  # nobody has put anything
        from grym_nb.context.adapters import suited

        clock, model = self._ports.clock, frame.record.name
        began = clock()
        asked = {} if frame.spec is None else frame.spec.context
        query = {"order": "priority", "limit": self.settings.context_items, **asked}
        items = self._of_context(lambda context: context.query(**query))
        suits, problems = suited(items, model, self._own_adapter(model))
        if problems and (told := f"{model}: {problems[0].path.partition('(')[2]}") not in self._unsuited:
            self._unsuited.add(told)
            more = f" (and {len(problems) - 1} more like this)" if len(problems) > 1 else ""
            _log.warning("%s is given no context that does not suit it: %s%s", model, problems[0], more)
        self.metrics.record("context.seconds", max(0.0, clock() - began), service=model, task=frame.task)
        return suits or None

    def _keep_result(self, frame: Frame, value: Any) -> None:
        """Put the result of a task that asked for it into the context, with where it came from."""
        spec, record = frame.spec, frame.record
        if spec is not None:
            said = {
                "type": spec.type,
                "source": record.name,
                "priority": frame.options.priority,
                "metadata": {
                    "version": frame.instance.version if frame.instance is not None else record.version
                },
                **(frame.stores or {}),
            }
            said["tags"] = tuple(dict.fromkeys(("result", record.name, *said.get("tags", ()))))
            self._of_context(lambda context: context.put(value, **said))

    def _of_context(self, ask: Callable[[ContextStore], T]) -> T:
        """Return what the store answers; asked again of the one that took its place in this very moment."""
        context = self.context
        try:
            return ask(context)
        except StateError:
            if not context.closed or self._closed:
                raise
        return ask(self.context)

    def _own_adapter(self, model: str) -> Callable[[ContextItem], Any] | None:
        """Return the `adapt_context` of a service: of what is loaded, else of an object that is not."""
        handle = self.registry.get(model, None)
        if handle is None:
            return None
        own: Callable[[ContextItem], Any] | None
        record, instance = handle._record, handle._record.instance
        own = record.spec.adapter if instance is None else getattr(instance.model, "adapt_context", None)
        return own

    # -- tasks by type -----------------------------------------------------------------------------

    @says_what_it_takes
    def submit(self, task: str | Task, /, *args: Any, **kwargs: Any) -> Call:
        """Send a task to the service that declares its type; returns at once with a `Call`.

        The task is a `Task`, or a type with the arguments after it.
        """
        type, model = (task.type, task.model) if isinstance(task, Task) else (task, None)
        return self._route(type, model).submit(task, *args, **kwargs)

    @says_what_it_takes
    def run(self, type: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call the service that declares the task type, and return its answer."""
        given: object = type
        if isinstance(given, Task):
            raise ValidationError(
                "run takes a task type", hint="a Task is submitted: grym.submit(task).result()"
            )
        return self._route(type, None).run(type, *args, **kwargs)

    def _route(self, type: str, model: str | None) -> ServiceHandle:
        return route(self.registry, type, model=model)

    def close(self, timeout: float | None = None) -> tuple[str, ...]:
        """End every service, thread and timer; return the names of what still runs. Idempotent."""
        if self._closed:
            return ()
        self._closed = True
        try:
            self.registry.close(timeout)
            if self._oversight is not None:
                self._oversight.close()
            if self._endpoint is not None:
                self._endpoint.close()
            if self._context is not None:
                self._context.close()
        except BaseException:
            self._closed = False  # interrupted, asked by one of its own tasks, or not all could be written
            raise
        return self._ports.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_used(self) -> bool:
        """Tell whether anybody has registered, loaded or put anything yet."""
        own = [
            handle
            for handle in self.registry.handles()
            if handle.name not in _BUILT_IN or handle._record.loads
        ]
        return bool(own) or self._context is not None

    def __del__(self) -> None:
        if not getattr(self, "_closed", True) and any(h.status().loads for h in self.registry.handles()):
            warnings.warn(
                f"{self!r} was forgotten with services in it; close() it", ResourceWarning, stacklevel=2
            )

    def __repr__(self) -> str:
        told = "closed" if self._closed else count(len(self.registry), "service")
        return f"<Runtime: {told}>"


def _check(settings: object) -> None:
    if settings is not None and not isinstance(settings, Settings):
        problem = Problem("settings", brief(settings), "grym.Settings(...)")
        raise ConfigError("this runtime cannot be made", problems=[problem])


_log = logging.getLogger(__name__)
_LAST_SECONDS = 2.0
_lock = threading.Lock()
_kernel: Runtime | None = None
_hooks: list[Callable[[Runtime], None]] = []


@says_what_it_takes
def current(settings: Settings | None = None) -> Runtime:
    """Return the kernel's own runtime: made at the first call, closed when the kernel ends.

    With `settings` it is one that works by these. They are to be given before anything is registered with it:
    one that is used by others already is not changed under its services.
    """
    global _kernel
    _check(settings)
    with _lock:
        there = None if _kernel is None or _kernel._closed else _kernel
        if there is not None and (settings is None or there.settings == settings):
            return there
        if there is not None and there._is_used():
            raise StateError(
                "the kernel's runtime is in use already, and works by other settings",
                hint="give them before anything is registered, or end it first: grym.current().close()",
            )
        if _kernel is None:
            atexit.register(_close)
        found = _kernel = Runtime(settings)
    if there is not None:
        there.close()
    _introduce(found)
    return found


def on_kernel_runtime(hook: Callable[[Runtime], Callable[[], object]]) -> Callable[[], None]:
    """Call a hook with the kernel's runtime, now and whenever there is a new one; return what ends that.

    What the hook returns undoes what it did: that is called when the runtime is followed by another.
    """
    undo: list[Callable[[], object]] = []

    def meet(runtime: Runtime) -> None:
        while undo:
            undo.pop()()
        undo.append(hook(runtime))

    def end() -> None:
        _hooks.remove(meet)
        while undo:
            undo.pop()()

    runtime = current()
    _hooks.append(meet)
    meet(runtime)
    return end


def _introduce(runtime: Runtime) -> None:
    for meet in tuple(_hooks):
        try:
            meet(runtime)
        except Exception:
            _log.exception("%r raised on a new runtime", meet)


@says_what_it_takes
def register(name: str, factory: Factory, **options: Any) -> ServiceHandle:
    """Register a service with the kernel's runtime and return its handle; nothing is loaded yet.

    `factory` is a class, any callable, or ``"module:attribute"``. Options: `config` (a dict of its keyword
    arguments), `needs`, `memory`, `budget`, `priority`, `ttl`, `engine`, `concurrency`, `version`, and how
    its calls are guarded: `timeout`, `retry`, `breaker`, `max_waiting`, `fallback`, `device`, `exclusive`;
    see `ServiceRegistry.register`.
    """
    return current().registry.register(name, factory, **options)


@says_what_it_takes
def get(name: str) -> ServiceHandle:
    """Return the handle of a service of the kernel's runtime; an unknown name says which is closest."""
    return current().registry[name]


@says_what_it_takes
def submit(task: str | Task, /, *args: Any, **kwargs: Any) -> Call:
    """Send a `Task`, or a task type with arguments, to the service that declares the type; see `Call`."""
    return current().submit(task, *args, **kwargs)


@says_what_it_takes
def run(type: str, /, *args: Any, **kwargs: Any) -> Any:
    """Call the service that declares the task type, and return its answer."""
    return current().run(type, *args, **kwargs)


def _close() -> None:
    # The kernel is going: nobody waits half a minute for a call that hangs.
    if _kernel is not None and not _kernel._closed:
        going = ", ".join(f"{frame.title} (call {frame.id})" for frame in _kernel.registry.running())
        try:
            _kernel.close(timeout=_LAST_SECONDS)
        except StorageError as error:
            _log.error("not all of the context could be written: %s", error)
        if going and (left := _kernel.registry.running()):
            _log.warning("the process ends, and with it %d call(s) that still run: %s", len(left), going)
