"""What could be done better, each with the figure that it rests on; nothing is said without one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from grym_nb.health.given import check_registry
from grym_nb.render import seconds, size
from grym_nb.services.turns import device_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grym_nb.metrics import HistogramSnapshot
    from grym_nb.services.frame import Waits
    from grym_nb.services.registry import ServiceRegistry

__all__ = ["Repeats", "Seen", "Suggestion", "suggested", "suggestions"]

_ENOUGH = 20  # calls before anything is concluded from them
_FELT = 0.01  # seconds from which on somebody minds a single wait
_SMALL = 0.001  # and below which nobody minds any number of them
_IN_ALL = 5.0  # seconds that waits between the two have to come to


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One thing that could be done, to which service, why, and by what it is known."""

    service: str
    do: str
    why: str

    @property
    def text(self) -> str:
        """It in one line."""
        return f"{self.service}: {self.do}: {self.why}"


class Repeats(NamedTuple):
    """Of the long calls of a task: how many were given what one before them was, and what they took."""

    again: int
    calls: int
    again_seconds: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of a service: all that suggestions are made of."""

    name: str
    calls: int
    answered: HistogramSnapshot
    waits: Mapping[Waits, HistogramSnapshot]
    loads: int
    load_seconds: float | None
    idle: float  # seconds since it was used
    memory: int
    free: int | None  # where its memory is
    concurrency: int
    ttl: float | None
    before: Mapping[str, float] | None = None  # by service: the share of its calls that this one's follow
    idled: int = 0  # how often it went since nobody used it
    evicted: int = 0  # how often it went for others
    repeats: Mapping[str, Repeats] = field(default_factory=dict)  # by task
    device: str = ""  # on which it takes turns
    beside: tuple[str, ...] = ()  # the others that do so there
    spare: tuple[str, ...] = ()  # the other devices of that kind


def suggested(seen: Seen) -> tuple[Suggestion, ...]:
    """Return what could be done better about one service."""
    return tuple([Suggestion(seen.name, do, why) for look in _LOOKS for do, why in look(seen)])


def _waits(seen: Seen) -> Iterator[tuple[str, str]]:
    # Where more is waited for a device or a load, that is what is lacking: slots would let more wait for it.
    lacking = max(seen.waits, key=lambda what: seen.waits[what].total, default="slot")
    if lacking == "slot" and (why := _long(seen, "slot", "a slot")):
        yield f"more at a time: concurrency={seen.concurrency + 1}, if its model may be called so", why
    if why := _long(seen, "device", seen.device or "its device"):
        others = f", which it shares with {', '.join(seen.beside)}" if seen.beside else ""
        if seen.spare:
            yield f"one of them on another device: device={seen.spare[0]!r}", why + others
        else:
            yield "fewer and larger calls: several inputs in each, @task(batch=...)", why + others


def _long(seen: Seen, what: Waits, name: str) -> str:
    """Say for how long it is waited for that, where it is long, and longer than an answer takes."""
    waits, took = seen.waits.get(what), seen.answered.p50
    if waits is None or waits.p50 is None or took is None or waits.p50 <= took:
        return ""
    if waits.count < max(_ENOUGH, seen.calls // 2):
        return ""
    if waits.p50 < (_SMALL if waits.total >= _IN_ALL else _FELT):
        return ""
    told = f"{waits.count} of its {seen.calls} calls waited for {name}"
    long = f"half of them {seconds(waits.p50)} or more, {seconds(waits.total)} in all"
    return f"{told}, {long}; an answer takes {seconds(took)}"


def _again(seen: Seen) -> Iterator[tuple[str, str]]:
    # Who unloads by hand knows what that costs.
    for times, do, why in (
        (seen.idled, "keep it: a longer ttl=", "went idle"),
        (
            seen.evicted,
            "keep it: a higher priority=, or a larger budget (%grym mem --why)",
            "went for others",
        ),
    ):
        if times >= 2 and seen.load_seconds and seen.load_seconds * times > 5.0:
            yield do, f"it {why} {times} times, and takes {seconds(seen.load_seconds)} to load again"


def _idle(seen: Seen) -> Iterator[tuple[str, str]]:
    short = seen.free is not None and seen.free < 2 * seen.memory
    if seen.memory > 100_000_000 and seen.idle > 600.0 and seen.ttl is None and short:
        yield (
            "let it go when it idles: ttl=600, or %grym unload",
            f"it has {size(seen.memory)}, idle for {seconds(seen.idle)}; {size(seen.free)} are free there",
        )


def _uneven(seen: Seen) -> Iterator[tuple[str, str]]:
    p50, p99 = seen.answered.p50, seen.answered.p99
    if seen.answered.count >= 5 * _ENOUGH and p50 and p99 and p99 > 10 * p50 and p99 > 0.5:
        yield (
            "look at the slow ones with grym_nb.metrics.profiling.profile, or give long inputs in parts",
            f"one call in a hundred takes {seconds(p99)}, the usual one {seconds(p50)}",
        )


def _next(seen: Seen) -> Iterator[tuple[str, str]]:
    for other, share in (seen.before or {}).items():
        if share > 0.8 and seen.load_seconds and seen.load_seconds > 1.0 and seen.loads > 1:
            yield (
                f"load it while {other} computes: grym.get({seen.name!r}).load()",
                f"{share:.0%} of what comes after {other} is this; it loads for {seconds(seen.load_seconds)}",
            )


def _same(seen: Seen) -> Iterator[tuple[str, str]]:
    for task, found in seen.repeats.items():
        often = 2 * found.again >= found.calls >= _ENOUGH
        if often and found.again_seconds >= max(5.0, found.seconds / 2):
            yield (
                f"keep what {task} answers, such as with functools.cache, if the same always gets the same",
                f"{found.again} of its last {found.calls} long calls were given what one before them was: "
                f"{seconds(found.again_seconds)} of {seconds(found.seconds)}",
            )


_LOOKS = (_waits, _again, _idle, _uneven, _next, _same)


def suggestions(registry: ServiceRegistry) -> tuple[Suggestion, ...]:
    """Return what could be done better about the services of a registry, by what was seen of them."""
    check_registry(registry)
    now = registry.ports.clock()
    free = {memory.device: memory.free for memory in registry.ports.resources.books().devices}
    follows, repeats = _follows(registry), _repeats(registry)
    devices = [one.id for one in registry.ports.resources if one.status != "unavailable"]
    on: dict[str, list[str]] = {}
    for handle in registry.handles():
        on.setdefault(device_of(handle._record), []).append(handle.name)
    found: list[Suggestion] = []
    for handle in registry.handles():
        record, figures = handle._record, handle.metrics()
        held = handle.status().holds
        gone = [step.reason for step in tuple(record.lifecycle.story) if step.after == "registered"]
        again = record.loads - 1  # what was parked, or did not come back, cost nothing
        found += suggested(
            Seen(
                *(
                    record.name,
                    figures.calls,
                    figures.seconds,
                    figures.waits,
                    record.loads,
                    record.load_seconds,
                ),
                idle=now - record.last_used if held else 0.0,
                memory=sum(held.values()),
                free=min((left for device in held if (left := free.get(device)) is not None), default=None),
                concurrency=record.spec.concurrency,
                ttl=record.spec.ttl,
                before=follows.get(record.name),
                repeats=repeats.get(record.name, {}),
                idled=min(again, sum([reason == "idle" for reason in gone])),
                device=(place := device_of(record)),
                beside=tuple([name for name in on.get(place, ()) if place and name != record.name]),
                spare=tuple([name for name in devices if place and name != place and _alike(name, place)]),
                evicted=min(again, sum(["room for " in one or " ran out of memory " in one for one in gone])),
            )
        )
    return tuple(found)


def _repeats(registry: ServiceRegistry) -> dict[str, dict[str, Repeats]]:
    """Return for each service, by task, which of its long calls were given the same as one before them."""
    known: set[tuple[str, str, str, int]] = set()
    found: dict[str, dict[str, Repeats]] = {}
    for call in registry.calls():
        if not call.given:
            continue
        key = call.service, call.task, call.version, call.given
        again = key in known
        known.add(key)
        tasks = found.setdefault(call.service, {})
        n, calls, again_seconds, its = tasks.get(call.task, (0, 0, 0.0, 0.0))
        more = call.seconds if again else 0.0
        tasks[call.task] = Repeats(n + again, calls + 1, again_seconds + more, its + call.seconds)
    return found


def _alike(one: str, other: str) -> bool:
    """Tell whether two devices are of one kind: a model for the one is none for a processor."""
    return one.partition(":")[0] == other.partition(":")[0]


def _follows(registry: ServiceRegistry) -> dict[str, dict[str, float]]:
    """Return for each service after which others its calls came next, as shares of the others' calls."""
    calls = sorted(registry.calls(), key=lambda call: call.at)
    pairs: dict[str, dict[str, float]] = {}
    counts: dict[str, int] = {}
    for one, after in pairwise(calls):
        if one.service != after.service:
            counts[one.service] = counts.get(one.service, 0) + 1
            found = pairs.setdefault(after.service, {})
            found[one.service] = found.get(one.service, 0.0) + 1.0
    return {
        name: {other: n / counts[other] for other, n in found.items() if counts[other] >= _ENOUGH}
        for name, found in pairs.items()
    }
