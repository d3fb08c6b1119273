"""A registry keeps services by name: the same registration is nothing, a changed one takes its place."""

from __future__ import annotations

import importlib
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from grym_nb.errors import (
    ConfigError,
    DependencyError,
    LoadFailed,
    Problem,
    ServiceClosed,
    ServiceNotFound,
    StateError,
    TaskNotFound,
)
from grym_nb.events import Event, ServiceChanged, ServiceRegistered, ServiceRemoved
from grym_nb.services import ModelService, ServiceHandle, ServiceRegistry, task
from grym_nb.testing import FakeClock
from tests.services.crowd import Gates, all_at_once, names_of_threads, outcome, start

#: what the services below did; global, because what a class captures is part of what it is
did: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _nothing_done_yet() -> Iterator[None]:
    did.clear()
    yield


#: not captured by the class that waits here: who is inside would count as a change of its code
_MEETING = threading.Barrier(2)


class Echo(ModelService):
    """Says what it hears."""

    def __init__(self, *, prefix: str = "") -> None:
        self.prefix = prefix

    def load(self) -> None:
        did["load"] += 1

    def unload(self) -> None:
        did["unload"] += 1

    @task("text.echo")
    def echo(self, text: str) -> str:
        return self.prefix + text


class Hidden(Echo):
    """A task that `handle.status` would hide."""

    @task("text.status")
    def status(self) -> str:
        return "here"


class Twice(Echo):
    """Two methods that answer the same type."""

    @task("text.echo")
    def again(self, text: str) -> str:
        return text


def _promising(made: type[Echo]) -> Callable[[], Echo]:
    """Return a factory that promises less than what it makes."""

    def make() -> Echo:
        return made()

    make.__annotations__["return"] = Echo
    return make


gates = Gates()


class Slow(ModelService):
    """Takes its time to load."""

    def __init__(self, *, size: int = 1) -> None:
        self.size = size

    def load(self) -> None:
        gates.tell("loading")
        gates.wait("loaded")

    @task
    def ask(self) -> int:
        return self.size


def sized(n: int) -> type:
    """The class of a cell in which a number was edited."""

    class Sized(ModelService):
        def load(self) -> None:
            did["load"] += 1

        def unload(self) -> None:
            did["unload"] += 1

        @task
        def size(self) -> int:
            return n

    return Sized


class TestMapping:
    def test_a_service_is_found_under_its_name_and_nothing_is_loaded(self, registry: ServiceRegistry) -> None:
        handle = registry.register("echo", Echo)
        assert registry["echo"] is registry.get("echo") is handle
        assert "echo" in registry and "other" not in registry
        assert (list(registry), len(registry), registry.handles()) == (["echo"], 1, (handle,))
        assert handle.state == "registered" and not did

    def test_an_unknown_name_is_a_key_error_that_names_the_closest(self, registry: ServiceRegistry) -> None:
        registry.register("loudness", Echo)
        with pytest.raises(KeyError) as caught:
            registry["lodness"]
        error = caught.value
        assert isinstance(error, ServiceNotFound)
        assert error.lines() == ["no service 'lodness'. Did you mean 'loudness'?", "→ registered: loudness"]

    def test_get_has_a_default_for_those_who_ask(self, registry: ServiceRegistry) -> None:
        assert registry.get("nobody", None) is None
        with pytest.raises(ServiceNotFound):
            registry.get("nobody")

    def test_two_hundred_services_live_side_by_side(self, registry: ServiceRegistry) -> None:
        handles = [registry.register(f"size-{i}", sized(i)) for i in range(200)]
        assert [handle.size() for handle in handles] == list(range(200))
        assert len(registry) == 200 and len(registry.status()) == 200
        with pytest.raises(ServiceNotFound) as caught:
            registry["size-2000"]
        assert len(caught.value.lines()) <= 3 and all(len(line) <= 250 for line in caught.value.lines())

    def test_a_registry_shows_its_services_and_completes_their_names(self, registry: ServiceRegistry) -> None:
        assert "nothing is registered" in repr(registry)
        registry.register("echo", Echo)
        assert "echo" in repr(registry) and "<table" in registry._repr_html_()
        assert registry._ipython_key_completions_() == ("echo",)
        assert not did

    def test_two_registries_know_nothing_of_each_other(self, registry: ServiceRegistry) -> None:
        with ServiceRegistry() as other:
            registry.register("echo", Echo)
            assert "echo" not in other
            other.register("echo", Echo).echo("a")
            assert registry["echo"].state == "registered"


