"""What a service needs is loaded before it, once, in order, and held for as long as its load lasts."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grym_nb.errors import (
    CallTimeout,
    ConfigError,
    DependencyError,
    GrymError,
    LoadFailed,
    ServiceNotReady,
    TaskFailed,
)
from grym_nb.services import ModelService, ServiceHandle, ServiceRegistry, task
from grym_nb.testing import FakeClock
from tests.services.crowd import Gates, all_at_once, outcome, start

pytestmark = pytest.mark.usefixtures("small_heap")


class Graph:
    """Services that need each other, and the order in which they came and went."""

    def __init__(self, registry: ServiceRegistry) -> None:
        self.registry = registry
        self.loaded: list[str] = []
        self.unloaded: list[str] = []
        self.broken: set[str] = set()
        self.gates = Gates()
        self.hooks: dict[str, Callable[[Any], Any]] = {}

    def add(self, name: str, *needs: str, **options: Any) -> ServiceHandle:
        graph = self

        class Part(ModelService):
            def load(self) -> None:
                graph.gates.tell(f"{name} loads")
                if name in graph.hooks:
                    self.got = graph.hooks[name](self)
                if name in graph.broken:
                    raise RuntimeError(f"{name} is broken")
                graph.loaded.append(name)

            def unload(self) -> None:
                graph.unloaded.append(name)

            @task
            def ask(self) -> str:
                return name

            @task
            def do(self, what: Callable[[Any], Any]) -> Any:
                return what(self)

        return self.registry.register(name, Part, needs=needs, **options)

    def states(self) -> dict[str, str]:
        return {handle.name: handle.state for handle in self.registry.handles()}


@pytest.fixture
def graph(registry: ServiceRegistry) -> Graph:
    return Graph(registry)


class TestOrder:
    def test_a_diamond_is_loaded_from_its_foot_each_once(self, graph: Graph) -> None:
        graph.add("foot")
        graph.add("left", "foot")
        graph.add("right", "foot")
        top = graph.add("top", "left", "right")
        assert top.ask() == "top"
        assert graph.loaded == ["foot", "left", "right", "top"]
        assert top.ask() == "top" and len(graph.loaded) == 4

    def test_a_chain_of_a_hundred_and_fifty_is_loaded_once_each(self, graph: Graph) -> None:
        graph.add("s0")
        for i in range(1, 150):
            last = graph.add(f"s{i}", f"s{i - 1}")
        assert last.ask() == "s149"
        assert graph.loaded == [f"s{i}" for i in range(150)]
        assert all(handle.status().loads == 1 for handle in graph.registry.handles())

    def test_the_depth_of_a_chain_is_not_the_depth_of_the_stack(self, graph: Graph) -> None:
        import sys

        depths: list[int] = []

        def note(_: Any) -> None:
            frame, depth = sys._getframe(), 0
            while (frame := frame.f_back) is not None:  # type: ignore[assignment]
                depth += 1
            depths.append(depth)

        for i in range(100):
            graph.hooks[f"s{i}"] = note
            last = graph.add(f"s{i}", *([f"s{i - 1}"] if i else []))
        last.load()
        assert max(depths) - min(depths) < 10

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.sets(st.integers(0, 7)), min_size=2, max_size=8))
    def test_any_graph_is_loaded_and_closed_in_an_order_that_fits(self, wanted: list[set[int]]) -> None:
        """Needs come first and go last, whatever the graph; nothing but what is needed is loaded."""
        registry = ServiceRegistry()
        graph = Graph(registry)
        needs = {f"s{i}": sorted(f"s{j}" for j in wish if j < i) for i, wish in enumerate(wanted)}
        for name, its in needs.items():
            graph.add(name, *its)
        last = f"s{len(wanted) - 1}"
        reached: set[str] = set()
        open_names = [last]
        while open_names:
            name = open_names.pop()
            if name not in reached:
                reached.add(name)
                open_names += needs[name]
        registry[last].ask()
        assert set(graph.loaded) == reached and len(graph.loaded) == len(reached)
        for name in reached:
            assert all(graph.loaded.index(need) < graph.loaded.index(name) for need in needs[name])
        registry.close()
        for name in reached:
            assert all(graph.unloaded.index(name) < graph.unloaded.index(need) for need in needs[name])

    def test_what_is_needed_is_at_hand_by_name(self, graph: Graph) -> None:
        graph.add("dsp")
        graph.hooks["top"] = lambda model: model.needs.dsp.ask()
        top = graph.add("top", "dsp")
        assert top.do(lambda model: (model.got, model.needs.dsp)) == ("dsp", graph.registry["dsp"])

    def test_a_class_says_what_it_needs_and_a_registration_adds_to_it(self, graph: Graph) -> None:
        class Declared(ModelService):
            needs = ("a",)

            @task
            def ask(self) -> str:
                return self.needs.a.ask() + self.needs.b.ask()

        graph.add("a")
        graph.add("b")
        handle = graph.registry.register("it", Declared, needs=("b", "a"))
        assert handle.status().needs == ("a", "b") and handle.ask() == "ab"

    def test_a_factory_is_read_for_needs_as_its_class_is(self, graph: Graph) -> None:
        from functools import partial

        class Declared(ModelService):
            needs = ("a",)

            def __init__(self, *, n: int = 1) -> None:
                self.n = n

            @task
            def ask(self) -> str:
                return self.needs.a.ask() * self.n

        def promised() -> Declared:
            return Declared(n=2)

        promised.__annotations__["return"] = Declared

        def silent():  # type: ignore[no-untyped-def]
            return Declared(n=3)

        graph.add("a")
        assert graph.registry.register("partial", partial(Declared, n=2)).ask() == "aa"
        assert graph.registry.register("promised", promised).ask() == "aa"
        with pytest.raises(LoadFailed, match="needs a") as caught:
            graph.registry.register("silent", silent).load()
        assert "register(..., needs=" in str(caught.value.hint) + str(caught.value.cause) + str(caught.value)
        assert graph.registry.register("silent", silent, needs=("a",)).ask() == "aaa"

    @pytest.mark.parametrize("needs", [None, property(lambda self: ("a",)), 3, ("a", 3)])
    def test_needs_that_are_no_names_are_refused(self, registry: ServiceRegistry, needs: Any) -> None:
        """Also where only a load tells the class."""

        class Odd(ModelService):
            @task
            def go(self) -> None: ...

        Odd.needs = needs
        with pytest.raises(ConfigError, match=r"needs: found .*, expected a tuple of names"):
            registry.register("odd", Odd)
        with pytest.raises(LoadFailed, match=r"needs: found .*, expected a tuple of names"):
            registry.register("made", lambda: Odd()).load()

    def test_an_optional_need_that_is_stated_as_a_must_is_stated(self, registry: ServiceRegistry) -> None:
        """What the factory makes says `d?`, the registration `d`."""

        class Wants(ModelService):
            needs = ("d?",)

            @task
            def go(self) -> bool:
                return self.needs.d is not None

        class Plain(ModelService):
            @task
            def go(self) -> None: ...

        registry.register("d", Plain)
        assert registry.register("wants", lambda: Wants(), needs=("d",)).go() is True

    def test_needs_that_are_one_word_are_refused(self, graph: Graph) -> None:
        class Word(ModelService):
            needs = "dsp"

            @task
            def ask(self) -> int:
                return 1

        graph.add("dsp")
        with pytest.raises(ConfigError, match="a tuple of names"):
            graph.registry.register("word", Word)


class TestRefused:
    def test_a_missing_need_is_named_with_the_closest(self, graph: Graph) -> None:
        graph.add("loudness")
        with pytest.raises(DependencyError, match="Did you mean 'loudness'") as caught:
            graph.add("top", "lodness")
        assert caught.value.details["path"] == ("top", "lodness") and "top" not in graph.registry
        assert '"lodness?"' in caught.value.hint

    def test_a_service_cannot_need_itself(self, graph: Graph) -> None:
        with pytest.raises(DependencyError, match="a → a") as caught:
            graph.add("a", "a")
        assert caught.value.details["path"] == ("a", "a")

    def test_a_circle_is_refused_with_the_way_round(self, graph: Graph) -> None:
        graph.add("a")
        graph.add("b", "a")
        graph.add("c", "b")
        with pytest.raises(DependencyError, match="a → c → b → a") as caught:
            graph.add("a", "c")
        assert caught.value.details["path"] == ("a", "c", "b", "a")
        assert graph.registry["c"].ask() == "c" and graph.loaded == ["a", "b", "c"]

    def test_a_circle_of_optional_needs_is_one_too(self, graph: Graph) -> None:
        graph.add("a", "b?")
        with pytest.raises(DependencyError, match="b → a → b"):
            graph.add("b", "a")


class TestOptional:
    def test_one_that_is_not_there_is_none(self, graph: Graph) -> None:
        top = graph.add("top", "maybe?")
        assert top.do(lambda model: model.needs.maybe) is None

    def test_one_that_is_there_is_a_handle(self, graph: Graph) -> None:
        maybe = graph.add("maybe")
        assert graph.add("top", "maybe?").do(lambda model: model.needs.maybe) is maybe
        assert graph.loaded == ["maybe", "top"]

    def test_one_that_fails_is_none_and_said(self, graph: Graph, caplog: pytest.LogCaptureFixture) -> None:
        graph.add("maybe")
        graph.broken.add("maybe")
        assert graph.add("top", "maybe?").do(lambda model: model.needs.maybe) is None
        assert "top goes on without maybe" in caplog.text
        assert graph.states() == {"maybe": "failed", "top": "ready"}

    def test_what_an_optional_one_needs_may_fail_as_well(self, graph: Graph) -> None:
        graph.add("foot")
        graph.add("maybe", "foot")
        graph.broken.add("foot")
        assert graph.add("top", "maybe?").do(lambda model: model.needs.maybe) is None
        assert graph.states() == {"foot": "failed", "maybe": "failed", "top": "ready"}

    def test_one_that_another_way_needs_is_not_optional(self, graph: Graph) -> None:
        graph.add("foot")
        graph.add("must", "foot")
        graph.broken.add("foot")
        top = graph.add("top", "foot?", "must")
        with pytest.raises(LoadFailed):
            top.ask()


class TestFailing:
    def test_the_error_tells_the_way_to_what_failed(self, graph: Graph) -> None:
        graph.add("foot")
        graph.add("middle", "foot")
        top = graph.add("top", "middle")
        graph.broken.add("foot")
        with pytest.raises(LoadFailed, match="top could not be loaded: its need foot failed") as caught:
            top.ask()
        assert caught.value.details["path"] == ("top", "foot") and len(caught.value.lines()) == 3
        assert graph.loaded == []
        assert graph.states() == {"foot": "failed", "middle": "registered", "top": "failed"}

    def test_it_is_loaded_once_the_need_is_mended(self, graph: Graph) -> None:
        graph.add("foot")
        top = graph.add("top", "foot")
        graph.broken.add("foot")
        with pytest.raises(LoadFailed):
            top.ask()
        graph.broken.clear()
        assert top.ask() == "top" and graph.loaded == ["foot", "top"]

    def test_one_that_was_removed_in_the_meantime_is_named(self, graph: Graph) -> None:
        graph.add("foot")
        top = graph.add("top", "foot")
        del graph.registry._handles["foot"]  # no public way leads here: needed services are not removed
        with pytest.raises(LoadFailed, match="top needs foot, which is not registered") as caught:
            top.ask()
        assert caught.value.details["path"] == ("top", "foot")

    def test_thirty_two_callers_of_two_dependants_get_an_error_each(self, graph: Graph) -> None:
        graph.add("foot")
        graph.broken.add("foot")
        tops = [graph.add("a", "foot"), graph.add("b", "foot")]
        errors = all_at_once(32, lambda i: tops[i % 2].ask())
        assert {type(error) for error in errors} == {LoadFailed} and len({id(e) for e in errors}) == 32
        assert {error.details["path"] for error in errors} == {("a", "foot"), ("b", "foot")}


class TestHeld:
    def test_a_need_stays_for_as_long_as_the_load_lasts(self, graph: Graph) -> None:
        foot = graph.add("foot")

        def slow(_: Any) -> None:
            graph.gates.wait("on")

        graph.hooks["top"] = slow
        top = graph.add("top", "foot")
        load = start(top.load)
        graph.gates.wait("top loads")
        unload = start(foot.unload)
        graph.gates["on"].set()
        outcome(load)
        outcome(unload)
        assert graph.unloaded == ["foot"] and graph.states() == {"foot": "registered", "top": "ready"}
        assert graph.loaded == ["foot", "top"]

    def test_during_a_drain_of_the_need_the_load_still_calls_it(
        self, driven: ServiceRegistry, clock: FakeClock
    ) -> None:
        graph = Graph(driven)
        foot = graph.add("foot")

        def slow(model: Any) -> str:
            graph.gates.wait("on")
            return str(model.needs.foot.ask())

        graph.hooks["top"] = slow
        top = graph.add("top", "foot")
        load = start(top.load)
        graph.gates.wait("top loads")
        unload = start(foot.unload)
        clock.until_waiting(1)
        assert foot.state == "draining"
        graph.gates["on"].set()
        outcome(load)
        outcome(unload)
        assert top.do(lambda model: model.got) == "foot" and graph.loaded == ["foot", "top"]

    def test_after_the_load_a_need_may_go_and_comes_back_when_it_is_called(self, graph: Graph) -> None:
        foot = graph.add("foot")
        top = graph.add("top", "foot")
        top.load()
        foot.unload()
        assert top.do(lambda model: model.needs.foot.ask()) == "foot"
        assert graph.loaded == ["foot", "top", "foot"]

    def test_the_deadline_of_a_call_does_not_end_a_load_that_others_wait_for(
        self, driven: ServiceRegistry, clock: FakeClock
    ) -> None:
        """The caller is timed out; whoever began the load for it goes on, and what it loads is kept."""
        graph = Graph(driven)

        def slow(_: Any) -> None:
            graph.gates.wait("on")

        graph.hooks["foot"] = slow
        foot = graph.add("foot")
        top = graph.add("top", "foot")
        outer = graph.add("outer").load()
        first = start(foot.load)
        graph.gates.wait("foot loads")
        call = outer.do.with_(timeout=5).submit(lambda _: top.ask())
        clock.until_waiting(1)
        other = start(top.ask)
        clock.until_waiting(3)
        clock.advance(5)
        assert isinstance(outcome(call), CallTimeout)
        graph.gates["on"].set()
        outcome(first)
        assert outcome(other) == "top" and top.state == "ready"


class TestInsideLoad:
    def test_what_was_not_declared_and_is_not_ready_is_refused_by_name(self, graph: Graph) -> None:
        graph.add("other")
        graph.hooks["top"] = lambda _: graph.registry["other"].ask()
        top = graph.add("top")
        with pytest.raises(LoadFailed, match="ServiceNotReady") as caught:
            top.ask()
        told = str(caught.value)
        assert "other is registered, and top calls it inside its load" in told
        assert graph.states() == {"other": "registered", "top": "failed"}

    @pytest.mark.parametrize("how", ["call", "run", "submit", "load", "use", "async", "thread of its own"])
    def test_every_way_in_is_refused(self, graph: Graph, how: str) -> None:
        other = graph.add("other")

        def in_thread() -> Any:
            import contextvars

            got: list[Any] = []
            context = contextvars.copy_context()

            def ask() -> None:
                try:
                    got.append(context.run(other.ask))
                except GrymError as error:
                    got.append(error)

            thread = threading.Thread(target=ask)
            thread.start()
            thread.join(10)
            if isinstance(got[0], GrymError):
                raise got[0]
            return got[0]

        ways: dict[str, Callable[[], Any]] = {
            "call": other.ask,
            "run": lambda: other.run("ask"),
            "submit": lambda: other.submit("ask").result(10),
            "load": other.load,
            "use": lambda: other.use().__enter__(),
            "async": lambda: _awaited(other),
            "thread of its own": in_thread,
        }
        refused: list[BaseException] = []

        def try_it(_: Any) -> None:
            try:
                ways[how]()
            except ServiceNotReady as error:
                refused.append(error)

        graph.hooks["top"] = try_it
        assert graph.add("top").ask() == "top"
        assert len(refused) == 1 and 'needs = ("other",)' in str(refused[0])
        assert other.state == "registered"

    def test_what_is_ready_may_be_called_undeclared(self, graph: Graph) -> None:
        other = graph.add("other")
        other.load()
        graph.hooks["top"] = lambda _: other.ask()
        assert graph.add("top").do(lambda model: model.got) == "other"

    def test_what_was_declared_is_called_in_every_way(self, graph: Graph) -> None:
        def ask(model: Any) -> list[Any]:
            foot = model.needs.foot
            with foot.use() as inner:
                used = type(inner).__name__
            return [foot.ask(), foot.submit("ask").result(10), foot.run("ask"), used, *_awaited(foot, 3)]

        graph.hooks["top"] = ask
        graph.add("foot")
        assert graph.add("top", "foot").do(lambda model: model.got) == [
            *["foot", "foot", "foot", "Part"],
            *["foot"] * 3,
        ]

    def test_a_task_of_a_need_may_not_load_what_nobody_declared(self, graph: Graph) -> None:
        other = graph.add("other")
        graph.hooks["top"] = lambda model: model.needs.foot.do(lambda _: other.ask())
        graph.add("foot")
        with pytest.raises(LoadFailed, match="top calls it inside its load"):
            graph.add("top", "foot").ask()

    def test_a_task_that_is_no_part_of_a_load_loads_what_it_likes(self, graph: Graph) -> None:
        other = graph.add("other")
        assert graph.add("top").do(lambda _: other.ask()) == "other"


def _awaited(handle: ServiceHandle, n: int = 1) -> Any:
    import asyncio

    async def ask() -> Any:
        return await asyncio.gather(*[handle.submit("ask") for _ in range(n)])

    return asyncio.run(ask())


class TestTogether:
    def test_overlapping_graphs_that_load_at_once_load_everything_once(self, graph: Graph) -> None:
        """A lattice of forty services, asked for in any order by sixteen threads."""
        rng = random.Random(7)
        names = [f"s{i}" for i in range(40)]
        for i, name in enumerate(names):
            graph.add(name, *rng.sample(names[:i], min(i, rng.randrange(4))))
        asked = [rng.sample(names, 6) for _ in range(16)]
        answers = all_at_once(16, lambda i: [graph.registry[name].ask() for name in asked[i]])
        assert answers == asked
        assert len(graph.loaded) == len(set(graph.loaded))

    def test_two_graphs_with_a_broken_foot_in_common_both_end(self, graph: Graph) -> None:
        graph.add("foot")
        for side in "ab":
            graph.add(f"{side}1", "foot")
            graph.add(f"{side}2", f"{side}1")
        graph.broken.add("foot")
        errors = all_at_once(16, lambda i: graph.registry["ab"[i % 2] + "2"].ask())
        assert {type(error) for error in errors} == {LoadFailed}
        graph.broken.clear()
        assert all_at_once(16, lambda i: graph.registry["ab"[i % 2] + "2"].ask()) == ["a2", "b2"] * 8

    @pytest.mark.parametrize("how", ["call", "submit"])
    def test_a_circle_that_only_shows_while_it_runs_is_refused_and_not_waited_for(
        self, graph: Graph, how: str
    ) -> None:
        """Top needs base, and a task of base asks top: each waits for the other, one of them hears it."""
        base = graph.add("base")

        def ask_base(model: Any) -> str:
            graph.gates.wait("base busy")
            return str(model.needs.base.ask())

        graph.hooks["top"] = ask_base
        top = graph.add("top", "base")

        def ask_top(_: Any) -> str:
            graph.gates.tell("base busy")
            graph.gates.wait("top loads")
            return str(top.ask() if how == "call" else top.submit("ask").result(10))

        first = start(base.do, ask_top)
        graph.gates.wait("base busy")
        second = start(top.ask)
        ends = [outcome(first), outcome(second)]
        refused = [end for end in ends if isinstance(end, GrymError)]
        assert refused and any("wait for one another" in str(error) for error in refused)
        assert all(isinstance(end, (str, LoadFailed, TaskFailed, GrymError)) for end in ends)
        assert base.ask() == "base" and top.ask() == "top"
