"""Mel and MFCC: librosa's own figures, and what has none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from grym_nb.audio import synth
from grym_nb.audio.features import mel, mfcc
from grym_nb.clip import Clip
from grym_nb.errors import AudioError, ValidationError

PARAMETERS = [
    {},
    {"n_mels": 40, "n_fft": 512, "hop": 160},
    {"n_mels": 80, "n_fft": 400, "hop": 160},
    {"n_mels": 32, "n_fft": 2048, "hop": 2048, "fmin": 50.0, "fmax": 4000.0},
    {"n_mels": 20, "n_fft": 1023, "hop": 300},
    {"n_mels": 1, "n_fft": 256, "hop": 1},
]


@pytest.mark.slow  # librosa compiles for ten seconds when it is first called
@pytest.mark.parametrize("parameters", PARAMETERS)
def test_mel_is_librosas(parameters: dict[str, float]) -> None:
    """Power to 1e-4 of each value, over 120 dB: a chord, noise and silence."""
    import librosa

    clip = Clip(
        np.concatenate(
            [
                synth.chord(seconds=0.3).samples,
                np.zeros(2000),
                synth.noise(seconds=0.3, level_db=-60).samples,
            ]
        ),
        16_000,
    )
    theirs = dict(parameters)
    theirs["hop_length"] = theirs.pop("hop", 256)
    expected = librosa.feature.melspectrogram(
        y=clip.samples, sr=clip.rate, **{"n_mels": 64, "n_fft": 1024, **theirs}
    )
    power = mel(clip, **parameters)
    assert (power.dtype, power.shape) == (np.float32, expected.shape)
    np.testing.assert_allclose(power, expected, rtol=1e-4, atol=1e-12 * expected.max())


def test_mel_of_a_long_clip_is_made_in_pieces_that_fit_together() -> None:
    """More frames than are transformed at once: every one the same as in a short clip."""
    clip = synth.noise(seconds=4)
    whole = mel(clip, hop=16)
    part = mel(clip.cut(0, 0.5), hop=16)
    assert whole.shape == (64, 1 + 64_000 // 16)
    np.testing.assert_allclose(whole[:, 100:400], part[:, 100:400], rtol=1e-5)
    np.testing.assert_allclose(whole[:, ::16], mel(clip), rtol=1e-5)


def test_decibels_have_a_floor_that_does_not_depend_on_the_clip() -> None:
    """0 dB is power one and -100 dB the least, so that parts can be compared."""
    clip = synth.tone(1000, level_db=-20)
    power, db = mel(clip), mel(clip, db=True)
    assert db.dtype == np.float32
    np.testing.assert_allclose(db, 10 * np.log10(np.maximum(power, 1e-10)), rtol=1e-5)
    assert mel(Clip(np.zeros(4000), 16_000), db=True).max() == -100


def test_a_tone_is_in_its_band() -> None:
    """Bands are in order of frequency."""
    peaks = [int(mel(synth.tone(hz))[:, 30].argmax()) for hz in (200, 400, 1000, 3000, 7000)]
    assert peaks == sorted(set(peaks))


def test_mel_of_stereo_is_that_of_the_mean() -> None:
    """Opposite channels are silent together."""
    left = synth.noise()
    assert np.array_equal(mel(Clip([left.samples, left.samples], 16_000)), mel(left))
    assert not mel(Clip([left.samples, -left.samples], 16_000)).any()


@pytest.mark.parametrize(
    ("clip", "says"),
    [
        (Clip([], 16_000), "samples: found none"),
        (Clip(np.zeros(1023), 16_000), r"1023 samples\), expected at least 64 ms"),
        (Clip([np.nan] * 2000, 16_000), "2000 that are NaN or infinite"),
    ],
)
def test_what_has_no_mel_spectrogram_is_refused(clip: Clip, says: str) -> None:
    """A window that is mostly padding tells of the padding."""
    with pytest.raises(AudioError, match=f"mel with n_fft=1024 cannot use(?s:.*){says}"):
        mel(clip)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"n_mels": 0, "hop": 0, "n_fft": 1}, "n_mels: found 0.*; n_fft: found 1.*; hop: found 0"),
        ({"n_fft": 1024.0}, "n_fft: found 1024.0, expected a whole number"),
        ({"fmax": 9000}, "fmax: found 9000, expected at most 8000 Hz, half the rate"),
        ({"fmin": 5000, "fmax": 4000}, r"fmin: found 5000, expected from 0 to below fmax \(4000 Hz\)"),
        ({"fmin": -1}, "fmin: found -1"),
        ({"fmax": math.nan}, "fmin: "),
        ({"n_mels": 500}, "43 bands that hold no frequency(?s:.*)fewer n_mels"),
    ],
)
def test_parameters_that_do_not_fit_are_named_all_at_once(parameters: dict[str, float], says: str) -> None:
    """A band that could never hold anything would be a constant that looks like a measurement."""
    with pytest.raises(ValidationError, match=says):
        mel(synth.noise(), **parameters)


@pytest.mark.slow
def test_mfcc_is_librosas() -> None:
    """Of the same mel spectrogram in dB, down to the same floor."""
    import librosa

    clip = Clip(np.concatenate([synth.chord(seconds=0.5).samples, synth.noise(seconds=0.5).samples]), 16_000)
    power = mel(clip, n_mels=40)
    db = librosa.power_to_db(power, top_db=None)
    expected = librosa.feature.mfcc(S=db, n_mfcc=13)
    found = mfcc(clip, n_mfcc=13, n_mels=40)
    assert (found.dtype, found.shape) == (np.float32, (13, 63))
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_the_first_coefficient_is_the_level_and_the_others_the_shape() -> None:
    """Ten dB less is ten dB times the root of the bands less in the first; silence is -100 dB."""
    loud, quiet = (mfcc(synth.noise(level_db=level))[:, 5:-5] for level in (-6, -16))
    assert np.allclose(loud[0] - quiet[0], 10 * np.sqrt(64), atol=1e-3)
    assert np.allclose(loud[1:], quiet[1:], atol=1e-3)
    silence = mfcc(Clip(np.zeros(4000), 16_000))
    assert np.allclose(silence[0], -100 * np.sqrt(64)) and np.allclose(silence[1:], 0, atol=1e-3)


def test_more_coefficients_than_bands_are_refused() -> None:
    """They could only be zero."""
    with pytest.raises(ValidationError, match=r"n_mfcc: found 41, expected at most n_mels \(40\)"):
        mfcc(synth.noise(), n_mfcc=41, n_mels=40)
    with pytest.raises(ValidationError, match="n_mfcc: found 0, expected a whole number from 1"):
        mfcc(synth.noise(), n_mfcc=0)
