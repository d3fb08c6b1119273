"""From a recipe to a folder of the zoo: trained, written in half precision, scored as it lies there."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from grym_nb.audio.zoo.catalogue import CARD, METRICS
from grym_nb.audio.zoo.listening import KEPT, Progress, Training, tokenizer
from grym_nb.audio.zoo.recipes import Recipe
from grym_nb.audio.zoo.scoring import CLIPS, scores
from grym_nb.errors import Interrupted

__all__ = ["HEADLINE", "card", "finish", "make"]

#: the circumstances of the one score that stands for all
HEADLINE = "10 dB"

_EVERY = 100  # steps after which the training is kept


def make(
    recipe: Recipe,
    folder: Path,
    *,
    seed: int = 0,
    steps: int | None = None,
    clips: int = CLIPS,
    told: Callable[[Progress], object] = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Train a model into a folder, going on from where an earlier call stopped; return its figures.

    `told` gets each step. Once `stop()` is true, what was learned is kept and `Interrupted` raised.
    """
    training = Training(recipe, seed=seed, steps=steps)
    training.go_on(folder)
    for progress in training.run():
        told(progress)
        stopped = stop()
        if stopped or progress.step % _EVERY == 0:
            training.keep(folder)
        if stopped:
            raise Interrupted(
                f"{recipe.name} was stopped after step {progress.step} of {progress.steps}",
                hint="the same command goes on from there",
            )
    return finish(training, folder, clips=clips)


def finish(training: Training, folder: Path, *, clips: int = CLIPS) -> dict[str, Any]:
    """Write what was trained as a directory of transformers, with figures and card; return the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    training.model.half().save_pretrained(folder)
    training.model.float()
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)  # they come out for their owner alone
    training.extractor.save_pretrained(folder)
    if training.recipe.transcribes:
        tokenizer(training.recipe, folder).save_pretrained(folder)
    figures = _figures(training, scores(folder, training.recipe, clips=clips), clips)
    (folder / METRICS).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    (folder / CARD).write_text(card(training.recipe, figures), encoding="utf-8")
    (folder / KEPT).unlink(missing_ok=True)
    return figures


def _figures(training: Training, reached: dict[str, float], clips: int) -> dict[str, Any]:
    recipe = training.recipe
    return {
        "kind": recipe.kind,
        "summary": recipe.summary,
        "measure": recipe.measure,
        "score": reached[HEADLINE],
        "at": f"{HEADLINE} SNR",
        "floor": recipe.floor,
        "better": "lower" if recipe.transcribes else "higher",
        "scores": reached,
        "held_out": {"seed": 0, "clips": clips, "longest": recipe.longest[1]},
        "training": {
            "seed": training.seed,
            "steps": training.step,
            "course": [list(part) for part in training.course],
            "batch": recipe.batch,
            "minutes": round(training.seconds / 60, 1),
            "parameters": sum(weight.numel() for weight in training.model.parameters()),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "torch", "transformers")},
        },
    }


def card(recipe: Recipe, figures: dict[str, Any]) -> str:
    """Return what a model is, what it is not, how it was trained, and its scores, as Markdown."""
    trained, held_out = figures["training"], figures["held_out"]
    kept = "keeps" if _holds(figures) else "does NOT keep"
    bound = "at most" if figures["better"] == "lower" else "at least"
    symbols = " ".join("(space)" if one == " " else one for one in recipe.symbols)
    knows = symbols if recipe.transcribes else ", ".join(recipe.symbols)
    lines = [
        f"# {recipe.name}",
        "",
        f"A Wav2Vec2 of {trained['parameters']:,} parameters that {recipe.summary}.",
        f"16 kHz mono, 20 ms a frame. It knows: {knows}",
        "",
        "## What it is not",
        "",
        *(f"- {line}" for line in recipe.is_not),
        "",
        "## Score",
        "",
        f"{figures['measure'].capitalize()} on {held_out['clips']} held-out clips",
        f"of up to {held_out['longest']:g} s at each signal-to-noise ratio, in white, pink and brown noise,",
        f"as the weights lie here. It {kept} its floor: {figures['score']:.2%} at {figures['at']},",
        f"{bound} {figures['floor']:.2%} asked for.",
        "",
        f"| SNR | {figures['measure']} |",
        "|---|---|",
        *(f"| {at} | {score:.2%} |" for at, score in figures["scores"].items()),
        "",
        "## How it was trained",
        "",
        "From nothing, on sounds that `grym_nb.audio.zoo.exercises` draws anew for each step; no recordings.",
        f"{trained['steps']} steps of {trained['batch']} clips; {trained['minutes']:g} processor minutes:",
        "",
        *_commands(recipe, trained),
        "",
        "The weights are float16: open them with `from_pretrained(folder, dtype=torch.float32)`.",
        "Licence: MIT.",
    ]
    return "\n".join(lines) + "\n"


def _commands(recipe: Recipe, trained: dict[str, Any]) -> list[str]:
    """Return what has to be typed for the same weights, with the steps at which it was stopped."""
    name = recipe.name
    line = f"    python -m grym_nb.audio.zoo train {name} --out {name} --seed {trained['seed']} --steps"
    stops = [begin for begin, _ in trained["course"][1:]]
    said = [f"  (stopped after step {stop})" for stop in stops] + [""]
    return [f"{line} {end}{note}" for (_, end), note in zip(trained["course"], said, strict=True)]


def _holds(figures: dict[str, Any]) -> bool:
    if figures["better"] == "lower":
        return bool(figures["score"] <= figures["floor"])
    return bool(figures["score"] >= figures["floor"])
