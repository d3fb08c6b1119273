"""The commands of `%grym`: one table of what they are called, what they do and how they are typed."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Literal

from grym_nb.errors import CommandError, closest
from grym_nb.notebook.typed import Parser, words_of

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from grym_nb.notebook.sheet import Sheet
    from grym_nb.services import ServiceHandle, ServiceRegistry

__all__ = ["COMMANDS", "Command", "Position", "command", "dispatch", "parser_of"]

#: what stands at a position of a line, so that Tab can offer it
Position = Literal["command", "service", "services", "task", "call", "values"]


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its name, what it does in a line, how it is typed, and the function behind it.

    The function gets the shell and what the parser found: `declare` adds the options; without it the words
    are handed over as they are. `cell` marks a command that takes the rest of the cell (`%%grym`).
    """

    name: str
    about: str
    usage: str
    examples: tuple[str, ...]
    do: Callable[[InteractiveShell, Namespace], object]
    declare: Callable[[Parser], object] | None = None
    positions: tuple[Position, ...] = ()
    cell: bool = False

    @property
    def line(self) -> str:
        """How it is typed, in full."""
        return f"{'%%' if self.cell else '%'}grym {self.name} {self.usage}".rstrip()


def command(name: str, *, cell: bool = False) -> Command:
    """Return the command of that name; an unknown one is an error that names the closest."""
    table = {known.name: known for known in COMMANDS if known.cell == cell}
    if name in table:
        return table[name]
    if cell:
        known = f"%%grym {name} takes no cell.{closest(name, table)}" if name else "%%grym: which command?"
        raise CommandError(
            known,
            hint=f"a service is defined with {table['service'].line}; the other commands have one % sign",
        )
    if any(known.name == name for known in COMMANDS):
        raise CommandError(
            f"%grym {name} takes the class from the lines below it",
            hint=f"two % signs, and the class below: {command(name, cell=True).line}",
        )
    near = closest(name, table)
    hint = "%grym help lists the commands"
    if not near and name in _registry():
        hint = f"{name} is a service: %grym status {name}, or %grym run {name} ..."
    raise CommandError(f"there is no command {name!r}.{near}", hint=hint)


def parser_of(known: Command) -> Parser:
    """Return the parser of a command's options."""
    parser = Parser(f"{'%%' if known.cell else '%'}grym {known.name}", known.line)
    if known.declare is not None:
        known.declare(parser)
    return parser


def dispatch(shell: InteractiveShell, line: str, body: str | None = None) -> object:
    """Run a line, or a line with the rest of its cell, and return what its command returns.

    Nothing is returned when the line ended with a semicolon.
    """
    __tracebackhide__ = True
    typed = words_of(line)
    name, *rest = typed.words or ("status" if body is None else "",)
    if name in ("-h", "--help"):
        return _help(shell, Namespace(command=None))
    known = command(name, cell=body is not None)
    if {"-h", "--help"} & set(takewhile(lambda word: word != "--", rest)):
        return _help_of(known)
    given = Namespace(words=rest) if known.declare is None else parser_of(known).parse(rest)
    given.line, given.body = line, body
    shown = known.do(shell, given)
    return None if typed.quiet else shown


# -- services --------------------------------------------------------------------------------------


def _registry() -> ServiceRegistry:
    from grym_nb.runtime import current

    return current().registry


def _status(shell: InteractiveShell, given: Namespace) -> object:
    return _registry().status() if given.service is None else _registry()[given.service].status()


def _shown(handles: Sequence[ServiceHandle]) -> object:
    """Return one handle itself, several as a table."""
    if len(handles) == 1:
        return handles[0]
    from grym_nb.services.status import StatusTable

    return StatusTable(tuple(handle.status() for handle in handles))


def _load(shell: InteractiveShell, given: Namespace) -> object:
    handles = [_registry()[name] for name in given.services]  # a typing error is told before a long load
    return _shown([handle.load() for handle in handles])


def _unload(shell: InteractiveShell, given: Namespace) -> object:
    handles = [_registry()[name] for name in given.services]
    return _shown([handle.unload(given.timeout) for handle in handles])


def _run(shell: InteractiveShell, given: Namespace) -> object:
    from grym_nb.notebook.calling import run

    return run(_registry(), given.words, shell.user_ns, usage=command("run").line)


def _context(shell: InteractiveShell, given: Namespace) -> object:
    from grym_nb.notebook.context import act

    return act(shell, given.words)


# -- looking ---------------------------------------------------------------------------------------


def _calls(shell: InteractiveShell, given: Namespace) -> object:
    from grym_nb.notebook.calls import calls_of

    return calls_of(_registry())


def _cancel(shell: InteractiveShell, given: Namespace) -> object:
    from grym_nb.notebook.calls import cancel

    return cancel(_registry(), given.calls, shell.user_ns)


def _devices(shell: InteractiveShell, given: Namespace) -> object:
    from grym_nb.runtime import current

    return current().resources.table()


