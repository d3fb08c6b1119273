"""What a collector holds, at a glance: a row for each name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from grym_nb.metrics.histogram import Histogram
from grym_nb.render import Table, count, seconds

if TYPE_CHECKING:
    from grym_nb.metrics.series import Counter, Gauge, Metrics

__all__ = ["in_words", "overview"]


def overview(metrics: Metrics) -> Table:
    """Return the names with what they are, how many series each has, and their figures so far."""
    by_name: dict[str, list[Counter | Gauge | Histogram]] = {}
    for (name, _), one in sorted(metrics.series().items(), key=lambda item: item[0]):
        by_name.setdefault(name, []).append(one)
    rows = [
        (name, type(own[0]).__name__.lower(), str(len(own)), _told(name, own))
        for name, own in by_name.items()
    ]
    number = sum(map(len, by_name.values()))
    caption = f"metrics: {number} series of {count(len(by_name), 'name')}" if number else "metrics"
    return Table(caption, ("name", "kind", "series", "so far"), rows, empty="nothing is counted yet")


def in_words(name: str, value: float | None) -> str:
    """Return a figure of a series as a person reads it: those of seconds as durations."""
    if value is None:
        return "-"
    return seconds(value) if name.endswith("seconds") else f"{value:.4g}"


def _told(name: str, own: Sequence[Counter | Gauge | Histogram]) -> str:
    if isinstance(own[0], Histogram):
        whole = Histogram()
        for one in own:
            whole.merge(one)  # type: ignore[arg-type]  # a name has one kind
        seen = whole.snapshot()
        if not seen.count:
            return "no values"
        p50, p95, high = (in_words(name, value) for value in (seen.p50, seen.p95, seen.high))
        return f"{count(seen.count, 'value')}: p50 {p50}, p95 {p95}, highest {high}"
    values = [one.value for one in own if not isinstance(one, Histogram) and one.value is not None]
    if not values:
        return "unset"
    if type(own[0]).__name__ == "Counter":
        return f"{sum(values):.10g}"
    low, high_value = min(values), max(values)
    told = in_words(name, low)
    return told if low == high_value else f"{told} to {in_words(name, high_value)}"
