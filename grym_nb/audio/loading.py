"""How models come into memory: on which device and in which numbers, from safe files, nothing unasked.

Weights are read as safetensors, or pickled ones with ``weights_only``; no code that comes with a checkpoint
ever runs.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from grym_nb.audio.checkpoint import Checkpoint, pipeline_parts
from grym_nb.clip.files import package
from grym_nb.clock import monotonic
from grym_nb.errors import CheckpointError, ConfigError, GrymError, Problem
from grym_nb.render import brief, seconds, size
from grym_nb.services.shortage import ran_out

__all__ = [
    "DTYPES",
    "Placement",
    "import_torch",
    "import_transformers",
    "load",
    "placement",
    "quantised",
    "quiet",
    "shared_key",
]

_log = logging.getLogger(__name__)

#: the numbers in which a model can compute; int8 keeps the weights of its linear layers as bytes
DTYPES = ("float32", "float16", "bfloat16", "int8")
_KINDS = ("cpu", "cuda", "mps")
_LEAST_ROWS = 16  # of a linear layer: smaller ones are not worth an error


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model computes ("cuda:0"), in which numbers ("float16"), and why there, in words."""

    device: str
    dtype: str
    why: str

    @property
    def stored(self) -> str:
        """The type in which weights are read: of int8, float32 first."""
        return "float32" if self.dtype == "int8" else self.dtype

    def __str__(self) -> str:
        return f"{self.device}, {self.dtype} ({self.why})"


def import_torch(purpose: str) -> Any:
    """Return torch, or raise the error that says how to install it."""
    return package("torch", purpose=purpose, extra="audio")


def import_transformers(purpose: str) -> Any:
    """Return transformers, to which a torchaudio that cannot be imported is none at all.

    Where torchaudio is installed but broken (linked to a CUDA that is not there), transformers could not
    import a single audio model.
    """
    import_torch(purpose)
    if "torchaudio" not in sys.modules and importlib.util.find_spec("torchaudio") is not None:
        try:
            importlib.import_module("torchaudio")
        except (ImportError, OSError) as error:
            _hide_torchaudio(error)
    return package("transformers", purpose=purpose, extra="audio")


def _hide_torchaudio(error: Exception) -> None:
    said = str(error).partition("\n")[0]
    _log.warning("torchaudio is installed and cannot be imported: going on without it (%s)", said)
    missing: Any = None
    sys.modules["torchaudio"] = missing  # Python's own way to say that there is none, also to `find_spec`
    known = sys.modules.get("transformers.utils.import_utils")
    if known is not None:  # it may have looked before
        known.is_torchaudio_available.cache_clear()


def placement(device: str, dtype: str, *, service: str, int8: bool = True) -> Placement:
    """Return where a model computes and in which numbers: as is said, and with "auto" what suits the machine.

    That is float16 on CUDA and on Apple's GPU, and float32 on the CPU. What is said and is not there becomes
    the CPU, and a warning says so.
    """
    torch = import_torch(f"the {service} service")
    _refuse_unknown(device, dtype, int8=int8)
    where, why = _device(torch, device)
    if why.startswith("no "):
        _log.warning("%s computes on the CPU: %s", service, why)
    if dtype == "auto":
        dtype = "float32" if where == "cpu" else "float16"
    placed = Placement(where, dtype, why)
    _log.info("%s: %s", service, placed)
    return placed


def _refuse_unknown(device: object, dtype: object, *, int8: bool) -> None:
    problems = []
    if not (isinstance(device, str) and (device == "auto" or device.partition(":")[0] in _KINDS)):
        problems.append(Problem("device", brief(device), '"auto", "cpu", "cuda", "cuda:1" or "mps"'))
    known = [name for name in DTYPES if int8 or name != "int8"]
    if dtype != "auto" and dtype not in known:
        problems.append(Problem("dtype", brief(dtype), f"auto, {', '.join(known)}"))
    if problems:
        raise ConfigError("the model cannot be placed so", problems=problems)


