"""Panels without a browser: what a look finds, what views make of it, how it looks as text and as HTML."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from html.parser import HTMLParser
from typing import Any

import pytest

from grym_nb.errors import TaskFailed
from grym_nb.notebook.panels import VIEWS, Charted, Doing, Snapshot, sheet_of, take
from grym_nb.runtime import Runtime
from grym_nb.services import ModelService, task
from grym_nb.services.progress import track
from grym_nb.settings import Settings
from grym_nb.testing import FakeClock

EVIL = "<script>alert('x')</script>\"&"


class Echo(ModelService):
    """Answers what it is given."""

    @task
    def say(self, x: int = 1) -> int:
        if x < 0:
            raise ValueError(f"not below nought {EVIL}")
        return x

    @task
    def steps(self, begun: threading.Event, go_on: threading.Event) -> int:
        done = 0
        for done in track(range(4)):
            if done == 2:
                begun.set()
                go_on.wait()
        return done


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000_000.0)


@pytest.fixture
def runtime(clock: FakeClock) -> Iterator[Runtime]:
    with Runtime(Settings(health_seconds=0), clock=clock) as own:
        for name in own.registry:
            own.registry.remove(name)
        own.registry.register("echo", Echo, memory="20MB")
        yield own


def views(snapshot: Snapshot) -> dict[str, dict[str, Any]]:
    return {name: view(snapshot) for name, view in VIEWS.items()}


def service(snapshot: Snapshot) -> dict[str, Any]:
    [row] = VIEWS["services"](snapshot)["rows"]
    return row


# -- the look --------------------------------------------------------------------------------------


def test_a_service_that_is_only_registered_can_be_loaded_and_nothing_else(runtime: Runtime) -> None:
    """The whole row, as it goes to the page."""
    snapshot = take(runtime)
    row = service(snapshot)
    assert row.pop("since") == pytest.approx(snapshot.now)
    assert row == {
        "id": "echo",
        "version": "v1",
        "state": "registered",
        "health": "unknown",
        "why": "",
        "refuses": "",
        "calls": 0,
        "failed": 0,
        "running": 0,
        "waiting": 0,
        "p50": None,
        "p95": None,
        "memory": 20_000_000,
        "held": False,
        "parked": False,
        "devices": [],
        "tasks": ["say", "steps"],
        "needs": [],
        "engine": "inline",
        "loads": 0,
        "expects": None,
        "error": "",
        "actions": ["load"],
        "doing": None,
    }
    assert runtime.registry["echo"].state == "registered", "looking loads nothing"


def test_views_are_plain_data_and_equal_as_long_as_nothing_happens(
    runtime: Runtime, clock: FakeClock
) -> None:
    """So that nothing is sent at rest: no view holds the present moment."""
    runtime.registry["echo"].say(1)
    first = take(runtime)
    assert json.loads(json.dumps(views(first))) == views(first)
    clock.advance(0.4)
    second = take(runtime, before=first)
    assert second.now == pytest.approx(first.now + 0.4)
    assert views(second) == views(first)


def test_what_happens_shows_in_the_next_look(runtime: Runtime, clock: FakeClock) -> None:
    """State, calls, failures, what can be done, and the log with all that is known of an error."""
    echo, before = runtime.registry["echo"], take(runtime)
    echo.say(1)
    with suppress(TaskFailed):
        echo.say(-1)
    clock.advance(2.0)
    after = take(runtime, before=before)
    row = service(after)
    assert (row["state"], row["calls"], row["failed"]) == ("ready", 2, 1)
    assert row["actions"] == ["reload", "unload"]
    log = VIEWS["log"](after)["rows"]
    told = {(line["level"], line["text"].split(":")[0]) for line in log}
    assert {("good", "loading → ready"), ("info", "registered → loading")} <= told
    [error] = [line for line in log if line["level"] == "error"]
    assert error["service"] == "echo" and "not below nought" in error["why"]
    assert len({line["id"] for line in log}) == len(log)
    ended = VIEWS["calls"](after)["ended"]
    assert [(one["task"], one["outcome"]) for one in ended] == [
        ("echo.say", "task.failed"),
        ("echo.say", "ok"),
    ]


def test_a_call_under_way_tells_how_far_it_is(runtime: Runtime) -> None:
    """Progress, and whether it was asked to stop; the rest a page works out by itself."""
    echo = runtime.registry["echo"]
    begun, go_on = threading.Event(), threading.Event()
    call = echo.steps.submit(begun, go_on)
    assert begun.wait(20)
    [row] = VIEWS["calls"](take(runtime))["rows"]
    assert (row["task"], row["service"], row["done"], row["total"]) == ("echo.steps", "echo", 2, 4)
    assert (row["waits"], row["cancelled"]) == (False, False)
    call.cancel()
    [row] = VIEWS["calls"](take(runtime))["rows"]
    assert row["cancelled"] is True
    go_on.set()
    assert call.exception() is not None
    assert VIEWS["calls"](take(runtime))["rows"] == []


def test_charts_hold_only_where_something_came(runtime: Runtime, clock: FakeClock) -> None:
    """A quiet time is no point, and a rate falls to nought after the last call."""
    runtime.history.step()  # from here on it is remembered
    echo = runtime.registry["echo"]
    first = take(runtime, charted=Charted("echo", 60.0))
    assert first.charts.series["p95"] == ()
    echo.say(1)
    with suppress(TaskFailed):
        echo.say(-1)
    for _ in range(5):
        clock.advance(1.0)
        runtime.history.step()
    series = take(runtime, charted=Charted("echo", 60.0), before=first).charts.series
    assert len(series["p95"]) == 1
    assert [value for _, value in series["rate"]] == [2.0, 0.0]
    assert [value for _, value in series["failed"]] == [1.0, 0.0]
    other = take(runtime, charted=Charted("nobody", 60.0), before=first).charts
    assert (other.charted, set(other.series.values())) == (Charted("nobody", 60.0), {()})


def test_what_was_asked_for_shows_beside_the_service_and_its_failure_in_the_log(runtime: Runtime) -> None:
    """While it is under way nothing else can be asked for."""
    running = take(runtime, doings=[Doing("echo", "load", "running", 5.0)])
    assert (service(running)["doing"]["state"], service(running)["actions"]) == ("running", [])
    failed = take(runtime, doings=[Doing("echo", "load", "failed", 5.0, "no room", "all of it")])
    row = service(failed)
    assert row["doing"] == {"what": "load", "state": "failed", "at": 5.0, "told": "no room"}
    assert row["actions"] == ["load"]
    [line] = VIEWS["log"](failed)["rows"]
    assert (line["text"], line["why"], line["level"]) == ("load: no room", "all of it", "error")


def test_one_that_was_edited_can_go_back(runtime: Runtime) -> None:
    """There is a version before."""
    runtime.registry["echo"].load()
    assert "rollback" not in service(take(runtime))["actions"]

    class Echo(ModelService):
        @task
        def say(self, x: int = 1) -> int:
            return -x

    runtime.registry.register("echo", Echo, memory="20MB")
    row = service(take(runtime))
    assert (row["version"], row["actions"]) == ("v2", ["reload", "rollback", "unload"])


def test_the_health_of_a_service_is_spans_of_time(runtime: Runtime, clock: FakeClock) -> None:
    """From the first verdict on."""
    runtime.registry["echo"].load()
    clock.advance(1.0)
    runtime.health.step()
    view = VIEWS["health"](take(runtime))
    [row] = view["rows"]
    [[_, verdict, _]] = row["spans"]
    assert (row["id"], verdict, view["verdict"]) == ("echo", "healthy", "healthy")


def test_free_memory_that_trembles_is_as_it_was(runtime: Runtime, clock: FakeClock) -> None:
    """At rest nothing moves; a change that can be seen does."""
    first = take(runtime)
    cpu = first.accounts.devices[0]
    assert cpu.total and cpu.free
    clock.advance(5.0)
    again = take(runtime, before=first)
    assert again.looked_at > first.looked_at
    if abs((runtime.resources.books().devices[0].free or 0) - cpu.free) < cpu.total // 200:
        assert again.accounts.devices[0].free == cpu.free
    assert VIEWS["memory"](again)["used"] >= 0


def test_a_level_that_stays_is_no_news_also_when_its_window_is_over(
    runtime: Runtime, clock: FakeClock
) -> None:
    """Its first point goes out of the window, and stands for what was before it."""
    runtime.metrics.gauge("service.memory.bytes", service="echo").set(8e6)
    charted, before, levels = Charted("echo", 60.0), None, []
    for _ in range(90):
        clock.advance(1.1)
        before = take(runtime, charted=charted, before=before)
        levels.append(before.charts.series["memory"])
    assert before is not None and levels[80] and levels[80] == levels[-1]
    assert VIEWS["metrics"](before)["series"]["memory"][0][0] < before.now - 60.0


# -- where nothing moves ---------------------------------------------------------------------------


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)


def test_all_panels_as_text_and_as_html_hold_what_they_show(runtime: Runtime, clock: FakeClock) -> None:
    """Only tags that sanitizers keep, and no more than a notebook's file can take."""
    echo = runtime.registry["echo"]
    runtime.history.step()
    echo.say(1)
    for _ in range(3):
        clock.advance(1.0)
        runtime.health.step()
    snapshot = take(runtime, charted=Charted(None, 60.0))
    sheet = sheet_of(views(snapshot), snapshot.now)
    text = sheet.text()
    for word in (
        "Services, all together healthy",
        "Metrics of all services",
        "Memory",
        "Calls under way",
        "Log",
    ):
        assert word in text
    assert "echo     ready  healthy  v1" in text
    html = sheet._repr_html_()
    parser = _Tags()
    parser.feed(html)
    assert parser.tags <= set("p b table caption thead tbody tr th td meter img pre".split())
    assert len(html.encode()) < 20_000


