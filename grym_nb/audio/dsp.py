"""Dsp: the features of clips as a service, so that they have a queue, metrics and a name."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grym_nb.audio import features
from grym_nb.clip import Clip
from grym_nb.clip.files import package
from grym_nb.services.model import ModelService, task

__all__ = ["Dsp"]


class Dsp(ModelService):
    """Features of a clip, computed by plain functions."""

    def load(self) -> None:
        """Import what the tasks compute with: a second that no call pays, and what is missing is said now."""
        for name in ("pyloudnorm", "librosa.filters"):
            package(name, purpose="the dsp service")

    @task("audio.loudness")
    def loudness(self, clip: Clip, *, block_s: float = 0.4) -> float:
        """Return the integrated loudness in LUFS; -inf for silence."""
        return features.loudness(clip, block_s=block_s)

    @task("audio.mel")
    def mel(
        self,
        clip: Clip,
        *,
        n_mels: int = 64,
        n_fft: int = 1024,
        hop: int = 256,
        fmin: float = 0.0,
        fmax: float | None = None,
        db: bool = False,
    ) -> npt.NDArray[np.float32]:
        """Return the mel spectrogram, float32 ``(n_mels, 1 + frames // hop)``: power, or dB with `db`."""
        return features.mel(clip, n_mels=n_mels, n_fft=n_fft, hop=hop, fmin=fmin, fmax=fmax, db=db)
