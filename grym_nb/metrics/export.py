"""Metrics as others read them: Prometheus and OpenMetrics text, JSON, CSV, a collector for prometheus_client.

``service.call.seconds`` becomes ``grym_service_call_seconds``. All take a `Metrics`, or the samples of its
`snapshot()`; those hold no buckets any more, so their histograms come as summaries.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from math import inf, isnan
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref
from zlib import crc32

from grym_nb.errors import MissingExtra, Problem, ValidationError
from grym_nb.metrics.given import number, one_of
from grym_nb.metrics.histogram import Histogram, HistogramSnapshot
from grym_nb.metrics.series import Counter, Metrics, Sample
from grym_nb.metrics.window import KINDS
from grym_nb.render import brief

if TYPE_CHECKING:
    from prometheus_client import Metric

__all__ = ["HELP", "Collector", "openmetrics", "prometheus", "to_csv", "to_json", "to_prometheus_collector"]

_Tags = tuple[tuple[str, str], ...]
_Points = tuple[str, str, Iterable[tuple[str, float]]]

_PREFIX = "grym_"
_UNITS = frozenset({"seconds", "bytes", "ratio"})

#: what a family's samples may be called, beyond its own name; `_created` is kept free for OpenMetrics
_SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "counter": ("", "_total", "_created"),
    "gauge": ("",),
    "histogram": ("", "_bucket", "_count", "_sum", "_created"),
    "summary": ("", "_count", "_sum", "_created"),
}

#: what the house itself counts
HELP: Mapping[str, str] = {
    "context.seconds": "What it took to find and adapt what a task is given as `context`, by task.",
    "kernel.loop.lag.seconds": "How late the kernel's event loop was, the last time.",
    "kernel.loop.longest.seconds": "How late the kernel's event loop was at most lately.",
    "kernel.memory.bytes": "Resident memory of the kernel's process.",
    "kernel.memory.share": "Share of the memory that the kernel may use which is in use, 0 to 1.",
    "operation.seconds": "What tracked operations took, by how they ended.",
    "recovery.attempts": "Steps that recovery took for a service: helped, failed, or unproven.",
    "recovery.given_up": "Times that recovery left a service as failed.",
    "recovery.seconds": "From the first sign of trouble until a service was seen to be mended.",
    "service.batch.items": "How many items of a task's declared batch were computed at a time.",
    "service.call.seconds": "What a call took by task and outcome, without its waits.",
    "service.call.waited_out": "Calls whose deadline passed while they waited; they are no failures.",
    "service.evictions": "How often a service was let go of for others, or parked for them.",
    "service.flow.calls": "Calls of a service that came from inside another one.",
    "service.health": "0 when healthy or not judged yet; the higher, the worse.",
    "service.loads": "How often a service was loaded.",
    "service.memory.bytes": "Memory that is reserved for a loaded service.",
    "service.running": "Calls that are inside of a service.",
    "service.reload.answered_before": "Calls that new code failed, and the version before has answered.",
    "service.reloads": "Reloads of a service, by what they came to.",
    "service.version.seconds": "Durations of calls by versions of code and config, where there were several.",
    "service.wait.seconds": "What calls waited, by task and what for: a slot, a device, a load or a worker.",
    "service.waiting": "Calls that wait in line for a service.",
    "weights.shared": "Shared weights that were built, and those that were found.",
}


def _ladder(first: int, last: int, *steps: float) -> tuple[float, ...]:
    # From text, so that each bound is the number that its label reads as.
    return tuple([float(f"{step}e{power}") for power in range(first, last) for step in steps])


#: the bounds of a histogram's buckets, by the unit that its name ends in
_LADDERS: Mapping[str, tuple[float, ...]] = {
    "seconds": (1e-5, 1e-4, *_ladder(-3, 1, 1, 2.5, 5), 10.0, 30.0, 60.0, 300.0, 1800.0, inf),
    "bytes": (*_ladder(3, 12, 1, 3), inf),
    "ratio": (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0, inf),
    "": (*_ladder(-3, 7, 1, 2, 5), inf),
}


class _Ladder(NamedTuple):
    """A histogram as buckets: how many values are at or below each bound, the last of which is infinite."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


class _Row(NamedTuple):
    name: str
    kind: str
    tags: _Tags
    value: Any


