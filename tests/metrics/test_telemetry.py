"""The bridge to OpenTelemetry, read back by its own SDK."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from grym_nb.errors import MissingExtra
from grym_nb.metrics import Metrics
from grym_nb.metrics.telemetry import to_opentelemetry
from tests.services.crowd import until


@pytest.fixture
def reader() -> Iterator[InMemoryMetricReader]:
    reader = InMemoryMetricReader()
    yield reader
    reader.shutdown()


def meter_of(reader: InMemoryMetricReader) -> Any:
    return MeterProvider(metric_readers=[reader]).get_meter("test")


def read(reader: InMemoryMetricReader) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Return what was collected: by name, and then by attributes."""
    data = reader.get_metrics_data()
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for resource in data.resource_metrics if data is not None else ():
        for metric in resource.scope_metrics[0].metrics:
            points = metric.data.data_points
            found[metric.name] = {tuple(sorted(point.attributes.items())): point.value for point in points}
    return found


def test_every_series_is_told_with_its_tags(reader: InMemoryMetricReader) -> None:
    metrics = Metrics()
    metrics.counter("calls", service="a").add(3)
    metrics.counter("calls", service="b").add(1)
    metrics.gauge("memory").set(2.5)
    metrics.gauge("unset")
    for value in (1.0, 1.0, 4.0):
        metrics.record("seconds", value, task="ask")
    bridge = to_opentelemetry(metrics, meter_of(reader))
    told = read(reader)
    assert told["calls"] == {(("service", "a"),): 3, (("service", "b"),): 1}
    assert told["memory"] == {(): 2.5} and not told.get("unset")
    assert told["seconds.count"] == {(("task", "ask"),): 3}
    assert told["seconds.sum"] == {(("task", "ask"),): 6.0}
    median = told["seconds"][("quantile", "0.5"), ("task", "ask")]
    assert median == pytest.approx(1.0, rel=0.02) and len(told["seconds"]) == 3
    assert repr(bridge) == "<Bridge to OpenTelemetry: 4 names>"


def test_names_that_come_later_are_told_by_themselves(reader: InMemoryMetricReader) -> None:
    metrics = Metrics()
    metrics.counter("first").add()
    bridge = to_opentelemetry(metrics, meter_of(reader))
    metrics.counter("second").add(2)
    assert set(read(reader)) == {"first"}
    until(lambda: "2 names" in repr(bridge) and "second" in read(reader))
    metrics.counter("second").add(5)
    assert read(reader)["second"] == {(): 7}


def test_a_name_that_is_none_there_is_told_all_the_same(reader: InMemoryMetricReader) -> None:
    metrics = Metrics()
    metrics.counter("2nd höre (best)").add()
    bridge = to_opentelemetry(metrics, meter_of(reader))
    assert read(reader) == {"grym.2nd_h_re__best_": {(): 1}}
    del bridge


def test_the_metrics_are_not_kept_alive(reader: InMemoryMetricReader) -> None:
    metrics = Metrics()
    metrics.counter("calls").add()
    bridge = to_opentelemetry(metrics, meter_of(reader))
    del metrics
    gc.collect()
    assert not read(reader).get("calls")
    bridge.look()


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(MissingExtra, match="opentelemetry"):
        to_opentelemetry(Metrics())
