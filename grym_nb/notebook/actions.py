"""What the commands of `%grym` do, and what options they take; `commands` has the table of them."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from grym_nb.errors import CommandError, LoadFailed

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from grym_nb.notebook.typed import Parser
    from grym_nb.services import ServiceHandle, ServiceRegistry

__all__ = [
    "a_service",
    "alerts",
    "alerts_options",
    "calls",
    "cancel",
    "compare",
    "context",
    "dashboard",
    "debug",
    "define",
    "devices",
    "diff",
    "doctor",
    "glossary",
    "health",
    "load",
    "load_options",
    "maybe_command",
    "maybe_model",
    "maybe_service",
    "mem",
    "mem_options",
    "metrics",
    "metrics_options",
    "nothing",
    "reload",
    "reload_options",
    "rollback",
    "service_and_versions",
    "service_options",
    "session",
    "some_calls",
    "some_panels",
    "some_services",
    "status",
    "topology",
    "unload",
    "unload_options",
    "watch",
    "watch_options",
    "why",
    "zoo",
]


# -- services --------------------------------------------------------------------------------------


def _registry() -> ServiceRegistry:
    from grym_nb.runtime import current

    return current().registry


def status(shell: InteractiveShell, given: Namespace) -> object:
    """Return the table of services, or one of them in full."""
    return _registry().status() if given.service is None else _registry()[given.service].status()


def _shown(handles: Sequence[ServiceHandle]) -> object:
    """Return one handle itself, several as a table."""
    if len(handles) == 1:
        return handles[0]
    from grym_nb.services.status import StatusTable

    return StatusTable(tuple(handle.status() for handle in handles))


def load(shell: InteractiveShell, given: Namespace) -> object:
    """Load services now, and return them."""
    handles = [_registry()[name] for name in given.services]  # a typing error is told before a long load
    if given.model is not None:
        if len(handles) > 1:
            raise CommandError(
                f"%grym load --model is for one service, not for {len(handles)}",
                hint=f"one at a time: %grym load {handles[0].name} --model {given.model}",
            )
        return _with_model(handles[0], given.model)
    return _shown([handle.load() for handle in handles])


def _with_model(handle: ServiceHandle, model: str) -> ServiceHandle:
    """Load a service with another checkpoint; where that cannot be, it has the one that it had."""
    before = handle.config.get("model")
    handle.configure(model=model)
    try:
        return handle.load()
    except LoadFailed:
        handle.configure(model=before)
        raise


def unload(shell: InteractiveShell, given: Namespace) -> object:
    """Let go of services, and return them."""
    handles = [_registry()[name] for name in given.services]
    return _shown([handle.unload(given.timeout) for handle in handles])


def context(shell: InteractiveShell, given: Namespace) -> object:
    """Do what stands behind `context`."""
    from grym_nb.notebook.context import act

    return act(shell, given.words)


def dashboard(shell: InteractiveShell, given: Namespace) -> object:
    """Return the panels, live where there is a page; or end them."""
    from grym_nb.notebook.dashboard import dashboard, end_dashboard
    from grym_nb.notebook.sheet import Sheet
    from grym_nb.runtime import current

    if given.panels == ["off"]:
        return Sheet("the dashboard has ended" if end_dashboard(shell) else "there is no dashboard")
    return dashboard(shell, current(), given.panels)


def session(shell: InteractiveShell, given: Namespace) -> object:
    """Write down which services there are, or bring them back."""
    from grym_nb.notebook.session import session
    from grym_nb.runtime import current

    return session(current(), given.words)


# -- looking ---------------------------------------------------------------------------------------


def calls(shell: InteractiveShell, given: Namespace) -> object:
    """Return the calls under way, and the last ones."""
    from grym_nb.notebook.calls import calls_of

    return calls_of(_registry())


def cancel(shell: InteractiveShell, given: Namespace) -> object:
    """Ask calls to end."""
    from grym_nb.notebook.calls import cancel

    return cancel(_registry(), given.calls, shell.user_ns)


def devices(shell: InteractiveShell, given: Namespace) -> object:
    """Return who has which device."""
    from grym_nb.runtime import current

    return current().resources.table()


def mem(shell: InteractiveShell, given: Namespace) -> object:
    """Return who has what memory, or give back what is left."""
    from grym_nb.notebook.memory import memory
    from grym_nb.runtime import current

    return memory(current(), given)


def why(shell: InteractiveShell, given: Namespace) -> object:
    """Return the last error in full."""
    from grym_nb.notebook.why import why, why_service

    return why(_registry()) if given.service is None else why_service(_registry()[given.service])


def debug(shell: InteractiveShell, given: Namespace) -> object:
    """Open a debugger in the frames of the last failure."""
    from grym_nb.notebook.why import debug

    debug(shell, _registry())
    return None


def doctor(shell: InteractiveShell, given: Namespace) -> object:
    """Return what is wrong with this environment."""
    from grym_nb.notebook.doctor import examine

    return examine(shell)


def glossary(shell: InteractiveShell, given: Namespace) -> object:
    """Return what things were called elsewhere."""
    from grym_nb.notebook.glossary import glossary

    return glossary()


def zoo(shell: InteractiveShell, given: Namespace) -> object:
    """Return the models that come with the package, or the card of one."""
    from grym_nb.notebook.zoo import zoo

    return zoo(given.model)


def define(shell: InteractiveShell, given: Namespace) -> object:
    """Define the service of a cell."""
    __tracebackhide__ = True
    from grym_nb.notebook.cells import define

    return define(shell, given)


def health(shell: InteractiveShell, given: Namespace) -> object:
    """Return how the services do."""
    from grym_nb.notebook.health import health
    from grym_nb.runtime import current

    return health(current(), given)


def metrics(shell: InteractiveShell, given: Namespace) -> object:
    """Return how their calls went."""
    from grym_nb.notebook.figures import metrics
    from grym_nb.runtime import current

    return metrics(current(), given)


def alerts(shell: InteractiveShell, given: Namespace) -> object:
    """Return what fires, or silence it."""
    from grym_nb.notebook.health import alerts
    from grym_nb.runtime import current

    return alerts(current(), given)


def topology(shell: InteractiveShell, given: Namespace) -> object:
    """Return who needs and calls whom."""
    from grym_nb.notebook.health import topology_of
    from grym_nb.runtime import current

    return topology_of(current(), given)


# -- other code ------------------------------------------------------------------------------------


def reload(shell: InteractiveShell, given: Namespace) -> object:
    """Put in force what was edited of services; return what came of it."""
    from grym_nb.notebook.editing import reload

    return reload([_registry()[name] for name in given.services], force=given.force, share=given.share)


def rollback(shell: InteractiveShell, given: Namespace) -> object:
    """Have the version of before serve again."""
    return _registry()[given.service].rollback()


def diff(shell: InteractiveShell, given: Namespace) -> object:
    """Return what differs between the source of two versions."""
    from grym_nb.services.reload.diff import diff

    return diff(_registry()[given.service], given.one, given.other)


def compare(shell: InteractiveShell, given: Namespace) -> object:
    """Return how two versions answer the same calls."""
    from grym_nb.services.reload.compare import compare

    return compare(_registry()[given.service], given.one, given.other)


def watch(shell: InteractiveShell, given: Namespace) -> object:
    """Begin or end to put in force what is saved, or tell whether that is so."""
    from grym_nb.notebook.editing import watch

    return watch(_registry(), given.action)


# -- how they are typed ----------------------------------------------------------------------------


def nothing(parser: Parser) -> None:
    """Declare nothing: it takes no words."""


def mem_options(parser: Parser) -> None:
    """Declare the options of `mem`."""
    parser.add_argument("--budget", nargs="+", metavar="4GB")
    parser.add_argument("--why", action="store_true")
    parser.add_argument("--free", action="store_true")
    parser.add_argument("--trace", metavar="FILE")


def metrics_options(parser: Parser) -> None:
    """Declare the options of `metrics`."""
    maybe_service(parser)
    parser.add_argument("--since", metavar="5m")
    parser.add_argument("--export", nargs="+", metavar="FORMAT")
    parser.add_argument("--serve", nargs="?", const="0", metavar="PORT")


def alerts_options(parser: Parser) -> None:
    """Declare the options of `alerts`."""
    parser.add_argument("--rules", action="store_true")
    parser.add_argument("--silence", nargs="+", metavar="RULE")
    parser.add_argument("--unsilence", nargs="+", metavar="RULE")
    parser.add_argument("--minutes", type=float, metavar="M")


def maybe_service(parser: Parser) -> None:
    """Declare a service that may be left out."""
    parser.add_argument("service", nargs="?", metavar="SERVICE")


def some_services(parser: Parser) -> None:
    """Declare one service or more."""
    parser.add_argument("services", nargs="+", metavar="SERVICE")


def load_options(parser: Parser) -> None:
    """Declare the options of `load`."""
    some_services(parser)
    parser.add_argument("--model", metavar="REF")


def unload_options(parser: Parser) -> None:
    """Declare the options of `unload`."""
    some_services(parser)
    parser.add_argument("--timeout", type=float, metavar="S")


def reload_options(parser: Parser) -> None:
    """Declare the options of `reload`."""
    some_services(parser)
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--share", type=_share, metavar="S")


def _share(text: str) -> float:
    """Read a share, as a number or in percent."""
    try:
        return float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
    except ValueError:
        raise ArgumentTypeError(f"found {text!r}, expected such as 10%, or 0.1") from None


def a_service(parser: Parser) -> None:
    """Declare one service."""
    parser.add_argument("service", metavar="SERVICE")


def service_and_versions(parser: Parser) -> None:
    """Declare one service, and versions of it."""
    a_service(parser)
    parser.add_argument("one", nargs="?", metavar="VERSION")
    parser.add_argument("other", nargs="?", metavar="VERSION")


def watch_options(parser: Parser) -> None:
    """Declare what `watch` is told."""
    parser.add_argument("action", nargs="?", default="status", metavar="on|off|status")


def some_calls(parser: Parser) -> None:
    """Declare the numbers of calls."""
    parser.add_argument("calls", nargs="+", metavar="CALL")


def some_panels(parser: Parser) -> None:
    """Declare the names of panels."""
    parser.add_argument("panels", nargs="*", metavar="PANEL")


def maybe_command(parser: Parser) -> None:
    """Declare a command that may be left out."""
    parser.add_argument("command", nargs="?", metavar="COMMAND")


def maybe_model(parser: Parser) -> None:
    """Declare a model of the zoo that may be left out."""
    parser.add_argument("model", nargs="?", metavar="MODEL")


def service_options(parser: Parser) -> None:
    """Declare the options of `%%grym service`."""
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("config", nargs="*", default=[], metavar="name=value")
    parser.add_argument("--needs", default="", metavar="A,B")
    parser.add_argument("--memory", metavar="2GB")
    parser.add_argument("--budget", metavar="3GB")
    parser.add_argument("--ttl", type=float, metavar="S")
    parser.add_argument("--concurrency", type=int, default=1, metavar="N")
