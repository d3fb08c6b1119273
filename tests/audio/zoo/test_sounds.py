"""The sounds that a model is taught, the words for them, and the judge of what the model makes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from grym_nb.audio.zoo import sounds
from grym_nb.errors import ValidationError

FIRST_HELD_OUT = 1000


def test_a_sound_is_the_same_for_the_same_seed_and_differs_by_seed_and_kind() -> None:
    """So that training and scores can be repeated."""
    made = {(kind, seed): sounds.make(kind, seed).tobytes() for kind in sounds.KINDS for seed in (1, 2)}
    assert len(set(made.values())) == len(made)
    assert sounds.make("rain", 2).tobytes() == made["rain", 2]


@pytest.mark.parametrize("kind", sounds.KINDS)
def test_a_sound_has_its_length_and_stays_within_full_scale(kind: str) -> None:
    """2.56 seconds, not too quiet."""
    sound = sounds.make(kind, FIRST_HELD_OUT)
    peak = float(np.abs(sound).max())
    assert (sound.shape, sound.dtype) == ((sounds.SAMPLES,), np.float32)
    assert 0.3 < peak < 0.8


@pytest.mark.parametrize("kind", sounds.KINDS)
def test_no_sound_rests_on_a_pure_tone(kind: str) -> None:
    """No single bin of 4 Hz holds much of a sound's power."""
    power = np.abs(np.fft.rfft(sounds.make(kind, FIRST_HELD_OUT)[: 10 * 4000].reshape(10, 4000), axis=1)) ** 2
    assert power.mean(axis=0).max() / power.mean(axis=0).sum() < 0.1


def test_the_judge_knows_the_kind_of_held_out_sounds() -> None:
    """98 of 100 and more; it was set up with sounds of other seeds."""
    asked = [(kind, seed) for kind in sounds.KINDS for seed in range(FIRST_HELD_OUT, FIRST_HELD_OUT + 20)]
    right = [sounds.judged(sounds.make(kind, seed)) == kind for kind, seed in asked]
    assert np.mean(right) >= 0.98


@pytest.mark.parametrize("gain", [0.1, 0.5])
def test_the_judge_does_not_go_by_loudness(gain: float) -> None:
    """A kind is what a sound does, not how loud it is."""
    assert [sounds.judged(gain * sounds.make(kind, FIRST_HELD_OUT)) for kind in sounds.KINDS] == list(
        sounds.KINDS
    )


def test_the_judge_goes_by_the_direction_of_time() -> None:
    """A rise backwards is a fall, and what is the same both ways stays what it is."""
    for kind, backwards in (
        ("rise", "fall"),
        ("fall", "rise"),
        ("hiss", "hiss"),
        ("fast pulses", "fast pulses"),
    ):
        assert sounds.judged(sounds.make(kind, FIRST_HELD_OUT)[::-1]) == backwards


@pytest.mark.parametrize(
    "sound",
    [np.zeros(sounds.SAMPLES), np.full(sounds.SAMPLES, np.nan), np.zeros(0), 1e-3 * sounds.make("hiss", 1)],
    ids=["silence", "nan", "empty", "below the floor"],
)
def test_what_is_no_sound_is_no_kind(sound: np.ndarray) -> None:
    """So that a model which makes nothing never obeys."""
    assert sounds.judged(sound) is None
    assert np.isnan(sounds.features(sound)).all()


def test_the_features_measure_what_their_names_say() -> None:
    """Taken of noise whose truth is known."""
    rng = np.random.default_rng(0)
    white = 0.1 * rng.standard_normal(sounds.SAMPLES)
    steady = dict(zip(sounds.FEATURES, sounds.features(white), strict=True))
    decaying = dict(
        zip(sounds.FEATURES, sounds.features(white * np.logspace(0, -2, sounds.SAMPLES)), strict=True)
    )
    gated = white * (np.arange(sounds.SAMPLES) % 8000 < 4000)  # twice a second
    pulsing = dict(zip(sounds.FEATURES, sounds.features(gated), strict=True))
    assert steady["centroid"] == pytest.approx(np.log2(4000 / 100) - 0.44, abs=0.05)  # mean log of 0..1 is -1
    assert [steady[name] for name in ("onsets", "regularity", "depth")] == [0, 0, 0]
    assert steady["trend"] == pytest.approx(0, abs=1.5)
    assert decaying["trend"] == pytest.approx(-40, abs=2)
    assert pulsing["onsets"] ** 2 == pytest.approx(5, abs=1)
    assert pulsing["depth"] == pytest.approx(0.5, abs=0.05)
    assert pulsing["regularity"] > 0.8


def test_wordings_are_twelve_for_each_kind_and_no_unseen_one_is_taught() -> None:
    """Unseen ones have only words that were taught for their kind, in other combinations."""
    taught, unseen = sounds.wordings("taught"), sounds.wordings("unseen")
    for part in (taught, unseen):
        assert Counter(one.kind for one in part) == dict.fromkeys(sounds.KINDS, 12)
        assert len({one.prompt for one in part}) == 120
    assert not {one.prompt for one in taught} & {one.prompt for one in unseen}
    for kind in sounds.KINDS:
        known = {word for one in taught if one.kind == kind for word in one.prompt.split()}
        assert {word for one in unseen if one.kind == kind for word in one.prompt.split()} <= known


def test_unseen_wordings_pair_words_that_were_never_taught_together() -> None:
    """Not only another sentence around a pair that is known."""
    frame = set("the sound of a recording that is play some".split())

    def pairs(part: str) -> set[frozenset[str]]:
        return {frozenset(one.prompt.split()) - frame for one in sounds.wordings(part)}

    assert not pairs("taught") & pairs("unseen")


def test_an_unknown_kind_or_part_is_refused_by_name() -> None:
    """The error lists what there is."""
    with pytest.raises(ValidationError, match="kind is 'thunder'") as kind:
        sounds.make("thunder", 0)
    assert "rumble, hiss" in str(kind.value)
    with pytest.raises(ValidationError, match="part is 'known'"):
        sounds.wordings("known")
