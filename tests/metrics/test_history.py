"""What the series were over time: right for any window, in bounded memory."""

from __future__ import annotations

import random
import threading
import tracemalloc
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grym_nb.errors import ConfigError, ValidationError
from grym_nb.metrics import Histogram, HistogramSnapshot, Metrics
from grym_nb.metrics.history import History
from grym_nb.metrics.window import Seen, Window
from grym_nb.testing import FakeClock


class House:
    def __init__(self) -> None:
        self.clock = FakeClock(1000.0)
        self.metrics = Metrics()
        self.history = History(self.metrics, clock=self.clock, wall=self.clock)

    def pass_seconds(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance(1.0)
            self.history.step()


@pytest.fixture
def house() -> House:
    return House()


def test_a_counter_has_a_rate_and_what_it_grew_by(house: House) -> None:
    calls = house.metrics.counter("calls", service="a")
    house.metrics.counter("calls", service="b").add(5)
    for _ in range(120):
        calls.add(2)
        house.pass_seconds(1)
    window = house.history.window("calls", 60.0, service="a")
    assert (window.count, window.rate) == (120, 2.0)
    assert house.history.window("calls", 3600.0).count == 245
    assert house.history.window("nobody", 60.0) == Window("nobody", None, 60.0)


def test_a_gauge_has_what_it_is_and_where_it_was(house: House) -> None:
    level = house.metrics.gauge("level")
    for value in (5.0, 1.0, 9.0, 4.0):
        level.set(value)
        house.pass_seconds(10)
    window = house.history.window("level", 60.0)
    assert (window.last, window.low, window.high) == (4.0, 1.0, 9.0)
    points = house.history.points("level", 60.0)
    assert [value for _, value in points][-1] == 4.0 and len(points) >= 39
    assert {value for _, value in points} == {5.0, 1.0, 9.0, 4.0}
    assert [value for _, value in house.history.points("level", 5.0)] == [4.0] * 5


def test_a_histogram_has_percentiles_of_any_window(house: House) -> None:
    rng = random.Random(1)
    ours = house.metrics.histogram("seconds", service="a")
    seen: list[tuple[float, float]] = []
    for _ in range(4000):
        for _ in range(rng.randrange(3)):
            value = rng.lognormvariate(-2, 1)
            ours.record(value)
            seen.append((house.clock() + 1.0, value))
        house.pass_seconds(1)
    for seconds, slack in ((30.0, 1.0), (300.0, 5.0), (3000.0, 30.0)):
        window = house.history.window("seconds", seconds, service="a")
        now = house.clock()
        least = sorted(value for at, value in seen if at > now - seconds + slack)
        most = sorted(value for at, value in seen if at > now - seconds - slack)
        assert len(least) <= window.count <= len(most)
        exact = most[int(0.95 * len(most))]
        assert window.p95 == pytest.approx(exact, rel=0.2)
        assert window.mean == pytest.approx(sum(most) / len(most), rel=0.1)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=200), st.integers(1, 50))
def test_what_a_window_counts_is_what_was_recorded(values: list[float], each: int) -> None:
    house = House()
    exact, ours = Histogram(), house.metrics.histogram("seconds")
    for n, value in enumerate(values):
        ours.record(value)
        exact.record(value)
        if n % each == 0:
            house.pass_seconds(1)
    house.pass_seconds(1)
    window, right = house.history.window("seconds", 86_400.0), exact.snapshot()
    assert window.count == right.count and window.total == pytest.approx(right.total)
    for found, wanted in ((window.p50, right.p50), (window.p95, right.p95), (window.high, right.high)):
        assert found == pytest.approx(wanted, rel=2.1 * Histogram.ERROR)


