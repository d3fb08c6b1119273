"""IPython's `%autoreload` beside ours: what is reloaded here with its weights, it leaves alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from grym_nb.services.reload.versions import Followed

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from grym_nb.services import ServiceRegistry

__all__ = ["Skipped"]


class Skipped:
    """The modules that the reloaders of a shell are told to skip, and what they were told before.

    Those of services whose files are watched, and those that were reloaded here once: what everybody has of
    these is a module that forwards to its newest version, and to run it again would put an end to that.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._registry: ServiceRegistry | None = None
        #: by reloader, the modules it skips for us, and whether it was told to reload each
        self._told: WeakKeyDictionary[Any, dict[str, bool]] = WeakKeyDictionary()

    def meet(self, registry: ServiceRegistry) -> Callable[[], None]:
        """Go by the services of this registry from now on; return what ends that."""
        self._registry = registry
        return self._part

    def _part(self) -> None:
        self._registry = None

    def look(self, *_: object) -> None:
        """Tell each reloader what to skip by now, and what no longer."""
        reloaders = list(_reloaders(self._shell))
        if not reloaders or self._registry is None:
            return
        names = _ours(self._registry)
        for reloader in reloaders:
            told = self._told.setdefault(reloader, {})
            for name in names:
                if name not in reloader.skip_modules:
                    told[name] = name in reloader.modules
                    reloader.mark_module_skipped(name)
            for name in told.keys() - names:
                reloader.skip_modules.pop(name, None)
                if told.pop(name):
                    reloader.mark_module_reloadable(name)


def _ours(registry: ServiceRegistry) -> set[str]:
    """Return the modules that are watched, or were reloaded."""
    followed = registry.codebase.names()
    if registry.watching.status().is_on:
        return set(followed)
    return {name for name in followed if isinstance(sys.modules.get(name), Followed)}


def _reloaders(shell: InteractiveShell) -> Iterator[Any]:
    """Yield what `%load_ext autoreload` has put into a shell; loaded again, there is another beside it."""
    events: Any = shell.events
    for hook in events.callbacks["pre_run_cell"]:
        reloader = getattr(getattr(hook, "__self__", None), "_reloader", None)
        if hasattr(reloader, "mark_module_skipped"):
            yield reloader
