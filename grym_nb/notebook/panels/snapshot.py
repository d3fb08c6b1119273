"""One look at a runtime: everything that panels show, as it was at one moment, and nothing that lives.

Times are times of day in UNIX seconds, and do not move from one look to the next: where nothing has
happened, views of two looks are equal. Figures that tremble by themselves, such as the
memory that is free, are as they were until they have changed by a share that can be seen.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from grym_nb.devices import process_memory
from grym_nb.errors import CallCancelled, ValidationError
from grym_nb.hardening.accounts import Accounts, Memory
from grym_nb.metrics.window import Figure
from grym_nb.notebook.panels.lines import Line, lines_of
from grym_nb.services.ports import Ended
from grym_nb.services.status import ServiceStatus, asks_for, is_left_behind, status_of

if TYPE_CHECKING:
    from grym_nb.health import HealthMonitor
    from grym_nb.runtime import Runtime
    from grym_nb.services.frame import Frame
    from grym_nb.services.handle import ServiceHandle

__all__ = [
    "FINE",
    "WINDOWS",
    "Charted",
    "Charts",
    "Doing",
    "Judged",
    "Points",
    "Seen",
    "Snapshot",
    "Under",
    "take",
]

#: over how many seconds charts go
WINDOWS: tuple[float, ...] = (60.0, 300.0, 900.0)
#: how calls end that say nothing against a service
FINE = frozenset({"ok", "cached", "fallback", ValidationError.code, CallCancelled.code, "interrupted"})
_FOR = re.compile(r", for [0-9.]+ (?:us|ms|s|min [0-9]+ s|h [0-9]+ min)(?=;|$)")
_BOOKS_EVERY = 1.0  # seconds between two looks at devices
_CHARTS_EVERY = 1.0
_TREMBLE = 0.01  # of the whole, by which a figure may move unseen
_ENDED = 12  # calls
_SPANS = 30  # of a timeline

#: when, and how much
Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Charted:
    """What charts are of: one service, or all of them together, and the last so many seconds."""

    service: str | None = None
    window: float = 300.0


@dataclass(frozen=True, slots=True)
class Doing:
    """Something a panel was asked to do with a service, and what came of it."""

    service: str
    what: str
    state: Literal["running", "done", "failed"]
    at: float
    told: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """A service: its status, since when it is in its state, and what can be done with it."""

    status: ServiceStatus
    since: float
    reasons: str
    expects: float | None  # seconds that its last load took
    earlier: bool  # there is a version to go back to
    doing: Doing | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """How the verdict on a service changed: from when on it was what, and why."""

    service: str
    spans: tuple[tuple[float, str, str], ...]


@dataclass(frozen=True, slots=True)
class Under:
    """A call that is under way, or in line."""

    id: int
    title: str
    service: str
    started: float
    note: str
    done: int = 0
    total: int | None = None
    counted_since: float | None = None
    deadline: float | None = None
    waits: bool = False
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Charts:
    """Figures over time: by name, when each slot ended and what the figure was in it."""

    charted: Charted
    series: Mapping[str, Points]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that panels show, as it was at `now`."""

    now: float
    shift: float  # from the runtime's clock to the time of day
    services: tuple[Seen, ...] = ()
    verdict: str = "unknown"
    reasons: tuple[str, ...] = ()
    judged: tuple[Judged, ...] = ()
    accounts: Accounts = field(default_factory=lambda: Accounts((), ()))
    used: int = 0  # bytes of this process
    charts: Charts = field(default_factory=lambda: Charts(Charted(), {}))
    under: tuple[Under, ...] = ()
    ended: tuple[Ended, ...] = ()
    lines: tuple[Line, ...] = ()
    looked_at: float = 0.0  # when the devices were
    charted_at: float = 0.0


def take(
    runtime: Runtime,
    *,
    charted: Charted | None = None,
    doings: Sequence[Doing] = (),
    before: Snapshot | None = None,
) -> Snapshot:
    """Look once. With the snapshot `before`, times agree with it and what is dear is looked at seldom.

    `doings` are what panels were asked to do, oldest first.
    """
    clock = runtime.registry.ports.clock
    shift = time.time() - clock() if before is None else before.shift
    handles = runtime.registry.handles()
    latest = {doing.service: doing for doing in doings}
    monitor = runtime.health
    services = tuple(
        _seen(handle, monitor, shift, latest.get(handle.name))
        for handle in handles
        if handle.state != "closed"
    )
    system = monitor.system()
    now = clock() + shift
    ended = runtime.registry.calls()
    found = Snapshot(
        now=now,
        shift=shift,
        services=services,
        verdict=system.verdict,
        reasons=tuple(_FOR.sub("", reason) for reason in system.reasons),
        judged=tuple(
            Judged(name, _spans([(one.at + shift, one.after, one.reason) for one in story], now))
            for name in system.services
            if (story := monitor.story(name))
        ),
        under=_under(runtime, shift),
        ended=tuple(call._replace(at=call.at + shift) for call in ended[: -_ENDED - 1 : -1]),
        lines=lines_of(runtime, shift, [call for call in ended if call.outcome not in FINE], doings),
    )
    return _with_charts(runtime, _with_books(runtime, found, before), charted or Charted(), before)


def _seen(handle: ServiceHandle, monitor: HealthMonitor, shift: float, doing: Doing | None) -> Seen:
    record = handle._record
    health = monitor.of(record.name)
    told = [sign.told for sign, _ in health.signs] or ([health.over[0]] if health.over is not None else [])
    return Seen(
        status_of(record),
        record.lifecycle.since + shift,
        "; ".join(told),
        record.load_seconds,
        any(number < record.code_version for number in tuple(record.specs)),
        doing,
    )


