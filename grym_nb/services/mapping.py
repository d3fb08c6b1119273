"""One task over many inputs: in order, with progress, and with a file from which it goes on."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import IO, TYPE_CHECKING, Any

from grym_nb.errors import CallBlocked, GrymError, Interrupted, Problem, StorageError, ValidationError
from grym_nb.render import Table, brief, count
from grym_nb.services.call import Call
from grym_nb.services.content import code_of
from grym_nb.services.named import named_by
from grym_nb.services.progress import is_several, track

if TYPE_CHECKING:
    from grym_nb.services.handle import ServiceHandle
    from grym_nb.services.model import TaskSpec

__all__ = ["Mapped", "run_map"]

_Asked = tuple[int, str, Call | GrymError]

#: how each line of a result file begins
_BEGINS = '{"key": '


class Mapped(list[Any]):
    """The results of a `map`, in order; None where an item failed, and why in `failed`."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title
        #: index -> the error of that item
        self.failed: dict[int, GrymError] = {}
        #: how many results were read from the file instead of computed
        self.resumed = 0
        self._unfit = 0  # results in the file, where none of them was of use

    @property
    def line(self) -> str:
        """The outcome in one line."""
        told = [f"{len(self) - len(self.failed)} ok"]
        told += [f"{len(self.failed)} failed"] if self.failed else []
        told += [f"{self.resumed} from the file"] if self.resumed else []
        if self._unfit:
            told.append(f"none of the {self._unfit} in the file fits (other items, keywords, code or config)")
        return f"{self.title}: {', '.join(told)}"

    def _table(self) -> Table:
        shown = list(enumerate(self))[:20]
        rows = [(str(i), _why(self.failed[i]) if i in self.failed else brief(value)) for i, value in shown]
        if len(self) > len(shown):
            rows.append(("…", f"{len(self) - len(shown)} more"))
        return Table(self.line, ("item", "result"), rows)

    def __repr__(self) -> str:
        return self._table().text()

    def _repr_html_(self) -> str:
        return self._table().html()


def run_map(
    handle: ServiceHandle,
    task: str,
    items: Iterable[Any],
    *,
    save: Any,
    errors: str,
    kwargs: Mapping[str, Any],
) -> Mapped:
    """Return the results of `task` over `items`; see `ServiceHandle.map`."""
    __tracebackhide__ = True  # what the source of the items raises is the user's own
    spec = _checked(handle, task, items, errors, kwargs)
    mapped = Mapped(f"{handle.name}.{spec.method}")
    window = handle._record.spec.concurrency + 1  # one waits while the others run; memory stays bounded
    total = len(items) if isinstance(items, Sized) else None
    # Progress counts what has ended, not what was handed out: one step of the track for each.
    over: list[bool] = []
    steps = range(total) if total is not None else iter(lambda: bool(over), True)
    ticks = track(steps, total=total, title=mapped.title)
    if total is not None:
        next(ticks, None)
    with _results(save, lambda: _origin(handle, spec.method, kwargs)) as book:
        waiting: deque[_Asked] = deque()
        try:
            for index, item in enumerate(items):
                key = book.key(item)
                known = book.take(key)
                mapped.append(known.get("result") if known is not None else None)
                mapped.resumed += known is not None
                if known is not None:
                    next(ticks, None)
                else:
                    waiting.append((index, key, _asked(handle, spec.method, item, kwargs)))
                while len(waiting) >= window:
                    _collect(mapped, waiting, book, errors, ticks)
            while waiting:
                _collect(mapped, waiting, book, errors, ticks)
            over.append(True)
            next(ticks, None)
            mapped._unfit = book.found if mapped and not mapped.resumed else 0
        except BaseException as error:
            for _, _, call in waiting:
                if isinstance(call, Call):
                    call.cancel()
            if isinstance(error, KeyboardInterrupt):
                raise _interrupted(mapped, waiting, book) from None
            raise
    return mapped


