"""Two versions side by side: the same calls through both, what they answer, and how long they take."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from grym_nb.errors import GrymError, StateError
from grym_nb.render import Table, brief, count, seconds

if TYPE_CHECKING:
    from grym_nb.services.handle import ServiceHandle

__all__ = ["compare"]


def compare(handle: ServiceHandle, one: str | int | None = None, other: str | int | None = None) -> Table:
    """Answer the last calls of a service by two versions of its code; by default by the last two."""
    record = handle._record
    instance = record.instance
    versions = [] if instance is None else instance.versions
    if one is None and len(versions) < 2:
        raise StateError(
            f"{record.name} has no two versions to compare",
            hint="a version comes with each edit that is reloaded, as long as the weights stay",
            service=record.name,
        )
    first = handle.at(versions[-2].version if one is None else one)
    second = handle.at(versions[-1].version if other is None else other)
    calls = record.tape.calls()
    rows = []
    for taped in calls:
        told = []
        for version in (first, second):
            args, kwargs = taped.given()
            told.append(_answer(version, taped.task, args, kwargs))
        (before, took, was), (after, takes, now) = told
        given = ", ".join([*map(brief, taped.args), *(f"{k}={brief(v)}" for k, v in taped.kwargs.items())])
        rows.append(
            (f"{taped.task}({given})", was, now, _difference(before, after), seconds(took), seconds(takes))
        )
    names = (
        "call",
        first.version,
        second.version,
        "differ",
        f"took {first.version}",
        f"took {second.version}",
    )
    caption = f"{record.name}: {count(len(calls), 'call')} through {first.version} and {second.version}"
    return Table(caption, names, rows, empty="it has not been called yet, with anything that can be kept")


def _answer(version: Any, task: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, float, str]:
    began = time.perf_counter()
    try:
        value = version.run(task, *args, **kwargs)
    except GrymError as error:
        return error, time.perf_counter() - began, error.message
    return value, time.perf_counter() - began, brief(value)


def _difference(before: Any, after: Any) -> str:
    """Say by how much two answers differ: numbers and arrays by the largest difference."""
    if isinstance(before, GrymError) or isinstance(after, GrymError):
        return (
            "raises" if not (isinstance(before, GrymError) and isinstance(after, GrymError)) else "both raise"
        )
    if type(before) is not type(after):
        return "kind"
    if isinstance(before, (int, float, complex)):
        return f"{abs(after - before):.3g}" if after != before else ""
    if hasattr(before, "shape"):
        if before.shape != after.shape:
            return "shape"
        largest = max(abs(after - before).reshape(-1).tolist(), default=0.0)
        return f"{largest:.3g}" if largest else ""
    try:
        return "" if bool(before == after) else "yes"
    except Exception:  # no single answer
        return "unknown"