class _Family(NamedTuple):
    """All series of one name; `name` is without the `_total` of a counter."""

    name: str
    kind: str
    help: str
    unit: str
    rows: tuple[_Row, ...]


def prometheus(source: Metrics | Iterable[Sample], *, summary: bool = False) -> str:
    """Return the text that Prometheus scrapes (format 0.0.4).

    A histogram has buckets, so that a server can add up what several kernels measured; a bucket counts
    values that are up to 1/32 above its bound too. With `summary` it has our own percentiles instead.
    """
    return _text(source, summary, _head)


def openmetrics(source: Metrics | Iterable[Sample], *, summary: bool = False) -> str:
    """Return the same as `prometheus` in the OpenMetrics format (1.0), with units."""
    return _text(source, summary, _open_head) + "# EOF\n"


def to_json(source: Metrics | Iterable[Sample]) -> str:
    """Return a JSON list with one object a series; what JSON has no number for is "NaN", "+Inf" or "-Inf"."""
    import json

    rows = [
        {"name": row.name, "kind": row.kind, "tags": dict(row.tags), "value": _plain(row.value)}
        for row in _samples(source)
    ]
    return json.dumps(rows)


def to_csv(source: Metrics | Iterable[Sample]) -> str:
    """Return a table with one line a series, its tags as JSON; a figure that there is none of is empty."""
    import csv
    import io
    import json

    told = io.StringIO()
    table = csv.writer(told)
    table.writerow(("name", "kind", "tags", "value", *_FIGURES))
    for row in _samples(source):
        value = _plain(row.value)
        figures = list(value.values()) if isinstance(value, dict) else [""] * len(_FIGURES)
        one = "" if isinstance(value, dict) else value
        table.writerow((_sound(row.name), row.kind, json.dumps(dict(row.tags)), one, *figures))
    return told.getvalue()


def to_prometheus_collector(metrics: Metrics, *, summary: bool = False) -> Collector:
    """Return what ``prometheus_client.REGISTRY.register`` takes; registering it again changes nothing."""
    one_of(metrics, Metrics, "metrics", "the metrics of a runtime, such as grym.current().metrics")
    if find_spec("prometheus_client") is None:
        told = "a collector for prometheus_client needs that package, which is not installed"
        raise MissingExtra(told, hint="pip install prometheus-client", package="prometheus_client")
    return Collector(metrics, summary=summary)


class Collector:
    """Collects a `Metrics` for prometheus_client, and does not keep it alive.

    Two collectors of one `Metrics` are equal, so a registry holds one of them, however often a cell or an
    autoreload registers it. Those of two that live at once write the same names: give each its own registry.
    """

    def __init__(self, metrics: Metrics, *, summary: bool = False) -> None:
        self._metrics = ref(metrics)
        self._summary = summary
        self._hash = hash(("grym_nb", id(metrics)))

    @property
    def metrics(self) -> Metrics | None:
        """What it collects, None when that is gone."""
        return self._metrics()

    def collect(self) -> Iterator[Metric]:
        """Yield every family as it is now."""
        from prometheus_client import Metric

        metrics = self.metrics
        for family in () if metrics is None else _families(metrics, self._summary):
            found = Metric(family.name, family.help, family.kind, family.unit)
            labels = _labels(family.rows)
            for row in family.rows:
                tags = {labels[key]: _sound(value) for key, value in row.tags}
                for suffix, label, numbers in _points(row):
                    for at, one in numbers:
                        more = {label: at} if label else {}
                        found.add_sample(family.name + suffix, {**tags, **more}, _float(one))
            yield found

    def describe(self) -> tuple[Metric, ...]:
        """Return nothing: a registry would take the names that exist now for all there will ever be."""
        return ()

    def __eq__(self, other: object) -> bool:
        # By what it collects and not by class, which an autoreload may have made anew.
        metrics = self.metrics
        return self is other or (metrics is not None and getattr(other, "metrics", None) is metrics)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        metrics = self.metrics
        return f"<Collector: {'of nothing' if metrics is None else f'of {len(metrics)} series'}>"


# -- families ------------------------------------------------------------------------------------------


def _samples(source: Metrics | Iterable[Sample]) -> Iterable[Sample]:
    if isinstance(source, Metrics):
        return source.snapshot()
    return [sample for sample in _given(source) if _is_figure(sample.value)]


