"""What the signals of the zoo are said to be, measured in what comes out."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from grym_nb.audio.zoo import signals
from grym_nb.audio.zoo.signals import CODE, COLOURS, EVENTS, KEYS, PAIRS, RATE


def _spectrum(samples: Any) -> tuple[Any, Any]:
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
    return np.fft.rfftfreq(len(samples), 1 / RATE), power


def _runs(samples: Any) -> list[tuple[bool, int]]:
    """Return the stretches that sound and that are silent, in milliseconds."""
    envelope = np.array(
        [np.abs(samples[i : i + 16]).max(initial=0) > 1e-3 for i in range(0, len(samples), 16)]
    )
    edges = [0, *(np.flatnonzero(np.diff(envelope)) + 1), len(envelope)]
    return [(bool(envelope[a]), int(b - a)) for a, b in pairwise(edges)]


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_its_two_tones(key: str) -> None:
    hz, power = _spectrum(signals.dtmf(key, tone_s=0.5))
    found = [hz[half][np.argmax(power[half])] for half in (hz < 1100, hz >= 1100)]
    assert found == pytest.approx(PAIRS[key], abs=2)
    assert np.sort(power)[:-12].max() < power.max() / 50  # and nothing else


def test_keys_last_and_pause_as_long_as_they_are_told_to() -> None:
    runs = _runs(signals.dtmf("159", tone_s=0.1, gap_s=0.06))
    assert [down for down, _ in runs] == [True, False, True, False, True]
    assert [ms for _, ms in runs] == pytest.approx([100, 60, 100, 60, 100], abs=2)


def test_the_high_tone_is_louder_by_the_twist() -> None:
    hz, power = _spectrum(signals.dtmf("5", tone_s=1.0, twist_db=6.0))
    low, high = (power[np.argmin(np.abs(hz - tone))] for tone in PAIRS["5"])
    assert 10 * np.log10(high / low) == pytest.approx(6.0, abs=0.1)


def test_morse_is_keyed_as_the_code_says() -> None:
    runs = _runs(signals.morse("AE T", wpm=20, hz=600))  # a dot is 60 ms
    shown = [(down, round(ms / 60)) for down, ms in runs]
    assert shown == [(True, 1), (False, 1), (True, 3), (False, 3), (True, 1), (False, 7), (True, 3)]
    assert set("".join(CODE.values())) == {".", "-"}
    assert len(set(CODE.values())) == len(CODE) == 36


def test_morse_has_the_pitch_it_is_told_to() -> None:
    hz, power = _spectrum(signals.morse("T", wpm=5, hz=700))
    assert hz[np.argmax(power)] == pytest.approx(700, abs=2)


@pytest.mark.parametrize("label", EVENTS)
def test_an_event_is_as_long_as_asked_for_and_never_above_one(label: str) -> None:
    samples = signals.event(np.random.default_rng(1), label, 1.25)
    peak = float(np.abs(samples).max())
    assert (len(samples), samples.dtype) == (20_000, np.float32)
    assert peak == pytest.approx(0.0 if label == "nothing" else 1.0)


@pytest.mark.parametrize(("label", "sign"), [("rise", 1), ("fall", -1)])
def test_a_sweep_goes_an_octave_or_more_in_its_direction(label: str, sign: int) -> None:
    for seed in range(5):
        samples = signals.event(np.random.default_rng(seed), label, 2.0)
        ends = [
            hz[np.argmax(power)] for hz, power in map(_spectrum, (samples[800:2400], samples[-2400:-800]))
        ]
        assert sign * np.log2(ends[1] / ends[0]) > 1.0


def test_band_noise_is_one_or_two_octaves_wide() -> None:
    for seed in range(5):
        hz, power = _spectrum(signals.event(np.random.default_rng(seed), "band noise", 2.0))
        share = np.cumsum(power) / power.sum()
        low, high = hz[np.searchsorted(share, 0.005)], hz[np.searchsorted(share, 0.995)]
        assert 0.9 < np.log2(high / low) < 2.1


def test_clicks_come_four_to_fifteen_times_a_second() -> None:
    for seed in range(5):
        samples = np.abs(signals.event(np.random.default_rng(seed), "clicks", 4.0))
        loud = np.flatnonzero(samples > 0.01)
        starts = 1 + np.count_nonzero(np.diff(loud) > 500)
        assert 4 * 4 - 2 <= starts <= 15 * 4 + 1


def test_a_tremolo_swells_four_to_twelve_times_a_second() -> None:
    for seed in range(5):
        samples = signals.event(np.random.default_rng(seed), "tremolo", 4.0)
        swell = np.abs(samples).reshape(-1, 160).max(1)
        power = np.abs(np.fft.rfft(swell - swell.mean()))
        assert 4 <= np.fft.rfftfreq(len(swell), 0.01)[np.argmax(power)] <= 12.01


@pytest.mark.parametrize(("colour", "fall"), [("white", 0.0), ("pink", -3.0), ("brown", -6.0)])
def test_noise_falls_by_its_colour(colour: str, fall: float) -> None:
    samples = signals.noise(np.random.default_rng(0), 30 * RATE, colour)
    assert float(np.mean(samples**2)) == pytest.approx(1.0, rel=1e-3)
    hz, power = _spectrum(samples)
    octaves = [
        10 * np.log10(power[(hz >= low) & (hz < 2 * low)].mean()) for low in (125, 250, 500, 1000, 2000)
    ]
    assert np.diff(octaves) == pytest.approx([fall] * 4, abs=0.4)


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("snr", [20.0, 0.0])
def test_a_signal_is_above_the_noise_by_what_was_asked_for(colour: str, snr: float) -> None:
    signal = signals.at_level(signals.dtmf("123456", tone_s=0.1, gap_s=0.2), -20)
    around = signals.noise(np.random.default_rng(0), len(signal), colour)
    both = signals.mixed(signal, around, snr)
    assert signals.level(signal) == pytest.approx(-20, abs=0.01)
    assert signals.level(signal) - signals.level(both - signal) == pytest.approx(snr, abs=0.05)


def test_silence_stays_silent_at_any_level_and_adds_nothing_to_noise() -> None:
    around = signals.noise(np.random.default_rng(0), 1600)
    assert signals.level(signals.silence(0.1)) == -np.inf
    assert not signals.at_level(signals.silence(0.1), -10).any()
    assert np.array_equal(signals.mixed(signals.silence(0.1), around, 10), around)
