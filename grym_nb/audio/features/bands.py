"""The power of a sound in bands as wide as the ear hears them, and the shape of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from grym_nb.audio.features.given import numbers, refuse, refuse_wrong
from grym_nb.audio.features.windows import Need, Plan, Windows, feature
from grym_nb.clip.files import package
from grym_nb.errors import Problem
from grym_nb.render import brief

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float32]
    Exact = npt.NDArray[np.float64]

__all__ = ["decibels", "mel", "mel_bands", "mfcc"]

_FLOOR_DB = -100.0  # absolute, so that a part of a clip gives a part of the picture
_TINY = 1e-20


def decibels(power: npt.NDArray[Any]) -> Array:
    """Return power in dB: 1 is 0 dB, and nothing is below -100 dB."""
    made: Array = np.maximum(10 * np.log10(np.maximum(power, _TINY)), _FLOOR_DB).astype(np.float32)
    return made


@feature
def mel(
    rate: int,
    *,
    n_mels: int = 64,
    n_fft: int = 1024,
    hop: int = 256,
    fmin: float = 0.0,
    fmax: float | None = None,
    db: bool = False,
) -> Plan[Array]:
    """Return the mel spectrogram, float32 ``(n_mels, 1 + frames // hop)``: power, or dB of it with `db`.

    Of the mean of the channels, in Hann windows of `n_fft` samples centred on every `hop`-th, zeros beyond
    the ends; Slaney's bands of equal area from `fmin` to `fmax` Hz (half the rate by default), all as
    librosa has it. Power 1 is 0 dB, and nothing is below -100 dB. The clip must fill one window.
    """
    bands = mel_bands(rate, n_mels, n_fft, hop, fmin, fmax)

    def of(windows: Windows) -> Array:
        power: Array = (bands @ windows.power.T).astype(np.float32)
        return decibels(power) if db else power

    return Plan(Need(f"mel with n_fft={n_fft}", min_seconds=n_fft / rate), n_fft, hop, of)


@feature
def mfcc(
    rate: int,
    *,
    n_mfcc: int = 20,
    n_mels: int = 64,
    n_fft: int = 1024,
    hop: int = 256,
    fmin: float = 0.0,
    fmax: float | None = None,
) -> Plan[Array]:
    """Return mel-frequency cepstral coefficients, float32 ``(n_mfcc, 1 + frames // hop)``.

    The orthonormal cosine transform of `mel` in dB: the first is the level, the next the tilt and the shape
    of the spectrum, coarse to fine. As librosa has it, but for its floor of 80 dB below the loudest, which
    here is -100 dB.
    """
    bands = mel_bands(rate, n_mels, n_fft, hop, fmin, fmax)
    problems = numbers(("n_mfcc", n_mfcc, 1))
    if not problems and n_mfcc > n_mels:
        problems = [Problem("n_mfcc", brief(n_mfcc), f"at most n_mels ({n_mels})")]
    refuse_wrong(problems)
    # The cosines of the transform, one coefficient a row.
    cosines = np.cos(np.pi * np.arange(n_mfcc)[:, None] * (2 * np.arange(n_mels) + 1) / (2 * n_mels))
    cosines *= np.sqrt(2 / n_mels)
    cosines[0] /= np.sqrt(2)

    def of(windows: Windows) -> Array:
        power = bands @ windows.power.T
        made: Array = (cosines @ (10 * np.log10(np.maximum(power, 1e-10)))).astype(np.float32)
        return made

    return Plan(Need(f"mfcc with n_fft={n_fft}", min_seconds=n_fft / rate), n_fft, hop, of)


def mel_bands(
    rate: int, n_mels: int, n_fft: int, hop: int, fmin: float = 0.0, fmax: float | None = None
) -> Exact:
    """Return the bands, ``(n_mels, 1 + n_fft // 2)``; ValidationError for parameters that do not fit."""
    top = rate / 2 if fmax is None else fmax
    problems = numbers(("n_mels", n_mels, 1), ("n_fft", n_fft, 2), ("hop", hop, 1))
    if not 0 <= fmin < top:
        problems.append(Problem("fmin", brief(fmin), f"from 0 to below fmax ({top:g} Hz)"))
    if top > rate / 2:
        problems.append(Problem("fmax", brief(top), f"at most {rate / 2:g} Hz, half the rate"))
    refuse_wrong(problems)
    # All of librosa that is needed: its STFT compiles for seconds when first called, this compiles nothing.
    librosa = package("librosa.filters", purpose="mel")
    edges = package("librosa.core.convert", purpose="mel").mel_frequencies(n_mels + 2, fmin=fmin, fmax=top)
    bins = edges * n_fft / rate
    # A band between two bins would pass nothing, whatever the sound.
    empty = np.flatnonzero(np.floor(bins[:-2]) + 1 >= bins[2:])
    if empty.size:
        refuse(
            [Problem("n_mels", f"{n_mels} with {empty.size} bands that hold no frequency", "fewer bands")],
            hint=f"fewer n_mels, a larger n_fft (here {n_fft}), or a higher fmin",
        )
    bands: Exact = librosa.mel(sr=rate, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=top).astype(np.float64)
    return bands
