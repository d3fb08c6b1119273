"""The dsp service: the same numbers as the functions, through a handle."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from grym_nb.audio import features, synth
from grym_nb.audio.dsp import Dsp
from grym_nb.audio.features import windows
from grym_nb.clip import Clip
from grym_nb.errors import AudioError, ValidationError
from grym_nb.services import ServiceHandle, ServiceRegistry, Task
from grym_nb.services.model import tasks_of


@pytest.fixture
def dsp() -> Iterator[ServiceHandle]:
    """The service in a registry of its own."""
    registry = ServiceRegistry()
    yield registry.register("dsp", Dsp)
    registry.close()


def test_the_service_answers_what_the_functions_return(dsp: ServiceHandle) -> None:
    """Arguments by keyword, defaults included."""
    clip = synth.noise(seconds=1)
    assert dsp.loudness(clip) == features.loudness(clip)
    assert dsp.loudness(clip, block_s=0.2) == features.loudness(clip, block_s=0.2)
    assert np.array_equal(dsp.mel(clip), features.mel(clip))
    parameters = {"n_mels": 40, "n_fft": 512, "hop": 160, "fmin": 20, "fmax": 7600.0, "db": True}
    assert np.array_equal(dsp.mel(clip, **parameters), features.mel(clip, **parameters))


def test_a_task_is_named_by_method_or_type(dsp: ServiceHandle) -> None:
    """The types are those that a router finds it by."""
    clip = synth.tone(seconds=1)
    assert dsp.run("audio.loudness", clip) == dsp.run("loudness", clip) == features.loudness(clip)
    assert dsp.run("audio.mel", clip).shape == (64, 63)


EVERY = sorted(windows.PLANS.keys() | {"trim", "hpss"})


@pytest.mark.parametrize("name", EVERY)
def test_every_feature_is_a_task_of_its_type(name: str, dsp: ServiceHandle) -> None:
    """With the function's words and parameters, and its answer."""
    clip = Clip(synth.beats(120, seconds=9).samples + synth.chord(seconds=9, level_db=-20).samples, 16_000)
    feature = getattr(features, name)
    spec = tasks_of(Dsp)[name]
    assert spec.type == f"audio.{name}" and spec.doc and feature.__doc__.startswith(spec.doc[:20])
    takes, given = (inspect.signature(one).parameters for one in (getattr(Dsp, name), feature))
    assert [(p.name, p.kind, p.default) for p in takes.values()][1:] == [
        (p.name, p.kind, p.default) for p in given.values()
    ]
    assert repr(dsp.run(f"audio.{name}", clip)) == repr(feature(clip))
    with pytest.raises(ValidationError) as caught:
        getattr(dsp, name)("song.wav", nothing=1)
    assert {problem.path for problem in caught.value.problems} == {"clip", "nothing"}


def test_every_task_is_a_feature(dsp: ServiceHandle) -> None:
    """And nothing else is there but many of them."""
    types = {spec.type for spec in tasks_of(Dsp).values()}
    assert types == {f"audio.{name}" for name in EVERY} | {"audio.features", "audio.process"}


def test_many_features_are_one_call(dsp: ServiceHandle, tmp_path: Path) -> None:
    """Of a clip, or of a file."""
    clip = synth.beats(100, seconds=5)
    path = clip.write(tmp_path / "beats.wav")
    for source in (clip, str(path)):
        found = dsp.many(source, ["tempo", "rms"], hop=1000)
        assert found["tempo"] == features.tempo(clip) and len(found["rms"]) == 81
    with pytest.raises(ValidationError, match="names: found 'temp', expected one of"):
        dsp.many(clip, ["temp"])


def test_steps_are_one_call(dsp: ServiceHandle) -> None:
    """What was done before one failed is in the answer."""
    found = dsp.process(
        synth.beats(120, seconds=5), {"tempo": "tempo", "none": lambda clip: 1 / 0, "mel": "mel"}
    )
    assert found["tempo"].bpm == pytest.approx(120, abs=0.1)
    assert (found.failed, found.skipped) == ("none", ("mel",))


def test_parameters_are_checked_before_anything_runs(dsp: ServiceHandle) -> None:
    """All of them at once, by their types."""
    with pytest.raises(ValidationError) as caught:
        dsp.pitch(synth.tone(), fmin="low", method=3)
    assert {problem.path for problem in caught.value.problems} == {"fmin", "method"}
    assert dsp.state == "registered"


def test_audio_that_cannot_be_used_is_said_as_by_the_function(dsp: ServiceHandle) -> None:
    """The AudioError is not wrapped: its advice is the caller's next step."""
    with pytest.raises(AudioError, match="expected at least 400 ms"):
        dsp.loudness(synth.tone(seconds=0.1))
    result = dsp.execute(Task("audio.mel", Clip([], 16_000)))
    assert (result.success, type(result.error)) == (False, AudioError)
    assert dsp.loudness(synth.tone(seconds=1)) == features.loudness(synth.tone(seconds=1))


def test_arguments_of_another_type_never_reach_the_functions(dsp: ServiceHandle) -> None:
    """All of them are named at once."""
    with pytest.raises(ValidationError) as caught:
        dsp.mel("song.wav", n_mels="64")
    assert [problem.path for problem in caught.value.problems] == ["clip", "n_mels"]


def test_what_is_not_installed_is_said_when_the_service_is_loaded() -> None:
    """Not in the middle of the first long run."""
    code = (
        "import sys\n"
        "sys.modules['pyloudnorm'] = None\n"
        "from grym_nb.audio.dsp import Dsp\n"
        "try: Dsp().load()\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "the dsp service needs pyloudnorm, which is not installed",
        '→ pip install "grym-nb[sound]"',
    ]
