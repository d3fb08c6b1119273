"""Counting a call, and recording how long it took."""

from __future__ import annotations

from collections.abc import Iterator

from grym_nb.metrics import Metrics

from .frame import Effort, Row, Work, benchmark, installed, missing, side_by_side

PEER = "prometheus_client"


@benchmark
def metrics(effort: Effort) -> Iterator[Row]:
    """A counter and a histogram with one tag, both held on to."""
    ours = Metrics()
    works: dict[str, Work] = {
        "counter": ("add()", {"add": ours.counter("calls", service="noop").add}),
        "histogram": ("record(0.0031)", {"record": ours.histogram("seconds", service="noop").record}),
    }
    if installed(PEER):
        import prometheus_client as prometheus

        own = prometheus.CollectorRegistry()
        counter = prometheus.Counter("calls", "calls", ["service"], registry=own).labels("noop")
        histogram = prometheus.Histogram("seconds", "seconds", ["service"], registry=own).labels("noop")
        works["counter there"] = ("inc()", {"inc": counter.inc})
        works["histogram there"] = ("observe(0.0031)", {"observe": histogram.observe})
    figures = side_by_side(works, rounds=effort.rounds, seconds=effort.seconds)
    for name, work, aim in (
        ("counter", "count", "<= 300 ns"),
        ("histogram", "record in a histogram", "<= 500 ns"),
    ):
        if f"{name} there" in figures:
            yield Row(work, figures[name], PEER, figures[f"{name} there"], "ns", aim)
        else:
            yield missing(work, figures[name], PEER, "ns", aim)
