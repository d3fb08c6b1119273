"""Trends that hold by now, when they reach a limit, and what a series looks like."""

from __future__ import annotations

import doctest
import random
from collections.abc import Callable
from math import exp, inf, nan, pi, sin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_nb.errors import ValidationError
from grym_nb.metrics import changes, forecast, seasons
from grym_nb.metrics.forecast import Reach, classify, time_to, trend

Points = list[tuple[float, float]]


def series(shape: Callable[[int], float], *, size: int = 120, noise: float = 1.0, seed: int = 1) -> Points:
    rng = random.Random(seed)
    return [(float(at), shape(at) + rng.gauss(0, noise)) for at in range(size)]


@pytest.mark.parametrize("module", [seasons, changes, forecast], ids=lambda module: module.__name__)
def test_the_examples_are_true(module: object) -> None:
    done = doctest.testmod(module)  # type: ignore[arg-type]
    assert done.attempted > 0 and done.failed == 0


# -- trend -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_a_tenth_of_wild_points_does_not_turn_a_trend(seed: int) -> None:
    rng = random.Random(seed)
    points = [
        (time, value + rng.choice((-1, 1)) * rng.uniform(50, 5000) if rng.random() < 0.1 else value)
        for time, value in series(float, noise=3.0, seed=seed)
    ]
    found = trend(points)
    assert found is not None and found.significant
    assert found.slope == pytest.approx(1.0, rel=0.08)
    assert found.level == pytest.approx(119.0, abs=5.0)
    assert 2.0 < found.noise < 5.0


def test_the_interval_holds_the_slope_about_nine_times_in_ten() -> None:
    found = [trend(series(lambda at: 0.3 * at, seed=seed)) for seed in range(200)]
    held = sum(its is not None and its.low <= 0.3 <= its.high for its in found)
    assert 0.83 <= held / 200 <= 0.97


def test_a_season_is_taken_out_of_a_trend() -> None:
    found = trend(series(lambda at: 0.1 * at + 5 * sin(2 * pi * at / 25), size=240, noise=0.5))
    assert found is not None and found.season == pytest.approx(25.0, rel=0.03)
    assert found.slope == pytest.approx(0.1, rel=0.05)
    assert found.noise < 1.5


@pytest.mark.parametrize("seed", range(10))
def test_level_noise_has_no_significant_trend(seed: int) -> None:
    found = trend(series(lambda at: 7.0, seed=seed))
    assert found is not None and not found.significant


def test_a_trend_is_that_since_the_last_bend() -> None:
    found = trend(series(lambda at: 2.0 * max(0, at - 60)))
    assert found is not None and found.significant
    assert (found.slope, found.since, found.until) == pytest.approx((2.0, 60.0, 119.0), abs=4.0)
    assert found.rise == found.slope * (found.until - found.since)


def test_a_step_is_taken_out_of_a_trend() -> None:
    found = trend(series(lambda at: 0.2 * at + 20.0 * (at >= 70)))
    assert found is not None and found.significant
    assert found.slope == pytest.approx(0.2, rel=0.15)
    assert found.level == pytest.approx(43.8, abs=1.5)


def test_fewer_than_eight_points_have_no_trend() -> None:
    assert trend([(float(at), float(at)) for at in range(7)]) is None
    assert trend([(float(at), nan) for at in range(50)]) is None
    assert trend([(float(at), at * 1e200) for at in range(1, 50)]) is None
    assert trend([(float(at), at * 1e90) for at in range(50)]) is not None
    at_once = trend([(3.0, float(at)) for at in range(50)])
    assert at_once is not None and (at_once.slope, at_once.significant) == (0.0, False)


# -- time_to ---------------------------------------------------------------------------------------