class TestSameAgain:
    def test_a_rerun_cell_keeps_the_one_model(self, registry: ServiceRegistry) -> None:
        first = registry.register("size", sized(3))
        assert first.size() == 3
        with first.use() as model:
            kept = model
        again = registry.register("size", sized(3))
        assert again is first and again.size() == 3
        with again.use() as model:
            assert model is kept
        assert did == {"load": 1} and first.version == "v1"

    def test_a_class_is_the_same_while_an_instance_of_it_is_loaded(self, registry: ServiceRegistry) -> None:
        """A load is watched for what it reads, which shows on the class for as long as it lasts."""
        first, second = registry.register("first", Slow), registry.register("second", Echo)
        load = start(first.load)
        gates.wait("loading")
        registry.register("second", Slow)
        gates["loaded"].set()
        outcome(load)
        assert second.ask() == 1 and second.version == "v2"
        assert registry.register("second", Slow).version == "v2" and second.status().loads == 1
        assert registry.register("first", Slow).status().loads == 1 and first.state == "ready"

    def test_the_same_config_and_options_are_the_same_too(self, registry: ServiceRegistry) -> None:
        events: list[Event] = []
        options: dict[str, Any] = {
            "config": {"prefix": "> "},
            "memory": "2GB",
            "ttl": 60,
            "priority": "high",
            "concurrency": 2,
        }
        handle = registry.register("echo", Echo, **options)
        registry.ports.events.subscribe(events.append)
        assert registry.register("echo", Echo, **options) is handle
        assert registry.register("echo", Echo, **{**options, "memory": 2_000_000_000}) is handle
        assert events == []

    def test_a_partial_and_a_factory_are_compared_by_what_they_do(self, registry: ServiceRegistry) -> None:
        handle = registry.register("echo", partial(Echo, prefix="a"))
        handle.echo("x")
        assert registry.register("echo", partial(Echo, prefix="a")).echo("x") == "ax"
        assert did == {"load": 1}
        assert registry.register("echo", partial(Echo, prefix="b")).echo("x") == "bx"
        assert did == {"load": 1}


