"""Dsp: the features of clips as a service, so that they have a queue, metrics and a name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from grym_nb.audio import features
from grym_nb.audio.processing import Processed, process
from grym_nb.clip import Clip
from grym_nb.clip.files import package
from grym_nb.services.model import ModelService, task

__all__ = ["Dsp"]


def _task(feature: Callable[..., Any]) -> Callable[..., Any]:
    """Return a feature as a task, ``audio.<feature>``: with its words, parameters and defaults."""
    shown = inspect.signature(feature)
    clip, *rest = shown.parameters.values()
    self = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)

    def method(self: Any, clip: Clip, **parameters: Any) -> Any:
        return feature(clip, **parameters)

    told: Any = method
    told.__name__ = feature.__name__
    told.__qualname__ = f"Dsp.{feature.__name__}"
    told.__doc__ = feature.__doc__
    told.__signature__ = shown.replace(parameters=[self, clip, *rest])
    told.__annotations__ = {one.name: one.annotation for one in (clip, *rest)}
    made: Callable[..., Any] = task(f"audio.{feature.__name__}")(told)
    return made


class Dsp(ModelService):
    """Features of a clip, computed by plain functions."""

    def load(self) -> None:
        """Import what the tasks compute with: a second that no call pays, and what is missing is said now."""
        for name in ("pyloudnorm", "librosa.filters", "scipy.signal", "scipy.ndimage"):
            package(name, purpose="the dsp service")

    loudness = _task(features.loudness)
    rms = _task(features.rms)
    zero_crossings = _task(features.zero_crossings)

    mel = _task(features.mel)
    mfcc = _task(features.mfcc)
    centroid = _task(features.centroid)
    bandwidth = _task(features.bandwidth)
    rolloff = _task(features.rolloff)
    flatness = _task(features.flatness)

    chroma = _task(features.chroma)
    cqt = _task(features.cqt)
    pitch = _task(features.pitch)

    onsets = _task(features.onsets)
    beats = _task(features.beats)
    tempo = _task(features.tempo)

    split = _task(features.split)
    trim = _task(features.trim)
    voiced = _task(features.voiced)
    segments = _task(features.segments)
    hpss = _task(features.hpss)

    @task("audio.features")
    def many(self, clip: Clip | str, names: list[str], **parameters: Any) -> dict[str, Any]:
        """Return several features of a clip, or of a file by its path, in one passage: by name, in order.

        Parameters go to all of the features that take them. A file is read in blocks, between which progress
        is told and a cancel takes hold.
        """
        return features.many(clip, names, **parameters)

    @task("audio.process")
    def process(self, clip: Clip, steps: list[str] | dict[str, Any]) -> Processed:
        """Return what came of the steps over a clip, one after the other; as much as went well.

        A step is a feature by its name, several of them as a list, or a function of a clip; one that returns
        a clip hands it on.
        """
        return process(clip, steps)
