"""What a model's state leads to: each part once, the nearest first, and which lead to changed code."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Mapping
from itertools import pairwise
from typing import Any

from grym_nb.services.reload.contents import MISSING, Kind, Kinds, called, class_dict, labelled, mro_of
from grym_nb.services.reload.rebinding import belongs, function_of, member_of, method_of

__all__ = ["Walk"]

_MOST = 200_000  # objects that are looked into
_TOLD = 50  # lines of a report
_MANY = 16  # parts, of which it is worth to ask first whether they hold anything
_STEPS = 8  # of the way to a part
_CALLBACK: Any = weakref.ReferenceType.__dict__["__callback__"]
_PLAIN = frozenset({id(kind) for kind in (str, int, float, bool, bytes, type(None))})


class Walk:
    """What can be reached from a state; a part is known by its number, and kept, so its id stays its own.

    `placed` are the parts in whose place comes what is there already: the model, functions, classes, members.
    `marked` are those and all that is to be made anew, `stays` in words what cannot be and should.
    """

    def __init__(
        self,
        state: Mapping[str, Any],
        newer: Callable[[Any], Any],
        models: tuple[object, object],
        apart: Collection[int] = (),
        most: int = _MOST,
    ) -> None:
        self.old, self.new = models
        self.values = dict(state)
        self.kinds = Kinds(self._newer_or_model(newer))
        self.parts: list[Any] = [state]
        self.kind: list[Kind] = [self.kinds.of(dict)]
        self.number = {id(state): 0}
        self.placed: dict[int, Any] = {}
        self.methods: dict[int, Any] = {}
        self.marked: set[int] = set()
        self.stays: dict[int, str] = {}
        self._via = [0]  # from which each was reached first
        self._sources: list[int] = []
        self._targets: list[int] = []
        self._changed: list[int] = []
        self._weak: list[int] = []
        self._codes: list[int] = []
        self._functions: list[int] = []
        self._shared: list[int] = []
        self._frozen: set[int] = set()
        self._apart = apart
        self._most = most
        self._full = False

    def _newer_or_model(self, newer: Callable[[Any], Any]) -> Callable[[Any], Any]:
        old, new = type(self.old), type(self.new)
        return lambda made: new if made is old and new is not old else newer(made)

    # -- looking -------------------------------------------------------------------------------

    def look(self) -> None:
        """Look into all that can be reached."""
        parts, number, known = self.parts, self.number, self.kinds.known
        sources, targets = self._sources, self._targets
        at = 0
        while at < len(parts):
            found = self.within(at)
            at += 1
            if len(found) > _MANY and self._are_leaves(found):
                continue
            for one in found:
                kind = known.get(id(type(one))) or self.kinds.of(type(one))
                if kind.leaf:
                    continue
                there = number.get(id(one))
                if there is None:
                    if len(parts) >= self._most:
                        self._full = True
                        continue
                    there = self._added(one, kind, at - 1)
                sources.append(at - 1)
                targets.append(there)
        self._look_at_weak()
        self._look_at_codes()

    def _are_leaves(self, parts: list[Any]) -> bool:
        """Tell whether none of many parts holds anything; in C, for it may be a list of a million numbers."""
        kinds = [self.kinds.known.get(cls) for cls in set(map(id, map(type, parts)))]
        return all(kind is not None and kind.leaf for kind in kinds)

    def within(self, at: int) -> list[Any]:
        """Return what is in a part; nothing, where something else comes in its place."""
        if at == 0:
            return list(self.values.values())
        if at in self.placed or self.parts[at] is self.new:
            return []
        try:
            return self.kind[at].within(self.parts[at])
        except Exception:  # changed by another thread meanwhile, or a stranger
            return []

    def _added(self, part: Any, kind: Kind, via: int) -> int:
        at = self.number[id(part)] = len(self.parts)
        self.parts.append(part)
        self.kind.append(kind)
        self._via.append(via)
        if kind.instead is not None or kind.stale is not None:
            self._changed.append(at)
        if self._apart and id(part) in self._apart:
            self._shared.append(at)
        if part is self.old:
            self._place(at, self.new)
        elif kind.sort in ("class", "function"):
            self._place(at, self.kinds.newer(part))
            self._functions += [at] if kind.sort == "function" else []
        elif kind.sort == "member":
            self._place(at, member_of(part, kind.instead))
        elif kind.sort in ("ref", "proxy"):
            self._weak.append(at)
        elif kind.sort in ("gi", "cr", "ag"):
            self._codes.append(at)
        return at

    def _place(self, at: int, new: Any) -> None:
        if new is not None and new is not MISSING:
            self.placed[at] = new
            self._changed.append(at)

    def _look_at_weak(self) -> None:
        """Take weak references to what was found, and to the old model, as leading there."""
        if not self._weak:
            return
        proxies = {id(self.parts[at]): at for at in self._weak if self.kind[at].sort == "proxy"}
        self._look_at_proxies(proxies)
        for at in self._weak:
            if self.kind[at].sort == "ref":
                whole = weakref.ReferenceType.__call__(self.parts[at])
                there = self.number.get(id(whole))
                if there is None and whole is self.old:
                    there = self._added(whole, self.kinds.of(type(whole)), at)
                if there is not None:
                    self._lead(at, there)
                elif whole is not None and self.kinds.of(type(whole)).instead is not None:
                    self.stays[at] = f"a weak reference to {_one(type(whole))} that only others hold"

    def _look_at_proxies(self, proxies: dict[int, int]) -> None:
        # What a proxy stands for is not told; what stands behind it knows its proxies.
        if not proxies:
            return
        if id(self.old) not in self.number:
            self._added(self.old, self.kinds.of(type(self.old)), min(proxies.values()))
        for there in self._changed:
            for one in weakref.getweakrefs(self.parts[there]):
                if id(one) in proxies:
                    self._lead(proxies[id(one)], there)

    def _lead(self, source: int, target: int) -> None:
        self._sources.append(source)
        self._targets.append(target)

    def _look_at_codes(self) -> None:
        classes = self._classes() if self._functions or self._codes else []
        for at in self._functions:
            if at not in self.placed:
                self._place(at, function_of(self.parts[at], classes, self.kinds.newer))
        for at in self._codes:
            part, sort = self.parts[at], self.kind[at].sort
            frame, code = getattr(part, f"{sort}_frame"), getattr(part, f"{sort}_code")
            if frame is not None and belongs(code, frame.f_globals, classes, self.kinds.newer):
                self.stays[at] = f"a {called(type(part))} that runs older code ({code.co_qualname})"

    def _classes(self) -> list[type]:
        """Return the classes seen that have a newer one, those of which the model is made included."""
        known = [*mro_of(type(self.old))[:-1], *(kind.cls for kind in list(self.kinds.known.values()))]
        return [cls for cls in known if self.kinds.newer(cls) is not None]

    # -- marking -------------------------------------------------------------------------------

    def mark(self) -> None:
        """Mark what leads to something changed, as far as it can be made anew; the rest is told."""
        if not self._changed:
            return
        self._freeze()
        into: dict[int, list[int]] = {}
        for source, target in zip(self._sources, self._targets, strict=True):
            into.setdefault(target, []).append(source)
        waiting = [at for at in self._changed if at not in self._frozen and self._is_renewable(at, -1)]
        self.marked.update(waiting)
        while waiting:
            at = waiting.pop()
            own = [self.number[id(one)] for one in self.own_of(at)]
            for source in (*into.get(at, ()), *own):
                if source in self.marked or source in self._frozen or source in self.placed:
                    continue
                if source in own or self._is_renewable(source, at):
                    self.marked.add(source)
                    waiting.append(source)

    def own_of(self, at: int) -> list[Any]:
        """Return what a part shares with no other of its kind once it is made anew.

        What torch writes into, and its `__dict__` where somebody has that.
        """
        if at in self.placed:
            return []
        kind = self.kind[at] if at else self.kinds.of(type(self.old))
        variables = kind.variables(self.parts[at]) if at else self.values
        if variables is None:
            return []
        found = [variables, *(dict.get(variables, name) for name in kind.own)]
        there = [one for one in found if self.number.get(id(one), at) != at]
        return [one for one in there if self.kind[self.number[id(one)]].copied]

    def _freeze(self) -> None:
        """Let what is shared with others be as it is, with all beneath it."""
        if not self._shared:
            return
        into: dict[int, list[int]] = {}
        for source, target in zip(self._sources, self._targets, strict=True):
            into.setdefault(source, []).append(target)
        changed = set(self._changed)
        for root in self._shared:
            if root in self.placed:
                continue
            beneath, waiting = {root}, [root]
            while waiting:
                more = {there for there in into.get(waiting.pop(), ()) if there and there not in beneath}
                beneath |= more
                waiting += [there for there in more if there not in self.placed]
            if beneath & changed:
                what = _one(self.kind[root].cls)
                self.stays[root] = f"{what}, shared with other services, that is or leads to older code"
            self._frozen |= beneath - self.placed.keys()

    def _is_renewable(self, at: int, leads: int) -> bool:
        """Tell whether a part can be made anew because it is changed, or leads to what is."""
        kind, part = self.kind[at], self.parts[at]
        if at == 0 or at in self.placed:
            return True
        if kind.stale is not None and leads < 0:
            self.stays[at] = f"{_one(kind.cls)}, which is made from the older {called(kind.stale)}"
            return False
        renewable = False
        if kind.sort in ("method", "builtin"):
            return self._is_bound(at)
        elif kind.sort == "ref":
            renewable = _is_plain(part)
        elif _ends_something(kind, part):
            self.stays[at] = f"{_one(kind.cls)} that ends something when it goes, and so cannot be made anew"
            return False
        else:
            renewable = kind.copied and self._fits(kind) and _can_be_hashed(kind, part)
        if renewable:
            return True
        self.stays[at] = self._reason(at, leads)
        return False

    def _is_bound(self, at: int) -> bool:
        part = self.parts[at]
        there = self.number[id(part.__self__)]
        kind = self.kind[there]
        old, new = kind.cls, kind.cls if kind.instead is None else kind.instead
        if kind.sort == "class":
            old = self.parts[there]
            new = self.placed.get(there, old)
        elif self.parts[there] is self.old:
            new = type(self.new)
        found = method_of(part, old, new, self.kinds.newer)
        if found is MISSING:
            self.stays[at] = f"a method that the new {called(new)} does not have: {part.__name__}"
            return False
        self.methods[at] = found
        return True

    def _fits(self, kind: Kind) -> bool:
        """Tell whether what stands in an instance can stand in one of the newer class."""
        if kind.instead is None:
            return True
        new = self.kinds.of(kind.instead)
        names = [class_dict(cls).get("_fields") for cls in (kind.cls, new.cls)]
        return new.sort == kind.sort and new.base is kind.base and names[0] == names[1]

    # -- telling -------------------------------------------------------------------------------

    def _reason(self, at: int, leads: int) -> str:
        kind = self.kind[at]
        if leads < 0 and kind.sort == "member":
            return f"a member that the new {called(kind.cls)} does not have"
        if leads < 0:
            return f"an instance of the older {called(kind.cls)}, which cannot be made anew"
        what = self._what(leads)
        if kind.sort == "function":
            return f"a function that has {what} in a variable"
        if kind.sort == "ref":
            return f"a {called(kind.cls)} of {what}"
        if any(called(cls) == "Thread" for cls in mro_of(kind.cls)):
            return f"a thread that runs {what}"
        return f"{_one(kind.cls)} that leads to {what}"

    def _what(self, at: int) -> str:
        kind, part = self.kind[at], self.parts[at]
        if part is self.old or at == 0:
            return "the old model"
        if kind.sort == "method":
            return f"a method of {self._what(self.number[id(part.__self__)])}"
        if kind.sort in ("class", "function"):
            return f"the older {part.__name__ if kind.sort == 'function' else called(part)}"
        return f"an instance of the older {called(kind.cls)}" if kind.instead is not None else _one(kind.cls)

    def lines(self, failed: Mapping[int, str]) -> tuple[str, ...]:
        """Return what goes on with old code, and where; `failed` is what could not be made after all."""
        told = {**self.stays, **failed}
        lines = [f"{self._where(at)}: {told[at]}" for at in sorted(told)[:_TOLD]]
        if len(told) > _TOLD:
            lines.append(f"and {len(told) - _TOLD} more")
        if self._full:
            lines.append(f"what is beyond the {self._most} nearest objects: nobody has looked at it")
        return tuple(lines)

    def _where(self, at: int) -> str:
        way = [at]
        while way[-1]:
            way.append(self._via[way[-1]])
        way.reverse()
        steps = [self._step(source, target) for source, target in pairwise(way)]
        if len(steps) > _STEPS:
            steps = [*steps[: _STEPS // 2], " ... ", *steps[-_STEPS // 2 :]]
        return "".join(steps).lstrip(".")

    def _step(self, source: int, target: int) -> str:
        part = self.parts[target]
        if source == 0:
            return next((f".{name}" for name, value in self.values.items() if value is part), "?")
        try:
            found = labelled(self.kind[source], self.parts[source])
            return next(label for label, value in found if value is part)
        except Exception:  # changed meanwhile; or it is reached in a way that has no name
            return "(...)"


def _one(cls: type) -> str:
    return f"{'an' if called(cls)[:1] in 'AEIOUaeiou' else 'a'} {called(cls)}"


def _is_plain(ref: Any) -> bool:
    """Tell whether a weak reference can be made anew: it calls nobody when its object goes."""
    return type(ref) is weakref.ReferenceType and _CALLBACK.__get__(ref) is None


def _ends_something(kind: Kind, part: Any) -> bool:
    """Tell whether something is called when an object goes: it would take from the new one what both have."""
    if any("__del__" in class_dict(cls) for cls in mro_of(kind.cls)):
        return True
    refs = [ref for ref in weakref.getweakrefs(part) if issubclass(type(ref), weakref.ReferenceType)]
    return any(type(_CALLBACK.__get__(ref)) is weakref.finalize for ref in refs)


def _can_be_hashed(kind: Kind, part: Any) -> bool:
    """Tell whether the keys of a container that is made anew can be put into it."""
    if kind.sort != "items" or not issubclass(kind.base, (dict, set, frozenset)):
        return True
    try:
        for key in list(kind.base.__iter__(part)):
            if id(type(key)) not in _PLAIN:
                hash(key)
    except Exception:  # a stranger
        return False
    return True
