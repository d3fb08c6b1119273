"""A config changes in place where `load` does not depend on it, and reloads where it does."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from grym_nb.errors import ConfigError, LoadFailed, ServiceClosed, StateError
from grym_nb.events import StateChanged
from grym_nb.services import ModelService, ServiceHandle, ServiceRegistry, positive, task
from grym_nb.services.spec import ServiceSpec
from grym_nb.testing import FakeClock
from tests.services.crowd import Gates, all_at_once, outcome, passes, reaching, start

did: Counter[str] = Counter()
gates = Gates()


@pytest.fixture(autouse=True)
def _nothing_done_yet() -> Iterator[None]:
    global gates
    did.clear()
    gates = Gates()
    yield


class Model(ModelService):
    """`load` reads the size; the gain is only looked at by the task."""

    def __init__(self, *, gain: float = 1.0, size: int = 3, name: str = "m") -> None:
        if gain == 13:
            raise ValueError("unlucky")
        self.gain = gain
        self.half = gain / 2
        self.size = size
        self.name = name

    def load(self) -> None:
        did["load"] += 1
        self.weights = [1.0] * self.size

    def unload(self) -> None:
        did["unload"] += 1

    @task
    def ask(self) -> tuple[float, float, int]:
        return self.gain, self.half, len(self.weights)

    @task
    def slow(self) -> float:
        before = self.gain
        gates.tell("inside")
        gates.wait("on")
        return before + self.gain


@pytest.fixture
def handle(registry: ServiceRegistry) -> ServiceHandle:
    return registry.register("model", Model)


def model_of(handle: ServiceHandle) -> Any:
    with handle.use() as model:
        return model


def test_what_load_did_not_read_changes_in_place(handle: ServiceHandle) -> None:
    assert handle.ask() == (1.0, 0.5, 3)
    model, weights = model_of(handle), model_of(handle).weights
    assert handle.configure(gain=4.0) == "in place"
    assert handle.ask() == (4.0, 2.0, 3)
    assert model_of(handle) is model and model.weights is weights
    assert did == {"load": 1} and handle.config == {"gain": 4.0, "size": 3, "name": "m"}
    assert (handle.version, handle.status().config_version) == ("v1", 2)


def test_what_load_read_reloads(handle: ServiceHandle) -> None:
    handle.ask()
    model = model_of(handle)
    assert handle.configure(size=5, gain=2.0) == "reloads"
    assert handle.state == "registered"
    assert handle.ask() == (2.0, 1.0, 5) and model_of(handle) is not model
    assert did == {"load": 2, "unload": 1} and handle.status().config_version == 2


def test_before_it_is_loaded_it_waits_for_the_load(handle: ServiceHandle) -> None:
    assert handle.configure(size=7) == "at load"
    assert handle.state == "registered" and not did
    assert handle.ask() == (1.0, 0.5, 7) and handle.status().config_version == 2


def test_the_same_again_changes_nothing(handle: ServiceHandle) -> None:
    handle.ask()
    story = handle.story
    assert handle.configure() == "unchanged"
    handle.configure(gain=2.0)
    assert handle.configure(gain=2.0) == "unchanged"
    assert handle.status().config_version == 2 and len(handle.story) == len(story) + 2


def test_a_default_that_is_spelled_out_takes_no_effect_but_is_kept(handle: ServiceHandle) -> None:
    handle.ask()
    assert handle.configure(gain=1.0) in ("unchanged", "in place")
    assert did == {"load": 1} and handle.config["gain"] == 1.0


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"gian": 2.0}, "config.gian"), ({"gain": "loud"}, "config.gain"), ({"gain": 13}, "unlucky")],
    ids=["unknown", "type", "raises"],
)
def test_a_bad_config_is_refused_and_nothing_is_changed(
    handle: ServiceHandle, changes: dict[str, Any], told: str
) -> None:
    handle.ask()
    model, story = model_of(handle), handle.story
    with pytest.raises(ConfigError, match=told):
        handle.configure(**changes)
    assert handle.ask() == (1.0, 0.5, 3) and model_of(handle) is model
    assert (handle.config["gain"], handle.status().config_version, handle.story) == (1.0, 1, story)


def test_a_bad_config_of_one_that_is_not_loaded_fails_at_the_load(handle: ServiceHandle) -> None:
    """What only running `__init__` can tell is found when it is run."""
    with pytest.raises(ConfigError):
        handle.configure(gain="loud")
    assert handle.configure(gain=13) == "at load"
    with pytest.raises(LoadFailed, match="unlucky"):
        handle.ask()
    handle.configure(gain=2.0)
    assert handle.ask() == (2.0, 1.0, 3)


def test_declared_checks_hold_for_a_config(registry: ServiceRegistry) -> None:
    from typing import Annotated

    class Checked(ModelService):
        def __init__(self, *, n: int = 1) -> None:
            self.n = n

        @task
        def ask(self) -> int:
            return self.n

    Checked.__init__.__annotations__["n"] = Annotated[int, positive()]
    handle = registry.register("checked", Checked)
    assert handle.ask() == 1
    with pytest.raises(ConfigError, match="a number above 0"):
        handle.configure(n=0)
    assert handle.configure(n=3) == "in place" and handle.ask() == 3


def test_running_calls_end_under_the_old_config(handle: ServiceHandle) -> None:
    handle.ask()
    inside = start(handle.slow)
    gates.wait("inside")
    with reaching(handle._registry, "model", "draining") as draining:
        change = start(lambda: handle.configure(gain=10.0))
        passes(draining)
    late = start(handle.ask)
    gates["on"].set()
    assert outcome(inside) == 2.0 and outcome(change) == "in place"
    assert outcome(late) == (10.0, 5.0, 3) and did == {"load": 1}


def test_calls_that_do_not_end_in_time_keep_the_old_config(driven: ServiceRegistry, clock: FakeClock) -> None:
    handle = driven.register("model", Model)
    handle.ask()
    inside = start(handle.slow)
    gates.wait("inside")
    change = start(lambda: handle.configure(gain=10.0))
    clock.until_waiting(1)
    clock.advance(30)
    error = outcome(change)
    assert isinstance(error, StateError) and "calls still run after 30 s" in str(error)
    gates["on"].set()
    assert outcome(inside) == 2.0 and handle.ask() == (1.0, 0.5, 3)
    assert handle.config["gain"] == 1.0 and handle.state == "ready"


def test_a_model_that_goes_while_the_new_config_is_tried_is_not_missed(registry: ServiceRegistry) -> None:
    """`__init__` runs outside of any lock: somebody may unload or reload meanwhile."""
    told = threading.Event()

    class Slow(ModelService):
        def __init__(self, *, gain: float = 1.0) -> None:
            self.gain = gain
            if gain == 2.0 and not told.is_set():
                told.set()
                gates.wait("on")

        @task
        def ask(self) -> float:
            return self.gain

    for end in ("unload", "reload"):
        handle = registry.register(end, Slow)
        assert handle.ask() == 1.0
        told.clear()
        gates["on"].clear()
        change = start(lambda handle=handle: handle.configure(gain=2.0))
        passes(told)
        outcome(start(getattr(handle, end)))
        gates["on"].set()
        assert outcome(change) == ("at load" if end == "unload" else "in place")
        assert handle.ask() == 2.0 and handle.status().config_version == 2


@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "unloaded"])
@pytest.mark.parametrize("second", ["name", "size"])
def test_what_two_change_at_once_is_both_kept(
    registry: ServiceRegistry, second: str, loaded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes second builds on what the first has set, also when it began before."""
    told = threading.Event()
    differs = ServiceSpec.differs

    def slow(self: ServiceSpec, other: ServiceSpec) -> tuple[str, ...]:
        if other.config.get("gain") == 9.0 and not told.is_set():
            told.set()
            gates.wait("on")
        return differs(self, other)

    handle = registry.register("model", Model)
    if loaded:
        handle.ask()
    monkeypatch.setattr(ServiceSpec, "differs", slow)
    change = start(lambda: handle.configure(gain=9.0))
    passes(told)
    value: Any = "x" if second == "name" else 8
    outcome(start(lambda: handle.configure(**{second: value})))
    gates["on"].set()
    assert outcome(change) in ("in place", "at load")
    assert (handle.config["gain"], handle.config[second]) == (9.0, value)
    assert handle.ask()[0] == 9.0 and getattr(model_of(handle), second) == value


