"""Pipelines that make sound of text: their parts read one by one, their faults mended, their limits told."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from grym_nb.audio import loading
from grym_nb.audio.checkpoint import Checkpoint, pipeline_parts
from grym_nb.audio.loading import Placement
from grym_nb.clip import Clip
from grym_nb.clip.files import package
from grym_nb.errors import CheckpointError
from grym_nb.render import count
from grym_nb.services.progress import track

__all__ = ["KINDS", "SCHEDULERS", "Traits", "clap_score", "fresh", "read_pipeline", "sound_of", "traits_of"]

_PURPOSE = "the audioldm service"
#: what can be loaded, with the steps and the guidance that suit it
KINDS = {
    "AudioLDMPipeline": (10, 2.5),
    "AudioLDM2Pipeline": (200, 3.5),
    "MusicLDMPipeline": (200, 2.0),
    "StableAudioPipeline": (100, 7.0),
}
#: by the names that `generate` takes
SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "dpmsolver": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "pndm": "PNDMScheduler",
    "unipc": "UniPCMultistepScheduler",
}
_STABLE = "StableAudioPipeline"
_HIDDEN = "GPT2Model"  # the language model as some repositories declare it


@dataclass(frozen=True, slots=True)
class Traits:
    """What a pipeline makes: at which rate, how long by default and at most, in how many steps."""

    rate: int
    seconds: float
    shortest: float
    longest: float
    steps: int
    guidance: float
    most_steps: int
    schedulers: tuple[str, ...]  # beside its own


# -- read ------------------------------------------------------------------------------------------


def read_pipeline(checkpoint: Checkpoint, placed: Placement) -> Any:
    """Return the pipeline of a checkpoint on its device, read part by part; tells how far it is.

    Two faults are mended. AudioLDM2 needs a GPT2 with a head, and repositories declare one without: the
    same weights are read as the other. MusicLDM takes for a tensor what CLAP answers.
    """
    transformers = loading.import_transformers(_PURPOSE)
    diffusers = package("diffusers", purpose=_PURPOSE, extra="audio")
    parts = pipeline_parts(checkpoint.config)
    made: dict[str, Any] = {name: None for name, value in checkpoint.config.items() if value == [None, None]}
    for part in track(list(parts), title=f"{checkpoint.reference}: load"):
        library, name = parts[part]
        if name == _HIDDEN:
            name = "GPT2LMHeadModel"
        home = transformers if library == "transformers" else diffusers
        if library not in ("transformers", "diffusers"):  # a module of the pipeline's own
            home = getattr(diffusers.pipelines, library)
        made[part] = _read_part(checkpoint, part, getattr(home, name), placed)
    pipeline = getattr(diffusers, checkpoint.kind)(**made)
    pipeline.set_progress_bar_config(disable=True)
    if checkpoint.kind == "MusicLDMPipeline":
        _answer_with_tensors(pipeline.text_encoder)
    return pipeline


def _read_part(checkpoint: Checkpoint, part: str, kind: Any, placed: Placement) -> Any:
    torch = loading.import_torch(_PURPOSE)
    folder = checkpoint.folder / part
    if not issubclass(kind, torch.nn.Module):
        return kind.from_pretrained(folder, local_files_only=True)
    of_transformers = kind.__module__.startswith("transformers.")
    options = {"trust_remote_code": False, "weights_only": True} if of_transformers else {}
    options["dtype" if of_transformers else "torch_dtype"] = getattr(torch, placed.stored)
    model, said = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True, **options)
    if missing := sorted(said["missing_keys"]):
        raise CheckpointError(
            f"{checkpoint.reference!r} ({checkpoint.kind}) lacks {count(len(missing), 'weight')} of {part}",
            cause=f"missing: {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}",
            hint="save the pipeline again: save_pretrained writes all of it",
        )
    return model.eval().requires_grad_(False).to(placed.device)


def _answer_with_tensors(encoder: Any) -> None:
    """Let CLAP's features of text be a tensor, as the pipeline expects."""
    features: Callable[..., Any] = encoder.get_text_features

    def get_text_features(*args: Any, **kwargs: Any) -> Any:
        answer = features(*args, **kwargs)
        return getattr(answer, "pooler_output", answer)

    encoder.get_text_features = get_text_features


# -- use -------------------------------------------------------------------------------------------


