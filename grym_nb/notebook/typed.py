"""From what is typed after `%grym` to words and values; nothing typed is ever evaluated."""

from __future__ import annotations

import argparse
import ast
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from grym_nb.errors import CommandError, closest

__all__ = ["Parser", "Words", "keyword", "refers", "text_of", "value_of", "variable", "words_of"]

_REFERENCE = re.compile(r"\$(\w+)|\{(\w+)\}")
_INSIDE = re.compile(r"\$[^\W\d]\w*[.\[(]")
_KEYWORD = re.compile(r"([^\W\d]\w*)=(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a line; `quiet` says that it ended with a semicolon, so nothing is to be shown."""

    words: tuple[str, ...]
    quiet: bool = False


def words_of(line: str, *, posix: bool = os.name != "nt") -> Words:
    """Return the words of a line as a shell would divide it, comments left out.

    On Windows a backslash is a part of a path and not an escape.
    """
    try:
        words = shlex.split(line, comments=True, posix=posix)
        raw = shlex.split(line, comments=True, posix=False)
    except ValueError as error:
        raise CommandError(
            f"%grym cannot divide this line into words: {str(error).lower()}",
            cause=line,
            hint="a quote inside of a word: put the word in the other kind of quotes",
        ) from None
    if not posix:
        words = [_unquoted(word) for word in words]
    quiet = bool(raw) and raw[-1].endswith(";")  # a semicolon inside of quotes belongs to the word
    if quiet and words:
        words[-1] = words[-1].removesuffix(";")
        if not words[-1]:
            words.pop()
    return Words(tuple(words), quiet)


def _unquoted(word: str) -> str:
    quoted = len(word) > 1 and word[0] == word[-1] and word[0] in "'\""
    return word[1:-1] if quoted else word


def keyword(word: str) -> tuple[str, str] | None:
    """Return the two sides of ``name=value``, or None when the word is no such thing."""
    match = _KEYWORD.fullmatch(word)
    return None if match is None else (match[1], match[2])


def value_of(word: str, variables: Mapping[str, Any]) -> Any:
    """Return what a word stands for.

    ``$name`` and ``{name}`` are the object of that name itself; a literal (``3``, ``[1, 2]``, ``None``) is
    its value; anything else is the text.
    """
    name = refers(word)
    if name:
        return variable(name, variables)
    if (inside := _INSIDE.match(word)) is not None:
        raise CommandError(
            f"{word} is more than a name: nothing typed here is evaluated",
            hint=f"give it a name in a cell, part = {word[1:]}, then $part; '\"{inside[0]}...\"' is a text",
        )
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return word


def text_of(word: str, variables: Mapping[str, Any]) -> Any:
    """Return the text that a word is, also where it would be a number: a key may be ``42``.

    ``$name`` is the object of that name, and None is None.
    """
    value = value_of(word, variables)
    return value if value is None or isinstance(value, str) or refers(word) else word


def refers(word: str) -> str:
    """Return the name of the variable that a word stands for, or an empty string when it is no such thing."""
    match = _REFERENCE.fullmatch(word)
    name = "" if match is None else match[1] or match[2]
    return name if name.isidentifier() else ""


def variable(name: str, variables: Mapping[str, Any]) -> Any:
    """Return the object of that name; an unknown one is an error that names the closest."""
    try:
        return variables[name]
    except KeyError:
        known = [known for known in variables if not known.startswith("_")]
        raise CommandError(
            f"there is no variable {name!r}.{closest(name, known)}",
            hint=f"define it in a cell first; '\"${name}\"' is the text",
        ) from None


class Parser(argparse.ArgumentParser):
    """The options of one command; what does not fit is a `CommandError`, and nothing exits."""

    def __init__(self, command: str, usage: str) -> None:
        super().__init__(prog=command, usage=usage, add_help=False, allow_abbrev=False)
        self.flags: tuple[str, ...] = ()

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        """Add an option or a position, as `argparse` does."""
        self.flags += tuple(name for name in names if name.startswith("-"))
        return super().add_argument(*names, **options)

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Return the values of the options; an unknown option is told with the closest."""
        # Intermixed: `unload a --timeout 3 b` is as good as `unload a b --timeout 3`.
        found, rest = self.parse_known_intermixed_args(list(words))
        if rest:
            near = closest(rest[0], self.flags)
            self.error(f"does not take {rest[0]!r}.{near}")
        return found

    def error(self, message: str) -> NoReturn:
        """Raise a `CommandError` with the usage as the hint."""
        joint = " " if message.startswith("does not") else ": "
        raise CommandError(f"{self.prog}{joint}{message}", hint=f"usage: {self.usage}")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Raise a `CommandError`: a kernel is not to be left."""
        self.error((message or f"would end with status {status}").strip())
