"""A version of a service beside the one that serves, on the same weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grym_nb.errors import StateError, UnknownName, closest
from grym_nb.services.frame import Options

if TYPE_CHECKING:
    from grym_nb.services.handle import BoundTask
    from grym_nb.services.instance import Serving
    from grym_nb.services.model import TaskSpec
    from grym_nb.services.record import ServiceRecord

__all__ = ["Older", "numbered", "task_of"]


class Older:
    """What `handle.at(version)` gives: its tasks, as that version of the code answers them."""

    def __init__(self, record: ServiceRecord, number: int, bound: type[BoundTask]) -> None:
        self._record = record
        self._number = number
        self._bound = bound

    @property
    def version(self) -> str:
        """Which version it is."""
        return _serving(self._record, self._number).version

    def run(self, task: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a task by method name or type."""
        return getattr(self, self._named(task))(*args, **kwargs)

    def _named(self, task: str) -> str:
        tasks = _serving(self._record, self._number).tasks
        return next((spec.method for spec in tasks.values() if task in (spec.method, spec.type)), task)

    def __getattr__(self, name: str) -> BoundTask:
        if name.startswith("_"):
            raise AttributeError(name)
        tasks = _serving(self._record, self._number).tasks
        if name not in tasks:
            told = f"{self._record.name} {self.version} has no task {name!r}.{closest(name, tasks)}"
            raise UnknownName(told, hint=f"it has: {', '.join(tasks) or 'none'}")
        return self._bound(self._record, name, Options(version=self._number))

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_serving(self._record, self._number).tasks})

    def __repr__(self) -> str:
        return f"<{self._record.name} at {self.version}>"


def numbered(record: ServiceRecord, version: str | int) -> int:
    """Return the number of a version that can answer now; one that cannot is an error that says what can."""
    instance = record.instance
    there = [] if instance is None else instance.versions
    for serving in reversed(there):
        if str(version) in (serving.version, str(serving.number), f"v{serving.number}"):
            return serving.number
    known = ", ".join(serving.version for serving in there)
    raise StateError(
        f"{record.name} has no version {version!r} beside the one that serves",
        hint=f"it has {known}" if known else "versions are there as long as the weights are: load it",
        service=record.name,
    )


def task_of(record: ServiceRecord, number: int, task: str) -> TaskSpec:
    """Return a task as a version declares it."""
    serving = _serving(record, number)
    if task not in serving.tasks:
        raise UnknownName(f"{record.name} {serving.version} has no task {task!r}")
    return serving.tasks[task]


def _serving(record: ServiceRecord, number: int) -> Serving:
    instance = record.instance
    found = () if instance is None else [one for one in instance.versions if one.number == number]
    if not found:
        raise StateError(
            f"{record.name} has its version {number} no more",
            hint="a version is there as long as the weights are, and few edits came since",
            service=record.name,
        )
    return found[-1]
