"""What leaves the house is read back by the official parsers, and equal to what was measured."""

from __future__ import annotations

import csv
import gc
import io
import json
import math
import shutil
import subprocess
import sys
import types
from collections.abc import Callable, Iterable
from math import inf, nan
from typing import Any

import prometheus_client
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from grym_nb.errors import MissingExtra, ValidationError
from grym_nb.metrics import Histogram, Metrics, Sample
from grym_nb.metrics.export import (
    Collector,
    openmetrics,
    prometheus,
    to_csv,
    to_json,
    to_prometheus_collector,
)

Found = dict[tuple[str, frozenset[tuple[str, str]]], float]
Parse = Callable[[str], Iterable[Metric]]
Write = Callable[..., str]

FORMATS = [
    pytest.param(prometheus, parse_plain, id="0.0.4"),
    pytest.param(openmetrics, parse_open, id="open"),
]

hostile = st.text(st.characters() | st.sampled_from('\\"\n\r{}=,#éß☃ _.'), max_size=8)
numbers = st.floats() | st.integers() | st.sampled_from([10**400, -(10**400), 2**53 + 1, True])


@pytest.fixture
def metrics() -> Metrics:
    found = Metrics()
    found.counter("weights.shared", key="a", outcome="built").add(3)
    found.gauge("service.memory.bytes", service="a").set(1.5)
    found.gauge("service.waiting", service="a")
    for seconds in (0.001, 0.004, 0.004, 70.0):
        found.record("service.call.seconds", seconds, service="a", outcome="ok")
    return found


def read(families: Iterable[Metric]) -> Found:
    """Every sample by name and labels; twice the same is an error."""
    found: Found = {}
    for family in families:
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def test_a_page_for_prometheus_in_full() -> None:
    metrics = Metrics()
    metrics.counter("weights.shared", key='C:\\"x"', outcome="built").add(3)
    metrics.gauge("my.load").set(0.5)
    metrics.record("fill.ratio", 0.3)
    assert prometheus(metrics) == (
        "# HELP grym_fill_ratio The histogram 'fill.ratio' of grym_nb.\n"
        "# TYPE grym_fill_ratio histogram\n"
        'grym_fill_ratio_bucket{le="0.01"} 0\n'
        'grym_fill_ratio_bucket{le="0.05"} 0\n'
        'grym_fill_ratio_bucket{le="0.1"} 0\n'
        'grym_fill_ratio_bucket{le="0.25"} 0\n'
        'grym_fill_ratio_bucket{le="0.5"} 1\n'
        'grym_fill_ratio_bucket{le="0.75"} 1\n'
        'grym_fill_ratio_bucket{le="0.9"} 1\n'
        'grym_fill_ratio_bucket{le="0.95"} 1\n'
        'grym_fill_ratio_bucket{le="0.99"} 1\n'
        'grym_fill_ratio_bucket{le="1.0"} 1\n'
        'grym_fill_ratio_bucket{le="+Inf"} 1\n'
        "grym_fill_ratio_count 1\n"
        "grym_fill_ratio_sum 0.3\n"
        "# HELP grym_my_load The gauge 'my.load' of grym_nb.\n"
        "# TYPE grym_my_load gauge\n"
        "grym_my_load 0.5\n"
        "# HELP grym_weights_shared_total Shared weights that were built, and those that were found.\n"
        "# TYPE grym_weights_shared_total counter\n"
        'grym_weights_shared_total{key="C:\\\\\\"x\\"",outcome="built"} 3\n'
    )


