"""What the commands of `%grym` do, and what options they take; `commands` has the table of them."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from grym_nb.notebook.typed import Parser
    from grym_nb.services import ServiceHandle, ServiceRegistry

__all__ = [
    "alerts",
    "alerts_options",
    "calls",
    "cancel",
    "context",
    "debug",
    "define",
    "devices",
    "doctor",
    "glossary",
    "health",
    "load",
    "maybe_command",
    "maybe_service",
    "mem",
    "mem_options",
    "metrics",
    "metrics_options",
    "nothing",
    "service_options",
    "some_calls",
    "some_services",
    "status",
    "topology",
    "unload",
    "unload_options",
    "why",
]


# -- services --------------------------------------------------------------------------------------


def _registry() -> ServiceRegistry:
    from grym_nb.runtime import current

    return current().registry


def status(shell: InteractiveShell, given: Namespace) -> object:
    return _registry().status() if given.service is None else _registry()[given.service].status()


def _shown(handles: Sequence[ServiceHandle]) -> object:
    """Return one handle itself, several as a table."""
    if len(handles) == 1:
        return handles[0]
    from grym_nb.services.status import StatusTable

    return StatusTable(tuple(handle.status() for handle in handles))


def load(shell: InteractiveShell, given: Namespace) -> object:
    handles = [_registry()[name] for name in given.services]  # a typing error is told before a long load
    return _shown([handle.load() for handle in handles])


def unload(shell: InteractiveShell, given: Namespace) -> object:
    handles = [_registry()[name] for name in given.services]
    return _shown([handle.unload(given.timeout) for handle in handles])


def context(shell: InteractiveShell, given: Namespace) -> object:
    from grym_nb.notebook.context import act

    return act(shell, given.words)


# -- looking ---------------------------------------------------------------------------------------


def calls(shell: InteractiveShell, given: Namespace) -> object:
    from grym_nb.notebook.calls import calls_of

    return calls_of(_registry())


def cancel(shell: InteractiveShell, given: Namespace) -> object:
    from grym_nb.notebook.calls import cancel

    return cancel(_registry(), given.calls, shell.user_ns)


def devices(shell: InteractiveShell, given: Namespace) -> object:
    from grym_nb.runtime import current

    return current().resources.table()


def mem(shell: InteractiveShell, given: Namespace) -> object:
    from grym_nb.notebook.memory import memory
    from grym_nb.runtime import current

    return memory(current(), given)


def why(shell: InteractiveShell, given: Namespace) -> object:
    from grym_nb.notebook.why import why, why_service

    return why(_registry()) if given.service is None else why_service(_registry()[given.service])


def debug(shell: InteractiveShell, given: Namespace) -> object:
    from grym_nb.notebook.why import debug

    debug(shell, _registry())
    return None


def doctor(shell: InteractiveShell, given: Namespace) -> object:
    from grym_nb.notebook.doctor import examine

    return examine(shell)


def glossary(shell: InteractiveShell, given: Namespace) -> object:
    from grym_nb.notebook.glossary import glossary

    return glossary()


def define(shell: InteractiveShell, given: Namespace) -> object:
    __tracebackhide__ = True
    from grym_nb.notebook.cells import define

    return define(shell, given)


def health(shell: InteractiveShell, given: Namespace) -> object:
    from grym_nb.notebook.health import health
    from grym_nb.runtime import current

    return health(current(), given)


def metrics(shell: InteractiveShell, given: Namespace) -> object:
    from grym_nb.notebook.figures import metrics
    from grym_nb.runtime import current

    return metrics(current(), given)


def alerts(shell: InteractiveShell, given: Namespace) -> object:
    from grym_nb.notebook.health import alerts
    from grym_nb.runtime import current

    return alerts(current(), given)


def topology(shell: InteractiveShell, given: Namespace) -> object:
    from grym_nb.notebook.health import topology_of
    from grym_nb.runtime import current

    return topology_of(current(), given)


# -- how they are typed ----------------------------------------------------------------------------


def nothing(parser: Parser) -> None:
    return None


def mem_options(parser: Parser) -> None:
    parser.add_argument("--budget", nargs="+", metavar="4GB")
    parser.add_argument("--why", action="store_true")
    parser.add_argument("--free", action="store_true")
    parser.add_argument("--trace", metavar="FILE")


def metrics_options(parser: Parser) -> None:
    maybe_service(parser)
    parser.add_argument("--since", metavar="5m")
    parser.add_argument("--export", nargs="+", metavar="FORMAT")
    parser.add_argument("--serve", nargs="?", const="0", metavar="PORT")


def alerts_options(parser: Parser) -> None:
    parser.add_argument("--rules", action="store_true")
    parser.add_argument("--silence", nargs="+", metavar="RULE")
    parser.add_argument("--unsilence", nargs="+", metavar="RULE")
    parser.add_argument("--minutes", type=float, metavar="M")


def maybe_service(parser: Parser) -> None:
    parser.add_argument("service", nargs="?", metavar="SERVICE")


def some_services(parser: Parser) -> None:
    parser.add_argument("services", nargs="+", metavar="SERVICE")


def unload_options(parser: Parser) -> None:
    some_services(parser)
    parser.add_argument("--timeout", type=float, metavar="S")


def some_calls(parser: Parser) -> None:
    parser.add_argument("calls", nargs="+", metavar="CALL")


def maybe_command(parser: Parser) -> None:
    parser.add_argument("command", nargs="?", metavar="COMMAND")


def service_options(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("config", nargs="*", default=[], metavar="name=value")
    parser.add_argument("--needs", default="", metavar="A,B")
    parser.add_argument("--memory", metavar="2GB")
    parser.add_argument("--budget", metavar="3GB")
    parser.add_argument("--ttl", type=float, metavar="S")
    parser.add_argument("--concurrency", type=int, default=1, metavar="N")
