"""The list of the zoo is what lies there, read without loading anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from grym_nb.audio.zoo import Model, find, models
from grym_nb.audio.zoo.catalogue import CARD, METRICS, SHELF
from grym_nb.errors import StorageError, ValidationError

FIGURES = {
    "kind": "transcription",
    "summary": "writes what it hears",
    "measure": "character error rate",
    "score": 0.01,
    "at": "10 dB SNR",
    "floor": 0.02,
    "better": "lower",
    "scores": {"10 dB": 0.01},
    "training": {"seed": 4},
}


def put(shelf: Path, name: str, **figures: object) -> Path:
    folder = shelf / name
    folder.mkdir()
    (folder / METRICS).write_text(json.dumps({**FIGURES, **figures}))
    (folder / "model.safetensors").write_bytes(b"x" * 100)
    (folder / CARD).write_text(f"# {name}\n")
    return folder


def test_a_model_is_its_folder_and_its_figures(tmp_path: Path) -> None:
    folder = put(tmp_path, "ears")
    assert models(tmp_path) == [
        Model(
            name="ears",
            folder=folder,
            kind="transcription",
            summary="writes what it hears",
            bytes=sum(path.stat().st_size for path in folder.iterdir()),
            measure="character error rate",
            score=0.01,
            at="10 dB SNR",
            floor=0.02,
            better="lower",
            scores={"10 dB": 0.01},
        )
    ]
    found = find("zoo:ears", tmp_path)
    assert (found, found.card, found.metrics["training"]) == (find("ears", tmp_path), "# ears\n", {"seed": 4})


@pytest.mark.parametrize(
    ("better", "score", "floor", "holds"),
    [
        ("lower", 0.02, 0.02, True),
        ("lower", 0.021, 0.02, False),
        ("higher", 0.97, 0.97, True),
        ("higher", 0.96, 0.97, False),
    ],
)
def test_a_floor_is_kept_from_its_own_side(
    tmp_path: Path, better: str, score: float, floor: float, holds: bool
) -> None:
    put(tmp_path, "ears", better=better, score=score, floor=floor)
    assert find("ears", tmp_path).holds is holds


def test_what_is_not_trained_or_has_no_weights_is_not_listed(tmp_path: Path) -> None:
    (put(tmp_path, "no-weights") / "model.safetensors").unlink()
    (put(tmp_path, "no-figures") / METRICS).unlink()
    put(tmp_path, "b")
    put(tmp_path, "a")
    assert [model.name for model in models(tmp_path)] == ["a", "b"]
    assert models(tmp_path / "nowhere") == []


@pytest.mark.parametrize("name", ["dtfm", "zoo:dtfm", "DTMF"])
def test_an_unknown_name_is_told_with_what_there_is(tmp_path: Path, name: str) -> None:
    put(tmp_path, "dtmf")
    with pytest.raises(ValidationError) as told:
        find(name, tmp_path)
    assert name.removeprefix("zoo:") in told.value.message
    assert told.value.problems[0].expected == "one of: dtmf"


def test_the_closest_name_is_offered(tmp_path: Path) -> None:
    put(tmp_path, "dtmf")
    with pytest.raises(ValidationError, match="Did you mean 'dtmf'"):
        find("dtfm", tmp_path)


@pytest.mark.parametrize("name", [None, 3, b"dtmf"])
def test_what_is_no_name_is_told_so(tmp_path: Path, name: object) -> None:
    put(tmp_path, "dtmf")
    with pytest.raises(ValidationError, match="the zoo has no model"):
        find(name, tmp_path)  # type: ignore[arg-type]


def test_figures_that_are_cut_off_or_not_complete_are_told_with_their_file(tmp_path: Path) -> None:
    folder = put(tmp_path, "ears")
    (folder / METRICS).write_text("{")
    with pytest.raises(StorageError, match="cannot be read") as told:
        models(tmp_path)
    assert METRICS in told.value.cause
    (folder / METRICS).write_text("{}")
    with pytest.raises(StorageError, match="not complete") as told:
        models(tmp_path)
    assert "'kind'" in told.value.cause


def test_all_models_of_the_package_take_less_than_six_megabytes() -> None:
    assert sum(path.stat().st_size for path in SHELF.rglob("*") if path.is_file()) < 6_000_000
    assert {folder.name for folder in SHELF.glob("*")} == {model.name for model in models()}


def test_the_list_is_read_without_torch_or_numpy() -> None:
    code = (
        "import sys; from grym_nb.audio.zoo import models; models();"
        "sys.exit(','.join({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stderr.strip() == ""


def test_the_command_lists_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    from grym_nb.audio.zoo.__main__ import main

    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [model.name for model in models()]
    assert all(f"{model.score:.2%}" in line for model, line in zip(models(), lines, strict=True))
