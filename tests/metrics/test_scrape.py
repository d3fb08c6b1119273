"""The endpoint answers whoever has the token, nobody else, and leaves nothing behind."""

from __future__ import annotations

import gc
import gzip
import http.client
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_nb.errors import ConfigError
from grym_nb.metrics import Metrics
from grym_nb.metrics.export import openmetrics, prometheus
from grym_nb.metrics.scrape import Endpoint, _answer, serve

OPEN = "application/openmetrics-text"
#: what Prometheus 2.42 and 3 ask for
ACCEPT_2 = f"{OPEN};version=1.0.0,{OPEN};version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
ACCEPT_3 = (
    f"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,"
    f"{OPEN};version=1.0.0;escaping=allow-utf-8;q=0.5,{OPEN};version=0.0.1;q=0.4,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)


@pytest.fixture
def metrics() -> Metrics:
    found = Metrics()
    found.counter("weights.shared", key="a", outcome="built").add(3)
    found.record("service.call.seconds", 0.004, service="a")
    return found


@pytest.fixture
def endpoint(metrics: Metrics) -> Iterator[Endpoint]:
    with serve(metrics) as serving:
        yield serving
    assert_nothing_is_left(serving)


def place(endpoint: Endpoint) -> tuple[str, int]:
    found = urllib.parse.urlsplit(endpoint.url)
    assert found.hostname is not None and found.port is not None
    return found.hostname, found.port


def connected(endpoint: Endpoint) -> socket.socket:
    return socket.create_connection(place(endpoint), timeout=30)


def assert_nothing_is_left(endpoint: Endpoint) -> None:
    assert endpoint.closed
    assert "grym-scrape" not in [thread.name for thread in threading.enumerate()]
    with pytest.raises(ConnectionRefusedError):
        connected(endpoint)


def ask(
    endpoint: Endpoint, method: str = "GET", path: str = "/metrics", **headers: str
) -> tuple[int, Mapping[str, str], bytes]:
    """Return status, headers and body; the token goes along unless another Authorization is given."""
    given = {"Authorization": f"Bearer {endpoint.token}"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection(*place(endpoint), timeout=30)
    try:
        connection.request(method, path, headers=given)
        reply = connection.getresponse()
        return reply.status, dict(reply.headers), reply.read()
    finally:
        connection.close()


def test_whoever_has_the_token_reads_the_metrics(endpoint: Endpoint, metrics: Metrics) -> None:
    status, headers, body = ask(endpoint)
    assert (status, body.decode()) == (200, prometheus(metrics))
    assert headers == {
        "Content-Type": "text/plain; version=0.0.4; charset=utf-8",
        "Vary": "Accept, Accept-Encoding",
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Connection": "close",
    }
    metrics.counter("weights.shared", key="a", outcome="built").add(1)
    assert b"} 4\n" in ask(endpoint, path="/metrics?format=x")[2]


@pytest.mark.parametrize(
    ("accept", "rich"),
    [
        (ACCEPT_2, True),
        (ACCEPT_3, True),
        (OPEN, True),
        (f'{OPEN}; version="1.0.0"; charset=utf-8', True),
        (f"{OPEN};q=0.5, text/plain;q=0.9", False),
        (f"{OPEN};q=0", False),
        (f"{OPEN};version=2.0.0", False),
        (f"{OPEN};q=nan", False),
        ("text/html, */*;q=0.8", False),
        ("*/*", False),
        ("image/png", False),
        ("", False),
    ],
)
def test_the_format_is_the_one_that_is_wished_for_most(
    endpoint: Endpoint, metrics: Metrics, accept: str, rich: bool
) -> None:
    _, headers, body = ask(endpoint, Accept=accept)
    kind = f"{OPEN}; version=1.0.0" if rich else "text/plain; version=0.0.4"
    assert headers["Content-Type"] == f"{kind}; charset=utf-8"
    assert body.decode() == (openmetrics if rich else prometheus)(metrics)


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [("gzip", True), ("br, GZIP;q=0.5", True), ("gzip;q=0", False), ("identity", False), ("", False)],
)
def test_it_is_packed_when_asked(endpoint: Endpoint, metrics: Metrics, encoding: str, packed: bool) -> None:
    _, headers, body = ask(endpoint, Accept_Encoding=encoding)
    assert headers.get("Content-Encoding") == ("gzip" if packed else None)
    assert (gzip.decompress(body) if packed else body).decode() == prometheus(metrics)


def test_head_is_get_without_the_body(endpoint: Endpoint, metrics: Metrics) -> None:
    status, headers, body = ask(endpoint, "HEAD")
    assert (status, body, headers) == (200, b"", ask(endpoint)[1])


def test_with_summary_it_serves_percentiles(metrics: Metrics) -> None:
    with serve(metrics, summary=True) as serving:
        assert ask(serving)[2].decode() == prometheus(metrics, summary=True)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_only_get_and_head_are_known(endpoint: Endpoint, method: str) -> None:
    status, headers, body = ask(endpoint, method)
    assert (status, headers["Allow"], body) == (405, "GET, HEAD", b"Method Not Allowed: use GET or HEAD\n")


@pytest.mark.parametrize(
    "path", ["/", "/metrics/", "/Metrics", "//metrics", "/metrics/../metrics", "/%6detrics"]
)
def test_there_is_one_page(endpoint: Endpoint, path: str) -> None:
    assert ask(endpoint, path=path)[::2] == (404, b"Not Found: ask for /metrics\n")


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer ", "Bearer wrong", "Basic {}", "{}", "Bearer {}x"]
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/metrics"), ("GET", "/"), ("POST", "/metrics")])
def test_without_the_token_nothing_is_told(
    endpoint: Endpoint, authorization: str, method: str, path: str
) -> None:
    status, headers, body = ask(endpoint, method, path, Authorization=authorization.format(endpoint.token))
    assert (status, headers["WWW-Authenticate"]) == (401, 'Bearer realm="grym_nb"')
    assert body == b"Unauthorized: send the token as Authorization: Bearer\n"


def test_a_token_in_the_address_is_not_taken(endpoint: Endpoint) -> None:
    assert ask(endpoint, path=f"/metrics?token={endpoint.token}", Authorization="")[0] == 401


def test_the_scheme_may_be_written_in_any_case(endpoint: Endpoint) -> None:
    assert ask(endpoint, Authorization=f"bearer {endpoint.token}")[0] == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:1234", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:80", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example:80", 403),
        ("127.0.0.1@evil.example", 403),
        ("127.0.0.1:x", 403),
        ("", 403),
    ],
)
def test_a_name_that_was_bent_to_here_is_refused_even_with_the_token(
    endpoint: Endpoint, host: str, status: int
) -> None:
    assert ask(endpoint, Host=host)[0] == status


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\n{auth}\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n{auth}\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n{auth}\r\n{auth}\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n{auth}\r\n folded\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost : localhost\r\n{auth}\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX:" + b" " * 15_000 + b"\0\r\n{auth}\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\n{auth}\r\n\r\n", 400),
        (b"GET http://localhost/metrics HTTP/1.1\r\nHost: localhost\r\n{auth}\r\n\r\n", 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET /metrics HTTP/2.0\r\nHost: localhost\r\n{auth}\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n{auth}\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Odd: \xff\xfe\r\n{auth}\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.1\r\nhost:localhost\r\nAccept: a\r\nAccept: b\r\n{auth}\r\n\r\n", 200),
    ],
)
def test_what_is_no_request_or_two_in_one_is_refused(
    endpoint: Endpoint, request_: bytes, status: int
) -> None:
    authorization = f"Authorization: Bearer {endpoint.token}".encode()
    with connected(endpoint) as client:
        client.sendall(request_.replace(b"{auth}", authorization))
        assert everything(client).startswith(f"HTTP/1.1 {status} ".encode())


