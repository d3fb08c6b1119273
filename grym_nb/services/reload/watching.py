"""Saved files put in force by themselves: what changes on disk is reloaded, in all services made of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from grym_nb.errors import GrymError, StateError
from grym_nb.events import ServiceChanged, ServiceEvent, ServiceRegistered, ServiceReloaded, StateChanged
from grym_nb.services.reload.reloading import reload
from grym_nb.services.reload.sources import modules_of
from grym_nb.services.reload.watch import Watch, WatchStatus

if TYPE_CHECKING:
    from grym_nb.services.record import ServiceRecord
    from grym_nb.services.registry import ServiceRegistry

__all__ = ["Watching"]

#: after which services may be made of other files
_OTHERS = (ServiceRegistered, ServiceChanged, ServiceReloaded, StateChanged)

_log = logging.getLogger(__name__)


class Watching:
    """Whether the files of a registry's services are watched; off until somebody says `on`."""

    def __init__(self, registry: ServiceRegistry) -> None:
        self._registry = registry
        self._watch = Watch(registry.ports.pulse, self._saved)
        self._deaf: Callable[[], None] | None = None  # ends that it hears of services

    def on(self) -> WatchStatus:
        """Reload from now on whatever is saved."""
        codebase, events = self._registry.codebase, self._registry.ports.events
        self._watch.on(codebase.paths, codebase.is_newer, codebase.reads)
        if self._deaf is None:
            self._deaf = events.subscribe(self._others, *_OTHERS)
        return self._watch.status()

    def off(self) -> WatchStatus:
        """Leave it to `reload()` again."""
        deaf, self._deaf = self._deaf, None
        if deaf is not None:
            deaf()
        self._watch.off()
        return self._watch.status()

    def status(self) -> WatchStatus:
        """Tell whether files are watched, how, and which."""
        return self._watch.status()

    def _others(self, event: ServiceEvent) -> None:
        """Follow what else services are made of by now: others, or what new code imports."""
        with suppress(StateError):  # the pulse is closed
            self._registry.ports.pulse.work(self._watch.refresh, name="files to watch")

    def _saved(self, paths: frozenset[str]) -> None:
        for record in self._made_of(paths):
            try:
                reload(self._registry, record, by="watch")
            except GrymError as error:  # the old code serves; the history has it, and who looks at events
                _log.warning("%s", error)

    def _made_of(self, paths: frozenset[str]) -> Iterator[ServiceRecord]:
        """Yield the services of which something is in those files; one of each that are reloaded together."""
        codebase = self._registry.codebase
        done: set[str] = set()
        for handle in self._registry.handles():
            record = handle._record
            if isinstance(record.spec.factory, str) and "callable" not in record.spec.__dict__:
                continue
            family = codebase.family(*modules_of(record.spec))
            its = frozenset(codebase.path_of(name) for name in family) & paths
            if its - done:
                done |= its
                yield record
