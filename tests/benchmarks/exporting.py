"""Writing what was measured as Prometheus reads it, beside its own client."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from typing import Any

from grym_nb.metrics import Metrics
from grym_nb.metrics.export import openmetrics, prometheus

from .frame import Effort, Row, Work, benchmark, installed, missing, side_by_side

PEER = "prometheus_client"
_SERIES = 200  # of each kind
_VALUES = 200  # in each histogram


@benchmark
def exporting(effort: Effort) -> Iterator[Row]:
    """600 series, a third of each kind; the histograms have 20 buckets here and 15 there."""
    ours = Metrics()
    for n in range(_SERIES):
        tags = {"service": f"service {n % 20}", "task": f"task {n // 20}"}
        ours.counter("bench.calls", **tags).add(n)
        ours.gauge("bench.bytes", **tags).set(n * 1.5)
        for seconds in _durations(n):
            ours.record("bench.seconds", seconds, **tags)
    works: dict[str, Work] = {
        "text": partial(prometheus, ours),
        "open": partial(openmetrics, ours),
        "summary": partial(prometheus, ours, summary=True),
    }
    if installed(PEER):
        from prometheus_client import generate_latest
        from prometheus_client.openmetrics.exposition import generate_latest as generate_open

        registry = _registry()
        works["text there"] = partial(generate_latest, registry)
        works["open there"] = partial(generate_open, registry)
    figures = side_by_side(works, rounds=effort.rounds, seconds=effort.seconds)
    for name, work, aim in (
        ("text", "600 series as Prometheus text", "<= 10 ms"),
        ("open", "600 series as OpenMetrics", "<= 10 ms"),
        ("summary", "600 series with percentiles", ""),
    ):
        if f"{name} there" in figures:
            yield Row(work, figures[name], PEER, figures[f"{name} there"], "ms", aim)
        elif name == "summary":
            yield Row(work, figures[name], PEER, None, "ms", aim, "has none")
        else:
            yield missing(work, figures[name], PEER, "ms", aim)


def _durations(seed: int) -> list[float]:
    dice = random.Random(seed)
    return [dice.lognormvariate(-5 + seed % 5, 0.5) for _ in range(_VALUES)]


def _registry() -> Any:
    import prometheus_client as there

    registry = there.CollectorRegistry()
    names = ["service", "task"]
    counter = there.Counter("bench_calls", "calls", names, registry=registry)
    gauge = there.Gauge("bench_bytes", "bytes", names, registry=registry)
    histogram = there.Histogram("bench_seconds", "seconds", names, registry=registry)
    for n in range(_SERIES):
        tags = (f"service {n % 20}", f"task {n // 20}")
        counter.labels(*tags).inc(n)
        gauge.labels(*tags).set(n * 1.5)
        series = histogram.labels(*tags)
        for seconds in _durations(n):
            series.observe(seconds)
    return registry
