"""`%grym run SERVICE [TASK] ARG... [name=value ...] [-o VAR]`: a call, typed as a line."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from grym_nb.errors import CommandError, ValidationError, closest
from grym_nb.notebook.typed import keyword, value_of

if TYPE_CHECKING:
    from grym_nb.services import ServiceHandle, ServiceRegistry

__all__ = ["out_of", "run"]


def run(
    registry: ServiceRegistry, words: Sequence[str], variables: MutableMapping[str, Any], *, usage: str
) -> object:
    """Return the answer of the task; with ``-o NAME`` put it into that variable and return None."""
    rest, out = out_of(words)
    if not rest:
        raise CommandError("%grym run: which service?", hint=f"usage: {usage}")
    handle = registry[rest[0]]
    task, rest = _task_of(handle, rest[1:])
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in rest:
        pair = keyword(word)
        if pair is None:
            args.append(value_of(word, variables))
        elif pair[0] in kwargs:
            raise CommandError(f"%grym run {handle.name}: {pair[0]} is given twice", hint="say it once")
        else:
            kwargs[pair[0]] = value_of(pair[1], variables)
    try:
        value = handle.run(task, *args, **kwargs)
    except ValidationError as error:
        if any(isinstance(given, str) for given in (*args, *kwargs.values())):
            error.hint += "; $name passes the object of that name"
        raise
    if out is None:
        return value
    variables[out] = value
    return None


def out_of(words: Sequence[str], *, command: str = "%grym run") -> tuple[list[str], str | None]:
    """Return the words without ``-o NAME``, and the name; after ``--`` every word is a value."""
    rest: list[str] = []
    out: str | None = None
    at = iter(words)
    for word in at:
        if word == "--":
            rest.extend(at)
        elif word in ("-o", "--out"):
            out = next(at, "")
            if not out.isidentifier():
                raise CommandError(
                    f"{command} {word} needs a variable's name, not {out!r}", hint=f"{word} result"
                )
        elif word.startswith("--") and word[2:3].isalpha():
            near = closest(word, ("--out",))
            raise CommandError(
                f"{command} does not take {word!r}.{near}",
                hint=f"a text that begins so comes after --: -- {word}",
            )
        else:
            rest.append(word)
    return rest, out


def _task_of(handle: ServiceHandle, words: list[str]) -> tuple[str, list[str]]:
    """Return the task and the words after it; the task may be left out when there is only one."""
    known = handle.tasks or handle.load().tasks  # what a factory makes may be known only then
    if words and any(words[0] in (spec.method, spec.type) for spec in known):
        return words[0], words[1:]
    if len(known) == 1:
        return known[0].method, words
    if words:
        handle.run(words[0])  # the service itself says that it has no such task, and which is closest
    names = ", ".join(spec.method for spec in known)
    raise CommandError(
        f"%grym run {handle.name}: which task?", hint=f"it has several: {names}", service=handle.name
    )
