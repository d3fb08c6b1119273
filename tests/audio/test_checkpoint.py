"""What a reference names is found, judged and measured without a heavy import, and what is wrong is named."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from grym_nb.audio.checkpoint import Checkpoint, find, is_offline, pipeline_parts
from grym_nb.errors import CheckpointError

ACCEPTS = {
    "Wav2Vec2ForCTC": ("preprocessor_config.json|processor_config.json", "vocab.json"),
    "TinyPipeline": (),
}


def weights(path: Path, *, numbers: int = 100, dtype: str = "F32") -> Path:
    """Write a safetensors file of one tensor."""
    size = numbers * {"F32": 4, "F16": 2}[dtype]
    header = json.dumps({"w": {"dtype": dtype, "shape": [numbers], "data_offsets": [0, size]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))
    return path


def a_model(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    told = {"architectures": ["Wav2Vec2ForCTC"], "model_type": "wav2vec2", **config}
    (folder / "config.json").write_text(json.dumps(told))
    (folder / "vocab.json").write_text("{}")
    (folder / "processor_config.json").write_text("{}")
    weights(folder / "model.safetensors")
    return folder


PARTS = {
    "_class_name": "TinyPipeline", "_diffusers_version": "0.42.1", "extra": [None, None], "n": 3,
    "unet": ["diffusers", "UNet2DConditionModel"], "vocoder": ["transformers", "SpeechT5HifiGan"],
    "scheduler": ["diffusers", "DDIMScheduler"], "tokenizer": ["transformers", "RobertaTokenizer"],
    "feature_extractor": ["transformers", "ClapFeatureExtractor"],
}  # fmt: skip


def a_pipeline(folder: Path) -> Path:
    for part, file in {
        "unet": "config.json", "vocoder": "config.json", "scheduler": "scheduler_config.json",
        "tokenizer": "tokenizer_config.json", "feature_extractor": "preprocessor_config.json",
    }.items():  # fmt: skip
        (folder / part).mkdir(parents=True)
        (folder / part / file).write_text("{}")
    weights(folder / "unet/diffusion_pytorch_model.safetensors", dtype="F16")
    weights(folder / "vocoder/model.safetensors", dtype="F16")
    (folder / "model_index.json").write_text(json.dumps(PARTS))
    return folder


def told(reference: object) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        find(reference, ACCEPTS, service="wav2vec2")
    return caught.value


def test_a_directory_is_what_its_config_says(tmp_path: Path) -> None:
    """As text or as a path; its bytes in each type are known from the headers of its files."""
    folder = a_model(tmp_path / "model")
    found = find(str(folder), ACCEPTS, service="wav2vec2")
    config = {"architectures": ["Wav2Vec2ForCTC"], "model_type": "wav2vec2"}
    assert found == Checkpoint(str(folder), folder, "Wav2Vec2ForCTC", config)
    assert find(folder, ACCEPTS, service="wav2vec2") == found and str(found) == str(folder)
    assert [found.memory(dtype) for dtype in ("", "float32", "float16", "int8")] == [400, 400, 200, 100]


def test_a_pipeline_is_measured_with_its_parts(tmp_path: Path) -> None:
    """What its index leaves empty is no part of it."""
    found = find(a_pipeline(tmp_path / "pipe"), ACCEPTS, service="audioldm")
    assert (found.kind, found.memory(), found.memory("float32")) == ("TinyPipeline", 400, 800)
    assert list(pipeline_parts(found.config)) == [
        "unet",
        "vocoder",
        "scheduler",
        "tokenizer",
        "feature_extractor",
    ]
    assert pipeline_parts({"unet": ["diffusers", "UNet"]}) == {}


@pytest.mark.parametrize(
    ("gone", "missing"),
    [
        ("vocab.json", "vocab.json"),
        ("processor_config.json", "preprocessor_config.json or processor_config.json"),
        ("model.safetensors", "model.safetensors or pytorch_model.bin"),
    ],
)
def test_a_file_that_is_missing_is_named(tmp_path: Path, gone: str, missing: str) -> None:
    """Before anything is imported; of several that would do, all."""
    (a_model(tmp_path / "model") / gone).unlink()
    error = told(tmp_path / "model")
    assert error.details["missing"] == (missing,) and f"missing: {missing}" in error.cause


@pytest.mark.parametrize(
    ("gone", "missing"),
    [
        ("unet/config.json", "unet/config.json"),
        ("unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.safetensors or"),
        ("vocoder/model.safetensors", "vocoder/model.safetensors or pytorch_model.bin"),
        ("scheduler/scheduler_config.json", "scheduler/scheduler_config.json"),
        ("tokenizer/tokenizer_config.json", "tokenizer/tokenizer_config.json"),
        ("feature_extractor/preprocessor_config.json", "feature_extractor/preprocessor_config.json"),
    ],
)
def test_a_missing_file_of_a_part_is_named(tmp_path: Path, gone: str, missing: str) -> None:
    (a_pipeline(tmp_path / "pipe") / gone).unlink()
    assert f"missing: {missing}" in told(tmp_path / "pipe").cause


def test_a_missing_part_and_a_missing_shard_are_named(tmp_path: Path) -> None:
    pipe = a_pipeline(tmp_path / "pipe")
    (pipe / "scheduler/scheduler_config.json").unlink()
    (pipe / "scheduler").rmdir()
    assert told(pipe).details["missing"] == ("scheduler/",)
    model = a_model(tmp_path / "model")
    (model / "model.safetensors").rename(model / "model-1.safetensors")
    index = {"weight_map": {"w": "model-1.safetensors", "v": "model-2.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert told(model).details["missing"] == ("model-2.safetensors",)


def test_another_kind_is_told_with_what_is_accepted(tmp_path: Path) -> None:
    error = told(a_model(tmp_path / "bert", architectures=["BertModel"]))
    assert "config.json says BertModel" in error.message
    assert error.cause == "accepted: Wav2Vec2ForCTC, TinyPipeline"
    assert "type 'bert', without a class" in str(
        told(a_model(tmp_path / "bare", architectures=None, model_type="bert"))
    )


def test_what_holds_no_checkpoint_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    assert "found notes.txt" in told(tmp_path).cause
    (tmp_path / "config.json").write_text("{not json")
    assert "cannot be read as JSON" in told(tmp_path).message
    (tmp_path / "config.json").write_text("[1]")
    assert "no JSON object" in told(tmp_path).message


def test_what_is_no_directory_says_so_with_the_nearest(tmp_path: Path) -> None:
    folder = a_model(tmp_path / "models/dtmf")
    assert "Did you mean 'dtmf'?" in told(str(folder.parent / "dtfm")).message
    assert "is a file" in told(str(folder / "config.json")).message
    for nothing in (None, "", " ", 7):
        assert "--model DIR" in told(nothing).hint


def test_the_zoo_is_asked_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is there; without it, and for a name that it lacks, there is no such model."""
    folder = a_model(tmp_path / "dtmf")
    monkeypatch.setitem(sys.modules, "grym_nb.audio.zoo", None)  # type: ignore[arg-type]
    assert "no 'zoo:dtmf'" in told("zoo:dtmf").message
    zoo: Any = ModuleType("grym_nb.audio.zoo")
    zoo.find = lambda name: {"dtmf": SimpleNamespace(folder=folder)}[name]
    monkeypatch.setitem(sys.modules, "grym_nb.audio.zoo", zoo)
    assert find("zoo:dtmf", ACCEPTS, service="wav2vec2").folder == folder
    assert "no 'zoo:other'" in told("zoo:other").message


