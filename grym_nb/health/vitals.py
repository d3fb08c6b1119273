"""What a service shows at one moment: its state, its breaker, its calls of late, what hangs in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from grym_nb.health.signs import Grown, Stuck, Vitals
from grym_nb.metrics.histogram import Frozen
from grym_nb.render import seconds as in_words
from grym_nb.services.frame import stack
from grym_nb.services.guards import breaker_in_words
from grym_nb.services.status import is_left_behind

if TYPE_CHECKING:
    from grym_nb.metrics.history import History
    from grym_nb.metrics.window import Seen, Stretch, Window
    from grym_nb.services.frame import Frame
    from grym_nb.services.record import ServiceRecord

__all__ = [
    "FAILURES",
    "QUIET",
    "Lately",
    "Others",
    "Watched",
    "anew",
    "failures",
    "grown_of",
    "hanging",
    "parted",
    "reason_of",
    "standing_of",
    "third_of",
    "vitals_of",
    "worst_of",
]

#: f() -> the services that there are, asked only where it matters
Others = Callable[[], Iterable["ServiceRecord"]]

#: outcomes of calls that say that a service is failing
FAILURES = frozenset({"task.failed", "service.load_failed", "call.timeout", "resource.exhausted"})
_LATE = "call.timeout"
_SHARES = (1 / 3, 1.0)  # of the window: what is new shows sooner in a short one
_ENOUGH = 5  # calls
_MANY = 60  # calls of which a p95 says more than the three slowest
_SLOW_ONES = 3  # calls that have to be slow: one may have been given more to do, or have been the first
_SHOWS = 2.0  # seconds after which the history has what the meters had: it goes by the second
_MOSTLY = 0.5  # of the calls failed: then it is thought broken until something else is seen
_LEAST_USUAL = 20  # calls before a p95 is anybody's usual one
_SLOWLY = 0.05  # share of a new p95 in the usual one
_ADOPTED_AFTER = 900.0  # seconds for which it is slower: then that is how it is
#: seconds without a sign of life (a first download, a compilation may take so long), and
QUIET = 60.0
_TIMES = 10.0  # times what calls of a task took at most: then a call hangs


@dataclass(slots=True)
class Watched:
    """What is remembered of a service from one look to the next."""

    since: float  # what was before says nothing: it was mended, or is another code
    versions: tuple[int, int] | None = None  # of the code and of the config
    loads: int = 0
    answered: int = 0  # calls, in all, up to the last look
    failures: int = 0
    raised: int = 0  # of these, what was not only late
    row: int = 0  # calls that raised since the last one that was answered
    usual: float | None = None  # p95
    learned: int = 0  # calls it was seen over
    unread: int = 0  # answered calls that are yet to be learned of: the history did not have them
    unread_at: float = 0.0  # when the last of them was seen to be answered
    slow_since: float | None = None
    broken: str = ""  # its calls failed when it was last used, and nothing has said otherwise since
    wrong_at: float | None = None  # when calls were seen to fail that the history may not show yet
    unanswered: int = 0
    doubted: bool = False  # its calls fail, which may be for what they are given
    ping: str = ""
    moved: dict[int, tuple[int, float]] = field(default_factory=dict)  # by call: how far it was, and when
    held: Stuck | None = None  # a call that is only long, where others wait and no slot is left for them
    behind: int = 0  # how many of them


class Lately:
    """The calls of all services over a window, looked up once for all who are judged at that moment."""

    def __init__(self, history: History, window: float) -> None:
        self._history = history
        self._window = window
        self._parts = history.parts("service.call.seconds", "service", window)

    def of(self, name: str, known: float) -> tuple[float, dict[str, Window], Stretch | None]:
        """Return the calls of a service over the shortest time with enough of them, by how they ended.

        It is `known` for so many seconds: what was before says nothing. With them come the seconds, and the
        answered ones, where they are too few for a p95.
        """
        whole = self._parts.get(name)
        if whole is None:
            return min(self._window, max(known, 1.0)), {}, None
        for share in _SHARES:
            seconds = max(1.0, min(share * self._window, known))
            part = whole.since(whole.end - seconds)
            ended = parted(part, "outcome")
            found = {outcome: its.window(outcome) for outcome, its in ended.items()}
            found = {outcome: its for outcome, its in found.items() if its.count}
            if sum([its.count for its in found.values()]) >= _ENOUGH:
                break
        return seconds, found, ended["ok"] if "ok" in found and found["ok"].count < _MANY else None

    def waited_out(self, name: str, seconds: float) -> int:
        """Return how many calls of a service have spent their deadline waiting, over so many seconds."""
        its = self._history.stretch("service.call.waited_out", self._window, service=name)
        return int(its.since(its.times[-1] - seconds).window("").count)


def _third(answered: Stretch) -> float | None:
    buckets: dict[int, int] = {}
    for part in [part for seen in answered.series for at, part in seen.slots if at >= 0]:
        for bucket, n in part[1].items():
            buckets[bucket] = buckets.get(bucket, 0) + n
    return third_of(Frozen.of(buckets, 0.0))


def third_of(calls: Frozen) -> float | None:
    """Return what the third slowest of some calls took; None where they are fewer."""
    if calls.count < _SLOW_ONES:
        return None
    [third] = calls.percentiles(100 * (calls.count - _SLOW_ONES + 0.5) / calls.count)
    return third


def failures(counts: Mapping[str, float], waited_out: int) -> dict[str, int]:
    """Return how many calls failed, by how; those that have `waited_out` their deadline did not."""
    failed = {outcome: int(count) for outcome, count in counts.items() if outcome in FAILURES and count}
    if _LATE in failed:
        failed[_LATE] = max(failed[_LATE] - waited_out, 0)
    return {outcome: count for outcome, count in failed.items() if count}


def parted(whole: Stretch, tag: str) -> dict[str, Stretch]:
    """Return series by the value that they have of a tag."""
    series: dict[str, list[Seen]] = {}
    for seen in whole.series:
        value = dict(seen.tags).get(tag)
        if value is not None:
            series.setdefault(value, []).append(seen)
    return {value: replace(whole, series=its) for value, its in series.items()}


def vitals_of(
    record: ServiceRecord, lately: Lately, watched: Watched, now: float, others: Others = tuple
) -> Vitals:
    """Return what a service shows now; `watched` learns what is usual for it."""
    _keep_up(watched, record, now)
    seconds, found, few = lately.of(record.name, now - watched.since)
    answered = found.get("ok")
    waited_out = lately.waited_out(record.name, seconds) if _LATE in found else 0
    failed = failures({outcome: its.count for outcome, its in found.items()}, waited_out)
    good, bad = int(answered.count) if answered is not None else 0, sum(failed.values())
    worst = worst_of(record, failed)
    fresh, wrong, raised = _newly(watched, record)
    watched.row = 0 if fresh else watched.row + raised
    if wrong:
        watched.wrong_at = now
    elif fresh:
        watched.wrong_at = None
    if watched.wrong_at is not None and good + bad >= _ENOUGH and bad >= _MOSTLY * (good + bad):
        most = f", {worst} the most often" if worst else ""
        watched.broken = f"{bad} of {good + bad} calls failed when it was last used{most}"
    elif fresh:
        watched.broken = ""
    if watched.wrong_at is not None and now - watched.wrong_at >= _SHOWS:
        watched.wrong_at = None
    p95, usual = answered.p95 if answered is not None else None, _usual(watched, answered, fresh, now)
    slower = p95 is not None and usual is not None and p95 > usual
    standing, why = standing_of(record)
    stuck = hanging(record, watched, now, others)
    watched.behind = record.lane.waiting
    watched.held = _held(stuck, record.spec.concurrency) if watched.behind else None
    return Vitals(
        state=record.lifecycle.state,
        reason=reason_of(record),
        window=seconds,
        calls=good + bad,
        failed=bad,
        row=watched.row,
        worst=worst or worst_of(record, {"task.failed": watched.row} if watched.row else {}),
        instead=int(found["fallback"].count) if "fallback" in found else 0,
        broken=watched.broken,
        p95=p95,
        third=_third(few) if slower and few is not None else None,
        usual=usual,
        breaker=standing,
        breaker_why=why,
        stuck=tuple(stuck),
        slots=record.spec.concurrency,
        waiting=watched.behind,
        unanswered=watched.unanswered,
        ping=watched.ping,
        grown=grown_of(record, now),
    )


def standing_of(record: ServiceRecord) -> tuple[str, str]:
    """Return how the breaker of a service stands, and why; empty where it has none."""
    standing, _, why = breaker_in_words(record).partition(" for ")
    return standing, why.partition(": ")[2]


def grown_of(record: ServiceRecord, now: float) -> Grown | None:
    """Return what the model that is loaded holds, as of the last look at it; None where none is."""
    instance = record.instance
    if instance is None or instance.sizes.first is None:
        return None
    sizes = instance.sizes
    return Grown(sizes.last, instance.sizes.first, now - instance.loaded_at, sizes.rises)


def _keep_up(watched: Watched, record: ServiceRecord, now: float) -> None:
    """Forget what is of another code or config, and of a model that is gone."""
    versions = record.code_version, record.config_version
    if watched.versions is None:
        watched.versions = versions
    elif versions != watched.versions:
        watched.versions, watched.since, watched.broken, watched.wrong_at = versions, now, "", None
        watched.row = 0
        watched.usual, watched.learned, watched.unread, watched.slow_since = None, 0, 0, None
    if record.loads != watched.loads or record.lifecycle.state in ("registered", "closed"):
        watched.loads, watched.unanswered, watched.ping = record.loads, 0, ""
        watched.broken, watched.wrong_at, watched.row = "", None, 0


def anew(record: ServiceRecord, now: float, before: Watched | None = None, broken: str = "") -> Watched:
    """Return what is to be remembered of a service whose past says nothing any more.

    That is what was usual for it `before`, and what is `broken` as long as no call is answered.
    """
    watched = Watched(now, loads=record.loads, broken=broken)
    if before is not None:
        watched.versions, watched.usual, watched.learned = before.versions, before.usual, before.learned
    _newly(watched, record)
    return watched


def _newly(watched: Watched, record: ServiceRecord) -> tuple[int, int, int]:
    """Return how many calls were answered since the last look, failed, and of these raised."""
    ended = [(outcome, meter.count) for (_, outcome), meter in record.meters.copy().items()]
    answered = sum([count for outcome, count in ended if outcome == "ok"])
    failed = sum([count for outcome, count in ended if outcome in FAILURES])
    raised = sum([count for outcome, count in ended if outcome in FAILURES and outcome != _LATE])
    new = answered - watched.answered, failed - watched.failures, raised - watched.raised
    watched.answered, watched.failures, watched.raised = answered, failed, raised
    return new


def reason_of(record: ServiceRecord) -> str:
    """Return why a service is in the state in which it is."""
    story = record.lifecycle.story
    return story[-1].reason if story else ""


def worst_of(record: ServiceRecord, failed: Mapping[str, int]) -> str:
    """Return what failed most often, by the name of the error that the author's code raised last."""
    if not failed:
        return ""
    code = max(failed, key=lambda one: failed[one])
    last = record.last_error
    return last.error if code == "task.failed" and last is not None else code