def _device(torch: Any, asked: str) -> tuple[str, str]:
    """Return the device, and why it is that one; ``"no ..."`` where another was asked for."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    kind, _, index = asked.partition(":")
    if kind == "auto":
        found = "cuda:0" if cuda else "mps" if mps else "cpu"
        return found, "the accelerator that is there" if found != "cpu" else "there is no accelerator"
    if kind == "cuda":
        cards = torch.cuda.device_count() if cuda else 0
        if (index.isdigit() and int(index) < cards) or (not index and cards):
            return f"cuda:{index or 0}", "as asked for"
        return "cpu", f"no {asked} is there: torch knows {cards} cards"
    if kind == "mps" and not mps:
        return "cpu", "no mps is there: it is for Apple's GPUs"
    return kind, "as asked for"


def shared_key(checkpoint: Checkpoint, placed: Placement) -> str:
    """Return the name under which services share the weights of a checkpoint on a device."""
    return f"{checkpoint}:{placed.dtype}:{placed.device}:{checkpoint.kind}:{checkpoint.stamp}"


def load(checkpoint: Checkpoint, placed: Placement, build: Callable[[], Any], *, service: str) -> Any:
    """Return what `build` makes of a checkpoint; what goes wrong is a `CheckpointError` that names it."""
    began = monotonic()
    import_transformers(f"the {service} service")
    with_pipeline = ("diffusers",) if pipeline_parts(checkpoint.config) else ()
    try:
        with quiet("transformers", *with_pipeline):
            made = build()
    except Exception as error:  # the libraries raise what they like
        if isinstance(error, GrymError) or ran_out(error):
            raise
        said = str(error).strip().partition("\n")[0]
        raise CheckpointError(
            f"{checkpoint.reference!r} ({checkpoint.kind}) could not be read",
            cause=f"{type(error).__name__}: {said}",
            hint="its files may be cut off, or not fit its config: fetch it again, or save it again",
        ) from error
    took = seconds(monotonic() - began)
    _log.info("%s: %s of %s in %s", service, size(checkpoint.memory(placed.dtype)), checkpoint, took)
    return made


@contextmanager
def quiet(*libraries: str) -> Iterator[None]:
    """Have libraries draw no progress bars and tell of errors alone: how far a load is, is told by us.

    They are imported for that where they are not yet.
    """
    logs: list[Any] = [importlib.import_module(f"{name}.utils.logging") for name in libraries]
    drawing = [one for one in logs if one.is_progress_bar_enabled()]
    levels = [one.get_verbosity() for one in logs]
    for one in drawing:
        one.disable_progress_bar()
    for one in logs:
        one.set_verbosity_error()
    try:
        yield
    finally:
        for one in drawing:
            one.enable_progress_bar()
        for one, level in zip(logs, levels, strict=True):
            one.set_verbosity(level)


def quantised(network: Any) -> Any:
    """Return the network with the weights of its linear layers as int8 with one scale a row: a quarter.

    They are made numbers of the input's type again where they are used, so that it computes on any device.
    """
    torch = import_torch("int8 weights")
    made = _int8_linear()
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is torch.nn.Linear and layer.out_features >= _LEAST_ROWS:
                setattr(parent, name, made(layer))
    return network


@cache
def _int8_linear() -> Any:
    torch = import_torch("int8 weights")

    class Int8Linear(torch.nn.Module):  # type: ignore[misc,name-defined]
        """A linear layer whose weights are int8, with a scale for each row."""

        def __init__(self, layer: Any) -> None:
            super().__init__()
            weight = layer.weight.detach()
            scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
            self.register_buffer("weight", (weight / scale).round().to(torch.int8))
            self.register_buffer("scale", scale)
            self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

        def forward(self, given: Any) -> Any:
            weight = self.weight.to(given.dtype) * self.scale.to(given.dtype)
            return torch.nn.functional.linear(given, weight, self.bias)

    return Int8Linear
