"""What an object holds in memory: the storages of its tensors and arrays, each once, and where they are."""

from __future__ import annotations

import gc
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import Context
from functools import partial
from inspect import CO_OPTIMIZED
from types import (
    BuiltinFunctionType,
    CodeType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    TracebackType,
)
from typing import Any, TypeAlias

__all__ = [
    "Storages",
    "arrays_in",
    "is_others",
    "module_named",
    "module_of",
    "of_arrays",
    "of_tensors",
    "owner_of",
    "reached",
    "storages_of",
    "tensor_of",
    "tensors_in",
    "total",
    "variables_of",
]

#: bytes by device and address: what two objects share has one entry, whoever is asked
Storages: TypeAlias = dict[tuple[str, int], int]

_MOST_PARTS = 1_000_000
_PIECE = 256  # parts between two pauses: a millisecond or two
_LISTED = 16 * _PIECE  # the same where they are only listed, and not looked into yet
_NONE: Mapping[str, object] = MappingProxyType({})
_ALONE = 3  # references to a frame's variables: the frame's, who looks at them, and who counts
#: what stands in a class, whatever its metaclass makes of the question
_MODULE, _MRO, _DICT = (type.__dict__[name] for name in ("__module__", "__mro__", "__dict__"))
#: asked as what they are: a class made from one may read a file for each, and other mappings hold attributes
_LISTS: tuple[Any, ...] = (list, tuple, set, frozenset, deque)
_LEAVES = (str, bytes, bytearray, int, float, complex, bool, type(None), range, slice)
_APART = (type, ModuleType, CodeType, FrameType, BuiltinFunctionType)
_NEVER = (*_LEAVES, *_APART)  # holds nothing, or not its own
#: what these hold is other services': a handle among a model's attributes does not make theirs its own
_OTHERS = (
    *("grym_nb.services.", "grym_nb.runtime", "threading", "logging", "asyncio.", "concurrent.futures."),
    *("IPython.", "ipykernel.", "traitlets.", "zmq.", "tornado."),
)


def storages_of(
    *roots: object, pause: Callable[[], object] | None = None, most: int = _MOST_PARTS
) -> Storages:
    """Return the storages of all tensors and arrays that can be reached from these objects.

    Looked for in attributes, containers, closures and partials. Arrays that are files (`numpy.memmap`) hold
    nothing, nor does what is on torch's "meta" device. `pause` is called every few hundred parts: it may let
    others go on, and what it raises ends the walk. No more than `most` parts are looked at, the nearest.
    """
    found: Storages = {}
    for part in _parts(roots, pause, most):
        if _is_tensor(part):
            found |= _of_tensor(part)
        elif _is_array(part):
            if (owner := owner_of(part)) is not None:
                found["cpu", owner.__array_interface__["data"][0]] = owner.nbytes
            elif (tensor := tensor_of(part)) is not None:
                found |= _of_tensor(tensor)
    return found


def tensors_in(*roots: object) -> list[Any]:
    """Return the tensors that can be reached from these objects, each once."""
    return [part for part in _parts(roots) if _is_tensor(part)]


def arrays_in(*roots: object) -> list[Any]:
    """Return the NumPy arrays that can be reached from these objects, each once."""
    return [part for part in _parts(roots) if _is_array(part)]


def reached(roots: Iterable[object], wanted: Iterable[object]) -> set[int]:
    """Return which of some objects can be reached from others, by their ids."""
    sought = {id(one) for one in wanted}
    return {id(part) for part in _parts(roots) if id(part) in sought} if sought else set()


def is_others(part: object) -> bool:
    """Tell whether what hangs on an object is not its holder's: a handle's is its service's."""
    return module_of(part).startswith(_OTHERS)


def module_of(part: object) -> str:
    """Return the module of an object's class, without asking that: its metaclass may raise."""
    return module_named(type(part))


def module_named(kind: type) -> str:
    """Return the name of the module in which a class was made; nothing where it has none."""
    try:
        found = _MODULE.__get__(kind)
    except AttributeError:  # deleted
        return ""
    return found if type(found) is str else ""


