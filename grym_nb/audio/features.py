"""What can be measured of a clip: plain functions, the clip first, everything else by keyword.

They say what they cannot work with (`Clip.checked`) instead of returning a number for it, and need the
extra ``sound``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import numpy as np

from grym_nb.clip.files import package
from grym_nb.errors import AudioError, Problem, ValidationError, says_what_it_takes
from grym_nb.render import brief

if TYPE_CHECKING:
    import numpy.typing as npt

    from grym_nb.clip import Clip

    Array = npt.NDArray[np.float32]

__all__ = ["loudness", "mel"]

# ITU-R BS.1770-5, annex 1.
_SURROUND = (1.0, 1.0, 1.0, 1.41, 1.41)  # left, right, centre, left and right surround
_OFFSET = -0.691  # LUFS of a K-weighted mean square of one
_GATE = -70.0  # LUFS; blocks below are silence
_BELOW = 0.1  # of the mean power: blocks 10 LU below it do not count either
_OVERLAP = 0.75
_HIGH_PASS_GAIN = 1.0049948  # of the second filter at 48 kHz, far above its corner

_FLOOR_DB = np.float32(-100)  # absolute, so that a part of a clip gives a part of the picture
_TINY = np.float32(1e-20)
_FRAMES_AT_ONCE = 2048  # frames of the STFT: bounds the memory that an hour takes


@says_what_it_takes
def loudness(clip: Clip, *, block_s: float = 0.4) -> float:
    """Return the integrated loudness in LUFS (ITU-R BS.1770): 0 dBFS of a 997 Hz sine in mono is -3.01.

    -inf when no block of `block_s` seconds is louder than -70 LUFS. Up to five channels, in the order left,
    right, centre, left surround, right surround, one block long at least. Within 0.05 LU of the standard from
    16 kHz up, 0.2 LU at 8 kHz.
    """
    _refuse_no_clip(clip, "loudness")
    if not 0 < block_s < float("inf"):
        _refuse([Problem("block_s", brief(block_s), "seconds above 0; the standard says 0.4")])
    clip.checked(what="loudness", min_rate=8000, max_channels=len(_SURROUND), min_seconds=block_s)
    power = np.zeros(clip.frames)
    for weight, channel in zip(_SURROUND, np.atleast_2d(clip.samples), strict=False):
        power += weight * _k_weighted(channel.astype(np.float64), clip.rate) ** 2
    # Only whole blocks count. pyloudnorm's own meter takes in a part of one more, which makes a steady tone
    # of 0.46 s 0.2 LU too quiet, and it changes the warning filters under all threads.
    block = max(1, round(block_s * clip.rate))
    starts = np.arange(0, len(power) - block + 1, block * (1 - _OVERLAP)).astype(np.intp)
    total = np.concatenate([[0.0], np.cumsum(power)])
    means = (total[starts + block] - total[starts]) / block
    loud = means[means > 10 ** ((_GATE - _OFFSET) / 10)]
    if not loud.size:
        return float("-inf")
    gated = loud[loud > _BELOW * loud.mean()]
    return float(_OFFSET + 10 * np.log10(gated.mean()))


def _k_weighted(channel: npt.NDArray[np.float64], rate: int) -> npt.NDArray[np.float64]:
    """Return a channel as the standard's two filters pass it."""
    iir = package("pyloudnorm", purpose="loudness").IIRfilter
    # These reproduce the coefficients that the standard gives for 48 kHz.
    shelf = iir(3.99984385397, 0.7071752369554193, 1681.9744509555319, rate, "high_shelf_DeMan")
    high_pass = iir(0.0, 0.5003270373253953, 38.13547087613982, rate, "high_pass_DeMan")
    # The standard's high-pass is not normalised, so that its gain would change with the rate (0.2 dB at
    # 8 kHz): brought to what it is at 48 kHz. Resampling instead would lose the top of the band.
    _, a1, a2 = high_pass.a
    gain = _HIGH_PASS_GAIN * (1 - a1 + a2) / 4
    passed: npt.NDArray[np.float64] = gain * high_pass.apply_filter(shelf.apply_filter(channel))
    return passed


