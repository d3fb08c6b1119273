"""One series over time: what has come of it since it was last looked at, and copies of what is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple, TypeAlias

from grym_nb.metrics.histogram import Frozen, Histogram
from grym_nb.metrics.series import Counter, Gauge
from grym_nb.metrics.slots import BucketSlots, NumberSlots, Slots
from grym_nb.metrics.window import Kind, Seen, Stretch, Tags

__all__ = ["Key", "Part", "Series", "Taken", "Track", "count_of", "seen_of", "stretch_of"]

Key: TypeAlias = tuple[str, Tags]
Series: TypeAlias = Counter | Gauge | Histogram

_KINDS: Mapping[type, Kind] = {Counter: "counter", Gauge: "gauge", Histogram: "histogram"}


class Track:
    """One series: what it was when it was last looked at, and its slots of each width."""

    __slots__ = ("begun", "gone", "key", "kind", "last", "moved", "said", "series", "slots")

    def __init__(self, key: Key, series: Series, ladder: Iterable[tuple[float, int]], now: float) -> None:
        self.key = key
        self.series = series
        self.kind: Kind = _KINDS[type(series)]
        self.slots = [_slots(self.kind) for _ in ladder]
        self.last: Any = None
        self.begun = now
        self.moved: float | None = None  # when anything was last counted
        self.said = 0  # how often somebody had said what a gauge is
        self.gone: float | None = None  # since when nobody can see it any more

    def look(self) -> Any:
        """Return what has come since the last look, or a gauge's new value; None for nothing."""
        series = self.series
        if isinstance(series, Histogram):
            return self._of_histogram(series)
        if isinstance(series, Gauge):
            return self._of_gauge(series)
        value = series.value
        grown, self.last = float(value - (self.last or 0)), value
        return (grown,) if grown else None

    def again(self) -> bool:
        """Tell whether somebody has said what a gauge is since this was last asked, changed or not."""
        if not isinstance(self.series, Gauge):
            return False
        before, self.said = self.said, self.series.said
        return before != self.said

    def _of_gauge(self, series: Gauge) -> Any:
        value = series.value
        if value is None:
            return None
        try:
            number = float(value)
        except Exception:  # of whatever it was set to
            return None
        if number == self.last:
            return None
        self.last = number
        return number, number, number

    def _of_histogram(self, series: Histogram) -> Any:
        before: Frozen = self.last or Frozen({}, 0, 0.0, inf, -inf)
        if series.count == before.count:
            return None
        self.last = now = series.frozen()
        known = before.buckets
        return now.total - before.total, {
            bucket: n - known.get(bucket, 0) for bucket, n in now.buckets.items() if n != known.get(bucket)
        }


class Taken(NamedTuple):
    """A copy of what a track has of some slots, made while nothing is written, to be read in peace."""

    track: Track
    slots: Slots
    open: Any
    held: float | None
    gone: float


class Part:
    """Series of one moment as they are kept: only as far back as somebody asks they are unpacked."""

    __slots__ = ("_number", "_taken", "_times")

    def __init__(self, taken: Sequence[Taken], number: int, times: Sequence[float]) -> None:
        self._taken = taken
        self._number = number
        self._times = times

    @property
    def end(self) -> float:
        """When it was written down last."""
        return self._times[-1]

    def since(self, time: float) -> Stretch:
        """Return the slots that ended after a time."""
        first = sum([end <= time for end in self._times[1:]])
        number, times = self._number + first, self._times[first:]
        found = [one._replace(slots=one.slots.after(number)) for one in self._taken]
        return Stretch(times, [seen_of(one, number, len(times) - 2) for one in found])


def stretch_of(taken: Iterable[Taken], number: int, times: Sequence[float], since: float) -> Stretch:
    """Return what was taken as a stretch; nothing where it all is from before that."""
    if times[-1] <= since:
        return Stretch((), ())
    return Stretch(times, [seen_of(one, number, len(times) - 2) for one in taken])


def seen_of(taken: Taken, number: int, last: int) -> Seen:
    """Return what was taken with its slots counted from a number on; the open one is the last."""
    slots = [(at - number, part) for at, part in taken.slots]
    if taken.open is not None:
        slots.append((last, taken.open))
    track = taken.track
    held = None if slots else taken.held
    return Seen(track.kind, track.key[1], slots, held, track.begun, taken.gone)


def count_of(taken: Taken, number: int) -> float:
    """Return how much has come since a slot: how many values, or by how much a counter grew."""
    part, before = taken.open, taken.slots.total(number)
    if part is None:
        return before
    return before + float(part[0] if taken.track.kind == "counter" else sum(part[1].values()))


def _slots(kind: Kind) -> Slots:
    return BucketSlots() if kind == "histogram" else NumberSlots(3 if kind == "gauge" else 1)
