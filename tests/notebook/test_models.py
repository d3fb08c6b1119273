"""`%grym load NAME --model REF`: a service that comes with the package, with a checkpoint of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from grym_nb.errors import CommandError, ConfigError, LoadFailed
from grym_nb.notebook.commands import dispatch
from grym_nb.runtime import Runtime
from tests.audio import tiny


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two tiny checkpoints of one kind."""
    torch: Any = pytest.importorskip("torch")
    torch.set_num_threads(1)
    return [tiny.wav2vec2(tmp_path_factory.mktemp("ctc"), seed=seed) for seed in (0, 1)]


def test_a_model_is_named_and_loaded(shell: InteractiveShell, runtime: Runtime, folders: list[Path]) -> None:
    """Another one takes its place; without a name the one that it has is loaded again."""
    ears = runtime.registry["wav2vec2"]
    for folder in folders:
        assert dispatch(shell, f"load wav2vec2 --model '{folder}' ") is ears
        with ears.use() as service:
            assert (ears.state, service.checkpoint.folder) == ("ready", folder)
    with pytest.raises(LoadFailed, match="the directory of a checkpoint is needed"):
        dispatch(shell, f"load wav2vec2 --model '{folders[1]}/none'")
    dispatch(shell, "unload wav2vec2")
    dispatch(shell, "load wav2vec2")
    assert (ears.state, ears.config["model"]) == ("ready", str(folders[1]))


@pytest.mark.parametrize("name", ["wav2vec2", "audioldm"])
def test_without_one_it_says_how_to_name_it(shell: InteractiveShell, name: str) -> None:
    """Before torch is imported."""
    with pytest.raises(LoadFailed, match="no model is configured") as caught:
        dispatch(shell, f"load {name}")
    assert f"%grym load {name} --model DIR" in caught.value.hint


def test_what_cannot_be_a_model_is_told(shell: InteractiveShell, runtime: Runtime, tmp_path: Path) -> None:
    """Of one service at a time; one that takes none says what it takes; the service stays as it was."""
    with pytest.raises(CommandError, match="--model is for one service, not for 2"):
        dispatch(shell, "load wav2vec2 audioldm --model dir")
    with pytest.raises(ConfigError, match=r"config\.model"):
        dispatch(shell, "load dsp --model dir")
    with pytest.raises(LoadFailed, match="holds no checkpoint"):
        dispatch(shell, f"load wav2vec2 --model '{tmp_path}'")
    assert runtime.registry["dsp"].state == "registered"
