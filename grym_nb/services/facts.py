"""What a handle tells of its service, and loads nothing for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grym_nb.services.guards import breaker_of
from grym_nb.services.status import Ping, ServiceMetrics, ServiceStatus, metrics_of, ping, status_of

if TYPE_CHECKING:
    from grym_nb.hardening import CircuitBreaker
    from grym_nb.services.lifecycle import State
    from grym_nb.services.model import TaskSpec
    from grym_nb.services.policy import CallPolicy
    from grym_nb.services.record import ServiceRecord
    from grym_nb.services.reload.report import Reload

__all__ = ["Facts"]


class Facts:
    """The part of a handle that only tells."""

    _record: ServiceRecord

    @property
    def name(self) -> str:
        """The name it is registered under."""
        return self._record.name

    @property
    def state(self) -> State:
        """registered, loading, ready, draining, failed or closed."""
        return self._record.lifecycle.state

    @property
    def health(self) -> str:
        """What is thought of it: unknown until it is judged, then healthy, degraded or unhealthy."""
        return self._record.health

    @property
    def version(self) -> str:
        """The version of its code."""
        return self._record.version

    @property
    def config(self) -> dict[str, Any]:
        """The config in force: defaults with what was given."""
        return dict(self._record.spec.full_config)

    @property
    def policy(self) -> CallPolicy:
        """How its calls are guarded: timeout, retries, breaker, queue, fallback, and where each was said."""
        return self._record.policy

    @property
    def breaker(self) -> CircuitBreaker | None:
        """Its breaker, to be looked at, opened or closed by hand; None where its policy has none."""
        return breaker_of(self._record)

    @property
    def tasks(self) -> tuple[TaskSpec, ...]:
        """What it can do; empty while only loading would tell."""
        return tuple(self._record.known_tasks.values())

    @property
    def story(self) -> tuple[Any, ...]:
        """The moves it made from state to state, with times and reasons."""
        return tuple(self._record.lifecycle.story)

    @property
    def reloads(self) -> tuple[Reload, ...]:
        """What came of its last reloads, in the order in which they took force."""
        return self._record.reloads

    def ping(self) -> Ping:
        """Ask the service how it is; never loads, and leaves no trace in figures or idle time."""
        return ping(self._record)

    def status(self) -> ServiceStatus:
        """Return a snapshot of state, health and figures; never loads anything."""
        return status_of(self._record)

    def metrics(self) -> ServiceMetrics:
        """Return the figures of its calls so far."""
        return metrics_of(self._record)