def traits_of(pipeline: Any, kind: str, *, longest_s: float) -> Traits:
    """Return what a pipeline can make; `longest_s` bounds what is bounded by memory alone."""
    steps, guidance = KINDS[kind]
    most_steps = int(getattr(pipeline.scheduler.config, "num_train_timesteps", 1000))
    if kind == _STABLE:
        rate = int(pipeline.vae.config.sampling_rate)
        longest = pipeline.transformer.config.sample_size * pipeline.vae.hop_length / rate
        longest = min(longest, float(pipeline.projection_model.config.max_value))
        shortest = max(1 / rate, float(pipeline.projection_model.config.min_value))
        return Traits(rate, longest, shortest, longest, steps, guidance, most_steps, ())
    vocoder = pipeline.vocoder.config
    rate = int(vocoder.sampling_rate)
    row = pipeline.vae_scale_factor * float(np.prod(vocoder.upsample_rates)) / rate  # seconds of a latent
    native = pipeline.unet.config.sample_size * row
    longest = max(longest_s, native)
    return Traits(rate, native, row, longest, steps, guidance, most_steps, tuple(SCHEDULERS))


def fresh(pipeline: Any, scheduler: str | None) -> Any:
    """Return the pipeline for one call: the same weights, and a scheduler that no other call has touched."""
    own = pipeline.scheduler
    kind = type(own)
    if scheduler is not None:
        kind = getattr(package("diffusers", purpose=_PURPOSE, extra="audio"), SCHEDULERS[scheduler])
    one = copy.copy(pipeline)
    one.scheduler = kind.from_config(own.config)
    return one


def sound_of(
    pipeline: Any,
    prompt: str,
    *,
    negative_prompt: str | None,
    seconds: float,
    steps: int,
    guidance: float,
    seed: int,
    on_step: Callable[[], object],
) -> Clip:
    """Return one clip; `on_step` is called after each step, and what it raises ends the work."""
    torch = loading.import_torch(_PURPOSE)
    stable = type(pipeline).__name__ == _STABLE
    # On the CPU, so that a seed is the same noise on every device.
    noise = torch.Generator("cpu").manual_seed(seed)
    audio = pipeline(
        prompt,
        negative_prompt=negative_prompt,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=noise,
        callback=lambda *_: on_step(),
        callback_steps=1,
        output_type="np",
        **{"audio_end_in_s" if stable else "audio_length_in_s": seconds},
    ).audios[0]
    config = pipeline.vae.config if stable else pipeline.vocoder.config
    return Clip(np.asarray(audio, np.float32), int(config.sampling_rate))


def clap_score(pipeline: Any, prompt: str, clip: Clip) -> float | None:
    """Return how alike CLAP finds a prompt and a sound: a cosine, or None without a CLAP that hears.

    Of a sound that is longer than CLAP hears at once it is the mean over its parts.
    """
    encoder, extractor = pipeline.text_encoder, getattr(pipeline, "feature_extractor", None)
    if extractor is None or not hasattr(encoder, "get_audio_features"):
        return None
    torch = loading.import_torch(_PURPOSE)
    samples = clip.mono().at(int(extractor.sampling_rate)).samples
    most = int(extractor.nb_max_samples)
    before = np.random.get_state()  # the extractor draws from it, and it is the user's
    try:
        heard = [
            extractor(samples[at : at + most], sampling_rate=extractor.sampling_rate, return_tensors="pt")
            for at in range(0, len(samples), most)
        ]
    finally:
        np.random.set_state(before)
    tokens = pipeline.tokenizer(prompt, return_tensors="pt", truncation=True).to(encoder.device)
    with torch.no_grad():
        text = _vector(encoder.get_text_features(**tokens))
        sounds = [_vector(encoder.get_audio_features(**_on(one, encoder))) for one in heard]
    return float(np.mean([float(text @ one) for one in sounds]))


def _on(given: Any, encoder: Any) -> dict[str, Any]:
    """Return the inputs on an encoder's device, numbers in its type."""
    return {
        name: value.to(encoder.device, encoder.dtype if value.is_floating_point() else None)
        for name, value in given.items()
    }


def _vector(answer: Any) -> Any:
    vector = getattr(answer, "pooler_output", answer)[0].float()
    return vector / vector.norm().clamp_min(1e-12)
