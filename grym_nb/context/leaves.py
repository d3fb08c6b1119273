"""What a content comes down to: the fields that have no fields themselves, each told as text."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Number
from typing import Any, NamedTuple

from grym_nb.clip import Clip
from grym_nb.context.content import plain_kind
from grym_nb.context.values import dotted, is_array, is_mapping, numbers_in
from grym_nb.render import brief, seconds, size

__all__ = ["Leaf", "leaves_of"]


class Leaf(NamedTuple):
    """A field that has no fields itself, as text, which is never empty."""

    path: str
    depth: int
    bulk: bool  # goes first
    kind: str  # text, scalar, list or other
    text: str
    size: str


_LISTS = (list, tuple, set, frozenset)
_LONG = 16  # members: a longer list is no short field
_WORD_LENGTH = 40  # characters: a list of longer texts is told text by text


def leaves_of(value: Any, path: str = "", bulk: bool = False, above: tuple[int, ...] = ()) -> Iterator[Leaf]:
    """Return what a content comes down to, in its order; lists of short values are told in one line."""
    depth, kind = len(above), plain_kind(value)
    if id(value) in above:
        yield Leaf(path, depth, bulk, "other", f"the {kind.__name__} that this is in", "a circle")
    elif parts := _parts(value, path):
        bulk |= len(parts) > _LONG and issubclass(kind, _LISTS)
        for inner, part in parts:
            yield from leaves_of(part, inner, bulk, (*above, id(value)))
    else:
        yield Leaf(path, depth, bulk or _is_bulk(value), *_told(value))


def _parts(value: Any, path: str) -> list[tuple[str, Any]]:
    """Return the parts of a container that are told each by itself; none of what is told in one line."""
    try:
        if is_mapping(value):
            return [(dotted(path, name), part) for name, part in value.items()]
        if issubclass(type(value), _LISTS) and not all(map(_is_word, value)):
            return [(f"{path}[{place}]", part) for place, part in enumerate(_in_order(value))]
    except Exception:  # a stranger that does not let itself be read
        return []
    return []


def _is_word(value: Any) -> bool:
    if issubclass(type(value), str):
        return 0 < len(value) <= _WORD_LENGTH and "\n" not in value
    return _is_scalar(value)


def _is_scalar(value: Any) -> bool:
    kind = type(value)
    return value is None or issubclass(kind, Number) or (kind.__module__ == "numpy" and not is_array(value))


def _is_bulk(value: Any) -> bool:
    kind = type(value)
    long = issubclass(kind, _LISTS) and len(value) > _LONG
    return long or issubclass(kind, (bytes, bytearray)) or is_array(value)


def _in_order(members: Any) -> Any:
    return sorted(members, key=_in_full) if issubclass(type(members), (set, frozenset)) else members


def _told(value: Any) -> tuple[str, str, str]:
    """Return the kind of a leaf, its text, and its size in words."""
    kind = type(value)
    if issubclass(kind, str):
        return (
            ("text", str(value), f"{len(value)} characters") if value else ("scalar", "empty text", "empty")
        )
    if _is_scalar(value):
        return "scalar", _in_full(value), "a value"
    if issubclass(kind, _LISTS) and value:
        return "list", ", ".join(map(_in_full, _in_order(value))), f"{len(value)} members"
    try:
        text = _in_words(value)
    except Exception:  # a stranger, or audio whose file is gone
        text = brief(value)
    return "other", text, text


def _in_full(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # an int of thousands of digits, or a stranger
        return brief(value)


def _in_words(value: Any) -> str:
    kind = plain_kind(value)
    if issubclass(kind, Clip):
        layout = {1: "mono", 2: "stereo"}.get(value.channels, f"{value.channels} channels")
        return f"{seconds(value.seconds)} of audio at {value.rate / 1000:g} kHz, {layout}"
    if issubclass(kind, (bytes, bytearray)):
        return f"bytes, {size(len(value))}"
    if is_array(value):
        return _array_in_words(value)
    return brief(value) if len(value) else f"empty {kind.__name__}"


def _array_in_words(array: Any) -> str:
    told = f"{str(array.dtype).removeprefix('torch.')} array {tuple(array.shape)}"
    numbers = numbers_in(array)
    if numbers is None or not numbers.size:
        return told
    import numpy as np

    finite = numbers[np.isfinite(numbers)]
    if finite.size:
        with np.errstate(over="ignore"):  # the sum of the largest floats is none
            told += f", {finite.min():.4g} to {finite.max():.4g}, mean {finite.mean():.4g}"
    strays = numbers.size - finite.size
    return f"{told}, {strays} not finite" if strays else told
