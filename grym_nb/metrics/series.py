"""What is measured, by name and tags: counters, gauges and histograms, and the collector that holds them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from sys import float_info
from typing import TYPE_CHECKING, Literal, TypeVar, cast

from grym_nb.errors import ConfigError, Problem
from grym_nb.metrics.given import check_name, number, refusal, text
from grym_nb.metrics.histogram import Histogram, HistogramSnapshot
from grym_nb.metrics.tracking import Track

if TYPE_CHECKING:
    from grym_nb.render import Table

__all__ = ["HOUSE", "Counter", "Gauge", "Metrics", "Sample"]

#: how the names begin that are the house's own
HOUSE = ("kernel.", "recovery.", "service.", "weights.")

_Kind = Literal["counter", "gauge", "histogram"]
_Tags = tuple[tuple[str, str], ...]
_MOST = float_info.max
S = TypeVar("S", "Counter", "Gauge", Histogram)


class Counter:
    """A number that only grows, from 0."""

    __slots__ = ("_lock", "_value")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value: float = 0

    def add(self, n: float = 1) -> None:
        """Add `n`, a finite number that is not negative."""
        if type(n) is not int and type(n) is not float:
            n = number(n, "n")
        if not 0 <= n <= _MOST:
            raise refusal("n", n, "a finite number from 0: a counter only grows")
        with self._lock:
            self._value += n

    @property
    def value(self) -> float:
        """The sum so far."""
        return self._value

    def __repr__(self) -> str:
        return f"<Counter: {self._value:g}>"


class Gauge:
    """A number that goes up and down; its value is None until it was set or added to."""

    __slots__ = ("_lock", "_said", "_value")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value: float | None = None
        self._said = 0

    def set(self, value: float) -> None:
        """Make it `value`."""
        if type(value) is not float and type(value) is not int:
            value = number(value)
        # Locked, or an `add` that has read the old value would overwrite this one.
        with self._lock:
            self._value = value
            self._said += 1

    def add(self, n: float = 1) -> None:
        """Add `n`, from 0 when nothing was set."""
        if type(n) is not int and type(n) is not float:
            n = number(n, "n")
        with self._lock:
            self._value = n if self._value is None else self._value + n
            self._said += 1

    @property
    def value(self) -> float | None:
        """What it is now, None when nobody has said."""
        return self._value

    @property
    def said(self) -> int:
        """How often anybody has said what it is."""
        return self._said

    def __repr__(self) -> str:
        return "<Gauge: unset>" if self._value is None else f"<Gauge: {self._value:g}>"


@dataclass(frozen=True, slots=True)
class Sample:
    """One series as it was: a number, or a histogram's figures; `tags` are in the order of their names."""

    name: str
    kind: _Kind
    tags: _Tags
    value: float | HistogramSnapshot | None


class Metrics:
    """Collects series. A name has one kind; a name with tags is one series, whoever asks for it.

    Hold on to a series that is used often: finding it costs more than counting. One that was dropped still
    counts for those who hold it, and is seen by nobody else.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._series: dict[tuple[str, _Tags], Counter | Gauge | Histogram] = {}
        self._kinds: dict[str, _Kind] = {}
        #: while `asleep`, called once when something of the user's own is measured
        self.on_use: Callable[[], object] | None = None
        self.asleep = True

    def counter(self, name: str, /, **tags: str) -> Counter:
        """Return the counter of that name and tags, a new one the first time."""
        return self._get(name, tags, "counter", Counter)

    def gauge(self, name: str, /, **tags: str) -> Gauge:
        """Return the gauge of that name and tags, a new one the first time."""
        return self._get(name, tags, "gauge", Gauge)

    def histogram(self, name: str, /, **tags: str) -> Histogram:
        """Return the histogram of that name and tags, a new one the first time."""
        return self._get(name, tags, "histogram", Histogram)

    def record(self, name: str, value: float, /, **tags: str) -> None:
        """Count `value` in the histogram of that name and tags."""
        self.histogram(name, **tags).record(value)

    def track(self, operation: str, /, **tags: str) -> Track:
        """Return a context manager and decorator that counts how long an operation takes, and how it ends.

        Each is counted in the histogram ``operation.seconds`` by `operation`, `outcome` and these tags.
        """
        if self.asleep:
            self._wake()
        return Track(self, operation, tags)

    def snapshot(self) -> tuple[Sample, ...]:
        """Return every series as it is now, by name and then tags."""
        return self._samples(lambda name, tags: True)

    def select(self, name: str, /, **tags: str) -> tuple[Sample, ...]:
        """Return the series of that name which have at least these tags."""
        check_name(name)
        wanted = _sorted(tags)
        return self._samples(lambda known, its: known == name and set(wanted) <= set(its))

    def series(self) -> dict[tuple[str, _Tags], Counter | Gauge | Histogram]:
        """Return the series themselves, by name and tags."""
        with self._lock:
            return dict(self._series)

    def drop(self, **tags: str) -> int:
        """Forget all series that have at least these tags; return how many there were."""
        if not tags:
            problem = Problem("tags", "none", "at least one")
            raise ConfigError("drop() without tags would forget everything", problems=[problem])
        wanted = set(_sorted(tags))
        with self._lock:
            return self._forget(wanted)

    def _forget(self, wanted: set[tuple[str, str]]) -> int:
        gone = [key for key in self._series if wanted <= set(key[1])]
        for key in gone:
            del self._series[key]
        left = {name for name, _ in self._series}
        self._kinds = {name: kind for name, kind in self._kinds.items() if name in left}
        return len(gone)

    def __len__(self) -> int:
        return len(self._series)

    def __repr__(self) -> str:
        return self._table().text()

    def _repr_html_(self) -> str:
        return self._table().html()

    def _table(self) -> Table:
        from grym_nb.metrics.overview import overview  # seldom, and it is below this

        return overview(self)

    def _wake(self) -> None:
        """Say that something is measured, to whoever rests meanwhile."""
        self.asleep = False
        if self.on_use is not None:
            self.on_use()

    def _get(self, name: str, tags: dict[str, str], kind: _Kind, make: Callable[[], S]) -> S:
        key = (name, _sorted(tags))
        try:
            series = self._series.get(key)
        except TypeError:  # a name that cannot be one
            series = None
        if type(series) is not make:
            series = self._make(key, kind, make)
        return cast(S, series)

    def _make(self, key: tuple[str, _Tags], kind: _Kind, make: Callable[[], S]) -> S:
        name = key[0]
        text(name, "name")
        with self._lock:
            known = self._kinds.setdefault(name, kind)
            if known != kind:
                problem = Problem(name, f"a {kind}", f"a {known}, which it is already")
                raise ConfigError(f"{name!r} is a {known} and cannot be a {kind}", problems=[problem])
            made = cast(S, self._series.setdefault(key, make()))
        if self.asleep and not name.startswith(HOUSE):
            self._wake()
        return made

    def _samples(self, wanted: Callable[[str, _Tags], bool]) -> tuple[Sample, ...]:
        with self._lock:
            found = sorted(key for key in self._series if wanted(*key))
            rows = [(name, self._kinds[name], tags, self._series[name, tags]) for name, tags in found]
        # Each series has its own lock, taken without ours.
        return tuple(Sample(name, kind, tags, _value(series)) for name, kind, tags, series in rows)


def _sorted(tags: dict[str, str]) -> _Tags:
    return tuple(sorted([(key, str(value)) for key, value in tags.items()])) if tags else ()


def _value(series: Counter | Gauge | Histogram) -> float | HistogramSnapshot | None:
    return series.snapshot() if isinstance(series, Histogram) else series.value