def variables_of(frame: FrameType | None, called: Mapping[str, object] = _NONE) -> dict[str, object]:
    """Return what a function that runs, waits or has failed has in its variables, by name.

    Of a cell or a module nothing: its variables are the notebook's own. The frame is left as it was. Of a
    function in another thread `called` are the variables of the one that runs on top of it.
    """
    if frame is None or (space := frame.f_locals) is frame.f_globals:
        return {}
    found: dict[str, object] = {}
    for _ in range(3):  # another thread may change it meanwhile
        try:
            found = dict(space)
            break
        except RuntimeError:
            continue
        except Exception:  # a class body's own mapping
            break
    # Before Python 3.13 a frame keeps the copy that it was asked for, and so what the function lets go of
    # later. It stays where somebody has it from `locals()`, or a tracer writes it back into the variables.
    copied = sys.version_info < (3, 13) and frame.f_code.co_flags & CO_OPTIMIZED
    traced = _is_traced(frame) or _is_given(frame, called)
    if copied and not traced and sys.getrefcount(space) == _ALONE:
        code = frame.f_code
        for name in (*code.co_varnames, *code.co_cellvars, *code.co_freevars):
            space.pop(name, None)  # and not what `exec` has put there, which is nowhere else
    return found


def _is_traced(frame: FrameType) -> bool:
    asked = (sys.gettrace, sys.getprofile, threading.gettrace, threading.getprofile)
    return frame.f_trace is not None or any(ask() is not None for ask in asked)


def _is_given(frame: FrameType, called: Mapping[str, object]) -> bool:
    """Tell whether a frame is among what the function on top of it has, as a tracer has it.

    Another thread may have a tracer, or a profiler, of its own, and nobody else can ask for that.
    """
    given = [one for part in called.values() for one in (part if type(part) is tuple else (part,))]
    return any(one is frame for one in given)


def total(storages: Storages) -> dict[str, int]:
    """Return how many bytes there are on each device."""
    sums: dict[str, int] = {}
    for (device, _), size in storages.items():
        sums[device] = sums.get(device, 0) + size
    return sums


# -- the walk --------------------------------------------------------------------------------------


def _parts(
    roots: Iterable[object], pause: Callable[[], object] | None = None, most: int = _MOST_PARTS
) -> Iterator[object]:
    """Yield what can be reached from the roots, each part once; of a huge graph the nearest."""
    waiting = [root for root in roots if not _is(root, _NEVER)]
    own = {id(root) for root in waiting}
    seen: dict[int, object] = {}  # kept, so that no other object gets the same id meanwhile
    at = 0
    within = _within if pause is None else partial(_in_pieces, pause)
    while at < len(waiting) and at < most:
        part = waiting[at]
        at += 1
        if pause is not None and at % _PIECE == 0:
            pause()
        if id(part) in seen:
            continue
        seen[id(part)] = part
        if is_others(part) and id(part) not in own:
            continue
        yield part
        waiting += [one for one in within(part) if not _is(one, _NEVER)]


def _in_pieces(pause: Callable[[], object], part: object) -> Iterator[object]:
    """Yield what is in a part, with pauses: it may be a list of millions."""
    for at, one in enumerate(_within(part), 1):
        if at % _LISTED == 0:
            pause()
        yield one


def _is(part: object, kinds: type | tuple[type, ...]) -> bool:
    """Tell of what kind a part is, by its type: a stranger may raise when it is asked for its class."""
    return issubclass(type(part), kinds)


def _within(part: Any) -> Iterator[object]:
    if module_of(part).startswith("numpy.lib"):
        return  # a file of arrays: to look into it is to read it
    if _is(part, dict):
        yield from _copied(lambda: dict.values(part))
    elif _is(part, MappingProxyType):
        yield from _copied(part.values)
    elif (kind := next((kind for kind in _LISTS if _is(part, kind)), None)) is not None:
        yield from _copied(lambda: kind.__iter__(part))
    elif _is(part, MethodType):
        yield part.__self__
        yield part.__func__
    elif _is(part, FunctionType):
        yield from _cells(part)
        return
    elif _is(part, partial):
        yield from (part.func, part.args, part.keywords)
    elif _is(part, BaseException):
        yield from _of_error(part)
    elif _is(part, TracebackType):
        yield from variables_of(part.tb_frame).values()
        yield part.tb_next
    elif _is(part, (GeneratorType, CoroutineType)):
        frame = part.gi_frame if _is(part, GeneratorType) else part.cr_frame
        yield from variables_of(frame).values()
    elif module_of(part) == "_asyncio" and _is_done(part):
        for one in gc.get_referents(part):
            if _is(one, BaseException):
                yield from _of_error(one)  # asyncio's own, too
            elif not _is(one, Context):
                yield one
    if _is_tensor(part):
        yield from _of_wrapper(part)
    yield from _attributes(part)


