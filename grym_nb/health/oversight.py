"""All that watches over the services of a registry: begun with the first load, at rest without any."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakMethod

from grym_nb.clock import monotonic
from grym_nb.errors import StateError
from grym_nb.events import StateChanged
from grym_nb.health.alerts import Alerts
from grym_nb.health.channels import log
from grym_nb.health.gauges import KernelMemory, rules_of, write_gauges
from grym_nb.health.graph import relied_on
from grym_nb.health.guarded import Guarded
from grym_nb.health.monitor import HealthMonitor
from grym_nb.health.recovery import Recovery
from grym_nb.metrics.history import History
from grym_nb.metrics.kept import Kept
from grym_nb.metrics.lag import LoopLag

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Mapping

    from grym_nb.health.remedies import RecoveryPolicy
    from grym_nb.pulse import Entry, Pulse
    from grym_nb.services.registry import ServiceRegistry

__all__ = ["Oversight"]

_LOOK_SECONDS = 5.0
_HISTORY_SECONDS = 1.0
_KEEP_SECONDS = 60.0
_AT_ONCE = 0.002  # seconds of a look
_PAUSE = 0.005
_RESTS_AFTER = 60.0  # seconds without anything loaded
_DAY = 86_400.0  # for which a rule is waited for at most


class Oversight:
    """The history of the metrics, the monitor, recovery and alerts of a registry, and when they act.

    They rest where nothing was loaded or counted for a while, and nothing fires or is about to. With
    `look_seconds` 0 nothing of it acts by itself: somebody has to call `step`, or `begin`.
    """

    def __init__(
        self,
        registry: ServiceRegistry,
        *,
        look_seconds: float = 5.0,
        ping_seconds: float = 30.0,
        recovery: RecoveryPolicy | None = None,
        recoveries: Mapping[str, RecoveryPolicy | None] | None = None,
        keep: str | None = None,
        keep_bytes: int = 50_000_000,
    ) -> None:
        ports = registry.ports
        self._registry = registry
        self._ports = ports
        self._guarded = Guarded()
        self.history = History(ports.metrics, clock=ports.clock)
        self.kept = None if keep is None else Kept(self.history, keep, max_bytes=keep_bytes)
        self.lag = LoopLag(ports.metrics, clock=ports.clock)
        self._loop: AbstractEventLoop | None = None  # whose lag is measured
        self._by_itself = look_seconds > 0
        self.monitor = HealthMonitor(
            registry,
            history=self.history,
            look_seconds=look_seconds or _LOOK_SECONDS,
            ping_seconds=ping_seconds,
        )
        memory = KernelMemory(registry, self.history)
        self.monitor.looks.append(memory)
        self.recovery = Recovery(self.monitor, registry, policy=recovery, policies=recoveries)
        self.alerts = Alerts(
            *(self.history, rules_of(memory, self.monitor)),
            clock=ports.clock,
            events=ports.events,
            channels=[log],
            work=ports.pulse.work,
            needs=partial(relied_on, registry),
            of_its_own=self.monitor.of_its_own,
        )
        self._lock = threading.Lock()
        self._entries: tuple[Entry, ...] = ()
        self._nothing_since: float | None = None
        self._under_way: Iterator[None] | None = None  # a look that is not over yet
        self._closed = False
        self._end: Callable[[], None] = lambda: None
        if self._by_itself:
            self._end = ports.events.subscribe(self._heard, StateChanged)
            self.monitor.listen()
            self.recovery.start()

    def step(self) -> None:
        """Look, judge, and tell once; rest where there has been nothing to look at for a while."""
        for _ in self._steps():
            pass

    def _steps(self) -> Iterator[None]:
        yield from self.monitor.steps()
        yield from write_gauges(self._registry, self._ports.metrics, self._guarded)
        yield from self.alerts.steps()
        now = self._ports.clock()
        if any(handle.state in ("loading", "ready", "draining") for handle in self._registry.handles()):
            self._nothing_since = None
        elif self._nothing_since is None:
            self._nothing_since = now
        elif (
            min(now - self._nothing_since, self.history.idle()) > self._rests_after()
            and not self.alerts.active
            and not self.alerts.pending(_DAY)
        ):
            self._rest()

    def _rests_after(self) -> float:
        """Return for how many seconds nothing has to be there: what is to be noticed as absent is, before."""
        absent = [
            rule.absent + rule.for_seconds
            for rule in self.alerts.rules
            if rule.absent is not None
            and isinstance(rule.metric, str)
            and self.history.silent(rule.metric, **rule.tags) is not None
        ]
        return max([_RESTS_AFTER, *[min(one, _DAY) + self.monitor.look_seconds for one in absent]])

    def watch_loop(self, loop: AbstractEventLoop | None) -> None:
        """Measure how late this event loop is, whenever there is anything to watch over."""
        with self._lock:
            self._loop, going = loop, bool(self._entries)
        self._measure_loop(going)

    def _measure_loop(self, going: bool) -> None:
        loop = self._loop
        self.lag.stop()
        if going and loop is not None:
            with suppress(RuntimeError):  # it was closed
                self.lag.start(loop)

    def _second(self) -> None:
        self._guarded("the lag of the loop", self.lag.step)
        self._guarded("the history of the metrics", self.history.step)

    def _keep(self) -> None:
        if self.kept is not None:
            self._ports.pulse.work(self.kept.write, name="metrics to disk")

    def _look(self) -> None:
        """Begin to look, unless the look before is not over yet."""
        if self._under_way is None:
            self._under_way = self._steps()
            self._go_on()

    def _go_on(self) -> None:
        """Look for a few milliseconds; the rest a little later, so that nobody waits for the pulse."""
        until, steps = monotonic() + _AT_ONCE, self._under_way
        self._under_way = None  # whatever happens in it, the next look has its turn
        for _ in steps or ():
            if monotonic() >= until:
                with suppress(StateError):  # all of it has ended
                    self._ports.pulse.after(_PAUSE, self._go_on, name="health, the rest")
                    self._under_way = steps
                return

    def begin(self) -> None:
        """Act from now on, at times; does nothing twice."""
        with self._lock:
            if self._entries or self._closed:
                return
            pulse, self._nothing_since = self._ports.pulse, None
            self._entries = (
                _every(pulse, _HISTORY_SECONDS, self._second, "history of the metrics"),
                _every(pulse, self.monitor.look_seconds, self._look, "health"),
                _every(pulse, _KEEP_SECONDS, self._keep, "metrics to disk"),
            )
        self._measure_loop(True)

    def close(self) -> None:
        """Look, mend and tell no more. Idempotent."""
        self._closed = True
        self._end()
        self.recovery.close()
        self.monitor.close()
        self._rest()
        if self.kept is not None:
            self.kept.close()

    def _heard(self, event: StateChanged) -> None:
        if event.after == "loading" and not self._entries:
            self.begin()

    def _rest(self) -> None:
        with self._lock:
            entries, self._entries = self._entries, ()
        self._ports.metrics.asleep = True  # what is measured next begins it anew
        for entry in entries:
            entry.cancel()
        self._measure_loop(False)
        self.monitor.rest()
        self.alerts.rest()


def _every(pulse: Pulse, seconds: float, method: Callable[[], None], name: str) -> Entry:
    """Call a method at times as long as its object is there: the pulse does not keep it."""
    weak = WeakMethod(method)
    made: list[Entry] = []

    def call() -> None:
        if (there := weak()) is not None:
            there()
        else:
            made[0].cancel()

    made.append(pulse.every(seconds, call, name=name))
    return made[0]
