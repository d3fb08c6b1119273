"""`%grym why` and `%grym debug`: the last failure in full, as text, and its live frames."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from grym_nb.errors import CommandError, GrymError, Interrupted
from grym_nb.notebook.sheet import Sheet
from grym_nb.render import Table, brief, redacted, seconds
from grym_nb.services.failure import Failure, sites_of, to_the_users

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from grym_nb.services import ServiceHandle, ServiceRegistry

__all__ = ["debug", "why", "why_service"]

_DEEPEST = 8  # errors that were raised while another one was handled


def why(registry: ServiceRegistry) -> Sheet:
    """Return the last error that a cell ended with, and the last failure inside a service, in full.

    They are often the same. A call that was only submitted fails without ending a cell.
    """
    last: BaseException | None = getattr(sys, "last_value", None)
    error = _ours(last)
    inside = registry.ports.failures.failure
    parts: list[Table | str] = []
    if error is not None:
        parts += _parts_of(error)
    elif last is not None:
        words = " ".join(str(last).split())[:200]
        parts.append(f"the last error of a cell was no service's: {type(last).__name__}: {words}")
    if inside is not None and inside is not getattr(error, "failure", None):
        heading = "the last failure inside a service" + (", in another call" if error is not None else "")
        parts += [f"{heading}:\n{inside.text()}"]
    if not parts:
        return Sheet("nothing has failed so far")
    return Sheet("", tuple(parts))


def why_service(handle: ServiceHandle) -> Sheet:
    """Return the last error of a service and the story of its states."""
    failure = handle._record.last_error
    now = handle._record.ports.clock()
    story = [(f"{seconds(now - step.at)} ago", step.before, step.after, step.reason) for step in handle.story]
    told = failure.text() if failure is not None else "nothing has failed in it"
    columns = ("when", "from", "to", "why")
    table = Table(f"the story of {handle.name}", columns, story, empty="registered, and nothing since")
    return Sheet(handle.status().line, (told, table))


def _ours(error: BaseException | None) -> GrymError | Interrupted | None:
    """Return the error of ours that a cell's error is, or that it was raised from."""
    for _ in range(_DEEPEST):
        if error is None or isinstance(error, (GrymError, Interrupted)):
            return error
        told = getattr(getattr(error, "_render_traceback_", None), "__self__", None)
        if isinstance(told, (GrymError, Interrupted)):
            return told  # see `shown_as`
        error = error.__cause__ or error.__context__
    return None


def _parts_of(error: GrymError | Interrupted) -> list[Table | str]:
    parts: list[Table | str] = [f"{type(error).__name__}: {_whole(error)}"]
    facts = []
    if isinstance(error, GrymError):
        facts = [("code", error.code), ("service", error.service), ("task", error.task)]
        facts += [(name, told) for name, told in _figures(error.details).items()]
    if facts := [fact for fact in facts if fact[1]]:
        parts.append(Table("what is known", ("fact", "value"), facts))
    failure = getattr(error, "failure", None)
    if isinstance(failure, Failure):
        parts.append(failure.text())
    if cell := sites_of(error.__traceback__):
        parts.append("\n".join(["the way to it in your cells:", *(site.text() for site in cell)]))
    return parts


def _whole(error: GrymError | Interrupted) -> str:
    """Return the error's words without the cuts that three lines need."""
    told = [error.message]
    told += [f"  {error.cause}"] if error.cause else []
    told += [f"→ {error.hint}"] if error.hint and "%grym why" not in error.hint else []
    return "\n".join(told)


def _figures(details: dict[str, Any]) -> dict[str, str]:
    """Return an error's details in words; a path and a story step by step."""
    told = {name: value.strip("'\"") for name, value in redacted(details).items()}
    for name in ("path", "story", "supported", "able"):
        if isinstance(steps := details.get(name), (tuple, list)):
            told[name] = " · ".join(brief(str(step), width=200).strip("'\"") for step in steps[-12:])
    return told


def debug(shell: InteractiveShell, registry: ServiceRegistry) -> None:
    """Open IPython's debugger in the live frames of the last failure; returns when it is left."""
    traceback = to_the_users(registry.ports.failures.traceback)
    if traceback is None:
        raise CommandError(
            "there are no live frames to debug",
            cause="those of the last failure are kept until its service is unloaded, or the next failure",
            hint="%grym why has them as text",
        )
    kernel = getattr(shell, "kernel", None)
    if kernel is not None and not getattr(kernel, "_allow_stdin", True):
        raise CommandError(
            "this front end does not let a cell read what is typed, so there is no debugger",
            hint="%grym why has the frames as text",
        )
    from IPython.core import display_trap

    trap: Any = display_trap.DisplayTrap
    debugger: Any = shell.debugger_cls()
    with trap(hook=sys.__displayhook__):  # what is typed there is not to end up in Out
        debugger.reset()
        debugger.botframe = traceback.tb_frame
        debugger.interaction(None, traceback)
