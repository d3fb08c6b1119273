"""What begins when, and how fast: metronomes of known tempo, rhythms, noise and silence."""

from __future__ import annotations

import math

import numpy as np
import pytest

from grym_nb.audio import synth
from grym_nb.audio.features import Tempo, beats, onsets, tempo
from grym_nb.clip import Clip
from grym_nb.errors import AudioError, ValidationError

NOTHING = Tempo(math.nan, 0.0, ())


def in_noise(clip: Clip, level_db: float = -30) -> Clip:
    """The clip with white noise in it."""
    noise = synth.noise(seconds=clip.seconds, rate=clip.rate, level_db=level_db)
    return Clip(clip.samples + noise.samples, clip.rate)


def away(found: np.ndarray, expected: np.ndarray) -> float:
    """The distance from each to the nearest expected one, at most, in seconds."""
    return float(np.abs(found[:, None] - expected[None, :]).min(axis=1).max())


def played(times: list[float], seconds: float, rate: int = 16_000, strong: float = 1.0) -> np.ndarray:
    """Clicks at these times."""
    click = synth.beats(60, seconds=0.1, rate=rate).samples * strong
    sound = np.zeros(round(seconds * rate) + len(click), np.float32)
    for time in times:
        at = round(time * rate)
        sound[at : at + len(click)] += click
    return sound[: round(seconds * rate)]


def test_what_begins_is_found_where_it_begins() -> None:
    """Uneven clicks, the first at the very start: all of them, and no others, within 5 ms."""
    times = [0.0, 0.31, 0.9, 1.02, 1.7, 2.53, 2.9]
    for rate in (8000, 16_000, 44_100, 48_000):
        found = onsets(Clip(played(times, 3.3, rate), rate))
        assert len(found) == len(times)
        assert away(found, np.array(times)) < 0.005
        assert (np.diff(found) > 0).all()


def test_what_begins_is_found_in_noise() -> None:
    """At 20 dB, all but for the noise itself, within 10 ms."""
    times = [0.5, 0.81, 1.4, 2.2, 2.71]
    found = onsets(in_noise(Clip(played(times, 3.3), 16_000)))[1:]
    assert len(found) == len(times)
    assert away(found, np.array(times)) < 0.010


def test_notes_that_follow_one_another_begin_without_a_pause_between() -> None:
    """A melody of half a second a note."""
    notes = [synth.tone(hz, seconds=0.5).samples for hz in (262, 330, 392, 523, 392)]
    found = onsets(Clip(np.concatenate(notes), 16_000))
    assert len(found) == 5
    assert away(found, np.arange(5) * 0.5) < 0.02


def test_nothing_begins_in_silence_and_within_what_is_steady() -> None:
    """But the sound itself."""
    assert onsets(Clip(np.zeros(16_000), 16_000)).size == 0
    for steady in (synth.tone(seconds=3), synth.noise(seconds=3)):
        assert (onsets(steady) < 0.02).all()


@pytest.mark.parametrize("bpm", [60, 66.6, 75, 90, 100, 117.3, 120, 128, 140, 152, 174, 190, 200])
def test_the_beat_of_a_metronome_is_followed(bpm: float) -> None:
    """In noise: as many as there are, within 12 ms, one after the other."""
    found = beats(in_noise(synth.beats(bpm, seconds=15)))
    expected = np.arange(0, 15, 60 / bpm)
    assert abs(len(found) - len(expected)) <= 1
    assert away(found, expected) < 0.012


def test_of_tempi_that_recur_as_well_the_fastest_is_taken() -> None:
    """Soft beats between strong ones do not count as such, equal ones do; the other is an alternative."""
    strong = played([i * 0.5 for i in range(30)], 15)
    soft = played([0.25 + i * 0.5 for i in range(29)], 15, strong=0.03)
    loud = played([0.25 + i * 0.5 for i in range(29)], 15)
    noise = synth.noise(seconds=15, level_db=-36).samples
    found = tempo(Clip(strong + soft + noise, 16_000))
    assert found.bpm == pytest.approx(120, abs=0.2)
    found = tempo(Clip(strong + loud, 16_000), fastest=250)
    assert found.bpm == pytest.approx(240, abs=0.2)
    assert found.alternatives[0] == pytest.approx(120, abs=0.1)
    assert tempo(Clip(strong + loud, 16_000)).bpm == pytest.approx(120, abs=0.2)


def test_beats_that_are_left_out_do_not_change_the_tempo() -> None:
    """A line through all beats counts the steps between them."""
    times = [i * 0.5 for i in range(40) if i not in (5, 6, 17, 30)]
    found = tempo(in_noise(Clip(played(times, 20), 16_000)))
    assert found.bpm == pytest.approx(120, abs=0.2)


def test_a_tempo_that_drifts_is_told_in_the_mean() -> None:
    """From 116 to 124 beats a minute: the beats are followed, the tempo is between."""
    times = list(np.cumsum(60 / np.linspace(116, 124, 40)))
    found = Clip(played(times, times[-1] + 0.5), 16_000)
    assert away(beats(found), np.array(times)) < 0.02
    assert 118 < tempo(found).bpm < 122


def test_nothing_that_recurs_has_no_tempo() -> None:
    """And the confidence says so; no number is made up."""
    for steady in (Clip(np.zeros(48_000), 16_000), synth.tone(seconds=5), synth.noise(seconds=5)):
        found = tempo(steady)
        assert math.isnan(found.bpm) and (found.confidence, found.alternatives) == (0.0, ())
        assert beats(steady).size == 0
    rng = np.random.default_rng(3)
    uneven = Clip(played(sorted(rng.uniform(0, 20, 40)), 20), 16_000)
    assert tempo(uneven).confidence < 0.35
    assert tempo(synth.beats(120, seconds=20)).confidence > 0.95


def test_a_tempo_says_what_it_is() -> None:
    """In a line that is the same every time."""
    assert repr(tempo(synth.beats(120, seconds=10))).startswith("Tempo(120.00 BPM, confidence 1.00, or ")
    assert repr(NOTHING) == "Tempo(nan BPM, confidence 0.00, or no other)"


@pytest.mark.parametrize("feature", [beats, tempo])
def test_bounds_of_the_tempo_have_to_leave_room_for_one(feature: object) -> None:
    """An octave at least."""
    clip = synth.beats()
    with pytest.raises(ValidationError, match=r"fastest: found 150, expected at least twice slowest \(100\)"):
        feature(clip, slowest=100, fastest=150)  # type: ignore[operator]
    with pytest.raises(ValidationError, match="slowest: found 0, expected a number from 20 to 300"):
        feature(clip, slowest=0)  # type: ignore[operator]


def test_what_is_too_short_or_too_slow_for_rhythm_is_refused() -> None:
    """With what is needed."""
    with pytest.raises(AudioError, match=r"tempo cannot use(?s:.*)expected at least 1 s"):
        tempo(synth.beats(seconds=0.9))
    with pytest.raises(AudioError, match=r"onsets cannot use(?s:.*)found 2000 Hz, expected at least 4000"):
        onsets(synth.tone(rate=2000))
