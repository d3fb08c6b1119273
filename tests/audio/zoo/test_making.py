"""Training for real, a few steps of it: it learns, it goes on where it stopped, and what it writes opens."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grym_nb.audio.zoo import exercises, find
from grym_nb.audio.zoo.__main__ import main
from grym_nb.audio.zoo.exercises import Exercise
from grym_nb.audio.zoo.listening import KEPT, Progress, Training, build
from grym_nb.audio.zoo.making import card, make
from grym_nb.audio.zoo.recipes import RECIPES, Recipe
from grym_nb.audio.zoo.scoring import scores
from grym_nb.errors import Interrupted, StorageError

torch: Any = pytest.importorskip("torch")
transformers: Any = pytest.importorskip("transformers")

#: the real recipes, on fewer and shorter clips
SMALL = {
    name: replace(recipe, batch=4, longest=(1.3, 1.5), hidden=32, layers=1, reach=16)
    for name, recipe in RECIPES.items()
}


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(model: Any) -> dict[str, list[float]]:
    return {name: tensor.flatten().tolist() for name, tensor in model.state_dict().items()}


def some_sounds(rng: np.random.Generator, longest: float, snr_db: float) -> Exercise:
    """Two of the eight kinds, which is soon learned."""
    while (drawn := exercises.sound(rng, longest, snr_db)).truth not in ("rise", "clicks"):
        pass
    return drawn


@pytest.mark.parametrize(
    "recipe", [SMALL["dtmf"], replace(SMALL["events"], draw=some_sounds)], ids=["dtmf", "events"]
)
def test_some_steps_lower_the_loss(recipe: Recipe) -> None:
    losses = [progress.loss for progress in Training(recipe, steps=24).run()]
    assert len(losses) == 24
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])


def test_the_same_seed_begins_with_the_same_weights_and_another_does_not() -> None:
    drawn = torch.random.get_rng_state()
    one, same, other = (weights(build(SMALL["dtmf"], seed=seed)) for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert torch.equal(torch.random.get_rng_state(), drawn)  # nobody else's numbers were taken


def test_a_training_that_was_stopped_ends_where_it_would_have_ended(tmp_path: Path) -> None:
    straight = Training(SMALL["dtmf"], seed=3, steps=4)
    told = list(straight.run())

    stopped = Training(SMALL["dtmf"], seed=3, steps=4)
    for progress in stopped.run():
        if progress.step == 2:
            break
    stopped.keep(tmp_path)
    resumed = Training(SMALL["dtmf"], seed=3, steps=4)
    assert resumed.go_on(tmp_path)
    assert [progress.step for progress in resumed.run()] == [3, 4]
    assert weights(resumed.model) == weights(straight.model)
    assert told[-1] == Progress(4, 4, told[-1].loss)


def test_a_step_that_overflows_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(SMALL["dtmf"], steps=2)
    before = weights(training.model)
    monkeypatch.setattr(training, "_loss", lambda drawn: training.model.lm_head.weight.sum() * float("nan"))
    assert [progress.step for progress in training.run()] == [1, 2]
    assert weights(training.model) == before


def test_another_training_is_not_taken_for_this_one(tmp_path: Path) -> None:
    Training(SMALL["dtmf"], seed=3, steps=4).keep(tmp_path)
    with pytest.raises(StorageError, match="of another training: dtmf with seed 3") as told:
        Training(SMALL["dtmf"], seed=4, steps=4).go_on(tmp_path)
    assert "another --out" in told.value.hint
    assert not Training(SMALL["dtmf"]).go_on(tmp_path / "nowhere")


def test_a_training_may_go_on_to_another_end_and_its_card_says_so(tmp_path: Path) -> None:
    steps: list[int] = []
    with pytest.raises(Interrupted):
        make(SMALL["dtmf"], tmp_path, steps=9, told=lambda one: steps.append(one.step), stop=lambda: True)
    figures = make(SMALL["dtmf"], tmp_path, steps=3, clips=2, told=lambda one: steps.append(one.step))
    assert steps == [1, 2, 3]
    assert (figures["training"]["steps"], figures["training"]["course"]) == (3, [[0, 9], [1, 3]])
    lines = [line.strip() for line in card(SMALL["dtmf"], figures).splitlines() if "--steps" in line]
    assert [line.partition("--steps ")[2] for line in lines] == ["9  (stopped after step 1)", "3"]


def test_a_stop_keeps_what_was_learned_and_the_next_call_ends_it(tmp_path: Path) -> None:
    shelf, steps = tmp_path, []
    folder = shelf / "events"
    with pytest.raises(Interrupted, match="after step 2 of 4"):
        make(
            SMALL["events"],
            folder,
            steps=4,
            clips=4,
            told=lambda progress: steps.append(progress.step),
            stop=lambda: len(steps) == 2,
        )
    assert (folder / KEPT).exists()
    figures = make(
        SMALL["events"], folder, steps=4, clips=4, told=lambda progress: steps.append(progress.step)
    )
    assert steps == [1, 2, 3, 4]
    assert not (folder / KEPT).exists()
    found = find("events", shelf)
    assert (found.score, found.scores, found.metrics) == (figures["score"], figures["scores"], figures)
    assert found.card == card(SMALL["events"], figures)
    assert found.scores == scores(folder, SMALL["events"], clips=4)
    assert figures["training"]["minutes"] >= 0 and figures["training"]["steps"] == 4


def test_what_is_written_is_a_plain_directory_of_transformers(tmp_path: Path) -> None:
    make(SMALL["dtmf"], tmp_path, steps=1, clips=2)
    model = transformers.Wav2Vec2ForCTC.from_pretrained(tmp_path, dtype=torch.float32)
    processor = transformers.Wav2Vec2Processor.from_pretrained(tmp_path)
    heard = processor([0.0] * 16_000, sampling_rate=16_000, return_tensors="pt")
    assert model(**heard).logits.shape == (1, 48, 2 + len(RECIPES["dtmf"].symbols))
    assert processor.tokenizer.decode([2, 2, 0, 2, 3]) == "001"
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float16"
    assert not [path for path in tmp_path.iterdir() if "training" in path.name]


def test_the_command_trains_tells_how_far_it_is_and_ends_with_the_score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "dtmf", SMALL["dtmf"])
    monkeypatch.setattr("grym_nb.audio.zoo.making.scores", lambda folder, recipe, clips: {"10 dB": 0.5})
    assert main(["train", "dtmf", "--out", str(tmp_path / "new"), "--steps", "10", "--seed", "2"]) == 0
    out = capsys.readouterr().out
    assert "dtmf: step 10 of 10, loss " in out
    assert out.endswith("character error rate 50.00% at 10 dB SNR\n")
    assert json.loads((tmp_path / "new" / "metrics.json").read_text())["training"]["seed"] == 2


def test_the_command_says_in_a_line_what_it_cannot_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Training(SMALL["dtmf"], steps=6).keep(tmp_path)
    assert main(["train", "dtmf", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("StorageError: ")
