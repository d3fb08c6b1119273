"""All that watches, together: it goes on whatever is raised, and rests where there is nothing."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from grym_nb.errors import CallTimeout
from grym_nb.hardening.pressure import Pressure
from grym_nb.health import oversight
from grym_nb.health.notices import Notice
from grym_nb.health.oversight import Oversight
from grym_nb.health.rules import Rule
from grym_nb.metrics.slots import BucketSlots
from grym_nb.runtime import Runtime
from grym_nb.services import ModelService, ServiceRegistry, task
from grym_nb.settings import Settings
from grym_nb.testing import FakeClock
from tests.services.crowd import WAIT, Gates, outcome, until


class Net(ModelService):
    """Answers."""

    @task
    def ask(self) -> int:
        return 1


class Held(ModelService):
    """Waits for the test."""

    gates: Gates

    @task
    def ask(self) -> None:
        self.gates.hold()


@pytest.fixture
def watch(driven: ServiceRegistry) -> Iterator[Oversight]:
    made = Oversight(driven, look_seconds=5.0)
    yield made
    made.close()


def seconds(registry: ServiceRegistry, clock: FakeClock, count: int) -> None:
    for _ in range(count):
        clock.advance(1.0)
        until(lambda: registry.ports.pulse.step() is None or registry.ports.pulse.step() > clock())


def test_what_raises_in_one_look_does_not_end_all_looks(
    driven: ServiceRegistry, clock: FakeClock, watch: Oversight
) -> None:
    net = driven.register("net", Net).load()
    looked: list[float] = []

    def bad(now: float) -> Any:
        raise OSError("nvidia-smi is gone")

    watch.monitor.looks += [bad, lambda now: looked.append(now) or ()]
    seconds(driven, clock, 30)
    assert len(looked) >= 5 and net.health == "healthy"


def test_a_metric_of_somebody_s_with_a_name_of_ours_costs_only_that_gauge(
    driven: ServiceRegistry, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = driven.ports.metrics
    for name in ("service.running", "kernel.memory.share"):
        metrics.counter(name).add()
    watch = Oversight(driven, look_seconds=5.0)
    net = driven.register("net", Net).load()
    seconds(driven, clock, 30)
    assert net.health == "healthy" and metrics.gauge("service.loads", service="net").value == 1
    said = [one for one in caplog.records if "is not said again" in one.getMessage()]
    assert len(said) == 2
    watch.close()


def test_a_look_that_is_not_over_is_not_in_the_way_of_the_next(
    driven: ServiceRegistry, clock: FakeClock, watch: Oversight, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bad() -> Any:
        raise OSError("broken")

    net = driven.register("net", Net).load()
    with monkeypatch.context() as patch:
        patch.setattr(watch.alerts, "steps", bad)
        seconds(driven, clock, 12)
    assert watch._under_way is None
    before = len(watch.history.series())
    watch.alerts.add(Rule("any", "service.loads", above=0.5))
    seconds(driven, clock, 12)
    assert before and any(one.rule == "any" for one in watch.alerts.active) and net.health == "healthy"


@pytest.mark.parametrize("of", ["a series", "a function"])
def test_what_has_to_hold_for_long_is_told_though_nothing_is_loaded(
    driven: ServiceRegistry, clock: FakeClock, watch: Oversight, of: str
) -> None:
    told: list[float] = []
    watch.alerts.tell(lambda notice: told.append(clock()))
    level = 0.0
    metric: Any = "queue" if of == "a series" else lambda history, now: level
    watch.alerts.add(Rule("long queue", metric, above=10, for_seconds=120.0))
    watch.begin()
    queue = driven.ports.metrics.gauge("queue")
    seconds(driven, clock, 30)
    queue.set(50)
    level, since = 50.0, clock()
    seconds(driven, clock, 150)
    assert len(told) == 1 and told[0] - since >= 120.0  # how much later depends on how busy the machine is
    queue.set(0)
    level = 0.0
    seconds(driven, clock, 80)
    assert not watch._entries, "and when that is over it rests"


def test_what_was_pending_when_it_went_to_rest_begins_anew(
    driven: ServiceRegistry, clock: FakeClock, watch: Oversight, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oversight, "_DAY", 60.0)  # for which what is about to fire is waited for
    told: list[Notice] = []
    watch.alerts.tell(told.append)
    watch.alerts.add(Rule("long queue", "queue", above=10, for_seconds=300.0))
    watch.begin()
    queue = driven.ports.metrics.gauge("queue")
    seconds(driven, clock, 30)
    queue.set(50)
    seconds(driven, clock, 70)
    assert not watch._entries, "nothing is loaded"
    queue.set(0)
    clock.advance(7200.0)
    driven.register("net", Net).load()
    queue.set(50)
    seconds(driven, clock, 200)
    assert not told
    seconds(driven, clock, 120)
    assert [one.rule for one in told] == ["long queue"]


def test_a_queue_alone_is_no_failing_service(
    driven: ServiceRegistry, clock: FakeClock, watch: Oversight
) -> None:
    gates = Gates()
    net = driven.register("net", Held)
    with net.use() as model:
        model.gates = gates
    first = net.ask.submit()
    gates.wait("in")
    calls = [net.ask.with_(timeout=1.0).submit() for _ in range(8)]
    seconds(driven, clock, 50)
    assert all(isinstance(outcome(call), CallTimeout) for call in calls)
    assert net.metrics().errors == {"call.timeout": 8}
    assert net.health == "healthy" and not watch.alerts.active
    gates.tell("go")
    first.result(WAIT)


@pytest.mark.parametrize(
    "loads",
    [((60, 30, 0.3),), ((60, 10, 0.12), (180, 10, 0.12), (300, 10, 0.12), (420, 10, 0.12))],
    ids=["a long load", "four loads"],
)
def test_what_is_loaded_is_no_growth(
    driven: ServiceRegistry,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    loads: tuple[tuple[int, int, float], ...],
) -> None:
    rng, share = random.Random(5), [0.2]
    monkeypatch.setattr(
        driven.ports.resources, "pressure", lambda: Pressure(int(share[0] * 1e9), 10**9, "test")
    )
    watch = Oversight(driven, look_seconds=5.0)
    driven.register("net", Net).load()
    for second in range(540):
        grown = sum(size * min(max((second - at) / took, 0.0), 1.0) for at, took, size in loads)
        share[0] = 0.2 + grown + rng.gauss(0, 0.001)
        seconds(driven, clock, 1)
        assert not watch.monitor.system().reasons and not watch.alerts.active
    watch.close()


def test_growth_right_after_a_load_is_ignored_and_what_goes_on_is_told(
    driven: ServiceRegistry, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = [0.2]
    monkeypatch.setattr(
        driven.ports.resources, "pressure", lambda: Pressure(int(share[0] * 1e9), 10**9, "test")
    )
    watch = Oversight(driven, look_seconds=5.0)
    net = driven.register("net", Net).load()
    for second in range(600):
        if second == 240:
            net.unload().load()
        share[0] += 0.0008
        seconds(driven, clock, 1)
        if second < 500:
            assert not watch.monitor.system().reasons
    assert "memory limit in about" in watch.monitor.system().reasons[0]
    [alert] = watch.alerts.active
    assert alert.rule == "memory ahead" and alert.told.endswith("below 15")
    watch.close()


def test_where_nobody_is_to_be_judged_a_question_begins_nothing() -> None:
    with Runtime(Settings(health_seconds=0)) as runtime:
        assert runtime.health.system().verdict == "unknown"
        runtime.registry.register("net", Net).load()
        assert not runtime._watching()._entries
        runtime.health.step()
        assert runtime.registry["net"].health == "healthy", "who asks is told"


def test_a_look_is_done_in_pieces_that_leave_the_pulse_free(
    driven: ServiceRegistry, clock: FakeClock, watch: Oversight, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oversight, "_AT_ONCE", -1.0)
    nets = [driven.register(f"net{n}", Net).load() for n in range(5)]
    watch.begin()
    pieces = 0
    clock.advance(5.0)
    driven.ports.pulse.step()
    while watch._under_way is not None:
        pieces += 1
        clock.advance(oversight._PAUSE)
        driven.ports.pulse.step()
    assert pieces >= len(nets) and all(net.health == "healthy" for net in nets)


def test_what_is_absent_once_nothing_is_loaded_is_told(
    driven: ServiceRegistry, clock: FakeClock, watch: Oversight
) -> None:
    watch.alerts.add(Rule("silent", "service.call.seconds", absent=100.0, by=("service",)))
    watch.alerts.add(Rule("never", "heartbeat", absent=5000.0))
    net = driven.register("net", Net).load()
    net.ask()
    seconds(driven, clock, 6)
    net.unload()
    seconds(driven, clock, 120)
    assert [one.rule for one in watch.alerts.active] == ["silent"]
    watch.alerts.remove("silent")
    seconds(driven, clock, 20)
    assert not watch._entries, "of what never was, nobody waits for the absence"


def test_no_step_of_a_look_unpacks_what_all_services_did(
    driven: ServiceRegistry, clock: FakeClock, watch: Oversight, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is on the pulse, which others wait for: it looks at one service, and no further than it has to."""
    nets = [driven.register(f"net{n}", Net).load() for n in range(10)]
    for _ in range(70):
        for net in nets:
            net.ask()
        clock.advance(1.0)
        watch.history.step()
    unpacked, mine = [0], threading.get_ident()  # what rules ask on other threads is in nobody's way
    real = BucketSlots.__iter__

    def counted(self: BucketSlots) -> Iterator[Any]:
        for one in real(self):
            unpacked[-1] += threading.get_ident() == mine
            yield one

    monkeypatch.setattr(BucketSlots, "__iter__", counted)
    for _ in watch._steps():
        unpacked.append(0)
    assert 0 < max(unpacked) <= 25 and sum(unpacked) <= 25 * len(nets)


