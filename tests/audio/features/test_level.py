"""Loudness against the truth: the standard's own signals, at any rate and in any blocks."""

from __future__ import annotations

import math
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyloudnorm
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grym_nb.audio import synth
from grym_nb.audio.features import loudness
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
