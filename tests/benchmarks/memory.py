"""Memory: what comes back after an unload, beside plain `del`; waking a parked model, beside loading it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grym_nb as grym
from grym_nb.hardening.peaks import Measure, Peaks
from tests.kernel import Kernel

from .frame import Effort, Row, benchmark, installed

_MODEL = """
import numpy as np
import grym_nb as grym
from grym_nb.devices import process_memory
SURVIVORS = []
class Model(grym.ModelService):
    def load(self):
        rng = np.random.default_rng(0)
        self.parts, left = [], 400_000_000
        while left > 0:
            size = min(int(rng.integers(500_000, 4_500_000)), left)
            self.parts.append(np.ones(size, np.uint8))
            SURVIVORS.append(bytes(3000))
            left -= size
    @grym.task
    def fail(self):
        mine = self.parts
        raise ValueError("as asked")
before = process_memory().anonymous
"""
_OURS = "handle = grym.register('model', Model).load()", "handle.fail()", "handle.unload()"
_PLAIN = "model = Model(); model.load()", "model.fail()", "del model; import gc; gc.collect()"


@benchmark
def given_back(effort: Effort) -> Iterator[Row]:
    """What a kernel still holds of 400 MB after an error in the model and its unload."""
    left = {"ours": _left(*_OURS), "plain": _left(*_PLAIN)}
    yield Row("held of 400 MB after an error, unload", left["ours"], "del, gc.collect", left["plain"], "B")


def _left(load: str, fail: str, unload: str) -> float:
    with Kernel() as kernel:
        for cell in (_MODEL, load):
            kernel.run(cell).checked()
        kernel.run(fail)
        kernel.run(unload).checked()
        text = kernel.run("process_memory().anonymous - before").checked().result_text
        return max(1.0, float(text or "nan"))


@benchmark
def waking(effort: Effort) -> Iterator[Row]:
    """A model of 2 GB in 200 tensors, back on its card, beside the same from a safetensors file."""
    if not installed("torch") or not _cuda():
        yield Row("wake a parked model, 2 GB", None, "load from safetensors", None, "ms", note="needs CUDA")
        return
    with TemporaryDirectory() as folder, grym.Runtime() as runtime:
        path = _weights(Path(folder) / "model.safetensors")
        handle = runtime.registry.register("model", FromFile, config={"path": str(path)}, device="cuda:0")
        handle.load()
        loads, wakes = [], []
        for _ in range(effort.slow_rounds):
            handle.unload()
            loads.append(_seconds(handle.load))
            record: Any = handle._record
            assert record.instance.reservation.tenant.evict("the benchmark")
            wakes.append(_seconds(handle.load))
        yield Row(
            "wake a parked model, 2 GB", min(wakes), "load from safetensors, warm", min(loads), "ms", "< 1"
        )


class FromFile(grym.ModelService):
    """Weights in a file, put on a card."""

    def __init__(self, *, path: str, device: str = "cuda:0") -> None:
        self.path, self.device = path, device

    def load(self) -> None:
        """Read them."""
        from safetensors.torch import load_file

        self.weights = load_file(self.path, device=self.device)

    @grym.task("test.sum")
    def total(self) -> float:
        """Return their sum."""
        return float(sum(one.sum() for one in self.weights.values()))


def _weights(path: Path) -> Path:
    import torch
    from safetensors.torch import save_file

    save_file({f"w{n}": torch.ones(2_500_000) for n in range(200)}, path)
    return path


def _cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _seconds(work: Any) -> float:
    import torch

    began = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - began


@benchmark
def predicted(effort: Effort) -> Iterator[Row]:
    """What calls of a tiny Wav2Vec2 take, told before each by what those before it took."""
    if not installed("transformers"):
        yield Row("peak of a call, predicted", None, "measured", None, "B", note="needs transformers")
        return
    call = _tiny()
    peaks = Peaks()
    for seconds, batch in ((1, 1), (2, 1), (4, 1), (1, 4), (8, 1), (2, 8), (16, 1), (8, 4), (32, 1), (10, 8)):
        work = float(seconds * batch)
        told, measure = peaks.predict(work), Measure("cpu")
        call(seconds, batch)
        if (peak := measure.peak()) is None:
            yield Row("peak of a call, predicted", None, "measured", None, "B", note="needs /proc")
            return
        peaks.learn(work, peak)
        if told is not None:
            yield Row(f"peak of a call, {batch} x {seconds} s, predicted", told, "measured", peak, "B")


def _tiny() -> Any:
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        conv_dim=(64,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    model = Wav2Vec2ForCTC(config).eval()

    def call(seconds: int, batch: int) -> None:
        with torch.no_grad():
            model(torch.zeros(batch, 16_000 * seconds))

    call(1, 1)  # what is made once
    return call
