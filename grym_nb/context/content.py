"""What a store keeps of a content: a copy of its own that nobody changes, with what it takes.

>>> content, size = kept({"bpm": 120.0, "beats": [0.5, 1.0]})
>>> content["beats"] + [1.5], content | {"bpm": 121.0}, size > 100
([0.5, 1.0, 1.5], {'bpm': 121.0, 'beats': [0.5, 1.0]}, True)
>>> content["beats"].append(1.5)
Traceback (most recent call last):
grym_nb.errors.ValidationError: this list is shared, and not to be changed
  -> change a copy (copy.deepcopy(...)), and update() the item with it, or put() it
"""

from __future__ import annotations

import copy
import sys
from collections import deque
from collections.abc import Mapping
from typing import Any, NoReturn

from grym_nb.clip import Clip
from grym_nb.context.values import is_array
from grym_nb.errors import Problem, ValidationError

__all__ = [
    "FrozenBytearray",
    "FrozenDict",
    "FrozenList",
    "FrozenSet",
    "frozen",
    "kept",
    "plain_kind",
    "said_size",
]

# -- containers that stay what they are ------------------------------------------------------------


class _Frozen:
    """What the containers of a content have in common: copies of them, also pickled ones, are plain."""

    __slots__ = ()
    _plain: Any

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise ValidationError(
            f"this {self._plain.__name__} is shared, and not to be changed",
            hint="change a copy (copy.deepcopy(...)), and update() the item with it, or put() it",
        )

    def __copy__(self) -> Any:
        return self._plain(self)

    def copy(self) -> Any:
        """Return a plain copy, to be changed at will; what is in it is still shared."""
        return self._plain(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self._plain(self), memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._plain, (self._plain(self),)


class FrozenDict(_Frozen, dict[Any, Any]):
    """A dict that refuses to be changed."""

    __slots__ = ()
    _plain = dict
    __setitem__ = __delitem__ = __ior__ = _Frozen._refuse
    clear = pop = popitem = setdefault = update = _Frozen._refuse


class FrozenList(_Frozen, list[Any]):
    """A list that refuses to be changed."""

    __slots__ = ()
    _plain = list
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _Frozen._refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _Frozen._refuse


class FrozenSet(_Frozen, set[Any]):
    """A set that refuses to be changed, and is equal to what was put: not a frozenset, which is a value."""

    __slots__ = ()
    _plain = set
    __iand__ = __ior__ = __isub__ = __ixor__ = _Frozen._refuse
    add = clear = discard = pop = remove = update = _Frozen._refuse
    difference_update = intersection_update = symmetric_difference_update = _Frozen._refuse

    def __repr__(self) -> str:
        return repr(set(self))  # without the name of this class


class FrozenBytearray(_Frozen, bytes):
    """A bytearray that refuses to be changed: bytes, since anybody may write into the buffer of another."""

    _plain = bytearray
    __hash__ = None  # type: ignore[assignment]
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _Frozen._refuse
    append = clear = extend = insert = pop = remove = reverse = _Frozen._refuse

    def __repr__(self) -> str:
        return repr(bytearray(self))


_FROZEN: dict[type, Any] = {
    dict: FrozenDict, list: FrozenList, set: FrozenSet, FrozenDict: FrozenDict, FrozenList: FrozenList,
    FrozenSet: FrozenSet, tuple: tuple, frozenset: frozenset,
}  # fmt: skip


def plain_kind(value: Any) -> type:
    """Return the type that a value had when it was put."""
    kind = type(value)
    return kind._plain if issubclass(kind, _Frozen) else kind


def frozen(content: Any) -> Any:
    """Return a content with containers that refuse to be changed; what else is in it is not copied."""
    kind = type(content)
    made = _FROZEN.get(kind)
    if kind is bytearray:
        return FrozenBytearray(content)
    if made is None:
        return kind._make(map(frozen, content)) if _is_named_tuple(kind) else content
    if made is FrozenDict:
        return FrozenDict({key: frozen(inner) for key, inner in content.items()})
    return made(map(frozen, content))


def _is_named_tuple(kind: Any) -> bool:
    return issubclass(kind, tuple) and hasattr(kind, "_fields") and hasattr(kind, "_make")


# -- what is kept of a content ---------------------------------------------------------------------

_SCALARS = {type(None): 16, bool: 28, int: 28, float: 24, complex: 32}
_UNDER_WAY: Any = object()


def kept(content: Any) -> tuple[Any, int]:
    """Return a content as the store keeps it, with its size in bytes.

    Containers and arrays are copied, and the copies refuse to be changed, so that it stays what it was;
    clips, tensors, objects of classes and what else is no plain value are kept as they are.
    """
    size = _SCALARS.get(type(content))
    if size is not None:
        return content, size
    try:
        return _kept(content, {})
    except RecursionError:
        raise _unfit("containers hundreds deep", "fewer") from None


def said_size(said: Mapping[str, Any]) -> int:
    """Return the size of what is said of an item, its metadata, in bytes."""
    return kept(dict(said))[1] if said else 0


def _unfit(found: str, expected: str) -> ValidationError:
    return ValidationError("this content cannot be kept", problems=[Problem("content", found, expected)])


def _kept(value: Any, known: dict[int, tuple[Any, int]]) -> tuple[Any, int]:
    kind = type(value)
    size = _SCALARS.get(kind)
    if size is not None:
        return value, size
    if kind is str or kind is bytes:
        return value, len(value) + 50
    if kind is bytearray or kind is FrozenBytearray:
        return FrozenBytearray(value), len(value) + 50
    made = _FROZEN.get(kind) or (kind._make if _is_named_tuple(kind) else None)
    if made is not None:
        before = known.get(id(value))
        if before is not None:
            if before is _UNDER_WAY:
                raise _unfit(f"a {kind.__name__} that contains itself", "one that ends")
            return before[0], 8  # counted where it was met first
        known[id(value)] = _UNDER_WAY
        known[id(value)] = copied = _copied(value, made, known)
        return copied
    if kind.__name__ == "ndarray" and kind.__module__ == "numpy":
        array = value.copy()
        array.flags.writeable = False
        return array.view(), int(array.nbytes) + 112  # who owns its data may make it writeable again
    return value, _size_of(value, known)


def _size_of(value: Any, known: dict[int, Any]) -> int:
    """Return what a stranger says it takes, if it does, or else what its parts do."""
    if id(value) in known:
        return 8
    known[id(value)] = value
    try:
        if is_array(value) or isinstance(value, Clip):  # of anything else, it may be a field of the user's
            return max(0, int(value.nbytes))
        size = sys.getsizeof(value, 64)
        if isinstance(value, type):
            return size
        kind = type(value)
        if issubclass(kind, dict):
            size += sum(_size_of(part, known) for pair in list(value.items()) for part in pair)
        elif issubclass(kind, (list, tuple, set, frozenset, deque)):
            size += sum(_size_of(part, known) for part in list(value))
        return size + sum(_size_of(part, known) for part in list(getattr(value, "__dict__", {}).values()))
    except Exception:
        return 64


def _copied(value: Any, made: Any, known: dict[int, tuple[Any, int]]) -> tuple[Any, int]:
    size = 64
    if made is FrozenDict:
        fields = {}
        for key, inner in list(value.items()):  # another thread may be at it
            fields[key], inside = _kept(inner, known)
            size += inside + 64 + (len(key) if type(key) is str else 32)
        return FrozenDict(fields), size
    parts = []
    for inner in list(value):
        part, inside = _kept(inner, known)
        parts.append(part)
        size += inside + 8
    return made(parts), size
