"""Sounds whose truth is known: DTMF keys, Morse, sound events, and noise, at known levels.

All are float32 mono at `RATE`; what is random comes from the generator that is given, so a seed says all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = [
    "CODE",
    "COLOURS",
    "EVENTS",
    "KEYS",
    "PAIRS",
    "RATE",
    "Samples",
    "at_level",
    "dtmf",
    "event",
    "level",
    "mixed",
    "morse",
    "noise",
    "silence",
]

Samples = np.ndarray[Any, np.dtype[np.float32]]

#: samples a second, of everything here
RATE = 16_000

#: the low and the high tone of each key, in Hz (ITU-T Q.23, without the fourth column)
PAIRS: dict[str, tuple[float, float]] = {
    key: (low, high)
    for low, row in zip((697.0, 770.0, 852.0, 941.0), ("123", "456", "789", "*0#"), strict=True)
    for high, key in zip((1209.0, 1336.0, 1477.0), row, strict=True)
}
KEYS = "0123456789*#"

#: International Morse code
CODE: dict[str, str] = dict(
    pair.split("=")
    for pair in (
        "A=.- B=-... C=-.-. D=-.. E=. F=..-. G=--. H=.... I=.. J=.--- K=-.- L=.-.. M=-- N=-. O=--- P=.--. "
        "Q=--.- R=.-. S=... T=- U=..- V=...- W=.-- X=-..- Y=-.-- Z=--.. 0=----- 1=.---- 2=..--- 3=...-- "
        "4=....- 5=..... 6=-.... 7=--... 8=---.. 9=----."
    ).split()
)

COLOURS = ("white", "pink", "brown")

_RAMP = 0.004  # seconds in which a key goes down or up: shorter ones click


def silence(seconds: float) -> Samples:
    """Return digital silence."""
    return np.zeros(max(0, round(seconds * RATE)), np.float32)


def dtmf(
    text: str,
    *,
    tone_s: float = 0.08,
    gap_s: float = 0.08,
    twist_db: float = 0.0,
    detune: float = 0.0,
    jitter: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Samples:
    """Return the tones of telephone keys, with a gap between each two.

    `twist_db` is how much louder the high tone is, `detune` shifts both by a share of their frequency, and
    `jitter` (a share, drawn from `rng`) varies each duration.
    """
    gains = 10 ** (twist_db / 40), 10 ** (-twist_db / 40)
    parts: list[Samples] = []
    for key in text:
        seconds = tone_s * _varied(jitter, rng)
        low, high = (hz * (1 + detune) for hz in PAIRS[key])
        both = _sine(high, seconds, 0.3) * gains[0] + _sine(low, seconds, 0.0) * gains[1]
        parts += [_shaped(np.asarray(0.5 * both, np.float32)), silence(gap_s * _varied(jitter, rng))]
    return np.concatenate(parts[:-1] or [silence(0)])


def morse(
    text: str,
    *,
    wpm: float = 25.0,
    hz: float = 700.0,
    jitter: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Samples:
    """Return keyed Morse at a speed in words a minute: a dot lasts ``1.2 / wpm`` seconds.

    A dash is three dots, the gap in a letter one, between letters three, between words seven; `jitter` (a
    share, drawn from `rng`) varies each.
    """
    dot = 1.2 / wpm
    keyed: list[tuple[float, bool]] = []
    for word in text.split():
        for letter in word:
            for sign in CODE[letter]:
                keyed += [(3.0 if sign == "-" else 1.0, True), (1.0, False)]
            keyed[-1] = (3.0, False)
        keyed[-1] = (7.0, False)
    parts = [
        _shaped(_sine(hz, seconds, 0.0)) if down else silence(seconds)
        for units, down in keyed[:-1]
        for seconds in [units * dot * _varied(jitter, rng)]
    ]
    return np.concatenate(parts or [silence(0)])


def _varied(jitter: float, rng: np.random.Generator | None) -> float:
    return 1.0 if rng is None or not jitter else float(rng.uniform(1 - jitter, 1 + jitter))


def _sine(hz: float, seconds: float, phase: float) -> Samples:
    return np.sin(2 * np.pi * hz * _times(seconds) + phase).astype(np.float32)


def _times(seconds: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.arange(round(seconds * RATE)) / RATE


def _shaped(samples: Samples) -> Samples:
    """Return the samples with soft edges."""
    n = min(round(_RAMP * RATE), len(samples) // 2)
    ramp = (0.5 - 0.5 * np.cos(np.pi * (np.arange(n) + 0.5) / max(n, 1))).astype(np.float32)
    shaped = samples.copy()
    shaped[:n] *= ramp
    shaped[len(samples) - n :] *= ramp[::-1]
    return shaped


# -- sound events ----------------------------------------------------------------------------------


def _tone(rng: np.random.Generator, seconds: float) -> Samples:
    hz = _log_uniform(rng, 200, 3500)
    overtone = rng.uniform(0, 0.4) * np.sin(4 * np.pi * hz * _times(seconds) + rng.uniform(0, 6.28))
    return _sine(hz, seconds, float(rng.uniform(0, 6.28))) + overtone.astype(np.float32)


def _chord(rng: np.random.Generator, seconds: float) -> Samples:
    root = _log_uniform(rng, 200, 1000)
    steps = ((0, 4, 7), (0, 3, 7), (0, 5, 9), (0, 4, 7, 11))[rng.integers(4)]
    voices = [_sine(root * 2 ** (step / 12), seconds, float(rng.uniform(0, 6.28))) for step in steps]
    return np.asarray(np.sum(voices, axis=0), np.float32)


def _sweep(rng: np.random.Generator, seconds: float, sign: int) -> Samples:
    octaves = rng.uniform(1.2, 2.8)
    lowest = _log_uniform(rng, 200, 6000 / 2**octaves)
    start = lowest if sign > 0 else lowest * 2**octaves
    bent = sign * octaves / seconds * np.log(2)
    cycles = start * np.expm1(bent * _times(seconds)) / bent
    return np.asarray(np.sin(2 * np.pi * cycles), np.float32)


def _rise(rng: np.random.Generator, seconds: float) -> Samples:
    return _sweep(rng, seconds, 1)


def _fall(rng: np.random.Generator, seconds: float) -> Samples:
    return _sweep(rng, seconds, -1)


def _tremolo(rng: np.random.Generator, seconds: float) -> Samples:
    rate, depth, phase = rng.uniform(4, 12), rng.uniform(0.8, 1.0), rng.uniform(0, 6.28)
    swell = 1 - depth * (0.5 + 0.5 * np.sin(2 * np.pi * rate * _times(seconds) + phase))
    return (_sine(_log_uniform(rng, 300, 3500), seconds, 0.0) * swell).astype(np.float32)


def _clicks(rng: np.random.Generator, seconds: float) -> Samples:
    samples = silence(seconds)
    tick = rng.standard_normal(160) * np.exp(-np.arange(160) / rng.uniform(8, 30))
    every = round(RATE / rng.uniform(4, 15))
    for start in range(int(rng.integers(every)), len(samples) - len(tick), every):
        samples[start : start + len(tick)] += tick.astype(np.float32)
    return samples


def _band(rng: np.random.Generator, seconds: float) -> Samples:
    octaves = rng.uniform(1.0, 2.0)
    low = _log_uniform(rng, 300, 6500 / 2**octaves)
    n = round(seconds * RATE)
    hz = np.fft.rfftfreq(n, 1 / RATE)
    inside = (hz >= low) & (hz <= low * 2**octaves)
    return np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) * inside, n).astype(np.float32)


def _nothing(rng: np.random.Generator, seconds: float) -> Samples:
    return silence(seconds)


_EVENTS: dict[str, Callable[[np.random.Generator, float], Samples]] = {
    "tone": _tone,
    "chord": _chord,
    "rise": _rise,
    "fall": _fall,
    "tremolo": _tremolo,
    "clicks": _clicks,
    "band noise": _band,
    "nothing": _nothing,
}
#: a steady tone, a chord, a tone that rises or falls by an octave or more, one that swells 4 to 12 times a
#: second, 4 to 15 clicks a second, noise one or two octaves wide, and nothing but what is around
EVENTS = tuple(_EVENTS)


def event(rng: np.random.Generator, label: str, seconds: float) -> Samples:
    """Return one sound of `EVENTS`, as long as asked for, of peak 1 (``nothing`` is silent)."""
    samples = _shaped(_EVENTS[label](rng, seconds))
    peak = float(np.max(np.abs(samples), initial=0.0))
    return samples / np.float32(peak) if peak else samples


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


# -- noise and levels ------------------------------------------------------------------------------


def noise(rng: np.random.Generator, n: int, colour: str = "white") -> Samples:
    """Return `n` samples of noise of power 1: white, or from 20 Hz pink (-3 dB an octave) or brown (-6)."""
    fall = {"white": 0.0, "pink": 0.5, "brown": 1.0}[colour]
    whole = max(1, -(-n // 4096)) * 4096  # lengths that are quickly transformed
    hz = np.fft.rfftfreq(whole, 1 / RATE)
    shape = np.where(hz >= 20, np.maximum(hz, 20) ** -fall, 0.0) if fall else np.ones_like(hz)
    made = np.fft.irfft(np.fft.rfft(rng.standard_normal(whole)) * shape, whole)[:n]
    power = float(np.mean(made**2)) if n else 1.0
    return np.asarray(made / np.sqrt(power or 1.0), np.float32)


def level(samples: Samples) -> float:
    """Return the level of the parts that sound, in dB below a full-scale square wave; silence is ``-inf``."""
    sounding = samples[samples != 0].astype(np.float64)
    return float(10 * np.log10(np.mean(sounding**2))) if len(sounding) else -np.inf


def at_level(samples: Samples, dbfs: float) -> Samples:
    """Return the samples with their sounding parts at a level; silence stays silent."""
    now = level(samples)
    return samples if now == -np.inf else (samples * 10 ** ((dbfs - now) / 20)).astype(np.float32)


def mixed(signal: Samples, around: Samples, snr_db: float) -> Samples:
    """Return a signal in noise, `snr_db` above it where the signal sounds; a silent signal adds nothing."""
    now = level(signal)
    return around if now == -np.inf else signal + at_level(around, now - snr_db)
