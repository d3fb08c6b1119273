"""What cannot be asked, counted or written is refused in the house's words, wherever it is given."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grym_nb.errors import ValidationError
from grym_nb.metrics import Histogram, Metrics, Sample
from grym_nb.metrics.changes import changes, spikes
from grym_nb.metrics.export import openmetrics, prometheus, to_csv, to_json
from grym_nb.metrics.history import History
from grym_nb.metrics.kept import Kept
from grym_nb.metrics.lag import LoopLag
from grym_nb.metrics.telemetry import to_opentelemetry
from grym_nb.testing import FakeClock

Ask = Callable[[Any, Any], object]

WRITE = [prometheus, openmetrics, to_json, to_csv]
GOOD = Sample("a", "counter", (("service", "x"),), 1)


def refused(what: Callable[[], object]) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        what()
    assert caught.value.problems, "says what it found, and what it wants instead"
    assert len(str(caught.value).splitlines()) <= 3
    return caught.value


@pytest.mark.parametrize("write", WRITE)
@pytest.mark.parametrize(
    "strange",
    [
        None,
        5,
        [1],
        "ab",
        [None],
        {"a": 1},
        GOOD,  # one alone, not in a list
        [GOOD, Sample("a", "counter", None, 1)],  # type: ignore[arg-type]
        [Sample(None, "counter", (), 1)],  # type: ignore[arg-type]
        [Sample("a", "odd", (), 1)],  # type: ignore[arg-type]
        [Sample("a", "gauge", ((1, 2),), 1)],  # type: ignore[arg-type]
    ],
    ids=repr,
)
def test_only_metrics_and_samples_are_written(write: Callable[[Any], str], strange: Any) -> None:
    assert "snapshot()" in str(refused(lambda: write(strange)))


@pytest.mark.parametrize("name", [None, 5, ["a"]], ids=repr)
@pytest.mark.parametrize(
    "ask",
    [
        lambda of, name: of.window(name, 5),
        lambda of, name: of.points(name, 5),
        lambda of, name: of.stretch(name, 5),
    ],
    ids=["window", "points", "stretch"],
)
@pytest.mark.parametrize("kept", [False, True], ids=["history", "kept"])
def test_a_series_is_asked_for_by_its_name(tmp_path: Path, kept: bool, ask: Ask, name: Any) -> None:
    history = History(Metrics())
    of = Kept(history, tmp_path) if kept else history
    assert "the name of a series" in str(refused(lambda: ask(of, name)))


@pytest.mark.parametrize(
    "ask",
    [
        lambda history: history.by(None, "service", 5),
        lambda history: history.by("a", None, 5),
        lambda history: history.by("a", ["service"], 5),
        lambda history: history.groups(None, ["service"]),
        lambda history: history.groups("a", None),
        lambda history: history.groups("a", "service"),
        lambda history: history.groups("a", [1]),
        lambda history: history.silent(["a"]),
        lambda history: history.closed(9, 0),
        lambda history: history.closed(None, 0),
    ],
)
def test_a_history_says_what_it_can_be_asked(ask: Callable[[Any], object]) -> None:
    metrics = Metrics()
    metrics.counter("a", service="x").add()
    history = History(metrics)
    history.step()
    refused(lambda: ask(history))


def test_a_tag_may_be_one_of_several_of_any_kind_as_it_may_be_one() -> None:
    metrics = Metrics()
    history = History(metrics)
    metrics.counter("a", level="1").add()
    history.step()
    assert history.window("a", 5, level=1).count == history.window("a", 5, level=[1, 2]).count == 1  # type: ignore[arg-type,list-item]
    assert history.window("a", 5, level=[[1]]).count == 0  # type: ignore[list-item]


@pytest.mark.parametrize("ladder", [None, 5, [1], [(1,)], [("a", 1)], [(1, None)]], ids=repr)
def test_a_ladder_is_pairs_of_numbers(ladder: Any) -> None:
    assert "pairs of a width" in str(refused(lambda: History(Metrics(), ladder=ladder)))


@pytest.mark.parametrize(
    "make",
    [
        lambda path: History(None),  # type: ignore[arg-type]
        lambda path: Kept(None, path),  # type: ignore[arg-type]
        lambda path: Kept(History(Metrics()), None),  # type: ignore[arg-type]
        lambda path: Kept(History(Metrics()), path, every=None),  # type: ignore[arg-type]
        lambda path: Kept(History(Metrics()), path, width="x"),  # type: ignore[arg-type]
        lambda path: LoopLag(None),  # type: ignore[arg-type]
        lambda path: LoopLag(Metrics(), window=None),  # type: ignore[arg-type]
        lambda path: LoopLag(Metrics()).start(None),  # type: ignore[arg-type]
        lambda path: LoopLag(Metrics()).start(None, every=None),  # type: ignore[arg-type]
        lambda path: to_opentelemetry(None),  # type: ignore[arg-type]
        lambda path: to_opentelemetry(Metrics(), 5),  # type: ignore[arg-type]
        lambda path: Metrics().select(None),  # type: ignore[arg-type]
    ],
)
def test_what_is_made_of_something_else_is_refused(tmp_path: Path, make: Callable[[Path], object]) -> None:
    refused(lambda: make(tmp_path))


@pytest.mark.parametrize("points", [None, 5, [1], "ab", [(1, None)], [(1,)], [("a", "b")]], ids=repr)
@pytest.mark.parametrize("of", [changes, spikes])
def test_changes_are_of_points(of: Callable[[Any], object], points: Any) -> None:
    assert "points, such as" in str(refused(lambda: of(points)))


@pytest.mark.parametrize("strange", [None, "x", -1, [1]], ids=repr)
def test_a_histogram_says_what_it_can_be_asked(strange: Any) -> None:
    histogram = Histogram()
    histogram.record(1.0)
    assert "from 0 to 100" in str(refused(lambda: histogram.percentile(strange)))
    refused(lambda: histogram.merge(strange))
    refused(lambda: histogram.cumulative(strange))


def wrote(folder: Path, **options: Any) -> tuple[list[int], float]:
    """Return how much a history in a folder writes every half minute, and what it has in the end."""
    clock, metrics = FakeClock(), Metrics()
    history = History(metrics, clock=clock)
    kept = Kept(history, folder, wall=clock, **options)
    found = []
    for _ in range(10):
        metrics.counter("a").add()
        clock.advance(30.0)
        history.step()
        found.append(kept.write())
    kept.close()
    return found, kept.window("a", 3600.0).count


@pytest.mark.parametrize("kind", [int, np.int64, np.float32, np.float64, Fraction])
def test_seconds_may_be_of_any_kind_of_number(tmp_path: Path, kind: Callable[[int], Any]) -> None:
    asked = wrote(tmp_path / "any", every=kind(90), width=kind(30))
    assert asked == wrote(tmp_path / "float", every=90.0, width=30.0)
    assert "not measured" in repr(LoopLag(Metrics(), window=kind(3)))


def test_a_history_may_be_written_each_time_or_only_in_the_end(tmp_path: Path) -> None:
    (always, whole), (late, all_too) = (wrote(tmp_path / str(n), every=n) for n in (0, inf))
    assert always[2:] == [1] * 8 and not any(late[1:]) and whole == all_too == 10
    assert wrote(tmp_path / "finest", width=0)[1] == 10
    LoopLag(Metrics(), window=inf)


@pytest.mark.parametrize("strange", [True, -1, float("nan"), "60", None, Decimal(60), 1j], ids=repr)
def test_what_are_no_seconds_is_refused(tmp_path: Path, strange: Any) -> None:
    history = History(Metrics())
    refused(lambda: Kept(history, tmp_path, every=strange))
    refused(lambda: Kept(history, tmp_path, width=strange))
    refused(lambda: LoopLag(Metrics(), window=strange))


@pytest.mark.parametrize("write", WRITE)
@pytest.mark.parametrize(
    "tags", [[("service", "x")], [["service", "x"]], (["service", "x"],), {"service": "x"}]
)
def test_the_tags_of_a_sample_may_be_any_pairs_of_text(write: Callable[[Any], str], tags: Any) -> None:
    assert write([Sample("a", "counter", tags, 1)]) == write([GOOD])


@pytest.mark.parametrize("write", WRITE)
@pytest.mark.parametrize("tags", ["ab", ["ab"], [("a",)], [("a", 1)], 5, [None], {"a": 1}], ids=repr)
def test_tags_that_are_no_pairs_of_text_are_refused(write: Callable[[Any], str], tags: Any) -> None:
    refused(lambda: write([Sample("a", "counter", tags, 1)]))
