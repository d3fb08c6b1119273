"""What a model will take, told by its files before anything is loaded."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from grym_nb.hardening.prediction import Prediction, predicted, size_of_files


def safetensors(path: Path, *tensors: tuple[str, list[int]]) -> Path:
    """Write a file with zeros, as the format says."""
    widths = {"F32": 4, "F16": 2, "I64": 8}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for n, (dtype, shape) in enumerate(tensors):
        size = widths[dtype]
        for side in shape:
            size *= side
        header[f"t{n}"] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))
    return path


def test_a_header_tells_and_in_another_dtype_its_floats_do(tmp_path: Path) -> None:
    file = safetensors(tmp_path / "model.safetensors", ("F32", [10, 10]), ("I64", [10]))
    assert size_of_files(file) == 480
    assert size_of_files(tmp_path, width=2) == 280
    assert predicted({"checkpoint": str(tmp_path), "dtype": "float16", "n": 3}) == Prediction(
        280, "the files of checkpoint"
    )


def test_of_several_kinds_of_the_same_weights_one_counts(tmp_path: Path) -> None:
    safetensors(tmp_path / "model.safetensors", ("F32", [100]))
    safetensors(tmp_path / "model.fp16.safetensors", ("F16", [100]))
    (tmp_path / "pytorch_model.bin").write_bytes(bytes(500))
    assert size_of_files(tmp_path) == 400
    (tmp_path / "model.safetensors").unlink()
    assert size_of_files(tmp_path) == 200
    (tmp_path / "model.fp16.safetensors").unlink()
    assert size_of_files(tmp_path) == 500


def test_shards_and_the_parts_of_a_pipeline_add_up(tmp_path: Path) -> None:
    safetensors(tmp_path / "unet" / "a-00001-of-00002.safetensors", ("F32", [100]))
    safetensors(tmp_path / "unet" / "a-00002-of-00002.safetensors", ("F32", [50]))
    safetensors(tmp_path / "vae" / "model.safetensors", ("F32", [25]))
    safetensors(tmp_path / "checkpoint-500" / "model.safetensors", ("F32", [1000]))
    assert size_of_files(tmp_path) == 700


def test_a_config_of_transformers_tells_without_making_the_model() -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    config = transformers.Wav2Vec2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2)
    model = transformers.AutoModel.from_config(config)
    size = sum(one.nbytes for one in (*model.parameters(), *model.buffers()))
    assert predicted({"config": config, "n": 3}) == Prediction(size, "the model that config describes")
    assert predicted({"config": config, "dtype": "float16"}) == Prediction(
        size // 2, "the model that config describes"
    )
    config.architectures = ["Wav2Vec2ForCTC"]
    told = predicted({"config": config})
    assert told is not None and told.size > size
    config.num_attention_heads = 5  # of which none can be made
    assert predicted({"config": config}) is None


@pytest.mark.parametrize("bad", ["", "\0", "no such place", "x" * 5000])
def test_what_is_no_path_says_nothing(bad: str) -> None:
    assert size_of_files(bad) == 0 and predicted({"name": bad}) is None


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 100, struct.pack("<Q", 9) + b"not json!", b"\2\0\0\0\0\0\0\0{}"]
)
def test_a_file_that_is_not_what_its_name_says_says_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    assert size_of_files(tmp_path) == 0


def test_the_real_library_agrees(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    save = pytest.importorskip("safetensors.torch").save_file
    save({"a": torch.zeros(7, 3), "b": torch.zeros(5, dtype=torch.int64)}, tmp_path / "m.safetensors")
    assert size_of_files(tmp_path) == 7 * 3 * 4 + 5 * 8


@pytest.mark.parametrize(
    "header", [b"[]", b"5", b"[" * 3000, b'{"a": {"dtype": "F32", "data_offsets": [9, 0]}}', b'{"a": 1}']
)
def test_a_header_that_is_none_says_nothing(tmp_path: Path, header: bytes) -> None:
    file = tmp_path / "odd.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    assert size_of_files(file) == 0


def test_an_empty_value_names_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "big.pt").write_bytes(b"x" * 100)
    monkeypatch.chdir(tmp_path)
    assert predicted({"prefix": ""}) is None and predicted({"prefix": "."}) is not None


def test_a_config_is_asked_without_changing_what_other_threads_make() -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    config = transformers.Wav2Vec2Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    full = predicted({"config": config})
    seen: list[Any] = []
    set_default = torch.set_default_dtype
    try:
        torch.set_default_dtype = seen.append
        config.dtype = torch.float16
        half = predicted({"config": config})
    finally:
        torch.set_default_dtype = set_default
    assert full is not None and half is not None and half.size * 2 == full.size
    assert all(one == torch.float32 for one in seen)
