"""Which notes sound: the constant-Q spectrum, and all octaves of it as one."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2
from typing import TYPE_CHECKING

import numpy as np

from grym_nb.audio.features.bands import decibels
from grym_nb.audio.features.given import between, chosen, numbers, refuse, refuse_wrong
from grym_nb.audio.features.windows import Need, Plan, Windows, feature
from grym_nb.clip.files import package
from grym_nb.errors import Problem

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float32]
    Exact = npt.NDArray[np.float64]

__all__ = ["chroma", "cqt", "notes"]

_C1 = 32.703195662574829  # Hz, where A4 is 440
_TAPS = 43  # of the filter before every second sample is left out: 120 dB, flat to an eighth of the rate
_USED = 0.25  # of a rate: what lies below has no alias of anything
_SILENT = 1e-5  # of a chroma before it is scaled: -100 dB


@feature
def cqt(
    rate: int,
    *,
    bins: int = 84,
    bins_per_octave: int = 12,
    fmin: float = _C1,
    hop: int = 512,
    db: bool = False,
) -> Plan[Array]:
    """Return the constant-Q spectrum, float32 ``(bins, 1 + frames // hop)``: amplitudes, or dB with `db`.

    Row k is at ``fmin * 2 ** (k / bins_per_octave)`` Hz, C1 by default; a sine of amplitude a reads a at its
    own. Windows are as long as each frequency needs (1.1 s at C1), zeros beyond the ends. Quickest where
    `hop` can be halved as often as there are octaves.
    """
    octaves = _octaves(rate, bins, bins_per_octave, fmin, hop)

    def of(windows: Windows) -> Array:
        amplitudes = octaves.of(windows)
        return decibels(amplitudes**2) if db else amplitudes.astype(np.float32)

    return Plan(Need("cqt"), octaves.length, hop, of)


@feature
def chroma(
    rate: int,
    *,
    method: str = "stft",
    n_fft: int | None = None,
    hop: int = 1024,
    tuning_hz: float = 440.0,
) -> Plan[Array]:
    """Return how strong each note is, float32 ``(12, 1 + frames // hop)``: C, C sharp, ... B.

    The strongest of a window is 1; silent windows (below -100 dB) are 0. By ``"stft"``, from the power
    spectrum in windows of `n_fft` samples (the power of two next to 0.2 s, by default), or by ``"cqt"``, from
    the constant-Q spectrum from C1 up, which tells low notes apart and takes four times as long. A4 is at
    `tuning_hz`.
    """
    problems = [*chosen("method", method, ("stft", "cqt")), *numbers(("hop", hop, 1))]
    problems += between("tuning_hz", tuning_hz, 220.0, 880.0)
    refuse_wrong(problems + (numbers(("n_fft", n_fft, 64)) if n_fft is not None else []))
    if method == "cqt":
        return _chroma_by_cqt(rate, hop, _C1 * tuning_hz / 440.0)
    length = n_fft or 1 << round(log2(0.2 * rate))
    weights = notes(rate, length, tuning_hz)

    def of(windows: Windows) -> Array:
        # A full-scale sine has a power of (n / 4) ** 2 in a Hann window.
        return _to_strongest(weights @ windows.power.T * (4 / length) ** 2, _SILENT**2)

    return Plan(Need(f"chroma with n_fft={length}", min_seconds=length / rate), length, hop, of)


def _chroma_by_cqt(rate: int, hop: int, fmin: float) -> Plan[Array]:
    # Three bins a semitone, the middle one on the note; as many octaves as the rate has, seven at most.
    octaves = min(7, int(log2(0.45 * rate / fmin)))
    if octaves < 1:
        refuse([Problem("rate", f"{rate} Hz", f"at least {ceil(2 * fmin / 0.45)} Hz")])
    spread = _octaves(rate, 36 * octaves, 36, fmin / 2 ** (1 / 36), hop)

    def of(windows: Windows) -> Array:
        amplitudes = spread.of(windows).reshape(octaves, 12, 3, -1)
        return _to_strongest(amplitudes.sum(axis=(0, 2)), _SILENT)

    return Plan(Need("chroma"), spread.length, hop, of)


def _to_strongest(strength: Exact, least: float) -> Array:
    most = strength.max(axis=0, keepdims=True)
    return np.where(most > least, strength / np.maximum(most, least), 0.0).astype(np.float32)


def notes(rate: int, n_fft: int, tuning_hz: float) -> Exact:
    """Return how much each bin of the spectrum counts to each note, ``(12, bins)``: most around C5."""
    hz = np.fft.rfftfreq(n_fft, 1 / rate)[1:]
    semitones = 12 * np.log2(hz / tuning_hz) + 9  # above a C
    width = np.maximum(1.0, 12 * np.log2((hz + rate / n_fft / 2) / np.maximum(hz - rate / n_fft / 2, 1e-9)))
    away = (semitones - np.arange(12)[:, None] + 6) % 12 - 6
    # As wide as a bin where that is more than a semitone; what is octaves away from the middle counts less.
    nearness = np.exp(-0.5 * (2 * away / width) ** 2)
    nearness /= np.sqrt((nearness**2).sum(axis=0))
    octaves = (semitones + 48) / 12 - 5.0
    notes: Exact = np.concatenate([np.zeros((12, 1)), nearness * np.exp(-0.5 * (octaves / 2) ** 2)], axis=1)
    return notes


# -- constant Q --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Octave:
    """Some neighbouring frequencies, all heard at one rate."""

    rows: slice
    halvings: int
    curve: npt.NDArray[np.complex128]  # (samples at that rate, frequencies)


@dataclass(frozen=True, slots=True, eq=False)
class _Octaves:
    """The whole constant-Q spectrum: windows of `length` samples hold what all of its octaves need."""

    bins: int
    length: int
    octaves: tuple[_Octave, ...]
    taps: Exact

    def of(self, windows: Windows) -> Exact:
        """Return amplitudes, ``(bins, windows)``."""
        count = (len(windows.stretch) - windows.length) // windows.hop + 1
        sound, centre, halved = windows.stretch.astype(np.float64), windows.length // 2, 0
        amplitudes = np.empty((self.bins, count))
        for octave in sorted(self.octaves, key=lambda one: one.halvings):
            while halved < octave.halvings:
                sound, centre = self._halved(sound, centre)
                halved += 1
            first = centre - len(octave.curve) // 2
            cut = np.lib.stride_tricks.sliding_window_view(sound[first:], len(octave.curve))
            frames = cut[:: windows.hop >> halved][:count]
            heard = np.hypot(frames @ octave.curve.real, frames @ octave.curve.imag)
            amplitudes[octave.rows] = heard.T
        return amplitudes

    def _halved(self, sound: Exact, centre: int) -> tuple[Exact, int]:
        """Return every second sample, without what is above, so that the centre is one of them."""
        reach = _TAPS // 2
        start = (centre - reach) % 2
        upfirdn = package("scipy.signal", purpose="cqt").upfirdn
        passed: Exact = upfirdn(self.taps, sound[start:], 1, 2)
        # Whole sums only: those that begin with the filter's last tap on the first sample.
        return passed[reach : (len(sound) - start + 1) // 2], (centre - start - reach) // 2


def _octaves(rate: int, bins: int, per_octave: int, fmin: float, hop: int) -> _Octaves:
    problems = numbers(("bins", bins, 1), ("bins_per_octave", per_octave, 1), ("hop", hop, 1))
    refuse_wrong([*problems, *between("fmin", fmin, 1.0, float("inf"))])
    hz = fmin * 2.0 ** (np.arange(bins) / per_octave)
    relative = 2.0 ** (2 / per_octave)
    quality = (relative + 1) / (relative - 1)
    tops = hz * (1 + 1.5 / quality)  # where the main lobe ends
    if tops[-1] > rate / 2:
        most = int(np.count_nonzero(tops <= rate / 2))
        expected = f"at most {most} at {rate} Hz" if most else f"none: fmin is too high for {rate} Hz"
        refuse([Problem("bins", f"{bins}, up to {hz[-1]:.0f} Hz", expected)])
    firwin = package("scipy.signal", purpose="cqt").firwin
    hops = (hop & -hop).bit_length() - 1
    halvings = np.clip(np.floor(np.log2(_USED * rate / tops)), 0, hops).astype(int)
    octaves = []
    for start in range(0, bins, per_octave):
        rows = slice(start, min(start + per_octave, bins))
        halved = int(halvings[rows].min())
        octaves.append(_Octave(rows, halved, _curves(hz[rows], quality, rate / 2**halved)))
    reach = max(
        (len(one.curve) // 2 + 1) * 2**one.halvings + (_TAPS // 2 + 2) * 2 ** (one.halvings + 1)
        for one in octaves
    )
    return _Octaves(bins, 2 * reach, tuple(octaves), firwin(_TAPS, 0.5, window=("kaiser", 12.0)))


def _curves(hz: Exact, quality: float, rate: float) -> npt.NDArray[np.complex128]:
    """Return turning Hann curves, one a column, centred; a sine of amplitude one gives one."""
    halves = quality * rate / hz / 2
    times = np.arange(-ceil(halves.max()), ceil(halves.max()) + 1)[:, None]
    hann = np.where(np.abs(times) < halves, np.cos(np.pi * times / (2 * halves)) ** 2, 0.0)
    curves: npt.NDArray[np.complex128] = 2 * hann / hann.sum(axis=0) * np.exp(2j * np.pi * hz / rate * times)
    return curves
