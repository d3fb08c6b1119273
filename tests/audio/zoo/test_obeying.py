"""How well the text-to-audio model obeys: counted right, and true of the weights that are shipped."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grym_nb.audio.zoo import obeying, sounding, sounds
from grym_nb.audio.zoo.__main__ import main
from grym_nb.audio.zoo.obeying import Answer
from grym_nb.audio.zoo.sounds import Wording
from grym_nb.errors import Interrupted

SHIPPED = Path(obeying.__file__).parent / "models" / "sounds"


def shipped() -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((SHIPPED / "metrics.json").read_text(encoding="utf-8"))
    return figures


def test_a_share_counts_what_is_of_the_kind_that_was_asked_for() -> None:
    """Silence and another kind do not obey."""
    asked = Wording("low rumble", "rumble")
    assert obeying.share([Answer(asked, "rumble"), Answer(asked, "hiss"), Answer(asked, None)]) == 1 / 3
    assert obeying.share([]) == 0


def test_the_shipped_score_is_that_of_the_answers_kept_with_it() -> None:
    """All 120 wordings of each part."""
    figures = shipped()
    for name, heard in figures["heard"].items():
        asked = obeying.questions(name)
        right = [said == str(sounds.KINDS.index(one.kind)) for said, one in zip(heard, asked, strict=True)]
        assert len(right) == figures["held_out"]["clips"][name] == 120
        assert round(np.mean(right), 4) == figures["scores"][name]
    assert figures["score"] == figures["scores"][figures["at"]]


def test_the_shipped_card_says_what_the_figures_say() -> None:
    """No score is written by hand."""
    assert (SHIPPED / "card.md").read_text(encoding="utf-8") == obeying.card(shipped())


def test_a_card_says_it_where_a_floor_is_not_kept() -> None:
    """Beside the true score."""
    figures = shipped() | {"scores": {"taught wordings": 0.551, "unseen wordings": 0.7}}
    told = obeying.card(figures)
    assert "| taught wordings | 120 | 55.1% | 80% | NOT kept |" in told
    assert "| unseen wordings | 120 | 70.0% | 70% | kept |" in told


@pytest.mark.slow
def test_the_shipped_weights_answer_as_the_figures_say() -> None:
    """Sounds made anew from the folder are heard as what they were heard as, and obey about as often."""
    pytest.importorskip("diffusers")
    pytest.importorskip("librosa")
    figures, maker = shipped(), obeying.Maker(SHIPPED)
    for name, every in (("taught wordings", 11), ("unseen wordings", 11)):
        answers = maker.answers(
            obeying.questions(name),
            seed=figures["held_out"]["seed"],
            guidance=figures["guidance"],
            every=every,
        )
        kept = [None if said == "-" else sounds.KINDS[int(said)] for said in figures["heard"][name][::every]]
        assert np.mean([one.heard == said for one, said in zip(answers, kept, strict=True)]) >= 0.9
        assert obeying.share(answers) == pytest.approx(figures["scores"][name], abs=0.2)


@pytest.mark.slow
def test_a_training_that_is_stopped_goes_on_and_ends_in_a_folder_of_the_zoo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the command line, too: with figures of its own weights, and nothing of the training left."""
    pytest.importorskip("diffusers")
    pytest.importorskip("librosa")
    little = partial(obeying.train, clips=2, each=1)
    told: list[sounding.Progress] = []
    with pytest.raises(Interrupted, match="in its part codes, after step 1 of 1"):
        little(
            tmp_path,
            steps=dict.fromkeys(sounding.STEPS, 1),
            told=told.append,
            stop=lambda: told[-1].part == "codes",
        )
    monkeypatch.setattr(obeying, "train", little)
    assert main(["train", "sounds", "--out", str(tmp_path), "--steps", "1"]) == 0
    out = capsys.readouterr().out
    assert [progress.part for progress in told] == ["words", "codes"]
    assert "sounds, noise: step 1 of 1" in out
    assert "sounds, words" not in out
    figures = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert f"share that obeys its prompt {figures['score']:.2%} at taught wordings" in out
    assert (tmp_path / "card.md").read_text(encoding="utf-8") == obeying.card(figures)
    assert figures["held_out"]["clips"] == {"taught wordings": 10, "unseen wordings": 10}
    assert figures["ceilings"]["real sounds"] == 1
    assert figures["score"] < 0.5
    assert {path.name for path in tmp_path.iterdir()} >= {"model_index.json", "unet", "vae", "vocoder"}
    assert not (tmp_path / "kept").exists()
