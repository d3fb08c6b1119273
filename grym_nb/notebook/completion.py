"""What Tab offers on a `%grym` line (commands, options, services, tasks, parameters, variables, what is in
the context store), and inside of `grym.get("`: services.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from grym_nb.errors import CommandError
from grym_nb.notebook.calling import out_of
from grym_nb.notebook.commands import COMMANDS, Command, parser_of
from grym_nb.notebook.context import ACTIONS
from grym_nb.notebook.typed import keyword, words_of
from grym_nb.priority import PRIORITIES

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from grym_nb.services.model import TaskSpec

__all__ = ["Matcher", "matcher_for", "offers"]

Matcher = Callable[[Any], dict[str, Any]]

#: a line up to the cursor: `%grym ...`, `%%grym ...`, `name = %grym ...`
_LINE = re.compile(r"\s*(?:[^\W\d][\w.]*\s*=\s*)?(%%?)grym\s+(.*)", re.DOTALL)

#: the end of code up to the cursor: `grym.get("`, `registry.get('`, `grym.current().registry.get("`
_GET = re.compile(
    r"""(?<![\w.])(?P<name>[^\W\d]\w*)\s*(?P<more>\.\s*current\(\s*\)\s*\.\s*registry\s*)?"""
    r"""\.\s*get\(\s*["'](?P<begun>[^"'\\]*)\Z"""
)


def matcher_for(shell: InteractiveShell) -> Matcher:
    """Return a matcher for IPython's completer (its second API)."""
    from IPython.core.completer import SimpleCompletion, context_matcher

    def grym(context: Any) -> dict[str, Any]:
        try:
            fragment, texts = _offered(shell, context.text_until_cursor, first=context.cursor_line == 0)
        except Exception:  # Tab offers nothing rather than a traceback in the middle of typing
            texts = []
        if not texts:
            return {"completions": []}
        return {
            "completions": [SimpleCompletion(text=text, type="grym") for text in texts],
            "matched_fragment": fragment,
            "suppress": True,  # Jedi would offer Python names, and evaluate for it
            "ordered": True,
        }

    matcher: Matcher = context_matcher(identifier="grym")(grym)
    return matcher


def _offered(shell: InteractiveShell, text: str, *, first: bool) -> tuple[str, list[str]]:
    """Return what is to be completed at the end of a line of a cell, and what it could become."""
    match = _LINE.fullmatch(text)
    if match is None:
        return _in_get(text, shell.user_ns)
    cell = match[1] == "%%"
    return ("", []) if cell and not first else offers(match[2], cell=cell, variables=_variables(shell))


def _in_get(text: str, variables: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the services for `grym.get("`; the object is looked up by its plain name and not touched."""
    match = _GET.search(text)
    of = None if match is None else variables.get(match["name"])
    if match is None or of is None:
        return "", []
    names: Iterable[str] = ()
    if of is sys.modules.get("grym_nb"):
        names = _services()
    elif not match["more"] and _is_registry(of):
        names = list(of)
    # A name that is not written as it is could not stand inside of the quotes.
    fit = (name for name in names if repr(name) == f"'{name}'" and '"' not in name)
    return match["begun"], [name for name in fit if name.startswith(match["begun"])]


def _is_registry(value: object) -> bool:
    from grym_nb.services import ServiceRegistry

    return issubclass(type(value), ServiceRegistry)  # `isinstance` would ask the value


def _variables(shell: InteractiveShell) -> list[str]:
    hidden = shell.user_ns_hidden
    return sorted(name for name in shell.user_ns if not name.startswith("_") and name not in hidden)


def offers(line: str, *, cell: bool = False, variables: Iterable[str] = ()) -> tuple[str, list[str]]:
    """Return the word at the end of a line, and what it could become; reads names and never values."""
    words = line.split()
    fragment = words.pop() if words and not line[-1:].isspace() else ""
    texts: Iterable[str]
    if not words:
        texts = [known.name for known in COMMANDS if known.cell == cell]
    else:
        known = next((c for c in COMMANDS if c.name == words[0] and c.cell == cell), None)
        if known is None:
            return fragment, []
        texts = _next(known, words[1:], fragment, list(variables))
        if known.name == "run":
            texts = [*texts, *_parameters(line[: len(line) - len(fragment)], fragment)]
        elif known.name == "context":
            texts = [*texts, *_of_context(words[1:], fragment)]
    return fragment, [text for text in texts if text.startswith(fragment)]


def _next(known: Command, words: list[str], fragment: str, variables: list[str]) -> Iterable[str]:
    before = words[-1] if words else ""
    if before in ("-o", "--out"):
        return variables
    if before == "--needs":
        done, comma, _ = fragment.rpartition(",")
        return [f"{done}{comma}{name}" for name in _services() if name not in done.split(",")]
    if fragment.startswith("-"):
        return ("-o", "--out") if known.name == "run" else parser_of(known).flags
    head, equals, value = fragment.rpartition("=")
    if value[:1] in ("$", "{") and "values" in known.positions:
        sign, end = ("$", "") if value[0] == "$" else ("{", "}")
        return [f"{head}{equals}{sign}{name}{end}" for name in variables]
    at = len(words)
    position = known.positions[min(at, len(known.positions) - 1)] if known.positions else None
    if position == "services" or (position == "service" and at == 0):
        return [name for name in _services() if name not in words]
    if position == "task" and at == 1:
        return [spec.method for spec in _known(words[0])]
    if position == "command" and at == 0:
        return [other.name for other in COMMANDS]
    if position == "model" and at == 0:
        return _models()
    if position == "call":
        return [number for number in _calls() if number not in words]
    if position in ("version", "source") and at <= 2:
        return [version for version in _versions(words[0], position) if version not in words[1:]]
    if position == "watching" and at == 0:
        return ("on", "off", "status")
    if position == "session" and at == 0:
        return ("save", "restore")
    if position == "panel":
        from grym_nb.notebook.panels import VIEWS

        return [name for name in (*VIEWS, "off") if name not in words]
    return ()


def _parameters(before: str, fragment: str) -> list[str]:
    """Return ``name=`` for each parameter of the task on a `run` line that is not given yet."""
    try:
        words, _ = out_of(words_of(before).words)
    except CommandError:  # inside of quotes, or where the name of a variable belongs
        return []
    if len(words) < 2 or "=" in fragment:
        return []
    task, args = _called(words[1], words[2:])
    if task is None:
        return []
    given = [pair[0] for word in args if (pair := keyword(word))]
    free = task.checker.names_after(len(args) - len(given))
    return [f"{name}=" for name in free if name not in (*given, "context")]


def _called(service: str, words: list[str]) -> tuple[TaskSpec | None, list[str]]:
    """Return the task that a line calls, as far as that is known, and its arguments."""
    known = _known(service)
    for spec in known:
        if words and words[0] in (spec.method, spec.type):
            return spec, words[1:]
    return (known[0] if len(known) == 1 else None), words


def _services() -> list[str]:
    from grym_nb.runtime import current

    return list(current().registry)


def _models() -> list[str]:
    """Return the models of the zoo, which are known without opening one."""
    from grym_nb.audio.zoo import models

    return [model.name for model in models()]


def _versions(service: str, kind: str) -> list[str]:
    """Return the versions of which the `source` is known, or that can answer beside the one that serves."""
    from grym_nb.runtime import current

    handle = current().registry.get(service, None)
    if handle is None:
        return []
    if kind == "source":
        from grym_nb.services.reload.diff import known_versions

        return [f"v{number}" for number in known_versions(handle)]
    instance = handle._record.instance
    return [] if instance is None else [serving.version for serving in instance.versions]


def _calls() -> list[str]:
    from grym_nb.runtime import current

    registry = current().registry
    return [str(frame.id) for frame in (*registry.running(), *registry.waiting())]


def _known(service: str) -> tuple[TaskSpec, ...]:
    """Return a service's tasks as far as they are known without importing or loading anything."""
    from grym_nb.runtime import current

    handle = current().registry.get(service, None)
    return () if handle is None or not handle.status().tasks else handle.tasks


# -- on a `%grym context` line ---------------------------------------------------------------------

_LOOKED_AT = 20_000  # items, the newest
_MOST = 100  # that are offered of them


def _of_context(words: Sequence[str], fragment: str) -> Iterable[str]:
    """Return what may come next after ``%grym context``; contents are not looked at."""
    if not words:
        return list(ACTIONS)
    action, before = ACTIONS.get(words[0]), words[1:]
    if action is None or before[-1:] in (["-o"], ["--out"]):
        return ()
    if fragment.startswith("-"):
        return action.flags
    name, equals, _ = fragment.partition("=")
    if equals:
        return [f"{name}={value}" for value in _values_of(name)]
    given = {pair[0] for word in before if (pair := keyword(word))}
    return [*_words_of(action.name, before), *(f"{name}=" for name in action.names if name not in given)]


def _words_of(action: str, before: Sequence[str]) -> list[str]:
    if action == "rm":
        return [id for id in _in_store("id") if id not in before]
    if action in ("get", "put") and not before:
        return [*_in_store("type"), *(_in_store("id") if action == "get" else ())]
    if action == "get" and len(before) == 1:
        return _in_store("key", before[0])
    return ["off"] if action == "watch" and not before else []


def _values_of(name: str) -> Iterable[str]:
    if name in ("priority", "min_priority"):
        return PRIORITIES
    return _in_store(name) if name in ("type", "key", "source", "workflow", "task") else ()


def _in_store(field: str, type: str | None = None) -> list[str]:
    """Return what the items (of a type) have in a field, the newest first, as far as it is one plain word."""
    from grym_nb.runtime import current

    store = current()._context  # asked for as `context`, it would be made
    entries = [] if store is None else list(store._shelf.entries.values())
    items = (entry.item for entry in islice(reversed(entries), _LOOKED_AT))
    found: dict[str, None] = {}
    for item in items:
        text = getattr(item, field)
        if text and type in (None, item.type) and text not in found and shlex.quote(text) == text:
            found[text] = None
            if len(found) == _MOST:
                break
    return list(found)