def test_nothing_of_what_users_name_is_markup(runtime: Runtime) -> None:
    """Names, errors and reasons: markup and 200 characters do no harm."""
    runtime.registry.register(EVIL, Echo)
    runtime.registry.register("n" * 200, Echo)
    with suppress(TaskFailed):
        runtime.registry[EVIL].say(-1)
    snapshot = take(runtime, charted=Charted(EVIL), doings=[Doing(EVIL, EVIL, "failed", 5.0, EVIL, EVIL)])
    html = sheet_of(views(snapshot), snapshot.now)._repr_html_()
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;&quot;&amp;") >= 4


def test_hundreds_of_services_fit(runtime: Runtime) -> None:
    """The repr is cut, `text()` has all of it."""
    for number in range(300):
        runtime.registry.register(f"service {number}", Echo)
    snapshot = take(runtime)
    sheet = sheet_of(views(snapshot), snapshot.now)
    assert "service 299" in sheet.text()
    assert len(sheet._repr_html_().encode()) < 20_000


def test_nothing_at_all_is_said_in_words(runtime: Runtime) -> None:
    """An empty runtime has no empty tables."""
    runtime.registry.remove("echo")
    snapshot = take(runtime)
    text = sheet_of(views(snapshot), snapshot.now).text()
    for words in ("nothing is registered yet", "no calls in this time", "Calls under way: none"):
        assert words in text
