"""Tiny checkpoints, each made once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.audio import tiny


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Gives ``checkpoints(kind, norm)``: the folder of a tiny Wav2Vec2, or of a tiny pipeline."""
    torch = pytest.importorskip("torch")
    # Beside other processes, threads that wait for one another take a hundred times as long.
    torch.set_num_threads(1)
    made: dict[tuple[str, str], Path] = {}

    def folder_of(kind: str = "Wav2Vec2ForCTC", norm: str = "layer") -> Path:
        if (kind, norm) not in made:
            folder = tmp_path_factory.mktemp(f"{kind}-{norm}")
            if kind in tiny.PIPELINES:
                made[kind, norm] = tiny.pipeline(folder, kind)
            else:
                made[kind, norm] = tiny.wav2vec2(folder, kind, norm=norm)
        return made[kind, norm]

    return folder_of
