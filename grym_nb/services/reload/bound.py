"""Methods of an older model that somebody outside of the service's state has: they go on with its code.

A thread that `load` has started, a list of callbacks in a module, a variable of the notebook. These are
looked at after each reload, no further than a moment allows. All that there are, wherever they are, are only
counted when the report is shown.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any
from weakref import WeakMethod

from grym_nb.hardening.storages import module_named
from grym_nb.render import count
from grym_nb.services.content import is_settled
from grym_nb.services.reload.attributes import attributes_of
from grym_nb.services.reload.contents import called, class_dict

if TYPE_CHECKING:
    from grym_nb.services.instance import Instance

__all__ = ["bound_elsewhere", "is_older"]

_MOST = 500  # values that are looked at
_LARGE = 1000  # parts, among which nobody looks for a callback
_DEEPEST = 5
_TOLD = 5  # places that are named
_PLAIN = frozenset((str, int, float, bool, bytes, type(None), object))
_LISTS = (list, tuple, set, frozenset, deque)
_RUNS = ("_target", "_args", "_kwargs", "function", "args", "kwargs")  # of a thread, or a timer


def bound_elsewhere(instance: Instance, modules: Collection[str]) -> Iterator[str]:
    """Say, in a line at most, where methods of its older models are: in threads, in variables of modules."""
    looking = _Looking(instance)
    state = {id(one) for one in attributes_of(instance.model).values()}  # of these the renewal has told
    for thread in threading.enumerate():
        if id(thread) not in state:
            runs = {name: vars(thread)[name] for name in _RUNS if name in vars(thread)}
            looking.at(f"the thread {thread.name}", runs, by_name=False)
    for name in modules:
        if (module := sys.modules.get(name)) is not None:
            looking.at("" if name == "__main__" else name, vars(module))
    if found := looking.found:
        places = list(dict.fromkeys(found))
        more = f" and {count(len(places) - _TOLD, 'more place')}" if len(places) > _TOLD else ""
        goes = "goes" if len(found) == 1 else "go"
        yield (
            f"outside of its state, {count(len(found), 'method')} of an older model {goes} on with the old "
            f"code: {', '.join(places[:_TOLD])}{more}"
        )


def is_older(model: object, new: object) -> bool:
    """Tell whether an object is of an older class than a model, of the same name."""
    cls, newer = type(model), type(new)
    return cls is not newer and called(cls) == called(newer) and module_named(cls) == module_named(newer)


class _Looking:
    """A look for methods of older models: at each value once, and at so many at most."""

    def __init__(self, instance: Instance) -> None:
        self.found: list[str] = []
        self._new = instance.model
        self._known = {id(model) for model in instance.models}  # what is in these is the service's state
        self._users: dict[int, bool] = {}
        self._keep: list[object] = []

    def at(self, place: str, space: Mapping[str, Any], *, by_name: bool = True) -> None:
        """Look at the values of a space."""
        ahead: deque[tuple[str, Any, int]] = deque()
        for name, value in tuple(space.items()):
            if not name.startswith("__"):
                ahead.append((f"{place}.{name}".lstrip(".") if by_name else place, value, 0))
        while ahead and len(self._keep) < _MOST:
            where, one, depth = ahead.popleft()
            if type(one) is MethodType and is_older(one.__self__, self._new):
                self.found.append(where)
            elif id(one) not in self._known and depth < _DEEPEST:
                self._known.add(id(one))
                self._keep.append(one)  # so that its identity stays its own
                parts = ((step, part) for step, part in self._within(one, where) if type(part) not in _PLAIN)
                for step, part in islice(parts, max(0, _MOST - len(self._keep) - len(ahead))):
                    ahead.append((f"{where}{step}" if by_name else where, part, depth + 1))

    def _within(self, value: Any, where: str) -> Iterator[tuple[str, Any]]:
        kind = type(value)
        if kind in _LISTS:
            if len(value) <= _LARGE:
                yield from ((f"[{at}]", part) for at, part in enumerate(tuple(value)))
        elif issubclass(kind, dict):
            if dict.__len__(value) <= _LARGE:
                yield from ((_key(key), part) for key, part in tuple(dict.items(value)))
        elif kind is partial:
            yield from (("", part) for part in (value.func, *value.args, *value.keywords.values()))
        elif kind is WeakMethod:
            yield "", value()
        elif kind is FunctionType:
            for cell in value.__closure__ or ():
                with suppress(ValueError):  # still empty
                    inside = cell.cell_contents
                    if is_older(inside, self._new):
                        self.found.append(where)
                    yield "", inside
        elif issubclass(kind, type):
            if self._is_users(value):
                yield from (
                    (f".{name}", part)
                    for name, part in class_dict(value).items()
                    if type(part) in (list, dict)
                )
        elif self._is_users(kind):
            own: Any = None
            with suppress(Exception):  # none, or a stranger's
                own = object.__getattribute__(value, "__dict__")
            if type(own) is dict:
                yield from ((f".{name}", part) for name, part in islice(tuple(own.items()), _LARGE))

    def _is_users(self, cls: type) -> bool:
        if id(cls) not in self._users:
            self._users[id(cls)] = not is_settled(module_named(cls))
            self._keep.append(cls)
        return self._users[id(cls)]


def _key(key: object) -> str:
    return f"[{key!r}]" if type(key) in (str, int) else "[...]"
