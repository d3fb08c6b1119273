"""When something begins in a sound, the beat of it, and how fast that is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, log2, nan
from typing import TYPE_CHECKING, Any

import numpy as np

from grym_nb.audio.features.bands import decibels, mel_bands
from grym_nb.audio.features.given import between, refuse, refuse_wrong
from grym_nb.audio.features.windows import Need, Plan, Whole, Windows, feature
from grym_nb.errors import Problem
from grym_nb.render import brief

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float32]
    Exact = npt.NDArray[np.float64]

__all__ = ["Tempo", "beats", "onsets", "tempo"]

_HOP_S = 0.01
_WINDOW_S = 0.046
_TOP_HZ = 16_000.0
_TIGHTNESS = 100.0  # how much less a beat counts that is not where the last one leads to
_ALMOST = 0.9  # of the strongest recurrence: a faster beat that recurs as well is the beat
_LAGS_S = 4.0
_LEAST_RECURRENCE_S = 60 / 300


@dataclass(frozen=True, slots=True)
class Tempo:
    """How fast a sound is: beats a minute, NaN where nothing recurs.

    `confidence` is which share of what begins recurs a beat later, 0 to 1: near 1 for a metronome, near 0 for
    noise. `alternatives` are half and twice as many beats a minute, that which recurs more first.
    """

    bpm: float
    confidence: float
    alternatives: tuple[float, ...]

    def __repr__(self) -> str:
        others = ", ".join(f"{bpm:.2f}" for bpm in self.alternatives)
        return f"Tempo({self.bpm:.2f} BPM, confidence {self.confidence:.2f}, or {others or 'no other'})"


@feature
def onsets(rate: int, *, rise_db: float = 2.0) -> Plan[Exact]:
    """Return when something begins, in seconds from the start, ascending: float64 ``(n,)``; none in silence.

    Where the level in 40 bands rises, in the mean, by `rise_db` more than around it within 10 ms.
    """
    refuse_wrong(between("rise_db", rise_db, 0.0, 100.0))

    def end(strength: npt.NDArray[Any], whole: Whole) -> Exact:
        found = _peaks(strength[0], rise_db)
        return np.maximum(0.0, (_refined(strength[0], found) - 1) * _hop(rate) / rate)

    return _plan("onsets", rate, 0.1, end)


@feature
def beats(rate: int, *, slowest: float = 50.0, fastest: float = 220.0) -> Plan[Exact]:
    """Return the times of the beats, in seconds from the start, ascending: float64 ``(n,)``.

    One tempo within the bounds, in beats a minute, is followed through the whole; `tempo` tells how sure that
    is. None where fewer than three things begin.
    """
    _refuse_bounds(slowest, fastest)
    return _plan("beats", rate, 1.0, lambda strength, whole: _beats(strength, whole, slowest, fastest)[0])


@feature
def tempo(rate: int, *, slowest: float = 50.0, fastest: float = 220.0) -> Plan[Tempo]:
    """Return the `Tempo`: beats a minute by the straight line that is nearest to all beats.

    So it is not rounded to windows. Of tempi that recur as well, the fastest within the bounds. NaN, with
    confidence 0, where fewer than three things begin.
    """
    _refuse_bounds(slowest, fastest)

    def end(strength: npt.NDArray[Any], whole: Whole) -> Tempo:
        times, recurrence = _beats(strength, whole, slowest, fastest)
        if len(times) < 3:
            return Tempo(nan, 0.0, ())
        # A beat that was left out is a step of two.
        steps = np.diff(times)
        at = np.concatenate([[0], np.cumsum(np.maximum(1, np.round(steps / np.median(steps))))])
        bpm = 60.0 / float(np.polyfit(at, times, 1)[0])

        def recurs(bpm: float) -> float:
            lag = 60.0 / bpm * rate / _hop(rate)
            near = recurrence[max(0, int(lag) - 1) : int(lag) + 3]
            return float(near.max(initial=0.0))

        others = [other for other in (bpm / 2, bpm * 2) if 30 <= other <= 300]
        others.sort(key=recurs, reverse=True)
        return Tempo(bpm, min(1.0, max(0.0, recurs(bpm))), tuple(others))

    return _plan("tempo", rate, 1.0, end)


def _refuse_bounds(slowest: float, fastest: float) -> None:
    problems = [*between("slowest", slowest, 20.0, 300.0), *between("fastest", fastest, 20.0, 300.0)]
    if not problems and slowest * 2 > fastest:
        problems = [Problem("fastest", brief(fastest), f"at least twice slowest ({slowest:g})")]
    if problems:
        refuse(problems, hint="in beats a minute; within less than an octave there may be no beat")


# -- what begins -------------------------------------------------------------------------------------


def _hop(rate: int) -> int:
    return max(1, round(_HOP_S * rate))


def _plan(what: str, rate: int, min_seconds: float, end: Any) -> Plan[Any]:
    if rate < 4000:  # the same words as for any clip, before there are bands that hold no frequency
        return Plan(Need(what, min_rate=4000), 2, _hop(rate), lambda windows: windows.samples.T)
    length = 1 << round(log2(_WINDOW_S * rate))
    bands = mel_bands(rate, 40, length, 1, 0.0, min(_TOP_HZ, rate / 2))
    bands /= bands.sum(axis=1, keepdims=True) * (length / 4) ** 2
    hann = np.sin(np.pi * np.arange(length) / length) ** 2

    def of(windows: Windows) -> Array:
        def make() -> Array:
            # Of the half that lies before: what begins is in it from then on, also at the very start.
            spectrum = np.fft.rfft(windows.samples[:, :length] * hann, axis=1)
            return decibels(bands @ (spectrum.real**2 + spectrum.imag**2).T)

        return windows.once("levels", make)

    def finish(levels: npt.NDArray[Any], whole: Whole) -> Any:
        return end(whole.once("strength", lambda: _strength(levels)), whole)

    return Plan(Need(what, min_seconds=min_seconds, min_rate=4000), 2 * length, _hop(rate), of, finish)


def _strength(levels: Array) -> Exact:
    """Return by how many dB the bands rise from window to window, in the mean, ``(1, windows)``."""
    rises = np.maximum(0.0, np.diff(levels, axis=1, prepend=levels[:, :1]))
    strength: Exact = rises.mean(axis=0, dtype=np.float64)[None, :]
    return strength


def _peaks(strength: Exact, rise_db: float) -> npt.NDArray[np.intp]:
    """Return the windows that rise most within 30 ms, and by enough more than those within 100 ms."""
    near = np.lib.stride_tricks.sliding_window_view(np.pad(strength, 3), 7).max(axis=1)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(strength, 10), 21)
    high = (strength == near) & (strength >= np.median(around, axis=1) + rise_db) & (strength > 0)
    return np.flatnonzero(high & ~np.concatenate([[False], high[:-1]]))


def _refined(strength: Exact, at: npt.NDArray[np.intp]) -> Exact:
    """Return where between the windows the peaks are, by a parabola through each and its neighbours."""
    padded = np.pad(strength, 1)
    before, there, after = padded[at], padded[at + 1], padded[at + 2]
    bend = before - 2 * there + after
    shift = np.where(bend < 0, 0.5 * (before - after) / np.where(bend < 0, bend, 1.0), 0.0)
    refined: Exact = at + np.clip(shift, -0.5, 0.5)
    return refined


# -- the beat ----------------------------------------------------------------------------------------


def _beats(strength: npt.NDArray[Any], whole: Whole, slowest: float, fastest: float) -> tuple[Exact, Exact]:
    """Return the times of the beats, and how much of what begins recurs after so many windows."""
    rate = whole.rate

    def make() -> tuple[Exact, Exact]:
        rises = np.maximum(0.0, strength[0] - np.median(strength[0]) - 1.0)
        begun = _peaks(strength[0], 2.0)
        if len(begun) < 3:
            return np.empty(0), np.empty(0)
        # One that comes out of silence would count more than all others.
        rises = np.minimum(rises, 2 * np.median(strength[0][begun]))
        curve = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
        smooth = np.convolve(rises, curve / curve.sum(), mode="same")
        a_second = rate / _hop(rate)
        recurrence = _recurrence(smooth, int(_LAGS_S * a_second))
        period = _period(recurrence, 60 * a_second / fastest, 60 * a_second / slowest)
        if period is None:
            return np.empty(0), recurrence
        found = _followed(smooth / smooth.std(), period)
        times = np.maximum(0.0, (_refined(smooth, found) - 1) / a_second)
        return times, recurrence

    return whole.once(("beats", slowest, fastest), make)


def _recurrence(smooth: Exact, lags: int) -> Exact:
    """Return the autocorrelation up to so many windows, 1 at none."""
    centred = smooth - smooth.mean()
    lags = min(lags, len(centred) - 1)
    size = 1 << ceil(log2(len(centred) + lags + 1))
    spectrum = np.fft.rfft(centred, size)
    products = np.fft.irfft(spectrum.real**2 + spectrum.imag**2, size)[: lags + 1]
    products /= len(centred) - np.arange(lags + 1)  # a lag of seconds has fewer of them
    recurrence: Exact = products / products[0]
    return recurrence


def _period(recurrence: Exact, shortest: float, longest: float) -> float | None:
    """Return after how many windows most recurs; of those after which almost as much does, the fewest."""
    lags = np.arange(1, len(recurrence) - 1)
    here = recurrence[1:-1]
    peak = (here > recurrence[:-2]) & (here >= recurrence[2:]) & (here > 0)
    allowed = lags[peak & (lags >= shortest - 0.5) & (lags <= longest + 0.5)]
    if not allowed.size:
        return None
    good = allowed[recurrence[allowed] >= _ALMOST * recurrence[allowed].max()]
    return float(_refined(recurrence, good[:1])[0])


def _followed(strength: Exact, period: float) -> npt.NDArray[np.intp]:
    """Return the windows of the beats: the chain through what begins that is the strongest and most even.

    By dynamic programming (Ellis, 2007), without the weak ends.
    """
    back = np.arange(round(period / 2), round(2 * period) + 1)[::-1]
    cost = _TIGHTNESS * np.log(back / period) ** 2
    reach = int(back[0])
    score = np.zeros(len(strength) + reach)  # what came before the start counts nothing
    before = np.full(len(strength), -1)
    span = len(back)
    for at, there in enumerate(strength):
        chains = score[at : at + span] - cost
        best = int(chains.argmax())
        if chains[best] > 0:
            before[at] = at - back[best]
            there = there + chains[best]
        score[at + reach] = there
    chain = list(_back(before, len(score) - span + int(score[-span:].argmax()) - reach))[::-1]
    found = np.array([at for at in chain if at >= 0], dtype=np.intp)
    strong = np.flatnonzero(strength[found] > 0.5 * np.sqrt(np.mean(strength[found] ** 2)))
    return found[strong[0] : strong[-1] + 1] if strong.size else found[:0]


def _back(before: npt.NDArray[np.intp], at: int) -> Iterator[int]:
    while at >= 0:
        yield at
        at = int(before[at])
