"""Tiny checkpoints, each made once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.audio import tiny


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Gives ``checkpoints(kind, norm)``: the folder of a tiny Wav2Vec2."""
    pytest.importorskip("torch")
    made: dict[tuple[str, str], Path] = {}

    def folder_of(kind: str = "Wav2Vec2ForCTC", norm: str = "layer") -> Path:
        if (kind, norm) not in made:
            made[kind, norm] = tiny.wav2vec2(tmp_path_factory.mktemp(f"{kind}-{norm}"), kind, norm=norm)
        return made[kind, norm]

    return folder_of
