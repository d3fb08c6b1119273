"""What services ask of one another: a task that is asked for is not taken away by an edit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import CodeType, FunctionType
from typing import TYPE_CHECKING

from grym_nb.errors import StateError
from grym_nb.services.content import is_settled
from grym_nb.services.named import WRAPS

if TYPE_CHECKING:
    from grym_nb.services.family import Family
    from grym_nb.services.reload.swap import Edit

__all__ = ["refuse_removed"]


def refuse_removed(family: Family, edits: Sequence[Edit]) -> None:
    """Raise where a task goes that another service asks for, as far as its code tells."""
    for edit in edits:
        before, after = edit.base.tasks or {}, edit.spec.tasks or {}
        gone = {task.method: task for name, task in before.items() if name not in after}
        for handle in family.handles() if gone else ():
            record = handle._record
            if record is edit.record or edit.record.name not in {n.rstrip("?") for n in record.spec.needs}:
                continue
            spec = next((one.spec for one in edits if one.record is record), record.spec)
            for name, task in gone.items():
                if {name, task.type} & _said_by(spec.made_class):
                    raise StateError(
                        f"{record.name} asks {edit.record.name} for {name}, which the new code has not",
                        hint=f"keep {name}, or edit {record.name} as well",
                        service=edit.record.name,
                    )


def _said_by(cls: type | None) -> set[object]:
    """Return the names and texts that the code of a class has in it, and the functions that this names."""
    todo = [*_functions_of(cls)]
    seen: set[FunctionType] = set()
    said: set[object] = set()
    while todo:
        function = todo.pop()
        if function in seen or is_settled(function.__module__ or ""):
            continue
        seen.add(function)
        names = _said_in(function.__code__)
        said |= names
        its = [function.__globals__.get(name) for name in names if isinstance(name, str)]
        todo += [one for one in its if isinstance(one, FunctionType)]
    return said


def _functions_of(cls: type | None) -> Iterator[FunctionType]:
    """Yield the functions that a class has, also those that it inherits and those inside of others."""
    for base in () if cls is None else cls.__mro__:
        for value in tuple(vars(base).values()):
            parts = [getattr(value, name, None) for name in WRAPS.get(type(value), ())]
            yield from (one for one in (value, *parts) if isinstance(one, FunctionType))


def _said_in(code: CodeType) -> set[object]:
    said: set[object] = {*code.co_names}
    for one in code.co_consts:
        if isinstance(one, str):
            said.add(one)
        elif isinstance(one, CodeType):
            said |= _said_in(one)
    return said
