"""A histogram's figures are exact where it says so, and within its stated error elsewhere."""

from __future__ import annotations

import threading
from math import ceil, inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_nb.metrics import Histogram, HistogramSnapshot

#: Durations, sizes and zero: everything above the smallest number the error is stated for.
values = st.just(0.0) | st.floats(1e-300, 1e300) | st.floats(1e-6, 1e4) | st.integers(0, 10**12).map(float)
many = st.lists(values, max_size=200)


def filled(numbers: list[float]) -> Histogram:
    histogram = Histogram()
    for number in numbers:
        histogram.record(number)
    return histogram


def nearest_rank(numbers: list[float], q: float) -> float:
    return sorted(numbers)[max(1, ceil(q * len(numbers) / 100)) - 1]


def test_an_empty_histogram_has_no_figures_rather_than_zeros() -> None:
    histogram = Histogram()
    assert histogram.snapshot() == HistogramSnapshot(0, 0.0, None, None, None, None, None)
    assert (histogram.mean, histogram.low, histogram.high, histogram.percentile(50)) == (None,) * 4
    assert (histogram.snapshot().mean, repr(histogram)) == (None, "<Histogram: empty>")


def test_one_value_is_all_of_its_figures_exactly() -> None:
    histogram = filled([0.1])
    assert histogram.snapshot() == HistogramSnapshot(1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1)
    assert (histogram.count, histogram.total, histogram.mean) == (1, 0.1, 0.1)
    assert (histogram.low, histogram.high) == (0.1, 0.1)


def test_its_repr_gives_the_figures_in_a_line() -> None:
    assert repr(filled([1.0] * 99 + [2.0])) == "<Histogram: 100 values, p50 1.02, p95 1.02, highest 2>"


@given(many.filter(bool), st.floats(0, 100))
def test_a_percentile_is_within_the_stated_error_of_the_exact_one(numbers: list[float], q: float) -> None:
    exact = nearest_rank(numbers, q)
    found = filled(numbers).percentile(q)
    assert found is not None
    assert abs(found - exact) <= exact * Histogram.ERROR * (1 + 1e-12)


@given(many.filter(bool))
def test_a_snapshot_has_the_same_percentiles_as_were_asked_one_by_one(numbers: list[float]) -> None:
    histogram = filled(numbers)
    now = histogram.snapshot()
    assert (now.p50, now.p95, now.p99) == tuple(histogram.percentile(q) for q in (50, 95, 99))
    assert (now.count, now.low, now.high) == (len(numbers), min(numbers), max(numbers))
    assert (histogram.percentile(0), histogram.percentile(100)) == (min(numbers), max(numbers))


@given(many, many)
def test_merging_is_recording_both(ours: list[float], theirs: list[float]) -> None:
    merged, other = filled(ours), filled(theirs)
    merged.merge(other)
    both = filled(ours + theirs).snapshot()
    now = merged.snapshot()
    assert now == HistogramSnapshot(both.count, now.total, both.low, both.high, both.p50, both.p95, both.p99)
    assert now.total == pytest.approx(both.total, rel=1e-12)
    assert other.snapshot() == filled(theirs).snapshot()


def test_a_histogram_merged_with_itself_is_doubled() -> None:
    histogram = filled([1.0, 2.0])
    histogram.merge(histogram)
    assert histogram.snapshot() == filled([1.0, 2.0, 1.0, 2.0]).snapshot()


@given(st.lists(values, min_size=1, max_size=50))
def test_percentiles_never_fall_as_q_grows(numbers: list[float]) -> None:
    histogram = filled(numbers)
    found = [histogram.percentile(q) or 0.0 for q in range(0, 101, 5)]
    assert found == sorted(found)


def test_zeros_are_counted_as_zeros() -> None:
    assert filled([0.0, 0.0, 0.0, 8.0]).snapshot() == HistogramSnapshot(4, 8.0, 0.0, 8.0, 0.0, 8.0, 8.0)


def test_whole_numbers_and_extremes_are_taken() -> None:
    histogram = filled([1, True, 5e-324, 1.7976931348623157e308])
    assert (histogram.count, histogram.low, histogram.high) == (4, 5e-324, 1.7976931348623157e308)
    assert histogram.percentile(50) == pytest.approx(1.0, rel=Histogram.ERROR)


def test_a_numpy_scalar_does_not_leak_into_the_figures() -> None:
    numpy = pytest.importorskip("numpy")
    histogram = filled([numpy.float64(1.5), numpy.float32(2.5)])
    figures = (histogram.total, histogram.low, histogram.high)
    assert [type(figure) for figure in figures] == [float, float, float]


@pytest.mark.parametrize("value", [-1.0, -1e-300, nan, inf, -inf])
def test_what_cannot_be_counted_is_refused_and_changes_nothing(value: float) -> None:
    histogram = filled([1.0])
    with pytest.raises(ValueError, match="finite values of zero and more"):
        histogram.record(value)
    assert histogram.snapshot() == filled([1.0]).snapshot()


@pytest.mark.parametrize("q", [-0.1, 100.1, nan])
def test_a_percentile_is_between_0_and_100(q: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 100"):
        filled([1.0]).percentile(q)


def test_counts_add_up_over_threads_that_record_merge_and_read() -> None:
    histogram, other = Histogram(), filled([3.0] * 10)
    barrier = threading.Barrier(9)
    seen: list[HistogramSnapshot] = []

    def record() -> None:
        barrier.wait()
        for n in range(2000):
            histogram.record(n % 7)
        histogram.merge(other)

    def read() -> None:
        barrier.wait()
        seen.extend(histogram.snapshot() for _ in range(200))

    threads = [threading.Thread(target=record) for _ in range(8)] + [threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    one = sum(n % 7 for n in range(2000)) + 30
    assert (histogram.count, histogram.total) == (8 * 2010, 8.0 * one)
    assert sum(histogram._buckets.values()) == 8 * 2010
    counts = [now.count for now in seen]
    assert counts == sorted(counts)
