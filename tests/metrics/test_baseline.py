"""What is worse than noise explains is told, and nothing else is."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pytest

from grym_nb.errors import ConfigError, StorageError, ValidationError
from grym_nb.metrics import Metrics
from grym_nb.metrics.baseline import Baseline, Usual, compare, load, save, take
from grym_nb.metrics.history import History
from grym_nb.testing import FakeClock


def baseline(
    seed: int, *, usual: float = 0.1, noise: float = 0.1, drift: float = 0.0, values: int = 10, over: int = 60
) -> Baseline:
    """Take a baseline of a minute in which calls took so long; `drift` is how much that wanders meanwhile."""
    clock, metrics, dice = FakeClock(), Metrics(), random.Random(seed)
    history = History(metrics, clock=clock)
    for second in range(over):
        middle = usual * (1 + drift * ((second // 10) % 2))
        for _ in range(values):
            metrics.record("call.seconds", middle * dice.lognormvariate(0, noise), service="a")
        metrics.counter("calls", service="a").add(values)
        metrics.gauge("level").set(second % 3)
        clock.advance(1.0)
        history.step()
    return take(history, float(over), wall=lambda: 1_700_000_000.0, note="before the change")


def verdicts(before: Baseline, now: Baseline, **options: float) -> dict[str, str]:
    return {row.figure: row.verdict for row in compare(before, now, **options).rows}


def test_a_baseline_has_the_figures_of_each_series_and_their_spread() -> None:
    found = baseline(1)
    assert [(one.name, one.kind) for one in found.series] == [
        ("call.seconds", "histogram"),
        ("calls", "counter"),
        ("level", "gauge"),
    ]
    calls, counter, level = found.series
    assert (calls.count, calls.rate, calls.tags) == (600, 10.0, (("service", "a"),))
    assert calls.p50 == pytest.approx(0.1, rel=0.05) and 0 <= calls.spread["p50"] < 0.01
    assert 0 < calls.spread["mean"] < 0.01
    assert (counter.rate, counter.spread["rate"], counter.p50) == (10.0, 0.0, None)
    assert level.mean == pytest.approx(1.0, abs=0.1) and level.rate is None


def test_a_baseline_of_many_series_takes_no_more_for_each_of_them() -> None:
    """Of names as of tags: what is done for a series does not depend on how many others there are."""

    def work_for(count: int, name: Callable[[int], str]) -> int:
        clock, metrics = FakeClock(), Metrics()
        history = History(metrics, clock=clock)
        for at in range(count):
            metrics.counter(name(at), k=str(at)).add()
        clock.advance(1.0)
        history.step()
        done = 0

        def called(frame: Any, event: str, argument: Any) -> None:
            nonlocal done
            done += event == "call"

        sys.setprofile(called)
        try:
            found = take(history, 60.0)
        finally:
            sys.setprofile(None)
        assert len(found.series) == count
        return done

    for name in (lambda at: "mine", lambda at: f"mine.{at}"):
        assert work_for(200, name) < 4.5 * work_for(50, name)


def test_a_series_that_went_is_in_no_baseline() -> None:
    clock, metrics = FakeClock(), Metrics()
    history = History(metrics, clock=clock)
    metrics.counter("calls", k="b").add()
    metrics.counter("calls", k="a").add(2)
    clock.advance(1.0)
    history.step()
    assert [(one.tags, one.count) for one in take(history, 60.0).series] == [
        ((("k", "a"),), 2),
        ((("k", "b"),), 1),
    ]
    metrics.drop(k="a")
    clock.advance(1.0)
    history.step()
    assert [one.tags for one in take(history, 60.0).series] == [(("k", "b"),)]


def test_the_same_again_is_the_same_whatever_the_noise() -> None:
    """Of a hundred pairs that differ by chance only, none is told as worse or better."""
    rng = random.Random(5)
    for seed in range(100):
        noise, drift = rng.choice((0.02, 0.1, 0.4)), rng.choice((0.0, 0.1, 0.5))
        pair = [baseline(2 * seed + n, noise=noise, drift=drift, values=3) for n in (0, 1)]
        assert set(verdicts(*pair).values()) == {"same"}, (seed, noise, drift)


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.5, "worse"), (1.1, "same"), (0.6, "better"), (0.95, "same")]
)
def test_what_became_slower_is_worse(factor: float, verdict: str) -> None:
    before, now = baseline(1), baseline(2, usual=0.1 * factor)
    report = compare(before, now)
    assert {row.verdict for row in report.rows} == {verdict}
    assert report.rows[0].ratio == pytest.approx(factor, rel=0.1)
    assert len(report.worse) == (2 if verdict == "worse" else 0)
    assert len(report.better) == (2 if verdict == "better" else 0)


def test_a_small_ratio_can_be_asked_for_and_noise_still_counts() -> None:
    quiet = baseline(1, noise=0.01), baseline(2, noise=0.01, usual=0.115)
    assert verdicts(*quiet) == {"p50": "same", "p95": "same"}
    assert verdicts(*quiet, least_ratio=1.05) == {"p50": "worse", "p95": "worse"}
    restless = baseline(1, drift=0.5), baseline(2, drift=0.5, usual=0.13)
    assert verdicts(*restless, least_ratio=1.05)["p50"] == "same"
    with pytest.raises(ConfigError, match="nothing can be compared so"):
        compare(*quiet, least_ratio=1.0)


def test_too_little_to_tell_is_told_as_such() -> None:
    before = baseline(1)
    assert set(verdicts(before, baseline(2, usual=1.0, values=1, over=5)).values()) == {"unsure"}
    assert set(verdicts(before, baseline(2, usual=1.0, over=2)).values()) == {"unsure"}
    few = compare(before, baseline(2, usual=1.0, values=1, over=5))
    assert {row.why for row in few.rows} == {"5 now, it takes 10"} and "unsure: 5 now" in few.table().text()
    short = compare(before, baseline(2, usual=1.0, over=2))
    assert {row.why for row in short.rows} == {"how much it varies is not known: take both over longer"}
    assert set(verdicts(before, baseline(2, usual=0.0)).values()) == {"better"}
    assert set(verdicts(baseline(1, usual=0.0), before).values()) == {"unsure"}


def test_series_that_came_and_went_are_named() -> None:
    before = baseline(1)
    calls = replace(before.series[0], tags=(("service", "b"),))
    now = replace(before, series=(calls,))
    assert {(row.verdict, row.tags[0][1]) for row in compare(before, now).rows} == {
        ("new", "b"),
        ("gone", "a"),
    }
    assert repr(compare(replace(now, series=()), replace(now, series=()))).endswith("no series")


def test_a_report_is_a_table_with_the_worst_first() -> None:
    before = baseline(1)
    twin = replace(before.series[0], name="other.seconds")
    before = replace(before, series=(*before.series, twin))
    slow = replace(before.series[0], p50=1.0, p95=2.0)
    report = compare(before, replace(before, series=(slow, twin)))
    lines = repr(report).splitlines()
    assert lines[0] == "since the baseline: 2 worse, 0 better"
    assert (
        lines[3].startswith("call.seconds (service=a)   p95 ") and "worse" in lines[3] and "2 s" in lines[3]
    )
    assert str(report) == repr(report) and "<td" in report._repr_html_()
    told = repr(before)
    assert told.startswith("baseline over 1 min 0 s: before the change") and "ms ± " in told
    assert "<caption>baseline over" in before._repr_html_()


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    found = baseline(1)
    save(found, tmp_path / "usual.json")
    assert load(str(tmp_path / "usual.json")) == found
    save(replace(found, note=""), tmp_path / "usual.json")
    assert load(tmp_path / "usual.json").note == ""
    assert [path.name for path in tmp_path.iterdir()] == ["usual.json"]


def test_a_gauge_beyond_all_numbers_can_be_saved(tmp_path: Path) -> None:
    clock, metrics = FakeClock(), Metrics()
    history = History(metrics, clock=clock)
    metrics.gauge("level").set(float("inf"))
    clock.advance(1.0)
    history.step()
    save(take(history, 60.0), tmp_path / "usual.json")
    assert load(tmp_path / "usual.json").series[0].mean is None


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="was not written"):
        save(baseline(1, over=5), tmp_path / "none" / "usual.json")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "no baseline of this version"),
        ('{"schema": "other"}', "no baseline of this version"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str | None, told: str) -> None:
    path = tmp_path / "usual.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(ValidationError, match=told) as caught:
        load(path)
    assert caught.value.problems and caught.value.hint == "take a new one, and save() it"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("count", "many"),
        ("count", True),
        ("kind", "else"),
        ("p50", float("inf")),
        ("tags", [1]),
        ("spread", 3),
        ("more", 1),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, field: str, value: object) -> None:
    path = tmp_path / "usual.json"
    save(Baseline(0.0, 60.0, (Usual("a", "counter", (), 1.0, 1.0, None, None, None, {}),)), path)
    told = json.loads(path.read_text(encoding="utf-8"))
    told["series"][0][field] = value
    path.write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(ValidationError, match="is damaged"):
        load(path)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (lambda history: take(history, "300"), "seconds: found '300', expected seconds above 0"),
        (lambda history: take(history, -1), "seconds: found -1"),
        (lambda history: take(history, 0), "seconds: found 0"),
        (lambda history: take(history, inf), "seconds: found inf"),
        (lambda history: take(None, 300), "history: found None, expected a history"),
        (lambda history: take(history, 300, note_="x"), "it takes (history, over, *, note='', "),
        (lambda history: compare("a", "b"), "before: found 'a', expected a baseline"),
        (lambda history: compare(take(history, 1), None), "now: found None, expected a baseline"),
        (lambda history: compare(*[take(history, 1)] * 2, least_ratio="2"), "least_ratio: found '2'"),
        (lambda history: save(None, "base.json"), "baseline: found None, expected a baseline"),
        (lambda history: save(take(history, 1), None), "path: found None, expected the path of a file"),
        (lambda history: load(None), "path: found None, expected the path of a file"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(asked: Any, named: str) -> None:
    """Also where there is no series yet."""
    with pytest.raises(ValidationError) as caught:
        asked(History(Metrics(), clock=FakeClock()))
    assert named in str(caught.value)
