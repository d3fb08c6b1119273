"""Every error grym_nb raises, in one tree.

::

    Exception
    └── GrymError                   code, details, what to do next
        ├── ServiceError            names the service (and the task)
        │   ├── ServiceNotFound     also a KeyError; names the closest
        │   ├── ServiceNotReady     would have to be loaded where that cannot be
        │   ├── ServiceClosed       removed, or its registry is closed
        │   ├── LoadFailed          `load` raised; carries the path through the needs
        │   ├── ReloadFailed        new code that cannot serve; the code before does
        │   ├── TaskNotFound        also an AttributeError; names the closest
        │   ├── TaskFailed          the author's code raised; describes the input
        │   ├── StateError          an illegal move, with the story that led to it
        │   │   └── CallBlocked     a wait that could never end
        │   └── DependencyError     needs that are missing, circular, or still in use
        ├── CallTimeout             also a TimeoutError
        ├── CallCancelled
        ├── ItemNotFound            also a KeyError; no context item, or not any more
        ├── ItemConflict            somebody wrote the item meanwhile; both sides
        ├── BreakerOpen             refused fast, because the service is failing
        ├── ResourceExhausted       limit and use
        │   └── QueueFull
        ├── ValidationError         also a ValueError; every problem at once
        │   └── ConfigError         settings and registrations
        ├── AudioError              also a ValueError; what was found, what is needed
        ├── CheckpointError         also a ValueError; a model's files that cannot be used as they are
        ├── RoutingError            no service, or several, for a task type
        ├── StorageError            also an OSError; what could not be kept
        ├── MissingExtra            also an ImportError; the line that installs it
        ├── UnknownName             also an AttributeError; nothing public is called so
        └── CommandError            a `%grym` line that cannot be understood
    KeyboardInterrupt
    └── Interrupted                 Ctrl-C in a call; `except Exception` does not swallow it

In a notebook each renders as at most three lines: what happened, the cause, what to do next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "AudioError",
    "BreakerOpen",
    "CallBlocked",
    "CallCancelled",
    "CallTimeout",
    "CheckpointError",
    "CommandError",
    "ConfigError",
    "DependencyError",
    "GrymError",
    "Interrupted",
    "ItemConflict",
    "ItemNotFound",
    "LoadFailed",
    "MissingExtra",
    "Problem",
    "QueueFull",
    "ReloadFailed",
    "ResourceExhausted",
    "RoutingError",
    "ServiceClosed",
    "ServiceError",
    "ServiceNotFound",
    "ServiceNotReady",
    "StateError",
    "StorageError",
    "TaskFailed",
    "TaskNotFound",
    "UnknownName",
    "ValidationError",
    "closest",
    "says_what_it_takes",
    "shown_as",
]

P = ParamSpec("P")
T = TypeVar("T")

_WIDTH = 240  # a longer line wraps in every front end, and three lines become many


def closest(name: str, known: Iterable[str], *, cutoff: float = 0.5) -> str:
    """Return ``" Did you mean 'x'?"``, or an empty string when nothing is near."""
    from difflib import get_close_matches

    near = get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f" Did you mean {near[0]!r}?" if near else ""


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"


class _ThreeLines:
    """What a notebook shows of an error: what happened, the cause, what to do next."""

    message: str
    cause: str
    hint: str

    def lines(self) -> list[str]:
        """Return one to three lines, without the error's name."""
        told = [self.message]
        if self.cause:
            told.append(f"  {_one_line(self.cause)}")
        if self.hint:
            told.append(f"→ {_one_line(self.hint)}")
        return [_one_line(told[0]), *told[1:]]

    def _render_traceback_(self) -> list[str]:
        # IPython and ipykernel show this instead of a traceback, and still send a real `error`
        # message, so that nbval and nbclient see the failure.
        first, *rest = self.lines()
        return [f"\x1b[31m{type(self).__name__}\x1b[0m: {first}", *rest]


