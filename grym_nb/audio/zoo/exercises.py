"""What the models of the zoo learn from, and are scored on: sounds drawn with their truth.

A training step and a held-out clip each have a seed of their own: nothing that a score is made of was ever
trained on, and a training that is resumed goes on with the very sounds that it would have had.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from grym_nb.audio.zoo import signals
from grym_nb.audio.zoo.signals import RATE

__all__ = ["SNRS", "Draw", "Exercise", "held_out", "keys", "sound", "telegram", "training"]

#: the signal-to-noise ratios of the scores, in dB
SNRS = (30, 20, 10, 5, 0)

_HELD_OUT = 1
_TRAINING = 0
_LEVELS = (-35.0, -12.0)  # dBFS


@dataclass(frozen=True, slots=True)
class Exercise:
    """A sound, and what is to be heard in it."""

    samples: signals.Samples
    truth: str


Draw = Callable[[np.random.Generator, float, float], Exercise]


def training(draw: Draw, *, seed: int, step: int, count: int, longest: float) -> list[Exercise]:
    """Return the exercises of one step, at 0 to 30 dB, up to `longest` seconds long."""
    rng = np.random.default_rng([_TRAINING, seed, step])
    return [draw(rng, longest, float(rng.uniform(0, 30))) for _ in range(count)]


def held_out(draw: Draw, *, seed: int, snr_db: int, count: int, longest: float) -> list[Exercise]:
    """Return exercises that no training has seen, all at one signal-to-noise ratio."""
    rng = np.random.default_rng([_HELD_OUT, seed, snr_db])
    return [draw(rng, longest, float(snr_db)) for _ in range(count)]


def keys(rng: np.random.Generator, longest: float, snr_db: float) -> Exercise:
    """Draw telephone keys in groups, 1 second to `longest`; one clip in twelve has none."""
    length = float(rng.uniform(1.0, longest))
    if rng.random() < 1 / 12:
        return Exercise(_around(_distraction(rng, length), rng, snr_db), "")
    tone_s, gap_s = rng.uniform(0.05, 0.16), rng.uniform(0.05, 0.16)
    twist, detune = rng.uniform(-4, 4), rng.uniform(-0.012, 0.012)
    parts, text = [signals.silence(rng.uniform(0.02, 0.4))], ""
    while True:
        group = "".join(rng.choice(list(signals.KEYS), rng.integers(1, 8)))
        made = signals.dtmf(
            group, tone_s=tone_s, gap_s=gap_s, twist_db=twist, detune=detune, jitter=0.2, rng=rng
        )
        if text and sum(map(len, parts)) + len(made) > length * RATE:
            break
        parts += [made, signals.silence(rng.uniform(0.06, 0.7))]
        text += group
    return Exercise(_around(np.concatenate(parts), rng, snr_db), text)


def telegram(rng: np.random.Generator, longest: float, snr_db: float) -> Exercise:
    """Draw words in Morse, 18 to 36 words a minute, 400 to 1000 Hz, 1.2 seconds to `longest`; one
    clip in twelve has none.
    """
    length = float(rng.uniform(1.2, longest))
    if rng.random() < 1 / 12:
        return Exercise(_around(signals.silence(length), rng, snr_db), "")
    wpm, hz = float(rng.uniform(18, 36)), float(rng.uniform(400, 1000))
    between = signals.silence(7 * 1.2 / wpm)
    parts, words = [signals.silence(rng.uniform(0.05, 0.5))], list[str]()
    while True:
        word = "".join(rng.choice(list(signals.CODE), rng.integers(1, 6)))
        made = signals.morse(word, wpm=wpm, hz=hz, jitter=0.06, rng=rng)
        if words and sum(map(len, parts)) + len(between) + len(made) > length * RATE:
            break
        parts += [between, made] if words else [made]
        words.append(word)
    parts.append(signals.silence(rng.uniform(0.05, 0.5)))
    return Exercise(_around(np.concatenate(parts), rng, snr_db), " ".join(words))


def sound(rng: np.random.Generator, longest: float, snr_db: float) -> Exercise:
    """Draw one of the sound events, half a second to `longest`, with some nothing before and after."""
    label = str(rng.choice(signals.EVENTS))
    length = float(rng.uniform(0.5, longest))
    made = signals.event(rng, label, length)
    around = [signals.silence(rng.uniform(0, 0.15)) for _ in range(2)]
    return Exercise(_around(np.concatenate([around[0], made, around[1]]), rng, snr_db), label)


def _distraction(rng: np.random.Generator, seconds: float) -> signals.Samples:
    """Return nothing, or a sound that is no key."""
    label = str(rng.choice(["nothing", "nothing", "tone", "chord", "rise", "fall", "band noise"]))
    return signals.event(rng, label, seconds)


def _around(signal: signals.Samples, rng: np.random.Generator, snr_db: float) -> signals.Samples:
    """Return a signal at some level in noise of some colour; nothing may also be digital silence."""
    loud = signals.at_level(signal, float(rng.uniform(*_LEVELS)))
    around = signals.noise(rng, len(signal), str(rng.choice(signals.COLOURS)))
    if signals.level(signal) == -np.inf:
        quiet = rng.random() < 0.25
        around = signal if quiet else signals.at_level(around, float(rng.uniform(-80, -20)))
    return signals.mixed(loud, around, snr_db)
