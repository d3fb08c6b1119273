"""A content in so many tokens as text, with a note of all that was left out of it.

>>> summarise({"bpm": 120, "lyrics": "One line. Another line."}, 8)
Summary(text='bpm: 120\nlyrics: One line. …', tokens=7, dropped=('lyrics: shortened to 9 of 23 characters',))
"""

from __future__ import annotations

import operator
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

from grym_nb.context.item import ContextItem
from grym_nb.context.leaves import Leaf, leaves_of
from grym_nb.errors import Problem, ValidationError, closest
from grym_nb.render import brief

__all__ = ["MODES", "Mode", "Summary", "estimated_tokens", "summarise"]

Mode = Literal["minimal", "selective", "aggressive"]
MODES: tuple[Mode, ...] = ("minimal", "selective", "aggressive")


@dataclass(frozen=True, slots=True)
class Summary:
    """A content as text: one ``path: value`` a line, or the value alone where there is but one.

    `tokens` is the text's length by the count that was used; `dropped` names each field that is not there, or
    not in full, and why or how much of it.
    """

    text: str
    tokens: int
    dropped: tuple[str, ...]


def estimated_tokens(text: str) -> int:
    """Return an estimate of the tokens in a text: one for 4 characters, and no fewer than it has words.

    It suits English prose; code, figures and other scripts take more. A model's own tokenizer knows.
    """
    return max(ceil(len(text) / 4), len(text.split()))


def summarise(
    content: Any,
    budget: int | None,
    *,
    mode: Mode = "selective",
    count_tokens: Callable[[str], int] | None = None,
) -> Summary:
    """Return a content, or that of an item, as text of at most `budget` tokens; None for no limit.

    Arrays, audio and bytes are told by what they are. To make it fit, ``minimal`` shortens texts, the longest
    first, at the end of a sentence, or else of a word, and leaves out whole fields (the deepest, then the
    longest) only when that does not do; ``selective`` leaves out arrays, bytes and long lists before it
    shortens; ``aggressive`` has scalars and the first sentence of texts only, whatever the budget.
    """
    _refuse(budget, mode)
    if isinstance(content, ContextItem):
        content = content.content
    count = count_tokens or estimated_tokens
    leaves = list(leaves_of(content))

    def fits(shown: list[int]) -> bool:
        return budget is None or _counted(count, _text(leaves, shown)) <= budget

    start = [_essence(leaf) if mode == "aggressive" else len(leaf.text) for leaf in leaves]
    shown = _fitted(leaves, start, fits, lighter=mode == "selective")
    text = _text(leaves, shown)
    return Summary(text, _counted(count, text), tuple(_dropped(leaves, shown)))


def _refuse(budget: Any, mode: Any) -> None:
    problems = []
    if budget is not None and (not isinstance(budget, int) or isinstance(budget, bool) or budget <= 0):
        problems.append(Problem("budget", brief(budget), "tokens above 0, or None for no limit"))
    if mode not in MODES:
        problems.append(Problem("mode", brief(mode), f"{', '.join(MODES)}.{closest(str(mode), MODES)}"))
    if problems:
        raise ValidationError("nothing can be summarised so", problems=problems)


def _counted(count: Callable[[str], int], text: str) -> int:
    told = count(text)
    try:
        return operator.index(told)
    except TypeError:
        problem = Problem(
            "count_tokens", f"one that answers {brief(told)}", "one that answers a whole number"
        )
        raise ValidationError("tokens cannot be counted so", problems=[problem]) from None


# -- how it is made to fit -------------------------------------------------------------------------

_SENTENCE = re.compile(r"""[.!?\u2026]+["'\u201d\u2019)\]]*(?=\s)|[\u3002\uff01\uff1f]+|\S(?=[^\S\n]*\n)""")
_WORD = re.compile(r"\S{1,24}")  # a longer one may be cut: not all scripts put spaces between words
_Fits = Callable[[list[int]], bool]

# What is shown is a list of numbers: how many characters of each leaf's text, 0 for none of it.