def test_groups_are_by_the_values_of_a_tag(house: House) -> None:
    for service, outcome, n in (("a", "ok", 3), ("a", "task.failed", 2), ("b", "ok", 1)):
        for _ in range(n):
            house.metrics.histogram("seconds", service=service, outcome=outcome).record(0.1)
    house.pass_seconds(1)
    by = house.history.by("seconds", "outcome", 60.0, service="a")
    assert {outcome: its.count for outcome, its in by.items()} == {"ok": 3, "task.failed": 2}
    assert house.history.groups("seconds", ("service",)) == [(("service", "a"),), (("service", "b"),)]
    assert house.history.groups("seconds", ("nothing",)) == []
    house.pass_seconds(100)
    assert house.history.by("seconds", "outcome", 60.0, service="a") == {}


def test_silence_is_told_in_seconds(house: House) -> None:
    calls = house.metrics.counter("calls")
    house.pass_seconds(5)
    assert house.history.silent("calls") is None and house.history.silent("none") is None
    calls.add()
    house.pass_seconds(1)
    house.pass_seconds(30)
    assert house.history.silent("calls") == 30.0


def test_a_series_that_is_made_anew_begins_at_nothing(house: House) -> None:
    house.metrics.counter("calls", service="a").add(100)
    house.pass_seconds(1)
    house.metrics.drop(service="a")
    house.pass_seconds(1)
    assert house.history.groups("calls", ("service",)) == []
    house.metrics.counter("calls", service="a").add(3)
    house.pass_seconds(1)
    assert (
        house.history.window("calls", 60.0).count == 103 and house.history.points("calls", 2.0)[-1][1] == 3.0
    )
    house.metrics.drop(service="a")
    house.pass_seconds(1)
    house.clock.advance(4000.0)
    house.history.step()
    assert repr(house.history) == "<History: 0 series>"


def test_a_kernel_that_slept_leaves_a_gap_and_no_wrong_rate(house: House) -> None:
    calls = house.metrics.counter("calls")
    for _ in range(10):
        calls.add()
        house.pass_seconds(1)
    house.clock.advance(7200.0)
    calls.add()
    house.pass_seconds(1)
    assert house.history.window("calls", 60.0).count == 1
    assert house.history.window("calls", 86_400.0).count == 11
    points = house.history.points("calls", 86_400.0, figure="count")
    assert sum(count for _, count in points) == 11 and points[-1][0] - points[0][0] > 6000.0


@pytest.mark.parametrize("figure", ["value", "rate", "count", "mean", "p50", "p95", "p99", "low", "high"])
def test_every_figure_has_its_points(house: House, figure: str) -> None:
    seconds = house.metrics.histogram("seconds")
    for n in range(10):
        seconds.record(0.1 * (n + 1))
        house.pass_seconds(1)
    points = house.history.points("seconds", 30.0, figure=figure)  # type: ignore[arg-type]
    assert len(points) == 10 and [at for at, _ in points] == sorted(at for at, _ in points)
    assert points[-1][1] == pytest.approx(1.0, rel=0.02)


def test_a_day_of_much_stays_small(house: House) -> None:
    """Five services that are busy all day, by a coarser clock: two days take no more than one."""
    rng = random.Random(3)
    series = [house.metrics.histogram("seconds", service=f"s{n}") for n in range(5)]
    counters = [house.metrics.counter("calls", service=f"s{n}") for n in range(5)]

    def hours(count: int) -> None:
        for _ in range(count * 60):
            for one in series:
                one.record(rng.lognormvariate(-2, 0.5))
            for one in counters:
                one.add()
            house.clock.advance(60.0)
            house.history.step()

    tracemalloc.start()
    try:
        hours(26)
        day = tracemalloc.get_traced_memory()[0]
        hours(26)
        more = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert day / 10 < 40_000 and more < 1.2 * day


@pytest.mark.parametrize("ladder", [(), ((5.0, 10), (1.0, 10)), ((0.0, 10),), ((1.0, 0),)])
def test_a_ladder_that_makes_no_sense_is_refused(ladder: tuple[tuple[float, int], ...]) -> None:
    with pytest.raises(ConfigError, match="no history can be kept so"):
        History(Metrics(), ladder=ladder)


def test_a_rate_is_over_the_time_that_is_known(house: House) -> None:
    calls = house.metrics.counter("calls")
    for _ in range(10):
        calls.add(3)
        house.pass_seconds(1)
    window = house.history.window("calls", 3600.0)
    assert (window.seconds, window.count, window.rate) == (10.0, 30, 3.0)


