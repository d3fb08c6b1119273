"""Clip as a value: what it accepts, what it refuses, and what can be made of it."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from grym_nb.clip import Clip
from grym_nb.errors import AudioError, Problem

RATE = 8000
floats = hnp.arrays(
    np.float32,
    st.one_of(st.tuples(st.integers(0, 60)), st.tuples(st.integers(1, 4), st.integers(0, 60))),
    elements=st.floats(-2, 2, width=32),
)


# What it accepts


@given(floats)
def test_float32_samples_are_held_as_they_are(samples: np.ndarray) -> None:
    """Only a single row becomes plain mono; every value is kept bit for bit."""
    clip = Clip(samples, RATE)
    expected = samples[0] if samples.ndim == 2 and len(samples) == 1 else samples
    assert clip.samples.dtype == np.float32
    assert clip.samples.shape == expected.shape
    assert clip.samples.tobytes() == expected.tobytes()
    assert (clip.frames, clip.channels) == (expected.shape[-1], 1 if expected.ndim == 1 else len(expected))
    assert clip.nbytes == expected.nbytes


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.array([-32768, 0, 16384], np.int16), [-1.0, 0.0, 0.5]),
        (np.array([-32768, 0, 16384], ">i2"), [-1.0, 0.0, 0.5]),
        (np.array([-(2**31), 0, 2**30], np.int32), [-1.0, 0.0, 0.5]),
        (np.array([0, 128, 192], np.uint8), [-1.0, 0.0, 0.5]),
        (np.array([-1, 0, 0.5], np.float64), [-1.0, 0.0, 0.5]),
        (np.array([-1, 0, 0.5], np.float16), [-1.0, 0.0, 0.5]),
        (np.array([-1, 0, 0.5], ">f8"), [-1.0, 0.0, 0.5]),
        ([-1, 0.0, 0.5], [-1.0, 0.0, 0.5]),
        ((), []),
    ],
)
def test_every_pcm_type_is_scaled_to_full_scale_one(given: Any, expected: list[float]) -> None:
    """int16, int32 and uint8 (whose silence is 128) and floats of any width and byte order."""
    assert Clip(given, RATE).samples.tolist() == expected


def test_samples_beyond_full_scale_and_not_finite_are_held() -> None:
    """Nothing is clipped or repaired: what cannot work with them says so."""
    held = Clip([1.5, np.nan, -np.inf, 1e300], RATE).samples
    assert np.array_equal(held, np.array([1.5, np.nan, -np.inf, np.inf], np.float32), equal_nan=True)


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        (0.5, r"shape \(\)"),
        (np.zeros((1, 2, 3)), r"shape \(1, 2, 3\).*\(channels, n\)"),
        (np.zeros((0, 5)), "no channel"),
        (np.zeros((16000, 2)), r"(?s)16000 channels.*Clip\(samples\.T, rate\)"),
        ([1, 2, 3], "int64: they must be float, int16, int32 or uint8"),
        (np.zeros(3, np.uint16), "uint16"),
        (np.zeros(3, bool), "bool"),
        (np.zeros(3, complex), "complex128"),
        (["a", "b"], "<U1"),
        (np.array([None, 1.0]), "object"),
        ([[0.1, 0.2], [0.3]], r"(?s)cannot be read.*ValueError"),
    ],
)
def test_samples_that_are_none_are_refused_with_what_is_needed(samples: Any, says: str) -> None:
    """The error says what was found, and an array the wrong way round is called that."""
    with pytest.raises(AudioError, match=says):
        Clip(samples, RATE)


@pytest.mark.parametrize("rate", [0, -1, 44100.0, "16000", None, True, np.nan, np.zeros(3)])
def test_a_rate_that_is_no_positive_whole_number_is_refused(rate: Any) -> None:
    """A float rate is refused too, since its clip would not equal the one with the same whole rate."""
    with pytest.raises(AudioError, match="whole number of Hz above 0"):
        Clip([0.0], rate)


def test_swapped_arguments_are_recognised() -> None:
    """The most likely slip gets the order of the arguments in its answer."""
    with pytest.raises(AudioError, match="samples come first"):
        Clip(16000, [0.0])  # type: ignore[arg-type]


def test_a_numpy_integer_is_a_rate() -> None:
    """It becomes a plain int, so that the clip is the same as any other."""
    clip = Clip([0.0], np.int64(RATE))
    assert (type(clip.rate), clip) == (int, Clip([0.0], RATE))


# Immutable


def test_the_clip_does_not_feel_what_is_done_to_the_array_it_was_made_from() -> None:
    """Arrays, views and read-only views of arrays that somebody can write to are copied."""
    mine = np.zeros(4, np.float32)
    view = mine[:]
    view.flags.writeable = False
    clips = [Clip(mine, RATE), Clip(view, RATE), Clip(mine[None], RATE), Clip(memoryview(mine), RATE)]
    mine += 1
    assert all(not clip.samples.any() for clip in clips)


def test_the_clip_does_not_feel_views_that_were_made_before_its_array_was_read_only() -> None:
    """Nothing on the array tells of them: an array that owns its memory is copied, read-only or not."""
    frozen = np.zeros((1, 4), np.float32)
    view = frozen[:]
    frozen.flags.writeable = False
    clips = [Clip(frozen, RATE), Clip(frozen[0], RATE), Clip(frozen[:, 1:], RATE)]
    view += 1
    assert all(not clip.samples.any() for clip in clips)


def test_the_clip_does_not_feel_an_array_that_can_be_written_to_again() -> None:
    """Read-only is a flag that the owner of an array can take back."""
    frozen = np.zeros(4, np.float32)
    frozen.flags.writeable = False
    clip = Clip(frozen, RATE)
    frozen.flags.writeable = True
    frozen += 1
    assert not clip.samples.any()


def test_the_clip_does_not_feel_the_buffers_that_its_pickle_came_in() -> None:
    """A pickle may leave the samples outside, in memory that whoever reads it can write to."""
    buffers: list[pickle.PickleBuffer] = []
    sent = pickle.dumps(Clip(np.zeros(4), RATE), protocol=5, buffer_callback=buffers.append)
    received = [np.frombuffer(bytearray(buffer.raw()), np.float32) for buffer in buffers]
    frozen = [memoryview(buffer).toreadonly() for buffer in received]
    clip = pickle.loads(sent, buffers=frozen)
    assert received
    for buffer in received:
        buffer += 1
    assert not clip.samples.any()


@pytest.mark.parametrize("shape", [(4,), (1, 4), (0,), (1, 0)])
def test_the_array_that_was_given_stays_as_it_is(shape: tuple[int, ...]) -> None:
    """Its owner can write to it as before, also where there is nothing to write."""
    mine = np.zeros(shape, np.float32)
    Clip(mine, RATE)
    assert mine.flags.writeable


def test_the_clip_does_not_feel_a_view_of_an_array_that_came_in_a_pickle() -> None:
    """Such an array can be written to although it lies in the memory of `bytes`."""
    received = pickle.loads(pickle.dumps(np.zeros(4, np.float32), protocol=2))
    view = received[:]
    received.flags.writeable = False
    clip = Clip(received, RATE)
    view += 1
    assert not clip.samples.any()


def test_what_is_made_for_a_clip_is_not_copied() -> None:
    """An hour of audio is not twice in memory, not even for a moment."""
    made = np.ones((2, 8), np.float32)
    clip = Clip._of(made, RATE)
    assert np.shares_memory(clip.samples, made)
    assert not made.flags.writeable


@pytest.mark.parametrize(
    "clip",
    [
        Clip([0.0, 1.0], RATE),
        Clip(np.zeros((2, 9), np.int16), RATE),
        Clip(np.zeros((2, 9)), RATE).at(4000),
        Clip(np.zeros(9), RATE).at(4000),
        Clip(np.zeros((2, 9)), RATE).mono(),
        Clip(np.zeros((2, 9)), RATE).cut(0, 0.0005),
    ],
)
def test_samples_can_neither_be_written_nor_be_made_writable(clip: Clip) -> None:
    """Whatever the clip was made by; the attributes cannot be set either."""
    with pytest.raises(ValueError, match="read-only"):
        clip.samples[..., 0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        clip.samples.flags.writeable = True
    with pytest.raises(AttributeError):
        clip.rate = 1  # type: ignore[misc]
    with pytest.raises(AttributeError):
        clip.other = 1  # type: ignore[attr-defined]


# Equality


@given(floats)
def test_equal_content_has_one_hash_whatever_its_layout(samples: np.ndarray) -> None:
    """Memory order, strides and the way through a pickle or a copy do not show."""
    clip = Clip(samples, RATE)
    strided = np.repeat(samples, 2, axis=-1)[..., ::2]
    for other in (
        Clip(np.asfortranarray(samples), RATE),
        Clip(strided, RATE),
        Clip(samples.astype(">f4"), RATE),
        pickle.loads(pickle.dumps(clip)),
    ):
        assert (other, other.hash, hash(other)) == (clip, clip.hash, hash(clip))
    assert copy.copy(clip) is copy.deepcopy(clip) is clip


def test_other_content_is_another_clip() -> None:
    """Rate, shape and each sample count; so do NaN, which equals itself here, and the sign of zero."""
    clips = [
        Clip(np.zeros(4), RATE),
        Clip(np.zeros(4), RATE + 1),
        Clip(np.zeros(5), RATE),
        Clip(np.zeros((2, 2)), RATE),
        Clip(np.zeros((4, 0)), RATE),
        Clip([], RATE),
        Clip([0, 0, 0, 1e-30], RATE),
        Clip([0, 0, 0, -0.0], RATE),
        Clip([0, 0, 0, np.nan], RATE),
    ]
    assert len(set(clips)) == len({clip.hash for clip in clips}) == len(clips)
    assert clips[-1] == Clip([0, 0, 0, np.nan], RATE)
    assert clips[0] != "a clip"


def test_the_hash_is_the_same_in_every_process() -> None:
    """Caches and provenance keep it on disk."""
    assert Clip([0.0, 0.5, -0.5], 16000).hash == "edaecc435e2104da037facfdf285b280"


# What can be made of it


def test_mono_is_the_mean_of_the_channels() -> None:
    """A mono clip is returned as it is; infinities that cancel make a NaN and no warning."""
    clip = Clip([[1.0, 0.0, np.inf], [0.0, -0.5, -np.inf]], RATE).mono()
    assert np.array_equal(clip.samples, np.array([0.5, -0.25, np.nan], np.float32), equal_nan=True)
    assert clip.mono() is clip


@given(
    frames=st.integers(0, 500),
    channels=st.integers(1, 3),
    rates=st.tuples(st.sampled_from([8000, 11025, 16000, 44100]), st.sampled_from([8000, 22050, 48000])),
)
def test_another_rate_keeps_length_and_channels(frames: int, channels: int, rates: tuple[int, int]) -> None:
    """To within one sample; the own rate gives the clip itself."""
    clip = Clip(np.zeros((channels, frames)), rates[0])
    other = clip.at(rates[1])
    assert (other.rate, other.channels) == (rates[1], channels)
    assert abs(other.frames - frames * rates[1] / rates[0]) <= 1
    assert clip.at(rates[0]) is clip


def test_resampling_keeps_a_tone_and_takes_away_what_the_rate_cannot_hold() -> None:
    """1 kHz survives 44.1 -> 16 -> 44.1 kHz to -80 dB; 12 kHz is gone at 16 kHz."""
    t = np.arange(44100) / 44100
    low, high = np.sin(2 * np.pi * 1000 * t), np.sin(2 * np.pi * 12000 * t)
    inside = slice(2000, -2000)
    there_and_back = Clip([low, high], 44100).at(16000).at(44100).samples
    assert np.abs(there_and_back[0, inside] - low[inside]).max() < 1e-4
    assert np.abs(there_and_back[1, inside]).max() < 1e-4


def test_resampling_refuses_what_would_spread() -> None:
    """One NaN would make many of itself."""
    with pytest.raises(AudioError, match=r"(?s)resampling.*1 that are NaN or infinite"):
        Clip([0.0, np.nan, 0.0], RATE).at(16000)
    with pytest.raises(AudioError, match="whole number"):
        Clip([0.0], RATE).at(16000.5)  # type: ignore[arg-type]


@given(frames=st.integers(0, 200), rate=st.sampled_from([1, 7, 8000, 44100]), data=st.data())
def test_cuts_that_meet_in_time_meet_in_samples(frames: int, rate: int, data: st.DataObject) -> None:
    """Nothing is lost and nothing is heard twice."""
    clip = Clip(np.arange(frames, dtype=np.float32), rate)
    a, b = sorted(data.draw(st.floats(0, clip.seconds)) for _ in range(2))
    pieces = [clip.cut(0, a), clip.cut(a, b), clip.cut(b)]
    assert np.concatenate([piece.samples for piece in pieces]).tolist() == list(range(frames))


def test_a_cut_is_exact_and_lives_on_its_own() -> None:
    """It takes every channel, an end beyond the clip is the clip's end, and the clip is not kept for it."""
    clip = Clip(np.arange(20).reshape(2, 10) / 100, 10)
    assert clip.cut(0.2, 0.4).samples.tolist() == clip.samples[:, 2:4].tolist()
    assert clip.cut(0.9, 99).samples.tolist() == clip.samples[:, 9:].tolist()
    assert clip.cut(1).frames == 0
    assert clip.cut(0, 1) is clip
    assert not np.shares_memory(clip.cut(0.2, 0.4).samples, clip.samples)


