"""What is still there of a model that was let go of: each storage is asked whether it lives."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Container
from typing import Any

from grym_nb.hardening.storages import Storages, arrays_in, owner_of, storages_of, tensors_in

__all__ = ["Remains"]


class Remains:
    """The storages of an object, without keeping them: made before it is let go of, and asked afterwards.

    Those in `apart` are left out: others have them by right.
    """

    def __init__(self, owner: str, *roots: object, apart: Container[tuple[str, int]] = ()) -> None:
        self.owner = owner
        self.seen = 0  # bytes that were still there when somebody last looked
        self._lives: list[tuple[Storages, Callable[[], bool]]] = []
        for tensor in tensors_in(*roots):
            if (lives := _of_tensor(tensor)) is not None:
                self._add(storages_of(tensor), lives, apart)
        for array in arrays_in(*roots):
            if (owned := owner_of(array)) is not None:
                self._add(storages_of(array), _Array(owned).lives, apart)

    def _add(self, storages: Storages, lives: Callable[[], bool], apart: Container[tuple[str, int]]) -> None:
        if not all(key in apart for key in storages):
            self._lives.append((storages, lives))

    def arrays(self) -> list[Any]:
        """Return the arrays that are still there: the collector knows of none of them."""
        weak = [getattr(lives, "__self__", None) for _, lives in self._lives]
        found = [one.reference() for one in weak if isinstance(one, _Array)]
        return [array for array in found if array is not None]

    def leave(self, storages: Container[tuple[str, int]]) -> None:
        """Watch no more over these: another does."""
        self._lives = [(own, lives) for own, lives in self._lives if not any(key in storages for key in own)]
        self.seen = sum(self.alive().values())

    def alive(self) -> Storages:
        """Return the storages that are still there, and forget the others."""
        self._lives = [(storages, lives) for storages, lives in self._lives if lives()]
        found: Storages = {}
        for storages, _ in self._lives:
            found |= storages
        return found


def _of_tensor(tensor: Any) -> Callable[[], bool] | None:
    """Return what tells whether a tensor's storage lives, whoever looks at it through which tensor."""
    try:
        storage = tensor.untyped_storage()
        weak = _Weak(type(storage), storage._weak_ref(), storage.data_ptr())
    except (NotImplementedError, RuntimeError, AttributeError):
        return None
    return weak.lives


class _Weak:
    """A weak reference to a storage, as torch counts them: to be given back."""

    def __init__(self, kind: Any, reference: Any, address: int) -> None:
        self._kind = kind
        self._reference = reference
        self._address = address

    def lives(self) -> bool:
        """Tell whether it is there, and has what it had: `resize_(0)` gives that back and it stays."""
        if self._kind._expired(self._reference):
            return False
        storage = self._kind._new_with_weak_ptr(self._reference)
        return storage is not None and storage.data_ptr() == self._address

    def __del__(self) -> None:
        free = getattr(self._kind, "_free_weak_ref", None)
        if free is not None:
            free(self._reference)


class _Array:
    """A weak reference to an array."""

    def __init__(self, array: Any) -> None:
        self.reference = weakref.ref(array)

    def lives(self) -> bool:
        return self.reference() is not None
