"""What the code of a cell names, as it was when that code was registered.

All functions of a notebook share one namespace: once a cell ran again, the old code sees the new helpers. So
whether a registration is another one cannot be told from the old code by then, but only from what is noted
here, as text: it keeps nothing alive but small tables of constants.

Of what a name stands for, a function, a class and a constant count by their content. A list, a dict or an
object that may change as calls run counts as it was bound: it is another one when it was bound anew, and with
other content. What the code binds itself, such as a counter that it declares `global`, does not count at all.
Of an array only the shape counts, of what is large the size, and of what is installed the name.
"""

from __future__ import annotations

import re
import sys
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import cached_property, partial
from pathlib import PurePath
from types import BuiltinFunctionType, CellType, FunctionType, MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, get_args, get_origin

from grym_nb.services.content import PLAIN, SKIP, code_of, is_settled, state_of
from grym_nb.services.named import WRAPS, looked_up, named_of_module, uses_of
from grym_nb.services.reads import watches
from grym_nb.services.reload.loads import HOOKS, INIT, changed_in_load, load_of
from grym_nb.services.reload.names import ByVersion, Name, meant

if TYPE_CHECKING:
    from grym_nb.services.reload.change import Newer

__all__ = ["Reached", "names_of", "reached_by"]

_CONSTANTS = (
    *(*PLAIN, PurePath, Enum, re.Pattern, Decimal, Fraction),
    *(date, time, timedelta, tzinfo, range, slice),
)
_CONTAINERS: tuple[type, ...] = (dict, list, tuple, set, frozenset, deque)
_NO_CONTENT = SKIP | {"__doc__", "__annotations__", "__annotate_func__", "__dict__"}
#: what is installed and told by its text
_BY_TEXT = ("torch.device", "torch.dtype", "torch.Size")
#: what is installed and told by its attributes
_BY_ATTRIBUTES = ("types.SimpleNamespace", "argparse.Namespace", "pydantic.fields.FieldInfo")
_MOST = 1000  # parts of a value that are looked at
_LONGEST = 100_000  # characters of a constant
_DEEPEST = 40
_DEEPEST_TABLE = 4


@dataclass(frozen=True, slots=True, eq=False)
class Reached:
    """What some code names, by the place where it does, and what its load is made of, by its hooks.

    `data` are the places at which there is no code, `modules` the user's own from which the rest is.
    """

    found: Mapping[str, object]
    data: frozenset[str]
    loads: Mapping[tuple[str, ...], Mapping[str, object]]
    modules: frozenset[str] = frozenset()

    def differs(self, other: Reached, *, made_anew: bool) -> bool:
        """Tell whether code that was registered later is another one by what it names.

        A place that only one of them has is no sign of that: what leads there is, unless calls led there.
        Where the code was not `made_anew`, data is what calls see anyway: only the load may have to see it.
        """
        places = self.found.keys() & other.found.keys()
        if not made_anew:
            places -= self.data & other.data
        if any(self.found[place] != other.found[place] for place in places):
            return True
        return bool(changed_in_load(self.loads.get(HOOKS, {}), other.loads.get(HOOKS, {})))


def names_of(factory: Any, newer: Newer) -> tuple[tuple[Name, ...], list[str]]:
    """Return the names under which code from a cell knows what there is something newer of.

    And its classes that have a base of before.
    """
    walk = _Walk(factory, newer)
    return tuple(walk.names), sorted(walk.outdated)


def reached_by(factory: Any, made: type | None, newer: Newer | None = None) -> Reached | None:
    """Return what a factory from a cell names as of now; None for one from a file: that is reloaded.

    `made` is the class of what it makes, where that is known. With `newer`, as if names stood for that.
    """
    inner = factory
    while isinstance(inner, partial):
        inner = inner.func
    if getattr(inner, "__module__", None) != "__main__":
        return None
    walk = _Walk(factory, newer)
    load = factory if made is None or not isinstance(inner, type) else None
    hooks = [HOOKS, *([INIT] if made is not None else []), *((name,) for name in _cached(made))]
    loads = {}
    for one in hooks:
        with suppress(Exception):  # a stranger that does not let itself be looked at: nothing is noted
            made_by = load if one is HOOKS else None
            loads[one] = load_of(
                made, made_by, one, tell=walk.tell_apart, but=walk.own, of=walk.of_class, newer=walk.by_now
            )
    return Reached(walk.found, frozenset(walk.data), loads, frozenset(walk.modules))


