"""Steps are found where they are, lone spikes are none, and a slow rise is no step."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_nb.metrics.changes import Change, Spike, account, changes, dependence, spikes

Points = list[tuple[float, float]]


def series(shape: Callable[[int], float], *, size: int = 120, noise: float = 1.0, seed: int = 1) -> Points:
    rng = random.Random(seed)
    return [(10.0 * at, shape(at) + rng.gauss(0, noise)) for at in range(size)]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("size", [-6.0, 6.0, 50.0])
def test_a_step_has_its_time_and_both_levels(seed: int, size: float) -> None:
    (found,) = changes(series(lambda at: 20.0 + size * (at >= 70), seed=seed))
    assert found.at == pytest.approx(700.0, abs=20.0)
    assert (found.before, found.after) == pytest.approx((20.0, 20.0 + size), abs=0.8)


def test_several_steps_are_all_found() -> None:
    up_and_down = changes(series(lambda at: 10.0 * (40 <= at < 80)))
    assert [its.at for its in up_and_down] == [400.0, 800.0]
    stairs = changes(series(lambda at: 10.0 * (at // 30)))
    assert [its.at for its in stairs] == [300.0, 600.0, 900.0]


def test_a_step_on_a_slope_has_the_size_of_the_step() -> None:
    points = series(lambda at: 0.2 * at + 20.0 * (at >= 70), noise=0.5)
    (found,) = changes([point for point in points if not 600 < point[0] < 700])
    assert found.after - found.before == pytest.approx(20.0, abs=1.0)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    "shape",
    [
        lambda at: 0.0,
        lambda at: 0.5 * at,
        lambda at: 0.5 * max(0, at - 60),
        lambda at: 10.0 * (at % 20 < 10),
        lambda at: 60.0 * (at == 50),
        lambda at: 60.0 * (at in (50, 51)),
    ],
    ids=["level", "slope", "bend", "season", "spike", "two in a row"],
)
def test_what_is_no_step_is_none(shape: Callable[[int], float], seed: int) -> None:
    assert changes(series(shape, seed=seed)) == []


def test_exact_series_are_told_exactly() -> None:
    assert changes(series(lambda at: 3.0 + 4.0 * (at >= 50), noise=0.0)) == [Change(500.0, 3.0, 7.0)]
    assert changes(series(lambda at: 3.0, noise=0.0)) == []
    assert changes(series(lambda at: 0.0, noise=0.0)) == []
    assert changes(series(lambda at: 2.0 * at, noise=0.0)) == []
    assert changes(series(lambda at: 1e12, noise=1e-4)) == []


def test_lone_values_are_spikes_and_longer_runs_are_none() -> None:
    points = series(lambda at: 60.0 * (at in (20, 90, 91)) - 30.0 * (at == 50))
    found = spikes(points)
    assert [its.at for its in found] == [200.0, 500.0, 900.0, 910.0]
    assert [(its.at, its.value) for its in found] == [points[at] for at in (20, 50, 90, 91)]
    assert all(abs(its.usual) < 3 for its in found)
    assert spikes(series(lambda at: 60.0 * (50 <= at < 54))) == []
    assert spikes(series(lambda at: 60.0 * (at >= 60))) == []


def test_a_spike_on_a_slope_is_one_and_the_ends_of_a_slope_are_none() -> None:
    assert spikes(series(lambda at: 5.0 * at + 200.0 * (at == 60), noise=0.0)) == [Spike(600.0, 500.0, 305.0)]
    assert spikes(series(lambda at: 5.0 * at)) == []


@pytest.mark.parametrize("seed", range(20))
def test_skewed_noise_has_no_spikes(seed: int) -> None:
    rng = random.Random(seed)
    assert spikes([(float(at), rng.expovariate(1.0)) for at in range(300)]) == []


def test_few_points_say_nothing() -> None:
    assert changes([]) == spikes([]) == []
    assert changes(series(lambda at: float(at > 3), size=7)) == []
    assert spikes(series(lambda at: 50.0 * (at == 5), size=10)) == []
    assert changes([(5.0, float(at % 3)) for at in range(30)]) == []  # all at once


def test_values_depend_on_those_before_them_or_not() -> None:
    rng = random.Random(1)
    values = [rng.gauss(0, 1)]
    for _ in range(2000):
        values.append(0.6 * values[-1] + rng.gauss(0, 1))
    assert dependence(values) == pytest.approx(0.6, abs=0.06)
    assert dependence([1.0, -1.0] * 20) == dependence([0.0] * 9) == 0.0


@given(st.lists(st.floats(-1e9, 1e9), max_size=60), st.floats(0.001, 1e4))
def test_any_series_has_an_account(values: list[float], gap: float) -> None:
    points = [(at * gap, value) for at, value in enumerate(values)]
    best = account(points)
    assert len(best.rest) in (0, len(best.points)) and len(best.points) <= len(points)
    assert {its.at for its in changes(points)} <= {time for time, _ in points}
    assert {(its.at, its.value) for its in spikes(points)} <= set(points)
