"""Sounds made from numbers, the same ones every time: for demos, notebooks and tests.

All levels are the peak in dB of full scale; `seconds` is the length, `rate` in Hz.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from grym_nb.clip import Clip
from grym_nb.errors import AudioError, says_what_it_takes
from grym_nb.render import brief

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

__all__ = ["beats", "chord", "noise", "tone"]


@says_what_it_takes
def tone(hz: float = 440.0, *, seconds: float = 1.0, rate: int = 16_000, level_db: float = -6.0) -> Clip:
    """Return a sine of `hz`, mono, that starts at zero."""
    _refuse_no_numbers(hz=hz, seconds=seconds, rate=rate, level_db=level_db)
    return Clip(_level(level_db) * np.sin(2 * np.pi * hz * _times(seconds, rate)), rate)


@says_what_it_takes
def chord(
    hz: Sequence[float] = (261.63, 329.63, 392.0),
    *,
    seconds: float = 1.0,
    rate: int = 16_000,
    level_db: float = -6.0,
) -> Clip:
    """Return sines of all `hz` at once, mono and equally loud (C major by default)."""
    _refuse_no_numbers(seconds=seconds, rate=rate, level_db=level_db)
    times = _times(seconds, rate)
    sines = sum((np.sin(2 * np.pi * one * times) for one in hz), np.zeros_like(times))
    return Clip(_peaking(sines, level_db), rate)


@says_what_it_takes
def noise(*, seconds: float = 1.0, rate: int = 16_000, seed: int = 0, level_db: float = -6.0) -> Clip:
    """Return white noise, mono and evenly distributed; the same for the same `seed`."""
    _refuse_no_numbers(seconds=seconds, rate=rate, level_db=level_db)
    drawn = np.random.default_rng(seed).uniform(-1, 1, _frames(seconds, rate))
    return Clip(_level(level_db) * drawn, rate)


@says_what_it_takes
def beats(
    bpm: float = 120.0,
    *,
    seconds: float = 8.0,
    rate: int = 16_000,
    hz: float = 1000.0,
    level_db: float = -6.0,
) -> Clip:
    """Return a metronome, mono: a click of `hz` that dies away in 50 ms, on each beat from 0 s on."""
    _refuse_no_numbers(bpm=bpm, seconds=seconds, rate=rate, hz=hz, level_db=level_db)
    times = _times(seconds, rate)
    since = times % (60.0 / bpm)  # seconds since the latest beat
    return Clip(_peaking(np.sin(2 * np.pi * hz * since) * np.exp(-since / 0.01), level_db), rate)


def _refuse_no_numbers(**given: Any) -> None:
    for name, value in given.items():
        number = isinstance(value, Real) and isfinite(value)
        if not number or (value < 0 and name in ("seconds", "bpm")):
            least = " from 0" if name == "seconds" else ""
            raise AudioError(f"{name} is {brief(value)}: it must be a number{least}", hint="nothing was made")


def _frames(seconds: float, rate: int) -> int:
    return round(seconds * rate)


def _times(seconds: float, rate: int) -> Array:
    return np.arange(_frames(seconds, rate)) / rate


def _level(level_db: float) -> float:
    return float(10.0 ** (level_db / 20))


def _peaking(samples: Array, level_db: float) -> Array:
    peak = float(np.abs(samples).max(initial=0.0))
    return samples * (_level(level_db) / peak) if peak else samples
