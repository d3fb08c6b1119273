"""How fast things were, to be compared with how fast they are: kept in a file, noise and all.

A baseline has for each series its figures over a time, and how much they differ between pieces of it. What
is worse than the noise of both explains, and by more than a fifth, is worse.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from math import hypot, inf, isfinite
from pathlib import Path
from statistics import median
from typing import Any, Literal, TypeAlias

from grym_nb.clock import Clock
from grym_nb.errors import ConfigError, Problem, StorageError, ValidationError, says_what_it_takes
from grym_nb.metrics.given import one_of
from grym_nb.metrics.histogram import Histogram
from grym_nb.metrics.history import History
from grym_nb.metrics.window import Kind, Seen, Stretch, Tags, Window
from grym_nb.render import Table, brief, seconds

__all__ = ["LEAST_RATIO", "Baseline", "Compared", "Report", "Usual", "compare", "load", "save", "take"]

_Verdict = Literal["better", "same", "worse", "new", "gone", "unsure"]
_Key: TypeAlias = tuple[str, Tags]

_SCHEMA = "grym_nb baseline 1"
#: how many times as slow is worse
LEAST_RATIO = 1.2
_PIECES = 6
_LEAST_VALUES = 10  # in all, below which a percentile is an accident
_NOISES = 3.0  # what the noise of both may explain, in spreads


@dataclass(frozen=True, slots=True)
class Usual:
    """One series over a time: its figures, and by name how much each of them differs between pieces of it.

    A spread is robust: 1.5 times the median distance from the median, which is a standard deviation where
    noise is even. A figure that is None made no sense; a spread that is missing could not be told.
    """

    name: str
    kind: Kind
    tags: Tags
    count: float
    rate: float | None
    mean: float | None
    p50: float | None
    p95: float | None
    spread: Mapping[str, float]


@dataclass(frozen=True, slots=True, repr=False)
class Baseline:
    """The usual figures of each series, over so many seconds that ended at a time of day (UNIX time)."""

    at: float
    seconds: float
    series: tuple[Usual, ...]
    note: str = ""

    def __repr__(self) -> str:
        return self.table().text()

    def _repr_html_(self) -> str:
        return self.table().html()

    def table(self) -> Table:
        """Return the figures with their spreads."""
        rows = [
            (_title(one), f"{one.count:g}", *[_with_spread(one, figure) for figure in _FIGURES])
            for one in self.series
        ]
        caption = f"baseline over {seconds(self.seconds)}{f': {self.note}' if self.note else ''}"
        return Table(caption, ("series", "count", *_FIGURES), rows)


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure of one series, then and now. `ratio` is now divided by then, `least` what would be worse.

    Where that is not sure, `why` says what is lacking.
    """

    name: str
    tags: Tags
    figure: str
    verdict: _Verdict
    before: float | None
    now: float | None
    ratio: float | None
    least: float | None
    why: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """What has become of each series since a baseline; the worst first."""

    rows: tuple[Compared, ...]

    @property
    def worse(self) -> tuple[Compared, ...]:
        """What is worse than noise explains."""
        return tuple(row for row in self.rows if row.verdict == "worse")

    @property
    def better(self) -> tuple[Compared, ...]:
        """What is better than noise explains."""
        return tuple(row for row in self.rows if row.verdict == "better")

    def table(self) -> Table:
        """Return the rows as a table."""
        told = [
            (
                *(_title(row), row.figure, f"{row.verdict}{f': {row.why}' if row.why else ''}"),
                _figure(row.name, row.before),
                *(_figure(row.name, row.now), _ratio(row.ratio), _ratio(row.least)),
            )
            for row in self.rows
        ]
        caption = f"since the baseline: {len(self.worse)} worse, {len(self.better)} better"
        columns = ("series", "figure", "is", "before", "now", "ratio", "worse from")
        return Table(caption, columns, told, empty="no series")

    def __repr__(self) -> str:
        return self.table().text()

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return self.table().html()


# -- taken ---------------------------------------------------------------------------------------------

