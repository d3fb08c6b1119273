"""Where alerts go: what is delivered, what is not, and who waits for it: nobody."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from grym_nb.errors import ConfigError, StateError
from grym_nb.health.alerts import Alerts
from grym_nb.health.channels import as_json, command, webhook
from grym_nb.health.listeners import Listener
from grym_nb.health.notices import Notice
from grym_nb.testing import FakeClock
from tests.health.test_alerts import LEVEL, House
from tests.services.crowd import until


@pytest.fixture
def house() -> House:
    return House()


class Desk(BaseHTTPRequestHandler):
    """Takes what is posted; answers as it is told."""

    posted: ClassVar[list[tuple[str, dict[str, Any]]]] = []
    answer = 200
    location = ""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.posted.append((self.headers.get("Authorization", ""), json.loads(body)))
        self.send_response(self.answer)
        self.send_header("Content-Length", "0")
        self.send_header("Location", self.location)
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


@pytest.fixture
def notice(house: House) -> Notice:
    found: list[Notice] = []
    house.alerts.tell(found.append)
    house.alerts.add(LEVEL)
    house.level(11.0)
    return found[0]


def test_a_webhook_is_posted_what_fires_as_json(desk: str, notice: Notice) -> None:
    webhook(desk, token="abc")(notice)
    [(token, told)] = Desk.posted
    assert token == "Bearer abc" and told == json.loads(as_json(notice))
    assert told["alerts"][0]["figure"] == 11.0 and told["alerts"][0]["suggestion"] == "turn it down"


def test_what_cannot_be_delivered_is_logged_and_no_more(
    desk: str, notice: Notice, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    program = tmp_path / "program"
    program.touch(0o700)
    went = command([str(program)])
    program.unlink()
    Desk.answer = 500
    webhook(desk)(notice)
    webhook("http://127.0.0.1:1/none", timeout=1.0)(notice)
    went(notice)
    command([sys.executable, "-c", "import sys; sys.exit('not today')"])(notice)
    command([sys.executable, "-c", "import threading; threading.Event().wait()"], timeout=0.2)(notice)
    told = "\n".join(caplog.messages)
    assert len(caplog.messages) == 5
    for word in ("500", "127.0.0.1", str(program), "not today", "timed out"):
        assert word in told


def test_a_command_reads_what_fires_and_no_shell_sees_it(notice: Notice, tmp_path: Any) -> None:
    file = tmp_path / "told; rm -rf ~"
    program = f"import sys; open({str(file)!r}, 'w').write(sys.stdin.read())"
    command([sys.executable, "-c", program])(notice)
    assert json.loads(file.read_text()) == json.loads(as_json(notice))


def test_a_program_that_is_ended_leaves_nothing_behind(
    notice: Notice, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What it has begun is ended as well: nobody holds the pipe any more."""
    os.mkfifo(pipe := tmp_path / "pipe")
    held = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    def is_held() -> bool:
        try:
            return bool(os.read(held, 1))
        except BlockingIOError:
            return True

    try:
        command(["sh", "-c", f"sleep 600 > '{pipe}'; true"], timeout=1.0)(notice)
        until(lambda: not is_held())
    finally:
        os.close(held)
    assert "timed out" in caplog.text


@pytest.mark.parametrize("ends", ["exit 0", "echo not today >&2; exit 4"])
def test_what_a_program_leaves_running_keeps_nobody_waiting(
    notice: Notice, tmp_path: Path, caplog: pytest.LogCaptureFixture, ends: str
) -> None:
    begun = tmp_path / "begun"
    try:
        command(["sh", "-c", f"sleep 600 & echo $! > '{begun}'; {ends}"], timeout=30.0)(notice)
        os.kill(int(begun.read_text()), 0)  # it is there
    finally:
        os.kill(int(begun.read_text()), signal.SIGKILL)
    assert caplog.messages == ([] if ends == "exit 0" else ["sh ended with 4 on an alert: not today"])


