"""Known signals through the features: the largest errors in one table, each beside what is allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from grym_nb.audio import features, synth
from grym_nb.clip import Clip
from grym_nb.render import Table

RATES = (8000, 16_000, 44_100)
CHORDS = {
    "C E G": (261.63, 329.63, 392.0),
    "C E A": (220.0, 261.63, 329.63),
    "D F♯ A": (293.66, 369.99, 440.0),
}
NOTES = ["C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B"]


def in_noise(clip: Clip, level_db: float = -30.0) -> Clip:
    """The clip with white noise in it."""
    noise = synth.noise(seconds=clip.seconds, rate=clip.rate, level_db=level_db)
    return Clip(clip.samples + noise.samples[: clip.frames], clip.rate)


def tempo_of(bpm: float, clip: Clip) -> float:
    return abs(features.tempo(clip).bpm - bpm)


def tempo() -> Iterator[float]:
    """Metronomes."""
    for bpm in (60, 72.5, 90, 117.3, 128, 140, 174, 200):
        yield tempo_of(bpm, synth.beats(bpm, seconds=12))


def tempo_in_noise() -> Iterator[float]:
    """The same, with noise 24 dB below."""
    for bpm in (60, 90, 117.3, 128, 174, 200):
        yield tempo_of(bpm, in_noise(synth.beats(bpm, seconds=12)))


def onset_times() -> Iterator[float]:
    """Clicks at their times, in seconds."""
    for rate in RATES:
        expected = np.arange(0, 6, 60 / 107)
        found = features.onsets(synth.beats(107, seconds=6, rate=rate))
        assert len(found) == len(expected)
        yield float(np.abs(found - expected).max())


def beat_times() -> Iterator[float]:
    """The beats of a metronome in noise, in seconds."""
    for bpm in (60, 128, 200):
        expected = np.arange(0, 12, 60 / bpm)
        found = features.beats(in_noise(synth.beats(bpm, seconds=12)))
        yield float(np.abs(found[:, None] - expected).min(axis=1).max())


def _cents(found: features.Pitch, hz: float | np.ndarray) -> float:
    away = np.abs(1200 * np.log2(found.hz / hz))[6:-6]
    return float(np.where(np.isnan(away), 1200.0, away).max())  # a pitch that is lost counts as an octave


def pitch_of_tones() -> Iterator[float]:
    """Tones, by both methods and at all rates, in cents."""
    for rate in RATES:
        for hz in (75.0, 220.0, 523.25, 900.0):
            for method in ("yin", "pyin"):
                yield _cents(features.pitch(synth.tone(hz, seconds=0.6, rate=rate), method=method), hz)


def pitch_of_glides() -> Iterator[float]:
    """Two octaves in two seconds, up and down, in cents."""
    for low, high in ((110.0, 440.0), (600.0, 150.0)):
        hz = low * (high / low) ** (np.arange(32_000) / 32_000)
        clip = Clip(0.5 * np.sin(2 * np.pi * np.cumsum(hz) / 16_000), 16_000)
        for method in ("yin", "pyin"):
            found = features.pitch(clip, method=method)
            at = np.minimum(np.round(found.times * 16_000).astype(int), 31_999)
            yield _cents(found, hz[at])


def wrong_notes() -> Iterator[float]:
    """Chords: notes that are missing, or there too many, by both methods."""
    for names, hz in CHORDS.items():
        for rate in RATES:
            for method in ("stft", "cqt"):
                chroma = features.chroma(synth.chord(hz, seconds=2, rate=rate), method=method)
                middle = chroma[:, chroma.shape[1] // 2]
                found = {name for name, value in zip(NOTES, middle, strict=True) if value > 0.5}
                yield float(len(found ^ set(names.split())))


def loudness_of_tones() -> Iterator[float]:
    """997 Hz at known levels, in LU, from 16 kHz up."""
    for rate in (16_000, 22_050, 44_100, 48_000):
        for level_db in (-40.0, -23.0, 0.0):
            clip = synth.tone(997, seconds=2, rate=rate, level_db=level_db)
            yield abs(features.loudness(clip) - (level_db - 3.01))


def centroid_of_tones() -> Iterator[float]:
    """Tones, in bins of the spectrum."""
    for rate in RATES:
        for hz in (500.0, 1000.0, 3000.0):
            found = features.centroid(synth.tone(hz, seconds=0.5, rate=rate))[4:-4]
            yield float(np.abs(found - hz).max() / (rate / 1024))


def _ends(found: list[tuple[float, float]], spans: list[tuple[float, float]]) -> float:
    return float(np.abs(np.array(found) - np.array(spans)).max()) if len(found) == len(spans) else 9.0


def edges() -> Iterator[float]:
    """Sound between silences, and a voice's place in noise, in seconds."""
    spans = [(0.7, 1.7), (2.2, 3.1), (3.5, 3.9)]
    for rate in RATES:
        tone = synth.tone(310, seconds=4.5, rate=rate).samples
        times = np.arange(len(tone)) / rate
        clip = Clip(tone * sum((times >= a) & (times < b) for a, b in spans), rate)
        yield _ends(features.split(clip), spans)
        yield _ends(features.voiced(in_noise(clip, -40.0)), spans)


def borders() -> Iterator[float]:
    """Sections of a song, in seconds."""
    parts = [(c, s) for c, s in zip([*CHORDS.values(), CHORDS["C E G"]], (9.0, 12.5, 8.0, 10.0), strict=True)]
    sound = np.concatenate([synth.chord(hz, seconds=s).samples for hz, s in parts])
    ends = np.cumsum([seconds for _, seconds in parts])
    found = [one.end for one in features.segments(in_noise(Clip(sound, 16_000), -40.0))]
    yield float(np.abs(np.array(found) - ends).max()) if len(found) == len(ends) else 9.0


#: what is measured, the unit, and the largest error that is allowed
TRUTH: list[tuple[Callable[[], Iterator[float]], str, float]] = [
    (tempo, "BPM", 0.02),
    (tempo_in_noise, "BPM", 0.05),
    (onset_times, "s", 0.005),
    (beat_times, "s", 0.012),
    (pitch_of_tones, "cents", 10.0),
    (pitch_of_glides, "cents", 20.0),
    (wrong_notes, "notes", 0.0),
    (loudness_of_tones, "LU", 0.05),
    (centroid_of_tones, "bins", 0.1),
    (edges, "s", 0.006),
    (borders, "s", 0.5),
]


@pytest.fixture(scope="module")
def errors() -> dict[str, float]:
    """The largest error of each, measured once."""
    return {measure.__name__: max(measure()) for measure, _, _ in TRUTH}


def test_no_feature_is_further_from_the_truth_than_its_tolerance(errors: dict[str, float]) -> None:
    """The table is shown where one is."""
    rows = [
        (measure.__name__.replace("_", " "), f"{errors[measure.__name__]:.3g} {unit}", f"{allowed:g} {unit}")
        for measure, unit, allowed in TRUTH
    ]
    table = Table("the largest errors", ("signal", "error", "allowed"), rows)
    beyond = [m.__name__ for m, _, allowed in TRUTH if not errors[m.__name__] <= allowed]
    print(table.text())  # noqa: T201 - seen with `pytest -s`, and where it fails
    assert not beyond, table.text()
