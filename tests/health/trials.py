"""Services whose calls show what recovery did, and how they are called in a ward."""

from __future__ import annotations

from typing import Any

from grym_nb.errors import GrymError
from grym_nb.health.recovery import Recovery
from grym_nb.services import ModelService, ServiceHandle
from tests.health.ward import BROKEN, Net, Ward
from tests.services.crowd import until

__all__ = [
    "ON",
    "Silent",
    "call",
    "mended_after",
    "outcomes",
    "seconds",
    "silent",
    "slow_until_taken",
    "take",
    "until_taken",
]

ON = {"on": ("errors",)}


class Silent(Net):
    """Has no ping of its own, so one says nothing of its calls."""

    ping = ModelService.ping


def silent(ward: Ward, ill: int, **options: Any) -> ServiceHandle:
    """Return a service whose calls fail until it was loaded so often again."""
    BROKEN["net"] = ill
    return ward.net(way="call", made=Silent, **options).load()


def call(net: ServiceHandle, times: int = 6) -> list[bool]:
    """Call it; return which calls were answered."""
    answered = []
    for _ in range(times):
        try:
            net.ask()
            answered.append(True)
        except GrymError:
            answered.append(False)
    return answered


def until_taken(ward: Ward, recovery: Recovery, net: ServiceHandle) -> None:
    """Have its calls fail until a step was taken."""
    call(net)
    for _ in range(4):
        ward.look()
        case = recovery._cases.get("net")
        if case is not None and (case.runs or case.trial is not None):
            break
    ward.until_over(recovery)


def take(ward: Ward, net: ServiceHandle, each: float, times: int = 6) -> None:
    """Have some calls answered, each after so many seconds."""
    for _ in range(times):
        net.ask(lambda: ward.clock.advance(each))


def slow_until_taken(ward: Ward, recovery: Recovery) -> ServiceHandle:
    """Return a service that a step was taken for, since its calls were much slower than is usual for it."""
    net = silent(ward, 0)
    for _ in range(8):
        take(ward, net, 0.1)
        ward.look()
    for _ in range(12):
        take(ward, net, 3.0)
        ward.look()
        if recovery._cases:
            break
    ward.until_over(recovery)
    return net


def seconds(ward: Ward, count: int) -> None:
    """Let time pass, and whatever is due in it happen."""
    for _ in range(count):
        ward.clock.advance(1.0)
        ward.monitor.history.step()
        until(ward.at_rest)


def outcomes(ward: Ward) -> dict[str, int]:
    found: dict[str, int] = {}
    for seen in ward.registry.ports.metrics.select("recovery.attempts"):
        outcome = dict(seen.tags)["outcome"]
        found[outcome] = found.get(outcome, 0) + int(seen.value)  # type: ignore[arg-type]  # a counter's
    return found


def mended_after(ward: Ward) -> list[float]:
    """Return how long services took to be mended, for each time that one was."""
    return [
        seen.value.total  # type: ignore[union-attr]
        for seen in ward.registry.ports.metrics.select("recovery.seconds")
    ]
