"""What there is in the zoo: each model is a folder with weights, and with the figures of what it can do.

Reading it imports nothing and loads nothing; a folder without figures, or without weights, is not listed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grym_nb.errors import Problem, StorageError, ValidationError, closest
from grym_nb.render import brief

__all__ = ["CARD", "METRICS", "SHELF", "Model", "find", "models"]

#: where the models are that come with the package
SHELF = Path(__file__).parent / "models"
CARD = "card.md"
METRICS = "metrics.json"


@dataclass(frozen=True, slots=True)
class Model:
    """A trained model: where it is, what it does, how large it is, and how well it did.

    `score` is its `measure` on sounds that it was not trained on, `at` what circumstances, and `floor` what
    it was to reach there; `scores` has the other circumstances, too. `bytes` counts all files of the folder,
    which `from_pretrained(folder, dtype=torch.float32)` of transformers (or diffusers) opens.
    """

    name: str
    folder: Path
    kind: str
    summary: str
    bytes: int
    measure: str
    score: float
    at: str
    floor: float
    better: str  # "lower" or "higher"
    scores: Mapping[str, float]

    @property
    def holds(self) -> bool:
        """Whether the score keeps its floor."""
        return self.score <= self.floor if self.better == "lower" else self.score >= self.floor

    @property
    def card(self) -> str:
        """What it is and what it is not, how it was trained, and its scores: Markdown."""
        return (self.folder / CARD).read_text(encoding="utf-8")

    @property
    def metrics(self) -> dict[str, Any]:
        """All of its figures: scores, how they were taken, training, and versions."""
        return _figures(self.folder)


def models(shelf: Path = SHELF) -> list[Model]:
    """Return the models there are, by name."""
    return [
        _model(found.parent) for found in sorted(shelf.glob(f"*/{METRICS}")) if _has_weights(found.parent)
    ]


def find(name: str, shelf: Path = SHELF) -> Model:
    """Return the model of a name; ``zoo:`` may stand before it. An unknown one names the closest."""
    known = {model.name: model for model in models(shelf)}
    plain = name.removeprefix("zoo:") if isinstance(name, str) else name
    if not isinstance(plain, str) or plain not in known:
        there = ", ".join(known) or "none"
        near = closest(plain, known) if isinstance(plain, str) else ""
        raise ValidationError(
            f"the zoo has no model {brief(plain)}.{near}",
            problems=[Problem("name", brief(name), f"one of: {there}")],
            hint="grym_nb.audio.zoo.models() and %grym zoo list what is there",
        )
    return known[plain]


def _has_weights(folder: Path) -> bool:
    return any(folder.rglob("*.safetensors"))


def _figures(folder: Path) -> dict[str, Any]:
    path = folder / METRICS
    try:
        figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(
            f"the figures of the model {folder.name} cannot be read",
            cause=f"{path}: {error}",
            hint="install grym-nb again, or train the model anew",
        ) from error
    return figures


def _model(folder: Path) -> Model:
    figures = _figures(folder)
    try:
        return Model(
            name=folder.name,
            folder=folder,
            bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
            **{name: figures[name] for name in _FIGURES},
        )
    except KeyError as error:
        raise StorageError(
            f"the figures of the model {folder.name} are not complete",
            cause=f"{folder / METRICS} has no {error.args[0]!r}",
            hint="install grym-nb again, or train the model anew",
        ) from None


_FIGURES = ("kind", "summary", "measure", "score", "at", "floor", "better", "scores")
