"""How high a voice or a single instrument is, from window to window."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2
from typing import TYPE_CHECKING, Any

import numpy as np

from grym_nb.audio.features.given import between, chosen, numbers, refuse_wrong
from grym_nb.audio.features.windows import Need, Plan, Whole, Windows, feature
from grym_nb.clip.files import package
from grym_nb.errors import Problem
from grym_nb.render import brief

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float32]
    Exact = npt.NDArray[np.float64]

__all__ = ["Pitch", "pitch"]

_STEP = 0.2  # semitones between two states of pyin
_SPEED = 36.0  # octaves a second; faster glides do not count as one
_STAYS = 0.99  # how likely what is voiced, or not, is so in the next window
_BETA = 18  # of the thresholds that pyin takes as likely: Beta(2, 18), 0.1 in the mean
_UNVOICED = 0.1  # what no pitch is likely by, beside one of many
_ANYWAY = 0.01  # how likely the least dip is the pitch although it is above the threshold


@dataclass(frozen=True, slots=True, eq=False)
class Pitch:
    """How high a sound is in each window: `times` in seconds, `hz` (NaN where not voiced), `voiced`."""

    times: Exact
    hz: Exact
    voiced: npt.NDArray[np.bool_]

    def __repr__(self) -> str:
        if not self.voiced.any():
            return f"Pitch({len(self.times)} windows, none voiced)"
        share, median = self.voiced.mean(), float(np.median(self.hz[self.voiced]))
        return f"Pitch({len(self.times)} windows, {share:.0%} voiced, median {median:.1f} Hz)"


@feature
def pitch(
    rate: int,
    *,
    method: str = "yin",
    fmin: float = 65.0,
    fmax: float = 1000.0,
    threshold: float = 0.2,
    hop: int = 256,
) -> Plan[Pitch]:
    """Return the `Pitch` of a voice, or of one instrument, between `fmin` and `fmax` Hz.

    Three arrays ``(1 + frames // hop,)``. By ``"yin"``: the first period after which less than `threshold` of
    the power is new, each window by itself. By ``"pyin"``: the likeliest course through all windows, over
    many thresholds (and not `threshold`), which goes on through what disturbs a few windows; it takes
    twice as long, and 0.5 GB an hour at 16 kHz, more with the rate. Windows are three periods of `fmin` long;
    silence is not voiced.
    """
    problems = [*chosen("method", method, ("yin", "pyin")), *numbers(("hop", hop, 1))]
    problems += [*between("threshold", threshold, 0.01, 1.0), *between("fmin", fmin, 10.0, rate / 8)]
    if not problems and not 2 * fmin <= fmax <= rate / 4:
        problems.append(Problem("fmax", brief(fmax), f"a number from {2 * fmin:g} (2 fmin) to {rate / 4:g}"))
    refuse_wrong(problems)
    longest = ceil(rate / fmin) + 1
    length = 3 * longest
    need = Need(f"pitch from {fmin:g} Hz", min_seconds=length / rate)
    lags = slice(int(rate / fmax), longest)

    def by_yin(windows: Windows) -> Exact:
        new = _new_power(windows.samples, longest)
        return np.stack(_first_dip(new, lags, threshold))

    def yin(made: npt.NDArray[Any], whole: Whole) -> Pitch:
        period, least = made
        voiced = least < threshold
        hz = np.where(voiced, rate / np.where(voiced, period, 1.0), np.nan)
        return Pitch(np.arange(len(hz)) * hop / rate, hz, voiced)

    bins = ceil(12 * log2(fmax / fmin) / _STEP) + 1

    def by_pyin(windows: Windows) -> Array:
        return _likely(_new_power(windows.samples, longest), lags, rate, fmin, bins)

    def pyin(likely: npt.NDArray[Any], whole: Whole) -> Pitch:
        course = _course(likely[:bins], hop / rate)
        voiced = course < bins
        at = np.where(voiced, course, 0)
        # Within the state, the mean of what was seen there and beside.
        hz = np.where(voiced, _around(likely, at, bins, fmin), np.nan)
        return Pitch(np.arange(len(hz)) * hop / rate, hz, voiced)

    return (
        Plan(need, length, hop, by_pyin, pyin) if method == "pyin" else Plan(need, length, hop, by_yin, yin)
    )


def _new_power(samples: Array, longest: int) -> Exact:
    """Return which share of the power is new after each lag, ``(windows, longest + 1)``; 1 in silence.

    The cumulative mean normalised difference of de Cheveigné and Kawahara (2002).
    """
    sound = samples.astype(np.float64)
    kept = sound.shape[1] - longest
    size = 1 << ceil(log2(sound.shape[1] + 1))
    spectrum = np.fft.rfft(sound, size, axis=1) * np.conj(np.fft.rfft(sound[:, :kept], size, axis=1))
    products = np.fft.irfft(spectrum, size, axis=1)[:, : longest + 1]
    power = np.concatenate([np.zeros((len(sound), 1)), np.cumsum(sound**2, axis=1)], axis=1)
    shifted = power[:, kept : kept + longest + 1] - power[:, : longest + 1]
    new = np.maximum(0.0, shifted[:, :1] + shifted - 2 * products)
    new[:, 0] = 0.0
    mean = np.cumsum(new, axis=1)
    heard = mean > 1e-9 * kept  # below -90 dB there is nothing to be periodic
    shares: Exact = np.where(heard, new * np.arange(longest + 1) / np.where(heard, mean, 1.0), 1.0)
    return shares


def _dips(new: Exact, lags: slice) -> npt.NDArray[np.bool_]:
    """Return which lags, of those allowed, are the lowest within half of the shortest, ``(windows, lags)``.

    So the dips that noise makes on a slope are none.
    """
    lowest = package("scipy.ndimage", purpose="pitch").minimum_filter1d
    reach = max(1, lags.start // 2)
    near = lowest(new, 2 * reach + 1, axis=1, mode="nearest")[:, lags]
    here = new[:, lags]
    dips: npt.NDArray[np.bool_] = (here == near) & (here < 1)
    return dips & (here <= new[:, lags.start + 1 : lags.stop + 1])


def _first_dip(new: Exact, lags: slice, threshold: float) -> tuple[Exact, Exact]:
    """Return the first dip below the threshold, else the lowest: the lag, between samples, and its share."""
    dips = _dips(new, lags)
    deep = dips & (new[:, lags] < threshold)
    lowest = np.where(dips, new[:, lags], np.inf).argmin(axis=1)
    at = lags.start + np.where(deep.any(axis=1), deep.argmax(axis=1), lowest)
    rows = np.arange(len(new))
    return _between_samples(new, rows, at), new[rows, at]


def _between_samples(new: Exact, rows: Any, at: Any) -> Exact:
    before, there, after = (new[rows, at + shift] for shift in (-1, 0, 1))
    bend = before - 2 * there + after
    shift = np.where(bend > 0, 0.5 * (before - after) / np.where(bend > 0, bend, 1.0), 0.0)
    lags: Exact = at + np.clip(shift, -0.5, 0.5)
    return lags


# -- pyin --------------------------------------------------------------------------------------------


def _likely(new: Exact, lags: slice, rate: int, fmin: float, bins: int) -> Array:
    """Return how likely each pitch is, and the mean offset in semitones, ``(2 * bins, windows)``.

    A dip is the pitch if the threshold is above it and not above those before it (Mauch and Dixon, 2014).
    """
    dips = _dips(new, lags)
    depths = np.where(dips, np.minimum(new[:, lags], 1.0), 1.0)
    deepest = np.minimum.accumulate(np.concatenate([np.ones((len(new), 1)), depths[:, :-1]], axis=1), axis=1)
    likely = np.maximum(0.0, _below(deepest) - _below(depths)) * dips
    lowest = np.where(dips, new[:, lags], np.inf).argmin(axis=1)
    every = np.arange(len(new))
    likely[every, lowest] += _ANYWAY * dips.any(axis=1) * _below(depths.min(axis=1))
    rows, columns = np.nonzero(likely)
    weights = likely[rows, columns]
    steps = 12 * np.log2(rate / _between_samples(new, rows, lags.start + columns) / fmin) / _STEP
    at = np.clip(np.round(steps), 0, bins - 1).astype(np.intp)
    made = np.zeros((2 * bins, len(new)), np.float32)
    np.add.at(made, (at, rows), weights)
    np.add.at(made, (bins + at, rows), weights * (steps - at))
    return made


def _below(share: Exact) -> Exact:
    """Return how likely the threshold is below a share."""
    below: Exact = 1 - (1 - share) ** _BETA * (1 + _BETA * share)
    return below


def _course(likely: npt.NDArray[Any], hop_s: float) -> npt.NDArray[np.intp]:
    """Return the likeliest states, ``(windows,)``: a pitch each, or their number for not voiced (Viterbi)."""
    bins, windows = likely.shape
    reach = max(1, min(bins - 1, round(12 * _SPEED * hop_s / _STEP)))
    nearness = 1 - np.abs(np.arange(-reach, reach + 1)) / (reach + 1)
    moves = np.log(_STAYS * nearness)  # as if no move were a choice: no voice has no pitch to choose
    falls, rises, stays = np.log(1 - _STAYS), np.log((1 - _STAYS) / bins), np.log(_STAYS)
    seen = np.log(np.maximum(likely, 1e-12))
    unvoiced = np.log(_UNVOICED * np.maximum(1 - likely.sum(axis=0), 1e-12))
    padded = np.full(bins + 2 * reach, -np.inf)
    came = np.empty((windows, bins + 1), np.int16)
    every = np.arange(bins)
    silent = 0.0
    padded[reach : reach + bins] = -np.log(bins)
    for at in range(windows):
        chances = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1) + moves
        best = chances.argmax(axis=1)
        most = chances[every, best]
        begins = silent + rises > most
        came[at, :bins] = np.where(begins, bins, every + best - reach)
        fallen = int(padded.argmax())
        ends = padded[fallen] + falls > silent + stays
        came[at, bins] = fallen - reach if ends else bins
        silent_next = (padded[fallen] + falls if ends else silent + stays) + unvoiced[at]
        padded[reach : reach + bins] = np.maximum(most, silent + rises) + seen[:, at]
        silent = float(silent_next)
    course = np.empty(windows, np.intp)
    state = int(padded[reach : reach + bins].argmax())
    state = bins if silent > padded[reach + state] else state
    for at in range(windows - 1, -1, -1):
        course[at] = state
        state = int(came[at, state])
    return course


def _around(likely: npt.NDArray[Any], at: npt.NDArray[np.intp], bins: int, fmin: float) -> Exact:
    every = np.arange(likely.shape[1])
    weight, moved = np.zeros(len(every)), np.zeros(len(every))
    for shift in (-1, 0, 1):
        near = np.clip(at + shift, 0, bins - 1)
        some = np.where(near == at + shift, likely[near, every], 0.0)
        weight += some
        moved += some * shift + np.where(near == at + shift, likely[bins + near, every], 0.0)
    steps = at + np.where(weight > 0, moved / np.where(weight > 0, weight, 1.0), 0.0)
    hz: Exact = fmin * 2.0 ** (steps * _STEP / 12)
    return hz