def hub_of(root: Path, monkeypatch: pytest.MonkeyPatch, commit: str) -> Path:
    """Make what a hub's cache holds of owner/name, offline; return the snapshot's folder."""
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(root))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    home = root / "models--owner--name"
    (home / "refs").mkdir(parents=True)
    (home / "refs/main").write_text(commit)
    return a_model(home / "snapshots" / commit)


def test_a_model_of_the_hub_is_pinned_to_its_commit_and_used_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a branch it is the commit that was fetched; what was not cannot be had."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = hub_of(tmp_path, monkeypatch, commit)
    for reference in ("owner/name", f"owner/name@{commit}", "owner/name@main"):
        found = find(reference, ACCEPTS, service="wav2vec2")
        assert (found.folder, found.revision, str(found)) == (folder, commit, f"owner/name@{commit}")
    for strange in ("owner/other", "owner/name@v2"):
        error = told(strange)
        assert "HF_HUB_OFFLINE is set" in error.message and "owner/name@revision" in error.hint


@pytest.mark.parametrize(
    ("environ", "offline"),
    [
        ({}, False),
        ({"HF_HUB_OFFLINE": "1"}, True),
        ({"HF_HUB_OFFLINE": "0"}, False),
        ({"TRANSFORMERS_OFFLINE": "yes"}, True),
    ],
)
def test_offline_is_what_the_environment_says(environ: dict[str, str], offline: bool) -> None:
    assert is_offline(environ) is offline


def test_nothing_heavy_is_imported_to_judge_a_checkpoint(tmp_path: Path) -> None:
    """Not for one of the wrong kind, nor for one that is whole."""
    folder = a_model(tmp_path / "model")
    code = (
        "import sys\n"
        "from grym_nb.audio.checkpoint import find\n"
        "from grym_nb.errors import CheckpointError\n"
        f"find({str(folder)!r}, {{'Wav2Vec2ForCTC': ()}}, service='x').memory()\n"
        "try:\n"
        f"    find({str(folder)!r}, {{'AudioLDMPipeline': ()}}, service='x')\n"
        "except CheckpointError as error:\n"
        "    print(error.message)\n"
        "heavy = ('torch', 'transformers', 'diffusers', 'huggingface_hub', 'safetensors')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said, imported = done.stdout.splitlines()
    assert "config.json says Wav2Vec2ForCTC" in said and imported == "[]"
