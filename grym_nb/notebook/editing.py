"""`%grym reload` of several services, and `%grym watch`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from grym_nb.errors import CommandError, ReloadFailed, closest
from grym_nb.notebook.sheet import Sheet
from grym_nb.render import Table, count, seconds

if TYPE_CHECKING:
    from grym_nb.services import ServiceHandle, ServiceRegistry
    from grym_nb.services.reload.report import Reload
    from grym_nb.services.reload.watch import WatchStatus

__all__ = ["reload", "watch"]

_ACTIONS = ("on", "off", "status")


def reload(handles: Sequence[ServiceHandle], *, force: bool, share: float | None = None) -> object:
    """Reload services; return the report of one, of several the table of them.

    Where one of several is refused, the others are reloaded all the same.
    """
    __tracebackhide__ = True
    if len(handles) == 1:
        return handles[0].reload(force=force, share=share)
    before = {handle.name: handle.reloads[-1:] for handle in handles}
    reports = [_reloaded(handle, force, share, before[handle.name]) for handle in handles]
    rows = [
        (
            *(one.service, one.how, f"{one.before} → {one.after}" if one.before != one.after else one.after),
            *(seconds(sum(one.seconds.values())) if one.seconds else "", one.why),
        )
        for one in reports
    ]
    refused = sum(one.how == "refused" for one in reports)
    caption = f"reloads, {refused} of them refused" if refused else "reloads"
    return Table(caption, ("service", "how", "version", "took", "why"), rows)


def _reloaded(handle: ServiceHandle, force: bool, share: float | None, before: tuple[Reload, ...]) -> Reload:
    try:
        report = handle.reload(force=force, share=share)
    except ReloadFailed as refused:
        report = refused.report
    last = handle.reloads[-1:]
    # One that was reloaded with another, a moment ago, has nothing new any more.
    return last[0] if report.how == "unchanged" and last != before else report


def watch(registry: ServiceRegistry, action: str) -> Sheet:
    """Watch the files of the services, or end that; return how it stands."""
    if action not in _ACTIONS:
        raise CommandError(
            f"%grym watch {action}: on, off or status was expected.{closest(action, _ACTIONS)}",
            hint="%grym watch on",
        )
    watching = registry.watching
    return Sheet(_in_words({"on": watching.on, "off": watching.off, "status": watching.status}[action]()))


def _in_words(status: WatchStatus) -> str:
    if not status.is_on:
        return (
            "files are not watched: %grym reload SERVICE reads what was saved, %grym watch on does it for you"
        )
    if not status.files:
        return "watching: no file yet, since no service that is registered comes from one"
    how = "told by the system" if status.how == "events" else "looked at again and again"
    why = f" ({status.why})" if status.why else ""
    changes = f"; {count(status.changes, 'change')} so far" if status.changes else ""
    return f"watching {count(status.files, 'file')}, {how}{why}{changes}: what is saved is in force at once"
