"""Snapshots of a service: its status, its figures, a ping; and how they look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from grym_nb.errors import CallCancelled, ValidationError
from grym_nb.metrics import Histogram, HistogramSnapshot
from grym_nb.render import Table, count, redacted, seconds, size
from grym_nb.services.budgets import budget_in_words
from grym_nb.services.frame import CURRENT, PLAIN, Frame, Waits
from grym_nb.services.guards import breaker_in_words
from grym_nb.services.tiers import parked_in, there
from grym_nb.services.turns import device_of

if TYPE_CHECKING:
    from grym_nb.services.record import ServiceRecord

#: how calls end that say nothing against the service: answered, refused for their arguments, given up
_NO_FAILURE = {"ok", "cached", "fallback", ValidationError.code, CallCancelled.code, "interrupted"}

_RELOADS = 3  # that are shown

__all__ = [
    "Ping",
    "ServiceMetrics",
    "ServiceStatus",
    "StatusTable",
    "asks_for",
    "is_left_behind",
    "metrics_of",
    "ping",
    "status_of",
]


@dataclass(frozen=True, slots=True)
class ServiceMetrics:
    """The figures of a service's calls: counts by outcome, and of those answered the durations in seconds.

    What a call waited is no part of its duration. It stands under `waits`, by what for: a "slot" of the
    service, its turn on a "device", a "load", or a "worker", the thread to which a call is handed that has
    its slot; a wait for nothing at all is none.
    """

    calls: int
    ok: int
    errors: Mapping[str, int]
    seconds: HistogramSnapshot
    tasks: Mapping[str, HistogramSnapshot]
    waits: Mapping[Waits, HistogramSnapshot]
    loads: int
    load_seconds: float | None
    last_used: float | None

    def _table(self) -> Table:
        rows = [
            (name, str(s.count), seconds(s.p50), seconds(s.p95), seconds(s.p99), seconds(s.high))
            for name, s in [*self.tasks.items(), ("all", self.seconds), *self._waits]
            if s.count
        ]
        errors = ", ".join(f"{n} {code}" for code, n in self.errors.items())
        caption = f"{self.calls} calls, {errors or 'no errors'}; {self.loads} loads"
        return Table(caption, ("task", "answers", "p50", "p95", "p99", "max"), rows)

    @property
    def _waits(self) -> list[tuple[str, HistogramSnapshot]]:
        return [(f"waits for a {what}", snapshot) for what, snapshot in self.waits.items()]

    def __repr__(self) -> str:
        return self._table().text()

    def _repr_html_(self) -> str:
        return self._table().html()


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """A service at one moment: state, health and figures, and nothing that holds a model."""

    name: str
    state: str
    health: str
    version: str
    since: float
    reason: str
    config: Mapping[str, str]
    config_version: int
    tasks: tuple[str, ...]
    needs: tuple[str, ...]
    engine: str
    concurrency: int
    running: tuple[str, ...]
    left_behind: int
    waiting: int
    calls: int
    errors: int
    p50: float | None
    p95: float | None
    loads: int
    load_seconds: float | None
    memory: int | None  # as stated
    budget: Mapping[str, int]  # by device, or "total"
    holds: Mapping[str, int]  # by device, as measured
    held: Mapping[str, int]  # when it was last there
    parked: bool
    taped: int  # bytes of its last calls, by which new code is tried: in nobody's books
    ttl: float | None
    last_error: str
    breaker: str
    device: str
    by_version: tuple[str, ...]  # how each version does, of a service that was edited
    reloads: tuple[str, ...]  # what came of the last ones

    @property
    def refuses(self) -> str:
        """How its breaker stands, where it is not closed: open, or half open."""
        return "" if self.breaker.startswith("closed") else self.breaker.split(" for ")[0]

    @property
    def line(self) -> str:
        """The service in one line."""
        told = [self.name, self.version, self.state]
        if self.health != "unknown":
            told.append(self.health)
        if running := len(self.running) - self.left_behind:
            told.append(f"{running} running")
        if self.left_behind:
            told.append(f"{self.left_behind} still running in a model let go of")
        if self.waiting:
            told.append(f"{self.waiting} waiting")
        if self.refuses:
            told.append(f"breaker {self.refuses}")
        errors = f", {self.errors} failed" if self.errors else ""
        return f"{' '.join(told)} · {count(self.calls, 'call')}{errors}"

    @property
    def _memory(self) -> str:
        told = [f"{size(held)} of {device}" for device, held in self.holds.items()]
        if self.parked:
            told.append("parked: its next call wakes it")
        elif not told and self.held:
            told += [f"{size(held)} of {device} when it was last there" for device, held in self.held.items()]
        elif not told and self.memory is not None:
            told.append(f"{size(self.memory)} as stated")
        if self.budget:
            told.append(budget_in_words(self.budget))
        if self.taped:
            told.append(f"{size(self.taped)} kept of its last calls")
        return ", ".join(told)

    def _table(self) -> Table:
        rows = [
            (
                "state",
                f"{self.state} for {seconds(self.since)}" + (f" ({self.reason})" if self.reason else ""),
            ),
            ("health", self.health),
            ("version", f"{self.version}, config {self.config_version}"),
            ("tasks", ", ".join(self.tasks) or "known after the first load"),
            ("needs", ", ".join(self.needs)),
            ("config", ", ".join(f"{name}={value}" for name, value in self.config.items())),
            ("running", "; ".join(self.running)),
            ("waiting", str(self.waiting or "")),
            ("breaker", self.breaker),
            ("device", self.device),
            ("calls", f"{self.calls}, {self.errors} failed"),
            ("p50 / p95", f"{seconds(self.p50)} / {seconds(self.p95)}" if self.p50 is not None else ""),
            (
                "loads",
                f"{self.loads}, the last in {seconds(self.load_seconds)}" if self.loads else "never loaded",
            ),
            ("memory", self._memory),
            ("idle limit", seconds(self.ttl) if self.ttl is not None else ""),
            ("slots", str(self.concurrency) if self.concurrency > 1 else ""),
            ("last error", self.last_error),
            *(("by version" if not at else "", line) for at, line in enumerate(self.by_version)),
            *(("lately" if not at else "", line) for at, line in enumerate(reversed(self.reloads))),
        ]
        return Table(self.name, ("", ""), [row for row in rows if row[1]])

    def __repr__(self) -> str:
        return self._table().text()

    def _repr_html_(self) -> str:
        return self._table().html()


@dataclass(frozen=True, slots=True)
class StatusTable(Sequence[ServiceStatus]):
    """All services at one moment; a sequence of their statuses."""

    services: tuple[ServiceStatus, ...]

    def _table(self) -> Table:
        rows = [
            (
                s.name,
                s.state if not s.refuses else f"{s.state}, breaker {s.refuses}",
                s.health,
                s.version,
                str(s.calls),
                str(s.errors) if s.errors else "",
                seconds(s.p95) if s.p95 is not None else "",
                ", ".join(s.running) or (f"{s.waiting} waiting" if s.waiting else ""),
                ", ".join(s.tasks),
            )
            for s in self.services
        ]
        columns = ("service", "state", "health", "version", "calls", "failed", "p95", "running", "tasks")
        empty = 'nothing is registered; grym.register("name", YourService)'
        return Table("services", columns, rows, empty=empty)

    def __len__(self) -> int:
        return len(self.services)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            return {s.name: s for s in self.services}[index]
        return self.services[index]

    def __repr__(self) -> str:
        return self._table().text()

    def _repr_html_(self) -> str:
        return self._table().html()


@dataclass(frozen=True, slots=True)
class Ping:
    """How a service answered a ping; `ok` is None when it is not loaded, so there was nobody to ask."""

    service: str
    ok: bool | None
    seconds: float
    problem: str = ""


def status_of(record: ServiceRecord) -> ServiceStatus:
    """Return a snapshot of a service; takes its lock for a moment, loads and touches nothing."""
    with record.lock:
        lifecycle = record.lifecycle
        state, since = lifecycle.state, lifecycle.since
        reason = lifecycle.story[-1].reason if lifecycle.story else ""
        waiting = record.lane.waiting + len(record.pausing)
    frames = record.lane.frames()
    now = record.ports.clock()  # after what is timed by it: nothing has run for less than nothing
    answered = Histogram()
    calls = errors = 0
    for (_, outcome), meter in record.meters.copy().items():
        calls += meter.count
        errors += 0 if outcome in _NO_FAILURE else meter.count
        if outcome == "ok":
            answered.merge(meter)
    figures = answered.snapshot()
    spec = record.spec
    return ServiceStatus(
        name=record.name,
        state=state,
        health=record.health,
        version=record.version,
        since=now - since,
        reason=reason,
        config=redacted(spec.full_config),
        config_version=record.config_version,
        tasks=_task_names(record),
        needs=spec.needs,
        engine=spec.engine,
        concurrency=spec.concurrency,
        running=tuple(_running(frame, now) for frame in frames),
        left_behind=sum(is_left_behind(frame) for frame in frames),
        waiting=waiting,
        calls=calls,
        errors=errors,
        p50=figures.p50,
        p95=figures.p95,
        loads=record.loads,
        load_seconds=record.load_seconds,
        memory=spec.memory,
        budget=spec.budget,
        holds=_holds(record),
        held=record.footprint.sizes or {},
        parked=parked_in(record) is not None,
        taped=record.tape.size,
        ttl=spec.ttl,
        last_error=_last_error(record),
        breaker=breaker_in_words(record),
        device=device_of(record),
        by_version=tuple(_versions(record)),
        reloads=tuple(_cut(one.line, 200) for one in record.reloads[-_RELOADS:]),
    )


def _versions(record: ServiceRecord) -> Iterator[str]:
    """Say of each version that was called what share of the calls it gets, and how it does."""
    instance, now = record.instance, record.config_version
    split = None if instance is None else instance.serving.split
    shares = {} if split is None else {split.rest.version: 1.0 - split.share, record.version: split.share}
    meters = record.by_version.copy()
    several = len({config for _, config, _ in meters}) > 1
    for version, config in dict.fromkeys([*(key[:2] for key in meters), *((one, now) for one in shares)]):
        its = {key[2]: meter for key, meter in meters.items() if key[:2] == (version, config)}
        failed = sum(meter.count for outcome, meter in its.items() if outcome not in _NO_FAILURE)
        p95 = None if "ok" not in its else its["ok"].snapshot().p95
        told = [count(sum(meter.count for meter in its.values()), "call"), f"{failed} failed"]
        if version in shares and config == now:
            told.insert(0, f"{100.0 * shares[version]:.3g} % of the calls")
        if p95 is not None:
            told.append(f"p95 {seconds(p95)}")
        yield f"{version}{f' with config {config}' if several else ''}: {', '.join(told)}"


def _holds(record: ServiceRecord) -> dict[str, int]:
    """Return what a service holds now, loaded or parked, by device."""
    instance = there(record)
    reservation = None if instance is None else instance.reservation
    return {} if reservation is None else {d: held for d, held in reservation.sizes.items() if held}


def _task_names(record: ServiceRecord) -> tuple[str, ...]:
    # A factory given as a string is not imported for a status.
    if isinstance(record.spec.factory, str) and "callable" not in record.spec.__dict__:
        return ()
    return tuple(record.tasks or ())


def _running(frame: Frame, now: float) -> str:
    progress = f" {frame.progress.told}" if frame.progress is not None else ""
    late = frame.deadline is not None and now > frame.deadline
    where = " in a model let go of" if is_left_behind(frame) else ""
    waits = f" waits for {told}" if (told := asks_for(frame)) else ""
    return f"{frame.task}{progress} {'stuck ' if late else ''}{seconds(now - frame.started)}{where}{waits}"


def asks_for(frame: Frame) -> str:
    """Say for what a call stands in line: a device, memory, the load of another; not for calls of its own."""
    return next((str(what) for what in frame.waits_for if not isinstance(what, Frame)), "")


def is_left_behind(frame: Frame) -> bool:
    """Tell whether a call has the model of an unload that did not wait for it to itself."""
    place = frame.place
    return place is not None and place.epoch != place.lane.epoch


def _last_error(record: ServiceRecord) -> str:
    last = record.last_error
    if last is None:
        return ""
    return f"{last.task}: {last.error}: {_cut(last.message, 120)}"


def _cut(text: str, width: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def metrics_of(record: ServiceRecord) -> ServiceMetrics:
    """Return the figures of a service's calls."""
    total = Histogram()
    waits: dict[Waits, Histogram] = {what: Histogram() for what in get_args(Waits)}
    tasks: dict[str, Histogram] = {}
    errors: dict[str, int] = {}
    ok = 0
    for (task, outcome), meter in record.meters.copy().items():
        if outcome == "ok":
            total.merge(meter)
            tasks.setdefault(task, Histogram()).merge(meter)
        if outcome in ("ok", "cached", "fallback"):
            ok += meter.count
        else:
            errors[outcome] = errors.get(outcome, 0) + meter.count
    for (_, what), meter in record.waits.copy().items():
        waits[what].merge(meter)
    calls = ok + sum(errors.values())
    return ServiceMetrics(
        calls=calls,
        ok=ok,
        errors=errors,
        seconds=total.snapshot(),
        tasks={name: histogram.snapshot() for name, histogram in tasks.items()},
        waits={what: histogram.snapshot() for what, histogram in waits.items()},
        loads=record.loads,
        load_seconds=record.load_seconds,
        last_used=record.last_used if calls or record.loads else None,
    )


def ping(record: ServiceRecord) -> Ping:
    """Ask the loaded instance how it is; it is counted in for the time, and nothing else notices."""
    clock = record.ports.clock
    began = clock()
    frame = Frame(record, None, (), {}, PLAIN, began, what="ping")
    try:
        try:
            problem = _problem(record, frame)
        finally:
            record.let_go(frame)
    finally:
        record.let_go(frame)  # had Ctrl-C cut the first short
        frame.end()
    return (
        Ping(record.name, None, 0.0)
        if problem is None
        else Ping(record.name, not problem, clock() - began, problem)
    )


def _problem(record: ServiceRecord, frame: Frame) -> str | None:
    """Return what the ping hook raised, empty for nothing; None when nobody is there to be asked."""
    with record.lock:
        if record.lifecycle.state != "ready":
            return None
        instance = record.count_in(frame)
    token = CURRENT.set(frame)
    try:
        hook = getattr(instance.model, "ping", None)
        if hook is not None:
            hook()
    except (Exception, SystemExit) as error:  # one that exits, as a script would, has not answered either
        return f"{type(error).__name__}: {error}"
    finally:
        CURRENT.reset(token)
    return ""
