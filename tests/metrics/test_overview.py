"""A collector at a glance: each name with its figures."""

from __future__ import annotations

import re

from grym_nb.metrics import Metrics


def test_each_name_is_a_row_with_its_figures() -> None:
    metrics = Metrics()
    assert repr(metrics) == "metrics: nothing is counted yet"
    for n in range(20):
        metrics.record("mine.seconds", 0.1, part=str(n % 2))
    metrics.counter("items", kind="a").add(3)
    metrics.counter("items", kind="b").add(4)
    metrics.gauge("level", of="a").set(1)
    metrics.gauge("level", of="b").set(9)
    metrics.gauge("wait.seconds").set(0.25)
    metrics.gauge("unsaid")
    metrics.histogram("empty")
    text = repr(metrics)
    for row in (
        r"mine\.seconds +histogram +2 +20 values: p50 1\d+ ms, p95 1\d+ ms, highest 100 ms",
        r"items +counter +2 +7",
        r"level +gauge +2 +1 to 9",
        r"wait\.seconds +gauge +1 +250 ms",
        r"unsaid +gauge +1 +unset",
        r"empty +histogram +1 +no values",
    ):
        assert re.search(row, text), (row, text)
    assert text.startswith("metrics: 9 series of 6 names") and "<table" in metrics._repr_html_()
