"""What comes again and again, and how far values lie apart."""

from __future__ import annotations

import random
from math import inf, nan, pi, sin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_nb.metrics.seasons import median, season, spread, thinned

numbers = st.floats(-1e6, 1e6)


def waves(period: float, *, size: int = 200, noise: float = 0.3, seed: int = 1) -> list[tuple[float, float]]:
    rng = random.Random(seed)
    return [(float(at), sin(2 * pi * at / period) + rng.gauss(0, noise)) for at in range(size)]


@pytest.mark.parametrize("period", [8.0, 17.3, 40.0, 66.0])
def test_a_season_has_its_period_and_its_shape(period: float) -> None:
    found = season(waves(period))
    assert found is not None and found.period == pytest.approx(period, rel=0.05)
    assert found.at(period / 4) == pytest.approx(1.0, abs=0.3)
    assert found.at(period * 0.75 + 3 * found.period) == pytest.approx(-1.0, abs=0.3)
    assert sum(found.shape) == pytest.approx(0.0, abs=1e-9)


def test_holes_and_wild_points_hide_no_season() -> None:
    rng = random.Random(3)
    points = [(time, value + 50 * (rng.random() < 0.03)) for time, value in waves(20.0) if rng.random() > 0.2]
    points = [(time, value) for time, value in points if not 90 < time < 110]
    found = season(points)
    assert found is not None and found.period == pytest.approx(20.0, rel=0.05)


@pytest.mark.parametrize("seed", range(20))
def test_noise_alone_has_no_season(seed: int) -> None:
    rng = random.Random(seed)
    assert season([(float(at), rng.gauss(0, 1)) for at in range(200)]) is None


def test_too_little_has_no_season() -> None:
    assert season([]) is None
    assert season(waves(5.0, size=12)) is None
    assert season([(1.0, float(at)) for at in range(50)]) is None
    assert season([(float(at), 7.0) for at in range(50)]) is None
    assert season(waves(150.0, noise=0.0)) is None  # 1.3 cycles


@given(st.lists(numbers, min_size=3, max_size=40), st.data())
def test_the_median_and_the_spread_do_not_mind_a_wild_minority(
    values: list[float], data: st.DataObject
) -> None:
    wild = data.draw(st.lists(st.floats(1e9, 1e12), max_size=(len(values) - 1) // 2))
    assert min(values) <= median(values + wild) <= max(values)
    assert spread(values + wild) <= 1.4826 * (max(values) - min(values)) * (1 + 1e-9)


@given(st.lists(st.tuples(st.floats(0, 1e6), numbers), max_size=80), st.integers(1, 30))
def test_thinned_points_are_few_in_order_and_of_the_same_range(
    points: list[tuple[float, float]], most: int
) -> None:
    points.sort()
    found = thinned(points, most)
    assert len(found) == len(points) if len(points) <= most else 1 <= len(found) <= most
    assert [time for time, _ in found] == sorted(time for time, _ in found)
    values = [value for _, value in points]
    assert all(min(values) <= value <= max(values) for _, value in found)


def test_what_is_no_number_is_left_out() -> None:
    points = [(0.0, nan), (1.0, 2.0), (2.0, inf), (3.0, -inf), (4.0, 1e300)]
    assert thinned(points, 10) == [(1.0, 2.0)]


def test_of_points_at_one_time_the_last_stay() -> None:
    assert thinned([(1.0, float(at)) for at in range(5)], 2) == [(1.0, 3.0), (1.0, 4.0)]
