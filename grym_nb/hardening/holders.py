"""Who still holds what was let go of: told by name, and let go of where it is not the user's.

A notebook keeps results in `Out`, and after an error every frame below it, with its variables: in three
places. What none of the known holders explains is followed upwards, from the object to who refers to it.
"""

from __future__ import annotations

import functools
import gc
import os
import sys
import threading
from collections.abc import Callable, Container, Iterable, Iterator
from contextvars import Context
from dataclasses import dataclass, replace
from itertools import compress
from operator import not_
from types import FrameType, ModuleType
from typing import Any

from grym_nb.hardening.remains import Remains
from grym_nb.hardening.storages import (
    Storages,
    is_others,
    module_named,
    module_of,
    of_arrays,
    of_tensors,
    owner_of,
    storages_of,
    variables_of,
)

__all__ = ["Holder", "Root", "holders_of", "notebook_roots", "raise_the_budget", "survey", "way"]

_MOST_NAMES = 3
_MOST_AT_A_ROOT = 50_000  # parts, in half a second: a variable may be a list of millions
_PIECE = 4096  # objects that are asked at once for what they refer to
_MOST_STEPS = 12  # upwards, from what is held to a name that somebody knows
#: what runs in these is no user's: the standard library, and ourselves
_LIBRARIES = (os.path.dirname(os.__file__), os.path.dirname(os.path.dirname(__file__)), "<frozen")
#: to go further up from these would lead to everything there is
_APART = (FrameType, ModuleType, type)
#: what is reached through these is not the variable's: services', or the context's
_OURS = ("grym_nb.context.store", "grym_nb.runtime", "grym_nb.services.handle", "grym_nb.services.registry")
_HIDDEN = ("_oh", "Out", "_", "__", "___", "_ih", "In", "_dh", "get_ipython", "exit", "quit", "open")


@dataclass(frozen=True, slots=True)
class Root:
    """A place that may hold something: its name, what hangs there, and how to let go of it."""

    name: str
    values: tuple[object, ...]
    free: Callable[[], object] | None  # None: it is the user's own
    hint: str = ""
    owner: str = ""  # whose it is that hangs there, where that is told also if nothing else is left of it


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds which bytes; `free` lets go of them, where that is not the user's to do."""

    name: str
    storages: Storages
    free: Callable[[], object] | None
    hint: str = ""

    @property
    def size(self) -> int:
        """How many bytes."""
        return sum(self.storages.values())

    def __str__(self) -> str:
        return self.name


def survey(roots: Iterable[Root]) -> list[tuple[Root, Storages]]:
    """Return what hangs at each root: looked up once, whoever is asked for afterwards.

    Of a huge one only the nearest: what lies deeper is found from below.
    """
    return [(root, storages_of(*root.values, most=_MOST_AT_A_ROOT)) for root in roots]


def holders_of(
    remains: Remains, roots: list[tuple[Root, Storages]], apart: Container[tuple[str, int]] = ()
) -> list[Holder]:
    """Return who holds what is left: the roots from which it can be reached, else what refers to it.

    What is in `apart` is left out: somebody has it by right again.
    """
    wanted = {key: size for key, size in remains.alive().items() if key not in apart}
    found: list[Holder] = []
    explained: set[tuple[str, int]] = set()
    for root, storages in roots:
        there = storages.keys() & wanted.keys()
        if there:
            explained |= there
            found.append(Holder(root.name, {key: wanted[key] for key in there}, root.free, root.hint))
    left = {key: wanted[key] for key in wanted.keys() - explained}
    return [*found, *_upwards(left, remains)]


# -- where a notebook holds things -----------------------------------------------------------------


def notebook_roots() -> list[Root]:
    """Return the places of this process, of its notebook or its script, that hold things by themselves."""
    roots = [_last_error()]
    shell = _shell()
    if shell is not None:
        roots += [*_errors_of(shell), *_outputs(shell), *_variables(shell.user_ns)]
    else:
        roots += [*_variables(vars(sys.modules["__main__"])), *_functions()]
    return [*roots, *_threads()]


