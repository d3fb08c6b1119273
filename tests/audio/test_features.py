"""Features against the truth: the loudness standard's own signals, and librosa's mel spectrogram."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyloudnorm
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grym_nb.audio import synth
from grym_nb.audio.features import loudness, mel
from grym_nb.clip import Clip
from grym_nb.errors import AudioError, ValidationError

RATE = 48_000


def sine(level_db: float, seconds: float, *, hz: float = 1000, rate: int = RATE) -> np.ndarray:
    """A sine's samples, `level_db` dBFS at its peak."""
    return synth.tone(hz, seconds=seconds, rate=rate, level_db=level_db).samples


def stereo(*parts: tuple[float, float], rate: int = RATE) -> Clip:
    """One 1 kHz sine after the other in both channels: (dBFS, seconds) each."""
    samples = np.concatenate([sine(level, seconds, rate=rate) for level, seconds in parts])
    return Clip(np.stack([samples, samples]), rate)


# Loudness


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000])
def test_a_full_scale_sine_in_mono_reads_3_01_below_zero(rate: int) -> None:
    """ITU-R BS.1770: 997 Hz at 0 dBFS in one channel reads -3.01 LKFS; in two channels 3.01 more."""
    clip = synth.tone(997, seconds=2, rate=rate, level_db=0)
    allowed = 0.01 if rate >= 44_100 else 0.05 if rate >= 16_000 else 0.21
    assert loudness(clip) == pytest.approx(-3.01, abs=allowed)
    assert loudness(Clip(np.stack([clip.samples] * 2), rate)) == pytest.approx(0.0, abs=allowed)


@pytest.mark.parametrize("hz", [40, 100, 1000, 2000, 4000, 7000])
def test_the_rate_does_not_change_the_loudness(hz: float) -> None:
    """The same tone, at 48 kHz, where the standard gives its filters, and at four other rates."""
    expected = loudness(synth.tone(hz, seconds=2, rate=48_000))
    for rate in (16_000, 22_050, 44_100, 96_000):
        assert loudness(synth.tone(hz, seconds=2, rate=rate)) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([(-23, 20)], -23),
        ([(-33, 20)], -33),
        ([(-36, 10), (-23, 60), (-36, 10)], -23),
        ([(-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)], -23),
        ([(-26, 20), (-20, 20.1), (-26, 20)], -23),
    ],
)
def test_the_ebus_test_signals_read_what_they_should(
    parts: list[tuple[float, float]], expected: float
) -> None:
    """EBU Tech 3341, cases 1 to 5, to the 0.1 LU that it allows: the gates are where they should be."""
    assert loudness(stereo(*parts)) == pytest.approx(expected, abs=0.1)


def test_surround_channels_count_more() -> None:
    """EBU Tech 3341, case 6: left and right -28, centre -24, surround -30 dBFS read -23."""
    clip = Clip([sine(level, 20) for level in (-28, -28, -24, -30, -30)], RATE)
    assert loudness(clip) == pytest.approx(-23, abs=0.1)


@settings(max_examples=30)
@given(gain=st.floats(-30, 6), seconds=st.floats(0.4, 2), seed=st.integers(0, 9))
def test_gain_in_db_is_gain_in_lufs(gain: float, seconds: float, seed: int) -> None:
    """Twice as loud is 6.02 LU more, beyond full scale too."""
    clip = synth.noise(seconds=seconds, rate=16_000, seed=seed, level_db=0)
    louder = Clip(clip.samples * np.float32(10 ** (gain / 20)), clip.rate)
    assert loudness(louder) - loudness(clip) == pytest.approx(gain, abs=1e-3)


@settings(max_examples=30)
@given(seconds=st.floats(0.4, 3))
def test_a_steady_tone_is_as_loud_for_any_length(seconds: float) -> None:
    """Blocks that are not whole do not count."""
    clip = synth.tone(997, seconds=seconds + 1e-3, rate=16_000, level_db=-20)
    assert loudness(clip) == pytest.approx(-23.01, abs=0.05)


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_loudness_agrees_with_pyloudnorm_where_that_is_exact(rate: int) -> None:
    """Whole blocks, the standard's filters: noise in two channels that differ, with a pause."""
    rng = np.random.default_rng(0)
    samples = rng.uniform(-0.3, 0.3, (2, rate * 4)) * np.array([[1.0], [0.4]])
    samples[:, rate : rate * 2] = 0
    theirs = pyloudnorm.Meter(rate, filter_class="DeMan").integrated_loudness(samples.T)
    assert loudness(Clip(samples, rate)) == pytest.approx(theirs, abs=0.02)


@pytest.mark.parametrize("clip", [Clip(np.zeros((2, RATE)), RATE), stereo((-80, 1))])
def test_silence_is_minus_infinity_without_a_warning(clip: Clip) -> None:
    """Whatever lies below the absolute gate of -70 LUFS."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert loudness(clip) == -math.inf


def test_threads_leave_the_warning_filters_alone() -> None:
    """pyloudnorm's meter changes them for the whole process."""
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(loudness, [stereo((-23, 1)), Clip(np.zeros(RATE), RATE)] * 8))
    assert warnings.filters == before


def test_a_clip_shorter_than_a_block_is_refused_with_both_lengths() -> None:
    """And a shorter block makes it measurable."""
    clip = synth.tone(997, seconds=0.3, rate=RATE, level_db=0)
    with pytest.raises(AudioError, match=r"found 300 ms \(14400 samples\), expected at least 400 ms"):
        loudness(clip)
    assert loudness(clip, block_s=0.2) == pytest.approx(-3.01, abs=0.1)


@pytest.mark.parametrize(
    ("clip", "says"),
    [
        (Clip([], RATE), "samples: found none"),
        (synth.tone(rate=4000), "rate: found 4000 Hz, expected at least 8000 Hz"),
        (Clip(np.zeros((6, RATE)), RATE), "channels: found 6, expected at most 5"),
        (Clip(np.full(RATE, np.nan), RATE), "48000 that are NaN or infinite"),
        (Clip([*np.zeros(RATE), np.inf], RATE), "1 that are NaN or infinite"),
    ],
)
def test_what_has_no_loudness_is_refused(clip: Clip, says: str) -> None:
    """No number is made up for it."""
    with pytest.raises(AudioError, match=f"loudness cannot use(?s:.*){says}"):
        loudness(clip)


@pytest.mark.parametrize("block_s", [0, -1, math.nan, math.inf])
def test_a_block_without_a_length_is_refused(block_s: float) -> None:
    """It is the parameter that is wrong here, not the clip."""
    with pytest.raises(ValidationError, match="block_s: found"):
        loudness(stereo((-23, 1)), block_s=block_s)


# Mel

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


def test_what_is_not_installed_is_said_when_it_is_needed() -> None:
    """Importing the features needs none of it."""
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['pyloudnorm', 'librosa']))\n"
        "from grym_nb.audio import features, synth\n"
        "for feature in (features.loudness, features.mel):\n"
        "    try: feature(synth.tone())\n"
        "    except ImportError as error: print(error)\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "loudness needs pyloudnorm, which is not installed",
        '→ pip install "grym-nb[sound]"',
        "mel needs librosa, which is not installed",
        '→ pip install "grym-nb[sound]"',
        "False",
    ]
