"""How well a model listens: what it hears in sounds that it was not trained on, beside what is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from grym_nb.audio.zoo import exercises
from grym_nb.audio.zoo.exercises import SNRS, Exercise
from grym_nb.audio.zoo.recipes import Recipe
from grym_nb.audio.zoo.signals import RATE, Samples
from grym_nb.clip.files import package

__all__ = ["CLIPS", "Listener", "accuracy", "character_error_rate", "edits", "scores"]

#: held-out clips at each signal-to-noise ratio
CLIPS = 96

_AT_ONCE = 16


def edits(found: str, truth: str) -> int:
    """Return how many characters have to be put in, taken out or replaced to make one of the other."""
    before = list(range(len(truth) + 1))
    for row, left in enumerate(found, 1):
        now = [row]
        for column, right in enumerate(truth, 1):
            now.append(min(before[column] + 1, now[-1] + 1, before[column - 1] + (left != right)))
        before = now
    return before[-1]


def character_error_rate(found: Sequence[str], truths: Sequence[str]) -> float:
    """Return the edits of all texts as a share of all characters that are there."""
    wrong = sum(edits(one, other) for one, other in zip(found, truths, strict=True))
    return wrong / max(1, sum(map(len, truths)))


def accuracy(found: Sequence[str], truths: Sequence[str]) -> float:
    """Return the share that is right."""
    right = sum(one == other for one, other in zip(found, truths, strict=True))
    return right / max(1, len(truths))


class Listener:
    """A model that was opened from its folder, in float32 on the CPU."""

    def __init__(self, folder: Path, *, transcribes: bool) -> None:
        purpose = "listening to a sound with a model of the zoo"
        self._torch = package("torch", purpose=purpose)
        transformers = package("transformers", purpose=purpose)
        kind = transformers.Wav2Vec2ForCTC if transcribes else transformers.Wav2Vec2ForSequenceClassification
        self._model = kind.from_pretrained(folder, dtype=self._torch.float32, local_files_only=True).eval()
        self._extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(folder, local_files_only=True)
        self._tokenizer: Any = None
        if transcribes:
            self._tokenizer = transformers.Wav2Vec2CTCTokenizer.from_pretrained(folder, local_files_only=True)

    def hear(self, sounds: Sequence[Samples]) -> list[str]:
        """Return what is heard in each sound: a text, or a label."""
        return [
            one for start in range(0, len(sounds), _AT_ONCE) for one in self._batch(sounds[start:][:_AT_ONCE])
        ]

    def _batch(self, sounds: Sequence[Samples]) -> Iterator[str]:
        heard = self._extractor(list(sounds), sampling_rate=RATE, padding=True, return_tensors="pt")
        with self._torch.inference_mode():
            best = self._model(**heard).logits.argmax(-1)
        if self._tokenizer is None:
            yield from (self._model.config.id2label[int(one)] for one in best)
        else:
            yield from self._tokenizer.batch_decode(best)


def scores(
    folder: Path, recipe: Recipe, *, seed: int = 0, clips: int = CLIPS, snrs: Sequence[int] = SNRS
) -> dict[str, float]:
    """Return a model's score at each signal-to-noise ratio (``"10 dB"``), on held-out sounds of a seed."""
    listener = Listener(folder, transcribes=recipe.transcribes)
    judge = character_error_rate if recipe.transcribes else accuracy
    return {f"{snr} dB": round(_score(listener, judge, _drawn(recipe, seed, clips, snr)), 4) for snr in snrs}


def _drawn(recipe: Recipe, seed: int, clips: int, snr: int) -> list[Exercise]:
    return exercises.held_out(recipe.draw, seed=seed, snr_db=snr, count=clips, longest=recipe.longest[1])


def _score(listener: Listener, judge: Any, drawn: Sequence[Exercise]) -> float:
    found = listener.hear([one.samples for one in drawn])
    return float(judge(found, [one.truth for one in drawn]))