def test_a_page_of_openmetrics_has_units_and_an_end(metrics: Metrics) -> None:
    text = openmetrics(metrics, summary=True)
    assert text == (
        "# TYPE grym_service_call_seconds summary\n"
        "# UNIT grym_service_call_seconds seconds\n"
        "# HELP grym_service_call_seconds What a call took by task and outcome, without its waits.\n"
        'grym_service_call_seconds{outcome="ok",service="a",quantile="0.5"} 0.00396728515625\n'
        'grym_service_call_seconds{outcome="ok",service="a",quantile="0.95"} 70.0\n'
        'grym_service_call_seconds{outcome="ok",service="a",quantile="0.99"} 70.0\n'
        'grym_service_call_seconds_count{outcome="ok",service="a"} 4\n'
        'grym_service_call_seconds_sum{outcome="ok",service="a"} 70.009\n'
        "# TYPE grym_service_memory_bytes gauge\n"
        "# UNIT grym_service_memory_bytes bytes\n"
        "# HELP grym_service_memory_bytes Memory that is reserved for a loaded service.\n"
        'grym_service_memory_bytes{service="a"} 1.5\n'
        "# TYPE grym_weights_shared counter\n"
        "# HELP grym_weights_shared Shared weights that were built, and those that were found.\n"
        'grym_weights_shared_total{key="a",outcome="built"} 3\n'
        "# EOF\n"
    )
    assert [(family.name, family.unit) for family in parse_open(text)] == [
        ("grym_service_call_seconds", "seconds"),
        ("grym_service_memory_bytes", "bytes"),
        ("grym_weights_shared", ""),
    ]


@pytest.mark.parametrize(("write", "parse"), FORMATS)
def test_nothing_measured_is_an_empty_page_of_either_format(write: Write, parse: Parse) -> None:
    metrics = Metrics()
    metrics.gauge("unset")
    assert list(parse(write(metrics))) == list(parse(write(()))) == []


@pytest.mark.parametrize(("write", "parse"), FORMATS)
@given(
    given=st.dictionaries(
        hostile, st.tuples(st.dictionaries(hostile, hostile, max_size=3), numbers), max_size=5
    )
)
def test_numbers_come_back_whatever_names_and_tags_are_called(
    write: Write, parse: Parse, given: dict[str, tuple[dict[str, str], float]]
) -> None:
    samples = [
        Sample(name, "gauge", tuple(sorted(tags.items())), value) for name, (tags, value) in given.items()
    ]
    found = read(parse(write(samples)))
    assert len(found) == len(samples)
    wanted = [_as_float(sample.value) for sample in samples]
    for (_, labels), value in found.items():
        wanted.remove(next(one for one in wanted if same(one, value)))
        texts = {text for _, text in labels}
        assert any(
            texts == {text.encode("utf-8", "backslashreplace").decode() for _, text in sample.tags}
            for sample in samples
            if same(_as_float(sample.value), value)
        )


def _as_float(value: object) -> float:
    assert isinstance(value, (int, float))
    try:
        return float(value)
    except OverflowError:
        return inf if value > 0 else -inf


@pytest.mark.parametrize(("write", "parse"), FORMATS)
@given(
    names=st.lists(
        st.text("ab_.☃", min_size=1, max_size=3) | st.sampled_from(["a.count", "a_sum", "a.total"]),
        unique=True,
    )
)
def test_each_name_has_a_name_of_its_own_outside_whatever_its_kind(
    write: Write, parse: Parse, names: list[str]
) -> None:
    metrics = Metrics()
    for n, name in enumerate(names):
        if len(name) % 3 == 0:
            metrics.counter(name).add(n)
        elif len(name) % 3 == 1:
            metrics.record(name, 1.0)
        else:
            metrics.gauge(name).set(n)
    families = list(parse(write(metrics)))
    assert (len(families), len({family.name for family in families})) == (len(names), len(names))
    read(families)


def test_of_names_that_would_be_one_the_dotted_keeps_it_and_the_others_are_marked() -> None:
    metrics = Metrics()
    metrics.gauge("calls_now").set(2)
    metrics.gauge("calls.now").set(1)
    metrics.gauge("calls:now").set(3)
    metrics.counter("calls.total").add(4)
    found = read(parse_plain(prometheus(metrics)))
    assert {name: value for (name, _), value in found.items()} == {
        "grym_calls_now": 1.0,
        "grym_calls_now_f8ac042f": 2.0,
        "grym_calls_now_f454031e": 3.0,
        "grym_calls_total": 4.0,
    }


