"""Panels as text and as HTML that stays what it is: for notebooks that are looked at without a kernel.

The HTML is what sanitizers keep: tables, meters, and pictures as images; a state is a word.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from grym_nb.notebook.pictures import image, meter, spark, spark_image
from grym_nb.notebook.sheet import Picture, Sheet
from grym_nb.render import Table, count, seconds, size

__all__ = ["Parts", "Shown", "sheet_of"]

#: a view, as it is given
Shown = Mapping[str, Any]
#: what a view is made into
Parts = list[Table | Picture | str]

_MOST = 200  # characters in a cell
_LINES = 15  # of the log
_TIMELINES = 20
_COLOURS = {"healthy": "#2e7d32", "degraded": "#b26a00", "unhealthy": "#c62828", "unknown": "#757575"}
_POINTS = 40


def sheet_of(shown: Mapping[str, Shown], now: float) -> Sheet:
    """Return views, by name, as they are at `now`, a time of day in UNIX seconds."""
    parts: Parts = []
    for name, view in shown.items():
        parts += _SHEETS[name](view, now)
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    return Sheet(f"grym_nb, as of {at}", tuple(parts))


def _services(view: Shown, now: float) -> Parts:
    rows = [
        (
            _cut(row["id"]),
            row["state"] if not row["refuses"] else f"{row['state']}, breaker {row['refuses']}",
            row["health"],
            row["version"],
            f"{row['calls']}, {row['failed']} failed" if row["failed"] else str(row["calls"]),
            seconds(row["p95"]) if row["p95"] is not None else "",
            _memory_of(row),
            f"for {seconds(max(0.0, now - row['since']))}",
            _cut(_now_of(row)),
        )
        for row in view["rows"]
    ]
    columns = ("service", "state", "health", "version", "calls", "p95", "memory", "since", "now")
    about = f"Services, all together {view['verdict']}"
    reasons = f" ({'; '.join(view['reasons'])})" if view["reasons"] else ""
    return [Table(about + reasons, columns, rows, empty=view["empty"])]


def _memory_of(row: Shown) -> str:
    if row["parked"]:
        return f"{size(row['memory'])}, parked"
    if row["memory"] is None:
        return ""
    return size(row["memory"]) if row["held"] else f"{size(row['memory'])} as stated"


def _now_of(row: Shown) -> str:
    told = []
    doing = row["doing"]
    if doing is not None and doing["state"] == "running":
        told.append(f"{doing['what']} is under way")
    if row["running"]:
        told.append(f"{row['running']} running")
    if row["waiting"]:
        told.append(f"{row['waiting']} waiting")
    return ", ".join(told) or row["why"] or row["error"]


def _charts(view: Shown, now: float) -> Parts:
    window = view["window"]
    about = f"Metrics of {view['service'] or 'all services'}, the last {round(window / 60)} min"
    rows, pictures = [], []
    for name, words, told in _FIGURES:
        points = [(at, value) for at, value in view["series"].get(name, ()) if at > now - window]
        if not points:
            continue
        values = [value for _, value in points]
        spread = _spread(points, now, window, held=name == "memory")
        rows.append((words, told(values[-1]), told(min(values)), told(max(values)), spark(spread)))
        title = f"{words}, at last {told(values[-1])}, at most {told(max(values))}"
        pictures.append(Picture("", f"<p>{words} {spark_image(spread, title, width=240, height=32)}</p>"))
    columns = ("figure", "last", "least", "most", "over the time")
    return [Table(about, columns, rows, empty=view["empty"]), *pictures]


def _spread(
    points: Sequence[tuple[float, float]], now: float, window: float, *, held: bool
) -> list[float | None]:
    """Return points as so many values over the time; a level that is held is there until the next."""
    values: list[float | None] = [None] * _POINTS
    for at, figure in points:
        values[min(_POINTS - 1, max(0, int((at - now + window) / window * _POINTS)))] = figure
    if held:
        last: float | None = None
        for slot, value in enumerate(values):
            last = values[slot] = value if value is not None else last
    return values


def _rate(value: float) -> str:
    return f"{value:.3g} a second"


_FIGURES: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("p50", "p50 latency", seconds),
    ("p95", "p95 latency", seconds),
    ("p99", "p99 latency", seconds),
    ("rate", "calls", _rate),
    ("failed", "failures", lambda value: f"{value:.0f}"),
    ("memory", "memory", lambda value: size(int(value))),
)


def _memory(view: Shown, now: float) -> Parts:
    rows = [
        (
            row["id"],
            size(row["total"]),
            size(row["budget"]),
            size(row["taken"]),
            size(row["free"]),
            _cut(", ".join([f"{one['who']} {size(one['bytes'])}" for one in row["holders"]])),
        )
        for row in view["rows"]
    ]
    columns = ("device", "in all", "budget", "taken", "free", "who has it")
    caption = f"Memory, of which this process has {size(view['used'])}"
    bars = [
        _bar(row, bound) for row in view["rows"] if (bound := row["budget"] or row["total"]) and row["taken"]
    ]
    line = Table("in line for memory", ("who", "waits for", "since it lacks"), view["line"])
    return [Table(caption, columns, rows, empty=view["empty"]), *bars, *([line] if line.rows else [])]


def _bar(row: Shown, bound: int) -> Picture:
    words = f"{row['id']}: {size(row['taken'])} of {size(bound)}"
    return Picture("", f"<p>{meter(row['taken'] / bound, words)}</p>")


def _calls(view: Shown, now: float) -> Parts:
    under = [
        (
            row["id"],
            _cut(row["task"]),
            f"for {seconds(max(0.0, now - row['started']))}",
            _cut(_progress(row, now)),
        )
        for row in view["rows"]
    ]
    ended = [
        (
            *(row["id"], _cut(row["task"]), row["version"], row["outcome"], seconds(row["seconds"])),
            *(f"{seconds(max(0.0, now - row['at']))} ago", _cut(row["error"])),
        )
        for row in view["ended"]
    ]
    return [
        Table("Calls under way", ("call", "task", "since", "how far"), under, empty="none"),
        Table(
            "The last calls",
            ("call", "task", "version", "ended", "took", "when", "error"),
            ended,
            empty="none yet",
        ),
    ]


def _progress(row: Shown, now: float) -> str:
    if row["counted"] is None:
        return str(row["note"])
    done, total = row["done"], row["total"]
    if not total:
        return str(done)
    told = f"{done}/{total}"
    if 0 < done < total:
        told += f", about {seconds((now - row['counted']) / done * (total - done))} left"
    return told


def _health(view: Shown, now: float) -> Parts:
    rows, pictures = [], list[Picture]()
    for row in view["rows"]:
        at, verdict, why = row["spans"][-1]
        changes = count(len(row["spans"]), "change")
        rows.append((_cut(row["id"]), verdict, f"for {seconds(max(0.0, now - at))}", changes, _cut(why)))
        if len(row["spans"]) > 1 and len(pictures) < _TIMELINES:  # else it is one colour
            pictures.append(_timeline(row, now))
    columns = ("service", "health", "since", "changes", "why")
    return [Table("Health", columns, rows, empty=view["empty"]), *pictures]


def _timeline(row: Shown, now: float) -> Picture:
    spans = row["spans"]
    first = spans[0][0]
    whole = max(1.0, now - first)
    ends = [*[at for at, _, _ in spans[1:]], now]
    width = 240.0
    boxes = "".join(
        f'<rect x="{(at - first) / whole * width:.1f}" y="2" height="8" '
        f'width="{max(1.0, (end - at) / whole * width):.1f}" fill="{_COLOURS.get(verdict, "#757575")}"/>'
        for (at, verdict, _), end in zip(spans, ends, strict=True)
    )
    words = f"{_cut(row['id'])}: " + ", ".join([verdict for _, verdict, _ in spans])
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="240" height="12" viewBox="0 0 240 12">{boxes}</svg>'
    )
    return Picture("", f"<p>{image(svg, words)}</p>")


def _log(view: Shown, now: float) -> Parts:
    rows = [
        (
            time.strftime("%H:%M:%S", time.localtime(row["at"])),
            row["level"],
            _cut(row["service"]),
            _cut(row["text"]),
        )
        for row in view["rows"][:_LINES]
    ]
    return [Table("Log", ("at", "level", "service", "what"), rows, empty=view["empty"])]


def _cut(text: str) -> str:
    return text if len(text) <= _MOST else f"{text[: _MOST - 1]}…"


_SHEETS: Mapping[str, Callable[[Shown, float], Parts]] = {
    "services": _services,
    "metrics": _charts,
    "memory": _memory,
    "calls": _calls,
    "health": _health,
    "log": _log,
}
