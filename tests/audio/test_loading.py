"""Where a model computes and in which numbers; files that cannot be read; a torchaudio that is broken."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch: Any = pytest.importorskip("torch")

from grym_nb.audio.checkpoint import Checkpoint  # noqa: E402
from grym_nb.audio.loading import Placement, import_transformers, load, placement, quantised, quiet  # noqa: E402
from grym_nb.errors import CheckpointError, ConfigError, StorageError  # noqa: E402


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives ``cards(n, mps)``: what torch knows."""

    def known(n: int, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: n > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return known


@pytest.mark.parametrize(
    ("there", "asked", "placed"),
    [
        ((0, False), ("auto", "auto"), ("cpu", "float32", "there is no accelerator")),
        ((2, False), ("auto", "auto"), ("cuda:0", "float16", "the accelerator that is there")),
        ((0, True), ("auto", "auto"), ("mps", "float16", "the accelerator that is there")),
        ((2, False), ("cuda", "bfloat16"), ("cuda:0", "bfloat16", "as asked for")),
        ((2, False), ("cuda:1", "auto"), ("cuda:1", "float16", "as asked for")),
        ((2, False), ("cpu", "auto"), ("cpu", "float32", "as asked for")),
        ((0, True), ("mps", "float32"), ("mps", "float32", "as asked for")),
        ((2, False), ("cuda:2", "auto"), ("cpu", "float32", "no cuda:2 is there: torch knows 2 cards")),
        ((0, False), ("cuda", "auto"), ("cpu", "float32", "no cuda is there: torch knows 0 cards")),
        ((0, False), ("mps", "auto"), ("cpu", "float32", "no mps is there: it is for Apple's GPUs")),
    ],
)
def test_a_model_goes_where_it_is_told_or_where_it_suits(
    cards: Any, there: Any, asked: Any, placed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """What was asked for and is not there is the CPU, and a warning says so."""
    cards(*there)
    caplog.set_level(logging.INFO)
    found = placement(*asked, service="wav2vec2")
    assert found == Placement(*placed)
    levels = [record.levelname for record in caplog.records]
    assert levels == (["WARNING", "INFO"] if found.why.startswith("no ") else ["INFO"])
    assert str(found) in caplog.text


def test_what_is_no_device_and_no_type_is_refused_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        placement("gpu", "int4", service="wav2vec2")
    assert [problem.path for problem in caught.value.problems] == ["device", "dtype"]
    with pytest.raises(ConfigError, match=r"(?s)dtype: found 'int8', expected auto, float32"):
        placement("cpu", "int8", service="audioldm", int8=False)


def test_files_that_cannot_be_read_are_named_with_what_was_said() -> None:
    """An error that says enough already is left as it is; so is one of memory."""
    checkpoint = Checkpoint("owner/name", Path("nowhere"), "Wav2Vec2ForCTC", {})
    placed = Placement("cpu", "float32", "as asked for")

    def broken(error: Exception) -> Any:
        def build() -> None:
            raise error

        return build

    with pytest.raises(CheckpointError) as caught:
        load(checkpoint, placed, broken(OSError("header too large\nmore")), service="wav2vec2")
    assert (caught.value.message, caught.value.cause) == (
        "'owner/name' (Wav2Vec2ForCTC) could not be read",
        "OSError: header too large",
    )
    for own in (StorageError("mine"), RuntimeError("CUDA out of memory")):
        with pytest.raises(type(own)) as same:
            load(checkpoint, placed, broken(own), service="wav2vec2")
        assert same.value is own


@pytest.mark.parametrize("name", ["transformers", "diffusers"])
def test_bars_are_drawn_and_warnings_told_again_afterwards(name: str) -> None:
    import_transformers("a test")
    log: Any = importlib.import_module(f"{name}.utils.logging")
    was_drawn, level = log.is_progress_bar_enabled(), log.get_verbosity()
    log.enable_progress_bar()
    log.set_verbosity_info()
    with pytest.raises(KeyError), quiet(name):
        assert not log.is_progress_bar_enabled() and log.get_verbosity() == logging.ERROR
        raise KeyError
    assert log.is_progress_bar_enabled() and log.get_verbosity() == logging.INFO
    log.set_verbosity(level)
    if not was_drawn:
        log.disable_progress_bar()


def test_int8_keeps_a_quarter_of_the_bytes_and_nearly_the_answer() -> None:
    """Of layers that are worth it; the others stay as they are."""
    made = torch.Generator().manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(256, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))
    with torch.no_grad():
        for one in network.parameters():
            one.copy_(torch.randn(one.shape, generator=made) / 8)
    given = torch.randn(5, 256, generator=made)
    before = network(given).detach()
    weight = network[0].weight.detach()
    small = quantised(network)
    assert type(small[2]) is torch.nn.Linear and small[0].weight.dtype == torch.int8
    assert small[0].weight.nbytes * 4 == weight.nbytes
    assert torch.allclose(small[0].weight * small[0].scale, weight, atol=float(weight.abs().max()) / 250)
    assert float((small(given).detach() - before).abs().max() / before.abs().max()) < 0.02


def test_a_broken_torchaudio_is_as_none(tmp_path: Path) -> None:
    """Transformers imports it unguarded once it is installed: then no audio model could be imported."""
    package = tmp_path / "torchaudio"
    package.mkdir()
    (package / "__init__.py").write_text("raise OSError('libcudart.so.13: cannot open shared object file')")
    meta = tmp_path / "torchaudio-2.11.0.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: torchaudio\nVersion: 2.11.0\n")
    code = (
        "import logging, sys\n"
        "logging.basicConfig(format='%(message)s', stream=sys.stdout)\n"
        "from grym_nb.audio.loading import import_transformers\n"
        "import_transformers('a test')\n"
        "import transformers.audio_utils\n"
    )
    home = str(Path(__file__).parents[2])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), home])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert "going on without it (libcudart.so.13" in done.stdout
    bare = code.replace("import_transformers('a test')", "__import__('transformers')")
    done = subprocess.run([sys.executable, "-c", bare], capture_output=True, text=True, env=env, check=False)
    assert "libcudart" in done.stderr
