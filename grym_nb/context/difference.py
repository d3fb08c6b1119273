"""Where two contents differ: each place by its path, with what was there before and what is there after.

>>> differences({"bpm": 120, "tags": ["a"]}, {"bpm": 120.0, "tags": ["a", "b"]})[1]
Difference(path='content["tags"][1]', before=absent, after='b')
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import Enum
from itertools import zip_longest
from typing import Any

from grym_nb.context.content import plain_kind
from grym_nb.context.values import is_mapping
from grym_nb.render import Table, brief, redacted

__all__ = ["ABSENT", "Absent", "Difference", "differences", "mark_of", "same", "table_of"]


class Absent(Enum):
    """What stands where there is nothing: one of it, in every process, and not to be taken for None."""

    ABSENT = "absent"

    def __repr__(self) -> str:
        return self.value


ABSENT = Absent.ABSENT


@dataclass(frozen=True, slots=True, repr=False)
class Difference:
    """One place at which two contents differ; `ABSENT` on the side that does not have it."""

    path: str
    before: Any
    after: Any

    def __repr__(self) -> str:
        before, after = _in_words(self.path, self.before), _in_words(self.path, self.after)
        return f"Difference(path={self.path!r}, before={before}, after={after})"


def differences(before: Any, after: Any, path: str = "content") -> tuple[Difference, ...]:
    """Return every place at which two contents differ; none when they are the same.

    Mappings are compared by field, lists and tuples by place, sets by member, arrays as a whole. What is of
    another type differs, 1 from True and from 1.0 too; a NaN is equal to a NaN.
    """
    return tuple(_between(before, after, path, frozenset()))


def same(before: Any, after: Any) -> bool:
    """Tell whether two values do not differ anywhere."""
    return next(_between(before, after, "", frozenset()), None) is None


def table_of(differences: Sequence[Difference]) -> Table:
    """Return the differences as a table; what looks like a secret is not shown."""
    rows = [
        (one.path, _in_words(one.path, one.before), _in_words(one.path, one.after)) for one in differences
    ]
    return Table("what differs", ("where", "before", "after"), rows, empty="nothing")


def _in_words(path: str, value: Any) -> str:
    return repr(value) if value is ABSENT else redacted({path: value})[path]


# -- how it is found -------------------------------------------------------------------------------

_Parts = list[tuple[str, Any, Any]]


def _between(before: Any, after: Any, path: str, above: frozenset[tuple[int, int]]) -> Iterator[Difference]:
    if before is after:
        return
    parts = _parts(before, after)
    if parts is None:
        if not _equal(before, after):
            yield Difference(path, before, after)
        return
    above |= {(id(before), id(after))}
    for step, one, other in parts:
        if one is ABSENT or other is ABSENT:
            yield Difference(path + step, one, other)
        elif (id(one), id(other)) not in above:  # else a circle: it is being compared already
            yield from _between(one, other, path + step, above)


def _parts(before: Any, after: Any) -> _Parts | None:
    """Return what two containers of one kind hold, side by side; None for what is compared as a whole."""
    kind = type(before)
    if is_mapping(before) and is_mapping(after):  # a dict and a view of one may well be the same
        kind = Mapping
    elif plain_kind(before) is not plain_kind(after):
        return None
    for kinds, side_by_side in _SIDE_BY_SIDE.items():
        if issubclass(kind, kinds):
            try:
                return side_by_side(before, after)
            except Exception:  # a stranger that does not let itself be read
                return None
    return None


def _by_field(before: Mapping[Any, Any], after: Mapping[Any, Any]) -> _Parts:
    one, other = dict(before), dict(after)
    return [(f"[{_named(key)}]", one.get(key, ABSENT), other.get(key, ABSENT)) for key in {**one, **other}]


def _by_place(before: Sequence[Any], after: Sequence[Any]) -> _Parts:
    pairs = zip_longest(before, after, fillvalue=ABSENT)
    return [(f"[{place}]", one, other) for place, (one, other) in enumerate(pairs)]


def _by_member(before: Set[Any], after: Set[Any]) -> _Parts:
    one, other = ({mark_of(member): member for member in members} for members in (before, after))
    gone = [(member, ABSENT) for mark, member in one.items() if mark not in other]
    come = [(ABSENT, member) for mark, member in other.items() if mark not in one]
    named = [(f"{{{_named(o if b is ABSENT else b)}}}", b, o) for b, o in [*gone, *come]]
    return sorted(named, key=lambda part: part[0])  # a set has no order of its own


_SIDE_BY_SIDE: dict[Any, Callable[[Any, Any], _Parts]] = {
    Mapping: _by_field,
    (list, tuple): _by_place,
    (set, frozenset): _by_member,
}


def mark_of(value: Any) -> tuple[type, Any]:
    """Return what two hashable values share when they are the same: 1, 1.0 and True do not, NaNs do."""
    kind = type(value)
    return (kind, "nan") if issubclass(kind, float) and value != value else (kind, value)


def _named(key: Any) -> str:
    return json.dumps(key, ensure_ascii=False) if isinstance(key, str) else brief(key)


def _equal(before: Any, after: Any) -> bool:
    """Tell whether two values are equal as a whole; strangers that cannot be compared are not."""
    try:
        if _made_as(before) != _made_as(after):
            return False
        told: Any = (before == after) | ((before != before) & (after != after))  # NaN is not equal to itself
        for _ in range(2):  # what arrays answer is an array, and tables are summed up by column first
            told = told.all() if hasattr(told, "all") else told
        return bool(told)
    except Exception:
        return False


def _made_as(value: Any) -> tuple[type, str, str]:
    # Arrays that differ in shape would be stretched to fit when they are compared.
    return plain_kind(value), str(getattr(value, "shape", "")), str(getattr(value, "dtype", ""))