@pytest.mark.parametrize(
    ("start", "end"), [(-0.1, None), (1.2, None), (np.nan, None), (np.inf, None), (0.5, 0.4), (0, np.nan)]
)
def test_a_cut_outside_the_clip_is_refused(start: float, end: float | None) -> None:
    """Negative times do not count from the end: the error says how to."""
    with pytest.raises(AudioError, match="the cut starts at"):
        Clip(np.zeros(10), 10).cut(start, end)


def test_numpy_sees_the_samples() -> None:
    """np.asarray shares them, another dtype or copy=True copies them."""
    clip = Clip([0.0, 0.5], RATE)
    assert np.shares_memory(np.asarray(clip), clip.samples)
    assert np.array(clip).flags.writeable
    assert np.asarray(clip, np.float64).tolist() == [0.0, 0.5]
    assert clip.__array__(copy=True).flags.writeable
    with pytest.raises(ValueError, match="copied"):
        clip.__array__(np.float64, copy=False)


# checked


def test_checked_returns_a_clip_that_fits() -> None:
    """The very same clip; an empty or broken one passes where that is asked for."""
    clip = Clip(np.zeros((2, 100)), RATE)
    assert clip.checked(rate=RATE, max_channels=2, min_seconds=100 / RATE) is clip
    empty, broken = Clip([], RATE), Clip([np.nan], RATE)
    assert empty.checked(nonempty=False) is empty
    assert broken.checked(finite=False) is broken


