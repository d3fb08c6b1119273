"""What Tab offers on a `%grym` line: commands, options, services, tasks and variables."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from grym_nb.notebook.commands import COMMANDS, Command, parser_of

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["Matcher", "matcher_for", "offers"]

Matcher = Callable[[Any], dict[str, Any]]

#: a line up to the cursor: `%grym ...`, `%%grym ...`, `name = %grym ...`
_LINE = re.compile(r"\s*(?:[^\W\d][\w.]*\s*=\s*)?(%%?)grym\s+(.*)", re.DOTALL)


def matcher_for(shell: InteractiveShell) -> Matcher:
    """Return a matcher for IPython's completer (its second API)."""
    from IPython.core.completer import SimpleCompletion, context_matcher

    def grym(context: Any) -> dict[str, Any]:
        match = _LINE.fullmatch(context.text_until_cursor)
        if match is None or (match[1] == "%%" and context.cursor_line != 0):
            return {"completions": []}
        try:
            fragment, texts = offers(match[2], cell=match[1] == "%%", variables=_variables(shell))
        except Exception:  # Tab offers nothing rather than a traceback in the middle of typing
            return {"completions": []}
        return {
            "completions": [SimpleCompletion(text=text, type="grym") for text in texts],
            "matched_fragment": fragment,
            "suppress": bool(texts),  # Jedi would offer Python names, and evaluate for it
            "ordered": True,
        }

    matcher: Matcher = context_matcher(identifier="grym")(grym)
    return matcher


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
        return _tasks(words[0])
    if position == "command" and at == 0:
        return [other.name for other in COMMANDS]
    return ()


def _services() -> list[str]:
    from grym_nb.runtime import current

    return list(current().registry)


def _tasks(service: str) -> tuple[str, ...]:
    """Return a service's tasks as far as they are known without importing or loading anything."""
    from grym_nb.runtime import current

    handle = current().registry.get(service, None)
    return () if handle is None else handle.status().tasks
