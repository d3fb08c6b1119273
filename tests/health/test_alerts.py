"""Who is told of what: once, when it has held, and again when it is over."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest

from grym_nb.errors import ConfigError, ValidationError
from grym_nb.events import AlertChanged, EventBus
from grym_nb.health.alerts import Alerts, Notice
from grym_nb.health.channels import as_json, command, log, webhook
from grym_nb.health.rules import Rule
from grym_nb.metrics import Metrics
from grym_nb.metrics.history import History
from grym_nb.testing import FakeClock
from tests.services.crowd import until

LEVEL = Rule("high", "level", above=10.0, clear=8.0, suggest="turn it down")


class House:
    def __init__(self) -> None:
        self.clock = FakeClock(1000.0)
        self.metrics = Metrics()
        self.history = History(self.metrics, clock=self.clock)
        self.events = EventBus()
        self.told: list[str] = []
        self.alerts = Alerts(self.history, clock=self.clock, events=self.events, channels=[self.hear])

    def hear(self, notice: Notice) -> None:
        self.told.append(notice.text)

    def level(self, value: float, seconds: int = 1, **tags: str) -> None:
        self.metrics.gauge("level", **tags).set(value)
        self.wait(seconds)

    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance(1.0)
            self.history.step()
            self.alerts.step()


@pytest.fixture
def house() -> House:
    return House()


def test_it_fires_once_and_is_over_once_beyond_where_it_clears(house: House) -> None:
    house.alerts.add(LEVEL)
    heard: list[str] = []
    house.events.subscribe(lambda event: heard.append(event.alert.state), AlertChanged)
    for value in (9.0, 11.0, 12.0, 9.0, 11.0, 7.0, 9.0):
        house.level(value)
    assert house.told == [
        "the kernel: high (warning): 11, above 10 → turn it down",
        "the kernel: high is over, after 4 s",
    ]
    assert heard == ["firing", "over"] and house.alerts.active == ()
    assert [alert.state for alert in house.alerts.story] == ["firing", "over"]


def test_it_has_to_hold_and_to_be_over_for_a_while(house: House) -> None:
    house.alerts.add(Rule("high", "level", above=10.0, for_seconds=5.0, clear_seconds=3.0))
    house.level(11.0, 4)
    house.level(9.0, 1)
    house.level(11.0, 5)
    assert house.told == []
    house.level(11.0, 1)
    assert house.told == ["the kernel: high (warning): 11, above 10, for 5 s"]
    house.level(9.0, 2)
    house.level(11.0, 1)
    house.level(9.0, 3)
    assert len(house.told) == 1
    house.level(9.0, 1)
    assert len(house.told) == 2


def test_each_group_fires_by_itself_and_those_that_begin_together_are_told_together(house: House) -> None:
    house.alerts.add(Rule("high", "level", above=10.0, by=("service",), severity="critical"))
    for name, value in (("a", 11.0), ("b", 5.0), ("c", 12.0)):
        house.metrics.gauge("level", service=name).set(value)
    house.wait(1)
    assert house.told == ["a: high (critical): 11, above 10\nc: high (critical): 12, above 10"]
    assert [alert.subject for alert in house.alerts.active] == ["a", "c"]
    house.metrics.drop(service="a")
    house.wait(1)
    assert house.told[-1] == "a: high is over, after 1 s", "what it was about is gone"


@pytest.mark.parametrize(
    ("rule", "quiet", "loud"),
    [
        (Rule("low", "level", below=2.0), 3.0, 1.0),
        (Rule("fast", "calls", figure="rate", above=1.5, window=10.0), 1, 3),
        (Rule("slow", "seconds", figure="p95", above=0.5, window=10.0), 0.1, 0.9),
        (
            Rule("own", lambda history, now: {(): history.window("level", 1.0).last or 0.0}, above=5.0),
            4.0,
            6.0,
        ),
    ],
)
def test_any_figure_can_be_watched(house: House, rule: Rule, quiet: float, loud: float) -> None:
    house.alerts.add(rule)

    def go(value: float) -> None:
        for _ in range(12):
            house.metrics.counter("calls").add(value)
            house.metrics.histogram("seconds").record(value)
            house.level(value)

    go(quiet)
    assert house.told == []
    go(loud)
    assert len(house.told) == 1 and rule.name in house.told[0]


def test_absence_is_noticed_where_there_was_something(house: House) -> None:
    house.alerts.add(Rule("silent", "calls", absent=30.0))
    house.wait(60)
    assert house.told == []
    house.metrics.counter("calls").add()
    house.wait(30)
    assert house.told == []
    house.wait(1)
    assert house.told == ["the kernel: silent (warning): nothing for 30 s"]
    house.metrics.counter("calls").add()
    house.wait(1)
    assert house.told[-1] == "the kernel: silent is over, after 1 s"


def test_a_limit_that_is_ahead_is_told_before_it_is_reached(house: House) -> None:
    house.alerts.add(Rule("ahead", "level", above=100.0, within=120.0, window=60.0, clear_seconds=30.0))
    for n in range(50):
        house.level(10.0 + 0.5 * n)
    assert house.told == []
    for n in range(50, 90):
        house.level(10.0 + 0.5 * n)
    assert len(house.told) == 1 and "100 in about" in house.told[0]


def test_what_is_silenced_shows_and_is_not_told(house: House) -> None:
    house.alerts.add(Rule("high", "level", above=10.0, by=("service",)))
    house.alerts.silence(60.0, rule="high", service="a", why="I know")
    end = house.alerts.silence(1000.0, why="all of it")
    house.level(11.0, service="a")
    assert house.told == [] and [alert.subject for alert in house.alerts.active] == ["a"]
    end()
    assert [silence.why for silence in house.alerts.silences] == ["I know"]
    house.wait(30)
    assert house.told == []
    house.wait(40)
    assert house.told == ["a: high (warning): 11, above 10, for 59 s"] and house.alerts.silences == ()


def test_what_follows_from_something_worse_is_not_told(house: House) -> None:
    house.alerts.add(Rule("down", "down", above=0.5, by=("service",), severity="critical"))
    house.alerts.add(Rule("high", "level", above=10.0, by=("service",), inhibited_by=("down",)))
    house.metrics.gauge("down", service="a").set(1)
    house.metrics.gauge("level", service="b").set(11)
    house.level(11.0, service="a")
    assert [text.split(" (")[0] for text in house.told] == ["a: down", "b: high"]
    house.metrics.gauge("down", service="a").set(0)
    house.wait(2)
    assert [text.split(" (")[0] for text in house.told][2:] == ["a: down is over, after 1 s", "a: high"]


def test_a_rule_that_cannot_be_evaluated_is_said_once_and_disturbs_no_other(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(history: History, now: float) -> Any:
        raise KeyError("what")

    house.alerts.add(Rule("broken", broken, above=1.0))
    house.alerts.add(LEVEL)
    house.level(11.0, 3)
    assert len(house.told) == 1
    assert [m for m in caplog.messages if "broken cannot be evaluated: KeyError" in m] == caplog.messages


def test_a_channel_that_raises_is_told_no_more(house: House, caplog: pytest.LogCaptureFixture) -> None:
    asked = []

    def broken(notice: Notice) -> None:
        asked.append(notice)
        raise OSError("nobody there")

    house.alerts.tell(broken)
    end = house.alerts.tell(log)
    house.alerts.add(LEVEL)
    with caplog.at_level("INFO", logger="grym_nb.alerts"):
        house.level(11.0)
        end()
        house.level(5.0)
    assert len(asked) == 1 and len(house.told) == 2
    assert "the kernel: high (warning): 11, above 10 → turn it down" in caplog.messages


def test_rules_come_and_go_and_wrong_names_are_told(house: House) -> None:
    house.alerts.add(LEVEL)
    house.level(11.0)
    house.alerts.add(Rule("high", "level", above=20.0))
    house.wait(1)
    assert house.told[-1].startswith("the kernel: high is over")
    house.alerts.remove("high")
    assert house.alerts.rules == () and repr(house.alerts) == "alerts: nothing fires"
    for wrong in (
        lambda: house.alerts.remove("hihg"),
        lambda: house.alerts.silence(5.0, rule="hihg"),
        lambda: house.alerts.silence(0.0),
    ):
        with pytest.raises(ValidationError):
            wrong()
    with pytest.raises(ConfigError, match="only rules can be followed"):
        house.alerts.add("high")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"above": 1.0, "below": 2.0},
        {"above": 1.0, "absent": 5.0},
        {"above": 1.0, "clear": 2.0},
        {"above": float("nan")},
        {"above": 1.0, "figure": "p96"},
        {"above": 1.0, "severity": "dire"},
        {"above": 1.0, "window": 0.0},
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="this is no rule"):
        Rule("high", "level", **wrong)


def test_the_table_has_the_gravest_first_with_what_to_do(house: House) -> None:
    house.alerts.add(LEVEL)
    house.alerts.add(Rule("worse", "level", above=10.0, severity="critical"))
    house.level(11.0, 3)
    assert [alert.rule for alert in house.alerts.active] == ["worse", "high"]
    assert "turn it down" in repr(house.alerts) and "<table" in house.alerts._repr_html_()


# -- channels --------------------------------------------------------------------------------------


class Desk(BaseHTTPRequestHandler):
    """Takes what is posted; answers as it is told."""

    posted: ClassVar[list[tuple[str, dict[str, Any]]]] = []
    answer = 200

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.posted.append((self.headers.get("Authorization", ""), json.loads(body)))
        self.send_response(self.answer)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def desk() -> Iterator[str]:
    Desk.posted, Desk.answer = [], 200
    server = HTTPServer(("127.0.0.1", 0), Desk)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook"
    server.shutdown()
    thread.join()
    server.server_close()


def at_once(job: Any, *, name: str) -> None:
    job()


@pytest.fixture
def notice(house: House) -> Notice:
    found: list[Notice] = []
    house.alerts.tell(found.append)
    house.alerts.add(LEVEL)
    house.level(11.0)
    return found[0]


def test_a_webhook_is_posted_what_fires_as_json(desk: str, notice: Notice) -> None:
    webhook(desk, work=at_once, token="abc")(notice)
    [(token, told)] = Desk.posted
    assert token == "Bearer abc" and told == json.loads(as_json(notice))
    assert told["alerts"][0]["figure"] == 11.0 and told["alerts"][0]["suggestion"] == "turn it down"


def test_what_cannot_be_delivered_is_logged_and_no_more(
    desk: str, notice: Notice, caplog: pytest.LogCaptureFixture
) -> None:
    Desk.answer = 500
    webhook(desk, work=at_once)(notice)
    webhook("http://127.0.0.1:1/none", work=at_once, timeout=1.0)(notice)
    command(["/no/such/program"], work=at_once)(notice)
    command([sys.executable, "-c", "import sys; sys.exit('not today')"], work=at_once)(notice)
    command([sys.executable, "-c", "import threading; threading.Event().wait()"], work=at_once, timeout=0.2)(
        notice
    )
    told = "\n".join(caplog.messages)
    assert len(caplog.messages) == 5
    for word in ("500", "127.0.0.1", "/no/such/program", "not today", "timed out"):
        assert word in told


def test_a_command_reads_what_fires_and_no_shell_sees_it(notice: Notice, tmp_path: Any) -> None:
    file = tmp_path / "told; rm -rf ~"
    program = f"import sys; open({str(file)!r}, 'w').write(sys.stdin.read())"
    command([sys.executable, "-c", program], work=at_once)(notice)
    assert json.loads(file.read_text()) == json.loads(as_json(notice))


def test_channels_wait_for_nobody(desk: str, notice: Notice) -> None:
    from grym_nb.services.ports import Ports

    ports = Ports()
    webhook(desk, work=ports.pulse.work)(notice)
    until(lambda: bool(Desk.posted))
    assert ports.close() == ()


@pytest.mark.parametrize("wrong", ["", "ftp://x", "file:///etc/passwd", "http://", 5])
def test_only_the_web_can_be_posted_to(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="nothing can be posted there"):
        webhook(wrong, work=at_once)


@pytest.mark.parametrize("wrong", ["rm -rf", [], [""], [5], None])
def test_only_a_list_of_texts_is_a_command(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="no program can be run so"):
        command(wrong, work=at_once)
