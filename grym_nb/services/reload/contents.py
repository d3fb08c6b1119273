"""What stands in an object, read past whatever its class says of it, and how another one like it is made.

Nothing of a stranger's is run: attributes come from `__dict__` and slots, items from the built-in class.
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from enum import Enum
from functools import partial
from types import (
    AsyncGeneratorType,
    BuiltinFunctionType,
    CellType,
    CodeType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    SimpleNamespace,
    TracebackType,
)
from typing import Any

from grym_nb.hardening.storages import module_named, of_arrays, of_tensors
from grym_nb.services.content import is_settled

__all__ = ["MISSING", "Kind", "Kinds", "called", "class_dict", "labelled", "mro_of", "place_of", "slot_value"]

MISSING: Any = object()
_MRO, _DICT, _NAME, _FLAGS = (
    type.__dict__[name] for name in ("__mro__", "__dict__", "__name__", "__flags__")
)
_HEAP = 1 << 9  # of a class's flags: it was made by a statement, or at least not in C alone
_CONTAINERS: tuple[Any, ...] = (OrderedDict, defaultdict, dict, list, tuple, set, frozenset, deque)
_VALUES: tuple[Any, ...] = (str, bytes, int, float, complex)
_NOTHING_IN = (ModuleType, CodeType, FrameType, TracebackType)
_EMPTY: tuple[Any, ...] = ([], (), set(), {}, deque())
_VIEWS: tuple[Any, ...] = (_EMPTY[3].keys(), _EMPTY[3].values(), _EMPTY[3].items())
_SORTS = (
    *((type, "class"), (Enum, "member"), (FunctionType, "function"), (MethodType, "method")),
    *((BuiltinFunctionType, "builtin"), (MethodWrapperType, "wrapper"), (CellType, "cell")),
    *((weakref.ReferenceType, "ref"), (MappingProxyType, "view"), (partial, "partial")),
    *((weakref.ProxyType, "proxy"), (weakref.CallableProxyType, "proxy"), (BaseException, "error")),
    *((GeneratorType, "gi"), (CoroutineType, "cr"), (AsyncGeneratorType, "ag")),
    *((kind, "iterator") for kind in (map, filter, zip, enumerate, reversed)),
    *((type(iter(one)), "iterator") for one in (*_EMPTY, *_VIEWS)),
    *((type(one), "iterator") for one in _VIEWS),
)
#: what others wait at, or what would be done twice: two of these are not one
_SINGLE = (
    *("threading", "_thread", "queue", "multiprocessing", "concurrent", "asyncio", "sched", "socket"),
    *("subprocess", "selectors", "weakref", "_weakrefset", "traitlets", "ipywidgets"),
)
_SINGLE_NAMES = ("ExitStack", "AsyncExitStack", "_GeneratorContextManager", "_AsyncGeneratorContextManager")
#: what hangs on these is not the model's: a handle's is its service's
_OTHERS = (
    *("grym_nb.services.", "grym_nb.runtime", "logging", "asyncio.", "_asyncio"),
    *("IPython.", "ipykernel.", "traitlets.", "zmq.", "tornado."),
)
#: what a module of torch writes into besides what every one of them has
_WRITTEN = ("_flat_weights", "_keys")


def mro_of(cls: type) -> tuple[type, ...]:
    """Return the classes of which a class is made, itself first, without asking its metaclass."""
    found: tuple[type, ...] = _MRO.__get__(cls)
    return found


def class_dict(cls: type) -> dict[str, Any]:
    """Return what stands in a class itself, as it is now."""
    return dict(_DICT.__get__(cls))


def called(cls: type) -> str:
    """Return the name of a class."""
    name: str = _NAME.__get__(cls)
    return name


def place_of(function: Any, mro: tuple[type, ...]) -> tuple[int, str] | None:
    """Return which of these classes has a function, and under which name."""
    asked = function
    if type(function) is FunctionType:  # made anew each time that it is asked for
        asked = function.__dict__.get("__partialmethod__", function)
    for at, cls in enumerate(mro):
        for name, value in class_dict(cls).items():
            inner = value.__func__ if type(value) in (classmethod, staticmethod) else value
            if value is asked or inner is function:
                return at, name
    return None


class Kind:
    """What is known of a class: of what `sort` its instances are, what stands in them, what comes instead.

    `base` is the built-in class below, `holder` has the `__dict__` of an instance, `slots` the rest.
    `stale` is a class of which it is made and that has a newer one, while it has none itself. Instances of a
    `leaf` hold nothing.
    """

    __slots__ = ("base", "cls", "holder", "instead", "leaf", "own", "slots", "sort", "stale", "within")

    def __init__(self, cls: type, sort: str, base: Any, instead: Any, stale: type | None) -> None:
        self.cls, self.sort, self.base, self.instead, self.stale = cls, sort, base, instead, stale
        self.holder: Any = None
        self.slots: dict[str, Any] = {}
        self.own: tuple[str, ...] = ()  # attributes that no two instances may share
        self.leaf = False
        self.within: Callable[[Any], list[Any]] = _nothing

    def blank(self) -> Any:
        """Return an instance with nothing in it yet; None where the class has to be asked for one."""
        if self.sort == "object":
            return self.base.__new__(self.cls)
        if self.sort == "items" and self.base not in (tuple, frozenset):
            return self.base.__new__(self.cls)
        return None

    def variables(self, part: Any) -> dict[str, Any] | None:
        """Return the `__dict__` of an instance, where it has one that is a dict."""
        found = None if self.holder is None else self.holder.__get__(part)
        return found if issubclass(type(found), dict) else None

    @property
    def copied(self) -> bool:
        """Whether another instance can be made from what stands in one."""
        return self.sort in ("object", "items", "value", "partial", "view")


class Kinds:
    """The kinds of the classes seen so far; `newer` tells what takes the place of a class or function."""

    def __init__(self, newer: Callable[[Any], Any]) -> None:
        self._asked = newer
        self._newer: dict[int, tuple[type, Any]] = {}  # with the class, so that its id stays its own
        self.known: dict[int, Kind] = {}
        for cls in (*_VALUES, bool, type(None)):
            self.of(cls)

    def of(self, cls: type) -> Kind:
        """Return the kind of a class."""
        found = self.known.get(id(cls))
        if found is None:
            found = self.known[id(cls)] = self._found(cls)
        return found

    def newer(self, made: Any) -> Any:
        """Return what takes the place of a class or function, or None."""
        if id(made) in self._newer:
            return self._newer[id(made)][1]
        try:
            found = self._asked(made)
        except Exception:  # a metaclass that does not let its classes be compared or looked up
            found = None
        if found is made:  # asked by name, it is its own
            found = None
        self._newer[id(made)] = made, found
        return found

    def _found(self, cls: type) -> Kind:
        mro = mro_of(cls)
        instead = self.newer(cls)
        stale = None
        if instead is None:
            stale = next((base for base in mro[1:-1] if self.newer(base) is not None), None)
        sort, base = _sort_of(cls, mro)
        kind = Kind(cls, sort, base, instead, stale)
        if sort in ("object", "items", "partial", "single", "C", "function", "error", "value"):
            kind.holder = _holder_of(mro)
            kind.slots = _slots_of(mro)
        if _is_module(mro):
            kind.own = _own_names()
        kind.within = _within_of(kind)
        kind.leaf = instead is None and stale is None and _is_leaf(kind)
        return kind


def _sort_of(cls: type, mro: tuple[type, ...]) -> tuple[str, Any]:
    ids = {id(base) for base in mro}
    if any(id(kind) in ids for kind in _NOTHING_IN):
        return "none", None
    for base, sort in _SORTS:
        if id(base) in ids:
            return sort, base
    if any(_is_single(base) for base in mro) or module_named(cls).startswith("grym_nb."):
        return "single", None
    for base in _CONTAINERS:
        if id(base) in ids:
            return "items", base
    for base in _VALUES:
        if id(base) in ids:
            return "value", base
    if of_tensors(cls):
        return "tensor", None
    if of_arrays(cls):
        return "array", None
    solid = _solid(mro)
    return ("object", solid) if solid in (object, SimpleNamespace) else ("C", None)


def _solid(mro: tuple[type, ...]) -> Any:
    """Return the class that lays out the memory: one with a `__new__` in C."""
    for base in mro:
        if (
            not _FLAGS.__get__(base) & _HEAP
            or type(_DICT.__get__(base).get("__new__")) is BuiltinFunctionType
        ):
            return base
    return object  # pragma: no cover - it is the last of each


def _is_single(base: type) -> bool:
    module = module_named(base)
    if module == "contextlib":
        return called(base) in _SINGLE_NAMES
    return module.partition(".")[0] in _SINGLE


def _holder_of(mro: tuple[type, ...]) -> Any:
    for base in mro:
        found = _DICT.__get__(base).get("__dict__")
        if found is not None:  # not a property: that is a stranger's
            plain = type(found) in (GetSetDescriptorType, MemberDescriptorType)
            return found if plain else None
    return None


def _slots_of(mro: tuple[type, ...]) -> dict[str, Any]:
    """Return the members by name: what a class says of its own slots has private ones under another."""
    slots: dict[str, Any] = {}
    for base in reversed(mro):
        kept = _DICT.__get__(base)
        if "__slots__" in kept:
            members = {name: value for name, value in kept.items() if type(value) is MemberDescriptorType}
            slots.update(members)
    return slots


def _is_module(mro: tuple[type, ...]) -> bool:
    torch: Any = sys.modules.get("torch")
    module = getattr(getattr(torch, "nn", None), "Module", None)
    return module is not None and any(base is module for base in mro)


def _own_names() -> tuple[str, ...]:
    torch: Any = sys.modules["torch"]
    blank = vars(torch.nn.Module())
    return (*(name for name, value in blank.items() if isinstance(value, (dict, set))), *_WRITTEN)


def _is_leaf(kind: Kind) -> bool:
    if kind.sort in ("none", "member", "value", "error"):
        return True
    if kind.sort == "array":
        return False  # one of objects holds them
    module = module_named(kind.cls)
    if kind.sort in ("object", "single", "C") and module.startswith(_OTHERS):
        return True
    if kind.sort == "single":
        names = {called(base) for base in mro_of(kind.cls)}
        if module in ("threading", "_thread") and "Thread" not in names:
            return True  # locks and events
        return kind.holder is None and not kind.slots
    if kind.sort == "object" and kind.holder is None:
        return not kind.slots or is_settled(module)
    return kind.sort == "C" and kind.holder is None and module != "itertools"


# -- what is in a part -----------------------------------------------------------------------------


def _nothing(part: Any) -> list[Any]:
    return []


def _within_of(kind: Kind) -> Callable[[Any], list[Any]]:
    special = _WITHIN.get(kind.sort)
    if special is not None:
        return special
    slots, base = tuple(kind.slots.values()), kind.base
    variables = None if kind.holder is None else kind.holder.__get__
    if kind.sort == "object" and variables is not None and not slots:
        return lambda part: list(dict.values(variables(part)))
    items = _items_of(base) if kind.sort == "items" else None
    if items is not None and variables is None and not slots:
        return items
    if module_named(kind.cls) == "itertools":
        return gc.get_referents

    def all_of(part: Any) -> list[Any]:
        found = [] if items is None else items(part)
        if kind.sort == "partial":
            found += _of_partial(part)
        if variables is not None and issubclass(type(own := variables(part)), dict):
            found += dict.values(own)
        for member in slots:
            value = slot_value(member, part)
            if value is not MISSING:
                found.append(value)
        return found

    return all_of


def slot_value(member: Any, part: Any) -> Any:
    """Return what a slot has; MISSING where it was never set."""
    try:
        return member.__get__(part)
    except AttributeError:
        return MISSING


def _items_of(base: Any) -> Callable[[Any], list[Any]]:
    if base is defaultdict:
        factory = defaultdict.__dict__["default_factory"]
        return lambda part: [*dict.keys(part), *dict.values(part), factory.__get__(part)]
    if issubclass(base, dict):
        return lambda part: [*dict.keys(part), *dict.values(part)]
    return lambda part: list(base.__iter__(part))


def _of_partial(part: Any) -> list[Any]:
    return [partial.__dict__[name].__get__(part) for name in ("func", "args", "keywords")]


def _of_method(part: Any) -> list[Any]:
    whole, function = part.__self__, part.__func__
    cls = whole if issubclass(type(whole), type) else type(whole)
    return [whole] if place_of(function, mro_of(cls)) is not None else [whole, function]


def _of_built_in(part: Any) -> list[Any]:
    return [part.__self__]


def _of_view(part: Any) -> list[Any]:
    return gc.get_referents(part)  # the one mapping that it shows


def _of_cell(part: Any) -> list[Any]:
    try:
        return [part.cell_contents]
    except ValueError:  # still empty
        return []


def _of_function(part: Any) -> list[Any]:
    found = [value for cell in part.__closure__ or () for value in _of_cell(cell)]
    found += part.__defaults__ or ()
    found += dict.values(part.__kwdefaults__ or {})
    return [*found, *dict.values(part.__dict__)]


def _of_tensor(part: Any) -> list[Any]:
    torch: Any = sys.modules["torch"]
    if type(part) not in (torch.Tensor, torch.nn.Parameter):
        return []  # another library's: to ask it is to run its code
    hooks = [getattr(part, name, None) for name in ("_backward_hooks", "_post_accumulate_grad_hooks")]
    return [*(one for one in hooks if one), *dict.values(part.__dict__)]


def _of_array(part: Any) -> list[Any]:
    numpy: Any = sys.modules["numpy"]
    if type(part) is not numpy.ndarray or not part.dtype.hasobject or part.dtype.fields:
        return []
    return list(part.flat)


_WITHIN: dict[str, Callable[[Any], list[Any]]] = {
    **dict.fromkeys(("class", "none", "member", "ref", "proxy", "error", "value"), _nothing),
    **dict.fromkeys(("gi", "cr", "ag"), _nothing),
    **{"method": _of_method, "builtin": _of_built_in, "wrapper": _of_built_in},
    **{"view": _of_view, "cell": _of_cell, "function": _of_function, "iterator": gc.get_referents},
    **{"tensor": _of_tensor, "array": _of_array},
}


def labelled(kind: Kind, part: Any) -> Iterator[tuple[str, Any]]:
    """Yield what is in a part with how that is reached from it: ``.name``, ``[3]``."""
    if kind.sort == "items" and issubclass(kind.base, dict):
        for key, value in list(dict.items(part)):
            yield f"[{_plain(key)}]", value
            yield " (a key)", key
    elif kind.sort == "items":
        ordered = kind.base in (list, tuple, deque)
        for at, value in enumerate(list(kind.base.__iter__(part))):
            yield f"[{at}]" if ordered else "{...}", value
    elif kind.sort == "function":
        for name, cell in zip(part.__code__.co_freevars, part.__closure__ or (), strict=True):
            for value in _of_cell(cell):
                yield f" ({name})", value
    elif kind.sort == "partial":
        yield from zip((".func", ".args", ".keywords"), _of_partial(part), strict=True)
    elif kind.sort in ("method", "builtin", "wrapper"):
        yield ".__self__", part.__self__
    if (own := kind.variables(part)) is not None:
        for name, value in list(dict.items(own)):
            yield f".{_plain(name, bare=True)}", value
    for name, member in kind.slots.items():
        yield f".{name}", slot_value(member, part)


def _plain(key: Any, *, bare: bool = False) -> str:
    if type(key) is str:
        return key if bare else repr(key)
    return repr(key) if type(key) in (int, float, bool, bytes, type(None)) else "..."
