"""What the series of a collector were, over time: windows from a second to a day, in bounded memory.

Each second what has changed is written down. Older slots are wider: a minute by seconds, a day by five
minutes. A histogram keeps what each of its buckets grew by, so that percentiles are right for any window.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import inf
from typing import Any, TypeAlias

from grym_nb.clock import Clock, monotonic
from grym_nb.errors import ConfigError, Problem, ValidationError, closest
from grym_nb.metrics.given import check_name, one_of
from grym_nb.metrics.histogram import HistogramSnapshot
from grym_nb.metrics.series import HOUSE, Metrics, Sample
from grym_nb.metrics.slots import Timeline
from grym_nb.metrics.tracks import Key, Part, Series, Taken, Track, count_of, seen_of, stretch_of
from grym_nb.metrics.window import (
    Figure,
    Kind,
    Seen,
    Stretch,
    Tags,
    Window,
    check_figure,
    check_seconds,
    join,
)
from grym_nb.render import brief

__all__ = ["LADDER", "History", "Wanted", "accepts"]

#: what a tag has to be: this value, one of these, or one that a function says yes to
Wanted: TypeAlias = "str | Collection[str] | Callable[[str], bool]"

#: the width of a slot in seconds, and how many of them are kept
LADDER: tuple[tuple[float, int], ...] = ((1.0, 70), (5.0, 72), (30.0, 124), (300.0, 292))
_FORGOTTEN_AFTER = 3600.0  # seconds after a series was dropped


class History:
    """Remembers the series of a `Metrics`; `step` writes down what has changed, once a second or so.

    What was counted before the history began belongs to no time, and is in no window. For any thread: no
    step waits for a reader longer than a copy takes.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        clock: Clock = monotonic,
        wall: Clock = time.time,
        ladder: Sequence[tuple[float, int]] = LADDER,
    ) -> None:
        one_of(metrics, Metrics, "metrics", "the metrics of a runtime, such as grym.current().metrics")
        _check(ladder)
        self._metrics = metrics
        self._clock = clock
        self._wall = wall
        self._ladder = tuple(ladder)
        self._lock = threading.Lock()
        self._tracks: dict[Key, Track] = {}
        self._stepped = clock()
        self._lines = [Timeline(width, most, self._stepped) for width, most in ladder]
        #: by width: what has come since the slots one narrower were last over
        self._open: list[dict[Track, Any]] = [{} for _ in ladder]
        for key, series in metrics.series().items():
            track = self._begin(key, series, self._stepped)
            if track.kind != "gauge":
                track.look()

    # -- in ----------------------------------------------------------------------------------------

    def step(self) -> None:
        """Write down what has changed since the last step."""
        now = self._clock()
        with self._lock:
            self._write(self._metrics.series(), max(now, self._stepped))

    def finish(self) -> None:
        """Write down what has changed, and end the slots of all widths: nothing more may come."""
        now = self._clock()
        with self._lock:
            self._write(self._metrics.series(), max(now, self._stepped))
            self._close_slots(now, all_of_them=True)

    def _write(self, there: Mapping[Key, Series], now: float) -> None:
        self._close_slots(now)
        self._stepped = now
        held = self._open[0]
        for key, series in there.items():
            track = self._tracks.get(key)
            if track is None or track.series is not series:
                track = self._begin(key, series, now)
            came = track.look()
            if track.again() or came is not None:
                track.moved = now
            if came is not None:
                held[track] = join(track.kind, held[track], came) if track in held else came
        if len(self._tracks) != len(there):
            self._forget(there, now)

    def _begin(self, key: Key, series: Series, now: float) -> Track:
        track = self._tracks.get(key)
        if track is None or type(track.series) is not type(series):
            track = self._tracks[key] = Track(key, series, self._ladder, now)
        else:  # dropped, and made anew: it begins at nothing
            track.series, track.last, track.gone = series, None, None
        return track

    def _close_slots(self, now: float, *, all_of_them: bool = False) -> None:
        """End the slots that are over, and hand what is in them on to the wider ones."""
        for rung, line in enumerate(self._lines):
            if not (line.lasts(self._stepped) if all_of_them else line.is_over(self._stepped, now)):
                return
            wider = self._open[rung + 1] if rung + 1 < len(self._lines) else None
            over, self._open[rung] = self._open[rung], {}
            for track, part in over.items():
                track.slots[rung].add(line.open, part, line.first)
                if wider is not None:
                    wider[track] = join(track.kind, wider[track], part) if track in wider else part
            line.close(self._stepped)

    def _forget(self, there: Mapping[Key, Series], now: float) -> None:
        for key in [key for key in self._tracks if key not in there]:
            track = self._tracks[key]
            if track.gone is None:
                track.gone = now
            elif now - track.gone > _FORGOTTEN_AFTER:
                del self._tracks[key]

    # -- out ---------------------------------------------------------------------------------------

    def window(self, name: str, seconds: float, /, **tags: Wanted) -> Window:
        """Return all series of that name that have at least these tags, over the last so many seconds.

        A tag's value may be one, several, or a function: ``outcome=lambda one: one != "ok"``.
        """
        found = self.stretch(name, seconds, **tags).window(name)
        return found if found.kind is not None else replace(found, near=self._near(name, tags))

    def by(self, name: str, tag: str, seconds: float, /, **tags: Wanted) -> dict[str, Window]:
        """Return the same for each value of one tag; values of which nothing came are left out."""
        one_of(tag, str, "tag", "the name of a tag, such as 'service'")
        whole = self.stretch(name, seconds, **tags)
        parted: dict[str, list[Seen]] = {}
        for seen in whole.series:
            value = dict(seen.tags).get(tag)
            if value is not None:
                parted.setdefault(value, []).append(seen)
        found = {value: Stretch(whole.times, series).window(name) for value, series in parted.items()}
        return {value: window for value, window in found.items() if window.count or window.last is not None}

    def points(
        self, name: str, seconds: float, /, *, figure: Figure = "value", **tags: Wanted
    ) -> list[tuple[float, float]]:
        """Return a figure over time, oldest first: when each slot ended, and what it was in it.

        The times are times of day (UNIX seconds). The slots are the narrowest that reach so far back. "value"
        is what a gauge was, or what came of all else; where nothing came, a gauge is as it was before.
        """
        check_figure(figure)
        shift = self._wall() - self._clock()
        return [(at + shift, value) for at, value in self.stretch(name, seconds, **tags).points(figure)]

    def stretch(self, name: str, seconds: float, /, **tags: Wanted) -> Stretch:
        """Return all that is known of these series over the last so many seconds, to be asked or cut.

        Where nobody has stepped for so long, nothing is known.
        """
        number, times, taken = self._copied(name, seconds, tags)
        return stretch_of(taken, number, times, self._clock() - seconds)

    def parts(self, name: str, tag: str, seconds: float, /, **tags: Wanted) -> dict[str, Part]:
        """Return the same for each value of one tag, not unpacked: for who needs but the latest of it."""
        number, times, taken = self._copied(name, seconds, tags)
        found: dict[str, list[Taken]] = {}
        for one in taken if times[-1] > self._clock() - seconds else ():
            value = dict(one.track.key[1]).get(tag)
            if value is not None:
                found.setdefault(value, []).append(one)
        return {value: Part(its, number, times) for value, its in found.items()}

    def counts(self, name: str, seconds: float, /, **tags: Wanted) -> dict[Tags, float]:
        """Return how much came of each series over a time: how many values, or what counters grew by.

        A good deal cheaper than their windows.
        """
        number, times, taken = self._copied(name, seconds, tags)
        known = taken if times[-1] > self._clock() - seconds else ()
        return {one.track.key[1]: count_of(one, number) for one in known if one.track.kind != "gauge"}

    def _copied(
        self, name: str, seconds: float, tags: Mapping[str, Wanted]
    ) -> tuple[int, Sequence[float], Sequence[Taken]]:
        """Return copies of series over a time, the number of their first slot, and when each began."""
        check_seconds(seconds, self._reach)
        since = self._clock() - seconds
        tracks = self._matching(name, tags)
        with self._lock:
            rung = self._reaching(since)
            number, times = self._lines[rung].after(since)
            return number, [*times, self._stepped], self._taken(tracks, rung, number)

    def stretches(self, seconds: float, /, **tags: Wanted) -> list[tuple[str, Stretch]]:
        """Return the same for every name of which there is a series now, by name, of one moment."""
        check_seconds(seconds, self._reach)
        since = self._clock() - seconds
        tracks = self._tracked()
        there = sorted({track.key[0] for track in tracks if track.gone is None})
        named = _by_name(tracks, accepts(tags))
        with self._lock:
            rung = self._reaching(since)
            number, times = self._lines[rung].after(since)
            taken = self._taken(tracks, rung, number)
            end = self._stepped
        copies = {one.track: one for one in taken}
        return [
            (name, stretch_of([copies[track] for track in named.get(name, ())], number, [*times, end], since))
            for name in there
        ]

    def closed(self, rung: int, number: int) -> tuple[int, Sequence[float], list[tuple[str, Seen]]]:
        """Return the slots of a width (its place in the ladder) from a number on, those that are over.

        First the number to ask for next time, then the times from one slot to the next, then the series by
        name.
        """
        if rung not in range(len(self._lines)):
            problem = Problem("rung", brief(rung), f"a place in the ladder, 0 to {len(self._lines) - 1}")
            raise ValidationError("there are no slots of that width", problems=[problem], hint=_WIDTHS)
        tracks = list(self._tracked())
        with self._lock:
            first, times = self._lines[rung].since(number)
            taken = self._taken(tracks, rung, first)
        found = [(one.track.key[0], seen_of(one._replace(open=None), first, 0)) for one in taken]
        return first + len(times) - 1, times, found

    def groups(self, name: str, by: Sequence[str], /, **tags: Wanted) -> list[Tags]:
        """Return the different values that some tags have among the series of a name, each as pairs."""
        if isinstance(by, str) or not all(isinstance(tag, str) for tag in _listed(by)):
            problem = Problem("by", brief(by), "the names of tags, such as ('service', 'task')")
            raise ValidationError("nothing can be grouped so", problems=[problem], hint=_ONE_TAG)
        found: dict[Tags, None] = {}
        for track in self._matching(name, tags):
            own = dict(track.key[1])
            if track.gone is None and own.keys() >= set(by):
                found[tuple((tag, own[tag]) for tag in by)] = None
        return [*found]

    def series(self) -> list[tuple[str, Kind, Tags]]:
        """Return the name, the kind and the tags of every series that is there now, by name."""
        return sorted((t.key[0], t.kind, t.key[1]) for t in self._tracked() if t.gone is None)

    def samples(self, seconds: float, /, **tags: Wanted) -> tuple[Sample, ...]:
        """Return every series that has at least these tags, as it was over the last so many seconds.

        Of a counter it is by how much it grew.
        """
        found = []
        for name, whole in self.stretches(seconds, **tags):
            of_each = [(one, Stretch(whole.times, (one,)).window(name)) for one in whole.series]
            found += [Sample(name, one.kind, one.tags, _figures(window)) for one, window in of_each]
        return tuple(found)

    def silent(self, name: str, /, **tags: Wanted) -> float | None:
        """Return for how many seconds nothing was counted; None where nothing ever was."""
        moved = [track.moved for track in self._matching(name, tags) if track.moved is not None]
        return self._clock() - max(moved) if moved else None

    def idle(self) -> float:
        """Return for how many seconds nothing was counted but by the house itself."""
        own = [track for track in self._tracked() if not track.key[0].startswith(HOUSE)]
        moved = [track.moved for track in own if track.moved is not None]
        return self._clock() - max(moved) if moved else inf

    @property
    def clock(self) -> Clock:
        """The clock that its times are of."""
        return self._clock

    @property
    def ladder(self) -> tuple[tuple[float, int], ...]:
        """The width of each kind of slot in seconds, and how many of them are kept."""
        return self._ladder

    def __repr__(self) -> str:
        return f"<History: {len(self._tracks)} series>"

    # -- inside ------------------------------------------------------------------------------------

    @property
    def _reach(self) -> float:
        width, most = self._ladder[-1]
        return width * most

    def _near(self, name: str, tags: Mapping[str, Wanted]) -> str:
        """Return what there is instead of series of which nothing is known."""
        there = {track.key[0] for track in self._tracked()}
        if name not in there:
            return f"there is no series of that name yet.{closest(name, there)}"
        if not self._matching(name, tags):
            known = sorted(
                {tag for track in self._tracked() if track.key[0] == name for tag, _ in track.key[1]}
            )
            return f"there is none with these tags; its tags are {', '.join(known) or 'none'}"
        return "nobody has stepped the history meanwhile"

    def _tracked(self) -> Sequence[Track]:
        with self._lock:
            return list(self._tracks.values())

    def _matching(self, name: str, tags: Mapping[str, Wanted]) -> list[Track]:
        """Return the tracks that fit, all of one kind: that of those which are still there."""
        check_name(name)
        named = [track for track in self._tracked() if track.key[0] == name]
        return _by_name(named, accepts(tags)).get(name, [])

    def _reaching(self, since: float) -> int:
        """Return the narrowest slots that reach so far back."""
        reach = [rung for rung, line in enumerate(self._lines) if line.reaches(since)]
        return reach[0] if reach else len(self._lines) - 1

    def _taken(self, tracks: Iterable[Track], rung: int, number: int) -> list[Taken]:
        found = []
        for track in tracks:
            slots, part = track.slots[rung].after(number), self._unclosed(track, rung)
            held = track.last if track.kind == "gauge" else None
            found.append(Taken(track, slots, part, held, inf if track.gone is None else track.gone))
        return found

    def _unclosed(self, track: Track, rung: int) -> Any:
        """Return what has come since the last slot of a width was over."""
        part = None
        for held in self._open[rung::-1]:
            if track in held:
                part = held[track] if part is None else join(track.kind, part, held[track])
        return part