def _given(source: Any) -> list[Sample]:
    """Return the samples that somebody gave; refuse what is something else."""
    try:
        found = [*source]
    except TypeError:  # one alone, or what holds none
        found = [source]
        alone = True
    else:
        alone = False
    read = [None if alone else _sample(one) for one in found]
    strange = [one for one, sample in zip(found, read, strict=True) if sample is None]
    if strange:
        told = "a Metrics, such as grym.current().metrics, or a list of samples, such as its snapshot()"
        problem = Problem("source", brief(strange[0]), told)
        raise ValidationError("that cannot be written as metrics", problems=[problem])
    return [sample for sample in read if sample is not None]


def _sample(one: Any) -> Sample | None:
    """Return a sample as `snapshot` makes them; None where one made by hand cannot be read so."""
    if not isinstance(one, Sample) or not isinstance(one.name, str) or one.kind not in KINDS:
        return None
    tags: Any = one.tags
    if isinstance(tags, Mapping):
        tags = tags.items()
    try:
        pairs = tuple([pair if isinstance(pair, tuple) else _pair(pair) for pair in tags])
    except TypeError:
        return None
    if not all(map(_is_tag, pairs)):
        return None
    return one if pairs == one.tags else Sample(one.name, one.kind, pairs, one.value)


def _pair(pair: Any) -> tuple[Any, ...]:
    return () if isinstance(pair, str) else tuple(pair)  # two letters are no pair


def _is_tag(pair: Any) -> bool:
    return len(pair) == 2 and all(isinstance(part, str) for part in pair)


def _is_figure(value: Any) -> bool:
    """Tell whether a value can be written: a sample that somebody made may hold anything."""
    if value is None or isinstance(value, (int, float, HistogramSnapshot)):
        return True
    try:
        number(value)
    except ValidationError:
        return False
    return True


def _families(source: Metrics | Iterable[Sample], summary: bool) -> Iterator[_Family]:
    """Yield the families by name; what nobody has set is left out."""
    found: dict[tuple[str, str], list[_Row]] = {}
    if summary or not isinstance(source, Metrics):
        rows: Iterable[_Row] = map(_row, _samples(source))
    else:
        rows = _laddered(source)
    for row in rows:
        if row.value is not None:
            found.setdefault((row.name, row.kind), []).append(row)
    for (name, kind), known in _named(found).items():
        unit = known.rpartition("_")[2]
        told = HELP.get(name) or f"The {kind} {name!r} of grym_nb."
        yield _Family(known, kind, told, unit if unit in _UNITS else "", tuple(found[name, kind]))


def _row(sample: Sample) -> _Row:
    kind = "summary" if sample.kind == "histogram" else sample.kind
    return _Row(sample.name, kind, sample.tags, sample.value)


def _laddered(metrics: Metrics) -> Iterator[_Row]:
    for (name, tags), one in sorted(metrics.series().items()):
        if isinstance(one, Histogram):
            unit = name.rpartition(".")[2].rpartition("_")[2]
            bounds = _LADDERS.get(unit, _LADDERS[""])
            yield _Row(name, "histogram", tags, _Ladder(bounds, *one.cumulative(bounds)))
        else:
            yield _Row(name, "counter" if isinstance(one, Counter) else "gauge", tags, one.value)


def _points(row: _Row) -> list[_Points]:
    """Return a series as samples: the name's suffix, the label they differ in, its values and the numbers."""
    value = row.value
    if isinstance(value, _Ladder):
        buckets = zip(_TEXTS[value.bounds], value.counts, strict=True)
        return [("_bucket", "le", buckets), *_sums(value.counts[-1], value.total)]
    if isinstance(value, HistogramSnapshot):
        quantiles = (("0.5", value.p50), ("0.95", value.p95), ("0.99", value.p99))
        told = [(at, q) for at, q in quantiles if q is not None]
        return [("", "quantile", told), *_sums(value.count, value.total)]
    return [("_total" if row.kind == "counter" else "", "", (("", value),))]


def _sums(count: int, total: float) -> tuple[_Points, _Points]:
    return ("_count", "", (("", count),)), ("_sum", "", (("", total),))


# -- names ---------------------------------------------------------------------------------------------

_STRANGE = re.compile("[^a-zA-Z0-9_]")


