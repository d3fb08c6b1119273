"""What calls take is learned from a few of them, and told for others."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_nb.clip import Clip
from grym_nb.hardening.peaks import Measure, Peaks, work_in


def clip(seconds: float) -> Clip:
    return Clip(np.zeros(int(seconds * 1000), np.float32), 1000)


@given(st.floats(0, 1e9), st.floats(1e3, 1e8), st.lists(st.floats(0.1, 1000), min_size=2, max_size=10))
def test_a_line_is_found_again(base: float, slope: float, sizes: list[float]) -> None:
    peaks = Peaks()
    for work in sizes:
        peaks.learn(work, round(base + slope * work))
    if max(sizes) > 1.5 * min(sizes):
        for work in (min(sizes), max(sizes), 2 * max(sizes)):
            assert peaks.predict(work) == pytest.approx(base + slope * work, rel=0.02, abs=10)


@given(st.lists(st.tuples(st.floats(0.01, 1000), st.integers(0, 10**10)), max_size=20), st.floats(0.01, 1000))
def test_whatever_was_seen_no_prediction_is_negative(seen: list[tuple[float, int]], work: float) -> None:
    peaks = Peaks()
    for at, peak in seen:
        peaks.learn(at, peak)
    told = peaks.predict(work)
    assert (told is None) == (not seen) and (told is None or told >= 0)
    assert peaks.told


def test_of_one_size_alone_it_is_in_proportion_and_errors_are_told() -> None:
    peaks = Peaks()
    peaks.learn(2.0, 1000)
    assert peaks.predict(4.0) == 2000 and peaks.error is None
    peaks.learn(4.0, 1600)
    assert peaks.error == pytest.approx(0.25)
    assert peaks.predict(8.0) == 2800
    assert peaks.told == "400 B + 300 B for each second, of 2 calls"


def test_a_few_of_each_size_are_enough() -> None:
    peaks = Peaks()
    for _ in range(3):
        assert peaks.wants(1.0)
        peaks.learn(1.0, 100)
    assert not peaks.wants(1.1) and peaks.wants(2.0)


def test_of_calls_without_sound_the_usual_is_learned() -> None:
    peaks = Peaks()
    assert peaks.predict(0.0) is None and not peaks.is_much
    for _ in range(3):
        assert peaks.wants(0.0)
        peaks.learn(0.0, 4_000_000)
    assert not peaks.wants(0.0) and peaks.predict(0.0) == 4_000_000
    assert peaks.told == "4.0 MB, of 3 calls" and peaks.is_much


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((clip(2.0),), {}, 2.0),
        (([clip(2.0), clip(3.0)],), {}, 6.0),
        ((), {"clip": clip(1.5), "n": 3}, 1.5),
        (("text", 7, [], [1, 2], None), {}, 0.0),
    ],
)
def test_work_is_seconds_of_sound_times_how_many(args: Any, kwargs: Any, expected: float) -> None:
    assert work_in(args, kwargs) == expected


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_the_peak_of_a_piece_of_work_is_measured() -> None:
    measure = Measure("cpu")
    if measure.peak() is None:
        pytest.skip("this system does not let its figures be reset")
    held = np.ones(50_000_000, np.uint8)
    del held
    peak = measure.peak()
    assert peak is not None and 45_000_000 < peak < 90_000_000
