"""What a model returns: good sound passes, each fault is found, measured and named."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from grym_nb.audio import synth
from grym_nb.audio.quality import Quality, checked, judged
from grym_nb.clip import Clip
from grym_nb.errors import AudioError, Problem, ValidationError

RATE = 16_000
TONE = synth.tone(440, seconds=1).samples


def wrong(clip: Clip, **bounds: float) -> list[str]:
    """The names of what is wrong with a clip."""
    return [problem.path for problem in judged(clip, **bounds).problems]


@pytest.mark.parametrize(
    "clip",
    [
        synth.tone(440, seconds=1),
        synth.noise(seconds=2, level_db=-1),
        synth.chord(seconds=1, rate=44_100, level_db=0),
        synth.beats(120, seconds=4),
        synth.tone(200, seconds=0.01, level_db=-30),
        Clip([TONE, 0 * TONE], RATE),
    ],
)
def test_good_sound_passes_unchanged(clip: Clip) -> None:
    """Loud, quiet, short, stereo, with pauses."""
    assert checked(clip) is clip
    assert checked(clip, seconds=clip.seconds) is clip
    assert judged(clip).good


@pytest.mark.parametrize(
    ("samples", "names"),
    [
        (np.append(TONE, np.nan), ["samples"]),
        (np.append(TONE, [np.inf, -np.inf]), ["samples"]),
        (1.9 * TONE, []),
        (2.5 * TONE, ["range", "clipping"]),
        (0 * TONE, ["silence"]),
        (1e-4 * TONE, ["silence"]),
        (np.concatenate([TONE, np.zeros(20 * RATE)]), ["silence"]),
        (np.clip(4 * TONE, -1, 1), ["clipping"]),
        (0.4 * TONE + 0.3, ["offset"]),
        ([], ["length"]),
        (np.full(RATE, np.nan), ["samples", "silence"]),
    ],
)
def test_each_fault_is_named(samples: np.ndarray, names: list[str]) -> None:
    """And nothing else: what cannot be told of a sound without samples is not said."""
    assert wrong(Clip(samples, RATE)) == names


def test_what_is_found_is_measured() -> None:
    """The whole report of a sound of which all is known."""
    sound = np.concatenate([np.ones(100), -np.ones(100), np.zeros(15_800)])
    assert judged(Clip(sound, RATE), most_silent=1, most_clipped=1) == Quality(
        seconds=1.0,
        rate=RATE,
        strays=0,
        peak=1.0,
        level_db=pytest.approx(10 * np.log10(200 / 16_000)),
        silent=pytest.approx(0.95),
        clipped=pytest.approx(200 / 16_000),
        offset=0.0,
        problems=(),
    )


@pytest.mark.parametrize(
    ("asked", "expected"), [(1.0, ""), (1.04, ""), (0.94, "940 ms ± 50 ms"), (1.2, "1.2 s ± 50 ms")]
)
def test_the_length_is_what_was_asked_for(asked: float, expected: str) -> None:
    """Give or take 50 ms, or what is said."""
    clip = Clip(TONE, RATE)
    problems = (Problem("length", "1 s", expected),) if expected else ()
    assert judged(clip, seconds=asked).problems == problems
    assert judged(clip, seconds=asked, within_s=0.5).good


def test_a_peak_or_two_at_full_scale_are_no_clipping() -> None:
    """Three samples in a row are; both signs count, in every channel."""
    sound = 0.1 * np.ones(1000)
    sound[::2] = -0.1
    sound[[10, 11, 20]] = 1
    assert judged(Clip(sound, RATE)).clipped == 0
    sound[10:14] = 1
    sound[30:33] = -1
    assert judged(Clip(sound, RATE)).clipped == pytest.approx(7 / 1000)
    assert judged(Clip([sound, 0 * sound], RATE)).clipped == pytest.approx(7 / 2000)


def test_what_is_wrong_is_an_error_with_everything_in_it() -> None:
    """In three lines: what it is, all that is wrong, what to do."""
    broken = Clip([*(3 * TONE), np.nan], RATE)
    with pytest.raises(AudioError) as caught:
        checked(broken, what="candidate 2", seconds=5.0)
    error = caught.value
    assert len(str(error).splitlines()) == 3
    assert str(error).startswith("candidate 2 is no sound that can be used: Clip(1.00 s, 16000 Hz, mono)")
    assert [problem.path for problem in error.details["problems"]] == [
        "samples",
        "range",
        "clipping",
        "length",
    ]
    assert error.details["quality"] == judged(broken, seconds=5.0)
    assert "float32" in error.hint


def test_a_report_is_the_same_every_time() -> None:
    """As text and as HTML; silence has a level of minus infinity."""
    assert judged(Clip(np.zeros(RATE), RATE)).level_db == -inf
    assert repr(judged(Clip(TONE, RATE))) == (
        "quality: good\n"
        "what      found                             verdict\n"
        "--------  --------------------------------  -------\n"
        "samples   all finite                        ok\n"
        "range     peak 0.501                        ok\n"
        "silence   0% silent, -9.0 dBFS in the mean  ok\n"
        "clipping  0.00% cut off                     ok\n"
        "offset    mean +0.0000                      ok\n"
        "length    1 s at 16000 Hz                   ok"
    )
    page = judged(Clip(0 * TONE, RATE))._repr_html_()
    assert "expected at most 90%" in page and page == judged(Clip(0 * TONE, RATE))._repr_html_()


def test_what_is_no_clip_and_bounds_that_make_no_sense_are_refused() -> None:
    """By name."""
    with pytest.raises(AudioError, match="checked takes a Clip, not"):
        checked(TONE)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="most_silent: found 2, expected a number from 0 to 1"):
        judged(Clip(TONE, RATE), most_silent=2)
    with pytest.raises(ValidationError, match="seconds: found -1"):
        checked(Clip(TONE, RATE), seconds=-1)
    with pytest.raises(ValidationError, match="judged got an unexpected keyword argument 'loudness'"):
        checked(Clip(TONE, RATE), loudness=3)
