"""The calls of a registry as a sheet: what is under way and how far it is, and what ended; their cancel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grym_nb.errors import CommandError
from grym_nb.notebook.sheet import Sheet
from grym_nb.notebook.typed import value_of
from grym_nb.render import Table, seconds
from grym_nb.services.status import asks_for, is_left_behind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grym_nb.services import ServiceRegistry
    from grym_nb.services.frame import Frame

__all__ = ["calls_of", "cancel"]

_RECENT = 20


def cancel(registry: ServiceRegistry, words: Sequence[str], variables: Mapping[str, Any]) -> Sheet:
    """Ask calls to end, by the numbers that `calls_of` shows; an unknown number cancels none of them.

    ``$name`` is the number, or the `Call`, of that name; ``all`` are those under way.
    """
    under_way = {frame.id: frame for frame in (*registry.running(), *registry.waiting())}
    if list(words) == ["all"]:
        ids = list(under_way)
        if not ids:
            return Sheet("no call is under way")
    else:
        ids = [_number(word, variables) for word in words]
    unknown = [str(id) for id in ids if id not in under_way]
    if unknown:
        known = ", ".join(f"{id} ({frame.title})" for id, frame in under_way.items())
        raise CommandError(
            f"no call {', '.join(unknown)} is under way",
            hint=f"these are: {known or 'none'}; see %grym calls",
        )
    # Those in line first: else they would be let in by the end of the others.
    order = sorted(set(ids), key=lambda id: under_way[id].place is not None)
    told = {id: _cancelled(under_way[id]) for id in order}
    return Sheet("", tuple(told[id] for id in dict.fromkeys(ids)))


def _number(word: str, variables: Mapping[str, Any]) -> int:
    value = value_of(word, variables)
    number = getattr(value, "id", value)
    if isinstance(number, int) and not isinstance(number, bool):
        return number
    raise CommandError(
        f"%grym cancel takes numbers of calls, not {word!r}",
        hint="%grym calls shows them; all takes each",
    )


def _cancelled(frame: Frame) -> str:
    if frame.cancel():
        when = "has ended" if frame.ended else "ends at its next track() step, or await"
        return f"{frame.id} {frame.title} is cancelled; it {when}"
    if frame.what == "use":
        return f"{frame.id} {frame.title} is a with block: it ends when the block is left"
    if not frame.ended:
        cure = f"%grym unload {frame.record.name} lets go of it"
        return f"{frame.id} {frame.title} was asked to stop, and still runs; {cure}"
    return f"{frame.id} {frame.title} has ended already"


def calls_of(registry: ServiceRegistry) -> Sheet:
    """Return the calls under way, oldest first, those in line, and the last ones that ended, newest first."""
    computing, in_line, over = registry.running(), registry.waiting(), registry.calls()
    now = registry.ports.clock()  # after what is timed by it
    running = [_under_way(frame, now, _progress(frame)) for frame in computing]
    running += [_under_way(frame, now, _waits(frame)) for frame in in_line]
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
        for call in over[: -_RECENT - 1 : -1]
    ]
    columns = ("call", "task", "since", "progress", "left", "deadline")
    return Sheet(
        "",
        (
            Table("calls under way", columns, running, empty="none"),
            Table(
                "the last calls",
                ("call", "task", "version", "ended", "took", "when", "error"),
                ended,
                empty="none yet",
            ),
        ),
    )


def _under_way(frame: Frame, now: float, how: str) -> tuple[str, ...]:
    eta = frame.progress.eta(now) if frame.progress is not None else None
    left = None if frame.deadline is None else frame.deadline - now
    return (
        str(frame.id),
        frame.title,
        seconds(now - frame.started),
        how,
        seconds(eta) if eta is not None else "",
        "" if left is None else f"{seconds(left)} left" if left > 0 else "stuck",
    )


def _waits(frame: Frame) -> str:
    return f"waits for {frame.pauses}" if frame.pauses else "waiting"


def _progress(frame: Frame) -> str:
    if told := asks_for(frame):
        return f"waits for {told}"
    if is_left_behind(frame):
        return "in a model let go of"
    return frame.progress.told if frame.progress is not None else ""


def _first_line(text: str) -> str:
    """Return the first line of an error, cut to what fits in a table."""
    line = text.split("\n", 1)[0]
    return line if len(line) <= 100 else f"{line[:99]}…"
