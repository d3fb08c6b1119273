"""`%grym mem`: who holds what, why somebody went, and what is left of those that did, given back."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from grym_nb.devices import memory_limit, process_memory
from grym_nb.hardening.accounts import decisions_table
from grym_nb.hardening.holders import Holder, Root, holders_of, notebook_roots
from grym_nb.hardening.returning import can_trim, give_back
from grym_nb.notebook.sheet import Sheet
from grym_nb.render import Table, size

if TYPE_CHECKING:
    from grym_nb.runtime import Runtime

__all__ = ["memory"]

_SHOWN = 20  # decisions


def memory(runtime: Runtime, given: Namespace) -> Sheet:
    """Return what `%grym mem` shows: the books, the decisions (``--why``), or what was freed (``--free``)."""
    pool = runtime.resources
    if given.budget is not None:
        pool.budget(_budgets(given.budget))
    if given.why:
        decisions = pool.decisions[-_SHOWN:]
        if not decisions:
            return Sheet("nobody had to go, or to wait for memory, so far")
        return Sheet("", (decisions_table(decisions, pool.ledger.clock()),))
    return _freed(runtime) if given.free else _books(runtime)


def _budgets(words: list[str]) -> dict[str, str] | str | None:
    """Return budgets as they are typed: ``4GB``, or ``cuda:0=20GB cpu=4GB``, or ``none``."""
    if len(words) == 1 and "=" not in words[0]:
        return None if words[0] in ("none", "None") else words[0]
    return {name or "total": told for name, _, told in (word.rpartition("=") for word in words)}


def _books(runtime: Runtime) -> Sheet:
    left, learned = _left(runtime), _learned(runtime)
    parts: list[Table | str] = [*runtime.resources.memory().tables()]
    parts += [learned] if learned.rows else []
    if left.rows:
        parts += [left, "%grym mem --free lets go of what is not yours"]
    return Sheet(_process(), tuple(parts))


def _process() -> str:
    """Say what this process has, and what it may have."""
    held, limit = process_memory(), memory_limit()
    told = f"this kernel has {size(held.rss)}"
    if held.anonymous is not None:
        told += f", {size(held.anonymous)} of it its own"
    return told if limit is None else f"{told}; {limit.source} lets it have {size(limit.size)}"


def _learned(runtime: Runtime) -> Table:
    """Return what calls take beside the weights, as far as that was learned."""
    rows = []
    for handle in runtime.registry.handles():
        record = handle._record
        for (task, config, code), peaks in list(record.footprint.peaks.items()):
            if (config, code) == (record.config_version, record.code_version):
                wrong = "-" if peaks.error is None else f"{peaks.error:+.0%}"
                rows.append((f"{handle.name}.{task}", peaks.told, wrong))
    return Table("what calls take beside the weights", ("call", "learned", "last off by"), rows)


def _left(runtime: Runtime) -> Table:
    """Return what is left of models that were let go of, and who holds it."""
    rows = []
    for remains in runtime.resources.left():
        for holder in holders_of(remains, _roots(runtime)):
            todo = holder.hint or ("%grym mem --free" if holder.free is not None else "")
            rows.append((remains.owner, size(holder.size), holder.name, todo))
    return Table("still there of what was unloaded", ("of", "has", "held by", "let go of it with"), rows)


def _roots(runtime: Runtime) -> list[Root]:
    failures = runtime.registry.ports.failures
    ours = Root("the frames kept for %grym debug", (failures.traceback,), failures.clear)
    return [ours, *notebook_roots()]


def _freed(runtime: Runtime) -> Sheet:
    """Let go of what is not the user's, and say what that gave back, and what is left and why."""
    before = process_memory()
    let_go: list[Holder] = []
    for remains in runtime.resources.left():
        for holder in holders_of(remains, _roots(runtime)):
            if holder.free is not None:
                holder.free()
                let_go.append(holder)
    back = give_back()
    freed = before.rss - process_memory().rss
    names = ", ".join(dict.fromkeys(holder.name for holder in let_go)) or "nothing of what is not yours"
    told = [f"let go of {names}; {size(max(0, freed))} went back to the system"]
    if not back and not can_trim():
        told.append("this system's C library keeps freed pages until they are needed again")
    left = _left(runtime)
    return Sheet(" · ".join(told), (left,) if left.rows else ())
