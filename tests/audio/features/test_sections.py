"""Songs of known sections."""

from __future__ import annotations

import numpy as np
import pytest

from grym_nb.audio import synth
from grym_nb.audio.features import Segment, segments
from grym_nb.clip import Clip
from grym_nb.errors import AudioError, ValidationError

C, F_SHARP, D_MINOR = (261.63, 329.63, 392.0), (185.0, 233.08, 277.18), (293.66, 349.23, 440.0)


def song(*parts: tuple[tuple[float, ...] | None, float], rate: int = 16_000) -> Clip:
    """Chords, or noise where there is none, so many seconds each, with noise 40 dB below."""
    sounds = [
        (
            synth.chord(hz, seconds=s, rate=rate) if hz else synth.noise(seconds=s, rate=rate, level_db=-20)
        ).samples
        for hz, s in parts
    ]
    whole = np.concatenate(sounds)
    noise = synth.noise(seconds=len(whole) / rate, rate=rate, level_db=-46).samples
    return Clip(whole + noise[: len(whole)], rate)


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
def test_borders_are_where_they_are_and_what_returns_has_its_letter(rate: int) -> None:
    """To half a second; the sections follow one another without a gap."""
    parts = [(C, 12.0), (F_SHARP, 10.0), (C, 12.0), (None, 8.0), (D_MINOR, 9.0)]
    found = segments(song(*parts, rate=rate))
    ends = np.cumsum([seconds for _, seconds in parts])
    assert [one.label for one in found] == list("ABACD")
    assert np.abs(np.array([one.end for one in found]) - ends).max() <= 0.5
    assert [one.start for one in found] == [0.0, *(one.end for one in found[:-1])]


def test_a_song_in_which_nothing_changes_is_one_section() -> None:
    """Noise, a chord, silence."""
    for seconds, clip in ((30.0, synth.noise(seconds=30)), (20.0, synth.chord(seconds=20))):
        assert segments(clip) == [Segment(0.0, seconds, "A")]
    assert segments(Clip(np.zeros(160_000), 16_000)) == [Segment(0.0, 10.0, "A")]


def test_sections_are_as_long_as_is_asked_at_least() -> None:
    """What is shorter belongs to a neighbour."""
    clip = song((C, 10.0), (F_SHARP, 3.0), (C, 10.0))
    assert all(one.end - one.start >= 6 for one in segments(clip, least_s=6))
    assert len(segments(clip, least_s=2)) == 3


def test_what_is_too_short_for_sections_is_refused() -> None:
    """Two of them have to fit."""
    with pytest.raises(AudioError, match=r"segments cannot use(?s:.*)at least 8 s"):
        segments(synth.noise(seconds=7))
    with pytest.raises(AudioError, match=r"segments cannot use(?s:.*)at least 4000 Hz"):
        segments(synth.noise(seconds=9, rate=2000))
    with pytest.raises(ValidationError, match=r"least_s: found 0"):
        segments(synth.noise(seconds=9), least_s=0)
