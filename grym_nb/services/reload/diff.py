"""What an edit changed: the source of one version beside that of another, line by line."""

from __future__ import annotations

import ast
import difflib
import html
import linecache
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any

from grym_nb.errors import StateError, closest
from grym_nb.render import count
from grym_nb.services.failure import named
from grym_nb.services.syntax import parsed

if TYPE_CHECKING:
    from grym_nb.services.handle import ServiceHandle
    from grym_nb.services.record import ServiceRecord
    from grym_nb.services.reload.report import Reload

__all__ = ["Diff", "Texts", "diff", "known_versions", "source_of", "texts_by_version", "unified"]

_MOST_BYTES = 16_000  # of a repr: it is kept in the notebook's file
_LINES = 3  # around what differs

#: of a line, by its first sign: both colours are said, so it reads on dark and on light
_STYLES = {
    "+": "background: #dafbe1; color: #0a3d1a",
    "-": "background: #ffebe9; color: #82071e",
    "@": "color: #5c6bc0",
}

#: by a name for each source, its text
Texts = Mapping[str, str]


@dataclass(frozen=True, slots=True, repr=False)
class Diff:
    """What differs between two versions, as a unified diff; `text()` is all of it, the reprs are bounded."""

    service: str
    before: str
    after: str
    lines: tuple[str, ...]

    @property
    def title(self) -> str:
        """Say what is compared, and how much differs."""
        more, less = (
            sum(line.startswith(sign) and not line.startswith(sign * 3) for line in self.lines)
            for sign in "+-"
        )
        told = f"{count(more, 'line')} more, {count(less, 'line')} less" if self.lines else "the same source"
        return f"{self.service} {self.before} → {self.after}: {told}"

    def text(self) -> str:
        """Return all of it."""
        return "\n".join([self.title, *self.lines])

    def __repr__(self) -> str:
        return "\n".join([self.title, *self._fitting(str)])

    def _repr_html_(self) -> str:
        shown = "\n".join(self._fitting(_coloured))
        title = f"<p><b>{html.escape(self.title)}</b></p>"
        return f"{title}<pre>{shown}</pre>" if shown else title

    def _fitting(self, shown: Any) -> Iterator[str]:
        room = _MOST_BYTES
        for line in self.lines:
            told = shown(line.encode(errors="replace").decode())
            room -= len(told.encode()) + 1
            if room < 0:
                yield "… cut here; .text() of the object has all of it"
                return
            yield told


def _coloured(line: str) -> str:
    style = _STYLES.get(line[:1]) if line[:3] not in ("+++", "---") else "font-weight: bold"
    told = html.escape(line)
    return told if style is None else f'<span style="{style}">{told}</span>'


def diff(handle: ServiceHandle, one: str | int | None = None, other: str | int | None = None) -> Diff:
    """Tell two versions of a service apart by their source: the last two, or one and that which serves."""
    record = handle._record
    files, cells = _files(record), _registered(record)
    known = {*files, *cells}
    if len(known) < 2:
        raise StateError(
            f"{record.name} has no two versions to tell apart",
            hint="a version comes with each edit that is reloaded, or registered again",
            service=record.name,
        )
    if one is None:
        first, second = sorted(known)[-2:]
    else:
        first = _number(record, known, one)
        second = record.code_version if other is None else _number(record, known, other)
    texts = files if first in files and second in files else cells
    names = known_versions(handle)
    lines = unified(texts.get(first, {}), texts.get(second, {}))
    return Diff(record.name, names[first], names[second], tuple(lines))


def known_versions(handle: ServiceHandle) -> dict[int, str]:
    """Return the versions of which the source is known, as they are called, by number."""
    record = handle._record
    labels = {number: spec.label for number, spec in record.specs.items()}
    return {number: labels.get(number) or f"v{number}" for number in sorted({*_files(record), *labels})}


