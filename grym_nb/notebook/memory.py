"""`%grym mem`: who holds what, why somebody went, and what is left of those that did, given back."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from grym_nb.errors import CommandError
from grym_nb.hardening.accounts import decisions_table
from grym_nb.hardening.replay import Use, write
from grym_nb.notebook.sheet import Sheet
from grym_nb.render import count

if TYPE_CHECKING:
    from grym_nb.runtime import Runtime

__all__ = ["memory"]

_SHOWN = 20  # decisions


def memory(runtime: Runtime, given: Namespace) -> Sheet:
    """Return what `%grym mem` shows: the books, the decisions, or what was freed or written."""
    pool = runtime.resources
    if given.budget is not None:
        pool.budget(_budgets(given.budget))
    sheets = [_freed(runtime)] if given.free else []
    if given.why:
        sheets.append(_why(runtime))
    if given.trace is not None:
        sheets.append(_trace(runtime, Path(given.trace).expanduser()))
    first, *more = sheets or [_books(runtime)]
    return Sheet(
        first.title, (*first.parts, *(part for one in more for part in (one.title, *one.parts) if part))
    )


def _why(runtime: Runtime) -> Sheet:
    pool = runtime.resources
    decisions = pool.decisions[-_SHOWN:]
    if not decisions:
        return Sheet("nobody had to go, or to wait for memory, so far")
    return Sheet("", (decisions_table(decisions, pool.ledger.clock()),))


def _budgets(words: list[str]) -> dict[str, str | None] | None:
    """Return budgets as they are typed: ``4GB``, or ``cuda:0=20GB cpu=4GB``, or ``none``."""
    if words in (["none"], ["None"]):
        return None
    parts: list[str] = []
    for word in words:
        if "=" in word or not parts:
            parts.append(word)
        else:
            parts[-1] += word  # typed with a space: 4 GB
    told = [part.rpartition("=") for part in parts]
    return {name or "total": None if size in ("none", "None") else size for name, _, size in told}


def _books(runtime: Runtime) -> Sheet:
    told = runtime.resources.memory()
    return Sheet(told.title, tuple(told.tables()))


def _trace(runtime: Runtime, path: Path) -> Sheet:
    """Write which services were called when, for `grym_nb.hardening.replay`."""
    known = {}
    for handle in runtime.registry.handles():
        record = handle._record
        if record.footprint.sizes and record.load_seconds is not None:
            known[record.name] = sum(record.footprint.sizes.values()), record.load_seconds
    calls = sorted(runtime.registry.calls(), key=lambda call: call.at)
    uses = [Use(call.at, call.service, *known[call.service]) for call in calls if call.service in known]
    if not uses:
        return Sheet("no service whose size was measured has been called so far: nothing was written")
    try:
        write(path, uses)
    except OSError as error:
        raise CommandError(f"%grym mem --trace: {error.strerror}: {path}") from None
    told = f"{count(len(uses), 'call')} of {count(len({use.service for use in uses}), 'service')} in {path}"
    return Sheet(f"{told}; `python -m grym_nb.hardening.replay {path} --budget 4GB` compares policies on it")


def _freed(runtime: Runtime) -> Sheet:
    freed = runtime.resources.free()
    return Sheet(freed.told, (freed.left,) if freed.left.rows else ())
