"""What is measured of services and of the kernel besides their calls, written at each look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

from grym_nb.devices import process_memory
from grym_nb.health.guarded import Guarded
from grym_nb.health.holdings import Holdings
from grym_nb.health.rules import Rule
from grym_nb.health.signs import DEGRADED, UNHEALTHY, Sign, SignLimits
from grym_nb.health.vitals import QUIET, failures
from grym_nb.render import size

if TYPE_CHECKING:
    from grym_nb.health.monitor import HealthMonitor
    from grym_nb.metrics import Metrics
    from grym_nb.metrics.forecast import Reach
    from grym_nb.metrics.history import History
    from grym_nb.services.registry import ServiceRegistry

__all__ = ["DEFAULT_RULES", "KernelMemory", "rules_of", "write_gauges"]

_ENOUGH = 5  # calls before a share says anything
_MINUTES = 4  # in each of which memory has to have grown by itself, about as much: a load is over sooner
_EVENLY = 0.5  # of the mean growth of a minute
_AHEAD_MINUTES = 15.0  # within which a limit is worth a word


def write_gauges(registry: ServiceRegistry, metrics: Metrics, guarded: Guarded) -> Iterator[None]:
    """Set the gauges of every service that was ever loaded: memory, calls inside and in line, loads.

    A service at a time, so that others get their turn.

    One whose name somebody else has given to something else is left out.
    """
    for handle in registry.handles():
        record = handle._record
        if not record.loads:
            continue
        instance = record.instance
        reservation = None if instance is None else instance.reservation
        held = 0 if reservation is None else reservation.size
        for name, value in (
            ("service.memory.bytes", held),
            ("service.running", len(record.lane.frames())),
            ("service.waiting", record.lane.waiting),
            ("service.loads", record.loads),
        ):
            guarded(f"the gauge {name}", _set, metrics, name, value, service=record.name)
        yield


def _set(metrics: Metrics, name: str, value: float, /, **tags: str) -> None:
    metrics.gauge(name, **tags).set(value)


class KernelMemory:
    """How the kernel's own memory stands: two gauges, and signs as it comes near its limit."""

    def __init__(self, registry: ServiceRegistry, history: History) -> None:
        self._registry = registry
        self._resources = registry.ports.resources
        self._metrics = registry.ports.metrics
        self._history = history
        self._guarded = Guarded()
        self.holdings = Holdings(registry)

    def __call__(self, now: float) -> tuple[Sign, ...]:
        """Measure, and return what speaks against the kernel; what models hold is measured aside."""
        from grym_nb.hardening.pressure import REFUSED_FROM, WARNED_FROM

        self._guarded("a look at what models hold", self.holdings.step, now)
        pressure = self._resources.pressure()
        used = process_memory().rss
        self._guarded("the gauge kernel.memory.bytes", _set, self._metrics, "kernel.memory.bytes", used)
        share = pressure.share
        self._guarded("the gauge kernel.memory.share", _set, self._metrics, "kernel.memory.share", share)
        if pressure.share >= WARNED_FROM:
            level = UNHEALTHY if pressure.share >= REFUSED_FROM else DEGRADED
            return (Sign("memory", level, f"memory: {pressure}", certain=True),)
        reach = self._reach(now)
        if reach is not None and reach.likely <= 60.0 * _AHEAD_MINUTES:
            return (Sign("memory", DEGRADED, f"memory limit {reach.told}: {pressure}{self._who_grows()}"),)
        return ()

    def _who_grows(self) -> str:
        grown = self.holdings.growing()
        told = [f"{name} by {size(grown[name])}" for name in sorted(grown, key=lambda name: -grown[name])]
        return f"; since their load have grown: {', '.join(told)}" if told else ""

    def minutes_left(self, history: History, now: float) -> dict[tuple[tuple[str, str], ...], float]:
        """Return in how many minutes memory will be at its limit, for a rule; nothing if it will not."""
        reach = self._reach(now)
        return {} if reach is None else {(): reach.likely / 60.0}

    def _reach(self, now: float) -> Reach | None:
        """Return when the limit is reached, where memory grows by itself and not for what is loaded."""
        from grym_nb.hardening.pressure import REFUSED_FROM
        from grym_nb.metrics.forecast import time_to

        seen = 60.0 * (_MINUTES + 1)
        points = self._history.stretch("kernel.memory.share", seen).points("value")
        if not _grows(points, now) or self._loaded_since(now - seen):
            return None
        return time_to(points, REFUSED_FROM)

    def _loaded_since(self, time: float) -> bool:
        """Tell whether anything was loaded, or let go of, since a time."""
        lives = [handle._record.lifecycle for handle in self._registry.handles()]
        return any(life.state == "loading" or (life.story and life.since >= time) for life in lives)