def test_a_limit_is_reached_from_below_and_from_above() -> None:
    up, down = series(lambda at: 0.5 * at), series(lambda at: 100 - 0.5 * at)
    for points, limit in ((up, 89.5), (down, 10.5)):
        found = time_to(points, limit)
        assert found is not None and found.soon < found.likely < found.late
        assert found.likely == pytest.approx(60.0, rel=0.1)
    assert time_to(up, -20.0) is time_to(down, 120.0) is None


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    "shape",
    [
        lambda at: 5.0,
        lambda at: 20.0 * (at >= 70),
        lambda at: 10.0 * (at // 40),
        lambda at: 0.5 * min(at, 60),
        lambda at: 20 * (1 - exp(-at / 20)),
        lambda at: 60.0 * (at in (60, 61)),
        lambda at: 8 * sin(at / 5),
    ],
    ids=["level", "step", "stairs", "flat by now", "full by now", "spike", "season"],
)
def test_what_is_flat_by_now_is_not_on_its_way(shape: Callable[[int], float], seed: int) -> None:
    assert time_to(series(shape, seed=seed), 100.0) is None


@pytest.mark.parametrize("seed", range(20))
def test_a_staircase_of_loads_is_not_on_its_way_to_the_limit(seed: int) -> None:
    rng = random.Random(seed)
    steps = sorted(rng.sample(range(5, 110), 4))

    def share(at: int) -> float:  # each takes ten seconds
        return 0.2 + sum(0.15 * min(max((at - step) / 2, 0.0), 1.0) for step in steps)

    points = [(5.0 * at, share(at) + rng.gauss(0, 0.002)) for at in range(120)]
    found = time_to(points, 0.95)
    assert found is None or found.likely > 900
    falling = [(time, 1.0 - value) for time, value in points]
    assert (time_to(falling, 0.05) is None) == (found is None)


def test_many_small_steps_are_growth() -> None:
    points = [(5.0 * at, 0.2 + 0.02 * (at // 4)) for at in range(120)]
    found = time_to(points, 0.95)
    assert found is not None and found.likely == pytest.approx(175.0, rel=0.1)


def test_a_few_points_do_not_say_where_it_is_going() -> None:
    points = [(5.0 * at, 0.3 * (at >= 6)) for at in range(10)]
    assert time_to(points, 0.95) is None
    assert time_to([(float(at), float(at)) for at in range(15)], 30.0) is None
    assert time_to([(float(at), float(at)) for at in range(16)], 30.0) is not None


def test_what_is_too_far_ahead_is_not_told() -> None:
    points = series(lambda at: 0.5 * at, noise=0.1)
    near, far = time_to(points, 59.5 + 0.5 * 1100), time_to(points, 59.5 + 0.5 * 1300)
    assert near is not None and near.likely == pytest.approx(1100, rel=0.02)
    assert far is None


def test_memory_that_began_to_grow_late_is_seen() -> None:
    found = time_to([(5.0 * at, 8e9 + 2e8 * max(0, at - 95)) for at in range(120)], 15e9)
    assert found is not None and found.likely == pytest.approx(5 * 11, rel=0.1)


def test_a_value_at_its_limit_is_there_now() -> None:
    found = time_to([(float(at), 1.0) for at in range(30)], 1.0)
    assert found == Reach(0.0, 0.0, 0.0)


def test_without_enough_points_nothing_is_on_its_way() -> None:
    assert time_to([], 1.0) is time_to([(0.0, 0.0), (1.0, 1.0)], 9.0) is None


@pytest.mark.parametrize(
    ("reach", "told"),
    [
        (Reach(360.0, 420.0, 540.0), "in about 6-9 min"),
        (Reach(40.2, 40.3, 40.4), "in about 40 s"),
        (Reach(0.0, 5.5, 12.4), "in about 0-12 s"),
        (Reach(3600.0, 7200.0, inf), "in 1 h or later"),
        (Reach(90000.0, 200000.0, 86400.0 * 1234), "in about 1-1234 days"),
        (Reach(0.1, 0.2, 0.3), "in about 0.1-0.3 s"),
        (Reach(0.0, 0.0, 0.0), "now"),
    ],
)
def test_a_time_is_told_in_words(reach: Reach, told: str) -> None:
    assert reach.told == told


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(-1e9, 1e9)), max_size=40),
    st.floats(-1e10, 1e10),
)
def test_a_reach_is_ordered_whatever_the_points(points: Points, limit: float) -> None:
    found = time_to(sorted(points), limit)
    assert found is None or 0 <= found.soon <= found.likely <= found.late