def test_many_who_configure_at_once_all_have_their_say(handle: ServiceHandle) -> None:
    handle.ask()
    ways = [{"gain": 20.0}, {"name": "n"}, {"size": 9}]
    told = all_at_once(9, lambda i: handle.configure(**ways[i % 3]))
    assert {str(one) for one in told} <= {"in place", "unchanged", "reloads", "at load"}, told
    assert handle.config == {"gain": 20.0, "name": "n", "size": 9}
    assert handle.ask() == (20.0, 10.0, 9) and model_of(handle).name == "n"


def test_a_closed_service_takes_no_config(registry: ServiceRegistry, handle: ServiceHandle) -> None:
    registry.remove("model")
    with pytest.raises(ServiceClosed):
        handle.configure(gain=2.0)


def test_a_config_that_is_set_by_the_model_itself_is_told_in_the_story(
    registry: ServiceRegistry, handle: ServiceHandle
) -> None:
    handle.ask()
    moves: list[tuple[str, str, str]] = []
    registry.ports.events.subscribe(lambda e: moves.append((e.before, e.after, e.reason)), StateChanged)
    handle.configure(gain=3.0)
    handle.configure(size=4)
    assert moves == [
        ("ready", "draining", "new config"),
        ("draining", "ready", "new config"),
        ("ready", "draining", "config that load reads changed"),
        ("draining", "registered", "config that load reads changed"),
    ]


