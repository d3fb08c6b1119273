"""`%grym metrics`: how the calls of the services went lately, as a table with small pictures; or exported."""

from __future__ import annotations

import html
import re
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from grym_nb.errors import CommandError
from grym_nb.health.vitals import failures
from grym_nb.metrics import export
from grym_nb.metrics.history import accepts
from grym_nb.metrics.overview import in_words
from grym_nb.metrics.series import HOUSE
from grym_nb.metrics.tracking import OPERATION
from grym_nb.notebook.pictures import spark, spark_image
from grym_nb.notebook.sheet import Picture, Sheet
from grym_nb.render import Table, seconds, size

if TYPE_CHECKING:
    from grym_nb.metrics import Metrics, Sample
    from grym_nb.runtime import Runtime

__all__ = ["EXPORTS", "alone", "lasting", "metrics", "window_of"]

_SINCE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)", re.IGNORECASE)
_UNITS = {"seconds": 1.0, "minutes": 60.0, "hours": 3600.0, "days": 86_400.0}  # the start of one is enough
_LATELY = "5m"
_OF_A_TIME = ("json", "csv")
_POINTS = 40  # of a small picture
_SHOWN = 30  # series of one's own


def metrics(runtime: Runtime, given: Namespace) -> Sheet:
    """Return the figures of all services, or of one, over a time; or write them to a file."""
    typed = {name: getattr(given, name) is not None for name in ("service", "since", "export", "serve")}
    alone("metrics", typed, "serve")
    if given.export is not None:
        return _export(runtime, given.export, given.service, given.since)
    if given.serve is not None:
        return _serve(runtime, given.serve)
    window = window_of(given.since or _LATELY)
    runtime.history.step()
    if given.service is not None:
        return _one(runtime, given.service, window)
    names = [handle.name for handle in runtime.registry.handles() if handle.metrics().calls]
    sheet = _table(runtime, names, window)
    return Sheet("", (*sheet.parts, *_operations(runtime, window), *_own(runtime, window)))


def alone(command: str, typed: Mapping[str, bool], *options: str) -> None:
    """Refuse what was typed beside an option that goes with nothing else."""
    for option in options:
        others = [
            "a service" if name == "service" else f"--{name}" for name, is_typed in typed.items() if is_typed
        ]
        if typed[option] and len(others) > 1:
            others.remove(f"--{option}")
            told = f"%grym {command} --{option} does not go together with {' and '.join(others)}"
            raise CommandError(told, hint="nothing was done; type them one after the other")


def window_of(words: str) -> float:
    """Return the seconds of a time as it is typed: ``90``, ``5m``, ``10min``, ``"2 hours"``."""
    match = _SINCE.fullmatch(words.strip())
    typed = match[2].lower() if match else ""
    unit = next((seconds for name, seconds in _UNITS.items() if name.startswith(typed)), 0.0)
    found = float(match[1]) * unit if match else 0.0
    if not 1.0 <= found <= 86_400.0:
        raise CommandError(
            f"--since {words}: a time from 1 s to a day was expected", hint="such as 90, 5m or 2h"
        )
    return found


def lasting(window: float) -> str:
    """Return a time that somebody has chosen, in words: without the zeros at its end."""
    if window == inf:
        return "ever"
    return seconds(window).removesuffix(" 0 s").removesuffix(" 0 min")


def _table(runtime: Runtime, names: list[str], window: float) -> Sheet:
    rows = [_row(runtime, name, window) for name in names]
    columns = ("service", "calls", "a minute", "failed", "p50", "p95", "p99", "p95 over the time")
    title = f"the last {lasting(window)}"
    table = Table(title, columns, [row for row, _ in rows], empty="no service has been called yet")
    pictures = [picture for _, picture in rows if picture is not None]
    return Sheet("", (table, *pictures))


def _row(runtime: Runtime, name: str, window: float) -> tuple[tuple[str, ...], Picture | None]:
    by = runtime.history.by("service.call.seconds", "outcome", window, service=name)
    waited_out = runtime.history.window("service.call.waited_out", window, service=name).count
    failed = sum(failures({outcome: its.count for outcome, its in by.items()}, int(waited_out)).values())
    calls = sum(its.count for its in by.values())
    answered = by.get("ok")
    told = [
        seconds(value) if value is not None else "-"
        for value in ((answered.p50, answered.p95, answered.p99) if answered is not None else (None,) * 3)
    ]
    rate = sum(its.rate or 0.0 for its in by.values()) * 60.0
    values = _thinned(runtime, name, window)
    row = (name, str(calls), f"{rate:.1f}", str(failed) if failed else "", *told, spark(values))
    if not any(value is not None for value in values):
        return row, None
    words = f"{name}: p95 of its calls over {lasting(window)}, now {told[1]}"
    picture = f"<p>{html.escape(name)} {spark_image(values, words)}</p>"
    return row, Picture("", picture)


def _thinned(runtime: Runtime, name: str, window: float) -> list[float | None]:
    """Return the p95 over the time as so many points; None where nothing was called."""
    points = runtime.history.points("service.call.seconds", window, figure="p95", service=name, outcome="ok")
    now = time.time()
    values: list[float | None] = [None] * _POINTS
    for at, value in points:
        slot = min(_POINTS - 1, max(0, int((at - (now - window)) / window * _POINTS)))
        before = values[slot]
        values[slot] = value if before is None else max(before, value)
    return values


