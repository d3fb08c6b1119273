"""What a model will take before it is loaded: told by the headers of its files, or by its config.

Nothing is read in full: a safetensors file says in its first bytes what is in it, and of a config of
transformers the model is made without memory, on torch's "meta" device.
"""

from __future__ import annotations

import copy
import json
import os
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Prediction", "predicted", "size_of_files"]

_MOST_HEADER = 100_000_000  # bytes, as the format's own readers allow
_VARIANTS = (".fp16.", ".fp32.", ".bf16.", ".non_ema.", ".ema.")
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_WIDTHS = {
    **{"float64": 8, "float32": 4, "float": 4, "fp32": 4},
    **{"float16": 2, "half": 2, "bfloat16": 2, "fp16": 2, "bf16": 2},
}
_DTYPES = ("dtype", "torch_dtype", "precision")


class Prediction(NamedTuple):
    """How many bytes, and how that is known."""

    size: int
    source: str


def predicted(config: Mapping[str, Any]) -> Prediction | None:
    """Return what a service with this config will take, by what it names; None: nobody can tell.

    That are files and folders, and configs of transformers. A ``dtype`` in it counts: weights are often kept
    in another than they are used in.
    """
    width = next((w for name in _DTYPES if (w := _width(config.get(name))) is not None), None)
    size, named = 0, []
    for name, value in config.items():
        if (
            isinstance(value, (str, os.PathLike))
            and value != ""
            and (found := size_of_files(value, width=width))
        ):
            size += found
            named.append(f"the files of {name}")
        elif found := _size_of_config(value, width):
            size += found
            named.append(f"the model that {name} describes")
    return Prediction(size, ", ".join(named)) if size else None


def _size_of_config(value: Any, width: int | None) -> int:
    """Return the bytes of the weights of the model that a config of transformers describes; else 0."""
    transformers: Any = sys.modules.get("transformers")  # or nobody could have made such a config
    if transformers is None or not isinstance(value, getattr(transformers, "PretrainedConfig", ())):
        return 0
    try:
        import torch

        width = width or _width(getattr(value, "dtype", None))
        config: Any = copy.deepcopy(value)
        config.dtype = None  # else torch's own default is changed meanwhile, for all threads
        named = [getattr(transformers, name, None) for name in config.architectures or ()]
        with torch.device("meta"):
            model = named[0](config) if named and named[0] else transformers.AutoModel.from_config(config)
        weights = {id(one): one for one in (*model.parameters(), *model.buffers())}.values()
        return sum(
            one.numel() * (width if width and one.is_floating_point() else one.element_size())
            for one in weights
        )
    except Exception:  # a kind that cannot be made so: then it is measured
        return 0


def _width(dtype: object) -> int | None:
    try:
        return None if dtype is None else _WIDTHS.get(str(dtype).removeprefix("torch."))
    except Exception:  # a stranger, under the name of a dtype
        return None


def size_of_files(path: str | os.PathLike[str], *, width: int | None = None) -> int:
    """Return the bytes of the weights in a file, or in a folder of them; 0 where there are none.

    Of several kinds of the same weights one counts: safetensors before pickled ones, the plain before a
    variant. `width` is how many bytes a number of them takes once it is loaded.
    """
    try:
        at = Path(path)
        if at.is_file():
            return _size_of(at, width) if _is_weights(at) else 0
        if not at.is_dir():
            return 0
        folders = [at, *(inner for inner in sorted(at.iterdir()) if inner.is_dir() and _is_part(inner))]
        return sum(_size_of(file, width) for folder in folders for file in _weights_in(folder))
    except Exception:  # no path, no such file, or not what its name says
        return 0


def _is_weights(file: Path) -> bool:
    return file.suffix == ".safetensors" or file.suffix in _PICKLED


def _is_part(folder: Path) -> bool:
    """Tell whether a folder is a part of a pipeline, as diffusers keeps them."""
    return not folder.name.startswith((".", "_")) and not folder.name.startswith("checkpoint-")


def _weights_in(folder: Path) -> Iterator[Path]:
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and _is_weights(file)]
    for suffixes in ((".safetensors",), _PICKLED):
        kind = [file for file in files if file.suffix in suffixes and file.stem != "training_args"]
        plain = [file for file in kind if not any(variant in file.name for variant in _VARIANTS)]
        if kind:
            yield from plain or kind
            return


def _size_of(file: Path, width: int | None) -> int:
    if file.suffix != ".safetensors":
        return file.stat().st_size
    return sum(_sizes_in(file, width))


def _sizes_in(file: Path, width: int | None) -> Iterator[int]:
    """Yield the sizes of the tensors in a safetensors file, as its header tells them."""
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8).ljust(8, b"\0"))
        if length > _MOST_HEADER:
            raise ValueError(f"{file} is no safetensors file")
        header = json.loads(opened.read(length))
    for name, told in header.items():
        if name != "__metadata__":
            begin, end = map(int, told["data_offsets"])
            if not 0 <= begin <= end:
                raise ValueError(f"{file} has a tensor that ends before it begins")
            stored = _FLOATS.get(told["dtype"])
            yield (end - begin) // stored * width if stored and width else end - begin
