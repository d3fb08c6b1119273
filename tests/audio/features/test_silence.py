"""Silence and speech in known places."""

from __future__ import annotations

import numpy as np
import pytest

from grym_nb.audio import synth
from grym_nb.audio.features import split, trim, voiced
from grym_nb.clip import Clip
from grym_nb.errors import AudioError, ValidationError


def placed(
    spans: list[tuple[float, float]], seconds: float, rate: int = 16_000, level_db: float = -6
) -> Clip:
    """A tone in each span, silence elsewhere."""
    tone = synth.tone(310, seconds=seconds, rate=rate, level_db=level_db).samples
    times = np.arange(len(tone)) / rate
    inside = sum((times >= start) & (times < end) for start, end in spans)
    return Clip(tone * inside, rate)


def near(found: list[tuple[float, float]], expected: list[tuple[float, float]], seconds: float) -> bool:
    """Whether there are as many, each end as near as that."""
    apart = np.abs(np.array(found) - np.array(expected)) if len(found) == len(expected) else np.ones(1)
    return bool((apart <= seconds).all())


SPANS = [(0.7, 1.7), (2.2, 3.1), (3.5, 3.9)]


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 44_100])
@pytest.mark.parametrize("level_db", [0, -40])
def test_sound_is_found_where_it_is(rate: int, level_db: float) -> None:
    """To 6 ms at any rate and level, and none of it is cut."""
    clip = placed(SPANS, 4.5, rate, level_db)
    found = split(clip)
    assert near(found, SPANS, 0.006)
    assert all(a <= c and b >= d - 1 / rate for (a, b), (c, d) in zip(found, SPANS, strict=True))


def test_voiced_finds_the_same_in_noise() -> None:
    """30 dB above it: to 15 ms."""
    clip = placed(SPANS, 4.5, level_db=-10)
    noisy = Clip(clip.samples + synth.noise(seconds=4.5, level_db=-42).samples, 16_000)
    assert near(voiced(noisy), SPANS, 0.015)
    assert near(voiced(clip), SPANS, 0.006)


def test_what_hovers_around_the_threshold_is_one() -> None:
    """It begins at the upper bound and goes on to the lower one; what reaches only that does not begin."""
    level = np.repeat([-60.0, -50.0, -60.0, -40.0, -51.0, -40.0, -51.0, -60.0], 8000)
    tone = np.sin(2 * np.pi * 300 * np.arange(len(level)) / 16_000)
    clip = Clip(10 ** (level / 20) * tone * 2**0.5, 16_000)
    assert near(voiced(clip, on_db=12, off_db=6), [(1.5, 3.5)], 0.006)
    assert near(voiced(clip, on_db=6, off_db=6), [(0.5, 1.0), (1.5, 3.5)], 0.006)
    assert near(voiced(clip, on_db=12, off_db=12), [(1.5, 2.0), (2.5, 3.0)], 0.006)
    assert near(voiced(clip, floor_db=-70), [(0.0, 4.0)], 0.006)


def test_short_pauses_are_closed_and_short_sounds_left_out() -> None:
    """In this order."""
    clip = placed([(0.5, 1.0), (1.05, 1.5), (2.0, 2.03), (2.5, 3.0)], 3.5)
    assert near(split(clip, pause_s=0.0), [(0.5, 1.0), (1.05, 1.5), (2.0, 2.03), (2.5, 3.0)], 0.006)
    assert near(split(clip), [(0.5, 1.5), (2.0, 2.03), (2.5, 3.0)], 0.006)
    assert near(split(clip, least_s=0.1), [(0.5, 1.5), (2.5, 3.0)], 0.006)
    assert near(voiced(clip), [(0.5, 1.5), (2.5, 3.0)], 0.006)


def test_trim_takes_the_silence_from_both_ends_only() -> None:
    """All samples in between are as they were, in all channels."""
    clip = placed(SPANS, 4.5)
    stereo = Clip([clip.samples, 0.5 * clip.samples], 16_000)
    trimmed = trim(stereo)
    assert trimmed.seconds == pytest.approx(3.2, abs=0.012) and trimmed.channels == 2
    start = split(clip)[0][0]
    assert trimmed == stereo.cut(start, split(clip)[-1][1])
    loud = placed([(0.0, 2.0)], 2.0)
    assert trim(loud) == loud


def test_what_is_below_the_threshold_is_silence() -> None:
    """Beside the loudest, wherever that is."""
    quiet = placed([(0.0, 1.0)], 3, level_db=-50).samples + placed([(2.0, 3.0)], 3, level_db=-5).samples
    assert near(split(Clip(quiet, 16_000)), [(2.0, 3.0)], 0.006)
    assert near(split(Clip(quiet, 16_000), below_db=60), [(0.0, 1.0), (2.0, 3.0)], 0.006)


def test_silence_has_no_sound_and_nothing_is_left_of_it() -> None:
    """Empty lists, an empty clip."""
    silence = Clip(np.zeros(16_000), 16_000)
    assert split(silence) == voiced(silence) == []
    assert trim(silence).frames == 0
    assert voiced(synth.noise(seconds=3)) == []
    assert split(Clip([0.5], 16_000)) == [(0.0, 1 / 16_000)]


@pytest.mark.parametrize(
    ("feature", "parameters", "says"),
    [
        (split, {"below_db": 0, "pause_s": -1}, "below_db: found 0.*; pause_s: found -1"),
        (trim, {"below_db": "40"}, "below_db: found '40', expected a number from 1 to 100"),
        (voiced, {"off_db": 20}, "off_db: found 20, expected a number from 0 to 12"),
        (voiced, {"floor_db": 3.0}, r"floor_db: found 3\.0, expected a number from -200 to 0"),
    ],
)
def test_bounds_that_make_no_sense_are_named(
    feature: object, parameters: dict[str, object], says: str
) -> None:
    """All at once."""
    with pytest.raises(ValidationError, match=says):
        feature(synth.tone(), **parameters)  # type: ignore[operator]


def test_trim_needs_a_clip_with_something_in_it() -> None:
    """As the others do, by its own name."""
    with pytest.raises(AudioError, match="trim cannot use"):
        trim(Clip([], 16_000))