class GrymError(_ThreeLines, Exception):
    """Something grym_nb could not do, why, and what to do next.

    `code` is stable and meant for programs; `details` holds the figures behind the words.
    """

    code: ClassVar[str] = "grym"
    #: whether the same call may succeed when it is simply made again
    can_change: bool = False  # of most kinds one answer; of a limit it depends on which
    #: what to do next, when the one who raises has nothing better to say
    advice: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        cause: str = "",
        service: str = "",
        task: str = "",
        **details: Any,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = self.advice if hint is None else hint
        self.cause = cause
        self.service = service
        self.task = task
        self.details = details
        #: text of the failure (user's frames, shapes of their locals); never a live frame
        self.failure: Any = None

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def again(self) -> Self:
        """Return an equal error without a traceback: one for each of several waiters."""
        # Without the constructor, whose arguments a subclass may have made its own.
        twin: Self = type(self).__new__(type(self), *self.args)
        twin.args = self.args
        twin.__dict__.update(self.__dict__)
        if hasattr(self, "__notes__"):
            twin.__notes__ = [*self.__notes__]
        return twin


class ServiceError(GrymError):
    """Something about one service."""

    code = "service"


class ServiceNotFound(ServiceError, KeyError):
    """No service of that name is registered."""

    code = "service.not_found"
    advice = "%grym status lists the services"


class ServiceNotReady(ServiceError):
    """The service would have to be loaded where that is not possible."""

    code = "service.not_ready"


class ServiceClosed(ServiceError):
    """The service was removed, or its registry is closed."""

    code = "service.closed"
    advice = "register it again"


class LoadFailed(ServiceError):
    """The service's `load` raised; `details["path"]` is the way through the needs."""

    code = "service.load_failed"
    can_change = True
    advice = "%grym why shows your frames; the next call tries again"


class ReloadFailed(ServiceError):
    """New code that cannot serve; the code before does. `report` tells what was done."""

    code = "service.reload_failed"
    can_change = True
    report: Any = None


class TaskNotFound(ServiceError, AttributeError):
    """The service has no such task."""

    code = "task.not_found"


class TaskFailed(ServiceError):
    """The author's code raised; the error says on what input."""

    code = "task.failed"
    can_change = True
    #: the type of what the author's code raised
    raised: type[BaseException] | None = None
    advice = "%grym why shows your frames and the shapes in them"


class StateError(ServiceError):
    """An illegal move; `details["story"]` tells what led to it."""

    code = "service.state"


class CallBlocked(StateError):
    """The call could only wait for something that waits for it."""

    code = "call.blocked"


class DependencyError(ServiceError):
    """Needs that are missing, circular, or still in use; `details["path"]` names them."""

    code = "service.needs"


class CallTimeout(GrymError, TimeoutError):
    """The call's deadline passed."""

    code = "call.timeout"
    can_change = True
    advice = "give it more time: handle.task.with_(timeout=...)(...)"


class CallCancelled(GrymError):
    """The call was cancelled before it ended."""

    code = "call.cancelled"
    advice = "the service is still ready: call it again when you want it after all"


class ItemNotFound(GrymError, KeyError):
    """No item of context is there under that id, or not any more."""

    code = "context.not_found"

    # KeyError would show the repr of its argument.
    def __str__(self) -> str:
        return GrymError.__str__(self)


class ItemConflict(GrymError):
    """An item was written by somebody else meanwhile; `details` has `theirs` and `yours`."""

    code = "context.conflict"
    can_change = True

    @classmethod
    def of(cls, theirs: Any, expected: int, yours: Any) -> ItemConflict:
        """Return the error for an item that is not at the version that was expected."""
        why = ": somebody wrote it meanwhile" if expected < theirs.version else ""
        return cls(
            f"{theirs.id} is at version {theirs.version}, not {expected}{why}",
            hint="read it again and decide, or leave expect out; details has both sides",
            id=theirs.id,
            theirs=theirs,
            yours=yours,
        )


class BreakerOpen(GrymError):
    """Refused without trying, because the service is failing."""

    code = "call.refused"
    can_change = True


class ResourceExhausted(GrymError):
    """A limit is reached; `details` has `limit` and `use`."""

    code = "resource.exhausted"
    can_change = True