def unified(before: Texts, after: Texts) -> Iterator[str]:
    """Yield the lines of a unified diff of several texts; what has one text in both is left out."""
    for name in sorted({*before, *after}):
        one, other = before.get(name, ""), after.get(name, "")
        if one != other:
            yield from difflib.unified_diff(
                one.splitlines(), other.splitlines(), name, name, n=_LINES, lineterm=""
            )


def texts_by_version(reloads: Iterable[Reload]) -> dict[int, Texts]:
    """Return the texts of the edited files, as each version had them; one edited later was as before it."""
    edits = [one for one in reloads if one.sources]
    now: dict[str, str] = {}
    for one in reversed(edits):
        now.update({file: texts[0] for file, texts in one.sources.items()})
    known: dict[int, Texts] = {}
    for one in edits:
        known.setdefault(one.numbers[0], now)
        if one.how != "refused":
            now = {**now, **{file: texts[1] for file, texts in one.sources.items()}}
            known[one.numbers[1]] = now
    return known


def _files(record: ServiceRecord) -> dict[int, Texts]:
    """Return the texts of each version as its files were reloaded."""
    return {
        number: {named(file): text for file, text in texts.items()}
        for number, texts in texts_by_version(record.reloads).items()
    }


def _registered(record: ServiceRecord) -> dict[int, Texts]:
    """Return the texts of each version as it was registered: by a cell that was run."""
    return {
        number: source_of(_made_by(spec.callable))
        for number, spec in tuple(record.specs.items())
        if not isinstance(spec.factory, str) or "callable" in spec.__dict__
    }


def _made_by(factory: Any) -> Any:
    while isinstance(factory, partial):
        factory = factory.func
    return factory


def _number(record: ServiceRecord, known: Iterable[int], version: str | int) -> int:
    names = {f"v{number}": number for number in known}
    names |= {str(number): number for number in known}
    names |= {spec.label: number for number, spec in record.specs.items() if spec.label and number in known}
    try:
        return names[str(version)]
    except KeyError:
        told = [f"v{number}" for number in sorted(known)]
        raise StateError(
            f"the source of {record.name} {version} is not known.{closest(str(version), told)}",
            hint=f"it is of {', '.join(told)}",
            service=record.name,
        ) from None


# -- of a cell -------------------------------------------------------------------------------------


def source_of(made: Any) -> dict[str, str]:
    """Return the source of a class or function by its name, with what it uses of the same cell or file.

    It is read as `linecache` has it: IPython keeps the text of each cell that ran.
    """
    file = next((code.co_filename for code in _codes(made)), "")
    if not file:
        return {}
    text = "".join(linecache.getlines(file))
    try:
        body = parsed(text).body
    except (SyntaxError, ValueError):
        return {}
    wanted = {made.__qualname__.partition(".")[0]}
    kept: dict[int, ast.stmt] = {}
    while True:
        more = {at: one for at, one in enumerate(body) if at not in kept and _binds(one) & wanted}
        if not more:
            break
        kept |= more
        wanted = {node.id for one in more.values() for node in ast.walk(one) if isinstance(node, ast.Name)}
    lines = text.splitlines()
    parts = ["\n".join(lines[_first(one) - 1 : one.end_lineno]) for _, one in sorted(kept.items())]
    return {made.__qualname__: "\n\n\n".join(parts)} if parts else {}


def _codes(made: Any) -> Iterator[Any]:
    functions = vars(made).values() if isinstance(made, type) else (made,)
    for one in functions:
        one = getattr(one, "__func__", one)
        if isinstance(one, FunctionType):
            yield one.__code__


def _binds(statement: ast.stmt) -> set[str]:
    """Return the names that a statement of a module defines, where it is a definition or assigns names."""
    match statement:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return {name}
        case ast.Assign(targets=targets):
            nodes = [node for target in targets for node in ast.walk(target)]
            return {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
    return set()


def _first(statement: ast.stmt) -> int:
    decorators: Sequence[ast.expr] = getattr(statement, "decorator_list", ())
    return min([statement.lineno, *(one.lineno for one in decorators)])
