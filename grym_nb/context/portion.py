"""How much of what is found a model is given: as many items, bytes or tokens as it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

from grym_nb.context.adapters import Adapter, adapted
from grym_nb.context.content import kept
from grym_nb.context.item import ContextItem
from grym_nb.context.merging import Strategy, merged, strategy_of
from grym_nb.context.summary import summarise
from grym_nb.errors import GrymError, Problem, ValidationError
from grym_nb.render import brief
from grym_nb.sizes import parse_size

__all__ = ["Limits", "portion"]


@dataclass(frozen=True, slots=True)
class Limits:
    """The most there may be of items, of bytes of their contents, and of tokens as `count_tokens` counts."""

    items: int | None = None
    bytes: int | None = None
    tokens: int | None = None
    count_tokens: Callable[[str], int] | None = None

    @property
    def counts_items_only(self) -> bool:
        """Whether what is found first is all that there will be."""
        return self.bytes is None and self.tokens is None

    @classmethod
    def of(cls, items: Any, bytes: Any, tokens: Any, count_tokens: Any, order: Any, merge: Any) -> Self:
        """Return checked limits, sizes as numbers or text such as "2MB"; and refuse no way to merge."""
        if merge is not None:
            strategy_of(merge)  # now, and not when there is something to merge
        problems = []
        if order is not None:
            problems.append(
                Problem("order", brief(order), "none: the highest priority first, then the newest")
            )
        for name, value in (("limit", items), ("max_tokens", tokens)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
                problems.append(Problem(name, brief(value), "a whole number from 0, or None for no limit"))
        if count_tokens is not None and not callable(count_tokens):
            problems.append(Problem("count_tokens", brief(count_tokens), "a function: f(text) -> number"))
        size = None
        try:
            size = None if bytes is None else parse_size(bytes)
        except GrymError:
            problems.append(Problem("max_bytes", brief(bytes), "bytes, or text such as '2MB'"))
        if problems:
            raise ValidationError("this is no limit", problems=problems)
        return cls(items, size, tokens, count_tokens)


def portion(
    items: list[ContextItem],
    limits: Limits,
    model: str,
    own: Adapter | None,
    merge: Strategy | None,
    id: str,
) -> list[ContextItem]:
    """Return items as a model takes them, as many as fit; one that is too large for the rest is left out.

    With `merge` they are one item, of that id.
    """
    if merge is not None and items:
        items = [merged(items, merge, id=id)]
    if limits.counts_items_only:
        return adapted(items[: limits.items], model, own)
    return list(_fitting(adapted(items, model, own), limits))


def _fitting(items: Iterable[ContextItem], limits: Limits) -> Iterable[ContextItem]:
    left = [float("inf") if most is None else most for most in (limits.items, limits.bytes, limits.tokens)]
    for item in items:
        size = 0 if limits.bytes is None else kept(item.content)[1]
        tokens = 0 if limits.tokens is None else _tokens(item.content, limits.count_tokens)
        rest = [have - take for have, take in zip(left, (1, size, tokens), strict=True)]
        if min(rest) >= 0:
            left = rest
            yield item


def _tokens(content: Any, count: Callable[[str], int] | None) -> int:
    return summarise(content, None, count_tokens=count).tokens
