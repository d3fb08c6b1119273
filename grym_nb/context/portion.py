"""How much of what is found a model is given: as many items, bytes or tokens as it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

from grym_nb.context.item import ContextItem, kept
from grym_nb.context.summary import summarise
from grym_nb.devices import parse_size
from grym_nb.errors import GrymError, Problem, ValidationError
from grym_nb.render import brief

__all__ = ["Limits", "portion"]


@dataclass(frozen=True, slots=True)
class Limits:
    """The most there may be of items, of bytes of their contents, and of tokens as `count_tokens` counts."""

    items: int | None = None
    bytes: int | None = None
    tokens: int | None = None
    count_tokens: Callable[[str], int] | None = None

    @classmethod
    def of(
        cls, items: Any, bytes: Any, tokens: Any, count_tokens: Callable[[str], int] | None, order: Any
    ) -> Self:
        """Return checked limits; sizes as numbers or text such as "2MB"."""
        problems = []
        if order is not None:
            problems.append(
                Problem("order", brief(order), "none: the highest priority first, then the newest")
            )
        for name, value in (("limit", items), ("max_tokens", tokens)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
                problems.append(Problem(name, brief(value), "a whole number from 0, or None for no limit"))
        size = None
        try:
            size = None if bytes is None else parse_size(bytes)
        except GrymError:
            problems.append(Problem("max_bytes", brief(bytes), "bytes, or text such as '2MB'"))
        if problems:
            raise ValidationError("this is no limit", problems=problems)
        return cls(items, size, tokens, count_tokens)


def portion(
    items: list[ContextItem], limits: Limits, adapted: Callable[[list[ContextItem]], list[ContextItem]]
) -> list[ContextItem]:
    """Return the adapted items that fit, in their order; one that is too large for the rest is left out."""
    if limits.bytes is None and limits.tokens is None:
        return adapted(items[: limits.items])
    return list(_fitting(adapted(items), limits))


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
