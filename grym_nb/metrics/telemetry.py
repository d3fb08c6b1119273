"""The metrics for those who run OpenTelemetry: its instruments ask for the figures when it collects."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from weakref import ref

from grym_nb.errors import ConfigError, MissingExtra, Problem
from grym_nb.metrics.given import one_of
from grym_nb.metrics.histogram import HistogramSnapshot
from grym_nb.metrics.series import Metrics, Sample
from grym_nb.render import brief

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter, Observation

__all__ = ["Bridge", "to_opentelemetry"]

#: f(what a series is) -> its figures, each with the attributes that it has besides the tags
_Tell = Callable[[Any], Iterator[tuple[float, dict[str, str]]]]
_QUANTILES = {"0.5": "p50", "0.95": "p95", "0.99": "p99"}


def to_opentelemetry(metrics: Metrics, meter: Meter | None = None) -> Bridge:
    """Let a meter of OpenTelemetry, or the global one, tell all series by their names, also those to come.

    Counters are observable counters, gauges are gauges; a histogram is ``name.count`` and ``name.sum``, and a
    gauge of its percentiles with the attribute ``quantile``.
    """
    one_of(metrics, Metrics, "metrics", "the metrics of a runtime, such as grym.current().metrics")
    if find_spec("opentelemetry") is None:
        told = "a bridge to OpenTelemetry needs its package, which is not installed"
        raise MissingExtra(told, hint="pip install opentelemetry-sdk", package="opentelemetry-api")
    if meter is None:
        from opentelemetry.metrics import get_meter

        meter = get_meter("grym_nb")
    elif not callable(getattr(meter, "create_observable_counter", None)):
        expected = "a meter of OpenTelemetry, such as opentelemetry.metrics.get_meter('mine'), or None"
        raise ConfigError("no meter, no bridge", problems=[Problem("meter", brief(meter), expected)])
    return Bridge(metrics, meter)


class Bridge:
    """The instruments of one meter for a `Metrics`, which it does not keep alive."""

    def __init__(self, metrics: Metrics, meter: Meter) -> None:
        self._metrics = ref(metrics)
        self._meter = meter
        self._lock = threading.Lock()
        self._known: frozenset[str] = frozenset()
        self.look()

    def look(self) -> None:
        """Make the instruments of names that are new. Each collection does so by itself, for the next one."""
        for name, kind in self._new().items():
            for instrument, make, tell in _INSTRUMENTS[kind]:
                getattr(self._meter, make)(_named(name) + instrument, callbacks=[self._callback(name, tell)])

    def _new(self) -> dict[str, str]:
        """Return the kinds of the names that are new, which are known from now on."""
        kinds = {sample.name: sample.kind for sample in self._samples()}
        with self._lock:
            before, self._known = self._known, self._known | kinds.keys()
        return {name: kind for name, kind in kinds.items() if name not in before}

    def _samples(self) -> tuple[Sample, ...]:
        metrics = self._metrics()
        return () if metrics is None else metrics.snapshot()

    def _callback(self, name: str, tell: _Tell) -> Callable[[Any], list[Observation]]:
        def observe(_: Any) -> list[Observation]:
            from opentelemetry.metrics import Observation

            metrics = self._metrics()
            if metrics is None:
                return []
            if not {known for known, _ in metrics.series()} <= self._known:
                # Not here: a meter that collects lets nobody make instruments.
                threading.Thread(target=self.look, name="grym-telemetry", daemon=True).start()
            return [
                Observation(value, {**dict(sample.tags), **more})
                for sample in metrics.select(name)
                for value, more in tell(sample.value)
            ]

        return observe

    def __repr__(self) -> str:
        return f"<Bridge to OpenTelemetry: {len(self._known)} names>"


def _named(name: str) -> str:
    """Return a name as the specification allows them."""
    plain = re.sub(r"[^A-Za-z0-9_./-]", "_", name)[:240]
    return plain if plain[:1].isalpha() else f"grym.{plain}"


def _number(value: float | None) -> Iterator[tuple[float, dict[str, str]]]:
    if value is not None:
        yield value, {}


def _count(seen: HistogramSnapshot) -> Iterator[tuple[float, dict[str, str]]]:
    yield seen.count, {}


def _sum(seen: HistogramSnapshot) -> Iterator[tuple[float, dict[str, str]]]:
    yield seen.total, {}


def _quantiles(seen: HistogramSnapshot) -> Iterator[tuple[float, dict[str, str]]]:
    for quantile, figure in _QUANTILES.items():
        if (value := getattr(seen, figure)) is not None:
            yield value, {"quantile": quantile}


#: by kind of series: what follows its name, how the meter makes that, and what it tells
_INSTRUMENTS: dict[str, tuple[tuple[str, str, _Tell], ...]] = {
    "counter": (("", "create_observable_counter", _number),),
    "gauge": (("", "create_observable_gauge", _number),),
    "histogram": (
        (".count", "create_observable_counter", _count),
        (".sum", "create_observable_counter", _sum),
        ("", "create_observable_gauge", _quantiles),
    ),
}