def test_what_was_counted_before_the_history_began_is_in_no_window() -> None:
    clock, metrics = FakeClock(), Metrics()
    metrics.counter("calls").add(100)
    metrics.record("seconds", 1.0)
    metrics.gauge("level").set(7.0)
    history = History(metrics, clock=clock)
    metrics.counter("calls").add(2)
    metrics.record("seconds", 3.0)
    clock.advance(1.0)
    history.step()
    assert history.window("calls", 60.0).count == 2
    assert (history.window("seconds", 60.0).count, history.window("seconds", 60.0).mean) == (1, 3.0)
    assert history.window("level", 60.0).last == 7.0


def test_steps_that_were_missed_make_no_wrong_rates(house: House) -> None:
    calls, seconds = house.metrics.counter("calls"), house.metrics.histogram("seconds")
    for n in range(20):
        late = 30.0 if n == 10 else 1.0
        calls.add(int(5 * late))
        for _ in range(int(5 * late)):
            seconds.record(0.1)
        house.clock.advance(late)
        house.history.step()
    for name in ("calls", "seconds"):
        assert {rate for _, rate in house.history.points(name, 60.0, figure="rate")} == {5.0}
        for window in (1.0, 5.0, 12.0, 20.0, 60.0):
            assert house.history.window(name, window).rate == 5.0
    times = [at for at, _ in house.history.points("calls", 60.0)]
    assert max(b - a for a, b in pairwise(times)) == 30.0 and len(times) == 20


def test_whoever_steps_more_often_loses_nothing(house: House) -> None:
    """Each look at a panel may step, too: a minute by seconds is still a minute."""
    calls = house.metrics.counter("calls")
    for _ in range(80):
        for _ in range(10):
            calls.add()
            house.clock.advance(0.1)
            house.history.step()
    window = house.history.window("calls", 60.0)
    assert window.seconds == pytest.approx(60.0, abs=1.1) and window.rate == pytest.approx(10.0)
    assert len(house.history.points("calls", 60.0)) in (60, 61, 62)


def test_a_clock_that_is_set_back_makes_no_negative_rate() -> None:
    now = [1000.0]
    metrics = Metrics()
    history = History(metrics, clock=lambda: now[0], wall=lambda: now[0])
    for at in (1001.0, 1002.0, 500.0, 501.0, 1003.0, 1004.0):
        metrics.counter("calls").add()
        now[0] = at
        history.step()
    window = history.window("calls", 60.0)
    assert (window.count, window.seconds) == (6, 4.0)
    assert [at for at, _ in history.points("calls", 60.0)] == [1001.0, 1002.0, 1003.0, 1004.0]


def test_a_tag_may_be_one_of_several_or_what_a_function_says(house: House) -> None:
    for n, outcome in enumerate(("ok", "task.failed", "call.timeout"), 1):
        house.metrics.counter("calls", outcome=outcome, service="a").add(n)
    house.metrics.counter("calls").add(50)
    house.pass_seconds(1)
    window = house.history.window
    assert window("calls", 60.0).count == 56
    assert window("calls", 60.0, outcome=("ok", "call.timeout")).count == 4
    assert window("calls", 60.0, outcome=lambda one: one != "ok", service="a").count == 5
    assert window("calls", 60.0, outcome=()).kind is None
    assert window("calls", 60.0, nothing="a") == Window("calls", None, 1.0)


def test_a_quiet_counter_has_a_rate_of_nothing_and_a_quiet_histogram_no_percentile(house: House) -> None:
    house.pass_seconds(3)
    house.metrics.counter("calls").add()
    house.metrics.record("seconds", 2.0)
    house.pass_seconds(5)
    assert [rate for _, rate in house.history.points("calls", 60.0, figure="rate")] == [1.0, 0, 0, 0, 0]
    assert [n for _, n in house.history.points("seconds", 60.0, figure="count")] == [1.0, 0, 0, 0, 0]
    assert len(house.history.points("seconds", 60.0, figure="p95")) == 1
    assert house.history.points("calls", 60.0, figure="p95") == []