def _is_done(part: Any) -> bool:
    """Tell whether something of asyncio's is a task, or a future, that has come to its end."""
    done = getattr(part, "done", None)
    return done is not None and done() is True


def _of_error(error: Any) -> Iterator[object]:
    yield from (error.args, error.__traceback__, error.__cause__, error.__context__)


def _copied(values: Callable[[], Iterable[object]]) -> list[object]:
    for _ in range(3):  # another thread may change it meanwhile
        try:
            return list(values())
        except RuntimeError:
            continue
        except Exception:  # a stranger's mapping
            return []
    return []


def _cells(function: FunctionType) -> Iterator[object]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # empty
            continue
    yield from function.__defaults__ or ()


def _attributes(part: Any) -> Iterator[object]:
    """Yield the values of attributes, without asking a property for anything."""
    try:
        own = object.__getattribute__(part, "__dict__")
    except Exception:  # there is none, or it is a stranger's property
        own = None
    if type(own) is dict:
        yield from _copied(own.values)
    for base in _MRO.__get__(type(part)):
        kept = _DICT.__get__(base)
        # Not by the names in `__slots__`: private ones stand there under another.
        for member in list(kept.values()) if "__slots__" in kept else ():
            if type(member) is MemberDescriptorType:
                try:
                    yield member.__get__(part)
                except (AttributeError, TypeError):  # never set, or a slot of another class
                    continue


# -- tensors and arrays ----------------------------------------------------------------------------


def _is_tensor(part: object) -> bool:
    return of_tensors(type(part))


def of_tensors(kind: type) -> bool:
    """Tell whether a class is that of torch's tensors, or made from it."""
    torch: Any = sys.modules.get("torch")
    return torch is not None and issubclass(kind, getattr(torch, "Tensor", ()))


def _is_array(part: object) -> bool:
    return of_arrays(type(part))


def of_arrays(kind: type) -> bool:
    """Tell whether a class is that of NumPy's arrays, or made from it."""
    numpy: Any = sys.modules.get("numpy")
    return numpy is not None and issubclass(kind, getattr(numpy, "ndarray", ()))


def _of_tensor(tensor: Any) -> Storages:
    try:
        storage = tensor.untyped_storage()
        device, address, size = _named(storage.device), storage.data_ptr(), storage.nbytes()
    except (NotImplementedError, RuntimeError, AttributeError):  # sparse, or a wrapper: its parts count
        return {}
    return {} if device == "meta" or not address else {(device, address): size}


def _of_wrapper(tensor: Any) -> Iterator[object]:
    """Yield the tensors of which a tensor consists, and its gradient."""
    names: Iterable[str] = ()
    try:
        if hasattr(tensor, "__tensor_flatten__"):
            names = tensor.__tensor_flatten__()[0]
        elif tensor.is_sparse:
            yield from (tensor._indices(), tensor._values())
        if tensor.is_leaf and tensor.grad is not None:
            yield tensor.grad
    except Exception:  # another library's kind of tensor: what it says of itself does not hold
        return
    yield from (getattr(tensor, name, None) for name in names)


def _named(device: Any) -> str:
    """Return torch's device by the name it has in tables."""
    return device.type if device.type in ("cpu", "mps", "meta") else str(device)


def owner_of(array: Any) -> Any:
    """Return the array whose memory this one looks at; None where that is a file's, or torch's."""
    numpy: Any = sys.modules["numpy"]
    while True:
        if isinstance(array, numpy.memmap):
            return None
        if not isinstance(array.base, numpy.ndarray):
            return array if array.base is None or isinstance(array.base, (bytes, bytearray)) else None
        array = array.base


def tensor_of(array: Any) -> Any:
    """Return the tensor whose memory an array looks at (``tensor.numpy()``); None where there is none."""
    numpy: Any = sys.modules["numpy"]
    while isinstance(array, numpy.ndarray):
        array = array.base
    return array if _is_tensor(array) else None
