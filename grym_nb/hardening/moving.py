"""Weights from one device to another, in place: who holds a tensor has it where it was moved to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

__all__ = ["movable", "move"]


def movable(tensors: Sequence[Any], device: str) -> list[Any]:
    """Return those of the tensors that are on a device, and can be moved from it."""
    return [one for one in tensors if str(one.device) == device and str(one.layout) == "torch.strided"]


def move(tensors: Sequence[Any], device: str) -> int:
    """Move tensors to a device; return how many bytes that were. All of them are moved, or none.

    Those that shared memory share it again.
    """
    import torch

    target, made_there = torch.device(device), cast("Any", torch.UntypedStorage)
    made: dict[tuple[str, int], Any] = {}
    for tensor in tensors:  # all of it before any of it is put in place: there may be no room
        storage = tensor.untyped_storage()
        if _key(storage) not in made:
            copy = made[_key(storage)] = made_there(storage.nbytes(), device=target)
            copy.copy_(storage)
    before = [(tensor, tensor.data) for tensor in tensors]
    try:
        for tensor, old in before:
            with torch.inference_mode(tensor.is_inference()):  # one of that kind stays one
                there = torch.empty(0, dtype=old.dtype, device=target)
                there.set_(made[_key(old.untyped_storage())], old.storage_offset(), old.size(), old.stride())
                tensor.data = there
    except BaseException:
        for tensor, old in before:
            tensor.data = old
        raise
    return sum(storage.nbytes() for storage in made.values())


def _key(storage: Any) -> tuple[str, int]:
    return str(storage.device), storage.data_ptr()