def test_a_sample_of_a_histogram_is_never_another_familys() -> None:
    metrics = Metrics()
    metrics.record("a", 1.0)
    metrics.gauge("a.count").set(7)
    families = list(parse_plain(prometheus(metrics)))
    assert [family.type for family in families] == ["histogram", "gauge"]
    assert families[1].name.startswith("grym_a_count_")


def test_a_name_that_samples_use_for_two_kinds_is_two_families() -> None:
    samples = (Sample("a", "gauge", (), 1), Sample("a", "counter", (), 2))
    assert [family.type for family in parse_open(openmetrics(samples))] == ["counter", "gauge"]


@pytest.mark.parametrize(
    ("keys", "labels"),
    [
        (["service"], {"service"}),
        (["le", "quantile", "__name__"], {"tag_le", "tag_quantile", "tag___name__"}),
        (["", "1st", "a-b"], {"tag_", "tag_1st", "a_b"}),
        (["a.b", "a_b"], {"a_b", "a_b_290953dd"}),
    ],
)
def test_tags_become_labels_that_are_free(keys: list[str], labels: set[str]) -> None:
    metrics = Metrics()
    metrics.record("seconds", 1.0, **dict.fromkeys(keys, "x"))
    metrics.gauge("load", **dict.fromkeys(keys, "x")).set(1)
    for family in parse_plain(prometheus(metrics)):
        assert {label for sample in family.samples for label in sample.labels} - {"le"} == labels


def test_two_series_that_differ_in_the_spelling_of_a_tag_stay_two() -> None:
    samples = [Sample("a", "gauge", ((key, "x"),), n) for n, key in enumerate(["b.c", "b_c", "b-c"])]
    assert sorted(read(parse_plain(prometheus(samples))).values()) == [0, 1, 2]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (inf, "+Inf"),
        (-inf, "-Inf"),
        (nan, "NaN"),
        (10**400, "+Inf"),
        (-(10**400), "-Inf"),
        (2**53, "9007199254740992"),
        (2**60, "1.152921504606847e+18"),
        (0.1, "0.1"),
        (True, "1.0"),
    ],
)
def test_numbers_are_written_as_every_reader_takes_them(value: float, text: str) -> None:
    assert prometheus([Sample("a", "gauge", (), value)]).splitlines()[-1] == f"grym_a {text}"


# -- histograms ----------------------------------------------------------------------------------------

values = st.lists(
    st.just(0.0) | st.floats(1e-7, 1e5) | st.sampled_from([1e-5, 0.001, 0.0025, 1.0, 5.0, 10.0]), max_size=60
)


@given(values, st.lists(st.floats(0, 1e5) | st.sampled_from([0.0, 1.0, 10.0]), unique=True).map(sorted))
def test_a_bucket_counts_no_less_than_there_is_and_no_more_than_up_to_a_32nd_above(
    recorded: list[float], bounds: list[float]
) -> None:
    histogram = Histogram()
    for value in recorded:
        histogram.record(value)
    counts, total = histogram.cumulative((*bounds, inf))
    assert (counts[-1], total) == (len(recorded), histogram.total)
    assert list(counts) == sorted(counts)
    for bound, count in zip(bounds, counts, strict=False):
        assert sum(value <= bound for value in recorded) <= count
        assert count <= sum(value <= bound * (1 + 2 * Histogram.ERROR) for value in recorded)


def test_whole_numbers_up_to_64_are_counted_exactly() -> None:
    histogram = Histogram()
    for value in range(65):
        histogram.record(value)
    bounds = tuple(map(float, range(65)))
    assert histogram.cumulative(bounds)[0] == tuple(range(1, 66))


def test_nothing_is_below_a_bound_that_no_value_can_be_below() -> None:
    histogram = Histogram()
    histogram.record(0.0)
    assert histogram.cumulative((-inf, -1.0, 0.0)) == ((0, 0, 1), 0.0)


