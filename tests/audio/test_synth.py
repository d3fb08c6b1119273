"""Sounds made from numbers: as long, as loud and as high as asked for, and the same every time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from grym_nb.audio import synth
from grym_nb.clip import Clip

SOUNDS = [synth.tone, synth.chord, synth.noise, synth.beats]


@pytest.mark.parametrize("sound", SOUNDS)
@pytest.mark.parametrize("seconds", [0.0, 0.01, 1.5])
def test_length_rate_and_peak_are_as_asked(sound: Callable[..., Clip], seconds: float) -> None:
    """The level is the peak in dBFS; nothing goes beyond it."""
    clip = sound(seconds=seconds, rate=22_050, level_db=-20)
    assert (clip.frames, clip.rate, clip.channels) == (round(seconds * 22_050), 22_050, 1)
    if seconds:
        assert np.abs(clip.samples).max() == pytest.approx(0.1, rel=0.01)


@pytest.mark.parametrize("sound", SOUNDS)
def test_the_same_arguments_make_the_same_clip(sound: Callable[..., Clip]) -> None:
    """So that demos show and tests check the same thing everywhere."""
    assert sound() == sound()


def test_noise_differs_by_seed_and_has_no_tone_in_it() -> None:
    """White: every eighth of the band holds an eighth of the power."""
    assert synth.noise(seed=1) != synth.noise(seed=2)
    power = np.abs(np.fft.rfft(synth.noise(seconds=4).samples)) ** 2
    parts = [part.sum() / power.sum() for part in np.array_split(power, 8)]
    assert parts == pytest.approx([1 / 8] * 8, rel=0.1)


def test_a_chord_holds_its_tones_and_nothing_else() -> None:
    """Equally loud."""
    spectrum = np.abs(np.fft.rfft(synth.chord((300, 500, 900)).samples))
    assert sorted(np.argsort(spectrum)[-3:].tolist()) == [300, 500, 900]
    assert spectrum[[300, 500]] == pytest.approx(spectrum[[900, 900]], rel=0.01)


def test_beats_fall_where_the_tempo_says() -> None:
    """The first at 0 s; between them it is quiet."""
    clip = synth.beats(150, seconds=4)
    loud = np.flatnonzero(np.abs(clip.samples) > 0.1) / clip.rate
    starts = loud[np.diff(loud, prepend=-1) > 0.1]
    assert starts == pytest.approx(np.arange(10) * 0.4, abs=0.001)
    assert np.abs(clip.cut(0.2, 0.4).samples).max() < 1e-6
