"""What services add to the report on memory: what calls take, what is kept of them, what loading took."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from grym_nb.hardening.holders import Root, way
from grym_nb.render import Table, count, seconds, size
from grym_nb.services.parts import FITS_FOR, fit_of

if TYPE_CHECKING:
    from grym_nb.services.registry import ServiceRegistry

__all__ = ["report_on"]

_WORTH_SHOWING = 1_000_000  # bytes


def report_on(registry: ServiceRegistry, context: Callable[[], Any]) -> None:
    """Let a pool's report on memory tell of these services, and of the context, once there is one."""
    pool = registry.ports.resources

    def more() -> Iterator[Table | str]:
        yield from _context(context())
        yield from _loads(registry)
        yield from (t for t in (_learned(registry), _parted(registry), _taped(registry)) if t.rows)

    pool.more = more
    pool.leftovers.places = lambda: [_frames(registry), *_items(context())]


def _frames(registry: ServiceRegistry) -> Root:
    """Return the frames of the last failure: what they hold is in nobody's books, and told for itself."""
    failures = registry.ports.failures
    failure = failures.failure
    of = "" if failure is None else f"{failure.service}.{failure.task}"
    kept_for = way(", kept for %grym debug", "")
    return Root(f"the frames of the last failure{kept_for}", (failures.traceback,), failures.clear, owner=of)


def _items(context: Any) -> Iterator[Root]:
    items = {} if context is None or context.closed else context.held()
    for id, parts in items.items():
        hint = way(f"%grym context rm {id}", f"grym.current().context.delete({id!r})")
        yield Root(f"the context ({id})", tuple(parts), None, hint)


def _context(context: Any) -> Iterator[str]:
    """Say what the context has, which is in nobody's books."""
    if context is not None and not context.closed and (held := context.stats().bytes) >= _WORTH_SHOWING:
        yield f"the context has {size(held)} of it"


def _loads(registry: ServiceRegistry) -> Iterator[str]:
    """Say what loading took, and how much of it was for models that had been there before."""
    records = [handle._record for handle in registry.handles()]
    again = {record.name: record.loads - 1 for record in records if record.loads > 1}
    if again:
        cost = sum(again[one.name] * (one.load_seconds or 0.0) for one in records if one.name in again)
        yield f"{count(sum(again.values()), 'load')} of what had been there before: {seconds(cost)}"


def _learned(registry: ServiceRegistry) -> Table:
    """Return what calls take beside the weights, as far as that was learned."""
    rows = []
    for handle in registry.handles():
        record = handle._record
        for (task, config, code), peaks in list(record.footprint.peaks.items()):
            if (config, code) == (record.config_version, record.code_version) and peaks.is_much:
                wrong = "-" if peaks.error is None else f"{peaks.error:+.0%}"
                rows.append((f"{handle.name}.{task}", peaks.told, wrong))
    return Table("what calls take beside the weights", ("call", "learned", "last off by"), rows)


def _parted(registry: ServiceRegistry) -> Table:
    """Return which batches are computed in parts, since all at a time did not fit."""
    rows = []
    for handle in registry.handles():
        record = handle._record
        for task in tuple(record.footprint.fits):
            if (fit := fit_of(record, task)) is not None:
                left = max(0.0, fit.at + FITS_FOR - record.ports.clock())
                rows.append((f"{handle.name}.{task}", str(fit.items), f"in {seconds(left)}"))
    columns = ("call", "items at a time", "all are tried again")
    return Table("computed in parts, as memory ran out", columns, rows)


def _taped(registry: ServiceRegistry) -> Table:
    """Return what is kept of the last calls, by which new code is tried: it is in nobody's books."""
    tapes = [(handle.name, handle._record.tape) for handle in registry.handles()]
    rows = [(name, str(len(tape.calls())), size(held)) for name, tape in tapes if (held := tape.size)]
    return Table("kept of the last calls, to try new code on", ("service", "calls", "has"), rows)