@pytest.mark.parametrize(("write", "parse"), FORMATS)
@given(recorded=values)
def test_a_histogram_comes_back_as_buckets_that_only_grow(
    write: Write, parse: Parse, recorded: list[float]
) -> None:
    metrics = Metrics()
    for name in ("x.seconds", "x.bytes", "x.ratio", "x.tokens"):
        histogram = metrics.histogram(name, service="a")
        for value in recorded:
            histogram.record(value)
    for family in parse(write(metrics)):
        buckets = [s for s in family.samples if s.name.endswith("_bucket")]
        at = [float(s.labels["le"]) for s in buckets]
        counts = [s.value for s in buckets]
        assert (family.type, at, counts) == ("histogram", sorted(at), sorted(counts))
        own = metrics.select(family.name.removeprefix("grym_").replace("_", "."))[0].value
        rest = [s.value for s in family.samples if not s.name.endswith("_bucket")]
        assert not isinstance(own, (int, float, type(None)))
        assert (counts[-1], rest) == (own.count, [own.count, own.total])


def test_a_summary_has_our_percentiles_and_a_snapshot_is_one_by_itself(metrics: Metrics) -> None:
    assert prometheus(metrics, summary=True) == prometheus(metrics.snapshot())
    metrics.histogram("empty.seconds")
    own = metrics.histogram("service.call.seconds", service="a", outcome="ok").snapshot()
    found = read(parse_plain(prometheus(metrics, summary=True)))
    tags = {("service", "a"), ("outcome", "ok")}
    for quantile, value in (("0.5", own.p50), ("0.95", own.p95), ("0.99", own.p99)):
        assert found["grym_service_call_seconds", frozenset({*tags, ("quantile", quantile)})] == value
    empty = {name: value for (name, _), value in found.items() if name.startswith("grym_empty")}
    assert empty == {"grym_empty_seconds_count": 0.0, "grym_empty_seconds_sum": 0.0}


def test_writing_makes_no_series_and_brings_none_back(metrics: Metrics) -> None:
    before = len(metrics)
    prometheus(metrics)
    metrics.drop(service="a")
    prometheus(metrics)
    assert (before, len(metrics)) == (4, 1)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool: apt-get install prometheus")
@pytest.mark.parametrize("summary", [False, True])
def test_promtool_finds_nothing_to_say(metrics: Metrics, summary: bool) -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=prometheus(metrics, summary=summary),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# -- JSON and CSV --------------------------------------------------------------------------------------


def test_json_has_every_series_and_only_json(metrics: Metrics) -> None:
    metrics.gauge("odd").set(nan)
    metrics.gauge("vast").set(-inf)
    text = to_json(metrics)
    assert to_json(metrics.snapshot()) == text
    assert json.loads(text, parse_constant=pytest.fail) == [
        {"name": "odd", "kind": "gauge", "tags": {}, "value": "NaN"},
        {
            "name": "service.call.seconds",
            "kind": "histogram",
            "tags": {"outcome": "ok", "service": "a"},
            "value": {
                "count": 4,
                "total": 70.009,
                "mean": 17.50225,
                "low": 0.001,
                "high": 70.0,
                "p50": 0.00396728515625,
                "p95": 70.0,
                "p99": 70.0,
            },
        },
        {"name": "service.memory.bytes", "kind": "gauge", "tags": {"service": "a"}, "value": 1.5},
        {"name": "service.waiting", "kind": "gauge", "tags": {"service": "a"}, "value": None},
        {"name": "vast", "kind": "gauge", "tags": {}, "value": "-Inf"},
        {"name": "weights.shared", "kind": "counter", "tags": {"key": "a", "outcome": "built"}, "value": 3},
    ]


@given(name=hostile, tags=st.dictionaries(hostile, hostile, max_size=3), value=st.floats(allow_nan=False))
@example(name="\ud800", tags={}, value=0.0)
def test_csv_comes_back_as_it_was(name: str, tags: dict[str, str], value: float) -> None:
    histogram = Histogram()
    histogram.record(2.0)
    samples = [
        Sample(name, "gauge", tuple(sorted(tags.items())), value),
        Sample("unset", "gauge", (), None),
        Sample("seconds", "histogram", (), histogram.snapshot()),
    ]
    head, first, unset, seconds = csv.reader(io.StringIO(to_csv(samples), newline=""))
    assert head == [
        "name",
        "kind",
        "tags",
        "value",
        "count",
        "total",
        "mean",
        "low",
        "high",
        "p50",
        "p95",
        "p99",
    ]
    written = name.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair fits in no file
    assert (first[0], json.loads(first[2]), float(first[3])) == (written, tags, value)
    assert unset == ["unset", "gauge", "{}", *[""] * 9]
    assert seconds == ["seconds", "histogram", "{}", "", "1", *["2.0"] * 7]