@says_what_it_takes
def mel(
    clip: Clip,
    *,
    n_mels: int = 64,
    n_fft: int = 1024,
    hop: int = 256,
    fmin: float = 0.0,
    fmax: float | None = None,
    db: bool = False,
) -> Array:
    """Return the mel spectrogram, float32 ``(n_mels, 1 + frames // hop)``: power, or dB of it with `db`.

    Of the mean of the channels, in Hann windows of `n_fft` samples centred on every `hop`-th, zeros beyond
    the ends; Slaney's bands of equal area from `fmin` to `fmax` Hz (half the rate by default), all as
    librosa has it. Power 1 is 0 dB, and nothing is below -100 dB. The clip must fill one window.
    """
    _refuse_no_clip(clip, "mel")
    top = clip.rate / 2 if fmax is None else fmax
    _refuse_mel(clip.rate, n_mels, n_fft, hop, fmin, top)
    clip.checked(what=f"mel with n_fft={n_fft}", min_seconds=n_fft / clip.rate)
    bands = _mel_bands(clip.rate, n_mels, n_fft, fmin, top)
    power = _through(bands, clip.mono().samples, n_fft, hop)
    return np.maximum(10 * np.log10(np.maximum(power, _TINY)), _FLOOR_DB) if db else power


def _refuse_mel(rate: int, n_mels: int, n_fft: int, hop: int, fmin: float, fmax: float) -> None:
    problems = [
        Problem(name, brief(value), f"a whole number from {least}")
        for name, value, least in (("n_mels", n_mels, 1), ("n_fft", n_fft, 2), ("hop", hop, 1))
        if not (isinstance(value, (int, np.integer)) and value >= least)
    ]
    if not 0 <= fmin < fmax:
        problems.append(Problem("fmin", brief(fmin), f"from 0 to below fmax ({fmax:g} Hz)"))
    if fmax > rate / 2:
        problems.append(Problem("fmax", brief(fmax), f"at most {rate / 2:g} Hz, half the rate"))
    if problems:
        _refuse(problems)


def _mel_bands(rate: int, n_mels: int, n_fft: int, fmin: float, fmax: float) -> Array:
    # All of librosa that is needed: its STFT compiles for seconds when first called, this compiles nothing.
    librosa = package("librosa.filters", purpose="mel")
    edges = package("librosa.core.convert", purpose="mel").mel_frequencies(n_mels + 2, fmin=fmin, fmax=fmax)
    bins = edges * n_fft / rate
    # A band between two bins would pass nothing, whatever the sound.
    empty = np.flatnonzero(np.floor(bins[:-2]) + 1 >= bins[2:])
    if empty.size:
        _refuse(
            [Problem("n_mels", f"{n_mels} with {empty.size} bands that hold no frequency", "fewer bands")],
            hint=f"fewer n_mels, a larger n_fft (here {n_fft}), or a higher fmin",
        )
    bands: Array = librosa.mel(sr=rate, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax)
    return bands


def _through(bands: Array, samples: Array, n_fft: int, hop: int) -> Array:
    """Return what the bands pass of the power spectrum, ``(bands, 1 + n // hop)``."""
    hann = np.sin(np.pi * np.arange(n_fft) / n_fft) ** 2
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(samples, n_fft // 2), n_fft)[::hop]
    passed = np.empty((len(bands), len(frames)), np.float32)
    for start in range(0, len(frames), _FRAMES_AT_ONCE):
        some = slice(start, start + _FRAMES_AT_ONCE)
        spectrum = np.fft.rfft(frames[some] * hann, axis=1)
        passed[:, some] = bands @ (spectrum.real**2 + spectrum.imag**2).T
    return passed


def _refuse_no_clip(given: object, feature: str) -> None:
    # By what it can do: a `Clip` of before a reload is a clip still.
    if not hasattr(given, "checked"):
        hint = "grym.Clip.read(path), or grym.Clip(samples, rate)"
        raise AudioError(f"{feature} takes a Clip, not {brief(given)}", hint=hint)


def _refuse(problems: list[Problem], *, hint: str | None = None) -> NoReturn:
    raise ValidationError("these parameters do not fit", problems=problems, hint=hint)