def _usual(watched: Watched, answered: Window | None, fresh: int, now: float) -> float | None:
    """Return the p95 of good times, learned as long as it is not much slower than that."""
    if fresh:
        watched.unread, watched.unread_at = watched.unread + fresh, now
    if answered is None or answered.p95 is None or not watched.unread:
        return watched.usual
    read = min(watched.unread, int(answered.count))
    watched.learned += read
    # Those of a moment ago may show at the next look; what has not shown by then never will.
    watched.unread = 0 if now - watched.unread_at >= _SHOWS else watched.unread - read
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


# -- calls that hang -------------------------------------------------------------------------------


def hanging(record: ServiceRecord, watched: Watched, now: float, others: Others = tuple) -> list[Stuck]:
    """Return the calls of a service that hang, the longest first; `watched` knows how far each has come."""
    frames = [frame for frame in record.lane.frames() if frame.what != "use"]
    moved = {frame.id: _moved(frame, watched.moved.get(frame.id), now) for frame in frames}
    watched.moved = moved
    found = [(frame, why) for frame in frames if (why := _hangs(record, frame, moved[frame.id][1], now))]
    behind = _behind(others()) if found else {}
    stuck = [_stuck(record, frame, why, behind.get(frame.id), now) for frame, why in found]
    return sorted(stuck, key=lambda one: -one.seconds)


