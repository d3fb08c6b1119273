"""Tiny real checkpoints, made from configs: everything of a released one but its size and what it knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["PIPELINES", "VOCABULARY", "pipeline", "wav2vec2"]

VOCABULARY = {"<pad>": 0, "<unk>": 1, "|": 2, **{letter: 3 + at for at, letter in enumerate("etaonrs")}}


PIPELINES = ("AudioLDMPipeline", "AudioLDM2Pipeline", "MusicLDMPipeline", "StableAudioPipeline")


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


def pipeline(folder: Path, kind: str) -> Path:
    """Save a pipeline that makes a few tenths of a second within milliseconds; return its folder."""
    import diffusers
    import torch

    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    parts = _stable_audio() if kind == "StableAudioPipeline" else _latent(kind)
    getattr(diffusers, kind)(**parts).save_pretrained(folder)
    torch.random.set_rng_state(state)
    return folder


def _latent(kind: str) -> dict[str, Any]:
    import diffusers
    import torch
    import transformers

    text = transformers.ClapTextConfig(
        vocab_size=40, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        projection_dim=8, max_position_embeddings=40,
    )  # fmt: skip
    shape: dict[str, Any] = {
        "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 8, "sample_size": 32,
        "in_channels": 4, "out_channels": 4, "attention_head_dim": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=[8, 16], in_channels=1, out_channels=1, latent_channels=4, norm_num_groups=8,
        layers_per_block=1, down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
    )  # fmt: skip
    vocoder = transformers.SpeechT5HifiGan(
        transformers.SpeechT5HifiGanConfig(
            model_in_dim=8, sampling_rate=16000, upsample_initial_channel=16, upsample_rates=[5, 4, 4, 2],
            upsample_kernel_sizes=[10, 8, 8, 4], resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1, 3]],
            normalize_before=False,
        )
    )  # fmt: skip
    with torch.no_grad():  # audible, and each mel another sound
        for name, weight in vocoder.named_parameters():
            weight.mul_(0 if name.endswith("bias") else 1)
        vocoder.conv_post.weight.mul_(0.2 / vocoder(torch.randn(100, 8)).std())
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    parts: dict[str, Any] = {"vae": vae, "vocoder": vocoder, "scheduler": scheduler, "tokenizer": _roberta()}
    if kind == "AudioLDM2Pipeline":
        return {**parts, **_language(), **_hearing(text), "unet": _unet2(shape)}
    spoken = {"class_embed_type": "simple_projection", "projection_class_embeddings_input_dim": 8}
    shape |= {**spoken, "class_embeddings_concat": True, "cross_attention_dim": (8, 16)}
    parts["unet"] = diffusers.UNet2DConditionModel(**shape)
    if kind == "MusicLDMPipeline":
        return {**parts, **_hearing(text)}
    return {**parts, "text_encoder": transformers.ClapTextModelWithProjection(text)}


def _unet2(shape: dict[str, Any]) -> Any:
    import diffusers

    return diffusers.AudioLDM2UNet2DConditionModel(**shape, cross_attention_dim=((None, 16, 32),) * 2)


def _hearing(text: Any) -> dict[str, Any]:
    import transformers

    audio = transformers.ClapAudioConfig(
        spec_size=64, num_mel_bins=16, window_size=2, patch_size=2, patch_stride=[2, 2], num_hidden_layers=2,
        patch_embeds_hidden_size=8, depths=[1, 1], num_attention_heads=[2, 2], hidden_size=16, num_classes=4,
        projection_dim=8, enable_fusion=False, patch_embed_input_channels=1, aff_block_r=1,
    )  # fmt: skip
    config = transformers.ClapConfig(
        text_config=text.to_dict(), audio_config=audio.to_dict(), projection_dim=8
    )
    extractor = transformers.ClapFeatureExtractor(
        feature_size=16, sampling_rate=48000, hop_length=480, max_length_s=1, fft_window_size=1024,
        truncation="rand_trunc", padding="repeatpad", frequency_min=50, frequency_max=14000,
    )  # fmt: skip
    return {"text_encoder": transformers.ClapModel(config), "feature_extractor": extractor}


def _language() -> dict[str, Any]:
    import diffusers
    import transformers

    config = transformers.GPT2Config(
        n_embd=16, n_head=2, n_layer=1, n_positions=99, vocab_size=40, bos_token_id=1, eos_token_id=1
    )
    config.max_new_tokens = 8
    return {
        "text_encoder_2": _t5_encoder(32),
        "tokenizer_2": _t5(),
        "language_model": transformers.GPT2LMHeadModel(config),
        "projection_model": diffusers.AudioLDM2ProjectionModel(
            text_encoder_dim=8, text_encoder_1_dim=32, langauge_model_dim=16
        ),
    }


def _stable_audio() -> dict[str, Any]:
    import diffusers

    transformer = diffusers.StableAudioDiTModel(
        sample_size=32, in_channels=3, num_layers=2, attention_head_dim=4, num_key_value_attention_heads=2,
        out_channels=3, cross_attention_dim=4, time_proj_dim=8, global_states_input_dim=8,
        cross_attention_input_dim=4,
    )  # fmt: skip
    vae = diffusers.AutoencoderOobleck(
        encoder_hidden_size=6, downsampling_ratios=[4, 4, 8], decoder_channels=3, decoder_input_channels=3,
        audio_channels=2, channel_multiples=[2, 4, 8], sampling_rate=8000,
    )  # fmt: skip
    scheduler = diffusers.CosineDPMSolverMultistepScheduler(
        solver_order=2, prediction_type="v_prediction", sigma_data=1.0, sigma_schedule="exponential"
    )
    projection = diffusers.StableAudioProjectionModel(
        text_encoder_dim=4, conditioning_dim=4, min_value=0, max_value=32
    )
    return {
        "transformer": transformer, "vae": vae, "scheduler": scheduler, "projection_model": projection,
        "text_encoder": _t5_encoder(4), "tokenizer": _t5(),
    }  # fmt: skip


def _t5_encoder(width: int) -> Any:
    import transformers

    heads = {"d_ff": 2 * width, "d_kv": 4, "num_heads": 2, "num_layers": 1}
    return transformers.T5EncoderModel(transformers.T5Config(vocab_size=40, d_model=width, **heads))


def _roberta() -> Any:
    import transformers

    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *"abcdefghijklmnopqrstuvwxyz", "\u0120"]
    vocabulary = {token: at for at, token in enumerate(tokens)}
    return transformers.RobertaTokenizer(vocab=vocabulary, merges=[], model_max_length=32)


def _t5() -> Any:
    import transformers

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -1.0)]
    letters = [(letter, -2.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    return transformers.T5Tokenizer(vocab=[*pieces, *letters], model_max_length=32, extra_ids=0)