def test_figures_of_several_gauges_are_of_their_sum(house: House) -> None:
    a, b = house.metrics.gauge("level", service="a"), house.metrics.gauge("level", service="b")
    a.set(1.0)
    b.set(10.0)
    house.pass_seconds(30)
    a.set(4.0)
    house.pass_seconds(10)
    house.metrics.drop(service="b")
    house.pass_seconds(10)
    window = house.history.window("level", 60.0)
    assert (window.last, window.low, window.high, window.count, window.rate) == (4.0, 4.0, 14.0, 0, None)
    assert window.mean == pytest.approx((30 * 11 + 10 * 14 + 10 * 4) / 50, abs=0.3)
    assert house.history.points("level", 3.0, figure="high") == [(1048.0, 4.0), (1049.0, 4.0), (1050.0, 4.0)]
    assert house.history.points("level", 60.0, figure="rate") == []
    assert house.history.by("level", "service", 60.0)["a"].last == 4.0
    assert house.history.by("level", "service", 60.0).keys() == {"a"}


def test_a_gauge_that_never_changes_has_a_value_for_all_the_day(house: House) -> None:
    house.metrics.gauge("level").set(3.0)
    for _ in range(200):
        house.clock.advance(600.0)
        house.history.step()
    points = house.history.points("level", 86_400.0)
    assert {value for _, value in points} == {3.0} and len(points) == 144
    assert house.history.window("level", 86_400.0).mean == 3.0


def test_a_gauge_that_is_no_number_is_left_out(house: House) -> None:
    house.metrics.gauge("level", service="a").set(10**400)
    house.metrics.gauge("level", service="c").set(2)
    house.metrics.gauge("level", service="d")
    house.pass_seconds(2)
    assert house.history.by("level", "service", 60.0).keys() == {"c"}
    assert house.history.window("level", 60.0).last == 2.0


def test_a_name_that_becomes_another_kind_is_of_that_kind(house: House) -> None:
    house.metrics.counter("busy", service="a").add(9)
    house.pass_seconds(1)
    house.metrics.drop(service="a")
    house.metrics.gauge("busy", service="a").set(2.0)
    house.metrics.gauge("busy", service="b").set(3.0)
    house.pass_seconds(1)
    window = house.history.window("busy", 60.0)
    assert (window.kind, window.last, window.count) == ("gauge", 5.0, 0)


def test_slots_that_are_over_can_be_had_once_each(house: House) -> None:
    calls, level = house.metrics.counter("calls"), house.metrics.gauge("level")
    number, seen = 0, 0.0
    times: list[float] = []
    for n in range(400):
        calls.add()
        level.set(n)
        house.pass_seconds(1)
        if n % 90 == 89:
            number, part, series = house.history.closed(2, number)
            times += part[bool(times) :]
            named = dict(series)
            seen += sum(part[0] for at, part in named["calls"].slots if at >= 0)
            assert named["level"].kind == "gauge" and named["level"].slots[-1][1][0] == part[-1] - 1001.0
    assert house.history.ladder[2][0] == 30.0
    assert times == sorted(set(times)) and times[0] == 1000.0
    assert seen == times[-1] - times[0]


