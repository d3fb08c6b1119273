"""A chord and a metronome, together and taken apart."""

from __future__ import annotations

import numpy as np
import pytest

from grym_nb.audio import synth
from grym_nb.audio.features import hpss
from grym_nb.clip import Clip
from grym_nb.errors import ValidationError


def above(found: Clip, truth: np.ndarray) -> float:
    """By how many dB the truth is above what is wrong with it."""
    return float(10 * np.log10(np.sum(truth**2) / np.sum((found.samples - truth) ** 2)))


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_what_sounds_on_and_what_strikes_are_told_apart(rate: int) -> None:
    """Each with less than a tenth of the power of what is wrong with it; together they are the whole."""
    chord = synth.chord(seconds=4, rate=rate, level_db=-12).samples
    clicks = synth.beats(240, seconds=4, rate=rate, level_db=-14).samples
    whole = Clip(chord + clicks, rate)
    layers = hpss(whole)
    assert above(layers.harmonic, chord) > 20
    assert above(layers.percussive, clicks) > 10
    np.testing.assert_allclose(layers.harmonic.samples + layers.percussive.samples, whole.samples, atol=1e-6)


@pytest.mark.slow
def test_the_layers_are_librosas() -> None:
    """Of noise and a chord, to 1 % of the power: the same medians and the same shares."""
    import librosa

    clip = Clip(synth.chord(seconds=3).samples + synth.noise(seconds=3, level_db=-20).samples, 16_000)
    theirs, _ = librosa.effects.hpss(clip.samples)
    assert above(hpss(clip).harmonic, theirs) > 20


def test_silence_and_length_are_kept() -> None:
    """Also where the last window is not whole."""
    layers = hpss(Clip(np.zeros(5001), 16_000))
    assert layers.harmonic.frames == layers.percussive.frames == 5001
    assert not layers.harmonic.samples.any()


def test_windows_that_would_lose_sound_are_refused() -> None:
    """All that does not fit is named."""
    with pytest.raises(ValidationError, match=r"n_fft: found 3.*; hop: found 0.*; kernel: found 1"):
        hpss(synth.tone(), n_fft=3, hop=0, kernel=1)
    with pytest.raises(ValidationError, match=r"hop: found 2048, expected at most half of n_fft \(1024\)"):
        hpss(synth.tone(), hop=2048)
    with pytest.raises(ValidationError, match="kernel: found 30, expected an odd number"):
        hpss(synth.tone(), kernel=30)