def _checked(
    handle: ServiceHandle, task: str, items: object, errors: str, kwargs: Mapping[str, Any]
) -> TaskSpec:
    """Return the task, or raise for what would fail every item."""
    if errors not in ("keep", "raise"):
        raise ValidationError(
            "map does not know what to do with errors",
            problems=[Problem("errors", brief(errors), "'keep' or 'raise'")],
        )
    if isinstance(items, (str, bytes)) or not is_several(items):
        raise ValidationError(
            f"map goes over several items, not over {brief(items)}",
            hint=f"one item: handle.{task}(item); several: handle.map({task!r}, [item, ...])",
        )
    spec = handle._record.task(task)
    if strange := spec.checker.strangers(kwargs):
        raise ValidationError(
            f"{handle.name}.{spec.method} does not take these arguments",
            problems=strange,
            hint=f"it takes {spec.signature}; map itself takes save= and errors=",
        )
    return spec


def _asked(handle: ServiceHandle, task: str, item: Any, kwargs: Mapping[str, Any]) -> Call | GrymError:
    """Submit one item; what it is refused with is its outcome."""
    try:
        return handle.submit(task, item, **kwargs)
    except GrymError as error:
        return error.again()


def _collect(mapped: Mapped, waiting: deque[_Asked], book: _Book, errors: str, ticks: Iterator[int]) -> None:
    index, key, call = waiting[0]
    try:
        if isinstance(call, GrymError):
            raise call
        call.together = [other for _, _, other in waiting if isinstance(other, Call) and other is not call]
        value = call.result()
    except CallBlocked:
        raise  # no item's fault: none of them could ever run
    except GrymError as error:
        if errors == "raise":
            raise
        mapped.failed[index] = error.again()  # without the frames it came through
        book.write(key, error=error)
    else:
        mapped[index] = book.write(key, result=value)
    waiting.popleft()
    next(ticks, None)


def _why(error: GrymError) -> str:
    return " ".join(f"{error.message}: {error.cause}".split()) if error.cause else error.message


def _interrupted(mapped: Mapped, waiting: deque[_Asked], book: _Book) -> Interrupted:
    """Return the error of Ctrl-C, after what had ended meanwhile was put in the file, too."""
    running = []
    done = len(mapped) - len(waiting)
    for _, key, call in waiting:
        if not isinstance(call, Call):
            continue
        if not call.done():
            running.append(str(call.id))
        elif call.outcome is not None and call.outcome.success:
            book.write(key, result=call.outcome.data)
            done += 1
    state = f"call {', '.join(running)} still runs" if running else "the service is still ready"
    hint = f"run it again to go on from {book.name}" if book.name else ""
    if running:
        hint = "; ".join(filter(None, ("%grym calls shows what runs", hint)))
    return Interrupted(f"{mapped.title} interrupted after {count(done, 'item')}; {state}", hint=hint)


# -- the file --------------------------------------------------------------------------------------


