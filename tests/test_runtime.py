"""A runtime wires the parts, is independent of any other, and ends everything it began."""

from __future__ import annotations

import gc
import sqlite3
import subprocess
import sys
import textwrap
import threading
import warnings
import weakref
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import grym_nb as grym
from grym_nb import runtime as home
from grym_nb.context import ContextItem, ContextStore, moving
from grym_nb.errors import (
    ConfigError,
    Interrupted,
    ServiceClosed,
    StateError,
    StorageError,
    ValidationError,
)
from grym_nb.events import CallEnded, ItemExpired
from grym_nb.runtime import Runtime, current, on_kernel_runtime
from grym_nb.services import ModelService, Task, task
from grym_nb.settings import Settings
from grym_nb.testing import FakeClock
from tests.services.crowd import Gates, all_at_once, names_of_threads, outcome, start, until


class Echo(ModelService):
    @task("text.echo")
    def echo(self, text: str = "") -> str:
        return text

    @task
    def gated(self, gates: Gates) -> str:
        gates.tell("inside")
        gates.wait("on")
        return "done"

    @task
    async def later(self, text: str) -> str:
        return text


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No kernel runtime before the test, and none after it."""
    monkeypatch.setattr(home, "_kernel", None)
    monkeypatch.setattr("atexit.register", lambda fn: fn)
    yield
    if home._kernel is not None:
        home._kernel.close()


class TestRuntime:
    def test_what_comes_with_it_is_registered_and_not_loaded(self) -> None:
        with Runtime() as runtime:
            states = {handle.name: handle.state for handle in runtime.registry.handles()}
            assert states == dict.fromkeys(("dsp", "wav2vec2", "audioldm"), "registered")
            assert repr(runtime) == "<Runtime: 3 services>"

    def test_its_parts_are_those_its_services_use(self) -> None:
        clock = FakeClock(7.0)
        with Runtime(Settings(calls_kept=3), clock=clock) as runtime:
            ended: list[CallEnded] = []
            runtime.events.subscribe(ended.append, CallEnded)
            runtime.registry.register("echo", Echo).echo("a")
            assert [(event.service, event.at) for event in ended] == [("echo", 7.0)]
            (sample,) = runtime.metrics.select("service.call.seconds", service="echo")
            assert sample.value.count == 1  # type: ignore[union-attr]
            assert runtime.settings.calls_kept == 3

    def test_wrong_settings_are_refused_before_anything_starts(self) -> None:
        before = names_of_threads()
        with pytest.raises(ConfigError):
            Runtime(Settings(work_threads=0))
        assert names_of_threads() == before

    def test_two_know_nothing_of_each_other(self) -> None:
        with Runtime() as one, Runtime() as other:
            one.registry.register("echo", Echo)
            assert "echo" not in other.registry
            other.close()
            assert one.run("text.echo", "a") == "a"

    def test_making_one_starts_no_thread_and_closing_one_leaves_none(self) -> None:
        before = names_of_threads()
        runtime = Runtime()
        assert names_of_threads() == before
        echo = runtime.registry.register("echo", Echo, ttl=60)
        assert (echo.echo.submit("a").result(10), echo.later("b")) == ("a", "b")
        assert {"grym-pulse", "grym-loop"} <= {*names_of_threads()}
        assert runtime.close() == () and names_of_threads() == before

    def test_closing_is_idempotent_and_final(self) -> None:
        runtime = Runtime()
        echo = runtime.registry.register("echo", Echo)
        echo.echo("a")
        assert (runtime.close(), runtime.close()) == ((), ()) and "closed" in repr(runtime)
        for ask in (echo.echo, lambda: runtime.registry.register("x", Echo), echo.echo.submit):
            with pytest.raises(ServiceClosed):
                ask()

    def test_many_who_close_at_once_all_come_back(self) -> None:
        runtime = Runtime()
        runtime.registry.register("echo", Echo).echo("a")
        assert all_at_once(8, lambda _: runtime.close()) == [()] * 8

    def test_what_still_runs_is_named(self) -> None:
        gates = Gates()
        runtime = Runtime(Settings(drain_seconds=0.0))
        call = runtime.registry.register("echo", Echo).submit("gated", gates)
        gates.wait("inside")
        still = runtime.close()
        assert len(still) == 1 and still[0].startswith("grym-call")
        gates["on"].set()
        assert call.result(10) == "done"
        until(lambda: not names_of_threads("grym-call"))

    def test_its_deadline_is_for_all_services_together(self) -> None:
        clock = FakeClock()
        gates = Gates()
        runtime = Runtime(clock=clock)
        stuck = [start(runtime.registry.register(f"e{i}", Echo).gated, gates) for i in range(3)]
        until(lambda: gates.seen["inside"] == 3)
        closing = start(runtime.close, 5.0)
        clock.until_waiting(1)
        clock.advance(5)
        assert outcome(closing) == ()
        gates["on"].set()
        assert [outcome(call) for call in stuck] == ["done"] * 3

    def test_one_that_was_interrupted_can_be_closed_again(self) -> None:
        class Interrupting(FakeClock):
            armed = False

            def wait(self, condition: threading.Condition, deadline: float | None) -> None:
                if self.armed:
                    raise KeyboardInterrupt
                super().wait(condition, deadline)

        clock, gates = Interrupting(), Gates()
        runtime = Runtime(Settings(health_seconds=0), clock=clock)
        echo = runtime.registry.register("echo", Echo)
        call = start(echo.gated, gates)
        gates.wait("inside")
        clock.armed = True
        assert isinstance(outcome(start(runtime.close)), Interrupted)
        clock.armed = False
        gates["on"].set()
        assert outcome(call) == "done" and echo.state == "ready"
        assert runtime.close() == () and echo.state == "closed"

    def test_a_task_cannot_close_what_it_runs_in(self) -> None:
        class Suicide(ModelService):
            @task
            def close(self, runtime: Runtime) -> None: ...

            @task
            def end(self, what: object) -> None:
                what()  # type: ignore[operator]

        with Runtime() as runtime:
            del Suicide.close
            handle = runtime.registry.register("it", Suicide)
            with pytest.raises(StateError, match="service it runs in"):
                handle.end(runtime.close)
            assert handle.end(lambda: None) is None and handle.state == "ready"

    def test_one_that_was_forgotten_with_a_model_in_it_warns(self) -> None:
        runtime = Runtime()
        runtime.registry.register("echo", Echo).echo("a")
        there = weakref.ref(runtime)

        def gone() -> bool:
            gc.collect()
            return there() is None

        with pytest.warns(ResourceWarning, match="forgotten with services in it"):
            del runtime
            until(gone)  # the pulse may look at the service just then

    def test_one_that_never_loaded_anything_goes_silently(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            runtime = Runtime()
            runtime.registry.register("echo", Echo)
            del runtime
            gc.collect()


class Finder(ModelService):
    """Finds a tempo, and says so to whoever may need it."""

    @task("demo.tempo")
    def tempo(self, text: str) -> dict[str, float]:
        return {"tempo": float(text)}


class Maker(ModelService):
    """Takes what is in the context, in a form of its own."""

    def __init__(self, *, unit: str = "bpm") -> None:
        self.unit = unit

    def load(self) -> None:
        self.loaded = True

    def adapt_context(self, item: ContextItem) -> str:
        return f"{item.content['tempo']:g} {self.unit}"

    @task("audio.make")
    def make(self, context: list[ContextItem] | None = None) -> list[str] | None:
        return None if context is None else [item.content for item in context]


class TestContext:
    def test_what_one_service_finds_another_is_given_in_its_own_form(self) -> None:
        """Stored by the task that asked; found, put in order and adapted for the one that takes it."""
        with Runtime() as runtime:
            runtime.registry.register("finder", Finder)
            make = runtime.registry.register("maker", Maker)
            assert make.make() is None
            asked = Task("demo.tempo", "120", priority="high", store_results=True, metadata={"workflow": "w"})
            assert runtime.submit(asked).result() == {"tempo": 120.0}
            runtime.run("demo.tempo", "99")  # did not ask for it
            [item] = runtime.context.query(type="demo.tempo")
            assert (item.content, item.source, item.priority) == ({"tempo": 120.0}, "finder", 2)
            assert (item.tags, item.task, item.workflow) == (("result", "finder"), asked.id, "w")
            assert item.metadata["version"] == runtime.registry["finder"].version
            runtime.context.put({"tempo": 90}, type="demo.tempo", priority="critical")
            assert make.make() == ["90 bpm", "120 bpm"]
            assert make.make(context=None) is None and make.make(context=[item]) == [{"tempo": 120.0}]
            runtime.context.clear()
            assert make.make() is None

    def test_a_task_says_how_its_result_is_kept(self) -> None:
        with Runtime() as runtime:
            runtime.registry.register("finder", Finder)
            said = {"key": "song-1", "ttl": 60, "tags": (tag for tag in ("draft",))}
            runtime.submit(Task("demo.tempo", "120", store_results=said)).result()
            runtime.submit(Task("demo.tempo", "99", store_results={"key": "song-2"})).result()
            item = runtime.context.latest("demo.tempo", "song-1")
            assert (item.content, item.ttl, item.tags) == (
                {"tempo": 120.0},
                60.0,
                ("result", "finder", "draft"),
            )
            assert runtime.context.latest("demo.tempo").key == "song-2"

    @pytest.mark.parametrize(
        ("said", "told"),
        [
            ("yes", "True, False, or a mapping of key, ttl, tags"),
            ({"kee": "song-1"}, r"store_results\.kee.*Did you mean 'key'"),
            ({1: 2}, "one of key, ttl, tags"),
            ({"ttl": 0}, "seconds above 0"),
            ({"tags": "draft"}, "tags"),
            ({"key": 7}, "text, or None"),
        ],
    )
    def test_how_a_result_is_kept_is_checked_when_it_is_asked_for(self, said: Any, told: str) -> None:
        with pytest.raises(ValidationError, match=told):
            Task("demo.tempo", "120", store_results=said)

    def test_a_service_adapts_before_it_is_loaded_and_after(self) -> None:
        with Runtime() as runtime:
            maker = runtime.registry.register("maker", Maker, config={"unit": "beats"})
            item = runtime.context.put({"tempo": 60}, type="tempo")
            assert [i.content for i in runtime.context.for_model("maker")] == ["60 beats"]
            assert maker.state == "registered"
            maker.load()
            assert runtime.context.for_model("maker", key=None)[0] == item._replace(content="60 beats")
            assert runtime.context.for_model("nobody")[0] == item

    def test_what_does_not_suit_a_model_is_left_out_of_its_context_and_said_once(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Somebody else's items fail nobody's call; who asks for them himself is told all that is wrong."""
        with Runtime() as runtime:
            maker = runtime.registry.register("maker", Maker)
            items = [runtime.context.put({"bpm": n}, type="beats") for n in range(2)]
            runtime.context.put({"tempo": 3}, type="tempo")
            assert [maker.make(), maker.make()] == [["3 bpm"]] * 2
            assert [r.message.count("that does not suit it") for r in caplog.records] == [1]
            with pytest.raises(ValidationError) as caught:
                runtime.context.for_model("maker")
            assert all(item.id in str(caught.value.problems) for item in items)
            runtime.context.clear(type="tempo")
            assert maker.make() is None

    def test_a_task_says_which_context_it_wants(self) -> None:
        class Chooser(ModelService):
            @task(context={"type": "tempo", "min_priority": "high", "limit": 1})
            def one(self, context: list[ContextItem] | None = None) -> list[object] | None:
                return None if context is None else [item.content for item in context]

        with Runtime() as runtime:
            chooser = runtime.registry.register("chooser", Chooser)
            for content, type, priority in (
                (1, "tempo", "high"),
                (2, "tempo", "high"),
                (3, "key", "critical"),
            ):
                runtime.context.put(content, type=type, priority=priority)
            assert chooser.one() == [2]
            found = runtime.metrics.histogram("context.seconds", service="chooser", task="one")
            assert found.snapshot().count == 1
            runtime.context.clear(type="tempo")
            assert chooser.one() is None

    def test_a_result_that_cannot_be_kept_is_said_and_the_call_succeeds(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Odd(ModelService):
            @task("odd")
            def odd(self) -> object:
                return {"f": print}

        with Runtime(Settings(context_path=str(tmp_path / "context.db"))) as runtime:
            runtime.registry.register("odd", Odd)
            assert runtime.submit(Task("odd", store_results=True)).result(10) == {"f": print}
            [record] = caplog.records
            assert "content['f']" in record.message and record.exc_info is None
            with pytest.raises(ValidationError, match="run takes a task type"):
                runtime.run(Task("odd"))  # type: ignore[arg-type]

    def test_a_context_may_be_given_by_position(self) -> None:
        with Runtime() as runtime:
            item = runtime.context.put({"tempo": 3}, type="tempo")
            maker = runtime.registry.register("maker", Maker)
            assert maker.make([item]) == [{"tempo": 3}] and maker.make(None) is None

    def test_a_model_that_cannot_be_made_only_to_adapt_is_told(self) -> None:
        made: list[object] = []

        class Heavy(Maker):
            def __init__(self) -> None:
                made.append(self)
                super().__init__()

        class Broken(Maker):
            def __init__(self) -> None:
                raise OSError("no card")

        with Runtime() as runtime:
            runtime.context.put({"tempo": 3}, type="tempo")
            runtime.registry.register("heavy", Heavy)
            runtime.registry.register("broken", Broken)
            for _ in range(3):
                assert runtime.context.for_model("heavy")[0].content == "3 bpm"
            assert len(made) == 1
            with pytest.raises(ConfigError, match="OSError: no card"):
                runtime.context.for_model("broken")

    def test_closing_one_whose_file_is_in_use_can_be_tried_again(self, tmp_path: Path) -> None:
        path = tmp_path / "context.db"
        runtime = Runtime(Settings(context_path=str(path)))
        runtime.context._storage._busy_seconds = 0.02  # type: ignore[attr-defined]
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            runtime.context.put(1, type="a")
            with pytest.raises(StorageError, match="is in use"):
                runtime.close()
            other.execute("ROLLBACK")
        assert runtime.close() == () == runtime.close()
        with Runtime(Settings(context_path=str(path))) as runtime:
            assert runtime.context.latest("a").content == 1

    def test_a_task_is_given_the_most_important_ones_up_to_a_number(self) -> None:
        with Runtime(Settings(context_items=2)) as runtime:
            maker = runtime.registry.register("maker", Maker)
            for n, priority in enumerate(("low", "high", "normal", "low")):
                runtime.context.put({"tempo": n}, type="tempo", priority=priority)
            assert maker.make() == ["1 bpm", "2 bpm"]

    def test_what_has_expired_goes_by_itself_and_is_announced_on_the_bus(self) -> None:
        clock = FakeClock(1000.0)
        runtime = Runtime(clock=clock)
        expired: list[ItemExpired] = []
        runtime.events.subscribe(expired.append, ItemExpired)
        for n in range(500):
            runtime.context.put(n, type="a", ttl=2)
        clock.advance(2.0)
        while runtime.context.stats().items:  # a millisecond's worth at a time
            clock.until_waiting()
            clock.advance(0.5)
        assert len(expired) == 500 and runtime.close() == ()

    def test_one_with_a_file_outlives_its_runtime(self, tmp_path: Path) -> None:
        settings = Settings(context_path=str(tmp_path / "context.db"))
        with Runtime(settings) as runtime:
            runtime.context.put(1, type="a")
        with Runtime(settings) as runtime:
            assert runtime.context.latest("a").content == 1
        with pytest.raises(StateError, match="closed"):
            runtime.context.put(1, type="a")

    def test_nothing_is_made_before_it_is_asked_for(self, tmp_path: Path) -> None:
        path = tmp_path / "context.db"
        runtime = Runtime(Settings(context_path=str(path)))
        runtime.close()
        assert not path.exists()
        with pytest.raises(StateError, match="this runtime is closed"):
            _ = runtime.context

    def test_a_hook_that_could_not_be_called_is_refused(self) -> None:
        class Wrong(Maker):
            def adapt_context(self) -> str:  # type: ignore[override]
                return ""

        with Runtime() as runtime, pytest.raises(ConfigError, match="adapt_context"):
            runtime.registry.register("wrong", Wrong)


@pytest.mark.usefixtures("kernel")
class TestKernels:
    def test_the_kernel_has_one_of_its_own_whoever_asks_first(self) -> None:
        made = all_at_once(8, lambda _: current())
        assert len({id(runtime) for runtime in made}) == 1 and grym.current() is made[0]

    def test_a_closed_one_is_followed_by_a_fresh_one(self) -> None:
        first = current()
        first.registry.register("echo", Echo)
        first.close()
        assert current() is not first and "echo" not in current().registry

    def test_it_works_by_the_settings_that_it_is_given_before_it_is_used(self) -> None:
        met: list[Runtime] = []
        end = on_kernel_runtime(lambda runtime: met.append(runtime) or bool)  # as %load_ext is there already
        own = Settings(memory="4GB", health_seconds=1.0, recovery={"budget": 3})
        mine = current(own)
        assert mine.settings is own and current() is mine and current(replace(own)) is mine
        assert len(met) == 2 and met[0]._closed and met[1] is mine, "who watches the one hears of the other"
        policy = mine.recovery.policy("dsp")
        assert mine.resources.ledger.budgets == {"total": 4 * 10**9} and policy and policy.budget == 3
        grym.register("echo", Echo)
        with pytest.raises(StateError, match="works by other settings") as told:
            current(Settings())
        assert told.value.hint.endswith("grym.current().close()") and current() is mine
        mine.close()
        with pytest.raises(ConfigError, match="cannot be made"):
            current({"memory": "4GB"})  # type: ignore[arg-type]
        assert current(Settings()) is not mine
        end()

    def test_the_short_names_go_to_it(self) -> None:
        handle = grym.register("echo", Echo, ttl=60)
        assert grym.get("echo") is handle is current().registry["echo"]
        assert grym.run("text.echo", "a") == "a"
        assert grym.submit(Task("text.echo", "b")).result(10) == "b"
        with pytest.raises(KeyError, match="Did you mean 'echo'"):
            grym.get("ecko")


def run(source: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=60,
    )


SERVICE = """
    import threading
    import grym_nb as grym

    class Echo(grym.ModelService):
        def unload(self):
            print("unloaded", flush=True)

        @grym.task("text.echo")
        def echo(self, text):
            return text

        @grym.task
        def hang(self, began):
            began.set()
            threading.Event().wait()
"""


def test_the_metrics_outlive_the_kernel_where_a_folder_is_given(tmp_path: Path) -> None:
    settings = Settings(metrics_path=tmp_path / "metrics", metrics_bytes=1_000_000)  # type: ignore[arg-type]
    clock = FakeClock(1000.0)
    with Runtime(settings, clock=clock) as first:
        first.registry.register("echo", Echo).echo()
        for _ in range(90):
            clock.advance(1.0)
            first.history.step()
        assert first.kept is not None
    with Runtime(settings, clock=FakeClock(5.0)) as second:
        assert second.kept is not None
        assert second.kept.window("service.call.seconds", 3600.0, service="echo").count == 1
        assert second.history.window("service.call.seconds", 3600.0, service="echo").count == 0
    with Runtime() as other:
        assert other.kept is None


def test_one_endpoint_is_served_until_another_is_wanted_or_the_runtime_ends() -> None:
    with Runtime() as runtime:
        one = runtime.serve_metrics()
        assert runtime.serve_metrics() is one and runtime.serve_metrics(port=one.port) is one
        other = runtime.serve_metrics(token="mine")
        assert one.closed and not other.closed and other.token == "mine"
    assert other.closed
    with pytest.raises(StateError, match="closed"):
        runtime.serve_metrics()


def test_the_end_of_the_kernel_ends_its_services() -> None:
    done = run(SERVICE + "    print(grym.register('echo', Echo, ttl=9).submit('echo', 'a').result())\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "a\nunloaded\n", "")


def test_a_call_that_hangs_does_not_keep_the_kernel() -> None:
    source = """
    began = threading.Event()
    for name in "abcd":
        grym.register(name, Echo).submit("hang", began)
    began.wait()
    """
    done = run(SERVICE + source)
    assert done.returncode == 0, done.stderr


def test_a_program_that_ends_says_which_calls_it_ends_with_it(tmp_path: Path) -> None:
    """A script that submits and forgets to wait: nothing else would say so."""
    script = tmp_path / "script.py"
    script.write_text(
        "import threading\n"
        "import grym_nb as grym, grym_nb.runtime\n"
        "grym_nb.runtime._LAST_SECONDS = 0.1\n"
        "on = threading.Event()\n"
        "class Slow(grym.ModelService):\n"
        "    @grym.task\n"
        "    def hold(self):\n"
        "        on.set()\n"
        "        threading.Event().wait()\n"
        "grym.register('slow', Slow).hold.submit()\n"
        "assert on.wait(30)\n"
    )
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=True)
    assert "the process ends, and with it 1 call(s) that still run: slow.hold (call " in ended.stderr


class TestTheContextOfTheKernel:
    def test_it_moves_into_a_file_with_all_that_is_in_it(self, tmp_path: Path) -> None:
        path, heard = tmp_path / "context.db", []
        with Runtime() as runtime:
            before = runtime.context
            item = before.put({"bpm": 120}, type="tempo", key="song-1", priority="high", tags=["x"], ttl=None)
            before.watch(lambda event: heard.append(event.item.type))
            store = runtime.open_context(path)
            assert runtime.context is store and before.closed
            for durable in (False, True):
                with pytest.raises(StateError, match=r"is in .*context.db now") as caught:
                    before.put(1, type="x", durable=durable)
                assert "grym.current().context" in caught.value.hint
            assert store.get(item.id) == item
            store.put(1, type="later")
            assert heard == ["later"]  # whoever watched goes on watching, and hears of nothing twice
        with Runtime(Settings(context_path=str(path))) as runtime:
            assert runtime.context.latest("tempo", "song-1").content == {"bpm": 120}
            assert len(runtime.context) == 2

    def test_what_a_file_cannot_keep_leaves_all_as_it_was(self, tmp_path: Path) -> None:
        with Runtime() as runtime:
            runtime.context.put(1, type="good")
            runtime.context.put(object(), type="bad")
            before = runtime.context
            with pytest.raises(ValidationError, match="cannot be kept in a file"):
                runtime.open_context(tmp_path / "context.db")
            assert runtime.context is before and len(before) == 2
            with ContextStore(tmp_path / "context.db") as file:
                assert not len(file)

    def test_what_was_opened_before_anything_was_shared_is_the_one(self, tmp_path: Path) -> None:
        with Runtime() as runtime:
            assert runtime.open_context(tmp_path / "context.db") is runtime.context

    def test_to_open_the_same_file_again_changes_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As a cell that is run again does it; one that was removed is made anew."""
        path = tmp_path / "context.db"
        with Runtime() as runtime:
            store = runtime.open_context(path)
            item = store.put(1, type="a", durable=True)
            assert runtime.open_context(str(path)) is store and not store.closed
            assert runtime.open_context(tmp_path / "." / "context.db") is store
            monkeypatch.setenv("HOME", str(tmp_path))
            assert runtime.open_context("~/context.db") is store
            with pytest.raises(ConfigError):
                runtime.open_context(5)  # type: ignore[arg-type]
            for file in tmp_path.glob("context.db*"):
                file.unlink()
            assert runtime.open_context(path) is not store and store.closed
            assert runtime.context.query() == [item]

    def test_a_file_that_has_the_items_already_has_them_once(self, tmp_path: Path) -> None:
        """The same cell run again; and back and forth between two files."""
        one, two = tmp_path / "one.db", tmp_path / "two.db"
        with Runtime() as runtime:
            item = runtime.context.put(1, type="a")
            for path in (one, one, two, one):
                store = runtime.open_context(path)
                assert store.query() == [item] == store.query(type="a") and store.stats().items == 1

    def test_one_that_somebody_closed_is_made_anew(self) -> None:
        with Runtime() as runtime:
            with runtime.context as context:
                context.put(1, type="a")
            assert not runtime.context.closed
            runtime.context.put(2, type="a")
            assert len(runtime.context) == 1

    def test_ctrl_c_while_it_moves_leaves_the_one_that_has_all(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Before it is written that is the one before; after it, the one in the file."""

        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        with Runtime() as runtime:
            before = runtime.context
            item = before.put(1, type="a")
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(moving._Move, "_go", interrupted)
                runtime.open_context(tmp_path / "one.db")
            assert runtime.context is before and not before.closed
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(moving._Move, "_arrive", interrupted)
                runtime.open_context(tmp_path / "two.db")
            assert before.closed and runtime.context.query() == [item]
            assert runtime.context._storage.path == tmp_path / "two.db"  # type: ignore[attr-defined]

    def test_a_call_asks_the_store_that_took_the_place_of_the_one_it_had(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """For what it is given, and for where its result goes."""

        class Asking(ModelService):
            @task("ask")
            def ask(self, context: list[ContextItem] | None = None) -> list[str]:
                return [item.type for item in context or ()]

        with Runtime() as runtime:
            runtime.registry.register("asking", Asking, ttl=60)
            runtime.context.put(1, type="a")
            paths = [tmp_path / "one.db", tmp_path / "two.db"]
            for name in ("query", "put"):
                real = getattr(ContextStore, name)

                def moved(
                    store: ContextStore, *args: Any, real: Any = real, name: str = name, **said: Any
                ) -> Any:
                    monkeypatch.setattr(ContextStore, name, real)
                    runtime.open_context(paths.pop())
                    return real(store, *args, **said)

                monkeypatch.setattr(ContextStore, name, moved)
                assert "a" in runtime.submit(Task("ask", store_results=True)).result(10)
            assert not paths and len(runtime.context.query(type="ask")) == 2


def test_what_is_measured_first_begins_the_history() -> None:
    for begin in (
        lambda runtime: runtime.metrics.track("mine"),
        lambda runtime: runtime.metrics.counter("mine"),
        lambda runtime: runtime.history,
        lambda runtime: runtime.alerts,
    ):
        with Runtime() as runtime:
            assert runtime._oversight is None
            begin(runtime)
            assert runtime._oversight is not None and runtime._oversight._entries
    with Runtime(Settings(health_seconds=0)) as runtime:
        with runtime.metrics.track("mine"):
            pass
        assert runtime._oversight is None
    runtime.metrics.counter("mine")  # closed: it counts


def test_what_is_measured_after_a_rest_begins_it_anew() -> None:
    clock = FakeClock(100.0)
    with Runtime(clock=clock) as runtime:
        mine, oversight = runtime.metrics.counter("mine"), runtime._watching()
        for _ in range(30):
            clock.advance(5.0)
            mine.add()
            oversight.history.step()
            oversight.step()
        assert oversight._entries, "something is still counted"
        for _ in range(30):
            clock.advance(5.0)
            oversight.history.step()
            oversight.step()
        assert not oversight._entries
        runtime.metrics.track("mine")
        assert oversight._entries