@given(st.floats(1e-6, 1e6), st.floats(-1e6, 1e6), st.floats(0.01, 100.0))
def test_units_do_not_matter(scale: float, shift: float, pace: float) -> None:
    points = series(lambda at: 0.5 * at)
    other = [(time * pace, value * scale + shift) for time, value in points]
    ours, theirs = time_to(points, 100.0), time_to(other, 100.0 * scale + shift)
    assert ours is not None and theirs is not None
    assert theirs.likely == pytest.approx(ours.likely * pace, rel=0.01)


# -- classify --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "points"),
    [
        ("steady", series(lambda at: 200.0)),
        ("steady", [(float(at), 0.0) for at in range(50)]),
        ("noise", series(lambda at: 10.0)),
        ("seasonal", series(lambda at: 5 * sin(at / 3))),
        ("trend", series(lambda at: 0.5 * at)),
        ("step", series(lambda at: 10.0 * (at > 60))),
        ("spike", series(lambda at: 60.0 * (at == 60))),
        ("leak", series(lambda at: 0.5 * at + 20 * (at % 13 / 13))),
        ("drift", series(lambda at: 0.2 * at + 5 * sin(at / 3))),
        ("drift", series(lambda at: -0.5 * at + 20 * (at % 13 / 13))),
    ],
)
def test_a_series_is_called_what_it_looks_like(kind: str, points: Points) -> None:
    found = classify(points)
    assert found is not None and found.kind == kind


def test_the_figures_behind_a_word_are_there() -> None:
    points = series(lambda at: 10.0 * (at > 60) + 80.0 * (at == 20))
    found = classify(points, now=121.0)
    assert found is not None and found.trend == trend(points)
    assert list(found.changes) == changes.changes(points) and len(found.changes) == 1
    assert list(found.spikes) == changes.spikes(points) and len(found.spikes) == 1
    assert (found.kind, found.season, found.silent) == ("step", None, 2.0)


def test_a_series_is_absent_after_five_usual_gaps() -> None:
    points = [(30.0 * at, 5.0) for at in range(40) if at % 7]
    last = points[-1][0]
    told = {after: classify(points, now=last + after) for after in (0.0, 299.0, 301.0, 9000.0)}
    kinds = {after: its and its.kind for after, its in told.items()}
    assert kinds == {0.0: "steady", 299.0: "steady", 301.0: "absence", 9000.0: "absence"}
    assert classify(points[:7], now=1e9) is None


LINE = [(float(at), float(at)) for at in range(60)]


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (lambda: trend([1.0] * 20), "points: found "),  # type: ignore[list-item]
        (lambda: trend(None), "points: found None"),  # type: ignore[arg-type]
        (lambda: trend("abcdefghijkl"), "points: found 'abc"),  # type: ignore[arg-type]
        (lambda: trend([(float(at), "1") for at in range(20)]), "points: found "),  # type: ignore[misc]
        (lambda: classify([(at, 1.0, 2.0) for at in range(20)]), "points: found "),  # type: ignore[misc]
        (lambda: classify(LINE, now="x"), "now: found 'x', expected a number"),  # type: ignore[arg-type]
        (lambda: time_to(LINE, None), "limit: found None, expected a number"),  # type: ignore[arg-type]
        (lambda: time_to(LINE, "99"), "limit: found '99', expected a number"),  # type: ignore[arg-type]
        (lambda: time_to(LINE, nan), "limit: found nan, expected a number"),
        (lambda: time_to(LINE, 99.0, within=5), "it takes (points, limit)"),  # type: ignore[call-arg]
    ],
)
def test_what_makes_no_sense_is_refused_in_words(asked: Callable[[], object], named: str) -> None:
    with pytest.raises(ValidationError) as caught:
        asked()
    assert named in str(caught.value)


def test_points_come_in_any_order_and_from_anywhere() -> None:
    whole = time_to(LINE, 99.0)
    assert whole is not None and whole == time_to(iter(LINE), 99) == time_to(LINE[::-1], 99.0)
    assert trend(LINE) == trend(LINE[::-1]) == trend([(nan, 5.0), *LINE, (inf, 7.0)])
    assert classify(LINE) == classify(LINE[::-1])
    assert time_to(LINE, inf) is None
