"""The commands of `%grym`: one table of what they are called, what they do and how they are typed."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Literal

from grym_nb.errors import CommandError, closest
from grym_nb.notebook import actions
from grym_nb.notebook.typed import Parser, words_of

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from grym_nb.notebook.sheet import Sheet

__all__ = ["COMMANDS", "Command", "Position", "command", "dispatch", "parser_of"]

#: what stands at a position of a line, so that Tab can offer it
Position = Literal[
    "command",
    "service",
    "services",
    "task",
    "call",
    "values",
    "version",
    "source",
    "watching",
    "panel",
    "model",
    "session",
]


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
    if not near and _is_service(name):
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


def _is_service(name: str) -> bool:
    from grym_nb.runtime import current

    return name in current().registry


# -- what asks for the table itself ----------------------------------------------------------------


def _run(shell: InteractiveShell, given: Namespace) -> object:
    from grym_nb.notebook.calling import run
    from grym_nb.runtime import current

    return run(current().registry, given.words, shell.user_ns, usage=command("run").line)


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


# -- the table -------------------------------------------------------------------------------------


COMMANDS: tuple[Command, ...] = (
    Command(
        "status",
        "the services, or one of them in full",
        "[SERVICE]",
        ("%grym", "%grym status loudness", "st = %grym status"),
        actions.status,
        actions.maybe_service,
        ("service",),
    ),
    Command(
        "load",
        "loads services now, and what they need; --model: of which directory, hub id or zoo:NAME",
        "SERVICE... [--model REF]",
        ("%grym load loudness", "%grym load wav2vec2 --model models/speech"),
        actions.load,
        actions.load_options,
        ("services",),
    ),
    Command(
        "unload",
        "lets running calls end, then gives the memory back",
        "SERVICE... [--timeout S]",
        ("%grym unload loudness", "%grym unload loudness dsp --timeout 5"),
        actions.unload,
        actions.unload_options,
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
        "reload",
        "puts in force what was edited, with the weights as they are, and tells what came of it",
        "SERVICE... [--force] [--share S]",
        ("%grym reload loudness", "%grym reload loudness --force", "%grym reload loudness --share 10%"),
        actions.reload,
        actions.reload_options,
        ("services",),
    ),
    Command(
        "rollback",
        "has the version of before serve again",
        "SERVICE",
        ("%grym rollback loudness",),
        actions.rollback,
        actions.a_service,
        ("service",),
    ),
    Command(
        "diff",
        "what differs in the source of two versions: the last two, or one and that which serves",
        "SERVICE [VERSION [VERSION]]",
        ("%grym diff loudness", "%grym diff loudness v1 v3"),
        actions.diff,
        actions.service_and_versions,
        ("service", "source", "source"),
    ),
    Command(
        "compare",
        "the last calls, answered by two versions: what differs, and how long each takes",
        "SERVICE [VERSION [VERSION]]",
        ("%grym compare loudness", "%grym compare loudness v1 v3"),
        actions.compare,
        actions.service_and_versions,
        ("service", "version", "version"),
    ),
    Command(
        "watch",
        "whether files are reloaded as they are saved: on, off, or how it stands",
        "[on | off | status]",
        ("%grym watch on", "%grym watch", "%grym watch off"),
        actions.watch,
        actions.watch_options,
        ("watching",),
    ),
    Command(
        "dashboard",
        "all panels, or some, live also while a cell runs; off ends it",
        "[services] [metrics] [memory] [calls] [health] [log] | off",
        ("%grym dashboard", "%grym dashboard services calls", "%grym dashboard off"),
        actions.dashboard,
        actions.some_panels,
        ("panel",),
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
        actions.context,
        None,
        ("values",),
    ),
    Command(
        "calls",
        "the calls that run now and how far they are, then the last ones",
        "",
        ("%grym calls",),
        actions.calls,
        actions.nothing,
    ),
    Command(
        "cancel",
        "asks calls to end, by their numbers in %grym calls",
        "CALL... | all",
        ("%grym cancel 12 13", "%grym cancel $call", "%grym cancel all"),
        actions.cancel,
        actions.some_calls,
        ("call",),
    ),
    Command(
        "session",
        "which services there are, how they are set and which are loaded: into a file, or back from it",
        "save [FILE] | restore [FILE]",
        ("%grym session save", "%grym session restore", "%grym session save monday.json"),
        actions.session,
        None,
        ("session",),
    ),
    Command(
        "devices",
        "the devices: which call has each, how many wait for it, and how it was used",
        "",
        ("%grym devices",),
        actions.devices,
        actions.nothing,
    ),
    Command(
        "mem",
        "memory: who has what, why somebody went (--why), and what is left of it given back (--free)",
        "[--why] [--free] [--trace FILE] [--budget SIZE | DEVICE=SIZE ... | none]",
        ("%grym mem", "%grym mem --why", "%grym mem --free", "%grym mem --budget 4GB"),
        actions.mem,
        actions.mem_options,
    ),
    Command(
        "health",
        "how the services do and why, and what could be better",
        "[SERVICE]",
        ("%grym health", "%grym health loudness"),
        actions.health,
        actions.maybe_service,
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
        actions.metrics,
        actions.metrics_options,
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
        actions.alerts,
        actions.alerts_options,
    ),
    Command(
        "topology",
        "which service needs and calls which, and what fails if one fails",
        "[SERVICE]",
        ("%grym topology", "%grym topology dsp"),
        actions.topology,
        actions.maybe_service,
        ("service",),
    ),
    Command(
        "why",
        "the last error in full: your frames, and the shapes in them",
        "[SERVICE]",
        ("%grym why", "%grym why loudness"),
        actions.why,
        actions.maybe_service,
        ("service",),
    ),
    Command(
        "debug",
        "a debugger in the frames of the last failure",
        "",
        ("%grym debug",),
        actions.debug,
        actions.nothing,
    ),
    Command(
        "doctor",
        "what is wrong with this environment, and the cure",
        "",
        ("%grym doctor",),
        actions.doctor,
        actions.nothing,
    ),
    Command(
        "zoo",
        "the small models that come with the package, their sizes and scores; of one, its card",
        "[MODEL]",
        ("%grym zoo", "%grym zoo dtmf"),
        actions.zoo,
        actions.maybe_model,
        ("model",),
    ),
    Command(
        "glossary",
        "what things were called elsewhere",
        "",
        ("%grym glossary",),
        actions.glossary,
        actions.nothing,
    ),
    Command(
        "help",
        "the commands, or how one of them is typed",
        "[COMMAND]",
        ("%grym help", "%grym help run"),
        _help,
        actions.maybe_command,
        ("command",),
    ),
    Command(
        "service",
        "defines or redefines a service by the class in the cell",
        "NAME [--needs A,B] [--memory 2GB] [--budget 3GB] [--ttl S] [--concurrency N] [name=value ...]",
        ("%%grym service loudness --memory 200MB block_s=0.4\nclass Loudness(grym.ModelService):\n    ...",),
        actions.define,
        actions.service_options,
        ("service", "values"),
        cell=True,
    ),
)
