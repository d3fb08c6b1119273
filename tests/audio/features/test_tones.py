"""Notes: tones, chords and librosa's constant-Q spectrum."""

from __future__ import annotations

import numpy as np
import pytest

from grym_nb.audio import synth
from grym_nb.audio.features import chroma, cqt
from grym_nb.clip import Clip
from grym_nb.errors import ValidationError

NAMES = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"]


def note(steps: float) -> float:
    """The frequency in Hz so many semitones above C1."""
    return 440.0 * 2.0 ** ((steps - 45) / 12)


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("hop", [512, 441])
def test_a_tone_reads_its_amplitude_at_its_own_row(rate: int, hop: int) -> None:
    """To 0.1 % wherever it is, whatever the rate, and whether or not the hop can be halved."""
    for steps in (7, 24, 45, 66):
        spectrum = cqt(synth.tone(note(steps), seconds=2.5, rate=rate, level_db=-20), bins=72, hop=hop)
        middle = spectrum[:, spectrum.shape[1] // 2]
        assert middle.argmax() == steps
        assert middle[steps] == pytest.approx(0.1, rel=1e-3)
        away = np.delete(middle, slice(max(0, steps - 2), steps + 3))
        assert away.max() < 0.1 * 10 ** (-30 / 20)


def test_a_constant_q_spectrum_is_as_its_definition_says() -> None:
    """Every window of every row, of noise: the sum over turning Hann curves, in full at the full rate."""
    rate, hop = 8000, 256
    noise = synth.noise(seconds=2, rate=rate)
    found = cqt(noise, bins=60, hop=hop)
    quality = (2 ** (1 / 6) + 1) / (2 ** (1 / 6) - 1)
    for row in (0, 13, 30, 47, 59):
        half = quality * rate / note(row) / 2
        reach = int(half)
        times = np.arange(-reach, reach + 1)
        hann = np.cos(np.pi * times / (2 * half)) ** 2
        curve = 2 * hann / hann.sum() * np.exp(2j * np.pi * note(row) / rate * times)
        padded = np.pad(noise.samples.astype(float), reach)
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)[::hop]
        np.testing.assert_allclose(found[row], np.abs(windows @ curve), atol=1e-4 * found.max())


@pytest.mark.slow
def test_the_constant_q_spectrum_is_librosas() -> None:
    """But for its scale, which there grows with the length of the windows: a chord, from window to window."""
    import librosa

    chord = synth.chord([note(24), note(40), note(55)], seconds=3, rate=22_050)
    theirs = np.abs(librosa.cqt(chord.samples, sr=22_050, hop_length=512, scale=False))
    found = cqt(chord)
    assert found.shape == theirs.shape
    inner = slice(40, -40)
    for row in (24, 40, 55):
        ratio = found[row, inner] / theirs[row, inner]
        assert np.ptp(ratio) < 0.02 * ratio.mean()


def test_decibels_are_of_the_amplitude() -> None:
    """A full-scale sine is at 0 dB, silence at -100."""
    assert cqt(synth.tone(440, seconds=2, level_db=-6), bins=60, db=True)[45, 60] == pytest.approx(
        -6, abs=0.02
    )
    assert (cqt(Clip(np.zeros(16_000), 16_000), bins=60, db=True) == -100).all()


@pytest.mark.parametrize("method", ["stft", "cqt"])
@pytest.mark.parametrize("rate", [8000, 22_050, 44_100])
def test_each_note_is_the_strongest_in_its_own_row(method: str, rate: int) -> None:
    """In three octaves, and at most half as strong in any other row."""
    for steps in range(36, 72, 5):
        found = chroma(synth.tone(note(steps), seconds=1.5, rate=rate), method=method)
        middle = found[:, found.shape[1] // 2]
        assert (found.shape[0], middle[steps % 12]) == (12, 1)
        assert np.delete(middle, steps % 12).max() < 0.5


@pytest.mark.parametrize("method", ["stft", "cqt"])
@pytest.mark.parametrize(
    ("hz", "notes"),
    [
        ((261.63, 329.63, 392.0), "C E G"),
        ((220.0, 261.63, 329.63), "A C E"),
        ((293.66, 369.99, 440.0, 523.25), "D F# A C"),
    ],
)
def test_the_notes_of_a_chord_stand_out(method: str, hz: tuple[float, ...], notes: str) -> None:
    """They and no others are above a half."""
    found = chroma(synth.chord(hz, seconds=2), method=method)
    middle = found[:, found.shape[1] // 2]
    assert {name for name, value in zip(NAMES, middle, strict=True) if value > 0.5} == set(notes.split())


@pytest.mark.parametrize("method", ["stft", "cqt"])
def test_silence_has_no_notes_and_the_level_does_not_matter(method: str) -> None:
    """Zeros; and the same notes 40 dB lower."""
    assert not chroma(Clip(np.zeros(16_000), 16_000), method=method).any()
    loud, quiet = (chroma(synth.chord(level_db=level), method=method) for level in (0, -40))
    np.testing.assert_allclose(loud[:, 3:-3], quiet[:, 3:-3], atol=1e-4)


def test_another_concert_pitch_moves_the_notes() -> None:
    """A4 of 415 Hz is a G sharp at 440."""
    tone = synth.tone(415.3, seconds=1)
    assert chroma(tone)[:, 8].argmax() == 8
    assert chroma(tone, tuning_hz=415.3)[:, 8].argmax() == 9


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"method": "cens", "hop": 0}, "method: found 'cens', expected one of 'stft', 'cqt'; hop: found 0"),
        ({"n_fft": 3}, "n_fft: found 3, expected a whole number from 64"),
        ({"tuning_hz": 0}, "tuning_hz: found 0, expected a number from 220 to 880"),
    ],
)
def test_chroma_names_what_does_not_fit(parameters: dict[str, object], says: str) -> None:
    """All at once."""
    with pytest.raises(ValidationError, match=says):
        chroma(synth.tone(), **parameters)


def test_rows_beyond_half_the_rate_are_refused_with_how_many_fit() -> None:
    """They would be constants."""
    with pytest.raises(
        ValidationError, match=r"bins: found 84, up to 3951 Hz, expected at most \d\d at 8000 Hz"
    ):
        cqt(synth.tone(rate=8000))
    with pytest.raises(ValidationError, match=r"bins: found 0.*; hop: found 0.*; fmin: found 0"):
        cqt(synth.tone(), bins=0, hop=0, fmin=0)
