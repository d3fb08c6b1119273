"""Every family through save and load in a fresh process, offline; and what a load brings with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch: Any = pytest.importorskip("torch")

from grym_nb.audio import synth  # noqa: E402
from grym_nb.audio.audioldm import AudioLDM  # noqa: E402
from grym_nb.audio.wav2vec2 import Wav2Vec2  # noqa: E402
from grym_nb.services import ServiceRegistry  # noqa: E402
from tests.audio.tiny import PIPELINES  # noqa: E402

pytestmark = [  # of the libraries' own making
    pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Should have t:UserWarning"),
]

EARS = ("Wav2Vec2ForCTC", "Wav2Vec2ForSequenceClassification", "Wav2Vec2Model")

#: asks each checkpoint in a process that may not reach the network, and tells what is imported by then
_FRESH = """
import json, socket, sys

def refuse(*args, **kwargs):
    raise AssertionError("the network was asked")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import torch
torch.set_num_threads(1)
from grym_nb.audio import synth
from grym_nb.runtime import Runtime

HEAVY = "diffusers librosa matplotlib IPython ipywidgets torchaudio torchsde pandas transformers".split()
told = {}
with Runtime() as runtime:
    for name, kind, folder in json.loads(sys.argv[1]):
        handle = runtime.registry[name]
        handle.configure(model=folder, device="cpu")
        handle.load()
        imported = [module for module in HEAVY if module in sys.modules]
        if name == "audioldm":
            clip = handle.generate("a bird", seconds=0.2, steps=2, seed=3).clip
            answer = clip.hash
        elif kind == "Wav2Vec2ForCTC":
            answer = handle.transcribe(synth.noise(seconds=1.0)).text
        else:
            answer = handle.embed(synth.noise(seconds=1.0)).round(4).tolist()
        told[kind] = [answer, imported]
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def fresh(checkpoints: Any) -> dict[str, list[Any]]:
    """What one fresh process answered with each checkpoint, and had imported, in this order."""
    asked = [("wav2vec2", kind, str(checkpoints(kind))) for kind in EARS]
    asked += [("audioldm", kind, str(checkpoints(kind))) for kind in PIPELINES]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYTEST"))}
    home = str(Path(__file__).parents[2])
    env = {**kept, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": home}
    done = subprocess.run(
        [sys.executable, "-c", _FRESH, json.dumps(asked)],
        capture_output=True, text=True, env=env, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: dict[str, list[Any]] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.mark.parametrize("kind", [*EARS, *PIPELINES])
def test_a_checkpoint_answers_the_same_in_a_fresh_process(
    checkpoints: Any, fresh: dict[str, list[Any]], kind: str
) -> None:
    """Without a network: the same text, vector and sound as here."""
    registry = ServiceRegistry()
    config = {"model": str(checkpoints(kind)), "device": "cpu"}
    made: Any
    if kind in PIPELINES:
        maker = registry.register("maker", AudioLDM, config=config)
        made = maker.generate("a bird", seconds=0.2, steps=2, seed=3).clip.hash
    else:
        ears = registry.register("ears", Wav2Vec2, config=config)
        clip = synth.noise(seconds=1.0)
        made = ears.transcribe(clip).text if kind == EARS[0] else ears.embed(clip)
    assert registry.close(10.0) == ()
    answer = fresh[kind][0]
    assert answer == (made if isinstance(made, str) else pytest.approx(made, abs=2e-4))


def test_a_load_imports_what_it_needs_and_nothing_else(fresh: dict[str, list[Any]]) -> None:
    """Listening needs transformers; what makes sound needs diffusers, too, and no picture or widget."""
    assert [fresh[kind][1] for kind in EARS] == [["transformers"]] * 3
    for kind in PIPELINES:
        imported = set(fresh[kind][1])
        assert {"diffusers", "transformers"} <= imported
        assert not imported & {"matplotlib", "IPython", "ipywidgets", "torchaudio", "pandas"}
