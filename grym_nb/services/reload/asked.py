"""What services ask of one another: a task that is asked for is not taken away by an edit."""

from __future__ import annotations

from collections.abc import Sequence
from types import FunctionType
from typing import TYPE_CHECKING

from grym_nb.errors import StateError

if TYPE_CHECKING:
    from grym_nb.services.registry import ServiceRegistry
    from grym_nb.services.reload.swap import Edit

__all__ = ["refuse_removed"]


def refuse_removed(registry: ServiceRegistry, edits: Sequence[Edit]) -> None:
    """Raise where a task goes that another service asks for, as far as its code tells."""
    for edit in edits:
        before, after = edit.base.tasks or {}, edit.spec.tasks or {}
        gone = {task.method: task for name, task in before.items() if name not in after}
        for handle in registry.handles() if gone else ():
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
    """Return the names and texts that the methods of a class have in them."""
    todo = [one.__code__ for one in vars(cls).values() if isinstance(one, FunctionType)] if cls else []
    said: set[object] = set()
    while todo:
        code = todo.pop()
        said.update(code.co_names)
        for one in code.co_consts:
            if isinstance(one, str):
                said.add(one)
            elif hasattr(one, "co_names"):
                todo.append(one)
    return said
