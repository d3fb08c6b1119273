"""The last calls of each task that went well and were short: by these new code is tried before it serves.

What a call was given is kept as it is where nobody can change it, else as a copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grym_nb.services.content import PLAIN

if TYPE_CHECKING:
    from grym_nb.services.frame import Frame

__all__ = ["Tape", "Taped"]

_LONGEST = 0.25  # seconds: a call that takes longer is none to try code by
_EACH = 2  # calls of a task
_MOST = 8_000_000  # bytes of a service
_APART = 1.0  # seconds: more often, a copy costs more than it tells
_PARTS = 10_000  # of one call's arguments


@dataclass(frozen=True, slots=True, eq=False)
class Taped:
    """A call that went well: its task and what it was given."""

    task: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    size: int

    def given(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return what it was given, in copies: code that is tried may change them."""
        copied = _Copy()
        return tuple(copied.of(value) for value in self.args), {
            name: copied.of(value) for name, value in self.kwargs.items()
        }


class Tape:
    """Of one service; any thread notes its calls, and what is read of it is whole."""

    def __init__(self) -> None:
        self._calls: dict[str, tuple[Taped, ...]] = {}
        self.due: dict[str, float] = {}  # by task, when the next one is worth a copy

    def note(self, frame: Frame, took: float, now: float) -> None:
        """Keep a call that went well, if it is one to try code by."""
        spec = frame.spec
        if spec is None or not spec.replay or took > _LONGEST:
            return
        task = spec.method
        self.due[task] = now + _APART
        copied = _Copy()
        parts = frame.parts
        args, kwargs = (frame.args, frame.kwargs) if parts is None or parts.given is None else parts.given
        try:
            kept = Taped(
                task,
                tuple(copied.of(value) for value in args),
                {name: copied.of(value) for name, value in kwargs.items()},
                copied.size,
            )
        except Exception:  # what cannot be copied is not kept; a call that went well does not fail for it
            return
        self._calls[task] = (*self._calls.get(task, ()), kept)[-_EACH:]
        for largest in sorted(self.calls(), key=lambda one: one.size, reverse=True):
            if self.size <= _MOST:
                break
            self.drop(largest)

    def calls(self) -> tuple[Taped, ...]:
        """Return what is kept, the newest of each task first: what time is left for."""
        kept = [calls[::-1] for calls in tuple(self._calls.values())]
        return tuple(calls[at] for at in range(_EACH) for calls in kept if at < len(calls))

    def drop(self, taped: Taped) -> None:
        """Forget a call."""
        calls = self._calls.get(taped.task, ())
        self._calls[taped.task] = tuple(one for one in calls if one is not taped)

    def clear(self) -> None:
        """Forget all."""
        self._calls = {}
        self.due = {}

    @property
    def size(self) -> int:
        """How many bytes are kept."""
        return sum(taped.size for taped in self.calls())


class _NotTaped(Exception):
    """It is given something that cannot be copied, or too much of it."""


class _Copy:
    """Copies containers, arrays and tensors; what nobody can change is kept as it is."""

    def __init__(self) -> None:
        self.size = 0
        self._parts = 0

    def of(self, value: Any) -> Any:
        self._parts += 1
        kind = type(value)
        if kind in PLAIN or kind is bool or kind is range:
            self._count(len(value) if kind in (str, bytes) else 8)
            return value
        if kind.__name__ == "Clip" and kind.__module__.startswith("grym_nb."):
            self._count(value.samples.nbytes)
            return value
        if kind in (list, tuple, set, frozenset):
            return kind([self.of(part) for part in value])
        if kind is dict:
            return {self.of(key): self.of(part) for key, part in value.items()}
        return self._array(value)

    def _array(self, value: Any) -> Any:
        kind = type(value)
        module = kind.__module__.partition(".")[0]
        if module == "numpy" and kind.__name__ in ("ndarray", *_SCALARS):
            if value.dtype.hasobject:
                raise _NotTaped
            self._count(value.nbytes)
            return value.copy()
        if module == "torch" and kind.__name__ in ("Tensor", "Parameter"):
            self._count(value.nbytes)
            return value.detach().clone().requires_grad_(value.requires_grad)
        raise _NotTaped

    def _count(self, size: int) -> None:
        self.size += size
        if self.size > _MOST or self._parts > _PARTS:
            raise _NotTaped


_SCALARS = ("bool", *(f"{kind}{bits}" for kind in ("float", "int", "uint") for bits in (8, 16, 32, 64)))
