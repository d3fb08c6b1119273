"""The networks of the text-to-audio model, its tokens, and what its training compares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grym_nb.audio.zoo import parts, sounds

torch: Any = pytest.importorskip("torch")
transformers: Any = pytest.importorskip("transformers")
pytest.importorskip("diffusers")
pytest.importorskip("librosa")


def test_a_taught_word_is_one_token_and_any_other_is_letters() -> None:
    """With and without a capital; nothing is unknown."""
    tokens = parts.tokenizer()
    for wording in sounds.wordings("taught"):
        assert tokens.tokenize(wording.prompt) == [f"Ġ{word}" for word in wording.prompt.split()]
    assert tokens.tokenize("Gusty wind") == ["ĠGusty", "Ġwind"]
    assert tokens.tokenize("zebra") == ["Ġ", *"zebra"]
    assert tokens.unk_token_id not in tokens("Zebra, 7 of 9!")["input_ids"]


def test_tokens_are_the_same_each_time_and_after_a_trip_over_disk(tmp_path: Path) -> None:
    """What was learned hangs on their numbers."""
    prompts = ["Rain that is low", "the sound of gusty breeze", "zebra", ""]
    tokens = parts.tokenizer()
    tokens.save_pretrained(tmp_path)
    again = transformers.RobertaTokenizer.from_pretrained(tmp_path, local_files_only=True)
    numbers = tokens(prompts)["input_ids"]
    assert parts.tokenizer()(prompts)["input_ids"] == numbers
    assert again(prompts)["input_ids"] == numbers


def test_mels_lie_where_the_networks_expect_them() -> None:
    """Frames of 10 ms; silence is the floor, and a band of noise is where it is."""
    low, high = (parts.mels(torch.from_numpy(sounds.make(kind, 0))[None])[0] for kind in ("rumble", "hiss"))
    silence = parts.mels(torch.zeros(1, sounds.SAMPLES))[0]
    assert low.shape == (64, parts.FRAMES)
    assert sounds.SAMPLES == parts.FRAMES * parts.HOP
    assert silence.unique().tolist() == pytest.approx([(np.log(1e-4) + 4.5) / 4.5])
    assert low.mean(1).argmax() < 8
    assert high.mean(1).argmax() > 48
    assert -1.1 < low.min() < low.max() < 1.5


def test_a_sound_is_like_itself_and_less_like_silence_than_another_of_its_kind() -> None:
    """Silence must not be the best guess, though most bands of a sound are silent."""
    true = torch.from_numpy(np.stack([sounds.make(kind, 1) for kind in ("rumble", "rain", "hiss")]))
    other = torch.from_numpy(np.stack([sounds.make(kind, 2) for kind in ("rumble", "rain", "hiss")]))
    assert float(parts.unlike(true, true)) == 0
    assert 0 < float(parts.unlike(other, true)) < float(parts.unlike(torch.zeros_like(true), true))


def test_networks_are_drawn_from_their_seed_and_leave_the_generator_alone() -> None:
    """And all of the pipeline together is below 3.6 MB in float16."""
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, same, other = (parts.networks(seed, 830) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    for name in ("text", "ear", "vae", "vocoder", "unet"):
        first, again, differs = (
            torch.cat([p.flatten() for p in n[name].parameters()]) for n in (one, same, other)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, differs)
    numbers = sum(p.numel() for name in one if name != "ear" for p in one[name].parameters())
    assert 2 * numbers < 3_600_000