def _spans(changes: Sequence[tuple[float, str, str]], now: float) -> tuple[tuple[float, str, str], ...]:
    """Return the last changes; of those that came at the same moment, the last."""
    last = [one for one, after in pairwise([*changes, (now + 1.0, "", "")]) if after[0] > one[0]]
    return tuple(last[-_SPANS:])


# -- calls -----------------------------------------------------------------------------------------


def _under(runtime: Runtime, shift: float) -> tuple[Under, ...]:
    registry = runtime.registry
    running = [_call(frame, shift, waits=False) for frame in registry.running()]
    return (*running, *(_call(frame, shift, waits=True) for frame in registry.waiting()))


def _call(frame: Frame, shift: float, *, waits: bool) -> Under:
    progress = frame.progress
    call = Under(
        frame.id,
        frame.title,
        frame.record.name,
        frame.started + shift,
        _note(frame, waits=waits),
        deadline=None if frame.deadline is None else frame.deadline + shift,
        waits=waits,
        cancelled=frame.cancelled,
    )
    if progress is None or progress.note:
        return call
    done, total, since = progress.done, progress.total, progress.started + shift
    return replace(call, done=done, total=total, counted_since=since)


def _note(frame: Frame, *, waits: bool) -> str:
    if waits:
        return f"waits for {frame.pauses}" if frame.pauses else "in line"
    if told := asks_for(frame):
        return f"waits for {told}"
    if is_left_behind(frame):
        return "in a model let go of"
    progress = frame.progress
    return progress.note if progress is not None else ""


# -- memory ----------------------------------------------------------------------------------------


def _with_books(runtime: Runtime, found: Snapshot, before: Snapshot | None) -> Snapshot:
    if before is not None and found.now - before.looked_at < _BOOKS_EVERY:
        return replace(found, accounts=before.accounts, used=before.used, looked_at=before.looked_at)
    books, used = runtime.resources.books(), process_memory().rss
    if before is not None:
        known = {memory.device: memory for memory in before.accounts.devices}
        devices = tuple(_steady(memory, known.get(memory.device)) for memory in books.devices)
        books, used = replace(books, devices=devices), _still(used, before.used, before.used)
    return replace(found, accounts=books, used=used, looked_at=found.now)


def _steady(memory: Memory, before: Memory | None) -> Memory:
    """Return a device's memory, with what is free as it was where that has hardly changed."""
    if before is None or memory.free is None or before.free is None or memory.total is None:
        return memory
    return replace(memory, free=_still(memory.free, before.free, memory.total))


def _still(value: int, before: int, whole: int) -> int:
    return before if abs(value - before) <= _TREMBLE * whole else value


# -- charts ----------------------------------------------------------------------------------------


def _with_charts(runtime: Runtime, found: Snapshot, charted: Charted, before: Snapshot | None) -> Snapshot:
    fresh = (
        before is not None
        and before.charts.charted == charted
        and found.now - before.charted_at < _CHARTS_EVERY
    )
    if fresh and before is not None:
        return replace(found, charts=before.charts, charted_at=before.charted_at)
    series = _series(runtime, charted, found.shift)
    if before is not None and before.charts.charted == charted:
        series["memory"] = _held(series["memory"], before.charts.series.get("memory", ()))
    return replace(found, charts=Charts(charted, series), charted_at=found.now)


def _series(runtime: Runtime, charted: Charted, shift: float) -> dict[str, Points]:
    history, window = runtime.history, charted.window
    if not runtime.settings.health_seconds:  # else somebody does, once a second
        history.step()
    tags = {} if charted.service is None else {"service": charted.service}
    answered = history.stretch("service.call.seconds", window, outcome="ok", **tags)
    every = history.stretch("service.call.seconds", window, **tags)
    failed = history.stretch("service.call.seconds", window, outcome=lambda one: one not in FINE, **tags)
    name = "kernel.memory.bytes" if charted.service is None else "service.memory.bytes"
    held = history.stretch(name, window, **tags)
    percentiles: tuple[Figure, ...] = ("p50", "p95", "p99")
    series: dict[str, Points] = {figure: _moved(answered.points(figure), shift) for figure in percentiles}
    series["rate"] = _moved(_came(every.points("rate")), shift)
    series["failed"] = _moved(_came(failed.points("count")), shift)
    series["memory"] = _moved(_levels(held.points("value")), shift)
    return series


def _moved(points: Iterable[tuple[float, float]], shift: float) -> Points:
    return tuple((round(at + shift, 1), value) for at, value in points)


def _came(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points where something came, and the first without after it: the rest is nothing."""
    return [(at, value) for (_, before), (at, value) in pairwise([(0.0, 0.0), *points]) if value or before]


def _held(points: Points, before: Points) -> Points:
    """Return the points of a level; the first, from before their time, has the time at which it came."""
    came = [(at, value) for at, value in before if points and at <= points[0][0]][-1:]
    return (came[0], *points[1:]) if came and came[0][1] == points[0][1] else points


def _levels(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points at which a level has changed to be seen; in between it was as before."""
    kept: list[tuple[float, float]] = []
    for at, value in points:
        if not kept or abs(value - kept[-1][1]) > _TREMBLE * max(abs(value), abs(kept[-1][1])):
            kept.append((at, value))
    return kept