@given(st.binary(max_size=300) | st.text("GET /metrics HTTP/1.\r\n:Host", max_size=80).map(str.encode))
def test_whatever_comes_is_answered_and_never_with_metrics(head: bytes) -> None:
    counted = Metrics()
    counted.counter("secret").add()
    reply = _answer(head + b"\r\n\r\n", metrics=counted, token="token", summary=False)
    assert reply.startswith(b"HTTP/1.1 4") and b"grym_secret" not in reply


def everything(client: socket.socket) -> bytes:
    found = b""
    while came := client.recv(65536):
        found += came
    return found


def good(endpoint: Endpoint) -> bytes:
    return (
        f"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {endpoint.token}\r\n\r\n".encode()
    )


def test_an_endless_request_is_refused(endpoint: Endpoint) -> None:
    with connected(endpoint) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 17 * 1024)
        assert everything(client).startswith(b"HTTP/1.1 431 ")


def test_a_request_may_come_in_pieces_and_bring_more_than_is_read(
    endpoint: Endpoint, metrics: Metrics
) -> None:
    request = good(endpoint)
    with connected(endpoint) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(request)):
            client.sendall(request[at : at + 1])
        client.sendall(b"x" * 20_000)
        assert everything(client).decode().endswith(prometheus(metrics))