class Slotted(ModelService):
    __slots__ = ("gain",)

    def __init__(self, *, gain: float = 1.0) -> None:
        self.gain = gain

    @task
    def ask(self) -> float:
        return self.gain


class Watching(ModelService):
    """Keeps its own `__getattribute__`, so nobody can say what its load reads."""

    def __init__(self, *, gain: float = 1.0) -> None:
        self.gain = gain

    def __getattribute__(self, name: str) -> Any:
        return super().__getattribute__(name)

    def load(self) -> None:
        did["load"] += 1

    @task
    def ask(self) -> float:
        return self.gain


class Growing(ModelService):
    """What it has depends on its config."""

    def __init__(self, *, gain: float = 1.0) -> None:
        self.gain = gain
        if gain > 1:
            self.extra = True

    @task
    def ask(self) -> float:
        return self.gain


class AllOfIt(ModelService):
    def __init__(self, *, gain: float = 1.0) -> None:
        self.gain = gain

    def load(self) -> None:
        self.copy = dict(vars(self))

    @task
    def ask(self) -> float:
        return self.gain


@pytest.mark.parametrize("cls", [Watching, Growing, AllOfIt, Slotted])
def test_where_it_cannot_be_told_the_model_is_loaded_anew(registry: ServiceRegistry, cls: type) -> None:
    handle = registry.register("it", cls)
    handle.ask()
    assert handle.configure(gain=2.0) == "reloads" and handle.ask() == 2.0


def test_arrays_that_differ_are_not_mistaken_for_the_same(registry: ServiceRegistry) -> None:
    import numpy as np

    class Windowed(ModelService):
        def __init__(self, *, n: int = 4) -> None:
            self.window = np.hanning(n)

        @task
        def ask(self) -> int:
            return len(self.window)

    handle = registry.register("it", Windowed)
    assert handle.ask() == 4
    assert handle.configure(n=8) == "in place" and handle.ask() == 8


def test_watching_a_load_leaves_the_class_as_it_was(registry: ServiceRegistry) -> None:
    before = dict(vars(Model))
    handles = [registry.register(f"m{i}", Model) for i in range(4)]
    all_at_once(4, lambda i: handles[i].load())
    assert dict(vars(Model)) == before