class QueueFull(ResourceExhausted):
    """Too many calls wait already."""

    code = "resource.queue_full"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with what was given: where, what was found, what is expected."""

    path: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.path}: found {self.found}, expected {self.expected}"


class ValidationError(GrymError, ValueError):
    """What was given does not fit; `problems` lists everything that is wrong with it."""

    code = "validation"
    advice = "nothing was done; mend what is named here and run it again"

    def __init__(self, message: str, *, problems: Sequence[Problem] = (), **rest: Any) -> None:
        if problems and not rest.get("cause"):
            rest["cause"] = "; ".join(map(str, problems))
        super().__init__(message, **rest)
        self.problems = tuple(problems)


class ConfigError(ValidationError):
    """Settings or a registration that do not fit."""

    code = "config"
    advice = "nothing was changed; mend what is named here and run it again"


class AudioError(GrymError, ValueError):
    """Audio that cannot be used as it is: what was found, and what is needed."""

    code = "audio"


class CheckpointError(GrymError, ValueError):
    """Files of a model that cannot be used as they are: what was found, and what is accepted."""

    code = "checkpoint"
    advice = "nothing was loaded; mend what is named here and load it again"


class RoutingError(GrymError):
    """No service, or more than one, declares the task type."""

    code = "routing"


class StorageError(GrymError, OSError):
    """Something could not be written or read back."""

    code = "storage"

    # OSError would take (errno, text) apart and turn itself into a subclass by errno.
    def __str__(self) -> str:
        return GrymError.__str__(self)


class MissingExtra(GrymError, ImportError):
    """An optional package is not installed; the hint is the line that installs it."""

    code = "missing_extra"

    @classmethod
    def of(cls, package: str, *, extra: str, purpose: str) -> MissingExtra:
        """Return the error for `package`, which `purpose` needs and `extra` brings."""
        return cls(
            f"{purpose} needs {package}, which is not installed",
            hint=f'pip install "grym-nb[{extra}]"',
            package=package,
            extra=extra,
        )


class CommandError(GrymError):
    """A `%grym` line that cannot be understood."""

    code = "command"


class UnknownName(GrymError, AttributeError):
    """The package has nothing public of that name."""

    code = "unknown_name"


class Interrupted(_ThreeLines, KeyboardInterrupt):
    """Ctrl-C in a call: says how far it came, and leaves the service ready."""

    advice: ClassVar[str] = "run it again when you want it after all"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.cause = ""
        self.hint = hint or self.advice

    def __str__(self) -> str:
        return "\n".join(self.lines())


def shown_as(error: BaseException, told: GrymError | Interrupted) -> None:
    """Let a notebook show `told` for an error that has to stay what it is, such as asyncio's cancellation."""
    stand_in: Any = error
    stand_in._render_traceback_ = told._render_traceback_


def says_what_it_takes(function: Callable[P, T]) -> Callable[P, T]:
    """Return a function, or a class, that answers arguments it does not take with a `ValidationError`."""
    if isinstance(function, type):
        made: Any = function
        made.__init__ = says_what_it_takes(made.__init__)
        return function

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                raise  # it came from within: the arguments were taken
            raise _misfit(function, str(error)) from None

    return call


def _misfit(function: Callable[..., Any], words: str) -> ValidationError:
    """Return the error for arguments that a function does not take; `words` are Python's own."""
    import inspect
    import re

    name = re.sub(r"^__main__\.|\.__init__$", "", function.__qualname__)
    signature = inspect.signature(function)
    known = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    takes = [p.replace(annotation=p.empty) for p in known]
    strange = re.search(r"unexpected keyword argument '(\w+)'", words)
    near = closest(strange[1], (p.name for p in takes)) if strange else ""
    told = re.sub(r"^[\w.<>]+\(\) |\. Did you mean .*$", "", words)  # 3.13 offers a name itself
    shown = signature.replace(parameters=takes, return_annotation=signature.empty)
    return ValidationError(f"{name} {told}.{near}" if near else f"{name} {told}", hint=f"it takes {shown}")
