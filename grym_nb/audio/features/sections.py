"""The sections of a song: where it becomes another one, and which are alike."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import log2
from typing import TYPE_CHECKING, Any

import numpy as np

from grym_nb.audio.features.bands import mel_bands
from grym_nb.audio.features.given import between, refuse_wrong
from grym_nb.audio.features.tones import notes
from grym_nb.audio.features.windows import Need, Plan, Whole, Windows, feature

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float32]
    Exact = npt.NDArray[np.float64]

__all__ = ["Segment", "segments"]

_STEP_S = 0.5  # of the course that is compared with itself
_FINE = 5  # windows a step
_WIDTH = 0.35  # how far apart what is alike may be
_NEWER = 0.15  # the least that a border stands out by; 1 is the most there can be
_ALIKE = 0.25  # how far apart sections of one letter may be in the mean


@dataclass(frozen=True, slots=True)
class Segment:
    """A section of a song: `start` and `end` in seconds, and a letter that is the same for what is alike."""

    start: float
    end: float
    label: str


@feature
def segments(rate: int, *, least_s: float = 4.0) -> Plan[list[Segment]]:
    """Return the sections of a song, one after the other, as `Segment`; one of them where nothing changes.

    A border is where notes and timbre before it are like one another, those after it too, and those on
    either side unlike (Foote's novelty, over 4 s each way); borders are `least_s` apart, and right to half a
    second. Sections that sound alike in the mean have the same letter.
    """
    refuse_wrong(between("least_s", least_s, 2.0, 600.0))
    if rate < 4000:
        return Plan(Need("segments", min_rate=4000), 2, rate, lambda windows: windows.samples.T)
    hop = round(_STEP_S / _FINE * rate)
    length = 1 << round(log2(0.2 * rate))
    bands = mel_bands(rate, 40, length, hop, 0.0, min(8000.0, rate / 2)) * (4 / length) ** 2
    chords = notes(rate, length, 440.0) * (4 / length) ** 2
    cosines = np.cos(np.pi * np.arange(1, 13)[:, None] * (np.arange(40) + 0.5) / 40) * np.sqrt(2 / 40)

    def of(windows: Windows) -> Array:
        strength = np.sqrt(chords @ windows.power.T)
        strength /= np.sqrt((strength**2).sum(axis=0)) + 1e-5
        timbre = cosines @ (10 * np.log10(np.maximum(bands @ windows.power.T, 1e-8)))
        return np.concatenate([strength, timbre / 100]).astype(np.float32)

    need = Need("segments", min_seconds=2 * least_s, min_rate=4000)
    return Plan(need, length, hop, of, lambda made, whole: _sections(made, whole, least_s))


def _sections(made: npt.NDArray[Any], whole: Whole, least_s: float) -> list[Segment]:
    steps = max(1, made.shape[1] // _FINE)
    course = made[:, : steps * _FINE].reshape(len(made), steps, _FINE).mean(axis=2, dtype=np.float64).T
    borders = [0, *_borders(_novelty(course), max(1, round(least_s / _STEP_S))), steps]
    labels = _labels([course[a:b].mean(axis=0) for a, b in pairwise(borders)])
    times = [border * _STEP_S for border in borders[:-1]] + [whole.seconds]
    return [
        Segment(start, end, label) for start, end, label in zip(times[:-1], times[1:], labels, strict=True)
    ]


def _novelty(course: Exact) -> Exact:
    """Return how much a border each step is, about 0 to 1: likeness within both sides, less that across."""
    half = round(4.0 / _STEP_S)
    steps = len(course)
    novelty = np.zeros(steps)
    near = np.exp(-0.5 * ((np.arange(-half, half) + 0.5) / (half / 2)) ** 2)
    weights = np.outer(near, near)
    for at in range(2, steps - 1):
        low, high = max(0, at - half), min(steps, at + half)
        some = course[low:high]
        apart = ((some[:, None] - some[None, :]) ** 2).sum(axis=2)
        alike = np.exp(-apart / (2 * _WIDTH**2))
        part = weights[low - at + half : high - at + half, low - at + half : high - at + half]
        before = np.arange(low, high) < at
        across = before[:, None] != before[None, :]
        novelty[at] = np.average(alike[~across], weights=part[~across]) - np.average(
            alike[across], weights=part[across]
        )
    return novelty


def _borders(novelty: Exact, least: int) -> list[int]:
    """Return the steps that are most of a border, the greatest first, all at least so many apart."""
    found: list[int] = []
    for at in np.argsort(-novelty, kind="stable"):
        if novelty[at] < _NEWER:
            break
        apart = all(abs(int(at) - other) >= least for other in found)
        if apart and least <= at <= len(novelty) - least:
            found.append(int(at))
    return sorted(found)


def _labels(means: list[Exact]) -> list[str]:
    """Return a letter for each: that of the nearest before it, if it is near enough."""
    labels: list[int] = []
    for at, mean in enumerate(means):
        away = [float(np.sqrt(((mean - other) ** 2).sum())) for other in means[:at]]
        near = int(np.argmin(away)) if away else 0
        labels.append(labels[near] if away and away[near] < _ALIKE else len(set(labels)))
    return [_letters(label) for label in labels]


def _letters(number: int) -> str:
    """Return A to Z, AA, AB, and so on."""
    rest, last = divmod(number, 26)
    return (_letters(rest - 1) if rest else "") + chr(ord("A") + last)
