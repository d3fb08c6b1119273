"""Saved files put in force by themselves: what changes on disk is reloaded, in all services made of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from grym_nb.errors import GrymError
from grym_nb.services.reload.reloading import reload
from grym_nb.services.reload.sources import module_of
from grym_nb.services.reload.watch import Watch, WatchStatus

if TYPE_CHECKING:
    from grym_nb.services.record import ServiceRecord
    from grym_nb.services.registry import ServiceRegistry

__all__ = ["Watching"]

_log = logging.getLogger(__name__)


class Watching:
    """Whether the files of a registry's services are watched; off until somebody says `on`."""

    def __init__(self, registry: ServiceRegistry) -> None:
        self._registry = registry
        self._watch = Watch(registry.ports.pulse, self._saved)

    def on(self) -> WatchStatus:
        """Reload from now on whatever is saved."""
        self._watch.on(self._registry.codebase.paths)
        return self._watch.status()

    def off(self) -> WatchStatus:
        """Leave it to `reload()` again."""
        self._watch.off()
        return self._watch.status()

    def status(self) -> WatchStatus:
        """Tell whether files are watched, how, and which."""
        return self._watch.status()

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
            module = module_of(record.spec.callable)
            its = frozenset(codebase.path_of(name) for name in codebase.family(module)) & paths
            if its - done:
                done |= its
                yield record
