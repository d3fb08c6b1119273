"""What went wrong, kept as text: the user's frames and the shapes of what was in them.

Frames pin tensors, so none is kept, but for one slot: the live frames of the LAST failure, for
``%grym debug``. Unloading the service, or the next failure, clears it.
"""

from __future__ import annotations

import linecache
import os
import re
import sys
import sysconfig
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from types import TracebackType
from typing import Any

from grym_nb.render import is_secret, redacted

__all__ = [
    "Failure",
    "LastFailure",
    "Site",
    "describe",
    "named",
    "place_of",
    "sites_of",
    "to_the_users",
    "words_of",
]

_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_LIBRARIES = tuple(
    {os.path.realpath(path) + os.sep for key, path in sysconfig.get_paths().items() if "lib" in key}
)
_MOST_SITES = 12
_MOST_CAUSES = 3
#: a name, a sign, and the text that it is given: `token="..."`, `"token": "..."`
_LITERAL = re.compile(r"""(["']?\w+["']?\s*[=:]\s*)(?:"[^"]*"|'[^']*')""")


@dataclass(frozen=True, slots=True)
class Site:
    """One frame as text: where, the line, and what the local names were."""

    file: str
    line: int
    function: str
    code: str
    values: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}: {self.code}"

    def text(self) -> str:
        """Return the frame as lines: where, the code, and each local name with its shape."""
        told = [f"{self.file}:{self.line} in {self.function}", f"    {self.code}"]
        told += [f"        {name} = {value}" for name, value in self.values.items()]
        return "\n".join(told)


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure in full, without a live frame."""

    service: str
    task: str
    version: str
    error: str
    message: str
    inputs: tuple[str, ...]
    sites: tuple[Site, ...]
    causes: tuple[str, ...] = ()  # what it was raised from

    def text(self) -> str:
        """Return everything there is to say, as lines."""
        told = [f"{self.service}.{self.task} ({self.version}) raised {self.error}: {self.message}"]
        told += [f"  input: {given}" for given in self.inputs]
        told += [site.text() for site in self.sites]
        told += [f"  raised from {cause}" for cause in self.causes]
        return "\n".join(told)


def _is_ours(file: str) -> bool:
    return os.path.abspath(file).startswith(_HERE)


def _is_library(file: str) -> bool:
    path = os.path.realpath(file)
    return "site-packages" in path or file.startswith("<frozen") or path.startswith(_LIBRARIES)


def named(file: str) -> str:
    """Return how a person calls the file: ``In[3]`` for a cell, else a path from here."""
    if "IPython" in sys.modules:
        shell = sys.modules["IPython"].get_ipython()
        told = getattr(getattr(shell, "compile", None), "format_code_name", lambda name: None)(file)
        if told:
            return re.sub(r"^.*?(In\s?\[\d+\]).*$", r"\1", " ".join(told))
    relative = os.path.relpath(file) if os.path.isabs(file) else file
    return file if relative.startswith("..") else relative


def sites_of(traceback: TracebackType | None) -> tuple[Site, ...]:
    """Return the user's frames of a traceback, outermost first; ours and libraries' are left out."""
    sites = []
    while traceback is not None:
        frame, line = traceback.tb_frame, traceback.tb_lineno
        file = frame.f_code.co_filename
        if not _is_ours(file) and not _is_library(file):
            code = _without_secrets(linecache.getline(file, line, frame.f_globals).strip())
            names = {} if frame.f_code.co_name == "<module>" else frame.f_locals
            values = redacted({name: value for name, value in names.items() if not name.startswith("__")})
            sites.append(Site(named(file), line, frame.f_code.co_name, code, values))
        traceback = traceback.tb_next
    return tuple(sites[-_MOST_SITES:])


def words_of(error: BaseException) -> str:
    """Return what an error says; where it is of a file's text, without the place."""
    return error.msg if isinstance(error, SyntaxError) else _words(error)


def place_of(error: BaseException) -> str:
    """Return `` (file:line)`` of the user's where an error was raised; empty where it was in none."""
    if isinstance(error, SyntaxError):
        file, line = error.filename, error.lineno
    elif told := getattr(getattr(error, "failure", None), "sites", ()):  # of ours, for the author's
        file, line = told[-1].file, told[-1].line
    elif sites := sites_of(error.__traceback__):
        file, line = sites[-1].file, sites[-1].line
    else:
        return ""
    return f" ({named(file or '').partition(' (edit ')[0]}:{line})"


def _without_secrets(code: str) -> str:
    """Return a line of code without the texts that it gives to names of secrets: outputs get committed."""
    return _LITERAL.sub(lambda found: f"{found[1]}'***'" if is_secret(found[1]) else found[0], code)


def to_the_users(traceback: TracebackType | None) -> TracebackType | None:
    """Return a traceback without the last frames that are ours: it ends where the user's code called us."""
    frames = []
    while traceback is not None:
        frames.append(traceback)
        traceback = traceback.tb_next
    whole = frames.copy()
    while frames and _is_ours(frames[-1].tb_frame.f_code.co_filename):
        frames.pop()
    if len(frames) in (0, len(whole)):
        return whole[0] if whole else None
    shorter: TracebackType | None = None
    for at in reversed(frames):  # made anew: the one that is kept stays whole
        shorter = TracebackType(shorter, at.tb_frame, at.tb_lasti, at.tb_lineno)
    return shorter


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as mute:
        return f"<its __str__ raised {type(mute).__name__}>"


def describe(
    error: BaseException,
    *,
    service: str,
    task: str,
    version: str,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    names: Sequence[str] = (),
) -> Failure:
    """Return what went wrong as text; the error's traceback is read and not kept.

    `names` are those of the positional arguments: by them a secret is known.
    """
    named = zip_longest(names[: len(args)], args, fillvalue="")
    inputs = [redacted({name: arg})[name] for name, arg in named]
    inputs += [f"{name}={told}" for name, told in redacted(kwargs or {}).items()]
    return Failure(
        service=service,
        task=task,
        version=version,
        error=type(error).__name__,
        message=_words(error),
        inputs=tuple(inputs),
        sites=sites_of(error.__traceback__),
        causes=_causes_of(error),
    )


def _causes_of(error: BaseException) -> tuple[str, ...]:
    causes: list[str] = []
    while len(causes) < _MOST_CAUSES:
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is None:
            break
        sites = sites_of(cause.__traceback__)
        causes.append(f"{type(cause).__name__}: {_words(cause)}" + (f", at {sites[-1]}" if sites else ""))
        error = cause
    return tuple(causes)


class LastFailure:
    """The one slot that holds live frames: those of the last failure."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: tuple[Failure, TracebackType | None] | None = None

    def keep(self, failure: Failure, traceback: TracebackType | None) -> None:
        """Put this failure's frames in the slot, in place of the one before."""
        with self._lock:
            self._kept = (failure, traceback)

    def clear(self, service: str | None = None) -> None:
        """Let go of the live frames (of `service`, or whosever they are); the text stays."""
        with self._lock:
            if self._kept is not None and service in (None, self._kept[0].service):
                self._kept = (self._kept[0], None)

    @property
    def failure(self) -> Failure | None:
        """The last failure as text."""
        kept = self._kept
        return kept[0] if kept is not None else None

    @property
    def traceback(self) -> TracebackType | None:
        """The live frames of the last failure, or None once they were let go."""
        kept = self._kept
        return kept[1] if kept is not None else None