def test_a_stretch_is_cut_in_pieces_of_about_equal_length(house: House) -> None:
    calls = house.metrics.counter("calls")
    for n in range(60):
        calls.add(n // 20)
        house.pass_seconds(1)
    pieces = house.history.stretch("calls", 60.0).pieces(3)
    assert [piece.window("calls").rate for piece in pieces] == [0.0, 1.0, 2.0]
    assert len(house.history.stretch("calls", 2.0).pieces(5)) == 2


def test_readers_in_other_threads_see_whole_steps(house: House) -> None:
    """A counter and a histogram are written together: no reader sees one without the other."""
    seconds = [house.metrics.histogram("seconds", n=str(n)) for n in range(20)]
    over, wrong = threading.Event(), []

    def reads() -> None:
        while not over.is_set():
            by = house.history.by("seconds", "n", 3600.0)
            if len({window.count for window in by.values()}) > 1:
                wrong.append(by)
            house.history.points("seconds", 60.0, figure="p95")

    readers = [threading.Thread(target=reads) for _ in range(3)]
    for reader in readers:
        reader.start()
    for n in range(300):
        for one in seconds:
            one.record(n + 1.0)
        house.pass_seconds(1)
    over.set()
    for reader in readers:
        reader.join(30)
    assert not wrong and house.history.window("seconds", 3600.0).count == 6000


def test_series_are_named_as_long_as_they_are_there(house: House) -> None:
    house.metrics.counter("calls", service="a")
    house.metrics.gauge("level", service="b")
    house.pass_seconds(1)
    house.metrics.drop(service="a")
    house.pass_seconds(1)
    assert house.history.series() == [("level", "gauge", (("service", "b"),))]


@pytest.mark.parametrize("age", [0, 25])
def test_no_window_leaves_anything_out_however_young_a_series_is(house: House, age: int) -> None:
    house.pass_seconds(age)
    for second in range(500):
        house.metrics.counter("calls").add()
        house.metrics.record("seconds", 0.1)
        house.pass_seconds(1)
        for wide in (60.0, 80.0, 100.0):
            stretch = house.history.stretch("calls", wide)
            came = min(second + 1, round(house.clock() - stretch.times[0]))
            assert stretch.window("calls").count == came
            assert house.history.window("seconds", wide).count == came


def test_where_nobody_has_stepped_nothing_is_known(house: House) -> None:
    house.metrics.counter("calls").add(5)
    house.pass_seconds(3)
    house.clock.advance(3600.0)
    window = house.history.window("calls", 60.0)
    assert (window.count, window.seconds) == (0, 0.0) and "nobody has stepped" in repr(window)
    assert house.history.points("calls", 60.0) == []


def test_what_is_asked_for_and_is_not_there_is_told_with_what_is(house: House) -> None:
    house.metrics.counter("calls", service="a").add()
    house.pass_seconds(1)
    assert "Did you mean 'calls'?" in repr(house.history.window("clals", 60.0))
    assert "its tags are service" in repr(house.history.window("calls", 60.0, srevice="a"))
    assert repr(house.history.window("calls", 60.0)).startswith("<Window of 'calls': counter, 1 s, count=1")
    for name in ("calls", "nobody"):
        with pytest.raises(ValidationError, match=r"Did you mean 'p9\d'"):
            house.history.points(name, 60.0, figure="p96")  # type: ignore[arg-type]
    for seconds in ("5m", 0, -5, 10**7, float("nan"), True, None):
        with pytest.raises(ValidationError, match="such as 300"):
            house.history.window("calls", seconds)  # type: ignore[arg-type]


def test_points_are_by_time_of_day() -> None:
    clock, metrics = FakeClock(5.0), Metrics()
    history = History(metrics, clock=clock, wall=lambda: clock() + 1e9)
    metrics.gauge("level").set(1)
    clock.advance(1.0)
    history.step()
    assert history.points("level", 60.0) == [(1e9 + 6.0, 1.0)]


def test_a_gauge_that_is_set_to_what_it_is_has_not_been_silent(house: House) -> None:
    for _ in range(20):
        house.metrics.gauge("beat").set(1.0)
        house.pass_seconds(1)
    assert house.history.silent("beat") == 0.0
    house.pass_seconds(7)
    assert house.history.silent("beat") == 7.0


def test_every_series_can_be_had_as_it_was_over_a_time(house: House) -> None:
    """Also one whose tags are among those of another."""
    whole, part = (
        house.metrics.counter("calls", service="a"),
        house.metrics.counter("calls", service="a", of="x"),
    )
    took = house.metrics.histogram("took", service="b")
    house.metrics.gauge("level", service="a").set(7.0)
    for counter in (whole, part):
        counter.add(100)
    house.pass_seconds(40)
    whole.add(3)
    part.add(2)
    took.record(0.5)
    house.pass_seconds(5)
    found = {(one.name, one.tags): one.value for one in house.history.samples(20.0)}
    assert found["calls", (("service", "a"),)] == 3 and found["calls", (("of", "x"), ("service", "a"))] == 2
    assert found["level", (("service", "a"),)] == 7.0 and len(found) == 4
    value = found["took", (("service", "b"),)]
    assert isinstance(value, HistogramSnapshot) and (value.count, value.total) == (1, 0.5)
    assert [one.name for one in house.history.samples(20.0, service="b")] == ["took"]


@pytest.mark.parametrize("before", [0.0, 1e12])
@pytest.mark.parametrize(
    "values", [(0.00014825,) * 3, (0.00014625,) * 3, (0.00014625, 0.00014825), (0.0, 0.0)]
)
def test_a_mean_is_between_the_lowest_and_the_highest(values: tuple[float, ...], before: float) -> None:
    """Also where the buckets, or a sum of which another was taken, tell less than the values did."""
    clock, metrics = FakeClock(), Metrics()
    metrics.record("x.seconds", before)
    history = History(metrics, clock=clock)
    for value in values:
        metrics.record("x.seconds", value)
    clock.advance(1.0)
    history.step()
    its = history.window("x.seconds", 60.0)
    assert its.low is not None and its.mean is not None and its.p50 is not None and its.high is not None
    assert its.low <= its.mean <= its.high and its.low <= its.p50 <= its.high
    for value in values:
        assert its.low <= value * (1 + Histogram.ERROR) and value * (1 - Histogram.ERROR) <= its.high
    if not before:
        assert its.mean == pytest.approx(sum(values) / len(values))


def test_counts_and_parts_are_what_windows_say(house: House) -> None:
    """Over any time, also where slots are joined, still open, or older than what is asked for."""
    dice = random.Random(3)
    for second in range(200):
        for service in "ab":
            for outcome in ("ok", "failed"):
                if dice.random() < 0.4:
                    house.metrics.record("calls.seconds", dice.random(), service=service, outcome=outcome)
        house.metrics.counter("calls", service="a").add(second % 3)
        house.metrics.gauge("level", service="a").set(second)
        house.pass_seconds(1)
        if second % 7 == 0:
            house.metrics.record("calls.seconds", 1.0, service="b", outcome="ok")  # of a slot still open
    for seconds in (1.0, 5.0, 20.0, 60.0, 150.0):
        for name in ("calls.seconds", "calls"):
            counts = house.history.counts(name, seconds)
            whole = house.history.stretch(name, seconds)
            assert counts == {
                one.tags: replace(whole, series=(one,)).window("").count for one in whole.series
            }
        parts = house.history.parts("calls.seconds", "service", 60.0)
        if seconds <= 60.0:
            for service, part in parts.items():
                since = part.end - seconds
                exact = house.history.stretch("calls.seconds", 60.0, service=service).since(since)
                assert part.since(since).window("") == exact.window("")
    assert house.history.counts("level", 60.0) == {} and house.history.counts("nobody", 60.0) == {}
    house.clock.advance(100.0)  # nobody steps
    assert house.history.counts("calls", 60.0) == {} and house.history.parts("calls", "service", 60.0) == {}


def test_a_gauge_that_stands_still_is_the_same_by_either_way(house: House) -> None:
    """No slot of it is looked at; what it tells is what all of them would."""
    gauge = house.metrics.gauge("level", service="a")
    gauge.set(3.0)
    house.pass_seconds(90)
    still = house.history.stretch("level", 60.0)
    other = replace(still, series=[*still.series, Seen("gauge", (), ())])  # of two, each slot is looked at
    assert (
        still.window("level")
        == other.window("level")
        == Window("level", "gauge", 60.0, 0, 0.0, None, *[3.0] * 4)
    )
    gauge.set(5.0)
    house.pass_seconds(1)
    assert house.history.window("level", 60.0).low == 3.0 and house.history.window("level", 60.0).high == 5.0
    house.metrics.drop(service="a")
    house.pass_seconds(70)
    assert house.history.window("level", 60.0).last is None
