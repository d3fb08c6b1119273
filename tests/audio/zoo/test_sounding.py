"""Training of the text-to-audio model: real steps, kept and gone on with, and a pipeline at the end."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grym_nb.audio.zoo import sounding, sounds
from grym_nb.errors import StorageError

torch: Any = pytest.importorskip("torch")
diffusers: Any = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytest.importorskip("librosa")


def made(folder: Path, *, steps: int = 4, seed: int = 0) -> sounding.Sounding:
    return sounding.Sounding(
        folder, seed=seed, clips=2, steps=dict.fromkeys(sounding.STEPS, steps), keep_every=2
    )


def test_a_training_that_was_stopped_ends_where_it_would_have_ended(tmp_path: Path) -> None:
    """The steps after the stop are the same steps: nothing but the folder is handed on."""
    whole = list(made(tmp_path / "whole").run("words"))
    before = list(islice(made(tmp_path / "parts").run("words"), 2))
    after = list(made(tmp_path / "parts").run("words"))
    assert [progress.step for progress in whole] == [1, 2, 3, 4]
    assert [progress.loss for progress in before + after] == pytest.approx(
        [progress.loss for progress in whole]
    )
    assert list(made(tmp_path / "parts").run("words")) == []


def test_steps_teach(tmp_path: Path) -> None:
    """The words of a kind and its sounds come together."""
    losses = [progress.loss for progress in made(tmp_path, steps=24).run("words")]
    assert np.mean(losses[-6:]) < 0.9 * np.mean(losses[:6])


def test_a_pipeline_comes_out_of_all_parts_and_makes_sounds_from_its_folder(tmp_path: Path) -> None:
    """In float16 on disk, below 3.6 MB, opened by diffusers itself; the same seed makes the same sound."""
    trained = made(tmp_path / "kept", steps=1)
    for part in sounding.STEPS:
        assert [np.isfinite(progress.loss) for progress in trained.run(part)] == [True]
    trained.save(tmp_path / "out")
    pipe = diffusers.AudioLDMPipeline.from_pretrained(
        tmp_path / "out", local_files_only=True, dtype=torch.float32
    )
    pipe.set_progress_bar_config(disable=True)
    once, again, other = (
        pipe("low rumble", num_inference_steps=2, generator=torch.Generator().manual_seed(seed)).audios
        for seed in (0, 0, 1)
    )
    assert once.shape == (1, sounds.SAMPLES)
    assert np.isfinite(once).all()
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)
    assert pipe.vae.config.scaling_factor == pytest.approx(trained.modules["vae"].config.scaling_factor)
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file()) < 3_600_000


def test_a_part_waits_for_those_that_it_needs(tmp_path: Path) -> None:
    """The error names the one that is missing, or not whole, and the order."""
    with pytest.raises(StorageError, match=r"the part words is not trained: .* is missing"):
        next(made(tmp_path).run("noise"))
    list(islice(made(tmp_path).run("words"), 2))
    with pytest.raises(StorageError, match="is at step 2 of 4") as raised:
        next(made(tmp_path).run("noise"))
    assert "words, codes, sound, noise" in str(raised.value)


def test_what_another_training_kept_is_refused(tmp_path: Path) -> None:
    """Neither its weights nor its file are touched."""
    list(islice(made(tmp_path, seed=1).run("words"), 2))
    kept = (tmp_path / "words.pt").read_bytes()
    with pytest.raises(StorageError, match="is of another training"):
        next(made(tmp_path, seed=2).run("words"))
    assert (tmp_path / "words.pt").read_bytes() == kept
