"""Sounds made from numbers, the same ones every time: for demos, notebooks and tests.

All levels are the peak in dB of full scale; `seconds` is the length, `rate` in Hz.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from grym_nb.clip import Clip

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

__all__ = ["beats", "chord", "noise", "tone"]


def tone(hz: float = 440.0, *, seconds: float = 1.0, rate: int = 16_000, level_db: float = -6.0) -> Clip:
    """Return a sine of `hz`, mono, that starts at zero."""
    return Clip(_level(level_db) * np.sin(2 * np.pi * hz * _times(seconds, rate)), rate)


def chord(
    hz: Sequence[float] = (261.63, 329.63, 392.0),
    *,
    seconds: float = 1.0,
    rate: int = 16_000,
    level_db: float = -6.0,
) -> Clip:
    """Return sines of all `hz` at once, mono and equally loud (C major by default)."""
    times = _times(seconds, rate)
    sines = sum((np.sin(2 * np.pi * one * times) for one in hz), np.zeros_like(times))
    return Clip(_peaking(sines, level_db), rate)


def noise(*, seconds: float = 1.0, rate: int = 16_000, seed: int = 0, level_db: float = -6.0) -> Clip:
    """Return white noise, mono and evenly distributed; the same for the same `seed`."""
    drawn = np.random.default_rng(seed).uniform(-1, 1, _frames(seconds, rate))
    return Clip(_level(level_db) * drawn, rate)


def beats(
    bpm: float = 120.0,
    *,
    seconds: float = 8.0,
    rate: int = 16_000,
    hz: float = 1000.0,
    level_db: float = -6.0,
) -> Clip:
    """Return a metronome, mono: a click of `hz` that dies away in 50 ms, on each beat from 0 s on."""
    times = _times(seconds, rate)
    since = times % (60.0 / bpm)  # seconds since the latest beat
    return Clip(_peaking(np.sin(2 * np.pi * hz * since) * np.exp(-since / 0.01), level_db), rate)


def _frames(seconds: float, rate: int) -> int:
    return round(seconds * rate)


def _times(seconds: float, rate: int) -> Array:
    return np.arange(_frames(seconds, rate)) / rate


def _level(level_db: float) -> float:
    return float(10.0 ** (level_db / 20))


def _peaking(samples: Array, level_db: float) -> Array:
    peak = float(np.abs(samples).max(initial=0.0))
    return samples * (_level(level_db) / peak) if peak else samples
