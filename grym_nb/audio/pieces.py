"""Long audio in pieces that overlap, and pieces in batches: what is computed at once, as plain numbers.

The frames of a piece that lie in its overlap with the next one are dropped, so that what is kept, put
together, has the frames of the whole. A piece begins where a frame does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Piece", "batches", "pieces"]

_WASTE = 1.25  # how much longer than the shortest of a padded batch its longest may be


@dataclass(frozen=True, slots=True)
class Piece:
    """Samples from `start` to `stop`; of its frames those from `first` to `last` are kept (None: all)."""

    start: int
    stop: int
    first: int
    last: int | None


def pieces(length: int, *, chunk: int, stride: int, frame: int) -> Iterator[Piece]:
    """Yield the pieces of `length` samples: of `chunk` samples, with `stride` on both sides to be dropped.

    Both are rounded to whole frames of `frame` samples, and a frame of each piece is kept. A sound that fits
    in one piece is one.
    """
    chunk, stride = (round(samples / frame) * frame for samples in (chunk, stride))
    stride = min(stride, (chunk - frame) // (2 * frame) * frame)  # a frame of each is kept at least
    if length <= chunk:
        yield Piece(0, length, 0, None)
        return
    start = 0
    while True:
        dropped = stride if start else 0
        if start + chunk >= length:
            yield Piece(start, length, dropped // frame, None)
            return
        yield Piece(start, start + chunk, dropped // frame, (chunk - stride) // frame)
        start += chunk - 2 * stride


def batches(lengths: Sequence[int], *, most: int, pad: bool) -> list[list[int]]:
    """Return which of several sounds are computed at once, by their place: at most `most`.

    Those of one length; where they may be padded, also those that are nearly as long.
    """
    found: list[list[int]] = []
    for at in sorted(range(len(lengths)), key=lambda at: lengths[at]):
        batch = found[-1] if found else []
        shortest = lengths[batch[0]] if batch else 0
        fits = lengths[at] <= shortest * _WASTE if pad else lengths[at] == shortest
        if batch and fits and len(batch) < most:
            batch.append(at)
        else:
            found.append([at])
    return found
