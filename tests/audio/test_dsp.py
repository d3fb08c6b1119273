"""The dsp service: the same numbers as the functions, through a handle."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from grym_nb.audio import features, synth
from grym_nb.audio.dsp import Dsp
from grym_nb.clip import Clip
from grym_nb.errors import AudioError, ValidationError
from grym_nb.services import ServiceHandle, ServiceRegistry, Task


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
