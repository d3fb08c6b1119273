"""How each listening model is made: its size, what it learns from, and how long."""

from __future__ import annotations

from dataclasses import dataclass

from grym_nb.audio.zoo import exercises
from grym_nb.audio.zoo.exercises import Draw
from grym_nb.audio.zoo.signals import CODE, EVENTS, KEYS

__all__ = ["RECIPES", "Recipe"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A model to be trained: what it hears, its size, and the course of its training."""

    name: str
    kind: str  # "transcription" or "classification"
    summary: str
    symbols: tuple[str, ...]  # what it can write, or the labels
    draw: Draw
    hidden: int
    layers: int
    reach: int  # frames that the positional convolution sees
    rate: float  # of learning, at its highest
    steps: int
    longest: tuple[float, float]  # seconds of a clip, at the beginning and at the end
    ears: tuple[float, float]  # Hz, the range in which the first filters begin
    constant_q: bool  # whether high filters are shorter than low ones
    floor: float  # that its score is to keep at 10 dB
    is_not: tuple[str, ...]  # what it is taken for, and is not good for
    coarse: bool  # whether it is computed in bfloat16: faster by half, less exact
    batch: int = 16

    @property
    def transcribes(self) -> bool:
        """Whether it writes what it hears, rather than to choose a label."""
        return self.kind == "transcription"

    @property
    def measure(self) -> str:
        """What its scores are."""
        return "character error rate" if self.transcribes else "accuracy"


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="dtmf",
            kind="transcription",
            summary="writes the telephone keys 0-9 * # that it hears",
            symbols=tuple(KEYS),
            draw=exercises.keys,
            hidden=96,
            layers=2,
            reach=32,
            rate=1.5e-3,
            steps=600,
            longest=(2.0, 4.5),
            ears=(350.0, 1800.0),
            constant_q=False,
            floor=0.005,
            coarse=False,
            is_not=(
                "It is no speech recognizer: it was shown keys, noise, and some tones that are none.",
                "Keys and gaps were 40 to 190 ms long, and at most 1.2 % off in pitch; A to D are unknown.",
                "Below 0 dB it was not measured.",
            ),
        ),
        Recipe(
            name="events",
            kind="classification",
            summary="says which of eight kinds of sound a clip is",
            symbols=EVENTS,
            draw=exercises.sound,
            hidden=64,
            layers=2,
            reach=64,
            rate=1.5e-3,
            steps=1300,
            longest=(1.5, 2.5),
            ears=(120.0, 7400.0),
            constant_q=True,
            floor=0.97,
            coarse=False,
            is_not=(
                "It knows no dogs and no doorbells: all that it was shown is synthetic.",
                "A clip is one event: of several it names one, and it never says that it does not know.",
                "Clips shorter than half a second were never shown to it.",
                "Noise alone it takes for clicks in one clip of nine; digital silence is nothing to it.",
            ),
        ),
        Recipe(
            name="morse",
            kind="transcription",
            summary="writes the Morse A-Z 0-9 that it hears, 18 to 36 words a minute",
            symbols=(" ", *CODE),
            draw=exercises.telegram,
            hidden=128,
            layers=3,
            reach=64,
            rate=1e-3,
            steps=2400,
            longest=(2.0, 5.0),
            ears=(350.0, 1800.0),
            constant_q=False,
            floor=0.02,
            coarse=True,
            is_not=(
                "It is no decoder of hand-keyed Morse: what it was shown is keyed to within 6 %.",
                "It was shown 18 to 36 words a minute and 400 to 1000 Hz only, and one station at a time.",
                "Punctuation and prosigns are unknown to it.",
                "Below 0 dB it was not measured.",
            ),
        ),
    )
}
