"""Several features at once, and files that are measured as they are read."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from grym_nb.audio import features, synth
from grym_nb.audio.features import many, passing, stream, windows
from grym_nb.clip import Clip
from grym_nb.errors import AudioError, CallCancelled, ValidationError
from grym_nb.services import ModelService, ServiceRegistry, task

EVERY = sorted(windows.PLANS)


@pytest.fixture
def song() -> Clip:
    """Half a minute in stereo: chords, a beat, noise and a pause."""
    rate = 22_050
    parts = [
        synth.chord(hz, seconds=7, rate=rate).samples for hz in ((220.0, 277.2, 329.6), (174.6, 220.0, 261.6))
    ]
    left = np.concatenate([parts[0], np.zeros(rate), parts[1], synth.noise(seconds=7, rate=rate).samples])
    right = synth.beats(126, seconds=len(left) / rate, rate=rate).samples[: len(left)]
    return Clip([0.5 * left + 0.4 * right, 0.4 * right + 0.1 * left], rate)


@pytest.fixture
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of an odd length, as a file of hours has many."""
    monkeypatch.setattr(passing, "BLOCK", 50_001)


def same(found: Any, expected: Any) -> None:
    """Compare answers of any kind, to 1e-6 of the largest."""
    if isinstance(expected, np.ndarray):
        assert found.shape == expected.shape and found.dtype == expected.dtype
        scale = float(np.nanmax(np.abs(expected), initial=0.0))
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * scale)
    elif isinstance(expected, features.Pitch):
        same(found.hz, expected.hz)
        assert np.array_equal(found.voiced, expected.voiced)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=1e-6)
    else:
        assert found == expected


@pytest.mark.usefixtures("short_blocks")
def test_a_file_in_blocks_is_measured_as_its_clip(song: Clip, tmp_path: Path) -> None:
    """Every feature that there is, to 1e-6."""
    path = song.write(tmp_path / "song.wav")
    found = many(path, EVERY)
    assert list(found) == EVERY
    for name in EVERY:
        same(found[name], getattr(features, name)(song))


def test_many_of_a_clip_are_each_of_it(song: Clip) -> None:
    """In the order in which they were asked for, with parameters for those that take them."""
    found = many(song, ["tempo", "mel", "centroid", "mfcc"], n_fft=2048, hop=512, n_mels=40)
    assert list(found) == ["tempo", "mel", "centroid", "mfcc"]
    same(found["tempo"], features.tempo(song))
    same(found["mel"], features.mel(song, n_fft=2048, hop=512, n_mels=40))
    same(found["centroid"], features.centroid(song, n_fft=2048, hop=512))
    same(found["mfcc"], features.mfcc(song, n_fft=2048, hop=512, n_mels=40))