def test_checked_lists_everything_that_is_wrong_at_once() -> None:
    """What was found, what is needed, and how to get it; for programs, as Problems."""
    clip = Clip(np.full((3, 80), np.nan), RATE)
    with pytest.raises(AudioError) as caught:
        clip.checked(what="wav2vec2", rate=16000, mono=True, min_seconds=0.4)
    assert str(caught.value) == (
        "wav2vec2 cannot use Clip(0.01 s, 8000 Hz, 3 channels)\n"
        "  rate: found 8000 Hz, expected 16000 Hz; channels: found 3, expected mono; length: found 10 ms"
        " (80 samples), expected at least 400 ms; samples: found 240 that are NaN or infinite, expected"
        " finite numbers\n"
        "→ clip.at(16000); clip.mono(); give it a longer clip; see what made them, or"
        " np.nan_to_num(clip.samples)"
    )
    assert caught.value.details["problems"][1] == Problem("channels", "3", "mono")


def test_checked_calls_an_empty_clip_empty() -> None:
    """Not too short as well: one thing is wrong with it."""
    with pytest.raises(AudioError, match="samples: found none, expected some") as caught:
        Clip([], RATE).checked(min_seconds=1)
    assert len(caught.value.details["problems"]) == 1


# Imports


def test_importing_clip_imports_nothing_heavy() -> None:
    """A notebook that only loads the extension does not pay for numpy and the audio packages."""
    heavy = "numpy", "soundfile", "soxr", "matplotlib", "scipy", "librosa"
    code = f"import grym_nb.clip, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
