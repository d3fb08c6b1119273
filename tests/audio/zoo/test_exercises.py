"""What the models of the zoo learn from is drawn by seeds, and what they are scored on is none of it."""

from __future__ import annotations

import re

import numpy as np
import pytest

from grym_nb.audio.zoo import exercises
from grym_nb.audio.zoo.recipes import RECIPES
from grym_nb.audio.zoo.signals import CODE, EVENTS, RATE

ALL = list(RECIPES.values())
by_name = pytest.mark.parametrize("recipe", ALL, ids=[recipe.name for recipe in ALL])


@by_name
def test_the_same_seed_and_step_draw_the_same_sounds(recipe) -> None:
    one, again, other = (
        exercises.training(recipe.draw, seed=seed, step=7, count=3, longest=3.0) for seed in (1, 1, 2)
    )
    assert [(a.truth, a.samples.tobytes()) for a in one] == [(a.truth, a.samples.tobytes()) for a in again]
    assert one[0].samples.tobytes() != other[0].samples.tobytes()


@by_name
def test_no_held_out_sound_is_one_of_the_training(recipe) -> None:
    seen = {
        one.samples.tobytes()
        for step in range(20)
        for one in exercises.training(recipe.draw, seed=0, step=step, count=4, longest=3.0)
    }
    held_out = exercises.held_out(recipe.draw, seed=0, snr_db=10, count=20, longest=3.0)
    assert seen.isdisjoint(one.samples.tobytes() for one in held_out)


@by_name
def test_sounds_are_finite_within_full_scale_and_have_a_truth_that_can_be_written(recipe) -> None:
    for one in exercises.held_out(recipe.draw, seed=3, snr_db=5, count=40, longest=4.0):
        assert one.samples.dtype == np.float32
        assert np.isfinite(one.samples).all()
        assert np.abs(one.samples).max() < 8.0
        assert len(one.samples) <= 7.5 * RATE
        assert (
            one.truth in recipe.symbols if not recipe.transcribes else set(one.truth) <= set(recipe.symbols)
        )


def test_the_drawn_texts_are_keys_and_telegrams() -> None:
    keys = [one.truth for one in exercises.held_out(exercises.keys, seed=0, snr_db=10, count=60, longest=4.0)]
    words = [
        one.truth for one in exercises.held_out(exercises.telegram, seed=0, snr_db=10, count=60, longest=4.0)
    ]
    sounds = {
        one.truth for one in exercises.held_out(exercises.sound, seed=0, snr_db=10, count=90, longest=2.0)
    }
    assert all(re.fullmatch(r"[0-9*#]*", text) for text in keys)
    assert all(re.fullmatch(r"([A-Z0-9]+( [A-Z0-9]+)*)?", text) for text in words)
    assert "" in keys and "" in words
    assert set("".join(words)) - {" "} <= set(CODE)
    assert sounds == set(EVENTS)