def test_a_program_is_told_also_where_the_disk_is_full(
    notice: Notice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("grym_nb.health.channels.TemporaryFile", full)
    file = tmp_path / "told"
    command(["sh", "-c", f"cat > '{file}'; exit 4"])(notice)
    assert json.loads(file.read_text()) == json.loads(as_json(notice))
    assert caplog.messages == ["sh ended with 4 on an alert: "]


def test_a_redirect_is_not_followed_and_nobody_else_sees_the_token(
    desk: str, notice: Notice, caplog: pytest.LogCaptureFixture
) -> None:
    Desk.answer, Desk.location = 302, desk.replace("127.0.0.1", "localhost")
    webhook(desk, token="abc")(notice)
    assert len(Desk.posted) == 1 and "302" in caplog.text


def answering(*parts: bytes, pause: float = 0.0) -> int:
    """Return the port of a server that answers one request with this, a part at a time."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as client, suppress(OSError):
            client.recv(65536)
            for part in parts:
                client.sendall(part)
                threading.Event().wait(pause)
            client.shutdown(socket.SHUT_WR)  # closed at once, the answer might be lost with what is unread
            while client.recv(65536):
                pass

    threading.Thread(target=serve, daemon=True).start()
    port: int = listener.getsockname()[1]
    return port


def test_what_is_no_answer_is_logged(notice: Notice, caplog: pytest.LogCaptureFixture) -> None:
    webhook(f"http://127.0.0.1:{answering(b'hello')}/")(notice)
    assert re.search(r"an alert could not be posted to 127\.0\.0\.1:\d+/: hello", caplog.text)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://127.0.0.1:{}/hook?key=abc", "127.0.0.1:{}/hook: "),
        ("http://127.0.0.1:{}/services/T0/Zz8kLmN4pQrStUvWxYz012#x", "127.0.0.1:{}/services/T0/…: "),
        ("http://127.0.0.1:{}", "127.0.0.1:{}: "),
    ],
)
def test_it_is_told_where_nothing_could_be_posted_and_no_secret(
    notice: Notice, caplog: pytest.LogCaptureFixture, url: str, told: str
) -> None:
    port = answering(b"hello")
    webhook(url.format(port))(notice)
    assert caplog.messages == [f"an alert could not be posted to {told.format(port)}hello"]


def test_a_server_that_drips_is_left_in_time(notice: Notice, caplog: pytest.LogCaptureFixture) -> None:
    port = answering(b"HTTP/1.1 200 OK\r\n", *[b"X: 1\r\n"] * 100, pause=0.1)
    webhook(f"http://127.0.0.1:{port}/", timeout=0.4)(notice)
    assert "no answer within 0.4 s" in caplog.text


def test_channels_wait_for_nobody_and_nobody_for_them(caplog: pytest.LogCaptureFixture) -> None:
    from grym_nb.services.ports import Ports

    ports, house, hang, heard = Ports(), House(), threading.Event(), []
    alerts = Alerts(house.history, [LEVEL], clock=house.clock, work=ports.pulse.work)
    alerts.tell(lambda notice: hang.wait(30.0))
    alerts.tell(lambda notice: heard.append((notice.alerts[0].state, threading.current_thread().name)))
    for value in (11.0, 7.0):
        house.metrics.gauge("level").set(value)
        house.clock.advance(1.0)
        for _ in alerts.steps():
            pass
    until(lambda: len(heard) == 2)
    assert [state for state, _ in heard] == ["firing", "over"]
    assert all(name.startswith("grym-work") for _, name in heard)
    hang.set()
    until(lambda: not ports.pulse._running)
    assert ports.close() == ()


def test_who_asks_for_a_step_sees_what_was_told() -> None:
    from grym_nb.services.ports import Ports

    ports, house, heard = Ports(), House(), []
    alerts = Alerts(house.history, [LEVEL], clock=house.clock, work=ports.pulse.work)
    end = alerts.tell(heard.append)
    house.metrics.gauge("level").set(11.0)
    house.clock.advance(1.0)
    alerts.step()
    assert len(heard) == 1
    end()
    ports.close()
    alerts.remove("high")
    alerts.step()
    assert len(heard) == 1


def test_a_cell_that_is_run_again_tells_nobody_twice() -> None:
    """It makes its functions anew: a name stands for the last, one without for what it does and holds."""
    house = House()
    alerts = Alerts(house.history, [LEVEL], clock=house.clock)
    names: dict[str, Any] = {"__name__": "__main__", "alerts": alerts, "told": [], "webhook": webhook}
    for times in (1, 2):
        cell = f"def named(notice): told.append('named, {times}')\nalerts.tell(named)"
        exec(cell, names)
        exec("alerts.tell(lambda notice: told.append('one'))", names)
        exec("alerts.tell(lambda notice: told.append('another'))", names)
        for url in ("http://127.0.0.1:9/a", "http://127.0.0.1:9/b"):
            exec(f"alerts.tell(webhook({url!r}))", names)
        alerts.tell(names["told"].append)
    assert len(alerts._listeners) == 6
    house.metrics.gauge("level").set(11.0)
    house.clock.advance(1.0)
    alerts.step()
    told = names["told"]
    assert [one for one in told if isinstance(one, str)] == ["named, 2", "one", "another"] and len(told) == 4


_CHANNELS = """
class Pager:
    def __init__(self, to): self.to = to
    def __call__(self, notice): told.append(self.to)
    def page(self, notice): told.append("page " + self.to)
class Inbox:
    def __init__(self): self.got = []
    def __call__(self, notice): self.got.append(notice)
class Last(deque):
    def __call__(self, notice): told.append("last")
def send(to, notice, *, loud=False): told.append(to + "!" * loud)
"""
_TOLD = """
alerts.tell(partial(send, "a"))
alerts.tell(partial(send, "b"))
alerts.tell(partial(send, "b", loud=True))
for to in ("c", "d"):
    alerts.tell(Pager(to))
    alerts.tell(Pager(to).page)
"""


@pytest.mark.parametrize("again", ["all of it", "what tells"])
def test_what_a_cell_makes_of_its_functions_and_classes_is_told_once(again: str) -> None:
    house = House()
    alerts = Alerts(house.history, [LEVEL], clock=house.clock)
    names: dict[str, Any] = {"__name__": "__main__", "alerts": alerts, "told": []}
    names |= {"partial": partial, "deque": deque}
    for _ in range(3):
        if again == "all of it" or "Pager" not in names:
            exec(_CHANNELS, names)
        exec(_TOLD, names)
    house.metrics.gauge("level").set(11.0)
    house.clock.advance(1.0)
    alerts.step()
    assert names["told"] == ["a", "b", "b!", "c", "page c", "d", "page d"]


def test_what_only_looks_the_same_is_told_each_for_itself() -> None:
    """Of those that gather something, or hold what nobody sees, somebody may look at each."""
    house = House()
    alerts = Alerts(house.history, clock=house.clock)
    names: dict[str, Any] = {"deque": deque, "told": []}
    exec(_CHANNELS, names)
    lists: list[list[Any]] = [[], []]
    pairs: list[tuple[Any, Any]] = [
        (names["Inbox"](), names["Inbox"]()),
        (names["Inbox"]().__call__, names["Inbox"]().__call__),
        (names["Last"]([1]), names["Last"]([2])),
        (lists[0].append, lists[1].append),
        (partial(lists[0].insert, 0), partial(lists[1].insert, 0)),
        (partial(names["send"], lists[0]), partial(names["send"], lists[1])),
        (partial(names["send"], "a"), partial(print, "a")),
    ]
    for pair in pairs:
        for one in pair:
            alerts.tell(one)
            alerts.tell(one)
    assert [listener.channel for listener in alerts._listeners] == [one for pair in pairs for one in pair]


def test_who_hangs_loses_the_oldest_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    jobs: list[Any] = []
    heard: list[int] = []
    works: list[str] = []

    def work(job: Any, name: str, **_: Any) -> None:
        jobs.append(job)
        works.append(name)

    listener = Listener(partial(heard.append), work, clock=FakeClock())
    for n in range(105):
        listener.hand(n)
    assert len(jobs) == 1 and works == ["the channel list.append"]
    assert caplog.messages == ["the channel list.append does not come back: the oldest alerts are lost to it"]
    jobs[0]()
    assert heard == list(range(5, 105))
    listener.hand(105)
    assert len(jobs) == 2


@pytest.mark.parametrize("stop", [KeyboardInterrupt, StateError("the pulse is closed")])
def test_who_could_not_be_told_is_told_the_next_time(stop: Any) -> None:
    heard: list[int] = []
    stops = [stop]

    def work(job: Any, **_: Any) -> None:
        for one in iter(lambda: stops.pop() if stops else None, None):
            raise one
        job()

    listener = Listener(heard.append, work, clock=FakeClock())
    with suppress(KeyboardInterrupt):
        listener.hand(1)
    listener.hand(2)
    assert heard == [1, 2]


@pytest.mark.parametrize("wrong", [5, None, "http://here"])
def test_only_a_function_is_told(house: House, wrong: Any) -> None:
    with pytest.raises(ConfigError, match="only a function can be told") as caught:
        house.alerts.tell(wrong)
    assert "webhook(url)" in caught.value.hint


@pytest.mark.parametrize("channel", [lambda: None, lambda notice, more: None])
def test_what_takes_no_notice_is_refused_at_once(house: House, channel: Any) -> None:
    with pytest.raises(ConfigError, match="it could not be called with what there is to tell") as caught:
        house.alerts.tell(channel)
    assert "def told(notice)" in str(caught.value.problems)


async def _later(notice: Notice) -> None: ...


async def _by_parts(notice: Notice) -> AsyncIterator[None]:
    yield


def _in_parts(notice: Notice) -> Iterator[None]:
    yield


class _Async:
    async def __call__(self, notice: Notice) -> None: ...
    async def page(self, notice: Notice) -> None: ...


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (_later, "_later, an async function"),
        (_by_parts, "_by_parts, an async function"),
        (_in_parts, "_in_parts, a generator"),
        (partial(partial(_later)), "_later, an async function"),
        (_Async(), "_Async, an async function"),
        (_Async().page, "_Async.page, an async function"),
    ],
)
def test_what_nobody_would_run_is_refused_where_it_is_given(house: House, wrong: Any, told: str) -> None:
    with pytest.raises(ConfigError, match="only what runs when it is called can be told") as caught:
        house.alerts.tell(wrong)
    assert told in str(caught.value) and "a plain def" in caught.value.hint


@pytest.mark.parametrize("wrong", ["5", 0, -1, True, float("nan")])
def test_a_wrong_seconds(wrong: Any) -> None:
    for made in (lambda: webhook("http://here", timeout=wrong), lambda: command(["true"], timeout=wrong)):
        with pytest.raises(ConfigError, match="nobody can be told so"):
            made()


def test_what_json_has_no_number_for_is_a_text(house: House) -> None:
    found: list[Notice] = []
    house.alerts.tell(found.append)
    house.alerts.add(LEVEL)
    house.level(float("inf"))
    assert json.loads(as_json(found[0]))["alerts"][0]["figure"] == "inf"


@pytest.mark.parametrize(
    "wrong",
    [
        "http://x:99999/",
        "http://x:0/",
        "http://x:a/",
        "http://x y/",
        "http://x/\n",
        "http://[::1/",
        "http://me:secret@here/",
        "http://",
    ],
)
def test_where_nothing_can_be_posted_is_refused_at_once(wrong: str) -> None:
    with pytest.raises(ConfigError, match="nothing can be posted there"):
        webhook(wrong)


@pytest.mark.parametrize("wrong", ["a\nb", "", "a b", "é", 5])
def test_a_token_that_no_header_can_hold_is_refused_at_once(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="nothing can be posted so") as caught:
        webhook("http://here", token=wrong)
    assert repr(wrong) not in str(caught.value)


def test_a_program_that_there_is_not_is_refused_at_once(tmp_path: Path) -> None:
    for wrong in ("no-such-program", str(tmp_path / "none"), str(tmp_path)):
        with pytest.raises(ConfigError, match="there is no program"):
            command([wrong])


def test_a_channel_that_exits_ends_no_thread_and_is_told_of_the_next(house: House) -> None:
    told: list[Notice] = []

    def leave(notice: Notice) -> None:
        told.append(notice)
        raise SystemExit(1)

    jobs: list[Any] = []
    listener = Listener(leave, lambda job, **_: jobs.append(job), clock=house.clock)
    listener.hand("one")
    listener.hand("two")
    jobs.pop()()
    assert told == ["one", "two"]
    assert not jobs and listener._errand.idle, "nobody waits for it"


def test_each_failure_of_a_channel_is_logged_once_in_a_row(caplog: pytest.LogCaptureFixture) -> None:
    """What it reaches may be away for a while only, as a webhook's server may."""
    fails: list[Exception | None] = [OSError("away"), OSError("away"), OSError("full"), None, OSError("full")]
    heard: list[int] = []

    def flaky(n: int) -> None:
        heard.append(n)
        if (error := fails[n]) is not None:
            raise error

    listener = Listener(partial(flaky), None, clock=FakeClock())
    for n in range(len(fails)):
        listener.hand(n)
    assert heard == [0, 1, 2, 3, 4]
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == [
        "away",
        "full",
        "full",
    ]
    assert all("flaky raised on an alert, which it has not heard" in told for told in caplog.messages)


def test_a_plain_function_that_only_makes_a_coroutine_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    listener = Listener(lambda notice: _later(notice), None, clock=FakeClock())
    listener.hand("one")
    assert "it returned a coroutine, which nobody awaits" in caplog.text