class _Book:
    """The result file: a JSON line for each item, written as soon as it is there.

    Lines are found again by the content of the item and by `_origin`: items may be added, removed or put in
    another order between two runs, and what changed code or another config would answer differently is asked
    again. Failed items are tried again.
    """

    def __init__(self, name: str, file: IO[str] | None, same: str) -> None:
        self.name = name
        self._file = file
        self._same = same
        self._known: dict[str, deque[dict[str, Any]]] = {}
        self.found = 0  # results in the file

    def key(self, item: Any) -> str:
        """Return what stands for an item in the file."""
        if self._file is None:
            return ""
        try:
            told = getattr(item, "hash", None)
        except Exception:  # a stranger's property
            told = None
        return code_of((self._same, told if isinstance(told, str) else item))

    def read(self, lines: Iterable[str]) -> None:
        """Take in what an earlier run wrote."""
        for line in lines:
            try:
                entry = json.loads(line)
                ok, key = entry["ok"], entry["key"]
            except (ValueError, TypeError, KeyError):
                continue  # the line at which a kernel died
            if ok is True and isinstance(key, str):
                self._known.setdefault(key, deque()).append(entry)
                self.found += 1

    def take(self, key: str) -> dict[str, Any] | None:
        """Return the entry of an item that was done before, each only once."""
        entries = self._known.get(key)
        return entries.popleft() if entries else None

    def write(self, key: str, *, result: Any = None, error: GrymError | None = None) -> Any:
        """Put a result in the file, on the disk's side of the process at once; return it as it reads there.

        So a run that goes on gives the same values as one that was never interrupted.
        """
        if self._file is None:
            return result
        entry = {"key": key, "ok": error is None}
        entry |= {"result": result} if error is None else {"error": str(error)}
        try:
            text = json.dumps(entry, default=_plain)
        except (TypeError, ValueError, RecursionError) as refused:
            raise StorageError(
                f"this result cannot be kept in {self.name}: {refused}",
                hint="return plain values, lists, dicts or dataclasses from the task, or leave save= out",
            ) from None
        try:
            self._file.write(text + "\n")
            self._file.flush()
        except OSError as error:
            raise StorageError(
                f"{self.name} cannot be written: {error.strerror or error}",
                hint="make room and run it again: it goes on with what is in the file",
            ) from None
        return json.loads(text).get("result")


def _origin(handle: ServiceHandle, task: str, kwargs: Mapping[str, Any]) -> str:
    """Return a hash of all that makes the results what they are, apart from the items.

    That is the code of the service, of what its code names, and of the services it needs, with their config.
    """
    specs = [record.spec for record in handle._registry.family_of(handle._record)]
    made = [(spec.name, spec.parts["config"], named_by(spec.callable)) for spec in specs]
    return code_of((made, task, dict(kwargs)))


@contextmanager
def _results(save: Any, origin: Callable[[], str]) -> Iterator[_Book]:
    if save is None:
        yield _Book("", None, "")
        return
    if not isinstance(save, (str, os.PathLike)):
        problem = Problem("save", brief(save), "the path of a file, or None")
        raise ValidationError("map cannot save its results there", problems=[problem])
    name = os.fspath(save)
    try:
        # `replace`: a crash may leave any bytes..
        file = open(name, "a+", encoding="utf-8", errors="replace")  # noqa: SIM115
    except (OSError, ValueError) as error:
        raise StorageError(
            f"{name!r} cannot be written: {getattr(error, 'strerror', '') or error}",
            hint="choose another file for save=",
        ) from None
    with file:
        book = _Book(name, file, origin())
        file.seek(0)
        lines = file.readlines()
        _refuse_foreign(name, lines)
        book.read(lines)
        if lines and not lines[-1].endswith("\n"):
            file.write("\n")  # what a killed kernel left half-written stays a line of its own
        yield book


def _refuse_foreign(name: str, lines: Sequence[str]) -> None:
    """Raise when a file is full of something else: nothing is to be added to that."""
    # A crash may have left the beginning of the first line, or nothing but NULs.
    if not any(map(_is_ours, lines)) and not _BEGINS.startswith("".join(lines).strip("\0\n")):
        raise StorageError(
            f"{name} is no file of results, and was left as it is",
            cause=f"it begins with {brief(lines[0].rstrip())}",
            hint="choose another file for save=, one that map has written or a new one",
        )


def _is_ours(line: str) -> bool:
    try:
        entry = json.loads(line)
    except ValueError:
        return line.startswith(_BEGINS)  # as far as a crash let it come
    return isinstance(entry, dict) and isinstance(entry.get("key"), str) and isinstance(entry.get("ok"), bool)


def _plain(value: Any) -> Any:
    """Return a value as JSON knows it: arrays and numpy numbers as numbers, dataclasses as dicts."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
