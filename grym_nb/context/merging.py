"""One item of several: field by field, with a note of whose each is.

>>> one = merged(store.query(type="tempo"), "weighted", id="ctx-9")
>>> one.content["rhythm"]["bpm"], [by["source"] for by in one.provenance["rhythm.bpm"]]
(121.5, ['librosa', 'madmom'])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from math import fsum
from typing import Any, NamedTuple, TypeVar

from grym_nb.context.content import plain_kind
from grym_nb.context.difference import mark_of, same
from grym_nb.context.item import ContextItem
from grym_nb.context.storage import readable
from grym_nb.context.values import dotted, is_array, is_mapping, number_of
from grym_nb.errors import ItemConflict, Problem, ValidationError, closest
from grym_nb.render import brief

__all__ = [
    "STRATEGIES",
    "Provenance",
    "Strategy",
    "agreed",
    "merged",
    "reconciled",
    "refuse_unfit",
    "strategy_of",
]

#: a name out of `STRATEGIES`, or what makes the content of the items
Strategy = str | Callable[[list[ContextItem]], Any]
Provenance = dict[str, tuple[dict[str, Any], ...]]
T = TypeVar("T")
_MOST_ROUNDS = 100


def merged(items: Sequence[ContextItem], strategy: Strategy, *, id: str) -> ContextItem:
    """Return one item made of several; its `provenance` tells for each field which items gave it.

    Contents are merged field by field, nested ones too, when all of them are mappings; else as one value.

    - ``newest``: the value written last, whatever the priority.
    - ``highest_priority``: that of the most important item; of equal ones, the newest's.
    - ``weighted``: numbers, and float arrays of one shape, averaged by ``metadata["weight"]``, or else by
      priority + 1. What is no number is the heaviest's.
    - ``union``: lists without repeats, sets and mappings united; of what else differs, the newest's. What
      all give alike stays as it is.
    - a function: the content it makes of the list of items.
    """
    given = [readable(item) for item in items]
    if not given:
        raise ValidationError("nothing to merge", problems=[Problem("items", "none", "at least one item")])
    by_age = sorted(range(len(given)), key=lambda at: (given[at].updated, given[at].version, -at))
    content, provenance = _blended(given, by_age, strategy)
    last = min(given, key=lambda item: float("inf") if item.expires is None else item.expires)
    return ContextItem(
        id=id,
        type=_common((item.type for item in given), "merged"),
        key=_common((item.key for item in given), None),
        content=content,
        metadata={name: value for at in by_age for name, value in given[at].metadata.items()},
        source=_common((item.source for item in given), None),
        priority=max(item.priority for item in given),
        tags=tuple(dict.fromkeys(chain.from_iterable(item.tags for item in given))),
        workflow=_common((item.workflow for item in given), None),
        task=_common((item.task for item in given), None),
        ttl=None if last.expires is None else last.ttl,
        created=min(item.created for item in given),
        updated=max(item.updated for item in given),
        expires=last.expires,
        version=1,
        pinned=False,
        durable=False,
        provenance=provenance,
    )


def agreed(
    conflict: ItemConflict,
    strategy: Strategy,
    yours: Callable[[ContextItem], ContextItem],
    write: Callable[[Any, Provenance, int], ContextItem],
) -> ContextItem:
    """Write what is made of what somebody else wrote and what is `yours` after it, until nobody is faster.

    What makes one of both is the user's own, and runs without a lock of ours.
    """
    for _ in range(_MOST_ROUNDS):
        theirs = conflict.details["theirs"]
        both, provenance = reconciled(theirs, yours(theirs), strategy)
        try:
            return write(both, provenance, theirs.version)
        except ItemConflict as again:
            conflict = again
    raise conflict  # what makes one of both writes the item itself, again and again


def reconciled(theirs: ContextItem, yours: ContextItem, strategy: Strategy) -> tuple[Any, Provenance]:
    """Return the content, and its provenance, of two that were written at once: `yours` is the newer.

    A function gets ``[theirs, yours]``.
    """
    return _blended([readable(theirs), yours], [0, 1], strategy)


def refuse_unfit(expect: Any, merge: Any) -> None:
    """Raise unless a version can be expected so, and a conflict with another be merged so."""
    if merge is not None:
        strategy_of(merge)
    unsaid = expect is None and merge is not None
    if unsaid or not (expect is None or (isinstance(expect, int) and not isinstance(expect, bool))):
        told = "to merge takes the version that was read" if unsaid else "no version can be expected so"
        what = "the version that you have read, such as item.version"
        raise ValidationError(told, problems=[Problem("expect", brief(expect), what)])


def _common(values: Iterable[T], otherwise: T) -> T:
    told = dict.fromkeys(values)
    return next(iter(told)) if len(told) == 1 else otherwise


# -- field by field --------------------------------------------------------------------------------


class _Giver(NamedTuple):
    """An item with what it gives for one field; `newness` is highest for the newest."""

    item: ContextItem
    value: Any
    newness: int
    weight: float | None = None


_Givers = Sequence[_Giver]
_Pick = Callable[[_Givers], tuple[Any, _Givers]]


def _blended(items: list[ContextItem], by_age: list[int], strategy: Strategy) -> tuple[Any, Provenance]:
    newness = {at: rank for rank, at in enumerate(by_age)}
    givers = [_Giver(item, item.content, newness[at]) for at, item in enumerate(items)]
    pick = strategy_of(strategy)
    if pick is None:
        assert callable(strategy)
        return _made_by(strategy, items), {"content": _told(givers)}
    if pick is _averaged:
        weights = _weights(items)
        givers = [giver._replace(weight=weight) for giver, weight in zip(givers, weights, strict=True)]
    provenance: Provenance = {}
    return _merged(givers, "", pick, provenance), provenance


def strategy_of(strategy: Any) -> _Pick | None:
    """Return what makes one value of several; None for a function, which makes all of the content."""
    if callable(strategy):
        return None
    pick = STRATEGIES.get(strategy) if isinstance(strategy, str) else None
    if pick is None:
        known = f"a function, or one of {', '.join(STRATEGIES)}.{closest(brief(strategy), STRATEGIES)}"
        raise ValidationError("no such way to merge", problems=[Problem("merge", brief(strategy), known)])
    return pick


def _made_by(strategy: Callable[[list[ContextItem]], Any], items: list[ContextItem]) -> Any:
    try:
        made = strategy(items)
        return made.content if isinstance(made, ContextItem) else made  # one of those it was given
    except Exception as error:
        told = f"{getattr(strategy, '__name__', 'the function')} cannot make one of {len(items)} items"
        raise ValidationError(
            told, cause=f"{type(error).__name__}: {error}", hint="it gets the list of items"
        ) from None


def _told(givers: _Givers) -> tuple[dict[str, Any], ...]:
    return tuple(
        {"id": item.id, "type": item.type, "source": item.source, "version": item.version}
        | ({} if weight is None else {"weight": weight})
        for item, _, _, weight in givers
    )


def _merged(givers: _Givers, path: str, pick: _Pick, provenance: Provenance) -> Any:
    if all(is_mapping(giver.value) for giver in givers):
        names = dict.fromkeys(name for giver in givers for name in giver.value)
        if names:
            return {name: _field(givers, name, path, pick, provenance) for name in names}
    value, gave = pick(givers)
    provenance[path or "content"] = _told(gave)
    return value


def _field(givers: _Givers, name: Any, path: str, pick: _Pick, provenance: Provenance) -> Any:
    gave = [giver._replace(value=giver.value[name]) for giver in givers if name in giver.value]
    return _merged(gave, dotted(path, name), pick, provenance)


def _weights(items: list[ContextItem]) -> list[float]:
    """Return what each item weighs; raise for all weights that are none."""
    weights, problems = [], []
    for item in items:
        said = item.metadata.get("weight")
        weight = item.priority + 1.0 if said is None else number_of(said) or 0.0
        if weight <= 0:
            problems.append(Problem(f"{item.id}.metadata.weight", brief(said), "a number above 0"))
        weights.append(weight)
    if problems:
        raise ValidationError("these items cannot be weighed", problems=problems)
    return weights


# -- one value of several --------------------------------------------------------------------------


def _newest(givers: _Givers) -> tuple[Any, _Givers]:
    newest = max(givers, key=lambda giver: giver.newness)
    return newest.value, [newest]


def _most_important(givers: _Givers) -> tuple[Any, _Givers]:
    first = max(givers, key=lambda giver: (giver.item.priority, giver.newness))
    return first.value, [first]


def _averaged(givers: _Givers) -> tuple[Any, _Givers]:
    weights = [giver.weight or 0.0 for giver in givers]
    mean = _mean([giver.value for giver in givers], weights)
    if mean is not None:
        return mean, givers
    heaviest = max(givers, key=lambda giver: (giver.weight or 0.0, giver.newness))
    return heaviest.value, [heaviest]


def _united(givers: _Givers) -> tuple[Any, _Givers]:
    values = [giver.value for giver in givers]
    kinds = set(map(plain_kind, values))
    if all(same(values[0], value) for value in values[1:]):
        return values[0], givers
    kind = plain_kind(values[0]) if len(kinds) == 1 else None
    if kinds <= {list, tuple}:
        return (kind or list)(_without_repeats(chain.from_iterable(values))), givers
    if kinds <= {set, frozenset}:
        return (kind or set)(chain.from_iterable(values)), givers
    return _newest(givers)


STRATEGIES: dict[str, _Pick] = {
    "newest": _newest,
    "highest_priority": _most_important,
    "weighted": _averaged,
    "union": _united,
}


def _mean(values: list[Any], weights: list[float]) -> Any:
    """Return the weighted mean of numbers, or of float arrays of one shape; None for all else."""
    heaviest = max(weights)
    relative = [weight / heaviest for weight in weights]  # so that no sum of them is too large
    shares = [weight / fsum(relative) for weight in relative]
    numbers = [number for value in values if (number := number_of(value)) is not None]
    if len(numbers) == len(values):
        if all(same(values[0], value) for value in values[1:]):
            return values[0]  # 4 beats in a bar stay 4, and not 4.0
        mean = sum(share * number for share, number in zip(shares, numbers, strict=True))
        return min(max(mean, min(numbers)), max(numbers))  # rounding leads no further than the values
    if all(_is_float_array(value) for value in values) and len({value.shape for value in values}) == 1:
        import numpy as np

        with np.errstate(invalid="ignore"):  # infinities of both signs make a NaN, as they should
            parts = [share * value.astype(np.float64) for share, value in zip(shares, values, strict=True)]
            return np.sum(parts, axis=0).astype(np.result_type(*values))
    return None


def _is_float_array(value: Any) -> bool:
    return is_array(value) and type(value).__name__ == "ndarray" and value.dtype.kind == "f"


_PLAIN = (str, int, float, bool, bytes, type(None))


def _without_repeats(values: Iterable[Any]) -> list[Any]:
    """Return the values in the order of first sight; those that have no hash are compared one by one."""
    seen: set[Any] = set()
    others: list[Any] = []
    kept = []
    for value in values:
        if type(value) in _PLAIN:
            mark = mark_of(value)
            known = mark in seen
            seen.add(mark)
        else:
            known = any(same(value, other) for other in others)
            others += [] if known else [value]
        if not known:
            kept.append(value)
    return kept
