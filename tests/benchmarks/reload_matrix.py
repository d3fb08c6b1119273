"""Each kind of edit of a service's code, beside what else brings an edit into a kernel that runs.

``python -m tests.benchmarks reload_matrix`` gives the sums, ``python -m tests.benchmarks.reload_matrix`` a
line for each kind. That is counted as right which answers as the new text says, or as before where that text
cannot serve. PyTorch is imported, where it is installed, as it is where services are edited.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from grym_nb.render import Table
from tests.services.reload.kinds import KINDS, REFUSED, SAVES

from .frame import Effort, Row, benchmark, installed, missing
from .reload_tools import TOOLS

_LOADED = frozenset(kind.name for kind in KINDS if kind.how == "loaded")
_QUICK = ("the body of a task", "a decorated task", "a helper", "an error at the top")

Told = Mapping[str, Mapping[str, Any]]


def _taken(tool: str, names: tuple[str, ...]) -> Told:
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.reload_tools", tool, *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=1200)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def _there() -> Iterator[str]:
    for tool, (_, package) in TOOLS.items():
        if not package or installed(package):
            yield tool


def _sums(told: Told) -> tuple[int, int, int, float]:
    """Return how many are right, keep what was loaded, are still instances; and the median seconds."""
    kept = [one for name, one in told.items() if name not in _LOADED]
    seconds = [one["seconds"] for one in told.values() if one["seconds"] is not None]
    return (
        sum(one["right"] for one in told.values()),
        sum(one["kept"] for one in kept),
        sum(one["is"] for one in told.values()),
        statistics.median(seconds),
    )


@benchmark
def reload_matrix(effort: Effort) -> Iterator[Row]:
    """All kinds of edit through each tool; a few when it is quick."""
    names = _QUICK if effort.rounds < Effort().rounds else ()
    results = {tool: _taken(tool, names) for tool in _there()}
    ours = _sums(results["ours"])
    count = len(results["ours"])
    work, aim = f"{count} kinds of edit, the median", "all right, weights kept"
    for tool in TOOLS:
        if tool == "ours":
            continue
        if tool not in results:
            yield missing(work, ours[3], tool, "ms", aim)
            continue
        right, kept, instances, seconds = _sums(results[tool])
        note = (
            f"right {ours[0]} here, {right} there; weights kept {ours[1]}, {kept}; "
            f"instances {ours[2]}, {instances}"
        )
        yield Row(work, ours[3], tool, seconds, "ms", aim, note)


def matrix(results: Mapping[str, Told]) -> Table:
    """Return a line for each kind: of each tool right (R), weights kept (K), an instance (I), and the ms."""
    rows = []
    for kind in (*KINDS, *REFUSED, *SAVES):
        told = [results[tool].get(kind.name) for tool in results]
        if any(told):
            rows.append((kind.name, kind.how, *(_cell(one, kept=kind.name not in _LOADED) for one in told)))
    sums = [_sums(one) for one in results.values()]
    count, stay = len(rows), sum(row[1] != "loaded" for row in rows)
    rows += [
        ("right", "", *(f"{one[0]} of {count}" for one in sums)),
        ("weights kept", "", *(f"{one[1]} of {stay}" for one in sums)),
        ("still an instance", "", *(f"{one[2]} of {count}" for one in sums)),
        ("median", "", *(f"{one[3] * 1e3:.1f} ms" for one in sums)),
    ]
    return Table("R right, K weights kept, I still an instance", ("kind", "is to be", *results), rows)


def _cell(one: Mapping[str, Any] | None, *, kept: bool) -> str:
    if one is None:
        return "-"
    took = "hangs" if one["seconds"] is None else f"{one['seconds'] * 1e3:.1f}"
    marks = ("R", one["right"]), ("K" if kept else "", one["kept"]), ("I", one["is"])
    return f"{''.join(mark if holds else '-' for mark, holds in marks if mark)} {took}"


if __name__ == "__main__":
    for tool in TOOLS.keys() - set(_there()):
        sys.stderr.write(f"{tool} is not installed\n")
    sys.stdout.write(matrix({tool: _taken(tool, ()) for tool in _there()}).text() + "\n")
