"""How well the model `sounds` does what its prompts say, as it lies in its folder, with figures and card."""

from __future__ import annotations

import json
import platform
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from grym_nb.audio.zoo.parts import mels
from grym_nb.audio.zoo.sounding import STEPS, Progress, Sounding
from grym_nb.audio.zoo.sounds import KINDS, Wording, judged, make, wordings
from grym_nb.clip.files import package
from grym_nb.errors import Interrupted

__all__ = ["GUIDANCES", "Answer", "Maker", "card", "ceilings", "finish", "questions", "share", "train"]

#: What is tried on a seed of its own; the best one is kept with the model.
GUIDANCES = (1.5, 2.5, 4.0)

_DENOISED = 10  # steps of a sound
_AT_ONCE = 12
_FLOORS = {"taught wordings": 0.8, "unseen wordings": 0.7}
_CHOSEN_ON, _SCORED_ON = 1, 2  # seeds
_KEPT = "kept"  # folder of a training that is under way


@dataclass(frozen=True, slots=True)
class Answer:
    """What was asked for, and the kind of sound that the judge heard (None: none)."""

    asked: Wording
    heard: str | None

    @property
    def obeys(self) -> bool:
        """Whether the sound is of the kind that was asked for."""
        return self.heard == self.asked.kind


class Maker:
    """The model opened from its folder, in float32 on the CPU; `pipe` is the pipeline of diffusers."""

    def __init__(self, folder: Path) -> None:
        self._torch = package("torch", purpose="making a sound with a model of the zoo")
        diffusers = package("diffusers", purpose="making a sound with a model of the zoo")
        self.pipe = diffusers.AudioLDMPipeline.from_pretrained(
            folder, local_files_only=True, dtype=self._torch.float32
        )
        self.pipe.set_progress_bar_config(disable=True)

    def make(self, prompts: Sequence[str], *, places: Sequence[int], seed: int, guidance: float) -> Any:
        """Return a sound for each prompt, float32 ``(n, SAMPLES)``: its place and `seed` say its noise."""
        made = []
        for start in range(0, len(prompts), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            generators = [
                self._torch.Generator().manual_seed(seed * 100_000 + place) for place in places[some]
            ]
            with self._torch.inference_mode():
                made.append(
                    self.pipe(
                        list(prompts[some]),
                        num_inference_steps=_DENOISED,
                        guidance_scale=guidance,
                        generator=generators,
                    ).audios
                )
        return np.concatenate(made)

    def answers(
        self, asked: Sequence[Wording], *, seed: int, guidance: float, every: int = 1
    ) -> list[Answer]:
        """Return what the judge hears in a sound for each wording, or `every` so many of them."""
        places = range(0, len(asked), every)
        prompts = [asked[place].prompt for place in places]
        sounds = self.make(prompts, places=places, seed=seed, guidance=guidance)
        return [Answer(asked[place], judged(sound)) for place, sound in zip(places, sounds, strict=True)]


def share(answers: Sequence[Answer]) -> float:
    """Return the share of the answers that obey."""
    return sum(one.obeys for one in answers) / max(1, len(answers))


def ceilings(maker: Maker, *, each: int = 4) -> dict[str, float]:
    """Return the share of held-out real sounds that keep their kind on their way through the parts."""
    torch = package("torch", purpose="making a sound with a model of the zoo")
    vae, vocoder = maker.pipe.vae, maker.pipe.vocoder
    right: Counter[str] = Counter()
    for kind in KINDS:
        sounds = torch.from_numpy(np.stack([make(kind, 2_000 + seed) for seed in range(each)]))
        with torch.inference_mode():
            mel = mels(sounds).transpose(1, 2).contiguous()
            decoded = vae.decode(vae.encode(mel[:, None]).latent_dist.mode()).sample[:, 0]
            through = {
                "real sounds": sounds,
                "vocoder": vocoder(mel),
                "auto-encoder and vocoder": vocoder(decoded),
            }
        for name, made in through.items():
            right[name] += sum(judged(one) == kind for one in made.numpy())
    return {name: round(right[name] / (each * len(KINDS)), 4) for name in right}


def train(
    folder: Path,
    *,
    seed: int = 0,
    steps: Mapping[str, int] = STEPS,
    clips: int = 120,
    each: int = 12,
    told: Callable[[Progress], object] = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Train the model into a folder, going on from where an earlier call stopped; return its figures.

    `clips` and `each` are how many sounds of each kind there are to learn from, and how many wordings of
    each kind are asked for in the end. `told` gets each step. Once `stop()` is true, `Interrupted` is
    raised; a part that was under way goes on from the last hundred of its steps.
    """
    sounding = Sounding(folder / _KEPT, seed=seed, clips=clips, steps=steps)
    for part in STEPS:
        for progress in sounding.run(part):
            told(progress)
            if stop():
                raise Interrupted(
                    f"sounds was stopped in its part {part}, after step {progress.step} of {progress.steps}",
                    hint="the same command goes on from there",
                )
    figures = finish(sounding, folder, each=each)
    shutil.rmtree(folder / _KEPT)
    return figures


def questions(name: str, *, each: int = 12) -> list[Wording]:
    """Return what is asked for a score (``"taught wordings"``): `each` of each kind."""
    said = wordings(name.partition(" ")[0])
    return [one for place, one in enumerate(said) if place % 12 < each]


def finish(sounding: Sounding, folder: Path, *, each: int = 12, note: str = "") -> dict[str, Any]:
    """Write what was trained as a directory of diffusers, with figures and card; return the figures.

    `note` is told on the card with how it was trained.
    """
    sounding.save(folder)
    maker = Maker(folder)
    taught = questions("taught wordings", each=each)
    tried = {one: share(maker.answers(taught, seed=_CHOSEN_ON, guidance=one, every=3)) for one in GUIDANCES}
    guidance = max(tried, key=lambda one: tried[one])
    answers = {
        name: maker.answers(questions(name, each=each), seed=_SCORED_ON, guidance=guidance)
        for name in _FLOORS
    }
    figures = _figures(sounding, maker, answers, tried, guidance)
    figures["training"]["note"] = note
    (folder / "metrics.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    (folder / "card.md").write_text(card(figures), encoding="utf-8")
    return figures


def _figures(
    sounding: Sounding,
    maker: Maker,
    answers: Mapping[str, Sequence[Answer]],
    tried: Mapping[float, float],
    guidance: float,
) -> dict[str, Any]:
    scores = {name: round(share(some), 4) for name, some in answers.items()}
    headline = "taught wordings"
    networks = ("text_encoder", "vae", "unet", "vocoder")
    return {
        "kind": "generation",
        "summary": "makes ten kinds of noise from a prompt, 2.56 s each",
        "measure": "share that obeys its prompt",
        "score": scores[headline],
        "at": headline,
        "floor": _FLOORS[headline],
        "better": "higher",
        "scores": scores,
        "floors": _FLOORS,
        "by_kind": {name: _by_kind(some) for name, some in answers.items()},
        "heard": {name: _heard(some) for name, some in answers.items()},
        "mistaken": {name: _mistaken(some) for name, some in answers.items()},
        "guidance": guidance,
        "guidances_tried": {str(one): round(reached, 4) for one, reached in tried.items()},
        "denoising_steps": _DENOISED,
        "held_out": {"seed": _SCORED_ON, "clips": {name: len(some) for name, some in answers.items()}},
        "ceilings": ceilings(maker),
        "training": {
            "seed": sounding.seed,
            "steps": dict(sounding.steps),
            "sounds": sounding.clips * len(KINDS),
            "parameters": {
                name: sum(weight.numel() for weight in getattr(maker.pipe, name).parameters())
                for name in networks
            },
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "torch", "transformers", "diffusers")},
        },
    }


def _by_kind(answers: Sequence[Answer]) -> dict[str, float]:
    return {kind: round(share([one for one in answers if one.asked.kind == kind]), 4) for kind in KINDS}


def _heard(answers: Sequence[Answer]) -> str:
    """Return what was heard in each place: the number of the kind, or - for silence."""
    return "".join("-" if one.heard is None else str(KINDS.index(one.heard)) for one in answers)


def _mistaken(answers: Sequence[Answer]) -> dict[str, int]:
    """Return how often which kind was asked for and which other one was heard, most frequent first."""
    counted = Counter(f"{one.asked.kind} -> {one.heard or 'silence'}" for one in answers if not one.obeys)
    return dict(counted.most_common())


def card(figures: Mapping[str, Any]) -> str:
    """Return what the model is, what it is not, how it was trained, and its scores, as Markdown."""
    trained = figures["training"]
    steps = ", ".join(f"{part} {count}" for part, count in trained["steps"].items())
    by_kind = figures["by_kind"]
    lines = [
        "# sounds",
        "",
        f"An AudioLDM of {sum(trained['parameters'].values()):,} parameters that {figures['summary']}.",
        f"16 kHz mono. The kinds: {', '.join(KINDS)}.",
        "",
        "## What it is not",
        "",
        "- Not a model of the sounds of the world: its wind and rain are shaped noise, as its examples were.",
        "- Not for other prompts: it knows the words of `grym_nb.audio.zoo.sounds.wordings`, in lower case",
        "  or with a capital. Any other word is letters to it, and what it makes then means nothing.",
        "- Not known to sound well: the judge says which of the ten kinds is nearest, and nobody listened.",
        "- Not for speech, music or pure tones, and not for other lengths than 2.56 s, which nobody tried.",
        "",
        "## Score",
        "",
        "Share of the clips that the judge of `grym_nb.audio.zoo.sounds`, which measures sounds and knows",
        "nothing of the model, takes for the kind that was asked for, as the weights lie here.",
        f"{figures['denoising_steps']} steps, guidance {figures['guidance']:g}: the best on another seed.",
        "",
        "| prompts | clips | score | floor | |",
        "|---|---|---|---|---|",
        *(_line(name, score, figures) for name, score in figures["scores"].items()),
        "",
        f"| kind | {' | '.join(by_kind)} |",
        "|---|---|---|",
        *(f"| {kind} | {' | '.join(f'{some[kind]:.0%}' for some in by_kind.values())} |" for kind in KINDS),
        "",
        "Where it could be lost: of held-out real sounds the judge takes for their kind",
        ", ".join(f"{reached:.0%} ({name})" for name, reached in figures["ceilings"].items()) + ".",
        "",
        "## How it was trained",
        "",
        f"From nothing, on {trained['sounds']} sounds that `grym_nb.audio.zoo.sounds` makes; no recordings.",
        f"Steps: {steps}.",
        *([trained["note"]] if trained["note"] else []),
        "",
        f"    python -m grym_nb.audio.zoo train sounds --out sounds --seed {trained['seed']}",
        "",
        "The weights are float16: `diffusers.AudioLDMPipeline.from_pretrained(folder, dtype=torch.float32)`.",
        "Licence: MIT.",
    ]
    return "\n".join(lines) + "\n"


def _line(name: str, score: float, figures: Mapping[str, Any]) -> str:
    floor, clips = figures["floors"][name], figures["held_out"]["clips"][name]
    return f"| {name} | {clips} | {score:.1%} | {floor:.0%} | {'kept' if score >= floor else 'NOT kept'} |"
