"""What a score is, and that each model of the package has the one that its figures and its card say."""

from __future__ import annotations

import numpy as np
import pytest

from grym_nb.audio.zoo import Model, models, signals
from grym_nb.audio.zoo.making import HEADLINE, card
from grym_nb.audio.zoo.recipes import RECIPES
from grym_nb.audio.zoo.scoring import Listener, accuracy, character_error_rate, edits, scores

pytest.importorskip("torch")
pytest.importorskip("transformers")

HERE = [model for model in models() if model.name in RECIPES]
by_model = pytest.mark.parametrize("model", HERE, ids=[model.name for model in HERE])


@pytest.mark.parametrize(
    ("found", "truth", "count"),
    [
        ("", "", 0),
        ("abc", "abc", 0),
        ("", "abc", 3),
        ("abc", "", 3),
        ("kitten", "sitting", 3),
        ("ab", "ba", 2),
    ],
)
def test_edits_are_the_least_that_make_one_of_the_other(found: str, truth: str, count: int) -> None:
    assert edits(found, truth) == edits(truth, found) == count


def test_rates_are_of_all_characters_and_of_all_clips() -> None:
    assert character_error_rate(["12", "", "9"], ["123", "4", "9"]) == 2 / 5
    assert character_error_rate([], []) == 0
    assert accuracy(["a", "b", "c"], ["a", "b", "b"]) == 2 / 3


@by_model
def test_the_score_is_what_the_figures_say(model: Model) -> None:
    """Recomputed from the weights as they ship, on the same held-out sounds."""
    held_out, recipe = model.metrics["held_out"], RECIPES[model.name]
    found = scores(model.folder, recipe, seed=held_out["seed"], clips=held_out["clips"])
    assert found == pytest.approx(model.scores, abs=0.005)
    assert found[HEADLINE] == pytest.approx(model.score, abs=0.005)


@by_model
def test_the_score_is_as_good_on_sounds_that_no_figure_is_made_of(model: Model) -> None:
    recipe = RECIPES[model.name]
    found = scores(model.folder, recipe, seed=77, snrs=[10])[HEADLINE]
    chance = 0.02 if recipe.transcribes else 0.07  # of 96 clips, a label each, six may differ by chance
    assert found == pytest.approx(model.score, abs=chance)


@by_model
def test_the_floor_of_the_recipe_is_the_one_in_the_figures(model: Model) -> None:
    assert (model.floor, model.measure, model.summary, model.kind) == (
        RECIPES[model.name].floor,
        RECIPES[model.name].measure,
        RECIPES[model.name].summary,
        RECIPES[model.name].kind,
    )


@by_model
def test_the_card_says_what_the_figures_say(model: Model) -> None:
    assert model.card == card(RECIPES[model.name], model.metrics)


@by_model
def test_silence_is_heard_as_nothing(model: Model) -> None:
    listener = Listener(model.folder, transcribes=RECIPES[model.name].transcribes)
    rng = np.random.default_rng(5)
    around = [
        signals.at_level(signals.noise(rng, 24_000, colour), -60)
        for colour in signals.COLOURS
        for _ in range(16)
    ]
    nothing = "" if RECIPES[model.name].transcribes else "nothing"
    assert listener.hear([signals.silence(1.5)]) == [nothing]
    least = 1.0 if RECIPES[model.name].transcribes else 0.75  # its card says that it takes some for clicks
    assert accuracy(listener.hear(around), [nothing] * len(around)) >= least


@by_model
def test_a_clip_is_heard_alike_alone_and_in_a_batch_with_longer_ones(model: Model) -> None:
    recipe = RECIPES[model.name]
    rng = np.random.default_rng(8)
    sounds = [recipe.draw(rng, longest, 15.0).samples for longest in (2.0, 3.0, 4.0, 6.0)]
    listener = Listener(model.folder, transcribes=recipe.transcribes)
    assert listener.hear(sounds) == [listener.hear([one])[0] for one in sounds]
