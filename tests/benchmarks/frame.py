"""How a benchmark is declared, timed, shown and kept."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import statistics
import sys
import time
import timeit
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from grym_nb.render import Table

__all__ = [
    "BENCHMARKS",
    "Effort",
    "Row",
    "benchmark",
    "installed",
    "missing",
    "run",
    "side_by_side",
    "table",
    "write",
]

Unit = Literal["ns", "us", "ms", "s", "B"]
_SCALE: Mapping[Unit, float] = {"ns": 1e9, "us": 1e6, "ms": 1e3, "s": 1.0, "B": 1.0}

#: Something to time: a callable, or a statement and the names it uses (which saves the call of a callable).
Work = Callable[[], object] | tuple[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Row:
    """One piece of work: what it costs here and at a peer, in seconds or bytes; None where `note` says."""

    work: str
    ours_seconds: float | None
    peer_name: str
    peer_seconds: float | None
    unit: Unit
    aim: str = ""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours divided by the peer's: below 1 is faster."""
        return self.ours_seconds / self.peer_seconds if self.ours_seconds and self.peer_seconds else None


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is spent on one figure: the median of `rounds`, each of about `seconds`."""

    rounds: int = 15
    seconds: float = 0.02
    #: for what takes long by itself (a process, a kernel)
    slow_rounds: int = 7


QUICK = Effort(rounds=3, seconds=0.001, slow_rounds=1)

BENCHMARKS: dict[str, Callable[[Effort], Iterator[Row]]] = {}


def benchmark(function: Callable[[Effort], Iterator[Row]]) -> Callable[[Effort], Iterator[Row]]:
    """Declare a benchmark: a generator of rows, known by its name."""
    name = function.__name__
    assert name not in BENCHMARKS, f"two benchmarks are called {name}"
    BENCHMARKS[name] = function
    return function


def installed(package: str) -> bool:
    """Tell whether a peer can be imported."""
    return importlib.util.find_spec(package) is not None


def missing(work: str, ours_seconds: float | None, peer: str, unit: Unit, aim: str = "") -> Row:
    """Return the row for a peer that is not installed: it is named, not hidden."""
    return Row(work, ours_seconds, peer, None, unit, aim, "not installed")


def side_by_side(
    works: Mapping[str, Work],
    *,
    rounds: int,
    seconds: float | None = None,
    timer: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return what one go at each of `works` takes: the median of `rounds`.

    The rounds are interleaved, A B A B, so that a machine that gets slower meanwhile is slower for all. Each
    round repeats the work for about `seconds`; without it, a round is a single go.
    """
    timers = {name: _timer(work, timer) for name, work in works.items()}
    numbers = {name: 1 if seconds is None else _enough(timer, seconds) for name, timer in timers.items()}
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, one in timers.items():
            taken[name].append(one.timeit(numbers[name]) / numbers[name])
    return {name: statistics.median(figures) for name, figures in taken.items()}


def _timer(work: Work, timer: Callable[[], float]) -> timeit.Timer:
    if callable(work):
        return timeit.Timer(work, timer=timer)
    statement, names = work
    return timeit.Timer(statement, globals=dict(names), timer=timer)


def _enough(timer: timeit.Timer, seconds: float) -> int:
    number = 1
    while (taken := timer.timeit(number)) < seconds / 2:
        # At most tenfold a step: the first go is often far slower than the rest.
        number = max(number + 1, min(number * 10, int(number * seconds / max(taken, 1e-9))))
    return number


def run(names: Sequence[str] = (), effort: Effort = QUICK) -> tuple[list[Row], dict[str, BaseException]]:
    """Run the benchmarks of those names, or all; return their rows, and what failed."""
    rows: list[Row] = []
    failed: dict[str, BaseException] = {}
    for name in names or BENCHMARKS:
        try:
            rows.extend(BENCHMARKS[name](effort))
        except Exception as error:
            failed[name] = error
    return rows, failed


def table(rows: Sequence[Row]) -> Table:
    """Return the rows as one table."""
    cells = [
        (
            row.work,
            _figure(row.ours_seconds, row.unit),
            row.peer_name,
            row.note if row.peer_seconds is None else _figure(row.peer_seconds, row.unit),
            "-" if row.ratio is None else f"{row.ratio:.3g}",
            row.aim,
            "" if row.peer_seconds is None else row.note,
        )
        for row in rows
    ]
    columns = ("work", "ours", "peer", "figure", "ratio", "aim", "note")
    return Table("grym_nb beside its peers (median; ratio is ours/peer)", columns, cells)


def _figure(seconds: float | None, unit: Unit) -> str:
    return "-" if seconds is None else f"{seconds * _SCALE[unit]:.3g} {unit}"


def write(rows: Sequence[Row], path: Path) -> None:
    """Keep the rows as JSON, with the machine they were measured on."""
    told = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "implementation": sys.implementation.name,
        "rows": [{**asdict(row), "ratio": row.ratio} for row in rows],
    }
    path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
