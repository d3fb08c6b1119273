"""Keep heavy models alive, healthy, shareable and editable inside a notebook's kernel.

>>> import grym_nb as grym
>>> class Echo(grym.ModelService):
...     @grym.task("text.echo")
...     def echo(self, text: str) -> str:
...         return text
>>> with grym.Runtime() as runtime:
...     echo = runtime.registry.register("echo", Echo)
...     echo.echo("hello")
'hello'

In a notebook: ``%load_ext grym_nb``, then ``%grym``. Importing does nothing but define names; each is
brought in at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from grym_nb.clip import Clip as Clip
    from grym_nb.errors import (
        AudioError as AudioError,
    )
    from grym_nb.errors import (
        BreakerOpen as BreakerOpen,
    )
    from grym_nb.errors import (
        CallBlocked as CallBlocked,
    )
    from grym_nb.errors import (
        CallCancelled as CallCancelled,
    )
    from grym_nb.errors import (
        CallTimeout as CallTimeout,
    )
    from grym_nb.errors import (
        CheckpointError as CheckpointError,
    )
    from grym_nb.errors import (
        CommandError as CommandError,
    )
    from grym_nb.errors import (
        ConfigError as ConfigError,
    )
    from grym_nb.errors import (
        DependencyError as DependencyError,
    )
    from grym_nb.errors import (
        GrymError as GrymError,
    )
    from grym_nb.errors import (
        Interrupted as Interrupted,
    )
    from grym_nb.errors import (
        ItemConflict as ItemConflict,
    )
    from grym_nb.errors import (
        ItemNotFound as ItemNotFound,
    )
    from grym_nb.errors import (
        LoadFailed as LoadFailed,
    )
    from grym_nb.errors import (
        MissingExtra as MissingExtra,
    )
    from grym_nb.errors import (
        QueueFull as QueueFull,
    )
    from grym_nb.errors import (
        ReloadFailed as ReloadFailed,
    )
    from grym_nb.errors import (
        ResourceExhausted as ResourceExhausted,
    )
    from grym_nb.errors import (
        RoutingError as RoutingError,
    )
    from grym_nb.errors import (
        ServiceClosed as ServiceClosed,
    )
    from grym_nb.errors import (
        ServiceError as ServiceError,
    )
    from grym_nb.errors import (
        ServiceNotFound as ServiceNotFound,
    )
    from grym_nb.errors import (
        ServiceNotReady as ServiceNotReady,
    )
    from grym_nb.errors import (
        StateError as StateError,
    )
    from grym_nb.errors import (
        StorageError as StorageError,
    )
    from grym_nb.errors import (
        TaskFailed as TaskFailed,
    )
    from grym_nb.errors import (
        TaskNotFound as TaskNotFound,
    )
    from grym_nb.errors import (
        UnknownName as UnknownName,
    )
    from grym_nb.errors import (
        ValidationError as ValidationError,
    )
    from grym_nb.runtime import Runtime as Runtime
    from grym_nb.runtime import current as current
    from grym_nb.runtime import get as get
    from grym_nb.runtime import register as register
    from grym_nb.runtime import run as run
    from grym_nb.runtime import submit as submit
    from grym_nb.services import (
        ModelService as ModelService,
    )
    from grym_nb.services import (
        Task as Task,
    )
    from grym_nb.services import (
        TaskResult as TaskResult,
    )
    from grym_nb.services import (
        task as task,
    )
    from grym_nb.services import (
        track as track,
    )
    from grym_nb.settings import Settings as Settings

__version__ = "0.1.0"

_ERRORS = (
    "AudioError BreakerOpen CallBlocked CallCancelled CallTimeout CheckpointError CommandError "
    "ConfigError DependencyError GrymError Interrupted ItemConflict ItemNotFound LoadFailed MissingExtra "
    "QueueFull ReloadFailed ResourceExhausted RoutingError ServiceClosed ServiceError ServiceNotFound "
    "ServiceNotReady StateError StorageError TaskFailed TaskNotFound UnknownName ValidationError"
)

#: where each public name lives
_HOME = {
    "Clip": "grym_nb.clip",
    "ModelService": "grym_nb.services",
    "Runtime": "grym_nb.runtime",
    "Settings": "grym_nb.settings",
    "Task": "grym_nb.services",
    "TaskResult": "grym_nb.services",
    "current": "grym_nb.runtime",
    "get": "grym_nb.runtime",
    "register": "grym_nb.runtime",
    "run": "grym_nb.runtime",
    "submit": "grym_nb.runtime",
    "task": "grym_nb.services",
    "track": "grym_nb.services",
    **dict.fromkeys(_ERRORS.split(), "grym_nb.errors"),
}

__all__ = [*sorted(_HOME), "load_ipython_extension", "unload_ipython_extension"]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise _unknown(name)
    import importlib

    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def _unknown(name: str) -> AttributeError:
    if name.startswith("_"):  # asked by Python and its tools, and not by a person
        return AttributeError(f"module 'grym_nb' has no attribute {name!r}")
    from grym_nb.errors import UnknownName, closest

    able = [name for name in __all__ if name.islower() and "ipython" not in name]
    more = "; of the registry: current().registry, with remove(name) and more"
    return UnknownName(
        f"grym_nb has no {name!r}.{closest(name, __all__)}", hint=f"it has {', '.join(able)}{more}", name=name
    )


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Install the notebook's face: ``%load_ext grym_nb``."""
    from grym_nb.notebook.extension import install

    install(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Take the notebook's face away again; services stay."""
    from grym_nb.notebook.extension import uninstall

    uninstall(shell)