#: what is told of a series, with its spread
_FIGURES = ("rate", "mean", "p50", "p95")


@says_what_it_takes
def take(history: History, over: float, *, note: str = "", wall: Clock = time.time) -> Baseline:
    """Return how each series was over the last so many seconds."""
    one_of(history, History, "history", "a history, such as grym.current().history")
    found = [
        usual
        for name, whole in history.stretches(over)
        for seen in sorted(whole.series, key=lambda seen: seen.tags)
        if seen.gone == inf and (usual := _usual(name, seen, whole.times)) is not None
    ]
    return Baseline(wall(), over, tuple(found), note)


def _usual(name: str, seen: Seen, times: Sequence[float]) -> Usual | None:
    exact = Stretch(times, (seen,))
    whole = exact.window(name)
    figures = {figure: _sound(getattr(whole, figure)) for figure in _FIGURES}
    if not whole.count and whole.mean is None:
        return None
    pieces = [piece.window(name) for piece in exact.pieces(_PIECES)]
    return Usual(
        name, seen.kind, seen.tags, _sound(whole.count) or 0.0, spread=dict(_spreads(pieces)), **figures
    )


def _sound(value: float | None) -> float | None:
    """Return a figure that a file can hold."""
    return None if value is None or not isfinite(value) else value


def _spreads(pieces: Sequence[Window]) -> Iterator[tuple[str, float]]:
    for figure in _FIGURES:
        values = [value for piece in pieces if (value := _sound(getattr(piece, figure))) is not None]
        if len(values) >= 3:
            middle = median(values)
            yield figure, 1.5 * median([abs(value - middle) for value in values])


# -- compared ------------------------------------------------------------------------------------------


@says_what_it_takes
def compare(before: Baseline, now: Baseline, *, least_ratio: float = LEAST_RATIO) -> Report:
    """Return what is worse, better or the same: for histograms of durations their p50 and p95.

    Worse is what is at least `least_ratio` times as high, and higher by more than three times the noise of
    both. Counters, gauges and histograms of other things are neither good nor bad: they are left out.
    """
    for path, one in (("before", before), ("now", now)):
        one_of(one, Baseline, path, "a baseline, such as take(grym.current().history, 300)")
    one_of(least_ratio, (int, float), "least_ratio", "a number above 1, such as 1.2")
    if not least_ratio > 1:
        problem = Problem("least_ratio", repr(least_ratio), "more than 1")
        raise ConfigError("nothing can be compared so", problems=[problem])
    then, there = _by_key(before), _by_key(now)
    rows = [
        _compared(then.get(key), there.get(key), figure, least_ratio)
        for key in {**then, **there}
        for figure in ("p50", "p95")
    ]
    return Report(tuple(sorted(rows, key=lambda row: (_ORDER[row.verdict], -(row.ratio or 0.0)))))


_ORDER: Mapping[_Verdict, int] = {"worse": 0, "gone": 1, "new": 2, "better": 3, "same": 4, "unsure": 5}


def _by_key(baseline: Baseline) -> dict[_Key, Usual]:
    return {
        (one.name, one.tags): one
        for one in baseline.series
        if one.kind == "histogram" and one.name.endswith("seconds")
    }


def _compared(then: Usual | None, now: Usual | None, figure: str, least_ratio: float) -> Compared:
    one = now if now is not None else then
    assert one is not None
    old = None if then is None else getattr(then, figure)
    new = None if now is None else getattr(now, figure)
    ratio = new / old if old and new is not None else None
    least, why = None, ""
    if then is None or now is None:
        verdict: _Verdict = "new" if then is None else "gone"
    elif ratio is None or (noise := _noise(then, now, figure)) is None:
        verdict, why = "unsure", _lacking(then, now)
    else:
        least = max(least_ratio, 1.0 + _NOISES * noise)
        verdict = "worse" if ratio >= least else "better" if ratio <= 1.0 / least else "same"
    return Compared(one.name, one.tags, figure, verdict, old, new, ratio, least, why)


