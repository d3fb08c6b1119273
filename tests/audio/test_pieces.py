"""Pieces give every frame of the whole once, and batches every sound once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_nb.audio.pieces import Piece, batches, pieces


def test_a_short_sound_is_one_piece() -> None:
    assert list(pieces(100, chunk=100, stride=20, frame=10)) == [Piece(0, 100, 0, None)]


def test_a_long_one_overlaps_and_what_overlaps_is_dropped() -> None:
    assert list(pieces(205, chunk=100, stride=20, frame=10)) == [
        Piece(0, 100, 0, 8),
        Piece(60, 160, 2, 8),
        Piece(120, 205, 2, None),
    ]


@given(
    length=st.integers(1, 5000),
    chunk=st.integers(10, 100),
    stride=st.integers(1, 49),
    frame=st.integers(1, 40),
)
def test_the_frames_of_the_pieces_are_those_of_the_whole(
    length: int, chunk: int, stride: int, frame: int
) -> None:
    """Each once, in order; none is longer than a chunk, and each is long enough for what it keeps."""
    stride = min(stride, (chunk - 1) // 2)
    kept: list[int] = []
    for piece in pieces(length, chunk=chunk * frame, stride=stride * frame, frame=frame):
        frames = range(piece.start // frame, (piece.stop + frame - 1) // frame)
        assert piece.start % frame == 0 and piece.stop - piece.start <= chunk * frame
        kept += frames[piece.first : piece.last]
    assert kept == list(range((length + frame - 1) // frame))


@pytest.mark.parametrize("stride", [49, 50, 55])
def test_a_frame_of_each_piece_is_kept(stride: int) -> None:
    found = list(pieces(1000, chunk=100, stride=stride, frame=10))
    assert len(found) < 100 and found[-1].stop == 1000


@pytest.mark.parametrize(("pad", "found"), [(True, [[1, 3], [0, 4], [2]]), (False, [[1], [3], [0, 4], [2]])])
def test_sounds_are_batched_with_those_of_their_length(pad: bool, found: list[list[int]]) -> None:
    """Where they may be padded, with those nearly as long; never more than is said."""
    assert batches([100, 50, 101, 55, 100], most=2, pad=pad) == found


@given(st.lists(st.integers(1, 1000), max_size=30), st.integers(1, 8), st.booleans())
def test_every_sound_is_in_one_batch(lengths: list[int], most: int, pad: bool) -> None:
    found = batches(lengths, most=most, pad=pad)
    assert sorted(at for batch in found for at in batch) == list(range(len(lengths)))
    for batch in found:
        some = [lengths[at] for at in batch]
        assert len(batch) <= most and max(some) <= min(some) * (1.25 if pad else 1)
