"""What a page asks for: done on threads of their own, and told of while it is under way and afterwards."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from grym_nb.clock import Clock
from grym_nb.errors import CommandError, GrymError, Interrupted
from grym_nb.notebook.calls import cancel
from grym_nb.notebook.panels.snapshot import WINDOWS, Charted, Doing
from grym_nb.services.failure import Failure

if TYPE_CHECKING:
    from grym_nb.pulse import Workers
    from grym_nb.services import ServiceHandle, ServiceRegistry

__all__ = ["ACTIONS", "Orders"]

_KEPT = 40
_log = logging.getLogger(__name__)


def _load(handle: ServiceHandle) -> str:
    handle.load()
    return "loaded"


def _unload(handle: ServiceHandle) -> str:
    handle.unload()
    return "unloaded"


def _reload(handle: ServiceHandle) -> str:
    return handle.reload().line


def _rollback(handle: ServiceHandle) -> str:
    return handle.rollback().line


#: what can be asked of a service: does it, and says what came of it
ACTIONS: Mapping[str, Callable[[ServiceHandle], str]] = {
    "load": _load,
    "unload": _unload,
    "reload": _reload,
    "rollback": _rollback,
}


class Orders:
    """Takes what a page asks for, in whatever thread, and does it on workers, one thing at a time a service.

    `doings` is what is under way and what has ended; `charted` what charts are asked to be of. `changed` is
    called when either is another.
    """

    def __init__(
        self,
        registry: ServiceRegistry,
        workers: Workers,
        changed: Callable[[], object],
        *,
        wall: Clock = time.time,
    ) -> None:
        self.charted = Charted()
        self._registry = registry
        self._workers = workers
        self._changed = changed
        self._wall = wall
        self._lock = threading.Lock()
        self._latest: dict[str, Doing] = {}
        self._failed: deque[Doing] = deque(maxlen=_KEPT)

    @property
    def doings(self) -> tuple[Doing, ...]:
        """What failed before, and the last that was asked of each service, the oldest first."""
        with self._lock:
            every = dict.fromkeys([*self._failed, *self._latest.values()])
        return tuple(sorted(every, key=lambda doing: doing.at))

    def take(self, message: Mapping[str, Any]) -> bool:
        """Do what a message asks for; return whether it is anything that can be asked for."""
        match message:
            case {"do": str(what), "service": str(name)} if what in ACTIONS:
                self._begin(what, name)
            case {"do": "cancel", "call": str(number)}:
                self._cancel(number)
            case {"do": "chart", "service": str() | None as name, "window": int() | float() as window}:
                if window in WINDOWS:
                    self.charted = Charted(name, float(window))
            case _:
                return False
        self._changed()
        return True

    def _begin(self, what: str, name: str) -> None:
        doing = Doing(name, what, "running", self._wall())
        with self._lock:
            before = self._latest.get(name)
            if before is not None and before.state == "running":
                return  # a second click
            self._latest[name] = doing
        self._workers.run(partial(self._do, doing))

    def _do(self, doing: Doing) -> None:
        try:
            told = ACTIONS[doing.what](self._registry[doing.service])
            ended = Doing(doing.service, doing.what, "done", self._wall(), " ".join(told.split()))
        except (Exception, Interrupted) as error:
            ended = Doing(doing.service, doing.what, "failed", self._wall(), _first_line(error), _why(error))
        with self._lock:
            self._latest[doing.service] = ended
            if ended.state == "failed":
                self._failed.append(ended)
        self._changed()

    def _cancel(self, number: str) -> None:
        # Here and now: it only asks, and whoever clicked it wants it before all that waits for a thread.
        try:
            cancel(self._registry, [number], {})
        except CommandError:
            _log.debug("call %s had ended when it was to be cancelled", number)


def _first_line(error: BaseException) -> str:
    told = error.message if isinstance(error, (GrymError, Interrupted)) else str(error)
    return " ".join(told.split()) or type(error).__name__


def _why(error: BaseException) -> str:
    failure = getattr(error, "failure", None)
    more = f"\n\n{failure.text()}" if isinstance(failure, Failure) else ""
    return f"{type(error).__name__}: {error}{more}"
