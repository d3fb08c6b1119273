"""What a walk has marked, made anew: shallow copies that lead to one another as the old ones do."""

from __future__ import annotations

import weakref
from collections import OrderedDict, defaultdict, deque
from functools import partial
from types import MappingProxyType
from typing import Any

from grym_nb.services.reload.contents import MISSING, Kind, called, slot_value
from grym_nb.services.reload.rebinding import bind
from grym_nb.services.reload.walk import Walk

__all__ = ["Making"]

_PURE: dict[Any, Any] = {str: str.__str__, int: int.__int__, float: float.__float__}
_PURE |= {bytes: bytes.__bytes__, complex: complex.__complex__}


class Making:
    """The parts that come in the place of those that a walk has marked; `failed` is what stays after all."""

    def __init__(self, walk: Walk) -> None:
        self.failed: dict[int, str] = {}
        self.count = 0
        self._walk = walk
        self._made: dict[int, Any] = dict(walk.placed)
        self._begun: set[int] = set()
        self._ended: set[int] = set()
        self._known: dict[int, list[int]] = {}
        self._held: set[int] = set()
        self._empty: set[int] = set()
        self._late: list[int] = []  # cannot be there before what is in them, and are in it
        self._waiting: list[int] = []  # are there, and to be filled with those

    def state(self) -> dict[str, Any]:
        """Make all anew, and return the new state."""
        walk = self._walk
        new: dict[str, Any] = {}
        if 0 in walk.marked:
            self._made[0] = new
            self._held = self._reached()
            self._make()
        new.update({name: self._new(value) for name, value in walk.values.items()})
        return new

    def _new(self, part: Any) -> Any:
        """Return what comes in the place of a part: itself, where it is not made anew."""
        at = self._walk.number.get(id(part))
        return part if at is None else self._made.get(at, part)

    def _next(self, at: int) -> list[int]:
        known = self._known.get(at)
        if known is None:
            number, marked = self._walk.number, self._walk.marked
            found = [number.get(id(one), -1) for one in (*self._walk.within(at), *self._walk.own_of(at))]
            known = self._known[at] = [there for there in found if there in marked]
        return known

    def _reached(self) -> set[int]:
        """Return what the new state will hold: a weak reference alone keeps nothing."""
        found, waiting = {0}, [0]
        while waiting:
            more = set(self._next(waiting.pop())) - found
            found |= more
            waiting += more
        return found

    def _make(self) -> None:
        """Make parts after what is in them; those that can be empty are there before it, so circles end."""
        stack = [0]
        while stack:
            at = stack[-1]
            if at in self._begun:
                stack.pop()
                self._end(at)
                continue
            self._begun.add(at)
            self._begin(at)
            stack += [there for there in reversed(self._of(at)) if there not in self._begun]
        self._finish()

    def _finish(self) -> None:
        """Make what was waiting for something that it is itself a part of; what is hashed is filled last."""
        late = self._late
        while late:
            ready = [at for at in late if self._is_ready(at)]
            for at in ready or late[:1]:
                self._build(at)
            late = [at for at in late if at not in self._made]
        for at in sorted(self._waiting, key=self._is_hashed):
            self._fill(at)

    def _is_ready(self, at: int) -> bool:
        """Tell whether what is in a part is there; and where it is hashed, whether that is all in it, too."""
        inner = self._of(at)
        if self._is_hashed(at) and not self._empty.isdisjoint(inner):
            return False
        return all(there in self._made for there in inner)

    def _is_hashed(self, at: int) -> bool:
        kind = self._walk.kind[at]
        return kind.sort == "items" and kind.base not in (list, deque, tuple)

    def _of(self, at: int) -> list[int]:
        if self._walk.kind[at].sort != "ref":
            return self._next(at)
        there = self._referred(at)
        return [there] if there in self._held else []

    def _referred(self, at: int) -> int:
        whole = weakref.ReferenceType.__call__(self._walk.parts[at])
        return self._walk.number.get(id(whole), -1)

    def _kind_of_new(self, at: int) -> Kind:
        kind = self._walk.kind[at]
        return kind if kind.instead is None else self._walk.kinds.of(kind.instead)

    def _begin(self, at: int) -> None:
        if at in self._made:
            return
        try:
            blank = self._kind_of_new(at).blank()
        except Exception as error:  # abstract by now, or laid out in C after all
            self._fail(at, str(error))
            return
        if blank is not None:
            self._made[at] = blank
            self._empty.add(at)
            self.count += 1

    def _fail(self, at: int, why: str) -> None:
        cls = called(self._walk.kind[at].cls)
        self._made[at] = self._walk.parts[at]
        self.failed[at] = f"an older {cls}, which cannot be made anew ({why})"

    def _end(self, at: int) -> None:
        if at in self._ended:
            return
        self._ended.add(at)
        if at in self._walk.placed or at in self.failed:
            return
        there = at in self._made
        if not self._is_ready(at):
            (self._waiting if there else self._late).append(at)
        elif there:
            self._fill(at)
        else:
            self._build(at)

    def _build(self, at: int) -> None:
        """Make a part that cannot be there before what is in it."""
        part, kind = self._walk.parts[at], self._kind_of_new(at)
        try:
            self._made[at] = self._built(at, part, kind)
        except Exception as error:
            self._fail(at, str(error))
            return
        self.count += 1
        if kind.holder is not None or kind.slots:
            self._fill(at)

    def _built(self, at: int, part: Any, kind: Kind) -> Any:
        if kind.sort in ("method", "builtin"):
            return bind(self._walk.methods[at], self._new(part.__self__))
        if kind.sort == "ref":
            there = self._referred(at)
            if there not in self._held and there not in self._walk.placed:
                raise ReferenceError("only others hold what it refers to")
            return weakref.ref(self._made[there])
        if kind.sort == "view":
            return MappingProxyType(self._new(kind.within(part)[0]))
        if kind.sort == "partial":
            function, args, keywords = [self._new(one) for one in kind.within(part)[:3]]
            return partial.__new__(kind.cls, function, *args, **keywords)
        if kind.sort == "value":
            return kind.base.__new__(kind.cls, _PURE[kind.base](part))
        return kind.base.__new__(kind.cls, [self._new(one) for one in kind.base.__iter__(part)])

    # -- what stands in it ---------------------------------------------------------------------

    def _fill(self, at: int) -> None:
        self._empty.discard(at)
        if at == 0:
            return
        part, new = self._walk.parts[at], self._made[at]
        kind = self._walk.kind[at]
        if kind.sort == "items" and kind.base not in (tuple, frozenset):
            self._fill_items(at, part, new, kind.base)
        if kind.holder is not None or kind.slots:
            self._fill_attributes(at, part, new, kind)

    def _fill_items(self, at: int, part: Any, new: Any, base: Any) -> None:
        if base is list:
            list.extend(new, [self._new(one) for one in list.__iter__(part)])
        elif base is deque:
            longest = deque.__dict__["maxlen"].__get__(part)
            deque.__init__(new, [self._new(one) for one in deque.__iter__(part)], longest)
        elif base is set:
            for one in list(set.__iter__(part)):
                self._put(at, one, lambda key: set.add(new, key))
        else:
            if base is defaultdict:
                defaultdict.__init__(new, self._new(defaultdict.__dict__["default_factory"].__get__(part)))
            put: Any = OrderedDict.__setitem__ if base is OrderedDict else dict.__setitem__
            for key, value in list(base.items(part)):
                self._put(at, key, partial(_set, put, new, self._new(value)))

    def _put(self, at: int, key: Any, put: Any) -> None:
        try:
            put(self._new(key))
        except Exception as error:  # the new one does not let itself be hashed, or not yet
            self.failed[at] = f"a key that stays as it was ({error})"
            put(key)

    def _fill_attributes(self, at: int, part: Any, new: Any, kind: Kind) -> None:
        target = self._kind_of_new(at)
        own = kind.variables(part)
        if own is not None and (own is part or self._is_own(own)):
            target.holder.__set__(new, self._new(own))
            own = None
        variables = target.variables(new)
        found = {} if own is None else {name: self._new(value) for name, value in dict.items(own)}
        for name, member in kind.slots.items():
            value = slot_value(member, part)
            if value is not MISSING:
                found[name] = self._new(value)
        for name, value in found.items():
            if name in target.slots:
                target.slots[name].__set__(new, value)
            elif variables is not None:
                variables[name] = value
            else:
                self.failed[at] = f"the new {called(target.cls)} has no place for {name}"

    def _is_own(self, variables: Any) -> bool:
        """Tell whether somebody has the `__dict__` of an object, and so a new one will be had, too."""
        return self._walk.number.get(id(variables), -1) in self._made


def _set(put: Any, new: Any, value: Any, key: Any) -> None:
    put(new, key, value)