# -- prometheus_client ---------------------------------------------------------------------------------


def test_a_collector_says_the_same_as_our_own_page(metrics: Metrics) -> None:
    for value in (nan, inf, 10**400):
        metrics.gauge("strange", value=str(value)[:3], text='"\n\\\udc80').set(value)
    for summary in (False, True):
        registry = CollectorRegistry()
        registry.register(to_prometheus_collector(metrics, summary=summary))
        theirs = read(parse_plain(prometheus_client.generate_latest(registry).decode()))
        ours = read(parse_plain(prometheus(metrics, summary=summary)))
        assert theirs.keys() == ours.keys()
        assert all(same(theirs[key], ours[key]) for key in ours)


@pytest.mark.parametrize("auto_describe", [False, True])
def test_registering_again_changes_nothing(metrics: Metrics, auto_describe: bool) -> None:
    registry = CollectorRegistry(auto_describe=auto_describe)
    registry.register(to_prometheus_collector(metrics))
    once = prometheus_client.generate_latest(registry)
    registry.register(to_prometheus_collector(metrics))
    assert prometheus_client.generate_latest(registry) == once
    registry.unregister(to_prometheus_collector(metrics))
    assert prometheus_client.generate_latest(registry) == b""


def test_a_collector_of_a_class_that_was_loaded_anew_is_still_the_same(metrics: Metrics) -> None:
    anew = types.ModuleType("anew")
    source = sys.modules[Collector.__module__].__file__
    assert source is not None
    with open(source, encoding="utf-8") as file:
        sys.modules["anew"] = anew
        try:
            exec(compile(file.read(), source, "exec"), vars(anew))
        finally:
            del sys.modules["anew"]
    other = anew.to_prometheus_collector(metrics)
    assert type(other) is not Collector
    assert {other, to_prometheus_collector(metrics)} == {other}


def test_collectors_of_different_metrics_are_different(metrics: Metrics) -> None:
    one, other = to_prometheus_collector(metrics), to_prometheus_collector(Metrics())
    assert one != other
    assert one != 1
    assert repr(one) == f"<Collector: of {len(metrics)} series>"


def test_a_collector_keeps_no_metrics_alive() -> None:
    gone = Metrics()
    gone.counter("calls").add()
    registry = CollectorRegistry()
    collector = to_prometheus_collector(gone)
    registry.register(collector)
    assert prometheus_client.generate_latest(registry) != b""
    del gone
    gc.collect()
    assert prometheus_client.generate_latest(registry) == b""
    assert collector.metrics is None
    registry.unregister(collector)


def test_without_prometheus_client_the_line_that_installs_it_is_named(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MissingExtra, match="needs that package, which is not installed") as caught:
        to_prometheus_collector(metrics)
    assert caught.value.hint == "pip install prometheus-client"


def test_csv_has_a_field_for_every_column_and_is_utf_8(metrics: Metrics) -> None:
    metrics.counter("n\ud800").add()
    metrics.histogram("h").record(1.0)
    rows = list(csv.reader(io.StringIO(to_csv(metrics).encode().decode(), newline="")))
    assert {len(row) for row in rows} == {12} and "n\\ud800" in [row[0] for row in rows]


@pytest.mark.parametrize("write", [prometheus, openmetrics, to_json, to_csv])
def test_a_sample_that_is_no_number_is_left_out(write: Any) -> None:
    odd: Any = Sample("odd", "gauge", (), "0.3 (best)")  # type: ignore[arg-type]
    assert write([odd]) == write([])


@pytest.mark.parametrize("wrong", [None, "metrics", []])
def test_only_metrics_are_collected(wrong: Any) -> None:
    with pytest.raises(ValidationError, match="metrics cannot be"):
        to_prometheus_collector(wrong)
