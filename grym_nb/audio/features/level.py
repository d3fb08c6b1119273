"""How loud a sound is, as people hear it (ITU-R BS.1770)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from grym_nb.audio.features.given import refuse
from grym_nb.audio.features.windows import Need, Running, Whole, feature
from grym_nb.clip.files import package
from grym_nb.errors import Problem
from grym_nb.render import brief

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float32]
    Exact = npt.NDArray[np.float64]

__all__ = ["loudness"]

# ITU-R BS.1770-5, annex 1.
_SURROUND = (1.0, 1.0, 1.0, 1.41, 1.41)  # left, right, centre, left and right surround
_OFFSET = -0.691  # LUFS of a K-weighted mean square of one
_GATE = -70.0  # LUFS; blocks below are silence
_BELOW = 0.1  # of the mean power: blocks 10 LU below it do not count either
_OVERLAP = 0.75
_HIGH_PASS_GAIN = 1.0049948  # of the second filter at 48 kHz, far above its corner


@feature
def loudness(rate: int, *, block_s: float = 0.4) -> Running[float]:
    """Return the integrated loudness in LUFS (ITU-R BS.1770): 0 dBFS of a 997 Hz sine in mono is -3.01.

    -inf when no block of `block_s` seconds is louder than -70 LUFS. Up to five channels, in the order left,
    right, centre, left surround, right surround, one block long at least. Within 0.05 LU of the standard from
    16 kHz up, 0.2 LU at 8 kHz.
    """
    if not 0 < block_s < float("inf"):
        refuse([Problem("block_s", brief(block_s), "seconds above 0; the standard says 0.4")])
    need = Need("loudness", min_rate=8000, max_channels=len(_SURROUND), min_seconds=block_s)
    return Running(need, lambda channels: _Meter(rate, channels, max(1, round(block_s * rate))))


class _Meter:
    """The mean K-weighted power of whole blocks, three quarters of each shared with the next."""

    # Only whole blocks count. pyloudnorm's own meter takes in a part of one more, which makes a steady tone
    # of 0.46 s 0.2 LU too quiet, and it changes the warning filters under all threads.

    def __init__(self, rate: int, channels: int, block: int) -> None:
        self._filters = [_k_weighting(rate) for _ in range(channels)]
        self._block = block
        self._power = np.empty(0)  # of what blocks to come are made of
        self._first = 0  # of its samples in the sound
        self._begun = 0  # blocks that were measured
        self._means: list[Exact] = []

    def feed(self, block: Array) -> None:
        """Take the next samples, ``(channels, n)``."""
        power = np.zeros(block.shape[1])
        for weight, weighted, channel in zip(_SURROUND, self._filters, block, strict=False):
            power += weight * weighted(channel.astype(np.float64)) ** 2
        self._power = np.concatenate([self._power, power])
        step = self._block * (1 - _OVERLAP)
        last = self._first + len(self._power) - self._block
        starts = np.arange(self._begun, max(self._begun, int(last / step) + 1)) * step
        first = starts[starts <= last].astype(np.intp) - self._first
        total = np.concatenate([[0.0], np.cumsum(self._power)])
        self._means.append((total[first + self._block] - total[first]) / self._block)
        self._begun += len(first)
        used = min(int(self._begun * step) - self._first, len(self._power))
        self._power = self._power[used:].copy()
        self._first += used

    def end(self, whole: Whole) -> float:
        """Return the loudness of the blocks that pass both gates."""
        means = np.concatenate(self._means)
        loud = means[means > 10 ** ((_GATE - _OFFSET) / 10)]
        if not loud.size:
            return float("-inf")
        gated = loud[loud > _BELOW * loud.mean()]
        return float(_OFFSET + 10 * np.log10(gated.mean()))


def _k_weighting(rate: int) -> Any:
    """Return what passes on a channel, a block at a time, as the standard's two filters do."""
    iir = package("pyloudnorm", purpose="loudness").IIRfilter
    lfilter = package("scipy.signal", purpose="loudness").lfilter
    # These reproduce the coefficients that the standard gives for 48 kHz.
    shelf = iir(3.99984385397, 0.7071752369554193, 1681.9744509555319, rate, "high_shelf_DeMan")
    high_pass = iir(0.0, 0.5003270373253953, 38.13547087613982, rate, "high_pass_DeMan")
    # The standard's high-pass is not normalised, so that its gain would change with the rate (0.2 dB at
    # 8 kHz): brought to what it is at 48 kHz. Resampling instead would lose the top of the band.
    _, a1, a2 = high_pass.a
    gain = _HIGH_PASS_GAIN * (1 - a1 + a2) / 4
    stages = [(shelf, 1.0), (high_pass, gain)]
    states = [np.zeros(2), np.zeros(2)]

    def weighted(samples: Exact) -> Exact:
        for at, (stage, factor) in enumerate(stages):
            samples, states[at] = lfilter(stage.b, stage.a, factor * samples, zi=states[at])
        return samples

    return weighted