def _mem(shell: InteractiveShell, given: Namespace) -> object:
    from grym_nb.notebook.memory import memory
    from grym_nb.runtime import current

    return memory(current(), given)


def _why(shell: InteractiveShell, given: Namespace) -> object:
    from grym_nb.notebook.why import why, why_service

    return why(_registry()) if given.service is None else why_service(_registry()[given.service])


def _debug(shell: InteractiveShell, given: Namespace) -> object:
    from grym_nb.notebook.why import debug

    debug(shell, _registry())
    return None


def _doctor(shell: InteractiveShell, given: Namespace) -> object:
    from grym_nb.notebook.doctor import examine

    return examine(shell)


def _glossary(shell: InteractiveShell, given: Namespace) -> object:
    from grym_nb.notebook.glossary import glossary

    return glossary()


def _help(shell: InteractiveShell, given: Namespace) -> object:
    if given.command is not None:
        name = given.command.removeprefix("%%").removeprefix("%")
        both = [known for known in COMMANDS if known.name == name]
        return _help_of(both[0] if both else command(name))
    from grym_nb.notebook.sheet import Sheet
    from grym_nb.render import Table

    rows = [(f"{'%%' if known.cell else '%'}grym {known.name}", known.about) for known in COMMANDS]
    more = "%grym help run shows how a command is typed, with examples to copy; %grym? shows all of them."
    return Sheet("", (Table("commands", ("command", "what comes back"), rows), more))


def _help_of(known: Command) -> Sheet:
    from grym_nb.notebook.sheet import Sheet

    return Sheet(f"{known.line}: {known.about}", ("\n".join(known.examples),))


def _define(shell: InteractiveShell, given: Namespace) -> object:
    __tracebackhide__ = True
    from grym_nb.notebook.cells import define

    return define(shell, given)


# -- the table -------------------------------------------------------------------------------------


def _health(shell: InteractiveShell, given: Namespace) -> object:
    from grym_nb.notebook.health import health
    from grym_nb.runtime import current

    return health(current(), given)


def _metrics(shell: InteractiveShell, given: Namespace) -> object:
    from grym_nb.notebook.figures import metrics
    from grym_nb.runtime import current

    return metrics(current(), given)


def _alerts(shell: InteractiveShell, given: Namespace) -> object:
    from grym_nb.notebook.health import alerts
    from grym_nb.runtime import current

    return alerts(current(), given)


def _topology(shell: InteractiveShell, given: Namespace) -> object:
    from grym_nb.notebook.health import topology_of
    from grym_nb.runtime import current

    return topology_of(current(), given)


def _nothing(parser: Parser) -> None:
    return None


def _mem_options(parser: Parser) -> None:
    parser.add_argument("--budget", nargs="+", metavar="4GB")
    parser.add_argument("--why", action="store_true")
    parser.add_argument("--free", action="store_true")
    parser.add_argument("--trace", metavar="FILE")


def _metrics_options(parser: Parser) -> None:
    _maybe_service(parser)
    parser.add_argument("--since", metavar="5m")
    parser.add_argument("--export", nargs="+", metavar="FORMAT")
    parser.add_argument("--serve", nargs="?", const="0", metavar="PORT")


def _alerts_options(parser: Parser) -> None:
    parser.add_argument("--rules", action="store_true")
    parser.add_argument("--silence", nargs="+", metavar="RULE")
    parser.add_argument("--unsilence", nargs="+", metavar="RULE")
    parser.add_argument("--minutes", type=float, metavar="M")


def _maybe_service(parser: Parser) -> None:
    parser.add_argument("service", nargs="?", metavar="SERVICE")


def _some_services(parser: Parser) -> None:
    parser.add_argument("services", nargs="+", metavar="SERVICE")


def _unload_options(parser: Parser) -> None:
    _some_services(parser)
    parser.add_argument("--timeout", type=float, metavar="S")


def _some_calls(parser: Parser) -> None:
    parser.add_argument("calls", nargs="+", metavar="CALL")


def _maybe_command(parser: Parser) -> None:
    parser.add_argument("command", nargs="?", metavar="COMMAND")


