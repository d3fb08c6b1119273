"""What is given to a Clip, as the arrays that it holds: float32, contiguous, writable by nobody."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from grym_nb.errors import AudioError
from grym_nb.render import brief

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Samples = npt.NDArray[np.float32]

__all__ = ["as_rate", "as_samples", "read_only"]

_ORDER = "samples come first, then the rate: Clip(samples, 16000)"
_MOST_CHANNELS = 32  # more is almost surely an array the wrong way round
#: integer PCM, by dtype: the value of silence, and the distance from it to full scale
_PCM = {"uint8": (128, 128), "int16": (0, 1 << 15), "int32": (0, 1 << 31)}


def as_rate(rate: int) -> int:
    """Return a rate as a whole number of Hz above zero; AudioError when it is none."""
    try:
        whole = operator.index(rate)
    except TypeError:
        whole = 0
    if whole <= 0 or isinstance(rate, bool):
        raise AudioError(
            f"the rate is {brief(rate)}: it must be a whole number of Hz above 0",
            hint=_ORDER,
        )
    return whole


def as_samples(given: Any) -> Samples:
    """Return contiguous float32 of the right shape in memory that nobody else can write to, now or later."""
    import numpy as np

    try:
        array = np.asarray(given)
    except Exception as error:
        raise AudioError(
            f"{brief(given)} cannot be read as an array of samples",
            cause=f"{type(error).__name__}: {error}",
            hint="numbers are needed; of a tensor: tensor.detach().cpu().numpy()",
        ) from error
    _refuse_shape(array.shape)
    name = array.dtype.newbyteorder("=").name
    if name in _PCM:
        silence, scale = _PCM[name]
        # Full scale is a power of two: dividing by it loses nothing.
        ours = (array.astype(np.float32) - np.float32(silence)) / np.float32(scale)
    elif array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # beyond float32 is infinite, and found where it matters
            ours = array.astype(
                np.float32, order="C"
            )  # a copy: that an array is read-only says nothing of views
    else:
        raise AudioError(
            f"the samples are {array.dtype}: they must be float, int16, int32 or uint8",
            hint="only those have an agreed full scale; scale others to floats in [-1, 1]",
        )
    if ours.ndim == 2 and ours.shape[0] == 1:
        ours = ours[0]
    return ours


def _refuse_shape(shape: tuple[int, ...]) -> None:
    needed = "it must be (n,) for mono or (channels, n)"
    if len(shape) not in (1, 2):
        hint = "samples[0] takes one of a batch" if shape else _ORDER
        raise AudioError(f"the samples have shape {shape}: {needed}", hint=hint)
    if len(shape) == 2 and shape[0] == 0:
        raise AudioError(f"the samples have shape {shape}, which is no channel at all: {needed}")
    if len(shape) == 2 and shape[0] > _MOST_CHANNELS:
        raise AudioError(
            f"the samples have shape {shape}, which is {shape[0]} channels: {needed}",
            hint=f"probably transposed: Clip(samples.T, rate); at most {_MOST_CHANNELS} channels",
        )


def read_only(samples: Samples) -> Samples:
    """Return the same samples, which must be ours alone, so that nobody can write to them."""
    owner: Any = samples
    while hasattr(owner, "flags"):
        owner.flags.writeable = False
        owner = owner.base
    # Of a view nobody can set the flag again, as the one that owns the memory does not have it.
    return samples.view()