def _text(leaves: list[Leaf], shown: list[int]) -> str:
    return "\n".join(_line(leaf, length) for leaf, length in zip(leaves, shown, strict=True) if length)


def _line(leaf: Leaf, length: int) -> str:
    text = leaf.text if length == len(leaf.text) else f"{leaf.text[:length]} …"
    return f"{leaf.path}: {text}" if leaf.path else text


def _dropped(leaves: list[Leaf], shown: list[int]) -> Iterator[str]:
    for leaf, length in zip(leaves, shown, strict=True):
        path = leaf.path or "content"
        if not length:
            yield f"{path}: left out, {leaf.size}"
        elif length < len(leaf.text):
            yield f"{path}: shortened to {length} of {leaf.size}"


def _essence(leaf: Leaf) -> int:
    """Return how much of a leaf ``aggressive`` shows: a scalar, or the first sentence of a text."""
    if leaf.kind == "text":
        first = _SENTENCE.search(leaf.text)
        return first.end() if first else len(leaf.text)
    return len(leaf.text) if leaf.kind == "scalar" else 0


def _fitted(leaves: list[Leaf], start: list[int], fits: _Fits, *, lighter: bool) -> list[int]:
    """Return what is shown of each leaf when as little goes as has to."""
    if fits(start):
        return start
    longest_first = sorted(range(len(leaves)), key=lambda at: -len(leaves[at].text))
    bulk = [at for at in longest_first if leaves[at].bulk and lighter]
    shown = _without(bulk, start, fits)
    ends = _ends(leaves)
    short = _shortened(ends, shown, fits)
    if not fits(short):
        # Nothing else helps: whole fields go, and of the texts that stay only as much as has to.
        deepest_first = sorted(longest_first, key=lambda at: -leaves[at].depth)
        least = _without(deepest_first, short, fits)
        shown = [length if kept else 0 for length, kept in zip(shown, least, strict=True)]
        short = _shortened(ends, shown, fits)
    return _given_back(leaves, start, short, fits)


def _least(levels: int, at: Callable[[int], list[int]], fits: _Fits) -> list[int]:
    """Return what is shown at the lowest level that fits, or at the last; each shows less."""
    low, high = 0, levels
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(at(middle)) else (middle + 1, high)
    return at(high)


def _without(going: list[int], shown: list[int], fits: _Fits) -> list[int]:
    def at(level: int) -> list[int]:
        gone = set(going[:level])
        return [0 if place in gone else length for place, length in enumerate(shown)]

    return _least(len(going), at, fits)


_Ends = dict[int, tuple[list[int], list[int]]]


def _ends(leaves: list[Leaf]) -> _Ends:
    """Return for each text where its sentences end, and where its words do."""
    return {
        place: (
            [m.end() for m in _SENTENCE.finditer(leaf.text)],
            [m.end() for m in _WORD.finditer(leaf.text)],
        )
        for place, leaf in enumerate(leaves)
        if leaf.kind == "text"
    }


def _shortened(ends: _Ends, shown: list[int], fits: _Fits) -> list[int]:
    longest = max((shown[place] for place in ends), default=0)

    def at(level: int) -> list[int]:
        most = longest - level
        return [
            _cut(most, length, *ends[place]) if place in ends and length > most else length
            for place, length in enumerate(shown)
        ]

    return _least(longest, at, fits)


def _cut(most: int, length: int, sentences: list[int], words: list[int]) -> int:
    """Return the last end of a sentence within `most` characters, or else of a word, or the first word's."""
    for bounds in (sentences, words):
        if within := bisect_right(bounds, most):
            return bounds[within - 1]
    return min([length, *words[:1]])


def _given_back(leaves: list[Leaf], start: list[int], shown: list[int], fits: _Fits) -> list[int]:
    """Return what is shown when as many as fit are whole again, short ones first: too much may have gone."""
    less = [place for place, length in enumerate(shown) if length < start[place]]
    less.sort(key=lambda place: len(leaves[place].text))

    def at(level: int) -> list[int]:
        back = set(less[: len(less) - level])
        return [start[place] if place in back else length for place, length in enumerate(shown)]

    return _least(len(less), at, fits)
