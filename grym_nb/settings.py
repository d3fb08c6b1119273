"""What can be set, in one frozen and validated record."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from typing import Any, Self

from grym_nb.errors import ConfigError, Problem, closest, says_what_it_takes
from grym_nb.sizes import sizes_of

__all__ = ["Settings"]


def _seconds(default: float, about: str, *, least: float = 0.0) -> Any:
    return field(default=default, metadata={"about": about, "least": least, "kind": float})


def _number(default: int, about: str, *, least: int) -> Any:
    return field(default=default, metadata={"about": about, "least": least, "kind": int})


def _path(about: str) -> Any:
    return field(default=None, metadata={"about": about, "least": 0, "kind": _text})


def _folder(about: str) -> Any:
    return field(default=None, metadata={"about": about, "least": 0, "kind": _place})


def _rule(value: Any) -> Any:
    return value


def _sizes(about: str) -> Any:
    return field(default_factory=dict, hash=False, metadata={"about": about, "least": 0, "kind": sizes_of})


def _mapping(about: str) -> Any:
    metadata = {"about": about, "least": 0, "kind": dict}
    return field(default_factory=dict, hash=False, metadata=metadata)


def _text(value: Any) -> str | None:
    return None if value is None else os.fspath(value)


def _place(value: Any) -> str | None:
    return _text(value)


@says_what_it_takes
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings:
    """How a runtime behaves. Durations are seconds; `fields(Settings)` has each one's meaning as `about`.

    Raises a ConfigError that lists every value that does not fit.
    """

    drain_seconds: float = _seconds(30.0, "how long an unload waits for running calls")
    interrupt_seconds: float = _seconds(2.0, "how long Ctrl-C waits for a call on a worker")
    linger_seconds: float = _seconds(5.0, "how long an idle worker thread is kept")
    ageing_seconds: float = _seconds(10.0, "the waiting time that is worth one step of priority", least=1e-3)
    work_threads: int = _number(4, "how many pings, recoveries and reloads run at a time", least=1)
    story_length: int = _number(100, "how many changes of state are kept for each service", least=1)
    calls_kept: int = _number(200, "how many calls `%grym calls` can show", least=0)
    context_path: str | None = _path("the file in which context outlives the kernel; None: only in memory")
    context_bytes: int = _number(256_000_000, "how many bytes of context are held in memory", least=1)
    context_items: int = _number(100, "how many items of context a task is given at most", least=0)
    memory: str | int | Mapping[str, Any] | None = _sizes(
        "how much services may take: '4GB' in all, or sizes by device; None: all there is"
    )
    eviction: str | Callable[..., float] = field(
        default="cost-rate",
        metadata={
            "about": "who goes when another needs room: a name or a function",
            "least": 0,
            "kind": _rule,
        },
    )
    policy: Mapping[str, Any] = _mapping("how the calls of every service are guarded: timeout, retry, ...")
    policies: Mapping[str, Mapping[str, Any]] = _mapping("the same for each of some services, by name")
    health_seconds: float = _seconds(5.0, "how often services are judged; 0: never")
    ping_seconds: float = _seconds(30.0, "how often one that is not in use is pinged", least=1e-3)
    recovery: Mapping[str, Any] = _mapping("what is done about unhealthy services: on, steps, budget, ...")
    recoveries: Mapping[str, Mapping[str, Any] | None] = _mapping(
        "the same for some services, by name; None: nothing is done"
    )
    metrics_path: str | None = _folder("the folder in which metrics outlive the kernel; None: only in memory")
    metrics_bytes: int = _number(50_000_000, "how many bytes of it are kept", least=100_000)
    versions_kept: int = _number(
        5, "how many versions of a service's code are kept beside one another", least=1
    )
    progress_after_seconds: float = _seconds(2.0, "how long a call runs before its progress is shown")

    def __post_init__(self) -> None:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        if problems := _problems(values):
            raise _refusal(problems)
        for f in fields(self):
            object.__setattr__(self, f.name, f.metadata["kind"](values[f.name]))

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """Return the settings in `mapping`, defaults for the rest; unknown keys are refused."""
        if problems := _problems(mapping):
            raise _refusal(problems)
        return cls(**mapping)

    def with_(self, **changes: Any) -> Self:
        """Return these settings with some of them changed."""
        if problems := _problems(changes):
            raise _refusal(problems)
        return replace(self, **changes)

    def __repr__(self) -> str:
        changed = (
            f"{f.name}={getattr(self, f.name)!r}"
            for f in fields(self)
            if getattr(self, f.name) != _default(f)
        )
        return f"Settings({', '.join(changed)})"


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _problems(values: Mapping[str, Any]) -> list[Problem]:
    known = {f.name: f.metadata for f in fields(Settings)}
    found = []
    for name, value in values.items():
        if name not in known:
            near = closest(str(name), known)
            found.append(Problem(str(name), repr(value), f"no such setting.{near}"))
        elif expected := _misfit(value, known[name]["kind"], known[name]["least"]):
            found.append(Problem(name, repr(value), expected))
    return found


def _misfit(value: object, kind: Callable[[Any], Any], least: float) -> str:
    """Return what was expected instead of `value`, an empty string when it fits."""
    if kind in (_text, _place):
        fits = value is None or (isinstance(value, (str, os.PathLike)) and isinstance(_text(value), str))
        if not fits or value == "":
            return "a path, or None"
        return _in_the_way(os.fspath(value)) if value is not None and kind is _place else ""  # type: ignore[call-overload]
    if kind is sizes_of:
        try:
            sizes_of(value)  # type: ignore[arg-type]
        except ConfigError:
            return "a size such as '4GB' in all, sizes by device such as {'cuda:0': '20GB'}, or None"
        return ""
    if kind is _rule:
        return "" if callable(value) or (isinstance(value, str) and value) else "a name, or a function"
    if kind is dict:
        return "" if isinstance(value, Mapping) else "a mapping of names to values"
    if kind is int:
        fits = isinstance(value, int) and not isinstance(value, bool) and value >= least
        return "" if fits else f"a whole number, {least} or more"
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and least <= value <= sys.float_info.max:  # type: ignore[operator]
        return ""
    return f"seconds, {least:g} or more"


def _in_the_way(path: str) -> str:
    """Return what was expected instead of a path where there is and can be no folder."""
    path = os.path.abspath(path)
    while not os.path.lexists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return "" if os.path.isdir(path) else f"a folder: {path} is a file"


def _refusal(problems: list[Problem]) -> ConfigError:
    what = "a setting does" if len(problems) == 1 else f"{len(problems)} settings do"
    return ConfigError(f"{what} not fit", problems=problems)
