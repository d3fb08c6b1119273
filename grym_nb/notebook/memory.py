"""`%grym mem`: who holds what, why somebody went, and what is left of those that did, given back."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from grym_nb.devices import memory_limit, process_memory
from grym_nb.errors import CommandError
from grym_nb.hardening.accounts import decisions_table
from grym_nb.hardening.holders import Root, holders_of, notebook_roots, survey
from grym_nb.hardening.replay import Use, write
from grym_nb.hardening.returning import can_trim, give_back
from grym_nb.hardening.storages import storages_of
from grym_nb.notebook.sheet import Sheet
from grym_nb.render import Table, count, seconds, size
from grym_nb.services.parts import FITS_FOR, fit_of

if TYPE_CHECKING:
    from grym_nb.runtime import Runtime

__all__ = ["memory"]

_SHOWN = 20  # decisions
_WORTH_SHOWING = 1_000_000  # bytes
_FRAMES = "the frames of the last failure, kept for %grym debug"


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
    left = _left(runtime)
    parts: list[Table | str] = [*runtime.resources.memory().tables()]
    parts += [table for table in (_learned(runtime), _parted(runtime)) if table.rows]
    if left.rows:
        parts += [left, "%grym mem --free lets go of what is not yours"]
    return Sheet(" · ".join((_process(), *_context(runtime), *_loads(runtime))), tuple(parts))


def _process() -> str:
    """Say what this process has, and what it may have."""
    held, limit = process_memory(), memory_limit()
    told = f"this kernel has {size(held.rss)}"
    if held.anonymous is not None:
        told += f", {size(held.anonymous)} of it its own"
    return told if limit is None else f"{told}; {limit.source} lets it have {size(limit.size)}"


def _context(runtime: Runtime) -> Iterator[str]:
    """Say what the context has, which is in nobody's books."""
    store = runtime._context
    if store is not None and not store.closed and (held := store.stats().bytes) >= _WORTH_SHOWING:
        yield f"the context has {size(held)} of it"


def _loads(runtime: Runtime) -> Iterator[str]:
    """Say what loading took, and how much of it was for models that had been there before."""
    records = [handle._record for handle in runtime.registry.handles()]
    again = {record.name: record.loads - 1 for record in records if record.loads > 1}
    if again:
        cost = sum(again[one.name] * (one.load_seconds or 0.0) for one in records if one.name in again)
        yield f"{count(sum(again.values()), 'load')} of what had been there before: {seconds(cost)}"


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


def _learned(runtime: Runtime) -> Table:
    """Return what calls take beside the weights, as far as that was learned."""
    rows = []
    for handle in runtime.registry.handles():
        record = handle._record
        for (task, config, code), peaks in list(record.footprint.peaks.items()):
            if (config, code) == (record.config_version, record.code_version) and peaks.is_much:
                wrong = "-" if peaks.error is None else f"{peaks.error:+.0%}"
                rows.append((f"{handle.name}.{task}", peaks.told, wrong))
    return Table("what calls take beside the weights", ("call", "learned", "last off by"), rows)


def _parted(runtime: Runtime) -> Table:
    """Return which batches are computed in parts, since all at a time did not fit."""
    rows = []
    for handle in runtime.registry.handles():
        record = handle._record
        for task in tuple(record.footprint.fits):
            if (fit := fit_of(record, task)) is not None:
                left = max(0.0, fit.at + FITS_FOR - record.ports.clock())
                rows.append((f"{handle.name}.{task}", str(fit.items), f"in {seconds(left)}"))
    columns = ("call", "items at a time", "all are tried again")
    return Table("computed in parts, as memory ran out", columns, rows)


def _left(runtime: Runtime) -> Table:
    """Return what is left of models that were let go of, and who holds it."""
    rows = []
    left = runtime.resources.left()
    roots = survey(_roots(runtime)) if left else []
    for remains in left:
        for holder in holders_of(remains, roots):
            todo = holder.hint or ("%grym mem --free" if holder.free is not None else "")
            rows.append((remains.owner, size(holder.size), holder.name, todo))
    title, kept = _kept(runtime)
    if kept >= _WORTH_SHOWING:
        rows.append((title, size(kept), _FRAMES, "%grym mem --free"))
    return Table("still there of what is over", ("of", "has", "held by", "let go of it with"), rows)


def _kept(runtime: Runtime) -> tuple[str, int]:
    """Return what failed last, and how many bytes its frames hold that are in nobody's books."""
    failures = runtime.registry.ports.failures
    failure, traceback = failures.failure, failures.traceback
    if failure is None or traceback is None:
        return "", 0
    books = runtime.resources.ledger.of_others()
    held = sum(size for key, size in storages_of(traceback).items() if key not in books)
    return f"{failure.service}.{failure.task}", held


def _roots(runtime: Runtime) -> list[Root]:
    failures = runtime.registry.ports.failures
    ours = Root(_FRAMES, (failures.traceback,), failures.clear)
    store = runtime._context
    items = {} if store is None or store.closed else store.held()
    shared = [
        Root(f"the context ({id})", tuple(parts), None, f"%grym context rm {id}")
        for id, parts in items.items()
    ]
    return [ours, *shared, *notebook_roots()]


def _let_go(runtime: Runtime) -> list[str]:
    """Let go of what is not the user's; return its names, and nothing that would hold it here."""
    names: dict[str, None] = {}
    if _kept(runtime)[1] >= _WORTH_SHOWING:
        runtime.registry.ports.failures.clear()
        names[_FRAMES] = None
    left = runtime.resources.left()
    roots = survey(_roots(runtime)) if left else []
    for remains in left:
        for holder in holders_of(remains, roots):
            if holder.free is not None:
                holder.free()
                names[holder.name] = None
    return [*names]


def _freed(runtime: Runtime) -> Sheet:
    """Let go of what is not the user's, and say what that gave back, and what is left and why."""
    before = process_memory()
    names = _let_go(runtime)
    back = give_back()
    freed = before.rss - process_memory().rss
    told = [f"let go of {', '.join(names) or 'nothing of what is not yours'}"]
    told[0] += f"; {size(max(0, freed))} went back to the system"
    if not back and not can_trim():
        told.append("this system's C library keeps freed pages until they are needed again")
    left = _left(runtime)
    return Sheet(" · ".join(told), (left,) if left.rows else ())