def _held(stuck: Iterable[Stuck], slots: int) -> Stuck | None:
    """Return the longest of the calls that keep every slot, unless all of them are past their deadline."""
    own = [one for one in stuck if not one.behind]
    long = [one for one in own if not one.late]
    return long[0] if long and len(own) >= slots else None


def _moved(frame: Frame, before: tuple[int, float] | None, now: float) -> tuple[int, float]:
    """Return how far a call has come, and when it was seen to get there; one that rests is not to move."""
    done = frame.progress.done if frame.progress is not None else 0
    if _rests(frame):
        return done, now
    if before is None:
        return done, frame.started
    return before if before[0] == done else (done, now)


def _rests(frame: Frame) -> bool:
    """Tell whether a call waits for something, or for whoever reads what it yields."""
    return bool(frame.waits_for) or frame.suspended is not None


def _hangs(record: ServiceRecord, frame: Frame, moved: float, now: float) -> str:
    if _rests(frame) or is_left_behind(frame):
        return ""  # whoever let go of its model knows
    if frame.deadline is not None:
        return "past its deadline" if now > frame.deadline else ""  # how long it may take was said
    meter = record.meters.get((frame.task, "ok"))
    most = meter.high if meter is not None and meter.high is not None else 0.0
    if most and now - moved > max(QUIET, _TIMES * most):
        return f"{(now - moved) / most:.0f} times as long as any before ({in_words(most)} at most)"
    return ""


def _behind(records: Iterable[ServiceRecord]) -> dict[int, Frame]:
    """Return by its number each call that waits, in its own thread, for one of another service."""
    frames = [frame for record in records for frame in record.lane.frames()]
    return {at.id: frame for frame in frames for at in stack(frame) if at.record is not frame.record}


def _stuck(record: ServiceRecord, frame: Frame, why: str, on: Frame | None, now: float) -> Stuck:
    """Return a call that hangs, and for whom it only waits: then it is no use to load its own model anew.

    It is where that one was let go of and will not end, if others wait for the slot.
    """
    lost = on is not None and is_left_behind(on) and record.lane.waiting > 0
    behind = "" if on is None or lost else f"{on.title} (call {on.id})"
    late = frame.deadline is not None
    return Stuck(f"{frame.title} (call {frame.id})", now - frame.started, why, behind, late)
