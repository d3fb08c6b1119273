"""What loaded models hold, measured again now and then: one that keeps what its calls make grows unseen."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING

from grym_nb.health.errand import Errand
from grym_nb.health.rules import Tags
from grym_nb.health.signs import SignLimits, is_growing
from grym_nb.health.vitals import grown_of
from grym_nb.render import size

if TYPE_CHECKING:
    from grym_nb.metrics.history import History
    from grym_nb.services.record import ServiceRecord
    from grym_nb.services.registry import ServiceRegistry

__all__ = ["Holdings"]

_EVERY = 60.0  # seconds between two looks at one model
_COSTS = 1000.0  # times what a look takes: a huge graph is walked so seldom that nobody feels it


class Holdings:
    """Has models measured anew that were used since they last were, while nobody uses them.

    A look walks all that hangs on a model: milliseconds, on a work thread, and under no lock.
    """

    def __init__(self, registry: ServiceRegistry) -> None:
        self._registry = registry
        self._ports = registry.ports
        self._errand = Errand("what models hold", clock=registry.ports.clock)
        self._due: dict[str, float] = {}

    def step(self, now: float) -> None:
        """Have those measured that are due; never waits for it."""
        records = [handle._record for handle in self._registry.handles()]
        there = [record for record in records if record.instance is not None]
        # In place, and never by a copy: a look that ends meanwhile says when its model is due again.
        for record in there:
            self._due.setdefault(record.name, now + _EVERY)
        for name in set(self._due).difference([record.name for record in there]):
            self._due.pop(name, None)
        due = [record for record in there if now >= self._due.get(record.name, inf) and not record.users]
        if due:
            self._errand.begin(self._ports.pulse.work, partial(self._look, due))

    @property
    def idle(self) -> bool:
        """Whether nothing is measured at present."""
        return self._errand.idle

    def growing(self) -> dict[str, int]:
        """Return by how many bytes each service has grown that holds more at every look."""
        found, limits, now = {}, SignLimits(), self._ports.clock()
        for handle in self._registry.handles():
            grown = grown_of(handle._record, now)
            if grown is not None and is_growing(grown, limits):
                found[handle.name] = grown.holds - grown.had
        return found

    def grown(self, history: History, now: float) -> dict[tuple[tuple[str, str], ...], float]:
        """Return the same in megabytes, for a rule."""
        return {(("service", name),): more / 1e6 for name, more in self.growing().items()}

    def told(self, tags: Tags, figure: float) -> str:
        """Return of one service what has grown, and what is told at all, in words."""
        handle, limits = self._registry.get(dict(tags).get("service", ""), None), SignLimits()
        grown = None if handle is None else grown_of(handle._record, self._ports.clock())
        if grown is None:
            return ""
        return (
            f"it holds {size(grown.holds)}, {size(grown.holds - grown.had)} more than after its load, "
            f"more at each of {grown.looks} looks (told from {size(limits.least_grown)} and "
            f"{limits.grown:g} times as much on)"
        )

    def _look(self, due: Sequence[ServiceRecord]) -> None:
        try:
            for record in due:
                self._measure(record)
        finally:
            self._errand.end()

    def _measure(self, record: ServiceRecord) -> None:
        instance = record.instance
        if instance is not None and instance.reservation is not None:
            used, before, began = record.last_used, instance.looked_at, perf_counter()
            self._ports.resources.ledger.look_at(instance.reservation)
            took = perf_counter() - began
            # One that was in use meanwhile is due again as soon as what it has cost is made up for.
            in_vain = instance.looked_at == before and (record.users > 0 or record.last_used != used)
            rest = 0.0 if in_vain else _EVERY
            self._due[record.name] = self._ports.clock() + max(rest, _COSTS * took)
