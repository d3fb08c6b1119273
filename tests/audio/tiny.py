"""Tiny real checkpoints, made from configs: everything of a released one but its size and what it knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["VOCABULARY", "wav2vec2"]

VOCABULARY = {"<pad>": 0, "<unk>": 1, "|": 2, **{letter: 3 + at for at, letter in enumerate("etaonrs")}}


def wav2vec2(folder: Path, kind: str = "Wav2Vec2ForCTC", *, norm: str = "layer", seed: int = 0) -> Path:
    """Save a Wav2Vec2 of 16 dimensions with 20 ms frames, whose logits are far apart; return its folder."""
    import torch
    import transformers

    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    config = transformers.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        conv_dim=(16, 16, 16), conv_kernel=(10, 8, 4), conv_stride=(5, 8, 8), num_feat_extract_layers=3,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, classifier_proj_size=8,
        feat_extract_norm=norm, do_stable_layer_norm=norm == "layer", conv_bias=norm == "layer",
        vocab_size=len(VOCABULARY), pad_token_id=0, bos_token_id=None, eos_token_id=None,
        apply_spec_augment=False,
        id2label={0: "tone", 1: "noise", 2: "click"}, label2id={"tone": 0, "noise": 1, "click": 2},
    )  # fmt: skip
    model = getattr(transformers, kind)(config).eval()
    with torch.no_grad():
        for name in ("lm_head", "classifier"):
            if (head := getattr(model, name, None)) is not None:
                head.weight.mul_(60)
    model.save_pretrained(folder)
    torch.random.set_rng_state(state)
    preprocessor: dict[str, Any] = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": True, "feature_size": 1,
        "padding_side": "right", "padding_value": 0.0, "return_attention_mask": norm == "layer",
        "sampling_rate": 16000,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    if kind == "Wav2Vec2ForCTC":
        spoken = folder / "spoken.json"
        spoken.write_text(json.dumps(VOCABULARY))
        tokens = {"unk_token": "<unk>", "pad_token": "<pad>", "word_delimiter_token": "|"}
        tokenizer = transformers.Wav2Vec2CTCTokenizer(spoken, bos_token=None, eos_token=None, **tokens)
        tokenizer.save_pretrained(folder)
        spoken.unlink()
    return folder
