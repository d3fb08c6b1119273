"""From CTC logits to words: the text of the tokenizer, times of frames, probabilities of the posteriors."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from grym_nb.audio.transcript import Transcript, Word, posteriors, transcript_of

TOKENS = ["<pad>", "|", "a", "b", "c"]


class Tokenizer:
    """As transformers' `Wav2Vec2CTCTokenizer.decode` answers, for a vocabulary of letters."""

    def decode(self, path: Any, **_: bool) -> dict[str, Any]:
        runs: list[list[int]] = []  # token, first frame, end
        for at, token in enumerate(path):
            if runs and runs[-1][0] == token and runs[-1][2] == at:
                runs[-1][2] = at + 1
            else:
                runs.append([int(token), at, at + 1])
        chars = [
            {"char": " " if t == 1 else TOKENS[t], "start_offset": first, "end_offset": end}
            for t, first, end in runs
            if t
        ]
        words: list[dict[str, Any]] = []
        for char in [*chars, {"char": " "}]:
            if char["char"] == " ":
                words.append({})
            elif words and words[-1]:
                words[-1]["word"] += char["char"]
                words[-1]["end_offset"] = char["end_offset"]
            else:
                words = [*filter(None, words), {**char, "word": char["char"]}]
        words = [word for word in words if word]
        return {"text": " ".join(w["word"] for w in words), "char_offsets": chars, "word_offsets": words}


def logits_of(*frames: dict[str, float]) -> Any:
    """Return logits whose softmax has these probabilities, the rest on the blank."""
    shares = np.full((len(frames), len(TOKENS)), 1e-9)
    for at, frame in enumerate(frames):
        for token, share in frame.items():
            shares[at, TOKENS.index(token)] = share
        shares[at, 0] += 1 - shares[at].sum()
    return np.log(shares).astype(np.float32)


def told(*frames: dict[str, float]) -> Transcript:
    return transcript_of(logits_of(*frames), Tokenizer(), blank=0, frame_s=0.02, seconds=1.0)


def test_words_have_the_times_of_their_frames_and_what_the_posteriors_say() -> None:
    """A character is as sure as in its best frame; a word is right when all of its characters are."""
    found = told({"a": 0.6}, {"a": 0.9}, {}, {"b": 0.8}, {"|": 0.95}, {}, {"c": 0.7})
    assert found.text == str(found) == "ab c"
    assert found.words == (
        Word("ab", 0.0, 0.08, pytest.approx(0.9 * 0.8)),
        Word("c", pytest.approx(0.12), pytest.approx(0.14), pytest.approx(0.7)),
    )
    assert found.confidence == pytest.approx((0.9 + 0.8 + 0.95 + 0.7) / 4)


def test_nothing_is_as_sure_as_its_blanks() -> None:
    found = told({"a": 0.1}, {"a": 0.3})
    assert found == Transcript("", (), pytest.approx(0.8), 1.0)  # type: ignore[arg-type]
    assert told() == Transcript("", (), 0.0, 1.0)


def test_posteriors_are_probabilities_whatever_the_logits() -> None:
    """Also where their exponents alone would not fit a float."""
    rows = posteriors(np.array([[1000.0, 0.0], [-1000.0, -1000.0]], np.float32))
    assert np.array_equal(rows, np.array([[1, 0], [0.5, 0.5]], np.float32))


def test_confidence_is_how_often_a_calibrated_model_is_right() -> None:
    """Truths drawn from the posteriors: of words told with p, a share of p is right."""
    rng = np.random.default_rng(0)
    sure, right = [], []
    for _ in range(4000):
        shares = rng.uniform(0.5, 1.0, 2)
        word = told({"a": shares[0]}, {"b": shares[1]}).words[0]
        truth = rng.uniform(size=2) < shares
        sure.append(word.confidence)
        right.append(truth.all())
    edges = np.array([0.25, 0.45, 0.6, 0.75, 1.0])
    for low, high in pairwise(edges):
        some = [at for at, p in enumerate(sure) if low <= p < high]
        assert np.mean([right[at] for at in some]) == pytest.approx(
            np.mean([sure[at] for at in some]), abs=0.05
        )


def test_it_is_shown_as_a_table_and_as_a_line() -> None:
    found = told({"a": 0.9})
    assert repr(found) == "Transcript('a', confidence=0.90, 1.00 s)"
    assert "0.02" in found.table().text() and "<table" in found._repr_html_()