class TestChanged:
    def test_changed_code_takes_the_place_of_the_old_under_the_same_handle(
        self, registry: ServiceRegistry
    ) -> None:
        handle = registry.register("size", sized(1))
        bound, optioned = handle.size, handle.size.with_(priority="high")
        assert bound() == 1
        assert registry.register("size", sized(2)) is handle
        assert handle.version == "v2" and handle.state == "ready"
        assert (bound(), optioned(), handle.size()) == (2, 2, 2)
        assert did == {"load": 1}

    def test_a_task_that_is_gone_is_named_to_those_who_still_hold_it(self, registry: ServiceRegistry) -> None:
        bound = registry.register("it", Echo).echo
        bound("a")
        registry.register("it", sized(1))
        with pytest.raises(TaskNotFound, match="it has: size"):
            bound("a")

    def test_changed_needs_are_loaded_before_the_next_call(self, registry: ServiceRegistry) -> None:
        registry.register("echo", Echo)
        handle = registry.register("size", sized(1))
        handle.size()
        registry.register("size", sized(1), needs=["echo"])
        assert registry["echo"].state == "registered"
        assert handle.size() == 1 and registry["echo"].state == "ready"

    def test_a_changed_config_is_set_without_a_reload(self, registry: ServiceRegistry) -> None:
        handle = registry.register("echo", Echo, config={"prefix": "1"})
        assert handle.echo("x") == "1x"
        registry.register("echo", Echo, config={"prefix": "2"})
        assert handle.echo("x") == "2x" and handle.config == {"prefix": "2"}
        assert did == {"load": 1}
        assert (handle.version, handle.status().config_version) == ("v1", 2)

    def test_code_and_config_that_change_together_both_count(self, registry: ServiceRegistry) -> None:
        def say(word: str, n: int) -> type:
            class Say(ModelService):
                def __init__(self, *, loud: bool = False) -> None:
                    self.loud = loud

                @task
                def say(self) -> str:
                    return (word.upper() if self.loud else word) * n

            return Say

        handle = registry.register("say", say("a", 1))
        assert handle.say() == "a"
        registry.register("say", say("a", 2), config={"loud": True})
        assert handle.say() == "AA"
        assert (handle.version, handle.status().config_version) == ("v2", 2)

    def test_options_change_in_place(self, registry: ServiceRegistry) -> None:
        handle = registry.register("echo", Echo)
        handle.echo("a")
        registry.register("echo", Echo, memory="1GB", ttl=30, priority="low")
        status = handle.status()
        assert (status.memory, status.ttl, status.state) == (1_000_000_000, 30, "ready")
        assert did == {"load": 1} and handle.version == "v1"

    def test_more_slots_let_in_who_already_waits(self) -> None:
        class Meet(ModelService):
            @task
            def meet(self) -> int:
                return _MEETING.wait(10)

        with ServiceRegistry() as registry:
            handle = registry.register("meet", Meet)
            calls = [handle.submit("meet"), handle.submit("meet")]
            registry.register("meet", Meet, concurrency=2)
            assert sorted(call.result(10) for call in calls) == [0, 1]

    def test_a_label_is_the_version_that_shows(self, registry: ServiceRegistry) -> None:
        handle = registry.register("echo", Echo, version="2024-06")
        handle.echo("a")
        assert handle.version == "2024-06"
        registry.register("echo", Echo, version="2024-07")
        assert handle.version == "2024-07" and did == {"load": 1}

    def test_the_bus_hears_what_changed(self) -> None:
        clock = FakeClock(50.0)
        with ServiceRegistry(clock=clock) as registry:
            events: list[Event] = []
            registry.ports.events.subscribe(events.append, ServiceRegistered, ServiceChanged, ServiceRemoved)
            registry.register("it", sized(1))
            registry.register("it", sized(1))
            registry.register("it", sized(2), ttl=5)
            registry.remove("it")
            assert events == [
                ServiceRegistered(50.0, "it", "v1"),
                ServiceChanged(50.0, "it", "v2", ("code", "ttl")),
                ServiceRemoved(50.0, "it"),
            ]

    def test_a_task_cannot_redefine_the_service_it_runs_in(self, registry: ServiceRegistry) -> None:
        class Sly(ModelService):
            @task
            def change(self, cls: Any) -> None:
                registry.register("sly", cls)

        handle = registry.register("sly", Sly)
        handle.change(Sly)  # nothing changes, so nothing is refused
        with pytest.raises(StateError, match="cannot redefine the service it runs in"):
            handle.change(sized(1))
        assert handle.state == "ready" and handle.version == "v1"

    def test_a_hook_that_raises_while_the_old_goes_does_not_keep_the_new_out(
        self, registry: ServiceRegistry, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Old(ModelService):
            def unload(self) -> None:
                raise OSError("device busy")

            @task
            def size(self) -> int:
                return 0

        heard: list[ServiceChanged] = []
        handle = registry.register("size", Old)
        handle.size()
        registry.ports.events.subscribe(heard.append, ServiceChanged)
        assert registry.register("size", sized(7), concurrency=3) is handle
        assert handle.size() == 7 and handle.status().concurrency == 3
        assert [event.what for event in heard] == [("code", "concurrency")]
        assert "device busy" in caplog.text and "device busy" in handle.status().last_error


class TestRefused:
    def test_everything_wrong_with_a_registration_is_said_at_once(self, registry: ServiceRegistry) -> None:
        with pytest.raises(ConfigError) as caught:
            registry.register(
                " ",
                7,  # type: ignore[arg-type]
                needs="dsp",  # type: ignore[arg-type]
                ttl=-1,
                concurrency=0,
                engine="warp",
                memory="much",
                priority="urgent",
            )
        paths = {problem.path for problem in caught.value.problems}
        assert {"name", "factory", "needs", "ttl", "concurrency", "engine", "priority"} <= paths
        assert any("memory" in problem.path or "much" in problem.found for problem in caught.value.problems)
        assert len(registry) == 0

    def test_a_config_that_does_not_fit_is_named_by_path(self, registry: ServiceRegistry) -> None:
        with pytest.raises(ConfigError) as caught:
            registry.register("echo", Echo, config={"prefix": 3, "sufix": "x"})
        assert {problem.path for problem in caught.value.problems} == {"config.prefix", "config.sufix"}
        assert "echo" not in registry

    def test_a_refused_change_leaves_the_old_serving(self, registry: ServiceRegistry) -> None:
        handle = registry.register("echo", Echo)
        handle.echo("a")
        with pytest.raises(ConfigError):
            registry.register("echo", Echo, config={"prefix": 3})
        with pytest.raises(DependencyError):
            registry.register("echo", Echo, needs=["nobody"])
        assert handle.echo("a") == "a" and did == {"load": 1} and handle.status().needs == ()

    def test_a_class_without_a_task_is_no_service(self, registry: ServiceRegistry) -> None:
        class Mute(ModelService):
            def speak(self) -> None: ...

        with pytest.raises(ConfigError, match="at least one method with @task"):
            registry.register("mute", Mute)

    @pytest.mark.parametrize("name", ["run", "status", "load", "name", "map", "use", "config"])
    def test_a_task_that_would_hide_a_name_of_the_handle_is_refused(
        self, registry: ServiceRegistry, name: str
    ) -> None:
        hiding = type("Hiding", (ModelService,), {name: task("x.y")(lambda self: None)})
        with pytest.raises(ConfigError, match=f"task {name}"):
            registry.register("hiding", hiding)

    def test_a_task_type_that_two_methods_declare_is_refused(self, registry: ServiceRegistry) -> None:
        with pytest.raises(ConfigError) as caught:
            registry.register("twice", Twice)
        assert caught.value.problems == (Problem("task type text.echo", "echo and again", "one method"),)
        assert "twice" not in registry

    @pytest.mark.parametrize(
        ("made", "cause"),
        [
            (Hidden, "task status: found a name the handle itself has, expected another name"),
            (Twice, "task type text.echo: found echo and again, expected one method"),
        ],
    )
    def test_what_a_silent_factory_makes_is_refused_once_it_is_there(
        self, registry: ServiceRegistry, made: type[Echo], cause: str
    ) -> None:
        """With the words of the registration; the model that came too far is let go of, unloaded."""
        for name, factory in (("silent", lambda: made()), ("promised", _promising(made))):
            did.clear()
            handle = registry.register(name, factory)
            with pytest.raises(LoadFailed) as caught:
                handle.load()
            assert caught.value.lines() == [
                f"{name} could not be loaded: {name!r} cannot be registered",
                f"  {cause}",
                f"→ {ConfigError.advice}",
            ]
            assert caught.value.details["path"] == (name,)
            assert did == {"unload": 1} and handle.state == "failed"
            assert cause in caught.value.failure.text() and cause in handle.status().last_error

    def test_a_silent_factory_that_was_refused_can_be_mended(self, registry: ServiceRegistry) -> None:
        handle = registry.register("silent", lambda: Twice())
        with pytest.raises(LoadFailed):
            handle.echo("a")
        registry.register("silent", lambda: Echo())
        assert handle.echo("a") == "a"

    def test_undeclared_needs_are_told_and_what_was_made_is_unloaded(self, registry: ServiceRegistry) -> None:
        needy = type("Needy", (Echo,), {"needs": ("dsp",)})
        with pytest.raises(LoadFailed, match=r"what the factory of silent made needs dsp\n→ say so"):
            registry.register("silent", lambda: needy()).load()
        assert did == {"unload": 1}

    def test_nothing_is_registered_once_the_registry_is_closed(self) -> None:
        registry = ServiceRegistry()
        handle = registry.register("echo", Echo)
        registry.close()
        with pytest.raises(ServiceClosed, match="registry is closed"):
            registry.register("other", Echo)
        with pytest.raises(ServiceClosed):
            handle.echo("a")
        assert registry["echo"] is handle


class TestRemove:
    def test_a_removed_service_is_gone_and_its_handle_says_so(self, registry: ServiceRegistry) -> None:
        handle = registry.register("echo", Echo)
        bound = handle.echo
        bound("a")
        registry.remove("echo")
        assert "echo" not in registry and handle.state == "closed" and did == {"load": 1, "unload": 1}
        for call in (bound, handle.echo, partial(handle.submit, "echo"), partial(handle.run, "text.echo")):
            with pytest.raises(ServiceClosed, match=r"closed \(removed\)"):
                call("a")
        with pytest.raises(ServiceNotFound):
            registry.remove("echo")

    def test_a_name_can_be_given_again_and_starts_from_nothing(self, registry: ServiceRegistry) -> None:
        old = registry.register("echo", Echo)
        old.echo("a")
        registry.remove("echo")
        with pytest.raises(ServiceClosed):
            old.echo("a")
        new = registry.register("echo", Echo)
        assert new is not old and new.status().calls == 0
        new.echo("a")
        with pytest.raises(ServiceClosed):
            old.echo("a")
        assert (new.status().calls, new.status().errors, new.status().loads) == (1, 0, 1)

    def test_what_is_measured_of_a_service_goes_with_it(self, registry: ServiceRegistry) -> None:
        old = registry.register("echo", Echo)
        old.echo("a")
        registry.remove("echo")
        with pytest.raises(ServiceClosed):
            old.echo("a")
        assert registry.ports.metrics.snapshot() == ()

    def test_a_service_that_others_need_stays(self, registry: ServiceRegistry) -> None:
        registry.register("base", Echo)
        registry.register("top", sized(1), needs=["base"])
        registry.register("maybe", sized(2), needs=["base?"])
        with pytest.raises(DependencyError, match="base is needed by top") as caught:
            registry.remove("base")
        assert caught.value.details["path"] == ("top", "base") and registry["base"].state == "registered"
        registry.remove("top")
        registry.remove("base")  # an optional need holds nobody back
        assert list(registry) == ["maybe"]

    def test_a_hook_that_raises_is_told_and_the_service_is_gone_all_the_same(
        self, registry: ServiceRegistry
    ) -> None:
        class Sticky(ModelService):
            def unload(self) -> None:
                raise OSError("device busy")

            @task
            def ask(self) -> int:
                return 1

        removed: list[Event] = []
        registry.ports.events.subscribe(removed.append, ServiceRemoved)
        handle = registry.register("sticky", Sticky)
        handle.ask()
        with pytest.raises(Exception, match="unload hook raised OSError: device busy"):
            registry.remove("sticky")
        assert handle.state == "closed" and "sticky" not in registry
        assert [event.service for event in removed] == ["sticky"]
        assert registry.ports.metrics.snapshot() == ()

    def test_one_of_many_who_remove_at_once_does(self, registry: ServiceRegistry) -> None:
        registry.register("echo", Echo).echo("a")
        told = all_at_once(8, lambda _: registry.remove("echo"))
        assert Counter(type(answer) for answer in told) == {type(None): 1, ServiceNotFound: 7}
        assert did == {"load": 1, "unload": 1}

    def test_many_who_register_at_once_get_one_handle(self, registry: ServiceRegistry) -> None:
        handles = all_at_once(16, lambda _: registry.register("echo", Echo))
        assert len({id(handle) for handle in handles}) == 1 and isinstance(handles[0], ServiceHandle)


class TestClose:
    def test_it_is_idempotent_and_leaves_no_thread(self) -> None:
        before = names_of_threads()
        with ServiceRegistry() as registry:
            handle = registry.register("echo", Echo, ttl=100)
            assert handle.submit("echo", "a").result(10) == "a"
            assert names_of_threads() != before
        assert registry.close() == () and registry.close() == ()
        assert names_of_threads() == before and did == {"load": 1, "unload": 1}

    def test_dependants_end_before_what_they_need(self) -> None:
        ended: list[str] = []

        def part(name: str) -> type:
            class Part(ModelService):
                def unload(self) -> None:
                    ended.append(name)

                @task
                def ask(self) -> str:
                    return name

            return Part

        registry = ServiceRegistry()
        for name, needs in {"d": (), "b": ("d",), "c": ("d?",), "a": ("c", "b"), "e": ()}.items():
            registry.register(name, part(name), needs=needs).ask()
        registry.close()
        assert sorted(ended) == list("abcde")
        assert all(ended.index(one) < ended.index(other) for one, other in ["ab", "ac", "bd", "cd"])

    def test_one_that_raises_at_its_end_does_not_keep_the_others(self) -> None:
        class Sticky(ModelService):
            def unload(self) -> None:
                raise OSError("device busy")

            @task
            def ask(self) -> int:
                return 1

        registry = ServiceRegistry()
        registry.register("echo", Echo).echo("a")
        registry.register("sticky", Sticky).ask()
        registry.register("size", sized(1)).size()
        registry.close()
        assert did["unload"] == 2 and {handle.state for handle in registry.handles()} == {"closed"}


# -- plug-ins --------------------------------------------------------------------------------------


class Site:
    """A folder on sys.path with packages that were installed into it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def install(self, package: str, source: str, **points: str) -> None:
        """Put a module there, and the metadata an installer writes for it."""
        (self.path / f"{package}.py").write_text(source)
        info = self.path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[grym_nb.services]", *lines, ""]))
        importlib.invalidate_caches()


SHOUT = """
from grym_nb import ModelService, task

class Shout(ModelService):
    @task("plug.shout")
    def shout(self, text: str) -> str:
        return text.upper()

class Box:
    class Inner(Shout):
        pass

class Needy(ModelService):
    needs = ("plug_base",)
    @task("plug.needy")
    def ask(self, text: str) -> str:
        return self.needs.plug_base.shout(text) + "!"

class Hiding(ModelService):
    @task("plug.hiding")
    def status(self) -> int:
        return 1

class Twice(Shout):
    @task("plug.shout")
    def again(self, text: str) -> str:
        return text
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    known = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield Site(tmp_path)
    for name in set(sys.modules) - known:
        if name.startswith("grymplug"):
            del sys.modules[name]


class TestPlugIns:
    def test_an_installed_package_is_there_unloaded_and_imported_at_its_first_use(
        self, registry: ServiceRegistry, site: Site
    ) -> None:
        site.install("grymplug_a", SHOUT, plug_shout="grymplug_a:Shout")
        assert registry.discover() == ("plug_shout",)
        handle = registry["plug_shout"]
        assert (handle.state, handle.status().state, "plug_shout" in repr(registry)) == (
            "registered",
            "registered",
            True,
        )
        assert "grymplug_a" not in sys.modules
        assert handle.shout("hi") == "HI" and "grymplug_a" in sys.modules
        assert handle.status().tasks == ("shout",)

    def test_asking_for_its_name_is_enough(self, registry: ServiceRegistry, site: Site) -> None:
        site.install("grymplug_b", SHOUT, plug_shout="grymplug_b:Shout")
        assert registry["plug_shout"].run("plug.shout", "hi") == "HI"

    def test_what_is_registered_already_stays(self, registry: ServiceRegistry, site: Site) -> None:
        site.install("grymplug_c", SHOUT, echo="grymplug_c:Shout")
        handle = registry.register("echo", Echo)
        assert registry.discover() == () and registry["echo"] is handle and handle.echo("a") == "a"

    @pytest.mark.parametrize(
        ("source", "value", "cause"),
        [
            (SHOUT, "grymplug_d:Missing", "Missing"),
            (SHOUT, "grymplug_nowhere:Shout", "grymplug_nowhere"),
            (SHOUT, "grymplug_d", ""),
            ("raise RuntimeError('no licence')", "grymplug_d:Shout", "no licence"),
            ("def broken(:", "grymplug_d:Shout", "SyntaxError"),
            ("class Shout: pass", "grymplug_d:Shout", ""),
        ],
        ids=["no attribute", "no module", "no object", "raises", "syntax", "no task"],
    )
    def test_a_broken_one_fails_when_it_is_used_and_nobody_else_does(
        self, registry: ServiceRegistry, site: Site, source: str, value: str, cause: str
    ) -> None:
        site.install("grymplug_d", source, plug_broken=value)
        site.install("grymplug_e", SHOUT, plug_shout="grymplug_e:Shout")
        registry.register("echo", Echo)
        assert set(registry.discover()) == {"plug_broken", "plug_shout"}
        broken = registry["plug_broken"]
        assert broken.status().state == "registered" and "plug_broken" in repr(broken)
        with pytest.raises((LoadFailed, ConfigError), match="plug_broken") as caught:
            broken.load()
        assert cause in str(caught.value) and len(caught.value.lines()) <= 3
        assert registry["plug_shout"].shout("a") == "A" and registry["echo"].echo("a") == "a"
        assert [handle.name for handle in registry.able("plug.shout")] == ["plug_shout"]
        assert {"plug.shout", "text.echo"} <= set(registry.types())
        assert "load" in dir(broken)

    def test_a_class_inside_a_class_and_an_extra_are_understood(
        self, registry: ServiceRegistry, site: Site
    ) -> None:
        site.install(
            "grymplug_f", SHOUT, plug_inner="grymplug_f:Box.Inner", plug_extra="grymplug_f:Shout [loud]"
        )
        assert registry["plug_inner"].shout("a") == "A"
        assert registry["plug_extra"].shout("a") == "A"

    def test_what_a_plug_in_needs_is_loaded_first(self, registry: ServiceRegistry, site: Site) -> None:
        site.install("grymplug_g", SHOUT, plug_needy="grymplug_g:Needy", plug_base="grymplug_g:Shout")
        assert registry["plug_needy"].ask("a") == "A!"
        assert registry["plug_base"].state == "ready"

    def test_a_need_that_is_not_there_is_named_with_the_path(
        self, registry: ServiceRegistry, site: Site
    ) -> None:
        site.install("grymplug_h", SHOUT, plug_needy="grymplug_h:Needy")
        with pytest.raises(LoadFailed, match="plug_base") as caught:
            registry["plug_needy"].ask("a")
        assert caught.value.details["path"] == ("plug_needy", "plug_base")

    def test_plug_ins_that_need_each_other_are_told_and_not_waited_for(
        self, registry: ServiceRegistry, site: Site
    ) -> None:
        site.install(
            "grymplug_j",
            SHOUT.replace('("plug_base",)', '("plug_other",)')
            + "class Other(Needy):\n    needs = ('plug_needy',)\n",
            plug_needy="grymplug_j:Needy",
            plug_other="grymplug_j:Other",
        )
        for name in ("plug_needy", "plug_other"):
            error = outcome(start(registry[name].load))
            assert isinstance(error, LoadFailed) and "→" in str(error)
            assert {"plug_needy", "plug_other"} == set(error.details["path"])

    def test_a_task_that_would_hide_a_name_of_the_handle_fails_the_load(
        self, registry: ServiceRegistry, site: Site
    ) -> None:
        site.install("grymplug_k", SHOUT, plug_hiding="grymplug_k:Hiding")
        with pytest.raises(LoadFailed, match="cannot be registered") as caught:
            registry["plug_hiding"].load()
        assert caught.value.cause.startswith("task status: found a name the handle itself has")

    def test_a_task_type_that_two_methods_declare_fails_the_load(
        self, registry: ServiceRegistry, site: Site
    ) -> None:
        site.install("grymplug_l", SHOUT, plug_twice="grymplug_l:Twice")
        with pytest.raises(LoadFailed, match="found shout and again, expected one method"):
            registry["plug_twice"].load()

    def test_a_string_is_imported_at_its_first_use_too(self, registry: ServiceRegistry, site: Site) -> None:
        site.install("grymplug_i", SHOUT)
        handle = registry.register("shout", "grymplug_i:Shout")
        assert "grymplug_i" not in sys.modules
        assert registry.register("shout", "grymplug_i:Shout") is handle
        assert handle.shout("a") == "A"
        assert registry.register("shout", "grymplug_i:Shout").status().loads == 1


# -- any operations in any order -------------------------------------------------------------------


class RegistryAgainstModel(RuleBasedStateMachine):
    """Whatever is done, and in whatever order, a plain dict says what must be there."""

    names = Bundle("names")

    @initialize()
    def begin(self) -> None:
        did.clear()
        self.registry = ServiceRegistry()
        self.model: dict[str, dict[str, Any]] = {}
        self.handles: dict[str, ServiceHandle] = {}
        self.closed: list[ServiceHandle] = []
        self.loads = self.unloads = 0

    def _let_go(self, row: dict[str, Any]) -> None:
        self.unloads += row["loaded"]
        row["loaded"] = False

    def _bring(self, row: dict[str, Any]) -> None:
        if not row["loaded"]:
            self.loads += 1
            row["loads"] += 1
            row["loaded"] = True

    @rule(target=names, name=st.sampled_from(["a", "b", "c", "d"]), n=st.integers(0, 2))
    def register(self, name: str, n: int) -> str:
        handle = self.registry.register(name, sized(n))
        row = self.model.get(name)
        if row is None:
            self.handles[name] = handle
            self.model[name] = {"n": n, "loaded": False, "calls": 0, "loads": 0, "version": 1}
        else:
            assert handle is self.handles[name]
            if row["n"] != n:
                row["n"] = n
                row["version"] += 1
        return name

    @rule(name=names, way=st.sampled_from(["call", "run", "submit", "type"]))
    def call(self, name: str, way: str) -> None:
        if name not in self.model:
            return
        row, handle = self.model[name], self.handles[name]
        ways = {
            "call": lambda: handle.size(),
            "run": lambda: handle.run("size"),
            "type": lambda: handle.run("size"),
            "submit": lambda: handle.size.submit().result(10),
        }
        assert ways[way]() == row["n"]
        self._bring(row)
        row["calls"] += 1

    @rule(name=names)
    def load(self, name: str) -> None:
        if name in self.model:
            self.registry[name].load()
            self._bring(self.model[name])

    @rule(name=names)
    def unload(self, name: str) -> None:
        if name in self.model:
            self.registry[name].unload()
            self._let_go(self.model[name])

    @rule(name=names)
    def reload(self, name: str) -> None:
        if name in self.model:
            assert self.registry[name].reload().how == "unchanged"

    @rule(name=names)
    def remove(self, name: str) -> None:
        if name in self.model:
            self.registry.remove(name)
            self._let_go(self.model.pop(name))
            self.closed.append(self.handles.pop(name))
        else:
            with pytest.raises(ServiceNotFound):
                self.registry.remove(name)

    @rule(name=st.sampled_from(["a", "b", "c", "d", "e"]))
    def get(self, name: str) -> None:
        if name in self.model:
            assert self.registry[name] is self.handles[name]
        else:
            with pytest.raises(KeyError):
                self.registry[name]

    @rule()
    def call_what_was_removed(self) -> None:
        for handle in self.closed:
            with pytest.raises(ServiceClosed):
                handle.size()

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        assert set(self.registry) == set(self.model)
        for name, row in self.model.items():
            status = self.registry[name].status()
            assert (status.state, status.version, status.calls, status.errors, status.loads) == (
                "ready" if row["loaded"] else "registered",
                f"v{row['version']}",
                row["calls"],
                0,
                row["loads"],
            )
        assert (did["load"], did["unload"]) == (self.loads, self.unloads)
        assert not self.registry.running()

    def teardown(self) -> None:
        self.registry.close()
        assert did["load"] == did["unload"]


TestAnyOrder = RegistryAgainstModel.TestCase
TestAnyOrder.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