def test_a_large_page_reaches_a_reader_that_takes_its_time(metrics: Metrics) -> None:
    for n in range(2000):
        metrics.record("service.call.seconds", 0.1, service="x" * 100, task=str(n))
    with serve(metrics) as serving, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(30)
        client.connect(place(serving))
        client.sendall(good(serving))
        assert client.recv(10).startswith(b"HTTP/1.1")
        assert ask(serving, "HEAD")[0] == 200  # meanwhile others are served
        assert everything(client).decode().endswith(prometheus(metrics))


def test_silent_clients_keep_nobody_waiting_and_the_oldest_makes_room(endpoint: Endpoint) -> None:
    silent = [connected(endpoint) for _ in range(40)]
    try:
        assert ask(endpoint)[0] == 200
        assert silent[0].recv(1) == b""  # dropped for others
        silent[-1].sendall(good(endpoint))
        assert everything(silent[-1]).startswith(b"HTTP/1.1 200 ")
    finally:
        for client in silent:
            client.close()


@pytest.mark.parametrize("said", [b"", b"GET /metr", None], ids=["nothing", "half", "all, and stays"])
def test_a_client_that_hangs_is_dropped_when_its_time_is_over(metrics: Metrics, said: bytes | None) -> None:
    with serve(metrics, timeout=1.0) as serving, connected(serving) as client:
        client.sendall(good(serving) if said is None else said)
        found = everything(client)  # ends when they hang up
        assert found.startswith(b"HTTP/1.1 200 ") if said is None else found == b""
        assert ask(serving)[0] == 200


def test_a_client_that_goes_in_the_middle_harms_nobody(endpoint: Endpoint) -> None:
    for said in (b"", b"GET", good(endpoint)):
        client = connected(endpoint)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # reset, not closed
        client.sendall(said)
        client.close()
    assert ask(endpoint)[0] == 200


def test_closing_does_not_wait_for_a_client(metrics: Metrics) -> None:
    serving = serve(metrics, timeout=3600.0)
    with connected(serving) as silent:
        silent.sendall(b"GET")
        serving.close()
        serving.close()
        assert_nothing_is_left(serving)
        with suppress(ConnectionResetError):  # or was hung up on before it was taken
            assert silent.recv(1) == b""
    assert repr(serving) == "<Endpoint: closed>"


def test_a_port_can_be_chosen_is_known_and_is_free_again(metrics: Metrics) -> None:
    with serve(metrics, token="mine") as first:
        port = place(first)[1]
        assert (first.token, repr(first)) == ("mine", f"<Endpoint: {first.url}>")
        assert first.url == f"http://127.0.0.1:{port}/metrics"
        assert ask(first)[0] == 200
        with pytest.raises(ConfigError, match="metrics cannot be served") as caught:
            serve(metrics, port=port)
        assert [(p.path, p.expected) for p in caught.value.problems] == [("port", "a free one, or 0 for any")]
    with serve(metrics, port=port) as again:
        assert (place(again)[1], ask(again)[0]) == (port, 200)
        assert again.token != first.token and len(again.token) >= 32
    assert_nothing_is_left(again)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"port": -1}, "port"),
        ({"port": 65536}, "port"),
        ({"port": True}, "port"),
        ({"port": "80"}, "port"),
        ({"token": ""}, "token"),
        ({"token": "two words"}, "token"),
        ({"token": "line\r\n"}, "token"),
        ({"token": "sesamé"}, "token"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
    ],
)
def test_what_cannot_be_served_is_said_before_anything_starts(
    metrics: Metrics, given: dict[str, Any], field: str
) -> None:
    with pytest.raises(ConfigError, match="metrics cannot be served") as caught:
        serve(metrics, **given)
    (problem,) = caught.value.problems
    assert problem.path == field
    assert given.get("token") in ("", None) or given["token"] not in str(problem)
    assert "grym-scrape" not in [thread.name for thread in threading.enumerate()]


def test_a_forgotten_endpoint_says_so_and_ends(metrics: Metrics) -> None:
    serving = serve(metrics)
    address, thread, gone = place(serving), serving._thread, ref(serving)
    with pytest.warns(ResourceWarning, match=r"<Endpoint: http://127.* was forgotten; close\(\) it"):
        del serving
        gc.collect()
    thread.join(30)
    assert gone() is None and not thread.is_alive()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