def _named(families: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Give each family a name that none of the others' samples has.

    Where two would be the same, the later one in the alphabet has a checksum of its own name at the end.
    Dots sort before underscores, so a name of the house keeps its own.
    """
    taken: set[str] = set()
    found = {}
    for name, kind in sorted(families):
        plain = _PREFIX + _STRANGE.sub("_", name)
        if kind == "counter":
            plain = plain.removesuffix("_total")
        found[name, kind] = _claim(plain, name, taken, _SUFFIXES[kind])
    return found


def _labels(rows: Iterable[_Row]) -> dict[str, str]:
    """Give each tag of a family a label that no other has, and that Prometheus does not keep for itself."""
    taken: set[str] = set()
    found = {}
    for key in sorted({key for row in rows for key, _ in row.tags}):
        plain = _STRANGE.sub("_", key)
        if not plain or plain[0].isdigit() or plain[0] == "_" or plain in ("le", "quantile"):
            plain = f"tag_{plain}"
        found[key] = _claim(plain, key, taken)
    return found


def _claim(plain: str, original: str, taken: set[str], suffixes: tuple[str, ...] = ("",)) -> str:
    """Take `plain` with its suffixes; if one is taken already, with a checksum of the original first."""
    known, mark = plain, 0
    while not taken.isdisjoint(names := {known + suffix for suffix in suffixes}):
        mark = crc32(original.encode(errors="surrogatepass"), mark + 1)
        known = f"{plain}_{mark:08x}"
    taken |= names
    return known


# -- text ----------------------------------------------------------------------------------------------

_ESCAPED = re.compile(r'[\\\n"\ud800-\udfff]')


def _text(source: Metrics | Iterable[Sample], summary: bool, head: Callable[[_Family], str]) -> str:
    return "".join(
        [part for family in _families(source, summary) for part in (head(family), *_lines(family))]
    )


def _head(family: _Family) -> str:
    name = f"{family.name}_total" if family.kind == "counter" else family.name
    told = family.help.replace("\\", "\\\\")
    return f"# HELP {name} {told}\n# TYPE {name} {family.kind}\n"


def _open_head(family: _Family) -> str:
    unit = f"# UNIT {family.name} {family.unit}\n" if family.unit else ""
    return f"# TYPE {family.name} {family.kind}\n{unit}# HELP {family.name} {_escaped(family.help)}\n"


def _lines(family: _Family) -> Iterator[str]:
    labels = _labels(family.rows)
    for row in family.rows:
        tags = ",".join([f'{labels[key]}="{_escaped(value)}"' for key, value in row.tags])
        for suffix, label, numbers in _points(row):
            name = family.name + suffix
            if label:
                start = f'{name}{{{tags}{"," if tags else ""}{label}="'
                yield from [f'{start}{at}"}} {_number(number)}\n' for at, number in numbers]
            else:
                start = f"{name}{{{tags}}}" if tags else name
                yield from [f"{start} {_number(number)}\n" for _, number in numbers]


def _sound(value: str) -> str:
    """Return it as UTF-8 can write it."""
    return value.encode("utf-8", "backslashreplace").decode()


def _escaped(value: str) -> str:
    if _ESCAPED.search(value) is None:
        return value
    return _sound(value).replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    if type(value) is int and -(2**53) <= value <= 2**53:
        return str(value)
    number = _float(value)
    return repr(number) if -inf < number < inf else "NaN" if isnan(number) else f"{number:+}".title()


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an int that is larger than every float
        return inf if value > 0 else -inf


def _bound(value: float) -> str:
    # As Go writes it: clients agree on that, and OpenMetrics asks for it.
    text = "+Inf" if value == inf else f"{value:g}"
    return f"{text}.0" if text.isdigit() else text


_TEXTS = {bounds: tuple(map(_bound, bounds)) for bounds in _LADDERS.values()}


# -- JSON and CSV --------------------------------------------------------------------------------------

_FIGURES = ("count", "total", "mean", "low", "high", "p50", "p95", "p99")


def _plain(value: float | HistogramSnapshot | None) -> Any:
    if isinstance(value, HistogramSnapshot):
        return {figure: _plain(getattr(value, figure)) for figure in _FIGURES}
    if value is None or type(value) is int:
        return value
    number = _float(value)
    return number if -inf < number < inf else _number(number)
