"""Series are found by name and tags, counted from any thread, and seen as they were."""

from __future__ import annotations

import threading
from decimal import Decimal
from fractions import Fraction
from math import inf, nan
from typing import Any

import pytest

from grym_nb.errors import ConfigError, Problem, ValidationError
from grym_nb.metrics import Counter, Gauge, Histogram, Metrics, Sample


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


class TestCounter:
    def test_it_starts_at_zero_and_adds_one_unless_told_how_many(self) -> None:
        counter = Counter()
        assert (counter.value, repr(counter)) == (0, "<Counter: 0>")
        counter.add()
        counter.add(2.5)
        assert (counter.value, repr(counter)) == (3.5, "<Counter: 3.5>")

    @pytest.mark.parametrize("n", [-1, nan, inf, 10**400])
    def test_it_only_grows(self, n: float) -> None:
        counter = Counter()
        with pytest.raises(ValueError, match="only grows"):
            counter.add(n)
        assert counter.value == 0

    @pytest.mark.parametrize("n", ["7", None, [1], object()])
    def test_what_is_no_number_is_refused(self, n: Any) -> None:
        counter, gauge, histogram = Counter(), Gauge(), Histogram()
        for count in (counter.add, gauge.set, gauge.add, histogram.record):
            with pytest.raises(ValidationError, match="cannot be counted") as caught:
                count(n)
            assert len(str(caught.value).splitlines()) == 3
        assert (counter.value, gauge.value, histogram.count) == (0, None, 0)

    def test_numbers_of_other_kinds_are_counted_as_pythons_own(self) -> None:
        counter, gauge = Counter(), Gauge()
        counter.add(Fraction(1, 2))  # type: ignore[arg-type]
        gauge.set(Decimal("1.5"))  # type: ignore[arg-type]
        assert (type(counter.value), counter.value, type(gauge.value)) == (float, 0.5, float)


class TestGauge:
    def test_it_is_none_until_somebody_says(self) -> None:
        gauge = Gauge()
        assert (gauge.value, repr(gauge)) == (None, "<Gauge: unset>")
        gauge.set(3)
        gauge.add(-4)
        assert (gauge.value, repr(gauge)) == (-1, "<Gauge: -1>")

    def test_adding_to_an_unset_one_starts_from_zero(self) -> None:
        gauge = Gauge()
        gauge.add(2)
        assert gauge.value == 2


class TestMetrics:
    @pytest.mark.parametrize("name", [None, "", " ", 3, []])
    def test_a_name_is_a_text(self, metrics: Metrics, name: Any) -> None:
        for make in (metrics.counter, metrics.gauge, metrics.histogram, metrics.track):
            with pytest.raises(ConfigError, match="nothing can be called"):
                make(name)
        assert len(metrics) == 0 and metrics.snapshot() == ()

    def test_the_same_name_and_tags_are_the_same_series_in_any_order(self, metrics: Metrics) -> None:
        one = metrics.counter("calls", service="a", task="x")
        assert metrics.counter("calls", task="x", service="a") is one
        assert metrics.counter("calls", service="b", task="x") is not one
        assert metrics.counter("calls") is not one
        assert len(metrics) == 3 and repr(metrics).startswith("metrics: 3 series of 1 name\n")

    def test_a_tag_may_be_called_name_or_value(self, metrics: Metrics) -> None:
        metrics.record("seconds", 2.0, name="n", value="v")
        assert [s.tags for s in metrics.select("seconds", name="n")] == [(("name", "n"), ("value", "v"))]

    @pytest.mark.parametrize("tags", [{}, {"service": "a"}])
    def test_a_name_has_one_kind(self, metrics: Metrics, tags: dict[str, str]) -> None:
        metrics.counter("calls", service="a")
        with pytest.raises(ConfigError, match="'calls' is a counter and cannot be a gauge") as caught:
            metrics.gauge("calls", **tags)
        assert caught.value.problems == (Problem("calls", "a gauge", "a counter, which it is already"),)
        with pytest.raises(ConfigError, match="cannot be a histogram"):
            metrics.record("calls", 1.0, **tags)
        assert len(metrics) == 1

    def test_a_snapshot_has_all_series_by_name_and_tags(self, metrics: Metrics) -> None:
        metrics.gauge("busy", service="a")
        metrics.counter("calls", service="b").add(2)
        metrics.counter("calls", service="a").add(1)
        metrics.record("seconds", 0.5, service="a")
        half = Histogram()
        half.record(0.5)
        assert metrics.snapshot() == (
            Sample("busy", "gauge", (("service", "a"),), None),
            Sample("calls", "counter", (("service", "a"),), 1),
            Sample("calls", "counter", (("service", "b"),), 2),
            Sample("seconds", "histogram", (("service", "a"),), half.snapshot()),
        )

    def test_select_finds_the_series_that_have_at_least_the_tags(self, metrics: Metrics) -> None:
        for service in "ab":
            for task in "xy":
                metrics.counter("calls", service=service, task=task)
        metrics.counter("other", service="a")
        assert [s.tags for s in metrics.select("calls", service="a")] == [
            (("service", "a"), ("task", "x")),
            (("service", "a"), ("task", "y")),
        ]
        assert (len(metrics.select("calls")), metrics.select("calls", service="c")) == (4, ())
        assert metrics.select("unknown") == ()

    def test_drop_forgets_a_service_and_lets_its_names_go(self, metrics: Metrics) -> None:
        kept = metrics.counter("calls", service="b")
        held = metrics.counter("calls", service="a", task="x")
        metrics.gauge("busy", service="a")
        assert (metrics.drop(service="a"), metrics.drop(service="a")) == (2, 0)
        assert metrics.snapshot() == (Sample("calls", "counter", (("service", "b"),), 0),)
        held.add()
        assert metrics.counter("calls", service="a", task="x").value == 0
        assert metrics.counter("calls", service="b") is kept
        metrics.histogram("busy")  # the name is free again

    def test_drop_without_tags_is_refused(self, metrics: Metrics) -> None:
        metrics.counter("calls")
        with pytest.raises(ConfigError, match="would forget everything"):
            metrics.drop()
        assert len(metrics) == 1

    def test_threads_get_the_same_series_and_lose_no_count(self, metrics: Metrics) -> None:
        barrier = threading.Barrier(8)

        def count() -> None:
            barrier.wait()
            for n in range(1000):
                metrics.counter("calls", service=str(n % 3)).add()
                metrics.gauge("busy").add(1 if n % 2 else -1)
                metrics.record("seconds", n)
                if n % 100 == 0:
                    metrics.snapshot()

        threads = [threading.Thread(target=count) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        busy, *calls, seconds = metrics.snapshot()
        assert (busy.value, sum(c.value for c in calls if isinstance(c.value, int))) == (0, 8000)
        assert seconds.value is not None and not isinstance(seconds.value, (int, float))
        assert (seconds.value.count, seconds.value.low, seconds.value.high) == (8000, 0.0, 999.0)