def _cached(made: type | None) -> list[str]:
    its = () if made is None else made.__mro__
    return [name for cls in its for name, value in vars(cls).items() if isinstance(value, cached_property)]


class _Lasting:
    """Something that may change in place: the same while it is the same object, or when it is made alike."""

    __slots__ = ("_id", "_there", "told")

    def __init__(self, value: Any, told: object, *, keep: bool = False) -> None:
        self.told = told
        self._id = id(value)
        # Where nothing refers to it weakly, and it may grow large, its address has to do.
        self._there: Callable[[], object] = lambda: True
        try:
            self._there = weakref.ref(value)
        except TypeError:
            if keep:
                self._there = lambda: value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Lasting):
            return NotImplemented
        return (self._id == other._id and self._there() is not None) or self.told == other.told

    __hash__ = None  # type: ignore[assignment]


class _Set(_Lasting):
    """An attribute that code sets on its class: until then there may be none."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return other is None or super().__eq__(other)

    __hash__ = None


class _Large(Exception):
    """A value has more parts than are looked at."""


class _Walk:
    """A walk through all that some code names; raises nothing, imports nothing, reads no file."""

    def __init__(self, factory: Any, newer: Newer | None = None) -> None:
        self._newer = newer
        self.names: list[Name] = []  # that stand for what there is something newer of
        self.modules: set[str] = set()
        self.outdated: set[str] = set()  # classes of a base that there is a newer one of
        self.found: dict[str, object] = {}
        self.data: set[str] = set()
        self.own: set[str] = set()  # names that the code itself binds as it runs
        self._bound: set[str] = set()  # the places of these
        self._set: set[str] = set()  # attributes that it sets
        self._of_modules: dict[str, str] = {}  # the names of attributes of modules, by place
        self._spaces: dict[int, str] = {}
        self._ahead: list[FunctionType | type] = []
        self._looked_at: dict[int, FunctionType | type] = {}  # or will be: they are in `_ahead` once
        # Of one value: what another one has shown first would count in what this one is told by. Also keeps
        # alive what is made on the way, so that no identity comes twice.
        self._known: dict[int, tuple[Any, object]] = {}
        self._whole: dict[int, tuple[Any, object]] = {}  # each value that was asked for, with what tells it
        self._left = 0
        self._put("", factory)
        while self._ahead:
            one = self._ahead.pop()
            try:
                self._look_at_class(one) if isinstance(one, type) else self._look_at_function(one)
            except Exception:  # a stranger, or a namespace that changes meanwhile
                continue
        its = self._bound | {place for place, name in self._of_modules.items() if name in self._set}
        self.found = {place: told for place, told in self.found.items() if place not in its}

    # -- code ----------------------------------------------------------------------------------

    def _look_at_function(self, function: FunctionType) -> None:
        space, uses = self._space(function), uses_of(function.__code__)
        self.own |= uses.sets
        self._bound |= {f"{space} {name}" for name in uses.sets}
        self._set |= uses.rebinds
        for name in sorted(uses.names | uses.modules):
            where = _space_of(function, name)
            value = meant(looked_up(function, name))
            if issubclass(type(value), ModuleType):
                self.modules.add(value.__name__)
                for place, inside in named_of_module(value, uses.attributes):
                    self._of_modules[place] = place.rpartition(" ")[2]
                    self._put(place, inside)
            else:
                now = self.by_now(value)
                if now is not value:
                    self._note(where, name, value, now)
                self._put(f"{space} {name}", now)

    def by_now(self, value: Any) -> Any:
        """Return what a name is to stand for that stands for a value."""
        is_code = type(value) is FunctionType or issubclass(type(value), type)
        now = self._newer(value) if self._newer is not None and is_code else None
        return value if now is None else now

    def _note(self, space: dict[str, Any], name: str, value: Any, now: Any) -> None:
        if space.get("__name__") == "__main__":
            self.names.append(Name(space, name, value, now))

    def _space(self, function: FunctionType) -> str:
        """Return what the namespace of a function is called: cells of services have their own."""
        if function.__module__ != "__main__":
            return function.__module__
        return self._spaces.setdefault(id(function.__globals__), f"__main__{len(self._spaces) or ''}")

    def _look_at_class(self, cls: type) -> None:
        for name, value in vars(cls).copy().items():
            if name not in _NO_CONTENT and not watches(value):
                self._put(f"{_name(cls)}.{name}", value, of=cls)

    def _put(self, place: str, value: Any, *, of: type | None = None) -> None:
        if place in self.found:
            return
        told = self.tell_apart(value)
        if not _is_code(value):
            self.data.add(place)
            told = told if of is None else _Lasting(of, told)
        self.found[place] = told

    def of_class(self, cls: type, name: str, told: object) -> object:
        """Return what tells a value that stands in a class: calls may have set it since."""
        return _Set(cls, told) if name in self._set else told

    # -- what a value is -----------------------------------------------------------------------

    def tell_apart(self, value: Any) -> object:
        """Return what tells a value from others, as it is now; it has nothing of the value itself."""
        if id(value) in self._whole:
            return self._whole[id(value)][1]
        self._left = _MOST
        try:
            told = self._tell(value)
        except _Large:
            told = f"a large {_name(type(value))}"
        finally:
            self._known = {}
        self._whole[id(value)] = value, told
        return told

    def _look_later(self, code: FunctionType | type) -> None:
        if id(code) not in self._looked_at:
            self.modules.add(code.__module__)
            self._looked_at[id(code)] = code
            self._ahead.append(code)

    def _tell(self, value: Any, depth: int = 0) -> object:
        kind = type(value)
        self._left -= 1
        if self._left < 0:
            raise _Large
        known = self._known.get(id(value))
        if known is not None:
            return known[1] if known[1] is not _Large else "circle"
        if depth > _DEEPEST:
            return _name(kind)
        self._known[id(value)] = value, _Large
        try:
            told = self._told(value, kind, depth + 1)
        except _Large:
            raise
        except Exception:  # a stranger that does not let itself be looked at
            told = "?"
        self._known[id(value)] = value, told
        return told

    def _told(self, value: Any, kind: type, depth: int) -> object:
        if issubclass(kind, _CONSTANTS):
            return self._told_constant(value, kind, depth)
        if kind is FunctionType:
            return self._told_function(value, depth)
        if kind is ByVersion:
            return self._tell(value.newest, depth)
        if issubclass(kind, type):
            return self._told_class(value, depth)
        if kind in WRAPS:
            return _name(kind), *(self._tell(getattr(value, part), depth) for part in WRAPS[kind])
        if kind is BuiltinFunctionType:
            return f"{value.__module__}.{value.__qualname__}"
        if issubclass(kind, ModuleType):
            return f"module {value.__name__}"
        if get_origin(value) is not None:
            return "type", *(self._tell(part, depth) for part in (get_origin(value), *get_args(value)))
        if issubclass(kind, _CONTAINERS):
            return self._told_container(value, kind, depth)
        if kind is MappingProxyType:  # it has no identity of its own: what is behind it may change in place
            return self._tell(dict(value), depth)
        if not _is_settled(kind) or _name(kind) in _BY_ATTRIBUTES:
            its = self._tell(kind, depth)
            inside = tuple((name, self._tell(one, depth)) for name, one in (state_of(value) or {}).items())
            return _Lasting(value, (its, *inside))
        if kind.__module__ == "numpy.dtypes" or _name(kind) in _BY_TEXT:
            return str(value)
        if kind.__module__ == "numpy" and hasattr(kind, "dtype") and not hasattr(kind, "__setitem__"):
            return f"{_name(kind)} {value!r}"
        if kind.__module__.partition(".")[0] in ("numpy", "torch") and hasattr(kind, "dtype"):
            return f"{_name(kind)} {value.dtype} {tuple(value.shape)}"
        return _name(kind)  # a lock, a pool, a model: what is made again is another, and as good

    def _told_constant(self, value: Any, kind: type, depth: int) -> object:
        if issubclass(kind, Enum):
            return self._tell(kind, depth), value._name_, self._tell(value._value_, depth)
        if issubclass(kind, (str, bytes)) and len(value) > _LONGEST:
            return f"a large {_name(kind)} of {len(value)}"
        return code_of(value)

    def _told_function(self, function: FunctionType, depth: int) -> object:
        code = function.__code__
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        settled = is_settled(str(function.__globals__.get("__name__")))
        if not settled:
            self._look_later(function)
        rebinds = frozenset[str]() if settled else uses_of(code).rebinds
        captured = [self._tell(_inside(cell), depth) for name, cell in cells if name not in rebinds]
        defaults = [self._tell(part, depth) for part in (function.__defaults__, function.__kwdefaults__)]
        return f"{function.__module__}.{code.co_qualname}" if settled else code_of(code), *defaults, *captured

    def _told_class(self, cls: type, depth: int) -> object:
        if _is_settled(cls):
            return _name(cls)
        self._look_later(cls)
        methods = [name for name, value in vars(cls).copy().items() if _is_code(value) and not watches(value)]
        bases = [self.by_now(base) for base in cls.__bases__]
        if any(now is not base for now, base in zip(bases, cls.__bases__, strict=True)):
            self.outdated.add(cls.__qualname__)
        made_of = [self._tell(part, depth) for part in (type(cls), *bases)]
        return _name(cls), *sorted(methods), *made_of

    def _told_container(self, value: Any, kind: type, depth: int) -> object:
        base = next(base for base in _CONTAINERS if issubclass(kind, base))
        size = base.__len__(value)  # type: ignore[attr-defined]
        if size > _MOST:
            return _Lasting(value, f"a large {_name(kind)} of {size}")
        parts = [*dict.keys(value), *dict.values(value)] if base is dict else [*base.__iter__(value)]  # type: ignore[attr-defined]
        parts += [value.default_factory] if issubclass(kind, defaultdict) else []
        inside = [self._tell(part, depth) for part in parts]
        if base in (set, frozenset):
            inside.sort(key=repr)
        told = (_name(kind) if _is_settled(kind) else self._tell(kind, depth), *inside)
        if base in (tuple, frozenset):
            return told
        return _Lasting(value, told, keep=bool(parts) and _is_table(value))


def _space_of(function: FunctionType, name: str) -> dict[str, Any]:
    """Return where a function finds a name: a service's cell has the notebook's variables behind its own."""
    space = function.__globals__
    return space if name in space else vars(sys.modules["__main__"])


def _is_code(value: Any) -> bool:
    kind = type(value)
    return kind in (FunctionType, BuiltinFunctionType) or kind in WRAPS or issubclass(kind, type)


def _is_table(value: Any) -> bool:
    """Tell whether a value has nothing but constants in it, and is small as a whole."""
    left, ahead = _LONGEST, [(value, 0)]
    while ahead:
        one, depth = ahead.pop()
        kind = type(one)
        left -= len(one) if kind in (str, bytes) else 1
        if left < 0:
            return False
        if kind in (dict, list, tuple, set, frozenset):
            if depth == _DEEPEST_TABLE:
                return False
            ahead += [(part, depth + 1) for part in ((*one, *one.values()) if kind is dict else one)]
        elif kind not in PLAIN and kind is not bool:
            return False
    return True


def _inside(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # still empty
        return None


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _is_settled(cls: type) -> bool:
    module: object = cls.__module__
    return not isinstance(module, str) or is_settled(module)
