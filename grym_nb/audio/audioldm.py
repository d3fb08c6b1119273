"""AudioLDM, AudioLDM2, MusicLDM and Stable Audio behind one task: sound of a text."""

from __future__ import annotations

import random
from typing import Annotated, Any

from grym_nb.audio import loading
from grym_nb.audio.checkpoint import Checkpoint, find
from grym_nb.audio.generated import Candidate, Generated
from grym_nb.audio.pipelines import KINDS, clap_score, fresh, read_pipeline, sound_of, traits_of
from grym_nb.errors import ConfigError, Problem, ValidationError, closest
from grym_nb.render import brief, seconds
from grym_nb.services.checks import not_empty, within
from grym_nb.services.model import ModelService, task
from grym_nb.services.progress import track

__all__ = ["AudioLDM"]

_MOST_CANDIDATES = 16
_MOST_GUIDANCE = 50.0
_SEEDS = 1 << 32
_BOUNDLESS = 1 << 20  # tokens: tokenizers that know no limit say a number beyond any text


class AudioLDM(ModelService):
    """Makes sounds of prompts, with a pipeline of the AudioLDM family.

    `model` is a directory, an id of the hub (owner/name@revision) or zoo:NAME; `device` and `dtype` what
    `loading.placement` takes. `longest_s` bounds how long a sound may be asked for, where the model does not.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        longest_s: float = 60.0,
    ) -> None:
        if not 0 < longest_s < float("inf"):
            problem = Problem("longest_s", brief(longest_s), "seconds above 0")
            raise ConfigError("AudioLDM cannot be made so", problems=[problem])
        self.model, self._device, self._dtype = model, device, dtype
        self.longest_s = longest_s

    def load(self) -> None:
        """Read the checkpoint onto its device; two services with the same one share its weights."""
        self.checkpoint: Checkpoint = find(self.model, dict.fromkeys(KINDS, ()), service="audioldm")
        self.placement = loading.placement(self._device, self._dtype, service="audioldm", int8=False)
        self.device = self.placement.device
        self.pipeline = self.shared(loading.shared_key(self.checkpoint, self.placement), self._read)

    def _read(self) -> Any:
        checkpoint, placed = self.checkpoint, self.placement
        return loading.load(checkpoint, placed, lambda: read_pipeline(checkpoint, placed), service="audioldm")

    @task("audio.generate")
    def generate(
        self,
        prompt: Annotated[str, not_empty()],
        *,
        negative_prompt: str | None = None,
        seconds: float | None = None,
        steps: int | None = None,
        guidance: Annotated[float | None, within(0, _MOST_GUIDANCE)] = None,
        seed: int | None = None,
        candidates: Annotated[int, within(1, _MOST_CANDIDATES)] = 1,
        scheduler: str | None = None,
    ) -> Generated:
        """Return sounds for a prompt: `candidates` of them, the best first where the checkpoint can tell.

        What is left out is as the model likes it. The candidates have the seeds from `seed` on, each makes
        the same sound again; one is drawn where none is given. Without `negative_prompt` nothing is steered
        away from ("Low quality." often helps). Limits are refused before anything runs.
        """
        traits = traits_of(self.pipeline, self.checkpoint.kind, longest_s=self.longest_s)
        length = traits.seconds if seconds is None else float(seconds)
        steps = traits.steps if steps is None else steps
        guidance = traits.guidance if guidance is None else float(guidance)
        first = random.SystemRandom().randrange(_SEEDS) if seed is None else seed
        problems = [
            *_outside("seconds", length, traits.shortest, traits.longest, unit="seconds"),
            *_outside("steps", steps, 1, traits.most_steps, unit="a whole number"),
            *_outside("seed", first, 0, 2 * _SEEDS, unit="a whole number"),
            *_unknown(scheduler, traits.schedulers, type(self.pipeline.scheduler).__name__),
            *_unfit_prompts(self.pipeline, prompt, negative_prompt, guidance),
        ]
        if problems:
            raise ValidationError(f"{self.checkpoint.kind} cannot generate that", problems=problems)
        step = track(range(steps * candidates))
        next(step)
        made = []
        for at in range(candidates):
            pipeline = fresh(self.pipeline, scheduler)
            clip = sound_of(
                pipeline,
                prompt,
                negative_prompt=negative_prompt,
                seconds=length,
                steps=steps,
                guidance=guidance,
                seed=first + at,
                on_step=lambda: next(step, None),
            )
            made.append(Candidate(clip, first + at, clap_score(pipeline, prompt, clip)))
        # One prompt a call: pipelines that rank several prompts at once give one the sounds of another.
        made.sort(key=lambda one: 0.0 if one.score is None else -one.score)
        name = type(pipeline.scheduler).__name__
        return Generated(prompt, negative_prompt, tuple(made), steps, guidance, name)


def _outside(name: str, value: float, low: float, high: float, *, unit: str) -> list[Problem]:
    if low <= value <= high:
        return []
    ends = [seconds(end) if unit == "seconds" else f"{end:g}" for end in (low, high)]
    return [Problem(name, brief(value), f"{unit} from {ends[0]} to {ends[1]}")]


def _unknown(scheduler: str | None, known: tuple[str, ...], own: str) -> list[Problem]:
    if scheduler is None or scheduler in known:
        return []
    expected = (
        f"one of {', '.join(known)}, or None for {own}" if known else f"None: only {own} fits this model"
    )
    return [Problem("scheduler", brief(scheduler), expected + closest(scheduler, known))]


def _unfit_prompts(pipeline: Any, prompt: str, negative: str | None, guidance: float) -> list[Problem]:
    problems = []
    for name, text in (("prompt", prompt), ("negative_prompt", negative)):
        if text is not None and not text.strip() and name == "prompt":
            problems.append(Problem(name, brief(text), "words"))
        elif text is not None and (excess := _too_long(pipeline, text)):
            problems.append(Problem(name, *excess))
    if negative is not None and guidance <= 1:
        problems.append(Problem("guidance", brief(guidance), "above 1: else negative_prompt does nothing"))
    return problems


def _too_long(pipeline: Any, text: str) -> tuple[str, str] | None:
    """Return what was found and what is expected of a text that would be cut off."""
    for name in ("tokenizer", "tokenizer_2"):
        tokenizer = getattr(pipeline, name, None)
        most = getattr(tokenizer, "model_max_length", _BOUNDLESS)
        if tokenizer is not None and most < _BOUNDLESS:
            tokens = len(tokenizer(text, verbose=False).input_ids)
            if tokens > most:
                return f"{tokens} tokens", f"at most {most}: what is beyond would not be heard"
    return None