def test_metrics_that_cannot_be_written_are_said_and_the_endpoint_goes_on(
    endpoint: Endpoint, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    metrics.gauge("odd")._value = "many"  # type: ignore[assignment]
    status, _, body = ask(endpoint)
    assert (status, b"see the kernel's log" in body) == (500, True)
    assert "the metrics could not be written" in caplog.text
    metrics.gauge("odd").set(1)
    assert ask(endpoint)[0] == 200


def test_nothing_is_written_to_the_screen(
    endpoint: Endpoint, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for path in ("/metrics", "/", "/favicon.ico"):
        ask(endpoint, path=path)
    assert (capfd.readouterr(), caplog.text) == (("", ""), "")


def test_a_thread_that_cannot_start_leaves_nothing(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start"):
        serve(metrics, port=port)
    monkeypatch.undo()
    gc.collect()
    with serve(metrics, port=port) as again:
        assert ask(again)[0] == 200


def test_a_system_without_sockets_is_waited_for(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = iter([OSError(24, "Too many open files"), BlockingIOError(), ConnectionAbortedError()])
    accept = socket.socket.accept

    def scarce(self: socket.socket) -> Any:
        for error in refused:
            raise error
        return accept(self)

    monkeypatch.setattr(socket.socket, "accept", scarce)
    assert ask(endpoint)[0] == 200
    assert next(refused, None) is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_process_that_was_forked_neither_keeps_nor_ends_it(metrics: Metrics) -> None:
    serving = serve(metrics)
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what is tried here
        child = os.fork()
    if not child:
        os.close(write)
        serving.close()
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    try:
        assert ask(serving)[0] == 200
        serving.close()
        assert_nothing_is_left(serving)
        with serve(metrics, port=place(serving)[1]) as again:
            assert ask(again)[0] == 200
    finally:
        os.close(write)
        os.waitpid(child, 0)


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus: apt-get install prometheus")
@pytest.mark.parametrize("summary", [False, True])
def test_a_real_prometheus_scrapes_it_and_answers_queries(
    metrics: Metrics, tmp_path: Path, summary: bool
) -> None:
    hostile = 'C:\\"x"\n☃'
    metrics.gauge("service.memory.bytes", service=hostile).set(1.5)
    metrics.gauge("strange.number").set(float("nan"))
    with serve(metrics, summary=summary) as serving:
        queries = Queries(serving, tmp_path)
        try:
            assert queries("grym_weights_shared_total") == [({"key": "a", "outcome": "built"}, "3")]
            assert queries("grym_service_memory_bytes") == [({"service": hostile}, "1.5")]
            assert queries("grym_strange_number") == [({}, "NaN")]
            assert queries("grym_service_call_seconds_count") == [({"service": "a"}, "1")]
            told = (
                [("grym_service_call_seconds", "0.004")]
                if summary
                # within the bucket from 2.5 to 5 ms
                else [("histogram_quantile(0.5, grym_service_call_seconds_bucket)", "0.00375")]
            )
            for query, value in told:
                assert {found for _, found in queries(query)} == {value}
        finally:
            queries.close()


class Queries:
    """A Prometheus that scrapes one endpoint; called with a query, it returns labels and values."""

    def __init__(self, endpoint: Endpoint, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [
                {
                    "job_name": "grym",
                    "authorization": {"credentials": endpoint.token},
                    "static_configs": [{"targets": [":".join(map(str, place(endpoint)))]}],
                }
            ],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        self._url = f"http://127.0.0.1:{port}/api/v1/query?"
        self._log = (folder / "log").open("w+")
        self._process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def __call__(self, query: str, *, patience: float = 60.0) -> list[tuple[dict[str, str], str]]:
        until = time.monotonic() + patience
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(
                    self._url + urllib.parse.urlencode({"query": query}), timeout=10
                ) as r:
                    found = json.load(r)["data"]["result"]
            except OSError:
                found = []
            if found:
                return [(self._own(one["metric"]), one["value"][1]) for one in found]
            try:
                self._process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
            break
        self._log.seek(0)
        pytest.fail(f"no answer to {query}; prometheus says:\n{self._log.read()}")

    def _own(self, labels: dict[str, str]) -> dict[str, str]:
        return {key: value for key, value in labels.items() if key not in ("__name__", "instance", "job")}

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(60)
        self._log.close()


@pytest.mark.parametrize("wrong", [{"metrics": None}, {"timeout": "5"}, {"timeout": True}])
def test_what_cannot_be_served_is_said(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="metrics cannot be served"):
        serve(**{"metrics": Metrics(), **wrong})
