"""A service is loaded once, drained before it goes, and nothing of it is left behind."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from grym_nb.clock import Clock
from grym_nb.errors import (
    GrymError,
    Interrupted,
    LoadFailed,
    ServiceClosed,
    ServiceError,
    StateError,
    TaskFailed,
)
from grym_nb.events import StateChanged
from grym_nb.services import ModelService, ServiceHandle, ServiceRegistry, task
from grym_nb.settings import Settings
from grym_nb.testing import FakeClock
from tests.services.crowd import (
    WAIT,
    Gates,
    Overlap,
    all_at_once,
    names_of_threads,
    outcome,
    passes,
    reaching,
    start,
    until,
)


class Scene:
    """One service whose every step a test can hold, and counts."""

    def __init__(self, registry: ServiceRegistry) -> None:
        self.registry = registry
        self.gates = Gates()
        self.made: list[weakref.ref[Any]] = []
        self.error: BaseException | None = None  # what every load raises
        self.once: list[BaseException] = []  # what the next loads raise, one each
        self.held: set[str] = set()
        self.nth = 0

    def hold(self, *steps: str) -> None:
        """Let these steps wait until they are let go."""
        self.held |= set(steps)

    def go(self, *steps: str) -> None:
        """Let them go on."""
        for step in steps:
            self.held.discard(step)
            self.gates[f"go {step}"].set()

    def step(self, name: str) -> None:
        self.gates.tell(name)
        if name in self.held:
            self.gates.wait(f"go {name}")

    def count(self, name: str) -> int:
        return self.gates.seen[name]

    def register(self, name: str = "it", **options: Any) -> ServiceHandle:
        scene = self

        class It(ModelService):
            def __init__(self) -> None:
                scene.made.append(weakref.ref(self))
                scene.nth += 1
                self.nth = scene.nth

            def load(self) -> None:
                scene.step("load")
                if scene.once:
                    raise scene.once.pop()
                if scene.error is not None:
                    raise scene.error

            def warm_up(self) -> None:
                scene.step("warm")

            def unload(self) -> None:
                scene.step("unload")
                scene.gates.tell(f"unload {self.nth}")

            @task
            def ask(self, word: str = "") -> tuple[int, str]:
                scene.step("ask")
                scene.step(f"ask {word}")
                return self.nth, word

            @task
            def stream(self) -> Iterator[int]:
                yield from (1, 2)

            @task
            def fail(self) -> None:
                raise ValueError("no")

            @task
            def do(self, what: Callable[[], Any]) -> Any:
                return what()

            def ping(self) -> None:
                scene.step("ping")

        return self.registry.register(name, It, **options)


@pytest.fixture
def scene(registry: ServiceRegistry) -> Iterator[Scene]:
    scene = Scene(registry)
    yield scene
    scene.go("load", "warm", "ask", "unload", *[f"ask {word}" for word in "abcdefgh"])


@pytest.fixture
def driven_scene(driven: ServiceRegistry) -> Iterator[Scene]:
    scene = Scene(driven)
    yield scene
    scene.go("load", "warm", "ask", "unload", *[f"ask {word}" for word in "abcdefgh"])


class TestLazy:
    def test_nothing_but_use_loads_it(self, scene: Scene) -> None:
        handle = scene.register()
        looks: list[Callable[[], Any]] = [
            lambda: (handle.status(), handle.metrics(), handle.health, handle.state, handle.config),
            lambda: (repr(handle), handle._repr_html_(), str(handle.ask), dir(handle), handle.story),
            lambda: (handle.tasks, handle.version, handle.name),
            lambda: [repr(scene.registry), list(scene.registry), scene.registry.handles()],
            lambda: scene.registry.status()["it"].line,
            lambda: (scene.registry.able("ask"), scene.registry.types(), scene.registry.running()),
        ]
        for look in looks:
            look()
        assert handle.ping().ok is None
        assert handle.state == "registered" and not scene.made and not scene.gates.seen
        assert handle.ask("a") == (1, "a") and handle.state == "ready"

    def test_it_is_loaded_once_and_warm_before_it_is_ready(self, scene: Scene) -> None:
        handle = scene.register()
        states: list[str] = []
        scene.registry.ports.events.subscribe(lambda event: states.append(event.after), StateChanged)
        scene.hold("warm")
        call = start(handle.ask, "a")
        scene.gates.wait("warm")
        assert handle.state == "loading" and scene.count("ask") == 0
        scene.go("warm")
        assert outcome(call) == (1, "a") and handle.ask("b") == (1, "b")
        assert states == ["loading", "ready"] and scene.count("load") == 1

    def test_loading_what_is_loaded_changes_nothing(self, scene: Scene) -> None:
        handle = scene.register()
        assert handle.load() is handle and handle.load().state == "ready"
        assert scene.count("load") == 1 and handle.status().loads == 1 and handle.status().calls == 0

    def test_thirty_two_first_callers_make_one_load(self, scene: Scene) -> None:
        handle = scene.register(concurrency=4)
        scene.hold("load")
        crowd = start(all_at_once, 32, lambda i: handle.ask(str(i)))
        scene.gates.wait("load")
        scene.go("load")
        assert outcome(crowd) == [(1, str(i)) for i in range(32)]
        assert scene.count("load") == 1 and handle.status().calls == 32

    def test_ping_asks_a_loaded_one_and_leaves_no_trace(self, driven_scene: Scene, clock: FakeClock) -> None:
        handle = driven_scene.register()
        handle.ask()
        before, used = handle.status(), handle.metrics().last_used
        clock.advance(5)
        assert handle.ping().ok is True and driven_scene.count("ping") == 1
        assert handle.metrics().last_used == used
        assert (handle.status().calls, handle.status().running) == (before.calls, before.running)

    def test_a_ping_that_raises_is_told_and_the_service_stays_ready(self, registry: ServiceRegistry) -> None:
        class Ill(ModelService):
            def ping(self) -> None:
                raise RuntimeError("no pulse")

            @task
            def ask(self) -> int:
                return 1

        handle = registry.register("ill", Ill)
        handle.ask()
        ping = handle.ping()
        assert (ping.ok, ping.problem) == (False, "RuntimeError: no pulse")
        assert handle.state == "ready" and handle.status().errors == 0 and handle.ask() == 1


class TestFailedLoad:
    def test_all_who_wait_get_an_error_of_their_own(self, scene: Scene) -> None:
        handle = scene.register()
        scene.error = OSError("no such checkpoint")
        scene.hold("load")
        crowd = start(all_at_once, 32, lambda i: handle.ask(str(i)))
        scene.gates.wait("load")
        # Every caller is in: one loads, the others wait for it or are on their way to.
        scene.go("load")
        errors = outcome(crowd)
        assert {type(error) for error in errors} == {LoadFailed}
        assert len({id(error) for error in errors}) == 32
        for error in errors:
            assert "no such checkpoint" in str(error) and error.details["path"] == ("it",)
            assert error.__traceback__ is not None and len(error.lines()) <= 3
        assert handle.state == "failed" and handle.status().errors == 32

    def test_waiters_share_one_failed_load(self, driven_scene: Scene, clock: FakeClock) -> None:
        handle = driven_scene.register()
        driven_scene.error = OSError("no such checkpoint")
        driven_scene.hold("load")
        calls = [start(handle.ask, "a") for _ in range(32)]
        clock.until_waiting(31)
        driven_scene.go("load")
        errors = [outcome(call) for call in calls]
        assert {type(error) for error in errors} == {LoadFailed} and driven_scene.count("load") == 1
        assert len({id(error) for error in errors}) == 32

    def test_what_was_half_made_is_cleaned_up_and_gone(self, scene: Scene) -> None:
        before = names_of_threads("")
        handle = scene.register()
        scene.error = RuntimeError("half way")
        with pytest.raises(LoadFailed, match="it could not be loaded: RuntimeError: half way"):
            handle.ask()
        scene.error = None
        assert scene.count("unload") == 1 and handle.state == "failed"
        scene.registry.ports.failures.clear()
        gc.collect()
        assert [ref() for ref in scene.made] == [None]
        assert names_of_threads("") == before

    def test_the_next_call_tries_again(self, scene: Scene) -> None:
        handle = scene.register()
        scene.error = RuntimeError("not yet")
        for _ in range(2):
            with pytest.raises(LoadFailed):
                handle.ask()
        scene.error = None
        assert handle.ask("a") == (3, "a") and handle.state == "ready"
        assert [(step.before, step.after) for step in handle.story] == [
            ("registered", "loading"),
            ("loading", "failed"),
            ("failed", "loading"),
            ("loading", "failed"),
            ("failed", "loading"),
            ("loading", "ready"),
        ]

    def test_unload_takes_a_failed_one_back_to_registered(self, scene: Scene) -> None:
        handle = scene.register()
        scene.error = RuntimeError("no")
        with pytest.raises(LoadFailed):
            handle.load()
        scene.error = None
        assert handle.unload().state == "registered"
        assert handle.ask("a") == (2, "a")

    def test_a_factory_that_raises_or_makes_nothing_is_a_failed_load(self, registry: ServiceRegistry) -> None:
        def nothing() -> None:
            return None

        def raises() -> None:
            raise KeyError("weights")

        for name, factory, told in (("none", nothing, "returned None"), ("bad", raises, "weights")):
            with pytest.raises(LoadFailed, match=told):
                registry.register(name, factory).load()

    @pytest.mark.parametrize("where", ["load", "warm_up"])
    def test_a_clean_up_that_raises_does_not_hide_why(self, registry: ServiceRegistry, where: str) -> None:
        def broken(self: Any) -> None:
            raise RuntimeError("first")

        def worse(self: Any) -> None:
            raise OSError("second")

        cls = type("Bad", (ModelService,), {where: broken, "unload": worse, "ask": task(lambda self: 1)})
        with pytest.raises(LoadFailed, match="RuntimeError: first"):
            registry.register("bad", cls).load()
        assert registry["bad"].state == "failed"

    def test_a_load_that_calls_itself_is_refused(self, registry: ServiceRegistry) -> None:
        class Snake(ModelService):
            def load(self) -> None:
                registry["snake"].bite()

            @task
            def bite(self) -> None: ...

        with pytest.raises(LoadFailed, match="calls itself inside its own load"):
            registry.register("snake", Snake).load()


class TestInterruptedLoad:
    def test_it_is_registered_again_and_the_next_call_loads_anew(self, scene: Scene) -> None:
        handle = scene.register()
        scene.error = KeyboardInterrupt()
        with pytest.raises(Interrupted, match="loading it was interrupted"):
            handle.ask("a")
        scene.error = None
        assert handle.state == "registered" and scene.count("unload") == 1
        assert handle.ask("a") == (2, "a")

    def test_those_who_waited_load_it_themselves(self, driven_scene: Scene, clock: FakeClock) -> None:
        scene = driven_scene
        handle = scene.register(concurrency=8)
        scene.once = [KeyboardInterrupt()]
        scene.hold("load")
        first = start(handle.load)
        scene.gates.wait("load")
        others = [start(handle.ask, "a") for _ in range(7)]
        clock.until_waiting(7)
        scene.go("load")
        assert isinstance(outcome(first), Interrupted)
        assert [outcome(other) for other in others] == [(2, "a")] * 7
        assert scene.count("load") == 2 and handle.state == "ready"

    def test_whatever_ends_a_load_leaves_nothing_half_made(self, scene: Scene) -> None:
        handle = scene.register()
        scene.error = SystemExit(3)
        with pytest.raises(LoadFailed, match="SystemExit: 3"):
            handle.load()
        scene.error = None
        assert handle.state == "failed" and scene.count("unload") == 1
        assert handle.ask("a") == (2, "a")


class TestUnload:
    def test_it_lets_go_of_the_model_and_the_next_call_loads_anew(self, scene: Scene) -> None:
        handle = scene.register()
        handle.ask()
        assert handle.unload() is handle and handle.state == "registered"
        assert [ref() for ref in scene.made] == [None] and scene.count("unload") == 1
        assert handle.ask("b") == (2, "b")

    def test_a_model_is_gone_without_the_collector(self, scene: Scene) -> None:
        """A handle, a bound task, a finished call and a failed one keep nothing of it alive."""
        handle = scene.register()
        bound = handle.ask
        call = handle.submit("ask", "a")
        assert call.result(10) == (1, "a")
        with pytest.raises(TaskFailed):
            handle.fail()
        failed = handle.submit("fail")
        assert isinstance(failed.exception(10), TaskFailed)
        gc.disable()
        try:
            handle.unload()
            until(lambda: scene.made[0]() is None)
        finally:
            gc.enable()
        assert bound("c") == (2, "c") and call.result() == (1, "a")

    def test_unloading_twice_or_what_was_never_loaded_does_nothing(self, scene: Scene) -> None:
        handle = scene.register()
        handle.unload()
        handle.ask()
        handle.unload()
        handle.unload()
        assert scene.count("unload") == 1 and handle.state == "registered"

    def test_a_load_under_way_is_waited_for(self, scene: Scene) -> None:
        handle = scene.register()
        scene.hold("load")
        call = start(handle.ask, "a")
        scene.gates.wait("load")
        unload = start(handle.unload)
        scene.go("load")
        assert isinstance(outcome(unload), ServiceHandle)
        assert outcome(call)[1] == "a" and scene.count("unload") == scene.count("load") - (
            handle.state == "ready"
        )

    def test_reload_keeps_the_model_that_is_there(self, scene: Scene) -> None:
        handle = scene.register()
        assert handle.ask() == (1, "")
        assert handle.reload().how == "unchanged" and handle.state == "ready"
        assert handle.ask() == (1, "") and scene.count("unload") == 0

    def test_a_hook_that_raises_is_told_and_the_service_is_unloaded(self, scene: Scene) -> None:
        class Sticky(ModelService):
            def unload(self) -> None:
                raise OSError("device busy")

            @task
            def ask(self) -> int:
                return 1

        handle = scene.registry.register("sticky", Sticky)
        handle.ask()
        with pytest.raises(ServiceError, match="its unload hook raised OSError: device busy"):
            handle.unload()
        assert handle.state == "registered" and "device busy" in handle.status().last_error
        assert handle.ask() == 1

    @pytest.mark.parametrize("how", ["unload", "reload", "remove", "configure", "close"])
    def test_a_task_cannot_end_the_service_it_runs_in(self, registry: ServiceRegistry, how: str) -> None:
        class Own(ModelService):
            def __init__(self, *, level: int = 0) -> None:
                self.level = level

            @task
            def do(self, what: Callable[[], Any]) -> Any:
                return what()

        handle = registry.register("own", Own)
        relay = registry.register("relay", Own)
        end = {
            "unload": handle.unload,
            "reload": handle.reload,
            "remove": lambda: registry.remove("own"),
            "configure": lambda: handle.configure(level=2),
            "close": registry.close,
        }[how]
        for call in (lambda: handle.do(end), lambda: handle.do(lambda: relay.do(end))):
            with pytest.raises(StateError, match="service it runs in"):
                call()
        assert handle.state == "ready" and handle.do(lambda: 5) == 5 and not registry._closed
        with pytest.raises(StateError):
            handle.do.submit(lambda: handle.submit("do", end).result(10)).result(10)
        if how not in ("close", "remove"):
            relay.do(end)  # from elsewhere it is what it always is

    def test_an_illegal_move_tells_the_story(self, scene: Scene) -> None:
        handle = scene.register()
        handle.ask()
        handle.unload()
        record = handle._record
        with record.condition, pytest.raises(StateError) as caught:
            record.lifecycle.move("loaded", 0.0)
        assert "registered → loading" in str(caught.value) and len(caught.value.details["story"]) == 4


class TestDrain:
    def test_calls_inside_end_first_and_others_wait_and_load_anew(
        self, driven_scene: Scene, clock: FakeClock
    ) -> None:
        scene = driven_scene
        handle = scene.register(concurrency=2)
        scene.hold("ask a")
        inside = start(handle.ask, "a")
        scene.gates.wait("ask a")
        with reaching(scene.registry, "it", "draining") as draining:
            unload = start(handle.unload)
            passes(draining)
        late = [start(handle.ask, "b"), handle.submit("ask", "c")]
        clock.until_waiting(3)
        assert scene.count("unload") == 0 and handle.state == "draining"
        scene.go("ask a")
        assert outcome(inside) == (1, "a") and isinstance(outcome(unload), ServiceHandle)
        assert [outcome(call) for call in late] == [(2, "b"), (2, "c")]

    def test_calls_that_were_accepted_before_belong_to_the_old_one(self, scene: Scene) -> None:
        handle = scene.register()
        scene.hold("ask a")
        inside = handle.submit("ask", "a")
        scene.gates.wait("ask a")
        queued = [handle.submit("ask", word) for word in "bcd"]
        with reaching(scene.registry, "it", "draining") as draining:
            unload = start(handle.unload)
            passes(draining)
        scene.go("ask a")
        assert [outcome(call) for call in (inside, *queued)] == [(1, "a"), (1, "b"), (1, "c"), (1, "d")]
        outcome(unload)
        assert scene.count("load") == 1 and handle.state == "registered"

    def test_an_urgent_call_that_comes_during_the_drain_does_not_stop_it(
        self, driven_scene: Scene, clock: FakeClock
    ) -> None:
        """It would be the next in line, take the slot, and wait for a drain that waits for the slot."""
        scene = driven_scene
        handle = scene.register()
        scene.hold("ask a")
        inside = handle.submit("ask", "a")
        scene.gates.wait("ask a")
        patient = handle.ask.with_(priority="low").submit("b")
        with reaching(scene.registry, "it", "draining") as draining:
            unload = start(handle.unload)
            passes(draining)
        urgent = handle.ask.with_(priority="critical").submit("c")
        scene.go("ask a")
        assert outcome(inside) == (1, "a") and outcome(patient) == (1, "b")
        assert isinstance(outcome(unload), ServiceHandle) and outcome(urgent) == (2, "c")

    @pytest.mark.parametrize("how", ["plain", "submitted"])
    def test_two_drains_whose_calls_ask_one_another_both_end(
        self, driven_scene: Scene, clock: FakeClock, how: str
    ) -> None:
        """Each would wait for the other's end; the last to ask is let in, as a call that the drain awaits."""
        scene, registry = driven_scene, driven_scene.registry
        one, other = scene.register("one", concurrency=2), scene.register("other", concurrency=2)

        def asks(handle: ServiceHandle, word: str) -> Callable[[], Any]:
            def work() -> Any:
                scene.gates.tell(f"{word} inside")
                scene.gates.wait("both drain")
                return handle.ask(word) if how == "plain" else handle.ask.submit(word).result(WAIT)

            return work

        calls = [start(one.do, asks(other, "a")), start(other.do, asks(one, "b"))]
        scene.gates.wait("a inside")
        scene.gates.wait("b inside")
        with (
            reaching(registry, "one", "draining") as first,
            reaching(registry, "other", "draining") as second,
        ):
            unloads = [start(one.unload), start(other.unload)]
            passes(first)
            passes(second)
        scene.gates.tell("both drain")
        answers = [outcome(call) for call in calls]
        assert [word for _, word in answers] == ["a", "b"]
        assert [outcome(unload) for unload in unloads] == [one, other]
        assert clock() == 1000.0  # nobody's deadline was needed

    @pytest.mark.parametrize("first", ["it waits", "it is awaited"])
    def test_a_call_that_a_drain_waits_for_is_let_in_whoever_comes_first(
        self, driven_scene: Scene, clock: FakeClock, first: str
    ) -> None:
        """The one that asks the draining service waits already, or the circle is closed by it."""
        scene = driven_scene
        one, other = scene.register("one", concurrency=2), scene.register("other")
        gates = scene.gates

        def ask(handle: ServiceHandle, word: str) -> Callable[[], Any]:
            def work() -> Any:
                gates.tell(f"{word} inside")
                gates.wait(f"{word} may ask")
                return handle.ask(word)

            return work

        awaited = start(one.do, ask(other, "a"))
        waits = start(other.do, ask(one, "b"))
        gates.wait("a inside")
        gates.wait("b inside")
        with reaching(scene.registry, "one", "draining") as draining:
            unload = start(one.unload)
            passes(draining)
        order = [("b", 2), ("a", 3)] if first == "it waits" else [("a", 2), ("b", 3)]
        for word, waiting in order:
            gates.tell(f"{word} may ask")
            if word == order[0][0]:
                clock.until_waiting(waiting)
        assert (outcome(awaited)[1], outcome(waits)[1], outcome(unload)) == ("a", "b", one)
        assert clock() == 1000.0

    def test_a_call_beside_an_open_generator_of_its_thread_does_not_wait_for_the_drain(
        self, driven_scene: Scene
    ) -> None:
        """The drain waits for the generator, which only this thread can end."""
        handle = driven_scene.register(concurrency=2)
        stream = handle.stream()
        next(stream)
        with reaching(driven_scene.registry, "it", "draining") as draining:
            unload = start(handle.unload)
            passes(draining)
        assert handle.ask("a") == (1, "a")
        assert list(stream) == [2] and outcome(unload) is handle

    def test_an_unload_hook_that_calls_its_own_service_is_told_so(self, driven: ServiceRegistry) -> None:
        """There is nobody to answer any more; the service is unloaded all the same."""

        class Loops(ModelService):
            def unload(self) -> None:
                driven["loops"].ask()

            @task
            def ask(self) -> int:
                return 1

        handle = driven.register("loops", Loops).load()
        with pytest.raises(ServiceError, match="its unload hook raised StateError"):
            handle.unload()
        assert (handle.state, handle.ask()) == ("registered", 1)
        with pytest.raises(ServiceError, match="its unload hook"):
            handle.unload()

    def test_a_call_from_inside_passes(self, scene: Scene) -> None:
        handle = scene.register()
        helper = scene.register("helper")
        with reaching(scene.registry, "it", "draining") as draining:

            def work() -> list[Any]:
                scene.gates.tell("inside")
                passes(draining)
                return [
                    handle.ask("a"),
                    helper.do(lambda: handle.ask("b")),
                    handle.submit("ask", "c").result(10),
                    helper.submit("do", lambda: handle.ask("d")).result(10),
                ]

            call = start(handle.do, work)
            scene.gates.wait("inside")
            unload = start(handle.unload)
            nth = 1
            assert outcome(call) == [(nth, "a"), (nth, "b"), (nth, "c"), (nth, "d")]
            outcome(unload)
        assert handle.state == "registered"

    def test_past_the_deadline_a_running_call_keeps_its_model_to_itself(
        self, driven_scene: Scene, clock: FakeClock
    ) -> None:
        scene = driven_scene
        handle = scene.register()
        scene.hold("ask a", "ask b")
        stuck = start(handle.ask, "a")
        scene.gates.wait("ask a")
        unload = start(handle.unload, 5.0)
        clock.until_waiting(1)
        clock.advance(5.0)
        assert isinstance(outcome(unload), ServiceHandle) and handle.state == "registered"
        assert scene.count("unload") == 0 and scene.made[0]() is not None
        second = start(handle.ask, "b")
        scene.gates.wait("ask b")  # its slot is free too, although the other still computes
        scene.go("ask a")
        assert outcome(stuck) == (1, "a")
        assert scene.count("unload 1") == 1 and scene.count("unload") == 1
        scene.go("ask b")
        assert outcome(second) == (2, "b") and handle.state == "ready"
        handle.unload()
        assert (scene.count("unload 1"), scene.count("unload 2")) == (1, 1)
        until(lambda: scene.made[0]() is None)

    def test_those_who_waited_in_line_go_to_the_new_model(
        self, driven_scene: Scene, clock: FakeClock
    ) -> None:
        scene = driven_scene
        handle = scene.register()
        scene.hold("ask a")
        stuck = start(handle.ask, "a")
        scene.gates.wait("ask a")
        blocking = start(handle.ask, "b")
        clock.until_waiting(1)
        submitted = handle.submit("ask", "c")

        def use() -> int:
            with handle.use() as model:
                return int(model.nth)

        using = start(use)
        clock.until_waiting(2)
        unload = start(handle.unload, 5.0)
        clock.until_waiting(3)
        clock.advance(5.0)
        assert isinstance(outcome(unload), ServiceHandle)
        assert outcome(submitted) == (2, "c") and outcome(blocking) == (2, "b")
        assert outcome(using) == 2
        scene.go("ask a")
        assert outcome(stuck) == (1, "a") and scene.count("unload 1") == 1

    def test_a_nested_call_of_one_who_was_left_behind_goes_to_the_new_model(
        self, driven_scene: Scene, clock: FakeClock
    ) -> None:
        scene = driven_scene
        handle = scene.register()

        def work() -> Any:
            scene.gates.tell("inside")
            scene.gates.wait("on")
            return handle.ask("b"), handle.submit("ask", "c").result(10)

        stuck = start(handle.do, work)
        scene.gates.wait("inside")
        unload = start(handle.unload, 5.0)
        clock.until_waiting(1)
        clock.advance(5.0)
        outcome(unload)
        scene.gates["on"].set()
        assert outcome(stuck) == ((2, "b"), (2, "c"))
        assert (scene.count("unload 1"), scene.count("unload 2")) == (1, 0)

    def test_a_hook_that_runs_late_and_raises_is_felt_by_nobody(
        self, driven: ServiceRegistry, clock: FakeClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        gates = Gates()

        class Sticky(ModelService):
            def unload(self) -> None:
                raise OSError("device busy")

            @task
            def ask(self) -> int:
                gates.tell("inside")
                gates.wait("on")
                return 1

        handle = driven.register("sticky", Sticky)
        call = start(handle.ask)
        gates.wait("inside")
        unload = start(handle.unload, 5.0)
        clock.until_waiting(1)
        clock.advance(5.0)
        outcome(unload)
        gates["on"].set()
        assert outcome(call) == 1 and "device busy" in caplog.text
        assert "device busy" in handle.status().last_error

    def test_two_who_unload_at_once_run_the_hook_once(self, scene: Scene) -> None:
        handle = scene.register()
        handle.ask()
        assert all_at_once(8, lambda _: handle.unload()) == [handle] * 8
        assert scene.count("unload") == 1

    @pytest.mark.parametrize("how", ["unload", "remove", "redefine"])
    def test_an_interrupt_while_it_waits_leaves_the_service_as_it_was(self, how: str) -> None:
        clock = Interrupting()
        registry = ServiceRegistry(clock=clock)
        scene = Scene(registry)
        handle = scene.register()
        scene.hold("ask a")
        inside = start(handle.ask, "a")
        scene.gates.wait("ask a")

        class Other(ModelService):
            @task
            def ask(self) -> int:
                return 7

        ends: dict[str, Callable[[], Any]] = {
            "unload": handle.unload,
            "remove": lambda: registry.remove("it"),
            "redefine": lambda: registry.register("it", Other),
        }
        clock.interrupt = True
        error = outcome(start(ends[how]))
        assert isinstance(error, Interrupted) and "was not unloaded" in str(error)
        clock.interrupt = False
        assert handle.state == "ready" and handle.version == "v1" and registry["it"] is handle
        scene.go("ask a")
        assert outcome(inside) == (1, "a") and handle.ask("b") == (1, "b")
        registry.close()
        assert scene.count("unload") == 1

    def test_a_slow_unload_hook_holds_no_lock(self, scene: Scene) -> None:
        handle = scene.register()
        other = scene.register("other")
        handle.ask()
        scene.hold("unload")
        unload = start(handle.unload)
        scene.gates.wait("unload")
        assert handle.status().state == "draining" and other.ask("a")[1] == "a"
        late = start(handle.ask, "b")
        scene.go("unload")
        outcome(unload)
        assert outcome(late) == (3, "b")


class Interrupting(FakeClock):
    """A clock on which a person presses Ctrl-C while somebody waits."""

    interrupt = False

    def wait(self, condition: threading.Condition, deadline: float | None) -> None:
        if self.interrupt:
            raise KeyboardInterrupt
        super().wait(condition, deadline)


class TestClosed:
    def test_calls_that_waited_for_a_drain_hear_that_it_was_closed(
        self, driven_scene: Scene, clock: FakeClock
    ) -> None:
        scene = driven_scene
        handle = scene.register()
        scene.hold("ask a")
        inside = start(handle.ask, "a")
        scene.gates.wait("ask a")
        with reaching(scene.registry, "it", "draining") as draining:
            remove = start(scene.registry.remove, "it")
            passes(draining)
        late = [start(handle.ask, "b"), handle.submit("ask", "c")]
        clock.until_waiting(2)
        scene.go("ask a")
        assert outcome(inside) == (1, "a") and outcome(remove) is None
        for call in late:
            error = outcome(call)
            assert isinstance(error, ServiceClosed) and "register it again" in str(error)
        assert scene.count("load") == 1

    def test_what_is_closed_stays_closed(self, scene: Scene) -> None:
        handle = scene.register()
        handle.ask()
        scene.registry.remove("it")
        ends: list[Callable[[], Any]] = [
            handle.load,
            handle.reload,
            lambda: handle.use().__enter__(),
            lambda: handle.submit("ask"),
            handle.ask,
            lambda: handle.configure(),
        ]
        for end in ends[:-1]:
            with pytest.raises(ServiceClosed):
                end()
        assert handle.unload().state == "closed"
        assert handle.ping().ok is None and scene.count("load") == 1

    def test_a_registry_that_closes_waits_for_calls_to_its_deadline_and_not_longer(
        self, clock: FakeClock
    ) -> None:
        registry = ServiceRegistry(clock=clock)
        scene = Scene(registry)
        handle = scene.register()
        scene.hold("ask a")
        stuck = start(handle.ask, "a")
        scene.gates.wait("ask a")
        closing = start(registry.close, 3.0)
        clock.until_waiting(1)
        clock.advance(3.0)
        assert outcome(closing) == () and handle.state == "closed"  # it runs in a thread of the caller's
        scene.go("ask a")
        assert outcome(stuck) == (1, "a") and scene.count("unload") == 1

    def test_it_names_what_still_runs(self, clock: FakeClock) -> None:
        settings = Settings(drain_seconds=0.0)
        registry = ServiceRegistry(settings=settings, clock=clock)
        scene = Scene(registry)
        handle = scene.register()
        scene.hold("ask a")
        stuck = handle.submit("ask", "a")
        scene.gates.wait("ask a")
        assert [name.startswith("grym-call") for name in registry.close()] == [True]
        scene.go("ask a")
        assert outcome(stuck) == (1, "a")
        until(lambda: scene.count("unload") == 1 and not names_of_threads("grym-call"))

    def test_a_closed_registry_has_no_thread(self, scene: Scene) -> None:
        until(lambda: not names_of_threads())
        handles = [scene.register(f"it-{i}", ttl=60) for i in range(5)]
        for handle in handles:
            handle.submit("ask", "a").result(10)
        scene.registry.close()
        assert names_of_threads() == []


class TestIdle:
    def test_a_service_nobody_used_for_its_ttl_is_unloaded(
        self, driven_scene: Scene, clock: FakeClock
    ) -> None:
        scene = driven_scene
        handle = scene.register(ttl=60)
        handle.ask()
        pulse = scene.registry.ports.pulse
        clock.advance(59)
        pulse.step()
        assert handle.state == "ready"
        handle.ask()  # used again: its time begins anew
        clock.advance(59)
        pulse.step()
        assert handle.state == "ready"
        with reaching(scene.registry, "it", "registered") as gone:
            clock.advance(1)
            pulse.step()
            passes(gone)
        assert handle.story[-1].reason == "idle" and scene.count("unload") == 1
        assert handle.ask("b") == (2, "b")

    def test_never_while_somebody_uses_it(self, driven_scene: Scene, clock: FakeClock) -> None:
        scene = driven_scene
        handle = scene.register(ttl=10)
        pulse = scene.registry.ports.pulse
        with handle.use() as model:
            for _ in range(5):
                clock.advance(10)
                pulse.step()
                assert handle.state == "ready"
            assert model.nth == 1
        clock.advance(9)
        pulse.step()
        assert handle.state == "ready"
        with reaching(scene.registry, "it", "registered") as gone:
            for _ in range(2):
                clock.advance(10)
                pulse.step()
            passes(gone)

    def test_a_ping_does_not_keep_it(self, driven_scene: Scene, clock: FakeClock) -> None:
        handle = driven_scene.register(ttl=10)
        handle.ask()
        for _ in range(10):
            clock.advance(1)
            handle.ping()

        def gone() -> bool:  # by the next beat, where the first has met a ping inside
            driven_scene.registry.ports.pulse.step()
            return handle.state == "registered"

        until(gone)
        assert handle.status().loads == 1, "and no ping has loaded it again"

    def test_a_limit_given_later_holds_and_one_taken_away_does_not(
        self, driven: ServiceRegistry, clock: FakeClock
    ) -> None:
        class Plain(ModelService):
            @task
            def ask(self) -> int:
                return 1

        handle = driven.register("it", Plain)
        handle.ask()
        driven.register("it", Plain, ttl=10)
        driven.register("it", Plain)
        clock.advance(50)
        driven.ports.pulse.step()
        assert handle.state == "ready"
        with reaching(driven, "it", "registered") as gone:
            driven.register("it", Plain, ttl=20)
            driven.ports.pulse.step()
            passes(gone)
        assert handle.status().loads == 1

    def test_loading_and_unloading_for_ever_piles_up_no_timers(
        self, driven_scene: Scene, clock: FakeClock
    ) -> None:
        handle = driven_scene.register(ttl=1000)
        for _ in range(50):
            handle.unload().load()
        scheduled = int(repr(driven_scene.registry.ports.pulse).split()[1])
        assert scheduled <= 2

    def test_a_registry_that_is_forgotten_is_not_kept_by_its_timers(self, clock: Clock) -> None:
        registry = ServiceRegistry(clock=clock)
        Scene(registry).register(ttl=100).ask()
        registry.close()
        ref = weakref.ref(registry)
        del registry
        gc.collect()
        assert ref() is None


class TestGate:
    def test_models_are_constructed_one_at_a_time(self, registry: ServiceRegistry) -> None:
        overlap = Overlap()

        class Heavy(ModelService):
            def __init__(self) -> None:
                with overlap:
                    pass

            def load(self) -> None:
                with overlap:
                    until(lambda: waiting() or overlap.times >= 30)

            def warm_up(self) -> None:
                with overlap:
                    pass

            @task
            def ask(self) -> int:
                return 1

        handles = [registry.register(f"h{i}", Heavy) for i in range(12)]

        def waiting() -> bool:
            return sum(handle.state == "loading" for handle in handles) > 1

        assert all_at_once(12, lambda i: handles[i].ask()) == [1] * 12
        assert (overlap.most, overlap.times) == (1, 36)

    def test_a_load_that_waits_for_a_busy_need_lets_others_construct(self, registry: ServiceRegistry) -> None:
        """Top's load calls base, whose slot is held by a task that first needs third to be loaded."""
        gates = Gates()

        class Third(ModelService):
            @task
            def ask(self) -> str:
                return "third"

        class Base(ModelService):
            @task
            def ask(self, via: str = "") -> str:
                if via:
                    gates.tell("base busy")
                    gates.wait("top loads")
                    return registry[via].ask()
                return "base"

        class Top(ModelService):
            needs = ("base",)

            def load(self) -> None:
                gates.tell("top loads")
                self.got = self.needs.base.ask()

            @task
            def ask(self) -> str:
                return "top on " + self.got

        registry.register("third", Third)
        base = registry.register("base", Base)
        top = registry.register("top", Top)
        busy = start(base.ask, "third")
        gates.wait("base busy")
        assert outcome(start(top.ask)) == "top on base"
        assert outcome(busy) == "third"

    def test_a_failed_or_interrupted_load_gives_the_gate_back(self, scene: Scene) -> None:
        handle, other = scene.register(), scene.register("other")
        for error in (RuntimeError("no"), KeyboardInterrupt()):
            scene.error = error
            with pytest.raises((GrymError, KeyboardInterrupt)):
                handle.ask()
        scene.error = None
        assert outcome(start(other.ask, "a"))[1] == "a"
