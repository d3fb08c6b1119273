"""What a service shows at one moment: its state, its breaker, its calls of late, what hangs in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from grym_nb.health.signs import Stuck, Vitals
from grym_nb.services.guards import breaker_of
from grym_nb.services.status import is_left_behind

if TYPE_CHECKING:
    from grym_nb.metrics.history import History
    from grym_nb.metrics.window import Seen, Stretch, Window
    from grym_nb.services.frame import Frame
    from grym_nb.services.record import ServiceRecord

__all__ = ["FAILURES", "Lately", "Watched", "parted", "vitals_of"]

#: outcomes of calls that say that a service is failing
FAILURES = frozenset({"task.failed", "service.load_failed", "call.timeout", "resource.exhausted"})
_SHARES = (1 / 3, 1.0)  # of the window: what is new shows sooner in a short one
_ENOUGH = 5  # calls
_LEAST_USUAL = 20  # calls before a p95 is anybody's usual one
_SLOWLY = 0.05  # share of a new p95 in the usual one
_ADOPTED_AFTER = 900.0  # seconds for which it is slower: then that is how it is
_QUIET = 30.0  # seconds without a sign of life, and
_TIMES = 10.0  # times what calls of a task took at most: then a call hangs


@dataclass(slots=True)
class Watched:
    """What is remembered of a service from one look to the next."""

    since: float  # what was before says nothing: it was mended, or is another code
    versions: tuple[int, int] = (0, 0)
    usual: float | None = None  # p95
    learned: int = 0  # calls it was seen over
    slow_since: float | None = None
    unanswered: int = 0
    doubted: bool = False  # its calls fail, which may be for what they are given
    ping: str = ""
    moved: dict[int, tuple[int, float]] = field(default_factory=dict)  # by call: how far it was, and when


class Lately:
    """The calls of all services over a window, looked up once for all who are judged at that moment."""

    def __init__(self, history: History, window: float) -> None:
        self._window = window
        self._all = history.stretch("service.call.seconds", window)
        self._parted = parted(self._all, "service")

    def of(self, name: str, known: float) -> tuple[float, Mapping[str, Window]]:
        """Return the calls of a service over the shortest time with enough of them, by how they ended.

        It is `known` for so many seconds: what was before says nothing.
        """
        whole = self._parted.get(name)
        if whole is None:
            return min(self._window, max(known, 1.0)), {}
        for share in _SHARES:
            seconds = max(1.0, min(share * self._window, known))
            part = whole.since(whole.times[-1] - seconds)
            found = {outcome: its.window(outcome) for outcome, its in parted(part, "outcome").items()}
            found = {outcome: its for outcome, its in found.items() if its.count}
            if sum([its.count for its in found.values()]) >= _ENOUGH:
                break
        return seconds, found


def parted(whole: Stretch, tag: str) -> dict[str, Stretch]:
    """Return series by the value that they have of a tag."""
    series: dict[str, list[Seen]] = {}
    for seen in whole.series:
        value = dict(seen.tags).get(tag)
        if value is not None:
            series.setdefault(value, []).append(seen)
    return {value: replace(whole, series=its) for value, its in series.items()}


def vitals_of(record: ServiceRecord, lately: Lately, watched: Watched, now: float) -> Vitals:
    """Return what a service shows now; `watched` learns what is usual for it."""
    versions = record.code_version, record.config_version
    if versions != watched.versions:
        watched.versions, watched.usual, watched.slow_since = versions, None, None
    seconds, found = lately.of(record.name, now - watched.since)
    answered = found.get("ok")
    failed = {outcome: int(its.count) for outcome, its in found.items() if outcome in FAILURES}
    good = int(answered.count) if answered is not None else 0
    p95 = answered.p95 if answered is not None else None
    usual = _usual(watched, answered, now)
    state = record.lifecycle.state
    standing, _, why = breaker_of(record).partition(" for ")
    return Vitals(
        state=state,
        reason=_reason(record),
        window=seconds,
        calls=good + sum(failed.values()),
        failed=sum(failed.values()),
        worst=_worst(record, failed),
        p95=p95,
        usual=usual,
        breaker=standing,
        breaker_why=why.partition(": ")[2],
        stuck=tuple(_stuck(record, watched, now)),
        slots=record.spec.concurrency,
        waiting=record.lane.waiting,
        unanswered=watched.unanswered,
        ping=watched.ping,
    )


def _reason(record: ServiceRecord) -> str:
    story = record.lifecycle.story
    return story[-1].reason if story else ""


def _worst(record: ServiceRecord, failed: Mapping[str, int]) -> str:
    """Return what failed most often, by the name of the error that the author's code raised last."""
    if not failed:
        return ""
    code = max(failed, key=lambda one: failed[one])
    last = record.last_error
    return last.error if code == "task.failed" and last is not None else code


def _usual(watched: Watched, answered: Window | None, now: float) -> float | None:
    """Return the p95 of good times, learned as long as it is not much slower than that."""
    if answered is None or answered.p95 is None:
        return watched.usual
    watched.learned += int(answered.count)
    if watched.learned < _LEAST_USUAL:
        return None
    if watched.usual is None:
        watched.usual = answered.p95
    elif answered.p95 < 2.0 * watched.usual:
        watched.usual += _SLOWLY * (answered.p95 - watched.usual)
        watched.slow_since = None
    elif watched.slow_since is None:
        watched.slow_since = now
    elif now - watched.slow_since > _ADOPTED_AFTER:
        watched.usual, watched.slow_since = answered.p95, None
    return watched.usual


def _stuck(record: ServiceRecord, watched: Watched, now: float) -> list[Stuck]:
    frames = [frame for frame in record.lane.frames() if not frame.waits_for and frame.what != "use"]
    watched.moved = {frame.id: _moved(frame, watched.moved.get(frame.id), now) for frame in frames}
    found = [(frame, _hangs(record, frame, watched.moved[frame.id][1], now)) for frame in frames]
    stuck = [Stuck(f"{f.title} (call {f.id})", now - f.started, why) for f, why in found if why]
    return sorted(stuck, key=lambda one: -one.seconds)


def _moved(frame: Frame, before: tuple[int, float] | None, now: float) -> tuple[int, float]:
    """Return how far a call has come, and when it was seen to get there."""
    done = frame.progress.done if frame.progress is not None else 0
    return (
        before
        if before is not None and before[0] == done
        else (done, frame.started if before is None else now)
    )


def _hangs(record: ServiceRecord, frame: Frame, moved: float, now: float) -> str:
    if is_left_behind(frame):
        return ""  # whoever let go of its model knows
    if frame.deadline is not None and now > frame.deadline:
        return "past its deadline"
    meter = record.meters.get((frame.task, "ok"))
    most = meter.high if meter is not None and meter.high is not None else 0.0
    if most and now - moved > max(_QUIET, _TIMES * most):
        return f"{_TIMES:.0f} times as long as any before"
    return ""