def _lacking(then: Usual, now: Usual) -> str:
    """Return what there is too little of to tell two figures apart."""
    few = [
        f"{one.count:g} {when}" for one, when in ((then, "before"), (now, "now")) if one.count < _LEAST_VALUES
    ]
    return (
        f"{' and '.join(few)}, it takes {_LEAST_VALUES}"
        if few
        else "how much it varies is not known: take both over longer"
    )


def _noise(then: Usual, now: Usual, figure: str) -> float | None:
    """Return what chance makes of a ratio, None where there was too little to tell."""
    spreads = [one.spread.get(figure) for one in (then, now) if one.count >= _LEAST_VALUES]
    known = [spread for spread in spreads if spread is not None]
    if len(known) < 2:
        return None
    # What a percentile may be wrong by is noise as well.
    values = [getattr(one, figure) * Histogram.ERROR for one in (then, now)]
    return float(hypot(*known, *values) / getattr(then, figure))


# -- in a file -----------------------------------------------------------------------------------------


@says_what_it_takes
def save(baseline: Baseline, path: Path | str) -> None:
    """Write a baseline to a file, whole or not at all."""
    one_of(baseline, Baseline, "baseline", "a baseline, such as take(grym.current().history, 300)")
    _check_path(path)
    told = json.dumps({"schema": _SCHEMA, **asdict(baseline)}, indent=1, allow_nan=False)
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(f"{told}\n", encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise StorageError(f"the baseline was not written: {error}", hint="choose another folder") from error


@says_what_it_takes
def load(path: Path | str) -> Baseline:
    """Return the baseline that a file holds."""
    _check_path(path)
    try:
        told = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problem = Problem(str(path), brief(str(error)), "a file that was written by save()")
        raise ValidationError(
            f"{path} cannot be read as a baseline", problems=[problem], hint=_AGAIN
        ) from error
    schema = told.get("schema") if isinstance(told, dict) else None
    if schema != _SCHEMA:
        problem = Problem("schema", brief(schema), repr(_SCHEMA))
        raise ValidationError(f"{path} is no baseline of this version", problems=[problem], hint=_AGAIN)
    return _checked(told, path)


def _check_path(path: Any) -> None:
    one_of(path, (str, os.PathLike), "path", "the path of a file, such as 'base.json'")


_AGAIN = "take a new one, and save() it"


def _checked(told: dict[str, Any], path: Path | str) -> Baseline:
    try:
        rows = told["series"]
        return Baseline(
            _finite(told["at"]), _finite(told["seconds"]), tuple(map(_row, rows)), str(told["note"])
        )
    except (LookupError, TypeError, ValueError) as error:
        problem = Problem("series", f"{type(error).__name__}: {error}", "the figures that save() writes")
        raise ValidationError(f"{path} is damaged", problems=[problem], hint=_AGAIN) from error


def _row(told: Any) -> Usual:
    if set(told) != {field.name for field in fields(Usual)} or told["kind"] not in _KINDS:
        raise ValueError(f"not a series: {brief(told)}")
    tags = tuple((str(tag), str(value)) for tag, value in told["tags"])
    numbers = {figure: None if told[figure] is None else _finite(told[figure]) for figure in _FIGURES}
    spread = {str(figure): _finite(value) for figure, value in dict(told["spread"]).items()}
    return Usual(str(told["name"]), told["kind"], tags, _finite(told["count"]), spread=spread, **numbers)


_KINDS = frozenset({"counter", "gauge", "histogram"})


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ValueError(f"not a number: {brief(value)}")
    return float(value)


# -- in words ------------------------------------------------------------------------------------------


def _title(one: Usual | Compared) -> str:
    tags = ", ".join(f"{tag}={value}" for tag, value in one.tags)
    return f"{one.name} ({tags})" if tags else one.name


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return seconds(value) if name.endswith("seconds") else f"{value:.4g}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _with_spread(one: Usual, figure: str) -> str:
    name = "" if figure == "rate" else one.name
    value, spread = getattr(one, figure), one.spread.get(figure)
    told = _figure(name, value)
    return told if value is None or spread is None else f"{told} ± {_figure(name, spread)}"
