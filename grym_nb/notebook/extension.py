"""`%load_ext grym_nb` and `%unload_ext grym_nb`: what is put into a shell, and taken out again."""

from __future__ import annotations

import logging
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from grym_nb.errors import GrymError
from grym_nb.events import AlertChanged, ServiceReloaded
from grym_nb.notebook.autoreload import Skipped
from grym_nb.notebook.breadcrumb import Crumbs, found
from grym_nb.notebook.completion import matcher_for
from grym_nb.notebook.feed import end_feeds
from grym_nb.notebook.magics import magic_for
from grym_nb.notebook.progress import displays_for
from grym_nb.notebook.sources import show_sources
from grym_nb.notebook.toast import Toasts
from grym_nb.runtime import on_kernel_runtime
from grym_nb.services.progress import on_progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from IPython.core.interactiveshell import InteractiveShell

    from grym_nb.runtime import Runtime

__all__ = ["install", "uninstall"]

_log = logging.getLogger(__name__)
_NAME = "grym"

#: what undoes each installation. `%reload_ext` does not reload this module, so it is not forgotten.
_installed: dict[InteractiveShell, ExitStack] = {}


def install(shell: InteractiveShell) -> None:
    """Put the magics, completion, progress and the look of errors into a shell; a second time does nothing.

    Services are in `grym_nb.runtime`, where an extension that is loaded again finds them.
    """
    if shell in _installed:
        return
    with ExitStack() as undo:
        _add_magics(shell, undo)
        _add_completion(shell, undo)
        _add_progress(shell, undo)
        _add_errors(shell, undo)
        undo.callback(end_feeds, shell)  # of `%grym context watch`
        undo.callback(_end_dashboard, shell)
        _add_breadcrumb(shell, undo)
        _add_toasts(shell, undo)
        _add_skipped(shell, undo)
        _add_lag(undo)
        undo.callback(show_sources())
        _installed[shell] = undo.pop_all()


def uninstall(shell: InteractiveShell) -> None:
    """Take out what `install` put in, in reverse order; services stay."""
    undo = _installed.pop(shell, None)
    if undo is not None:
        undo.close()


def _end_dashboard(shell: InteractiveShell) -> None:
    # Imported only where somebody has: it draws in ipywidgets and anywidget.
    dashboard = sys.modules.get("grym_nb.notebook.dashboard")
    if dashboard is not None:
        dashboard.end_dashboard(shell)


def _add_magics(shell: InteractiveShell, undo: ExitStack) -> None:
    ours = magic_for(shell)
    manager: Any = shell.magics_manager
    before = {kind: manager.magics[kind].get(_NAME) for kind in ("line", "cell")}
    held = vars(manager.user_magics).get(_NAME)
    manager.register_function(ours, "line_cell", _NAME)

    def remove() -> None:
        for kind, other in before.items():
            if manager.magics[kind].get(_NAME) is ours:  # somebody may have put theirs over it
                manager.magics[kind].pop(_NAME)
                if other is not None:
                    manager.magics[kind][_NAME] = other
        if vars(manager.user_magics).get(_NAME) is ours:
            delattr(manager.user_magics, _NAME)
            if held is not None:
                setattr(manager.user_magics, _NAME, held)

    undo.callback(remove)


def _add_breadcrumb(shell: InteractiveShell, undo: ExitStack) -> None:
    """Say what became of a kernel that was killed, and leave word of what this one does."""
    for line in found():
        _log.warning(line)

    def begin(runtime: Runtime) -> Callable[[], None]:
        crumbs = Crumbs(runtime)
        shell.events.register("post_run_cell", crumbs.look)

        def end() -> None:
            shell.events.unregister("post_run_cell", crumbs.look)
            crumbs.end()

        return end

    undo.callback(on_kernel_runtime(begin))


def _add_toasts(shell: InteractiveShell, undo: ExitStack) -> None:
    """Show what alerts say, and reloads that nobody asked for, where somebody looks: under the cells."""
    toasts = Toasts(lambda bundle: shell.display_pub.publish(dict(bundle)))
    undo.callback(on_kernel_runtime(lambda runtime: runtime.events.subscribe(toasts.hear, AlertChanged)))
    hear = toasts.hear_reload
    undo.callback(on_kernel_runtime(lambda runtime: runtime.events.subscribe(hear, ServiceReloaded)))
    quiet = logging.NullHandler()  # what is shown under a cell is not to be printed there as well
    log = logging.getLogger("grym_nb.services.reload")
    log.addHandler(quiet)
    undo.callback(log.removeHandler, quiet)
    for moment in ("pre_run_cell", "post_run_cell"):
        shell.events.register(moment, toasts.show)
        undo.callback(shell.events.unregister, moment, toasts.show)


def _add_skipped(shell: InteractiveShell, undo: ExitStack) -> None:
    """Have `%autoreload` leave alone what is reloaded here: before it looks, and after each cell."""
    skipped = Skipped(shell)
    undo.callback(on_kernel_runtime(lambda runtime: skipped.meet(runtime.registry)))
    for moment in ("pre_run_cell", "post_run_cell"):
        shell.events.register(moment, skipped.look)
        undo.callback(shell.events.unregister, moment, skipped.look)
    events: Any = shell.events
    before = events.callbacks["pre_run_cell"]
    before.remove(skipped.look)
    before.insert(0, skipped.look)  # `%autoreload` may be there already


def _add_lag(undo: ExitStack) -> None:
    """Measure how late the kernel's event loop is: cells are run on it, where they are run on one."""
    import asyncio

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return

    def begin(runtime: Runtime) -> Callable[[], None]:
        runtime.watch_loop(loop)
        return lambda: runtime.watch_loop(None)

    undo.callback(on_kernel_runtime(begin))


def _add_completion(shell: InteractiveShell, undo: ExitStack) -> None:
    matchers = getattr(shell.Completer, "custom_matchers", None)
    if matchers is None:
        return
    matcher = matcher_for(shell)
    matchers.append(matcher)
    undo.callback(lambda: matchers.remove(matcher) if matcher in matchers else None)


def _add_progress(shell: InteractiveShell, undo: ExitStack) -> None:
    displays = displays_for(shell)
    if displays is None:
        return
    undo.callback(on_progress(displays))
    shell.events.register("post_run_cell", displays.finish)
    undo.callback(shell.events.unregister, "post_run_cell", displays.finish)


def _add_errors(shell: InteractiveShell, undo: ExitStack) -> None:
    """An error that is looked at (`call.exception()`, `result.error`) is shown by its three lines."""
    display: Any = shell.display_formatter
    formatters = display.formatters
    for kind, show in (("text/plain", _as_text), ("text/html", _as_html)):
        before = formatters[kind].pop(GrymError, None)  # `for_type` would tell of a parent's, too
        formatters[kind].for_type(GrymError, show)
        undo.callback(_restore, formatters[kind], before)


def _restore(formatter: Any, before: Any) -> None:
    formatter.pop(GrymError, None)
    if before is not None:
        formatter.for_type(GrymError, before)


def _as_text(error: GrymError, printer: Any, cycle: bool) -> None:
    printer.text(f"{type(error).__name__}: {error}")


def _as_html(error: GrymError) -> str:
    import html

    return f"<pre>{html.escape(f'{type(error).__name__}: {error}')}</pre>"