class Sometimes(ModelService):
    """Answers soon, or waits for the test."""

    gates: Gates

    @task
    def ask(self, waits: bool = False) -> None:
        if waits:
            self.gates.hold()


def test_a_long_call_that_others_wait_behind_is_told_and_left_alone(
    watch: Oversight, driven: ServiceRegistry, clock: FakeClock
) -> None:
    """Nobody knows whether it hangs, so nothing is done about it; but who owns it has to hear of it."""
    Sometimes.gates = gates = Gates()
    told: list[str] = []
    end = watch.alerts.tell(lambda notice: told.append(notice.text))
    net = driven.register("net", Sometimes).load()
    held = net._record.meters
    for _ in range(5):
        net.ask()
    held["ask", "ok"].record(0.01)
    seconds(driven, clock, 6)
    call = net.ask.submit(True)
    gates.wait("in")
    seconds(driven, clock, 100)
    assert told == [] and net.health == "degraded", "nobody waits for it"
    behind = [net.ask.submit() for _ in range(2)]
    until(lambda: net._record.lane.waiting == 2)
    seconds(driven, clock, 25)
    until(lambda: bool(told))
    assert len(told) == 1 and told[0].startswith("net: held up (warning): net.ask (call ")
    assert "as long as any before (10 ms at most); 2 calls wait behind it" in told[0]
    assert "timeout=" in told[0] and "%grym cancel" in told[0]
    assert net.health == "degraded" and watch.recovery.story("net") == ()
    gates.tell("go")
    call.result(WAIT)
    for one in behind:
        one.result(WAIT)
    seconds(driven, clock, 25)
    until(lambda: len(told) == 2)
    assert told[1].startswith("net: held up is over")
    end()


class Ill(ModelService):
    """Its ping raises."""

    def ping(self) -> None:
        raise RuntimeError("the weights are NaN")

    @task
    def ask(self) -> None:
        pass


def test_who_is_told_that_a_service_is_unhealthy_is_told_why(
    driven: ServiceRegistry, clock: FakeClock
) -> None:
    watch = Oversight(driven, look_seconds=5.0, recoveries={"ill": None})
    notices: list[Notice] = []
    watch.alerts.tell(notices.append)
    driven.register("ill", Ill).load()
    seconds(driven, clock, 50)
    until(lambda: bool(notices))
    [alert] = notices[0].alerts
    assert alert.told == "judged unhealthy: ping: RuntimeError: the weights are NaN"
    assert alert.text.startswith(f"ill: unhealthy (critical): {alert.told}")
    watch.close()
