"""What was said in a clip: the text, its words with their times, and how sure the model was of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from grym_nb.render import Table

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Transcript", "Word", "posteriors", "transcript_of"]


@dataclass(frozen=True, slots=True)
class Word:
    """One word: from `start` to `end` seconds, and the model's probability that all of it is right."""

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True, slots=True, repr=False)
class Transcript:
    """What was said in `seconds` of sound.

    `confidence`, from 0 to 1, is the share of its characters that the model expects to be right: the mean of
    their posteriors. Of a text without any it is that of the silence: of the blank, over all frames.
    """

    text: str
    words: tuple[Word, ...]
    confidence: float
    seconds: float

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Transcript({self.text!r}, confidence={self.confidence:.2f}, {self.seconds:.2f} s)"

    def table(self) -> Table:
        """Return the words as a table."""
        rows = [(f"{w.start:.2f}", f"{w.end:.2f}", w.text, f"{w.confidence:.2f}") for w in self.words]
        return Table(self.text or "nothing was said", ("from", "to", "word", "confidence"), rows)

    def _repr_html_(self) -> str:
        return self.table().html()


def posteriors(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the probabilities of each token in each frame, ``(frames, tokens)``: the softmax of logits."""
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: npt.NDArray[np.float32] = exponents / exponents.sum(axis=-1, keepdims=True)
    return shares


def transcript_of(
    logits: npt.NDArray[np.float32], tokenizer: Any, *, blank: int, frame_s: float, seconds: float
) -> Transcript:
    """Return what the most likely path through CTC logits ``(frames, tokens)`` says.

    `tokenizer` is one of transformers, `blank` the token for nothing, `frame_s` the seconds of a frame.
    """
    likely = posteriors(logits)
    path = likely.argmax(axis=-1)
    if not (path != blank).any():
        return Transcript("", (), float(likely[:, blank].mean()) if len(likely) else 0.0, seconds)
    told = tokenizer.decode(path, output_word_offsets=True, output_char_offsets=True)
    # Of each character the frame in which it is surest: most of its run is on the way in or out.
    sure = [
        (
            int(at["start_offset"]),
            float(likely[at["start_offset"] : at["end_offset"], path[at["start_offset"]]].max()),
        )
        for at in told["char_offsets"]
    ]
    words = tuple(_word(at, sure, frame_s) for at in told["word_offsets"])
    confidence = float(np.mean([probability for _, probability in sure])) if sure else 0.0
    return Transcript(str(told["text"]), words, confidence, seconds)


def _word(at: Mapping[str, Any], sure: Sequence[tuple[int, float]], frame_s: float) -> Word:
    first, end = int(at["start_offset"]), int(at["end_offset"])
    confidence = prod(probability for start, probability in sure if first <= start < end)
    return Word(str(at["word"]), first * frame_s, end * frame_s, confidence)
