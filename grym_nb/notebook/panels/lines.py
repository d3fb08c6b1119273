"""What happened lately, as lines: read from what the runtime remembers, so that none is ever missed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from grym_nb.runtime import Runtime
    from grym_nb.services.handle import ServiceHandle
    from grym_nb.services.ports import Ended

__all__ = ["Asked", "Level", "Line", "lines_of"]

Level = Literal["info", "good", "warning", "error"]

_SHOWN = 60
_OF_EACH = 6  # stories go back further than anybody reads here
_MOST = 2000  # characters of the full text of an error
_BY_STATE: Mapping[str, Level] = {"failed": "error", "ready": "good"}
_BY_HEALTH: Mapping[str, Level] = {"healthy": "good", "degraded": "warning", "unhealthy": "error"}
_BY_SEVERITY: Mapping[str, Level] = {"info": "info", "warning": "warning", "critical": "error"}


class Asked(Protocol):
    """What somebody asked a panel to do."""

    @property
    def service(self) -> str:
        """The service it was for."""

    @property
    def what(self) -> str:
        """What was asked for."""

    @property
    def state(self) -> str:
        """How it stands."""

    @property
    def at(self) -> float:
        """When it was asked for, or came to its end."""

    @property
    def told(self) -> str:
        """What came of it, in a line."""

    @property
    def why(self) -> str:
        """All that is known of why it failed."""


@dataclass(frozen=True, slots=True, order=True)
class Line:
    """Something that happened: when, to whom, in a line; and `why`, all that is known of it."""

    at: float
    service: str
    kind: str
    text: str
    level: Level = "info"
    why: str = ""


def lines_of(
    runtime: Runtime, shift: float, failed: Sequence[Ended], doings: Sequence[Asked]
) -> tuple[Line, ...]:
    """Return the last lines, the newest first; `failed` are calls that did not end well."""
    lines = [
        *(line for handle in runtime.registry.handles() for line in _of(handle, shift)),
        *_of_health(runtime, shift),
        *(
            Line(call.at + shift, call.service, f"call {call.id}", *_of_call(call))
            for call in failed[-_SHOWN:]
        ),
        *(_of_doing(doing) for doing in doings if doing.state == "failed"),
        *(
            Line(one.at, one.subject, "alert", one.text, _of_alert(one.state, one.severity))
            for one in runtime.alerts.story[-_OF_EACH:]
        ),
    ]
    return tuple(sorted(lines, reverse=True)[:_SHOWN])


def _of(handle: ServiceHandle, shift: float) -> Iterator[Line]:
    for step in handle.story[-_OF_EACH:]:
        reason = f": {step.reason}" if step.reason else ""
        text = f"{step.before} → {step.after}{reason}"
        yield Line(step.at + shift, handle.name, "state", text, _BY_STATE.get(step.after, "info"))
    for report in handle.reloads[-_OF_EACH:]:
        bad = report.how in ("refused", "taken back")
        yield Line(
            report.at + shift,
            handle.name,
            "reload",
            report.line,
            "error" if bad else "good",
            report.why[:_MOST],
        )


def _of_health(runtime: Runtime, shift: float) -> Iterator[Line]:
    monitor = runtime.health
    for name in monitor.system().services:
        for one in monitor.story(name)[-_OF_EACH:]:
            reason = f": {one.reason}" if one.reason else ""
            text = f"judged {one.after}{reason}"
            yield Line(one.at + shift, name, "health", text, _BY_HEALTH.get(one.after, "info"))


def _of_call(call: Ended) -> tuple[str, Level, str]:
    first = (call.error.split("\n", 1)[0] or call.outcome).removeprefix(f"{call.service}.{call.task} raised ")
    return f"{call.task} {call.id}: {first[:200]}", "error", call.error[:_MOST]


def _of_doing(doing: Asked) -> Line:
    text = f"{doing.what}: {doing.told}"
    return Line(doing.at, doing.service, f"asked {doing.what}", text, "error", doing.why[:_MOST])


def _of_alert(state: str, severity: str) -> Level:
    return "good" if state == "over" else _BY_SEVERITY.get(severity, "info")