def _grows(points: Sequence[tuple[float, float]], now: float) -> bool:
    """Tell whether a value has grown in each of the last minutes, about as much."""
    levels = []
    for back in range(_MINUTES, -1, -1):
        end = now - 60.0 * back
        minute = [value for at, value in points if end - 60.0 < at <= end]
        if not minute:
            return False
        levels.append(median(minute))
    rises = [after - before for before, after in pairwise(levels)]
    return min(rises) > 0 and min(rises) >= _EVENLY * sum(rises) / len(rises)


def _failing(history: History, now: float) -> dict[tuple[tuple[str, str], ...], float]:
    """Return the share of each service's calls of the last minute that failed, where there were enough."""
    found: dict[tuple[tuple[str, str], ...], float] = {}
    waited_out = _counted(history, "service.call.waited_out", "")
    for name, counts in _counted(history, "service.call.seconds", "outcome").items():
        in_line = sum(waited_out.get(name, {}).values())
        failed = sum(failures(counts, int(in_line)).values())
        calls = failed + counts.get("ok", 0)
        if calls >= _ENOUGH:
            found[("service", name),] = failed / calls
    return found


def _counted(history: History, name: str, tag: str) -> dict[str, dict[str, float]]:
    """Return how much came in the last minute, by service and then by the values of a tag."""
    found: dict[str, dict[str, float]] = {}
    for tags, count in history.counts(name, 60.0).items():
        own = dict(tags)
        of_service, value = found.setdefault(own.get("service", ""), {}), own.get(tag, "")
        of_service[value] = of_service.get(value, 0.0) + count
    return found


#: what anybody wants to know of
DEFAULT_RULES = (
    Rule(
        *("unhealthy", "service.health"),
        above=1.5,
        by=("service",),
        severity="critical",
        clear_seconds=10.0,
        suggest="%grym health shows what there is to it",
        words="a service is unhealthy",
        named={0.0: "judged healthy", 1.0: "judged degraded", 2.0: "judged unhealthy"},
    ),
    Rule(
        *("failing", _failing),
        above=0.2,
        clear=0.1,
        for_seconds=20.0,
        clear_seconds=20.0,
        severity="warning",
        inhibited_by=("unhealthy",),
        suggest="%grym why shows the last error",
        words="more than a fifth of a service's calls fail",
    ),
    Rule(
        *("waiting", "service.waiting"),
        above=20,
        clear=5,
        for_seconds=30.0,
        by=("service",),
        suggest="more at a time (concurrency=), or max_waiting=, so that callers are told",
        words="more than 20 calls wait in line for a service",
    ),
    Rule(
        *("memory", "kernel.memory.share"),
        above=0.85,
        clear=0.8,
        severity="info",
        inhibited_by=("memory limit",),
        suggest="%grym mem shows who has it",
        words="85 % of the memory is in use",
    ),
    Rule(
        *("memory limit", "kernel.memory.share"),
        above=0.95,
        clear=0.9,
        severity="critical",
        suggest="%grym unload what is not needed, now: at 100 % the kernel is killed",
        words="95 % of the memory is in use",
    ),
)


def rules_of(memory: KernelMemory, monitor: HealthMonitor) -> tuple[Rule, ...]:
    """Return what anybody wants to know of, with what only these know."""
    held = Rule(
        *("held up", monitor.held_up),
        above=QUIET,
        by=("service",),
        for_seconds=10.0,
        clear_seconds=10.0,
        inhibited_by=("unhealthy",),
        suggest="%grym calls has its number: %grym cancel ends it if it hangs; timeout= ends those to come",
        words="a call takes far longer than any before it, and others wait behind it",
        tells=monitor.holder,
    )
    ahead = Rule(
        *("memory ahead", memory.minutes_left),
        below=_AHEAD_MINUTES,
        for_seconds=10.0,
        clear_seconds=60.0,
        inhibited_by=("memory", "memory limit"),
        suggest="so many minutes are left: look for what grows, %grym mem",
        words="the memory's limit is reached in 15 minutes",
    )
    grown = Rule(
        *("growing", memory.holdings.grown),
        above=SignLimits().least_grown / 1e6,
        by=("service",),
        clear_seconds=10.0,
        suggest="look for what its tasks append to, or keep, on self; unload() gives it back",
        words="a model holds much more than after its load, and ever more (by so many MB)",
        tells=memory.holdings.told,
    )
    known = [
        replace(rule, tells=monitor.because) if rule.name == "unhealthy" else rule for rule in DEFAULT_RULES
    ]
    return (*known, held, ahead, grown)
