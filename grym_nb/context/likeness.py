"""How like one another two things are: by the words in them, or as vectors."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from math import sqrt
from typing import Any, NamedTuple

from grym_nb.context.item import ContextItem
from grym_nb.context.values import is_array, is_mapping, number_of, numbers_in

__all__ = ["Likeness", "likeness_of", "similarity"]

_WORD = re.compile(r"[^\W_]+")


class Likeness(NamedTuple):
    """What a thing is compared by."""

    words: Counter[str]
    vector: Any


def likeness_of(value: Any) -> Likeness:
    """Return what is compared of an item, or of a content: its words, and itself when it is a vector."""
    content = value.content if isinstance(value, ContextItem) else value
    return Likeness(_words(value), _vector(content))


def _words(value: Any) -> Counter[str]:
    texts = _texts(value)
    if isinstance(value, ContextItem):
        texts = chain((value.type, value.key or "", *value.tags), _texts(value.content))
    return Counter(word for text in texts for word in _WORD.findall(text.lower()))


def _texts(value: Any, above: tuple[int, ...] = ()) -> Iterator[str]:
    """Return the texts in a content, the names of its fields too."""
    if issubclass(type(value), str):
        yield value
    elif id(value) not in above:  # else in a circle, and being read already
        for part in _parts(value):
            yield from _texts(part, (*above, id(value)))


def _parts(value: Any) -> list[Any]:
    try:
        if is_mapping(value):
            return [*chain.from_iterable(value.items())]
        return [*value] if issubclass(type(value), (list, tuple, set, frozenset)) else []
    except Exception:  # a stranger that does not let itself be read
        return []


def _vector(value: Any) -> Any:
    """Return finite numbers in a row, of an array or a list, as an array; None for all else."""
    if not is_array(value) and not (isinstance(value, (list, tuple)) and None not in map(number_of, value)):
        return None
    import numpy as np

    row = numbers_in(value)
    usable = row is not None and row.ndim == 1 and row.size and np.isfinite(row).all()
    return row if usable else None


def similarity(item: ContextItem, like: Likeness) -> float:
    """Return how like something an item is, 0 to 1: as vectors if both are, of one length, else by words."""
    if like.vector is not None:
        row = _vector(item.content)
        if row is not None and row.size == like.vector.size:
            return _cosine(row, like.vector)
    words, others = _words(item), like.words
    shared = sum(count * others[word] for word, count in words.items())
    lengths = sqrt(sum(n * n for n in words.values()) * sum(n * n for n in others.values()))
    return min(shared / lengths, 1.0) if lengths else 0.0


def _cosine(one: Any, other: Any) -> float:
    """Return the cosine of two vectors, 0 where they point away from each other or nowhere."""
    import numpy as np

    largest = [float(np.abs(row).max()) for row in (one, other)]
    if not all(largest):
        return 0.0
    one, other = one / largest[0], other / largest[1]  # so that no square is too large, or nothing
    return min(max(float(one @ other / sqrt(one @ one * (other @ other))), 0.0), 1.0)
