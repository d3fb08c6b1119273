"""What all features have in common: how they are called, what they need, and how windows lie."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from grym_nb.audio import features, synth
from grym_nb.audio.features.windows import Need, Plan, Windows, run
from grym_nb.clip import Clip
from grym_nb.errors import AudioError, ValidationError

EVERY = sorted({name for name in features.__all__ if name.islower()} - {"many", "stream"})


@pytest.mark.parametrize("name", EVERY)
def test_a_feature_takes_a_clip_first_and_all_else_by_keyword(name: str) -> None:
    """Its help says so, and what it does not take is refused with what it does."""
    feature = getattr(features, name)
    first, *rest = inspect.signature(feature).parameters.values()
    assert first.name == "clip"
    assert all(one.kind is one.KEYWORD_ONLY for one in rest)
    assert feature.__doc__.startswith("Return ")
    with pytest.raises(ValidationError, match=f"{name} got an unexpected keyword argument 'nothing'"):
        feature(synth.tone(), nothing=1)
    with pytest.raises(ValidationError, match=f"{name} missing 1 required positional argument"):
        feature()
    with pytest.raises(AudioError, match=f"{name} takes a Clip, not 'song.wav'"):
        feature("song.wav")


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    "clip", [Clip([], 16_000), Clip([0.0, np.nan] * 40_000, 16_000)], ids=["empty", "NaN"]
)
def test_what_is_empty_or_no_number_is_refused(name: str, clip: Clip) -> None:
    """By every feature, with its name."""
    with pytest.raises(AudioError, match=f"{name}.* cannot use"):
        getattr(features, name)(clip)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("rate", [11_025, 44_101, 96_000])
def test_stereo_odd_rates_and_silence_are_measured_without_a_warning(name: str, rate: int) -> None:
    """Opposite channels are silence, but to the loudness; what comes is finite, or said to be otherwise."""
    feature = getattr(features, name)
    sound = synth.chord(seconds=8.3, rate=rate)
    stereo = Clip([sound.samples, sound.samples], rate)
    if name != "loudness":
        same(feature(stereo).mono() if name == "trim" else feature(stereo), feature(sound))
    feature(Clip(np.zeros(9 * rate), rate))


def same(found: Any, expected: Any) -> None:
    """Compare answers of any kind, arrays to 1e-6."""
    if isinstance(found, Clip):
        found, expected = found.samples, expected.samples
    if isinstance(found, features.Pitch):
        found, expected = found.hz, expected.hz
    if isinstance(found, features.Layers):
        found, expected = found.harmonic.samples, expected.harmonic.samples
    if isinstance(found, np.ndarray):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    elif isinstance(found, features.Tempo) and np.isnan(expected.bpm):
        assert np.isnan(found.bpm) and found.confidence == 0
    else:
        assert found == expected


@pytest.mark.parametrize("hop", [1, 7, 16, 23])
@pytest.mark.parametrize("length", [16, 17])
@pytest.mark.parametrize("size", [1, 5, 100])
def test_windows_are_the_same_however_the_sound_comes(hop: int, length: int, size: int) -> None:
    """Centred on every `hop`-th sample, zeros beyond the ends; also where a hop is longer than a window."""
    sound = np.arange(1, 101, dtype=np.float32)
    half = length // 2
    expected = np.lib.stride_tricks.sliding_window_view(np.pad(sound, half), length)[::hop].T
    plan = Plan(Need("windows"), length, hop, lambda windows: windows.samples.T)
    blocks = [sound[None, start : start + size] for start in range(0, 100, size)]
    assert np.array_equal(run({"it": plan}, 100, 1, blocks)["it"], expected)


def test_plans_with_the_same_windows_share_their_spectra() -> None:
    """One transform for all of them, and another one for other windows."""
    seen: list[Windows] = []

    def of(windows: Windows) -> Any:
        seen.append(windows)
        return windows.power.sum(axis=1)

    plans = {name: Plan(Need(name), length, 8, of) for name, length in (("a", 16), ("b", 16), ("c", 32))}
    made = run(plans, 100, 1, [np.ones((1, 100), np.float32)])
    assert list(made) == ["a", "b", "c"]
    a, b, c = seen[:3]
    assert a is b and a is not c and a.power is b.power


def test_what_is_not_installed_is_said_when_it_is_needed() -> None:
    """Importing the features needs none of it."""
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['pyloudnorm', 'librosa']))\n"
        "from grym_nb.audio import features, synth\n"
        "for feature in (features.loudness, features.mel):\n"
        "    try: feature(synth.tone())\n"
        "    except ImportError as error: print(error)\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "loudness needs pyloudnorm, which is not installed",
        '→ pip install "grym-nb[sound]"',
        "mel needs librosa, which is not installed",
        '→ pip install "grym-nb[sound]"',
        "False",
    ]
