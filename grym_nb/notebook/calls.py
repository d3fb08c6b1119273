"""The calls of a registry as a sheet: what runs now and how far it is, and what ended lately."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grym_nb.notebook.sheet import Sheet
from grym_nb.render import Table, seconds

if TYPE_CHECKING:
    from grym_nb.services import ServiceRegistry

__all__ = ["calls_of"]

_RECENT = 20


def calls_of(registry: ServiceRegistry) -> Sheet:
    """Return the running calls, oldest first, and the last ones that ended, newest first."""
    now = registry.ports.clock()
    running = []
    for frame in registry.running():
        progress, deadline = frame.progress, frame.deadline
        running.append(
            (
                str(frame.id),
                frame.title,
                seconds(now - frame.started),
                progress.told if progress is not None else "",
                seconds(eta) if progress is not None and (eta := progress.eta(now)) is not None else "",
                "" if deadline is None else f"{seconds(deadline - now)} left" if deadline > now else "stuck",
            )
        )
    ended = [
        (
            str(call.id),
            f"{call.service}.{call.task}",
            call.version,
            call.outcome,
            seconds(call.seconds),
            f"{seconds(now - call.at)} ago",
            _first_line(call.error),
        )
        for call in registry.calls()[: -_RECENT - 1 : -1]
    ]
    columns = ("call", "task", "running for", "progress", "left", "deadline")
    return Sheet(
        "",
        (
            Table("running calls", columns, running, empty="none"),
            Table(
                "the last calls",
                ("call", "task", "version", "ended", "took", "when", "error"),
                ended,
                empty="none yet",
            ),
        ),
    )


def _first_line(text: str) -> str:
    """Return the first line of an error, cut to what fits in a table."""
    line = text.split("\n", 1)[0]
    return line if len(line) <= 100 else f"{line[:99]}…"
