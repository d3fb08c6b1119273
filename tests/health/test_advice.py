"""What could be done better is said with its figure, or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from grym_nb.clip import Clip
from grym_nb.errors import ConfigError
from grym_nb.health import advice
from grym_nb.health.advice import Repeats, Seen, suggested, suggestions
from grym_nb.health.graph import topology
from grym_nb.metrics import HistogramSnapshot
from grym_nb.runtime import Runtime
from grym_nb.services import ModelService, ServiceRegistry, task
from grym_nb.testing import FakeClock
from tests.services.crowd import until


def figures(count: int, p50: float, p99: float | None = None) -> HistogramSnapshot:
    high = p99 if p99 is not None else p50
    return HistogramSnapshot(count, count * p50, p50, high, p50, high, high)


CALM = Seen(
    name="asr",
    calls=200,
    answered=figures(200, 0.2, 0.4),
    waits={},
    loads=1,
    load_seconds=4.0,
    idle=3.0,
    memory=2_000_000_000,
    free=8_000_000_000,
    concurrency=1,
    ttl=None,
)


def test_where_all_is_well_nothing_is_said() -> None:
    assert suggested(CALM) == ()


@pytest.mark.parametrize(
    ("change", "do", "why"),
    [
        (
            {"waits": {"slot": figures(150, 1.5)}},
            "concurrency=2",
            "150 of its 200 calls waited for a slot, half of them 1.5 s or more, 3 min 45 s in all; "
            "an answer takes 200 ms",
        ),
        (
            {"waits": {"device": figures(150, 1.5)}, "device": "cuda:0", "beside": ("tts", "vad")},
            "several inputs in each, @task(batch=...)",
            "150 of its 200 calls waited for cuda:0, half of them 1.5 s or more, 3 min 45 s in all; "
            "an answer takes 200 ms, which it shares with tts, vad",
        ),
        (
            {"waits": {"device": figures(150, 1.5)}, "device": "cuda:0", "spare": ("cuda:1",)},
            "device='cuda:1'",
            "for cuda:0",
        ),
        (
            {"waits": {"slot": figures(150, 1.5), "device": figures(150, 3.0)}, "spare": ("cuda:1",)},
            "device='cuda:1'",
            "waited for its device, half of them 3 s or more",
        ),
        ({"loads": 5, "idled": 4}, "ttl=", "it went idle 4 times, and takes 4 s to load again"),
        ({"loads": 5, "evicted": 2}, "priority=", "it went for others 2 times, and takes 4 s to load again"),
        (
            {"idle": 3600.0, "free": 1_000_000_000},
            "ttl=600",
            "it has 2.0 GB, idle for 1 h 0 min; 1.0 GB are free there",
        ),
        (
            {"answered": figures(200, 0.2, 4.0)},
            "slow ones",
            "one call in a hundred takes 4 s, the usual one 200 ms",
        ),
        (
            {"repeats": {"ask": Repeats(30, 40, 60.0, 90.0)}},
            "keep what ask answers",
            "30 of its last 40 long calls were given what one before them was: 1 min 0 s of 1 min 30 s",
        ),
        (
            {"loads": 2, "before": {"vad": 0.9}, "load_seconds": 2.0},
            "load it while vad computes",
            "90% of what comes after vad is this",
        ),
    ],
)
def test_each_rests_on_its_figure(change: dict[str, object], do: str, why: str) -> None:
    [one] = suggested(replace(CALM, **change))  # type: ignore[arg-type]
    assert do in one.do and why in one.why and one.text.startswith("asr: ")


@pytest.mark.parametrize(
    "change",
    [
        {"waits": {"slot": figures(10, 1.5)}},  # few of them
        {"waits": {"slot": figures(150, 0.1)}},  # not for long
        {"waits": {"device": figures(10, 1.5)}},
        {"waits": {"device": figures(150, 0.1)}},
        {"waits": {"load": figures(150, 1.5)}},  # which no slot would end
        {"waits": {"slot": figures(150, 1.5), "load": figures(150, 3.0)}},
        {"waits": {"worker": figures(150, 1.5)}},  # nor this
        {"waits": {"slot": figures(150, 0.005)}, "answered": figures(200, 0.001)},  # not for long at all
        {"waits": {"slot": figures(20_000, 0.0004)}, "calls": 20_000, "answered": figures(20_000, 0.00001)},
        {"loads": 5, "idled": 4, "load_seconds": 0.1},
        {"loads": 5},  # by hand
        {"idle": 3600.0},  # there is room enough
        {"idle": 3600.0, "free": 10**9, "ttl": 600.0},  # it goes by itself
        {"answered": figures(30, 0.2, 4.0)},
        {"before": {"vad": 0.9}},  # it is there all the time
        {"repeats": {"ask": Repeats(10, 15, 60.0, 90.0)}},  # few calls
        {"repeats": {"ask": Repeats(10, 40, 20.0, 90.0)}},  # few of them
        {"repeats": {"ask": Repeats(30, 40, 3.0, 4.0)}},  # quick
    ],
)
def test_what_is_no_trouble_is_not_talked_about(change: dict[str, object]) -> None:
    assert suggested(replace(CALM, **change)) == ()  # type: ignore[arg-type]


class One(ModelService):
    @task
    def ask(self) -> int:
        return 1


def test_they_are_read_off_a_registry(driven: ServiceRegistry, clock: FakeClock) -> None:
    class Slow(One):
        def load(self) -> None:
            clock.advance(3.0)

    first, second = driven.register("first", One), driven.register("second", Slow)
    for _ in range(25):
        first.ask()
        second.ask()
    assert suggestions(driven) == ()
    second.unload().load()
    [one] = suggestions(driven)
    assert one.service == "second" and "load it while first computes" in one.do


def test_who_unloads_by_hand_is_not_told_what_that_costs(driven: ServiceRegistry, clock: FakeClock) -> None:
    class Slow(One):
        def load(self) -> None:
            clock.advance(3.0)

    by_hand, idle = driven.register("by_hand", Slow), driven.register("idle", Slow, ttl=10.0)
    for _ in range(4):
        by_hand.load()
        by_hand.unload()
        idle.load()
        clock.advance(30.0)
        driven.ports.pulse.step()
        until(lambda: idle.state == "registered")
    idle.load()
    [one] = suggestions(driven)
    assert one.text == "idle: keep it: a longer ttl=: it went idle 4 times, and takes 3 s to load again"


def test_many_short_waits_are_told_once_they_come_to_something() -> None:
    quick = replace(CALM, calls=2000, answered=figures(2000, 0.001), waits={"slot": figures(1900, 0.005)})
    [one] = suggested(quick)
    assert "1900 of its 2000 calls waited for a slot, half of them 5 ms or more, 9.5 s in all" in one.why


def test_who_waits_for_both_is_told_of_each() -> None:
    both = replace(CALM, waits={"slot": figures(150, 1.5), "device": figures(150, 1.5)}, device="npu:0")
    assert [("concurrency=" in one.do, "npu:0" in one.why) for one in suggested(both)] == [
        (True, False),
        (False, True),
    ]


class Net(ModelService):
    @task
    def ask(self) -> None: ...


def test_services_on_one_device_are_told_of_one_another(
    driven: ServiceRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Seen] = []
    monkeypatch.setattr(advice, "suggested", lambda one: seen.append(one) or ())
    for device in ("npu:0", "npu:1", "dsp:0"):
        driven.ports.resources.declare(device)
    for name, device in (("one", "npu:0"), ("two", "npu:0"), ("three", None)):
        driven.register(name, Net, device=device).ask()
    advice.suggestions(driven)
    assert {one.name: (one.device, one.beside, one.spare) for one in seen} == {
        "one": ("npu:0", ("two",), ("npu:1",)),
        "two": ("npu:0", ("one",), ("npu:1",)),
        "three": ("", (), ()),
    }


def test_what_is_waited_for_is_what_is_advised(driven: ServiceRegistry, clock: FakeClock) -> None:
    """Two services on one card, each with slots enough: what they lack is the card."""
    driven.ports.resources.declare("npu:0")
    first = driven.register("first", Net, device="npu:0")
    other = driven.register("other", Net, device="npu:0", concurrency=4)
    first.load(), other.load()
    for _ in range(25):
        with driven.ports.resources.lease("npu:0", owner="me"):
            call = other.submit("ask")
            until(lambda: driven.ports.resources["npu:0"].waiting == 1)
            clock.advance(2.0)
        call.result(10)
    [one] = suggestions(driven)
    assert one.service == "other" and "batch" in one.do and "for npu:0" in one.why and "first" in one.why


class Long(ModelService):
    """Takes half a second of the clock for each call."""

    clock: FakeClock

    @task
    def ask(self, what: object, *, times: int = 1) -> None:
        self.clock.advance(0.5)

    @task(replay=False)
    def write(self, what: object) -> None:
        self.clock.advance(0.5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([(("a.wav",), {"times": 2})] * 30, True),
        ([((Clip(np.zeros(1000, np.float32), 16_000),), {}) for _ in range(30)], True),  # equal, not the same
        ([((f"{n}.wav",), {}) for n in range(30)], False),
        ([(("a.wav",), {"times": n}) for n in range(30)], False),
        ([((object(),), {}) for _ in range(30)], False),  # nobody can tell
        ([(([1],), {})] * 30, False),
        ([(("x" * 10_000_000,), {})] * 30, False),  # to read it takes too long
    ],
)
def test_who_is_given_the_same_again_and_again_is_told(
    driven: ServiceRegistry, clock: FakeClock, given: list[Any], said: bool
) -> None:
    Long.clock = clock
    net = driven.register("net", Long)
    for args, options in given:
        net.ask(*args, **options)
        net.write(*args)
    told = [one.text for one in suggestions(driven) if "keep what" in one.do]
    assert [("keep what ask answers" in one, "14 s 500 ms" in one or "14.5 s" in one) for one in told] == (
        [(True, True)] if said else []
    )


def test_what_is_quick_or_of_another_config_is_not_compared(
    driven: ServiceRegistry, clock: FakeClock
) -> None:
    class Set(Long):
        def __init__(self, *, level: int = 0) -> None:
            self.level = level

        @task
        def quick(self, what: str) -> None: ...

    Long.clock = clock
    net = driven.register("net", Set)
    for level in range(30):
        net.configure(level=level)
        net.ask("a.wav")
        net.quick("a.wav")
    assert not [one for one in suggestions(driven) if "keep what" in one.do]
    assert {call.given for call in driven.calls() if call.task == "quick"} == {0}


@pytest.mark.parametrize("look", [suggestions, topology])
def test_who_has_no_services_to_look_at_is_told_what_is_wanted(look: Any) -> None:
    with Runtime() as runtime:
        for wrong in (runtime, None, "asr"):
            with pytest.raises(ConfigError, match="only the services of a registry can be looked") as caught:
                look(wrong)
            assert "grym.current().registry" in str(caught.value)