def way(magic: str, plain: str) -> str:
    """Return what to type here: the magic where there is one, else what does the same in a script."""
    magics = getattr(getattr(_shell(), "magics_manager", None), "magics", {})
    return magic if "grym" in magics.get("line", ()) else plain


def raise_the_budget() -> str:
    """Return what to do where a budget is too small."""
    return f"raise the budget ({way('%grym mem --budget', 'grym.current().resources.budget(...)')})"


def _shell() -> Any:
    module = sys.modules.get("IPython.core.interactiveshell")
    return None if module is None else getattr(module.InteractiveShell, "_instance", None)


def _last_error() -> Root:
    names = ("last_exc", "last_value", "last_traceback", "last_type")
    values = tuple(getattr(sys, name, None) for name in names)

    def free() -> None:
        for name in names:
            if hasattr(sys, name):
                delattr(sys, name)

    return Root("the last traceback (sys.last_traceback)", values, free)


def _errors_of(shell: Any) -> Iterator[Root]:
    for name in ("InteractiveTB", "SyntaxTB"):
        shown = getattr(shell, name, None)
        if shown is not None:
            kept = ("tb", "evalue", "etype", "last_syntax_error")
            values = tuple(getattr(shown, attribute, None) for attribute in kept)

            def free(shown: Any = shown, kept: tuple[str, ...] = kept) -> None:
                for attribute in kept:
                    if getattr(shown, attribute, None) is not None:
                        setattr(shown, attribute, None)

            yield Root(f"IPython's last traceback ({name})", values, free)
    result = getattr(shell, "last_execution_result", None)
    if result is not None:
        values = tuple(
            getattr(result, name, None) for name in ("result", "error_in_exec", "error_before_exec")
        )

        def forget() -> None:
            shell.last_execution_result = None

        yield Root("IPython's last result (last_execution_result)", values, forget)


def _outputs(shell: Any) -> Iterator[Root]:
    space = shell.user_ns
    for number, value in list(space.get("_oh", {}).items()):

        def free(number: Any = number, value: object = value) -> None:
            space.get("_oh", {}).pop(number, None)
            hidden = getattr(shell, "user_ns_hidden", {})  # where IPython notes what it has put there
            for names in (space, hidden):
                for name in (f"_{number}", "_", "__", "___"):
                    if names.get(name) is value:
                        del names[name]
            hook = shell.displayhook
            for name in ("_", "__", "___"):
                if getattr(hook, name, None) is value:
                    setattr(hook, name, None)

        yield Root(f"Out[{number}]", (value,), free)


def _variables(space: dict[str, Any]) -> Iterator[Root]:
    for name, value in list(space.items()):
        if _is_output(name):
            continue
        if not issubclass(type(value), ModuleType) and not module_of(value).startswith(_OURS):
            yield Root(f"the variable {name}", (value,), None, f"del {name}")


def _is_output(name: str) -> bool:
    """Tell whether a variable is IPython's own, which has what cells were and what came of them."""
    return name in _HIDDEN or (name.startswith("_") and name.lstrip("_i").isdigit())


def _functions() -> Iterator[Root]:
    """Yield the variables of a script's functions that wait for this one to return; not of a library's."""
    for frame in _stack(sys._getframe()):
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        library = file.startswith(_LIBRARIES) or "-packages" in file  # site- or dist-
        if not library:
            for variable, value in variables_of(frame).items():
                if not issubclass(type(value), ModuleType) and not module_of(value).startswith(_OURS):
                    yield Root(f"the variable {variable} in {name}()", (value,), None, f"del {variable}")