def _by_name(tracks: Iterable[Track], fits: Callable[[Mapping[str, str]], bool]) -> dict[str, list[Track]]:
    """Return the tracks that fit by name, those of a name all of one kind."""
    found: dict[str, list[Track]] = {}
    for track in tracks:
        if fits(dict(track.key[1])):
            found.setdefault(track.key[0], []).append(track)
    return {name: _of_one_kind(fit) for name, fit in found.items()}


def _of_one_kind(tracks: Sequence[Track]) -> list[Track]:
    """Return those of the kind of those that are still there."""
    kind = next((track.kind for track in tracks if track.gone is None), tracks[0].kind)
    return [track for track in tracks if track.kind == kind]


def _figures(window: Window) -> float | HistogramSnapshot | None:
    """Return what a series was over a time, as a snapshot has it."""
    if window.kind != "histogram":
        return window.last if window.kind == "gauge" else window.count
    percentiles = (window.p50, window.p95, window.p99)
    return HistogramSnapshot(int(window.count), window.total, window.low, window.high, *percentiles)


def accepts(tags: Mapping[str, Wanted]) -> Callable[[Mapping[str, str]], bool]:
    """Return what tells whether a series with some tags has at least these."""
    checks = [(tag, _check_of(wanted)) for tag, wanted in tags.items()]
    return lambda own: all(tag in own and check(own[tag]) for tag, check in checks)


def _check_of(wanted: Wanted) -> Callable[[str], bool]:
    if callable(wanted):
        return wanted
    allowed = (
        {str(wanted)}
        if isinstance(wanted, str) or not isinstance(wanted, Collection)
        else set(map(str, wanted))
    )
    return allowed.__contains__


def _check(ladder: Sequence[tuple[float, int]]) -> None:
    try:
        widths = [width for width, _ in ladder]
        whole = all(wide > fine and not wide % fine for fine, wide in pairwise(widths))
        fits = bool(widths) and whole and all(width > 0 and most >= 1 for width, most in ladder)
    except (TypeError, ValueError):  # of whatever is no pairs of numbers
        fits = False
    if not fits:
        told = "pairs of a width in seconds and a number, each width some times the one before"
        problem = Problem("ladder", brief(ladder), told)
        raise ConfigError("no history can be kept so", problems=[problem])


def _listed(given: Any) -> Sequence[Any]:
    """Return what is in a collection; of anything else that one thing."""
    return [*given] if isinstance(given, Collection) else [given]


_ONE_TAG = "for a single tag say ('service',), with the comma"
_WIDTHS = "the widths are in its `ladder`"
