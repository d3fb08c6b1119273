"""Listening: long audio beside the pipeline of transformers on the same checkpoint, a batch beside a loop.

Each side transcribes in a process of its own, with one thread, so that its peak of memory is its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .frame import Effort, Row, benchmark, installed, missing

_SIDE = """
import json, resource, sys, time
import numpy as np
import torch
torch.set_num_threads(1)
side, folder, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3])
from grym_nb.audio import synth
clip = synth.noise(seconds=seconds)
if side == "ours":
    from grym_nb.runtime import Runtime
    runtime = Runtime()
    ears = runtime.registry["wav2vec2"]
    ears.configure(model=folder, device="cpu", chunk_s=20.0, stride_s=3.0, batch_size=4)
    transcribe = lambda: ears.transcribe(clip).text
    ears.transcribe(clip.cut(0, 1))
else:
    import transformers as t
    pipeline = t.pipeline(
        "automatic-speech-recognition", model=t.Wav2Vec2ForCTC.from_pretrained(folder),
        tokenizer=t.Wav2Vec2CTCTokenizer.from_pretrained(folder),
        feature_extractor=t.Wav2Vec2FeatureExtractor.from_pretrained(folder),
    )
    how = {"chunk_length_s": 20, "stride_length_s": 3, "batch_size": 4}
    transcribe = lambda: pipeline(clip.samples.copy(), **how)["text"]
    pipeline(clip.cut(0, 1).samples.copy())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.perf_counter()
text = transcribe()
took = time.perf_counter() - began
peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
if side == "ours":
    runtime.close()
print(json.dumps([text, took, peak]))
"""


def _side(side: str, folder: Path, seconds: int) -> tuple[str, float, float]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    env |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _SIDE, side, str(folder), str(seconds)],
        capture_output=True, text=True, env=env, timeout=600, check=True,
    )  # fmt: skip
    text, took, peak = json.loads(done.stdout.splitlines()[-1])
    return text, took, peak


@benchmark
def long_transcripts(effort: Effort) -> Iterator[Row]:
    """Minutes of sound through a tiny checkpoint: the same text, the time and the growth of the peak."""
    if not installed("transformers"):
        yield missing("transcribe", None, "transformers.pipeline", "s")
        return
    from tests.audio import tiny

    seconds = 600 if effort.slow_rounds > 1 else 60
    with TemporaryDirectory() as folder:
        checkpoint = tiny.wav2vec2(Path(folder))
        ours, theirs = (_side(side, checkpoint, seconds) for side in ("ours", "theirs"))
    same = "the same text" if ours[0] == theirs[0] else "ANOTHER text"
    peer = "transformers.pipeline"
    yield Row(f"transcribe {seconds} s", ours[1], peer, theirs[1], "s", note=same)
    yield Row(f"peak of {seconds} s", max(1.0, ours[2]), peer, max(1.0, theirs[2]), "B")


@benchmark
def batches(effort: Effort) -> Iterator[Row]:
    """Sixteen clips of about a second in batches, beside one call for each."""
    if not installed("transformers"):
        yield missing("transcribe_all of 16 clips", None, "a loop", "ms")
        return
    import torch

    from grym_nb.audio import synth
    from grym_nb.runtime import Runtime
    from tests.audio import tiny

    threads: Any = torch.get_num_threads()
    torch.set_num_threads(1)
    clips = [synth.noise(seconds=1.0 + at / 100, seed=at) for at in range(16)]
    with TemporaryDirectory() as folder, Runtime() as runtime:
        ears = runtime.registry["wav2vec2"]
        ears.configure(model=str(tiny.wav2vec2(Path(folder))), device="cpu", batch_size=8)
        ears.transcribe_all(clips)
        taken: dict[str, list[float]] = {"batch": [], "loop": []}
        for _ in range(2 * effort.slow_rounds + 1):
            began = time.perf_counter()
            together = ears.transcribe_all(clips)
            middle = time.perf_counter()
            alone = [ears.transcribe(clip) for clip in clips]
            taken["loop"].append(time.perf_counter() - middle)
            taken["batch"].append(middle - began)
    torch.set_num_threads(threads)
    same = "the same texts" if [t.text for t in together] == [t.text for t in alone] else "OTHER texts"
    batch, loop = (sorted(some)[len(some) // 2] for some in taken.values())
    yield Row("transcribe_all of 16 clips", batch, "a loop", loop, "ms", note=same)
