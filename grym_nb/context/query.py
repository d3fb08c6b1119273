"""What may be said of an item, and asked of a store: checked, with everything that is wrong at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from grym_nb.context.index import Order, Wanted
from grym_nb.errors import GrymError, Problem, ValidationError, closest
from grym_nb.events import ItemDeleted, ItemEvent, ItemEvicted, ItemExpired, ItemPut, ItemUpdated
from grym_nb.priority import RANKS, priority_of
from grym_nb.render import brief

__all__ = ["FILTERS", "KINDS", "refuse_limit", "refuse_no_type", "said", "settled", "wanted_of", "watched_of"]

#: what a query may name
FILTERS = ("type", "key", "tags", "any_tags", "min_priority", "source", "workflow", "task", "since", "until")
#: what may happen to an item
KINDS: dict[str, type[ItemEvent]] = {
    "put": ItemPut,
    "updated": ItemUpdated,
    "deleted": ItemDeleted,
    "expired": ItemExpired,
    "evicted": ItemEvicted,
}
_FOR_EVER = 1e12  # seconds: thirty thousand years, and what floats still tell apart
_TEXT, _NAMED = frozenset((str,)), frozenset((str, type(None)))
_RANKED, _NUMBERS = frozenset((str, int)), frozenset((int, float))
_kind = type  # in here `type` is what is said of an item
_FLAGS = frozenset((bool,))
_FLAG_NAMES = ("pinned", "durable")
_FILTERS = frozenset(FILTERS)
_NAMES = ("key", "source", "workflow", "task")
_ORDERS: tuple[Order, ...] = ("newest", "oldest", "priority")


def said(
    type: Any,
    names: tuple[Any, ...],
    priority: Any,
    ttl: Any,
    tags: Any,
    metadata: Any,
    flags: tuple[Any, ...] = (),
) -> tuple[float | None, int, tuple[str, ...], tuple[Any, ...]]:
    """Return the seconds an item holds, its priority as a number, its tags, and its names as plain text;
    raise for what does not fit."""
    if (  # the usual case, without a list of problems
        _kind(priority) in _RANKED
        and priority in RANKS
        and tags.__class__ is tuple
        and (not tags or (_TEXT.issuperset(map(_kind, tags)) and len(set(tags)) == len(tags)))
        and type.__class__ is str
        and type
        and not type.isspace()
        and metadata is None
        and (ttl is None or (_kind(ttl) in _NUMBERS and 0 < ttl < _FOR_EVER))
        and _NAMED.issuperset(map(_kind, names))
        and _FLAGS.issuperset(map(_kind, flags))
    ):
        return (ttl if ttl is None else float(ttl)), RANKS[priority], tags, names
    problems: list[Problem] = []
    if not isinstance(type, str) or not type.strip():
        problems.append(Problem("type", brief(type), "text such as 'tempo'"))
    for name, value in zip(_NAMES, names, strict=False):
        if value is not None and not isinstance(value, str):
            problems.append(Problem(name, brief(value), "text, or None"))
    number = isinstance(ttl, (int, float)) and not isinstance(ttl, bool)
    if ttl is not None and not (number and 0 < ttl < _FOR_EVER):
        problems.append(Problem("ttl", brief(ttl), "seconds above 0, below 1e12, or None for ever"))
    rank = _rank("priority", priority, problems)
    told = _tags("tags", tags, problems)
    if metadata is not None and not isinstance(metadata, Mapping):
        problems.append(Problem("metadata", brief(metadata), "a mapping"))
    problems += [
        Problem(name, brief(flag), "True or False")
        for name, flag in zip(_FLAG_NAMES, flags, strict=False)
        if not isinstance(flag, bool)
    ]
    if problems:
        raise ValidationError("this item cannot be kept", problems=problems)
    return (None if ttl is None else float(ttl)), rank, told, tuple(map(_plain, names))


def _plain(name: str | None) -> str | None:
    """Return text as what is read from a file: an enum's, or numpy's, is more than that."""
    return None if name is None else str.__str__(name)


def refuse_limit(limit: Any, of: str) -> None:
    """Raise unless there can be so many of something."""
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
        raise ValidationError(f"the limit of a {of} is a whole number from 0, not {brief(limit)}")


def refuse_no_type(type: Any) -> None:
    """Raise for what can be the type of nothing."""
    if not isinstance(type, str):
        problem = Problem("type", brief(type), "text such as 'tempo'; of all types: query(limit=1)")
        raise ValidationError("the store cannot be asked so", problems=[problem])


def settled(filters: Mapping[str, Any]) -> dict[str, Any]:
    """Return filters that can be looked at more than once: an iterator would be empty then."""
    return {n: tuple(value) if isinstance(value, Iterator) else value for n, value in filters.items()}


def wanted_of(filters: Mapping[str, Any], *, also: tuple[str, ...] = ()) -> Wanted:
    """Return what is asked for; an unknown filter is told with the closest.

    `also` are names that may be given besides: `order` is checked here, others by who takes them.
    """
    problems: list[Problem] = []
    asked = dict(filters)
    if not asked.keys() <= _FILTERS:
        for name in sorted(asked.keys() - _FILTERS - set(also)):
            near = closest(name, (*FILTERS, *also))
            problems.append(
                Problem(name, brief(asked.pop(name)), f"one of {', '.join((*FILTERS, *also))}.{near}")
            )
    order: Order = "newest" if asked.get("order") is None else asked["order"]
    if not isinstance(order, str) or order not in _ORDERS:
        problems.append(Problem("order", brief(order), f"one of {', '.join(_ORDERS)}"))
    type = asked.get("type")
    for name in ("type", *_NAMES):
        if asked.get(name) is not None and not isinstance(asked[name], str):
            problems.append(Problem(name, brief(asked[name]), "text"))
    names = [(name, asked[name]) for name in _NAMES if asked.get(name) is not None]
    if asked.get("tags") is not None:
        names += [("tag", tag) for tag in _tags("tags", asked["tags"], problems)]
    any_tags = asked.get("any_tags")
    least = asked.get("min_priority")
    rank = 0 if least is None else _rank("min_priority", least, problems)
    for name in ("since", "until"):
        if asked.get(name) is not None and not _is_time(asked[name]):
            problems.append(Problem(name, brief(asked[name]), "seconds since 1970"))
    some = None if any_tags is None else frozenset(_tags("any_tags", any_tags, problems))
    if problems:
        raise ValidationError("the store cannot be asked so", problems=problems)
    return Wanted(type, tuple(names), some, rank, asked.get("since"), asked.get("until"), order)


def _is_time(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def watched_of(
    filters: Mapping[str, Any], kinds: Iterable[str]
) -> tuple[Wanted, tuple[type[ItemEvent], ...]]:
    """Return which items and which events are watched for."""
    problems = [
        Problem(name, brief(filters[name]), "no such filter: what is watched for is yet to happen")
        for name in ("since", "until", "order", "limit")
        if name in filters
    ]
    named = (kinds,) if isinstance(kinds, str) or not isinstance(kinds, Iterable) else tuple(kinds)
    for kind in named:
        if not isinstance(kind, str) or kind not in KINDS:
            near = closest(str(kind), KINDS)
            problems.append(Problem("kinds", brief(kind), f"some of {', '.join(KINDS)}.{near}"))
    if problems:
        raise ValidationError("the store cannot be watched so", problems=problems)
    return wanted_of(filters), tuple(KINDS[kind] for kind in named or KINDS)


def _rank(name: str, value: Any, problems: list[Problem]) -> int:
    try:
        return priority_of(value)
    except GrymError as error:
        problems += [Problem(name, p.found, p.expected) for p in getattr(error, "problems", ())]
        return 0


def _tags(name: str, tags: Any, problems: list[Problem]) -> tuple[str, ...]:
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        problems.append(Problem(name, brief(tags), f"several texts: {name}=({brief(tags)},)"))
        return ()
    try:
        given = list(tags)
    except Exception:  # a stranger that does not let itself be looped over
        given = [None]
    if not all(isinstance(tag, str) for tag in given):
        problems.append(Problem(name, brief(tags), "texts"))
        return ()
    return tuple(dict.fromkeys(map(str.__str__, given)))