def _threads() -> Iterator[Root]:
    """Yield what the functions that run now hold, by thread; not this one's."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()
    frames.pop(threading.get_ident(), None)  # a frame that has itself stays, with all that called it
    for ident, frame in frames.items():
        held = tuple(value for value in _locals(frame) if not is_others(value))
        name = f"what runs in thread {names.get(ident, ident)}, in {frame.f_code.co_qualname}"
        yield Root(name, held, None, "end what runs in that thread")


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _locals(innermost: FrameType) -> Iterator[object]:
    """Yield what all functions of another thread have in their variables."""
    called: dict[str, object] = {}
    for frame in _stack(innermost):
        called = variables_of(frame, called)
        yield from called.values()


# -- from below ------------------------------------------------------------------------------------


def _upwards(wanted: Storages, remains: Remains) -> list[Holder]:
    """Follow what no known place explains from the tensors themselves up to a name."""
    if not wanted:
        return []
    there = gc.get_objects()
    tracked = _of_types(there, of_tensors)
    tasks = _of_types(there, lambda kind: module_named(kind) == "_asyncio")
    arrays = _with_views(remains.arrays(), there)
    del there
    holding = [one for one in (*tracked, *arrays) if storages_of(one).keys() & wanted.keys()]
    del tracked, arrays
    names: dict[str, Root] = {}
    at: list[Any] = holding
    seen = {id(one) for one in (at, tasks, sys.modules, *at)}
    before: set[int] = set()
    for _ in range(_MOST_STEPS):
        here = {id(one) for one in at}
        above = [*gc.get_referrers(*at), *(one for one in tasks if _refers(one, here))]
        above = [one for one in above if id(one) not in seen and not is_others(one)]
        seen |= {id(above), *map(id, above)}
        named = {id(one): found for one in above if (found := _name_of(one, here, before, seen)) is not None}
        names |= {root.name: root for root in named.values()}
        at = [one for one in above if id(one) not in named and not issubclass(type(one), _APART)]
        before = here
        if not at or len(names) >= _MOST_NAMES:
            break
    if names:
        root = _as_one([*names.values()])
        return [Holder(root.name, wanted, root.free, root.hint)]
    nobody = f"{type(holding[0]).__name__} objects" if holding else "memory that nothing in Python refers to"
    return [Holder(nobody, wanted, None, "no name leads there: a library has it, or a function that runs")]


def _with_views(arrays: list[Any], there: list[Any]) -> list[Any]:
    """Return arrays, and what has their memory that the collector knows nothing of, among what is `there`.

    It knows of no array that looks at another, and of no dict or tuple that has nothing but such.
    """
    own = {id(array) for array in arrays}
    if not own:
        return arrays
    found = {id(array): array for array in arrays}
    # Not of modules: what they have is in a dict beside them, and asyncio's hands out objects that are dead,
    # for which Python 3.12 hangs in the next look.
    asked = _of_types(there, lambda kind: not issubclass(kind, ModuleType))
    for parts in _referents(asked):
        plain = _of_types(parts, lambda kind: kind is dict or kind is tuple)
        unknown = [*compress(plain, map(not_, map(gc.is_tracked, plain)))]
        for part in (*_looking_at(own, parts), *_holding(own, unknown)):
            found[id(part)] = part
    return [*found.values()]


def _looking_at(own: set[int], parts: list[Any]) -> list[Any]:
    return [one for one in _of_types(parts, of_arrays) if id(owner_of(one)) in own]


def _holding(own: set[int], parts: list[Any]) -> list[Any]:
    if not _looking_at(own, gc.get_referents(*parts)):
        return []
    return [one for one in parts if _looking_at(own, gc.get_referents(one))]


def _referents(objects: list[Any]) -> Iterator[list[Any]]:
    for at in range(0, len(objects), _PIECE):
        yield gc.get_referents(*objects[at : at + _PIECE])


def _of_types(objects: list[Any], fits: Callable[[type], bool]) -> list[Any]:
    """Return those of a type that fits: of millions of objects each type is asked about once."""
    ids = [*map(id, map(type, objects))]  # a stranger's metaclass may not let it be in a set
    kinds = {key for key, kind in dict(zip(ids, map(type, objects), strict=True)).items() if fits(kind)}
    return [*compress(objects, map(kinds.__contains__, ids))]


def _refers(task: object, here: set[int]) -> bool:
    """Tell whether a task has one of these: asked for who refers to its result, CPython leaves it out."""
    return any(id(one) in here for one in gc.get_referents(task))


def _name_of(one: object, here: set[int], before: set[int], seen: set[int]) -> Root | None:
    """Return by what name whoever reads the report knows an object, and what lets go of it there.

    `here` are those that it refers to, `before` what these hold; `seen` is all on the way up.
    """
    if type(one) is dict and "__spec__" in one and isinstance(one.get("__name__"), str):
        return _of_module(one, here, seen)
    if issubclass(type(one), type):
        return _of_class(one, before, seen)
    return _of_context(one, seen) if type(one) is Context else None


def _of_module(space: dict[str, Any], here: set[int], seen: set[int]) -> Root:
    # One name for each object: none that is private, if it has another.
    found: dict[int, tuple[str, Any]] = {}
    for name, value in list(space.items()):
        if id(value) in here and found.get(id(value), ("_",))[0].startswith("_"):
            found[id(value)] = name, value
    if not found:
        return Root(f"the module {space['__name__']}", (), None, f"del sys.modules[{space['__name__']!r}]")
    return _as_one([_of_name(space["__name__"], name, value, seen) for name, value in found.values()])


def _of_name(module: str, name: str, value: object, seen: set[int]) -> Root:
    outputs = _outputs(_shell()) if _is_output(name) and _shell() is not None else ()
    for output in outputs:
        if output.values[0] is value:
            return replace(output, values=())
    path = f"{module}.{name}".removeprefix("__main__.")
    told = path if "." in path else f"the variable {path}"
    return Root(told, (), None, _undo(path, value, seen))


def _as_one(roots: list[Root]) -> Root:
    """Return several places as one, since more than one may have to let go; not all, where they are many."""
    told = roots[:_MOST_NAMES]
    frees = [root.free for root in told if root.free is not None]
    names, hints = [root.name for root in told], [root.hint for root in told if root.hint]
    free = (lambda: [let_go() for let_go in frees]) if frees else None
    more = f", and {len(roots) - len(told)} more" if len(roots) > len(told) else ""
    return Root(f"{', '.join(names)}{more}", (), free, "; ".join(hints))


def _of_class(made: Any, before: set[int], seen: set[int]) -> Root | None:
    """Return the attribute of a class; None where it is only the class of what holds it, or a parent."""
    own = type.__dict__["__dict__"].__get__(made)  # a metaclass may answer something else
    found = {name: value for name, value in list(own.items()) if id(value) in before}
    if not found:
        return None
    attribute, value = next(iter(found.items()))
    path = f"{made.__module__}.{made.__qualname__}.{attribute}".removeprefix("__main__.")
    if _reached(made.__module__, made.__qualname__) is made:
        return Root(path, (), None, _undo(path, value, seen))
    return Root(path, (), None, f"del {attribute} of the class, where that is made")


def _reached(module: str, path: str) -> object:
    """Return what a name leads to; None where it leads nowhere, as into a function."""
    at: object = sys.modules.get(module)
    for name in path.split("."):
        at = getattr(at, "__dict__", {}).get(name)
    return at


def _of_context(context: Any, seen: set[int]) -> Root:
    """Return the context variable by which it is held: whoever runs in that context is not to blame."""
    found = [variable for variable, value in context.items() if id(value) in seen]
    if not found:
        return Root("a context of contextvars", (), None, "let go of the context")
    spaces = [one for one in gc.get_referrers(found[0]) if type(one) is dict and "__spec__" in one]
    paths = [_of_module(space, {id(found[0])}, seen) for space in spaces]
    where = paths[0].hint.removeprefix("del ") if paths else ""
    name = f"the context variable {found[0].name!r}"
    # With a semicolon: what `set` returns has the old value, and would be an output.
    if where:
        return Root(f"{name} ({where})", (), None, f"{where}.set(None);")
    return Root(name, (), None, "set it to None")


def _undo(path: str, value: Any, seen: set[int]) -> str:
    """Return what to type, so that what is found under a name is held there no more."""
    tasks = sys.modules.get("asyncio")
    if type(value) is functools._lru_cache_wrapper:
        return f"{path}.cache_clear()"
    if tasks is not None and issubclass(type(value), tasks.Task) and not value.done():
        return f"{path}.cancel(); del {path}"
    if type(value) is threading.local:
        held = [name for name, part in vars(value).items() if id(part) in seen]
        return f"del {path}.{held[0]}" if held else f"del {path}"  # another thread's
    return f"del {path}"