def _one(runtime: Runtime, name: str, window: float) -> Sheet:
    runtime.registry[name]
    tasks = runtime.history.by("service.call.seconds", "task", window, service=name, outcome="ok")
    rows = [
        (
            task,
            str(its.count),
            *(seconds(v) if v is not None else "-" for v in (its.p50, its.p95, its.p99, its.high)),
        )
        for task, its in sorted(tasks.items())
    ]
    outcomes = runtime.history.by("service.call.seconds", "outcome", window, service=name)
    ended = ", ".join(f"{its.count} {outcome}" for outcome, its in sorted(outcomes.items())) or "none"
    columns = ("task", "answers", "p50", "p95", "p99", "max")
    table = Table(f"{name}, the last {lasting(window)}: {ended}", columns, rows, empty="nothing was answered")
    whole = _table(runtime, [name], window)
    return Sheet("", (table, *[part for part in whole.parts if isinstance(part, Picture)]))


# -- of one's own ----------------------------------------------------------------------------------


def _operations(runtime: Runtime, window: float) -> tuple[Table, ...]:
    """Return what was tracked, if anything was."""
    rows = []
    for tags in sorted(runtime.history.groups(OPERATION, ("operation",))):
        asked = dict(tags)
        by = runtime.history.by(OPERATION, "outcome", window, **asked)
        whole = runtime.history.window(OPERATION, window, **asked)
        failed = sum([its.count for outcome, its in by.items() if outcome != "ok"])
        figures = [in_words("seconds", value) for value in (whole.p50, whole.p95, whole.p99)]
        rate = (whole.rate or 0.0) * 60.0
        ended = str(failed) if failed else ""
        rows.append((asked["operation"], f"{whole.count:g}", f"{rate:.1f}", ended, *figures))
    columns = ("operation", "times", "a minute", "failed", "p50", "p95", "p99")
    return (Table("your own operations", columns, rows),) if rows else ()


def _own(runtime: Runtime, window: float) -> tuple[Table, ...]:
    """Return the other series that are the user's own, if there are any."""
    series = [one for one in runtime.history.series() if one[0] != OPERATION and not one[0].startswith(HOUSE)]
    rows = []
    for name, kind, tags in series[:_SHOWN]:
        its = runtime.history.window(name, window, **dict(tags))
        if kind == "gauge":
            told = ("", in_words(name, its.last), in_words(name, its.low), in_words(name, its.high))
        elif kind == "counter":
            told = (f"{its.count:g}", "", "", "")
        else:
            told = (
                f"{its.count:g}",
                in_words(name, its.p50),
                in_words(name, its.low),
                in_words(name, its.high),
            )
        rows.append((name, ", ".join([f"{tag}={value}" for tag, value in tags]), kind, *told))
    more = f", and {len(series) - _SHOWN} more" if len(series) > _SHOWN else ""
    columns = ("series", "tags", "kind", "came", "is, or p50", "lowest", "highest")
    return (Table(f"your own series{more}", columns, rows),) if rows else ()


# -- to a file -------------------------------------------------------------------------------------


EXPORTS: Mapping[str, Callable[[Metrics | Iterable[Sample]], str]] = {
    "prometheus": export.prometheus,
    "openmetrics": export.openmetrics,
    "json": export.to_json,
    "csv": export.to_csv,
}


def _export(runtime: Runtime, words: list[str], service: str | None, since: str | None) -> Sheet:
    form, *rest = words
    if form not in EXPORTS or len(rest) > 1:
        raise CommandError(
            f"%grym metrics --export {' '.join(words)}", hint=f"one of {', '.join(EXPORTS)}, and a file"
        )
    if since is not None and form not in _OF_A_TIME:
        raise CommandError(
            f"%grym metrics --since {since} --export {form}: such a text holds totals, of no time",
            hint=f"over a time: {' or '.join(_OF_A_TIME)}; or leave --since out",
        )
    source = _source(runtime, service, since)
    text = EXPORTS[form](source)
    if not rest:
        return Sheet("", (text,))
    path = Path(rest[0]).expanduser()
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"%grym metrics --export: {error.strerror}: {path}") from None
    return Sheet(f"{len(source)} series as {form} in {path} ({size(len(text.encode()))})")


def _source(runtime: Runtime, service: str | None, since: str | None) -> Metrics | Sequence[Sample]:
    """Return all that is measured, or what is of one service, or what came over a time."""
    if service is None and since is None:
        return runtime.metrics
    tags = {} if service is None else {"service": runtime.registry[service].name}
    if since is not None:
        runtime.history.step()
        return runtime.history.samples(window_of(since), **tags)
    fits = accepts(tags)
    return [sample for sample in runtime.metrics.snapshot() if fits(dict(sample.tags))]


def _serve(runtime: Runtime, port: str) -> Sheet:
    """Let a Prometheus on this machine scrape the metrics; return what it has to be told."""
    if port == "off":
        runtime.serve_metrics().close()
        return Sheet("nobody can scrape the metrics any more")
    if not port.isdecimal():
        raise CommandError(f"%grym metrics --serve {port}", hint="a port such as 9100, none for any, or off")
    endpoint = runtime.serve_metrics(port=int(port))
    told = f"""scrape_configs:
  - job_name: grym_nb
    static_configs: [{{targets: ["127.0.0.1:{endpoint.port}"]}}]
    authorization: {{credentials: {endpoint.token}}}"""
    return Sheet(f"served at {endpoint.url}, until %grym metrics --serve off; for prometheus.yml:", (told,))
