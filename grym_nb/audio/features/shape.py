"""What the spectrum and the wave look like from window to window: one number each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from grym_nb.audio.features.given import between, numbers, refuse_wrong
from grym_nb.audio.features.windows import Need, Plan, Windows, feature

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float32]
    Exact = npt.NDArray[np.float64]
    _Of = Callable[[Windows], Any]

__all__ = ["bandwidth", "centroid", "flatness", "rms", "rolloff", "zero_crossings"]

_LEAST = 1e-10  # power; below it is silence, which has no shape


@feature
def centroid(rate: int, *, n_fft: int = 1024, hop: int = 256) -> Plan[Array]:
    """Return where the middle of the spectrum is, in Hz: float32 ``(1 + frames // hop,)``; 0 in silence.

    The mean of the frequencies, weighted by magnitude: how bright it sounds.
    """
    return _plan("centroid", rate, n_fft, hop, _centroid)


@feature
def bandwidth(rate: int, *, n_fft: int = 1024, hop: int = 256) -> Plan[Array]:
    """Return how wide the spectrum is, in Hz: float32 ``(1 + frames // hop,)``; 0 in silence.

    The standard deviation of the frequencies around the centroid, weighted by magnitude.
    """

    def of(windows: Windows) -> Any:
        share, _ = _shares(windows)
        away = _hz(windows)[None, :] - _centroid(windows)[:, None]
        return np.sqrt(np.einsum("wf,wf->w", share, away**2))

    return _plan("bandwidth", rate, n_fft, hop, of)


@feature
def rolloff(rate: int, *, share: float = 0.85, n_fft: int = 1024, hop: int = 256) -> Plan[Array]:
    """Return below which frequency `share` of the magnitude lies, in Hz: float32 ``(1 + frames // hop,)``.

    0 in silence.
    """
    refuse_wrong(between("share", share, 0.0, 1.0))

    def of(windows: Windows) -> Any:
        shares, heard = _shares(windows)
        reached = (np.cumsum(shares, axis=1) >= share - 1e-12).argmax(axis=1)
        return np.where(heard, _hz(windows)[reached], 0.0)

    return _plan("rolloff", rate, n_fft, hop, of)


@feature
def flatness(rate: int, *, n_fft: int = 1024, hop: int = 256) -> Plan[Array]:
    """Return how flat the spectrum is: float32 ``(1 + frames // hop,)``, about 0.56 for noise, 0 for a tone.

    The geometric mean of the power beside its mean, at most 1. Silence counts as flat, as librosa has it.
    """

    def of(windows: Windows) -> Any:
        power = np.maximum(windows.power, _LEAST)
        return np.exp(np.log(power).mean(axis=1)) / power.mean(axis=1)

    return _plan("flatness", rate, n_fft, hop, of)


@feature
def zero_crossings(rate: int, *, length: int = 1024, hop: int = 256) -> Plan[Array]:
    """Return the share of neighbours in a window that differ in sign: float32 ``(1 + frames // hop,)``.

    A tone of f Hz has 2 f / rate; zeros count as positive.
    """

    def of(windows: Windows) -> Any:
        # Crossings are counted once for the stretch: windows of it differ by sums.
        crossed = np.diff(np.signbit(windows.stretch)) != 0
        upto = np.concatenate([[0], np.cumsum(crossed)])
        starts = np.arange(len(windows.samples)) * windows.hop
        return (upto[starts + windows.length - 1] - upto[starts]) / windows.length

    return _plan("zero_crossings", rate, length, hop, of, name="length")


@feature
def rms(rate: int, *, length: int = 1024, hop: int = 256) -> Plan[Array]:
    """Return the root of the mean square in each window: float32 ``(1 + frames // hop,)``.

    A sine of full scale has 0.707, -3.01 dB.
    """

    def of(windows: Windows) -> Any:
        samples = windows.samples.astype(np.float64)
        return np.sqrt(np.einsum("wn,wn->w", samples, samples) / windows.length)

    return _plan("rms", rate, length, hop, of, name="length")


def _plan(what: str, rate: int, length: int, hop: int, of: _Of, *, name: str = "n_fft") -> Plan[Array]:
    refuse_wrong(numbers((name, length, 2), ("hop", hop, 1)))
    need = Need(f"{what} with {name}={length}", min_seconds=length / rate)
    return Plan(need, length, hop, lambda windows: of(windows).astype(np.float32))


def _hz(windows: Windows) -> npt.NDArray[Any]:
    return np.fft.rfftfreq(windows.length, 1 / windows.rate)


def _shares(windows: Windows) -> tuple[Exact, npt.NDArray[np.bool_]]:
    """Return which share of the magnitude each frequency has, and in which windows there is any."""

    def make() -> tuple[Exact, npt.NDArray[np.bool_]]:
        total = windows.magnitude.sum(axis=1)
        heard = windows.power.max(axis=1) > _LEAST
        shares: Exact = windows.magnitude / np.where(heard, total, np.inf)[:, None]
        return shares, heard

    return windows.once("shares", make)


def _centroid(windows: Windows) -> Exact:
    return windows.once("centroid", lambda: _shares(windows)[0] @ _hz(windows))
