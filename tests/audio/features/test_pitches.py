"""How high: tones, glides, harmonics, noise and silence, by both methods."""

from __future__ import annotations

import numpy as np
import pytest

from grym_nb.audio import synth
from grym_nb.audio.features import Pitch, pitch
from grym_nb.clip import Clip
from grym_nb.errors import AudioError, ValidationError

METHODS = pytest.mark.parametrize("method", ["yin", "pyin"])


def cents(found: Pitch, hz: float | np.ndarray) -> np.ndarray:
    """How far from `hz` each inner window is, in hundredths of a semitone; NaN where not voiced."""
    away: np.ndarray = np.abs(1200 * np.log2(found.hz / hz))[6:-6]
    return away


def glide(low: float, high: float, seconds: float = 2.0, rate: int = 16_000) -> tuple[Clip, np.ndarray]:
    """A tone that glides evenly in octaves, and its frequency at each sample."""
    hz = low * (high / low) ** (np.arange(round(seconds * rate)) / (seconds * rate))
    return Clip(0.5 * np.sin(2 * np.pi * np.cumsum(hz) / rate), rate), hz


def voice(hz: float, rate: int = 16_000, seconds: float = 1.0) -> Clip:
    """Harmonics of which the first is weak."""
    times = np.arange(round(seconds * rate)) / rate
    strengths = (0.1, 0.5, 0.4, 0.3, 0.2, 0.1)
    harmonics = [s * np.sin(2 * np.pi * hz * (k + 1) * times) for k, s in enumerate(strengths)]
    return Clip(0.5 * sum(harmonics), rate)


@METHODS
@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
@pytest.mark.parametrize("hz", [75.0, 110.0, 220.0, 440.0, 600.0, 930.0])
def test_a_tone_is_as_high_as_it_is(method: str, rate: int, hz: float) -> None:
    """Within 10 cents, the twentieth of what a musician hears as out of tune; every window is voiced."""
    found = pitch(synth.tone(hz, seconds=0.7, rate=rate), method=method)
    assert found.voiced[6:-6].all()
    assert cents(found, hz).max() < 10


@METHODS
@pytest.mark.parametrize("hz", [80.0, 131.0, 300.0])
def test_the_pitch_is_the_first_harmonic_although_it_is_weak(method: str, hz: float) -> None:
    """Within 10 cents; no octave errors."""
    assert cents(pitch(voice(hz), method=method), hz).max() < 10


@METHODS
def test_a_glide_is_followed(method: str) -> None:
    """Over two octaves in two seconds: within 30 cents at any time."""
    clip, hz = glide(110, 440)
    found = pitch(clip, method=method)
    at = np.minimum(np.round(found.times * clip.rate).astype(int), len(hz) - 1)
    assert cents(found, hz[at]).max() < 30


@METHODS
def test_a_tone_in_noise_is_found(method: str) -> None:
    """12 dB above white noise: most within 25 cents, all within a semitone."""
    clip = synth.tone(220, seconds=1)
    found = pitch(Clip(clip.samples + synth.noise(level_db=-16).samples, clip.rate), method=method)
    away = cents(found, 220)
    assert np.nanquantile(away, 0.9) < 25 and np.nanmax(away) < 100
    assert found.voiced[6:-6].mean() > 0.95


@METHODS
def test_noise_and_silence_have_no_pitch(method: str) -> None:
    """Not voiced, and NaN; what is silent between tones is so, too."""
    for nothing in (synth.noise(), Clip(np.zeros(16_000), 16_000)):
        found = pitch(nothing, method=method)
        assert found.voiced.mean() < 0.02 and np.isnan(found.hz[~found.voiced]).all()
    tone = synth.tone(200, seconds=0.5).samples
    found = pitch(Clip(np.concatenate([tone, np.zeros(8000), tone]), 16_000), method=method)
    inside = (found.times > 0.56) & (found.times < 0.94)
    assert not found.voiced[inside].any() and found.voiced[found.times < 0.45][3:].all()


def test_the_course_is_steadier_than_its_windows() -> None:
    """Bursts of noise as loud as the voice, 15 ms each: pyin goes on through them, yin loses it."""
    sound = voice(150, seconds=3).samples.copy()
    noise = synth.noise(seconds=3, level_db=-9).samples
    for at in range(3000, 45_000, 4800):
        sound[at : at + 240] += noise[at : at + 240]
    yin, pyin = (pitch(Clip(sound, 16_000), method=method) for method in ("yin", "pyin"))

    def lost(found: Pitch) -> float:
        away = cents(found, 150)
        return float(np.mean(~(away < 100)))

    assert lost(pyin) < 0.01 < 0.03 < lost(yin)


def test_times_are_those_of_the_windows_and_the_repr_is_a_line() -> None:
    """The centre of each, every `hop` samples."""
    found = pitch(synth.tone(220, seconds=1), hop=160)
    np.testing.assert_allclose(found.times, np.arange(101) / 100, atol=1e-12)
    assert repr(found).endswith("voiced, median 220.0 Hz)")
    assert repr(pitch(Clip(np.zeros(16_000), 16_000))) == "Pitch(63 windows, none voiced)"


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"method": "crepe"}, "method: found 'crepe', expected one of 'yin', 'pyin'"),
        ({"fmin": 2000.0}, "fmin: found 2000.0, expected a number from 10 to 2000|fmax: found 1000.0"),
        ({"fmin": 600.0}, "fmax: found 1000.0, expected a number from 1200"),
        ({"fmax": 5000.0}, r"fmax: found 5000.0, expected a number from 130 \(2 fmin\) to 4000"),
        ({"threshold": 0, "hop": 0}, "hop: found 0.*; threshold: found 0"),
    ],
)
def test_pitch_names_what_does_not_fit(parameters: dict[str, object], says: str) -> None:
    """All at once."""
    with pytest.raises(ValidationError, match=says):
        pitch(synth.tone(), **parameters)


def test_a_clip_shorter_than_its_windows_is_refused() -> None:
    """Three periods of the lowest."""
    with pytest.raises(AudioError, match=r"pitch from 65 Hz cannot use(?s:.*)expected at least 46"):
        pitch(synth.tone(seconds=0.04))