def test_what_several_features_need_is_computed_once(song: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    """One transform of each window for seven features of the same windows; one more for another size."""
    counted = []
    transform = np.fft.rfft

    def rfft(samples: Any, *args: Any, **kwargs: Any) -> Any:
        counted.append(samples.size)
        return transform(samples, *args, **kwargs)

    monkeypatch.setattr(np.fft, "rfft", rfft)
    features.mel(song)
    once = sum(counted)
    counted.clear()
    many(song, ["mel", "mfcc", "centroid", "bandwidth", "rolloff", "flatness"])
    assert sum(counted) == once


@pytest.mark.usefixtures("short_blocks")
@pytest.mark.parametrize("name", ["mel", "cqt", "chroma", "rms"])
def test_a_stream_of_pieces_is_the_whole(name: str, song: Clip, tmp_path: Path) -> None:
    """Of a clip, and of a file."""
    path = song.write(tmp_path / "song.flac")
    whole = getattr(features, name)(Clip.read(path))
    pieces = list(stream(path, name))
    assert len(pieces) > 5
    same(np.concatenate(pieces, axis=-1), whole)
    same(
        np.concatenate(list(stream(Clip.read(path), name, hop=512)), axis=-1).shape[-1],
        1 + song.frames // 512,
    )


def hours(path: Path, minutes: int) -> Path:
    """Write minutes of noise and beats, a minute at a time."""
    minute = (
        synth.beats(120, seconds=60, rate=8000).samples
        + synth.noise(seconds=60, rate=8000, level_db=-40).samples
    )
    with soundfile.SoundFile(path, "w", samplerate=8000, channels=1, subtype="PCM_16") as file:
        for _ in range(minutes):
            file.write(minute)
    return path


@pytest.mark.usefixtures("short_blocks")
def test_a_file_of_hours_takes_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    """Forty minutes beside five: blocks and windows are bounded, only the answers grow."""

    def peak(minutes: int) -> tuple[int, dict[str, Any]]:
        path = hours(tmp_path / f"{minutes}.wav", minutes)
        tracemalloc.start()
        found = many(path, ["loudness", "rms"], length=8192, hop=8192)
        answers = {"loudness": found["loudness"], "seconds": len(found["rms"]) * 8192 / 8000}
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return taken, answers

    (some, short), (all_of_it, long) = peak(5), peak(40)
    assert long["seconds"] == pytest.approx(40 * 60, abs=2)
    assert long["loudness"] == pytest.approx(short["loudness"], abs=0.01)
    assert all_of_it < some + 1_000_000
    assert all_of_it < 40 * 60 * 8000 * 4 / 20  # a twentieth of what the samples take


class Slow(ModelService):
    """Measures a file, and tells when it has begun."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()

    @task("slow.many")
    def measure(self, path: str) -> Any:
        pieces = []
        for piece in stream(path, "rms"):
            pieces.append(piece)
            self.begun.set()
            self.go_on.wait(30)
        return pieces


@pytest.fixture
def registry() -> Iterator[ServiceRegistry]:
    """A registry of its own."""
    with ServiceRegistry() as made:
        yield made


@pytest.mark.usefixtures("short_blocks")
def test_a_call_that_measures_a_file_can_be_cancelled(registry: ServiceRegistry, tmp_path: Path) -> None:
    """Between two blocks; how far it has come is told meanwhile, and the file is closed."""
    handle = registry.register("slow", Slow)
    path = hours(tmp_path / "long.wav", 2)
    handle.load()
    with handle.use() as model:
        begun, go_on = model.begun, model.go_on
    call = handle.measure.submit(str(path))
    assert begun.wait(30)
    assert call.cancel()
    go_on.set()
    with pytest.raises(CallCancelled):
        call.result(timeout=30)
    path.unlink()
    assert handle.state == "ready"


def test_names_and_parameters_that_do_not_fit_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    """With the closest there is."""
    clip = synth.tone()
    with pytest.raises(ValidationError, match=r"names: found 'mell', expected one of .*Did you mean 'mel'"):
        many(clip, ["mell", "tempo"])
    with pytest.raises(ValidationError, match="names: found 'mel', expected several names"):
        many(clip, "mel")
    with pytest.raises(ValidationError, match="names: found none"):
        many(clip, [])
    with pytest.raises(
        ValidationError, match=r"n_mfcc: found 13, expected a parameter of mel, rms(?s:.*)n_mels"
    ):
        many(clip, ["mel", "rms"], n_mfcc=13)
    with pytest.raises(ValidationError, match="hop: found 0"):
        many(clip, ["mel"], hop=0)
    with pytest.raises(ValidationError, match=r"'tempo', which is made of the whole, expected one of .*mel"):
        stream(clip, "tempo")
    with pytest.raises(AudioError, match="mel, tempo takes a Clip, not 3"):
        many(3, ["mel", "tempo"])
    with pytest.raises(AudioError, match="cannot be opened"):
        many(tmp_path / "gone.wav", ["mel"])


def test_a_file_that_cannot_be_used_is_refused_as_its_clip(tmp_path: Path) -> None:
    """Too short, by its header; NaN, with where; foreign; cut off, when it ends."""
    short = synth.tone(seconds=0.01).write(tmp_path / "short.wav")
    with pytest.raises(
        AudioError, match=r"mel with n_fft=1024 cannot use Clip\(0\.01 s(?s:.*)at least 64 ms"
    ):
        many(short, ["rms", "mel"], length=64)
    sound = np.zeros(60_000, np.float32)
    sound[50_000] = np.nan
    soundfile.write(tmp_path / "nan.wav", sound, 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"mel, rms cannot use '.*nan\.wav'(?s:.*)found 1 that are NaN"):
        many(tmp_path / "nan.wav", ["mel", "rms"])
    text = tmp_path / "text.wav"
    text.write_text("no audio " * 100)
    with pytest.raises(AudioError, match="no audio that can be read"):
        many(text, ["mel"])
    whole = synth.noise(seconds=2).write(tmp_path / "whole.flac").read_bytes()
    cut = tmp_path / "cut.flac"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AudioError, match="cut off or damaged"):
        list(stream(cut, "rms"))
