"""The sounds that the model `sounds` makes: ten kinds of noise, the words that ask for them, and a judge.

All of it is noise that is shaped in time and in frequency, so that no kind rests on one pure tone. The judge
measures what a sound does (its centre, how the centre and the level move, how often it sets in) and knows
nothing of the model: it is what the model's score is counted by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from grym_nb.errors import Problem, ValidationError
from grym_nb.render import brief

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

__all__ = ["FEATURES", "KINDS", "RATE", "SAMPLES", "Wording", "features", "judged", "make", "wordings"]

#: In Hz.
RATE = 16_000
#: Of each sound: 2.56 seconds.
SAMPLES = 40_960
#: What can be made, in the order of their numbers.
KINDS = ("rumble", "hiss", "wind", "rain", "slow pulses", "fast pulses", "rise", "fall", "burst", "swell")
#: What is measured, in the order of `features`.
FEATURES = ("centroid", "slope", "swing", "spread", "onsets", "regularity", "depth", "trend")

_SECONDS = SAMPLES / RATE
_WINDOW, _HOP = 512, 128
_FLOOR_DB = (-66.0, -56.0)  # of the noise that lies under every sound
_SILENT = 0.5  # power of a window at about -50 dBFS: a sound that is never louder is none


def make(kind: str, seed: int) -> npt.NDArray[np.float32]:
    """Return a sound of `kind`, float32 ``(SAMPLES,)`` in -1..1: the same for the same `seed`."""
    _refuse_others("kind", kind, KINDS)
    rng = np.random.default_rng((KINDS.index(kind), seed))
    times = np.arange(SAMPLES) / RATE
    centre, width = _band(kind, rng)
    sound = _noise(rng, centre, width) * _envelope(kind, rng, times)
    sound *= 10 ** (rng.uniform(-9, -3) / 20) / np.abs(sound).max()
    floor = 10 ** (rng.uniform(*_FLOOR_DB) / 20) * rng.standard_normal(SAMPLES)
    return np.clip(sound + floor, -1, 1).astype(np.float32)


def _band(kind: str, rng: np.random.Generator) -> tuple[Array, float]:
    """Return the centre of the noise in Hz per frame, and its width in octaves (one standard deviation)."""
    frames = np.linspace(0, 1, 1 + SAMPLES // _HOP)
    low, high, width = {
        "rumble": (70, 160, 0.5),
        "hiss": (5000, 6500, 0.35),
        "wind": (450, 800, 0.6),
        "rain": (2500, 4000, 1.0),
        "slow pulses": (900, 1800, 0.7),
        "fast pulses": (900, 1800, 0.7),
        "rise": (250, 400, 0.4),
        "fall": (250, 400, 0.4),
        "burst": (900, 1800, 1.2),
        "swell": (900, 1800, 1.2),
    }[kind]
    start = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    if kind not in ("rise", "fall"):
        return np.full_like(frames, start), width * rng.uniform(0.85, 1.15)
    up = start * (rng.uniform(3500, 5500) / start) ** frames
    return up if kind == "rise" else up[::-1].copy(), width * rng.uniform(0.85, 1.15)


def _envelope(kind: str, rng: np.random.Generator, times: Array) -> Array:
    if kind == "wind":
        swells = rng.uniform(0.7, 1.1)  # Hz
        return 0.06 + 0.94 * np.sin(np.pi * (swells * times + rng.uniform())) ** 2
    if kind == "rain":
        drops = np.cumsum(rng.uniform(0.03, 0.14, 90))
        loud = rng.uniform(0.4, 1.0, len(drops))
        return 0.03 + _struck(times, drops, loud, dies=rng.uniform(0.006, 0.012))
    if kind in ("slow pulses", "fast pulses"):
        rate = rng.uniform(1.8, 2.6) if kind == "slow pulses" else rng.uniform(6.5, 8.5)
        phase = (times * rate + rng.uniform()) % 1
        edge = 0.008 * rate  # 8 ms, so that it does not click
        return np.clip(np.minimum(phase, rng.uniform(0.4, 0.5) - phase) / edge, 0, 1)
    if kind == "burst":
        return np.exp(-np.maximum(0, times - 0.05) / rng.uniform(0.3, 0.5)) * np.clip(times / 0.05, 0, 1)
    if kind == "swell":
        return np.exp((times - _SECONDS) / rng.uniform(0.5, 0.7))
    return np.ones_like(times)


def _struck(times: Array, at: Array, loud: Array, *, dies: float) -> Array:
    """Return the sum of blows that each die away within `dies` seconds."""
    latest = np.searchsorted(at, times, side="right") - 1
    since = times - at[np.maximum(latest, 0)]
    return np.where(latest < 0, 0.0, loud[np.maximum(latest, 0)] * np.exp(-np.maximum(since, 0) / dies))


def _noise(rng: np.random.Generator, centre: Array, width: float) -> Array:
    """Return noise whose band lies at `centre`, and moves with it."""
    white = rng.standard_normal(SAMPLES + _WINDOW)
    window = np.sin(np.pi * (np.arange(_WINDOW) + 0.5) / _WINDOW)
    frames = np.lib.stride_tricks.sliding_window_view(white, _WINDOW)[::_HOP]
    hz = np.maximum(np.fft.rfftfreq(_WINDOW, 1 / RATE), 15.0)
    centre = centre[: len(frames), None]
    # A band of so many octaves is the wider in Hz the higher it lies: as loud wherever it is.
    gain = np.exp(-0.5 * (np.log2(hz / centre) / width) ** 2) / np.sqrt(centre)
    shaped = np.fft.irfft(np.fft.rfft(frames * window) * gain) * window
    sound = np.zeros(SAMPLES + _WINDOW)
    for index, frame in enumerate(shaped):
        sound[index * _HOP : index * _HOP + _WINDOW] += frame
    return sound[_WINDOW // 2 : _WINDOW // 2 + SAMPLES]


def features(sound: npt.NDArray[np.floating[Any]]) -> Array:
    """Return what `FEATURES` names of a sound ``(samples,)`` at `RATE`, float64 ``(8,)``; NaN for silence.

    Centroid in octaves above 100 Hz; slope (from the beginning to the end) and swing (standard deviation) of
    the centroid while the sound is within 20 dB of its loudest, and spread, in octaves; onsets, the square
    root of their count; regularity, the height of the envelope's autocorrelation beyond its first zero;
    depth, the share of the time that the level is 10 dB and more below its peak; trend of the level in dB.
    """
    power = _power(np.asarray(sound, np.float64))
    level = power.sum(axis=1)
    if not level.size or not np.isfinite(level).all() or level.max() < _SILENT:
        return np.full(len(FEATURES), np.nan)
    octaves = np.log2(np.maximum(np.fft.rfftfreq(_WINDOW, 1 / RATE), 15.0) / 100)
    heard = level > 0.01 * level.max()  # within 20 dB of the loudest
    centres = power @ octaves / np.maximum(level, 1e-20)
    mean = power.sum(axis=0) / level.sum()
    centroid = float(mean @ octaves)
    spread = float(np.sqrt(mean @ (octaves - centroid) ** 2))
    place = np.linspace(-0.5, 0.5, len(level))[heard]
    slope = _slope(place, centres[heard])
    swing = float(np.std(centres[heard]))
    decibels = 10 * np.log10(np.maximum(level, 1e-4 * level.max()) / level.max())
    depth = float(np.mean(decibels < -10))
    trend = _slope(np.linspace(-0.5, 0.5, len(level)), decibels)
    onsets, regularity = _beats(decibels)
    return np.array([centroid, slope, swing, spread, onsets, regularity, depth, trend])


def _power(sound: Array) -> Array:
    """Return the power spectrum, ``(frames, bins)``, of Hann windows of 32 ms every 8 ms."""
    if len(sound) < _WINDOW:
        return np.zeros((0, 1 + _WINDOW // 2))
    frames = np.lib.stride_tricks.sliding_window_view(sound, _WINDOW)[::_HOP]
    spectrum = np.fft.rfft(frames * np.hanning(_WINDOW))
    return spectrum.real**2 + spectrum.imag**2


def _slope(places: Array, values: Array) -> float:
    centred = places - places.mean()
    total = float(centred @ centred)
    return float(centred @ values / total) if total > 1e-6 else 0.0


def _beats(decibels: Array) -> tuple[float, float]:
    """Return the square root of the count of onsets, and how regular they are in 0..1."""
    smooth = np.convolve(np.maximum(decibels, -24), np.ones(3) / 3, mode="valid")
    rises = smooth[6:] - smooth[:-6]  # within 48 ms
    up = rises > 7
    onsets = int(np.count_nonzero(up[1:] & ~up[:-1]))
    moved = smooth - smooth.mean()
    total = float(moved @ moved)
    if total / len(moved) < 4:  # less than 2 dB: steady
        return float(np.sqrt(onsets)), 0.0
    heights = np.correlate(moved, moved, mode="full")[len(moved) - 1 :] / total
    first = int(np.argmax(heights < 0)) if (heights < 0).any() else len(heights) - 1
    later = heights[first : len(heights) * 2 // 3] / (
        1 - np.arange(first, len(heights) * 2 // 3) / len(heights)
    )
    return float(np.sqrt(onsets)), float(max(0.0, later.max(initial=0.0)))


@cache
def _centres() -> tuple[Array, Array]:
    """Return the mean features of each kind and the scale of each feature, from sounds of seeds 0-39."""
    drawn = np.array([[features(make(kind, seed)) for seed in range(40)] for kind in KINDS])
    return drawn.mean(axis=1), drawn.std(axis=(0, 1))


def judged(sound: npt.NDArray[np.floating[Any]]) -> str | None:
    """Return the kind whose features are nearest, in standard deviations of each; None for silence."""
    measured = features(sound)
    if not np.isfinite(measured).all():
        return None
    centres, scale = _centres()
    away = (((measured - centres) / scale) ** 2).sum(axis=1)
    return KINDS[int(away.argmin())]


@dataclass(frozen=True)
class Wording:
    """A prompt, and the kind of sound that it asks for."""

    prompt: str
    kind: str


_SAID: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = MappingProxyType(
    {
        "rumble": (("low", "deep", "dark", "heavy"), ("rumble", "thunder", "growl", "drone")),
        "hiss": (("high", "bright", "sharp", "thin"), ("hiss", "static", "steam", "spray")),
        "wind": (("gusty", "swaying", "breathing", "moaning"), ("wind", "breeze", "gale", "air")),
        "rain": (("pattering", "dripping", "crackling", "sprinkling"), ("rain", "drops", "hail", "drizzle")),
        "slow pulses": (("slow", "lazy", "calm", "unhurried"), ("pulses", "beats", "knocks", "puffs")),
        "fast pulses": (("fast", "rapid", "quick", "hurried"), ("pulses", "beats", "knocks", "puffs")),
        "rise": (("rising", "climbing", "ascending", "upward"), ("sweep", "whoosh", "glide", "noise")),
        "fall": (("falling", "sinking", "descending", "downward"), ("sweep", "whoosh", "glide", "noise")),
        "burst": (("dying", "fading", "decaying", "vanishing"), ("burst", "crash", "blast", "bang")),
        "swell": (("growing", "swelling", "building", "approaching"), ("roar", "rush", "surge", "wave")),
    }
)
_FRAMES = (
    "{a} {n}",
    "the sound of {a} {n}",
    "a recording of {a} {n}",
    "{n} that is {a}",
    "play some {a} {n}",
)


@cache
def wordings(part: str) -> tuple[Wording, ...]:
    """Return 120 wordings, twelve for each kind: of the `part` "taught", or of "unseen".

    An unseen one says with words that were all taught for its kind what was not taught in that combination.
    """
    _refuse_others("part", part, ("taught", "unseen"))
    return tuple(Wording(prompt, kind) for kind in KINDS for prompt in _split(kind)[part == "unseen"])


def _refuse_others(name: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise ValidationError(
            f"{name} is {brief(given)}, which is not known here",
            problems=[Problem(name, brief(given), f"one of: {', '.join(known)}")],
        )


def _split(kind: str) -> tuple[list[str], list[str]]:
    # Adjective i goes with noun j; the pairs on three diagonals are taught, the fourth is never heard.
    adjectives, nouns = _SAID[kind]
    taught, unseen = [], []
    for i, adjective in enumerate(adjectives):
        for j, noun in enumerate(nouns):
            apart = (j - i) % 4
            frames = _FRAMES[(i + j) % 5], _FRAMES[(i + j + 2) % 5], _FRAMES[(i + j + 4) % 5]
            if apart < 3:
                taught.append(frames[0].format(a=adjective, n=noun))
            else:
                unseen += [frame.format(a=adjective, n=noun) for frame in frames]
    return taught, unseen