def _service_options(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("config", nargs="*", default=[], metavar="name=value")
    parser.add_argument("--needs", default="", metavar="A,B")
    parser.add_argument("--memory", metavar="2GB")
    parser.add_argument("--budget", metavar="3GB")
    parser.add_argument("--ttl", type=float, metavar="S")
    parser.add_argument("--concurrency", type=int, default=1, metavar="N")


COMMANDS: tuple[Command, ...] = (
    Command(
        "status",
        "the services, or one of them in full",
        "[SERVICE]",
        ("%grym", "%grym status loudness", "st = %grym status"),
        _status,
        _maybe_service,
        ("service",),
    ),
    Command(
        "load",
        "loads services now, and what they need",
        "SERVICE...",
        ("%grym load loudness",),
        _load,
        _some_services,
        ("services",),
    ),
    Command(
        "unload",
        "lets running calls end, then gives the memory back",
        "SERVICE... [--timeout S]",
        ("%grym unload loudness", "%grym unload loudness dsp --timeout 5"),
        _unload,
        _unload_options,
        ("services",),
    ),
    Command(
        "run",
        "the answer of a task; $name passes the object of that name, -o keeps the answer in a variable",
        "SERVICE [TASK] ARG... [name=value ...] [-o VAR]",
        (
            "%grym run dsp loudness $clip",
            "%grym run dsp mel $clip n_mels=80 -o picture",
            "answer = %grym run echo 'two words' times=3",
        ),
        _run,
        None,
        ("service", "task", "values"),
    ),
    Command(
        "context",
        "what models share: the items as a table, read, put, taken out, watched; a filter is name=value",
        "[list] [FILTER ...] | get ID | get TYPE [KEY] | put TYPE VALUE [name=value ...] | rm ID... | "
        "clear FILTER ... | clear --all | stats | open FILE | watch [FILTER ...] | watch off",
        (
            "%grym context",
            "%grym context list type=tempo min_priority=high tags=beat,live order=oldest",
            "%grym context put tempo $found key=song-1 ttl=600 priority=high tags=beat,live",
            "%grym context put style 'slow and dark' ttl=never pinned=true -o item",
            "%grym context get tempo song-1 -o tempo",
            "%grym context rm $item",
            "%grym context clear source=madmom",
            "%grym context open context.db",
            "%grym context watch type=tempo kinds=put,expired",
            "%grym context watch off",
        ),
        _context,
        None,
        ("values",),
    ),
    Command(
        "calls",
        "the calls that run now and how far they are, then the last ones",
        "",
        ("%grym calls",),
        _calls,
        _nothing,
    ),
    Command(
        "cancel",
        "asks calls to end, by their numbers in %grym calls",
        "CALL... | all",
        ("%grym cancel 12 13", "%grym cancel $call", "%grym cancel all"),
        _cancel,
        _some_calls,
        ("call",),
    ),
    Command(
        "devices",
        "the devices: which call has each, how many wait for it, and how it was used",
        "",
        ("%grym devices",),
        _devices,
        _nothing,
    ),
    Command(
        "mem",
        "memory: who has what, why somebody went (--why), and what is left of it given back (--free)",
        "[--why] [--free] [--trace FILE] [--budget SIZE | DEVICE=SIZE ... | none]",
        ("%grym mem", "%grym mem --why", "%grym mem --free", "%grym mem --budget 4GB"),
        _mem,
        _mem_options,
    ),
    Command(
        "health",
        "how the services do and why, and what could be better",
        "[SERVICE]",
        ("%grym health", "%grym health loudness"),
        _health,
        _maybe_service,
        ("service",),
    ),
    Command(
        "metrics",
        "how their calls, and what is yours, went lately; --export writes the figures to a file",
        "[SERVICE] [--since 5m] [--export prometheus|openmetrics|json|csv FILE] [--serve [PORT|off]]",
        (
            "%grym metrics asr --since 1h",
            "%grym metrics --export csv figures.csv",
            "%grym metrics asr --since 1h --export json asr.json",
            "%grym metrics --serve",
        ),
        _metrics,
        _metrics_options,
        ("service",),
    ),
    Command(
        "alerts",
        "what fires, and what somebody was told of lately; --silence a rule for a while",
        "[--rules] [--silence RULE|all] [--minutes M] [--unsilence RULE|all]",
        (
            "%grym alerts",
            "%grym alerts --rules",
            "%grym alerts --silence failing --minutes 30",
            "%grym alerts --unsilence failing",
        ),
        _alerts,
        _alerts_options,
    ),
    Command(
        "topology",
        "which service needs and calls which, and what fails if one fails",
        "[SERVICE]",
        ("%grym topology", "%grym topology dsp"),
        _topology,
        _maybe_service,
        ("service",),
    ),
    Command(
        "why",
        "the last error in full: your frames, and the shapes in them",
        "[SERVICE]",
        ("%grym why", "%grym why loudness"),
        _why,
        _maybe_service,
        ("service",),
    ),
    Command("debug", "a debugger in the frames of the last failure", "", ("%grym debug",), _debug, _nothing),
    Command(
        "doctor",
        "what is wrong with this environment, and the cure",
        "",
        ("%grym doctor",),
        _doctor,
        _nothing,
    ),
    Command("glossary", "what things were called elsewhere", "", ("%grym glossary",), _glossary, _nothing),
    Command(
        "help",
        "the commands, or how one of them is typed",
        "[COMMAND]",
        ("%grym help", "%grym help run"),
        _help,
        _maybe_command,
        ("command",),
    ),
    Command(
        "service",
        "defines or redefines a service by the class in the cell",
        "NAME [--needs A,B] [--memory 2GB] [--budget 3GB] [--ttl S] [--concurrency N] [name=value ...]",
        ("%%grym service loudness --memory 200MB block_s=0.4\nclass Loudness(grym.ModelService):\n    ...",),
        _define,
        _service_options,
        ("service", "values"),
        cell=True,
    ),
)
